//! What would be done for Services, before anybody does it: every shard planned against what was seen of it, without a cloud.

use std::collections::{BTreeMap, BTreeSet};

use berth_api::service::ServiceKey;
use berth_provider::{Intent, Outcome, PlannedStep, Shard, Wanted};

use crate::intent::Asks;
use crate::model::Holder;
use crate::observed::{Observed, Unseen};
use crate::settings::Settings;
use crate::snapshot::Snapshot;
use crate::step::Step;
use crate::subnets::{self, Choice};

/// What becomes of a shard.
#[derive(Clone, Debug)]
pub struct Outlook {
    /// Its name.
    pub shard: String,
    /// Its Services.
    pub services: BTreeSet<ServiceKey>,
    /// What is done, in this order.
    pub steps: Vec<PlannedStep<Step>>,
    /// What is to be said of each Service then.
    pub outcomes: BTreeMap<ServiceKey, Outcome>,
    /// Which subnets were chosen and why the others were not, where the plan puts a load balancer into subnets and they were looked at.
    pub subnets: Option<Choice>,
    /// The zones of all subnets that were looked at.
    pub zones: BTreeMap<String, String>,
    /// Whether the Services name their subnets.
    pub names_subnets: bool,
    /// Load balancers whose places others take, which are deleted later: once no Service's status names them.
    pub replaced: Vec<String>,
}

/// What was seen of the cloud, where nobody looked.
fn nothing_seen() -> Observed {
    Observed { unseen: Unseen { subnets: true, named_groups: true }, ..Observed::default() }
}

/// Plans the shards of these Services, those with the older Services first: of two that want what only one can have, the older one
/// has it.
pub fn forecast(
    settings: &Settings,
    snapshot: Option<&Snapshot>,
    present: Vec<Intent>,
    leaving: Vec<Intent>,
) -> Vec<Outlook> {
    let mut shards: BTreeMap<String, Wanted> = BTreeMap::new();
    for intent in leaving {
        shards.entry(Holder::of(&intent).shard()).or_default().leaving.insert(intent.id.clone(), intent);
    }
    for intent in present {
        shards.entry(Holder::of(&intent).shard()).or_default().present.insert(intent.id.key.clone(), intent);
    }
    let age = |wanted: &Wanted| wanted.present.values().map(|intent| intent.created).min().unwrap_or(i64::MIN);
    let mut shards: Vec<_> = shards.into_iter().collect();
    shards.sort_by_key(|(name, wanted)| (age(wanted), name.clone()));
    // What the shards before have made.
    let (mut made, mut groups): (BTreeSet<String>, BTreeSet<String>) = Default::default();
    let mut count: BTreeMap<String, usize> = BTreeMap::new();
    let mut all = Vec::new();
    for (name, wanted) in shards {
        let shard = Shard(name);
        let mut observed = snapshot.map_or_else(nothing_seen, |seen| seen.observed(settings, &shard, &wanted));
        observed.other_names.extend(made.iter().cloned());
        let backend = crate::model::backend_group_name(settings);
        if observed.backend_group.is_none() && groups.contains(&backend) {
            observed.backend_group = Some(backend);
        }
        for (namespace, more) in &count {
            *observed.others_by_namespace.entry(namespace.clone()).or_default() += more;
        }
        let outlook = one(settings, &shard, &wanted, &observed);
        let creates = outlook.steps.iter().filter_map(|planned| match &planned.step {
            Step::CreateLoadBalancer { new, .. } => Some(new.name.clone()),
            _ => None,
        });
        groups.extend(outlook.steps.iter().filter_map(|planned| match &planned.step {
            Step::CreateSecurityGroup { group_name, .. } => Some(group_name.clone()),
            _ => None,
        }));
        for name in creates {
            made.insert(name);
            // One that takes another's place is no more than there was.
            if observed.load_balancers.is_empty() {
                let namespace = shard.0.split('/').next().unwrap_or_default();
                *count.entry(namespace.to_owned()).or_default() += 1;
            }
        }
        all.push(outlook);
    }
    all.sort_by(|a, b| a.shard.cmp(&b.shard));
    all
}

fn one(settings: &Settings, shard: &Shard, wanted: &Wanted, observed: &Observed) -> Outlook {
    let plan = crate::plan::plan(settings, wanted, observed);
    let places =
        |planned: &PlannedStep<Step>| matches!(planned.step, Step::CreateLoadBalancer { .. } | Step::SetSubnets { .. });
    let is_placed = plan.steps.iter().any(places) && !observed.unseen.subnets;
    let creates = plan.steps.iter().any(|planned| matches!(planned.step, Step::CreateLoadBalancer { .. }));
    let deleted: BTreeSet<_> = plan
        .steps
        .iter()
        .filter_map(|planned| match &planned.step {
            Step::DeleteLoadBalancer { load_balancer } => Some(load_balancer.as_str()),
            _ => None,
        })
        .collect();
    // One that a former Service of that name left is nobody's to replace.
    let is_held =
        |uid: Option<String>| uid.is_none_or(|uid| wanted.present.values().any(|intent| intent.id.uid == uid));
    let others = observed.load_balancers.iter().filter(|seen| is_held(seen.holder())).map(|seen| seen.is.name.as_str());
    let replaced = others.filter(|name| creates && !deleted.contains(name)).map(str::to_owned).collect();
    let mut asks: Vec<_> = wanted.present.values().filter_map(|intent| Asks::of(intent, settings).ok()).collect();
    // The oldest decides, as in the plan.
    asks.sort_by(|a, b| (a.created, &a.service).cmp(&(b.created, &b.service)));
    let front = asks.first().map(|asks| &asks.front);
    let choice = front.and_then(|front| subnets::choose(front, &settings.cluster, &observed.subnets).ok());
    let leaving = wanted.leaving.keys().map(|id| id.key.clone());
    Outlook {
        shard: shard.0.clone(),
        services: wanted.present.keys().cloned().chain(leaving).collect(),
        steps: plan.steps,
        outcomes: plan.outcomes,
        subnets: choice.filter(|_| is_placed),
        zones: observed.subnets.iter().map(|subnet| (subnet.id.clone(), subnet.zone.clone())).collect(),
        names_subnets: front.is_some_and(|front| !front.subnets.is_empty()),
        replaced,
    }
}
