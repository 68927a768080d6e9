use std::sync::Arc;

use serde_json::json;

use super::*;
use crate::view::OnNode;

fn key(name: &str) -> ServiceKey {
    ServiceKey { namespace: "shop".to_owned(), name: name.to_owned() }
}

fn objects<K: serde::de::DeserializeOwned>(value: serde_json::Value) -> K {
    serde_json::from_value(value).unwrap()
}

fn service(name: &str, created: i64, ingress: Option<&str>) -> Change {
    let created = jiff::Timestamp::from_second(created).unwrap();
    let ingress: Vec<_> = ingress.into_iter().map(|ip| json!({"ip": ip, "ipMode": "VIP"})).collect();
    let service = objects(json!({
        "metadata": {"namespace": "shop", "name": name, "uid": name, "creationTimestamp": created.to_string()},
        "spec": {"type": "LoadBalancer"}, "status": {"loadBalancer": {"ingress": ingress}},
    }));
    Change::Service(key(name), ServiceView::of(&service, crate::view::Asks::Us))
}

fn announcement(address: &str, holder: &str) -> Change {
    let services = json!([{"namespace": "shop", "name": holder, "uid": holder}]);
    let announcement = objects(json!({
        "apiVersion": "berth.dev/v1alpha1", "kind": "Announcement", "metadata": {"name": address, "uid": address},
        "spec": {"address": address, "pool": "a", "services": services},
    }));
    Change::Announcement(address.to_owned(), Some(AnnouncementView::of(&announcement)))
}

fn node(name: &str, address: &str, labels: serde_json::Value) -> Change {
    let node = objects(json!({
        "metadata": {"name": name, "labels": labels}, "status": {"addresses": [{"type": "InternalIP", "address": address}]},
    }));
    Change::Node(name.to_owned(), Some(NodeView::of(&node)))
}

fn pool(name: &str, spec: serde_json::Value) -> Change {
    let pool =
        json!({"apiVersion": "berth.dev/v1alpha1", "kind": "IPAddressPool", "metadata": {"name": name}, "spec": spec});
    Change::Pool(name.to_owned(), Some(PoolView::of(&objects(pool))))
}

fn in_line(world: &mut World) -> Vec<String> {
    std::iter::from_fn(|| world.next(|_| false)).map(|key| key.name).collect()
}

#[test]
fn one_of_a_namespace_that_is_not_known_is_no_work_until_it_is() {
    let mut world = World::default();
    world.learn(Change::Namespace("default".to_owned(), Some(Labels::new())));
    world.learn(service("web", 1, None));
    assert!(!world.has_next(|_| false));
    assert_eq!(in_line(&mut world), Vec::<String>::new());
    assert_eq!(world.backlog(), 0, "nothing is there to be looked at again and again");
    world.learn(Change::Namespace("shop".to_owned(), Some(Labels::new())));
    assert!(world.has_next(|_| false) && !world.has_next(|_| true));
    assert_eq!(in_line(&mut world), ["web"]);
}

#[test]
fn who_waits_for_an_address_comes_before_those_that_only_a_change_of_nodes_or_advertisements_concerns() {
    let ad = |generation: i64| {
        let ad = json!({"apiVersion": "berth.dev/v1alpha1", "kind": "L2Advertisement", "metadata": {"name": "all", "generation": generation},
                        "spec": {}});
        Change::Advertisement("all".to_owned(), Some(AdvertisementView::of(&objects(ad))))
    };
    let start = || {
        let mut world = World::default();
        let (old, half, moved) = (Some("192.0.2.1"), Some("192.0.2.2"), Some("192.0.2.3"));
        for change in [service("held", 1, old), service("half", 2, half), service("lost", 3, moved)] {
            world.learn(change);
        }
        world.learn(announcement("192.0.2.1", "held"));
        world.learn(announcement("192.0.2.2", "half"));
        world.learn(pool("a", json!({"addresses": ["192.0.2.1-192.0.2.9"]})));
        in_line(&mut world);
        world.set_waiting(&key("half"), Some(Lack::default()), &[]);
        world
    };
    // In any other case those that have an address come first, because somebody may lose one by it.
    let (others, first) = (["lost", "new", "held"], ["held", "half", "lost", "new"]);
    let cases: [(&str, Change, Vec<&str>); 4] = [
        ("another node", node("node-1", "192.0.2.11", json!({})), [&["half"], &others[..]].concat()),
        ("another advertisement", ad(1), [&["half"], &others[..]].concat()),
        ("another pool", pool("b", json!({"addresses": ["192.0.2.101"]})), first.to_vec()),
        ("another specification of its pool", pool("a", json!({"addresses": ["192.0.2.1-192.0.2.8"]})), first.to_vec()),
    ];
    for (what, change, expected) in cases {
        let mut world = start();
        world.learn(change);
        world.learn(service("new", 9, None));
        assert_eq!(in_line(&mut world), expected, "{what}");
    }
    // Its own change is a reason of its own.
    let mut world = start();
    world.learn(node("node-1", "192.0.2.11", json!({})));
    world.learn(service("new", 9, None));
    assert_eq!(world.next(|_| false), Some(key("half")));
    world.mark(&key("held"));
    assert_eq!(in_line(&mut world), ["held", "lost", "new"]);
}

#[test]
fn pools_are_judged_once_for_all_that_changes_together_and_not_for_what_says_nothing_new_of_them() {
    let mut world = World::default();
    world.learn(pool("a", json!({"addresses": ["192.0.2.0/24"]})));
    for n in 1..=9 {
        world.learn(node(&format!("node-{n}"), &format!("192.0.2.{n}"), json!({})));
    }
    assert!(world.ipam.report("a").is_none(), "not before somebody asks");
    assert_eq!(world.take_dirty_pools(), ["a".to_owned()].into());
    assert_eq!(world.ipam.report("a").unwrap().available.v4, 256 - 9);

    world.learn(service("waits", 1, None));
    in_line(&mut world);
    world.set_waiting(&key("waits"), Some(Lack { refused: true, ..Lack::default() }), &[]);
    world.learn(Change::SpeakerNode("node-1".to_owned(), Some(Report::default())));
    assert_eq!(
        (world.take_dirty_pools(), in_line(&mut world)),
        (BTreeSet::new(), Vec::new()),
        "nothing is taken by it"
    );
    world.learn(node("node-1", "192.0.2.10", json!({})));
    assert_eq!((world.take_dirty_pools().len(), in_line(&mut world)), (1, vec!["waits".to_owned()]));
}

#[test]
fn rules_follow_what_they_are_made_of() {
    let mut world = World::default();
    let ad = |generation: i64, spec: serde_json::Value| {
        let ad = json!({"apiVersion": "berth.dev/v1alpha1", "kind": "L2Advertisement", "metadata": {"name": "all", "generation": generation},
                        "spec": spec});
        Change::Advertisement("all".to_owned(), Some(AdvertisementView::of(&objects(ad))))
    };
    let told = |world: &World, pool: &str| {
        let nodes = |covering: &Covering| covering.rule.nodes.iter().flatten().cloned().collect::<Vec<_>>().join(" ");
        world.covering(pool).iter().map(nodes).collect::<Vec<_>>()
    };
    let gold = json!({"nodeSelectors": [{"matchLabels": {"tier": "gold"}}], "ipAddressPools": ["a"]});
    assert_eq!(told(&world, "a"), Vec::<String>::new());
    for (what, change, rules) in [
        ("an advertisement", ad(1, json!({})), [vec![""], vec![""]]),
        ("a node", node("node-1", "192.0.2.1", json!({})), [vec!["node-1"], vec!["node-1"]]),
        (
            "another node",
            node("node-2", "192.0.2.2", json!({"tier": "gold"})),
            [vec!["node-1 node-2"], vec!["node-1 node-2"]],
        ),
        ("another specification", ad(2, gold), [vec!["node-2"], vec![]]),
        ("another label", node("node-1", "192.0.2.1", json!({"tier": "gold"})), [vec!["node-1 node-2"], vec![]]),
        ("no node", Change::Node("node-2".to_owned(), None), [vec!["node-1"], vec![]]),
        ("a pool", pool("a", json!({"addresses": ["192.0.2.9"]})), [vec!["node-1"], vec![]]),
        ("no advertisement", Change::Advertisement("all".to_owned(), None), [vec![], vec![]]),
    ] {
        world.learn(change);
        assert_eq!([told(&world, "a"), told(&world, "b")], rules, "{what}");
    }
}

fn slice(service: &str, family: IpFamily, nodes: &[&str]) -> SliceView {
    let serving = nodes.iter().map(|node| OnNode { node: Arc::from(*node), ready: 1 }).collect();
    SliceView { service: key(service), family, serving, elsewhere: false }
}

#[test]
fn a_service_is_served_where_its_own_slices_of_the_family_say() {
    use IpFamily::{V4, V6};
    let mut world = World::default();
    let mut learn = |name: &str, view| {
        world.learn(Change::Slice(("shop".to_owned(), name.to_owned()), view));
        let serving = |name, family| world.serving(&key(name), family).into_iter().collect::<Vec<_>>().join(" ");
        [serving("web", V4), serving("web", V6), serving("web-2", V4)]
    };
    for (what, name, view, serving) in [
        ("one", "web-a", Some(slice("web", V4, &["b", "a"])), ["a b", "", ""]),
        ("another, which sorts between", "web-2-a", Some(slice("web-2", V4, &["c"])), ["a b", "", "c"]),
        ("a second one", "web-b", Some(slice("web", V4, &["a", "d"])), ["a b d", "", "c"]),
        ("the other family", "web-c", Some(slice("web", V6, &["e"])), ["a b d", "e", "c"]),
        ("other nodes", "web-a", Some(slice("web", V4, &["a"])), ["a d", "e", "c"]),
        ("of another Service now", "web-b", Some(slice("web-2", V4, &["a", "d"])), ["a", "e", "a c d"]),
        ("gone", "web-2-a", None, ["a", "e", "a d"]),
        ("no slice of a Service any more", "web-b", None, ["a", "e", ""]),
        ("never known", "web-z", None, ["a", "e", ""]),
    ] {
        assert_eq!(learn(name, view), serving, "{what}");
    }
    assert_eq!((world.slices.len(), world.slices_of.len()), (2, 2), "the two maps know the same");
}
