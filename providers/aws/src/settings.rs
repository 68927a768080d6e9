//! What an operator says about all load balancers.

use std::collections::BTreeSet;
use std::str::FromStr;
use std::time::Duration;

use berth_provider::Namespaces;

use crate::intent::TargetKind;

/// The node ports of a cluster, as its API server is told by `--service-node-port-range`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodePorts {
    /// The first.
    pub from: u16,
    /// The last.
    pub to: u16,
}

impl Default for NodePorts {
    /// Those of an API server that is told nothing.
    fn default() -> Self {
        Self { from: 30_000, to: 32_767 }
    }
}

/// Words that are no range of ports.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no range of ports; write the first and the last one, such as 30000-32767")]
pub struct NodePortsError(String);

impl FromStr for NodePorts {
    type Err = NodePortsError;

    fn from_str(text: &str) -> Result<Self, NodePortsError> {
        let range =
            text.split_once('-').and_then(|(from, to)| Some((from.trim().parse().ok()?, to.trim().parse().ok()?)));
        match range {
            Some((from, to)) if 0 < from && from <= to => Ok(Self { from, to }),
            _ => Err(NodePortsError(text.to_owned())),
        }
    }
}

/// What is admitted where. Where nothing is said, internal load balancers with objects of their own, and no more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Admission {
    /// Where a Service may ask for a load balancer that the internet reaches.
    pub internet_facing: Namespaces,
    /// Where a Service may name Elastic IPs, subnets and security groups that exist.
    pub references: Namespaces,
    /// How many load balancers the Services of one namespace may have; no limit where it is not given.
    pub load_balancers_per_namespace: Option<usize>,
}

/// What an operator says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The cluster's name, which subnets are tagged with (`kubernetes.io/cluster/NAME`).
    pub cluster: String,
    /// The UID of the namespace kube-system: tells this cluster from another of the same name.
    pub cluster_uid: String,
    /// The VPC that nodes are in.
    pub vpc: String,
    /// Where traffic goes when the Service does not say.
    pub target_kind: TargetKind,
    /// The node ports of the cluster, which nodes let in from load balancers as one.
    pub node_ports: NodePorts,
    /// The security policy of TLS listeners when the Service does not name one.
    pub ssl_policy: String,
    /// Keys of tags that somebody else manages on our objects: they are neither set nor removed.
    pub external_tags: BTreeSet<String>,
    /// How long a load balancer stays whose place another one has taken and that no Service's status names any more.
    pub replaced_stays: Duration,
    /// What is admitted where.
    pub admission: Admission,
}

/// The name of a load balancer is good for 60 s to who has asked DNS (AWS's time to live); whoever publishes it under a name of his own, as
/// external-dns does each minute, adds as much again.
const REPLACED_STAYS: Duration = Duration::from_mins(2);

impl Settings {
    /// Those of ALBC where nothing else is said.
    pub fn of(cluster: &str, cluster_uid: &str, vpc: &str) -> Self {
        Self {
            cluster: cluster.to_owned(),
            cluster_uid: cluster_uid.to_owned(),
            vpc: vpc.to_owned(),
            target_kind: TargetKind::Instance,
            node_ports: NodePorts::default(),
            ssl_policy: "ELBSecurityPolicy-2016-08".to_owned(),
            external_tags: BTreeSet::new(),
            replaced_stays: REPLACED_STAYS,
            admission: Admission::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_ports_are_a_range_from_the_first_to_the_last() {
        for (text, expected) in [
            ("30000-32767", Some(NodePorts::default())),
            (" 80 - 80 ", Some(NodePorts { from: 80, to: 80 })),
            ("1-65535", Some(NodePorts { from: 1, to: 65_535 })),
            ("0-80", None),
            ("81-80", None),
            ("30000", None),
            ("30000-65536", None),
            ("", None),
        ] {
            assert_eq!(text.parse::<NodePorts>().ok(), expected, "{text}");
        }
    }
}
