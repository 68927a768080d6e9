//! `cargo xtask test`: unit tests, and lab tests with all that they need.

use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::Context as _;
use berth_lab::BIN_DIR_ENV;
use clap::ValueEnum;

use crate::progress::{Progress, seconds};
use crate::{prepare, workspace};

/// The crate whose tests run in a lab.
const LAB_SUITES: &str = "berth-suites";

/// Which tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// Tests of each crate: seconds, no lab
    Unit,
    /// Tests on a real API server and real kube-proxy
    Lab,
}

/// Runs the tests of that kind, or all. `arguments` go to the test programs.
pub fn run(kind: Option<Kind>, arguments: &[String]) -> anyhow::Result<ExitCode> {
    let progress = Progress::start();
    if kind != Some(Kind::Lab) && !unit(&progress, arguments)? {
        return Ok(ExitCode::FAILURE);
    }
    if kind != Some(Kind::Unit) && !lab(&progress, arguments)? {
        return Ok(ExitCode::FAILURE);
    }
    progress.step("all passed");
    Ok(ExitCode::SUCCESS)
}

fn unit(progress: &Progress, arguments: &[String]) -> anyhow::Result<bool> {
    progress.step("unit tests");
    let passed = cargo_test(&["--workspace", "--exclude", LAB_SUITES], arguments, None)?;
    if !passed {
        progress.step("unit tests failed");
        progress.note("`cargo xtask test unit -- NAME` runs those whose name contains NAME");
    }
    Ok(passed)
}

fn lab(progress: &Progress, arguments: &[String]) -> anyhow::Result<bool> {
    prepare::cluster(progress)?;
    let programs = prepare::berth(progress)?;
    progress.step("lab tests: each in a cluster of its own, on a real API server and real kube-proxy");
    let began = progress.elapsed();
    let passed = cargo_test(&["--package", LAB_SUITES], arguments, Some(&programs))?;
    let took = seconds(progress.elapsed().saturating_sub(began));
    if !passed {
        progress.step(format_args!("lab tests failed after {took}"));
        progress.note("each failed test has named the logs of its lab above");
        progress.note("`cargo xtask test lab -- NAME` runs those whose name contains NAME");
    }
    Ok(passed)
}

/// `cargo test`, whose own output is what people know how to read.
fn cargo_test(selection: &[&str], arguments: &[String], programs: Option<&Path>) -> anyhow::Result<bool> {
    let mut cargo = Command::new(workspace::cargo());
    cargo.args(["test", "--locked"]).args(selection).arg("--").args(arguments).current_dir(workspace::root());
    if let Some(programs) = programs {
        cargo.env(BIN_DIR_ENV, programs);
    }
    Ok(cargo.status().context("starting `cargo test`")?.success())
}
