//! Where the traffic of Services is to go.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use berth_api::Condition;

use crate::{Failure, Intent, Protocol, ServiceId};

/// A node that takes traffic of Services on their node ports.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TargetNode {
    /// Its name.
    pub name: String,
    /// `spec.providerID`; empty where it has none.
    pub provider_id: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its own addresses (`status.addresses` of the type `InternalIP`).
    pub addresses: Vec<IpAddr>,
}

/// An endpoint that takes new connections.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    /// Its address.
    pub address: IpAddr,
    /// Its own port for each port of the Service, by the name and protocol that that has.
    pub ports: Arc<BTreeMap<(String, Protocol), u16>>,
}

/// The targets of one Service.
#[derive(Clone, Debug, PartialEq)]
pub struct ServiceTargets {
    /// What it asks for.
    pub intent: Intent,
    /// Its endpoints, each once.
    pub endpoints: Arc<[Endpoint]>,
    /// Those of them whose pods have a readiness gate for this Service, so that what is thought of them is to be reported; and whether
    /// their pods wait for it.
    pub gated: BTreeMap<Endpoint, bool>,
}

/// Where the traffic of the Services of a shard is to go.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Targets {
    /// The nodes, which all Services have in common.
    pub nodes: Arc<[TargetNode]>,
    /// Each Service.
    pub services: BTreeMap<ServiceId, ServiceTargets>,
}

/// What is thought of an endpoint by those that send it traffic; of several the last in this order counts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EndpointHealth {
    /// None of its ports is one that traffic is sent to.
    NoTarget,
    /// It is healthy for all of them.
    Healthy,
    /// It is being looked at, or is about to be. What keeps it from that, if something does.
    Initial(String),
    /// It is not taken.
    Refused(String),
    /// It does not serve, and why.
    Unhealthy(String),
}

/// What is thought of the endpoints of a Service that are asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndpointReport {
    /// There is nothing yet that could send them traffic.
    Nowhere,
    /// Traffic is sent to nodes, and not to them.
    Nodes,
    /// They could not be sent.
    Unsent(Failure),
    /// This is thought of each.
    Known(BTreeMap<Endpoint, EndpointHealth>),
}

/// What became of targets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TargetReport {
    /// Targets that were added.
    pub added: usize,
    /// Targets that were removed.
    pub removed: usize,
    /// What is to be said of each Service's targets, beside the conditions of its outcome.
    pub conditions: BTreeMap<ServiceId, Condition>,
    /// What is thought of the endpoints of each Service that are asked about ([`ServiceTargets::gated`]).
    pub endpoints: BTreeMap<ServiceId, EndpointReport>,
    /// When to look again although nothing was heard of, because something out there takes its time.
    pub look_again: Option<Duration>,
}
