//! Processes that run beside the cluster, without a pod: with a kubeconfig, on the host of the control plane, and with no need of
//! kube-proxy.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::PostParams;
use kube::{Api, Client};

use crate::lab::Lab;
use crate::process::{Process, ProcessSpec};

/// How long a token is good for, in seconds: longer than anything that runs in a lab.
const TOKEN_SECONDS: i64 = 6 * 60 * 60;

impl Lab {
    /// Starts a process; it ends with the lab at the latest. Its output goes to `logs/<name>.log`.
    pub fn spawn(&self, spec: ProcessSpec) -> Result<Process> {
        Process::spawn(spec, &self.inner.control_plane.recorder)
    }

    /// Writes the administrator's kubeconfig, for use inside the lab.
    pub fn admin_kubeconfig(&self) -> Result<PathBuf> {
        self.inner.control_plane.credentials.write_admin_kubeconfig()
    }

    /// Writes a kubeconfig with the rights of a ServiceAccount, for use inside the lab.
    pub async fn kubeconfig_of(&self, namespace: &str, account: &str) -> Result<PathBuf> {
        let token = self.token_of(namespace, account).await?;
        self.inner.control_plane.credentials.write_kubeconfig(&format!("{namespace}-{account}"), &token)
    }

    /// A client with the rights of a ServiceAccount.
    pub async fn client_of(&self, namespace: &str, account: &str) -> Result<Client> {
        self.client_with_token(&self.token_of(namespace, account).await?).await
    }

    async fn token_of(&self, namespace: &str, account: &str) -> Result<String> {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.admin(), namespace);
        let spec = TokenRequestSpec { expiration_seconds: Some(TOKEN_SECONDS), ..TokenRequestSpec::default() };
        let request = TokenRequest { spec, ..TokenRequest::default() };
        let answer = accounts.create_token_request(account, &PostParams::default(), &request).await;
        let answer = answer.with_context(|| format!("asking for a token of {namespace}/{account}"))?;
        Ok(answer.status.context("the token has no status")?.token)
    }
}
