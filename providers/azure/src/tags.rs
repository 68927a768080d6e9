//! By which tags a resource is known as ours.

use berth_api::service::ServiceKey;
use berth_provider::ServiceId;
use serde_json::{Map, Value};

use crate::document::text;
use crate::intent::Dns;
use crate::settings::Settings;

/// The cluster, as cloud-provider-azure says it.
pub const CLUSTER: &str = "k8s-azure-cluster-name";
/// The Services that use a public IP, as cloud-provider-azure says it.
pub const SERVICES: &str = "k8s-azure-service";
/// The Service that the domain name is of, as cloud-provider-azure says it.
pub const DNS_SERVICE: &str = "k8s-azure-dns-label-service";
/// The UID of kube-system: what has it was made by us.
pub const CLUSTER_UID: &str = "berth-cluster-uid";
/// The Service that a public IP was made for, as its first user.
pub const SERVICE: &str = "berth-service";
/// Its UID.
pub const SERVICE_UID: &str = "berth-service-uid";

/// The domain name label that a public IP is to have: it is so already where another one still has to give it up.
pub const DNS_LABEL: &str = "berth-dns-label";

/// Longest value (Azure rule).
const VALUE_MAX: usize = 256;

fn tag<'a>(document: &'a Value, name: &str) -> Option<&'a str> {
    text(document, &["tags", name])
}

/// Whether it was made by us.
pub fn is_ours(settings: &Settings, document: &Value) -> bool {
    tag(document, CLUSTER_UID) == Some(&settings.cluster_uid) && tag(document, CLUSTER) == Some(&settings.cluster)
}

/// The Service that it was made for.
pub fn service(document: &Value) -> Option<ServiceId> {
    let (namespace, name) = tag(document, SERVICE)?.split_once('/')?;
    let key = ServiceKey { namespace: namespace.to_owned(), name: name.to_owned() };
    Some(ServiceId { key, uid: tag(document, SERVICE_UID)?.to_owned() })
}

/// What everything of ours has.
pub fn of_cluster(settings: &Settings) -> Map<String, Value> {
    let mut tags: Map<String, Value> = settings.tags.iter().map(|(k, v)| (k.clone(), v.clone().into())).collect();
    tags.insert(CLUSTER.to_owned(), settings.cluster.clone().into());
    tags.insert(CLUSTER_UID.to_owned(), settings.cluster_uid.clone().into());
    tags
}

/// Those of a public IP: the first of its users decides what else is asked for.
pub fn of_public_ip<'a>(
    settings: &Settings,
    owner: &ServiceId,
    asks: Option<&crate::intent::Front>,
    users: impl Iterator<Item = &'a ServiceId>,
) -> Map<String, Value> {
    let mut tags = Map::new();
    tags.extend(asks.iter().flat_map(|front| &front.tags).map(|(k, v)| (k.clone(), Value::from(v.clone()))));
    tags.extend(of_cluster(settings));
    let mut names: Vec<String> = users.map(|id| id.key.to_string()).collect();
    names.sort();
    names.dedup();
    let mut listed = String::new();
    for name in names {
        let comma = if listed.is_empty() { "" } else { "," };
        if listed.len() + comma.len() + name.len() <= VALUE_MAX {
            listed.push_str(comma);
            listed.push_str(&name);
        }
    }
    tags.insert(SERVICES.to_owned(), listed.into());
    tags.insert(SERVICE.to_owned(), owner.key.to_string().into());
    tags.insert(SERVICE_UID.to_owned(), owner.uid.clone().into());
    match asks.map(|front| &front.dns) {
        Some(Dns::Label(label)) => {
            tags.insert(DNS_SERVICE.to_owned(), owner.key.to_string().into());
            tags.insert(DNS_LABEL.to_owned(), label.clone().into());
        }
        Some(Dns::None) => {
            tags.insert(DNS_SERVICE.to_owned(), Value::Null);
            tags.insert(DNS_LABEL.to_owned(), Value::Null);
        }
        _ => {}
    }
    tags
}
