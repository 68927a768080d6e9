//! Whole outputs, held against files. `BERTH_UPDATE_GOLDEN=1 cargo test -p berth-cli` writes them anew.

use std::path::Path;

use serde::Serialize;
use serde_json::{Value, json};

use super::*;
use crate::chain::tests as chain;
use crate::summary::summarise;
use crate::summary::tests::{broken_installation, cluster, installation, noon};

fn look() -> Look {
    Look { style: Style::Plain, wide: false, namespaces: false, now: noon() }
}

fn golden(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/golden").join(name);
    if std::env::var_os("BERTH_UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(text, expected, "{}", path.display());
}

fn json_text(report: &impl Serialize) -> String {
    serde_json::to_string_pretty(report).unwrap() + "\n"
}

fn single(cluster: &Value) -> SingleService {
    SingleService { service: chain::report(cluster), unreadable: chain::surroundings(cluster).unreadable() }
}

fn refused() -> Value {
    let condition = json!({
        "type": "berth.dev/Allocated", "status": "False", "reason": "PoolExhausted",
        "message": "all 10 addresses of IPAddressPool `office` are taken", "lastTransitionTime": "2026-01-01T10:00:00Z",
    });
    chain::with(&[("/service/status", json!({"conditions": [condition]})), ("/announcements", json!([]))])
}

#[test]
fn a_summary_of_what_works() {
    let report = summarise(&cluster(&installation()), noon());
    golden("summary.txt", &summary(&report, look()));
    golden("summary-wide.txt", &summary(&report, Look { wide: true, namespaces: true, ..look() }));
    assert!(summary_notes(&report, Some("shop")).is_empty());
}

#[test]
fn a_summary_of_what_does_not_work() {
    let report = summarise(&cluster(&broken_installation()), noon());
    golden("summary-broken.txt", &summary(&report, look()));
    assert_eq!(summary_notes(&report, Some("shop")), ["warning: things could not be read: slices is forbidden"]);
}

#[test]
fn the_json_of_a_summary_keeps_its_field_names() {
    golden("summary.json", &json_text(&summarise(&cluster(&broken_installation()), noon())));
}

#[test]
fn a_service_that_works() {
    golden("service.txt", &service(&single(&chain::healthy()), look()));
}

#[test]
fn a_service_that_is_refused() {
    golden("service-refused.txt", &service(&single(&refused()), look()));
}

#[test]
fn a_service_of_two_families() {
    let mut cluster = chain::healthy();
    let mut second = cluster["announcements"][0].clone();
    second["spec"]["address"] = json!("2001:db8:2::200");
    cluster["announcements"].as_array_mut().unwrap().push(second);
    golden("service-two-families.txt", &service(&single(&cluster), look()));
}

#[test]
fn the_json_of_a_service_keeps_its_field_names() {
    golden("service.json", &json_text(&single(&chain::healthy())));
    golden("service-refused.json", &json_text(&single(&refused())));
}

#[test]
fn an_installation_that_is_empty_says_what_to_do() {
    let mut empty = installation();
    for place in ["services", "announcements", "slices", "pools", "advertisements"] {
        empty[place] = json!([]);
    }
    let report = summarise(&cluster(&empty), noon());
    assert!(report.ok, "{:?}", report.problems);
    assert_eq!(
        summary_notes(&report, Some("shop")),
        [
            "No IPAddressPools found: without one no Service is given an address",
            "No Services of Berth found in shop namespace.",
        ]
    );
    assert_eq!(summary_notes(&report, None)[1], "No Services of Berth found");
}

#[test]
fn the_tag_is_what_follows_the_name() {
    for (image, expected) in [
        ("berth-controller:v0.1.0", "v0.1.0"),
        ("registry.example:5000/berth/controller:v0.1.0", "v0.1.0"),
        ("registry.example:5000/berth/controller", "registry.example:5000/berth/controller"),
        ("berth-controller:v0.1.0@sha256:00", "v0.1.0"),
    ] {
        assert_eq!(tag(image), expected);
    }
}
