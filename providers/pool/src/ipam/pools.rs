//! Which pools may give addresses, and what is wrong with the others.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use berth_api::Reason;
use berth_api::pool::{Addresses, AddressesError, Ipv4Range};

use crate::intervals::Intervals;

/// How many of a pool's node addresses a message names.
const NAMED_NODES: usize = 3;

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
}

/// Why an address of a pool is never given out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exclusion {
    /// It is this node's own.
    Node(String),
    /// It is the network or broadcast address of this subnet of the nodes. Pools are commonly written as whole subnets,
    /// so it is left out without a word.
    Subnet(String),
}

/// What is wrong with a pool.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PoolProblem {
    /// Its specification cannot be read. It gives nothing new.
    #[error("{0}; until then nothing new is given from this pool, and what Services hold stays")]
    Addresses(#[from] AddressesError),
    /// It overlaps an older pool. It gives nothing new.
    #[error(
        "{common} is also part of the older pool `{older}`, which goes on serving it; remove it from one of the two, until then nothing new is given from this pool"
    )]
    Overlap {
        /// The pool that keeps the addresses.
        older: String,
        /// The lowest addresses that both have.
        common: Ipv4Range,
    },
    /// It holds addresses of nodes. It gives all others.
    #[error(
        "{nodes}; such addresses are left out and all others of the pool are given, but take them out of `spec.addresses`"
    )]
    NodeAddress {
        /// The addresses and the nodes, for the message.
        nodes: String,
    },
}

impl PoolProblem {
    /// The reason code.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Addresses(error) => error.reason(),
            Self::Overlap { .. } => Reason::Overlap,
            Self::NodeAddress { .. } => Reason::NodeAddress,
        }
    }
}

/// What is to be said of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolReport<'a> {
    /// What is wrong with it.
    pub problem: Option<&'a PoolProblem>,
    /// Addresses that Services hold from it.
    pub assigned: u64,
    /// Addresses that it can still give.
    pub available: u64,
}

#[derive(Clone, Debug)]
pub(super) struct Pool {
    addresses: Option<Addresses>,
    pub(super) auto_assign: bool,
    pub(super) problem: Option<PoolProblem>,
    /// Addresses that are never given.
    pub(super) excluded: BTreeMap<Ipv4Addr, Exclusion>,
    /// Addresses that nobody holds.
    pub(super) free: Intervals,
}

impl Pool {
    /// Whether new addresses are given from it.
    pub(super) fn accepts(&self) -> bool {
        matches!(self.problem, None | Some(PoolProblem::NodeAddress { .. }))
    }

    /// Whether `address` is part of it.
    pub(super) fn has(&self, address: Ipv4Addr) -> bool {
        self.addresses.as_ref().is_some_and(|a| a.contains(address))
    }

    /// Whether `address` could be given from it.
    pub(super) fn gives(&self, address: Ipv4Addr) -> bool {
        self.has(address) && !self.excluded.contains_key(&address)
    }
}

/// Judges pools: an unreadable one gives nothing, and neither does one that overlaps an older one that does.
pub(super) fn judge(mut inputs: Vec<PoolInput>, never: &BTreeMap<Ipv4Addr, Exclusion>) -> BTreeMap<String, Pool> {
    inputs.sort_by(|a, b| (a.created, &a.name).cmp(&(b.created, &b.name)));
    let mut older: Vec<(String, Addresses)> = Vec::new();
    let mut pools = BTreeMap::new();
    for input in inputs {
        let pool = match input.addresses {
            Err(error) => Pool {
                addresses: None,
                auto_assign: input.auto_assign,
                problem: Some(error.into()),
                excluded: BTreeMap::new(),
                free: Intervals::default(),
            },
            Ok(addresses) => {
                let overlap = older.iter().find_map(|(name, other)| {
                    let common = other.intersection(&addresses)?;
                    Some(PoolProblem::Overlap { older: name.clone(), common })
                });
                let excluded = left_out(&addresses, never);
                let mut free = Intervals::from_ranges(addresses.ranges());
                for address in excluded.keys() {
                    free.remove(*address);
                }
                if overlap.is_none() {
                    older.push((input.name.clone(), addresses.clone()));
                }
                let problem = overlap.or_else(|| node_problem(&excluded));
                Pool { addresses: Some(addresses), auto_assign: input.auto_assign, problem, excluded, free }
            }
        };
        pools.insert(input.name, pool);
    }
    pools
}

fn left_out(addresses: &Addresses, never: &BTreeMap<Ipv4Addr, Exclusion>) -> BTreeMap<Ipv4Addr, Exclusion> {
    let within = |range: &Ipv4Range| never.range(range.first()..=range.last());
    addresses.ranges().iter().flat_map(within).map(|(a, why)| (*a, why.clone())).collect()
}

fn node_problem(excluded: &BTreeMap<Ipv4Addr, Exclusion>) -> Option<PoolProblem> {
    let mut nodes: Vec<_> = excluded
        .iter()
        .filter_map(|(address, why)| match why {
            Exclusion::Node(node) => Some(format!("{address} is the own address of node {node}")),
            Exclusion::Subnet(_) => None,
        })
        .collect();
    if nodes.is_empty() {
        return None;
    }
    if nodes.len() > NAMED_NODES {
        let more = nodes.split_off(NAMED_NODES).len();
        nodes.push(format!("and {more} more are nodes' own"));
    }
    Some(PoolProblem::NodeAddress { nodes: nodes.join(", ") })
}
