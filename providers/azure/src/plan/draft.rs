//! A load balancer as it is to be: the document that was seen, with our parts of it changed and nothing else.

use std::collections::BTreeSet;

use berth_api::IpFamily;
use berth_provider::{PlannedStep, ServiceId};
use serde_json::{Value, json};

use super::{World, belongs};
use crate::arm::Id;
use crate::document::{etag, name, overlay, parts, parts_mut, text};
use crate::intent::Scheme;
use crate::names::{self, SHARED_PROBE};
use crate::observed::{load_balancer, state};
use crate::settings::Settings;
use crate::step::{Kind, Step};
use crate::tags;

pub(super) const FRONTENDS: &str = "frontendIPConfigurations";
pub(super) const RULES: &str = "loadBalancingRules";
pub(super) const PROBES: &str = "probes";
pub(super) const POOLS: &str = "backendAddressPools";
/// What else refers to frontends.
const OTHERS: [&str; 3] = ["outboundRules", "inboundNatRules", "inboundNatPools"];

/// A load balancer.
#[derive(Clone)]
pub(super) struct Draft<'a> {
    settings: &'a Settings,
    pub scheme: Scheme,
    pub id: Id,
    original: Option<&'a Value>,
    pub document: Value,
    /// The Services whose part changed.
    pub changes: BTreeSet<ServiceId>,
    /// Whether something was added.
    pub adds: bool,
    /// Whether somebody who uses a frontend loses it before its successor is told of.
    pub disrupts: bool,
    /// Parts that a rule of ours referred to which is gone: kind and name.
    touched: BTreeSet<(&'static str, String)>,
}

impl<'a> Draft<'a> {
    pub(super) fn of(world: &World<'a>, scheme: Scheme) -> Self {
        let id = load_balancer(world.settings, scheme);
        let original = world.observed.load_balancers.get(&scheme);
        let new = || {
            json!({
                "name": id.name(),
                "location": world.settings.location,
                "sku": {"name": "Standard", "tier": "Regional"},
                "tags": tags::of_cluster(world.settings),
                "properties": {FRONTENDS: [], POOLS: [], RULES: [], PROBES: []},
            })
        };
        let document = original.cloned().unwrap_or_else(new);
        let (changes, touched) = (BTreeSet::new(), BTreeSet::new());
        Self {
            settings: world.settings,
            scheme,
            id,
            original,
            document,
            changes,
            adds: false,
            disrupts: false,
            touched,
        }
    }

    pub(super) fn parts(&self, kind: &str) -> &[Value] {
        parts(&self.document, kind)
    }

    pub(super) fn find(&self, kind: &str, called: &str) -> Option<&Value> {
        self.parts(kind).iter().find(|part| name(part).eq_ignore_ascii_case(called))
    }

    /// The path of a part.
    pub(super) fn part(&self, kind: &str, called: &str) -> String {
        self.id.child(kind, called).to_string()
    }

    /// The rules on a frontend.
    pub(super) fn rules_on(&self, frontend: &str) -> impl Iterator<Item = &Value> {
        self.parts(RULES).iter().filter(move |rule| refers(rule, "frontendIPConfiguration", frontend))
    }

    /// Removes the rules of a Service but those that are to stay.
    pub(super) fn remove_rules(&mut self, base: &str, service: &ServiceId, stays: impl Fn(&Value) -> bool) {
        let mut gone = Vec::new();
        let Some(rules) = self.changeable(RULES) else { return };
        rules.retain(|rule| {
            let keep = !belongs(name(rule), base) || stays(rule);
            if !keep {
                gone.push(rule.clone());
            }
            keep
        });
        for rule in &gone {
            self.changes.insert(service.clone());
            self.let_go(rule);
        }
    }

    /// What a rule refers to may be needed by nobody any more.
    fn let_go(&mut self, rule: &Value) {
        for (field, kind) in [("frontendIPConfiguration", FRONTENDS), ("probe", PROBES), ("backendAddressPool", POOLS)]
        {
            if let Some(id) = text(rule, &["properties", field, "id"]) {
                self.touched.insert((kind, Id::new(id).name().to_owned()));
            }
        }
    }

    /// A list to be changed, unless there is none and so nothing in it.
    fn changeable(&mut self, kind: &str) -> Option<&mut Vec<Value>> {
        if self.parts(kind).is_empty() { None } else { parts_mut(&mut self.document, kind) }
    }

    /// Makes a part be as it is wanted.
    pub(super) fn put(&mut self, kind: &'static str, called: &str, wanted: Value, service: &ServiceId) {
        let Some(list) = parts_mut(&mut self.document, kind) else { return };
        let Some(part) = list.iter_mut().find(|part| name(part).eq_ignore_ascii_case(called)) else {
            let mut part = json!({"name": called});
            overlay(&mut part, &wanted);
            list.push(part);
            self.changes.insert(service.clone());
            self.adds = true;
            return;
        };
        let before = part.clone();
        if overlay(part, &wanted) {
            self.changes.insert(service.clone());
            if kind == RULES {
                self.let_go(&before);
            }
        }
    }

    /// The backend pool of a family, which is made with the first rule.
    pub(super) fn pool(&mut self, family: IpFamily, service: &ServiceId) -> String {
        let called = names::pool(&self.settings.cluster, family);
        if self.find(POOLS, &called).is_none() {
            self.put(POOLS, &called, json!({"properties": {}}), service);
        }
        self.part(POOLS, &called)
    }

    pub(super) fn disables_snat(&self) -> bool {
        self.settings.disable_outbound_snat
    }

    /// Whether Azure failed to carry out what was written before.
    pub(super) fn failed(&self) -> bool {
        self.original.is_some_and(|original| state(original) == "Failed")
    }

    /// Whether it so has to be written again. One in which nobody here has a part, and that somebody else made, is theirs to mend.
    fn is_retried(&self) -> bool {
        let ours = self.original.is_some_and(|original| tags::is_ours(self.settings, original));
        self.failed() && (ours || !self.changes.is_empty())
    }

    fn is_referred_to(&self, frontend: &str) -> bool {
        let by_rule = self.rules_on(frontend).next().is_some();
        let others = || OTHERS.iter().flat_map(|kind| self.parts(kind));
        by_rule
            || others().any(|other| {
                let many = parts(other, FRONTENDS).iter().filter_map(|f| text(f, &["id"]));
                refers(other, "frontendIPConfiguration", frontend) || many.into_iter().any(|id| is_named(id, frontend))
            })
    }

    /// Takes away what nobody needs any more.
    pub(super) fn sweep<'b>(
        &mut self,
        chosen: &BTreeSet<(Scheme, String)>,
        is_kept: impl Fn(&str) -> bool,
        owner: impl Fn(&str) -> Option<&'b ServiceId>,
    ) {
        for kind in [FRONTENDS, PROBES, POOLS] {
            let gone: Vec<(String, Option<ServiceId>)> = self
                .parts(kind)
                .iter()
                .map(name)
                .filter(|called| !is_kept(called) && !chosen.contains(&(self.scheme, (*called).to_owned())))
                .filter_map(|called| {
                    let of = names::base_of(called).and_then(&owner).cloned();
                    let touched = self.touched.contains(&(kind, called.to_owned()));
                    let is_ours = match kind {
                        FRONTENDS => names::base_of(called).is_some(),
                        PROBES => names::base_of(called).is_some() || called == SHARED_PROBE,
                        _ => self.is_our_pool(called),
                    };
                    let needed = match kind {
                        FRONTENDS => self.is_referred_to(called),
                        PROBES => self.parts(RULES).iter().any(|rule| refers(rule, "probe", called)),
                        _ => self.uses_pool(called),
                    };
                    ((of.is_some() || touched) && is_ours && !needed).then(|| (called.to_owned(), of))
                })
                .collect();
            if gone.is_empty() {
                continue;
            }
            if let Some(list) = self.changeable(kind) {
                list.retain(|part| !gone.iter().any(|(called, _)| called == name(part)));
            }
            self.changes.extend(gone.into_iter().filter_map(|(_, of)| of));
        }
    }

    /// A pool by our name, unless network interfaces are in it, which somebody else put there.
    fn is_our_pool(&self, called: &str) -> bool {
        let ours = [IpFamily::V4, IpFamily::V6].map(|family| names::pool(&self.settings.cluster, family));
        let interfaces =
            self.find(POOLS, called).is_some_and(|pool| !parts(pool, "backendIPConfigurations").is_empty());
        ours.iter().any(|ours| ours.eq_ignore_ascii_case(called)) && !interfaces
    }

    fn uses_pool(&self, called: &str) -> bool {
        let all = std::iter::once(&RULES).chain(&OTHERS).flat_map(|kind| self.parts(kind));
        all.into_iter().any(|part| refers(part, "backendAddressPool", called))
    }

    /// Whether Azure is still carrying out what somebody wrote before.
    pub(super) fn is_busy(&self) -> bool {
        self.original.is_some_and(|original| !matches!(state(original), "Succeeded" | "Failed"))
    }

    fn is_empty(&self) -> bool {
        self.parts(FRONTENDS).is_empty() && OTHERS.iter().all(|kind| self.parts(kind).is_empty())
    }

    /// The write that it takes, if any.
    pub(super) fn step(&self) -> Option<PlannedStep<Step>> {
        let services: Vec<ServiceId> = self.changes.iter().cloned().collect();
        let differs = self.original.is_none_or(|original| *original != self.document);
        if !differs && !self.is_retried() {
            return None;
        }
        let ours = self.original.is_some_and(|original| tags::is_ours(self.settings, original));
        if self.is_empty() && (self.original.is_none() || (ours && differs)) {
            let if_match = self.original.and_then(etag).map(str::to_owned);
            let step = Step::Delete { kind: Kind::LoadBalancer, id: self.id.clone(), if_match };
            return self.original.map(|_| PlannedStep { step, services, disruptive: self.disrupts });
        }
        let step = Step::Put {
            kind: Kind::LoadBalancer,
            id: self.id.clone(),
            if_match: self.original.and_then(etag).map(str::to_owned),
            summary: self.summary(),
            changes: services.clone(),
            body: self.document.clone(),
        };
        Some(PlannedStep { step, services, disruptive: self.disrupts })
    }

    fn summary(&self) -> String {
        let before = |kind| self.original.map_or(&[] as &[Value], |original| parts(original, kind));
        let words = [(FRONTENDS, "frontends"), (RULES, "rules"), (PROBES, "probes")].map(|(kind, word)| {
            let (old, new) = (before(kind), self.parts(kind));
            let added = new.iter().filter(|part| !old.iter().any(|o| name(o) == name(part))).count();
            let removed = old.iter().filter(|part| !new.iter().any(|n| name(n) == name(part))).count();
            let same = |part: &&Value| old.iter().any(|o| name(o) == name(part) && *o != **part);
            let changed = new.iter().filter(same).count();
            let all = [("+", added), ("-", removed), ("~", changed)];
            let said: Vec<_> = all.iter().filter(|(_, n)| *n > 0).map(|(sign, n)| format!("{sign}{n}")).collect();
            if said.is_empty() { String::new() } else { format!("{word} {}", said.join(" ")) }
        });
        words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(", ")
    }
}

fn is_named(id: &str, called: &str) -> bool {
    id.rsplit('/').next().is_some_and(|name| name.eq_ignore_ascii_case(called))
}

/// Whether a part refers to another one.
pub(super) fn refers(part: &Value, field: &str, called: &str) -> bool {
    text(part, &["properties", field, "id"]).is_some_and(|id| is_named(id, called))
}
