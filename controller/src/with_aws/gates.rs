//! Readiness gates of pods say what the load balancer thinks of them.

use std::time::Duration;

use serde_json::json;

use super::process::Cluster;

const WEB: &str = "target-health.berth.dev/web";
const OTHER: &str = "example.com/other";
const IP: (&str, &str) = ("nlb-target-type", "ip");
const HEALTH: &str = "elasticloadbalancing:DescribeTargetHealth";
const DEREGISTER: &str = "elasticloadbalancing:DeregisterTargets";
/// Enough for what nobody waits for.
const MOMENT: Duration = Duration::from_millis(50);
/// Until AWS has come to its mind, and somebody has looked.
const CHECKED: Duration = Duration::from_secs(26);

/// A cluster with the Service `web` of addresses, which is served.
async fn cluster() -> Cluster {
    let mut cluster = Cluster::new();
    cluster.heeds_gates = true;
    cluster.served("web", &[IP]).await;
    cluster
}

impl Cluster {
    fn pod(&self, name: &str, address: &str, gates: &[&str]) {
        self.api(|api| {
            api.pods.start(name, "web", address, gates);
            api.pods.says(name, "ContainersReady", true);
        });
    }

    fn gate(&self, name: &str) -> String {
        self.api(|api| api.pods.gate(name, "web"))
    }

    fn is_ready(&self, name: &str) -> bool {
        self.api(|api| api.pods.is_ready(name))
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_waits_for_its_gate_alone_is_a_target_and_ready_once_it_is_healthy() {
    let cluster = cluster().await;
    cluster.api(|api| api.pods.start("web-0", "web", "10.0.0.1", &[WEB, OTHER]));
    tokio::time::sleep(MOMENT).await;
    assert_eq!((cluster.targets(), cluster.gate("web-0")), (vec![], String::new()), "its containers are not ready");
    cluster.api(|api| api.pods.says("web-0", "ContainersReady", true));
    tokio::time::sleep(MOMENT).await;
    assert_eq!(cluster.targets(), [""; 0], "somebody else's gate is closed");
    cluster.api(|api| api.pods.says("web-0", OTHER, true));
    tokio::time::sleep(MOMENT).await;
    assert_eq!(cluster.targets(), ["10.0.0.1:8080"]);
    let said = cluster.gate("web-0");
    assert!(said.starts_with("False TargetsInitial the load balancer of Service shop/web is checking"), "{said}");
    assert!(!cluster.is_ready("web-0"));
    tokio::time::sleep(CHECKED).await;
    assert!(cluster.gate("web-0").starts_with("True TargetsHealthy") && cluster.is_ready("web-0"));
    assert_eq!(cluster.api(|api| api.pods.condition("web-0", "example.com/of-others")), "True", "others' stay");
    cluster.rest().await;
    assert_eq!(cluster.api(|api| api.pods.log.clone()), ["web-0 web False", "web-0 web True"]);
    assert_eq!(cluster.calls(DEREGISTER), 0, "never in between");
}

#[tokio::test(start_paused = true)]
async fn health_is_looked_at_every_few_seconds_while_a_pod_waits_then_less_often_and_no_more_when_none_does() {
    let cluster = cluster().await;
    cluster.cloud.with(|state| state.sick.insert("10.0.0.1".to_owned()));
    cluster.pod("web-0", "10.0.0.1", &[WEB]);
    cluster.pod("web-1", "10.0.0.2", &[WEB]);
    let looks = |from: u64| cluster.calls(HEALTH) - from;
    let begin = cluster.calls(HEALTH);
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert!((10..=13).contains(&looks(begin)), "one for the group each 5 s: {}", looks(begin));
    assert!(cluster.gate("web-0").starts_with("False TargetsUnhealthy"), "{}", cluster.gate("web-0"));
    assert!(cluster.gate("web-0").contains("10.0.0.1:8080 (Target.FailedHealthChecks)"));
    assert!(cluster.is_ready("web-1"), "it does not wait for the other one");
    tokio::time::sleep(Duration::from_mins(5)).await;
    let later = cluster.calls(HEALTH);
    tokio::time::sleep(Duration::from_mins(30)).await;
    assert!((25..=35).contains(&looks(later)), "each minute: {}", looks(later));
    cluster.cloud.with(|state| state.sick.clear());
    tokio::time::sleep(Duration::from_mins(2)).await;
    assert!(cluster.is_ready("web-0"));
    let settled = cluster.calls(HEALTH);
    tokio::time::sleep(Duration::from_hours(5)).await;
    assert!(looks(settled) <= 6, "once an hour: {}", looks(settled));
}

#[tokio::test(start_paused = true)]
async fn a_gate_that_can_never_open_says_why_and_what_opens_it_later() {
    let mut cluster = cluster().await;
    cluster.apply("nodes", &[], &json!({}));
    cluster.rest().await;
    let gates = ["web", "nodes", "none"].map(|service| format!("target-health.berth.dev/{service}"));
    for (number, gate) in gates.iter().enumerate() {
        let name = format!("pod-{number}");
        cluster.api(|api| {
            api.pods.start(&name, "unselected", &format!("10.0.0.{}", number + 1), &[gate]);
            api.pods.says(&name, "ContainersReady", true);
        });
    }
    // Slices are given the time to follow.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let said = |pod: &str, service: &str| cluster.api(|api| api.pods.gate(pod, service));
    assert!(said("pod-0", "web").starts_with("False NotATarget"), "{}", said("pod-0", "web"));
    assert!(said("pod-1", "nodes").starts_with("False GateNeedsAddresses"), "{}", said("pod-1", "nodes"));
    assert!(said("pod-2", "none").starts_with("False GateUnserved"), "{}", said("pod-2", "none"));
    assert_eq!(cluster.api(|api| api.pods.writes), 3, "each is told once");
    cluster.apply("none", &[IP], &json!({}));
    cluster.rest().await;
    let said = cluster.api(|api| api.pods.gate("pod-2", "none"));
    assert!(said.starts_with("False NotATarget"), "the Service is served now: {said}");
    cluster.api(|api| api.pods.start("pod-2", "none", "10.0.0.9", &["target-health.berth.dev/none"]));
    cluster.api(|api| api.pods.says("pod-2", "ContainersReady", true));
    cluster.rest().await;
    assert!(cluster.api(|api| api.pods.is_ready("pod-2")));
    cluster.kill();
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_refused_or_comes_late_is_named_by_the_gate_until_it_is_served() {
    let mut cluster = Cluster::new();
    cluster.heeds_gates = true;
    cluster.start();
    cluster.pod("web-0", "10.0.0.1", &[WEB]);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(cluster.gate("web-0").starts_with("False GateUnserved"), "{}", cluster.gate("web-0"));
    cluster.apply("web", &[IP, ("scheme", "slip")], &json!({}));
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(cluster.gate("web-0").starts_with("False Provisioning"), "{}", cluster.gate("web-0"));
    cluster.apply("web", &[IP], &json!({}));
    cluster.rest().await;
    assert!(cluster.is_ready("web-0"));
}

#[tokio::test(start_paused = true)]
async fn a_restart_closes_no_gate_and_deregisters_nobody_and_health_closes_it_when_it_says_so() {
    let mut cluster = cluster().await;
    cluster.pod("web-0", "10.0.0.1", &[WEB]);
    cluster.pod("web-1", "10.0.0.2", &[WEB]);
    tokio::time::sleep(CHECKED).await;
    cluster.pod("web-2", "10.0.0.3", &[WEB]);
    tokio::time::sleep(MOMENT).await;
    assert!(cluster.is_ready("web-0") && cluster.is_ready("web-1") && !cluster.is_ready("web-2"));
    let writes = (cluster.api(|api| api.pods.writes), cluster.cloud.gate().writes());
    // Slices are known before pods, which is no reason to take away one that waits.
    cluster.start();
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!((cluster.api(|api| api.pods.writes), cluster.cloud.gate().writes()), writes);
    assert_eq!(cluster.targets().len(), 3);
    tokio::time::sleep(CHECKED).await;
    assert!(cluster.is_ready("web-2"));

    cluster.kill();
    cluster.cloud.with(|state| state.sick.insert("10.0.0.2".to_owned()));
    tokio::time::sleep(CHECKED).await;
    assert!(cluster.is_ready("web-1"));
    cluster.start();
    cluster.rest().await;
    assert!(cluster.gate("web-1").starts_with("False TargetsUnhealthy") && cluster.is_ready("web-0"));
    assert_eq!(cluster.targets().len(), 3, "it stays a target, or it could never be found healthy again");
    cluster.cloud.with(|state| state.sick.clear());
    cluster.rest().await;
    assert!(cluster.is_ready("web-1"));
}

#[tokio::test(start_paused = true)]
async fn an_open_gate_stays_open_while_nobody_knows_better() {
    let mut cluster = cluster().await;
    cluster.pod("web-0", "10.0.0.1", &[WEB]);
    tokio::time::sleep(CHECKED).await;
    assert!(cluster.is_ready("web-0"));
    cluster.cloud.with(|state| state.answers = Some("AccessDenied"));
    cluster.pod("web-1", "10.0.0.2", &[WEB]);
    tokio::time::sleep(CHECKED).await;
    assert!(cluster.is_ready("web-0"));
    let said = cluster.gate("web-1");
    assert!(said.starts_with("False PermissionDenied") && said.contains("RegisterTargets"), "{said}");
    cluster.cloud.with(|state| state.answers = None);
    tokio::time::sleep(Duration::from_mins(2)).await;
    assert!(cluster.is_ready("web-1"));
    cluster.apply("web", &[IP, ("berth.dev/disown", "true")], &json!({}));
    cluster.rest().await;
    assert!(cluster.is_ready("web-0") && cluster.is_ready("web-1"));
    cluster.kill();
}

#[tokio::test(start_paused = true)]
async fn a_throttled_cloud_is_waited_for_and_the_pod_says_so() {
    let cluster = cluster().await;
    cluster.cloud.with(|state| state.answers = Some("Throttling"));
    cluster.pod("web-0", "10.0.0.1", &[WEB]);
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert!(cluster.gate("web-0").starts_with("False ProviderThrottled"), "{}", cluster.gate("web-0"));
    assert_eq!(cluster.api(|api| api.pods.writes), 1, "once, however often it is tried");
    cluster.cloud.with(|state| state.answers = None);
    cluster.rest().await;
    assert!(cluster.is_ready("web-0"));
}

#[tokio::test(start_paused = true)]
async fn a_refused_patch_is_tried_again_by_its_class_and_holds_up_no_target() {
    for (code, tries) in [(403, 1..=3), (500, 3..=20)] {
        let cluster = cluster().await;
        cluster.api(|api| api.pods.refuses = Some(code));
        cluster.pod("web-0", "10.0.0.1", &[WEB]);
        tokio::time::sleep(Duration::from_mins(1)).await;
        assert_eq!(cluster.targets(), ["10.0.0.1:8080"]);
        let writes = cluster.api(|api| api.pods.writes);
        assert!(tries.contains(&writes), "{code}: {writes}");
        cluster.api(|api| api.pods.refuses = None);
        tokio::time::sleep(Duration::from_mins(2)).await;
        assert!(cluster.is_ready("web-0"), "{code}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_goes_while_it_waits_is_deregistered_and_one_of_its_name_waits_anew() {
    let cluster = cluster().await;
    cluster.pod("web-0", "10.0.0.1", &[WEB]);
    tokio::time::sleep(MOMENT).await;
    assert_eq!(cluster.targets(), ["10.0.0.1:8080"]);
    // Gone before what is thought of it is written, for the watch takes its time.
    cluster.api(|api| {
        api.pods.end("web-0");
        api.pods.start("web-0", "web", "10.0.0.2", &[WEB]);
        api.pods.says("web-0", "ContainersReady", true);
    });
    tokio::time::sleep(CHECKED).await;
    assert_eq!(cluster.targets(), ["10.0.0.2:8080"]);
    assert!(cluster.is_ready("web-0"));
    cluster.api(|api| api.pods.end("web-0"));
    let writes = cluster.api(|api| api.pods.writes);
    cluster.rest().await;
    assert_eq!((cluster.targets(), cluster.api(|api| api.pods.writes)), (vec![], writes));
}

#[tokio::test(start_paused = true)]
async fn pods_without_a_gate_for_this_service_get_traffic_when_they_are_ready_and_are_never_written() {
    let cluster = cluster().await;
    cluster.pod("plain", "10.0.0.1", &[]);
    cluster.pod("others", "10.0.0.2", &[OTHER]);
    cluster.pod("another", "10.0.0.3", &["target-health.berth.dev/absent"]);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(cluster.targets(), ["10.0.0.1:8080"]);
    assert_eq!(
        cluster.api(|api| api.pods.writes),
        1,
        "only the one that waits for a Service that is not there is told"
    );
}

#[tokio::test(start_paused = true)]
async fn where_gates_are_not_heeded_nobody_is_written_and_who_waits_gets_no_traffic() {
    let mut cluster = Cluster::new();
    cluster.endpoints("web", &["10.0.0.9"]);
    cluster.served("web", &[IP]).await;
    cluster.pod("web-0", "10.0.0.1", &[WEB]);
    cluster.rest().await;
    assert_eq!((cluster.targets(), cluster.api(|api| api.pods.writes)), (vec!["10.0.0.9:8080".to_owned()], 0));
}
