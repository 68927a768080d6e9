//! The command line.

use clap::{Parser, Subcommand};

use crate::test::Kind;
use crate::{bench, demo, lab};

/// What a person types to try, test and build Berth.
#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    max_term_width = 120,
    disable_help_subcommand = true,
    after_help = "Exit codes: 0 done, 1 failed, 2 wrong command line."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show what Berth does, on a cluster of its own: an address, an answer, a failover
    Demo(demo::Options),
    /// Run the tests: unit tests, then lab tests
    Test {
        /// Only these
        kind: Option<Kind>,
        /// For the test programs, such as a part of a test's name
        #[arg(last = true)]
        arguments: Vec<String>,
    },
    /// Measure, on clusters of its own: how fast Services get addresses, what clients notice of a fault, what speakers cost
    #[command(subcommand)]
    Bench(bench::Command),
    /// A cluster to work in by hand
    #[command(subcommand)]
    Lab(lab::Command),
    /// What answers in a cloud's place, by itself
    #[command(subcommand)]
    Fake(crate::fake::Command),
    /// Write what is made from the code: deploy, but for the samples, and docs/reference
    Generate {
        /// Write nothing; fail and name the files that differ
        #[arg(long)]
        check: bool,
    },
    /// Install what this machine misses; the other commands do so by themselves
    SetUp,
    /// Hold all dependencies against deny.toml: banned crates, licences, sources
    CheckDependencies,
    /// Build the control plane with the Go that the environment names
    #[command(hide = true, name = crate::prepare::BUILD_CONTROL_PLANE)]
    BuildControlPlane,
}
