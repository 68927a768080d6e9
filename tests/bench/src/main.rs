//! `berth-bench`: the processes of the bench that are measured, or by which it measures. Never shipped.

use std::process::ExitCode;

use berth_bench::load::{self, Load};
use berth_bench::null_controller::{self, NullController};
use berth_bench::{arp, client};
use clap::Parser;

/// The processes of the bench; `cargo xtask bench` starts them
#[derive(Parser)]
#[command(name = "berth-bench")]
enum Command {
    /// Ask for addresses by ARP and neighbor discovery, and say as JSON how long the answers took
    Arp(arp::program::Options),
    /// Ask web servers without an end, and say as JSON how long each kind of client was without an answer
    Clients(client::Options),
    /// Create Services and say as JSON how long each waited for its address
    Load(Load),
    /// Give addresses by the least possible: one Announcement and one status for each Service
    NullController(NullController),
}

#[tokio::main]
async fn main() -> ExitCode {
    let done = match Command::parse() {
        Command::Arp(options) => arp::program::run(&options),
        Command::Clients(options) => client::run(&options).await,
        Command::Load(load) => load::run(&load).await,
        Command::NullController(controller) => null_controller::run(&controller).await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            #[allow(clippy::print_stderr, reason = "the bench reads what this process says")]
            {
                eprintln!("berth-bench: {error:#}");
            }
            ExitCode::FAILURE
        }
    }
}
