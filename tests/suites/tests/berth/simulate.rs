//! `kubectl berth simulate` against what happens.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use berth_api::Announcement;
use berth_lab::{Lab, lab_test};
use kube::api::ListParams;
use serde_json::{Value, json};

use crate::cluster::{Cluster, SOON};
use crate::families::DUAL_POOL;
use crate::plugin::{Plugin, has};

/// Who answers for each address, as the simulation says.
fn simulated(report: &Value) -> Result<BTreeMap<String, Option<String>>> {
    let addresses = report["addresses"].as_array().context("addresses")?;
    let told = |address: &Value| (address["address"].to_string(), address["after"].as_str().map(str::to_owned));
    Ok(addresses.iter().map(told).collect())
}

/// The same, as the Announcements say. One who is dead answers for nothing.
fn real(announcements: &[Announcement], dead: &str) -> BTreeMap<String, Option<String>> {
    let owner = |a: &Announcement| a.status.as_ref().and_then(|s| s.layer2.as_ref()).map(|l| l.owner.clone());
    let told = |a: &Announcement| (json!(a.spec.address).to_string(), owner(a).filter(|owner| owner != dead));
    announcements.iter().map(told).collect()
}

lab_test! {
    async fn a_simulated_crash_is_what_a_real_one_does(lab: Lab) -> Result<()> {
        let cluster = Cluster::start(lab.clone()).await?;
        let plugin = Plugin::of(&lab).await?;
        lab.apply_yaml(DUAL_POOL).await?;
        for n in 1..=5 {
            cluster.service(&format!("s{n}"), json!({})).await?;
        }
        cluster.service("dual", json!({"ipFamilyPolicy": "RequireDualStack"})).await?;
        cluster.addresses("dual").await?;
        // Two that have a pod on one node alone, which nobody can stand in for, and one with pods on two.
        let local = |app: &str| json!({"externalTrafficPolicy": "Local", "selector": {"app": app}});
        for (app, nodes) in [("one", &["node-1"][..]), ("other", &["node-2"]), ("two", &["node-1", "node-2"])] {
            for node in nodes {
                cluster.pod(app, node).await?;
            }
            cluster.service(app, local(app)).await?;
        }
        let all = async || Ok::<_, anyhow::Error>(cluster.announcements().list(&ListParams::default()).await?.items);
        lab.eventually("all answer", SOON, async || {
            let all = all().await?;
            let settled = |a: &Announcement| {
                let claimed = a.status.as_ref().and_then(|s| s.layer2.as_ref()).map(|l| (Some(&l.owner), l.epoch));
                claimed.is_some() && claimed == a.spec.layer2.as_ref().map(|l| (l.owner.as_ref(), l.epoch))
            };
            ensure!(all.len() == 10 && all.iter().all(settled), "{} are there", all.len());
            Ok(Some(()))
        })
        .await?;

        let dead = "node-1";
        let (report, said) = plugin.json(&["simulate", "--fail", dead]).await?;
        assert_eq!(said.code, Some(2), "one address is lost: {report}");
        let expected = simulated(&report)?;
        lab.crash_node(dead).await?;
        lab.eventually("what was simulated has happened", SOON, async || {
            let real = real(&all().await?, dead);
            ensure!(real == expected, "it is {real:?} and was to be {expected:?}");
            Ok(Some(()))
        })
        .await?;

        let said = plugin.run(&["simulate", "--fail", "node-7"]).await?;
        assert_eq!(said.code, Some(1), "{said:?}");
        has(&said.err, &["there is no node `node-7`; there are node-1, node-2, node-3"])
    }
}
