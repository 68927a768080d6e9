//! What a Service asks for, parsed and validated.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};

use crate::annotations as ann;
use crate::names::FINALIZER;
use crate::sharing::KEY_MAX;
use crate::{IpFamily, PerFamily, Reason};

/// Namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ServiceKey {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl std::fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Where the traffic of a Service may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrafficPolicy {
    /// Any node forwards to any endpoint; the client's source address is not kept.
    Cluster,
    /// A node forwards to its own endpoints only; the client's source address is kept.
    Local,
}

impl TrafficPolicy {
    /// `spec.externalTrafficPolicy`, which the API server has validated.
    pub fn of(service: &Service) -> Self {
        match service.spec.as_ref().and_then(|s| s.external_traffic_policy.as_deref()) {
            Some("Local") => Self::Local,
            _ => Self::Cluster,
        }
    }
}

/// The lowest of a Service's TCP ports, if a node may connect to it: with `spec.loadBalancerSourceRanges` kube-proxy refuses who is not of
/// these, and a node may not be.
pub fn tcp_port(service: &Service) -> Option<u16> {
    let ranges = service.spec.as_ref().and_then(|s| s.load_balancer_source_ranges.as_ref());
    if ranges.is_some_and(|ranges| !ranges.is_empty()) {
        return None;
    }
    let ports = service.spec.as_ref().and_then(|s| s.ports.as_ref()).into_iter().flatten();
    // A port without a protocol is one of TCP.
    let tcp = ports.filter(|port| port.protocol.as_deref().is_none_or(|protocol| protocol == "TCP"));
    tcp.filter_map(|port| u16::try_from(port.port).ok()).filter(|port| *port != 0).min()
}

/// The node port at which each node says whether it has endpoints: of Services with the Local policy alone.
pub fn health_check_node_port(service: &Service) -> Option<u16> {
    let port = service.spec.as_ref().and_then(|s| s.health_check_node_port);
    let is_local = TrafficPolicy::of(service) == TrafficPolicy::Local;
    port.filter(|_| is_local).and_then(|port| u16::try_from(port).ok()).filter(|port| *port != 0)
}

/// How much a Service needs its second address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Second {
    /// PreferDualStack: an address of one family is enough.
    Preferred,
    /// RequireDualStack: an address of each family, or none.
    Required,
}

/// The address families of a Service, in its own order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Families {
    /// The first, or only one.
    pub first: IpFamily,
    /// Whether it has the other one too.
    pub second: Option<Second>,
}

impl Families {
    /// Reads `spec.ipFamilies` and `spec.ipFamilyPolicy`, which the API server fills in from what the cluster has: a Service
    /// that prefers dual stack names one family in a cluster of one. Objects from before those fields have `spec.clusterIP`.
    pub fn of(service: &Service) -> Self {
        let spec = service.spec.as_ref();
        let listed = spec.and_then(|s| s.ip_families.as_ref()).into_iter().flatten();
        let mut families: Vec<IpFamily> = listed.filter_map(|family| family.parse().ok()).collect();
        if families.is_empty() {
            let addresses = spec.and_then(|s| s.cluster_ips.as_ref()).into_iter().flatten();
            let addresses = addresses.chain(spec.and_then(|s| s.cluster_ip.as_ref()));
            families = addresses.filter_map(|ip| ip.parse().ok()).map(IpFamily::of).take(1).collect();
        }
        let first = families.first().copied().unwrap_or(IpFamily::V4);
        let second = match spec.and_then(|s| s.ip_family_policy.as_deref()) {
            Some("RequireDualStack") => Some(Second::Required),
            Some("PreferDualStack") if families.len() > 1 => Some(Second::Preferred),
            _ => None,
        };
        Self { first, second }
    }

    /// The families, the first one first.
    pub fn iter(self) -> impl Iterator<Item = IpFamily> {
        std::iter::once(self.first).chain(self.second.map(|_| self.first.other()))
    }

    /// Whether `family` is one of them.
    pub fn has(self, family: IpFamily) -> bool {
        self.first == family || self.second.is_some()
    }
}

/// What a Service of ours asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The families that it has.
    pub families: Families,
    /// The addresses it insists on, of families that it has.
    pub addresses: PerFamily<Option<IpAddr>>,
    /// The pool it insists on.
    pub pool: Option<String>,
}

/// Why a request cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Text where an IP address belongs.
    #[error("{field}: `{value}` is not an IP address; write one such as 192.0.2.10, or remove it")]
    NotAnAddress {
        /// The field or annotation.
        field: String,
        /// What stands there.
        value: String,
    },
    /// An address of a family that the Service does not have.
    #[error(
        "{field} asks for {address}, but the Service has {} alone (`spec.ipFamilies`); remove it, or make the Service dual-stack",
        IpFamily::of(*address).other()
    )]
    FamilyMismatch {
        /// The field or annotation.
        field: String,
        /// The address.
        address: IpAddr,
    },
    /// An annotation under our own name that means nothing: most likely a slip of the pen.
    #[error("annotation {annotation} is none of Berth's, which are {}; correct or remove it", known.join(", "))]
    UnknownAnnotation {
        /// The annotation.
        annotation: String,
        /// Those that there are for who serves it.
        known: Vec<&'static str>,
    },
    /// More than one address of a family.
    #[error("{field}: {count} {family} addresses are asked for, and a Service gets one of each family; name one")]
    TooMany {
        /// The field or annotation.
        field: String,
        /// The family.
        family: IpFamily,
        /// How many of it stand there.
        count: usize,
    },
    /// A key to share by that is too long.
    #[error("{field} is {length} bytes long; use a key of at most {KEY_MAX}")]
    KeyTooLong {
        /// The annotation.
        field: String,
        /// Its length in bytes.
        length: usize,
    },
    /// Two fields that disagree.
    #[error("{first} asks for `{first_value}` and {second} for `{second_value}`; remove one of them")]
    Contradiction {
        /// The one field.
        first: String,
        /// What it asks for.
        first_value: String,
        /// The other field.
        second: String,
        /// What it asks for.
        second_value: String,
    },
}

impl RequestError {
    /// The reason code.
    pub fn reason(&self) -> Reason {
        match self {
            Self::FamilyMismatch { .. } => Reason::FamilyMismatch,
            _ => Reason::InvalidRequest,
        }
    }
}

impl Request {
    /// Reads what a Service asks for.
    pub fn parse(service: &Service) -> Result<Self, RequestError> {
        Self::parse_knowing(service, &[])
    }

    /// The same for a provider to which further annotations under our own name mean something.
    ///
    /// # Errors
    /// As [`Request::parse`].
    pub fn parse_knowing(service: &Service, further: &[&'static str]) -> Result<Self, RequestError> {
        let none = BTreeMap::new();
        let annotations = service.metadata.annotations.as_ref().unwrap_or(&none);
        let spec = service.spec.as_ref();

        let known = |key: &str| ann::KNOWN.contains(&key) || further.contains(&key);
        let ours = |key: &&String| key.starts_with(ann::PREFIX) && !known(key);
        if let Some(unknown) = annotations.keys().find(ours) {
            let known = ann::KNOWN.iter().chain(further).copied().collect();
            return Err(RequestError::UnknownAnnotation { annotation: unknown.clone(), known });
        }
        let field = spec.and_then(|s| s.load_balancer_ip.as_deref()).filter(|ip| !ip.is_empty());
        let wishes = [
            ("spec.loadBalancerIP".to_owned(), field),
            annotation(annotations, ann::LOAD_BALANCER_IPS),
            annotation(annotations, ann::LOAD_BALANCER_IPS_TWIN),
        ];
        let families = Families::of(service);
        let mut addresses = PerFamily::default();
        // Fields agree by family: one may name the address of the one family and another both.
        for family in IpFamily::ALL {
            let read = |field: &str, value: &str| one_address(field, value, family, families);
            *addresses.get_mut(family) = agreed(wishes.clone(), read)?;
        }
        let pools = [annotation(annotations, ann::ADDRESS_POOL), annotation(annotations, ann::ADDRESS_POOL_TWIN)];
        let pool = agreed(pools, |_, value| Ok(Some(value.trim().to_owned())))?;

        // What it shares by is read from it elsewhere, because it counts also where something else cannot be read.
        let keys = [annotation(annotations, ann::ALLOW_SHARED_IP), annotation(annotations, ann::ALLOW_SHARED_IP_TWIN)];
        agreed(keys, |field, key| {
            let too_long = || RequestError::KeyTooLong { field: field.to_owned(), length: key.len() };
            if key.len() > KEY_MAX { Err(too_long()) } else { Ok(Some(key.to_owned())) }
        })?;

        Ok(Self { families, addresses, pool })
    }
}

fn annotation<'a>(annotations: &'a BTreeMap<String, String>, key: &str) -> (String, Option<&'a str>) {
    // An empty one is none, as MetalLB has it: templates write it where there is nothing to say.
    let value = annotations.get(key).map(String::as_str).filter(|value| !value.is_empty());
    (format!("annotation {key}"), value)
}

/// The one value that all the fields which have one agree on.
fn agreed<'a, T: PartialEq>(
    wishes: impl IntoIterator<Item = (String, Option<&'a str>)>,
    read: impl Fn(&str, &str) -> Result<Option<T>, RequestError>,
) -> Result<Option<T>, RequestError> {
    let mut found: Option<(T, String, &str)> = None;
    for (field, value) in wishes {
        let Some(value) = value else { continue };
        let Some(parsed) = read(&field, value)? else { continue };
        match &found {
            Some((first, first_field, first_value)) if *first != parsed => {
                return Err(RequestError::Contradiction {
                    first: first_field.clone(),
                    first_value: (*first_value).to_owned(),
                    second: field,
                    second_value: value.to_owned(),
                });
            }
            Some(_) => {}
            None => found = Some((parsed, field, value)),
        }
    }
    Ok(found.map(|(value, ..)| value))
}

/// The address of `family` in a list, if there is one.
fn one_address(field: &str, value: &str, family: IpFamily, families: Families) -> Result<Option<IpAddr>, RequestError> {
    let mut addresses = Vec::new();
    for part in value.split(',') {
        let not_an_address = |_| RequestError::NotAnAddress { field: field.to_owned(), value: part.trim().to_owned() };
        let address: IpAddr = part.trim().parse().map_err(not_an_address)?;
        if !families.has(IpFamily::of(address)) {
            return Err(RequestError::FamilyMismatch { field: field.to_owned(), address });
        }
        if IpFamily::of(address) == family {
            addresses.push(address);
        }
    }
    match addresses[..] {
        [] => Ok(None),
        [one] => Ok(Some(one)),
        _ => Err(RequestError::TooMany { field: field.to_owned(), family, count: addresses.len() }),
    }
}

/// Whether a Service has our finalizer: something of it is outside the cluster, or is about to be.
pub fn has_finalizer(meta: &ObjectMeta) -> bool {
    meta.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn request(spec: Value, annotations: Value) -> Result<Request, RequestError> {
        let service: Service = serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "shop", "annotations": annotations},
            "spec": spec,
        }))
        .unwrap();
        Request::parse(&service)
    }

    fn asked(request: &Request) -> String {
        let told = |family| request.addresses.get(family).map_or("any".to_owned(), |a| a.to_string());
        request.families.iter().map(told).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_plain_service_asks_for_any_address() {
        let plain = request(json!({"type": "LoadBalancer"}), json!({})).unwrap();
        let families = Families { first: IpFamily::V4, second: None };
        assert_eq!(plain, Request { families, addresses: PerFamily::default(), pool: None });
    }

    #[test]
    fn a_service_has_the_families_that_the_cluster_gave_it() {
        for (spec, expected) in [
            (json!({"ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack"}), "IPv4"),
            (json!({"ipFamilies": ["IPv6"], "ipFamilyPolicy": "SingleStack"}), "IPv6"),
            (json!({"ipFamilies": ["IPv6"]}), "IPv6"),
            (json!({"ipFamilies": ["IPv4"], "ipFamilyPolicy": "PreferDualStack"}), "IPv4"),
            (json!({"ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "PreferDualStack"}), "IPv4 IPv6"),
            (json!({"ipFamilies": ["IPv6", "IPv4"], "ipFamilyPolicy": "RequireDualStack"}), "IPv6 IPv4 required"),
            (json!({"clusterIP": "2001:db8::1"}), "IPv6"),
            (json!({"clusterIP": "None"}), "IPv4"),
            (json!({}), "IPv4"),
        ] {
            let families = request(spec.clone(), json!({})).unwrap().families;
            let mut told: Vec<_> = families.iter().map(IpFamily::as_str).collect();
            told.extend((families.second == Some(Second::Required)).then_some("required"));
            assert_eq!(told.join(" "), expected, "{spec}");
        }
    }

    #[test]
    fn an_address_may_be_asked_for_in_three_places_that_agree() {
        for (spec, annotations) in [
            (json!({"loadBalancerIP": "192.0.2.9"}), json!({})),
            (json!({}), json!({"berth.dev/load-balancer-ips": " 192.0.2.9 "})),
            (json!({}), json!({"metallb.io/loadBalancerIPs": "192.0.2.9"})),
            (
                json!({"loadBalancerIP": "192.0.2.9"}),
                json!({"berth.dev/load-balancer-ips": "192.0.2.9", "metallb.io/loadBalancerIPs": "192.0.2.9"}),
            ),
        ] {
            assert_eq!(asked(&request(spec.clone(), annotations).unwrap()), "192.0.2.9", "{spec}");
        }
    }

    #[test]
    fn an_annotation_without_a_value_is_none() {
        let empty = json!({"berth.dev/load-balancer-ips": "", "metallb.io/loadBalancerIPs": "", "berth.dev/address-pool": "",
                           "metallb.io/address-pool": "", "berth.dev/allow-shared-ip": "", "metallb.io/allow-shared-ip": ""});
        assert_eq!(request(json!({}), empty), request(json!({}), json!({})));
        let one = json!({"berth.dev/load-balancer-ips": "", "metallb.io/loadBalancerIPs": "192.0.2.9"});
        assert_eq!(asked(&request(json!({}), one).unwrap()), "192.0.2.9");
    }

    #[test]
    fn a_dual_stack_service_may_ask_for_one_address_of_each_family_in_any_order() {
        for (field, annotation, twin, expected) in [
            (None, Some("192.0.2.9,2001:db8::9"), None, "192.0.2.9 2001:db8::9"),
            (None, Some("2001:db8::9 , 192.0.2.9"), None, "192.0.2.9 2001:db8::9"),
            (None, None, Some("2001:db8:0::9"), "any 2001:db8::9"),
            (Some("192.0.2.9"), None, None, "192.0.2.9 any"),
            (Some("192.0.2.9"), Some("2001:db8::9"), Some("192.0.2.9,2001:db8::9"), "192.0.2.9 2001:db8::9"),
        ] {
            let families =
                json!({"ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "PreferDualStack", "loadBalancerIP": field});
            let mut annotations = json!({});
            for (key, value) in [("berth.dev/load-balancer-ips", annotation), ("metallb.io/loadBalancerIPs", twin)] {
                if let Some(value) = value {
                    annotations[key] = json!(value);
                }
            }
            assert_eq!(asked(&request(families, annotations).unwrap()), expected, "{field:?} {annotation:?} {twin:?}");
        }
    }

    #[test]
    fn a_wrong_request_names_the_field_and_what_stands_there() {
        for (spec, annotations, reason, says) in [
            (json!({"loadBalancerIP": "web"}), json!({}), Reason::InvalidRequest, "spec.loadBalancerIP: `web` is not"),
            (
                json!({}),
                json!({"berth.dev/load-balancer-ips": "192.0.2.1,web"}),
                Reason::InvalidRequest,
                "annotation berth.dev/load-balancer-ips: `web` is not",
            ),
            (
                json!({}),
                json!({"berth.dev/load-balancer-ips": "192.0.2.1,192.0.2.2"}),
                Reason::InvalidRequest,
                "2 IPv4 addresses are asked for",
            ),
            (
                json!({"ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "RequireDualStack"}),
                json!({"berth.dev/load-balancer-ips": "192.0.2.1,2001:db8::1,2001:db8::2"}),
                Reason::InvalidRequest,
                "2 IPv6 addresses are asked for",
            ),
            (
                json!({"ipFamilies": ["IPv6", "IPv4"], "ipFamilyPolicy": "PreferDualStack", "loadBalancerIP": "2001:db8::1"}),
                json!({"metallb.io/loadBalancerIPs": "192.0.2.1,2001:db8::2"}),
                Reason::InvalidRequest,
                "spec.loadBalancerIP asks for `2001:db8::1` and annotation metallb.io/loadBalancerIPs for",
            ),
            (
                json!({"loadBalancerIP": "192.0.2.1"}),
                json!({"metallb.io/loadBalancerIPs": "192.0.2.2"}),
                Reason::InvalidRequest,
                "spec.loadBalancerIP asks for `192.0.2.1` and annotation metallb.io/loadBalancerIPs for `192.0.2.2`",
            ),
            (
                json!({}),
                json!({"berth.dev/loadbalancer-ips": "192.0.2.1"}),
                Reason::InvalidRequest,
                "annotation berth.dev/loadbalancer-ips is none of Berth's, which are berth.dev/load-balancer-ips, ",
            ),
            (
                json!({"loadBalancerIP": "2001:db8::1"}),
                json!({}),
                Reason::FamilyMismatch,
                "spec.loadBalancerIP asks for 2001:db8::1, but the Service has IPv4 alone",
            ),
            (
                json!({"ipFamilies": ["IPv6"]}),
                json!({"berth.dev/load-balancer-ips": "2001:db8::1,192.0.2.1"}),
                Reason::FamilyMismatch,
                "annotation berth.dev/load-balancer-ips asks for 192.0.2.1, but the Service has IPv6 alone",
            ),
        ] {
            let error = request(spec.clone(), annotations).unwrap_err();
            assert_eq!(error.reason(), reason, "{spec}");
            assert!(error.to_string().contains(says), "{error}");
        }
    }

    #[test]
    fn a_pool_may_be_asked_for_in_two_places_that_agree() {
        let asked = request(json!({}), json!({"metallb.io/address-pool": "gold"})).unwrap();
        assert_eq!(asked.pool.as_deref(), Some("gold"));
        let both = json!({"metallb.io/address-pool": "gold", "berth.dev/address-pool": "silver"});
        assert_eq!(request(json!({}), both).unwrap_err().reason(), Reason::InvalidRequest);
    }
}
