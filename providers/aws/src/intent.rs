//! What a Service asks for, read from its spec and annotations into types that cannot be wrong.

mod front;
mod health;
mod ports;

use std::collections::{BTreeMap, BTreeSet};

use berth_api::annotations as own;
use berth_api::{IpFamily, Reason};
use berth_provider::{Intent, ServiceId};
use ipnet::{Ipv4Net, Ipv6Net};

use crate::annotation::{Annotations, SOURCE_RANGES, contradiction, full};
use crate::cloud::{HealthCheck, IpAddressType, Pairs, Protocol, TargetFamily, TargetType};
use crate::refusal::Refusal;
use crate::settings::Settings;
use crate::targets::NODE_LABELS;

pub use front::{Addresses, DELETION_PROTECTION, Front, Security};

/// Where traffic goes: to node ports of instances, or to the endpoints themselves.
pub type TargetKind = TargetType;

/// Longest name of a group that load balancers are shared in: it is part of a tag, and of a label's length as names here are.
const GROUP_MAX: usize = 63;

/// What a Service asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asks {
    /// Which Service.
    pub service: ServiceId,
    /// When it was made: the oldest of a group decides.
    pub created: i64,
    /// Whether what interrupts traffic may be done.
    pub allow_replacement: bool,
    /// Whether its cloud objects are to be left and forgotten.
    pub disown: bool,
    /// What it asks of the load balancer, which a group shares.
    pub front: Front,
    /// Its listeners, each with its target group, by port.
    pub ports: BTreeMap<u16, PortAsks>,
    /// Who may reach them.
    pub sources: Sources,
    /// Labels of the nodes that are targets; of all of them where there are none.
    pub node_labels: Pairs,
}

/// What TLS needs to end at the load balancer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// The certificates. The first is the one that is shown by default.
    pub certificates: Vec<String>,
    /// The security policy.
    pub policy: String,
    /// What is negotiated.
    pub alpn: Option<String>,
}

/// A port of a load balancer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortAsks {
    /// What its listener speaks.
    pub protocol: Protocol,
    /// For [`Protocol::Tls`].
    pub tls: Option<Tls>,
    /// Attributes of the listener.
    pub attributes: Pairs,
    /// Where its traffic goes.
    pub target: TargetAsks,
}

/// A target group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetAsks {
    /// What targets are named by.
    pub kind: TargetKind,
    /// How they are spoken to.
    pub protocol: Protocol,
    /// The node port or target port; 1 where each target has one of its own.
    pub port: u16,
    /// Their family.
    pub family: TargetFamily,
    /// How they are asked whether they serve.
    pub health: HealthCheck,
    /// Attributes that are set.
    pub attributes: Pairs,
}

/// Who may reach a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    /// Ranges of IPv4 addresses.
    pub v4: BTreeSet<String>,
    /// Ranges of IPv6 addresses.
    pub v6: BTreeSet<String>,
    /// Prefix lists.
    pub prefix_lists: BTreeSet<String>,
    /// Whether the ICMP messages are let in by which the path MTU is found.
    pub path_mtu: bool,
}

/// Which load balancer a Service is to be on, as far as that can be said of one that is refused: the group's name, or none.
///
/// # Errors
/// When the name is none that a group may have.
pub fn group(intent: &Intent) -> Result<Option<&str>, Refusal> {
    let Some(name) = intent.annotations.get(own::LOAD_BALANCER_GROUP).map(|name| name.trim()).filter(|n| !n.is_empty())
    else {
        return Ok(None);
    };
    let fits =
        name.len() <= GROUP_MAX && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if fits {
        return Ok(Some(name));
    }
    Err(Refusal::Value {
        field: own::LOAD_BALANCER_GROUP.to_owned(),
        value: name.to_owned(),
        wrong: "no name of a group".to_owned(),
        advice: format!("write at most {GROUP_MAX} lower-case letters, digits and `-`"),
    })
}

/// One of our own annotations that is `true` or `false`.
fn own_truth(intent: &Intent, name: &str) -> Result<bool, Refusal> {
    match intent.annotations.get(name).map_or("", |value| value.trim()) {
        "true" => Ok(true),
        "false" | "" => Ok(false),
        other => Err(Refusal::Value {
            field: name.to_owned(),
            value: other.to_owned(),
            wrong: "neither true nor false".to_owned(),
            advice: "write one of the two".to_owned(),
        }),
    }
}

impl Asks {
    /// Reads a Service.
    ///
    /// # Errors
    /// When something that it asks for is wrong, not done, or not admitted; the message names the annotation or field.
    pub fn of(intent: &Intent, settings: &Settings) -> Result<Self, Refusal> {
        let request = intent.cloud_request.as_ref().map_err(|e| Refusal::Request(e.to_string(), e.reason()))?;
        let refuse = |message: &str, reason| Err(Refusal::Request(message.to_owned(), reason));
        if request.addresses.v4.is_some() || request.addresses.v6.is_some() {
            let message = "an address is asked for, and AWS gives those of its own; use the annotation \
                           service.beta.kubernetes.io/aws-load-balancer-private-ipv4-addresses or -eip-allocations";
            return refuse(message, Reason::Unsupported);
        }
        if request.pool.is_some() {
            return refuse("a pool is asked for, and AWS has none; remove the annotation", Reason::Unsupported);
        }
        if intent.sharing.is_some() {
            let message = "addresses are not shared by key on AWS; use berth.dev/load-balancer-group instead";
            return refuse(message, Reason::SharingUnsupported);
        }
        let annotations = Annotations::of(&intent.annotations)?;
        let disown = own_truth(intent, own::DISOWN)?;
        if group(intent)?.is_some() && disown {
            let field = own::DISOWN.to_owned();
            let why = "one Service of a group cannot disown the load balancer of all; leave the group first".to_owned();
            return Err(Refusal::Contradiction { field, why });
        }
        let front = Front::of(intent, &annotations, settings)?;
        let ports = ports::read(intent, &annotations, &front, settings)?;
        let sources = Sources::of(intent, &annotations, &front)?;
        let node_labels = annotations.map(NODE_LABELS)?;
        if !node_labels.is_empty() && ports::target_kind(&annotations, settings)? == TargetKind::Ip {
            let why = "targets are addresses of pods, for which no node stands; remove it, or use instance targets";
            return Err(contradiction(NODE_LABELS, why));
        }
        let allow_replacement = own_truth(intent, own::ALLOW_REPLACEMENT)?;
        let (service, created) = (intent.id.clone(), intent.created);
        Ok(Self { service, created, allow_replacement, disown, front, ports, sources, node_labels })
    }
}

impl Sources {
    fn of(intent: &Intent, annotations: &Annotations<'_>, front: &Front) -> Result<Self, Refusal> {
        let spec = "spec.loadBalancerSourceRanges";
        let by_spec: Vec<_> = intent.source_ranges.iter().map(|range| (spec, range.trim())).collect();
        let by_annotation = || annotations.source_ranges().into_iter().map(|range| (SOURCE_RANGES, range)).collect();
        let ranges: Vec<_> = if by_spec.is_empty() { by_annotation() } else { by_spec };
        let prefix_lists: BTreeSet<_> =
            annotations.list("security-group-prefix-lists").into_iter().map(str::to_owned).collect();
        if let Some(other) = prefix_lists.iter().find(|list| !list.starts_with("pl-")) {
            let advice = "write identities such as pl-0123456789abcdef0";
            return Err(crate::annotation::wrong("security-group-prefix-lists", other, "no prefix list", advice));
        }
        let path_mtu = annotations.switch("enable-icmp-for-path-mtu-discovery")?.unwrap_or(false);
        let mut sources = Self { prefix_lists, path_mtu, ..Self::default() };
        for (field, range) in &ranges {
            if let Ok(v4) = range.parse::<Ipv4Net>() {
                sources.v4.insert(v4.trunc().to_string());
            } else if let Ok(v6) = range.parse::<Ipv6Net>() {
                sources.v6.insert(v6.trunc().to_string());
            } else {
                return Err(Refusal::Value {
                    field: (*field).to_owned(),
                    value: (*range).to_owned(),
                    wrong: "no range of addresses".to_owned(),
                    advice: "write one such as 192.0.2.0/24".to_owned(),
                });
            }
        }
        let is_dual = front.ip_address_type == IpAddressType::Dualstack;
        if let Some(range) = sources.v6.first().filter(|_| !is_dual) {
            let field = ranges.first().map_or(spec, |(field, _)| field).to_owned();
            let why = format!(
                "the range {range} is of IPv6, and the load balancer is not dual-stack; set {} to dualstack",
                full("ip-address-type")
            );
            return Err(Refusal::Contradiction { field, why });
        }
        if front.security != Security::Managed {
            let all = |v4: &BTreeSet<String>| v4.iter().all(|range| range == "0.0.0.0/0" || range == "::/0");
            if !(all(&sources.v4) && all(&sources.v6)) {
                let field = ranges.first().map_or(spec, |(field, _)| field).to_owned();
                let why = "only the security group that Berth makes lets in these sources, and the Service asks for others or \
                           none; remove one of the two"
                    .to_owned();
                return Err(Refusal::Contradiction { field, why });
            }
            for name in ["security-group-prefix-lists", "enable-icmp-for-path-mtu-discovery"] {
                if annotations.text(name).is_some_and(|value| value != "off") {
                    let why = "only the security group that Berth makes has such rules, and the Service asks for others or none";
                    return Err(contradiction(name, why));
                }
            }
        }
        // With no range given only prefix lists let in (ALBC's rule).
        if ranges.is_empty() && sources.prefix_lists.is_empty() {
            sources.v4.insert("0.0.0.0/0".to_owned());
            if is_dual {
                sources.v6.insert("::/0".to_owned());
            }
        }
        Ok(sources)
    }
}

/// The family of a Service's targets: that of its first address (ALBC's rule).
fn target_family(intent: &Intent) -> TargetFamily {
    match intent.families.first {
        IpFamily::V4 => TargetFamily::Ipv4,
        IpFamily::V6 => TargetFamily::Ipv6,
    }
}
