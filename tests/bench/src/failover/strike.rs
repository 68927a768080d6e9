//! Each fault as it is made and undone.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use berth_api::names::{EXCLUDE_NODE_LABEL, SPEAKER_NAMESPACE};
use berth_lab::Workload;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::DeleteParams;

use super::fault::Fault;
use super::ground::{Ground, SOON};
use super::wire::Wire;
use super::{DOUBLE_LIMIT, LOOK_ON};

/// For how long heartbeats do not pass: time enough for a standby to find the owner silent and to ask the wire six times over.
const ISOLATION: Duration = Duration::from_secs(2);

/// Makes a fault of the owner and undoes it; returns when both are done, with the moment from which on no second node may answer but for
/// [`DOUBLE_LIMIT`] after a move.
pub(crate) async fn strike(ground: &Ground, wire: &Wire, fault: Fault, owner: &str) -> Result<Instant> {
    let lab = ground.lab();
    let now = Instant::now();
    match fault {
        Fault::Crash => crash(ground, wire, owner).await?,
        Fault::ApiDown => {
            lab.pause_api_server()?;
            lab.crash_node(owner).await?;
            let taken = wire.taken_over(lab.node(owner)?.mac()).await;
            lab.resume_api_server()?;
            taken?;
            lab.boot_node(owner).await?;
        }
        Fault::Kill => {
            let speaker = lab.speaker(owner)?;
            let before = speaker.restarts();
            speaker.kill().await?;
            speaker.restarted(before, SOON).await?;
            speaker.ready(SOON).await?;
        }
        Fault::Stop => replace_speaker(ground, owner).await?,
        Fault::Rollout => lab.rollout_restart(Workload::DaemonSet).await?,
        Fault::Drain => {
            drain(ground, owner, true).await?;
            ground.board().moved(ground.addresses(), owner, SOON).await?;
            drain(ground, owner, false).await?;
        }
        Fault::Isolate => {
            for other in ground.others(owner) {
                lab.drop_heartbeats_between(owner, &other)?;
            }
            // That nothing happens cannot be awaited.
            tokio::time::sleep(ISOLATION).await;
            for other in ground.others(owner) {
                lab.restore_heartbeats_between(owner, &other)?;
            }
        }
        Fault::Partition => {
            for other in ground.others(owner) {
                lab.drop_between(owner, &other)?;
            }
            let moved = ground.board().moved(ground.addresses(), owner, SOON).await;
            for other in ground.others(owner) {
                lab.restore_between(owner, &other)?;
            }
            moved?;
            return Ok(Instant::now() + DOUBLE_LIMIT);
        }
        Fault::Crash1000 => anyhow::bail!("{fault} has a scene of its own"),
    }
    Ok(now)
}

/// Takes away what a fault leaves behind, which is no part of it, so that the next one finds what the first one found. Not needed where a
/// [`Fault::Stop`] follows, which does the same.
pub(crate) async fn tidy(ground: &Ground, fault: Fault, owner: &str) -> Result<()> {
    if fault == Fault::Kill {
        // A kubelet lets a container wait that ended before: 10 s, then twice as long each time. One of a new pod it does not.
        replace_speaker(ground, owner).await?;
    }
    Ok(())
}

async fn crash(ground: &Ground, wire: &Wire, owner: &str) -> Result<()> {
    let lab = ground.lab();
    lab.crash_node(owner).await?;
    wire.taken_over(lab.node(owner)?.mac()).await?;
    lab.boot_node(owner).await
}

/// Drains a node of its addresses, or lets it take part again.
async fn drain(ground: &Ground, node: &str, drained: bool) -> Result<()> {
    ground.lab().node(node)?.label(&[(EXCLUDE_NODE_LABEL, drained.then_some(""))]).await
}

/// Deletes a speaker's pod, and waits until another one is there and ready.
async fn replace_speaker(ground: &Ground, node: &str) -> Result<()> {
    let lab = ground.lab();
    let before = lab.speaker(node)?;
    let pods: Api<Pod> = Api::namespaced(lab.admin(), SPEAKER_NAMESPACE);
    pods.delete(before.pod(), &DeleteParams::default()).await.context("deleting a pod")?;
    lab.eventually(&format!("{node} has another speaker"), SOON, async || {
        let now = lab.speaker(node)?;
        Ok((now.pod() != before.pod() && now.is_ready()).then_some(()))
    })
    .await
}

/// A crash of an owner that is measured by its addresses and not by clients: returns when the last of them was announced again, and how long that took.
pub(crate) async fn timed_crash(ground: &Ground, wire: &Wire, owner: &str) -> Result<Duration> {
    let lab = ground.lab();
    let began = Instant::now();
    lab.crash_node(owner).await?;
    let last = wire.taken_over(lab.node(owner)?.mac()).await?;
    tokio::time::sleep_until((last + LOOK_ON).into()).await;
    lab.boot_node(owner).await?;
    Ok(last.saturating_duration_since(began))
}
