//! The lab itself: starts everything, and is the handle that scenarios hold.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use futures::future::try_join_all;
use kube::Client;

use crate::controlplane::{API_PORT, ControlPlane, START_LIMIT, kube_proxy_health};
use crate::enter::{self, Entered};
use crate::kubelet::{Containers, Kubelet};
use crate::network::{API_ADDRESS, Host, NODES_MAX, Network};
use crate::node::{self, Node};
use crate::process::Process;
use crate::progress::{SharedProgress, step};
use crate::run_dir::RunDir;
use crate::state::Recorder;

/// What a lab is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LabConfig {
    /// Nodes of the cluster, 1 to [`NODES_MAX`].
    pub nodes: u8,
    /// Whether every node runs kube-proxy. Without it the lab is up sooner, and no Service has a data path.
    pub kube_proxy: bool,
}

impl Default for LabConfig {
    fn default() -> Self {
        Self { nodes: 3, kube_proxy: true }
    }
}

/// A running lab. Cheap to clone. It ends with the process that runs it, and in no other way.
#[derive(Clone)]
pub struct Lab {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    entered: Entered,
    pub network: Network,
    pub control_plane: ControlPlane,
    pub nodes: Vec<Node>,
    pub progress: SharedProgress,
    pub kubelets: Vec<Kubelet>,
    pub containers: Containers,
}

impl Lab {
    /// Starts a lab inside the namespaces that were entered, and waits until all of it is ready.
    pub async fn start(entered: Entered, config: LabConfig, progress: SharedProgress) -> Result<Self> {
        if !(1..=NODES_MAX).contains(&config.nodes) {
            bail!("a lab has 1 to {NODES_MAX} nodes, not {}", config.nodes);
        }
        let recorder = Arc::new(Recorder::new(entered.run_dir().clone(), entered.name())?);
        let network = step(&*progress, "wire the lab", async { Network::build(config.nodes) }).await?;
        recorder.update(|record| record.hosts = network.hosts().map(Host::record).collect())?;

        let binary = entered.controlplane().to_path_buf();
        let starting = ControlPlane::start(binary, &network.root.netns, &recorder);
        let control_plane = step(&*progress, "start etcd and the API server", starting).await?;
        let kubeconfig = match entered.host_api()? {
            Some((address, listener)) => Some(control_plane.offer_to_host(address, listener)?),
            None => None,
        };
        let what = format!("start {} node{}", config.nodes, if config.nodes == 1 { "" } else { "s" });
        let nodes = step(&*progress, &what, start_nodes(&control_plane, &network, config)).await?;
        let containers = Containers::default();
        let kubelet = |node: &Node| {
            let kubelet = Kubelet::new(node.clone(), control_plane.admin.clone(), recorder.clone(), containers.clone());
            kubelet.start();
            kubelet
        };
        let kubelets = nodes.iter().map(kubelet).collect();
        recorder.update(|record| {
            record.ready = true;
            record.kubeconfig = kubeconfig;
        })?;
        let inner = Inner { entered, network, control_plane, nodes, progress, kubelets, containers };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.inner.entered.name()
    }

    /// Its directory on the host, which holds the logs.
    pub fn run_dir(&self) -> &RunDir {
        self.inner.entered.run_dir()
    }

    /// Lets the lab live on after its launcher: to be called once it is up, when it was launched as detachable.
    /// What is printed afterwards goes to `logs/lab.log`.
    pub fn detach(&self) -> Result<()> {
        enter::detach(self.run_dir())
    }

    /// A client of the cluster's administrator. Berth itself never gets it.
    pub fn admin(&self) -> Client {
        self.inner.control_plane.admin.clone()
    }

    /// A client of whoever the token belongs to.
    pub async fn client_with_token(&self, token: &str) -> Result<Client> {
        self.inner.control_plane.credentials.client(token).await
    }

    /// All nodes, in order.
    pub fn nodes(&self) -> &[Node] {
        &self.inner.nodes
    }

    /// A node by name, such as `node-1`.
    pub fn node(&self, name: &str) -> Result<&Node> {
        self.inner
            .nodes
            .iter()
            .find(|node| node.name() == name)
            .with_context(|| format!("the lab has no node `{name}`"))
    }

    /// The bridge's own side, where the control plane runs.
    pub fn root(&self) -> &Host {
        &self.inner.network.root
    }

    /// The client on the nodes' LAN.
    pub fn client(&self) -> &Host {
        &self.inner.network.client
    }

    /// What joins the LAN with the rest of the world.
    pub fn router(&self) -> &Host {
        &self.inner.network.router
    }

    /// The client behind the router.
    pub fn remote(&self) -> &Host {
        &self.inner.network.remote
    }

    /// What has Berth's processes find the API server by itself and not by its Service, as where no kube-proxy runs.
    pub fn api_server_environment(&self) -> Vec<(String, String)> {
        vec![
            ("KUBERNETES_SERVICE_HOST".to_owned(), API_ADDRESS.to_string()),
            ("KUBERNETES_SERVICE_PORT".to_owned(), API_PORT.to_string()),
        ]
    }

    /// The store of the API server.
    pub fn etcd(&self) -> &Process {
        &self.inner.control_plane.etcd
    }

    /// The API server. See also [`Lab::start_api_server`], which waits until it is ready again.
    pub fn api_server(&self) -> &Process {
        &self.inner.control_plane.api_server
    }

    /// Kubernetes' own controllers.
    pub fn controller_manager(&self) -> &Process {
        &self.inner.control_plane.controller_manager
    }

    /// What puts pods on nodes.
    pub fn scheduler(&self) -> &Process {
        &self.inner.control_plane.scheduler
    }

    /// Waits until `ask` finds what it looks for; an error, or nothing found, is asked again. When time is up, says what was last seen.
    pub async fn eventually<T>(
        &self,
        what: &str,
        limit: Duration,
        ask: impl AsyncFnMut() -> Result<Option<T>>,
    ) -> Result<T> {
        crate::eventually::eventually(what, limit, ask).await
    }
}

async fn start_nodes(control_plane: &ControlPlane, network: &Network, config: LabConfig) -> Result<Vec<Node>> {
    try_join_all((1..).zip(&network.nodes).map(async |(number, host)| {
        node::register(&control_plane.admin, host, number).await?;
        let kube_proxy = config.kube_proxy.then(|| control_plane.start_kube_proxy(host)).transpose()?;
        if let Some(kube_proxy) = &kube_proxy {
            kube_proxy.ready(kube_proxy_health(host), "/healthz", START_LIMIT).await?;
        }
        Ok(Node::new(host.clone(), number, kube_proxy, control_plane.admin.clone()))
    }))
    .await
}
