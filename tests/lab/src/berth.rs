//! Berth in the lab: its objects, its ServiceAccounts' tokens, and its processes, none of them an administrator.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use futures::future::try_join_all;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams};
use kube::runtime::conditions::is_crd_established;
use kube::runtime::wait::await_condition;
use kube::{Api, Client, ResourceExt as _};
use serde_json::json;
use tokio::time::timeout;

use crate::lab::Lab;
use crate::names;
use crate::netns::Netns;
use crate::network::Host;
use crate::process::{Capabilities, Process, ProcessSpec};
use crate::progress::step;

/// Where Berth's binaries are, when they are not beside the running one.
pub const BIN_DIR_ENV: &str = "BERTH_BIN_DIR";
/// The filter of Berth's own log lines, handed on to its processes.
pub const LOG_ENV: &str = "BERTH_LOG";
/// The namespace of Berth's ServiceAccounts.
pub const NAMESPACE: &str = "berth-system";
/// The ServiceAccount of the controller, and its binary.
pub const CONTROLLER_ACCOUNT: &str = "berth-controller";
/// The ServiceAccount of the speakers, and their binary.
pub const SPEAKER_ACCOUNT: &str = "berth-speaker";
/// Where Berth's processes serve health and metrics, each in its own network namespace.
pub const HTTP_PORT: u16 = 7481;

const FIELD_MANAGER: &str = "berth-lab";
/// Longest that the API server takes to serve a new kind.
const ESTABLISHED_LIMIT: Duration = Duration::from_secs(30);
/// Longest start of one of Berth's processes on a loaded machine.
const READY_LIMIT: Duration = Duration::from_secs(30);
/// Longer than anybody leaves a lab up.
const TOKEN_SECONDS: i64 = 30 * 24 * 3600;

/// How Berth is started.
#[derive(Debug, Clone)]
pub struct BerthConfig {
    /// Further arguments of the controller.
    pub controller_args: Vec<String>,
    /// Further arguments of every speaker.
    pub speaker_args: Vec<String>,
}

impl Default for BerthConfig {
    /// Services without a class are served too, as in an installation of its own.
    fn default() -> Self {
        Self { controller_args: vec!["--default-provider=pool".to_owned()], speaker_args: Vec::new() }
    }
}

/// Berth's processes.
pub(crate) struct Berth {
    controller: Process,
    controller_client: Client,
    speakers: BTreeMap<String, Process>,
    speaker_client: Client,
}

impl Lab {
    /// Installs Berth from `deploy/` and starts its controller and a speaker on every node; returns when all are ready.
    pub async fn install_berth(&self) -> Result<()> {
        self.install_berth_with(&BerthConfig::default()).await
    }

    /// The same, with further arguments.
    pub async fn install_berth_with(&self, config: &BerthConfig) -> Result<()> {
        let progress = self.inner.progress.clone();
        step(&*progress, "install Berth's CRDs and roles", self.install_berth_objects()).await?;
        step(&*progress, "start Berth's controller and speakers", self.start_berth(config)).await
    }

    /// Applies Berth's CRDs and roles, as the administrator, and starts nothing.
    pub async fn install_berth_objects(&self) -> Result<()> {
        let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy");
        let mut objects = vec![serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": NAMESPACE },
        }))?];
        for folder in ["crds", "rbac"] {
            objects.extend(read_objects(&deploy.join(folder))?);
        }
        // Namespaces first, then what lives in them: a stable sort keeps the rest in the order of the files.
        objects.sort_by_key(|object| object.metadata.namespace.is_some());
        for object in &objects {
            self.apply(object).await?;
        }
        let crds: Api<CustomResourceDefinition> = Api::all(self.admin());
        let kind =
            |object: &&DynamicObject| object.types.as_ref().is_some_and(|t| t.kind == "CustomResourceDefinition");
        try_join_all(objects.iter().filter(kind).map(async |crd| {
            let name = crd.name_any();
            let established = await_condition(crds.clone(), &name, is_crd_established());
            let waited = timeout(ESTABLISHED_LIMIT, established).await;
            waited.with_context(|| format!("{name} is not served after {ESTABLISHED_LIMIT:?}"))??;
            anyhow::Ok(())
        }))
        .await?;
        Ok(())
    }

    /// Applies any object as the administrator, by server-side apply.
    pub async fn apply(&self, object: &DynamicObject) -> Result<()> {
        let name = object.name_any();
        let types = object.types.as_ref().with_context(|| format!("the object {name} has no kind"))?;
        let resource = ApiResource::from_gvk(&GroupVersionKind::try_from(types)?);
        let api: Api<DynamicObject> = match &object.metadata.namespace {
            Some(namespace) => Api::namespaced_with(self.admin(), namespace, &resource),
            None => Api::all_with(self.admin(), &resource),
        };
        let params = PatchParams::apply(FIELD_MANAGER).force();
        api.patch(&name, &params, &Patch::Apply(object))
            .await
            .with_context(|| format!("applying {} {name}", types.kind))?;
        Ok(())
    }

    /// Applies every object of a YAML text.
    pub async fn apply_yaml(&self, yaml: &str) -> Result<()> {
        for object in parse_objects(yaml)? {
            self.apply(&object).await?;
        }
        Ok(())
    }

    /// Berth's controller.
    pub fn controller(&self) -> Result<Process> {
        Ok(self.berth()?.controller.clone())
    }

    /// A node's speaker.
    pub fn speaker(&self, node: &str) -> Result<Process> {
        let berth = self.berth()?;
        berth.speakers.get(node).cloned().with_context(|| format!("there is no speaker on `{node}`"))
    }

    /// A client with the controller's own rights.
    pub fn client_as_controller(&self) -> Result<Client> {
        Ok(self.berth()?.controller_client.clone())
    }

    /// A client with the speakers' own rights.
    pub fn client_as_speaker(&self) -> Result<Client> {
        Ok(self.berth()?.speaker_client.clone())
    }

    /// Waits until the controller is ready, as after a restart.
    pub async fn controller_ready(&self) -> Result<()> {
        self.controller()?.ready(http_address(self.root().address), "/readyz", READY_LIMIT).await
    }

    /// Waits until a node's speaker is ready, as after a restart.
    pub async fn speaker_ready(&self, node: &str) -> Result<()> {
        self.speaker(node)?.ready(http_address(self.node(node)?.address()), "/readyz", READY_LIMIT).await
    }

    /// The metrics page of the controller.
    pub async fn controller_metrics(&self) -> Result<String> {
        metrics(&self.root().netns, self.root().address).await
    }

    /// The metrics page of a node's speaker.
    pub async fn speaker_metrics(&self, node: &str) -> Result<String> {
        let node = self.node(node)?;
        metrics(node.netns(), node.address()).await
    }

    async fn start_berth(&self, config: &BerthConfig) -> Result<()> {
        let credentials = &self.inner.control_plane.credentials;
        let binaries = bin_dir()?;
        let (controller_token, speaker_token) =
            (self.service_account_token(CONTROLLER_ACCOUNT).await?, self.service_account_token(SPEAKER_ACCOUNT).await?);
        let spawn = |name: String, account: &str, token: &str, more: &[String], at: &Host, capabilities| {
            let kubeconfig = credentials.write_kubeconfig(account, token)?;
            let mut env = vec![
                ("KUBECONFIG".to_owned(), kubeconfig.display().to_string()),
                ("NODE_NAME".to_owned(), at.name.clone()),
                ("RUST_BACKTRACE".to_owned(), "1".to_owned()),
            ];
            env.extend(std::env::var(LOG_ENV).ok().map(|filter| (LOG_ENV.to_owned(), filter)));
            let address = http_address(Ipv4Addr::UNSPECIFIED);
            let mut args = vec![format!("--http-address={address}"), "--log-format=human".to_owned()];
            args.extend_from_slice(more);
            let program = binaries.join(account);
            let spec = ProcessSpec { name, program, args, env, netns: at.netns.clone(), capabilities };
            Process::spawn(spec, &self.inner.recorder)
        };
        let none = Capabilities::Only(&[]);
        let (name, more) = (names::CONTROLLER.to_owned(), &config.controller_args);
        let controller = spawn(name, CONTROLLER_ACCOUNT, &controller_token, more, self.root(), none)?;
        let mut speakers = BTreeMap::new();
        for node in &self.inner.network.nodes {
            let (name, more) = (names::speaker(&node.name), &config.speaker_args);
            let raw = Capabilities::Only(&["net_raw"]);
            let speaker = spawn(name, SPEAKER_ACCOUNT, &speaker_token, more, node, raw)?;
            speakers.insert(node.name.clone(), speaker);
        }
        let berth = Berth {
            controller,
            controller_client: credentials.client(&controller_token).await?,
            speakers,
            speaker_client: credentials.client(&speaker_token).await?,
        };
        *self.inner.berth.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(berth));
        self.controller_ready().await?;
        try_join_all(self.nodes().iter().map(|node| self.speaker_ready(node.name()))).await?;
        Ok(())
    }

    async fn service_account_token(&self, account: &str) -> Result<String> {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.admin(), NAMESPACE);
        let spec = TokenRequestSpec { expiration_seconds: Some(TOKEN_SECONDS), ..TokenRequestSpec::default() };
        let request = TokenRequest { spec, ..TokenRequest::default() };
        let answer = accounts.create_token_request(account, &PostParams::default(), &request).await;
        let answer = answer.with_context(|| format!("asking for a token of {NAMESPACE}/{account}"))?;
        Ok(answer.status.context("the API server gave no token")?.token)
    }

    fn berth(&self) -> Result<Arc<Berth>> {
        let berth = self.inner.berth.lock().unwrap_or_else(PoisonError::into_inner);
        berth.clone().context("Berth is not installed in this lab")
    }
}

fn http_address(address: Ipv4Addr) -> SocketAddr {
    (IpAddr::V4(address), HTTP_PORT).into()
}

async fn metrics(netns: &Netns, address: Ipv4Addr) -> Result<String> {
    let answer = netns.http_get(http_address(address), "/metrics", Duration::from_secs(5)).await?;
    if answer.status != 200 {
        bail!("the metrics page of {} answers {}", netns.name(), answer.status);
    }
    Ok(answer.body)
}

fn bin_dir() -> Result<PathBuf> {
    let dir = if let Some(dir) = std::env::var_os(BIN_DIR_ENV) {
        PathBuf::from(dir)
    } else {
        let binary = std::env::current_exe().context("finding the running binary")?;
        let dir = binary.parent().context("the running binary is in no directory")?;
        // A test's binary is in `deps`, one level down.
        if dir.ends_with("deps") { dir.parent().unwrap_or(dir).to_path_buf() } else { dir.to_path_buf() }
    };
    for name in [CONTROLLER_ACCOUNT, SPEAKER_ACCOUNT] {
        if !dir.join(name).exists() {
            bail!(
                "{} is not there: run `cargo build -p berth-controller -p berth-speaker`, or set {BIN_DIR_ENV}",
                dir.join(name).display()
            );
        }
    }
    Ok(dir)
}

fn read_objects(folder: &Path) -> Result<Vec<DynamicObject>> {
    let what = || format!("reading {}: run `cargo xtask generate` to make what is missing", folder.display());
    let mut files: Vec<_> =
        fs::read_dir(folder).with_context(what)?.filter_map(|entry| entry.ok().map(|e| e.path())).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    let mut objects = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
        objects.extend(parse_objects(&text).with_context(|| format!("reading {}", file.display()))?);
    }
    Ok(objects)
}

fn parse_objects(yaml: &str) -> Result<Vec<DynamicObject>> {
    Ok(serde_saphyr::from_multiple(yaml)?)
}
