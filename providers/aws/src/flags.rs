//! What an operator says by flags: the same words for the controller and for whoever plans for it.
//!
//! Nothing has a default here, so that who reads them from several places can tell what was said; the defaults are in
//! [`Flags::settings`].

use std::time::Duration;

use berth_provider::Namespaces;
use clap::builder::NonEmptyStringValueParser;
use clap::{Args, ValueEnum};

use crate::intent::TargetKind;
use crate::settings::{Admission, NodePorts, Settings};

/// Where traffic goes when the Service does not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TargetFlag {
    /// To node ports of instances
    Instance,
    /// To the endpoints themselves
    Ip,
}

/// The flags of the AWS provider that a plan depends on.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
#[command(next_help_heading = "AWS")]
pub struct Flags {
    /// The cluster's name, as the tag `kubernetes.io/cluster/NAME` of its subnets has it; everything that is made is tagged with it
    #[arg(long = "aws-cluster-name", env = "BERTH_AWS_CLUSTER_NAME", value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    pub cluster_name: Option<String>,
    /// The VPC that the nodes are in
    #[arg(long = "aws-vpc-id", env = "BERTH_AWS_VPC_ID", value_name = "VPC", value_parser = NonEmptyStringValueParser::new())]
    pub vpc_id: Option<String>,
    /// Namespaces whose Services may ask for a load balancer that the internet reaches; `*` for all [default: none]
    #[arg(
        long = "aws-internet-facing-namespaces",
        env = "BERTH_AWS_INTERNET_FACING_NAMESPACES",
        value_name = "NAMESPACE,..."
    )]
    pub internet_facing_namespaces: Option<Namespaces>,
    /// Namespaces whose Services may name Elastic IPs, subnets and security groups that exist; `*` for all [default: none]
    #[arg(long = "aws-reference-namespaces", env = "BERTH_AWS_REFERENCE_NAMESPACES", value_name = "NAMESPACE,...")]
    pub reference_namespaces: Option<Namespaces>,
    /// How many load balancers the Services of one namespace may have [default: no limit]
    #[arg(long = "aws-load-balancers-per-namespace", env = "BERTH_AWS_LOAD_BALANCERS_PER_NAMESPACE", value_name = "N")]
    pub load_balancers_per_namespace: Option<usize>,
    /// Where traffic goes when a Service does not say [default: instance]
    #[arg(long = "aws-default-target-type", env = "BERTH_AWS_DEFAULT_TARGET_TYPE", value_enum, value_name = "TYPE")]
    pub default_target_type: Option<TargetFlag>,
    /// The node ports of the cluster, which its nodes let in from load balancers as one range: what the API server's flag
    /// `--service-node-port-range` says [default: 30000-32767]
    #[arg(long = "aws-node-ports", env = "BERTH_AWS_NODE_PORTS", value_name = "FIRST-LAST")]
    pub node_ports: Option<NodePorts>,
    /// The security policy of TLS listeners whose Service names none [default: ELBSecurityPolicy-2016-08]
    #[arg(long = "aws-ssl-policy", env = "BERTH_AWS_SSL_POLICY", value_name = "POLICY", value_parser = NonEmptyStringValueParser::new())]
    pub ssl_policy: Option<String>,
    /// Keys of tags that somebody else manages on what is made: they are neither set nor removed
    #[arg(
        long = "aws-external-managed-tags",
        env = "BERTH_AWS_EXTERNAL_MANAGED_TAGS",
        value_name = "KEY,...",
        value_delimiter = ','
    )]
    pub external_managed_tags: Option<Vec<String>>,
    /// How long a load balancer stays whose place another one has taken, after no Service's status names it any more, for who still
    /// has its address from DNS [default: 120]
    #[arg(long = "aws-replaced-stays-seconds", env = "BERTH_AWS_REPLACED_STAYS_SECONDS", value_name = "SECONDS")]
    pub replaced_stays_seconds: Option<u32>,
}

impl Flags {
    /// What they say, with the defaults where they say nothing. Name and VPC are given, because how they are found where no flag
    /// has them is the caller's to know.
    pub fn settings(&self, cluster: &str, cluster_uid: &str, vpc: &str) -> Settings {
        let defaults = Settings::of(cluster, cluster_uid, vpc);
        let target_kind = self.default_target_type.map(|flag| match flag {
            TargetFlag::Instance => TargetKind::Instance,
            TargetFlag::Ip => TargetKind::Ip,
        });
        let keys = self.external_managed_tags.iter().flatten();
        Settings {
            target_kind: target_kind.unwrap_or(defaults.target_kind),
            node_ports: self.node_ports.unwrap_or(defaults.node_ports),
            ssl_policy: self.ssl_policy.clone().unwrap_or(defaults.ssl_policy),
            external_tags: keys.map(|key| key.trim().to_owned()).filter(|key| !key.is_empty()).collect(),
            replaced_stays: self
                .replaced_stays_seconds
                .map_or(defaults.replaced_stays, |seconds| Duration::from_secs(seconds.into())),
            admission: Admission {
                internet_facing: self.internet_facing_namespaces.clone().unwrap_or_default(),
                references: self.reference_namespaces.clone().unwrap_or_default(),
                load_balancers_per_namespace: self.load_balancers_per_namespace,
            },
            cluster: defaults.cluster,
            cluster_uid: defaults.cluster_uid,
            vpc: defaults.vpc,
        }
    }

    /// These, and those of `other` where these say nothing.
    #[must_use]
    pub fn or(&self, other: Self) -> Self {
        let these = self.clone();
        Self {
            cluster_name: these.cluster_name.or(other.cluster_name),
            vpc_id: these.vpc_id.or(other.vpc_id),
            internet_facing_namespaces: these.internet_facing_namespaces.or(other.internet_facing_namespaces),
            reference_namespaces: these.reference_namespaces.or(other.reference_namespaces),
            load_balancers_per_namespace: these.load_balancers_per_namespace.or(other.load_balancers_per_namespace),
            default_target_type: these.default_target_type.or(other.default_target_type),
            node_ports: these.node_ports.or(other.node_ports),
            ssl_policy: these.ssl_policy.or(other.ssl_policy),
            external_managed_tags: these.external_managed_tags.or(other.external_managed_tags),
            replaced_stays_seconds: these.replaced_stays_seconds.or(other.replaced_stays_seconds),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Words {
        #[command(flatten)]
        flags: Flags,
    }

    fn read(words: &str) -> Result<Flags, String> {
        let words = std::iter::once("it").chain(words.split_whitespace());
        Words::try_parse_from(words).map(|words| words.flags).map_err(|error| error.to_string())
    }

    #[test]
    fn where_nothing_is_said_nothing_is_admitted_and_the_rest_is_as_with_the_aws_load_balancer_controller() {
        let settings = Flags::default().settings("prod", "uid-1", "vpc-1");
        assert_eq!(settings, Settings::of("prod", "uid-1", "vpc-1"));
        assert!(!settings.admission.internet_facing.has("shop") && !settings.admission.references.has("shop"));
    }

    #[test]
    fn every_flag_is_heard() {
        let all = "--aws-cluster-name prod --aws-vpc-id vpc-1 --aws-internet-facing-namespaces shop,web \
                   --aws-reference-namespaces * --aws-load-balancers-per-namespace 3 --aws-default-target-type ip --aws-node-ports 1-9 \
                   --aws-ssl-policy P --aws-external-managed-tags a,b";
        let flags = read(all).unwrap();
        assert_eq!((flags.cluster_name.as_deref(), flags.vpc_id.as_deref()), (Some("prod"), Some("vpc-1")));
        let settings = flags.settings("prod", "uid-1", "vpc-1");
        assert!(settings.admission.internet_facing.has("web") && !settings.admission.internet_facing.has("other"));
        assert_eq!(settings.admission.references, Namespaces::All);
        assert_eq!(settings.admission.load_balancers_per_namespace, Some(3));
        assert_eq!(settings.node_ports, NodePorts { from: 1, to: 9 });
        assert_eq!((settings.target_kind, settings.ssl_policy.as_str()), (TargetKind::Ip, "P"));
        assert_eq!(settings.external_tags, ["a", "b"].map(str::to_owned).into());
        assert_eq!(Flags::default().or(flags.clone()), flags);
        let other = read("--aws-cluster-name test").unwrap();
        assert_eq!(other.or(flags).cluster_name.as_deref(), Some("test"));
    }

    #[test]
    fn words_that_are_none_are_refused() {
        for (words, says) in [
            ("--aws-internet-facing-namespaces Shop", "`Shop` is no name of a namespace"),
            ("--aws-reference-namespaces *,shop", "`*` is all namespaces already"),
            ("--aws-default-target-type pod", "possible values: instance, ip"),
            ("--aws-node-ports all", "`all` is no range of ports"),
            ("--aws-load-balancers-per-namespace few", "invalid digit"),
            ("--aws-cluster-name=", "a value is required"),
        ] {
            let error = read(words).unwrap_err();
            assert!(error.contains(says), "{words}: {error}");
        }
    }
}
