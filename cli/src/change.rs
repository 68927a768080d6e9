//! What the plugin writes, which is what a person decided and nothing else: an annotation of a Node, one of an Announcement, and one
//! of a list of orphans.

use std::time::Duration;

use berth_api::Announcement;
use berth_api::annotations::{DRAIN, MOVE_TO};
use berth_api::names::{CONTROLLER_NAMESPACE, part_label};
use berth_api::orphans::{REMOVE, config_map_name};
use berth_pool::forecast::simulate::UnknownNode;
use k8s_openapi::api::core::v1::{ConfigMap, Node};
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Resource, ResourceExt};
use serde_json::{Value, json};

use crate::collect::{CollectError, Reader};
use crate::connect::Connection;
use crate::orphans::Request;
use crate::report::Unreadable;

/// What writes are said to be by.
const FIELD_MANAGER: &str = "kubectl-berth";
/// How often an annotation is tried to be taken back from an Announcement that others write at the same time.
const TAKE_BACK_TRIES: usize = 5;
/// Between two looks at something that takes a speaker about as long.
pub const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Why something was not written.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    #[error(transparent)]
    Collect(#[from] CollectError),
    #[error(transparent)]
    UnknownNode(#[from] UnknownNode),
    /// The API server refused it.
    #[error("{}: {}", .0.resource, .0.message)]
    Refused(Unreadable),
    /// Others write it all the time.
    #[error(
        "annotation {MOVE_TO} of Announcement {0} could not be removed, because others changed it at the same time; remove it: kubectl annotate announcement {0} {MOVE_TO}-"
    )]
    Contended(String),
}

impl ChangeError {
    /// What to do.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Collect(error) => Some(error.hint()),
            Self::Refused(_) => Some("docs/placement.md and docs/cli.md list the rights that it takes"),
            Self::UnknownNode(_) | Self::Contended(_) => None,
        }
    }
}

/// Writes to one cluster.
pub struct Writer<'a> {
    reader: Reader<'a>,
    nodes: Api<Node>,
    announcements: Api<Announcement>,
    lists: Api<ConfigMap>,
}

impl<'a> Writer<'a> {
    /// A writer.
    pub fn new(connection: &'a Connection) -> Self {
        let client = || connection.client.clone();
        Self {
            reader: Reader::new(connection),
            nodes: Api::all(client()),
            announcements: Api::all(client()),
            lists: Api::namespaced(client(), CONTROLLER_NAMESPACE),
        }
    }

    /// Asks a node to give up what it owns, or takes that back.
    pub async fn drain(&self, node: &str, drain: bool) -> Result<(), ChangeError> {
        let patch = Patch::Merge(annotation(DRAIN, drain.then_some("true"), None));
        match self.reader.within(self.nodes.patch(node, &params(), &patch)).await? {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.is_not_found() => {
                let known = self.reader.within(self.nodes.list_metadata(&ListParams::default())).await?;
                let known =
                    known.map(|list| list.items.iter().map(ResourceExt::name_any).collect()).unwrap_or_default();
                Err(UnknownNode { node: node.to_owned(), known }.into())
            }
            Err(error) => Err(self.refused(&format!("Node {node} cannot be annotated"), error)?),
        }
    }

    /// The addresses that a node answers for, or is to, each with the Services that hold it.
    pub async fn owned(&self, node: &str) -> Result<Vec<Announcement>, ChangeError> {
        // Who answers keeps a part until its successor does.
        let having_a_part = ListParams::default().labels(&part_label(node));
        let list = match self.reader.within(self.announcements.list(&having_a_part)).await? {
            Ok(list) => list.items,
            Err(error) => return Err(self.refused("announcements.berth.dev cannot be read", error)?),
        };
        Ok(list.into_iter().filter(|announcement| is_owned(announcement, node)).collect())
    }

    /// Wishes an address to be on a node.
    pub async fn wish(&self, announcement: &str, node: &str) -> Result<(), ChangeError> {
        let patch = Patch::Merge(annotation(MOVE_TO, Some(node), None));
        match self.reader.within(self.announcements.patch(announcement, &params(), &patch)).await? {
            Ok(_) => Ok(()),
            Err(error) => Err(self.refused(&format!("Announcement {announcement} cannot be annotated"), error)?),
        }
    }

    /// Takes that back, unless somebody wishes it elsewhere meanwhile.
    pub async fn take_back(&self, announcement: &str, node: &str) -> Result<(), ChangeError> {
        for _ in 0..TAKE_BACK_TRIES {
            let Some(seen) = self.announcement(announcement).await? else { return Ok(()) };
            if seen.annotations().get(MOVE_TO).map(String::as_str) != Some(node) {
                return Ok(());
            }
            let patch = Patch::Merge(annotation(MOVE_TO, None, seen.meta().resource_version.as_deref()));
            match self.reader.within(self.announcements.patch(announcement, &params(), &patch)).await? {
                Ok(_) => return Ok(()),
                Err(kube::Error::Api(status)) if status.is_not_found() => return Ok(()),
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                Err(error) => {
                    return Err(self.refused(&format!("Announcement {announcement} cannot be annotated"), error)?);
                }
            }
        }
        Err(ChangeError::Contended(announcement.to_owned()))
    }

    /// An Announcement, if it is there.
    pub async fn announcement(&self, name: &str) -> Result<Option<Announcement>, ChangeError> {
        match self.reader.within(self.announcements.get_opt(name)).await? {
            Ok(found) => Ok(found),
            Err(error) => Err(self.refused(&format!("Announcement {name} cannot be read"), error)?),
        }
    }

    /// Says whose orphans are to be removed.
    pub async fn name_orphans(&self, request: &Request) -> Result<(), ChangeError> {
        let Request { provider, version, uids } = request;
        let name = config_map_name(provider);
        let uids: Vec<_> = uids.iter().map(String::as_str).collect();
        let patch = Patch::Merge(annotation(REMOVE, Some(&uids.join(",")), version.as_deref()));
        match self.reader.within(self.lists.patch(&name, &params(), &patch)).await? {
            Ok(_) => Ok(()),
            Err(error) => Err(self.refused(&format!("ConfigMap {name} cannot be annotated"), error)?),
        }
    }

    fn refused(&self, what: &str, error: kube::Error) -> Result<ChangeError, ChangeError> {
        Ok(ChangeError::Refused(self.reader.unreadable(what, error)?))
    }
}

fn params() -> PatchParams {
    PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() }
}

/// Sets an annotation or removes it; under a version where one is given.
fn annotation(key: &str, value: Option<&str>, version: Option<&str>) -> Value {
    let mut metadata = json!({"annotations": {key: value}});
    if let Some(version) = version {
        metadata["resourceVersion"] = json!(version);
    }
    json!({"metadata": metadata})
}

/// Whether a node answers for an address, or is to.
fn is_owned(announcement: &Announcement, node: &str) -> bool {
    let named = announcement.spec.layer2.as_ref().and_then(|layer2| layer2.owner.as_deref());
    let answers = answering(announcement);
    named == Some(node) || answers == Some(node)
}

/// The node that says that it answers.
pub fn answering(announcement: &Announcement) -> Option<&str> {
    announcement.status.as_ref()?.layer2.as_ref().map(|layer2| layer2.owner.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_owns_what_it_answers_for_and_what_it_is_named_for() {
        for (named, answers, owned) in [
            (Some("a"), Some("a"), true),
            (Some("a"), None, true),
            (Some("b"), Some("a"), true),
            (Some("b"), Some("b"), false),
            (None, None, false),
        ] {
            let layer2 = json!({"owner": named, "standbys": ["a"], "epoch": 1, "members": []});
            let status = answers.map(|owner| {
                json!({"layer2": {"owner": owner, "epoch": 1, "since": "2026-01-01T00:00:00.000000Z",
                                  "mac": "02:00:00:00:00:01", "interface": "eth0"}, "conditions": []})
            });
            let spec = json!({"address": "192.0.2.1", "pool": "a", "services": [], "layer2": layer2});
            let announcement = json!({"apiVersion": "berth.dev/v1alpha1", "kind": "Announcement",
                                      "metadata": {"name": "192.0.2.1"}, "spec": spec, "status": status});
            let announcement = serde_json::from_value(announcement).unwrap();
            assert_eq!(is_owned(&announcement, "a"), owned, "{named:?} {answers:?}");
        }
    }

    #[test]
    fn an_annotation_is_removed_only_from_what_was_seen() {
        assert_eq!(
            annotation(MOVE_TO, None, Some("7")),
            json!({"metadata": {"annotations": {"berth.dev/move-to": null}, "resourceVersion": "7"}})
        );
        assert_eq!(
            annotation(DRAIN, Some("true"), None),
            json!({"metadata": {"annotations": {"berth.dev/drain": "true"}}})
        );
    }
}
