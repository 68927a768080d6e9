//! Which address a Service gets.
//!
//! [`Ipam`] is a view of the cluster, never a store: it is filled from the pools and the Announcements that exist,
//! and asking it changes nothing.

mod admission;
mod choice;
mod holdings;
mod pools;
mod refusal;

use std::collections::BTreeMap;
use std::net::IpAddr;

use berth_api::IpFamily;
use berth_api::crd::SERVICES_MAX;
use berth_api::pool::IpRange;
use berth_api::service::{Request, ServiceKey};
use berth_api::sharing::{Clash, SharingScope, SharingTerms, may_share};

pub use admission::{Admission, Labels};
pub use choice::{Answer, Choice};
use holdings::Holdings;
pub use holdings::Tenant;
use pools::Pool;
pub use pools::{Exclusion, PoolInput, PoolProblem, PoolReport};
pub use refusal::Refusal;

use crate::intervals::Intervals;
use crate::quarantine::Quarantine;

/// What a Service asks for and what it had.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// Who asks.
    pub service: &'a ServiceKey,
    /// Its labels.
    pub labels: &'a Labels,
    /// Those of its namespace, where they are known.
    pub namespace: Option<&'a Labels>,
    /// What it asks for.
    pub request: &'a Request,
    /// The addresses in its status: each is taken again when nobody else holds it, so that a lost Announcement or a
    /// move from another controller changes nothing for clients.
    pub previous: &'a [IpAddr],
    /// On which terms it shares, if it wishes to.
    pub terms: Option<&'a SharingTerms>,
}

/// All pools, and who holds which address.
#[derive(Clone, Debug, Default)]
pub struct Ipam {
    pools: BTreeMap<String, Pool>,
    holdings: Holdings,
    /// Addresses that a foreign machine was found to have.
    quarantined: BTreeMap<IpAddr, Quarantine>,
    /// How often something changed by which another address may be free.
    changes: u64,
}

impl Ipam {
    /// Replaces all pools. What is held stays held, also when no pool has it any more.
    ///
    /// `never` are addresses that are never given out.
    pub fn set_pools(&mut self, pools: Vec<PoolInput>, never: &[(IpRange, Exclusion)]) {
        self.changes = self.changes.wrapping_add(1);
        self.pools = pools::judge(pools, never);
        for address in self.holdings.addresses() {
            for pool in self.pools.values_mut() {
                pool.free.remove(address);
            }
        }
    }

    /// Replaces what cools down of a pool. Returns what may be given since.
    pub fn set_cooling(&mut self, name: &str, cooling: Vec<(IpRange, i64)>) -> Intervals {
        let Some(pool) = self.pools.get_mut(name) else { return Intervals::default() };
        self.changes = self.changes.wrapping_add(1);
        let concerned = pool.cooling.iter().chain(&cooling).map(|(range, _)| *range);
        let held: Vec<_> = concerned.flat_map(|range| self.holdings.within(range)).collect();
        pool.set_cooling(cooling, &held)
    }

    /// Replaces what is in quarantine. Who holds such an address is given another one, unless it asks for this very one. It is not among
    /// what a pool gives, which [`Self::set_cooling`] sees to.
    pub fn set_quarantined(&mut self, quarantined: BTreeMap<IpAddr, Quarantine>) {
        self.quarantined = quarantined;
    }

    /// The quarantine that `address` is in.
    pub fn quarantined(&self, address: IpAddr) -> Option<&Quarantine> {
        self.quarantined.get(&address)
    }

    /// The lowest free addresses of a family that a pool gives.
    pub fn next_free(&self, name: &str, family: IpFamily, count: usize) -> Vec<IpAddr> {
        let pool = self.pools.get(name).filter(|pool| pool.accepts());
        pool.map(|pool| pool.free.first(family, count)).unwrap_or_default()
    }

    /// How many addresses of a family are in quarantine that pool `name` would give.
    pub fn quarantined_of(&self, name: &str, family: IpFamily) -> usize {
        let of_family = self.quarantined.keys().filter(|address| IpFamily::of(**address) == family);
        of_family.filter(|address| self.pool_having(**address).is_some_and(|(having, _)| having == name)).count()
    }

    /// Whether `address` is one that a pool gives.
    pub fn is_free(&self, address: IpAddr) -> bool {
        self.pools.values().any(|pool| pool.free.contains(address))
    }

    /// Differs when another address may be free than before.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// Notes that exactly these Services hold `address`, which they have from `pool`.
    pub fn set_tenants(&mut self, address: IpAddr, pool: &str, tenants: Vec<Tenant>) {
        let is_held = !tenants.is_empty();
        self.changes = self.changes.wrapping_add(1);
        self.holdings.set(address, pool, tenants);
        for pool in self.pools.values_mut() {
            if is_held {
                pool.free.remove(address);
            } else if pool.gives(address) {
                pool.free.insert(address);
            }
        }
    }

    /// Notes that `service` holds `address`, beside whoever does already.
    pub fn hold(&mut self, address: IpAddr, pool: &str, tenant: Tenant) {
        let mut tenants = self.tenants(address).to_vec();
        tenants.retain(|other| other.service != tenant.service);
        tenants.push(tenant);
        self.set_tenants(address, pool, tenants);
    }

    /// Notes that nobody holds `address`. Returns whether somebody did.
    pub fn release(&mut self, address: IpAddr) -> bool {
        let was_held = !self.tenants(address).is_empty();
        if was_held {
            self.set_tenants(address, "", Vec::new());
        }
        was_held
    }

    /// The Services that hold `address`, in the order in which they came.
    pub fn tenants(&self, address: IpAddr) -> &[Tenant] {
        self.holdings.tenants(address)
    }

    /// The addresses that `service` holds, lowest first, IPv4 before IPv6.
    pub fn held_by(&self, service: &ServiceKey) -> impl Iterator<Item = IpAddr> + '_ {
        self.holdings.of(service)
    }

    /// The addresses of a range that are held.
    pub fn held_within(&self, range: IpRange) -> impl Iterator<Item = IpAddr> + '_ {
        self.holdings.within(range)
    }

    /// The pool that `address` is part of now, else the one that it was taken from.
    pub fn pool_of(&self, address: IpAddr) -> Option<&str> {
        let now = self.pool_having(address).map(|(name, _)| name);
        now.or_else(|| self.holdings.pool(address))
    }

    /// Whether `address` is part of no pool (any more).
    pub fn is_outside_pools(&self, address: IpAddr) -> bool {
        self.pool_having(address).is_none()
    }

    /// What is to be said of each pool.
    pub fn reports(&self) -> impl Iterator<Item = (&str, PoolReport<'_>)> {
        self.pools.iter().map(|(name, pool)| (name.as_str(), pool.report(self.holdings.used(name))))
    }

    /// What is to be said of one pool.
    pub fn report(&self, name: &str) -> Option<PoolReport<'_>> {
        self.pools.get(name).map(|pool| pool.report(self.holdings.used(name)))
    }

    /// Whether a Service may go on holding `address`.
    ///
    /// # Errors
    /// When its pool is not for it any more, or when it has changed so that it may not share with whoever else holds it. Who
    /// changed leaves; the terms of the others are those that they came with.
    pub fn may_stay(&self, ask: Ask<'_>, address: IpAddr) -> Result<(), Refusal> {
        let pool = self.pool_having(address);
        if let Some((name, pool)) = pool
            && admits(pool, ask) == Some(false)
        {
            return Err(Refusal::PoolNotAdmitted { service: ask.service.clone(), pools: vec![name.to_owned()] });
        }
        match self.sharing_with_others(ask, address) {
            Err(Refusal::AddressInUse { clash: Clash::Namespace, .. })
                if self.came_before_its_pool_said(ask, address) =>
            {
                Ok(())
            }
            other => other,
        }
    }

    /// Whether a Service holds an address that it may share but for its pool, which keeps sharing within a namespace and did not when it
    /// came, and is of the namespace that was there first: the others leave.
    fn came_before_its_pool_said(&self, ask: Ask<'_>, address: IpAddr) -> bool {
        let tenants = self.tenants(address);
        let is_first = tenants.first().is_some_and(|first| first.service.namespace == ask.service.namespace);
        let others = tenants.iter().filter(|tenant| tenant.service != *ask.service);
        let terms = |tenant: &Tenant| {
            may_share((ask.service, ask.terms), (&tenant.service, tenant.terms.as_ref()), SharingScope::Cluster)
        };
        is_first && others.into_iter().all(|tenant| terms(tenant).is_ok())
    }

    /// Whether a Service may hold `address` beside whoever holds it.
    fn sharing_with_others(&self, ask: Ask<'_>, address: IpAddr) -> Result<(), Refusal> {
        let widest = self.pool_having(address).map_or(SharingScope::default(), |(_, pool)| pool.sharing);
        let others = || self.tenants(address).iter().filter(|tenant| tenant.service != *ask.service);
        for other in others() {
            let clash = may_share((ask.service, ask.terms), (&other.service, other.terms.as_ref()), widest);
            if let Err(clash) = clash {
                let (holder, wished) = (other.service.clone(), ask.terms.is_some());
                return Err(Refusal::AddressInUse { address, holder, clash, wished });
            }
        }
        if others().count() >= SERVICES_MAX { Err(Refusal::AddressFull { address }) } else { Ok(()) }
    }

    /// The pool whose addresses include `address`; the one that may give it, where an invalid one overlaps.
    fn pool_having(&self, address: IpAddr) -> Option<(&str, &Pool)> {
        let having = || self.pools.iter().filter(move |(_, p)| p.has(address)).map(|(n, p)| (n.as_str(), p));
        having().find(|(_, p)| p.is_valid()).or_else(|| having().next())
    }
}

/// Whether a pool admits who asks. `None`: it is not known.
fn admits(pool: &Pool, ask: Ask<'_>) -> Option<bool> {
    let admission = pool.admission.as_ref();
    admission.map_or(Some(true), |a| a.admits(&ask.service.namespace, ask.namespace, ask.labels))
}

/// Whether a refusal to stay is for a port that both take up: traffic of the one may reach the other at this moment.
pub fn is_collision(refusal: &Refusal) -> bool {
    matches!(refusal, Refusal::AddressInUse { clash: Clash::Port(_), .. })
}

#[cfg(test)]
mod tests;
