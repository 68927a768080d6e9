//! Whatever Azure answers: it ends in the same place, is said once, and is not asked for again and again.

use std::time::Duration;

use berth_arm_fake::{Action, Fault};
use serde_json::json;

use super::process::Cluster;

const PUBLIC: (&str, &str) = ("azure-load-balancer-internal", "false");
const RANGES: (&str, &str) = ("azure-allowed-ip-ranges", "10.0.0.0/8");

fn answer(status: u16, code: &str) -> Action {
    Action::Answer { status, code: code.to_owned(), message: "no".to_owned(), retry_after: None }
}

/// So many of the next calls go wrong.
fn times(times: u64, method: &str, kind: &str, action: Action) -> Fault {
    Fault { times, ..Fault::next(method, kind, action) }
}

#[tokio::test(start_paused = true)]
async fn whatever_call_goes_wrong_for_a_while_it_ends_in_the_same_place() {
    let broken = [
        answer(412, "PreconditionFailed"),
        answer(409, "AnotherOperationInProgress"),
        answer(429, "TooManyRequests"),
        answer(500, "InternalServerError"),
        answer(503, "ServerTimeout"),
        answer(403, "AuthorizationFailed"),
        Action::Break,
        Action::LoseAnswer,
        Action::FailLater { code: "InternalServerError".to_owned(), message: String::new() },
        Action::FailLater { code: "OperationCanceled".to_owned(), message: String::new() },
    ];
    let mut expected = None;
    for (method, kind) in [
        ("GET", "loadBalancers"),
        ("PUT", "loadBalancers"),
        ("PUT", "networkSecurityGroups"),
        ("PUT", "publicIPAddresses"),
        ("DELETE", "publicIPAddresses"),
        ("DELETE", "loadBalancers"),
        ("PUT", "backendAddressPools"),
        ("GET", "operations"),
    ] {
        for action in &broken {
            let mut cluster = Cluster::new();
            let told = format!("{method} {kind} {action:?}");
            cluster.fake.fault(times(3, method, kind, action.clone()));
            cluster.apply("web", &[PUBLIC], &json!({}));
            cluster.apply("db", &[RANGES], &json!({}));
            cluster.start();
            cluster.rest().await;
            let found = cluster.ours();
            assert_eq!(&found, expected.get_or_insert(found.clone()), "{told}");
            let nodes = ["10.0.200.1", "10.0.200.2", "10.0.200.3"];
            assert_eq!([cluster.pool("prod"), cluster.pool("prod-internal")], [nodes, nodes], "{told}");
            cluster.fake.heal();
            cluster.fake.fault(times(3, method, kind, action.clone()));
            for name in ["web", "db"] {
                cluster.api(|api| api.delete(name));
            }
            cluster.rest().await;
            assert_eq!((cluster.ours(), cluster.api(|api| api.keys().len())), (vec![], 0), "{told}");
            cluster.harms_nobody(&told);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_asks_for_something_wrong_is_told_once_and_costs_no_call() {
    let mut cluster = Cluster::new();
    cluster.apply("web", &[("azure-load-balancer-tcp-idle-timeout", "1000")], &json!({}));
    cluster.start();
    cluster.rest().await;
    let said = cluster.api(|api| api.says("web", "Allocated"));
    assert!(
        said.starts_with("False InvalidRequest") && said.contains("azure-load-balancer-tcp-idle-timeout"),
        "{said}"
    );
    assert_eq!(cluster.api(|api| api.events.clone()), ["InvalidRequest"]);
    // But for the search with which each leader begins.
    let calls = cluster.all_calls();
    tokio::time::sleep(Duration::from_hours(5)).await;
    assert_eq!(cluster.all_calls(), calls, "{:?}", cluster.fake.counts());
    assert_eq!(cluster.api(|api| api.events.len()), 1);
    cluster.apply("web", &[], &json!({}));
    cluster.rest().await;
    assert!(cluster.api(|api| api.says("web", "Allocated")).starts_with("True"));
}

#[tokio::test(start_paused = true)]
async fn what_azure_refuses_is_told_once_with_its_code_and_harms_no_other() {
    let mut cluster = Cluster::new();
    cluster.served("web", &[]).await;
    // Something else has the address: Azure says so of the part that asks for it.
    let uid = "a0000000";
    cluster.apply("bad", &[("azure-load-balancer-ipv4", "10.0.0.9")], &json!({}));
    let part = cluster.uid("bad").map(|uid| format!("a{}", uid.replace('-', ""))).unwrap_or_default();
    assert!(part.starts_with("a0000") && part.len() > uid.len());
    let message = format!("Private static IP address 10.0.0.9 of frontend {} is in use.", &part[..32]);
    let refused = Action::Answer { status: 400, code: "PrivateIPAddressInUse".to_owned(), message, retry_after: None };
    cluster.fake.fault(Fault::next("PUT", "loadBalancers", refused));
    cluster.apply(
        "good",
        &[],
        &json!({"ports": [{"name": "http", "port": 80, "nodePort": 30_081, "protocol": "TCP"}]}),
    );
    cluster.rest().await;
    let said = cluster.api(|api| api.says("bad", "Allocated"));
    assert!(said.starts_with("False InvalidRequest") && said.contains("PrivateIPAddressInUse"), "{said}");
    let warned = |cluster: &Cluster| cluster.api(|api| api.events.iter().filter(|e| *e == "InvalidRequest").count());
    assert_eq!(warned(&cluster), 1);
    for name in ["web", "good"] {
        assert!(cluster.api(|api| api.says(name, "Allocated")).starts_with("True"), "{name}");
    }
    assert_eq!(cluster.frontends().len(), 2);
    // It is tried once an hour, because it may have been mended outside of the cluster; then it is.
    let writes = cluster.calls("PUT loadBalancers");
    tokio::time::sleep(Duration::from_mins(30)).await;
    assert_eq!((cluster.calls("PUT loadBalancers"), warned(&cluster)), (writes, 1));
    tokio::time::sleep(Duration::from_hours(2)).await;
    assert!(cluster.api(|api| api.says("bad", "Allocated")).starts_with("True"));
    assert!(cluster.calls("PUT loadBalancers") - writes <= 2);
}

#[tokio::test(start_paused = true)]
async fn a_missing_right_is_named_and_asked_for_once_a_minute() {
    let mut cluster = Cluster::new();
    cluster.fake.fault(times(u64::MAX, "PUT", "loadBalancers", answer(403, "AuthorizationFailed")));
    cluster.apply("web", &[], &json!({}));
    cluster.start();
    cluster.rest().await;
    let said = cluster.api(|api| api.says("web", "Allocated"));
    assert!(said.starts_with("False PermissionDenied"), "{said}");
    assert!(said.contains("AuthorizationFailed") && said.contains("Microsoft.Network/loadBalancers/write"), "{said}");
    assert_eq!(cluster.api(|api| api.events.clone()), ["PermissionDenied"]);
    assert!((7..=11).contains(&cluster.calls("PUT loadBalancers")), "{:?}", cluster.fake.counts());
    cluster.fake.heal();
    cluster.rest().await;
    assert!(cluster.api(|api| api.says("web", "Allocated")).starts_with("True"));
}

#[tokio::test(start_paused = true)]
async fn a_resource_group_that_is_not_there_is_told_and_does_not_spin() {
    let mut cluster = Cluster::new();
    cluster.fake.only_groups(&["other"]);
    cluster.apply("web", &[], &json!({}));
    cluster.start();
    cluster.rest().await;
    let said = cluster.api(|api| api.says("web", "Allocated"));
    assert!(said.starts_with("False InvalidRequest") && said.contains("ResourceGroupNotFound"), "{said}");
    let calls = cluster.all_calls();
    tokio::time::sleep(Duration::from_mins(50)).await;
    assert!(cluster.all_calls() - calls < 20, "{:?}", cluster.fake.counts());
    // Once of its frontend, and once of its nodes.
    assert_eq!(cluster.api(|api| api.events.clone()), ["InvalidRequest"; 2]);
}

#[tokio::test(start_paused = true)]
async fn who_is_asked_for_fewer_calls_makes_none_until_then() {
    let mut cluster = Cluster::new();
    let throttled = Action::Answer {
        status: 429,
        code: "TooManyRequests".to_owned(),
        message: String::new(),
        retry_after: Some(240),
    };
    cluster.fake.fault(times(1, "PUT", "loadBalancers", throttled));
    cluster.apply("web", &[], &json!({}));
    cluster.start();
    tokio::time::sleep(Duration::from_secs(200)).await;
    assert_eq!(cluster.calls("PUT loadBalancers"), 1);
    let said = cluster.api(|api| api.says("web", "Allocated"));
    assert!(said.starts_with("False ProviderThrottled"), "{said}");
    cluster.rest().await;
    assert!(cluster.api(|api| api.says("web", "Allocated")).starts_with("True"));
    assert_eq!(cluster.api(|api| api.events.clone()), ["Allocated"], "nobody has to hear of it");
}

#[tokio::test(start_paused = true)]
async fn an_operation_that_is_stuck_is_waited_for_and_the_rest_goes_on_after_it() {
    let mut cluster = Cluster::new();
    cluster.served("web", &[]).await;
    cluster.fake.fault(Fault::next("PUT", "loadBalancers", Action::Stick));
    cluster.apply(
        "late",
        &[],
        &json!({"ports": [{"name": "http", "port": 80, "nodePort": 30_081, "protocol": "TCP"}]}),
    );
    cluster.fake.reset_counts();
    tokio::time::sleep(Duration::from_mins(30)).await;
    let said = cluster.api(|api| api.says("late", "Allocated"));
    assert!(said.starts_with("False Provisioning") || said.starts_with("False Provider"), "{said}");
    // Who is served stays so, and nothing is written into what is under way more than a few times a minute.
    assert!(cluster.api(|api| api.says("web", "Allocated")).starts_with("True"));
    assert!(cluster.calls("PUT loadBalancers") < 150, "{:?}", cluster.fake.counts());
    cluster.fake.heal();
    cluster.rest().await;
    assert!(cluster.api(|api| api.says("late", "Allocated")).starts_with("True"));
    assert_eq!(cluster.frontends().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn somebody_elses_write_in_between_is_met_and_kept() {
    let mut cluster = Cluster::new();
    cluster.served("web", &[PUBLIC]).await;
    for round in 0..5 {
        // As AKS does with its own part of the load balancer.
        let mut theirs = cluster.document("loadBalancers/prod");
        let pools = theirs["properties"]["backendAddressPools"].as_array_mut().unwrap();
        let pool = pools.iter_mut().find(|pool| pool["name"] == "egress").unwrap();
        pool["properties"]["drainPeriodInSeconds"] = (100 + round).into();
        cluster.fake.plant(&format!("{}/loadBalancers/prod", super::process::GROUP), theirs).unwrap();
        cluster.fake.fault(Fault::next("PUT", "loadBalancers", answer(412, "PreconditionFailed")));
        let timeout = format!("{}", 10 + round);
        cluster.apply("web", &[PUBLIC, ("azure-load-balancer-tcp-idle-timeout", &timeout)], &json!({}));
        cluster.rest().await;
        let now = cluster.document("loadBalancers/prod");
        let pools = now["properties"]["backendAddressPools"].as_array().unwrap();
        let pool = pools.iter().find(|pool| pool["name"] == "egress").unwrap();
        assert_eq!(pool["properties"]["drainPeriodInSeconds"], 100 + round);
        assert_eq!(now["properties"]["loadBalancingRules"][0]["properties"]["idleTimeoutInMinutes"], 10 + round);
    }
}
