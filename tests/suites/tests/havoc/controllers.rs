//! What is done to the controllers, and undone.

use anyhow::{Context as _, Result};
use berth_api::names::{CONTROLLER_NAMESPACE, LEADER_LEASE};
use berth_lab::{Container, Lab, Workload};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::DeleteParams;

use crate::operation::Who;

/// The controllers, and what was done to which.
pub struct Controllers {
    lab: Lab,
    paused: Option<Container>,
    silenced: Option<Container>,
}

impl Controllers {
    pub fn new(lab: Lab) -> Self {
        Self { lab, paused: None, silenced: None }
    }

    /// The one that the Lease names, or another one; nothing when it does not run. What the Lease says may be outdated: then somebody
    /// else is hurt, which does no harm.
    async fn find(&self, who: Who) -> Result<Option<Container>> {
        let leases: Api<Lease> = Api::namespaced(self.lab.admin(), CONTROLLER_NAMESPACE);
        let holder =
            leases.get_opt(LEADER_LEASE).await?.and_then(|lease| lease.spec?.holder_identity).unwrap_or_default();
        let mut running = self.lab.controllers();
        running.retain(Container::is_running);
        Ok(running.into_iter().find(|container| (container.pod() == holder) == (who == Who::Leader)))
    }

    /// SIGKILL. One that was started again before gets another pod, as its kubelet would wait long before it starts it once more.
    /// Returns its pod.
    pub async fn kill(&self, who: Who) -> Result<Option<String>> {
        let Some(container) = self.find(who).await? else { return Ok(None) };
        container.kill().await?;
        if container.restarts() > 0 {
            self.delete(&container, &DeleteParams::default().grace_period(0)).await?;
        }
        Ok(Some(container.pod().to_owned()))
    }

    /// SIGKILL, and nobody of that name comes back.
    pub async fn kill_for_good(&self, who: Who) -> Result<()> {
        let container = self.find(who).await?.context("it runs")?;
        container.kill().await?;
        self.delete(&container, &DeleteParams::default().grace_period(0)).await
    }

    /// As a drain does it.
    pub async fn terminate(&self, who: Who) -> Result<Option<String>> {
        let Some(container) = self.find(who).await? else { return Ok(None) };
        self.delete(&container, &DeleteParams::default()).await?;
        Ok(Some(container.pod().to_owned()))
    }

    async fn delete(&self, container: &Container, params: &DeleteParams) -> Result<()> {
        let pods: Api<Pod> = Api::namespaced(self.lab.admin(), CONTROLLER_NAMESPACE);
        match pods.delete(container.pod(), params).await {
            // It is on its way out already.
            Err(kube::Error::Api(refused)) if refused.code == 404 => Ok(()),
            deleted => {
                deleted?;
                Ok(())
            }
        }
    }

    pub async fn pause(&mut self, who: Who) -> Result<Option<String>> {
        let Some(container) = self.find(who).await? else { return Ok(None) };
        // It may end by itself in this very moment.
        let paused = container.pause().is_ok();
        self.paused = paused.then_some(container);
        Ok(self.paused.as_ref().map(|container| container.pod().to_owned()))
    }

    pub fn resume(&mut self) -> Option<String> {
        let container = self.paused.take()?;
        // It may have been killed meanwhile.
        container.resume().ok().map(|()| container.pod().to_owned())
    }

    pub async fn silence(&mut self, who: Who) -> Result<Option<String>> {
        let Some(container) = self.find(who).await? else { return Ok(None) };
        self.lab.silence(&container)?;
        let pod = container.pod().to_owned();
        self.silenced = Some(container);
        Ok(Some(pod))
    }

    pub fn let_speak(&mut self) -> Result<Option<String>> {
        let Some(container) = self.silenced.take() else { return Ok(None) };
        self.lab.let_speak(&container)?;
        Ok(Some(container.pod().to_owned()))
    }

    /// Ends all faults; returns when all controllers are ready.
    pub async fn heal(&mut self) -> Result<()> {
        self.resume();
        self.let_speak()?;
        self.lab.rolled_out(Workload::Deployment).await?;
        self.lab.controller_ready().await
    }
}
