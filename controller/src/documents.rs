//! Drives a provider that plans whole shards: one task, which owns the [`Shards`]; each look at a shard is a task of its own.
//!
//! ```text
//!  Services (mailbox) -> shards -> observe -> plan -> apply -> outcomes (mailbox) -> the reconciler writes the status
//! ```
//!
//! A provider that is slow or away holds up nobody else: what is asked of it waits in a mailbox that holds only what is latest.

mod shards;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use berth_api::condition::types;
use berth_api::service::ServiceKey;
use berth_api::{Condition, ConditionStatus};
use berth_provider::{Carried, Failure, Intent, Outcome, Provider, ServiceId, Shard, Wanted, carry_out};
use futures::FutureExt as _;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::latest::Latest;
use crate::lease::Leadership;
use crate::metrics::{Metrics, ProviderLabels};
use shards::{Shards, Turn};

/// Shards that are looked at at once: enough to hide a cloud's latency, few enough for the limits on calls that clouds have.
const AT_ONCE: usize = 8;
/// How long looks under way may take after the signal to stop; the pod's own grace period is longer.
const GRACE: Duration = Duration::from_secs(5);

/// What a provider is asked for: the Service as it asks, or `None` when it is not this provider's any more.
pub(crate) type Asked = Latest<ServiceKey, Option<Intent>>;
/// What is to be said of Services. One that was made again under its name is another one.
pub(crate) type Outcomes = Latest<ServiceId, Outcome>;

/// A provider that makes things outside the cluster, which a Service that is deleted while nobody runs would leave behind.
#[derive(Debug, thiserror::Error)]
#[error("the provider {provider} needs a finalizer on its Services, and nothing puts one on")]
pub(crate) struct FinalizerNeeded {
    provider: &'static str,
}

/// Drives one provider until it is told to end.
pub(crate) struct Documents<P> {
    provider: Arc<P>,
    shards: Shards,
    asked: Asked,
    outcomes: Outcomes,
    leadership: watch::Receiver<Leadership>,
    /// Whether every Service that there is was put into the mailbox.
    listed: watch::Receiver<bool>,
    metrics: Metrics,
    began: Instant,
}

impl<P: Provider> Documents<P> {
    pub(crate) fn new(
        provider: P,
        asked: Asked,
        outcomes: Outcomes,
        leadership: watch::Receiver<Leadership>,
        listed: watch::Receiver<bool>,
        metrics: Metrics,
    ) -> Result<Self, FinalizerNeeded> {
        if provider.needs_finalizer() {
            return Err(FinalizerNeeded { provider: provider.name() });
        }
        let (provider, shards) = (Arc::new(provider), Shards::default());
        Ok(Self { provider, shards, asked, outcomes, leadership, listed, metrics, began: Instant::now() })
    }

    pub(crate) async fn run(mut self, end: CancellationToken) {
        let mut turns = JoinSet::new();
        let mut led = Leadership::default();
        loop {
            let (now, listed) = (*self.leadership.borrow_and_update(), *self.listed.borrow_and_update());
            // Whoever begins to lead has to know of every Service, or gives what one has that it has not heard of to another.
            if let Some(asked) = self.asked.take().now_or_never() {
                self.hear(asked);
            }
            let went_on = now.goes_on_from(led);
            // Looks of the time before have to come to their end.
            let leads = listed && now.holds() && (went_on || turns.is_empty());
            if leads && !went_on {
                self.provider.takes_over(&self.shards.all_present());
                self.shards.all_due(self.now());
            }
            led = if leads { now } else { Leadership::default() };
            if leads {
                self.start(&mut turns);
            } else if turns.is_empty() {
                self.shards.stand_by();
            }
            let due = self.shards.next_due().filter(|_| leads && self.shards.busy() < AT_ONCE);
            tokio::select! {
                () = end.cancelled() => break,
                asked = self.asked.take() => self.hear(asked),
                Some(turn) = turns.join_next() => match turn {
                    Ok((shard, turn)) => self.done(&shard, turn),
                    Err(error) => {
                        tracing::error!(provider = self.provider.name(), %error, "a look at a shard ended abnormally");
                        // Which one has no name here.
                        self.shards.forget_busy();
                        self.shards.all_due(self.now());
                    }
                },
                () = sleep_until(due.map(|due| self.began + due)) => {}
                // Its end is its own affair: it comes before the last word of this process.
                Ok(()) = self.leadership.changed() => {}
                Ok(()) = self.listed.changed() => {}
            }
        }
        let all = async { while turns.join_next().await.is_some() {} };
        if tokio::time::timeout(GRACE, all).await.is_err() {
            tracing::warn!(provider = self.provider.name(), "looks cut off; the next leader takes them up again");
        }
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    fn hear(&mut self, asked: BTreeMap<ServiceKey, Option<Intent>>) {
        let at = self.now() + self.provider.gathers();
        for (key, intent) in asked {
            let asked = intent.map(|intent| (self.provider.shard(&intent), intent));
            self.shards.learn(key, asked, at);
        }
    }

    fn start(&mut self, turns: &mut JoinSet<(Shard, Turn)>) {
        while self.shards.busy() < AT_ONCE
            && let Some((shard, wanted)) = self.shards.next(self.now())
        {
            let (provider, leadership) = (self.provider.clone(), self.leadership.clone());
            turns.spawn(async move {
                let turn = look(&*provider, &shard, &wanted, || leadership.borrow().holds()).await;
                (shard, turn)
            });
        }
    }

    fn done(&mut self, shard: &Shard, turn: Turn) {
        for failure in turn.failures.values().chain(&turn.unseen) {
            let labels = ProviderLabels { provider: self.provider.name(), class: failure.class.as_str() };
            self.metrics.provider_failures.get_or_create(&labels).inc();
            tracing::debug!(provider = self.provider.name(), %shard, class = %failure.class, %failure, "failed");
        }
        self.shards.done(shard, &turn, self.now());
        for (id, outcome) in turn.outcomes {
            if self.shards.present(&id.key).is_some_and(|intent| intent.id == id) {
                self.outcomes.put(id, outcome);
            }
        }
    }
}

/// Looks at a shard, does what is to be done, and says what is to be said.
async fn look<P: Provider>(provider: &P, shard: &Shard, wanted: &Wanted, may_go_on: impl Fn() -> bool) -> Turn {
    // What is wrong with a Service is said also while the other side is away.
    let refused: BTreeMap<_, _> = wanted
        .present
        .values()
        .filter_map(|intent| Some((intent.id.clone(), failed(intent, &provider.validate(intent).err()?)?)))
        .collect();
    let mut observed = match provider.observe(shard, wanted).await {
        Ok(observed) => observed,
        Err(failure) => {
            let told =
                wanted.present.values().filter_map(|intent| Some((intent.id.clone(), failed(intent, &failure)?)));
            return Turn { outcomes: told.chain(refused).collect(), unseen: Some(failure), ..Turn::default() };
        }
    };
    let plan = provider.plan(wanted, &observed);
    let carried = carry_out(provider, shard, &plan, &mut observed, may_go_on).await;
    let mut outcomes = BTreeMap::new();
    for (key, intent) in wanted.present.iter().filter(|_| !carried.stopped) {
        let outcome = match carried.failures.get(&intent.id) {
            Some(failure) => failed(intent, failure),
            None => plan.outcomes.get(key).cloned(),
        };
        outcomes.extend(outcome.map(|outcome| (intent.id.clone(), outcome)));
    }
    let (steps, Carried { done, failures, stopped }) = (plan.steps.len(), carried);
    Turn { steps, done, stopped, outcomes, failures, unseen: None }
}

/// What a failure means for a Service. One that is served goes on being served by what is there, and its conditions say so
/// unless a person has to do something.
fn failed(intent: &Intent, failure: &Failure) -> Option<Outcome> {
    if !intent.published.is_empty() && !failure.class.is_for_a_person() {
        return None;
    }
    let (status, reason) = (ConditionStatus::False, failure.reason);
    let condition = Condition { kind: types::ALLOCATED, status, reason, message: failure.message.clone() };
    Some(Outcome { ingress: intent.published.clone(), conditions: vec![condition], met: false, look_again: None })
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
