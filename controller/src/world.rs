//! Everything the controller knows, and what has to be planned again because of what it just learned.
//!
//! A plain synchronous state: changes go in by [`World::learn`], work comes out by [`World::next`]. A change of one
//! Service makes one Service dirty; a change of pools, advertisements or nodes makes all of them dirty, which costs a
//! look at each and a write only where something differs.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use berth_api::service::ServiceKey;
use berth_pool::ipam::{Exclusion, Ipam, PoolInput};
use berth_pool::placement::{Node, Rule};
use ipnet::IpNet;

use crate::view::{AdvertisementView, AnnouncementView, Interfaces, NodeView, PoolView, ServiceView, SliceView};

/// Something the API server said. `None`: it is gone.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    Service(ServiceKey, Option<ServiceView>),
    /// Namespace and name of the slice.
    Slice((String, String), Option<SliceView>),
    Announcement(String, Option<AnnouncementView>),
    Pool(String, Option<PoolView>),
    Advertisement(String, Option<AdvertisementView>),
    Node(String, Option<NodeView>),
    SpeakerNode(String, Option<Interfaces>),
}

/// The order in which Services are planned: those that have an address in their status first, so that nobody else
/// is given it; then the older ones.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Turn {
    without_address: bool,
    created: i64,
    key: ServiceKey,
}

/// The state.
#[derive(Debug, Default)]
pub(crate) struct World {
    pub(crate) ipam: Ipam,
    services: BTreeMap<ServiceKey, ServiceView>,
    slices: BTreeMap<(String, String), SliceView>,
    slices_of: BTreeMap<ServiceKey, BTreeSet<(String, String)>>,
    announcements: BTreeMap<String, AnnouncementView>,
    pools: BTreeMap<String, PoolView>,
    advertisements: BTreeMap<String, AdvertisementView>,
    cluster_nodes: BTreeMap<String, NodeView>,
    interfaces: BTreeMap<String, Interfaces>,
    /// Nodes whose last report was deleted while they are there.
    unreported: BTreeSet<String>,
    /// Derived from the two above.
    nodes: BTreeMap<String, Node>,
    /// Services whose status was written, and the version that it has since: planned again when the watch has caught up,
    /// because what was written is not known here before.
    written: BTreeMap<ServiceKey, u64>,
    /// Services that were refused; they get a turn when something becomes free.
    waiting: BTreeSet<ServiceKey>,
    dirty: BTreeSet<Turn>,
    dirty_turns: BTreeMap<ServiceKey, Turn>,
    dirty_pools: BTreeSet<String>,
    dirty_advertisements: BTreeSet<String>,
}

impl World {
    /// Takes in a change and notes what it makes dirty.
    pub(crate) fn learn(&mut self, change: Change) {
        match change {
            Change::Service(key, view) => self.learn_service(key, view),
            Change::Slice(id, view) => self.learn_slice(id, view),
            Change::Announcement(name, view) => self.learn_announcement(name, view),
            Change::Pool(name, view) => self.learn_pool(name, view),
            Change::Advertisement(name, view) => {
                // The generation tells a change of specification from one of status.
                let version = |v: &AdvertisementView| (v.uid.clone(), v.generation);
                let same = self.advertisements.get(&name).map(version) == view.as_ref().map(version);
                put(&mut self.advertisements, name.clone(), view);
                self.dirty_advertisements.insert(name);
                if !same {
                    self.everything_is_dirty();
                }
            }
            Change::Node(name, view) => {
                if view.is_none() && self.unreported.remove(&name) {
                    self.interfaces.remove(&name);
                }
                let before = self.cluster_nodes.get(&name).map(|n| n.addresses.clone());
                let after = view.as_ref().map(|n| n.addresses.clone());
                put(&mut self.cluster_nodes, name.clone(), view);
                if before != after {
                    self.judge_pools();
                }
                self.derive_node(&name);
            }
            Change::SpeakerNode(name, view) => {
                // Somebody deleted the report of a node that is there: its speaker writes it again at once, and
                // what was in it has not changed.
                if view.is_none() && self.cluster_nodes.contains_key(&name) {
                    self.unreported.insert(name);
                    return;
                }
                self.unreported.remove(&name);
                put(&mut self.interfaces, name.clone(), view);
                // A node's address may be known from its speaker alone.
                self.judge_pools();
                self.derive_node(&name);
            }
        }
    }

    /// The next Service that is to be planned and is not `busy`.
    pub(crate) fn next(&mut self, busy: impl Fn(&ServiceKey) -> bool) -> Option<ServiceKey> {
        let stands = |key: &ServiceKey| busy(key) || self.written.contains_key(key);
        let turn = self.dirty.iter().find(|turn| !stands(&turn.key))?.clone();
        self.dirty.remove(&turn);
        self.dirty_turns.remove(&turn.key);
        Some(turn.key)
    }

    /// Puts a Service in line.
    pub(crate) fn mark(&mut self, key: &ServiceKey) {
        let view = self.services.get(key);
        let turn = Turn {
            without_address: view.is_none_or(|v| v.ingress.is_empty()),
            created: view.map_or(0, |v| v.created),
            key: key.clone(),
        };
        if let Some(before) = self.dirty_turns.insert(key.clone(), turn.clone()) {
            self.dirty.remove(&before);
        }
        self.dirty.insert(turn);
    }

    /// Notes that the status of a Service was written, and the version that it has since.
    pub(crate) fn status_written(&mut self, key: &ServiceKey, version: u64) {
        if self.services.get(key).is_some_and(|seen| seen.version < version) {
            self.written.insert(key.clone(), version);
        }
    }

    /// How many Services wait for the watch to catch up.
    pub(crate) fn behind(&self) -> usize {
        self.written.len()
    }

    /// How many Services are in line.
    pub(crate) fn backlog(&self) -> usize {
        self.dirty.len()
    }

    /// Notes whether a Service was refused and waits for something to become free.
    pub(crate) fn set_waiting(&mut self, key: &ServiceKey, waiting: bool) {
        if waiting {
            self.waiting.insert(key.clone());
        } else {
            self.waiting.remove(key);
        }
    }

    /// How many Services were refused and wait.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Notes that a Service is about to claim an address, before the claim is written.
    pub(crate) fn hold(&mut self, address: Ipv4Addr, key: &ServiceKey, pool: &str) {
        self.ipam.hold(address, key, pool);
        self.dirty_pools.insert(pool.to_owned());
    }

    /// Notes that a claim failed: unless an Announcement has come meanwhile, nobody holds the address.
    pub(crate) fn unhold(&mut self, address: Ipv4Addr) {
        if !self.announcements.contains_key(&address.to_string()) {
            self.release(address);
        }
    }

    /// A Service.
    pub(crate) fn service(&self, key: &ServiceKey) -> Option<&ServiceView> {
        self.services.get(key)
    }

    /// The Announcement of an address.
    pub(crate) fn announcement(&self, address: Ipv4Addr) -> Option<&AnnouncementView> {
        self.announcements.get(&address.to_string())
    }

    /// All nodes.
    pub(crate) fn nodes(&self) -> &BTreeMap<String, Node> {
        &self.nodes
    }

    /// The nodes on which a Service has a serving endpoint.
    pub(crate) fn serving(&self, key: &ServiceKey) -> BTreeSet<String> {
        let ids = self.slices_of.get(key).into_iter().flatten();
        ids.filter_map(|id| self.slices.get(id)).flat_map(|s| s.serving.iter().cloned()).collect()
    }

    /// The advertisements that cover a pool.
    pub(crate) fn rules(&self, pool: &str) -> Vec<Rule> {
        let labels = self.pools.get(pool).map(|p| &p.labels);
        let covering = self.advertisements.values().filter(|a| a.covers(pool, labels));
        covering
            .map(|a| {
                let selected = self.nodes.iter().filter(|(_, n)| a.selects_node(&n.labels));
                Rule { nodes: Some(selected.map(|(name, _)| name.clone()).collect()), interfaces: a.interfaces.clone() }
            })
            .collect()
    }

    /// A pool.
    pub(crate) fn pool(&self, name: &str) -> Option<&PoolView> {
        self.pools.get(name)
    }

    /// An advertisement.
    pub(crate) fn advertisement(&self, name: &str) -> Option<&AdvertisementView> {
        self.advertisements.get(name)
    }

    /// Pools whose status may be out of date; each is named once.
    pub(crate) fn take_dirty_pools(&mut self) -> BTreeSet<String> {
        std::mem::take(&mut self.dirty_pools)
    }

    /// Puts a pool's status in line again.
    pub(crate) fn mark_pool(&mut self, name: String) {
        self.dirty_pools.insert(name);
    }

    /// Advertisements whose status may be out of date; each is named once.
    pub(crate) fn take_dirty_advertisements(&mut self) -> BTreeSet<String> {
        std::mem::take(&mut self.dirty_advertisements)
    }

    /// Puts an advertisement's status in line again.
    pub(crate) fn mark_advertisement(&mut self, name: String) {
        self.dirty_advertisements.insert(name);
    }

    fn learn_service(&mut self, key: ServiceKey, view: Option<ServiceView>) {
        let caught_up = |version: &u64| view.as_ref().is_none_or(|view| view.version >= *version);
        if self.written.get(&key).is_some_and(caught_up) {
            self.written.remove(&key);
        }
        if let (Some(known), Some(view)) = (self.services.get_mut(&key), &view)
            && !known.says_other(view)
        {
            known.version = view.version;
            return;
        }
        if view.is_none() && !self.services.contains_key(&key) {
            return;
        }
        if view.is_none() {
            self.waiting.remove(&key);
        }
        put(&mut self.services, key.clone(), view);
        self.mark(&key);
    }

    fn learn_slice(&mut self, id: (String, String), view: Option<SliceView>) {
        let before = self.slices.get(&id).cloned();
        if before == view {
            return;
        }
        if let Some(before) = before {
            if let Some(ids) = self.slices_of.get_mut(&before.service) {
                ids.remove(&id);
                if ids.is_empty() {
                    self.slices_of.remove(&before.service);
                }
            }
            self.mark_if_known(&before.service);
        }
        if let Some(view) = &view {
            self.slices_of.entry(view.service.clone()).or_default().insert(id.clone());
            self.mark_if_known(&view.service.clone());
        }
        put(&mut self.slices, id, view);
    }

    fn learn_announcement(&mut self, name: String, view: Option<AnnouncementView>) {
        let Some(view) = view else {
            if let Some(gone) = self.announcements.remove(&name) {
                if let Some(address) = gone.address() {
                    self.release(address);
                }
                if let Some(holder) = gone.holder() {
                    self.mark(&holder);
                }
            }
            return;
        };
        if let Some(known) = self.announcements.get(&name)
            && (*known == view || view.is_older_than(known))
        {
            return;
        }
        if let (Some(address), Some(holder)) = (view.address(), view.holder()) {
            if let Some(other) = self.ipam.holder(address).filter(|h| **h != holder).cloned() {
                // Somebody else's claim came first; who thought to hold it plans again.
                self.mark(&other);
            }
            self.ipam.hold(address, &holder, &view.spec.pool);
            self.dirty_pools.insert(view.spec.pool.clone());
            self.mark(&holder);
        }
        self.announcements.insert(name, view);
    }

    fn learn_pool(&mut self, name: String, view: Option<PoolView>) {
        let same = match (self.pools.get(&name), &view) {
            (Some(before), Some(after)) => !before.asks_for_other(after),
            (before, after) => before.is_none() && after.is_none(),
        };
        put(&mut self.pools, name.clone(), view);
        self.dirty_pools.insert(name);
        if !same {
            self.judge_pools();
            // Advertisements name pools, which may have come or gone.
            self.dirty_advertisements.extend(self.advertisements.keys().cloned());
            self.everything_is_dirty();
        }
    }

    fn release(&mut self, address: Ipv4Addr) {
        self.dirty_pools.extend(self.ipam.pool_of(address).map(str::to_owned));
        if self.ipam.release(address) {
            for key in self.waiting.clone() {
                self.mark(&key);
            }
        }
    }

    fn judge_pools(&mut self) {
        let inputs = self.pools.iter().map(|(name, view)| PoolInput {
            name: name.clone(),
            created: view.created,
            addresses: view.addresses.clone(),
            auto_assign: view.auto_assign,
        });
        let excluded = self.excluded_addresses();
        self.ipam.set_pools(inputs.collect(), &excluded);
        self.dirty_pools.extend(self.pools.keys().cloned());
        for key in self.waiting.clone() {
            self.mark(&key);
        }
    }

    /// Addresses that are never given out: those of nodes, and of the nodes' subnets the two that no host can have.
    fn excluded_addresses(&self) -> BTreeMap<Ipv4Addr, Exclusion> {
        let reported = || {
            self.interfaces.iter().flat_map(|(node, interfaces)| {
                let nets = interfaces.iter().flat_map(|i| &i.addresses);
                nets.filter_map(move |net| match net {
                    IpNet::V4(v4) => Some((node, *v4)),
                    IpNet::V6(_) => None,
                })
            })
        };
        let mut excluded = BTreeMap::new();
        // A /31 or /32 has neither (RFC 3021).
        for (_, net) in reported().filter(|(_, net)| net.prefix_len() < 31) {
            for address in [net.network(), net.broadcast()] {
                excluded.insert(address, Exclusion::Subnet(net.trunc().to_string()));
            }
        }
        let said = self.cluster_nodes.iter().flat_map(|(node, view)| view.addresses.iter().map(move |a| (node, *a)));
        for (node, address) in reported().map(|(node, net)| (node, net.addr())).chain(said) {
            excluded.insert(address, Exclusion::Node(node.clone()));
        }
        excluded
    }

    /// A node takes part when the cluster knows it; its interfaces come from its speaker.
    fn derive_node(&mut self, name: &str) {
        let node = self.cluster_nodes.get(name).map(|view| Node {
            interfaces: self.interfaces.get(name).cloned().unwrap_or_default(),
            labels: view.labels.clone(),
            ready: view.ready,
            excluded: view.excluded(),
            network_unavailable: view.network_unavailable,
        });
        if self.nodes.get(name) != node.as_ref() {
            put(&mut self.nodes, name.to_owned(), node);
            self.dirty_advertisements.extend(self.advertisements.keys().cloned());
            self.everything_is_dirty();
        }
    }

    fn everything_is_dirty(&mut self) {
        let holders = self.announcements.values().filter_map(AnnouncementView::holder);
        let keys: BTreeSet<_> = self.services.keys().cloned().chain(holders).collect();
        for key in &keys {
            self.mark(key);
        }
    }

    fn mark_if_known(&mut self, key: &ServiceKey) {
        if self.services.contains_key(key) {
            self.mark(key);
        }
    }
}

fn put<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: Option<V>) {
    match value {
        Some(value) => {
            map.insert(key, value);
        }
        None => {
            map.remove(&key);
        }
    }
}
