//! `Announcement`: what controller and speakers say to each other about one address.

use std::net::IpAddr;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, MicroTime};
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use super::RouteForm;
use crate::MacAddr;
use crate::sharing::SharingTerms;

/// Most Services that hold one address: an Announcement names them all, with their ports, and etcd takes objects of 1.5 MB.
pub const SERVICES_MAX: usize = 256;

/// Most nodes that one Service's health checks are told to: more than clusters have that a load balancer spreads over.
pub const HEALTH_CHECK_NODES_MAX: usize = 1_024;

/// Most nodes that one way of an address names: more than a router has equal paths for.
pub const ROUTING_NODES_MAX: usize = 1_024;

/// Most ways in which nodes hand one address to their routing daemons.
pub const ROUTE_WAYS_MAX: usize = 64;

/// One virtual address, named after it. Creating it is the claim on the address.
///
/// `spec` is written by the controller alone, `status` by the speaker that answers.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "berth.dev",
    version = "v1alpha1",
    kind = "Announcement",
    plural = "announcements",
    singular = "announcement",
    shortname = "ann",
    category = "berth",
    status = "AnnouncementStatus",
    derive = "PartialEq",
    doc = "One address of a Service: who is to answer for it, and who does. Written by Berth; look, do not edit.",
    printcolumn(name = "Pool", type_ = "string", json_path = ".spec.pool"),
    printcolumn(name = "Namespace", type_ = "string", json_path = ".spec.services[0].namespace"),
    printcolumn(name = "Service", type_ = "string", json_path = ".spec.services[0].name"),
    printcolumn(name = "Answers", type_ = "string", json_path = ".status.layer2.owner"),
    printcolumn(name = "Routed by", type_ = "string", json_path = ".spec.routes[*].nodes"),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Interface", type_ = "string", json_path = ".status.layer2.interface"),
    printcolumn(name = "MAC", type_ = "string", json_path = ".status.layer2.mac"),
    printcolumn(name = "Since", type_ = "date", json_path = ".status.layer2.since"),
    printcolumn(name = "Caretaker", type_ = "string", json_path = ".status.layer2.caretaker.node", priority = 1),
    printcolumn(name = "Owner", type_ = "string", json_path = ".spec.layer2.owner", priority = 1),
    printcolumn(name = "Standbys", type_ = "string", json_path = ".spec.layer2.standbys", priority = 1),
    printcolumn(name = "Epoch", type_ = "integer", json_path = ".status.layer2.epoch", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.address == oldSelf.address").message("the address of an Announcement is its identity and cannot change"))]
pub struct AnnouncementSpec {
    /// The address.
    #[x_kube(validation = Rule::new("isIP(self)").message("not an IP address"))]
    #[schemars(with = "String", length(max = 45))]
    pub address: IpAddr,
    /// The pool that it is part of.
    pub pool: String,
    /// The Services that hold it.
    #[schemars(length(min = 1, max = SERVICES_MAX))]
    pub services: Vec<ServiceRef>,
    /// Who answers for it by layer 2. Absent as long as no L2Advertisement covers the pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer2: Option<Layer2Assignment>,
    /// The nodes that hand it to their routing daemons, and how. Empty where no RouteAdvertisement is in use for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = ROUTE_WAYS_MAX))]
    pub routes: Vec<RouteAssignment>,
}

/// Nodes that take the address into their routing tables or onto an interface, all in the same way.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteAssignment {
    /// What their routing daemons find.
    #[serde(default)]
    pub form: RouteForm,
    /// The interface. Absent: that of the node's default route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 15))]
    pub interface: Option<String>,
    /// The routing table. Absent: the main one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4_294_967_295_u32))]
    pub table: Option<u32>,
    /// The metric of the route. Absent: the kernel's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4_294_967_295_u32))]
    pub metric: Option<u32>,
    /// The nodes, in the order of their names.
    #[serde(default)]
    #[schemars(length(max = ROUTING_NODES_MAX))]
    pub nodes: Vec<String>,
}

/// A Service, so named that one deleted and made again is not taken for the same, and what speakers need to know of it.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceRef {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its `metadata.uid`.
    pub uid: String,
    /// On which terms it shares the address; absent where it does not wish to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sharing: Option<SharingTerms>,
    /// Whether an endpoint of the address's family serves it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub serving: bool,
    /// The lowest of its TCP ports. A node that is to answer connects to it first, to see whether it would forward.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65_535))]
    pub tcp_port: Option<u16>,
    /// With the Local policy: how a node says whether it has endpoints.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<Box<LocalPolicy>>,
}

/// How a node says whether it has endpoints of a Service with the Local policy.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LocalPolicy {
    /// `spec.healthCheckNodePort`: load balancers in front of the cluster ask there, and so does a speaker before it answers.
    #[schemars(range(min = 1, max = 65_535))]
    pub health_check_node_port: u16,
    /// Of the nodes whose speakers answer at that port, because nobody else does there (`spec.dataplane.healthChecks` of their
    /// SpeakerNodes): those with endpoints.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = HEALTH_CHECK_NODES_MAX))]
    pub endpoints: Vec<NodeEndpoints>,
}

/// The endpoints of a Service on a node.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeEndpoints {
    /// The node.
    pub node: String,
    /// How many are ready. None, where all that serve are about to end.
    pub ready: u32,
}

/// Who is to answer for an address on the local link.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.epoch >= oldSelf.epoch").message("an epoch never falls"))]
pub struct Layer2Assignment {
    /// The node that answers. Absent when no node is eligible.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// The nodes that take over, in this order.
    #[serde(default)]
    #[schemars(length(max = 16))]
    pub standbys: Vec<String>,
    /// Number of the ownership. Rises with every change of owner, whoever makes it, and never falls.
    #[schemars(with = "i64", range(min = 0, max = 9_007_199_254_740_991_u64))]
    pub epoch: u64,
    /// Where the owner and the standbys are found on the link, so that they need nothing but this object.
    #[serde(default)]
    #[schemars(length(max = 17))]
    pub members: Vec<Member>,
}

/// A node's place on the link.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Member {
    /// The node's name.
    pub node: String,
    /// The interface in whose subnet the address lies.
    pub interface: String,
    /// The node's own address on that interface; heartbeats go there.
    #[schemars(with = "String", length(max = 45))]
    pub address: IpAddr,
    /// The Ethernet address of that interface.
    pub mac: MacAddr,
}

/// Who answers for the address, as the speaker that does says.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AnnouncementStatus {
    /// Who answers by layer 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer2: Option<Layer2Status>,
    /// The Ethernet address of a machine that is none of our nodes and has the address too, while `Ready` says `AddressConflict`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub foreign: Option<MacAddr>,
    /// `Ready`: whether the address is answered for, as the last speaker to answer said. Absent as long as none did; the
    /// Service's own condition `berth.dev/Announced` says why.
    #[serde(default)]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// Who answers for an address on the local link.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.epoch >= oldSelf.epoch").message("an epoch never falls"))]
pub struct Layer2Status {
    /// The node that answers.
    pub owner: String,
    /// Number of this ownership.
    #[schemars(with = "i64", range(min = 0, max = 9_007_199_254_740_991_u64))]
    pub epoch: u64,
    /// Since when it answers.
    pub since: MicroTime,
    /// The Ethernet address that it answers with.
    pub mac: MacAddr,
    /// The interface that it answers on.
    pub interface: String,
    /// The node that answers in its place, with its Ethernet address, because its speaker is silent or stopped while the node lives. Told
    /// only when it lasts for more than a few seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caretaker: Option<Caretaker>,
}

/// Who answers in the place of an owner.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Caretaker {
    /// The node.
    pub node: String,
    /// Since when.
    pub since: MicroTime,
}
