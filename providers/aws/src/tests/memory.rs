//! What is known is not asked for, what may be otherwise is, and a leader that stops in good order spares the next one the looks.

use std::time::Duration;

use berth_api::Reason;
use berth_provider::{Class, Failure, Provider as _, Shard, Targets, Wanted};
use serde_json::json;

use super::scene::{Scene, ports, service, settings};
use super::targets::nodes;
use crate::Aws;
use crate::fake::Fake;

const DELETE_GROUP: &str = "ec2:DeleteSecurityGroup";

/// Calls so far.
fn calls(scene: &Scene) -> u64 {
    scene.fake.with(|state| state.calls.values().sum())
}

async fn served(names: &[&str]) -> Scene {
    let mut scene = Scene::new();
    scene.fake.with(|state| state.instances = (0..10).map(|number| format!("i-{number:04}")).collect());
    for name in names {
        scene.apply(service(name, &[], json!({})));
    }
    scene.rest().await;
    scene
}

/// Sends the traffic of every Service to these nodes, until all targets are known to be healthy.
async fn send(scene: &Scene, provider: &Aws<Fake>) {
    for _ in 0..3 {
        for intent in scene.wanted.values() {
            let of = berth_provider::ServiceTargets { intent: intent.clone(), endpoints: [].into(), gated: [].into() };
            let targets = Targets { nodes: nodes(0..3), services: [(intent.id.clone(), of)].into() };
            provider.sync_targets(&provider.shard(intent), &targets).await.unwrap();
        }
        scene.settle().await;
        scene.settle().await;
    }
}

/// Another process, which is told what this one leaves.
fn next_leader(scene: &Scene, handed_over: Option<&str>) -> Aws<Fake> {
    let next = Aws::new(scene.fake.clone(), scene.settings.clone());
    let all: Vec<_> = scene.wanted.values().collect();
    next.takes_over(&all);
    if let Some(handed_over) = handed_over {
        next.inherits(handed_over);
    }
    next
}

/// What looking at all of this costs the next leader.
async fn looks(scene: &mut Scene, next: Aws<Fake>) -> u64 {
    let before = calls(scene);
    scene.provider = next;
    for intent in scene.wanted.values() {
        let wanted = Wanted { present: [(intent.id.key.clone(), intent.clone())].into(), ..Wanted::default() };
        let shard = scene.provider.shard(intent);
        let observed = scene.provider.observe(&shard, &wanted).await.unwrap();
        let plan = scene.provider.plan(&wanted, &observed);
        assert_eq!(plan.steps, []);
        scene.provider.learned(&shard, &wanted, &observed);
    }
    calls(scene) - before
}

/// What one look at everything that there is costs: load balancers, target groups, their tags, and security groups.
const SWEEP: u64 = 4;
/// What a look at one Service in depth costs.
const DEPTH: u64 = 9;

#[tokio::test(start_paused = true)]
async fn whoever_is_told_what_there_is_looks_at_nothing_that_is_as_it_is_to_be() {
    let mut scene = served(&["a", "b", "c"]).await;
    let provider = Aws::new(scene.fake.clone(), scene.settings.clone());
    let first = std::mem::replace(&mut scene.provider, provider);
    let told = first.hands_over().unwrap();
    let next = next_leader(&scene, Some(&told));
    assert_eq!(looks(&mut scene, next).await, SWEEP);
    assert_eq!(scene.says("a"), scene.wanted.values().next().unwrap().published[0].hostname.clone().unwrap());
    let before = calls(&scene);
    assert_eq!(scene.rest().await, [""; 0]);
    assert_eq!(calls(&scene), before);
    // What was handed over is handed on, and lasts no longer for that.
    let told = scene.provider.hands_over().unwrap();
    let next = next_leader(&scene, Some(&told));
    assert_eq!(looks(&mut scene, next).await, SWEEP);
    scene.an_hour_later().await;
    let before = calls(&scene);
    scene.rest().await;
    assert_eq!(calls(&scene) - before, SWEEP + 3 * DEPTH);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_as_it_was_left_is_looked_at() {
    type Change = fn(&mut Scene);
    let cases: Vec<(&str, Change, u64)> = vec![
        ("nothing", |_| (), SWEEP),
        (
            "a Service asks for something else",
            |scene| scene.apply(service("a", &[("healthcheck-interval", "10")], json!({}))),
            SWEEP + DEPTH,
        ),
        (
            "its security group is gone",
            |scene| scene.fake.with(|state| state.groups.retain(|_, group| !group.name.starts_with("berth-shop-a"))),
            SWEEP + DEPTH - 1,
        ),
        (
            "its load balancer does not work",
            |scene| {
                scene.fake.with(|state| {
                    let of = state.balancers.values_mut().find(|of| of.is.name.starts_with("berth-shop-a"));
                    of.unwrap().is.state = crate::cloud::State::ActiveImpaired;
                });
            },
            SWEEP + DEPTH,
        ),
    ];
    for (what, change, cost) in cases {
        let mut scene = served(&["a", "b"]).await;
        let told = scene.provider.hands_over().unwrap();
        change(&mut scene);
        let next = next_leader(&scene, Some(&told));
        let before = calls(&scene);
        scene.provider = next;
        scene.plan().await;
        assert_eq!(calls(&scene) - before, cost, "{what}");
    }
}

/// One look at a shard, and what is planned for it.
async fn look(scene: &Scene, shard: &Shard, wanted: &Wanted) -> Vec<String> {
    let observed = scene.provider.observe(shard, wanted).await.unwrap();
    scene.provider.learned(shard, wanted, &observed);
    scene.provider.plan(wanted, &observed).steps.iter().map(|planned| planned.step.to_string()).collect()
}

#[tokio::test(start_paused = true)]
async fn whoever_goes_after_a_handover_leaves_nothing_although_all_was_at_rest_for_those_who_stay() {
    const EDGE: (&str, &str) = ("berth.dev/load-balancer-group", "edge");
    // One that moves away is not looked at where it was until people are told of where it is.
    let mut scene = served(&["a"]).await;
    let intent = scene.wanted.values().next().unwrap().clone();
    let shard = scene.provider.shard(&intent);
    assert_eq!(look(&scene, &shard, &Wanted::default()).await, [""; 0]);
    let told = scene.provider.hands_over().unwrap();
    scene.provider = next_leader(&scene, Some(&told));
    let goes = Wanted { leaving: [(intent.id.clone(), intent)].into(), ..Wanted::default() };
    let steps = look(&scene, &shard, &goes).await;
    assert!(steps.iter().any(|step| step.starts_with("delete the load balancer")), "{steps:#?}");
    // One of a group that goes, while the others stay as they are.
    let mut scene = Scene::new();
    scene.apply(service("a", &[EDGE], ports(&["TCP/1000:31000"])));
    scene.apply(service("b", &[EDGE], ports(&["TCP/2000:32000"])));
    scene.rest().await;
    let gone = scene.wanted.values().next().unwrap().clone();
    let shard = scene.provider.shard(&gone);
    scene.wanted.remove(&gone.id.key);
    let stays: Wanted = Wanted { present: scene.wanted.clone(), ..Wanted::default() };
    look(&scene, &shard, &stays).await;
    for handed_over in [true, false] {
        let told = scene.provider.hands_over().filter(|_| handed_over);
        scene.provider = next_leader(&scene, told.as_deref());
        look(&scene, &shard, &stays).await;
        let goes = Wanted { leaving: [(gone.id.clone(), gone.clone())].into(), ..stays.clone() };
        let steps = look(&scene, &shard, &goes).await;
        assert!(steps.iter().any(|step| step.starts_with("delete the listener 1000")), "{handed_over}: {steps:#?}");
    }
    // Who was never seen here is looked for: what has lost its tags meanwhile is nobody's.
    scene.provider = next_leader(&scene, None);
    look(&scene, &shard, &stays).await;
    scene.fake.with(|state| {
        let of_gone = state.targets.values_mut().filter(|of| of.tags[crate::tags::SERVICE_UID] == gone.id.uid);
        of_gone.for_each(|of| of.tags.clear());
    });
    let goes = Wanted { leaving: [(gone.id.clone(), gone)].into(), ..stays };
    let steps = look(&scene, &shard, &goes).await;
    assert!(!steps.iter().any(|step| step.starts_with("delete the target group")), "{steps:#?}");
}

#[tokio::test(start_paused = true)]
async fn what_another_version_or_nobody_handed_over_counts_for_nothing() {
    let mut scene = served(&["a"]).await;
    let told = scene.provider.hands_over().unwrap();
    let strict = crate::Settings { cluster_uid: "uid-of-another".to_owned(), ..settings() };
    let other = Aws::new(scene.fake.clone(), strict).hands_over().unwrap();
    for handed_over in [None, Some("{"), Some(other.as_str())] {
        let next = next_leader(&scene, handed_over);
        assert_eq!(looks(&mut scene, next).await, SWEEP + DEPTH, "{handed_over:?}");
    }
    let next = next_leader(&scene, Some(&told));
    assert_eq!(looks(&mut scene, next).await, SWEEP);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_refused_or_is_being_served_is_not_handed_over() {
    let mut scene = served(&["a"]).await;
    scene.apply(service("a", &[("scheme", "slip")], json!({})));
    scene.rest().await;
    scene.apply(service("b", &[], json!({})));
    scene.round().await;
    let told = scene.provider.hands_over().unwrap();
    assert!(!told.contains("service/a") && !told.contains("service/b"), "{told}");
}

#[tokio::test(start_paused = true)]
async fn targets_that_were_left_as_they_are_to_be_are_neither_looked_at_nor_sent_again() {
    let scene = served(&["a", "b"]).await;
    send(&scene, &scene.provider).await;
    let told = scene.provider.hands_over().unwrap();
    let next = next_leader(&scene, Some(&told));
    let health = |scene: &Scene| scene.fake.with(|state| state.calls["elasticloadbalancing:DescribeTargetHealth"]);
    let writes = |scene: &Scene| scene.fake.with(|state| state.calls["elasticloadbalancing:RegisterTargets"]);
    let before = (health(&scene), writes(&scene));
    send(&scene, &next).await;
    assert_eq!((health(&scene), writes(&scene)), before);
    // A node that came meanwhile is sent to, and first it is looked what is there.
    let next = next_leader(&scene, Some(&told));
    let intent = scene.wanted.values().next().unwrap();
    let of = berth_provider::ServiceTargets { intent: intent.clone(), endpoints: [].into(), gated: [].into() };
    let targets = Targets { nodes: nodes(0..4), services: [(intent.id.clone(), of)].into() };
    let report = next.sync_targets(&next.shard(intent), &targets).await.unwrap();
    assert_eq!((report.added, health(&scene), writes(&scene)), (1, before.0 + 1, before.1 + 1));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_failed_is_a_reason_to_look() {
    let mut scene = served(&["a"]).await;
    scene.apply(service("a", &[("healthcheck-interval", "30")], json!({})));
    scene.fake.with(|state| state.answers = Some("ServiceUnavailable"));
    scene.round().await;
    scene.fake.with(|state| state.answers = None);
    let before = calls(&scene);
    scene.rest().await;
    assert_eq!(calls(&scene) - before, SWEEP + DEPTH + 1);
}

#[tokio::test(start_paused = true)]
async fn load_balancers_that_come_up_are_asked_about_together() {
    let mut scene = Scene::new();
    let names: Vec<_> = (b'a'..=b'z').map(|letter| char::from(letter).to_string()).collect();
    for (number, name) in names.iter().enumerate() {
        scene.apply(service(name, &[], ports(&[&format!("TCP/80:{}", 30_000 + number)])));
    }
    scene.round().await;
    let before = calls(&scene);
    for round in 1..=6 {
        // They are not up yet.
        tokio::time::advance(Duration::from_secs(10)).await;
        scene.round().await;
        assert_eq!(calls(&scene) - before, 2 * round, "26 in two calls");
    }
    let coming = scene.fake.with(|state| state.balancers.values().next().unwrap().is.arn.clone());
    scene.fake.with(|state| {
        state.balancers.remove(&coming);
        state.listeners.retain(|_, of| of.balancer != coming);
    });
    tokio::time::advance(Duration::from_secs(10)).await;
    scene.round().await;
    assert_eq!(scene.log.iter().filter(|line| line.contains("FAILED")).count(), 1, "{:#?}", scene.log);
    scene.rest().await;
    assert_eq!(scene.fake.with(|state| state.balancers.len()), 26);
}

#[tokio::test(start_paused = true)]
async fn what_is_in_use_is_tried_again_without_a_sweep_and_a_person_is_told_when_it_stays_so() {
    let mut scene = served(&["a"]).await;
    scene.fake.with(|state| state.refuses.insert(DELETE_GROUP, "DependencyViolation"));
    scene.delete("a");
    let intent = scene.leaving[0].clone();
    let shard = scene.provider.shard(&intent);
    let wanted = Wanted { leaving: [(intent.id.clone(), intent)].into(), ..Wanted::default() };
    let mut said: Vec<Failure> = Vec::new();
    let before = calls(&scene);
    for _ in 0..60 {
        let mut observed = scene.provider.observe(&shard, &wanted).await.unwrap();
        let plan = scene.provider.plan(&wanted, &observed);
        let carried = berth_provider::carry_out(&scene.provider, &shard, &plan, &mut observed, || true).await;
        said.extend(carried.failures.into_values());
        tokio::time::advance(said.last().unwrap().wait(1)).await;
    }
    assert_eq!((said[0].class, said[0].wait(9)), (Class::NotReady, Duration::from_secs(5)));
    let (quiet, told) = said.split_at(said.iter().position(|failure| failure.class.is_for_a_person()).unwrap());
    assert!((40..60).contains(&quiet.len()), "{}", quiet.len());
    assert_eq!((told[0].reason, told[0].wait(9)), (Reason::CloudInUse, Duration::from_mins(1)));
    assert!(
        told[0].message.contains("describe-network-interfaces --filters Name=group-id,Values=sg-"),
        "{}",
        told[0].message
    );
    // Load balancer and target group once; then a look at the group and the attempt.
    assert!(calls(&scene) - before <= 3 + 2 * 60, "{}", calls(&scene) - before);
    scene.fake.with(|state| state.refuses.clear());
    scene.rest().await;
    assert_eq!(scene.ours(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_only_nothing_when_it_is_looked_for_again_after_what_aws_lists_is_up_to_date() {
    // Another leader has made a load balancer, and died.
    let mut scene = served(&["a"]).await;
    let hidden = scene.fake.with(|state| {
        let all = (state.balancers.clone(), state.targets.clone(), state.listeners.clone(), state.groups.clone());
        state.balancers.clear();
        state.targets.clear();
        state.listeners.clear();
        state.groups.clear();
        all
    });
    scene.provider = next_leader(&scene, None);
    scene.delete("a");
    let intent = scene.leaving[0].clone();
    let shard = scene.provider.shard(&intent);
    let wanted = Wanted { leaving: [(intent.id.clone(), intent)].into(), ..Wanted::default() };
    let failure = scene.provider.observe(&shard, &wanted).await.unwrap_err();
    assert_eq!((failure.class, failure.wait(1)), (Class::NotReady, Duration::from_secs(30)));
    scene.fake.with(|state| (state.balancers, state.targets, state.listeners, state.groups) = hidden);
    tokio::time::advance(Duration::from_secs(30)).await;
    scene.rest().await;
    assert_eq!(scene.ours(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn what_this_process_made_a_moment_ago_is_looked_for_again_where_a_list_does_not_have_it() {
    let mut scene = served(&["a"]).await;
    scene.apply(service("b", &[], json!({})));
    scene.round().await;
    // A call for another Service fails, so that all is swept again, and AWS does not list what is new.
    let hidden = scene.fake.with(|state| {
        let all = (state.balancers.clone(), state.targets.clone(), state.listeners.clone(), state.groups.clone());
        state.balancers.retain(|_, of| !of.is.name.starts_with("berth-shop-b"));
        state.targets.retain(|_, of| !of.is.name.starts_with("berth-shop-b"));
        state.listeners.retain(|_, of| state.balancers.contains_key(&of.balancer));
        state.groups.retain(|_, of| !of.name.starts_with("berth-shop-b"));
        all
    });
    scene.apply(service("a", &[("healthcheck-interval", "30")], json!({})));
    scene.fake.with(|state| state.answers = Some("ServiceUnavailable"));
    scene.round().await;
    scene.fake.with(|state| state.answers = None);
    scene.delete("b");
    scene.round().await;
    assert!(scene.log.iter().any(|line| line.contains("it is looked for once more")), "{:#?}", scene.log);
    scene.fake.with(|state| (state.balancers, state.targets, state.listeners, state.groups) = hidden);
    scene.delete("a");
    scene.rest().await;
    assert_eq!(scene.ours(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn what_was_seen_and_taken_away_is_gone_without_another_sweep() {
    let mut scene = served(&["a"]).await;
    scene.provider = next_leader(&scene, None);
    scene.rest().await;
    let before = calls(&scene);
    scene.delete("a");
    assert!(!scene.rest().await.iter().any(|line| line.contains("once more")), "{:#?}", scene.log);
    assert_eq!(
        (calls(&scene) - before, scene.ours()),
        (3 + 2 + 2, vec![]),
        "two groups, one of them in use for a moment"
    );
}

#[tokio::test(start_paused = true)]
async fn what_takes_no_traffic_any_more_is_deregistered_also_while_nothing_can_be_let_in() {
    let scene = served(&["a"]).await;
    send(&scene, &scene.provider).await;
    let intent = scene.wanted.values().next().unwrap();
    let of = berth_provider::ServiceTargets { intent: intent.clone(), endpoints: [].into(), gated: [].into() };
    let targets = Targets { nodes: nodes(1..3), services: [(intent.id.clone(), of)].into() };
    // Interfaces and groups are looked at again within the hour, and EC2 does not answer then.
    tokio::time::advance(Duration::from_mins(59)).await;
    scene.fake.with(|state| state.deaf.insert("ec2:DescribeInstances"));
    tokio::time::advance(Duration::from_secs(59)).await;
    assert!(scene.provider.sync_targets(&scene.provider.shard(intent), &targets).await.is_err());
    let drains = scene.fake.with(|state| {
        let all = state.targets.values().flat_map(|of| &of.registered);
        all.filter(|(target, (is, _))| target.id == "i-0000" && *is == crate::cloud::TargetState::Draining).count()
    });
    assert_eq!(drains, 1);
}
