//! What moves an address, and what is said where it does not.

use berth_api::annotations::{DRAIN, MOVE_TO};

use super::*;

const VIP: &str = "192.0.2.200";

/// The owner, the epoch and the standbys that are named for the address.
fn named(cluster: &Cluster) -> String {
    let layer2 = cluster.announcements[VIP].spec.layer2.clone().unwrap();
    format!("{}@{} > {}", layer2.owner.unwrap_or_default(), layer2.epoch, layer2.standbys.join(" "))
}

/// `node-1` for 1.
fn number(node: &str) -> u8 {
    node.trim_start_matches("node-").parse().unwrap()
}

fn annotate(cluster: &mut Cluster, key: &str, value: Option<&str>) {
    cluster.edit(VIP, |meta| {
        let annotations = meta.annotations.get_or_insert_default();
        match value {
            Some(value) => annotations.insert(key.to_owned(), value.to_owned()),
            None => annotations.remove(key),
        };
    });
}

#[test]
fn a_drained_node_gives_its_address_up_and_gets_nothing_back() {
    let mut cluster = Cluster::answered();
    let before = named(&cluster);
    let owner = cluster.owner(VIP).unwrap();
    cluster.node_with(number(&owner), json!({"annotations": {DRAIN: "true"}}), json!({}));
    cluster.settle(None);
    let next = cluster.owner(VIP).unwrap();
    assert_ne!(next, owner);
    assert!(
        named(&cluster).ends_with(&owner),
        "who answers keeps its part until its successor has claimed: {}",
        named(&cluster)
    );
    assert_eq!(cluster.writes(), ["update 192.0.2.200"], "the Service is not written");
    cluster.claim(VIP, &next, 2);
    cluster.settle(None);
    cluster.writes();
    cluster.node(number(&owner), json!({}));
    cluster.settle(None);
    assert!(named(&cluster).starts_with(&format!("{next}@2")), "{before}, then {}", named(&cluster));
}

#[test]
fn a_cordoned_node_gives_up_what_it_owns_where_that_is_wished() {
    for wished in [false, true] {
        let mut cluster = Cluster::answered();
        cluster.world.set_drain_on_cordon(wished);
        let owner = cluster.owner(VIP).unwrap();
        cluster.node_with(number(&owner), json!({}), json!({"unschedulable": true}));
        cluster.settle(None);
        assert_eq!(cluster.owner(VIP).unwrap() != owner, wished);
    }
}

#[test]
fn a_drain_that_nobody_can_relieve_is_said_on_the_service_and_nothing_is_taken() {
    let mut cluster = Cluster::new(&[VIP]);
    cluster.endpoints("web", &["node-2"]);
    cluster.apply("web", json!({"externalTrafficPolicy": "Local"}));
    cluster.settle(None);
    cluster.claim(VIP, "node-2", 1);
    cluster.settle(None);
    cluster.node_with(2, json!({"annotations": {DRAIN: "true"}}), json!({}));
    cluster.settle(None);
    assert_eq!(named(&cluster), "node-2@1 > ");
    let condition = cluster.condition("web", types::ANNOUNCED);
    assert!(
        condition.starts_with("True DrainBlocked node node-2 goes on answering although it is being drained"),
        "{condition}"
    );
    assert!(condition.ends_with("node-1: no serving endpoint; node-3: no serving endpoint"), "{condition}");
    assert!(cluster.notes.last().unwrap().starts_with("DrainBlocked"), "{:?}", cluster.notes);
    // It ends as soon as another can.
    cluster.endpoints("web", &["node-2", "node-3"]);
    cluster.settle(None);
    assert_eq!(named(&cluster), "node-3@2 > node-2");
    assert!(cluster.condition("web", types::ANNOUNCED).starts_with("True Announced"));
}

#[test]
fn an_address_goes_where_a_person_wishes_it_and_says_so_where_it_cannot() {
    let mut cluster = Cluster::answered();
    let owner = cluster.owner(VIP).unwrap();
    let wished = ["node-1", "node-2", "node-3"].into_iter().find(|node| *node != owner).unwrap();
    annotate(&mut cluster, MOVE_TO, Some(wished));
    cluster.settle(None);
    assert!(
        named(&cluster).starts_with(&format!("{wished}@2")) && named(&cluster).ends_with(&owner),
        "{}",
        named(&cluster)
    );
    cluster.claim(VIP, wished, 2);
    annotate(&mut cluster, MOVE_TO, None);
    cluster.settle(None);
    assert!(named(&cluster).starts_with(&format!("{wished}@2")), "{}", named(&cluster));

    annotate(&mut cluster, MOVE_TO, Some("node-9"));
    cluster.writes();
    cluster.settle(None);
    assert!(named(&cluster).starts_with(&format!("{wished}@2")), "{}", named(&cluster));
    assert_eq!(cluster.writes(), ["status web 192.0.2.200"]);
    let condition = cluster.condition("web", types::ANNOUNCED);
    let expected = format!(
        "True MoveRefused node {wished} answers, although annotation berth.dev/move-to of the Announcement asks for node node-9: \
         there is no such node"
    );
    assert_eq!(condition, expected);
    annotate(&mut cluster, MOVE_TO, None);
    cluster.settle(None);
    assert!(cluster.condition("web", types::ANNOUNCED).starts_with("True NoServingEndpoints"));
}

#[test]
fn what_others_wrote_on_an_announcement_stays_on_it() {
    let mut cluster = Cluster::answered();
    cluster.edit(VIP, |meta| {
        // A value may have line breaks, unlike a label's.
        meta.annotations = Some([("example.com/note".to_owned(), "a=b\nc".to_owned())].into());
        meta.labels.get_or_insert_default().insert("example.com/team".to_owned(), "web".to_owned());
        meta.finalizers = Some(vec!["example.com/watch".to_owned()]);
        let owner = json!([{"apiVersion": "v1", "kind": "Node", "name": "node-1", "uid": "1"}]);
        meta.owner_references = Some(serde_json::from_value(owner).unwrap());
    });
    let before = cluster.announcements[VIP].metadata.clone();
    let owner = cluster.owner(VIP).unwrap();
    cluster.node(number(&owner), json!({"node.kubernetes.io/exclude-from-external-load-balancers": ""}));
    cluster.settle(None);
    assert!(cluster.writes().contains(&"update 192.0.2.200".to_owned()));
    let after = cluster.announcements[VIP].metadata.clone();
    assert_eq!(
        (&after.annotations, &after.finalizers, &after.owner_references),
        (&before.annotations, &before.finalizers, &before.owner_references)
    );
    assert_eq!(after.labels.unwrap()["example.com/team"], "web");
}

#[test]
fn what_is_being_written_counts_before_it_is_written_and_no_more_when_it_failed() {
    let mut cluster = Cluster::new(&["192.0.2.200-192.0.2.249"]);
    let owned = |cluster: &Cluster| {
        let owned = ["node-1", "node-2", "node-3"].map(|node| cluster.world.load().owned(node));
        (owned.iter().sum::<u64>(), owned.into_iter().max().unwrap())
    };
    for n in 0..30 {
        cluster.apply(&format!("s{n}"), json!({}));
    }
    // All are planned before the first is written.
    let mut plans = Vec::new();
    while let Some(key) = cluster.world.next(|_| false) {
        let plan = plan(&cluster.world, &BTreeMap::new(), &key, Timestamp::UNIX_EPOCH);
        for (address, pool) in &plan.claims {
            cluster.world.hold(*address, &key, pool);
        }
        for (address, layer2) in plan.names() {
            cluster.world.foresee(address, layer2);
        }
        plans.push((key, plan));
    }
    assert_eq!(owned(&cluster), (30, 13), "a share of ten, and a quarter more");
    for (_, plan) in &plans {
        for (address, _) in &plan.claims {
            cluster.world.unhold(*address);
            cluster.world.unforesee(*address);
        }
    }
    assert_eq!(owned(&cluster), (0, 0));
}
