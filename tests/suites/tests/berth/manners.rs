//! What operators see: rights, health, metrics, tables.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use berth_api::SpeakerNode;
use berth_lab::{HTTP_PORT, Lab, lab_test};
use kube::Api;
use kube::api::ListParams;
use serde_json::{Value, json};

use crate::cluster::{Cluster, SOON};

/// CAP_NET_RAW as a bit of a capability set (capabilities(7)).
const NET_RAW: u64 = 1 << 13;

lab_test! {
    async fn operators_see_health_metrics_and_tables_and_nothing_has_rights_it_does_not_need(lab: Lab) -> Result<()> {
        let cluster = Cluster::start(lab.clone()).await?;
        let (address, owner) = cluster.web(&["node-1"], json!({})).await?;
        cluster.settled(address, 2).await?;

        // Health and metrics.
        let node = lab.node(&owner)?;
        for path in ["/healthz", "/readyz"] {
            let answer = node.netns().http_get((node.address(), HTTP_PORT).into(), path, Duration::from_secs(5)).await?;
            assert_eq!((answer.status, answer.body.as_str()), (200, "ok\n"), "{path}");
        }
        // Counters of pools follow a moment after what they count.
        lab.eventually("the controller's metrics", SOON, async || {
            let controller = lab.controller_metrics().await?;
            for line in [
                "berth_controller_pool_addresses_assigned{pool=\"default\",family=\"IPv4\"} 1",
                "berth_controller_writes_total{kind=\"Announcement\",result=\"ok\"}",
                "berth_controller_services_waiting 0",
            ] {
                ensure!(controller.contains(line), "no `{line}` in\n{controller}");
            }
            Ok(Some(()))
        })
        .await?;
        let speaker = lab.speaker_metrics(&owner).await?;
        ensure!(speaker.contains("berth_speaker_addresses_answering 1"), "{speaker}");
        ensure!(!speaker.contains("192.0.2."), "a label for each address would grow without bound:\n{speaker}");

        // Capabilities: the speaker's packet sockets, and nothing for the controller.
        for (process, expected) in [(lab.speaker(&owner)?, NET_RAW), (lab.controller().await?, 0)] {
            let pid = process.pid().context("it runs")?;
            let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
            for set in ["CapEff:", "CapPrm:", "CapBnd:"] {
                let line = status.lines().find_map(|l| l.strip_prefix(set)).context("capabilities")?;
                assert_eq!(u64::from_str_radix(line.trim(), 16)?, expected, "{} {set}", process.name());
            }
        }

        // What no Service may be given, because a router has it.
        let reports: Api<SpeakerNode> = Api::all(lab.admin());
        let gateways = reports.get(&owner).await?.spec.gateways;
        let router = [IpAddr::from(lab.router().address), lab.router().address6.into()];
        ensure!(router.iter().all(|address| gateways.contains(address)), "{router:?} in {gateways:?}");

        // Tables, as `kubectl get` asks for them.
        for (plural, expected) in [
            ("announcements", json!({"Name": "192.0.2.200", "Pool": "default", "Namespace": "default", "Service": "web", "Answers": owner, "Interface": "eth0"})),
            ("ipaddresspools", json!({"Name": "default", "Ready": "True", "Reason": "Valid", "IPv4-Used": 1, "IPv4-Free": 9})),
            ("l2advertisements", json!({"Name": "default", "Ready": "True", "Reason": "Valid"})),
            ("speakernodes", json!({"Name": "node-1", "Version": env!("CARGO_PKG_VERSION"), "Interfaces": "eth0"})),
        ] {
            lab.eventually(&format!("`kubectl get {plural}` reads well"), SOON, async || {
                let rows = table(&cluster, plural).await?;
                let first = rows.first().context("no rows")?;
                for (column, value) in expected.as_object().into_iter().flatten() {
                    ensure!(first[column] == *value, "{column} is {} in {first}", first[column]);
                }
                Ok(Some(()))
            })
            .await?;
        }
        Ok(())
    }
}

/// The rows of a table, each an object by column name.
async fn table(cluster: &Cluster, plural: &str) -> Result<Vec<Value>> {
    let url = format!("/apis/{}/{}/{plural}", berth_api::names::GROUP, berth_api::names::VERSION);
    let mut request = kube::core::Request::new(url).list(&ListParams::default())?;
    request.headers_mut().insert("accept", "application/json;as=Table;v=v1;g=meta.k8s.io".parse()?);
    let table: Value = cluster.lab.admin().request(request).await?;
    let columns: Vec<&str> =
        table["columnDefinitions"].as_array().into_iter().flatten().filter_map(|c| c["name"].as_str()).collect();
    let rows = table["rows"].as_array().into_iter().flatten();
    Ok(rows
        .map(|row| {
            let cells = row["cells"].as_array().cloned().unwrap_or_default();
            columns.iter().map(|c| (*c).to_owned()).zip(cells).collect::<serde_json::Map<_, _>>().into()
        })
        .collect())
}
