//! The calls that are made of AWS, by the names of the rights that they need (IAM actions): one table for whoever makes them, paces
//! them, and writes the policy that allows them.

use std::fmt;

/// Calls that AWS counts together when it asks for fewer of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// What looks, of EC2.
    Ec2Read,
    /// What changes something, of EC2.
    Ec2Write,
    /// What looks, of ELBv2.
    ElbRead,
    /// What changes something, of ELBv2.
    ElbWrite,
    /// What registers targets and deregisters them: the many small changes.
    ElbTargets,
}

impl Lane {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Ec2Read, Self::Ec2Write, Self::ElbRead, Self::ElbWrite, Self::ElbTargets];

    /// Its word, for flags and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ec2Read => "ec2-read",
            Self::Ec2Write => "ec2-write",
            Self::ElbRead => "elb-read",
            Self::ElbWrite => "elb-write",
            Self::ElbTargets => "elb-targets",
        }
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a right is given for: on what, and under which condition of tags.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Grant {
    /// Looking at all there is: AWS knows no narrower right.
    Look,
    /// Making something that is tagged as ours from the beginning.
    Make(Kind),
    /// Changing or removing what is tagged as ours.
    Own(Kind),
    /// Changing rules of security groups: of our own, and of those of nodes and pods.
    Rules,
    /// Tagging something while it is made, and changing other tags of what is ours: the tags that say so cannot be put on what exists.
    Tag,
}

/// What things are in ARNs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A Network Load Balancer.
    LoadBalancer,
    /// A target group.
    TargetGroup,
    /// A listener of a Network Load Balancer.
    Listener,
    /// A security group.
    SecurityGroup,
}

macro_rules! actions {
    ($($action:ident: $service:literal $lane:ident $grant:expr,)+) => {
        /// A call.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[allow(missing_docs, reason = "the names are AWS's own")]
        pub enum Action { $($action,)+ }

        impl Action {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$action,)+];

            /// The right that it needs, such as `ec2:DescribeSubnets`.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$action => concat!($service, ":", stringify!($action)),)+ }
            }

            /// What it is counted with.
            pub fn lane(self) -> Lane {
                match self { $(Self::$action => Lane::$lane,)+ }
            }

            /// What the right is given for.
            pub fn grant(self) -> Grant {
                match self { $(Self::$action => $grant,)+ }
            }
        }
    };
}

actions! {
    DescribeAvailabilityZones: "ec2" Ec2Read Grant::Look,
    DescribeInstances: "ec2" Ec2Read Grant::Look,
    DescribeNetworkInterfaces: "ec2" Ec2Read Grant::Look,
    DescribeRouteTables: "ec2" Ec2Read Grant::Look,
    DescribeSecurityGroups: "ec2" Ec2Read Grant::Look,
    DescribeSubnets: "ec2" Ec2Read Grant::Look,
    DescribeVpcs: "ec2" Ec2Read Grant::Look,
    AuthorizeSecurityGroupIngress: "ec2" Ec2Write Grant::Rules,
    CreateSecurityGroup: "ec2" Ec2Write Grant::Make(Kind::SecurityGroup),
    CreateTags: "ec2" Ec2Write Grant::Tag,
    DeleteSecurityGroup: "ec2" Ec2Write Grant::Own(Kind::SecurityGroup),
    DeleteTags: "ec2" Ec2Write Grant::Tag,
    RevokeSecurityGroupIngress: "ec2" Ec2Write Grant::Rules,
    DescribeListenerAttributes: "elasticloadbalancing" ElbRead Grant::Look,
    DescribeListenerCertificates: "elasticloadbalancing" ElbRead Grant::Look,
    DescribeListeners: "elasticloadbalancing" ElbRead Grant::Look,
    DescribeLoadBalancerAttributes: "elasticloadbalancing" ElbRead Grant::Look,
    DescribeLoadBalancers: "elasticloadbalancing" ElbRead Grant::Look,
    DescribeTags: "elasticloadbalancing" ElbRead Grant::Look,
    DescribeTargetGroupAttributes: "elasticloadbalancing" ElbRead Grant::Look,
    DescribeTargetGroups: "elasticloadbalancing" ElbRead Grant::Look,
    DescribeTargetHealth: "elasticloadbalancing" ElbRead Grant::Look,
    AddListenerCertificates: "elasticloadbalancing" ElbWrite Grant::Own(Kind::Listener),
    AddTags: "elasticloadbalancing" ElbWrite Grant::Tag,
    CreateListener: "elasticloadbalancing" ElbWrite Grant::Make(Kind::Listener),
    CreateLoadBalancer: "elasticloadbalancing" ElbWrite Grant::Make(Kind::LoadBalancer),
    CreateTargetGroup: "elasticloadbalancing" ElbWrite Grant::Make(Kind::TargetGroup),
    DeleteListener: "elasticloadbalancing" ElbWrite Grant::Own(Kind::Listener),
    DeleteLoadBalancer: "elasticloadbalancing" ElbWrite Grant::Own(Kind::LoadBalancer),
    DeleteTargetGroup: "elasticloadbalancing" ElbWrite Grant::Own(Kind::TargetGroup),
    ModifyListener: "elasticloadbalancing" ElbWrite Grant::Own(Kind::Listener),
    ModifyListenerAttributes: "elasticloadbalancing" ElbWrite Grant::Own(Kind::Listener),
    ModifyLoadBalancerAttributes: "elasticloadbalancing" ElbWrite Grant::Own(Kind::LoadBalancer),
    ModifyTargetGroup: "elasticloadbalancing" ElbWrite Grant::Own(Kind::TargetGroup),
    ModifyTargetGroupAttributes: "elasticloadbalancing" ElbWrite Grant::Own(Kind::TargetGroup),
    RemoveListenerCertificates: "elasticloadbalancing" ElbWrite Grant::Own(Kind::Listener),
    RemoveTags: "elasticloadbalancing" ElbWrite Grant::Tag,
    SetIpAddressType: "elasticloadbalancing" ElbWrite Grant::Own(Kind::LoadBalancer),
    SetSecurityGroups: "elasticloadbalancing" ElbWrite Grant::Own(Kind::LoadBalancer),
    SetSubnets: "elasticloadbalancing" ElbWrite Grant::Own(Kind::LoadBalancer),
    DeregisterTargets: "elasticloadbalancing" ElbTargets Grant::Own(Kind::TargetGroup),
    RegisterTargets: "elasticloadbalancing" ElbTargets Grant::Own(Kind::TargetGroup),
}

impl Action {
    /// Whether it changes nothing.
    pub fn is_read(self) -> bool {
        self.grant() == Grant::Look
    }

    /// The name of the call, without its service.
    pub fn call(self) -> &'static str {
        self.as_str().split_once(':').map_or("", |(_, call)| call)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// What the documentation of the trait's methods says that they call.
    fn documented() -> Vec<(String, BTreeSet<String>)> {
        let source = include_str!("cloud.rs");
        let (_, body) = source.split_once("pub trait Cloud").unwrap();
        let (body, _) = body.split_once("\n}\n").unwrap();
        let (mut methods, mut calls) = (Vec::new(), BTreeSet::new());
        for line in body.lines().map(str::trim) {
            if let Some(doc) = line.strip_prefix("///") {
                let quoted = doc.split('`').skip(1).step_by(2);
                let is_call = |word: &&str| word.starts_with(|c: char| c.is_ascii_uppercase());
                calls.extend(quoted.filter(is_call).map(str::to_owned));
            } else if let Some(method) = line.strip_prefix("fn ") {
                methods.push((method.split('(').next().unwrap().to_owned(), std::mem::take(&mut calls)));
            }
        }
        methods
    }

    #[test]
    fn every_call_of_the_trait_is_in_the_table_and_nothing_else_is() {
        let methods = documented();
        assert!(methods.len() > 30, "{methods:?}");
        let table: BTreeSet<_> = Action::ALL.iter().map(|action| action.call().to_owned()).collect();
        for (method, calls) in &methods {
            assert!(!calls.is_empty(), "the documentation of {method} names no call");
            assert!(calls.is_subset(&table), "{method} calls {calls:?}");
        }
        let called: BTreeSet<_> = methods.into_iter().flat_map(|(_, calls)| calls).collect();
        assert_eq!(called, table);
    }

    #[test]
    fn what_looks_is_counted_apart_from_what_changes_something() {
        for action in Action::ALL {
            let looks = action.call().starts_with("Describe");
            assert_eq!(action.is_read(), looks, "{action:?}");
            assert_eq!(matches!(action.lane(), Lane::Ec2Read | Lane::ElbRead), looks, "{action:?}");
            assert_eq!(action.as_str().starts_with("ec2:"), matches!(action.lane(), Lane::Ec2Read | Lane::Ec2Write));
        }
    }
}
