//! The mock's cloud as a world for the suite.

use std::collections::BTreeMap;
use std::time::Duration;

use berth_mock::{Cloud, FAULTS, LATENCY, Mock};
use berth_provider::conformance::{Fault, View, World};
use berth_provider::{Intent, Protocol, Provider};
use serde_json::json;

/// Longer than any latency that the Services here ask for.
const SETTLED: Duration = Duration::from_secs(5);

/// A mock's cloud, and how a provider of it is made.
pub struct MockWorld<F> {
    pub cloud: Cloud,
    make: F,
}

impl<F> MockWorld<F> {
    pub fn new(make: F) -> Self {
        let cloud = Cloud::new();
        // The first address that would be given, so that somebody who takes no care meets it.
        cloud.plant_foreign("203.0.113.1".parse().unwrap(), "somebody-else");
        Self { cloud, make }
    }
}

impl<P: Provider, F: Fn(Mock) -> P> World for MockWorld<F> {
    type Provider = P;

    fn provider(&self) -> P {
        (self.make)(Mock::new(self.cloud.clone()))
    }

    fn intents(&self) -> Vec<Intent> {
        let v4 = intent("web", &["IPv4"], &[]);
        let dual = intent("dual", &["IPv6", "IPv4"], &[]);
        let asks = intent("asks", &["IPv4"], &[("berth.dev/load-balancer-ips", "198.51.100.7")]);
        let slow = intent("slow", &["IPv6"], &[(LATENCY, "3s")]);
        let flaky = intent("flaky", &["IPv4"], &[(FAULTS, "transient:2,throttled")]);
        vec![v4, dual, asks, slow, flaky]
    }

    fn refused(&self) -> Vec<Intent> {
        let mut sctp = intent("sctp", &["IPv4"], &[]);
        sctp.ports[0].protocol = Protocol::Sctp;
        let outside = intent("outside", &["IPv4"], &[("berth.dev/load-balancer-ips", "10.0.0.1")]);
        let slip = intent("slip", &["IPv4"], &[("mock.berth.dev/latencey", "1s")]);
        let pool = intent("pool", &["IPv4"], &[("berth.dev/address-pool", "gold")]);
        let unread = intent("unread", &["IPv4"], &[("berth.dev/load-balancer-ips", "web")]);
        vec![sctp, outside, slip, pool, unread]
    }

    async fn look(&self) -> View {
        View { ours: self.cloud.dump(true), foreign: self.cloud.dump(false), writes: self.cloud.gate().writes() }
    }

    fn hurt(&self, fault: Fault) {
        self.cloud.gate().set(fault);
    }

    async fn settle(&self) {
        tokio::time::sleep(SETTLED).await;
    }
}

fn intent(name: &str, families: &[&str], annotations: &[(&str, &str)]) -> Intent {
    let policy = if families.len() > 1 { "RequireDualStack" } else { "SingleStack" };
    let service = json!({
        "metadata": {
            "namespace": "shop", "name": name, "uid": format!("uid-of-{name}"), "generation": 1,
            "annotations": annotations.iter().copied().collect::<BTreeMap<_, _>>(),
        },
        "spec": {
            "type": "LoadBalancer", "ipFamilies": families, "ipFamilyPolicy": policy,
            "ports": [{"name": "http", "port": 80, "nodePort": 30_080}],
        },
    });
    Intent::of(&serde_json::from_value(service).unwrap()).unwrap()
}
