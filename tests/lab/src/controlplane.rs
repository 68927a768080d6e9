//! The real control plane: etcd, kube-apiserver, kube-controller-manager and kube-scheduler, and a kube-proxy for each node.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use berth_api::names::{CONTROLLER_NAMESPACE, SPEAKER_NAMESPACE};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::GetParams;
use kube::core::Request;
use kube::{Api, Client};
use serde_json::json;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};

use crate::audit::{self, AUDIT_LOG};
use crate::names;
use crate::netns::Netns;
use crate::network::{API_ADDRESS, Host, POD_RANGES, SERVICE_RANGES};
use crate::process::{Process, ProcessSpec};
use crate::state::Recorder;

pub mod binary;
pub(crate) mod credentials;

use credentials::{CA_FILE, Credentials};

/// Where the API server listens.
pub const API_PORT: u16 = 6443;
/// Where kube-proxy says whether it is fresh. Its default.
pub const KUBE_PROXY_HEALTH_PORT: u16 = 10256;
/// Longest start of a part of the control plane; a loaded machine needs ten times the usual.
pub(crate) const START_LIMIT: Duration = Duration::from_mins(1);

/// The lab's own place for scratch: gone with the lab, because its `/run` is.
pub(crate) const SCRATCH: &str = "/run/berth-lab";

/// What the API server writes down of Berth's requests.
const AUDIT_POLICY: &str = "audit-policy.json";
/// Kubernetes' controllers that Berth or its suites depend on. The service controller would fight Berth for its Services.
const CONTROLLERS: &str = "endpoint,endpointslice,namespace,garbagecollector,serviceaccount,root-ca-certificate-publisher-controller,\
                           deployment,replicaset,daemonset,disruption,validatingadmissionpolicy-status-controller,-service-lb-controller";

/// The processes that make a cluster.
pub(crate) struct ControlPlane {
    binary: PathBuf,
    kube_proxy_config: PathBuf,
    pub recorder: Arc<Recorder>,
    pub credentials: Credentials,
    pub etcd: Process,
    pub api_server: Process,
    pub controller_manager: Process,
    pub scheduler: Process,
    pub admin: Client,
}

impl ControlPlane {
    /// Starts it and waits until the API server is ready.
    pub(crate) async fn start(binary: PathBuf, root: &Netns, recorder: &Arc<Recorder>) -> Result<Self> {
        let credentials = Credentials::create(PathBuf::from(SCRATCH).join("credentials"))?;
        let groups = [CONTROLLER_NAMESPACE, SPEAKER_NAMESPACE].map(|n| format!("system:serviceaccounts:{n}"));
        credentials.write(AUDIT_POLICY, &audit::policy(&groups).to_string())?;
        let spawn = |name: &str, args| {
            let spec = ProcessSpec {
                name: name.to_owned(),
                program: binary.clone(),
                args,
                env: Vec::new(),
                netns: root.clone(),
            };
            Process::spawn(spec, recorder)
        };
        let etcd = spawn(names::ETCD, etcd_args())?;
        let kube_proxy_config = credentials.write("kube-proxy.json", &kube_proxy_config(&credentials).to_string())?;
        // The API server waits for etcd by itself, and its own start takes longer.
        let api_server = spawn(names::API_SERVER, api_server_args(&credentials, &recorder.run_dir().log(AUDIT_LOG)))?;
        let admin = credentials.admin_client().await?;
        api_ready(&api_server, &admin).await?;
        let controller_manager = spawn(names::CONTROLLER_MANAGER, controller_manager_args(&credentials))?;
        let scheduler = spawn(names::SCHEDULER, scheduler_args(&credentials))?;
        Ok(Self {
            binary,
            recorder: recorder.clone(),
            kube_proxy_config,
            credentials,
            etcd,
            api_server,
            controller_manager,
            scheduler,
            admin,
        })
    }

    /// Starts a node's kube-proxy. The Node object must be there already.
    pub(crate) fn start_kube_proxy(&self, node: &Host) -> Result<Process> {
        let spec = ProcessSpec {
            name: names::kube_proxy(&node.name),
            program: self.binary.clone(),
            args: kube_proxy_args(&self.kube_proxy_config, &node.name),
            env: Vec::new(),
            netns: node.netns.clone(),
        };
        Process::spawn(spec, &self.recorder)
    }

    /// Offers the API server on a socket of the host, for as long as the lab lives, and writes a kubeconfig for it.
    pub(crate) fn offer_to_host(&self, at: SocketAddr, listener: std::net::TcpListener) -> Result<PathBuf> {
        let path = self.recorder.run_dir().path().join("kubeconfig");
        self.credentials.write_host_kubeconfig(&path, &format!("https://{at}"))?;
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        tokio::spawn(async move {
            // One task for each connection; a connection that fails is its client's affair.
            while let Ok((mut outside, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut inside = TcpStream::connect((API_ADDRESS, API_PORT)).await?;
                    copy_bidirectional(&mut outside, &mut inside).await
                });
            }
        });
        Ok(path)
    }
}

/// Waits until the API server is ready and its first namespaces are there.
pub(crate) async fn api_ready(api_server: &Process, admin: &Client) -> Result<()> {
    api_server
        .until(START_LIMIT, async || {
            let request = Request::new("").get("readyz", &GetParams::default())?;
            admin.request_text(request).await?;
            let namespaces: Api<Namespace> = Api::all(admin.clone());
            namespaces.get("default").await?;
            Ok(())
        })
        .await
        .context("starting the API server")
}

/// Where a node's kube-proxy is asked for its health.
pub(crate) fn kube_proxy_health(node: &Host) -> SocketAddr {
    (IpAddr::V4(node.address), KUBE_PROXY_HEALTH_PORT).into()
}

fn etcd_args() -> Vec<String> {
    let (client, peer) = ("http://127.0.0.1:2379", "http://127.0.0.1:2380");
    [
        "etcd".to_owned(),
        // Nothing outlives the lab, so nothing needs to reach a disk.
        "--unsafe-no-fsync".to_owned(),
        format!("--data-dir={SCRATCH}/etcd"),
        format!("--listen-client-urls={client}"),
        format!("--advertise-client-urls={client}"),
        format!("--listen-peer-urls={peer}"),
        format!("--initial-advertise-peer-urls={peer}"),
        format!("--initial-cluster=default={peer}"),
        "--log-level=warn".to_owned(),
    ]
    .into()
}

fn api_server_args(credentials: &Credentials, audit_log: &Path) -> Vec<String> {
    let file = |name| credentials.path(name).display().to_string();
    [
        "kube-apiserver".to_owned(),
        "--etcd-servers=http://127.0.0.1:2379".to_owned(),
        "--bind-address=0.0.0.0".to_owned(),
        format!("--secure-port={API_PORT}"),
        format!("--advertise-address={API_ADDRESS}"),
        format!("--service-cluster-ip-range={SERVICE_RANGES}"),
        format!("--tls-cert-file={}", file("serving.crt")),
        format!("--tls-private-key-file={}", file("serving.key")),
        format!("--token-auth-file={}", file("tokens.csv")),
        "--authorization-mode=RBAC".to_owned(),
        "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
        format!("--service-account-key-file={}", file("service-accounts.pub")),
        format!("--service-account-signing-key-file={}", file("service-accounts.key")),
        // Nodes are ready from the start, and nobody is there to lift the taint that says otherwise.
        "--disable-admission-plugins=TaintNodesByCondition".to_owned(),
        "--allow-privileged=true".to_owned(),
        format!("--audit-policy-file={}", file(AUDIT_POLICY)),
        format!("--audit-log-path={}", audit_log.display()),
        // A lab that is left up for days does not fill the disk.
        "--audit-log-maxsize=100".to_owned(),
        "--audit-log-maxbackup=1".to_owned(),
        // One process asking for all; fairness between users costs start-up time and proves nothing here.
        "--enable-priority-and-fairness=false".to_owned(),
        "--profiling=false".to_owned(),
        "--shutdown-delay-duration=0s".to_owned(),
    ]
    .into()
}

fn controller_manager_args(credentials: &Credentials) -> Vec<String> {
    [
        "kube-controller-manager".to_owned(),
        format!("--kubeconfig={}", credentials.kubeconfig_path("kube-controller-manager").display()),
        format!("--controllers={CONTROLLERS}"),
        // Goes into every namespace, for pods to know the API server by.
        format!("--root-ca-file={}", credentials.path(CA_FILE).display()),
        "--leader-elect=false".to_owned(),
        "--secure-port=0".to_owned(),
        "--kube-api-qps=1000".to_owned(),
        "--kube-api-burst=2000".to_owned(),
        // By default endpoints are told as soon as they change too; said here so that no default can slow the suites.
        "--endpointslice-updates-batch-period=0s".to_owned(),
        "--endpoint-updates-batch-period=0s".to_owned(),
    ]
    .into()
}

fn scheduler_args(credentials: &Credentials) -> Vec<String> {
    [
        "kube-scheduler".to_owned(),
        format!("--kubeconfig={}", credentials.kubeconfig_path("kube-scheduler").display()),
        "--leader-elect=false".to_owned(),
        "--secure-port=0".to_owned(),
        "--kube-api-qps=1000".to_owned(),
        "--kube-api-burst=2000".to_owned(),
    ]
    .into()
}

fn kube_proxy_args(config: &Path, node: &str) -> Vec<String> {
    ["kube-proxy".to_owned(), format!("--config={}", config.display()), format!("--hostname-override={node}")].into()
}

/// One configuration for the kube-proxies of all nodes; some of its settings have no flag.
fn kube_proxy_config(credentials: &Credentials) -> serde_json::Value {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": { "kubeconfig": credentials.kubeconfig_path("kube-proxy"), "qps": 100, "burst": 200 },
        "mode": "nftables",
        "clusterCIDR": POD_RANGES,
        "healthzBindAddress": format!("0.0.0.0:{KUBE_PROXY_HEALTH_PORT}"),
        "metricsBindAddress": "127.0.0.1:10249",
        // Settings of the machine, not of the namespace: a lab leaves them alone.
        "conntrack": { "maxPerCore": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s" },
        // The default of one second would be most of what a suite waits for.
        "nftables": { "minSyncPeriod": "50ms", "syncPeriod": "30s" },
    })
}
