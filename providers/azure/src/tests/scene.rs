//! A cluster with Services, a cloud, and a provider that is run until it is at rest.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use berth_api::service::ServiceKey;
use berth_arm_fake::Fake;
use berth_provider::conformance::{FaultGate, Verdict};
use berth_provider::{Intent, Namespaces, Outcome, PlannedStep, Provider as _, Shard, Wanted, carry_out};
use http::{Method, Request, Response};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::arm::{Id, Verb, right};
use crate::pipeline::token::{TokenError, Tokens};
use crate::pipeline::{Pipeline, Transport};
use crate::settings::Settings;
use crate::step::Step;
use crate::{Admission, Azure, names};

/// Rounds after which something is never at rest.
const ROUNDS: usize = 40;
pub const GROUP: &str = "/subscriptions/s/resourceGroups/rg/providers/Microsoft.Network";

/// Settings under which everything is admitted.
pub fn settings() -> Settings {
    let admission = Admission { public: Namespaces::All, references: Namespaces::All };
    Settings { admission, ..Settings::of("prod", "uid-of-kube-system", "s", "rg", "westeurope") }
}

/// A cloud with the network of [`settings`], and a security group with a rule of somebody else.
pub fn cloud() -> Arc<Fake> {
    let fake = Fake::default();
    let subnet = |name: &str, prefix: &str| json!({"name": name, "properties": {"addressPrefix": prefix}});
    let network = json!({"location": "westeurope", "properties": {
        "subnets": [subnet("default", "10.0.0.0/16"), subnet("apps", "10.1.0.0/24"), subnet("tiny", "10.2.0.0/29")],
    }});
    fake.plant(&format!("{GROUP}/virtualNetworks/prod-vnet"), network).unwrap();
    let theirs = json!({"name": "ssh", "newField": {"a": [1, null]}, "properties": {
        "protocol": "Tcp", "access": "Allow", "direction": "Inbound", "priority": 500, "sourcePortRange": "*",
        "sourceAddressPrefix": "192.0.2.7", "destinationAddressPrefix": "*", "destinationPortRange": "22",
    }});
    let security =
        json!({"location": "westeurope", "properties": {"securityRules": [theirs], "flushConnection": false}});
    fake.plant(&format!("{GROUP}/networkSecurityGroups/prod-nsg"), security).unwrap();
    Arc::new(fake)
}

/// Carries requests to the stand-in, and lets them go wrong.
#[derive(Clone)]
pub struct Wire {
    pub fake: Arc<Fake>,
    pub gate: Arc<FaultGate>,
    pub began: Instant,
    rights: Arc<Mutex<BTreeSet<String>>>,
}

impl Wire {
    pub fn new(fake: Arc<Fake>) -> Self {
        Self { fake, gate: Arc::default(), began: Instant::now(), rights: Arc::default() }
    }

    /// The rights that the calls so far have taken.
    pub fn rights(&self) -> BTreeSet<String> {
        self.rights.lock().unwrap().clone()
    }
}

impl Transport for Wire {
    async fn send(&self, request: Request<Vec<u8>>) -> Result<Response<Vec<u8>>, String> {
        self.rights.lock().unwrap().extend(taken(&request));
        let verdict = if request.method() == Method::GET { self.gate.read() } else { self.gate.write() };
        if verdict == Verdict::Refuse {
            return Err("no route to host".to_owned());
        }
        let answer = self.fake.handle(&request, self.began.elapsed());
        if verdict == Verdict::LoseAnswer {
            return Err("connection reset".to_owned());
        }
        answer.ok_or_else(|| "connection reset".to_owned())
    }
}

/// The rights that a call takes: for itself, and for what is referred to in what it writes.
fn taken(request: &Request<Vec<u8>>) -> Vec<String> {
    const JOINS: [(&str, &str); 4] = [
        ("subnet", "Microsoft.Network/virtualNetworks/subnets/join/action"),
        ("publicIPAddress", "Microsoft.Network/publicIPAddresses/join/action"),
        ("publicIPPrefix", "Microsoft.Network/publicIPPrefixes/join/action"),
        ("virtualNetwork", "Microsoft.Network/virtualNetworks/joinLoadBalancer/action"),
    ];
    fn walk(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                for (field, value) in fields {
                    let join = JOINS.iter().find(|(of, _)| of == field && value["id"].is_string());
                    found.extend(join.map(|(_, right)| (*right).to_owned()));
                    walk(value, found);
                }
            }
            Value::Array(all) => all.iter().for_each(|one| walk(one, found)),
            _ => {}
        }
    }
    // How an operation goes is asked for by a link of its own, which takes no right.
    let path = request.uri().path();
    if !path.contains("/resourceGroups/") {
        return Vec::new();
    }
    let verb = match *request.method() {
        Method::PUT => Verb::Write,
        Method::DELETE => Verb::Delete,
        _ => Verb::Read,
    };
    let mut rights = vec![right(&Id::new(path), verb)];
    walk(&serde_json::from_slice(request.body()).unwrap_or_default(), &mut rights);
    rights
}

/// A token that is always good.
pub struct Anybody;

impl Tokens for Anybody {
    async fn token<T: Transport>(&self, _transport: &T) -> Result<String, TokenError> {
        Ok("anybody".to_owned())
    }

    fn forget(&self) {}
}

pub type Provider = Azure<Pipeline<Wire, Anybody>>;

pub fn provider(wire: &Wire, settings: Settings) -> Provider {
    Azure::new(Pipeline::new(wire.clone(), Anybody, "http://fake"), settings)
}

/// Annotations, those of Azure by the names behind their prefix.
pub fn annotated(annotations: &[(&str, &str)]) -> BTreeMap<String, String> {
    let full = |name: &str| if name.contains('/') { name.to_owned() } else { crate::annotation::full(name) };
    annotations.iter().map(|(name, value)| (full(name), (*value).to_owned())).collect()
}

/// The UID of the Service by this name.
pub fn uid(name: &str) -> String {
    let digest = names::digest(name);
    format!("{digest}-1111-4222-8333-{digest}{}", &names::digest(&digest)[..4])
}

/// A public Service.
pub const PUBLIC: (&str, &str) = ("azure-load-balancer-internal", "false");

/// A Service with the TCP port 80 unless its spec says something else; its node port is told by its name.
pub fn service(name: &str, annotations: &[(&str, &str)], spec: Value) -> Intent {
    let number = name.bytes().fold(0_u32, |sum, byte| (sum * 31 + u32::from(byte)) % 2000);
    let mut all = json!({
        "type": "LoadBalancer", "ipFamilies": ["IPv4"],
        "ports": [{"name": "http", "port": 80, "nodePort": 30_000 + number, "targetPort": 8080}],
    });
    if let (Some(all), Some(spec)) = (all.as_object_mut(), spec.as_object()) {
        all.extend(spec.clone());
    }
    let service = json!({
        "metadata": {
            "namespace": "shop", "name": name, "uid": uid(name), "annotations": annotated(annotations),
            "creationTimestamp": format!("2026-01-01T00:00:{:02}Z", name.bytes().next().unwrap() % 60),
        },
        "spec": all,
    });
    Intent::of(&serde_json::from_value(service).unwrap()).unwrap()
}

/// Ports as `TCP/80:30080`.
pub fn ports(words: &[&str]) -> Value {
    let port = |word: &&str| {
        let (protocol, rest) = word.split_once('/').unwrap();
        let (port, node_port) = rest.split_once(':').unwrap();
        let (number, node_port): (u16, u16) = (port.parse().unwrap(), node_port.parse().unwrap());
        json!({"name": format!("{}-{port}", protocol.to_lowercase()), "protocol": protocol, "port": number, "nodePort": node_port})
    };
    json!({ "ports": words.iter().map(port).collect::<Vec<_>>() })
}

/// A cluster, and the cloud that it is in.
pub struct Scene {
    pub wire: Wire,
    pub settings: Settings,
    pub provider: Provider,
    pub present: BTreeMap<ServiceKey, Intent>,
    pub leaving: Vec<Intent>,
    pub outcomes: BTreeMap<ServiceKey, Outcome>,
    pub failures: Vec<String>,
}

impl Scene {
    pub fn new() -> Self {
        Self::with(settings(), cloud())
    }

    pub fn with(settings: Settings, fake: Arc<Fake>) -> Self {
        let wire = Wire::new(fake);
        let provider = provider(&wire, settings.clone());
        let (present, outcomes) = (BTreeMap::new(), BTreeMap::new());
        Self { wire, settings, provider, present, leaving: Vec::new(), outcomes, failures: Vec::new() }
    }

    pub fn fake(&self) -> &Fake {
        &self.wire.fake
    }

    /// The process dies and another one takes its place.
    pub fn restart(&mut self) {
        self.provider = provider(&self.wire, self.settings.clone());
    }

    pub fn apply(&mut self, mut intent: Intent) {
        if let Some(before) = self.present.get(&intent.id.key) {
            intent.published.clone_from(&before.published);
        }
        self.leaving.retain(|leaving| leaving.id != intent.id);
        self.present.insert(intent.id.key.clone(), intent);
    }

    pub fn delete(&mut self, name: &str) {
        let key = key(name);
        self.outcomes.remove(&key);
        self.leaving.extend(self.present.remove(&key));
    }

    pub fn wanted(&self) -> Wanted {
        let leaving = self.leaving.iter().map(|intent| (intent.id.clone(), intent.clone())).collect();
        Wanted { present: self.present.clone(), leaving }
    }

    pub async fn plan(&self) -> Vec<PlannedStep<Step>> {
        let wanted = self.wanted();
        let observed = self.provider.observe(&shard(), &wanted).await.unwrap();
        self.provider.plan(&wanted, &observed).steps
    }

    /// Looks once, and does what is to be done. Returns how many steps there were.
    pub async fn round(&mut self) -> usize {
        let wanted = self.wanted();
        self.failures.clear();
        let mut observed = match self.provider.observe(&shard(), &wanted).await {
            Ok(observed) => observed,
            Err(failure) => {
                self.failures.push(failure.to_string());
                return 0;
            }
        };
        let plan = self.provider.plan(&wanted, &observed);
        let carried = carry_out(&self.provider, &shard(), &plan, &mut observed, || true).await;
        self.failures.extend(carried.failures.values().map(ToString::to_string));
        for (key, outcome) in plan.outcomes {
            let Some(intent) = self.present.get_mut(&key).filter(|i| !carried.failures.contains_key(&i.id)) else {
                continue;
            };
            intent.published.clone_from(&outcome.ingress);
            self.outcomes.insert(key, outcome);
        }
        plan.steps.len()
    }

    /// Goes on until nothing is left to do.
    pub async fn rest(&mut self) {
        for _ in 0..ROUNDS {
            let steps = self.round().await;
            if steps == 0 && self.failures.is_empty() && self.outcomes.values().all(|o| o.look_again.is_none()) {
                return;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        panic!("never at rest: {:?} {:?}", self.failures, self.outcomes);
    }

    /// What is said of a Service: its addresses, or the reason and message why not.
    pub fn says(&self, name: &str) -> String {
        let outcome = &self.outcomes[&key(name)];
        if outcome.met {
            return self.addresses(name).join(" ");
        }
        let condition = &outcome.conditions[0];
        format!("{}: {}", condition.reason, condition.message)
    }

    pub fn addresses(&self, name: &str) -> Vec<String> {
        self.present[&key(name)].published.iter().map(|i| i.ip.clone().unwrap()).collect()
    }

    pub fn document(&self, path: &str) -> Option<Value> {
        self.fake().resources().remove(&format!("{GROUP}/{path}"))
    }

    /// The parts of a document, by name.
    pub fn parts(&self, path: &str, kind: &str) -> BTreeMap<String, Value> {
        let document = self.document(path).unwrap_or_default();
        let parts = crate::document::parts(&document, kind).iter();
        parts.map(|part| (crate::document::name(part).to_owned(), part["properties"].clone())).collect()
    }

    pub fn counted(&self, what: &str) -> u64 {
        self.fake().counts().get(what).copied().unwrap_or(0)
    }
}

pub fn key(name: &str) -> ServiceKey {
    ServiceKey { namespace: "shop".to_owned(), name: name.to_owned() }
}

pub fn shard() -> Shard {
    Shard("azure".to_owned())
}

/// What all names of a Service begin with.
pub fn base(name: &str) -> String {
    names::base(&uid(name))
}
