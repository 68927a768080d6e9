//! What can go wrong, as methods. Processes are hurt through [`Process`](crate::Process) and
//! [`Container`](crate::Container) as well, pods through [`Pod`](crate::Pod).

use anyhow::{Context as _, Result};

use crate::controlplane;
use crate::kubelet::{Container, Kubelet};
use crate::lab::Lab;
use crate::tool::{run, tool};

/// Longest packet without a request in it: headers, all options of TCP, and the smallest frames of HTTP/2 in TLS.
const ACKNOWLEDGEMENT_MAX: u16 = 150;

impl Lab {
    /// Pulls a host's cable: `node-1`, `client`, `router`. Its interface has no carrier until the link is restored.
    pub fn cut_link(&self, host: &str) -> Result<()> {
        self.set_link(host, "down")
    }

    /// Plugs the cable in again.
    pub fn restore_link(&self, host: &str) -> Result<()> {
        self.set_link(host, "up")
    }

    /// Takes a node's power away: its link goes, then its kubelet with all containers and its kube-proxy, without a word to anybody.
    pub async fn crash_node(&self, name: &str) -> Result<()> {
        let node = self.node(name)?;
        self.cut_link(name)?;
        self.kubelet(name)?.crash().await?;
        if let Some(kube_proxy) = node.kube_proxy() {
            kube_proxy.kill().await?;
        }
        Ok(())
    }

    /// Starts a node's kube-proxy again; returns when it says that it is well.
    pub async fn start_kube_proxy(&self, name: &str) -> Result<()> {
        let node = self.node(name)?;
        let kube_proxy = node.kube_proxy().context("the lab runs no kube-proxy")?;
        kube_proxy.start()?;
        let health = (node.address(), controlplane::KUBE_PROXY_HEALTH_PORT).into();
        kube_proxy.ready(health, "/healthz", controlplane::START_LIMIT).await
    }

    /// Boots a crashed node again: link, kube-proxy, kubelet; returns when what ran on it is ready again.
    pub async fn boot_node(&self, name: &str) -> Result<()> {
        let node = self.node(name)?;
        self.restore_link(name)?;
        if node.kube_proxy().is_some() {
            self.start_kube_proxy(name).await?;
        }
        self.kubelet(name)?.start();
        for container in self.containers_on(name) {
            container.ready(controlplane::START_LIMIT).await?;
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

    /// Has the API server behave as that of an older version of Kubernetes, such as `1.33`, until it is started the next time; returns
    /// when it is ready.
    pub async fn emulate_api_server(&self, version: &str) -> Result<()> {
        self.api_server().kill().await?;
        self.api_server().start_with(&[format!("--emulated-version={version}")])?;
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

    /// Holds back what a container on a network of its own has to say to the API server, while it goes on hearing what the API server
    /// says: its requests are on their way until [`Lab::let_speak`], and arrive then, late.
    pub fn silence(&self, container: &Container) -> Result<()> {
        let node = self.node(container.node())?;
        // Segments that carry a request are longer than acknowledgements, which must pass for the answers to go on coming.
        let rules = format!(
            "add table inet silenced\n\
             add chain inet silenced forward {{ type filter hook forward priority filter - 10; }}\n\
             add rule inet silenced forward ip saddr {} tcp dport {} ip length > {ACKNOWLEDGEMENT_MAX} counter drop\n",
            container.address()?,
            controlplane::API_PORT,
        );
        run(node.netns().command("nft").args(["-f", "-"]), &rules)
            .with_context(|| format!("silencing {}", container.name()))?;
        Ok(())
    }

    /// How many octets of what a silenced container said were held back so far.
    pub fn held_back(&self, container: &Container) -> Result<u64> {
        let node = self.node(container.node())?;
        let mut command = node.netns().command("nft");
        let output = command.args(["list", "chain", "inet", "silenced", "forward"]).output();
        let listed = output.context("listing what is held back")?;
        let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
        let count = listed.split("bytes ").nth(1).and_then(|rest| rest.split_whitespace().next()?.parse().ok());
        count.with_context(|| format!("no count in `{listed}`"))
    }

    /// Lets a silenced container's words through again.
    pub fn let_speak(&self, container: &Container) -> Result<()> {
        let node = self.node(container.node())?;
        run(node.netns().command("nft").args(["delete", "table", "inet", "silenced"]), "")
            .with_context(|| format!("letting {} speak", container.name()))?;
        Ok(())
    }

    /// Drops every frame between two hosts on the bridge, in both directions. Each still reaches all others.
    pub fn drop_between(&self, one: &str, other: &str) -> Result<()> {
        change("add", CUT, one, other)
    }

    /// Lets them through again.
    pub fn restore_between(&self, one: &str, other: &str) -> Result<()> {
        change("delete", CUT, one, other)
    }

    /// Drops the heartbeats of Berth's speakers between two nodes, in both directions, and nothing else.
    pub fn drop_heartbeats_between(&self, one: &str, other: &str) -> Result<()> {
        change("add", UNHEARD, one, other)
    }

    /// Lets them through again.
    pub fn restore_heartbeats_between(&self, one: &str, other: &str) -> Result<()> {
        change("delete", UNHEARD, one, other)
    }

    fn kubelet(&self, node: &str) -> Result<&Kubelet> {
        let all = self.nodes().iter().zip(&self.inner.kubelets);
        let found = all.into_iter().find(|(known, _)| known.name() == node).map(|(_, kubelet)| kubelet);
        found.with_context(|| format!("the lab has no node `{node}`"))
    }

    fn set_link(&self, host: &str, state: &str) -> Result<()> {
        let command = &mut tool("ip");
        run(command.args(["link", "set", "dev", host, state]), "")
            .with_context(|| format!("setting the link of {host} {state} in the lab `{}`", self.name()))?;
        Ok(())
    }
}

/// The sets of the bridge's fault rules: pairs between which nothing passes, and pairs between which no heartbeat does.
const CUT: &str = "cut";
const UNHEARD: &str = "unheard";

fn change(verb: &str, set: &str, one: &str, other: &str) -> Result<()> {
    let pairs = format!("{{ \"{one}\" . \"{other}\", \"{other}\" . \"{one}\" }}");
    run(tool("nft").args(["-f", "-"]), &format!("{verb} element bridge faults {set} {pairs}\n"))
        .with_context(|| format!("changing what passes between {one} and {other}"))?;
    Ok(())
}
