//! Command-line flags.

use berth_machine::NodeName;
use berth_telemetry::TelemetryArgs;

/// Prefixes of interfaces that belong to containers, pods and overlays: addresses announced there reach nobody outside.
pub const DEFAULT_EXCLUDED: &str =
    "docker,cbr,dummy,virbr,lxcbr,veth,cali,vxlan,tunl,flannel,cilium,kube-ipvs,cni,nodelocaldns,lxc";

/// Beside MetalLB's 7946, so that both can run on a node while one replaces the other, and below the ephemeral ports
/// and the node ports of Services.
pub const DEFAULT_HEARTBEAT_PORT: u16 = 7480;

/// Answers for the addresses of Services on this node's network, and takes over those of a node that falls silent.
#[derive(clap::Parser, Clone, Debug)]
#[command(
    name = "berth-speaker",
    version,
    max_term_width = 100,
    after_help = "Examples:\n  \
        berth-speaker --node-name worker-1\n  \
        NODE_NAME=worker-1 BERTH_LOG=debug berth-speaker\n  \
        berth-speaker --node-name worker-1 --exclude-interfaces storage,docker,veth\n\n\
        The cluster is found by KUBECONFIG, or as a pod is told. Needs the capability NET_RAW and the network of the node.\n\n\
        Exit codes: 0 stopped when told to, 1 failed, 2 wrong flags."
)]
pub struct Args {
    /// Name of the Node object of this node
    #[arg(long, env = "NODE_NAME", value_name = "NAME", value_parser = NodeName::new)]
    pub node_name: NodeName,

    /// UDP port on which speakers hear each other; the same on every node
    #[arg(
        long,
        env = "BERTH_HEARTBEAT_PORT",
        value_name = "PORT",
        default_value_t = DEFAULT_HEARTBEAT_PORT,
        value_parser = clap::value_parser!(u16).range(1..)
    )]
    pub heartbeat_port: u16,

    /// Beginnings of the names of interfaces that never announce, such as `storage,docker`; replaces the default list
    #[arg(
        long,
        env = "BERTH_EXCLUDE_INTERFACES",
        value_name = "PREFIX,...",
        value_delimiter = ',',
        default_value = DEFAULT_EXCLUDED
    )]
    pub exclude_interfaces: Vec<String>,

    #[allow(missing_docs)]
    #[command(flatten)]
    pub telemetry: TelemetryArgs,
}

impl Args {
    /// The prefixes of excluded interfaces. An empty one, from an empty list or a stray comma, would exclude everything.
    pub fn excluded(&self) -> Vec<String> {
        self.exclude_interfaces.iter().map(|p| p.trim().to_owned()).filter(|p| !p.is_empty()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{CommandFactory, Parser};

    #[test]
    fn the_flags_are_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn an_empty_prefix_excludes_nothing() {
        for (flag, expected) in [("", &[][..]), ("storage, docker,", &["storage", "docker"][..])] {
            let args = Args::try_parse_from(["berth-speaker", "--node-name", "a", "--exclude-interfaces", flag]);
            assert_eq!(args.unwrap().excluded(), expected, "{flag:?}");
        }
    }

    #[test]
    fn what_is_no_name_of_a_node_is_refused() {
        for name in ["", "Worker", "a b"] {
            assert!(Args::try_parse_from(["berth-speaker", "--node-name", name]).is_err(), "{name:?}");
        }
    }
}
