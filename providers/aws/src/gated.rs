//! What target groups think of endpoints whose pods wait for it by a readiness gate: pure.

use berth_provider::{Endpoint, EndpointHealth, EndpointReport, ServiceTargets};

use crate::cloud::{TargetState, TargetType};
use crate::targets::{Health, Key, address};

/// A target group that was sent targets, and what is known of it.
#[derive(Clone, Debug)]
pub struct Looked {
    /// What its targets are.
    pub kind: TargetType,
    /// The Service's port that it is for.
    pub port: u16,
    /// What is known of them.
    pub health: Health,
}

/// What is thought of each endpoint that is asked about, by the groups that it is a target of.
pub fn report(of: &ServiceTargets, groups: &[Looked]) -> EndpointReport {
    if groups.is_empty() {
        return EndpointReport::Nowhere;
    }
    // While the kind of targets is being changed there are groups of both.
    let by_address: Vec<_> = groups.iter().filter(|group| group.kind == TargetType::Ip).collect();
    if by_address.is_empty() {
        return EndpointReport::Nodes;
    }
    let of_endpoint = |endpoint: &Endpoint| {
        let each = by_address.iter().filter_map(|group| thought(&group.health, &target(of, group.port, endpoint)?));
        // The worst counts.
        each.max().unwrap_or(EndpointHealth::NoTarget)
    };
    EndpointReport::Known(of.gated.keys().map(|endpoint| (endpoint.clone(), of_endpoint(endpoint))).collect())
}

/// Whether a pod waits to be found healthy by this group of targets by address.
pub fn awaits(of: &ServiceTargets, port: u16, health: &Health) -> bool {
    let waiting = of.gated.iter().filter(|(_, waits)| **waits);
    let targets = waiting.filter_map(|(endpoint, _)| target(of, port, endpoint));
    // What AWS refuses is offered again in its own time.
    let mut open = targets.filter(|key| !health.refused.contains(key));
    open.any(|key| thought(health, &key) != Some(EndpointHealth::Healthy))
}

fn target(of: &ServiceTargets, port: u16, endpoint: &Endpoint) -> Option<Key> {
    let port = of.intent.ports.iter().find(|entry| entry.port == port)?;
    address(&of.intent, port, endpoint).map(|(address, number)| (address.to_string(), number))
}

/// `None` for one that is not among the targets that were sent.
fn thought(health: &Health, key: &Key) -> Option<EndpointHealth> {
    let (id, port) = key;
    let at =
        |why: &str| if id.contains(':') { format!("[{id}]:{port} ({why})") } else { format!("{id}:{port} ({why})") };
    if health.refused.contains(key) {
        return Some(EndpointHealth::Refused(at("InvalidTarget")));
    }
    let Some((state, reason)) = health.registered.get(key)? else {
        return Some(EndpointHealth::Initial(String::new()));
    };
    let why = reason.as_deref().unwrap_or_else(|| state.as_str());
    Some(match state {
        // One that is not looked at is never found to be anything else, and is sent traffic.
        TargetState::Healthy | TargetState::Unavailable => EndpointHealth::Healthy,
        TargetState::Unhealthy | TargetState::UnhealthyDraining => EndpointHealth::Unhealthy(at(why)),
        // Each stage of it would be a write to the pod, and tells nobody anything.
        TargetState::Initial => EndpointHealth::Initial(String::new()),
        TargetState::Unused | TargetState::Draining => EndpointHealth::Initial(at(why)),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::sync::Arc;

    use berth_provider::Protocol;
    use serde_json::json;

    use super::*;
    use crate::tests::scene::service;

    /// A Service with the ports 80 and 443, and the endpoint of a pod that answers both.
    fn web() -> ServiceTargets {
        let ports = json!({"ports": [
            {"name": "http", "port": 80, "targetPort": 8080}, {"name": "https", "port": 443, "targetPort": 8443},
        ]});
        let intent = service("web", &[("nlb-target-type", "ip")], ports);
        let ports = [("http", 8080), ("https", 8443)].map(|(name, port)| ((name.to_owned(), Protocol::Tcp), port));
        let endpoint = Endpoint { address: "10.0.0.1".parse().unwrap(), ports: Arc::new(ports.into()) };
        ServiceTargets { intent, endpoints: [endpoint.clone()].into(), gated: [(endpoint, true)].into() }
    }

    fn looked(port: u16, state: Option<(TargetState, Option<&str>)>, refused: bool) -> Looked {
        let key = ("10.0.0.1".to_owned(), if port == 80 { 8080 } else { 8443 });
        let thought = state.map(|(state, why)| Some((state, why.map(str::to_owned))));
        let registered: BTreeMap<_, _> = thought.map(|thought| (key.clone(), thought)).into_iter().collect();
        let refused: BTreeSet<_> = refused.then_some(key).into_iter().collect();
        Looked { kind: TargetType::Ip, port, health: Health { registered, refused, ..Health::default() } }
    }

    fn said(groups: &[Looked]) -> EndpointHealth {
        let EndpointReport::Known(all) = report(&web(), groups) else { panic!("nothing is known") };
        all.into_values().next().unwrap()
    }

    #[test]
    fn an_endpoint_is_healthy_when_every_group_that_it_is_a_target_of_finds_it_so_and_else_the_worst_is_said() {
        use TargetState::{Healthy, Initial, Unavailable, Unhealthy, Unused};
        let initial = |text: &str| EndpointHealth::Initial(text.to_owned());
        let unhealthy = EndpointHealth::Unhealthy("10.0.0.1:8443 (Target.Timeout)".to_owned());
        for (http, https, expected) in [
            (Some((Healthy, None)), Some((Healthy, None)), EndpointHealth::Healthy),
            (Some((Healthy, None)), Some((Unavailable, None)), EndpointHealth::Healthy),
            (Some((Healthy, None)), Some((Initial, Some("Elb.InitialHealthChecking"))), initial("")),
            (
                Some((Unused, Some("Target.NotInUse"))),
                Some((Healthy, None)),
                initial("10.0.0.1:8080 (Target.NotInUse)"),
            ),
            (Some((Initial, None)), Some((Unhealthy, Some("Target.Timeout"))), unhealthy),
            // It has no such port.
            (Some((Healthy, None)), None, EndpointHealth::Healthy),
            (None, None, EndpointHealth::NoTarget),
        ] {
            assert_eq!(said(&[looked(80, http, false), looked(443, https, false)]), expected, "{http:?} {https:?}");
        }
        let refused = EndpointHealth::Refused("10.0.0.1:8443 (InvalidTarget)".to_owned());
        assert_eq!(said(&[looked(80, Some((Healthy, None)), false), looked(443, None, true)]), refused);
    }

    #[test]
    fn where_nothing_or_only_nodes_are_targets_that_is_said() {
        assert_eq!(report(&web(), &[]), EndpointReport::Nowhere);
        let nodes = Looked { kind: TargetType::Instance, ..looked(80, None, false) };
        assert_eq!(report(&web(), std::slice::from_ref(&nodes)), EndpointReport::Nodes);
        let changes = [nodes, looked(80, Some((TargetState::Healthy, None)), false)];
        assert_eq!(said(&changes), EndpointHealth::Healthy, "while the kind is being changed");
    }

    #[test]
    fn a_pod_is_waited_for_until_it_is_healthy_unless_aws_does_not_take_it_or_nobody_waits() {
        use TargetState::{Healthy, Initial, Unhealthy};
        for (state, refused, waits, expected) in [
            (Some((Initial, None)), false, true, true),
            (Some((Unhealthy, None)), false, true, true),
            (Some((Healthy, None)), false, true, false),
            (None, true, true, false),
            (Some((Initial, None)), false, false, false),
        ] {
            let mut of = web();
            of.gated.values_mut().for_each(|is| *is = waits);
            assert_eq!(awaits(&of, 80, &looked(80, state, refused).health), expected, "{state:?} {refused} {waits}");
        }
    }
}
