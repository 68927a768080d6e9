//! Addresses that were released and are given to nobody yet.

use std::collections::btree_map::Entry;
use std::net::IpAddr;

use berth_api::IpFamily;
use berth_api::pool::IpRange;

use super::turns::Turn;
use super::{Judge, World};
use crate::cooldown;

impl World {
    /// Whether an address has to be noted as cooling down before its Announcement goes: its pool wishes it, still has it, and its
    /// status does not say so yet. `now` is in seconds since 1970.
    pub fn must_cool(&self, address: IpAddr, now: i64) -> bool {
        let pool = self.ipam.pool_of(address).and_then(|pool| self.pools.get(pool));
        pool.is_some_and(|pool| {
            let has = pool.addresses.as_ref().is_ok_and(|addresses| addresses.contains(address));
            // Whoever led before may have noted it; what ends no earlier need not be told again.
            let until = self.to_cool.get(&address).copied().unwrap_or_else(|| cooldown::until(now, pool.cool_down));
            let is_told = pool.cooling.iter().any(|(range, told)| range.contains(address) && *told >= until);
            pool.cool_down > 0 && has && !is_told
        })
    }

    /// Notes that an address is to cool down, from `now` on, in seconds since 1970.
    pub fn cool(&mut self, address: IpAddr, now: i64) {
        let Some(name) = self.ipam.pool_of(address).map(str::to_owned) else { return };
        let Some(seconds) = self.pools.get(&name).map(|pool| pool.cool_down) else { return };
        if let Entry::Vacant(vacant) = self.to_cool.entry(address) {
            vacant.insert(cooldown::until(now, seconds));
            self.dirty_pools.insert(name);
        }
    }

    /// Notes that an address stays with its Service after all.
    pub fn warm(&mut self, address: IpAddr) {
        self.to_cool.remove(&address);
    }

    /// What a pool's status is to say of addresses that cool down, at `now` in seconds since 1970: what it says, has not passed, and
    /// is not held again, and what is to cool down.
    pub fn cooling(&self, name: &str, now: i64) -> Vec<(IpRange, i64)> {
        let Some(pool) = self.pools.get(name) else { return Vec::new() };
        let known: Vec<_> = pool.cooling.iter().filter(|(_, until)| *until > now).copied().collect();
        let held = known.iter().flat_map(|(range, _)| self.ipam.held_within(*range));
        let held: Vec<_> = held.filter(|address| !self.to_cool.contains_key(address)).collect();
        let mine = |(address, _): &(&IpAddr, &i64)| self.ipam.pool_of(**address) == Some(name);
        let new = self.to_cool.iter().filter(mine);
        let new = new.filter_map(|(address, until)| Some((IpRange::new(*address, *address)?, *until)));
        cooldown::merged(known.iter().copied().chain(new), held)
    }

    /// When the next address that is held back may be given again, in seconds since 1970.
    pub fn next_cooled(&self) -> Option<i64> {
        self.next_cooled
    }

    /// Frees what has cooled down at `now`, in seconds since 1970, and what was in quarantine until then.
    pub fn expire(&mut self, now: i64) {
        let mut changed = Vec::new();
        for (name, pool) in &mut self.pools {
            if pool.cooling.extract_if(.., |(_, until)| *until <= now).count() > 0 {
                changed.push(name.clone());
            }
        }
        for name in changed {
            self.held_back_changed(&name);
            self.dirty_pools.insert(name);
        }
        self.expire_quarantines(now);
    }

    /// What a pool holds back for now has changed: as many as it has free addresses since get a turn, and whoever waits for one of them.
    pub(super) fn held_back_changed(&mut self, name: &str) {
        let cooled = self.pools.values().flat_map(|pool| &pool.cooling).map(|(_, until)| *until);
        self.next_cooled = cooled.chain(self.next_quarantine_end()).min();
        self.spread_quarantined();
        // Pools that are still to be judged are by what they say then, and whoever waits is told.
        if self.due.judge == Judge::Yes {
            return;
        }
        let held_back = self.held_back(name);
        let freed = self.ipam.set_cooling(name, held_back);
        for range in freed.ranges() {
            let waiting_on: Vec<_> = self.waiting_on.range(range.first()..=range.last()).map(|(a, _)| *a).collect();
            for address in waiting_on {
                self.tell_waiting_on(address);
            }
        }
        for family in IpFamily::ALL {
            let many = usize::try_from(freed.size(family)).unwrap_or(usize::MAX);
            let has_none =
                |turn: &&Turn| !self.offered.get(&turn.key).is_some_and(|families| families.contains(&family));
            let first: Vec<_> = self.waiting_for.get(family).iter().filter(has_none).take(many).cloned().collect();
            for turn in first {
                self.offered.entry(turn.key.clone()).or_default().insert(family);
                self.mark(&turn.key);
            }
        }
    }
}
