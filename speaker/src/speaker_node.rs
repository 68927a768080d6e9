//! Writes the SpeakerNode: what only this node knows, when it changed.
//!
//! Follows its own object, so that one that somebody deletes or edits is written again.

use berth_api::SpeakerNode;
use berth_api::crd::{Interface, SpeakerNodeSpec};
use berth_api::names::SPEAKER_FIELD_MANAGER;
use futures::StreamExt;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{Patch, PatchParams};
use kube::core::DeserializeGuard;
use kube::runtime::watcher;
use kube::{Api, Client, Resource};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::links::Links;
use crate::metrics::{Metrics, Watch};
use crate::retry::{RequestError, Retry, WATCH_TIMEOUT_SECONDS, next_event, within_limit};

/// Keeps the SpeakerNode up to date until `shutdown`, at whatever cost in time: nothing waits for it.
pub async fn run(
    client: Client,
    node: String,
    links: watch::Receiver<Links>,
    metrics: Metrics,
    shutdown: CancellationToken,
) {
    shutdown.run_until_cancelled(follow(client, node, links, metrics)).await;
}

async fn follow(client: Client, node: String, mut links: watch::Receiver<Links>, metrics: Metrics) {
    let config = watcher::Config::default().fields(&format!("metadata.name={node}")).timeout(WATCH_TIMEOUT_SECONDS);
    let own = Api::<DeserializeGuard<SpeakerNode>>::all(client.clone());
    let mut events = watcher(own, config).boxed();
    // Nothing is written before it is known what is there.
    let mut synced = false;
    let mut seen: Option<SpeakerNodeSpec> = None;
    let mut watch_retry = Retry::new("watch the SpeakerNode of this node");
    let mut write_retry = Retry::new("write the SpeakerNode of this node");
    let (mut watch_not_before, mut not_before) = (Instant::now(), Instant::now());

    loop {
        let wanted = spec(&links.borrow_and_update());
        let due = synced && seen.as_ref() != Some(&wanted);
        tokio::select! {
            () = sleep_until(not_before), if due => match write(&client, &node, wanted.clone()).await {
                Ok(()) => {
                    tracing::info!(node, interfaces = wanted.interfaces.len(), "SpeakerNode written");
                    write_retry.succeeded();
                    seen = Some(wanted);
                }
                Err(error) => not_before = Instant::now() + write_retry.failed(&error),
            },
            event = next_event(&mut events, watch_not_before) => match event {
                Some(Ok(event)) => {
                    // A list that is about to be asked for has not succeeded yet.
                    if !matches!(event, watcher::Event::Init) {
                        watch_retry.succeeded();
                    }
                    match event {
                        watcher::Event::Apply(object) | watcher::Event::InitApply(object) => {
                            seen = object.0.ok().map(|object| object.spec);
                        }
                        watcher::Event::Delete(_) => seen = None,
                        // Half of a list says nothing about what is missing.
                        watcher::Event::Init => (seen, synced) = (None, false),
                        watcher::Event::InitDone => synced = true,
                    }
                }
                Some(Err(error)) => {
                    metrics.watch_error(Watch::SpeakerNode);
                    watch_not_before = Instant::now() + watch_retry.failed(&error);
                }
                // A watch never ends.
                None => return,
            },
            changed = links.changed() => if changed.is_err() {
                return;
            },
        }
    }
}

/// What this node knows, in a fixed order, so that equal means unchanged.
fn spec(links: &Links) -> SpeakerNodeSpec {
    SpeakerNodeSpec {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        interfaces: links
            .iter()
            .map(|(name, link)| Interface { name: name.clone(), mac: link.mac, addresses: link.addresses.clone() })
            .collect(),
    }
}

async fn write(client: &Client, node: &str, spec: SpeakerNodeSpec) -> Result<(), RequestError> {
    // The owner's UID is read anew each time: a node that was deleted and registered again has another.
    let owner = within_limit(Api::<Node>::all(client.clone()).get_metadata(node)).await?;
    let mut object = SpeakerNode::new(node, spec);
    object.metadata.owner_references = owner.metadata.uid.map(|uid| {
        vec![OwnerReference {
            api_version: Node::api_version(&()).into_owned(),
            kind: Node::kind(&()).into_owned(),
            name: node.to_owned(),
            uid,
            ..OwnerReference::default()
        }]
    });
    let params = PatchParams::apply(SPEAKER_FIELD_MANAGER).force();
    within_limit(Api::<SpeakerNode>::all(client.clone()).patch(node, &params, &Patch::Apply(&object))).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::links::Link;
    use berth_api::MacAddr;
    use std::collections::BTreeMap;

    #[test]
    fn the_object_lists_the_interfaces_that_can_announce() {
        let link = Link {
            index: 2,
            mac: MacAddr([2, 0, 0, 0, 0, 1]),
            addresses: vec!["192.0.2.11/24".parse().unwrap(), "2001:db8::1/64".parse().unwrap()],
        };
        let spec = spec(&BTreeMap::from([("eth0".to_owned(), link)]));
        let text = serde_json::to_value(&spec).unwrap();
        assert_eq!(
            text["interfaces"],
            serde_json::json!([{
                "name": "eth0",
                "mac": "02:00:00:00:00:01",
                "addresses": ["192.0.2.11/24", "2001:db8::1/64"],
            }])
        );
    }
}
