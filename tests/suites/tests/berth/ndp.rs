//! Neighbor discovery as switches and kernels rely on it: groups are joined before they are needed and again after the link was away, and a
//! client that asks a node alone goes on finding it.

use std::collections::BTreeSet;
use std::net::{Ipv6Addr, UdpSocket};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use berth_lab::{Lab, Netns, lab_test};
use berth_wire::ndp::{Message, solicited_node};
use serde_json::json;

use crate::cluster::{Cluster, SOON, answers, http};
use crate::families::DUAL_POOL;

/// How often the client's kernel is to ask the owner alone while a neighbor stays reachable.
const CHECKS: usize = 3;
/// How long a connection is tried.
const ATTEMPT: Duration = Duration::from_millis(500);

/// Where nothing listens.
const DISCARD: u16 = 9;

/// A Service of IPv6 with a pod on each node; its address and who answers for it.
async fn web6(lab: &Lab) -> Result<(Cluster, Ipv6Addr, String)> {
    let cluster = Cluster::start(lab.clone()).await?;
    lab.apply_yaml(DUAL_POOL).await?;
    for node in lab.nodes() {
        cluster.pod("web", node.name()).await?;
    }
    cluster.service("web", json!({"ipFamilies": ["IPv6"], "ipFamilyPolicy": "SingleStack"})).await?;
    let address: Ipv6Addr = lab
        .eventually("the Service has an address", SOON, async || {
            Ok(cluster.published("web").await?.first().map(|address| address.parse()).transpose()?)
        })
        .await?;
    answers(&lab.client().netns, address).await?;
    let owner = cluster.owner(address, |_| true).await?;
    Ok((cluster, address, owner))
}

/// What a command says that runs on a host.
async fn said(netns: &Netns, program: &str, args: &str) -> Result<String> {
    let output = tokio::process::Command::from(netns.command(program)).args(args.split(' ')).output().await?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Waits until exactly these nodes are in the group by which the address is asked for.
async fn in_group(lab: &Lab, address: Ipv6Addr, nodes: &BTreeSet<&str>) -> Result<()> {
    let group = solicited_node(address).to_string();
    lab.eventually(&format!("{nodes:?} are in {group}"), SOON, async || {
        let mut found = BTreeSet::new();
        for node in lab.nodes() {
            let groups = said(node.netns(), "ip", "maddr show dev eth0").await?;
            found.extend(groups.contains(&group).then(|| node.name()));
        }
        ensure!(found == *nodes, "{found:?} are");
        Ok(Some(()))
    })
    .await
}

/// Whether somebody tells the client who has the address when its kernel asks everybody.
async fn is_told(lab: &Lab, address: Ipv6Addr) -> Result<bool> {
    let client = lab.client();
    said(&client.netns, "ip", "-6 neigh flush dev eth0").await?;
    // Whatever becomes of the connection: it is what makes the kernel ask.
    let _ = client.netns.http_get(http(address), "/", ATTEMPT).await;
    let entry = said(&client.netns, "ip", &format!("-6 neigh show {address} dev eth0")).await?;
    Ok(entry.contains("lladdr"))
}

lab_test! {
    async fn standbys_are_in_the_group_ahead_and_a_node_joins_it_again_after_its_link_was_away(lab: Lab) -> Result<()> {
        let (cluster, address, owner) = web6(&lab).await?;
        cluster.settled(address, 2).await?;
        let all: BTreeSet<&str> = lab.nodes().iter().map(berth_lab::Node::name).collect();
        in_group(&lab, address, &all).await?;

        // Alone on the LAN the owner has nobody to hand the address to, so it has to answer itself when its link is back.
        for node in all.iter().filter(|node| **node != owner) {
            lab.crash_node(node).await?;
        }
        let alone = BTreeSet::from([owner.as_str()]);
        in_group(&lab, address, &alone).await?;
        lab.cut_link(&owner)?;
        in_group(&lab, address, &BTreeSet::new()).await.context("it leaves the group with its link")?;
        ensure!(!is_told(&lab, address).await?, "somebody answers for it");
        lab.restore_link(&owner)?;
        lab.eventually("it is answered for again", SOON, async || Ok(is_told(&lab, address).await?.then_some(()))).await?;
        in_group(&lab, address, &alone).await
    }
}

lab_test! {
    async fn a_clients_kernel_that_asks_the_owner_alone_goes_on_finding_the_address(lab: Lab) -> Result<()> {
        let (_cluster, address, owner) = web6(&lab).await?;
        let (client, owner) = (lab.client(), lab.node(&owner)?);
        // Entries grow old within a second instead of half a minute (RFC 4861 section 6.3.2), and are then checked at once.
        client.netns.sysctl(&[
            ("net/ipv6/neigh/eth0/base_reachable_time_ms", "500"),
            ("net/ipv6/neigh/eth0/delay_first_probe_time", "1"),
        ])?;
        let (at_client, at_owner) = (client.netns.watch_ndp("eth0")?, owner.netns().watch_ndp("eth0")?);
        // From whichever of its addresses the kernel asks.
        let asked_alone = || {
            let frames = at_owner.seen().into_iter().map(|seen| seen.frame).filter(|frame| frame.target == address);
            let asks = frames.filter(|frame| matches!(frame.message, Message::Solicitation { .. }));
            asks.filter(|frame| frame.dst == owner.mac() && frame.src == client.mac()).count()
        };
        let answers_to_client = || {
            let frames = at_client.seen().into_iter().map(|seen| seen.frame).filter(|frame| frame.target == address);
            let solicited = |message| matches!(message, Message::Advertisement { solicited: true, .. });
            frames.filter(|frame| frame.dst == client.mac() && solicited(frame.message)).collect::<Vec<_>>()
        };
        // Nothing that comes back over these tells the kernel that the neighbor is there, as it would over TCP.
        let socket = client.netns.run(|| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)))??;
        lab.eventually("the owner was asked alone a few times", 2 * SOON, async || {
            socket.send_to(b"", (address, DISCARD))?;
            let seen = said(&client.netns, "ip", &format!("-6 neigh show {address} dev eth0")).await?;
            ensure!(!seen.contains("FAILED") && seen.contains(&owner.mac().to_string()), "{seen}");
            let (asked, answered) = (asked_alone(), answers_to_client().len());
            ensure!(asked >= CHECKS && answered >= asked, "asked {asked} times, answered {answered} times");
            Ok(Some(()))
        })
        .await?;
        ensure!(answers_to_client().iter().all(|answer| answer.sender_mac() == owner.mac()), "somebody else answered");
        answers(&client.netns, address).await.map(drop)
    }
}
