//! Targets are sent, and what AWS has is what was wanted.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use berth_provider::conformance::Fault;
use berth_provider::{
    Class, Endpoint, Failure, Protocol, Provider as _, Shard, TargetNode, TargetReport, Targets, Wanted, carry_out,
};
use serde_json::json;

use super::scene::{Scene, ports, service};
use crate::Aws;
use crate::cloud::TargetState;

const EDGE: (&str, &str) = ("berth.dev/load-balancer-group", "edge");
const REGISTER: &str = "elasticloadbalancing:RegisterTargets";
const DEREGISTER: &str = "elasticloadbalancing:DeregisterTargets";
const HEALTH: &str = "elasticloadbalancing:DescribeTargetHealth";

/// Nodes of these numbers, each an instance.
pub fn nodes(numbers: impl Iterator<Item = usize>) -> Arc<[TargetNode]> {
    let node = |number| TargetNode {
        name: format!("node-{number}"),
        provider_id: format!("aws:///eu-central-1a/i-{number:04}"),
        labels: BTreeMap::new(),
        addresses: Vec::new(),
    };
    numbers.map(node).collect()
}

fn endpoints(numbers: impl Iterator<Item = usize>) -> Arc<[Endpoint]> {
    let ports = Arc::new(BTreeMap::from([(("http".to_owned(), Protocol::Tcp), 8080)]));
    let endpoint = |number| Endpoint { address: format!("10.0.0.{number}").parse().unwrap(), ports: ports.clone() };
    numbers.map(endpoint).collect()
}

struct Sender {
    scene: Scene,
    targets: Targets,
}

impl Sender {
    /// With a Service `web` that is served, and a thousand instances that run.
    async fn new(annotations: &[(&str, &str)]) -> Self {
        let mut scene = Scene::new();
        scene.fake.with(|state| state.instances = (0..1_000).map(|number| format!("i-{number:04}")).collect());
        scene.apply(service("web", annotations, json!({})));
        scene.rest().await;
        let mut sender = Self { scene, targets: Targets::default() };
        sender.hear();
        sender
    }

    /// Every Service that there is, with the endpoints that it had.
    fn hear(&mut self) {
        let before = std::mem::take(&mut self.targets.services);
        for intent in self.scene.wanted.values() {
            let endpoints = before.get(&intent.id).map(|of| of.endpoints.clone()).unwrap_or_default();
            let of = berth_provider::ServiceTargets { intent: intent.clone(), endpoints, gated: BTreeMap::new() };
            self.targets.services.insert(intent.id.clone(), of);
        }
    }

    fn shard(&self) -> Shard {
        self.scene.provider.shard(self.scene.wanted.values().next().unwrap())
    }

    async fn send(&self) -> Result<TargetReport, Failure> {
        self.scene.provider.sync_targets(&self.shard(), &self.targets).await
    }

    fn endpoints(&mut self, numbers: impl Iterator<Item = usize>) {
        let endpoints = endpoints(numbers);
        self.targets.services.values_mut().for_each(|of| of.endpoints = endpoints.clone());
    }

    /// What AWS has, on its way out or not.
    fn registered(&self) -> Vec<String> {
        let state = |state: TargetState| if state == TargetState::Draining { " drains" } else { "" };
        self.scene.fake.with(|all| {
            let each = all.targets.values().flat_map(|of| &of.registered);
            each.map(|(target, (is, _))| format!("{target}{}", state(*is))).collect()
        })
    }

    fn calls(&self, action: &str) -> u64 {
        self.scene.fake.with(|state| state.calls.get(action).copied().unwrap_or_default())
    }
}

#[tokio::test(start_paused = true)]
async fn nodes_become_targets_and_a_change_costs_the_one_call_that_it_takes() {
    let mut sender = Sender::new(&[]).await;
    sender.targets.nodes = nodes(1..3);
    let report = sender.send().await.unwrap();
    assert_eq!((report.added, report.removed), (2, 0));
    assert_eq!(sender.registered(), ["i-0001:30080", "i-0002:30080"]);
    let before = sender.scene.fake.with(|state| state.calls.values().sum::<u64>());
    sender.send().await.unwrap();
    sender.targets.nodes = nodes(1..4);
    sender.send().await.unwrap();
    sender.targets.nodes = nodes(2..4);
    sender.send().await.unwrap();
    assert_eq!(sender.registered(), ["i-0001:30080 drains", "i-0002:30080", "i-0003:30080"]);
    // And one look at the new instance, for the security groups that it has.
    assert_eq!(sender.scene.fake.with(|state| state.calls.values().sum::<u64>()) - before, 3);
}

#[tokio::test(start_paused = true)]
async fn endpoints_become_targets_with_their_own_ports_also_outside_the_vpc() {
    let mut sender = Sender::new(&[("nlb-target-type", "ip")]).await;
    sender.endpoints(1..3);
    let id = sender.scene.wanted.values().next().unwrap().id.clone();
    let ports = Arc::new(BTreeMap::from([(("http".to_owned(), Protocol::Tcp), 9090)]));
    let outside = Endpoint { address: "192.168.1.1".parse().unwrap(), ports };
    let of = sender.targets.services.get_mut(&id).unwrap();
    of.endpoints = of.endpoints.iter().cloned().chain([outside]).collect();
    sender.send().await.unwrap();
    assert_eq!(sender.registered(), ["10.0.0.1:8080", "10.0.0.2:8080", "192.168.1.1:9090"]);
    sender.endpoints(2..3);
    sender.send().await.unwrap();
    assert_eq!(sender.registered(), ["10.0.0.1:8080 drains", "10.0.0.2:8080", "192.168.1.1:9090 drains"]);
}

#[tokio::test(start_paused = true)]
async fn many_targets_are_sent_two_hundred_at_once_and_those_that_go_go_first() {
    let mut sender = Sender::new(&[]).await;
    sender.targets.nodes = nodes(0..450);
    sender.send().await.unwrap();
    assert_eq!((sender.calls(REGISTER), sender.registered().len()), (3, 450));
    sender.targets.nodes = nodes(300..700);
    // Where none can be taken off none is put on: that is the order.
    sender.scene.fake.with(|state| state.answers = Some("InternalError"));
    assert!(sender.send().await.is_err());
    assert_eq!((sender.calls(DEREGISTER), sender.calls(REGISTER)), (1, 3));
    sender.scene.fake.with(|state| state.answers = None);
    sender.send().await.unwrap();
    sender.scene.settle().await;
    assert_eq!((sender.calls(DEREGISTER), sender.calls(REGISTER)), (3, 5));
    assert_eq!(sender.registered().len(), 400);
}

#[tokio::test(start_paused = true)]
async fn another_process_asks_once_and_changes_only_what_differs() {
    let mut sender = Sender::new(&[]).await;
    sender.targets.nodes = nodes(0..3);
    sender.send().await.unwrap();
    sender.scene.provider = Aws::new(sender.scene.fake.clone(), sender.scene.settings.clone());
    let (writes, looks) = (sender.scene.fake.gate().writes(), sender.calls(HEALTH));
    sender.send().await.unwrap();
    sender.send().await.unwrap();
    assert_eq!((sender.scene.fake.gate().writes(), sender.calls(HEALTH)), (writes, looks + 1));
    sender.scene.provider = Aws::new(sender.scene.fake.clone(), sender.scene.settings.clone());
    sender.targets.nodes = nodes(1..4);
    sender.send().await.unwrap();
    assert_eq!(sender.registered(), ["i-0000:30080 drains", "i-0001:30080", "i-0002:30080", "i-0003:30080"]);
}

#[tokio::test(start_paused = true)]
async fn after_an_answer_that_was_lost_it_is_looked_at_and_nothing_is_sent_twice() {
    let mut sender = Sender::new(&[]).await;
    sender.targets.nodes = nodes(0..3);
    // The first write lets load balancers in.
    sender.scene.fake.gate().set(Fault::LoseAnswerAfter { writes: 1 });
    assert_eq!(sender.send().await.unwrap_err().class, Class::Transient);
    sender.scene.fake.gate().set(Fault::None);
    let writes = sender.scene.fake.gate().writes();
    sender.send().await.unwrap();
    assert_eq!((sender.scene.fake.gate().writes(), sender.registered().len()), (writes, 3));
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_aws_does_not_take_keeps_no_other_out_and_is_named_and_offered_again() {
    let mut sender = Sender::new(&[]).await;
    sender.targets.nodes = nodes(995..1_003);
    let report = sender.send().await.unwrap();
    assert_eq!(sender.registered().len(), 5);
    let said = report.conditions.values().next().unwrap();
    assert!(said.message.contains("AWS does not take i-1000:30080, i-1001:30080, i-1002:30080"), "{}", said.message);
    let calls = sender.calls(REGISTER);
    sender.send().await.unwrap();
    assert_eq!(sender.calls(REGISTER), calls, "not at once");
    sender.scene.fake.with(|state| state.instances.extend((1_000..1_003).map(|number| format!("i-{number:04}"))));
    tokio::time::advance(Duration::from_secs(61)).await;
    sender.send().await.unwrap();
    assert_eq!((sender.registered().len(), sender.calls(REGISTER)), (8, calls + 1));
}

#[tokio::test(start_paused = true)]
async fn health_is_looked_at_less_and_less_until_all_are_healthy_and_not_for_ever() {
    let mut sender = Sender::new(&[]).await;
    sender.targets.nodes = nodes(0..2);
    sender.scene.fake.with(|state| state.sick.insert("i-0001".to_owned()));
    let (mut waits, mut said) = (Vec::new(), String::new());
    for _ in 0..14 {
        let report = sender.send().await.unwrap();
        said = report.conditions.values().next().unwrap().message.clone();
        let wait = report.look_again.unwrap();
        waits.push(wait.as_secs());
        tokio::time::advance(wait).await;
        sender.scene.settle().await;
    }
    assert_eq!(waits[..6], [15, 30, 60, 120, 240, 300]);
    assert!(
        said.contains("1 of 2 targets are healthy; not healthy: i-0001:30080 (Target.FailedHealthChecks)"),
        "{said}"
    );
    assert!(waits[10..].iter().all(|wait| *wait == 3_600), "within the hour: {waits:?}");
    // A new one begins anew; then all are healthy, and nothing is looked at.
    sender.scene.fake.with(|state| state.sick.clear());
    sender.targets.nodes = nodes(0..3);
    assert_eq!(sender.send().await.unwrap().look_again, Some(Duration::from_secs(15)));
    sender.scene.settle().await;
    tokio::time::advance(Duration::from_secs(15)).await;
    let report = sender.send().await.unwrap();
    assert_eq!(report.conditions.values().next().unwrap().message, "3 of 3 targets are healthy");
    assert!(report.look_again > Some(Duration::from_mins(59)));
}

#[tokio::test(start_paused = true)]
async fn what_somebody_else_registered_or_took_off_is_mended_within_the_hour() {
    let mut sender = Sender::new(&[]).await;
    sender.targets.nodes = nodes(0..2);
    sender.send().await.unwrap();
    sender.scene.settle().await;
    tokio::time::advance(Duration::from_secs(15)).await;
    sender.send().await.unwrap();
    sender.scene.fake.with(|state| state.targets.values_mut().for_each(|of| drop(of.registered.pop_first())));
    tokio::time::advance(Duration::from_mins(61)).await;
    sender.send().await.unwrap();
    assert_eq!(sender.registered(), ["i-0000:30080", "i-0001:30080"]);
}

#[tokio::test(start_paused = true)]
async fn what_aws_answers_decides_what_becomes_of_it() {
    for (code, class) in [("Throttling", Some(Class::Throttled)), ("", Some(Class::Transient)), ("AccessDenied", None)]
    {
        let mut sender = Sender::new(&[]).await;
        sender.targets.nodes = nodes(0..2);
        sender.scene.fake.with(|state| state.answers = Some(code));
        match (sender.send().await, class) {
            (Err(failure), Some(class)) => assert_eq!(failure.class, class, "{code}"),
            (Ok(report), None) => {
                let said = report.conditions.values().next().unwrap();
                assert_eq!(said.reason.to_string(), "PermissionDenied");
                assert!(said.message.contains("allow elasticloadbalancing:RegisterTargets"), "{}", said.message);
                assert_eq!(report.look_again.map(|wait| wait.as_secs()), Some(60));
            }
            (other, _) => panic!("{code}: {other:?}"),
        }
        sender.scene.fake.with(|state| state.answers = None);
        sender.send().await.unwrap();
        assert_eq!(sender.registered().len(), 2, "{code}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_group_that_somebody_deleted_is_looked_for_again() {
    let mut sender = Sender::new(&[]).await;
    sender.targets.nodes = nodes(0..2);
    sender.scene.provider = Aws::new(sender.scene.fake.clone(), sender.scene.settings.clone());
    sender.send().await.unwrap();
    sender.scene.fake.with(|state| (state.targets.clear(), state.listeners.clear()));
    sender.targets.nodes = nodes(0..3);
    assert_eq!(sender.send().await.unwrap_err().class, Class::Conflict);
    assert_eq!(sender.send().await.unwrap().conditions.len(), 0, "it is known that there is none");
    sender.scene.rest().await;
    sender.send().await.unwrap();
    assert_eq!(sender.registered().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn services_of_a_group_have_their_own_targets() {
    let mut sender = Sender::new(&[EDGE]).await;
    sender.scene.apply(service("two", &[EDGE, ("nlb-target-type", "ip")], ports(&["TCP/2000:32000"])));
    sender.scene.rest().await;
    sender.hear();
    sender.targets.nodes = nodes(0..1);
    let ports = Arc::new(BTreeMap::from([(("tcp-2000".to_owned(), Protocol::Tcp), 10_000)]));
    for of in sender.targets.services.values_mut() {
        of.endpoints = Arc::new([Endpoint { address: "10.0.0.9".parse().unwrap(), ports: ports.clone() }]);
    }
    let report = sender.send().await.unwrap();
    let mut registered = sender.registered();
    registered.sort();
    assert_eq!(
        (registered, report.conditions.len()),
        (vec!["10.0.0.9:10000".to_owned(), "i-0000:30080".to_owned()], 2)
    );
}

#[tokio::test(start_paused = true)]
async fn one_load_balancer_in_anothers_place_is_published_once_its_targets_are_sent() {
    let mut sender = Sender::new(&[]).await;
    sender.targets.nodes = nodes(0..2);
    sender.send().await.unwrap();
    let before = sender.scene.says("web");
    let consents = ("berth.dev/allow-replacement", "true");
    sender.scene.apply(service("web", &[("scheme", "internet-facing"), consents], json!({})));
    for _ in 0..3 {
        sender.scene.round().await;
        sender.scene.settle().await;
    }
    assert_eq!(sender.scene.wanted.values().next().unwrap().published[0].hostname.as_ref(), Some(&before));
    sender.hear();
    sender.send().await.unwrap();
    assert_eq!(sender.registered().len(), 4, "both have them until the old one goes");
    sender.scene.rest().await;
    assert_ne!(sender.scene.says("web"), before);
    assert_eq!(sender.registered().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_is_left_in_a_group_goes_although_the_service_asks_for_a_load_balancer_of_its_own_now() {
    let mut sender = Sender::new(&[EDGE]).await;
    let scene = &mut sender.scene;
    let was = scene.wanted.values().next().unwrap().clone();
    let shard = scene.provider.shard(&was);
    // As it is after a restart: only what it asks for now is known, and that something of it is in that shard.
    let now = service("web", &[], json!({}));
    let wanted = Wanted { leaving: [(now.id.clone(), now)].into(), ..Wanted::default() };
    for _ in 0..4 {
        let mut observed = scene.provider.observe(&shard, &wanted).await.unwrap();
        let plan = scene.provider.plan(&wanted, &observed);
        let carried = carry_out(&scene.provider, &shard, &plan, &mut observed, || true).await;
        if carried.failures.is_empty() {
            scene.provider.learned(&shard, &wanted, &observed);
        }
        scene.settle().await;
    }
    assert_eq!(scene.ours(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn targets_of_a_service_that_was_disowned_are_left_alone() {
    let mut sender = Sender::new(&[]).await;
    sender.targets.nodes = nodes(1..3);
    sender.send().await.unwrap();
    for of in sender.targets.services.values_mut() {
        of.intent.annotations.insert("berth.dev/disown".to_owned(), "true".to_owned());
        // Also where something else of it cannot be read.
        let scheme = "service.beta.kubernetes.io/aws-load-balancer-scheme".to_owned();
        of.intent.annotations.insert(scheme, "nonsense".to_owned());
    }
    sender.targets.nodes = nodes(2..4);
    let report = sender.send().await.unwrap();
    assert_eq!((report.added, report.removed), (0, 0));
    assert_eq!(sender.registered(), ["i-0001:30080", "i-0002:30080"]);
}
