//! What can go wrong, as methods. Processes are hurt through [`Process`](crate::Process) as well, pods through [`Pod`](crate::Pod).

use anyhow::{Context as _, Result};

use crate::controlplane;
use crate::lab::Lab;
use crate::tool::{run, tool};

impl Lab {
    /// Pulls a host's cable: `node-1`, `client`, `router`. Its interface has no carrier until the link is restored.
    pub fn cut_link(&self, host: &str) -> Result<()> {
        self.set_link(host, "down")
    }

    /// Plugs the cable in again.
    pub fn restore_link(&self, host: &str) -> Result<()> {
        self.set_link(host, "up")
    }

    /// Takes a node's power away: its link goes, then its speaker and its kube-proxy, without a word to anybody.
    pub async fn crash_node(&self, name: &str) -> Result<()> {
        let node = self.node(name)?;
        self.cut_link(name)?;
        if let Ok(speaker) = self.speaker(name) {
            speaker.kill().await?;
        }
        if let Some(kube_proxy) = node.kube_proxy() {
            kube_proxy.kill().await?;
        }
        Ok(())
    }

    /// Boots a crashed node again: link, kube-proxy, speaker; returns when both processes are ready.
    pub async fn boot_node(&self, name: &str) -> Result<()> {
        let node = self.node(name)?;
        self.restore_link(name)?;
        if let Some(kube_proxy) = node.kube_proxy() {
            kube_proxy.start()?;
            let health = (node.address(), controlplane::KUBE_PROXY_HEALTH_PORT).into();
            kube_proxy.ready(health, "/healthz", controlplane::START_LIMIT).await?;
        }
        if let Ok(speaker) = self.speaker(name) {
            speaker.start()?;
            self.speaker_ready(name).await?;
        }
        Ok(())
    }

    /// Kills the API server. What it stored stays.
    pub async fn stop_api_server(&self) -> Result<()> {
        self.api_server().kill().await
    }

    /// Starts a stopped API server again and waits until it is ready.
    pub async fn start_api_server(&self) -> Result<()> {
        self.api_server().start()?;
        controlplane::api_ready(self.api_server(), &self.inner.control_plane.admin).await
    }

    /// Makes the API server hang: connections are taken and nothing is answered.
    pub fn pause_api_server(&self) -> Result<()> {
        self.api_server().pause()
    }

    /// Lets a paused API server go on.
    pub fn resume_api_server(&self) -> Result<()> {
        self.api_server().resume()
    }

    /// Drops every frame between two hosts on the bridge, in both directions. Each still reaches all others.
    pub fn drop_between(&self, one: &str, other: &str) -> Result<()> {
        change_cut("add", one, other)
    }

    /// Lets them through again.
    pub fn restore_between(&self, one: &str, other: &str) -> Result<()> {
        change_cut("delete", one, other)
    }

    fn set_link(&self, host: &str, state: &str) -> Result<()> {
        let command = &mut tool("ip");
        run(command.args(["link", "set", "dev", host, state]), "")
            .with_context(|| format!("setting the link of {host} {state} in the lab `{}`", self.name()))?;
        Ok(())
    }
}

fn change_cut(verb: &str, one: &str, other: &str) -> Result<()> {
    let rule = format!("{verb} element bridge faults cut {{ \"{one}\" . \"{other}\", \"{other}\" . \"{one}\" }}\n");
    run(tool("nft").args(["-f", "-"]), &rule)
        .with_context(|| format!("changing what passes between {one} and {other}"))?;
    Ok(())
}
