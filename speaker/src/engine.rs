//! The one owner of the machine and of the sockets: feeds the machine what happens and does what it says.
//!
//! A turn of the loop waits for anything at all and then serves every source once, each within a bound, the ones that
//! keep other nodes calm first: heartbeats, deadlines, what the cluster says, the interfaces, and last ARP and neighbor discovery, which
//! anybody on the link can send as much of as they like.

use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use berth_api::MacAddr;
use berth_machine::sweep::{Spot, Sweep};
use berth_machine::timing::STOP_GRACE;
use berth_machine::{Assignment, Counters, Effect, Frame, Machine, NodeName, Refresh, State};
use berth_wire::heartbeat::envelope::{Authentication, Envelopes, KeyRing, Refused};
use jiff::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::announcements::Change;
use crate::board::Board;
use crate::clock::{BootClock, wall_at};
use crate::evidence::Ask;
use crate::links::Links;
use crate::metrics::{Listen, Metrics, Queue, Refusal, gauge};
use crate::sockets::{Heard, Sent, Sockets, Watched};

/// Assignments that may wait for the engine. A list of thousands comes faster than it is taken in; the watch waits then, and
/// the API server keeps the rest, so nothing is dropped.
pub const CHANGES_WAITING: usize = 256;

/// Heartbeats read from an interface in a turn: those of a hundred nodes in two thirds of an interval.
const HEARTBEATS_A_TURN: usize = 64;
/// Frames of each family read from an interface in a turn. At some microseconds each, a flood delays a heartbeat by less than one
/// millisecond.
const FRAMES_A_TURN: usize = 64;
/// Assignments taken in a turn, for the same reason.
const CHANGES_A_TURN: usize = 64;

/// Time before sockets that could not be opened are tried again. An interface that just came up may need a moment.
const REOPEN_DELAY: Duration = Duration::from_secs(1);

/// Longest wait for a graceful stop: what the machine asks for, and half as much again in case its own clock stands still.
const STOP_LIMIT: Duration = STOP_GRACE.saturating_add(Duration::from_millis(500));

/// What the engine is given.
#[derive(Debug)]
pub struct Inputs {
    /// This node.
    pub node: NodeName,
    /// UDP port of heartbeats.
    pub heartbeat_port: u16,
    /// Whether heartbeats are authenticated.
    pub authentication: Authentication,
    /// By which keys.
    pub keys: watch::Receiver<Option<KeyRing>>,
    /// The node's interfaces.
    pub links: watch::Receiver<Links>,
    /// What the cluster says.
    pub changes: mpsc::Receiver<Change>,
    /// Where to say who answers.
    pub board: Arc<Board>,
    /// What to count.
    pub metrics: Metrics,
    /// Where to say which partners are heard badly.
    pub late: watch::Sender<Late>,
    /// Where to ask whether the node serves an address.
    pub asks: mpsc::Sender<Ask>,
    /// Which addresses it does.
    pub served: mpsc::Receiver<IpAddr>,
    /// The addresses that are to be asked for ahead of need.
    pub sweep: watch::Receiver<Vec<IpAddr>>,
    /// Where to say who has one of them.
    pub found: watch::Sender<Found>,
    /// The machine's clock.
    pub clock: BootClock,
    /// How often addresses are announced again.
    pub refresh: Option<Refresh>,
}

/// Machines that have addresses which are asked for ahead of need.
pub type Found = BTreeMap<IpAddr, MacAddr>;

/// Partners that are given more time, by name and own interface, with how often their time was doubled.
pub type Late = BTreeMap<(NodeName, String), u32>;

/// The machine, its sockets and what drives both.
#[derive(Debug)]
pub struct Engine {
    sockets: Sockets,
    links: watch::Receiver<Links>,
    changes: mpsc::Receiver<Change>,
    keys: watch::Receiver<Option<KeyRing>>,
    served: mpsc::Receiver<IpAddr>,
    wanted: watch::Receiver<Vec<IpAddr>>,
    core: Core,
    /// When what could not be had is tried again.
    reopen_at: Option<Duration>,
}

/// What is needed while the sockets are being read.
#[derive(Debug)]
struct Core {
    node: NodeName,
    machine: Machine,
    envelopes: Envelopes,
    clock: BootClock,
    board: Arc<Board>,
    metrics: Metrics,
    counted: Counters,
    /// Our own address towards each partner on each interface, as the Announcements say: where partners expect us to be
    /// heard from. No more entries than there are nodes on our links.
    sources: BTreeMap<(String, IpAddr), IpAddr>,
    /// What could not be listened for on an interface when it was last tried. It is tried again until it can, and said once.
    failing: BTreeSet<(String, Listen)>,
    /// Partners that are given more time.
    late: Late,
    late_out: watch::Sender<Late>,
    asks: mpsc::Sender<Ask>,
    sweep: Sweep,
    found_out: watch::Sender<Found>,
    /// What this node answers for may have changed since it was counted.
    recount: bool,
    stopped: bool,
}

impl Engine {
    /// An engine that has not begun. Opens no socket yet.
    pub fn new(inputs: Inputs) -> Self {
        let Inputs {
            node,
            heartbeat_port,
            authentication,
            mut keys,
            links,
            changes,
            board,
            metrics,
            late: late_out,
            asks,
            served,
            sweep: wanted,
            found: found_out,
            clock,
            refresh,
        } = inputs;
        let machine = Machine::new(node.clone(), boot_id(), clock.now()).refreshing(refresh);
        // Those that are there at the start are used from the start.
        keys.mark_changed();
        let core = Core {
            envelopes: Envelopes::new(node.clone(), authentication),
            node,
            machine,
            clock,
            board,
            metrics,
            counted: Counters::default(),
            sources: BTreeMap::new(),
            failing: BTreeSet::new(),
            late: Late::new(),
            late_out,
            asks,
            sweep: Sweep::default(),
            found_out,
            recount: false,
            stopped: false,
        };
        let sockets = Sockets::new(heartbeat_port);
        Self { sockets, links, changes, keys, served, wanted, core, reopen_at: None }
    }

    /// Runs until `shutdown`, then hands its addresses to the standbys and returns.
    pub async fn run(mut self, shutdown: CancellationToken) {
        self.follow_links();
        let mut stop_by = None;
        let (mut changes_open, mut links_open, mut keys_open) = (true, true, true);
        let (mut served_open, mut wanted_open) = (true, true);
        while !self.core.stopped {
            let wake_at = self.wake_at(stop_by);
            let (mut first, mut links_changed, mut wanted_changed) = (None, false, false);
            tokio::select! {
                () = shutdown.cancelled(), if stop_by.is_none() => {
                    let now = self.core.clock.now();
                    stop_by = Some(now + STOP_LIMIT);
                    self.core.machine.stop(now);
                    self.core.perform(&self.sockets);
                }
                () = sleep_until(wake_at.unwrap_or_else(Instant::now)), if wake_at.is_some() => {}
                () = poll_fn(|cx| self.sockets.poll_readable(cx)) => {}
                change = self.changes.recv(), if changes_open => {
                    changes_open = change.is_some();
                    first = change;
                }
                changed = self.links.changed(), if links_open => {
                    links_open = changed.is_ok();
                    links_changed = true;
                }
                address = self.served.recv(), if served_open => {
                    served_open = address.is_some();
                    if let Some(address) = address {
                        self.core.machine.serves(self.core.clock.now(), address);
                        self.core.perform(&self.sockets);
                    }
                }
                changed = self.wanted.changed(), if wanted_open => {
                    wanted_open = changed.is_ok();
                    wanted_changed = true;
                }
                changed = self.keys.changed(), if keys_open => {
                    keys_open = changed.is_ok();
                    if let Some(ring) = self.keys.borrow_and_update().clone() {
                        self.core.envelopes.set_ring(ring);
                    }
                }
            }
            let links_followed = self.turn(first, links_changed);
            if links_followed || wanted_changed {
                self.follow_sweep();
            }
            if stop_by.is_some_and(|limit| self.core.clock.now() >= limit) {
                tracing::warn!("stopping without a word from the standbys");
                break;
            }
        }
    }

    /// Serves every source once. Returns whether the interfaces were looked at.
    fn turn(&mut self, first: Option<Change>, links_changed: bool) -> bool {
        let Self { sockets, core, changes, .. } = self;
        let shared: &Sockets = sockets;
        shared.read_heartbeats(HEARTBEATS_A_TURN, |interface, from, bytes| {
            core.heartbeat(shared, interface, from, bytes);
        });
        core.tick(sockets);
        let more = std::iter::from_fn(|| changes.try_recv().ok());
        for change in first.into_iter().chain(more).take(CHANGES_A_TURN) {
            core.change(change);
        }
        // The kernel has to let the answers in before the wire is asked.
        core.watch_addresses(sockets);
        core.perform(sockets);
        let retry = self.reopen_at.is_some_and(|at| self.core.clock.now() >= at);
        // One that comes during a turn is taken up in the next.
        let follows = retry || links_changed;
        if follows {
            self.follow_links();
        }
        if retry {
            self.core.watch_failing(&mut self.sockets);
        }
        let Self { sockets, core, .. } = self;
        let shared: &Sockets = sockets;
        shared.read_frames(FRAMES_A_TURN, |interface, bytes| core.frame(shared, interface, bytes));
        core.watch_addresses(sockets);
        core.count();
        self.reopen_at = if self.core.failing.is_empty() {
            None
        } else {
            self.reopen_at.filter(|_| !retry).or_else(|| Some(self.core.clock.now() + REOPEN_DELAY))
        };
        follows
    }

    /// When the next turn is due without anything happening.
    fn wake_at(&self, stop_by: Option<Duration>) -> Option<Instant> {
        let deadlines = [self.core.machine.next_deadline(), self.core.sweep.next_deadline(), self.reopen_at, stop_by];
        let next = deadlines.into_iter().flatten().min()?;
        Some(Instant::now() + next.saturating_sub(self.core.clock.now()))
    }

    /// Asks for what is to be asked for ahead of need, where the node has a place for it.
    fn follow_sweep(&mut self) {
        let Self { sockets, links, wanted, core, .. } = self;
        let before: BTreeSet<String> = core.sweep.interfaces().map(str::to_owned).collect();
        let (links, wanted) = (links.borrow().clone(), wanted.borrow_and_update().clone());
        let spots = wanted.into_iter().filter_map(|address| Some((address, spot(&links, address)?)));
        core.sweep.follow(core.clock.now(), spots);
        let concerned = before.into_iter().chain(core.sweep.interfaces().map(str::to_owned)).collect();
        // The kernel has to let the answers in before the wire is asked.
        core.watch_on(sockets, concerned);
        core.tell_found();
    }

    /// Opens and closes sockets as interfaces come and go, and tells the machine.
    fn follow_links(&mut self) {
        let Self { sockets, links, core, .. } = self;
        let links = links.borrow_and_update().clone();
        let (machine, sweep) = (&core.machine, &core.sweep);
        let followed = sockets.follow(&links, |interface| watched(machine, sweep, interface));
        core.failing.retain(|(interface, _)| links.contains_key(interface));
        let now = core.clock.now();
        for interface in followed.closed {
            tracing::info!(interface, "no longer listening: the interface is gone, down, or without a carrier");
            core.failing.retain(|(failing, _)| *failing != interface);
            core.machine.link_changed(now, &interface, false);
        }
        for (interface, result) in followed.opened {
            let open = result.is_ok();
            if open {
                tracing::info!(interface, "listening");
            }
            core.machine.link_changed(now, &interface, open);
            core.note_heard(&interface, (Listen::Everything, result));
        }
        for (interface, heard) in followed.heard {
            core.note_heard(&interface, heard);
        }
        core.metrics.groups_refused.set(gauge(sockets.groups_refused()));
        core.perform(sockets);
    }
}

impl Core {
    fn heartbeat(&mut self, sockets: &Sockets, interface: &str, from: IpAddr, bytes: &[u8]) {
        match self.envelopes.open(bytes) {
            Ok(message) => {
                tracing::trace!(interface, %from, node = %message.sender, "heartbeat");
                self.machine.heartbeat_received(self.clock.now(), interface, &message);
                self.perform(sockets);
            }
            Err(error) => {
                let cause = match error {
                    Refused::Malformed(_) => Refusal::Malformed,
                    Refused::Unauthenticated => Refusal::Unauthenticated,
                    Refused::UnknownGeneration(_) => Refusal::UnknownGeneration,
                    Refused::BadTag => Refusal::BadTag,
                };
                self.metrics.heartbeat_refused(cause, 1);
                tracing::debug!(interface, %from, %error, "datagram refused");
            }
        }
    }

    fn frame(&mut self, sockets: &Sockets, interface: &str, bytes: &[u8]) {
        match Frame::parse(bytes) {
            Ok(frame) => {
                tracing::debug!(interface, ?frame, "frame received");
                self.machine.frame_received(self.clock.now(), interface, &frame);
                self.perform(sockets);
                self.sweep.frame_received(interface, &frame);
                self.tell_found();
            }
            Err(error) => tracing::debug!(interface, %error, "frame refused"),
        }
    }

    fn tick(&mut self, sockets: &Sockets) {
        let now = self.clock.now();
        if self.machine.next_deadline().is_some_and(|deadline| deadline <= now) {
            self.machine.tick(now);
            self.perform(sockets);
        }
        if self.sweep.next_deadline().is_some_and(|deadline| deadline <= now) {
            for (interface, frame) in self.sweep.tick(now) {
                self.metrics.sweep_probes.inc();
                self.send_frame(sockets, &interface, &frame);
            }
            self.tell_found();
        }
    }

    /// Says who has an address that nobody uses, where that changed.
    fn tell_found(&self) {
        let found = self.sweep.found();
        self.found_out.send_if_modified(|said| {
            let news = *said != found;
            *said = found;
            news
        });
    }

    /// Takes in what the cluster says; what follows from it is done for many of them at once.
    fn change(&mut self, change: Change) {
        let now = self.clock.now();
        self.recount = true;
        match change {
            Change::Assign(assignment) => {
                self.learn_sources(&assignment);
                let address = assignment.address;
                self.machine.assign(now, assignment);
                if self.machine.state(address).is_none() {
                    self.board.release(address);
                }
            }
            Change::Withdraw(address) => {
                if self.machine.state(address) == Some(State::Answering) {
                    tracing::info!(%address, node = %self.node, "no longer answering: the node has no part in the address any more");
                }
                self.board.release(address);
                self.machine.withdraw(now, address);
            }
            Change::Quiet => {
                self.machine.pack();
                self.board.pack();
                berth_sys::return_freed();
            }
        }
    }

    fn learn_sources(&mut self, assignment: &Assignment) {
        let Some(own) = assignment.members.iter().find(|member| member.node == self.node) else { return };
        for partner in assignment.members.iter().filter(|member| member.node != self.node) {
            self.sources.insert((own.interface.clone(), partner.address), own.address);
        }
    }

    /// Does what the machine wants done.
    fn perform(&mut self, sockets: &Sockets) {
        while let Some(effect) = self.machine.poll_effect() {
            match effect {
                Effect::SendHeartbeat { to, address, interface, message } => {
                    // Without a key nobody would believe it.
                    let Some(bytes) = self.envelopes.seal(&to, &message) else { continue };
                    // Without an own address for the partner the kernel would choose one, which it may not know us by.
                    let from = self.sources.get(&(interface.clone(), address)).copied();
                    let sent = sockets.send_heartbeat(&interface, from, address, &bytes);
                    if matches!(sent, Sent::Yes) {
                        self.metrics.heartbeats_sent.inc();
                    }
                    self.note_sent(&interface, &sent, Queue::Heartbeat);
                    tracing::trace!(interface, %address, node = %to, ?sent, "heartbeat sent");
                }
                Effect::SeekEvidence { address, interface, sought } => {
                    // Without an interface nothing is answered either.
                    let Some(link) = sockets.link(&interface) else { continue };
                    let own = sockets.addresses().collect();
                    let ask = Ask { address, interface_index: link.index, mac: link.mac, own, sought };
                    if self.asks.try_send(ask).is_err() {
                        self.metrics.dropped(Queue::Evidence);
                    }
                }
                Effect::SendFrame { interface, frame } => self.send_frame(sockets, &interface, &frame),
                Effect::StatusChanged { address, status } => {
                    self.recount = true;
                    let reason = status.cause.as_str();
                    if status.state == State::Answering {
                        tracing::info!(%address, node = %self.node, interface = status.interface, mac = %status.mac, epoch = status.epoch, reason, "answering");
                    }
                    if let Some(owner) = &status.owner {
                        tracing::info!(%address, node = %self.node, %owner, epoch = status.epoch, "answering in place of the owner, whose speaker is silent");
                    }
                    if let Some(foreign) = status.foreign {
                        tracing::warn!(%address, node = %self.node, interface = status.interface, %foreign, reason, "a machine that is none of our nodes has the address");
                    }
                    let since = wall_at(status.since, self.clock.now(), Timestamp::now());
                    self.board.report(self.node.as_str(), address, status, since);
                }
                Effect::Yielded { address, to, epoch } => {
                    self.recount = true;
                    let to = to.as_ref().map(NodeName::as_str);
                    tracing::info!(%address, node = %self.node, to, epoch, "no longer answering");
                    self.board.retract(address);
                }
                Effect::TookOver { silent_for } => self.metrics.takeover_silence.observe(silent_for.as_secs_f64()),
                Effect::Unsteady { partner, interface, doublings } => {
                    self.note_steadiness(partner, interface, doublings);
                }
                Effect::Stopped => self.stopped = true,
            }
        }
    }

    /// A partner is given more time than others, or no longer.
    fn note_steadiness(&mut self, partner: NodeName, interface: String, doublings: u32) {
        tracing::warn!(node = %self.node, %partner, interface, doublings, "the detection time of a partner changed, after false alarms or a calm");
        let key = (partner, interface);
        if doublings == 0 {
            self.late.remove(&key);
        } else {
            self.late.insert(key, doublings);
        }
        self.metrics.partners_late.set(gauge(self.late.len()));
        self.late_out.send_replace(self.late.clone());
    }

    fn send_frame(&mut self, sockets: &Sockets, interface: &str, frame: &Frame) {
        let sent = sockets.send_frame(interface, frame);
        let queue = match frame {
            Frame::Arp(_) => Queue::Arp,
            Frame::Ndp(_) => Queue::Ndp,
        };
        self.note_sent(interface, &sent, queue);
        tracing::debug!(interface, ?frame, ?sent, "frame sent");
    }

    fn note_sent(&self, interface: &str, sent: &Sent, queue: Queue) {
        match sent {
            Sent::QueueFull => self.metrics.dropped(queue),
            // That an interface is away is known from the interfaces already.
            Sent::Yes | Sent::NoInterface => {}
            Sent::Failed(error) => tracing::debug!(interface, %error, "cannot send"),
        }
    }

    /// Tells the kernel which addresses to let in, where that changed in this turn.
    fn watch_addresses(&mut self, sockets: &mut Sockets) {
        let changed = self.machine.take_changed_interfaces();
        self.watch_on(sockets, changed);
    }

    /// The same where the kernel would not, or not all of it.
    fn watch_failing(&mut self, sockets: &mut Sockets) {
        let failing = self.failing.iter().map(|(interface, _)| interface.clone()).collect();
        self.watch_on(sockets, failing);
        self.perform(sockets);
    }

    fn watch_on(&mut self, sockets: &mut Sockets, interfaces: BTreeSet<String>) {
        if interfaces.is_empty() {
            return;
        }
        for interface in interfaces {
            for heard in sockets.watch(&interface, &watched(&self.machine, &self.sweep, &interface)) {
                let (what, recovered) = (heard.0, self.note_heard(&interface, heard));
                if recovered && what == Listen::Ndp {
                    // Without the socket nothing was sent either, so nobody heard what the machine had to say: as after a cut link.
                    let now = self.clock.now();
                    self.machine.link_changed(now, &interface, false);
                    self.machine.link_changed(now, &interface, true);
                }
            }
        }
        self.metrics.groups_refused.set(gauge(sockets.groups_refused()));
    }

    /// Remembers what could not be listened for, says so once, and counts each time. Whether it can now, and could not before.
    fn note_heard(&mut self, interface: &str, (what, result): Heard) -> bool {
        let key = (interface.to_owned(), what);
        let Err(error) = result else { return self.failing.remove(&key) };
        self.metrics.listen_error(what);
        if self.failing.insert(key) {
            let consequence = match what {
                Listen::Everything => "cannot open sockets",
                Listen::Arp => "cannot listen for ARP about the present addresses",
                Listen::Ndp => "cannot listen for neighbor discovery about the present addresses",
                Listen::Groups => {
                    "cannot join groups by which addresses are asked for; where switches follow memberships, questions may not arrive"
                }
                Listen::Heartbeat6 => "cannot open a socket for heartbeats over IPv6",
            };
            tracing::warn!(interface, %error, "{consequence}; trying again until it works");
        }
        false
    }

    /// Brings the metrics up to date with what the machine counted.
    fn count(&mut self) {
        let (now, before) = (self.machine.counters(), self.counted);
        if now != before {
            self.metrics.arp_replies.inc_by(now.replies.ipv4 - before.replies.ipv4);
            self.metrics.ndp_replies.inc_by(now.replies.ipv6 - before.replies.ipv6);
            self.metrics.gratuitous.inc_by(now.announcements.ipv4 - before.announcements.ipv4);
            self.metrics.unsolicited.inc_by(now.announcements.ipv6 - before.announcements.ipv6);
            self.metrics.takeovers.inc_by(now.takeovers - before.takeovers);
            self.metrics.false_alarms.inc_by(now.false_alarms - before.false_alarms);
            self.metrics.caretakings.inc_by(now.caretakings - before.caretakings);
            self.metrics.claims_passed_on.inc_by(now.passed_on - before.passed_on);
            self.metrics.node_checks.inc_by(now.checks.total() - before.checks.total());
            self.recount |= (now.caretakings, now.care_ends) != (before.caretakings, before.care_ends);
            self.metrics.yields.inc_by(now.yields - before.yields);
            self.metrics.fenced.inc_by(now.fenced - before.fenced);
            self.metrics.arp_probes.inc_by(now.probes.ipv4 - before.probes.ipv4);
            self.metrics.ndp_probes.inc_by(now.probes.ipv6 - before.probes.ipv6);
            self.metrics.conflicts.inc_by(now.conflicts - before.conflicts);
            self.metrics.heartbeats_received.inc_by(now.heartbeats - before.heartbeats);
            self.metrics.heartbeat_refused(Refusal::Unknown, now.refused_unknown - before.refused_unknown);
            self.metrics.heartbeat_refused(Refusal::Sequence, now.refused_sequence - before.refused_sequence);
            self.metrics.heartbeat_refused(Refusal::BootId, now.refused_boot_id - before.refused_boot_id);
            self.metrics.heartbeat_refused(Refusal::Unproven, now.refused_unproven - before.refused_unproven);
            self.counted = now;
        }
        // A handful, whatever the number of addresses.
        let (mut partners, mut up) = (0, 0);
        for (_, heard) in self.machine.partners() {
            partners += 1;
            up += usize::from(heard);
        }
        self.metrics.partners.set(gauge(partners));
        self.metrics.partners_up.set(gauge(up));
        if std::mem::take(&mut self.recount) {
            let answering = self.machine.answering().count();
            let interfaces: Vec<&str> = self.machine.watched_interfaces().collect();
            let all: usize =
                interfaces.into_iter().map(|interface| self.machine.watched_addresses(interface).count()).sum();
            let caring = self.machine.caring();
            self.metrics.addresses_answering.set(gauge(answering));
            self.metrics.addresses_caring.set(i64::try_from(caring).unwrap_or(i64::MAX));
            self.metrics.addresses_standby.set(gauge(all.saturating_sub(answering)));
        }
    }
}

/// What is to be heard on an interface.
fn watched(machine: &Machine, sweep: &Sweep, interface: &str) -> Watched {
    Watched {
        addresses: machine.watched_addresses(interface).collect(),
        partners: machine.partner_addresses(interface).into_iter().chain(sweep.addresses(interface)).collect(),
    }
}

/// Where an address would be: the first interface in whose subnet it lies.
fn spot(links: &Links, address: IpAddr) -> Option<Spot> {
    let found = links
        .iter()
        .find_map(|(name, link)| Some((name, link, link.addresses.iter().find(|net| net.contains(&address))?)));
    let (name, link, net) = found?;
    Some(Spot { interface: name.clone(), mac: link.mac, own: net.addr() })
}

/// Names this start of the process: no two share it, and nobody can guess it, because partners prove by it that they hear this node.
fn boot_id() -> u64 {
    // The state is keyed with random numbers of the operating system.
    RandomState::new().hash_one(Timestamp::now().as_nanosecond()).max(1)
}

#[cfg(test)]
mod tests;
