//! Conditions, as every kind of ours and the Services we serve carry them.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition as K8sCondition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Reason;

/// Condition types that Berth writes.
pub mod types {
    /// What the types of all conditions begin with that Berth writes on a Service.
    pub const SERVICE_PREFIX: &str = "berth.dev/";
    /// On a Service: it holds the address that was asked for.
    pub const ALLOCATED: &str = "berth.dev/Allocated";
    /// On a Service: its address has nodes that can announce it.
    pub const ANNOUNCED: &str = "berth.dev/Announced";
    /// On a Service: its cloud load balancer is being brought up, or changed.
    pub const PROVISIONING: &str = "berth.dev/Provisioning";
    /// On a Service: its cloud load balancer takes traffic.
    pub const ACTIVE: &str = "berth.dev/Active";
    /// On a Service: the targets of its cloud load balancer are registered and healthy.
    pub const TARGETS_HEALTHY: &str = "berth.dev/TargetsHealthy";
    /// All that Berth writes on a Service.
    pub const OF_SERVICES: [&str; 5] = [ALLOCATED, ANNOUNCED, PROVISIONING, ACTIVE, TARGETS_HEALTHY];
    /// On a pool or an advertisement: its specification is valid and in use.
    pub const READY: &str = "Ready";
    /// On a SpeakerNode: its partners are heard as regularly as they should.
    pub const PARTNERS_HEARD: &str = "PartnersHeard";
    /// On a SpeakerNode: no setting of its kernel was found that breaks what is announced.
    pub const KERNEL_READY: &str = "KernelReady";
}

/// Whether a condition holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ConditionStatus {
    /// It holds.
    True,
    /// It does not hold.
    False,
    /// It cannot be said.
    Unknown,
}

impl ConditionStatus {
    /// As the API spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// One condition, not yet stamped with a time: what a pure room says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// One of [`types`].
    pub kind: &'static str,
    /// Whether it holds.
    pub status: ConditionStatus,
    /// Why, as a stable code.
    pub reason: Reason,
    /// Why, for a person: what, where, and what to do.
    pub message: String,
}

impl Condition {
    /// The condition with the time of its last change: kept when the status did not change.
    ///
    /// Returns the old condition untouched when nothing but the time would differ, so that an equal
    /// status compares as equal and is not written.
    pub fn stamped(&self, old: Option<&K8sCondition>, generation: Option<i64>, now: Timestamp) -> K8sCondition {
        let kept = old.filter(|o| o.status == self.status.as_str());
        self.since(kept.map_or(now, |o| o.last_transition_time.0), generation)
    }

    /// The condition with the time since when it has had its status.
    pub fn since(&self, since: Timestamp, generation: Option<i64>) -> K8sCondition {
        K8sCondition {
            type_: self.kind.to_owned(),
            status: self.status.as_str().to_owned(),
            reason: self.reason.as_str().to_owned(),
            message: self.message.clone(),
            observed_generation: generation,
            last_transition_time: Time(since),
        }
    }
}
