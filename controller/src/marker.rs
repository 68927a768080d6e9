//! Puts the finalizer on Services and takes it off: the only place that writes it.
//!
//! Under the version that the finalizers of others were seen at, so that none of them is overwritten.

use std::time::Duration;

use berth_api::names::CONTROLLER_FIELD_MANAGER;
use berth_api::service::ServiceKey;
use berth_pool::driver::{self, WriteError};
use berth_provider::{Failure, ServiceId};
use k8s_openapi::api::core::v1::Service;
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;

use crate::metrics::{Metrics, WriteLabels};
use crate::wish::Mark;

/// The word for it among the kinds that writes are counted by.
const KIND: &str = "Service finalizer";

/// A finalizer to be put on a Service, or taken off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Write {
    pub(crate) key: ServiceKey,
    pub(crate) uid: String,
    /// What was seen.
    pub(crate) seen: Mark,
    /// Whether it is put on.
    pub(crate) puts_on: bool,
}

/// What came of it.
#[derive(Debug)]
pub(crate) enum Written {
    /// The Service has these now.
    Is(Mark),
    /// It has changed since it was seen; the watch says how.
    Outdated,
    /// It is not there.
    Gone,
    /// The API server refused it, or was not reached.
    Failed(Failure),
}

/// Writes finalizers.
#[derive(Clone)]
pub(crate) struct Marker {
    client: Client,
    metrics: Metrics,
}

impl Marker {
    pub(crate) fn new(client: Client, metrics: Metrics) -> Self {
        Self { client, metrics }
    }

    /// Whether this very Service is there, by the API server itself.
    pub(crate) async fn is_there(&self, id: &ServiceId) -> Result<bool, Failure> {
        let api: Api<Service> = Api::namespaced(self.client.clone(), &id.key.namespace);
        let found = driver::call("get", "Service", &id.key.to_string(), api.get_opt(&id.key.name)).await?;
        Ok(found.and_then(|service| service.metadata.uid).as_deref() == Some(&id.uid))
    }

    pub(crate) async fn write(&self, write: &Write) -> Written {
        let Write { key, uid, seen, puts_on } = write;
        let api: Api<Service> = Api::namespaced(self.client.clone(), &key.namespace);
        let params = PatchParams { field_manager: Some(CONTROLLER_FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        let finalizers = seen.with_ours(*puts_on);
        let meta = json!({"uid": uid, "resourceVersion": seen.version, "finalizers": finalizers});
        let body = Patch::Merge(json!({ "metadata": meta }));
        let request = api.patch_metadata(&key.name, &params, &body);
        let written = driver::call("patch", KIND, &key.to_string(), request).await;
        let result = written.as_ref().map_or_else(WriteError::result, |_| "ok");
        self.metrics.writes.get_or_create(&WriteLabels { kind: KIND, result }).inc();
        match written {
            Ok(service) => {
                tracing::info!(service = %key, puts_on, "finalizer written");
                Written::Is(Mark::of(&service.metadata))
            }
            Err(error) if error.is_not_found() => Written::Gone,
            Err(error) if error.result() == "conflict" => Written::Outdated,
            Err(error) => Written::Failed(failure(*puts_on, error)),
        }
    }
}

fn failure(puts_on: bool, error: WriteError) -> Failure {
    let mut failure = Failure::from(error);
    let what = if puts_on {
        "nothing is made for the Service before it has Berth's finalizer"
    } else {
        "nothing of the Service is left, and it keeps Berth's finalizer until that can be taken off"
    };
    failure.message = format!("{}; {what}", failure.message);
    failure
}

/// How long a write that met another version waits for the watch to show it.
pub(crate) const WATCH: Duration = Duration::from_secs(2);
