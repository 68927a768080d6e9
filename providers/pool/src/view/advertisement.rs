//! What is kept of an L2Advertisement or a RouteAdvertisement, which select in the same words.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use berth_api::crd::{PreferredNodeSelector, RouteAdvertisement, RouteAssignment};
use berth_api::interface::Interfaces;
use berth_api::{L2Advertisement, Reason};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::core::{Selector, SelectorExt};

use super::{ready, version};
use crate::ipam::Labels;

/// The weights that a preference may have: MetalLB's, which are those of node affinity in Kubernetes.
const WEIGHTS: std::ops::RangeInclusive<u32> = 1..=100;

/// An advertisement's kind and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AdvertisementId {
    /// Its kind.
    pub kind: AdvertisementKind,
    /// Its name.
    pub name: String,
}

/// The kinds of advertisements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AdvertisementKind {
    /// L2Advertisement.
    Layer2,
    /// RouteAdvertisement.
    Route,
}

impl AdvertisementKind {
    /// The kind as the API has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Layer2 => "L2Advertisement",
            Self::Route => "RouteAdvertisement",
        }
    }

    /// The one of this kind with a name.
    pub fn named(self, name: impl Into<String>) -> AdvertisementId {
        AdvertisementId { kind: self, name: name.into() }
    }
}

impl fmt::Display for AdvertisementId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// An L2Advertisement or a RouteAdvertisement.
#[derive(Clone, Debug)]
pub struct AdvertisementView {
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.generation`.
    pub generation: Option<i64>,
    /// resourceVersion.
    pub version: u64,
    /// The pools that it names.
    pub pools: BTreeSet<String>,
    /// The interfaces that it allows.
    pub interfaces: Interfaces,
    /// Selectors of pools, nodes and Services, or what cannot be read in them.
    pub selectors: Result<Selectors, String>,
    /// Which nodes it prefers.
    pub preferences: Vec<Preference>,
    /// What of it cannot be read and does not count, while all else does.
    pub passed_over: Option<(Reason, String)>,
    /// How nodes route addresses by it, without the nodes; `None` for one of layer 2.
    pub route: Option<RouteAssignment>,
    /// The condition Ready in its status.
    pub ready: Option<Condition>,
}

/// Label selectors of an advertisement.
#[derive(Clone, Debug)]
pub struct Selectors {
    /// Any of them selects a pool.
    pub pools: Vec<Selector>,
    /// Any of them selects a node; empty for all.
    pub nodes: Vec<Selector>,
    /// Any of them selects a Service; empty for all.
    pub services: Vec<Selector>,
}

/// Nodes that are preferred.
#[derive(Clone, Debug)]
pub struct Preference {
    /// How much, 1 to 100.
    weight: u32,
    nodes: Selector,
}

impl Preference {
    fn parse((index, written): (usize, &PreferredNodeSelector)) -> Result<Self, String> {
        let at = format!("`spec.preferredNodeSelectors[{index}]");
        let weight = u32::try_from(written.weight).ok().filter(|weight| WEIGHTS.contains(weight));
        let weight = weight.ok_or_else(|| format!("{at}.weight` is {}, not 1 to 100", written.weight))?;
        let nodes = Selector::try_from(written.preference.clone()).map_err(|e| format!("{at}.preference`: {e}"))?;
        Ok(Self { weight, nodes })
    }
}

impl AdvertisementView {
    /// Parses it.
    pub fn of(ad: &L2Advertisement) -> Self {
        let spec = &ad.spec;
        let (interfaces, bad_interface) = parsed(&spec.interfaces, |(index, text)| {
            text.parse().map_err(|why| format!("`spec.interfaces[{index}]` is `{text}`: {why}"))
        });
        let (preferences, bad_preference) = parsed(&spec.preferred_node_selectors, Preference::parse);
        let of_interface = bad_interface.map(|why| (Reason::InvalidInterface, why));
        Self {
            uid: ad.metadata.uid.clone().unwrap_or_default(),
            generation: ad.metadata.generation,
            version: version(&ad.metadata),
            pools: spec.ip_address_pools.iter().cloned().collect(),
            // An entry that cannot be read allows none, and does not make it all.
            interfaces: if spec.interfaces.is_empty() { Interfaces::All } else { Interfaces::Only(interfaces) },
            selectors: Selectors::of(&spec.ip_address_pool_selectors, &spec.node_selectors, &spec.service_selectors),
            preferences,
            passed_over: of_interface.or_else(|| bad_preference.map(|why| (Reason::InvalidPreference, why))),
            route: None,
            ready: ready(ad.status.as_ref().map(|s| &s.conditions)),
        }
    }

    /// Parses a RouteAdvertisement.
    pub fn of_routes(ad: &RouteAdvertisement) -> Self {
        let spec = &ad.spec;
        let (form, interface) = (spec.form, spec.interface.clone());
        let (table, metric) = (spec.table, spec.metric);
        Self {
            uid: ad.metadata.uid.clone().unwrap_or_default(),
            generation: ad.metadata.generation,
            version: version(&ad.metadata),
            pools: spec.ip_address_pools.iter().cloned().collect(),
            interfaces: Interfaces::All,
            selectors: Selectors::of(&spec.ip_address_pool_selectors, &spec.node_selectors, &spec.service_selectors),
            preferences: Vec::new(),
            passed_over: None,
            route: Some(RouteAssignment { form, interface, table, metric, nodes: Vec::new() }),
            ready: ready(ad.status.as_ref().map(|s| &s.conditions)),
        }
    }

    /// Whether it covers a pool. With neither names nor selectors it covers all; one that cannot be read covers none.
    pub fn covers(&self, pool: &str, labels: Option<&BTreeMap<String, String>>) -> bool {
        let Ok(selectors) = &self.selectors else { return false };
        if self.pools.is_empty() && selectors.pools.is_empty() {
            return true;
        }
        self.pools.contains(pool) || labels.is_some_and(|l| selectors.pools.iter().any(|s| s.matches(l)))
    }

    /// Whether a node with these labels may announce.
    pub fn selects_node(&self, labels: &BTreeMap<String, String>) -> bool {
        self.selectors.as_ref().is_ok_and(|s| s.nodes.is_empty() || s.nodes.iter().any(|n| n.matches(labels)))
    }

    /// Whether the Services that it announces are restricted.
    pub fn is_for_some_services(&self) -> bool {
        self.selectors.as_ref().is_ok_and(|s| !s.services.is_empty())
    }

    /// Whether it is for a Service with these labels.
    pub fn selects_service(&self, labels: &Labels) -> bool {
        self.selectors.as_ref().is_ok_and(|s| s.services.is_empty() || s.services.iter().any(|s| s.matches(labels)))
    }

    /// How much it prefers a node with these labels, of those that it selects.
    pub fn preference(&self, labels: &BTreeMap<String, String>) -> u32 {
        let matching = self.preferences.iter().filter(|preference| preference.nodes.matches(labels));
        matching.map(|preference| preference.weight).sum()
    }
}

impl Selectors {
    fn of(pools: &[LabelSelector], nodes: &[LabelSelector], services: &[LabelSelector]) -> Result<Self, String> {
        let read = |field: &str, selectors: &[LabelSelector]| {
            let parse = |(index, selector): (usize, &LabelSelector)| {
                Selector::try_from(selector.clone()).map_err(|e| format!("`spec.{field}[{index}]`: {e}"))
            };
            selectors.iter().enumerate().map(parse).collect::<Result<Vec<_>, _>>()
        };
        Ok(Self {
            pools: read("ipAddressPoolSelectors", pools)?,
            nodes: read("nodeSelectors", nodes)?,
            services: read("serviceSelectors", services)?,
        })
    }
}

/// The entries that can be read, and what is wrong with the first that cannot.
fn parsed<'a, T, U>(
    entries: &'a [T],
    parse: impl FnMut((usize, &'a T)) -> Result<U, String>,
) -> (Vec<U>, Option<String>) {
    let (mut good, mut bad) = (Vec::new(), None);
    for entry in entries.iter().enumerate().map(parse) {
        match entry {
            Ok(entry) => good.push(entry),
            Err(why) => bad = bad.or(Some(why)),
        }
    }
    (good, bad)
}
