//! A small controller: what the real one does with a provider, without its queues.

use std::collections::{BTreeMap, BTreeSet};

use berth_api::service::ServiceKey;
use k8s_openapi::api::core::v1::LoadBalancerIngress;

use super::World;
use crate::{Intent, Outcome, Plan, Provider, ServiceId, Shard, Wanted, carry_out};

/// Rounds after which a provider that still has something to do never comes to rest.
const ROUNDS: usize = 60;

/// The Services of a cluster, and what was published about them.
#[derive(Clone, Debug, Default)]
pub(super) struct Cluster {
    pub present: BTreeMap<ServiceKey, Intent>,
    pub leaving: Vec<Intent>,
    /// What was said last of each Service that is present.
    pub outcomes: BTreeMap<ServiceKey, Outcome>,
}

/// What one look at all shards came to.
#[derive(Clone, Debug, Default)]
pub(super) struct Round {
    /// Steps that were planned.
    pub steps: usize,
    /// Whether something was published that was not before.
    pub published: bool,
    /// What went wrong.
    pub failures: Vec<String>,
}

impl Cluster {
    pub(super) fn of(intents: impl IntoIterator<Item = Intent>) -> Self {
        let mut cluster = Self::default();
        intents.into_iter().for_each(|intent| cluster.add(intent));
        cluster
    }

    pub(super) fn add(&mut self, intent: Intent) {
        self.leaving.retain(|leaving| leaving.id != intent.id);
        self.present.insert(intent.id.key.clone(), intent);
    }

    pub(super) fn remove(&mut self, key: &ServiceKey) {
        self.outcomes.remove(key);
        self.leaving.extend(self.present.remove(key));
    }

    pub(super) fn published(&self, key: &ServiceKey) -> Option<&[LoadBalancerIngress]> {
        self.outcomes.get(key).map(|outcome| &outcome.ingress[..]).filter(|ingress| !ingress.is_empty())
    }

    /// What is asked of each shard.
    pub(super) fn wanted<P: Provider>(&self, provider: &P) -> BTreeMap<Shard, Wanted> {
        let mut shards: BTreeMap<Shard, Wanted> = BTreeMap::new();
        for (key, intent) in &self.present {
            // One that is refused is still known to its shard, so that what it holds is not taken for an orphan's.
            let wanted = shards.entry(provider.shard(intent)).or_default();
            wanted.present.insert(key.clone(), intent.clone());
        }
        for intent in &self.leaving {
            let wanted = shards.entry(provider.shard(intent)).or_default();
            wanted.leaving.insert(intent.id.clone(), intent.clone());
        }
        shards
    }

    /// Looks at every shard once: observe, plan, carry out, publish.
    pub(super) async fn round<W: World>(&mut self, provider: &W::Provider) -> Round {
        let mut round = Round::default();
        for (shard, wanted) in self.wanted(provider) {
            let mut observed = match provider.observe(&shard, &wanted).await {
                Ok(observed) => observed,
                Err(failure) => {
                    round.failures.push(format!("observing {shard}: {failure}"));
                    continue;
                }
            };
            let plan = provider.plan(&wanted, &observed);
            round.steps += plan.steps.len();
            let carried = carry_out(provider, &shard, &plan, &mut observed, || true).await;
            round.failures.extend(carried.failures.iter().map(|(id, failure)| format!("{}: {failure}", id.key)));
            if carried.failures.is_empty() {
                provider.learned(&shard, &wanted, &observed);
            }
            let failed: BTreeSet<_> = carried.failures.into_keys().collect();
            round.published |= self.publish(plan, &failed);
        }
        round
    }

    fn publish<S>(&mut self, plan: Plan<S>, failed: &BTreeSet<ServiceId>) -> bool {
        let mut news = false;
        for (key, outcome) in plan.outcomes {
            let Some(intent) = self.present.get_mut(&key).filter(|intent| !failed.contains(&intent.id)) else {
                continue;
            };
            intent.published.clone_from(&outcome.ingress);
            if self.outcomes.get(&key) != Some(&outcome) {
                self.outcomes.insert(key, outcome);
                news = true;
            }
        }
        news
    }

    /// Goes on until nothing is left to do.
    pub(super) async fn converge<W: World>(&mut self, world: &W, provider: &W::Provider) -> Result<(), String> {
        let mut last = Round::default();
        for _ in 0..ROUNDS {
            last = self.round::<W>(provider).await;
            let coming = self.outcomes.values().any(|outcome| outcome.look_again.is_some());
            if last.steps == 0 && !last.published && last.failures.is_empty() && !coming {
                return self.everybody_is_served();
            }
            world.settle().await;
        }
        Err(format!("not at rest after {ROUNDS} rounds; the last one was {last:?}"))
    }

    fn everybody_is_served(&self) -> Result<(), String> {
        let mut holders: BTreeMap<String, &ServiceKey> = BTreeMap::new();
        for key in self.present.keys() {
            let Some(ingress) = self.published(key) else {
                return Err(format!("{key} is not served at the end: {:?}", self.outcomes.get(key)));
            };
            for address in ingress.iter().filter_map(|i| i.ip.clone()) {
                if let Some(other) = holders.insert(address.clone(), key) {
                    return Err(format!("{address} is given to {other} and to {key}"));
                }
            }
        }
        Ok(())
    }
}
