//! Berth in the lab, once it is installed: its containers, and what they say.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use berth_api::names::{CONTROLLER_NAMESPACE, LEADER_LEASE, SPEAKER_NAMESPACE};
use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, Client};

use crate::controlplane::START_LIMIT;
use crate::kubelet::Container;
use crate::lab::Lab;

/// Where Berth's processes serve health and metrics, each at the address of its pod.
pub const HTTP_PORT: u16 = 7481;
/// Where speakers hear each other's heartbeats, by UDP, at the addresses of their nodes.
pub const HEARTBEAT_PORT: u16 = 7480;

/// The label that tells the parts of Berth apart.
const COMPONENT: &str = "app.kubernetes.io/component";
/// Longest time without a leader: a few times that of the Lease.
const LEADS_LIMIT: Duration = Duration::from_secs(20);
/// Longest wait for a page.
const PAGE_LIMIT: Duration = Duration::from_secs(5);
/// Where a container finds its token.
const TOKEN: &str = "var/run/secrets/kubernetes.io/serviceaccount/token";

impl Lab {
    /// The controllers that are not about to end, oldest first.
    pub fn controllers(&self) -> Vec<Container> {
        self.component(CONTROLLER_NAMESPACE, "controller", None)
    }

    /// Waits for a controller that leads, as the Lease says, and returns it.
    pub async fn controller(&self) -> Result<Container> {
        crate::eventually::eventually("a controller leads", LEADS_LIMIT, async || self.leader().await.map(Some)).await
    }

    async fn leader(&self) -> Result<Container> {
        let all = self.controllers();
        if let [only] = &all[..] {
            return Ok(only.clone());
        }
        let leases: Api<Lease> = Api::namespaced(self.admin(), CONTROLLER_NAMESPACE);
        let holder = leases.get_opt(LEADER_LEASE).await?.and_then(|lease| lease.spec?.holder_identity);
        let holder = holder.filter(|holder| !holder.is_empty()).context("no controller leads")?;
        let found = all.into_iter().find(|container| container.pod() == holder);
        found.with_context(|| format!("the controller that leads, {holder}, is not there any more"))
    }

    /// A controller that does not lead.
    pub async fn standby_controller(&self) -> Result<Container> {
        let leader = self.controller().await?;
        let other = self.controllers().into_iter().find(|container| container.pod() != leader.pod());
        other.context("there is only one controller")
    }

    /// A node's speaker.
    pub fn speaker(&self, node: &str) -> Result<Container> {
        let found = self.component(SPEAKER_NAMESPACE, "speaker", Some(node)).pop();
        found.with_context(|| format!("there is no speaker on `{node}`"))
    }

    /// Waits until the controller that leads is ready, as after a restart.
    pub async fn controller_ready(&self) -> Result<()> {
        self.controller().await?.ready(START_LIMIT).await
    }

    /// Waits until a node's speaker is ready, as after a restart.
    pub async fn speaker_ready(&self, node: &str) -> Result<()> {
        self.speaker(node)?.ready(START_LIMIT).await
    }

    /// The metrics page of the controller that leads.
    pub async fn controller_metrics(&self) -> Result<String> {
        metrics(&self.controller().await?).await
    }

    /// The metrics page of a node's speaker.
    pub async fn speaker_metrics(&self, node: &str) -> Result<String> {
        metrics(&self.speaker(node)?).await
    }

    /// A client with a container's own rights: with the token that is mounted in it.
    pub async fn client_as(&self, container: &Container) -> Result<Client> {
        let pid = container.pid().with_context(|| format!("{} does not run", container.name()))?;
        let path = format!("/proc/{pid}/root/{TOKEN}");
        let token = fs::read_to_string(&path).with_context(|| format!("reading the token of {}", container.name()))?;
        self.client_with_token(&token).await
    }

    /// The container of a pod that a kubelet runs.
    pub fn container(&self, namespace: &str, pod: &str, container: &str) -> Result<Container> {
        let found = self.inner.containers.find(|identity| {
            (identity.namespace.as_str(), identity.pod.as_str(), identity.container.as_str())
                == (namespace, pod, container)
        });
        let newest = found.into_iter().next_back();
        newest.with_context(|| format!("no kubelet has a container {container} of a pod {namespace}/{pod}"))
    }

    /// All containers on a node that are not about to end.
    pub fn containers_on(&self, node: &str) -> Vec<Container> {
        let mut found = self.inner.containers.find(|identity| identity.node == node);
        found.retain(|container| !container.is_ending());
        found
    }

    fn component(&self, namespace: &str, component: &str, node: Option<&str>) -> Vec<Container> {
        let mut found = self.inner.containers.find(|identity| {
            identity.namespace == namespace
                && identity.labels.get(COMPONENT).is_some_and(|label| label == component)
                && node.is_none_or(|node| identity.node == node)
        });
        found.retain(|container| !container.is_ending());
        found
    }
}

async fn metrics(container: &Container) -> Result<String> {
    let answer = container.http_get(HTTP_PORT, "/metrics", PAGE_LIMIT).await?;
    if answer.status != 200 {
        bail!("the metrics page of {} answers {}", container.name(), answer.status);
    }
    Ok(answer.body)
}
