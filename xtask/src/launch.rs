//! Running a command inside a lab of its own, from outside: this program starts itself again as the lab's first process, with the
//! same arguments.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::{ExitCode, ExitStatus};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use berth_lab::{BIN_DIR_ENV, LabState, Launch, Launched, Outcome, RunDir};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::output;
use crate::progress::Progress;

/// Made in the lab's directory by its first process when there is nothing more to come but the end.
const UP_MARK: &str = "up";
/// How long a lab's first process may take to end when it is asked; it has nothing to do but to exit.
const END_LIMIT: Duration = Duration::from_secs(2);
/// Between two looks for that mark.
const UP_POLL: Duration = Duration::from_millis(50);

/// A lab whose first process is this program with the arguments that it has now.
pub fn same_again(name: &str, progress: &Progress, programs: Option<&Path>) -> Launch<'static> {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let launch = progress.hand_on(Launch::new(name, arguments));
    match programs {
        Some(programs) => launch.env(BIN_DIR_ENV, programs),
        None => launch,
    }
}

/// Refuses a name that a living lab has.
pub fn name_is_free(name: &str) -> Result<()> {
    if LabState::list()?.iter().any(|lab| lab.name == name) {
        bail!("a lab `{name}` is up already; end it with `cargo xtask lab down --name {name}`");
    }
    Ok(())
}

/// Says, from the first process, that the lab is up and stays.
pub fn mark_up(run_dir: &RunDir) -> Result<()> {
    fs::write(run_dir.path().join(UP_MARK), "").context("marking the lab as up")
}

/// Runs a lab that ends with its first process, and with this one. `when_up` is called when the lab is marked as up.
pub fn attended(launch: Launch<'_>, when_up: impl FnOnce(&LabState) -> Result<()>) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting the runtime")?;
    runtime.block_on(async {
        // Before the lab is there, so that nothing ends this process without ending the lab.
        let mut interrupted = signal(SignalKind::interrupt()).context("listening for Ctrl-C")?;
        let mut terminated = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
        let launched = launch.spawn()?;
        let run_dir = launched.run_dir().clone();
        let mut ended = wait_in_thread(launched);
        let mut polls = tokio::time::interval(UP_POLL);
        let mut when_up = Some(when_up);
        loop {
            tokio::select! {
                status = &mut ended => return after_end(&run_dir, status.context("nobody waits for the lab")??),
                _ = interrupted.recv() => return interrupt(&run_dir, ended, when_up.is_none()).await,
                _ = terminated.recv() => return interrupt(&run_dir, ended, when_up.is_none()).await,
                _ = polls.tick(), if when_up.is_some() => {
                    if run_dir.path().join(UP_MARK).exists() && let Some(when_up) = when_up.take() {
                        when_up(&LabState::of(&run_dir)?)?;
                    }
                }
            }
        }
    })
}

/// Runs a lab that may live on after this process. `when_detached` is called when it does.
pub fn detachable(launch: Launch<'_>, when_detached: impl FnOnce(&LabState) -> Result<()>) -> Result<ExitCode> {
    let launched = launch.detachable().spawn()?;
    let run_dir = launched.run_dir().clone();
    match launched.relay()? {
        Outcome::Detached => {
            when_detached(&LabState::of(&run_dir)?)?;
            Ok(ExitCode::SUCCESS)
        }
        Outcome::Ended(status) => after_end(&run_dir, status),
    }
}

fn wait_in_thread(mut launched: Launched) -> oneshot::Receiver<Result<ExitStatus>> {
    let (tell, told) = oneshot::channel();
    std::thread::spawn(move || {
        // Nobody listens any more only when this process is ending.
        let _ = tell.send(launched.wait());
    });
    told
}

fn after_end(run_dir: &RunDir, status: ExitStatus) -> Result<ExitCode> {
    if status.success() {
        run_dir.remove()?;
        return Ok(ExitCode::SUCCESS);
    }
    run_dir.mark_failed(&format!("its first process ended with {status}"))?;
    output::line(format_args!("hint: the logs of the lab are in `{}`", run_dir.logs().display()));
    for log in run_dir.log_files() {
        output::line(format_args!("hint:   {}", log.display()));
    }
    Ok(ExitCode::FAILURE)
}

/// Ends the lab on Ctrl-C: its first process is asked, and killed when it does not go. For a lab that `was_up` this is the usual end.
async fn interrupt(run_dir: &RunDir, ended: oneshot::Receiver<Result<ExitStatus>>, was_up: bool) -> Result<ExitCode> {
    output::line("");
    // One that is so young that it cannot be described ends with this process.
    if let Ok(lab) = LabState::of(run_dir) {
        kill(Pid::from_raw(lab.init_pid.cast_signed()), Signal::SIGTERM).context("ending the lab")?;
        match timeout(END_LIMIT, ended).await {
            Ok(_) => run_dir.remove()?,
            Err(_) => lab.down()?,
        }
        output::line(format_args!("the lab `{}` is down; nothing is left of it", lab.name));
    }
    Ok(if was_up { ExitCode::SUCCESS } else { ExitCode::from(INTERRUPTED) })
}

/// Does the work of a lab's first process, until SIGTERM. With that process all others of the lab end.
pub fn inside<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    berth_lab::testing::runtime()?.block_on(async {
        let mut terminated = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
        tokio::select! {
            done = work => done,
            _ = terminated.recv() => std::process::exit(0),
        }
    })
}

/// What a shell says of a program that Ctrl-C ended.
const INTERRUPTED: u8 = 130;
