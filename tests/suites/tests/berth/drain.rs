//! What moves an address although its node lives: a drain, a cordon where it is wished, and lost endpoints of the Local policy.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use berth_lab::{Lab, lab_test};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;

use crate::cluster::{Cluster, EVERY, GAP_LIMIT, SOON, answers};
use crate::families::DUAL_POOL;
use crate::plugin::{Plugin, has};

/// What counts as no gap to one who connects every 10 ms, beside what the machine keeps everybody waiting: far less than the second after which
/// a lost SYN is sent again.
const NO_GAP: Duration = Duration::from_millis(300);
/// Connections that may be under way when an address moves: an answer takes a few milliseconds, and two drains move it twice at the most.
const BROKEN_MAX: usize = 4;
/// From the write of an EndpointSlice to the packet that moves the address.
const ENDPOINTS_LIMIT: Duration = Duration::from_millis(300);
const NODES: [&str; 3] = ["node-1", "node-2", "node-3"];

/// Cordons a node, or ends that.
async fn cordon(lab: &Lab, node: &str, cordoned: bool) -> Result<()> {
    let patch = Patch::Merge(json!({"spec": {"unschedulable": cordoned}}));
    Api::<Node>::all(lab.admin()).patch(node, &PatchParams::default(), &patch).await?;
    Ok(())
}

lab_test! {
    async fn a_drain_costs_new_connections_of_both_families_nothing_and_nothing_moves_back(lab: Lab) -> Result<()> {
        let cluster = Cluster::start(lab.clone()).await?;
        let plugin = Plugin::of(&lab).await?;
        lab.apply_yaml(DUAL_POOL).await?;
        for node in NODES {
            cluster.pod("web", node).await?;
        }
        cluster.service("web", json!({"ipFamilyPolicy": "RequireDualStack"})).await?;
        let addresses = cluster.addresses("web").await?;
        // What nothing moves for, and shows what the machine itself costs.
        let ports = cluster.services().get("web").await?.spec.and_then(|spec| spec.ports).unwrap_or_default();
        let node_port = u16::try_from(ports.first().and_then(|port| port.node_port).context("a node port")?)?;
        let control = lab.client().netns.probe((lab.node("node-3")?.address(), node_port).into(), EVERY);
        control.answered(SOON).await?;
        let mut probers = Vec::new();
        for address in addresses {
            answers(&lab.client().netns, address).await?;
            cluster.settled(address, 2).await?;
            probers.push((address, cluster.probing(address).await?));
        }

        // That somebody cordons a node says nothing of load balancing, unless the controller was told so.
        let owners = [cluster.owner(addresses[0], |_| true).await?, cluster.owner(addresses[1], |_| true).await?];
        for owner in &owners {
            cordon(&lab, owner, true).await?;
        }
        // What the controller hears after it, it has acted upon.
        cluster.service("later", json!({})).await?;
        let later = cluster.address("later").await?;
        cluster.settled(later, 2).await?;
        for (address, owner) in addresses.iter().zip(&owners) {
            assert_eq!(cluster.settled(*address, 2).await?.spec.layer2.and_then(|l| l.owner).as_ref(), Some(owner));
            cordon(&lab, owner, false).await?;
        }

        for address in addresses {
            let owner = cluster.owner(address, |_| true).await?;
            let begin = Instant::now();
            let said = plugin.run(&["drain", &owner]).await?;
            assert_eq!(said.code, Some(0), "{said:?}");
            has(&said.err, &[&format!("node {owner} gives up what it owns"), &format!("node {owner} owns nothing")])?;
            println!("{owner} was drained in {:?}", begin.elapsed());
            let next = cluster.owner(address, |node| node != owner).await?;

            let said = plugin.run(&["drain", &owner, "--undo"]).await?;
            assert_eq!(said.code, Some(0), "{said:?}");
            let settled = cluster.settled(address, 2).await?.spec.layer2.context("a placement")?;
            assert_eq!(settled.owner.as_ref(), Some(&next), "nothing moves back");
            for (_, prober) in &probers {
                prober.answered(SOON).await?;
            }
        }
        let control = control.stop().longest_gap();
        println!("without a move: longest time without an answer {control:?}");
        for (address, prober) in probers {
            let seen = prober.stop();
            let failed: Vec<_> = seen.failed().map(|(_, error)| error.to_owned()).collect();
            let gap = seen.longest_gap();
            println!("{address}: longest time without an answer {gap:?}, broken {failed:?}");
            // One that is established on the old node when the address moves breaks, as every established one does; none may be refused
            // or find nobody.
            let established = failed.iter().all(|error| error.contains("Connection reset by peer"));
            ensure!(established && failed.len() <= BROKEN_MAX && gap < control + NO_GAP, "{address}: {gap:?}, {failed:?}");
        }

        let said = plugin.run(&["drain", "node-9"]).await?;
        assert_eq!(said.code, Some(2), "{said:?}");
        has(&said.err, &["there is no node `node-9`; there are node-1, node-2, node-3"])
    }
}

lab_test! {
    async fn a_node_that_nobody_can_relieve_keeps_its_address_and_it_is_said_why(lab: Lab) -> Result<()> {
        let cluster = Cluster::start(lab.clone()).await?;
        let plugin = Plugin::of(&lab).await?;
        let (address, owner) = cluster.web(&["node-2"], json!({"externalTrafficPolicy": "Local"})).await?;
        assert_eq!(owner, "node-2");
        let said = plugin.run(&["drain", "node-2", "--timeout", "1s"]).await?;
        assert_eq!(said.code, Some(1), "{said:?}");
        has(&said.err, &[&format!("error: node node-2 still owns 1 address: {address} (Service default/web)"), "\nhint: "])?;
        let (status, message) = cluster.reason("web", "berth.dev/Announced", "DrainBlocked").await?;
        assert_eq!(status, "True");
        has(&message, &["node node-2 goes on answering although it is being drained", "node-1: no serving endpoint"])?;
        answers(&lab.client().netns, address).await?;
        // As soon as another can.
        cluster.pod("web", "node-3").await?;
        cluster.owner(address, |node| node == "node-3").await?;
        cluster.reason("web", "berth.dev/Announced", "Announced").await?;
        Ok(())
    }
}

lab_test! {
    async fn a_cordoned_node_is_drained_where_the_controller_was_told_so(lab: Lab) -> Result<()> {
        let cluster = Cluster::start_with_args(lab.clone(), &["--drain-on-cordon"]).await?;
        let (address, owner) = cluster.web(&NODES, json!({})).await?;
        cluster.settled(address, 2).await?;
        let prober = cluster.probing(address).await?;
        let begin = Instant::now();
        cordon(&lab, &owner, true).await?;
        let next = cluster.owner(address, |node| node != owner).await?;
        println!("moved {:?} after the cordon", begin.elapsed());
        cordon(&lab, &owner, false).await?;
        assert_eq!(cluster.settled(address, 2).await?.spec.layer2.and_then(|l| l.owner), Some(next));
        prober.answered(SOON).await?;
        let seen = prober.stop();
        let failed: Vec<_> = seen.failed().map(|(_, error)| error.to_owned()).collect();
        let gap = seen.longest_gap();
        ensure!(failed.iter().all(|error| error.contains("Connection reset by peer")), "{failed:?}");
        ensure!(failed.len() <= BROKEN_MAX && gap < GAP_LIMIT, "{gap:?}, {failed:?}");
        Ok(())
    }
}

lab_test! {
    async fn an_address_follows_its_endpoints_within_three_tenths_of_a_second(lab: Lab) -> Result<()> {
        let cluster = Cluster::start(lab.clone()).await?;
        let mut pods = Vec::new();
        for node in ["node-1", "node-2"] {
            pods.push(cluster.pod("web", node).await?);
        }
        // Without a selector, its slices are the test's own: so the time of their write is known.
        let ports = json!([{"port": 80, "targetPort": 8080}]);
        let spec = json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "ports": ports});
        cluster.annotated("web", json!({}), spec).await?;
        let slices: Api<EndpointSlice> = Api::default_namespaced(lab.admin());
        let endpoints = |serving: &str| -> Vec<_> {
            let endpoint = |pod: &berth_lab::Pod| {
                let (ready, address) = (pod.node() == serving, pod.address().to_string());
                json!({"addresses": [address], "nodeName": pod.node(), "conditions": {"ready": ready, "serving": ready}})
            };
            pods.iter().map(endpoint).collect()
        };
        let slice = json!({
            "metadata": {"name": "web-own", "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": "IPv4", "ports": [{"port": 8080, "protocol": "TCP"}], "endpoints": endpoints("node-1"),
        });
        slices.create(&PostParams::default(), &serde_json::from_value(slice)?).await?;
        let address: Ipv4Addr = cluster.address("web").await?;
        cluster.owner(address, |node| node == "node-1").await?;
        answers(&lab.client().netns, address).await?;

        let mut longest = Duration::ZERO;
        for serving in ["node-2", "node-1", "node-2", "node-1", "node-2"] {
            let mac = lab.node(serving)?.mac();
            let wire = lab.client().netns.watch_arp("eth0")?;
            let patch = Patch::Merge(json!({"endpoints": endpoints(serving)}));
            let begin = Instant::now();
            slices.patch("web-own", &PatchParams::default(), &patch).await?;
            // A gratuitous announcement names the address as its sender's and as its target (RFC 5227 section 3).
            let announces = |arp: &berth_wire::arp::ArpPacket| (arp.sender_mac, arp.sender_ip, arp.target_ip) == (mac, address, address);
            let seen = wire.find(SOON, |seen| announces(&seen.frame.arp)).await?;
            let took = seen.at.saturating_duration_since(begin);
            println!("announced by {serving} {took:?} after the write of the EndpointSlice");
            longest = longest.max(took);
            cluster.owner(IpAddr::from(address), |node| node == serving).await?;
            cluster.settled(address, 0).await?;
            answers(&lab.client().netns, address).await?;
        }
        ensure!(longest < ENDPOINTS_LIMIT, "{longest:?}");
        Ok(())
    }
}
