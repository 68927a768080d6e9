//! The public IPs: those that are used, those that are made, and those that are needed no more.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use berth_api::IpFamily;
use berth_provider::{PlannedStep, ServiceId};
use serde_json::{Map, Value, json};

use super::draft::{Draft, FRONTENDS};
use super::{Verdict, World, belongs};
use crate::annotation::contradiction;
use crate::arm::Id;
use crate::document::{address, etag, name, overlay, text};
use crate::intent::{Asks, Dns, Front, FrontAsks};
use crate::names;
use crate::observed::{load_balancer, state, version};
use crate::refusal::Refusal;
use crate::settings::Settings;
use crate::step::{Kind, Step};
use crate::tags;

/// A public IP that a Service is to have.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub id: Id,
    /// Its address, once it can be referred to.
    pub address: Option<IpAddr>,
    family: IpFamily,
    prefix: Option<Id>,
}

/// Who uses which.
#[derive(Clone, Debug, Default)]
pub(super) struct PublicIps {
    used: BTreeMap<Id, Vec<(ServiceId, Front, Found)>>,
}

impl PublicIps {
    /// The public IP that is asked for; it may have to be made.
    pub(super) fn find(world: &World<'_>, asks: &Asks, family: IpFamily, one: &FrontAsks) -> Result<Found, Refusal> {
        let (settings, front) = (world.settings, &asks.front);
        let found = |id: Id, address| Found { id, address, family, prefix: one.prefix.clone() };
        if let Some(refusal) = world.observed.closed_groups.get(&front.group.to_lowercase()) {
            return Err(refusal.clone());
        }
        let id = match (one.address, &one.public_ip) {
            (Some(wanted), _) => {
                let has = |document: &Value| address(document, &["properties", "ipAddress"]) == Some(wanted);
                let (id, _) = world.observed.public_ips.iter().find(|(_, document)| has(document)).ok_or_else(|| {
                    let group = &front.group;
                    Refusal::NotFound(format!(
                        "no public IP in the resource group {group} has the address {wanted}; make one, or ask for another"
                    ))
                })?;
                id.clone()
            }
            (None, Some(called)) => Id::network(settings, &front.group, "publicIPAddresses", called),
            (None, None) => Id::network(settings, &front.group, "publicIPAddresses", &generated(settings, asks, one)),
        };
        if let Dns::Label(label) = &front.dns {
            let mine = |holder: &Value| {
                tags::is_ours(settings, holder) && tags::service(holder).as_ref() == Some(&asks.service)
            };
            if labelled(world, label, &id, family, true).any(|holder| !mine(holder)) {
                return Err(Refusal::NameTaken { kind: "public IP with the domain name label", name: label.clone() });
            }
        }
        let Some(document) = world.observed.public_ips.get(&id) else { return Ok(found(id, None)) };
        let ours = tags::is_ours(settings, document);
        if !ours && one.address.is_none() && one.public_ip.is_none() {
            return Err(Refusal::NameTaken { kind: "public IP", name: id.name().to_owned() });
        }
        if version(document, "publicIPAddressVersion") != family {
            return Err(Refusal::NotFound(format!(
                "the public IP {} has no {family} address; name another",
                id.name()
            )));
        }
        if text(document, &["sku", "name"]).is_some_and(|sku| sku.eq_ignore_ascii_case("Basic")) {
            let message =
                format!("the public IP {} is of the SKU Basic, which standard load balancers cannot use", id.name());
            return Err(Refusal::NotFound(message));
        }
        if !ours {
            for (name, is) in [
                ("azure-dns-label-name", front.dns != Dns::Unsaid),
                ("azure-pip-tags", !front.tags.is_empty()),
                ("azure-pip-ip-tags", !front.ip_tags.is_empty()),
            ] {
                if is {
                    let why =
                        format!("the public IP {} is not Berth's, and so is never changed; set it there", id.name());
                    return Err(contradiction(name, why));
                }
            }
        }
        // One that a frontend has serves, whatever is being changed of it.
        let ready =
            state(document) == "Succeeded" || text(document, &["properties", "ipConfiguration", "id"]).is_some();
        let address = address(document, &["properties", "ipAddress"]).filter(|_| ready);
        Ok(found(id, address))
    }

    pub(super) fn uses(&mut self, asks: &Asks, found: Vec<Found>) {
        for one in found {
            let users = self.used.entry(one.id.clone()).or_default();
            users.retain(|(id, _, _)| *id != asks.service);
            users.push((asks.service.clone(), asks.front.clone(), one));
        }
    }

    /// What makes public IPs, and what changes those that there are.
    pub(super) fn steps(
        &self,
        world: &World<'_>,
        drafts: &[Draft<'_>],
        verdicts: &BTreeMap<ServiceId, Verdict>,
    ) -> (Vec<PlannedStep<Step>>, Vec<PlannedStep<Step>>) {
        let (mut makes, mut changes) = (Vec::new(), Vec::new());
        for (id, users) in &self.used {
            let document = world.observed.public_ips.get(id);
            // Nor one that is being deleted: it is made anew once it is gone.
            if document
                .is_some_and(|document| !tags::is_ours(world.settings, document) || state(document) == "Deleting")
            {
                continue;
            }
            let creator = document.and_then(tags::service);
            let Some(owner) = owner(world, verdicts, creator.as_ref(), users) else { continue };
            let (service, front, found) = owner;
            let names: BTreeSet<ServiceId> =
                users.iter().map(|(id, _, _)| id.clone()).chain(others(world, drafts, id)).collect();
            let tags = tags::of_public_ip(world.settings, service, Some(front), names.iter());
            let (body, if_match) = match document {
                None => (new(world, id, front, found, tags), None),
                Some(document) => {
                    let mut body = document.clone();
                    let differs =
                        overlay(&mut body, &json!({"tags": tags, "properties": dns(world, front, id, found.family)}));
                    if !differs && state(document) != "Failed" {
                        continue;
                    }
                    (body, etag(document).map(str::to_owned))
                }
            };
            let step = Step::Put {
                kind: Kind::PublicIp,
                id: id.clone(),
                if_match,
                summary: format!("for {}", service.key),
                changes: vec![service.clone()],
                body,
            };
            let is_there = document.is_some_and(|document| state(document) != "Failed");
            let steps = if is_there { &mut changes } else { &mut makes };
            steps.push(PlannedStep::of(service, step));
        }
        changes.extend(self.inherited(world, drafts));
        (makes, changes)
    }

    /// Public IPs whose Service leaves while another one has a part on it that is refused for now: it is that one's from then on, or nobody
    /// would know later whose it was.
    fn inherited(&self, world: &World<'_>, drafts: &[Draft<'_>]) -> Vec<PlannedStep<Step>> {
        let ours = world
            .observed
            .public_ips
            .iter()
            .filter(|(id, document)| tags::is_ours(world.settings, document) && !self.used.contains_key(*id));
        let steps = ours.filter_map(|(id, document)| {
            let creator = tags::service(document)?;
            world.leaving.values().find(|leaving| ***leaving == creator)?;
            let users: BTreeSet<ServiceId> = others(world, drafts, id).into_iter().collect();
            let heir = users.first()?;
            let mut body = document.clone();
            overlay(&mut body, &json!({"tags": tags::of_public_ip(world.settings, heir, None, users.iter())}));
            let step = Step::Put {
                kind: Kind::PublicIp,
                id: id.clone(),
                if_match: etag(document).map(str::to_owned),
                summary: format!("for {}", heir.key),
                changes: vec![creator.clone()],
                body,
            };
            Some(PlannedStep::of(&creator, step))
        });
        steps.collect()
    }

    /// Services with a public IP of ours that Azure is changing: how that went is known only once it has been looked at.
    pub(super) fn unsettled(&self, world: &World<'_>) -> BTreeSet<ServiceId> {
        let changing = self.used.iter().filter(|(id, _)| {
            world.observed.public_ips.get(*id).is_some_and(|document| {
                tags::is_ours(world.settings, document) && !matches!(state(document), "Succeeded" | "Failed")
            })
        });
        changing.flat_map(|(_, users)| users.iter().map(|(service, _, _)| service.clone())).collect()
    }

    /// What deletes public IPs that are ours and that nobody needs.
    pub(super) fn removals(
        &self,
        world: &World<'_>,
        drafts: &[Draft<'_>],
        verdicts: &BTreeMap<ServiceId, Verdict>,
    ) -> Vec<PlannedStep<Step>> {
        let settings = world.settings;
        let mut steps = Vec::new();
        for (id, document) in &world.observed.public_ips {
            let Some(creator) = tags::service(document).filter(|_| tags::is_ours(settings, document)) else { continue };
            let leaves = world.leaving.values().any(|id| **id == creator);
            let lets_go = matches!(verdicts.get(&creator), Some(Verdict::Placed(_)));
            let frontends = || drafts.iter().flat_map(|draft| draft.parts(FRONTENDS));
            let referred = frontends().any(|frontend| is_of(frontend, id));
            if !(leaves || lets_go) || self.used.contains_key(id) || referred || is_used_elsewhere(settings, document) {
                continue;
            }
            let step = Step::Delete { kind: Kind::PublicIp, id: id.clone(), if_match: None };
            steps.push(PlannedStep::of(&creator, step));
        }
        steps
    }
}

fn is_of(frontend: &Value, id: &Id) -> bool {
    text(frontend, &["properties", "publicIPAddress", "id"]).is_some_and(|is| Id::new(is) == *id)
}

/// The name of a public IP that is made for a Service. What cannot be changed later is in it, so that a change makes another one.
fn generated(settings: &Settings, asks: &Asks, one: &FrontAsks) -> String {
    let digest = (!asks.front.ip_tags.is_empty()).then(|| {
        let pairs: Vec<_> = asks.front.ip_tags.iter().map(|(key, value)| format!("{key}={value}")).collect();
        names::digest(&pairs.join(","))
    });
    let prefix = one.prefix.as_ref().map(Id::name);
    names::public_ip(&settings.cluster, &names::base(&asks.service.uid), prefix, digest.as_deref(), one.second)
}

/// Whose wishes count: the Service's that it was made for, or once that is gone, the first other's. None where it is one's that
/// nothing is done for now.
fn owner<'a>(
    world: &World<'_>,
    verdicts: &BTreeMap<ServiceId, Verdict>,
    creator: Option<&ServiceId>,
    users: &'a [(ServiceId, Front, Found)],
) -> Option<&'a (ServiceId, Front, Found)> {
    let Some(creator) = creator else { return users.first() };
    if let Some(user) = users.iter().find(|(id, _, _)| id == creator) {
        return Some(user);
    }
    let leaves = world.leaving.values().any(|id| *id == creator);
    let lets_go = matches!(verdicts.get(creator), Some(Verdict::Placed(_)));
    users.first().filter(|_| leaves || lets_go)
}

/// Services that are present and have a part on a public IP, whatever becomes of them in this plan.
fn others(world: &World<'_>, drafts: &[Draft<'_>], id: &Id) -> Vec<ServiceId> {
    let mut found = Vec::new();
    for draft in drafts {
        for frontend in draft.parts(FRONTENDS).iter().filter(|frontend| is_of(frontend, id)) {
            let rules = draft.rules_on(name(frontend)).map(name);
            for called in rules.chain(std::iter::once(name(frontend))) {
                let of = world.present.iter().find(|(base, _)| belongs(called, base));
                found.extend(of.map(|(_, intent)| intent.id.clone()));
            }
        }
    }
    found
}

/// Whether something else than our load balancers has it.
fn is_used_elsewhere(settings: &Settings, document: &Value) -> bool {
    let ours = [crate::intent::Scheme::Public, crate::intent::Scheme::Internal]
        .map(|scheme| format!("{}/", load_balancer(settings, scheme)).to_lowercase());
    let by = text(document, &["properties", "ipConfiguration", "id"]).map(str::to_lowercase);
    let by_other = by.is_some_and(|by| !ours.iter().any(|ours| by.starts_with(ours)));
    by_other || text(document, &["properties", "natGateway", "id"]).is_some()
}

/// Other public IPs that have a domain name, or that are to have it.
fn labelled<'a>(
    world: &World<'a>,
    label: &str,
    id: &Id,
    family: IpFamily,
    also_wanted: bool,
) -> impl Iterator<Item = &'a Value> {
    let has = move |document: &Value| {
        let is = text(document, &["properties", "dnsSettings", "domainNameLabel"]) == Some(label);
        let wants = also_wanted && text(document, &["tags", tags::DNS_LABEL]) == Some(label);
        (is || wants) && version(document, "publicIPAddressVersion") == family
    };
    let others = world.observed.public_ips.iter().filter(move |(other, document)| *other != id && has(document));
    others.map(|(_, document)| document)
}

fn dns(world: &World<'_>, front: &Front, id: &Id, family: IpFamily) -> Value {
    match &front.dns {
        Dns::Unsaid => json!({}),
        Dns::None => json!({"dnsSettings": null}),
        // It comes over once the Service's other public IP is gone.
        Dns::Label(label) if labelled(world, label, id, family, false).next().is_some() => json!({}),
        Dns::Label(label) => json!({"dnsSettings": {"domainNameLabel": label}}),
    }
}

fn new(world: &World<'_>, id: &Id, front: &Front, found: &Found, tags: Map<String, Value>) -> Value {
    let settings = world.settings;
    let ip_tags: Vec<Value> = front.ip_tags.iter().map(|(kind, tag)| json!({"ipTagType": kind, "tag": tag})).collect();
    let mut body = json!({"name": id.name()});
    overlay(
        &mut body,
        &json!({
            "location": settings.location,
            "sku": {"name": "Standard", "tier": "Regional"},
            "zones": (!settings.zones.is_empty()).then_some(&settings.zones),
            "tags": tags,
            "properties": {
                "publicIPAllocationMethod": "Static",
                "publicIPAddressVersion": found.family.as_str(),
                "publicIPPrefix": found.prefix.as_ref().map(|id| json!({"id": id})),
                "ipTags": (!ip_tags.is_empty()).then_some(ip_tags),
            },
        }),
    );
    overlay(&mut body, &json!({"properties": dns(world, front, id, found.family)}));
    body
}
