//! Writes who answers into the status of Announcements.
//!
//! Nothing waits for it. It writes what is so now and not what was so once, as long as this node still answers, and once that
//! it does no longer where no other node follows; never over a newer ownership; and nothing that did not change.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use berth_api::condition::types::READY;
use berth_api::crd::{Caretaker, Layer2Status};
use berth_api::names::SPEAKER_FIELD_MANAGER;
use berth_api::{Announcement, Condition, ConditionStatus, Reason};
use berth_machine::State;
use berth_telemetry::brief;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition as K8sCondition, MicroTime};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, Resource};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::board::{Board, Report, Seen};
use crate::events::{Events, Happening};
use crate::metrics::{Metrics, StatusWrite};
use crate::retry::{RequestError, Retry, within_limit};

/// Writes under way at a time: enough to be through with a thousand addresses in seconds, few enough that the nodes of a
/// large cluster together do not overrun an API server.
const WRITES_AT_ONCE: usize = 8;

/// Writes until `shutdown`; what is under way is then left to the nodes that take over.
pub async fn run(
    client: Client,
    node: String,
    board: Arc<Board>,
    events: Events,
    metrics: Metrics,
    shutdown: CancellationToken,
) {
    let writer = Writer { api: Api::all(client), node, board, events, metrics };
    shutdown.run_until_cancelled(writer.follow()).await;
}

struct Writer {
    api: Api<Announcement>,
    node: String,
    board: Arc<Board>,
    events: Events,
    metrics: Metrics,
}

/// A write that came to an end.
struct Done {
    address: IpAddr,
    report: Report,
    seen: Seen,
    outcome: Outcome,
}

/// How it ended.
enum Outcome {
    Written(Box<Announcement>),
    /// Somebody else had changed the object, which is now so.
    Conflict(Result<Box<Announcement>, RequestError>),
    Failed(RequestError),
}

impl Writer {
    async fn follow(&self) {
        let mut under_way = FuturesUnordered::new();
        let mut addresses = BTreeSet::new();
        let mut retry = Retry::new("write the status of Announcements");
        let mut not_before = Instant::now();
        loop {
            let paused = Instant::now() < not_before;
            while !paused && under_way.len() < WRITES_AT_ONCE {
                let Some((address, report, seen)) = self.board.take_changed(&addresses) else { break };
                if let Some(status) = wanted(&self.node, &report, &seen, Timestamp::now()) {
                    addresses.insert(address);
                    under_way.push(self.write(address, report, seen, status));
                } else if report.released {
                    self.board.settled(address);
                }
            }
            tokio::select! {
                Some(done) = under_way.next(), if !under_way.is_empty() => {
                    addresses.remove(&done.address);
                    if let Some(pause) = self.finish(done, &mut retry) {
                        not_before = Instant::now() + pause;
                    }
                }
                () = self.board.news(), if !paused => {}
                () = sleep_until(not_before), if paused => {}
            }
        }
    }

    async fn write(&self, address: IpAddr, report: Report, seen: Seen, status: Value) -> Done {
        let object = json!({
            "apiVersion": Announcement::api_version(&()),
            "kind": Announcement::kind(&()),
            // With the version that the decision was made on, so that a change meanwhile is a conflict and not overwritten.
            "metadata": { "name": seen.name, "resourceVersion": seen.resource_version },
            "status": status,
        });
        let params = PatchParams::apply(SPEAKER_FIELD_MANAGER).force();
        let written = within_limit(self.api.patch_status(&seen.name, &params, &Patch::Apply(&object))).await;
        let outcome = match written {
            Ok(object) => Outcome::Written(Box::new(object)),
            Err(error) if error.is_conflict() => {
                Outcome::Conflict(within_limit(self.api.get(&seen.name)).await.map(Box::new))
            }
            Err(error) => Outcome::Failed(error),
        };
        Done { address, report, seen, outcome }
    }

    /// Takes in how a write ended. A pause when the API server is away.
    fn finish(&self, done: Done, retry: &mut Retry) -> Option<Duration> {
        let Done { address, report, seen, outcome } = done;
        let error = match outcome {
            Outcome::Written(object) => {
                retry.succeeded();
                self.metrics.status_write(StatusWrite::Written);
                tracing::debug!(%address, epoch = report.status.epoch, "status written");
                self.board.reread(address, Seen::of(&object));
                if report.released {
                    self.board.settled(address);
                } else {
                    self.events.publish(Happening::new(&self.node, address, &report, &seen));
                }
                return None;
            }
            Outcome::Conflict(now) => {
                self.metrics.status_write(StatusWrite::Conflict);
                match now {
                    Ok(object) => {
                        self.board.reread(address, Seen::of(&object));
                        return None;
                    }
                    Err(error) => error,
                }
            }
            Outcome::Failed(error) => {
                self.metrics.status_write(StatusWrite::Failed);
                error
            }
        };
        if error.is_not_found() {
            // Somebody deleted it; the watch says the rest.
            self.board.settled(address);
            None
        } else if error.is_passing() {
            self.board.again(address);
            Some(retry.failed(&error))
        } else {
            // Not tried again as it is: the next change of the object or of what we say brings it up.
            self.board.settled(address);
            tracing::warn!(%address, error = brief(&error), "the API server refuses the status of an Announcement");
            None
        }
    }
}

/// The status to be written, or nothing where it is so already or is not ours to write.
fn wanted(node: &str, report: &Report, seen: &Seen, now: Timestamp) -> Option<Value> {
    if report.status.state == State::Caring {
        return cared_for(node, report, seen, now);
    }
    if let Some(theirs) = &seen.layer2
        && theirs.owner != node
        && !prevails((report.status.epoch, node), (theirs.epoch, &theirs.owner))
    {
        return None;
    }
    if report.released
        && seen
            .layer2
            .as_ref()
            .is_none_or(|layer2| (layer2.owner.as_str(), layer2.epoch) != (node, report.status.epoch))
    {
        return None;
    }
    // Ours, but of a later start of this process or of its successor.
    if seen.layer2.as_ref().is_some_and(|layer2| layer2.epoch > report.status.epoch) {
        return None;
    }
    let layer2 = layer2(node, report, seen);
    let ready = ready(node, report, seen, layer2.as_ref(), now);
    if layer2 == seen.layer2 && Some(&ready) == seen.ready.as_ref() {
        return None;
    }
    let in_conflict = ready.reason == Reason::AddressConflict.as_str();
    let mut status = json!({ "conditions": [ready] });
    // The condition names it too, so that one does not change without the other.
    if let Some(foreign) = report.status.foreign.filter(|_| in_conflict) {
        status["foreign"] = json!(foreign);
    }
    if let Some(layer2) = layer2 {
        status["layer2"] = json!(layer2);
    }
    Some(status)
}

/// The same of an address that this node answers for in place of its owner, whose ownership it leaves as it is.
fn cared_for(node: &str, report: &Report, seen: &Seen, now: Timestamp) -> Option<Value> {
    let status = &report.status;
    let of_the_owner = |layer2: &&Layer2Status| {
        Some(layer2.owner.as_str()) == status.owner.as_ref().map(berth_machine::NodeName::as_str)
            && layer2.epoch == status.epoch
    };
    let before = seen.layer2.as_ref().filter(of_the_owner)?;
    if report.released || before.caretaker.as_ref().is_some_and(|caretaker| caretaker.node == node) {
        return None;
    }
    let caretaker = Some(Caretaker { node: node.to_owned(), since: MicroTime(report.since) });
    let layer2 = Layer2Status { caretaker, ..before.clone() };
    let message = format!(
        "{node} answers on {} in place of {}, with its Ethernet address {}, because its speaker is silent; \
         if it stays so, {node} takes the address over",
        status.interface, before.owner, before.mac
    );
    let condition = Condition { kind: READY, status: ConditionStatus::True, reason: Reason::CaredFor, message };
    Some(json!({ "conditions": [condition.stamped(seen.ready.as_ref(), None, now)], "layer2": layer2 }))
}

/// Whether the first ownership prevails: the higher epoch, and of two equal ones that of the lower name.
fn prevails(ours: (u64, &str), theirs: (u64, &str)) -> bool {
    ours.0 > theirs.0 || (ours.0 == theirs.0 && ours.1 < theirs.1)
}

/// `status.layer2` as it should be.
fn layer2(node: &str, report: &Report, seen: &Seen) -> Option<Layer2Status> {
    if report.released {
        // The number must not be lost; that nobody answers is in the condition.
        return seen.layer2.clone();
    }
    if report.status.state != State::Answering {
        // A conflict before first use: what another node wrote about itself stays; what we wrote is no longer so.
        return seen.layer2.clone().filter(|layer2| layer2.owner != node);
    }
    let mut layer2 = Layer2Status {
        owner: node.to_owned(),
        epoch: report.status.epoch,
        since: MicroTime(report.since),
        mac: report.status.mac,
        interface: report.status.interface.clone(),
        caretaker: None,
    };
    // The same ownership goes on, whatever happened to the process meanwhile.
    let goes_on = |before: &&Layer2Status| {
        let Layer2Status { since, caretaker, .. } = (*before).clone();
        Layer2Status { since, caretaker, ..layer2.clone() } == **before
    };
    if let Some(before) = seen.layer2.as_ref().filter(goes_on) {
        layer2.since = before.since.clone();
    }
    Some(layer2)
}

/// The Ready condition as it should be.
fn ready(node: &str, report: &Report, seen: &Seen, layer2: Option<&Layer2Status>, now: Timestamp) -> K8sCondition {
    let status = &report.status;
    let answers = status.state == State::Answering && !report.released;
    let reason = if report.released { Reason::Withdrawn } else { report.reason() };
    // How the ownership came about is history: a new start of the process, which knows nothing of it, leaves it as it is.
    if let Some(before) = seen.ready.as_ref().filter(|before| {
        let peaceful =
            |reason: &str| ![Reason::AddressConflict, Reason::NotServing].iter().any(|r| r.as_str() == reason);
        answers && reason == Reason::Answering && before.status == "True" && peaceful(&before.reason)
    }) && layer2 == seen.layer2.as_ref()
    {
        return before.clone();
    }
    let place = format!("{node} answers on {} with {}", status.interface, status.mac);
    let former = report.former.as_deref();
    let message = match (reason, status.foreign) {
        _ if report.released => format!("{node} answers no longer, because it has no part in the address any more"),
        (Reason::AddressConflict, foreign) => {
            let foreign = foreign.map_or_else(|| "a machine".to_owned(), |mac| format!("the machine with {mac}"));
            let rest = "which is none of our nodes, has the address too; take it from that machine or from the pool";
            if answers {
                format!("{place}, but {foreign}, {rest}")
            } else {
                format!("{node} does not answer on {}, because {foreign}, {rest}", status.interface)
            }
        }
        (Reason::TookOver, _) => {
            let former = former.unwrap_or("the owner");
            format!("{place}; it took over from {former}, which no longer answers")
        }
        (Reason::NotServing, _) => format!(
            "{place}, although nothing showed that the node forwards the traffic of the Service: no connection to it could be made from the \
             node, or its health check there says that it has no endpoint; look at kube-proxy on {node}"
        ),
        (Reason::OwnerChanged, _) => match former {
            Some(former) => format!("{place}; it was named as owner after {former}"),
            None => format!("{place}; it was named as owner"),
        },
        _ => place,
    };
    let condition = Condition {
        kind: READY,
        status: if answers { ConditionStatus::True } else { ConditionStatus::False },
        reason,
        message,
    };
    // No observedGeneration: it would mean a write by the speaker for each one by the controller.
    condition.stamped(seen.ready.as_ref(), None, now)
}

#[cfg(test)]
mod tests;
