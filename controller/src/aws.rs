//! Starts the AWS provider. What calls AWS is compiled in by the feature `aws` alone.

use berth_provider::class::ProviderName;

use crate::args::Args;

/// Why the AWS provider cannot be started, as far as flags say it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unready {
    /// This build cannot call AWS.
    #[error(
        "--providers=aws: this berth-controller was built without AWS; use an image or a build that has it (cargo build --features aws)"
    )]
    NotBuilt,
    /// Nobody said what the cluster is called.
    #[error(
        "--providers=aws needs --aws-cluster-name NAME, by which what is made is tagged and subnets are found, such as --aws-cluster-name=prod"
    )]
    NoClusterName,
    /// What is for AWS alone is switched on without it.
    #[error("--aws-pod-readiness-gates needs --providers=aws, whose load balancers say what they think of pods")]
    GatesWithoutAws,
}

/// Whether the flags are such that it can be started, if it is to be.
pub(crate) fn check(args: &Args) -> Result<(), Unready> {
    if !args.providers.contains(&ProviderName::Aws) {
        return if args.aws_pod_readiness_gates { Err(Unready::GatesWithoutAws) } else { Ok(()) };
    }
    if cfg!(not(feature = "aws")) {
        return Err(Unready::NotBuilt);
    }
    args.aws.cluster_name.as_ref().map(|_| ()).ok_or(Unready::NoClusterName)
}

#[cfg(feature = "aws")]
pub(crate) use built::provider;

#[cfg(feature = "aws")]
mod built {
    use anyhow::Context;
    use berth_aws::Aws;
    use berth_aws_sdk::{Options, Sdk};
    use kube::Client;
    use tokio_util::sync::CancellationToken;

    use super::Unready;
    use crate::args::Args;
    use crate::cluster_uid::cluster_uid;

    /// The provider, or `None` when the process is to end first.
    pub(crate) async fn provider(
        args: &Args,
        client: &Client,
        shutdown: &CancellationToken,
    ) -> anyhow::Result<Option<Aws<Sdk>>> {
        let name = args.aws.cluster_name.as_deref().ok_or(Unready::NoClusterName)?;
        let options = Options {
            region: args.aws_region.clone(),
            vpc: args.aws.vpc_id.clone(),
            rates: args.aws_api_rates.unwrap_or_default(),
        };
        let connected = Sdk::connect(options).await.context("cannot start the AWS provider")?;
        let uid = tokio::select! {
            uid = cluster_uid(client) => uid,
            () = shutdown.cancelled() => return Ok(None),
        };
        tracing::info!(cluster = name, uid, region = connected.region, vpc = connected.vpc, "AWS");
        Ok(Some(Aws::new(connected.cloud, args.aws.settings(name, &uid, &connected.vpc))))
    }
}
