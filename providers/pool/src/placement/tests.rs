use proptest::prelude::*;

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

fn everywhere() -> Vec<Rule> {
    vec![Rule::default()]
}

struct Case {
    nodes: BTreeMap<String, Node>,
    rules: Vec<Rule>,
    serving: Option<BTreeSet<String>>,
    current: Option<Layer2Assignment>,
    claimed: Option<(&'static str, u64)>,
}

impl Case {
    fn fresh() -> Self {
        Self { nodes: nodes(), rules: everywhere(), serving: None, current: None, claimed: None }
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
            serving: self.serving.as_ref(),
            current: self.current.as_ref(),
            claimed: self.claimed,
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
    let cases: [(&str, Change, &str); 9] = [
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
        ("the owner lost its endpoints", |c| c.local(&["node-c"]), "node-c@5 > node-b"),
        ("every node lost its endpoints", |c| c.local(&[]), "nobody@5 > "),
    ];
    for (what, change, expected) in cases {
        assert_eq!(change(Case::placed()).told(), expected, "{what}");
    }
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
            "no L2Advertisement covers",
        ),
        (|c| c.local(&[]), Reason::NoLocalEndpoints, "externalTrafficPolicy is Local"),
        (
            |mut c| {
                c.nodes.values_mut().for_each(|n| n.excluded = true);
                c
            },
            Reason::NoEligibleNode,
            "node-a: excluded by its label",
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
                c.rules[0].interfaces = BTreeSet::from(["eth9".to_owned()]);
                c
            },
            Reason::NoEligibleNode,
            "node-b: no allowed interface has the subnet",
        ),
        (
            |mut c| {
                c.rules[0].nodes = Some(BTreeSet::new());
                c
            },
            Reason::NoEligibleNode,
            "node-a: no L2Advertisement selects it",
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
    let only = |name: &str| Rule { nodes: Some(BTreeSet::from([name.to_owned()])), interfaces: BTreeSet::new() };
    case.rules = vec![only("node-a"), only("node-c")];
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
            serving: None,
            current: None,
            claimed: None,
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
