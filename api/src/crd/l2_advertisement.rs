//! `L2Advertisement`: which pools are announced by layer 2, by which nodes, on which interfaces.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::{CustomResource, KubeSchema};
use schemars::{Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::interface::PATTERN_MAX;

/// Announces the addresses of pools on the local link: by ARP for IPv4, by neighbor discovery for IPv6.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "berth.dev",
    version = "v1alpha1",
    kind = "L2Advertisement",
    plural = "l2advertisements",
    singular = "l2advertisement",
    shortname = "l2a",
    category = "berth",
    status = "L2AdvertisementStatus",
    derive = "PartialEq",
    doc = "Announces the addresses of pools on the local link: by ARP for IPv4, by neighbor discovery for IPv6.",
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#),
    printcolumn(name = "Pools", type_ = "string", json_path = ".spec.ipAddressPools"),
    printcolumn(name = "Interfaces", type_ = "string", json_path = ".spec.interfaces"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct L2AdvertisementSpec {
    /// Names of the pools. With no name and no selector, all pools.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub ip_address_pools: Vec<String>,

    /// Pools by label, beside those named. A selector that matches nothing admits nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub ip_address_pool_selectors: Vec<LabelSelector>,

    /// Only nodes that one of these selectors matches announce. Empty: all nodes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub node_selectors: Vec<LabelSelector>,

    /// Nodes that are chosen before others of those that announce, by label. The weights of all that match a node add up, over every
    /// advertisement by which the address is announced. What is announced already stays where it is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub preferred_node_selectors: Vec<PreferredNodeSelector>,

    /// Only addresses of Services that one of these selectors matches, by the labels of the Service; of an address that several share, all
    /// have to match. Empty: all Services. A selector that matches nothing admits nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub service_selectors: Vec<LabelSelector>,

    /// Only these interfaces, by name (`eth0`) or pattern (`eth*`, `bond0.?`): `*` stands for any characters or none, `?` for one. Empty:
    /// every interface whose subnet holds the address.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "interfaces_schema")]
    pub interfaces: Vec<String>,
}

/// Nodes, and how much they are preferred.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PreferredNodeSelector {
    /// How much, 1 to 100.
    #[schemars(range(min = 1, max = 100))]
    pub weight: i32,
    /// The nodes, by label. An empty selector matches all.
    pub preference: LabelSelector,
}

/// The rule stands at each entry, so that the API server's error names its place.
fn interfaces_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 64,
        "items": {
            "type": "string",
            "minLength": 1,
            "maxLength": PATTERN_MAX,
            "x-kubernetes-validations": [
                {
                    "rule": r"self.matches('^[^/:\\s]+$') && size(self.replace('*', '')) <= 15",
                    "messageExpression": "'neither a name of an interface such as eth0 nor a pattern such as eth*: ' + self",
                },
            ],
        },
    })
}

/// What the controller found.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct L2AdvertisementStatus {
    /// `Ready`: whether the advertisement is in use, and if not, why.
    #[serde(default)]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}
