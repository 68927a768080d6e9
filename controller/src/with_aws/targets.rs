//! Nodes and endpoints become targets.

use std::time::Duration;

use serde_json::json;

use super::process::Cluster;

const REGISTER: &str = "elasticloadbalancing:RegisterTargets";
const DEREGISTER: &str = "elasticloadbalancing:DeregisterTargets";
const HEALTH: &str = "elasticloadbalancing:DescribeTargetHealth";
/// Enough for what nobody waits for.
const MOMENT: Duration = Duration::from_millis(50);

#[tokio::test(start_paused = true)]
async fn nodes_that_come_go_and_are_excluded_are_targets_accordingly() {
    let mut cluster = Cluster::new();
    cluster.served("web", &[]).await;
    assert_eq!(cluster.targets(), ["i-1:30080", "i-2:30080", "i-3:30080"]);
    cluster.node(4, "True");
    cluster.node(5, "False");
    tokio::time::sleep(MOMENT).await;
    assert_eq!(cluster.targets(), ["i-1:30080", "i-2:30080", "i-3:30080", "i-4:30080"]);
    cluster.node_as(1, "True", &json!({"node.kubernetes.io/exclude-from-external-load-balancers": ""}));
    cluster.no_node(2);
    tokio::time::sleep(MOMENT).await;
    assert_eq!(cluster.targets(), ["i-3:30080", "i-4:30080"]);
    // No node is ready: rather those that were than none.
    cluster.node(3, "Unknown");
    cluster.node(4, "Unknown");
    tokio::time::sleep(MOMENT).await;
    assert_eq!(cluster.targets(), ["i-3:30080", "i-4:30080", "i-5:30080"]);
}

#[tokio::test(start_paused = true)]
async fn endpoints_are_targets_within_a_moment_and_concern_nobody_else() {
    let mut cluster = Cluster::new();
    let ip = ("nlb-target-type", "ip");
    cluster.endpoints("web", &["10.0.0.1", "10.0.0.2"]);
    cluster.endpoints("other", &["10.0.0.9"]);
    cluster.apply("other", &[ip], &json!({}));
    cluster.served("web", &[ip]).await;
    assert_eq!(cluster.targets(), ["10.0.0.1:8080", "10.0.0.2:8080", "10.0.0.9:8080"]);
    let before = [REGISTER, DEREGISTER, HEALTH].map(|action| cluster.calls(action));
    cluster.endpoints("web", &["10.0.0.2", "10.0.0.3"]);
    tokio::time::sleep(MOMENT).await;
    assert_eq!(cluster.targets(), ["10.0.0.2:8080", "10.0.0.3:8080", "10.0.0.9:8080"]);
    let after = [REGISTER, DEREGISTER, HEALTH].map(|action| cluster.calls(action));
    assert_eq!(after, [before[0] + 1, before[1] + 1, before[2]], "one call each, and no look");
    cluster.endpoints("web", &[]);
    cluster.rest().await;
    assert_eq!(cluster.targets(), ["10.0.0.9:8080"]);
    assert!(cluster.api(|api| api.says("web", "TargetsHealthy")).starts_with("False NoTargets"));
}

#[tokio::test(start_paused = true)]
async fn what_changed_while_no_controller_ran_is_made_up_for() {
    let mut cluster = Cluster::new();
    cluster.endpoints("web", &["10.0.0.1"]);
    cluster.served("web", &[("nlb-target-type", "ip")]).await;
    cluster.kill();
    cluster.endpoints("web", &["10.0.0.7"]);
    cluster.start();
    cluster.rest().await;
    assert_eq!(cluster.targets(), ["10.0.0.7:8080"]);
    let writes = cluster.cloud.gate().writes();
    cluster.start();
    cluster.rest().await;
    assert_eq!(cluster.cloud.gate().writes(), writes, "and nothing is sent that is there");
}

#[tokio::test(start_paused = true)]
async fn targets_go_on_being_sent_while_the_service_itself_is_refused() {
    let mut cluster = Cluster::new();
    cluster.served("web", &[]).await;
    cluster.apply("web", &[("scheme", "slip")], &json!({}));
    cluster.rest().await;
    assert!(cluster.api(|api| api.says("web", "Allocated")).starts_with("False InvalidRequest"));
    cluster.node(4, "True");
    tokio::time::sleep(MOMENT).await;
    assert_eq!(cluster.targets().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_throttled_cloud_gets_the_latest_targets_once_it_answers_again() {
    let mut cluster = Cluster::new();
    cluster.endpoints("web", &["10.0.0.1"]);
    cluster.served("web", &[("nlb-target-type", "ip")]).await;
    cluster.cloud.with(|state| state.answers = Some("Throttling"));
    for number in 2..20 {
        cluster.endpoints("web", &[&format!("10.0.0.{number}")]);
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert!(cluster.calls(DEREGISTER) < 6, "{}", cluster.calls(DEREGISTER));
    cluster.cloud.with(|state| state.answers = None);
    cluster.rest().await;
    assert_eq!(cluster.targets(), ["10.0.0.19:8080"]);
}

#[tokio::test(start_paused = true)]
async fn a_target_that_is_sick_is_named_and_said_to_be_well_again() {
    let mut cluster = Cluster::new();
    cluster.cloud.with(|state| state.sick.insert("i-2".to_owned()));
    cluster.served("web", &[]).await;
    let said = cluster.api(|api| api.says("web", "TargetsHealthy"));
    assert!(said.starts_with("False TargetsUnhealthy 2 of 3") && said.contains("i-2:30080"), "{said}");
    cluster.cloud.with(|state| state.sick.clear());
    cluster.rest().await;
    assert_eq!(cluster.api(|api| api.says("web", "TargetsHealthy")), "True TargetsHealthy 3 of 3 targets are healthy");
    let events = cluster.api(|api| api.events.clone());
    assert_eq!(events, ["Allocated", "TargetsUnhealthy", "TargetsHealthy"]);
    // And then nobody asks any more than once an hour.
    let looks = cluster.calls(HEALTH);
    tokio::time::sleep(Duration::from_hours(5)).await;
    assert!(cluster.calls(HEALTH) - looks <= 5, "{}", cluster.calls(HEALTH) - looks);
}

#[tokio::test(start_paused = true)]
async fn an_action_that_is_denied_is_named_and_nothing_else_waits_for_it() {
    let mut cluster = Cluster::new();
    cluster.served("web", &[]).await;
    cluster.cloud.with(|state| state.answers = Some("AccessDenied"));
    cluster.node(4, "True");
    cluster.rest().await;
    let said = cluster.api(|api| api.says("web", "TargetsHealthy"));
    assert!(said.starts_with("Unknown PermissionDenied"), "{said}");
    assert!(said.contains("allow elasticloadbalancing:RegisterTargets"), "{said}");
    assert!(cluster.api(|api| api.says("web", "Allocated")).starts_with("True"));
    // Once a minute.
    assert!((15..25).contains(&(cluster.calls(REGISTER))), "{}", cluster.calls(REGISTER));
    cluster.cloud.with(|state| state.answers = None);
    cluster.rest().await;
    assert_eq!(cluster.targets().len(), 4);
}
