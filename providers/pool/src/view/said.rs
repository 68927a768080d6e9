//! What a Service's status says already, as far as it decides whether something else is to be said.

use std::hash::{DefaultHasher, Hash, Hasher};

use berth_api::condition::types;
use berth_api::{Condition, ConditionStatus};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition as K8sCondition;

/// A condition as it was read: its texts are kept as what they are compared by, which is a tenth of their size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SaidCondition {
    /// `None` for a type that this version does not write.
    kind: Option<&'static str>,
    /// `None` for what is none of the API's.
    status: Option<ConditionStatus>,
    /// Hash of reason and message. That two texts have the same is less likely than that memory errs.
    words: u64,
    observed_generation: Option<i64>,
    since: Timestamp,
}

impl SaidCondition {
    /// Parses it.
    pub fn of(condition: &K8sCondition) -> Self {
        let all = [ConditionStatus::True, ConditionStatus::False, ConditionStatus::Unknown];
        Self {
            kind: types::OF_SERVICES.into_iter().find(|kind| *kind == condition.type_),
            status: all.into_iter().find(|status| status.as_str() == condition.status),
            words: words(&condition.reason, &condition.message),
            observed_generation: condition.observed_generation,
            since: condition.last_transition_time.0,
        }
    }

    /// Whether it is of a type.
    pub fn is_of(&self, kind: &str) -> bool {
        self.kind == Some(kind)
    }

    /// Whether it is True.
    pub fn holds(&self) -> bool {
        self.status == Some(ConditionStatus::True)
    }

    /// Whether it says of the same type the same: status, reason and message.
    pub fn says(&self, condition: &Condition) -> bool {
        let its_words = words(condition.reason.as_str(), &condition.message);
        (self.kind, self.status, self.words) == (Some(condition.kind), Some(condition.status), its_words)
    }

    /// Since when it has had the status that a new condition has, if it is that.
    pub fn since(&self, condition: &Condition) -> Option<Timestamp> {
        (self.status == Some(condition.status)).then_some(self.since)
    }
}

/// Compared within one process only, so the hash need not be the same in the next version.
fn words(reason: &str, message: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (reason, message).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use berth_api::Reason;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    fn condition() -> Condition {
        let message = "192.0.2.1 from IPAddressPool `a`".to_owned();
        Condition { kind: types::ALLOCATED, status: ConditionStatus::True, reason: Reason::Allocated, message }
    }

    #[test]
    fn whatever_differs_in_a_condition_differs_in_what_is_kept_of_it() {
        type Edit = fn(&mut K8sCondition);
        let written = condition().since(Timestamp::UNIX_EPOCH, Some(1));
        let kept = SaidCondition::of(&written);
        assert_eq!(kept, SaidCondition::of(&written.clone()));
        let changes: [(&str, Edit); 8] = [
            ("its type", |c| types::ANNOUNCED.clone_into(&mut c.type_)),
            ("its type, to one that is not written", |c| "berth.dev/Old".clone_into(&mut c.type_)),
            ("its status", |c| "False".clone_into(&mut c.status)),
            ("its status, to none of the API's", |c| "true".clone_into(&mut c.status)),
            ("its reason", |c| Reason::Released.as_str().clone_into(&mut c.reason)),
            ("its message", |c| c.message.push('.')),
            ("its generation", |c| c.observed_generation = None),
            ("its time", |c| c.last_transition_time = Time(Timestamp::MAX)),
        ];
        for (what, change) in changes {
            let mut other = written.clone();
            change(&mut other);
            assert_ne!(SaidCondition::of(&other), kept, "{what}");
        }
    }

    #[test]
    fn a_condition_is_said_when_type_status_reason_and_message_are_whatever_the_time_and_generation() {
        let said = SaidCondition::of(&condition().since(Timestamp::MAX, Some(7)));
        assert!(said.says(&condition()) && said.holds() && said.is_of(types::ALLOCATED));
        for (other, status_is_the_same) in [
            (Condition { kind: types::ANNOUNCED, ..condition() }, true),
            (Condition { status: ConditionStatus::False, ..condition() }, false),
            (Condition { reason: Reason::Released, ..condition() }, true),
            (Condition { message: String::new(), ..condition() }, true),
        ] {
            assert!(!said.says(&other), "{other:?}");
            assert_eq!(said.since(&other), status_is_the_same.then_some(Timestamp::MAX), "{other:?}");
        }
    }
}
