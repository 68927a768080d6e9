//! All that a lab needs before it can start: programs, the control plane's binary, Berth's own processes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use berth_lab::controlplane::binary;
use serde::Deserialize;

use crate::go_toolchain::Go;
use crate::progress::{Progress, seconds};
use crate::{go_toolchain, setup, workspace};

/// Name of the hidden command that builds the control plane.
pub const BUILD_CONTROL_PLANE: &str = "build-control-plane";

/// The C library within the speaker: of its own, a process needs more of it, and any base image will do.
const STATICALLY: &[&str] = &["--", "-C", "target-feature=+crt-static"];
/// Folder beside those of cargo's profiles in which the programs are that are measured.
const AS_SHIPPED: &str = "as-shipped";
/// Between two words that the build is still running.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks whether the build has ended.
const BUILD_POLL: Duration = Duration::from_millis(200);

/// Sees to it that a cluster can start. Quick and silent when all is there.
pub fn cluster(progress: &Progress) -> Result<()> {
    let built = binary::cached()?.exists();
    let mut missing = setup::missing_programs();
    // Go is needed for that build and for nothing else.
    if !built && let Go::Missing(go) = go_toolchain::look()? {
        missing.push(go);
    }
    setup::install(progress, &missing)?;
    setup::namespaces_are_allowed()?;
    if !built {
        build_with(progress, &go_toolchain::ready(progress)?)?;
    }
    Ok(())
}

/// The same for tests, which run routing daemons besides.
pub fn for_tests(progress: &Progress) -> Result<()> {
    setup::install(progress, &setup::missing_daemons())?;
    cluster(progress)
}

/// Builds Berth's programs and returns the folder that they are in.
pub fn berth(progress: &Progress) -> Result<PathBuf> {
    progress.step("building Berth: controller, speaker and kubectl plugin");
    // The bench is small, and a suite runs it.
    let packages = ["berth-controller", "berth-speaker", "berth-cli", "berth-bench"];
    let built = build(&packages.map(|package| ["--package", package]).concat())?;
    folder_of(&built)
}

/// Builds what is measured, as it is shipped, and returns the folder that it is in.
pub fn for_bench(progress: &Progress) -> Result<PathBuf> {
    progress.step("building Berth and the bench as they are released; the first time takes minutes");
    let mut built = build(&["--release", "--package", "berth-controller", "--package", "berth-bench"])?;
    let folder = folder_of(&built)?.with_file_name(AS_SHIPPED);
    // By itself, for it has a profile of its own, and would else have what the others want of the libraries that they share.
    built.extend(cargo("rustc", &["--profile", "speaker", "--package", "berth-speaker"], STATICALLY)?);
    fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    for program in built {
        let to = folder.join(program.file_name().context("a program without a name was built")?);
        fs::copy(&program, &to).with_context(|| format!("copying {} to {}", program.display(), to.display()))?;
    }
    Ok(folder)
}

/// All that any command would install by itself.
pub fn everything(progress: &Progress) -> Result<()> {
    for_tests(progress)?;
    moto(progress)
}

/// What answers in AWS's place. Quick and silent when it is there.
fn moto(progress: &Progress) -> Result<()> {
    setup::install(progress, &setup::missing_python())?;
    berth_moto::ready(&|what| progress.step(what)).map(drop)
}

/// Installs what answers in AWS's place, builds Berth with all that calls AWS, and returns the folder that the programs are in. Not as they are
/// released: what is measured is which calls are made, and the release of it takes long to build.
pub fn for_aws(progress: &Progress) -> Result<PathBuf> {
    moto(progress)?;
    progress.step("building Berth with the calls of AWS; the first time takes minutes");
    let packages = ["berth-controller", "berth-speaker", "berth-cli", "berth-bench"];
    let packages = packages.map(|package| ["--package", package]).concat();
    let built = build(&[&packages[..], &["--features", "berth-controller/aws"]].concat())?;
    folder_of(&built)
}

/// Builds programs and returns where they are.
fn build(what: &[&str]) -> Result<Vec<PathBuf>> {
    cargo("build", what, &[])
}

/// `cargo build`, or `cargo rustc`, which passes `flags` on to the compiler.
fn cargo(command: &str, what: &[&str], flags: &[&str]) -> Result<Vec<PathBuf>> {
    let output = Command::new(workspace::cargo())
        .args([command, "--locked", "--bins"])
        .args(what)
        .args(["--quiet", "--message-format=json-render-diagnostics"])
        .args(flags)
        .stderr(Stdio::inherit())
        .current_dir(workspace::root())
        .output()
        .with_context(|| format!("starting `cargo {command}`"))?;
    if !output.status.success() {
        bail!("Berth could not be built; the compiler's messages are above");
    }
    Ok(executables(&String::from_utf8_lossy(&output.stdout)))
}

fn folder_of(programs: &[PathBuf]) -> Result<PathBuf> {
    let folder = programs.first().and_then(|program| program.parent());
    folder.map(Path::to_path_buf).context("`cargo build` named no program that it built")
}

/// Builds the control plane, in a process of its own. What the hidden command does.
pub fn build_control_plane() -> Result<()> {
    binary::binary(&berth_lab::Silent).map(drop)
}

fn build_with(progress: &Progress, go: &Path) -> Result<()> {
    progress.step("building the control plane from its Go modules; once, 5 to 10 minutes");
    let began = progress.elapsed();
    // In a process of its own, because the library takes the Go to use from the environment.
    let myself = std::env::current_exe().context("finding the running program")?;
    let mut build = Command::new(myself);
    go_toolchain::environment(&mut build, go);
    let build = build.arg(BUILD_CONTROL_PLANE).stdin(Stdio::null()).spawn().context("starting the build")?;
    wait_patiently(progress, build)?;
    let took = seconds(progress.elapsed().saturating_sub(began));
    progress.seen(format_args!("built in {took}; it is kept in `{}`", binary::cached()?.display()));
    Ok(())
}

fn wait_patiently(progress: &Progress, mut build: Child) -> Result<()> {
    let began = progress.elapsed();
    let mut told = began;
    let status = loop {
        if let Some(status) = build.try_wait().context("waiting for the build")? {
            break status;
        }
        if progress.elapsed().saturating_sub(told) >= PATIENCE {
            told = progress.elapsed();
            progress.note(format_args!("still building after {}", seconds(told.saturating_sub(began))));
        }
        std::thread::sleep(BUILD_POLL);
    };
    if !status.success() {
        bail!("the control plane could not be built; why is above");
    }
    Ok(())
}

/// One line of `cargo build --message-format=json`.
#[derive(Debug, Deserialize)]
struct BuildMessage {
    executable: Option<PathBuf>,
}

fn executables(messages: &str) -> Vec<PathBuf> {
    messages.lines().filter_map(|line| serde_json::from_str::<BuildMessage>(line).ok()?.executable).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_programs_are_read_from_cargo() {
        let messages = "{\"reason\":\"compiler-artifact\",\"executable\":null}\nno json\n\
            {\"reason\":\"compiler-artifact\",\"executable\":\"/t/debug/berth-speaker\"}\n{\"reason\":\"build-finished\"}\n";
        assert_eq!(executables(messages), [PathBuf::from("/t/debug/berth-speaker")]);
        assert_eq!(executables("{\"reason\":\"build-finished\"}\n"), Vec::<PathBuf>::new());
        assert!(folder_of(&[]).is_err());
    }
}
