//! A cluster in Azure, among things of others.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use berth_arm_fake::Fake;
use berth_azure::pipeline::token::{TokenError, Tokens};
use berth_azure::pipeline::{Pipeline, Transport};
use berth_azure::{Admission, Azure, Namespaces, Settings};
use berth_provider::class::ProviderName;
use berth_provider::conformance::{FaultGate, Verdict};
use http::{Method, Request, Response};
use k8s_openapi::api::core::v1::Node;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::in_memory::{Api, Backends, Process, Shared, key};
use crate::lease::Leadership;

/// Long enough for everything but the hourly look and an operation that is stuck.
const A_WHILE: Duration = Duration::from_mins(9);
/// How long Azure takes for a write.
const WRITE: Duration = Duration::from_secs(2);
/// Where everything is.
pub(super) const GROUP: &str = "/subscriptions/s/resourceGroups/rg/providers/Microsoft.Network";
/// What lists of parts documents have.
const PARTS: [&str; 8] = [
    "frontendIPConfigurations",
    "backendAddressPools",
    "loadBalancingRules",
    "probes",
    "outboundRules",
    "inboundNatRules",
    "securityRules",
    "subnets",
];

/// A cluster in Azure.
pub(super) struct Cluster {
    pub(super) api: Shared,
    pub(super) fake: Arc<Fake>,
    pub(super) gate: Arc<FaultGate>,
    pub(super) settings: Settings,
    /// What others have.
    planted: BTreeMap<String, Value>,
    backends: Backends,
    running: Option<Process>,
    began: Instant,
}

/// Carries requests to the stand-in, and lets them go wrong.
struct Wire {
    fake: Arc<Fake>,
    gate: Arc<FaultGate>,
    began: Instant,
}

impl Transport for Wire {
    async fn send(&self, request: Request<Vec<u8>>) -> Result<Response<Vec<u8>>, String> {
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

/// A token that is always good.
struct Anybody;

impl Tokens for Anybody {
    async fn token<T: Transport>(&self, _transport: &T) -> Result<String, TokenError> {
        Ok("anybody".to_owned())
    }

    fn forget(&self) {}
}

/// A network with three nodes, and what others have: a security rule, and in the load balancer of our name what AKS has there.
fn plant(fake: &Fake) {
    let subnet = |name: &str, prefix: &str| json!({"name": name, "properties": {"addressPrefix": prefix}});
    let of = |kind: &str, name: &str| json!({"id": format!("{GROUP}/loadBalancers/prod/{kind}/{name}")});
    let ssh = json!({"name": "ssh", "newField": {"a": [1, null]}, "properties": {
        "protocol": "Tcp", "access": "Allow", "direction": "Inbound", "priority": 500, "sourcePortRange": "*",
        "sourceAddressPrefix": "192.0.2.7", "destinationAddressPrefix": "*", "destinationPortRange": "22",
    }});
    for (path, document) in [
        (
            "virtualNetworks/prod-vnet",
            json!({"properties": {"subnets": [subnet("default", "10.0.0.0/16"), subnet("apps", "10.1.0.0/24")]}}),
        ),
        ("networkSecurityGroups/prod-nsg", json!({"properties": {"securityRules": [ssh], "flushConnection": false}})),
        (
            "publicIPAddresses/egress",
            json!({"sku": {"name": "Standard"}, "tags": {"owner": "them"}, "properties": {
                "publicIPAllocationMethod": "Static", "publicIPAddressVersion": "IPv4",
            }}),
        ),
        (
            "loadBalancers/prod",
            json!({"sku": {"name": "Standard"}, "tags": {"owner": "them"}, "extendedLocation": {"x": 1}, "properties": {
                "frontendIPConfigurations": [{"name": "egress", "properties": {
                    "publicIPAddress": {"id": format!("{GROUP}/publicIPAddresses/egress")},
                }}],
                "backendAddressPools": [{"name": "egress", "properties": {"drainPeriodInSeconds": 7}}],
                "outboundRules": [{"name": "egress", "properties": {
                    "frontendIPConfigurations": [of("frontendIPConfigurations", "egress")],
                    "backendAddressPool": of("backendAddressPools", "egress"), "protocol": "All",
                }}],
            }}),
        ),
    ] {
        let mut document = document;
        document["location"] = "westeurope".into();
        fake.plant(&format!("{GROUP}/{path}"), document).unwrap();
    }
}

/// Without what Azure writes anew each time.
fn bare(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let kept = fields.iter().filter(|(field, _)| !matches!(field.as_str(), "etag" | "provisioningState"));
            Value::Object(kept.map(|(field, value)| (field.clone(), bare(value))).collect())
        }
        Value::Array(items) => items.iter().map(bare).collect(),
        other => other.clone(),
    }
}

/// Every resource and every part of one, by path.
fn flat(resources: BTreeMap<String, Value>) -> BTreeMap<String, Value> {
    let mut all = BTreeMap::new();
    for (id, mut document) in resources {
        let name = id.strip_prefix(GROUP).unwrap_or(&id).trim_start_matches('/').to_owned();
        for kind in PARTS {
            let Some(list) = document["properties"].as_object_mut().and_then(|fields| fields.remove(kind)) else {
                continue;
            };
            for part in list.as_array().into_iter().flatten() {
                all.insert(format!("{name}/{kind}/{}", part["name"].as_str().unwrap()), bare(part));
            }
        }
        all.insert(name, bare(&document));
    }
    all
}

impl Cluster {
    /// With three nodes.
    pub(super) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(super) fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let admission = Admission { public: Namespaces::All, references: Namespaces::All };
        let mut settings =
            Settings { admission, ..Settings::of("prod", "uid-of-kube-system", "s", "rg", "westeurope") };
        change(&mut settings);
        let fake = Fake::default();
        plant(&fake);
        fake.takes(WRITE);
        let planted = flat(fake.resources());
        let (fake, gate, began) = (Arc::new(fake), Arc::default(), Instant::now());
        let (api, backends, running) = (Api::of("berth.dev/azure-lb"), Backends::default(), None);
        let mut cluster = Self { api, fake, gate, settings, planted, backends, running, began };
        (1..=3).for_each(|number| cluster.node(number, "True"));
        cluster
    }

    /// Starts a process in place of the one that runs, which is killed.
    pub(super) fn start(&mut self) {
        self.start_with(&[ProviderName::Azure, ProviderName::Pool], Leadership::alone());
    }

    pub(super) fn start_with(&mut self, providers: &[ProviderName], leadership: Leadership) {
        self.kill();
        let wire = Wire { fake: self.fake.clone(), gate: self.gate.clone(), began: self.began };
        let provider = Azure::new(Pipeline::new(wire, Anybody, "http://fake"), self.settings.clone());
        let cloud = providers.contains(&ProviderName::Azure).then_some((ProviderName::Azure, provider));
        self.running = Some(Process::start(&self.api, providers, cloud, leadership, &self.backends, None));
    }

    pub(super) fn kill(&mut self) {
        self.running = None;
    }

    /// Whether the process leads.
    pub(super) fn lead(&self, leadership: Leadership) {
        self.running.as_ref().unwrap().lead(leadership);
    }

    /// Lets time pass until everything is at rest.
    pub(super) async fn rest(&self) {
        tokio::time::sleep(A_WHILE).await;
    }

    pub(super) fn api<T>(&self, with: impl FnOnce(&mut Api) -> T) -> T {
        with(&mut self.api.lock().unwrap())
    }

    pub(super) fn apply(&self, name: &str, annotations: &[(&str, &str)], spec: &Value) {
        let full = |name: &str| if name.contains('/') { name.to_owned() } else { berth_azure::annotation::full(name) };
        let pairs = annotations.iter().map(|(name, value)| (full(name), json!(value)));
        let annotations = Value::Object(pairs.collect());
        self.api(|api| api.apply(name, annotations, spec));
    }

    /// A Service is there, by default an internal one, and served.
    pub(super) async fn served(&mut self, name: &str, annotations: &[(&str, &str)]) {
        self.apply(name, annotations, &json!({}));
        self.start();
        self.rest().await;
        let served = self.api(|api| (api.addresses(name), api.says(name, "Allocated")));
        assert!(!served.0.is_empty() && served.1.starts_with("True Allocated"), "{served:?}");
    }

    pub(super) fn node(&mut self, number: usize, ready: &str) {
        self.node_as(number, ready, &json!({}));
    }

    pub(super) fn node_as(&mut self, number: usize, ready: &str, labels: &Value) {
        let node = json!({
            "metadata": {"name": format!("node-{number}"), "labels": labels},
            "spec": {"providerID": format!("azure:///subscriptions/s/node-{number}")},
            "status": {
                "conditions": [{"type": "Ready", "status": ready}],
                "addresses": [{"type": "InternalIP", "address": format!("10.0.{}.{}", 200 + number / 256, number % 256)}],
            },
        });
        let node: Node = serde_json::from_value(node).unwrap();
        self.backends.node(&node, self.running.as_ref());
    }

    pub(super) fn no_node(&mut self, number: usize) {
        self.backends.no_node(&format!("node-{number}"), self.running.as_ref());
    }

    /// What there is now that is not others', by path: whole resources and parts of them.
    pub(super) fn ours(&self) -> Vec<String> {
        flat(self.fake.resources()).into_keys().filter(|path| !self.planted.contains_key(path)).collect()
    }

    /// Frontends, wherever they are.
    pub(super) fn frontends(&self) -> Vec<String> {
        self.ours().into_iter().filter(|path| path.contains("/frontendIPConfigurations/")).collect()
    }

    /// Asserts that all that others have is as it was.
    pub(super) fn harms_nobody(&self, what: &str) {
        let now = flat(self.fake.resources());
        for (path, before) in &self.planted {
            assert_eq!(now.get(path), Some(before), "{path}, {what}");
        }
    }

    /// The whole of a resource.
    pub(super) fn document(&self, path: &str) -> Value {
        self.fake.resources().remove(&format!("{GROUP}/{path}")).unwrap_or_default()
    }

    /// Addresses in the backend pool of a load balancer.
    pub(super) fn pool(&self, load_balancer: &str) -> Vec<String> {
        let document = self.document(&format!("loadBalancers/{load_balancer}"));
        let pools = document["properties"]["backendAddressPools"].as_array().cloned().unwrap_or_default();
        let pool = pools.into_iter().find(|pool| pool["name"] == "prod").unwrap_or_default();
        let all = pool["properties"]["loadBalancerBackendAddresses"].as_array().cloned().unwrap_or_default();
        let mut all: Vec<_> =
            all.iter().map(|one| one["properties"]["ipAddress"].as_str().unwrap().to_owned()).collect();
        all.sort();
        all
    }

    /// How often something was asked for, such as `PUT loadBalancers`.
    pub(super) fn calls(&self, what: &str) -> u64 {
        self.fake.counts().get(what).copied().unwrap_or_default()
    }

    /// Everything that was asked for.
    pub(super) fn all_calls(&self) -> u64 {
        self.fake.counts().values().sum()
    }

    pub(super) fn uid(&self, name: &str) -> Option<String> {
        self.api(|api| api.service(&key(name))).and_then(|service| service.metadata.uid)
    }
}
