//! Nothing is made before the finalizer is on, and it goes when nothing is left.

use berth_provider::class::ProviderName;
use berth_provider::conformance::Fault;
use serde_json::json;

use super::process::Cluster;
use crate::lease::Leadership;

const OURS: &str = "berth.dev/load-balancer";
const OTHERS: &str = "example.com/other";
const CREATE: &str = "elasticloadbalancing:CreateLoadBalancer";
const NONE: [&str; 0] = [];
/// A load balancer, its listener, target group and security group.
const OWN: usize = 4;
/// And what all have in common: the group by which load balancers are let in, and the rule that lets it in.
const SERVED: usize = OWN + 2;

#[tokio::test(start_paused = true)]
async fn the_finalizer_is_on_before_the_first_call_that_makes_something_and_off_after_the_last() {
    let mut cluster = Cluster::new();
    cluster.served("web", &[]).await;
    assert_eq!(cluster.api(|api| api.finalizers("web")), Some(vec![OTHERS.to_owned(), OURS.to_owned()]));
    assert_eq!(cluster.api(|api| api.log[0].clone()), "finalizer on shop/web");
    assert_eq!(cluster.ours().len(), SERVED);
    for kind in ["Allocated", "Active", "TargetsHealthy"] {
        assert!(cluster.api(|api| api.says("web", kind)).starts_with("True"), "{kind}");
    }
    assert!(cluster.api(|api| api.says("web", "Provisioning")).starts_with("False Active"));
    cluster.api(|api| api.delete("web"));
    cluster.rest().await;
    assert_eq!(cluster.ours(), NONE);
    let log = cluster.api(|api| api.log.clone());
    assert_eq!(log[log.len() - 2..], ["finalizer off shop/web", "gone shop/web"]);
    assert_eq!(log.iter().filter(|line| line.starts_with("finalizer")).count(), 2, "each is written once: {log:#?}");
}

#[tokio::test(start_paused = true)]
async fn while_the_finalizer_is_refused_nothing_is_made_and_the_service_says_so() {
    let mut cluster = Cluster::new();
    cluster.api(|api| api.refuses = Some(403));
    cluster.apply("web", &[], &json!({}));
    cluster.start();
    cluster.rest().await;
    assert_eq!((cluster.ours(), cluster.cloud.gate().writes()), (vec![], 0));
    let said = cluster.api(|api| api.says("web", "Allocated"));
    assert!(said.starts_with("False PermissionDenied") && said.contains("before it has Berth's finalizer"), "{said}");
    assert_eq!(cluster.api(|api| api.events.clone()), ["PermissionDenied"]);
    cluster.api(|api| api.refuses = None);
    cluster.rest().await;
    assert!(cluster.api(|api| api.says("web", "Allocated")).starts_with("True"));
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_refused_gets_no_finalizer_and_goes_at_once() {
    let mut cluster = Cluster::new();
    cluster.apply("web", &[("scheme", "slip")], &json!({}));
    cluster.start();
    cluster.rest().await;
    assert_eq!(cluster.api(|api| api.finalizers("web")), Some(vec![OTHERS.to_owned()]));
    assert!(cluster.api(|api| api.says("web", "Allocated")).starts_with("False InvalidRequest"));
    assert_eq!(cluster.api(|api| api.events.clone()), ["InvalidRequest"], "said once");
    cluster.apply("web", &[], &json!({}));
    cluster.rest().await;
    assert!(cluster.api(|api| api.says("web", "Allocated")).starts_with("True"));
}

#[tokio::test(start_paused = true)]
async fn somebody_elses_change_in_between_is_met_and_not_overwritten() {
    let mut cluster = Cluster::new();
    cluster.api(|api| api.overtaken = 1);
    cluster.served("web", &[]).await;
    assert_eq!(cluster.api(|api| api.finalizers("web")), Some(vec![OTHERS.to_owned(), OURS.to_owned()]));
    cluster.api(|api| api.overtaken = 1);
    cluster.api(|api| api.delete("web"));
    cluster.rest().await;
    assert_eq!((cluster.uid("web"), cluster.ours()), (None, vec![]));
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_deleted_while_no_controller_runs_waits_for_one_and_leaves_nothing() {
    let mut cluster = Cluster::new();
    cluster.served("web", &[]).await;
    cluster.kill();
    cluster.api(|api| api.delete("web"));
    cluster.rest().await;
    assert!(cluster.uid("web").is_some() && cluster.ours().len() == SERVED);
    cluster.start();
    cluster.rest().await;
    assert_eq!((cluster.uid("web"), cluster.ours()), (None, vec![]));
}

#[tokio::test(start_paused = true)]
async fn a_service_that_loses_its_type_or_class_loses_what_it_had_also_while_no_controller_runs() {
    for (what, spec) in [
        ("type", json!({"type": "ClusterIP", "loadBalancerClass": null})),
        ("another's class", json!({"loadBalancerClass": "example.com/other"})),
        ("the pools' class", json!({"loadBalancerClass": "berth.dev/pool"})),
    ] {
        for runs in [true, false] {
            let mut cluster = Cluster::new();
            cluster.served("web", &[]).await;
            if !runs {
                cluster.kill();
            }
            cluster.apply("web", &[], &spec);
            if !runs {
                cluster.start();
            }
            cluster.rest().await;
            assert_eq!(cluster.ours(), NONE, "{what}, {runs}");
            assert_eq!(cluster.api(|api| api.finalizers("web")), Some(vec![OTHERS.to_owned()]), "{what}, {runs}");
            // What the pools' provider publishes is its own affair.
            if !what.starts_with("the pools") {
                assert_eq!(cluster.api(|api| api.hostname("web")), None, "{what}, {runs}");
            }
            let says = cluster.api(|api| api.says("web", "Active"));
            assert_eq!(says, "", "{what}, {runs}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_disowned_may_go_without_a_finalizer_and_leaves_everything() {
    let mut cluster = Cluster::new();
    cluster.served("web", &[]).await;
    let hostname = cluster.api(|api| api.hostname("web"));
    cluster.apply("web", &[("berth.dev/disown", "true")], &json!({}));
    cluster.rest().await;
    assert_eq!(cluster.api(|api| api.finalizers("web")), Some(vec![OTHERS.to_owned()]));
    assert_eq!((cluster.api(|api| api.hostname("web")), cluster.ours().len()), (hostname.clone(), SERVED));
    // It is taken back, and served as it was.
    cluster.apply("web", &[], &json!({}));
    cluster.rest().await;
    assert_eq!(cluster.api(|api| api.finalizers("web")), Some(vec![OTHERS.to_owned(), OURS.to_owned()]));
    assert_eq!((cluster.api(|api| api.hostname("web")), cluster.ours().len()), (hostname, SERVED));
    // Disowned and deleted, both while a controller runs.
    let foreign = cluster.cloud.dump(&cluster.settings, false).len();
    cluster.apply("web", &[("berth.dev/disown", "true")], &json!({}));
    cluster.rest().await;
    cluster.api(|api| api.delete("web"));
    cluster.rest().await;
    // What lets it in stays with it.
    assert_eq!((cluster.uid("web"), cluster.ours().len()), (None, SERVED - OWN));
    assert_eq!(cluster.cloud.dump(&cluster.settings, false).len(), foreign + OWN, "nobody's now, and all there");
}

#[tokio::test(start_paused = true)]
async fn a_load_balancer_that_may_not_be_deleted_keeps_its_service_which_says_why() {
    let protected = ("attributes", "deletion_protection.enabled=true");
    let mut cluster = Cluster::new();
    cluster.served("web", &[protected]).await;
    cluster.api(|api| api.delete("web"));
    cluster.rest().await;
    assert!(cluster.api(|api| api.says("web", "Allocated")).starts_with("False DeletionProtected"));
    assert!(cluster.api(|api| api.events.contains(&"DeletionProtected".to_owned())));
    assert_eq!(cluster.ours().len(), SERVED);
    cluster.apply("web", &[("attributes", "deletion_protection.enabled=false")], &json!({}));
    cluster.rest().await;
    assert_eq!((cluster.uid("web"), cluster.ours()), (None, vec![]));
}

#[tokio::test(start_paused = true)]
async fn a_missing_right_keeps_a_service_that_is_deleted_and_names_the_action() {
    let mut cluster = Cluster::new();
    cluster.served("web", &[]).await;
    cluster.cloud.with(|state| state.answers = Some("AccessDenied"));
    cluster.api(|api| api.delete("web"));
    cluster.rest().await;
    let said = cluster.api(|api| api.says("web", "Allocated"));
    assert!(said.starts_with("False PermissionDenied"), "{said}");
    assert!(said.contains("allow elasticloadbalancing:DeleteLoadBalancer for Berth's role"), "{said}");
    cluster.cloud.with(|state| state.answers = None);
    cluster.rest().await;
    assert_eq!((cluster.uid("web"), cluster.ours()), (None, vec![]));
}

#[tokio::test(start_paused = true)]
async fn a_cloud_that_asks_for_fewer_calls_or_does_not_answer_is_waited_for() {
    for answer in ["Throttling", ""] {
        let mut cluster = Cluster::new();
        cluster.cloud.with(|state| state.answers = Some(answer));
        cluster.apply("web", &[], &json!({}));
        cluster.start();
        cluster.rest().await;
        assert_eq!((cluster.ours(), cluster.calls(CREATE)), (vec![], 0));
        // About once a minute at the most.
        assert!(cluster.cloud.gate().writes() < 60, "{}", cluster.cloud.gate().writes());
        cluster.cloud.with(|state| state.answers = None);
        cluster.rest().await;
        assert!(cluster.api(|api| api.says("web", "Allocated")).starts_with("True"), "{answer}");
        cluster.cloud.with(|state| state.answers = Some(answer));
        cluster.api(|api| api.delete("web"));
        cluster.rest().await;
        assert_eq!((cluster.uid("web").is_some(), cluster.ours().len()), (true, SERVED), "{answer}");
        cluster.cloud.with(|state| state.answers = None);
        cluster.rest().await;
        assert_eq!((cluster.uid("web"), cluster.ours()), (None, vec![]), "{answer}");
    }
}

/// The ends of lives, and whether the Service is there then.
const ENDS: [(&str, bool); 3] = [("is made", true), ("is deleted", false), ("loses its type", true)];

#[tokio::test(start_paused = true)]
async fn killed_after_any_call_the_next_process_ends_up_at_the_same() {
    for (what, stays) in ENDS {
        for lose in [false, true] {
            for writes in 0..9 {
                let mut cluster = Cluster::new();
                let begin = |cluster: &Cluster| match what {
                    "is made" => cluster.apply("web", &[], &json!({})),
                    "is deleted" => cluster.api(|api| api.delete("web")),
                    _ => cluster.apply("web", &[], &json!({"type": "ClusterIP", "loadBalancerClass": null})),
                };
                if what != "is made" {
                    cluster.served("web", &[]).await;
                }
                let fault = if lose { Fault::LoseAnswerAfter { writes } } else { Fault::DieAfter { writes } };
                cluster.cloud.gate().set(fault);
                begin(&cluster);
                if what == "is made" {
                    cluster.start();
                }
                cluster.rest().await;
                cluster.kill();
                cluster.cloud.gate().set(Fault::None);
                cluster.start();
                cluster.rest().await;
                let expected = if what == "is made" { SERVED } else { 0 };
                assert_eq!(cluster.ours().len(), expected, "it {what}, {writes} writes, {lose}: {:#?}", cluster.ours());
                assert_eq!(cluster.uid("web").is_some(), stays, "it {what}, {writes} writes, {lose}");
                let marked = cluster.api(|api| api.finalizers("web")).is_some_and(|all| all.contains(&OURS.to_owned()));
                assert_eq!(marked, what == "is made", "it {what}, {writes} writes, {lose}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn killed_before_any_answer_of_the_api_server_it_is_the_same() {
    for refuses in [403, 409, 500] {
        let mut cluster = Cluster::new();
        cluster.served("web", &[]).await;
        cluster.api(|api| api.refuses = Some(refuses));
        cluster.api(|api| api.delete("web"));
        cluster.rest().await;
        assert_eq!((cluster.uid("web").is_some(), cluster.ours()), (true, vec![]), "{refuses}");
        cluster.kill();
        cluster.api(|api| api.refuses = None);
        cluster.start();
        cluster.rest().await;
        assert_eq!(cluster.uid("web"), None, "{refuses}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_joins_a_group_or_leaves_it_leaves_nothing_behind_also_killed_in_between() {
    let edge = ("berth.dev/load-balancer-group", "edge");
    for (before, after) in [(&[][..], &[edge][..]), (&[edge], &[])] {
        for writes in 0..14 {
            let mut cluster = Cluster::new();
            cluster.served("web", before).await;
            cluster.cloud.gate().set(Fault::DieAfter { writes });
            cluster.apply("web", after, &json!({}));
            cluster.rest().await;
            cluster.kill();
            cluster.cloud.gate().set(Fault::None);
            cluster.start();
            cluster.rest().await;
            assert_eq!(cluster.ours().len(), SERVED, "{before:?}, {writes} writes: {:#?}", cluster.ours());
            cluster.api(|api| api.delete("web"));
            cluster.rest().await;
            assert_eq!((cluster.uid("web"), cluster.ours()), (None, vec![]), "{before:?}, {writes} writes");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_standby_writes_nothing_and_whoever_leads_then_goes_on() {
    let mut cluster = Cluster::new();
    cluster.apply("web", &[], &json!({}));
    cluster.start_with(&[ProviderName::Aws], Leadership::default());
    cluster.rest().await;
    assert_eq!(cluster.api(|api| api.log.clone()), NONE);
    cluster.lead(Leadership::alone());
    cluster.rest().await;
    assert_eq!(cluster.ours().len(), SERVED);
    cluster.lead(Leadership::default());
    cluster.api(|api| api.delete("web"));
    cluster.rest().await;
    assert_eq!((cluster.uid("web").is_some(), cluster.ours().len()), (true, SERVED));
    cluster.lead(Leadership::alone());
    cluster.rest().await;
    assert_eq!((cluster.uid("web"), cluster.ours()), (None, vec![]));
}

#[tokio::test(start_paused = true)]
async fn where_the_provider_is_switched_off_the_finalizer_stays_and_so_nothing_leaks() {
    let mut cluster = Cluster::new();
    cluster.served("web", &[]).await;
    cluster.start_with(&[ProviderName::Pool], Leadership::alone());
    cluster.api(|api| api.delete("web"));
    cluster.rest().await;
    assert_eq!((cluster.uid("web").is_some(), cluster.ours().len()), (true, SERVED));
    cluster.start();
    cluster.rest().await;
    assert_eq!((cluster.uid("web"), cluster.ours()), (None, vec![]));
}

#[tokio::test(start_paused = true)]
async fn one_that_is_made_again_under_its_name_gets_a_load_balancer_of_its_own() {
    let mut cluster = Cluster::new();
    cluster.served("web", &[]).await;
    let (first, uid) = (cluster.api(|api| api.hostname("web")), cluster.uid("web"));
    cluster.api(|api| api.delete("web"));
    cluster.rest().await;
    cluster.apply("web", &[], &json!({}));
    cluster.rest().await;
    assert_ne!(cluster.uid("web"), uid);
    assert_eq!(cluster.ours().len(), SERVED);
    let second = cluster.api(|api| api.hostname("web"));
    assert!(second.is_some() && second != first);
}

#[tokio::test(start_paused = true)]
async fn a_namespace_that_ends_with_many_services_ends() {
    let mut cluster = Cluster::new();
    for number in 0..20 {
        cluster.apply(&format!("s{number}"), &[], &json!({}));
    }
    cluster.start();
    cluster.rest().await;
    assert_eq!(cluster.ours().len(), 20 * OWN + 2);
    for number in 0..20 {
        cluster.api(|api| api.delete(&format!("s{number}")));
    }
    cluster.rest().await;
    assert_eq!((cluster.api(|api| api.keys().len()), cluster.ours()), (0, vec![]));
}

#[tokio::test(start_paused = true)]
async fn a_name_is_published_before_the_load_balancer_works() {
    let mut cluster = Cluster::new();
    cluster.apply("web", &[], &json!({}));
    cluster.start();
    tokio::time::sleep(std::time::Duration::from_secs(5)).await;
    let said = cluster.api(|api| ["Allocated", "Provisioning", "Active"].map(|kind| api.says("web", kind)));
    assert!(said[0].starts_with("False Provisioning") && said[1].starts_with("True Provisioning"), "{said:#?}");
    assert!(said[2].starts_with("False Provisioning"), "{said:#?}");
    assert!(cluster.api(|api| api.hostname("web")).is_some_and(|name| name.starts_with("berth-shop-web-")));
    cluster.rest().await;
    assert_eq!(cluster.api(|api| api.events.clone()), ["Allocated", "TargetsHealthy"]);
    let writes = cluster.api(|api| api.log.len());
    cluster.start();
    cluster.rest().await;
    assert_eq!(
        cluster.api(|api| api.log.len()),
        writes,
        "a restart writes nothing: {:#?}",
        cluster.api(|api| api.log.clone())
    );
}
