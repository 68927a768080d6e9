//! What a Service asks of the load balancer as a whole.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use berth_api::IpFamily;
use berth_provider::Intent;

use crate::annotation::{Annotations, contradiction, full, wrong};
use crate::cloud::{IpAddressType, Pairs, Scheme};
use crate::refusal::Refusal;
use crate::settings::Settings;
use crate::tags;

/// Longest name of a load balancer (AWS rule).
const NAME_MAX: usize = 32;
/// Longest key and value of a tag (AWS rule).
const TAG_KEY_MAX: usize = 128;
const TAG_VALUE_MAX: usize = 256;
/// Whether internet gateways are kept from the IPv6 addresses of an internal load balancer; they are where nobody says otherwise.
const DENIES_GATEWAYS: &str = "ipv6.deny_all_igw_traffic";
/// Attributes that several Services of a group cannot each have.
const CLIENT_ROUTING: &str = "dns_record.client_routing_policy";
/// Whether the security groups of nodes and pods are opened to the load balancer.
const OPENS_TARGETS: &str = "manage-backend-security-group-rules";
/// Whether a load balancer is protected against deletion.
pub const DELETION_PROTECTION: &str = "deletion_protection.enabled";

/// Which security groups a load balancer has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Security {
    /// One of our own.
    Managed,
    /// These, by their identities or the tag `Name`.
    Given(Vec<String>),
    /// None, now and for ever.
    None,
}

/// Addresses that are chosen, one for each subnet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    /// Elastic IPs, by their allocations.
    pub allocations: Vec<String>,
    /// Private addresses.
    pub private_v4: BTreeSet<Ipv4Addr>,
    /// IPv6 addresses.
    pub v6: BTreeSet<Ipv6Addr>,
}

/// What a Service asks of the load balancer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Front {
    /// The name, if one is asked for. It counts when the load balancer is made.
    pub name: Option<String>,
    /// Who reaches it.
    pub scheme: Scheme,
    /// Its families.
    pub ip_address_type: IpAddressType,
    /// Subnets, by their identities or the tag `Name`; empty where they are found.
    pub subnets: Vec<String>,
    /// Addresses that are chosen.
    pub addresses: Addresses,
    /// Its security groups.
    pub security: Security,
    /// Whether it also has the backend security group, which nodes and pods let in.
    pub opens_targets: bool,
    /// Whether their rules hold for traffic through PrivateLink, if that is said.
    pub enforce_on_private_link: Option<bool>,
    /// Attributes that are set; others are left as they are.
    pub attributes: Pairs,
    /// Tags on everything that is made.
    pub tags: Pairs,
}

impl Front {
    pub(super) fn of(intent: &Intent, annotations: &Annotations<'_>, settings: &Settings) -> Result<Self, Refusal> {
        let (scheme, said_by) = scheme(annotations)?;
        let families = [("ipv4", IpAddressType::Ipv4), ("dualstack", IpAddressType::Dualstack)];
        let ip_address_type = annotations.word("ip-address-type", &families)?.unwrap_or(IpAddressType::Ipv4);
        if intent.families.has(IpFamily::V6) && ip_address_type == IpAddressType::Ipv4 {
            let why = format!(
                "the Service has IPv6, and the load balancer is not dual-stack; set {} to dualstack",
                full("ip-address-type")
            );
            return Err(Refusal::Contradiction { field: "spec.ipFamilies".to_owned(), why });
        }
        let subnets: Vec<_> = annotations.list("subnets").into_iter().map(str::to_owned).collect();
        let (security, opens_targets) = security(annotations)?;
        let front = Self {
            name: name(annotations)?,
            scheme,
            ip_address_type,
            addresses: addresses(annotations, scheme, ip_address_type, subnets.len())?,
            subnets,
            security,
            opens_targets,
            enforce_on_private_link: annotations.switch("inbound-sg-rules-on-private-link-traffic")?,
            attributes: attributes(annotations)?,
            tags: resource_tags(annotations, settings)?,
        };
        if front.security == Security::None && front.enforce_on_private_link.is_some() {
            let why = "the load balancer has no security group whose rules could hold; remove one of the two";
            return Err(contradiction("inbound-sg-rules-on-private-link-traffic", why));
        }
        front.admitted(intent, said_by, settings)?;
        Ok(front)
    }

    fn admitted(&self, intent: &Intent, scheme_by: &str, settings: &Settings) -> Result<(), Refusal> {
        let namespace = &intent.id.key.namespace;
        let refused = |name: &str, flag| Refusal::NotAdmitted { field: full(name), namespace: namespace.clone(), flag };
        let admission = &settings.admission;
        if self.scheme == Scheme::InternetFacing && !admission.internet_facing.has(namespace) {
            return Err(refused(scheme_by, "--aws-internet-facing-namespaces"));
        }
        // An internal load balancer of both families that internet gateways reach is as open as one that faces the internet.
        let is_open = self.attributes.get(DENIES_GATEWAYS).is_some_and(|denies| denies != "true");
        if is_open && !admission.internet_facing.has(namespace) {
            return Err(refused("attributes", "--aws-internet-facing-namespaces"));
        }
        let references = [
            ("eip-allocations", !self.addresses.allocations.is_empty()),
            ("subnets", !self.subnets.is_empty()),
            ("security-groups", matches!(self.security, Security::Given(_))),
        ];
        match references.into_iter().find(|(_, refers)| *refers && !admission.references.has(namespace)) {
            Some((name, _)) => Err(refused(name, "--aws-reference-namespaces")),
            None => Ok(()),
        }
    }
}

/// The scheme, and the annotation that says so.
fn scheme(annotations: &Annotations<'_>) -> Result<(Scheme, &'static str), Refusal> {
    let words = [("internal", Scheme::Internal), ("internet-facing", Scheme::InternetFacing)];
    let by_word = annotations.word("scheme", &words)?.map(|scheme| (scheme, "scheme"));
    // The older annotation counts where the newer one is not there (ALBC's rule).
    let older = annotations.truth("internal")?.map(|is| if is { Scheme::Internal } else { Scheme::InternetFacing });
    Ok(by_word.or(older.map(|scheme| (scheme, "internal"))).unwrap_or((Scheme::Internal, "scheme")))
}

fn name(annotations: &Annotations<'_>) -> Result<Option<String>, Refusal> {
    let Some(name) = annotations.text("name") else { return Ok(None) };
    let fits = name.len() <= NAME_MAX
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-')
        && !name.starts_with("internal-");
    let advice =
        "write at most 32 letters, digits and `-`, none of those at an end, and nothing that begins with internal-";
    if fits { Ok(Some(name.to_owned())) } else { Err(wrong("name", name, "no name that AWS gives", advice)) }
}

fn read<T: FromStr + Ord>(annotations: &Annotations<'_>, name: &str, what: &str) -> Result<BTreeSet<T>, Refusal> {
    let mut all = BTreeSet::new();
    for text in annotations.list(name) {
        let parsed =
            text.parse().map_err(|_| wrong(name, text, format!("no {what} address"), "correct or remove it"))?;
        if !all.insert(parsed) {
            return Err(wrong(name, text, "there twice", "remove one"));
        }
    }
    Ok(all)
}

fn addresses(
    annotations: &Annotations<'_>,
    scheme: Scheme,
    families: IpAddressType,
    subnets: usize,
) -> Result<Addresses, Refusal> {
    let (eip, private, six) = ("eip-allocations", "private-ipv4-addresses", "ipv6-addresses");
    let allocations: Vec<_> = annotations.list(eip).into_iter().map(str::to_owned).collect();
    let private_v4 = read::<Ipv4Addr>(annotations, private, "IPv4")?;
    let v6 = read::<Ipv6Addr>(annotations, six, "IPv6")?;
    if let Some(other) = allocations.iter().find(|id| !id.starts_with("eipalloc-")) {
        return Err(wrong(
            eip,
            other,
            "no allocation of an Elastic IP",
            "write identities such as eipalloc-0123456789abcdef0",
        ));
    }
    if allocations.iter().collect::<BTreeSet<_>>().len() < allocations.len() {
        return Err(contradiction(eip, "an Elastic IP is there twice; remove one"));
    }
    if !allocations.is_empty() && scheme == Scheme::Internal {
        return Err(contradiction(
            eip,
            "only an internet-facing load balancer has Elastic IPs; set the scheme, or remove them",
        ));
    }
    if !private_v4.is_empty() && scheme == Scheme::InternetFacing {
        return Err(contradiction(
            private,
            "only an internal load balancer has private addresses of choice; remove them",
        ));
    }
    if !v6.is_empty() && families == IpAddressType::Ipv4 {
        return Err(contradiction(
            six,
            "the load balancer is not dual-stack; set the address type to dualstack, or remove them",
        ));
    }
    for (name, count) in [(eip, allocations.len()), (private, private_v4.len()), (six, v6.len())] {
        if count > 0 && subnets > 0 && count != subnets {
            return Err(contradiction(name, format!("{count} are given for {subnets} subnets; give one for each")));
        }
    }
    Ok(Addresses { allocations, private_v4, v6 })
}

/// Its security groups, and whether it has the backend security group beside them.
fn security(annotations: &Annotations<'_>) -> Result<(Security, bool), Refusal> {
    let given: Vec<_> = annotations.list("security-groups").into_iter().map(str::to_owned).collect();
    let opens = annotations.truth(OPENS_TARGETS)?;
    match (annotations.truth("disable-nlb-sg")?.unwrap_or(false), given.is_empty()) {
        (true, true) if opens == Some(false) => Ok((Security::None, false)),
        // To let in whoever passes a load balancer without rules would be to let in everybody.
        (true, true) => Err(Refusal::LeftToPeople {
            field: full("disable-nlb-sg"),
            why: format!(
                "the security groups of nodes and pods are opened to those of load balancers, and to nobody else; remove it, or set {} \
                 to \"false\" and open them by hand",
                full(OPENS_TARGETS)
            ),
        }),
        (true, false) => {
            Err(contradiction("disable-nlb-sg", "security groups are given as well; remove one of the two"))
        }
        (false, true) if opens == Some(false) => Err(contradiction(
            OPENS_TARGETS,
            "nodes and pods are closed by hand only to load balancers with security groups of their own; remove it, or give those",
        )),
        (false, true) => Ok((Security::Managed, true)),
        (false, false) => Ok((Security::Given(given), opens.unwrap_or(false))),
    }
}

fn attributes(annotations: &Annotations<'_>) -> Result<Pairs, Refusal> {
    let mut attributes = annotations.map("attributes")?;
    // The older annotations override the same keys (ALBC's rule).
    for (name, key) in [
        ("access-log-enabled", "access_logs.s3.enabled"),
        ("cross-zone-load-balancing-enabled", "load_balancing.cross_zone.enabled"),
    ] {
        if let Some(truth) = annotations.truth(name)? {
            attributes.insert(key.to_owned(), truth.to_string());
        }
    }
    for (name, key) in [
        ("access-log-s3-bucket-name", "access_logs.s3.bucket"),
        ("access-log-s3-bucket-prefix", "access_logs.s3.prefix"),
    ] {
        if let Some(text) = annotations.text(name) {
            attributes.insert(key.to_owned(), text.to_owned());
        }
    }
    let policies = ["availability_zone_affinity", "partial_availability_zone_affinity", "any_availability_zone"];
    if let Some(policy) = attributes.get(CLIENT_ROUTING).filter(|policy| !policies.contains(&policy.as_str())) {
        return Err(wrong(
            "attributes",
            policy,
            format!("no value of {CLIENT_ROUTING}"),
            format!("write one of {}", policies.join(", ")),
        ));
    }
    for key in [DELETION_PROTECTION, "access_logs.s3.enabled", "load_balancing.cross_zone.enabled"] {
        if let Some(value) = attributes.get(key).filter(|value| !["true", "false"].contains(&value.as_str())) {
            return Err(wrong(
                "attributes",
                value,
                format!("neither true nor false, as {key} has to be"),
                "write one of the two",
            ));
        }
    }
    Ok(attributes)
}

fn resource_tags(annotations: &Annotations<'_>, settings: &Settings) -> Result<Pairs, Refusal> {
    let name = "additional-resource-tags";
    let tags = annotations.map(name)?;
    for (key, value) in &tags {
        let refuse = |what: &str, advice: &str| Err(wrong(name, key, what, advice));
        if key.starts_with("aws:") || key.starts_with(tags::PREFIX) {
            return refuse("a tag of AWS's or Berth's own", "choose another key");
        }
        if settings.external_tags.contains(key) {
            return refuse("a tag that somebody else manages here", "remove it");
        }
        if key.len() > TAG_KEY_MAX || value.len() > TAG_VALUE_MAX {
            return refuse("too long", "use keys of at most 128 and values of at most 256 bytes");
        }
    }
    Ok(tags)
}
