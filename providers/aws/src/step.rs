//! The effects of a plan. Cloud objects are named by their names, which are known before they are made.
//!
//! Written down, fields have the names of the EC2 and ELBv2 APIs.

use std::collections::BTreeSet;
use std::fmt;

use serde::Serialize;

use crate::cloud::{HealthCheck, IpAddressType, NewLoadBalancer, NewTargetGroup, Pairs, Protocol, Rule, SubnetMapping};
use crate::intent::Tls;

/// A security group.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Group {
    /// The shard's own or the cluster's, by its name.
    #[serde(rename = "GroupName")]
    Own(String),
    /// One that a Service names, by its identity.
    #[serde(rename = "GroupId")]
    Id(String),
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own(name) => f.write_str(name),
            Self::Id(id) => f.write_str(id),
        }
    }
}

/// What has tags.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Tagged {
    /// A load balancer, by its name.
    LoadBalancer(String),
    /// A target group, by its name.
    TargetGroup(String),
    /// A listener, by its load balancer's name and its port.
    Listener(String, u16),
    /// The shard's security group, by its name.
    SecurityGroup(String),
}

impl fmt::Display for Tagged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LoadBalancer(name) => write!(f, "load balancer {name}"),
            Self::TargetGroup(name) => write!(f, "target group {name}"),
            Self::Listener(name, port) => write!(f, "listener {port} of {name}"),
            Self::SecurityGroup(name) => write!(f, "security group {name}"),
        }
    }
}

/// What a listener is to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ListenerStep {
    /// The load balancer, by its name.
    pub load_balancer: String,
    /// Its port.
    pub port: u16,
    /// What it speaks.
    pub protocol: Protocol,
    /// The target group, by its name.
    pub target_group: String,
    /// For TLS; certificates beside the first are added by another step.
    #[serde(flatten, serialize_with = "tls")]
    pub tls: Option<Tls>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct TlsFields<'a> {
    certificates: Option<&'a String>,
    ssl_policy: Option<&'a String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    alpn_policy: Option<&'a String>,
}

#[allow(clippy::ref_option, reason = "serde's signature")]
fn tls<S: serde::Serializer>(tls: &Option<Tls>, serializer: S) -> Result<S::Ok, S::Error> {
    let fields = tls.as_ref().map(|tls| TlsFields {
        certificates: tls.certificates.first(),
        ssl_policy: Some(&tls.policy),
        alpn_policy: tls.alpn.as_ref(),
    });
    fields.serialize(serializer)
}

/// One effect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "Action", rename_all_fields = "PascalCase")]
pub enum Step {
    /// Make the shard's security group.
    CreateSecurityGroup {
        /// Its name.
        group_name: String,
        /// Where.
        vpc_id: String,
        /// Its tags.
        tags: Pairs,
    },
    /// Let traffic in.
    AuthorizeSecurityGroupIngress {
        /// The group.
        group_name: String,
        /// What is let in.
        ip_permissions: BTreeSet<Rule>,
    },
    /// Let traffic in no more.
    RevokeSecurityGroupIngress {
        /// The group.
        group_name: String,
        /// What was let in.
        ip_permissions: BTreeSet<Rule>,
    },
    /// Remove the shard's security group.
    DeleteSecurityGroup {
        /// Its name.
        group_name: String,
    },
    /// Make a target group.
    CreateTargetGroup(NewTargetGroup),
    /// Change how targets are asked whether they serve.
    ModifyTargetGroup {
        /// Its name.
        target_group: String,
        /// How.
        #[serde(flatten)]
        health_check: HealthCheck,
    },
    /// Set attributes of a target group.
    ModifyTargetGroupAttributes {
        /// Its name.
        target_group: String,
        /// Those that differ.
        attributes: Pairs,
    },
    /// Remove a target group.
    DeleteTargetGroup {
        /// Its name.
        target_group: String,
    },
    /// Make a load balancer.
    CreateLoadBalancer {
        /// What it is made with. Its security groups are named beside it.
        #[serde(flatten)]
        new: NewLoadBalancer,
        /// Its security groups.
        #[serde(rename = "SecurityGroups")]
        groups: BTreeSet<Group>,
        /// How many load balancers the namespace may have, if there is a limit.
        #[serde(skip)]
        limit: Option<usize>,
    },
    /// Put it into these subnets and no others.
    SetSubnets {
        /// Its name.
        load_balancer: String,
        /// Which.
        subnet_mappings: Vec<SubnetMapping>,
    },
    /// Give it these security groups and no others.
    SetSecurityGroups {
        /// Its name.
        load_balancer: String,
        /// Which.
        security_groups: BTreeSet<Group>,
        /// Whether their rules hold for traffic through PrivateLink, if that is said.
        #[serde(
            rename = "EnforceSecurityGroupInboundRulesOnPrivateLinkTraffic",
            skip_serializing_if = "Option::is_none"
        )]
        enforce_on_private_link: Option<bool>,
    },
    /// Give it addresses of these families.
    SetIpAddressType {
        /// Its name.
        load_balancer: String,
        /// Which.
        ip_address_type: IpAddressType,
    },
    /// Set attributes of a load balancer.
    ModifyLoadBalancerAttributes {
        /// Its name.
        load_balancer: String,
        /// Those that differ.
        attributes: Pairs,
    },
    /// Remove a load balancer, with its listeners.
    DeleteLoadBalancer {
        /// Its name.
        load_balancer: String,
    },
    /// Make a listener.
    CreateListener {
        /// What it does.
        #[serde(flatten)]
        listener: ListenerStep,
        /// Its tags.
        tags: Pairs,
    },
    /// Change what a listener does.
    ModifyListener(ListenerStep),
    /// Show further certificates.
    AddListenerCertificates {
        /// The load balancer, by its name.
        load_balancer: String,
        /// The listener.
        port: u16,
        /// Which.
        certificates: BTreeSet<String>,
    },
    /// Show certificates no more.
    RemoveListenerCertificates {
        /// The load balancer, by its name.
        load_balancer: String,
        /// The listener.
        port: u16,
        /// Which.
        certificates: BTreeSet<String>,
    },
    /// Set attributes of a listener.
    ModifyListenerAttributes {
        /// The load balancer, by its name.
        load_balancer: String,
        /// The listener.
        port: u16,
        /// Those that differ.
        attributes: Pairs,
    },
    /// Remove a listener.
    DeleteListener {
        /// The load balancer, by its name.
        load_balancer: String,
        /// The listener.
        port: u16,
    },
    /// Set tags.
    AddTags {
        /// On what.
        resource: Tagged,
        /// Which.
        tags: Pairs,
    },
    /// Remove tags.
    RemoveTags {
        /// Of what.
        resource: Tagged,
        /// Their keys.
        tag_keys: Vec<String>,
    },
}

impl Step {
    /// Whether something is there afterwards that was not before, and that is found by its tags.
    pub fn makes_something(&self) -> bool {
        matches!(self, Self::CreateSecurityGroup { .. } | Self::CreateTargetGroup(_) | Self::CreateLoadBalancer { .. })
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CreateSecurityGroup { group_name, .. } => write!(f, "create the security group {group_name}"),
            Self::AuthorizeSecurityGroupIngress { group_name, ip_permissions } => {
                write!(f, "let into the security group {group_name}: {}", rules(ip_permissions))
            }
            Self::RevokeSecurityGroupIngress { group_name, ip_permissions } => {
                write!(f, "let into the security group {group_name} no more: {}", rules(ip_permissions))
            }
            Self::DeleteSecurityGroup { group_name } => write!(f, "delete the security group {group_name}"),
            Self::CreateTargetGroup(new) => {
                write!(f, "create the target group {} of {} {}", new.name, new.target_type, new.protocol)
            }
            Self::ModifyTargetGroup { target_group, .. } => write!(f, "change the health check of {target_group}"),
            Self::ModifyTargetGroupAttributes { target_group, attributes } => {
                write!(f, "set on the target group {target_group}: {}", pairs(attributes))
            }
            Self::DeleteTargetGroup { target_group } => write!(f, "delete the target group {target_group}"),
            Self::CreateLoadBalancer { new, .. } => {
                let subnets: Vec<_> = new.subnet_mappings.iter().map(|mapping| mapping.subnet_id.as_str()).collect();
                write!(f, "create the {} load balancer {} in {}", new.scheme, new.name, subnets.join(", "))
            }
            Self::SetSubnets { load_balancer, subnet_mappings } => {
                let subnets: Vec<_> = subnet_mappings.iter().map(|mapping| mapping.subnet_id.as_str()).collect();
                write!(f, "put the load balancer {load_balancer} into {}", subnets.join(", "))
            }
            Self::SetSecurityGroups { load_balancer, security_groups, .. } => {
                let groups: Vec<_> = security_groups.iter().map(ToString::to_string).collect();
                write!(f, "give the load balancer {load_balancer} the security groups {}", groups.join(", "))
            }
            Self::SetIpAddressType { load_balancer, ip_address_type } => {
                write!(f, "make the load balancer {load_balancer} {ip_address_type}")
            }
            Self::ModifyLoadBalancerAttributes { load_balancer, attributes } => {
                write!(f, "set on the load balancer {load_balancer}: {}", pairs(attributes))
            }
            Self::DeleteLoadBalancer { load_balancer } => write!(f, "delete the load balancer {load_balancer}"),
            Self::CreateListener { listener: l, .. } => {
                write!(f, "create the {} listener {} of {} to {}", l.protocol, l.port, l.load_balancer, l.target_group)
            }
            Self::ModifyListener(l) => {
                write!(
                    f,
                    "change the listener {} of {} to {} and {}",
                    l.port, l.load_balancer, l.protocol, l.target_group
                )
            }
            Self::AddListenerCertificates { load_balancer, port, certificates } => {
                write!(f, "show on the listener {port} of {load_balancer} also {}", list(certificates))
            }
            Self::RemoveListenerCertificates { load_balancer, port, certificates } => {
                write!(f, "show on the listener {port} of {load_balancer} no more {}", list(certificates))
            }
            Self::ModifyListenerAttributes { load_balancer, port, attributes } => {
                write!(f, "set on the listener {port} of {load_balancer}: {}", pairs(attributes))
            }
            Self::DeleteListener { load_balancer, port } => write!(f, "delete the listener {port} of {load_balancer}"),
            Self::AddTags { resource, tags } => write!(f, "tag the {resource}: {}", pairs(tags)),
            Self::RemoveTags { resource, tag_keys } => write!(f, "untag the {resource}: {}", tag_keys.join(", ")),
        }
    }
}

fn list(all: &BTreeSet<String>) -> String {
    all.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
}

fn pairs(pairs: &Pairs) -> String {
    pairs.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(", ")
}

fn rules(rules: &BTreeSet<Rule>) -> String {
    rules.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
