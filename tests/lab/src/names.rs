//! The names of the lab's hosts and processes, which name logs and lines in listings too.

/// The namespace of the bridge itself.
pub const CONTROL_PLANE: &str = "control-plane";
/// The client on the nodes' LAN.
pub const CLIENT: &str = "client";
/// What joins the LAN with the rest of the world.
pub const ROUTER: &str = "router";
/// The client behind the router.
pub const REMOTE: &str = "remote";

/// The store of the API server.
pub const ETCD: &str = "etcd";
/// The API server.
pub const API_SERVER: &str = "kube-apiserver";
/// Kubernetes' own controllers.
pub const CONTROLLER_MANAGER: &str = "kube-controller-manager";
/// Puts pods on nodes.
pub const SCHEDULER: &str = "kube-scheduler";

/// The `number`-th node, from 1.
pub fn node(number: u8) -> String {
    format!("node-{number}")
}

/// A node's kube-proxy.
pub fn kube_proxy(node: &str) -> String {
    format!("kube-proxy-{node}")
}
