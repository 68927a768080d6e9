//! The ranges that are reserved for documentation: nobody routes them.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use berth_api::IpFamily;

/// TEST-NET-3, -2 and -1 (RFC 5737 section 3), by their first three numbers.
const V4_NETWORKS: [[u8; 3]; 3] = [[203, 0, 113], [198, 51, 100], [192, 0, 2]];
/// The prefix for documentation, 2001:db8::/32 (RFC 3849 section 2).
const V6_PREFIX: [u16; 2] = [0x2001, 0xdb8];
/// The /64 of it that addresses are given from: `b07` leaves people's own examples alone.
const V6_SUBNET: u16 = 0xb07;

/// The lowest address that is not taken.
pub(crate) fn lowest_free(family: IpFamily, taken: &BTreeSet<IpAddr>) -> Option<IpAddr> {
    match family {
        IpFamily::V4 => v4().map(IpAddr::V4).find(|address| !taken.contains(address)),
        IpFamily::V6 => (1..=u16::MAX).map(v6).find(|address| !taken.contains(address)),
    }
}

/// Whether it is reserved for documentation.
pub(crate) fn is_documentation(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => V4_NETWORKS.iter().any(|network| v4.octets().starts_with(network)),
        IpAddr::V6(v6) => v6.segments().starts_with(&V6_PREFIX),
    }
}

fn v4() -> impl Iterator<Item = Ipv4Addr> {
    // The first and the last address of a network are no host's.
    V4_NETWORKS.into_iter().flat_map(|[a, b, c]| (1..=254).map(move |d| Ipv4Addr::new(a, b, c, d)))
}

fn v6(number: u16) -> IpAddr {
    let [a, b] = V6_PREFIX;
    IpAddr::V6(Ipv6Addr::new(a, b, 0, V6_SUBNET, 0, 0, 0, number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_that_is_given_is_reserved_for_documentation() {
        let mut taken = BTreeSet::new();
        for family in [IpFamily::V4, IpFamily::V6] {
            while let Some(address) = lowest_free(family, &taken).filter(|_| taken.len() < 900) {
                assert!(is_documentation(address) && IpFamily::of(address) == family, "{address}");
                taken.insert(address);
            }
        }
        assert_eq!(taken.iter().filter(|address| address.is_ipv4()).count(), 3 * 254);
        for other in ["10.0.0.1", "203.0.114.1", "2001:db9::1"] {
            assert!(!is_documentation(other.parse().unwrap()), "{other}");
        }
    }
}
