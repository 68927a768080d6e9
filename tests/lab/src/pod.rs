//! A user's pod: a real Pod object, a network namespace behind its node, and a small web server in it.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::Pod as PodObject;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use crate::lab::Lab;
use crate::netns::{Netns, any_address};
use crate::network::{INTERFACE, batch, mac, pod_address};
use crate::node::Node;
use crate::tool::{run, tool};

/// The port of a pod that is not told otherwise.
pub const DEFAULT_PORT: u16 = 8080;

/// What pod to make.
#[derive(Debug, Clone)]
pub struct PodSpec {
    /// Its namespace, which must exist.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its labels, by which Services select it.
    pub labels: BTreeMap<String, String>,
    /// The node it runs on.
    pub node: String,
    /// The TCP port its server listens on.
    pub port: u16,
    /// Whether it is ready from the start.
    pub ready: bool,
}

impl PodSpec {
    /// A ready pod in the namespace `default`, listening on [`DEFAULT_PORT`].
    pub fn new(name: impl Into<String>, node: impl Into<String>) -> Self {
        Self {
            namespace: "default".to_owned(),
            name: name.into(),
            labels: BTreeMap::new(),
            node: node.into(),
            port: DEFAULT_PORT,
            ready: true,
        }
    }

    /// Puts it into a namespace.
    #[must_use]
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = namespace.into();
        self
    }

    /// Adds a label.
    #[must_use]
    pub fn label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(key.into(), value.into());
        self
    }

    /// Listens on another port.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// Is not ready until [`Pod::set_ready`] says so.
    #[must_use]
    pub fn unready(mut self) -> Self {
        self.ready = false;
        self
    }
}

/// What a pod's server answers to every request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The pod that answered.
    pub pod: String,
    /// The node it runs on.
    pub node: String,
    /// Who asked, as the pod sees it.
    pub client: SocketAddr,
    /// What was asked for.
    pub path: String,
}

/// A running pod. Dropping it changes nothing; it lives until it is deleted.
#[derive(Debug, Clone)]
pub struct Pod {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    spec: PodSpec,
    address: Ipv4Addr,
    netns: Netns,
    node: Netns,
    /// Its link's name on the node.
    link: String,
    server: JoinHandle<()>,
    started: Time,
    pods: Api<PodObject>,
}

impl Lab {
    /// Starts a pod. It answers, and the API server knows about it, when this returns.
    pub async fn pod(&self, spec: PodSpec) -> Result<Pod> {
        let node = self.node(&spec.node)?;
        let what = format!("starting the pod {}/{} on {}", spec.namespace, spec.name, spec.node);
        start(spec, node, self.admin()).await.context(what)
    }
}

async fn start(spec: PodSpec, node: &Node, admin: Client) -> Result<Pod> {
    let address = node.take_pod_address()?;
    let netns_name = format!("pod.{}.{}", spec.namespace, spec.name);
    let link = format!("veth-{}", address.octets()[3]);
    let gateway = pod_address(node.number(), 1);
    run(tool("ip").args(["netns", "add", &netns_name]), "")?;
    let netns = Netns::named(&netns_name)?;
    // A point-to-point link: the node routes between its pods, so that what it translates passes it both ways.
    let on_node = format!(
        "link add name {link} address {gateway_mac} type veth peer name {INTERFACE} address {pod_mac} netns {netns_name}\n\
         addr add {gateway}/32 dev {link}\n\
         link set {link} up\n\
         route add {address} dev {link} src {node_address}\n",
        gateway_mac = mac(gateway),
        pod_mac = mac(address),
        node_address = node.address(),
    );
    run(&mut batch(node.netns()), &on_node)?;
    let in_pod = format!(
        "link set lo up\n\
         addr add {address}/32 dev {INTERFACE}\n\
         link set {INTERFACE} up\n\
         route add {gateway} dev {INTERFACE} scope link\n\
         route add default via {gateway}\n"
    );
    run(&mut batch(&netns), &in_pod)?;

    let listener = netns.listen(any_address(spec.port))?;
    let server = tokio::spawn(serve(listener, spec.name.clone(), spec.node.clone()));
    let started = Time(Timestamp::now());
    let pods: Api<PodObject> = Api::namespaced(admin, &spec.namespace);
    let node_netns = node.netns().clone();
    let pod = Pod { inner: Arc::new(Inner { address, netns, node: node_netns, link, server, started, pods, spec }) };
    pod.create_object().await?;
    Ok(pod)
}

impl Pod {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.inner.spec.name
    }

    /// The node it runs on.
    pub fn node(&self) -> &str {
        &self.inner.spec.node
    }

    /// Its address.
    pub fn address(&self) -> Ipv4Addr {
        self.inner.address
    }

    /// Its network namespace.
    pub fn netns(&self) -> &Netns {
        &self.inner.netns
    }

    /// Sets its Ready condition, as a kubelet would after a probe. Its server answers all the same.
    pub async fn set_ready(&self, ready: bool) -> Result<()> {
        let Inner { spec, address, pods, started, .. } = &*self.inner;
        let status = if ready { "True" } else { "False" };
        let condition = |kind| json!({ "type": kind, "status": status });
        let patch = json!({ "status": {
            "phase": "Running",
            "startTime": started,
            "podIP": address,
            "podIPs": [{ "ip": address }],
            "conditions": [condition("Ready"), condition("ContainersReady")],
            "containerStatuses": [{
                "name": CONTAINER, "image": IMAGE, "imageID": IMAGE, "ready": ready, "restartCount": 0, "started": true,
                "state": { "running": { "startedAt": started } },
            }],
        }});
        pods.patch_status(&spec.name, &PatchParams::default(), &Patch::Strategic(patch))
            .await
            .with_context(|| format!("setting the readiness of the pod {}", spec.name))?;
        Ok(())
    }

    /// Ends it at once: the object goes, then the server, then the namespace.
    pub async fn delete(&self) -> Result<()> {
        let Inner { spec, pods, server, node, link, netns, .. } = &*self.inner;
        let at_once = DeleteParams::default().grace_period(0);
        pods.delete(&spec.name, &at_once).await.with_context(|| format!("deleting the pod {}", spec.name))?;
        server.abort();
        run(&mut batch(node), &format!("link del {link}\n"))?;
        run(tool("ip").args(["netns", "del", netns.name()]), "")?;
        Ok(())
    }

    async fn create_object(&self) -> Result<()> {
        let Inner { spec, pods, .. } = &*self.inner;
        let object: PodObject = serde_json::from_value(json!({
            "metadata": { "name": spec.name, "labels": spec.labels },
            "spec": {
                "nodeName": spec.node,
                "terminationGracePeriodSeconds": 0,
                "containers": [{
                    "name": CONTAINER, "image": IMAGE, "ports": [{ "name": "web", "containerPort": spec.port }],
                }],
            },
        }))?;
        pods.create(&PostParams::default(), &object).await?;
        self.set_ready(spec.ready).await
    }
}

const CONTAINER: &str = "web";
const IMAGE: &str = "lab";

/// Serves every connection in a task of its own; all end with this one.
async fn serve(listener: TcpListener, pod: String, node: String) {
    let mut connections = JoinSet::new();
    while let Ok((stream, client)) = listener.accept().await {
        connections.spawn(converse(stream, client, pod.clone(), node.clone()));
        while connections.try_join_next().is_some() {}
    }
}

/// Answers requests until the client closes, or after the first one when that is what the client asks for.
async fn converse(stream: TcpStream, client: SocketAddr, pod: String, node: String) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut request = String::new();
        if stream.read_line(&mut request).await? == 0 {
            return Ok(());
        }
        let mut close = !request.trim_end().ends_with("HTTP/1.1");
        loop {
            let mut header = String::new();
            if stream.read_line(&mut header).await? == 0 {
                return Ok(());
            }
            let header = header.trim_end();
            close |= header.eq_ignore_ascii_case("connection: close");
            if header.is_empty() {
                break;
            }
        }
        let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
        let answer = Answer { pod: pod.clone(), node: node.clone(), client, path };
        let body = serde_json::to_string(&answer)? + "\n";
        let connection = if close { "close" } else { "keep-alive" };
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: {connection}\r\n\r\n",
            body.len()
        );
        stream.write_all((head + &body).as_bytes()).await?;
        if close {
            return stream.shutdown().await;
        }
    }
}
