//! Who answers: watching the owner, asking the wire, claiming and yielding.

use std::net::IpAddr;
use std::time::Duration;

use berth_api::Reason;

use super::{Machine, Timer};
use crate::broken::{Rule, is_broken};
use crate::claims::{Held, Known};
use crate::effect::Effect;
use crate::input::OwnerClaim;
use crate::liveness::{Liveness, PeerId, Session};
use crate::schedule::Schedule;
use crate::takeover::{Answered, Ownership, Peer, Phase, Place, Probe, Verifying, Word};
use crate::timing::{
    DETECTION_TIME, IDLE_OWNER_WAIT, PROBE_COUNT, PROBE_LATE, PROBE_SPACING, ROUNDS_LISTING, ROUNDS_MAX, WORD_HOLD,
    WORD_HOLD_MAX,
};

impl Machine {
    /// Brings an address in line with who is to answer for it.
    pub(super) fn settle(&mut self, address: IpAddr) {
        let stopping = self.stopping.is_some();
        let Some(place) = self.places.get_mut(&address) else { return };
        let mine = place.is_mine() && !stopping;
        match &mut place.phase {
            Phase::Answering(ownership) => {
                // The API may raise the number of what this node holds; nobody else is concerned.
                if let Some(top) = place.top.as_ref().filter(|top| mine && top.epoch > ownership.epoch) {
                    ownership.epoch = top.epoch;
                    self.tell_all(address);
                    self.report(address);
                }
            }
            // Going on where it was is decided by claims, not by assignments.
            Phase::Verifying(Verifying { resume: Some(_), .. }) if !stopping => {}
            Phase::Verifying(_) | Phase::Conflicted if !mine => self.stand_by(address),
            Phase::Caring(_) if mine => {
                self.stand_by(address);
                self.verify(address, None);
            }
            // Who was named in the owner's place answers first, or says in the Announcement that it does.
            Phase::Caring(care) => {
                let claimed = place.assignment.claimed.as_ref().filter(|claimed| claimed.node != care.claim.node);
                if stopping || claimed.is_some_and(|claimed| claimed.beats(&care.claim)) {
                    self.stand_by(address);
                }
            }
            Phase::Standby | Phase::Probing(_) if mine => self.verify(address, None),
            Phase::Probing(_) if stopping => self.stand_by(address),
            Phase::Standby => self.watch_top(address),
            Phase::Probing(_) | Phase::Verifying(_) | Phase::Conflicted => {}
        }
    }

    /// A node says itself that it answers.
    pub(super) fn on_claim(&mut self, address: IpAddr, claim: OwnerClaim, from: PeerId) {
        let Some(place) = self.places.get_mut(&address) else { return };
        if place.peer(&claim.node).is_none_or(|peer| peer.id != from) {
            return;
        }
        let right = place.right();
        let prevails = place.hear(self.now, &claim);
        let loses = right.is_some_and(|right| claim.beats(&right));
        // A claim that does not prevail over this node's, or over one that was heard before, is made by one that does not know. Whoever
        // holds the higher number may not be there to say so itself.
        let is_behind = Some(claim.epoch) < place.seen || place.top.as_ref().is_some_and(|top| top.beats(&claim));
        let unaware = !loses && (matches!(place.phase, Phase::Answering(_)) || is_behind);
        if prevails {
            self.pass_on(address, &claim);
        }
        self.owner_is_back(address, from);
        let Some(place) = self.places.get_mut(&address) else { return };
        match &place.phase {
            Phase::Answering(_) | Phase::Verifying(_) if loses => self.stand_by(address),
            Phase::Verifying(verifying) => {
                if verifying.answered == Some(Answered::Peer(from)) && verifying.trusts_claims() {
                    self.verified(address, true);
                }
            }
            Phase::Probing(_) | Phase::Conflicted if prevails => self.stand_by(address),
            Phase::Caring(care) if claim.node != care.claim.node && claim.beats(&care.claim) => self.stand_by(address),
            Phase::Standby => self.watch_top(address),
            Phase::Answering(_) | Phase::Probing(_) | Phase::Conflicted | Phase::Caring(_) => {}
        }
        if unaware {
            self.repeat(address, from);
        }
    }

    /// Lets a partner know what it seems not to know.
    fn repeat(&mut self, address: IpAddr, id: PeerId) {
        let known = self.places.get(&address).map(|place| place.known()).filter(|known| known.epoch > 0);
        if is_broken(Rule::PassesOn) {
            return;
        }
        if let (Some(known), Some(session)) = (known, self.sessions.get_mut(&id)) {
            session.told.repeat(address, known);
            session.outdated.insert(address);
            self.urgent.insert(id);
        }
    }

    /// A partner knows that this number was claimed, though not by itself.
    pub(super) fn on_claim_known(&mut self, address: IpAddr, known: Known, from: PeerId) {
        let Known { epoch, holder } = known;
        // A partner that forgot everything says 0, for nothing.
        let Some(place) = self.places.get_mut(&address).filter(|_| epoch > 0) else { return };
        place.seen = place.seen.max(Some(epoch));
        let holder = holder.and_then(|tag| place.peers.iter().find(|peer| peer.node.tag() == tag));
        let claim = holder.map(|peer| OwnerClaim { node: peer.node.clone(), epoch });
        if let Some(claim) = &claim {
            place.hear(self.now, claim);
        }
        if let Phase::Answering(ownership) = &place.phase
            && (ownership.epoch < epoch
                || claim.is_some_and(|claim| place.right().is_some_and(|right| claim.beats(&right))))
        {
            // This node was replaced without noticing: whoever did it may be there still, or be gone. The wire knows, or who told it.
            let ownership = ownership.clone();
            self.verify(address, Some(ownership));
            if let Some(session) = self.sessions.get_mut(&from) {
                session.ask_sightings = true;
                self.urgent.insert(from);
            }
        } else {
            self.watch_top(address);
        }
    }

    /// The Announcement's status says that another node answers.
    pub(super) fn on_claim_written(&mut self, address: IpAddr, claim: &OwnerClaim) {
        let Some(place) = self.places.get_mut(&address) else { return };
        let Some(id) = place.peer(&claim.node).map(|peer| peer.id) else { return };
        if !place.right().is_some_and(|right| claim.beats(&right)) {
            return;
        }
        place.hear(self.now, claim);
        let is_heard = self.sessions.get(&id).is_some_and(|session| session.liveness == Liveness::Up);
        if !is_heard && matches!(place.phase, Phase::Answering(_) | Phase::Verifying(_)) {
            let before = place.rare().word.as_ref().filter(|word| word.node == claim.node);
            let hold = before.map_or(WORD_HOLD, |word| (word.hold * 2).min(WORD_HOLD_MAX));
            let word = Word { node: claim.node.clone(), hold, until: self.now + hold };
            place.change_rare(|rare| rare.word = Some(word));
        }
        self.stand_by(address);
    }

    /// A partner that was to answer says that it does not: it gets its time again.
    pub(super) fn on_claim_dropped(&mut self, address: IpAddr, from: PeerId) {
        let Some(place) = self.places.get_mut(&address) else { return };
        if let Some(top) = &place.top
            && place.peer(&top.node).is_some_and(|peer| peer.id == from)
        {
            place.watch_since = self.now;
        }
        self.watch_top(address);
        self.look_at_wait(address);
    }

    /// Silent from now on; says so if this node answered before.
    pub(super) fn stand_by(&mut self, address: IpAddr) {
        let Some(place) = self.places.get_mut(&address) else { return };
        let phase = std::mem::replace(&mut place.phase, Phase::Standby);
        self.timers.set(Timer::Step(address), None);
        self.timers.set(Timer::Announce(address), None);
        let (seen, to) =
            (place.seen.unwrap_or(0), place.top.as_ref().map(|top| top.node.clone()).filter(|node| *node != self.node));
        let has_part = place.candidates().any(|node| *node == self.node);
        match &phase {
            Phase::Answering(_) | Phase::Verifying(Verifying { resume: Some(_), .. }) => {
                self.counters.yields += 1;
                self.effects.push_back(Effect::Yielded { address, to, epoch: seen });
                self.tell_dropped(address);
            }
            Phase::Caring(care) => {
                self.counters.care_ends += 1;
                self.retract_care(address, care);
                self.tell_dropped(address);
            }
            // What it said of a conflict is for the one to say that is named now.
            Phase::Conflicted | Phase::Verifying(_) if place.rare().named.is_some() => {
                place.change_rare(|rare| rare.named = None);
                self.effects.push_back(Effect::Yielded { address, to, epoch: seen });
            }
            _ => return self.watch_top(address),
        }
        if has_part {
            self.watch_top(address);
        } else {
            self.remove_place(address);
        }
    }

    /// Sets the time of the next step of a standby.
    pub(super) fn watch_top(&mut self, address: IpAddr) {
        if let Some(place) = self.places.get(&address)
            && place.phase == Phase::Standby
        {
            let due = self.takeover_due(place);
            let top = place.top.as_ref().and_then(|top| place.peer(&top.node)).map(|peer| peer.id);
            self.timers.set(Timer::Step(address), due);
            // Whether it lives is known when it is its turn.
            if let Some(id) = top.filter(|_| due.is_some())
                && self.sessions.get(&id).is_some_and(|session| session.liveness == Liveness::Silent)
            {
                self.begin_check(id);
            }
        }
    }

    /// When this node is to act in place of the one that should answer, as far as is known now.
    fn takeover_due(&self, place: &Place) -> Option<Duration> {
        if self.stopping.is_some() || place.is_mine() || !self.up.contains(&place.me.interface) {
            return None;
        }
        let top = place.top.as_ref()?;
        let ahead = place.ahead()?;
        if self.is_cared_for(place) {
            return None;
        }
        let session = place.peer(&top.node).and_then(|peer| self.sessions.get(&peer.id));
        let from = match session {
            None => place.watch_since + DETECTION_TIME,
            Some(session) => match (session.stopping, session.liveness) {
                (Some(since), _) => since.max(place.watch_since),
                (None, Liveness::Silent) => {
                    let silent = place.watch_since.max(session.last_heard) + session.detection();
                    session.sighted_until().map_or(silent, |heard| silent.max(heard))
                }
                (None, Liveness::Up) if session.heard.epoch(place.address()).is_none() => {
                    place.watch_since.max(session.up_since).max(session.claimed_at) + IDLE_OWNER_WAIT
                }
                // Its silence, if it comes, is an event of its own.
                (None, Liveness::Waiting | Liveness::Up) => return None,
            },
        };
        // Those ahead that can act get one detection time each.
        let able = |peer: &Peer| self.sessions.get(&peer.id).is_some_and(Session::is_able);
        let rank = ahead.into_iter().filter(|node| place.peer(node).is_some_and(able)).count() as u32;
        let word =
            place.rare().word.as_ref().filter(|word| word.node == top.node).map_or(Duration::ZERO, |word| word.until);
        Some((from + DETECTION_TIME * rank).max(place.hold_until).max(word))
    }

    /// Whether the node that answers wants to be replaced, so that its own answer is no objection.
    pub(super) fn is_handed_over(&self, place: &Place) -> bool {
        let session =
            place.top.as_ref().and_then(|top| place.peer(&top.node)).and_then(|peer| self.sessions.get(&peer.id));
        session.is_some_and(|session| {
            session.stopping.is_some()
                && session.liveness == Liveness::Up
                && session.heard.epoch(place.address()).is_some()
        })
    }

    /// A step of an address is due.
    pub(super) fn on_step(&mut self, due: Duration, address: IpAddr) {
        let Some(place) = self.places.get(&address) else { return };
        match &place.phase {
            Phase::Standby => match self.takeover_due(place) {
                Some(at) if at <= self.now && self.is_handed_over(place) => self.relieve(address),
                Some(at) if at <= self.now && is_broken(Rule::AsksTheWire) => self.relieve(address),
                Some(at) if at <= self.now => {
                    self.ask_others_about_top(address);
                    let probe = self.begin_probe(address);
                    self.set_phase(address, Phase::Probing(probe));
                }
                later => self.timers.set(Timer::Step(address), later),
            },
            Phase::Probing(probe) => {
                if let Some(probe) = self.next_probe(due, address, *probe) {
                    self.set_phase(address, Phase::Probing(probe));
                } else {
                    self.unanswered(address);
                }
            }
            Phase::Verifying(verifying) => {
                let mut verifying = verifying.clone();
                let next = if verifying.answered.take().is_some() {
                    verifying.rounds += 1;
                    Some(self.begin_probe(address))
                } else {
                    self.next_probe(due, address, verifying.probe)
                };
                if let Some(probe) = next {
                    self.set_phase(address, Phase::Verifying(Verifying { probe, ..verifying }));
                } else {
                    self.verified(address, false);
                }
            }
            Phase::Conflicted => self.verify(address, None),
            Phase::Caring(_) => self.on_care_step(due, address),
            Phase::Answering(_) => {}
        }
    }

    /// Does what the node that should answer cannot do: in its place if it lives, else from here.
    fn relieve(&mut self, address: IpAddr) {
        let stops = self.places.get(&address).is_some_and(|place| self.is_handed_over(place));
        if (stops || self.can_be_cared_for(address)) && !is_broken(Rule::CaresForTheLiving) {
            self.care(address);
        } else {
            self.take_over(address);
        }
    }

    pub(super) fn set_phase(&mut self, address: IpAddr, phase: Phase) {
        if let Some(place) = self.places.get_mut(&address) {
            place.phase = phase;
        }
    }

    /// The next probe, or `None` when all were sent and waited for.
    pub(super) fn next_probe(&mut self, due: Duration, address: IpAddr, probe: Probe) -> Option<Probe> {
        if probe.sent > 0 && self.now > due + PROBE_LATE {
            return Some(self.begin_probe(address));
        }
        if probe.sent >= PROBE_COUNT {
            return None;
        }
        self.send_probe(address);
        let probe = Probe { sent: probe.sent + 1, due: self.now + PROBE_SPACING };
        self.timers.set(Timer::Step(address), Some(probe.due));
        Some(probe)
    }

    /// Nobody answered for a silent owner's address.
    fn unanswered(&mut self, address: IpAddr) {
        self.set_phase(address, Phase::Standby);
        let due = self.places.get(&address).and_then(|place| self.takeover_due(place));
        if due.is_some_and(|due| due <= self.now) {
            return self.relieve(address);
        }
        // Another partner hears it.
        let top = self.places.get(&address).and_then(|place| place.peer(&place.top.as_ref()?.node)).map(|peer| peer.id);
        let is_heard = |id: &PeerId| {
            let session = self.sessions.get(id).filter(|session| session.liveness == Liveness::Silent);
            session.and_then(Session::sighted_until).is_some_and(|until| until > self.now)
        };
        if let Some(id) = top.filter(is_heard) {
            self.false_alarm(id);
        }
        self.watch_top(address);
    }

    pub(super) fn take_over(&mut self, address: IpAddr) {
        if let Some(place) = self.places.get(&address) {
            let epoch = place.next_epoch();
            let top = place.top.as_ref().and_then(|top| place.peer(&top.node));
            if let Some(session) = top.and_then(|peer| self.sessions.get(&peer.id)) {
                let silent_for = self.now.saturating_sub(session.last_heard);
                self.effects.push_back(Effect::TookOver { silent_for });
            }
            self.counters.takeovers += 1;
            self.claim(address, epoch, Reason::TookOver);
        }
    }

    /// Somebody of ours has the address: no takeover for a while.
    pub(super) fn hold_back(&mut self, address: IpAddr, time: Duration) {
        if let Some(place) = self.places.get_mut(&address) {
            place.phase = Phase::Standby;
            place.hold_until = self.now + time;
            self.watch_top(address);
        }
    }

    /// Asks the wire before this node answers.
    pub(super) fn verify(&mut self, address: IpAddr, resume: Option<Ownership>) {
        let resume = resume.map(Box::new);
        self.timers.set(Timer::Announce(address), None);
        let probe = Probe::soon(self.now);
        // Meanwhile it does not answer, and who cares for it goes on.
        if resume.is_some() && !is_broken(Rule::SaysThatItAsks) {
            self.tell_dropped(address);
        }
        // Without a wire the question waits for one.
        self.timers.set(Timer::Step(address), Some(probe.due).filter(|_| !self.is_cut_off(address)));
        let is_new = resume.is_none();
        self.set_phase(
            address,
            Phase::Verifying(Verifying { probe, resume, answered: None, rounds: 0, serve_by: None }),
        );
        if is_new {
            self.seek_early(address);
        }
    }

    /// A node of ours answered the question of this one, which is to answer itself.
    pub(super) fn verifying_answered(&mut self, address: IpAddr, by: Answered) {
        let Some(place) = self.places.get_mut(&address) else { return };
        let Phase::Verifying(verifying) = &place.phase else { return };
        let right = place.right();
        let trusts = verifying.trusts_claims();
        let peer = match by {
            Answered::Peer(id) => place.peers.iter().find(|peer| peer.id == id),
            Answered::Node => None,
        };
        let heard = peer.and_then(|peer| self.sessions.get(&peer.id)?.heard.epoch(address));
        let listing = peer.and_then(|peer| self.sessions.get(&peer.id));
        let listing = listing.is_some_and(|session| session.liveness == Liveness::Up && session.heard.asking());
        let rounds_max = if listing { ROUNDS_LISTING } else { ROUNDS_MAX };
        let written = place.assignment.claimed.as_ref();
        let known = peer.and_then(|peer| {
            let written = written.filter(|claim| claim.node == peer.node).map(|claim| claim.epoch);
            Some(OwnerClaim { node: peer.node.clone(), epoch: heard.or(written)? })
        });
        match known {
            Some(claim) if right.is_some_and(|right| claim.beats(&right)) => {
                place.hear(self.now, &claim);
                self.stand_by(address);
            }
            Some(_) if trusts => self.verified(address, true),
            None if verifying.rounds >= rounds_max => self.verified(address, true),
            _ => {
                if let Phase::Verifying(verifying) = &mut place.phase
                    && verifying.answered.replace(by).is_none()
                {
                    self.timers.set(Timer::Step(address), Some(self.now + DETECTION_TIME));
                }
                if let Answered::Peer(id) = by {
                    self.ask(id);
                }
            }
        }
    }

    /// Nothing speaks against answering. `from_peer` says that another node of ours still does, which hears of it now.
    fn verified(&mut self, address: IpAddr, from_peer: bool) {
        let Some(place) = self.places.get(&address) else { return };
        if !matches!(place.phase, Phase::Verifying(_)) {
            return;
        }
        // A claim that prevails, and was passed on by another partner, stands as long as its node is heard by somebody.
        let passed_on = place.top.clone().filter(|top| place.right().is_some_and(|right| top.beats(&right)));
        if passed_on.is_some_and(|top| self.is_heard_by_somebody(address, &top)) {
            return self.stand_by(address);
        }
        let Some(place) = self.places.get_mut(&address) else { return };
        let Phase::Verifying(verifying) = &place.phase else { return };
        let intended = place.intended();
        if let Some(ownership) = verifying.resume.clone().filter(|ownership| ownership.epoch == intended) {
            let schedule = Schedule::once(self.now);
            place.phase = Phase::Answering(Ownership { schedule, ..*ownership });
            self.timers.set(Timer::Step(address), None);
            self.tell_all(address);
            self.announce(address);
            self.settle(address);
            return;
        }
        let other = place.assignment.claimed.as_ref().is_some_and(|claimed| claimed.node != self.node);
        let cause = if from_peer || other { Reason::OwnerChanged } else { Reason::Answering };
        let cause = match self.awaits_evidence(address) {
            Some(until) if until > self.now => return self.timers.set(Timer::Step(address), Some(until)),
            Some(_) if self.places.get(&address).is_some_and(|place| place.assignment.serving) => Reason::NotServing,
            // Without endpoints there is nothing to see, and the Service itself says so.
            Some(_) | None => cause,
        };
        self.claim(address, intended, cause);
    }

    /// Whether somebody hears the node that made a claim, and it did not take the claim back.
    fn is_heard_by_somebody(&self, address: IpAddr, claim: &OwnerClaim) -> bool {
        let peer = self.places.get(&address).and_then(|place| place.peer(&claim.node));
        peer.and_then(|peer| self.sessions.get(&peer.id)).is_some_and(|session| match session.liveness {
            Liveness::Up => session.heard.epoch(address) == Some(claim.epoch),
            Liveness::Silent | Liveness::Waiting => session.sighted_until().is_some_and(|until| until > self.now),
        })
    }

    /// Answers from now on, and lets everybody know.
    fn claim(&mut self, address: IpAddr, epoch: u64, cause: Reason) {
        let Some(place) = self.places.get_mut(&address) else { return };
        let schedule = Schedule::full(self.now);
        if place.seen.is_none() {
            // Before its first use only an address that nobody has is claimed.
            place.change_rare(|rare| (rare.foreign, rare.named) = (None, None));
        }
        self.counters.care_ends += u64::from(matches!(place.phase, Phase::Caring(_)));
        place.phase = Phase::Answering(Ownership { epoch, since: self.now, cause, schedule });
        place.seen = place.seen.max(Some(epoch));
        place.watch(self.now, OwnerClaim { node: self.node.clone(), epoch });
        self.timers.set(Timer::Step(address), None);
        self.announce(address);
        self.tell_all(address);
        self.report(address);
    }

    /// Tells every partner with a part in the address what is claimed for it.
    fn tell_all(&mut self, address: IpAddr) {
        let Some(place) = self.places.get(&address) else { return };
        let Phase::Answering(ownership) = &place.phase else { return };
        for peer in place.peers.iter() {
            if let Some(session) = self.sessions.get_mut(&peer.id) {
                session.told.hold(address, Held { epoch: ownership.epoch, cares: false });
                self.urgent.insert(peer.id);
            }
        }
    }
}
