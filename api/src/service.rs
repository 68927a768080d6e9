//! What a Service asks for, parsed and validated.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use k8s_openapi::api::core::v1::Service;

use crate::Reason;
use crate::annotations as ann;

/// Namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
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

/// What a Service of ours asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The address it insists on.
    pub address: Option<Ipv4Addr>,
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
    /// IPv6.
    #[error("{what} asks for IPv6, which this version does not serve")]
    Family {
        /// The field that asks for it.
        what: String,
    },
    /// An annotation under our own name that means nothing: most likely a slip of the pen.
    #[error("annotation {annotation} is none of Berth's, which are {}; correct or remove it", ann::KNOWN.join(", "))]
    UnknownAnnotation {
        /// The annotation.
        annotation: String,
    },
    /// More than one address.
    #[error("{field}: {count} addresses are asked for, and a Service gets one; name one")]
    TooMany {
        /// The annotation.
        field: String,
        /// How many stand there.
        count: usize,
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
            Self::Family { .. } => Reason::FamilyUnsupported,
            _ => Reason::InvalidRequest,
        }
    }
}

impl Request {
    /// Reads what a Service asks for.
    pub fn parse(service: &Service) -> Result<Self, RequestError> {
        let none = BTreeMap::new();
        let annotations = service.metadata.annotations.as_ref().unwrap_or(&none);
        let spec = service.spec.as_ref();

        let ours = |key: &&String| key.starts_with(ann::PREFIX) && !ann::KNOWN.contains(&key.as_str());
        if let Some(unknown) = annotations.keys().find(ours) {
            return Err(RequestError::UnknownAnnotation { annotation: unknown.clone() });
        }
        let families = spec.and_then(|s| s.ip_families.as_deref()).unwrap_or_default();
        if let Some(first) = families.first()
            && first != "IPv4"
        {
            return Err(RequestError::Family { what: "spec.ipFamilies".to_owned() });
        }
        if spec.and_then(|s| s.ip_family_policy.as_deref()) == Some("RequireDualStack") {
            return Err(RequestError::Family { what: "spec.ipFamilyPolicy: RequireDualStack".to_owned() });
        }

        let field = spec.and_then(|s| s.load_balancer_ip.as_deref()).filter(|ip| !ip.is_empty());
        let wishes = [
            ("spec.loadBalancerIP".to_owned(), field),
            annotation(annotations, ann::LOAD_BALANCER_IPS),
            annotation(annotations, ann::LOAD_BALANCER_IPS_TWIN),
        ];
        let address = agreed(wishes, one_address)?;
        let pools = [annotation(annotations, ann::ADDRESS_POOL), annotation(annotations, ann::ADDRESS_POOL_TWIN)];
        let pool = agreed(pools, |_, value| Ok(value.trim().to_owned()))?;

        Ok(Self { address, pool })
    }
}

/// Whether the Service wishes to share its address with others.
pub fn wants_sharing(service: &Service) -> bool {
    let has = |key| service.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(key));
    has(ann::ALLOW_SHARED_IP) || has(ann::ALLOW_SHARED_IP_TWIN)
}

fn annotation<'a>(annotations: &'a BTreeMap<String, String>, key: &str) -> (String, Option<&'a str>) {
    (format!("annotation {key}"), annotations.get(key).map(String::as_str))
}

/// The one value that all the fields which are set agree on.
fn agreed<'a, T: PartialEq>(
    wishes: impl IntoIterator<Item = (String, Option<&'a str>)>,
    read: impl Fn(&str, &str) -> Result<T, RequestError>,
) -> Result<Option<T>, RequestError> {
    let mut found: Option<(T, String, &str)> = None;
    for (field, value) in wishes {
        let Some(value) = value else { continue };
        let parsed = read(&field, value)?;
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

fn one_address(field: &str, value: &str) -> Result<Ipv4Addr, RequestError> {
    let mut addresses = Vec::new();
    for part in value.split(',') {
        match part.trim().parse::<IpAddr>() {
            Ok(IpAddr::V4(v4)) => addresses.push(v4),
            Ok(IpAddr::V6(_)) => return Err(RequestError::Family { what: field.to_owned() }),
            Err(_) => {
                return Err(RequestError::NotAnAddress { field: field.to_owned(), value: part.trim().to_owned() });
            }
        }
    }
    match addresses[..] {
        [one] => Ok(one),
        _ => Err(RequestError::TooMany { field: field.to_owned(), count: addresses.len() }),
    }
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

    #[test]
    fn a_plain_service_asks_for_any_address() {
        let plain = request(json!({"type": "LoadBalancer"}), json!({})).unwrap();
        assert_eq!(plain, Request { address: None, pool: None });
    }

    #[test]
    fn an_address_may_be_asked_for_in_three_places_that_agree() {
        let expected = Some(Ipv4Addr::new(192, 0, 2, 9));
        for (spec, annotations) in [
            (json!({"loadBalancerIP": "192.0.2.9"}), json!({})),
            (json!({}), json!({"berth.dev/load-balancer-ips": " 192.0.2.9 "})),
            (json!({}), json!({"metallb.io/loadBalancerIPs": "192.0.2.9"})),
            (
                json!({"loadBalancerIP": "192.0.2.9"}),
                json!({"berth.dev/load-balancer-ips": "192.0.2.9", "metallb.io/loadBalancerIPs": "192.0.2.9"}),
            ),
        ] {
            assert_eq!(request(spec.clone(), annotations).unwrap().address, expected, "{spec}");
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
                "2 addresses are asked for",
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
            (json!({"ipFamilies": ["IPv6"]}), json!({}), Reason::FamilyUnsupported, "spec.ipFamilies asks for IPv6"),
            (json!({"loadBalancerIP": "2001:db8::1"}), json!({}), Reason::FamilyUnsupported, "spec.loadBalancerIP"),
            (json!({"ipFamilyPolicy": "RequireDualStack"}), json!({}), Reason::FamilyUnsupported, "RequireDualStack"),
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
