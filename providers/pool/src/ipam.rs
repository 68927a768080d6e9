//! Which address a Service gets.
//!
//! [`Ipam`] is a view of the cluster, never a store: it is filled from the pools and the Announcements that exist,
//! and asking it changes nothing.

mod pools;
mod refusal;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use berth_api::service::ServiceKey;

use pools::Pool;
pub use pools::{Exclusion, PoolInput, PoolProblem, PoolReport};
pub use refusal::Refusal;

/// What a Service asks for and what it had.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// Who asks.
    pub service: &'a ServiceKey,
    /// The address it insists on.
    pub address: Option<Ipv4Addr>,
    /// The pool it insists on.
    pub pool: Option<&'a str>,
    /// The address in its status: taken again when nobody else holds it, so that a lost Announcement or a
    /// move from another controller changes nothing for clients.
    pub previous: Option<Ipv4Addr>,
    /// Whether it wishes to share, which only changes what a refusal says.
    pub wants_sharing: bool,
}

/// An address for a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The address.
    pub address: Ipv4Addr,
    /// The pool that it is part of.
    pub pool: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Held {
    service: ServiceKey,
    pool: String,
}

/// All pools, and who holds which address.
#[derive(Clone, Debug, Default)]
pub struct Ipam {
    pools: BTreeMap<String, Pool>,
    held: BTreeMap<Ipv4Addr, Held>,
    by_service: BTreeMap<ServiceKey, BTreeSet<Ipv4Addr>>,
    /// How many addresses are held from each pool.
    used: BTreeMap<String, u64>,
}

impl Ipam {
    /// Replaces all pools. What is held stays held, also when no pool has it any more.
    ///
    /// `excluded` are addresses that are never given out.
    pub fn set_pools(&mut self, pools: Vec<PoolInput>, excluded: &BTreeMap<Ipv4Addr, Exclusion>) {
        self.pools = pools::judge(pools, excluded);
        for address in self.held.keys() {
            for pool in self.pools.values_mut() {
                pool.free.remove(*address);
            }
        }
    }

    /// Notes that `service` holds `address`, which it has from `pool`.
    pub fn hold(&mut self, address: Ipv4Addr, service: &ServiceKey, pool: &str) {
        self.release(address);
        for pool in self.pools.values_mut() {
            pool.free.remove(address);
        }
        *self.used.entry(pool.to_owned()).or_default() += 1;
        self.by_service.entry(service.clone()).or_default().insert(address);
        self.held.insert(address, Held { service: service.clone(), pool: pool.to_owned() });
    }

    /// Notes that nobody holds `address`. Returns whether somebody did.
    pub fn release(&mut self, address: Ipv4Addr) -> bool {
        let Some(held) = self.held.remove(&address) else { return false };
        if let Some(count) = self.used.get_mut(&held.pool) {
            *count -= 1;
        }
        if let Some(addresses) = self.by_service.get_mut(&held.service) {
            addresses.remove(&address);
            if addresses.is_empty() {
                self.by_service.remove(&held.service);
            }
        }
        for pool in self.pools.values_mut().filter(|p| p.gives(address)) {
            pool.free.insert(address);
        }
        true
    }

    /// The addresses that `service` holds, lowest first.
    pub fn held_by(&self, service: &ServiceKey) -> impl Iterator<Item = Ipv4Addr> + '_ {
        self.by_service.get(service).into_iter().flatten().copied()
    }

    /// Who holds `address`.
    pub fn holder(&self, address: Ipv4Addr) -> Option<&ServiceKey> {
        self.held.get(&address).map(|h| &h.service)
    }

    /// The pool that `address` is part of now, else the one that it was taken from.
    pub fn pool_of(&self, address: Ipv4Addr) -> Option<&str> {
        let now = self.pool_having(address).map(|(name, _)| name);
        now.or_else(|| self.held.get(&address).map(|h| h.pool.as_str()))
    }

    /// Whether `address` is part of no pool (any more).
    pub fn is_outside_pools(&self, address: Ipv4Addr) -> bool {
        self.pool_having(address).is_none()
    }

    /// What is to be said of each pool.
    pub fn reports(&self) -> impl Iterator<Item = (&str, PoolReport<'_>)> {
        self.pools.iter().map(|(name, pool)| {
            let assigned = self.used.get(name).copied().unwrap_or_default();
            let available = if pool.accepts() { pool.free.size() } else { 0 };
            (name.as_str(), PoolReport { problem: pool.problem.as_ref(), assigned, available })
        })
    }

    /// The address that serves the request: the one that is held if it does, else one that is free.
    ///
    /// # Errors
    /// When none does. What the Service holds is not touched by that.
    pub fn choose(&self, ask: Ask<'_>) -> Result<Choice, Refusal> {
        match (ask.address, ask.pool) {
            (Some(address), pool) => self.choose_address(ask, address, pool),
            (None, Some(pool)) => self.choose_from(ask, pool),
            (None, None) => self.choose_any(ask),
        }
    }

    fn choose_address(&self, ask: Ask<'_>, address: Ipv4Addr, wanted: Option<&str>) -> Result<Choice, Refusal> {
        let choice = |pool: &str| Ok(Choice { address, pool: pool.to_owned() });
        if let Some(name) = wanted
            && !self.pools.contains_key(name)
        {
            return Err(Refusal::PoolNotFound { pool: name.to_owned() });
        }
        let holder = self.holder(address);
        // Of several that have it, the one that is asked for.
        let asked = wanted.and_then(|w| self.pools.get_key_value(w)).filter(|(_, p)| p.has(address));
        let having = asked.map(|(name, pool)| (name.as_str(), pool)).or_else(|| self.pool_having(address));
        let Some((name, pool)) = having else {
            // Held from a pool that has been cut or deleted since: the request is still met.
            if let Some(name) = self.pool_of(address).filter(|_| holder == Some(ask.service)) {
                return choice(name);
            }
            return Err(Refusal::AddressOutsidePools { address });
        };
        if let Some(wanted) = wanted
            && wanted != name
        {
            return Err(Refusal::AddressNotInPool { address, pool: wanted.to_owned(), actual: name.to_owned() });
        }
        match holder {
            Some(service) if service == ask.service => return choice(name),
            Some(service) if ask.wants_sharing => {
                return Err(Refusal::SharingUnsupported { address, holder: service.clone() });
            }
            Some(service) => return Err(Refusal::AddressInUse { address, holder: service.clone() }),
            None => {}
        }
        match pool.excluded.get(&address) {
            Some(Exclusion::Node(node)) => return Err(Refusal::NodeAddress { address, node: node.clone() }),
            Some(Exclusion::Subnet(subnet)) => return Err(Refusal::SubnetAddress { address, subnet: subnet.clone() }),
            None => {}
        }
        if !pool.accepts() {
            return Err(not_ready([(name, pool)]));
        }
        choice(name)
    }

    fn choose_from(&self, ask: Ask<'_>, name: &str) -> Result<Choice, Refusal> {
        let pool = self.pools.get(name).ok_or_else(|| Refusal::PoolNotFound { pool: name.to_owned() })?;
        let choice = |address| Choice { address, pool: name.to_owned() };
        if let Some(held) = self.held_by(ask.service).find(|a| self.pool_of(*a) == Some(name)) {
            return Ok(choice(held));
        }
        if !pool.accepts() {
            return Err(not_ready([(name, pool)]));
        }
        let again = ask.previous.filter(|a| pool.free.contains(*a));
        again
            .or_else(|| pool.free.lowest())
            .map(choice)
            .ok_or_else(|| Refusal::PoolExhausted { pools: vec![name.to_owned()] })
    }

    fn choose_any(&self, ask: Ask<'_>) -> Result<Choice, Refusal> {
        let in_status = self.held_by(ask.service).find(|a| Some(*a) == ask.previous);
        if let Some(address) = in_status.or_else(|| self.held_by(ask.service).next()) {
            let pool = self.pool_of(address).unwrap_or_default().to_owned();
            return Ok(Choice { address, pool });
        }
        if let Some(address) = ask.previous
            && let Some((name, pool)) = self.pool_having(address)
            && pool.accepts()
            && pool.free.contains(address)
        {
            return Ok(Choice { address, pool: name.to_owned() });
        }
        let automatic = || self.pools.iter().filter(|(_, p)| p.auto_assign);
        let accepting = || automatic().filter(|(_, p)| p.accepts());
        if let Some((name, address)) = accepting().find_map(|(name, p)| Some((name, p.free.lowest()?))) {
            return Ok(Choice { address, pool: name.clone() });
        }
        let names =
            |pools: &mut dyn Iterator<Item = (&String, &Pool)>| pools.map(|(n, _)| n.clone()).collect::<Vec<_>>();
        let (full, all) = (names(&mut accepting()), names(&mut automatic()));
        Err(match (full.is_empty(), all.is_empty()) {
            (false, _) => Refusal::PoolExhausted { pools: full },
            (true, false) => not_ready(automatic().map(|(name, pool)| (name.as_str(), pool))),
            (true, true) => Refusal::NoPool { others: self.pools.len() },
        })
    }

    /// The pool whose addresses include `address`; the one that may give it, where an invalid one overlaps.
    fn pool_having(&self, address: Ipv4Addr) -> Option<(&str, &Pool)> {
        let having = || self.pools.iter().filter(move |(_, p)| p.has(address)).map(|(n, p)| (n.as_str(), p));
        having().find(|(_, p)| p.accepts()).or_else(|| having().next())
    }
}

fn not_ready<'a>(pools: impl IntoIterator<Item = (&'a str, &'a Pool)>) -> Refusal {
    let told = pools.into_iter().map(|(name, pool)| {
        let reason = pool.problem.as_ref().map_or("", |p| p.reason().as_str());
        format!("`{name}` ({reason})")
    });
    Refusal::PoolNotReady { pools: told.collect() }
}

#[cfg(test)]
mod tests;
