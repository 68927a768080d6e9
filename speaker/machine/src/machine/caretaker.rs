//! Answering in place of an owner whose speaker is silent or stops while its node lives: nothing moves, so no connection breaks.
//!
//! The caretaker tells the Ethernet address of the owner's node, and kube-proxy there goes on serving. So two caretakers do no harm, nor does
//! one beside an owner that is back.

use std::net::IpAddr;
use std::ops::Bound;
use std::time::Duration;

use super::{Machine, Timer};
use crate::effect::Effect;
use crate::input::OwnerClaim;
use crate::liveness::{Liveness, PeerId};
use crate::takeover::{Answered, Care, Phase, Place, Probe};
use crate::timing::{CARETAKER_LIMIT, CARETAKER_TOLD_AFTER, CHECK_MISSES, DETECTION_TIME, IDLE_OWNER_WAIT};

impl Machine {
    /// Answers in place of the node that should.
    pub(super) fn care(&mut self, address: IpAddr) {
        let now = self.now;
        let Some(place) = self.places.get_mut(&address) else { return };
        let Some((claim, mac, id)) = place.top.clone().and_then(|claim| {
            let peer = place.peer(&claim.node)?;
            Some((claim, peer.mac, peer.id))
        }) else {
            return;
        };
        // The limit counts for one absence of the owner, however often the care is interrupted.
        let since = match &place.rare().cared {
            Some((before, since)) if *before == claim => *since,
            _ => now,
        };
        let cared = Some((claim.clone(), since));
        place.change_rare(|rare| rare.cared = cared);
        place.phase = Phase::Caring(Box::new(Care { claim, mac, since, reported: false, question: None }));
        let held = place.held();
        self.counters.caretakings += 1;
        self.timers.set(Timer::Step(address), Some(since + CARETAKER_TOLD_AFTER));
        for peer in place.peers.iter() {
            if let (Some(session), Some(held)) = (self.sessions.get_mut(&peer.id), held) {
                session.told.hold(address, held);
                self.urgent.insert(peer.id);
            }
        }
        self.begin_check(id);
    }

    /// A step of an address that is cared for.
    pub(super) fn on_care_step(&mut self, due: Duration, address: IpAddr) {
        let Some(place) = self.places.get_mut(&address) else { return };
        let Phase::Caring(care) = &mut place.phase else { return };
        let (since, claim, question) = (care.since, care.claim.clone(), care.question.take());
        let is_asked = question.is_some();
        // It goes on answering meanwhile: what it says is right as long as the node lives, and does no harm if it is dead.
        let next = match question {
            Some(probe) => self.next_probe(due, address, probe),
            None if self.is_over(address, &claim, since) => Some(self.begin_probe(address)),
            None => None,
        };
        if next.is_some() {
            return self.set_question(address, next);
        }
        if is_asked && self.is_over(address, &claim, since) {
            return self.take_over(address);
        }
        let told = since + CARETAKER_TOLD_AFTER;
        let later = if self.now >= told { since + CARETAKER_LIMIT } else { told };
        let idle = self.is_idle_from(address, &claim);
        self.timers.set(Timer::Step(address), Some(idle.map_or(later, |idle| idle.min(later))));
        if self.now >= told {
            self.report_care(address);
        }
    }

    /// Says in the status that this node cares for an address, once.
    fn report_care(&mut self, address: IpAddr) {
        let Some(Phase::Caring(care)) = self.places.get_mut(&address).map(|place| &mut place.phase) else { return };
        if !std::mem::replace(&mut care.reported, true) {
            self.report(address);
        }
    }

    fn set_question(&mut self, address: IpAddr, question: Option<Probe>) {
        if let Some(Phase::Caring(care)) = self.places.get_mut(&address).map(|place| &mut place.phase) {
            care.question = question;
        }
    }

    /// Whether there is a reason to care no longer: the owner is away for too long, its node is dead, or its speaker is back and does not
    /// want the address.
    fn is_over(&self, address: IpAddr, claim: &OwnerClaim, since: Duration) -> bool {
        let is_idle = self.is_idle_from(address, claim).is_some_and(|from| self.now >= from);
        self.now >= since + CARETAKER_LIMIT || is_idle || self.is_gone(address, claim)
    }

    /// Somebody was seen with an address that is cared for.
    pub(super) fn on_sighting_while_caring(&mut self, address: IpAddr, by: Answered) {
        let Some(place) = self.places.get(&address) else { return };
        let Phase::Caring(care) = &place.phase else { return };
        let owner = place.peer(&care.claim.node).map(|peer| peer.id);
        // Unless another one cares as well, and says the same.
        let asked = care.question.is_some() && !self.is_cared_for(place);
        match owner.filter(|owner| by == Answered::Peer(*owner)) {
            Some(_) if !asked => {}
            // Its speaker answers, although it is not heard.
            Some(owner) => {
                if let Some(session) = self.sessions.get_mut(&owner) {
                    session.was_sighted(self.now);
                }
                self.false_alarm(owner);
                self.stand_by(address);
                self.hold_back(address, DETECTION_TIME);
            }
            // Another node took over: claims say which.
            None => self.ask_unless_top(address, by),
        }
    }

    /// From when on the node that is cared for counts as one that does not want the address: its speaker is back and does not claim it.
    fn is_idle_from(&self, address: IpAddr, claim: &OwnerClaim) -> Option<Duration> {
        let peer = self.places.get(&address)?.peer(&claim.node)?;
        let session = self.sessions.get(&peer.id).filter(|session| session.is_able())?;
        session.heard.epoch(address).is_none().then_some(session.up_since.max(session.claimed_at) + IDLE_OWNER_WAIT)
    }

    /// Whether the node that is cared for is dead.
    fn is_gone(&self, address: IpAddr, claim: &OwnerClaim) -> bool {
        let peer = self.places.get(&address).and_then(|place| place.peer(&claim.node));
        let session = peer.and_then(|peer| self.sessions.get(&peer.id));
        session.is_none_or(|session| {
            session.liveness == Liveness::Silent && session.check.is_some_and(|check| check.unanswered >= CHECK_MISSES)
        })
    }

    /// The node of a partner that is cared for answers no longer.
    pub(super) fn look_again_at_cared(&mut self, id: PeerId) {
        let Some(session) = self.sessions.get(&id) else { return };
        for address in session.shared() {
            let cared = self
                .places
                .get(&address)
                .is_some_and(|place| matches!(&place.phase, Phase::Caring(care) if care.claim.node == session.node && care.question.is_none()));
            if cared {
                self.timers.set(Timer::Step(address), Some(self.now));
            }
        }
    }

    /// The owner is heard again, and says that it answers.
    pub(super) fn owner_is_back(&mut self, address: IpAddr, id: PeerId) {
        let Some(session) = self.sessions.get(&id).filter(|session| session.is_able()) else { return };
        let Some(place) = self.places.get_mut(&address) else { return };
        let claims = session.heard.epoch(address);
        if place
            .rare()
            .cared
            .as_ref()
            .is_some_and(|(claim, _)| claim.node == session.node && claims >= Some(claim.epoch))
        {
            place.change_rare(|rare| rare.cared = None);
        }
        if place.rare().word.as_ref().is_some_and(|word| word.node == session.node) {
            place.change_rare(|rare| rare.word = None);
        }
        let cares = matches!(
            &place.phase,
            Phase::Caring(care) if care.claim.node == session.node && claims >= Some(care.claim.epoch)
        );
        if cares {
            self.stand_by(address);
        } else if matches!(&place.phase, Phase::Caring(care) if care.claim.node == session.node) {
            self.timers.set(Timer::Step(address), Some(self.now));
        }
    }

    /// Whether an able partner answers in place of the node that should.
    pub(super) fn is_cared_for(&self, place: &Place) -> bool {
        let Some(top) = &place.top else { return false };
        place.peers.iter().filter(|peer| peer.node != top.node).any(|peer| {
            let session = self.sessions.get(&peer.id).filter(|session| session.is_able());
            session.is_some_and(|session| session.heard.cares(place.address()) >= Some(top.epoch))
        })
    }

    /// Whether the node that should answer lives although its speaker is silent, so that what it held stays where it is.
    pub(super) fn can_be_cared_for(&self, address: IpAddr) -> bool {
        let Some(place) = self.places.get(&address).filter(|place| place.is_claimed()) else { return false };
        let Some(top) = &place.top else { return false };
        let for_too_long = place
            .rare()
            .cared
            .as_ref()
            .is_some_and(|(claim, since)| claim == top && self.now >= *since + CARETAKER_LIMIT);
        let session = place.peer(&top.node).and_then(|peer| self.sessions.get(&peer.id));
        !for_too_long && session.is_some_and(|session| session.check.is_some_and(crate::liveness::Check::lives))
    }

    /// Whether this node, which is about to stop, has to go on answering until a partner cares for the address.
    pub(super) fn must_wait(&self, address: IpAddr) -> bool {
        let Some(place) = self.places.get(&address) else { return false };
        let Phase::Answering(ownership) = &place.phase else { return false };
        let is_able = |peer: &crate::takeover::Peer| self.sessions.get(&peer.id).filter(|session| session.is_able());
        let candidates = place.candidates().filter_map(|node| place.peer(node)).any(|peer| is_able(peer).is_some());
        let cares = place.peers.iter().filter_map(is_able).any(|s| s.heard.cares(address) >= Some(ownership.epoch));
        candidates && !cares
    }

    /// Whether nothing is left that this node, which is about to stop, has to answer for. Addresses become safe in their order, mostly, so
    /// this looks on where it stood still the last time, and at all of them only in the end.
    pub(super) fn is_everything_safe(&mut self) -> bool {
        let must_wait = |address: &IpAddr| self.must_wait(*address);
        let from = self.safe_up_to.map_or(Bound::Unbounded, Bound::Included);
        let found = self.places.range((from, Bound::Unbounded)).map(|(address, _)| *address).find(must_wait);
        self.safe_up_to = found.or_else(|| self.places.keys().copied().find(must_wait));
        self.safe_up_to.is_none()
    }

    /// A partner cares for an address as well: one is enough, and the first in the line goes on.
    pub(super) fn leave_care_to(&mut self, address: IpAddr, id: PeerId) {
        let Some(place) = self.places.get(&address) else { return };
        let is_ahead = self
            .sessions
            .get(&id)
            .filter(|session| session.is_able())
            .is_some_and(|session| place.ahead().is_some_and(|ahead| ahead.contains(&&session.node)));
        if is_ahead && matches!(place.phase, Phase::Caring(_)) {
            self.stand_by(address);
        }
    }

    /// Nothing of what partners were told of this address is so any more.
    pub(super) fn tell_dropped(&mut self, address: IpAddr) {
        let Some(place) = self.places.get(&address) else { return };
        let known = place.known();
        for peer in place.peers.iter() {
            if let Some(session) = self.sessions.get_mut(&peer.id) {
                session.told.drop(address, known);
            }
        }
    }

    /// Takes back what was said in the status of an address that is cared for no longer.
    pub(super) fn retract_care(&mut self, address: IpAddr, care: &Care) {
        if care.reported {
            let (to, epoch) = (Some(care.claim.node.clone()), care.claim.epoch);
            self.effects.push_back(Effect::Yielded { address, to, epoch });
        }
    }
}
