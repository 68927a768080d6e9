//! A pod's specification, read into what this kubelet does. What it would not do is refused, with the field's name.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::{
    Container, EnvVar, Pod, PodSecurityContext, Probe as ProbeSpec, SecurityContext, Volume,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt as _;
use serde_json::Value;

use super::capabilities;
use super::image::Image;

/// The fields that mean something here, or that belong to others (the scheduler, the controllers), or that change nothing in a
/// lab. One that is listed is taken with all below it; what is not listed is refused.
const UNDERSTOOD: &[&str] = &[
    // Read here.
    "automountServiceAccountToken",
    "containers.args",
    "containers.command",
    "containers.env.name",
    "containers.env.value",
    "containers.env.valueFrom.configMapKeyRef",
    "containers.env.valueFrom.fieldRef",
    "containers.env.valueFrom.secretKeyRef",
    "containers.image",
    "containers.livenessProbe.failureThreshold",
    "containers.livenessProbe.httpGet.path",
    "containers.livenessProbe.httpGet.port",
    "containers.livenessProbe.httpGet.scheme",
    "containers.livenessProbe.initialDelaySeconds",
    "containers.livenessProbe.periodSeconds",
    "containers.livenessProbe.successThreshold",
    "containers.livenessProbe.timeoutSeconds",
    "containers.name",
    "containers.ports",
    "containers.readinessProbe.failureThreshold",
    "containers.readinessProbe.httpGet.path",
    "containers.readinessProbe.httpGet.port",
    "containers.readinessProbe.httpGet.scheme",
    "containers.readinessProbe.initialDelaySeconds",
    "containers.readinessProbe.periodSeconds",
    "containers.readinessProbe.successThreshold",
    "containers.readinessProbe.timeoutSeconds",
    "containers.securityContext.allowPrivilegeEscalation",
    "containers.securityContext.capabilities",
    "containers.securityContext.readOnlyRootFilesystem",
    "containers.securityContext.runAsGroup",
    "containers.securityContext.runAsNonRoot",
    "containers.securityContext.runAsUser",
    "containers.securityContext.seccompProfile.type",
    "containers.startupProbe.failureThreshold",
    "containers.startupProbe.httpGet.path",
    "containers.startupProbe.httpGet.port",
    "containers.startupProbe.httpGet.scheme",
    "containers.startupProbe.initialDelaySeconds",
    "containers.startupProbe.periodSeconds",
    "containers.startupProbe.successThreshold",
    "containers.startupProbe.timeoutSeconds",
    "containers.volumeMounts.mountPath",
    "containers.volumeMounts.name",
    "containers.volumeMounts.readOnly",
    "hostNetwork",
    "nodeName",
    "restartPolicy",
    "securityContext.runAsGroup",
    "securityContext.runAsNonRoot",
    "securityContext.runAsUser",
    "securityContext.seccompProfile.type",
    "serviceAccount",
    "serviceAccountName",
    "terminationGracePeriodSeconds",
    "volumes.configMap.defaultMode",
    "volumes.configMap.items",
    "volumes.configMap.name",
    "volumes.configMap.optional",
    "volumes.downwardAPI.defaultMode",
    "volumes.downwardAPI.items.fieldRef",
    "volumes.downwardAPI.items.mode",
    "volumes.downwardAPI.items.path",
    "volumes.emptyDir",
    "volumes.name",
    "volumes.projected.defaultMode",
    "volumes.projected.sources.configMap",
    "volumes.projected.sources.downwardAPI.items.fieldRef",
    "volumes.projected.sources.downwardAPI.items.mode",
    "volumes.projected.sources.downwardAPI.items.path",
    "volumes.projected.sources.secret",
    "volumes.projected.sources.serviceAccountToken",
    "volumes.secret.defaultMode",
    "volumes.secret.items",
    "volumes.secret.optional",
    "volumes.secret.secretName",
    // The scheduler's.
    "affinity",
    "nodeSelector",
    "preemptionPolicy",
    "priority",
    "priorityClassName",
    "schedulerName",
    "tolerations",
    "topologySpreadConstraints",
    // Of no effect in a lab: no registry, no cgroups, no DNS, no seccomp filter; and nothing reads termination messages.
    "containers.imagePullPolicy",
    "containers.resources",
    "containers.terminationMessagePath",
    "containers.terminationMessagePolicy",
    "dnsPolicy",
    "enableServiceLinks",
    "imagePullSecrets",
];

/// Kubernetes' default, when a pod names none.
const DEFAULT_GRACE_SECONDS: i64 = 30;

/// Why a pod is not run.
pub(crate) type Refusal = String;

/// A pod as this kubelet runs it.
#[derive(Debug, Clone)]
pub(crate) struct PodTemplate {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub labels: BTreeMap<String, String>,
    pub service_account: String,
    pub host_network: bool,
    /// From SIGTERM to SIGKILL.
    pub grace: Duration,
    pub volumes: Vec<Volume>,
    pub containers: Vec<ContainerTemplate>,
}

/// A container as this kubelet runs it.
#[derive(Debug, Clone)]
pub(crate) struct ContainerTemplate {
    pub name: String,
    pub image_name: String,
    pub image: Image,
    pub command: Vec<String>,
    pub args: Vec<String>,
    pub env: Vec<EnvVar>,
    pub mounts: Vec<VolumeMount>,
    pub user: u32,
    pub group: u32,
    /// Bits by the numbers of capabilities(7).
    pub capabilities: u64,
    pub no_new_privileges: bool,
    pub read_only_root: bool,
    pub startup: Option<Probe>,
    pub liveness: Option<Probe>,
    pub readiness: Option<Probe>,
}

/// A volume's place in a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct VolumeMount {
    pub volume: String,
    pub path: String,
    pub read_only: bool,
}

/// A probe by HTTP GET.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Probe {
    pub path: String,
    pub port: u16,
    pub initial_delay: Duration,
    pub period: Duration,
    pub timeout: Duration,
    /// Successes in a row after which a failing one counts as succeeding.
    pub success_threshold: u32,
    /// Failures in a row after which a succeeding one counts as failing.
    pub failure_threshold: u32,
}

/// Whether the kubelets leave the pod to [`Pod`](crate::Pod).
pub(crate) fn is_users(pod: &Pod) -> bool {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let mut images = containers.map(|container| container.image.as_deref().unwrap_or_default());
    images.all(|image| image == super::image::USER_IMAGE)
}

/// Reads a pod, or says why it is not run.
pub(crate) fn read(pod: &Pod) -> Result<PodTemplate, Refusal> {
    let spec = pod.spec.as_ref().ok_or("the pod has no spec")?;
    let json = serde_json::to_value(spec).map_err(|error| format!("spec: {error}"))?;
    understood(&json, "", "spec")?;
    match spec.restart_policy.as_deref() {
        None | Some("Always") => {}
        Some(other) => return Err(format!("spec.restartPolicy: the lab's kubelet knows Always and not {other}")),
    }
    let general = spec.security_context.clone().unwrap_or_default();
    seccomp(general.seccomp_profile.as_ref().map(|profile| &*profile.type_), "spec.securityContext")?;
    let volumes = spec.volumes.clone().unwrap_or_default();
    let containers = spec
        .containers
        .iter()
        .enumerate()
        .map(|(index, container)| {
            read_container(container, &general, &volumes)
                .map_err(|refusal| format!("spec.containers[{index}].{refusal}"))
        })
        .collect::<Result<_, _>>()?;
    let grace = spec.termination_grace_period_seconds.unwrap_or(DEFAULT_GRACE_SECONDS);
    Ok(PodTemplate {
        namespace: pod.namespace().unwrap_or_default(),
        name: pod.name_any(),
        uid: pod.uid().unwrap_or_default(),
        labels: pod.labels().clone(),
        service_account: spec.service_account_name.clone().unwrap_or_else(|| "default".to_owned()),
        host_network: spec.host_network == Some(true),
        grace: seconds(Some(grace)),
        volumes,
        containers,
    })
}

fn read_container(
    container: &Container,
    general: &PodSecurityContext,
    volumes: &[Volume],
) -> Result<ContainerTemplate, Refusal> {
    let image_name = container.image.clone().unwrap_or_default();
    let image = Image::find(&image_name)
        .ok_or_else(|| format!("image: there is no `{image_name}` in the lab; there are {}", Image::known()))?;
    let command = container.command.clone().unwrap_or_default();
    if command.is_empty() {
        return Err("command: images of the lab have no entry point, so it must be given".to_owned());
    }
    let security = container.security_context.clone().unwrap_or_default();
    seccomp(security.seccomp_profile.as_ref().map(|profile| &*profile.type_), "securityContext")?;
    // Images of the lab name no user, which means root.
    let user = identity(security.run_as_user.or(general.run_as_user), "securityContext.runAsUser")?;
    let group = identity(security.run_as_group.or(general.run_as_group), "securityContext.runAsGroup")?;
    if security.run_as_non_root.or(general.run_as_non_root) == Some(true) && user == 0 {
        return Err("securityContext.runAsNonRoot: the container would run as root; set runAsUser".to_owned());
    }
    let mounts = read_mounts(container, volumes)?;
    let read_probe = |probe: Option<&ProbeSpec>, field: &str| {
        probe.map(|probe| read_probe(probe, container)).transpose().map_err(|refusal| format!("{field}.{refusal}"))
    };
    Ok(ContainerTemplate {
        name: container.name.clone(),
        image_name,
        image,
        command,
        args: container.args.clone().unwrap_or_default(),
        env: container.env.clone().unwrap_or_default(),
        mounts,
        user,
        group,
        capabilities: read_capabilities(&security)?,
        no_new_privileges: security.allow_privilege_escalation == Some(false),
        read_only_root: security.read_only_root_filesystem == Some(true),
        startup: read_probe(container.startup_probe.as_ref(), "startupProbe")?,
        liveness: read_probe(container.liveness_probe.as_ref(), "livenessProbe")?,
        readiness: read_probe(container.readiness_probe.as_ref(), "readinessProbe")?,
    })
}

fn read_mounts(container: &Container, volumes: &[Volume]) -> Result<Vec<VolumeMount>, Refusal> {
    let read = |(index, mount): (usize, &k8s_openapi::api::core::v1::VolumeMount)| {
        if !volumes.iter().any(|volume| volume.name == mount.name) {
            return Err(format!("volumeMounts[{index}].name: there is no volume `{}`", mount.name));
        }
        // The API server lets a `..` through in a mount path.
        if !mount.mount_path.starts_with('/') || mount.mount_path.split('/').any(|part| part == "..") {
            return Err(format!(
                "volumeMounts[{index}].mountPath: `{}` is not a plain absolute path",
                mount.mount_path
            ));
        }
        let read_only = mount.read_only == Some(true);
        Ok(VolumeMount { volume: mount.name.clone(), path: mount.mount_path.clone(), read_only })
    };
    container.volume_mounts.iter().flatten().enumerate().map(read).collect()
}

fn read_capabilities(security: &SecurityContext) -> Result<u64, Refusal> {
    let changes = security.capabilities.clone().unwrap_or_default();
    let (add, drop) = (changes.add.unwrap_or_default(), changes.drop.unwrap_or_default());
    capabilities::applied(&add, &drop).map_err(|name| format!("securityContext.capabilities: there is no `{name}`"))
}

fn read_probe(probe: &ProbeSpec, container: &Container) -> Result<Probe, Refusal> {
    let get = probe.http_get.as_ref().ok_or("httpGet: no other kind of probe is known to the lab's kubelet")?;
    if get.scheme.as_deref().is_some_and(|scheme| scheme != "HTTP") {
        return Err("httpGet.scheme: the lab's kubelet knows HTTP only".to_owned());
    }
    let number = match &get.port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => {
            let ports = container.ports.iter().flatten();
            ports.into_iter().find(|port| port.name.as_ref() == Some(name)).map(|port| port.container_port)
        }
    };
    let port = number.and_then(|number| u16::try_from(number).ok());
    // The API server's defaults are there already; these are the same.
    Ok(Probe {
        path: get.path.clone().unwrap_or_else(|| "/".to_owned()),
        port: port.ok_or("httpGet.port: the container has no such port")?,
        initial_delay: seconds(probe.initial_delay_seconds.map(i64::from)),
        period: seconds(Some(probe.period_seconds.map_or(10, i64::from).max(1))),
        timeout: seconds(Some(probe.timeout_seconds.map_or(1, i64::from).max(1))),
        success_threshold: threshold(probe.success_threshold, 1),
        failure_threshold: threshold(probe.failure_threshold, 3),
    })
}

fn threshold(value: Option<i32>, default: u32) -> u32 {
    value.and_then(|value| u32::try_from(value).ok()).filter(|value| *value > 0).unwrap_or(default)
}

fn seconds(value: Option<i64>) -> Duration {
    Duration::from_secs(value.and_then(|value| u64::try_from(value).ok()).unwrap_or_default())
}

fn identity(number: Option<i64>, field: &str) -> Result<u32, Refusal> {
    u32::try_from(number.unwrap_or_default()).map_err(|_| format!("{field}: not a number that Linux knows"))
}

/// The lab has no filter, so what it runs under `RuntimeDefault` is unconfined; a filter of one's own would be missed.
fn seccomp(kind: Option<&str>, field: &str) -> Result<(), Refusal> {
    match kind {
        None | Some("RuntimeDefault" | "Unconfined") => Ok(()),
        Some(other) => Err(format!("{field}.seccompProfile.type: {other} is not known to the lab's kubelet")),
    }
}

/// Walks all that is set and finds each in the table. `path` has no indexes, `told` has.
fn understood(value: &Value, path: &str, told: &str) -> Result<(), Refusal> {
    let nothing = match value {
        Value::Null => true,
        Value::Bool(set) => !set,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Number(_) => false,
    };
    if nothing || UNDERSTOOD.contains(&path) {
        return Ok(());
    }
    let on_the_way = path.is_empty()
        || UNDERSTOOD.iter().any(|known| known.strip_prefix(path).is_some_and(|rest| rest.starts_with('.')));
    match value {
        Value::Object(fields) if on_the_way => fields.iter().try_for_each(|(key, value)| {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            understood(value, &path, &format!("{told}.{key}"))
        }),
        Value::Array(items) if on_the_way => {
            items.iter().enumerate().try_for_each(|(index, item)| understood(item, path, &format!("{told}[{index}]")))
        }
        _ => Err(format!("{told}: not understood by the lab's kubelet")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn merge(into: &mut Value, more: Value) {
        match (into, more) {
            (Value::Object(into), Value::Object(more)) => {
                more.into_iter().for_each(|(key, value)| merge(into.entry(key).or_insert(Value::Null), value));
            }
            (into, more) => *into = more,
        }
    }

    /// A pod with one container, with `pod` and `container` laid over it.
    fn pod(pod: Value, container: Value) -> Pod {
        let mut first = json!({ "name": "c", "image": "lab-shell", "command": ["/bin/sh"] });
        merge(&mut first, container);
        let mut spec = json!({ "containers": [first] });
        merge(&mut spec, pod);
        serde_json::from_value(json!({ "metadata": { "name": "p", "namespace": "n", "uid": "u" }, "spec": spec }))
            .unwrap()
    }

    #[test]
    fn what_is_not_understood_is_refused_by_name() {
        let nothing = || json!({});
        for (spec, container, says) in [
            (json!({ "initContainers": [{ "name": "i" }] }), nothing(), "spec.initContainers: not understood"),
            (json!({ "hostPID": true }), nothing(), "spec.hostPID: not understood"),
            (
                json!({ "volumes": [{ "name": "v", "hostPath": { "path": "/" } }] }),
                nothing(),
                "spec.volumes[0].hostPath",
            ),
            (json!({ "securityContext": { "fsGroup": 1 } }), nothing(), "spec.securityContext.fsGroup"),
            (json!({ "restartPolicy": "Never" }), nothing(), "spec.restartPolicy"),
            (
                nothing(),
                json!({ "lifecycle": { "preStop": { "sleep": { "seconds": 1 } } } }),
                "spec.containers[0].lifecycle",
            ),
            (nothing(), json!({ "image": "nginx:1" }), "spec.containers[0].image: there is no `nginx:1`"),
            (nothing(), json!({ "command": [] }), "spec.containers[0].command"),
            (nothing(), json!({ "securityContext": { "privileged": true } }), "securityContext.privileged"),
            (
                nothing(),
                json!({ "securityContext": { "runAsNonRoot": true } }),
                "runAsNonRoot: the container would run as root",
            ),
            (nothing(), json!({ "securityContext": { "capabilities": { "add": ["FLY"] } } }), "there is no `FLY`"),
            (nothing(), json!({ "livenessProbe": { "exec": { "command": ["true"] } } }), "livenessProbe.exec"),
            (nothing(), json!({ "livenessProbe": { "httpGet": { "port": "web" } } }), "livenessProbe.httpGet.port"),
            (nothing(), json!({ "envFrom": [{ "configMapRef": { "name": "c" } }] }), "envFrom"),
            (nothing(), json!({ "volumeMounts": [{ "name": "v", "mountPath": "/v" }] }), "volumeMounts[0].name"),
        ] {
            let refusal = read(&pod(spec, container)).unwrap_err();
            assert!(refusal.contains(says), "{refusal:?} says nothing about {says:?}");
        }
    }

    #[test]
    fn what_is_off_or_empty_is_the_same_as_left_out() {
        let off = json!({ "hostPID": false, "initContainers": [], "securityContext": {}, "hostname": "" });
        read(&pod(off, json!({ "lifecycle": null, "stdin": false }))).unwrap();
    }

    #[test]
    fn a_container_takes_the_pods_user_unless_it_has_its_own() {
        let general =
            || json!({ "securityContext": { "runAsUser": 65532, "runAsGroup": 65532, "runAsNonRoot": true } });
        let of = |container| {
            let read = read(&pod(general(), container)).unwrap();
            (read.containers[0].user, read.containers[0].group)
        };
        assert_eq!(of(json!({})), (65532, 65532));
        assert_eq!(of(json!({ "securityContext": { "runAsUser": 7 } })), (7, 65532));
    }

    #[test]
    fn users_pods_are_left_alone() {
        assert!(is_users(&pod(json!({}), json!({ "image": "lab" }))));
        assert!(!is_users(&pod(json!({}), json!({ "image": "lab-shell" }))));
    }
}
