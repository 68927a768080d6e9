//! What would be done for Services, before anybody does it: planned, and planned again as if Azure had done it, until nothing is left.
//!
//! One plan is not enough: a public IP has to be there before a frontend refers to it, an address before the security group is opened for
//! it, and an old frontend goes once a status names the new one.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use berth_api::IpFamily;
use berth_api::service::ServiceKey;
use berth_provider::{Intent, Outcome, PlannedStep, Wanted};
use serde_json::{Value, json};

use crate::arm::Id;
use crate::difference::{Difference, differences};
use crate::document::{at, name, parts_mut};
use crate::intent::{Asks, Scheme, disowns};
use crate::names;
use crate::observed::{Observed, load_balancer, version};
use crate::settings::Settings;
use crate::snapshot::{Snapshot, unseen};
use crate::step::{Kind, Step};

/// Rounds after which a plan is taken to have no end. A change of scheme, the longest known, takes four.
const ROUNDS: usize = 12;
/// Stands for what Azure gives.
pub const GIVEN: &str = "<given by Azure>";

/// What becomes of everything.
#[derive(Clone, Debug, Default)]
pub struct Outlook {
    /// The Services, also those that leave.
    pub services: BTreeSet<ServiceKey>,
    /// What is done, in this order.
    pub steps: Vec<Foreseen>,
    /// What is to be said of each Service at the end.
    pub outcomes: BTreeMap<ServiceKey, Outcome>,
    /// Addresses that Azure will give, and what has them: they stand for others.
    pub given: BTreeMap<IpAddr, String>,
    /// Services whose security rules are for the addresses of nodes.
    pub by_node: BTreeSet<ServiceKey>,
    /// Services with a part in it that have no UID yet.
    pub unborn: BTreeSet<ServiceKey>,
    /// Whether there was still something to be done after [`ROUNDS`] rounds.
    pub endless: bool,
}

/// A step, and when it is done.
#[derive(Clone, Debug)]
pub struct Foreseen {
    /// In which round, from 1: those of one are done one after the other, and then it is looked again.
    pub round: usize,
    /// The step.
    pub planned: PlannedStep<Step>,
    /// What it changes.
    pub differences: Vec<Difference>,
}

/// Plans these Services against what was seen, or as if nothing were there. Names begin with UIDs, and those that `is_unborn` says are none:
/// where such a Service is in a name, its key is.
pub fn forecast(
    settings: &Settings,
    snapshot: Option<&Snapshot>,
    present: Vec<Intent>,
    leaving: Vec<Intent>,
    is_unborn: impl Fn(&str) -> bool,
) -> Outlook {
    let mut unborn = BTreeMap::new();
    let born = |mut intent: Intent| {
        if is_unborn(&intent.id.uid) {
            let key = intent.id.key.to_string();
            intent.id.uid = names::stand_in_uid(&key);
            unborn.insert(names::base(&intent.id.uid), format!("<{key}>"));
            unborn.insert(intent.id.uid.clone(), format!("<UID of {key}>"));
        }
        intent
    };
    let present: Vec<Intent> = present.into_iter().map(born).collect();
    let mut wanted = Wanted::default();
    wanted.present.extend(present.into_iter().map(|intent| (intent.id.key.clone(), intent)));
    wanted.leaving.extend(leaving.into_iter().map(|intent| (intent.id.clone(), intent)));
    let mut observed = match snapshot {
        Some(snapshot) => snapshot.observed(settings, &wanted),
        None => unseen(settings, &wanted),
    };
    let mut outlook = Outlook {
        services: wanted.present.keys().cloned().chain(wanted.leaving.keys().map(|id| id.key.clone())).collect(),
        by_node: by_node(settings, &wanted),
        endless: true,
        ..Outlook::default()
    };
    for round in 1..=ROUNDS {
        let plan = crate::plan::plan(settings, &wanted, &observed);
        let done = plan.steps.is_empty();
        for planned in plan.steps {
            let differences = differences(document(settings, &observed, &planned.step), &planned.step);
            carry_out(settings, &planned.step, &mut observed, &mut outlook.given);
            outlook.steps.push(Foreseen { round, planned, differences });
        }
        let mut published = true;
        for (key, outcome) in &plan.outcomes {
            if let Some(intent) = wanted.present.get_mut(key).filter(|intent| intent.published != outcome.ingress) {
                intent.published.clone_from(&outcome.ingress);
                published = false;
            }
        }
        outlook.outcomes = plan.outcomes;
        if done && published {
            outlook.endless = false;
            break;
        }
    }
    let has_part = outlook.steps.iter().flat_map(|foreseen| &foreseen.planned.services);
    let has_part = has_part.filter(|id| unborn.contains_key(&id.uid));
    outlook.unborn = has_part.map(|id| id.key.clone()).collect();
    outlook.name_what_is_unknown(&unborn);
    outlook
}

impl Outlook {
    /// Where something stands for what is known only later, that is said instead of it.
    fn name_what_is_unknown(&mut self, unborn: &BTreeMap<String, String>) {
        let given = self.given.iter().map(|(stand_in, what)| (stand_in.to_string(), what.as_str()));
        let words: Vec<(String, &str)> =
            given.chain(unborn.iter().map(|(stand_in, what)| (stand_in.clone(), what.as_str()))).collect();
        let named = |text: &str| words.iter().fold(text.to_owned(), |text, (word, by)| replaced(&text, word, by));
        for foreseen in &mut self.steps {
            match &mut foreseen.planned.step {
                Step::Put { id, body, .. } => {
                    *id = Id::new(named(id.as_str()));
                    each_text(body, &named);
                }
                Step::Delete { id, .. } | Step::Wait { id, .. } => *id = Id::new(named(id.as_str())),
            }
            for difference in &mut foreseen.differences {
                difference.name = named(&difference.name);
                difference.detail = named(&difference.detail);
            }
        }
        for condition in self.outcomes.values_mut().flat_map(|outcome| &mut outcome.conditions) {
            condition.message = named(&condition.message);
        }
    }
}

fn each_text(value: &mut Value, change: &impl Fn(&str) -> String) {
    match value {
        Value::String(text) => *text = change(text),
        Value::Array(all) => all.iter_mut().for_each(|one| each_text(one, change)),
        Value::Object(fields) => fields.values_mut().for_each(|one| each_text(one, change)),
        _ => {}
    }
}

/// The text with a word in place of another, but not where that is part of a longer one.
fn replaced(text: &str, word: &str, by: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(word) {
        let (before, after) = (&rest[..at], &rest[at + word.len()..]);
        out.push_str(before);
        let longer = after.starts_with(|next: char| next.is_ascii_hexdigit() || next == ':');
        out.push_str(if longer { word } else { by });
        rest = after;
    }
    out.push_str(rest);
    out
}

/// Services that are reached at node ports, and for which security rules are made.
fn by_node(settings: &Settings, wanted: &Wanted) -> BTreeSet<ServiceKey> {
    let asks = wanted.present.values().filter(|intent| !disowns(intent)).filter_map(|i| Asks::of(i, settings).ok());
    let translated = asks.filter(|asks| {
        let direct = |(family, _): &(IpFamily, _)| asks.rules.direct(asks.front.scheme, *family);
        let ruled = |(family, _): &(IpFamily, _)| !asks.sources.lists(*family).is_empty();
        !asks.sources.unruled && asks.front.families.iter().any(|one| !direct(one) && ruled(one))
    });
    translated.map(|asks| asks.service.key).collect()
}

/// What is there of what a step writes or deletes.
fn document<'a>(settings: &Settings, observed: &'a Observed, step: &Step) -> Option<&'a Value> {
    let (Step::Put { kind, id, .. } | Step::Delete { kind, id, .. } | Step::Wait { kind, id, .. }) = step;
    match kind {
        Kind::PublicIp => observed.public_ips.get(id),
        Kind::SecurityGroup => observed.security_group.as_ref(),
        Kind::LoadBalancer => observed.load_balancers.get(&scheme(settings, id)),
    }
}

fn scheme(settings: &Settings, id: &Id) -> Scheme {
    if load_balancer(settings, Scheme::Public) == *id { Scheme::Public } else { Scheme::Internal }
}

/// Does to what was seen what Azure would do.
fn carry_out(settings: &Settings, step: &Step, observed: &mut Observed, given: &mut BTreeMap<IpAddr, String>) {
    let (kind, id, body) = match step {
        Step::Put { kind, id, body, .. } => (*kind, id, body),
        Step::Wait { .. } => return,
        Step::Delete { kind, id, .. } => {
            match kind {
                Kind::PublicIp => drop(observed.public_ips.remove(id)),
                Kind::SecurityGroup => observed.security_group = None,
                Kind::LoadBalancer => drop(observed.load_balancers.remove(&scheme(settings, id))),
            }
            return;
        }
    };
    let mut document = body.clone();
    document["id"] = json!(id);
    document["etag"] = json!(GIVEN);
    document["properties"]["provisioningState"] = json!("Succeeded");
    match kind {
        Kind::PublicIp => {
            let family = version(&document, "publicIPAddressVersion");
            if at(&document, &["properties", "ipAddress"]).is_none() {
                document["properties"]["ipAddress"] = json!(stand_in(family, id.name(), given));
            }
            observed.public_ips.insert(id.clone(), document);
        }
        Kind::SecurityGroup => observed.security_group = Some(document),
        Kind::LoadBalancer => {
            for frontend in parts_mut(&mut document, "frontendIPConfigurations").into_iter().flatten() {
                let has = |field| at(frontend, &["properties", field]).is_some();
                if !has("publicIPAddress") && !has("privateIPAddress") {
                    let family = version(frontend, "privateIPAddressVersion");
                    let address = stand_in(family, name(frontend), given);
                    frontend["properties"]["privateIPAddress"] = json!(address);
                }
            }
            observed.load_balancers.insert(scheme(settings, id), document);
        }
    }
}

/// An address that nobody can have: of those that are reserved for ever (RFC 1112 section 4), or thrown away (RFC 6666).
fn stand_in(family: IpFamily, name: &str, given: &mut BTreeMap<IpAddr, String>) -> IpAddr {
    let number = u16::try_from(given.len()).unwrap_or(u16::MAX);
    let [high, low] = number.to_be_bytes();
    let address = match family {
        IpFamily::V4 => IpAddr::V4(Ipv4Addr::new(240, 0, high, low)),
        IpFamily::V6 => IpAddr::V6(Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, number)),
    };
    given.insert(address, format!("<address of {name}>"));
    address
}

#[cfg(test)]
mod tests;
