//! `cargo xtask bench aws`: how many calls of AWS the controller makes.

use std::process::ExitCode;

use anyhow::Result;
use berth_bench::aws::{LAB, Row, measure, table};
use berth_lab::{Entered, Lab};
use clap::Args;

use super::{Handed, built_in_one_lab};
use crate::progress::Progress;
use crate::{launch, prepare};

/// How to measure it.
#[derive(Args, Debug)]
#[command(
    after_help = "Exit codes: 0 done, 1 failed or, with --check, a target missed, 2 wrong command line. docs/bench.md says what the figures mean."
)]
pub struct Options {
    /// How many Services, each with a load balancer of its own
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u16).range(1..=2000))]
    services: u16,
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
    let what = format_args!("{} Services with load balancers in AWS, for which moto answers", options.services);
    built_in_one_lab("aws", what, (options.json, options.check), prepare::for_aws, table, Row::verdicts)
}

fn inside(options: &Options, entered: Entered) -> Result<ExitCode> {
    let progress = Progress::start();
    launch::inside(async {
        let lab = Lab::start(entered, LAB, progress.shared()).await?;
        let rows = Box::pin(measure(&lab, options.services.into(), &|seen| progress.seen(seen))).await?;
        Handed::hand_over(&rows)?;
        Ok(ExitCode::SUCCESS)
    })
}
