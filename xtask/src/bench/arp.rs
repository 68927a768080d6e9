//! `cargo xtask bench arp`: how fast an owner answers, and what a noisy LAN costs it.

use std::process::ExitCode;

use anyhow::Result;
use berth_bench::arp::{LAB, Measurement, Row, measure, table};
use berth_lab::{Entered, Lab};
use clap::Args;

use super::{Handed, in_one_lab, programs};
use crate::launch;
use crate::progress::Progress;

/// How to measure it.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  As the targets have it:
    cargo xtask bench arp
  With ten times less noise and for a short while, as JSON:
    cargo xtask bench arp --noise 5000 --seconds 5 --json

Exit codes: 0 done, 1 failed or, with --check, a target missed, 2 wrong command line. docs/bench.md says what the figures mean.")]
pub struct Options {
    /// Broadcast ARP requests a second about addresses of others
    #[arg(long, value_name = "N", default_value_t = 50_000, value_parser = clap::value_parser!(u32).range(1..=NOISE_MOST))]
    noise: u32,
    /// How long each of the four parts takes
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Print one JSON object for each figure, and nothing else, on stdout
    #[arg(long)]
    json: bool,
    /// Fail when a target is missed
    #[arg(long)]
    check: bool,
}

/// More than one core can send, with all that becomes of a frame in the lab.
const NOISE_MOST: i64 = 1_000_000;

/// Runs it. `entered` is there in the first process of a lab.
pub fn run(options: &Options, entered: Option<Entered>) -> Result<ExitCode> {
    match entered {
        Some(entered) => inside(options, entered),
        None => outside(options),
    }
}

fn outside(options: &Options) -> Result<ExitCode> {
    let what = format_args!("questions, then with {} a second about others beside them", options.noise);
    in_one_lab("arp", what, (options.json, options.check), table, Row::verdicts)
}

fn inside(options: &Options, entered: Entered) -> Result<ExitCode> {
    let progress = Progress::start();
    let programs = programs()?;
    let what = Measurement { programs: &programs, noise: options.noise, seconds: options.seconds };
    launch::inside(async {
        let lab = Lab::start(entered, LAB, progress.shared()).await?;
        let rows = Box::pin(measure(&lab, what, &|seen| progress.seen(seen))).await?;
        Handed::hand_over(&rows)?;
        Ok(ExitCode::SUCCESS)
    })
}
