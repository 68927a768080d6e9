//! Which addresses are never given out, whatever pools say.

use std::collections::BTreeSet;
use std::net::IpAddr;

use berth_api::pool::IpRange;
use ipnet::IpNet;

use super::World;
use crate::ipam::Exclusion;

impl World {
    /// Addresses that are never given out: those of nodes, those of pods and of Services inside the cluster, and of the nodes'
    /// subnets those that no host can have. Of several reasons for one address the first is told.
    pub(super) fn excluded_addresses(&self) -> Vec<(IpRange, Exclusion)> {
        let reported = || {
            self.reports.iter().flat_map(|(node, report)| {
                report.interfaces.iter().flat_map(|i| &i.addresses).map(move |net| (node, *net))
            })
        };
        let said = self.cluster_nodes.iter().flat_map(|(node, view)| view.addresses.iter().map(move |a| (node, *a)));
        let nodes = reported().map(|(node, net)| (node, net.addr())).chain(said);
        let gateways = self.reports.iter().flat_map(|(node, report)| report.gateways.iter().map(move |a| (node, *a)));
        let one = |address: IpAddr, why| IpRange::new(address, address).map(|range| (range, why));
        let nodes = nodes.filter_map(|(node, address)| one(address, Exclusion::Node(node.clone())));
        let gateways = gateways.filter_map(|(node, address)| one(address, Exclusion::Gateway(node.clone())));
        let special =
            |net: IpNet| reserved(net).into_iter().map(move |a| (a, Exclusion::Subnet(net.trunc().to_string())));
        let special = reported().flat_map(|(_, net)| special(net)).filter_map(|(address, why)| one(address, why));
        let pods = self
            .cluster_nodes
            .iter()
            .flat_map(|(node, view)| view.pod_ranges.iter().map(move |range| (*range, Exclusion::Pods(node.clone()))));
        let services = self
            .service_ranges
            .iter()
            .flat_map(|(name, ranges)| ranges.iter().map(move |range| (*range, Exclusion::Services(name.clone()))));
        let mut seen = BTreeSet::new();
        nodes
            .chain(gateways)
            .chain(special)
            .chain(pods)
            .chain(services)
            .filter(|(range, _)| seen.insert(*range))
            .collect()
    }
}

/// The addresses of a subnet that no host on it can have: network and broadcast address, for IPv6 the subnet-router
/// anycast address (RFC 4291 section 2.6.1). Links between two hosts have none (RFC 3021, RFC 6164).
fn reserved(net: IpNet) -> Vec<IpAddr> {
    match net {
        IpNet::V4(v4) if v4.prefix_len() < 31 => vec![net.network(), net.broadcast()],
        IpNet::V6(v6) if v6.prefix_len() < 127 => vec![net.network()],
        _ => Vec::new(),
    }
}
