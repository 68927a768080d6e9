//! What a plan says: steps in their order, and what becomes of each Service.

use std::collections::BTreeMap;
use std::time::Duration;

use berth_api::Condition;
use berth_api::service::ServiceKey;
use k8s_openapi::api::core::v1::LoadBalancerIngress;
use serde::Serialize;

use crate::{Failure, Provider, ServiceId, Shard};

/// What is to be done for a shard. Serialisable, so that it can be shown before it is carried out.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Plan<S> {
    /// In this order. The first that fails ends it for the Services that it serves.
    pub steps: Vec<PlannedStep<S>>,
    /// What is to be said of each Service once the steps that serve it are done. A Service that is not named keeps what it has.
    #[serde(skip)]
    pub outcomes: BTreeMap<ServiceKey, Outcome>,
}

impl<S> Plan<S> {
    /// Nothing to do, nothing to say.
    pub fn empty() -> Self {
        Self { steps: Vec::new(), outcomes: BTreeMap::new() }
    }
}

impl<S> Default for Plan<S> {
    fn default() -> Self {
        Self::empty()
    }
}

/// One effect, with what a person has to know of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PlannedStep<S> {
    /// The effect. Carried out twice it changes nothing more.
    pub step: S,
    /// The Services that it is for. When it fails, theirs is the failure. One that was made again under its name is another.
    pub services: Vec<ServiceId>,
    /// Whether traffic is interrupted by it; such a step needs the Service's own consent.
    pub disruptive: bool,
}

impl<S> PlannedStep<S> {
    /// An effect for one Service that interrupts nothing.
    pub fn of(service: &ServiceId, step: S) -> Self {
        Self { step, services: vec![service.clone()], disruptive: false }
    }
}

/// What is to be said of a Service.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// Where it is reached, in the order of its families.
    pub ingress: Vec<LoadBalancerIngress>,
    /// The conditions that the provider writes, all of them.
    pub conditions: Vec<Condition>,
    /// Whether the request is met. One that is not waits for a change of anything it rests on.
    pub met: bool,
    /// When to look again although nothing was heard of, because something out there takes its time.
    pub look_again: Option<Duration>,
}

/// What became of a plan's steps.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Carried {
    /// How many were carried out.
    pub done: usize,
    /// What went wrong, for each Service that has to do with it.
    pub failures: BTreeMap<ServiceId, Failure>,
    /// Whether it was stopped in between, because it might go on no more.
    pub stopped: bool,
}

/// Carries out the steps in their order, as long as `may_go_on` says so before each. A failure ends it for the Services that
/// the step serves, not for the others of the shard.
pub async fn carry_out<P: Provider>(
    provider: &P,
    shard: &Shard,
    plan: &Plan<P::Step>,
    observed: &mut P::Observed,
    may_go_on: impl Fn() -> bool,
) -> Carried {
    let mut carried = Carried::default();
    for planned in &plan.steps {
        if !may_go_on() {
            carried.stopped = true;
            break;
        }
        if planned.services.iter().any(|service| carried.failures.contains_key(service)) {
            continue;
        }
        match provider.apply(shard, &planned.step, observed).await {
            Ok(()) => carried.done += 1,
            Err(failure) => {
                carried.failures.extend(planned.services.iter().map(|service| (service.clone(), failure.clone())));
            }
        }
    }
    carried
}
