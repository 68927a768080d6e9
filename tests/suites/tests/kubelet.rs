//! The lab's kubelet: that it does what a template says, and refuses what it does not understand.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use berth_lab::{Container, Lab, LabConfig, lab_test};
use k8s_openapi::api::core::v1::{Pod, Secret, ServiceAccount};
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(30);
const ONE_NODE: LabConfig = LabConfig { nodes: 1, kube_proxy: false };
/// Runs until it is told to stop, as the first process of its namespace has to say itself.
const UNTIL_TOLD: &str = "trap 'exit 0' TERM; while :; do sleep 0.05; done";

fn pods(lab: &Lab) -> Api<Pod> {
    Api::default_namespaced(lab.admin())
}

/// A pod of one container on node-1 that runs a script, with `container` and `spec` laid over it.
async fn run(lab: &Lab, name: &str, script: &str, container: Value, spec: Value) -> Result<()> {
    lab.eventually("the namespace has its ServiceAccount", LIMIT, async || {
        Ok(Api::<ServiceAccount>::default_namespaced(lab.admin()).get_opt("default").await?)
    })
    .await?;
    let mut first = json!({ "name": "c", "image": "lab-shell", "command": ["/bin/sh", "-c", script] });
    merge(&mut first, container);
    let mut all = json!({ "nodeName": "node-1", "terminationGracePeriodSeconds": 1, "containers": [first] });
    merge(&mut all, spec);
    let pod = serde_json::from_value(json!({ "metadata": { "name": name, "labels": { "app": name } }, "spec": all }))?;
    pods(lab).create(&PostParams::default(), &pod).await?;
    Ok(())
}

fn merge(into: &mut Value, more: Value) {
    match (into, more) {
        (Value::Object(into), Value::Object(more)) => {
            more.into_iter().for_each(|(key, value)| merge(into.entry(key).or_insert(Value::Null), value));
        }
        (into, more) => *into = more,
    }
}

/// Waits until a pod's first container has a status that fits; returns it.
async fn status(lab: &Lab, name: &str, what: &str, fits: impl Fn(&Value) -> bool) -> Result<Value> {
    lab.eventually(&format!("{name}: {what}"), LIMIT, async || {
        let status = serde_json::to_value(pods(lab).get(name).await?.status)?;
        let container = status["containerStatuses"][0].clone();
        ensure!(fits(&container), "{container}");
        Ok(Some(container))
    })
    .await
}

/// The container, once it is ready.
async fn ready(lab: &Lab, name: &str) -> Result<Container> {
    status(lab, name, "it is ready", |c| c["ready"] == true).await?;
    lab.container("default", name, "c")
}

/// Waits until a container has logged its last word, `done`; returns what it said before.
async fn said(lab: &Lab, name: &str) -> Result<String> {
    lab.eventually(&format!("{name} says all that it has to say"), LIMIT, async || {
        let logged = lab.container("default", name, "c")?.logged()?;
        Ok(logged.contains("done\n").then_some(logged))
    })
    .await
}

/// The line of `/proc/<pid>/status` with this key.
fn line(container: &Container, key: &str) -> Result<String> {
    let pid = container.pid().context("it runs")?;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let value = status.lines().find_map(|line| line.strip_prefix(key)).context("no such line")?;
    Ok(value.split_whitespace().collect::<Vec<_>>().join(" "))
}

lab_test! {
    ONE_NODE;
    async fn what_is_not_understood_is_refused_in_the_pods_status(lab: Lab) -> Result<()> {
        for (name, container, spec, says) in [
            ("path", json!({}), json!({ "volumes": [{ "name": "v", "hostPath": { "path": "/etc" } }] }), "spec.volumes[0].hostPath"),
            ("init", json!({}), json!({ "initContainers": [{ "name": "i", "image": "lab-shell" }] }), "spec.initContainers"),
            ("hook", json!({ "lifecycle": { "preStop": { "exec": { "command": ["/bin/sh"] } } } }), json!({}), "spec.containers[0].lifecycle"),
            ("image", json!({ "image": "nginx:1" }), json!({}), "there is no `nginx:1` in the lab"),
            ("once", json!({}), json!({ "restartPolicy": "Never" }), "spec.restartPolicy"),
            ("root", json!({ "securityContext": { "runAsNonRoot": true } }), json!({}), "runAsNonRoot"),
        ] {
            run(&lab, name, UNTIL_TOLD, container, spec).await?;
            let refused = status(&lab, name, "it is refused", |c| c["state"]["waiting"]["message"].is_string()).await?;
            let waiting = &refused["state"]["waiting"];
            assert_eq!(waiting["reason"], "CreateContainerConfigError", "{name}");
            ensure!(waiting["message"].as_str().is_some_and(|m| m.contains(says)), "{name}: {waiting}");
            ensure!(lab.container("default", name, "c").is_err(), "{name}: nothing was started");
            pods(&lab).delete(name, &DeleteParams::default()).await?;
            lab.eventually("a refused pod can be deleted", LIMIT, async || {
                Ok(pods(&lab).get_opt(name).await?.is_none().then_some(()))
            })
            .await?;
        }
        Ok(())
    }
}

lab_test! {
    ONE_NODE;
    async fn a_container_that_ends_is_started_again_and_counted(lab: Lab) -> Result<()> {
        run(&lab, "crash", "echo once; sleep 0.1; exit 3", json!({}), json!({})).await?;
        let crashed = status(&lab, "crash", "it ran twice", |c| c["restartCount"] == 1 && !c["lastState"].is_null()).await?;
        assert_eq!(crashed["lastState"]["terminated"]["exitCode"], 3, "{crashed}");
        let waits = status(&lab, "crash", "it has to wait", |c| !c["state"]["waiting"].is_null()).await?;
        assert_eq!(waits["state"]["waiting"]["reason"], "CrashLoopBackOff");
        let container = lab.container("default", "crash", "c")?;
        assert_eq!(container.logged()?.matches("once").count(), 2, "both runs are in one log");

        // Killed from outside it is the same.
        run(&lab, "killed", UNTIL_TOLD, json!({}), json!({})).await?;
        let container = ready(&lab, "killed").await?;
        let before = container.pid();
        container.restart(LIMIT).await?;
        ensure!(container.restarts() == 1 && container.pid() != before, "{container:?}");
        let killed = status(&lab, "killed", "its last end is told", |c| c["restartCount"] == 1).await?;
        assert_eq!(killed["lastState"]["terminated"]["exitCode"], 137);
        Ok(())
    }
}

lab_test! {
    ONE_NODE;
    async fn a_container_whose_liveness_probe_fails_is_ended_and_started_again(lab: Lab) -> Result<()> {
        // Nothing listens there.
        let probe = json!({ "httpGet": { "port": 8080 }, "periodSeconds": 1, "failureThreshold": 2 });
        let script = "trap 'echo told; exit 7' TERM; while :; do sleep 0.05; done";
        run(&lab, "sick", script, json!({ "livenessProbe": probe }), json!({ "terminationGracePeriodSeconds": 5 })).await?;
        let again = status(&lab, "sick", "it is started again", |c| c["restartCount"] == 1).await?;
        let last = &again["lastState"]["terminated"];
        assert_eq!(last["exitCode"], 7, "it was told to end, and had the time: {again}");
        ensure!(last["message"].as_str().is_some_and(|m| m.contains("failed liveness probe")), "{last}");

        // Without a readiness probe a container is ready when it runs; with one that fails it never is.
        let probe = json!({ "httpGet": { "port": 8080 }, "periodSeconds": 1, "failureThreshold": 1 });
        run(&lab, "unready", UNTIL_TOLD, json!({ "readinessProbe": probe }), json!({})).await?;
        let unready = status(&lab, "unready", "it runs", |c| !c["state"]["running"].is_null()).await?;
        assert_eq!(unready["ready"], false);
        Ok(())
    }
}

lab_test! {
    ONE_NODE;
    async fn a_container_gets_its_token_its_fields_and_its_secrets(lab: Lab) -> Result<()> {
        let secret: Secret = serde_json::from_value(json!({ "metadata": { "name": "s" }, "stringData": { "key": "hush" } }))?;
        Api::default_namespaced(lab.admin()).create(&PostParams::default(), &secret).await?;
        let script = "echo name=$NAME node=$NODE ip=$IP secret=$SECRET file=$(cat /s/key) label=$(cat /f/app) api=$KUBERNETES_SERVICE_HOST arg=$0
            T=/var/run/secrets/kubernetes.io/serviceaccount; cat $T/ca.crt; echo ns=$(cat $T/namespace) token=$(cat $T/token)
            echo done; trap 'exit 0' TERM; while :; do sleep 0.05; done";
        let field = |name: &str, path: &str| json!({ "name": name, "valueFrom": { "fieldRef": { "fieldPath": path } } });
        let container = json!({
            "args": ["$(NAME)-$(NONE)"],
            "env": [
                field("NAME", "metadata.name"), field("NODE", "spec.nodeName"), field("IP", "status.podIP"),
                { "name": "SECRET", "valueFrom": { "secretKeyRef": { "name": "s", "key": "key" } } },
            ],
            "volumeMounts": [{ "name": "s", "mountPath": "/s" }, { "name": "f", "mountPath": "/f" }],
            "securityContext": { "runAsUser": 65532, "runAsGroup": 65532 },
        });
        let volumes = json!({ "volumes": [
            { "name": "s", "secret": { "secretName": "s" } },
            { "name": "f", "downwardAPI": { "items": [{ "path": "app", "fieldRef": { "fieldPath": "metadata.labels['app']" } }] } },
        ]});
        run(&lab, "told", script, container, volumes).await?;
        let said = said(&lab, "told").await?;
        let address = lab.container("default", "told", "c")?.address()?;
        let expected = format!("name=told node=node-1 ip={address} secret=hush file=hush label=told api=10.96.0.1 arg=told-$(NONE)");
        ensure!(said.contains(&expected), "{said}");
        ensure!(said.contains("BEGIN CERTIFICATE") && said.contains("ns=default"), "{said}");

        // The token is the pod's own, and names its node.
        let client = lab.client_as(&lab.container("default", "told", "c")?).await?;
        let review = json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview" });
        let review: k8s_openapi::api::authentication::v1::SelfSubjectReview = serde_json::from_value(review)?;
        let answer = Api::all(client).create(&PostParams::default(), &review).await?;
        let info = serde_json::to_value(answer)?["status"]["userInfo"].clone();
        assert_eq!(info["username"], "system:serviceaccount:default:default");
        assert_eq!(info["extra"]["authentication.kubernetes.io/pod-name"], json!(["told"]), "{info}");
        assert_eq!(info["extra"]["authentication.kubernetes.io/node-name"], json!(["node-1"]), "{info}");
        Ok(())
    }
}

lab_test! {
    ONE_NODE;
    async fn a_container_has_the_user_the_capabilities_and_the_root_of_its_template(lab: Lab) -> Result<()> {
        let script = "touch /new && echo root is writable; touch /tmp/new && echo tmp is writable; touch /empty/new && echo volume is writable
            ls /work /root /home /var/log /proc/2 2>&1 | grep -v 'No such'; ls / ; echo done; trap 'exit 0' TERM; while :; do sleep 0.05; done";
        let volumes = || json!({ "volumes": [{ "name": "e", "emptyDir": {} }] });
        let mounts = || json!([{ "name": "e", "mountPath": "/empty" }]);
        for (name, security, user, capabilities, no_new_privileges, says) in [
            ("plain", json!({}), "0 0 0 0", "00000000000005fb", "0", &["root is writable", "tmp is writable", "volume is writable"][..]),
            (
                "speaker-like",
                json!({
                    "readOnlyRootFilesystem": true, "allowPrivilegeEscalation": false,
                    "capabilities": { "drop": ["ALL"], "add": ["NET_RAW"] },
                }),
                "0 0 0 0", "0000000000002000", "1", &["volume is writable"],
            ),
            (
                // Runtimes have no ambient set: an added capability is lost on the way to another user.
                "user-with-added",
                json!({ "runAsUser": 65532, "runAsGroup": 65531, "capabilities": { "drop": ["ALL"], "add": ["NET_RAW"] } }),
                "65532 65532 65532 65532", "0000000000000000", "0", &["volume is writable"],
            ),
        ] {
            if name == "user-with-added" && berth_lab::is_user_namespace()? {
                println!("not tested: without root the lab has no user but one");
                continue;
            }
            run(&lab, name, script, json!({ "securityContext": security, "volumeMounts": mounts() }), volumes()).await?;
            let said = said(&lab, name).await?;
            let writable: Vec<_> = said.lines().filter(|line| line.ends_with("is writable")).collect();
            assert_eq!(writable, says, "{name}: {said}");
            for hidden in ["work", "root", "home", "run"] {
                ensure!(!said.lines().any(|line| line == hidden), "{name} sees the host's /{hidden}: {said}");
            }
            let container = lab.container("default", name, "c")?;
            assert_eq!(line(&container, "Uid:")?, user, "{name}");
            for set in ["CapEff:", "CapPrm:"] {
                assert_eq!(line(&container, set)?, capabilities, "{name} {set}");
            }
            for set in ["CapInh:", "CapAmb:"] {
                assert_eq!(line(&container, set)?, "0000000000000000", "{name} {set}");
            }
            assert_eq!(line(&container, "NoNewPrivs:")?, no_new_privileges, "{name}");
        }
        let bounding = line(&lab.container("default", "speaker-like", "c")?, "CapBnd:")?;
        assert_eq!(bounding, "0000000000002000");
        Ok(())
    }
}

lab_test! {
    ONE_NODE;
    async fn a_deleted_pod_has_its_grace_period_and_no_more(lab: Lab) -> Result<()> {
        let polite = "trap 'echo told; sleep 1; echo ended; exit 0' TERM; while :; do sleep 0.05; done";
        // The first process of a PID namespace ignores what it has no handler for.
        let deaf = "while :; do sleep 0.05; done";
        for (name, script, grace, least, most) in [("polite", polite, 20, 1, 15), ("deaf", deaf, 3, 3, 15), ("at-once", deaf, 0, 0, 2)] {
            run(&lab, name, script, json!({}), json!({ "terminationGracePeriodSeconds": grace })).await?;
            let container = ready(&lab, name).await?;
            let begin = Instant::now();
            pods(&lab).delete(name, &DeleteParams::default()).await?;
            lab.eventually(&format!("{name} is gone"), LIMIT, async || {
                Ok((pods(&lab).get_opt(name).await?.is_none() && !container.is_running()).then_some(()))
            })
            .await?;
            let took = begin.elapsed();
            ensure!((Duration::from_secs(least)..Duration::from_secs(most)).contains(&took), "{name} took {took:?}");
            if name == "polite" {
                ensure!(container.logged()?.contains("told\nended\n"), "{}", container.logged()?);
            }
        }
        Ok(())
    }
}

lab_test! {
    ONE_NODE;
    async fn a_crashed_node_takes_up_its_pods_again(lab: Lab) -> Result<()> {
        run(&lab, "stays", UNTIL_TOLD, json!({}), json!({})).await?;
        let container = ready(&lab, "stays").await?;
        lab.crash_node("node-1").await?;
        ensure!(!container.is_running(), "{container:?}");
        let left = pods(&lab).get("stays").await?;
        assert_eq!(left.status.and_then(|s| s.phase).as_deref(), Some("Running"), "nobody tells of a crash");
        lab.boot_node("node-1").await?;
        ensure!(container.is_running() && container.restarts() == 1, "{container:?}");
        status(&lab, "stays", "its restart is told", |c| c["restartCount"] == 1 && c["ready"] == true).await?;
        Ok(())
    }
}
