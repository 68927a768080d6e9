//! A controller as a process: it can be killed at any moment, and another one begins with what there is.

use std::time::Duration;

use berth_aws::fake::Fake;
use berth_aws::{Admission, Aws, Namespaces, Settings};
use berth_provider::class::ProviderName;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::json;
use tokio::task::JoinSet;

use super::pods;
use crate::in_memory::{Api, Backends, Gates, Process, Shared, key};
use crate::lease::Leadership;

/// Long enough for everything but the hourly look.
const A_WHILE: Duration = Duration::from_mins(20);
/// How long the cloud takes for what it takes its time for.
const CLOUD: Duration = Duration::from_secs(20);

/// A cluster in AWS.
pub(super) struct Cluster {
    pub(super) api: Shared,
    pub(super) cloud: Fake,
    pub(super) settings: Settings,
    backends: Backends,
    /// Whether readiness gates of pods are heeded.
    pub(super) heeds_gates: bool,
    running: Option<Process>,
    _time: JoinSet<()>,
}

impl Cluster {
    /// With three nodes, each an instance.
    pub(super) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(super) fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let admission =
            Admission { internet_facing: Namespaces::All, references: Namespaces::All, ..Admission::default() };
        let mut settings = Settings { admission, ..Settings::of("prod", "uid-of-kube-system", "vpc-1") };
        change(&mut settings);
        let cloud = Fake::new("vpc-1");
        cloud.with(|state| state.instances = (0..100).map(|number| format!("i-{number}")).collect());
        let mut time = JoinSet::new();
        let slow = cloud.clone();
        time.spawn(async move {
            loop {
                tokio::time::sleep(CLOUD).await;
                slow.settle();
            }
        });
        let api = Api::of("berth.dev/aws-nlb");
        let mut cluster = Self {
            api,
            cloud,
            settings,
            backends: Backends::default(),
            heeds_gates: false,
            running: None,
            _time: time,
        };
        (1..=3).for_each(|number| cluster.node(number, "True"));
        cluster
    }

    /// Starts a process in place of the one that runs, which is killed.
    pub(super) fn start(&mut self) {
        self.start_with(&[ProviderName::Aws, ProviderName::Pool], Leadership::alone());
    }

    pub(super) fn start_with(&mut self, providers: &[ProviderName], leadership: Leadership) {
        self.kill();
        let is_on = providers.contains(&ProviderName::Aws);
        let cloud = is_on.then(|| (ProviderName::Aws, Aws::new(self.cloud.clone(), self.settings.clone())));
        let gates = self.heeds_gates.then_some(pods::watch as Gates);
        self.running = Some(Process::start(&self.api, providers, cloud, leadership, &self.backends, gates));
    }

    /// A person names the Services whose orphans are to be removed, by their UIDs.
    pub(super) fn remove_orphans_of(&self, uids: &[&str]) {
        let uids = uids.iter().map(|uid| (*uid).to_owned()).collect();
        self.running.as_ref().unwrap().name_orphans(uids);
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

    /// A Service is there, by default an internal one with instances as targets.
    pub(super) async fn served(&mut self, name: &str, annotations: &[(&str, &str)]) {
        self.apply(name, annotations, &json!({}));
        self.start();
        self.rest().await;
        let served = self.api(|api| (api.hostname(name), api.says(name, "Allocated")));
        assert!(served.0.is_some() && served.1.starts_with("True Allocated"), "{served:?}");
    }

    pub(super) fn apply(&self, name: &str, annotations: &[(&str, &str)], spec: &serde_json::Value) {
        let full = |name: &str| if name.contains('/') { name.to_owned() } else { berth_aws::annotation::full(name) };
        let pairs = annotations.iter().map(|(name, value)| (full(name), json!(value)));
        let annotations = serde_json::Value::Object(pairs.collect());
        self.api(|api| api.apply(name, annotations, spec));
    }

    pub(super) fn node(&mut self, number: usize, ready: &str) {
        self.node_as(number, ready, &json!({}));
    }

    pub(super) fn node_as(&mut self, number: usize, ready: &str, labels: &serde_json::Value) {
        let node = json!({
            "metadata": {"name": format!("node-{number}"), "labels": labels},
            "spec": {"providerID": format!("aws:///eu-central-1a/i-{number}")},
            "status": {"conditions": [{"type": "Ready", "status": ready}]},
        });
        let node: Node = serde_json::from_value(node).unwrap();
        self.backends.node(&node, self.running.as_ref());
    }

    pub(super) fn no_node(&mut self, number: usize) {
        self.backends.no_node(&format!("node-{number}"), self.running.as_ref());
    }

    /// The endpoints of a Service.
    pub(super) fn endpoints(&mut self, name: &str, addresses: &[&str]) {
        let endpoints: Vec<_> = addresses.iter().map(|address| json!({"addresses": [address]})).collect();
        let slice = json!({
            "metadata": {"namespace": "shop", "name": name, "labels": {"kubernetes.io/service-name": name}},
            "addressType": "IPv4", "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}], "endpoints": endpoints,
        });
        let slice: EndpointSlice = serde_json::from_value(slice).unwrap();
        self.backends.slice(&slice, self.running.as_ref());
    }

    /// What is in the cloud that is ours, without what is in it.
    pub(super) fn ours(&self) -> Vec<String> {
        let lines = self.cloud.dump(&self.settings, true);
        lines.iter().map(|line| line.split([' ', ':']).take(2).collect::<Vec<_>>().join(" ")).collect()
    }

    pub(super) fn calls(&self, action: &str) -> u64 {
        self.cloud.with(|state| state.calls.get(action).copied().unwrap_or_default())
    }

    /// Targets that are registered.
    pub(super) fn targets(&self) -> Vec<String> {
        let mut all: Vec<_> = self.cloud.with(|state| {
            let each = state.targets.values().flat_map(|of| &of.registered);
            let each = each.filter(|(_, (state, _))| state.is_registered());
            each.map(|(target, _)| target.to_string()).collect()
        });
        all.sort();
        all
    }

    pub(super) fn uid(&self, name: &str) -> Option<String> {
        self.api(|api| api.service(&key(name))).and_then(|service| service.metadata.uid)
    }
}
