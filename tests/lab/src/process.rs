//! A process of the lab: started in its network namespace, logged, and hurt on purpose.

use std::fmt;
use std::fs::OpenOptions;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::controlplane::binary::last_lines;
use crate::netns::Netns;
use crate::state::Recorder;
use crate::tool;

/// How often a health endpoint is asked while a process starts. Health endpoints offer nothing to wait on.
const READY_POLL: Duration = Duration::from_millis(20);
/// How long one such question may take; an API server that is starting may hang in it.
const READY_ATTEMPT: Duration = Duration::from_secs(2);
/// Longest wait for a killed process to be gone: the kernel needs microseconds, a loaded machine more.
const KILL_LIMIT: Duration = Duration::from_secs(10);
/// Lines of its log that are told when a process ends unasked.
const LOG_LINES_TOLD: usize = 8;

/// What to start, and where.
#[derive(Debug, Clone)]
pub struct ProcessSpec {
    /// Its name in the lab, which names its log.
    pub name: String,
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// Its environment; it gets `PATH` besides, and nothing else.
    pub env: Vec<(String, String)>,
    /// Where it runs.
    pub netns: Netns,
}

/// A process of the lab. Cheap to clone; all clones are the same process.
#[derive(Clone)]
pub struct Process {
    inner: Arc<Inner>,
}

struct Inner {
    spec: ProcessSpec,
    log: PathBuf,
    recorder: Arc<Recorder>,
    running: Mutex<Option<Running>>,
}

#[derive(Clone)]
struct Running {
    pid: Pid,
    exit: watch::Receiver<Option<ExitStatus>>,
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Process").field("name", &self.inner.spec.name).field("pid", &self.pid()).finish_non_exhaustive()
    }
}

impl Process {
    /// Starts it. Its output goes to `logs/<name>.log`.
    pub(crate) fn spawn(spec: ProcessSpec, recorder: &Arc<Recorder>) -> Result<Self> {
        let log = recorder.run_dir().log(&spec.name);
        let process =
            Self { inner: Arc::new(Inner { spec, log, recorder: recorder.clone(), running: Mutex::new(None) }) };
        process.start()?;
        Ok(process)
    }

    /// Its name in the lab.
    pub fn name(&self) -> &str {
        &self.inner.spec.name
    }

    /// Where its log is.
    pub fn log(&self) -> &Path {
        &self.inner.log
    }

    /// All that it has logged so far.
    pub fn logged(&self) -> Result<String> {
        let text = std::fs::read(&self.inner.log).with_context(|| format!("reading {}", self.inner.log.display()))?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// Its number inside the lab, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.alive().map(|running| running.pid.as_raw().cast_unsigned())
    }

    /// Whether it runs (also while it is paused).
    pub fn is_running(&self) -> bool {
        self.alive().is_some()
    }

    /// Starts it again after its end, the same as before; its log goes on.
    pub fn start(&self) -> Result<()> {
        self.start_with(&[])
    }

    /// The same, with these arguments behind its own, for this once.
    pub(crate) fn start_with(&self, more: &[String]) -> Result<()> {
        if self.is_running() {
            bail!("{} runs already", self.name());
        }
        let log = OpenOptions::new().create(true).append(true).open(&self.inner.log);
        let log = log.with_context(|| format!("opening {}", self.inner.log.display()))?;
        let mut command = tokio::process::Command::from(self.command());
        command.args(more);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let mut child = command.spawn().with_context(|| format!("starting {}", self.name()))?;
        let number = child.id().with_context(|| format!("{} ended at once", self.name()))?;
        let (tell, exit) = watch::channel(None);
        *self.lock() = Some(Running { pid: Pid::from_raw(number.cast_signed()), exit });
        self.inner.recorder.update(|record| {
            record.processes.insert(self.name().to_owned(), number);
        })?;

        let inner = self.inner.clone();
        tokio::spawn(async move {
            let status = child.wait().await.unwrap_or_default();
            // A file that cannot be written says so at the next start; the lab goes on meanwhile.
            let _ = inner.recorder.update(|record| {
                record.processes.retain(|name, pid| *name != inner.spec.name || *pid != number);
            });
            tell.send_replace(Some(status));
        });
        Ok(())
    }

    /// Kills it with SIGKILL and waits until it is gone. One that does not run is left alone.
    pub async fn kill(&self) -> Result<()> {
        if self.signal(Signal::SIGKILL)? {
            self.wait(KILL_LIMIT).await?;
        }
        Ok(())
    }

    /// Asks it to stop with SIGTERM and waits at most so long for its end.
    pub async fn terminate(&self, limit: Duration) -> Result<ExitStatus> {
        if !self.signal(Signal::SIGTERM)? {
            bail!("{} does not run", self.name());
        }
        self.wait(limit).await
    }

    /// Stops its clock with SIGSTOP: it lives, and does nothing.
    pub fn pause(&self) -> Result<()> {
        self.signal_running(Signal::SIGSTOP)
    }

    /// Lets a paused one go on.
    pub fn resume(&self) -> Result<()> {
        self.signal_running(Signal::SIGCONT)
    }

    /// Kills it and starts it again.
    pub async fn restart(&self) -> Result<()> {
        self.kill().await?;
        self.start()
    }

    /// Waits at most so long for its end.
    pub async fn wait(&self, limit: Duration) -> Result<ExitStatus> {
        let Some(mut running) = self.lock().clone() else { bail!("{} was never started", self.name()) };
        let ended = timeout(limit, running.exit.wait_for(Option::is_some)).await;
        let ended = ended.with_context(|| format!("{} still runs after {limit:?}", self.name()))?;
        Ok(ended.context("the lab is ending")?.unwrap_or_default())
    }

    /// Waits until `http://<to><path>`, asked from its own namespace, answers 200; an end of the process is an error at once.
    pub async fn ready(&self, to: SocketAddr, path: &str, limit: Duration) -> Result<()> {
        let netns = &self.inner.spec.netns;
        self.until(limit, async || match netns.http_get(to, path, READY_ATTEMPT).await? {
            answer if answer.status == 200 => Ok(()),
            answer => bail!("http://{to}{path} answers {}: {}", answer.status, answer.body.trim()),
        })
        .await
    }

    /// Repeats a question until it is answered; an end of the process is an error at once.
    pub(crate) async fn until<T>(&self, limit: Duration, ask: impl AsyncFn() -> Result<T>) -> Result<T> {
        let begin = Instant::now();
        loop {
            let refused = match ask().await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            if !self.is_running() {
                bail!("{} has ended; {}", self.name(), self.last_words());
            }
            if begin.elapsed() > limit {
                bail!("{} is not ready after {limit:?}: {refused:#}; {}", self.name(), self.last_words());
            }
            sleep(READY_POLL).await;
        }
    }

    fn last_words(&self) -> String {
        let logged = self.logged().unwrap_or_default();
        format!("its log {} ends with:\n{}", self.inner.log.display(), last_lines(&logged, LOG_LINES_TOLD))
    }

    fn command(&self) -> std::process::Command {
        let spec = &self.inner.spec;
        let mut command = spec.netns.command(&spec.program.to_string_lossy());
        command.args(&spec.args).env_clear().env("PATH", tool::PATH);
        command.envs(spec.env.iter().map(|(key, value)| (key, value)));
        command
    }

    fn signal_running(&self, signal: Signal) -> Result<()> {
        if !self.signal(signal)? {
            bail!("{} does not run", self.name());
        }
        Ok(())
    }

    fn signal(&self, signal: Signal) -> Result<bool> {
        let Some(running) = self.alive() else { return Ok(false) };
        kill(running.pid, signal).with_context(|| format!("sending {signal} to {}", self.name()))?;
        Ok(true)
    }

    fn alive(&self) -> Option<Running> {
        self.lock().clone().filter(|running| running.exit.borrow().is_none())
    }

    fn lock(&self) -> MutexGuard<'_, Option<Running>> {
        self.inner.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
