//! What the kernels of nodes do to an address, by what their speakers found.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use berth_api::Reason;
use berth_api::crd::{Layer2Assignment, Trap};

use crate::placement::{Node, named};

/// What is to be said of an address that is announced, if a kernel spoils it. The worse comes first: of two that answer, one is wrong.
pub(super) fn spoils(
    nodes: &BTreeMap<String, Node>,
    address: IpAddr,
    assignment: Option<&Layer2Assignment>,
) -> Option<(Reason, String)> {
    let assignment = assignment.filter(|_| address.is_ipv4())?;
    let has_subnet = |node: &Node, interface: &str| {
        let mut interfaces = node.interfaces.iter().filter(|i| i.name == interface);
        interfaces.any(|i| i.addresses.iter().any(|net| net.contains(&address)))
    };
    let traps = nodes.iter().flat_map(|(name, node)| node.kernel_traps.iter().map(move |trap| (name, node, trap)));
    let traps = traps.filter(|(_, node, found)| has_subnet(node, &found.interface));
    // Whether or not such a node has a part in the address, its kernel answers.
    let answering: BTreeSet<_> =
        traps.clone().filter(|(.., found)| found.trap == Trap::ArpIgnore).map(|(name, ..)| name.clone()).collect();
    if !answering.is_empty() {
        let message = format!(
            "kube-proxy's IPVS mode has the address on kube-ipvs0, and the kernels of these nodes answer ARP for it beside its owner: {}; set \
             `ipvs.strictARP: true` in kube-proxy's configuration, or net.ipv4.conf.all.arp_ignore to 1 there",
            named(answering.into_iter().collect())
        );
        return Some((Reason::ArpIgnore, message));
    }
    let owner = assignment.members.first()?;
    let is_strict = |(name, _, found): &(&String, &Node, &berth_api::crd::KernelTrap)| {
        **name == owner.node && found.trap == Trap::ReversePathFilter && found.interface == owner.interface
    };
    let mut traps = traps;
    let (name, _, found) = traps.find(is_strict)?;
    let interface = &found.interface;
    let message = format!(
        "node {name}, which is to answer, drops what comes from beyond the subnet of {interface}, because rp_filter is strict there and the routes \
         of the node lead over another interface; set net.ipv4.conf.{interface}.rp_filter to 2 on it, or add a route"
    );
    Some((Reason::ReversePathFilter, message))
}

#[cfg(test)]
mod tests {
    use berth_api::MacAddr;
    use berth_api::crd::{Interface, KernelTrap, Member};

    use super::*;

    const TRAPS: [(&str, Trap); 2] = [("ArpIgnore", Trap::ArpIgnore), ("ReversePathFilter", Trap::ReversePathFilter)];

    /// Three nodes with two interfaces, of which these have traps: `node interface trap`.
    fn nodes(traps: &[&str]) -> BTreeMap<String, Node> {
        let interface = |name: &str, net: String| Interface {
            name: name.to_owned(),
            mac: MacAddr([2, 0, 0, 0, 0, 1]),
            addresses: vec![net.parse().unwrap()],
        };
        let node = |n: usize| {
            let name = format!("node-{n}");
            let mine = traps.iter().filter_map(|text| {
                let mut words = text.split(' ');
                (words.next() == Some(&name)).then_some(())?;
                let interface = words.next().unwrap().to_owned();
                let trap = words.next().unwrap();
                Some(KernelTrap { interface, trap: TRAPS.iter().find(|(name, _)| *name == trap).unwrap().1 })
            });
            let interfaces = vec![
                interface("eth0", format!("192.0.2.{n}/24")),
                interface("eth1", format!("198.51.100.{n}/24")),
                interface("eth2", format!("2001:db8::{n}/64")),
            ];
            let node = Node { interfaces, kernel_traps: mine.collect(), ..Node::default() };
            (name, node)
        };
        (1..=3).map(node).collect()
    }

    #[test]
    fn a_kernel_spoils_the_addresses_in_the_subnet_of_its_interface() {
        // node-1 owns, on eth0, node-2 stands by.
        let member = |n: u8, interface: &str| Member {
            node: format!("node-{n}"),
            interface: interface.to_owned(),
            address: "192.0.2.1".parse().unwrap(),
            mac: MacAddr([2, 0, 0, 0, 0, n]),
        };
        let assignment = |interface: &str| Layer2Assignment {
            owner: Some("node-1".to_owned()),
            standbys: vec!["node-2".to_owned()],
            epoch: 1,
            members: vec![member(1, interface), member(2, interface)],
        };
        for (what, traps, address, expected) in [
            ("nothing", &[][..], "192.0.2.200", ""),
            ("the owner's", &["node-1 eth0 ArpIgnore"], "192.0.2.200", "ArpIgnore node-1"),
            ("that of one without a part", &["node-3 eth0 ArpIgnore"], "192.0.2.200", "ArpIgnore node-3"),
            ("of another subnet", &["node-1 eth1 ArpIgnore"], "192.0.2.200", ""),
            ("two", &["node-2 eth0 ArpIgnore", "node-3 eth0 ArpIgnore"], "192.0.2.200", "ArpIgnore node-2; node-3"),
            ("no ARP", &["node-1 eth2 ArpIgnore", "node-1 eth2 ReversePathFilter"], "2001:db8::200", ""),
            ("the owner's filter", &["node-1 eth0 ReversePathFilter"], "192.0.2.200", "ReversePathFilter node-1"),
            ("a standby's filter", &["node-2 eth0 ReversePathFilter"], "192.0.2.200", ""),
            ("a filter elsewhere", &["node-1 eth1 ReversePathFilter"], "192.0.2.200", ""),
            ("both", &["node-1 eth0 ReversePathFilter", "node-2 eth0 ArpIgnore"], "192.0.2.200", "ArpIgnore node-2"),
        ] {
            let address: IpAddr = address.parse().unwrap();
            let interface = if address.is_ipv4() { "eth0" } else { "eth2" };
            let said = spoils(&nodes(traps), address, Some(&assignment(interface)));
            let told = said.map(|(reason, message)| {
                let names = match reason {
                    Reason::ArpIgnore => message.split("owner: ").nth(1).and_then(|rest| rest.split("; set").next()),
                    _ => message.split(' ').nth(1).map(|name| name.trim_end_matches(',')),
                };
                format!("{reason} {}", names.unwrap_or_default())
            });
            assert_eq!(told.unwrap_or_default(), expected, "{what}");
        }
        assert_eq!(spoils(&nodes(&["node-1 eth0 ArpIgnore"]), "192.0.2.200".parse().unwrap(), None), None);
    }
}
