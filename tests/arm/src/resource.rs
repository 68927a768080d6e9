//! Resources, their paths, and what holds for all of them.

use serde_json::Value;

use crate::{Checked, State, refused};

/// What kind of resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    LoadBalancer,
    PublicIp,
    SecurityGroup,
    /// One without rules here: networks, prefixes.
    Other,
}

#[derive(Clone, Debug)]
pub(crate) struct Resource {
    pub id: String,
    pub document: Value,
}

/// The path of a resource, or of a part of one.
#[derive(Clone, Debug)]
pub(crate) struct Path {
    prefix: String,
    pub collection: String,
    pub kind: Kind,
    pub name: String,
    pub child: Option<(String, String)>,
}

const COLLECTIONS: &[(&str, Kind)] = &[
    ("loadBalancers", Kind::LoadBalancer),
    ("publicIPAddresses", Kind::PublicIp),
    ("networkSecurityGroups", Kind::SecurityGroup),
    ("virtualNetworks", Kind::Other),
    ("publicIPPrefixes", Kind::Other),
];

/// Tags that a resource may have, and letters of one (Azure rules).
const TAGS: usize = 50;
const TAG_VALUE: usize = 256;

fn known(collection: &str) -> Option<(&'static str, Kind)> {
    COLLECTIONS.iter().find(|(name, _)| name.eq_ignore_ascii_case(collection)).copied()
}

/// The path of a whole collection, and what it is counted as.
pub(crate) fn collection(path: &str) -> Option<(String, &'static str)> {
    let words: Vec<&str> = path.trim_matches('/').split('/').collect();
    (words.len() == 7).then(|| known(words[6])).flatten().map(|(name, _)| (path.trim_end_matches('/').to_owned(), name))
}

impl Path {
    pub(crate) fn parse(path: &str) -> Option<Self> {
        let words: Vec<&str> = path.trim_matches('/').split('/').collect();
        let [s, _, g, _, p, n, collection, name, rest @ ..] = words.as_slice() else { return None };
        let is = |word: &str, expected: &str| word.eq_ignore_ascii_case(expected);
        if !(is(s, "subscriptions") && is(g, "resourceGroups") && is(p, "providers") && is(n, "Microsoft.Network")) {
            return None;
        }
        let (collection, kind) = known(collection)?;
        let child = match rest {
            [] => None,
            [kind, name] => Some(((*kind).to_owned(), (*name).to_owned())),
            _ => return None,
        };
        let prefix = format!("/{}", words[..6].join("/"));
        Some(Self { prefix, collection: collection.to_owned(), kind, name: (*name).to_owned(), child })
    }

    pub(crate) fn parent(&self) -> Self {
        Self { child: None, ..self.clone() }
    }

    pub(crate) fn id(&self) -> String {
        let own = format!("{}/{}/{}", self.prefix, self.collection, self.name);
        match &self.child {
            None => own,
            Some((kind, name)) => format!("{own}/{kind}/{name}"),
        }
    }

    pub(crate) fn key(&self) -> String {
        self.id().to_lowercase()
    }

    pub(crate) fn parent_key(&self) -> String {
        self.parent().key()
    }

    /// What it is counted as.
    pub(crate) fn counted(&self) -> &'static str {
        match &self.child {
            Some((kind, _)) if kind.eq_ignore_ascii_case("backendAddressPools") => "backendAddressPools",
            Some((kind, _)) if kind.eq_ignore_ascii_case("subnets") => "subnets",
            _ => known(&self.collection).map_or("others", |(name, _)| name),
        }
    }
}

/// A part of a document.
pub(crate) fn part<'a>(document: &'a Value, kind: &str, name: &str) -> Option<&'a Value> {
    let properties = document["properties"].as_object()?;
    let (_, list) = properties.iter().find(|(field, _)| field.eq_ignore_ascii_case(kind))?;
    list.as_array()?.iter().find(|part| part["name"].as_str().is_some_and(|n| n.eq_ignore_ascii_case(name)))
}

/// The parts of a document.
pub(crate) fn parts<'a>(document: &'a Value, kind: &str) -> &'a [Value] {
    document["properties"][kind].as_array().map_or(&[], Vec::as_slice)
}

/// The path that a field refers to, as a key.
pub(crate) fn reference(part: &Value, field: &str) -> Option<String> {
    part["properties"][field]["id"].as_str().map(str::to_lowercase)
}

/// What holds for every document.
pub(crate) fn check(path: &Path, document: &Value, old: Option<&Value>) -> Checked<()> {
    let Some(location) = document["location"].as_str() else {
        return refused("LocationRequired", "The location property is required for this definition.");
    };
    if old.is_some_and(|old| old["location"] != *location) {
        let message = format!("The resource '{}' already exists in another location.", path.name);
        return Err(crate::Refused(409, "InvalidResourceLocation", message));
    }
    if path.name.len() > 80 {
        return refused("InvalidResourceName", format!("Resource name {} is invalid.", path.name));
    }
    let Some(tags) = document["tags"].as_object() else { return Ok(()) };
    if tags.len() > TAGS {
        return refused("InvalidTagCount", "There are too many tags.");
    }
    for (name, value) in tags {
        let Some(value) = value.as_str() else { return refused("InvalidTagValue", format!("Tag {name} is no text.")) };
        if name.contains(['<', '>', '%', '&', '\\', '?', '/']) {
            return refused("InvalidTagNameCharacters", format!("The tag name '{name}' has reserved characters."));
        }
        if value.len() > TAG_VALUE {
            return refused("InvalidTagValueLength", format!("The value of the tag {name} is too long."));
        }
    }
    Ok(())
}

/// Fills in what the parts of a document have from us.
pub(crate) fn name_parts(path: &Path, document: &mut Value, kind: &str, serial: u64) {
    let Some(list) = document["properties"].get_mut(kind).and_then(Value::as_array_mut) else { return };
    for part in list {
        let name = part["name"].as_str().unwrap_or_default().to_owned();
        part["id"] = format!("{}/{kind}/{name}", path.id()).into();
        part["etag"] = format!("W/\"{serial:08}\"").into();
        part["type"] = format!("Microsoft.Network/{}/{kind}", path.collection).into();
        part["properties"]["provisioningState"] = "Succeeded".into();
    }
}

/// Names of parts are there once.
pub(crate) fn unique(document: &Value, kind: &str) -> Checked<()> {
    let mut seen = std::collections::BTreeSet::new();
    for part in parts(document, kind) {
        let name = part["name"].as_str().unwrap_or_default();
        if name.is_empty() || name.len() > 80 || !name.ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_') {
            return refused("InvalidResourceName", format!("Resource name '{name}' is invalid."));
        }
        if !seen.insert(name.to_lowercase()) {
            return refused("InvalidRequestFormat", format!("Cannot parse the request: {kind} {name} is there twice."));
        }
    }
    Ok(())
}

impl State {
    pub(crate) fn other(&mut self, path: &Path, document: &mut Value) {
        let serial = self.next();
        name_parts(path, document, "subnets", serial);
    }

    /// Who refers to what is written there by us alone.
    pub(crate) fn refer_back(&mut self) {
        let mut uses = std::collections::BTreeMap::new();
        for resource in self.resources.values() {
            for frontend in parts(&resource.document, "frontendIPConfigurations") {
                if let (Some(ip), Some(id)) = (reference(frontend, "publicIPAddress"), frontend["id"].as_str()) {
                    uses.insert(ip, id.to_owned());
                }
            }
        }
        for (key, resource) in &mut self.resources {
            if !key.contains("/publicipaddresses/") {
                continue;
            }
            let Some(properties) = resource.document["properties"].as_object_mut() else { continue };
            match uses.get(key) {
                Some(id) => drop(properties.insert("ipConfiguration".to_owned(), serde_json::json!({ "id": id }))),
                None => drop(properties.remove("ipConfiguration")),
            }
        }
    }
}
