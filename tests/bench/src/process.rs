//! The bench's own program as a process, and what `/proc` says of any.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Error, Result, anyhow, bail};
use berth_lab::{Lab, Process};
use serde::de::DeserializeOwned;

use crate::load::Load;

/// The program of this crate.
pub const PROGRAM: &str = "berth-bench";

/// How long is looked whether a process is quiet.
const LOOK: Duration = Duration::from_secs(1);
/// The time on a core, within [`LOOK`], up to which it is: an election and a heartbeat, no work.
const QUIET: Duration = Duration::from_millis(50);
/// Longest wait for quiet; a process that is never quiet is measured as it is.
const QUIET_LIMIT: Duration = Duration::from_secs(90);
/// `sysconf(_SC_CLK_TCK)`, which Linux fixes for all programs.
const TICKS_PER_SECOND: u64 = 100;

/// Runs the load in its own process, and returns what it says.
pub(crate) async fn load<T: DeserializeOwned>(lab: &Lab, folder: &Path, load: &Load) -> Result<T> {
    let program = folder.join(PROGRAM);
    let mut command = tokio::process::Command::from(lab.root().netns.command(&program.to_string_lossy()));
    command.args(["load", "--phase", &load.phase, "--services", &load.services.to_string()]);
    command.args(["--clients", &load.clients.to_string()]);
    command.env("KUBECONFIG", lab.admin_kubeconfig()?).kill_on_drop(true);
    let output = command.output().await.with_context(|| format!("starting {}", program.display()))?;
    if !output.status.success() {
        bail!("creating the Services `{}`: {}", load.phase, String::from_utf8_lossy(&output.stderr).trim());
    }
    serde_json::from_slice(&output.stdout).context("reading what the load says")
}

/// Resident memory in MB of 1,000,000 bytes.
pub(crate) fn resident_mb(process: &Process) -> Result<f64> {
    resident_mb_of(pid(process)?)
}

/// The same of any process.
pub(crate) fn resident_mb_of(pid: u32) -> Result<f64> {
    status_mb_of(pid, "VmRSS:")
}

/// The part of it that is the process's own and not of a file, such as its program, which others may share.
pub(crate) fn anonymous_mb_of(pid: u32) -> Result<f64> {
    status_mb_of(pid, "RssAnon:")
}

fn status_mb_of(pid: u32, what: &str) -> Result<f64> {
    let status = proc_file(pid, "status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(what));
    let line = line.with_context(|| format!("no {what} in the process status"))?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse().with_context(|| format!("reading {what}"))?;
    Ok(kib * 1024.0 / 1e6)
}

/// Waits until a process has nothing to do any more.
pub(crate) async fn quiet(process: &Process) -> Result<()> {
    quiet_of(pid(process)?).await
}

/// The same of any process.
pub(crate) async fn quiet_of(pid: u32) -> Result<()> {
    let began = Instant::now();
    while began.elapsed() < QUIET_LIMIT {
        let before = time_on_cores_of(pid)?;
        // A process tells nobody that it is idle.
        tokio::time::sleep(LOOK).await;
        if time_on_cores_of(pid)?.saturating_sub(before) <= QUIET {
            return Ok(());
        }
    }
    Ok(())
}

/// Time that it has spent on cores so far.
pub(crate) fn time_on_cores(process: &Process) -> Result<Duration> {
    time_on_cores_of(pid(process)?)
}

/// The same of any process.
pub(crate) fn time_on_cores_of(pid: u32) -> Result<Duration> {
    let stat = proc_file(pid, "stat")?;
    let ticks = ticks(&stat).with_context(|| format!("reading the times in `{stat}`"))?;
    Ok(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
}

/// User and system time in proc_pid_stat(5): fields 14 and 15, counted behind the name, which may hold anything.
fn ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

/// That it has, and what it said last.
pub(crate) fn has_ended(process: &Process) -> Error {
    let logged = process.logged().unwrap_or_default();
    let last = logged.lines().next_back().unwrap_or_default();
    anyhow!("{} has ended; its log {} ends with: {last}", process.name(), process.log().display())
}

fn pid(process: &Process) -> Result<u32> {
    process.pid().ok_or_else(|| has_ended(process))
}

fn proc_file(pid: u32, file: &str) -> Result<String> {
    let path = format!("/proc/{pid}/{file}");
    fs::read_to_string(&path).with_context(|| format!("reading {path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_behind_a_name_that_holds_anything() {
        for (stat, expected) in [
            ("7 (sh) S 1 7 7 0 -1 4194560 100 0 0 0 12 30 0 0 20 0 1 0 100 0 0", Some(42)),
            ("7 (a) b 1) S 1 7 7 0 -1 4194560 100 0 0 0 12 30 0 0 20 0 1 0 100 0 0", Some(42)),
            ("7 (sh) S 1", None),
        ] {
            assert_eq!(ticks(stat), expected, "{stat}");
        }
    }
}
