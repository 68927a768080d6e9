//! Nodes become members of the backend pools: one write of each pool, whatever the number of Services.

use std::time::Duration;

use berth_arm_fake::{Action, Fault};
use serde_json::json;

use super::process::Cluster;

const PUBLIC: (&str, &str) = ("azure-load-balancer-internal", "false");
const PUT: &str = "PUT backendAddressPools";
/// Enough for one write, and for what waits for it.
const MOMENT: Duration = Duration::from_secs(6);

#[tokio::test(start_paused = true)]
async fn nodes_that_come_go_and_are_excluded_are_members_accordingly() {
    let mut cluster = Cluster::new();
    cluster.served("web", &[]).await;
    assert_eq!(cluster.pool("prod-internal"), ["10.0.200.1", "10.0.200.2", "10.0.200.3"]);
    cluster.node(4, "True");
    cluster.node(5, "False");
    tokio::time::sleep(MOMENT).await;
    assert_eq!(cluster.pool("prod-internal"), ["10.0.200.1", "10.0.200.2", "10.0.200.3", "10.0.200.4"]);
    cluster.node_as(1, "True", &json!({"node.kubernetes.io/exclude-from-external-load-balancers": ""}));
    cluster.node_as(2, "True", &json!({"kubernetes.azure.com/managed": "false"}));
    tokio::time::sleep(MOMENT).await;
    assert_eq!(cluster.pool("prod-internal"), ["10.0.200.3", "10.0.200.4"]);
    cluster.no_node(3);
    tokio::time::sleep(MOMENT).await;
    assert_eq!(cluster.pool("prod-internal"), ["10.0.200.4"]);
    cluster.no_node(2);
    // No node is ready: rather those that were than none.
    cluster.node(4, "Unknown");
    cluster.node(5, "Unknown");
    tokio::time::sleep(MOMENT).await;
    assert_eq!(cluster.pool("prod-internal"), ["10.0.200.4", "10.0.200.5"]);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_joins_is_one_write_of_each_pool_whatever_the_number_of_services() {
    let mut cluster = Cluster::new();
    for number in 0..30 {
        let annotations = if number % 2 == 0 { &[][..] } else { &[PUBLIC] };
        let node_port = 30_000 + number;
        let ports = json!({"ports": [{"name": "http", "port": 80, "nodePort": node_port, "protocol": "TCP"}]});
        cluster.apply(&format!("s{number}"), annotations, &ports);
    }
    cluster.start();
    cluster.rest().await;
    cluster.fake.reset_counts();
    cluster.node(4, "True");
    cluster.rest().await;
    assert_eq!(cluster.calls(PUT), 2, "{:?}", cluster.fake.counts());
    assert_eq!([cluster.pool("prod").len(), cluster.pool("prod-internal").len()], [4, 4]);
    assert!(cluster.fake.counts().keys().all(|what| what.starts_with("GET") || what == PUT));
    // Nodes that say that they live are no news.
    let calls = cluster.all_calls();
    cluster.node(4, "True");
    cluster.rest().await;
    assert_eq!(cluster.all_calls(), calls);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_joins_a_thousand_is_one_write_of_the_pool_and_no_other() {
    let mut cluster = Cluster::new();
    (4..=1_000).for_each(|number| cluster.node(number, "True"));
    cluster.served("web", &[]).await;
    assert_eq!(cluster.pool("prod-internal").len(), 1_000);
    cluster.fake.reset_counts();
    cluster.node(1_001, "True");
    cluster.rest().await;
    assert_eq!((cluster.calls(PUT), cluster.pool("prod-internal").len()), (1, 1_001));
    assert!(cluster.fake.counts().keys().all(|what| what.starts_with("GET") || what == PUT));
}

#[tokio::test(start_paused = true)]
async fn what_changed_while_no_controller_ran_is_made_up_for() {
    let mut cluster = Cluster::new();
    cluster.served("web", &[]).await;
    cluster.kill();
    cluster.no_node(1);
    cluster.node(7, "True");
    cluster.start();
    cluster.rest().await;
    assert_eq!(cluster.pool("prod-internal"), ["10.0.200.2", "10.0.200.3", "10.0.200.7"]);
    let writes = cluster.gate.writes();
    cluster.start();
    cluster.rest().await;
    assert_eq!(cluster.gate.writes(), writes, "and nothing is sent that is there");
}

#[tokio::test(start_paused = true)]
async fn nodes_go_on_being_sent_while_the_service_itself_is_refused() {
    let mut cluster = Cluster::new();
    cluster.served("web", &[]).await;
    cluster.apply("web", &[("azure-load-balancer-internal", "maybe")], &json!({}));
    cluster.rest().await;
    assert!(cluster.api(|api| api.says("web", "Allocated")).starts_with("False InvalidRequest"));
    cluster.node(4, "True");
    tokio::time::sleep(MOMENT).await;
    assert_eq!(cluster.pool("prod-internal").len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_throttled_pool_gets_the_latest_nodes_once_it_may_be_written_again() {
    let mut cluster = Cluster::new();
    cluster.served("web", &[]).await;
    let (code, message) = ("TooManyRequests".to_owned(), String::new());
    let throttled = Action::Answer { status: 429, code, message, retry_after: Some(120) };
    cluster.fake.fault(Fault::next("PUT", "backendAddressPools", throttled));
    cluster.fake.reset_counts();
    for number in 4..20 {
        cluster.node(number, "True");
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
    assert_eq!((cluster.calls(PUT), cluster.pool("prod-internal").len()), (1, 3));
    cluster.rest().await;
    assert_eq!((cluster.calls(PUT), cluster.pool("prod-internal").len()), (2, 19));
}

#[tokio::test(start_paused = true)]
async fn a_right_to_the_pool_that_is_missing_is_named_and_nothing_else_waits_for_it() {
    let mut cluster = Cluster::new();
    cluster.served("web", &[]).await;
    let (code, message) = ("AuthorizationFailed".to_owned(), "no".to_owned());
    let denied = Action::Answer { status: 403, code, message, retry_after: None };
    cluster.fake.fault(Fault { times: u64::MAX, ..Fault::next("PUT", "backendAddressPools", denied) });
    cluster.fake.reset_counts();
    cluster.node(4, "True");
    cluster.rest().await;
    let said = cluster.api(|api| api.says("web", "TargetsHealthy"));
    assert!(said.starts_with("Unknown PermissionDenied"), "{said}");
    assert!(said.contains("Microsoft.Network/loadBalancers/backendAddressPools/write"), "{said}");
    assert!(cluster.api(|api| api.says("web", "Allocated")).starts_with("True"));
    assert!((7..=11).contains(&cluster.calls(PUT)), "{}", cluster.calls(PUT));
    cluster.fake.heal();
    cluster.rest().await;
    assert_eq!(
        (cluster.pool("prod-internal").len(), cluster.api(|api| api.says("web", "TargetsHealthy"))),
        (4, String::new())
    );
}

#[tokio::test(start_paused = true)]
async fn a_pool_with_network_interfaces_of_others_is_left_alone_and_said() {
    let mut cluster = Cluster::new();
    // As cloud-provider-azure fills the pool of the cluster's name.
    let mut theirs = cluster.document("loadBalancers/prod");
    let pools = theirs["properties"]["backendAddressPools"].as_array_mut().unwrap();
    pools.push(json!({"name": "prod", "properties": {"backendIPConfigurations": [{"id": "/nic"}]}}));
    cluster.fake.plant(&format!("{}/loadBalancers/prod", super::process::GROUP), theirs).unwrap();
    cluster.apply("web", &[PUBLIC], &json!({}));
    cluster.start();
    cluster.rest().await;
    let said = cluster.api(|api| api.says("web", "TargetsHealthy"));
    assert!(said.starts_with("Unknown InvalidRequest the backend pool prod has network interfaces"), "{said}");
    assert_eq!(cluster.calls(PUT), 0);
}
