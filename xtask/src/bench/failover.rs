//! `cargo xtask bench failover`: what clients notice when something goes wrong.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use berth_bench::client::Family;
use berth_bench::failover::{Fault, LAB, Measurement, Row, measure, missed, table};
use berth_lab::{Entered, Lab};
use clap::{Args, ValueEnum};

use super::{Handed, programs, tell, verdict};
use crate::progress::{Progress, seconds};
use crate::{launch, prepare};

/// How many addresses the owner has that crashes with many.
const MANY: usize = 1_000;

/// How to measure it.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  Every fault 20 times:
    cargo xtask bench failover
  Two of them, as JSON; fail when a target is missed:
    cargo xtask bench failover --fault crash,drain --json --check
  Half an hour with all cores busy and no fault:
    cargo xtask bench failover --load 30

Exit codes: 0 done, 1 failed or, with --check, a target missed, 2 wrong command line. docs/bench.md says what the figures mean.")]
pub struct Options {
    /// Only these faults; all if there is neither this nor --load
    #[arg(long, value_name = "FAULT", value_delimiter = ',')]
    fault: Vec<Fault>,
    /// How often each
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1000))]
    runs: u16,
    /// Over which family clients ask; crash-1000 is over one, with both over IPv4
    #[arg(long, value_name = "FAMILY", default_value = "both")]
    family: Families,
    /// Clients ask for so long without a fault while all cores are busy
    #[arg(long, value_name = "MINUTES", value_parser = clap::value_parser!(u16).range(1..=600))]
    load: Option<u16>,
    /// Print one JSON object for each fault, family and kind of client, and nothing else, on stdout
    #[arg(long)]
    json: bool,
    /// Fail when a target is missed
    #[arg(long)]
    check: bool,
}

/// Families of addresses.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Families {
    Ipv4,
    Ipv6,
    Both,
}

/// Runs it. `entered` is there in the first process of a lab.
pub fn run(options: &Options, entered: Option<Entered>) -> Result<ExitCode> {
    match entered {
        Some(entered) => inside(options, entered),
        None => outside(options),
    }
}

fn outside(options: &Options) -> Result<ExitCode> {
    let progress = Progress::start();
    prepare::cluster(&progress)?;
    let folder = prepare::for_bench(&progress)?;
    progress.step("failover: one lab for all faults");
    let began = progress.elapsed();
    let handed = Handed::new("failover");
    let code =
        launch::attended(handed.from(launch::same_again("bench-failover", &progress, Some(&folder))), |_| Ok(()))?;
    // What was measured before something failed is told all the same.
    let Some(rows) = handed.read::<Vec<Row>>()? else { return Ok(code) };
    progress.step(format_args!("measured in {}", seconds(progress.elapsed().saturating_sub(began))));
    tell(options.json, &rows, &table(&rows))?;
    Ok(if code == ExitCode::SUCCESS { verdict(options.check, missed(&rows)) } else { code })
}

fn inside(options: &Options, entered: Entered) -> Result<ExitCode> {
    let progress = Progress::start();
    let faults = match (&options.fault[..], options.load) {
        ([], None) => Fault::value_variants(),
        (chosen, _) => chosen,
    };
    let families = match options.family {
        Families::Ipv4 => vec![Family::Ipv4],
        Families::Ipv6 => vec![Family::Ipv6],
        Families::Both => vec![Family::Ipv4, Family::Ipv6],
    };
    let what = Measurement {
        faults: faults.to_vec(),
        runs: options.runs.into(),
        families,
        load: options.load.map(|minutes| Duration::from_mins(minutes.into())),
        many: MANY,
        programs: programs()?,
    };
    launch::inside(async {
        let lab = Lab::start(entered, LAB, progress.shared()).await?;
        let mut rows = Vec::new();
        let mut done = |more| {
            rows.extend(more);
            Handed::hand_over(&rows)
        };
        Box::pin(measure(&lab, &what, &|seen| progress.seen(seen), &mut done)).await?;
        Ok(ExitCode::SUCCESS)
    })
}
