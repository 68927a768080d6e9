//! `kubectl berth version`.

use berth_api::SpeakerNode;
use k8s_openapi::api::apps::v1::Deployment;
use serde::Serialize;

use crate::observed::Seen;
use crate::render::tag;
use crate::report::Unreadable;
use crate::summary::image;

/// Of this plugin.
pub const CLIENT: &str = concat!("v", env!("CARGO_PKG_VERSION"));

/// Versions of this plugin and of what runs in the cluster.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Versions {
    /// Of this plugin.
    pub client_version: String,
    /// What runs in the cluster, where it was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<ServerVersions>,
}

/// Versions of what runs in the cluster.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServerVersions {
    /// The controller's image tag.
    pub controller_version: Option<String>,
    /// The controller's image.
    pub controller_image: Option<String>,
    /// The versions that speakers reported.
    pub speaker_versions: Vec<SpeakerVersion>,
    /// Of Kubernetes.
    pub kubernetes_version: Option<String>,
    /// What could not be looked at.
    pub unreadable: Vec<Unreadable>,
}

/// A version of the speaker.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SpeakerVersion {
    /// The version.
    pub version: String,
    /// The nodes whose speaker has it.
    pub nodes: Vec<String>,
}

/// The versions that were read.
pub fn server(
    controller: &Seen<Option<Deployment>>,
    speakers: &Seen<Vec<SpeakerNode>>,
    kubernetes: &Seen<String>,
) -> ServerVersions {
    let image = controller.here().and_then(Option::as_ref).and_then(image);
    let mut nodes: Vec<_> = speakers
        .here()
        .into_iter()
        .flatten()
        .map(|speaker| (format!("v{}", speaker.spec.version), speaker.metadata.name.clone().unwrap_or_default()))
        .collect();
    nodes.sort();
    let mut versions: Vec<SpeakerVersion> = Vec::new();
    for (version, node) in nodes {
        match versions.last_mut().filter(|last| last.version == version) {
            Some(last) => last.nodes.push(node),
            None => versions.push(SpeakerVersion { version, nodes: vec![node] }),
        }
    }
    ServerVersions {
        controller_version: image.as_deref().map(tag),
        controller_image: image,
        speaker_versions: versions,
        kubernetes_version: kubernetes.here().cloned(),
        unreadable: [controller.unreadable(), speakers.unreadable(), kubernetes.unreadable()]
            .into_iter()
            .flatten()
            .cloned()
            .collect(),
    }
}

/// As lines of text.
pub fn text(versions: &Versions) -> String {
    let mut lines = vec![format!("Client Version: {}", versions.client_version)];
    if let Some(server) = &versions.server {
        let controller = server.controller_version.as_deref().unwrap_or("<none>");
        lines.push(format!("Controller Version: {controller}"));
        let speakers: Vec<_> = server
            .speaker_versions
            .iter()
            .map(|speaker| match speaker.nodes.len() {
                1 => format!("{} (1 node)", speaker.version),
                count => format!("{} ({count} nodes)", speaker.version),
            })
            .collect();
        let speakers = if speakers.is_empty() { "<none>".to_owned() } else { speakers.join(", ") };
        lines.push(format!("Speaker Version: {speakers}"));
        let kubernetes = server.kubernetes_version.as_deref().unwrap_or("<none>");
        lines.push(format!("Kubernetes Version: {kubernetes}"));
    }
    lines.join("\n") + "\n"
}

/// What to be told where versions differ.
pub fn skew(versions: &Versions) -> Option<String> {
    let server = versions.server.as_ref()?;
    let speakers = server.speaker_versions.iter().map(|speaker| speaker.version.as_str());
    let all: std::collections::BTreeSet<&str> = speakers.chain(server.controller_version.as_deref()).collect();
    let other: Vec<_> = all.into_iter().filter(|version| *version != versions.client_version).collect();
    let client = &versions.client_version;
    (!other.is_empty())
        .then(|| format!("warning: this plugin is {client}, and in the cluster runs {}", other.join(", ")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn speaker(name: &str, version: &str) -> SpeakerNode {
        serde_json::from_value(json!({
            "apiVersion": "berth.dev/v1alpha1", "kind": "SpeakerNode",
            "metadata": {"name": name}, "spec": {"version": version, "interfaces": []},
        }))
        .unwrap()
    }

    fn deployment(image: &str) -> Deployment {
        serde_json::from_value(json!({
            "spec": {
                "selector": {},
                "template": {"spec": {"containers": [{"name": "controller", "image": image}]}},
            },
        }))
        .unwrap()
    }

    fn versions() -> Versions {
        let speakers = vec![speaker("node-3", "0.1.0"), speaker("node-2", "0.2.0"), speaker("node-1", "0.1.0")];
        let controller = Seen::Here(Some(deployment("registry.example:5000/berth-controller:v0.2.0")));
        let server = server(&controller, &Seen::Here(speakers), &Seen::Here("v1.36.3".to_owned()));
        Versions { client_version: "v0.1.0".to_owned(), server: Some(server) }
    }

    #[test]
    fn versions_are_told_in_lines() {
        assert_eq!(
            text(&versions()),
            "Client Version: v0.1.0\nController Version: v0.2.0\nSpeaker Version: v0.1.0 (2 nodes), v0.2.0 (1 node)\n\
             Kubernetes Version: v1.36.3\n"
        );
        let client = Versions { server: None, ..versions() };
        assert_eq!(text(&client), "Client Version: v0.1.0\n");
    }

    #[test]
    fn versions_have_stable_names_in_json() {
        assert_eq!(
            serde_json::to_value(versions()).unwrap(),
            json!({
                "clientVersion": "v0.1.0",
                "server": {
                    "controllerVersion": "v0.2.0",
                    "controllerImage": "registry.example:5000/berth-controller:v0.2.0",
                    "speakerVersions": [
                        {"version": "v0.1.0", "nodes": ["node-1", "node-3"]},
                        {"version": "v0.2.0", "nodes": ["node-2"]},
                    ],
                    "kubernetesVersion": "v1.36.3",
                    "unreadable": [],
                },
            })
        );
    }

    #[test]
    fn versions_that_differ_are_told() {
        let mut versions = versions();
        let told = "warning: this plugin is v0.1.0, and in the cluster runs v0.2.0";
        assert_eq!(skew(&versions).as_deref(), Some(told));
        versions.server = Some(server(
            &Seen::Here(Some(deployment("berth-controller:v0.1.0"))),
            &Seen::Here(vec![speaker("node-1", "0.1.0")]),
            &Seen::Here("v1.36.3".to_owned()),
        ));
        assert_eq!(skew(&versions), None);
    }
}
