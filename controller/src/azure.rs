//! Starts the Azure provider.

use std::io;
use std::path::PathBuf;

use anyhow::Context;
use berth_azure::config::{AzureJson, ConfigError};
use berth_azure::endpoints::{Endpoints, Environment};
use berth_azure::pipeline::token::{Credential, CredentialError, Entra, TokenError};
use berth_azure::pipeline::{Pipeline, Wire};
use berth_azure::{Azure, Settings};
use berth_provider::class::ProviderName;
use kube::Client;
use tokio_util::sync::CancellationToken;

use crate::args::Args;
use crate::cluster_uid::cluster_uid;

/// Why the Azure provider cannot be started. Nothing of it mends itself.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unready {
    /// Nobody said what the cluster is called.
    #[error(
        "--providers=azure needs --azure-cluster-name NAME, after which the load balancers are named and by which what is made is \
         tagged, such as --azure-cluster-name=kubernetes"
    )]
    NoClusterName,
    /// The configuration is not there.
    #[error(
        "--providers=azure: {} cannot be read: {error}; mount the azure.json of cloud-provider-azure there, or say by --azure-config \
         where it is",
        file.display()
    )]
    NoConfig {
        /// Where it was looked for.
        file: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// The configuration cannot be gone by.
    #[error("--providers=azure: {}: {error}", file.display())]
    Config {
        /// Where it is.
        file: PathBuf,
        /// Why not.
        error: ConfigError,
    },
    /// It names nobody who could ask.
    #[error("--providers=azure: {}: {error}", file.display())]
    Credential {
        /// Where it is.
        file: PathBuf,
        /// Why not.
        error: CredentialError,
    },
    /// What it asks with cannot be read.
    #[error("--providers=azure: {0}")]
    Token(#[from] TokenError),
}

/// All that has to be known before Azure is asked for anything.
#[derive(Debug)]
pub(crate) struct Ready {
    settings: Settings,
    credential: Credential,
    endpoints: Endpoints,
}

/// Reads what there is to read, if the provider is to be started.
pub(crate) fn prepare(args: &Args, environment: &Environment) -> Result<Option<Ready>, Unready> {
    if !args.providers.contains(&ProviderName::Azure) {
        return Ok(None);
    }
    let cluster = args.azure.cluster_name.as_deref().ok_or(Unready::NoClusterName)?;
    let file = args.azure.config_file();
    let text = std::fs::read_to_string(file).map_err(|error| Unready::NoConfig { file: file.to_owned(), error })?;
    let config = |error| Unready::Config { file: file.to_owned(), error };
    let said = environment.complete(AzureJson::parse(&text).map_err(config)?);
    let settings = args.azure.settings(&said, cluster, "").map_err(config)?;
    let endpoints = Endpoints::of(&said, environment).map_err(config)?;
    let credential = Credential::of(&said).map_err(|error| Unready::Credential { file: file.to_owned(), error })?;
    credential.check()?;
    Ok(Some(Ready { settings, credential, endpoints }))
}

impl Ready {
    /// The provider, or `None` when the process is to end first.
    pub(crate) async fn provider(
        self,
        client: &Client,
        shutdown: &CancellationToken,
    ) -> anyhow::Result<Option<Azure<Pipeline<Wire, Entra>>>> {
        let Self { settings, credential, endpoints } = self;
        let wire = if endpoints.needs_tls() {
            Wire::new().context(
                "cannot start the Azure provider: no certificates of authorities can be read, by which Azure is told from others; mount them \
                 at /etc/ssl/certs, or name their file by SSL_CERT_FILE",
            )?
        } else {
            Wire::unencrypted().context("cannot start the Azure provider")?
        };
        for url in endpoints.in_the_clear() {
            tracing::warn!(url, "no https: whoever is on the way to it can read the tokens");
        }
        let cluster_uid = tokio::select! {
            uid = cluster_uid(client) => uid,
            () = shutdown.cancelled() => return Ok(None),
        };
        let settings = Settings { cluster_uid, ..settings };
        tracing::info!(
            cluster = settings.cluster,
            uid = settings.cluster_uid,
            subscription = settings.subscription,
            resource_group = settings.resource_group,
            location = settings.location,
            resource_manager = endpoints.resource_manager,
            credential = credential.kind(),
            "Azure"
        );
        let manager = &endpoints.resource_manager;
        let mut tokens = Entra::new(credential, &endpoints.authority, manager);
        if let Some(metadata) = &endpoints.metadata {
            tokens = tokens.metadata_at(metadata);
        }
        Ok(Some(Azure::new(Pipeline::new(wire, tokens, manager), settings)))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::Parser;

    use super::*;

    const WHOLE: &str = r#"{
        "tenantId": "t", "subscriptionId": "s", "resourceGroup": "rg", "location": "westeurope", "vnetName": "v", "subnetName": "n",
        "aadClientId": "c", "aadClientSecret": "hush", "vmType": "vmss", "somethingNew": {"a": [1]}
    }"#;

    fn prepare_with(file: &Path, words: &str) -> Result<Option<Ready>, String> {
        let file = format!("--azure-config={}", file.display());
        let words = ["berth-controller", &file].into_iter().chain(words.split_whitespace());
        let args = Args::try_parse_from(words).unwrap();
        prepare(&args, &Environment::default()).map_err(|error| error.to_string())
    }

    fn with(content: &str, words: &str) -> Result<Option<Ready>, String> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("azure.json");
        std::fs::write(&file, content).unwrap();
        prepare_with(&file, words)
    }

    const ON: &str = "--providers=azure --azure-cluster-name=prod";

    #[test]
    fn where_it_is_not_switched_on_nothing_is_read() {
        assert!(prepare_with(Path::new("/nowhere/azure.json"), "--providers=pool").unwrap().is_none());
    }

    #[test]
    fn fields_that_are_for_others_are_no_error() {
        let ready = with(WHOLE, ON).unwrap().unwrap();
        assert_eq!((ready.settings.cluster.as_str(), ready.credential.kind()), ("prod", "client secret"));
        assert_eq!(ready.endpoints.resource_manager, "https://management.azure.com");
        assert!(!format!("{ready:?}").contains("hush"));
    }

    #[test]
    fn what_is_missing_is_said_with_where_and_what_to_do() {
        let without = |field: &str| WHOLE.replace(&format!(r#""{field}": "#), r#""x": "#);
        for (content, words, says) in [
            (WHOLE.to_owned(), "--providers=azure", "needs --azure-cluster-name NAME"),
            ("{".to_owned(), ON, "/azure.json: azure.json cannot be read: EOF"),
            (without("vnetName"), ON, "/azure.json: azure.json: `vnetName` is missing"),
            (without("aadClientSecret"), ON, "/azure.json: azure.json names no credentials; set"),
            (without("tenantId"), ON, "/azure.json: azure.json: `tenantId` is missing"),
            (
                WHOLE.replace("vmType\": \"vmss", "cloud\": \"Mars"),
                ON,
                "`cloud` is `Mars`, and there are AzurePublicCloud",
            ),
            (
                WHOLE.replace("aadClientSecret\": \"hush", "aadClientCertPath\": \"/nowhere/tls.pem"),
                ON,
                "the certificate /nowhere/tls.pem (aadClientCertPath) cannot be read: No such file",
            ),
            (
                WHOLE.replace(
                    "{\n",
                    "{\"useFederatedWorkloadIdentityExtension\": true, \"aadFederatedTokenFile\": \"/nowhere/t\",\n",
                ),
                ON,
                "/nowhere/t: No such file or directory (os error 2); let the pod have it",
            ),
        ] {
            let error = with(&content, words).unwrap_err();
            assert!(error.contains(says) && error.contains("--providers=azure"), "{error}");
        }
        let error = prepare_with(Path::new("/nowhere/azure.json"), ON).unwrap_err();
        let expected = "--providers=azure: /nowhere/azure.json cannot be read: No such file or directory (os error 2); mount the \
                        azure.json of cloud-provider-azure there, or say by --azure-config where it is";
        assert_eq!(error, expected);
    }

    #[test]
    fn a_cluster_is_in_one_cloud() {
        let args = Args::try_parse_from(["berth-controller", "--providers=aws,azure"]).unwrap();
        assert!(args.served_classes().unwrap_err().to_string().contains("both aws and azure"));
    }
}
