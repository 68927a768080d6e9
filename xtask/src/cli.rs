//! The command line.

use clap::{Parser, Subcommand};

use crate::test::Kind;

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
    /// Run the tests: unit tests, then lab tests
    Test {
        /// Only these
        kind: Option<Kind>,
        /// For the test programs, such as the beginning of a test's name
        #[arg(last = true)]
        arguments: Vec<String>,
    },
    /// Write what is made from the code: deploy/crds, deploy/rbac and docs/reference
    Generate {
        /// Write nothing; fail and name the files that differ
        #[arg(long)]
        check: bool,
    },
    /// Install what this machine misses; the other commands do so by themselves
    SetUp,
    /// Hold all dependencies against deny.toml: banned crates, licences, sources
    CheckDependencies,
}
