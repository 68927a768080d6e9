//! Kubernetes events: one for each real change, never on a timer. Nothing waits for them.

use berth_telemetry::event;
use kube::runtime::events::Recorder;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::backoff::WRITE_TIMEOUT;
use crate::metrics::Metrics;
use crate::note::Note;

/// Events that may wait, as many as a burst of a thousand Services makes. Conditions say the same and are complete, so
/// what does not fit is dropped and counted.
const QUEUE_LENGTH: usize = 2048;

/// Where notes are put to become events.
#[derive(Clone, Debug)]
pub(crate) struct Events {
    queue: mpsc::Sender<Note>,
    metrics: Metrics,
}

impl Events {
    /// Queues an event.
    pub(crate) fn publish(&self, note: Note) {
        if self.queue.try_send(note).is_err() {
            self.metrics.events_dropped.inc();
        }
    }
}

/// A queue, and the task that empties it until every [`Events`] is gone.
pub(crate) fn queue(recorder: Recorder, metrics: Metrics) -> (Events, impl Future<Output = ()> + Send + 'static) {
    let (queue, mut notes) = mpsc::channel::<Note>(QUEUE_LENGTH);
    let counted = metrics.clone();
    let task = async move {
        while let Some(note) = notes.recv().await {
            let event = event(note.kind, note.reason.as_str(), &note.message);
            let written = timeout(WRITE_TIMEOUT, recorder.publish(&event, &note.regarding)).await;
            let error = match written {
                Ok(Ok(())) => continue,
                Ok(Err(error)) => error.to_string(),
                Err(_) => "no answer from the API server".to_owned(),
            };
            // One that is late misleads; the condition says what is so now.
            counted.events_dropped.inc();
            tracing::debug!(error, reason = %note.reason, "event not written");
        }
    };
    (Events { queue, metrics }, task)
}
