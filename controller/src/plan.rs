//! What is to be done for one Service: what its provider wants done, and what is published about it, in their order.
//!
//! The claim (the Announcement) comes before the ingress, so that its uniqueness and not ours is what prevents double use; a
//! release comes after the ingress that replaces it (make before break). However many addresses change, the status is
//! written once.

use std::collections::BTreeMap;
use std::net::IpAddr;

use berth_api::condition::types;
use berth_api::crd::Layer2Assignment;
use berth_api::service::ServiceKey;
use berth_api::{Condition, ConditionStatus, Reason};
use berth_pool::plan::{releases, serve};
use berth_pool::view::Asks;
use berth_pool::world::{Lack, World};
use berth_provider::Outcome;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::LoadBalancerIngress;

use crate::note::Note;
use crate::status::{self, ServiceStatus};

/// One write. Each is idempotent: made twice it changes nothing more.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// Write an Announcement.
    Pool(berth_pool::plan::Step),
    /// Make sure that there is no such Service that asks for something here: that the watch did not show one is no proof, it may be
    /// behind.
    Gone(ServiceKey),
    /// Write the Service's status under its resourceVersion, then say it by events.
    Status(ServiceStatus, Vec<Note>),
}

/// What is to be done for one Service.
#[derive(Clone, Debug, Default)]
pub(crate) struct Plan {
    /// In this order; the first that fails ends it.
    pub(crate) steps: Vec<Step>,
    /// The addresses that steps claim, and their pools.
    pub(crate) claims: Vec<(IpAddr, String)>,
    /// Addresses that have to be noted as cooling down before they can be released.
    pub(crate) cool: Vec<IpAddr>,
    /// Addresses that stay.
    pub(crate) kept: Vec<IpAddr>,
    /// What it waits for; to be planned again when that may have come.
    pub(crate) lack: Option<Lack>,
}

impl Plan {
    /// Who is named for which address by the Announcements that steps write.
    pub(crate) fn names(&self) -> impl Iterator<Item = (IpAddr, Option<&Layer2Assignment>)> {
        self.steps.iter().filter_map(|step| match step {
            Step::Pool(step) => Some(step.names()),
            Step::Gone(_) | Step::Status(..) => None,
        })
    }

    /// The Announcements that steps write.
    pub(crate) fn announcements(&self) -> impl Iterator<Item = String> + '_ {
        self.steps.iter().filter_map(|step| match step {
            Step::Pool(
                berth_pool::plan::Step::Claim { announcement, .. } | berth_pool::plan::Step::Update { announcement },
            ) => announcement.metadata.name.clone(),
            Step::Pool(berth_pool::plan::Step::Release(identity)) => Some(identity.name.clone()),
            Step::Gone(_) | Step::Status(..) => None,
        })
    }
}

/// Plans one Service. `others` is what the other providers have to say of theirs.
pub(crate) fn plan(world: &World, others: &BTreeMap<ServiceKey, Outcome>, key: &ServiceKey, now: Timestamp) -> Plan {
    let pool = |steps: Vec<berth_pool::plan::Step>| steps.into_iter().map(Step::Pool);
    let mut plan = Plan::default();
    let (status, mut after) = match world.service(key) {
        Some(view) if view.asks == Asks::Us => {
            let served = serve(world, key, view);
            plan.steps.extend(pool(served.before));
            (plan.claims, plan.kept, plan.lack) = (served.claims, served.kept, served.lack);
            let mut status = status::change(key, view, &served.outcome, now);
            if let Some((_, notes)) = &mut status {
                notes.extend(served.lost.iter().map(|(address, refusal)| status::lost(key, view, *address, refusal)));
            }
            (status, served.after)
        }
        Some(view) if view.asks == Asks::AnotherProvider => match others.get(key) {
            Some(outcome) => {
                // Until a request is met, what is published stays; what that is, is known best here and now. Where nothing is, a name that
                // is known already is.
                let published = view.ingress();
                let ingress = if outcome.met || published.is_empty() { outcome.ingress.clone() } else { published };
                // What the status names, or is about to, goes on being announced.
                let named: Vec<_> = addresses(&ingress).chain(view.addresses()).collect();
                let outcome = Outcome { ingress, ..outcome.clone() };
                plan.kept.clone_from(&named);
                (status::change(key, view, &outcome, now), releases(world, key, &named))
            }
            None => (None, Vec::new()),
        },
        // It lost our class or type: the ingress goes first, then what it held. A provider that cannot take away what it made for the
        // Service says so.
        Some(view) => {
            let status = match others.get(key) {
                Some(outcome) => {
                    let outcome = Outcome { ingress: Vec::new(), ..outcome.clone() };
                    status::change(key, view, &outcome, now)
                }
                None => status::clear(key, view),
            };
            (status, releases(world, key, &[]))
        }
        None => {
            let after = releases(world, key, &[]);
            plan.steps.extend((!after.is_empty()).then(|| Step::Gone(key.clone())));
            (None, after)
        }
    };
    // A release waits until the pool's status says from when on the address may be given again.
    after.retain(|step| match step {
        berth_pool::plan::Step::Release(identity) if world.must_cool(identity.address, now.as_second()) => {
            plan.cool.push(identity.address);
            false
        }
        // The same for what a foreign machine was found to have.
        berth_pool::plan::Step::Release(identity) => !world.must_quarantine(identity.address),
        _ => true,
    });
    plan.steps.extend(status.map(|(status, notes)| Step::Status(status, notes)));
    plan.steps.extend(pool(after));
    plan
}

/// Says of a Service of the pools that what it is to have could not be written. What it has stays.
pub(crate) fn not_written(
    world: &World,
    key: &ServiceKey,
    (reason, message): (Reason, String),
    now: Timestamp,
) -> Option<Plan> {
    let view = world.service(key).filter(|view| view.asks == Asks::Us)?;
    let (planned, ingress) = (serve(world, key, view).outcome, view.ingress());
    let refused = Condition { kind: types::ALLOCATED, status: ConditionStatus::False, reason, message };
    // What would be announced is not said of what is.
    let others = planned.conditions.into_iter().filter(|c| c.kind != types::ALLOCATED && planned.ingress == ingress);
    let conditions = std::iter::once(refused).chain(others).collect();
    let outcome = Outcome { ingress, conditions, met: false, look_again: None };
    let status = status::change(key, view, &outcome, now).map(|(status, notes)| Step::Status(status, notes));
    let lack = Lack { refused: true, ..Lack::default() };
    Some(Plan { steps: status.into_iter().collect(), lack: Some(lack), ..Plan::default() })
}

fn addresses(ingress: &[LoadBalancerIngress]) -> impl Iterator<Item = IpAddr> {
    ingress.iter().filter_map(|i| i.ip.as_ref()?.parse().ok())
}

#[cfg(test)]
mod tests;
