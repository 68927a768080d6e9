//! One session with each partner on each interface, however many addresses of either family are shared with it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use berth_api::MacAddr;
use berth_wire::heartbeat::{Message, NodeName};

use crate::claims::{Heard, Told};
use crate::input::Member;
use crate::timing::ANSWER_INTERVAL;

/// Number of a session, for as long as the machine lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PeerId(pub(crate) u32);

/// How a partner is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Liveness {
    /// Not heard yet, and there was not yet time enough for it.
    Waiting,
    /// Heard within the detection time.
    Up,
    /// Not heard for longer than the detection time, or never.
    Silent,
}

/// What this node knows of a partner, and has told it.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) node: NodeName,
    /// The address that it is talked to at: the first one that was known, for as long as it is one of its addresses.
    pub(crate) address: IpAddr,
    pub(crate) mac: MacAddr,
    pub(crate) interface: String,
    pub(crate) liveness: Liveness,
    /// When it was heard last, or the session began.
    pub(crate) last_heard: Duration,
    /// Since when it is up without a break, as this process.
    pub(crate) up_since: Duration,
    /// Since when it wants its addresses taken over.
    pub(crate) stopping: Option<Duration>,
    pub(crate) boot_id: u64,
    former_boot_id: u64,
    sequence: u64,
    /// When a datagram that proved nothing was answered last.
    answered: Option<Duration>,
    pub(crate) told: Told,
    pub(crate) heard: Heard,
    /// Addresses in which both have a part, with the partner's own address as each says, if it does.
    shared: BTreeMap<IpAddr, Option<IpAddr>>,
    /// The partner's own addresses, with the number of shared ones that name each.
    addresses: BTreeMap<IpAddr, usize>,
}

/// Why a datagram is not taken for what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// Old or repeated.
    Sequence,
    /// Of an earlier start of the partner's process.
    BootId,
    /// It does not name this start of this node's process: its sender may never have heard this node, and be anybody.
    Unproven,
}

/// What a datagram changed in the session itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Accepted {
    /// The partner was silent or never heard before, or is a new process.
    pub(crate) came_up: bool,
    /// It is a new process, or the first that was heard, and does not know yet that this node believes it.
    pub(crate) is_new: bool,
    /// It began to stop.
    pub(crate) began_to_stop: bool,
}

impl Session {
    pub(crate) fn new(member: &Member, interface: String, now: Duration) -> Self {
        Self {
            node: member.node.clone(),
            address: member.address,
            mac: member.mac,
            interface,
            liveness: Liveness::Waiting,
            last_heard: now,
            up_since: now,
            stopping: None,
            boot_id: 0,
            former_boot_id: 0,
            sequence: 0,
            answered: None,
            told: Told::default(),
            heard: Heard::default(),
            shared: BTreeMap::new(),
            addresses: BTreeMap::new(),
        }
    }

    /// Notes that both have a part in an address, for which the partner is found at `found`; returns whether that is new.
    pub(crate) fn share(&mut self, address: IpAddr, found: Option<IpAddr>) -> bool {
        let old = self.shared.insert(address, found);
        if let Some(found) = found {
            *self.addresses.entry(found).or_insert(0) += 1;
        }
        self.forget_address(old.flatten());
        old.is_none()
    }

    /// Notes that they have one no longer; returns whether nothing is left that they share.
    pub(crate) fn unshare(&mut self, address: IpAddr) -> bool {
        let old = self.shared.remove(&address).flatten();
        self.forget_address(old);
        self.shared.is_empty()
    }

    fn forget_address(&mut self, found: Option<IpAddr>) {
        if let Some(found) = found
            && let Some(count) = self.addresses.get_mut(&found)
        {
            *count -= 1;
            if *count == 0 {
                self.addresses.remove(&found);
            }
        }
        // IPv4 comes first in the order of addresses.
        if !self.addresses.contains_key(&self.address)
            && let Some((first, _)) = self.addresses.first_key_value()
        {
            self.address = *first;
        }
    }

    /// Addresses in which both have a part.
    pub(crate) fn shared(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.shared.keys().copied()
    }

    /// Whether it could take over an address now.
    pub(crate) fn is_able(&self) -> bool {
        self.liveness == Liveness::Up && self.stopping.is_none()
    }

    /// Takes a datagram as a sign of life if it is a new one, from a process that was sent the boot id of this one, `own`.
    ///
    /// Whoever is on the link can send from a partner's address, but hears nothing of what is sent to it. So nothing changes by a
    /// datagram that does not prove that its sender does.
    pub(crate) fn accept(&mut self, now: Duration, own: u64, message: &Message) -> Result<Accepted, Refused> {
        // What the former process sent last may arrive after what the present one sent first.
        if message.boot_id == self.former_boot_id {
            return Err(Refused::BootId);
        }
        if message.heard_boot_id != own {
            return Err(Refused::Unproven);
        }
        let restarted = message.boot_id != self.boot_id;
        if restarted {
            self.former_boot_id = self.boot_id;
            self.boot_id = message.boot_id;
            self.heard.forget();
            self.stopping = None;
        } else if message.sequence <= self.sequence {
            return Err(Refused::Sequence);
        }
        self.sequence = message.sequence;
        self.last_heard = now;
        let came_up = restarted || self.liveness != Liveness::Up;
        if came_up {
            self.up_since = now;
        }
        self.liveness = Liveness::Up;
        let began_to_stop = message.stopping && self.stopping.is_none();
        match (message.stopping, self.stopping) {
            (true, None) => self.stopping = Some(now),
            (false, _) => self.stopping = None,
            (true, Some(_)) => {}
        }
        Ok(Accepted { came_up, is_new: restarted, began_to_stop })
    }

    /// Whether to answer a datagram that proved nothing, so that a partner which started a moment ago can prove itself with the next.
    pub(crate) fn answer(&mut self, now: Duration) -> bool {
        let due = self.answered.is_none_or(|answered| now >= answered + ANSWER_INTERVAL);
        if due {
            self.answered = Some(now);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use berth_wire::heartbeat::{Body, Digest};

    use super::*;

    #[test]
    fn only_a_new_datagram_is_a_sign_of_life() {
        let node = NodeName::new("b").unwrap();
        let interface = "eth0".to_owned();
        let member = Member {
            node: node.clone(),
            interface: interface.clone(),
            address: std::net::Ipv4Addr::LOCALHOST.into(),
            mac: MacAddr([2, 0, 0, 0, 0, 1]),
        };
        let mut session = Session::new(&member, interface, Duration::ZERO);
        let own = 70;
        let yes = |came_up| Ok(Accepted { came_up, is_new: came_up, began_to_stop: false });
        let table = [
            // boot id, sequence, heard boot id, verdict, why
            (7, 4, 0, Err(Refused::Unproven), "it has not heard this node yet"),
            (7, 5, own, yes(true), "the first one ever"),
            (7, 6, own, yes(false), "the next one"),
            (7, 6, own, Err(Refused::Sequence), "repeated"),
            (7, 5, own, Err(Refused::Sequence), "late"),
            (7, 9, own, yes(false), "some were lost"),
            (9, 1, 0, Err(Refused::Unproven), "a new process, says anybody"),
            (7, 10, 69, Err(Refused::Unproven), "it heard an earlier start of this node"),
            (7, 10, own, yes(false), "the partner goes on undisturbed"),
            (8, 1, own, yes(true), "a new process counts anew"),
            (7, 11, own, Err(Refused::BootId), "late, from the former process"),
            (8, 1, own, Err(Refused::Sequence), "repeated by the new process"),
            (8, 2, own, yes(false), "the new process goes on"),
        ];
        for (i, (boot_id, sequence, heard_boot_id, verdict, why)) in table.into_iter().enumerate() {
            let message = Message {
                sender: node.clone(),
                boot_id,
                sequence,
                heard_boot_id,
                stopping: false,
                want_claims: false,
                body: Body::Heartbeat { digest: Digest::EMPTY, count: 0 },
            };
            let before = session.last_heard;
            let now = Duration::from_millis(i as u64 + 1);
            assert_eq!(session.accept(now, own, &message), verdict, "{why}");
            assert_eq!(session.last_heard, if verdict.is_ok() { now } else { before }, "{why}");
        }
    }
}
