//! A small strict API server, and a controller's world that learns from it: a name exists once, an update or deletion needs
//! the version it saw.

use berth_api::{IPAddressPool, L2Advertisement};
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;
use serde_json::{Value, json};

use super::super::*;
use super::key;
use crate::args::DefaultProvider;
use crate::view::{AdvertisementView, NodeView, PoolView, SliceView};
use crate::world::Change;

#[derive(Debug, PartialEq)]
pub(super) struct Refused;

/// The API server and a controller's world that learns from it.
pub(super) struct Cluster {
    pub(super) world: World,
    pub(super) services: BTreeMap<ServiceKey, Service>,
    pub(super) announcements: BTreeMap<String, Announcement>,
    pub(super) version: u64,
    pub(super) writes: Vec<String>,
    pub(super) notes: Vec<String>,
}

impl Cluster {
    pub(super) fn new(pool: &[&str]) -> Self {
        let mut cluster = Self {
            world: World::default(),
            services: BTreeMap::new(),
            announcements: BTreeMap::new(),
            version: 0,
            writes: vec![],
            notes: vec![],
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
        let name = format!("node-{n}");
        let node: Node = serde_json::from_value(json!({
            "metadata": {"name": name, "labels": labels},
            "status": {"addresses": [{"type": "InternalIP", "address": format!("192.0.2.{}", 10 + n)}],
                       "conditions": [{"type": "Ready", "status": "True"}]},
        }))
        .unwrap();
        self.world.learn(Change::Node(name.clone(), Some(NodeView::of(&node))));
        let interfaces = serde_json::from_value(json!([
            {"name": "eth0", "mac": format!("02:00:00:00:00:{n:02x}"), "addresses": [format!("192.0.2.{}/24", 10 + n)]},
        ]));
        self.world.learn(Change::SpeakerNode(name, Some(interfaces.unwrap())));
    }

    pub(super) fn pool(&mut self, name: &str, addresses: &[&str]) {
        let pool: IPAddressPool = serde_json::from_value(json!({
            "apiVersion": "berth.dev/v1alpha1", "kind": "IPAddressPool", "metadata": {"name": name},
            "spec": {"addresses": addresses, "autoAssign": true},
        }))
        .unwrap();
        self.world.learn(Change::Pool(name.to_owned(), Some(PoolView::of(&pool))));
    }

    pub(super) fn advertise(&mut self, spec: Value) {
        self.version += 1;
        let ad: L2Advertisement = serde_json::from_value(json!({
            "apiVersion": "berth.dev/v1alpha1", "kind": "L2Advertisement",
            "metadata": {"name": "all", "generation": self.version}, "spec": spec,
        }))
        .unwrap();
        self.world.learn(Change::Advertisement("all".to_owned(), Some(AdvertisementView::of(&ad))));
    }

    pub(super) fn endpoints(&mut self, service: &str, nodes: &[&str]) {
        let endpoints: Vec<_> = nodes.iter().map(|n| json!({"addresses": ["10.0.0.1"], "nodeName": n})).collect();
        let slice: EndpointSlice = serde_json::from_value(json!({
            "metadata": {"name": service, "namespace": "shop", "labels": {"kubernetes.io/service-name": service}},
            "addressType": "IPv4", "endpoints": endpoints,
        }))
        .unwrap();
        self.world.learn(Change::Slice(("shop".to_owned(), service.to_owned()), SliceView::of(&slice)));
    }

    /// A user creates a Service or changes its specification.
    pub(super) fn apply(&mut self, name: &str, spec: Value) {
        let mut object =
            json!({"metadata": {"name": name, "namespace": "shop", "uid": format!("uid-{name}")}, "spec": spec});
        if object["spec"]["type"].is_null() {
            object["spec"]["type"] = json!("LoadBalancer");
        }
        let mut service: Service = serde_json::from_value(object).unwrap();
        service.status = self.services.get(&key(name)).and_then(|s| s.status.clone());
        self.services.insert(key(name), service);
        self.tell(name);
    }

    pub(super) fn delete(&mut self, name: &str) {
        self.services.remove(&key(name));
        self.tell(name);
    }

    pub(super) fn tell(&mut self, name: &str) {
        let view = self.services.get(&key(name)).and_then(|s| ServiceView::of(s, DefaultProvider::Pool));
        self.world.learn(Change::Service(key(name), view));
    }

    /// A speaker claims.
    pub(super) fn claim(&mut self, address: &str, node: &str, epoch: u64) {
        self.version += 1;
        let mut announcement = self.announcements[address].clone();
        announcement.metadata.resource_version = Some(self.version.to_string());
        let status = json!({"layer2": {"owner": node, "epoch": epoch, "since": "2026-01-01T00:00:00Z",
                            "mac": "02:00:00:00:00:01", "interface": "eth0"}});
        announcement.status = Some(serde_json::from_value(status).unwrap());
        self.announcements.insert(address.to_owned(), announcement);
        self.show(address);
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
        for _ in 0..200 {
            let Some(key) = self.world.next(|_| false) else { return };
            let plan = plan(&self.world, &key, Timestamp::UNIX_EPOCH);
            self.world.set_waiting(&key, plan.waiting);
            if let Some((address, pool)) = &plan.claims {
                self.world.hold(*address, &key, pool);
            }
            for step in plan.steps {
                let lost = fail.is_some_and(|n| (self.writes.len() + 1).is_multiple_of(n));
                if lost {
                    self.writes.push("lost".to_owned());
                }
                if lost || self.write(step).is_err() {
                    if let Some((address, _)) = plan.claims {
                        self.world.unhold(address);
                    }
                    self.world.mark(&key);
                    break;
                }
            }
        }
        panic!("does not settle: {:?}", self.writes);
    }

    pub(super) fn write(&mut self, step: Step) -> Result<(), Refused> {
        self.version += 1;
        let version = Some(self.version.to_string());
        match step {
            Step::Claim(address, mut announcement) => {
                self.writes.push(format!("claim {address}"));
                if self.announcements.contains_key(&address.to_string()) {
                    return Err(Refused);
                }
                announcement.metadata.resource_version = version;
                announcement.metadata.uid = Some(format!("uid-{}", self.version));
                self.announcements.insert(address.to_string(), *announcement);
                self.show(&address.to_string());
            }
            Step::Update(mut announcement) => {
                let name = announcement.name_any();
                self.writes.push(format!("update {name}"));
                let seen = self.announcements.get(&name).ok_or(Refused)?;
                if seen.metadata.resource_version != announcement.metadata.resource_version {
                    return Err(Refused);
                }
                announcement.metadata.resource_version = version;
                announcement.status = seen.status.clone();
                self.announcements.insert(name.clone(), *announcement);
                self.show(&name);
            }
            Step::Release(identity) => {
                self.writes.push(format!("release {}", identity.name));
                let seen = self.announcements.get(&identity.name).ok_or(Refused)?;
                if seen.metadata.resource_version.as_deref() != Some(&identity.resource_version) {
                    return Err(Refused);
                }
                self.announcements.remove(&identity.name);
                self.show(&identity.name);
            }
            Step::Status(status, notes) => {
                self.writes.push(format!("status {} {}", status.key.name, status.addresses.join(",")));
                self.notes.extend(notes.into_iter().map(|n| format!("{} {}", n.reason, n.message)));
                let service = self.services.get_mut(&status.key).ok_or(Refused)?;
                service.status = serde_json::from_value(status.body["status"].clone()).unwrap();
                self.tell(&status.key.name);
            }
        }
        Ok(())
    }

    pub(super) fn writes(&mut self) -> Vec<String> {
        std::mem::take(&mut self.writes)
    }

    pub(super) fn ingress(&self, name: &str) -> Option<String> {
        let view = ServiceView::of(&self.services[&key(name)], DefaultProvider::Pool)?;
        view.previous().map(|a| a.to_string())
    }

    pub(super) fn condition(&self, name: &str, kind: &str) -> String {
        let view = ServiceView::of(&self.services[&key(name)], DefaultProvider::Pool).unwrap();
        let condition = view.conditions.iter().find(|c| c.type_ == kind).unwrap();
        format!("{} {} {}", condition.status, condition.reason, condition.message)
    }

    pub(super) fn owner(&self, address: &str) -> Option<String> {
        self.announcements[address].spec.layer2.as_ref()?.owner.clone()
    }
}
