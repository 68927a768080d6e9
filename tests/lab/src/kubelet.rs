//! A stand-in for the kubelet: starts the containers of the pods that are bound to its node, from their templates and from nothing
//! else, and tells the API server how they are.
//!
//! It runs the images of one table (`kubelet/image.rs`) and does what it understands of a template as a kubelet with a container
//! runtime does: see [`template`] for what that is. What it does not understand, it refuses in the pod's status. Users' pods are
//! served by [`Pod`](crate::Pod) and left alone.
//!
//! The kubelets are tasks of the lab's first process; they talk to the API server from the lab's own root, so a node whose cable
//! is cut still has its status written.

mod capabilities;
mod container;
mod downward;
mod environment;
pub(crate) mod image;
mod probes;
mod process;
mod restarts;
mod rootfs;
mod runner;
mod status;
mod template;
mod volumes;
mod worker;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use futures::TryStreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{Config, Event, watcher};
use kube::{Api, Client, ResourceExt as _};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use container::Container;
pub(crate) use container::Containers;
pub use image::BIN_DIR_ENV;

use crate::node::Node;
use crate::state::Recorder;
use worker::Seen;

/// The kubelet of a node. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Kubelet {
    inner: Arc<Inner>,
}

struct Inner {
    node: Node,
    client: Client,
    recorder: Arc<Recorder>,
    containers: Containers,
    running: Mutex<Option<Running>>,
}

/// All tasks of a kubelet that runs: of its pods and of their containers too.
#[derive(Clone)]
struct Running {
    power: CancellationToken,
    tasks: TaskTracker,
}

impl Running {
    /// A task that ends with the power.
    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) -> JoinHandle<Option<()>> {
        self.tasks.spawn(self.power.clone().run_until_cancelled_owned(work))
    }
}

impl Kubelet {
    pub(crate) fn new(node: Node, client: Client, recorder: Arc<Recorder>, containers: Containers) -> Self {
        Self { inner: Arc::new(Inner { node, client, recorder, containers, running: Mutex::new(None) }) }
    }

    /// Starts it, unless it runs.
    pub(crate) fn start(&self) {
        let mut running = self.lock();
        if running.is_none() {
            let now = Running { power: CancellationToken::new(), tasks: TaskTracker::new() };
            now.spawn(watch_pods(self.clone(), now.clone()));
            *running = Some(now);
        }
    }

    /// Takes its node's power away: it stops at once, and all containers are killed without a word to anybody.
    pub(crate) async fn crash(&self) -> Result<()> {
        let Some(Running { power, tasks }) = self.lock().take() else { return Ok(()) };
        power.cancel();
        tasks.close();
        tasks.wait().await;
        for container in self.inner.containers.find(|identity| identity.node == self.inner.node.name()) {
            container.kill().await?;
            runner::lost(&self.inner.recorder, &container);
        }
        Ok(())
    }

    fn node(&self) -> &Node {
        &self.inner.node
    }

    fn client(&self) -> &Client {
        &self.inner.client
    }

    fn recorder(&self) -> &Arc<Recorder> {
        &self.inner.recorder
    }

    fn containers(&self) -> &Containers {
        &self.inner.containers
    }

    fn lock(&self) -> MutexGuard<'_, Option<Running>> {
        self.inner.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Watches the pods of the node, and gives each a worker.
async fn watch_pods(kubelet: Kubelet, running: Running) {
    let pods: Api<Pod> = Api::all(kubelet.client().clone());
    let mine = Config::default().fields(&format!("spec.nodeName={}", kubelet.node().name()));
    let mut events = Box::pin(watcher(pods, mine).default_backoff());
    let mut workers: HashMap<String, watch::Sender<Seen>> = HashMap::new();
    let mut listed: Vec<String> = Vec::new();
    loop {
        // An error, such as an API server that is away, is followed by another attempt.
        let Ok(Some(event)) = events.try_next().await else { continue };
        match event {
            Event::Init => listed.clear(),
            Event::InitApply(pod) => {
                listed.extend(pod.uid());
                see(&kubelet, &running, &mut workers, pod);
            }
            Event::InitDone => workers.retain(|uid, worker| {
                let is_listed = listed.contains(uid);
                if !is_listed {
                    worker.send_replace(Seen::Gone);
                }
                is_listed
            }),
            Event::Apply(pod) => see(&kubelet, &running, &mut workers, pod),
            Event::Delete(pod) => {
                if let Some(worker) = workers.remove(&pod.uid().unwrap_or_default()) {
                    worker.send_replace(Seen::Gone);
                }
            }
        }
    }
}

fn see(kubelet: &Kubelet, running: &Running, workers: &mut HashMap<String, watch::Sender<Seen>>, pod: Pod) {
    if template::is_users(&pod) {
        return;
    }
    let uid = pod.uid().unwrap_or_default();
    if let Some(worker) = workers.get(&uid) {
        worker.send_replace(Seen::Object(Box::new(pod)));
        return;
    }
    let (tell, seen) = watch::channel(Seen::Object(Box::new(pod.clone())));
    workers.insert(uid, tell);
    running.spawn(worker::run(kubelet.clone(), running.clone(), pod, seen));
}
