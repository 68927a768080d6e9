//! Of Services that leave nothing remains, unless they say so.

use std::collections::BTreeSet;

use berth_api::annotations as own;
use berth_provider::{Intent, PlannedStep, Wanted};

use super::Steps;
use crate::annotation::{full, map};
use crate::cloud::Pairs;
use crate::intent::DELETION_PROTECTION;
use crate::model::{self, Holder};
use crate::observed::{Observed, SeenLoadBalancer, SeenTargetGroup};
use crate::settings::Settings;
use crate::step::{Step, Tagged};
use crate::tags;

pub(super) fn steps(settings: &Settings, wanted: &Wanted, observed: &Observed) -> Vec<PlannedStep<Step>> {
    let mut steps = Vec::new();
    for intent in wanted.leaving.values() {
        // What it asks for now need not be what it has here: it may have had a load balancer of its own before it joined a group.
        steps.extend(match Holder::of(intent) {
            Holder::Service(_) if disowns(intent) => forgotten(intent, observed),
            _ => removed(intent, wanted, observed),
        });
    }
    steps.extend(backend_group(settings, wanted, observed));
    steps
}

/// Whether what it has in AWS is to stay, and to be nobody's.
pub(crate) fn disowns(intent: &Intent) -> bool {
    intent.annotations.get(own::DISOWN).is_some_and(|value| value.trim() == "true")
}

fn is_of(intent: &Intent, of: &Pairs) -> bool {
    tags::service(of).is_some_and(|service| service.uid == intent.id.uid)
}

fn groups_of<'a>(intent: &'a Intent, observed: &'a Observed) -> impl Iterator<Item = &'a SeenTargetGroup> {
    observed.target_groups.iter().filter(|seen| is_of(intent, &seen.tags))
}

/// Whether AWS deletes it for nobody.
pub(super) fn is_protected(seen: &SeenLoadBalancer) -> bool {
    seen.attributes.get(DELETION_PROTECTION).is_some_and(|value| value == "true")
}

/// Whether a Service says that its load balancer is not to be protected.
pub(super) fn takes_protection_back(intent: &Intent) -> bool {
    let attributes = intent.annotations.get(&full("attributes"));
    let pairs = attributes.and_then(|text| map(&full("attributes"), text).ok());
    pairs.is_some_and(|pairs| pairs.get(DELETION_PROTECTION).is_some_and(|value| value == "false"))
}

/// A protected load balancer stays, and AWS says so, unless the Service takes the protection back. That is not done for it, because
/// a person may have set it.
fn load_balancer(intent: &Intent, seen: &SeenLoadBalancer, steps: &mut Steps) {
    let name = &seen.is.name;
    if is_protected(seen) && takes_protection_back(intent) {
        let attributes = [(DELETION_PROTECTION.to_owned(), false.to_string())].into();
        steps.push(Step::ModifyLoadBalancerAttributes { load_balancer: name.clone(), attributes });
    }
    steps.push(Step::DeleteLoadBalancer { load_balancer: name.clone() });
}

/// Takes the tags off by which it is ours. The load balancer's last: its listeners are found by it.
fn forgotten(intent: &Intent, observed: &Observed) -> Vec<PlannedStep<Step>> {
    let mut steps = Steps::of(vec![intent.id.clone()]);
    let mut forget = |resource, of: &Pairs| {
        let tag_keys = tags::ownership(of);
        if !tag_keys.is_empty() {
            steps.push(Step::RemoveTags { resource, tag_keys });
        }
    };
    for seen in groups_of(intent, observed) {
        forget(Tagged::TargetGroup(seen.is.name.clone()), &seen.tags);
    }
    for group in observed.security_groups.iter().filter(|group| is_of(intent, &group.tags)) {
        forget(Tagged::SecurityGroup(group.name.clone()), &group.tags);
    }
    for seen in observed.load_balancers.iter().filter(|seen| is_of(intent, &seen.tags)) {
        for (port, listener) in seen.listeners.iter().filter(|(_, listener)| is_of(intent, &listener.tags)) {
            forget(Tagged::Listener(seen.is.name.clone(), *port), &listener.tags);
        }
        forget(Tagged::LoadBalancer(seen.is.name.clone()), &seen.tags);
    }
    steps.steps
}

/// With what is last of all goes what all load balancers have. Of two that leave at once each may seem not to be the last, so
/// whoever takes a load balancer away asks for it, and what carries it out sees to it that nobody else needs it.
fn backend_group(settings: &Settings, wanted: &Wanted, observed: &Observed) -> Option<PlannedStep<Step>> {
    let last = wanted.leaving.values().next_back().filter(|_| wanted.present.is_empty())?;
    let may_be_last = !observed.has_others || !observed.load_balancers.is_empty();
    let goes = observed.backend_group.is_some() && may_be_last && !disowns(last);
    let step = Step::DeleteSecurityGroup { group_name: model::backend_group_name(settings) };
    goes.then(|| PlannedStep { step, services: vec![last.id.clone()], disruptive: false })
}

/// Everything of one Service: its load balancer with the listeners, then what that used. Of what a group shares its part; with the last
/// Service goes the rest, and before its own, by which it is found again should this process end in between.
fn removed(intent: &Intent, wanted: &Wanted, observed: &Observed) -> Vec<PlannedStep<Step>> {
    let mut steps = Steps::of(vec![intent.id.clone()]);
    for seen in observed.load_balancers.iter().filter(|seen| is_of(intent, &seen.tags)) {
        load_balancer(intent, seen, &mut steps);
    }
    let shared: Vec<_> = observed.load_balancers.iter().filter(|seen| is_shared(&seen.tags)).collect();
    // Of one that is here, or that nobody saw leaving, something may be on it.
    let leaving: BTreeSet<_> = wanted.leaving.keys().map(|id| Some(id.uid.clone())).collect();
    let goes = |of: &Pairs| leaving.contains(&tags::service(of).map(|service| service.uid));
    let all_go = observed.target_groups.iter().all(|seen| goes(&seen.tags))
        && shared.iter().flat_map(|seen| seen.listeners.values()).all(|listener| goes(&listener.tags));
    let is_last = wanted.leaving.keys().next_back() == Some(&intent.id);
    if wanted.present.is_empty() && all_go && is_last {
        for seen in shared {
            load_balancer(intent, seen, &mut steps);
        }
        for group in observed.security_groups.iter().filter(|group| is_shared(&group.tags)) {
            steps.push(Step::DeleteSecurityGroup { group_name: group.name.clone() });
        }
    } else {
        for seen in shared {
            for (port, _) in seen.listeners.iter().filter(|(_, listener)| is_of(intent, &listener.tags)) {
                steps.push(Step::DeleteListener { load_balancer: seen.is.name.clone(), port: *port });
            }
        }
    }
    for seen in groups_of(intent, observed) {
        steps.push(Step::DeleteTargetGroup { target_group: seen.is.name.clone() });
    }
    for group in observed.security_groups.iter().filter(|group| is_of(intent, &group.tags)) {
        steps.push(Step::DeleteSecurityGroup { group_name: group.name.clone() });
    }
    steps.steps
}

/// Whether it is there for all Services of a group.
fn is_shared(of: &Pairs) -> bool {
    tags::service(of).is_none() && of.get(tags::SHARD).is_some_and(|shard| Holder::is_of_group(shard))
}
