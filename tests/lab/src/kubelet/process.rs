//! A container's process: started in namespaces of its own, from its template and nothing else, and waited for.

use std::fs::{File, OpenOptions};
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use berth_lab_exec::{Confinement, confine};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, sethostname};
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;

use super::rootfs::Root;
use crate::netns::Netns;

/// Exit code of what a signal ended, as shells and kubelets count: 128 and the signal's number.
const SIGNALLED: i32 = 128;

/// All about a process that is to be started.
#[derive(Debug, Clone)]
pub(crate) struct ProcessPlan {
    pub netns: Netns,
    /// The name of the machine that it sees; without one, it sees the lab's.
    pub hostname: Option<String>,
    pub root: Root,
    pub confinement: Confinement,
    pub program: String,
    pub args: Vec<String>,
    pub env: Vec<(String, String)>,
    /// Its output is appended to it.
    pub log: PathBuf,
}

/// A process that was started. Cheap to clone; all clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct ContainerProcess {
    /// Its number inside the lab.
    pub pid: u32,
    exit: watch::Receiver<Option<ExitStatus>>,
}

impl ProcessPlan {
    /// Starts it. A thread of its own makes its namespaces, and waits for its end. When nobody waits for the answer any more, it is
    /// killed at once.
    pub(crate) async fn start(self) -> Result<ContainerProcess> {
        let (tell_exit, exit) = watch::channel(None);
        let (tell, told) = oneshot::channel();
        let work = move || {
            let mut child = match self.spawn() {
                Ok(child) => child,
                // Nobody to tell is nobody who minds.
                Err(error) => return drop(tell.send(Err(error))),
            };
            if tell.send(Ok(child.id())).is_err() {
                // It may have ended by itself.
                let _ = child.kill();
            }
            tell_exit.send_replace(Some(child.wait().unwrap_or_default()));
        };
        thread::Builder::new().name("container".to_owned()).spawn(work).context("starting a thread")?;
        let pid = told.await.context("the thread that starts a container has ended")??;
        Ok(ContainerProcess { pid, exit })
    }

    /// On a thread of its own, which is of no other use afterwards.
    fn spawn(self) -> Result<Child> {
        let log = OpenOptions::new().create(true).append(true).open(&self.log);
        let log: File = log.with_context(|| format!("opening {}", self.log.display()))?;
        self.netns.enter()?;
        let mut own = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWIPC;
        if self.hostname.is_some() {
            own |= CloneFlags::CLONE_NEWUTS;
        }
        unshare(own).context("making namespaces")?;
        if let Some(name) = &self.hostname {
            sethostname(name).context("setting the host's name")?;
        }
        self.root.enter()?;
        let mut command = Command::new(&self.program);
        command.args(&self.args).env_clear().envs(self.env).current_dir("/");
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        confine(&mut command, self.confinement);
        command.spawn().with_context(|| format!("starting `{}`", self.program))
    }
}

impl ContainerProcess {
    /// How it ended, once it has.
    pub(crate) fn ended(&self) -> Option<ExitStatus> {
        *self.exit.borrow()
    }

    /// Waits for its end.
    pub(crate) async fn wait(&self) -> ExitStatus {
        let mut exit = self.exit.clone();
        // The sender ends only after it has told.
        exit.wait_for(Option::is_some).await.ok().and_then(|status| *status).unwrap_or_default()
    }

    /// Sends it a signal; false when it has ended.
    pub(crate) fn signal(&self, signal: Signal) -> Result<bool> {
        if self.ended().is_some() {
            return Ok(false);
        }
        match kill(Pid::from_raw(self.pid.cast_signed()), signal) {
            Ok(()) => Ok(true),
            Err(nix::errno::Errno::ESRCH) => Ok(false),
            Err(error) => bail!("sending {signal} to process {}: {error}", self.pid),
        }
    }

    /// SIGTERM, and SIGKILL when it has not ended after `grace`.
    pub(crate) async fn stop(&self, grace: Duration) -> Result<ExitStatus> {
        if !grace.is_zero()
            && self.signal(Signal::SIGTERM)?
            && let Ok(status) = timeout(grace, self.wait()).await
        {
            return Ok(status);
        }
        self.signal(Signal::SIGKILL)?;
        Ok(self.wait().await)
    }
}

/// The exit code as a container's status has it.
pub(crate) fn exit_code(status: ExitStatus) -> i32 {
    status.code().or_else(|| status.signal().map(|signal| SIGNALLED + signal)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_told_as_shells_do() {
        for (raw, code) in [(0, 0), (3 << 8, 3), (9, 137), (15, 143)] {
            assert_eq!(exit_code(ExitStatus::from_raw(raw)), code);
        }
    }
}
