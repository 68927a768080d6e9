mod fleet;
mod routed;
mod selected;

use berth_api::crd::Interface;
use proptest::prelude::*;

use berth_api::crd::{Dataplane, KubeProxy};

use super::*;

const VIP: &str = "10.0.0.1";

fn node(n: u8) -> Node {
    let interface = Interface {
        name: "eth0".into(),
        mac: berth_api::MacAddr([2, 0, 0, 0, 0, n]),
        addresses: vec![format!("10.0.0.{}/24", 100 + n).parse().unwrap()],
    };
    Node { interfaces: vec![interface], ready: true, ..Node::default() }
}

/// By MetalLB's hash the order for 10.0.0.1 is node-b, node-a, node-c.
fn nodes() -> BTreeMap<String, Node> {
    [("node-a", 1), ("node-b", 2), ("node-c", 3)].map(|(name, n)| (name.to_owned(), node(n))).into()
}

fn everywhere() -> Vec<Arc<Rule>> {
    vec![Arc::default()]
}

fn only(nodes: &[&str]) -> Arc<Rule> {
    Arc::new(Rule { nodes: Some(nodes.iter().map(|node| (*node).to_owned()).collect()), ..Rule::default() })
}

fn on(interfaces: &[&str]) -> Arc<Rule> {
    let patterns = interfaces.iter().map(|pattern| pattern.parse().unwrap()).collect();
    Arc::new(Rule { interfaces: Interfaces::Only(patterns), ..Rule::default() })
}

fn drained(node: &mut Node) {
    node.draining = Some(Draining::Asked);
}

struct Case {
    nodes: BTreeMap<String, Node>,
    rules: Vec<Arc<Rule>>,
    serving: Option<BTreeSet<String>>,
    current: Option<Layer2Assignment>,
    routed: Vec<RouteAssignment>,
    refused: BTreeMap<&'static str, RefusedRoute>,
    claimed: Option<(&'static str, u64)>,
    load: Load,
    wish: Option<&'static str>,
}

impl Case {
    fn fresh() -> Self {
        Self {
            nodes: nodes(),
            rules: everywhere(),
            serving: None,
            current: None,
            routed: Vec::new(),
            refused: BTreeMap::new(),
            claimed: None,
            load: Load::default(),
            wish: None,
        }
    }

    /// node-b owns since epoch 4, node-a and node-c stand by.
    fn placed() -> Self {
        let mut case = Self::fresh();
        case.current = case.place().assignment.map(|a| Layer2Assignment { epoch: 4, ..a });
        case.claimed = Some(("node-b", 4));
        case
    }

    fn edit(mut self, name: &str, change: impl FnOnce(&mut Node)) -> Self {
        change(self.nodes.get_mut(name).unwrap());
        self
    }

    fn local(mut self, serving: &[&str]) -> Self {
        self.serving = Some(serving.iter().map(|s| (*s).to_owned()).collect());
        self
    }

    fn place(&self) -> Placement {
        place(Question {
            address: VIP.parse().unwrap(),
            nodes: &self.nodes,
            rules: &self.rules,
            unselected: None,
            serving: self.serving.as_ref(),
            current: self.current.as_ref(),
            routed: &self.routed,
            refused: &self.refused.iter().map(|(node, why)| (*node, why)).collect(),
            claimed: self.claimed,
            load: &self.load,
            wish: self.wish,
        })
    }

    /// `owner@epoch > standbys`.
    fn told(&self) -> String {
        let assignment = self.place().assignment.unwrap();
        let owner = assignment.owner.as_deref().unwrap_or("nobody");
        let members: Vec<_> = assignment.members.iter().map(|m| m.node.clone()).collect();
        let named: Vec<_> = assignment.owner.iter().chain(&assignment.standbys).cloned().collect();
        assert_eq!(members, named, "every part has a place on the link");
        format!("{owner}@{} > {}", assignment.epoch, assignment.standbys.join(" "))
    }
}

#[test]
fn a_new_address_goes_to_the_first_by_hash_and_the_next_two_stand_by() {
    let mut case = Case::fresh();
    assert_eq!(case.told(), "node-b@1 > node-a node-c");
    case.nodes.insert("node-d".into(), node(4));
    let standbys = case.place().assignment.unwrap().standbys;
    assert_eq!(standbys.len(), STANDBYS);
}

#[test]
fn what_is_placed_moves_only_when_it_must() {
    type Change = fn(Case) -> Case;
    let cases: [(&str, Change, &str); 15] = [
        ("nothing changed", |c| c, "node-b@4 > node-a node-c"),
        ("the owner is not ready", |c| c.edit("node-b", |n| n.ready = false), "node-b@4 > node-a node-c"),
        ("a standby is not ready", |c| c.edit("node-a", |n| n.ready = false), "node-b@4 > node-c node-a"),
        (
            "a standby took over",
            |mut c| {
                c.claimed = Some(("node-c", 5));
                c
            },
            "node-c@5 > node-a node-b",
        ),
        (
            "a stranger claims",
            |mut c| {
                c.claimed = Some(("node-x", 9));
                c
            },
            "node-b@9 > node-a node-c",
        ),
        ("the owner is excluded", |c| c.edit("node-b", |n| n.excluded = true), "node-a@5 > node-c node-b"),
        (
            "the owner's node is gone",
            |mut c| {
                c.nodes.remove("node-b");
                c
            },
            "node-a@5 > node-c",
        ),
        ("the owner is drained", |c| c.edit("node-b", drained), "node-a@5 > node-c node-b"),
        ("a standby is drained", |c| c.edit("node-a", drained), "node-b@4 > node-c node-a"),
        (
            "the owner is drained, and a standby too",
            |c| c.edit("node-b", drained).edit("node-a", drained),
            "node-c@5 > node-a node-b",
        ),
        (
            "the owner is drained, and so are all",
            |mut c| {
                c.nodes.values_mut().for_each(drained);
                c
            },
            "node-b@4 > node-a node-c",
        ),
        (
            "the owner is drained, and the others are not ready",
            |mut c| {
                c.nodes.values_mut().for_each(|n| n.ready = false);
                c.edit("node-b", drained)
            },
            "node-b@4 > node-a node-c",
        ),
        (
            "the owner is drained, and the others have no endpoint",
            |c| c.local(&["node-b"]).edit("node-b", drained),
            "node-b@4 > ",
        ),
        ("the owner lost its endpoints", |c| c.local(&["node-c"]), "node-c@5 > node-b"),
        ("every node lost its endpoints", |c| c.local(&[]), "nobody@5 > "),
    ];
    for (what, change, expected) in cases {
        assert_eq!(change(Case::placed()).told(), expected, "{what}");
    }
}

#[test]
fn a_person_can_move_an_address_to_a_node_that_can_answer_and_to_no_other() {
    type Change = fn(Case) -> Case;
    let cases: [(&str, &'static str, Change, &str, &str); 9] = [
        ("a standby", "node-c", |c| c, "node-c@5 > node-a node-b", ""),
        ("where it is", "node-b", |c| c, "node-b@4 > node-a node-c", ""),
        ("where it is, not ready", "node-b", |c| c.edit("node-b", |n| n.ready = false), "node-b@4 > node-a node-c", ""),
        (
            "a node that has more than its share",
            "node-c",
            |mut c| {
                (0..9).for_each(|_| c.load.add(Seat { owner: "node-c", interface: "eth0", standbys: [] }));
                c
            },
            "node-c@5 > node-a node-b",
            "",
        ),
        ("nowhere", "node-x", |c| c, "node-b@4 > node-a node-c", "there is no such node"),
        (
            "one without an endpoint",
            "node-c",
            |c| c.local(&["node-a", "node-b"]),
            "node-b@4 > node-a",
            "no serving endpoint",
        ),
        (
            "one that is not ready",
            "node-c",
            |c| c.edit("node-c", |n| n.ready = false),
            "node-b@4 > node-a node-c",
            "not ready",
        ),
        (
            "one that is drained",
            "node-c",
            |c| c.edit("node-c", drained),
            "node-b@4 > node-a node-c",
            "its annotation berth.dev/drain is \"true\"",
        ),
        (
            "where it is, while that is drained",
            "node-b",
            |c| c.edit("node-b", drained),
            "node-a@5 > node-c node-b",
            "its annotation berth.dev/drain is \"true\"",
        ),
    ];
    for (what, wish, change, expected, refused) in cases {
        let case = Case { wish: Some(wish), ..change(Case::placed()) };
        assert_eq!(case.told(), expected, "{what}");
        let remark = case.place().remark.map(|(reason, message)| format!("{reason}: {message}")).unwrap_or_default();
        if refused.is_empty() {
            assert_eq!(remark, "", "{what}");
        } else {
            let asks = format!("annotation berth.dev/move-to of the Announcement asks for node {wish}: ");
            assert!(remark.starts_with("MoveRefused: node ") && remark.contains(&asks), "{what}: {remark}");
            assert!(remark.ends_with(refused), "{what}: {remark}");
        }
    }
}

#[test]
fn a_drained_node_that_nobody_can_relieve_goes_on_and_it_is_said_why() {
    let mut case = Case::placed().local(&["node-b", "node-c"]).edit("node-b", drained);
    case.nodes.get_mut("node-c").unwrap().ready = false;
    let (reason, message) = case.place().remark.unwrap();
    assert_eq!(reason, Reason::DrainBlocked);
    assert_eq!(
        message,
        "node node-b goes on answering although it is being drained: its annotation berth.dev/drain is \"true\": no other \
         node can take the address: node-a: no serving endpoint; node-c: not ready"
    );
    case.nodes.get_mut("node-c").unwrap().ready = true;
    assert_eq!((case.told().as_str(), case.place().remark), ("node-c@5 > node-b", None));
}

#[test]
fn who_has_a_quarter_more_than_its_share_is_passed_over_when_an_owner_is_chosen_and_only_then() {
    // By the hash the order is node-b, node-a, node-c.
    for (owned, fresh, lost) in [
        ([0, 0, 0], "node-b", "node-a"),
        // 5 + 1 addresses, a share of 2, a quarter more of which is 3.
        ([0, 3, 2], "node-a", "node-a"),
        ([1, 2, 2], "node-b", "node-a"),
        ([3, 3, 0], "node-c", "node-c"),
        // On two nodes.
        ([5, 9, 1], "node-a", "node-c"),
    ] {
        let mut load = Load::default();
        for (node, count) in ["node-a", "node-b", "node-c"].into_iter().zip(owned) {
            (0..count).for_each(|_| load.add(Seat { owner: node, interface: "eth0", standbys: [] }));
        }
        let owner = |case: Case| case.place().assignment.unwrap().owner.unwrap();
        assert_eq!(owner(Case { load: load.clone(), ..Case::fresh() }), fresh, "{owned:?}: new");
        assert_eq!(owner(Case { load: load.clone(), ..Case::placed() }), "node-b", "{owned:?}: placed");
        let gone = Case { load, ..Case::placed() }.edit("node-b", |n| n.excluded = true);
        assert_eq!(owner(gone), lost, "{owned:?}: its owner cannot answer any more");
    }
}

#[test]
fn an_owner_with_four_partners_is_watched_by_those_where_they_can() {
    let mut case = Case::fresh();
    // By the hash the order is node-f, node-b, node-a, node-d, node-e, node-c, node-g.
    for (n, name) in (4..).zip(["node-d", "node-e", "node-f", "node-g"]) {
        case.nodes.insert(name.into(), node(n));
    }
    let order = |case: &Case| {
        let mut names: Vec<_> = case.nodes.keys().cloned().collect();
        names.sort_by_key(|name| rank(name, VIP.parse().unwrap()));
        names
    };
    let names = order(&case);
    let (owner, others) = names.split_first().unwrap();
    let watched_by = |partners: &[String], interface: &str| {
        let mut load = Load::default();
        let standbys = || partners.iter().map(String::as_str);
        load.add(Seat { owner, interface, standbys: standbys() });
        // So that the owner is not passed over.
        for node in others {
            load.add(Seat { owner: node, interface: "eth0", standbys: [] });
        }
        load
    };
    let standbys = |case: &Case| {
        let assignment = case.place().assignment.unwrap();
        assert_eq!(assignment.owner.as_ref(), Some(owner));
        assignment.standbys
    };
    case.load = watched_by(&others[1..4], "eth0");
    assert_eq!(standbys(&case), others[..2], "there is room for a fourth");
    case.load = watched_by(&others[2..6], "eth1");
    assert_eq!(standbys(&case), others[..2], "another interface has partners of its own");
    case.load = watched_by(&others[2..6], "eth0");
    assert_eq!(standbys(&case), others[2..4], "the first two of its partners by the hash");
    case.load = watched_by(&others[1..5], "eth0");
    assert_eq!(standbys(&case), others[1..3]);
    let mut placed = Case { current: case.place().assignment, ..case };
    placed.load = watched_by(&others[2..6], "eth0");
    assert_eq!(standbys(&placed), others[1..3], "who stands by goes on standing by");

    let mut local = Case { current: None, ..placed };
    local.serving = Some([owner, &others[0], &others[4]].map(Clone::clone).into());
    assert_eq!(standbys(&local), [others[4].clone(), others[0].clone()], "a standby matters more than the bound");
    local.serving = None;
    local.nodes.get_mut(&others[2]).unwrap().ready = false;
    assert_eq!(standbys(&local), [others[0].clone(), others[3].clone()], "one that is down makes room");
}

#[test]
fn the_standbys_of_a_takeover_are_its_new_owners_partners() {
    let mut case = Case::placed();
    for (n, name) in (4..).zip(["node-d", "node-e", "node-f", "node-g"]) {
        case.nodes.insert(name.into(), node(n));
    }
    case.load.add(Seat { owner: "node-a", interface: "eth0", standbys: ["node-d", "node-e", "node-f", "node-g"] });
    case.load.add(Seat { owner: "node-b", interface: "eth0", standbys: ["node-a", "node-c"] });
    case.claimed = Some(("node-a", 5));
    let standbys = case.place().assignment.unwrap().standbys;
    assert!(
        standbys.iter().all(|node| ["node-d", "node-e", "node-f", "node-g"].contains(&node.as_str())),
        "{standbys:?}"
    );
    // Where there is room, those that stand by know the address already.
    case.load = Load::default();
    assert_eq!(case.place().assignment.unwrap().standbys[0], "node-c");
}

#[test]
fn the_old_owner_loses_its_part_when_the_new_one_has_claimed() {
    let mut case = Case::placed().edit("node-b", |n| n.excluded = true);
    case.current = case.place().assignment;
    assert_eq!(case.told(), "node-a@5 > node-c node-b");
    case.claimed = Some(("node-a", 5));
    assert_eq!(case.told(), "node-a@5 > node-c");
}

#[test]
fn a_node_that_is_not_ready_is_chosen_last() {
    let case = Case::fresh().edit("node-b", |n| n.ready = false);
    assert_eq!(case.told(), "node-a@1 > node-c node-b");
}

#[test]
fn nobody_answers_for_a_reason() {
    type Change = fn(Case) -> Case;
    let cases: [(Change, Reason, &str); 6] = [
        (
            |mut c| {
                c.rules = vec![];
                c
            },
            Reason::NoAdvertisement,
            "no L2Advertisement or RouteAdvertisement covers",
        ),
        (|c| c.local(&[]), Reason::NoLocalEndpoints, "externalTrafficPolicy is Local"),
        (
            |mut c| {
                c.nodes.values_mut().for_each(|n| n.excluded = true);
                c
            },
            Reason::AllNodesExcluded,
            "every node that could answer has the label node.kubernetes.io/exclude-from-external-load-balancers",
        ),
        (
            |mut c| {
                c.nodes.values_mut().for_each(|n| n.interfaces.clear());
                c
            },
            Reason::NoEligibleNode,
            "node-c: its speaker has not reported",
        ),
        (
            |mut c| {
                c.rules = vec![on(&["eth9", "bond*"])];
                c
            },
            Reason::NoEligibleNode,
            "node-b: no allowed interface has the subnet",
        ),
        (
            |mut c| {
                c.rules = vec![only(&[])];
                c
            },
            Reason::NoEligibleNode,
            "node-a: no advertisement selects it",
        ),
    ];
    for (change, reason, says) in cases {
        let placement = change(Case::fresh()).place();
        assert_eq!(placement.reason, reason, "{}", placement.message);
        assert!(placement.message.contains(says), "{}", placement.message);
        assert_eq!(placement.assignment.and_then(|a| a.owner), None);
    }
}

#[test]
fn two_advertisements_allow_what_either_allows() {
    let mut case = Case::fresh();
    case.rules = vec![only(&["node-a"]), only(&["node-c"])];
    assert_eq!(case.told(), "node-a@1 > node-c");
}

proptest! {
    /// Asking again with the answer changes nothing, the epoch never falls, and it rises exactly when the owner changes.
    #[test]
    fn an_answer_is_stable_and_epochs_never_fall(
        steps in prop::collection::vec((0_usize..3, 0_u8..6, prop::option::of(0_usize..3)), 1..30)
    ) {
        const NAMES: [&str; 3] = ["node-a", "node-b", "node-c"];
        let mut case = Case::fresh();
        for (index, flags, taker) in steps {
            let name = NAMES[index];
            case.nodes.get_mut(name).unwrap().excluded = flags & 1 == 1;
            case.nodes.get_mut(name).unwrap().ready = flags & 2 == 2;
            let before = case.current.clone();
            if let (Some(taker), Some(now)) = (taker, &before)
                && now.standbys.iter().any(|s| s == NAMES[taker])
            {
                case.claimed = Some((NAMES[taker], now.epoch + 1));
            }
            let after = case.place().assignment.unwrap();
            let seen = case.claimed.map_or(0, |(_, e)| e).max(before.as_ref().map_or(0, |b| b.epoch));
            prop_assert!(after.epoch >= seen);
            if let Some(before) = before
                && before.owner != after.owner
            {
                prop_assert!(after.epoch > before.epoch);
            }
            case.current = Some(after.clone());
            prop_assert_eq!(case.place().assignment.unwrap(), after);
        }
    }
}

#[test]
fn a_member_is_found_at_its_own_address_of_the_family_and_subnet_of_the_virtual_one() {
    let mut nodes = nodes();
    for (n, node) in nodes.values_mut().enumerate() {
        let own = ["fe80::1/64".to_owned(), format!("2001:db8:1::{n}/64"), format!("2001:db8:2::{n}/64")];
        node.interfaces[0].addresses.extend(own.iter().map(|net| net.parse::<ipnet::IpNet>().unwrap()));
    }
    let place = |address: &str| {
        let rules = everywhere();
        place(Question {
            address: address.parse().unwrap(),
            nodes: &nodes,
            rules: &rules,
            unselected: None,
            serving: None,
            current: None,
            routed: &[],
            refused: &BTreeMap::new(),
            claimed: None,
            load: &Load::default(),
            wish: None,
        })
    };
    let members = place("2001:db8:2::200").assignment.unwrap().members;
    assert_eq!(members.len(), 3);
    assert!(members.iter().all(|m| m.address.to_string().starts_with("2001:db8:2::")), "{members:?}");
    let members = place(VIP).assignment.unwrap().members;
    assert!(members.iter().all(|m| m.address.is_ipv4()), "{members:?}");
    assert_eq!(place("2001:db8:3::200").reason, Reason::NoEligibleNode);
}

#[test]
fn an_interface_that_comes_up_does_not_move_an_address_on_its_own_node() {
    let mut case = Case::placed();
    let mut second = case.nodes["node-b"].interfaces[0].clone();
    second.name = "ens1".into();
    case.nodes.get_mut("node-b").unwrap().interfaces.insert(0, second);
    let members = case.place().assignment.unwrap().members;
    assert_eq!((members[0].node.as_str(), members[0].interface.as_str()), ("node-b", "eth0"));
}

#[test]
fn a_claim_that_prevailed_at_the_same_epoch_is_adopted() {
    let mut case = Case::placed();
    case.claimed = Some(("node-a", 4));
    assert_eq!(case.told(), "node-a@4 > node-c node-b");
}

#[test]
fn a_node_on_which_no_kube_proxy_was_met_is_chosen_after_those_that_have_one_and_keeps_what_it_owns() {
    use KubeProxy::{Absent, Fresh};
    let with = |case: Case, found: [Option<KubeProxy>; 3]| {
        let names = ["node-a", "node-b", "node-c"];
        names.into_iter().zip(found).fold(case, |case, (name, found)| {
            case.edit(name, |node| {
                node.dataplane = found.map(|kube_proxy| Dataplane { kube_proxy, health_checks: false });
            })
        })
    };
    let fresh = Case::fresh().place().assignment.unwrap();
    let (first, last) = (fresh.owner.clone().unwrap(), fresh.standbys.last().cloned().unwrap());
    assert_eq!(first, "node-b");
    for (what, found, owner) in [
        ("nobody has looked", [None, None, None], &first),
        ("nobody has one: something else forwards", [Some(Absent), Some(Absent), Some(Absent)], &first),
        ("all have one", [Some(Fresh), Some(Fresh), Some(Fresh)], &first),
        ("the first was not looked at yet", [Some(Fresh), None, Some(Fresh)], &first),
    ] {
        assert_eq!(with(Case::fresh(), found).place().assignment.unwrap().owner.as_ref(), Some(owner), "{what}");
    }
    let late = |case: Case| with(case, [Some(Fresh), Some(Absent), Some(Fresh)]).place().assignment.unwrap();
    let chosen = late(Case::fresh());
    assert_ne!(chosen.owner.as_deref(), Some("node-b"), "others have one");
    assert_eq!(chosen.standbys.last().map(String::as_str), Some("node-b"));
    assert_eq!(late(Case::placed()).owner.as_deref(), Some("node-b"), "what is placed stays");
    let only = |name: &str| {
        let found = ["node-a", "node-b", "node-c"].map(|node| Some(if node == name { Fresh } else { Absent }));
        with(Case::fresh(), found).place().assignment.unwrap().owner
    };
    assert_eq!(only(&last), Some(last), "the only one with a kube-proxy");
}
