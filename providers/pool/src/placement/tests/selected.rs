//! What advertisements say of nodes and interfaces, and what nodes say of themselves.

use super::*;

/// An advertisement that prefers nodes, each by so much.
fn preferring(preferred: &[(&str, u32)]) -> Arc<Rule> {
    let preferred = preferred.iter().map(|(node, weight)| ((*node).to_owned(), *weight)).collect();
    Arc::new(Rule { preferred, ..Rule::default() })
}

/// Nodes that own so many addresses.
fn owning(owned: &[(&'static str, u64)]) -> Load {
    let mut load = Load::default();
    for (owner, count) in owned {
        (0..*count).for_each(|_| load.add(Seat { owner, interface: "eth0", standbys: [] }));
    }
    load
}

#[test]
fn the_node_that_is_preferred_most_is_chosen_and_the_next_stand_by() {
    type Change = fn(Case) -> Case;
    // By the hash the order is node-b, node-a, node-c.
    let cases: [(&str, &[Arc<Rule>], Change, &str); 10] = [
        ("nobody is preferred", &[preferring(&[])], |c| c, "node-b@1 > node-a node-c"),
        ("one is", &[preferring(&[("node-c", 1)])], |c| c, "node-c@1 > node-b node-a"),
        ("two are alike", &[preferring(&[("node-c", 7), ("node-a", 7)])], |c| c, "node-a@1 > node-c node-b"),
        ("one more than the other", &[preferring(&[("node-c", 8), ("node-a", 7)])], |c| c, "node-c@1 > node-a node-b"),
        (
            "weights add up over advertisements",
            &[preferring(&[("node-a", 60)]), preferring(&[("node-c", 40)]), preferring(&[("node-c", 40)])],
            |c| c,
            "node-c@1 > node-a node-b",
        ),
        (
            "who is preferred by an advertisement that does not select it",
            &[
                Arc::new(Rule {
                    preferred: BTreeMap::from([("node-c".to_owned(), 9)]),
                    ..(*only(&["node-a"])).clone()
                }),
                only(&["node-b", "node-c"]),
            ],
            |c| c,
            "node-b@1 > node-a node-c",
        ),
        (
            "one that is not ready",
            &[preferring(&[("node-c", 100)])],
            |c| c.edit("node-c", |n| n.ready = false),
            "node-b@1 > node-a node-c",
        ),
        (
            "one that is drained",
            &[preferring(&[("node-c", 100)])],
            |c| c.edit("node-c", drained),
            "node-b@1 > node-a node-c",
        ),
        (
            "one that cannot answer",
            &[preferring(&[("node-c", 100)])],
            |c| c.edit("node-c", |n| n.interfaces.clear()),
            "node-b@1 > node-a",
        ),
        (
            "one without an endpoint",
            &[preferring(&[("node-c", 100), ("node-a", 1)])],
            |c| c.local(&["node-a", "node-b"]),
            "node-a@1 > node-b",
        ),
    ];
    for (what, rules, change, expected) in cases {
        assert_eq!(change(Case { rules: rules.to_vec(), ..Case::fresh() }).told(), expected, "{what}");
    }
}

#[test]
fn load_is_balanced_only_among_nodes_that_are_preferred_alike() {
    for (what, preferred, owned, expected) in [
        ("one is", &[("node-c", 1)][..], &[("node-c", 90)][..], "node-c"),
        ("two are, and one has more than its share", &[("node-a", 5), ("node-c", 5)], &[("node-a", 9)], "node-c"),
        (
            "two are, and a third has nothing",
            &[("node-a", 5), ("node-c", 5)],
            &[("node-a", 9), ("node-c", 9)],
            "node-a",
        ),
    ] {
        let case = Case { rules: vec![preferring(preferred)], load: owning(owned), ..Case::fresh() };
        assert_eq!(case.place().assignment.unwrap().owner.as_deref(), Some(expected), "{what}");
    }
}

#[test]
fn what_is_placed_stays_although_another_is_preferred_now_until_it_has_to_move() {
    let preferred = || Case { rules: vec![preferring(&[("node-c", 10)])], ..Case::placed() };
    assert_eq!(preferred().told(), "node-b@4 > node-a node-c");
    assert_eq!(preferred().edit("node-b", drained).told(), "node-c@5 > node-a node-b", "it has to move anyway");
    let taken = Case { claimed: Some(("node-a", 5)), ..preferred() };
    assert_eq!(taken.told(), "node-a@5 > node-c node-b", "a takeover is adopted");
    assert_eq!(
        Case { wish: Some("node-a"), ..preferred() }.told(),
        "node-a@5 > node-c node-b",
        "a person knows better"
    );
    // It is preferred, goes, and comes back: what moved to a standby stays there.
    let case = Case { rules: vec![preferring(&[("node-b", 10)])], ..Case::placed() };
    let mut case = case.edit("node-b", |n| n.ready = false);
    case.claimed = Some(("node-a", 5));
    case.current = case.place().assignment;
    assert_eq!(case.edit("node-b", |n| n.ready = true).told(), "node-a@5 > node-c node-b");
}

#[test]
fn an_owner_with_four_partners_is_watched_by_those_whoever_is_preferred() {
    let mut case = Case::fresh();
    for (n, name) in (4..).zip(["node-d", "node-e", "node-f", "node-g"]) {
        case.nodes.insert(name.into(), node(n));
    }
    case.rules = vec![preferring(&[("node-a", 100), ("node-b", 50), ("node-c", 40)])];
    case.load.add(Seat { owner: "node-a", interface: "eth0", standbys: ["node-c", "node-d", "node-e", "node-f"] });
    let assignment = case.place().assignment.unwrap();
    assert_eq!(assignment.owner.as_deref(), Some("node-a"));
    assert_eq!(assignment.standbys[0], "node-c", "the one that is preferred of the four: {:?}", assignment.standbys);
    assert!(!assignment.standbys.contains(&"node-b".to_owned()), "{:?}", assignment.standbys);
}

#[test]
fn interfaces_are_allowed_by_name_or_pattern_and_by_any_advertisement() {
    let named = |name: &str| {
        let mut nodes = nodes();
        for node in nodes.values_mut() {
            node.interfaces[0].name = name.to_owned();
        }
        nodes
    };
    for (interface, rules, may) in [
        ("eth0", vec![on(&["eth0"])], true),
        ("eth0", vec![on(&["eth1"])], false),
        ("eth0", vec![on(&["eth1", "eth?"])], true),
        ("bond0.70", vec![on(&["bond0.?"])], false),
        ("bond0.70", vec![on(&["bond0.*"])], true),
        ("eth0", vec![on(&["eth1"]), on(&["eth0"])], true),
        ("eth0", vec![on(&["eth1"]), Arc::default()], true),
        // None can be read.
        ("eth0", vec![on(&[])], false),
        // The one that allows it selects no node.
        ("eth0", vec![on(&["eth1"]), only(&[])], false),
    ] {
        let placement = Case { nodes: named(interface), rules: rules.clone(), ..Case::fresh() }.place();
        let owner = placement.assignment.and_then(|assignment| assignment.owner);
        assert_eq!(owner.is_some(), may, "{interface}: {rules:?}: {}", placement.message);
    }
}

#[test]
fn an_address_leaves_an_interface_that_is_not_allowed_any_more_on_its_own_node() {
    let mut case = Case::placed();
    let mut second = case.nodes["node-b"].interfaces[0].clone();
    second.name = "ens1".into();
    case.nodes.get_mut("node-b").unwrap().interfaces.push(second);
    case.rules = vec![on(&["ens*"]), only(&["node-a", "node-c"])];
    let members = case.place().assignment.unwrap().members;
    assert_eq!((members[0].node.as_str(), members[0].interface.as_str()), ("node-b", "ens1"));
}

#[test]
fn where_labels_or_missing_networks_leave_no_node_at_all_that_is_said() {
    type Change = fn(&mut BTreeMap<String, Node>);
    type Row = (&'static str, Vec<Arc<Rule>>, Change, Reason, &'static str);
    let all = || vec![Arc::default()];
    let exclude: Change = |nodes| {
        for node in nodes.values_mut() {
            node.excluded = true;
        }
    };
    let cases: [Row; 7] = [
        (
            "all have the label",
            all(),
            exclude,
            Reason::AllNodesExcluded,
            "balancers (node-a; node-b; node-c), which kubeadm gives to control-plane nodes; remove it (`kubectl label node node-a \
             node.kubernetes.io/exclude-from-external-load-balancers-`), or run the controller with --ignore-exclude-lb",
        ),
        (
            "all that are selected have it",
            vec![only(&["node-b"])],
            |nodes| nodes.get_mut("node-b").unwrap().excluded = true,
            Reason::AllNodesExcluded,
            "balancers (node-b), which",
        ),
        (
            "one has no speaker",
            all(),
            |nodes| {
                for node in nodes.values_mut() {
                    node.excluded = true;
                }
                *nodes.get_mut("node-b").unwrap() = Node::default();
            },
            Reason::NoEligibleNode,
            "node-a: excluded by its label node.kubernetes.io/exclude-from-external-load-balancers; node-b: its speaker has not reported",
        ),
        (
            "none has a network",
            all(),
            |nodes| {
                for node in nodes.values_mut() {
                    node.network_unavailable = true;
                }
            },
            Reason::NodeNetworksUnavailable,
            "the condition NetworkUnavailable is True on node-a; node-b; node-c; look at",
        ),
        (
            "some have no network and the others the label",
            all(),
            |nodes| {
                for node in nodes.values_mut() {
                    node.excluded = true;
                }
                let node = nodes.get_mut("node-c").unwrap();
                (node.excluded, node.network_unavailable) = (false, true);
            },
            Reason::NodeNetworksUnavailable,
            "True on node-c, and all others have the label node.kubernetes.io/exclude-from-external-load-balancers (node-a; node-b); look",
        ),
        ("there are no nodes", all(), BTreeMap::clear, Reason::NoEligibleNode, "there are no nodes"),
        (
            "none is selected, and all have the label",
            vec![only(&[])],
            exclude,
            Reason::NoEligibleNode,
            "node-a: no advertisement selects it",
        ),
    ];
    for (what, rules, change, reason, says) in cases {
        let mut case = Case { rules, ..Case::fresh() };
        change(&mut case.nodes);
        let placement = case.place();
        assert_eq!(placement.reason, reason, "{what}: {}", placement.message);
        assert!(placement.message.contains(says), "{what}: {}", placement.message);
        assert_eq!(placement.assignment.and_then(|a| a.owner), None, "{what}");
    }
}
