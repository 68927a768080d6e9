//! The queue of targets: what is to be sent where, and which shard is due. A plain state, the time is an argument.
//!
//! A change of an EndpointSlice concerns the shard of its Service alone, one of the nodes concerns all. What changes while a shard is
//! being sent to is sent next, all at once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use berth_api::service::ServiceKey;
use berth_api::{Condition, ConditionStatus, condition::types};
use berth_provider::{
    Class, Endpoint, Failure, Intent, ServiceId, ServiceTargets, Shard, TargetNode, TargetReport, Targets,
};

use crate::backends::{NodeState, SliceEndpoint, SliceId, SliceState, eligible};
use crate::gates::{ByPod, Gates};

/// Nodes and endpoints, and the shards that have to hear of them.
#[derive(Debug, Default)]
pub(super) struct Board {
    nodes: BTreeMap<String, Arc<NodeState>>,
    eligible: Arc<[TargetNode]>,
    slices: BTreeMap<SliceId, SliceState>,
    by_service: BTreeMap<ServiceKey, BTreeSet<SliceId>>,
    due: BTreeMap<Shard, Duration>,
    busy: BTreeSet<Shard>,
    /// Failures in a row.
    failures: BTreeMap<Shard, u32>,
    /// Shards for which the other side asked for fewer calls, and until when nothing is asked.
    throttled: BTreeMap<Shard, Duration>,
    /// Shards that have been sent to since this replica leads.
    sent: BTreeSet<Shard>,
    /// What is to be said of the targets of Services.
    conditions: BTreeMap<ServiceId, Condition>,
}

impl Board {
    /// Takes in changes of nodes; whether other nodes take traffic now.
    pub(super) fn learn_nodes(&mut self, news: BTreeMap<String, Option<Arc<NodeState>>>) -> bool {
        // Most of what is heard of nodes is that they live.
        let mut is_news = false;
        for (name, node) in news {
            is_news |= self.nodes.get(&name) != node.as_ref();
            match node {
                Some(node) => drop(self.nodes.insert(name, node)),
                None => drop(self.nodes.remove(&name)),
            }
        }
        if !is_news {
            return false;
        }
        let now = eligible(self.nodes.values().map(|node| &**node));
        let changed = now != self.eligible;
        if changed {
            self.eligible = now;
        }
        changed
    }

    /// Takes in a change of a slice; the Services whose endpoints are others now.
    pub(super) fn learn_slice(&mut self, id: SliceId, slice: Option<SliceState>) -> BTreeSet<ServiceKey> {
        let before = self.slices.get(&id);
        if before == slice.as_ref() {
            return BTreeSet::new();
        }
        let mut changed = BTreeSet::new();
        if let Some(before) = self.slices.remove(&id) {
            if let Some(slices) = self.by_service.get_mut(&before.service) {
                slices.remove(&id);
                if slices.is_empty() {
                    self.by_service.remove(&before.service);
                }
            }
            changed.insert(before.service);
        }
        if let Some(slice) = slice {
            changed.insert(slice.service.clone());
            self.by_service.entry(slice.service.clone()).or_default().insert(id.clone());
            self.slices.insert(id, slice);
        }
        changed
    }

    /// A shard is to be sent to.
    pub(super) fn soon(&mut self, shard: &Shard, at: Duration) {
        let at = at.max(self.throttled.get(shard).copied().unwrap_or_default());
        let due = self.due.entry(shard.clone()).or_insert(at);
        *due = at.min(*due);
    }

    /// This replica begins to lead: nothing is known of what another one has sent.
    pub(super) fn begin(&mut self) {
        (self.due, self.failures, self.throttled, self.sent, self.conditions) = Default::default();
    }

    /// When the next shard is due that is not being sent to.
    pub(super) fn next_due(&self) -> Option<Duration> {
        self.due.iter().filter(|(shard, _)| !self.busy.contains(*shard)).map(|(_, due)| *due).min()
    }

    /// How many are being sent to.
    pub(super) fn busy(&self) -> usize {
        self.busy.len()
    }

    /// A shard that is due. It is busy until [`Board::done`].
    pub(super) fn next(&mut self, now: Duration) -> Option<Shard> {
        let due = self.due.iter().filter(|(shard, due)| **due <= now && !self.busy.contains(*shard));
        let shard = due.min_by_key(|(_, due)| **due)?.0.clone();
        self.due.remove(&shard);
        self.busy.insert(shard.clone());
        Some(shard)
    }

    fn endpoints_of(&self, service: &ServiceKey) -> impl Iterator<Item = &SliceEndpoint> {
        let slices = self.by_service.get(service).into_iter().flatten();
        slices.filter_map(|id| self.slices.get(id)).flat_map(|slice| &slice.endpoints)
    }

    /// The endpoints of a Service by their pods.
    pub(super) fn by_pod(&self, service: &ServiceKey) -> ByPod<'_> {
        let mut pods = ByPod::new();
        for of in self.endpoints_of(service) {
            if let Some(pod) = &of.pod {
                pods.entry(pod).or_default().push(&of.endpoint);
            }
        }
        pods
    }

    /// Where the traffic of these Services is to go: to endpoints that are ready, and to those that only wait for a gate of ours.
    pub(super) fn targets<'a>(&self, services: impl Iterator<Item = &'a Intent>, gates: &Gates) -> Targets {
        let each = services.map(|intent| {
            let key = &intent.id.key;
            // One may be in two slices for a moment (EndpointSlice API).
            let mut endpoints: BTreeSet<&Endpoint> = BTreeSet::new();
            let mut asked_about = BTreeMap::new();
            for of in self.endpoints_of(key) {
                let stand = of.pod.as_deref().and_then(|pod| gates.stand(key, pod));
                if of.is_ready || stand.is_some_and(|stand| stand.is_ready_but_for_us) {
                    endpoints.insert(&of.endpoint);
                    asked_about.extend(stand.map(|stand| (of.endpoint.clone(), stand.waits)));
                }
            }
            let endpoints = endpoints.into_iter().cloned().collect();
            (intent.id.clone(), ServiceTargets { intent: intent.clone(), endpoints, gated: asked_about })
        });
        Targets { services: each.collect(), nodes: self.eligible.clone() }
    }

    /// Takes in what came of a shard's targets; the Services of which something else is to be said.
    pub(super) fn done(
        &mut self,
        shard: &Shard,
        services: &BTreeSet<ServiceId>,
        result: Result<TargetReport, Failure>,
        now: Duration,
    ) -> BTreeSet<ServiceId> {
        self.busy.remove(shard);
        let mut said: BTreeMap<_, _> = match result {
            Ok(report) => {
                self.failures.remove(shard);
                self.throttled.remove(shard);
                if let Some(wait) = report.look_again {
                    self.soon(shard, now + wait);
                }
                report.conditions
            }
            Err(failure) => {
                let count = self.failures.entry(shard.clone()).or_default();
                *count = count.saturating_add(1);
                let wait = failure.wait(*count);
                if failure.class == Class::Throttled {
                    self.throttled.insert(shard.clone(), now + wait);
                }
                self.soon(shard, now + wait);
                services.iter().filter_map(|id| Some((id.clone(), self.after(id, &failure)?))).collect()
            }
        };
        let is_first = self.sent.insert(shard.clone());
        let mut changed = if is_first { services.clone() } else { BTreeSet::new() };
        for id in services {
            let (before, after) = (self.conditions.get(id), said.remove(id));
            if before != after.as_ref() {
                changed.insert(id.clone());
                match after {
                    Some(condition) => drop(self.conditions.insert(id.clone(), condition)),
                    None => drop(self.conditions.remove(id)),
                }
            }
        }
        changed
    }

    /// What a failure leaves to say of a Service's targets: what was said, unless a person has to do something.
    fn after(&self, id: &ServiceId, failure: &Failure) -> Option<Condition> {
        if !failure.class.is_for_a_person() {
            return self.conditions.get(id).cloned();
        }
        let (kind, status, reason) = (types::TARGETS_HEALTHY, ConditionStatus::Unknown, failure.reason);
        Some(Condition { kind, status, reason, message: failure.message.clone() })
    }

    /// What is to be said of a Service's targets.
    pub(super) fn condition(&self, id: &ServiceId) -> Option<&Condition> {
        self.conditions.get(id)
    }

    /// Whether a shard has been sent to since this replica leads.
    pub(super) fn was_sent_to(&self, shard: &Shard) -> bool {
        self.sent.contains(shard)
    }

    /// Nobody has to do with a Service any more.
    pub(super) fn forget(&mut self, id: &ServiceId) {
        self.conditions.remove(id);
    }

    /// No Service is in a shard any more.
    pub(super) fn forget_shard(&mut self, shard: &Shard) {
        self.busy.remove(shard);
        self.due.remove(shard);
        self.failures.remove(shard);
        self.throttled.remove(shard);
        self.sent.remove(shard);
    }
}

#[cfg(test)]
#[path = "board_tests.rs"]
mod tests;
