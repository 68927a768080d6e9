//! What a Service asks of its frontends and their addresses.

use std::collections::BTreeMap;
use std::net::IpAddr;

use berth_api::IpFamily;
use berth_api::service::Request;
use berth_provider::Intent;

use super::families;
use crate::annotation::{Annotations, contradiction, full, wrong};
use crate::arm::Id;
use crate::refusal::Refusal;
use crate::settings::{DefaultScheme, Settings};

const INTERNAL: &str = "azure-load-balancer-internal";
const SUBNET: &str = "azure-load-balancer-internal-subnet";
const GROUP: &str = "azure-load-balancer-resource-group";
const LABEL: &str = "azure-dns-label-name";
/// Longest label of a domain name (DNS rule).
const LABEL_MAX: usize = 63;
/// Longest value of a tag (Azure rule).
pub const TAG_VALUE_MAX: usize = 256;
/// Longest name of a tag (Azure rule).
const TAG_NAME_MAX: usize = 512;
/// Longest name of a subnet or of a public IP (Azure rule).
const NAME_MAX: usize = 80;
/// Longest name of a resource group (Azure rule).
const GROUP_NAME_MAX: usize = 90;

/// Who reaches a frontend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scheme {
    /// Who is in the network.
    Internal,
    /// Everybody.
    Public,
}

/// What becomes of the domain name of a public IP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dns {
    /// Nothing is said of it.
    Unsaid,
    /// It has none.
    None,
    /// It begins so.
    Label(String),
}

/// What is asked of the frontend of one family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FrontAsks {
    /// The address.
    pub address: Option<IpAddr>,
    /// The public IP, by its name.
    pub public_ip: Option<String>,
    /// The prefix that a new public IP is from.
    pub prefix: Option<Id>,
    /// Whether it is the IPv6 one of a dual-stack Service.
    pub second: bool,
}

/// What a Service asks of its frontends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Front {
    /// Who reaches them.
    pub scheme: Scheme,
    /// The subnet that an internal Service names.
    pub subnet: Option<String>,
    /// Each, in the order of the Service's families.
    pub families: Vec<(IpFamily, FrontAsks)>,
    /// The resource group of public IPs.
    pub group: String,
    /// Tags of public IPs.
    pub tags: BTreeMap<String, String>,
    /// IP tags of public IPs.
    pub ip_tags: BTreeMap<String, String>,
    /// Their domain name.
    pub dns: Dns,
    /// Whether it may use what exists and is not its own.
    pub may_refer: bool,
}

impl Front {
    pub(super) fn of(
        intent: &Intent,
        request: &Request,
        annotations: &Annotations<'_>,
        settings: &Settings,
    ) -> Result<Self, Refusal> {
        let namespace = &intent.id.key.namespace;
        let internal = annotations.maybe_truth(INTERNAL)?;
        let internal = internal.unwrap_or(settings.default_scheme == DefaultScheme::Internal);
        let scheme = if internal { Scheme::Internal } else { Scheme::Public };
        let refused =
            |field: &str, flag| Refusal::NotAdmitted { field: full(field), namespace: namespace.clone(), flag };
        if scheme == Scheme::Public && !settings.admission.public.has(namespace) {
            return Err(refused(INTERNAL, "--azure-public-namespaces"));
        }
        let may_refer = settings.admission.references.has(namespace);
        let referring = |field: &str| {
            if may_refer { Ok(()) } else { Err(refused(field, "--azure-reference-namespaces")) }
        };
        fits(annotations, scheme)?;
        let subnet = annotations.resource(SUBNET, NAME_MAX, &[])?.map(str::to_owned);
        if subnet.as_ref().is_some_and(|subnet| *subnet != settings.subnet) {
            referring(SUBNET)?;
        }
        let group = annotations.resource(GROUP, GROUP_NAME_MAX, &['(', ')'])?;
        let group = group.unwrap_or(&settings.resource_group).to_owned();
        if !group.eq_ignore_ascii_case(&settings.resource_group) {
            referring(GROUP)?;
        }
        let all = families(intent);
        let dual = all.len() > 1;
        let mut asks = Vec::new();
        for family in &all {
            let (field, address) = address(*family, annotations, request)?;
            let one = FrontAsks {
                address,
                public_ip: match of_family(annotations, "azure-pip-name", *family, dual) {
                    Some((name, _)) => annotations.resource(&name, NAME_MAX, &[])?.map(str::to_owned),
                    None => None,
                },
                prefix: prefix(annotations, *family, dual)?,
                second: dual && *family == IpFamily::V6,
            };
            if scheme == Scheme::Public {
                let named = [
                    (field, one.address.is_some()),
                    ("azure-pip-name", one.public_ip.is_some()),
                    ("azure-pip-prefix-id", one.prefix.is_some()),
                ];
                for (field, _) in named.into_iter().filter(|(_, is)| *is) {
                    referring(field)?;
                }
                check_public(intent, &one)?;
            }
            asks.push((*family, one));
        }
        for (name, family) in [("azure-load-balancer-ipv4", IpFamily::V4), ("azure-load-balancer-ipv6", IpFamily::V6)] {
            if annotations.text(name).is_some() && !all.contains(&family) {
                return Err(contradiction(name, format!("the Service has no {family} (`spec.ipFamilies`); remove it")));
            }
        }
        Ok(Self {
            scheme,
            subnet,
            families: asks,
            group,
            tags: tags(annotations)?,
            ip_tags: annotations.map("azure-pip-ip-tags")?,
            dns: dns(annotations)?,
            may_refer,
        })
    }

    /// The subnet of internal frontends.
    pub fn subnet_name<'a>(&'a self, settings: &'a Settings) -> &'a str {
        self.subnet.as_deref().unwrap_or(&settings.subnet)
    }
}

/// Annotations that mean something for frontends of the other scheme only.
fn fits(annotations: &Annotations<'_>, scheme: Scheme) -> Result<(), Refusal> {
    let (others, what): (&[&str], _) = match scheme {
        Scheme::Internal => (
            &[
                "azure-pip-name",
                "azure-pip-name-ipv6",
                "azure-pip-prefix-id",
                "azure-pip-prefix-id-ipv6",
                "azure-pip-tags",
                "azure-pip-ip-tags",
                LABEL,
                GROUP,
            ],
            "it is about public IPs, and the Service is internal",
        ),
        Scheme::Public => (&[SUBNET], "it is about internal frontends, and the Service is public"),
    };
    let other = scheme == Scheme::Public;
    match others.iter().find(|name| annotations.text(name).is_some()) {
        Some(name) => Err(contradiction(name, format!("{what}; remove it, or set {}: \"{other}\"", full(INTERNAL)))),
        None => Ok(()),
    }
}

fn of_family<'a>(
    annotations: &Annotations<'a>,
    name: &'static str,
    family: IpFamily,
    dual: bool,
) -> Option<(String, &'a str)> {
    let of_v6 = format!("{name}-ipv6");
    let own = if family == IpFamily::V6 { of_v6 } else { name.to_owned() };
    match annotations.text(&own) {
        Some(value) => Some((own, value)),
        None if dual || family == IpFamily::V4 => None,
        None => annotations.text(name).map(|value| (name.to_owned(), value)),
    }
}

fn address(
    family: IpFamily,
    annotations: &Annotations<'_>,
    request: &Request,
) -> Result<(&'static str, Option<IpAddr>), Refusal> {
    let (name, asked) = match family {
        IpFamily::V4 => ("azure-load-balancer-ipv4", request.addresses.v4),
        IpFamily::V6 => ("azure-load-balancer-ipv6", request.addresses.v6),
    };
    let by_annotation = annotations.address(name)?;
    if let Some(other) = by_annotation.filter(|address| IpFamily::of(*address) != family) {
        return Err(wrong(name, &other.to_string(), format!("no {family} address"), "correct it"));
    }
    match (by_annotation, asked) {
        (Some(a), Some(b)) if a != b => {
            Err(contradiction(name, format!("it asks for {a}, and the Service asks for {b} elsewhere; remove one")))
        }
        (a, b) => Ok((name, a.or(b))),
    }
}

fn prefix(annotations: &Annotations<'_>, family: IpFamily, dual: bool) -> Result<Option<Id>, Refusal> {
    let Some((name, value)) = of_family(annotations, "azure-pip-prefix-id", family, dual) else { return Ok(None) };
    let is_prefix = value.starts_with("/subscriptions/") && value.to_lowercase().contains("/publicipprefixes/");
    let advice = "write /subscriptions/…/providers/Microsoft.Network/publicIPPrefixes/NAME";
    if is_prefix { Ok(Some(Id::new(value))) } else { Err(wrong(&name, value, "no public IP prefix", advice)) }
}

fn check_public(intent: &Intent, asks: &FrontAsks) -> Result<(), Refusal> {
    if let Some(address) = asks.address {
        let private = match address {
            IpAddr::V4(v4) => v4.is_private() || v4.is_loopback() || v4.is_link_local() || v4.is_unspecified(),
            IpAddr::V6(v6) => v6.is_unique_local() || v6.is_loopback() || v6.is_unicast_link_local(),
        };
        if private {
            let key = &intent.id.key;
            let message = format!("the public Service {key} cannot use the non-public address {address}");
            return Err(Refusal::Request(message, berth_api::Reason::InvalidRequest));
        }
        if asks.public_ip.is_some() || asks.prefix.is_some() {
            let why = format!("the address {address} is asked for too; remove one of the two");
            let name = if asks.public_ip.is_some() { "azure-pip-name" } else { "azure-pip-prefix-id" };
            return Err(contradiction(name, why));
        }
    }
    Ok(())
}

fn tags(annotations: &Annotations<'_>) -> Result<BTreeMap<String, String>, Refusal> {
    let tags = annotations.map("azure-pip-tags")?;
    for (key, value) in &tags {
        if key.len() > TAG_NAME_MAX || value.len() > TAG_VALUE_MAX || key.contains(['<', '>', '%', '&', '\\', '?', '/'])
        {
            let advice = "names have at most 512 letters and none of <>%&\\?/, values at most 256";
            return Err(wrong("azure-pip-tags", &format!("{key}={value}"), "no tag", advice));
        }
    }
    Ok(tags)
}

fn dns(annotations: &Annotations<'_>) -> Result<Dns, Refusal> {
    let Some(label) = annotations.raw(LABEL) else { return Ok(Dns::Unsaid) };
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let ends = !label.ends_with('-') && label.starts_with(|c: char| c.is_ascii_lowercase());
    match label {
        "" => Ok(Dns::None),
        _ if (3..=LABEL_MAX).contains(&label.len()) && ends && label.bytes().all(inner) => {
            Ok(Dns::Label(label.to_owned()))
        }
        _ => Err(wrong(LABEL, label, "no label", "write 3 to 63 of a-z, 0-9 and `-`, beginning with a letter")),
    }
}
