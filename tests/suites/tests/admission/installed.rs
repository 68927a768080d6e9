//! A lab in which `deploy/install.yaml` is applied, and clients with the rights of Berth's accounts.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use berth_api::Announcement;
use berth_api::names::{
    CONTROLLER_NAME, CONTROLLER_NAMESPACE, SPEAKER_FIELD_MANAGER, SPEAKER_NAME, SPEAKER_NAMESPACE, announcement_name,
};
use berth_lab::{Lab, LabConfig};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, Secret, ServiceAccount};
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};

/// Nodes are names here: nothing runs on them.
pub const LAB: LabConfig = LabConfig { nodes: 2, kube_proxy: false };
/// Longest wait for the API server to go by what was applied.
pub const SOON: Duration = Duration::from_secs(20);
/// The shortest life that the API server gives a token.
const TOKEN_SECONDS: i64 = 600;

pub const POLICIES: [&str; 5] =
    ["berth-epochs", "berth-speaker-claims", "berth-speaker-nodes", "berth-speaker-pods", "berth-controller-secrets"];

/// Where a file of `deploy/` is.
pub fn deploy(path: &str) -> Result<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy").join(path);
    fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
}

/// Everything that is installed, in the order of the file.
pub fn manifests() -> Result<Vec<DynamicObject>> {
    Ok(serde_saphyr::from_multiple(&deploy("install.yaml")?)?)
}

/// The pod that a workload makes, as an object of its own.
pub fn pod_of(kind: &str, name: &str) -> Result<Value> {
    let workload = manifests()?.into_iter().find(|object| object.types.as_ref().is_some_and(|t| t.kind == kind));
    let template = &workload.with_context(|| format!("there is no {kind}"))?.data["spec"]["template"];
    let mut pod =
        json!({ "apiVersion": "v1", "kind": "Pod", "metadata": template["metadata"], "spec": template["spec"] });
    pod["metadata"]["name"] = name.into();
    Ok(pod)
}

/// What the API server said to a write: nothing, or why it refuses it.
pub fn refusal<T>(answer: kube::Result<T>) -> Result<Option<String>> {
    match answer {
        Ok(_) => Ok(None),
        Err(kube::Error::Api(status)) if matches!(status.code, 403 | 422) => Ok(Some(status.message.clone())),
        Err(error) => Err(error.into()),
    }
}

/// Holds an answer against what is expected of it: a part of a refusal, or none.
pub fn expect(says: &str, answer: Option<String>, expected: Option<&str>) -> Result<()> {
    match (answer, expected) {
        (None, None) => Ok(()),
        (Some(refusal), Some(part)) if refusal.contains(part) => Ok(()),
        (Some(refusal), Some(part)) => bail!("{says}: refused, but not with `{part}`: {refusal}"),
        (Some(refusal), None) => bail!("{says}: refused: {refusal}"),
        (None, Some(part)) => bail!("{says}: taken, and not refused with `{part}`"),
    }
}

/// A lab with Berth's objects.
pub struct Installed {
    pub lab: Lab,
    /// A token of the speaker on node-1, as the kubelet gets it for the pod.
    pub speaker_1: Client,
    /// The same on node-2.
    pub speaker_2: Client,
    /// A token of the speakers' account that is bound to no pod.
    pub unbound: Client,
    pub controller: Client,
}

impl Installed {
    /// Applies everything but the workloads, whose pods the tests make by hand, and waits until every policy refuses something.
    pub async fn start(lab: Lab) -> Result<Self> {
        for object in manifests()? {
            if !object.types.as_ref().is_some_and(|types| ["Deployment", "DaemonSet"].contains(&types.kind.as_str())) {
                lab.apply(&object).await?;
            }
        }
        let speaker_1 = speaker_token(&lab, "node-1").await?;
        let speaker_2 = speaker_token(&lab, "node-2").await?;
        let installed = Self {
            speaker_1: lab.client_with_token(&speaker_1).await?,
            speaker_2: lab.client_with_token(&speaker_2).await?,
            unbound: lab.client_with_token(&token(&lab, SPEAKER_NAMESPACE, SPEAKER_NAME, None).await?).await?,
            controller: lab.client_with_token(&token(&lab, CONTROLLER_NAMESPACE, CONTROLLER_NAME, None).await?).await?,
            lab,
        };
        installed.policies_in_force().await?;
        Ok(installed)
    }

    /// An Announcement with this `spec.layer2`, and with this `status.layer2` as the speakers write it.
    pub async fn announcement(&self, number: u8, layer2: &Value, status: &Value) -> Result<String> {
        let address = format!("192.0.2.{number}");
        let name = announcement_name(address.parse()?);
        let mut object = json!({
            "apiVersion": "berth.dev/v1alpha1", "kind": "Announcement",
            "metadata": { "name": name },
            "spec": {
                "address": address, "pool": "default",
                "services": [{ "namespace": "default", "name": "web", "uid": "0b7a" }],
            },
        });
        if !layer2.is_null() {
            object["spec"]["layer2"] = layer2.clone();
        }
        let api = Api::<Announcement>::all(self.lab.admin());
        api.create(&PostParams::default(), &serde_json::from_value(object)?).await?;
        if !status.is_null() {
            write_status(&self.lab.admin(), &name, status, false).await?;
        }
        Ok(name)
    }

    /// A policy is in force a moment after it was applied, once the API server has noticed.
    async fn policies_in_force(&self) -> Result<()> {
        // The first to be given out is the CRD's; before it is served nothing can be refused.
        let layer2 = json!({ "owner": "node-1", "epoch": 1 });
        let announcement = self.lab.eventually("Announcements are served", SOON, async || {
            Ok(Some(self.announcement(1, &layer2, &Value::Null).await?))
        });
        let announcement = announcement.await?;
        let all = Api::<Announcement>::all(self.lab.admin());
        let pods = Api::<Pod>::namespaced(self.lab.admin(), SPEAKER_NAMESPACE);
        let dry_run = PatchParams { dry_run: true, ..PatchParams::default() };
        let bare = json!({ "metadata": { "name": "bare" }, "spec": { "containers": [{ "name": "a", "image": "a" }] } });
        let bare = serde_json::from_value(bare)?;
        self.lab
            .eventually("the policies are in force", SOON, async || {
                let without = json!({ "spec": { "layer2": null } });
                let answers = [
                    refusal(all.patch(&announcement, &dry_run, &Patch::Merge(without)).await)?,
                    refusal(write_status(&self.unbound, &announcement, &Value::Null, true).await)?,
                    refusal(write_speaker_node(&self.unbound, "node-1", true).await)?,
                    refusal(pods.create(&PostParams { dry_run: true, ..PostParams::default() }, &bare).await)?,
                    refusal(make_secret(&self.controller, SPEAKER_NAMESPACE, "other", &json!({}), true).await)?,
                ];
                for (policy, answer) in POLICIES.iter().zip(answers) {
                    expect(policy, answer, Some(policy))?;
                }
                Ok(Some(()))
            })
            .await
    }
}

/// Writes a status as a speaker does: by server-side apply, whole. Null is one without a claim.
pub async fn write_status(client: &Client, name: &str, layer2: &Value, dry_run: bool) -> kube::Result<Announcement> {
    let mut status = json!({ "conditions": [{
        "type": "Ready", "status": "True", "reason": "Answering", "message": format!("for {name}"),
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }] });
    if !layer2.is_null() {
        status["layer2"] = layer2.clone();
    }
    let object = json!({
        "apiVersion": "berth.dev/v1alpha1", "kind": "Announcement", "metadata": { "name": name }, "status": status,
    });
    let params = PatchParams { dry_run, ..PatchParams::apply(SPEAKER_FIELD_MANAGER).force() };
    Api::all(client.clone()).patch_status(name, &params, &Patch::Apply(object)).await
}

/// Creates a Secret, with what `more` says.
pub async fn make_secret(
    client: &Client,
    namespace: &str,
    name: &str,
    more: &Value,
    dry_run: bool,
) -> kube::Result<Secret> {
    let mut object = json!({ "metadata": { "name": name } });
    for (field, value) in more.as_object().into_iter().flatten() {
        object[field] = value.clone();
    }
    object["metadata"]["name"] = name.into();
    let secret = serde_json::from_value(object).map_err(kube::Error::SerdeError)?;
    Api::namespaced(client.clone(), namespace).create(&PostParams { dry_run, ..PostParams::default() }, &secret).await
}

/// Writes a SpeakerNode as a speaker does.
pub async fn write_speaker_node(client: &Client, name: &str, dry_run: bool) -> kube::Result<DynamicObject> {
    let object = json!({
        "apiVersion": "berth.dev/v1alpha1", "kind": "SpeakerNode", "metadata": { "name": name },
        "spec": { "version": "0.1.0", "interfaces": [] },
    });
    let params = PatchParams { dry_run, ..PatchParams::apply(SPEAKER_FIELD_MANAGER).force() };
    speaker_nodes(client).patch(name, &params, &Patch::Apply(object)).await
}

/// SpeakerNodes, as somebody sees them.
pub fn speaker_nodes(client: &Client) -> Api<DynamicObject> {
    let resource = ApiResource {
        group: "berth.dev".to_owned(),
        version: "v1alpha1".to_owned(),
        api_version: "berth.dev/v1alpha1".to_owned(),
        kind: "SpeakerNode".to_owned(),
        plural: "speakernodes".to_owned(),
    };
    Api::all_with(client.clone(), &resource)
}

/// A token of the speaker on a node, asked for as the kubelet asks: bound to the pod that is to have it.
async fn speaker_token(lab: &Lab, node: &str) -> Result<String> {
    let mut pod = pod_of("DaemonSet", &format!("{SPEAKER_NAME}-{node}"))?;
    pod["spec"]["nodeName"] = node.into();
    let pods = Api::<Pod>::namespaced(lab.admin(), SPEAKER_NAMESPACE);
    let pod = pods.create(&PostParams::default(), &serde_json::from_value(pod)?).await?;
    let bound = BoundObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        name: pod.metadata.name,
        uid: pod.metadata.uid,
    };
    token(lab, SPEAKER_NAMESPACE, SPEAKER_NAME, Some(bound)).await
}

async fn token(lab: &Lab, namespace: &str, account: &str, bound: Option<BoundObjectReference>) -> Result<String> {
    let spec = TokenRequestSpec {
        bound_object_ref: bound,
        expiration_seconds: Some(TOKEN_SECONDS),
        ..TokenRequestSpec::default()
    };
    let request = TokenRequest { spec, ..TokenRequest::default() };
    let accounts = Api::<ServiceAccount>::namespaced(lab.admin(), namespace);
    let answer = accounts.create_token_request(account, &PostParams::default(), &request).await?;
    Ok(answer.status.context("the API server gave no token")?.token)
}
