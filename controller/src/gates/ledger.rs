//! Which gates are to say something else: a plain state, the time is an argument.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use berth_api::service::ServiceKey;
use berth_provider::{Endpoint, EndpointReport, Failure, ServiceId};
use jiff::Timestamp;

use super::pod::{PodId, PodState, Said};
use super::verdict::{Standing, word};
use super::writer::{GateWrite, GateWritten};
use crate::marker::WATCH;

/// Writes under way at once: a rollout of many pods is told within a second, and the API server has others to serve.
const WRITES_AT_ONCE: usize = 16;

/// How long EndpointSlices may take to follow a pod. Before that one without an endpoint is not told that it is none.
const SLICES_FOLLOW: Duration = Duration::from_secs(2);

/// How a Service stands with us.
#[derive(Clone, Debug)]
pub(crate) enum Served {
    /// It has no load balancer of ours, and gets none.
    No,
    /// It may get one.
    Soon,
    /// It is served.
    By(ServiceId),
}

/// How a pod stands with a Service whose endpoint it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stand {
    /// It is to get traffic, whatever its endpoint says of its readiness.
    pub(crate) is_ready_but_for_us: bool,
    /// It waits for what is thought of it.
    pub(crate) waits: bool,
}

/// The endpoints of a Service's pods, by their names.
pub(crate) type ByPod<'a> = BTreeMap<&'a str, Vec<&'a Endpoint>>;

/// The pods with gates of ours, and what is thought of them.
#[derive(Debug, Default)]
pub(crate) struct Gates {
    pods: BTreeMap<PodId, PodState>,
    by_service: BTreeMap<ServiceKey, BTreeSet<PodId>>,
    /// Since when pods wait for nothing but us.
    since: BTreeMap<PodId, Duration>,
    thoughts: BTreeMap<ServiceId, Thoughts>,
    /// Pods that may have to say something else.
    stale: BTreeSet<PodId>,
    writing: BTreeSet<PodId>,
    /// Pods whose last write did not come about: when it is tried again, and failures in a row. None where only the version was old.
    held: BTreeMap<PodId, (Duration, u32)>,
}

/// What was heard of a Service's endpoints last.
#[derive(Debug, PartialEq)]
enum Thoughts {
    Heard(EndpointReport),
    Failed(Failure),
}

impl Gates {
    /// Takes in a change of a pod; the Services whose targets may be others now.
    pub(crate) fn learn(&mut self, id: &PodId, pod: Option<PodState>, now: Duration) -> BTreeSet<ServiceKey> {
        let before = self.pods.remove(id);
        if before.as_ref() == pod.as_ref() {
            self.pods.extend(pod.map(|pod| (id.clone(), pod)));
            return BTreeSet::new();
        }
        let stands = |pod: &Option<PodState>| -> BTreeMap<String, Stand> {
            let gates =
                pod.iter().flat_map(|pod| pod.gates.keys().map(move |service| (service.clone(), pod.stand(service))));
            gates.collect()
        };
        let (was, is) = (stands(&before), stands(&pod));
        let key = |name: &String| ServiceKey { namespace: id.0.clone(), name: name.clone() };
        for service in was.keys() {
            if let Some(pods) = self.by_service.get_mut(&key(service)) {
                pods.remove(id);
                if pods.is_empty() {
                    self.by_service.remove(&key(service));
                }
            }
        }
        for service in is.keys() {
            self.by_service.entry(key(service)).or_default().insert(id.clone());
        }
        let is_other = before.as_ref().map(|pod| &pod.uid) != pod.as_ref().map(|pod| &pod.uid);
        if is_other || self.held.get(id).is_some_and(|(_, failures)| *failures == 0) {
            self.held.remove(id);
        }
        if is_other || !pod.as_ref().is_some_and(|pod| pod.is_ready_but_for_us) {
            self.since.remove(id);
        }
        match pod {
            Some(pod) => {
                if pod.is_ready_but_for_us {
                    self.since.entry(id.clone()).or_insert(now);
                }
                self.pods.insert(id.clone(), pod);
                self.stale.insert(id.clone());
            }
            None => drop(self.stale.remove(id)),
        }
        let all: BTreeSet<_> = was.keys().chain(is.keys()).collect();
        all.into_iter().filter(|service| was.get(*service) != is.get(*service)).map(key).collect()
    }

    /// How a pod stands with a Service, if it has a gate for it.
    pub(crate) fn stand(&self, service: &ServiceKey, pod: &str) -> Option<Stand> {
        // Most Services have none.
        self.by_service.get(service)?;
        let pod = self.pods.get(&(service.namespace.clone(), pod.to_owned()))?;
        pod.gates.contains_key(&service.name).then(|| pod.stand(&service.name))
    }

    /// Something about a Service or its endpoints is otherwise.
    pub(crate) fn touch(&mut self, service: &ServiceKey) {
        for id in self.by_service.get(service).into_iter().flatten() {
            self.stale.insert(id.clone());
            // What it waited for may be this.
            if self.held.get(id).is_some_and(|(_, failures)| *failures == 0) {
                self.held.remove(id);
            }
        }
    }

    /// This replica begins to lead: what was heard before is old.
    pub(crate) fn begin(&mut self) {
        self.thoughts.clear();
        self.held.clear();
        self.stale.extend(self.pods.keys().cloned());
    }

    /// Takes in what is thought of a Service's endpoints.
    pub(crate) fn heard(&mut self, service: &ServiceId, report: EndpointReport) {
        self.think(service, Thoughts::Heard(report));
    }

    /// Takes in that a Service's targets could not be sent.
    pub(crate) fn failed(&mut self, service: &ServiceId, failure: &Failure) {
        self.think(service, Thoughts::Failed(failure.clone()));
    }

    fn think(&mut self, service: &ServiceId, thoughts: Thoughts) {
        if self.by_service.contains_key(&service.key) && self.thoughts.get(service) != Some(&thoughts) {
            self.thoughts.insert(service.clone(), thoughts);
            self.touch(&service.key);
        }
    }

    /// A Service is there no more.
    pub(crate) fn forget(&mut self, service: &ServiceId) {
        self.thoughts.remove(service);
    }

    /// When something is to be looked at next, if there is room for it.
    pub(crate) fn next_due(&self) -> Option<Duration> {
        if self.writing.len() >= WRITES_AT_ONCE {
            return None;
        }
        let free = self.stale.iter().filter(|id| !self.writing.contains(*id));
        free.map(|id| self.held.get(id).map_or(Duration::ZERO, |(at, _)| *at)).min()
    }

    /// What is to be written. `served` says how a Service stands, `endpoints` which endpoint is which pod's.
    pub(crate) fn due<'a>(
        &mut self,
        now: Duration,
        stamp: Timestamp,
        served: impl Fn(&ServiceKey) -> Served,
        endpoints: impl Fn(&ServiceKey) -> ByPod<'a>,
    ) -> Vec<GateWrite> {
        let is_free = |id: &&PodId| {
            !self.writing.contains(*id) && self.held.get(*id).is_none_or(|(not_before, _)| *not_before <= now)
        };
        let due: Vec<_> = self.stale.iter().filter(is_free).cloned().collect();
        let mut services: BTreeMap<ServiceKey, (Served, ByPod<'a>)> = BTreeMap::new();
        let mut writes = Vec::new();
        for id in due {
            if self.writing.len() >= WRITES_AT_ONCE {
                break;
            }
            self.stale.remove(&id);
            let Some(pod) = self.pods.get(&id) else { continue };
            let follow = self.since.get(&id).map(|since| *since + SLICES_FOLLOW).filter(|at| *at > now);
            let mut says = BTreeMap::new();
            let mut is_without_endpoint = false;
            for (service, before) in &pod.gates {
                let key = ServiceKey { namespace: id.0.clone(), name: service.clone() };
                let of = services.entry(key).or_insert_with_key(|key| (served(key), endpoints(key)));
                is_without_endpoint |= !of.1.contains_key(id.1.as_str());
                let said = self.says(&id, pod, service, of, follow.is_none(), stamp).or_else(|| before.clone());
                says.extend(said.map(|said| (service.clone(), said)));
            }
            let is_said = |(service, said): (&String, &Said)| pod.gates.get(service) == Some(&Some(said.clone()));
            if says.iter().all(is_said) {
                self.held.remove(&id);
                if let Some(at) = follow.filter(|_| is_without_endpoint) {
                    self.held.insert(id.clone(), (at, 0));
                    self.stale.insert(id);
                }
                continue;
            }
            let (uid, version) = (pod.uid.clone(), pod.version.clone());
            writes.push(GateWrite { pod: id.clone(), uid, version, says });
            self.writing.insert(id);
        }
        writes
    }

    fn says(
        &self,
        (namespace, name): &PodId,
        pod: &PodState,
        service: &str,
        (served, endpoints): &(Served, ByPod<'_>),
        slices_followed: bool,
        stamp: Timestamp,
    ) -> Option<Said> {
        let key = ServiceKey { namespace: namespace.clone(), name: service.to_owned() };
        let before = pod.gates.get(service)?.as_ref();
        let mine = endpoints.get(name.as_str()).map_or(&[][..], Vec::as_slice);
        let thoughts = match served {
            Served::By(id) => self.thoughts.get(id),
            Served::No | Served::Soon => None,
        };
        let standing = match (served, thoughts) {
            _ if !pod.is_ready_but_for_us => Standing::NotDone,
            (Served::No, _) => Standing::Unserved,
            (_, Some(Thoughts::Failed(failure) | Thoughts::Heard(EndpointReport::Unsent(failure)))) => {
                Standing::Failed(failure)
            }
            (Served::Soon, _) | (_, Some(Thoughts::Heard(EndpointReport::Nowhere))) => Standing::Nowhere,
            (_, Some(Thoughts::Heard(EndpointReport::Nodes))) => Standing::Nodes,
            (_, Some(_)) if mine.is_empty() && slices_followed => Standing::NoEndpoint,
            (_, Some(Thoughts::Heard(EndpointReport::Known(all)))) => {
                let each = mine.iter().filter_map(|endpoint| all.get(*endpoint));
                // It may have several, such as one of each family. The worst counts; one that is not known yet is being sent.
                let (known, count) = (each.clone().max(), each.count());
                known.filter(|_| count == mine.len() && count > 0).map_or(Standing::Unknown, Standing::Thought)
            }
            (_, None) => Standing::Unknown,
        };
        let said = word(&key, before, standing)?;
        let status = said.status.as_str().to_owned();
        let since = before.filter(|before| before.status == status).and_then(|before| before.since);
        // As the API server keeps it, or it would seem to differ.
        let now = Timestamp::from_second(stamp.as_second()).unwrap_or(stamp);
        let (reason, message) = (said.reason.as_str().to_owned(), said.message);
        Some(Said { status, reason, message, since: since.or(Some(now)) })
    }

    /// Takes in what came of a write.
    /// Returns a failure, and whether it is the first.
    pub(crate) fn done(&mut self, write: &GateWrite, written: GateWritten, now: Duration) -> Option<(Failure, bool)> {
        self.writing.remove(&write.pod);
        let pod = self.pods.get_mut(&write.pod).filter(|pod| pod.uid == write.uid)?;
        match written {
            GateWritten::Done(version) => {
                // What the watch has shown since may be newer, and is written anew then.
                if pod.version == write.version {
                    pod.version = version;
                }
                // The watch says so too, some time.
                for (service, said) in &write.says {
                    pod.gates.insert(service.clone(), Some(said.clone()));
                }
                self.held.remove(&write.pod);
                None
            }
            GateWritten::Outdated => {
                // The watch may have shown what it met already.
                let wait = if pod.version == write.version { WATCH } else { Duration::ZERO };
                self.held.insert(write.pod.clone(), (now + wait, 0));
                self.stale.insert(write.pod.clone());
                None
            }
            GateWritten::Failed(failure) => {
                let is_first = self.held.values().all(|(_, failures)| *failures == 0);
                let count = self.held.get(&write.pod).map_or(1, |(_, count)| count.saturating_add(1));
                self.held.insert(write.pod.clone(), (now + failure.wait(count), count));
                self.stale.insert(write.pod.clone());
                Some((failure, is_first))
            }
        }
    }
}

impl PodState {
    fn stand(&self, service: &str) -> Stand {
        let is_open = self.gates.get(service).is_some_and(|said| said.as_ref().is_some_and(Said::is_true));
        let is_ready_but_for_us = self.is_ready_but_for_us;
        Stand { is_ready_but_for_us, waits: is_ready_but_for_us && !is_open }
    }
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
