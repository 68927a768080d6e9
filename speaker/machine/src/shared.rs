//! What thousands of addresses have alike, kept once: a node has a handful of partners, and is one of a handful in every address.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use berth_wire::heartbeat::NodeName;

use crate::input::{Assignment, Member, OwnerClaim};
use crate::takeover::Peer;

/// Values that are kept before the first look for those that nobody uses.
const SWEEP_MIN: usize = 64;

/// Values of one kind, each of which is kept once for as long as somebody uses it.
#[derive(Debug)]
pub struct Values<T: ?Sized> {
    held: BTreeSet<Arc<T>>,
    /// How many may be held before the next look for those that nobody uses any more.
    sweep_at: usize,
}

impl<T: ?Sized> Default for Values<T> {
    fn default() -> Self {
        Self { held: BTreeSet::new(), sweep_at: SWEEP_MIN }
    }
}

impl<T: ?Sized + Ord> Values<T> {
    /// The one copy of a value, which is this one if it is the first.
    pub fn one(&mut self, value: Arc<T>) -> Arc<T> {
        if let Some(held) = self.held.get(&value) {
            return held.clone();
        }
        if self.held.len() >= self.sweep_at {
            self.held.retain(|held| Arc::strong_count(held) > 1);
            // As many have to come anew as are looked at, so that each costs the same.
            self.sweep_at = (self.held.len() * 2).max(SWEEP_MIN);
        }
        self.held.insert(value.clone());
        value
    }
}

/// The same map with all its nodes full. Lists come in order, and a map that grows in order is half empty.
pub(crate) fn packed<K: Ord, V>(map: &mut BTreeMap<K, V>) {
    *map = std::mem::take(map).into_iter().collect();
}

/// The same of a set.
pub(crate) fn packed_set<K: Ord>(set: &mut BTreeSet<K>) {
    *set = std::mem::take(set).into_iter().collect();
}

/// All of them. What it holds and nobody else does is thrown away now and then.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    members: Values<Member>,
    groups: Values<[Arc<Member>]>,
    standbys: Values<[NodeName]>,
    peers: Values<[Peer]>,
}

impl Shared {
    /// The same assignment, made of what others are made of.
    pub(crate) fn assignment(&mut self, assignment: Assignment) -> Assignment {
        let members: Vec<_> = assignment.members.iter().map(|member| self.members.one(member.clone())).collect();
        let name = |node: NodeName| members.iter().find(|member| member.node == node).map_or(node, |m| m.node.clone());
        Assignment {
            owner: assignment.owner.map(name),
            standbys: self.standbys.one(assignment.standbys.iter().cloned().map(name).collect()),
            claimed: assignment.claimed.map(|claim| OwnerClaim { node: name(claim.node), ..claim }),
            members: self.groups.one(members.iter().cloned().collect()),
            ..assignment
        }
    }

    /// The list of these.
    pub(crate) fn peers(&mut self, peers: impl Iterator<Item = Peer>) -> Arc<[Peer]> {
        self.peers.one(peers.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(n: usize) -> Arc<str> {
        n.to_string().into()
    }

    #[test]
    fn equal_values_are_one() {
        let mut values = Values::default();
        let first = values.one(value(1));
        assert!(Arc::ptr_eq(&first, &values.one(value(1))));
        assert!(!Arc::ptr_eq(&first, &values.one(value(2))));
    }

    #[test]
    fn values_that_nobody_uses_are_thrown_away_and_others_stay() {
        let mut values = Values::default();
        let used = values.one(value(0));
        for n in 1..100 * SWEEP_MIN {
            values.one(value(n));
            assert!(values.held.len() <= SWEEP_MIN, "{}", values.held.len());
        }
        assert!(Arc::ptr_eq(&used, &values.one(value(0))));
    }

    #[test]
    fn as_many_as_are_in_use_are_held() {
        let mut values = Values::default();
        let all: Vec<_> = (0..1_000).map(|n| values.one(value(n))).collect();
        assert!(all.iter().enumerate().all(|(n, held)| Arc::ptr_eq(held, &values.one(value(n)))));
    }
}
