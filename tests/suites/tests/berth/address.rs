//! The path of a Service: it gets an address, the address answers, and what it held is released.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use berth_lab::{Lab, lab_test};
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::json;

use crate::cluster::{Cluster, SOON, answers, http};

lab_test! {
    async fn a_service_gets_an_address_that_answers_from_the_lan_and_from_behind_the_router(lab: Lab) -> Result<()> {
        let cluster = Cluster::start(lab.clone()).await?;
        let wire = lab.client().netns.watch_arp("eth0")?;
        let (address, owner) = cluster.web(&["node-1", "node-2"], json!({})).await?;
        assert_eq!(address.to_string(), "192.0.2.200", "the lowest of the pool");

        let ingress = cluster.services().get("web").await?.status.and_then(|s| s.load_balancer?.ingress);
        assert_eq!(serde_json::to_value(ingress)?, json!([{"ip": "192.0.2.200", "ipMode": "VIP"}]));
        answers(&lab.remote().netns, address).await.context("from behind the router")?;

        let announcement = cluster.settled(address, 2).await?;
        let claim = announcement.status.and_then(|s| s.layer2).context("a claim")?;
        assert_eq!((claim.owner.as_str(), claim.epoch, claim.interface.as_str()), (owner.as_str(), 1, "eth0"));
        assert_eq!(claim.mac, lab.node(&owner)?.mac(), "the owner answers with its own address");
        assert_eq!(Cluster::answerers(&wire, address), [claim.mac].into(), "nobody else does");
        wire.find(SOON, |seen| seen.frame.arp.sender_ip == address && seen.frame.arp.is_gratuitous()).await?;

        let (status, message) = cluster.reason("web", "berth.dev/Allocated", "Allocated").await?;
        assert_eq!((status.as_str(), message.as_str()), ("True", "192.0.2.200 from IPAddressPool `default`"));
        assert_eq!(cluster.reason("web", "berth.dev/Announced", "Announced").await?.0, "True");
        assert_eq!(cluster.event("web", "Allocated").await?, "192.0.2.200 from IPAddressPool `default`");
        assert_eq!(cluster.pool_reason("default", "Valid").await?.0, "True");
        let counted = lab.eventually("the pool counts", SOON, async || {
            let status = cluster.pools().get("default").await?.status.unwrap_or_default();
            Ok((status.assigned_ipv4 == Some(1)).then_some(status.available_ipv4))
        });
        assert_eq!(counted.await?, Some(9));
        Ok(())
    }
}

lab_test! {
    async fn the_local_policy_keeps_the_clients_address_and_follows_the_endpoints(lab: Lab) -> Result<()> {
        let cluster = Cluster::start(lab.clone()).await?;
        let first = cluster.pod("web", "node-2").await?;
        let second = lab.pod(berth_lab::PodSpec::new("web-3", "node-3").label("app", "web").unready()).await?;
        cluster.service("web", json!({"externalTrafficPolicy": "Local"})).await?;
        let address = cluster.address("web").await?;
        assert_eq!(cluster.owner(address, |_| true).await?, "node-2", "the only node with an endpoint");

        for from in [lab.client(), lab.remote()] {
            let answer = answers(&from.netns, address).await?;
            assert_eq!((answer.client.ip(), answer.node.as_str()), (IpAddr::V4(from.address), "node-2"));
        }

        // The endpoint moves: its node announces before the old one stops.
        second.set_ready(true).await?;
        cluster.settled(address, 1).await?;
        first.set_ready(false).await?;
        cluster.owner(address, |node| node == "node-3").await?;
        let answer = answers(&lab.client().netns, address).await?;
        assert_eq!((answer.client.ip(), answer.node.as_str()), (IpAddr::V4(lab.client().address), "node-3"));

        // No endpoint, nobody answers, and the Service says why; with one, it goes on.
        second.set_ready(false).await?;
        cluster.reason("web", "berth.dev/Announced", "NoLocalEndpoints").await?;
        cluster.event("web", "NoLocalEndpoints").await?;
        nobody_answers(&lab, http(address)).await?;
        first.set_ready(true).await?;
        assert_eq!(answers(&lab.client().netns, address).await?.node, "node-2");
        cluster.reason("web", "berth.dev/Announced", "Announced").await?;
        Ok(())
    }
}

lab_test! {
    async fn a_change_of_type_or_class_and_deletion_release_everything(lab: Lab) -> Result<()> {
        let cluster = Cluster::start(lab.clone()).await?;
        cluster.pod("web", "node-1").await?;
        for what in ["type", "class", "deletion"] {
            cluster.service("web", json!({})).await?;
            let address = cluster.address("web").await?;
            assert_eq!(address.to_string(), "192.0.2.200", "{what}: what was released before is free again");
            answers(&lab.client().netns, address).await?;
            match what {
                "type" => cluster.edit("web", json!({"spec": {"type": "ClusterIP"}})).await?,
                "class" => {
                    // The class can change only together with the type (Service API).
                    cluster.edit("web", json!({"spec": {"type": "NodePort"}})).await?;
                    let other = json!({"spec": {"type": "LoadBalancer", "loadBalancerClass": "example.com/other"}});
                    cluster.edit("web", other).await?;
                }
                _ => cluster.delete("web").await?,
            }
            lab.eventually(&format!("{what}: the Announcement goes"), SOON, async || {
                let left = cluster.announcements().get_opt(&address.to_string()).await?;
                Ok(left.is_none().then_some(()))
            })
            .await?;
            nobody_answers(&lab, http(address)).await.context(what)?;
            if what != "deletion" {
                lab.eventually(&format!("{what}: nothing of ours is left on the Service"), SOON, async || {
                    let status = cluster.services().get("web").await?.status.unwrap_or_default();
                    let ours = status.conditions.into_iter().flatten().any(|c| c.type_.starts_with("berth.dev/"));
                    let ingress = status.load_balancer.and_then(|l| l.ingress).unwrap_or_default();
                    Ok((!ours && ingress.is_empty()).then_some(()))
                })
                .await?;
                cluster.event("web", "Released").await?;
                cluster.delete("web").await?;
            }
        }
        Ok(())
    }
}

lab_test! {
    async fn services_deleted_the_moment_they_get_an_address_leave_nothing(lab: Lab) -> Result<()> {
        let cluster = Cluster::start(lab.clone()).await?;
        // The deletion meets answers to writes that are still under way.
        for _ in 0..20 {
            cluster.service("web", json!({})).await?;
            cluster.address("web").await?;
            cluster.delete("web").await?;
        }
        lab.eventually("no Announcement is left", SOON, async || {
            let left = cluster.announcements().list(&ListParams::default()).await?.items;
            ensure!(left.is_empty(), "{:?}", left.iter().map(|a| a.spec.address).collect::<Vec<_>>());
            Ok(Some(()))
        })
        .await
    }
}

lab_test! {
    async fn another_requested_address_answers_before_the_old_one_stops(lab: Lab) -> Result<()> {
        let cluster = Cluster::start(lab.clone()).await?;
        let (old, _) = cluster.web(&["node-1", "node-2"], json!({})).await?;
        cluster.settled(old, 2).await?;
        let prober = cluster.probing(old).await?;
        let begin = Instant::now();
        cluster.edit("web", json!({"spec": {"loadBalancerIP": "192.0.2.205"}})).await?;
        let new = lab
            .eventually("the ingress changes", SOON, async || Ok(cluster.ingress("web").await?.filter(|a| *a != old)))
            .await?;
        let gap = prober.stop().longest_gap_since(begin);
        ensure!(gap < Duration::from_millis(250), "until the ingress changed, {old} had no answer for {gap:?}");
        assert_eq!(new.to_string(), "192.0.2.205");
        // A node says so before the status does; kube-proxy, which reads the status, follows it.
        cluster.answering(new).await?;
        answers(&lab.client().netns, new).await?;
        lab.eventually("the old one is released", SOON, async || {
            Ok(cluster.announcements().get_opt(&old.to_string()).await?.is_none().then_some(()))
        })
        .await
    }
}

lab_test! {
    async fn a_service_of_another_class_is_never_touched(lab: Lab) -> Result<()> {
        let cluster = Cluster::start(lab.clone()).await?;
        cluster.service("foreign", json!({"loadBalancerClass": "example.com/other"})).await?;
        let theirs = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "foreign"},
            "status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.7"}]}},
        });
        let params = PatchParams::apply("another-controller");
        let written = cluster.services().patch_status("foreign", &params, &Patch::Apply(&theirs)).await?;
        // A Service of ours after it: when that is served, the other one was looked at.
        cluster.service("ours", json!({"loadBalancerClass": "berth.dev/pool"})).await?;
        cluster.address("ours").await?;
        let after = cluster.services().get("foreign").await?;
        assert_eq!(after.metadata.resource_version, written.metadata.resource_version);
        Ok(())
    }
}

/// Asks the wire until nobody says to have the address any more.
async fn nobody_answers(lab: &Lab, address: SocketAddr) -> Result<()> {
    let client = lab.client();
    lab.eventually(&format!("nobody answers for {address}"), SOON, async || {
        let arping = &["-c", "1", "-w", "1", "-I", "eth0", &address.ip().to_string()];
        let output = tokio::process::Command::from(client.netns.command("arping")).args(arping).output().await?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(text.contains("Received 0 response"), "{text} {}", String::from_utf8_lossy(&output.stderr));
        Ok(Some(()))
    })
    .await?;
    let refused = client.netns.http_get(address, "/", Duration::from_millis(500)).await;
    ensure!(refused.is_err(), "it still serves: {refused:?}");
    Ok(())
}
