//! Where the traffic of Services is to go.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use berth_api::Condition;

use crate::{Intent, Protocol, ServiceId};

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
}

/// Where the traffic of the Services of a shard is to go.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Targets {
    /// The nodes, which all Services have in common.
    pub nodes: Arc<[TargetNode]>,
    /// Each Service.
    pub services: BTreeMap<ServiceId, ServiceTargets>,
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
    /// When to look again although nothing was heard of, because something out there takes its time.
    pub look_again: Option<Duration>,
}
