//! What a silence means: whether the partner's node lives, and whether anybody else hears the partner.

use std::net::IpAddr;
use std::time::Duration;

use berth_wire::heartbeat::{Body, Sighting};
use berth_wire::neighbor::Frame;

use super::{Machine, Timer};
use crate::broken::{Rule, is_broken};
use crate::effect::Effect;
use crate::liveness::{Check, Liveness, PeerId};
use crate::takeover::Phase;
use crate::timing::{CHECK_INTERVAL, CHECK_MISSES, CHECK_RARELY, DETECTION_TIME, PROBE_COUNT, PROBE_SPACING};

impl Machine {
    pub(super) fn on_silence(&mut self, id: PeerId) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        session.fell_silent();
        let shared: Vec<IpAddr> = session.shared().collect();
        self.begin_check(id);
        // Its own addresses have lost their owner; in the line for others, those behind it move up.
        for address in shared {
            self.watch_top(address);
            self.look_at_wait(address);
        }
    }

    /// Asks a partner's node whether it lives, from now on, if it is not being asked.
    pub(super) fn begin_check(&mut self, id: PeerId) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        if self.checked.insert(id) {
            session.check = Some(Check::default());
            self.on_check(id);
        }
    }

    /// The next question is due.
    pub(super) fn on_check(&mut self, id: PeerId) {
        let matters = self.matters(id);
        let own = self.own_place_beside(id);
        let now = self.now;
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let Some(check) = session.check.as_mut().filter(|_| matters) else { return self.end_check(id) };
        let question = own.and_then(|(mac, own)| Frame::check(mac, own, session.address, session.mac));
        check.asked += 1;
        check.unanswered += 1;
        let check = *check;
        let heard_elsewhere = session.sighted_until().is_some_and(|until| until > now);
        let (interface, address) = (session.interface.clone(), session.address);
        let is_silent = session.liveness == Liveness::Silent;
        let next = match check.asked {
            asked if asked < PROBE_COUNT => PROBE_SPACING,
            _ if check.lives() || heard_elsewhere || check.unanswered < CHECK_MISSES * 2 => CHECK_INTERVAL,
            _ => CHECK_RARELY,
        };
        self.timers.set(Timer::Check(id), Some(now + next));
        if !self.up.contains(&interface) {
            return;
        }
        // One that was cared for and is dead by now.
        if is_silent && check.unanswered >= CHECK_MISSES {
            self.look_again_at_cared(id);
        }
        if let Some(question) = question {
            self.counters.checks.count(address);
            self.send_frame(interface.clone(), question);
        }
        if is_silent && !check.lives() {
            self.ask_others(id, &interface);
        }
    }

    pub(super) fn end_check(&mut self, id: PeerId) {
        self.checked.remove(&id);
        self.timers.set(Timer::Check(id), None);
    }

    /// Whether it matters if this partner lives: it should answer for an address, and does not say that it does.
    fn matters(&self, id: PeerId) -> bool {
        let Some(session) = self.sessions.get(&id) else { return false };
        let is_its_own = |address: IpAddr| {
            self.places.get(&address).is_some_and(|place| {
                place.top.as_ref().is_some_and(|top| top.node == session.node)
                    && matches!(place.phase, Phase::Standby | Phase::Probing(_) | Phase::Caring(_))
            })
        };
        (session.liveness == Liveness::Silent || session.stopping.is_some()) && session.shared().any(is_its_own)
    }

    /// This node's Ethernet and IP address on the link of a partner, of the family that the partner is talked to by.
    fn own_place_beside(&self, id: PeerId) -> Option<(berth_api::MacAddr, IpAddr)> {
        let session = self.sessions.get(&id)?;
        let mut places = session.shared().filter_map(|address| self.places.get(&address));
        let beside = places.find(|place| place.me.address.is_ipv4() == session.address.is_ipv4())?;
        Some((beside.me.mac, beside.me.address))
    }

    /// Asks the other partners on the link whom they hear.
    fn ask_others(&mut self, id: PeerId, interface: &str) {
        for (other, session) in &mut self.sessions {
            if *other != id && session.interface == interface && session.is_able() {
                session.ask_sightings = true;
                self.urgent.insert(*other);
            }
        }
    }

    /// The same about the one that should answer for an address, if it is silent.
    pub(super) fn ask_others_about_top(&mut self, address: IpAddr) {
        let top = self.places.get(&address).and_then(|place| place.peer(&place.top.as_ref()?.node)).map(|peer| peer.id);
        let session = top.and_then(|id| Some((id, self.sessions.get(&id)?)));
        if let Some((id, session)) = session.filter(|(_, session)| session.liveness == Liveness::Silent) {
            let interface = session.interface.clone();
            self.ask_others(id, &interface);
        }
    }

    /// A partner asks whom this node hears.
    pub(super) fn send_sightings(&mut self, id: PeerId) {
        let Some(interface) = self.sessions.get(&id).map(|session| session.interface.clone()) else { return };
        let heard = self.sessions.iter().filter(|(other, session)| {
            **other != id && session.interface == interface && session.liveness == Liveness::Up
        });
        let age = |heard: Duration| u16::try_from(self.now.saturating_sub(heard).as_millis()).unwrap_or(u16::MAX);
        let sightings: Vec<_> =
            heard.map(|(_, session)| Sighting { node: session.tag, age_ms: age(session.last_heard) }).collect();
        self.send(id, vec![Body::Sightings(sightings)]);
    }

    /// A partner says whom it hears.
    pub(super) fn on_sightings(&mut self, interface: &str, sightings: &[Sighting]) {
        if is_broken(Rule::AsksOthers) {
            return;
        }
        for Sighting { node, age_ms } in sightings {
            let at = self.now.saturating_sub(Duration::from_millis(u64::from(*age_ms)));
            for session in self.sessions.values_mut() {
                if session.tag == *node && session.interface == interface {
                    session.was_sighted(at);
                }
            }
        }
    }

    /// A frame of a partner's node, which lives.
    pub(super) fn on_node_seen(&mut self, interface: &str, address: IpAddr, mac: berth_api::MacAddr) {
        for id in &self.checked {
            if let Some(session) = self.sessions.get_mut(id)
                && session.interface == interface
                && session.address == address
                && session.mac == mac
                && let Some(check) = &mut session.check
            {
                check.answered = true;
                check.unanswered = 0;
            }
        }
    }

    /// A partner that is silent here is none: its speaker was heard on the wire, or by another partner.
    pub(super) fn false_alarm(&mut self, id: PeerId) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let before = session.doublings();
        if session.false_alarm(self.now) {
            self.counters.false_alarms += 1;
        }
        if session.doublings() != before {
            self.report_steadiness(id);
        }
    }

    /// Says how far the detection time of a partner is stretched.
    pub(super) fn report_steadiness(&mut self, id: PeerId) {
        let Some(session) = self.sessions.get(&id) else { return };
        self.effects.push_back(Effect::Unsteady {
            partner: session.node.clone(),
            interface: session.interface.clone(),
            doublings: session.doublings(),
        });
    }
}

/// The bound on how late a takeover may come because a partner that is not heard by this node was heard by another one: what `HEARD_LATELY`
/// adds is less than the detection time.
const _: () = assert!(crate::timing::HEARD_LATELY.as_millis() < DETECTION_TIME.as_millis());
