//! A pod, parsed and trimmed to what readiness gates need of it. Most pods have none of ours, and nothing is kept of them.

use std::borrow::Cow;
use std::collections::BTreeMap;

use berth_api::names::TARGET_HEALTH_GATE_PREFIX;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod as Whole;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::Resource;
use serde::{Deserialize, Deserializer};
use tokio::sync::watch;

use crate::latest::Latest;

/// Why the kubelet says that a pod is not Ready when nothing but readiness gates stands against it (kubelet's word).
const ONLY_GATES: &str = "ReadinessGatesNotReady";

/// A pod's namespace and name.
pub(crate) type PodId = (String, String);

/// Where the watch of pods puts what it shows.
#[derive(Clone, Debug)]
pub(crate) struct PodFeed {
    pub(crate) pods: Latest<PodId, Option<PodState>>,
    /// Whether the first list is complete. Before that a pod that waits might be taken for one that must get no traffic.
    pub(crate) listed: watch::Receiver<bool>,
}

/// What is read of a pod.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Pod {
    #[serde(default, deserialize_with = "trimmed")]
    metadata: ObjectMeta,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    #[serde(default)]
    readiness_gates: Vec<ReadinessGate>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ReadinessGate {
    condition_type: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Status {
    #[serde(default)]
    conditions: Vec<Condition>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    message: String,
    last_transition_time: Option<Time>,
}

/// Labels, annotations and who wrote which field are most of a pod's metadata.
fn trimmed<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Meta {
        name: Option<String>,
        namespace: Option<String>,
        uid: Option<String>,
        resource_version: Option<String>,
        deletion_timestamp: Option<Time>,
    }
    let Meta { name, namespace, uid, resource_version, deletion_timestamp } = Meta::deserialize(deserializer)?;
    Ok(ObjectMeta { name, namespace, uid, resource_version, deletion_timestamp, ..ObjectMeta::default() })
}

impl Resource for Pod {
    type DynamicType = ();
    type Scope = <Whole as Resource>::Scope;

    fn kind((): &()) -> Cow<'_, str> {
        Whole::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        Whole::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        Whole::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        Whole::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// A pod with gates of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PodState {
    pub(crate) uid: String,
    /// `metadata.resourceVersion`.
    pub(crate) version: String,
    /// Nothing but our gates stands against its taking traffic.
    pub(crate) is_ready_but_for_us: bool,
    /// The Services that its gates name, in its namespace, and what its conditions say of them.
    pub(crate) gates: BTreeMap<String, Option<Said>>,
}

/// What a condition says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) status: String,
    pub(crate) reason: String,
    pub(crate) message: String,
    pub(crate) since: Option<Timestamp>,
}

impl Said {
    pub(crate) fn is_true(&self) -> bool {
        self.status == "True"
    }
}

impl PodState {
    /// `None` for a pod that has no gate of ours.
    pub(crate) fn of(pod: &Pod) -> Option<Self> {
        let condition = |kind: &str| pod.status.conditions.iter().find(|condition| condition.kind == kind);
        let is_true = |kind: &str| condition(kind).is_some_and(|condition| condition.status == "True");
        let (ours, others): (Vec<_>, Vec<_>) = pod
            .spec
            .readiness_gates
            .iter()
            .map(|gate| gate.condition_type.as_str())
            .partition(|kind| service(kind).is_some());
        if ours.is_empty() {
            return None;
        }
        // A pod whose node is lost is made not Ready by the node controller, which touches nothing else. So where all our gates are
        // open it has to be the kubelet's word that gates are what is missing: it has not seen yet that they are.
        let ready = condition("Ready");
        let waits_for_us = ours.iter().any(|kind| !is_true(kind));
        let is_for_gates = waits_for_us || ready.is_some_and(|ready| ready.reason == ONLY_GATES);
        let is_ready_but_for_us = pod.metadata.deletion_timestamp.is_none()
            && is_true("ContainersReady")
            && others.iter().all(|kind| is_true(kind))
            && (is_true("Ready") || is_for_gates);
        let said = |kind: &str| {
            condition(kind).map(|condition| Said {
                status: condition.status.clone(),
                reason: condition.reason.clone(),
                message: condition.message.clone(),
                since: condition.last_transition_time.as_ref().map(|time| time.0),
            })
        };
        let gates = ours.into_iter().filter_map(|kind| Some((service(kind)?.to_owned(), said(kind))));
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let version = pod.metadata.resource_version.clone().unwrap_or_default();
        Some(Self { uid, version, is_ready_but_for_us, gates: gates.collect() })
    }
}

/// The Service that a gate of ours names.
fn service(gate: &str) -> Option<&str> {
    gate.strip_prefix(TARGET_HEALTH_GATE_PREFIX).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const WEB: &str = "target-health.berth.dev/web";
    const OTHER: &str = "example.com/other";

    fn pod(gates: &[&str], conditions: &[(&str, &str, &str)], deleted: bool) -> Option<PodState> {
        let gates: Vec<Value> = gates.iter().map(|gate| json!({"conditionType": gate})).collect();
        let conditions: Vec<Value> = conditions
            .iter()
            .map(|(kind, status, reason)| json!({"type": kind, "status": status, "reason": reason}))
            .collect();
        let mut pod = json!({
            "metadata": {"namespace": "shop", "name": "web-0", "uid": "1", "labels": {"app": "web"}},
            "spec": {"readinessGates": gates, "containers": [{"name": "web"}]},
            "status": {"conditions": conditions, "podIPs": [{"ip": "10.0.0.1"}]},
        });
        if deleted {
            pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        }
        PodState::of(&serde_json::from_value(pod).unwrap())
    }

    #[test]
    fn a_pod_waits_for_us_alone_when_its_containers_and_all_other_gates_are_ready() {
        let (containers, not_ready) = (("ContainersReady", "True", ""), ("Ready", "False", "ReadinessGatesNotReady"));
        for (what, conditions, deleted, expected) in [
            ("it waits for us", vec![containers, not_ready, (OTHER, "True", "")], false, true),
            ("and nothing else is said", vec![containers, (OTHER, "True", "")], false, true),
            ("its containers are not ready", vec![("ContainersReady", "False", ""), (OTHER, "True", "")], false, false),
            ("nobody says that they are", vec![not_ready, (OTHER, "True", "")], false, false),
            ("another gate is closed", vec![containers, not_ready, (OTHER, "False", "")], false, false),
            ("another gate is not set", vec![containers, not_ready], false, false),
            ("it ends", vec![containers, not_ready, (OTHER, "True", "")], true, false),
            (
                "it is ready",
                vec![containers, ("Ready", "True", ""), (OTHER, "True", ""), (WEB, "True", "")],
                false,
                true,
            ),
            (
                "the kubelet has not seen yet that the gate is open",
                vec![containers, not_ready, (OTHER, "True", ""), (WEB, "True", "")],
                false,
                true,
            ),
            (
                "its node is lost",
                vec![containers, ("Ready", "False", ""), (OTHER, "True", ""), (WEB, "True", "")],
                false,
                false,
            ),
        ] {
            let state = pod(&[WEB, OTHER], &conditions, deleted).unwrap();
            assert_eq!(state.is_ready_but_for_us, expected, "{what}");
        }
    }

    #[test]
    fn only_pods_with_a_gate_of_ours_are_kept_with_what_their_conditions_say() {
        for gates in [vec![], vec![OTHER], vec!["target-health.berth.dev/"], vec!["target-health.example.com/web"]] {
            assert_eq!(pod(&gates, &[("Ready", "True", "")], false), None, "{gates:?}");
        }
        let state = pod(&[WEB, "target-health.berth.dev/api"], &[(WEB, "False", "NotATarget")], false).unwrap();
        let reasons = state.gates.iter().map(|(of, said)| (of.as_str(), said.as_ref().map(|s| &*s.reason)));
        assert_eq!(reasons.collect::<Vec<_>>(), [("api", None), ("web", Some("NotATarget"))]);
    }
}
