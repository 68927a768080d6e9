//! What is worth an event, before it is one.

use berth_api::Reason;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::EventType;

/// Something to say of an object.
#[derive(Clone, Debug)]
pub(crate) struct Note {
    pub(crate) regarding: ObjectReference,
    pub(crate) kind: EventType,
    pub(crate) reason: Reason,
    pub(crate) message: String,
}
