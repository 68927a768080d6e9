//! A small strict API server, and a controller's world that learns from it: a name exists once, an update, a deletion or a
//! status needs the version that it is based on.

use std::collections::BTreeMap;

use berth_api::crd::{CoolingDown, IPAddressPoolStatus, Quarantined, RefusedRoute, RouteRefusal};
use berth_api::names::announcement_name;
use berth_api::{IPAddressPool, L2Advertisement, RouteAdvertisement};
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;
use serde_json::{Value, json};

use berth_api::Announcement;
use berth_pool::plan::Step as PoolStep;
use berth_pool::report::OwnStatus;
use berth_pool::view::ServiceView;

use super::super::*;
use super::key;
use berth_pool::view::{AdvertisementView, AnnouncementView, NodeView, PoolView, Report, SliceView};
use berth_pool::world::Change;

/// The API server's no.
#[derive(Debug, PartialEq)]
pub(super) enum Refused {
    /// The name is taken, or the object is gone or another.
    Other,
    /// There is a Service that the watch has not shown.
    Behind,
    /// The Service has changed since this version.
    Outdated(u64),
}

/// The name of an address's Announcement; a name is left as it is.
pub(super) fn named(address: &str) -> String {
    address.parse().map_or(address.to_owned(), announcement_name)
}

/// The API server and a controller's world that learns from it.
pub(super) struct Cluster {
    pub(super) world: World,
    pub(super) services: BTreeMap<ServiceKey, Service>,
    pub(super) announcements: BTreeMap<String, Announcement>,
    pub(super) version: u64,
    /// The watch of Services shows nothing for now.
    pub(super) behind: bool,
    pub(super) writes: Vec<String>,
    pub(super) notes: Vec<String>,
    pub(super) pools: BTreeMap<String, IPAddressPool>,
    /// In seconds since 1970.
    pub(super) now: i64,
}

impl Cluster {
    pub(super) fn new(pool: &[&str]) -> Self {
        let mut cluster = Self {
            world: World::default(),
            services: BTreeMap::new(),
            announcements: BTreeMap::new(),
            version: 0,
            behind: false,
            writes: vec![],
            notes: vec![],
            pools: BTreeMap::new(),
            now: 1_000_000,
        };
        for n in 1..=3 {
            cluster.node(n, json!({}));
        }
        cluster.pool("default", pool);
        cluster.advertise(json!({}));
        cluster
    }

    /// A Service `web` that holds 192.0.2.200, and a node that answers for it.
    pub(super) fn answered() -> Self {
        let mut cluster = Self::new(&["192.0.2.200-192.0.2.210"]);
        cluster.apply("web", json!({}));
        cluster.settle(None);
        let owner = cluster.owner("192.0.2.200").unwrap();
        cluster.claim("192.0.2.200", &owner, 1);
        cluster.settle(None);
        cluster.writes();
        cluster
    }

    pub(super) fn node(&mut self, n: u8, labels: Value) {
        self.node_with(n, json!({"labels": labels}), json!({}));
    }

    /// With these annotations or labels, and this specification.
    pub(super) fn node_with(&mut self, n: u8, metadata: Value, spec: Value) {
        let name = format!("node-{n}");
        let mut metadata = metadata;
        metadata["name"] = json!(name);
        let node: Node = serde_json::from_value(json!({
            "metadata": metadata,
            "spec": spec,
            "status": {"addresses": [{"type": "InternalIP", "address": format!("192.0.2.{}", 10 + n)},
                                     {"type": "InternalIP", "address": format!("2001:db8:2::{}", 10 + n)}],
                       "conditions": [{"type": "Ready", "status": "True"}]},
        }))
        .unwrap();
        self.world.learn(Change::Node(name.clone(), Some(NodeView::of(&node))));
        let interfaces = serde_json::from_value(json!([
            {"name": "eth0", "mac": format!("02:00:00:00:00:{n:02x}"), "addresses": [format!("192.0.2.{}/24", 10 + n), format!("2001:db8:2::{}/64", 10 + n)]},
        ]));
        let report = Report { interfaces: interfaces.unwrap(), ..Report::default() };
        self.world.learn(Change::SpeakerNode(name, Some(report)));
    }

    /// The speaker of a node says what forwards there.
    pub(super) fn dataplane(&mut self, n: u8, dataplane: Value) {
        let interfaces = self.world.nodes()[&format!("node-{n}")].interfaces.clone();
        let dataplane = serde_json::from_value(dataplane).unwrap();
        let report = Report { interfaces, dataplane, ..Report::default() };
        self.world.learn(Change::SpeakerNode(format!("node-{n}"), Some(report)));
    }

    /// A node's SpeakerNode says that it asks for these, and found these machines.
    pub(super) fn report(&mut self, n: u8, sweep: &[IpAddr], found: &[(&str, &str)]) {
        let found: Vec<_> = found.iter().map(|(address, mac)| json!({"address": address, "mac": mac})).collect();
        let node: berth_api::SpeakerNode = serde_json::from_value(json!({
            "apiVersion": "berth.dev/v1alpha1", "kind": "SpeakerNode", "metadata": {"name": format!("node-{n}")},
            "spec": {"version": "1", "found": found, "interfaces": [
                {"name": "eth0", "mac": format!("02:00:00:00:00:{n:02x}"), "addresses": [format!("192.0.2.{}/24", 10 + n), format!("2001:db8:2::{}/64", 10 + n)]},
            ]},
            "status": {"sweep": sweep},
        }))
        .unwrap();
        self.world.learn(Change::SpeakerNode(format!("node-{n}"), Some(Report::of(&node))));
    }

    pub(super) fn pool(&mut self, name: &str, addresses: &[&str]) {
        self.pool_with(name, json!({"addresses": addresses}));
    }

    pub(super) fn pool_with(&mut self, name: &str, spec: Value) {
        let pool: IPAddressPool = serde_json::from_value(json!({
            "apiVersion": "berth.dev/v1alpha1", "kind": "IPAddressPool",
            "metadata": {"name": name, "uid": format!("uid-of-{name}")}, "spec": spec,
        }))
        .unwrap();
        let before = self.pools.remove(name).and_then(|pool| pool.status);
        self.show_pool(IPAddressPool { status: before, ..pool });
    }

    fn show_pool(&mut self, mut pool: IPAddressPool) {
        let name = pool.name_any();
        self.version += 1;
        pool.metadata.resource_version = Some(self.version.to_string());
        self.world.learn(Change::Pool(name.clone(), Some(PoolView::of(&pool))));
        self.pools.insert(name, pool);
    }

    /// The status of every pool whose status has changed is written and shown; what it says of addresses that cool down.
    pub(super) fn write_pools(&mut self) -> Vec<String> {
        let (now, dirty) = (self.now, self.world.take_dirty_pools());
        let mut told = Vec::new();
        for name in dirty {
            let Some(pool) = self.pools.get(&name).cloned() else { continue };
            let (cooling, report) = (self.world.cooling(&name, now), self.world.ipam.report(&name).unwrap());
            let now = Timestamp::from_second(now).unwrap();
            let quarantined = self.world.quarantined(&name, now.as_second());
            let change =
                berth_pool::report::pool_change(&name, &PoolView::of(&pool), report, &cooling, &quarantined, now);
            let Some(change) = change else { continue };
            told.extend(self.write_pool(&change).unwrap());
        }
        told
    }

    /// The status of a pool is written and shown, if the pool is still the one that it was planned on.
    pub(super) fn write_pool(&mut self, change: &OwnStatus) -> Result<Vec<String>, Refused> {
        let mut pool = self.pools[&change.name].clone();
        let metadata = &change.body["metadata"];
        let based_on = [&metadata["uid"], &metadata["resourceVersion"]].map(|field| field.as_str().map(str::to_owned));
        if based_on != [pool.metadata.uid.clone(), pool.metadata.resource_version.clone()] {
            return Err(Refused::Other);
        }
        let status: IPAddressPoolStatus = serde_json::from_value(change.body["status"].clone()).unwrap();
        let told = |c: &CoolingDown| format!("{} {} {}", change.name, c.addresses, c.until.0.as_second());
        let told = status.cooling_down.iter().map(told).collect();
        pool.status = Some(status);
        self.show_pool(pool);
        Ok(told)
    }

    pub(super) fn namespace(&mut self, name: &str, labels: Value) {
        let labels = serde_json::from_value(labels).unwrap();
        self.world.learn(Change::Namespace(name.to_owned(), Some(labels)));
    }

    pub(super) fn advertise(&mut self, spec: Value) {
        self.advertise_as("all", spec);
    }

    pub(super) fn advertise_as(&mut self, name: &str, spec: Value) {
        self.version += 1;
        let ad: L2Advertisement = serde_json::from_value(json!({
            "apiVersion": "berth.dev/v1alpha1", "kind": "L2Advertisement",
            "metadata": {"name": name, "generation": self.version}, "spec": spec,
        }))
        .unwrap();
        self.world.learn(Change::Advertisement(name.to_owned(), Some(AdvertisementView::of(&ad))));
    }

    /// A RouteAdvertisement `routes` of this specification.
    pub(super) fn advertise_routes(&mut self, spec: Value) {
        self.version += 1;
        let ad: RouteAdvertisement = serde_json::from_value(json!({
            "apiVersion": "berth.dev/v1alpha1", "kind": "RouteAdvertisement",
            "metadata": {"name": "routes", "generation": self.version}, "spec": spec,
        }))
        .unwrap();
        self.world.learn(Change::RouteAdvertisement("routes".to_owned(), Some(AdvertisementView::of_routes(&ad))));
    }

    /// What the speaker of a node reports that may make routes, and cannot route these addresses.
    pub(super) fn routes_on(&mut self, n: u8, refused: &[&str]) {
        let refuse = |address: &&str| RefusedRoute {
            address: address.parse().unwrap(),
            reason: RouteRefusal::RouteTaken,
            message: "taken".to_owned(),
        };
        let refused = refused.iter().map(refuse).collect();
        let report = Report { routes: true, refused, ..Report::default() };
        self.world.learn(Change::SpeakerNode(format!("node-{n}"), Some(report)));
    }

    pub(super) fn endpoints(&mut self, service: &str, nodes: &[&str]) {
        self.endpoints_of(service, "IPv4", nodes);
    }

    pub(super) fn endpoints_of(&mut self, service: &str, address_type: &str, nodes: &[&str]) {
        let endpoints: Vec<_> = nodes.iter().map(|n| json!({"addresses": ["10.0.0.1"], "nodeName": n})).collect();
        let slice: EndpointSlice = serde_json::from_value(json!({
            "metadata": {"namespace": "shop", "labels": {"kubernetes.io/service-name": service}},
            "addressType": address_type, "endpoints": endpoints,
        }))
        .unwrap();
        let name = format!("{service}-{address_type}");
        self.world.learn(Change::Slice(("shop".to_owned(), name), SliceView::of(&slice)));
    }

    /// A user creates a Service or changes its specification.
    pub(super) fn apply(&mut self, name: &str, spec: Value) {
        self.apply_with(name, spec, json!({}));
    }

    pub(super) fn apply_with(&mut self, name: &str, spec: Value, annotations: Value) {
        self.version += 1;
        let before = self.services.get(&key(name));
        let uid = before.map_or(format!("uid-{}", self.version), |s| s.metadata.uid.clone().unwrap());
        let metadata = json!({"name": name, "namespace": "shop", "uid": uid, "resourceVersion": self.version.to_string(),
                              "annotations": annotations});
        let mut object = json!({"metadata": metadata, "spec": spec});
        if object["spec"]["type"].is_null() {
            object["spec"]["type"] = json!("LoadBalancer");
        }
        let mut service: Service = serde_json::from_value(object).unwrap();
        service.status = before.and_then(|s| s.status.clone());
        self.services.insert(key(name), service);
        self.tell(name);
    }

    /// A user changes the labels of a Service.
    pub(super) fn label(&mut self, name: &str, labels: Value) {
        self.version += 1;
        let metadata = &mut self.services.get_mut(&key(name)).unwrap().metadata;
        metadata.labels = Some(serde_json::from_value(labels).unwrap());
        metadata.resource_version = Some(self.version.to_string());
        self.tell(name);
    }

    pub(super) fn delete(&mut self, name: &str) {
        self.services.remove(&key(name));
        self.tell(name);
    }

    pub(super) fn tell(&mut self, name: &str) {
        if self.behind {
            return;
        }
        let view = self.services.get(&key(name)).and_then(viewed);
        self.world.learn(Change::Service(key(name), view));
    }

    /// The watch shows the present, which the names are part of.
    pub(super) fn catch_up(&mut self, names: impl IntoIterator<Item = String>) {
        self.behind = false;
        for name in names {
            self.tell(&name);
        }
    }

    /// A speaker claims.
    pub(super) fn claim(&mut self, address: &str, node: &str, epoch: u64) {
        self.version += 1;
        let name = &named(address);
        let mut announcement = self.announcements[name].clone();
        announcement.metadata.resource_version = Some(self.version.to_string());
        let status = json!({"layer2": {"owner": node, "epoch": epoch, "since": "2026-01-01T00:00:00Z",
                            "mac": "02:00:00:00:00:01", "interface": "eth0"}});
        announcement.status = Some(serde_json::from_value(status).unwrap());
        self.announcements.insert(name.clone(), announcement);
        self.show(name);
    }

    /// The speaker that was to answer says that a machine which is none of our nodes has the address; nobody answers.
    pub(super) fn conflict(&mut self, address: &str, mac: &str) {
        let message = format!("node-1 does not answer on eth0, because the machine with {mac} has the address too");
        self.speaker_says(
            address,
            json!({"foreign": mac, "conditions": [
                {"type": "Ready", "status": "False", "reason": "AddressConflict", "message": message, "lastTransitionTime": "2026-01-01T00:00:00Z"},
            ]}),
        );
    }

    /// The status of an Announcement is this now.
    pub(super) fn speaker_says(&mut self, address: &str, status: Value) {
        self.version += 1;
        let name = &named(address);
        let announcement = self.announcements.get_mut(name).unwrap();
        announcement.metadata.resource_version = Some(self.version.to_string());
        announcement.status = Some(serde_json::from_value(status).unwrap());
        self.show(name);
    }

    /// What the pools' statuses say of quarantine: address, machine, and for how many seconds.
    pub(super) fn quarantined(&self) -> Vec<String> {
        let all = self.pools.values().filter_map(|pool| pool.status.as_ref()).flat_map(|status| &status.quarantined);
        let seconds = |q: &Quarantined| q.until.0.as_second() - q.since.0.as_second();
        all.map(|q| format!("{} {} {}", q.address, q.mac, seconds(q))).collect()
    }

    /// Somebody changes the metadata of an Announcement.
    pub(super) fn edit(&mut self, address: &str, change: impl FnOnce(&mut kube::core::ObjectMeta)) {
        self.version += 1;
        let name = &named(address);
        let meta = &mut self.announcements.get_mut(name).unwrap().metadata;
        change(meta);
        meta.resource_version = Some(self.version.to_string());
        self.show(name);
    }

    /// An Announcement whose owner has not claimed it yet.
    pub(super) fn unanswered(&self) -> Option<(String, String, u64)> {
        self.announcements.iter().find_map(|(name, announcement)| {
            let layer2 = announcement.spec.layer2.as_ref()?;
            let owner = layer2.owner.clone()?;
            let claimed = AnnouncementView::of(announcement).claimed;
            (claimed != Some((owner.clone(), layer2.epoch))).then_some((name.clone(), owner, layer2.epoch))
        })
    }

    pub(super) fn show(&mut self, name: &str) {
        let view = self.announcements.get(name).map(AnnouncementView::of);
        self.world.learn(Change::Announcement(name.to_owned(), view));
    }

    /// Plans and applies until there is nothing left to do; every `fail`th write is lost.
    pub(super) fn settle(&mut self, fail: Option<usize>) {
        self.world.quarantine_found(self.now);
        for _ in 0..400 {
            let Some(key) = self.world.next(|_| false) else { return };
            let mut plan = plan(&self.world, &BTreeMap::new(), &key, Timestamp::from_second(self.now).unwrap());
            self.world.set_waiting(&key, plan.lack.take(), &plan.claims);
            plan.cool.iter().for_each(|address| self.world.cool(*address, self.now));
            plan.kept.iter().for_each(|address| self.world.warm(*address));
            for (address, pool) in &plan.claims {
                self.world.hold(*address, &key, pool);
            }
            let names: Vec<_> = plan.names().map(|(address, layer2)| (address, layer2.cloned())).collect();
            for (address, layer2) in &names {
                self.world.foresee(*address, layer2.as_ref());
            }
            for step in plan.steps {
                let lost = fail.is_some_and(|n| (self.writes.len() + 1).is_multiple_of(n));
                if lost {
                    self.writes.push("lost".to_owned());
                }
                let Err(refused) = (if lost { Err(Refused::Other) } else { self.write(step) }) else { continue };
                for (address, _) in &plan.claims {
                    self.world.unhold(*address);
                }
                match refused {
                    Refused::Other => self.world.mark(&key),
                    // Tried again after a while; until then nothing else can come of it.
                    Refused::Behind => {}
                    Refused::Outdated(planned_on) => self.world.is_outdated(&key, planned_on),
                }
                break;
            }
            for (address, _) in names {
                self.world.unforesee(address);
            }
        }
        panic!("does not settle: {:?}", &self.writes[..self.writes.len().min(24)]);
    }

    pub(super) fn write(&mut self, step: Step) -> Result<(), Refused> {
        self.version += 1;
        let version = Some(self.version.to_string());
        match step {
            Step::Pool(PoolStep::Claim { address, mut announcement }) => {
                self.writes.push(format!("claim {address}"));
                let name = announcement.name_any();
                assert_eq!(name, announcement_name(address));
                if self.announcements.contains_key(&name) {
                    return Err(Refused::Other);
                }
                announcement.metadata.resource_version = version;
                announcement.metadata.uid = Some(format!("uid-{}", self.version));
                self.announcements.insert(name.clone(), *announcement);
                self.show(&name);
            }
            Step::Pool(PoolStep::Update { mut announcement }) => {
                let name = announcement.name_any();
                self.writes.push(format!("update {name}"));
                let seen = self.announcements.get(&name).ok_or(Refused::Other)?;
                if seen.metadata.resource_version != announcement.metadata.resource_version {
                    return Err(Refused::Other);
                }
                announcement.metadata.resource_version = version;
                announcement.status = seen.status.clone();
                self.announcements.insert(name.clone(), *announcement);
                self.show(&name);
            }
            Step::Pool(PoolStep::Release(identity)) => {
                self.writes.push(format!("release {}", identity.name));
                let seen = self.announcements.get(&identity.name).ok_or(Refused::Other)?;
                if seen.metadata.resource_version.as_deref() != Some(&identity.resource_version) {
                    return Err(Refused::Other);
                }
                self.announcements.remove(&identity.name);
                self.show(&identity.name);
            }
            Step::Gone(key) => {
                if self.services.get(&key).and_then(viewed).is_some() {
                    return Err(Refused::Behind);
                }
            }
            Step::Status(status, notes) => {
                self.writes.push(format!("status {} {}", status.key.name, status.addresses.join(",")));
                // A uid without an object is a conflict too.
                let outdated = Refused::Outdated(status.planned_on);
                let Some(service) = self.services.get_mut(&status.key) else { return Err(outdated) };
                let metadata = &mut service.metadata;
                let based_on = [&status.body["metadata"]["uid"], &status.body["metadata"]["resourceVersion"]];
                if based_on.map(Value::as_str) != [metadata.uid.as_deref(), metadata.resource_version.as_deref()] {
                    self.writes.push("conflict".to_owned());
                    return Err(outdated);
                }
                self.notes.extend(notes.into_iter().map(|n| format!("{} {}", n.reason, n.message)));
                metadata.resource_version = version;
                service.status = serde_json::from_value(status.body["status"].clone()).unwrap();
                self.world.status_written(&status.key, self.version);
                self.tell(&status.key.name);
            }
        }
        Ok(())
    }

    pub(super) fn writes(&mut self) -> Vec<String> {
        std::mem::take(&mut self.writes)
    }

    pub(super) fn ingress(&self, name: &str) -> Option<String> {
        let view = viewed(&self.services[&key(name)])?;
        let addresses: Vec<_> = view.addresses().map(|a| a.to_string()).collect();
        (!addresses.is_empty()).then(|| addresses.join(" "))
    }

    pub(super) fn condition(&self, name: &str, kind: &str) -> String {
        let status = self.services[&key(name)].status.as_ref().unwrap();
        let condition = status.conditions.iter().flatten().find(|c| c.type_ == kind).unwrap();
        format!("{} {} {}", condition.status, condition.reason, condition.message)
    }

    pub(super) fn owner(&self, address: &str) -> Option<String> {
        self.announcements[&named(address)].spec.layer2.as_ref()?.owner.clone()
    }
}

/// A Service as the watch of a controller shows it that serves those without a class from the pools.
pub(super) fn viewed(service: &Service) -> Option<ServiceView> {
    let pool = berth_provider::class::ProviderName::Pool;
    let classes = berth_provider::class::Classes::new(&[pool].into(), &[], Some(pool)).unwrap();
    ServiceView::of(service, (&classes.of(service)).into())
}
