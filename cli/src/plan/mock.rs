//! What becomes of the Services of the mock provider: its own planner, in a cloud of its own that begins with what is published.

use std::collections::BTreeMap;

use berth_api::condition::types;
use berth_api::service::ServiceKey;
use berth_api::{Condition, ConditionStatus};
use berth_mock::{Cloud, LATENCY, Mock};
use berth_provider::{Failure, Intent, Outcome, Provider, Wanted, carry_out};
use k8s_openapi::api::core::v1::Service;

/// Looks after which a Service that still fails is said to go on failing: more than the calls of the longest script that
/// people write by hand.
const LOOKS: usize = 200;

/// What the mock will say of its Services. How long its load balancers take to come up is left out of it.
pub async fn forecast(services: impl Iterator<Item = (ServiceKey, &Service)>) -> BTreeMap<ServiceKey, Outcome> {
    let mock = Mock::new(Cloud::new());
    let (mut outcomes, mut intents) = (BTreeMap::new(), Vec::new());
    for (key, service) in services {
        match Intent::of(service) {
            Ok(mut intent) => {
                if mock.validate(&intent).is_ok() {
                    intent.annotations.remove(LATENCY);
                }
                intents.push(intent);
            }
            Err(failure) => {
                outcomes.insert(key, failed(&failure));
            }
        }
    }
    mock.takes_over(&intents.iter().collect::<Vec<_>>());
    // Those that have something first, then the older ones: of many at once the mock itself knows no order.
    intents.sort_by_key(|intent| (intent.published.is_empty(), intent.created, intent.id.clone()));
    for intent in intents {
        outcomes.insert(intent.id.key.clone(), settle(&mock, intent).await);
    }
    outcomes
}

/// Looks at a Service until there is nothing left to do for it.
async fn settle(mock: &Mock, intent: Intent) -> Outcome {
    let (key, shard) = (intent.id.key.clone(), mock.shard(&intent));
    let wanted = Wanted { present: BTreeMap::from([(key.clone(), intent)]), ..Wanted::default() };
    let mut last = Outcome::default();
    for _ in 0..LOOKS {
        let mut observed = match mock.observe(&shard, &wanted).await {
            Ok(observed) => observed,
            Err(failure) => return failed(&failure),
        };
        let plan = mock.plan(&wanted, &observed);
        let carried = carry_out(mock, &shard, &plan, &mut observed, || true).await;
        let outcome = plan.outcomes.get(&key).cloned().unwrap_or_default();
        match carried.failures.into_values().next() {
            Some(failure) => last = failed(&failure),
            None if carried.done == 0 => return outcome,
            None => last = outcome,
        }
    }
    last
}

fn failed(failure: &Failure) -> Outcome {
    let condition = Condition {
        kind: types::ALLOCATED,
        status: ConditionStatus::False,
        reason: failure.reason,
        message: failure.message.clone(),
    };
    Outcome { conditions: vec![condition], met: false, ..Outcome::default() }
}
