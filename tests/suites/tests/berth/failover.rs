//! What happens to clients when the node that answers dies, stops, hangs or is cut off.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use berth_lab::{Lab, lab_test};
use serde_json::json;

use crate::cluster::{Cluster, EVERY, GAP_LIMIT, SOON, http};

/// Longest time for which two nodes may answer once they hear each other again.
const DOUBLE_LIMIT: Duration = Duration::from_millis(500);

lab_test! {
    async fn a_crash_of_the_owner_costs_the_client_less_than_a_second(lab: Lab) -> Result<()> {
        let cluster = Cluster::start(lab.clone()).await?;
        // A pod on every node: kube-proxy goes on choosing endpoints of the dead node, which is not what is measured.
        let (address, owner) = cluster.web(&["node-1", "node-2", "node-3"], json!({"externalTrafficPolicy": "Local"})).await?;
        cluster.settled(address, 2).await?;
        let (near, far) = (cluster.probing(address).await?, lab.remote().netns.probe(http(address), EVERY));
        far.answered(SOON).await?;

        let crash = Instant::now();
        lab.crash_node(&owner).await?;
        let next = cluster.owner(address, |node| node != owner).await?;
        for (who, prober) in [("the client on the LAN", near), ("the client behind the router", far)] {
            prober.answered_since(crash + Duration::from_millis(100), SOON).await?;
            let gap = prober.stop().longest_gap_since(crash);
            ensure!(gap < GAP_LIMIT, "{who} had no answer for {gap:?}");
        }
        let note = cluster.event(&address.to_string(), "TookOver").await?;
        ensure!(note.contains(&next) && note.contains(&owner), "the event names both nodes: {note}");

        // The node returns: nothing moves back, and still one node answers.
        let wire = lab.client().netns.watch_arp("eth0")?;
        lab.boot_node(&owner).await?;
        let prober = cluster.probing(address).await?;
        let settled = cluster.settled(address, 2).await?;
        assert_eq!(settled.status.and_then(|s| s.layer2).map(|l| (l.owner, l.epoch)), Some((next.clone(), 2)));
        prober.answered(SOON).await?;
        let answered = Cluster::answerers(&wire, address);
        ensure!(answered.is_subset(&[lab.node(&next)?.mac()].into()), "{answered:?} answered, not only {next}");
        Ok(())
    }
}

/// Longest wait of a client that opens a connection every 10 ms where nothing is lost: what two busy cores add.
const NO_GAP: Duration = Duration::from_millis(250);

lab_test! {
    async fn a_speaker_that_hangs_is_cared_for_and_moves_nothing(lab: Lab) -> Result<()> {
        let cluster = Cluster::start(lab.clone()).await?;
        let (address, owner) = cluster.web(&["node-1", "node-2", "node-3"], json!({"externalTrafficPolicy": "Local"})).await?;
        let before = cluster.settled(address, 2).await?;
        let standby = before.spec.layer2.context("an owner")?.standbys[0].clone();
        let prober = cluster.probing(address).await?;
        let wire = lab.router().netns.watch_arp("lan")?;
        let begin = Instant::now();
        let speaker = lab.speaker(&owner)?;
        speaker.pause()?;
        metric(&lab, &standby, "berth_speaker_addresses_caring 1").await?;
        // Whoever asks now is told the owner's Ethernet address, by the caretaker.
        ask_from_router(&lab, address, 5).await?;
        // It lasts, so it is told.
        let told = lab.eventually("the Announcement names the caretaker", SOON, async || {
            let layer2 = cluster.announcements().get(&address.to_string()).await?.status.and_then(|s| s.layer2);
            Ok(layer2.filter(|layer2| layer2.caretaker.is_some()))
        }).await?;
        assert_eq!((&told.owner, told.caretaker.map(|caretaker| caretaker.node)), (&owner, Some(standby.clone())));
        speaker.resume()?;
        metric(&lab, &standby, "berth_speaker_addresses_caring 0").await?;
        lab.eventually("the owner is without a caretaker", SOON, async || {
            let layer2 = cluster.announcements().get(&address.to_string()).await?.status.and_then(|s| s.layer2);
            Ok(layer2.filter(|layer2| layer2.caretaker.is_none()))
        }).await?;
        let after = cluster.settled(address, 2).await?;
        assert_eq!(after.status.and_then(|s| s.layer2), before.status.and_then(|s| s.layer2), "nothing moved");
        prober.answered(SOON).await?;
        let gap = prober.stop().longest_gap_since(begin);
        ensure!(gap < NO_GAP, "new connections had to wait {gap:?}");
        let owner = lab.node(&owner)?.mac();
        assert_eq!(Cluster::answerers(&wire, address), [owner].into(), "nobody else was said to have it");
        Ok(())
    }
}

lab_test! {
    async fn a_speaker_that_is_killed_or_told_to_stop_moves_nothing(lab: Lab) -> Result<()> {
        let cluster = Cluster::start(lab.clone()).await?;
        let (address, owner) = cluster.web(&["node-1", "node-2", "node-3"], json!({"externalTrafficPolicy": "Local"})).await?;
        let before = cluster.settled(address, 2).await?.status.and_then(|s| s.layer2);
        let prober = cluster.probing(address).await?;
        let wire = lab.client().netns.watch_arp("eth0")?;
        let begin = Instant::now();
        for politely in [true, false] {
            // The kubelet starts it again.
            if politely {
                let status = lab.speaker(&owner)?.terminate(SOON).await?;
                ensure!(status.success(), "it ended with {status}");
            } else {
                lab.speaker(&owner)?.kill().await?;
            }
            ask_from_router(&lab, address, 3).await?;
            metric(&lab, &owner, "berth_speaker_addresses_answering 1").await?;
            // On a busy machine it may take long enough for the caretaker to be named meanwhile.
            lab.eventually("the Announcement says what it said before", SOON, async || {
                let seen = cluster.announcements().get(&address.to_string()).await?.status.and_then(|s| s.layer2);
                ensure!(seen == before, "{seen:?}");
                Ok(Some(()))
            })
            .await?;
            cluster.settled(address, 2).await?;
        }
        prober.answered(SOON).await?;
        let gap = prober.stop().longest_gap_since(begin);
        ensure!(gap < NO_GAP, "new connections had to wait {gap:?}");
        let owner = lab.node(&owner)?.mac();
        assert_eq!(Cluster::answerers(&wire, address), [owner].into(), "nobody else was said to have it");
        Ok(())
    }
}

/// Waits until a line is among a speaker's metrics.
async fn metric(lab: &Lab, node: &str, line: &str) -> Result<()> {
    let name = line.split(' ').next().unwrap_or_default();
    lab.eventually(&format!("{node} says `{line}`"), SOON, async || {
        let metrics = lab.speaker_metrics(node).await?;
        let seen = metrics.lines().find(|seen| seen.split(' ').next() == Some(name));
        ensure!(seen == Some(line), "{seen:?}");
        Ok(Some(()))
    })
    .await
}

/// Asks the LAN who has the address, as a router does whose entry is gone.
async fn ask_from_router(lab: &Lab, address: std::net::Ipv4Addr, times: u32) -> Result<()> {
    for _ in 0..times {
        let arping = ["-c", "1", "-w", "1", "-I", "lan", &address.to_string()];
        tokio::process::Command::from(lab.router().netns.command("arping")).args(arping).output().await?;
    }
    Ok(())
}

lab_test! {
    async fn two_nodes_that_lost_each_other_agree_on_one_owner_when_they_meet_again(lab: Lab) -> Result<()> {
        let cluster = Cluster::start(lab.clone()).await?;
        let (address, owner) = cluster.web(&["node-1", "node-2", "node-3"], json!({"externalTrafficPolicy": "Local"})).await?;
        let standbys = cluster.settled(address, 2).await?.spec.layer2.context("an owner")?.standbys;
        let prober = cluster.probing(address).await?;
        let begin = Instant::now();
        for standby in &standbys {
            lab.drop_between(&owner, standby)?;
        }
        // The API server is a path that all share: the claim reaches the old owner by it.
        cluster.owner(address, |node| node != owner).await?;
        for standby in &standbys {
            lab.restore_between(&owner, standby)?;
        }
        let settled = cluster.settled(address, 2).await?;
        let claim = settled.status.and_then(|s| s.layer2).context("a claim")?;
        ensure!(claim.epoch >= 2, "{claim:?}");
        // From half a second after they met on, one node answers.
        tokio::time::sleep_until((Instant::now() + DOUBLE_LIMIT).into()).await;
        let wire = lab.router().netns.watch_arp("lan")?;
        for _ in 0..3 {
            let arping = ["-c", "1", "-w", "1", "-I", "lan", &address.to_string()];
            tokio::process::Command::from(lab.router().netns.command("arping")).args(arping).output().await?;
        }
        let winner = lab.node(&claim.owner)?.mac();
        assert_eq!(Cluster::answerers(&wire, address), [winner].into());
        prober.answered(SOON).await?;
        let gap = prober.stop().longest_gap_since(begin);
        ensure!(gap < GAP_LIMIT, "the client had no answer for {gap:?}");
        Ok(())
    }
}

lab_test! {
    async fn a_node_whose_own_cable_was_pulled_takes_nothing_when_it_is_back(lab: Lab) -> Result<()> {
        let cluster = Cluster::start(lab.clone()).await?;
        let (address, owner) = cluster.web(&["node-1", "node-2", "node-3"], json!({"externalTrafficPolicy": "Local"})).await?;
        let standby = cluster.settled(address, 2).await?.spec.layer2.context("an owner")?.standbys[0].clone();
        let prober = cluster.probing(address).await?;
        let begin = Instant::now();

        // A standby hears nothing from the owner either, but it is itself that is cut off.
        lab.cut_link(&standby)?;
        partners_up(&lab, &owner, 1).await?;
        lab.restore_link(&standby)?;
        partners_up(&lab, &owner, 2).await?;
        let seen = prober.observation();
        ensure!(seen.longest_gap_since(begin) < Duration::from_millis(250), "{:?}", seen.longest_gap_since(begin));
        assert_eq!(cluster.answering(address).await?.owner, owner);

        // The owner goes on answering on its side of the cut, and no more when it is back.
        let cut = Instant::now();
        lab.cut_link(&owner)?;
        let next = cluster.owner(address, |node| node != owner).await?;
        prober.answered_since(cut + Duration::from_millis(100), SOON).await?;
        let wire = lab.client().netns.watch_arp("eth0")?;
        lab.restore_link(&owner)?;
        partners_up(&lab, &next, 2).await?;
        let settled = cluster.settled(address, 2).await?;
        assert_eq!(settled.status.and_then(|s| s.layer2).map(|l| (l.owner, l.epoch)), Some((next.clone(), 2)));
        let old = lab.node(&owner)?.mac();
        ensure!(!Cluster::answerers(&wire, address).contains(&old), "{owner} answered although {next} has taken over");
        let gap = prober.stop().longest_gap_since(cut);
        ensure!(gap < GAP_LIMIT, "the client had no answer for {gap:?}");
        Ok(())
    }
}

/// Waits until a speaker hears this many of its partners.
async fn partners_up(lab: &Lab, node: &str, count: usize) -> Result<()> {
    let line = format!("berth_speaker_partners_up {count}");
    lab.eventually(&format!("{node} hears {count} partners"), SOON, async || {
        let metrics = lab.speaker_metrics(node).await?;
        let seen = metrics.lines().find(|l| l.starts_with("berth_speaker_partners_up"));
        ensure!(seen == Some(&line), "{seen:?}");
        Ok(Some(()))
    })
    .await
}
