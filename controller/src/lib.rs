//! The controller: watches, plans, applies, writes status.
//!
//! ```text
//!  watch (I/O) -> views (parse) -> world (state, what is dirty) -> plan (pure) -> apply (I/O) -> world
//!              \-> documents: the providers that plan whole shards -> outcomes /
//! ```
//!
//! One task owns the world of the pools and writes the status of every Service; nothing is locked. Everything that decides is
//! a plain function of it. Of several replicas the one that holds the [`lease`] writes; the others keep their world warm.

mod apply;
mod args;
mod aws;
mod azure;
mod backends;
mod backoff;
mod cluster_uid;
mod documents;
mod events;
mod gates;
mod heartbeat_keys;
mod heritage;
mod latest;
mod lease;
mod list_writer;
mod marker;
mod metrics;
mod note;
mod orphans;
mod own_writes;
mod plan;
pub mod rbac;
mod reconciler;
mod run;
mod status;
mod watch;
mod wish;

#[cfg(test)]
mod in_memory;
#[cfg(test)]
mod with_aws;
#[cfg(test)]
mod with_azure;

use berth_telemetry::MetricDoc;

pub use args::Args;
pub use berth_provider::class::DefaultProvider;
pub use run::run;

/// The command line, for the reference page.
pub fn command() -> clap::Command {
    <Args as clap::CommandFactory>::command()
}

/// Every metric, for the reference page.
pub fn metrics_catalogue() -> Vec<MetricDoc> {
    metrics::Metrics::new().1.catalogue().to_vec()
}
