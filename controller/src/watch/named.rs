//! The watch of one ConfigMap, by whose annotation people say which orphans are to be removed.

use std::collections::BTreeSet;

use berth_api::orphans::{REMOVE, config_map_name, named};
use futures::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::Api;
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Client, ResourceExt};

use super::{Outage, WATCH_TIME};
use crate::documents::Named;
use crate::metrics::Metrics;

const KIND: &str = "ConfigMap";

/// Puts into `to` what the list of a provider is annotated with, until it is dropped.
pub(crate) fn follow(
    client: &Client,
    namespace: &str,
    provider: &str,
    metrics: &Metrics,
    to: Named,
) -> impl Future<Output = ()> + Send + 'static {
    let api: Api<PartialObjectMeta<ConfigMap>> = Api::namespaced(client.clone(), namespace);
    let (metrics, only) = (metrics.clone(), format!("metadata.name={}", config_map_name(provider)));
    async move {
        let mut outage = Outage::none(KIND, &metrics);
        let config = watcher::Config::default().timeout(WATCH_TIME.as_secs() as u32).fields(&only);
        let mut events = std::pin::pin!(watcher(api, config));
        while let Some(event) = events.next().await {
            if let Err(error) = &event {
                tokio::time::sleep(outage.broke_off(error)).await;
            }
            outage.heard(&event);
            if let Some(uids) = event.ok().and_then(says) {
                to.put((), uids);
            }
        }
    }
}

/// Whose orphans are to be removed from now on, if an event says so.
fn says(event: Event<PartialObjectMeta<ConfigMap>>) -> Option<BTreeSet<String>> {
    match event {
        Event::Apply(map) | Event::InitApply(map) => {
            Some(map.annotations().get(REMOVE).map(|text| named(text)).unwrap_or_default())
        }
        Event::Delete(_) => Some(BTreeSet::new()),
        // A list that does not have it says so by what follows when it is made again.
        Event::Init | Event::InitDone => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_the_annotation_names_is_heard_and_its_end_too() {
        let map = |annotations: serde_json::Value| -> PartialObjectMeta<ConfigMap> {
            let metadata = json!({"name": "berth-orphans-aws", "annotations": annotations});
            serde_json::from_value(json!({"metadata": metadata})).unwrap()
        };
        let ab: BTreeSet<_> = ["a", "b"].map(str::to_owned).into();
        assert_eq!(says(Event::InitApply(map(json!({REMOVE: "a,b"})))), Some(ab.clone()));
        assert_eq!(says(Event::Apply(map(json!({REMOVE: "b, a"})))), Some(ab));
        assert_eq!(says(Event::Apply(map(json!({})))), Some(BTreeSet::new()));
        assert_eq!(says(Event::Delete(map(json!({REMOVE: "a"})))), Some(BTreeSet::new()));
        assert_eq!(says(Event::InitDone), None);
    }
}
