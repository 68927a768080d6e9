use serde_json::{Value, json};

use super::*;

fn service(spec: Value) -> Option<ServiceView> {
    let service = serde_json::from_value(json!({"metadata": {"name": "web"}, "spec": spec})).unwrap();
    ServiceView::of(&service, DefaultProvider::Pool)
}

#[test]
fn a_service_is_ours_by_class_or_by_default() {
    for (spec, pool_is_default, ours) in [
        (json!({"type": "LoadBalancer"}), true, true),
        (json!({"type": "LoadBalancer"}), false, false),
        (json!({"type": "LoadBalancer", "loadBalancerClass": "berth.dev/pool"}), false, true),
        (json!({"type": "LoadBalancer", "loadBalancerClass": "example.com/other"}), true, false),
        (json!({"type": "ClusterIP"}), true, false),
        (json!({"type": "NodePort"}), true, false),
    ] {
        let default = if pool_is_default { DefaultProvider::Pool } else { DefaultProvider::None };
        let service: Service = serde_json::from_value(json!({"metadata": {"name": "web"}, "spec": spec})).unwrap();
        assert_eq!(is_ours(&service, default), ours, "{spec}, {default:?}");
    }
}

#[test]
fn a_service_that_never_was_ours_is_not_kept() {
    assert_eq!(service(json!({"type": "ClusterIP"})), None);
}

#[test]
fn an_endpoint_serves_when_ready_or_terminating_but_serving() {
    let slice: EndpointSlice = serde_json::from_value(json!({
        "metadata": {"name": "web-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4",
        "endpoints": [
            {"addresses": ["10.0.0.1"], "nodeName": "unknown-is-ready"},
            {"addresses": ["10.0.0.2"], "nodeName": "ready", "conditions": {"ready": true}},
            {"addresses": ["10.0.0.3"], "nodeName": "not-ready", "conditions": {"ready": false}},
            {"addresses": ["10.0.0.4"], "nodeName": "draining", "conditions": {"ready": false, "serving": true, "terminating": true}},
            {"addresses": ["10.0.0.5"], "nodeName": "gone", "conditions": {"ready": false, "serving": false, "terminating": true}},
            {"addresses": ["10.0.0.6"], "conditions": {"ready": true}},
        ],
    }))
    .unwrap();
    let serving = SliceView::of(&slice).unwrap().serving;
    assert_eq!(serving.into_iter().collect::<Vec<_>>(), ["draining", "ready", "unknown-is-ready"]);
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
        "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.11"}, {"type": "Hostname", "address": "n"}],
                   "conditions": [{"type": "Ready", "status": "True"}, {"type": "NetworkUnavailable", "status": "False"}]},
    }))
    .unwrap();
    let view = NodeView::of(&node);
    assert!(view.excluded() && view.ready && !view.network_unavailable);
    assert_eq!(view.addresses, BTreeSet::from([Ipv4Addr::new(192, 0, 2, 11)]));
}
