//! Serve before announce: a node that is named as owner answers when something shows that it forwards what comes for the address.
//!
//! It waits only where nobody is without the address meanwhile: before the first use, and while the former owner goes on. Nothing that is
//! taken over, resumed or cared for waits.

use std::net::IpAddr;
use std::time::Duration;

use berth_api::Reason;

use super::{Machine, Timer};
use crate::effect::Effect;
use crate::input::Evidence;
use crate::liveness::{Liveness, Session};
use crate::takeover::{Ownership, Phase, Place, Serves, Verifying};
use crate::timing::SERVE_WAIT;

impl Machine {
    /// Has the driver look while the wire is being asked, for an address that this node was just named for. What another machine has is
    /// not looked for: that would be done again and again, and its owner may well answer.
    pub(super) fn seek_early(&mut self, address: IpAddr) {
        let Some(place) = self.places.get_mut(&address) else { return };
        place.serves = Serves::Unasked;
        if self.places.get(&address).is_some_and(|place| place.rare().foreign.is_none() && self.may_wait(place)) {
            self.seek(address);
        }
    }

    fn seek(&mut self, address: IpAddr) {
        let Some(place) = self.places.get_mut(&address) else { return };
        if let (Serves::Unasked, Some(sought)) = (place.serves, place.assignment.sought) {
            place.serves = Serves::Asked;
            let interface = place.me.interface.clone();
            self.effects.push_back(Effect::SeekEvidence { address, interface, sought });
        }
    }

    /// Until when this node waits before it answers; not at all (`None`) where it need not.
    pub(super) fn awaits_evidence(&mut self, address: IpAddr) -> Option<Duration> {
        let place = self.places.get(&address)?;
        if place.assignment.sought.is_none() || place.serves == Serves::Yes || !self.may_wait(place) {
            return None;
        }
        self.seek(address);
        let until = self.now + SERVE_WAIT;
        match &mut self.places.get_mut(&address)?.phase {
            Phase::Verifying(Verifying { serve_by, .. }) => Some(*serve_by.get_or_insert(until)),
            _ => None,
        }
    }

    /// Looks at once whether this node may go on waiting: the one that answered meanwhile may have gone.
    pub(super) fn look_at_wait(&mut self, address: IpAddr) {
        let Some(place) = self.places.get(&address) else { return };
        if matches!(place.phase, Phase::Verifying(Verifying { serve_by: Some(_), .. })) {
            self.timers.set(Timer::Step(address), Some(self.now));
        }
    }

    /// Looks again where nothing showed yet that this node serves, because what would show it is another now, or there are endpoints.
    pub(super) fn seek_again(&mut self, address: IpAddr, before: (Option<Evidence>, bool)) {
        let Some(place) = self.places.get_mut(&address) else { return };
        let Phase::Answering(ownership @ Ownership { cause: Reason::NotServing, .. }) = &mut place.phase else {
            return;
        };
        if (place.assignment.sought, place.assignment.serving) == before {
            return;
        }
        if place.assignment.sought.is_none() {
            ownership.cause = Reason::Answering;
            return self.report(address);
        }
        place.serves = Serves::Unasked;
        self.seek(address);
    }

    /// Whether nobody is without the address while this node waits.
    fn may_wait(&self, place: &Place) -> bool {
        if !matches!(place.phase, Phase::Verifying(Verifying { resume: None, .. })) {
            return false;
        }
        let answers =
            |session: &Session| session.liveness == Liveness::Up && session.heard.epoch(place.address()).is_some();
        let is_answered = || place.peers.iter().any(|peer| self.sessions.get(&peer.id).is_some_and(answers));
        match &place.assignment.claimed {
            // This node itself answered, before its process ended.
            Some(claimed) if claimed.node == self.node => false,
            Some(_) => is_answered(),
            None => place.seen.is_none() || is_answered(),
        }
    }

    pub(super) fn on_evidence(&mut self, address: IpAddr) {
        let Some(place) = self.places.get_mut(&address) else { return };
        place.serves = Serves::Yes;
        match &mut place.phase {
            Phase::Verifying(Verifying { serve_by: Some(_), .. }) => {
                self.timers.set(Timer::Step(address), Some(self.now));
            }
            Phase::Answering(ownership @ Ownership { cause: Reason::NotServing, .. }) => {
                ownership.cause = Reason::Answering;
                self.report(address);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
