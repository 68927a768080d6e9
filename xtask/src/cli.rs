//! The command line.

use clap::{Parser, Subcommand};

/// What a person types to try, test and build Berth.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 120)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Write what is made from the code: deploy/crds, deploy/rbac and docs/reference
    Generate {
        /// Write nothing; fail and name the files that differ
        #[arg(long)]
        check: bool,
    },
}
