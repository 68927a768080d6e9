//! From what is wanted and what was seen to ordered steps and what is to be said: pure.
//!
//! In this order: what leaves is taken away; security group and rules; target groups; the load balancer; listeners; then what is
//! needed no more, target groups, rules and the security group. A load balancer that takes another one's place is made and
//! published first; the old one goes some time after no Service's status names it any more.

mod front;
mod ports;
mod removal;

pub(crate) use removal::disowns;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use berth_api::condition::types;
use berth_api::service::ServiceKey;
use berth_api::{Condition, ConditionStatus, Reason};
use berth_provider::{Intent, Outcome, Plan, PlannedStep, ServiceId, Wanted};
use k8s_openapi::api::core::v1::LoadBalancerIngress;

use crate::cloud::State;
use crate::intent::{Asks, Front};
use crate::model::Holder;
use crate::observed::{Observed, SeenLoadBalancer};
use crate::refusal::Refusal;
use crate::settings::Settings;
use crate::step::Step;
use crate::tags;

pub use ports::with_rivals;

/// A load balancer takes two to five minutes to come up; asked this often, its time is not much longer for that.
const PROVISIONING: Duration = Duration::from_secs(10);
/// Targets are registered within a second by their own queue.
const TARGETS: Duration = Duration::from_secs(1);

/// Plans a shard.
pub fn plan(settings: &Settings, wanted: &Wanted, observed: &Observed) -> Plan<Step> {
    let mut plan = Plan::empty();
    if observed.is_as_it_was_left {
        plan.outcomes = as_it_was_left(wanted, observed);
        return plan;
    }
    plan.steps = removal::steps(settings, wanted, observed);
    let mut holders: BTreeMap<String, (Holder, Vec<&Intent>)> = BTreeMap::new();
    for intent in wanted.present.values() {
        let holder = Holder::of(intent);
        holders.entry(holder.shard()).or_insert_with(|| (holder, Vec::new())).1.push(intent);
    }
    for (holder, intents) in holders.values() {
        let leaving = wanted.leaving.keys().map(|id| id.uid.as_str()).collect();
        Shard { settings, observed, holder, intents, leaving }.plan(&mut plan);
    }
    plan
}

/// The Services that a load balancer is for, and what was seen.
struct Shard<'a> {
    settings: &'a Settings,
    observed: &'a Observed,
    holder: &'a Holder,
    intents: &'a [&'a Intent],
    /// UIDs of Services whose listeners this plan takes away.
    leaving: BTreeSet<&'a str>,
}

/// Steps that are collected, for the Services that they are for.
struct Steps {
    services: Vec<ServiceId>,
    steps: Vec<PlannedStep<Step>>,
}

impl Steps {
    fn of(services: Vec<ServiceId>) -> Self {
        Self { services, steps: Vec::new() }
    }

    fn push(&mut self, step: Step) {
        self.push_if_disruptive(step, false);
    }

    fn push_if_disruptive(&mut self, step: Step, disruptive: bool) {
        self.steps.push(PlannedStep { step, services: self.services.clone(), disruptive });
    }
}

impl<'a> Shard<'a> {
    fn plan(&self, plan: &mut Plan<Step>) {
        let mut refused: BTreeMap<ServiceId, Refusal> = BTreeMap::new();
        let mut accepted: Vec<Asks> = Vec::new();
        for intent in self.intents {
            match Asks::of(intent, self.settings) {
                Ok(asks) => accepted.push(asks),
                Err(refusal) => drop(refused.insert(intent.id.clone(), refusal)),
            }
        }
        // Only one that is alone can be disowned.
        if accepted.first().is_some_and(|asks| asks.disown) {
            plan.outcomes.extend(self.intents.iter().map(|intent| (intent.id.key.clone(), disowned(intent))));
            return;
        }
        // The oldest decides.
        accepted.sort_by(|a, b| (a.created, &a.service).cmp(&(b.created, &b.service)));
        if let Some(decider) = accepted.first().map(|asks| (asks.front.clone(), asks.allow_replacement)) {
            self.agree(&decider.0, &mut accepted, &mut refused);
            self.serve(&decider.0, decider.1, accepted, &mut refused, plan);
        }
        for intent in self.intents {
            if let Some(refusal) = refused.get(&intent.id) {
                plan.outcomes.insert(intent.id.key.clone(), unmet(intent, refusal.reason(), refusal.to_string(), None));
            }
        }
    }

    /// Refuses those that want another load balancer than the oldest, or a port that somebody has.
    fn agree(&self, front: &Front, accepted: &mut Vec<Asks>, refused: &mut BTreeMap<ServiceId, Refusal>) {
        let decider = accepted.first().map(|asks| asks.service.key.to_string()).unwrap_or_default();
        // One that is refused keeps its listeners, and so may have a port that another one counted on: all are asked again then.
        while let Some((index, refusal)) = self.first_refused(front, &decider, accepted) {
            let asks = accepted.remove(index);
            refused.insert(asks.service, refusal);
        }
    }

    /// The first, from the oldest on, that cannot be served beside those before it and beside what is there.
    fn first_refused(&self, front: &Front, decider: &str, accepted: &[Asks]) -> Option<(usize, Refusal)> {
        let mut holders = self.holders(accepted);
        accepted.iter().enumerate().find_map(|(index, asks)| {
            if let Some(what) = difference(front, &asks.front) {
                return Some((index, Refusal::GroupDiffers { with: decider.to_owned(), what }));
            }
            let uid = &asks.service.uid;
            for port in asks.ports.keys() {
                match holders.get(port) {
                    Some((other, by)) if other != uid => {
                        return Some((index, Refusal::PortTaken { port: *port, by: by.clone() }));
                    }
                    _ => drop(holders.insert(*port, (uid.clone(), asks.service.key.to_string()))),
                }
            }
            None
        })
    }

    /// Who has which port now and does not give it up by this plan: the UID, and the name for people.
    fn holders(&self, accepted: &[Asks]) -> BTreeMap<u16, (String, String)> {
        let listeners = self.mine().flat_map(|seen| &seen.listeners);
        let held = listeners.filter_map(|(port, listener)| {
            let Some(by) = tags::service(&listener.tags) else {
                return Some((*port, (String::new(), "somebody else".to_owned())));
            };
            let gives_up = self.leaving.contains(by.uid.as_str())
                || accepted.iter().any(|asks| asks.service.uid == by.uid && !asks.ports.contains_key(port));
            (!gives_up).then(|| (*port, (by.uid, by.key.to_string())))
        });
        held.collect()
    }

    /// The load balancers that are for these Services.
    fn mine(&self) -> impl Iterator<Item = &'a SeenLoadBalancer> {
        let uid = self.holder.service().map(|service| service.uid.clone());
        self.observed.load_balancers.iter().filter(move |seen| seen.holder() == uid)
    }

    fn serve(
        &self,
        front: &Front,
        consents: bool,
        mut accepted: Vec<Asks>,
        refused: &mut BTreeMap<ServiceId, Refusal>,
        plan: &mut Plan<Step>,
    ) {
        let model = crate::model::load_balancer(self.settings, self.holder, front);
        let current = self.mine().find(|seen| seen.digest().as_ref() == Some(&model.digest));
        if let Some(current) = current {
            accepted.retain(|asks| match self.needs_consent(current, &model.digest, asks) {
                Some(refusal) => {
                    refused.insert(asks.service.clone(), refusal);
                    false
                }
                None => true,
            });
        }
        let members: Vec<&Asks> = accepted.iter().collect();
        if members.is_empty() {
            return;
        }
        let ports = crate::model::ports(self.settings, self.holder, &members, &model.digest);
        let services: Vec<_> = members.iter().map(|asks| asks.service.clone()).collect();
        let planned = self.front(front, consents, &model, current, &members);
        let mut front_steps = match planned {
            Ok(steps) => steps,
            Err(refusal) => {
                refused.extend(services.into_iter().map(|service| (service, refusal.clone())));
                return;
            }
        };
        let listeners = self.ports(current, &model, &ports);
        let old = self.replaced(current, &services);
        let all_known = self.all_known(current, &ports, &services);
        plan.steps.append(&mut front_steps.before);
        // A rule may be for a listener that is left alone, so then all of them stay.
        if all_known {
            plan.steps.append(&mut front_steps.narrows);
        }
        plan.steps.extend(listeners.groups);
        plan.steps.extend(listeners.makes_room);
        plan.steps.append(&mut front_steps.load_balancer);
        plan.steps.extend(listeners.listeners);
        plan.steps.extend(old.steps);
        plan.steps.extend(self.unneeded_groups(&services, &ports, current, &old.names, &listeners.keeps));
        if all_known {
            plan.steps.append(&mut front_steps.after);
        }
        let intents = self.intents.iter().filter(|intent| services.contains(&intent.id));
        for intent in intents {
            let mut outcome = self.outcome(intent, current, &model.name, listeners.waits.get(&intent.id));
            outcome.look_again = outcome.look_again.or(old.stays);
            plan.outcomes.insert(intent.id.key.clone(), outcome);
        }
    }

    fn outcome(
        &self,
        intent: &Intent,
        current: Option<&SeenLoadBalancer>,
        name: &str,
        waits: Option<&String>,
    ) -> Outcome {
        let Some(current) = current else {
            let message = format!("the load balancer {name} is being made");
            let mut outcome = unmet(intent, Reason::Provisioning, message, None);
            outcome.conditions.extend(coming(State::Provisioning, true, name));
            return outcome;
        };
        let hostname = current.hostname();
        // What clients use already stays published until its replacement works.
        let serves = |seen: &SeenLoadBalancer| is_published(intent, seen) && seen.is.name != current.is.name;
        let replaces = self.mine().any(serves);
        let ingress = if replaces { intent.published.clone() } else { at(&hostname) };
        let pending = |reason, message: String, again| {
            let mut conditions = vec![condition(ConditionStatus::False, reason, message)];
            conditions.extend(coming(current.is.state, true, &hostname));
            Outcome { ingress: ingress.clone(), conditions, met: false, look_again: again }
        };
        match current.is.state {
            State::Provisioning => {
                let message = format!(
                    "AWS is bringing up {hostname}, which takes some minutes; its name may not resolve until then"
                );
                pending(Reason::Provisioning, message, Some(PROVISIONING))
            }
            State::Failed => {
                let message = format!("AWS says that the load balancer {name} failed; look at its subnets and limits");
                pending(Reason::ProviderUnavailable, message, Some(PROVISIONING))
            }
            State::Active | State::ActiveImpaired => {
                if let Some(message) = waits {
                    return pending(Reason::Provisioning, message.clone(), Some(TARGETS));
                }
                served(current)
            }
        }
    }
}

/// What is to be said of who is served.
fn served(current: &SeenLoadBalancer) -> Outcome {
    let hostname = current.hostname();
    let message = format!("{hostname}, an AWS Network Load Balancer named {}", current.is.name);
    let mut conditions = vec![condition(ConditionStatus::True, Reason::Allocated, message)];
    conditions.extend(coming(current.is.state, false, &hostname));
    Outcome { ingress: at(&hostname), conditions, met: true, look_again: None }
}

/// What is to be said where nothing is to be done. One of whom something else is published was not served, and keeps what was said of it.
fn as_it_was_left(wanted: &Wanted, observed: &Observed) -> BTreeMap<ServiceKey, Outcome> {
    let Some(current) = observed.load_balancers.first() else { return BTreeMap::new() };
    let outcome = served(current);
    let is_served = wanted.present.values().filter(|intent| intent.published == outcome.ingress);
    is_served.map(|intent| (intent.id.key.clone(), outcome.clone())).collect()
}

/// How far a load balancer has come, for people who wait for it: whether something is still under way, and whether it takes traffic.
fn coming(state: State, is_under_way: bool, which: &str) -> [Condition; 2] {
    let says = |kind, status, reason, message: &str| Condition { kind, status, reason, message: message.to_owned() };
    let (status, reason) = if is_under_way && state != State::Failed {
        (ConditionStatus::True, Reason::Provisioning)
    } else {
        (ConditionStatus::False, if state == State::Failed { Reason::ProviderUnavailable } else { Reason::Active })
    };
    let message = if is_under_way { "AWS is bringing it up or changing it" } else { "nothing is under way" };
    let provisioning = says(types::PROVISIONING, status, reason, message);
    let message = match state {
        State::Active => format!("{which} takes traffic"),
        State::ActiveImpaired => format!("{which} takes traffic; AWS says that it lacks resources to scale"),
        State::Provisioning => format!("{which} does not take traffic yet"),
        State::Failed => format!("AWS says that {which} failed"),
    };
    let (status, reason) = match state {
        State::Active | State::ActiveImpaired => (ConditionStatus::True, Reason::Active),
        State::Provisioning => (ConditionStatus::False, Reason::Provisioning),
        State::Failed => (ConditionStatus::False, Reason::ProviderUnavailable),
    };
    [provisioning, says(types::ACTIVE, status, reason, &message)]
}

/// What two wishes for one load balancer differ in.
fn difference(a: &Front, b: &Front) -> Option<&'static str> {
    let all = [
        (a.scheme == b.scheme, "the scheme"),
        (a.ip_address_type == b.ip_address_type, "the type of addresses"),
        (a.name == b.name, "the name"),
        (a.subnets == b.subnets, "the subnets"),
        (a.addresses == b.addresses, "the addresses"),
        (a.security == b.security, "the security groups"),
        (a.opens_targets == b.opens_targets, "whether nodes and pods are opened to it"),
        (a.enforce_on_private_link == b.enforce_on_private_link, "the rules for PrivateLink"),
        (a.attributes == b.attributes, "the attributes"),
        (a.tags == b.tags, "the tags"),
    ];
    all.into_iter().find(|(same, _)| !same).map(|(_, what)| what)
}

/// Whether a Service's status names the load balancer.
pub(crate) fn is_published(intent: &Intent, seen: &SeenLoadBalancer) -> bool {
    let hostname = seen.hostname();
    intent.published.iter().any(|ingress| ingress.hostname.as_deref() == Some(&hostname))
}

fn at(hostname: &str) -> Vec<LoadBalancerIngress> {
    vec![LoadBalancerIngress { hostname: Some(hostname.to_owned()), ..LoadBalancerIngress::default() }]
}

fn condition(status: ConditionStatus, reason: Reason, message: String) -> Condition {
    Condition { kind: types::ALLOCATED, status, reason, message }
}

/// What is published stays until it can be replaced.
fn unmet(intent: &Intent, reason: Reason, message: String, look_again: Option<Duration>) -> Outcome {
    let conditions = vec![condition(ConditionStatus::False, reason, message)];
    Outcome { ingress: intent.published.clone(), conditions, met: false, look_again }
}

fn disowned(intent: &Intent) -> Outcome {
    let message =
        "the annotation berth.dev/disown leaves the cloud objects as they are; nothing is changed any more".to_owned();
    let conditions = vec![condition(ConditionStatus::True, Reason::Allocated, message)];
    Outcome { ingress: intent.published.clone(), conditions, met: true, look_again: None }
}
