//! A fingerprint of a list of claims that costs one step to change by one claim.

use std::net::IpAddr;

/// Offset basis of 64-bit FNV-1a.
const FNV_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
/// Prime of 64-bit FNV-1a.
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

/// Sum, modulo 2^64, of one hash for each claim: FNV-1a over the 16 bytes of the address (IPv4 mapped) and the 8 of the
/// number, big-endian (the epoch, with the highest bit set where the sender only cares for the address), followed by the finaliser of SplitMix64, without which sums of similar claims would be similar.
///
/// A sum does not depend on an order, so the list has the same digest however it came about. It guards against loss,
/// not against forgery: that is what the envelope is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digest(u64);

impl Digest {
    /// Of the list without entries.
    pub const EMPTY: Self = Self(0);

    /// As read from the wire.
    pub fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// As written to the wire.
    pub fn to_bits(self) -> u64 {
        self.0
    }

    /// Of the list with this claim added.
    #[must_use]
    pub fn with(self, address: IpAddr, number: u64) -> Self {
        Self(self.0.wrapping_add(hash(address, number)))
    }

    /// Of the list with this claim, which is in it, removed.
    #[must_use]
    pub fn without(self, address: IpAddr, number: u64) -> Self {
        Self(self.0.wrapping_sub(hash(address, number)))
    }
}

/// FNV-1a, 64 bits.
pub(super) fn fnv1a(bytes: impl IntoIterator<Item = u8>) -> u64 {
    bytes.into_iter().fold(FNV_BASIS, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(FNV_PRIME))
}

fn hash(address: IpAddr, number: u64) -> u64 {
    let mapped = match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    };
    let fnv = fnv1a(mapped.octets().into_iter().chain(number.to_be_bytes()));
    let mixed = (fnv ^ (fnv >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_of_a_list_does_not_depend_on_how_it_came_about() {
        let a = "192.0.2.1".parse().unwrap();
        let b = "2001:db8::1".parse().unwrap();
        let straight = Digest::EMPTY.with(a, 1).with(b, 2);
        assert_eq!(straight, Digest::EMPTY.with(b, 2).with(a, 7).with(a, 1).without(a, 7));
        assert_ne!(straight, Digest::EMPTY.with(a, 2).with(b, 1), "epochs belong to their addresses");
        assert_eq!(straight.without(a, 1).without(b, 2), Digest::EMPTY);
    }

    #[test]
    fn the_digest_is_the_same_in_every_build() {
        // Two versions of the speaker must agree on it. Worked out from the description above by another program.
        assert_eq!(Digest::EMPTY.with("192.0.2.1".parse().unwrap(), 1).to_bits(), 0x7ccf_e1fb_a5fd_c515);
    }
}
