//! Kubernetes events: one for each real change, never on a timer.

use berth_api::Reason;
use berth_telemetry::event;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{EventType, Recorder};

/// Something to say of an object.
#[derive(Clone, Debug)]
pub(crate) struct Note {
    pub(crate) regarding: ObjectReference,
    pub(crate) kind: EventType,
    pub(crate) reason: Reason,
    pub(crate) message: String,
}

/// Says it. What cannot be said is logged: an event is news, not state.
pub(crate) async fn publish(recorder: &Recorder, note: Note) {
    let event = event(note.kind, note.reason.as_str(), &note.message);
    if let Err(error) = recorder.publish(&event, &note.regarding).await {
        tracing::debug!(%error, reason = %note.reason, "event not written");
    }
}
