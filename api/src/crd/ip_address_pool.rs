//! `IPAddressPool`: the addresses that Services may be given.

use std::net::IpAddr;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector, Time};
use kube::{CustomResource, KubeSchema};
use schemars::{Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::MacAddr;
use crate::sharing::SharingScope;

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
    printcolumn(name = "IPv4-Used", type_ = "integer", json_path = ".status.assignedIPv4"),
    printcolumn(name = "IPv4-Free", type_ = "integer", json_path = ".status.availableIPv4"),
    printcolumn(name = "IPv6-Used", type_ = "integer", json_path = ".status.assignedIPv6"),
    printcolumn(name = "IPv6-Free", type_ = "integer", json_path = ".status.availableIPv6"),
    printcolumn(name = "Addresses", type_ = "string", json_path = ".spec.addresses"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct IPAddressPoolSpec {
    /// The addresses, IPv4 and IPv6 in any mixture: CIDRs (`192.0.2.0/28`, `2001:db8:2::/64`, no bits set behind the
    /// prefix), ranges, both ends included (`192.0.2.10-192.0.2.20`), or single addresses.
    #[schemars(schema_with = "addresses_schema")]
    pub addresses: Vec<String>,

    /// Whether a Service that names neither a pool nor an address may be given one from here.
    #[serde(default = "yes")]
    pub auto_assign: bool,

    /// Whether IPv4 addresses that end in .0 or .255 are left out, because old clients and routers take them for those of a
    /// network. Whoever holds one keeps it.
    #[serde(default, rename = "avoidBuggyIPs", skip_serializing_if = "is_false")]
    pub avoid_buggy_ips: bool,

    /// Whether nothing new is given from here. What Services hold they keep: the way to empty a pool.
    #[serde(default, skip_serializing_if = "is_false")]
    pub disabled: bool,

    /// Which Services may have addresses from here. A pool with a selection is asked before those without one, and is no other
    /// Service's, not by request either.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_allocation: Option<ServiceAllocation>,

    /// How wide its addresses may be shared: `Cluster` (as the Services wish) or `Namespace` (never across namespaces).
    #[serde(default, skip_serializing_if = "is_cluster")]
    pub sharing: SharingScope,

    /// Seconds for which an address that was released is not given to anybody, so that clients which still know it do not reach
    /// another Service. 0 to 604800, a week; 0 is none.
    #[serde(default, skip_serializing_if = "is_zero")]
    #[schemars(range(min = 0, max = 604_800))]
    pub cool_down_seconds: u32,
}

/// Which Services may have addresses from a pool: those of a namespace that is named or selected, and of them those that a
/// service selector selects. Where neither `namespaces` nor `namespaceSelectors` is given all namespaces are meant, and where no
/// `serviceSelectors` are, all Services. A selector that matches nothing admits nothing.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceAllocation {
    /// Of several pools with a selection, the one with the lowest number is asked first; 0, or none, is asked last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub priority: Option<i32>,
    /// Names of namespaces.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Set)]
    #[schemars(length(max = 1024))]
    pub namespaces: Vec<String>,
    /// Namespaces by label; any of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub namespace_selectors: Vec<LabelSelector>,
    /// Services by label; any of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub service_selectors: Vec<LabelSelector>,
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
                    "rule": "!self.contains(':') || self.split('-').all(i, i.contains(':'))",
                    "messageExpression": "'starts in one address family and ends in the other, write one entry for each: ' + self",
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

// serde asks by reference.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_false(flag: &bool) -> bool {
    !flag
}

#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_cluster(scope: &SharingScope) -> bool {
    *scope == SharingScope::Cluster
}

/// What the controller found and how much of the pool is used.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IPAddressPoolStatus {
    /// IPv4 addresses that Services hold.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "assignedIPv4")]
    pub assigned_ipv4: Option<i64>,
    /// IPv4 addresses that are free.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "availableIPv4")]
    pub available_ipv4: Option<i64>,
    /// IPv6 addresses that Services hold.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "assignedIPv6")]
    pub assigned_ipv6: Option<i64>,
    /// IPv6 addresses that are free. 9223372036854775807, the largest number that fits, also stands for more.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "availableIPv6")]
    pub available_ipv6: Option<i64>,
    /// Addresses that were released and are given to nobody yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cooling_down: Vec<CoolingDown>,
    /// Addresses that a machine which is none of our nodes was found to have before their first use. They are given to nobody by
    /// themselves before their time has passed; one that is found taken again then gets twice the time. At most 128.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128))]
    pub quarantined: Vec<Quarantined>,
    /// `Ready`: whether the specification is valid. Where it is not, the message says what is wrong and what is still given.
    #[serde(default)]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// Addresses that were released and are given to nobody until a time.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CoolingDown {
    /// One address, or a range with both ends included.
    pub addresses: String,
    /// When they may be given again.
    pub until: Time,
}

/// Most addresses of a pool that are in quarantine. A machine that answers for more of them than this answers for everything, as a proxy
/// does, and is not to be escaped from by trying further.
pub const QUARANTINED_MAX: usize = 128;

/// An address that somebody else was found to have before its first use.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Quarantined {
    /// The address.
    #[schemars(with = "String", length(max = 45))]
    pub address: IpAddr,
    /// The Ethernet address of the machine that has it.
    pub mac: MacAddr,
    /// When it was found.
    pub since: Time,
    /// When the address may be given again. One whose time has passed is remembered for as long again.
    pub until: Time,
}
