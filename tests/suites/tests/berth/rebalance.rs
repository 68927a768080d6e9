//! Nothing moves for balance by itself; `kubectl berth rebalance` moves what a person has seen and wants moved.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use anyhow::{Result, ensure};
use berth_api::annotations::MOVE_TO;
use berth_api::names::EXCLUDE_NODE_LABEL;
use berth_lab::{Lab, lab_test};
use kube::ResourceExt as _;
use kube::api::ListParams;
use serde_json::{Value, json};

use crate::cluster::{Cluster, SOON};
use crate::plugin::{Plugin, has};

const SERVICES: u8 = 6;

/// A cluster in which node-1 owns the addresses of all Services, because the others were away.
async fn lopsided(lab: &Lab) -> Result<(Cluster, Plugin, Vec<Ipv4Addr>)> {
    let cluster = Cluster::start(lab.clone()).await?;
    let plugin = Plugin::of(lab).await?;
    for node in ["node-2", "node-3"] {
        lab.node(node)?.label(&[(EXCLUDE_NODE_LABEL, Some(""))]).await?;
    }
    let mut addresses = Vec::new();
    for n in 1..=SERVICES {
        cluster.service(&format!("s{n}"), json!({})).await?;
        addresses.push(cluster.address(&format!("s{n}")).await?);
    }
    for address in &addresses {
        cluster.owner(*address, |node| node == "node-1").await?;
    }
    for node in ["node-2", "node-3"] {
        lab.node(node)?.label(&[(EXCLUDE_NODE_LABEL, None)]).await?;
    }
    for address in &addresses {
        let settled = cluster.settled(*address, 2).await?;
        assert_eq!(
            settled.spec.layer2.and_then(|l| l.owner).as_deref(),
            Some("node-1"),
            "nothing moves because nodes came back"
        );
    }
    Ok((cluster, plugin, addresses))
}

/// How many addresses each node answers for.
async fn owned(cluster: &Cluster) -> Result<BTreeMap<String, usize>> {
    let mut counts = BTreeMap::new();
    for announcement in cluster.announcements().list(&ListParams::default()).await? {
        let owner = announcement.status.and_then(|s| s.layer2).map(|l| l.owner).unwrap_or_default();
        *counts.entry(owner).or_default() += 1;
    }
    Ok(counts)
}

/// The wishes that stand.
async fn wishes(cluster: &Cluster) -> Result<Vec<String>> {
    let all = cluster.announcements().list(&ListParams::default()).await?;
    Ok(all.into_iter().filter_map(|a| a.annotations().get(MOVE_TO).cloned()).collect())
}

lab_test! {
    async fn what_nodes_owned_that_were_alone_is_shared_when_a_person_says_so(lab: Lab) -> Result<()> {
        let (cluster, plugin, addresses) = lopsided(&lab).await?;
        let (plan, said) = plugin.json(&["rebalance", "--dry-run"]).await?;
        assert_eq!((said.code, plan["moves"].as_array().map(Vec::len)), (Some(0), Some(3)), "{plan}");
        assert_eq!(plan["nodes"][0], json!({"node": "node-1", "before": 6, "after": 3, "most": 3}));
        let refused = plugin.run(&["rebalance"]).await?;
        assert_eq!(refused.code, Some(2), "{refused:?}");
        has(&refused.err, &["nobody can be asked, because standard input is no terminal; give --yes"])?;
        assert_eq!(owned(&cluster).await?, BTreeMap::from([("node-1".to_owned(), 6)]), "nothing was moved yet");

        let said = plugin.run(&["rebalance", "--yes", "--interval", "0", "--max-moves", "1"]).await?;
        assert_eq!(said.code, Some(0), "{said:?}");
        has(&said.err, &["warning: established connections to an address break when it moves", "1 of 1: "])?;
        let said = plugin.run(&["rebalance", "--yes", "--interval", "0", "--parallel", "2"]).await?;
        assert_eq!(said.code, Some(0), "{said:?}");
        has(&said.err, &["2 of 2: "])?;
        assert_eq!(owned(&cluster).await?["node-1"], 3);
        assert_eq!(wishes(&cluster).await?, Vec::<String>::new());
        // As it was planned, also the one that was planned anew.
        let planned = |address: &Ipv4Addr| {
            let moves = plan["moves"].as_array().into_iter().flatten();
            let found = moves.into_iter().find(|planned| planned["address"] == address.to_string());
            found.and_then(|planned| planned["to"].as_str()).unwrap_or("node-1").to_owned()
        };
        for address in &addresses {
            assert_eq!(cluster.settled(*address, 2).await?.spec.layer2.and_then(|l| l.owner), Some(planned(address)));
        }
        let said = plugin.run(&["rebalance"]).await?;
        assert_eq!(said.code, Some(0), "{said:?}");
        has(&said.err, &["nothing is to be moved"])
    }
}

lab_test! {
    async fn who_interrupts_it_leaves_nothing_behind_and_so_does_a_move_that_does_not_happen(lab: Lab) -> Result<()> {
        let (cluster, plugin, _) = lopsided(&lab).await?;
        // Nobody there claims what they are named for.
        let speakers = [lab.speaker("node-2")?, lab.speaker("node-3")?];
        for speaker in &speakers {
            speaker.pause()?;
        }
        let running = plugin.start(&["rebalance", "--yes"])?;
        lab.eventually("an address is wished elsewhere", SOON, async || {
            ensure!(!wishes(&cluster).await?.is_empty(), "there is no wish");
            Ok(Some(()))
        })
        .await?;
        running.interrupt()?;
        let said = running.ended().await?;
        assert_eq!((said.code, wishes(&cluster).await?), (Some(1), vec![]), "{said:?}");
        has(&said.err, &["interrupted", "0 of 3 moved"])?;

        let said = plugin.run(&["rebalance", "--yes", "--timeout", "1s"]).await?;
        assert_eq!((said.code, wishes(&cluster).await?), (Some(1), vec![]), "{said:?}");
        has(&said.err, &["error: ", "after 1s, node node-1 answers"])?;
        assert_eq!(owned(&cluster).await?, BTreeMap::from([("node-1".to_owned(), 6)]), "who answered goes on");
        for speaker in &speakers {
            speaker.resume()?;
        }
        Ok(())
    }
}

lab_test! {
    async fn what_a_person_may_not_do_is_said_and_nothing_is_done(lab: Lab) -> Result<()> {
        let (cluster, plugin, addresses) = lopsided(&lab).await?;
        for words in [&["drain", "node-1"][..], &["rebalance", "--yes"]] {
            let said = plugin.run(&[words, &["--context", "user"]].concat()).await?;
            assert_eq!(said.code, Some(2), "{said:?}");
            has(&said.err, &["error: ", "hint: "])?;
        }
        assert_eq!(wishes(&cluster).await?, Vec::<String>::new());
        let (report, _) = plugin.json(&["simulate", "--drain", "node-1"]).await?;
        assert_eq!(report["addresses"].as_array().map(Vec::len), Some(addresses.len()));
        assert_eq!(report["nodes"][0], json!({"node": "node-1", "before": 6, "after": 0}), "{}", Value::to_string(&report));
        Ok(())
    }
}
