//! One look at everything.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use berth_provider::{Failure, Intent, Owned, ServiceId, Shard, Wanted, Whom};
use serde_json::Value;
use tokio::time::Instant;

use super::Azure;
use crate::arm::{Arm, ArmError, Called, Id, collection};
use crate::document::{name, parts, text};
use crate::intent::{Asks, Scheme};
use crate::names;
use crate::observed::{Observed, groups_of, load_balancer, state, subnet};
use crate::refusal::Refusal;
use crate::settings::Settings;
use crate::tags;

/// How soon it is looked again at what has been under way for so long. Azure's reads are counted, by the subscription.
const PATIENCE: [(Duration, Duration); 2] =
    [(Duration::from_mins(5), Duration::from_mins(1)), (Duration::from_secs(30), Duration::from_secs(10))];

impl<A: Arm> Azure<A> {
    /// A look for a plan, with what is to be remembered until the plan is carried out.
    pub(super) async fn look_for(&self, wanted: &Wanted) -> Called<Observed> {
        let asks = self.asks(wanted);
        let mut observed = self.look(wanted).await?;
        observed.patience = self.patience_with(&observed);
        let places = places(&self.settings, &observed);
        self.memory(|memory| {
            memory.asks = asks;
            // Of what could not be looked into nothing new is known.
            let is_hidden = |refusal: &Refusal| !matches!(refusal, Refusal::NotFound(_));
            memory.places.retain(|group, _| observed.closed_groups.get(group).is_some_and(is_hidden));
            memory.places.extend(places);
        });
        Ok(observed)
    }

    fn asks(&self, wanted: &Wanted) -> BTreeMap<ServiceId, Asks> {
        let read = |intent: &Intent| Some((intent.id.clone(), Asks::of(intent, &self.settings).ok()?));
        wanted.present.values().filter_map(read).collect()
    }

    /// A look, also by who searches beside a plan: it leaves nothing behind.
    pub(super) async fn look(&self, wanted: &Wanted) -> Called<Observed> {
        let settings = &self.settings;
        let pools = self.pool_writes();
        let asks = self.asks(wanted);
        let leaving = wanted.leaving.values().filter_map(|intent| Asks::of(intent, settings).ok());
        let mut groups: BTreeSet<String> = asks.values().cloned().chain(leaving).map(|asks| asks.front.group).collect();
        groups.insert(settings.resource_group.clone());
        let places = self.memory(|memory| memory.places.clone());
        groups.extend(places.keys().cloned());
        let (public, internal) = (load_balancer(settings, Scheme::Public), load_balancer(settings, Scheme::Internal));
        let (public, internal, security_group) =
            tokio::try_join!(self.arm.get(&public), self.arm.get(&internal), self.security_group())?;
        let both = [(Scheme::Public, public), (Scheme::Internal, internal)];
        let load_balancers: BTreeMap<Scheme, Value> =
            both.into_iter().filter_map(|(scheme, document)| Some((scheme, document?))).collect();
        groups.extend(load_balancers.values().flat_map(groups_of));
        let mut public_ips = BTreeMap::new();
        let (mut listed, mut closed_groups) = (BTreeSet::new(), BTreeMap::new());
        for group in groups {
            // Groups that differ in case alone are one (ARM rule).
            if !listed.insert(group.to_lowercase()) {
                continue;
            }
            let documents = match self.arm.list(&collection(settings, &group, "publicIPAddresses")).await {
                Ok(documents) => documents,
                // One that a Service names is that Service's trouble and no other's.
                Err(error) if is_closed(&error) && !group.eq_ignore_ascii_case(&settings.resource_group) => {
                    closed_groups.insert(group.to_lowercase(), refusal(error));
                    continue;
                }
                Err(error) => return Err(error),
            };
            for document in documents {
                let id = text(&document, &["id"]).map(Id::new);
                let id = id.unwrap_or_else(|| Id::network(settings, &group, "publicIPAddresses", name(&document)));
                public_ips.insert(id, document);
            }
        }
        let internal = asks.values().filter(|asks| asks.front.scheme == Scheme::Internal);
        let called: BTreeSet<String> = internal.map(|asks| asks.front.subnet_name(settings).to_owned()).collect();
        let (mut subnets, mut closed_subnets) = (BTreeMap::new(), BTreeMap::new());
        for called in called {
            match self.arm.get(&subnet(settings, &called)).await {
                Ok(document) => drop(subnets.insert(called, document)),
                Err(error) if is_closed(&error) => drop(closed_subnets.insert(called, refusal(error))),
                Err(error) => return Err(error),
            }
        }
        let (blamed, at_once) = self.memory(|memory| (memory.blame.blamed(), memory.blame.at_once()));
        // Under way before, or begun since.
        let fills_pools = pools.begun > pools.over || self.pool_writes().begun > pools.begun;
        Ok(Observed {
            load_balancers,
            security_group,
            public_ips,
            shut_in: places.into_iter().filter(|(group, _)| closed_groups.contains_key(group)).collect(),
            closed_groups,
            subnets,
            closed_subnets,
            blamed,
            fills_pools,
            patience: None,
            at_once,
        })
    }

    /// How soon it is worth looking again: what has taken long takes longer, and each look is a handful of calls.
    fn patience_with(&self, observed: &Observed) -> Option<Duration> {
        let settings = &self.settings;
        let balancers =
            observed.load_balancers.iter().map(|(scheme, document)| (load_balancer(settings, *scheme), document));
        let group = settings.security_group.as_ref().map(|place| Id::at(settings, "networkSecurityGroups", place));
        let ours = observed.public_ips.iter().filter(|(_, document)| tags::is_ours(settings, document));
        let all = balancers
            .chain(group.zip(observed.security_group.as_ref()))
            .chain(ours.map(|(id, document)| (id.clone(), document)));
        let busy: BTreeSet<Id> =
            all.filter(|(_, document)| !matches!(state(document), "Succeeded" | "Failed")).map(|(id, _)| id).collect();
        let now = Instant::now();
        let youngest = self.memory(|memory| {
            memory.busy.retain(|id, _| busy.contains(id));
            for id in busy {
                memory.busy.entry(id).or_insert(now);
            }
            memory.busy.values().max().copied()
        });
        let age = now.saturating_duration_since(youngest?);
        PATIENCE.iter().find(|(after, _)| age >= *after).map(|(_, wait)| *wait)
    }

    async fn security_group(&self) -> Called<Option<Value>> {
        match &self.settings.security_group {
            Some(place) => self.arm.get(&Id::at(&self.settings, "networkSecurityGroups", place)).await,
            None => Ok(None),
        }
    }
}

/// Where public IPs of ours are, and whose they are.
fn places(settings: &Settings, observed: &Observed) -> BTreeMap<String, BTreeSet<ServiceId>> {
    let mut places: BTreeMap<String, BTreeSet<ServiceId>> = BTreeMap::new();
    for (id, document) in observed.public_ips.iter().filter(|(_, document)| tags::is_ours(settings, document)) {
        if let Some(group) = id.group() {
            places.entry(group.to_lowercase()).or_default().extend(tags::service(document));
        }
    }
    places
}

/// Whether it is this one thing that cannot be looked at, and not Azure: that is the trouble of who names it.
fn is_closed(error: &ArmError) -> bool {
    matches!(error.status, 400 | 403 | 404)
}

fn refusal(error: ArmError) -> Refusal {
    let is_no_group = error.status == 404 && error.code.starts_with("ResourceGroup");
    let failure = Failure::from(error);
    if is_no_group {
        return Refusal::NotFound(failure.message);
    }
    Refusal::Arm(failure.message, failure.class, failure.reason)
}

/// What carries our marks.
pub(super) fn owned(
    settings: &Settings,
    observed: &Observed,
    services: &BTreeMap<String, ServiceId>,
    shard: &Shard,
) -> Vec<Owned> {
    // What names no Service may be any Service's of the load balancer.
    let thing = |id: String, kind: &str, service: Option<ServiceId>| {
        let whom = if service.is_some() && kind != "load balancer" { Whom::Service } else { Whom::Shard };
        Owned { id, kind: kind.to_owned(), shard: shard.clone(), service, whom }
    };
    let mut owned = Vec::new();
    let ours = observed.public_ips.iter().filter(|(_, document)| tags::is_ours(settings, document));
    let ours: BTreeMap<&Id, Option<ServiceId>> = ours.map(|(id, document)| (id, tags::service(document))).collect();
    for (scheme, document) in &observed.load_balancers {
        let id = load_balancer(settings, *scheme);
        let made_by_us = tags::is_ours(settings, document);
        let mut members = Vec::new();
        for frontend in parts(document, "frontendIPConfigurations") {
            let Some(base) = names::base_of(name(frontend)) else { continue };
            let public_ip = text(frontend, &["properties", "publicIPAddress", "id"]).map(Id::new);
            let by_tag = public_ip.and_then(|id| ours.get(&id).cloned().flatten());
            let by_tag = by_tag.filter(|service| names::base(&service.uid) == base);
            let service = services.get(base).cloned().or(by_tag);
            // In somebody else's load balancer a name alone says nothing: cloud-provider-azure gives the same ones.
            if made_by_us || service.is_some() {
                members.extend(service.clone());
                owned.push(thing(
                    id.child("frontendIPConfigurations", name(frontend)).to_string(),
                    "frontend",
                    service,
                ));
            }
        }
        if made_by_us {
            owned.push(thing(id.to_string(), "load balancer", members.into_iter().next()));
        }
    }
    owned.extend(ours.into_iter().map(|(id, service)| thing(id.to_string(), "public IP", service)));
    owned
}
