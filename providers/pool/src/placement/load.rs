//! How many addresses each node owns, and who watches it: what a choice is bounded by.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

/// Five quarters: how far above its fair share a node may be when it is chosen. A tighter bound moves more addresses away from the node
/// that the hash names, a wider one lets a single failure cost more; a quarter is what the load-aware consistent hash of others takes.
const OVER_FAIR_SHARE: (u64, u64) = (5, 4);

/// Most nodes that watch an owner over one interface: each is a session with ten heartbeats a second in each direction, which has to stay
/// the same small cost whether the owner has ten addresses or ten thousand. With four, what an owner that dies had is taken over by four.
///
/// An owner has more while one that left it has not handed over yet, and where no other node is eligible (the Local policy with few
/// endpoints): a standby matters more than this bound.
pub const PARTNERS_MAX: usize = 4;

/// The most that a node may own after it is chosen, of `owned` addresses that `nodes` nodes own before. At least one node is below it.
pub fn bound(owned: u64, nodes: u64) -> u64 {
    let (above, fair) = OVER_FAIR_SHARE;
    owned.saturating_add(1).saturating_mul(above).div_ceil(fair * nodes.max(1))
}

/// One address, as it counts.
#[derive(Clone, Copy, Debug)]
pub struct Seat<'a, I> {
    /// The node that owns it.
    pub owner: &'a str,
    /// The interface on which that node announces it.
    pub interface: &'a str,
    /// The nodes that watch the owner there.
    pub standbys: I,
}

/// The counts. A change of one address costs O(log n), and so does a question.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Load {
    owned: BTreeMap<String, u64>,
    /// By owner, by its interface, by partner: for how many addresses.
    partners: BTreeMap<String, BTreeMap<String, BTreeMap<String, u64>>>,
}

impl Load {
    /// Counts an address.
    pub fn add<'a>(&mut self, seat: Seat<'_, impl IntoIterator<Item = &'a str>>) {
        *self.owned.entry(seat.owner.to_owned()).or_default() += 1;
        let on = self.partners.entry(seat.owner.to_owned()).or_default().entry(seat.interface.to_owned()).or_default();
        for standby in seat.standbys {
            *on.entry(standby.to_owned()).or_default() += 1;
        }
    }

    /// Counts an address no more. It is to be the same as when it was added.
    pub fn remove<'a>(&mut self, seat: Seat<'_, impl IntoIterator<Item = &'a str>>) {
        decrease(&mut self.owned, seat.owner);
        let Some(interfaces) = self.partners.get_mut(seat.owner) else { return };
        if let Some(on) = interfaces.get_mut(seat.interface) {
            for standby in seat.standbys {
                decrease(on, standby);
            }
            if on.is_empty() {
                interfaces.remove(seat.interface);
            }
        }
        if interfaces.is_empty() {
            self.partners.remove(seat.owner);
        }
    }

    /// How many addresses a node owns.
    pub fn owned(&self, node: &str) -> u64 {
        self.owned.get(node).copied().unwrap_or_default()
    }

    /// Who watches a node over one of its interfaces, and for how many addresses.
    pub fn partners(&self, owner: &str, interface: &str) -> impl Iterator<Item = (&str, u64)> {
        let on = self.partners.get(owner).and_then(|interfaces| interfaces.get(interface));
        on.into_iter().flatten().map(|(partner, addresses)| (partner.as_str(), *addresses))
    }
}

fn decrease(counts: &mut BTreeMap<String, u64>, of: &str) {
    if let Entry::Occupied(mut count) = counts.entry(of.to_owned()) {
        *count.get_mut() -= 1;
        if *count.get() == 0 {
            count.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seat<'a>(owner: &'a str, standbys: &'a [&'a str]) -> Seat<'a, impl Iterator<Item = &'a str>> {
        Seat { owner, interface: "eth0", standbys: standbys.iter().copied() }
    }

    #[test]
    fn the_bound_is_a_quarter_over_the_fair_share_and_somebody_is_always_below_it() {
        for (owned, nodes, expected) in
            [(0, 1, 2), (0, 3, 1), (1, 3, 1), (2, 3, 2), (9, 10, 2), (99, 10, 13), (9_999, 10, 1_250), (0, 0, 2)]
        {
            assert_eq!(bound(owned, nodes), expected, "{owned} addresses on {nodes} nodes");
        }
        for nodes in 1..40 {
            for owned in 0..500 {
                assert!(owned / nodes < bound(owned, nodes), "{owned} addresses on {nodes} nodes");
            }
        }
    }

    #[test]
    fn what_is_added_and_removed_leaves_nothing() {
        let mut load = Load::default();
        load.add(seat("a", &["b", "c"]));
        load.add(seat("a", &["c", "d"]));
        load.add(seat("b", &[]));
        assert_eq!((load.owned("a"), load.owned("b"), load.owned("c")), (2, 1, 0));
        assert_eq!(load.partners("a", "eth0").collect::<Vec<_>>(), [("b", 1), ("c", 2), ("d", 1)]);
        assert_eq!(load.partners("a", "eth1").count() + load.partners("c", "eth0").count(), 0);
        load.remove(seat("a", &["b", "c"]));
        assert_eq!(load.partners("a", "eth0").collect::<Vec<_>>(), [("c", 1), ("d", 1)]);
        load.remove(seat("a", &["c", "d"]));
        load.remove(seat("b", &[]));
        assert_eq!(load, Load::default());
    }
}
