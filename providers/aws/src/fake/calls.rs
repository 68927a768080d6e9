//! The calls.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::{Balancer, Called, Ears, Fake, Group, State, Targets, network, rules, targets};
use crate::cloud::{
    By, CallError, Cloud, GroupFilter, HealthCheck, Instance, Interface, IpAddressType, Listener, ListenerSettings,
    LoadBalancer, NewLoadBalancer, NewTargetGroup, Pairs, Protocol, Rule, SecurityGroup, Source, State as Coming,
    Subnet, SubnetMapping, TargetDescription, TargetGroup, TargetHealth,
};

/// Things that are described at once.
const AT_ONCE: usize = 20;

fn no<T>(action: &'static str, code: &str, message: impl Into<String>) -> Called<T> {
    Err(CallError::new(action, code, message))
}

fn found<'a, T>(action: &'static str, code: &str, map: &'a mut BTreeMap<String, T>, id: &str) -> Called<&'a mut T> {
    map.get_mut(id).ok_or_else(|| CallError::new(action, code, id))
}

fn select<T: Clone>(
    action: &'static str,
    code: &str,
    by: By<'_>,
    all: &BTreeMap<String, T>,
    name: impl Fn(&T) -> &str,
) -> Called<Vec<T>> {
    match by {
        By::All => Ok(all.values().cloned().collect()),
        By::Arns(arns) if arns.len() > AT_ONCE || arns.is_empty() => no(action, "ValidationError", "1 to 20 at once"),
        By::Arns(arns) => {
            arns.iter().map(|arn| all.get(arn).cloned().map_or_else(|| no(action, code, arn), Ok)).collect()
        }
        By::Name(named) => {
            let one = all.values().find(|is| name(is) == named).cloned();
            one.map_or_else(|| no(action, code, named), |one| Ok(vec![one]))
        }
    }
}

impl State {
    fn tags_of(&mut self, arn: &str) -> Option<&mut Pairs> {
        let balancers = self.balancers.get_mut(arn).map(|is| &mut is.tags);
        let targets = self.targets.get_mut(arn).map(|is| &mut is.tags);
        balancers.or(targets).or(self.listeners.get_mut(arn).map(|is| &mut is.tags))
    }
}

impl Cloud for Fake {
    async fn describe_subnets(&self, vpc: &str) -> Called<Vec<Subnet>> {
        self.read("ec2:DescribeSubnets", |state| Ok(if vpc == state.vpc { state.subnets.clone() } else { Vec::new() }))
    }

    async fn describe_vpc_ranges(&self, vpc: &str) -> Called<Vec<String>> {
        let action = "ec2:DescribeVpcs";
        self.read(action, |state| {
            if vpc == state.vpc { Ok(state.ranges.clone()) } else { no(action, "InvalidVpcID.NotFound", vpc) }
        })
    }

    async fn describe_instances(&self, ids: &[String]) -> Called<Vec<Instance>> {
        let action = "ec2:DescribeInstances";
        if ids.is_empty() {
            return no(action, "InvalidParameterValue", "a filter has a value");
        }
        self.read(action, |state| Ok(state.shown_instances(ids)))
    }

    async fn describe_interfaces(&self, _vpc: &str, addresses: &[IpAddr]) -> Called<Vec<Interface>> {
        let action = "ec2:DescribeNetworkInterfaces";
        if addresses.is_empty() {
            return no(action, "InvalidParameterValue", "a filter has a value");
        }
        self.read(action, |state| Ok(state.shown_interfaces(addresses)))
    }

    async fn describe_security_groups(&self, _vpc: &str, filter: GroupFilter) -> Called<Vec<SecurityGroup>> {
        self.read("ec2:DescribeSecurityGroups", |state| {
            let refers =
                |group: &Group, id: &String| group.rules.iter().any(|rule| rule.source == Source::Group(id.clone()));
            Ok(state.shown(|id, group| match &filter {
                GroupFilter::Tagged(tags) => tags.iter().all(|(key, value)| group.tags.get(key) == Some(value)),
                GroupFilter::Ids(ids) => ids.contains(id),
                GroupFilter::TagNames(names) => group.tags.get("Name").is_some_and(|name| names.contains(name)),
                GroupFilter::Named(name) => group.name == *name,
                GroupFilter::LettingIn(other) => refers(group, other),
            }))
        })
    }

    async fn create_security_group(&self, vpc: &str, name: &str, _description: &str, tags: &Pairs) -> Called<String> {
        let action = "ec2:CreateSecurityGroup";
        self.write(action, |state| {
            rules::tags(action, tags)?;
            if vpc != state.vpc {
                return no(action, "InvalidVpcID.NotFound", vpc);
            }
            if state.groups.values().any(|group| group.name == name) {
                return no(action, "InvalidGroup.Duplicate", name);
            }
            let id = format!("sg-{:08x}", state.number());
            state
                .groups
                .insert(id.clone(), Group { name: name.to_owned(), rules: BTreeSet::new(), tags: tags.clone() });
            Ok(id)
        })
    }

    async fn authorize_ingress(&self, group: &str, add: &[Rule]) -> Called<()> {
        self.write(network::AUTHORIZE, |state| state.authorize(group, add))
    }

    async fn revoke_ingress(&self, group: &str, remove: &[Rule]) -> Called<()> {
        self.write(network::REVOKE, |state| state.revoke(group, remove))
    }

    async fn delete_security_group(&self, group: &str) -> Called<()> {
        self.write(network::DELETE_GROUP, |state| state.delete_group(group))
    }

    async fn create_tags(&self, id: &str, tags: &Pairs) -> Called<()> {
        let action = "ec2:CreateTags";
        self.write(action, |state| {
            let of = found(action, "InvalidGroup.NotFound", &mut state.groups, id)?;
            of.tags.extend(tags.clone());
            rules::tags(action, &of.tags)
        })
    }

    async fn delete_tags(&self, id: &str, keys: &[String]) -> Called<()> {
        let action = "ec2:DeleteTags";
        self.write(action, |state| {
            found(action, "InvalidGroup.NotFound", &mut state.groups, id)?.tags.retain(|key, _| !keys.contains(key));
            Ok(())
        })
    }

    async fn describe_load_balancers(&self, by: By<'_>) -> Called<Vec<LoadBalancer>> {
        let action = "elasticloadbalancing:DescribeLoadBalancers";
        self.read(action, |state| {
            let chosen = select(action, "LoadBalancerNotFound", by, &state.balancers, |of| &of.is.name)?;
            Ok(chosen.into_iter().map(|of| of.is).collect())
        })
    }

    async fn describe_tags(&self, arns: &[String]) -> Called<BTreeMap<String, Pairs>> {
        let action = "elasticloadbalancing:DescribeTags";
        if arns.len() > AT_ONCE || arns.is_empty() {
            return no(action, "ValidationError", "1 to 20 at once");
        }
        self.read(action, |state| {
            let mut tags = BTreeMap::new();
            for arn in arns {
                let of = state.balancers.get(arn).map(|is| &is.tags).or(state.targets.get(arn).map(|is| &is.tags));
                let of = of.or(state.listeners.get(arn).map(|is| &is.tags));
                tags.insert(arn.clone(), of.cloned().map_or_else(|| no(action, "LoadBalancerNotFound", arn), Ok)?);
            }
            Ok(tags)
        })
    }

    async fn add_tags(&self, arn: &str, tags: &Pairs) -> Called<()> {
        let action = "elasticloadbalancing:AddTags";
        self.write(action, |state| {
            let Some(of) = state.tags_of(arn) else { return no(action, "LoadBalancerNotFound", arn) };
            // ALBC's policy, which ours is to be usable under, denies this.
            if tags.contains_key(crate::tags::CLUSTER) {
                return no(action, "AccessDenied", "the cluster's tag is not set on what is there");
            }
            of.extend(tags.clone());
            rules::tags(action, of)
        })
    }

    async fn remove_tags(&self, arn: &str, keys: &[String]) -> Called<()> {
        let action = "elasticloadbalancing:RemoveTags";
        self.write(action, |state| {
            let Some(of) = state.tags_of(arn) else { return no(action, "LoadBalancerNotFound", arn) };
            of.retain(|key, _| !keys.contains(key));
            Ok(())
        })
    }

    async fn create_load_balancer(&self, new: &NewLoadBalancer) -> Called<LoadBalancer> {
        let action = "elasticloadbalancing:CreateLoadBalancer";
        self.write(action, |state| {
            if let Some(of) = state.balancers.values().find(|of| of.is.name == new.name) {
                // The same settings get the one that is there, whoever made it.
                let same = of.is.scheme == new.scheme
                    && of.is.ip_address_type == new.ip_address_type
                    && of.mappings == new.subnet_mappings
                    && of.is.security_groups == new.security_groups;
                return if same { Ok(of.is.clone()) } else { no(action, "DuplicateLoadBalancerName", &new.name) };
            }
            state.new_balancer(action, new)?;
            let number = state.number();
            let arn =
                format!("arn:aws:elasticloadbalancing:eu-central-1:1:loadbalancer/net/{}/{number:016x}", new.name);
            let is = LoadBalancer {
                arn: arn.clone(),
                name: new.name.clone(),
                dns_name: format!("{}-{number:016x}.elb.eu-central-1.amazonaws.com", new.name.to_uppercase()),
                vpc_id: state.vpc.clone(),
                scheme: new.scheme,
                ip_address_type: new.ip_address_type,
                state: Coming::Provisioning,
                subnet_ids: new.subnet_mappings.iter().map(|mapping| mapping.subnet_id.clone()).collect(),
                security_groups: new.security_groups.clone(),
                enforces_on_private_link: Some(!new.security_groups.is_empty()),
            };
            let attributes = [("deletion_protection.enabled", "false"), ("load_balancing.cross_zone.enabled", "false")];
            let attributes = attributes.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
            let mappings = new.subnet_mappings.clone();
            state.balancers.insert(arn, Balancer { is: is.clone(), mappings, attributes, tags: new.tags.clone() });
            Ok(is)
        })
    }

    async fn set_subnets(&self, arn: &str, mappings: &[SubnetMapping]) -> Called<()> {
        let action = "elasticloadbalancing:SetSubnets";
        self.write(action, |state| {
            let is = found(action, "LoadBalancerNotFound", &mut state.balancers, arn)?.is.clone();
            state.mappings(action, is.scheme, is.ip_address_type, mappings)?;
            let of = found(action, "LoadBalancerNotFound", &mut state.balancers, arn)?;
            of.is.subnet_ids = mappings.iter().map(|mapping| mapping.subnet_id.clone()).collect();
            of.mappings = mappings.to_vec();
            Ok(())
        })
    }

    async fn set_security_groups(&self, arn: &str, groups: &[String], enforce: Option<bool>) -> Called<()> {
        let action = "elasticloadbalancing:SetSecurityGroups";
        self.write(action, |state| {
            state.security_groups(action, groups)?;
            let of = found(action, "LoadBalancerNotFound", &mut state.balancers, arn)?;
            if of.is.security_groups.is_empty() {
                return no(
                    action,
                    "InvalidConfigurationRequest",
                    "one that was made without security groups never has any",
                );
            }
            if groups.is_empty() {
                return no(
                    action,
                    "InvalidConfigurationRequest",
                    "one that was made with security groups always has some",
                );
            }
            of.is.security_groups = groups.to_vec();
            of.is.enforces_on_private_link = enforce.or(of.is.enforces_on_private_link);
            Ok(())
        })
    }

    async fn set_ip_address_type(&self, arn: &str, to: IpAddressType) -> Called<()> {
        let action = "elasticloadbalancing:SetIpAddressType";
        self.write(action, |state| {
            let of = found(action, "LoadBalancerNotFound", &mut state.balancers, arn)?.clone();
            state.mappings(action, of.is.scheme, to, &of.mappings)?;
            let udp =
                |l: &Ears| l.balancer == arn && matches!(l.is.settings.protocol, Protocol::Udp | Protocol::TcpUdp);
            if to == IpAddressType::Dualstack && state.listeners.values().any(udp) {
                return no(action, "InvalidConfigurationRequest", "UDP on dual-stack without prefixes for source NAT");
            }
            found(action, "LoadBalancerNotFound", &mut state.balancers, arn)?.is.ip_address_type = to;
            Ok(())
        })
    }

    async fn describe_load_balancer_attributes(&self, arn: &str) -> Called<Pairs> {
        let action = "elasticloadbalancing:DescribeLoadBalancerAttributes";
        self.read(action, |state| {
            let of = state.balancers.get(arn).map(|of| of.attributes.clone());
            of.map_or_else(|| no(action, "LoadBalancerNotFound", arn), Ok)
        })
    }

    async fn modify_load_balancer_attributes(&self, arn: &str, set: &Pairs) -> Called<()> {
        let action = "elasticloadbalancing:ModifyLoadBalancerAttributes";
        self.write(action, |state| {
            let of = found(action, "LoadBalancerNotFound", &mut state.balancers, arn)?;
            let mut all = of.attributes.clone();
            all.extend(set.clone());
            rules::attributes(action, set, &all, true)?;
            of.attributes = all;
            Ok(())
        })
    }

    async fn delete_load_balancer(&self, arn: &str) -> Called<()> {
        let action = "elasticloadbalancing:DeleteLoadBalancer";
        self.write(action, |state| {
            let Some(of) = state.balancers.get(arn) else { return Ok(()) };
            if of.attributes.get("deletion_protection.enabled").is_some_and(|value| value == "true") {
                return no(action, "OperationNotPermitted", format!("{arn}: deletion protection is enabled"));
            }
            state.lingering.extend(of.is.security_groups.clone());
            state.balancers.remove(arn);
            state.listeners.retain(|_, listener| listener.balancer != arn);
            Ok(())
        })
    }

    async fn describe_target_groups(&self, by: By<'_>) -> Called<Vec<TargetGroup>> {
        let action = "elasticloadbalancing:DescribeTargetGroups";
        self.read(action, |state| {
            let chosen = select(action, "TargetGroupNotFound", by, &state.targets, |of| &of.is.name)?;
            Ok(chosen.into_iter().map(|of| of.is).collect())
        })
    }

    async fn create_target_group(&self, new: &NewTargetGroup) -> Called<TargetGroup> {
        let action = "elasticloadbalancing:CreateTargetGroup";
        self.write(action, |state| {
            rules::name(action, &new.name)?;
            rules::tags(action, &new.tags)?;
            rules::health_check(action, &new.health_check)?;
            let is = |arn: String| TargetGroup {
                arn,
                name: new.name.clone(),
                protocol: new.protocol,
                port: new.port,
                target_type: new.target_type,
                health_check: new.health_check.clone(),
            };
            if let Some(of) = state.targets.values().find(|of| of.is.name == new.name) {
                let same = of.is == is(of.is.arn.clone());
                return if same { Ok(of.is.clone()) } else { no(action, "DuplicateTargetGroupName", &new.name) };
            }
            let arn =
                format!("arn:aws:elasticloadbalancing:eu-central-1:1:targetgroup/{}/{:016x}", new.name, state.number());
            let of = Targets {
                is: is(arn.clone()),
                family: new.ip_address_type.as_str(),
                attributes: [("proxy_protocol_v2.enabled".to_owned(), "false".to_owned())].into(),
                tags: new.tags.clone(),
                registered: BTreeMap::new(),
            };
            state.targets.insert(arn, of.clone());
            Ok(of.is)
        })
    }

    async fn modify_target_group(&self, arn: &str, check: &HealthCheck) -> Called<()> {
        let action = "elasticloadbalancing:ModifyTargetGroup";
        self.write(action, |state| {
            rules::health_check(action, check)?;
            found(action, "TargetGroupNotFound", &mut state.targets, arn)?.is.health_check = check.clone();
            Ok(())
        })
    }

    async fn describe_target_group_attributes(&self, arn: &str) -> Called<Pairs> {
        let action = "elasticloadbalancing:DescribeTargetGroupAttributes";
        self.read(action, |state| {
            let of = state.targets.get(arn).map(|of| of.attributes.clone());
            of.map_or_else(|| no(action, "TargetGroupNotFound", arn), Ok)
        })
    }

    async fn modify_target_group_attributes(&self, arn: &str, set: &Pairs) -> Called<()> {
        let action = "elasticloadbalancing:ModifyTargetGroupAttributes";
        self.write(action, |state| {
            let of = found(action, "TargetGroupNotFound", &mut state.targets, arn)?;
            let mut all = of.attributes.clone();
            all.extend(set.clone());
            rules::attributes(action, set, &all, false)?;
            of.attributes = all;
            Ok(())
        })
    }

    async fn register_targets(&self, target_group: &str, targets: &[TargetDescription]) -> Called<()> {
        self.write(targets::REGISTER, |state| state.register(target_group, targets))
    }

    async fn deregister_targets(&self, target_group: &str, targets: &[TargetDescription]) -> Called<()> {
        self.write(targets::DEREGISTER, |state| state.deregister(target_group, targets))
    }

    async fn describe_target_health(&self, target_group: &str) -> Called<Vec<TargetHealth>> {
        self.read(targets::HEALTH, |state| state.health(target_group))
    }

    async fn delete_target_group(&self, arn: &str) -> Called<()> {
        let action = "elasticloadbalancing:DeleteTargetGroup";
        self.write(action, |state| {
            if state.listeners.values().any(|listener| listener.is.settings.target_group_arn == arn) {
                return no(action, "ResourceInUse", arn);
            }
            state.targets.remove(arn);
            Ok(())
        })
    }

    async fn describe_listeners(&self, load_balancer: &str) -> Called<Vec<Listener>> {
        let action = "elasticloadbalancing:DescribeListeners";
        self.read(action, |state| {
            if !state.balancers.contains_key(load_balancer) {
                return no(action, "LoadBalancerNotFound", load_balancer);
            }
            Ok(state.listeners.values().filter(|of| of.balancer == load_balancer).map(|of| of.is.clone()).collect())
        })
    }

    async fn create_listener(
        &self,
        load_balancer: &str,
        port: u16,
        settings: &ListenerSettings,
        tags: &Pairs,
    ) -> Called<Listener> {
        let action = "elasticloadbalancing:CreateListener";
        self.write(action, |state| {
            rules::tags(action, tags)?;
            state.listener(action, load_balancer, settings, None)?;
            if state.listeners.values().any(|of| of.balancer == load_balancer && of.is.port == port) {
                return no(action, "DuplicateListener", port.to_string());
            }
            let arn = format!("{}/{:016x}", load_balancer.replace(":loadbalancer/", ":listener/"), state.number());
            let is = Listener { arn: arn.clone(), port, settings: settings.clone() };
            let (attributes, certificates) = Default::default();
            let (balancer, tags) = (load_balancer.to_owned(), tags.clone());
            state.listeners.insert(arn, Ears { is: is.clone(), balancer, attributes, certificates, tags });
            Ok(is)
        })
    }

    async fn modify_listener(&self, arn: &str, settings: &ListenerSettings) -> Called<()> {
        let action = "elasticloadbalancing:ModifyListener";
        self.write(action, |state| {
            let balancer = found(action, "ListenerNotFound", &mut state.listeners, arn)?.balancer.clone();
            state.listener(action, &balancer, settings, Some(arn))?;
            let of = found(action, "ListenerNotFound", &mut state.listeners, arn)?;
            of.is.settings = settings.clone();
            if settings.protocol != Protocol::Tls {
                of.certificates.clear();
            }
            Ok(())
        })
    }

    async fn describe_listener_attributes(&self, arn: &str) -> Called<Pairs> {
        let action = "elasticloadbalancing:DescribeListenerAttributes";
        self.read(action, |state| {
            let of = state.listeners.get(arn).map(|of| of.attributes.clone());
            of.map_or_else(|| no(action, "ListenerNotFound", arn), Ok)
        })
    }

    async fn modify_listener_attributes(&self, arn: &str, set: &Pairs) -> Called<()> {
        let action = "elasticloadbalancing:ModifyListenerAttributes";
        self.write(action, |state| {
            let of = found(action, "ListenerNotFound", &mut state.listeners, arn)?;
            if of.is.settings.protocol != Protocol::Tcp || set.keys().any(|key| key != "tcp.idle_timeout.seconds") {
                return no(action, "InvalidConfigurationRequest", "only TCP listeners have an idle time-out");
            }
            of.attributes.extend(set.clone());
            Ok(())
        })
    }

    async fn describe_listener_certificates(&self, arn: &str) -> Called<Vec<String>> {
        let action = "elasticloadbalancing:DescribeListenerCertificates";
        self.read(action, |state| {
            let of = state.listeners.get(arn).map(|of| of.certificates.iter().cloned().collect());
            of.map_or_else(|| no(action, "ListenerNotFound", arn), Ok)
        })
    }

    async fn add_listener_certificates(&self, arn: &str, add: &[String]) -> Called<()> {
        let action = "elasticloadbalancing:AddListenerCertificates";
        self.write(action, |state| {
            let of = found(action, "ListenerNotFound", &mut state.listeners, arn)?;
            if of.is.settings.protocol != Protocol::Tls {
                return no(action, "InvalidConfigurationRequest", "only TLS has certificates");
            }
            of.certificates.extend(add.iter().cloned());
            Ok(())
        })
    }

    async fn remove_listener_certificates(&self, arn: &str, remove: &[String]) -> Called<()> {
        let action = "elasticloadbalancing:RemoveListenerCertificates";
        self.write(action, |state| {
            let of = found(action, "ListenerNotFound", &mut state.listeners, arn)?;
            of.certificates.retain(|certificate| !remove.contains(certificate));
            Ok(())
        })
    }

    async fn delete_listener(&self, arn: &str) -> Called<()> {
        let action = "elasticloadbalancing:DeleteListener";
        self.write(action, |state| match state.listeners.remove(arn) {
            Some(_) => Ok(()),
            None => no(action, "ListenerNotFound", arn),
        })
    }
}
