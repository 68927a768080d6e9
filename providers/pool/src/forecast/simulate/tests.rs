use berth_api::annotations::MOVE_TO;
use serde_json::json;

use super::*;
use crate::scene::{Scene, vip};

/// Four nodes: one address on each of the first three, one of the Local policy on node-1 and node-2, and one that nobody answers for.
fn scene() -> Scene {
    let mut scene = Scene::new(4);
    scene.held("a", vip(1), json!({}), &["node-1", "node-2", "node-3"]);
    scene.held("b", vip(2), json!({}), &["node-2", "node-1", "node-4"]);
    scene.held("c", vip(3), json!({}), &["node-3", "node-4", "node-1"]);
    scene.endpoints("local", &["node-1", "node-2"]);
    scene.held("local", vip(4), json!({"externalTrafficPolicy": "Local"}), &["node-1", "node-2"]);
    scene.held("none", vip(5), json!({"externalTrafficPolicy": "Local"}), &[]);
    scene
}

fn told(scene: &Scene, fault: Fault, nodes: &[&str]) -> Vec<String> {
    let nodes = nodes.iter().map(|node| (*node).to_owned()).collect();
    let simulation = simulate(scene.world.clone(), fault, &nodes, Timestamp::UNIX_EPOCH).unwrap();
    let or_none = |node: &Option<String>| node.clone().unwrap_or("none".to_owned());
    let fates = simulation.addresses.iter().map(|fate| {
        let services: Vec<_> = fate.services.iter().map(|service| service.name.as_str()).collect();
        format!(
            "{} {} > {}: {:?} {}",
            services.join(","),
            or_none(&fate.before),
            or_none(&fate.after),
            fate.turn,
            fate.reason
        )
    });
    let loads = simulation.nodes.iter().map(|load| format!("{} {} > {}", load.node, load.before, load.after));
    fates.chain(loads).collect()
}

#[test]
fn when_a_node_fails_the_first_standby_that_lives_has_its_addresses() {
    assert_eq!(
        told(&scene(), Fault::Fail, &["node-1"]),
        [
            "a node-1 > node-2: TakenOver Announced",
            "b node-2 > node-2: Stays Announced",
            "c node-3 > node-3: Stays Announced",
            "local node-1 > node-2: TakenOver Announced",
            "none none > none: Unserved NoLocalEndpoints",
            "node-1 2 > 0",
            "node-2 1 > 3",
            "node-3 1 > 1",
            "node-4 0 > 0",
        ]
    );
}

#[test]
fn when_owner_and_standbys_fail_the_controller_names_another_if_there_is_one() {
    let told = told(&scene(), Fault::Fail, &["node-1", "node-2", "node-3"]);
    assert_eq!(
        told[..5],
        [
            "a node-1 > node-4: Moves Announced",
            "b node-2 > node-4: TakenOver Announced",
            "c node-3 > node-4: TakenOver Announced",
            "local node-1 > none: Lost NoLocalEndpoints",
            "none none > none: Unserved NoLocalEndpoints",
        ]
    );
}

#[test]
fn when_all_nodes_fail_all_addresses_are_lost() {
    let told = told(&scene(), Fault::Fail, &["node-1", "node-2", "node-3", "node-4"]);
    assert_eq!(
        told[..5],
        [
            "a node-1 > none: Lost NoEligibleNode",
            "b node-2 > none: Lost NoEligibleNode",
            "c node-3 > none: Lost NoEligibleNode",
            "local node-1 > none: Lost NoLocalEndpoints",
            "none none > none: Unserved NoLocalEndpoints",
        ]
    );
}

#[test]
fn a_standby_that_is_not_ready_does_not_take_over() {
    let mut scene = scene();
    scene.node("node-2", |view| view.ready = false);
    // The controller has put it in the last place already.
    let told = told(&scene, Fault::Fail, &["node-1"]);
    assert_eq!(told[0], "a node-1 > node-3: TakenOver Announced");
    assert_eq!(told[3], "local node-1 > none: Lost NoLocalEndpoints");
}

#[test]
fn a_drained_node_gives_up_what_another_can_take() {
    let mut scene = scene();
    assert_eq!(
        told(&scene, Fault::Drain, &["node-1"])[..6],
        [
            "a node-1 > node-2: Moves Announced",
            "b node-2 > node-2: Stays Announced",
            "c node-3 > node-3: Stays Announced",
            "local node-1 > node-2: Moves Announced",
            "none none > none: Unserved NoLocalEndpoints",
            "node-1 2 > 0",
        ]
    );
    scene.endpoints("local", &["node-1"]);
    assert_eq!(told(&scene, Fault::Drain, &["node-1"])[3], "local node-1 > node-1: Blocked DrainBlocked");
}

#[test]
fn what_people_wish_for_and_what_is_under_way_counts_as_done() {
    let mut scene = scene();
    scene.annotate(vip(1), MOVE_TO, "node-4");
    assert_eq!(told(&scene, Fault::Fail, &["node-1"])[0], "a node-4 > node-4: Stays Announced");
    assert_eq!(told(&scene, Fault::Fail, &["node-4"])[0].split(':').nth(1), Some(" TakenOver Announced"));
}

#[test]
fn a_node_that_does_not_exist_is_an_error_that_names_those_that_do() {
    let nodes = BTreeSet::from(["node-1".to_owned(), "node-9".to_owned()]);
    let error = simulate(scene().world, Fault::Fail, &nodes, Timestamp::UNIX_EPOCH).unwrap_err();
    assert_eq!(error.to_string(), "there is no node `node-9`; there are node-1, node-2, node-3, node-4");
}

#[test]
fn what_is_routed_is_left_to_the_nodes_that_remain_and_lost_with_the_last_of_them() {
    let mut scene = Scene::new(3);
    scene.world.learn(Change::Advertisement("all".to_owned(), None));
    let ad = json!({"apiVersion": "berth.dev/v1alpha1", "kind": "RouteAdvertisement", "metadata": {"name": "all"}, "spec": {}});
    let ad = crate::view::AdvertisementView::of_routes(&serde_json::from_value(ad).unwrap());
    scene.world.learn(Change::RouteAdvertisement("all".to_owned(), Some(ad)));
    for n in 1..=3 {
        let report = crate::view::Report { routes: true, ..crate::view::Report::default() };
        scene.world.learn(Change::SpeakerNode(format!("node-{n}"), Some(report)));
    }
    scene.held("a", vip(1), json!({}), &[]);
    scene.endpoints("local", &["node-1"]);
    scene.held("local", vip(2), json!({"externalTrafficPolicy": "Local"}), &[]);
    for (fault, nodes, expected) in [
        (
            Fault::Fail,
            &["node-1"][..],
            ["a node-1; node-2; node-3 > node-2; node-3: Stays Announced", "local node-1 > none: Lost NoEligibleNode"],
        ),
        (
            Fault::Drain,
            &["node-1", "node-2"],
            ["a node-1; node-2; node-3 > node-3: Stays Announced", "local node-1 > node-1: Stays Announced"],
        ),
        (
            Fault::Fail,
            &["node-1", "node-2", "node-3"],
            ["a node-1; node-2; node-3 > none: Lost NoEligibleNode", "local node-1 > none: Lost NoEligibleNode"],
        ),
    ] {
        assert_eq!(told(&scene, fault, nodes)[..2], expected, "{fault:?} {nodes:?}");
    }
}
