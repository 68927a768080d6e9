//! The objects that are planned with: a cluster's, those of files, or the one laid over the other.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::str::FromStr;

use berth_api::service::ServiceKey;
use berth_api::{Announcement, IPAddressPool, L2Advertisement, RouteAdvertisement, SpeakerNode};
use berth_pool::forecast::places;
use berth_pool::view::{
    self, AdvertisementView, AnnouncementView, Asks, NodeView, PoolView, Report, ServiceView, SliceView,
};
use berth_pool::world::{Change, World};
use berth_provider::class::Classes;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::core::ObjectMeta;

use super::load::Object;
use crate::collect::SERVICE_NAME_LABEL;
use crate::observed::{Everything, Seen};
use crate::run::RunError;

/// Every namespace has this label with its name (Kubernetes sets it).
const NAMESPACE_NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// The Service that every cluster has, whose families are the cluster's own.
const KUBERNETES: (&str, &str) = ("default", "kubernetes");
const LOAD_BALANCER: &str = "LoadBalancer";
const IPV4: &str = "IPv4";
/// Policies by which a Service has both families, the first where the cluster has both.
const DUAL_STACK: [&str; 2] = ["PreferDualStack", "RequireDualStack"];

type Id = (String, String);

/// All objects that have a part.
#[derive(Clone, Debug)]
pub struct Objects {
    services: BTreeMap<Id, Service>,
    namespaces: BTreeMap<String, Namespace>,
    service_cidrs: BTreeMap<String, ServiceCIDR>,
    nodes: BTreeMap<String, Node>,
    slices: BTreeMap<Id, EndpointSlice>,
    announcements: BTreeMap<String, Announcement>,
    pools: BTreeMap<String, IPAddressPool>,
    advertisements: BTreeMap<String, L2Advertisement>,
    route_advertisements: BTreeMap<String, RouteAdvertisement>,
    speaker_nodes: BTreeMap<String, SpeakerNode>,
    /// Services that were laid over, or are new.
    edited: BTreeSet<Id>,
    /// Services as they were before they were laid over or taken away.
    was: BTreeMap<Id, Service>,
    /// Whether there is a cluster below, whose controllers alone write statuses of Services.
    over_cluster: bool,
    /// When what is new is made.
    now: Timestamp,
}

impl Objects {
    /// No objects.
    pub fn of_nothing(now: Timestamp) -> Self {
        Self {
            services: BTreeMap::new(),
            namespaces: BTreeMap::new(),
            service_cidrs: BTreeMap::new(),
            nodes: BTreeMap::new(),
            slices: BTreeMap::new(),
            announcements: BTreeMap::new(),
            pools: BTreeMap::new(),
            advertisements: BTreeMap::new(),
            route_advertisements: BTreeMap::new(),
            speaker_nodes: BTreeMap::new(),
            edited: BTreeSet::new(),
            was: BTreeMap::new(),
            over_cluster: false,
            now,
        }
    }

    /// Those of a cluster.
    pub fn of_cluster(all: Everything, now: Timestamp, notes: &mut Vec<String>) -> Result<Self, RunError> {
        if let Some(error) = super::incomplete(&all) {
            return Err(error);
        }
        if matches!(all.pools, Seen::KindMissing) {
            notes.push(
                "note: the API server does not know Berth's kinds: what is planned is that it is installed".to_owned(),
            );
        }
        Ok(Self {
            services: namespaced(all.services, |service| &service.metadata),
            namespaces: named(all.namespaces, |namespace| &namespace.metadata),
            service_cidrs: named(all.service_cidrs, |cidr| &cidr.metadata),
            nodes: named(all.nodes, |node| &node.metadata),
            slices: namespaced(all.slices, |slice| &slice.metadata),
            announcements: named(all.announcements, |announcement| &announcement.metadata),
            pools: named(all.pools, |pool| &pool.metadata),
            advertisements: named(all.advertisements, |ad| &ad.metadata),
            route_advertisements: named(all.route_advertisements, |ad| &ad.metadata),
            speaker_nodes: named(all.speakers, |speaker| &speaker.metadata),
            over_cluster: true,
            ..Self::of_nothing(now)
        })
    }

    /// Puts an object in place of the one of its name, or adds it. What the API server fills in and the file leaves out stays.
    pub fn lay(&mut self, object: Object, notes: &mut Vec<String>) {
        let now = self.now;
        match object {
            Object::Service(service) => self.lay_service(*service, notes),
            Object::Namespace(new) => put(&mut self.namespaces, *new, |o| &mut o.metadata, now, |_, _| {}),
            Object::ServiceCidr(new) => put(&mut self.service_cidrs, *new, |o| &mut o.metadata, now, |_, _| {}),
            Object::Node(new) => put(
                &mut self.nodes,
                *new,
                |o| &mut o.metadata,
                now,
                |new, old| {
                    new.status = new.status.take().or_else(|| old.status.clone());
                },
            ),
            Object::Slice(slice) => {
                let id = id_of(&slice.metadata);
                self.slices.insert(id, *slice);
            }
            Object::Announcement(new) => put(
                &mut self.announcements,
                *new,
                |o| &mut o.metadata,
                now,
                |new, old| {
                    new.status = new.status.take().or_else(|| old.status.clone());
                },
            ),
            Object::Pool(new) => put(
                &mut self.pools,
                *new,
                |o| &mut o.metadata,
                now,
                |new, old| {
                    new.status = new.status.take().or_else(|| old.status.clone());
                },
            ),
            Object::Advertisement(new) => put(
                &mut self.advertisements,
                *new,
                |o| &mut o.metadata,
                now,
                |new, old| {
                    new.status = new.status.take().or_else(|| old.status.clone());
                },
            ),
            Object::RouteAdvertisement(new) => put(
                &mut self.route_advertisements,
                *new,
                |o| &mut o.metadata,
                now,
                |new, old| {
                    new.status = new.status.take().or_else(|| old.status.clone());
                },
            ),
            Object::SpeakerNode(new) => put(&mut self.speaker_nodes, *new, |o| &mut o.metadata, now, |_, _| {}),
        }
    }

    fn lay_service(&mut self, mut new: Service, notes: &mut Vec<String>) {
        let id = id_of(&new.metadata);
        if let Some(old) = self.services.get(&id) {
            self.was.entry(id.clone()).or_insert_with(|| old.clone());
            inherit(&mut new.metadata, &old.metadata);
            // In a cluster only controllers write it; in a file it may stand as it was then.
            if self.over_cluster || new.status.is_none() {
                new.status.clone_from(&old.status);
            }
            if let (Some(new), Some(old)) = (&mut new.spec, &old.spec) {
                let named = new.ip_families.is_some();
                new.ip_families = new.ip_families.take().or_else(|| old.ip_families.clone());
                new.ip_family_policy = new.ip_family_policy.take().or_else(|| old.ip_family_policy.clone());
                new.cluster_ip = new.cluster_ip.take().or_else(|| old.cluster_ip.clone());
                new.cluster_ips = new.cluster_ips.take().or_else(|| old.cluster_ips.clone());
                if let (Some("SingleStack"), Some(families), false) =
                    (new.ip_family_policy.as_deref(), &mut new.ip_families, named)
                {
                    families.truncate(1);
                }
                let both = [&*new, old].iter().all(|spec| spec.type_.as_deref() == Some(LOAD_BALANCER));
                if both && new.load_balancer_class != old.load_balancer_class {
                    new.load_balancer_class.clone_from(&old.load_balancer_class);
                    notes.push(format!(
                            "warning: Service {}/{}: `spec.loadBalancerClass` cannot be changed, so it is planned as it is; \
                             delete the Service and create it again",
                            id.0, id.1
                        ));
                }
            }
        } else {
            newborn(&mut new.metadata, self.now);
            if self.over_cluster {
                new.status = None;
            }
        }
        self.edited.insert(id.clone());
        self.services.insert(id, new);
    }

    /// Gives edited Services the families that the API server would, as far as the other objects tell what the cluster has. Where
    /// none does, a Service has what it asks for.
    pub fn fill_in_families(&mut self, notes: &mut Vec<String>) {
        let families =
            |service: &Service| service.spec.as_ref().and_then(|spec| spec.ip_families.clone()).unwrap_or_default();
        let primary = self.services.get(&(KUBERNETES.0.to_owned(), KUBERNETES.1.to_owned())).map(families);
        let primary = primary.and_then(|families| families.first().cloned());
        let has_both = self.has_both_families(families);
        let over_cluster = self.over_cluster;
        for (id, service) in self.services.iter_mut().filter(|(id, _)| self.edited.contains(id)) {
            let Some(spec) = service.spec.as_mut() else { continue };
            let has_address = spec.cluster_ip.as_deref().is_some_and(is_address);
            let known = spec.ip_families.as_ref().is_some_and(|families| !families.is_empty()) || has_address;
            let policy = spec.ip_family_policy.clone().filter(|policy| DUAL_STACK.contains(&policy.as_str()));
            // What was made has what the cluster could give.
            let both = policy.is_some() && has_both.unwrap_or(!over_cluster && !has_address);
            if !known && (primary.is_some() || both) {
                spec.ip_families = Some(vec![primary.clone().unwrap_or_else(|| IPV4.to_owned())]);
            }
            let (true, Some([only])) = (both, spec.ip_families.as_deref()) else { continue };
            let (first, other) = (only.clone(), if only == IPV4 { "IPv6" } else { IPV4 });
            if has_both.is_none() || (!known && primary.is_none()) {
                notes.push(format!(
                    "note: Service {}/{}: which families the cluster has is not in the files, so it gets both, as its ipFamilyPolicy {} says, \
                     {first} first: add `kubectl get servicecidrs -o yaml`, and the Service default/kubernetes",
                    id.0,
                    id.1,
                    policy.unwrap_or_default()
                ));
            }
            spec.ip_families = Some(vec![first, other.to_owned()]);
        }
    }

    /// Whether the cluster has both families, as far as its objects tell.
    fn has_both_families(&self, families: impl Fn(&Service) -> Vec<String>) -> Option<bool> {
        if self.services.values().any(|service| families(service).len() > 1) {
            return Some(true);
        }
        // Every range of Services has one network for each family of the cluster.
        let ranges = self.service_cidrs.values().filter_map(|cidr| Some(cidr.spec.as_ref()?.cidrs.as_ref()?.len()));
        if let Some(most) = ranges.max() {
            return Some(most > 1);
        }
        // One that was made got but one family, although it would have liked both.
        let got_one = |service: &Service| {
            let spec = service.spec.as_ref();
            let policy = spec.and_then(|spec| spec.ip_family_policy.as_deref());
            policy == Some(DUAL_STACK[0]) && spec.and_then(|spec| spec.cluster_ip.as_deref()).is_some_and(is_address)
        };
        let is_live = self.services.keys().any(|id| self.over_cluster && !self.edited.contains(id));
        (is_live || self.services.values().any(got_one)).then_some(false)
    }

    /// Takes an object away.
    pub fn remove(&mut self, removal: &Removal, namespace: &str) -> Result<(), RemovalError> {
        let Removal { kind, namespace: named, name } = removal;
        let id = (named.clone().unwrap_or_else(|| namespace.to_owned()), name.clone());
        let there = match kind {
            Kind::Service => {
                // Its EndpointSlices go with it.
                self.slices.retain(|(of, _), slice| {
                    let labels = slice.metadata.labels.as_ref();
                    *of != id.0 || labels.and_then(|labels| labels.get(SERVICE_NAME_LABEL)) != Some(name)
                });
                self.take_service(&id)
            }
            Kind::Namespace => {
                let within: Vec<_> = self.services.keys().filter(|(of, _)| of == name).cloned().collect();
                for id in &within {
                    self.take_service(id);
                }
                self.slices.retain(|(of, _), _| of != name);
                self.namespaces.remove(name).is_some()
            }
            Kind::Node => self.nodes.remove(name).is_some(),
            Kind::Slice => self.slices.remove(&id).is_some(),
            Kind::Announcement => self.announcements.remove(name).is_some(),
            Kind::Pool => self.pools.remove(name).is_some(),
            Kind::Advertisement => self.advertisements.remove(name).is_some(),
            Kind::RouteAdvertisement => self.route_advertisements.remove(name).is_some(),
            Kind::SpeakerNode => self.speaker_nodes.remove(name).is_some(),
        };
        let place = if kind.is_namespaced() { format!(" in namespace {}", id.0) } else { String::new() };
        there.then_some(()).ok_or_else(|| RemovalError::NotThere { what: format!("{} {name}{place}", kind.as_str()) })
    }

    fn take_service(&mut self, id: &Id) -> bool {
        let Some(service) = self.services.remove(id) else { return false };
        self.was.entry(id.clone()).or_insert(service);
        true
    }

    /// A Service as it was before it was laid over or taken away.
    pub fn was(&self, key: &ServiceKey) -> Option<&Service> {
        self.was.get(&(key.namespace.clone(), key.name.clone()))
    }

    /// Every Service, and where its status says that it is reached.
    pub fn places(&self) -> BTreeMap<ServiceKey, Vec<String>> {
        let reached = |service: &Service| {
            let ingress = service.status.as_ref().and_then(|status| status.load_balancer.as_ref()?.ingress.as_deref());
            places(ingress.unwrap_or_default())
        };
        self.services().map(|(key, service)| (key, reached(service))).collect()
    }

    /// A Service.
    pub fn service(&self, key: &ServiceKey) -> Option<&Service> {
        self.services.get(&(key.namespace.clone(), key.name.clone()))
    }

    /// The UID of a namespace that is there, and not only planned.
    pub fn namespace_uid(&self, name: &str) -> Option<&str> {
        self.namespaces.get(name)?.metadata.uid.as_deref().filter(|uid| !is_planned(uid))
    }

    /// Every Service, by namespace and name.
    pub fn services(&self) -> impl Iterator<Item = (ServiceKey, &Service)> {
        self.services.iter().map(|((namespace, name), service)| {
            (ServiceKey { namespace: namespace.clone(), name: name.clone() }, service)
        })
    }

    /// What the planner knows of all this.
    pub fn world(&self, classes: &Classes) -> World {
        let mut world = World::default();
        self.changes(classes).for_each(|change| world.learn(change));
        world
    }

    /// The same as the controller's watches would tell it. A namespace that nobody names has the one label that every namespace has.
    fn changes(&self, classes: &Classes) -> impl Iterator<Item = Change> {
        let labels = |name: &str, given: Option<&Namespace>| {
            let mut labels = given.and_then(|given| given.metadata.labels.clone()).unwrap_or_default();
            labels.insert(NAMESPACE_NAME_LABEL.to_owned(), name.to_owned());
            labels
        };
        let names: BTreeSet<_> =
            self.namespaces.keys().chain(self.services.keys().map(|(namespace, _)| namespace)).collect();
        let namespaces = names
            .into_iter()
            .map(move |name| Change::Namespace(name.clone(), Some(labels(name, self.namespaces.get(name)))));
        let ranges = self.service_cidrs.iter();
        let ranges = ranges.map(|(name, cidr)| Change::ServiceCidr(name.clone(), Some(view::service_ranges(cidr))));
        let nodes = self.nodes.iter().map(|(name, node)| Change::Node(name.clone(), Some(NodeView::of(node))));
        let speakers = self.speaker_nodes.iter();
        let speakers = speakers.map(|(name, s)| Change::SpeakerNode(name.clone(), Some(Report::of(s))));
        let pools = self.pools.iter().map(|(name, pool)| Change::Pool(name.clone(), Some(PoolView::of(pool))));
        let ads = self.advertisements.iter();
        let ads = ads.map(|(name, ad)| Change::Advertisement(name.clone(), Some(AdvertisementView::of(ad))));
        let routes = self.route_advertisements.iter();
        let routes =
            routes.map(|(name, ad)| Change::RouteAdvertisement(name.clone(), Some(AdvertisementView::of_routes(ad))));
        let announcements = self.announcements.iter();
        let announcements =
            announcements.map(|(name, a)| Change::Announcement(name.clone(), Some(AnnouncementView::of(a))));
        let slices = self.slices.iter().map(|(id, slice)| Change::Slice(id.clone(), SliceView::of(slice)));
        let services = self
            .services()
            .map(|(key, service)| Change::Service(key, ServiceView::of(service, Asks::from(&classes.of(service)))));
        namespaces
            .chain(ranges)
            .chain(nodes)
            .chain(speakers)
            .chain(routes)
            .chain(pools)
            .chain(ads)
            .chain(announcements)
            .chain(slices)
            .chain(services)
    }

    /// What files alone leave out, and what it does to the plan.
    pub fn what_is_missing(&self) -> Vec<String> {
        // Names are those of other providers' load balancers, which no Announcement holds.
        let in_use = self.places().into_values().flatten().any(|place| place.parse::<IpAddr>().is_ok());
        let mut notes = Vec::new();
        if in_use && self.announcements.is_empty() {
            notes.push(
                "warning: no Announcement is in the files, so what statuses name counts as wished for and not as held: add `kubectl get announcements -o yaml`"
                    .to_owned(),
            );
        }
        if !self.pools.is_empty() && self.nodes.is_empty() {
            notes.push(
                "note: no Node is in the files, so nobody can answer for an address: add `kubectl get nodes,speakernodes -o yaml`"
                    .to_owned(),
            );
        }
        notes
    }
}

/// Whether it is an address, and not the word for a Service without one.
fn is_address(cluster_ip: &str) -> bool {
    !cluster_ip.is_empty() && cluster_ip != "None"
}

fn id_of(meta: &ObjectMeta) -> Id {
    (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
}

fn namespaced<K>(seen: Seen<Vec<K>>, meta: impl Fn(&K) -> &ObjectMeta) -> BTreeMap<Id, K> {
    seen.into_here().into_iter().flatten().map(|object| (id_of(meta(&object)), object)).collect()
}

fn named<K>(seen: Seen<Vec<K>>, meta: impl Fn(&K) -> &ObjectMeta) -> BTreeMap<String, K> {
    seen.into_here().into_iter().flatten().map(|object| (id_of(meta(&object)).1, object)).collect()
}

fn put<K>(
    all: &mut BTreeMap<String, K>,
    mut new: K,
    meta: impl Fn(&mut K) -> &mut ObjectMeta,
    now: Timestamp,
    keep: impl Fn(&mut K, &K),
) {
    let name = id_of(meta(&mut new)).1;
    match all.get_mut(&name) {
        Some(old) => {
            let old_meta = meta(old).clone();
            inherit(meta(&mut new), &old_meta);
            keep(&mut new, old);
        }
        None => newborn(meta(&mut new), now),
    }
    all.insert(name, new);
}

/// What an object that is replaced has from the one before.
fn inherit(new: &mut ObjectMeta, old: &ObjectMeta) {
    new.uid = new.uid.take().or_else(|| old.uid.clone());
    new.creation_timestamp = new.creation_timestamp.take().or_else(|| old.creation_timestamp.clone());
    new.resource_version = new.resource_version.take().or_else(|| old.resource_version.clone());
    new.generation = new.generation.or(old.generation);
    new.deletion_timestamp = new.deletion_timestamp.take().or_else(|| old.deletion_timestamp.clone());
}

/// What the UID of an object begins with that is only planned.
const PLANNED: &str = "planned-";

/// Whether it is the UID of an object that is only planned.
pub fn is_planned(uid: &str) -> bool {
    uid.starts_with(PLANNED)
}

/// What an object has that was just made: it is younger than all others.
fn newborn(meta: &mut ObjectMeta, now: Timestamp) {
    let (namespace, name) = id_of(meta);
    meta.creation_timestamp.get_or_insert(Time(now));
    meta.uid.get_or_insert_with(|| format!("{PLANNED}{namespace}-{name}"));
}

/// A kind that can be taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Service,
    Namespace,
    Node,
    Slice,
    Announcement,
    Pool,
    Advertisement,
    RouteAdvertisement,
    SpeakerNode,
}

impl Kind {
    /// As kubectl lets people write it, in any case.
    const SPELLINGS: [(Self, &'static [&'static str]); 9] = [
        (Self::Service, &["service", "services", "svc"]),
        (Self::Namespace, &["namespace", "namespaces", "ns"]),
        (Self::Node, &["node", "nodes", "no"]),
        (Self::Slice, &["endpointslice", "endpointslices"]),
        (Self::Announcement, &["announcement", "announcements"]),
        (Self::Pool, &["ipaddresspool", "ipaddresspools", "ipap"]),
        (Self::Advertisement, &["l2advertisement", "l2advertisements", "l2a"]),
        (Self::RouteAdvertisement, &["routeadvertisement", "routeadvertisements", "rta"]),
        (Self::SpeakerNode, &["speakernode", "speakernodes", "spk"]),
    ];

    fn as_str(self) -> &'static str {
        match self {
            Self::Service => "Service",
            Self::Namespace => "Namespace",
            Self::Node => "Node",
            Self::Slice => "EndpointSlice",
            Self::Announcement => "Announcement",
            Self::Pool => "IPAddressPool",
            Self::Advertisement => "L2Advertisement",
            Self::RouteAdvertisement => "RouteAdvertisement",
            Self::SpeakerNode => "SpeakerNode",
        }
    }

    fn is_namespaced(self) -> bool {
        matches!(self, Self::Service | Self::Slice)
    }
}

/// An object that is to be gone, as it is written on the command line: `KIND/NAME`, or `KIND/NAMESPACE/NAME`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removal {
    kind: Kind,
    namespace: Option<String>,
    name: String,
}

/// Why an object cannot be taken away.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RemovalError {
    /// Not of the form.
    #[error("`{0}` names no object; write KIND/NAME, such as ipaddresspool/office, or service/NAMESPACE/NAME")]
    Form(String),
    /// No kind that has a part.
    #[error(
        "`{0}` is no kind that an address depends on, which are services, namespaces, nodes, endpointslices and those of berth.dev"
    )]
    Kind(String),
    /// There is none.
    #[error("--delete: there is no {what}; correct the name, or leave it out")]
    NotThere {
        /// Kind, name and namespace.
        what: String,
    },
}

impl FromStr for Removal {
    type Err = RemovalError;

    fn from_str(text: &str) -> Result<Self, RemovalError> {
        let parts: Vec<_> = text.split('/').collect();
        let (kind, namespace, name) = match parts[..] {
            [kind, name] => (kind, None, name),
            [kind, namespace, name] => (kind, Some(namespace), name),
            _ => return Err(RemovalError::Form(text.to_owned())),
        };
        if name.is_empty() || namespace == Some("") {
            return Err(RemovalError::Form(text.to_owned()));
        }
        // As `kubectl` names them in full: ipaddresspools.berth.dev.
        let plain = kind.split('.').next().unwrap_or(kind).to_ascii_lowercase();
        let found = Kind::SPELLINGS.into_iter().find(|(_, spellings)| spellings.contains(&plain.as_str()));
        let (known, _) = found.ok_or_else(|| RemovalError::Kind(kind.to_owned()))?;
        if namespace.is_some() && !known.is_namespaced() {
            return Err(RemovalError::Form(text.to_owned()));
        }
        Ok(Self { kind: known, namespace: namespace.map(str::to_owned), name: name.to_owned() })
    }
}

#[cfg(test)]
mod tests;
