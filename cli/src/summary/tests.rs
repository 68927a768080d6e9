//! The installation, and what of it is broken.

use serde_json::{Value, json};

use super::*;
use crate::chain::tests::{healthy, seen, surroundings};

/// Noon; the healthy cluster's address has been answered for since 10:00.
pub fn noon() -> Timestamp {
    "2026-01-01T12:00:00Z".parse().unwrap()
}

fn ready(status: &str, reason: &str, message: &str) -> Value {
    json!([{
        "type": "Ready", "status": status, "reason": reason, "message": message,
        "lastTransitionTime": "2026-01-01T10:00:00Z",
    }])
}

fn speaker(name: &str) -> Value {
    json!({
        "apiVersion": "berth.dev/v1alpha1", "kind": "SpeakerNode",
        "metadata": {"name": name}, "spec": {"version": "0.1.0", "interfaces": []},
    })
}

/// An installation in which all is well, as JSON that tests change.
pub fn installation() -> Value {
    let mut cluster = healthy();
    cluster["services"] = json!([cluster["service"]]);
    cluster["pools"] = json!([{
        "apiVersion": "berth.dev/v1alpha1", "kind": "IPAddressPool", "metadata": {"name": "office"},
        "spec": {"addresses": ["192.0.2.200-192.0.2.209"]},
        "status": {"assignedIPv4": 1, "availableIPv4": 9, "conditions": ready("True", "Valid", "in use")},
    }]);
    cluster["advertisements"] = json!([{
        "apiVersion": "berth.dev/v1alpha1", "kind": "L2Advertisement", "metadata": {"name": "office"},
        "spec": {"ipAddressPools": ["office"]},
        "status": {"conditions": ready("True", "Valid", "in use")},
    }]);
    cluster["routeAdvertisements"] = json!([]);
    cluster["speakers"] = json!([speaker("node-1"), speaker("node-2"), speaker("node-3")]);
    cluster["daemonSet"] = json!({
        "spec": {"selector": {}, "template": {}},
        "status": {"desiredNumberScheduled": 3, "numberReady": 3, "currentNumberScheduled": 3, "numberMisscheduled": 0},
    });
    cluster["lease"] = json!({
        "spec": {
            "holderIdentity": "berth-controller-1", "leaseDurationSeconds": 5,
            "renewTime": "2026-01-01T11:59:58.000000Z",
        },
    });
    cluster
}

/// An installation with most things that can be wrong.
pub fn broken_installation() -> Value {
    with(&[
        ("/controller/status/readyReplicas", json!(1)),
        ("/speakers", json!([speaker("node-1"), speaker("node-3")])),
        ("/daemonSet/status/numberReady", json!(2)),
        ("/pools/0/status/conditions", ready("False", "Overlap", "192.0.2.205 is also part of the older pool `lab`")),
        ("/advertisements/0/status", json!(null)),
        ("/services/0/status/loadBalancer", json!({})),
        ("/slices", json!("slices is forbidden")),
    ])
}

pub fn cluster(json: &Value) -> Cluster {
    Cluster {
        services: seen(&json["services"]),
        namespace: Some("shop".to_owned()),
        around: surroundings(json),
        pools: seen(&json["pools"]),
        advertisements: seen(&json["advertisements"]),
        route_advertisements: seen(&json["routeAdvertisements"]),
        speakers: seen(&json["speakers"]),
        daemon_set: seen(&json["daemonSet"]),
        lease: seen(&json["lease"]),
    }
}

pub fn with(changes: &[(&str, Value)]) -> Value {
    let mut installation = installation();
    for (place, value) in changes {
        let (parent, last) = place.rsplit_once('/').unwrap();
        installation.pointer_mut(parent).unwrap_or_else(|| panic!("no {parent}"))[last] = value.clone();
    }
    installation
}

#[test]
fn all_is_well() {
    let summary = summarise(&cluster(&installation()), noon());
    assert!(summary.ok && summary.installed, "{:?}", summary.problems);
    assert_eq!(summary.controller.leader.as_deref(), Some("berth-controller-1"));
    assert_eq!((summary.speakers.reported, summary.speakers.nodes), (Some(3), Some(3)));
    assert_eq!(summary.services.len(), 1);
    assert!(summary.unreadable.is_empty());
}

#[test]
fn what_is_broken_is_named_with_its_reason() {
    let renewed = |time: &str| ("/lease/spec/renewTime", json!(time));
    for (what, change, subject, reason) in [
        ("no controller", ("/controller", json!(null)), "controller", "ControllerMissing"),
        ("no replica", ("/controller/status", json!({})), "controller", "ControllerNotReady"),
        ("one replica of two", ("/controller/status/readyReplicas", json!(1)), "controller", "ControllerDegraded"),
        ("no Lease", ("/lease", json!(null)), "controller", "NoLeader"),
        ("a Lease of nobody", ("/lease/spec/holderIdentity", json!("")), "controller", "NoLeader"),
        ("a Lease that ran out", renewed("2026-01-01T11:58:54.000000Z"), "controller", "NoLeader"),
        ("no speakers", ("/daemonSet", json!(null)), "speakers", "SpeakersMissing"),
        ("a speaker that is not ready", ("/daemonSet/status/numberReady", json!(2)), "speakers", "SpeakersNotReady"),
        (
            "a speaker that is silent",
            ("/speakers", json!([speaker("node-1"), speaker("node-3")])),
            "node node-2",
            "SpeakerSilent",
        ),
        (
            "a pool that overlaps",
            ("/pools/0/status/conditions", ready("False", "Overlap", "also part of another")),
            "IPAddressPool office",
            "Overlap",
        ),
        ("a pool that was not seen", ("/pools/0/status", json!(null)), "IPAddressPool office", "NotSeen"),
        (
            "an advertisement that was not seen",
            ("/advertisements/0/status", json!(null)),
            "L2Advertisement office",
            "NotSeen",
        ),
        ("a Service without pods", ("/slices", json!([])), "Service shop/web", "NoEndpoints"),
    ] {
        let summary = summarise(&cluster(&with(&[change])), noon());
        let found: Vec<_> = summary.problems.iter().map(|p| (p.subject.as_str(), p.reason.as_str())).collect();
        assert_eq!(found, [(subject, reason)], "{what}");
        assert!(!summary.ok, "{what}");
    }
}

#[test]
fn a_clock_that_is_off_by_less_than_a_minute_ends_no_lease() {
    for time in ["2026-01-01T11:58:56.000000Z", "2026-01-01T12:05:00.000000Z"] {
        let summary = summarise(&cluster(&with(&[("/lease/spec/renewTime", json!(time))])), noon());
        assert!(summary.ok, "{time}: {:?}", summary.problems);
    }
}

#[test]
fn a_node_that_no_speaker_can_run_on_is_not_missed() {
    let windows = json!({"metadata": {"name": "win-1", "labels": {"kubernetes.io/os": "windows"}}});
    let mut installation = installation();
    installation["nodes"].as_array_mut().unwrap().push(windows);
    assert!(summarise(&cluster(&installation), noon()).ok);
}

#[test]
fn a_cluster_without_berth_has_one_problem() {
    let missing = json!("missing");
    let changes = ["/announcements", "/pools", "/advertisements", "/speakers"].map(|kind| (kind, missing.clone()));
    let mut installation = with(&changes);
    for place in ["services", "slices"] {
        installation[place] = json!([]);
    }
    for place in ["controller", "daemonSet", "lease"] {
        installation[place] = json!(null);
    }
    let summary = summarise(&cluster(&installation), noon());
    assert!(!summary.installed && !summary.ok);
    let reasons: Vec<_> = summary.problems.iter().map(|problem| problem.reason.as_str()).collect();
    assert_eq!(reasons, ["NotInstalled"]);
}

#[test]
fn what_may_not_be_read_is_no_problem_and_is_named() {
    for place in [
        "services",
        "announcements",
        "slices",
        "nodes",
        "controller",
        "pools",
        "advertisements",
        "speakers",
        "daemonSet",
        "lease",
    ] {
        let mut installation = installation();
        installation[place] = json!("forbidden");
        let summary = summarise(&cluster(&installation), noon());
        assert!(summary.ok, "{place}: {:?}", summary.problems);
        assert_eq!(summary.unreadable.len(), 1, "{place}");
        assert_eq!(summary.unreadable[0].message, "forbidden");
    }
}

#[test]
fn services_of_other_namespaces_are_counted_when_they_are_not_shown() {
    let mut other = installation();
    let mut announcement = other["announcements"][0].clone();
    announcement["spec"]["address"] = json!("192.0.2.201");
    announcement["spec"]["services"][0]["namespace"] = json!("office");
    other["announcements"].as_array_mut().unwrap().push(announcement);
    let mut cluster = cluster(&other);
    assert_eq!(summarise(&cluster, noon()).services_elsewhere, 1);
    cluster.namespace = None;
    assert_eq!(summarise(&cluster, noon()).services_elsewhere, 0);
}
