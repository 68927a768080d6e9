//! Wiring. Tasks and their owners:
//!
//! | task | owner | ends |
//! | --- | --- | --- |
//! | one watch for each kind | [`run`], in a `JoinSet` | aborted with it; it holds no state that matters |
//! | one for each provider that plans whole shards | [`run`], in a `JoinSet` | with the shutdown token, looks under way at most [`GRACE`] later |
//! | the keys of the heartbeats | [`run`], in the same `JoinSet` | with the shutdown token |
//! | the candidate for the Lease | [`run`] | last of all: gives the Lease back when nothing is written any more |
//! | HTTP endpoints | [`run`] | with the shutdown token |
//! | events | [`run`] | when the reconciler is gone and its queue empty, at most [`GRACE`] later |
//! | the reconciler, which owns the world | the caller's task | with the shutdown token |
//! | the writes, bounded in number | the reconciler, in a `JoinSet` | awaited for [`GRACE`], then aborted; every step is idempotent |

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use berth_azure::endpoints::Environment;
use berth_mock::{Cloud, Mock};
use berth_pool::world::World;
use berth_provider::Provider;
use berth_provider::class::ProviderName;
use berth_telemetry::{Health, shutdown_on_signal};
use kube::Client;
use kube::runtime::events::Reporter;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::apply::Applier;
use crate::args::Args;
use crate::aws;
use crate::azure;
use crate::backends::Feed;
use crate::documents::{Asked, Documents, Named, Ties};
use crate::events;
use crate::gates::PodFeed;
use crate::heartbeat_keys::HeartbeatKeys;
use crate::heritage::Heritage;
use crate::lease::{Candidate, Leadership};
use crate::metrics::Metrics;
use crate::reconciler::{Mailbox, Reconciler};
use crate::watch;

/// Changes between the watches and the world: one page of a list. Full means that the watches wait; nothing is dropped.
pub(crate) const CHANGES: usize = 512;
/// How long writes under way may take after the signal to stop; the pod's own grace period is 30 s.
pub(crate) const GRACE: Duration = Duration::from_secs(5);

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// When it cannot start (flags that do not go together, no configuration for the API server, its HTTP address is taken), or a
/// task ends that must not.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let classes = args.served_classes()?;
    aws::check(&args)?;
    let azure = azure::prepare(&args, &Environment::of(|name| std::env::var(name).ok()))?;
    let shutdown = shutdown_on_signal().context("cannot listen for signals")?;
    let mut config = kube::Config::infer().await.context("cannot find out how to reach the API server")?;
    // Writes and watches have their own retries, with the latest state; the client's would hold old ones for minutes.
    config.default_retry = false;
    // An API server that vanishes without a word is noticed by this; every watch is asked for anew more often.
    config.read_timeout = Some(watch::WATCH_TIME + Duration::from_secs(15));
    let client = Client::try_from(config).context("cannot make a client for the API server")?;

    let (metrics, registry) = Metrics::new();
    let health = Health::new();
    let synced = health.gate("the first list of every kind");
    let address = args.telemetry.http_address;
    let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
    let http = tokio::spawn(berth_telemetry::serve(listener, Arc::new(registry), health, shutdown.clone()));

    let identity = args.identity.clone().unwrap_or_else(local_identity);
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        providers = ?args.providers,
        default_provider = ?args.default_provider,
        identity,
        "started"
    );
    // First, for it may wait long: whoever waits is not to hold the Lease, so that another replica can lead.
    #[cfg(feature = "aws")]
    let aws = if args.providers.contains(&ProviderName::Aws) {
        Box::pin(aws::provider(&args, &client, &shutdown)).await?
    } else {
        None
    };
    let azure = match azure {
        Some(ready) => Box::pin(ready.provider(&client, &shutdown)).await?,
        None => None,
    };
    let heritage = Heritage::default();
    let (leadership, resign, candidate) = lead(&args, &client, &identity, &heritage, &metrics);
    let (listed, told) = tokio::sync::watch::channel(false);
    let mut ties = Ties { heritage, ..Ties::new(&client, leadership.clone(), told, &metrics) };
    ties.list_writer = ties.list_writer.within(&args.namespace);
    let mut driven = Driven::default();
    let (gates, pods) = args.aws_pod_readiness_gates.then(|| watch::pods::feed(&client, &metrics)).unzip();
    if args.providers.contains(&ProviderName::Mock) {
        driven.start(ProviderName::Mock, Mock::new(Cloud::new()), &ties, None, &shutdown);
    }
    #[cfg(feature = "aws")]
    if let Some(provider) = aws {
        driven.start(ProviderName::Aws, provider, &ties, gates, &shutdown);
    }
    // Without the provider the flag is refused.
    #[cfg(not(feature = "aws"))]
    drop(gates);
    if let Some(provider) = azure {
        driven.start(ProviderName::Azure, provider, &ties, None, &shutdown);
    }
    let named: Vec<_> = driven.lists(&client, &args.namespace, &metrics);
    let Driven { tasks: mut documents, mailboxes, feeds, .. } = driven;
    let (to, mut changes) = mpsc::channel(CHANGES);
    let mut watches = watch::start(&client, classes.clone(), &metrics, &to, feeds);
    pods.map(|watch| watches.spawn(watch));
    for watch in named {
        watches.spawn(watch);
    }
    // Whatever is switched on: speakers that are installed wait for it.
    let (rotation, told) = (args.heartbeat_key_rotation, leadership.clone());
    documents.spawn(HeartbeatKeys::new(client.clone(), rotation, told, metrics.clone()).run(shutdown.clone()));
    let reporter = Reporter { controller: "berth-controller".to_owned(), instance: Some(identity) };
    let (events, publishing) = events::queue(client.clone(), reporter, metrics.clone());
    let publishing = tokio::spawn(publishing);
    let applier = Applier { client, events, metrics: metrics.clone(), leadership, classes };
    let mut world = World::default();
    world.set_drain_on_cordon(args.drain_on_cordon);
    world.set_ignore_exclude_label(args.ignore_exclude_lb);
    let mut reconciler = Reconciler::new(applier, metrics, synced, listed, mailboxes, ties.outcomes, world);
    let ended = tokio::select! {
        () = shutdown.cancelled() => Ok(()),
        () = reconciler.run(&mut changes) => Ok(()),
        // Its Services would wait for ever; a new process takes them up again.
        Some(task) = documents.join_next() => match task {
            Ok(()) if shutdown.is_cancelled() => Ok(()),
            Ok(()) => Err(anyhow::anyhow!("a task ended, which it must not")),
            Err(error) => Err(anyhow::Error::new(error).context("a task failed")),
        },
    };
    drop(watches);
    shutdown.cancel();
    reconciler.finish().await;
    while documents.join_next().await.is_some() {}
    resign.cancel();
    if let Err(error) = candidate.await {
        tracing::error!(%error, "the candidate for the Lease ended abnormally");
    }
    // With the reconciler goes the last sender, so that what is queued is said and the task ends.
    drop(reconciler);
    if tokio::time::timeout(GRACE, publishing).await.is_err() {
        tracing::debug!("events cut off");
    }
    http.abort();
    tracing::info!("stopped");
    ended
}

/// A name for a process that is no pod's.
fn local_identity() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{}-{}", host.trim(), std::process::id())
}

/// Takes part in the election, or leads alone.
fn lead(
    args: &Args,
    client: &Client,
    identity: &str,
    heritage: &Heritage,
    metrics: &Metrics,
) -> (tokio::sync::watch::Receiver<Leadership>, CancellationToken, JoinHandle<()>) {
    let end = CancellationToken::new();
    if args.leader_elect {
        let (heritage, metrics) = (heritage.clone(), metrics.clone());
        let (candidate, told) = Candidate::new(client.clone(), &args.namespace, identity.to_owned(), heritage, metrics);
        return (told, end.clone(), tokio::spawn(candidate.run(end)));
    }
    let (tell, told) = tokio::sync::watch::channel(Leadership::alone());
    metrics.leader.set(1);
    let until = end.clone();
    let task = tokio::spawn(async move {
        until.cancelled().await;
        drop(tell);
    });
    (told, end, task)
}

/// What drives the providers that plan whole shards.
#[derive(Default)]
struct Driven {
    tasks: JoinSet<()>,
    mailboxes: BTreeMap<ProviderName, Mailbox>,
    /// Of those that are sent targets.
    feeds: Vec<Feed>,
    /// Where those hear whose orphans are to be removed that make something outside the cluster.
    named: Vec<(&'static str, Named)>,
}

impl Driven {
    /// The watches of what people say of the lists of orphans.
    fn lists(
        &self,
        client: &Client,
        namespace: &str,
        metrics: &Metrics,
    ) -> Vec<impl Future<Output = ()> + Send + 'static> {
        let each = self.named.iter();
        each.map(|(name, to)| watch::named::follow(client, namespace, name, metrics, to.clone())).collect()
    }

    /// Starts one.
    fn start<P: Provider>(
        &mut self,
        name: ProviderName,
        provider: P,
        ties: &Ties,
        gates: Option<PodFeed>,
        shutdown: &CancellationToken,
    ) {
        // Each has mailboxes of its own.
        let ties = Ties {
            asked: Asked::default(),
            feed: Feed { gates, ..Feed::default() },
            named: Named::default(),
            ..ties.clone()
        };
        self.mailboxes.insert(name, Mailbox { asked: ties.asked.clone(), finalizes: provider.needs_finalizer() });
        self.named.extend(provider.lists_orphans().then(|| (provider.name(), ties.named.clone())));
        self.feeds.extend(provider.needs_targets().then(|| ties.feed.clone()));
        self.tasks.spawn(Documents::new(provider, ties).run(shutdown.clone()));
    }
}
