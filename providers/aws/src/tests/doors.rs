//! The security groups of nodes and pods let load balancers in, and of others' rules nothing is changed.

mod history;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use berth_provider::conformance::Fault;
use berth_provider::{
    Class, Endpoint, Failure, Intent, Protocol, Provider as _, ServiceTargets, Shard, TargetNode, TargetReport, Targets,
};
use serde_json::json;

use super::scene::{Scene, service};
use crate::Aws;
use crate::backend::description;
use crate::cloud::{Cloud as _, Interface, IpProtocol, Pairs, Rule, Source};
use crate::fake::{Fitted, Group, NODES_GROUP};

const AUTHORIZE: &str = "ec2:AuthorizeSecurityGroupIngress";
const REGISTER: &str = "elasticloadbalancing:RegisterTargets";
const IP: (&str, &str) = ("nlb-target-type", "ip");

fn node(number: usize) -> TargetNode {
    TargetNode {
        name: format!("node-{number}"),
        provider_id: format!("aws:///eu-central-1a/i-{number:04}"),
        labels: BTreeMap::new(),
        addresses: Vec::new(),
    }
}

/// A Service that is served at a port of its own.
fn numbered(number: usize, annotations: &[(&str, &str)]) -> Intent {
    let port = json!({"ports": [{"name": "http", "port": 80, "nodePort": 30_000 + number, "targetPort": 8080}]});
    let mut intent = service("a", annotations, port);
    intent.id.key.name = format!("service-{number}");
    intent.id.uid = format!("uid-{number}");
    intent
}

/// A cluster whose targets are sent.
struct World {
    scene: Scene,
    nodes: Vec<TargetNode>,
    /// The last number of the addresses of pods, and their port.
    pods: Vec<(u8, u16)>,
}

impl World {
    fn new() -> Self {
        let scene = Scene::new();
        scene.fake.with(|state| state.instances = (0..100).map(|number| format!("i-{number:04}")).collect());
        Self { scene, nodes: (0..3).map(node).collect(), pods: Vec::new() }
    }

    /// With these Services, served.
    async fn of(intents: Vec<Intent>) -> Self {
        let mut world = Self::new();
        for intent in intents {
            world.scene.apply(intent);
        }
        world.scene.rest().await;
        world
    }

    fn targets(&self, shard: &Shard) -> Targets {
        let endpoint = |(number, port): &(u8, u16)| Endpoint {
            address: format!("10.0.0.{number}").parse().unwrap(),
            ports: Arc::new(BTreeMap::from([(("http".to_owned(), Protocol::Tcp), *port)])),
        };
        let endpoints: Arc<[Endpoint]> = self.pods.iter().map(endpoint).collect();
        let mine = self.scene.wanted.values().filter(|intent| self.scene.provider.shard(intent) == *shard);
        let of = |intent: &Intent| ServiceTargets {
            intent: intent.clone(),
            endpoints: endpoints.clone(),
            gated: BTreeMap::new(),
        };
        let services = mine.map(|intent| (intent.id.clone(), of(intent))).collect();
        Targets { nodes: self.nodes.clone().into(), services }
    }

    fn shards(&self) -> Vec<Shard> {
        let all: std::collections::BTreeSet<_> =
            self.scene.wanted.values().map(|intent| self.scene.provider.shard(intent)).collect();
        all.into_iter().collect()
    }

    async fn send_to(&self, shard: &Shard) -> Result<TargetReport, Failure> {
        self.scene.provider.sync_targets(shard, &self.targets(shard)).await
    }

    /// Sends to all shards.
    async fn send(&self) -> Result<TargetReport, Failure> {
        let mut last = TargetReport::default();
        for shard in self.shards() {
            last = self.send_to(&shard).await?;
        }
        Ok(last)
    }

    async fn says(&self) -> String {
        self.send().await.unwrap().conditions.into_values().map(|condition| condition.message).collect()
    }

    fn restart(&mut self) {
        self.scene.provider = Aws::new(self.scene.fake.clone(), self.scene.settings.clone());
    }

    fn calls(&self, action: &str) -> u64 {
        self.scene.fake.with(|state| state.calls.get(action).copied().unwrap_or_default())
    }

    /// Calls that change nothing, and calls that do, since the last time.
    fn counted(&self) -> (u64, u64) {
        self.scene.fake.with(|state| {
            let calls = std::mem::take(&mut state.calls);
            let is_read = |action: &str| action.split(':').nth(1).is_some_and(|name| name.starts_with("Describe"));
            let sum = |read: bool| calls.iter().filter(|(name, _)| is_read(name) == read).map(|(_, n)| n).sum();
            (sum(true), sum(false))
        })
    }

    /// Our rules in groups of others, as `GROUP PROTOCOL FROM-TO`.
    fn opened(&self) -> Vec<String> {
        let ours = description(&self.scene.settings);
        self.scene.fake.with(|state| {
            let each = state.groups.iter().flat_map(|(id, of)| of.rules.iter().map(move |rule| (id, rule)));
            let ours = each.filter(|(_, rule)| rule.description.as_ref() == Some(&ours));
            ours.map(|(id, rule)| format!("{id} {} {}-{}", rule.ip_protocol, rule.from_port, rule.to_port)).collect()
        })
    }

    /// All other rules.
    fn foreign(&self) -> Vec<(String, Rule)> {
        let ours = description(&self.scene.settings);
        self.scene.fake.with(|state| {
            let theirs = state.groups.iter().filter(|(_, of)| !crate::tags::is_ours(&self.scene.settings, &of.tags));
            let each = theirs.flat_map(|(id, of)| of.rules.iter().map(move |rule| (id.clone(), rule.clone())));
            each.filter(|(_, rule)| rule.description.as_ref() != Some(&ours)).collect()
        })
    }

    fn plant(&self, id: &str, rules: &[Rule], tags: Pairs) {
        let group = Group { name: format!("{id}-name"), rules: rules.iter().cloned().collect(), tags };
        self.scene.fake.with(|state| state.groups.insert(id.to_owned(), group));
    }

    fn fit(&self, id: &str, instance: Option<&str>, address: &str, prefix: Option<&str>, groups: &[&str]) {
        let is = Interface {
            id: id.to_owned(),
            addresses: vec![address.parse().unwrap()],
            prefixes: prefix.map(|text| text.parse().unwrap()).into_iter().collect(),
            security_groups: groups.iter().map(|id| (*id).to_owned()).collect(),
            is_primary: instance.is_some(),
        };
        let fitted = Fitted { instance: instance.map(str::to_owned), is };
        self.scene.fake.with(|state| state.interfaces.insert(id.to_owned(), fitted));
    }

    fn backend(&self) -> String {
        self.scene.fake.with(|state| {
            let mut of = state.groups.iter().filter(|(_, of)| of.name.starts_with("berth-backend"));
            of.next().map(|(id, _)| id.clone()).unwrap()
        })
    }
}

fn rule(port: u16, source: Source, description: Option<&str>) -> Rule {
    let (ip_protocol, description) = (IpProtocol::Tcp, description.map(str::to_owned));
    Rule { ip_protocol, from_port: port, to_port: port, source, description }
}

const NODE_PORTS: &str = "sg-nodes tcp 30000-32767";

#[tokio::test(start_paused = true)]
async fn all_services_with_node_ports_are_let_in_by_one_rule_and_another_one_costs_no_call_for_it() {
    let mut world = World::of(vec![numbered(1, &[])]).await;
    world.send().await.unwrap();
    assert_eq!(world.opened(), [NODE_PORTS]);
    world.scene.apply(numbered(2, &[]));
    world.scene.rest().await;
    world.counted();
    world.send().await.unwrap();
    assert_eq!(
        world.counted(),
        (1, 1),
        "the call that registers its targets, and a look at the health of the first one's"
    );
    // A restart finds what is there.
    world.restart();
    world.send().await.unwrap();
    assert_eq!((world.opened(), world.calls(AUTHORIZE)), (vec![NODE_PORTS.to_owned()], 0));
}

#[tokio::test(start_paused = true)]
async fn two_hundred_services_cost_few_calls_each_and_a_new_node_one_look_for_all() {
    let mut world = World::new();
    world.scene.fake.with(|state| state.balancers_max = 1_000);
    for number in 0..200 {
        world.scene.apply(numbered(number, &[]));
    }
    world.scene.rest().await;
    world.send().await.unwrap();
    world.counted();
    world.nodes.push(node(4));
    world.send().await.unwrap();
    let (reads, writes) = world.counted();
    assert_eq!((reads, writes), (1, 200), "a look at the instance, and a call for each target group");
    world.send().await.unwrap();
    assert_eq!(world.counted(), (0, 0));
    // One more Service, from nothing to registered targets.
    let more = numbered(200, &[]);
    let shard = world.scene.provider.shard(&more);
    let wanted = berth_provider::Wanted { present: [(more.id.key.clone(), more.clone())].into(), ..Default::default() };
    let mut observed = world.scene.provider.observe(&shard, &wanted).await.unwrap();
    let plan = world.scene.provider.plan(&wanted, &observed);
    berth_provider::carry_out(&world.scene.provider, &shard, &plan, &mut observed, || true).await;
    world.scene.apply(more);
    world.send_to(&shard).await.unwrap();
    let (reads, writes) = world.counted();
    assert!(reads <= 4 && reads + writes <= 12, "{reads} reads and {writes} writes");
    assert_eq!(world.opened(), [NODE_PORTS]);
}

#[tokio::test(start_paused = true)]
async fn pods_are_let_in_where_their_own_interface_or_that_of_their_node_is() {
    let mut world = World::new();
    for id in ["sg-pods", "sg-prefix"] {
        world.plant(id, &[], Pairs::new());
    }
    world.fit("eni-1", Some("i-0001"), "10.0.0.9", Some("10.0.0.128/28"), &["sg-prefix"]);
    world.fit("eni-2", None, "10.0.0.7", None, &["sg-pods"]);
    world.pods = vec![(7, 8080), (130, 8080), (131, 8081), (250, 9999)];
    world.scene.apply(numbered(1, &[IP, ("healthcheck-port", "9000")]));
    world.scene.rest().await;
    let said = world.says().await;
    assert_eq!(
        world.opened(),
        ["sg-pods tcp 8080-8080", "sg-pods tcp 9000-9000", "sg-prefix tcp 8080-8081", "sg-prefix tcp 9000-9000"]
    );
    assert!(said.contains("EC2 shows no network interface of 10.0.0.250, so no security group is opened"), "{said}");
    // Pods that come and go where others are cost nothing, and a port that is used no more is closed.
    world.pods = vec![(7, 8080), (140, 8080)];
    world.counted();
    world.send().await.unwrap();
    assert_eq!(world.counted(), (0, 4), "what is let in, what no more, and the targets, each in one call");
    assert_eq!(world.opened()[2..], ["sg-prefix tcp 8080-8080", "sg-prefix tcp 9000-9000"]);
    // Pods that come one after the other do not cost a look at all instances each; a range that was delegated meanwhile is found soon.
    world.pods.push((200, 8090));
    let report = world.send().await.unwrap();
    assert_eq!((world.counted(), report.look_again), ((1, 1), Some(Duration::from_secs(5))));
    world.fit("eni-3", Some("i-0001"), "10.0.0.10", Some("10.0.0.192/28"), &["sg-prefix"]);
    tokio::time::advance(Duration::from_secs(5)).await;
    world.send().await.unwrap();
    assert_eq!(world.opened()[2..], ["sg-prefix tcp 8080-8080", "sg-prefix tcp 8090-8090", "sg-prefix tcp 9000-9000"]);
}

#[tokio::test(start_paused = true)]
async fn an_interface_with_groups_that_nothing_tells_apart_is_opened_at_the_first_and_people_are_told() {
    let mut world = World::new();
    world.plant("sg-b", &[], Pairs::new());
    world.plant("sg-a", &[], Pairs::new());
    world.nodes.truncate(1);
    world.fit("eni-1", Some("i-0000"), "10.0.0.9", None, &["sg-b", "sg-a"]);
    world.scene.apply(numbered(1, &[]));
    world.scene.rest().await;
    let said = world.says().await;
    assert_eq!(world.opened(), ["sg-a tcp 30000-32767"]);
    assert!(said.contains("none is tagged kubernetes.io/cluster/prod, so sg-a is opened; tag one of them"), "{said}");
    // Once one is tagged it is the one, within the hour.
    let tags = || [("kubernetes.io/cluster/prod".to_owned(), "owned".to_owned())].into();
    world.scene.fake.with(|state| state.groups.get_mut("sg-b").unwrap().tags = tags());
    tokio::time::advance(Duration::from_mins(61)).await;
    let said = world.says().await;
    assert_eq!(world.opened(), ["sg-b tcp 30000-32767"]);
    assert!(!said.contains("tagged"), "{said}");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_taken_away_before_every_shard_has_said_what_it_needs() {
    let mut world = World::new();
    world.fit("eni-2", None, "10.0.0.7", None, &["sg-pods"]);
    world.plant("sg-pods", &[], Pairs::new());
    world.pods = vec![(7, 8080)];
    world.scene.apply(numbered(1, &[IP]));
    world.scene.apply(numbered(2, &[]));
    world.scene.apply(numbered(3, &[]));
    world.scene.rest().await;
    world.send().await.unwrap();
    let both = ["sg-nodes tcp 30000-32767", "sg-pods tcp 8080-8080"];
    assert_eq!(world.opened(), both);
    world.restart();
    world.pods.clear();
    let shards = world.shards();
    for shard in &shards[..2] {
        world.send_to(shard).await.unwrap();
        assert_eq!(world.opened(), both, "the third one has not been heard");
    }
    world.send_to(&shards[2]).await.unwrap();
    assert_eq!(world.opened(), [NODE_PORTS]);
    // One that cannot be read now needs what it needed, and after a restart nobody knows what that was.
    world.scene.apply(numbered(2, &[("scheme", "slip")]));
    world.scene.delete("none");
    world.send().await.unwrap();
    assert_eq!(world.opened(), [NODE_PORTS]);
    world.restart();
    world.scene.apply(numbered(3, &[("security-groups", "sg-pods")]));
    world.send().await.unwrap();
    assert_eq!(world.opened(), [NODE_PORTS]);
    // The other one needs it no more, and then nobody does.
    world.scene.apply(numbered(2, &[("security-groups", "sg-pods")]));
    world.send().await.unwrap();
    assert_eq!(world.opened(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_full_group_loses_first_what_is_not_needed_and_else_people_are_told_and_targets_are_sent() {
    let world = World::of(vec![numbered(1, &[])]).await;
    let old = rule(1, Source::Group(world.backend()), Some(&description(&world.scene.settings)));
    let theirs = |count: u16| (0..count).map(|port| rule(100 + port, Source::V4("10.0.0.0/8".to_owned()), None));
    let rules: Vec<_> = theirs(59).chain([old]).collect();
    world.plant(NODES_GROUP, &rules, Pairs::new());
    world.send().await.unwrap();
    assert_eq!((world.opened(), world.foreign().len()), (vec![NODE_PORTS.to_owned()], 59));

    let mut world = World::of(vec![numbered(1, &[]), numbered(2, &[])]).await;
    world.plant(NODES_GROUP, &theirs(60).collect::<Vec<_>>(), Pairs::new());
    let said = world.says().await;
    assert!(
        said.contains("load balancers are not let in: ec2:AuthorizeSecurityGroupIngress: RulesPerSecurityGroup"),
        "{said}"
    );
    let tried = world.calls(AUTHORIZE);
    assert_eq!(world.calls(REGISTER), 2);
    world.send().await.unwrap();
    assert_eq!(world.calls(AUTHORIZE), tried, "what was refused is not tried at once again, for no Service");
    world.plant(NODES_GROUP, &theirs(50).collect::<Vec<_>>(), Pairs::new());
    tokio::time::advance(Duration::from_secs(61)).await;
    assert!(!world.says().await.contains("not let in"));
    assert_eq!((world.opened(), world.foreign().len()), (vec![NODE_PORTS.to_owned()], 50));
    world.restart();
}

#[tokio::test(start_paused = true)]
async fn what_somebody_let_in_or_closed_meanwhile_is_looked_at_again() {
    // The same rule by hand, after we looked.
    let mut world = World::of(vec![numbered(1, &[IP])]).await;
    world.fit("eni-2", None, "10.0.0.7", None, &[NODES_GROUP]);
    world.pods = vec![(7, 8080)];
    world.send().await.unwrap();
    let by_hand = rule(8081, Source::Group(world.backend()), Some("by hand"));
    let add = |rule: &Rule| {
        world.scene.fake.with(|state| state.groups.get_mut(NODES_GROUP).unwrap().rules.insert(rule.clone()))
    };
    add(&by_hand);
    let before = world.foreign();
    world.pods = vec![(7, 8081), (8, 8082)];
    world.fit("eni-3", None, "10.0.0.8", None, &[NODES_GROUP]);
    world.send().await.unwrap();
    // The range of both was not there, so it is ours; the one by hand stays as it is.
    assert_eq!((world.opened(), world.foreign()), (vec!["sg-nodes tcp 8081-8082".to_owned()], before.clone()));
    // Ours was taken away by hand before we do.
    let ours = description(&world.scene.settings);
    world.scene.fake.with(|state| {
        state.groups.get_mut(NODES_GROUP).unwrap().rules.retain(|rule| rule.description.as_ref() != Some(&ours));
    });
    world.pods = vec![(7, 8081)];
    world.send().await.unwrap();
    assert_eq!((world.opened(), world.foreign()), (vec![], before));
}

#[tokio::test(start_paused = true)]
async fn what_aws_answers_decides_what_becomes_of_it_and_nothing_is_registered_before_it_is_let_in() {
    for (code, class) in [
        ("Throttling", Some(Class::Throttled)),
        ("InternalError", Some(Class::Transient)),
        ("InvalidGroup.NotFound", Some(Class::Conflict)),
        ("UnauthorizedOperation", None),
    ] {
        let world = World::of(vec![numbered(1, &[])]).await;
        world.scene.fake.with(|state| state.refuses = [(AUTHORIZE, code)].into());
        match (world.send().await, class) {
            (Err(failure), Some(class)) => {
                assert_eq!(failure.class, class, "{code}");
                assert_eq!(world.calls(REGISTER), 0, "{code}");
            }
            (Ok(report), None) => {
                let said: String = report.conditions.values().map(|condition| condition.message.as_str()).collect();
                assert!(said.contains("allow ec2:AuthorizeSecurityGroupIngress for Berth's role"), "{said}");
                assert_eq!(world.calls(REGISTER), 1, "somebody may have opened it by hand");
            }
            (other, _) => panic!("{code}: {other:?}"),
        }
        world.scene.fake.with(|state| state.refuses.clear());
        tokio::time::advance(Duration::from_secs(61)).await;
        world.send().await.unwrap();
        assert_eq!((world.opened(), world.calls(REGISTER)), (vec![NODE_PORTS.to_owned()], 1), "{code}");
    }
}

#[tokio::test(start_paused = true)]
async fn after_an_answer_that_was_lost_nothing_is_let_in_twice() {
    let world = World::of(vec![numbered(1, &[])]).await;
    world.scene.fake.gate().set(Fault::LoseAnswerAfter { writes: 0 });
    assert_eq!(world.send().await.unwrap_err().class, Class::Transient);
    world.scene.fake.gate().set(Fault::None);
    let tried = world.calls(AUTHORIZE);
    world.send().await.unwrap();
    assert_eq!((world.opened(), world.calls(AUTHORIZE)), (vec![NODE_PORTS.to_owned()], tried));
}

#[tokio::test(start_paused = true)]
async fn with_the_last_load_balancer_goes_the_group_and_every_rule_of_ours_and_no_other() {
    let mut world = World::of(vec![numbered(1, &[]), numbered(2, &[])]).await;
    let foreign = world.foreign();
    world.send().await.unwrap();
    let delete = |world: &mut World, number: usize| {
        let key = numbered(number, &[]).id.key;
        let intent = world.scene.wanted.remove(&key);
        world.scene.leaving.extend(intent);
        world.scene.outcomes.remove(&key);
    };
    delete(&mut world, 1);
    world.scene.rest().await;
    assert_eq!(world.opened(), [NODE_PORTS], "the other one needs it");
    // The process that takes the rest away knows nothing of the one that made it.
    world.restart();
    delete(&mut world, 2);
    world.scene.rest().await;
    assert_eq!((world.scene.ours(), world.opened(), world.foreign()), (vec![], vec![], foreign));
    // Two that leave at the same time, each of which saw the other.
    let mut world = World::of(vec![numbered(1, &[]), numbered(2, &[])]).await;
    world.send().await.unwrap();
    delete(&mut world, 1);
    delete(&mut world, 2);
    world.scene.rest().await;
    assert_eq!((world.scene.ours(), world.opened()), (vec![], vec![]));
}

#[tokio::test(start_paused = true)]
async fn a_rule_that_somebody_wrote_for_the_group_keeps_it_and_no_service_waits_for_that() {
    let mut world = World::of(vec![numbered(1, &[])]).await;
    world.send().await.unwrap();
    let by_hand = rule(9100, Source::Group(world.backend()), Some("by hand"));
    world.plant("sg-theirs", &[by_hand], Pairs::new());
    let foreign = world.foreign();
    let key = numbered(1, &[]).id.key;
    let intent = world.scene.wanted.remove(&key);
    world.scene.leaving.extend(intent);
    world.scene.outcomes.remove(&key);
    world.scene.rest().await;
    assert_eq!((world.opened(), world.foreign()), (vec![], foreign));
    let owned = world.scene.provider.list_owned().await.unwrap();
    assert_eq!(owned.iter().map(|owned| owned.kind.as_str()).collect::<Vec<_>>(), ["backend security group"]);
    // The next one uses it.
    let backend = world.backend();
    world.scene.apply(numbered(2, &[]));
    world.scene.rest().await;
    world.send().await.unwrap();
    assert_eq!((world.backend(), world.opened()), (backend, vec![NODE_PORTS.to_owned()]));
}

#[tokio::test(start_paused = true)]
async fn a_load_balancer_that_was_disowned_goes_on_being_let_in() {
    let mut world = World::of(vec![numbered(1, &[]), numbered(2, &[])]).await;
    world.send().await.unwrap();
    world.scene.apply(numbered(1, &[("berth.dev/disown", "true")]));
    world.scene.rest().await;
    for (number, restarts) in [(1, true), (2, false)] {
        let key = numbered(number, &[]).id.key;
        let intent = world.scene.wanted.remove(&key);
        world.scene.leaving.extend(intent);
        world.scene.outcomes.remove(&key);
        world.scene.rest().await;
        world.send().await.unwrap();
        if restarts {
            world.restart();
        }
        assert_eq!(world.opened(), [NODE_PORTS]);
    }
    assert_eq!(world.scene.ours().len(), 2, "the group and the rule: {:#?}", world.scene.ours());
}

#[tokio::test(start_paused = true)]
async fn a_load_balancer_with_groups_of_its_own_is_let_in_if_it_asks_for_that() {
    let given = ("security-groups", "sg-lb");
    for (also, is_opened) in [(None, false), (Some("false"), false), (Some("true"), true)] {
        let mut world = World::new();
        world.plant("sg-lb", &[], Pairs::new());
        let manage = also.map(|value| ("manage-backend-security-group-rules", value));
        world.scene.apply(numbered(1, &[&[given][..], manage.as_slice()].concat()));
        world.scene.rest().await;
        world.send().await.unwrap();
        let groups: Vec<_> = world
            .scene
            .fake
            .with(|state| state.balancers.values().flat_map(|of| of.is.security_groups.clone()).collect());
        assert_eq!(
            (groups.len(), world.opened().len()),
            (1 + usize::from(is_opened), usize::from(is_opened)),
            "{also:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_group_that_somebody_refers_to_keeps_no_rule_of_ours_whenever_the_last_service_goes() {
    let mut world = World::of(vec![numbered(1, &[])]).await;
    let by_hand = rule(8080, Source::Group(world.backend()), Some("by hand"));
    world.scene.fake.with(|state| state.groups.get_mut(NODES_GROUP).unwrap().rules.insert(by_hand));
    for _ in 0..2 {
        world.scene.apply(numbered(1, &[]));
        world.scene.rest().await;
        world.send().await.unwrap();
        assert_eq!(world.opened(), [NODE_PORTS]);
        world.scene.delete("service-1");
        world.scene.rest().await;
        assert_eq!(world.opened(), [""; 0]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_load_balancer_of_before_gets_the_group_and_keeps_those_that_it_has() {
    let mut world = World::of(vec![numbered(1, &[])]).await;
    let backend = world.backend();
    world.scene.fake.with(|state| {
        state.balancers.values_mut().for_each(|of| of.is.security_groups.retain(|id| *id != backend));
    });
    world.scene.an_hour_later().await;
    let done = world.scene.rest().await;
    assert!(done[0].contains("the security groups berth-backend-prod"), "{done:#?}");
    // Somebody deleted it while it was unused.
    world.scene.fake.with(|state| {
        state.balancers.values_mut().for_each(|of| of.is.security_groups.retain(|id| *id != backend));
        state.lingering.clear();
    });
    world.scene.fake.delete_security_group(&backend).await.unwrap();
    world.scene.an_hour_later().await;
    world.scene.rest().await;
    assert_ne!(world.backend(), backend);
    world.send().await.unwrap();
    assert_eq!(world.opened(), [NODE_PORTS]);
}
