//! Whose turn it is to be planned, and who waits for what.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::Bound;

use berth_api::IpFamily;
use berth_api::service::ServiceKey;

use super::{Due, World};

/// The order in which Services are planned: those that have an address in their status first, so that nobody else
/// is given it; then the older ones.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Turn {
    pub(super) rank: Rank,
    pub(super) key: ServiceKey,
}

/// What decides about a turn before the name does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    /// It has all that it asks for, and only nodes or advertisements have changed: what it has it keeps, so nobody's address
    /// depends on its turn, and whoever waits for one comes first.
    pub(super) only_placed: bool,
    pub(super) without_address: bool,
    pub(super) created: i64,
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
pub(super) struct Waiting {
    pub(super) lack: Lack,
    /// Its place among those that wait.
    pub(super) turn: Turn,
    /// The key by which it would share an address.
    pub(super) shares_by: Option<String>,
}

impl World {
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
    pub(super) fn is_nowhere(&self, key: &ServiceKey) -> bool {
        self.services.contains_key(key) && !self.namespaces.is_empty() && !self.namespaces.contains_key(&key.namespace)
    }

    /// Puts a Service in line for a look at where its addresses are.
    pub(super) fn mark_placed(&mut self, key: &ServiceKey) {
        if self.dirty_ranks.contains_key(key) {
            return;
        }
        let turn = self.turn_of(key);
        let only_placed = !turn.rank.without_address && !self.waiting.contains_key(key) && self.holds_what_it_says(key);
        self.put_in_line(Turn { rank: Rank { only_placed, ..turn.rank }, ..turn });
    }

    /// Whether a Service holds every address in its status.
    pub(super) fn holds_what_it_says(&self, key: &ServiceKey) -> bool {
        let holds = |address: IpAddr| self.ipam.tenants(address).iter().any(|tenant| tenant.service == *key);
        self.services.get(key).is_some_and(|view| view.addresses().all(holds))
    }

    /// Puts a Service in line.
    pub fn mark(&mut self, key: &ServiceKey) {
        self.put_in_line(self.turn_of(key));
    }

    pub(super) fn put_in_line(&mut self, turn: Turn) {
        let key = &turn.key;
        if let Some(rank) = self.dirty_ranks.insert(key.clone(), turn.rank) {
            self.dirty.remove(&Turn { rank, key: key.clone() });
        }
        self.dirty.insert(turn);
    }

    pub(super) fn turn_of(&self, key: &ServiceKey) -> Turn {
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
    pub(super) fn tell_waiting_on(&mut self, address: IpAddr) {
        for key in self.waiting_on.get(&address).cloned().unwrap_or_default() {
            self.mark(&key);
        }
    }

    /// Gives the first that waits for an address of a family, after one that has had its turn, a turn.
    pub(super) fn offer(&mut self, family: IpFamily, after: Option<&Turn>) {
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
