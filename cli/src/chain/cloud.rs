//! The links of a Service whose load balancer is in a cloud: what its provider's conditions say.

use berth_api::Reason;
use berth_api::condition::types;
use berth_api::names::{AWS_NLB_CLASS, AZURE_LB_CLASS};

use super::{Verdict, View};
use crate::report::{LinkName, State};

impl View<'_> {
    /// Whether its load balancer is in a cloud: by its class, or by what is said of it, for a class that is mapped.
    pub(super) fn is_in_a_cloud(&self) -> bool {
        let said = [types::PROVISIONING, types::ACTIVE, types::TARGETS_HEALTHY];
        [Some(AWS_NLB_CLASS), Some(AZURE_LB_CLASS)].contains(&self.class())
            || said.iter().any(|kind| self.condition(kind).is_some())
    }

    /// A link that nodes stand for elsewhere.
    pub(super) fn link_without_nodes(&self, link: LinkName) -> Verdict {
        let kind = match link {
            LinkName::Placed => types::ACTIVE,
            LinkName::Answering => types::TARGETS_HEALTHY,
            _ => "",
        };
        match self.condition(kind).map(Verdict::of_condition) {
            // The others serve, or are about to.
            Some(verdict) if is_partly(verdict.reason.as_deref()) => Verdict { state: State::Warning, ..verdict },
            Some(verdict) => verdict,
            None if self.is_in_a_cloud() => Verdict::skipped("the load balancer is in a cloud"),
            None => Verdict::skipped("no node answers for addresses of its provider"),
        }
    }
}

fn is_partly(reason: Option<&str>) -> bool {
    [Reason::TargetsUnhealthy, Reason::TargetsInitial].iter().any(|partly| reason == Some(partly.as_str()))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::tests::{report, with};
    use super::*;
    use crate::report::ServiceReport;

    fn condition(kind: &str, status: &str, reason: &str) -> Value {
        let message = format!("{kind} says {reason}");
        let since = "2026-01-01T10:00:00Z";
        json!({"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": since})
    }

    /// A Service of AWS with these conditions, whose class may be mapped.
    fn cloud(class: &str, conditions: &[Value], more: &[(&str, Value)]) -> ServiceReport {
        let status = json!({
            "loadBalancer": {"ingress": [{"hostname": "web.elb.eu-central-1.amazonaws.com"}]}, "conditions": conditions,
        });
        let mut changes = vec![
            ("/service/spec/loadBalancerClass", json!(class)),
            ("/service/metadata/annotations", json!({"berth.dev/load-balancer-group": "edge"})),
            ("/service/status", status),
            ("/announcements", json!([])),
        ];
        changes.extend_from_slice(more);
        report(&with(&changes))
    }

    fn works() -> [Value; 4] {
        [
            condition(types::ALLOCATED, "True", "Allocated"),
            condition(types::PROVISIONING, "False", "Active"),
            condition(types::ACTIVE, "True", "Active"),
            condition(types::TARGETS_HEALTHY, "True", "TargetsHealthy"),
        ]
    }

    #[test]
    fn a_service_in_a_cloud_has_a_chain_of_what_its_provider_says() {
        for class in [AWS_NLB_CLASS, AZURE_LB_CLASS, "service.k8s.aws/nlb"] {
            let report = cloud(class, &works(), &[]);
            assert!(report.ok, "{:?}", report.first_broken);
            let said = |name| report.links.iter().find(|link| link.name == name).unwrap();
            assert_eq!(said(LinkName::Claimed).state, State::Skipped);
            assert_eq!(said(LinkName::Placed).message, "berth.dev/Active says Active");
            assert_eq!(said(LinkName::Answering).message, "berth.dev/TargetsHealthy says TargetsHealthy");
            assert!(said(LinkName::Ingress).message.contains("web.elb.eu-central-1.amazonaws.com"));
        }
    }

    #[test]
    fn what_is_wrong_in_a_cloud_is_the_link_that_breaks() {
        for (at, status, reason, state) in [
            (0, "False", "NoSubnet", State::Broken),
            (2, "False", "Provisioning", State::Broken),
            (3, "False", "NoHealthyTargets", State::Broken),
            (3, "False", "NoTargets", State::Broken),
            (3, "False", "TargetsUnhealthy", State::Warning),
            (3, "False", "TargetsInitial", State::Warning),
            (3, "Unknown", "PermissionDenied", State::Broken),
        ] {
            let mut conditions = works();
            let kind = conditions[at]["type"].as_str().unwrap().to_owned();
            conditions[at] = condition(&kind, status, reason);
            let report = cloud(AWS_NLB_CLASS, &conditions, &[]);
            let link = report.links.iter().find(|link| link.reason.as_deref() == Some(reason)).unwrap();
            assert_eq!((link.state, report.ok), (state, state == State::Warning), "{reason}");
        }
    }

    #[test]
    fn a_class_whose_provider_is_switched_off_is_said_to_be_so() {
        let args = |args: &[&str]| ("/controller/spec/template/spec/containers/0/args", json!(args));
        for (words, reason) in [
            (&["--default-provider=pool"][..], Some("ProviderOff")),
            (&["--providers=pool", "--providers", "pool,mock"], Some("ProviderOff")),
            (&["--providers=pool", "--providers=pool,aws"], Some("NotSeen")),
        ] {
            let report = cloud(AWS_NLB_CLASS, &[], &[args(words)]);
            assert_eq!(report.first_broken.unwrap().reason.as_deref(), reason, "{words:?}");
        }
    }

    #[test]
    fn one_that_cannot_be_taken_away_says_why_it_is_still_there() {
        let denied = condition(types::ALLOCATED, "False", "PermissionDenied");
        let deleted = ("/service/metadata/deletionTimestamp", json!("2026-01-01T10:00:00Z"));
        let marked = ("/service/metadata/finalizers", json!(["berth.dev/load-balancer"]));
        let report = cloud(AWS_NLB_CLASS, &[denied], &[deleted.clone(), marked]);
        let broken = report.first_broken.unwrap();
        assert_eq!(broken.reason.as_deref(), Some("PermissionDenied"));
        assert!(broken.message.contains("something of it is left"), "{}", broken.message);
        let report = cloud(AWS_NLB_CLASS, &works(), &[deleted]);
        assert_eq!(report.first_broken.unwrap().reason.as_deref(), Some("BeingDeleted"));
    }
}
