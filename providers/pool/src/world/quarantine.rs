//! Addresses that a foreign machine was found to have before their first use: who holds one is given another, and nobody else gets it.
//!
//! The pool's status is where it is noted. The address is left as soon as it is found taken, and its Announcement goes when the status
//! says so: whoever leads next finds the one or the other.

use std::collections::BTreeMap;
use std::net::IpAddr;

use berth_api::MacAddr;
use berth_api::crd::QUARANTINED_MAX;
use berth_api::pool::IpRange;

use super::World;
use crate::quarantine::Quarantine;
use crate::view::{AnnouncementView, PoolView};

/// What is in no pool's status yet.
#[derive(Clone, Debug, Default)]
pub(super) struct Found {
    /// Addresses that were just found taken, and the machine that has each.
    pub(super) taken: BTreeMap<IpAddr, MacAddr>,
    /// Those for which it was decided what it means, and their pools.
    noted: BTreeMap<IpAddr, (String, Quarantine)>,
}

impl World {
    /// Takes note of what an Announcement says about a foreign machine.
    pub(super) fn learn_conflict(&mut self, address: IpAddr) {
        let view = self.announcement(address);
        let (taken, in_use) = (view.and_then(AnnouncementView::found_taken), view.is_some_and(|v| v.claimed.is_some()));
        match taken {
            Some(mac) => {
                self.found.taken.insert(address, mac);
            }
            None => {
                self.found.taken.remove(&address);
            }
        }
        // The machine is gone, or it was none before our node answered: whoever asked for this very address has it now.
        if in_use && self.ipam.quarantined(address).is_some() {
            self.found.noted.remove(&address);
            let saying = self.pools.iter().filter(|(_, pool)| pool.quarantine(address).is_some());
            let names: Vec<_> = saying.map(|(name, _)| name.clone()).collect();
            for name in names {
                self.held_back_changed(&name);
                self.dirty_pools.insert(name);
            }
        }
    }

    /// Puts in quarantine what was found taken, at `now` in seconds since 1970; who holds it looks for another one.
    pub fn quarantine_found(&mut self, now: i64) {
        for (address, mac) in std::mem::take(&mut self.found.taken) {
            if self.is_of_a_node(mac) {
                continue;
            }
            let Some(name) = self.ipam.pool_of(address).map(str::to_owned) else { continue };
            let Some(pool) = self.pools.get(&name).filter(|pool| pool.has(address)) else { continue };
            let before = pool.quarantine(address);
            if self.found.noted.contains_key(&address) || before.is_some_and(|before| before.until > now) {
                continue;
            }
            let noted = self.found.noted.values().filter(|(of, _)| *of == name).count();
            let others = pool.quarantined.iter().filter(|other| other.is_remembered(now) && other.address != address);
            if others.count() + noted >= QUARANTINED_MAX {
                continue;
            }
            let quarantine = Quarantine::begin(address, mac, now, before);
            self.found.noted.insert(address, (name.clone(), quarantine));
            self.held_back_changed(&name);
            self.dirty_pools.insert(name);
            let holders: Vec<_> = self.ipam.tenants(address).iter().map(|tenant| tenant.service.clone()).collect();
            for key in holders {
                self.mark(&key);
            }
        }
    }

    /// Whether anything was found that [`Self::quarantine_found`] has not looked at.
    pub fn has_found(&self) -> bool {
        !self.found.taken.is_empty()
    }

    /// Whether an address has to be noted as being in quarantine before its Announcement goes.
    pub fn must_quarantine(&self, address: IpAddr) -> bool {
        let pool = self.found.noted.get(&address).and_then(|(name, _)| self.pools.get(name));
        pool.is_some_and(|pool| pool.has(address))
    }

    /// What a pool's status is to say of addresses in quarantine, at `now` in seconds since 1970: what it says and is still of a
    /// meaning, and what was found since. Not one that our nodes answer for.
    pub fn quarantined(&self, name: &str, now: i64) -> Vec<Quarantine> {
        let Some(pool) = self.pools.get(name) else { return Vec::new() };
        let known = pool.quarantined.iter().filter(|known| known.is_remembered(now));
        let new = self.found.noted.values().filter(|(of, _)| of == name).map(|(_, quarantine)| quarantine);
        // What was found later takes the place of what is told of the same address.
        let all: BTreeMap<IpAddr, Quarantine> = known.chain(new).map(|one| (one.address, *one)).collect();
        all.into_values().filter(|one| pool.has(one.address) && !self.is_in_use(one.address)).collect()
    }

    /// What a pool's status says now may be what was noted; the Announcements that stood for it can go.
    pub(super) fn learn_quarantined(&mut self, name: &str) {
        let pool = self.pools.get(name);
        let is_told = |found: &Quarantine| {
            pool.is_none_or(|pool| pool.quarantine(found.address).is_some_and(|told| told.until >= found.until))
        };
        let told: Vec<_> = self.found.noted.extract_if(.., |_, (of, found)| of == name && is_told(found)).collect();
        for (address, _) in told {
            let holders: Vec<_> = self.ipam.tenants(address).iter().map(|tenant| tenant.service.clone()).collect();
            for key in holders {
                self.mark(&key);
            }
        }
    }

    /// Ends the quarantines whose time has passed at `now`, in seconds since 1970. An address that a machine still has, and that somebody
    /// waits for, begins another one.
    pub(super) fn expire_quarantines(&mut self, now: i64) {
        let mut over = Vec::new();
        for (name, pool) in &mut self.pools {
            let ending = |one: &&Quarantine| one.until <= now && !pool.over.contains(&one.address);
            let ending: Vec<_> = pool.quarantined.iter().filter(ending).map(|one| one.address).collect();
            pool.over.extend(ending.iter().copied());
            over.extend(ending.into_iter().map(|address| (name.clone(), address)));
        }
        for (name, address) in over {
            let taken = self.announcement(address).and_then(AnnouncementView::found_taken);
            if let Some(mac) = taken.or_else(|| self.found_by_sweep(address)) {
                self.found.taken.insert(address, mac);
            }
            self.held_back_changed(&name);
            self.dirty_pools.insert(name);
        }
    }

    /// Tells the pools what is in quarantine.
    pub(super) fn spread_quarantined(&mut self) {
        let told = self.pools.values().flat_map(PoolView::in_quarantine);
        let noted = self.found.noted.values().map(|(_, quarantine)| quarantine);
        let all = told.chain(noted).filter(|one| !self.is_in_use(one.address)).map(|one| (one.address, *one));
        let all = all.collect();
        self.ipam.set_quarantined(all);
    }

    /// What a pool holds back for now, and until when: what cools down and what is in quarantine.
    pub(super) fn held_back(&self, name: &str) -> Vec<(IpRange, i64)> {
        let Some(pool) = self.pools.get(name) else { return Vec::new() };
        let noted = self.found.noted.values().filter(|(of, _)| of == name).map(|(_, quarantine)| quarantine);
        let quarantined = pool.in_quarantine().chain(noted).filter(|one| !self.is_in_use(one.address));
        let quarantined = quarantined.filter_map(|one| Some((IpRange::new(one.address, one.address)?, one.until)));
        pool.cooling.iter().copied().chain(quarantined).collect()
    }

    /// Whether a node of ours said that it answers.
    fn is_in_use(&self, address: IpAddr) -> bool {
        self.announcement(address).is_some_and(|view| view.claimed.is_some())
    }

    /// When the next quarantine ends, in seconds since 1970.
    pub(super) fn next_quarantine_end(&self) -> Option<i64> {
        self.pools.values().flat_map(PoolView::in_quarantine).map(|one| one.until).min()
    }
}
