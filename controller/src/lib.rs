//! The controller: watches, plans, applies, writes status.
//!
//! ```text
//!  watch (I/O) -> view (parse) -> world (state, what is dirty) -> plan (pure) -> apply (I/O) -> world
//! ```
//!
//! One task owns the [`world`]; nothing is locked. Everything that decides is a plain function of it.

mod apply;
mod args;
mod backoff;
mod events;
mod metrics;
mod note;
mod plan;
pub mod rbac;
mod run;
mod status;
mod view;
mod watch;
mod world;

use berth_telemetry::MetricDoc;

pub use args::{Args, DefaultProvider};
pub use run::run;

/// The command line, for the reference page.
pub fn command() -> clap::Command {
    <Args as clap::CommandFactory>::command()
}

/// Every metric, for the reference page.
pub fn metrics_catalogue() -> Vec<MetricDoc> {
    metrics::Metrics::new().1.catalogue().to_vec()
}
