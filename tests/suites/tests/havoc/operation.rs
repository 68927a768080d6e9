//! What is done to the cluster: drawn from a seed and from what was drawn before, never from what the cluster answers, so that a seed
//! always makes the same operations.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use berth_api::IpFamily;
use berth_api::service::ServiceKey;

use crate::dice::Dice;

/// Whether Services ask to share addresses. Keys and ports are given to a Service when it is created and never changed, so that
/// nobody comes to share what it may not by an edit of its own.
const SHARING: bool = true;

/// The namespaces of the Services: two, so that the same name, or the same key, in two is not taken for one.
pub const NAMESPACES: [&str; 2] = ["default", "shop"];
/// Services of one namespace: with both, a few more than all pools together have addresses when they are small.
const NAMES: usize = 15;
/// The addresses that a pool ever has lie behind its first one, and no other pool's do, so that an address says whose it is.
pub const POOLS: [Layout; 3] = [
    Layout { name: "east", first: 200, most: 8 },
    Layout { name: "north", first: 210, most: 5 },
    Layout { name: "west", first: 220, most: 8 },
];
/// Addresses that no pool has.
const OUTSIDE: u8 = 240;
/// Operations between a fault and its end: from what a Lease survives to what it does not, at some 40 ms each.
const FAULTY_FOR: std::ops::Range<usize> = 8..110;

/// Times that pass: of a few writes, of a renewal that is missed, of a Lease and the look that finds it run out.
const WAITS: [Duration; 3] = [Duration::from_millis(200), Duration::from_secs(1), Duration::from_millis(3_600)];

/// A pool, and the addresses of each family that it may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    pub name: &'static str,
    first: u8,
    pub most: u8,
}

impl Layout {
    /// The address at that place, from 0.
    pub fn address(self, family: IpFamily, place: u8) -> IpAddr {
        address(family, self.first + place)
    }

    /// The first `count` addresses of a family, as a pool's specification takes them.
    pub fn range(self, family: IpFamily, count: u8) -> String {
        format!("{}-{}", self.address(family, 0), self.address(family, count - 1))
    }

    /// All addresses that it ever has.
    pub fn all(self) -> impl Iterator<Item = IpAddr> {
        IpFamily::ALL.into_iter().flat_map(move |family| (0..self.most).map(move |place| self.address(family, place)))
    }
}

fn address(family: IpFamily, last: u8) -> IpAddr {
    match family {
        IpFamily::V4 => Ipv4Addr::new(192, 0, 2, last).into(),
        IpFamily::V6 => Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, last.into()).into(),
    }
}

/// What a Service is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    ClusterIp,
    /// A load balancer of this class; without one the default serves it, which is ours.
    LoadBalancer(Option<&'static str>),
}

const OURS: [Kind; 2] = [Kind::LoadBalancer(None), Kind::LoadBalancer(Some("berth.dev/pool"))];
const OTHERS: [Kind; 2] = [Kind::ClusterIp, Kind::LoadBalancer(Some("example.com/other"))];

/// What it asks for beside its families.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wish {
    pub address: Option<IpAddr>,
    pub pool: Option<&'static str>,
}

/// A Service that is created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Birth {
    pub key: ServiceKey,
    pub kind: Kind,
    pub first: IpFamily,
    pub policy: &'static str,
    pub wish: Wish,
    /// The key that it shares by, and the port that it has.
    pub sharing: Option<&'static str>,
    pub port: u16,
}

/// Which controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    Leader,
    Standby,
}

/// What happens to the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    Create(Birth),
    Delete(ServiceKey),
    /// First to `ClusterIP`, where the class changes: the API allows no other way.
    Become(ServiceKey, Kind),
    Ask(ServiceKey, Wish),
    Families(ServiceKey, &'static str),
    /// So many addresses of each family.
    Resize(Layout, u8, u8),
    AutoAssign(Layout, bool),
    /// SIGKILL.
    Kill(Who),
    /// Its pod is deleted, as by a drain: SIGTERM, and another one in its place.
    Terminate(Who),
    /// SIGSTOP.
    Pause(Who),
    /// SIGCONT to whoever is paused.
    Resume,
    /// What it says to the API server no longer arrives, until it may speak; then it arrives late.
    Silence(Who),
    /// The leader is silenced while it has these to serve.
    SilenceAtWork(Vec<Birth>),
    LetSpeak,
    /// While these are created, claims arrive that a leader made before it was cut off, for Services that are gone, of the addresses that
    /// are next.
    LateClaims(Vec<Birth>),
    /// Time that a Lease may run out in.
    Wait(Duration),
}

const POLICIES: [&str; 3] = ["SingleStack", "PreferDualStack", "RequireDualStack"];

/// Draws operations.
pub struct Generator {
    dice: Dice,
    services: BTreeMap<ServiceKey, (Kind, IpFamily)>,
    /// Operations until whoever is paused, or silenced, is well again.
    paused: Option<usize>,
    silenced: Option<usize>,
}

impl Generator {
    pub fn new(seed: u64) -> Self {
        Self { dice: Dice::new(seed), services: BTreeMap::new(), paused: None, silenced: None }
    }

    /// The next operation.
    pub fn next(&mut self) -> Operation {
        for (fault, end) in [(&mut self.paused, Operation::Resume), (&mut self.silenced, Operation::LetSpeak)] {
            if *fault == Some(0) {
                *fault = None;
                return end;
            }
            *fault = fault.map(|left| left - 1);
        }
        match self.dice.below(100) {
            22..40 => self.delete(),
            40..50 => self.become_other(),
            50..64 => self.ask(),
            64..70 => self.families(),
            70..79 => self.resize(),
            79..83 => Operation::AutoAssign(*self.dice.pick(&POOLS), self.dice.percent(70)),
            83..89 => self.fault(),
            89..92 => Operation::Wait(*self.dice.pick(&WAITS)),
            92..97 => Operation::LateClaims(self.births()),
            _ => self.create(),
        }
    }

    fn create(&mut self) -> Operation {
        match self.birth() {
            Some(birth) => Operation::Create(birth),
            // There is one of every name.
            None => self.delete(),
        }
    }

    fn birth(&mut self) -> Option<Birth> {
        let there: BTreeSet<_> = self.services.keys().cloned().collect();
        let names = NAMESPACES.iter().flat_map(|namespace| (0..NAMES).map(move |number| key(namespace, number)));
        let free: Vec<_> = names.filter(|key| !there.contains(key)).collect();
        if free.is_empty() {
            return None;
        }
        let key = self.dice.pick(&free).clone();
        let kind = if self.dice.percent(90) { *self.dice.pick(&OURS) } else { *self.dice.pick(&OTHERS) };
        let first = *self.dice.pick(&IpFamily::ALL);
        let policy = if self.dice.percent(50) { POLICIES[0] } else { *self.dice.pick(&POLICIES) };
        let wish = if self.dice.percent(50) { Wish::default() } else { self.wish(first) };
        let sharing = (SHARING && self.dice.percent(60)).then(|| *self.dice.pick(&["red", "blue"]));
        let port = if SHARING { *self.dice.pick(&[80, 81, 82]) } else { 80 };
        self.services.insert(key.clone(), (kind, first));
        Some(Birth { key, kind, first, policy, wish, sharing, port })
    }

    fn births(&mut self) -> Vec<Birth> {
        (0..4).filter_map(|_| self.birth()).collect()
    }

    fn wish(&mut self, family: IpFamily) -> Wish {
        match self.dice.below(10) {
            0..3 => Wish::default(),
            3..6 => Wish { pool: Some(self.dice.pick(&POOLS).name), ..Wish::default() },
            6 => Wish { pool: Some("nowhere"), ..Wish::default() },
            7 => Wish { address: Some(address(family, OUTSIDE)), ..Wish::default() },
            _ => {
                let pool = *self.dice.pick(&POOLS);
                let place = self.dice.below(pool.most.into());
                let address = Some(pool.address(family, u8::try_from(place).unwrap_or_default()));
                Wish { address, pool: self.dice.percent(25).then_some(pool.name) }
            }
        }
    }

    fn existing(&mut self) -> Option<ServiceKey> {
        let there: Vec<_> = self.services.keys().cloned().collect();
        (!there.is_empty()).then(|| self.dice.pick(&there).clone())
    }

    fn delete(&mut self) -> Operation {
        let Some(key) = self.existing() else { return self.create() };
        self.services.remove(&key);
        Operation::Delete(key)
    }

    fn become_other(&mut self) -> Operation {
        let Some(key) = self.existing() else { return self.create() };
        let Some((now, _)) = self.services.get_mut(&key) else { return self.create() };
        *now = if OURS.contains(now) { *self.dice.pick(&OTHERS) } else { *self.dice.pick(&OURS) };
        Operation::Become(key, *now)
    }

    fn ask(&mut self) -> Operation {
        let Some(key) = self.existing() else { return self.create() };
        let first = self.services.get(&key).map_or(IpFamily::V4, |(_, first)| *first);
        Operation::Ask(key, self.wish(first))
    }

    fn families(&mut self) -> Operation {
        let Some(key) = self.existing() else { return self.create() };
        Operation::Families(key, self.dice.pick::<&'static str>(&POLICIES))
    }

    fn resize(&mut self) -> Operation {
        let pool = *self.dice.pick(&POOLS);
        let mut count = || u8::try_from(1 + self.dice.below(pool.most.into())).unwrap_or(1);
        Operation::Resize(pool, count(), count())
    }

    fn fault(&mut self) -> Operation {
        let who = if self.dice.percent(75) { Who::Leader } else { Who::Standby };
        let lasts = FAULTY_FOR.start + self.dice.below(FAULTY_FOR.len());
        match self.dice.below(6) {
            0 => Operation::Kill(who),
            2 | 3 if self.paused.is_none() => {
                self.paused = Some(lasts);
                Operation::Pause(who)
            }
            4 if self.silenced.is_none() => {
                self.silenced = Some(lasts);
                Operation::Silence(who)
            }
            5 if self.silenced.is_none() => {
                self.silenced = Some(lasts);
                Operation::SilenceAtWork(self.births())
            }
            // One of each is at a time; and what a drain does.
            _ => Operation::Terminate(who),
        }
    }
}

fn key(namespace: &str, number: usize) -> ServiceKey {
    ServiceKey { namespace: namespace.to_owned(), name: format!("s{number}") }
}

impl fmt::Display for Wish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.address, self.pool) {
            (None, None) => write!(f, "any address"),
            (Some(address), None) => write!(f, "{address}"),
            (None, Some(pool)) => write!(f, "an address of pool {pool}"),
            (Some(address), Some(pool)) => write!(f, "{address} of pool {pool}"),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ClusterIp => write!(f, "ClusterIP"),
            Self::LoadBalancer(None) => write!(f, "LoadBalancer"),
            Self::LoadBalancer(Some(class)) => write!(f, "LoadBalancer of class {class}"),
        }
    }
}

impl fmt::Display for Birth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, kind, first, policy, wish, sharing, port } = self;
        write!(f, "{key}: {kind}, {first} first, {policy}, asks for {wish}")?;
        sharing.map_or(Ok(()), |sharing| write!(f, ", shares as {sharing} with port {port}"))
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create(birth) => write!(f, "create {birth}"),
            Self::Delete(key) => write!(f, "delete {key}"),
            Self::Become(key, kind) => write!(f, "{key} becomes {kind}"),
            Self::Ask(key, wish) => write!(f, "{key} asks for {wish}"),
            Self::Families(key, policy) => write!(f, "{key} becomes {policy}"),
            Self::Resize(pool, v4, v6) => write!(f, "pool {} has {v4} IPv4 and {v6} IPv6 addresses", pool.name),
            Self::AutoAssign(pool, on) => {
                write!(f, "pool {} gives {}", pool.name, if *on { "by itself" } else { "when asked" })
            }
            Self::Kill(who) => write!(f, "kill the {who}"),
            Self::Terminate(who) => write!(f, "terminate the {who}"),
            Self::Pause(who) => write!(f, "pause the {who}"),
            Self::Resume => write!(f, "let the paused one go on"),
            Self::Silence(who) => write!(f, "silence the {who}"),
            Self::SilenceAtWork(births) => write!(f, "silence the leader and create {}", list(births)),
            Self::LateClaims(births) => write!(f, "late claims arrive, and create {}", list(births)),
            Self::LetSpeak => write!(f, "let the silenced one speak"),
            Self::Wait(time) => write!(f, "let {time:?} pass"),
        }
    }
}

fn list(births: &[Birth]) -> String {
    births.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Leader => "leader",
            Self::Standby => "standby",
        })
    }
}

#[test]
fn a_seed_makes_the_same_operations_and_another_seed_others() {
    let of = |seed| {
        let mut generator = Generator::new(seed);
        (0..300).map(|_| generator.next()).collect::<Vec<_>>()
    };
    assert_eq!(of(1), of(1));
    assert_ne!(of(1), of(2));
}

#[test]
fn every_kind_of_operation_is_drawn_and_every_fault_ends() {
    let mut generator = Generator::new(7);
    let drawn: Vec<_> = (0..2_000).map(|_| generator.next()).collect();
    let kinds: BTreeSet<_> =
        drawn.iter().map(|o| format!("{o:?}").split(['(', ' ']).next().unwrap_or_default().to_owned()).collect();
    assert_eq!(kinds.len(), 16, "{kinds:?}");
    let count = |fits: fn(&Operation) -> bool| drawn.iter().filter(|o| fits(o)).count();
    let begun = count(|o| matches!(o, Operation::Pause(_)));
    assert!(begun - count(|o| matches!(o, Operation::Resume)) <= 1);
}
