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

#[cfg(test)]
mod tests {
    use berth_api::Reason;
    use serde_json::json;

    use super::*;
    use crate::tests::scene::{service, settings};

    /// What is planned for these, each with its annotations, where nobody looked at AWS.
    fn unseen(settings: &Settings, services: &[(&str, &[(&str, &str)])]) -> Vec<Outlook> {
        let present = services.iter().map(|(name, annotations)| service(name, annotations, json!({}))).collect();
        forecast(settings, None, present, Vec::new())
    }

    fn subnets(outlook: &Outlook) -> Vec<(String, Option<String>)> {
        let placed = outlook.steps.iter().find_map(|planned| match &planned.step {
            Step::CreateLoadBalancer { new, .. } => Some(&new.subnet_mappings),
            _ => None,
        });
        let address =
            |m: &crate::cloud::SubnetMapping| m.allocation_id.clone().or(m.private_ipv4.map(|a| a.to_string()));
        placed.into_iter().flatten().map(|mapping| (mapping.subnet_id.clone(), address(mapping))).collect()
    }

    #[allow(clippy::type_complexity, reason = "a table reads better with its values in place")]
    #[test]
    fn without_a_cloud_subnets_are_what_the_service_names_or_chosen_in_the_cloud() {
        const PUBLIC: (&str, &str) = ("scheme", "internet-facing");
        let some = |text: &str| Some(text.to_owned());
        let chosen = || subnets::UNSEEN.to_owned();
        let either = || "<one of s1, s2>".to_owned();
        let cases: [(&[(&str, &str)], Vec<(String, Option<String>)>); 5] = [
            (&[], vec![(chosen(), None)]),
            (&[("subnets", "s1,s2")], vec![("s1".to_owned(), None), ("s2".to_owned(), None)]),
            (
                &[PUBLIC, ("eip-allocations", "eipalloc-2,eipalloc-1")],
                vec![(chosen(), some("eipalloc-2")), (chosen(), some("eipalloc-1"))],
            ),
            (
                &[PUBLIC, ("subnets", "s1,s2"), ("eip-allocations", "eipalloc-2,eipalloc-1")],
                vec![("s1".to_owned(), some("eipalloc-2")), ("s2".to_owned(), some("eipalloc-1"))],
            ),
            (
                &[("subnets", "s1,s2"), ("private-ipv4-addresses", "10.0.1.9,10.0.0.9")],
                vec![(either(), some("10.0.0.9")), (either(), some("10.0.1.9"))],
            ),
        ];
        for (annotations, expected) in cases {
            let outlooks = unseen(&settings(), &[("web", annotations)]);
            assert_eq!(subnets(&outlooks[0]), expected, "{annotations:?}");
            assert!(outlooks[0].subnets.is_none(), "nothing was looked at, so there is nothing to say of it");
        }
    }

    #[test]
    fn security_groups_that_are_named_are_taken_for_granted_without_a_cloud() {
        let outlooks = unseen(&settings(), &[("web", &[("security-groups", "sg-1,edge")])]);
        let groups = outlooks[0].steps.iter().find_map(|planned| match &planned.step {
            Step::CreateLoadBalancer { groups, .. } => Some(groups.iter().map(ToString::to_string).collect::<Vec<_>>()),
            _ => None,
        });
        assert_eq!(groups.unwrap(), ["edge", "sg-1"]);
    }

    #[test]
    fn of_two_that_want_what_one_can_have_the_older_one_has_it() {
        let reason = |outlook: &Outlook| outlook.outcomes.values().next().unwrap().conditions[0].reason;
        let reasons = |all: &[Outlook]| all.iter().map(reason).collect::<Vec<_>>();
        // `a` was made before `b`, and so on.
        let named: &[(&str, &str)] = &[("name", "edge")];
        let outlooks = unseen(&settings(), &[("b", named), ("a", named)]);
        assert_eq!(reasons(&outlooks), [Reason::Provisioning, Reason::CloudNameTaken]);
        let mut limited = settings();
        limited.admission.load_balancers_per_namespace = Some(2);
        let outlooks = unseen(&limited, &[("c", &[]), ("b", &[]), ("a", &[])]);
        assert_eq!(reasons(&outlooks), [Reason::Provisioning, Reason::Provisioning, Reason::CloudLimit]);
        let grouped: &[(&str, &str)] = &[("berth.dev/load-balancer-group", "edge")];
        let outlooks = unseen(&limited, &[("c", grouped), ("b", grouped), ("a", &[])]);
        let told: Vec<_> = outlooks.iter().map(|outlook| (outlook.shard.as_str(), outlook.services.len())).collect();
        assert_eq!(told, [("shop/group/edge", 2), ("shop/service/a", 1)], "one load balancer for the two");
    }
}
