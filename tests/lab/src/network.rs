//! The lab's wires: a bridge, nodes and a client on it, and a router with a remote client behind it.
//!
//! ```text
//!   remote 198.51.100.100 --- wan 198.51.100.1 [router] lan 192.0.2.2 --+
//!   client 192.0.2.100 -------------------------------------------------+
//!   node-1 192.0.2.11 (pods 10.244.1.0/24) -----------------------------+--- bridge `lan` 192.0.2.1
//!   node-2 192.0.2.12 (pods 10.244.2.0/24) -----------------------------+    (API server, controller)
//! ```
//!
//! Every host has an IPv6 address too, with the last number of its IPv4 address written in the same digits: `2001:db8:2::11` is
//! node-1, `2001:db8:51::100` the remote client, `fd00:10:244:1::2` the first pod of node-1. Each port of the bridge is named after the host at its other end, whose interface is `eth0` (the router has `lan` and
//! `wan`). Ethernet addresses are `02:00` and the four bytes of the host's IP address.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::{Context as _, Result};
use berth_api::MacAddr;

use crate::berth::HEARTBEAT_PORT;
use crate::names;
use crate::netns::Netns;
use crate::state::{HostRecord, Role};
use crate::tool::{run, tool};

/// The API server's address, and the bridge's.
pub const API_ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// The router's address on the LAN.
pub const ROUTER_ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
/// The address of the client on the LAN.
pub const CLIENT_ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 100);
/// The address of the client behind the router.
pub const REMOTE_ADDRESS: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 100);
/// The router's address on the remote client's side.
const WAN_ADDRESS: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// The first three numbers of the IPv6 addresses on the LAN.
const LAN_PREFIX6: [u16; 3] = [0x2001, 0xdb8, 0x2];
/// The same on the other side of the router.
const WAN_PREFIX6: [u16; 3] = [0x2001, 0xdb8, 0x51];
/// The same of pods. Their node's number follows.
const POD_PREFIX6: [u16; 3] = [0xfd00, 0x10, 0x244];
/// The interface of a node and of a client.
pub const INTERFACE: &str = "eth0";
/// The ranges of all pods, as Kubernetes' flags take them.
pub const POD_RANGES: &str = "10.244.0.0/16,fd00:10:244::/48";
/// The ranges of cluster IPs; the first is what a Service gets that asks for one family and does not say which.
pub const SERVICE_RANGES: &str = "10.96.0.0/16,fd00:10:96::/112";
/// Most nodes that the address plan has room for; 192.0.2.128 and up stay free for address pools.
pub const NODES_MAX: u8 = 80;

const BRIDGE: &str = "lan";

/// Settings of every host: hosts forward for their pods, and paths may be asymmetric, as behind a virtual IP.
const FORWARDING: &[(&str, &str)] = &[
    ("net/ipv4/ip_forward", "1"),
    ("net/ipv4/conf/all/rp_filter", "0"),
    ("net/ipv4/conf/default/rp_filter", "0"),
    ("net/ipv6/conf/all/forwarding", "1"),
    ("net/ipv6/conf/default/forwarding", "1"),
];

/// Settings of every namespace, before its links are made. Of IPv6's chatter what nothing here needs stays off the wires: nobody
/// asks for routers (RFC 4861), and addresses are used at once, without duplicate address detection (RFC 4862) and the second that
/// it takes.
pub(crate) const IPV6_AT_ONCE: &[(&str, &str)] = &[
    ("net/ipv6/conf/all/disable_ipv6", "0"),
    ("net/ipv6/conf/default/disable_ipv6", "0"),
    ("net/ipv6/conf/all/accept_dad", "0"),
    ("net/ipv6/conf/default/accept_dad", "0"),
    ("net/ipv6/conf/all/accept_ra", "0"),
    ("net/ipv6/conf/default/accept_ra", "0"),
    ("net/ipv6/conf/default/router_solicitations", "0"),
];

/// Drops between pairs of the bridge's ports: all frames, or the heartbeats of Berth's speakers alone. The sets are filled by faults.
fn fault_rules() -> String {
    format!(
        "table bridge faults {{
  set cut {{ type ifname . ifname; }}
  set unheard {{ type ifname . ifname; }}
  chain forward {{
    type filter hook forward priority 0; policy accept;
    iifname . oifname @cut counter drop
    iifname . oifname @unheard udp dport {HEARTBEAT_PORT} counter drop
  }}
}}
"
    )
}

/// A network namespace that stands for a machine.
#[derive(Debug, Clone)]
pub struct Host {
    /// Its name.
    pub name: String,
    /// What it is.
    pub role: Role,
    /// Its address; for the router that on the LAN.
    pub address: Ipv4Addr,
    /// Its IPv6 address, likewise.
    pub address6: Ipv6Addr,
    /// The namespace.
    pub netns: Netns,
}

impl Host {
    /// The Ethernet address of its interface on the LAN (the remote client's: on the router's other side).
    pub fn mac(&self) -> MacAddr {
        mac(self.address)
    }

    pub(crate) fn record(&self) -> HostRecord {
        let netns = self.netns.path().map(std::path::Path::to_path_buf);
        HostRecord { name: self.name.clone(), role: self.role, address: self.address, address6: self.address6, netns }
    }
}

/// All hosts of a lab.
#[derive(Debug, Clone)]
pub(crate) struct Network {
    pub root: Host,
    pub nodes: Vec<Host>,
    pub client: Host,
    pub router: Host,
    pub remote: Host,
}

impl Network {
    /// Builds the wires inside the lab's own root namespace.
    pub(crate) fn build(nodes: u8) -> Result<Self> {
        let mut root = tool("ip");
        run(root.args(["-batch", "-"]), &namespaces(nodes)).context("making the lab's network namespaces")?;
        let host = |name: &str, role, address| {
            let netns = Netns::named(name)?;
            netns.sysctl(IPV6_AT_ONCE)?;
            netns.sysctl(FORWARDING)?;
            anyhow::Ok(Host { name: name.to_owned(), role, address, address6: address6(address), netns })
        };
        let root_netns = Netns::root(names::CONTROL_PLANE)?;
        root_netns.sysctl(IPV6_AT_ONCE)?;
        root_netns.sysctl(FORWARDING)?;
        let network = Self {
            root: Host {
                name: names::CONTROL_PLANE.to_owned(),
                role: Role::ControlPlane,
                address: API_ADDRESS,
                address6: address6(API_ADDRESS),
                netns: root_netns,
            },
            nodes: (1..=nodes).map(|n| host(&names::node(n), Role::Node, node_address(n))).collect::<Result<_>>()?,
            client: host(names::CLIENT, Role::Client, CLIENT_ADDRESS)?,
            router: host(names::ROUTER, Role::Router, ROUTER_ADDRESS)?,
            remote: host(names::REMOTE, Role::Remote, REMOTE_ADDRESS)?,
        };
        run(&mut batch(&network.root.netns), &root_links(nodes)).context("building the lab's bridge")?;
        for (number, node) in (1..).zip(&network.nodes) {
            run(&mut batch(&node.netns), &node_links(number, nodes))
                .with_context(|| format!("wiring {}", node.name))?;
        }
        run(&mut batch(&network.client.netns), &end_links(CLIENT_ADDRESS, ROUTER_ADDRESS))
            .context("wiring the client")?;
        run(&mut batch(&network.router.netns), &router_links()).context("wiring the router")?;
        run(&mut batch(&network.remote.netns), &end_links(REMOTE_ADDRESS, WAN_ADDRESS))
            .context("wiring the remote client")?;
        run(tool("nft").args(["-f", "-"]), &fault_rules()).context("making the bridge's fault rules")?;
        Ok(network)
    }

    /// Every host, the control plane's first.
    pub(crate) fn hosts(&self) -> impl Iterator<Item = &Host> {
        [&self.root].into_iter().chain(&self.nodes).chain([&self.client, &self.router, &self.remote])
    }
}

/// `ip -batch -` in a namespace.
pub(crate) fn batch(netns: &Netns) -> std::process::Command {
    let mut command = tool("ip");
    if netns.path().is_some() {
        command.args(["-netns", netns.name()]);
    }
    command.args(["-batch", "-"]);
    command
}

/// The address of the `number`-th node, from 1.
pub fn node_address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2, 10 + number)
}

/// The IPv6 address of a host, on the LAN or behind the router, that has this IPv4 address.
pub fn address6(address: Ipv4Addr) -> Ipv6Addr {
    let [first, .., last] = address.octets();
    let [a, b, c] = if first == REMOTE_ADDRESS.octets()[0] { WAN_PREFIX6 } else { LAN_PREFIX6 };
    Ipv6Addr::new(a, b, c, 0, 0, 0, 0, same_digits(last))
}

/// The address of a node's `index`-th pod.
pub(crate) fn pod_address(node: u8, index: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 244, node, index)
}

/// The IPv6 address of a node's `index`-th pod.
pub(crate) fn pod_address6(node: u8, index: u8) -> Ipv6Addr {
    let [a, b, c] = POD_PREFIX6;
    Ipv6Addr::new(a, b, c, same_digits(node), 0, 0, 0, same_digits(index))
}

/// The ranges of a node's pods.
pub(crate) fn pod_ranges(node: u8) -> [String; 2] {
    [format!("10.244.{node}.0/24"), format!("{}/64", pod_address6(node, 0))]
}

/// The number that reads in hexadecimal as `number` does in decimal: 0x11 for 11.
fn same_digits(number: u8) -> u16 {
    let number = u16::from(number);
    (number / 100) << 8 | (number / 10 % 10) << 4 | (number % 10)
}

/// A locally administered Ethernet address that can be read as the host's IP address.
pub fn mac(address: Ipv4Addr) -> MacAddr {
    let [a, b, c, d] = address.octets();
    MacAddr([0x02, 0, a, b, c, d])
}

fn namespaces(nodes: u8) -> String {
    let names = (1..=nodes).map(names::node).chain([names::CLIENT, names::ROUTER, names::REMOTE].map(str::to_owned));
    names.fold(String::new(), |text, name| text + "netns add " + &name + "\n")
}

fn root_links(nodes: u8) -> String {
    let mut text = format!(
        "link set lo up\n\
         link add name {BRIDGE} address {} type bridge mcast_snooping 0\n\
         addr add {API_ADDRESS}/24 dev {BRIDGE}\n\
         addr add {}/64 dev {BRIDGE}\n\
         link set {BRIDGE} up\n",
        mac(API_ADDRESS),
        address6(API_ADDRESS),
    );
    let nodes_on_it = (1..=nodes).map(|n| (names::node(n), INTERFACE, node_address(n)));
    let others = [(names::CLIENT, INTERFACE, CLIENT_ADDRESS), (names::ROUTER, "lan", ROUTER_ADDRESS)]
        .map(|(n, i, a)| (n.to_owned(), i, a));
    for (name, interface, address) in nodes_on_it.chain(others) {
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "link add name {name} type veth peer name {interface} address {} netns {name}\n\
             link set {name} addrgenmode none master {BRIDGE} up\n",
            mac(address)
        );
    }
    text + &routes_to_pods(nodes, None)
}

fn node_links(number: u8, nodes: u8) -> String {
    end_links(node_address(number), ROUTER_ADDRESS) + &routes_to_pods(nodes, Some(number))
}

fn end_links(address: Ipv4Addr, gateway: Ipv4Addr) -> String {
    format!(
        "link set lo up\n\
         addr add {address}/24 dev {INTERFACE}\n\
         addr add {}/64 dev {INTERFACE}\n\
         link set {INTERFACE} up\n\
         route add default via {gateway}\n\
         route add default via {}\n",
        address6(address),
        address6(gateway),
    )
}

fn router_links() -> String {
    let (wan, remote) = (mac(WAN_ADDRESS), mac(REMOTE_ADDRESS));
    format!(
        "link set lo up\n\
         addr add {ROUTER_ADDRESS}/24 dev lan\n\
         addr add {}/64 dev lan\n\
         link set lan up\n\
         link add name wan address {wan} type veth peer name {INTERFACE} address {remote} netns {remote_name}\n\
         addr add {WAN_ADDRESS}/24 dev wan\n\
         addr add {}/64 dev wan\n\
         link set wan up\n",
        address6(ROUTER_ADDRESS),
        address6(WAN_ADDRESS),
        remote_name = names::REMOTE
    )
}

fn routes_to_pods(nodes: u8, except: Option<u8>) -> String {
    let others = (1..=nodes).filter(|n| Some(*n) != except);
    others.fold(String::new(), |text, n| {
        let [range, range6] = pod_ranges(n);
        let gateway = node_address(n);
        text + &format!("route add {range} via {gateway}\nroute add {range6} via {}\n", address6(gateway))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ethernet_address_reads_as_the_hosts_ip_address() {
        assert_eq!(mac(node_address(1)).to_string(), "02:00:c0:00:02:0b");
    }

    #[test]
    fn an_ipv6_address_has_the_digits_of_the_ipv4_address() {
        for (address, expected) in [
            (API_ADDRESS, "2001:db8:2::1"),
            (node_address(1), "2001:db8:2::11"),
            (CLIENT_ADDRESS, "2001:db8:2::100"),
            (REMOTE_ADDRESS, "2001:db8:51::100"),
        ] {
            assert_eq!(address6(address).to_string(), expected, "{address}");
        }
        assert_eq!(pod_address6(12, 254).to_string(), "fd00:10:244:12::254");
    }

    #[test]
    fn every_node_has_a_route_to_the_pods_of_every_other() {
        let text = node_links(2, 3);
        assert!(text.contains("route add 10.244.1.0/24 via 192.0.2.11\n"));
        assert!(text.contains("route add 10.244.3.0/24 via 192.0.2.13\n"));
        assert!(text.contains("route add fd00:10:244:3::/64 via 2001:db8:2::13\n"));
        assert!(!text.contains("10.244.2.0/24") && !text.contains("fd00:10:244:2::"));
    }

    #[test]
    fn no_two_hosts_share_an_address() {
        let mut addresses = vec![API_ADDRESS, ROUTER_ADDRESS, CLIENT_ADDRESS];
        addresses.extend((1..=NODES_MAX).map(node_address));
        let count = addresses.len();
        addresses.sort_unstable();
        addresses.dedup();
        assert_eq!(addresses.len(), count);
        assert!(addresses.iter().all(|address| address.octets()[3] < 128), "room for pools");
    }
}
