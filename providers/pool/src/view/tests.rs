use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Node;
use serde_json::json;

use super::*;

#[test]
fn a_service_that_never_was_ours_is_not_kept_and_one_that_was_is() {
    let condition = json!({"type": "berth.dev/Allocated", "status": "True", "reason": "Allocated", "message": "",
                           "lastTransitionTime": "2026-01-01T00:00:00Z"});
    for (conditions, asks, kept) in [
        (json!([]), Asks::Nobody, false),
        (json!([]), Asks::Us, true),
        (json!([]), Asks::AnotherProvider, true),
        (json!([condition]), Asks::Nobody, true),
        (
            json!([{"type": "example.com/Other", "status": "True", "reason": "A", "message": "",
                 "lastTransitionTime": "2026-01-01T00:00:00Z"}]),
            Asks::Nobody,
            false,
        ),
    ] {
        let service = json!({"metadata": {"name": "web"}, "status": {"conditions": conditions}});
        let view = ServiceView::of(&serde_json::from_value(service).unwrap(), asks);
        assert_eq!(view.is_some(), kept, "{asks:?} {conditions}");
    }
}

#[test]
fn an_advertisement_covers_what_it_names_or_selects_and_all_when_it_says_nothing() {
    let gold = BTreeMap::from([("tier".to_owned(), "gold".to_owned())]);
    for (spec, covers_gold, covers_other) in [
        (json!({}), true, true),
        (json!({"ipAddressPools": ["a"]}), true, false),
        (json!({"ipAddressPoolSelectors": [{"matchLabels": {"tier": "gold"}}]}), true, false),
        (json!({"ipAddressPoolSelectors": [{"matchLabels": {"tier": "none"}}]}), false, false),
        (json!({"ipAddressPools": ["b"], "ipAddressPoolSelectors": [{"matchLabels": {"tier": "gold"}}]}), true, true),
        (
            json!({"nodeSelectors": [{"matchExpressions": [{"key": "a", "operator": "Near", "values": []}]}]}),
            false,
            false,
        ),
    ] {
        let ad = serde_json::from_value(json!({
            "apiVersion": "berth.dev/v1alpha1", "kind": "L2Advertisement", "metadata": {"name": "x"}, "spec": spec,
        }))
        .unwrap();
        let view = AdvertisementView::of(&ad);
        assert_eq!(view.covers("a", Some(&gold)), covers_gold, "{spec}");
        assert_eq!(view.covers("b", None), covers_other, "{spec}");
    }
}

#[test]
fn a_node_is_excluded_by_the_presence_of_the_label_whatever_its_value() {
    let node: Node = serde_json::from_value(json!({
        "metadata": {"name": "n", "labels": {"node.kubernetes.io/exclude-from-external-load-balancers": "false"}},
        "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.11"}, {"type": "InternalIP", "address": "2001:db8:2::11"},
                                 {"type": "Hostname", "address": "n"}],
                   "conditions": [{"type": "Ready", "status": "True"}, {"type": "NetworkUnavailable", "status": "False"}]},
    }))
    .unwrap();
    let view = NodeView::of(&node);
    assert!(view.excluded() && view.ready && !view.network_unavailable);
    assert_eq!(view.addresses, BTreeSet::from(["192.0.2.11".parse().unwrap(), "2001:db8:2::11".parse().unwrap()]));
}
