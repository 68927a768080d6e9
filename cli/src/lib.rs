//! `kubectl berth`: what Berth serves in a cluster, and at which link it does not.
//!
//! ```text
//!  connect (I/O) -> collect (I/O) -> observed -> chain, summary (pure) -> report -> render or JSON (pure) -> output (I/O)
//! ```
//!
//! It only reads. What a person may not read is named and left out; the rest is shown. `plan` plans with what was read, by the
//! planners of the providers, and carries nothing out.

mod age;
mod args;
mod chain;
mod collect;
mod completion;
mod connect;
mod finding;
mod no_proxy;
mod observed;
mod output;
mod plan;
mod render;
mod report;
mod run;
mod summary;
mod table;
mod version;

pub use finding::Finding;
pub use run::run;

/// The command line, for the reference page.
pub fn command() -> clap::Command {
    <args::Cli as clap::CommandFactory>::command()
}

/// The JSON schema of `kubectl berth plan -o json`, for the reference.
pub fn plan_schema() -> serde_json::Value {
    plan::schema()
}
