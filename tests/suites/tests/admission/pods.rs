//! What may run in Berth's two namespaces.

use anyhow::{Context as _, Result};
use berth_lab::{Lab, lab_test};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::installed::{Installed, LAB, expect, pod_of, refusal};

/// As `docs/deploy.md` has it: a policy with a function that came later is refused by it. The other tests take the newest.
const OLDEST_KUBERNETES: &str = "1.33";

/// Changes a part of a pod: an object merges, anything else takes the place of what was there.
fn change(value: &mut Value, by: &Value) {
    match (value, by) {
        (Value::Object(fields), Value::Object(by)) => {
            for (name, by) in by {
                change(fields.entry(name).or_insert(Value::Null), by);
            }
        }
        (value, by) => *value = by.clone(),
    }
}

/// The pod of a workload with its spec and its container changed.
fn changed(kind: &str, spec: &Value, container: &Value) -> Result<Pod> {
    let mut pod = pod_of(kind, "tried")?;
    change(&mut pod["spec"], spec);
    change(&mut pod["spec"]["containers"][0], container);
    Ok(serde_json::from_value(pod)?)
}

async fn admit(pods: &Api<Pod>, pod: &Pod) -> Result<Option<String>> {
    refusal(pods.create(&PostParams { dry_run: true, ..PostParams::default() }, pod).await)
}

/// A container with nothing that "restricted" refuses, and nothing to write to.
fn modest(name: &str) -> Value {
    json!({
        "name": name, "image": "tool",
        "securityContext": {
            "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": { "drop": ["ALL"] },
        },
    })
}

lab_test! {
    LAB;
    async fn a_pod_beside_the_speakers_gets_no_more_than_a_speaker_needs(lab: Lab) -> Result<()> {
        lab.emulate_api_server(OLDEST_KUBERNETES).await?;
        let installed = Installed::start(lab).await?;
        let pods = Api::<Pod>::namespaced(installed.lab.admin(), "berth-speaker");
        let nothing = || json!({});
        let context = |field: &str, value: Value| json!({ "securityContext": { field: value } });
        let escalation = Some("must have securityContext.allowPrivilegeEscalation: false and must not be privileged");
        let capabilities = Some("every container must drop ALL capabilities and may add NET_RAW alone");
        let host = Some("spec.hostPID and spec.hostIPC must not be set");
        let account = Some("spec.serviceAccountName must be berth-speaker");
        let read_only = Some("must have securityContext.readOnlyRootFilesystem: true");
        let seccomp = Some("securityContext.seccompProfile.type must be RuntimeDefault or Localhost");
        let app_armor = Some("securityContext.appArmorProfile.type must not be Unconfined");
        let se_linux = Some("securityContext.seLinuxOptions may name one of the container types");
        let ports = Some("the ports of the node may be 7481/TCP and 7480/UDP, and no other, for container ");
        let kernel = Some("securityContext must not set sysctls, procMount or windowsOptions.hostProcess");
        let hosts = Some("must not name a host, because the kubelet would reach it for them; container speaker does");
        let http = || json!({ "httpGet": { "port": 80, "host": "192.0.2.1" } });
        let tcp = || json!({ "tcpSocket": { "port": 80, "host": "192.0.2.1" }, "httpGet": null });
        let pod_wide = |field: &str, value: Value| json!({ "securityContext": { field: value } });
        let caps = |drop: &[&str], add: &[&str]| context("capabilities", json!({ "drop": drop, "add": add }));
        let sysctl = || {
            let mut spec = pod_wide("sysctls", json!([{ "name": "net.ipv4.ip_forward", "value": "1" }]));
            spec["hostNetwork"] = false.into();
            spec
        };
        let rights = || json!({ "securityContext": { "privileged": true, "allowPrivilegeEscalation": true } });
        let only_these = Some("spec.volumes may be of the types configMap, downwardAPI, emptyDir, projected and secret; data must go");
        let shipped = pod_of("DaemonSet", "tried")?["spec"]["volumes"].as_array().cloned().unwrap_or_default();
        let volumes = |source: Value| {
            let mut volume = json!({ "name": "data" });
            change(&mut volume, &source);
            json!({ "volumes": shipped.iter().cloned().chain([volume]).collect::<Vec<_>>() })
        };
        let initial = |by: Value| {
            let mut container = modest("init");
            change(&mut container, &by);
            json!({ "initContainers": [container] })
        };
        for (says, spec, container, expected) in [
            ("the speaker as it is shipped", nothing(), nothing(), None),
            ("without what it may have", json!({ "hostNetwork": false }), caps(&["ALL"], &[]), None),
            ("with memory to write to", volumes(json!({ "emptyDir": {} })), nothing(), None),
            ("with a token", volumes(json!({ "projected": { "sources": [{ "serviceAccountToken": { "path": "token" } }] } })), nothing(), None),
            ("with a modest container before it", initial(json!({})), nothing(), None),

            ("another account", json!({ "serviceAccountName": "default" }), nothing(), account),
            ("no account", json!({ "serviceAccountName": null }), nothing(), account),
            ("the processes of the node", json!({ "hostPID": true }), nothing(), host),
            ("the memory of the node", json!({ "hostIPC": true }), nothing(), host),
            ("the files of the node", volumes(json!({ "hostPath": { "path": "/" } })), nothing(), only_these),
            ("a volume of the network", volumes(json!({ "nfs": { "server": "a", "path": "/" } })), nothing(), only_these),
            ("privileged", nothing(), json!({ "securityContext": { "privileged": true, "allowPrivilegeEscalation": null } }), escalation),
            ("escalation", nothing(), context("allowPrivilegeEscalation", json!(true)), escalation),
            ("escalation by not saying", nothing(), context("allowPrivilegeEscalation", Value::Null), escalation),
            ("a capability more", nothing(), caps(&["ALL"], &["NET_RAW", "SYS_ADMIN"]), capabilities),
            ("the capability to change the network", nothing(), caps(&["ALL"], &["NET_ADMIN"]), capabilities),
            ("the capabilities of the runtime", nothing(), caps(&[], &["NET_RAW"]), capabilities),
            ("no word on capabilities", nothing(), context("capabilities", Value::Null), capabilities),
            ("a file system to write to", nothing(), context("readOnlyRootFilesystem", json!(false)), read_only),
            ("every system call", pod_wide("seccompProfile", json!({ "type": "Unconfined" })), nothing(), seccomp),
            ("every system call, for one container", nothing(), context("seccompProfile", json!({ "type": "Unconfined" })), seccomp),
            ("every system call by not saying", json!({ "securityContext": null }), nothing(), seccomp),
            ("no AppArmor", pod_wide("appArmorProfile", json!({ "type": "Unconfined" })), nothing(), app_armor),
            ("no AppArmor, for one container", nothing(), context("appArmorProfile", json!({ "type": "Unconfined" })), app_armor),
            ("another SELinux type", pod_wide("seLinuxOptions", json!({ "type": "spc_t" })), nothing(), se_linux),
            ("another SELinux type, for one container", nothing(), context("seLinuxOptions", json!({ "type": "spc_t" })), se_linux),
            ("another SELinux user", nothing(), context("seLinuxOptions", json!({ "user": "root" })), se_linux),
            ("another SELinux role", pod_wide("seLinuxOptions", json!({ "role": "sysadm_r" })), nothing(), se_linux),
            ("settings of the kernel", sysctl(), nothing(), kernel),
            ("the whole of /proc", json!({ "hostNetwork": false, "hostUsers": false }), context("procMount", json!("Unmasked")), kernel),
            ("another port of the node", nothing(), json!({ "ports": [{ "containerPort": 22, "hostPort": 22 }] }), ports),
            ("its port with another protocol", nothing(), json!({ "ports": [{ "containerPort": 7480, "hostPort": 7480 }] }), ports),
            ("a probe of another host", nothing(), json!({ "livenessProbe": http() }), hosts),
            ("another probe of another host", nothing(), json!({ "readinessProbe": tcp() }), hosts),
            ("a start that waits for another host", nothing(), json!({ "startupProbe": tcp() }), hosts),
            ("a request to another host at the start", nothing(), json!({ "lifecycle": { "postStart": http() } }), hosts),
            ("a request to another host at the end", nothing(), json!({ "lifecycle": { "preStop": http() } }), hosts),
            ("a container before it that asks for more", initial(rights()), nothing(), escalation),
            ("a container before it with a port of the node", initial(json!({ "ports": [{ "containerPort": 22, "hostPort": 22 }] })), nothing(), ports),
        ] {
            expect(says, admit(&pods, &changed("DaemonSet", &spec, &container)?).await.context(says)?, expected)?;
        }

        // Who debugs a speaker adds a container to its pod.
        for (says, by, expected) in [
            ("a container for debugging", json!({}), None),
            ("one with all rights", rights(), escalation),
            ("one with a capability", json!({ "securityContext": { "capabilities": { "add": ["SYS_PTRACE"] } } }), capabilities),
        ] {
            let mut container = modest("debug");
            change(&mut container, &by);
            let patch = Patch::Strategic(json!({ "spec": { "ephemeralContainers": [container] } }));
            let params = PatchParams { dry_run: true, ..PatchParams::default() };
            let answer = pods.patch_subresource("ephemeralcontainers", "berth-speaker-node-1", &params, &patch).await;
            expect(says, refusal(answer)?, expected)?;
        }

        // The same pod elsewhere is none of the policy's business.
        let elsewhere = Api::<Pod>::default_namespaced(installed.lab.admin());
        let other = changed("DaemonSet", &json!({ "serviceAccountName": "default", "hostPID": true }), &nothing())?;
        expect("another namespace", admit(&elsewhere, &other).await?, None)
    }
}

lab_test! {
    LAB;
    async fn the_controller_runs_where_only_restricted_pods_do(lab: Lab) -> Result<()> {
        let installed = Installed::start(lab).await?;
        let pods = Api::<Pod>::namespaced(installed.lab.admin(), "berth-system");
        let restricted = Some("violates PodSecurity \"restricted:");
        for (says, spec, container, expected) in [
            ("the controller as it is shipped", json!({}), json!({}), None),
            ("the network of the node", json!({ "hostNetwork": true }), json!({}), restricted),
            ("root", json!({ "securityContext": { "runAsUser": 0, "runAsNonRoot": false } }), json!({}), restricted),
            ("a capability", json!({}), json!({ "securityContext": { "capabilities": { "add": ["NET_RAW"] } } }), restricted),
        ] {
            expect(says, admit(&pods, &changed("Deployment", &spec, &container)?).await.context(says)?, expected)?;
        }
        Ok(())
    }
}
