//! Command line of the controller.

use berth_telemetry::TelemetryArgs;
use clap::Parser;

/// Gives addresses to Services of type LoadBalancer and names the nodes that answer for them
#[derive(Parser, Clone, Debug)]
#[command(
    name = "berth-controller",
    version,
    after_help = "Examples:
  Serve Services that have no loadBalancerClass, too:
    berth-controller --default-provider pool
  Run outside the cluster, with the rights of a kubeconfig:
    KUBECONFIG=./kubeconfig berth-controller --log-format human"
)]
pub struct Args {
    /// Who serves a Service without `spec.loadBalancerClass`
    #[arg(long, env = "BERTH_DEFAULT_PROVIDER", value_enum, default_value = "none")]
    pub default_provider: DefaultProvider,

    /// Logs and endpoints.
    #[command(flatten)]
    pub telemetry: TelemetryArgs,
}

/// Who serves a Service that names no class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum DefaultProvider {
    /// Nobody here: such Services are another controller's.
    None,
    /// The address pools.
    Pool,
}
