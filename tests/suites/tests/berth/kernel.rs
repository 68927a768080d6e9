//! Settings of a node's kernel that break what is announced, told where people look.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result, ensure};
use berth_api::SpeakerNode;
use berth_lab::{Lab, lab_test};
use kube::Api;
use serde_json::json;
use tokio::process::Command;

use crate::cluster::{Cluster, SOON, answers};
use crate::plugin::has;

const NODES: [&str; 3] = ["node-1", "node-2", "node-3"];

/// Runs a shell's words on a node.
async fn on(lab: &Lab, node: &str, script: &str) -> Result<()> {
    let mut command = Command::from(lab.node(node)?.netns().command("sh"));
    let output = command.args(["-ec", script]).output().await?;
    ensure!(output.status.success(), "{script}: {output:?}");
    Ok(())
}

/// Waits until a SpeakerNode's condition KernelReady has this reason; returns its status and message.
async fn kernel_ready(lab: &Lab, node: &str, reason: &str) -> Result<(String, String)> {
    let nodes: Api<SpeakerNode> = Api::all(lab.admin());
    lab.eventually(&format!("SpeakerNode {node} has KernelReady with reason {reason}"), SOON, async || {
        let status = nodes.get(node).await?.status.unwrap_or_default();
        let found =
            status.conditions.into_iter().find(|c| c.type_ == "KernelReady").context("no such condition yet")?;
        ensure!(found.reason == reason, "it is {}: {}", found.reason, found.message);
        Ok(Some((found.status, found.message)))
    })
    .await
}

lab_test! {
    async fn ipvs_without_strict_arp_is_told_on_node_and_service_and_ends_when_it_is_set(lab: Lab) -> Result<()> {
        let cluster = Cluster::start(lab.clone()).await?;
        let (address, owner) = cluster.web(&NODES, json!({})).await?;
        cluster.reason("web", "berth.dev/Announced", "Announced").await?;
        let other = NODES.into_iter().find(|node| *node != owner).context("another node")?;

        // As kube-proxy does in its IPVS mode on every node; what kind of device it is, is the same to ARP.
        let settings = "/proc/sys/net/ipv4/conf";
        on(&lab, other, &format!(
            "ip link add kube-ipvs0 type veth peer name ipvs-peer; ip address add {address}/32 dev kube-ipvs0; \
             echo 0 > {settings}/all/arp_ignore; echo 0 > {settings}/eth0/arp_ignore"
        ))
        .await?;
        let (status, message) = kernel_ready(&lab, other, "ArpIgnore").await?;
        assert_eq!(status, "False");
        has(&message, &["the kernel answers ARP on eth0 for every address on kube-ipvs0", "ipvs.strictARP: true"])?;
        let (status, message) = cluster.reason("web", "berth.dev/Announced", "ArpIgnore").await?;
        assert_eq!(status, "True");
        has(&message, &[&format!("beside its owner: {other}; set `ipvs.strictARP: true`")])?;
        cluster.event("web", "ArpIgnore").await?;
        // So it does.
        let macs = [lab.node(&owner)?.mac(), lab.node(other)?.mac()];
        lab.eventually("both answer", SOON, async || {
            let answering = answerers(&lab, address).await?;
            ensure!(answering == macs.into(), "{answering:?}");
            Ok(Some(()))
        })
        .await?;

        on(&lab, other, &format!("echo 1 > {settings}/all/arp_ignore")).await?;
        kernel_ready(&lab, other, "NoTraps").await?;
        cluster.reason("web", "berth.dev/Announced", "Announced").await?;
        let answering = answerers(&lab, address).await?;
        ensure!(answering == [macs[0]].into(), "{answering:?}");
        Ok(())
    }
}

/// The Ethernet addresses that answer the client's question for an address now.
async fn answerers(lab: &Lab, address: Ipv4Addr) -> Result<std::collections::BTreeSet<berth_api::MacAddr>> {
    let watch = lab.client().netns.watch_arp("eth0")?;
    let mut command = Command::from(lab.client().netns.command("arping"));
    command.args(["-c", "1", "-w", "1", "-I", "eth0", &address.to_string()]).output().await?;
    Ok(Cluster::answerers(&watch, address))
}

lab_test! {
    async fn a_strict_filter_on_an_interface_that_leads_nowhere_is_told(lab: Lab) -> Result<()> {
        let cluster = Cluster::start(lab.clone()).await?;
        let (address, owner) = cluster.web(&NODES, json!({})).await?;
        cluster.reason("web", "berth.dev/Announced", "Announced").await?;
        answers(&lab.remote().netns, address).await?;

        // The node's way out is another than that by which clients come in.
        on(&lab, &owner, "ip link add up0 type veth peer name up1; ip link set up1 up; ip address add 203.0.113.1/24 dev up0; \
             ip link set up0 up; ip route replace default via 203.0.113.9; echo 1 > /proc/sys/net/ipv4/conf/eth0/rp_filter")
        .await?;
        let (status, message) = kernel_ready(&lab, &owner, "ReversePathFilter").await?;
        assert_eq!(status, "False");
        has(&message, &["rp_filter is strict on eth0, and the routes to what is beyond lead over another interface"])?;
        let (status, message) = cluster.reason("web", "berth.dev/Announced", "ReversePathFilter").await?;
        assert_eq!(status, "True");
        has(&message, &[&format!("node {owner}, which is to answer, drops what comes from beyond the subnet of eth0")])?;
        on(&lab, &owner, "echo 2 > /proc/sys/net/ipv4/conf/eth0/rp_filter").await?;
        kernel_ready(&lab, &owner, "NoTraps").await?;
        cluster.reason("web", "berth.dev/Announced", "Announced").await?;
        Ok(())
    }
}
