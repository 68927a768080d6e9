//! `IPAddressPool`: the addresses that Services may be given.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::{Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// Addresses that Services of type LoadBalancer may be given.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "berth.dev",
    version = "v1alpha1",
    kind = "IPAddressPool",
    plural = "ipaddresspools",
    singular = "ipaddresspool",
    shortname = "ipap",
    category = "berth",
    status = "IPAddressPoolStatus",
    derive = "PartialEq",
    doc = "Addresses that Services of type LoadBalancer may be given.",
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#),
    printcolumn(name = "Auto-Assign", type_ = "boolean", json_path = ".spec.autoAssign"),
    printcolumn(name = "Used", type_ = "integer", json_path = ".status.assignedIPv4"),
    printcolumn(name = "Free", type_ = "integer", json_path = ".status.availableIPv4"),
    printcolumn(name = "Addresses", type_ = "string", json_path = ".spec.addresses"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct IPAddressPoolSpec {
    /// The addresses: CIDRs (`192.0.2.0/28`, no bits set behind the prefix), ranges, both ends included
    /// (`192.0.2.10-192.0.2.20`), or single addresses.
    #[schemars(schema_with = "addresses_schema")]
    pub addresses: Vec<String>,

    /// Whether a Service that names neither a pool nor an address may be given one from here.
    #[serde(default = "yes")]
    pub auto_assign: bool,
}

/// The rules stand at each entry, so that the API server's error names its place, and their cost, which it estimates
/// before it takes the CRD, does not grow with the square of the list.
fn addresses_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "minItems": 1,
        "maxItems": 256,
        "items": {
            "type": "string",
            "minLength": 1,
            "maxLength": 100,
            "x-kubernetes-validations": [
                {
                    "rule": "self.contains('/') ? isCIDR(self.trim()) : size(self.split('-')) <= 2 && self.split('-').all(i, isIP(i.trim()))",
                    "messageExpression": "'neither a CIDR such as 192.0.2.0/28 nor a range such as 192.0.2.10-192.0.2.20: ' + self",
                },
                {
                    "rule": "!isCIDR(self.trim()) || cidr(self.trim()) == cidr(self.trim()).masked()",
                    "messageExpression": "'bits are set behind the prefix, so it is unclear which addresses are meant; clear them or write a range: ' + self",
                },
            ],
        },
    })
}

fn yes() -> bool {
    true
}

/// What the controller found and how much of the pool is used.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IPAddressPoolStatus {
    /// Addresses that Services hold.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "assignedIPv4")]
    pub assigned_ipv4: Option<i64>,
    /// Addresses that are free.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "availableIPv4")]
    pub available_ipv4: Option<i64>,
    /// `Ready`: whether the specification is valid. Where it is not, the message says what is wrong and what is still given.
    #[serde(default)]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}
