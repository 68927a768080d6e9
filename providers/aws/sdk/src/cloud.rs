//! The calls.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use aws_sdk_ec2 as ec2;
use aws_sdk_elasticloadbalancingv2 as elb;
use berth_aws::action::Action;
use berth_aws::cloud::{
    By, Cloud, GroupFilter, HealthCheck, Instance, Interface, IpAddressType, Listener, ListenerSettings, LoadBalancer,
    NewLoadBalancer, NewTargetGroup, Pairs, Rule, SecurityGroup, Subnet, SubnetMapping, TargetDescription, TargetGroup,
    TargetHealth,
};

use crate::call::{Called, Sdk, lacks, paged};
use crate::read;
use crate::write::{certificates, ec2_tags, elb_tags, filter, forward, mappings, matcher, permissions, targets};

/// Things of EC2 that are asked for at once, the most that it takes.
const EC2_PAGE: i32 = 1000;
/// The same for route tables.
const ROUTE_TABLES_PAGE: i32 = 100;
/// Values that a filter takes (AWS rule).
const FILTER_VALUES: usize = 200;

impl Cloud for Sdk {
    async fn describe_subnets(&self, vpc: &str) -> Called<Vec<Subnet>> {
        let in_vpc = || filter("vpc-id", [vpc]);
        let call = self.ec2.describe_subnets().filters(in_vpc()).max_results(EC2_PAGE);
        let subnets = paged!(self, Action::DescribeSubnets, call, set_next_token, next_token, subnets);
        let call = self.ec2.describe_route_tables().filters(in_vpc()).max_results(ROUTE_TABLES_PAGE);
        let tables = paged!(self, Action::DescribeRouteTables, call, set_next_token, next_token, route_tables);
        let call = self.ec2.describe_availability_zones();
        let zones = self.call(Action::DescribeAvailabilityZones, || call.clone().send()).await?;
        let public = read::public(&tables, &subnets);
        Ok(subnets.iter().filter_map(|subnet| read::subnet(subnet, &public, zones.availability_zones())).collect())
    }

    async fn describe_vpc_ranges(&self, vpc: &str) -> Called<Vec<String>> {
        let call = self.ec2.describe_vpcs().vpc_ids(vpc);
        let vpcs = paged!(self, Action::DescribeVpcs, call, set_next_token, next_token, vpcs);
        Ok(vpcs.iter().flat_map(read::ranges).collect())
    }

    async fn describe_instances(&self, ids: &[String]) -> Called<Vec<Instance>> {
        let mut all = Vec::new();
        for ids in ids.chunks(FILTER_VALUES) {
            let call = self.ec2.describe_instances().filters(filter("instance-id", ids)).max_results(EC2_PAGE);
            let found = paged!(self, Action::DescribeInstances, call, set_next_token, next_token, reservations);
            all.extend(found.iter().flat_map(ec2::types::Reservation::instances).filter_map(read::instance));
        }
        Ok(all)
    }

    async fn describe_interfaces(&self, vpc: &str, addresses: &[IpAddr]) -> Called<Vec<Interface>> {
        let (v4, v6): (Vec<IpAddr>, Vec<IpAddr>) = addresses.iter().copied().partition(IpAddr::is_ipv4);
        // An interface may have several of the addresses.
        let mut all = BTreeMap::new();
        for (name, addresses) in [("addresses.private-ip-address", v4), ("ipv6-addresses.ipv6-address", v6)] {
            for addresses in addresses.chunks(FILTER_VALUES) {
                let call = self.ec2.describe_network_interfaces().filters(filter("vpc-id", [vpc]));
                let words = addresses.iter().map(ToString::to_string);
                let call = call.filters(filter(name, words)).max_results(EC2_PAGE);
                let found = paged!(
                    self,
                    Action::DescribeNetworkInterfaces,
                    call,
                    set_next_token,
                    next_token,
                    network_interfaces
                );
                let found = found.iter().filter_map(read::interface);
                all.extend(found.map(|interface| (interface.id.clone(), interface)));
            }
        }
        Ok(all.into_values().collect())
    }

    async fn describe_security_groups(&self, vpc: &str, by: GroupFilter) -> Called<Vec<SecurityGroup>> {
        let filters = match by {
            GroupFilter::Tagged(tags) => {
                tags.into_iter().map(|(key, value)| filter(&format!("tag:{key}"), [value])).collect()
            }
            // A filter, because AWS fails where one of the identities does not exist.
            GroupFilter::Ids(ids) => vec![filter("group-id", ids)],
            GroupFilter::TagNames(names) => vec![filter("tag:Name", names)],
            GroupFilter::Named(name) => vec![filter("group-name", [name])],
            GroupFilter::LettingIn(group) => vec![filter("ip-permission.group-id", [group])],
        };
        let call = self.ec2.describe_security_groups().filters(filter("vpc-id", [vpc]));
        let call = filters.into_iter().fold(
            call,
            ec2::operation::describe_security_groups::builders::DescribeSecurityGroupsFluentBuilder::filters,
        );
        let call = call.max_results(EC2_PAGE);
        let groups = paged!(self, Action::DescribeSecurityGroups, call, set_next_token, next_token, security_groups);
        Ok(groups.iter().filter_map(read::security_group).collect())
    }

    async fn create_security_group(&self, vpc: &str, name: &str, description: &str, tags: &Pairs) -> Called<String> {
        let action = Action::CreateSecurityGroup;
        let tags = ec2::types::TagSpecification::builder()
            .resource_type(ec2::types::ResourceType::SecurityGroup)
            .set_tags(Some(ec2_tags(tags)))
            .build();
        let call = self.ec2.create_security_group().vpc_id(vpc).group_name(name).description(description);
        let call = call.tag_specifications(tags);
        let answer = self.call(action, || call.clone().send()).await?;
        answer.group_id.ok_or_else(|| lacks(action, "GroupId"))
    }

    async fn authorize_ingress(&self, group: &str, rules: &[Rule]) -> Called<()> {
        let call = self.ec2.authorize_security_group_ingress().group_id(group);
        let call = call.set_ip_permissions(Some(permissions(rules)));
        self.call(Action::AuthorizeSecurityGroupIngress, || call.clone().send()).await.map(drop)
    }

    async fn revoke_ingress(&self, group: &str, rules: &[Rule]) -> Called<()> {
        let call = self.ec2.revoke_security_group_ingress().group_id(group);
        let call = call.set_ip_permissions(Some(permissions(rules)));
        self.call(Action::RevokeSecurityGroupIngress, || call.clone().send()).await.map(drop)
    }

    async fn delete_security_group(&self, group: &str) -> Called<()> {
        let call = self.ec2.delete_security_group().group_id(group);
        self.call(Action::DeleteSecurityGroup, || call.clone().send()).await.map(drop)
    }

    async fn create_tags(&self, id: &str, tags: &Pairs) -> Called<()> {
        let call = self.ec2.create_tags().resources(id).set_tags(Some(ec2_tags(tags)));
        self.call(Action::CreateTags, || call.clone().send()).await.map(drop)
    }

    async fn delete_tags(&self, id: &str, keys: &[String]) -> Called<()> {
        let tags = keys.iter().map(|key| ec2::types::Tag::builder().key(key).build()).collect();
        let call = self.ec2.delete_tags().resources(id).set_tags(Some(tags));
        self.call(Action::DeleteTags, || call.clone().send()).await.map(drop)
    }

    async fn describe_load_balancers(&self, by: By<'_>) -> Called<Vec<LoadBalancer>> {
        let call = self.elb.describe_load_balancers();
        let call = match by {
            By::All => call,
            By::Arns(arns) => call.set_load_balancer_arns(Some(arns.to_vec())),
            By::Name(name) => call.names(name),
        };
        let all = paged!(self, Action::DescribeLoadBalancers, call, set_marker, next_marker, load_balancers);
        Ok(all.iter().filter_map(read::load_balancer).collect())
    }

    async fn describe_tags(&self, arns: &[String]) -> Called<BTreeMap<String, Pairs>> {
        let call = self.elb.describe_tags().set_resource_arns(Some(arns.to_vec()));
        let answer = self.call(Action::DescribeTags, || call.clone().send()).await?;
        Ok(read::tag_descriptions(answer.tag_descriptions()))
    }

    async fn add_tags(&self, arn: &str, tags: &Pairs) -> Called<()> {
        let call = self.elb.add_tags().resource_arns(arn).set_tags(Some(elb_tags(tags)));
        self.call(Action::AddTags, || call.clone().send()).await.map(drop)
    }

    async fn remove_tags(&self, arn: &str, keys: &[String]) -> Called<()> {
        let call = self.elb.remove_tags().resource_arns(arn).set_tag_keys(Some(keys.to_vec()));
        self.call(Action::RemoveTags, || call.clone().send()).await.map(drop)
    }

    async fn create_load_balancer(&self, new: &NewLoadBalancer) -> Called<LoadBalancer> {
        let action = Action::CreateLoadBalancer;
        let groups = Some(new.security_groups.clone()).filter(|groups| !groups.is_empty());
        let call = self
            .elb
            .create_load_balancer()
            .name(&new.name)
            .r#type(elb::types::LoadBalancerTypeEnum::Network)
            .scheme(new.scheme.as_str().into())
            .ip_address_type(new.ip_address_type.as_str().into())
            .set_subnet_mappings(Some(mappings(&new.subnet_mappings)))
            .set_security_groups(groups)
            .set_tags(Some(elb_tags(&new.tags)));
        let answer = self.call(action, || call.clone().send()).await?;
        answer.load_balancers().first().and_then(read::load_balancer).ok_or_else(|| lacks(action, "LoadBalancers"))
    }

    async fn set_subnets(&self, arn: &str, subnets: &[SubnetMapping]) -> Called<()> {
        let call = self.elb.set_subnets().load_balancer_arn(arn).set_subnet_mappings(Some(mappings(subnets)));
        self.call(Action::SetSubnets, || call.clone().send()).await.map(drop)
    }

    async fn set_security_groups(&self, arn: &str, groups: &[String], enforce: Option<bool>) -> Called<()> {
        use elb::types::EnforceSecurityGroupInboundRulesOnPrivateLinkTrafficEnum as Enforce;
        let enforce = enforce.map(|enforce| if enforce { Enforce::On } else { Enforce::Off });
        let call = self.elb.set_security_groups().load_balancer_arn(arn).set_security_groups(Some(groups.to_vec()));
        let call = call.set_enforce_security_group_inbound_rules_on_private_link_traffic(enforce);
        self.call(Action::SetSecurityGroups, || call.clone().send()).await.map(drop)
    }

    async fn set_ip_address_type(&self, arn: &str, to: IpAddressType) -> Called<()> {
        let call = self.elb.set_ip_address_type().load_balancer_arn(arn).ip_address_type(to.as_str().into());
        self.call(Action::SetIpAddressType, || call.clone().send()).await.map(drop)
    }

    async fn describe_load_balancer_attributes(&self, arn: &str) -> Called<Pairs> {
        let call = self.elb.describe_load_balancer_attributes().load_balancer_arn(arn);
        let answer = self.call(Action::DescribeLoadBalancerAttributes, || call.clone().send()).await?;
        Ok(read::pairs(answer.attributes().iter().map(|a| (a.key(), a.value()))))
    }

    async fn modify_load_balancer_attributes(&self, arn: &str, set: &Pairs) -> Called<()> {
        let attribute = |(key, value)| elb::types::LoadBalancerAttribute::builder().key(key).value(value).build();
        let attributes = set.iter().map(attribute).collect();
        let call = self.elb.modify_load_balancer_attributes().load_balancer_arn(arn).set_attributes(Some(attributes));
        self.call(Action::ModifyLoadBalancerAttributes, || call.clone().send()).await.map(drop)
    }

    async fn delete_load_balancer(&self, arn: &str) -> Called<()> {
        let call = self.elb.delete_load_balancer().load_balancer_arn(arn);
        self.call(Action::DeleteLoadBalancer, || call.clone().send()).await.map(drop)
    }

    async fn describe_target_groups(&self, by: By<'_>) -> Called<Vec<TargetGroup>> {
        let call = self.elb.describe_target_groups();
        let call = match by {
            By::All => call,
            By::Arns(arns) => call.set_target_group_arns(Some(arns.to_vec())),
            By::Name(name) => call.names(name),
        };
        let all = paged!(self, Action::DescribeTargetGroups, call, set_marker, next_marker, target_groups);
        Ok(all.iter().filter_map(read::target_group).collect())
    }

    async fn create_target_group(&self, new: &NewTargetGroup) -> Called<TargetGroup> {
        let action = Action::CreateTargetGroup;
        let check = &new.health_check;
        let call = self
            .elb
            .create_target_group()
            .name(&new.name)
            .protocol(new.protocol.as_str().into())
            .port(new.port.into())
            .vpc_id(&new.vpc_id)
            .target_type(new.target_type.as_str().into())
            .ip_address_type(new.ip_address_type.as_str().into())
            .health_check_protocol(check.protocol.as_str().into())
            .health_check_port(&check.port)
            .set_health_check_path(check.path.clone())
            .health_check_interval_seconds(check.interval.into())
            .health_check_timeout_seconds(check.timeout.into())
            .healthy_threshold_count(check.healthy.into())
            .unhealthy_threshold_count(check.unhealthy.into())
            .set_matcher(matcher(check))
            .set_tags(Some(elb_tags(&new.tags)));
        let answer = self.call(action, || call.clone().send()).await?;
        answer.target_groups().first().and_then(read::target_group).ok_or_else(|| lacks(action, "TargetGroups"))
    }

    async fn modify_target_group(&self, arn: &str, check: &HealthCheck) -> Called<()> {
        let call = self
            .elb
            .modify_target_group()
            .target_group_arn(arn)
            .health_check_protocol(check.protocol.as_str().into())
            .health_check_port(&check.port)
            .set_health_check_path(check.path.clone())
            .health_check_interval_seconds(check.interval.into())
            .health_check_timeout_seconds(check.timeout.into())
            .healthy_threshold_count(check.healthy.into())
            .unhealthy_threshold_count(check.unhealthy.into())
            .set_matcher(matcher(check));
        self.call(Action::ModifyTargetGroup, || call.clone().send()).await.map(drop)
    }

    async fn describe_target_group_attributes(&self, arn: &str) -> Called<Pairs> {
        let call = self.elb.describe_target_group_attributes().target_group_arn(arn);
        let answer = self.call(Action::DescribeTargetGroupAttributes, || call.clone().send()).await?;
        Ok(read::pairs(answer.attributes().iter().map(|a| (a.key(), a.value()))))
    }

    async fn modify_target_group_attributes(&self, arn: &str, set: &Pairs) -> Called<()> {
        let attribute = |(key, value)| elb::types::TargetGroupAttribute::builder().key(key).value(value).build();
        let attributes = set.iter().map(attribute).collect();
        let call = self.elb.modify_target_group_attributes().target_group_arn(arn).set_attributes(Some(attributes));
        self.call(Action::ModifyTargetGroupAttributes, || call.clone().send()).await.map(drop)
    }

    async fn register_targets(&self, target_group: &str, of: &[TargetDescription]) -> Called<()> {
        let call = self.elb.register_targets().target_group_arn(target_group).set_targets(Some(targets(of)));
        self.call(Action::RegisterTargets, || call.clone().send()).await.map(drop)
    }

    async fn deregister_targets(&self, target_group: &str, of: &[TargetDescription]) -> Called<()> {
        let call = self.elb.deregister_targets().target_group_arn(target_group).set_targets(Some(targets(of)));
        self.call(Action::DeregisterTargets, || call.clone().send()).await.map(drop)
    }

    async fn describe_target_health(&self, target_group: &str) -> Called<Vec<TargetHealth>> {
        // One answer with all targets (AWS rule).
        let call = self.elb.describe_target_health().target_group_arn(target_group);
        let answer = self.call(Action::DescribeTargetHealth, || call.clone().send()).await?;
        Ok(answer.target_health_descriptions().iter().filter_map(read::target).collect())
    }

    async fn delete_target_group(&self, arn: &str) -> Called<()> {
        let call = self.elb.delete_target_group().target_group_arn(arn);
        self.call(Action::DeleteTargetGroup, || call.clone().send()).await.map(drop)
    }

    async fn describe_listeners(&self, load_balancer: &str) -> Called<Vec<Listener>> {
        let call = self.elb.describe_listeners().load_balancer_arn(load_balancer);
        let all = paged!(self, Action::DescribeListeners, call, set_marker, next_marker, listeners);
        Ok(all.iter().filter_map(read::listener).collect())
    }

    async fn create_listener(
        &self,
        load_balancer: &str,
        port: u16,
        settings: &ListenerSettings,
        tags: &Pairs,
    ) -> Called<Listener> {
        let action = Action::CreateListener;
        let call = self
            .elb
            .create_listener()
            .load_balancer_arn(load_balancer)
            .port(port.into())
            .protocol(settings.protocol.as_str().into())
            .default_actions(forward(settings))
            .set_certificates(settings.certificate.as_ref().map(|arn| certificates(std::slice::from_ref(arn))))
            .set_ssl_policy(settings.ssl_policy.clone())
            .set_alpn_policy(settings.alpn_policy.clone().map(|policy| vec![policy]))
            .set_tags(Some(elb_tags(tags)));
        let answer = self.call(action, || call.clone().send()).await?;
        answer.listeners().first().and_then(read::listener).ok_or_else(|| lacks(action, "Listeners"))
    }

    async fn modify_listener(&self, arn: &str, settings: &ListenerSettings) -> Called<()> {
        let call = self
            .elb
            .modify_listener()
            .listener_arn(arn)
            .protocol(settings.protocol.as_str().into())
            .default_actions(forward(settings))
            .set_certificates(settings.certificate.as_ref().map(|arn| certificates(std::slice::from_ref(arn))))
            .set_ssl_policy(settings.ssl_policy.clone())
            .set_alpn_policy(settings.alpn_policy.clone().map(|policy| vec![policy]));
        self.call(Action::ModifyListener, || call.clone().send()).await.map(drop)
    }

    async fn describe_listener_attributes(&self, arn: &str) -> Called<Pairs> {
        let call = self.elb.describe_listener_attributes().listener_arn(arn);
        let answer = self.call(Action::DescribeListenerAttributes, || call.clone().send()).await?;
        Ok(read::pairs(answer.attributes().iter().map(|a| (a.key(), a.value()))))
    }

    async fn modify_listener_attributes(&self, arn: &str, set: &Pairs) -> Called<()> {
        let attribute = |(key, value)| elb::types::ListenerAttribute::builder().key(key).value(value).build();
        let attributes = set.iter().map(attribute).collect();
        let call = self.elb.modify_listener_attributes().listener_arn(arn).set_attributes(Some(attributes));
        self.call(Action::ModifyListenerAttributes, || call.clone().send()).await.map(drop)
    }

    async fn describe_listener_certificates(&self, arn: &str) -> Called<Vec<String>> {
        let call = self.elb.describe_listener_certificates().listener_arn(arn);
        let all = paged!(self, Action::DescribeListenerCertificates, call, set_marker, next_marker, certificates);
        let beside = all.into_iter().filter(|certificate| certificate.is_default != Some(true));
        let beside: BTreeSet<_> = beside.filter_map(|certificate| certificate.certificate_arn).collect();
        Ok(beside.into_iter().collect())
    }

    async fn add_listener_certificates(&self, arn: &str, add: &[String]) -> Called<()> {
        // One at a time (AWS rule).
        for certificate in certificates(add) {
            let call = self.elb.add_listener_certificates().listener_arn(arn).certificates(certificate);
            self.call(Action::AddListenerCertificates, || call.clone().send()).await?;
        }
        Ok(())
    }

    async fn remove_listener_certificates(&self, arn: &str, remove: &[String]) -> Called<()> {
        // One at a time (AWS rule).
        for certificate in certificates(remove) {
            let call = self.elb.remove_listener_certificates().listener_arn(arn).certificates(certificate);
            self.call(Action::RemoveListenerCertificates, || call.clone().send()).await?;
        }
        Ok(())
    }

    async fn delete_listener(&self, arn: &str) -> Called<()> {
        let call = self.elb.delete_listener().listener_arn(arn);
        self.call(Action::DeleteListener, || call.clone().send()).await.map(drop)
    }
}
