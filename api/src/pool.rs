//! What a pool says, parsed: entries become ranges that cannot be wrong.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::IpNet;

use crate::{IpFamily, Reason};

/// Addresses of one family from `first` to `last`, both included, with `first <= last`. All of IPv4 comes before IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IpRange {
    first: IpAddr,
    last: IpAddr,
}

impl IpRange {
    /// The range from `first` to `last`, or `None` if it would end before it starts or change the family.
    pub fn new(first: IpAddr, last: IpAddr) -> Option<Self> {
        (IpFamily::of(first) == IpFamily::of(last) && first <= last).then_some(Self { first, last })
    }

    /// The lowest address.
    pub fn first(self) -> IpAddr {
        self.first
    }

    /// The highest address.
    pub fn last(self) -> IpAddr {
        self.last
    }

    /// The family of all its addresses.
    pub fn family(self) -> IpFamily {
        IpFamily::of(self.first)
    }

    /// How many addresses: 1 to 2^128 - 1, which also stands for one more.
    pub fn size(self) -> u128 {
        (bits(self.last) - bits(self.first)).saturating_add(1)
    }

    /// Whether `address` is one of them.
    pub fn contains(self, address: IpAddr) -> bool {
        self.first <= address && address <= self.last
    }

    /// What both ranges have, if anything.
    pub fn intersection(self, other: Self) -> Option<Self> {
        Self::new(self.first.max(other.first), self.last.min(other.last))
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_bits().into(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

impl fmt::Display for IpRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last { write!(f, "{}", self.first) } else { write!(f, "{}-{}", self.first, self.last) }
    }
}

/// Why an entry of `spec.addresses` cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// Not an address, a CIDR or a range.
    #[error(
        "`{entry}` is not an address range: {problem}; write a CIDR such as 192.0.2.0/28, a range such as 192.0.2.10-192.0.2.20, or one address"
    )]
    Invalid {
        /// The entry as it was written.
        entry: String,
        /// What could not be read.
        problem: String,
    },
    /// Bits behind the prefix are set.
    #[error(
        "`{entry}` has bits set behind its prefix; write `{network}` for the whole network, or `{address}-{last}` for its part from that address on"
    )]
    HostBitsSet {
        /// The entry as it was written.
        entry: String,
        /// The entry with those bits cleared.
        network: IpNet,
        /// The address as it was written.
        address: IpAddr,
        /// The last address of the network.
        last: IpAddr,
    },
    /// The end lies before the start.
    #[error("`{entry}` ends before it starts; write `{last}-{first}` if that is what is meant")]
    Reversed {
        /// The entry as it was written.
        entry: String,
        /// The first address as it was written.
        first: IpAddr,
        /// The last address as it was written.
        last: IpAddr,
    },
    /// Addresses that no host can have.
    #[error("`{entry}` includes {special}, and no Service can have those; leave them out")]
    Special {
        /// The entry as it was written.
        entry: String,
        /// What they are.
        special: &'static str,
    },
    /// The ends are of two families.
    #[error("`{entry}` starts in one address family and ends in the other; write one entry for each")]
    MixedFamilies {
        /// The entry as it was written.
        entry: String,
    },
}

impl EntryError {
    /// The reason code.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Invalid { .. } | Self::Special { .. } | Self::MixedFamilies { .. } => Reason::InvalidAddress,
            Self::HostBitsSet { .. } => Reason::HostBitsSet,
            Self::Reversed { .. } => Reason::RangeReversed,
        }
    }
}

/// Reads one entry of `spec.addresses`.
impl FromStr for IpRange {
    type Err = EntryError;

    fn from_str(entry: &str) -> Result<Self, EntryError> {
        let invalid = |problem: String| EntryError::Invalid { entry: entry.to_owned(), problem };
        let address = |text: &str| {
            text.trim().parse::<IpAddr>().map_err(|_| invalid(format!("`{}` is not an IP address", text.trim())))
        };
        if entry.contains('/') {
            let net: IpNet = entry.trim().parse().map_err(|_| {
                invalid(
                    "a CIDR is an address and a prefix length (0 to 32 for IPv4, 0 to 128 for IPv6) with a slash between"
                        .to_owned(),
                )
            })?;
            if net.trunc() != net {
                return Err(EntryError::HostBitsSet {
                    entry: entry.to_owned(),
                    network: net.trunc(),
                    address: net.addr(),
                    last: net.broadcast(),
                });
            }
            return Ok(Self { first: net.network(), last: net.broadcast() });
        }
        let (first, last) = entry.split_once('-').unwrap_or((entry, entry));
        let (first, last) = (address(first)?, address(last)?);
        if IpFamily::of(first) != IpFamily::of(last) {
            return Err(EntryError::MixedFamilies { entry: entry.to_owned() });
        }
        Self::new(first, last).ok_or_else(|| EntryError::Reversed { entry: entry.to_owned(), first, last })
    }
}

/// What of a range no Service can have (RFC 6890 section 2.2, RFC 5771; RFC 4291 sections 2.5.2, 2.5.3, 2.5.5.2, 2.5.6
/// and 2.7).
fn special(range: IpRange) -> Option<&'static str> {
    const fn v6(first: u16) -> Ipv6Addr {
        Ipv6Addr::new(first, 0, 0, 0, 0, 0, 0, 0)
    }
    const fn end(first: u16) -> Ipv6Addr {
        Ipv6Addr::new(first, 0xffff, 0xffff, 0xffff, 0xffff, 0xffff, 0xffff, 0xffff)
    }
    let specials: [(IpAddr, IpAddr, _); 9] = [
        (
            Ipv4Addr::UNSPECIFIED.into(),
            Ipv4Addr::new(0, 255, 255, 255).into(),
            "addresses of 0.0.0.0/8, which mean \"this network\"",
        ),
        (
            Ipv4Addr::new(127, 0, 0, 0).into(),
            Ipv4Addr::new(127, 255, 255, 255).into(),
            "loopback addresses (127.0.0.0/8)",
        ),
        (
            Ipv4Addr::new(224, 0, 0, 0).into(),
            Ipv4Addr::new(239, 255, 255, 255).into(),
            "multicast addresses (224.0.0.0/4)",
        ),
        (Ipv4Addr::BROADCAST.into(), Ipv4Addr::BROADCAST.into(), "the broadcast address 255.255.255.255"),
        (Ipv6Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into(), "the unspecified address ::"),
        (Ipv6Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into(), "the loopback address ::1"),
        (
            Ipv4Addr::UNSPECIFIED.to_ipv6_mapped().into(),
            Ipv4Addr::BROADCAST.to_ipv6_mapped().into(),
            "IPv4-mapped addresses (::ffff:0:0/96), which are written as IPv4",
        ),
        (v6(0xfe80).into(), end(0xfebf).into(), "link-local addresses (fe80::/10)"),
        (v6(0xff00).into(), end(0xffff).into(), "multicast addresses (ff00::/8)"),
    ];
    let meets = |(first, last, _): &(IpAddr, IpAddr, _)| range.first <= *last && *first <= range.last;
    specials.into_iter().find(meets).map(|(_, _, what)| what)
}

/// Why `spec.addresses` as a whole cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressesError {
    /// There is no entry.
    #[error("`spec.addresses` is empty; name at least one address")]
    Empty,
    /// An entry cannot be read.
    #[error("`spec.addresses[{index}]`: {source}")]
    Entry {
        /// Its place in the list, from 0.
        index: usize,
        /// What is wrong with it.
        source: EntryError,
    },
    /// Two entries have addresses in common.
    #[error("`spec.addresses[{second}]` and `spec.addresses[{first}]` both have {common}; remove it from one of them")]
    Overlap {
        /// Place of the one that comes first.
        first: usize,
        /// Place of the other.
        second: usize,
        /// What both have.
        common: IpRange,
    },
}

impl AddressesError {
    /// The reason code.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Empty => Reason::NoAddresses,
            Self::Entry { source, .. } => source.reason(),
            Self::Overlap { .. } => Reason::Overlap,
        }
    }
}

/// The addresses of one pool: at least one range, none sharing an address with another, in rising order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses(Vec<IpRange>);

impl Addresses {
    /// Reads `spec.addresses`.
    pub fn parse<S: AsRef<str>>(entries: &[S]) -> Result<Self, AddressesError> {
        let mut ranges = Vec::with_capacity(entries.len());
        for (index, entry) in entries.iter().enumerate() {
            let entry = entry.as_ref();
            let usable = entry.parse::<IpRange>().and_then(|range| match special(range) {
                None => Ok(range),
                Some(special) => Err(EntryError::Special { entry: entry.to_owned(), special }),
            });
            let range = usable.map_err(|source| AddressesError::Entry { index, source })?;
            ranges.push((range, index));
        }
        if ranges.is_empty() {
            return Err(AddressesError::Empty);
        }
        ranges.sort_unstable();
        for pair in ranges.windows(2) {
            if let [(low, i), (high, j)] = pair
                && let Some(common) = low.intersection(*high)
            {
                return Err(AddressesError::Overlap { first: *i.min(j), second: *i.max(j), common });
            }
        }
        Ok(Self(ranges.into_iter().map(|(range, _)| range).collect()))
    }

    /// The ranges, in rising order.
    pub fn ranges(&self) -> &[IpRange] {
        &self.0
    }

    /// Whether there are any of a family.
    pub fn has(&self, family: IpFamily) -> bool {
        self.0.iter().any(|r| r.family() == family)
    }

    /// Whether `address` is one of them.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.iter().any(|r| r.contains(address))
    }

    /// The first range, by address, that both have.
    pub fn intersection(&self, other: &Self) -> Option<IpRange> {
        self.0.iter().flat_map(|a| other.0.iter().filter_map(|b| a.intersection(*b))).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_a_cidr_a_range_or_an_address() {
        for (entry, first, last, size) in [
            ("192.0.2.0/28", "192.0.2.0", "192.0.2.15", 16),
            ("192.0.2.7/32", "192.0.2.7", "192.0.2.7", 1),
            ("192.0.2.10-192.0.2.20", "192.0.2.10", "192.0.2.20", 11),
            (" 192.0.2.10 - 192.0.2.10 ", "192.0.2.10", "192.0.2.10", 1),
            ("192.0.2.99", "192.0.2.99", "192.0.2.99", 1),
            ("0.0.0.0/0", "0.0.0.0", "255.255.255.255", 1 << 32),
            ("2001:db8:2::/64", "2001:db8:2::", "2001:db8:2:0:ffff:ffff:ffff:ffff", 1 << 64),
            ("2001:DB8::5-2001:db8:0::7", "2001:db8::5", "2001:db8::7", 3),
            ("2001:db8::5", "2001:db8::5", "2001:db8::5", 1),
            ("::/0", "::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", u128::MAX),
        ] {
            let range: IpRange = entry.parse().unwrap();
            assert_eq!((range.first().to_string(), range.last().to_string()), (first.into(), last.into()), "{entry}");
            assert_eq!(range.size(), size, "{entry}");
        }
    }

    #[test]
    fn a_wrong_entry_says_what_is_wrong_and_what_to_write_instead() {
        for (entry, reason, says) in [
            ("192.0.2.0/33", Reason::InvalidAddress, "prefix length (0 to 32 for IPv4"),
            ("192.0.2/24", Reason::InvalidAddress, "prefix length (0 to 32 for IPv4"),
            ("2001:db8::/129", Reason::InvalidAddress, "0 to 128 for IPv6"),
            ("fe80::1%eth0", Reason::InvalidAddress, "`fe80::1%eth0` is not an IP address"),
            ("web", Reason::InvalidAddress, "`web` is not an IP address"),
            ("192.0.2.1-", Reason::InvalidAddress, "`` is not an IP address"),
            ("192.0.2.1-2-3", Reason::InvalidAddress, "`2-3` is not an IP address"),
            (
                "192.0.2.200/28",
                Reason::HostBitsSet,
                "write `192.0.2.192/28` for the whole network, or `192.0.2.200-192.0.2.207`",
            ),
            ("192.0.2.20-192.0.2.10", Reason::RangeReversed, "write `192.0.2.10-192.0.2.20`"),
            (
                "2001:db8::5/64",
                Reason::HostBitsSet,
                "write `2001:db8::/64` for the whole network, or `2001:db8::5-2001:db8::ffff:ffff:ffff:ffff`",
            ),
            ("2001:db8::9-2001:db8::5", Reason::RangeReversed, "write `2001:db8::5-2001:db8::9`"),
            ("192.0.2.1-2001:db8::1", Reason::InvalidAddress, "starts in one address family and ends in the other"),
            ("2001:db8::1-192.0.2.1", Reason::InvalidAddress, "starts in one address family and ends in the other"),
        ] {
            let error = entry.parse::<IpRange>().unwrap_err();
            assert_eq!(error.reason(), reason, "{entry}");
            assert!(error.to_string().contains(says), "{entry}: {error}");
        }
    }

    #[test]
    fn entries_that_have_an_address_in_common_are_refused_by_their_places() {
        let error = Addresses::parse(&["192.0.2.16/28", "192.0.2.0/28", "192.0.2.15-192.0.2.16"]).unwrap_err();
        assert_eq!(error.reason(), Reason::Overlap);
        assert!(
            error.to_string().contains("`spec.addresses[2]` and `spec.addresses[1]` both have 192.0.2.15"),
            "{error}"
        );
    }

    #[test]
    fn addresses_that_no_host_can_have_are_refused() {
        for (entry, says) in [
            ("0.0.0.0/0", "this network"),
            ("127.0.0.1", "loopback"),
            ("223.255.255.255-224.0.0.1", "multicast"),
            ("255.255.255.255", "broadcast"),
            ("::", "unspecified"),
            ("::1", "loopback"),
            ("::/0", "unspecified"),
            ("::ffff:192.0.2.1", "IPv4-mapped"),
            ("fe80::/64", "link-local"),
            ("fe00::-ff00::", "link-local"),
            ("febf:ffff::-fec0::", "link-local"),
            ("ff02::1", "multicast"),
        ] {
            let error = Addresses::parse(&[entry]).unwrap_err();
            assert_eq!(error.reason(), Reason::InvalidAddress, "{entry}");
            assert!(error.to_string().contains(says), "{error}");
        }
        for neighbour in
            ["126.255.255.255", "128.0.0.0", "223.255.255.255", "240.0.0.1", "::2", "::1:0:0:0", "fec0::", "fdff::1"]
        {
            assert!(Addresses::parse(&[neighbour]).is_ok(), "{neighbour}");
        }
    }

    #[test]
    fn both_families_may_stand_in_one_pool() {
        let pool = Addresses::parse(&["2001:db8::/64", "192.0.2.0/28", "2001:db8:1::7"]).unwrap();
        assert!(IpFamily::ALL.into_iter().all(|family| pool.has(family)));
        assert!(!Addresses::parse(&["2001:db8::/64"]).unwrap().has(IpFamily::V4));
        for (address, within) in
            [("192.0.2.15", true), ("192.0.2.16", false), ("2001:db8::ffff", true), ("2001:db8:1::8", false)]
        {
            assert_eq!(pool.contains(address.parse().unwrap()), within, "{address}");
        }
        let error = Addresses::parse(&["2001:db8::/64", "192.0.2.0/28", "2001:db8::7"]).unwrap_err();
        assert!(
            error.to_string().contains("`spec.addresses[2]` and `spec.addresses[0]` both have 2001:db8::7"),
            "{error}"
        );
        let ends = ["192.0.2.1", "2001:db8::1"].map(|address| address.parse().unwrap());
        assert_eq!(IpRange::new(ends[0], ends[1]), None);
        let v4 = Addresses::parse(&["192.0.2.0/28"]).unwrap();
        let v6 = Addresses::parse(&["2001:db8::/64"]).unwrap();
        assert_eq!(v4.intersection(&v6), None);
    }

    #[test]
    fn a_wrong_entry_is_named_by_its_place() {
        let error = Addresses::parse(&["192.0.2.0/28", "oops"]).unwrap_err();
        assert!(error.to_string().starts_with("`spec.addresses[1]`: `oops`"), "{error}");
    }
}
