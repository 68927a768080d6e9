//! The load balancer and its security group.

use std::collections::BTreeSet;
use std::time::Duration;

use berth_provider::PlannedStep;

use super::removal::{is_protected, takes_protection_back};
use super::{Shard, Steps, is_published};
use crate::annotation::contradiction;
use crate::cloud::{NewLoadBalancer, Rule, SubnetMapping};
use crate::intent::{Asks, DELETION_PROTECTION, Front, Security};
use crate::model::{self, LoadBalancerModel};
use crate::observed::SeenLoadBalancer;
use crate::refusal::Refusal;
use crate::step::{Group, Step, Tagged};
use crate::{security, subnets, tags};

/// Steps for the load balancer, by when they are done.
pub(super) struct FrontSteps {
    /// Before all else.
    pub before: Vec<PlannedStep<Step>>,
    /// Then, so that nothing that goes wrong later keeps a port open to who is not to reach it any more.
    pub narrows: Vec<PlannedStep<Step>>,
    /// Once there are target groups.
    pub load_balancer: Vec<PlannedStep<Step>>,
    /// Once nothing needs it any more.
    pub after: Vec<PlannedStep<Step>>,
}

/// Load balancers whose place another one has taken.
pub(super) struct Replaced {
    pub steps: Vec<PlannedStep<Step>>,
    pub names: BTreeSet<String>,
    /// How long one of them stays for who still has its address.
    pub stays: Option<Duration>,
}

impl Shard<'_> {
    pub(super) fn front(
        &self,
        front: &Front,
        consents: bool,
        model: &LoadBalancerModel,
        current: Option<&SeenLoadBalancer>,
        members: &[&Asks],
    ) -> Result<FrontSteps, Refusal> {
        let services: Vec<_> = members.iter().map(|asks| asks.service.clone()).collect();
        let rules = security::rules(members)?;
        let own = model::security_group(self.settings, self.holder, front, rules);
        let mut groups = self.groups(front, own.as_ref().map(|group| group.name.as_str()))?;
        let backend = model::backend_group_name(self.settings);
        groups.extend(front.opens_targets.then_some(Group::Own(backend)));
        let mut before = Steps::of(services.clone());
        let (mut narrows, mut after) = (Steps::of(services.clone()), Steps::of(services.clone()));
        let own_name = model::security_group_name(self.settings, self.holder);
        let seen = self.observed.security_group(&own_name);
        match (&own, seen) {
            (Some(own), None) => {
                let (group_name, vpc_id, tags) = (own.name.clone(), self.settings.vpc.clone(), own.tags.clone());
                before.push(Step::CreateSecurityGroup { group_name, vpc_id, tags });
                authorize(&own.name, own.rules.clone(), &mut before);
            }
            (Some(own), Some(seen)) => {
                let there: BTreeSet<Rule> = seen.rules.iter().cloned().collect();
                authorize(&own.name, own.rules.difference(&there).cloned().collect(), &mut before);
                self.retag(Tagged::SecurityGroup(own.name.clone()), &own.tags, &seen.tags, &mut before);
                // A port that is open to others still is served already; one that is not may be until its listener is gone.
                let is_open = |rule: &Rule| own.rules.iter().any(|other| opens_the_same(rule, other));
                let (narrowed, closed): (BTreeSet<_>, BTreeSet<_>) =
                    there.difference(&own.rules).cloned().partition(|rule| is_open(rule));
                for (ip_permissions, steps) in [(narrowed, &mut narrows), (closed, &mut after)] {
                    if !ip_permissions.is_empty() {
                        let group_name = own.name.clone();
                        steps.push(Step::RevokeSecurityGroupIngress { group_name, ip_permissions });
                    }
                }
            }
            (None, Some(seen)) => after.push(Step::DeleteSecurityGroup { group_name: seen.name.clone() }),
            (None, None) => {}
        }
        if front.opens_targets && self.observed.backend_group.is_none() {
            let (group_name, vpc_id) = (model::backend_group_name(self.settings), self.settings.vpc.clone());
            before.push(Step::CreateSecurityGroup { group_name, vpc_id, tags: tags::of_backend(self.settings) });
        }
        let mut load_balancer = Steps::of(services);
        match current {
            None => load_balancer.push(self.create(front, consents, model, groups)?),
            Some(current) => self.change(front, consents, model, current, groups, &mut load_balancer)?,
        }
        let (before, narrows, after) = (before.steps, narrows.steps, after.steps);
        Ok(FrontSteps { before, narrows, load_balancer: load_balancer.steps, after })
    }

    fn create(
        &self,
        front: &Front,
        consents: bool,
        model: &LoadBalancerModel,
        groups: BTreeSet<Group>,
    ) -> Result<Step, Refusal> {
        let others: Vec<_> = self.mine().collect();
        if let Some(other) = others.first().filter(|_| !consents) {
            let to = if other.is.scheme == model.scheme {
                "its fixed addresses, or whether it has security groups, cannot be changed".to_owned()
            } else {
                format!("it is {} and to be {}", other.is.scheme, model.scheme)
            };
            return Err(Refusal::Replacement {
                what: format!("the load balancer {} would be replaced: {to}", other.is.name),
            });
        }
        let names = &self.observed.other_names;
        if names.contains(&model.name) || others.iter().any(|other| other.is.name == model.name) {
            return Err(Refusal::NameTaken { kind: "load balancer", name: model.name.clone() });
        }
        let limit = self.settings.admission.load_balancers_per_namespace;
        let namespace = self.intents.first().map(|intent| intent.id.key.namespace.as_str()).unwrap_or_default();
        let has = self.observed.others_by_namespace.get(namespace).copied().unwrap_or_default() + others.len();
        // One that takes another's place is no more than there was.
        if let Some(limit) = limit.filter(|limit| has >= *limit && others.is_empty()) {
            let why = format!(
                "the namespace {namespace} has {has} load balancers of {limit} that it may have (--aws-load-balancers-per-namespace)"
            );
            return Err(Refusal::Limit(why));
        }
        let subnet_mappings = if self.observed.unseen.subnets {
            subnets::unseen(front)
        } else {
            let choice = subnets::choose(front, &self.settings.cluster, &self.observed.subnets)?;
            subnets::mappings(&front.addresses, &choice.chosen)?
        };
        let new = NewLoadBalancer {
            name: model.name.clone(),
            scheme: model.scheme,
            ip_address_type: model.ip_address_type,
            subnet_mappings,
            security_groups: Vec::new(),
            tags: model.tags.clone(),
        };
        Ok(Step::CreateLoadBalancer { new, groups, limit: limit.filter(|_| others.is_empty()) })
    }

    fn change(
        &self,
        front: &Front,
        consents: bool,
        model: &LoadBalancerModel,
        current: &SeenLoadBalancer,
        groups: BTreeSet<Group>,
        steps: &mut Steps,
    ) -> Result<(), Refusal> {
        let load_balancer = current.is.name.clone();
        let ip_address_type = model.ip_address_type;
        // The subnets that it has stay, unless some are named.
        if !front.subnets.is_empty() && !self.observed.unseen.subnets {
            let choice = subnets::choose(front, &self.settings.cluster, &self.observed.subnets)?;
            let wanted: BTreeSet<_> = choice.chosen.iter().map(|subnet| subnet.id.clone()).collect();
            let there: BTreeSet<_> = current.is.subnet_ids.iter().cloned().collect();
            if wanted != there {
                let gone: Vec<_> = there.difference(&wanted).cloned().collect();
                if !gone.is_empty() && !consents {
                    let what = format!("the load balancer {load_balancer} would leave {}", gone.join(", "));
                    return Err(Refusal::Replacement { what });
                }
                let subnet_mappings: Vec<SubnetMapping> = subnets::mappings(&front.addresses, &choice.chosen)?;
                let step = Step::SetSubnets { load_balancer: load_balancer.clone(), subnet_mappings };
                steps.push_if_disruptive(step, !gone.is_empty());
            }
        }
        if current.is.ip_address_type != ip_address_type {
            steps.push(Step::SetIpAddressType { load_balancer: load_balancer.clone(), ip_address_type });
        }
        let ids: Option<BTreeSet<&str>> = groups
            .iter()
            .map(|group| match group {
                Group::Own(name) if *name == model::backend_group_name(self.settings) => {
                    self.observed.backend_group.as_deref()
                }
                Group::Own(name) => self.observed.security_group(name).map(|group| group.id.as_str()),
                Group::Id(id) => Some(id.as_str()),
            })
            .collect();
        let there: BTreeSet<&str> = current.is.security_groups.iter().map(String::as_str).collect();
        let enforce = front.enforce_on_private_link;
        // What is not answered cannot be compared.
        let enforces = current.is.enforces_on_private_link;
        let is_enforced = enforce.is_none() || enforces.is_none() || enforces == enforce;
        if front.security != Security::None && (ids.as_ref() != Some(&there) || !is_enforced) {
            let load_balancer = load_balancer.clone();
            let enforce_on_private_link = enforce;
            steps.push(Step::SetSecurityGroups { load_balancer, security_groups: groups, enforce_on_private_link });
        }
        let attributes = super::ports::differing(&model.attributes, &current.attributes);
        if !attributes.is_empty() {
            steps.push(Step::ModifyLoadBalancerAttributes { load_balancer: load_balancer.clone(), attributes });
        }
        self.retag(Tagged::LoadBalancer(load_balancer), &model.tags, &current.tags, steps);
        Ok(())
    }

    /// The security groups that it is to have.
    fn groups(&self, front: &Front, own: Option<&str>) -> Result<BTreeSet<Group>, Refusal> {
        let Security::Given(words) = &front.security else {
            return Ok(own.into_iter().map(|name| Group::Own(name.to_owned())).collect());
        };
        if self.observed.unseen.named_groups {
            return Ok(words.iter().cloned().map(Group::Id).collect());
        }
        let mut groups = BTreeSet::new();
        for word in words {
            let fits = |id: &str, name: Option<&String>| id == word || name == Some(word);
            let mut named = self.observed.named_groups.iter().filter(|g| fits(&g.id, g.tags.get("Name")));
            let Some(group) = named.next() else {
                let why = format!("the VPC has no security group `{word}`; correct or remove it");
                return Err(contradiction("security-groups", why));
            };
            if let Some(other) = named.next() {
                let why = format!("`{word}` is {} and {}; name one by its identity", group.id, other.id);
                return Err(contradiction("security-groups", why));
            }
            groups.insert(Group::Id(group.id.clone()));
        }
        Ok(groups)
    }

    pub(super) fn retag(
        &self,
        resource: Tagged,
        wanted: &crate::cloud::Pairs,
        seen: &crate::cloud::Pairs,
        steps: &mut Steps,
    ) {
        let (tags, tag_keys) = tags::change(self.settings, wanted, seen);
        if !tags.is_empty() {
            steps.push(Step::AddTags { resource: resource.clone(), tags });
        }
        if !tag_keys.is_empty() {
            steps.push(Step::RemoveTags { resource, tag_keys });
        }
    }

    /// What has been replaced goes some time after no Service's status names it any more.
    pub(super) fn replaced(
        &self,
        current: Option<&SeenLoadBalancer>,
        services: &[berth_provider::ServiceId],
    ) -> Replaced {
        let mut steps = Steps::of(services.to_vec());
        let (mut names, mut stays) = (BTreeSet::new(), None);
        let Some(current) = current else { return Replaced { steps: steps.steps, names, stays } };
        for old in self.mine().filter(|seen| seen.is.arn != current.is.arn) {
            if self.intents.iter().any(|intent| is_published(intent, old)) {
                continue;
            }
            // A listener of somebody who is not served here may still be used.
            let served = |tags: &crate::cloud::Pairs| {
                tags::service(tags).is_some_and(|by| services.iter().any(|id| id.uid == by.uid))
            };
            if !old.listeners.values().all(|listener| served(&listener.tags)) {
                continue;
            }
            let left = self.settings.replaced_stays.saturating_sub(old.unnamed_for);
            if !left.is_zero() {
                stays = stays.into_iter().chain([left]).min();
                continue;
            }
            let load_balancer = old.is.name.clone();
            if is_protected(old) {
                // A person may have set it: that is not taken off for anybody who does not say so.
                let is_served = |intent: &&berth_provider::Intent| services.contains(&intent.id);
                if !self.intents.iter().copied().filter(is_served).any(takes_protection_back) {
                    continue;
                }
                let attributes = [(DELETION_PROTECTION.to_owned(), false.to_string())].into();
                steps.push(Step::ModifyLoadBalancerAttributes { load_balancer: load_balancer.clone(), attributes });
            }
            names.insert(load_balancer.clone());
            steps.push(Step::DeleteLoadBalancer { load_balancer });
        }
        Replaced { steps: steps.steps, names, stays }
    }
}

/// Whether two rules open the same port, be it to others.
fn opens_the_same(a: &Rule, b: &Rule) -> bool {
    (a.ip_protocol, a.from_port, a.to_port) == (b.ip_protocol, b.from_port, b.to_port)
}

fn authorize(group: &str, ip_permissions: BTreeSet<Rule>, steps: &mut Steps) {
    if !ip_permissions.is_empty() {
        steps.push(Step::AuthorizeSecurityGroupIngress { group_name: group.to_owned(), ip_permissions });
    }
}
