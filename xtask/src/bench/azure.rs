//! `cargo xtask bench azure`: how many calls of Azure the controller makes.

use std::process::ExitCode;

use anyhow::Result;
use berth_bench::azure::{LAB, Row, measure, table};
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
    /// How many internal Services; one network interface takes 300 rules
    #[arg(long, value_name = "N", default_value_t = 240, value_parser = clap::value_parser!(u16).range(1..=300))]
    services: u16,
    /// How many nodes, all but one of which are there as objects only
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u16).range(1..=5000))]
    nodes: u16,
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
    let what = format_args!("{} Services of an Azure load balancer, for which a stand-in answers", options.services);
    // Not as it is released: what is measured is which calls are made, and their time is that of the stand-in.
    built_in_one_lab("azure", what, (options.json, options.check), prepare::berth, table, Row::verdicts)
}

fn inside(options: &Options, entered: Entered) -> Result<ExitCode> {
    let progress = Progress::start();
    launch::inside(async {
        let lab = Lab::start(entered, LAB, progress.shared()).await?;
        let (services, nodes) = (options.services.into(), options.nodes.into());
        let rows = Box::pin(measure(&lab, services, nodes, &|seen| progress.seen(seen))).await?;
        Handed::hand_over(&rows)?;
        Ok(ExitCode::SUCCESS)
    })
}
