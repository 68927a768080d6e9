//! Many addresses on a few nodes, through all that can happen to them.

use std::hint::black_box;
use std::time::Instant;

use super::*;

/// Nodes and what they own, as the controller keeps it.
struct Fleet {
    nodes: BTreeMap<String, Node>,
    placed: BTreeMap<IpAddr, Layer2Assignment>,
    load: Load,
}

fn seat(assignment: &Layer2Assignment) -> Option<Seat<'_, impl Iterator<Item = &str>>> {
    let interface = assignment.members.first().map_or("", |member| member.interface.as_str());
    let standbys = assignment.standbys.iter().map(String::as_str);
    Some(Seat { owner: assignment.owner.as_deref()?, interface, standbys })
}

fn vip(n: u32) -> IpAddr {
    std::net::Ipv4Addr::from_bits(0x0a00_0000 + n).into()
}

impl Fleet {
    fn new(nodes: u8) -> Self {
        let nodes = (1..=nodes).map(|n| (format!("node-{n}"), wide(n))).collect();
        Self { nodes, placed: BTreeMap::new(), load: Load::default() }
    }

    fn ask(&self, address: IpAddr, claimed: Option<(&str, u64)>) -> Layer2Assignment {
        let rules = everywhere();
        let placement = place(Question {
            address,
            nodes: &self.nodes,
            rules: &rules,
            unselected: None,
            serving: None,
            current: self.placed.get(&address),
            routed: &[],
            refused: &BTreeMap::new(),
            claimed,
            load: &self.load,
            wish: None,
        });
        placement.assignment.unwrap()
    }

    fn set(&mut self, address: IpAddr, assignment: Option<Layer2Assignment>) {
        if let Some(seat) = self.placed.get(&address).and_then(seat) {
            self.load.remove(seat);
        }
        if let Some(seat) = assignment.as_ref().and_then(seat) {
            self.load.add(seat);
        }
        match assignment {
            Some(assignment) => self.placed.insert(address, assignment),
            None => self.placed.remove(&address),
        };
    }

    /// Whether the owner of an address is within the bound, of what the nodes that could have been chosen own.
    fn is_within_bound(&self, owner: &str) -> bool {
        let best = self.nodes.values().map(Node::tier).min().unwrap();
        let all: Vec<_> =
            self.nodes.iter().filter(|(_, n)| n.tier() == best).map(|(n, _)| self.load.owned(n)).collect();
        self.load.owned(owner) <= bound(all.iter().sum::<u64>() - 1, all.len() as u64)
    }

    /// An owner that is chosen is within the bound.
    fn choose(&mut self, address: IpAddr, assignment: Layer2Assignment) -> Result<(), TestCaseError> {
        self.set(address, None);
        let owner = assignment.owner.clone().unwrap();
        self.watch(address, assignment)?;
        prop_assert!(self.is_within_bound(&owner), "{owner} owns {} of {:?}", self.load.owned(&owner), self.owned());
        Ok(())
    }

    /// Standbys that are chosen for an owner are among four of its partners that stand.
    fn watch(&mut self, address: IpAddr, assignment: Layer2Assignment) -> Result<(), TestCaseError> {
        let stands = |node: &&str| self.nodes.get(*node).is_some_and(|node| node.tier() == Tier::Ready);
        let owner = assignment.owner.as_deref().unwrap();
        let mut partners: BTreeSet<_> =
            self.load.partners(owner, "eth0").map(|(node, _)| node).filter(stands).collect();
        for standby in assignment.standbys.iter().map(String::as_str).filter(stands) {
            prop_assert!(!partners.insert(standby) || partners.len() <= PARTNERS_MAX, "{owner}: {partners:?}");
        }
        self.set(address, Some(assignment));
        Ok(())
    }

    /// Plans every address, each as the one before left the others, as the controller does it. Whoever is chosen is within the bound.
    fn plan(&mut self, claims: &BTreeMap<IpAddr, (String, u64)>) -> Result<Vec<IpAddr>, TestCaseError> {
        let mut moved = Vec::new();
        for address in self.placed.keys().copied().collect::<Vec<_>>() {
            let claimed = claims.get(&address).map(|(node, epoch)| (node.as_str(), *epoch));
            let (before, after) = (self.placed[&address].clone(), self.ask(address, claimed));
            let holder = claimed.map(|(node, _)| node.to_owned()).or(before.owner.clone());
            if holder != after.owner {
                moved.push(address);
                self.choose(address, after)?;
            } else if before.owner != after.owner {
                self.set(address, None);
                self.watch(address, after)?;
            } else {
                self.set(address, Some(after));
            }
        }
        Ok(moved)
    }

    /// Its nodes, of which this many addresses are owned.
    fn owned(&self) -> Vec<u64> {
        self.nodes.keys().map(|node| self.load.owned(node)).collect()
    }
}

/// In a subnet of sixteen million.
fn wide(n: u8) -> Node {
    let mut node = node(n);
    node.interfaces[0].addresses = vec![format!("10.255.0.{n}/8").parse().unwrap()];
    node
}

#[derive(Clone, Debug)]
enum Act {
    Create(u32),
    Delete(u32),
    /// The node's object goes.
    Remove(u8),
    /// It comes, or comes back, and nothing stands against it.
    Add(u8),
    /// It dies: its first standbys that live take over, and the cluster sees it a while later.
    Crash(u8),
    Drain(u8),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        8 => (0_u32..60).prop_map(Act::Create),
        4 => (0_u32..60).prop_map(Act::Delete),
        1 => (1_u8..9).prop_map(Act::Remove),
        2 => (1_u8..9).prop_map(Act::Add),
        1 => (1_u8..9).prop_map(Act::Crash),
        1 => (1_u8..9).prop_map(Act::Drain),
    ]
}

proptest! {
    // A case is sixty addresses that are planned a hundred times.
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever comes and goes: who is chosen is within the bound of that moment, what is placed moves only when its node is gone, drained
    /// or taken over from, and nobody new watches a node that four watch.
    #[test]
    fn whoever_is_chosen_is_within_its_bound_and_nothing_moves_without_cause(acts in prop::collection::vec(act(), 1..100)) {
        let mut fleet = Fleet::new(8);
        for act in acts {
            let mut claims = BTreeMap::new();
            let mut leaves = None;
            match act {
                Act::Create(n) => {
                    if !fleet.placed.contains_key(&vip(n)) {
                        let assignment = fleet.ask(vip(n), None);
                        fleet.choose(vip(n), assignment)?;
                    }
                }
                Act::Delete(n) => fleet.set(vip(n), None),
                // Two stay, so that there is always somebody.
                Act::Remove(n) if fleet.nodes.len() > 2 => {
                    leaves = Some(format!("node-{n}"));
                    fleet.nodes.remove(&format!("node-{n}"));
                }
                Act::Remove(_) => {}
                Act::Add(n) => {
                    fleet.nodes.insert(format!("node-{n}"), wide(n));
                }
                Act::Crash(n) => {
                    let name = format!("node-{n}");
                    if let Some(node) = fleet.nodes.get_mut(&name) {
                        node.ready = false;
                        for (address, assignment) in &fleet.placed {
                            let lives = |s: &&String| fleet.nodes.get(*s).is_some_and(|node| node.ready);
                            let next = assignment.standbys.iter().find(lives);
                            if let (true, Some(next)) = (assignment.owner.as_ref() == Some(&name), next) {
                                claims.insert(*address, (next.clone(), assignment.epoch + 1));
                            }
                        }
                    }
                }
                Act::Drain(n) => {
                    leaves = Some(format!("node-{n}"));
                    fleet.nodes.get_mut(&format!("node-{n}")).into_iter().for_each(drained);
                }
            }
            let before = fleet.placed.clone();
            for address in fleet.plan(&claims)? {
                let owner = before[&address].owner.clone();
                let is_drained = |node: &Node| node.draining.is_some();
                let has_cause = owner == leaves || owner.as_ref().and_then(|o| fleet.nodes.get(o)).is_none_or(is_drained);
                prop_assert!(has_cause, "{address} left {owner:?}");
            }
            prop_assert_eq!(fleet.plan(&BTreeMap::new())?, Vec::<IpAddr>::new(), "asked again, nothing moves");
        }
    }

    /// What a choice rests on is what there is, not how it came to be.
    #[test]
    fn the_order_in_which_addresses_are_heard_of_decides_nothing(order in Just((0_u32..60).collect::<Vec<_>>()).prop_shuffle()) {
        let mut fleet = Fleet::new(5);
        for n in 0..60 {
            let assignment = fleet.ask(vip(n), None);
            fleet.set(vip(n), Some(assignment));
        }
        let mut heard = Fleet::new(5);
        for n in order {
            heard.set(vip(n), fleet.placed.get(&vip(n)).cloned());
        }
        prop_assert_eq!(&heard.load, &fleet.load);
        prop_assert_eq!(heard.ask(vip(100), None), fleet.ask(vip(100), None));
    }
}

#[test]
fn ten_thousand_addresses_on_ten_nodes_are_spread_within_the_bound_and_each_node_has_four_partners() {
    let mut fleet = Fleet::new(10);
    for n in 0..10_000 {
        let assignment = fleet.ask(vip(n), None);
        fleet.set(vip(n), Some(assignment));
    }
    let owned = fleet.owned();
    assert_eq!(owned.iter().sum::<u64>(), 10_000);
    assert!(owned.iter().all(|owned| *owned <= 1_250), "{owned:?}");
    for node in fleet.nodes.keys() {
        assert_eq!(fleet.load.partners(node, "eth0").count(), PARTNERS_MAX, "{node}");
    }

    // One is lost: what it had is spread over the others.
    let lost = fleet.load.owned("node-3");
    fleet.nodes.remove("node-3");
    let moved = fleet.plan(&BTreeMap::new()).unwrap();
    assert_eq!(moved.len() as u64, lost);
    let owned = fleet.owned();
    assert!(owned.iter().all(|owned| *owned <= 1_389), "{owned:?}");
    // It comes back: it gets nothing, and what is new goes to it first.
    fleet.nodes.insert("node-3".to_owned(), wide(3));
    assert_eq!(fleet.plan(&BTreeMap::new()).unwrap(), Vec::<IpAddr>::new());
}

/// A few nodes cannot spread evenly what the hash gives them, and the bound holds all the same.
#[test]
fn few_addresses_are_spread_too() {
    for nodes in 1..=10_u8 {
        let mut fleet = Fleet::new(nodes);
        for n in 0..100 {
            let assignment = fleet.ask(vip(n), None);
            fleet.set(vip(n), Some(assignment));
            let most = fleet.owned().into_iter().max().unwrap();
            assert!(most <= bound(n.into(), nodes.into()), "{:?}", fleet.owned());
        }
    }
}

/// A thousand times as many addresses, and to choose one more takes about as long: a scan would take a thousand times as long.
#[test]
#[allow(clippy::disallowed_methods, reason = "what is tested is how long it takes")]
fn a_choice_does_not_take_longer_because_there_are_more_addresses() {
    let time = |addresses: u32| {
        let mut fleet = Fleet::new(10);
        // Placed as cheaply as can be: what they are is of no matter, only how many there are.
        let assignment = fleet.ask(vip(0), None);
        (0..addresses).for_each(|n| fleet.set(vip(n), Some(assignment.clone())));
        let once = |fleet: &mut Fleet| {
            let begin = Instant::now();
            for n in 0..50 {
                let assignment = black_box(fleet.ask(vip(1_000_000 + n), None));
                fleet.set(vip(1_000_000 + n), Some(assignment));
                fleet.set(vip(1_000_000 + n), None);
            }
            begin.elapsed()
        };
        // The fastest counts: whatever else the machine does only slows down.
        (0..20).map(|_| once(&mut fleet)).min().unwrap()
    };
    let (few, many) = (time(100), time(100_000));
    assert!(many < few * 10, "{few:?} with 100 addresses, {many:?} with 100,000");
}
