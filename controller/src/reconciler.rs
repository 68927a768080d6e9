//! The reconciler: owns the world, plans what is dirty, starts the writes, and takes in how they went.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use berth_api::IpFamily;
use berth_api::Reason;
use berth_api::service::ServiceKey;
use berth_pool::report;
use berth_pool::view::AdvertisementId;
use berth_pool::world::{Change, World};
use berth_provider::class::ProviderName;
use berth_provider::{Outcome, ServiceId};
use berth_telemetry::Gate;
use jiff::Timestamp;
use kube::runtime::events::EventType;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::apply::{Answers, Applier, WriteError};
use crate::documents::{Asked, Outcomes};
use crate::metrics::{Metrics, PoolLabels};
use crate::note::Note;
use crate::own_writes::OwnWrites;
use crate::plan::{not_written, plan};
use crate::run::{CHANGES, GRACE};
use crate::watch::{self, Message, News, ServiceNews, Whose};
use crate::wish::Wish;
use crate::{backoff, status};

/// Services that are written at once: enough to hide the API server's latency, few enough not to crowd out others
/// (its default limit for one kind of client is in the hundreds).
const WRITES: usize = 32;
/// Services planned before new changes are taken in again, so that a restart with many stays responsive.
const PLANS_PER_TURN: usize = 256;
/// Statuses of pools change with every allocation and are written at most this often.
const OWN_STATUS_INTERVAL: Duration = Duration::from_millis(300);

/// Between two looks at what nodes are to ask for ahead of need. It is for later, so it need not be at once, and one look is for all that
/// was given out meanwhile.
const SWEEPS_INTERVAL: Duration = Duration::from_secs(1);

/// What a finished write tells.
enum Done {
    Service {
        key: ServiceKey,
        claimed: Vec<IpAddr>,
        /// The addresses whose Announcements were to be written.
        written: Vec<IpAddr>,
        started: Instant,
        /// Whether this only said why something else could not be written.
        is_refused: bool,
        answers: Answers,
        result: Result<(), WriteError>,
    },
    Pool(String, Result<Option<u64>, WriteError>),
    Advertisement(AdvertisementId, Result<Option<u64>, WriteError>),
    Sweep(String, Result<(), WriteError>),
}

/// Where a provider that plans whole shards is told of Services.
pub(crate) struct Mailbox {
    pub(crate) asked: Asked,
    /// Whether it has to be told of what has our finalizer, whoever serves it now.
    pub(crate) finalizes: bool,
}

/// Who has been told of a Service.
struct Told {
    uid: String,
    /// Whose it is, if it is one of theirs.
    served_by: Option<ProviderName>,
    providers: BTreeSet<ProviderName>,
}

/// A Service with a class that nobody serves.
struct Unserved {
    uid: String,
    class: String,
    /// Whether people have been told.
    told: bool,
}

/// The one task that owns the world and starts every write.
pub(crate) struct Reconciler {
    world: World,
    applier: Applier,
    metrics: Metrics,
    synced_gate: Gate,
    /// Tells the other providers that they have been told of everything.
    listed: tokio::sync::watch::Sender<bool>,
    /// Kinds whose first list is complete; nothing is planned before all are.
    synced: BTreeSet<&'static str>,
    writes: JoinSet<Done>,
    busy: BTreeSet<ServiceKey>,
    /// Announcements that writes under way are about.
    touched: BTreeMap<String, ServiceKey>,
    /// Services that stand until one of those is written: both would write the same Announcement, and the second could only fail.
    parked: BTreeSet<ServiceKey>,
    /// Announcements that the watch spoke of while writes were under way. What such a write is answered may be older.
    heard: BTreeSet<String>,
    failures: BTreeMap<ServiceKey, u32>,
    /// Services for which the API server refused to write, and why: they are told before it is tried again.
    refused: BTreeMap<ServiceKey, (Reason, String)>,
    retries: BTreeSet<(Instant, ServiceKey)>,
    next_own_status: Instant,
    pool_writes: OwnWrites<String>,
    advertisement_writes: OwnWrites<AdvertisementId>,
    /// Nodes that are being told what to ask for ahead of need.
    sweeps_under_way: BTreeSet<String>,
    /// When they are looked at next.
    next_sweeps: Instant,
    jitter: u64,
    /// The mailboxes of the providers that plan whole shards.
    asked: BTreeMap<ProviderName, Mailbox>,
    /// Services that some of them have been told of.
    others: BTreeMap<ServiceKey, Told>,
    /// Where they say what is to be published.
    outcomes: Outcomes,
    /// What they said last.
    said: BTreeMap<ServiceKey, Outcome>,
    /// Services with a class that nobody serves.
    unknown: BTreeMap<ServiceKey, Unserved>,
}

impl Reconciler {
    pub(crate) fn new(
        applier: Applier,
        metrics: Metrics,
        synced_gate: Gate,
        listed: tokio::sync::watch::Sender<bool>,
        asked: BTreeMap<ProviderName, Mailbox>,
        outcomes: Outcomes,
        world: World,
    ) -> Self {
        Self {
            asked,
            others: BTreeMap::new(),
            outcomes,
            said: BTreeMap::new(),
            unknown: BTreeMap::new(),
            world,
            applier,
            metrics,
            synced_gate,
            listed,
            synced: BTreeSet::new(),
            writes: JoinSet::new(),
            busy: BTreeSet::new(),
            touched: BTreeMap::new(),
            parked: BTreeSet::new(),
            heard: BTreeSet::new(),
            failures: BTreeMap::new(),
            refused: BTreeMap::new(),
            retries: BTreeSet::new(),
            next_own_status: Instant::now(),
            pool_writes: OwnWrites::default(),
            advertisement_writes: OwnWrites::default(),
            sweeps_under_way: BTreeSet::new(),
            next_sweeps: Instant::now(),
            jitter: 0,
        }
    }

    /// Hears, plans and writes, until nothing can be heard any more.
    pub(crate) async fn run(&mut self, changes: &mut mpsc::Receiver<Message>) {
        let mut leadership = self.applier.leadership.clone();
        let outcomes = self.outcomes.clone();
        loop {
            let retry = self.retries.first().map(|(at, _)| *at);
            let leads = leadership.borrow_and_update().holds();
            let may_write = self.is_synced() && leads;
            if !leads {
                // Whoever leads meanwhile says something else, perhaps.
                self.said.clear();
            }
            let stands = |key: &ServiceKey| self.busy.contains(key) || self.parked.contains(key);
            let more = may_write && self.busy.len() < WRITES && self.world.has_next(stands);
            let cooled = self.world.next_cooled().filter(|_| may_write);
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
                said = outcomes.take() => if leadership.borrow().holds() {
                    self.take_in(said);
                },
                () = sleep_until(retry) => self.retry_due(),
                // What has cooled down is freed below.
                () = sleep_until(cooled.map(in_time)) => {}
                () = tokio::time::sleep_until(self.next_own_status), if may_write => self.write_own_statuses(),
                // One who leads no more without being told is held back before each write.
                Ok(()) = leadership.changed() => {}
                () = std::future::ready(()), if more => tokio::task::yield_now().await,
            }
            if self.is_synced() && leadership.borrow().holds() {
                self.dispatch();
                self.tell_unknown();
            }
        }
    }

    /// Lets writes that are under way come to their end.
    pub(crate) async fn finish(&mut self) {
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
            Message::Changed(news) => {
                let News { change, service } = *news;
                if let (Change::Service(key, _), Some(service)) = (&change, service) {
                    self.hear_service(key, service);
                }
                if let Change::Announcement(name, _) = &change
                    && !self.busy.is_empty()
                {
                    self.heard.insert(name.clone());
                }
                self.world.learn(change);
            }
            Message::Synced(kind) => {
                self.synced.insert(kind);
                if self.is_synced() {
                    tracing::info!(services = self.world.backlog(), "every kind is listed, planning starts");
                    self.synced_gate.open();
                    self.listed.send_replace(true);
                }
            }
        }
    }

    /// Tells the provider that serves the Service what it asks for, the one that served it before that it does no more, and those that
    /// make things outside the cluster of what has our finalizer.
    fn hear_service(&mut self, key: &ServiceKey, news: ServiceNews) {
        let ServiceNews { uid, whose, has_finalizer, seen } = news;
        let served_by = if let Whose::Others(name) = whose { Some(name) } else { None };
        let mut told: BTreeSet<_> = self.asked.keys().copied().collect();
        told.retain(|name| Some(*name) == served_by || (has_finalizer && self.asked[name].finalizes));
        let before = self.others.remove(key);
        if before.as_ref().is_some_and(|before| before.uid != uid || before.served_by != served_by || told.is_empty()) {
            // What was said of another one, or by another provider.
            self.said.remove(key);
        }
        for name in before.iter().flat_map(|before| &before.providers).filter(|name| !told.contains(name)) {
            self.tell(*name, key, Wish::Nothing);
        }
        match seen.map(|seen| *seen) {
            Some(Ok(seen)) => {
                for name in &told {
                    let seen = Box::new(seen.clone());
                    let is_its = Some(*name) == served_by;
                    self.tell(*name, key, if is_its { Wish::Served(seen) } else { Wish::Leaves(seen) });
                }
            }
            Some(Err(error)) => tracing::warn!(service = %key, %error, "cannot be read and is passed over"),
            None => {}
        }
        if !told.is_empty() {
            self.others.insert(key.clone(), Told { uid: uid.clone(), served_by, providers: told });
        }
        let Whose::Unknown(class) = whose else {
            self.unknown.remove(key);
            return;
        };
        // It is heard of at each of its changes.
        let same = self.unknown.get(key).is_some_and(|before| (&before.uid, &before.class) == (&uid, &class));
        if !same {
            self.unknown.insert(key.clone(), Unserved { uid, class, told: false });
        }
    }

    fn tell(&self, name: ProviderName, key: &ServiceKey, wish: Wish) {
        if let Some(mailbox) = self.asked.get(&name) {
            mailbox.asked.put(key.clone(), wish);
        }
    }

    /// Takes in what the other providers have to say. Of one that nobody serves speaks whoever has something of it.
    fn take_in(&mut self, said: BTreeMap<(ServiceId, &'static str), Outcome>) {
        for ((id, by), outcome) in said {
            let Some(told) = self.others.get(&id.key).filter(|told| told.uid == id.uid) else { continue };
            if told.served_by.is_none_or(|name| name.as_str() == by) {
                self.world.mark(&id.key);
                self.said.insert(id.key, outcome);
            }
        }
    }

    /// Nothing of ours is on such a Service, so there is no condition to say it by.
    fn tell_unknown(&mut self) {
        for (key, Unserved { uid, class, told }) in self.unknown.iter_mut().filter(|(_, service)| !service.told) {
            *told = true;
            let classes: Vec<_> = ProviderName::ALL.iter().map(|name| name.class()).collect();
            let message = format!(
                "spec.loadBalancerClass `{class}` is none of Berth's, which are {}; no one serves this Service",
                classes.join(", ")
            );
            tracing::warn!(service = %key, class, "no such class");
            self.applier.events.publish(Note {
                regarding: status::reference(key, uid),
                kind: EventType::Warning,
                reason: Reason::UnknownClass,
                message,
            });
        }
    }

    fn dispatch(&mut self) {
        let now = Timestamp::now().as_second();
        if self.world.next_cooled().is_some_and(|until| until <= now) {
            self.world.expire(now);
        }
        self.world.quarantine_found(now);
        for _ in 0..PLANS_PER_TURN {
            if self.busy.len() >= WRITES {
                break;
            }
            let (busy, parked) = (&self.busy, &self.parked);
            let Some(key) = self.world.next(|key| busy.contains(key) || parked.contains(key)) else { break };
            let now = Timestamp::now();
            // It is tried again all the same, when its time has come.
            let refused = self.refused.remove(&key).and_then(|why| not_written(&self.world, &key, why, now));
            let is_refused = refused.is_some();
            let mut plan = refused.unwrap_or_else(|| plan(&self.world, &self.said, &key, now));
            let touches: Vec<_> = plan.announcements().collect();
            if touches.iter().any(|name| self.touched.contains_key(name)) {
                self.world.mark(&key);
                self.parked.insert(key);
                continue;
            }
            self.world.set_waiting(&key, plan.lack.take(), &plan.claims);
            plan.cool.iter().for_each(|address| self.world.cool(*address, now.as_second()));
            plan.kept.iter().for_each(|address| self.world.warm(*address));
            if plan.steps.is_empty() {
                if !is_refused {
                    self.failures.remove(&key);
                }
                continue;
            }
            tracing::debug!(service = %key, steps = plan.steps.len(), claims = ?plan.claims, "planned");
            for (address, pool) in &plan.claims {
                self.world.hold(*address, &key, pool);
            }
            let mut written = Vec::new();
            for (address, layer2) in plan.names() {
                self.world.foresee(address, layer2);
                written.push(address);
            }
            let (applier, started) = (self.applier.clone(), Instant::now());
            let claimed = plan.claims.into_iter().map(|(address, _)| address).collect();
            self.busy.insert(key.clone());
            self.touched.extend(touches.into_iter().map(|name| (name, key.clone())));
            self.writes.spawn(async move {
                let (answers, result) = applier.run(plan.steps).await;
                Done::Service { key, claimed, written, started, is_refused, answers, result }
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
                self.world.unforesee_all();
                self.touched.clear();
                self.parked.clear();
                (self.pool_writes, self.advertisement_writes, self.sweeps_under_way) = Default::default();
                return;
            }
        };
        match done {
            Done::Service { key, claimed, written, started, is_refused, answers, result } => {
                self.busy.remove(&key);
                self.touched.retain(|_, writer| *writer != key);
                self.parked.clear();
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
                for address in written {
                    self.world.unforesee(address);
                }
                match result {
                    Ok(()) => {
                        self.metrics.apply_seconds.observe(started.elapsed().as_secs_f64());
                        if !is_refused {
                            self.failures.remove(&key);
                        }
                    }
                    Err(error) => self.failed(key, claimed, &error),
                }
            }
            Done::Pool(name, result) => {
                self.pool_writes.ended(&name, result.as_ref().ok().copied().flatten());
                if let Err(error) = result {
                    tracing::debug!(%error, "status of a pool not written, it will be tried again");
                    self.world.mark_pool(name);
                }
            }
            Done::Sweep(name, result) => {
                self.sweeps_under_way.remove(&name);
                // Another list may have been due meanwhile.
                self.world.sweep_again();
                if let Err(error) = result {
                    tracing::debug!(%error, node = name, "what it is to ask for is not written, it will be tried again");
                }
            }
            Done::Advertisement(id, result) => {
                self.advertisement_writes.ended(&id, result.as_ref().ok().copied().flatten());
                if let Err(error) = result {
                    tracing::debug!(%error, "status of an advertisement not written, it will be tried again");
                    self.world.mark_advertisement(id);
                }
            }
        }
    }

    fn failed(&mut self, key: ServiceKey, claimed: Vec<IpAddr>, error: &WriteError) {
        for address in claimed {
            self.world.unhold(address);
        }
        // Whoever leads next sees it; should that be this replica again, it plans it anew.
        if matches!(error, WriteError::NotLeading) {
            self.world.mark(&key);
            return;
        }
        // Nothing is wrong, we are only behind: the watch says when to try again, and no time has to pass for it.
        if let WriteError::Outdated { planned_on, .. } = error {
            tracing::info!(service = %key, %error, "planned again when the watch shows it");
            self.world.is_outdated(&key, *planned_on);
            return;
        }
        let failures = self.failures.entry(key.clone()).or_default();
        *failures = failures.saturating_add(1);
        // Not for secrecy: any spread will do.
        self.jitter = self.jitter.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let wait = backoff::wait(*failures, self.jitter >> 56);
        tracing::warn!(service = %key, %error, again_in = ?wait, "not written");
        if let Some(reason) = error.refusal() {
            self.refused.insert(key.clone(), (reason, error.to_string()));
            self.world.mark(&key);
        }
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
        let (mut changes, mut standing) = (Vec::new(), Vec::new());
        for (name, report) in self.world.ipam.reports().filter(|(name, _)| dirty.contains(*name)) {
            for family in IpFamily::ALL {
                let labels = PoolLabels { pool: name.to_owned(), family: family.as_str() };
                let (assigned, available) = (*report.assigned.get(family), *report.available.get(family));
                self.metrics.assigned.get_or_create(&labels).set(report::saturated(assigned.into()));
                self.metrics.available.get_or_create(&labels).set(report::saturated(available));
                let quarantined = self.world.ipam.quarantined_of(name, family);
                self.metrics.quarantined.get_or_create(&labels).set(report::saturated(quarantined as u128));
            }
            let Some(view) = self.world.pool(name) else { continue };
            if self.pool_writes.stands(&name.to_owned(), view.version) {
                standing.push(name.to_owned());
                continue;
            }
            let cooling = self.world.cooling(name, now.as_second());
            let quarantined = self.world.quarantined(name, now.as_second());
            changes.extend(report::pool_change(name, view, report, &cooling, &quarantined, now));
        }
        for name in standing {
            self.world.mark_pool(name);
        }
        for name in dirty.iter().filter(|name| self.world.pool(name).is_none()) {
            for family in IpFamily::ALL {
                let labels = PoolLabels { pool: name.clone(), family: family.as_str() };
                self.metrics.assigned.remove(&labels);
                self.metrics.available.remove(&labels);
                self.metrics.quarantined.remove(&labels);
            }
        }
        for change in changes {
            self.pool_writes.begun(&change.name);
            let applier = self.applier.clone();
            self.writes.spawn(async move { Done::Pool(change.name.clone(), applier.pool_status(change).await) });
        }
        self.write_sweeps();
        for id in self.world.take_dirty_advertisements() {
            let Some(view) = self.world.advertisement(&id) else { continue };
            if self.advertisement_writes.stands(&id, view.version) {
                self.world.mark_advertisement(id);
                continue;
            }
            let Some(change) = report::advertisement_change(&id, view, &self.world, now) else { continue };
            self.advertisement_writes.begun(&id);
            let applier = self.applier.clone();
            self.writes.spawn(async move {
                let written = applier.advertisement_status(id.kind, change).await;
                Done::Advertisement(id, written)
            });
        }
    }
}

impl Reconciler {
    /// Tells nodes what to ask for ahead of need, where that has changed.
    fn write_sweeps(&mut self) {
        if self.next_sweeps > Instant::now() {
            return;
        }
        self.next_sweeps = Instant::now() + SWEEPS_INTERVAL;
        for (name, sweep) in self.world.changed_sweeps() {
            if self.sweeps_under_way.insert(name.clone()) {
                let applier = self.applier.clone();
                self.writes.spawn(async move {
                    let written = applier.sweep(&name, &sweep).await;
                    Done::Sweep(name, written)
                });
            }
        }
    }
}

/// The moment of a time in seconds since 1970.
fn in_time(seconds: i64) -> Instant {
    let left = seconds.saturating_mul(1_000).saturating_sub(Timestamp::now().as_millisecond());
    Instant::now() + Duration::from_millis(u64::try_from(left).unwrap_or(0))
}

/// Sleeps until then, or for ever.
async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
