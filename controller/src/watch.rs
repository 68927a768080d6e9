//! Watches: one task for each kind turns objects into [`Change`]s and sends them to the one task that owns the world.
//!
//! A watch survives an object that cannot be read, and starts again by itself when it breaks off. A list that follows
//! a break tells what vanished meanwhile.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::time::Duration;

use berth_api::service::ServiceKey;
use berth_api::{Announcement, IPAddressPool, L2Advertisement, SpeakerNode};
use berth_telemetry::brief;
use futures::StreamExt;
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::Api;
use kube::core::DeserializeGuard;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::args::DefaultProvider;
use crate::backoff;
use crate::metrics::{KindLabels, Metrics};
use crate::view::{AdvertisementView, AnnouncementView, NodeView, PoolView, ServiceView, SliceView};
use crate::world::Change;

/// How long the API server keeps a watch open before it is asked for anew, which is also how an API server that vanished
/// without a word is noticed. Going on from where it was costs one request.
pub(crate) const WATCH_TIME: Duration = Duration::from_mins(1);

/// How many kinds are watched.
pub(crate) const KINDS: usize = 7;

/// What a watch says.
#[derive(Debug)]
pub(crate) enum Message {
    /// Something changed.
    Changed(Box<Change>),
    /// The first list of a kind is complete.
    Synced(&'static str),
}

/// Namespace (empty for cluster-scoped kinds) and name.
type Id = (String, String);

/// Starts all watches. They end when the receiver is dropped or the set is.
pub(crate) fn start(
    client: &Client,
    default: DefaultProvider,
    metrics: &Metrics,
    to: &mpsc::Sender<Message>,
) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    let key = |(namespace, name): Id| ServiceKey { namespace, name };
    tasks.spawn(follow::<Service>(client, metrics, to, move |id, service| {
        Change::Service(key(id), service.and_then(|s| ServiceView::of(s, default)))
    }));
    tasks.spawn(follow::<EndpointSlice>(client, metrics, to, |id, slice| {
        Change::Slice(id, slice.and_then(SliceView::of))
    }));
    tasks.spawn(follow::<Announcement>(client, metrics, to, |(_, name), announcement| {
        Change::Announcement(name, announcement.map(AnnouncementView::of))
    }));
    tasks.spawn(follow::<IPAddressPool>(client, metrics, to, |(_, name), pool| {
        Change::Pool(name, pool.map(PoolView::of))
    }));
    tasks.spawn(follow::<L2Advertisement>(client, metrics, to, |(_, name), ad| {
        Change::Advertisement(name, ad.map(AdvertisementView::of))
    }));
    tasks.spawn(follow::<Node>(client, metrics, to, |(_, name), node| Change::Node(name, node.map(NodeView::of))));
    tasks.spawn(follow::<SpeakerNode>(client, metrics, to, |(_, name), node| {
        Change::SpeakerNode(name, node.map(|n| n.spec.interfaces.clone()))
    }));
    debug_assert_eq!(tasks.len(), KINDS);
    tasks
}

fn follow<K>(
    client: &Client,
    metrics: &Metrics,
    to: &mpsc::Sender<Message>,
    change: impl Fn(Id, Option<&K>) -> Change + Send + 'static,
) -> impl Future<Output = ()> + Send + 'static
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    let api: Api<DeserializeGuard<K>> = Api::all(client.clone());
    let (metrics, to) = (metrics.clone(), to.clone());
    async move {
        let kind = KindName::<K>::NAME();
        let (known, listed) = (BTreeSet::new(), BTreeSet::new());
        let mut follower = Follower { kind, change, known, listed, synced: false, failures: 0, metrics };
        let config = watcher::Config::default().timeout(WATCH_TIME.as_secs() as u32);
        let mut events = std::pin::pin!(watcher(api, config));
        while let Some(event) = events.next().await {
            if let Err(error) = &event {
                tokio::time::sleep(follower.broke_off(error)).await;
            }
            for message in follower.messages(event) {
                if to.send(message).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// The name of a kind with a lifetime that metrics and logs can keep.
struct KindName<K>(std::marker::PhantomData<K>);

impl<K: Resource<DynamicType = ()>> KindName<K> {
    const NAME: fn() -> &'static str = || match K::kind(&()).as_ref() {
        "Service" => "Service",
        "EndpointSlice" => "EndpointSlice",
        "Announcement" => "Announcement",
        "IPAddressPool" => "IPAddressPool",
        "L2Advertisement" => "L2Advertisement",
        "Node" => "Node",
        "SpeakerNode" => "SpeakerNode",
        _ => "other",
    };
}

struct Follower<F> {
    kind: &'static str,
    change: F,
    known: BTreeSet<Id>,
    /// What a list under way has named so far.
    listed: BTreeSet<Id>,
    synced: bool,
    /// Failures in a row.
    failures: u32,
    metrics: Metrics,
}

impl<F> Follower<F> {
    /// Counts and tells a failure, once for an outage; returns how long to wait.
    fn broke_off(&mut self, error: &watcher::Error) -> Duration {
        self.metrics.watch_errors.get_or_create(&KindLabels { kind: self.kind }).inc();
        self.failures = self.failures.saturating_add(1);
        if self.failures == 1 {
            tracing::warn!(
                kind = self.kind,
                error = brief(error),
                "watch broke off; what is known stays, and it is tried until it works"
            );
        } else {
            tracing::debug!(kind = self.kind, error = brief(error), failures = self.failures, "watch still broken");
        }
        // The names of the kinds differ in length, which is spread enough for seven.
        backoff::wait(self.failures, self.kind.len() as u64 * 16)
    }

    fn messages<K>(&mut self, event: Result<Event<DeserializeGuard<K>>, watcher::Error>) -> Vec<Message>
    where
        K: Resource<DynamicType = ()>,
        F: Fn(Id, Option<&K>) -> Change,
    {
        // The beginning of a list is said before it is asked for.
        if !matches!(event, Ok(Event::Init) | Err(_)) && std::mem::take(&mut self.failures) > 0 {
            tracing::info!(kind = self.kind, "watching again");
        }
        match event {
            Ok(Event::Init) => {
                self.listed.clear();
                Vec::new()
            }
            Ok(Event::InitApply(object)) => {
                self.listed.insert(id_of(&object));
                self.applied(object).into_iter().collect()
            }
            Ok(Event::Apply(object)) => self.applied(object).into_iter().collect(),
            Ok(Event::Delete(object)) => vec![self.gone(id_of(&object))],
            Ok(Event::InitDone) => {
                let vanished: Vec<_> = self.known.difference(&self.listed).cloned().collect();
                let mut messages: Vec<_> = vanished.into_iter().map(|id| self.gone(id)).collect();
                if !self.synced {
                    self.synced = true;
                    messages.push(Message::Synced(self.kind));
                }
                messages
            }
            Err(_) => Vec::new(),
        }
    }

    fn applied<K>(&mut self, object: DeserializeGuard<K>) -> Option<Message>
    where
        K: Resource<DynamicType = ()>,
        F: Fn(Id, Option<&K>) -> Change,
    {
        let id = id_of(&object);
        // What cannot be read is known to exist: what was read of it before stays.
        self.known.insert(id.clone());
        match object.0 {
            Ok(object) => Some(Message::Changed(Box::new((self.change)(id, Some(&object))))),
            Err(error) => {
                self.metrics.malformed.get_or_create(&KindLabels { kind: self.kind }).inc();
                tracing::error!(kind = self.kind, namespace = id.0, name = id.1, %error, "object cannot be read and is passed over");
                None
            }
        }
    }

    fn gone<K>(&mut self, id: Id) -> Message
    where
        F: Fn(Id, Option<&K>) -> Change,
    {
        self.known.remove(&id);
        Message::Changed(Box::new((self.change)(id, None)))
    }
}

fn id_of<K: Resource<DynamicType = ()>>(object: &DeserializeGuard<K>) -> Id {
    (object.namespace().unwrap_or_default(), object.name_any())
}
