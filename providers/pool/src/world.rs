//! Everything that is known, and what has to be planned again because of what it just learned.
//!
//! A plain synchronous state: changes go in by [`World::learn`], work comes out by [`World::next`]. A change of one
//! Service makes one Service dirty; a change of pools, advertisements or nodes makes all of them dirty, which costs a
//! look at each and a write only where something differs.

mod cooling;
mod covering;
mod endpoints;
mod excluded;
mod load;
mod quarantine;
mod refused;
mod sweep;
mod turns;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::OnceLock;

use crate::ipam::{Admission, Exclusion, Ipam, Labels, PoolInput, Tenant};
use crate::placement::{Load, Node};
use berth_api::crd::ServiceRef;
use berth_api::names::announcement_name;
use berth_api::pool::IpRange;
use berth_api::service::ServiceKey;
use berth_api::{IpFamily, PerFamily};

pub use covering::Covering;
pub use turns::Lack;
use turns::{Rank, Turn, Waiting};

use crate::view::{
    AdvertisementId, AdvertisementKind, AdvertisementView, AnnouncementView, Assignment, Interner, NodeView, PoolView,
    Report, ServiceView, SliceView, key_of,
};

/// Something the API server said. `None`: it is gone.
#[derive(Clone, Debug)]
pub enum Change {
    /// A Service.
    Service(ServiceKey, Option<ServiceView>),
    /// An EndpointSlice: its namespace and name, and the nodes that serve.
    Slice((String, String), Option<SliceView>),
    /// An Announcement.
    Announcement(String, Option<AnnouncementView>),
    /// A pool.
    Pool(String, Option<PoolView>),
    /// An L2Advertisement.
    Advertisement(String, Option<AdvertisementView>),
    /// A RouteAdvertisement.
    RouteAdvertisement(String, Option<AdvertisementView>),
    /// A Node.
    Node(String, Option<NodeView>),
    /// What a node's speaker reported.
    SpeakerNode(String, Option<Report>),
    /// A namespace: its labels.
    Namespace(String, Option<Labels>),
    /// Addresses for the cluster IPs of Services.
    ServiceCidr(String, Option<Vec<IpRange>>),
}

/// The state.
#[derive(Clone, Debug, Default)]
pub struct World {
    /// Who holds which address.
    pub ipam: Ipam,
    // What there are tens of thousands of is boxed: lists come in order, and a map that grows in order is half empty.
    services: BTreeMap<ServiceKey, Box<ServiceView>>,
    slices: BTreeMap<(String, String), Box<SliceView>>,
    /// The slices of each Service by their names; they are in its namespace.
    slices_of: BTreeSet<(ServiceKey, String)>,
    announcements: BTreeMap<String, Box<AnnouncementView>>,
    /// How many addresses each node owns: as those say, but for what is about to be written.
    load: Load,
    /// What is being written, in place of what Announcements say of these addresses.
    foreseen: BTreeMap<IpAddr, Assignment>,
    /// Names that those have in common.
    interner: Interner,
    pools: BTreeMap<String, PoolView>,
    advertisements: BTreeMap<AdvertisementId, AdvertisementView>,
    cluster_nodes: BTreeMap<String, NodeView>,
    reports: BTreeMap<String, Report>,
    /// Nodes whose last report was deleted while they are there.
    unreported: BTreeSet<String>,
    /// Derived from the two above.
    nodes: BTreeMap<String, Node>,
    /// Whether a node that is cordoned is to give up what it owns.
    drain_on_cordon: bool,
    /// Whether the exclude label of nodes is of no concern.
    ignore_exclude_label: bool,
    /// Services that are not planned before the watch has shown this version of them or a later one: what was written into
    /// their status is not known here before, or a write showed that what is known here is outdated.
    awaited: BTreeMap<ServiceKey, u64>,
    /// Services that lack something.
    waiting: BTreeMap<ServiceKey, Waiting>,
    /// Those of them that get a turn when an address of the family becomes free.
    waiting_for: PerFamily<BTreeSet<Turn>>,
    /// Those that wait for one address and no other.
    waiting_on: BTreeMap<IpAddr, BTreeSet<ServiceKey>>,
    /// Those that would share an address, by their keys.
    waiting_to_share: BTreeMap<String, BTreeSet<ServiceKey>>,
    /// Those that got a turn for that, and for which families. One that still lacks it then passes the turn on, so that an address
    /// costs as many plans as there are Services that have no use for it, and not as many as wait.
    offered: BTreeMap<ServiceKey, BTreeSet<IpFamily>>,
    namespaces: BTreeMap<String, Labels>,
    service_ranges: BTreeMap<String, Vec<IpRange>>,
    /// Addresses that their Services leave and that are to cool down before anybody else has them: their Announcements stay until
    /// the pool's status says so, so that it is not forgotten.
    to_cool: BTreeMap<IpAddr, i64>,
    /// Addresses that a foreign machine was found to have.
    found: quarantine::Found,
    swept: sweep::Swept,
    /// The advertisements that cover each pool; found when they are asked for, and anew when nodes or advertisements have changed.
    covering: OnceLock<BTreeMap<String, Vec<Covering>>>,
    /// What was never given when pools were judged.
    excluded: Vec<(IpRange, Exclusion)>,
    /// What is still to be done because of changes that concern all: once for as many as come together, of which a start has many.
    due: Due,
    /// When the next address has cooled down, or its quarantine ends.
    next_cooled: Option<i64>,
    dirty: BTreeSet<Turn>,
    dirty_ranks: BTreeMap<ServiceKey, Rank>,
    dirty_pools: BTreeSet<String>,
    dirty_advertisements: BTreeSet<AdvertisementId>,
}

/// What changes that concern all make necessary.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Due {
    judge: Judge,
    plan: Sweep,
}

/// Whether pools are to be judged; the later ones include the earlier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Judge {
    #[default]
    No,
    /// Where it has changed whose addresses are never given.
    IfExcluded,
    /// In any case.
    Yes,
}

/// Who is to be planned; the later ones include the earlier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Sweep {
    #[default]
    Nobody,
    /// Everybody, for a look at where its addresses are.
    Placement,
    /// Everybody.
    All,
}

impl World {
    /// Has nodes that are cordoned give up what they own, or not, which is how it begins.
    pub fn set_drain_on_cordon(&mut self, drain: bool) {
        self.drain_on_cordon = drain;
        self.derive_nodes();
    }

    /// Lets nodes announce although they have the exclude label, or not, which is how it begins.
    pub fn set_ignore_exclude_label(&mut self, ignore: bool) {
        self.ignore_exclude_label = ignore;
        self.derive_nodes();
    }

    fn derive_nodes(&mut self) {
        for name in self.cluster_nodes.keys().cloned().collect::<Vec<_>>() {
            self.derive_node(&name);
        }
    }

    /// Takes in a change and notes what it makes dirty.
    pub fn learn(&mut self, change: Change) {
        if !matches!(change, Change::Service(..) | Change::Slice(..) | Change::Announcement(..)) {
            self.swept.is_outdated();
        }
        match change {
            Change::Service(key, view) => self.learn_service(key, view),
            Change::Slice(id, view) => self.learn_slice(id, view),
            Change::Announcement(name, view) => self.learn_announcement(name, view),
            Change::Pool(name, view) => self.learn_pool(name, view),
            Change::Advertisement(name, view) => {
                self.learn_advertisement(AdvertisementKind::Layer2.named(name), view);
            }
            Change::RouteAdvertisement(name, view) => {
                self.learn_advertisement(AdvertisementKind::Route.named(name), view);
            }
            Change::Node(name, view) => {
                if view.is_none() {
                    self.interner.prune();
                }
                if view.is_none() && self.unreported.remove(&name) {
                    self.reports.remove(&name);
                }
                let taken = |view: &NodeView| (view.addresses.clone(), view.pod_ranges.clone());
                let before = self.cluster_nodes.get(&name).map(taken);
                let after = view.as_ref().map(taken);
                put(&mut self.cluster_nodes, name.clone(), view);
                if before != after {
                    self.judge_if_excluded();
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
                let refused = |report: Option<&Report>| report.map(|report| report.refused.clone()).unwrap_or_default();
                let (before, after) = (refused(self.reports.get(&name)), refused(view.as_ref()));
                put(&mut self.reports, name.clone(), view);
                self.learn_refused(&before, &after);
                // A node's address may be known from its speaker alone.
                self.judge_if_excluded();
                self.derive_node(&name);
                self.learn_found_by(&name);
            }
            Change::Namespace(name, labels) => self.learn_namespace(name, labels),
            Change::ServiceCidr(name, ranges) => {
                if self.service_ranges.get(&name) != ranges.as_ref() {
                    put(&mut self.service_ranges, name, ranges);
                    self.judge_if_excluded();
                }
            }
        }
    }

    /// Does what changes that concern all have made necessary. Whatever is asked of pools afterwards is of the present.
    pub fn catch_up(&mut self) {
        let due = std::mem::take(&mut self.due);
        if due.judge != Judge::No {
            self.judge_pools(due.judge == Judge::Yes);
        }
        if due.plan != Sweep::Nobody {
            let holders = self.announcements.values().flat_map(|view| view.holders());
            let keys: BTreeSet<_> = self.services.keys().cloned().chain(holders).collect();
            for key in &keys {
                if due.plan == Sweep::All { self.mark(key) } else { self.mark_placed(key) }
            }
        }
    }

    /// Notes that a Service is about to claim an address, before the claim is written.
    pub fn hold(&mut self, address: IpAddr, key: &ServiceKey, pool: &str) {
        let terms = self.services.get(key).and_then(|view| view.sharing.clone());
        self.ipam.hold(address, pool, Tenant { service: key.clone(), terms });
        self.dirty_pools.insert(pool.to_owned());
    }

    /// Notes that a claim failed: the address is held by whom its Announcement names, if there is one.
    pub fn unhold(&mut self, address: IpAddr) {
        match self.announcements.get(&announcement_name(address)).cloned() {
            Some(view) => self.set_tenants(&view),
            None => self.release(address),
        }
    }

    /// A Service.
    pub fn service(&self, key: &ServiceKey) -> Option<&ServiceView> {
        self.services.get(key).map(Box::as_ref)
    }

    /// The Announcement of an address.
    pub fn announcement(&self, address: IpAddr) -> Option<&AnnouncementView> {
        self.announcements.get(&announcement_name(address)).map(Box::as_ref)
    }

    /// What a Node says.
    pub fn node_view(&self, name: &str) -> Option<&NodeView> {
        self.cluster_nodes.get(name)
    }

    /// All EndpointSlices, by namespace and name.
    pub fn slices(&self) -> impl Iterator<Item = (&(String, String), &SliceView)> {
        self.slices.iter().map(|(id, slice)| (id, slice.as_ref()))
    }

    /// All Announcements, by name.
    pub fn announcements(&self) -> impl Iterator<Item = &AnnouncementView> {
        self.announcements.values().map(Box::as_ref)
    }

    /// All nodes.
    pub fn nodes(&self) -> &BTreeMap<String, Node> {
        &self.nodes
    }

    /// The labels of a namespace.
    pub fn namespace(&self, name: &str) -> Option<&Labels> {
        self.namespaces.get(name)
    }

    /// A pool.
    pub fn pool(&self, name: &str) -> Option<&PoolView> {
        self.pools.get(name)
    }

    /// An advertisement.
    pub fn advertisement(&self, id: &AdvertisementId) -> Option<&AdvertisementView> {
        self.advertisements.get(id)
    }

    /// Pools whose status may be out of date; each is named once.
    pub fn take_dirty_pools(&mut self) -> BTreeSet<String> {
        self.catch_up();
        std::mem::take(&mut self.dirty_pools)
    }

    /// Puts a pool's status in line again.
    pub fn mark_pool(&mut self, name: String) {
        self.dirty_pools.insert(name);
    }

    /// Advertisements whose status may be out of date; each is named once.
    pub fn take_dirty_advertisements(&mut self) -> BTreeSet<AdvertisementId> {
        std::mem::take(&mut self.dirty_advertisements)
    }

    /// Puts an advertisement's status in line again.
    pub fn mark_advertisement(&mut self, id: AdvertisementId) {
        self.dirty_advertisements.insert(id);
    }

    fn learn_advertisement(&mut self, id: AdvertisementId, view: Option<AdvertisementView>) {
        // The generation tells a change of specification from one of status.
        let version = |v: &AdvertisementView| (v.uid.clone(), v.generation);
        let same = self.advertisements.get(&id).map(version) == view.as_ref().map(version);
        put(&mut self.advertisements, id.clone(), view);
        self.dirty_advertisements.insert(id);
        if !same {
            // Which pools are left to layer 2 may be others now.
            let routes = self.advertisements.keys().filter(|id| id.kind == AdvertisementKind::Route);
            self.dirty_advertisements.extend(routes.cloned());
            self.places_changed();
        }
    }

    fn learn_service(&mut self, key: ServiceKey, view: Option<ServiceView>) {
        let caught_up = |version: &u64| view.as_ref().is_none_or(|view| view.version >= *version);
        if self.awaited.get(&key).is_some_and(caught_up) {
            self.awaited.remove(&key);
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
            self.set_waiting(&key, None, &[]);
        }
        // Advertisements select a shared address by the labels of all that share it.
        if let (Some(known), Some(view)) = (self.services.get(&key), &view)
            && known.labels != view.labels
        {
            let held: Vec<_> = self.ipam.held_by(&key).collect();
            for address in held {
                for sharer in self.ipam.tenants(address).iter().map(|t| t.service.clone()).collect::<Vec<_>>() {
                    self.mark(&sharer);
                }
                self.tell_waiting_on(address);
            }
        }
        put(&mut self.services, key.clone(), view.map(Box::new));
        self.mark(&key);
    }

    fn learn_slice(&mut self, id: (String, String), view: Option<SliceView>) {
        if self.slices.get(&id).map(Box::as_ref) == view.as_ref() {
            return;
        }
        if let Some(before) = self.slices.remove(&id) {
            self.mark_if_known(&before.service);
            self.slices_of.remove(&(before.service, id.1.clone()));
        }
        if let Some(mut view) = view {
            view.intern(&mut self.interner);
            self.slices_of.insert((view.service.clone(), id.1.clone()));
            self.mark_if_known(&view.service);
            self.slices.insert(id, Box::new(view));
        }
    }

    fn learn_announcement(&mut self, name: String, view: Option<AnnouncementView>) {
        let Some(mut view) = view else {
            let known = self.announcements.get(&name).map(|known| known.address);
            let gone = known.and_then(|address| {
                let mut gone = None;
                self.recount(address, |world| gone = world.announcements.remove(&name));
                gone
            });
            if let Some(gone) = gone {
                self.to_cool.remove(&gone.address);
                self.learn_conflict(gone.address);
                self.release(gone.address);
                for holder in gone.holders() {
                    self.mark(&holder);
                }
            }
            return;
        };
        if let Some(known) = self.announcements.get(&name)
            && (**known == view || view.is_older_than(known))
        {
            return;
        }
        let before = self.announcements.get(&name).map(|known| &known.services);
        let is_other = before != Some(&view.services);
        self.set_tenants(&view);
        view.intern(&mut self.interner);
        let address = view.address;
        self.recount(address, |world| {
            world.announcements.insert(name, Box::new(view));
        });
        self.learn_conflict(address);
        if is_other {
            self.tell_waiting_on(address);
            // One who shares is a chance for those who wait to share with it.
            let keys: BTreeSet<_> =
                self.ipam.tenants(address).iter().filter_map(|t| Some(t.terms.as_ref()?.key.clone())).collect();
            let chances = keys.iter().filter_map(|key| self.waiting_to_share.get(key)).flatten();
            for key in chances.cloned().collect::<Vec<_>>() {
                self.mark(&key);
            }
        }
    }

    /// Takes over who holds an address from its Announcement.
    fn set_tenants(&mut self, view: &AnnouncementView) {
        let address = view.address;
        let tenant = |reference: &ServiceRef| Tenant { service: key_of(reference), terms: reference.sharing.clone() };
        let tenants: Vec<_> = view.services.iter().map(tenant).collect();
        let before = self.ipam.tenants(address).to_vec();
        // Who thought to hold it, and whose claim came too late, plans again; and whoever holds it.
        let concerned: BTreeSet<_> = before.iter().chain(&tenants).map(|tenant| tenant.service.clone()).collect();
        let is_freer = before.iter().any(|tenant| !tenants.contains(tenant));
        self.ipam.set_tenants(address, &view.pool, tenants);
        self.dirty_pools.insert(view.pool.to_string());
        for key in concerned {
            self.mark(&key);
        }
        if is_freer {
            self.offer(IpFamily::of(address), None);
        }
    }

    fn learn_pool(&mut self, name: String, view: Option<PoolView>) {
        let same = match (self.pools.get(&name), &view) {
            (Some(before), Some(after)) => !before.asks_for_other(after),
            (before, after) => before.is_none() && after.is_none(),
        };
        let held_back =
            |view: Option<&PoolView>| view.map(|v| (v.cooling.clone(), v.quarantined.clone())).unwrap_or_default();
        let same_held_back = held_back(self.pools.get(&name)) == held_back(view.as_ref());
        let mut view = view;
        if let (Some(before), Some(view)) = (self.pools.get(&name), &mut view) {
            view.over = before.over.iter().copied().filter(|a| view.quarantine(*a) == before.quarantine(*a)).collect();
        }
        put(&mut self.pools, name.clone(), view);
        self.dirty_pools.insert(name.clone());
        if !same {
            self.due.judge = Judge::Yes;
        }
        if !same_held_back {
            self.learn_quarantined(&name);
            self.held_back_changed(&name);
        }
        if !same {
            // Advertisements name pools, which may have come or gone.
            self.dirty_advertisements.extend(self.advertisements.keys().cloned());
            self.covering.take();
            self.due.plan = Sweep::All;
        } else if !same_held_back {
            // Whose status says now that they cool down can go.
            let leaving: BTreeSet<_> =
                self.to_cool.keys().flat_map(|a| self.ipam.tenants(*a)).map(|t| t.service.clone()).collect();
            for key in leaving {
                self.mark(&key);
            }
        }
    }

    fn learn_namespace(&mut self, name: String, labels: Option<Labels>) {
        if self.namespaces.get(&name) == labels.as_ref() {
            return;
        }
        put(&mut self.namespaces, name.clone(), labels);
        let first = ServiceKey { namespace: name.clone(), name: String::new() };
        let in_it = self.services.range(first..).take_while(|(key, _)| key.namespace == name);
        for key in in_it.map(|(key, _)| key.clone()).collect::<Vec<_>>() {
            self.mark(&key);
        }
    }

    fn release(&mut self, address: IpAddr) {
        self.dirty_pools.extend(self.ipam.pool_of(address).map(str::to_owned));
        if self.ipam.release(address) {
            self.tell_waiting_on(address);
            // One that cools down is nobody's yet.
            if self.due.judge == Judge::Yes || self.ipam.is_free(address) {
                self.offer(IpFamily::of(address), None);
            }
        }
    }

    /// Judges the pools: in any case where they have `changed`, else where what is never given has.
    fn judge_pools(&mut self, changed: bool) {
        let excluded = self.excluded_addresses();
        if !changed && excluded == self.excluded {
            return;
        }
        self.spread_quarantined();
        let inputs = self.pools.iter().map(|(name, view)| PoolInput {
            name: name.clone(),
            created: view.created,
            addresses: view.addresses.clone(),
            auto_assign: view.auto_assign,
            avoid_buggy: view.avoid_buggy,
            disabled: view.disabled,
            admission: view.admission.as_ref().map(Admission::parse),
            sharing: view.sharing,
            cooling: self.held_back(name),
        });
        self.ipam.set_pools(inputs.collect(), &excluded);
        self.excluded = excluded;
        self.dirty_pools.extend(self.pools.keys().cloned());
        for key in self.waiting.keys().cloned().collect::<Vec<_>>() {
            self.mark(&key);
        }
    }

    /// A node takes part when the cluster knows it; its interfaces come from its speaker.
    fn derive_node(&mut self, name: &str) {
        let node = self.cluster_nodes.get(name).map(|view| Node {
            interfaces: self.reports.get(name).map(|report| report.interfaces.clone()).unwrap_or_default(),
            labels: view.labels.clone(),
            ready: view.ready,
            excluded: view.excluded() && !self.ignore_exclude_label,
            network_unavailable: view.network_unavailable,
            draining: view.gives_up(self.drain_on_cordon).or_else(|| self.reports.get(name)?.is_stale()),
            dataplane: self.reports.get(name).and_then(|report| report.dataplane),
            kernel_traps: self.reports.get(name).map(|report| report.kernel_traps.clone()).unwrap_or_default(),
            routes: self.reports.get(name).is_some_and(|report| report.routes),
        });
        if self.nodes.get(name) != node.as_ref() {
            put(&mut self.nodes, name.to_owned(), node);
            self.dirty_advertisements.extend(self.advertisements.keys().cloned());
            self.places_changed();
        }
    }

    fn judge_if_excluded(&mut self) {
        self.due.judge = self.due.judge.max(Judge::IfExcluded);
    }

    fn places_changed(&mut self) {
        self.covering.take();
        self.due.plan = self.due.plan.max(Sweep::Placement);
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

#[cfg(test)]
mod tests;
