//! `cargo xtask bench allocate`: the controller beside its floor.
//!
//! One lab for each subject, one after the other, so that no subject works in a cluster that another one has used.

use std::env;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use berth_bench::row::{Row, table};
use berth_bench::{Measurement, PEER_ENV, Programs, Subject, measure};
use berth_lab::{Entered, Lab};
use clap::Args;

use super::{Handed, programs, tell, verdict};
use crate::progress::Progress;
use crate::{launch, prepare};

/// Tells the first process of a lab whom it measures.
const SUBJECT_VARIABLE: &str = "BERTH_XTASK_BENCH_SUBJECT";

/// How to measure it.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  A thousand Services at once:
    cargo xtask bench allocate
  The same where ten thousand have addresses already, as JSON; fail when a target is missed:
    cargo xtask bench allocate --existing 10000 --json --check
  Beside another controller:
    BERTH_PEER_CONTROLLER='exec ./peer.sh' cargo xtask bench allocate

Exit codes: 0 done, 1 failed or, with --check, a target missed, 2 wrong command line. docs/bench.md says what the figures mean.")]
pub struct Options {
    /// How many Services are created at once, by 8 clients
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u16).range(1..=MOST))]
    services: u16,
    /// How many Services have addresses before
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=MOST))]
    existing: u16,
    /// Print one JSON object for each subject, and nothing else, on stdout
    #[arg(long)]
    json: bool,
    /// Fail when Berth misses a target
    #[arg(long)]
    check: bool,
}

/// Half of the lab's cluster IPs.
const MOST: i64 = 32_000;

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
    let peer = env::var_os(PEER_ENV).filter(|command| !command.is_empty()).map(|_| Subject::Peer);
    let mut rows: Vec<Row> = Vec::new();
    for subject in [Subject::Floor, Subject::Berth].into_iter().chain(peer) {
        let Options { services, existing, .. } = options;
        progress.step(format_args!("{subject}: {services} Services by 8 clients, with {existing} existing"));
        let row = Handed::new(&format!("{subject}"));
        let launch = launch::same_again(&format!("bench-{subject}"), &progress, Some(&folder));
        let launch = row.from(launch.env(SUBJECT_VARIABLE, subject.to_string()));
        let code = launch::attended(launch, |_| Ok(()))?;
        let Some(mut row) = row.read::<Row>()? else { return Ok(code) };
        // The floor comes first, and is its own.
        let floor = rows.first().unwrap_or(&row);
        (row.floor_s, row.floor_p99_ms) = (floor.total_s, floor.p99_ms);
        rows.push(row);
    }
    tell(options.json, &rows, &table(&rows))?;
    let missed = rows.iter().filter(|row| row.subject == Subject::Berth).flat_map(Row::verdicts).any(|v| !v.met);
    Ok(verdict(options.check, missed))
}

fn inside(options: &Options, entered: Entered) -> Result<ExitCode> {
    let progress = Progress::start();
    let subject = env::var(SUBJECT_VARIABLE).with_context(|| format!("{SUBJECT_VARIABLE} is not set"))?.parse()?;
    let programs = Programs { folder: programs()?, peer: env::var(PEER_ENV).ok() };
    let what = Measurement { subject, services: options.services.into(), existing: options.existing.into() };
    launch::inside(async {
        let lab = Lab::start(entered, berth_bench::LAB, progress.shared()).await?;
        let row = Box::pin(measure(&lab, &programs, what, &|seen| progress.seen(seen))).await?;
        Handed::hand_over(&row)?;
        Ok(ExitCode::SUCCESS)
    })
}
