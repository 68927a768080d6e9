//! One look at a shard: observe, plan, apply, and what is to be said of it.

use std::collections::BTreeMap;

use berth_api::condition::types;
use berth_api::{Condition, ConditionStatus};
use berth_provider::{Carried, Failure, Intent, Outcome, Provider, Shard, Wanted, carry_out};

use super::shards::Turn;

/// Looks at a shard, does what is to be done, and says what is to be said.
pub(super) async fn look<P: Provider>(
    provider: &P,
    shard: &Shard,
    wanted: &Wanted,
    may_go_on: impl Fn() -> bool,
) -> Turn {
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
            let farewells = wanted.leaving.values().filter_map(|intent| farewell(intent, &failure));
            let (outcomes, farewells) = (told.chain(refused).collect(), farewells.collect());
            return Turn { outcomes, farewells, unseen: Some(failure), ..Turn::default() };
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
    let leaving = wanted.leaving.values().filter_map(|intent| Some((intent, carried.failures.get(&intent.id)?)));
    let farewells = leaving.filter_map(|(intent, failure)| farewell(intent, failure)).collect();
    if carried.failures.is_empty() && !carried.stopped {
        provider.learned(shard, wanted, &observed);
    }
    let concerns = plan.steps.iter().flat_map(|planned| planned.services.iter().cloned()).collect();
    let (steps, Carried { done, failures, stopped }) = (plan.steps.len(), carried);
    let rests = Some(provider.rests(shard));
    Turn { steps, concerns, done, stopped, outcomes, farewells, failures, unseen: None, rests }
}

/// What a failure means for a Service. One that is served goes on being served by what is there, and its conditions say so
/// unless a person has to do something.
pub(super) fn failed(intent: &Intent, failure: &Failure) -> Option<Outcome> {
    if !intent.published.is_empty() && !failure.class.is_for_a_person() {
        return None;
    }
    Some(unmet(intent, failure))
}

/// What a failure means for a Service that leaves: only what a person has to do is said of it.
fn farewell(intent: &Intent, failure: &Failure) -> Option<(berth_provider::ServiceId, Outcome)> {
    failure.class.is_for_a_person().then(|| (intent.id.clone(), unmet(intent, failure)))
}

pub(super) fn unmet(intent: &Intent, failure: &Failure) -> Outcome {
    let (status, reason) = (ConditionStatus::False, failure.reason);
    let condition = Condition { kind: types::ALLOCATED, status, reason, message: failure.message.clone() };
    Outcome { ingress: intent.published.clone(), conditions: vec![condition], met: false, look_again: None }
}
