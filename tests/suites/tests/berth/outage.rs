//! What goes on when the API server or the controller is away.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use berth_lab::{Lab, lab_test};
use serde_json::json;

use crate::cluster::{Cluster, GAP_LIMIT, SOON, answers};

lab_test! {
    async fn addresses_stay_and_still_fail_over_while_the_api_server_is_away(lab: Lab) -> Result<()> {
        let cluster = Cluster::start(lab.clone()).await?;
        let (address, owner) = cluster.web(&["node-1", "node-2", "node-3"], json!({"externalTrafficPolicy": "Local"})).await?;
        cluster.settled(address, 2).await?;
        let prober = cluster.probing(address).await?;
        lab.stop_api_server().await?;
        let crash = Instant::now();
        lab.crash_node(&owner).await?;
        prober.answered_since(crash + Duration::from_millis(100), SOON).await?;
        let gap = prober.stop().longest_gap_since(crash);
        ensure!(gap < GAP_LIMIT, "without the API server, the client had no answer for {gap:?}");

        // What happened meanwhile is written down and adopted when it is back.
        lab.start_api_server().await?;
        let next = cluster.owner(address, |node| node != owner).await?;
        let adopted = cluster.settled(address, 2).await?.spec.layer2.context("an owner")?;
        assert_eq!((adopted.owner, adopted.epoch), (Some(next), 2));
        cluster.service("late", json!({})).await?;
        cluster.address("late").await.context("allocation goes on")?;
        Ok(())
    }
}

lab_test! {
    async fn a_killed_controller_changes_nothing_and_takes_up_what_it_missed(lab: Lab) -> Result<()> {
        let cluster = Cluster::start(lab.clone()).await?;
        let (address, _) = cluster.web(&["node-1", "node-2"], json!({})).await?;
        cluster.settled(address, 2).await?;
        cluster.service("goes", json!({})).await?;
        let freed = cluster.address("goes").await?;
        cluster.settled(freed, 2).await?;
        let before = cluster.services().get("web").await?;
        let announcement = cluster.announcements().get(&address.to_string()).await?;

        let controller = lab.controller().await?;
        let restarts = controller.restarts();
        controller.kill().await?;
        cluster.delete("goes").await?;
        cluster.service("comes", json!({})).await?;
        answers(&lab.client().netns, address).await.context("while the controller is dead")?;
        controller.restarted(restarts, SOON).await?;
        cluster.address("comes").await?;
        lab.eventually("what the deleted Service held is given back", SOON, async || {
            let holder = cluster.announcements().get_opt(&freed.to_string()).await?;
            Ok(holder.is_none_or(|a| a.spec.services[0].name != "goes").then_some(()))
        })
        .await?;

        let after = cluster.services().get("web").await?;
        assert_eq!(after.metadata.resource_version, before.metadata.resource_version, "nothing that did not change is written");
        let again = cluster.announcements().get(&address.to_string()).await?;
        assert_eq!(again.metadata.resource_version, announcement.metadata.resource_version);
        Ok(())
    }
}

lab_test! {
    async fn an_announcement_deleted_by_hand_is_made_again_with_the_same_address(lab: Lab) -> Result<()> {
        let cluster = Cluster::start(lab.clone()).await?;
        let (address, _) = cluster.web(&["node-1"], json!({"loadBalancerIP": "192.0.2.207"})).await?;
        let before = cluster.settled(address, 2).await?;
        cluster.edit("web", json!({"spec": {"loadBalancerIP": null}})).await?;
        cluster.announcements().delete(&address.to_string(), &kube::api::DeleteParams::default()).await?;
        lab.eventually("it is made again", SOON, async || {
            let now = cluster.announcements().get_opt(&address.to_string()).await?.context("not there")?;
            Ok((now.metadata.uid != before.metadata.uid).then_some(()))
        })
        .await?;
        assert_eq!(cluster.ingress("web").await?, Some(address));
        answers(&lab.client().netns, address).await?;
        Ok(())
    }
}
