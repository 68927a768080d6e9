//! The provider keeps what every provider has to keep.

use std::time::Duration;

use berth_provider::conformance::{self, Fault, View, World};
use berth_provider::{Intent, Protocol};
use serde_json::json;

use super::scene::{cloud, ports, service, settings};
use crate::Aws;
use crate::cloud::Cloud as _;
use crate::fake::Fake;
use crate::tags;

struct AwsWorld {
    fake: Fake,
}

impl AwsWorld {
    /// With things that look like ours and are not: another cluster of the same name, and nobody's.
    async fn new() -> Self {
        let fake = cloud();
        let other = crate::Settings { cluster_uid: "uid-of-another".to_owned(), ..settings() };
        for (name, tags) in [("theirs", tags::of_cluster(&other)), ("nobodys", crate::cloud::Pairs::new())] {
            let group = fake.create_security_group("vpc-1", name, "", &tags).await.unwrap();
            let mapping = crate::cloud::SubnetMapping {
                subnet_id: "subnet-privatea".to_owned(),
                allocation_id: None,
                private_ipv4: None,
                ipv6: None,
            };
            let new = crate::cloud::NewLoadBalancer {
                name: name.to_owned(),
                scheme: crate::cloud::Scheme::Internal,
                ip_address_type: crate::cloud::IpAddressType::Ipv4,
                subnet_mappings: vec![mapping],
                security_groups: vec![group],
                tags,
            };
            fake.create_load_balancer(&new).await.unwrap();
        }
        fake.settle();
        // What the planting took is no write of the provider's.
        let writes = fake.gate().writes();
        assert_eq!(writes, 4);
        Self { fake }
    }
}

const PLANTED: u64 = 4;

impl World for AwsWorld {
    type Provider = Aws<Fake>;

    fn provider(&self) -> Self::Provider {
        Aws::new(self.fake.clone(), settings())
    }

    fn intents(&self) -> Vec<Intent> {
        let group = ("berth.dev/load-balancer-group", "edge");
        vec![
            service(
                "web",
                &[("scheme", "internet-facing"), ("attributes", "load_balancing.cross_zone.enabled=true")],
                json!({}),
            ),
            service(
                "dns",
                &[("nlb-target-type", "ip")],
                json!({"ports": [
                    {"name": "udp", "protocol": "UDP", "port": 53, "nodePort": 30053, "targetPort": 53},
                    {"name": "tcp", "protocol": "TCP", "port": 53, "nodePort": 30054, "targetPort": 53},
                ]}),
            ),
            service(
                "tls",
                &[
                    ("ssl-cert", "arn:a,arn:b"),
                    ("disable-nlb-sg", "true"),
                    ("manage-backend-security-group-rules", "false"),
                ],
                ports(&["TCP/443:30443"]),
            ),
            service("one", &[group], ports(&["TCP/1000:31000"])),
            service(
                "two",
                &[group, ("target-group-attributes", "proxy_protocol_v2.enabled=true")],
                ports(&["UDP/2000:32000"]),
            ),
        ]
    }

    fn refused(&self) -> Vec<Intent> {
        let mut sctp = service("sctp", &[], json!({}));
        sctp.ports[0].protocol = Protocol::Sctp;
        vec![
            sctp,
            service("slip", &[("schema", "internal")], json!({})),
            service("quic", &[("quic-enabled-ports", "80")], json!({})),
            service("pool", &[("berth.dev/address-pool", "gold")], json!({})),
            service("address", &[("berth.dev/load-balancer-ips", "192.0.2.1")], json!({})),
            service("unread", &[("scheme", "public")], json!({})),
            service("group", &[("berth.dev/load-balancer-group", "no/name")], json!({})),
        ]
    }

    async fn look(&self) -> View {
        let (ours, foreign) = (self.fake.dump(&settings(), true), self.fake.dump(&settings(), false));
        View { ours, foreign, writes: self.fake.gate().writes() - PLANTED }
    }

    fn hurt(&self, fault: Fault) {
        self.fake.gate().set(fault);
    }

    async fn settle(&self) {
        self.fake.settle();
        // How far load balancers have come is not asked all the time.
        tokio::time::advance(Duration::from_secs(10)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_provider_conforms() {
    let violations = conformance::run(AwsWorld::new).await;
    assert!(violations.is_empty(), "{violations:#?}");
}
