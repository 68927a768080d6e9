//! Writes the lists of orphans: the only place that writes ConfigMaps.

use berth_api::names::{CONTROLLER_FIELD_MANAGER, CONTROLLER_NAMESPACE};
use berth_api::orphans::{LIST_KEY, OrphanList, config_map_name};
use berth_pool::driver::{self, WriteError};
use berth_provider::{Class, Failure};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Client;
use kube::api::{Api, ObjectMeta, Patch, PatchParams, PostParams};

use crate::metrics::{Metrics, WriteLabels};

const KIND: &str = "ConfigMap";

/// Writes them.
#[derive(Clone)]
pub(crate) struct ListWriter {
    client: Client,
    namespace: String,
    metrics: Metrics,
}

impl ListWriter {
    pub(crate) fn new(client: Client, metrics: Metrics) -> Self {
        Self { client, namespace: CONTROLLER_NAMESPACE.to_owned(), metrics }
    }

    /// The same, into another namespace.
    pub(crate) fn within(self, namespace: &str) -> Self {
        Self { namespace: namespace.to_owned(), ..self }
    }

    pub(crate) async fn write(&self, provider: &str, list: &OrphanList) -> Result<(), Failure> {
        let text =
            serde_json::to_string_pretty(list).map_err(|error| Failure::new(Class::Transient, error.to_string()))?;
        let name = config_map_name(provider);
        let full = format!("{}/{name}", self.namespace);
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), &self.namespace);
        let there = driver::call("get", KIND, &full, api.get_opt(&name)).await?;
        let says = |map: &ConfigMap| map.data.as_ref().and_then(|data| data.get(LIST_KEY)) == Some(&text);
        if there.as_ref().is_some_and(says) {
            return Ok(());
        }
        // Under the version that was seen, or as a new one: what comes late, when another replica has written, is refused.
        let version = there.and_then(|map| map.metadata.resource_version);
        let labels = [("app.kubernetes.io/name", "berth"), ("app.kubernetes.io/part-of", "berth")];
        let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let metadata = ObjectMeta {
            name: Some(name.clone()),
            resource_version: version.clone(),
            labels: Some(labels),
            ..ObjectMeta::default()
        };
        let data = Some([(LIST_KEY.to_owned(), text)].into());
        let body = ConfigMap { metadata, data, ..ConfigMap::default() };
        let written = if version.is_some() {
            let params = PatchParams::apply(CONTROLLER_FIELD_MANAGER).force();
            driver::call("apply", KIND, &full, api.patch(&name, &params, &Patch::Apply(&body))).await
        } else {
            let params =
                PostParams { field_manager: Some(CONTROLLER_FIELD_MANAGER.to_owned()), ..PostParams::default() };
            driver::call("create", KIND, &full, api.create(&params, &body)).await
        };
        let result = written.as_ref().map_or_else(WriteError::result, |_| "ok");
        self.metrics.writes.get_or_create(&WriteLabels { kind: KIND, result }).inc();
        written.map(|_| ()).map_err(Failure::from)
    }
}
