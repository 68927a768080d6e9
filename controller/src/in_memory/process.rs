//! A controller as a process.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use berth_pool::world::World;
use berth_provider::Provider;
use berth_provider::class::{Classes, ProviderName};
use berth_telemetry::Health;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::events::Reporter;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::api::{Shared, client};
use crate::apply::Applier;
use crate::backends::{Feed, NodeState, SliceId, SliceState};
use crate::documents::{Documents, Named, Ties};
use crate::events;
use crate::lease::Leadership;
use crate::metrics::Metrics;
use crate::reconciler::{Mailbox, Reconciler};
use crate::watch::{KINDS, Message, service_news};

/// Names of kinds, as many as there are.
const ALL_KINDS: [&str; KINDS] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];

/// The watch of pods, where their readiness gates are heeded.
pub(crate) type Gates = fn(Shared, &mut Feed) -> BoxFuture<'static, ()>;

/// Nodes and endpoints, as the watches would show them to a process that begins.
#[derive(Default)]
pub(crate) struct Backends {
    nodes: BTreeMap<String, Arc<NodeState>>,
    slices: BTreeMap<SliceId, SliceState>,
}

/// One that runs. It is killed by being dropped.
pub(crate) struct Process {
    _tasks: JoinSet<()>,
    feed: Feed,
    named: Named,
    lead: watch::Sender<Leadership>,
}

impl Backends {
    /// A node is there, and a process that runs hears of it.
    pub(crate) fn node(&mut self, node: &Node, running: Option<&Process>) {
        let (name, node) = (node.metadata.name.clone().unwrap(), Arc::new(NodeState::of(node)));
        self.nodes.insert(name.clone(), node.clone());
        if let Some(running) = running {
            running.feed.nodes.put(name.clone(), Some(node.clone()));
        }
    }

    pub(crate) fn no_node(&mut self, name: &str, running: Option<&Process>) {
        self.nodes.remove(name);
        if let Some(running) = running {
            running.feed.nodes.put(name.to_owned(), None);
        }
    }

    pub(crate) fn slice(&mut self, slice: &EndpointSlice, running: Option<&Process>) {
        let meta = &slice.metadata;
        let id = (meta.namespace.clone().unwrap(), meta.name.clone().unwrap());
        let slice = SliceState::of(slice, false).unwrap();
        self.slices.insert(id.clone(), slice.clone());
        if let Some(running) = running {
            running.feed.slices.put(id.clone(), Some(slice.clone()));
        }
    }
}

impl Process {
    /// Starts one in which these providers are switched on; `provider` is the one of a cloud, if it is among them.
    pub(crate) fn start<P: Provider>(
        api: &Shared,
        providers: &[ProviderName],
        cloud: Option<(ProviderName, P)>,
        leadership: Leadership,
        backends: &Backends,
        gates: Option<Gates>,
    ) -> Self {
        let mut tasks = JoinSet::new();
        let (client, metrics) = (client(api), Metrics::new().0);
        let classes = Classes::new(&providers.iter().copied().collect(), &[], None).unwrap();
        let (lead, leadership) = watch::channel(leadership);
        let (listed, told) = watch::channel(false);
        let mut ties = Ties::new(&client, leadership.clone(), told, &metrics);
        if let Some(watch) = gates {
            tasks.spawn(watch(api.clone(), &mut ties.feed));
        }
        let mut mailboxes = BTreeMap::new();
        if let Some((name, provider)) = cloud {
            mailboxes.insert(name, Mailbox { asked: ties.asked.clone(), finalizes: provider.needs_finalizer() });
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

        backends.nodes.iter().for_each(|(name, node)| ties.feed.nodes.put(name.clone(), Some(node.clone())));
        backends.slices.iter().for_each(|(id, slice)| ties.feed.slices.put(id.clone(), Some(slice.clone())));
        let api = api.clone();
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
        Self { _tasks: tasks, feed: ties.feed, named: ties.named, lead }
    }

    /// A person names the Services whose orphans are to be removed, by their UIDs.
    pub(crate) fn name_orphans(&self, uids: BTreeSet<String>) {
        self.named.put((), uids);
    }

    /// Whether it leads.
    pub(crate) fn lead(&self, leadership: Leadership) {
        self.lead.send_replace(leadership);
    }
}
