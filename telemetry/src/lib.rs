//! What every process of Berth shows: logs, metrics, health endpoints, events; and how it is told to stop.

mod api_error;
mod event;
mod health;
mod listen;
mod logs;
mod metrics;
mod server;
mod signal;

use std::net::SocketAddr;

pub use api_error::brief;
pub use event::event;
pub use health::{Gate, Health};
pub use listen::listen;
pub use logs::{LogFormat, init_logs};
pub use metrics::{MetricDoc, MetricKind, Registry};
pub use server::serve;
pub use signal::shutdown_on_signal;

/// Command-line flags that every process has.
#[derive(clap::Args, Clone, Debug)]
pub struct TelemetryArgs {
    /// What to log: a level, or a filter such as `info,berth_speaker=debug`
    #[arg(long, env = "BERTH_LOG", default_value = "info", value_name = "FILTER")]
    pub log_level: String,

    /// How to log; by default for people on a terminal, as JSON elsewhere
    #[arg(long, env = "BERTH_LOG_FORMAT", value_enum)]
    pub log_format: Option<LogFormat>,

    /// Where /metrics, /healthz and /readyz are served; [::] is every address of both families
    #[arg(long, env = "BERTH_HTTP_ADDRESS", default_value = "[::]:7481", value_name = "IP:PORT")]
    pub http_address: SocketAddr,
}
