//! A container: what it is now, and the handle by which scenarios hold it.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use nix::sys::signal::Signal;
use tokio::sync::watch;
use tokio::time::timeout;

use super::process::ContainerProcess;
use crate::controlplane::binary::last_lines;
use crate::http::Response;
use crate::netns::Netns;

/// Longest wait for a killed process to be gone: the kernel needs microseconds, a loaded machine more.
const KILL_LIMIT: Duration = Duration::from_secs(10);
/// Lines of its log that are told when it does not become ready.
const LOG_LINES_TOLD: usize = 8;

/// What a container does.
#[derive(Debug, Clone)]
pub(crate) enum Now {
    Waiting { reason: &'static str, message: String },
    Running { process: ContainerProcess, since: Time },
    Ended(Ended),
}

/// How a container's process ended.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Ended {
    pub exit_code: i32,
    pub started: Time,
    pub finished: Time,
    /// Why it was ended, when it was by the kubelet.
    pub message: Option<String>,
}

/// A container's state, as its pod's status tells it.
#[derive(Debug, Clone)]
pub(crate) struct State {
    pub now: Now,
    pub last: Option<Ended>,
    pub restarts: i32,
    /// Whether the startup probe has succeeded.
    pub started: bool,
    pub ready: bool,
}

/// A container of a pod that a lab's kubelet runs. Cheap to clone; all clones are the same container, over all restarts of its
/// process.
#[derive(Clone)]
pub struct Container {
    inner: Arc<Inner>,
}

/// What never changes about a container.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub node: String,
    pub namespace: String,
    pub pod: String,
    pub uid: String,
    pub container: String,
    pub labels: BTreeMap<String, String>,
    pub log: PathBuf,
    /// The node's, from which it is probed.
    pub node_netns: Netns,
}

struct Inner {
    identity: Identity,
    state: watch::Sender<State>,
    /// The pod's, once it has one.
    address: Mutex<Option<IpAddr>>,
    /// Whether its pod is being deleted.
    ending: Mutex<bool>,
}

impl fmt::Debug for Container {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Container").field("name", &self.name()).field("pid", &self.pid()).finish_non_exhaustive()
    }
}

impl Container {
    pub(crate) fn new(identity: Identity) -> Self {
        let now = Now::Waiting { reason: "ContainerCreating", message: String::new() };
        let state = State { now, last: None, restarts: 0, started: false, ready: false };
        let (state, _) = watch::channel(state);
        Self { inner: Arc::new(Inner { identity, state, address: Mutex::new(None), ending: Mutex::new(false) }) }
    }

    /// `<namespace>.<pod>.<container>`, which names its log.
    pub fn name(&self) -> String {
        let Identity { namespace, pod, container, .. } = &self.inner.identity;
        format!("{namespace}.{pod}.{container}")
    }

    /// Its pod.
    pub fn pod(&self) -> &str {
        &self.inner.identity.pod
    }

    /// Its pod's namespace.
    pub fn namespace(&self) -> &str {
        &self.inner.identity.namespace
    }

    /// Its node.
    pub fn node(&self) -> &str {
        &self.inner.identity.node
    }

    /// Where its log is: of all its processes, one after the other.
    pub fn log(&self) -> &Path {
        &self.inner.identity.log
    }

    /// All that it has logged so far.
    pub fn logged(&self) -> Result<String> {
        let text = std::fs::read(self.log()).with_context(|| format!("reading {}", self.log().display()))?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// The number of its process inside the lab, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.process().map(|process| process.pid)
    }

    /// Whether it has a process (also one that is paused).
    pub fn is_running(&self) -> bool {
        self.process().is_some()
    }

    /// Whether its kubelet says that it is ready.
    pub fn is_ready(&self) -> bool {
        self.is_running() && self.inner.state.borrow().ready
    }

    /// How often its process was started again.
    pub fn restarts(&self) -> u32 {
        self.inner.state.borrow().restarts.cast_unsigned()
    }

    /// The address of its pod; of its node when it is on the node's network.
    pub fn address(&self) -> Result<IpAddr> {
        let address = *self.inner.address.lock().unwrap_or_else(PoisonError::into_inner);
        address.with_context(|| format!("{} has no address yet", self.name()))
    }

    /// One GET at a port of its pod, asked from its node.
    pub async fn http_get(&self, port: u16, path: &str, limit: Duration) -> Result<Response> {
        let to = SocketAddr::new(self.address()?, port);
        self.inner.identity.node_netns.http_get(to, path, limit).await
    }

    /// Kills its process with SIGKILL and waits until it is gone; the kubelet starts it again. One that does not run is left alone.
    pub async fn kill(&self) -> Result<()> {
        if let Some(process) = self.process()
            && process.signal(Signal::SIGKILL)?
        {
            timeout(KILL_LIMIT, process.wait()).await.with_context(|| format!("{} outlives SIGKILL", self.name()))?;
        }
        Ok(())
    }

    /// Asks its process to stop with SIGTERM and waits at most so long for its end; the kubelet starts it again.
    pub async fn terminate(&self, limit: Duration) -> Result<ExitStatus> {
        let process = self.running()?;
        process.signal(Signal::SIGTERM)?;
        timeout(limit, process.wait()).await.with_context(|| format!("{} still runs after {limit:?}", self.name()))
    }

    /// Stops its clock with SIGSTOP: it lives, and does nothing.
    pub fn pause(&self) -> Result<()> {
        self.running()?.signal(Signal::SIGSTOP).map(drop)
    }

    /// Lets a paused one go on.
    pub fn resume(&self) -> Result<()> {
        self.running()?.signal(Signal::SIGCONT).map(drop)
    }

    /// Waits until its kubelet says that it is ready.
    pub async fn ready(&self, limit: Duration) -> Result<()> {
        self.until(limit, "is ready", |state| {
            matches!(&state.now, Now::Running { process, .. } if process.ended().is_none()) && state.ready
        })
        .await
    }

    /// Waits until it was started again more often than `before` times, and runs.
    pub async fn restarted(&self, before: u32, limit: Duration) -> Result<()> {
        self.until(limit, "was started again", |state| {
            matches!(state.now, Now::Running { .. }) && state.restarts.cast_unsigned() > before
        })
        .await
    }

    /// Kills it, and waits until it runs and is ready again.
    pub async fn restart(&self, limit: Duration) -> Result<()> {
        let before = self.restarts();
        self.kill().await?;
        self.restarted(before, limit).await?;
        self.ready(limit).await
    }

    pub(crate) fn identity(&self) -> &Identity {
        &self.inner.identity
    }

    pub(crate) fn state(&self) -> State {
        self.inner.state.borrow().clone()
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut State)) {
        self.inner.state.send_modify(change);
    }

    pub(crate) fn changes(&self) -> watch::Receiver<State> {
        self.inner.state.subscribe()
    }

    pub(crate) fn set_address(&self, address: Option<IpAddr>) {
        *self.inner.address.lock().unwrap_or_else(PoisonError::into_inner) = address;
    }

    pub(crate) fn is_ending(&self) -> bool {
        *self.inner.ending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_ending(&self) {
        *self.inner.ending.lock().unwrap_or_else(PoisonError::into_inner) = true;
    }

    fn process(&self) -> Option<ContainerProcess> {
        match &self.inner.state.borrow().now {
            Now::Running { process, .. } if process.ended().is_none() => Some(process.clone()),
            _ => None,
        }
    }

    fn running(&self) -> Result<ContainerProcess> {
        self.process().with_context(|| format!("{} does not run", self.name()))
    }

    async fn until(&self, limit: Duration, what: &str, holds: impl FnMut(&State) -> bool) -> Result<()> {
        let mut changes = self.changes();
        if timeout(limit, changes.wait_for(holds)).await.is_ok() {
            return Ok(());
        }
        let state = match self.state().now {
            Now::Waiting { reason, message } => format!("it waits: {reason} {message}"),
            Now::Running { .. } => "it runs".to_owned(),
            Now::Ended(ended) => format!("it ended with {}", ended.exit_code),
        };
        let logged = last_lines(&self.logged().unwrap_or_default(), LOG_LINES_TOLD);
        let (name, log) = (self.name(), self.log().display());
        bail!("{name}: not so within {limit:?} that it {what}; {state}; its log {log} ends with:\n{logged}")
    }
}

/// All containers of a lab's kubelets. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Containers {
    all: Arc<Mutex<Vec<Container>>>,
}

impl Containers {
    /// The container of that identity: the one that is there already, as after a crash of its node, or a new one.
    pub(crate) fn take_up(&self, identity: Identity) -> Container {
        let mut all = self.lock();
        let same = |known: &&Container| {
            let known = known.identity();
            known.uid == identity.uid && known.container == identity.container
        };
        if let Some(known) = all.iter().find(same) {
            return known.clone();
        }
        let container = Container::new(identity);
        all.push(container.clone());
        container
    }

    /// Forgets the containers of a pod.
    pub(crate) fn forget(&self, uid: &str) {
        self.lock().retain(|container| container.identity().uid != uid);
    }

    /// All that fit, oldest first.
    pub(crate) fn find(&self, fits: impl Fn(&Identity) -> bool) -> Vec<Container> {
        self.lock().iter().filter(|container| fits(container.identity())).cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Container>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
