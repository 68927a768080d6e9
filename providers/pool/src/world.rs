//! Everything that is known, and what has to be planned again because of what it just learned.
//!
//! A plain synchronous state: changes go in by [`World::learn`], work comes out by [`World::next`]. A change of one
//! Service makes one Service dirty; a change of pools, advertisements or nodes makes all of them dirty, which costs a
//! look at each and a write only where something differs.

mod endpoints;
mod load;
mod quarantine;
mod sweep;

use std::borrow::Cow;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::Bound;
use std::sync::{Arc, OnceLock};

use crate::ipam::{Admission, Exclusion, Ipam, Labels, PoolInput, Tenant};
use crate::placement::{Load, Node, Rule};
use berth_api::crd::ServiceRef;
use berth_api::names::announcement_name;
use berth_api::pool::IpRange;
use berth_api::service::ServiceKey;
use berth_api::{IpFamily, PerFamily};
use ipnet::IpNet;

use crate::cooldown;
use crate::view::{
    AdvertisementView, AnnouncementView, Assignment, Interner, NodeView, PoolView, Report, ServiceView, SliceView,
    key_of,
};

/// An advertisement that covers a pool.
#[derive(Clone, Debug)]
pub struct Covering {
    /// Its name.
    pub advertisement: String,
    /// Whether it is for some Services only.
    pub is_for_some_services: bool,
    /// What it says of nodes and interfaces.
    pub rule: Arc<Rule>,
}

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
    /// An advertisement.
    Advertisement(String, Option<AdvertisementView>),
    /// A Node.
    Node(String, Option<NodeView>),
    /// What a node's speaker reported.
    SpeakerNode(String, Option<Report>),
    /// A namespace: its labels.
    Namespace(String, Option<Labels>),
    /// Addresses for the cluster IPs of Services.
    ServiceCidr(String, Option<Vec<IpRange>>),
}

/// The order in which Services are planned: those that have an address in their status first, so that nobody else
/// is given it; then the older ones.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Turn {
    rank: Rank,
    key: ServiceKey,
}

/// What decides about a turn before the name does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    /// It has all that it asks for, and only nodes or advertisements have changed: what it has it keeps, so nobody's address
    /// depends on its turn, and whoever waits for one comes first.
    only_placed: bool,
    without_address: bool,
    created: i64,
}

/// What a Service waits for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lack {
    /// Its request is not met. One that prefers dual stack and has one address is served.
    pub refused: bool,
    /// Families of which an address that becomes free may help. A change of pools or nodes may help in any case.
    pub families: Vec<IpFamily>,
    /// Addresses for which no other will do. Whatever becomes of them is worth a look.
    pub addresses: Vec<IpAddr>,
}

/// One that waits.
#[derive(Clone, Debug)]
struct Waiting {
    lack: Lack,
    /// Its place among those that wait.
    turn: Turn,
    /// The key by which it would share an address.
    shares_by: Option<String>,
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
    advertisements: BTreeMap<String, AdvertisementView>,
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
    dirty_advertisements: BTreeSet<String>,
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
                    self.places_changed();
                }
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
                put(&mut self.reports, name.clone(), view);
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

    /// The next Service that is to be planned and is not `busy`.
    pub fn next(&mut self, busy: impl Fn(&ServiceKey) -> bool) -> Option<ServiceKey> {
        self.catch_up();
        loop {
            let stands = |key: &ServiceKey| busy(key) || self.awaited.contains_key(key);
            let turn = self.dirty.iter().find(|turn| !stands(&turn.key))?.clone();
            self.dirty.remove(&turn);
            self.dirty_ranks.remove(&turn.key);
            // Its turn comes when the namespace does.
            if !self.is_nowhere(&turn.key) {
                return Some(turn.key);
            }
        }
    }

    /// Whether [`Self::next`] would name one.
    pub fn has_next(&self, busy: impl Fn(&ServiceKey) -> bool) -> bool {
        let stands = |key: &ServiceKey| busy(key) || self.awaited.contains_key(key) || self.is_nowhere(key);
        self.due != Due::default() || self.dirty.iter().any(|turn| !stands(&turn.key))
    }

    /// Whether the namespace of a Service is not known: its labels come by another watch, and decide which pools the Service may use.
    fn is_nowhere(&self, key: &ServiceKey) -> bool {
        self.services.contains_key(key) && !self.namespaces.is_empty() && !self.namespaces.contains_key(&key.namespace)
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

    /// Puts a Service in line for a look at where its addresses are.
    fn mark_placed(&mut self, key: &ServiceKey) {
        if self.dirty_ranks.contains_key(key) {
            return;
        }
        let turn = self.turn_of(key);
        let only_placed = !turn.rank.without_address && !self.waiting.contains_key(key) && self.holds_what_it_says(key);
        self.put_in_line(Turn { rank: Rank { only_placed, ..turn.rank }, ..turn });
    }

    /// Whether a Service holds every address in its status.
    fn holds_what_it_says(&self, key: &ServiceKey) -> bool {
        let holds = |address: IpAddr| self.ipam.tenants(address).iter().any(|tenant| tenant.service == *key);
        self.services.get(key).is_some_and(|view| view.addresses().all(holds))
    }

    /// Puts a Service in line.
    pub fn mark(&mut self, key: &ServiceKey) {
        self.put_in_line(self.turn_of(key));
    }

    fn put_in_line(&mut self, turn: Turn) {
        let key = &turn.key;
        if let Some(rank) = self.dirty_ranks.insert(key.clone(), turn.rank) {
            self.dirty.remove(&Turn { rank, key: key.clone() });
        }
        self.dirty.insert(turn);
    }

    fn turn_of(&self, key: &ServiceKey) -> Turn {
        let view = self.services.get(key);
        let without_address = view.is_none_or(|v| v.reached.is_empty());
        let rank = Rank { only_placed: false, without_address, created: view.map_or(0, |v| v.created) };
        Turn { rank, key: key.clone() }
    }

    /// Notes that the status of a Service was written, and the version that it has since.
    pub fn status_written(&mut self, key: &ServiceKey, version: u64) {
        if self.services.get(key).is_some_and(|seen| seen.version < version) {
            self.awaited.insert(key.clone(), version);
        }
    }

    /// Notes that a Service has changed since the version that was planned on, which a write found out. It is planned
    /// again, but not before the watch has shown the change: trying it earlier could only fail in the same way.
    pub fn is_outdated(&mut self, key: &ServiceKey, planned_on: u64) {
        self.mark(key);
        self.status_written(key, planned_on.saturating_add(1));
    }

    /// How many Services wait for the watch to catch up.
    pub fn behind(&self) -> usize {
        self.awaited.len()
    }

    /// How many Services are in line.
    pub fn backlog(&self) -> usize {
        self.dirty.len()
    }

    /// Notes what a Service waits for, if anything, once it was planned and before what it is to claim is held.
    pub fn set_waiting(&mut self, key: &ServiceKey, lack: Option<Lack>, claims: &[(IpAddr, String)]) {
        if let Some(Waiting { lack, turn, shares_by }) = self.waiting.remove(key) {
            for family in lack.families {
                self.waiting_for.get_mut(family).remove(&turn);
            }
            for address in lack.addresses {
                forget(&mut self.waiting_on, address, key);
            }
            if let Some(shares_by) = shares_by {
                forget(&mut self.waiting_to_share, shares_by, key);
            }
        }
        let turn = self.turn_of(key);
        // What it was offered and does not take goes to the next: it may have been served otherwise, or lack something else by now.
        let offered = self.offered.remove(key).unwrap_or_default();
        let taken = claims.iter().map(|(address, _)| *address).filter(|a| self.ipam.tenants(*a).is_empty());
        let taken: Vec<_> = taken.map(IpFamily::of).collect();
        let passed = offered.into_iter().filter(|family| !taken.contains(family));
        for family in passed.collect::<Vec<_>>() {
            self.offer(family, Some(&turn));
        }
        if let Some(lack) = lack {
            for family in &lack.families {
                self.waiting_for.get_mut(*family).insert(turn.clone());
            }
            for address in &lack.addresses {
                self.waiting_on.entry(*address).or_default().insert(key.clone());
            }
            let shares_by = self.services.get(key).and_then(|view| Some(view.sharing.as_ref()?.key.clone()));
            if let Some(shares_by) = &shares_by {
                self.waiting_to_share.entry(shares_by.clone()).or_default().insert(key.clone());
            }
            self.waiting.insert(key.clone(), Waiting { lack, turn, shares_by });
        }
    }

    /// Gives those that wait for this very address a look at what has become of it.
    fn tell_waiting_on(&mut self, address: IpAddr) {
        for key in self.waiting_on.get(&address).cloned().unwrap_or_default() {
            self.mark(&key);
        }
    }

    /// Gives the first that waits for an address of a family, after one that has had its turn, a turn.
    fn offer(&mut self, family: IpFamily, after: Option<&Turn>) {
        let waiting = self.waiting_for.get(family);
        let has_none = |turn: &&Turn| !self.offered.get(&turn.key).is_some_and(|families| families.contains(&family));
        let next = match after {
            None => waiting.iter().find(has_none),
            Some(turn) => waiting.range((Bound::Excluded(turn), Bound::Unbounded)).find(has_none),
        };
        if let Some(key) = next.map(|turn| turn.key.clone()) {
            self.offered.entry(key.clone()).or_default().insert(family);
            self.mark(&key);
        }
    }

    /// How many Services were refused and wait.
    pub fn waiting(&self) -> usize {
        self.waiting.values().filter(|waiting| waiting.lack.refused).count()
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

    /// Whether an address has to be noted as cooling down before its Announcement goes: its pool wishes it, still has it, and its
    /// status does not say so yet. `now` is in seconds since 1970.
    pub fn must_cool(&self, address: IpAddr, now: i64) -> bool {
        let pool = self.ipam.pool_of(address).and_then(|pool| self.pools.get(pool));
        pool.is_some_and(|pool| {
            let has = pool.addresses.as_ref().is_ok_and(|addresses| addresses.contains(address));
            // Whoever led before may have noted it; what ends no earlier need not be told again.
            let until = self.to_cool.get(&address).copied().unwrap_or_else(|| cooldown::until(now, pool.cool_down));
            let is_told = pool.cooling.iter().any(|(range, told)| range.contains(address) && *told >= until);
            pool.cool_down > 0 && has && !is_told
        })
    }

    /// Notes that an address is to cool down, from `now` on, in seconds since 1970.
    pub fn cool(&mut self, address: IpAddr, now: i64) {
        let Some(name) = self.ipam.pool_of(address).map(str::to_owned) else { return };
        let Some(seconds) = self.pools.get(&name).map(|pool| pool.cool_down) else { return };
        if let Entry::Vacant(vacant) = self.to_cool.entry(address) {
            vacant.insert(cooldown::until(now, seconds));
            self.dirty_pools.insert(name);
        }
    }

    /// Notes that an address stays with its Service after all.
    pub fn warm(&mut self, address: IpAddr) {
        self.to_cool.remove(&address);
    }

    /// What a pool's status is to say of addresses that cool down, at `now` in seconds since 1970: what it says, has not passed, and
    /// is not held again, and what is to cool down.
    pub fn cooling(&self, name: &str, now: i64) -> Vec<(IpRange, i64)> {
        let Some(pool) = self.pools.get(name) else { return Vec::new() };
        let known: Vec<_> = pool.cooling.iter().filter(|(_, until)| *until > now).copied().collect();
        let held = known.iter().flat_map(|(range, _)| self.ipam.held_within(*range));
        let held: Vec<_> = held.filter(|address| !self.to_cool.contains_key(address)).collect();
        let mine = |(address, _): &(&IpAddr, &i64)| self.ipam.pool_of(**address) == Some(name);
        let new = self.to_cool.iter().filter(mine);
        let new = new.filter_map(|(address, until)| Some((IpRange::new(*address, *address)?, *until)));
        cooldown::merged(known.iter().copied().chain(new), held)
    }

    /// When the next address that is held back may be given again, in seconds since 1970.
    pub fn next_cooled(&self) -> Option<i64> {
        self.next_cooled
    }

    /// Frees what has cooled down at `now`, in seconds since 1970, and what was in quarantine until then.
    pub fn expire(&mut self, now: i64) {
        let mut changed = Vec::new();
        for (name, pool) in &mut self.pools {
            if pool.cooling.extract_if(.., |(_, until)| *until <= now).count() > 0 {
                changed.push(name.clone());
            }
        }
        for name in changed {
            self.held_back_changed(&name);
            self.dirty_pools.insert(name);
        }
        self.expire_quarantines(now);
    }

    /// What a pool holds back for now has changed: as many as it has free addresses since get a turn, and whoever waits for one of them.
    fn held_back_changed(&mut self, name: &str) {
        let cooled = self.pools.values().flat_map(|pool| &pool.cooling).map(|(_, until)| *until);
        self.next_cooled = cooled.chain(self.next_quarantine_end()).min();
        self.spread_quarantined();
        // Pools that are still to be judged are by what they say then, and whoever waits is told.
        if self.due.judge == Judge::Yes {
            return;
        }
        let held_back = self.held_back(name);
        let freed = self.ipam.set_cooling(name, held_back);
        for range in freed.ranges() {
            let waiting_on: Vec<_> = self.waiting_on.range(range.first()..=range.last()).map(|(a, _)| *a).collect();
            for address in waiting_on {
                self.tell_waiting_on(address);
            }
        }
        for family in IpFamily::ALL {
            let many = usize::try_from(freed.size(family)).unwrap_or(usize::MAX);
            let has_none =
                |turn: &&Turn| !self.offered.get(&turn.key).is_some_and(|families| families.contains(&family));
            let first: Vec<_> = self.waiting_for.get(family).iter().filter(has_none).take(many).cloned().collect();
            for turn in first {
                self.offered.entry(turn.key.clone()).or_default().insert(family);
                self.mark(&turn.key);
            }
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

    /// The advertisements that cover a pool.
    pub fn covering(&self, pool: &str) -> Cow<'_, [Covering]> {
        let all = || {
            let rules =
                self.advertisements.iter().map(|(name, view)| (name.as_str(), Arc::new(self.rule(view)))).collect();
            self.pools.keys().map(|name| (name.clone(), self.covering_now(name, &rules))).collect()
        };
        let known = self.covering.get_or_init(all).get(pool);
        known.map_or_else(|| self.covering_now(pool, &BTreeMap::new()).into(), Into::into)
    }

    /// The same; `rules` has those that are known already.
    fn covering_now(&self, pool: &str, rules: &BTreeMap<&str, Arc<Rule>>) -> Vec<Covering> {
        let labels = self.pools.get(pool).map(|p| &p.labels);
        let covering = self.advertisements.iter().filter(|(_, view)| view.covers(pool, labels));
        let covering = covering.map(|(name, view)| Covering {
            advertisement: name.clone(),
            is_for_some_services: view.is_for_some_services(),
            rule: rules.get(name.as_str()).cloned().unwrap_or_else(|| Arc::new(self.rule(view))),
        });
        covering.collect()
    }

    /// Which nodes an advertisement selects and prefers, and on which interfaces.
    fn rule(&self, view: &AdvertisementView) -> Rule {
        let selected = || self.nodes.iter().filter(|(_, node)| view.selects_node(&node.labels));
        let preferred = selected().map(|(name, node)| (name.clone(), view.preference(&node.labels)));
        Rule {
            nodes: Some(selected().map(|(name, _)| name.clone()).collect()),
            interfaces: view.interfaces.clone(),
            preferred: preferred.filter(|(_, preference)| *preference > 0).collect(),
        }
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
    pub fn advertisement(&self, name: &str) -> Option<&AdvertisementView> {
        self.advertisements.get(name)
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
    pub fn take_dirty_advertisements(&mut self) -> BTreeSet<String> {
        std::mem::take(&mut self.dirty_advertisements)
    }

    /// Puts an advertisement's status in line again.
    pub fn mark_advertisement(&mut self, name: String) {
        self.dirty_advertisements.insert(name);
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

    /// Addresses that are never given out: those of nodes, those of pods and of Services inside the cluster, and of the nodes'
    /// subnets those that no host can have. Of several reasons for one address the first is told.
    fn excluded_addresses(&self) -> Vec<(IpRange, Exclusion)> {
        let reported = || {
            self.reports.iter().flat_map(|(node, report)| {
                report.interfaces.iter().flat_map(|i| &i.addresses).map(move |net| (node, *net))
            })
        };
        let said = self.cluster_nodes.iter().flat_map(|(node, view)| view.addresses.iter().map(move |a| (node, *a)));
        let nodes = reported().map(|(node, net)| (node, net.addr())).chain(said);
        let gateways = self.reports.iter().flat_map(|(node, report)| report.gateways.iter().map(move |a| (node, *a)));
        let one = |address: IpAddr, why| IpRange::new(address, address).map(|range| (range, why));
        let nodes = nodes.filter_map(|(node, address)| one(address, Exclusion::Node(node.clone())));
        let gateways = gateways.filter_map(|(node, address)| one(address, Exclusion::Gateway(node.clone())));
        let special =
            |net: IpNet| reserved(net).into_iter().map(move |a| (a, Exclusion::Subnet(net.trunc().to_string())));
        let special = reported().flat_map(|(_, net)| special(net)).filter_map(|(address, why)| one(address, why));
        let pods = self
            .cluster_nodes
            .iter()
            .flat_map(|(node, view)| view.pod_ranges.iter().map(move |range| (*range, Exclusion::Pods(node.clone()))));
        let services = self
            .service_ranges
            .iter()
            .flat_map(|(name, ranges)| ranges.iter().map(move |range| (*range, Exclusion::Services(name.clone()))));
        let mut seen = BTreeSet::new();
        nodes
            .chain(gateways)
            .chain(special)
            .chain(pods)
            .chain(services)
            .filter(|(range, _)| seen.insert(*range))
            .collect()
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

/// The addresses of a subnet that no host on it can have: network and broadcast address, for IPv6 the subnet-router
/// anycast address (RFC 4291 section 2.6.1). Links between two hosts have none (RFC 3021, RFC 6164).
fn reserved(net: IpNet) -> Vec<IpAddr> {
    match net {
        IpNet::V4(v4) if v4.prefix_len() < 31 => vec![net.network(), net.broadcast()],
        IpNet::V6(v6) if v6.prefix_len() < 127 => vec![net.network()],
        _ => Vec::new(),
    }
}

/// Takes a Service out of those under a key.
fn forget<K: Ord>(map: &mut BTreeMap<K, BTreeSet<ServiceKey>>, under: K, service: &ServiceKey) {
    if let Entry::Occupied(mut services) = map.entry(under) {
        services.get_mut().remove(service);
        if services.get().is_empty() {
            services.remove();
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
