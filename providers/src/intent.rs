//! What a Service asks of a provider: parsed, and the same for all providers.

use std::collections::{BTreeMap, BTreeSet};

use berth_api::annotations;
use berth_api::service::{Families, Request, RequestError, ServiceKey, TrafficPolicy};
use berth_api::sharing::SharingTerms;
use k8s_openapi::api::core::v1::{LoadBalancerIngress, Service};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde::Serialize;

use crate::{Class, Failure};

/// Which Service: its name, and the uid that tells it from another of the same name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct ServiceId {
    /// Namespace and name.
    pub key: ServiceKey,
    /// `metadata.uid`.
    pub uid: String,
}

/// A transport protocol of a Service's port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

/// Where the endpoints of a Service take the traffic of one of its ports.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TargetPort {
    /// This port of each.
    Number(u16),
    /// The port of each that its pod calls so.
    Name(String),
}

/// A port of a Service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port {
    /// Its name; empty when it has none.
    pub name: String,
    /// How it is spoken to.
    pub protocol: Protocol,
    /// What clients connect to, 1 to 65535.
    pub port: u16,
    /// Where nodes take its traffic, if they do.
    pub node_port: Option<u16>,
    /// Where endpoints take it.
    pub target_port: TargetPort,
}

/// What a Service asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct Intent {
    /// Which Service.
    pub id: ServiceId,
    /// When it was made, in seconds since 1970.
    pub created: i64,
    /// `metadata.generation`, where it has one.
    pub generation: Option<i64>,
    /// Its annotations; each provider reads its own.
    pub annotations: BTreeMap<String, String>,
    /// Its address families; known also where the request cannot be read.
    pub families: Families,
    /// What it asks of every provider: addresses, a pool.
    pub request: Result<Request, RequestError>,
    /// The same where the annotations are known that mean something to providers of cloud load balancers.
    pub cloud_request: Result<Request, RequestError>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// On which terms it shares its addresses, if it wishes to.
    pub sharing: Option<SharingTerms>,
    /// Where its traffic may go.
    pub policy: TrafficPolicy,
    /// Whether a client is to get to the same endpoint each time (`sessionAffinity: ClientIP`).
    pub sticky: bool,
    /// Its ports, at least one.
    pub ports: Vec<Port>,
    /// Who may reach it; empty for everybody.
    pub source_ranges: BTreeSet<String>,
    /// Where nodes answer whether they have an endpoint, for [`TrafficPolicy::Local`].
    pub health_check_node_port: Option<u16>,
    /// What its status says now: what is published is not taken away before its replacement is.
    pub published: Vec<LoadBalancerIngress>,
}

impl Intent {
    /// Reads what a Service asks for.
    ///
    /// # Errors
    /// When a field has a value that the API server would not have let in.
    pub fn of(service: &Service) -> Result<Self, Failure> {
        let wrong = |what: String| Failure::new(Class::Config, what);
        let meta = &service.metadata;
        let key = ServiceKey {
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
        };
        let spec = service.spec.clone().unwrap_or_default();
        let number = |field: &str, value: i32| {
            u16::try_from(value).map_err(|_| wrong(format!("{field}: {value} is no port, which are 1 to 65535")))
        };
        let mut ports = Vec::new();
        for (index, port) in spec.ports.iter().flatten().enumerate() {
            let protocol = match port.protocol.as_deref().unwrap_or("TCP") {
                "TCP" => Protocol::Tcp,
                "UDP" => Protocol::Udp,
                "SCTP" => Protocol::Sctp,
                other => {
                    return Err(wrong(format!("spec.ports[{index}].protocol: `{other}` is none of TCP, UDP, SCTP")));
                }
            };
            ports.push(Port {
                name: port.name.clone().unwrap_or_default(),
                protocol,
                port: number(&format!("spec.ports[{index}].port"), port.port)?,
                node_port: match port.node_port.filter(|p| *p != 0) {
                    Some(node_port) => Some(number(&format!("spec.ports[{index}].nodePort"), node_port)?),
                    None => None,
                },
                target_port: match &port.target_port {
                    Some(IntOrString::String(name)) => TargetPort::Name(name.clone()),
                    Some(IntOrString::Int(target)) if *target != 0 => {
                        TargetPort::Number(number(&format!("spec.ports[{index}].targetPort"), *target)?)
                    }
                    // Not given: the same as the port (Kubernetes rule).
                    _ => TargetPort::Number(number(&format!("spec.ports[{index}].port"), port.port)?),
                },
            });
        }
        Ok(Self {
            id: ServiceId { key, uid: meta.uid.clone().unwrap_or_default() },
            created: meta.creation_timestamp.as_ref().map_or(0, |t| t.0.as_second()),
            generation: meta.generation,
            annotations: meta.annotations.clone().unwrap_or_default(),
            families: Families::of(service),
            request: Request::parse(service),
            cloud_request: Request::parse_knowing(service, annotations::CLOUD),
            labels: meta.labels.clone().unwrap_or_default(),
            sharing: SharingTerms::of(service),
            policy: TrafficPolicy::of(service),
            sticky: spec.session_affinity.as_deref() == Some("ClientIP"),
            ports,
            source_ranges: spec.load_balancer_source_ranges.into_iter().flatten().collect(),
            health_check_node_port: match spec.health_check_node_port.filter(|p| *p != 0) {
                Some(port) => Some(number("spec.healthCheckNodePort", port)?),
                None => None,
            },
            published: service
                .status
                .as_ref()
                .and_then(|s| s.load_balancer.as_ref()?.ingress.clone())
                .unwrap_or_default(),
        })
    }
}

/// Everything that is asked of a shard. What is owned and in neither list is an orphan, and left alone: deletion needs a Service
/// that was seen leaving.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wanted {
    /// The Services that are to be served.
    pub present: BTreeMap<ServiceKey, Intent>,
    /// Services that were seen being deleted, or losing their class or type, as they were last known: nothing of them is to
    /// remain.
    pub leaving: BTreeMap<ServiceId, Intent>,
}
