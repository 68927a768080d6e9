//! Addresses that nodes hand to their routing daemons.

use berth_api::names::part_label;
use berth_pool::report::advertisement_change;
use berth_pool::view::AdvertisementKind;
use berth_pool::world::Change;

use super::cluster::Cluster;
use super::*;

/// Of no subnet of a node.
const FAR: &str = "203.0.113.10";

/// Three nodes that may make routes, one RouteAdvertisement, and a Service `web` that is served on `node-1`.
fn routed() -> Cluster {
    let mut cluster = Cluster::new(&["203.0.113.10-203.0.113.19"]);
    cluster.world.learn(Change::Advertisement("all".to_owned(), None));
    cluster.advertise_routes(json!({}));
    for n in 1..=3 {
        cluster.routes_on(n, &[]);
    }
    cluster.endpoints("web", &["node-1"]);
    cluster.apply("web", json!({}));
    cluster.settle(None);
    cluster
}

fn nodes(cluster: &Cluster) -> String {
    let seen = cluster.world.announcement(FAR.parse().unwrap()).unwrap();
    seen.routes.iter().map(|way| way.nodes.join(" ")).collect::<Vec<_>>().join(" | ")
}

fn announced(cluster: &Cluster) -> String {
    cluster.condition("web", "berth.dev/Announced")
}

fn ready(cluster: &Cluster) -> String {
    let id = AdvertisementKind::Route.named("routes");
    let view = cluster.world.advertisement(&id).unwrap();
    let change = advertisement_change(&id, view, &cluster.world, Timestamp::UNIX_EPOCH).unwrap();
    assert_eq!(
        (&change.body["kind"], &change.body["metadata"]["name"]),
        (&json!("RouteAdvertisement"), &json!("routes"))
    );
    let condition = &change.body["status"]["conditions"][0];
    ["status", "reason"].map(|field| condition[field].as_str().unwrap()).join(" ")
}

#[test]
fn an_address_of_no_subnet_is_routed_by_all_nodes_and_their_speakers_are_told() {
    let cluster = routed();
    assert_eq!(nodes(&cluster), "node-1 node-2 node-3");
    assert_eq!(announced(&cluster), "True Announced routed by 3 nodes: node-1; node-2; node-3");
    assert_eq!(ready(&cluster), "True Valid");
    let written = cluster.announcements.values().next().unwrap();
    assert_eq!(written.spec.layer2, None);
    for n in 1..=3 {
        let label = part_label(&format!("node-{n}"));
        assert_eq!(
            written.metadata.labels.as_ref().and_then(|labels| labels.get(&label)).map(String::as_str),
            Some("route")
        );
    }
    // It is given without delay, because nobody on the link is waited for.
    assert!(cluster.world.service(&key("web")).unwrap().addresses().eq([FAR.parse::<std::net::IpAddr>().unwrap()]));
}

#[test]
fn with_the_local_policy_it_follows_the_endpoints() {
    let mut cluster = routed();
    cluster.apply("web", json!({"externalTrafficPolicy": "Local"}));
    cluster.settle(None);
    assert_eq!(nodes(&cluster), "node-1");
    cluster.endpoints("web", &["node-2", "node-3"]);
    cluster.settle(None);
    assert_eq!(nodes(&cluster), "node-2 node-3");
    cluster.endpoints("web", &[]);
    cluster.settle(None);
    assert_eq!(nodes(&cluster), "");
    assert!(announced(&cluster).starts_with("False NoLocalEndpoints"), "{}", announced(&cluster));
}

#[test]
fn a_node_that_refuses_is_told_and_stays_named_and_only_those_who_hold_the_address_are_planned_again() {
    let mut cluster = routed();
    cluster.apply("other", json!({}));
    cluster.settle(None);
    cluster.writes();
    cluster.routes_on(2, &[FAR]);
    assert_eq!(cluster.world.next(|_| false), Some(key("web")), "whose address it is");
    assert_eq!(cluster.world.next(|_| false), None);
    cluster.world.mark(&key("web"));
    cluster.settle(None);
    assert_eq!(nodes(&cluster), "node-1 node-2 node-3");
    assert_eq!(announced(&cluster), "True RouteTaken routed by 2 nodes: node-1; node-3; and not by node-2: taken");
    cluster.routes_on(2, &[]);
    cluster.settle(None);
    assert!(announced(&cluster).starts_with("True Announced"), "{}", announced(&cluster));
}

#[test]
fn what_is_answered_for_on_the_link_is_not_taken_from_it() {
    let mut cluster = Cluster::answered();
    cluster.advertise_routes(json!({}));
    cluster.settle(None);
    assert!(cluster.owner("192.0.2.200").is_some());
    assert_eq!(cluster.writes(), Vec::<String>::new(), "nothing changes");
    assert_eq!(ready(&cluster), "False LeftToLayer2");
    cluster.world.learn(Change::Advertisement("all".to_owned(), None));
    cluster.settle(None);
    assert!(announced(&cluster).starts_with("False RoutesNotPermitted"), "{}", announced(&cluster));
    assert_eq!(ready(&cluster), "False NoEligibleNode");
}

#[test]
fn services_that_no_advertisement_of_routes_selects_are_told_so() {
    let mut cluster = routed();
    cluster.advertise_routes(json!({"serviceSelectors": [{"matchLabels": {"tier": "web"}}]}));
    cluster.settle(None);
    assert_eq!(nodes(&cluster), "");
    let told = announced(&cluster);
    assert!(told.starts_with("False ServiceNotSelected no RouteAdvertisement that covers"), "{told}");
}
