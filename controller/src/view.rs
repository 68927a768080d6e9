//! What the controller keeps of each object: parsed, and trimmed to what decides.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use berth_api::condition::types;
use berth_api::crd::{AnnouncementSpec, Interface, ServiceRef};
use berth_api::names::{EXCLUDE_NODE_LABEL, POOL_CLASS};
use berth_api::pool::{Addresses, AddressesError};
use berth_api::service::{Request, RequestError, ServiceKey, TrafficPolicy, wants_sharing};
use berth_api::{Announcement, IPAddressPool, L2Advertisement, Reason};
use k8s_openapi::api::core::v1::{LoadBalancerIngress, Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};
use kube::core::{Selector, SelectorExt};

use crate::args::DefaultProvider;

/// Label of an EndpointSlice that names its Service (Kubernetes convention).
const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

/// A Service that is ours, or that still carries what we wrote when it was.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ServiceView {
    pub(crate) uid: String,
    pub(crate) created: i64,
    /// Whether it asks us for an address now.
    pub(crate) ours: bool,
    pub(crate) request: Result<Request, RequestError>,
    pub(crate) policy: TrafficPolicy,
    pub(crate) wants_sharing: bool,
    pub(crate) generation: Option<i64>,
    /// resourceVersion.
    pub(crate) version: u64,
    pub(crate) ingress: Vec<LoadBalancerIngress>,
    /// Only those that we write.
    pub(crate) conditions: Vec<Condition>,
}

impl ServiceView {
    /// `None` for a Service that never was ours.
    pub(crate) fn of(service: &Service, default: DefaultProvider) -> Option<Self> {
        let status = service.status.as_ref();
        let conditions: Vec<_> = status
            .and_then(|s| s.conditions.as_ref())
            .into_iter()
            .flatten()
            .filter(|c| c.type_ == types::ALLOCATED || c.type_ == types::ANNOUNCED)
            .cloned()
            .collect();
        let ours = is_ours(service, default);
        if !ours && conditions.is_empty() {
            return None;
        }
        Some(Self {
            uid: service.metadata.uid.clone().unwrap_or_default(),
            created: created(&service.metadata),
            ours,
            request: Request::parse(service),
            policy: TrafficPolicy::of(service),
            wants_sharing: wants_sharing(service),
            generation: service.metadata.generation,
            version: version(&service.metadata),
            ingress: status.and_then(|s| s.load_balancer.as_ref()?.ingress.clone()).unwrap_or_default(),
            conditions,
        })
    }

    /// Whether they differ in anything but their version.
    pub(crate) fn says_other(&self, other: &Self) -> bool {
        Self { version: other.version, ..self.clone() } != *other
    }

    /// The address in its status.
    pub(crate) fn previous(&self) -> Option<Ipv4Addr> {
        self.ingress.iter().find_map(|i| i.ip.as_ref()?.parse().ok())
    }
}

fn is_ours(service: &Service, default: DefaultProvider) -> bool {
    let Some(spec) = &service.spec else { return false };
    let class = spec.load_balancer_class.as_deref();
    let served = class.map_or(default == DefaultProvider::Pool, |c| c == POOL_CLASS);
    spec.type_.as_deref() == Some("LoadBalancer") && served && service.metadata.deletion_timestamp.is_none()
}

/// An Announcement, without what the API server keeps for itself.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct AnnouncementView {
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) resource_version: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) spec: AnnouncementSpec,
    /// Who answers, and at which epoch.
    pub(crate) claimed: Option<(String, u64)>,
    /// What the speaker says about another machine that has the address, and whether ours answers all the same.
    pub(crate) conflict: Option<(bool, String)>,
}

impl AnnouncementView {
    pub(crate) fn of(announcement: &Announcement) -> Self {
        let meta = &announcement.metadata;
        let layer2 = announcement.status.as_ref().and_then(|s| s.layer2.as_ref());
        Self {
            name: meta.name.clone().unwrap_or_default(),
            uid: meta.uid.clone().unwrap_or_default(),
            resource_version: meta.resource_version.clone().unwrap_or_default(),
            labels: meta.labels.clone().unwrap_or_default(),
            spec: announcement.spec.clone(),
            claimed: layer2.map(|l| (l.owner.clone(), l.epoch)),
            conflict: ready(announcement.status.as_ref().map(|s| &s.conditions))
                .filter(|c| c.reason == Reason::AddressConflict.as_str())
                .map(|c| (c.status == "True", c.message)),
        }
    }

    pub(crate) fn address(&self) -> Option<Ipv4Addr> {
        match self.spec.address {
            IpAddr::V4(v4) => Some(v4),
            IpAddr::V6(_) => None,
        }
    }

    pub(crate) fn holder(&self) -> Option<ServiceKey> {
        self.spec.services.first().map(key_of)
    }

    pub(crate) fn is_older_than(&self, other: &Self) -> bool {
        let version = |v: &Self| v.resource_version.parse::<u64>().ok();
        self.uid == other.uid && version(self).zip(version(other)).is_some_and(|(mine, theirs)| mine < theirs)
    }
}

pub(crate) fn key_of(reference: &ServiceRef) -> ServiceKey {
    ServiceKey { namespace: reference.namespace.clone(), name: reference.name.clone() }
}

/// An IPAddressPool.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PoolView {
    pub(crate) uid: String,
    pub(crate) created: i64,
    pub(crate) generation: Option<i64>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) addresses: Result<Addresses, AddressesError>,
    pub(crate) auto_assign: bool,
    pub(crate) assigned: Option<i64>,
    pub(crate) available: Option<i64>,
    pub(crate) ready: Option<Condition>,
}

impl PoolView {
    pub(crate) fn of(pool: &IPAddressPool) -> Self {
        let status = pool.status.as_ref();
        Self {
            uid: pool.metadata.uid.clone().unwrap_or_default(),
            created: created(&pool.metadata),
            generation: pool.metadata.generation,
            labels: pool.metadata.labels.clone().unwrap_or_default(),
            addresses: Addresses::parse(&pool.spec.addresses),
            auto_assign: pool.spec.auto_assign,
            assigned: status.and_then(|s| s.assigned_ipv4),
            available: status.and_then(|s| s.available_ipv4),
            ready: ready(status.map(|s| &s.conditions)),
        }
    }

    /// Whether the specifications differ; a change of status alone needs no planning.
    pub(crate) fn asks_for_other(&self, other: &Self) -> bool {
        (self.created, &self.labels, &self.addresses, self.auto_assign)
            != (other.created, &other.labels, &other.addresses, other.auto_assign)
    }
}

/// An L2Advertisement.
#[derive(Clone, Debug)]
pub(crate) struct AdvertisementView {
    pub(crate) uid: String,
    pub(crate) generation: Option<i64>,
    pub(crate) pools: BTreeSet<String>,
    pub(crate) interfaces: BTreeSet<String>,
    /// Selectors of pools and of nodes, or what cannot be read in them.
    pub(crate) selectors: Result<Selectors, String>,
    pub(crate) ready: Option<Condition>,
}

/// Label selectors of an advertisement.
#[derive(Clone, Debug)]
pub(crate) struct Selectors {
    pub(crate) pools: Vec<Selector>,
    pub(crate) nodes: Vec<Selector>,
}

impl AdvertisementView {
    pub(crate) fn of(ad: &L2Advertisement) -> Self {
        let read = |field: &str, selectors: &[_]| {
            let parse = |(index, selector): (usize, &k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector)| {
                Selector::try_from(selector.clone()).map_err(|e| format!("`spec.{field}[{index}]`: {e}"))
            };
            selectors.iter().enumerate().map(parse).collect::<Result<Vec<_>, _>>()
        };
        let selectors = read("ipAddressPoolSelectors", &ad.spec.ip_address_pool_selectors)
            .and_then(|pools| Ok(Selectors { pools, nodes: read("nodeSelectors", &ad.spec.node_selectors)? }));
        Self {
            uid: ad.metadata.uid.clone().unwrap_or_default(),
            generation: ad.metadata.generation,
            pools: ad.spec.ip_address_pools.iter().cloned().collect(),
            interfaces: ad.spec.interfaces.iter().cloned().collect(),
            selectors,
            ready: ready(ad.status.as_ref().map(|s| &s.conditions)),
        }
    }

    /// Whether it covers a pool. With neither names nor selectors it covers all; one that cannot be read covers none.
    pub(crate) fn covers(&self, pool: &str, labels: Option<&BTreeMap<String, String>>) -> bool {
        let Ok(selectors) = &self.selectors else { return false };
        if self.pools.is_empty() && selectors.pools.is_empty() {
            return true;
        }
        self.pools.contains(pool) || labels.is_some_and(|l| selectors.pools.iter().any(|s| s.matches(l)))
    }

    /// Whether a node with these labels may announce.
    pub(crate) fn selects_node(&self, labels: &BTreeMap<String, String>) -> bool {
        self.selectors.as_ref().is_ok_and(|s| s.nodes.is_empty() || s.nodes.iter().any(|n| n.matches(labels)))
    }
}

/// What a Node says; its interfaces come from its SpeakerNode.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(crate) struct NodeView {
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) addresses: BTreeSet<Ipv4Addr>,
    pub(crate) ready: bool,
    pub(crate) network_unavailable: bool,
}

impl NodeView {
    pub(crate) fn of(node: &Node) -> Self {
        let status = node.status.as_ref();
        let condition = |kind: &str| {
            let conditions = status.and_then(|s| s.conditions.as_ref()).into_iter().flatten();
            conditions.into_iter().any(|c| c.type_ == kind && c.status == "True")
        };
        Self {
            labels: node.metadata.labels.clone().unwrap_or_default(),
            addresses: status
                .and_then(|s| s.addresses.as_ref())
                .into_iter()
                .flatten()
                .filter_map(|a| a.address.parse().ok())
                .collect(),
            ready: condition("Ready"),
            network_unavailable: condition("NetworkUnavailable"),
        }
    }

    pub(crate) fn excluded(&self) -> bool {
        self.labels.contains_key(EXCLUDE_NODE_LABEL)
    }
}

/// The nodes on which a slice has a serving endpoint, and the Service that it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SliceView {
    pub(crate) service: ServiceKey,
    pub(crate) serving: BTreeSet<String>,
}

impl SliceView {
    pub(crate) fn of(slice: &EndpointSlice) -> Option<Self> {
        let name = slice.metadata.labels.as_ref()?.get(SERVICE_NAME_LABEL)?.clone();
        if slice.address_type != "IPv4" {
            return None;
        }
        let service = ServiceKey { namespace: slice.metadata.namespace.clone()?, name };
        // Ready unless said otherwise; an endpoint that terminates may still serve (EndpointSlice API).
        let serves = |c: Option<&k8s_openapi::api::discovery::v1::EndpointConditions>| {
            c.is_none_or(|c| c.ready.unwrap_or(true) || c.serving == Some(true))
        };
        let endpoints = slice.endpoints.iter().filter(|e| serves(e.conditions.as_ref()));
        let serving = endpoints.filter_map(|e| e.node_name.clone()).collect();
        Some(Self { service, serving })
    }
}

/// What a SpeakerNode reported.
pub(crate) type Interfaces = Vec<Interface>;

/// Versions of objects of one kind are ordered numbers (the API server promises it since 1.35, etcd always did).
pub(crate) fn version(meta: &ObjectMeta) -> u64 {
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
