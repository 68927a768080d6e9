//! Which nodes, interfaces and Services an advertisement is for, over both families.

use std::net::IpAddr;

use anyhow::{Context as _, Result, ensure};
use berth_api::L2Advertisement;
use berth_api::names::EXCLUDE_NODE_LABEL;
use berth_lab::{Lab, lab_test};
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::cluster::{Cluster, SOON, answers};
use crate::families::DUAL_POOL;
use crate::plugin::{Plugin, has};

const NODES: [&str; 3] = ["node-1", "node-2", "node-3"];
/// Label of nodes that advertisements here prefer.
const SPEED: &str = "example.com/speed";

fn advertisements(lab: &Lab) -> Api<L2Advertisement> {
    Api::all(lab.admin())
}

/// Replaces the specification of the one advertisement.
async fn advertise(lab: &Lab, spec: Value) -> kube::Result<()> {
    let patch = Patch::Json::<()>(
        serde_json::from_value(json!([{"op": "add", "path": "/spec", "value": spec}]))
            .map_err(kube::Error::SerdeError)?,
    );
    advertisements(lab).patch("default", &PatchParams::default(), &patch).await?;
    Ok(())
}

/// Waits until the advertisement's condition Ready has this reason; returns its message.
async fn ready(lab: &Lab, reason: &str) -> Result<String> {
    lab.eventually(&format!("the L2Advertisement is Ready with reason {reason}"), SOON, async || {
        let status = advertisements(lab).get("default").await?.status.unwrap_or_default();
        let ready = status.conditions.into_iter().find(|c| c.type_ == "Ready").context("no condition yet")?;
        ensure!(ready.reason == reason, "it is {}: {}", ready.reason, ready.message);
        Ok(Some(ready.message))
    })
    .await
}

/// A cluster with a Service of both families that has a pod on each node; its addresses.
async fn dual_stack(cluster: &Cluster) -> Result<[IpAddr; 2]> {
    cluster.lab.apply_yaml(DUAL_POOL).await?;
    for node in NODES {
        cluster.pod("web", node).await?;
    }
    cluster.service("web", json!({"ipFamilyPolicy": "RequireDualStack"})).await?;
    cluster.addresses("web").await
}

async fn are_at(cluster: &Cluster, addresses: [IpAddr; 2], node: &str) -> Result<()> {
    for address in addresses {
        cluster.owner(address, |owner| owner == node).await.with_context(|| format!("{address} at {node}"))?;
        answers(&cluster.lab.client().netns, address).await?;
    }
    Ok(())
}

lab_test! {
    async fn the_node_that_is_preferred_most_answers_and_what_it_lost_comes_back_when_a_person_says_so(lab: Lab) -> Result<()> {
        let cluster = Cluster::start(lab.clone()).await?;
        let plugin = Plugin::of(&lab).await?;
        for (node, speed) in [("node-2", "some"), ("node-3", "much")] {
            lab.node(node)?.label(&[(SPEED, Some(speed))]).await?;
        }
        let prefer = |weight: i64, speed: &str| json!({"weight": weight, "preference": {"matchLabels": {SPEED: speed}}});
        let refused = advertise(&lab, json!({"preferredNodeSelectors": [prefer(101, "much")]})).await;
        let refused = refused.err().context("a weight of 101 is refused")?.to_string();
        ensure!(refused.contains("spec.preferredNodeSelectors[0].weight"), "{refused}");
        advertise(&lab, json!({"preferredNodeSelectors": [prefer(10, "some"), prefer(90, "much")]})).await?;
        ready(&lab, "Valid").await?;

        let addresses = dual_stack(&cluster).await?;
        are_at(&cluster, addresses, "node-3").await?;
        for address in addresses {
            let standbys = cluster.settled(address, 2).await?.spec.layer2.context("a placement")?.standbys;
            assert_eq!(standbys[0], "node-2", "of those that stand by, the one that is preferred comes first");
        }
        // It may not any more, and nothing comes back by itself.
        lab.node("node-3")?.label(&[(EXCLUDE_NODE_LABEL, Some(""))]).await?;
        are_at(&cluster, addresses, "node-2").await?;
        lab.node("node-3")?.label(&[(EXCLUDE_NODE_LABEL, None)]).await?;
        // What the controller hears after it, it has acted upon.
        cluster.service("later", json!({})).await?;
        let later = cluster.address("later").await?;
        cluster.owner(later, |node| node == "node-3").await?;
        are_at(&cluster, addresses, "node-2").await?;
        let said = plugin.run(&["rebalance", "--yes", "--interval", "0"]).await?;
        assert_eq!(said.code, Some(0), "{said:?}");
        has(&said.err, &["2 of 2: "])?;
        are_at(&cluster, addresses, "node-3").await?;

        // One that dies is followed by the next that is preferred, by itself.
        lab.crash_node("node-3").await?;
        are_at(&cluster, addresses, "node-2").await
    }
}

lab_test! {
    async fn interfaces_are_chosen_by_name_or_pattern_and_followed_when_they_change(lab: Lab) -> Result<()> {
        let cluster = Cluster::start(lab.clone()).await?;
        for (entry, refused) in [("eth0:1", true), ("eth 0", true), ("", true), ("enp129s0f0np1234", true), ("*e*", false)] {
            let answer = advertise(&lab, json!({"interfaces": ["lan0", entry]})).await;
            ensure!(answer.is_err() == refused, "{entry:?}: {answer:?}");
        }
        advertise(&lab, json!({"interfaces": ["bond0", "vlan?"]})).await?;
        let message = ready(&lab, "NoEligibleNode").await?;
        has(&message, &["no selected node has one of `spec.interfaces`"])?;

        let addresses = dual_stack(&cluster).await?;
        let (status, message) = cluster.reason("web", "berth.dev/Announced", "NoEligibleNode").await?;
        assert_eq!(status, "False");
        has(&message, &["node-1: no allowed interface has the subnet of the address"])?;
        advertise(&lab, json!({"interfaces": ["bond0", "eth?"]})).await?;
        ready(&lab, "Valid").await?;
        for address in addresses {
            answers(&lab.client().netns, address).await?;
        }
        cluster.reason("web", "berth.dev/Announced", "Announced").await?;

        // Its interface gets a name that is not allowed, while it is up: netlink tells, and the address moves.
        let owner = cluster.settled(addresses[0], 2).await?.spec.layer2.and_then(|l| l.owner).context("an owner")?;
        let rename = async |from: &str, to: &str| -> Result<()> {
            let mut command = Command::from(lab.node(&owner)?.netns().command("ip"));
            let output = command.args(["link", "set", "dev", from, "name", to]).output().await?;
            ensure!(output.status.success(), "{output:?}");
            Ok(())
        };
        rename("eth0", "lan0").await?;
        for address in addresses {
            cluster.owner(address, |node| node != owner).await?;
            answers(&lab.client().netns, address).await?;
        }
        // A name that is allowed gives the node a part again, and moves nothing.
        rename("lan0", "eth1").await?;
        for address in addresses {
            lab.eventually("the node stands by on its new interface", SOON, async || {
                let layer2 = cluster.settled(address, 2).await?.spec.layer2.context("a placement")?;
                let member = layer2.members.iter().find(|member| member.node == owner).context("it has no part yet")?;
                ensure!(member.interface == "eth1" && layer2.owner.as_ref() != Some(&owner), "{layer2:?}");
                Ok(Some(()))
            })
            .await?;
        }
        Ok(())
    }
}

/// Whether anybody answers the client's question for an address.
async fn answered_on_the_wire(lab: &Lab, address: std::net::Ipv4Addr) -> Result<bool> {
    let watch = lab.client().netns.watch_arp("eth0")?;
    let mut arping = Command::from(lab.client().netns.command("arping"));
    arping.args(["-c", "1", "-w", "1", "-I", "eth0", &address.to_string()]).output().await?;
    Ok(!Cluster::answerers(&watch, address).is_empty())
}

lab_test! {
    async fn services_share_an_address_where_one_advertisement_announces_it_for_all(lab: Lab) -> Result<()> {
        let cluster = Cluster::start(lab.clone()).await?;
        lab.apply_yaml(DUAL_POOL).await?;
        advertise(&lab, json!({"serviceSelectors": [{"matchLabels": {"announce": "yes"}}]})).await?;
        for node in NODES {
            cluster.pod("web", node).await?;
        }
        let spec = |port: u16| {
            json!({
                "type": "LoadBalancer", "selector": {"app": "web"}, "ipFamilyPolicy": "RequireDualStack",
                "ports": [{"port": port, "targetPort": 8080}],
            })
        };
        let share = |addresses: &str| {
            let shared = json!({"berth.dev/allow-shared-ip": "k"});
            if addresses.is_empty() { shared } else { json!({"berth.dev/allow-shared-ip": "k", "berth.dev/load-balancer-ips": addresses}) }
        };
        let label = async |name: &str, announce: Value| cluster.edit(name, json!({"metadata": {"labels": {"announce": announce}}})).await;
        cluster.annotated("web", share(""), spec(80)).await?;
        let addresses = cluster.addresses("web").await?;
        let (status, message) = cluster.reason("web", "berth.dev/Announced", "ServiceNotSelected").await?;
        assert_eq!(status, "False");
        has(&message, &["no L2Advertisement that covers the pool of this address (default) selects Service default/web"])?;
        let IpAddr::V4(v4) = addresses[0] else { anyhow::bail!("{addresses:?}") };
        ensure!(!answered_on_the_wire(&lab, v4).await?, "a selector that matches nothing admits nothing");

        label("web", json!("yes")).await?;
        cluster.reason("web", "berth.dev/Announced", "Announced").await?;
        for address in addresses {
            answers(&lab.client().netns, address).await?;
        }
        ensure!(answered_on_the_wire(&lab, v4).await?, "so it can be seen");
        let probers = [cluster.probing(addresses[0]).await?, cluster.probing(addresses[1]).await?];
        let mut epochs = Vec::new();
        for address in addresses {
            epochs.push(cluster.settled(address, 2).await?.spec.layer2.context("a placement")?.epoch);
        }

        // One that is not selected does not get in where it would be exposed, and takes nothing away.
        let both = addresses.map(|address| address.to_string()).join(",");
        cluster.annotated("second", share(&both), spec(8080)).await?;
        let (status, message) = cluster.reason("second", "berth.dev/Allocated", "SharerNotSelected").await?;
        assert_eq!(status, "False");
        has(&message, &["is held by Service default/web, and no L2Advertisement announces it for that one and for Service default/second"])?;
        cluster.event("second", "SharerNotSelected").await?;
        label("second", json!("yes")).await?;
        cluster.reason("second", "berth.dev/Allocated", "Allocated").await?;
        assert_eq!(cluster.addresses("second").await?, addresses);

        // Its label goes: it leaves, and the first notices nothing.
        label("second", json!(null)).await?;
        cluster.reason("second", "berth.dev/Allocated", "SharerNotSelected").await?;
        cluster.publishes("second", &[]).await?;
        for ((address, prober), epoch) in addresses.into_iter().zip(probers).zip(epochs) {
            prober.answered(SOON).await?;
            let seen = prober.stop();
            let failed: Vec<_> = seen.failed().map(|(_, error)| error.to_owned()).collect();
            ensure!(failed.is_empty(), "{address}: {failed:?}");
            assert_eq!(cluster.answering(address).await?.epoch, epoch, "nobody else answered in between");
        }

        // And that of the first: nobody answers any more.
        label("web", json!("no")).await?;
        cluster.reason("web", "berth.dev/Announced", "ServiceNotSelected").await?;
        lab.eventually("its nodes answer no more", SOON, async || {
            Ok((!answered_on_the_wire(&lab, v4).await?).then_some(()))
        })
        .await?;
        label("web", json!("yes")).await?;
        for address in addresses {
            answers(&lab.client().netns, address).await?;
        }
        Ok(())
    }
}

lab_test! {
    async fn the_exclude_label_on_every_node_is_told_with_what_to_do_and_ends_with_it(lab: Lab) -> Result<()> {
        let cluster = Cluster::start(lab.clone()).await?;
        let addresses = dual_stack(&cluster).await?;
        for address in addresses {
            answers(&lab.client().netns, address).await?;
        }
        for node in NODES {
            lab.node(node)?.label(&[(EXCLUDE_NODE_LABEL, Some(""))]).await?;
        }
        let (status, message) = cluster.reason("web", "berth.dev/Announced", "AllNodesExcluded").await?;
        assert_eq!(status, "False");
        has(&message, &[
            "every node that could answer has the label node.kubernetes.io/exclude-from-external-load-balancers (node-1; node-2; node-3)",
            "`kubectl label node node-1 node.kubernetes.io/exclude-from-external-load-balancers-`",
            "--ignore-exclude-lb",
        ])?;
        cluster.event("web", "AllNodesExcluded").await?;
        lab.node("node-2")?.label(&[(EXCLUDE_NODE_LABEL, None)]).await?;
        are_at(&cluster, addresses, "node-2").await?;
        cluster.reason("web", "berth.dev/Announced", "Announced").await?;
        Ok(())
    }
}

lab_test! {
    async fn a_controller_that_was_told_to_ignores_the_exclude_label(lab: Lab) -> Result<()> {
        for node in NODES {
            lab.node(node)?.label(&[(EXCLUDE_NODE_LABEL, Some(""))]).await?;
        }
        let cluster = Cluster::start_with_args(lab.clone(), &["--ignore-exclude-lb"]).await?;
        let plugin = Plugin::of(&lab).await?;
        let (address, owner) = cluster.web(&NODES, json!({})).await?;
        // The plugin plans as that controller does.
        let said = plugin.run(&["simulate", "--fail", &owner]).await?;
        assert_eq!(said.code, Some(0), "{said:?}");
        has(&said.out, &[&address.to_string()])?;
        let said = plugin.run(&["simulate", "--fail", &owner, "--ignore-exclude-lb=false"]).await?;
        has(&said.out, &["Addresses: 1 none"])
    }
}
