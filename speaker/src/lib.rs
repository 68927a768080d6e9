//! The speaker: announces the addresses of Services on its node's network. Drivers only; what is said on the wire and when
//! is decided by `berth-machine`, and how it looks is in `berth-wire`.

pub mod args;
pub mod rbac;
pub mod refresh_interval;
pub mod run;

mod announcements;
mod board;
mod clock;
mod dataplane;
mod engine;
mod events;
mod evidence;
mod gateways;
mod groups;
mod kernel;
mod keys;
mod links;
mod metrics;
#[cfg(test)]
mod netns;
mod retry;
mod routes;
mod sockets;
mod speaker_node;
mod status;

use berth_telemetry::MetricDoc;
use clap::CommandFactory;

/// The command line, for the reference page.
pub fn command() -> clap::Command {
    args::Args::command()
}

/// The metrics, for the reference page.
pub fn metrics_catalogue() -> Vec<MetricDoc> {
    let mut registry = metrics::registry();
    metrics::Metrics::new(&mut registry);
    registry.catalogue().to_vec()
}
