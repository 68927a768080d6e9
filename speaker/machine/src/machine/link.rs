//! What is heard on the link, and what is said there about addresses of ours.

use std::net::IpAddr;

use berth_api::MacAddr;
use berth_wire::neighbor::Frame;

use super::{Machine, Timer};
use crate::liveness::{Liveness, PeerId, Session};
use crate::takeover::{Answered, Origin, Phase, Verifying};
use crate::timing::{CONFLICT_CALM, CONFLICT_RECHECK, DEFEND_INTERVAL, DETECTION_TIME, IDLE_OWNER_WAIT};

impl Machine {
    pub(super) fn on_frame(&mut self, interface: &str, frame: &Frame) {
        if let Some((address, mac)) = frame.claim() {
            if self.is_watched(interface, address) {
                self.on_sighting(address, mac);
            } else if !self.checked.is_empty() {
                self.on_node_seen(interface, address, mac);
            }
        }
        if let Some(address) = frame.question()
            && self.is_watched(interface, address)
        {
            self.on_question(address, frame);
        }
    }

    pub(super) fn on_link(&mut self, interface: &str, up: bool) {
        let changed = if up { self.up.insert(interface.to_owned()) } else { self.up.remove(interface) };
        if !changed {
            return;
        }
        let addresses: Vec<IpAddr> = self.watched_addresses(interface).collect();
        if up {
            let on_it = |(id, session): (&PeerId, &Session)| (session.interface == interface).then_some(*id);
            let sessions: Vec<PeerId> = self.sessions.iter().filter_map(on_it).collect();
            for id in &sessions {
                if let Some(session) = self.sessions.get_mut(id) {
                    session.liveness = Liveness::Waiting;
                    session.check = None;
                }
                self.end_check(*id);
            }
            self.listen_anew(&sessions);
            self.urgent.extend(sessions);
        }
        for address in addresses {
            let Some(place) = self.places.get_mut(&address) else { continue };
            match &place.phase {
                // Nobody hears this node; what it holds shows when somebody does.
                Phase::Answering(_) if !up => {}
                Phase::Conflicted if up => self.verify(address, None),
                _ => {
                    self.ask_anew(address);
                }
            }
        }
    }

    fn is_watched(&self, interface: &str, address: IpAddr) -> bool {
        self.places.get(&address).is_some_and(|place| place.me.interface == interface)
    }

    fn origin(&self, address: IpAddr, mac: MacAddr) -> Origin {
        let Some(place) = self.places.get(&address) else { return Origin::Foreign };
        if mac == place.me.mac {
            return Origin::Own;
        }
        match place.peers.iter().find(|peer| peer.mac == mac) {
            Some(peer) => Origin::Peer(peer.clone()),
            None if self.macs.contains_key(&mac) => Origin::Node,
            None => Origin::Foreign,
        }
    }

    /// Somebody was seen with the address.
    fn on_sighting(&mut self, address: IpAddr, mac: MacAddr) {
        let origin = self.origin(address, mac);
        let Some(place) = self.places.get(&address) else { return };
        let by = match &origin {
            Origin::Own => return,
            Origin::Foreign => return self.on_foreign(address, mac),
            Origin::Peer(peer) => Answered::Peer(peer.id),
            Origin::Node => Answered::Node,
        };
        match &place.phase {
            Phase::Verifying(_) => self.verifying_answered(address, by),
            Phase::Probing(_) if self.makes_way(address, by) => {}
            Phase::Probing(_) => {
                // Silent towards this node, but alive; or not its owner, but another one that took over already.
                let top = place.top.as_ref().and_then(|top| place.peer(&top.node)).map(|peer| peer.id);
                let up = top.is_some_and(|id| self.sessions.get(&id).is_some_and(Session::is_able));
                // What the wire hears of the owner may be said by one that cares for it.
                let is_itself = top.is_some_and(|top| by == Answered::Peer(top)) && !self.is_cared_for(place);
                if let Some(session) = top.filter(|_| is_itself).and_then(|id| self.sessions.get_mut(&id)) {
                    session.was_sighted(self.now);
                }
                if let Some(id) = top.filter(|_| is_itself) {
                    self.false_alarm(id);
                }
                self.hold_back(address, if up { IDLE_OWNER_WAIT } else { DETECTION_TIME });
                self.ask_unless_top(address, by);
            }
            Phase::Standby => {
                // In line behind others, and one of them moved.
                let until = place.hold_until.max(self.now + DETECTION_TIME);
                if let Some(place) = self.places.get_mut(&address) {
                    place.hold_until = until;
                }
                self.watch_top(address);
                self.ask_unless_top(address, by);
            }
            // Two of ours answer: claims decide, not frames.
            Phase::Answering(_) => {
                if let Answered::Peer(id) = by {
                    self.ask(id);
                }
            }
            Phase::Caring(_) => self.on_sighting_while_caring(address, by),
            Phase::Conflicted => {}
        }
    }

    /// Whether somebody seen with the address only waits for the one that it was assigned to, which is silent: it yields to whoever
    /// claims a higher number. One that stands before this node in the line does not have to.
    fn makes_way(&self, address: IpAddr, by: Answered) -> bool {
        let (Some(place), Answered::Peer(id)) = (self.places.get(&address), by) else { return false };
        let (Some(top), Some(peer)) = (&place.top, place.peers.iter().find(|peer| peer.id == id)) else { return false };
        // What it claims is known only while it is heard.
        let Some(session) = self.sessions.get(&id).filter(|session| session.liveness == Liveness::Up) else {
            return false;
        };
        let written =
            place.assignment.claimed.as_ref().filter(|claim| claim.node == peer.node).map(|claim| claim.epoch);
        let claimed = session.heard.epoch(address).or(written);
        peer.node != top.node
            && claimed.is_some_and(|claimed| claimed < top.epoch)
            && place.ahead().is_some_and(|ahead| !ahead.contains(&&peer.node))
    }

    /// A partner that has the address without being known to claim it is asked for its claims.
    pub(super) fn ask_unless_top(&mut self, address: IpAddr, by: Answered) {
        let Some(place) = self.places.get(&address) else { return };
        if let Answered::Peer(id) = by
            && place.top.as_ref().and_then(|top| place.peer(&top.node)).is_none_or(|top| top.id != id)
        {
            self.ask(id);
        }
    }

    /// A machine that is none of our nodes was seen with the address.
    fn on_foreign(&mut self, address: IpAddr, mac: MacAddr) {
        let Some(place) = self.places.get_mut(&address) else { return };
        self.counters.conflicts += 1;
        // Several machines that take turns are said no more often than one is fought.
        let news = place.rare().named.is_none_or(|(named, at)| named != mac && self.now >= at + DEFEND_INTERVAL);
        place.change_rare(|rare| rare.foreign = Some((mac, self.now)));
        self.timers.set(Timer::Calm(address), Some(self.now + CONFLICT_CALM));
        match &mut place.phase {
            // In use by us: never given up for somebody's frame, but defended.
            Phase::Answering(_) => {
                let defend = place.rare().defended.is_none_or(|last| self.now >= last + DEFEND_INTERVAL);
                if defend {
                    place.change_rare(|rare| rare.defended = Some(self.now));
                    self.send_announcement(address);
                }
                if news {
                    self.report(address);
                }
            }
            Phase::Verifying(Verifying { resume: None, .. }) if place.seen.is_none() => {
                place.phase = Phase::Conflicted;
                self.timers.set(Timer::Step(address), Some(self.now + CONFLICT_RECHECK));
                if news {
                    self.report(address);
                }
            }
            Phase::Probing(_) if place.seen.is_none() => self.hold_back(address, CONFLICT_RECHECK),
            Phase::Verifying(_) | Phase::Probing(_) | Phase::Standby | Phase::Conflicted | Phase::Caring(_) => {}
        }
    }

    /// A foreign machine has not been heard for a while.
    pub(super) fn on_calm(&mut self, address: IpAddr) {
        let Some(place) = self.places.get_mut(&address) else { return };
        place.change_rare(|rare| (rare.foreign, rare.named) = (None, None));
        if matches!(place.phase, Phase::Answering(_)) {
            self.report(address);
        }
    }

    /// Somebody asks who has the address.
    fn on_question(&mut self, address: IpAddr, frame: &Frame) {
        let Some(place) = self.places.get(&address) else { return };
        let mac = place.me.mac;
        match &place.phase {
            Phase::Answering(_) if frame.sender_mac() != mac && frame.reaches(mac) => {
                let interface = place.me.interface.clone();
                self.counters.replies.count(address);
                self.send_frame(interface, Frame::reply_to(frame, mac));
            }
            // The owner's node itself finds out best whether anybody else has the address.
            Phase::Caring(care)
                if frame.sender_mac() != care.mac && frame.sender_mac() != mac && frame.reaches(mac) =>
            {
                let (interface, reply) = (place.me.interface.clone(), Frame::reply_for(frame, care.mac, mac));
                self.counters.replies.count(address);
                self.send_frame(interface, reply);
            }
            // Two that both ask before first use get it neither (RFC 5227 section 2.1.1, RFC 4862 section 5.4.3).
            Phase::Verifying(Verifying { resume: None, .. })
                if frame.is_probe()
                    && place.seen.is_none()
                    && self.origin(address, frame.sender_mac()) == Origin::Foreign =>
            {
                self.on_foreign(address, frame.sender_mac());
            }
            // One ahead of this node asks the wire, too: it is about to take over, even if its heartbeats are not heard here. An IPv6
            // address in use is asked for from an own one, which its kernel might also do; a short wait for nothing is the price.
            Phase::Probing(_) if frame.is_probe() || address.is_ipv6() => {
                if let Origin::Peer(peer) = self.origin(address, frame.sender_mac())
                    && place.ahead().is_some_and(|ahead| ahead.contains(&&peer.node))
                {
                    self.hold_back(address, DETECTION_TIME);
                }
            }
            _ => {}
        }
    }

    /// Makes the announcement that is due, and sets the time of the next one.
    pub(super) fn announce(&mut self, address: IpAddr) {
        let Some(place) = self.places.get_mut(&address) else { return };
        let Phase::Answering(ownership) = &mut place.phase else { return };
        // Behind the end of its schedule only a refresh can be due.
        let due = ownership.schedule.next().is_none_or(|at| at <= self.now);
        ownership.schedule.announced(self.now);
        let refreshed = || self.refresh.map(|refresh| refresh.next(address, self.now));
        self.timers.set(Timer::Announce(address), ownership.schedule.next().or_else(refreshed));
        if due {
            self.send_announcement(address);
        }
    }

    fn send_announcement(&mut self, address: IpAddr) {
        let Some(place) = self.places.get(&address) else { return };
        let (interface, mac) = (place.me.interface.clone(), place.me.mac);
        for frame in Frame::announcements(mac, address) {
            self.counters.announcements.count(address);
            self.send_frame(interface.clone(), frame);
        }
    }
}
