//! Which subnets a load balancer is put into: those that are named, or one that fits for each zone.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use ipnet::{Ipv4Net, Ipv6Net};

use crate::annotation::{contradiction, full};
use crate::cloud::{IpAddressType, Scheme, Subnet, SubnetMapping};
use crate::intent::{Addresses, Front};
use crate::refusal::Refusal;

/// Free addresses that a subnet must have (AWS rule).
const FREE_ADDRESSES: u32 = 8;
/// Stands for a subnet where there is no cloud in which it could be chosen.
pub const UNSEEN: &str = "<chosen in the cloud>";
/// What a cluster's subnets are tagged with; its name follows.
pub const CLUSTER_TAG: &str = "kubernetes.io/cluster/";

/// Why a subnet was not chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeftOut {
    /// It is another cluster's.
    OtherCluster(String),
    /// Others are tagged for such load balancers, and this one is not.
    NotTagged(&'static str),
    /// No subnet is tagged, and this one's route table does not fit the scheme.
    NotReachable(Scheme),
    /// Too few addresses are free.
    Full(u32),
    /// It has no IPv6 range.
    NoIpv6,
    /// It is in another kind of zone than those that come first.
    OtherZoneType(String),
    /// Another subnet of its zone was chosen.
    ZoneTaken(String),
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherCluster(tag) => write!(f, "it is another cluster's ({tag})"),
            Self::NotTagged(tag) => write!(f, "it lacks the tag {tag}, which others have"),
            Self::NotReachable(Scheme::Internal) => {
                write!(f, "it is public, and no subnet has the tag {}", role(Scheme::Internal))
            }
            Self::NotReachable(scheme) => {
                write!(f, "its route table has no internet gateway, and no subnet has the tag {}", role(*scheme))
            }
            Self::Full(free) => write!(f, "it has {free} free addresses of at least {FREE_ADDRESSES}"),
            Self::NoIpv6 => f.write_str("it has no IPv6 range"),
            Self::OtherZoneType(kind) => write!(f, "its zone is of another type ({kind})"),
            Self::ZoneTaken(by) => write!(f, "{by} serves its zone"),
        }
    }
}

/// What was chosen, and why each other subnet was not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// One for a zone, in order.
    pub chosen: Vec<Subnet>,
    /// The others.
    pub left_out: BTreeMap<String, LeftOut>,
}

/// The tag of subnets that load balancers of a scheme are put into.
pub fn role(scheme: Scheme) -> &'static str {
    match scheme {
        Scheme::InternetFacing => "kubernetes.io/role/elb",
        Scheme::Internal => "kubernetes.io/role/internal-elb",
    }
}

/// Chooses.
///
/// # Errors
/// When a subnet that is named does not exist or does not fit, or none fits.
pub fn choose(front: &Front, cluster: &str, subnets: &[Subnet]) -> Result<Choice, Refusal> {
    let choice = if front.subnets.is_empty() { found(front, cluster, subnets)? } else { given(front, subnets)? };
    Ok(choice)
}

fn given(front: &Front, subnets: &[Subnet]) -> Result<Choice, Refusal> {
    let mut chosen: Vec<Subnet> = Vec::new();
    for word in &front.subnets {
        let mut named = subnets.iter().filter(|s| s.id == *word || s.tags.get("Name") == Some(word));
        let Some(subnet) = named.next() else {
            return Err(contradiction("subnets", format!("the VPC has no subnet `{word}`; correct or remove it")));
        };
        if let Some(other) = named.next() {
            return Err(contradiction(
                "subnets",
                format!("`{word}` is {} and {}; name one by its identity", subnet.id, other.id),
            ));
        }
        if let Some(other) = chosen.iter().find(|c| c.zone == subnet.zone) {
            let why =
                format!("{} and {} are both in the zone {}; name one for each zone", other.id, subnet.id, subnet.zone);
            return Err(contradiction("subnets", why));
        }
        if front.ip_address_type == IpAddressType::Dualstack && subnet.ipv6_cidr.is_none() {
            return Err(contradiction(
                "subnets",
                format!("{} has no IPv6 range, and the load balancer is dual-stack", subnet.id),
            ));
        }
        if front.scheme == Scheme::InternetFacing && !subnet.is_public {
            let why = format!(
                "{} has no internet gateway in its route table, and the load balancer is internet-facing",
                subnet.id
            );
            return Err(contradiction("subnets", why));
        }
        if let Some(other) = chosen.iter().find(|c| c.zone_type != subnet.zone_type) {
            return Err(contradiction("subnets", format!("{} and {} are in zones of two types", other.id, subnet.id)));
        }
        chosen.push(subnet.clone());
    }
    Ok(Choice { chosen, left_out: BTreeMap::new() })
}

fn found(front: &Front, cluster: &str, subnets: &[Subnet]) -> Result<Choice, Refusal> {
    let tag = role(front.scheme);
    let tagged = |subnet: &Subnet| subnet.tags.get(tag).is_some_and(|value| value.is_empty() || value == "1");
    let any_tagged = subnets.iter().any(tagged);
    let own_tag = format!("{CLUSTER_TAG}{cluster}");
    let mut left_out = BTreeMap::new();
    let mut fit: Vec<&Subnet> = Vec::new();
    for subnet in subnets {
        let other =
            subnet.tags.keys().find(|key| key.starts_with(CLUSTER_TAG)).filter(|_| !subnet.tags.contains_key(&own_tag));
        let reachable = subnet.is_public == (front.scheme == Scheme::InternetFacing);
        let reason = if any_tagged && !tagged(subnet) {
            Some(LeftOut::NotTagged(tag))
        } else if !any_tagged && !reachable {
            Some(LeftOut::NotReachable(front.scheme))
        } else if let Some(tag) = other {
            Some(LeftOut::OtherCluster(tag.clone()))
        } else if subnet.free_addresses < FREE_ADDRESSES {
            Some(LeftOut::Full(subnet.free_addresses))
        } else if front.ip_address_type == IpAddressType::Dualstack && subnet.ipv6_cidr.is_none() {
            Some(LeftOut::NoIpv6)
        } else {
            None
        };
        match reason {
            Some(reason) => drop(left_out.insert(subnet.id.clone(), reason)),
            None => fit.push(subnet),
        }
    }
    // Those that are tagged for this cluster first, then by identity (ALBC's order).
    fit.sort_by_key(|subnet| (!subnet.tags.contains_key(&own_tag), subnet.id.clone()));
    let mut by_zone: BTreeMap<&str, &Subnet> = BTreeMap::new();
    // Ordinary zones before others: a load balancer cannot be in zones of two types (AWS rule).
    let kind =
        fit.iter().map(|subnet| subnet.zone_type.as_str()).min_by_key(|kind| (*kind != "availability-zone", *kind));
    for subnet in fit {
        let reason = if Some(subnet.zone_type.as_str()) != kind {
            LeftOut::OtherZoneType(subnet.zone_type.clone())
        } else if let Some(first) = by_zone.get(subnet.zone.as_str()) {
            LeftOut::ZoneTaken(first.id.clone())
        } else {
            by_zone.insert(&subnet.zone, subnet);
            continue;
        };
        left_out.insert(subnet.id.clone(), reason);
    }
    if by_zone.is_empty() {
        let each: Vec<_> = left_out.iter().map(|(id, reason)| format!("{id}: {reason}")).collect();
        let what = if each.is_empty() { "the VPC has none".to_owned() } else { each.join("; ") };
        return Err(Refusal::NoSubnet(what));
    }
    Ok(Choice { chosen: by_zone.into_values().cloned().collect(), left_out })
}

/// What a Service says of its subnets, where none was looked at: those that it names, and [`UNSEEN`] where it names none.
pub fn unseen(front: &Front) -> Vec<SubnetMapping> {
    let Addresses { allocations, private_v4, v6 } = &front.addresses;
    let count = front.subnets.len().max(allocations.len()).max(private_v4.len()).max(v6.len()).max(1);
    // Elastic IPs go by their order; an address goes to the subnet that it lies in.
    let by_range = !(private_v4.is_empty() && v6.is_empty());
    let subnet = |index: usize| match front.subnets.get(index) {
        Some(_) if by_range => format!("<one of {}>", front.subnets.join(", ")),
        Some(named) => named.clone(),
        None => UNSEEN.to_owned(),
    };
    let (private_v4, v6): (Vec<_>, Vec<_>) = (private_v4.iter().copied().collect(), v6.iter().copied().collect());
    let each = (0..count).map(|index| SubnetMapping {
        subnet_id: subnet(index),
        allocation_id: allocations.get(index).cloned(),
        private_ipv4: private_v4.get(index).copied(),
        ipv6: v6.get(index).copied(),
    });
    each.collect()
}

/// The chosen subnets, each with the address that was chosen for it.
///
/// # Errors
/// When there is not one address for each subnet.
pub fn mappings(addresses: &Addresses, chosen: &[Subnet]) -> Result<Vec<SubnetMapping>, Refusal> {
    let mut mappings: Vec<_> = chosen
        .iter()
        .map(|subnet| SubnetMapping {
            subnet_id: subnet.id.clone(),
            allocation_id: None,
            private_ipv4: None,
            ipv6: None,
        })
        .collect();
    let counts = [
        ("eip-allocations", addresses.allocations.len()),
        ("private-ipv4-addresses", addresses.private_v4.len()),
        ("ipv6-addresses", addresses.v6.len()),
    ];
    for (name, count) in counts {
        if count > 0 && count != chosen.len() {
            let ids: Vec<_> = chosen.iter().map(|subnet| subnet.id.as_str()).collect();
            let why = format!(
                "{count} are given for {} subnets ({}); give one for each, or name the subnets with {}",
                chosen.len(),
                ids.join(", "),
                full("subnets")
            );
            return Err(contradiction(name, why));
        }
    }
    for (mapping, allocation) in mappings.iter_mut().zip(&addresses.allocations) {
        mapping.allocation_id = Some(allocation.clone());
    }
    for address in &addresses.private_v4 {
        let at = place("private-ipv4-addresses", (*address).into(), chosen)?;
        mappings[at].private_ipv4 = Some(*address);
    }
    for address in &addresses.v6 {
        let at = place("ipv6-addresses", (*address).into(), chosen)?;
        mappings[at].ipv6 = Some(*address);
    }
    let mut taken = BTreeSet::new();
    for address in
        addresses.private_v4.iter().map(|a| IpAddr::from(*a)).chain(addresses.v6.iter().map(|a| IpAddr::from(*a)))
    {
        let name = if address.is_ipv4() { "private-ipv4-addresses" } else { "ipv6-addresses" };
        let at = place(name, address, chosen)?;
        if !taken.insert((at, address.is_ipv4())) {
            return Err(contradiction(
                name,
                format!("two addresses are in the subnet {}; give one for each", chosen[at].id),
            ));
        }
    }
    Ok(mappings)
}

/// The subnet that an address lies in.
fn place(name: &str, address: IpAddr, chosen: &[Subnet]) -> Result<usize, Refusal> {
    let holds = |subnet: &Subnet| match address {
        IpAddr::V4(v4) => subnet.cidr.parse::<Ipv4Net>().is_ok_and(|net| net.contains(&v4)),
        IpAddr::V6(v6) => {
            subnet.ipv6_cidr.as_ref().and_then(|cidr| cidr.parse::<Ipv6Net>().ok()).is_some_and(|net| net.contains(&v6))
        }
    };
    chosen
        .iter()
        .position(holds)
        .ok_or_else(|| contradiction(name, format!("{address} lies in no subnet of the load balancer")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::intent::Asks;
    use crate::tests::scene::{service, settings};
    use serde_json::json;

    fn front(annotations: &[(&str, &str)]) -> Front {
        Asks::of(&service("web", annotations, json!({})), &settings()).unwrap().front
    }

    /// A subnet from words: its identity, its zone, and of `public`, `v4only`, `full`, `local`, and its tags.
    fn subnet(words: &str) -> Subnet {
        let all: Vec<_> = words.split(' ').collect();
        let number = all[0].bytes().map(u32::from).sum::<u32>() % 200;
        let tags = all.iter().filter_map(|word| word.split_once('='));
        Subnet {
            id: all[0].to_owned(),
            zone: all[1].to_owned(),
            zone_type: if all.contains(&"local") { "local-zone" } else { "availability-zone" }.to_owned(),
            cidr: format!("10.0.{number}.0/24"),
            ipv6_cidr: (!all.contains(&"v4only")).then(|| format!("2001:db8:0:{number}::/64")),
            free_addresses: if all.contains(&"full") { 7 } else { 8 },
            is_public: all.contains(&"public"),
            tags: tags.map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
        }
    }

    #[allow(clippy::type_complexity, reason = "a table reads better with its values in place")]
    #[test]
    fn one_subnet_is_found_for_each_zone_and_the_others_are_told_why_not() {
        let internal: &[(&str, &str)] = &[];
        let public: &[(&str, &str)] = &[("scheme", "internet-facing")];
        let dual: &[(&str, &str)] = &[("ip-address-type", "dualstack")];
        let role = "kubernetes.io/role/internal-elb";
        let cases: Vec<(&[(&str, &str)], Vec<String>, &str, &[(&str, &str)])> = vec![
            (
                internal,
                vec!["s1 a".into(), "s2 b".into(), "s3 a public".into()],
                "s1 s2",
                &[("s3", "it is public, and no subnet has the tag")],
            ),
            (
                public,
                vec!["s1 a".into(), "s2 b public".into()],
                "s2",
                &[("s1", "its route table has no internet gateway")],
            ),
            (internal, vec![format!("s1 a {role}=1"), "s2 b".into()], "s1", &[("s2", "it lacks the tag")]),
            (internal, vec![format!("s1 a {role}="), format!("s2 b {role}=0")], "s1", &[("s2", "it lacks the tag")]),
            (internal, vec!["s2 a".into(), "s1 a".into()], "s1", &[("s2", "s1 serves its zone")]),
            (
                internal,
                vec!["s2 a kubernetes.io/cluster/prod=shared".into(), "s1 a".into()],
                "s2",
                &[("s1", "s2 serves its zone")],
            ),
            (
                internal,
                vec!["s1 a kubernetes.io/cluster/other=owned".into(), "s2 b".into()],
                "s2",
                &[("s1", "another cluster's (kubernetes.io/cluster/other)")],
            ),
            (
                internal,
                vec!["s1 a kubernetes.io/cluster/other=owned kubernetes.io/cluster/prod=shared".into()],
                "s1",
                &[],
            ),
            (
                internal,
                vec!["s1 a full".into(), "s2 a".into()],
                "s2",
                &[("s1", "it has 7 free addresses of at least 8")],
            ),
            (dual, vec!["s1 a v4only".into(), "s2 b".into()], "s2", &[("s1", "it has no IPv6 range")]),
            (
                internal,
                vec!["s1 a local".into(), "s2 b".into()],
                "s2",
                &[("s1", "its zone is of another type (local-zone)")],
            ),
            (internal, vec!["s1 a local".into()], "s1", &[]),
        ];
        for (annotations, words, chosen, left_out) in cases {
            let subnets: Vec<_> = words.iter().map(|words| subnet(words)).collect();
            let choice = choose(&front(annotations), "prod", &subnets).unwrap();
            let ids: Vec<_> = choice.chosen.iter().map(|subnet| subnet.id.as_str()).collect();
            assert_eq!(ids.join(" "), chosen, "{words:?}");
            assert_eq!(choice.left_out.len(), left_out.len(), "{words:?}: {:?}", choice.left_out);
            for (id, why) in left_out {
                let said = choice.left_out[*id].to_string();
                assert!(said.contains(why), "{words:?}, {id}: {said}");
            }
        }
    }

    #[test]
    fn where_none_fits_each_is_told_why_not() {
        let refusal = choose(&front(&[]), "prod", &[subnet("s1 a public"), subnet("s2 b full")]).unwrap_err();
        let said = refusal.to_string();
        assert!(said.contains("s1: it is public") && said.contains("s2: it has 7 free addresses"), "{said}");
        assert!(choose(&front(&[]), "prod", &[]).unwrap_err().to_string().ends_with("the VPC has none"));
    }

    #[test]
    fn subnets_that_are_named_are_taken_in_their_order_or_refused() {
        let subnets = ["s1 a Name=one", "s2 b Name=two", "s3 a Name=two", "s4 c v4only", "s5 d local"].map(subnet);
        let cases = [
            ("s2,one", "", Ok("s2 s1")),
            ("s9", "", Err("no subnet `s9`")),
            ("two", "", Err("`two` is s2 and s3")),
            ("s1,s3", "", Err("both in the zone a")),
            ("s4", "dualstack", Err("s4 has no IPv6 range")),
            ("s1", "public", Err("s1 has no internet gateway")),
            ("s1,s5", "", Err("zones of two types")),
        ];
        for (named, families, expected) in cases {
            let (families, scheme) = if families == "public" { ("", "internet-facing") } else { (families, "") };
            let front = front(&[("subnets", named), ("ip-address-type", families), ("scheme", scheme)]);
            let choice = choose(&front, "prod", &subnets);
            let ids = choice
                .map(|c| c.chosen.into_iter().map(|s| s.id).collect::<Vec<_>>().join(" "))
                .map_err(|e| e.to_string());
            match expected {
                Ok(expected) => assert_eq!(ids.as_deref(), Ok(expected), "{named}"),
                Err(says) => assert!(ids.as_ref().is_err_and(|e| e.contains(says)), "{named}: {ids:?}"),
            }
        }
    }

    #[test]
    fn each_subnet_gets_the_address_that_was_chosen_for_it() {
        // The ranges of `s1` and `s2` follow from their names.
        let chosen = ["s1 a", "s2 b"].map(subnet);
        let net = |subnet: &Subnet| subnet.cidr.trim_end_matches("0/24").to_owned();
        let (one, two) = (format!("{}9", net(&chosen[0])), format!("{}9", net(&chosen[1])));
        let addresses = |list: &str| front(&[("private-ipv4-addresses", list)]).addresses;
        let mapped = mappings(&addresses(&format!("{two},{one}")), &chosen).unwrap();
        assert_eq!(mapped.iter().map(|m| m.private_ipv4.unwrap().to_string()).collect::<Vec<_>>(), [one.clone(), two]);
        for (list, says) in [
            (one.clone(), "1 are given for 2 subnets (s1, s2)"),
            (format!("{one},192.0.2.1"), "192.0.2.1 lies in no subnet"),
            (format!("{one},{}8", net(&chosen[0])), "two addresses are in the subnet s1"),
        ] {
            let said = mappings(&addresses(&list), &chosen).unwrap_err().to_string();
            assert!(said.contains(says), "{list}: {said}");
        }
        let eips = front(&[("scheme", "internet-facing"), ("eip-allocations", "eipalloc-2,eipalloc-1")]).addresses;
        let mapped = mappings(&eips, &chosen).unwrap();
        assert_eq!(mapped[0].allocation_id.as_deref(), Some("eipalloc-2"), "in their order");
    }
}
