//! What always holds, whatever is asked for and in whatever order.

use berth_provider::Provider as _;
use proptest::prelude::*;
use serde_json::json;

use super::scene::{Scene, ports, service};
use crate::cloud::{Cloud as _, IpAddressType, NewLoadBalancer, Pairs, Scheme, SubnetMapping};
use crate::step::Step;

/// Annotations that go together by chance.
const CHOICES: &[&[(&str, &str)]] = &[
    &[("scheme", "internet-facing")],
    &[("scheme", "internal"), ("private-ipv4-addresses", "10.0.2.9,10.0.3.9")],
    &[("scheme", "internet-facing"), ("eip-allocations", "eipalloc-1,eipalloc-2")],
    &[("nlb-target-type", "ip")],
    &[("ip-address-type", "dualstack")],
    &[("disable-nlb-sg", "true"), ("manage-backend-security-group-rules", "false")],
    &[("security-groups", "sg-nodes"), ("manage-backend-security-group-rules", "true")],
    &[("subnets", "subnet-privatea")],
    &[("ssl-cert", "arn:a,arn:b,arn:c")],
    &[("ssl-cert", "arn:b"), ("backend-protocol", "ssl"), ("alpn-policy", "HTTP2Only")],
    &[("attributes", "load_balancing.cross_zone.enabled=true")],
    &[("target-group-attributes", "preserve_client_ip.enabled=false")],
    &[("proxy-protocol", "*")],
    &[("healthcheck-protocol", "http"), ("healthcheck-path", "/live")],
    &[("additional-resource-tags", "team=a,cost=7")],
    &[("enable-icmp-for-path-mtu-discovery", "on")],
    &[("security-group-prefix-lists", "pl-1")],
    &[("inbound-sg-rules-on-private-link-traffic", "off")],
    &[("scheme", "slip")],
    &[("berth.dev/load-balancer-group", "edge")],
    &[("berth.dev/allow-replacement", "true")],
    &[("berth.dev/disown", "true")],
];

const PORTS: &[&[&str]] = &[
    &["TCP/80:30080"],
    &["UDP/53:30053"],
    &["TCP/53:30053", "UDP/53:30053"],
    &["TCP/80:30080", "TCP/81:30081", "TCP/443:30443"],
    &["TCP/8080:30080"],
];

#[derive(Clone, Debug)]
enum Event {
    Apply { name: usize, choices: Vec<usize>, ports: usize },
    Delete { name: usize },
    Settle,
    Restart,
}

fn event() -> impl Strategy<Value = Event> {
    let choices = prop::collection::vec(0..CHOICES.len(), 0..4);
    prop_oneof![
        5 => (0..3_usize, choices, 0..PORTS.len()).prop_map(|(name, choices, ports)| Event::Apply { name, choices, ports }),
        1 => (0..3_usize).prop_map(|name| Event::Delete { name }),
        2 => Just(Event::Settle),
        1 => Just(Event::Restart),
    ]
}

const NAMES: [&str; 3] = ["a", "b", "c"];

/// Plants what is not ours, and gives what it is.
async fn plant(scene: &Scene) -> Vec<String> {
    let group = scene.fake.create_security_group("vpc-1", "theirs", "", &Pairs::new()).await.unwrap();
    let mapping =
        SubnetMapping { subnet_id: "subnet-privatea".to_owned(), allocation_id: None, private_ipv4: None, ipv6: None };
    let new = NewLoadBalancer {
        name: "theirs".to_owned(),
        scheme: Scheme::Internal,
        ip_address_type: IpAddressType::Ipv4,
        subnet_mappings: vec![mapping],
        security_groups: vec![group],
        tags: Pairs::new(),
    };
    scene.fake.create_load_balancer(&new).await.unwrap();
    scene.fake.dump(&scene.settings, false)
}

async fn history(events: &[Event]) -> Result<(), TestCaseError> {
    let mut scene = Scene::new();
    let foreign = plant(&scene).await;
    let mut disowned = false;
    // One that is made again is another one.
    let mut generation = 0;
    for event in events {
        match event {
            Event::Apply { name, choices, ports: which } => {
                let mut annotations: Vec<(&str, &str)> = Vec::new();
                // An Elastic IP is of one load balancer, so only one Service names them.
                let choices = choices.iter().map(|choice| CHOICES[*choice]);
                let choices =
                    choices.filter(|choice| *name == 0 || !choice.iter().any(|(name, _)| *name == "eip-allocations"));
                for pair in choices.flatten() {
                    if !annotations.iter().any(|(name, _)| *name == pair.0) {
                        annotations.push(*pair);
                    }
                }
                disowned |= annotations.iter().any(|(name, _)| *name == "berth.dev/disown");
                let spec = ports(PORTS[*which]);
                let mut intent = service(NAMES[*name], &annotations, spec);
                // One that moves to another shard leaves the one that it was in.
                let before = scene.wanted.get(&intent.id.key).cloned();
                let stays = before.filter(|before| scene.provider.shard(before) == scene.provider.shard(&intent));
                if let Some(before) = stays {
                    intent.id = before.id;
                } else {
                    scene.delete(NAMES[*name]);
                    scene.rest().await;
                    generation += 1;
                    intent.id.uid = format!("uid-{generation}");
                }
                scene.apply(intent);
                scene.round().await;
            }
            Event::Delete { name } => {
                scene.delete(NAMES[*name]);
                scene.rest().await;
            }
            Event::Settle => scene.fake.settle(),
            Event::Restart => scene.provider = crate::Aws::new(scene.fake.clone(), scene.settings.clone()),
        }
    }
    scene.rest().await;
    prop_assert!(scene.plan().await.is_empty(), "the plan after the plan is empty");
    let failed = scene.log.iter().find(|line| line.contains("FAILED") && !line.contains("Violation"));
    prop_assert_eq!(failed, None, "AWS refuses nothing that was planned");
    for name in NAMES {
        scene.delete(name);
    }
    scene.rest().await;
    // What all load balancers have stays while one has it that was disowned.
    let mut left = scene.ours();
    left.retain(|line| !(disowned && line.starts_with("security group berth-backend")));
    prop_assert_eq!(left, Vec::<String>::new());
    if !disowned {
        prop_assert_eq!(scene.fake.dump(&scene.settings, false), foreign);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_plan_carried_out_leaves_nothing_to_do_and_touches_nothing_foreign(events in prop::collection::vec(event(), 1..14)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(history(&events))?;
    }

    #[test]
    fn rules_let_in_what_is_asked_for_and_no_port_more(
        ports in prop::collection::btree_set(1_u16..200, 1..30),
        ranges in prop::collection::btree_set(0_u8..4, 1..3),
    ) {
        let list: Vec<_> = ports.iter().map(|port| json!({"name": format!("p{port}"), "port": port, "nodePort": 30_000 + port})).collect();
        let ranges: Vec<_> = ranges.iter().map(|n| format!("10.{n}.0.0/16")).collect();
        let intent = service("web", &[], json!({"ports": list, "loadBalancerSourceRanges": ranges}));
        let asks = crate::intent::Asks::of(&intent, &super::scene::settings()).unwrap();
        if let Ok(rules) = crate::security::rules(&[&asks]) {
            for port in 1..=200 {
                for range in &ranges {
                    let lets_in = rules.iter().any(|rule| {
                        rule.source == crate::cloud::Source::V4(range.clone()) && (rule.from_port..=rule.to_port).contains(&port)
                    });
                    prop_assert_eq!(lets_in, ports.contains(&port), "port {} from {}", port, range);
                }
            }
        }
    }
}

#[test]
fn a_step_can_be_written_down_with_the_names_of_the_api() {
    let step = Step::DeleteListener { load_balancer: "web".to_owned(), port: 80 };
    let written = serde_json::to_value(step).unwrap();
    assert_eq!(written, json!({"Action": "DeleteListener", "LoadBalancer": "web", "Port": 80}));
}
