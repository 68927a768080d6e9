//! The network of a pod: a namespace of its own behind its node, joined to it by one link.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context as _, Result};

use crate::netns::Netns;
use crate::network::{INTERFACE, IPV6_AT_ONCE, batch, mac, pod_address, pod_address6};
use crate::node::Node;
use crate::tool::{run, tool};

/// The number of a node's own addresses on its pods' links.
const GATEWAY: u8 = 1;

/// A pod's network. Dropping it changes nothing; it lives until it is removed.
#[derive(Debug)]
pub(crate) struct PodNetwork {
    address: Ipv4Addr,
    address6: Ipv6Addr,
    netns: Netns,
    node: Netns,
    /// Its link's name on the node.
    link: String,
}

impl PodNetwork {
    /// Makes the namespace `name`, gives it the node's next pod addresses and joins it to the node. When that fails half-way,
    /// nothing of it is left.
    pub(crate) fn create(node: &Node, name: &str) -> Result<Self> {
        let (number, index) = (node.number(), node.take_pod_index()?);
        run(tool("ip").args(["netns", "add", name]), "")?;
        let network = Self {
            address: pod_address(number, index),
            address6: pod_address6(number, index),
            netns: Netns::named(name)?,
            node: node.netns().clone(),
            link: format!("veth-{index}"),
        };
        if let Err(error) = network.wire(node) {
            // Its end of the link takes the other along.
            run(tool("ip").args(["netns", "del", name]), "")?;
            return Err(error).with_context(|| format!("wiring {name}"));
        }
        Ok(network)
    }

    /// Its addresses, that of the cluster's first family first.
    pub(crate) fn addresses(&self) -> [IpAddr; 2] {
        [self.address.into(), self.address6.into()]
    }

    /// Its IPv4 address.
    pub(crate) fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// Its IPv6 address.
    pub(crate) fn address6(&self) -> Ipv6Addr {
        self.address6
    }

    /// Its namespace.
    pub(crate) fn netns(&self) -> &Netns {
        &self.netns
    }

    /// Takes the link away and gives the namespace up, which lives on for as long as something runs in it.
    pub(crate) fn remove(&self) -> Result<()> {
        run(&mut batch(&self.node), &format!("link del {}\n", self.link))?;
        run(tool("ip").args(["netns", "del", self.netns.name()]), "")?;
        Ok(())
    }

    /// A point-to-point link: the node routes between its pods, so that what it translates passes it both ways.
    fn wire(&self, node: &Node) -> Result<()> {
        let Self { address, address6, link, netns, .. } = self;
        let (gateway, gateway6) = (pod_address(node.number(), GATEWAY), pod_address6(node.number(), GATEWAY));
        netns.sysctl(IPV6_AT_ONCE)?;
        let on_node = format!(
            "link add name {link} address {gateway_mac} type veth peer name {INTERFACE} address {pod_mac} netns {name}\n\
             addr add {gateway}/32 dev {link}\n\
             addr add {gateway6}/128 dev {link}\n\
             link set {link} up\n\
             route add {address} dev {link} src {node_address}\n\
             route add {address6} dev {link} src {node_address6}\n",
            gateway_mac = mac(gateway),
            pod_mac = mac(*address),
            name = netns.name(),
            node_address = node.address(),
            node_address6 = node.address6(),
        );
        run(&mut batch(&self.node), &on_node)?;
        let in_pod = format!(
            "link set lo up\n\
             addr add {address}/32 dev {INTERFACE}\n\
             addr add {address6}/128 dev {INTERFACE}\n\
             link set {INTERFACE} up\n\
             route add {gateway} dev {INTERFACE} scope link\n\
             route add default via {gateway}\n\
             route add {gateway6} dev {INTERFACE}\n\
             route add default via {gateway6}\n"
        );
        run(&mut batch(netns), &in_pod)?;
        Ok(())
    }
}
