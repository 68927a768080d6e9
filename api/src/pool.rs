//! What a pool says, parsed: entries become ranges that cannot be wrong.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use ipnet::IpNet;

use crate::Reason;

/// IPv4 addresses from `first` to `last`, both included, with `first <= last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ipv4Range {
    first: Ipv4Addr,
    last: Ipv4Addr,
}

impl Ipv4Range {
    /// The range from `first` to `last`, or `None` if it would end before it starts.
    pub fn new(first: Ipv4Addr, last: Ipv4Addr) -> Option<Self> {
        (first <= last).then_some(Self { first, last })
    }

    /// The lowest address.
    pub fn first(self) -> Ipv4Addr {
        self.first
    }

    /// The highest address.
    pub fn last(self) -> Ipv4Addr {
        self.last
    }

    /// How many addresses, 1 to 2^32.
    pub fn size(self) -> u64 {
        u64::from(self.last.to_bits()) - u64::from(self.first.to_bits()) + 1
    }

    /// Whether `address` is one of them.
    pub fn contains(self, address: Ipv4Addr) -> bool {
        self.first <= address && address <= self.last
    }

    /// What both ranges have, if anything.
    pub fn intersection(self, other: Self) -> Option<Self> {
        Self::new(self.first.max(other.first), self.last.min(other.last))
    }
}

impl fmt::Display for Ipv4Range {
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
        first: Ipv4Addr,
        /// The last address as it was written.
        last: Ipv4Addr,
    },
    /// Addresses that no host can have.
    #[error("`{entry}` includes {special}, and no Service can have those; leave them out")]
    Special {
        /// The entry as it was written.
        entry: String,
        /// What they are.
        special: &'static str,
    },
    /// IPv6.
    #[error("`{entry}` is IPv6, which this version does not serve; remove the entry")]
    Family {
        /// The entry as it was written.
        entry: String,
    },
}

impl EntryError {
    /// The reason code.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Invalid { .. } | Self::Special { .. } => Reason::InvalidAddress,
            Self::HostBitsSet { .. } => Reason::HostBitsSet,
            Self::Reversed { .. } => Reason::RangeReversed,
            Self::Family { .. } => Reason::FamilyUnsupported,
        }
    }
}

/// Reads one entry of `spec.addresses`.
impl FromStr for Ipv4Range {
    type Err = EntryError;

    fn from_str(entry: &str) -> Result<Self, EntryError> {
        let invalid = |problem: String| EntryError::Invalid { entry: entry.to_owned(), problem };
        let address = |text: &str| match text.trim().parse::<IpAddr>() {
            Ok(IpAddr::V4(v4)) => Ok(v4),
            Ok(IpAddr::V6(_)) => Err(EntryError::Family { entry: entry.to_owned() }),
            Err(_) => Err(invalid(format!("`{}` is not an IP address", text.trim()))),
        };
        if entry.contains('/') {
            let net: IpNet = entry.trim().parse().map_err(|_| {
                invalid("a CIDR is an address and a prefix length of 0 to 32 with a slash between".to_owned())
            })?;
            let IpNet::V4(v4) = net else {
                return Err(EntryError::Family { entry: entry.to_owned() });
            };
            if v4.trunc() != v4 {
                return Err(EntryError::HostBitsSet {
                    entry: entry.to_owned(),
                    network: net.trunc(),
                    address: net.addr(),
                    last: net.broadcast(),
                });
            }
            return Ok(Self { first: v4.network(), last: v4.broadcast() });
        }
        let (first, last) = entry.split_once('-').unwrap_or((entry, entry));
        let (first, last) = (address(first)?, address(last)?);
        Self::new(first, last).ok_or_else(|| EntryError::Reversed { entry: entry.to_owned(), first, last })
    }
}

/// What of a range no host can have (RFC 6890 section 2.2.2, RFC 5771).
fn special(range: Ipv4Range) -> Option<&'static str> {
    let specials = [
        (Ipv4Addr::UNSPECIFIED, Ipv4Addr::new(0, 255, 255, 255), "addresses of 0.0.0.0/8, which mean \"this network\""),
        (Ipv4Addr::new(127, 0, 0, 0), Ipv4Addr::new(127, 255, 255, 255), "loopback addresses (127.0.0.0/8)"),
        (Ipv4Addr::new(224, 0, 0, 0), Ipv4Addr::new(239, 255, 255, 255), "multicast addresses (224.0.0.0/4)"),
        (Ipv4Addr::BROADCAST, Ipv4Addr::BROADCAST, "the broadcast address 255.255.255.255"),
    ];
    let meets = |(first, last, _): &(Ipv4Addr, Ipv4Addr, _)| range.first <= *last && *first <= range.last;
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
        common: Ipv4Range,
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
pub struct Addresses(Vec<Ipv4Range>);

impl Addresses {
    /// Reads `spec.addresses`.
    pub fn parse<S: AsRef<str>>(entries: &[S]) -> Result<Self, AddressesError> {
        let mut ranges = Vec::with_capacity(entries.len());
        for (index, entry) in entries.iter().enumerate() {
            let entry = entry.as_ref();
            let usable = entry.parse::<Ipv4Range>().and_then(|range| match special(range) {
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
    pub fn ranges(&self) -> &[Ipv4Range] {
        &self.0
    }

    /// How many addresses.
    pub fn size(&self) -> u64 {
        self.0.iter().map(|r| r.size()).sum()
    }

    /// Whether `address` is one of them.
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        self.0.iter().any(|r| r.contains(address))
    }

    /// The first range, by address, that both have.
    pub fn intersection(&self, other: &Self) -> Option<Ipv4Range> {
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
        ] {
            let range: Ipv4Range = entry.parse().unwrap();
            assert_eq!((range.first().to_string(), range.last().to_string()), (first.into(), last.into()), "{entry}");
            assert_eq!(range.size(), size, "{entry}");
        }
    }

    #[test]
    fn a_wrong_entry_says_what_is_wrong_and_what_to_write_instead() {
        for (entry, reason, says) in [
            ("192.0.2.0/33", Reason::InvalidAddress, "prefix length of 0 to 32"),
            ("192.0.2/24", Reason::InvalidAddress, "prefix length of 0 to 32"),
            ("web", Reason::InvalidAddress, "`web` is not an IP address"),
            ("192.0.2.1-", Reason::InvalidAddress, "`` is not an IP address"),
            ("192.0.2.1-2-3", Reason::InvalidAddress, "`2-3` is not an IP address"),
            (
                "192.0.2.200/28",
                Reason::HostBitsSet,
                "write `192.0.2.192/28` for the whole network, or `192.0.2.200-192.0.2.207`",
            ),
            ("192.0.2.20-192.0.2.10", Reason::RangeReversed, "write `192.0.2.10-192.0.2.20`"),
            ("2001:db8::/64", Reason::FamilyUnsupported, "IPv6"),
            ("192.0.2.1-2001:db8::1", Reason::FamilyUnsupported, "IPv6"),
        ] {
            let error = entry.parse::<Ipv4Range>().unwrap_err();
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
        ] {
            let error = Addresses::parse(&[entry]).unwrap_err();
            assert_eq!(error.reason(), Reason::InvalidAddress, "{entry}");
            assert!(error.to_string().contains(says), "{error}");
        }
        assert!(Addresses::parse(&["126.255.255.255", "128.0.0.0", "223.255.255.255", "240.0.0.1"]).is_ok());
    }

    #[test]
    fn a_wrong_entry_is_named_by_its_place() {
        let error = Addresses::parse(&["192.0.2.0/28", "oops"]).unwrap_err();
        assert!(error.to_string().starts_with("`spec.addresses[1]`: `oops`"), "{error}");
    }
}
