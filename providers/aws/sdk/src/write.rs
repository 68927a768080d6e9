//! Our types, as the SDK takes them.

use aws_sdk_ec2 as ec2;
use aws_sdk_elasticloadbalancingv2 as elb;
use berth_aws::cloud::{HealthCheck, ListenerSettings, Pairs, Rule, Source, SubnetMapping, TargetDescription};

use crate::read::OUTSIDE;

pub(crate) fn filter(name: &str, values: impl IntoIterator<Item = impl Into<String>>) -> ec2::types::Filter {
    let values = values.into_iter().map(Into::into).collect();
    ec2::types::Filter::builder().name(name).set_values(Some(values)).build()
}

pub(crate) fn ec2_tags(tags: &Pairs) -> Vec<ec2::types::Tag> {
    tags.iter().map(|(key, value)| ec2::types::Tag::builder().key(key).value(value).build()).collect()
}

pub(crate) fn elb_tags(tags: &Pairs) -> Vec<elb::types::Tag> {
    tags.iter().map(|(key, value)| elb::types::Tag::builder().key(key).value(value).build()).collect()
}

/// A permission for each rule: AWS takes them together.
pub(crate) fn permissions(rules: &[Rule]) -> Vec<ec2::types::IpPermission> {
    let permission = |rule: &Rule| {
        let permission = ec2::types::IpPermission::builder()
            .ip_protocol(rule.ip_protocol.as_str())
            .from_port(rule.from_port.into())
            .to_port(rule.to_port.into());
        let said = rule.description.clone();
        let permission = match &rule.source {
            Source::V4(range) => {
                let range = ec2::types::IpRange::builder().cidr_ip(range).set_description(said);
                permission.ip_ranges(range.build())
            }
            Source::V6(range) => {
                let range = ec2::types::Ipv6Range::builder().cidr_ipv6(range).set_description(said);
                permission.ipv6_ranges(range.build())
            }
            Source::PrefixList(id) => {
                let list = ec2::types::PrefixListId::builder().prefix_list_id(id).set_description(said);
                permission.prefix_list_ids(list.build())
            }
            Source::Group(id) => {
                let group = ec2::types::UserIdGroupPair::builder().group_id(id).set_description(said);
                permission.user_id_group_pairs(group.build())
            }
        };
        permission.build()
    };
    rules.iter().map(permission).collect()
}

pub(crate) fn mappings(mappings: &[SubnetMapping]) -> Vec<elb::types::SubnetMapping> {
    let mapping = |mapping: &SubnetMapping| {
        elb::types::SubnetMapping::builder()
            .subnet_id(&mapping.subnet_id)
            .set_allocation_id(mapping.allocation_id.clone())
            .set_private_ipv4_address(mapping.private_ipv4.map(|address| address.to_string()))
            .set_ipv6_address(mapping.ipv6.map(|address| address.to_string()))
            .build()
    };
    mappings.iter().map(mapping).collect()
}

pub(crate) fn matcher(check: &HealthCheck) -> Option<elb::types::Matcher> {
    check.codes.as_ref().map(|codes| elb::types::Matcher::builder().http_code(codes).build())
}

pub(crate) fn forward(settings: &ListenerSettings) -> elb::types::Action {
    elb::types::Action::builder()
        .r#type(elb::types::ActionTypeEnum::Forward)
        .target_group_arn(&settings.target_group_arn)
        .build()
}

pub(crate) fn certificates(arns: &[String]) -> Vec<elb::types::Certificate> {
    arns.iter().map(|arn| elb::types::Certificate::builder().certificate_arn(arn).build()).collect()
}

pub(crate) fn targets(targets: &[TargetDescription]) -> Vec<elb::types::TargetDescription> {
    let target = |target: &TargetDescription| {
        elb::types::TargetDescription::builder()
            .id(&target.id)
            .port(target.port.into())
            .set_availability_zone(target.is_outside.then(|| OUTSIDE.to_owned()))
            .build()
    };
    targets.iter().map(target).collect()
}
