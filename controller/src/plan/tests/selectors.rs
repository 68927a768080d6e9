//! Which Services advertisements announce, which nodes they prefer, and what is said where labels leave nobody.

use berth_pool::report::advertisement_change;
use berth_pool::view::AdvertisementKind;

use super::*;

const VIP: &str = "192.0.2.200";
const EXCLUDE: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

fn only(app: &str) -> serde_json::Value {
    json!({"serviceSelectors": [{"matchLabels": {"app": app}}]})
}

fn announced(cluster: &Cluster, name: &str) -> String {
    cluster.condition(name, types::ANNOUNCED)
}

/// Two Services that ask to share, with these labels; the first is there first.
fn sharing(advertisements: &[(&str, serde_json::Value)], labels: [&str; 2]) -> Cluster {
    let mut cluster = Cluster::new(&["192.0.2.200-192.0.2.209"]);
    cluster.world.learn(Change::Advertisement("all".to_owned(), None));
    for (name, spec) in advertisements {
        cluster.advertise_as(name, spec.clone());
    }
    for ((name, port), app) in [("one", 80), ("two", 443)].into_iter().zip(labels) {
        cluster.endpoints(name, &["node-1", "node-2", "node-3"]);
        let spec = json!({"ports": [{"port": port}]});
        cluster.apply_with(name, spec, json!({"berth.dev/allow-shared-ip": "k"}));
        cluster.label(name, json!({"app": app}));
        cluster.settle(None);
    }
    answered(&mut cluster);
    cluster
}

/// Who is named says that it answers.
fn answered(cluster: &mut Cluster) {
    while let Some((address, owner, epoch)) = cluster.unanswered() {
        cluster.claim(&address, &owner, epoch);
        cluster.settle(None);
    }
    cluster.writes();
}

#[test]
fn a_service_is_announced_by_the_advertisements_that_select_it() {
    for (advertisements, told) in [
        (vec![("web", only("web"))], "True Announced"),
        (
            vec![("db", only("db"))],
            "False ServiceNotSelected no L2Advertisement that covers the pool of this address (db) selects Service shop/web",
        ),
        (vec![("db", only("db")), ("web", only("web"))], "True Announced"),
        (vec![("db", only("db")), ("rest", json!({}))], "True Announced"),
        (
            vec![(
                "both",
                json!({"serviceSelectors": [{"matchLabels": {"app": "db"}}, {"matchLabels": {"app": "web"}}]}),
            )],
            "True Announced",
        ),
        // It does not cover the pool.
        (vec![("web", json!({"ipAddressPools": ["x"], "serviceSelectors": [{}]}))], "False NoAdvertisement"),
        (vec![("nobody", json!({"serviceSelectors": [{"matchLabels": {"no": "such"}}]}))], "False ServiceNotSelected"),
        (vec![("every", json!({"serviceSelectors": [{}]}))], "True Announced"),
    ] {
        let mut cluster = Cluster::new(&[VIP]);
        cluster.world.learn(Change::Advertisement("all".to_owned(), None));
        for (name, spec) in &advertisements {
            cluster.advertise_as(name, spec.clone());
        }
        cluster.endpoints("web", &["node-1"]);
        cluster.apply("web", json!({}));
        cluster.label("web", json!({"app": "web"}));
        cluster.settle(None);
        let said = announced(&cluster, "web");
        assert!(said.starts_with(told), "{advertisements:?}: {said}");
        assert_eq!(cluster.owner(VIP).is_some(), told == "True Announced", "{advertisements:?}");
        assert_eq!(cluster.ingress("web").as_deref(), Some(VIP), "the address is given in any case");
    }
}

#[test]
fn a_label_that_goes_takes_the_nodes_along_and_one_that_comes_brings_them_back() {
    let mut cluster = Cluster::new(&[VIP]);
    cluster.advertise(only("web"));
    cluster.endpoints("web", &["node-1"]);
    cluster.apply("web", json!({}));
    cluster.settle(None);
    assert!(announced(&cluster, "web").starts_with("False ServiceNotSelected"));
    for (app, is_announced) in [("web", true), ("db", false), ("web", true)] {
        cluster.label("web", json!({"app": app}));
        cluster.settle(None);
        assert_eq!(cluster.owner(VIP).is_some(), is_announced, "{app}");
        assert_eq!(announced(&cluster, "web").starts_with("True Announced"), is_announced, "{app}");
    }
}

#[test]
fn services_share_an_address_where_one_advertisement_announces_it_for_all() {
    for (what, advertisements, labels, shared) in [
        ("one selects both", vec![("a", json!({"serviceSelectors": [{}]}))], ["web", "db"], true),
        ("one selects the first only", vec![("a", only("web"))], ["web", "db"], false),
        ("each has its own", vec![("a", only("web")), ("b", only("db"))], ["web", "db"], false),
        (
            "each has its own, and both a third",
            vec![("a", only("web")), ("b", only("db")), ("c", json!({}))],
            ["web", "db"],
            true,
        ),
        ("none selects the first", vec![("a", only("db"))], ["web", "db"], true),
        ("none selects either", vec![("a", only("x"))], ["web", "db"], true),
        ("no advertisement", vec![], ["web", "db"], true),
    ] {
        let cluster = sharing(&advertisements, labels);
        assert_eq!(cluster.ingress("one").as_deref(), Some(VIP), "{what}");
        assert_eq!(cluster.ingress("two") == cluster.ingress("one"), shared, "{what}");
    }
}

#[test]
fn one_who_joins_by_request_where_no_advertisement_announces_both_is_refused_and_takes_nothing_away() {
    let mut cluster = sharing(&[("a", only("web"))], ["web", "web"]);
    cluster.writes();
    let annotations = json!({"berth.dev/allow-shared-ip": "k", "berth.dev/load-balancer-ips": VIP});
    cluster.apply_with("third", json!({"ports": [{"port": 8443}]}), annotations);
    cluster.settle(None);
    assert_eq!(cluster.ingress("third"), None);
    let said = cluster.condition("third", types::ALLOCATED);
    assert!(
        said.starts_with(
            "False SharerNotSelected 192.0.2.200 is held by Service shop/one, and no L2Advertisement announces it for that one and for \
             Service shop/third"
        ),
        "{said}"
    );
    assert!(cluster.owner(VIP).is_some() && announced(&cluster, "one").starts_with("True Announced"));
    assert_eq!(cluster.writes(), ["status third "]);
    // It gets in as soon as one selects all.
    cluster.label("third", json!({"app": "web"}));
    cluster.settle(None);
    assert_eq!(cluster.ingress("third").as_deref(), Some(VIP));
}

#[test]
fn who_waits_for_a_shared_address_gets_it_when_the_labels_of_the_others_let_it() {
    let both = json!({"serviceSelectors": [{"matchExpressions": [{"key": "app", "operator": "In", "values": ["db", "any"]}]}]});
    let mut cluster = sharing(&[("a", only("web")), ("b", both)], ["web", "web"]);
    let annotations = json!({"berth.dev/allow-shared-ip": "k", "berth.dev/load-balancer-ips": VIP});
    cluster.apply_with("third", json!({"ports": [{"port": 8443}]}), annotations);
    cluster.label("third", json!({"app": "db"}));
    cluster.settle(None);
    assert_eq!(cluster.ingress("third"), None);
    cluster.label("one", json!({"app": "any"}));
    cluster.label("two", json!({"app": "any"}));
    cluster.settle(None);
    assert_eq!(cluster.ingress("third").as_deref(), Some(VIP));
}

#[test]
fn one_whose_labels_do_not_fit_any_more_leaves_and_the_others_notice_nothing() {
    let mut cluster = sharing(&[("a", only("web"))], ["web", "web"]);
    let owner = cluster.owner(VIP);
    let before = cluster.services[&key("one")].clone();
    cluster.label("two", json!({"app": "db"}));
    cluster.settle(None);
    assert_eq!(cluster.ingress("two").as_deref(), Some("192.0.2.201"));
    assert!(announced(&cluster, "two").starts_with("False ServiceNotSelected"));
    assert_eq!(cluster.services[&key("one")], before);
    let layer2 = cluster.announcements[VIP].spec.layer2.clone().unwrap();
    assert_eq!((layer2.owner, layer2.epoch), (owner, 1), "nobody stopped to answer for it in between");
    assert_eq!(cluster.writes(), ["claim 192.0.2.201", "status two 192.0.2.201", "update 192.0.2.200"]);
}

#[test]
fn one_who_does_not_fit_the_new_labels_of_the_first_leaves_although_nothing_else_changes() {
    let mut cluster = sharing(&[("a", only("web")), ("b", only("db"))], ["web", "web"]);
    cluster.label("one", json!({"app": "db"}));
    cluster.settle(None);
    assert!(cluster.condition("two", types::ALLOCATED).starts_with("False AddressPending 192.0.2.201 is claimed"));
    answered(&mut cluster);
    assert_eq!(cluster.ingress("one").as_deref(), Some(VIP));
    assert_eq!(cluster.ingress("two").as_deref(), Some("192.0.2.201"), "not announced by one that does not select it");
    assert!(announced(&cluster, "two").starts_with("True Announced"));
}

#[test]
fn where_the_first_is_not_selected_any_more_all_that_share_are_told() {
    let mut cluster = sharing(&[("a", only("web"))], ["web", "web"]);
    cluster.label("one", json!({"app": "db"}));
    cluster.settle(None);
    for name in ["one", "two"] {
        assert!(announced(&cluster, name).starts_with("False ServiceNotSelected"), "{}", announced(&cluster, name));
        assert_eq!(cluster.ingress(name).as_deref(), Some(VIP));
    }
    assert_eq!(cluster.owner(VIP), None, "not announced for one that no advertisement selects");
    cluster.delete("one");
    cluster.settle(None);
    assert!(announced(&cluster, "two").starts_with("True Announced"));
}

#[test]
fn one_that_is_deleted_does_not_keep_the_others_from_being_announced() {
    let mut cluster = sharing(&[("a", only("web"))], ["web", "web"]);
    let owner = cluster.owner(VIP);
    cluster.delete("one");
    // The other comes first.
    cluster.world.mark(&key("two"));
    cluster.settle(None);
    let layer2 = cluster.announcements[VIP].spec.layer2.clone().unwrap();
    assert_eq!((layer2.owner, layer2.epoch), (owner, 1));
}

#[test]
fn a_preferred_node_is_chosen_and_what_is_announced_stays_when_another_is() {
    let preferring =
        |zone: &str| json!({"preferredNodeSelectors": [{"weight": 50, "preference": {"matchLabels": {"zone": zone}}}]});
    for preferred in ["node-1", "node-2", "node-3"] {
        let mut cluster = Cluster::new(&[VIP]);
        cluster.node_with(
            preferred.trim_start_matches("node-").parse().unwrap(),
            json!({"labels": {"zone": "a"}}),
            json!({}),
        );
        cluster.advertise(preferring("a"));
        cluster.endpoints("web", &["node-1"]);
        cluster.apply("web", json!({}));
        cluster.settle(None);
        assert_eq!(cluster.owner(VIP).as_deref(), Some(preferred));
        cluster.claim(VIP, preferred, 1);
        cluster.settle(None);
        cluster.writes();
        cluster.advertise(preferring("b"));
        cluster.settle(None);
        assert_eq!(
            (cluster.owner(VIP).as_deref(), cluster.writes()),
            (Some(preferred), vec![]),
            "nothing moves for it"
        );
    }
}

#[test]
fn the_exclude_label_on_all_nodes_is_told_and_may_be_ignored() {
    let mut cluster = Cluster::answered();
    cluster.endpoints("web", &["node-1"]);
    for n in 1..=3 {
        cluster.node_with(n, json!({"labels": {EXCLUDE: ""}}), json!({}));
    }
    cluster.settle(None);
    let said = announced(&cluster, "web");
    assert!(said.starts_with("False AllNodesExcluded every node that could answer has the label"), "{said}");
    assert!(said.contains("--ignore-exclude-lb") && said.contains(EXCLUDE), "{said}");
    cluster.world.set_ignore_exclude_label(true);
    cluster.settle(None);
    assert!(announced(&cluster, "web").starts_with("True Announced"));
    cluster.world.set_ignore_exclude_label(false);
    cluster.settle(None);
    assert!(announced(&cluster, "web").starts_with("False AllNodesExcluded"));
    cluster.node(2, json!({}));
    cluster.settle(None);
    assert_eq!(cluster.owner(VIP).as_deref(), Some("node-2"));
}

#[test]
fn an_advertisement_says_what_of_it_cannot_be_read_and_the_rest_counts() {
    let near = json!({"matchExpressions": [{"key": "a", "operator": "Near", "values": []}]});
    for (spec, told, is_announced) in [
        (json!({"interfaces": ["eth*"]}), "True Valid", true),
        (json!({"interfaces": ["bond?"]}), "False NoEligibleNode no selected node has one of `spec.interfaces`", false),
        (
            json!({"interfaces": ["eth0", "eth0:1"]}),
            "False InvalidInterface `spec.interfaces[1]` is `eth0:1`: no name of an interface has a slash, a colon or white space; until \
             it is corrected, it does not count",
            true,
        ),
        (
            json!({"interfaces": ["eth0:1"]}),
            "False InvalidInterface `spec.interfaces[0]` is `eth0:1`: no name of an interface has a slash, a colon or white space; no \
             selected node has one of `spec.interfaces`",
            false,
        ),
        (
            json!({"preferredNodeSelectors": [{"weight": 0, "preference": {}}]}),
            "False InvalidPreference `spec.preferredNodeSelectors[0].weight` is 0, not 1 to 100; until it is corrected",
            true,
        ),
        (
            json!({"preferredNodeSelectors": [{"weight": 1, "preference": {}}, {"weight": 101, "preference": {}}]}),
            "False InvalidPreference `spec.preferredNodeSelectors[1].weight` is 101",
            true,
        ),
        (
            json!({"preferredNodeSelectors": [{"weight": 1, "preference": near}]}),
            "False InvalidPreference `spec.preferredNodeSelectors[0].preference`: ",
            true,
        ),
        (json!({"serviceSelectors": [{}, near]}), "False InvalidSelector `spec.serviceSelectors[1]`: ", false),
        (json!({"preferredNodeSelectors": [{"weight": 100, "preference": {}}]}), "True Valid", true),
    ] {
        let mut cluster = Cluster::new(&[VIP]);
        cluster.advertise(spec.clone());
        let id = AdvertisementKind::Layer2.named("all");
        let view = cluster.world.advertisement(&id).unwrap();
        let change = advertisement_change(&id, view, &cluster.world, Timestamp::UNIX_EPOCH).unwrap();
        let condition = &change.body["status"]["conditions"][0];
        let said = ["status", "reason", "message"].map(|field| condition[field].as_str().unwrap()).join(" ");
        assert!(said.starts_with(told), "{spec}: {said}");
        cluster.endpoints("web", &["node-1"]);
        cluster.apply("web", json!({}));
        cluster.settle(None);
        assert_eq!(cluster.owner(VIP).is_some(), is_announced, "{spec}");
    }
}
