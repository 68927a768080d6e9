//! What speakers cost when nothing goes wrong: memory and time on cores with a part in many addresses, and packets about addresses that do
//! not move when a node joins or leaves.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use berth_api::crd::{AnnouncementSpec, Layer2Assignment, Member, ServiceRef};
use berth_api::names::{CONTROLLER_NAME, CONTROLLER_NAMESPACE, announcement_name, part_label};
use berth_api::{Announcement, MacAddr};
use berth_lab::{Lab, LabConfig};
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Service;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt as _};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::client::Family;
use crate::failover::board::Board;
use crate::failover::ground::{SOON, gauge, service};
use crate::failover::wire::Wire;
use crate::load::round;
use crate::process::{anonymous_mb_of, quiet_of, resident_mb_of, time_on_cores_of};
use crate::row::Verdict;

/// The lab: one node more than an address has parts, so that there is somebody to take the place of one that leaves.
pub const LAB: LabConfig = LabConfig { nodes: 4, kube_proxy: true };

/// Services of both families while nodes join and leave: each node owns some addresses.
const SERVICES: usize = 20;
/// How long an address is announced after a claim: five seconds, and what a loaded machine adds.
const ANNOUNCED: Duration = Duration::from_secs(6);
/// How long is looked at what an idle speaker does.
const IDLE: Duration = Duration::from_secs(20);
/// Longest wait until speakers have taken up all addresses.
const TAKEN_UP_LIMIT: Duration = Duration::from_mins(5);
/// Announcements that are written at once.
pub(crate) const WRITES: usize = 8;
/// Memory that a speaker may have, in MB of 1,000,000 bytes.
const RSS_MB: f64 = 15.0;
/// Time on cores that an idle speaker may need within [`IDLE`], in milliseconds: one hundredth of a core, of which 20 heartbeats a second
/// and their answers need half.
const CPU_MS: u64 = 200;
/// Where the addresses begin.
const FIRST: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 0);
/// The pool of the Services.
const POOL: &str = "
apiVersion: berth.dev/v1alpha1
kind: IPAddressPool
metadata: {name: bench}
spec: {addresses: [192.0.2.200-192.0.2.239, '2001:db8:2::200-2001:db8:2::239']}
---
apiVersion: berth.dev/v1alpha1
kind: L2Advertisement
metadata: {name: bench}
";

/// What was measured. The names are those of the JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Row {
    /// A speaker at rest.
    Speaker {
        /// Which part it has in every address: `owner` or `standby`.
        speaker: String,
        /// In how many it has that part.
        addresses: usize,
        /// Resident memory in MB of 1,000,000 bytes.
        rss_mb: f64,
        /// The part of it that is no page of a file.
        anon_mb: f64,
        /// Time on cores, user and system, in milliseconds.
        cpu_ms: u64,
        /// Within so many seconds.
        seconds: u64,
        /// How often its process was started again while the addresses were made.
        restarts: u32,
    },
    /// A node that left or joined.
    Change {
        /// `leave` or `join`.
        change: String,
        /// How many addresses there were.
        addresses: usize,
        /// How many of them changed their owner.
        moved: usize,
        /// Frames about the others that nodes sent to everybody meanwhile.
        packets: usize,
    },
}

impl Row {
    /// What Berth is to reach, and whether it did.
    pub fn verdicts(&self) -> Vec<Verdict> {
        match self {
            Self::Speaker { rss_mb, cpu_ms, restarts, .. } => vec![
                Verdict {
                    what: "memory",
                    measured: format!("{rss_mb:.1} MB"),
                    target: format!("< {RSS_MB:.0} MB"),
                    met: *rss_mb < RSS_MB,
                },
                Verdict {
                    what: "time on cores",
                    measured: format!("{cpu_ms} ms"),
                    target: format!("<= {CPU_MS} ms"),
                    met: *cpu_ms <= CPU_MS,
                },
                Verdict {
                    what: "restarts",
                    measured: restarts.to_string(),
                    target: "0".to_owned(),
                    met: *restarts == 0,
                },
            ],
            Self::Change { packets, .. } => vec![Verdict {
                what: "packets",
                measured: packets.to_string(),
                target: "0".to_owned(),
                met: *packets == 0,
            }],
        }
    }
}

/// The rows and Berth's targets, for a person.
pub fn table(rows: &[Row]) -> String {
    let mut text = String::new();
    for row in rows {
        let _ = match row {
            Row::Speaker { speaker, addresses, rss_mb, anon_mb, cpu_ms, seconds, .. } => writeln!(
                text,
                "{speaker:<8} of {addresses} addresses: {rss_mb:.1} MB resident, {anon_mb:.1} of them no file's, {cpu_ms} ms on cores within {seconds} s"
            ),
            Row::Change { change, addresses, moved, packets } => writeln!(
                text,
                "{change:<8} of a node, {addresses} addresses: {moved} moved, {packets} packets about the others"
            ),
        };
        for Verdict { what, measured, target, met } in row.verdicts() {
            let met = if met { "met" } else { "MISSED" };
            let _ = writeln!(text, "         {what:<14} {measured:>9}   {target:<10} {met}");
        }
    }
    text.truncate(text.trim_end().len());
    text
}

/// Measures in a new lab. `addresses` is in how many speakers have a part while they are idle.
pub async fn measure(lab: &Lab, addresses: usize, tell: &dyn Fn(String)) -> Result<Vec<Row>> {
    lab.install_berth().await?;
    lab.apply_yaml(POOL).await?;
    let mut rows = changes(lab, tell).await?;
    stop_controllers(lab).await?;
    tell(format!("no controller any more; {addresses} Announcements are made by hand"));
    rows.extend(at_rest(lab, addresses).await?);
    Ok(rows)
}

/// A node leaves and joins while all others own addresses.
async fn changes(lab: &Lab, tell: &dyn Fn(String)) -> Result<Vec<Row>> {
    let board = Board::follow(lab.admin());
    let services: Api<Service> = Api::default_namespaced(lab.admin());
    for number in 0..SERVICES {
        let families = [Family::Ipv4, Family::Ipv6];
        let service = service(&format!("idle-{number}"), &families, json!({}), json!({}))?;
        services.create(&PostParams::default(), &service).await.context("creating a Service")?;
    }
    let announcements: Api<Announcement> = Api::all(lab.admin());
    let addresses: Vec<IpAddr> = lab
        .eventually("every Service has its addresses", SOON, async || {
            let all = announcements.list(&kube::api::ListParams::default()).await?.items;
            Ok((all.len() == 2 * SERVICES).then(|| all.iter().map(|found| found.spec.address).collect()))
        })
        .await?;
    board.settled(&addresses, 2, SOON).await?;
    let leaver = lab.nodes().last().context("a lab has nodes")?;
    let others: BTreeSet<MacAddr> =
        lab.nodes().iter().filter(|node| node.name() != leaver.name()).map(berth_lab::Node::mac).collect();
    let mut rows = Vec::new();
    for change in ["leave", "join"] {
        // What was announced for an earlier move is no packet of this one.
        tokio::time::sleep(ANNOUNCED).await;
        let (wire, epochs) = (Wire::listen_only(lab, &addresses)?, board.epochs());
        if change == "leave" {
            let is_leavers = |address: &IpAddr| board.owner(*address).as_deref() == Some(leaver.name());
            let had: Vec<_> = addresses.iter().copied().filter(is_leavers).collect();
            ensure!(!had.is_empty(), "{} owns nothing that could move", leaver.name());
            lab.crash_node(leaver.name()).await?;
            leaver.set_ready(false).await?;
            board.moved(&had, leaver.name(), SOON).await?;
        } else {
            lab.boot_node(leaver.name()).await?;
            leaver.set_ready(true).await?;
        }
        board.settled(&addresses, 2, SOON).await?;
        // That nothing more is said cannot be awaited.
        tokio::time::sleep(ANNOUNCED).await;
        let stayed = |address: &IpAddr| board.reigns(*address, &epochs).len() < 2;
        let spoken_of = wire.spoken_of(&others);
        let packets = spoken_of.iter().filter(|address| stayed(address)).count();
        let moved = addresses.iter().filter(|address| !stayed(address)).count();
        ensure!(moved == 0 || spoken_of.len() > packets, "{moved} addresses moved, and nothing of it was heard");
        tell(format!("{change}: {moved} of {} addresses moved, {packets} packets about the others", addresses.len()));
        rows.push(Row::Change { change: change.to_owned(), addresses: addresses.len(), moved, packets });
    }
    for number in 0..SERVICES {
        services.delete(&format!("idle-{number}"), &DeleteParams::default()).await?;
    }
    lab.eventually("no Announcement is left", SOON, async || {
        let left = announcements.list_metadata(&kube::api::ListParams::default()).await?.items.len();
        ensure!(left == 0, "{left} are");
        Ok(Some(()))
    })
    .await?;
    Ok(rows)
}

/// Nobody then takes Announcements away that no Service has.
pub(crate) async fn stop_controllers(lab: &Lab) -> Result<()> {
    let deployments: Api<Deployment> = Api::namespaced(lab.admin(), CONTROLLER_NAMESPACE);
    let none = Patch::Merge(json!({ "spec": { "replicas": 0 } }));
    deployments.patch(CONTROLLER_NAME, &PatchParams::default(), &none).await.context("stopping the controllers")?;
    let what = "no controller is left";
    lab.eventually(what, SOON, async || Ok(lab.controllers().is_empty().then_some(()))).await
}

/// An owner and two standbys of many addresses, at rest.
async fn at_rest(lab: &Lab, addresses: usize) -> Result<Vec<Row>> {
    let announcements: Api<Announcement> = Api::all(lab.admin());
    let members = lab.nodes().iter().take(3).map(|node| Member {
        node: node.name().to_owned(),
        interface: "eth0".to_owned(),
        address: node.address().into(),
        mac: node.mac(),
    });
    let members: Vec<_> = members.collect();
    let create = async |number: usize| {
        let announcement = announcement(number, address(number), &members);
        announcements
            .create(&PostParams::default(), &announcement)
            .await
            .with_context(|| format!("creating the Announcement {}", announcement.name_any()))
    };
    futures::stream::iter(0..addresses).map(create).buffer_unordered(WRITES).try_collect::<Vec<_>>().await?;
    let nodes: Vec<&str> = members.iter().map(|member| member.node.as_str()).collect();
    let answering = lab.eventually("the speakers have taken up all addresses", TAKEN_UP_LIMIT, async || {
        let mut answering = Vec::new();
        for node in &nodes {
            ensure!(lab.speaker(node)?.is_ready(), "the speaker on {node} is not ready");
            let page = lab.speaker_metrics(node).await?;
            let count = |what| gauge(&page, what).unwrap_or_default();
            let (owns, stands_by) =
                (count("berth_speaker_addresses_answering"), count("berth_speaker_addresses_standby"));
            ensure!(owns + stands_by == addresses, "{node} answers for {owns} and stands by for {stands_by}");
            answering.push(owns);
        }
        let sum: usize = answering.iter().sum();
        ensure!(sum == addresses, "{answering:?} are answered for");
        Ok(Some(answering))
    });
    let mut speakers: Vec<_> = answering.await?.into_iter().zip(nodes).collect();
    // The one with most first, which is the first node unless its speaker was started again meanwhile.
    speakers.sort_by_key(|(owns, _)| std::cmp::Reverse(*owns));
    let mut at_rest = Vec::new();
    for (part, (owns, node)) in ["owner", "standby"].into_iter().zip(speakers) {
        let container = lab.speaker(node)?;
        let pid = container.pid().with_context(|| format!("the speaker on {node} does not run"))?;
        quiet_of(pid).await?;
        let has = if part == "owner" { owns } else { addresses - owns };
        at_rest.push((part, has, container, pid));
    }
    let began = Instant::now();
    let before: Vec<_> = at_rest.iter().map(|(.., pid)| time_on_cores_of(*pid)).collect::<Result<_>>()?;
    tokio::time::sleep(IDLE).await;
    let seconds = began.elapsed().as_secs();
    at_rest
        .iter()
        .zip(before)
        .map(|((part, has, container, pid), before)| {
            Ok(Row::Speaker {
                speaker: (*part).to_owned(),
                addresses: *has,
                rss_mb: round(resident_mb_of(*pid)?, 10.0),
                anon_mb: round(anonymous_mb_of(*pid)?, 10.0),
                cpu_ms: time_on_cores_of(*pid)?.saturating_sub(before).as_millis() as u64,
                seconds,
                restarts: container.restarts(),
            })
        })
        .collect()
}

fn address(number: usize) -> IpAddr {
    Ipv4Addr::from_bits(FIRST.to_bits() + number as u32).into()
}

/// An Announcement that no controller made: the first of the members owns the address, and the others stand by.
pub(crate) fn announcement(number: usize, address: IpAddr, members: &[Member]) -> Announcement {
    let mut names = members.iter().map(|member| member.node.clone());
    let layer2 =
        Layer2Assignment { owner: names.next(), standbys: names.collect(), epoch: 1, members: members.to_vec() };
    let holder = ServiceRef {
        namespace: "default".to_owned(),
        name: format!("idle-{number}"),
        uid: format!("{number}"),
        ..ServiceRef::default()
    };
    let spec = AnnouncementSpec {
        address,
        pool: "bench".to_owned(),
        services: vec![holder],
        layer2: Some(layer2),
        routes: Vec::new(),
    };
    let mut announcement = Announcement::new(&announcement_name(address), spec);
    announcement.metadata.labels =
        Some(members.iter().map(|member| (part_label(&member.node), String::new())).collect());
    announcement
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_target_is_met_up_to_its_limit_and_missed_behind_it() {
        let speaker = |rss_mb, cpu_ms, restarts| {
            let speaker = "owner".to_owned();
            Row::Speaker { speaker, addresses: 5, rss_mb, anon_mb: 1.0, cpu_ms, seconds: 20, restarts }
        };
        let change = |packets| Row::Change { change: "join".to_owned(), addresses: 40, moved: 9, packets };
        for (row, expected) in [
            (speaker(14.9, 200, 0), &[][..]),
            (speaker(15.0, 200, 0), &["memory"]),
            (speaker(1.0, 201, 0), &["time on cores"]),
            (speaker(1.0, 0, 1), &["restarts"]),
            (change(0), &[]),
            (change(1), &["packets"]),
        ] {
            let missed: Vec<_> = row.verdicts().into_iter().filter(|v| !v.met).map(|v| v.what).collect();
            assert_eq!(missed, expected, "{row:?}");
        }
    }

    #[test]
    fn a_row_is_one_json_object_with_the_documented_keys() {
        let rows = [
            Row::Speaker {
                speaker: "owner".to_owned(),
                addresses: 5000,
                rss_mb: 12.5,
                anon_mb: 7.5,
                cpu_ms: 40,
                seconds: 20,
                restarts: 0,
            },
            Row::Change { change: "leave".to_owned(), addresses: 40, moved: 9, packets: 0 },
        ];
        let texts = [
            r#"{"speaker":"owner","addresses":5000,"rss_mb":12.5,"anon_mb":7.5,"cpu_ms":40,"seconds":20,"restarts":0}"#,
            r#"{"change":"leave","addresses":40,"moved":9,"packets":0}"#,
        ];
        for (row, text) in rows.into_iter().zip(texts) {
            assert_eq!(serde_json::to_string(&row).unwrap(), text);
            assert_eq!(serde_json::from_str::<Row>(text).unwrap(), row);
        }
    }
}
