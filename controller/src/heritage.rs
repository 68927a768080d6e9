//! What a leader that stops in good order leaves to the next one: an annotation of the Lease, written as the Lease is given back and taken
//! off as it is taken. So it is there only while nobody leads, and whoever finds it knows that nothing was done since.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::api::coordination::v1::Lease;
use serde::{Deserialize, Serialize};

/// The annotation.
const HANDED_OVER: &str = "berth.dev/handed-over";
/// Longest that it may be. All annotations of an object together have 256 KiB (Kubernetes API rule).
const LONGEST: usize = 240 * 1024;

/// Cheap to clone; all clones are the same one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Heritage(Arc<Mutex<All>>);

#[derive(Debug, Default)]
struct All {
    found: BTreeMap<String, String>,
    left: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct HandedOver {
    /// The Lease's count of holders when it was given back. A holder that does not know this annotation leaves it, and counts.
    transitions: i32,
    /// By provider.
    providers: BTreeMap<String, String>,
}

fn transitions(lease: &Lease) -> i32 {
    lease.spec.as_ref().and_then(|spec| spec.lease_transitions).unwrap_or_default()
}

/// Takes it off a Lease that is about to be taken or renewed.
pub(crate) fn strip(lease: &mut Lease) {
    if let Some(annotations) = &mut lease.metadata.annotations {
        annotations.remove(HANDED_OVER);
    }
}

impl Heritage {
    /// This replica begins to lead; the Lease is as it was before it was taken, if there was one.
    pub(crate) fn find(&self, before: Option<&Lease>) {
        let handed_over = before.and_then(|lease| {
            let text = lease.metadata.annotations.as_ref()?.get(HANDED_OVER)?;
            let handed_over: HandedOver = serde_json::from_str(text).ok()?;
            (handed_over.transitions == transitions(lease)).then_some(handed_over.providers)
        });
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.found = handed_over.unwrap_or_default();
        all.left.clear();
    }

    /// What was left to a provider, once.
    pub(crate) fn take(&self, provider: &str) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).found.remove(provider)
    }

    /// Leaves something to the next leader.
    pub(crate) fn leave(&self, provider: &str, what: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).left.insert(provider.to_owned(), what);
    }

    /// Puts what is left on a Lease that is about to be given back.
    pub(crate) fn put_on(&self, lease: &mut Lease) {
        let providers = std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner).left);
        if providers.is_empty() {
            return;
        }
        let handed_over = HandedOver { transitions: transitions(lease), providers };
        match serde_json::to_string(&handed_over) {
            Ok(text) if text.len() <= LONGEST => {
                lease.metadata.annotations.get_or_insert_default().insert(HANDED_OVER.to_owned(), text);
            }
            Ok(text) => {
                tracing::info!(bytes = text.len(), "too much to hand over; the next leader looks at everything")
            }
            Err(error) => tracing::error!(%error, "what is to be handed over cannot be written down"),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn lease(transitions: i32) -> Lease {
        let lease = json!({"metadata": {"annotations": {"a/b": "c"}}, "spec": {"leaseTransitions": transitions}});
        serde_json::from_value(lease).unwrap()
    }

    #[test]
    fn what_is_left_is_found_once_by_the_next_leader_and_by_nobody_after_it() {
        let (last, next) = (Heritage::default(), Heritage::default());
        last.leave("aws", "all is well".to_owned());
        let mut given_back = lease(3);
        last.put_on(&mut given_back);
        next.find(Some(&given_back));
        assert_eq!(
            (next.take("azure"), next.take("aws").as_deref(), next.take("aws")),
            (None, Some("all is well"), None)
        );
        strip(&mut given_back);
        assert_eq!(given_back, lease(3), "and other annotations stay");
    }

    #[test]
    fn whoever_leads_anew_does_not_find_what_it_found_before() {
        let heritage = Heritage::default();
        heritage.leave("aws", "x".to_owned());
        let mut given_back = lease(3);
        heritage.put_on(&mut given_back);
        heritage.find(Some(&given_back));
        heritage.find(Some(&lease(4)));
        assert_eq!(heritage.take("aws"), None);
    }

    #[test]
    fn what_was_left_before_a_holder_that_knew_nothing_of_it_counts_for_nothing() {
        let heritage = Heritage::default();
        heritage.leave("aws", "x".to_owned());
        let mut seen = lease(3);
        heritage.put_on(&mut seen);
        seen.spec.get_or_insert_default().lease_transitions = Some(4);
        heritage.find(Some(&seen));
        assert_eq!(heritage.take("aws"), None);
        seen.metadata.annotations.get_or_insert_default().insert(HANDED_OVER.to_owned(), "{".to_owned());
        heritage.find(Some(&seen));
        assert_eq!(heritage.take("aws"), None, "nor what cannot be read");
    }

    #[test]
    fn too_much_is_left_out() {
        let heritage = Heritage::default();
        heritage.leave("aws", "x".repeat(LONGEST));
        let mut given_back = lease(3);
        heritage.put_on(&mut given_back);
        assert_eq!(given_back, lease(3));
    }
}
