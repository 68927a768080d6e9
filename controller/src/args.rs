//! Command line of the controller.

use std::collections::BTreeSet;

use berth_aws::pace::Rates;
use berth_provider::class::{
    Classes, ClassesError, DEFAULT_DEFAULT, DEFAULT_PROVIDERS, DefaultProvider, Mapping, ProviderName,
};
use berth_telemetry::TelemetryArgs;
use clap::Parser;
use clap::builder::NonEmptyStringValueParser;

use crate::heartbeat_keys::Rotation;

/// Gives addresses to Services of type LoadBalancer and names the nodes that answer for them
#[derive(Parser, Clone, Debug)]
#[command(
    name = "berth-controller",
    // A flag that is given again, as by a patch that appends to a manifest's, counts in place of the one before.
    args_override_self = true,
    version,
    after_help = "Examples:
  Serve Services that have no loadBalancerClass, too:
    berth-controller --default-provider pool
  Give addresses for tests beside those of the pools:
    berth-controller --providers pool,mock --default-provider pool
  Make Network Load Balancers in AWS, also for Services of the AWS Load Balancer Controller's class:
    berth-controller --providers aws --default-provider aws --class service.k8s.aws/nlb=aws \\
        --aws-cluster-name prod --aws-internet-facing-namespaces shop,web
  Make frontends of the Azure load balancer, as the azure.json of cloud-provider-azure says where:
    berth-controller --providers azure --azure-cluster-name kubernetes --azure-config /etc/berth/azure.json \\
        --azure-public-namespaces shop,web
  Run outside the cluster, with the rights of a kubeconfig:
    KUBECONFIG=./kubeconfig berth-controller --leader-elect=false --log-format human"
)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub struct Args {
    /// The providers that are switched on; each serves its class: berth.dev/pool, berth.dev/mock, berth.dev/aws-nlb, berth.dev/azure-lb
    #[arg(
        long,
        env = "BERTH_PROVIDERS",
        value_enum,
        value_delimiter = ',',
        value_name = "PROVIDER,...",
        default_value = DEFAULT_PROVIDERS
    )]
    pub providers: Vec<ProviderName>,

    /// Who serves a Service without `spec.loadBalancerClass`
    #[arg(long, env = "BERTH_DEFAULT_PROVIDER", value_enum, value_name = "PROVIDER", default_value = DEFAULT_DEFAULT)]
    pub default_provider: DefaultProvider,

    /// A further class that a provider serves, such as example.com/lb=pool; may be given several times
    #[arg(long = "class", env = "BERTH_CLASSES", value_delimiter = ',', value_name = "CLASS=PROVIDER")]
    pub classes: Vec<Mapping>,

    /// Whether a node that is cordoned gives up the addresses that it owns, as one with the annotation berth.dev/drain does
    #[arg(long, env = "BERTH_DRAIN_ON_CORDON", action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", value_name = "BOOL")]
    pub drain_on_cordon: bool,

    /// Whether nodes announce although they have the label node.kubernetes.io/exclude-from-external-load-balancers, which kubeadm gives to control-plane nodes
    #[arg(long, env = "BERTH_IGNORE_EXCLUDE_LB", action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", value_name = "BOOL")]
    pub ignore_exclude_lb: bool,

    /// Whether replicas choose a leader by a Lease; without, there must be one replica only
    #[arg(long, env = "BERTH_LEADER_ELECT", action = clap::ArgAction::Set, default_value_t = true, value_name = "BOOL")]
    pub leader_elect: bool,

    /// The namespace of the Lease
    #[arg(long, env = "POD_NAMESPACE", default_value = "berth-system", value_name = "NAMESPACE")]
    pub namespace: String,

    /// This replica's name in the Lease and in events; each replica needs its own [default: host name and process number]
    #[arg(long, env = "POD_NAME", value_name = "NAME")]
    pub identity: Option<String>,

    /// Age at which the key of the speakers' heartbeats is followed by a new one, such as 7d or 12h; 10m at the least, 0 for never
    #[arg(long, env = "BERTH_HEARTBEAT_KEY_ROTATION", default_value = "7d", value_name = "TIME")]
    pub heartbeat_key_rotation: Rotation,

    /// What an operator says about AWS.
    #[command(flatten)]
    pub aws: berth_aws::flags::Flags,

    /// The AWS region [default: the environment's, or the one that the instance is in]
    #[arg(long = "aws-region", env = "BERTH_AWS_REGION", value_name = "REGION", help_heading = "AWS", value_parser = NonEmptyStringValueParser::new())]
    pub aws_region: Option<String>,

    /// Whether readiness gates target-health.berth.dev/SERVICE of pods are set to what the load balancer thinks of them; needs the rights of deploy/aws-readiness-gates
    #[arg(long = "aws-pod-readiness-gates", env = "BERTH_AWS_POD_READINESS_GATES", action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", value_name = "BOOL", help_heading = "AWS")]
    pub aws_pod_readiness_gates: bool,

    /// How fast AWS is called, in calls a second and at once, for ec2-read, ec2-write, elb-read, elb-write and elb-targets; when AWS asks for fewer calls there are fewer by themselves [default: ec2-read=20/100,ec2-write=10/100,elb-read=40/200,elb-write=20/100,elb-targets=40/200]
    #[arg(
        long = "aws-api-rates",
        env = "BERTH_AWS_API_RATES",
        value_name = "LANE=CALLS/BURST,...",
        help_heading = "AWS"
    )]
    pub aws_api_rates: Option<Rates>,

    /// What an operator says about Azure.
    #[command(flatten)]
    pub azure: berth_azure::flags::Flags,

    /// Logs and endpoints.
    #[command(flatten)]
    pub telemetry: TelemetryArgs,
}

impl Args {
    /// Who serves which class.
    ///
    /// # Errors
    /// When the flags do not go together.
    pub fn served_classes(&self) -> Result<Classes, ClassesError> {
        let providers: BTreeSet<_> = self.providers.iter().copied().collect();
        Classes::new(&providers, &self.classes, self.default_provider.name())
    }
}
