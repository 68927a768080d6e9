//! `deploy/*.yaml` and `deploy/admission/*.yaml`: what runs, what it may reach, what it may write; and `install.yaml` and
//! `kustomization.yaml`, which hold it all together.

use std::fmt::Write as _;
use std::net::SocketAddr;

use anyhow::{Context as _, ensure};
use berth_api::names;
use clap::Command;

use super::template::{Values, fill};
use super::{Generated, yaml};

/// How far ahead of what was last written an epoch may be claimed: as many takeovers as an outage of the API server can hold.
/// Twelve days of one each second; yet it takes 2^33 writes to use up the 2^53 numbers there are.
const EPOCH_SLACK: u64 = 1 << 20;
const SECONDS_A_DAY: u64 = 24 * 3600;

const POLICIES: [(&str, &str); 5] = [
    ("deploy/admission/announcement-epochs.yaml", include_str!("templates/admission/announcement-epochs.yaml")),
    ("deploy/admission/announcement-status.yaml", include_str!("templates/admission/announcement-status.yaml")),
    ("deploy/admission/controller-secrets.yaml", include_str!("templates/admission/controller-secrets.yaml")),
    ("deploy/admission/speaker-nodes.yaml", include_str!("templates/admission/speaker-nodes.yaml")),
    ("deploy/admission/speaker-pods.yaml", include_str!("templates/admission/speaker-pods.yaml")),
];

const WORKLOADS: [(&str, &str); 3] = [
    ("deploy/network-policies.yaml", include_str!("templates/network-policies.yaml")),
    ("deploy/controller.yaml", include_str!("templates/controller.yaml")),
    ("deploy/speaker.yaml", include_str!("templates/speaker.yaml")),
];

/// What is laid over the rest by those who want it.
const COMPONENTS: [(&str, &str); 4] = [
    (AWS, include_str!("templates/aws.yaml")),
    (AWS_GATES, include_str!("templates/aws-readiness-gates.yaml")),
    (AZURE, include_str!("templates/azure.yaml")),
    (ROUTES, include_str!("templates/routes.yaml")),
];
const AWS: &str = "deploy/aws/kustomization.yaml";
const AZURE: &str = "deploy/azure/kustomization.yaml";
const AWS_GATES: &str = "deploy/aws-readiness-gates/kustomization.yaml";
const ROUTES: &str = "deploy/routes/kustomization.yaml";

/// Where a pod of the controller finds the configuration for Azure: its own folder, so that a Secret can be mounted there whole.
const AZURE_CONFIG_DIR: &str = "/etc/berth-azure";
/// The file in it, which is the key of the Secret.
const AZURE_CONFIG: &str = "azure.json";

const KUSTOMIZATION: &str = "deploy/kustomization.yaml";
const INSTALL: &str = "deploy/install.yaml";

/// Everything of `deploy/` but CRDs and rights.
pub fn files() -> anyhow::Result<Vec<Generated>> {
    filled(POLICIES.iter().chain(&WORKLOADS))
}

/// What is no part of an installation unless somebody adds it.
pub fn components() -> anyhow::Result<Vec<Generated>> {
    filled(COMPONENTS.iter())
}

fn filled<'a>(templates: impl Iterator<Item = &'a (&'a str, &'a str)>) -> anyhow::Result<Vec<Generated>> {
    let values = values()?;
    templates
        .map(|(path, template)| {
            let content = fill(template, &values).with_context(|| format!("filling in `{path}`"))?;
            Ok(Generated::new(*path, yaml::file(&[content])))
        })
        .collect()
}

/// The two files that take up `manifests`, which are in the order in which they are to be applied.
pub fn collections(manifests: &[Generated]) -> anyhow::Result<Vec<Generated>> {
    let values = values()?;
    let resources = manifests.iter().try_fold(String::new(), |mut list, file| {
        let path = file.path.strip_prefix("deploy").context("a manifest outside of deploy/")?;
        writeln!(list, "- {}", path.display())?;
        anyhow::Ok(list)
    })?;
    let kustomization = fill(include_str!("templates/kustomization.yaml"), &values)? + &resources;
    let documents: Vec<_> = manifests.iter().map(|file| yaml::body(&file.content).to_owned()).collect();
    Ok(vec![
        Generated::new(KUSTOMIZATION, yaml::file(&[kustomization])),
        Generated::new(INSTALL, yaml::file(&documents)),
    ])
}

/// What templates may name.
fn values() -> anyhow::Result<Values> {
    let port = http_port(&berth_controller::command())?;
    ensure!(port == http_port(&berth_speaker::command())?, "controller and speaker serve HTTP on different ports");
    let account = |namespace, name| format!("system:serviceaccount:{namespace}:{name}");
    let text = str::to_owned;
    Ok(Values::from([
        ("group", text(names::GROUP)),
        ("api-version", text(names::VERSION)),
        ("pool-class", text(names::POOL_CLASS)),
        ("azure-config-dir", text(AZURE_CONFIG_DIR)),
        ("azure-config", format!("{AZURE_CONFIG_DIR}/{AZURE_CONFIG}")),
        ("azure-secret", text(names::AZURE_SECRET)),
        ("controller", text(names::CONTROLLER_NAME)),
        ("controller-namespace", text(names::CONTROLLER_NAMESPACE)),
        ("controller-user", account(names::CONTROLLER_NAMESPACE, names::CONTROLLER_NAME)),
        ("speaker", text(names::SPEAKER_NAME)),
        ("speaker-namespace", text(names::SPEAKER_NAMESPACE)),
        ("speaker-user", account(names::SPEAKER_NAMESPACE, names::SPEAKER_NAME)),
        ("http-port", port.to_string()),
        ("heartbeat-port", berth_speaker::args::DEFAULT_HEARTBEAT_PORT.to_string()),
        ("heartbeat-key-dir", text(berth_speaker::args::DEFAULT_HEARTBEAT_KEY_DIR)),
        ("heartbeat-secret", text(berth_api::heartbeat_keys::SECRET)),
        ("version", text(env!("CARGO_PKG_VERSION"))),
        ("epoch-slack", EPOCH_SLACK.to_string()),
        ("epoch-slack-days", (EPOCH_SLACK / SECONDS_A_DAY).to_string()),
    ]))
}

/// The port of health and metrics: the process's own default.
fn http_port(command: &Command) -> anyhow::Result<u16> {
    let argument = command.get_arguments().find(|argument| argument.get_id() == "http_address");
    let default = argument.and_then(|argument| argument.get_default_values().first()?.to_str());
    let address: SocketAddr = default.context("no default for --http-address")?.parse()?;
    Ok(address.port())
}

#[cfg(test)]
mod tests;
