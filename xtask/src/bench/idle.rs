//! `cargo xtask bench idle`: what speakers cost when nothing goes wrong.

use std::process::ExitCode;

use anyhow::Result;
use berth_bench::idle::{LAB, Row, measure, table};
use berth_lab::{Entered, Lab};
use clap::Args;

use super::{Handed, in_one_lab};
use crate::launch;
use crate::progress::Progress;

/// How to measure it.
#[derive(Args, Debug)]
#[command(
    after_help = "Exit codes: 0 done, 1 failed or, with --check, a target missed, 2 wrong command line. docs/bench.md says what the figures mean."
)]
pub struct Options {
    /// In how many addresses speakers have a part
    #[arg(long, value_name = "N", default_value_t = 5000, value_parser = clap::value_parser!(u16).range(1..=60000))]
    addresses: u16,
    /// Print one JSON object for each figure, and nothing else, on stdout
    #[arg(long)]
    json: bool,
    /// Fail when a target is missed
    #[arg(long)]
    check: bool,
}

/// Runs it. `entered` is there in the first process of a lab.
pub fn run(options: &Options, entered: Option<Entered>) -> Result<ExitCode> {
    match entered {
        Some(entered) => inside(options, entered),
        None => outside(options),
    }
}

fn outside(options: &Options) -> Result<ExitCode> {
    let what = format_args!("idle speakers, then {} addresses", options.addresses);
    in_one_lab("idle", what, (options.json, options.check), table, Row::verdicts)
}

fn inside(options: &Options, entered: Entered) -> Result<ExitCode> {
    let progress = Progress::start();
    launch::inside(async {
        let lab = Lab::start(entered, LAB, progress.shared()).await?;
        let rows = Box::pin(measure(&lab, options.addresses.into(), &|seen| progress.seen(seen))).await?;
        Handed::hand_over(&rows)?;
        Ok(ExitCode::SUCCESS)
    })
}
