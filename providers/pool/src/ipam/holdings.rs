//! Who holds which address, and on which terms.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use berth_api::pool::IpRange;
use berth_api::service::ServiceKey;
use berth_api::sharing::SharingTerms;
use berth_api::{IpFamily, PerFamily};

/// A Service that holds an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenant {
    /// Which.
    pub service: ServiceKey,
    /// On which terms it shares the address; `None` where it does not.
    pub terms: Option<SharingTerms>,
}

#[derive(Clone, Debug)]
struct Holding {
    pool: String,
    /// At least one, in the order in which they came.
    tenants: Vec<Tenant>,
}

/// All addresses that are held.
#[derive(Clone, Debug, Default)]
pub(super) struct Holdings {
    held: BTreeMap<IpAddr, Holding>,
    by_service: BTreeMap<ServiceKey, BTreeSet<IpAddr>>,
    /// By the keys by which they are shared.
    by_key: BTreeMap<String, BTreeSet<IpAddr>>,
    used: BTreeMap<String, PerFamily<u64>>,
}

impl Holdings {
    /// Notes that exactly these Services hold `address`, which is from `pool`. None of them: it is held no more.
    pub(super) fn set(&mut self, address: IpAddr, pool: &str, tenants: Vec<Tenant>) {
        if let Some(before) = self.held.remove(&address) {
            if let Some(count) = self.used.get_mut(&before.pool) {
                *count.get_mut(IpFamily::of(address)) -= 1;
            }
            for tenant in before.tenants {
                drop_from(&mut self.by_service, &tenant.service, address);
                if let Some(terms) = tenant.terms {
                    drop_from(&mut self.by_key, &terms.key, address);
                }
            }
        }
        if tenants.is_empty() {
            return;
        }
        *self.used.entry(pool.to_owned()).or_default().get_mut(IpFamily::of(address)) += 1;
        for tenant in &tenants {
            self.by_service.entry(tenant.service.clone()).or_default().insert(address);
            if let Some(terms) = &tenant.terms {
                self.by_key.entry(terms.key.clone()).or_default().insert(address);
            }
        }
        self.held.insert(address, Holding { pool: pool.to_owned(), tenants });
    }

    pub(super) fn tenants(&self, address: IpAddr) -> &[Tenant] {
        self.held.get(&address).map_or(&[], |held| &held.tenants)
    }

    /// The pool that it was taken from.
    pub(super) fn pool(&self, address: IpAddr) -> Option<&str> {
        self.held.get(&address).map(|held| held.pool.as_str())
    }

    /// What a Service holds, lowest first, IPv4 before IPv6.
    pub(super) fn of(&self, service: &ServiceKey) -> impl Iterator<Item = IpAddr> + '_ {
        self.by_service.get(service).into_iter().flatten().copied()
    }

    /// Addresses of which somebody shares by `key`, lowest first.
    pub(super) fn shared_by(&self, key: &str) -> impl Iterator<Item = IpAddr> + '_ {
        self.by_key.get(key).into_iter().flatten().copied()
    }

    /// The addresses of a range that are held.
    pub(super) fn within(&self, range: IpRange) -> impl Iterator<Item = IpAddr> + '_ {
        self.held.range(range.first()..=range.last()).map(|(address, _)| *address)
    }

    pub(super) fn addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.held.keys().copied()
    }

    /// How many addresses are held from a pool.
    pub(super) fn used(&self, pool: &str) -> PerFamily<u64> {
        self.used.get(pool).copied().unwrap_or_default()
    }
}

fn drop_from<K: Ord>(map: &mut BTreeMap<K, BTreeSet<IpAddr>>, key: &K, address: IpAddr) {
    if let Some(addresses) = map.get_mut(key) {
        addresses.remove(&address);
        if addresses.is_empty() {
            map.remove(key);
        }
    }
}
