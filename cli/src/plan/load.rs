//! From a text to objects: YAML with several documents, JSON, or a List.

use std::collections::BTreeMap;
use std::fmt;

use berth_api::pool::{AddressesError, EntryError, IpRange};
use berth_api::{Announcement, IPAddressPool, L2Advertisement, RouteAdvertisement, SpeakerNode};
use k8s_openapi::api::core::v1::{Namespace, Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{JSONSchemaProps, JSONSchemaPropsOrArray};
use kube::core::ObjectMeta;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::files::Source;

/// Nodes of one text: a dump of a cluster with 10,000 Services has about three million. The bound of the parser is meant for
/// texts of strangers; these are the user's own, and it is for the slip of naming the wrong file.
const MOST_NODES: usize = 50_000_000;
/// The same for its events and documents.
const MOST_EVENTS: usize = 4 * MOST_NODES;
/// The same for its documents.
const MOST_DOCUMENTS: usize = 1_000_000;

/// The group of kinds that are named as Berth's are, and are not Berth's.
const METALLB: &str = " of metallb.io/";

/// An object that has a part in planning.
#[derive(Clone, Debug, PartialEq)]
pub enum Object {
    /// A Service.
    Service(Box<Service>),
    /// A Namespace.
    Namespace(Box<Namespace>),
    /// A ServiceCIDR.
    ServiceCidr(Box<ServiceCIDR>),
    /// A Node.
    Node(Box<Node>),
    /// An EndpointSlice.
    Slice(Box<EndpointSlice>),
    /// An Announcement.
    Announcement(Box<Announcement>),
    /// A pool.
    Pool(Box<IPAddressPool>),
    /// An advertisement.
    Advertisement(Box<L2Advertisement>),
    /// An advertisement by routes.
    RouteAdvertisement(Box<RouteAdvertisement>),
    /// What a node's speaker reported.
    SpeakerNode(Box<SpeakerNode>),
}

/// Where an object stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    source: String,
    /// From 1; none when there is but one.
    document: Option<usize>,
    /// From 1, in a List.
    item: Option<usize>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)?;
        self.document.iter().try_for_each(|number| write!(f, ", document {number}"))?;
        self.item.iter().try_for_each(|number| write!(f, ", item {number}"))
    }
}

/// Why a text is not objects.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// Neither YAML nor JSON.
    #[error("{source_name} is neither YAML nor JSON: {problem}")]
    Syntax {
        /// Which.
        source_name: String,
        /// What the parser says.
        problem: String,
    },
    /// A document that is no object.
    #[error("{place}: {problem}; a Kubernetes object has `apiVersion`, `kind` and `metadata.name`")]
    NoObject {
        /// Where.
        place: Box<Place>,
        /// What it lacks.
        problem: &'static str,
    },
    /// A version of our kinds that this program does not know.
    #[error(
        "{place}: {kind} of {version} is not known here, which are of berth.dev/v1alpha1; correct it, or take the plugin of that version"
    )]
    Version {
        /// Where.
        place: Box<Place>,
        /// The kind.
        kind: String,
        /// Its version.
        version: String,
    },
    /// A field with a value that it cannot have.
    #[error("{place}: {kind} {name}: {problem}; `kubectl explain {kind}` says what belongs there")]
    Malformed {
        /// Where.
        place: Box<Place>,
        /// The kind.
        kind: String,
        /// The object.
        name: String,
        /// What is wrong.
        problem: String,
    },
    /// A value that the API server does not let in.
    #[error("{place}: {kind} {name}: {problem}. The API server refuses it too")]
    Refused {
        /// Where.
        place: Box<Place>,
        /// The kind.
        kind: &'static str,
        /// The object.
        name: String,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// A field that the kind does not have.
    #[error("{place}: {kind} {name}: there is no field `{field}`; correct or remove it, the API server refuses it too")]
    UnknownField {
        /// Where.
        place: Box<Place>,
        /// The kind.
        kind: String,
        /// The object.
        name: String,
        /// The field.
        field: String,
    },
}

/// Reads all objects of a text that have a part in planning. What has none is passed over, and `notes` say so.
pub fn load(source: &Source, namespace: &str, notes: &mut Vec<String>) -> Result<Vec<Object>, LoadError> {
    let documents = documents(source)?;
    let (many, mut objects, mut passed) = (documents.len() > 1, Vec::new(), BTreeMap::<String, usize>::new());
    for (number, document) in (1..).zip(documents) {
        let place = Place { source: source.name.clone(), document: many.then_some(number), item: None };
        for (place, value) in items(place, document)? {
            match object(&place, value, namespace)? {
                Ok(object) => objects.push(object),
                Err(kind) => *passed.entry(kind).or_default() += 1,
            }
        }
    }
    if objects.is_empty() && passed.is_empty() {
        notes.push(format!("warning: {}: there is no object in it", source.name));
    }
    notes.extend(passed.into_iter().map(|(kind, count)| {
        if kind.contains(METALLB) {
            return format!(
                "warning: {}: {count} {kind} passed over, because it is MetalLB's, which Berth does not read: write it as one of berth.dev/v1alpha1",
                source.name
            );
        }
        format!("note: {}: {count} {kind} passed over, which no address depends on", source.name)
    }));
    Ok(objects)
}

fn documents(source: &Source) -> Result<Vec<Value>, LoadError> {
    let wrong = |problem: String| LoadError::Syntax { source_name: source.name.clone(), problem };
    // JSON is YAML, but objects of JSON may follow each other without a mark, and it is read faster as what it is.
    if source.text.trim_start().starts_with('{') {
        let json: Result<Vec<Value>, _> = serde_json::Deserializer::from_str(&source.text).into_iter().collect();
        if let Ok(json) = json {
            return Ok(json);
        }
    }
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_nodes: MOST_NODES,
            max_events: MOST_EVENTS,
            max_documents: MOST_DOCUMENTS,
            max_total_scalar_bytes: usize::MAX,
            max_total_comment_bytes: usize::MAX,
        },
    };
    let documents: Vec<Value> =
        serde_saphyr::from_multiple_with_options(&source.text, options).map_err(|error| wrong(error.to_string()))?;
    Ok(documents.into_iter().filter(|document| !document.is_null()).collect())
}

/// The objects of a List, or the one that is none.
fn items(place: Place, document: Value) -> Result<Vec<(Place, Value)>, LoadError> {
    let text = |field: &str| document.get(field).and_then(Value::as_str).map(str::to_owned);
    let (version, kind) = (text("apiVersion"), text("kind"));
    let Some(of) = kind.as_ref().and_then(|kind| kind.strip_suffix("List")) else { return Ok(vec![(place, document)]) };
    let Some(Value::Array(list)) = document.get("items").cloned() else {
        return Err(LoadError::NoObject { place: Box::new(place), problem: "a List without `items`" });
    };
    let mut all = Vec::new();
    for (number, mut item) in (1..).zip(list) {
        // The items of a list of one kind need not repeat it.
        if let Some(fields) = item.as_object_mut().filter(|_| !of.is_empty()) {
            fields.entry("kind").or_insert_with(|| of.into());
            fields.entry("apiVersion").or_insert_with(|| version.clone().into());
        }
        all.extend(items(Place { item: Some(number), ..place.clone() }, item)?);
    }
    Ok(all)
}

/// The object, or what kind it is that has no part.
fn object(place: &Place, value: Value, namespace: &str) -> Result<Result<Object, String>, LoadError> {
    let no_object = |problem| LoadError::NoObject { place: Box::new(place.clone()), problem };
    let text =
        |field: &str| value.get(field).and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned);
    let kind = text("kind").ok_or_else(|| no_object("this has no `kind`"))?;
    let version = text("apiVersion").ok_or_else(|| no_object("this has no `apiVersion`"))?;
    let name = value.pointer("/metadata/name").and_then(Value::as_str).filter(|name| !name.is_empty());
    let name = name.map(str::to_owned);
    let reader = Reader { place, kind: &kind, name, namespace, value };
    // The one place that knows which kinds have a part; what `Objects` makes of each is beside it.
    Ok(Ok(match (version.as_str(), kind.as_str()) {
        ("v1", "Service") => Object::Service(reader.read(|service: &mut Service| &mut service.metadata, true)?),
        ("v1", "Namespace") => {
            Object::Namespace(reader.read(|namespace: &mut Namespace| &mut namespace.metadata, false)?)
        }
        ("networking.k8s.io/v1", "ServiceCIDR") => {
            Object::ServiceCidr(reader.read(|cidr: &mut ServiceCIDR| &mut cidr.metadata, false)?)
        }
        ("v1", "Node") => Object::Node(reader.read(|node: &mut Node| &mut node.metadata, false)?),
        ("discovery.k8s.io/v1", "EndpointSlice") => {
            Object::Slice(reader.read(|slice: &mut EndpointSlice| &mut slice.metadata, true)?)
        }
        ("berth.dev/v1alpha1", "Announcement") => {
            Object::Announcement(reader.ours(|announcement: &mut Announcement| &mut announcement.metadata)?)
        }
        ("berth.dev/v1alpha1", "IPAddressPool") => {
            let pool = reader.ours(|pool: &mut IPAddressPool| &mut pool.metadata)?;
            if let Some(problem) = refusal(&pool) {
                let (place, name) = (Box::new(place.clone()), pool.metadata.name.clone().unwrap_or_default());
                return Err(LoadError::Refused { place, kind: "IPAddressPool", name, problem: problem.to_string() });
            }
            Object::Pool(pool)
        }
        ("berth.dev/v1alpha1", "L2Advertisement") => {
            Object::Advertisement(reader.ours(|ad: &mut L2Advertisement| &mut ad.metadata)?)
        }
        ("berth.dev/v1alpha1", "RouteAdvertisement") => {
            Object::RouteAdvertisement(reader.ours(|ad: &mut RouteAdvertisement| &mut ad.metadata)?)
        }
        ("berth.dev/v1alpha1", "SpeakerNode") => {
            Object::SpeakerNode(reader.ours(|node: &mut SpeakerNode| &mut node.metadata)?)
        }
        (ours, _) if ours.split('/').next() == Some(berth_api::names::GROUP) => {
            return Err(LoadError::Version { place: Box::new(place.clone()), kind, version });
        }
        _ => return Ok(Err(format!("{kind} of {version}"))),
    }))
}

/// Why the API server does not let a pool in: what the rules of its kind say of addresses.
fn refusal(pool: &IPAddressPool) -> Option<AddressesError> {
    if pool.spec.addresses.is_empty() {
        return Some(AddressesError::Empty);
    }
    pool.spec.addresses.iter().enumerate().find_map(|(index, entry)| match entry.parse::<IpRange>() {
        Err(
            source @ (EntryError::Invalid { .. } | EntryError::HostBitsSet { .. } | EntryError::MixedFamilies { .. }),
        ) => Some(AddressesError::Entry { index, source }),
        // The rest is let in, and the pool's condition says what is wrong.
        Err(EntryError::Reversed { .. } | EntryError::Special { .. }) | Ok(_) => None,
    })
}

struct Reader<'a> {
    place: &'a Place,
    kind: &'a str,
    name: Option<String>,
    namespace: &'a str,
    value: Value,
}

impl Reader<'_> {
    fn read<K: DeserializeOwned>(
        self,
        meta: impl Fn(&mut K) -> &mut ObjectMeta,
        namespaced: bool,
    ) -> Result<Box<K>, LoadError> {
        let name = self.name.clone().ok_or_else(|| LoadError::NoObject {
            place: Box::new(self.place.clone()),
            problem: "this has no `metadata.name`",
        })?;
        let mut object: K = serde_json::from_value(self.value).map_err(|error| LoadError::Malformed {
            place: Box::new(self.place.clone()),
            kind: self.kind.to_owned(),
            name,
            problem: error.to_string(),
        })?;
        if namespaced {
            meta(&mut object).namespace.get_or_insert_with(|| self.namespace.to_owned());
        }
        Ok(Box::new(object))
    }

    /// One of Berth's own kinds, whose fields are all known here.
    fn ours<K: DeserializeOwned>(mut self, meta: impl Fn(&mut K) -> &mut ObjectMeta) -> Result<Box<K>, LoadError> {
        let crd = berth_api::crd::all().into_iter().find(|crd| crd.spec.names.kind == self.kind);
        let schema =
            crd.as_ref().and_then(|crd| crd.spec.versions.first()?.schema.as_ref()?.open_api_v3_schema.as_ref());
        let properties = schema.and_then(|schema| schema.properties.as_ref());
        if let (Some(schema), Some(spec)) = (properties.and_then(|p| p.get("spec")), self.value.get("spec"))
            && let Some(field) = unknown(spec, schema, "spec")
        {
            let (place, kind) = (Box::new(self.place.clone()), self.kind.to_owned());
            return Err(LoadError::UnknownField { place, kind, name: self.name.unwrap_or_default(), field });
        }
        // Where the kind lets its specification be left out, as the API server fills it in.
        let default = properties.and_then(|p| p.get("spec")?.default.clone());
        if let (Some(default), Some(fields)) = (default, self.value.as_object_mut()) {
            fields.entry("spec").or_insert(default.0);
        }
        self.read(meta, false)
    }
}

/// The first field that a schema does not have.
fn unknown(value: &Value, schema: &JSONSchemaProps, path: &str) -> Option<String> {
    match value {
        Value::Object(fields) => {
            // A map has names of the user's own.
            let properties = schema.properties.as_ref().filter(|_| schema.additional_properties.is_none())?;
            fields.iter().find_map(|(name, value)| match properties.get(name) {
                Some(schema) => unknown(value, schema, &format!("{path}.{name}")),
                None => Some(format!("{path}.{name}")),
            })
        }
        Value::Array(items) => {
            let Some(JSONSchemaPropsOrArray::Schema(schema)) = &schema.items else { return None };
            (0..).zip(items).find_map(|(index, item): (usize, _)| unknown(item, schema, &format!("{path}[{index}]")))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
