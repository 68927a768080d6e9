//! Kubernetes events: one for each real change, never on a timer. Nothing waits for them.

use berth_telemetry::event;
use kube::Client;
use kube::runtime::events::{Recorder, Reporter};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::metrics::Metrics;
use crate::note::Note;
use berth_pool::driver::WRITE_TIMEOUT;

/// Events that may wait, as many as a burst of a thousand Services makes. Conditions say the same and are complete, so
/// what does not fit is dropped and counted.
const QUEUE_LENGTH: usize = 2048;

/// Events after which the recorder is renewed. It keeps what it wrote for minutes, to count what repeats, and a burst of ten thousand
/// Services would be more of the memory than the Services are. What repeats across a renewal is a second event.
const RECORDED: usize = 512;

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
pub(crate) fn queue(
    client: Client,
    reporter: Reporter,
    metrics: Metrics,
) -> (Events, impl Future<Output = ()> + Send + 'static) {
    let (queue, mut notes) = mpsc::channel::<Note>(QUEUE_LENGTH);
    let counted = metrics.clone();
    let task = async move {
        let renewed = || Recorder::new(client.clone(), reporter.clone());
        let (mut recorder, mut written_by_it) = (renewed(), 0);
        while let Some(note) = notes.recv().await {
            if written_by_it == RECORDED {
                (recorder, written_by_it) = (renewed(), 0);
            }
            written_by_it += 1;
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
