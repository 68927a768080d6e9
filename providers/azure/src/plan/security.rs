//! The network security group: Services with equal wishes share a rule, and each adds and removes only its own destinations.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use berth_api::IpFamily;
use berth_provider::{PlannedStep, ServiceId};
use serde_json::{Value, json};

use super::place::Placed;
use super::{Verdict, World, belongs};
use crate::arm::Id;
use crate::document::{at, etag, name, overlay, parts, parts_mut, port, text};
use crate::intent::Asks;
use crate::names;
use crate::observed::state;
use crate::refusal::Refusal;
use crate::settings::{PREFIXES_PER_RULE, SECURITY_RULES};
use crate::step::{Kind, Step};
use crate::tags;

/// Priorities of our rules.
const FIRST: u16 = 500;
/// Those that deny come after all that let in.
const LAST_DENY: u16 = 4095;
const LAST: u16 = 4096;
const RULES: &str = "securityRules";

/// A rule as it is to be.
#[derive(Clone, Debug)]
struct Wanted {
    /// What it lets in; none for one that denies.
    allows: Option<Allows>,
    destinations: BTreeSet<IpAddr>,
    services: BTreeSet<ServiceId>,
}

#[derive(Clone, Debug)]
struct Allows {
    protocol: &'static str,
    sources: Vec<String>,
    ports: Vec<String>,
}

/// The security rules that are wanted, by name.
#[derive(Clone, Debug)]
pub(super) struct Security<'a> {
    document: Option<&'a Value>,
    /// The names of the rules that are there.
    there: BTreeSet<&'a str>,
    wanted: BTreeMap<String, Wanted>,
}

type Opening = (String, Option<Allows>, BTreeSet<IpAddr>);

impl<'a> Security<'a> {
    pub(super) fn of(world: &World<'a>) -> Self {
        let document = world.observed.security_group.as_ref();
        let there = document.into_iter().flat_map(|document| parts(document, RULES)).map(name).collect();
        Self { document, there, wanted: BTreeMap::new() }
    }

    pub(super) fn is_busy(&self) -> bool {
        self.document.is_some_and(|document| !matches!(state(document), "Succeeded" | "Failed"))
    }

    /// Whether there is room for what a Service needs.
    pub(super) fn fits(&self, world: &World<'_>, asks: &Asks, placed: &[Placed]) -> Result<(), Refusal> {
        let openings = openings(world, asks, placed, &[]);
        let Some(place) = world.settings.security_group.as_ref().filter(|_| !openings.is_empty()) else {
            return Ok(());
        };
        let Some(document) = self.document else {
            return Err(Refusal::NotFound(format!(
                "there is no network security group {} in the resource group {}; correct the configuration, or make it",
                place.name, place.group
            )));
        };
        let is_new = |called: &String| !self.there.contains(called.as_str());
        let planned = self.wanted.keys().filter(|called| is_new(called)).count();
        let more = openings.iter().filter(|(called, _, _)| is_new(called) && !self.wanted.contains_key(called)).count();
        let there = self.there.len() + planned;
        if more > 0 && there + more > SECURITY_RULES {
            return Err(Refusal::Limit(format!(
                "the network security group {} has {there} rules, the Service needs {more} more, and it may have {SECURITY_RULES}; \
                 let Services have equal ports and source ranges, whose rules are shared, or open it by hand",
                place.name
            )));
        }
        for (called, _, destinations) in &openings {
            let rule = parts(document, RULES).iter().find(|rule| name(rule) == called);
            let mut all: BTreeSet<String> = rule.map(destinations_of).unwrap_or_default().into_iter().collect();
            let before = all.len();
            all.extend(destinations.iter().map(ToString::to_string));
            all.extend(self.wanted.get(called).iter().flat_map(|w| &w.destinations).map(ToString::to_string));
            if all.len() > before && all.len() > PREFIXES_PER_RULE {
                return Err(Refusal::Limit(format!(
                    "the security rule {called} would have {} destinations, and may have {PREFIXES_PER_RULE}",
                    all.len()
                )));
            }
        }
        Ok(())
    }

    /// Whether a Service needs something that is not there yet.
    pub(super) fn changes(&self, world: &World<'_>, asks: &Asks, placed: &[Placed], retained: &[IpAddr]) -> bool {
        let rules = self.document.map_or(&[] as &[Value], |document| parts(document, RULES));
        openings(world, asks, placed, retained).into_iter().any(|(called, _, destinations)| {
            let there = rules.iter().find(|rule| name(rule) == called).map(destinations_of).unwrap_or_default();
            destinations.iter().any(|address| !there.contains(&address.to_string()))
        })
    }

    /// Notes what a Service needs.
    pub(super) fn add(&mut self, world: &World<'_>, asks: &Asks, placed: &[Placed], retained: &[IpAddr]) {
        for (called, allows, destinations) in openings(world, asks, placed, retained) {
            let new = || Wanted { allows, destinations: BTreeSet::new(), services: BTreeSet::new() };
            let wanted = self.wanted.entry(called).or_insert_with(new);
            wanted.destinations.extend(destinations);
            wanted.services.insert(asks.service.clone());
        }
    }

    /// The write that it takes, if any.
    pub(super) fn step(&self, world: &World<'_>, verdicts: &BTreeMap<ServiceId, Verdict>) -> Option<PlannedStep<Step>> {
        let place = world.settings.security_group.as_ref()?;
        let original = self.document?;
        let stale = Stale::of(world, verdicts);
        let mut document = original.clone();
        let mut services = BTreeSet::new();
        let mut handled = BTreeSet::new();
        let list = parts_mut(&mut document, RULES)?;
        list.retain_mut(|rule| {
            let called = name(rule).to_owned();
            if !is_managed(rule) {
                return true;
            }
            let wanted = self.wanted.get(&called);
            handled.insert(called);
            let old = destinations_of(rule);
            let gone: Vec<(&String, &ServiceId)> =
                old.iter().filter_map(|prefix| stale.is(world, rule, prefix).map(|of| (prefix, of))).collect();
            let wanted_here: BTreeSet<String> =
                wanted.iter().flat_map(|w| &w.destinations).map(ToString::to_string).collect();
            let mut new: Vec<String> = old
                .iter()
                .filter(|prefix| wanted_here.contains(*prefix) || !gone.iter().any(|(gone, _)| gone == prefix))
                .cloned()
                .collect();
            new.extend(wanted_here.into_iter().filter(|prefix| !old.contains(prefix)));
            services.extend(gone.iter().filter(|(prefix, _)| !new.contains(prefix)).map(|(_, of)| (*of).clone()));
            if new.is_empty() && !old.is_empty() {
                return false;
            }
            let mut changed = new != old
                && overlay(
                    rule,
                    &json!({"properties": {"destinationAddressPrefix": null, "destinationAddressPrefixes": new}}),
                );
            if let Some(wanted) = wanted.filter(|wanted| !wanted.destinations.is_empty()) {
                changed |= overlay(rule, &wanted.body());
                if changed {
                    services.extend(wanted.services.iter().cloned());
                }
            }
            true
        });
        let new = self.wanted.iter().filter(|(called, w)| !handled.contains(*called) && !w.destinations.is_empty());
        for (called, wanted) in new {
            let Some(priority) = free(list, wanted.allows.is_some()) else { continue };
            let mut rule = json!({"name": called});
            let destinations: Vec<String> = wanted.destinations.iter().map(ToString::to_string).collect();
            overlay(&mut rule, &wanted.body());
            overlay(
                &mut rule,
                &json!({"properties": {
                    "description": mark(world),
                    "sourcePortRange": "*",
                    "destinationAddressPrefixes": destinations,
                    "priority": priority,
                    "direction": "Inbound",
                }}),
            );
            list.push(rule);
            services.extend(wanted.services.iter().cloned());
        }
        let failed = state(original) == "Failed" && !self.wanted.is_empty();
        if failed {
            services.extend(self.wanted.values().flat_map(|wanted| wanted.services.iter().cloned()));
        }
        let (before, after) = (parts(original, RULES), parts(&document, RULES));
        // No list and an empty one are the same.
        if (document == *original || (before.is_empty() && after.is_empty())) && !failed {
            return None;
        }
        let count = |a: &[Value], b: &[Value]| a.iter().filter(|x| !b.iter().any(|y| name(x) == name(y))).count();
        let step = Step::Put {
            kind: Kind::SecurityGroup,
            id: Id::at(world.settings, "networkSecurityGroups", place),
            if_match: etag(original).map(str::to_owned),
            summary: format!("rules +{} -{}", count(after, before), count(before, after)),
            changes: services.iter().cloned().collect(),
            body: document,
        };
        Some(PlannedStep { step, services: services.into_iter().collect(), disruptive: false })
    }
}

impl Wanted {
    /// What of it does not depend on what is there.
    fn body(&self) -> Value {
        let Some(Allows { protocol, sources, ports }) = &self.allows else {
            return json!({"properties": {
                "protocol": "*", "access": "Deny", "sourceAddressPrefix": "*", "destinationPortRange": "*",
            }});
        };
        // A word for many addresses stands alone (Azure rule).
        let word = (sources.len() == 1 && sources[0].parse::<ipnet::IpNet>().is_err()).then(|| sources[0].clone());
        let many = if word.is_some() { Vec::new() } else { sources.clone() };
        json!({"properties": {
            "protocol": protocol, "access": "Allow",
            "sourceAddressPrefix": word, "sourceAddressPrefixes": many,
            "destinationPortRange": null, "destinationPortRanges": ports,
        }})
    }
}

/// What tells that a rule was made by us.
fn mark(world: &World<'_>) -> String {
    format!("Made by Berth for {}", world.settings.cluster_uid)
}

/// The rules that a Service needs, by name, with its destinations.
fn openings(world: &World<'_>, asks: &Asks, placed: &[Placed], retained: &[IpAddr]) -> Vec<Opening> {
    let mut openings = Vec::new();
    if asks.sources.unruled || asks.rules.opened.is_empty() {
        return openings;
    }
    for one in placed {
        let direct = asks.rules.direct(one.scheme, one.family);
        let retained = retained.iter().filter(|address| IpFamily::of(**address) == one.family);
        let own: BTreeSet<IpAddr> = one.address.into_iter().chain(retained.copied()).collect();
        let destinations = if direct { own.clone() } else { world.observed.nodes(world.settings, one.family) };
        let protocols: BTreeSet<&'static str> = asks.rules.opened.iter().map(|(protocol, _, _)| *protocol).collect();
        for sources in asks.sources.lists(one.family) {
            for protocol in &protocols {
                let of = asks.rules.opened.iter().filter(|(p, _, _)| p == protocol);
                let number = |(_, port, node_port): &(_, u16, Option<u16>)| {
                    if direct { *port } else { node_port.unwrap_or(*port) }
                };
                let ports: Vec<String> =
                    of.map(number).collect::<BTreeSet<_>>().iter().map(ToString::to_string).collect();
                let called = names::allow(one.family, protocol, &sources, &ports);
                let allows = Allows { protocol, sources: sources.clone(), ports };
                openings.push((called, Some(allows), destinations.clone()));
            }
        }
        if asks.sources.deny_others {
            openings.push((names::deny_all(one.family), None, own));
        }
    }
    openings
}

fn is_managed(rule: &Value) -> bool {
    let priority = port(rule, &["properties", "priority"]).unwrap_or(0);
    name(rule).starts_with(names::SECURITY_PREFIX) && (FIRST..=LAST).contains(&priority)
}

fn destinations_of(rule: &Value) -> Vec<String> {
    let many = parts(rule, "destinationAddressPrefixes").iter().filter_map(Value::as_str);
    let one = text(rule, &["properties", "destinationAddressPrefix"]).filter(|one| !one.is_empty());
    many.chain(one).map(str::to_owned).collect()
}

/// The first priority that is free: from below for those that let in, from above for those that deny.
fn free(rules: &[Value], allows: bool) -> Option<u16> {
    let inbound = |rule: &&Value| text(rule, &["properties", "direction"]) != Some("Outbound");
    let taken: BTreeSet<u16> =
        rules.iter().filter(inbound).filter_map(|rule| port(rule, &["properties", "priority"])).collect();
    let mut all = FIRST..=LAST_DENY;
    if allows { all.find(|p| !taken.contains(p)) } else { all.rev().find(|p| !taken.contains(p)) }
}

/// Destinations that are of Services of this plan: what is not wanted of them goes.
struct Stale<'a> {
    addresses: BTreeMap<String, &'a ServiceId>,
    /// Node ports of Services of this plan.
    node_ports: BTreeMap<u16, &'a ServiceId>,
    /// Addresses of all frontends, whoever has them.
    all: BTreeSet<String>,
}

impl<'a> Stale<'a> {
    fn of(world: &World<'a>, verdicts: &BTreeMap<ServiceId, Verdict>) -> Self {
        let placed = |intent: &&'a berth_provider::Intent| matches!(verdicts.get(&intent.id), Some(Verdict::Placed(_)));
        let present = world.wanted.present.values().filter(placed);
        let leaving = world.wanted.leaving.values().filter(|intent| world.leaving.values().any(|id| **id == intent.id));
        let intents: Vec<_> = present.chain(leaving).collect();
        let of_plan = |called: &str| {
            intents.iter().find(|intent| belongs(called, &names::base(&intent.id.uid))).map(|intent| &intent.id)
        };
        let (mut addresses, mut all, mut kept) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
        for (scheme, frontend) in world.observed.frontends() {
            let Some(address) = world.observed.address_of(frontend).map(|address| address.to_string()) else {
                continue;
            };
            all.insert(address.clone());
            let rules =
                world.observed.load_balancers.get(&scheme).map_or(&[] as &[Value], |d| parts(d, "loadBalancingRules"));
            let here =
                rules.iter().filter(|rule| super::draft::refers(rule, "frontendIPConfiguration", name(frontend)));
            for called in here.map(name).chain(std::iter::once(name(frontend))) {
                match of_plan(called) {
                    Some(id) => drop(addresses.insert(address.clone(), id)),
                    // A frontend may be named after a Service that is gone; what has rules on it is what counts.
                    None if called == name(frontend) => {}
                    None => drop(kept.insert(address.clone())),
                }
            }
        }
        for document in world.observed.public_ips.values().filter(|d| tags::is_ours(world.settings, d)) {
            let Some(address) = text(document, &["properties", "ipAddress"]) else { continue };
            let creator = tags::service(document).and_then(|id| intents.iter().find(|i| i.id == id).map(|i| &i.id));
            if let Some(id) = creator {
                addresses.entry(address.to_owned()).or_insert(id);
            }
            all.insert(address.to_owned());
        }
        addresses.retain(|address, _| !kept.contains(address));
        let ports = intents.iter().flat_map(|i| i.ports.iter().filter_map(|port| Some((port.node_port?, &i.id))));
        Self { addresses, node_ports: ports.collect(), all }
    }

    /// Whether a destination is of a Service of this plan, and of which.
    fn is(&self, world: &World<'_>, rule: &Value, prefix: &str) -> Option<&'a ServiceId> {
        if let Some(id) = self.addresses.get(prefix) {
            return Some(id);
        }
        // The addresses of nodes are the same for all; the node ports are one's alone, and the rule is ours.
        let marked = text(rule, &["properties", "description"]) == Some(&mark(world));
        let listed = parts(rule, "destinationPortRanges").iter().filter_map(Value::as_str);
        let ports: Vec<Option<u16>> = listed.map(|text| text.parse().ok()).collect();
        let owners: Option<Vec<_>> = ports.iter().map(|port| self.node_ports.get(&(*port)?)).collect();
        let denies = at(rule, &["properties", "access"]).and_then(Value::as_str) == Some("Deny");
        let owners = owners.filter(|owners| marked && !denies && !owners.is_empty() && !self.all.contains(prefix));
        owners.and_then(|owners| owners.first().map(|id| **id))
    }
}
