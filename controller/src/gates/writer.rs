//! Writes conditions of gates: the only place that writes pods.

use std::collections::BTreeMap;

use berth_api::names::{CONTROLLER_FIELD_MANAGER, TARGET_HEALTH_GATE_PREFIX};
use berth_pool::driver::{self, WriteError};
use berth_provider::Failure;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;

use super::pod::{PodId, Said};
use crate::metrics::{Metrics, WriteLabels};

/// The word for it among the kinds that writes are counted by.
const KIND: &str = "Pod";

/// What the gates of a pod are to say: all of them, because what is applied no more is taken away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GateWrite {
    pub(crate) pod: PodId,
    pub(crate) uid: String,
    /// The version that it was seen at.
    pub(crate) version: String,
    pub(crate) says: BTreeMap<String, Said>,
}

/// What came of it.
#[derive(Debug)]
pub(crate) enum GateWritten {
    /// They say so now, at this version of the pod.
    Done(String),
    /// The pod has changed since it was seen, or is not there; the watch says how it is.
    Outdated,
    /// The API server refused it, or was not reached.
    Failed(Failure),
}

/// Writes them.
#[derive(Clone)]
pub(crate) struct GateWriter {
    client: Client,
    metrics: Metrics,
}

impl GateWriter {
    pub(crate) fn new(client: Client, metrics: Metrics) -> Self {
        Self { client, metrics }
    }

    pub(crate) async fn write(&self, write: &GateWrite, now: Timestamp) -> GateWritten {
        let GateWrite { pod: (namespace, name), uid, version, says } = write;
        let conditions: Vec<_> = says
            .iter()
            .map(|(service, said)| {
                json!({
                    "type": format!("{TARGET_HEALTH_GATE_PREFIX}{service}"), "status": said.status,
                    "reason": said.reason, "message": said.message,
                    "lastTransitionTime": seconds(said.since.unwrap_or(now)),
                })
            })
            .collect();
        // Uid and version make the API server refuse it for another pod of the name, and when it comes late. Conditions are merged by
        // their types, so that those of others stay.
        let body = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"namespace": namespace, "name": name, "uid": uid, "resourceVersion": version},
            "status": {"conditions": conditions},
        });
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let params = PatchParams::apply(CONTROLLER_FIELD_MANAGER).force();
        let full = format!("{namespace}/{name}");
        let patch = Patch::Apply(&body);
        let written = driver::call("apply", KIND, &full, api.patch_status(name, &params, &patch)).await;
        let result = written.as_ref().map_or_else(WriteError::result, |_| "ok");
        self.metrics.writes.get_or_create(&WriteLabels { kind: KIND, result }).inc();
        match written {
            Ok(pod) => {
                let says: Vec<_> =
                    says.iter().map(|(of, said)| format!("{of}: {} {}", said.status, said.reason)).collect();
                tracing::info!(pod = full, ?says, "readiness gate written");
                GateWritten::Done(pod.metadata.resource_version.unwrap_or_default())
            }
            Err(error) if error.is_not_found() || error.result() == "conflict" => GateWritten::Outdated,
            Err(error) => GateWritten::Failed(error.into()),
        }
    }
}

/// As the API server keeps times of conditions.
fn seconds(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
