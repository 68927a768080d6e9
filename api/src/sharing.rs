//! Which Services may hold one address together.
//!
//! The rules are MetalLB's, so that manifests that exist keep their meaning: the same key, no port twice, and for the Local policy
//! the same pods. Added to them is who the key is shared with: the Services of one namespace, or of all.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use k8s_openapi::api::core::v1::Service;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::annotations as ann;
use crate::service::{ServiceKey, TrafficPolicy};

/// Longest sharing key, in bytes: as long as the names of Kubernetes objects may be.
pub const KEY_MAX: usize = 253;

/// With whom an address may be shared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum SharingScope {
    /// With Services of all namespaces that use the same key.
    #[default]
    Cluster,
    /// With Services of the same namespace alone.
    Namespace,
}

/// A port that a Service takes up on its address, written as `TCP/80`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SharedPort {
    /// TCP, UDP or SCTP.
    pub protocol: String,
    /// 1 to 65535.
    pub number: u16,
}

/// Text that names no port.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a protocol and a port such as TCP/80")]
pub struct NotAPort(String);

impl fmt::Display for SharedPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.protocol, self.number)
    }
}

impl FromStr for SharedPort {
    type Err = NotAPort;

    fn from_str(text: &str) -> Result<Self, NotAPort> {
        let wrong = || NotAPort(text.to_owned());
        let (protocol, number) = text.split_once('/').ok_or_else(wrong)?;
        Ok(Self { protocol: protocol.to_owned(), number: number.parse().map_err(|_| wrong())? })
    }
}

impl TryFrom<String> for SharedPort {
    type Error = NotAPort;

    fn try_from(text: String) -> Result<Self, NotAPort> {
        text.parse()
    }
}

impl From<SharedPort> for String {
    fn from(port: SharedPort) -> Self {
        port.to_string()
    }
}

/// On which terms a Service shares an address.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SharingTerms {
    /// The key that all must have.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
    /// With whom.
    pub scope: SharingScope,
    /// The ports that it takes up, such as `TCP/80`.
    #[schemars(with = "Vec<String>", length(max = 1024))]
    pub ports: BTreeSet<SharedPort>,
    /// For `externalTrafficPolicy: Local` the selector of its pods: whoever shares the address must be served by the same ones, because
    /// one node answers for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_selector: Option<BTreeMap<String, String>>,
}

impl SharingTerms {
    /// The terms of a Service, if it wishes to share. `berth.dev/allow-shared-ip` counts before its twin.
    pub fn of(service: &Service) -> Option<Self> {
        let value =
            |name| service.metadata.annotations.as_ref()?.get(name).map(String::as_str).filter(|key| !key.is_empty());
        let (key, scope) = match (value(ann::ALLOW_SHARED_IP), value(ann::ALLOW_SHARED_IP_TWIN)) {
            (Some(key), _) => (key, SharingScope::Namespace),
            (None, Some(key)) => (key, SharingScope::Cluster),
            (None, None) => return None,
        };
        if key.len() > KEY_MAX {
            return None;
        }
        let spec = service.spec.as_ref();
        let ports = spec.and_then(|s| s.ports.as_ref()).into_iter().flatten().filter_map(|port| {
            let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
            Some(SharedPort { protocol, number: u16::try_from(port.port).ok()? })
        });
        let selector = || spec.and_then(|s| s.selector.clone()).unwrap_or_default();
        Some(Self {
            key: key.to_owned(),
            scope,
            ports: ports.collect(),
            local_selector: (TrafficPolicy::of(service) == TrafficPolicy::Local).then(selector),
        })
    }
}

/// Why two Services may not hold one address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Clash {
    /// One of the two does not wish to share.
    #[error("one of the two does not ask to share it")]
    NotWished,
    /// Their keys differ.
    #[error("the keys by which they share differ")]
    Key,
    /// They are in two namespaces, and one of the two, or the pool, shares within a namespace alone.
    #[error("the two are in different namespaces")]
    Namespace,
    /// Both take up a port.
    #[error("both have port {0}")]
    Port(SharedPort),
    /// One of them sends traffic to the node's own pods alone, and they have not the same pods.
    #[error("with `externalTrafficPolicy: Local` only Services with the same policy and selector share an address")]
    Policy,
}

/// Whether two Services may hold one address of a pool that lets it be shared within `widest` at most.
///
/// # Errors
/// When they may not; why.
pub fn may_share(
    one: (&ServiceKey, Option<&SharingTerms>),
    other: (&ServiceKey, Option<&SharingTerms>),
    widest: SharingScope,
) -> Result<(), Clash> {
    let (Some(mine), Some(theirs)) = (one.1, other.1) else { return Err(Clash::NotWished) };
    if mine.key != theirs.key {
        return Err(Clash::Key);
    }
    let in_one_namespace = [mine.scope, theirs.scope, widest].contains(&SharingScope::Namespace);
    if in_one_namespace && one.0.namespace != other.0.namespace {
        return Err(Clash::Namespace);
    }
    if let Some(port) = mine.ports.intersection(&theirs.ports).next() {
        return Err(Clash::Port(port.clone()));
    }
    if mine.local_selector != theirs.local_selector {
        return Err(Clash::Policy);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    type Written<'a> = (&'a str, &'a str, &'a str, &'a str, serde_json::Value);

    fn service((namespace, annotation, key, policy, ports): Written<'_>) -> (ServiceKey, Option<SharingTerms>) {
        let ports: Vec<_> = ports
            .as_array()
            .unwrap()
            .iter()
            .map(|p| {
                let (protocol, number) = p.as_str().unwrap().split_once('/').unwrap();
                json!({"protocol": protocol, "port": number.parse::<u16>().unwrap()})
            })
            .collect();
        let (policy, selector) = policy.split_once(' ').unwrap_or((policy, "app=a"));
        let selector: BTreeMap<_, _> = selector.split(',').filter_map(|s| s.split_once('=')).collect();
        let service: Service = serde_json::from_value(json!({
            "metadata": {"namespace": namespace, "name": "s", "annotations": {annotation: key}},
            "spec": {"externalTrafficPolicy": policy, "selector": selector, "ports": ports},
        }))
        .unwrap();
        (ServiceKey { namespace: namespace.to_owned(), name: "s".to_owned() }, SharingTerms::of(&service))
    }

    #[test]
    fn services_share_by_key_namespace_ports_and_policy() {
        const OURS: &str = "berth.dev/allow-shared-ip";
        const TWIN: &str = "metallb.io/allow-shared-ip";
        let tcp = |n: u16| json!([format!("TCP/{n}")]);
        let udp = |n: u16| json!([format!("UDP/{n}")]);
        let port = |text: &str| Err(Clash::Port(text.parse().unwrap()));
        for (one, other, expected) in [
            (("a", OURS, "k", "Cluster", tcp(80)), ("a", OURS, "k", "Cluster", tcp(443)), Ok(())),
            (("a", OURS, "k", "Cluster", tcp(80)), ("a", OURS, "k", "Cluster app=b", tcp(443)), Ok(())),
            (("a", OURS, "k", "Cluster", tcp(53)), ("a", OURS, "k", "Cluster", udp(53)), Ok(())),
            (("a", OURS, "k", "Cluster", tcp(53)), ("a", OURS, "k", "Cluster", tcp(53)), port("TCP/53")),
            (("a", OURS, "k", "Cluster", tcp(80)), ("a", OURS, "l", "Cluster", tcp(443)), Err(Clash::Key)),
            (("a", OURS, "", "Cluster", tcp(80)), ("a", OURS, "", "Cluster", tcp(443)), Err(Clash::NotWished)),
            (("a", OURS, "k", "Cluster", tcp(80)), ("a", "other", "k", "Cluster", tcp(443)), Err(Clash::NotWished)),
            (("a", OURS, "k", "Local", tcp(80)), ("a", OURS, "k", "Local", tcp(443)), Ok(())),
            (("a", OURS, "k", "Local", tcp(80)), ("a", OURS, "k", "Local app=b", tcp(443)), Err(Clash::Policy)),
            (("a", OURS, "k", "Local", tcp(80)), ("a", OURS, "k", "Cluster", tcp(443)), Err(Clash::Policy)),
            (("a", OURS, "k", "Local ", tcp(80)), ("a", OURS, "k", "Cluster ", tcp(443)), Err(Clash::Policy)),
            (("a", TWIN, "k", "Cluster", tcp(80)), ("b", TWIN, "k", "Cluster", tcp(443)), Ok(())),
            (("a", OURS, "k", "Cluster", tcp(80)), ("b", OURS, "k", "Cluster", tcp(443)), Err(Clash::Namespace)),
            (("a", OURS, "k", "Cluster", tcp(80)), ("b", TWIN, "k", "Cluster", tcp(443)), Err(Clash::Namespace)),
            (("a", OURS, "k", "Cluster", tcp(80)), ("a", TWIN, "k", "Cluster", tcp(443)), Ok(())),
        ] {
            let told = format!("{one:?} and {other:?}");
            let (one, other) = (service(one), service(other));
            let ask = |a: &(ServiceKey, Option<SharingTerms>), b: &(ServiceKey, Option<SharingTerms>)| {
                may_share((&a.0, a.1.as_ref()), (&b.0, b.1.as_ref()), SharingScope::Cluster)
            };
            assert_eq!(ask(&one, &other), expected, "{told}");
            assert_eq!(ask(&other, &one), expected, "{told}, asked the other way round");
        }
    }

    #[test]
    fn a_pool_may_keep_sharing_within_a_namespace() {
        let of = |namespace, port: u16| {
            service((namespace, "metallb.io/allow-shared-ip", "k", "Cluster", json!([format!("TCP/{port}")])))
        };
        let ((a, mine), (b, theirs)) = (of("a", 80), of("b", 443));
        let ask = |widest| may_share((&a, mine.as_ref()), (&b, theirs.as_ref()), widest);
        assert_eq!(ask(SharingScope::Cluster), Ok(()));
        assert_eq!(ask(SharingScope::Namespace), Err(Clash::Namespace));
    }
}
