//! Two controllers, one of which leads.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use berth_api::names::{CONTROLLER_NAMESPACE, LEADER_LEASE};
use berth_lab::{BerthConfig, Lab, PodEdit, Request, lab_test};
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use serde_json::json;

use crate::cluster::{ADVERTISEMENT, Cluster, POOL, SOON};

/// What an allocation may take after the leader was killed.
const TAKEOVER_LIMIT: Duration = Duration::from_secs(5);

/// Octets that a claim has at least, and no frame of HTTP/2 that only keeps a connection going.
const CLAIM_MIN: u64 = 400;

lab_test! {
    async fn a_paused_leader_gives_out_no_address_that_its_successor_gave(lab: Lab) -> Result<()> {
        let debug = vec![("BERTH_LOG".to_owned(), "info,berth_controller=debug".to_owned())];
        let controller = PodEdit { args: Vec::new(), env: debug };
        lab.install_berth_with(&BerthConfig { controller, ..BerthConfig::default() }).await?;
        lab.apply_yaml(POOL).await?;
        lab.apply_yaml(ADVERTISEMENT).await?;
        let cluster = Cluster { lab: lab.clone() };
        cluster.service("settled", json!({})).await?;
        assert_eq!(cluster.address("settled").await?.to_string(), "192.0.2.200");

        // It hears of a Service, plans, and its claim is on its way when its clock stops.
        let (leader, successor) = (lab.controller().await?, lab.standby_controller().await?);
        // Right after it has renewed its Lease, so that it leads for long enough to plan.
        let renewals = async || {
            let of_leader = |r: &&Request| r.pod == leader.pod() && r.resource == "leases" && r.verb == "update";
            anyhow::Ok(lab.audited()?.iter().filter(of_leader).count())
        };
        let before = renewals().await?;
        lab.eventually("the leader renews", SOON, async || Ok((renewals().await? > before).then_some(()))).await?;
        lab.silence(&leader)?;
        cluster.service("first", json!({})).await?;
        lab.eventually("the leader plans", SOON, async || {
            let logged = leader.logged()?;
            let told = ["\"planned\"", "\"default/first\"", "192.0.2.201"];
            let claims = logged.lines().any(|line| told.iter().all(|part| line.contains(part)));
            Ok(claims.then_some(()))
        })
        .await?;
        let on_its_way = async || Ok((lab.held_back(&leader)? > CLAIM_MIN).then_some(()));
        lab.eventually("its claim is on its way", SOON, on_its_way).await?;
        leader.pause()?;

        // Its successor knows nothing of that, and gives the same address to another.
        cluster.delete("first").await?;
        let begin = Instant::now();
        cluster.service("second", json!({})).await?;
        assert_eq!(cluster.address("second").await?.to_string(), "192.0.2.201");
        assert_eq!(lab.controller().await?.pod(), successor.pod());
        let took = begin.elapsed();
        let claim = cluster.announcements().get("192.0.2.201").await?;

        // The late claim arrives, and fails.
        lab.let_speak(&leader)?;
        leader.resume()?;
        let late = |request: &Request| {
            (request.pod.as_str(), request.verb.as_str(), request.resource.as_str())
                == (leader.pod(), "create", "announcements")
                && request.code == 409
        };
        lab.eventually("the late claim is refused", SOON, async || Ok(lab.audited()?.into_iter().find(late))).await?;
        lab.eventually("the former leader says that it leads no more", SOON, async || {
            Ok(leader.logged()?.contains("leading no more").then_some(()))
        })
        .await?;
        let now = cluster.announcements().get("192.0.2.201").await?;
        assert_eq!((&now.metadata.uid, &now.spec), (&claim.metadata.uid, &claim.spec), "the claim that came first stands");
        assert_eq!(now.spec.services[0].name, "second");
        assert_eq!(cluster.ingress("second").await?.map(|a| a.to_string()).as_deref(), Some("192.0.2.201"));

        // And it gave nothing that it wrote later either.
        cluster.service("third", json!({})).await?;
        assert_eq!(cluster.address("third").await?.to_string(), "192.0.2.202");
        assert_eq!(lab.controller().await?.pod(), successor.pod(), "nobody who comes back takes the lead");
        println!("a Service created while its leader was paused had its address after {took:?}");
        Ok(())
    }
}

lab_test! {
    async fn a_killed_leader_is_followed_and_a_new_service_served_within_five_seconds(lab: Lab) -> Result<()> {
        let cluster = Cluster::start(lab.clone()).await?;
        cluster.service("before", json!({})).await?;
        cluster.address("before").await?;
        let (leader, successor) = (lab.controller().await?, lab.standby_controller().await?);
        ensure!(successor.is_ready(), "the standby is warm, so it is ready");
        // Its container would be started again under the same name, and lead as before.
        ensure!(leader.node() != successor.node(), "both are on {}", leader.node());
        lab.crash_node(leader.node()).await?;
        let killed = Instant::now();
        cluster.service("after", json!({})).await?;
        let address = cluster.address("after").await?;
        let took = killed.elapsed();
        println!("killed leader -> new Service served by the other one: {took:?}");
        ensure!(took < TAKEOVER_LIMIT, "it took {took:?}");
        let claims = lab.audited()?;
        let name = address.to_string();
        let claim = claims.iter().find(|r| r.verb == "create" && r.resource == "announcements" && r.name == name);
        assert_eq!(claim.context("a claim")?.pod, successor.pod());
        Ok(())
    }
}

lab_test! {
    async fn a_leader_that_is_told_to_stop_gives_the_lease_back_and_a_restart_of_it_is_hardly_noticed(lab: Lab) -> Result<()> {
        let cluster = Cluster::start(lab.clone()).await?;
        let (leader, successor) = (lab.controller().await?, lab.standby_controller().await?);
        cluster.service("before", json!({})).await?;
        cluster.settled(cluster.address("before").await?, 2).await?;
        let writes = |r: &Request| r.pod == successor.pod() && !matches!(r.verb.as_str(), "get" | "list" | "watch");
        let written: Vec<_> = lab.audited()?.into_iter().filter(writes).collect();
        // It may have tried to create the Lease at the same moment as the other.
        ensure!(written.iter().all(|r| r.resource == "leases" && r.code == 409), "the standby wrote {written:?}");
        let begin = Instant::now();
        leader.terminate(SOON).await?;
        cluster.service("web", json!({})).await?;
        cluster.address("web").await?;
        let took = begin.elapsed();
        println!("leader stopped -> new Service served: {took:?}");
        ensure!(took < Duration::from_secs(3), "the Lease was waited for: {took:?}");
        let leases: Api<Lease> = Api::namespaced(lab.admin(), CONTROLLER_NAMESPACE);
        let spec = leases.get(LEADER_LEASE).await?.spec.context("a Lease")?;
        assert_eq!(spec.holder_identity.as_deref(), Some(successor.pod()));
        Ok(())
    }
}
