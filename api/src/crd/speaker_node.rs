//! `SpeakerNode`: what only the node knows about itself.

use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{MacAddr, Reason};

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
    printcolumn(name = "Kube-Proxy", type_ = "string", json_path = ".spec.dataplane.kubeProxy"),
    printcolumn(
        name = "Partners",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="PartnersHeard")].reason"#,
        priority = 1
    ),
    printcolumn(
        name = "Kernel",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="KernelReady")].reason"#,
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
    /// What forwards the traffic of Services on the node. Absent until the speaker has looked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dataplane: Option<Dataplane>,
    /// Settings of the kernel that break what is announced on these interfaces. None, most often.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub kernel_traps: Vec<KernelTrap>,
    /// Machines that have addresses of `status.sweep`, in order of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub found: Vec<Found>,
    /// What comes of the routes that the controller wishes. Absent where the speaker runs without `--routes`, and makes none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub routes: Option<Routes>,
}

/// What comes of a node's routes.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Routes {
    /// Whether the speaker has the capability that it takes, `NET_ADMIN`.
    pub permitted: bool,
    /// Addresses that the node cannot route, in order, and why. None, most often; of more than 64 the lowest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = ROUTES_REFUSED_MAX))]
    pub refused: Vec<RefusedRoute>,
}

/// Most addresses that are named with why they are not routed.
pub const ROUTES_REFUSED_MAX: usize = 64;

/// An address that a node cannot route.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RefusedRoute {
    /// The address.
    #[schemars(with = "String", length(max = 45))]
    pub address: IpAddr,
    /// Why, as a code.
    pub reason: RouteRefusal,
    /// Why, for a person.
    #[schemars(length(max = 512))]
    pub message: String,
}

/// Why a node does not route an address.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum RouteRefusal {
    /// The interface is not there, or none is named and the node has no default route.
    RouteInterfaceMissing,
    /// Somebody else has this very route, or the address on an interface.
    RouteTaken,
    /// The address is of a subnet of the node, and other nodes would answer ARP or neighbor discovery for it beside this one.
    OnLinkAddress,
    /// The kernel cannot mark addresses, so what is put on an interface could not be found again.
    KernelTooOld,
    /// The kernel refused it.
    RouteFailed,
}

impl RouteRefusal {
    /// The reason code.
    pub fn reason(self) -> Reason {
        match self {
            Self::RouteInterfaceMissing => Reason::RouteInterfaceMissing,
            Self::RouteTaken => Reason::RouteTaken,
            Self::OnLinkAddress => Reason::OnLinkAddress,
            Self::KernelTooOld => Reason::KernelTooOld,
            Self::RouteFailed => Reason::RouteFailed,
        }
    }
}

/// A setting of a node's kernel that breaks what is announced on an interface.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KernelTrap {
    /// The interface.
    pub interface: String,
    /// What breaks.
    pub trap: Trap,
}

/// What a setting of the kernel breaks.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Trap {
    /// IPVS has the addresses of Services on `kube-ipvs0`, and the kernel answers ARP for them on this interface, whoever owns them.
    ArpIgnore,
    /// `rp_filter` is strict, and the routes to what is beyond the subnet lead over another interface: what comes from there is dropped.
    ReversePathFilter,
}

impl Trap {
    /// The reason code.
    pub fn reason(self) -> Reason {
        match self {
            Self::ArpIgnore => Reason::ArpIgnore,
            Self::ReversePathFilter => Reason::ReversePathFilter,
        }
    }
}

/// Most traps that are reported of a node: it has a few interfaces that can announce.
pub const KERNEL_TRAPS_MAX: usize = 64;

/// What forwards the traffic of Services on a node.
#[derive(KubeSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Dataplane {
    /// Its kube-proxy.
    pub kube_proxy: KubeProxy,
    /// Whether the speaker answers at the health check node ports of Services with the Local policy, because nobody else does.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub health_checks: bool,
}

/// What the speaker found of kube-proxy on its node.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum KubeProxy {
    /// It says that its rules are up to date.
    Fresh,
    /// It said so once, and for a minute has said the opposite or nothing: what changes is not forwarded there.
    Stale,
    /// It was never met, so something else forwards, or kube-proxy has yet to start.
    #[default]
    Absent,
}

/// A machine that has an address which no Service uses.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Found {
    /// The address.
    #[schemars(with = "String", length(max = 45))]
    pub address: IpAddr,
    /// The Ethernet address of the machine.
    pub mac: MacAddr,
}

/// Most addresses that a node asks for ahead of need: those of sixteen pools of both families.
pub const SWEEP_MAX: usize = 256;

/// What the controller wishes of the speaker, how that hears the others, and what it found of the kernel.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SpeakerNodeStatus {
    /// Free addresses that the node asks the wire for ahead of need, as the controller wishes: whether a machine has one that is none of
    /// our nodes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<String>", length(max = 256))]
    pub sweep: Vec<IpAddr>,
    /// `PartnersHeard`: whether partners are heard as regularly as they should. `KernelReady`: whether no setting of the kernel was found
    /// that breaks what is announced. Each is absent as long as there was nothing to say.
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
