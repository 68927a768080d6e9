//! Instances and network interfaces, as `DescribeInstances` and `DescribeNetworkInterfaces` show them.

use std::net::IpAddr;

use ipnet::IpNet;

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its identity.
    pub id: String,
    /// Its private addresses of both families.
    pub addresses: Vec<IpAddr>,
    /// Ranges that are delegated to it (`Ipv4Prefixes`, `Ipv6Prefixes`): pods have addresses out of them, and no filter finds those.
    pub prefixes: Vec<IpNet>,
    /// Its security groups.
    pub security_groups: Vec<String>,
    /// Whether it is its instance's first (device index and network card 0): the one that takes an instance target's traffic.
    pub is_primary: bool,
}

impl Interface {
    /// Whether traffic to the address comes in by it.
    pub fn has(&self, address: IpAddr) -> bool {
        self.addresses.contains(&address) || self.prefixes.iter().any(|prefix| prefix.contains(&address))
    }
}

/// An instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// Its identity.
    pub id: String,
    /// Its network interfaces. One that is terminated has none.
    pub interfaces: Vec<Interface>,
}
