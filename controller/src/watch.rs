//! Watches: one task for each kind turns objects into [`Change`]s and sends them to the one task that owns the world.
//!
//! A watch survives an object that cannot be read, and starts again by itself when it breaks off. A list that follows
//! a break tells what vanished meanwhile.

mod known;
pub(crate) mod named;
pub(crate) mod pods;
mod seen;

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use berth_api::service::{ServiceKey, has_finalizer};
use berth_api::{Announcement, IPAddressPool, L2Advertisement, RouteAdvertisement, SpeakerNode};
use berth_pool::view::{
    self, AdvertisementView, AnnouncementView, Asks, NodeView, PoolView, Report, ServiceView, SliceView,
};
use berth_pool::world::Change;
use berth_provider::Failure;
use berth_provider::class::{Classes, ProviderName, Served};
use berth_telemetry::brief;
use futures::StreamExt;
use k8s_openapi::api::core::v1::{Namespace, Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use kube::api::Api;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::backends::{Feed, NodeState, SliceState};
use crate::backoff;
use crate::metrics::{KindLabels, Metrics};
use crate::wish::Seen;
use known::{Id, KnownId};
use seen::Seen as Read;

/// How long the API server keeps a watch open before it is asked for anew, which is also how an API server that vanished
/// without a word is noticed. Going on from where it was costs one request.
pub(crate) const WATCH_TIME: Duration = Duration::from_mins(1);

/// Objects in one page of a list. A page is in memory whole, as text and as objects, for each kind at once: what is not much beside
/// the world of a large cluster would be most of it with kube's 500.
const PAGE: u32 = 100;

/// How many kinds are watched.
pub(crate) const KINDS: usize = 10;

/// What a watch says.
#[derive(Debug)]
pub(crate) enum Message {
    /// Something changed.
    Changed(Box<News>),
    /// The first list of a kind is complete.
    Synced(&'static str),
}

/// What changed.
#[derive(Debug)]
pub(crate) struct News {
    /// As the pools see it.
    pub(crate) change: Change,
    /// Whose a Service is, if one changed.
    pub(crate) service: Option<ServiceNews>,
}

/// A Service, as the providers of whole shards see it.
#[derive(Debug)]
pub(crate) struct ServiceNews {
    /// Its uid; none when it is gone.
    pub(crate) uid: String,
    /// Whose it is now.
    pub(crate) whose: Whose,
    /// Whether it has our finalizer.
    pub(crate) has_finalizer: bool,
    /// What it asks for, where that concerns one of them.
    pub(crate) seen: Option<Box<Result<Seen, Failure>>>,
}

/// Whose a Service is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Whose {
    /// Nobody's whom it concerns here, or the pools'.
    NotOthers,
    /// One of the other providers'.
    Others(ProviderName),
    /// A class that is spelled as one of ours and that nobody serves.
    Unknown(String),
}

impl From<Change> for News {
    fn from(change: Change) -> Self {
        Self { change, service: None }
    }
}

/// Starts all watches. They end when the receiver is dropped or the set is.
///
/// `feeds` are those of providers that are sent targets.
pub(crate) fn start(
    client: &Client,
    classes: Classes,
    metrics: &Metrics,
    to: &mpsc::Sender<Message>,
    feeds: Vec<Feed>,
) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    let key = |(namespace, name): Id| ServiceKey { namespace, name };
    tasks.spawn(follow::<Service>(client, metrics, to, move |id, service| service_news(&classes, key(id), service)));
    let fed = feeds.clone();
    tasks.spawn(follow::<EndpointSlice>(client, metrics, to, move |id, slice| {
        if !fed.is_empty() {
            for feed in &fed {
                let state = slice.and_then(|slice| SliceState::of(slice, feed.gates.is_some()));
                feed.slices.put(id.clone(), state);
            }
        }
        Change::Slice(id, slice.and_then(SliceView::of)).into()
    }));
    tasks.spawn(follow::<Announcement>(client, metrics, to, |(_, name), announcement| {
        Change::Announcement(name, announcement.map(AnnouncementView::of)).into()
    }));
    tasks.spawn(follow::<IPAddressPool>(client, metrics, to, |(_, name), pool| {
        Change::Pool(name, pool.map(PoolView::of)).into()
    }));
    tasks.spawn(follow::<L2Advertisement>(client, metrics, to, |(_, name), ad| {
        Change::Advertisement(name, ad.map(AdvertisementView::of)).into()
    }));
    tasks.spawn(follow::<RouteAdvertisement>(client, metrics, to, |(_, name), ad| {
        Change::RouteAdvertisement(name, ad.map(AdvertisementView::of_routes)).into()
    }));
    tasks.spawn(follow::<Node>(client, metrics, to, move |(_, name), node| {
        if !feeds.is_empty() {
            let state = node.map(|node| Arc::new(NodeState::of(node)));
            for feed in &feeds {
                feed.nodes.put(name.clone(), state.clone());
            }
        }
        Change::Node(name, node.map(NodeView::of)).into()
    }));
    tasks.spawn(follow::<SpeakerNode>(client, metrics, to, |(_, name), node| {
        Change::SpeakerNode(name, node.map(Report::of)).into()
    }));
    tasks.spawn(follow::<Namespace>(client, metrics, to, |(_, name), namespace| {
        Change::Namespace(name, namespace.map(|n| n.metadata.labels.clone().unwrap_or_default())).into()
    }));
    tasks.spawn(follow::<ServiceCIDR>(client, metrics, to, |(_, name), cidr| {
        Change::ServiceCidr(name, cidr.map(view::service_ranges)).into()
    }));
    debug_assert_eq!(tasks.len(), KINDS);
    tasks
}

pub(crate) fn service_news(classes: &Classes, key: ServiceKey, service: Option<&Service>) -> News {
    let Some(service) = service else {
        let gone = ServiceNews { uid: String::new(), whose: Whose::NotOthers, has_finalizer: false, seen: None };
        return News { change: Change::Service(key, None), service: Some(gone) };
    };
    let served = classes.of(service);
    let change = Change::Service(key, ServiceView::of(service, Asks::from(&served)));
    let whose = match served {
        Served::By(ProviderName::Pool) | Served::Elsewhere => Whose::NotOthers,
        Served::By(name) => Whose::Others(name),
        Served::Unknown(class) => Whose::Unknown(class),
    };
    let has_finalizer = has_finalizer(&service.metadata);
    let concerns = has_finalizer || matches!(whose, Whose::Others(_));
    let seen = concerns.then(|| Box::new(Seen::of(service)));
    News { change, service: Some(ServiceNews { uid: service.uid().unwrap_or_default(), whose, has_finalizer, seen }) }
}

fn follow<K>(
    client: &Client,
    metrics: &Metrics,
    to: &mpsc::Sender<Message>,
    change: impl Fn(Id, Option<&K>) -> News + Send + 'static,
) -> impl Future<Output = ()> + Send + 'static
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    let api: Api<Read<K>> = Api::all(client.clone());
    let (metrics, to) = (metrics.clone(), to.clone());
    async move {
        let kind = KindName::<K>::NAME();
        let (known, listed) = (BTreeSet::new(), BTreeSet::new());
        let mut follower =
            Follower { kind, change, known, listed, synced: false, outage: Outage::none(kind, &metrics), metrics };
        let config = watcher::Config::default().timeout(WATCH_TIME.as_secs() as u32).page_size(PAGE);
        let mut events = std::pin::pin!(watcher(api, config));
        while let Some(event) = events.next().await {
            if let Err(error) = &event {
                tokio::time::sleep(follower.outage.broke_off(error)).await;
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
        "RouteAdvertisement" => "RouteAdvertisement",
        "Node" => "Node",
        "SpeakerNode" => "SpeakerNode",
        "Namespace" => "Namespace",
        "ServiceCIDR" => "ServiceCIDR",
        _ => "other",
    };
}

struct Follower<F> {
    kind: &'static str,
    change: F,
    known: BTreeSet<KnownId>,
    /// What a list under way has named so far.
    listed: BTreeSet<KnownId>,
    synced: bool,
    outage: Outage,
    metrics: Metrics,
}

/// A watch that does not work, for as long as it does not.
struct Outage {
    kind: &'static str,
    /// Failures in a row.
    failures: u32,
    metrics: Metrics,
}

impl Outage {
    fn none(kind: &'static str, metrics: &Metrics) -> Self {
        Self { kind, failures: 0, metrics: metrics.clone() }
    }

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

    /// Hears that the watch says something; the beginning of a list is said before it is asked for.
    fn heard<K>(&mut self, event: &Result<Event<K>, watcher::Error>) {
        if !matches!(event, Ok(Event::Init) | Err(_)) && std::mem::take(&mut self.failures) > 0 {
            tracing::info!(kind = self.kind, "watching again");
        }
    }
}

impl<F> Follower<F> {
    fn messages<K>(&mut self, event: Result<Event<Read<K>>, watcher::Error>) -> Vec<Message>
    where
        K: Resource<DynamicType = ()>,
        F: Fn(Id, Option<&K>) -> News,
    {
        self.outage.heard(&event);
        match event {
            Ok(Event::Init) => {
                self.listed.clear();
                Vec::new()
            }
            Ok(Event::InitApply(object)) => {
                self.listed.insert(KnownId::of(&id_of(&object)));
                self.applied(object).into_iter().collect()
            }
            Ok(Event::Apply(object)) => self.applied(object).into_iter().collect(),
            Ok(Event::Delete(object)) => vec![self.gone(id_of(&object))],
            Ok(Event::InitDone) => {
                let before = std::mem::replace(&mut self.known, std::mem::take(&mut self.listed));
                let vanished: Vec<_> = before.difference(&self.known).map(KnownId::id).collect();
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

    fn applied<K>(&mut self, object: Read<K>) -> Option<Message>
    where
        K: Resource<DynamicType = ()>,
        F: Fn(Id, Option<&K>) -> News,
    {
        let id = id_of(&object);
        // What cannot be read is known to exist: what was read of it before stays.
        self.known.insert(KnownId::of(&id));
        match object.0 {
            Ok(object) => Some(Message::Changed(Box::new((self.change)(id, Some(&object))))),
            Err(error) => {
                self.metrics.malformed.get_or_create(&KindLabels { kind: self.kind }).inc();
                tracing::error!(
                    kind = self.kind,
                    namespace = id.0,
                    name = id.1,
                    error = error.error,
                    "object cannot be read and is passed over"
                );
                None
            }
        }
    }

    fn gone<K>(&mut self, id: Id) -> Message
    where
        F: Fn(Id, Option<&K>) -> News,
    {
        self.known.remove(&KnownId::of(&id));
        Message::Changed(Box::new((self.change)(id, None)))
    }
}

fn id_of<K: Resource<DynamicType = ()>>(object: &Read<K>) -> Id {
    (object.namespace().unwrap_or_default(), object.name_any())
}
