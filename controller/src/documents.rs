//! Drives a provider that plans whole shards: one task, which owns the [`Shards`]; each look at a shard is a task of its own.
//!
//! ```text
//!  Services (mailbox) -> finalizer -> shards -> observe -> plan -> apply -> outcomes (mailbox) -> the reconciler writes the status
//!  nodes, slices (mailboxes) -> board -> sync_targets -> conditions -----------^
//! ```
//!
//! A provider that is slow or away holds up nobody else: what is asked of it waits in a mailbox that holds only what is latest.
//!
//! Where a provider makes things outside the cluster, nothing is made for a Service before it has our finalizer, and that stays until
//! a look has found nothing left of it. Which Services leave is told by the watches, also at the start; in which shards something of
//! them is, the provider finds by looking.

mod board;
mod finalizers;
mod gates;
mod look;
mod orphans;
mod shards;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use berth_api::service::ServiceKey;
use berth_provider::{Class, Failure, Intent, Outcome, Owned, Provider, ServiceId, Shard, TargetReport};
use futures::FutureExt as _;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::backends::{Feed, NodeState, SliceId, SliceState};
use crate::gates::{GateWrite, GateWriter, GateWritten, Gates};
use crate::heritage::Heritage;
use crate::latest::Latest;
use crate::lease::Leadership;
use crate::list_writer::ListWriter;
use crate::marker::{Marker, Write, Written};
use crate::metrics::{Metrics, ProviderLabels};
use crate::orphans::{Orphans, Snapshot};
use crate::wish::Wish;
use board::Board;
use finalizers::{Finalizers, Follows};
use look::{look, unmet};
use shards::{Shards, Turn};

/// Shards that are looked at at once: enough to hide a cloud's latency, few enough for the limits on calls that clouds have.
const AT_ONCE: usize = 8;
/// Shards whose targets are sent at once. These calls are few and short, and what waits for them is traffic.
const SENDS_AT_ONCE: usize = 16;
/// How long looks under way may take after the signal to stop; the pod's own grace period is longer.
const GRACE: Duration = Duration::from_secs(5);

/// What a provider is asked for: what each Service is to it.
pub(crate) type Asked = Latest<ServiceKey, Wish>;
/// What is to be said of Services, and which provider says it. One that was made again under its name is another one.
pub(crate) type Outcomes = Latest<(ServiceId, &'static str), Outcome>;

/// Whose orphans are to be removed, by their UIDs.
pub(crate) type Named = Latest<(), BTreeSet<String>>;

/// What a driver hears, and where it speaks.
#[derive(Clone)]
pub(crate) struct Ties {
    pub(crate) asked: Asked,
    pub(crate) feed: Feed,
    pub(crate) outcomes: Outcomes,
    pub(crate) leadership: watch::Receiver<Leadership>,
    /// Whether every Service, node and slice that there is was put into the mailboxes.
    pub(crate) listed: watch::Receiver<bool>,
    pub(crate) marker: Marker,
    pub(crate) gate_writer: GateWriter,
    pub(crate) list_writer: ListWriter,
    /// UIDs of Services whose orphans people want to be removed.
    pub(crate) named: Named,
    pub(crate) heritage: Heritage,
    pub(crate) metrics: Metrics,
}

impl Ties {
    /// With empty mailboxes.
    pub(crate) fn new(
        client: &kube::Client,
        leadership: watch::Receiver<Leadership>,
        listed: watch::Receiver<bool>,
        metrics: &Metrics,
    ) -> Self {
        let marker = Marker::new(client.clone(), metrics.clone());
        let gate_writer = GateWriter::new(client.clone(), metrics.clone());
        let list_writer = ListWriter::new(client.clone(), metrics.clone());
        let (asked, feed, outcomes, heritage, named) = Default::default();
        let metrics = metrics.clone();
        Self { asked, feed, outcomes, leadership, listed, marker, gate_writer, list_writer, named, heritage, metrics }
    }
}

/// Drives one provider until it is told to end.
pub(crate) struct Documents<P> {
    provider: Arc<P>,
    ties: Ties,
    shards: Shards,
    finalizers: Finalizers,
    board: Board,
    gates: Gates,
    search: Search,
    orphans: Orphans,
    /// The Services that were here when the search under way began.
    were_here: Snapshot,
    /// What the last look said of each Service.
    said: BTreeMap<ServiceId, Outcome>,
    began: Instant,
}

/// The search for what there is outside of Services that are here no more, or in other shards than they are in.
#[derive(Debug, Default)]
enum Search {
    /// It has been made.
    #[default]
    Done,
    /// It is to be made then, after so many failures.
    Due(Duration, u32),
    /// It is being made.
    UnderWay(u32),
}

/// What a task came to.
enum Work {
    Looked(Shard, Turn),
    Sent(Shard, BTreeSet<ServiceId>, Result<TargetReport, Failure>),
    Marked(Write, Written),
    Gated(GateWrite, GateWritten),
    Found(Result<Vec<Owned>, Failure>),
    Searched(Result<Vec<Owned>, Failure>),
    Listed(Result<(), Failure>),
    Asked(ServiceId, Result<bool, Failure>),
}

impl<P: Provider> Documents<P> {
    pub(crate) fn new(provider: P, ties: Ties) -> Self {
        let (shards, finalizers, board, gates, search) = Default::default();
        let (orphans, were_here, said) = Default::default();
        let (provider, began) = (Arc::new(provider), Instant::now());
        Self { provider, ties, shards, finalizers, board, gates, search, orphans, were_here, said, began }
    }

    pub(crate) async fn run(mut self, end: CancellationToken) {
        let mut work = JoinSet::new();
        let mut led = Leadership::default();
        let Ties { asked, feed, named, mut leadership, mut listed, .. } = self.ties.clone();
        loop {
            let (now, all) = (*leadership.borrow_and_update(), *listed.borrow_and_update());
            let all = all && feed.gates.as_ref().is_none_or(|feed| *feed.listed.borrow());
            // Whoever begins to lead has to know of every Service, or gives what one has that it has not heard of to another.
            self.hear_all();
            let went_on = now.goes_on_from(led);
            // Looks of the time before have to come to their end.
            let leads = all && now.holds() && (went_on || work.is_empty());
            if leads && !went_on {
                self.take_over();
            }
            led = if leads { now } else { Leadership::default() };
            if leads {
                self.start(&mut work);
            } else if work.is_empty() {
                self.shards.stand_by();
                self.orphans_elsewhere();
            }
            let due = self.next_due().filter(|_| leads);
            tokio::select! {
                () = end.cancelled() => break,
                news = asked.take() => self.hear(news),
                news = feed.nodes.take() => self.hear_nodes(news),
                news = feed.slices.take() => self.hear_slices(news),
                news = gates::pods(feed.gates.as_ref()) => self.hear_pods(news),
                () = gates::listed(feed.gates.clone()) => {}
                news = named.take() => self.hear_named(news),
                Some(done) = work.join_next() => self.done(done),
                () = sleep_until(due.map(|due| self.began + due)) => {}
                // Its end is its own affair: it comes before the last word of this process.
                Ok(()) = leadership.changed() => {}
                Ok(()) = listed.changed() => {}
            }
        }
        let all = async { while work.join_next().await.is_some() {} };
        if tokio::time::timeout(GRACE, all).await.is_err() {
            tracing::warn!(provider = self.provider.name(), "looks cut off; the next leader takes them up again");
        } else if led.holds()
            && let Some(what) = self.provider.hands_over()
        {
            self.ties.heritage.leave(self.provider.name(), what);
        }
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// Takes in what is in the mailboxes without waiting for more.
    fn hear_all(&mut self) {
        let Ties { asked, feed, .. } = self.ties.clone();
        if let Some(news) = asked.take().now_or_never() {
            self.hear(news);
        }
        if let Some(news) = feed.nodes.take().now_or_never() {
            self.hear_nodes(news);
        }
        if let Some(news) = feed.slices.take().now_or_never() {
            self.hear_slices(news);
        }
        if let Some(news) = gates::pods(feed.gates.as_ref()).now_or_never() {
            self.hear_pods(news);
        }
    }

    fn take_over(&mut self) {
        let now = self.now();
        self.provider.takes_over(&self.shards.all_present());
        if let Some(left) = self.ties.heritage.take(self.provider.name()) {
            tracing::info!(
                provider = self.provider.name(),
                bytes = left.len(),
                "the leader before left word of what it knew"
            );
            self.provider.inherits(&left);
        }
        self.shards.all_due(now);
        self.finalizers.all_due();
        // Which shards these would be in is said by what they ask for now; where else something of them is, is looked for.
        for (key, intent) in self.finalizers.leaving() {
            if !self.provider.leaves_alone(intent) || self.shards.present(key).is_none() {
                self.shards.leave(key, self.provider.shard(intent), intent, now);
            }
        }
        self.search = if self.provider.needs_finalizer() { Search::Due(now, 0) } else { Search::Done };
        self.orphans.begin(self.provider.lists_orphans());
        self.said.clear();
        self.board.begin();
        self.gates.begin();
        self.all_targets_soon(now);
    }

    fn hear(&mut self, news: BTreeMap<ServiceKey, Wish>) {
        let at = self.now() + self.provider.gathers();
        let finalizes = self.provider.needs_finalizer();
        for (key, wish) in news {
            self.gates.touch(&key);
            let before = self.shards.present(&key).map(|intent| intent.id.clone());
            match wish {
                Wish::Served(seen) => {
                    let leaves_alone = self.provider.leaves_alone(&seen.intent);
                    if finalizes {
                        self.finalizers.learn(&key, &seen, !leaves_alone);
                    }
                    if !finalizes || leaves_alone || seen.mark.is_ours() {
                        self.serve(seen.intent, at);
                    } else if before.as_ref().is_some_and(|id| *id != seen.intent.id) {
                        self.shards.learn(key, None, at);
                    }
                }
                Wish::Leaves(seen) => {
                    self.finalizers.learn(&key, &seen, false);
                    // What the API server says while the finalizer is being taken off changes nothing.
                    if before.is_some() || !self.finalizers.is_left(&seen.intent.id) {
                        self.shards.leave(&key, self.provider.shard(&seen.intent), &seen.intent, at);
                    }
                }
                Wish::Nothing => {
                    self.finalizers.forget(&key);
                    self.shards.learn(key.clone(), None, at);
                }
            }
            if let Some(id) = before.filter(|id| self.shards.present(&id.key).is_none_or(|now| now.id != *id)) {
                self.said.remove(&id);
                self.board.forget(&id);
                self.gates.forget(&id);
            }
        }
    }

    /// What a Service asks for may be made.
    fn serve(&mut self, intent: Intent, at: Duration) {
        let key = intent.id.key.clone();
        let shard = self.provider.shard(&intent);
        self.gates.touch(&key);
        self.shards.learn(key, Some((shard.clone(), intent)), at);
        if self.provider.needs_targets() {
            self.board.soon(&shard, at);
        }
    }

    fn hear_nodes(&mut self, news: BTreeMap<String, Option<Arc<NodeState>>>) {
        if self.board.learn_nodes(news) {
            self.all_targets_soon(self.now());
        }
    }

    fn hear_slices(&mut self, news: BTreeMap<SliceId, Option<SliceState>>) {
        let now = self.now();
        for (id, slice) in news {
            for key in self.board.learn_slice(id, slice) {
                self.gates.touch(&key);
                if let Some(shard) = self.shards.shard_of(&key).filter(|_| self.provider.targets_follow_endpoints()) {
                    self.board.soon(shard, now);
                }
            }
        }
    }

    fn all_targets_soon(&mut self, at: Duration) {
        if self.provider.needs_targets() {
            self.shards.inhabited().for_each(|shard| self.board.soon(shard, at));
        }
    }

    /// When something is to be started next, if there is room for it.
    fn next_due(&self) -> Option<Duration> {
        let looks = self.shards.next_due().filter(|_| self.shards.busy() < AT_ONCE);
        let sends = self.board.next_due().filter(|_| self.board.busy() < SENDS_AT_ONCE);
        let marks = self.finalizers.next_due(|id| Self::may_go(&self.provider, &self.shards, &self.search, id));
        let search = if let Search::Due(at, _) = self.search { Some(at) } else { None };
        [looks, sends, marks, search, self.gates.next_due(), self.orphans.next_due()].into_iter().flatten().min()
    }

    /// Whether nothing is left of a Service that was to leave.
    fn may_go(provider: &P, shards: &Shards, search: &Search, id: &ServiceId) -> bool {
        let stays = shards.present(&id.key).filter(|intent| intent.id == *id);
        matches!(search, Search::Done)
            && !shards.is_leaving(id)
            && stays.is_none_or(|intent| provider.leaves_alone(intent))
    }

    fn start(&mut self, work: &mut JoinSet<Work>) {
        let now = self.now();
        self.start_search(work, now);
        self.start_marks(work, now);
        self.start_gates(work, now);
        self.start_orphans(work, now);
        while self.board.busy() < SENDS_AT_ONCE
            && let Some(shard) = self.board.next(now)
        {
            let targets = self.board.targets(self.shards.members(&shard), &self.gates);
            let services: BTreeSet<_> = targets.services.keys().cloned().collect();
            if services.is_empty() {
                self.board.forget_shard(&shard);
                continue;
            }
            let (provider, leadership) = (self.provider.clone(), self.ties.leadership.clone());
            work.spawn(async move {
                // It may have waited, in a process that was paused.
                let leads = leadership.borrow().holds();
                let sent = async {
                    if leads {
                        provider.sync_targets(&shard, &targets).await
                    } else {
                        Err(Failure::new(Class::Conflict, "this replica leads no more"))
                    }
                };
                let result = caught(sent).await.unwrap_or_else(Err);
                Work::Sent(shard, services, result)
            });
        }
        while self.shards.busy() < AT_ONCE
            && let Some((shard, wanted)) = self.shards.next(now)
        {
            let (provider, leadership) = (self.provider.clone(), self.ties.leadership.clone());
            work.spawn(async move {
                let turn = caught(look(&*provider, &shard, &wanted, || leadership.borrow().holds())).await;
                let turn = turn.unwrap_or_else(|failure| Turn { unseen: Some(failure), ..Turn::default() });
                Work::Looked(shard, turn)
            });
        }
    }

    fn start_search(&mut self, work: &mut JoinSet<Work>, now: Duration) {
        let Search::Due(at, failures) = self.search else { return };
        if at <= now {
            self.search = Search::UnderWay(failures);
            self.were_here = self.snapshot();
            let provider = self.provider.clone();
            work.spawn(async move { Work::Found(caught(provider.list_owned()).await.unwrap_or_else(Err)) });
        }
    }

    fn start_marks(&mut self, work: &mut JoinSet<Work>, now: Duration) {
        let (shards, provider, search) = (&self.shards, &self.provider, &self.search);
        let may_go = |id: &ServiceId| Self::may_go(provider, shards, search, id);
        let (writes, refused) = self.finalizers.due(now, may_go, |intent| provider.validate(intent));
        for (intent, failure) in refused {
            // One that has something keeps it, and what is wrong with it is said all the same.
            self.put(&intent.id, unmet(&intent, &failure));
        }
        for write in writes {
            let (marker, leadership) = (self.ties.marker.clone(), self.ties.leadership.clone());
            work.spawn(async move {
                let leads = leadership.borrow().holds();
                let written = if leads { caught(marker.write(&write)).await } else { Ok(Written::Outdated) };
                Work::Marked(write, written.unwrap_or_else(Written::Failed))
            });
        }
    }

    fn done(&mut self, work: Result<Work, JoinError>) {
        let now = self.now();
        match work {
            Ok(Work::Looked(shard, turn)) => self.looked(&shard, turn),
            Ok(Work::Sent(shard, services, result)) => self.sent(&shard, &services, result),
            Ok(Work::Marked(write, written)) => match self.finalizers.done(&write, written, now) {
                Follows::Serve(intent) => self.serve(*intent, now + self.provider.gathers()),
                Follows::Say(intent, failure) => {
                    self.count(&failure);
                    self.put(&intent.id, unmet(&intent, &failure));
                }
                Follows::Nothing => {}
            },
            Ok(Work::Gated(write, written)) => {
                if let Some((failure, is_first)) = self.gates.done(&write, written, now) {
                    self.gate_failed(&write, &failure, is_first);
                }
            }
            Ok(Work::Found(found)) => self.found(found, now),
            Ok(Work::Searched(found)) => self.searched(found, now),
            Ok(Work::Listed(written)) => self.listed(written, now),
            Ok(Work::Asked(id, is_there)) => self.answered(&id, is_there, now),
            // Panics are caught within the task, and nobody ends one.
            Err(error) => tracing::error!(provider = self.provider.name(), %error, "a task ended abnormally"),
        }
    }

    fn found(&mut self, found: Result<Vec<Owned>, Failure>, now: Duration) {
        let failures = if let Search::UnderWay(failures) = self.search { failures } else { 0 };
        match found {
            Ok(all) => {
                for Owned { shard, service, .. } in &all {
                    let Some(id) = service else { continue };
                    let present = self.shards.present(&id.key).filter(|intent| intent.id == *id);
                    if let Some(intent) = self.finalizers.leaves(id).or(present).cloned() {
                        self.shards.found(shard, &intent, now);
                    }
                }
                self.search = Search::Done;
                self.orphans_found(all, now);
            }
            Err(failure) => {
                self.count(&failure);
                let failures = failures.saturating_add(1);
                self.search = Search::Due(now + failure.wait(failures), failures);
            }
        }
    }

    fn looked(&mut self, shard: &Shard, turn: Turn) {
        for failure in turn.failures.values().chain(&turn.unseen) {
            self.count(failure);
            tracing::debug!(provider = self.provider.name(), %shard, class = %failure.class, %failure, "failed");
        }
        let now = self.now();
        self.hear_removals(&turn, now);
        self.shards.done(shard, &turn, now);
        if turn.done > 0 && self.provider.needs_targets() {
            // There may be something new to send them to.
            self.board.soon(shard, now);
        }
        for (id, outcome) in turn.outcomes {
            if self.shards.present(&id.key).is_some_and(|intent| intent.id == id) {
                self.said.insert(id.clone(), outcome);
                self.say(&id);
            }
        }
        for (id, outcome) in turn.farewells {
            if self.finalizers.leaves(&id).is_some() {
                self.put(&id, outcome);
            }
        }
    }

    fn sent(&mut self, shard: &Shard, services: &BTreeSet<ServiceId>, mut result: Result<TargetReport, Failure>) {
        self.hear_thoughts(services, &mut result);
        if let Err(failure) = &result {
            self.count(failure);
            tracing::debug!(provider = self.provider.name(), %shard, class = %failure.class, %failure, "targets not sent");
        }
        if result.as_ref().is_ok_and(|report| report.added > 0) {
            self.shards.hasten(shard, self.now());
        }
        for id in self.board.done(shard, services, result, self.now()) {
            self.say(&id);
        }
    }

    /// Says what the last look and the targets of a Service came to.
    fn say(&mut self, id: &ServiceId) {
        let Some(outcome) = self.said.get(id) else { return };
        let Some(intent) = self.shards.present(&id.key).filter(|intent| intent.id == *id) else { return };
        // What is published stays as it is until its targets are known again, or a condition would go and come back.
        let shard = self.shards.shard_of(&id.key);
        let waits = self.provider.needs_targets() && shard.is_some_and(|shard| !self.board.was_sent_to(shard));
        if waits && outcome.met && outcome.ingress == intent.published {
            return;
        }
        let mut outcome = outcome.clone();
        outcome.conditions.extend(self.board.condition(id).cloned());
        self.put(id, outcome);
    }

    fn put(&self, id: &ServiceId, outcome: Outcome) {
        self.ties.outcomes.put((id.clone(), self.provider.name()), outcome);
    }

    fn count(&self, failure: &Failure) {
        let labels = ProviderLabels { provider: self.provider.name(), class: failure.class.as_str() };
        self.ties.metrics.provider_failures.get_or_create(&labels).inc();
    }
}

/// What a task comes to. One that panics has failed, and no other with it.
async fn caught<T>(task: impl Future<Output = T>) -> Result<T, Failure> {
    let caught = AssertUnwindSafe(task).catch_unwind().await;
    caught.map_err(|_| {
        Failure::new(Class::Transient, "Berth failed here; the log of berth-controller says where (`panicked at`)")
    })
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
