//! Nothing is made before the finalizer is on, and it goes when nothing is left.

use berth_provider::class::ProviderName;
use berth_provider::conformance::Fault;
use serde_json::json;

use super::process::Cluster;
use crate::lease::Leadership;

const OURS: &str = "berth.dev/load-balancer";
const OTHERS: &str = "example.com/other";
const PUBLIC: (&str, &str) = ("azure-load-balancer-internal", "false");
const NONE: [&str; 0] = [];
/// An internal load balancer with its pool, a frontend, a rule and a probe.
const INTERNAL: usize = 5;
/// In the load balancer that is there: a pool, a frontend, a rule and a probe; a public IP, and a security rule.
const EXTERNAL: usize = 6;

#[tokio::test(start_paused = true)]
async fn the_finalizer_is_on_before_the_first_write_and_off_after_the_last() {
    for (annotations, parts) in [(&[][..], INTERNAL), (&[PUBLIC], EXTERNAL)] {
        let mut cluster = Cluster::new();
        cluster.served("web", annotations).await;
        assert_eq!(cluster.api(|api| api.finalizers("web")), Some(vec![OTHERS.to_owned(), OURS.to_owned()]));
        assert_eq!(cluster.api(|api| api.log[0].clone()), "finalizer on shop/web");
        assert_eq!(cluster.ours().len(), parts, "{:#?}", cluster.ours());
        cluster.api(|api| api.delete("web"));
        cluster.rest().await;
        assert_eq!(cluster.ours(), NONE);
        let log = cluster.api(|api| api.log.clone());
        assert_eq!(log[log.len() - 2..], ["finalizer off shop/web", "gone shop/web"]);
        assert_eq!(
            log.iter().filter(|line| line.starts_with("finalizer")).count(),
            2,
            "each is written once: {log:#?}"
        );
        cluster.harms_nobody("deleted");
    }
}

#[tokio::test(start_paused = true)]
async fn while_the_finalizer_is_refused_nothing_is_made_and_the_service_says_so() {
    let mut cluster = Cluster::new();
    cluster.api(|api| api.refuses = Some(403));
    cluster.apply("web", &[], &json!({}));
    cluster.start();
    cluster.rest().await;
    assert_eq!((cluster.ours(), cluster.gate.writes()), (vec![], 0));
    let said = cluster.api(|api| api.says("web", "Allocated"));
    assert!(said.starts_with("False PermissionDenied") && said.contains("before it has Berth's finalizer"), "{said}");
    assert_eq!(cluster.api(|api| api.events.clone()), ["PermissionDenied"]);
    cluster.api(|api| api.refuses = None);
    cluster.rest().await;
    assert!(cluster.api(|api| api.says("web", "Allocated")).starts_with("True"));
}

#[tokio::test(start_paused = true)]
async fn what_is_there_is_found_again_by_the_next_process_which_writes_nothing() {
    let mut cluster = Cluster::new();
    cluster.apply("shop", &[PUBLIC], &json!({}));
    cluster.served("web", &[]).await;
    let (before, log) = (cluster.fake.resources(), cluster.api(|api| api.log.clone()));
    cluster.fake.reset_counts();
    for _ in 0..3 {
        cluster.start();
        cluster.rest().await;
    }
    assert_eq!(cluster.fake.resources(), before);
    assert!(cluster.fake.counts().keys().all(|what| what.starts_with("GET")), "{:?}", cluster.fake.counts());
    assert_eq!(cluster.api(|api| api.log.clone()), log);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_deleted_while_no_controller_runs_waits_for_one_and_leaves_nothing() {
    let mut cluster = Cluster::new();
    cluster.served("web", &[PUBLIC]).await;
    cluster.kill();
    cluster.api(|api| api.delete("web"));
    cluster.rest().await;
    assert!(cluster.uid("web").is_some() && cluster.ours().len() == EXTERNAL);
    cluster.start();
    cluster.rest().await;
    assert_eq!((cluster.uid("web"), cluster.ours()), (None, vec![]));
    cluster.harms_nobody("deleted");
}

#[tokio::test(start_paused = true)]
async fn a_service_that_loses_its_type_or_class_loses_what_it_had_also_while_no_controller_runs() {
    for (what, spec) in [
        ("type", json!({"type": "ClusterIP", "loadBalancerClass": null})),
        ("another's class", json!({"loadBalancerClass": "example.com/other"})),
        ("no class", json!({"loadBalancerClass": null})),
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
                assert_eq!(cluster.api(|api| api.addresses("web")), NONE, "{what}, {runs}");
            }
            assert_eq!(cluster.api(|api| api.says("web", "Active")), "", "{what}, {runs}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_disowned_may_go_without_a_finalizer_and_leaves_everything() {
    let mut cluster = Cluster::new();
    cluster.served("web", &[]).await;
    let addresses = cluster.api(|api| api.addresses("web"));
    cluster.apply("web", &[("berth.dev/disown", "true")], &json!({}));
    cluster.rest().await;
    assert_eq!(cluster.api(|api| api.finalizers("web")), Some(vec![OTHERS.to_owned()]));
    assert_eq!((cluster.api(|api| api.addresses("web")), cluster.ours().len()), (addresses.clone(), INTERNAL));
    // It is taken back, and served as it was.
    cluster.apply("web", &[], &json!({}));
    cluster.rest().await;
    assert_eq!(cluster.api(|api| api.finalizers("web")), Some(vec![OTHERS.to_owned(), OURS.to_owned()]));
    assert_eq!((cluster.api(|api| api.addresses("web")), cluster.ours().len()), (addresses, INTERNAL));
    cluster.apply("web", &[("berth.dev/disown", "true")], &json!({}));
    cluster.rest().await;
    cluster.api(|api| api.delete("web"));
    cluster.rest().await;
    assert_eq!((cluster.uid("web"), cluster.ours().len()), (None, INTERNAL));
}

/// The ends of lives, and whether the Service is there then.
const ENDS: [(&str, bool); 4] =
    [("is made", true), ("becomes public", true), ("is deleted", false), ("loses its type", true)];

#[tokio::test(start_paused = true)]
async fn killed_between_any_two_calls_the_next_process_ends_up_at_the_same() {
    for (what, stays) in ENDS {
        for lose in [false, true] {
            for writes in 0..8 {
                let mut cluster = Cluster::new();
                if what != "is made" {
                    let annotations = if what == "becomes public" { &[][..] } else { &[PUBLIC] };
                    cluster.served("web", annotations).await;
                }
                let fault = if lose { Fault::LoseAnswerAfter { writes } } else { Fault::DieAfter { writes } };
                cluster.gate.set(fault);
                match what {
                    "is made" | "becomes public" => cluster.apply("web", &[PUBLIC], &json!({})),
                    "is deleted" => cluster.api(|api| api.delete("web")),
                    _ => cluster.apply("web", &[], &json!({"type": "ClusterIP", "loadBalancerClass": null})),
                }
                if what == "is made" {
                    cluster.start();
                }
                cluster.rest().await;
                cluster.kill();
                cluster.gate.set(Fault::None);
                cluster.start();
                cluster.rest().await;
                let told = format!("it {what}, {writes} writes, {lose}");
                let is_served = matches!(what, "is made" | "becomes public");
                let expected = if is_served { EXTERNAL } else { 0 };
                assert_eq!(cluster.ours().len(), expected, "{told}: {:#?}", cluster.ours());
                assert_eq!(cluster.uid("web").is_some(), stays, "{told}");
                let marked = cluster.api(|api| api.finalizers("web")).is_some_and(|all| all.contains(&OURS.to_owned()));
                assert_eq!(marked, is_served, "{told}");
                cluster.harms_nobody(&told);
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
async fn a_standby_writes_nothing_and_whoever_leads_then_goes_on() {
    let mut cluster = Cluster::new();
    cluster.apply("web", &[], &json!({}));
    cluster.start_with(&[ProviderName::Azure], Leadership::default());
    cluster.rest().await;
    assert_eq!((cluster.api(|api| api.log.clone()), cluster.all_calls()), (vec![], 0));
    cluster.lead(Leadership::alone());
    cluster.rest().await;
    assert_eq!(cluster.ours().len(), INTERNAL);
    cluster.lead(Leadership::default());
    cluster.api(|api| api.delete("web"));
    cluster.rest().await;
    assert_eq!((cluster.uid("web").is_some(), cluster.ours().len()), (true, INTERNAL));
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
    assert_eq!((cluster.uid("web").is_some(), cluster.ours().len()), (true, INTERNAL));
    cluster.start();
    cluster.rest().await;
    assert_eq!((cluster.uid("web"), cluster.ours()), (None, vec![]));
}

#[tokio::test(start_paused = true)]
async fn one_that_is_made_again_under_its_name_gets_parts_of_its_own() {
    let mut cluster = Cluster::new();
    cluster.served("web", &[]).await;
    let (first, uid) = (cluster.frontends(), cluster.uid("web"));
    cluster.api(|api| api.delete("web"));
    cluster.apply("web", &[], &json!({}));
    cluster.rest().await;
    cluster.apply("web", &[], &json!({}));
    cluster.rest().await;
    assert_ne!(cluster.uid("web"), uid);
    assert_eq!(cluster.ours().len(), INTERNAL);
    assert_ne!(cluster.frontends(), first);
    assert!(cluster.api(|api| api.says("web", "Allocated")).starts_with("True"));
}

#[tokio::test(start_paused = true)]
async fn a_namespace_that_ends_with_many_services_ends_in_few_writes() {
    let mut cluster = Cluster::new();
    for number in 0..20 {
        let annotations = if number % 2 == 0 { &[][..] } else { &[PUBLIC] };
        let node_port = 30_000 + number;
        let ports = json!({"ports": [{"name": "http", "port": 80, "nodePort": node_port, "protocol": "TCP"}]});
        cluster.apply(&format!("s{number}"), annotations, &ports);
    }
    cluster.start();
    cluster.rest().await;
    assert_eq!(cluster.frontends().len(), 20);
    let puts = |cluster: &Cluster| (cluster.calls("PUT loadBalancers"), cluster.calls("PUT networkSecurityGroups"));
    assert!(puts(&cluster).0 <= 5 && puts(&cluster).1 <= 4, "{:?}", puts(&cluster));
    cluster.fake.reset_counts();
    for number in 0..20 {
        cluster.api(|api| api.delete(&format!("s{number}")));
    }
    cluster.rest().await;
    assert_eq!((cluster.api(|api| api.keys().len()), cluster.ours()), (0, vec![]));
    assert!(puts(&cluster).0 <= 5 && puts(&cluster).1 <= 4, "{:?}", puts(&cluster));
    cluster.harms_nobody("all deleted");
}
