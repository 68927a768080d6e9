//! `cargo xtask bench ...`: measures, in labs of its own.
//!
//! This process builds what is measured and starts the labs. What happens there is the crate berth-bench's affair; a lab's first
//! process, which is this program again, hands its rows back in a file.

mod allocate;
mod arp;
mod aws;
mod azure;
mod failover;
mod idle;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, fs};

use anyhow::{Context as _, Result};
use berth_bench::row::Verdict;
use berth_lab::{BIN_DIR_ENV, Entered, Launch};
use clap::Subcommand;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::progress::Progress;
use crate::{launch, output, prepare};

/// Tells the first process of a lab where it writes what it measured.
const ROWS_VARIABLE: &str = "BERTH_XTASK_BENCH_ROWS";

/// What to measure.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// How long Services wait for their addresses, beside the least that the same writes take
    Allocate(allocate::Options),
    /// How fast an owner answers who asks for its addresses, and what a LAN full of questions about others costs it
    Arp(arp::Options),
    /// How many calls of AWS the controller makes for Services, nodes and endpoints that come and go
    Aws(aws::Options),
    /// How many calls of Azure the controller makes, and which documents it writes, for Services and nodes that come and go
    Azure(azure::Options),
    /// How long clients are without an answer when something goes wrong, and whether ever two nodes answer
    Failover(failover::Options),
    /// What speakers cost when nothing goes wrong: memory, time on cores, packets
    Idle(idle::Options),
}

/// Runs it. `entered` is there in the first process of a lab.
pub fn run(command: &Command, entered: Option<Entered>) -> Result<ExitCode> {
    match command {
        Command::Allocate(options) => allocate::run(options, entered),
        Command::Arp(options) => arp::run(options, entered),
        Command::Aws(options) => aws::run(options, entered),
        Command::Azure(options) => azure::run(options, entered),
        Command::Failover(options) => failover::run(options, entered),
        Command::Idle(options) => idle::run(options, entered),
    }
}

/// What every bench in one lab does outside of it: builds, starts this program again in a lab, and tells what that handed back.
fn in_one_lab<R: Serialize + DeserializeOwned>(
    name: &str,
    what: std::fmt::Arguments<'_>,
    told: (bool, bool),
    table: impl Fn(&[R]) -> String,
    verdicts: impl Fn(&R) -> Vec<Verdict>,
) -> Result<ExitCode> {
    built_in_one_lab(name, what, told, prepare::for_bench, table, verdicts)
}

/// The same of what is built in another way.
fn built_in_one_lab<R: Serialize + DeserializeOwned>(
    name: &str,
    what: std::fmt::Arguments<'_>,
    (json, check): (bool, bool),
    build: impl FnOnce(&Progress) -> Result<PathBuf>,
    table: impl Fn(&[R]) -> String,
    verdicts: impl Fn(&R) -> Vec<Verdict>,
) -> Result<ExitCode> {
    let progress = Progress::start();
    prepare::cluster(&progress)?;
    let folder = build(&progress)?;
    progress.step(what);
    let handed = Handed::new(name);
    let again = launch::same_again(&format!("bench-{name}"), &progress, Some(&folder));
    let code = launch::attended(handed.from(again), |_| Ok(()))?;
    let Some(rows) = handed.read::<Vec<R>>()? else { return Ok(code) };
    tell(json, &rows, &table(&rows))?;
    Ok(verdict(check, rows.iter().flat_map(verdicts).any(|verdict| !verdict.met)))
}

/// Writes rows for a program or for a person.
fn tell<R: Serialize>(json: bool, rows: &[R], table: &str) -> Result<()> {
    if !json {
        return Ok(output::data(table)?);
    }
    for row in rows {
        output::data(serde_json::to_string(row)?)?;
    }
    // Programs read stdout, and a person sees how it went all the same.
    output::line(table);
    Ok(())
}

fn verdict(check: bool, missed: bool) -> ExitCode {
    if check && missed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Where the programs are that were built to be measured, in the first process of a lab.
fn programs() -> Result<PathBuf> {
    env::var_os(BIN_DIR_ENV).map(PathBuf::from).with_context(|| format!("{BIN_DIR_ENV} is not set"))
}

/// Where the first process of a lab hands over what it measured. It is gone with this.
struct Handed(PathBuf);

impl Handed {
    fn new(name: &str) -> Self {
        Self(env::temp_dir().join(format!("berth-bench-{}-{name}.json", std::process::id())))
    }

    /// A lab that hands over here.
    fn from<'a>(&self, launch: Launch<'a>) -> Launch<'a> {
        launch.env(ROWS_VARIABLE, &self.0)
    }

    /// Hands over, from the first process of a lab; what was handed over before is replaced.
    fn hand_over(what: &impl Serialize) -> Result<()> {
        let path = env::var_os(ROWS_VARIABLE).with_context(|| format!("{ROWS_VARIABLE} is not set"))?;
        fs::write(&path, serde_json::to_string(what)?)
            .with_context(|| format!("writing {}", Path::new(&path).display()))
    }

    /// Nothing when the lab ended without it.
    fn read<T: DeserializeOwned>(&self) -> Result<Option<T>> {
        let Self(path) = self;
        if !Path::exists(path) {
            return Ok(None);
        }
        let what = || format!("reading {}", path.display());
        Ok(Some(serde_json::from_str(&fs::read_to_string(path).with_context(what)?).with_context(what)?))
    }
}

impl Drop for Handed {
    fn drop(&mut self) {
        // There may be none.
        let _ = fs::remove_file(&self.0);
    }
}
