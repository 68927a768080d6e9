//! What tells this cluster from any other in a cloud, also from one that has its name.

use std::time::Duration;

use berth_telemetry::brief;
use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, Client, ResourceExt};

use crate::backoff;

/// The namespace whose UID it is: every cluster has it, and it is never made anew.
const KUBE_SYSTEM: &str = "kube-system";
/// Longest that the API server is waited for at once.
const REQUEST: Duration = Duration::from_secs(10);

/// Waits for the API server to say it.
pub(crate) async fn cluster_uid(client: &Client) -> String {
    let api: Api<Namespace> = Api::all(client.clone());
    let mut failures = 0_u32;
    loop {
        let why = match tokio::time::timeout(REQUEST, api.get(KUBE_SYSTEM)).await {
            Ok(Ok(namespace)) => match namespace.uid() {
                Some(uid) => return uid,
                None => "it has no UID".to_owned(),
            },
            Ok(Err(error)) => brief(&error),
            Err(_) => "no answer".to_owned(),
        };
        failures = failures.saturating_add(1);
        tracing::warn!(
            error = why,
            "the namespace {KUBE_SYSTEM} cannot be read, whose UID tells this cluster from others"
        );
        tokio::time::sleep(backoff::wait(failures, 0)).await;
    }
}
