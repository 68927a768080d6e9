//! The objects of a bench: three nodes that could announce, one large pool, and the Services.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};

use berth_api::crd::{Layer2Assignment, Member};
use berth_api::{IPAddressPool, MacAddr};
use berth_lab::LabConfig;
use k8s_openapi::api::core::v1::Service;
use kube::Resource;
use serde_json::json;

/// The lab: nodes to choose from, and no kube-proxy, whose work on thousands of Services would be most of what is measured.
pub const LAB: LabConfig = LabConfig { nodes: NODES, kube_proxy: false };
/// As many as there are parts in an address: an owner and two standbys.
const NODES: u8 = 3;
/// Where the Services are.
pub const NAMESPACE: &str = "bench";
/// Name of the pool and of its advertisement.
pub const POOL: &str = "bench";
/// The pool: the range for benchmarks (RFC 2544), 131,072 addresses.
pub const POOL_RANGE: &str = "198.18.0.0/15";
/// Addresses at the beginning of the range that are the nodes' own.
const OWN: u32 = 256;
/// The label that tells what a Service is there for.
pub const PHASE_LABEL: &str = "bench.berth.dev/phase";

/// The namespace, the pool, and what speakers would report of their nodes: that all are on the pool's link.
pub fn objects() -> String {
    let mut text = format!(
        "apiVersion: v1\nkind: Namespace\nmetadata: {{name: {NAMESPACE}}}\n\
         ---\n\
         apiVersion: berth.dev/v1alpha1\nkind: {pool}\nmetadata: {{name: {POOL}}}\nspec: {{addresses: [{POOL_RANGE}]}}\n\
         ---\n\
         apiVersion: berth.dev/v1alpha1\nkind: L2Advertisement\nmetadata: {{name: {POOL}}}\nspec: {{ipAddressPools: [{POOL}]}}\n",
        pool = IPAddressPool::kind(&()),
    );
    for Member { node, interface, address, mac } in members() {
        let _ = write!(
            text,
            "---\napiVersion: berth.dev/v1alpha1\nkind: SpeakerNode\nmetadata: {{name: {node}}}\n\
             spec: {{version: bench, interfaces: [{{name: {interface}, mac: '{mac}', addresses: [{address}/15]}}]}}\n"
        );
    }
    text
}

/// A Service as most are: one family, with a selector, so that Kubernetes' own controllers make its EndpointSlice. It names no
/// class, so that every controller that serves by default serves it, and has no node ports, of which there are too few.
pub fn service(phase: &str, name: &str) -> Result<Service, serde_json::Error> {
    serde_json::from_value(json!({
        "metadata": { "name": name, "namespace": NAMESPACE, "labels": { PHASE_LABEL: phase } },
        "spec": {
            "type": "LoadBalancer",
            "allocateLoadBalancerNodePorts": false,
            "selector": { "app": name },
            "ports": [{ "port": 80, "targetPort": 8080 }],
        },
    }))
}

/// The address at a place in the pool, behind those of the nodes.
pub fn address(place: u32) -> IpAddr {
    Ipv4Addr::from_bits(first().to_bits() + OWN + place).into()
}

/// The place of an address in the pool.
pub fn place(address: IpAddr) -> Option<u32> {
    match address {
        IpAddr::V4(v4) => v4.to_bits().checked_sub(first().to_bits() + OWN),
        IpAddr::V6(_) => None,
    }
}

/// Who would answer, as Berth says it: the Announcements of the floor are as large as Berth's.
pub fn assignment() -> Layer2Assignment {
    let members = members();
    let mut names = members.iter().map(|member| member.node.clone());
    Layer2Assignment { owner: names.next(), standbys: names.collect(), epoch: 1, members }
}

fn members() -> Vec<Member> {
    let member = |number: u8| Member {
        node: format!("node-{number}"),
        interface: "eth0".to_owned(),
        address: Ipv4Addr::from_bits(first().to_bits() + u32::from(number)).into(),
        mac: MacAddr([0x02, 0, 0, 0, 0, number]),
    };
    (1..=NODES).map(member).collect()
}

/// The first address of [`POOL_RANGE`].
fn first() -> Ipv4Addr {
    Ipv4Addr::new(198, 18, 0, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_and_its_place_are_found_from_each_other_and_nodes_have_none() {
        for number in [0, 1, 300, 100_000] {
            assert_eq!(place(address(number)), Some(number));
        }
        for member in members() {
            assert_eq!(place(member.address), None);
        }
        assert!(POOL_RANGE.starts_with(&first().to_string()));
    }
}
