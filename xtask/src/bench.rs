//! `cargo xtask bench ...`: measures, in labs of its own.
//!
//! This process builds what is measured and starts one lab for each subject, one after the other, so that no subject works in a
//! cluster that another one has used. What happens there is the crate berth-bench's affair; the lab's first process, which is
//! this program again, hands its row back in a file.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, fs};

use anyhow::{Context as _, Result};
use berth_bench::row::{Row, table};
use berth_bench::{Measurement, PEER_ENV, Programs, Subject, measure};
use berth_lab::{Entered, Lab};
use clap::{Args, Subcommand};

use crate::progress::Progress;
use crate::{launch, output, prepare};

/// Tells the first process of a lab whom it measures.
const SUBJECT_VARIABLE: &str = "BERTH_XTASK_BENCH_SUBJECT";
/// And where it writes what it measured.
const ROW_VARIABLE: &str = "BERTH_XTASK_BENCH_ROW";
/// And where the programs are.
const PROGRAMS_VARIABLE: &str = "BERTH_XTASK_BENCH_PROGRAMS";

/// What to measure.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// How long Services wait for their addresses, beside the least that the same writes take
    Allocate(Options),
}

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
pub fn run(command: &Command, entered: Option<Entered>) -> Result<ExitCode> {
    let Command::Allocate(options) = command;
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
        let row = RowFile::new(subject);
        let launch = launch::same_again(&format!("bench-{subject}"), &progress, None)
            .env(SUBJECT_VARIABLE, subject.to_string())
            .env(PROGRAMS_VARIABLE, &folder)
            .env(ROW_VARIABLE, &row.0);
        let code = launch::attended(launch, |_| Ok(()))?;
        let Some(mut row) = row.read()? else { return Ok(code) };
        // The floor comes first, and is its own.
        let floor = rows.first().unwrap_or(&row);
        (row.floor_s, row.floor_p99_ms) = (floor.total_s, floor.p99_ms);
        rows.push(row);
    }
    tell(options, &rows)?;
    let missed = rows.iter().filter(|row| row.subject == Subject::Berth).flat_map(Row::verdicts).any(|v| !v.met);
    Ok(if options.check && missed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn tell(options: &Options, rows: &[Row]) -> Result<()> {
    if !options.json {
        return Ok(output::data(table(rows))?);
    }
    for row in rows {
        output::data(serde_json::to_string(row)?)?;
    }
    // Programs read stdout, and a person sees how it went all the same.
    output::line(table(rows));
    Ok(())
}

fn inside(options: &Options, entered: Entered) -> Result<ExitCode> {
    let progress = Progress::start();
    let variable = |name: &str| env::var(name).with_context(|| format!("{name} is not set"));
    let subject = variable(SUBJECT_VARIABLE)?.parse()?;
    let (folder, to) = (PathBuf::from(variable(PROGRAMS_VARIABLE)?), PathBuf::from(variable(ROW_VARIABLE)?));
    let programs = Programs { folder, peer: env::var(PEER_ENV).ok() };
    let what = Measurement { subject, services: options.services.into(), existing: options.existing.into() };
    launch::inside(async {
        let lab = Lab::start(entered, berth_bench::LAB, progress.shared()).await?;
        let row = Box::pin(measure(&lab, &programs, what, &|seen| progress.seen(seen))).await?;
        fs::write(&to, serde_json::to_string(&row)?).with_context(|| format!("writing {}", to.display()))?;
        Ok(ExitCode::SUCCESS)
    })
}

/// Where a row is handed over. It is gone with this.
struct RowFile(PathBuf);

impl RowFile {
    fn new(subject: Subject) -> Self {
        Self(env::temp_dir().join(format!("berth-bench-{}-{subject}.json", std::process::id())))
    }

    /// Nothing when the lab ended without it.
    fn read(&self) -> Result<Option<Row>> {
        let Self(path) = self;
        if !Path::exists(path) {
            return Ok(None);
        }
        let what = || format!("reading {}", path.display());
        Ok(Some(serde_json::from_str(&fs::read_to_string(path).with_context(what)?).with_context(what)?))
    }
}

impl Drop for RowFile {
    fn drop(&mut self) {
        // There may be none.
        let _ = fs::remove_file(&self.0);
    }
}
