//! One node's speaker: its calls, its clock and its deadlines.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use berth_api::MacAddr;
use berth_wire::heartbeat::{Body, Message, NodeName};
use berth_wire::neighbor::Frame;

use crate::broken::{Rule, is_broken};
use crate::effect::{Counters, Effect, State};
use crate::input::Assignment;
use crate::liveness::{Liveness, Past, PeerId, Session};
use crate::pacer::Pacer;
use crate::queue::Queue;
use crate::refresh::Refresh;
use crate::shared::{Shared, packed, packed_set};
use crate::takeover::{Phase, Place, Probe, Verifying};
use crate::timing::{DETECTION_TIME, HEARTBEAT_INTERVAL, STOP_GRACE};

mod assign;
mod caretaker;
mod evidence;
mod link;
mod ownership;
mod partners;
mod silence;
#[cfg(test)]
mod tests;

/// What a deadline is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// A heartbeat to every partner.
    Beat,
    /// A partner was not heard for too long.
    Silence(PeerId),
    /// The next question to the node of a silent partner.
    Check(PeerId),
    /// The next step of an address.
    Step(IpAddr),
    /// The next announcement of an address.
    Announce(IpAddr),
    /// A foreign machine with an address of ours was not heard for a while.
    Calm(IpAddr),
    /// The end of the wait for partners to take over.
    Stop,
}

/// Everything that one node's speaker decides about layer 2.
///
/// Each call first takes note of the time. One that comes after the process was unable to send heartbeats for the
/// detection time makes every address ask the wire again *before* it is looked at, so that requests which queued up
/// meanwhile are not answered by a node that was replaced.
#[derive(Debug)]
pub struct Machine {
    node: NodeName,
    boot_id: u64,
    sequence: u64,
    now: Duration,
    /// When the last heartbeats went out; partners count from there.
    last_beat: Duration,
    stopping: Option<Duration>,
    stopped: bool,
    // Boxed: assignments come in order, and a map that grows in order is half empty.
    places: BTreeMap<IpAddr, Box<Place>>,
    shared: Shared,
    sessions: BTreeMap<PeerId, Session>,
    /// By node and own interface.
    ids: BTreeMap<NodeName, BTreeMap<String, PeerId>>,
    next_id: u32,
    /// Ethernet addresses of all nodes of ours, with the number of places that name them.
    macs: BTreeMap<MacAddr, usize>,
    /// Addresses by the interface they are watched on.
    watched: BTreeMap<String, BTreeSet<IpAddr>>,
    changed: BTreeSet<String>,
    /// Interfaces with a carrier.
    up: BTreeSet<String>,
    timers: Queue<Timer>,
    /// Turns of addresses that begin to ask.
    questions: Pacer<IpAddr>,
    /// Turns of announcements that are repeated.
    repeats: Pacer<IpAddr>,
    /// Whether addresses are announced again later, and how often.
    refresh: Option<Refresh>,
    /// What was heard of nodes with which nothing is shared at the moment. No more of them than a cluster has nodes.
    past: BTreeMap<(NodeName, String), Past>,
    /// While stopping: up to where all addresses are answered for by others.
    safe_up_to: Option<IpAddr>,
    /// Partners whose nodes are asked whether they live.
    checked: BTreeSet<PeerId>,
    /// Partners that are to hear from this node before the call ends.
    urgent: BTreeSet<PeerId>,
    effects: VecDeque<Effect>,
    counters: Counters,
}

impl Machine {
    /// A speaker that has a part in nothing yet. `boot_id` names this start of the process: another one each time, never 0, and not to be
    /// guessed, because partners prove by it that they heard this node.
    pub fn new(node: NodeName, boot_id: u64, now: Duration) -> Self {
        Self {
            node,
            boot_id: boot_id.max(1),
            sequence: 0,
            now,
            last_beat: now,
            stopping: None,
            stopped: false,
            places: BTreeMap::new(),
            shared: Shared::default(),
            sessions: BTreeMap::new(),
            ids: BTreeMap::new(),
            next_id: 0,
            macs: BTreeMap::new(),
            watched: BTreeMap::new(),
            changed: BTreeSet::new(),
            up: BTreeSet::new(),
            timers: Queue::new(),
            questions: Pacer::new(),
            repeats: Pacer::new(),
            refresh: None,
            past: BTreeMap::new(),
            safe_up_to: None,
            checked: BTreeSet::new(),
            urgent: BTreeSet::new(),
            effects: VecDeque::new(),
            counters: Counters::default(),
        }
    }

    /// The same, which announces each address that it answers for again at an interval, once the announcements after its claim are made.
    #[must_use]
    pub fn refreshing(self, refresh: Option<Refresh>) -> Self {
        Self { refresh, ..self }
    }

    /// Takes over what the Announcement of an address says; to be called at each of its changes. Repeating it changes nothing.
    ///
    /// A node that is neither owner nor standby, or has no place on the link, has no part in the address: it is withdrawn,
    /// unless this node still answers for it and the new owner has not claimed it yet.
    pub fn assign(&mut self, now: Duration, assignment: Assignment) {
        if self.begin(now) {
            self.on_assignment(assignment);
            self.finish();
        }
    }

    /// The node has no part in the address any more: it stops to answer at once and without a frame.
    pub fn withdraw(&mut self, now: Duration, address: IpAddr) {
        if self.begin(now) {
            self.remove_place(address);
            self.finish();
        }
    }

    /// Takes as little room as can be, and does nothing else. To be called when thousands of addresses came and no more do: it costs some
    /// milliseconds for ten thousand.
    pub fn pack(&mut self) {
        packed(&mut self.places);
        self.sessions.values_mut().for_each(Session::pack);
        self.watched.values_mut().for_each(packed_set);
        self.timers.pack();
        // It was as long as there were addresses at once.
        self.effects.shrink_to_fit();
    }

    /// Something showed that this node forwards what comes for an address, after [`Effect::SeekEvidence`] asked for it.
    pub fn serves(&mut self, now: Duration, address: IpAddr) {
        if self.begin(now) {
            self.on_evidence(address);
            self.finish();
        }
    }

    /// A datagram came on this interface, from its own link.
    pub fn heartbeat_received(&mut self, now: Duration, interface: &str, message: &Message) {
        if self.begin(now) {
            self.on_heartbeat(interface, message);
            self.finish();
        }
    }

    /// A frame came on this interface.
    pub fn frame_received(&mut self, now: Duration, interface: &str, frame: &Frame) {
        if self.begin(now) {
            self.on_frame(interface, frame);
            self.finish();
        }
    }

    /// An interface can be used, or no longer. None counts as up before it is said to be.
    ///
    /// On one that is not nobody is called silent and nothing is taken over or newly claimed: what is cut off is this node. What was
    /// answered for there is, after it came back, only once the wire was asked.
    pub fn link_changed(&mut self, now: Duration, interface: &str, up: bool) {
        if self.begin(now) {
            self.on_link(interface, up);
            self.finish();
        }
    }

    /// Does what is due. To be called at [`Machine::next_deadline`] or soon after.
    pub fn tick(&mut self, now: Duration) {
        if self.begin(now) {
            while let Some((due, timer)) = self.timers.pop_due(self.now) {
                match self.turn(timer) {
                    Some(later) => self.timers.set(timer, Some(later)),
                    None => self.on_timer(due, timer),
                }
            }
            self.finish();
        }
    }

    /// Asks for a graceful stop: partners take over before [`Effect::Stopped`] comes, at most [`STOP_GRACE`] later.
    pub fn stop(&mut self, now: Duration) {
        if self.begin(now) && self.stopping.is_none() {
            self.stopping = Some(self.now);
            self.timers.set(Timer::Stop, Some(self.now + STOP_GRACE));
            let addresses: Vec<IpAddr> = self.places.keys().copied().collect();
            for address in addresses {
                self.settle(address);
            }
            self.urgent.extend(self.sessions.keys());
            self.finish();
        }
    }

    /// When [`Machine::tick`] is to be called next; never, while the node has a part in nothing.
    pub fn next_deadline(&self) -> Option<Duration> {
        self.timers.next()
    }

    /// The next thing to do, oldest first. To be called until there is none after each other call.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// Interfaces whose watched addresses changed since the last call; their kernel filters are to be rebuilt.
    pub fn take_changed_interfaces(&mut self) -> BTreeSet<String> {
        std::mem::take(&mut self.changed)
    }

    /// Addresses that frames on this interface are needed about, in rising order: those of IPv4 first.
    pub fn watched_addresses(&self, interface: &str) -> impl Iterator<Item = IpAddr> + '_ {
        self.watched.get(interface).into_iter().flatten().copied()
    }

    /// Own addresses of partners on this interface, whose answers are needed as well when a partner falls silent.
    pub fn partner_addresses(&self, interface: &str) -> BTreeSet<IpAddr> {
        let on_it = self.sessions.values().filter(|session| session.interface == interface);
        on_it.map(|session| session.address).collect()
    }

    /// Interfaces on which addresses are watched.
    pub fn watched_interfaces(&self) -> impl Iterator<Item = &str> + '_ {
        self.watched.keys().map(String::as_str)
    }

    /// Addresses that this node answers for, with the numbers of its ownership.
    pub fn answering(&self) -> impl Iterator<Item = (IpAddr, u64)> + '_ {
        self.places.iter().filter_map(|(address, place)| match &place.phase {
            Phase::Answering(ownership) => Some((*address, ownership.epoch)),
            _ => None,
        })
    }

    /// Where this node stands with an address; nothing if it has no part in it.
    pub fn state(&self, address: IpAddr) -> Option<State> {
        self.places.get(&address).map(|place| place.state())
    }

    /// Partners, and whether each was heard within the detection time, on every interface that it is met on.
    pub fn partners(&self) -> impl Iterator<Item = (&NodeName, bool)> + '_ {
        let mut partners = BTreeMap::new();
        for session in self.sessions.values() {
            *partners.entry(&session.node).or_insert(true) &= session.liveness == Liveness::Up;
        }
        partners.into_iter()
    }

    /// How many addresses this node answers for in place of their owners.
    pub fn caring(&self) -> u64 {
        self.counters.caretakings - self.counters.care_ends
    }

    /// What was counted so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// The node in whose place this one answers for an address.
    #[cfg(test)]
    pub(crate) fn cared_for(&self, address: IpAddr) -> Option<&NodeName> {
        match &self.places.get(&address)?.phase {
            Phase::Caring(care) => Some(&care.claim.node),
            _ => None,
        }
    }

    /// Highest number that is known to have been claimed for an address.
    #[cfg(test)]
    pub(crate) fn seen(&self, address: IpAddr) -> Option<u64> {
        self.places.get(&address).and_then(|place| place.seen)
    }

    /// Takes note of the time; returns whether there is anything left to do in this life.
    fn begin(&mut self, now: Duration) -> bool {
        let now = now.max(self.now);
        // What partners saw counts, not only what this process noticed: their patience began with the last heartbeat.
        let away = now >= self.now + DETECTION_TIME || now >= self.last_beat + DETECTION_TIME;
        self.now = now;
        if away && !self.places.is_empty() && !is_broken(Rule::FencesItself) {
            self.fence();
        }
        !self.stopped
    }

    /// The process did not run for so long that it may have been replaced: nothing is answered before the wire was asked, and
    /// nobody is called silent who could not be heard.
    fn fence(&mut self) {
        self.last_beat = self.now;
        self.timers.set(Timer::Beat, Some(self.now));
        let sessions: Vec<PeerId> = self.sessions.keys().copied().collect();
        let addresses: Vec<IpAddr> = self.places.keys().copied().collect();
        self.listen_anew(&sessions);
        let mut owned = false;
        for address in addresses {
            owned |= self.ask_anew(address);
        }
        self.counters.fenced += u64::from(owned);
    }

    /// Gives partners their time again that could not be heard.
    fn listen_anew(&mut self, sessions: &[PeerId]) {
        for id in sessions {
            if self.sessions.get(id).is_some_and(|session| session.liveness != Liveness::Silent) {
                self.expect(*id);
            }
        }
    }

    /// Gives a partner its time to be heard.
    fn expect(&mut self, id: PeerId) {
        let due = self.sessions.get(&id).map(|session| self.now + session.detection());
        self.timers.set(Timer::Silence(id), due);
    }

    /// Trusts nothing that was known about an address; returns whether this node answered for it.
    fn ask_anew(&mut self, address: IpAddr) -> bool {
        let Some(place) = self.places.get_mut(&address) else { return false };
        match std::mem::replace(&mut place.phase, Phase::Standby) {
            Phase::Answering(ownership) => {
                self.verify(address, Some(ownership));
                return true;
            }
            Phase::Verifying(Verifying { resume, .. }) => self.verify(address, resume.map(|resume| *resume)),
            Phase::Conflicted => place.phase = Phase::Conflicted,
            Phase::Caring(care) => {
                place.phase = Phase::Caring(care);
                self.stand_by(address);
            }
            Phase::Standby | Phase::Probing(_) => self.watch_top(address),
        }
        false
    }

    /// Says what is urgent, and keeps the beat going while there is a part to play.
    fn finish(&mut self) {
        if self.stopped {
            return;
        }
        for id in std::mem::take(&mut self.urgent) {
            self.tell(id);
        }
        if self.stopping.is_some() && self.is_everything_safe() {
            self.end();
        }
    }

    /// When something that many may want to do at once has its turn; at once (`None`) where it need not wait.
    fn turn(&mut self, timer: Timer) -> Option<Duration> {
        match timer {
            Timer::Step(address) if self.begins_to_ask(address) => self.questions.turn(self.now, address),
            Timer::Announce(address) => self.repeats.turn(self.now, address),
            _ => None,
        }
    }

    /// Whether the next step of an address is its first question to the wire.
    fn begins_to_ask(&self, address: IpAddr) -> bool {
        self.places.get(&address).is_some_and(|place| match &place.phase {
            Phase::Standby => !self.is_handed_over(place),
            Phase::Verifying(verifying) => verifying.probe.sent == 0,
            Phase::Caring(_) | Phase::Probing(_) | Phase::Conflicted | Phase::Answering(_) => false,
        })
    }

    fn on_timer(&mut self, due: Duration, timer: Timer) {
        match timer {
            Timer::Beat => {
                self.last_beat = self.now;
                if !self.places.is_empty() {
                    self.timers.set(Timer::Beat, Some(self.now + HEARTBEAT_INTERVAL));
                }
                self.urgent.clear();
                let ids: Vec<PeerId> = self.sessions.keys().copied().collect();
                for id in ids {
                    self.pass_on_again(id);
                    self.tell(id);
                }
            }
            Timer::Silence(id) => self.on_silence(id),
            Timer::Check(id) => self.on_check(id),
            Timer::Step(address) => self.on_step(due, address),
            Timer::Announce(address) => self.announce(address),
            Timer::Calm(address) => self.on_calm(address),
            Timer::Stop => self.end(),
        }
    }

    /// Sends a partner what changed, or else that this node lives.
    fn tell(&mut self, id: PeerId) {
        if let Some(session) = self.sessions.get_mut(&id) {
            let bodies = session.told.changes();
            self.send(id, bodies);
        }
    }

    fn send(&mut self, id: PeerId, bodies: Vec<Body>) {
        let heard = self.sessions.get(&id).map_or(0, |session| session.boot_id);
        self.send_hearing(id, heard, bodies);
    }

    /// Sends a partner something that names this boot id as the one that was heard.
    fn send_hearing(&mut self, id: PeerId, heard_boot_id: u64, bodies: Vec<Body>) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let mut want_sightings = std::mem::take(&mut session.ask_sightings);
        for body in bodies {
            self.sequence += 1;
            self.effects.push_back(Effect::SendHeartbeat {
                to: session.node.clone(),
                address: session.address,
                interface: session.interface.clone(),
                message: Message {
                    sender: self.node.clone(),
                    boot_id: self.boot_id,
                    sequence: self.sequence,
                    heard_boot_id,
                    stopping: self.stopping.is_some(),
                    want_claims: session.heard.asking(),
                    want_sightings: std::mem::take(&mut want_sightings),
                    body,
                },
            });
        }
    }

    fn send_frame(&mut self, interface: String, frame: Frame) {
        self.effects.push_back(Effect::SendFrame { interface, frame });
    }

    /// Silent for good.
    fn end(&mut self) {
        self.stopped = true;
        self.places.clear();
        self.sessions.clear();
        self.ids.clear();
        self.macs.clear();
        self.changed.extend(std::mem::take(&mut self.watched).into_keys());
        self.timers = Queue::new();
        self.checked.clear();
        self.effects.push_back(Effect::Stopped);
    }

    /// Asks the wire whether anybody has the address. Without a wire the question waits for one.
    fn begin_probe(&mut self, address: IpAddr) -> Probe {
        let probe = Probe::begin(self.now);
        if self.is_cut_off(address) {
            self.timers.set(Timer::Step(address), None);
            return probe;
        }
        self.send_probe(address);
        self.timers.set(Timer::Step(address), Some(probe.due));
        probe
    }

    fn is_cut_off(&self, address: IpAddr) -> bool {
        self.places.get(&address).is_some_and(|place| !self.up.contains(&place.me.interface))
    }

    fn send_probe(&mut self, address: IpAddr) {
        let Some(place) = self.places.get(&address) else { return };
        let me = &place.me;
        let frame =
            if place.seen.is_none() { Frame::probe(me.mac, address) } else { Frame::ask(me.mac, me.address, address) };
        let interface = me.interface.clone();
        self.counters.probes.count(address);
        self.send_frame(interface, frame);
    }
}
