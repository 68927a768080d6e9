//! Fields of a pod as its own containers see them (the downward API).

use std::fmt::Write as _;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;

/// Addresses of a pod and of its node, the cluster's first family first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Addresses {
    pub pod: Vec<IpAddr>,
    pub host: Vec<IpAddr>,
}

/// The value of a field. One that the lab's kubelet does not know is the error.
pub(crate) fn field(pod: &Pod, addresses: &Addresses, path: &str) -> Result<String, String> {
    let spec = pod.spec.as_ref();
    let of_spec = |value: Option<&String>| Ok(value.cloned().unwrap_or_default());
    match path {
        "metadata.name" => Ok(pod.name_any()),
        "metadata.namespace" => Ok(pod.namespace().unwrap_or_default()),
        "metadata.uid" => Ok(pod.uid().unwrap_or_default()),
        "metadata.labels" => Ok(lines(pod.labels())),
        "metadata.annotations" => Ok(lines(pod.annotations())),
        "spec.nodeName" => of_spec(spec.and_then(|spec| spec.node_name.as_ref())),
        "spec.serviceAccountName" => of_spec(spec.and_then(|spec| spec.service_account_name.as_ref())),
        "status.podIP" => Ok(first(&addresses.pod)),
        "status.podIPs" => Ok(all(&addresses.pod)),
        "status.hostIP" => Ok(first(&addresses.host)),
        "status.hostIPs" => Ok(all(&addresses.host)),
        _ => {
            let key = |prefix| path.strip_prefix(prefix).and_then(|rest| rest.strip_suffix("']"));
            if let Some(key) = key("metadata.labels['") {
                return of_spec(pod.labels().get(key));
            }
            if let Some(key) = key("metadata.annotations['") {
                return of_spec(pod.annotations().get(key));
            }
            Err(format!("the field `{path}` is not known to the lab's kubelet"))
        }
    }
}

/// `key="value"` lines, as in a downward API volume.
fn lines(map: &std::collections::BTreeMap<String, String>) -> String {
    let mut text = String::new();
    for (key, value) in map {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{key}={value:?}");
    }
    text
}

fn first(addresses: &[IpAddr]) -> String {
    addresses.first().map(ToString::to_string).unwrap_or_default()
}

fn all(addresses: &[IpAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_container_sees_its_pods_fields() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": { "name": "p", "namespace": "n", "uid": "u", "labels": { "app": "web", "b": "2" }, "annotations": { "a/b": "c" } },
            "spec": { "nodeName": "node-1", "serviceAccountName": "s", "containers": [] },
        }))
        .unwrap();
        let addresses = Addresses {
            pod: vec!["10.244.1.2".parse().unwrap(), "fd00::2".parse().unwrap()],
            host: vec!["192.0.2.11".parse().unwrap()],
        };
        for (path, value) in [
            ("metadata.name", Some("p")),
            ("metadata.namespace", Some("n")),
            ("metadata.uid", Some("u")),
            ("metadata.labels", Some("app=\"web\"\nb=\"2\"\n")),
            ("metadata.labels['app']", Some("web")),
            ("metadata.labels['none']", Some("")),
            ("metadata.annotations['a/b']", Some("c")),
            ("spec.nodeName", Some("node-1")),
            ("spec.serviceAccountName", Some("s")),
            ("status.podIP", Some("10.244.1.2")),
            ("status.podIPs", Some("10.244.1.2,fd00::2")),
            ("status.hostIP", Some("192.0.2.11")),
            ("spec.priority", None),
        ] {
            assert_eq!(field(&pod, &addresses, path).ok().as_deref(), value, "{path}");
        }
    }
}
