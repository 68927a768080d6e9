//! What may take traffic from outside the cluster, as the watches show it: nodes and endpoints, parsed and trimmed.

use std::collections::BTreeMap;
use std::sync::Arc;

use berth_api::names::EXCLUDE_NODE_LABEL;
use berth_api::service::ServiceKey;
use berth_provider::{Endpoint, Protocol, TargetNode};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::discovery::v1::EndpointSlice;

use crate::gates::PodFeed;
use crate::latest::Latest;

/// Label of an EndpointSlice that names its Service (Kubernetes convention).
const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";
/// Label of nodes that run the control plane (kubeadm's). Cloud controllers send them no traffic.
const CONTROL_PLANE_LABEL: &str = "node-role.kubernetes.io/control-plane";
/// Taints of nodes that are about to go away: the cluster autoscaler's and Karpenter's.
const GOING_AWAY_TAINTS: [&str; 2] = ["ToBeDeletedByClusterAutoscaler", "karpenter.sh/disrupted"];

/// An EndpointSlice's namespace and name.
pub(crate) type SliceId = (String, String);

/// Where the watches put what a provider that is sent targets has to know. Cheap to clone; all clones are the same one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Feed {
    pub(crate) nodes: Latest<String, Option<Arc<NodeState>>>,
    pub(crate) slices: Latest<SliceId, Option<SliceState>>,
    /// Where readiness gates of pods are heeded.
    pub(crate) gates: Option<PodFeed>,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NodeState {
    pub(crate) target: TargetNode,
    /// Its condition Ready is True.
    pub(crate) is_ready: bool,
    /// It is to take no traffic from outside, whatever its state.
    pub(crate) is_excluded: bool,
}

impl NodeState {
    pub(crate) fn of(node: &Node) -> Self {
        let spec = node.spec.as_ref();
        let labels = node.metadata.labels.clone().unwrap_or_default();
        let mut conditions = node.status.iter().filter_map(|status| status.conditions.as_ref()).flatten();
        let is_ready = conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True");
        let mut taints = spec.and_then(|spec| spec.taints.as_ref()).into_iter().flatten();
        let is_excluded = labels.contains_key(EXCLUDE_NODE_LABEL)
            || labels.contains_key(CONTROL_PLANE_LABEL)
            || taints.any(|taint| GOING_AWAY_TAINTS.contains(&taint.key.as_str()))
            || node.metadata.deletion_timestamp.is_some();
        let name = node.metadata.name.clone().unwrap_or_default();
        let provider_id = spec.and_then(|spec| spec.provider_id.clone()).unwrap_or_default();
        let addresses = node.status.iter().filter_map(|status| status.addresses.as_ref()).flatten();
        let addresses = addresses.filter(|address| address.type_ == "InternalIP");
        let addresses = addresses.filter_map(|address| address.address.parse().ok()).collect();
        Self { target: TargetNode { name, provider_id, labels, addresses }, is_ready, is_excluded }
    }
}

/// The nodes that take traffic: those that are ready. If none is, somebody's eyes are closed rather than all of them gone, and all of
/// them stay.
pub(crate) fn eligible<'a>(nodes: impl Iterator<Item = &'a NodeState> + Clone) -> Arc<[TargetNode]> {
    let may = nodes.filter(|node| !node.is_excluded);
    let any_ready = may.clone().any(|node| node.is_ready);
    may.filter(|node| node.is_ready || !any_ready).map(|node| node.target.clone()).collect()
}

/// An EndpointSlice: its endpoints, and whose they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SliceState {
    pub(crate) service: ServiceKey,
    pub(crate) endpoints: Vec<SliceEndpoint>,
}

/// An endpoint that is not about to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SliceEndpoint {
    pub(crate) endpoint: Endpoint,
    /// It takes new connections.
    pub(crate) is_ready: bool,
    /// The name of its pod, where readiness gates are heeded.
    pub(crate) pod: Option<Box<str>>,
}

impl SliceState {
    /// `None` for one that is of no Service, or of names in DNS. Endpoints that are not ready are kept only with their pods, whose
    /// readiness gates may be what they wait for.
    pub(crate) fn of(slice: &EndpointSlice, with_pods: bool) -> Option<Self> {
        let name = slice.metadata.labels.as_ref()?.get(SERVICE_NAME_LABEL)?.clone();
        let service = ServiceKey { namespace: slice.metadata.namespace.clone()?, name };
        let mut ports = BTreeMap::new();
        for port in slice.ports.iter().flatten() {
            let protocol = match port.protocol.as_deref().unwrap_or("TCP") {
                "TCP" => Protocol::Tcp,
                "UDP" => Protocol::Udp,
                _ => continue,
            };
            // One without a number stands for all ports, which is none that could be named.
            let Some(number) = port.port.and_then(|port| u16::try_from(port).ok()) else { continue };
            ports.insert((port.name.clone().unwrap_or_default(), protocol), number);
        }
        let ports = Arc::new(ports);
        let endpoints = slice.endpoints.iter().filter_map(|endpoint| {
            let conditions = endpoint.conditions.as_ref();
            // Ready unless said otherwise (EndpointSlice API). One that is about to end takes no new connections, also where it is
            // published all the same.
            let is_ready = conditions.and_then(|c| c.ready).unwrap_or(true);
            let ends = conditions.and_then(|c| c.terminating).unwrap_or(false);
            let pod = endpoint.target_ref.as_ref().filter(|of| with_pods && of.kind.as_deref() == Some("Pod"));
            let pod = pod.and_then(|of| of.name.clone()).map(String::into_boxed_str);
            if ends || !(is_ready || pod.is_some()) {
                return None;
            }
            // The addresses of an endpoint are the same to who sends there; the first is what kube-proxy goes by, too.
            let address = endpoint.addresses.first()?.parse().ok()?;
            Some(SliceEndpoint { endpoint: Endpoint { address, ports: ports.clone() }, is_ready, pod })
        });
        Some(Self { service, endpoints: endpoints.collect() })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn node(name: &str, labels: Value, taint: &str, ready: &str) -> NodeState {
        let node = json!({
            "metadata": {"name": name, "labels": labels},
            "spec": {"providerID": format!("aws:///a/i-{name}"), "taints": [{"key": taint, "effect": "NoSchedule"}]},
            "status": {"conditions": [{"type": "MemoryPressure", "status": "True"}, {"type": "Ready", "status": ready}]},
        });
        NodeState::of(&serde_json::from_value(node).unwrap())
    }

    fn names(nodes: &[NodeState]) -> Vec<String> {
        eligible(nodes.iter()).iter().map(|node| node.name.clone()).collect()
    }

    #[test]
    fn nodes_that_cloud_controllers_leave_out_are_left_out() {
        for (what, labels, taint, ready, takes) in [
            ("a plain one", json!({}), "x", "True", true),
            ("not ready", json!({}), "x", "False", false),
            ("unheard of", json!({}), "x", "Unknown", false),
            ("cordoned, which ends no connection", json!({}), "node.kubernetes.io/unschedulable", "True", true),
            ("excluded by label", json!({EXCLUDE_NODE_LABEL: ""}), "x", "True", false),
            ("control plane", json!({CONTROL_PLANE_LABEL: ""}), "x", "True", false),
            ("about to be removed by the autoscaler", json!({}), "ToBeDeletedByClusterAutoscaler", "True", false),
            ("about to be removed by Karpenter", json!({}), "karpenter.sh/disrupted", "True", false),
        ] {
            let nodes = [node("other", json!({}), "x", "True"), node("it", labels, taint, ready)];
            assert_eq!(names(&nodes).contains(&"it".to_owned()), takes, "{what}");
        }
    }

    #[test]
    fn nodes_that_are_not_ready_are_left_out_unless_all_are_so() {
        let excluded = node("c", json!({EXCLUDE_NODE_LABEL: ""}), "x", "True");
        let nodes = [node("a", json!({}), "x", "Unknown"), node("b", json!({}), "x", "False"), excluded];
        assert_eq!(names(&nodes), ["a", "b"]);
    }

    #[test]
    fn endpoints_take_traffic_when_ready_and_not_about_to_end_each_on_its_own_port() {
        let endpoint = |address: &str, conditions: Value| json!({"addresses": [address], "conditions": conditions});
        let slice = json!({
            "metadata": {"name": "web-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": 8080}, {"name": "dns", "protocol": "UDP", "port": 53}, {"name": "all"}],
            "endpoints": [
                endpoint("10.0.0.1", json!({})),
                endpoint("10.0.0.2", json!({"ready": true, "serving": true, "terminating": false})),
                endpoint("10.0.0.3", json!({"ready": false, "serving": true, "terminating": true})),
                endpoint("10.0.0.4", json!({"ready": true, "serving": true, "terminating": true})),
                endpoint("10.0.0.5", json!({"ready": false})),
            ],
        });
        let state = SliceState::of(&serde_json::from_value(slice).unwrap(), false).unwrap();
        assert_eq!(state.service.to_string(), "shop/web");
        let addresses: Vec<_> = state.endpoints.iter().map(|of| of.endpoint.address.to_string()).collect();
        assert_eq!(addresses, ["10.0.0.1", "10.0.0.2"]);
        let ports = [(("dns".to_owned(), Protocol::Udp), 53), (("http".to_owned(), Protocol::Tcp), 8080)];
        assert_eq!(*state.endpoints[0].endpoint.ports, BTreeMap::from(ports));
    }

    #[test]
    fn where_gates_are_heeded_endpoints_that_are_not_ready_are_kept_with_their_pods_unless_they_end() {
        let endpoint = |number: u8, kind: &str, ready: bool, ends: bool| {
            json!({
                "addresses": [format!("10.0.0.{number}")], "conditions": {"ready": ready, "terminating": ends},
                "targetRef": {"kind": kind, "name": format!("web-{number}")},
            })
        };
        let slice = json!({
            "metadata": {"name": "web-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": "IPv4", "ports": [{"port": 8080}],
            "endpoints": [
                endpoint(1, "Pod", true, false), endpoint(2, "Pod", false, false), endpoint(3, "Pod", false, true),
                endpoint(4, "VirtualMachine", false, false), endpoint(5, "VirtualMachine", true, false),
            ],
        });
        let slice: EndpointSlice = serde_json::from_value(slice).unwrap();
        let seen = |with_pods| {
            let state = SliceState::of(&slice, with_pods).unwrap();
            let each = state.endpoints.iter().map(|of| (of.pod.as_deref().unwrap_or("").to_owned(), of.is_ready));
            each.collect::<Vec<_>>()
        };
        assert_eq!(seen(false), [(String::new(), true), (String::new(), true)]);
        let with_pods = [("web-1", true), ("web-2", false), ("", true)].map(|(pod, ready)| (pod.to_owned(), ready));
        assert_eq!(seen(true), with_pods);
    }

    #[test]
    fn slices_of_no_service_and_of_names_have_no_endpoints() {
        let slice = |labels: Value, kind: &str, address: &str| {
            let slice = json!({
                "metadata": {"name": "web-1", "namespace": "shop", "labels": labels},
                "addressType": kind, "endpoints": [{"addresses": [address]}],
            });
            SliceState::of(&serde_json::from_value(slice).unwrap(), true)
        };
        assert_eq!(slice(json!({}), "IPv4", "10.0.0.1"), None);
        let named = slice(json!({"kubernetes.io/service-name": "web"}), "FQDN", "web.example.com").unwrap();
        assert_eq!(named.endpoints, []);
    }
}
