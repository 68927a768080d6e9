//! A cluster with Services, a cloud, and a provider that is run until it is at rest.

use std::collections::BTreeMap;
use std::time::Duration;

use berth_api::service::ServiceKey;
use berth_provider::{Carried, Intent, Namespaces, Outcome, PlannedStep, Provider, Wanted, carry_out};
use serde_json::{Value, json};

use crate::fake::Fake;
use crate::settings::Settings;
use crate::step::Step;
use crate::{Admission, Aws};

/// Rounds after which something is never at rest.
const ROUNDS: usize = 30;

/// Settings under which everything is admitted.
pub fn settings() -> Settings {
    let admission =
        Admission { internet_facing: Namespaces::All, references: Namespaces::All, load_balancers_per_namespace: None };
    Settings { admission, ..Settings::of("prod", "uid-of-kube-system", "vpc-1") }
}

/// A cloud with the VPC of [`settings`].
pub fn cloud() -> Fake {
    Fake::new("vpc-1")
}

/// Annotations, those of AWS by the names behind their prefix.
pub fn annotated(annotations: &[(&str, &str)]) -> BTreeMap<String, String> {
    let full = |name: &str| if name.contains('/') { name.to_owned() } else { crate::annotation::full(name) };
    annotations.iter().map(|(name, value)| (full(name), (*value).to_owned())).collect()
}

/// A Service that was made at its place in the alphabet, with the TCP port 80 unless its spec says something else.
pub fn service(name: &str, annotations: &[(&str, &str)], spec: Value) -> Intent {
    let mut all = json!({
        "type": "LoadBalancer", "ipFamilies": ["IPv4"],
        "ports": [{"name": "http", "port": 80, "nodePort": 30_080, "targetPort": 8080}],
    });
    if let (Some(all), Some(spec)) = (all.as_object_mut(), spec.as_object()) {
        all.extend(spec.clone());
    }
    let service = json!({
        "metadata": {
            "namespace": "shop", "name": name, "uid": format!("uid-of-{name}"), "annotations": annotated(annotations),
            "creationTimestamp": format!("2026-01-01T00:00:{:02}Z", name.bytes().next().unwrap() - b'a'),
        },
        "spec": all,
    });
    Intent::of(&serde_json::from_value(service).unwrap()).unwrap()
}

/// Ports as `TCP/80:30080`, each with its target port 8000 above.
pub fn ports(words: &[&str]) -> Value {
    let port = |word: &&str| {
        let (protocol, rest) = word.split_once('/').unwrap();
        let (port, node_port) = rest.split_once(':').unwrap();
        let (number, node_port): (u16, u16) = (port.parse().unwrap(), node_port.parse().unwrap());
        let name = format!("{}-{port}", protocol.to_lowercase());
        json!({"name": name, "protocol": protocol, "port": number, "nodePort": node_port, "targetPort": number + 8000})
    };
    json!({ "ports": words.iter().map(port).collect::<Vec<_>>() })
}

/// A cluster, and the cloud that it is in.
pub struct Scene {
    pub fake: Fake,
    pub settings: Settings,
    pub provider: Aws<Fake>,
    pub wanted: BTreeMap<ServiceKey, Intent>,
    pub leaving: Vec<Intent>,
    pub outcomes: BTreeMap<ServiceKey, Outcome>,
    /// What was done, as a person reads it.
    pub log: Vec<String>,
}

impl Scene {
    pub fn new() -> Self {
        Self::with(settings())
    }

    pub fn with(settings: Settings) -> Self {
        let fake = cloud();
        let provider = Aws::new(fake.clone(), settings.clone());
        let (wanted, leaving, outcomes, log) = Default::default();
        Self { fake, settings, provider, wanted, leaving, outcomes, log }
    }

    /// Makes a Service, or changes it; its status stays.
    pub fn apply(&mut self, mut intent: Intent) {
        if let Some(before) = self.wanted.get(&intent.id.key) {
            intent.published.clone_from(&before.published);
        }
        self.wanted.insert(intent.id.key.clone(), intent);
    }

    pub fn delete(&mut self, name: &str) {
        let key = ServiceKey { namespace: "shop".to_owned(), name: name.to_owned() };
        self.leaving.extend(self.wanted.remove(&key));
        self.outcomes.remove(&key);
    }

    fn shards(&self) -> BTreeMap<berth_provider::Shard, Wanted> {
        let mut shards: BTreeMap<_, Wanted> = BTreeMap::new();
        for (key, intent) in &self.wanted {
            shards.entry(self.provider.shard(intent)).or_default().present.insert(key.clone(), intent.clone());
        }
        for intent in &self.leaving {
            shards.entry(self.provider.shard(intent)).or_default().leaving.insert(intent.id.clone(), intent.clone());
        }
        shards
    }

    /// What would be done now.
    pub async fn plan(&self) -> Vec<PlannedStep<Step>> {
        let mut steps = Vec::new();
        for (shard, wanted) in self.shards() {
            let observed = self.provider.observe(&shard, &wanted).await.unwrap();
            steps.extend(self.provider.plan(&wanted, &observed).steps);
        }
        steps
    }

    /// Looks once at everything and does what is to be done.
    pub async fn round(&mut self) -> usize {
        let mut count = 0;
        for (shard, wanted) in self.shards() {
            let mut observed = match self.provider.observe(&shard, &wanted).await {
                Ok(observed) => observed,
                Err(failure) => {
                    self.log.push(format!("FAILED: {failure}"));
                    count += 1;
                    continue;
                }
            };
            let plan = self.provider.plan(&wanted, &observed);
            count += plan.steps.len();
            let mark = |planned: &PlannedStep<Step>| if planned.disruptive { "DISRUPTIVE " } else { "" };
            self.log.extend(plan.steps.iter().map(|planned| format!("{}{}", mark(planned), planned.step)));
            let Carried { failures, .. } = carry_out(&self.provider, &shard, &plan, &mut observed, || true).await;
            if failures.is_empty() {
                self.provider.learned(&shard, &wanted, &observed);
            }
            self.log.extend(failures.values().map(|failure| format!("FAILED: {failure}")));
            for (key, outcome) in plan.outcomes {
                let Some(intent) = self.wanted.get_mut(&key).filter(|i| !failures.contains_key(&i.id)) else {
                    continue;
                };
                if intent.published != outcome.ingress {
                    count += 1;
                }
                intent.published.clone_from(&outcome.ingress);
                self.outcomes.insert(key, outcome);
            }
        }
        count
    }

    /// What takes its time in AWS is done, and heard of.
    pub async fn settle(&self) {
        self.fake.settle();
        tokio::time::advance(Duration::from_secs(10)).await;
    }

    /// So much time goes by that everything is looked at again.
    pub async fn an_hour_later(&self) {
        tokio::time::advance(Duration::from_hours(2)).await;
    }

    /// Goes on until there is nothing to do, and gives what was done.
    pub async fn rest(&mut self) -> Vec<String> {
        self.log.clear();
        for _ in 0..ROUNDS {
            let count = self.round().await;
            self.settle().await;
            if count == 0 && self.outcomes.values().all(|outcome| outcome.look_again.is_none()) {
                self.leaving.clear();
                return self.log.clone();
            }
        }
        panic!("never at rest: {:#?}", self.log);
    }

    /// What is said of a Service: its hostname when it is served, or the reason why it is not.
    pub fn says(&self, name: &str) -> String {
        let key = ServiceKey { namespace: "shop".to_owned(), name: name.to_owned() };
        let outcome = &self.outcomes[&key];
        match outcome.ingress.first().and_then(|ingress| ingress.hostname.clone()) {
            Some(hostname) if outcome.met => hostname,
            _ => outcome.conditions[0].reason.to_string(),
        }
    }

    pub fn message(&self, name: &str) -> &str {
        let key = ServiceKey { namespace: "shop".to_owned(), name: name.to_owned() };
        &self.outcomes[&key].conditions[0].message
    }

    pub fn ours(&self) -> Vec<String> {
        self.fake.dump(&self.settings, true)
    }
}
