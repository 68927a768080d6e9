//! What the cluster says: places and sessions come and go.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use berth_api::{MacAddr, Reason};
use berth_wire::heartbeat::NodeName;

use super::{Machine, Timer};
use crate::claims::Known;
use crate::effect::{Effect, State, Status};
use crate::input::{Assignment, Member, OwnerClaim};
use crate::liveness::{PeerId, Session};
use crate::schedule::Schedule;
use crate::takeover::{Ownership, Peer, Phase, Place};
use crate::timing::HEARTBEAT_INTERVAL;

impl Machine {
    pub(super) fn on_assignment(&mut self, assignment: Assignment) {
        let address = assignment.address;
        let known = self.places.get(&address);
        if known.is_some_and(|place| place.assignment == assignment) {
            return;
        }
        let answering = known.is_some_and(|place| place.state() == State::Answering);
        let has_part = assignment.owner.iter().chain(assignment.standbys.iter()).any(|node| *node == self.node);
        let assignment = self.shared.assignment(assignment);
        let me = assignment.members.iter().find(|member| member.node == self.node).cloned();
        match me {
            // Where it was assigned away, this node goes on until the new owner has claimed it.
            Some(me) if has_part || answering => self.place(address, me, assignment),
            None if answering && !has_part => {
                let me = known.map(|place| place.me.clone());
                if let Some(me) = me {
                    self.place(address, me, assignment);
                }
            }
            _ => self.remove_place(address),
        }
    }

    fn place(&mut self, address: IpAddr, me: Arc<Member>, assignment: Assignment) {
        if self.stopping.is_some() && !self.places.contains_key(&address) {
            return;
        }
        if self.places.is_empty() {
            self.last_beat = self.now;
            self.timers.set(Timer::Beat, Some(self.now + HEARTBEAT_INTERVAL));
        }
        let interface = self.places.get(&address).map(|place| place.me.interface.clone());
        let relocated = interface.is_some_and(|interface| interface != me.interface);
        let moved = self.seat(address, me, &assignment);
        self.meet(address, &assignment.members);
        let Some(place) = self.places.get(&address) else { return };
        let live = place.top.as_ref().is_some_and(|top| self.is_live(place, top));
        let claimed = assignment.claimed.clone();
        let Some(place) = self.places.get_mut(&address) else { return };
        let before = (place.assignment.sought, place.assignment.serving);
        place.adopt(self.now, assignment, live);
        // Claims may have been heard before the assignment that makes them matter.
        let peers = place.peers.clone();
        for peer in peers.iter() {
            let epoch = self.sessions.get(&peer.id).and_then(|session| session.heard.epoch(address));
            if let Some(epoch) = epoch {
                self.on_claim(address, OwnerClaim { node: peer.node.clone(), epoch }, peer.id);
            }
        }
        // What a node wrote about itself it has claimed, even if it cannot be heard here; and partners may not be able to read it.
        if let Some(claimed) = claimed.filter(|claimed| claimed.node != self.node) {
            self.on_claim_written(address, &claimed);
            let prevails = self.places.get(&address).is_some_and(|place| place.top.as_ref() == Some(&claimed));
            if prevails {
                self.pass_on(address, &claimed);
            }
        }
        self.settle(address);
        self.seek_again(address, before);
        if moved {
            self.reannounce(address);
        } else if relocated {
            // What was asked, was asked on another link.
            self.ask_anew(address);
        }
    }

    /// Whether a claim is one that its node is known to make right now.
    fn is_live(&self, place: &Place, claim: &OwnerClaim) -> bool {
        if claim.node == self.node {
            return place.state() == State::Answering;
        }
        let session = place.peer(&claim.node).and_then(|peer| self.sessions.get(&peer.id));
        session.is_some_and(|session| session.heard.epoch(place.address()) == Some(claim.epoch))
    }

    /// Gives the address its place on the link; returns whether it answers and that place changed.
    fn seat(&mut self, address: IpAddr, me: Arc<Member>, assignment: &Assignment) -> bool {
        let mut moved = false;
        let mut added = true;
        if let Some(place) = self.places.get_mut(&address) {
            let old = std::mem::replace(&mut place.me, me.clone());
            moved = old != me && place.state() == State::Answering;
            added = old.interface != me.interface;
            if added {
                self.unwatch(&old.interface, address);
            }
        } else {
            let seated = Assignment { members: Arc::default(), ..assignment.clone() };
            let place = Place::new(self.now, me.clone(), seated, Arc::default());
            self.places.insert(address, Box::new(place));
        }
        if added {
            self.watched.entry(me.interface.clone()).or_default().insert(address);
            self.changed.insert(me.interface.clone());
        }
        moved
    }

    fn unwatch(&mut self, interface: &str, address: IpAddr) {
        if let Some(addresses) = self.watched.get_mut(interface) {
            addresses.remove(&address);
            if addresses.is_empty() {
                self.watched.remove(interface);
            }
        }
        self.changed.insert(interface.to_owned());
    }

    /// Keeps a session with exactly the other members, and knows exactly their Ethernet addresses.
    fn meet(&mut self, address: IpAddr, members: &Arc<[Arc<Member>]>) {
        let Some(place) = self.places.get_mut(&address) else { return };
        let interface = place.me.interface.clone();
        let told = place.held();
        let old = std::mem::take(&mut place.peers);
        for member in std::mem::take(&mut place.assignment.members).iter() {
            self.forget_mac(member.mac);
        }
        let mut peers: BTreeMap<NodeName, Peer> = BTreeMap::new();
        for member in members.iter() {
            *self.macs.entry(member.mac).or_insert(0) += 1;
            if member.node != self.node {
                let id = self.session(member, &interface);
                if let Some(session) = self.sessions.get_mut(&id) {
                    let found = session.address;
                    let is_new = session.share(address, Some(member.address));
                    if session.address != found {
                        self.changed.insert(interface.clone());
                    }
                    if let Some(held) = told.filter(|_| is_new) {
                        session.told.hold(address, held);
                        self.urgent.insert(id);
                    }
                }
                peers.insert(member.node.clone(), Peer { id, node: member.node.clone(), mac: member.mac });
            }
        }
        for peer in old.iter() {
            if peers.get(&peer.node).is_some_and(|new| new.id == peer.id) {
                continue;
            }
            let claims = self.sessions.get(&peer.id).is_some_and(|session| session.heard.epoch(address).is_some());
            if claims && !peers.contains_key(&peer.node) {
                peers.insert(peer.node.clone(), peer.clone());
            } else {
                self.part(address, peer.id);
            }
        }
        if let Some(place) = self.places.get_mut(&address) {
            place.peers = self.shared.peers(peers.into_values());
            place.assignment.members = members.clone();
        }
    }

    fn forget_mac(&mut self, mac: MacAddr) {
        if let Some(count) = self.macs.get_mut(&mac) {
            *count -= 1;
            if *count == 0 {
                self.macs.remove(&mac);
            }
        }
    }

    /// The session with a member, which begins with a heartbeat if there is none yet. `interface` is this node's, by which the
    /// member is heard.
    fn session(&mut self, member: &Member, interface: &str) -> PeerId {
        let by_interface = self.ids.entry(member.node.clone()).or_default();
        if let Some(&id) = by_interface.get(interface) {
            if let Some(session) = self.sessions.get_mut(&id) {
                session.mac = member.mac;
            }
            return id;
        }
        let id = PeerId(self.next_id);
        self.next_id += 1;
        by_interface.insert(interface.to_owned(), id);
        let mut session = Session::new(member, interface.to_owned(), self.now);
        if let Some(past) = self.past.remove(&(member.node.clone(), interface.to_owned())) {
            session.remember(past);
        }
        self.sessions.insert(id, session);
        self.changed.insert(interface.to_owned());
        self.expect(id);
        self.urgent.insert(id);
        id
    }

    /// A partner claims an address in which it has no part as far as this node knows: its word counts, and it gets this
    /// node's. Its copy of the Announcement may be the newer one.
    pub(super) fn admit(&mut self, address: IpAddr, id: PeerId) {
        let (Some(place), Some(session)) = (self.places.get_mut(&address), self.sessions.get_mut(&id)) else { return };
        if place.peer(&session.node).is_some() {
            return;
        }
        session.share(address, None);
        if let Some(held) = place.held() {
            session.told.hold(address, held);
        }
        let peer = Peer { id, node: session.node.clone(), mac: session.mac };
        place.peers = self.shared.peers(place.peers.iter().cloned().chain([peer]));
    }

    /// An address is no longer shared with a partner; the last one ends the session.
    fn part(&mut self, address: IpAddr, id: PeerId) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        session.told.drop(address, Known::default());
        session.outdated.remove(&address);
        let found = session.address;
        let is_last = session.unshare(address);
        if is_last || session.address != found {
            self.changed.insert(session.interface.clone());
        }
        if is_last {
            if let Some(by_interface) = self.ids.get_mut(&session.node) {
                by_interface.remove(&session.interface);
                if by_interface.is_empty() {
                    self.ids.remove(&session.node);
                }
            }
            if let Some(session) = self.sessions.remove(&id) {
                let key = (session.node.clone(), session.interface.clone());
                self.past.insert(key, session.past());
            }
            self.timers.set(Timer::Silence(id), None);
            self.timers.set(Timer::Check(id), None);
            self.checked.remove(&id);
            self.urgent.remove(&id);
        }
    }

    /// Forgets an address altogether.
    pub(super) fn remove_place(&mut self, address: IpAddr) {
        let Some(place) = self.places.remove(&address) else { return };
        for timer in [Timer::Step(address), Timer::Announce(address), Timer::Calm(address)] {
            self.timers.set(timer, None);
        }
        self.questions.forget(address);
        self.repeats.forget(address);
        self.counters.care_ends += u64::from(matches!(place.phase, Phase::Caring(_)));
        self.unwatch(&place.me.interface, address);
        for member in place.assignment.members.iter() {
            self.forget_mac(member.mac);
        }
        for peer in place.peers.iter() {
            self.part(address, peer.id);
        }
        if self.places.is_empty() {
            self.timers.set(Timer::Beat, None);
        }
    }

    /// Answers from another place on the link than before.
    fn reannounce(&mut self, address: IpAddr) {
        let Some(place) = self.places.get_mut(&address) else { return };
        let Phase::Answering(ownership) = &mut place.phase else { return };
        ownership.schedule = Schedule::full(self.now);
        self.report(address);
        self.announce(address);
    }

    /// Says in the status what is so now.
    pub(super) fn report(&mut self, address: IpAddr) {
        let Some(place) = self.places.get_mut(&address) else { return };
        let foreign = place.rare().foreign.map(|(mac, _)| mac);
        place.change_rare(|rare| rare.named = foreign.map(|mac| (mac, self.now)));
        let (state, interface) = (place.state(), place.me.interface.clone());
        let status = match &place.phase {
            Phase::Answering(Ownership { epoch, since, cause, .. }) => Status {
                state,
                epoch: *epoch,
                since: *since,
                mac: place.me.mac,
                interface,
                cause: *cause,
                owner: None,
                foreign,
            },
            Phase::Caring(care) => Status {
                state,
                epoch: care.claim.epoch,
                since: care.since,
                mac: care.mac,
                interface,
                cause: Reason::CaredFor,
                owner: Some(care.claim.node.clone()),
                foreign,
            },
            Phase::Standby | Phase::Probing(_) | Phase::Verifying(_) | Phase::Conflicted => Status {
                state,
                epoch: place.top.as_ref().map_or(0, |top| top.epoch),
                since: self.now,
                mac: place.me.mac,
                interface,
                cause: Reason::AddressConflict,
                owner: None,
                foreign,
            },
        };
        self.effects.push_back(Effect::StatusChanged { address, status });
    }
}
