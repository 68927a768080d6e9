//! A controller as a process: it can be killed at any moment, and another one begins with what there is.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use berth_aws::fake::Fake;
use berth_aws::{Admission, Aws, Namespaces, Settings};
use berth_pool::world::World;
use berth_provider::class::{Classes, ProviderName};
use berth_telemetry::Health;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::events::Reporter;
use serde_json::json;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::api::{Api, Shared, client, key};
use super::pods;
use crate::apply::Applier;
use crate::backends::{Feed, NodeState, SliceState};
use crate::documents::{Documents, Named, Ties};
use crate::events;
use crate::lease::Leadership;
use crate::metrics::Metrics;
use crate::reconciler::{Mailbox, Reconciler};
use crate::watch::{KINDS, Message, service_news};

/// Long enough for everything but the hourly look.
const A_WHILE: Duration = Duration::from_mins(20);
/// How long the cloud takes for what it takes its time for.
const CLOUD: Duration = Duration::from_secs(20);
/// Names of kinds, as many as there are.
const ALL_KINDS: [&str; KINDS] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];

/// A cluster in AWS.
pub(super) struct Cluster {
    pub(super) api: Shared,
    pub(super) cloud: Fake,
    pub(super) settings: Settings,
    nodes: BTreeMap<String, Arc<NodeState>>,
    slices: BTreeMap<(String, String), SliceState>,
    /// Whether readiness gates of pods are heeded.
    pub(super) heeds_gates: bool,
    running: Option<Running>,
    _time: JoinSet<()>,
}

struct Running {
    _tasks: JoinSet<()>,
    feed: Feed,
    named: Named,
    lead: watch::Sender<Leadership>,
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
        let api = Shared::default();
        let (nodes, slices, heeds_gates, running) = Default::default();
        let mut cluster = Self { api, cloud, settings, nodes, slices, heeds_gates, running, _time: time };
        (1..=3).for_each(|number| cluster.node(number, "True"));
        cluster
    }

    /// Starts a process in place of the one that runs, which is killed.
    pub(super) fn start(&mut self) {
        self.start_with(&[ProviderName::Aws, ProviderName::Pool], Leadership::alone());
    }

    pub(super) fn start_with(&mut self, providers: &[ProviderName], leadership: Leadership) {
        self.kill();
        let mut tasks = JoinSet::new();
        let (client, metrics) = (client(&self.api), Metrics::new().0);
        let classes = Classes::new(&providers.iter().copied().collect(), &[], None).unwrap();
        let (lead, leadership) = watch::channel(leadership);
        let (listed, told) = watch::channel(false);
        let mut ties = Ties::new(&client, leadership.clone(), told, &metrics);
        if self.heeds_gates {
            tasks.spawn(pods::watch(self.api.clone(), &mut ties.feed));
        }
        let mut mailboxes = BTreeMap::new();
        if providers.contains(&ProviderName::Aws) {
            mailboxes.insert(ProviderName::Aws, Mailbox { asked: ties.asked.clone(), finalizes: true });
            let provider = Aws::new(self.cloud.clone(), self.settings.clone());
            tasks.spawn(Documents::new(provider, ties.clone()).run(CancellationToken::new()));
        }
        let reporter = Reporter { controller: "test".to_owned(), instance: Some("one".to_owned()) };
        let (events, publishing) = events::queue(client.clone(), reporter, metrics.clone());
        tasks.spawn(publishing);
        let applier = Applier { client, events, metrics: metrics.clone(), leadership, classes: classes.clone() };
        let gate = Health::new().gate("everything");
        let world = World::default();
        let mut reconciler = Reconciler::new(applier, metrics, gate, listed, mailboxes, ties.outcomes, world);
        let (to, mut from) = mpsc::channel(16);
        tasks.spawn(async move { reconciler.run(&mut from).await });

        self.nodes.iter().for_each(|(name, node)| ties.feed.nodes.put(name.clone(), Some(node.clone())));
        self.slices.iter().for_each(|(id, slice)| ties.feed.slices.put(id.clone(), Some(slice.clone())));
        let api = self.api.clone();
        let (mut watched, all) = {
            let mut api = api.lock().unwrap();
            (api.watch(), api.keys())
        };
        tasks.spawn(async move {
            let news = |key| {
                let service = api.lock().unwrap().service(&key);
                Message::Changed(Box::new(service_news(&classes, key, service.as_ref())))
            };
            for key in all {
                to.send(news(key)).await.unwrap();
            }
            for kind in ALL_KINDS {
                to.send(Message::Synced(kind)).await.unwrap();
            }
            while let Some(key) = watched.recv().await {
                // A watch takes a moment.
                tokio::time::sleep(Duration::from_millis(1)).await;
                to.send(news(key)).await.unwrap();
            }
        });
        self.running = Some(Running { _tasks: tasks, feed: ties.feed, named: ties.named, lead });
    }

    /// A person names the Services whose orphans are to be removed, by their UIDs.
    pub(super) fn remove_orphans_of(&self, uids: &[&str]) {
        let uids = uids.iter().map(|uid| (*uid).to_owned()).collect();
        self.running.as_ref().unwrap().named.put((), uids);
    }

    pub(super) fn kill(&mut self) {
        self.running = None;
    }

    /// Whether the process leads.
    pub(super) fn lead(&self, leadership: Leadership) {
        self.running.as_ref().unwrap().lead.send_replace(leadership);
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
        let (name, node) = (format!("node-{number}"), Arc::new(NodeState::of(&node)));
        self.nodes.insert(name.clone(), node.clone());
        self.running.iter().for_each(|running| running.feed.nodes.put(name.clone(), Some(node.clone())));
    }

    pub(super) fn no_node(&mut self, number: usize) {
        let name = format!("node-{number}");
        self.nodes.remove(&name);
        self.running.iter().for_each(|running| running.feed.nodes.put(name.clone(), None));
    }

    /// The endpoints of a Service.
    pub(super) fn endpoints(&mut self, name: &str, addresses: &[&str]) {
        let endpoints: Vec<_> = addresses.iter().map(|address| json!({"addresses": [address]})).collect();
        let slice = json!({
            "metadata": {"namespace": "shop", "name": name, "labels": {"kubernetes.io/service-name": name}},
            "addressType": "IPv4", "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}], "endpoints": endpoints,
        });
        let slice: EndpointSlice = serde_json::from_value(slice).unwrap();
        let (id, slice) = (("shop".to_owned(), name.to_owned()), SliceState::of(&slice, false).unwrap());
        self.slices.insert(id.clone(), slice.clone());
        self.running.iter().for_each(|running| running.feed.slices.put(id.clone(), Some(slice.clone())));
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
