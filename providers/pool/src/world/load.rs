//! What each node owns: as the Announcements say, but for what is about to be written.

use std::net::IpAddr;

use berth_api::crd::Layer2Assignment;
use berth_api::names::announcement_name;

use super::World;
use crate::placement::Load;
use crate::view::Assignment;

impl World {
    /// Notes who is about to be named for an address, before that is written: it counts at once, so that what is planned meanwhile goes
    /// elsewhere.
    pub fn foresee(&mut self, address: IpAddr, layer2: Option<&Layer2Assignment>) {
        self.recount(address, |world| {
            match layer2 {
                Some(layer2) => world.foreseen.insert(address, Assignment::of(layer2)),
                None => world.foreseen.remove(&address),
            };
        });
    }

    /// Notes that this was written or failed: what its Announcement says counts again.
    pub fn unforesee(&mut self, address: IpAddr) {
        self.foresee(address, None);
    }

    /// Notes that nothing is being written any more.
    pub fn unforesee_all(&mut self) {
        for address in self.foreseen.keys().copied().collect::<Vec<_>>() {
            self.unforesee(address);
        }
    }

    /// Makes a change to who is named for an address, and counts it as it is then.
    pub(super) fn recount(&mut self, address: IpAddr, change: impl FnOnce(&mut Self)) {
        let counted = |world: &Self| {
            let known = || world.announcements.get(&announcement_name(address))?.layer2.clone();
            world.foreseen.get(&address).cloned().or_else(known)
        };
        let before = counted(self);
        change(self);
        let after = counted(self);
        if before == after {
            return;
        }
        if let Some(seat) = before.as_ref().and_then(Assignment::seat) {
            self.load.remove(seat);
        }
        if let Some(seat) = after.as_ref().and_then(Assignment::seat) {
            self.load.add(seat);
        }
    }

    /// How many addresses each node owns.
    pub fn load(&self) -> &Load {
        &self.load
    }
}
