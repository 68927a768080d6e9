//! The lab's wires: a bridge, nodes and a client on it, and a router with a remote client behind it.
//!
//! ```text
//!   remote 198.51.100.100 --- wan 198.51.100.1 [router] lan 192.0.2.2 --+
//!   client 192.0.2.100 -------------------------------------------------+
//!   node-1 192.0.2.11 (pods 10.244.1.0/24) -----------------------------+--- bridge `lan` 192.0.2.1
//!   node-2 192.0.2.12 (pods 10.244.2.0/24) -----------------------------+    (API server, controller)
//! ```
//!
//! Each port of the bridge is named after the host at its other end, whose interface is `eth0` (the router has `lan` and
//! `wan`). Ethernet addresses are `02:00` and the four bytes of the host's IP address.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use anyhow::{Context as _, Result};
use berth_api::MacAddr;

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
/// The interface of a node and of a client.
pub const INTERFACE: &str = "eth0";
/// The range of all pods.
pub const POD_RANGE: &str = "10.244.0.0/16";
/// The range of cluster IPs.
pub const SERVICE_RANGE: &str = "10.96.0.0/16";
/// Most nodes that the address plan has room for; 192.0.2.128 and up stay free for address pools.
pub const NODES_MAX: u8 = 80;

const BRIDGE: &str = "lan";

/// Settings of every namespace: hosts forward for their pods; paths may be asymmetric, as behind a virtual IP; and no
/// IPv6 chatter on wires whose packets are counted.
const SYSCTLS: &[(&str, &str)] = &[
    ("net/ipv4/ip_forward", "1"),
    ("net/ipv4/conf/all/rp_filter", "0"),
    ("net/ipv4/conf/default/rp_filter", "0"),
    ("net/ipv6/conf/all/disable_ipv6", "1"),
    ("net/ipv6/conf/default/disable_ipv6", "1"),
];

/// Drops frames between pairs of the bridge's ports. The set is filled by faults.
const FAULT_RULES: &str = "table bridge faults {
  set cut { type ifname . ifname; }
  chain forward {
    type filter hook forward priority 0; policy accept;
    iifname . oifname @cut counter drop
  }
}
";

/// A network namespace that stands for a machine.
#[derive(Debug, Clone)]
pub struct Host {
    /// Its name.
    pub name: String,
    /// What it is.
    pub role: Role,
    /// Its address; for the router that on the LAN.
    pub address: Ipv4Addr,
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
        HostRecord { name: self.name.clone(), role: self.role, address: self.address, netns }
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
            netns.sysctl(SYSCTLS)?;
            anyhow::Ok(Host { name: name.to_owned(), role, address, netns })
        };
        let root_netns = Netns::root(names::CONTROL_PLANE)?;
        root_netns.sysctl(SYSCTLS)?;
        let network = Self {
            root: Host {
                name: names::CONTROL_PLANE.to_owned(),
                role: Role::ControlPlane,
                address: API_ADDRESS,
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
        run(tool("nft").args(["-f", "-"]), FAULT_RULES).context("making the bridge's fault rules")?;
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

/// The address of a node's `index`-th pod.
pub(crate) fn pod_address(node: u8, index: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 244, node, index)
}

/// The range of a node's pods.
pub(crate) fn pod_range(node: u8) -> String {
    format!("10.244.{node}.0/24")
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
         link set {BRIDGE} up\n",
        mac(API_ADDRESS)
    );
    let nodes_on_it = (1..=nodes).map(|n| (names::node(n), INTERFACE, node_address(n)));
    let others = [(names::CLIENT, INTERFACE, CLIENT_ADDRESS), (names::ROUTER, "lan", ROUTER_ADDRESS)]
        .map(|(n, i, a)| (n.to_owned(), i, a));
    for (name, interface, address) in nodes_on_it.chain(others) {
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "link add name {name} type veth peer name {interface} address {} netns {name}\n\
             link set {name} master {BRIDGE} up\n",
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
         link set {INTERFACE} up\n\
         route add default via {gateway}\n"
    )
}

fn router_links() -> String {
    let (wan, remote) = (mac(WAN_ADDRESS), mac(REMOTE_ADDRESS));
    format!(
        "link set lo up\n\
         addr add {ROUTER_ADDRESS}/24 dev lan\n\
         link set lan up\n\
         link add name wan address {wan} type veth peer name {INTERFACE} address {remote} netns {remote_name}\n\
         addr add {WAN_ADDRESS}/24 dev wan\n\
         link set wan up\n",
        remote_name = names::REMOTE
    )
}

fn routes_to_pods(nodes: u8, except: Option<u8>) -> String {
    let others = (1..=nodes).filter(|n| Some(*n) != except);
    others.fold(String::new(), |text, n| text + &format!("route add {} via {}\n", pod_range(n), node_address(n)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ethernet_address_reads_as_the_hosts_ip_address() {
        assert_eq!(mac(node_address(1)).to_string(), "02:00:c0:00:02:0b");
    }

    #[test]
    fn every_node_has_a_route_to_the_pods_of_every_other() {
        let text = node_links(2, 3);
        assert!(text.contains("route add 10.244.1.0/24 via 192.0.2.11\n"));
        assert!(text.contains("route add 10.244.3.0/24 via 192.0.2.13\n"));
        assert!(!text.contains("10.244.2.0/24"));
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
