//! A set of IP addresses as disjoint intervals: the lowest one is found, one is taken and one is given back in
//! O(log n) of the number of gaps, however large the pool.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use berth_api::IpFamily;
use berth_api::pool::IpRange;

/// Addresses of both families, kept as intervals that neither touch nor overlap. An interval never goes from one family
/// into the other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Intervals {
    /// First address of an interval to its last.
    by_first: BTreeMap<IpAddr, IpAddr>,
}

impl Intervals {
    /// The addresses of `ranges`, which must not overlap.
    pub fn from_ranges(ranges: &[IpRange]) -> Self {
        let mut set = Self::default();
        for range in ranges {
            set.join(range.first(), range.last());
        }
        set
    }

    /// The lowest address of a family.
    pub fn lowest(&self, family: IpFamily) -> Option<IpAddr> {
        self.of(family).next().map(|(first, _)| *first)
    }

    /// The lowest addresses of a family, in rising order.
    pub fn first(&self, family: IpFamily, count: usize) -> Vec<IpAddr> {
        let of_one = |(first, last): (&IpAddr, &IpAddr)| {
            let last = *last;
            std::iter::successors(Some(*first), move |address| after(*address).filter(|next| *next <= last))
        };
        self.of(family).flat_map(of_one).take(count).collect()
    }

    /// The intervals, in rising order.
    pub fn ranges(&self) -> impl Iterator<Item = IpRange> {
        self.by_first.iter().filter_map(|(first, last)| IpRange::new(*first, *last))
    }

    /// Whether `address` is in the set.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.interval_of(address).is_some()
    }

    /// How many addresses of a family; 2^128 - 1 also stands for one more.
    pub fn size(&self, family: IpFamily) -> u128 {
        let sizes = self.of(family).filter_map(|(first, last)| IpRange::new(*first, *last)).map(IpRange::size);
        sizes.fold(0, u128::saturating_add)
    }

    /// Takes `address` out. Returns whether it was in.
    pub fn remove(&mut self, address: IpAddr) -> bool {
        let Some((first, last)) = self.interval_of(address) else { return false };
        self.by_first.remove(&first);
        if first < address
            && let Some(before) = before(address)
        {
            self.by_first.insert(first, before);
        }
        if address < last
            && let Some(after) = after(address)
        {
            self.by_first.insert(after, last);
        }
        true
    }

    /// Puts `address` in. Returns whether it was not in before.
    pub fn insert(&mut self, address: IpAddr) -> bool {
        if self.contains(address) {
            return false;
        }
        self.join(address, address);
        true
    }

    /// Takes all addresses of `range` out.
    pub fn remove_range(&mut self, range: IpRange) {
        // Of the intervals that begin in it or before it, those that reach into it.
        let reaches = |(_, last): &(&IpAddr, &IpAddr)| **last >= range.first();
        let met: Vec<_> =
            self.by_first.range(..=range.last()).rev().take_while(reaches).map(|(f, l)| (*f, *l)).collect();
        for (first, last) in met {
            self.by_first.remove(&first);
            if first < range.first()
                && let Some(before) = before(range.first())
            {
                self.by_first.insert(first, before);
            }
            if range.last() < last
                && let Some(after) = after(range.last())
            {
                self.by_first.insert(after, last);
            }
        }
    }

    /// Puts all addresses of `range` in.
    pub fn insert_range(&mut self, range: IpRange) {
        self.remove_range(range);
        self.join(range.first(), range.last());
    }

    /// Adds an interval that overlaps none, joining it with those that it touches.
    fn join(&mut self, mut first: IpAddr, mut last: IpAddr) {
        if let Some((below_first, below_last)) = self.by_first.range(..first).next_back().map(|(f, l)| (*f, *l))
            && after(below_last) == Some(first)
        {
            self.by_first.remove(&below_first);
            first = below_first;
        }
        if let Some(next) = after(last)
            && let Some(above_last) = self.by_first.remove(&next)
        {
            last = above_last;
        }
        self.by_first.insert(first, last);
    }

    fn interval_of(&self, at: IpAddr) -> Option<(IpAddr, IpAddr)> {
        let (first, last) = self.by_first.range(..=at).next_back()?;
        (at <= *last).then_some((*first, *last))
    }

    /// The intervals of a family; all of IPv4 stands before IPv6.
    fn of(&self, family: IpFamily) -> impl Iterator<Item = (&IpAddr, &IpAddr)> {
        let lowest: IpAddr = match family {
            IpFamily::V4 => Ipv4Addr::UNSPECIFIED.into(),
            IpFamily::V6 => Ipv6Addr::UNSPECIFIED.into(),
        };
        self.by_first.range(lowest..).take_while(move |(first, _)| IpFamily::of(**first) == family)
    }
}

/// The next address of the same family.
fn after(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(v4) => v4.to_bits().checked_add(1).map(|bits| Ipv4Addr::from_bits(bits).into()),
        IpAddr::V6(v6) => v6.to_bits().checked_add(1).map(|bits| Ipv6Addr::from_bits(bits).into()),
    }
}

/// The address of the same family before this one.
fn before(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(v4) => v4.to_bits().checked_sub(1).map(|bits| Ipv4Addr::from_bits(bits).into()),
        IpAddr::V6(v6) => v6.to_bits().checked_sub(1).map(|bits| Ipv6Addr::from_bits(bits).into()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// Where adding or taking one would leave the family: its first and its last addresses.
    fn at_an_edge(family: IpFamily, upper: bool, offset: u8) -> IpAddr {
        match (family, upper) {
            (IpFamily::V4, false) => Ipv4Addr::from_bits(offset.into()).into(),
            (IpFamily::V4, true) => Ipv4Addr::from_bits(u32::MAX - u32::from(offset)).into(),
            (IpFamily::V6, false) => Ipv6Addr::from_bits(offset.into()).into(),
            (IpFamily::V6, true) => Ipv6Addr::from_bits(u128::MAX - u128::from(offset)).into(),
        }
    }

    proptest! {
        /// Behaves as a plain set of addresses does, whatever is put in and taken out, and stays merged.
        #[test]
        fn intervals_behave_as_a_set_of_addresses(
            operations in prop::collection::vec((any::<[bool; 3]>(), 0_u8..12, 0_u8..5), 0..200)
        ) {
            let mut set = Intervals::default();
            let mut model = BTreeSet::new();
            for ([insert, v6, upper], offset, more) in operations {
                let at = |offset| at_an_edge(if v6 { IpFamily::V6 } else { IpFamily::V4 }, upper, offset);
                let address = at(offset);
                let all: BTreeSet<_> = (offset..=offset.saturating_add(more)).map(at).collect();
                let range = all.first().zip(all.last()).and_then(|(first, last)| IpRange::new(*first, *last)).unwrap();
                if more > 0 && insert {
                    set.insert_range(range);
                    model.extend(all);
                } else if more > 0 {
                    set.remove_range(range);
                    model.retain(|address| !all.contains(address));
                } else if insert {
                    prop_assert_eq!(set.insert(address), model.insert(address));
                } else {
                    prop_assert_eq!(set.remove(address), model.remove(&address));
                }
                for family in IpFamily::ALL {
                    let of_family = || model.iter().filter(|a| IpFamily::of(**a) == family);
                    prop_assert_eq!(set.lowest(family), of_family().next().copied());
                    prop_assert_eq!(set.size(family), of_family().count() as u128);
                }
                let pairs = set.by_first.iter().zip(set.by_first.keys().skip(1));
                let apart = pairs.into_iter().all(|((_, last), next)| last < next && after(*last) != Some(*next));
                prop_assert!(apart, "{:?}", set);
            }
        }
    }

    #[test]
    fn the_whole_address_space_is_one_interval_for_each_family() {
        let mut set = Intervals::from_ranges(&["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()]);
        assert_eq!((set.size(IpFamily::V4), set.size(IpFamily::V6)), (1 << 32, u128::MAX));
        for last in ["255.255.255.255", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "::"] {
            let last = last.parse().unwrap();
            assert!(set.remove(last) && set.insert(last));
        }
        assert_eq!(set.by_first.len(), 2);
    }
}
