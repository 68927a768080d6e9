//! The provider keeps what every provider has to keep.

use std::time::Duration;

use berth_provider::conformance::{self, Fault, View, World};
use berth_provider::{Intent, Protocol};
use serde_json::{Value, json};

use super::scene::{GROUP, PUBLIC, Provider, Wire, cloud, ports, provider, service, settings};
use crate::document::{name, parts, parts_mut, text};
use crate::{names, tags};

struct AzureWorld {
    wire: Wire,
}

/// Names of somebody else's Service: they look like ours.
const THEIRS: &str = "a99999999999999999999999999999999";

/// A load balancer by our name that somebody else made, with what such have.
pub fn foreign_load_balancer() -> Value {
    let id = format!("{GROUP}/loadBalancers/prod");
    let of = |kind: &str, name: &str| json!({"id": format!("{id}/{kind}/{name}")});
    let their = &THEIRS[..32];
    json!({
        "location": "westeurope", "sku": {"name": "Standard"}, "tags": {"owner": "them"}, "extendedLocation": {"x": 1},
        "properties": {
            "frontendIPConfigurations": [
                {"name": "egress", "properties": {"publicIPAddress": {"id": format!("{GROUP}/publicIPAddresses/egress")}}},
                {"name": their, "properties": {"publicIPAddress": {"id": format!("{GROUP}/publicIPAddresses/theirs")}}},
            ],
            "backendAddressPools": [{"name": "egress", "properties": {"drainPeriodInSeconds": 7}}],
            "probes": [{"name": format!("{their}-TCP-80"), "properties": {"protocol": "Tcp", "port": 31_999, "intervalInSeconds": 5}}],
            "loadBalancingRules": [{"name": format!("{their}-TCP-80"), "properties": {
                "frontendIPConfiguration": of("frontendIPConfigurations", their), "protocol": "Tcp",
                "frontendPort": 80, "backendPort": 80, "enableFloatingIP": true, "enableConnectionTracking": true,
                "probe": of("probes", &format!("{their}-TCP-80")), "backendAddressPool": of("backendAddressPools", "egress"),
            }}],
            "outboundRules": [{"name": "egress", "properties": {
                "frontendIPConfigurations": [of("frontendIPConfigurations", "egress")],
                "backendAddressPool": of("backendAddressPools", "egress"), "protocol": "All",
            }}],
        },
    })
}

/// Puts what is not ours into a cloud.
pub fn plant(fake: &berth_arm_fake::Fake) {
    for called in ["egress", "theirs", "spare"] {
        let ip = json!({
            "location": "westeurope", "sku": {"name": "Standard"}, "tags": {"k8s-azure-service": "shop/other"},
            "properties": {"publicIPAllocationMethod": "Static", "publicIPAddressVersion": "IPv4", "ddosSettings": {"x": true}},
        });
        fake.plant(&format!("{GROUP}/publicIPAddresses/{called}"), ip).unwrap();
    }
    fake.plant(&format!("{GROUP}/loadBalancers/prod"), foreign_load_balancer()).unwrap();
}

/// Whether a part of a load balancer or security group is of somebody else.
fn is_foreign(part: &Value) -> bool {
    let called = name(part);
    let ours = names::base_of(called).is_some_and(|base| base != &THEIRS[..32]);
    !(ours || called.starts_with(names::SECURITY_PREFIX) || called == "prod" || called == "prod-IPv6")
}

/// Without what Azure writes anew each time.
fn bare(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let kept = fields
                .iter()
                .filter(|(field, _)| !matches!(field.as_str(), "etag" | "provisioningState" | "ipConfiguration"));
            Value::Object(kept.map(|(field, value)| (field.clone(), bare(value))).collect())
        }
        Value::Array(items) => items.iter().map(bare).collect(),
        other => other.clone(),
    }
}

const KINDS: [&str; 6] = [
    "frontendIPConfigurations",
    "backendAddressPools",
    "loadBalancingRules",
    "probes",
    "outboundRules",
    "securityRules",
];

/// All that is not ours, whole.
pub fn foreign(fake: &berth_arm_fake::Fake) -> Vec<String> {
    let mut all = Vec::new();
    for (id, document) in fake.resources() {
        let mut document = bare(&document);
        if tags::is_ours(&settings(), &document) {
            continue;
        }
        for kind in KINDS {
            if !parts(&document, kind).is_empty()
                && let Some(list) = parts_mut(&mut document, kind)
            {
                list.retain(is_foreign);
            }
        }
        all.push(format!("{id}: {document}"));
    }
    all
}

/// What of a part does not depend on who came first.
fn line(part: &Value) -> String {
    let mut part = bare(part);
    let destinations = parts(&part, "destinationAddressPrefixes").len();
    if let Some(properties) = part["properties"].as_object_mut() {
        for field in ["privateIPAddress", "priority", "destinationAddressPrefixes", "loadBalancingRules"] {
            properties.remove(field);
        }
    }
    format!("{part} to {destinations}")
}

pub fn ours(fake: &berth_arm_fake::Fake) -> Vec<String> {
    let mut all = Vec::new();
    for (id, document) in fake.resources() {
        if tags::is_ours(&settings(), &document) {
            let label = text(&document, &["properties", "dnsSettings", "domainNameLabel"]);
            all.push(format!("{id} {} {label:?}", document["tags"]));
        }
        for part in KINDS.iter().flat_map(|kind| parts(&document, kind)).filter(|part| !is_foreign(part)) {
            all.push(format!("{id}: {}", line(part)));
        }
    }
    all.sort();
    all
}

impl World for AzureWorld {
    type Provider = Provider;

    fn provider(&self) -> Provider {
        provider(&self.wire, settings())
    }

    fn intents(&self) -> Vec<Intent> {
        let dual = json!({"ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "RequireDualStack"});
        vec![
            service("api", &[PUBLIC, ("azure-dns-label-name", "shop-api")], json!({})),
            service("db", &[("azure-allowed-ip-ranges", "10.0.0.0/8")], ports(&["TCP/5432:30432", "UDP/5432:30432"])),
            service("edge", &[PUBLIC, ("azure-disable-load-balancer-floating-ip", "true")], ports(&["TCP/443:30443"])),
            service(
                "local",
                &[("azure-load-balancer-internal-subnet", "apps")],
                json!({
                    "externalTrafficPolicy": "Local", "healthCheckNodePort": 32_000,
                }),
            ),
            service("web", &[PUBLIC], dual),
        ]
    }

    fn refused(&self) -> Vec<Intent> {
        let mut sctp = service("sctp", &[], json!({}));
        sctp.ports[0].protocol = Protocol::Sctp;
        vec![
            sctp,
            service("slip", &[("azure-load-balancer-intern", "true")], json!({})),
            service("pls", &[("azure-pls-create", "true")], json!({})),
            service("pool", &[("berth.dev/address-pool", "gold")], json!({})),
            service("private", &[PUBLIC, ("azure-load-balancer-ipv4", "10.0.0.9")], json!({})),
            service("group", &[("berth.dev/load-balancer-group", "edge")], json!({})),
        ]
    }

    async fn look(&self) -> View {
        let fake = &self.wire.fake;
        View { ours: ours(fake), foreign: foreign(fake), writes: self.wire.gate.writes() }
    }

    fn hurt(&self, fault: Fault) {
        self.wire.gate.set(fault);
    }

    async fn settle(&self) {
        tokio::time::sleep(Duration::from_secs(3)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_provider_conforms() {
    let violations = conformance::run(async || {
        let fake = cloud();
        plant(&fake);
        AzureWorld { wire: Wire::new(fake) }
    })
    .await;
    assert!(violations.is_empty(), "{violations:#?}");
}

#[tokio::test(start_paused = true)]
async fn the_provider_conforms_where_writes_take_their_time() {
    let violations = conformance::run(async || {
        let fake = cloud();
        plant(&fake);
        fake.takes(Duration::from_secs(2));
        AzureWorld { wire: Wire::new(fake) }
    })
    .await;
    assert!(violations.is_empty(), "{violations:#?}");
}
