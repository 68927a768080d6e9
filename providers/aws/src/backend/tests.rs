use std::net::IpAddr;

use proptest::prelude::*;

use super::*;
use crate::cloud::{HealthCheck, HealthProtocol, Protocol, TargetDescription, TargetFamily};
use crate::intent::TargetAsks;

const DESCRIPTION: &str = "berth.dev/cluster=prod/uid";

fn settings() -> Settings {
    Settings::of("prod", "uid", "vpc-1")
}

fn ranges(all: &[Range]) -> BTreeSet<Range> {
    all.iter().copied().collect()
}

#[test]
fn ranges_that_meet_are_one_and_of_too_many_those_that_are_nearest() {
    let even: Vec<Range> = (1..=9).map(|n| (n * 100, n * 100)).collect();
    let mut near = even.clone();
    near[4] = (460, 460);
    for (given, expected) in [
        (vec![], vec![]),
        (vec![(80, 80)], vec![(80, 80)]),
        (vec![(80, 80), (81, 81), (83, 83)], vec![(80, 81), (83, 83)]),
        (vec![(1, 100), (50, 60), (101, 101)], vec![(1, 101)]),
        (vec![(1, 1), (65_535, 65_535)], vec![(1, 1), (65_535, 65_535)]),
        (even[..8].to_vec(), even[..8].to_vec()),
        (even.clone(), [vec![(100, 200)], even[2..].to_vec()].concat()),
        (near.clone(), [near[..3].to_vec(), vec![(400, 460)], near[5..].to_vec()].concat()),
    ] {
        assert_eq!(merged(&ranges(&given)), expected, "{given:?}");
    }
}

#[test]
fn a_description_is_one_that_aws_takes_and_tells_clusters_apart() {
    let of = |cluster: &str, uid: &str| description(&Settings::of(cluster, uid, "vpc-1"));
    assert_eq!(of("prod", "uid"), DESCRIPTION);
    assert_eq!(of("prod's \"ä\"", "uid"), "berth.dev/cluster=prod_s ___/uid");
    let uid = "2dc098f0-ae33-4378-af7b-83e2a0424495";
    let long = of(&"x".repeat(400), uid);
    assert!(long.len() == 255 && long.ends_with(&format!("/{uid}")), "{long}");
    assert_ne!(of("prod", "uid-1"), of("prod", "uid-2"));
}

#[test]
fn of_several_groups_the_one_that_is_tagged_with_the_cluster_is_opened_and_else_the_first_with_a_word() {
    let ours: Pairs = [("kubernetes.io/cluster/prod".to_owned(), "owned".to_owned())].into();
    let theirs: Pairs = [("kubernetes.io/cluster/prod-2".to_owned(), "owned".to_owned())].into();
    let tags = |id: &str| match id {
        "sg-ours" | "sg-ours-2" => Some(&ours),
        "sg-unseen" => None,
        _ => Some(&theirs),
    };
    for (groups, expected, says) in [
        (&[][..], None, None),
        (&["sg-unseen"], Some("sg-unseen"), None),
        (&["sg-b", "sg-ours"], Some("sg-ours"), None),
        (&["sg-b", "sg-a"], Some("sg-a"), Some("none is tagged kubernetes.io/cluster/prod, so sg-a is opened")),
        (&["sg-unseen", "sg-x"], Some("sg-unseen"), Some("none is tagged")),
        (&["sg-ours-2", "sg-ours", "sg-a"], Some("sg-ours"), Some("more than one is tagged")),
    ] {
        let interface = Interface {
            id: "eni-1".to_owned(),
            addresses: Vec::new(),
            prefixes: Vec::new(),
            security_groups: groups.iter().map(|id| (*id).to_owned()).collect(),
            is_primary: true,
        };
        let (group, note) = chosen(&settings(), &interface, tags);
        assert_eq!(group.map(String::as_str), expected, "{groups:?}");
        assert_eq!(note.is_some(), says.is_some(), "{groups:?}: {note:?}");
        assert!(note.unwrap_or_default().contains(says.unwrap_or_default()), "{groups:?}");
    }
}

fn asks(protocol: Protocol, health_port: &str) -> PortAsks {
    let health = HealthCheck {
        protocol: HealthProtocol::Tcp,
        port: health_port.to_owned(),
        path: None,
        interval: 10,
        timeout: 10,
        healthy: 3,
        unhealthy: 3,
        codes: None,
    };
    let (kind, family, attributes) = (TargetKind::Ip, TargetFamily::Ipv4, Pairs::new());
    let target = TargetAsks { kind, protocol, port: 1, family, health, attributes: attributes.clone() };
    PortAsks { protocol, tls: None, attributes, target }
}

fn wanted(targets: &[(&str, u16, bool)]) -> targets::Wanted {
    let each = targets.iter().map(|(id, port, is_outside)| {
        let target = TargetDescription { id: (*id).to_owned(), port: *port, is_outside: *is_outside };
        (targets::key(&target), target)
    });
    targets::Wanted { targets: each.collect(), ..targets::Wanted::default() }
}

#[test]
fn what_targets_take_in_is_what_they_are_sent_and_asked() {
    use IpProtocol::{Tcp, Udp};
    let nodes = (30_000, 32_767);
    for (kind, protocol, health, port, expected) in [
        (TargetKind::Instance, Protocol::Tcp, "traffic-port", 30_080, vec![(Tcp, nodes)]),
        (TargetKind::Instance, Protocol::Tls, "32000", 30_080, vec![(Tcp, nodes)]),
        (TargetKind::Instance, Protocol::Udp, "traffic-port", 30_053, vec![(Tcp, nodes), (Udp, nodes)]),
        (TargetKind::Instance, Protocol::Tcp, "10256", 40_000, vec![(Tcp, (10_256, 10_256)), (Tcp, (40_000, 40_000))]),
        (TargetKind::Ip, Protocol::Tcp, "traffic-port", 8080, vec![(Tcp, (8080, 8080))]),
        (TargetKind::Ip, Protocol::Tcp, "9090", 30_080, vec![(Tcp, (9090, 9090)), (Tcp, (30_080, 30_080))]),
        (TargetKind::Ip, Protocol::TcpUdp, "traffic-port", 53, vec![(Tcp, (53, 53)), (Udp, (53, 53))]),
        (TargetKind::Ip, Protocol::Udp, "8181", 53, vec![(Tcp, (8181, 8181)), (Udp, (53, 53))]),
    ] {
        let id = if kind == TargetKind::Ip { "10.0.0.1" } else { "i-1" };
        let mut demand = Demand::default();
        demand.add(kind, &asks(protocol, health), &wanted(&[(id, port, false)]), settings().node_ports);
        let group = "sg-1".to_owned();
        let by_group = demand.by_group(|_| Some(&group));
        assert_eq!(by_group[&group], expected.into_iter().collect(), "{kind} {protocol} {health} {port}");
    }
}

#[test]
fn what_is_outside_the_vpc_and_what_has_no_group_is_not_opened() {
    let mut demand = Demand::default();
    let all = wanted(&[("10.0.0.1", 80, false), ("10.0.0.2", 80, false), ("192.0.2.1", 80, true)]);
    demand.add(TargetKind::Ip, &asks(Protocol::Tcp, "traffic-port"), &all, settings().node_ports);
    let addresses: Vec<Place> =
        ["10.0.0.1", "10.0.0.2"].map(|text| Place::Address(text.parse::<IpAddr>().unwrap())).into();
    assert_eq!(demand.places().into_iter().cloned().collect::<Vec<_>>(), addresses);
    let group = "sg-1".to_owned();
    let by_group = demand.by_group(|place| (*place == addresses[0]).then_some(&group));
    assert_eq!(by_group.len(), 1);
    assert!(demand.by_group(|_| None).is_empty());
}

fn rule(ip_protocol: IpProtocol, (from_port, to_port): Range, source: Source, description: Option<&str>) -> Rule {
    Rule { ip_protocol, from_port, to_port, source, description: description.map(str::to_owned) }
}

fn group(rules: Vec<Rule>) -> SecurityGroup {
    SecurityGroup { id: "sg-1".to_owned(), name: "nodes".to_owned(), rules, tags: Pairs::new() }
}

#[test]
fn a_rule_of_somebody_else_is_as_good_as_ours_and_is_never_taken_away() {
    let backend = || Source::Group("sg-backend".to_owned());
    let ours = |port| rule(IpProtocol::Tcp, (port, port), backend(), Some(DESCRIPTION));
    let theirs = |port| rule(IpProtocol::Tcp, (port, port), backend(), Some("by hand"));
    let another_clusters = rule(IpProtocol::Tcp, (1, 1), backend(), Some("berth.dev/cluster=prod/uid-2"));
    for (seen, wanted, authorize, revoke) in [
        (vec![], vec![ours(80)], vec![ours(80)], vec![]),
        (vec![ours(80)], vec![ours(80)], vec![], vec![]),
        (vec![theirs(80)], vec![ours(80)], vec![], vec![]),
        (vec![ours(80), theirs(81), another_clusters.clone()], vec![], vec![], vec![ours(80)]),
        (vec![ours(80), theirs(81)], vec![ours(81), ours(82)], vec![ours(82)], vec![ours(80)]),
    ] {
        let wanted: BTreeSet<_> = wanted.into_iter().collect();
        let expected = Change { authorize, revoke };
        assert_eq!(change(&wanted, &group(seen.clone()), DESCRIPTION), expected, "{seen:?} {wanted:?}");
    }
}

fn some_rule() -> impl Strategy<Value = Rule> {
    let protocol = prop_oneof![Just(IpProtocol::Tcp), Just(IpProtocol::Udp)];
    let source = prop_oneof![
        Just(Source::Group("sg-backend".to_owned())),
        Just(Source::Group("sg-other".to_owned())),
        Just(Source::V4("10.0.0.0/8".to_owned())),
    ];
    let description = prop_oneof![Just(None), Just(Some("ssh")), Just(Some("berth.dev/cluster=prod/uid-2"))];
    (protocol, 1_u16..6, 0_u16..3, source, description)
        .prop_map(|(protocol, from, more, source, of)| rule(protocol, (from, from + more), source, of))
}

fn some_demand() -> impl Strategy<Value = LetsIn> {
    let protocol = prop_oneof![Just(IpProtocol::Tcp), Just(IpProtocol::Udp)];
    let one = (protocol, 1_u16..400, 0_u16..3).prop_map(|(protocol, from, more)| (protocol, (from, from + more)));
    prop::collection::btree_set(one, 0..40)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_asked_for_is_let_in_by_few_rules_and_rules_of_others_stay(
        foreign in prop::collection::vec(some_rule(), 0..12),
        demands in prop::collection::vec(some_demand(), 1..12),
    ) {
        let mut foreign = foreign;
        foreign.sort_by_key(Rule::bare);
        foreign.dedup_by_key(|rule| rule.bare());
        let mut seen = group(foreign.clone());
        for lets_in in demands {
            let demand = BTreeMap::from([("sg-1".to_owned(), lets_in.clone())]);
            let rules = rules([&demand].into_iter(), "sg-backend", DESCRIPTION);
            let wanted = rules.get("sg-1").cloned().unwrap_or_default();
            prop_assert!(wanted.len() <= 2 * RANGES_MAX);
            let Change { authorize, revoke } = change(&wanted, &seen, DESCRIPTION);
            // As EC2 would have it.
            for rule in &authorize {
                prop_assert!(!seen.rules.iter().any(|other| other.bare() == rule.bare()), "no duplicate");
                seen.rules.push(rule.clone());
            }
            for rule in &revoke {
                prop_assert!(seen.rules.contains(rule), "it is there");
                seen.rules.retain(|other| other.bare() != rule.bare());
            }
            let kept: Vec<_> = seen.rules.iter().filter(|rule| rule.description.as_deref() != Some(DESCRIPTION)).collect();
            prop_assert_eq!(kept, foreign.iter().collect::<Vec<_>>());
            let source = Source::Group("sg-backend".to_owned());
            for (protocol, (from, to)) in lets_in {
                let lets = |port| seen.rules.iter().any(|rule| {
                    rule.ip_protocol == protocol && rule.source == source && (rule.from_port..=rule.to_port).contains(&port)
                });
                prop_assert!((from..=to).all(lets), "{protocol} {from}-{to}");
            }
            prop_assert_eq!(change(&wanted, &seen, DESCRIPTION), Change::default(), "then there is nothing to do");
        }
    }
}
