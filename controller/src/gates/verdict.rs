//! What a gate's condition is to say: pure.

use berth_api::service::ServiceKey;
use berth_api::{ConditionStatus, Reason};
use berth_provider::{EndpointHealth, Failure};

use super::pod::Said;

/// How a pod stands with a Service that a gate of it names.
#[derive(Clone, Copy, Debug)]
pub(super) enum Standing<'a> {
    /// Something else than our gates stands against the pod's taking traffic; that says it itself.
    NotDone,
    /// No Service of that name has a load balancer of ours.
    Unserved,
    /// Nothing is known yet.
    Unknown,
    /// What is thought of its endpoints could not be learned, or they could not be sent.
    Failed(&'a Failure),
    /// There is nothing yet that could send it traffic.
    Nowhere,
    /// Traffic is sent to nodes.
    Nodes,
    /// It is no endpoint of the Service.
    NoEndpoint,
    /// This is thought of it.
    Thought(&'a EndpointHealth),
}

/// What is to be said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) status: ConditionStatus,
    pub(super) reason: Reason,
    pub(super) message: String,
}

/// What a gate is to say; `None` when it is to stay as it is.
///
/// A gate that is open closes only for a target that does not serve. Everything else says that we know less than before, which is no
/// reason to take a pod that serves away from all who use it.
pub(super) fn word(service: &ServiceKey, before: Option<&Said>, standing: Standing<'_>) -> Option<Word> {
    let is_open = before.is_some_and(Said::is_true);
    let closed = |reason, message: String| Some(Word { status: ConditionStatus::False, reason, message });
    match standing {
        Standing::Thought(EndpointHealth::Healthy) => {
            let message = format!("the load balancer of Service {service} finds the pod healthy");
            Some(Word { status: ConditionStatus::True, reason: Reason::TargetsHealthy, message })
        }
        Standing::Thought(EndpointHealth::Unhealthy(what)) => closed(
            Reason::TargetsUnhealthy,
            format!("the load balancer of Service {service} does not find the pod healthy: {what}"),
        ),
        _ if is_open => None,
        Standing::NotDone | Standing::Unknown => None,
        Standing::Unserved => closed(
            Reason::GateUnserved,
            format!("no Service {service} has a load balancer of Berth in AWS, so the pod waits for nothing"),
        ),
        // One that has said something goes on saying it while the other side is away for a moment.
        Standing::Failed(failure) if before.is_some() && !failure.class.is_for_a_person() => None,
        Standing::Failed(failure) => closed(failure.reason, failure.message.clone()),
        Standing::Nowhere => closed(
            Reason::Provisioning,
            format!("Service {service} has nothing in AWS yet that sends traffic to pods; its conditions say why"),
        ),
        Standing::Nodes => closed(
            Reason::GateNeedsAddresses,
            format!("the load balancer of Service {service} sends traffic to nodes, not to pods"),
        ),
        Standing::NoEndpoint => closed(
            Reason::NotATarget,
            format!("the pod is no endpoint of Service {service}: its selector is for others"),
        ),
        Standing::Thought(EndpointHealth::NoTarget) => closed(
            Reason::NotATarget,
            format!("the pod has none of the ports of Service {service}, or no address of its first family"),
        ),
        Standing::Thought(EndpointHealth::Refused(what)) => closed(
            Reason::TargetsRefused,
            format!("AWS does not take the pod as a target of Service {service}: {what}"),
        ),
        Standing::Thought(EndpointHealth::Initial(what)) => {
            let more = if what.is_empty() { String::new() } else { format!(": {what}") };
            let message = format!("the load balancer of Service {service} is checking the pod{more}");
            closed(Reason::TargetsInitial, message)
        }
    }
}

#[cfg(test)]
mod tests {
    use berth_provider::Class;

    use super::*;

    fn said(status: &str) -> Said {
        Said { status: status.to_owned(), reason: "Any".to_owned(), message: String::new(), since: None }
    }

    /// The status and reason, or that it stays.
    fn says(before: Option<&str>, standing: Standing<'_>) -> String {
        let service = ServiceKey { namespace: "shop".to_owned(), name: "web".to_owned() };
        let before = before.map(said);
        word(&service, before.as_ref(), standing)
            .map_or_else(|| "stays".to_owned(), |word| format!("{} {}", word.status.as_str(), word.reason))
    }

    #[test]
    fn a_gate_opens_for_a_healthy_target_and_says_why_it_is_closed_otherwise() {
        use EndpointHealth::{Healthy, Initial, NoTarget, Refused, Unhealthy};
        let (why, denied) = (|| "why".to_owned(), Failure::new(Class::Permission, "no"));
        let throttled = Failure::new(Class::Throttled, "slower");
        let thoughts = [Healthy, Initial(why()), NoTarget, Refused(why()), Unhealthy(why())];
        for (standing, of_new, of_closed, of_open) in [
            (Standing::Thought(&thoughts[0]), "True TargetsHealthy", "True TargetsHealthy", "True TargetsHealthy"),
            (Standing::Thought(&thoughts[1]), "False TargetsInitial", "False TargetsInitial", "stays"),
            (Standing::Thought(&thoughts[2]), "False NotATarget", "False NotATarget", "stays"),
            (Standing::Thought(&thoughts[3]), "False TargetsRefused", "False TargetsRefused", "stays"),
            (
                Standing::Thought(&thoughts[4]),
                "False TargetsUnhealthy",
                "False TargetsUnhealthy",
                "False TargetsUnhealthy",
            ),
            (Standing::NotDone, "stays", "stays", "stays"),
            (Standing::Unknown, "stays", "stays", "stays"),
            (Standing::Unserved, "False GateUnserved", "False GateUnserved", "stays"),
            (Standing::Nowhere, "False Provisioning", "False Provisioning", "stays"),
            (Standing::Nodes, "False GateNeedsAddresses", "False GateNeedsAddresses", "stays"),
            (Standing::NoEndpoint, "False NotATarget", "False NotATarget", "stays"),
            (Standing::Failed(&denied), "False PermissionDenied", "False PermissionDenied", "stays"),
            (Standing::Failed(&throttled), "False ProviderThrottled", "stays", "stays"),
        ] {
            assert_eq!(says(None, standing), of_new, "new, {standing:?}");
            for closed in ["False", "Unknown"] {
                assert_eq!(says(Some(closed), standing), of_closed, "{closed}, {standing:?}");
            }
            assert_eq!(says(Some("True"), standing), of_open, "open, {standing:?}");
        }
    }
}
