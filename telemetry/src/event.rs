//! Kubernetes events in a form that stays true when they repeat.

use kube::runtime::events::{Event, EventType};

/// Longest note that the API takes, in bytes (events.k8s.io/v1).
const LONGEST_NOTE: usize = 1024;
/// Longest action that the API takes, in bytes.
const LONGEST_ACTION: usize = 128;

/// An event with this reason and note.
///
/// Events of one object with the same reason and action are counted up under the first one's note, which lies when the
/// note has changed since. So the note is part of the action, as far as it fits.
pub fn event(kind: EventType, reason: &str, note: &str) -> Event {
    Event {
        type_: kind,
        reason: reason.to_owned(),
        action: cut(&format!("{reason}: {note}"), LONGEST_ACTION).to_owned(),
        note: Some(cut(note, LONGEST_NOTE).to_owned()),
        secondary: None,
    }
}

fn cut(text: &str, limit: usize) -> &str {
    &text[..text.floor_char_boundary(limit)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_with_other_notes_are_not_counted_up_as_one() {
        let action = |note: &str| event(EventType::Normal, "Allocated", note).action;
        assert_eq!(action("192.0.2.1"), action("192.0.2.1"));
        assert_ne!(action("192.0.2.1"), action("192.0.2.2"));
    }

    #[test]
    fn what_is_too_long_for_the_api_is_cut_between_characters() {
        let event = event(EventType::Warning, "InvalidRequest", &"ü".repeat(1000));
        assert_eq!(event.note.map(|n| n.len()), Some(1024));
        assert!(event.action.len() <= 128 && event.action.ends_with('ü'), "{}", event.action);
    }
}
