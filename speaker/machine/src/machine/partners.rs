//! What partners say, and when they fall silent.

use std::net::IpAddr;

use berth_wire::heartbeat::Message;

use super::{Machine, Timer};
use crate::input::OwnerClaim;
use crate::liveness::{Liveness, PeerId, Refused};
use crate::timing::DETECTION_TIME;

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
        self.timers.set(Timer::Silence(id), Some(self.now + DETECTION_TIME));
        let learnt = session.heard.take(&message.body);
        if session.heard.asking() && session.heard.ask(self.now) {
            self.urgent.insert(id);
        }
        let node = session.node.clone();
        // A partner that came up or stops is looked at for all that is shared with it, else only for what it speaks of.
        let everything = accepted.came_up || accepted.began_to_stop;
        let shared: Vec<IpAddr> = if everything { session.shared().collect() } else { Vec::new() };
        for (address, epoch) in learnt.claimed {
            self.admit(address, id);
            self.on_claim(address, OwnerClaim { node: node.clone(), epoch }, id);
        }
        for (address, epoch) in learnt.seen {
            self.on_claim_seen(address, epoch);
        }
        for address in learnt.dropped {
            self.on_claim_dropped(address, id);
        }
        for address in shared {
            self.watch_top(address);
        }
        if message.want_claims {
            self.send_list(id);
        }
    }

    pub(super) fn on_silence(&mut self, id: PeerId) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        session.liveness = Liveness::Silent;
        // Its own addresses have lost their owner; in the line for others, those behind it move up.
        for address in session.shared().collect::<Vec<_>>() {
            self.watch_top(address);
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
}
