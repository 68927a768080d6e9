//! A user's pod: a real Pod object, a network namespace behind its node, and a small web server in it.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

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

use crate::eventually::eventually;
use crate::lab::Lab;
use crate::netns::{Netns, any_address};
use crate::node::Node;
use crate::pod_network::PodNetwork;

/// The port of a pod that is not told otherwise.
pub const DEFAULT_PORT: u16 = 8080;

/// Longest wait for a new namespace's ServiceAccount.
const ACCOUNT_LIMIT: Duration = Duration::from_secs(20);

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
    network: PodNetwork,
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
    let network = PodNetwork::create(node, &format!("pod.{}.{}", spec.namespace, spec.name))?;
    let listener = network.netns().listen(any_address(spec.port))?;
    let server = tokio::spawn(serve(listener, spec.name.clone(), spec.node.clone()));
    let started = Time(Timestamp::now());
    let pods: Api<PodObject> = Api::namespaced(admin, &spec.namespace);
    let pod = Pod { inner: Arc::new(Inner { spec, network, server, started, pods }) };
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
        self.inner.network.address()
    }

    /// Its IPv6 address.
    pub fn address6(&self) -> Ipv6Addr {
        self.inner.network.address6()
    }

    /// Its network namespace.
    pub fn netns(&self) -> &Netns {
        self.inner.network.netns()
    }

    /// Sets its Ready condition, as a kubelet would after a probe. Its server answers all the same.
    pub async fn set_ready(&self, ready: bool) -> Result<()> {
        let Inner { spec, network, pods, started, .. } = &*self.inner;
        let status = if ready { "True" } else { "False" };
        let condition = |kind| json!({ "type": kind, "status": status });
        let patch = json!({ "status": {
            "phase": "Running",
            "startTime": started,
            "podIP": network.address(),
            "podIPs": network.addresses().map(|ip| json!({ "ip": ip })),
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
        let Inner { spec, pods, server, network, .. } = &*self.inner;
        let at_once = DeleteParams::default().grace_period(0);
        pods.delete(&spec.name, &at_once).await.with_context(|| format!("deleting the pod {}", spec.name))?;
        server.abort();
        network.remove()
    }

    async fn create_object(&self) -> Result<()> {
        let Inner { spec, pods, .. } = &*self.inner;
        let object: PodObject = serde_json::from_value(json!({
            "metadata": { "name": spec.name, "labels": spec.labels },
            "spec": {
                "nodeName": spec.node,
                "terminationGracePeriodSeconds": 0,
                // Its server asks nothing of the API server.
                "automountServiceAccountToken": false,
                "containers": [{
                    "name": CONTAINER, "image": IMAGE, "ports": [{ "name": "web", "containerPort": spec.port }],
                }],
            },
        }))?;
        // A new namespace has its ServiceAccount a moment later, and the API server takes no pod without one.
        let what = format!("the namespace {} takes the pod", spec.namespace);
        eventually(&what, ACCOUNT_LIMIT, async || match pods.create(&PostParams::default(), &object).await {
            Err(kube::Error::Api(refused)) if refused.code == 403 => Err(refused).context("refused"),
            other => other.map(|_| Some(())).map_err(Into::into),
        })
        .await?;
        self.set_ready(spec.ready).await
    }
}

const CONTAINER: &str = "web";
const IMAGE: &str = "lab";

/// Serves every connection in a task of its own; all end with this one.
async fn serve(listener: TcpListener, pod: String, node: String) {
    let mut connections = JoinSet::new();
    while let Ok((stream, client)) = listener.accept().await {
        // An IPv4 client of a socket of both families has a mapped address (RFC 4291 section 2.5.5.2).
        let client = SocketAddr::new(client.ip().to_canonical(), client.port());
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
