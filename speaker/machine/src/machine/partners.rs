//! What partners say, and what is passed on to those who seem not to know.

use std::net::IpAddr;

use berth_wire::heartbeat::{Body, Message};

use super::Machine;
use crate::broken::{Rule, is_broken};
use crate::input::OwnerClaim;
use crate::liveness::{Liveness, PeerId, Refused, Session};

impl Machine {
    pub(super) fn on_heartbeat(&mut self, interface: &str, message: &Message) {
        // From which address it comes does not matter. Each end chooses from the Announcements that it has read over which of its
        // addresses it talks to the other, and the other may not have read the same yet. What counts is that the sender proves to hear us.
        let id = self.ids.get(&message.sender).and_then(|by_interface| by_interface.get(interface)).copied();
        let Some((id, session)) = id.and_then(|id| Some((id, self.sessions.get_mut(&id)?))) else {
            self.counters.refused_unknown += 1;
            return;
        };
        let accepted = match session.accept(self.now, self.boot_id, message) {
            Ok(accepted) => accepted,
            Err(Refused::Sequence) => {
                self.counters.refused_sequence += 1;
                return;
            }
            Err(Refused::BootId) => {
                self.counters.refused_boot_id += 1;
                return;
            }
            Err(Refused::Unproven) => {
                self.counters.refused_unproven += 1;
                if session.answer(self.now) {
                    // The shortest there is, and no more of them than came: of no use to make noise with.
                    let alive = session.told.alive();
                    self.send_hearing(id, message.boot_id, vec![alive]);
                }
                return;
            }
        };
        self.counters.heartbeats += 1;
        if accepted.is_new {
            // It believes this node once it hears its own boot id, too.
            self.urgent.insert(id);
        }
        let came_back = accepted.came_up || session.check.is_none();
        let learnt = session.heard.take(&message.body);
        if session.heard.asking() && session.heard.ask(self.now) {
            self.urgent.insert(id);
        }
        if !learnt.claimed.is_empty() {
            session.claimed_at = self.now;
        }
        let calmer = session.calm_down(self.now);
        let node = session.node.clone();
        // A partner that came up or stops is looked at for all that is shared with it, else only for what it speaks of.
        let everything = accepted.came_up || accepted.began_to_stop;
        let shared: Vec<IpAddr> = if everything { session.shared().collect() } else { Vec::new() };
        self.expect(id);
        if calmer {
            self.report_steadiness(id);
        }
        if accepted.began_to_stop {
            self.begin_check(id);
        } else if came_back {
            self.end_check(id);
        }
        for (address, epoch) in learnt.claimed {
            self.admit(address, id);
            self.on_claim(address, OwnerClaim { node: node.clone(), epoch }, id);
        }
        for (address, epoch) in learnt.cared_for {
            self.admit(address, id);
            if let Some(place) = self.places.get_mut(&address) {
                place.seen = place.seen.max(Some(epoch));
            }
            self.leave_care_to(address, id);
            self.watch_top(address);
        }
        for (address, known) in learnt.known {
            self.on_claim_known(address, known, id);
        }
        for address in learnt.dropped {
            self.on_claim_dropped(address, id);
        }
        for address in shared {
            self.owner_is_back(address, id);
            self.watch_top(address);
        }
        if let Body::Sightings(sightings) = &message.body {
            self.on_sightings(interface, sightings);
        }
        if message.want_claims {
            self.send_list(id);
        }
        if message.want_sightings {
            self.send_sightings(id);
        }
    }

    /// Sends a partner everything that is claimed, which covers what changed as well.
    fn send_list(&mut self, id: PeerId) {
        let list = self.sessions.get_mut(&id).and_then(|session| session.told.list(self.now));
        if let Some(bodies) = list {
            self.urgent.remove(&id);
            self.send(id, bodies);
        }
    }

    /// Wants a partner's whole list.
    pub(super) fn ask(&mut self, id: PeerId) {
        if let Some(session) = self.sessions.get_mut(&id)
            && session.heard.ask(self.now)
        {
            self.urgent.insert(id);
        }
    }

    /// Partners that claim an address, although this claim prevails, may have no other way to hear of it. One that is silent at the moment is
    /// told when it is heard again.
    pub(super) fn pass_on(&mut self, address: IpAddr, claim: &OwnerClaim) {
        let Some(place) = self.places.get(&address).filter(|_| !is_broken(Rule::PassesOn)) else { return };
        for peer in place.peers.iter().filter(|peer| peer.node != claim.node) {
            let is_behind = |epoch| claim.beats(&OwnerClaim { node: peer.node.clone(), epoch });
            if let Some(session) = self.sessions.get_mut(&peer.id)
                && session.heard.epoch(address).is_some_and(is_behind)
            {
                session.outdated.insert(address);
                session.told.repeat(address, place.known());
                self.urgent.insert(peer.id);
                self.counters.passed_on += 1;
            }
        }
    }

    /// Says it once more to a partner that still claims what it had, since a datagram may be lost.
    pub(super) fn pass_on_again(&mut self, id: PeerId) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let places = &self.places;
        let Session { node, outdated, heard, told, liveness, .. } = session;
        // While it is silent nothing can be said, and it may be behind still when it is heard again.
        if *liveness != Liveness::Up {
            return;
        }
        outdated.retain(|address| {
            let Some(place) = places.get(address) else { return false };
            let known = place.known();
            let is_behind = heard.epoch(*address).is_some_and(|epoch| {
                let claims = OwnerClaim { node: node.clone(), epoch };
                epoch < known.epoch || place.top.as_ref().is_some_and(|top| top.beats(&claims))
            });
            if is_behind {
                told.repeat(*address, known);
            }
            is_behind
        });
    }
}
