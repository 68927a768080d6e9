//! The environment of a container, and the `$(NAME)` references of its command line.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, EnvVar, Pod, Secret};
use kube::{Api, Client};

use super::downward::{Addresses, field};
use super::template::{ContainerTemplate, PodTemplate};
use crate::controlplane::credentials::API_CLUSTER_IP;
use crate::tool;

/// The port of the Service `kubernetes`.
const API_SERVICE_PORT: u16 = 443;

/// The environment of a container.
pub(crate) async fn build(
    client: &Client,
    pod: &Pod,
    template: &PodTemplate,
    container: &ContainerTemplate,
    addresses: &Addresses,
) -> Result<BTreeMap<String, String>, String> {
    let hostname = if template.host_network { field(pod, addresses, "spec.nodeName")? } else { template.name.clone() };
    // What an image, a runtime and a kubelet give to every container. Of the Services' variables only those of the API server are
    // given: they are what a client looks for.
    let mut built = BTreeMap::from([
        ("PATH".to_owned(), tool::PATH.to_owned()),
        ("HOSTNAME".to_owned(), hostname),
        ("KUBERNETES_SERVICE_HOST".to_owned(), API_CLUSTER_IP.to_owned()),
        ("KUBERNETES_SERVICE_PORT".to_owned(), API_SERVICE_PORT.to_string()),
        ("KUBERNETES_SERVICE_PORT_HTTPS".to_owned(), API_SERVICE_PORT.to_string()),
    ]);
    for variable in &container.env {
        if let Some(value) = value(client, pod, template, variable, addresses, &built).await? {
            built.insert(variable.name.clone(), value);
        }
    }
    Ok(built)
}

async fn value(
    client: &Client,
    pod: &Pod,
    template: &PodTemplate,
    variable: &EnvVar,
    addresses: &Addresses,
    before: &BTreeMap<String, String>,
) -> Result<Option<String>, String> {
    let Some(from) = &variable.value_from else {
        return Ok(Some(expand(variable.value.as_deref().unwrap_or_default(), before)));
    };
    let name = &variable.name;
    if let Some(from) = &from.field_ref {
        return field(pod, addresses, &from.field_path).map(Some).map_err(|error| format!("env {name}: {error}"));
    }
    let namespace = &template.namespace;
    if let Some(from) = &from.secret_key_ref {
        let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
        let secret = secrets.get_opt(&from.name).await.map_err(|error| format!("env {name}: {error}"))?;
        let found = secret.and_then(|secret| secret.data?.remove(&from.key));
        let text = found.map(|bytes| String::from_utf8_lossy(&bytes.0).into_owned());
        let what = || format!("env {name}: there is no key `{}` in a Secret `{}`", from.key, from.name);
        return present(text, from.optional, what);
    }
    if let Some(from) = &from.config_map_key_ref {
        let config_maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
        let config_map = config_maps.get_opt(&from.name).await.map_err(|error| format!("env {name}: {error}"))?;
        let text = config_map.and_then(|config_map| config_map.data?.remove(&from.key));
        let what = || format!("env {name}: there is no key `{}` in a ConfigMap `{}`", from.key, from.name);
        return present(text, from.optional, what);
    }
    Err(format!("env {name}: this source is not known to the lab's kubelet"))
}

fn present(
    text: Option<String>,
    optional: Option<bool>,
    what: impl FnOnce() -> String,
) -> Result<Option<String>, String> {
    if text.is_none() && optional != Some(true) { Err(what()) } else { Ok(text) }
}

/// Replaces `$(NAME)` by the variable's value, and `$$` by `$`; a name that is not known stays as it is (Container v1 core, `args`).
pub(crate) fn expand(text: &str, variables: &BTreeMap<String, String>) -> String {
    let mut expanded = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        expanded.push_str(before);
        if let Some(after) = after.strip_prefix('$') {
            expanded.push('$');
            rest = after;
        } else if let Some((name, after)) = after.strip_prefix('(').and_then(|after| after.split_once(')')) {
            match variables.get(name) {
                Some(value) => expanded.push_str(value),
                None => expanded.extend(["$(", name, ")"]),
            }
            rest = after;
        } else {
            expanded.push('$');
            rest = after;
        }
    }
    expanded + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_expanded_as_in_kubernetes() {
        let variables = BTreeMap::from([("A".to_owned(), "1".to_owned()), ("B".to_owned(), "$(A)".to_owned())]);
        for (text, expanded) in [
            ("--node=$(A)", "--node=1"),
            ("$(A)$(A)", "11"),
            ("$(B)", "$(A)"),
            ("$$(A)", "$(A)"),
            ("$(NONE) $(A)", "$(NONE) 1"),
            ("$A $", "$A $"),
            ("$(A", "$(A"),
        ] {
            assert_eq!(expand(text, &variables), expanded, "{text}");
        }
    }
}
