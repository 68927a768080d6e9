use std::sync::Arc;

use berth_provider::{Endpoint, Protocol};
use serde_json::json;

use super::*;
use crate::tests::scene::{annotated, service};

fn node(name: &str, provider_id: &str, labels: &[(&str, &str)]) -> TargetNode {
    let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    TargetNode { name: name.to_owned(), provider_id: provider_id.to_owned(), labels, addresses: Vec::new() }
}

fn endpoint(address: &str, port: &str, number: u16) -> Endpoint {
    let ports = BTreeMap::from([((port.to_owned(), Protocol::Tcp), number)]);
    Endpoint { address: address.parse().unwrap(), ports: Arc::new(ports) }
}

fn web(annotations: &[(&str, &str)], endpoints: Vec<Endpoint>) -> ServiceTargets {
    let mut intent = service("web", &[], json!({}));
    intent.annotations = annotated(annotations);
    ServiceTargets { intent, endpoints: endpoints.into(), gated: BTreeMap::new() }
}

fn ids(wanted: &Wanted) -> Vec<String> {
    wanted.targets.values().map(ToString::to_string).collect()
}

#[test]
fn instances_are_the_ends_of_provider_ids_and_other_nodes_are_named() {
    let nodes = [
        node("a", "aws:///eu-central-1a/i-0a", &[]),
        node("b", "aws://eu-central-1b/i-0b", &[]),
        node("metal", "metal://i-0c", &[]),
        node("none", "", &[]),
        node("fargate", "aws:///eu-central-1a/fargate-ip-10-0-0-1", &[]),
    ];
    let wanted = wanted(TargetType::Instance, 80, &web(&[], vec![]), &nodes, &[]).unwrap();
    assert_eq!(ids(&wanted), ["i-0a:30080", "i-0b:30080"]);
    assert_eq!(wanted.left_out, ["metal", "none"].map(str::to_owned).into());
}

#[test]
fn instances_are_chosen_by_the_labels_that_are_asked_for() {
    let nodes =
        [node("a", "aws:///a/i-0a", &[("pool", "edge"), ("x", "1")]), node("b", "aws:///a/i-0b", &[("pool", "batch")])];
    for (labels, expected) in [("", Some(2)), ("pool=edge", Some(1)), ("pool=edge,x=2", Some(0)), ("pool", None)] {
        let wanted = wanted(TargetType::Instance, 80, &web(&[(NODE_LABELS, labels)], vec![]), &nodes, &[]);
        assert_eq!(wanted.map(|wanted| wanted.targets.len()), expected, "{labels}");
    }
}

#[test]
fn addresses_are_those_of_the_first_family_each_on_its_own_port_and_outside_where_the_vpc_has_them_not() {
    let ranges: Vec<IpNet> = vec!["10.0.0.0/16".parse().unwrap(), "2001:db8::/56".parse().unwrap()];
    let endpoints = vec![
        endpoint("10.0.0.1", "http", 8080),
        endpoint("10.0.0.2", "http", 9090),
        endpoint("10.0.0.3", "other", 1),
        endpoint("192.168.0.1", "http", 8080),
        endpoint("2001:db8::1", "http", 8080),
    ];
    let wanted = wanted(TargetType::Ip, 80, &web(&[], endpoints), &[], &ranges).unwrap();
    let told: Vec<_> = wanted.targets.values().map(|target| (target.to_string(), target.is_outside)).collect();
    let expected = [("10.0.0.1:8080", false), ("10.0.0.2:9090", false), ("192.168.0.1:8080", true)];
    assert_eq!(told, expected.map(|(target, outside)| (target.to_owned(), outside)));
}

#[test]
fn a_port_that_the_service_has_no_more_is_left_alone() {
    assert_eq!(wanted(TargetType::Instance, 81, &web(&[], vec![]), &[], &[]), None);
    let mut without = web(&[], vec![]);
    without.intent.ports[0].node_port = None;
    assert_eq!(wanted(TargetType::Instance, 80, &without, &[], &[]), None);
}

#[test]
fn what_is_registered_and_not_wanted_goes_and_addresses_are_compared_as_addresses() {
    let endpoints = vec![endpoint("2001:db8::2", "http", 80), endpoint("2001:db8::3", "http", 80)];
    let mut of = web(&[], endpoints);
    of.intent.families.first = IpFamily::V6;
    let ranges: Vec<IpNet> = vec!["2001:db8::/56".parse().unwrap()];
    let wanted = wanted(TargetType::Ip, 80, &of, &[], &ranges).unwrap();
    let seen = |id: &str| key(&TargetDescription { id: id.to_owned(), port: 80, is_outside: false });
    let registered = ["2001:0db8:0:0::2", "2001:db8::1", "fd00::1"].map(|id| (seen(id), None)).into();
    let told = |targets: &[TargetDescription]| -> Vec<_> {
        targets.iter().map(|target| format!("{target} {}", target.is_outside)).collect()
    };
    assert_eq!(told(&gone(&wanted, &registered, &ranges)), ["[2001:db8::1]:80 false", "[fd00::1]:80 true"]);
    assert_eq!(told(&new(&wanted, &registered)), ["[2001:db8::3]:80 false"]);
}

fn health(states: &[Option<TargetState>]) -> Health {
    let each = states.iter().enumerate().map(|(number, state)| {
        let why = (*state == Some(TargetState::Unhealthy)).then(|| "Target.FailedHealthChecks".to_owned());
        ((format!("i-{number}"), 30_080), state.map(|state| (state, why)))
    });
    Health { registered: each.collect(), ..Health::default() }
}

#[test]
fn what_is_said_of_targets_is_what_they_are() {
    use TargetState::{Healthy, Initial, Unhealthy, Unused};
    let (cluster, local) = (TrafficPolicy::Cluster, TrafficPolicy::Local);
    for (states, policy, expected) in [
        (&[][..], cluster, "False NoTargets no target is registered"),
        (&[None], cluster, "Unknown TargetsInitial 0 of 1 targets are healthy; AWS is still checking 1"),
        (&[Some(Healthy), None], cluster, "False TargetsInitial 1 of 2"),
        (
            &[Some(Initial), Some(Unused)],
            cluster,
            "False TargetsInitial 0 of 2 targets are healthy; AWS is still checking 2",
        ),
        (&[Some(Healthy), Some(Healthy)], cluster, "True TargetsHealthy 2 of 2 targets are healthy"),
        (
            &[Some(Healthy), Some(Unhealthy)],
            cluster,
            "False TargetsUnhealthy 1 of 2 targets are healthy; not healthy: i-1:30080 (Target.FailedHealthChecks)",
        ),
        (&[Some(Healthy), Some(Unhealthy)], local, "True TargetsHealthy 1 of 2 targets are healthy; nodes without"),
        (&[Some(Unhealthy)], local, "False NoHealthyTargets 0 of 1"),
        (&[Some(Unhealthy); 7], cluster, "False NoHealthyTargets 0 of 7"),
    ] {
        let said = condition(&[health(states)], policy);
        let text = format!("{} {} {}", said.status.as_str(), said.reason, said.message);
        assert!(text.starts_with(expected), "{text}");
        assert!(states.len() < 6 || text.ends_with("and 2 more"), "{text}");
    }
}

#[test]
fn nodes_that_are_left_out_and_targets_that_are_refused_are_named() {
    let mut of = health(&[Some(TargetState::Healthy)]);
    of.left_out = ["metal".to_owned()].into();
    of.refused = [("i-9".to_owned(), 30_080)].into();
    let said = condition(&[of.clone(), health(&[Some(TargetState::Healthy)])], TrafficPolicy::Cluster);
    assert_eq!(said.status, ConditionStatus::True);
    assert_eq!(
        said.message,
        "2 of 2 targets are healthy; AWS does not take i-9:30080; no instances of EC2 by their spec.providerID: metal"
    );
    of.registered.clear();
    assert_eq!(condition(&[of], TrafficPolicy::Cluster).reason, Reason::TargetsRefused);
}

#[test]
fn targets_are_looked_at_again_while_something_may_become_of_them() {
    use TargetState::{Healthy, Initial, Unhealthy};
    for (states, policy, settled) in [
        (&[][..], TrafficPolicy::Cluster, true),
        (&[Some(Healthy)], TrafficPolicy::Cluster, true),
        (&[Some(Healthy), None], TrafficPolicy::Cluster, false),
        (&[Some(Healthy), Some(Initial)], TrafficPolicy::Local, false),
        (&[Some(Healthy), Some(Unhealthy)], TrafficPolicy::Cluster, false),
        (&[Some(Healthy), Some(Unhealthy)], TrafficPolicy::Local, true),
        (&[Some(Unhealthy)], TrafficPolicy::Local, false),
    ] {
        assert_eq!(health(states).is_settled(policy), settled, "{states:?} {policy:?}");
    }
}
