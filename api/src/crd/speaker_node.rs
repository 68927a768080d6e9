//! `SpeakerNode`: what only the node knows about itself.

use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::MacAddr;

/// One per node, named after it, written by its speaker when something changed.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "berth.dev",
    version = "v1alpha1",
    kind = "SpeakerNode",
    plural = "speakernodes",
    singular = "speakernode",
    shortname = "spk",
    category = "berth",
    status = "SpeakerNodeStatus",
    derive = "PartialEq",
    doc = "What a node's speaker found on its node. Written by Berth; look, do not edit.",
    printcolumn(name = "Version", type_ = "string", json_path = ".spec.version"),
    printcolumn(name = "Interfaces", type_ = "string", json_path = ".spec.interfaces[*].name"),
    printcolumn(name = "Subnets", type_ = "string", json_path = ".spec.interfaces[*].addresses"),
    printcolumn(
        name = "Partners",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="PartnersHeard")].reason"#,
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct SpeakerNodeSpec {
    /// Version of the speaker.
    pub version: String,
    /// The interfaces that can announce: up, with a carrier, with an Ethernet address and an IP address.
    #[serde(default)]
    #[schemars(length(max = 256))]
    pub interfaces: Vec<Interface>,
    /// The routers on these interfaces: the next hops of the node's routes, each once, in order, but for link-local ones, which no pool
    /// can have. Of more than 64, the lowest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<String>", length(max = 64))]
    pub gateways: Vec<IpAddr>,
}

/// How the speaker hears the others.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SpeakerNodeStatus {
    /// `PartnersHeard`: whether partners are heard as regularly as they should. Absent as long as they were.
    #[serde(default)]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// Most gateways that are reported of a node: those of a rack, with both families and some to spare. A node with a thousand peers is a
/// router itself.
pub const GATEWAYS_MAX: usize = 64;

/// A network interface of a node.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Interface {
    /// Its name, such as `eth0`.
    pub name: String,
    /// Its Ethernet address.
    pub mac: MacAddr,
    /// Its addresses with their prefix lengths, such as `192.0.2.11/24`.
    #[schemars(with = "Vec<String>", length(max = 256))]
    pub addresses: Vec<IpNet>,
}
