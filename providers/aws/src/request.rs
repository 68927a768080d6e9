//! A step as the API is asked for it, for whoever reads a plan: the parameters of the call under the API's own names and in its own
//! forms. What has no identity yet is named by its name, under the name that the API has for that.

use serde_json::{Map, Value, json};

use crate::step::Step;

/// The parameters of the call, and the call itself under `Action`.
///
/// # Errors
/// When the step cannot be written as JSON, which none of them is.
pub fn request(step: &Step) -> Result<Value, serde_json::Error> {
    let Value::Object(fields) = serde_json::to_value(step)? else { return Ok(Value::Null) };
    let mut asked = Map::new();
    for (key, value) in fields.into_iter().filter(|(_, value)| !value.is_null()) {
        write(&key, value, &mut asked);
    }
    if matches!(step, Step::CreateLoadBalancer { .. }) {
        asked.insert("Type".to_owned(), "network".into());
    }
    Ok(Value::Object(asked))
}

fn write(key: &str, value: Value, asked: &mut Map<String, Value>) {
    let (key, value) = match (key, value) {
        ("Tags" | "Attributes", Value::Object(pairs)) => (key, listed(pairs)),
        ("IpPermissions", Value::Array(rules)) => (key, rules.into_iter().map(permission).collect()),
        ("Matcher", codes) => (key, json!({ "HttpCode": codes })),
        ("AlpnPolicy", policy) => (key, json!([policy])),
        ("Certificates", Value::Array(all)) => (key, all.into_iter().map(certificate).collect()),
        ("Certificates", one) => (key, json!([certificate(one)])),
        ("EnforceSecurityGroupInboundRulesOnPrivateLinkTraffic", Value::Bool(on)) => {
            (key, if on { "on" } else { "off" }.into())
        }
        ("LoadBalancer", name) => ("LoadBalancerName", name),
        ("TargetGroup", name) if asked.contains_key("Port") => {
            ("DefaultActions", json!([{ "Type": "forward", "TargetGroupName": name }]))
        }
        ("TargetGroup", name) => ("TargetGroupName", name),
        ("Resource", Value::Object(of)) => {
            for (kind, name) in of {
                match (kind.as_str(), name) {
                    ("Listener", Value::Array(name_and_port)) => {
                        let mut parts = name_and_port.into_iter();
                        asked.insert("LoadBalancerName".to_owned(), parts.next().unwrap_or_default());
                        asked.insert("Port".to_owned(), parts.next().unwrap_or_default());
                    }
                    ("SecurityGroup", name) => drop(asked.insert("GroupName".to_owned(), name)),
                    (kind, name) => drop(asked.insert(format!("{kind}Name"), name)),
                }
            }
            return;
        }
        (key, value) => (key, value),
    };
    asked.insert(key.to_owned(), value);
}

fn listed(pairs: Map<String, Value>) -> Value {
    pairs.into_iter().map(|(key, value)| json!({ "Key": key, "Value": value })).collect()
}

fn certificate(arn: Value) -> Value {
    json!({ "CertificateArn": arn })
}

/// A rule, with whom it lets in where EC2 has it.
fn permission(rule: Value) -> Value {
    let Value::Object(mut rule) = rule else { return rule };
    let description = rule.remove("Description").filter(|text| !text.is_null());
    if let Some(Value::Object(source)) = rule.remove("Source") {
        for (kind, value) in source {
            let list = match kind.as_str() {
                "CidrIp" => "IpRanges",
                "CidrIpv6" => "Ipv6Ranges",
                "PrefixListId" => "PrefixListIds",
                _ => "UserIdGroupPairs",
            };
            let mut of = Map::from_iter([(kind, value)]);
            of.extend(description.clone().map(|text| ("Description".to_owned(), text)));
            rule.insert(list.to_owned(), json!([of]));
        }
    }
    Value::Object(rule)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloud::{IpAddressType, IpProtocol, NewLoadBalancer, Protocol, Rule, Scheme, Source, SubnetMapping};
    use crate::intent::Tls;
    use crate::step::{Group, ListenerStep, Tagged};

    fn subnet(id: &str) -> SubnetMapping {
        SubnetMapping {
            subnet_id: id.to_owned(),
            allocation_id: Some("eipalloc-1".to_owned()),
            private_ipv4: None,
            ipv6: None,
        }
    }

    #[test]
    fn a_step_is_written_as_the_api_is_asked_for_it() {
        let (name, group) = ("berth-web".to_owned(), "berth-web-sg".to_owned());
        let tags = || [("team".to_owned(), "a".to_owned())].into();
        let rule =
            |source| Rule { ip_protocol: IpProtocol::Tcp, from_port: 80, to_port: 81, source, description: None };
        let tls =
            Tls { certificates: vec!["arn:a".to_owned()], policy: "P".to_owned(), alpn: Some("HTTP2Only".to_owned()) };
        let listener = |tls| ListenerStep {
            load_balancer: name.clone(),
            port: 443,
            protocol: Protocol::Tls,
            target_group: "berth-tg".to_owned(),
            tls,
        };
        let new = NewLoadBalancer {
            name: name.clone(),
            scheme: Scheme::InternetFacing,
            ip_address_type: IpAddressType::Ipv4,
            subnet_mappings: vec![subnet("subnet-1")],
            security_groups: Vec::new(),
            tags: tags(),
        };
        let own = Group::Own(group.clone());
        for (step, expected) in [
            (
                Step::AuthorizeSecurityGroupIngress {
                    group_name: group.clone(),
                    ip_permissions: [
                        rule(Source::V4("0.0.0.0/0".to_owned())),
                        rule(Source::PrefixList("pl-1".to_owned())),
                    ]
                    .into(),
                },
                json!({"Action": "AuthorizeSecurityGroupIngress", "GroupName": group, "IpPermissions": [
                    {"IpProtocol": "tcp", "FromPort": 80, "ToPort": 81, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]},
                    {"IpProtocol": "tcp", "FromPort": 80, "ToPort": 81, "PrefixListIds": [{"PrefixListId": "pl-1"}]},
                ]}),
            ),
            (
                Step::CreateLoadBalancer { new, groups: [own.clone()].into(), limit: Some(1) },
                json!({"Action": "CreateLoadBalancer", "Type": "network", "Name": name, "Scheme": "internet-facing",
                    "IpAddressType": "ipv4", "SubnetMappings": [{"SubnetId": "subnet-1", "AllocationId": "eipalloc-1"}],
                    "SecurityGroups": [{"GroupName": group}], "Tags": [{"Key": "team", "Value": "a"}]}),
            ),
            (
                Step::CreateListener { listener: listener(Some(tls)), tags: tags() },
                json!({"Action": "CreateListener", "LoadBalancerName": name, "Port": 443, "Protocol": "TLS",
                    "DefaultActions": [{"Type": "forward", "TargetGroupName": "berth-tg"}],
                    "Certificates": [{"CertificateArn": "arn:a"}], "SslPolicy": "P", "AlpnPolicy": ["HTTP2Only"],
                    "Tags": [{"Key": "team", "Value": "a"}]}),
            ),
            (
                Step::SetSecurityGroups {
                    load_balancer: name.clone(),
                    security_groups: [Group::Id("sg-1".to_owned())].into(),
                    enforce_on_private_link: Some(false),
                },
                json!({"Action": "SetSecurityGroups", "LoadBalancerName": name, "SecurityGroups": [{"GroupId": "sg-1"}],
                    "EnforceSecurityGroupInboundRulesOnPrivateLinkTraffic": "off"}),
            ),
            (
                Step::AddTags { resource: Tagged::Listener(name.clone(), 80), tags: tags() },
                json!({"Action": "AddTags", "LoadBalancerName": name, "Port": 80, "Tags": [{"Key": "team", "Value": "a"}]}),
            ),
            (
                Step::RemoveTags { resource: Tagged::SecurityGroup(group.clone()), tag_keys: vec!["team".to_owned()] },
                json!({"Action": "RemoveTags", "GroupName": group, "TagKeys": ["team"]}),
            ),
            (
                Step::ModifyTargetGroupAttributes { target_group: "berth-tg".to_owned(), attributes: tags() },
                json!({"Action": "ModifyTargetGroupAttributes", "TargetGroupName": "berth-tg",
                    "Attributes": [{"Key": "team", "Value": "a"}]}),
            ),
        ] {
            assert_eq!(request(&step).unwrap(), expected);
        }
    }
}
