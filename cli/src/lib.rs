//! `kubectl berth`: what Berth serves in a cluster, and at which link it does not.
//!
//! ```text
//!  connect (I/O) -> collect (I/O) -> observed -> chain, summary (pure) -> report -> render or JSON (pure) -> output (I/O)
//! ```
//!
//! What a person may not read is named and left out; the rest is shown. `plan` and `simulate` plan with what was read, by the
//! planners of the providers, and carry nothing out. `drain` and `rebalance` write annotations, by which a person says what is wished; what
//! comes of it is the controller's affair.

mod age;
mod args;
mod chain;
mod change;
mod collect;
mod completion;
mod connect;
mod drain;
mod finding;
mod no_proxy;
mod observed;
mod orphans;
mod output;
mod plan;
mod rebalance;
mod render;
mod report;
mod run;
mod simulate;
mod summary;
mod table;
mod version;

pub use finding::Finding;
pub use run::run;

/// The command line, for the reference page.
pub fn command() -> clap::Command {
    args::command()
}

/// The JSON schema of `kubectl berth plan -o json`, for the reference.
pub fn plan_schema() -> serde_json::Value {
    plan::schema()
}

/// The JSON schema of `kubectl berth rebalance -o json`, for the reference.
pub fn rebalance_schema() -> serde_json::Value {
    rebalance::schema()
}

/// The JSON schema of `kubectl berth simulate -o json`, for the reference.
pub fn simulation_schema() -> serde_json::Value {
    simulate::schema()
}
