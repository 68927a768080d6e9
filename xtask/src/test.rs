//! `cargo xtask test`: unit tests, and lab tests with all that they need.

use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use anyhow::Context as _;
use berth_lab::BIN_DIR_ENV;
use clap::ValueEnum;

use crate::progress::{Progress, seconds};
use crate::{prepare, workspace};

/// The crate whose tests run in a lab.
const LAB_SUITES: &str = "berth-suites";
/// The crate that calls AWS, which takes minutes to compile.
const AWS_CALLS: &str = "berth-aws-sdk";
/// How Cargo selects the unit tests.
const UNIT_TESTS: [&str; 5] = ["--workspace", "--exclude", LAB_SUITES, "--exclude", AWS_CALLS];
/// How Cargo selects the lab tests.
const LAB_TESTS: [&str; 2] = ["--package", LAB_SUITES];
/// How Cargo selects the tests of the calls of AWS.
const AWS_TESTS: [&str; 2] = ["--package", AWS_CALLS];
/// How Cargo selects the lab tests with AWS.
const AWS_LAB_TESTS: [&str; 6] = ["--package", LAB_SUITES, "--features", "aws", "--test", "aws"];

/// How Cargo selects the tests of the Azure provider and of what stands in Azure's place.
const AZURE_TESTS: [&str; 4] = ["--package", "berth-azure", "--package", "berth-arm-fake"];
/// How Cargo selects the lab tests with Azure.
const AZURE_LAB_TESTS: [&str; 4] = ["--package", LAB_SUITES, "--test", "azure"];

/// Which tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// Tests of each crate: seconds, no lab
    Unit,
    /// Tests on a real API server and real kube-proxy
    Lab,
    /// The Azure provider, against a stand-in for its resource manager; `unit` and `lab` have these too
    Azure,
    /// The AWS provider over the wire, against moto: minutes to compile
    Aws,
}

/// Runs tests of one kind, and says whether they passed.
type Runs = fn(&Progress, &[String]) -> anyhow::Result<bool>;

/// Runs the tests of that kind, or all. `arguments` go to the test programs.
pub fn run(kind: Option<Kind>, arguments: &[String]) -> anyhow::Result<ExitCode> {
    let progress = Progress::start();
    if names_tests(arguments) && !any_matches(kind, arguments)? {
        progress.step(format_args!("no test matches `{}`; nothing was run", arguments.join(" ")));
        progress.note("`cargo xtask test -- --list` names all tests");
        return Ok(ExitCode::FAILURE);
    }
    let all = [(Kind::Unit, unit as Runs), (Kind::Lab, lab), (Kind::Azure, azure), (Kind::Aws, aws)];
    for (_, run) in all.into_iter().filter(|(one, _)| is_meant(kind, *one)) {
        if !run(&progress, arguments)? {
            return Ok(ExitCode::FAILURE);
        }
    }
    progress.step("all passed");
    Ok(ExitCode::SUCCESS)
}

/// Whether a kind is to be run: the one that was named, or all that others do not have in them.
fn is_meant(named: Option<Kind>, one: Kind) -> bool {
    named.map_or(one != Kind::Azure, |named| named == one)
}

fn unit(progress: &Progress, arguments: &[String]) -> anyhow::Result<bool> {
    progress.step("unit tests");
    let passed = cargo_test(&UNIT_TESTS, arguments, None)?;
    if !passed {
        progress.step("unit tests failed");
        progress.note("`cargo xtask test unit -- NAME` runs those whose name contains NAME");
    }
    Ok(passed)
}

fn lab(progress: &Progress, arguments: &[String]) -> anyhow::Result<bool> {
    prepare::for_tests(progress)?;
    let programs = prepare::berth(progress)?;
    progress.step("lab tests: each in a cluster of its own, on a real API server and real kube-proxy");
    let began = progress.elapsed();
    let passed = cargo_test(&LAB_TESTS, arguments, Some(&programs))?;
    let took = seconds(progress.elapsed().saturating_sub(began));
    if !passed {
        progress.step(format_args!("lab tests failed after {took}"));
        progress.note("each failed test has named the logs of its lab above");
        progress.note("`cargo xtask test lab -- NAME` runs those whose name contains NAME");
    }
    Ok(passed)
}

fn azure(progress: &Progress, arguments: &[String]) -> anyhow::Result<bool> {
    prepare::for_tests(progress)?;
    let programs = prepare::berth(progress)?;
    progress.step("tests of the Azure provider: a stand-in for the resource manager answers in Azure's place");
    let passed =
        cargo_test(&AZURE_TESTS, arguments, None)? && cargo_test(&AZURE_LAB_TESTS, arguments, Some(&programs))?;
    if !passed {
        progress.step("tests of the Azure provider failed");
        progress.note("`cargo xtask test azure -- NAME` runs those whose name contains NAME");
    }
    Ok(passed)
}

fn aws(progress: &Progress, arguments: &[String]) -> anyhow::Result<bool> {
    prepare::for_tests(progress)?;
    let programs = prepare::for_aws(progress)?;
    progress.step("tests of the AWS provider over the wire: moto answers in AWS's place");
    let passed = cargo_test(&AWS_TESTS, arguments, None)? && cargo_test(&AWS_LAB_TESTS, arguments, Some(&programs))?;
    if !passed {
        progress.step("tests of the AWS provider failed");
        progress.note("`cargo xtask test aws -- NAME` runs those whose name contains NAME");
    }
    Ok(passed)
}

/// `cargo test`, whose own output is what people know how to read.
fn cargo_test(selection: &[&str], arguments: &[String], programs: Option<&Path>) -> anyhow::Result<bool> {
    let mut cargo = test_command(selection, arguments);
    if let Some(programs) = programs {
        cargo.env(BIN_DIR_ENV, programs);
    }
    Ok(cargo.status().context("starting `cargo test`")?.success())
}

fn test_command(selection: &[&str], arguments: &[String]) -> Command {
    let mut cargo = Command::new(workspace::cargo());
    cargo.args(["test", "--locked"]).args(selection).arg("--").args(arguments).current_dir(workspace::root());
    cargo
}

/// Whether the arguments name tests, rather than only say how to run them.
fn names_tests(arguments: &[String]) -> bool {
    arguments.iter().any(|argument| !argument.starts_with('-'))
}

/// Whether there is a test to run. A test program takes no match for success, which hides a name that was mistyped.
fn any_matches(kind: Option<Kind>, arguments: &[String]) -> anyhow::Result<bool> {
    let arguments = [arguments, &["--list".to_owned()]].concat();
    let all = [
        (Kind::Unit, &UNIT_TESTS[..]),
        (Kind::Lab, &LAB_TESTS),
        (Kind::Azure, &AZURE_TESTS),
        (Kind::Azure, &AZURE_LAB_TESTS),
        (Kind::Aws, &AWS_TESTS),
        (Kind::Aws, &AWS_LAB_TESTS),
    ];
    for (_, selection) in all.into_iter().filter(|(one, _)| is_meant(kind, *one)) {
        let listing = test_command(selection, &arguments).stderr(Stdio::inherit()).output();
        let listing = listing.context("starting `cargo test`")?;
        // What cannot be listed, such as code that does not compile, is told by the run itself.
        if !listing.status.success() || lists_a_test(&String::from_utf8_lossy(&listing.stdout)) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Reads what the test harness prints for `--list`.
fn lists_a_test(listing: &str) -> bool {
    listing.lines().any(|line| line.ends_with(": test"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_without_a_test_is_told_from_one_with_tests() {
        for (listing, expected) in [
            ("0 tests, 0 benchmarks\n\n0 tests, 0 benchmarks\n", false),
            ("0 tests, 0 benchmarks\nmachine::a_killed_owner_is_replaced: test\n\n1 test, 0 benchmarks\n", true),
            ("api/src/lib.rs - parse (line 3): test\n", true),
            ("", false),
        ] {
            assert_eq!(lists_a_test(listing), expected, "{listing:?}");
        }
    }

    #[test]
    fn without_a_kind_each_test_is_run_once() {
        let meant = |kind| [Kind::Unit, Kind::Lab, Kind::Azure, Kind::Aws].map(|one| is_meant(kind, one));
        assert_eq!(meant(None), [true, true, false, true]);
        assert_eq!(meant(Some(Kind::Azure)), [false, false, true, false]);
        assert_eq!(meant(Some(Kind::Lab)), [false, true, false, false]);
    }

    #[test]
    fn only_a_name_asks_for_certain_tests() {
        for (arguments, expected) in
            [(&[][..], false), (&["--nocapture"], false), (&["a_killed"], true), (&["--exact", "a_killed"], true)]
        {
            let arguments: Vec<_> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
            assert_eq!(names_tests(&arguments), expected, "{arguments:?}");
        }
    }
}
