//! A VPC, nodes in it, and a cluster whose Services are served.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use berth_aws::pace::Rates;
use berth_aws::{Admission, Aws, Namespaces, Settings};
use berth_aws_sdk::Sdk;
use berth_moto::{Moto, Tools};
use berth_provider::{
    Carried, Failure, Intent, Provider as _, ServiceTargets, Shard, TargetNode, Targets, Wanted, carry_out,
};
use serde_json::{Value, json};

/// Rounds after which something is never at rest.
const ROUNDS: usize = 60;
/// Longest time for a call in tests: what hangs is to be given up soon.
const CALL: std::time::Duration = std::time::Duration::from_secs(5);
/// The prefix of ALBC's annotations.
const PREFIX: &str = "service.beta.kubernetes.io/aws-load-balancer-";

/// What answers in AWS's place, with a VPC and two nodes.
pub struct World {
    pub tools: Tools,
    pub moto: Moto,
    pub vpc: String,
    pub nodes: Arc<[TargetNode]>,
    pub certificates: Vec<String>,
}

/// A configuration as a pod would have it, for what answers there.
pub async fn config(endpoint: &str) -> SdkConfig {
    let timeouts = TimeoutConfig::builder().operation_timeout(CALL).build();
    let loader = aws_config::defaults(BehaviorVersion::latest()).test_credentials().region(Region::new("us-east-1"));
    loader.endpoint_url(endpoint).retry_config(RetryConfig::disabled()).timeout_config(timeouts).load().await
}

impl World {
    pub fn new() -> Self {
        #[expect(clippy::print_stderr, reason = "a person waits for it")]
        let tools = berth_moto::ready(&|what| eprintln!("{what}")).unwrap();
        let moto = Moto::start(&tools).unwrap();
        let ground = tools.lay(&moto.endpoint(), 2).unwrap();
        let node = |(number, id): (usize, &String)| TargetNode {
            name: format!("node-{number}"),
            provider_id: id.clone(),
            labels: BTreeMap::new(),
            addresses: Vec::new(),
        };
        let nodes = ground.instances.iter().enumerate().map(node).collect();
        let world = Self { tools, moto, vpc: ground.vpc, nodes, certificates: ground.certificates };
        // The first call of a kind has moto load what answers it, which takes long.
        world.look();
        world
    }

    pub fn look(&self) -> Value {
        self.tools.look(&self.moto.endpoint()).unwrap()
    }

    pub fn settings(&self) -> Settings {
        let (internet_facing, references) = (Namespaces::All, Namespaces::All);
        let admission = Admission { internet_facing, references, load_balancers_per_namespace: None };
        // Nobody asks DNS here.
        let replaced_stays = Duration::ZERO;
        Settings { admission, replaced_stays, ..Settings::of("bench", "uid-of-kube-system", &self.vpc) }
    }

    /// A cluster that reaches AWS there.
    pub async fn cluster(&self, endpoint: &str) -> Cluster {
        Cluster {
            provider: self.provider(endpoint).await,
            nodes: self.nodes.clone(),
            wanted: BTreeMap::new(),
            leaving: Vec::new(),
            failures: Vec::new(),
            log: Vec::new(),
            comes: false,
        }
    }

    /// A provider that knows nothing yet.
    pub async fn provider(&self, endpoint: &str) -> Aws<Sdk> {
        Aws::new(Sdk::new(&config(endpoint).await, &Rates::default()), self.settings())
    }
}

/// A Service, with annotations by the names behind their prefix and a spec laid over the usual one.
pub fn service(name: &str, annotations: &[(&str, &str)], spec: Value) -> Intent {
    let mut all = json!({
        "type": "LoadBalancer", "ipFamilies": ["IPv4"],
        "ports": [{"name": "http", "port": 80, "nodePort": 30_080, "targetPort": 8080}],
    });
    all.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    let full = |name: &str| if name.contains('/') { name.to_owned() } else { format!("{PREFIX}{name}") };
    let annotations: BTreeMap<_, _> = annotations.iter().map(|(name, value)| (full(name), *value)).collect();
    let place = name.bytes().next_back().unwrap() % 60;
    let metadata = json!({
        "namespace": "shop", "name": name, "uid": format!("uid-of-{name}"), "annotations": annotations,
        "creationTimestamp": format!("2026-01-01T00:00:{place:02}Z"),
    });
    Intent::of(&serde_json::from_value(json!({ "metadata": metadata, "spec": all })).unwrap()).unwrap()
}

/// A cluster's Services, and the provider that serves them.
pub struct Cluster {
    pub provider: Aws<Sdk>,
    pub nodes: Arc<[TargetNode]>,
    wanted: BTreeMap<String, Intent>,
    leaving: Vec<Intent>,
    /// What failed since the beginning.
    pub failures: Vec<Failure>,
    /// What was done since the last rest began.
    pub log: Vec<String>,
    /// Whether something in AWS takes its time.
    comes: bool,
}

/// How long what takes its time in AWS is given before it is looked at again.
const COMES: Duration = Duration::from_secs(1);

impl Cluster {
    /// Makes a Service, or changes it; its status stays.
    pub fn apply(&mut self, mut intent: Intent) {
        let name = intent.id.key.name.clone();
        if let Some(before) = self.wanted.get(&name) {
            intent.published.clone_from(&before.published);
        }
        self.wanted.insert(name, intent);
    }

    pub fn delete(&mut self, name: &str) {
        self.leaving.extend(self.wanted.remove(name));
    }

    pub fn delete_all(&mut self) {
        let names: Vec<_> = self.wanted.keys().cloned().collect();
        for name in names {
            self.delete(&name);
        }
    }

    pub fn published(&self, name: &str) -> String {
        format!("{:?}", self.wanted[name].published)
    }

    fn shards(&self) -> BTreeMap<Shard, Wanted> {
        let mut shards: BTreeMap<_, Wanted> = BTreeMap::new();
        for intent in self.wanted.values() {
            let wanted = shards.entry(self.provider.shard(intent)).or_default();
            wanted.present.insert(intent.id.key.clone(), intent.clone());
        }
        for intent in &self.leaving {
            let wanted = shards.entry(self.provider.shard(intent)).or_default();
            wanted.leaving.insert(intent.id.clone(), intent.clone());
        }
        shards
    }

    /// Looks at everything once and does what is to be done; how much that was, or went wrong.
    pub async fn round(&mut self) -> usize {
        let mut count = 0;
        self.comes = false;
        for (shard, wanted) in self.shards() {
            let mut observed = match self.provider.observe(&shard, &wanted).await {
                Ok(observed) => observed,
                Err(failure) => {
                    self.failures.push(failure);
                    count += 1;
                    continue;
                }
            };
            let plan = self.provider.plan(&wanted, &observed);
            count += plan.steps.len();
            self.log.extend(plan.steps.iter().map(|planned| planned.step.to_string()));
            let Carried { failures, .. } = carry_out(&self.provider, &shard, &plan, &mut observed, || true).await;
            if failures.is_empty() {
                self.provider.learned(&shard, &wanted, &observed);
            }
            for (key, outcome) in &plan.outcomes {
                let intent = self.wanted.get_mut(&key.name).filter(|intent| !failures.contains_key(&intent.id));
                let Some(intent) = intent else { continue };
                count += usize::from(intent.published != outcome.ingress);
                self.comes |= outcome.look_again.is_some();
                intent.published.clone_from(&outcome.ingress);
            }
            self.failures.extend(failures.into_values());
            let of = |intent: &Intent| {
                (intent.id.clone(), ServiceTargets { intent: intent.clone(), endpoints: [].into(), gated: [].into() })
            };
            let targets = Targets { nodes: self.nodes.clone(), services: wanted.present.values().map(of).collect() };
            match self.provider.sync_targets(&shard, &targets).await {
                Ok(report) => count += report.added + report.removed,
                Err(failure) => {
                    self.failures.push(failure);
                    count += 1;
                }
            }
        }
        count
    }

    /// Goes on until two rounds find nothing to do.
    pub async fn rest(&mut self) {
        self.log.clear();
        let mut still = 0;
        for _ in 0..ROUNDS {
            still = if self.round().await == 0 && !self.comes { still + 1 } else { 0 };
            if self.comes {
                tokio::time::sleep(COMES).await;
            }
            if still == 2 {
                self.leaving.clear();
                return;
            }
        }
        let failed = self.failures.iter().rev().take(5).map(ToString::to_string).collect::<Vec<_>>();
        let done = self.log.iter().rev().take(20).cloned().collect::<Vec<_>>();
        panic!("never at rest; done last: {done:#?}; failed last: {failed:#?}");
    }
}
