//! Kubernetes events: one for each real change, never on a timer.

use berth_api::Reason;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType, Recorder};

/// Longest note that the API takes (events.k8s.io/v1).
const LONGEST_NOTE: usize = 1024;

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
    let mut text = note.message;
    if text.len() > LONGEST_NOTE {
        let end = (0..=LONGEST_NOTE).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
        text.truncate(end);
    }
    let event = Event {
        type_: note.kind,
        reason: note.reason.as_str().to_owned(),
        // Events of one object, reason and action are counted up with the first one's text, which would then lie
        // when the text has changed; so the text is part of the action.
        action: action(note.reason, &text),
        note: Some(text),
        secondary: None,
    };
    if let Err(error) = recorder.publish(&event, &note.regarding).await {
        tracing::debug!(%error, reason = %note.reason, "event not written");
    }
}

/// Longest action that the API takes.
const LONGEST_ACTION: usize = 128;

fn action(reason: Reason, text: &str) -> String {
    let mut action = format!("{reason}: {text}");
    let end = (0..=LONGEST_ACTION.min(action.len())).rev().find(|i| action.is_char_boundary(*i)).unwrap_or(0);
    action.truncate(end);
    action
}
