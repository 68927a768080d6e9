//! The custom role that the controller's identity needs: the rights that its calls take, and no others.

use serde_json::{Value, json};

/// What each right is for. A test drives the provider and compares: none is missing, and none is there that nothing takes.
pub const RIGHTS: &[(&str, &str)] = &[
    ("Microsoft.Network/loadBalancers/read", "the load balancers are looked at"),
    ("Microsoft.Network/loadBalancers/write", "frontends, rules and probes"),
    ("Microsoft.Network/loadBalancers/delete", "a load balancer that Berth made goes with its last frontend"),
    (
        "Microsoft.Network/loadBalancers/backendAddressPools/read",
        "a pool that somebody else wrote meanwhile is read again",
    ),
    ("Microsoft.Network/loadBalancers/backendAddressPools/write", "nodes are put into the pool"),
    ("Microsoft.Network/networkSecurityGroups/read", "the security group is looked at"),
    ("Microsoft.Network/networkSecurityGroups/write", "security rules"),
    ("Microsoft.Network/publicIPAddresses/read", "public IPs are listed"),
    ("Microsoft.Network/publicIPAddresses/write", "public IPs are made, and their tags and labels set"),
    ("Microsoft.Network/publicIPAddresses/delete", "a public IP that Berth made goes with its last user"),
    ("Microsoft.Network/publicIPAddresses/join/action", "a frontend has a public IP"),
    ("Microsoft.Network/publicIPPrefixes/join/action", "a public IP is taken from a prefix"),
    ("Microsoft.Network/virtualNetworks/subnets/read", "the subnet of an internal frontend is looked at"),
    ("Microsoft.Network/virtualNetworks/subnets/join/action", "an internal frontend is in a subnet"),
    ("Microsoft.Network/virtualNetworks/joinLoadBalancer/action", "a pool has addresses of the network"),
];

/// The role, as `az role definition create` takes it. Where it may be given has to be filled in.
pub fn role() -> Value {
    let actions: Vec<&str> = RIGHTS.iter().map(|(right, _)| *right).collect();
    json!({
        "Name": "Berth load balancers",
        "IsCustom": true,
        "Description": "What the Berth controller asks of Azure: load balancers, their public IPs and security rules.",
        "Actions": actions,
        "NotActions": [],
        "DataActions": [],
        "NotDataActions": [],
        "AssignableScopes": ["/subscriptions/00000000-0000-0000-0000-000000000000"],
    })
}
