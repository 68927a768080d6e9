//! How the APIs write down what is read of them, in the forms that the AWS CLI prints. Fields that are not used are passed over.

#![expect(clippy::struct_field_names, reason = "the names are the APIs'")]

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::cloud::{
    HealthCheck, HealthProtocol, IpAddressType, IpProtocol, Listener, ListenerSettings, LoadBalancer, Pairs, Protocol,
    Rule, Scheme, SecurityGroup, Source, State, TargetGroup, TargetState, TargetType,
};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Tag {
    key: String,
    #[serde(default)]
    value: String,
}

pub(super) fn pairs(tags: Vec<Tag>) -> Pairs {
    tags.into_iter().map(|tag| (tag.key, tag.value)).collect()
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct TagDescription {
    pub resource_arn: String,
    #[serde(default)]
    pub tags: Vec<Tag>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Subnet {
    pub subnet_id: String,
    pub vpc_id: String,
    pub availability_zone: String,
    pub cidr_block: String,
    #[serde(default)]
    ipv6_cidr_block_association_set: Vec<Ipv6Association>,
    pub available_ip_address_count: u32,
    pub outpost_arn: Option<String>,
    #[serde(default)]
    pub tags: Vec<Tag>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Ipv6Association {
    ipv6_cidr_block: String,
    ipv6_cidr_block_state: Ipv6State,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Ipv6State {
    state: String,
}

impl Subnet {
    pub(super) fn ipv6(&self) -> Option<String> {
        let associated = |set: &&Ipv6Association| set.ipv6_cidr_block_state.state == "associated";
        Some(self.ipv6_cidr_block_association_set.iter().find(associated)?.ipv6_cidr_block.clone())
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct RouteTable {
    pub vpc_id: String,
    #[serde(default)]
    pub associations: Vec<Association>,
    #[serde(default)]
    routes: Vec<Route>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Association {
    #[serde(default)]
    pub main: bool,
    pub subnet_id: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Route {
    gateway_id: Option<String>,
    state: Option<String>,
}

impl RouteTable {
    /// Whether a route of it goes to an internet gateway.
    pub(super) fn is_public(&self) -> bool {
        let works = |route: &Route| route.state.as_deref() != Some("blackhole");
        self.routes
            .iter()
            .any(|route| works(route) && route.gateway_id.as_ref().is_some_and(|id| id.starts_with("igw-")))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Zone {
    pub zone_name: String,
    pub zone_type: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Group {
    group_id: String,
    group_name: String,
    pub vpc_id: Option<String>,
    #[serde(default)]
    ip_permissions: Vec<Permission>,
    #[serde(default)]
    tags: Vec<Tag>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Permission {
    ip_protocol: String,
    // Missing for all protocols, and -1 for all types of ICMP: kinds of rules that are never ours.
    from_port: Option<i32>,
    to_port: Option<i32>,
    #[serde(default)]
    ip_ranges: Vec<IpRange>,
    #[serde(default)]
    ipv6_ranges: Vec<Ipv6Range>,
    #[serde(default)]
    prefix_list_ids: Vec<PrefixList>,
    #[serde(default)]
    user_id_group_pairs: Vec<GroupPair>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct IpRange {
    cidr_ip: String,
    description: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Ipv6Range {
    cidr_ipv6: String,
    description: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct PrefixList {
    prefix_list_id: String,
    description: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct GroupPair {
    group_id: String,
    description: Option<String>,
}

impl Permission {
    fn rules(self) -> Vec<Rule> {
        let protocol = match self.ip_protocol.as_str() {
            "tcp" => IpProtocol::Tcp,
            "udp" => IpProtocol::Udp,
            "icmp" => IpProtocol::Icmp,
            "icmpv6" => IpProtocol::Icmpv6,
            _ => return Vec::new(),
        };
        let port = |port: Option<i32>| u16::try_from(port?).ok();
        let (Some(from_port), Some(to_port)) = (port(self.from_port), port(self.to_port)) else { return Vec::new() };
        let v4 = self.ip_ranges.into_iter().map(|range| (Source::V4(range.cidr_ip), range.description));
        let v6 = self.ipv6_ranges.into_iter().map(|range| (Source::V6(range.cidr_ipv6), range.description));
        let lists = self.prefix_list_ids.into_iter();
        let lists = lists.map(|list| (Source::PrefixList(list.prefix_list_id), list.description));
        let groups = self.user_id_group_pairs.into_iter();
        let groups = groups.map(|pair| (Source::Group(pair.group_id), pair.description));
        let rule = |(source, description)| Rule { ip_protocol: protocol, from_port, to_port, source, description };
        v4.chain(v6).chain(lists).chain(groups).map(rule).collect()
    }
}

impl From<Group> for SecurityGroup {
    fn from(group: Group) -> Self {
        Self {
            id: group.group_id,
            name: group.group_name,
            rules: group.ip_permissions.into_iter().flat_map(Permission::rules).collect(),
            tags: pairs(group.tags),
        }
    }
}

/// What every load balancer has, of whatever kind.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct AnyLoadBalancer {
    pub load_balancer_arn: String,
    pub load_balancer_name: String,
    pub vpc_id: Option<String>,
    #[serde(default)]
    pub security_groups: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct NetworkLoadBalancer {
    load_balancer_arn: String,
    load_balancer_name: String,
    #[serde(rename = "DNSName")]
    dns_name: String,
    vpc_id: String,
    scheme: Scheme,
    ip_address_type: IpAddressType,
    state: StateOf,
    availability_zones: Vec<ZoneOf>,
    #[serde(default)]
    security_groups: Vec<String>,
    enforce_security_group_inbound_rules_on_private_link_traffic: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct StateOf {
    code: State,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ZoneOf {
    subnet_id: String,
}

impl From<NetworkLoadBalancer> for LoadBalancer {
    fn from(is: NetworkLoadBalancer) -> Self {
        Self {
            arn: is.load_balancer_arn,
            name: is.load_balancer_name,
            dns_name: is.dns_name,
            vpc_id: is.vpc_id,
            scheme: is.scheme,
            ip_address_type: is.ip_address_type,
            state: is.state.code,
            subnet_ids: is.availability_zones.into_iter().map(|zone| zone.subnet_id).collect(),
            security_groups: is.security_groups,
            enforces_on_private_link: is
                .enforce_security_group_inbound_rules_on_private_link_traffic
                .map(|word| word == "on"),
        }
    }
}

/// What every target group has, of whatever kind.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct AnyTargetGroup {
    pub target_group_arn: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct OurTargetGroup {
    target_group_arn: String,
    target_group_name: String,
    protocol: Protocol,
    port: u16,
    target_type: TargetType,
    health_check_protocol: HealthProtocol,
    health_check_port: String,
    health_check_path: Option<String>,
    health_check_interval_seconds: u16,
    health_check_timeout_seconds: u16,
    healthy_threshold_count: u8,
    unhealthy_threshold_count: u8,
    matcher: Option<Matcher>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Matcher {
    http_code: Option<String>,
}

impl From<OurTargetGroup> for TargetGroup {
    fn from(is: OurTargetGroup) -> Self {
        Self {
            arn: is.target_group_arn,
            name: is.target_group_name,
            protocol: is.protocol,
            port: is.port,
            target_type: is.target_type,
            health_check: HealthCheck {
                protocol: is.health_check_protocol,
                port: is.health_check_port,
                path: is.health_check_path,
                interval: is.health_check_interval_seconds,
                timeout: is.health_check_timeout_seconds,
                healthy: is.healthy_threshold_count,
                unhealthy: is.unhealthy_threshold_count,
                codes: is.matcher.and_then(|matcher| matcher.http_code),
            },
        }
    }
}

/// What every listener has, of whatever kind.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct AnyListener {
    pub listener_arn: String,
    pub load_balancer_arn: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct OurListener {
    listener_arn: String,
    port: u16,
    protocol: Protocol,
    #[serde(default)]
    certificates: Vec<Certificate>,
    ssl_policy: Option<String>,
    #[serde(default)]
    alpn_policy: Vec<String>,
    default_actions: Vec<Action>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Certificate {
    pub certificate_arn: String,
    #[serde(default)]
    pub is_default: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Action {
    target_group_arn: Option<String>,
    forward_config: Option<Forward>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Forward {
    #[serde(default)]
    target_groups: Vec<AnyTargetGroup>,
}

impl From<OurListener> for Listener {
    fn from(is: OurListener) -> Self {
        let target = |action: Action| {
            let weighted = action.forward_config.and_then(|forward| forward.target_groups.into_iter().next());
            action.target_group_arn.or(weighted.map(|group| group.target_group_arn))
        };
        Self {
            arn: is.listener_arn,
            port: is.port,
            settings: ListenerSettings {
                protocol: is.protocol,
                target_group_arn: is.default_actions.into_iter().find_map(target).unwrap_or_default(),
                certificate: is.certificates.into_iter().next().map(|certificate| certificate.certificate_arn),
                ssl_policy: is.ssl_policy,
                alpn_policy: is.alpn_policy.into_iter().next(),
            },
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Health {
    target_health: HealthState,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HealthState {
    state: String,
}

impl Health {
    /// A state that we do not know is one of a target that is registered.
    pub(super) fn state(&self) -> TargetState {
        TargetState::from_word(&self.target_health.state).unwrap_or(TargetState::Unavailable)
    }
}

/// Attributes, or tags, by whose they are.
pub(super) type ByOwner<T> = BTreeMap<String, T>;
