//! Events on Announcements, for `kubectl describe`. They come after the status and nothing waits for them.

use std::net::IpAddr;

use berth_api::{Announcement, Reason};
use berth_machine::State;
use berth_telemetry::event;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Resource};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::board::{Report, Seen};
use crate::metrics::{Metrics, Queue};
use crate::retry::{Retry, within_limit};

/// `reportingController` of the speaker's events.
const CONTROLLER: &str = "berth-speaker";

/// Events that may wait: those of a node that takes over everything of another. Conditions say the same and are complete, so
/// what does not fit is dropped and counted.
const QUEUE_LENGTH: usize = 1024;

/// Events after which the recorder is a new one. It remembers each for six minutes, so that the same told again becomes one with a count; each is
/// more than a kilobyte, and a node that takes over thousands has thousands.
const REMEMBERED: usize = 128;

/// Something that an event is made of.
#[derive(Debug)]
pub struct Happening {
    object: ObjectReference,
    reason: Reason,
    text: String,
}

impl Happening {
    /// What `report` says, if the Announcement did not say so before.
    pub fn new(node: &str, address: IpAddr, report: &Report, before: &Seen) -> Option<Self> {
        let status = &report.status;
        // Nothing moved, and a rollout would be one for each address.
        if status.state == State::Caring {
            return None;
        }
        let known = before.layer2.as_ref().is_some_and(|layer2| {
            layer2.owner == node
                && layer2.epoch == status.epoch
                && layer2.interface == status.interface
                && layer2.mac == status.mac
        });
        let conflict = |reason: &str| reason == Reason::AddressConflict.as_str();
        let reason = report.reason();
        let in_conflict = reason == Reason::AddressConflict;
        let was_in_conflict = before.ready.as_ref().is_some_and(|ready| conflict(&ready.reason));
        if in_conflict == was_in_conflict && (known || in_conflict) {
            return None;
        }
        let place = format!("on {} with {}", status.interface, status.mac);
        let foreign = status.foreign.map_or_else(|| "unknown".to_owned(), |mac| mac.to_string());
        let text = match (reason, report.former.as_deref()) {
            (Reason::AddressConflict, _) => {
                format!(
                    "{address} is also in use by {foreign}, which is none of our nodes; seen by {node} on {}",
                    status.interface
                )
            }
            (Reason::TookOver, Some(former)) => {
                format!("{node} took over {address} from {former}, which no longer answers, and answers {place}")
            }
            (Reason::TookOver, None) => format!("{node} took over {address} and answers {place}"),
            (_, Some(former)) => format!("{node} answers for {address} {place}, after {former}"),
            (_, None) => format!("{node} answers for {address} {place}"),
        };
        let object = ObjectReference {
            api_version: Some(Announcement::api_version(&()).into_owned()),
            kind: Some(Announcement::kind(&()).into_owned()),
            name: Some(before.name.clone()),
            uid: before.uid.clone(),
            ..ObjectReference::default()
        };
        Some(Self { object, reason, text })
    }

    /// Its reason and its note.
    #[cfg(test)]
    pub fn said(&self) -> (&'static str, &str) {
        (self.reason.as_str(), &self.text)
    }

    fn event(&self) -> Event {
        let unusual = matches!(self.reason, Reason::TookOver | Reason::AddressConflict);
        let kind = if unusual { EventType::Warning } else { EventType::Normal };
        event(kind, self.reason.as_str(), &self.text)
    }
}

/// Where happenings are put to become events.
#[derive(Clone, Debug)]
pub struct Events {
    queue: mpsc::Sender<Happening>,
    metrics: Metrics,
}

impl Events {
    /// Queues an event, if there is one to make.
    pub fn publish(&self, happening: Option<Happening>) {
        if let Some(happening) = happening
            && self.queue.try_send(happening).is_err()
        {
            self.metrics.dropped(Queue::Event);
        }
    }
}

/// A queue, and the task that empties it until `shutdown`.
pub fn queue(
    client: Client,
    node: &str,
    metrics: Metrics,
    shutdown: CancellationToken,
) -> (Events, impl Future<Output = ()> + use<>) {
    let (queue, mut happenings) = mpsc::channel::<Happening>(QUEUE_LENGTH);
    let reporter = Reporter { controller: CONTROLLER.to_owned(), instance: Some(node.to_owned()) };
    let new_recorder = move || Recorder::new(client.clone(), reporter.clone());
    let counted = metrics.clone();
    let task = async move {
        let publish = async {
            let mut retry = Retry::new("publish events");
            let (mut recorder, mut published) = (new_recorder(), 0);
            while let Some(happening) = happenings.recv().await {
                match within_limit(recorder.publish(&happening.event(), &happening.object)).await {
                    Ok(()) => {
                        retry.succeeded();
                        published += 1;
                        if published == REMEMBERED {
                            (recorder, published) = (new_recorder(), 0);
                        }
                    }
                    // An event that is late misleads; the condition says what is so now.
                    Err(error) => {
                        counted.dropped(Queue::Event);
                        let _pause = retry.failed(&error);
                    }
                }
            }
        };
        shutdown.run_until_cancelled(publish).await;
    };
    (Events { queue, metrics }, task)
}
