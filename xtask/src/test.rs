//! `cargo xtask test`: unit tests, and lab tests with all that they need.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, bail};
use clap::ValueEnum;
use serde::Deserialize;

use crate::progress::{Progress, seconds};
use crate::{go_toolchain, setup, workspace};

/// The crate whose tests run in a lab.
const LAB_SUITES: &str = "berth-suites";

/// Environment variable that tells the lab where Berth's own processes are.
pub const BIN_DIR_VARIABLE: &str = "BERTH_BIN_DIR";

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
    if kind != Some(Kind::Lab) {
        progress.step("unit tests");
        let passed = cargo_test(&["--workspace", "--exclude", LAB_SUITES], arguments, &[])?;
        if !passed {
            progress.seen(format_args!("unit tests failed after {}", seconds(progress.elapsed())));
            return Ok(ExitCode::FAILURE);
        }
    }
    if kind != Some(Kind::Unit) {
        let ready = prepare(&progress)?;
        progress.step("lab tests");
        let variables = [(BIN_DIR_VARIABLE, ready.bin_dir.as_path()), (go_toolchain::GO_VARIABLE, ready.go.as_path())];
        let passed = cargo_test(&["--package", LAB_SUITES], arguments, &variables)?;
        if !passed {
            progress.seen("lab tests failed; each failed test has named the folder with the logs of its lab");
            return Ok(ExitCode::FAILURE);
        }
    }
    progress.seen(format_args!("all passed in {}", seconds(progress.elapsed())));
    Ok(ExitCode::SUCCESS)
}

/// What a lab needs, when it is there.
pub struct Ready {
    /// Where `berth-controller` and `berth-speaker` are.
    pub bin_dir: PathBuf,
    /// The Go that builds the control plane, if it is to be built.
    pub go: PathBuf,
}

/// Sees to it that a lab can start: programs, Go, Berth's own processes.
pub fn prepare(progress: &Progress) -> anyhow::Result<Ready> {
    progress.step("looking for what the lab needs");
    setup::programs(progress)?;
    let go = go_toolchain::ensure(progress)?;
    progress.step("building berth-controller and berth-speaker");
    let bin_dir = build_berth()?;
    Ok(Ready { bin_dir, go })
}

fn cargo_test(selection: &[&str], arguments: &[String], variables: &[(&str, &Path)]) -> anyhow::Result<bool> {
    let status = Command::new(workspace::cargo())
        .args(["test", "--locked", "--quiet"])
        .args(selection)
        .arg("--")
        .args(arguments)
        .envs(variables.iter().copied())
        .current_dir(workspace::root())
        .status()
        .context("starting `cargo test`")?;
    Ok(status.success())
}

/// One line of `cargo build --message-format=json`.
#[derive(Debug, Deserialize)]
struct BuildMessage {
    executable: Option<PathBuf>,
}

/// Builds Berth's processes and returns the folder that they are in.
fn build_berth() -> anyhow::Result<PathBuf> {
    let output = Command::new(workspace::cargo())
        .args(["build", "--locked", "--bins", "--package", "berth-controller", "--package", "berth-speaker"])
        .arg("--message-format=json-render-diagnostics")
        .stderr(std::process::Stdio::inherit())
        .current_dir(workspace::root())
        .output()
        .context("starting `cargo build`")?;
    if !output.status.success() {
        bail!("berth-controller and berth-speaker could not be built; the compiler's messages are above");
    }
    executables_folder(&String::from_utf8_lossy(&output.stdout)).context("`cargo build` named no program that it built")
}

fn executables_folder(messages: &str) -> Option<PathBuf> {
    let executable = messages.lines().find_map(|line| serde_json::from_str::<BuildMessage>(line).ok()?.executable)?;
    executable.parent().map(Path::to_path_buf)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_of_the_built_programs_is_read_from_cargo() {
        let messages = "{\"reason\":\"compiler-artifact\",\"executable\":null}\nno json\n\
            {\"reason\":\"compiler-artifact\",\"executable\":\"/t/debug/berth-speaker\"}\n{\"reason\":\"build-finished\"}\n";
        assert_eq!(executables_folder(messages), Some(PathBuf::from("/t/debug")));
        assert_eq!(executables_folder("{\"reason\":\"build-finished\"}\n"), None);
    }
}
