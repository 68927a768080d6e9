//! Entering a lab: the process that wants one starts itself again as the first process of new PID,
//! mount and network namespaces (and a user namespace when it is not root).
//!
//! Everything the lab starts lives below that first process, so that its end, even by SIGKILL, is the
//! clean-up: the kernel kills the rest, and namespaces, links and mounts go with the last of them.
//!
//! The launcher and the first process are held together by a lifeline, a named pipe that the launcher keeps open
//! for writing: when the launcher ends without having let go, the first process ends too.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::mount::{MsFlags, mount};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, Uid, dup2_stderr, dup2_stdout, mkfifo};

use crate::controlplane::binary;
use crate::progress::{Progress, Silent};
use crate::run_dir::{Held, RunDir};
use crate::tool::tool;

const NAME_ENV: &str = "BERTH_LAB_NAME";
const RUN_DIR_ENV: &str = "BERTH_LAB_RUN_DIR";
const BINARY_ENV: &str = "BERTH_LAB_CONTROLPLANE";
/// Set when standard input is a listening socket of the host, on which the lab offers its API server.
const LISTENER_ENV: &str = "BERTH_LAB_LISTENER";

const LIFELINE: &str = "lifeline";
/// The last byte that a first process writes to the launcher's output before it lets go of it. The pipe's end
/// would not tell: `unshare` stays, and holds it too.
const LET_GO: u8 = 0;
/// What the launcher writes into the lifeline to let the lab live on without it.
const RELEASE: &[u8] = b"r";
/// Longest that a first process takes to end when its lifeline is cut.
pub const LIFELINE_LIMIT: Duration = Duration::from_secs(5);
/// How often it is asked meanwhile whether it has ended; nothing offers to wait for a child for a limited time.
const END_POLL: Duration = Duration::from_millis(5);
/// The log of the first process itself.
pub(crate) const LAB_LOG: &str = "lab";

/// Where the first process's output goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Output {
    Inherit,
    Log,
    Pipe,
}

/// A lab about to be started, by running the present binary again.
pub struct Launch<'a> {
    name: String,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    output: Output,
    api_on_host: bool,
    own_session: bool,
    progress: &'a dyn Progress,
}

impl<'a> Launch<'a> {
    /// A lab of this name (it names the run directory), whose first process is the present binary with `args`.
    pub fn new(name: impl Into<String>, args: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        Self {
            name: name.into(),
            args: args.into_iter().map(Into::into).collect(),
            env: Vec::new(),
            output: Output::Inherit,
            api_on_host: false,
            own_session: false,
            progress: &Silent,
        }
    }

    /// Sets an environment variable of the first process.
    #[must_use]
    pub fn env(mut self, key: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.push((key.into(), value.into()));
        self
    }

    /// Whom to tell about the build of the control plane, if there must be one.
    #[must_use]
    pub fn progress(mut self, progress: &'a dyn Progress) -> Self {
        self.progress = progress;
        self
    }

    /// Offers the API server on the host's loopback, so that `kubectl` works there.
    #[must_use]
    pub fn api_on_host(mut self) -> Self {
        self.api_on_host = true;
        self
    }

    /// The first process's output goes to `logs/lab.log`.
    #[must_use]
    pub fn output_to_log(mut self) -> Self {
        self.output = Output::Log;
        self
    }

    /// Prepares for a lab that may outlive its launcher: a session of its own, so that neither Ctrl-C nor a closing terminal
    /// reaches it, and its output through pipes ([`Launched::relay`]) until it calls [`Entered::detach`].
    #[must_use]
    pub fn detachable(mut self) -> Self {
        self.output = Output::Pipe;
        self.own_session = true;
        self
    }

    /// Starts it. The control plane is built first when it is not in the cache.
    pub fn spawn(self) -> Result<Launched> {
        let controlplane = binary::binary(self.progress)?;
        let (run_dir, held) = RunDir::create(&self.name)?;
        let lifeline = lay_lifeline(&run_dir)?;
        let myself = std::env::current_exe().context("finding the running binary")?;

        let mut command = tool(if self.own_session { "setsid" } else { "unshare" });
        if self.own_session {
            command.arg("unshare");
        }
        command.args(["--fork", "--kill-child", "--pid", "--mount", "--mount-proc", "--net"]);
        if !Uid::effective().is_root() {
            command.args(["--user", "--map-root-user"]);
        }
        command.arg("--").arg(myself).args(&self.args);
        command.env(NAME_ENV, &self.name).env(RUN_DIR_ENV, run_dir.path()).env(BINARY_ENV, controlplane);
        command.envs(self.env).stdin(Stdio::null()).env_remove(LISTENER_ENV);
        if self.api_on_host {
            // The socket keeps the host's network namespace, wherever it is used.
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("listening on the host's loopback")?;
            command.env(LISTENER_ENV, "stdin").stdin(OwnedFd::from(listener));
        }
        match self.output {
            Output::Inherit => {}
            Output::Log => {
                let log = File::create(run_dir.log(LAB_LOG)).context("making the lab's log")?;
                command.stdout(log.try_clone().context("making the lab's log")?).stderr(log);
            }
            Output::Pipe => {
                command.stdout(Stdio::piped()).stderr(Stdio::piped());
            }
        }
        let child = command.spawn().context("starting `unshare`: install util-linux")?;
        Ok(Launched { child, run_dir, lifeline: Some(lifeline), held: Some(held) })
    }
}

/// A lab that was started from here. Dropping it ends the lab, unless it was released.
pub struct Launched {
    child: Child,
    run_dir: RunDir,
    lifeline: Option<File>,
    held: Option<Held>,
}

/// How a detachable lab went on.
#[derive(Debug)]
pub enum Outcome {
    /// It is up and lives on without its launcher.
    Detached,
    /// Its first process has ended.
    Ended(ExitStatus),
}

impl Launched {
    /// The lab's directory on the host.
    pub fn run_dir(&self) -> &RunDir {
        &self.run_dir
    }

    /// Waits for the first process's end.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        self.child.wait().context("waiting for the lab")
    }

    /// Waits for the first process's end, and ends it when it takes longer than `limit`: then there is no status.
    pub fn wait_at_most(mut self, limit: Duration) -> Result<Option<ExitStatus>> {
        let launcher = Pid::from_raw(self.child.id().cast_signed());
        let lifeline = self.lifeline.take();
        let (tell, told) = mpsc::channel();
        let waiter = thread::spawn(move || {
            // Nobody listens any more only when the limit has passed.
            drop(tell.send(self.child.wait()));
        });
        let status = if let Ok(status) = told.recv_timeout(limit) {
            Some(status.context("waiting for the lab")?)
        } else {
            // `unshare --kill-child` takes the first process along.
            kill(launcher, Signal::SIGKILL).context("ending the lab")?;
            None
        };
        drop(waiter.join());
        drop(lifeline);
        Ok(status)
    }

    /// Passes the output of a detachable lab on until the lab detaches or ends: stderr as it comes, and stdout, which
    /// carries the result, after the last of it. Two pipes have no order between them, and a terminal shows both.
    pub fn relay(self) -> Result<Outcome> {
        self.relay_to(std::io::stdout(), std::io::stderr())
    }

    /// The same, to somewhere else.
    pub fn relay_to(
        mut self,
        mut stdout: impl std::io::Write,
        stderr: impl std::io::Write + Send + 'static,
    ) -> Result<Outcome> {
        let progress = self.child.stderr.take().map(|from| thread::spawn(move || pass_on(from, stderr)));
        let mut result = Vec::new();
        let result_let_go = self.child.stdout.take().is_none_or(|from| pass_on(from, &mut result));
        let progress_let_go = progress.is_none_or(|relay| matches!(relay.join(), Ok(true)));
        // A reader that went away is no reason to end the lab.
        let _ = stdout.write_all(&result).and_then(|()| stdout.flush());
        if result_let_go && progress_let_go {
            self.release()?;
            return Ok(Outcome::Detached);
        }
        Ok(Outcome::Ended(self.wait()?))
    }

    fn release(&mut self) -> Result<()> {
        if let Some(mut lifeline) = self.lifeline.take() {
            lifeline.write_all(RELEASE).context("letting go of the lab")?;
        }
        self.held = None;
        Ok(())
    }
}

impl Drop for Launched {
    fn drop(&mut self) {
        // The first process ends when its lifeline is cut. One that cannot, because it is paused, is killed.
        if self.lifeline.take().is_none() {
            return;
        }
        let begin = Instant::now();
        while let Ok(None) = self.child.try_wait() {
            if begin.elapsed() > LIFELINE_LIMIT {
                // What fails here has ended by itself.
                let _ = self.child.kill().and_then(|()| self.child.wait());
                return;
            }
            thread::sleep(END_POLL);
        }
    }
}

/// Whether the writer let go, rather than ended.
fn pass_on(mut from: impl std::io::Read, mut to: impl std::io::Write) -> bool {
    let mut buffer = [0; 4096];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        let (text, let_go) = match &buffer[..length] {
            [text @ .., LET_GO] => (text, true),
            text => (text, false),
        };
        // A reader that went away is no reason to end the lab.
        let _ = to.write_all(text).and_then(|()| to.flush());
        if let_go {
            return true;
        }
    }
    false
}

fn lay_lifeline(run_dir: &RunDir) -> Result<File> {
    let path = run_dir.path().join(LIFELINE);
    mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR).with_context(|| format!("making the pipe {}", path.display()))?;
    // Open for both, which never blocks; only this end ever writes.
    OpenOptions::new().read(true).write(true).open(&path).with_context(|| format!("opening {}", path.display()))
}

/// The first process of a lab, as it finds itself inside.
pub struct Entered {
    name: String,
    run_dir: RunDir,
    controlplane: PathBuf,
    api_listener: Option<TcpListener>,
    _alive: Held,
}

/// What the first process is given, when this is one; nothing in a process outside. To be called once, at the
/// very beginning: it mounts the lab's own `/run`.
pub fn entered() -> Result<Option<Entered>> {
    let (Some(name), Some(run_dir)) = (std::env::var_os(NAME_ENV), std::env::var_os(RUN_DIR_ENV)) else {
        return Ok(None);
    };
    if std::process::id() != 1 {
        // Going on as if outside would start a lab in the lab, which would do the same.
        bail!("this process was started as the first of the lab `{}`, but is not the first", name.display());
    }
    let Some(controlplane) = std::env::var_os(BINARY_ENV) else {
        bail!("{BINARY_ENV} is not set: labs are started by `cargo xtask` or by a lab test");
    };
    let run_dir = RunDir::at(Path::new(&run_dir));
    let alive = run_dir.hold_alive()?;
    watch_lifeline(&run_dir)?;
    mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::MS_NOSUID, None::<&str>).context("mounting the lab's /run")?;
    let api_listener = match std::env::var_os(LISTENER_ENV) {
        Some(_) => {
            let socket = std::io::stdin().as_fd().try_clone_to_owned().context("taking the host's socket")?;
            Some(TcpListener::from(socket))
        }
        None => None,
    };
    let name = name.to_string_lossy().into_owned();
    Ok(Some(Entered { name, run_dir, controlplane: controlplane.into(), api_listener, _alive: alive }))
}

impl Entered {
    /// The lab's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The lab's directory on the host.
    pub fn run_dir(&self) -> &RunDir {
        &self.run_dir
    }

    /// The control plane's binary.
    pub(crate) fn controlplane(&self) -> &Path {
        &self.controlplane
    }

    /// Where `kubectl` on the host reaches the API server, when that was asked for.
    pub(crate) fn host_api(&self) -> Result<Option<(SocketAddr, TcpListener)>> {
        let Some(listener) = &self.api_listener else { return Ok(None) };
        let listener = listener.try_clone().context("taking the host's socket")?;
        Ok(Some((listener.local_addr().context("reading the host's socket")?, listener)))
    }
}

/// Lets go of the launcher's output, which tells the launcher that the lab is up and lives on without it.
/// What is printed from here on goes to `logs/lab.log`.
pub(crate) fn detach(run_dir: &RunDir) -> Result<()> {
    let log =
        OpenOptions::new().create(true).append(true).open(run_dir.log(LAB_LOG)).context("opening the lab's log")?;
    let (mut stdout, mut stderr) = (std::io::stdout(), std::io::stderr());
    stdout.write_all(&[LET_GO]).and_then(|()| stdout.flush()).context("letting go of the output")?;
    stderr.write_all(&[LET_GO]).and_then(|()| stderr.flush()).context("letting go of the output")?;
    dup2_stdout(&log).context("redirecting the output")?;
    dup2_stderr(&log).context("redirecting the output")
}

/// Ends this process when the launcher has ended without letting go.
fn watch_lifeline(run_dir: &RunDir) -> Result<()> {
    let path = run_dir.path().join(LIFELINE);
    let mut pipe = File::open(&path).with_context(|| format!("opening {}", path.display()))?;
    thread::Builder::new()
        .name(LIFELINE.to_owned())
        .spawn(move || {
            if matches!(pipe.read(&mut [0; 1]), Ok(0) | Err(_)) {
                std::process::exit(1);
            }
        })
        .context("starting a thread")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_passed_on_until_its_writer_lets_go() {
        for (written, passed, let_go) in
            [(&b"up\n\0"[..], &b"up\n"[..], true), (b"up\n", b"up\n", false), (b"\0", b"", true)]
        {
            let mut to = Vec::new();
            assert_eq!(pass_on(written, &mut to), let_go);
            assert_eq!(to, passed);
        }
    }
}
