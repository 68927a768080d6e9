//! Readiness gates of pods, where a provider is told of them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use berth_api::service::ServiceKey;
use berth_provider::{Failure, Provider, ServiceId, TargetReport};
use jiff::Timestamp;
use tokio::task::JoinSet;

use super::{Documents, Work, caught};
use crate::gates::{GateWrite, GateWritten, PodFeed, PodId, PodState, Served};

/// What is heard of pods; never anything where gates are not heeded.
pub(super) async fn pods(feed: Option<&PodFeed>) -> BTreeMap<PodId, Option<PodState>> {
    match feed {
        Some(feed) => feed.pods.take().await,
        None => std::future::pending().await,
    }
}

/// Until the first list of pods is complete, if it is not.
pub(super) async fn listed(feed: Option<PodFeed>) {
    if let Some(mut feed) = feed.filter(|feed| !*feed.listed.borrow())
        && feed.listed.wait_for(|all| *all).await.is_ok()
    {
        return;
    }
    std::future::pending::<()>().await;
}

impl<P: Provider> Documents<P> {
    pub(super) fn hear_pods(&mut self, news: BTreeMap<PodId, Option<PodState>>) {
        let now = self.now();
        for (id, pod) in news {
            for key in self.gates.learn(&id, pod, now) {
                if let Some(shard) = self.shards.shard_of(&key) {
                    self.board.soon(shard, now);
                }
            }
        }
    }

    /// Takes in what is thought of the endpoints of Services that were sent targets.
    pub(super) fn hear_thoughts(&mut self, services: &BTreeSet<ServiceId>, result: &mut Result<TargetReport, Failure>) {
        for id in services {
            match result {
                Ok(report) => {
                    if let Some(report) = report.endpoints.remove(id) {
                        self.gates.heard(id, report);
                    }
                }
                Err(failure) => self.gates.failed(id, failure),
            }
        }
    }

    pub(super) fn start_gates(&mut self, work: &mut JoinSet<Work>, now: Duration) {
        let (shards, finalizers, board, provider) = (&self.shards, &self.finalizers, &self.board, &self.provider);
        let served = |key: &ServiceKey| match shards.present(key) {
            Some(intent) if provider.leaves_alone(intent) => Served::No,
            Some(intent) => Served::By(intent.id.clone()),
            // It gets one once it has our finalizer, if what it asks for can be had.
            None if finalizers.awaits(key) => Served::Soon,
            None => Served::No,
        };
        for write in self.gates.due(now, Timestamp::now(), served, |key| board.by_pod(key)) {
            let (writer, leadership) = (self.ties.gate_writer.clone(), self.ties.leadership.clone());
            work.spawn(async move {
                if !leadership.borrow().holds() {
                    return Work::Gated(write, GateWritten::Outdated);
                }
                let written = caught(writer.write(&write, Timestamp::now())).await;
                let written = written.unwrap_or_else(GateWritten::Failed);
                Work::Gated(write, written)
            });
        }
    }

    pub(super) fn gate_failed(&self, write: &GateWrite, failure: &Failure, is_first: bool) {
        self.count(failure);
        let (namespace, name) = &write.pod;
        // Once for an outage.
        if is_first {
            tracing::warn!(
                pod = format!("{namespace}/{name}"), class = %failure.class, %failure,
                "a readiness gate cannot be written, and the pod waits for it"
            );
        } else {
            tracing::debug!(pod = format!("{namespace}/{name}"), class = %failure.class, %failure, "a readiness gate cannot be written");
        }
    }
}
