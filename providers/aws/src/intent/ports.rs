//! The listeners and target groups that the ports of a Service become.

use std::collections::{BTreeMap, BTreeSet};

use berth_provider::{Intent, Port, Protocol as Transport, TargetPort};

use super::{Front, PortAsks, TargetAsks, Tls, health, target_family};
use crate::annotation::{
    Annotations, LISTENER_ATTRIBUTES_OF, TARGET_GROUP_ATTRIBUTES_OF, contradiction, full, map, wrong,
};
use crate::cloud::{IpAddressType, Pairs, Protocol, TargetType};
use crate::intent::TargetKind;
use crate::refusal::Refusal;
use crate::settings::Settings;

/// The attribute by which a target group sends the PROXY protocol.
const PROXY_PROTOCOL: &str = "proxy_protocol_v2.enabled";

pub(super) fn read(
    intent: &Intent,
    annotations: &Annotations<'_>,
    front: &Front,
    settings: &Settings,
) -> Result<BTreeMap<u16, PortAsks>, Refusal> {
    let kind = target_kind(annotations, settings)?;
    let tls = Ends::of(intent, annotations, settings)?;
    let attributes = GroupAttributes::of(intent, annotations)?;
    let mut listeners = listener_attributes(annotations)?;
    let health = health::check(intent, annotations, kind)?;
    let merges = annotations.truth("enable-tcp-udp-listener")?.unwrap_or(true);
    let tls_targets = annotations
        .word("backend-protocol", &[("ssl", Protocol::Tls), ("tls", Protocol::Tls), ("tcp", Protocol::Tcp)])?
        .unwrap_or(Protocol::Tcp);
    let mut by_port: BTreeMap<u16, Vec<&Port>> = BTreeMap::new();
    for port in &intent.ports {
        by_port.entry(port.port).or_default().push(port);
    }
    let mut asks = BTreeMap::new();
    for (number, entries) in by_port {
        let field = || format!("spec.ports, port {number}");
        let contradicts = |why: String| Refusal::Contradiction { field: field(), why };
        let (first, transport) = match entries[..] {
            [one] => match one.protocol {
                Transport::Tcp => (one, Protocol::Tcp),
                Transport::Udp => (one, Protocol::Udp),
                Transport::Sctp => {
                    return Err(Refusal::Unsupported { field: field(), why: "an NLB does not speak SCTP".to_owned() });
                }
            },
            [a, b] if is_pair(a, b) && merges => {
                // One target group takes both, so both have to end up at the same port.
                let same = match kind {
                    TargetKind::Instance => a.node_port == b.node_port,
                    TargetKind::Ip => a.target_port == b.target_port,
                };
                if !same {
                    let what = if kind == TargetKind::Instance { "node ports" } else { "target ports" };
                    return Err(contradicts(format!(
                        "TCP and UDP have different {what}, and one listener serves both; make them equal"
                    )));
                }
                (a, Protocol::TcpUdp)
            }
            [a, b] if is_pair(a, b) => {
                let why = "TCP and UDP have the port, and may not be merged; remove the annotation, or one of them";
                return Err(contradiction("enable-tcp-udp-listener", why));
            }
            _ => {
                return Err(contradicts(
                    "several entries have the port, and a listener serves one, or TCP and UDP; change it".to_owned(),
                ));
            }
        };
        let ends = tls.ends_at(&entries);
        let protocol = match (transport, ends) {
            (Protocol::Tcp, true) => Protocol::Tls,
            (Protocol::TcpUdp, true) => {
                return Err(contradicts(
                    "TLS ends at the load balancer on the port, and UDP has it too; change one of them".to_owned(),
                ));
            }
            (other, _) => other,
        };
        if matches!(protocol, Protocol::Udp | Protocol::TcpUdp) && front.ip_address_type == IpAddressType::Dualstack {
            let why = "UDP through a dual-stack load balancer needs prefixes for IPv6 source NAT, which are not set"
                .to_owned();
            return Err(Refusal::Unsupported { field: field(), why });
        }
        let target = TargetAsks {
            kind,
            protocol: if protocol == Protocol::Tls { tls_targets } else { protocol },
            port: target_port(first, kind).ok_or_else(|| {
                contradicts("the port has no node port, which instances take traffic at; allocate node ports, or use ip targets".to_owned())
            })?,
            family: target_family(intent),
            health: health.clone(),
            attributes: attributes.of_port(number),
        };
        let tls = (protocol == Protocol::Tls).then(|| tls.tls.clone()).flatten();
        let of_listener = listeners.remove(&(protocol, number)).unwrap_or_default();
        asks.insert(number, PortAsks { protocol, tls, attributes: of_listener, target });
    }
    match listeners.keys().next() {
        None => Ok(asks),
        Some((protocol, port)) => {
            let name = format!("{LISTENER_ATTRIBUTES_OF}{protocol}-{port}");
            Err(contradiction(&name, "the Service has no such listener; correct or remove it"))
        }
    }
}

fn is_pair(a: &Port, b: &Port) -> bool {
    let mut both = [a.protocol, b.protocol];
    both.sort_unstable();
    both == [Transport::Tcp, Transport::Udp]
}

fn target_port(port: &Port, kind: TargetKind) -> Option<u16> {
    match (kind, &port.target_port) {
        (TargetKind::Instance, _) => port.node_port,
        (TargetKind::Ip, TargetPort::Number(number)) => Some(*number),
        // Each target is registered with a port of its own (ALBC's number).
        (TargetKind::Ip, TargetPort::Name(_)) => Some(1),
    }
}

pub(super) fn target_kind(annotations: &Annotations<'_>, settings: &Settings) -> Result<TargetKind, Refusal> {
    let by_type = annotations.word("type", &[("external", None), ("nlb-ip", Some(TargetKind::Ip))])?.flatten();
    let words = [("instance", TargetType::Instance), ("ip", TargetType::Ip)];
    Ok(by_type.or(annotations.word("nlb-target-type", &words)?).unwrap_or(settings.target_kind))
}

/// At which ports TLS ends.
struct Ends {
    tls: Option<Tls>,
    /// Names and numbers of ports; all of TCP where none is given.
    ports: Vec<String>,
}

impl Ends {
    fn of(intent: &Intent, annotations: &Annotations<'_>, settings: &Settings) -> Result<Self, Refusal> {
        let certificates: Vec<_> = annotations.list("ssl-cert").into_iter().map(str::to_owned).collect();
        if let Some(other) = certificates.iter().find(|arn| !arn.starts_with("arn:")) {
            return Err(wrong("ssl-cert", other, "no ARN of a certificate", "write ARNs"));
        }
        let ports: Vec<_> = annotations.list("ssl-ports").into_iter().map(str::to_owned).collect();
        let policy = annotations.text("ssl-negotiation-policy");
        let words =
            ["None", "HTTP1Only", "HTTP2Only", "HTTP2Optional", "HTTP2Preferred"].map(|word| (word, word.to_owned()));
        let alpn = annotations.word("alpn-policy", &words)?;
        if certificates.is_empty() {
            for name in ["ssl-ports", "ssl-negotiation-policy", "alpn-policy", "backend-protocol"] {
                if annotations.text(name).is_some_and(|value| value != "tcp") {
                    return Err(contradiction(
                        name,
                        format!("TLS ends nowhere without a certificate; give {}, or remove it", full("ssl-cert")),
                    ));
                }
            }
            return Ok(Self { tls: None, ports });
        }
        for port in &ports {
            let is = |entry: &Port| entry.protocol == Transport::Tcp && matches(port, entry);
            if !intent.ports.iter().any(is) {
                return Err(wrong(
                    "ssl-ports",
                    port,
                    "no TCP port of the Service",
                    "write names or numbers of its ports",
                ));
            }
        }
        let policy = policy.unwrap_or(&settings.ssl_policy).to_owned();
        Ok(Self { tls: Some(Tls { certificates, policy, alpn }), ports })
    }

    fn ends_at(&self, entries: &[&Port]) -> bool {
        let named = |entry: &&Port| self.ports.is_empty() || self.ports.iter().any(|port| matches(port, entry));
        self.tls.is_some() && entries.iter().any(|entry| entry.protocol == Transport::Tcp && named(entry))
    }
}

fn matches(port: &str, entry: &Port) -> bool {
    entry.name == port || entry.port.to_string() == port
}

/// The attributes of target groups.
struct GroupAttributes {
    all: Pairs,
    each: BTreeMap<u16, Pairs>,
}

impl GroupAttributes {
    fn of(intent: &Intent, annotations: &Annotations<'_>) -> Result<Self, Refusal> {
        let mut all = annotations.map("target-group-attributes")?;
        let mut each: BTreeMap<u16, Pairs> = BTreeMap::new();
        let known: BTreeSet<u16> = intent.ports.iter().map(|port| port.port).collect();
        for (port, text) in annotations.starting(TARGET_GROUP_ATTRIBUTES_OF) {
            let name = format!("{TARGET_GROUP_ATTRIBUTES_OF}{port}");
            let Some(number) = port.parse().ok().filter(|number| known.contains(number)) else {
                return Err(contradiction(&name, "the Service has no such port; correct or remove it"));
            };
            let mut pairs = map(&full(&name), text)?;
            // An empty value overrides nothing (ALBC's rule).
            pairs.retain(|_, value| !value.is_empty());
            each.insert(number, pairs);
        }
        match annotations.text("proxy-protocol") {
            None => {}
            Some("*") => {
                all.insert(PROXY_PROTOCOL.to_owned(), true.to_string());
                for pairs in each.values_mut() {
                    pairs.remove(PROXY_PROTOCOL);
                }
            }
            Some(other) => return Err(wrong("proxy-protocol", other, "not `*`", "write that, or remove it")),
        }
        let name = "proxy-protocol-per-target-group";
        if annotations.text(name).is_some() {
            let mut listed = BTreeSet::new();
            for word in annotations.list(name) {
                let number = word.parse().ok().filter(|number| known.contains(number));
                listed.insert(
                    number.ok_or_else(|| wrong(name, word, "no port of the Service", "write numbers of its ports"))?,
                );
            }
            for port in known {
                each.entry(port).or_default().insert(PROXY_PROTOCOL.to_owned(), listed.contains(&port).to_string());
            }
        }
        Ok(Self { all, each })
    }

    fn of_port(&self, port: u16) -> Pairs {
        let mut pairs = self.all.clone();
        pairs.extend(self.each.get(&port).cloned().unwrap_or_default());
        pairs
    }
}

fn listener_attributes(annotations: &Annotations<'_>) -> Result<BTreeMap<(Protocol, u16), Pairs>, Refusal> {
    let mut all = BTreeMap::new();
    for (which, text) in annotations.starting(LISTENER_ATTRIBUTES_OF) {
        let name = format!("{LISTENER_ATTRIBUTES_OF}{which}");
        let (protocol, port) = which.rsplit_once('-').unwrap_or((which, ""));
        // A listener of TLS has none (ALBC's rule).
        let protocol = [Protocol::Tcp, Protocol::Udp, Protocol::TcpUdp].into_iter().find(|p| p.as_str() == protocol);
        let (Some(protocol), Ok(port)) = (protocol, port.parse()) else {
            return Err(contradiction(&name, "it names no listener; write TCP, UDP or TCP_UDP, `-`, and a port"));
        };
        all.insert((protocol, port), map(&full(&name), text)?);
    }
    Ok(all)
}
