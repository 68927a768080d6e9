//! Addresses that nodes hand to their routing daemons.

use berth_api::crd::RouteRefusal;

use super::*;

/// An advertisement of routes for these nodes; none for all.
fn routes(nodes: &[&str], way: RouteAssignment) -> Arc<Rule> {
    let nodes = (!nodes.is_empty()).then(|| nodes.iter().map(|node| (*node).to_owned()).collect());
    Arc::new(Rule { nodes, route: Some(way), ..Rule::default() })
}

/// All three nodes may make routes, and one advertisement covers the address.
fn routed() -> Case {
    let mut case = Case { rules: vec![routes(&[], RouteAssignment::default())], ..Case::fresh() };
    case.nodes.values_mut().for_each(|node| node.routes = true);
    case
}

/// The nodes of each way, as `a b | c`.
fn told(case: &Case) -> String {
    let ways = case.place().routes;
    ways.iter().map(|way| way.nodes.join(" ").replace("node-", "")).collect::<Vec<_>>().join(" | ")
}

fn refused(case: Case, node: &'static str, reason: RouteRefusal) -> Case {
    let message = format!("{reason:?} there");
    let refused = RefusedRoute { address: VIP.parse().unwrap(), reason, message };
    Case { refused: case.refused.into_iter().chain([(node, refused)]).collect(), ..case }
}

#[test]
fn all_nodes_route_an_address_but_those_that_cannot_or_are_to_be_spared() {
    type Change = fn(Case) -> Case;
    let cases: &[(&str, Change, &str)] = &[
        ("nothing of note", |case| case, "a b c"),
        ("no interface in the subnet", |case| case.edit("node-a", |n| n.interfaces[0].addresses.clear()), "a b c"),
        ("excluded", |case| case.edit("node-a", |n| n.excluded = true), "b c"),
        ("no network", |case| case.edit("node-b", |n| n.network_unavailable = true), "a c"),
        ("may make no routes", |case| case.edit("node-c", |n| n.routes = false), "a b"),
        ("drained", |case| case.edit("node-a", drained), "b c"),
        ("all drained", |case| case.edit("node-a", drained).edit("node-b", drained).edit("node-c", drained), "a b c"),
        ("not ready and new", |case| case.edit("node-a", |n| n.ready = false), "b c"),
        ("Local", |case| case.local(&["node-c"]), "c"),
        ("Local, and the only one is drained", |case| case.local(&["node-c"]).edit("node-c", drained), "c"),
        ("refused, which is tried again", |case| refused(case, "node-a", RouteRefusal::RouteTaken), "a b c"),
        (
            "no kube-proxy where others have one",
            |case| {
                let dataplane = |kube_proxy| Some(Dataplane { kube_proxy, health_checks: false });
                let case = case.edit("node-a", |n| n.dataplane = dataplane(KubeProxy::Absent));
                case.edit("node-b", |n| n.dataplane = dataplane(KubeProxy::Fresh))
            },
            "b c",
        ),
    ];
    for (what, change, expected) in cases {
        assert_eq!(told(&change(routed())), *expected, "{what}");
    }
}

#[test]
fn a_node_that_the_cluster_does_not_see_alive_keeps_what_it_has_unless_it_is_drained() {
    let way = |nodes: &[&str]| RouteAssignment {
        nodes: nodes.iter().map(|node| (*node).to_owned()).collect(),
        ..RouteAssignment::default()
    };
    let down = |case: Case| case.edit("node-a", |n| n.ready = false);
    let has = Case { routed: vec![way(&["node-a", "node-b"])], ..down(routed()) };
    assert_eq!(told(&has), "a b c");
    assert_eq!(told(&has.edit("node-a", drained)), "b c");
    let never_had = Case { routed: vec![way(&["node-b"])], ..down(routed()) };
    assert_eq!(told(&never_had), "b c");
}

#[test]
fn each_way_is_for_the_nodes_that_its_advertisements_select() {
    let other = RouteAssignment { table: Some(100), ..RouteAssignment::default() };
    let two = vec![
        routes(&["node-a"], RouteAssignment::default()),
        routes(&["node-b"], RouteAssignment::default()),
        routes(&["node-b", "node-c"], other),
    ];
    let case = Case { rules: two, ..routed() };
    assert_eq!(told(&case), "a b | b c");
    assert_eq!(case.place().message, "routed by 3 nodes: node-a; node-b; node-c");
}

#[test]
fn what_is_said_names_who_routes_and_who_cannot() {
    use RouteRefusal::{OnLinkAddress, RouteInterfaceMissing, RouteTaken};
    type Change = fn(Case) -> Case;
    let all = |case: Case, reason| {
        ["node-a", "node-b", "node-c"].into_iter().fold(case, |case, node| refused(case, node, reason))
    };
    let cases: &[(&str, Change, &str)] = &[
        ("all", |case| case, "Announced routed by 3 nodes: node-a; node-b; node-c"),
        ("one", |case| case.local(&["node-b"]), "Announced routed by 1 node: node-b"),
        (
            "none serves",
            |case| case.local(&[]),
            "NoLocalEndpoints externalTrafficPolicy is Local, and no node that could route",
        ),
        (
            "one refuses",
            |case| refused(case, "node-b", RouteTaken),
            "Announced routed by 2 nodes: node-a; node-c + RouteTaken routed by 2 nodes: node-a; node-c; and not by node-b: RouteTaken there",
        ),
        (
            "none may",
            |mut case| {
                case.nodes.values_mut().for_each(|node| node.routes = false);
                case
            },
            "RoutesNotPermitted no speaker of a node that could route 10.0.0.1 may make routes (node-a; node-b; node-c)",
        ),
        (
            "all are excluded",
            |mut case| {
                case.nodes.values_mut().for_each(|node| node.excluded = true);
                case
            },
            "AllNodesExcluded every node",
        ),
        (
            "no node",
            |case| Case { nodes: BTreeMap::new(), ..case },
            "NoEligibleNode no node can route 10.0.0.1: there are no nodes",
        ),
    ];
    let said = |case: &Case| {
        let Placement { reason, message, remark, .. } = case.place();
        let remark = remark.map(|(reason, message)| format!(" + {reason} {message}")).unwrap_or_default();
        format!("{reason} {message}{remark}")
    };
    for (what, change, expected) in cases {
        let said = said(&change(routed()));
        assert!(said.starts_with(expected), "{what}: {said}");
    }
    assert!(
        said(&all(routed(), OnLinkAddress))
            .starts_with("OnLinkAddress no node routes 10.0.0.1: node-a: OnLinkAddress there")
    );
    let most = refused(
        refused(refused(routed(), "node-a", RouteTaken), "node-b", RouteInterfaceMissing),
        "node-c",
        RouteTaken,
    );
    assert!(said(&most).starts_with("RouteTaken no node routes"), "{}", said(&most));
}

#[test]
fn nobody_answers_on_the_link_for_what_is_routed_and_the_epoch_never_falls() {
    assert_eq!(routed().place().assignment, None, "nobody ever did");
    let before = Case::placed();
    let mut case = Case { current: before.current, claimed: before.claimed, ..routed() };
    let nobody = case.place().assignment.unwrap();
    assert_eq!((nobody.owner.as_ref(), nobody.epoch, nobody.members.len()), (None, 5, 0));
    case.current = Some(nobody.clone());
    assert_eq!(case.place().assignment, Some(nobody), "and so it stays");
    case.rules = everywhere();
    let back = case.place();
    assert_eq!((back.assignment.unwrap().epoch, back.routes.len()), (6, 0));
}

proptest! {
    /// Asking again with the answer changes nothing; whoever can and has nothing against it is among the nodes, and nobody who cannot is.
    #[test]
    fn an_answer_of_routes_is_stable_and_names_all_that_can(
        flags in prop::collection::vec(0_u8..32, 3), serving in prop::option::of(0_u8..8)
    ) {
        let mut case = routed();
        for (node, flags) in case.nodes.values_mut().zip(&flags) {
            node.excluded = flags & 1 == 1;
            node.ready = flags & 2 == 0;
            node.draining = (flags & 4 == 4).then_some(Draining::Asked);
            node.routes = flags & 8 == 0;
            node.network_unavailable = flags & 16 == 16;
        }
        let names: Vec<_> = case.nodes.keys().cloned().collect();
        case.serving = serving.map(|bits| (0..3).filter(|n| bits & (1 << n) != 0).map(|n| names[n].clone()).collect());
        case.routed = case.place().routes;
        let chosen: BTreeSet<_> = case.routed.iter().flat_map(|way| way.nodes.clone()).collect();
        prop_assert_eq!(case.place().routes, case.routed.clone());
        for (name, node) in &case.nodes {
            let serves = case.serving.as_ref().is_none_or(|serving| serving.contains(name));
            let can = !node.excluded && !node.network_unavailable && node.routes && serves;
            prop_assert!(!chosen.contains(name) || can, "{} cannot", name);
            prop_assert!(chosen.contains(name) || !(can && node.ready && node.draining.is_none()), "{} can", name);
        }
    }
}
