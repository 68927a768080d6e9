//! A cloud as somebody wrote it down: answers of ARM, as `az rest` and `az network` print them.
//!
//! A text is one value after another. Each is a resource, a list of them, or an answer `{"value": [...]}`. `az network ...` leaves out
//! `properties` and puts what is in it one level up; it is put back, so that a document is again what ARM says.

use std::collections::{BTreeMap, BTreeSet};

use berth_provider::Wanted;
use serde_json::{Map, Value, json};

use crate::arm::Id;
use crate::document::{address, name, parts, text};
use crate::intent::{Asks, Scheme};
use crate::observed::{Observed, groups_of, load_balancer, subnet};
use crate::settings::{Place, Settings};
use crate::tags;

/// What a resource has beside `properties`.
const OF_RESOURCES: [&str; 13] = [
    "id",
    "name",
    "type",
    "location",
    "tags",
    "etag",
    "sku",
    "zones",
    "extendedLocation",
    "identity",
    "kind",
    "managedBy",
    "systemData",
];
/// What a part of a resource has beside `properties`.
const OF_PARTS: [&str; 5] = ["id", "name", "type", "etag", "zones"];
/// Lists of parts.
const LISTS: [&str; 12] = [
    "frontendIPConfigurations",
    "backendAddressPools",
    "loadBalancingRules",
    "probes",
    "inboundNatRules",
    "inboundNatPools",
    "outboundRules",
    "loadBalancerBackendAddresses",
    "backendIPConfigurations",
    "securityRules",
    "defaultSecurityRules",
    "subnets",
];
/// Fields that some versions of `az` write in other letters (`publicIpAddress`).
const SPELLINGS: [&str; 9] = [
    "frontendIPConfiguration",
    "publicIPAddress",
    "publicIPPrefix",
    "publicIPAddressVersion",
    "publicIPAllocationMethod",
    "privateIPAddress",
    "privateIPAddressVersion",
    "privateIPAllocationMethod",
    "enableFloatingIP",
];
/// What `az` adds to everything that has a path.
const ADDED: &str = "resourceGroup";
/// The kinds that a plan looks at, and what prints them.
const KINDS: [(&str, &str, &str); 4] = [
    ("loadBalancers", "load balancer, so that there is taken to be none", "az network lb list"),
    ("publicIPAddresses", "public IP, so that there is taken to be none", "az network public-ip list"),
    (
        "networkSecurityGroups",
        "network security group, so that the configured one is taken to be empty",
        "az network nsg list",
    ),
    (
        "virtualNetworks",
        "virtual network, so that subnets are taken to be as Services name them",
        "az network vnet list",
    ),
];

/// Why a text is no snapshot.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// No JSON.
    #[error("{source_name} is no JSON: {problem}; write what `az network ... -o json` or `az rest` prints")]
    Syntax {
        /// Which text.
        source_name: String,
        /// What is wrong.
        problem: String,
    },
    /// JSON, and no resource.
    #[error(
        "{0} holds something that is no resource of Azure's network, whose `id` begins with /subscriptions/ and names Microsoft.Network; write what \
         `az network ... -o json` or `az rest` prints"
    )]
    NoResource(String),
    /// An answer that goes on.
    #[error("{0} is not all: it has a nextLink; add what `az rest --url` prints for that")]
    GoesOn(String),
}

/// What somebody wrote down.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    resources: BTreeMap<Id, Value>,
}

impl Snapshot {
    /// Reads texts, each with what it is called in messages. Of what is there twice the last counts.
    ///
    /// # Errors
    /// When one of them is not what ARM answers.
    pub fn read(texts: &[(String, String)]) -> Result<Self, SnapshotError> {
        let mut snapshot = Self::default();
        for (source_name, text) in texts {
            for value in serde_json::Deserializer::from_str(text).into_iter::<Value>() {
                let syntax = |e: serde_json::Error| SnapshotError::Syntax {
                    source_name: source_name.clone(),
                    problem: e.to_string(),
                };
                snapshot.add(source_name, value.map_err(syntax)?)?;
            }
        }
        Ok(snapshot)
    }

    fn add(&mut self, source_name: &str, value: Value) -> Result<(), SnapshotError> {
        let no_resource = || SnapshotError::NoResource(source_name.to_owned());
        match value {
            Value::Array(all) => all.into_iter().try_for_each(|one| self.add(source_name, one)),
            Value::Object(mut fields)
                if fields.get("id").is_none() && fields.get("value").is_some_and(Value::is_array) =>
            {
                if fields.get("nextLink").and_then(Value::as_str).is_some_and(|link| !link.is_empty()) {
                    return Err(SnapshotError::GoesOn(source_name.to_owned()));
                }
                self.add(source_name, fields.remove("value").unwrap_or_default())
            }
            Value::Object(fields) => {
                let id =
                    fields.get("id").and_then(Value::as_str).filter(|id| kind(id).is_some()).ok_or_else(no_resource)?;
                self.resources.insert(Id::new(id), whole(fields, &OF_RESOURCES));
                Ok(())
            }
            _ => Err(no_resource()),
        }
    }

    fn of(&self, kind: &str) -> impl Iterator<Item = (&Id, &Value)> {
        self.resources
            .iter()
            .filter(move |(id, _)| self::kind(id.as_str()).is_some_and(|is| is.eq_ignore_ascii_case(kind)))
    }

    /// The one resource of a kind, where there is one alone.
    pub fn only(&self, kind: &str) -> Option<Place> {
        let mut all = self.of(kind);
        let (id, _) = all.next().filter(|_| all.next().is_none())?;
        Some(Place { group: group(id.as_str())?.to_owned(), name: id.name().to_owned() })
    }

    /// The subscription, the resource group and the region, as far as all load balancers and security groups, or else all resources,
    /// have the same.
    pub fn whereabouts(&self) -> [Option<&str>; 3] {
        let nearest = || self.of("loadBalancers").chain(self.of("networkSecurityGroups"));
        let all = || self.resources.iter();
        let subscription = same(all().filter_map(|(id, _)| id.as_str().split('/').nth(2)));
        let place = same(nearest().filter_map(|(id, _)| group(id.as_str())));
        let place = place.or_else(|| same(all().filter_map(|(id, _)| group(id.as_str()))));
        [subscription, place, same(all().filter_map(|(_, document)| text(document, &["location"])))]
    }

    /// The subnet of a network, where it has one alone.
    pub fn only_subnet(&self, network: &Place) -> Option<&str> {
        let mut all = self.of("virtualNetworks").filter(|(id, _)| {
            id.name().eq_ignore_ascii_case(&network.name)
                && group(id.as_str()).is_some_and(|group| group.eq_ignore_ascii_case(&network.group))
        });
        match parts(all.next()?.1, "subnets") {
            [only] => Some(name(only)),
            _ => None,
        }
    }

    /// The cluster, where all that has the tags of Berth is one's.
    pub fn cluster(&self) -> Option<&str> {
        let ours = self.resources.values().filter(|document| text(document, &["tags", tags::CLUSTER_UID]).is_some());
        same(ours.filter_map(|document| text(document, &["tags", tags::CLUSTER])))
    }

    /// The UID that the tags of a cluster have, where they have one alone.
    pub fn cluster_uid(&self, cluster: &str) -> Option<&str> {
        let ours = self.resources.values().filter(|document| text(document, &["tags", tags::CLUSTER]) == Some(cluster));
        same(ours.filter_map(|document| text(document, &["tags", tags::CLUSTER_UID])))
    }

    /// What is missing, and what is made of that.
    pub fn lacks(&self, settings: &Settings) -> Vec<String> {
        let mut lacks: Vec<String> = KINDS
            .iter()
            .filter(|(kind, _, _)| *kind != "networkSecurityGroups" || settings.security_group.is_some())
            .filter(|(kind, _, _)| self.of(kind).next().is_none())
            .map(|(_, what, call)| format!("no {what}: add `{call} -o json`"))
            .collect();
        let network = Id::at(settings, "virtualNetworks", &settings.network);
        if self.of("virtualNetworks").next().is_some() && !self.resources.contains_key(&network) {
            lacks.push(format!(
                "virtual networks, but not {}, so that subnets are taken to be as Services name them",
                network.name()
            ));
        }
        if let Some(place) = &settings.security_group
            && self.of("networkSecurityGroups").next().is_some()
            && !self.resources.contains_key(&Id::at(settings, "networkSecurityGroups", place))
        {
            lacks.push(format!("network security groups, but not {}, which so is taken not to be there", place.name));
        }
        lacks
    }

    /// What a look would have seen.
    pub fn observed(&self, settings: &Settings, wanted: &Wanted) -> Observed {
        let both = [Scheme::Public, Scheme::Internal].into_iter();
        let load_balancers: BTreeMap<_, _> = both
            .filter_map(|scheme| Some((scheme, self.resources.get(&load_balancer(settings, scheme))?.clone())))
            .collect();
        let all: Vec<Asks> = wanted
            .present
            .values()
            .chain(wanted.leaving.values())
            .filter_map(|intent| Asks::of(intent, settings).ok())
            .collect();
        let groups = all.iter().map(|asks| asks.front.group.clone()).chain([settings.resource_group.clone()]);
        let groups: BTreeSet<String> =
            groups.chain(load_balancers.values().flat_map(groups_of)).map(|group| group.to_lowercase()).collect();
        let looked_at = |id: &Id| group(id.as_str()).is_some_and(|group| groups.contains(&group.to_lowercase()));
        let public_ips = self.of("publicIPAddresses").filter(|(id, _)| looked_at(id));
        let public_ips = public_ips.map(|(id, document)| (id.clone(), document.clone())).collect();
        let mut observed = Observed { load_balancers, public_ips, ..Observed::default() };
        if let Some(place) = &settings.security_group {
            let id = Id::at(settings, "networkSecurityGroups", place);
            let none = self.of("networkSecurityGroups").next().is_none();
            observed.security_group =
                self.resources.get(&id).cloned().or_else(|| none.then(|| json!({"name": place.name})));
        }
        let network = self.resources.get(&Id::at(settings, "virtualNetworks", &settings.network));
        observed.subnets = subnets(settings, &all, |called| match network {
            Some(network) => parts(network, "subnets").iter().find(|s| name(s).eq_ignore_ascii_case(called)).cloned(),
            None => Some(json!({"id": subnet(settings, called), "name": called})),
        });
        observed
    }
}

/// What is there where nobody looked: what Services and configuration refer to, and nothing else.
pub fn unseen(settings: &Settings, wanted: &Wanted) -> Observed {
    let all: Vec<Asks> = wanted.present.values().filter_map(|intent| Asks::of(intent, settings).ok()).collect();
    let mut observed = Observed {
        security_group: settings.security_group.as_ref().map(|place| json!({"name": place.name})),
        subnets: subnets(settings, &all, |called| Some(json!({"id": subnet(settings, called), "name": called}))),
        ..Observed::default()
    };
    for asks in all.iter().filter(|asks| asks.front.scheme == Scheme::Public) {
        for (family, one) in &asks.front.families {
            let Some(address) = one.address else { continue };
            let id = Id::network(settings, &asks.front.group, "publicIPAddresses", &format!("<public IP {address}>"));
            let there = observed
                .public_ips
                .values()
                .any(|known| self::address(known, &["properties", "ipAddress"]) == Some(address));
            if !there {
                let document = json!({"id": id, "name": id.name(), "properties": {
                    "ipAddress": address, "publicIPAddressVersion": family.as_str(), "provisioningState": "Succeeded",
                }});
                observed.public_ips.insert(id, document);
            }
        }
    }
    observed
}

fn subnets(settings: &Settings, all: &[Asks], find: impl Fn(&str) -> Option<Value>) -> BTreeMap<String, Option<Value>> {
    let internal = all.iter().filter(|asks| asks.front.scheme == Scheme::Internal);
    internal.map(|asks| asks.front.subnet_name(settings)).map(|called| (called.to_owned(), find(called))).collect()
}

/// The kind of a resource by its path: `loadBalancers` in `…/providers/Microsoft.Network/loadBalancers/lb`.
fn kind(id: &str) -> Option<&str> {
    let words: Vec<&str> = id.split('/').collect();
    match words.as_slice() {
        ["", s, _, g, _, p, n, kind, _] => {
            let expected = [(s, "subscriptions"), (g, "resourceGroups"), (p, "providers"), (n, "Microsoft.Network")];
            expected.iter().all(|(is, word)| is.eq_ignore_ascii_case(word)).then_some(*kind)
        }
        _ => None,
    }
}

/// The resource group by a path.
fn group(id: &str) -> Option<&str> {
    id.split('/').nth(4)
}

/// The word, where all are the same.
fn same<'a>(mut words: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let first = words.next()?;
    words.all(|word| word.eq_ignore_ascii_case(first)).then_some(first)
}

/// A resource or a part of one, with `properties` where it has been left out.
fn whole(fields: Map<String, Value>, beside: &[&str]) -> Value {
    if fields.get("properties").is_some_and(Value::is_object) {
        return Value::Object(fields);
    }
    let (mut outer, mut properties) = (Map::new(), Map::new());
    for (field, value) in fields.into_iter().filter(|(field, _)| field != ADDED) {
        let known = LISTS.iter().chain(&SPELLINGS).find(|known| known.eq_ignore_ascii_case(&field));
        let field = known.map_or(field, |known| (*known).to_owned());
        if beside.contains(&field.as_str()) {
            outer.insert(field, value);
        } else {
            let value = inner(&field, value);
            properties.insert(field, value);
        }
    }
    outer.insert("properties".to_owned(), Value::Object(properties));
    Value::Object(outer)
}

fn inner(field: &str, value: Value) -> Value {
    match value {
        Value::Array(all) if LISTS.contains(&field) => Value::Array(all.into_iter().map(part).collect()),
        Value::Array(all) => Value::Array(all.into_iter().map(|one| inner("", one)).collect()),
        Value::Object(mut fields) if fields.contains_key("id") => {
            fields.remove(ADDED);
            Value::Object(fields)
        }
        other => other,
    }
}

/// A part; or a reference to one, which has a path and no name.
fn part(value: Value) -> Value {
    match value {
        Value::Object(mut fields) if !fields.contains_key("name") => {
            fields.remove(ADDED);
            Value::Object(fields)
        }
        Value::Object(fields) => whole(fields, &OF_PARTS),
        other => other,
    }
}

#[cfg(test)]
mod tests;
