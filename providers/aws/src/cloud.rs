//! The calls of EC2 and of Elastic Load Balancing (ELBv2) that the provider makes, and what they answer: no more than is used.
//!
//! The names of calls and fields are the APIs' own. An implementation pages through lists by itself.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::Serialize;

pub use crate::errors::CallError;

/// Tags, or attributes.
pub type Pairs = BTreeMap<String, String>;

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        pub enum $name { $($(#[$variant_doc])* #[serde(rename = $word)] $variant,)+ }

        impl $name {
            /// The API's word for it.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }

            /// What the API's word says; nothing for one that we do not know.
            pub fn from_word(word: &str) -> Option<Self> {
                [$(Self::$variant,)+].into_iter().find(|one| one.as_str() == word)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

mod instances;
mod targets;

pub use instances::{Instance, Interface};
pub use targets::{TargetDescription, TargetHealth, TargetState};

words! {
    /// Who reaches a load balancer.
    Scheme {
        /// Whoever is in the VPC or routed to it.
        Internal = "internal",
        /// The internet.
        InternetFacing = "internet-facing",
    }
}
words! {
    /// The families of a load balancer's addresses.
    IpAddressType {
        /// IPv4 alone.
        Ipv4 = "ipv4",
        /// Both.
        Dualstack = "dualstack",
    }
}
words! {
    /// The protocol of a listener or target group.
    Protocol {
        /// TCP.
        Tcp = "TCP",
        /// UDP.
        Udp = "UDP",
        /// Both on one port.
        TcpUdp = "TCP_UDP",
        /// TLS, which ends at the listener.
        Tls = "TLS",
    }
}
words! {
    /// What the targets of a group are named by.
    TargetType {
        /// Instances, on a node port.
        Instance = "instance",
        /// Addresses.
        Ip = "ip",
    }
}
words! {
    /// The family of a target group's targets.
    TargetFamily {
        /// IPv4.
        Ipv4 = "ipv4",
        /// IPv6.
        Ipv6 = "ipv6",
    }
}
words! {
    /// How targets are asked whether they serve.
    HealthProtocol {
        /// They take a connection.
        Tcp = "TCP",
        /// They answer a request.
        Http = "HTTP",
        /// They answer one over TLS.
        Https = "HTTPS",
    }
}
words! {
    /// How far a load balancer has come.
    State {
        /// It comes up.
        Provisioning = "provisioning",
        /// It works.
        Active = "active",
        /// It works, and lacks resources to scale.
        ActiveImpaired = "active_impaired",
        /// It could not be set up.
        Failed = "failed",
    }
}
words! {
    /// What a rule of a security group lets in.
    IpProtocol {
        /// TCP.
        Tcp = "tcp",
        /// UDP.
        Udp = "udp",
        /// ICMP; the ports are type and code.
        Icmp = "icmp",
        /// ICMPv6; the ports are type and code.
        Icmpv6 = "icmpv6",
    }
}

/// A subnet that a load balancer is in, and the addresses that it has there if they are chosen.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct SubnetMapping {
    /// Which one.
    pub subnet_id: String,
    /// An Elastic IP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allocation_id: Option<String>,
    /// A private address.
    #[serde(rename = "PrivateIPv4Address", skip_serializing_if = "Option::is_none")]
    pub private_ipv4: Option<Ipv4Addr>,
    /// An IPv6 address.
    #[serde(rename = "IPv6Address", skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<Ipv6Addr>,
}

/// What `CreateLoadBalancer` is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct NewLoadBalancer {
    /// Unique in account and region.
    pub name: String,
    /// Who reaches it.
    pub scheme: Scheme,
    /// Its families.
    pub ip_address_type: IpAddressType,
    /// Where it is, one subnet for a zone.
    pub subnet_mappings: Vec<SubnetMapping>,
    /// Its security groups. One that is made without any can never have one (AWS rule). Not written down with a step, which has
    /// them by their names.
    #[serde(skip)]
    pub security_groups: Vec<String>,
    /// Its tags.
    pub tags: Pairs,
}

/// A load balancer, as `DescribeLoadBalancers` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadBalancer {
    /// Its identity.
    pub arn: String,
    /// Its name.
    pub name: String,
    /// Where clients find it.
    pub dns_name: String,
    /// The VPC that it is in.
    pub vpc_id: String,
    /// Who reaches it.
    pub scheme: Scheme,
    /// Its families.
    pub ip_address_type: IpAddressType,
    /// How far it has come.
    pub state: State,
    /// Where it is.
    pub subnet_ids: Vec<String>,
    /// Its security groups.
    pub security_groups: Vec<String>,
    /// Whether the rules of its security groups hold for traffic through PrivateLink, where that is answered.
    pub enforces_on_private_link: Option<bool>,
}

/// How targets are asked whether they serve.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct HealthCheck {
    /// By which protocol.
    #[serde(rename = "HealthCheckProtocol")]
    pub protocol: HealthProtocol,
    /// `traffic-port`, or a number.
    #[serde(rename = "HealthCheckPort")]
    pub port: String,
    /// For HTTP and HTTPS.
    #[serde(rename = "HealthCheckPath", skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// In seconds, 5 to 300.
    #[serde(rename = "HealthCheckIntervalSeconds")]
    pub interval: u16,
    /// In seconds, 2 to 120.
    #[serde(rename = "HealthCheckTimeoutSeconds")]
    pub timeout: u16,
    /// Answers in a row, 2 to 10.
    #[serde(rename = "HealthyThresholdCount")]
    pub healthy: u8,
    /// Missing answers in a row, 2 to 10.
    #[serde(rename = "UnhealthyThresholdCount")]
    pub unhealthy: u8,
    /// The codes that are good answers, for HTTP and HTTPS.
    #[serde(rename = "Matcher", skip_serializing_if = "Option::is_none")]
    pub codes: Option<String>,
}

/// What `CreateTargetGroup` is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct NewTargetGroup {
    /// Unique in account and region.
    pub name: String,
    /// How targets are spoken to.
    pub protocol: Protocol,
    /// The port of targets that are registered without one.
    pub port: u16,
    /// The VPC that they are in.
    pub vpc_id: String,
    /// What they are named by.
    pub target_type: TargetType,
    /// Their family.
    pub ip_address_type: TargetFamily,
    /// How they are asked whether they serve.
    #[serde(flatten)]
    pub health_check: HealthCheck,
    /// Its tags.
    pub tags: Pairs,
}

/// A target group, as `DescribeTargetGroups` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetGroup {
    /// Its identity.
    pub arn: String,
    /// Its name.
    pub name: String,
    /// How targets are spoken to.
    pub protocol: Protocol,
    /// The port of targets that are registered without one.
    pub port: u16,
    /// What they are named by.
    pub target_type: TargetType,
    /// How they are asked whether they serve.
    pub health_check: HealthCheck,
}

/// What a listener does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ListenerSettings {
    /// What it speaks.
    pub protocol: Protocol,
    /// The target group that it sends traffic to.
    pub target_group_arn: String,
    /// The certificate that it shows, for TLS.
    pub certificate: Option<String>,
    /// The security policy, for TLS.
    pub ssl_policy: Option<String>,
    /// What it negotiates, for TLS.
    pub alpn_policy: Option<String>,
}

/// A listener, as `DescribeListeners` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Its identity.
    pub arn: String,
    /// The port that it listens on, its identity on its load balancer.
    pub port: u16,
    /// What it does.
    pub settings: ListenerSettings,
}

/// Who a rule lets in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Source {
    /// A range of IPv4 addresses.
    #[serde(rename = "CidrIp")]
    V4(String),
    /// A range of IPv6 addresses.
    #[serde(rename = "CidrIpv6")]
    V6(String),
    /// A list of ranges.
    #[serde(rename = "PrefixListId")]
    PrefixList(String),
    /// Whoever is in this security group, by its identity.
    #[serde(rename = "GroupId")]
    Group(String),
}

/// A rule by which a security group lets traffic in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Rule {
    /// What.
    pub ip_protocol: IpProtocol,
    /// The lowest port, or the ICMP type.
    pub from_port: u16,
    /// The highest port, or the ICMP code.
    pub to_port: u16,
    /// From whom.
    pub source: Source,
    /// What AWS keeps beside it. It is no part of what tells rules apart: of two that differ in it alone there can be one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

impl Rule {
    /// Without what is kept beside it: what AWS tells rules apart by.
    #[must_use]
    pub fn bare(&self) -> Self {
        Self { description: None, ..self.clone() }
    }
}

/// A security group, as `DescribeSecurityGroups` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecurityGroup {
    /// Its identity.
    pub id: String,
    /// Its name, unique in the VPC.
    pub name: String,
    /// What it lets in. A rule that is of no kind that we make is not among them.
    pub rules: Vec<Rule>,
    /// Its tags.
    pub tags: Pairs,
}

/// A subnet, as `DescribeSubnets` shows it, with what its route table and zone say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subnet {
    /// Its identity.
    pub id: String,
    /// The zone that it is in.
    pub zone: String,
    /// What kind of zone: `availability-zone`, `local-zone`, `wavelength-zone`, or `outpost`.
    pub zone_type: String,
    /// Its IPv4 range.
    pub cidr: String,
    /// Its IPv6 range, once it is associated.
    pub ipv6_cidr: Option<String>,
    /// IPv4 addresses that are free.
    pub free_addresses: u32,
    /// Whether its route table sends traffic to an internet gateway.
    pub is_public: bool,
    /// Its tags.
    pub tags: Pairs,
}

/// What is asked for among security groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupFilter {
    /// Those that have these tags.
    Tagged(Pairs),
    /// Those of these ids, as far as they exist.
    Ids(Vec<String>),
    /// Those of this tag `Name`, any of them.
    TagNames(Vec<String>),
    /// The one of this name in the VPC.
    Named(String),
    /// Those with a rule that lets in who is in this security group (`ip-permission.group-id`).
    LettingIn(String),
}

/// What is asked for among load balancers or target groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By<'a> {
    /// All of them.
    All,
    /// Those of these identities, at most 20. AWS fails where one does not exist.
    Arns(&'a [String]),
    /// The one of this name. AWS fails where none has it.
    Name(&'a str),
}

type Called<T> = Result<T, CallError>;

/// The calls.
pub trait Cloud: Send + Sync + 'static {
    /// `DescribeSubnets`, `DescribeRouteTables` and `DescribeAvailabilityZones`, of one VPC.
    fn describe_subnets(&self, vpc: &str) -> impl Future<Output = Called<Vec<Subnet>>> + Send;
    /// `DescribeVpcs`: the ranges of both families that are associated with it.
    fn describe_vpc_ranges(&self, vpc: &str) -> impl Future<Output = Called<Vec<String>>> + Send;
    /// `DescribeInstances`: those of these that exist, by the filter `instance-id`, because AWS fails where one that is named does not.
    fn describe_instances(&self, ids: &[String]) -> impl Future<Output = Called<Vec<Instance>>> + Send;
    /// `DescribeNetworkInterfaces`: those of the VPC that have one of these private addresses of either family, as far as they exist.
    fn describe_interfaces(
        &self,
        vpc: &str,
        addresses: &[IpAddr],
    ) -> impl Future<Output = Called<Vec<Interface>>> + Send;
    /// `DescribeSecurityGroups`, of one VPC.
    fn describe_security_groups(
        &self,
        vpc: &str,
        filter: GroupFilter,
    ) -> impl Future<Output = Called<Vec<SecurityGroup>>> + Send;
    /// `CreateSecurityGroup`; the answer is its id.
    fn create_security_group(
        &self,
        vpc: &str,
        name: &str,
        description: &str,
        tags: &Pairs,
    ) -> impl Future<Output = Called<String>> + Send;
    /// `AuthorizeSecurityGroupIngress`.
    fn authorize_ingress(&self, group: &str, rules: &[Rule]) -> impl Future<Output = Called<()>> + Send;
    /// `RevokeSecurityGroupIngress`.
    fn revoke_ingress(&self, group: &str, rules: &[Rule]) -> impl Future<Output = Called<()>> + Send;
    /// `DeleteSecurityGroup`.
    fn delete_security_group(&self, group: &str) -> impl Future<Output = Called<()>> + Send;
    /// `CreateTags` of EC2.
    fn create_tags(&self, id: &str, tags: &Pairs) -> impl Future<Output = Called<()>> + Send;
    /// `DeleteTags` of EC2.
    fn delete_tags(&self, id: &str, keys: &[String]) -> impl Future<Output = Called<()>> + Send;

    /// `DescribeLoadBalancers`, Network Load Balancers and others.
    fn describe_load_balancers(&self, by: By<'_>) -> impl Future<Output = Called<Vec<LoadBalancer>>> + Send;
    /// `DescribeTags` of at most 20 things; one without tags is in the answer with none.
    fn describe_tags(&self, arns: &[String]) -> impl Future<Output = Called<BTreeMap<String, Pairs>>> + Send;
    /// `AddTags`.
    fn add_tags(&self, arn: &str, tags: &Pairs) -> impl Future<Output = Called<()>> + Send;
    /// `RemoveTags`.
    fn remove_tags(&self, arn: &str, keys: &[String]) -> impl Future<Output = Called<()>> + Send;
    /// `CreateLoadBalancer`, of type `network`.
    fn create_load_balancer(&self, new: &NewLoadBalancer) -> impl Future<Output = Called<LoadBalancer>> + Send;
    /// `SetSubnets`.
    fn set_subnets(&self, arn: &str, mappings: &[SubnetMapping]) -> impl Future<Output = Called<()>> + Send;
    /// `SetSecurityGroups`, and whether they hold for PrivateLink if that is to be said.
    fn set_security_groups(
        &self,
        arn: &str,
        groups: &[String],
        enforce_on_private_link: Option<bool>,
    ) -> impl Future<Output = Called<()>> + Send;
    /// `SetIpAddressType`.
    fn set_ip_address_type(&self, arn: &str, to: IpAddressType) -> impl Future<Output = Called<()>> + Send;
    /// `DescribeLoadBalancerAttributes`.
    fn describe_load_balancer_attributes(&self, arn: &str) -> impl Future<Output = Called<Pairs>> + Send;
    /// `ModifyLoadBalancerAttributes`.
    fn modify_load_balancer_attributes(&self, arn: &str, set: &Pairs) -> impl Future<Output = Called<()>> + Send;
    /// `DeleteLoadBalancer`, with its listeners.
    fn delete_load_balancer(&self, arn: &str) -> impl Future<Output = Called<()>> + Send;

    /// `DescribeTargetGroups`.
    fn describe_target_groups(&self, by: By<'_>) -> impl Future<Output = Called<Vec<TargetGroup>>> + Send;
    /// `CreateTargetGroup`.
    fn create_target_group(&self, new: &NewTargetGroup) -> impl Future<Output = Called<TargetGroup>> + Send;
    /// `ModifyTargetGroup`.
    fn modify_target_group(&self, arn: &str, check: &HealthCheck) -> impl Future<Output = Called<()>> + Send;
    /// `DescribeTargetGroupAttributes`.
    fn describe_target_group_attributes(&self, arn: &str) -> impl Future<Output = Called<Pairs>> + Send;
    /// `ModifyTargetGroupAttributes`.
    fn modify_target_group_attributes(&self, arn: &str, set: &Pairs) -> impl Future<Output = Called<()>> + Send;
    /// `RegisterTargets`, at most 200 at once.
    fn register_targets(
        &self,
        target_group: &str,
        targets: &[TargetDescription],
    ) -> impl Future<Output = Called<()>> + Send;
    /// `DeregisterTargets`, at most 200 at once.
    fn deregister_targets(
        &self,
        target_group: &str,
        targets: &[TargetDescription],
    ) -> impl Future<Output = Called<()>> + Send;
    /// `DescribeTargetHealth`, also of those that are on their way out.
    fn describe_target_health(&self, target_group: &str) -> impl Future<Output = Called<Vec<TargetHealth>>> + Send;
    /// `DeleteTargetGroup`.
    fn delete_target_group(&self, arn: &str) -> impl Future<Output = Called<()>> + Send;

    /// `DescribeListeners` of one load balancer.
    fn describe_listeners(&self, load_balancer: &str) -> impl Future<Output = Called<Vec<Listener>>> + Send;
    /// `CreateListener`.
    fn create_listener(
        &self,
        load_balancer: &str,
        port: u16,
        settings: &ListenerSettings,
        tags: &Pairs,
    ) -> impl Future<Output = Called<Listener>> + Send;
    /// `ModifyListener`.
    fn modify_listener(&self, arn: &str, settings: &ListenerSettings) -> impl Future<Output = Called<()>> + Send;
    /// `DescribeListenerAttributes`.
    fn describe_listener_attributes(&self, arn: &str) -> impl Future<Output = Called<Pairs>> + Send;
    /// `ModifyListenerAttributes`.
    fn modify_listener_attributes(&self, arn: &str, set: &Pairs) -> impl Future<Output = Called<()>> + Send;
    /// `DescribeListenerCertificates`: those beside the one that it shows by default.
    fn describe_listener_certificates(&self, arn: &str) -> impl Future<Output = Called<Vec<String>>> + Send;
    /// `AddListenerCertificates`.
    fn add_listener_certificates(&self, arn: &str, add: &[String]) -> impl Future<Output = Called<()>> + Send;
    /// `RemoveListenerCertificates`.
    fn remove_listener_certificates(&self, arn: &str, remove: &[String]) -> impl Future<Output = Called<()>> + Send;
    /// `DeleteListener`.
    fn delete_listener(&self, arn: &str) -> impl Future<Output = Called<()>> + Send;
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (from, to) = (self.from_port, self.to_port);
        let (Source::V4(source) | Source::V6(source) | Source::PrefixList(source) | Source::Group(source)) =
            &self.source;
        match (self.ip_protocol, from == to) {
            (IpProtocol::Icmp | IpProtocol::Icmpv6, _) => write!(f, "{} {from}/{to} from {source}", self.ip_protocol),
            (protocol, true) => write!(f, "{protocol} {from} from {source}"),
            (protocol, false) => write!(f, "{protocol} {from}-{to} from {source}"),
        }
    }
}
