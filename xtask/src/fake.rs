//! `cargo xtask fake arm`: the stand-in for the Azure Resource Manager, for who tests against it by hand.

use std::net::Ipv4Addr;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use clap::Subcommand;
use tokio::net::TcpListener;

use crate::output;

/// Which.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// The Azure Resource Manager, with endpoints for tokens, until it is interrupted. It begins empty, and what goes wrong is said
    /// to it at /_fake/faults
    Arm {
        /// Where it answers, on 127.0.0.1; any free port where none is given
        #[arg(long, default_value_t = 0)]
        port: u16,
    },
}

/// Serves until the process is ended.
pub fn run(command: &Command) -> Result<ExitCode> {
    let Command::Arm { port } = command;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, *port))
            .await
            .with_context(|| format!("cannot listen on port {port}"))?;
        let at = listener.local_addr()?;
        output::line(format_args!("the stand-in for the Azure Resource Manager answers at http://{at}"));
        berth_arm_fake::serve(listener, Arc::default()).await?;
        Ok(ExitCode::SUCCESS)
    })
}
