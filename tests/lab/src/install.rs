//! Installing Berth as an operator does: the manifests of `deploy/` and nothing else.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use berth_api::names::{CONTROLLER_NAME, CONTROLLER_NAMESPACE, SPEAKER_NAME, SPEAKER_NAMESPACE};
use futures::future::try_join_all;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams};
use kube::runtime::conditions::is_crd_established;
use kube::runtime::wait::{Condition, await_condition};
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::component;
use crate::kubelet::image;
use crate::lab::Lab;
use crate::progress::step;

/// The filter of Berth's own log lines, for whoever looks for a fault: it is handed on as an operator would, by an edit.
pub const LOG_ENV: &str = "BERTH_LOG";

/// The manifest that is installed.
const MANIFEST: &str = "install.yaml";
const FIELD_MANAGER: &str = "berth-lab";
/// Longest that the API server takes to serve a new kind.
const ESTABLISHED_LIMIT: Duration = Duration::from_secs(30);
/// Longest rollout on a loaded machine.
const ROLLOUT_LIMIT: Duration = Duration::from_secs(90);
/// Longest wait until all that was deleted is gone: the grace period of a pod, and what a loaded machine adds.
const GONE_LIMIT: Duration = Duration::from_secs(90);

/// What an operator changes in a pod template before applying it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodEdit {
    /// Arguments behind those that are there.
    pub args: Vec<String>,
    /// Environment variables besides those that are there.
    pub env: Vec<(String, String)>,
}

impl PodEdit {
    /// Adds arguments.
    pub fn args(args: &[&str]) -> Self {
        Self { args: args.iter().map(|text| (*text).to_owned()).collect(), env: Vec::new() }
    }
}

/// How Berth is installed: as shipped, with these changes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BerthConfig {
    /// Changes of the controllers' template.
    pub controller: PodEdit,
    /// How many controllers, if not as shipped.
    pub controller_replicas: Option<u32>,
    /// Changes of the speakers' template.
    pub speaker: PodEdit,
    /// Components of `deploy/` that are laid over it, in this order. A Secret that one names is for whoever installs.
    pub components: &'static [&'static str],
}

impl BerthConfig {
    fn change(&self, object: &mut DynamicObject) {
        let kind = object.types.as_ref().map(|types| types.kind.as_str());
        let edit = match kind {
            Some("Deployment") => &self.controller,
            Some("DaemonSet") => &self.speaker,
            _ => return,
        };
        if let (Some("Deployment"), Some(replicas)) = (kind, self.controller_replicas) {
            object.data["spec"]["replicas"] = replicas.into();
        }
        let log = std::env::var(LOG_ENV).ok().map(|filter| (LOG_ENV.to_owned(), filter));
        let env = edit.env.iter().cloned().chain(log).map(|(name, value)| json!({ "name": name, "value": value }));
        let container = &mut object.data["spec"]["template"]["spec"]["containers"][0];
        append(&mut container["args"], edit.args.iter().map(|text| text.clone().into()));
        append(&mut container["env"], env);
    }
}

fn append(list: &mut Value, more: impl Iterator<Item = Value>) {
    let mut all = list.as_array().cloned().unwrap_or_default();
    all.extend(more);
    if !all.is_empty() {
        *list = all.into();
    }
}

/// A workload of Berth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workload {
    /// The controllers.
    Deployment,
    /// The speakers.
    DaemonSet,
}

/// The manifest, with components over it.
fn laid_over(config: &BerthConfig) -> Result<Vec<DynamicObject>> {
    let mut objects = manifest()?;
    for component in config.components {
        component::lay_over(&mut objects, component)?;
    }
    Ok(objects)
}

impl Lab {
    /// Installs Berth as shipped (`kubectl apply -f deploy/install.yaml`); returns when controllers and speakers are rolled out.
    pub async fn install_berth(&self) -> Result<()> {
        Box::pin(self.install_berth_with(&BerthConfig::default())).await
    }

    /// The same, with changes.
    pub async fn install_berth_with(&self, config: &BerthConfig) -> Result<()> {
        if self.nodes().iter().any(|node| node.kube_proxy().is_none()) {
            bail!("Berth finds the API server by its Service: start the lab with kube-proxy");
        }
        image::bin_dir()?;
        let progress = self.inner.progress.clone();
        step(&*progress, "apply deploy/install.yaml", self.apply_berth(config)).await?;
        step(&*progress, "roll out Berth's controllers and speakers", Box::pin(self.rolled_out_berth())).await
    }

    /// Applies the manifest and waits for the kinds; the pods come up meanwhile.
    async fn apply_berth(&self, config: &BerthConfig) -> Result<()> {
        let mut objects = laid_over(config)?;
        for object in &mut objects {
            config.change(object);
        }
        self.apply_all(&objects).await
    }

    /// Applies all that the manifest has but controllers and speakers: the kinds, accounts, rights and admission policies. For
    /// who runs a controller without a pod; see [`Lab::spawn`].
    pub async fn install_berth_without_workloads(&self) -> Result<()> {
        self.install_components_without_workloads(&[]).await
    }

    /// The same with these components of `deploy/` laid over it, such as `aws`.
    pub async fn install_components_without_workloads(&self, components: &[&str]) -> Result<()> {
        let mut objects = manifest()?;
        for component in components {
            component::lay_over(&mut objects, component)?;
        }
        objects.retain(|object| !is_kind(object, "Deployment") && !is_kind(object, "DaemonSet"));
        let progress = self.inner.progress.clone();
        step(&*progress, "apply deploy/install.yaml without its workloads", self.apply_all(&objects)).await
    }

    /// Applies objects and waits for the kinds among them.
    async fn apply_all(&self, objects: &[DynamicObject]) -> Result<()> {
        for object in objects {
            self.apply(object).await?;
        }
        let crds: Api<CustomResourceDefinition> = Api::all(self.admin());
        try_join_all(objects.iter().filter(|object| is_kind(object, "CustomResourceDefinition")).map(async |crd| {
            let name = crd.name_any();
            let established = await_condition(crds.clone(), &name, is_crd_established());
            let waited = timeout(ESTABLISHED_LIMIT, established).await;
            waited.with_context(|| format!("{name} is not served after {ESTABLISHED_LIMIT:?}"))??;
            anyhow::Ok(())
        }))
        .await?;
        Ok(())
    }

    /// Waits until both workloads are rolled out.
    pub async fn rolled_out_berth(&self) -> Result<()> {
        tokio::try_join!(self.rolled_out(Workload::Deployment), self.rolled_out(Workload::DaemonSet))?;
        Ok(())
    }

    /// Waits until a workload runs its present template everywhere, and nothing older (`kubectl rollout status`).
    pub async fn rolled_out(&self, workload: Workload) -> Result<()> {
        let admin = self.admin();
        let (namespace, waited) = match workload {
            Workload::Deployment => {
                let api = Api::namespaced(admin, CONTROLLER_NAMESPACE);
                (
                    CONTROLLER_NAMESPACE,
                    timeout(ROLLOUT_LIMIT, done(api, CONTROLLER_NAME, deployment_is_rolled_out)).await,
                )
            }
            Workload::DaemonSet => {
                let api = Api::namespaced(admin, SPEAKER_NAMESPACE);
                (SPEAKER_NAMESPACE, timeout(ROLLOUT_LIMIT, done(api, SPEAKER_NAME, daemon_set_is_rolled_out)).await)
            }
        };
        if let Ok(done) = waited {
            return done;
        }
        let pods = self.describe_pods(namespace).await?;
        bail!("the {workload:?} in {namespace} is not rolled out after {ROLLOUT_LIMIT:?}:\n{pods}")
    }

    /// Replaces all pods of a workload, one after the other (`kubectl rollout restart`); returns when that is done.
    pub async fn rollout_restart(&self, workload: Workload) -> Result<()> {
        let now = Timestamp::now().to_string();
        let template = json!({ "metadata": { "annotations": { "kubectl.kubernetes.io/restartedAt": now } } });
        let patch = Patch::Merge(json!({ "spec": { "template": template } }));
        let params = PatchParams::default();
        match workload {
            Workload::Deployment => {
                let api: Api<Deployment> = Api::namespaced(self.admin(), CONTROLLER_NAMESPACE);
                api.patch(CONTROLLER_NAME, &params, &patch).await?;
            }
            Workload::DaemonSet => {
                let api: Api<DaemonSet> = Api::namespaced(self.admin(), SPEAKER_NAMESPACE);
                api.patch(SPEAKER_NAME, &params, &patch).await?;
            }
        }
        self.rolled_out(workload).await
    }

    /// Deletes all that the manifest has, the last first; returns when nothing of it is left.
    pub async fn uninstall_berth(&self) -> Result<()> {
        let objects = manifest()?;
        // In the order of the file, as kubectl does it.
        for object in &objects {
            match self.api_of(object)?.delete(&object.name_any(), &DeleteParams::background()).await {
                // Gone with its kind or its namespace.
                Err(kube::Error::Api(refused)) if refused.code == 404 => {}
                other => drop(other.with_context(|| format!("deleting {}", object.name_any()))?),
            }
        }
        for object in &objects {
            let name = object.name_any();
            let api = self.api_of(object)?;
            crate::eventually::eventually(&format!("{name} is gone"), GONE_LIMIT, async || {
                match api.get_opt(&name).await {
                    Ok(Some(left)) => bail!("it says {}", left.data["status"]),
                    Ok(None) => Ok(Some(())),
                    Err(kube::Error::Api(refused)) if refused.code == 404 => Ok(Some(())),
                    Err(error) => Err(error.into()),
                }
            })
            .await?;
        }
        Ok(())
    }

    /// Applies any object as the administrator, by server-side apply.
    pub async fn apply(&self, object: &DynamicObject) -> Result<()> {
        let name = object.name_any();
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let applied = self.api_of(object)?.patch(&name, &params, &Patch::Apply(object)).await;
        applied.with_context(|| {
            let kind = object.types.as_ref().map(|types| types.kind.as_str()).unwrap_or_default();
            format!("applying {kind} {name}")
        })?;
        Ok(())
    }

    /// Applies every object of a YAML text.
    pub async fn apply_yaml(&self, yaml: &str) -> Result<()> {
        for object in parse_objects(yaml)? {
            self.apply(&object).await?;
        }
        Ok(())
    }

    fn api_of(&self, object: &DynamicObject) -> Result<Api<DynamicObject>> {
        let name = object.name_any();
        let types = object.types.as_ref().with_context(|| format!("the object {name} has no kind"))?;
        let resource = ApiResource::from_gvk(&GroupVersionKind::try_from(types)?);
        Ok(match &object.metadata.namespace {
            Some(namespace) => Api::namespaced_with(self.admin(), namespace, &resource),
            None => Api::all_with(self.admin(), &resource),
        })
    }

    /// Every pod of a namespace, and what it waits for.
    async fn describe_pods(&self, namespace: &str) -> Result<String> {
        let pods: Api<Pod> = Api::namespaced(self.admin(), namespace);
        let mut lines = Vec::new();
        for pod in pods.list(&ListParams::default()).await? {
            let status = serde_json::to_value(&pod.status)?;
            let name = pod.name_any();
            lines.push(format!("  {name}: {} {}", status["phase"], status["containerStatuses"][0]["state"]));
            if status["containerStatuses"].is_null() {
                lines.push(format!("    {}", status["conditions"]));
            }
        }
        for container in self.inner.containers.find(|identity| identity.namespace == namespace) {
            let said = crate::controlplane::binary::last_lines(&container.logged().unwrap_or_default(), 5);
            lines.push(format!("  {} ends with:\n{said}", container.log().display()));
        }
        Ok(lines.join("\n"))
    }
}

async fn done<K>(api: Api<K>, name: &str, is_done: impl Condition<K> + Copy) -> Result<()>
where
    K: kube::Resource + Clone + std::fmt::Debug + Send + serde::de::DeserializeOwned + 'static,
{
    await_condition(api, name, is_done).await?;
    Ok(())
}

fn deployment_is_rolled_out(deployment: Option<&Deployment>) -> bool {
    let Some(deployment) = deployment else { return false };
    let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    let Some(status) = &deployment.status else { return false };
    let all = Some(wanted);
    status.observed_generation >= deployment.metadata.generation
        && (status.replicas, status.updated_replicas, status.available_replicas) == (all, all, all)
}

fn daemon_set_is_rolled_out(daemon_set: Option<&DaemonSet>) -> bool {
    let Some(daemon_set) = daemon_set else { return false };
    let Some(status) = &daemon_set.status else { return false };
    let wanted = status.desired_number_scheduled;
    status.observed_generation >= daemon_set.metadata.generation
        && wanted > 0
        && (status.updated_number_scheduled, status.number_available) == (Some(wanted), Some(wanted))
}

fn is_kind(object: &DynamicObject, kind: &str) -> bool {
    object.types.as_ref().is_some_and(|types| types.kind == kind)
}

/// The objects of `deploy/install.yaml`, in its order.
fn manifest() -> Result<Vec<DynamicObject>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy").join(MANIFEST);
    let what = || format!("reading {}: `cargo xtask generate` makes it", path.display());
    parse_objects(&fs::read_to_string(&path).with_context(what)?).with_context(what)
}

fn parse_objects(yaml: &str) -> Result<Vec<DynamicObject>> {
    Ok(serde_saphyr::from_multiple(yaml)?)
}
