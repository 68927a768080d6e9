//! The virtual link, its clock, its API server and its judge.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use berth_api::MacAddr;
use berth_wire::arp::{self, ArpPacket, Operation};
use berth_wire::heartbeat::{Message, NodeName};
use berth_wire::ndp;

use crate::{Assignment, Effect, Frame, Machine, Member, OwnerClaim, State, Status};

/// The bound of the design, on both "nobody answers" and "two answer".
pub(super) const BOUND: Duration = Duration::from_millis(500);

pub(super) fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

thread_local! {
    /// Whether worlds of this thread keep a history, which costs more than all else.
    static VERBOSE: Cell<bool> = const { Cell::new(false) };
    /// Which of two addresses that follow each other is the one of IPv6.
    static ODD: Cell<bool> = const { Cell::new(true) };
}

/// Seeds for each test: enough to catch every broken rule within seconds. `BERTH_SIM_SEEDS` asks for more.
const SEEDS: u64 = 100;

/// Runs a test over seeds, in half of them with the address families the other way round. One that fails is run again with its history.
pub(super) fn each_seed(test: impl Fn(u64)) {
    let seeds = std::env::var("BERTH_SIM_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(SEEDS);
    for seed in 0..seeds {
        ODD.set(seed / 2 % 2 == 0);
        if catch_unwind(AssertUnwindSafe(|| test(seed))).is_err() {
            VERBOSE.set(true);
            test(seed);
        }
    }
}

/// SplitMix64: small, and the same everywhere.
pub(super) struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    pub(super) fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// What the wire does to what is sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wire {
    pub(super) heartbeat_loss: u64,
    pub(super) arp_loss: u64,
    pub(super) duplicates: u64,
    /// Longest delay, in microseconds.
    pub(super) delay_max: u64,
    /// Whether what was sent later may arrive earlier, which on one link and between two nodes is rare.
    pub(super) reorders: bool,
}

impl Wire {
    pub(super) const CLEAN: Self =
        Self { heartbeat_loss: 0, arp_loss: 0, duplicates: 0, delay_max: 500, reorders: false };
}

#[allow(clippy::struct_excessive_bools, reason = "each is a fault of its own, in any combination")]
pub(super) struct Node {
    pub(super) name: NodeName,
    pub(super) mac: MacAddr,
    pub(super) ip: Ipv4Addr,
    pub(super) ip6: Ipv6Addr,
    pub(super) machine: Option<Machine>,
    /// Whether the machine that it runs on has power: its kernel answers for its own addresses, and forwards.
    pub(super) powered: bool,
    pub(super) paused: bool,
    /// What came while it was paused.
    queued: Vec<Input>,
    boots: u64,
    /// Each node's clock is its own.
    clock: Duration,
    pub(super) api_reachable: bool,
    /// Whether its driver holds the link to be up.
    linked: bool,
    /// Highest epoch that this process ever said for an address.
    epochs: BTreeMap<IpAddr, u64>,
}

impl Node {
    /// Its own address, of the family of this one.
    fn address(&self, like: IpAddr) -> IpAddr {
        if like.is_ipv4() { self.ip.into() } else { self.ip6.into() }
    }
}

#[derive(Clone)]
enum Input {
    Heartbeat(Message),
    Frame(Frame),
}

enum Event {
    Deliver(usize, Input),
    Assign(usize, Assignment),
    Wake(usize, u64),
    Link(usize, bool),
    Ask,
}

/// One address in the API server.
#[derive(Clone)]
pub(super) struct Announced {
    pub(super) owner: usize,
    pub(super) standbys: Vec<usize>,
    pub(super) epoch: u64,
    pub(super) claimed: Option<OwnerClaim>,
}

pub(super) struct World {
    pub(super) seed: u64,
    pub(super) now: Duration,
    pub(super) rng: Rng,
    pub(super) wire: Wire,
    pub(super) nodes: Vec<Node>,
    /// Which part of the link each node is in.
    pub(super) sides: Vec<u8>,
    pub(super) api: BTreeMap<IpAddr, Announced>,
    /// Whether the controller adopts what speakers claim.
    pub(super) adopts: bool,
    /// Pairs between which heartbeats are dropped, though not ARP.
    pub(super) deaf: BTreeSet<(usize, usize)>,
    /// Pairs between which nothing passes, in this direction.
    pub(super) cut: BTreeSet<(usize, usize)>,
    /// A machine that is none of ours and has this address.
    pub(super) foreign: Option<(IpAddr, MacAddr)>,
    events: BTreeMap<(Duration, u64), Event>,
    order: u64,
    /// When the last packet arrives that is on its way.
    arrivals: BTreeMap<(usize, usize), Duration>,
    wakes: Vec<u64>,
    pub(super) history: Vec<String>,
    pub(super) statuses: Vec<(Duration, usize, IpAddr, Status)>,
    pub(super) stopped: Vec<usize>,
    /// Replies that the client got: when, for what, from whom.
    pub(super) replies: Vec<(Duration, IpAddr, MacAddr)>,
    /// Since when the judge sees none, or several that could hear each other.
    none_since: BTreeMap<IpAddr, Duration>,
    many_since: BTreeMap<IpAddr, Duration>,
    pub(super) longest_none: BTreeMap<IpAddr, Duration>,
    pub(super) longest_many: BTreeMap<IpAddr, Duration>,
    pub(super) datagrams: u64,
    /// Datagrams that somebody on the link recorded, to be sent again.
    recorded: Vec<(usize, Message)>,
    /// Whether somebody does.
    pub(super) replayed: bool,
    /// When a machine last said that it cares for an address, by node.
    pub(super) cares: Vec<(Duration, usize, IpAddr)>,
    /// What machines said of partners that they hear badly.
    pub(super) unsteady: Vec<(usize, NodeName, u32)>,
    /// Frames sent, by the address that they are about.
    pub(super) frames: BTreeMap<IpAddr, u64>,
    /// Most frames sent within a millisecond, and those of the present one.
    pub(super) busiest: u64,
    busy: (u128, u64),
    /// Whether gaps are watched for: not in a test with very many addresses.
    pub(super) judged: bool,
}

pub(super) const CLIENT: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xcc]);
const CLIENT_IP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 200);
const CLIENT_IP6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 200);

/// Addresses of both families in turns; which one is first differs by seed.
pub(super) fn vip(n: u8) -> IpAddr {
    if (n % 2 == 1) == ODD.get() {
        Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 100 + u16::from(n)).into()
    } else {
        Ipv4Addr::new(192, 0, 2, 100 + n).into()
    }
}

impl World {
    pub(super) fn new(seed: u64, nodes: usize) -> Self {
        let mut rng = Rng(seed);
        let nodes = (0..nodes)
            .map(|i| Node {
                name: NodeName::new(&format!("node-{}", char::from(b'a' + i as u8))).unwrap(),
                mac: MacAddr([2, 0, 0, 0, 0, i as u8 + 1]),
                ip: Ipv4Addr::new(192, 0, 2, i as u8 + 1),
                ip6: Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, i as u16 + 1),
                machine: None,
                powered: true,
                paused: false,
                queued: Vec::new(),
                boots: 0,
                clock: Duration::from_secs(rng.below(1_000_000)),
                api_reachable: true,
                linked: true,
                epochs: BTreeMap::new(),
            })
            .collect::<Vec<_>>();
        let mut world = Self {
            seed,
            now: Duration::ZERO,
            rng,
            wire: Wire::CLEAN,
            sides: vec![0; nodes.len()],
            wakes: vec![0; nodes.len()],
            nodes,
            api: BTreeMap::new(),
            adopts: false,
            deaf: BTreeSet::new(),
            cut: BTreeSet::new(),
            foreign: None,
            events: BTreeMap::new(),
            order: 0,
            arrivals: BTreeMap::new(),
            history: Vec::new(),
            statuses: Vec::new(),
            stopped: Vec::new(),
            replies: Vec::new(),
            none_since: BTreeMap::new(),
            many_since: BTreeMap::new(),
            longest_none: BTreeMap::new(),
            longest_many: BTreeMap::new(),
            datagrams: 0,
            recorded: Vec::new(),
            replayed: false,
            cares: Vec::new(),
            unsteady: Vec::new(),
            frames: BTreeMap::new(),
            busiest: 0,
            busy: (0, 0),
            judged: true,
        };
        for node in 0..world.nodes.len() {
            world.start(node);
        }
        world
    }

    /// A world where node 0 answers for address 0 and the others stand by, in order.
    pub(super) fn serving(seed: u64, nodes: usize) -> Self {
        let mut world = Self::new(seed, nodes);
        world.announce(vip(0), 0, (1..nodes).collect(), 1);
        world.run(ms(1_000));
        assert_eq!(world.answering(vip(0)), [0], "{}", world.story());
        world.forget_gaps();
        world
    }

    pub(super) fn forget_gaps(&mut self) {
        self.longest_none.clear();
        self.longest_many.clear();
        for since in self.none_since.values_mut().chain(self.many_since.values_mut()) {
            *since = self.now;
        }
    }

    pub(super) fn note(&mut self, what: impl FnOnce() -> String) {
        if VERBOSE.get() {
            self.history.push(format!("{:>9.3} {}", self.now.as_secs_f64(), what()));
        }
    }

    /// What happened, for a person.
    pub(super) fn story(&self) -> String {
        let from = self.history.len().saturating_sub(250);
        format!("seed {}\n{}", self.seed, self.history[from..].join("\n"))
    }

    fn schedule(&mut self, after: Duration, event: Event) {
        self.order += 1;
        self.events.insert((self.now + after, self.order), event);
    }

    // What a test does to the world.

    pub(super) fn start(&mut self, node: usize) {
        let now = self.now;
        let it = &mut self.nodes[node];
        it.boots += 1;
        it.powered = true;
        it.paused = false;
        it.queued.clear();
        it.epochs.clear();
        let boot_id = (node as u64 + 1) * 1_000 + it.boots;
        it.machine = Some(Machine::new(it.name.clone(), boot_id, it.clock + now));
        self.note(|| format!("start {node}"));
        let linked = self.nodes[node].linked;
        self.act(node, |machine, now| machine.link_changed(now, "eth0", linked));
        for address in self.api.keys().copied().collect::<Vec<_>>() {
            self.publish_to(address, node);
        }
    }

    /// The process dies, the node lives.
    pub(super) fn kill(&mut self, node: usize) {
        self.note(|| format!("kill the speaker of {node}"));
        self.nodes[node].machine = None;
        self.judge();
    }

    /// The node dies.
    pub(super) fn crash(&mut self, node: usize) {
        self.note(|| format!("crash {node}"));
        self.nodes[node].machine = None;
        self.nodes[node].powered = false;
        self.judge();
    }

    pub(super) fn pause(&mut self, node: usize) {
        self.note(|| format!("pause {node}"));
        self.nodes[node].paused = true;
        self.judge();
    }

    /// The whole machine stands still, as a virtual one does when its host moves it.
    pub(super) fn suspend(&mut self, node: usize) {
        self.nodes[node].powered = false;
        self.pause(node);
    }

    /// Goes on with the oldest packet first, as a socket would, or with what is due.
    pub(super) fn resume(&mut self, node: usize) {
        self.note(|| format!("resume {node}"));
        self.nodes[node].paused = false;
        self.nodes[node].powered = true;
        if self.rng.percent(50) {
            self.act(node, Machine::tick);
        }
        for input in std::mem::take(&mut self.nodes[node].queued) {
            self.deliver(node, input);
        }
        self.act(node, Machine::tick);
    }

    pub(super) fn stop(&mut self, node: usize) {
        self.note(|| format!("stop {node}"));
        self.act(node, Machine::stop);
    }

    pub(super) fn partition(&mut self, sides: &[u8]) {
        self.note(|| format!("sides {sides:?}"));
        self.sides = sides.to_vec();
        self.judge();
    }

    pub(super) fn announce(&mut self, address: IpAddr, owner: usize, standbys: Vec<usize>, epoch: u64) {
        self.note(|| format!("assign {address} to {owner}, then {standbys:?}, epoch {epoch}"));
        let claimed = self.api.get(&address).and_then(|announced| announced.claimed.clone());
        self.api.insert(address, Announced { owner, standbys, epoch, claimed });
        self.judge();
        self.publish(address);
    }

    pub(super) fn ask_every(&mut self, every: Duration, times: u32) {
        for i in 0..times {
            self.schedule(every * i, Event::Ask);
        }
    }

    /// One node reads this in the Announcement.
    pub(super) fn tell(&mut self, node: usize, assignment: Assignment) {
        self.schedule(Duration::ZERO, Event::Assign(node, assignment));
    }

    fn publish(&mut self, address: IpAddr) {
        for node in 0..self.nodes.len() {
            self.publish_to(address, node);
        }
    }

    pub(super) fn publish_to(&mut self, address: IpAddr, node: usize) {
        if !self.nodes[node].api_reachable {
            return;
        }
        let assignment = self.assignment(address);
        let after = ms(1 + self.rng.below(15));
        self.schedule(after, Event::Assign(node, assignment));
    }

    pub(super) fn assignment(&self, address: IpAddr) -> Assignment {
        let announced = &self.api[&address];
        let name = |i: usize| self.nodes[i].name.clone();
        let members = std::iter::once(announced.owner).chain(announced.standbys.iter().copied()).map(|i| Member {
            node: name(i),
            interface: "eth0".to_owned(),
            address: self.nodes[i].address(address),
            mac: self.nodes[i].mac,
        });
        Assignment {
            address,
            owner: Some(name(announced.owner)),
            standbys: announced.standbys.iter().map(|i| name(*i)).collect(),
            epoch: announced.epoch,
            members: members.map(Arc::new).collect(),
            claimed: announced.claimed.clone(),
            sought: None,
            serving: false,
        }
    }

    /// Takes a node off the link, or puts it back. Its driver notices within a while.
    pub(super) fn plug(&mut self, node: usize, up: bool) {
        self.note(|| format!("link of {node} {}", if up { "mended" } else { "cut" }));
        self.sides[node] = if up { 0 } else { node as u8 + 1 };
        self.judge();
        let notices = ms(self.rng.below(50));
        self.schedule(notices, Event::Link(node, up));
    }

    /// Everything whole again, and known to everybody.
    pub(super) fn heal(&mut self) {
        self.wire = Wire::CLEAN;
        self.deaf.clear();
        self.cut.clear();
        self.partition(&vec![0; self.nodes.len()]);
        for node in 0..self.nodes.len() {
            self.nodes[node].api_reachable = true;
            if self.nodes[node].paused {
                self.resume(node);
            }
            if self.nodes[node].machine.is_none() {
                self.start(node);
            }
            self.nodes[node].powered = true;
        }
        for address in self.api.keys().copied().collect::<Vec<_>>() {
            self.publish(address);
        }
    }

    // How the world goes on.

    pub(super) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some((&(at, _), _)) = self.events.first_key_value()
            && at <= end
        {
            let ((at, _), event) = self.events.pop_first().unwrap();
            self.now = at;
            match event {
                Event::Deliver(node, input) => self.deliver(node, input),
                Event::Assign(node, assignment) => {
                    if self.nodes[node].machine.is_some() && !self.nodes[node].paused {
                        self.act(node, |machine, now| machine.assign(now, assignment));
                    }
                }
                Event::Wake(node, wake) => {
                    if self.wakes[node] == wake && !self.nodes[node].paused {
                        self.act(node, Machine::tick);
                    }
                }
                Event::Link(node, up) => {
                    self.nodes[node].linked = up;
                    self.act(node, |machine, now| machine.link_changed(now, "eth0", up));
                }
                Event::Ask => self.ask(),
            }
        }
        self.now = end;
        self.judge();
    }

    fn deliver(&mut self, node: usize, input: Input) {
        if self.nodes[node].machine.is_none() {
            return;
        }
        if self.nodes[node].paused {
            self.nodes[node].queued.push(input);
            return;
        }
        match input {
            Input::Heartbeat(message) => {
                self.act(node, |machine, now| machine.heartbeat_received(now, "eth0", &message));
            }
            Input::Frame(frame) => self.act(node, |machine, now| machine.frame_received(now, "eth0", &frame)),
        }
    }

    /// Lets a machine do something, carries out what it wants and sets its alarm clock.
    fn act(&mut self, node: usize, call: impl FnOnce(&mut Machine, Duration)) {
        let now = self.nodes[node].clock + self.now;
        let Some(machine) = &mut self.nodes[node].machine else { return };
        call(machine, now);
        let mut effects = Vec::new();
        while let Some(effect) = machine.poll_effect() {
            effects.push(effect);
        }
        let deadline = machine.next_deadline();
        for effect in effects {
            self.carry_out(node, effect);
        }
        if let Some(deadline) = deadline {
            self.wakes[node] += 1;
            // A process is woken a little late, as on any machine.
            let late = Duration::from_micros(self.rng.below(2_000));
            let after = deadline.saturating_sub(now) + late;
            let wake = self.wakes[node];
            self.schedule(after, Event::Wake(node, wake));
        }
        self.judge();
    }

    fn carry_out(&mut self, node: usize, effect: Effect) {
        match effect {
            Effect::SendHeartbeat { to, address, message, .. } => {
                self.datagrams += 1;
                if self.replayed && self.recorded.len() < 4_096 {
                    let target = self.nodes.iter().position(|other| other.name == to).unwrap();
                    self.recorded.push((target, message.clone()));
                }
                // Everything goes through its bytes, as on a wire.
                let message = Message::parse(&message.emit()).unwrap();
                let target = self.nodes.iter().position(|other| other.name == to && other.address(address) == address);
                let target = target.unwrap();
                if self.deaf.contains(&(node, target)) {
                    return;
                }
                self.put(node, target, self.wire.heartbeat_loss, &Input::Heartbeat(message));
            }
            Effect::SendFrame { frame, .. } => {
                self.note(|| match (frame.question(), frame.claim()) {
                    (Some(address), _) => format!("{node} asks for {address}"),
                    (None, claim) => format!("{node} tells {} that it has {claim:?}", frame.dst()),
                });
                let frame = Frame::parse(&frame.emit()).unwrap();
                self.broadcast(node, frame);
            }
            Effect::StatusChanged { address, status } => {
                self.note(|| {
                    format!("{node} says {address} {:?} {:?} epoch {}", status.state, status.cause, status.epoch)
                });
                if status.state == State::Caring {
                    self.cares.push((self.now, node, address));
                    return;
                }
                let highest = self.nodes[node].epochs.entry(address).or_insert(0);
                assert!(status.epoch >= *highest, "an epoch fell\n{}", self.story());
                *highest = status.epoch;
                self.statuses.push((self.now, node, address, status.clone()));
                self.write(node, address, &status);
            }
            Effect::SeekEvidence { address, .. } => self.note(|| format!("{node} looks whether it serves {address}")),
            Effect::TookOver { silent_for } => self.note(|| format!("{node} takes over after {silent_for:?}")),
            Effect::Unsteady { partner, doublings, .. } => {
                self.note(|| format!("{node} hears {partner} badly: {doublings}"));
                self.unsteady.push((node, partner, doublings));
            }
            Effect::Yielded { address, to, epoch } => {
                self.note(|| format!("{node} yields {address} to {to:?} epoch {epoch}"));
            }
            Effect::Stopped => {
                self.note(|| format!("{node} stopped"));
                self.stopped.push(node);
                self.nodes[node].machine = None;
            }
        }
    }

    fn write(&mut self, node: usize, address: IpAddr, status: &Status) {
        if !self.nodes[node].api_reachable || status.state != State::Answering {
            return;
        }
        let name = self.nodes[node].name.clone();
        let adopts = self.adopts;
        let announced = self.api.get_mut(&address).unwrap();
        if announced.claimed.as_ref().is_some_and(|old| old.epoch > status.epoch) {
            return;
        }
        announced.claimed = Some(OwnerClaim { node: name, epoch: status.epoch });
        if adopts && announced.owner != node && status.epoch > announced.epoch {
            announced.standbys.retain(|standby| *standby != node);
            announced.standbys.push(announced.owner);
            announced.owner = node;
            announced.epoch = status.epoch;
        }
        self.publish(address);
    }

    fn broadcast(&mut self, from: usize, frame: Frame) {
        if let Some(about) = frame.question().or(frame.claim().map(|(address, _)| address)) {
            *self.frames.entry(about).or_default() += 1;
        }
        let millisecond = self.now.as_millis();
        self.busy = if self.busy.0 == millisecond { (millisecond, self.busy.1 + 1) } else { (millisecond, 1) };
        self.busiest = self.busiest.max(self.busy.1);
        // The lowest bit of the first byte marks a group.
        let to_all = frame.dst().0[0] & 1 == 1;
        for target in 0..self.nodes.len() {
            if target != from && (to_all || frame.dst() == self.nodes[target].mac) {
                self.put(from, target, self.wire.arp_loss, &Input::Frame(frame));
                // The node's kernel answers for the node's own addresses, whatever its speaker does.
                let Node { ip, ip6, mac, powered, .. } = self.nodes[target];
                if powered && frame.question().is_some_and(|asked| asked == IpAddr::V4(ip) || asked == IpAddr::V6(ip6))
                {
                    let answer = Input::Frame(Frame::reply_to(&frame, mac));
                    self.put(target, from, self.wire.arp_loss, &answer);
                }
            }
        }
        if let Some((address, mac)) = frame.claim()
            && frame.dst() == CLIENT
        {
            self.replies.push((self.now, address, mac));
        }
        if let Some((address, mac)) = self.foreign
            && frame.question() == Some(address)
        {
            let reply = Input::Frame(Frame::reply_to(&frame, mac));
            self.put(from, from, self.wire.arp_loss, &reply);
        }
    }

    fn put(&mut self, from: usize, to: usize, loss: u64, input: &Input) {
        if self.sides[from] != self.sides[to] || self.cut.contains(&(from, to)) {
            return;
        }
        let copies = 1 + u64::from(self.rng.percent(self.wire.duplicates));
        for _ in 0..copies {
            if !self.rng.percent(loss) {
                let delay = Duration::from_micros(20 + self.rng.below(self.wire.delay_max));
                let last = self.arrivals.entry((from, to)).or_default();
                *last = (self.now + delay).max(if self.wire.reorders { Duration::ZERO } else { *last });
                let after = last.saturating_sub(self.now);
                self.schedule(after, Event::Deliver(to, input.clone()));
            }
        }
    }

    /// The client asks for every address.
    fn ask(&mut self) {
        for address in self.api.keys().copied().collect::<Vec<_>>() {
            let question = match address {
                IpAddr::V4(target_ip) => Frame::Arp(arp::Frame {
                    dst: MacAddr::BROADCAST,
                    src: CLIENT,
                    arp: ArpPacket {
                        operation: Operation::Request,
                        sender_mac: CLIENT,
                        sender_ip: CLIENT_IP,
                        target_mac: MacAddr::ZERO,
                        target_ip,
                    },
                }),
                IpAddr::V6(target) => Frame::Ndp(ndp::Frame::solicit(CLIENT, CLIENT_IP6, target)),
            };
            for node in 0..self.nodes.len() {
                self.schedule(Duration::from_micros(50), Event::Deliver(node, Input::Frame(question)));
            }
        }
    }

    /// Somebody on the link sends again what was sent at some time, to whom it was sent.
    pub(super) fn replay(&mut self, times: usize) {
        for _ in 0..times {
            if self.recorded.is_empty() {
                return;
            }
            let which = self.rng.below(self.recorded.len() as u64) as usize;
            let (target, message) = self.recorded[which].clone();
            let after = ms(self.rng.below(20));
            self.schedule(after, Event::Deliver(target, Input::Heartbeat(message)));
        }
    }

    /// The same in the order in which it was sent, one at a time.
    pub(super) fn replay_next(&mut self) {
        if !self.recorded.is_empty() {
            let (target, message) = self.recorded.remove(0);
            self.schedule(Duration::ZERO, Event::Deliver(target, Input::Heartbeat(message)));
        }
    }

    // What the judge sees.

    /// Nodes that an address is served at: who answers, and on whose node that lives somebody answers in its place.
    pub(super) fn served_at(&self, address: IpAddr) -> Vec<usize> {
        let mut at = self.answering(address);
        for (node, name) in self.caring(address) {
            let cared = self.nodes.iter().position(|other| other.name == name).unwrap();
            if self.nodes[cared].powered && self.sides[cared] == self.sides[node] && !at.contains(&cared) {
                at.push(cared);
            }
        }
        at.sort_unstable();
        at
    }

    /// Who answers in whose place.
    pub(super) fn caring(&self, address: IpAddr) -> Vec<(usize, NodeName)> {
        let cares = |node: &Node| {
            node.machine.as_ref().filter(|_| !node.paused).and_then(|machine| machine.cared_for(address).cloned())
        };
        self.nodes.iter().enumerate().filter_map(|(i, node)| Some((i, cares(node)?))).collect()
    }

    pub(super) fn answering(&self, address: IpAddr) -> Vec<usize> {
        let answers = |node: &Node| {
            !node.paused
                && node.powered
                && node.machine.as_ref().is_some_and(|m| m.state(address) == Some(State::Answering))
        };
        (0..self.nodes.len()).filter(|i| answers(&self.nodes[*i])).collect()
    }

    pub(super) fn epoch(&self, node: usize, address: IpAddr) -> u64 {
        let machine = self.nodes[node].machine.as_ref().unwrap();
        machine.answering().find(|(a, _)| *a == address).unwrap().1
    }

    /// Highest number that a living machine knows to have been claimed.
    pub(super) fn highest_seen(&self, address: IpAddr) -> Option<u64> {
        self.nodes.iter().filter_map(|node| node.machine.as_ref()?.seen(address)).max()
    }

    pub(super) fn counters(&self, node: usize) -> crate::Counters {
        self.nodes[node].machine.as_ref().unwrap().counters()
    }

    fn judge(&mut self) {
        if !self.judged {
            return;
        }
        for address in self.api.keys().copied().collect::<Vec<_>>() {
            let answering = self.served_at(address);
            let (now, none, many) = (self.now, answering.is_empty(), self.rivals(&answering));
            track(&mut self.none_since, &mut self.longest_none, address, now, none);
            track(&mut self.many_since, &mut self.longest_many, address, now, many);
        }
    }

    /// Whether two of them share a side of the link, with heartbeats both ways.
    fn rivals(&self, answering: &[usize]) -> bool {
        answering.iter().enumerate().any(|(i, a)| {
            answering[i + 1..].iter().any(|b| {
                let passes = |pair| !self.deaf.contains(&pair) && !self.cut.contains(&pair);
                self.sides[*a] == self.sides[*b] && passes((*a, *b)) && passes((*b, *a))
            })
        })
    }

    pub(super) fn assert_gap_within(&self, address: IpAddr, bound: Duration) {
        let gap = self.longest_none.get(&address).copied().unwrap_or_default();
        assert!(gap <= bound, "nobody answered for {gap:?}\n{}", self.story());
    }

    pub(super) fn assert_double_within(&self, address: IpAddr, bound: Duration) {
        let double = self.longest_many.get(&address).copied().unwrap_or_default();
        assert!(double <= bound, "two answered for {double:?}\n{}", self.story());
    }
}

fn track(
    since: &mut BTreeMap<IpAddr, Duration>,
    longest: &mut BTreeMap<IpAddr, Duration>,
    address: IpAddr,
    now: Duration,
    holds: bool,
) {
    if let Some(start) = since.get(&address) {
        let so_far = longest.entry(address).or_default();
        *so_far = (*so_far).max(now.saturating_sub(*start));
    }
    if holds {
        since.entry(address).or_insert(now);
    } else {
        since.remove(&address);
    }
}
