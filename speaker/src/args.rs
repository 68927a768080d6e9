//! Command-line flags.

use std::net::SocketAddr;
use std::path::PathBuf;

use berth_machine::NodeName;
use berth_telemetry::TelemetryArgs;
use berth_wire::heartbeat::envelope::Authentication;

use crate::refresh_interval::RefreshInterval;

/// Prefixes of interfaces that belong to containers, pods and overlays: addresses announced there reach nobody outside.
pub const DEFAULT_EXCLUDED: &str =
    "docker,cbr,dummy,virbr,lxcbr,veth,cali,vxlan,tunl,flannel,cilium,kube-ipvs,cni,nodelocaldns,lxc";

/// Beside MetalLB's 7946, so that both can run on a node while one replaces the other, and below the ephemeral ports
/// and the node ports of Services.
pub const DEFAULT_HEARTBEAT_PORT: u16 = 7480;

/// Where the keys of the heartbeats are mounted.
pub const DEFAULT_HEARTBEAT_KEY_DIR: &str = "/var/run/berth/heartbeat";

pub use crate::dataplane::ports::Mode as HealthCheckMode;

/// Where kube-proxy serves `/healthz` unless it is told otherwise.
pub const DEFAULT_KUBE_PROXY_HEALTH: &str = "127.0.0.1:10256";

/// Whether heartbeats are authenticated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum HeartbeatAuth {
    /// By a key that all speakers have
    Required,
    /// Not at all: whoever is on the link can make addresses move. For tests without a Secret
    Off,
}

impl From<HeartbeatAuth> for Authentication {
    fn from(wanted: HeartbeatAuth) -> Self {
        match wanted {
            HeartbeatAuth::Required => Self::Required,
            HeartbeatAuth::Off => Self::Off,
        }
    }
}

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
        Runs as a pod, with the token of its ServiceAccount. Needs the capability NET_RAW and the network of the node.\n\n\
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

    /// Whether heartbeats are authenticated; the same on every node
    #[arg(long, env = "BERTH_HEARTBEAT_AUTH", value_enum, value_name = "MODE", default_value = "required")]
    pub heartbeat_auth: HeartbeatAuth,

    /// Directory of the keys of the heartbeats: files of 32 random bytes, each named by the number of its generation
    #[arg(long, env = "BERTH_HEARTBEAT_KEY_DIR", value_name = "DIRECTORY", default_value = DEFAULT_HEARTBEAT_KEY_DIR)]
    pub heartbeat_key_dir: PathBuf,

    /// Beginnings of the names of interfaces that never announce, such as `storage,docker`; replaces the default list
    #[arg(
        long,
        env = "BERTH_EXCLUDE_INTERFACES",
        value_name = "PREFIX,...",
        value_delimiter = ',',
        default_value = DEFAULT_EXCLUDED
    )]
    pub exclude_interfaces: Vec<String>,

    /// Whether the health check node ports of Services with the Local policy are answered on
    #[arg(long, env = "BERTH_HEALTH_CHECK_SERVER", value_enum, value_name = "MODE", default_value = "auto")]
    pub health_check_server: HealthCheckMode,

    /// Where kube-proxy of this node says whether it is well (its --healthz-bind-address)
    #[arg(long, env = "BERTH_KUBE_PROXY_HEALTH", value_name = "IP:PORT", default_value = DEFAULT_KUBE_PROXY_HEALTH)]
    pub kube_proxy_health: SocketAddr,

    /// How often each address that the node answers for is announced again, spread over the interval: `off`, or 10s to 24h
    #[arg(long, env = "BERTH_REFRESH_INTERVAL", value_name = "TIME", default_value = "off")]
    pub refresh_interval: RefreshInterval,

    /// Route addresses that a RouteAdvertisement covers, for a routing daemon on the node; needs the capability NET_ADMIN
    #[arg(long, env = "BERTH_ROUTES")]
    pub routes: bool,

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
    fn heartbeats_are_authenticated_unless_somebody_says_otherwise() {
        let auth = |more: &[&str]| {
            let args = Args::try_parse_from(["berth-speaker", "--node-name", "a"].iter().chain(more));
            args.map(|args| Authentication::from(args.heartbeat_auth)).ok()
        };
        assert_eq!(auth(&[]), Some(Authentication::Required));
        assert_eq!(auth(&["--heartbeat-auth", "off"]), Some(Authentication::Off));
        assert_eq!(auth(&["--heartbeat-auth", "maybe"]), None);
    }

    #[test]
    fn routes_are_made_only_where_somebody_says_so() {
        let routes = |more: &[&str]| {
            let args = Args::try_parse_from(["berth-speaker", "--node-name", "a"].iter().chain(more));
            args.map(|args| args.routes).ok()
        };
        assert_eq!((routes(&[]), routes(&["--routes"])), (Some(false), Some(true)));
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
