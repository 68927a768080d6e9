use berth_api::annotations::MOVE_TO;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::placement::Draining;
use crate::scene::{Scene, vip};
use crate::view::AdvertisementView;
use crate::world::Change;

/// Nodes that own so many addresses each, the first node the lowest.
fn scene(owned: &[u32]) -> Scene {
    let mut scene = Scene::new(u8::try_from(owned.len()).unwrap());
    let mut next = 0;
    for (n, owned) in (1..).zip(owned) {
        for _ in 0..*owned {
            next += 1;
            scene.held(&format!("s{next}"), vip(next), json!({}), &[&format!("node-{n}")]);
        }
    }
    scene
}

fn told(rebalance: &Rebalance) -> Vec<String> {
    rebalance
        .nodes
        .iter()
        .map(|share| {
            let most = share.most.map_or("-".to_owned(), |most| most.to_string());
            format!("{} {} > {} of {most}", share.node, share.before, share.after)
        })
        .collect()
}

#[test]
fn only_what_is_above_the_bound_moves() {
    for (owned, moves, expected) in [
        (&[4, 4, 4][..], 0, &["node-1 4 > 4 of 5", "node-2 4 > 4 of 5", "node-3 4 > 4 of 5"][..]),
        (&[5, 5, 2], 0, &["node-1 5 > 5 of 5", "node-2 5 > 5 of 5", "node-3 2 > 2 of 5"]),
        (&[12, 0], 4, &["node-1 12 > 8 of 8", "node-2 0 > 4 of -"]),
        (&[1, 0, 0], 0, &["node-1 1 > 1 of 1", "node-2 0 > 0 of -", "node-3 0 > 0 of -"]),
        (&[0, 0], 0, &["node-1 0 > 0 of -", "node-2 0 > 0 of -"]),
    ] {
        let rebalance = rebalance(&scene(owned).world, None, None);
        assert_eq!(
            (rebalance.moves.len(), told(&rebalance)),
            (moves, expected.iter().map(ToString::to_string).collect())
        );
    }
}

#[test]
fn those_go_first_whose_first_node_by_the_hash_has_room() {
    let scene = scene(&[20, 0, 0, 0]);
    let rebalance = rebalance(&scene.world, None, None);
    let nodes = ["node-1", "node-2", "node-3", "node-4"];
    let first = |address| nodes.into_iter().min_by_key(|node| rank(node, address)).unwrap();
    let homeward = (1..=20).filter(|n| first(vip(*n)) != "node-1").count();
    // 20 addresses on 4 nodes: 7 at the most on each.
    assert_eq!(rebalance.moves.len(), 13);
    assert!(homeward >= 13, "{homeward}");
    let home = rebalance.moves.iter().filter(|moved| first(moved.address) == moved.to).count();
    assert_eq!(home, 13, "{:?}", rebalance.moves);
}

/// The one advertisement now prefers nodes with the label `fast`, which these have.
fn prefer(scene: &mut Scene, nodes: &[&str]) {
    let ad = json!({
        "apiVersion": "berth.dev/v1alpha1", "kind": "L2Advertisement", "metadata": {"name": "all", "generation": 2},
        "spec": {"preferredNodeSelectors": [{"weight": 10, "preference": {"matchLabels": {"fast": "yes"}}}]},
    });
    let ad = AdvertisementView::of(&serde_json::from_value(ad).unwrap());
    scene.world.learn(Change::Advertisement("all".to_owned(), Some(ad)));
    for node in nodes {
        scene.node(node, |view| view.labels = [("fast".to_owned(), "yes".to_owned())].into());
    }
}

#[test]
fn what_is_on_a_node_while_others_are_preferred_moves_to_those_and_is_balanced_among_them_alone() {
    for (owned, preferred, expected) in [
        (&[4, 4, 4][..], &["node-1"][..], &["node-1 4 > 12 of 15", "node-2 4 > 0 of -", "node-3 4 > 0 of -"][..]),
        (&[12, 0, 0], &["node-1"], &["node-1 12 > 12 of 15", "node-2 0 > 0 of -", "node-3 0 > 0 of -"]),
        (&[12, 0, 0], &["node-1", "node-2"], &["node-1 12 > 8 of 8", "node-2 0 > 4 of -", "node-3 0 > 0 of -"]),
        (&[8, 0, 4], &["node-1", "node-2"], &["node-1 8 > 8 of 8", "node-2 0 > 4 of -", "node-3 4 > 0 of -"]),
        (&[4, 4, 4], &[], &["node-1 4 > 4 of 5", "node-2 4 > 4 of 5", "node-3 4 > 4 of 5"]),
    ] {
        let mut scene = scene(owned);
        prefer(&mut scene, preferred);
        let now = rebalance(&scene.world, None, None);
        assert_eq!(told(&now), expected.iter().map(ToString::to_string).collect::<Vec<_>>(), "{owned:?} {preferred:?}");
        let liked = |node: &String| preferred.is_empty() || preferred.contains(&node.as_str());
        assert!(now.moves.iter().all(|moved| liked(&moved.to)), "{:?}", now.moves);
    }
    let mut scene = scene(&[4, 4, 4]);
    prefer(&mut scene, &["node-1"]);
    assert_eq!(rebalance(&scene.world, None, Some(3)).moves.len(), 3);
    scene.node("node-1", |view| view.ready = false);
    assert_eq!(rebalance(&scene.world, None, None).moves, [], "nobody prefers a node that is down");
}

#[test]
fn what_may_not_move_does_not() {
    let mut scene = scene(&[12, 0, 0]);
    let moves = |scene: &Scene, only, most| rebalance(&scene.world, only, most).moves;
    let all = moves(&scene, None, None);
    assert_eq!(all.len(), 7);
    assert_eq!(moves(&scene, None, Some(3)), all[..3]);
    assert_eq!(moves(&scene, Some("shop"), None), all);
    assert_eq!(moves(&scene, Some("other"), None), []);
    let held = all[0].address;
    scene.annotate(held, MOVE_TO, "node-1");
    let without = moves(&scene, None, None);
    assert!(without.len() == 7 && without.iter().all(|moved| moved.address != held), "another goes in its place");
    scene.node("node-3", |view| view.draining = Some(Draining::Asked));
    assert!(moves(&scene, None, None).iter().all(|moved| moved.to == "node-2"));
    scene.node("node-1", |view| view.draining = Some(Draining::Asked));
    assert_eq!(moves(&scene, None, None), [], "the controller moves them already");
}

#[test]
fn an_address_goes_only_where_it_can_be_answered_for() {
    let mut scene = Scene::new(3);
    for n in 1..=6 {
        let name = format!("local{n}");
        scene.endpoints(&name, &["node-1", "node-2"]);
        scene.held(&name, vip(n), json!({"externalTrafficPolicy": "Local"}), &["node-1"]);
    }
    let rebalance = rebalance(&scene.world, None, None);
    assert_eq!(rebalance.moves.len(), 2, "4 of 6 at the most on each of two");
    assert!(rebalance.moves.iter().all(|moved| moved.to == "node-2"));
}

proptest! {
    /// However they lie: afterwards nobody is above the bound, no fewer moves would do, and once made they leave none to make.
    #[test]
    fn it_takes_as_many_moves_as_there_are_addresses_too_many(owned in prop::collection::vec(0_u32..25, 1..7)) {
        let scene = scene(&owned);
        let rebalance = rebalance(&scene.world, None, None);
        let most = bound(u64::from(owned.iter().sum::<u32>()).saturating_sub(1), owned.len() as u64);
        let too_many: u64 = owned.iter().map(|owned| u64::from(*owned).saturating_sub(most)).sum();
        prop_assert_eq!(rebalance.moves.len() as u64, too_many);
        prop_assert!(rebalance.nodes.iter().all(|share| share.after <= most), "{:?}", rebalance.nodes);
        let mut after = scene;
        for moved in &rebalance.moves {
            let name = moved.services[0].name.clone();
            after.held(&name, moved.address, json!({}), &[&moved.to]);
        }
        prop_assert_eq!(super::rebalance(&after.world, None, None).moves, []);
    }
}
