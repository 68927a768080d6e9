//! What the dataplanes of nodes have to do with it: who is spared, and what speakers are told of endpoints.

use serde_json::Value;

use super::*;

const VIP: &str = "192.0.2.200";

fn service(cluster: &Cluster) -> Value {
    serde_json::to_value(&cluster.announcements[VIP].spec.services[0]).unwrap()
}

fn labels(cluster: &Cluster) -> Vec<String> {
    let labels = cluster.announcements[VIP].metadata.labels.iter().flatten();
    labels.map(|(label, part)| format!("{} {part}", label.trim_start_matches("part.berth.dev/"))).collect()
}

#[test]
fn an_announcement_says_whether_its_service_serves_and_the_service_when_it_does_not() {
    let mut cluster = Cluster::new(&[VIP]);
    let ports = json!([{"port": 443, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}, {"port": 80}]);
    cluster.apply("web", json!({"ports": ports}));
    cluster.settle(None);
    assert_eq!(service(&cluster), json!({"namespace": "shop", "name": "web", "uid": "uid-3", "tcpPort": 80}));
    assert!(cluster.condition("web", types::ANNOUNCED).starts_with("True NoServingEndpoints"));
    cluster.endpoints("web", &["node-2"]);
    cluster.settle(None);
    assert_eq!(service(&cluster)["serving"], json!(true));
    assert!(cluster.condition("web", types::ANNOUNCED).starts_with("True Announced"));
    // More of them is no news.
    cluster.writes();
    cluster.endpoints("web", &["node-1", "node-2", "node-3"]);
    cluster.settle(None);
    assert_eq!(cluster.writes(), Vec::<String>::new());
    cluster.endpoints("web", &[]);
    cluster.settle(None);
    assert_eq!(service(&cluster).get("serving"), None);
    assert!(cluster.condition("web", types::ANNOUNCED).starts_with("True NoServingEndpoints"));
}

#[test]
fn nodes_whose_speakers_answer_health_checks_are_told_of_their_endpoints_and_no_others() {
    let mut cluster = Cluster::new(&[VIP]);
    cluster.endpoints("web", &["node-1", "node-2", "node-3"]);
    cluster.apply("web", json!({"externalTrafficPolicy": "Local", "healthCheckNodePort": 30_001}));
    cluster.settle(None);
    assert_eq!(service(&cluster)["local"], json!({"healthCheckNodePort": 30_001}));
    let owner = cluster.owner(VIP).unwrap();
    cluster.claim(VIP, &owner, 1);
    cluster.dataplane(3, json!({"kubeProxy": "Absent", "healthChecks": true}));
    cluster.dataplane(2, json!({"kubeProxy": "Fresh"}));
    cluster.settle(None);
    assert_eq!(service(&cluster)["local"]["endpoints"], json!([{"node": "node-3", "ready": 1}]));
    // Also where it has no other part.
    cluster.advertise(json!({"nodeSelectors": [{"matchLabels": {"lb": "yes"}}]}));
    cluster.node(1, json!({"lb": "yes"}));
    cluster.settle(None);
    assert_eq!(
        labels(&cluster).iter().filter(|label| *label == "node-3 health-checks").count(),
        1,
        "{:?}",
        labels(&cluster)
    );
    cluster.endpoints("web", &["node-1"]);
    cluster.settle(None);
    assert_eq!(service(&cluster)["local"], json!({"healthCheckNodePort": 30_001}));
    assert!(!labels(&cluster).iter().any(|label| label.ends_with("health-checks")), "{:?}", labels(&cluster));
}

#[test]
fn the_cluster_policy_has_no_health_checks() {
    let mut cluster = Cluster::new(&[VIP]);
    cluster.dataplane(3, json!({"kubeProxy": "Absent", "healthChecks": true}));
    cluster.endpoints("web", &["node-3"]);
    cluster.apply("web", json!({"healthCheckNodePort": 30_001}));
    cluster.settle(None);
    assert_eq!(service(&cluster).get("local"), None);
}

#[test]
fn a_node_whose_kube_proxy_is_stale_gives_up_what_another_can_take_and_is_chosen_last() {
    let mut cluster = Cluster::new(&[VIP]);
    cluster.apply("web", json!({}));
    cluster.settle(None);
    let owner = cluster.owner(VIP).unwrap();
    cluster.claim(VIP, &owner, 1);
    cluster.settle(None);
    let number = |node: &str| node.trim_start_matches("node-").parse::<u8>().unwrap();
    for (kube_proxy, moves) in [("Absent", false), ("Fresh", false), ("Stale", true)] {
        cluster.dataplane(number(&owner), json!({"kubeProxy": kube_proxy}));
        cluster.settle(None);
        assert_eq!(cluster.owner(VIP).unwrap() != owner, moves, "{kube_proxy}");
    }
    let next = cluster.owner(VIP).unwrap();
    cluster.claim(VIP, &next, 2);
    // Where all are, nothing is better.
    for node in 1..=3 {
        cluster.dataplane(node, json!({"kubeProxy": "Stale"}));
    }
    cluster.settle(None);
    assert_eq!(cluster.owner(VIP).unwrap(), next);
    let condition = cluster.condition("web", types::ANNOUNCED);
    assert!(condition.starts_with("True DrainBlocked") && condition.contains("kube-proxy is stale"), "{condition}");
}
