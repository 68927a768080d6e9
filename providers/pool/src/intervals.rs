//! A set of IPv4 addresses as disjoint intervals: the lowest one is found, one is taken and one is given back in
//! O(log n) of the number of gaps, however large the pool.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use berth_api::pool::Ipv4Range;

/// Addresses, kept as intervals that neither touch nor overlap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Intervals {
    /// First address of an interval to its last.
    by_first: BTreeMap<u32, u32>,
}

impl Intervals {
    /// The addresses of `ranges`, which must not overlap.
    pub fn from_ranges(ranges: &[Ipv4Range]) -> Self {
        let mut set = Self::default();
        for range in ranges {
            set.join(range.first().to_bits(), range.last().to_bits());
        }
        set
    }

    /// The lowest address.
    pub fn lowest(&self) -> Option<Ipv4Addr> {
        self.by_first.first_key_value().map(|(first, _)| Ipv4Addr::from_bits(*first))
    }

    /// Whether `address` is in the set.
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        self.interval_of(address.to_bits()).is_some()
    }

    /// How many addresses, up to 2^32.
    pub fn size(&self) -> u64 {
        self.by_first.iter().map(|(first, last)| u64::from(last - first) + 1).sum()
    }

    /// Takes `address` out. Returns whether it was in.
    pub fn remove(&mut self, address: Ipv4Addr) -> bool {
        let at = address.to_bits();
        let Some((first, last)) = self.interval_of(at) else { return false };
        self.by_first.remove(&first);
        if first < at {
            self.by_first.insert(first, at - 1);
        }
        if at < last {
            self.by_first.insert(at + 1, last);
        }
        true
    }

    /// Puts `address` in. Returns whether it was not in before.
    pub fn insert(&mut self, address: Ipv4Addr) -> bool {
        if self.contains(address) {
            return false;
        }
        self.join(address.to_bits(), address.to_bits());
        true
    }

    /// Adds an interval that overlaps none, joining it with those that it touches.
    fn join(&mut self, mut first: u32, mut last: u32) {
        if let Some((below_first, below_last)) = self.by_first.range(..first).next_back().map(|(f, l)| (*f, *l))
            && below_last.checked_add(1) == Some(first)
        {
            self.by_first.remove(&below_first);
            first = below_first;
        }
        if let Some(next) = last.checked_add(1)
            && let Some(above_last) = self.by_first.remove(&next)
        {
            last = above_last;
        }
        self.by_first.insert(first, last);
    }

    fn interval_of(&self, at: u32) -> Option<(u32, u32)> {
        let (first, last) = self.by_first.range(..=at).next_back()?;
        (at <= *last).then_some((*first, *last))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Behaves as a plain set of addresses does, whatever is put in and taken out, and stays merged.
        #[test]
        fn intervals_behave_as_a_set_of_addresses(operations in prop::collection::vec((any::<bool>(), 0_u32..24), 0..200)) {
            // At the upper edge of the address space, where adding one would overflow.
            let base = u32::MAX - 23;
            let mut set = Intervals::default();
            let mut model = BTreeSet::new();
            for (insert, offset) in operations {
                let address = Ipv4Addr::from_bits(base + offset);
                if insert {
                    prop_assert_eq!(set.insert(address), model.insert(address));
                } else {
                    prop_assert_eq!(set.remove(address), model.remove(&address));
                }
                prop_assert_eq!(set.lowest(), model.first().copied());
                prop_assert_eq!(set.size(), model.len() as u64);
                let touching = set.by_first.iter().zip(set.by_first.keys().skip(1)).any(|((_, last), next)| last + 1 >= *next);
                prop_assert!(!touching, "{:?}", set);
            }
        }
    }

    #[test]
    fn the_whole_address_space_fits() {
        let mut set = Intervals::from_ranges(&["0.0.0.0/0".parse().unwrap()]);
        assert_eq!(set.size(), 1 << 32);
        assert!(set.remove(Ipv4Addr::BROADCAST) && set.insert(Ipv4Addr::BROADCAST));
        assert_eq!(set.by_first.len(), 1);
    }
}
