//! What AWS refuses.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use super::{Called, State};
use crate::cloud::{
    CallError, HealthCheck, IpAddressType, ListenerSettings, NewLoadBalancer, Pairs, Protocol, Scheme, SubnetMapping,
};

/// Listeners of a load balancer (AWS's quota).
const LISTENERS_MAX: usize = 50;
/// Tags of a resource.
const TAGS_MAX: usize = 50;

const LOAD_BALANCER_ATTRIBUTES: &[&str] = &[
    "access_logs.s3.bucket",
    "access_logs.s3.enabled",
    "access_logs.s3.prefix",
    "deletion_protection.enabled",
    "dns_record.client_routing_policy",
    "load_balancing.cross_zone.enabled",
    "zonal_shift.config.enabled",
];
const TARGET_GROUP_ATTRIBUTES: &[&str] = &[
    "deregistration_delay.connection_termination.enabled",
    "deregistration_delay.timeout_seconds",
    "load_balancing.cross_zone.enabled",
    "preserve_client_ip.enabled",
    "proxy_protocol_v2.enabled",
    "stickiness.enabled",
    "stickiness.type",
    "target_health_state.unhealthy.connection_termination.enabled",
    "target_health_state.unhealthy.draining_interval_seconds",
];

fn no<T>(action: &'static str, code: &str, message: impl Into<String>) -> Called<T> {
    Err(CallError::new(action, code, message))
}

pub(super) fn name(action: &'static str, name: &str) -> Called<()> {
    let fits =
        !name.is_empty() && name.len() <= 32 && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if fits && !name.starts_with('-') && !name.ends_with('-') {
        return Ok(());
    }
    no(action, "ValidationError", format!("the name `{name}`"))
}

pub(super) fn tags(action: &'static str, tags: &Pairs) -> Called<()> {
    if tags.len() > TAGS_MAX {
        return no(action, "TooManyTags", "more than 50");
    }
    match tags.iter().find(|(key, value)| key.starts_with("aws:") || key.len() > 128 || value.len() > 256) {
        Some((key, _)) => no(action, "ValidationError", format!("the tag {key}")),
        None => Ok(()),
    }
}

pub(super) fn health_check(action: &'static str, check: &HealthCheck) -> Called<()> {
    let fits = (5..=300).contains(&check.interval)
        && (2..=120).contains(&check.timeout)
        && check.timeout <= check.interval
        && (2..=10).contains(&check.healthy)
        && (2..=10).contains(&check.unhealthy);
    if fits { Ok(()) } else { no(action, "ValidationError", format!("{check:?}")) }
}

pub(super) fn attributes(action: &'static str, set: &Pairs, all: &Pairs, of_balancer: bool) -> Called<()> {
    let known = if of_balancer { LOAD_BALANCER_ATTRIBUTES } else { TARGET_GROUP_ATTRIBUTES };
    if let Some(key) = set.keys().find(|key| !known.contains(&key.as_str())) {
        return no(action, "ValidationError", format!("the attribute {key}"));
    }
    let has = |key: &str, value: &str| all.get(key).is_some_and(|is| is == value);
    if has("access_logs.s3.enabled", "true") && !all.contains_key("access_logs.s3.bucket") {
        return no(action, "InvalidConfigurationRequest", "access logs need a bucket");
    }
    Ok(())
}

impl State {
    pub(super) fn mappings(
        &self,
        action: &'static str,
        scheme: Scheme,
        families: IpAddressType,
        mappings: &[SubnetMapping],
    ) -> Called<()> {
        if mappings.is_empty() {
            return no(action, "ValidationError", "no subnet");
        }
        let mut zones = BTreeSet::new();
        for mapping in mappings {
            let Some(subnet) = self.subnets.iter().find(|subnet| subnet.id == mapping.subnet_id) else {
                return no(action, "SubnetNotFound", mapping.subnet_id.clone());
            };
            if !zones.insert(&subnet.zone) {
                return no(action, "InvalidConfigurationRequest", format!("two subnets in {}", subnet.zone));
            }
            if subnet.free_addresses < 8 {
                return no(action, "InvalidSubnet", "not enough IP space");
            }
            if scheme == Scheme::InternetFacing && !subnet.is_public {
                return no(action, "InvalidSubnet", format!("{} has no internet gateway", subnet.id));
            }
            if families == IpAddressType::Dualstack && subnet.ipv6_cidr.is_none() {
                return no(action, "InvalidSubnet", format!("{} has no IPv6", subnet.id));
            }
            let has = |allocation: &&String| scheme == Scheme::InternetFacing && self.allocations.contains(*allocation);
            if let Some(allocation) = mapping.allocation_id.as_ref().filter(|allocation| !has(allocation)) {
                return no(action, "AllocationIdNotFound", allocation.clone());
            }
            if mapping.private_ipv4.is_some() && scheme == Scheme::InternetFacing {
                return no(
                    action,
                    "InvalidConfigurationRequest",
                    "private addresses of an internet-facing load balancer",
                );
            }
            let lies_in = |address: IpAddr, cidr: &str| cidr.parse::<IpNet>().is_ok_and(|net| net.contains(&address));
            let v6 = subnet.ipv6_cidr.clone().unwrap_or_default();
            if mapping.private_ipv4.is_some_and(|a| !lies_in(a.into(), &subnet.cidr))
                || mapping.ipv6.is_some_and(|a| families != IpAddressType::Dualstack || !lies_in(a.into(), &v6))
            {
                return no(action, "InvalidConfigurationRequest", format!("an address outside {}", subnet.id));
            }
        }
        Ok(())
    }

    pub(super) fn new_balancer(&self, action: &'static str, new: &NewLoadBalancer) -> Called<()> {
        name(action, &new.name)?;
        tags(action, &new.tags)?;
        self.mappings(action, new.scheme, new.ip_address_type, &new.subnet_mappings)?;
        self.security_groups(action, &new.security_groups)?;
        let used = |allocation: &String| {
            self.balancers.values().any(|b| b.mappings.iter().any(|m| m.allocation_id.as_ref() == Some(allocation)))
        };
        if new.subnet_mappings.iter().filter_map(|mapping| mapping.allocation_id.as_ref()).any(used) {
            return no(action, "ResourceInUse", "an Elastic IP is in use");
        }
        if self.balancers.len() >= self.balancers_max {
            return no(action, "TooManyLoadBalancers", "the quota is reached");
        }
        Ok(())
    }

    pub(super) fn security_groups(&self, action: &'static str, groups: &[String]) -> Called<()> {
        match groups.iter().find(|id| !self.groups.contains_key(*id)) {
            Some(id) => no(action, "InvalidSecurityGroup", id.clone()),
            None => Ok(()),
        }
    }

    /// `but` is the listener that is changed.
    pub(super) fn listener(
        &self,
        action: &'static str,
        balancer: &str,
        settings: &ListenerSettings,
        but: Option<&str>,
    ) -> Called<()> {
        let Some(of) = self.balancers.get(balancer) else { return no(action, "LoadBalancerNotFound", balancer) };
        let Some(target) = self.targets.get(&settings.target_group_arn) else {
            return no(action, "TargetGroupNotFound", settings.target_group_arn.clone());
        };
        let compatible: &[Protocol] = match settings.protocol {
            Protocol::Tcp => &[Protocol::Tcp, Protocol::TcpUdp],
            Protocol::Udp => &[Protocol::Udp, Protocol::TcpUdp],
            Protocol::TcpUdp => &[Protocol::TcpUdp],
            Protocol::Tls => &[Protocol::Tcp, Protocol::Tls],
        };
        if !compatible.contains(&target.is.protocol) {
            let message = format!("a {} listener with a {} target group", settings.protocol, target.is.protocol);
            return no(action, "IncompatibleProtocols", message);
        }
        let is_udp = matches!(settings.protocol, Protocol::Udp | Protocol::TcpUdp);
        if is_udp && of.is.ip_address_type == IpAddressType::Dualstack {
            return no(action, "InvalidConfigurationRequest", "UDP on dual-stack without prefixes for source NAT");
        }
        let is_tls = settings.protocol == Protocol::Tls;
        if is_tls != settings.certificate.is_some()
            || (!is_tls && (settings.ssl_policy.is_some() || settings.alpn_policy.is_some()))
        {
            return no(action, "InvalidConfigurationRequest", "certificates, policies and TLS go together");
        }
        let of_others = self.listeners.iter().filter(|(arn, _)| Some(arn.as_str()) != but);
        if of_others
            .clone()
            .any(|(_, l)| l.is.settings.target_group_arn == settings.target_group_arn && l.balancer != balancer)
        {
            return no(action, "TargetGroupAssociationLimit", "a target group of two load balancers");
        }
        if of_others.filter(|(_, l)| l.balancer == balancer).count() >= LISTENERS_MAX {
            return no(action, "TooManyListeners", "the quota is reached");
        }
        Ok(())
    }
}
