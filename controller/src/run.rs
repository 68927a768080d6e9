//! Wiring. Tasks and their owners:
//!
//! | task | owner | ends |
//! | --- | --- | --- |
//! | one watch for each kind | [`run`], in a `JoinSet` | aborted with it; it holds no state that matters |
//! | HTTP endpoints | [`run`] | with the shutdown token |
//! | events | [`run`] | when the reconciler is gone and its queue empty, at most [`GRACE`] later |
//! | the reconciler, which owns the world | the caller's task | with the shutdown token |
//! | at most [`WRITES`] writes | the reconciler, in a `JoinSet` | awaited for [`GRACE`], then aborted; every step is idempotent |

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use berth_api::service::ServiceKey;
use berth_telemetry::{Gate, Health, shutdown_on_signal};
use jiff::Timestamp;
use kube::Client;
use kube::runtime::events::{Recorder, Reporter};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::apply::{Answers, Applier, WriteError};
use crate::args::Args;
use crate::metrics::{Metrics, PoolLabels};
use crate::plan::plan;
use crate::watch::{self, Message};
use crate::world::{Change, World};
use crate::{backoff, events, status};

/// Services that are written at once: enough to hide the API server's latency, few enough not to crowd out others
/// (its default limit for one kind of client is in the hundreds).
const WRITES: usize = 32;
/// Changes between the watches and the world: one page of a list. Full means that the watches wait; nothing is dropped.
const CHANGES: usize = 512;
/// Services planned before new changes are taken in again, so that a restart with many stays responsive.
const PLANS_PER_TURN: usize = 256;
/// Statuses of pools change with every allocation and are written at most this often.
const OWN_STATUS_INTERVAL: Duration = Duration::from_millis(300);
/// How long writes under way may take after the signal to stop; the pod's own grace period is 30 s.
const GRACE: Duration = Duration::from_secs(5);

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// When it cannot start: no configuration for the API server, or its HTTP address is taken.
pub async fn run(args: Args) -> anyhow::Result<()> {
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

    tracing::info!(version = env!("CARGO_PKG_VERSION"), default_provider = ?args.default_provider, "started");
    let (to, mut changes) = mpsc::channel(CHANGES);
    let watches = watch::start(&client, args.default_provider, &metrics, &to);
    let reporter = Reporter { controller: "berth-controller".to_owned(), instance: std::env::var("POD_NAME").ok() };
    let (events, publishing) = events::queue(Recorder::new(client.clone(), reporter), metrics.clone());
    let publishing = tokio::spawn(publishing);
    let applier = Applier { client, events, metrics: metrics.clone() };
    let mut reconciler = Reconciler::new(applier, metrics, synced);
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = reconciler.run(&mut changes) => {}
    }
    drop(watches);
    reconciler.finish().await;
    // With the reconciler goes the last sender, so that what is queued is said and the task ends.
    drop(reconciler);
    if tokio::time::timeout(GRACE, publishing).await.is_err() {
        tracing::debug!("events cut off");
    }
    http.abort();
    tracing::info!("stopped");
    Ok(())
}

/// What a finished write tells.
enum Done {
    Service {
        key: ServiceKey,
        claimed: Option<Ipv4Addr>,
        started: Instant,
        answers: Answers,
        result: Result<(), WriteError>,
    },
    Pool(String, Result<(), WriteError>),
    Advertisement(String, Result<(), WriteError>),
}

struct Reconciler {
    world: World,
    applier: Applier,
    metrics: Metrics,
    synced_gate: Gate,
    /// Kinds whose first list is complete; nothing is planned before all are.
    synced: BTreeSet<&'static str>,
    writes: JoinSet<Done>,
    busy: BTreeSet<ServiceKey>,
    /// Announcements that the watch spoke of while writes were under way. What such a write is answered may be older.
    heard: BTreeSet<String>,
    failures: BTreeMap<ServiceKey, u32>,
    retries: BTreeSet<(Instant, ServiceKey)>,
    next_own_status: Instant,
    own_busy: BTreeSet<String>,
    jitter: u64,
}

impl Reconciler {
    fn new(applier: Applier, metrics: Metrics, synced_gate: Gate) -> Self {
        Self {
            world: World::default(),
            applier,
            metrics,
            synced_gate,
            synced: BTreeSet::new(),
            writes: JoinSet::new(),
            busy: BTreeSet::new(),
            heard: BTreeSet::new(),
            failures: BTreeMap::new(),
            retries: BTreeSet::new(),
            next_own_status: Instant::now(),
            own_busy: BTreeSet::new(),
            jitter: 0,
        }
    }

    async fn run(&mut self, changes: &mut mpsc::Receiver<Message>) {
        loop {
            let retry = self.retries.first().map(|(at, _)| *at);
            let more = self.is_synced()
                && self.busy.len() < WRITES
                && self.world.backlog() > self.busy.len() + self.world.behind();
            tokio::select! {
                biased;
                Some(done) = self.writes.join_next() => self.finished(done),
                message = changes.recv() => {
                    let Some(message) = message else { return };
                    self.hear(message);
                    for _ in 0..CHANGES {
                        let Ok(message) = changes.try_recv() else { break };
                        self.hear(message);
                    }
                }
                () = sleep_until(retry) => self.retry_due(),
                () = tokio::time::sleep_until(self.next_own_status), if self.is_synced() => self.write_own_statuses(),
                () = std::future::ready(()), if more => tokio::task::yield_now().await,
            }
            if self.is_synced() {
                self.dispatch();
            }
        }
    }

    /// Lets writes that are under way come to their end.
    async fn finish(&mut self) {
        let all = async { while self.writes.join_next().await.is_some() {} };
        if tokio::time::timeout(GRACE, all).await.is_err() {
            tracing::warn!(writes = self.writes.len(), "writes cut off; the next start takes them up again");
        }
        self.writes.shutdown().await;
    }

    fn is_synced(&self) -> bool {
        self.synced.len() == watch::KINDS
    }

    fn hear(&mut self, message: Message) {
        match message {
            Message::Changed(change) => {
                if let Change::Announcement(name, _) = &*change
                    && !self.busy.is_empty()
                {
                    self.heard.insert(name.clone());
                }
                self.world.learn(*change);
            }
            Message::Synced(kind) => {
                self.synced.insert(kind);
                if self.is_synced() {
                    tracing::info!(services = self.world.backlog(), "every kind is listed, planning starts");
                    self.synced_gate.open();
                }
            }
        }
    }

    fn dispatch(&mut self) {
        for _ in 0..PLANS_PER_TURN {
            if self.busy.len() >= WRITES {
                break;
            }
            let busy = &self.busy;
            let Some(key) = self.world.next(|key| busy.contains(key)) else { break };
            let plan = plan(&self.world, &key, Timestamp::now());
            self.world.set_waiting(&key, plan.waiting);
            if plan.steps.is_empty() {
                self.failures.remove(&key);
                continue;
            }
            if let Some((address, pool)) = &plan.claims {
                self.world.hold(*address, &key, pool);
            }
            let (applier, started) = (self.applier.clone(), Instant::now());
            let claimed = plan.claims.map(|(address, _)| address);
            self.busy.insert(key.clone());
            self.writes.spawn(async move {
                let (answers, result) = applier.run(plan.steps).await;
                Done::Service { key, claimed, started, answers, result }
            });
        }
        self.metrics.backlog.set(i64::try_from(self.world.backlog()).unwrap_or(i64::MAX));
        self.metrics.waiting.set(i64::try_from(self.world.waiting()).unwrap_or(i64::MAX));
    }

    fn finished(&mut self, done: Result<Done, tokio::task::JoinError>) {
        let done = match done {
            Ok(done) => done,
            Err(error) => {
                // A write that panicked has no name here; all Services that were busy are looked at again.
                tracing::error!(%error, "a write ended abnormally");
                for key in std::mem::take(&mut self.busy) {
                    self.world.mark(&key);
                }
                self.own_busy.clear();
                return;
            }
        };
        match done {
            Done::Service { key, claimed, started, answers, result } => {
                self.busy.remove(&key);
                if let Some(version) = answers.service_version {
                    self.world.status_written(&key, version);
                }
                for change in answers.announcements {
                    if !matches!(&change, Change::Announcement(name, _) if self.heard.contains(name)) {
                        self.world.learn(change);
                    }
                }
                if self.busy.is_empty() {
                    self.heard.clear();
                }
                match result {
                    Ok(()) => {
                        self.metrics.apply_seconds.observe(started.elapsed().as_secs_f64());
                        self.failures.remove(&key);
                    }
                    Err(error) => self.failed(key, claimed, &error),
                }
            }
            Done::Pool(name, result) => {
                self.own_busy.remove(&name);
                if let Err(error) = result {
                    tracing::debug!(%error, "status of a pool not written, it will be tried again");
                    self.world.mark_pool(name);
                }
            }
            Done::Advertisement(name, result) => {
                self.own_busy.remove(&name);
                if let Err(error) = result {
                    tracing::debug!(%error, "status of an advertisement not written, it will be tried again");
                    self.world.mark_advertisement(name);
                }
            }
        }
    }

    fn failed(&mut self, key: ServiceKey, claimed: Option<Ipv4Addr>, error: &WriteError) {
        if let Some(address) = claimed {
            self.world.unhold(address);
        }
        let failures = self.failures.entry(key.clone()).or_default();
        *failures = failures.saturating_add(1);
        // Not for secrecy: any spread will do.
        self.jitter = self.jitter.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let wait = backoff::wait(*failures, self.jitter >> 56);
        tracing::warn!(service = %key, %error, again_in = ?wait, "not written");
        self.retries.insert((Instant::now() + wait, key));
    }

    fn retry_due(&mut self) {
        let now = Instant::now();
        while self.retries.first().is_some_and(|(at, _)| *at <= now) {
            if let Some((_, key)) = self.retries.pop_first() {
                self.world.mark(&key);
            }
        }
    }

    fn write_own_statuses(&mut self) {
        self.next_own_status = Instant::now() + OWN_STATUS_INTERVAL;
        let now = Timestamp::now();
        let dirty = self.world.take_dirty_pools();
        let mut changes = Vec::new();
        for (name, report) in self.world.ipam.reports().filter(|(name, _)| dirty.contains(*name)) {
            let labels = PoolLabels { pool: name.to_owned() };
            let gauge = |n| i64::try_from(n).unwrap_or(i64::MAX);
            self.metrics.assigned.get_or_create(&labels).set(gauge(report.assigned));
            self.metrics.available.get_or_create(&labels).set(gauge(report.available));
            changes.extend(self.world.pool(name).and_then(|view| status::pool_change(name, view, report, now)));
        }
        for name in dirty.iter().filter(|name| self.world.pool(name).is_none()) {
            let labels = PoolLabels { pool: name.clone() };
            self.metrics.assigned.remove(&labels);
            self.metrics.available.remove(&labels);
        }
        for change in changes {
            if self.own_busy.contains(&change.name) {
                self.world.mark_pool(change.name);
                continue;
            }
            self.own_busy.insert(change.name.clone());
            let applier = self.applier.clone();
            self.writes.spawn(async move { Done::Pool(change.name.clone(), applier.pool_status(change).await) });
        }
        for name in self.world.take_dirty_advertisements() {
            let Some(view) = self.world.advertisement(&name) else { continue };
            let Some(change) = status::advertisement_change(&name, view, &self.world, now) else { continue };
            let applier = self.applier.clone();
            self.writes.spawn(async move { Done::Advertisement(name, applier.advertisement_status(change).await) });
        }
    }
}

/// Sleeps until then, or for ever.
async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
