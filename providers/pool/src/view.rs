//! What is kept of each object: parsed, and trimmed to what decides.
//!
//! Of Services, their slices and their Announcements there are tens of thousands, so what is kept of those is small: no maps and
//! few texts, and names of nodes that all have in common.

mod advertisement;
mod assignment;
mod labels;
mod node;
mod reached;
mod said;
mod slice;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use berth_api::annotations::{MOVE_TO, TAKEN_AGAIN};
use berth_api::condition::types;
use berth_api::crd::{
    AnnouncementSpec, Dataplane, Interface, KernelTrap, KubeProxy, Layer2Assignment, Quarantined, RefusedRoute,
    RouteAssignment, Routes, ServiceAllocation, ServiceRef, SpeakerNodeSpec,
};
use berth_api::names::{PART_LABEL_PREFIX, part_label};
use berth_api::pool::{Addresses, AddressesError, IpRange};
use berth_api::service::{
    Families, Request, RequestError, ServiceKey, TrafficPolicy, has_finalizer, health_check_node_port, tcp_port,
};
use berth_api::sharing::{SharingScope, SharingTerms};
use berth_api::{Announcement, Condition as NewCondition, IPAddressPool, MacAddr, PerFamily, Reason, SpeakerNode};
use berth_provider::Intent;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{LoadBalancerIngress, Service};
use k8s_openapi::api::networking::v1::ServiceCIDR;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta, OwnerReference};

use crate::placement::Draining;

pub use advertisement::{AdvertisementId, AdvertisementKind, AdvertisementView, Preference, Selectors};
pub use assignment::{Assignment, Interner};
pub use labels::PackedLabels;
pub use node::NodeView;
pub use reached::Reached;
pub use said::SaidCondition;
pub use slice::{OnNode, SliceView};

use crate::quarantine::Quarantine;

/// Whom a Service asks for an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asks {
    /// The pools.
    Us,
    /// Another provider of this controller, whose affair its status is.
    AnotherProvider,
    /// Nobody here.
    Nobody,
}

/// A Service that asks for an address, or that still carries what was written when it did.
#[derive(Clone, Debug, PartialEq)]
pub struct ServiceView {
    /// `metadata.uid`.
    pub uid: String,
    /// When it was made, in seconds since 1970.
    pub created: i64,
    /// Whom it asks for an address now.
    pub asks: Asks,
    /// Its address families; known also where the request cannot be read.
    pub families: Families,
    /// What it asks for.
    pub request: Result<Request, RequestError>,
    /// Where its traffic may go.
    pub policy: TrafficPolicy,
    /// The lowest of its TCP ports.
    pub tcp_port: Option<u16>,
    /// The node port of its health checks; only with the Local policy.
    pub health_check_node_port: Option<u16>,
    /// Its labels, by which pools admit it.
    pub labels: PackedLabels,
    /// On which terms it shares its addresses, if it wishes to.
    pub sharing: Option<SharingTerms>,
    /// `metadata.generation`, where it has one.
    pub generation: Option<i64>,
    /// resourceVersion.
    pub version: u64,
    /// What its status says where it is reached.
    pub reached: Box<[Reached]>,
    /// The conditions in its status, only those that we write.
    pub conditions: Box<[SaidCondition]>,
}

impl ServiceView {
    /// `None` for a Service that never was ours. One with our finalizer is, also when nothing is said of it.
    pub fn of(service: &Service, asks: Asks) -> Option<Self> {
        let status = service.status.as_ref();
        let conditions: Box<[_]> = status
            .and_then(|s| s.conditions.as_ref())
            .into_iter()
            .flatten()
            .filter(|c| c.type_.starts_with(types::SERVICE_PREFIX))
            .map(SaidCondition::of)
            .collect();
        if asks == Asks::Nobody && conditions.is_empty() && !has_finalizer(&service.metadata) {
            return None;
        }
        Some(Self {
            uid: service.metadata.uid.clone().unwrap_or_default(),
            created: created(&service.metadata),
            asks,
            families: Families::of(service),
            request: Request::parse(service),
            policy: TrafficPolicy::of(service),
            tcp_port: tcp_port(service),
            health_check_node_port: health_check_node_port(service),
            labels: PackedLabels::of(service.metadata.labels.iter().flatten()),
            sharing: SharingTerms::of(service),
            generation: service.metadata.generation,
            version: version(&service.metadata),
            reached: reached(status.and_then(|s| s.load_balancer.as_ref()?.ingress.as_deref()).unwrap_or_default()),
            conditions,
        })
    }

    /// What a provider is told of a Service, as the pools see it.
    pub fn of_intent(intent: &Intent) -> Self {
        Self {
            uid: intent.id.uid.clone(),
            created: intent.created,
            asks: Asks::Us,
            families: intent.families,
            request: intent.request.clone(),
            policy: intent.policy,
            tcp_port: None,
            health_check_node_port: None,
            labels: PackedLabels::of(&intent.labels),
            sharing: intent.sharing.clone(),
            generation: intent.generation,
            version: 0,
            reached: reached(&intent.published),
            conditions: Box::default(),
        }
    }

    /// Whether they differ in anything but their version.
    pub fn says_other(&self, other: &Self) -> bool {
        Self { version: other.version, ..self.clone() } != *other
    }

    /// The addresses in its status.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.reached.iter().filter_map(Reached::address)
    }

    /// Where its status says that it is reached, as the API has it.
    pub fn ingress(&self) -> Vec<LoadBalancerIngress> {
        self.reached.iter().map(Reached::written).collect()
    }

    /// The condition of a type in its status.
    pub fn said(&self, kind: &str) -> Option<&SaidCondition> {
        self.conditions.iter().find(|condition| condition.is_of(kind))
    }

    /// A condition as it is to be written, with the time of its last change: kept when its status says the same already.
    pub fn stamped(&self, condition: &NewCondition, now: Timestamp) -> Condition {
        let since = self.said(condition.kind).and_then(|said| said.since(condition));
        condition.since(since.unwrap_or(now), self.generation)
    }
}

/// Parses what a status says where a Service is reached.
pub fn reached(ingress: &[LoadBalancerIngress]) -> Box<[Reached]> {
    ingress.iter().map(Reached::of).collect()
}

/// An Announcement, without what the API server keeps for itself.
#[derive(Clone, Debug, PartialEq)]
pub struct AnnouncementView {
    /// `metadata.name`.
    pub name: String,
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.resourceVersion`.
    pub resource_version: String,
    /// Its labels, but for those that name the nodes that have a part.
    pub labels: PackedLabels,
    /// Whether those name the nodes of `layer2`, of `routes` and of health checks.
    pub has_part_labels: bool,
    /// What else people and other programs wrote in its metadata; nothing, most often.
    pub others: Option<Box<Others>>,
    /// `spec.address`.
    pub address: IpAddr,
    /// `spec.pool`.
    pub pool: Arc<str>,
    /// `spec.services`.
    pub services: Vec<ServiceRef>,
    /// `spec.layer2`.
    pub layer2: Option<Assignment>,
    /// `spec.routes`; most often the same for many.
    pub routes: Arc<[RouteAssignment]>,
    /// Who answers, and at which epoch.
    pub claimed: Option<(String, u64)>,
    /// What the speaker says about another machine that has the address, and whether ours answers all the same.
    pub conflict: Option<(bool, String)>,
    /// The Ethernet address of that machine.
    pub foreign: Option<MacAddr>,
}

/// What is not Berth's in the metadata of an Announcement. It is replaced whole when it is written, so this has to be written again.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Others {
    /// `metadata.annotations`.
    pub annotations: BTreeMap<String, String>,
    /// `metadata.finalizers`.
    pub finalizers: Vec<String>,
    /// `metadata.ownerReferences`.
    pub owner_references: Vec<OwnerReference>,
}

impl Others {
    fn of(meta: &ObjectMeta) -> Option<Box<Self>> {
        let others = Self {
            annotations: meta.annotations.clone().unwrap_or_default(),
            finalizers: meta.finalizers.clone().unwrap_or_default(),
            owner_references: meta.owner_references.clone().unwrap_or_default(),
        };
        (others != Self::default()).then(|| Box::new(others))
    }

    /// Writes it.
    pub fn write(&self, meta: &mut ObjectMeta) {
        let Self { annotations, finalizers, owner_references } = self.clone();
        meta.annotations = (!annotations.is_empty()).then_some(annotations);
        meta.finalizers = (!finalizers.is_empty()).then_some(finalizers);
        meta.owner_references = (!owner_references.is_empty()).then_some(owner_references);
    }
}

impl AnnouncementView {
    /// Parses it.
    pub fn of(announcement: &Announcement) -> Self {
        let (meta, spec) = (&announcement.metadata, &announcement.spec);
        let is_part = |label: &&String| label.starts_with(PART_LABEL_PREFIX);
        let labels = || meta.labels.iter().flatten();
        let parts = labels().filter(|(label, _)| is_part(label)).map(|(label, part)| (label.clone(), part.as_str()));
        let expected = part_labels(spec.layer2.as_ref(), &spec.routes, &spec.services);
        let layer2 = announcement.status.as_ref().and_then(|s| s.layer2.as_ref());
        Self {
            name: meta.name.clone().unwrap_or_default(),
            uid: meta.uid.clone().unwrap_or_default(),
            resource_version: meta.resource_version.clone().unwrap_or_default(),
            labels: PackedLabels::of(labels().filter(|(label, _)| !is_part(label))),
            has_part_labels: parts.collect::<BTreeMap<_, _>>() == expected,
            others: Others::of(meta),
            address: spec.address,
            pool: Arc::from(spec.pool.as_str()),
            services: spec.services.clone(),
            layer2: spec.layer2.as_ref().map(Assignment::of),
            routes: spec.routes.as_slice().into(),
            claimed: layer2.map(|l| (l.owner.clone(), l.epoch)),
            conflict: ready(announcement.status.as_ref().map(|s| &s.conditions))
                .filter(|c| c.reason == Reason::AddressConflict.as_str())
                .map(|c| (c.status == "True", c.message)),
            foreign: announcement.status.as_ref().and_then(|status| status.foreign),
        }
    }

    /// `spec`.
    pub fn spec(&self) -> AnnouncementSpec {
        AnnouncementSpec {
            address: self.address,
            pool: self.pool.to_string(),
            services: self.services.clone(),
            layer2: self.layer2.as_ref().map(Assignment::written),
            routes: self.routes.to_vec(),
        }
    }

    /// The node that a person wishes it to be on.
    pub fn wish(&self) -> Option<&str> {
        self.others.as_ref()?.annotations.get(MOVE_TO).map(String::as_str)
    }

    /// The foreign machine that has the address, if it was found before a node of ours ever answered. Of an address that its Service had
    /// before, nobody knows whether it is in use.
    pub fn found_taken(&self) -> Option<MacAddr> {
        let had_before = self.others.as_ref().is_some_and(|others| others.annotations.contains_key(TAKEN_AGAIN));
        let silent = matches!(self.conflict, Some((false, _)));
        self.foreign.filter(|_| silent && self.claimed.is_none() && !had_before)
    }

    /// Lets it have names in common with others.
    pub fn intern(&mut self, interner: &mut Interner) {
        interner.name(&mut self.pool);
        interner.routes(&mut self.routes);
        self.layer2.iter_mut().for_each(|layer2| layer2.intern(interner));
    }

    /// The Services that hold it.
    pub fn holders(&self) -> impl Iterator<Item = ServiceKey> + '_ {
        self.services.iter().map(key_of)
    }

    /// Whether it is an older state of the same object.
    pub fn is_older_than(&self, other: &Self) -> bool {
        let version = |v: &Self| v.resource_version.parse::<u64>().ok();
        self.uid == other.uid && version(self).zip(version(other)).is_some_and(|(mine, theirs)| mine < theirs)
    }
}

/// The labels by which the speakers find the Announcements in which they have a part.
pub fn part_labels(
    layer2: Option<&Layer2Assignment>,
    routes: &[RouteAssignment],
    services: &[ServiceRef],
) -> BTreeMap<String, &'static str> {
    let local = services.iter().filter_map(|service| service.local.as_ref());
    let checked = local.flat_map(|local| &local.endpoints);
    let mut labels: BTreeMap<_, _> = checked.map(|on| (part_label(&on.node), "health-checks")).collect();
    labels.extend(routes.iter().flat_map(|way| &way.nodes).map(|node| (part_label(node), "route")));
    if let Some(layer2) = layer2 {
        labels.extend(layer2.standbys.iter().map(|node| (part_label(node), "standby")));
        labels.extend(layer2.owner.iter().map(|node| (part_label(node), "owner")));
    }
    labels
}

/// The key of a Service that is referred to.
pub fn key_of(reference: &ServiceRef) -> ServiceKey {
    ServiceKey { namespace: reference.namespace.clone(), name: reference.name.clone() }
}

/// An IPAddressPool.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolView {
    /// `metadata.uid`.
    pub uid: String,
    /// When it was made, in seconds since 1970.
    pub created: i64,
    /// `metadata.generation`.
    pub generation: Option<i64>,
    /// resourceVersion.
    pub version: u64,
    /// Its labels, by which advertisements select it.
    pub labels: BTreeMap<String, String>,
    /// Its addresses, or what is wrong with them.
    pub addresses: Result<Addresses, AddressesError>,
    /// Whether it gives to Services that name no pool.
    pub auto_assign: bool,
    /// Whether it leaves out IPv4 addresses that end in .0 or .255.
    pub avoid_buggy: bool,
    /// Whether it gives nothing new.
    pub disabled: bool,
    /// Whom it admits, as it is written; all where it is not.
    pub admission: Option<ServiceAllocation>,
    /// How wide its addresses may be shared.
    pub sharing: SharingScope,
    /// For how many seconds nobody gets what was released.
    pub cool_down: u32,
    /// What was released and is given to nobody yet, and until when, in seconds since 1970. What cannot be read of it is passed
    /// over: nobody but the controller writes it.
    pub cooling: Vec<(IpRange, i64)>,
    /// What its status says is, or was, in quarantine.
    pub quarantined: Vec<Quarantine>,
    /// Those of them whose time has passed.
    pub over: BTreeSet<IpAddr>,
    /// What its status says it has given.
    pub assigned: PerFamily<Option<i64>>,
    /// What its status says it can still give.
    pub available: PerFamily<Option<i64>>,
    /// The condition Ready in its status.
    pub ready: Option<Condition>,
}

impl PoolView {
    /// Parses it.
    pub fn of(pool: &IPAddressPool) -> Self {
        let status = pool.status.as_ref();
        Self {
            uid: pool.metadata.uid.clone().unwrap_or_default(),
            created: created(&pool.metadata),
            generation: pool.metadata.generation,
            version: version(&pool.metadata),
            labels: pool.metadata.labels.clone().unwrap_or_default(),
            addresses: Addresses::parse(&pool.spec.addresses),
            auto_assign: pool.spec.auto_assign,
            avoid_buggy: pool.spec.avoid_buggy_ips,
            disabled: pool.spec.disabled,
            admission: pool.spec.service_allocation.clone(),
            sharing: pool.spec.sharing,
            cool_down: pool.spec.cool_down_seconds,
            cooling: status
                .into_iter()
                .flat_map(|s| &s.cooling_down)
                .filter_map(|entry| Some((entry.addresses.parse().ok()?, entry.until.0.as_second())))
                .collect(),
            quarantined: status.into_iter().flat_map(|s| &s.quarantined).map(quarantine).collect(),
            over: BTreeSet::new(),
            assigned: status.map(|s| PerFamily { v4: s.assigned_ipv4, v6: s.assigned_ipv6 }).unwrap_or_default(),
            available: status.map(|s| PerFamily { v4: s.available_ipv4, v6: s.available_ipv6 }).unwrap_or_default(),
            ready: ready(status.map(|s| &s.conditions)),
        }
    }

    /// Whether an address is part of it.
    pub fn has(&self, address: IpAddr) -> bool {
        self.addresses.as_ref().is_ok_and(|addresses| addresses.contains(address))
    }

    /// What its status says of the quarantine of an address, also where its time has passed.
    pub fn quarantine(&self, address: IpAddr) -> Option<&Quarantine> {
        self.quarantined.iter().find(|one| one.address == address)
    }

    /// What is in quarantine by its status, as far as time is known to have passed.
    pub fn in_quarantine(&self) -> impl Iterator<Item = &Quarantine> {
        self.quarantined.iter().filter(|one| !self.over.contains(&one.address))
    }

    /// Whether the specifications differ; a change of status alone needs no planning.
    pub fn asks_for_other(&self, other: &Self) -> bool {
        let spec = |view: &Self| {
            let Self { created, labels, addresses, auto_assign, avoid_buggy, disabled, .. } = view.clone();
            let Self { admission, sharing, cool_down, .. } = view.clone();
            (created, labels, addresses, auto_assign, avoid_buggy, disabled, admission, sharing, cool_down)
        };
        spec(self) != spec(other)
    }
}

/// The ranges of a ServiceCIDR. What cannot be read, which the API server does not let in, is passed over.
pub fn service_ranges(cidr: &ServiceCIDR) -> Vec<IpRange> {
    let written = cidr.spec.as_ref().and_then(|spec| spec.cidrs.as_ref());
    written.into_iter().flatten().filter_map(|text| text.parse().ok()).collect()
}

/// What a SpeakerNode reported.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// The interfaces that can announce.
    pub interfaces: Vec<Interface>,
    /// The node's gateways on them.
    pub gateways: Vec<IpAddr>,
    /// What forwards on the node.
    pub dataplane: Option<Dataplane>,
    /// Settings of its kernel that break what is announced.
    pub kernel_traps: Vec<KernelTrap>,
    /// The machines that it found with addresses which it asks for ahead of need.
    pub foreign: Vec<(IpAddr, MacAddr)>,
    /// Those addresses, as its status says.
    pub sweep: Vec<IpAddr>,
    /// Whether it makes routes.
    pub routes: bool,
    /// The addresses that it cannot route.
    pub refused: Vec<RefusedRoute>,
}

impl Report {
    /// Parses it.
    pub fn of(node: &SpeakerNode) -> Self {
        let SpeakerNodeSpec { interfaces, gateways, dataplane, kernel_traps, found, routes, .. } = node.spec.clone();
        let foreign = found.iter().map(|found| (found.address, found.mac)).collect();
        let sweep = node.status.as_ref().map(|status| status.sweep.clone()).unwrap_or_default();
        let Routes { permitted, refused } = routes.unwrap_or_default();
        Self { interfaces, gateways, dataplane, kernel_traps, foreign, sweep, routes: permitted, refused }
    }

    /// The machines that it found with addresses which it was told to ask for. Of others it has nothing to say: whoever holds one node is not
    /// to keep all addresses from being given.
    pub fn found(&self) -> impl Iterator<Item = (IpAddr, MacAddr)> {
        self.foreign.iter().copied().filter(|(address, _)| self.sweep.contains(address))
    }

    /// Why the node is to give up what it owns, where its kube-proxy does not follow what changes.
    pub fn is_stale(&self) -> Option<Draining> {
        let is_stale = self.dataplane.is_some_and(|dataplane| dataplane.kube_proxy == KubeProxy::Stale);
        is_stale.then_some(Draining::KubeProxyStale)
    }
}

fn quarantine(said: &Quarantined) -> Quarantine {
    let Quarantined { address, mac, since, until } = said;
    Quarantine { address: *address, mac: *mac, since: since.0.as_second(), until: until.0.as_second() }
}

/// Versions of objects of one kind are ordered numbers (the API server promises it since 1.35, etcd always did).
pub fn version(meta: &ObjectMeta) -> u64 {
    meta.resource_version.as_ref().and_then(|v| v.parse().ok()).unwrap_or_default()
}

fn created(meta: &ObjectMeta) -> i64 {
    meta.creation_timestamp.as_ref().map_or(0, |t| t.0.as_second())
}

fn ready(conditions: Option<&Vec<Condition>>) -> Option<Condition> {
    conditions.into_iter().flatten().find(|c| c.type_ == types::READY).cloned()
}

#[cfg(test)]
mod tests;
