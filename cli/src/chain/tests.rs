//! A Service that works, and that Service with one link broken at a time.

use k8s_openapi::api::core::v1::Service;
use serde_json::{Value, json};

use super::*;
use crate::report::Unreadable;

/// A cluster in which Service shop/web works, as JSON that tests change.
pub fn healthy() -> Value {
    json!({
        "service": {
            "metadata": {"name": "web", "namespace": "shop", "uid": "uid-1"},
            "spec": {"type": "LoadBalancer", "loadBalancerClass": "berth.dev/pool", "selector": {"app": "web"}},
            "status": {
                "loadBalancer": {"ingress": [{"ip": "192.0.2.200", "ipMode": "VIP"}]},
                "conditions": [
                    condition("berth.dev/Allocated", "True", "Allocated", "192.0.2.200 from IPAddressPool `office`"),
                    condition("berth.dev/Announced", "True", "Announced", "nodes are named that answer for the address"),
                ],
            },
        },
        "announcements": [{
            "apiVersion": "berth.dev/v1alpha1", "kind": "Announcement", "metadata": {"name": "192.0.2.200"},
            "spec": {
                "address": "192.0.2.200", "pool": "office",
                "services": [{"namespace": "shop", "name": "web", "uid": "uid-1"}],
                "layer2": {"owner": "node-1", "standbys": ["node-2", "node-3"], "epoch": 1, "members": []},
            },
            "status": {
                "layer2": {
                    "owner": "node-1", "epoch": 1, "since": "2026-01-01T10:00:00.000000Z",
                    "mac": "02:00:00:00:00:01", "interface": "eth0",
                },
                "conditions": [condition("Ready", "True", "Answering", "node-1 answers on eth0")],
            },
        }],
        "slices": [{
            "metadata": {"name": "web-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": "IPv4",
            "endpoints": [
                {"addresses": ["10.244.1.2"], "nodeName": "node-1", "conditions": {"ready": true}},
                {"addresses": ["10.244.2.2"], "nodeName": "node-2", "conditions": {"ready": false}},
            ],
        }],
        "nodes": [node("node-1", "True"), node("node-2", "True"), node("node-3", "True")],
        "controller": {
            "spec": {
                "replicas": 2, "selector": {},
                "template": {"spec": {"containers": [{
                    "name": "controller", "image": "berth-controller:v0.1.0", "args": ["--default-provider=pool"],
                }]}},
            },
            "status": {"readyReplicas": 2},
        },
    })
}

fn condition(kind: &str, status: &str, reason: &str, message: &str) -> Value {
    json!({
        "type": kind, "status": status, "reason": reason, "message": message,
        "lastTransitionTime": "2026-01-01T10:00:00Z",
    })
}

fn node(name: &str, ready: &str) -> Value {
    json!({"metadata": {"name": name}, "status": {"conditions": [{"type": "Ready", "status": ready}]}})
}

/// A list, one object, or, as text, that the kind is not known or why it cannot be read.
pub fn seen<T: serde::de::DeserializeOwned>(value: &Value) -> Seen<T> {
    match value.as_str() {
        Some("missing") => Seen::KindMissing,
        Some(text) => Seen::Unreadable(Unreadable { resource: "things".to_owned(), message: text.to_owned() }),
        None => Seen::Here(serde_json::from_value(value.clone()).unwrap()),
    }
}

pub fn surroundings(cluster: &Value) -> Surroundings {
    Surroundings {
        announcements: seen(&cluster["announcements"]),
        slices: seen(&cluster["slices"]),
        nodes: seen(&cluster["nodes"]),
        controller: seen(&cluster["controller"]),
    }
}

/// The report on the cluster's Service.
pub fn report(cluster: &Value) -> ServiceReport {
    let service: Service = serde_json::from_value(cluster["service"].clone()).unwrap();
    Index::new(&surroundings(cluster)).report(&service)
}

/// The healthy cluster with some places changed.
pub fn with(changes: &[(&str, Value)]) -> Value {
    let mut cluster = healthy();
    for (place, value) in changes {
        let (parent, last) = place.rsplit_once('/').unwrap();
        let parent = if parent.is_empty() { &mut cluster } else { cluster.pointer_mut(parent).unwrap() };
        match parent {
            Value::Array(items) => items[last.parse::<usize>().unwrap()] = value.clone(),
            other => other[last] = value.clone(),
        }
    }
    cluster
}

fn state(report: &ServiceReport, name: LinkName) -> State {
    report.links.iter().find(|link| link.name == name).unwrap().state
}

#[test]
fn a_service_that_works_has_a_whole_chain() {
    let report = report(&healthy());
    assert!(report.ok && report.first_broken.is_none());
    let states: Vec<_> = report.links.iter().map(|link| (link.name.as_str(), link.state)).collect();
    let names = ["class", "request", "allocated", "claimed", "placed", "answering", "ingress", "endpoints"];
    assert_eq!(states, names.map(|name| (name, State::Ok)));
}

#[test]
fn a_routed_service_has_a_whole_chain_and_is_broken_where_its_condition_says_so() {
    let said = |status: &str, reason: &str, message: &str| {
        [
            ("/announcements/0/spec/layer2", json!(null)),
            ("/announcements/0/status", json!(null)),
            (
                "/announcements/0/spec/routes",
                json!([{"nodes": ["node-1", "node-2"]}, {"nodes": ["node-2"], "table": 7}]),
            ),
            ("/service/status/conditions/1", condition("berth.dev/Announced", status, reason, message)),
        ]
    };
    let whole = report(&with(&said("True", "Announced", "routed by 2 nodes: node-1; node-2")));
    assert!(whole.ok, "{whole:?}");
    let placed = whole.links.iter().find(|link| link.name == LinkName::Placed).unwrap();
    assert_eq!(placed.message, "to be routed by node-1, node-2");
    let taken = report(&with(&said("True", "RouteTaken", "routed by 1 node: node-1; and not by node-2: taken")));
    assert_eq!((state(&taken, LinkName::Placed), state(&taken, LinkName::Answering)), (State::Warning, State::Warning));
    let none = report(&with(&said("False", "OnLinkAddress", "no node routes it")));
    assert_eq!(none.first_broken.map(|link| link.name), Some(LinkName::Placed));
}

#[test]
#[allow(clippy::too_many_lines, reason = "one table")]
fn the_first_link_that_is_broken_is_found_with_its_reason() {
    use LinkName::{Allocated, Answering, Claimed, Class, Endpoints, Ingress, Placed, Request};
    let conditions = "/service/status/conditions";
    let class = "/service/spec/loadBalancerClass";
    let answers = "/announcements/0/status";
    let no_status =
        [(conditions, json!([])), ("/service/status/loadBalancer", json!({})), ("/announcements", json!([]))];
    let unseen = |more: &[(&'static str, Value)]| [&no_status[..], more].concat();
    for (what, changes, link, reason, says) in [
        ("another type", vec![("/service/spec/type", json!("ClusterIP"))], Class, "NotLoadBalancer", "type ClusterIP"),
        (
            "another class",
            unseen(&[(class, json!("example.com/lb"))]),
            Class,
            "OtherClass",
            "loadBalancerClass example.com/lb is not Berth's",
        ),
        (
            "no class and no default",
            unseen(&[(class, json!(null)), ("/controller/spec/template/spec/containers/0/args", json!([]))]),
            Class,
            "NoClass",
            "without a default provider",
        ),
        (
            "no class and no controller",
            unseen(&[(class, json!(null)), ("/controller", json!(null))]),
            Class,
            "NoClass",
            "no controller was found",
        ),
        (
            "being deleted",
            vec![("/service/metadata/deletionTimestamp", json!("2026-01-01T10:00:00Z"))],
            Class,
            "BeingDeleted",
            "is being deleted",
        ),
        (
            "text where an address belongs",
            vec![("/service/spec/loadBalancerIP", json!("web"))],
            Request,
            "InvalidRequest",
            "spec.loadBalancerIP: `web` is not an IP address",
        ),
        (
            "no address left",
            vec![(
                "/service/status/conditions/0",
                condition("berth.dev/Allocated", "False", "PoolExhausted", "all 2 addresses are taken"),
            )],
            Allocated,
            "PoolExhausted",
            "all 2 addresses are taken",
        ),
        ("a controller that is silent", unseen(&[]), Allocated, "NotSeen", "has said nothing about the Service"),
        (
            "a controller that is not ready",
            unseen(&[("/controller/status", json!({}))]),
            Allocated,
            "ControllerNotReady",
            "no replica",
        ),
        ("no controller", unseen(&[("/controller", json!(null))]), Allocated, "ControllerMissing", "is not there"),
        ("no Berth", unseen(&[("/announcements", json!("missing"))]), Allocated, "NotInstalled", "not installed"),
        (
            "a controller that is behind",
            vec![
                ("/service/metadata/generation", json!(3)),
                ("/service/status/conditions/0/observedGeneration", json!(2)),
            ],
            Allocated,
            "Behind",
            "generation 2, and the Service is at 3",
        ),
        (
            "no claim",
            vec![("/announcements", json!([]))],
            Claimed,
            "NoAnnouncement",
            "no Announcement claims 192.0.2.200",
        ),
        (
            "no claim and no address in status",
            vec![("/announcements", json!([])), ("/service/status/loadBalancer", json!({}))],
            Claimed,
            "NoAnnouncement",
            "no Announcement names the Service",
        ),
        (
            "a claim of another Service",
            vec![("/announcements/0/spec/services/0/name", json!("shop"))],
            Claimed,
            "AnotherHolder",
            "belongs to shop/shop",
        ),
        (
            "a claim of an earlier Service",
            vec![("/announcements/0/spec/services/0/uid", json!("uid-0"))],
            Claimed,
            "AnotherHolder",
            "belongs to an earlier Service of this name",
        ),
        (
            "no advertisement",
            vec![(
                "/service/status/conditions/1",
                condition("berth.dev/Announced", "False", "NoAdvertisement", "no L2Advertisement covers `office`"),
            )],
            Placed,
            "NoAdvertisement",
            "no L2Advertisement covers",
        ),
        ("no owner", vec![("/announcements/0/spec/layer2/owner", json!(null))], Placed, "NoOwner", "no node is named"),
        (
            "an owner that is silent",
            vec![("/announcements/0/status", json!(null))],
            Answering,
            "NotAnswering",
            "node-1 has not said",
        ),
        (
            "a conflict",
            vec![(
                answers,
                json!({"conditions": [condition("Ready", "False", "AddressConflict", "02:00:00:00:00:99 has it")]}),
            )],
            Answering,
            "AddressConflict",
            "02:00:00:00:00:99 has it",
        ),
        (
            "an owner that left",
            vec![(
                "/announcements/0/status/conditions/0",
                condition("Ready", "False", "Withdrawn", "node-1 answers no longer"),
            )],
            Answering,
            "Withdrawn",
            "answers no longer",
        ),
        (
            "an address that is not in the status",
            vec![("/service/status/loadBalancer", json!({}))],
            Ingress,
            "NotInStatus",
            "192.0.2.200 is not in the status",
        ),
        (
            "no pods",
            vec![("/slices", json!([]))],
            Endpoints,
            "NoEndpoints",
            "it has no IPv4 endpoint; its selector is app=web",
        ),
        (
            "a pod that is not ready",
            vec![("/slices/0/endpoints/0/conditions/ready", json!(false))],
            Endpoints,
            "NoEndpoints",
            "none of its 2 IPv4 endpoints is ready",
        ),
        (
            "pods of the other family",
            vec![("/slices/0/addressType", json!("IPv6"))],
            Endpoints,
            "NoEndpoints",
            "it has no IPv4 endpoint",
        ),
        (
            "pods on another node",
            vec![
                ("/service/spec/externalTrafficPolicy", json!("Local")),
                ("/slices/0/endpoints/0/nodeName", json!("node-3")),
            ],
            Endpoints,
            "NoEndpointsOnNode",
            "1 on node-3; node-1 answers and has none",
        ),
    ] {
        let report = report(&with(&changes));
        let first = report.first_broken.unwrap_or_else(|| panic!("{what}: nothing is broken"));
        assert_eq!((first.name, first.reason.as_deref()), (link, Some(reason)), "{what}");
        assert!(first.message.contains(says), "{what}: {}", first.message);
        assert!(first.advice.is_some_and(|advice| !advice.is_empty()), "{what}: there is no advice");
        assert!(!report.ok, "{what}");
    }
}

#[test]
fn what_works_and_is_to_be_looked_at_is_a_warning() {
    for (what, changes, link, reason) in [
        (
            "a node that is not ready",
            vec![("/nodes/0", node("node-1", "Unknown"))],
            LinkName::Answering,
            "NodeNotReady",
        ),
        ("a node that is gone", vec![("/nodes", json!([node("node-2", "True")]))], LinkName::Answering, "NodeNotReady"),
        (
            "a conflict in use",
            vec![("/announcements/0/status/conditions/0", condition("Ready", "True", "AddressConflict", "but"))],
            LinkName::Answering,
            "AddressConflict",
        ),
        (
            "a conflict that the controller repeats",
            vec![("/service/status/conditions/1", condition("berth.dev/Announced", "True", "AddressConflict", "but"))],
            LinkName::Placed,
            "AddressConflict",
        ),
    ] {
        let report = report(&with(&changes));
        assert!(report.ok, "{what}: {:?}", report.first_broken);
        let warned: Vec<_> = report.links.iter().filter(|link| link.state == State::Warning).collect();
        assert_eq!(warned.len(), 1, "{what}");
        assert_eq!((warned[0].name, warned[0].reason.as_deref()), (link, Some(reason)), "{what}");
    }
}

#[test]
fn what_may_not_be_read_is_unknown_and_the_rest_is_told() {
    for (place, unknown) in [
        ("/announcements", &[LinkName::Claimed, LinkName::Placed, LinkName::Answering][..]),
        ("/slices", &[LinkName::Endpoints]),
        ("/nodes", &[]),
        ("/controller", &[]),
    ] {
        let report = report(&with(&[(place, json!("forbidden"))]));
        assert!(report.ok, "{place}: {:?}", report.first_broken);
        let found: Vec<_> =
            report.links.iter().filter(|link| link.state == State::Unknown).map(|link| link.name).collect();
        assert_eq!(found, unknown, "{place}");
    }
}

#[test]
fn a_standby_that_took_over_answers_as_well() {
    let report = report(&with(&[("/announcements/0/status/layer2/owner", json!("node-2"))]));
    assert!(report.ok);
    let answering = report.links.iter().find(|link| link.name == LinkName::Answering).unwrap();
    assert!(answering.message.contains("node-2 answers on eth0"), "{}", answering.message);
    assert!(answering.message.contains("the owner that is named is node-1"), "{}", answering.message);
    assert_eq!(report.addresses[0].answers.as_ref().unwrap().node, "node-2");
}

#[test]
fn a_link_that_is_broken_hides_none_behind_it() {
    let report = report(&with(&[
        ("/service/status/conditions/0", condition("berth.dev/Allocated", "False", "AddressInUse", "taken")),
        ("/slices", json!([])),
    ]));
    assert_eq!(report.first_broken.as_ref().unwrap().name, LinkName::Allocated);
    assert_eq!(state(&report, LinkName::Answering), State::Ok);
    assert_eq!(state(&report, LinkName::Endpoints), State::Broken);
}

#[test]
fn a_service_of_another_is_not_looked_into() {
    let report = report(&with(&[("/service/spec/type", json!("NodePort"))]));
    assert!(report.links[1..].iter().all(|link| link.state == State::Skipped));
    assert_eq!(report.links.len(), 8);
}

#[test]
fn every_address_has_its_own_links() {
    let mut cluster = with(&[(
        "/service/status/loadBalancer",
        json!({"ingress": [{"ip": "192.0.2.200"}, {"ip": "2001:db8:2::200"}]}),
    )]);
    let mut second = cluster["announcements"][0].clone();
    second["spec"]["address"] = json!("2001:db8:2::200");
    second["status"] = json!(null);
    cluster["announcements"].as_array_mut().unwrap().push(second);
    let report = report(&cluster);
    let of = |name| {
        let links = report.links.iter().filter(move |link| link.name == name);
        links.map(|link| (link.address.as_deref(), link.state)).collect::<Vec<_>>()
    };
    let (four, six) = (Some("192.0.2.200"), Some("2001:db8:2::200"));
    assert_eq!(of(LinkName::Answering), [(four, State::Ok), (six, State::Broken)]);
    assert_eq!(of(LinkName::Endpoints), [(four, State::Ok), (six, State::Broken)]);
    assert_eq!(report.addresses.len(), 2);
}

#[test]
fn the_default_provider_is_read_from_flag_or_environment() {
    let with = |container: Value| {
        let deployment = json!({"spec": {"selector": {}, "template": {"spec": {"containers": [container]}}}});
        default_provider(&seen(&deployment))
    };
    for (container, expected) in [
        (json!({"name": "c", "args": ["--default-provider=pool"]}), "pool"),
        (json!({"name": "c", "command": ["/berth-controller", "--default-provider", "pool"]}), "pool"),
        (json!({"name": "c", "env": [{"name": "BERTH_DEFAULT_PROVIDER", "value": "pool"}]}), "pool"),
        (json!({"name": "c", "args": ["--log-level=debug"]}), "none"),
    ] {
        assert_eq!(with(container.clone()).as_deref(), Some(expected), "{container}");
    }
    assert_eq!(default_provider(&Seen::Here(None)), None);
}

#[test]
fn a_service_concerns_berth_by_its_class_its_conditions_or_the_default() {
    let class = "/service/spec/loadBalancerClass";
    let conditions = "/service/status/conditions";
    let none = "/controller/spec/template/spec/containers/0/args";
    for (what, changes, expected) in [
        ("its class", vec![(conditions, json!([]))], true),
        ("its conditions, left from before", vec![(class, json!("example.com/lb"))], true),
        ("the default", vec![(class, json!(null)), (conditions, json!([]))], true),
        ("no default", vec![(class, json!(null)), (conditions, json!([])), (none, json!([]))], false),
        ("another class", vec![(class, json!("example.com/lb")), (conditions, json!([]))], false),
        ("another type", vec![("/service/spec/type", json!("ClusterIP")), (conditions, json!([]))], false),
    ] {
        let cluster = with(&changes);
        let service: Service = serde_json::from_value(cluster["service"].clone()).unwrap();
        assert_eq!(Index::new(&surroundings(&cluster)).concerns(&service), expected, "{what}");
    }
}

#[test]
fn an_address_that_no_node_answers_for_needs_no_announcement() {
    let allocated = condition("berth.dev/Allocated", "True", "Allocated", "192.0.2.200 for tests");
    for class in ["berth.dev/mock", "example.com/mapped-to-mock"] {
        let changes = [
            ("/service/spec/loadBalancerClass", json!(class)),
            ("/service/status/conditions", json!([allocated])),
            ("/announcements", json!([])),
        ];
        let works = report(&with(&changes));
        assert!(works.ok, "{class}: {:?}", works.first_broken);
        for link in [LinkName::Claimed, LinkName::Placed, LinkName::Answering] {
            assert_eq!(state(&works, link), State::Skipped, "{class}");
        }
        let hidden = report(&with(&[&changes[..], &[("/service/status/loadBalancer", json!({}))]].concat()));
        assert_eq!(hidden.first_broken.unwrap().name, LinkName::Ingress, "{class}");
    }
}

#[test]
fn a_service_that_is_reached_by_a_host_name_works() {
    let mut cluster = healthy();
    cluster["service"]["spec"]["loadBalancerClass"] = json!("berth.dev/mock");
    cluster["service"]["status"]["loadBalancer"]["ingress"] = json!([{"hostname": "web.example.com"}]);
    cluster["service"]["status"]["conditions"] =
        json!([condition("berth.dev/Allocated", "True", "Allocated", "203.0.113.1 from the ranges for documentation")]);
    cluster["announcements"] = json!([]);
    let report = report(&cluster);
    assert!(report.ok, "{:?}", report.first_broken);
    let ingress = report.links.iter().find(|link| link.name == LinkName::Ingress).unwrap();
    assert_eq!(ingress.message, "the status names web.example.com");
}

#[test]
fn a_class_that_is_a_slip_of_the_pen_is_named() {
    let mut cluster = healthy();
    cluster["service"]["spec"]["loadBalancerClass"] = json!("berth.dev/pol");
    let broken = report(&cluster).first_broken.unwrap();
    assert_eq!(broken.reason.as_deref(), Some("UnknownClass"));
    assert_eq!(broken.message, "loadBalancerClass berth.dev/pol is none of Berth's");
}
