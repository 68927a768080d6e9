//! What AWS answers, in our types. What is of a kind that we never make is left out.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_ec2::types as ec2;
use aws_sdk_elasticloadbalancingv2::types as elb;

use berth_aws::cloud::{
    HealthCheck, HealthProtocol, Instance, Interface, IpAddressType, IpProtocol, Listener, ListenerSettings,
    LoadBalancer, Pairs, Protocol, Rule, Scheme, SecurityGroup, Source, State, Subnet, TargetDescription, TargetGroup,
    TargetHealth, TargetState, TargetType,
};

/// The part of a route's gateway that says that it is the internet.
const INTERNET_GATEWAY: &str = "igw-";
/// The zone of targets outside the VPC.
pub(crate) const OUTSIDE: &str = "all";

pub(crate) fn pairs<'a>(all: impl Iterator<Item = (Option<&'a str>, Option<&'a str>)>) -> Pairs {
    all.filter_map(|(key, value)| Some((key?.to_owned(), value.unwrap_or_default().to_owned()))).collect()
}

fn ec2_pairs(tags: &[ec2::Tag]) -> Pairs {
    pairs(tags.iter().map(|tag| (tag.key(), tag.value())))
}

pub(crate) fn tag_descriptions(all: &[elb::TagDescription]) -> BTreeMap<String, Pairs> {
    let of = |of: &elb::TagDescription| {
        Some((of.resource_arn()?.to_owned(), pairs(of.tags().iter().map(|tag| (tag.key(), tag.value())))))
    };
    all.iter().filter_map(of).collect()
}

/// The subnets whose route table sends traffic to an internet gateway: their own, or else the VPC's main one.
pub(crate) fn public(tables: &[ec2::RouteTable], subnets: &[ec2::Subnet]) -> BTreeSet<String> {
    let is_public = |table: &ec2::RouteTable| {
        table.routes().iter().any(|route| route.gateway_id().is_some_and(|id| id.starts_with(INTERNET_GATEWAY)))
    };
    let of = |subnet: &str| {
        tables
            .iter()
            .find(|table| table.associations().iter().any(|association| association.subnet_id() == Some(subnet)))
    };
    let main =
        tables.iter().find(|table| table.associations().iter().any(|association| association.main() == Some(true)));
    let ids = subnets.iter().filter_map(|subnet| subnet.subnet_id());
    ids.filter(|id| of(id).or(main).is_some_and(is_public)).map(str::to_owned).collect()
}

pub(crate) fn subnet(of: &ec2::Subnet, public: &BTreeSet<String>, zones: &[ec2::AvailabilityZone]) -> Option<Subnet> {
    let (id, zone) = (of.subnet_id()?.to_owned(), of.availability_zone()?.to_owned());
    let zone_type = zones.iter().find(|z| z.zone_name() == Some(&zone)).and_then(|z| z.zone_type());
    let zone_type = if of.outpost_arn().is_some() { "outpost" } else { zone_type.unwrap_or("availability-zone") };
    let associated = |block: &&ec2::SubnetIpv6CidrBlockAssociation| {
        let state = block.ipv6_cidr_block_state().and_then(|state| state.state());
        state == Some(&ec2::SubnetCidrBlockStateCode::Associated)
    };
    let ipv6 = of.ipv6_cidr_block_association_set().iter().find(associated).and_then(|block| block.ipv6_cidr_block());
    Some(Subnet {
        is_public: public.contains(&id),
        id,
        zone,
        zone_type: zone_type.to_owned(),
        cidr: of.cidr_block().unwrap_or_default().to_owned(),
        ipv6_cidr: ipv6.map(str::to_owned),
        free_addresses: of.available_ip_address_count().and_then(|count| u32::try_from(count).ok()).unwrap_or_default(),
        tags: ec2_pairs(of.tags()),
    })
}

pub(crate) fn security_group(of: &ec2::SecurityGroup) -> Option<SecurityGroup> {
    let rules = of.ip_permissions().iter().flat_map(rules).collect();
    let (id, name) = (of.group_id()?.to_owned(), of.group_name()?.to_owned());
    Some(SecurityGroup { id, name, rules, tags: ec2_pairs(of.tags()) })
}

fn rules(of: &ec2::IpPermission) -> Vec<Rule> {
    let port = |port: Option<i32>| port.and_then(|port| u16::try_from(port).ok());
    let protocol = of.ip_protocol().and_then(IpProtocol::from_word);
    let (Some(ip_protocol), Some(from_port), Some(to_port)) = (protocol, port(of.from_port()), port(of.to_port()))
    else {
        return Vec::new();
    };
    let said = |text: Option<&str>| text.map(str::to_owned);
    let v4 = of
        .ip_ranges()
        .iter()
        .filter_map(|range| Some((Source::V4(range.cidr_ip()?.into()), said(range.description()))));
    let v6 = of
        .ipv6_ranges()
        .iter()
        .filter_map(|range| Some((Source::V6(range.cidr_ipv6()?.into()), said(range.description()))));
    let lists = of.prefix_list_ids().iter();
    let lists =
        lists.filter_map(|list| Some((Source::PrefixList(list.prefix_list_id()?.into()), said(list.description()))));
    let groups = of.user_id_group_pairs().iter();
    let groups = groups.filter_map(|pair| Some((Source::Group(pair.group_id()?.into()), said(pair.description()))));
    let rule = |(source, description)| Rule { ip_protocol, from_port, to_port, source, description };
    v4.chain(v6).chain(lists).chain(groups).map(rule).collect()
}

/// What network interfaces have in common, however they are described.
macro_rules! interface {
    ($of:expr) => {{
        let v4 = $of.private_ip_addresses().iter().filter_map(|address| address.private_ip_address());
        let v6 = $of.ipv6_addresses().iter().filter_map(|address| address.ipv6_address());
        let v4_prefixes = $of.ipv4_prefixes().iter().filter_map(|prefix| prefix.ipv4_prefix());
        let v6_prefixes = $of.ipv6_prefixes().iter().filter_map(|prefix| prefix.ipv6_prefix());
        let place = $of
            .attachment()
            .map(|at| (at.device_index().unwrap_or_default(), at.network_card_index().unwrap_or_default()));
        Some(Interface {
            id: $of.network_interface_id()?.to_owned(),
            addresses: v4.chain(v6).filter_map(|address| address.parse().ok()).collect(),
            prefixes: v4_prefixes.chain(v6_prefixes).filter_map(|prefix| prefix.parse().ok()).collect(),
            security_groups: $of.groups().iter().filter_map(|group| group.group_id()).map(str::to_owned).collect(),
            is_primary: place == Some((0, 0)),
        })
    }};
}

pub(crate) fn interface(of: &ec2::NetworkInterface) -> Option<Interface> {
    interface!(of)
}

pub(crate) fn instance(of: &ec2::Instance) -> Option<Instance> {
    let interfaces = of.network_interfaces().iter().filter_map(|of: &ec2::InstanceNetworkInterface| interface!(of));
    Some(Instance { id: of.instance_id()?.to_owned(), interfaces: interfaces.collect() })
}

pub(crate) fn load_balancer(of: &elb::LoadBalancer) -> Option<LoadBalancer> {
    let state = of.state().and_then(|state| state.code()).and_then(|code| State::from_word(code.as_str()));
    let zones = of.availability_zones().iter().filter_map(|zone| zone.subnet_id());
    Some(LoadBalancer {
        arn: of.load_balancer_arn()?.to_owned(),
        name: of.load_balancer_name()?.to_owned(),
        dns_name: of.dns_name().unwrap_or_default().to_owned(),
        vpc_id: of.vpc_id().unwrap_or_default().to_owned(),
        // Those of other types may lack what every NLB has. Their names are taken all the same.
        scheme: of.scheme().and_then(|scheme| Scheme::from_word(scheme.as_str())).unwrap_or(Scheme::Internal),
        ip_address_type: of
            .ip_address_type()
            .and_then(|families| IpAddressType::from_word(families.as_str()))
            .unwrap_or(IpAddressType::Ipv4),
        state: state.unwrap_or(State::Provisioning),
        subnet_ids: zones.map(str::to_owned).collect(),
        security_groups: of.security_groups().to_vec(),
        enforces_on_private_link: of
            .enforce_security_group_inbound_rules_on_private_link_traffic()
            .map(|word| word.eq_ignore_ascii_case("on")),
    })
}

pub(crate) fn target_group(of: &elb::TargetGroup) -> Option<TargetGroup> {
    let seconds = |value: Option<i32>| value.and_then(|value| u16::try_from(value).ok()).unwrap_or_default();
    let times = |value: Option<i32>| value.and_then(|value| u8::try_from(value).ok()).unwrap_or_default();
    Some(TargetGroup {
        arn: of.target_group_arn()?.to_owned(),
        name: of.target_group_name()?.to_owned(),
        protocol: Protocol::from_word(of.protocol()?.as_str())?,
        port: u16::try_from(of.port()?).ok()?,
        target_type: TargetType::from_word(of.target_type()?.as_str())?,
        health_check: HealthCheck {
            protocol: HealthProtocol::from_word(of.health_check_protocol()?.as_str())?,
            port: of.health_check_port().unwrap_or_default().to_owned(),
            path: of.health_check_path().map(str::to_owned),
            interval: seconds(of.health_check_interval_seconds()),
            timeout: seconds(of.health_check_timeout_seconds()),
            healthy: times(of.healthy_threshold_count()),
            unhealthy: times(of.unhealthy_threshold_count()),
            codes: of.matcher().and_then(|matcher| matcher.http_code()).map(str::to_owned),
        },
    })
}

pub(crate) fn listener(of: &elb::Listener) -> Option<Listener> {
    // The action of one target group is answered in either form.
    let action = of.default_actions().first();
    let direct = action.and_then(|action| action.target_group_arn());
    let forward = action.and_then(|action| action.forward_config()?.target_groups().first()?.target_group_arn());
    Some(Listener {
        arn: of.listener_arn()?.to_owned(),
        port: u16::try_from(of.port()?).ok()?,
        settings: ListenerSettings {
            protocol: Protocol::from_word(of.protocol()?.as_str())?,
            target_group_arn: direct.or(forward).unwrap_or_default().to_owned(),
            certificate: of
                .certificates()
                .first()
                .and_then(|certificate| certificate.certificate_arn())
                .map(str::to_owned),
            ssl_policy: of.ssl_policy().map(str::to_owned),
            alpn_policy: of.alpn_policy().first().cloned(),
        },
    })
}

/// A target. One in a state that AWS has added since is taken for one that is not looked at.
pub(crate) fn target(of: &elb::TargetHealthDescription) -> Option<TargetHealth> {
    let (target, health) = (of.target()?, of.target_health());
    let state = health.and_then(|health| TargetState::from_word(health.state()?.as_str()));
    Some(TargetHealth {
        target: TargetDescription {
            id: target.id()?.to_owned(),
            port: u16::try_from(target.port()?).ok()?,
            is_outside: target.availability_zone() == Some(OUTSIDE),
        },
        state: state.unwrap_or(TargetState::Unavailable),
        reason: health.and_then(|health| health.reason()).map(|reason| reason.as_str().to_owned()),
    })
}

/// The ranges that are associated with a VPC.
pub(crate) fn ranges(of: &ec2::Vpc) -> Vec<String> {
    // The first range is in the list too, but not everything that answers in AWS's place gives the list.
    let v4 = of.cidr_block_association_set().iter().filter(|block| {
        let state = block.cidr_block_state().and_then(|state| state.state());
        state.is_none_or(|state| *state == ec2::VpcCidrBlockStateCode::Associated)
    });
    let v6 = of.ipv6_cidr_block_association_set().iter().filter(|block| {
        let state = block.ipv6_cidr_block_state().and_then(|state| state.state());
        state.is_none_or(|state| *state == ec2::VpcCidrBlockStateCode::Associated)
    });
    let v4 = of.cidr_block().into_iter().chain(v4.filter_map(|block| block.cidr_block()));
    let all: BTreeSet<_> = v4.chain(v6.filter_map(|block| block.ipv6_cidr_block())).map(str::to_owned).collect();
    all.into_iter().collect()
}
