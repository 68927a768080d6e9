//! Which pools may give addresses, and what is wrong with the others.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use berth_api::pool::{Addresses, AddressesError, IpRange};
use berth_api::sharing::SharingScope;
use berth_api::{IpFamily, PerFamily, Reason};

use super::admission::Admission;
use crate::intervals::Intervals;

/// How many of what a pool should not have a message names.
const NAMED: usize = 3;

/// One IPAddressPool.
#[derive(Clone, Debug)]
pub struct PoolInput {
    /// Its name.
    pub name: String,
    /// When it was created, in seconds since 1970: of two that overlap the older serves.
    pub created: i64,
    /// Its addresses, or why they cannot be read.
    pub addresses: Result<Addresses, AddressesError>,
    /// `spec.autoAssign`.
    pub auto_assign: bool,
    /// `spec.avoidBuggyIPs`.
    pub avoid_buggy: bool,
    /// `spec.disabled`.
    pub disabled: bool,
    /// `spec.serviceAllocation`, or why it cannot be read; `None` where it is not given.
    pub admission: Option<Result<Admission, String>>,
    /// `spec.sharing`.
    pub sharing: SharingScope,
    /// What was released and is given to nobody yet, and until when, in seconds since 1970.
    pub cooling: Vec<(IpRange, i64)>,
}

/// Why an address of a pool is never given out.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exclusion {
    /// It is this node's own.
    Node(String),
    /// It is a gateway of this node.
    Gateway(String),
    /// It is the network or broadcast address of this subnet of the nodes, for IPv6 the subnet-router anycast address
    /// (RFC 4291 section 2.6.1). Pools are commonly written as whole subnets, so it is left out without a word.
    Subnet(String),
    /// It is one of this node's addresses for pods.
    Pods(String),
    /// It is one of the cluster's addresses inside itself for Services, by this ServiceCIDR.
    Services(String),
}

impl Exclusion {
    fn reason(&self) -> Option<Reason> {
        match self {
            Self::Node(_) => Some(Reason::NodeAddress),
            Self::Gateway(_) => Some(Reason::GatewayAddress),
            Self::Subnet(_) => None,
            Self::Pods(_) => Some(Reason::PodNetwork),
            Self::Services(_) => Some(Reason::ServiceNetwork),
        }
    }

    fn told(&self, range: IpRange) -> String {
        match self {
            Self::Node(node) => format!("{range} is the own address of node {node}"),
            Self::Gateway(node) => format!("{range} is a gateway of node {node}"),
            Self::Subnet(subnet) => format!("{range} is special in the nodes' subnet {subnet}"),
            Self::Pods(node) => format!("{range} is for the pods of node {node}"),
            Self::Services(name) => format!("{range} is for the cluster IPs of ServiceCIDR {name}"),
        }
    }
}

/// What is wrong with a pool.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PoolProblem {
    /// Its addresses cannot be read. It gives nothing new.
    #[error("{0}; until then nothing new is given from this pool, and what Services hold stays")]
    Addresses(#[from] AddressesError),
    /// A selector cannot be read. It gives nothing new.
    #[error("{0}; until it is corrected nothing new is given from this pool, and what Services hold stays")]
    Selector(String),
    /// It overlaps an older pool. It gives nothing new.
    #[error(
        "{common} is also part of the older pool `{older}`, which goes on serving it; remove it from one of the two, until then nothing new is given from this pool"
    )]
    Overlap {
        /// The pool that keeps the addresses.
        older: String,
        /// The lowest addresses that both have.
        common: IpRange,
    },
    /// Some of its addresses are somebody's. It gives all others.
    #[error(
        "{told}; such addresses are left out and all others of the pool are given, but take them out of `spec.addresses`"
    )]
    Taken {
        /// Whose the first of them is.
        reason: Reason,
        /// The addresses and whose they are, for the message.
        told: String,
    },
}

impl PoolProblem {
    /// The reason code.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Addresses(error) => error.reason(),
            Self::Selector(_) => Reason::InvalidSelector,
            Self::Overlap { .. } => Reason::Overlap,
            Self::Taken { reason, .. } => *reason,
        }
    }
}

/// What is to be said of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolReport<'a> {
    /// What is wrong with it.
    pub problem: Option<&'a PoolProblem>,
    /// Whether it gives nothing new because a person wishes so.
    pub disabled: bool,
    /// Addresses that Services hold from it. One that several share counts once.
    pub assigned: PerFamily<u64>,
    /// Addresses that it can still give.
    pub available: PerFamily<u128>,
    /// All its addresses.
    pub total: PerFamily<u128>,
}

#[derive(Clone, Debug)]
pub(super) struct Pool {
    addresses: Option<Addresses>,
    pub(super) auto_assign: bool,
    pub(super) disabled: bool,
    avoid_buggy: bool,
    /// Whom it admits; `None` for all.
    pub(super) admission: Option<Admission>,
    pub(super) sharing: SharingScope,
    pub(super) problem: Option<PoolProblem>,
    /// Addresses that are never given, and why.
    excluded: Vec<(IpRange, Exclusion)>,
    never: Intervals,
    pub(super) cooling: Vec<(IpRange, i64)>,
    cooling_set: Intervals,
    /// Addresses that nobody holds and that may be given.
    pub(super) free: Intervals,
}

impl Pool {
    /// Whether its specification is one from which new addresses may be given.
    pub(super) fn is_valid(&self) -> bool {
        matches!(self.problem, None | Some(PoolProblem::Taken { .. }))
    }

    /// Whether new addresses are given from it.
    pub(super) fn accepts(&self) -> bool {
        self.is_valid() && !self.disabled
    }

    /// Whether addresses of a family are part of it. `None`: its specification cannot be read.
    pub(super) fn has_family(&self, family: IpFamily) -> Option<bool> {
        self.addresses.as_ref().map(|a| a.has(family))
    }

    /// Whether `address` is part of it.
    pub(super) fn has(&self, address: IpAddr) -> bool {
        self.addresses.as_ref().is_some_and(|a| a.contains(address))
    }

    /// All its ranges.
    pub(super) fn ranges(&self) -> &[IpRange] {
        self.addresses.as_ref().map_or(&[], Addresses::ranges)
    }

    /// Whether `address` could be given from it to a Service that had it.
    pub(super) fn may_give(&self, address: IpAddr) -> bool {
        self.has(address) && !self.never.contains(address) && !self.avoids(address)
    }

    /// Whether `address` could be given from it to anybody.
    pub(super) fn gives(&self, address: IpAddr) -> bool {
        self.may_give(address) && !self.cooling_set.contains(address)
    }

    /// Whether it is left out because of `spec.avoidBuggyIPs`.
    pub(super) fn avoids(&self, address: IpAddr) -> bool {
        self.avoid_buggy && is_buggy(address)
    }

    /// Why an address is never given.
    pub(super) fn exclusion(&self, address: IpAddr) -> Option<&Exclusion> {
        self.excluded.iter().find(|(range, _)| range.contains(address)).map(|(_, why)| why)
    }

    /// Until when a released address is given to nobody, in seconds since 1970.
    pub(super) fn cools_until(&self, address: IpAddr) -> Option<i64> {
        self.cooling.iter().filter(|(range, _)| range.contains(address)).map(|(_, until)| *until).max()
    }

    /// Replaces what cools down. `held`: what is held of the ranges that did or do. Returns what may be given since.
    pub(super) fn set_cooling(&mut self, cooling: Vec<(IpRange, i64)>, held: &[IpAddr]) -> Intervals {
        let mut freed = Intervals::default();
        let Some(addresses) = &self.addresses else {
            self.cooling = cooling;
            return freed;
        };
        self.cooling_set = Intervals::default();
        for (range, _) in &cooling {
            self.cooling_set.insert_range(*range);
            self.free.remove_range(*range);
        }
        let before = std::mem::replace(&mut self.cooling, cooling);
        for range in addresses.ranges() {
            for common in before.iter().filter_map(|(other, _)| range.intersection(*other)) {
                freed.insert_range(common);
                if self.avoid_buggy {
                    for address in buggy(common) {
                        freed.remove(address);
                    }
                }
            }
        }
        self.never.ranges().chain(self.cooling_set.ranges()).for_each(|range| freed.remove_range(range));
        for address in held {
            freed.remove(*address);
        }
        // What was given back while it cooled is in it too, and was not free.
        freed.ranges().for_each(|range| self.free.insert_range(range));
        freed
    }

    fn total(&self, family: IpFamily) -> u128 {
        let of_family = self.ranges().iter().filter(|range| range.family() == family);
        of_family.fold(0, |sum: u128, range| sum.saturating_add(range.size()))
    }

    pub(super) fn report(&self, assigned: PerFamily<u64>) -> PoolReport<'_> {
        let free = |family| if self.accepts() { self.free.size(family) } else { 0 };
        PoolReport {
            problem: self.problem.as_ref(),
            disabled: self.disabled,
            assigned,
            available: PerFamily { v4: free(IpFamily::V4), v6: free(IpFamily::V6) },
            total: PerFamily { v4: self.total(IpFamily::V4), v6: self.total(IpFamily::V6) },
        }
    }
}

/// Addresses that old clients and routers take for those of a network, whatever its prefix.
fn is_buggy(address: IpAddr) -> bool {
    matches!(address, IpAddr::V4(v4) if matches!(v4.octets()[3], 0 | 255))
}

/// Judges pools: an unreadable one gives nothing, and neither does one that overlaps an older one that does.
pub(super) fn judge(mut inputs: Vec<PoolInput>, never: &[(IpRange, Exclusion)]) -> BTreeMap<String, Pool> {
    inputs.sort_by(|a, b| (a.created, &a.name).cmp(&(b.created, &b.name)));
    let mut older: Vec<(String, Addresses)> = Vec::new();
    let mut pools = BTreeMap::new();
    for input in inputs {
        let PoolInput { name, addresses, auto_assign, avoid_buggy, disabled, admission, sharing, cooling, .. } = input;
        let (admission, selector) = match admission {
            None => (None, None),
            Some(Ok(admission)) => (Some(admission), None),
            // Whom it admits is not known, so it is nobody's for what is new.
            Some(Err(error)) => (None, Some(PoolProblem::Selector(error))),
        };
        let mut pool = Pool {
            addresses: None,
            auto_assign,
            disabled,
            avoid_buggy,
            admission,
            sharing,
            problem: None,
            excluded: Vec::new(),
            never: Intervals::default(),
            cooling,
            cooling_set: Intervals::default(),
            free: Intervals::default(),
        };
        match addresses {
            Err(error) => pool.problem = Some(error.into()),
            Ok(addresses) => {
                let overlap = older.iter().find_map(|(name, other)| {
                    let common = other.intersection(&addresses)?;
                    Some(PoolProblem::Overlap { older: name.clone(), common })
                });
                if overlap.is_none() {
                    older.push((name.clone(), addresses.clone()));
                }
                pool.take(addresses, never);
                pool.problem = selector.or(overlap).or_else(|| taken(&pool.excluded));
            }
        }
        pools.insert(name, pool);
    }
    pools
}

impl Pool {
    /// Takes in its addresses, but for those that are never given.
    fn take(&mut self, addresses: Addresses, never: &[(IpRange, Exclusion)]) {
        self.free = Intervals::from_ranges(addresses.ranges());
        for range in addresses.ranges() {
            let common = |(other, why): &(IpRange, Exclusion)| Some((range.intersection(*other)?, why.clone()));
            self.excluded.extend(never.iter().filter_map(common));
            if self.avoid_buggy {
                for address in buggy(*range) {
                    self.free.remove(address);
                }
            }
        }
        for (range, _) in &self.excluded {
            self.never.insert_range(*range);
            self.free.remove_range(*range);
        }
        for (range, _) in &self.cooling {
            self.cooling_set.insert_range(*range);
            self.free.remove_range(*range);
        }
        self.addresses = Some(addresses);
    }
}

/// Those that end in .0 or .255.
fn buggy(range: IpRange) -> impl Iterator<Item = IpAddr> {
    let networks = match (range.first(), range.last()) {
        (IpAddr::V4(first), IpAddr::V4(last)) => Some((first.to_bits() >> 8)..=(last.to_bits() >> 8)),
        _ => None,
    };
    let ends = |network: u32| [network << 8, network << 8 | 0xff].map(|bits| Ipv4Addr::from_bits(bits).into());
    networks.into_iter().flatten().flat_map(ends).filter(move |address| range.contains(*address))
}

fn taken(excluded: &[(IpRange, Exclusion)]) -> Option<PoolProblem> {
    let mut wrong: Vec<_> =
        excluded.iter().filter_map(|(range, why)| Some((why.reason()?, why.told(*range)))).collect();
    wrong.sort_by_key(|(reason, _)| *reason);
    let (reason, _) = *wrong.first()?;
    let mut told: Vec<_> = wrong.into_iter().map(|(_, told)| told).collect();
    if told.len() > NAMED {
        let more = told.split_off(NAMED).len();
        told.push(format!("and {more} more are not free either"));
    }
    Some(PoolProblem::Taken { reason, told: told.join(", ") })
}
