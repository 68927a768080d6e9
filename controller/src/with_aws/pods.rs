//! Pods in the small API server, with what a kubelet and the controller of EndpointSlices do.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::future::BoxFuture;
use http::StatusCode;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

use crate::backends::{Feed, SliceState};
use crate::gates::{PodFeed, PodState};
use crate::in_memory::Shared;
use crate::latest::Latest;

const OURS: &str = "target-health.berth.dev/";

/// Pods by name.
#[derive(Default)]
pub(crate) struct Pods {
    all: BTreeMap<String, Value>,
    made: u64,
    /// Services that have, or had, pods.
    services: BTreeSet<String>,
    version: u64,
    watchers: Vec<mpsc::UnboundedSender<String>>,
    /// What writes of their statuses are answered, if they are not carried out.
    pub(crate) refuses: Option<u16>,
    /// Statuses that were written, or were to be.
    pub(crate) writes: u64,
    /// What became of gates of ours, in order.
    pub(crate) log: Vec<String>,
}

impl Pods {
    /// A pod of a Service whose containers are not ready yet.
    pub(crate) fn start(&mut self, name: &str, service: &str, address: &str, gates: &[&str]) {
        self.made += 1;
        self.services.insert(service.to_owned());
        let gates: Vec<_> = gates.iter().map(|gate| json!({"conditionType": gate})).collect();
        let pod = json!({
            "metadata": {"namespace": "shop", "name": name, "uid": format!("pod-{}", self.made), "labels": {"app": service}},
            "spec": {"readinessGates": gates},
            "status": {"podIP": address, "conditions": [{"type": "example.com/of-others", "status": "True"}]},
        });
        self.all.insert(name.to_owned(), pod);
        self.changed(name);
    }

    /// The kubelet, or somebody else, says something of a pod.
    pub(crate) fn says(&mut self, name: &str, kind: &str, is_so: bool) {
        if let Some(pod) = self.all.get_mut(name) {
            set(pod, &json!({"type": kind, "status": if is_so { "True" } else { "False" }}));
        }
        self.changed(name);
    }

    pub(crate) fn end(&mut self, name: &str) {
        self.all.remove(name);
        self.changed(name);
    }

    /// A condition, as `True Reason message`.
    pub(crate) fn condition(&self, name: &str, kind: &str) -> String {
        let word = |condition: &Value, field: &str| condition[field].as_str().unwrap_or_default().to_owned();
        let of = self.all.get(name).and_then(|pod| get(pod, kind));
        let text = of.map(|c| format!("{} {} {}", word(c, "status"), word(c, "reason"), word(c, "message")));
        text.unwrap_or_default().trim_end().to_owned()
    }

    /// A gate of ours.
    pub(crate) fn gate(&self, name: &str, service: &str) -> String {
        self.condition(name, &format!("{OURS}{service}"))
    }

    pub(crate) fn is_ready(&self, name: &str) -> bool {
        self.condition(name, "Ready").starts_with("True")
    }

    /// What is applied to the status of a pod: conditions of ours alone, all that were applied before, and something new.
    pub(crate) fn apply_status(&mut self, name: &str, body: &Value) -> (StatusCode, Value) {
        self.writes += 1;
        if let Some(code) = self.refuses {
            return (StatusCode::from_u16(code).unwrap(), Value::Null);
        }
        let Some(pod) = self.all.get_mut(name) else { return (StatusCode::NOT_FOUND, Value::Null) };
        let is_same = |field: &str| body["metadata"][field] == pod["metadata"][field];
        if !is_same("uid") || !is_same("resourceVersion") {
            return (StatusCode::CONFLICT, Value::Null);
        }
        let before = pod["status"]["conditions"].clone();
        let applied = body["status"]["conditions"].as_array().unwrap();
        let is_ours = |condition: &Value| condition["type"].as_str().unwrap().starts_with(OURS);
        assert!(applied.iter().all(is_ours), "only conditions of ours are written: {body}");
        for there in before.as_array().unwrap().iter().filter(|condition| is_ours(condition)) {
            assert!(applied.iter().any(|condition| condition["type"] == there["type"]), "one is lost: {body}");
        }
        for condition in applied {
            set(pod, condition);
            let (kind, status) = (condition["type"].as_str().unwrap(), condition["status"].as_str().unwrap());
            self.log.push(format!("{name} {} {status}", &kind[OURS.len()..]));
        }
        assert_ne!(pod["status"]["conditions"], before, "nothing is written that is so already");
        self.version += 1;
        pod["metadata"]["resourceVersion"] = self.version.to_string().into();
        let mut answer = pod.clone();
        answer["apiVersion"] = "v1".into();
        answer["kind"] = "Pod".into();
        self.changed(name);
        (StatusCode::OK, answer)
    }

    fn changed(&mut self, name: &str) {
        self.version += 1;
        if let Some(pod) = self.all.get_mut(name) {
            pod["metadata"]["resourceVersion"] = self.version.to_string().into();
            let is_true = |kind: &str| get(pod, kind).is_some_and(|condition| condition["status"] == "True");
            let mut gates = pod["spec"]["readinessGates"].as_array().unwrap().iter();
            let (reason, is_ready) = if !is_true("ContainersReady") {
                ("ContainersNotReady", false)
            } else if gates.all(|gate| is_true(gate["conditionType"].as_str().unwrap())) {
                ("", true)
            } else {
                ("ReadinessGatesNotReady", false)
            };
            set(pod, &json!({"type": "Ready", "status": if is_ready { "True" } else { "False" }, "reason": reason}));
        }
        self.watchers.retain(|watcher| watcher.send(name.to_owned()).is_ok());
    }

    fn state(&self, name: &str) -> Option<PodState> {
        PodState::of(&serde_json::from_value(self.all.get(name)?.clone()).unwrap())
    }

    /// The EndpointSlices, by Service.
    fn slices(&self) -> BTreeMap<String, EndpointSlice> {
        let mut services: BTreeMap<String, Vec<Value>> =
            self.services.iter().map(|service| (service.clone(), Vec::new())).collect();
        for (name, pod) in &self.all {
            let service = pod["metadata"]["labels"]["app"].as_str().unwrap().to_owned();
            services.entry(service).or_default().push(json!({
                "addresses": [pod["status"]["podIP"]], "conditions": {"ready": self.is_ready(name)},
                "targetRef": {"kind": "Pod", "namespace": "shop", "name": name},
            }));
        }
        let slice = |(service, endpoints): (String, Vec<Value>)| {
            let slice = json!({
                "metadata": {"namespace": "shop", "name": format!("{service}-1"), "labels": {"kubernetes.io/service-name": service}},
                "addressType": "IPv4", "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}], "endpoints": endpoints,
            });
            (service, serde_json::from_value(slice).unwrap())
        };
        services.into_iter().map(slice).collect()
    }
}

fn get<'a>(pod: &'a Value, kind: &str) -> Option<&'a Value> {
    pod["status"]["conditions"].as_array()?.iter().find(|condition| condition["type"] == kind)
}

fn set(pod: &mut Value, condition: &Value) {
    let all = pod["status"]["conditions"].as_array_mut().unwrap();
    match all.iter_mut().find(|there| there["type"] == condition["type"]) {
        Some(there) => *there = condition.clone(),
        None => all.push(condition.clone()),
    }
}

/// Watches pods and slices, until it is dropped. A watch takes a moment, and slices follow pods.
pub(crate) fn watch(api: Shared, feed: &mut Feed) -> BoxFuture<'static, ()> {
    let (tell, listed) = watch::channel(false);
    let pods = PodFeed { pods: Latest::default(), listed };
    feed.gates = Some(pods.clone());
    let slices = feed.slices.clone();
    let put = move |api: &Shared, name: &str| {
        let state = api.lock().unwrap().pods.state(name);
        pods.pods.put(("shop".to_owned(), name.to_owned()), state);
    };
    let put_slices = move |api: &Shared| {
        for slice in api.lock().unwrap().pods.slices().into_values() {
            let id = ("shop".to_owned(), slice.metadata.name.clone().unwrap());
            slices.put(id, SliceState::of(&slice, true));
        }
    };
    let (to, mut from) = mpsc::unbounded_channel();
    Box::pin(async move {
        let all: Vec<_> = {
            let mut api = api.lock().unwrap();
            api.pods.watchers.push(to);
            api.pods.all.keys().cloned().collect()
        };
        put_slices(&api);
        // The list of pods is the last to be complete.
        tokio::time::sleep(Duration::from_secs(2)).await;
        for name in &all {
            put(&api, name);
        }
        tell.send_replace(true);
        while let Some(name) = from.recv().await {
            tokio::time::sleep(Duration::from_millis(1)).await;
            put(&api, &name);
            tokio::time::sleep(Duration::from_millis(1)).await;
            put_slices(&api);
        }
    })
}
