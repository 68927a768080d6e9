//! `RouteAdvertisement`: which pools a routing daemon on the nodes makes known, instead of a node that answers on the link.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Has nodes take the addresses of pools into their routing tables, or onto an interface, for a routing daemon to make known.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "berth.dev",
    version = "v1alpha1",
    kind = "RouteAdvertisement",
    plural = "routeadvertisements",
    singular = "routeadvertisement",
    shortname = "rta",
    category = "berth",
    status = "RouteAdvertisementStatus",
    derive = "PartialEq",
    doc = "Has nodes take the addresses of pools into their routing tables, or onto an interface, for a routing daemon to make known.",
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#),
    printcolumn(name = "Pools", type_ = "string", json_path = ".spec.ipAddressPools"),
    printcolumn(name = "Form", type_ = "string", json_path = ".spec.form"),
    printcolumn(name = "Interface", type_ = "string", json_path = ".spec.interface"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.form) || self.form != 'Address' || has(self.interface)").message("form Address needs an interface to put addresses on"))]
#[x_kube(validation = Rule::new("!has(self.form) || self.form != 'Address' || (!has(self.table) && !has(self.metric))").message("table and metric are of form Route alone"))]
pub struct RouteAdvertisementSpec {
    /// Names of the pools. With no name and no selector, all pools. One that an L2Advertisement covers too is left to that.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub ip_address_pools: Vec<String>,

    /// Pools by label, beside those named. A selector that matches nothing admits nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub ip_address_pool_selectors: Vec<LabelSelector>,

    /// Only nodes that one of these selectors matches. Empty: all nodes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub node_selectors: Vec<LabelSelector>,

    /// Only addresses of Services that one of these selectors matches, by the labels of the Service; of an address that several share, all
    /// have to match. Empty: all Services. A selector that matches nothing admits nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub service_selectors: Vec<LabelSelector>,

    /// What the routing daemon finds.
    #[serde(default)]
    pub form: RouteForm,

    /// The interface by name: that the addresses are put on, or that the routes lead to. Routes without one lead to the interface of the
    /// node's default route in the family of the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 15))]
    #[x_kube(validation = Rule::new(r"self.matches('^[^/:\\s]+$')").message("not a name of an interface"))]
    pub interface: Option<String>,

    /// The number of the routing table. Absent: the main table, 254.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4_294_967_295_u32))]
    #[x_kube(validation = Rule::new("self != 255").message("table 255 is the kernel's own"))]
    pub table: Option<u32>,

    /// The metric of the routes. Absent: the kernel's own, which is 0 for IPv4 and 1024 for IPv6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4_294_967_295_u32))]
    pub metric: Option<u32>,
}

/// What a routing daemon finds on a node.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum RouteForm {
    /// A host route to the address, in a routing table.
    #[default]
    Route,
    /// The address, on an interface.
    Address,
}

/// What the controller found.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteAdvertisementStatus {
    /// `Ready`: whether the advertisement is in use, and if not, why.
    #[serde(default)]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}
