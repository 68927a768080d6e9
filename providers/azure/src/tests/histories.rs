//! What always holds, whatever is asked for and in whatever order.

use std::time::Duration;

use berth_arm_fake::{Action, Fault};
use proptest::prelude::*;
use serde_json::json;

use super::conformance::{foreign, ours, plant};
use super::lifecycle::answer;
use super::scene::{PUBLIC, Scene, ports, service};

/// Annotations that go together by chance.
const CHOICES: &[&[(&str, &str)]] = &[
    &[PUBLIC],
    &[PUBLIC, ("azure-pip-name", "shared")],
    &[PUBLIC, ("azure-pip-name", "spare")],
    &[PUBLIC, ("azure-dns-label-name", "label")],
    &[PUBLIC, ("azure-pip-ip-tags", "RoutingPreference=Internet")],
    &[("azure-load-balancer-ipv4", "10.0.0.50")],
    &[("azure-load-balancer-internal-subnet", "apps")],
    &[("azure-allowed-ip-ranges", "10.0.0.0/8,192.0.2.0/24")],
    &[("azure-allowed-service-tags", "AzureCloud")],
    &[("azure-deny-all-except-load-balancer-source-ranges", "true")],
    &[("azure-disable-load-balancer-nsg-rule", "true")],
    &[("azure-disable-load-balancer-floating-ip", "true")],
    &[("azure-load-balancer-enable-high-availability-ports", "true")],
    &[("azure-load-balancer-health-probe-protocol", "http")],
    &[("azure-load-balancer-tcp-idle-timeout", "9")],
    &[("azure-load-balancer-intern", "slip")],
    &[("azure-pls-create", "true")],
];

const PORTS: &[&[&str]] =
    &[&["TCP/80:30080"], &["UDP/53:30053"], &["TCP/53:30053", "UDP/53:30054"], &["TCP/80:30080", "TCP/443:30443"]];

const NAMES: [&str; 4] = ["api", "db", "edge", "web"];

#[derive(Clone, Debug)]
enum Event {
    Apply { name: usize, choices: Vec<usize>, ports: usize, families: u8 },
    Delete { name: usize },
    Restart,
    Hurt { action: u8, kind: u8 },
    Time,
}

fn event() -> impl Strategy<Value = Event> {
    let choices = prop::collection::vec(0..CHOICES.len(), 0..3);
    prop_oneof![
        6 => (0..NAMES.len(), choices, 0..PORTS.len(), 0..4_u8)
            .prop_map(|(name, choices, ports, families)| Event::Apply { name, choices, ports, families }),
        2 => (0..NAMES.len()).prop_map(|name| Event::Delete { name }),
        1 => Just(Event::Restart),
        2 => (0..5_u8, 0..3_u8).prop_map(|(action, kind)| Event::Hurt { action, kind }),
        3 => Just(Event::Time),
    ]
}

fn action(number: u8) -> Action {
    match number {
        0 => Action::Break,
        1 => Action::LoseAnswer,
        2 => answer(429, "TooManyRequests"),
        3 => answer(412, "PreconditionFailed"),
        _ => Action::FailLater { code: "InternalServerError".to_owned(), message: String::new() },
    }
}

async fn lives(events: Vec<Event>) {
    let mut scene = Scene::new();
    plant(scene.fake());
    let before = foreign(scene.fake());
    for event in events {
        match event {
            Event::Apply { name, choices, ports: which, families } => {
                let annotations: Vec<(&str, &str)> =
                    choices.iter().flat_map(|choice| CHOICES[*choice]).copied().collect();
                // Two Services cannot have one domain name.
                let own = |(name_of, value)| (name_of, if value == "label" { NAMES[name] } else { value });
                let annotations: Vec<_> = annotations.into_iter().map(own).collect();
                let mut spec = ports(PORTS[which]);
                for port in spec["ports"].as_array_mut().unwrap() {
                    port["nodePort"] = json!(port["nodePort"].as_u64().unwrap() + 1000 * name as u64);
                }
                if families == 0 {
                    spec["ipFamilies"] = json!(["IPv4", "IPv6"]);
                    spec["ipFamilyPolicy"] = json!("RequireDualStack");
                }
                scene.apply(service(NAMES[name], &annotations, spec));
            }
            Event::Delete { name } => {
                if scene.present.contains_key(&super::scene::key(NAMES[name])) {
                    scene.delete(NAMES[name]);
                }
            }
            Event::Restart => scene.restart(),
            Event::Hurt { action: how, kind } => {
                let kind = ["loadBalancers", "networkSecurityGroups", "publicIPAddresses"][usize::from(kind)];
                scene.fake().fault(Fault::next("PUT", kind, action(how)));
            }
            Event::Time => tokio::time::sleep(Duration::from_secs(7)).await,
        }
        scene.round().await;
        assert_eq!(foreign(scene.fake()), before);
    }
    scene.rest().await;
    assert_eq!(foreign(scene.fake()), before);
    // At rest another process has nothing to do.
    scene.restart();
    assert_eq!(scene.plan().await, vec![]);
    for name in NAMES {
        if scene.present.contains_key(&super::scene::key(name)) {
            scene.delete(name);
        }
    }
    scene.rest().await;
    assert_eq!(ours(scene.fake()), Vec::<String>::new());
    assert_eq!(foreign(scene.fake()), before);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 250, ..ProptestConfig::default() })]

    #[test]
    fn what_is_not_ours_stays_as_it_was_and_of_ours_nothing_is_left(events in prop::collection::vec(event(), 1..24)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(lives(events));
    }
}
