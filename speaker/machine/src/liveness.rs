//! One session with each partner on each interface, however many addresses of either family are shared with it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use berth_api::MacAddr;
use berth_wire::heartbeat::{Message, NodeName, NodeTag};

use crate::broken::{Rule, is_broken};
use crate::claims::{Heard, Told};
use crate::input::Member;
use crate::shared::packed;
use crate::timing::{
    ALARM_CALM, ALARM_WINDOW, ALARMS_MAX, ANSWER_INTERVAL, CHECK_MISSES, DETECTION_TIME, DOUBLINGS_MAX, HEARD_LATELY,
    STARTS_MAX,
};

/// Number of a session, for as long as the machine lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PeerId(pub(crate) u32);

/// What outlives a session.
#[derive(Debug)]
pub(crate) struct Past {
    boot_id: u64,
    former_boot_ids: BTreeSet<u64>,
    sequence: u64,
}

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

/// What the node of a silent partner says to the question whether it lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Check {
    /// Questions in all, since the silence began.
    pub(crate) asked: u32,
    /// Questions since the last answer.
    pub(crate) unanswered: u32,
    /// Whether there was an answer.
    pub(crate) answered: bool,
}

impl Check {
    /// Whether the node lives, as far as is known.
    pub(crate) fn lives(self) -> bool {
        self.answered && self.unanswered < CHECK_MISSES
    }
}

/// False alarms of a partner: how far its detection time was stretched for them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Alarms {
    /// How many there were since `since`.
    count: u32,
    since: Duration,
    /// When the last one was, or the time was last halved.
    last: Duration,
    doublings: u32,
}

/// What this node knows of a partner, and has told it.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) node: NodeName,
    /// What stands for the name in other partners' sightings.
    pub(crate) tag: NodeTag,
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
    /// Boot ids that it had before, for as long as this process lives: what was recorded of an earlier start is never new again.
    former_boot_ids: BTreeSet<u64>,
    sequence: u64,
    /// When a datagram that proved nothing was answered last.
    answered: Option<Duration>,
    pub(crate) told: Told,
    pub(crate) heard: Heard,
    /// Whether the node lives, while the partner is silent or stops.
    pub(crate) check: Option<Check>,
    /// When the partner was heard last by somebody else, or answered for an address, while this node did not hear it.
    sighted: Option<Duration>,
    /// Whether the present silence is known to be none.
    is_false_alarm: bool,
    /// When it claimed an address last that it had not claimed before: one that takes up thousands is not idle.
    pub(crate) claimed_at: Duration,
    alarms: Alarms,
    /// Whether to ask it whom it hears, with the next datagram.
    pub(crate) ask_sightings: bool,
    /// Addresses of which it claims what others have claimed anew since.
    pub(crate) outdated: BTreeSet<IpAddr>,
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
            tag: member.node.tag(),
            address: member.address,
            mac: member.mac,
            interface,
            liveness: Liveness::Waiting,
            last_heard: now,
            up_since: now,
            stopping: None,
            boot_id: 0,
            former_boot_ids: BTreeSet::new(),
            sequence: 0,
            answered: None,
            told: Told::default(),
            heard: Heard::default(),
            check: None,
            sighted: None,
            is_false_alarm: false,
            claimed_at: now,
            alarms: Alarms::default(),
            ask_sightings: false,
            outdated: BTreeSet::new(),
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

    /// Takes as little room as can be.
    pub(crate) fn pack(&mut self) {
        self.told.pack();
        self.heard.pack();
        packed(&mut self.shared);
    }

    /// What is to be remembered of it when nothing is shared with it any more.
    pub(crate) fn past(self) -> Past {
        let Self { boot_id, former_boot_ids, sequence, .. } = self;
        Past { boot_id, former_boot_ids, sequence }
    }

    /// Goes on where an earlier session with the same node ended: what was recorded of that is not new.
    pub(crate) fn remember(&mut self, past: Past) {
        (self.boot_id, self.former_boot_ids, self.sequence) = (past.boot_id, past.former_boot_ids, past.sequence);
    }

    /// Silence after which it is asked for on the wire: longer after false alarms.
    pub(crate) fn detection(&self) -> Duration {
        DETECTION_TIME * (1 << self.alarms.doublings)
    }

    /// How often its detection time is doubled.
    pub(crate) fn doublings(&self) -> u32 {
        self.alarms.doublings
    }

    /// It was not heard for too long.
    pub(crate) fn fell_silent(&mut self) {
        self.liveness = Liveness::Silent;
        self.is_false_alarm = false;
        self.check.get_or_insert_default();
    }

    /// Somebody else heard it at this time, or it answered for an address then.
    pub(crate) fn was_sighted(&mut self, at: Duration) {
        self.sighted = self.sighted.max(Some(at));
    }

    /// Until when it counts as heard, although not by this node.
    pub(crate) fn sighted_until(&self) -> Option<Duration> {
        self.sighted.map(|at| at + HEARD_LATELY)
    }

    /// Notes that its silence is none, once for each silence; returns whether this is the first time.
    pub(crate) fn false_alarm(&mut self, now: Duration) -> bool {
        if self.liveness != Liveness::Silent || std::mem::replace(&mut self.is_false_alarm, true) {
            return false;
        }
        let alarms = &mut self.alarms;
        if alarms.count == 0 || now > alarms.since + ALARM_WINDOW {
            (alarms.count, alarms.since) = (0, now);
        }
        alarms.count += 1;
        alarms.last = now;
        if alarms.count >= ALARMS_MAX {
            alarms.count = 0;
            alarms.doublings = (alarms.doublings + 1).min(DOUBLINGS_MAX);
        }
        true
    }

    /// Halves the detection time again after a calm; returns whether it did.
    pub(crate) fn calm_down(&mut self, now: Duration) -> bool {
        let alarms = &mut self.alarms;
        let calm = alarms.doublings > 0 && now >= alarms.last + ALARM_CALM;
        if calm {
            alarms.doublings -= 1;
            alarms.last = now;
        }
        calm
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
        if self.former_boot_ids.contains(&message.boot_id) && !is_broken(Rule::RemembersStarts) {
            return Err(Refused::BootId);
        }
        if message.heard_boot_id != own {
            return Err(Refused::Unproven);
        }
        let restarted = message.boot_id != self.boot_id;
        if restarted {
            if self.boot_id != 0 {
                self.former_boot_ids.insert(self.boot_id);
            }
            if self.former_boot_ids.len() > STARTS_MAX {
                self.former_boot_ids.pop_first();
            }
            self.boot_id = message.boot_id;
            self.heard.forget();
            self.stopping = None;
        } else if message.sequence <= self.sequence && !is_broken(Rule::ChecksReplay) {
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
        // Whether its node lives is asked again only when it falls silent, or stops.
        self.check = if message.stopping { self.check.or(Some(Check::default())) } else { None };
        self.sighted = None;
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

    fn session() -> Session {
        let member = Member {
            node: NodeName::new("b").unwrap(),
            interface: "eth0".to_owned(),
            address: std::net::Ipv4Addr::LOCALHOST.into(),
            mac: MacAddr([2, 0, 0, 0, 0, 1]),
        };
        Session::new(&member, "eth0".to_owned(), Duration::ZERO)
    }

    #[test]
    fn repeated_false_alarms_double_the_detection_time_and_calm_halves_it() {
        let mut session = session();
        let mut alarms = |at: u64| {
            session.fell_silent();
            let now = Duration::from_secs(at);
            let counted = session.false_alarm(now);
            assert!(counted && !session.false_alarm(now), "once for each silence");
            session.detection().as_millis()
        };
        for (at, detection, why) in [
            (0, 300, "bad luck"),
            (1, 300, "twice"),
            (100, 300, "the first two are long ago"),
            (101, 300, ""),
            (102, 600, "three within a minute"),
            (103, 600, "counted anew"),
            (104, 600, ""),
            (105, 1_200, "three more"),
            (106, 1_200, ""),
            (107, 1_200, ""),
            (108, 2_400, ""),
            (109, 2_400, ""),
            (110, 2_400, ""),
            (111, 2_400, "no more than that"),
        ] {
            assert_eq!(alarms(at), detection, "at {at} s: {why}");
        }
        let mut now = Duration::from_secs(111);
        for detection in [1_200, 600, 300] {
            assert!(!session.calm_down(now + ALARM_CALM / 2));
            now += ALARM_CALM;
            assert!(session.calm_down(now));
            assert_eq!(session.detection().as_millis(), detection);
        }
        assert!(!session.calm_down(now + ALARM_CALM), "as it should be");
    }

    #[test]
    fn a_node_lives_that_answered_and_does_not_leave_three_questions_unanswered() {
        for (check, lives) in [
            (Check { asked: 2, unanswered: 2, answered: false }, false),
            (Check { asked: 2, unanswered: 1, answered: true }, true),
            (Check { asked: 9, unanswered: 2, answered: true }, true),
            (Check { asked: 9, unanswered: 3, answered: true }, false),
        ] {
            assert_eq!(check.lives(), lives, "{check:?}");
        }
    }

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
                want_sightings: false,
                body: Body::Heartbeat { digest: Digest::EMPTY, count: 0 },
            };
            let before = session.last_heard;
            let now = Duration::from_millis(i as u64 + 1);
            assert_eq!(session.accept(now, own, &message), verdict, "{why}");
            assert_eq!(session.last_heard, if verdict.is_ok() { now } else { before }, "{why}");
        }
    }
}
