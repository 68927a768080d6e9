use serde_json::{Value, json};

use super::*;

fn announcement(change: impl FnOnce(&mut Value)) -> Announcement {
    let mut object = json!({
        "apiVersion": "berth.dev/v1alpha1",
        "kind": "Announcement",
        "metadata": { "name": "192.0.2.10" },
        "spec": {
            "address": "192.0.2.10",
            "pool": "gold",
            "services": [],
            "layer2": {
                "owner": "a",
                "standbys": ["b"],
                "epoch": 3,
                "members": [
                    { "node": "a", "interface": "eth0", "address": "192.0.2.1", "mac": "02:00:00:00:00:01" },
                    { "node": "b", "interface": "eth1", "address": "192.0.2.2", "mac": "02:00:00:00:00:02" },
                ],
            },
        },
    });
    change(&mut object);
    serde_json::from_value(object).unwrap()
}

fn node(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

#[test]
fn an_announcement_says_who_answers_and_where_they_are_found() {
    let object = announcement(|o| {
        o["status"] = json!({
            "layer2": {
                "owner": "b", "epoch": 4, "since": "2026-11-21T08:00:00.000000Z",
                "mac": "02:00:00:00:00:02", "interface": "eth1",
            },
            "conditions": [],
        });
    });
    let member = |name: &str, interface: &str, last: u8| {
        Arc::new(Member {
            node: node(name),
            interface: interface.to_owned(),
            address: IpAddr::from([192, 0, 2, last]),
            mac: berth_api::MacAddr([2, 0, 0, 0, 0, last]),
        })
    };
    assert_eq!(
        read(&object),
        Ok(Said::Layer2(Assignment {
            address: IpAddr::from([192, 0, 2, 10]),
            owner: Some(node("a")),
            standbys: [node("b")].into(),
            epoch: 3,
            members: [member("a", "eth0", 1), member("b", "eth1", 2)].into(),
            claimed: Some(OwnerClaim { node: node("b"), epoch: 4 }),
            sought: None,
            serving: false,
        }))
    );
}

#[test]
fn what_is_not_for_this_version_says_nothing_and_what_is_wrong_is_refused() {
    type Change = fn(&mut Value);
    let cases: &[(&str, Change, bool)] = &[
        ("no layer 2", |o| o["spec"]["layer2"] = Value::Null, true),
        ("named after another address", |o| o["metadata"]["name"] = json!("192.0.2.11"), false),
        ("an owner that no node can be", |o| o["spec"]["layer2"]["owner"] = json!("A b"), false),
        ("a standby that no node can be", |o| o["spec"]["layer2"]["standbys"] = json!([""]), false),
    ];
    for (what, change, quiet) in cases {
        let said = read(&announcement(change));
        if *quiet {
            assert_eq!(said, Ok(Said::Nothing), "{what}");
        } else {
            assert!(said.is_err(), "{what}: {said:?}");
        }
    }
}

#[test]
fn a_member_takes_part_where_it_has_an_address_of_the_same_family() {
    let members = |address: &str, name: &str| {
        let object = announcement(|o| {
            o["spec"]["address"] = json!(address);
            o["metadata"]["name"] = json!(name);
            o["spec"]["layer2"]["members"][1]["address"] = json!("2001:db8::2");
        });
        let Ok(Said::Layer2(assignment)) = read(&object) else { panic!("an assignment") };
        assert_eq!(assignment.address, address.parse::<IpAddr>().unwrap());
        assignment.members.iter().map(|member| member.node.clone()).collect::<Vec<_>>()
    };
    assert_eq!(members("192.0.2.10", "192.0.2.10"), [node("a")]);
    let address: IpAddr = "2001:db8::1".parse().unwrap();
    assert_eq!(members("2001:db8::1", &announcement_name(address)), [node("b")]);
}

/// A follower, what it tells the engine, and whether it opened its gate.
fn follower() -> (Follower, mpsc::Receiver<Change>, berth_telemetry::Health) {
    let (changes, told) = mpsc::channel(16);
    let health = berth_telemetry::Health::new();
    let follower = Follower {
        node: node("a"),
        known: BTreeSet::new(),
        listed: None,
        unlisted: BTreeSet::new(),
        happened: 0,
        outputs: Outputs {
            changes,
            board: Arc::default(),
            checks: watch::channel(Told::new()).0,
            routes: watch::channel(Wanted::default()).0,
            metrics: Metrics::new(&mut crate::metrics::registry()),
        },
        synced: health.gate("synced"),
    };
    (follower, told, health)
}

fn good(address: &str) -> DeserializeGuard<Announcement> {
    DeserializeGuard(Ok(announcement(|o| {
        o["metadata"]["name"] = json!(address);
        o["spec"]["address"] = json!(address);
    })))
}

fn bad(address: &str) -> DeserializeGuard<Announcement> {
    serde_json::from_value(json!({ "metadata": { "name": address }, "spec": { "address": 5 } })).unwrap()
}

fn told(changes: &mut mpsc::Receiver<Change>) -> Vec<String> {
    let mut all = Vec::new();
    while let Ok(change) = changes.try_recv() {
        all.push(match change {
            Change::Assign(assignment) => format!("assign {}", assignment.address),
            Change::Withdraw(address) => format!("withdraw {address}"),
            Change::Quiet => "quiet".to_owned(),
        });
    }
    all
}

#[tokio::test]
async fn a_new_list_withdraws_what_vanished_and_only_once_it_is_complete() {
    use watcher::Event::{Init, InitApply, InitDone};
    let (mut follower, mut changes, health) = follower();
    for event in [Init, InitApply(good("192.0.2.1")), InitApply(good("192.0.2.2"))] {
        follower.handle(event).await;
    }
    assert!(!health.waiting().is_empty(), "not ready before the list is complete");
    follower.handle(InitDone).await;
    assert!(health.waiting().is_empty());
    assert_eq!(told(&mut changes), ["assign 192.0.2.1", "assign 192.0.2.2"]);

    for event in [Init, InitApply(good("192.0.2.2"))] {
        follower.handle(event).await;
    }
    // An API server that goes away in the middle of a list begins another one later.
    follower.handle(Init).await;
    assert_eq!(told(&mut changes), ["assign 192.0.2.2"]);
    for event in [InitApply(good("192.0.2.2")), InitDone] {
        follower.handle(event).await;
    }
    assert_eq!(told(&mut changes), ["assign 192.0.2.2", "withdraw 192.0.2.1"]);
}

#[tokio::test]
async fn an_object_that_cannot_be_read_changes_nothing_and_stops_nothing() {
    use watcher::Event::{Apply, Delete, Init, InitApply, InitDone};
    let (mut follower, mut changes, _health) = follower();
    follower.handle(Apply(good("192.0.2.1"))).await;
    follower.handle(Apply(bad("192.0.2.1"))).await;
    for event in [Init, InitApply(bad("192.0.2.1")), InitApply(good("192.0.2.2")), InitDone] {
        follower.handle(event).await;
    }
    assert_eq!(told(&mut changes), ["assign 192.0.2.1", "assign 192.0.2.2"]);
    assert_eq!(follower.outputs.metrics.malformed_objects.get(), 2);
    follower.handle(Delete(bad("192.0.2.1"))).await;
    assert_eq!(told(&mut changes), ["withdraw 192.0.2.1"]);
}

#[test]
fn what_would_show_that_a_node_serves_follows_from_the_services_with_endpoints() {
    let service = |change: Value| {
        let mut service = json!({"namespace": "shop", "name": "web", "uid": "1"});
        service.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        service
    };
    let local = json!({"healthCheckNodePort": 30_001});
    for (what, services, expected) in [
        ("nobody holds it", json!([]), None),
        ("no endpoint yet", json!([service(json!({"tcpPort": 80}))]), Some(Evidence::Connection(80))),
        ("a TCP port", json!([service(json!({"serving": true, "tcpPort": 80}))]), Some(Evidence::Connection(80))),
        ("UDP alone", json!([service(json!({"serving": true}))]), None),
        (
            "the Local policy",
            json!([service(json!({"serving": true, "tcpPort": 80, "local": local}))]),
            Some(Evidence::HealthCheck(30_001)),
        ),
        (
            "the first that can be asked stands for all",
            json!([
                service(json!({"tcpPort": 80})),
                service(json!({"serving": true})),
                service(json!({"serving": true, "tcpPort": 81})),
                service(json!({"serving": true, "tcpPort": 82})),
            ]),
            Some(Evidence::Connection(81)),
        ),
    ] {
        let services: Vec<ServiceRef> = serde_json::from_value(services).unwrap();
        assert_eq!(sought(&services), expected, "{what}");
    }
}

#[test]
fn a_node_answers_the_health_checks_that_name_it() {
    let object = announcement(|o| {
        let endpoints = json!([{"node": "a", "ready": 2}, {"node": "c", "ready": 0}]);
        o["spec"]["services"] = json!([
            {"namespace": "shop", "name": "web", "uid": "1", "local": {"healthCheckNodePort": 30_001, "endpoints": endpoints}},
            {"namespace": "shop", "name": "api", "uid": "2", "local": {"healthCheckNodePort": 30_002}},
        ]);
    });
    for (name, expected) in [("a", Some((30_001, 2))), ("b", None), ("c", Some((30_001, 0)))] {
        let checks = checks(&object, &node(name));
        assert_eq!(checks.first().map(|(port, check)| (*port, check.ready)), expected, "{name}");
        assert!(checks.len() < 2 && checks.iter().all(|(_, check)| check.name == "web"));
    }
}

#[tokio::test]
async fn the_ways_that_name_this_node_are_wished_until_their_announcement_is_gone_and_all_are_known_after_a_list() {
    use watcher::Event::{Apply, Delete, Init, InitApply, InitDone};
    let routed = |address: &str, nodes: &[&str]| {
        DeserializeGuard(Ok(announcement(|o| {
            o["metadata"]["name"] = json!(announcement_name(address.parse().unwrap()));
            o["spec"]["address"] = json!(address);
            o["spec"].as_object_mut().unwrap().remove("layer2");
            o["spec"]["routes"] = json!([{"nodes": nodes}, {"nodes": ["z"], "table": 7}]);
        })))
    };
    let (mut follower, mut changes, _health) = follower();
    let wanted = follower.outputs.routes.subscribe();
    let said = || {
        let wanted = wanted.borrow();
        let addresses: Vec<_> =
            wanted.wishes.iter().map(|(address, ways)| format!("{address} {}", ways.len())).collect();
        (wanted.synced, addresses.join(", "))
    };
    follower.handle(Init).await;
    follower.handle(InitApply(routed("192.0.2.1", &["a", "b"]))).await;
    follower.handle(InitApply(routed("192.0.2.2", &["b"]))).await;
    assert_eq!(said(), (false, "192.0.2.1 1".to_owned()), "there may be more");
    follower.handle(InitDone).await;
    assert_eq!(said(), (true, "192.0.2.1 1".to_owned()));
    follower.handle(Apply(routed("2001:db8::1", &["a"]))).await;
    follower.handle(Apply(routed("192.0.2.1", &["b"]))).await;
    assert_eq!(said(), (true, "2001:db8::1 1".to_owned()), "another node's now");
    follower.handle(Apply(routed("192.0.2.3", &["a"]))).await;
    follower.handle(Apply(bad("192.0.2.3"))).await;
    // A list that breaks off says nothing of what is missing in it.
    follower.handle(Init).await;
    follower.handle(InitApply(bad("192.0.2.3"))).await;
    assert_eq!(said(), (true, "192.0.2.3 1, 2001:db8::1 1".to_owned()));
    follower.handle(InitDone).await;
    assert_eq!(said(), (true, "192.0.2.3 1".to_owned()), "what cannot be read stands, and what is gone does not");
    follower.handle(Delete(bad("192.0.2.3"))).await;
    assert_eq!(said(), (true, String::new()));
    assert_eq!(told(&mut changes), [""; 0], "nobody on the link is told");
}
