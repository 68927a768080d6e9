//! The plugin itself, with a kubeconfig, as people run it.

#![allow(dead_code, reason = "each suite that runs it uses a part")]

use std::path::{Path, PathBuf};
use std::process::{Child, Output, Stdio};

use anyhow::{Context as _, Result, ensure};
use berth_lab::{BIN_DIR_ENV, Lab};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::Api;
use kube::api::PostParams;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

/// An administrator, and somebody who may see Services of one namespace and nothing else.
const PEOPLE: &str = "
apiVersion: v1
kind: ServiceAccount
metadata: {name: admin, namespace: default}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: cli-admin}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-admin}
subjects: [{kind: ServiceAccount, name: admin, namespace: default}]
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: user, namespace: default}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: cli-user, namespace: default}
rules:
- {apiGroups: [''], resources: [services], verbs: [get, list]}
- {apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [get, list]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: cli-user, namespace: default}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: cli-user}
subjects: [{kind: ServiceAccount, name: user, namespace: default}]
";

/// The plugin, and whose kubeconfig it is given.
pub struct Plugin {
    program: PathBuf,
    home: TempDir,
    server: String,
}

/// What it printed, and how it ended.
#[derive(Debug)]
pub struct Said {
    pub out: String,
    pub err: String,
    pub code: Option<i32>,
}

impl Plugin {
    /// The plugin, with a kubeconfig that has a context for each of the people.
    pub async fn of(lab: &Lab) -> Result<Self> {
        lab.apply_yaml(PEOPLE).await?;
        let server = format!("https://{}:6443", lab.root().address);
        let plugin = Self { program: program()?, home: tempfile::tempdir()?, server };
        let (admin, user) = (token(lab, "admin").await?, token(lab, "user").await?);
        let kubeconfig = format!(
            "
apiVersion: v1
kind: Config
current-context: admin
contexts:
- {{name: admin, context: {{cluster: lab, user: admin}}}}
- {{name: user, context: {{cluster: lab, user: user, namespace: default}}}}
- {{name: nobody, context: {{cluster: lab, user: nobody}}}}
clusters:
- {{name: lab, cluster: {{server: '{}', insecure-skip-tls-verify: true}}}}
users:
- {{name: admin, user: {{token: {admin}}}}}
- {{name: user, user: {{token: {user}}}}}
- {{name: nobody, user: {{token: not-a-token}}}}
",
            plugin.server
        );
        std::fs::create_dir(plugin.home.path().join(".kube"))?;
        std::fs::write(plugin.kubeconfig(), kubeconfig)?;
        Ok(plugin)
    }

    fn kubeconfig(&self) -> PathBuf {
        self.home.path().join(".kube/config")
    }

    /// Runs it with these words and nothing of the environment but a home.
    pub async fn run(&self, words: &[&str]) -> Result<Said> {
        self.start(words)?.ended().await
    }

    /// Starts it so, with nobody at its standard input.
    pub fn start(&self, words: &[&str]) -> Result<Running> {
        let mut command = std::process::Command::new(&self.program);
        command.args(words).env_clear().env("HOME", self.home.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Ok(Running(command.spawn()?))
    }

    pub async fn json(&self, words: &[&str]) -> Result<(Value, Said)> {
        let said = self.run(&[words, &["-o", "json"]].concat()).await?;
        let json = serde_json::from_str(&said.out).with_context(|| format!("{said:?}"))?;
        Ok((json, said))
    }
}

/// One that runs.
pub struct Running(Child);

impl Running {
    /// Presses Ctrl-C.
    pub fn interrupt(&self) -> Result<()> {
        Ok(kill(Pid::from_raw(i32::try_from(self.0.id())?), Signal::SIGINT)?)
    }

    /// Waits until it has ended.
    pub async fn ended(self) -> Result<Said> {
        let Output { status, stdout, stderr } = tokio::task::spawn_blocking(|| self.0.wait_with_output()).await??;
        Ok(Said { out: String::from_utf8(stdout)?, err: String::from_utf8(stderr)?, code: status.code() })
    }
}

/// Beside the running test's, or where the other programs are.
fn program() -> Result<PathBuf> {
    let myself = std::env::current_exe()?;
    let built = myself.parent().and_then(Path::parent).map(Path::to_path_buf);
    let folder = std::env::var_os(BIN_DIR_ENV).map(PathBuf::from).or(built).context("no folder of programs")?;
    let program = folder.join("kubectl-berth");
    ensure!(program.exists(), "{} is not there: run `cargo build -p berth-cli`", program.display());
    Ok(program)
}

async fn token(lab: &Lab, account: &str) -> Result<String> {
    let accounts: Api<ServiceAccount> = Api::namespaced(lab.admin(), "default");
    let request = TokenRequest {
        spec: TokenRequestSpec { expiration_seconds: Some(3600), ..TokenRequestSpec::default() },
        ..TokenRequest::default()
    };
    let answer = accounts.create_token_request(account, &PostParams::default(), &request).await?;
    Ok(answer.status.context("the token has no status")?.token)
}

/// Whether a text has all of these.
pub fn has(text: &str, parts: &[&str]) -> Result<()> {
    for part in parts {
        ensure!(text.contains(part), "no `{part}` in:\n{text}");
    }
    Ok(())
}
