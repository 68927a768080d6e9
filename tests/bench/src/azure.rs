//! How many calls of Azure the controller makes, and how long it takes: a stand-in answers in Azure's place, takes its time for each write as
//! Azure does, and counts.

mod row;

use std::collections::BTreeSet;
use std::env;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use berth_api::names::{AZURE_LB_CLASS, CONTROLLER_NAME, CONTROLLER_NAMESPACE};
use berth_arm_fake::Fake;
use berth_lab::{BIN_DIR_ENV, LOG_ENV, Lab, LabConfig, Process, ProcessSpec};
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::{Namespace, Node, Service};
use kube::Api;
use kube::api::{DeleteParams, ListParams, PostParams};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

pub use row::{Row, table};

use crate::load::round;

/// The lab: Services have no data path here.
pub const LAB: LabConfig = LabConfig { nodes: 1, kube_proxy: false };

/// Where the Services are.
const NAMESPACE: &str = "bench";
/// Where things are in Azure.
const GROUP: &str = "/subscriptions/s/resourceGroups/rg/providers/Microsoft.Network";
/// How long Azure takes for a write: what it takes for a small load balancer (2 to 5 s).
const OPERATION: Duration = Duration::from_secs(2);
/// Requests to the API server at once.
const CLIENTS: usize = 8;
/// How long no call is made when everything is done: more than the second after which what comes up is looked at again, and more than an operation.
const QUIET: Duration = Duration::from_secs(5);
/// Longest time without any news while Services wait.
const STANDSTILL: Duration = Duration::from_mins(2);
/// Longest wait for a controller to be ready.
const READY_LIMIT: Duration = Duration::from_mins(1);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(100);
/// Where the controller serves health.
const HEALTH: &str = "127.0.0.1:7481";

/// What is measured, and in what.
struct Cluster {
    lab: Lab,
    fake: Arc<Fake>,
    controller: Process,
    /// Nodes that are members of pools.
    nodes: usize,
    began: Instant,
    _server: JoinSet<()>,
}

/// Measures everything, in the order in which it is told.
pub async fn measure(lab: &Lab, services: usize, nodes: usize, tell: &dyn Fn(String)) -> Result<Vec<Row>> {
    let mut cluster = Cluster::start(lab, nodes).await?;
    tell(format!("a cluster of {} nodes", cluster.nodes));
    let mut rows = Vec::new();
    cluster.begin();
    cluster.create(services).await?;
    cluster.served(services).await?;
    let took = cluster.began.elapsed();
    rows.push(cluster.row("create", services, Some(took), tell).await);
    cluster.ensure_rules(services)?;

    cluster.controller.kill().await?;
    cluster.begin();
    cluster.controller.start()?;
    cluster.leads_again().await?;
    rows.push(cluster.row("restart", services, None, tell).await);

    cluster.begin();
    cluster.add_nodes(cluster.nodes..=cluster.nodes).await?;
    let took = cluster.members().await?;
    rows.push(cluster.row("node-added", services, Some(took), tell).await);

    cluster.begin();
    cluster.delete(services).await?;
    let took = cluster.began.elapsed();
    rows.push(cluster.row("delete", services, Some(took), tell).await);
    cluster.ensure_rules(0)?;
    Ok(rows)
}

impl Cluster {
    async fn start(lab: &Lab, nodes: usize) -> Result<Self> {
        lab.install_components_without_workloads(&["azure"]).await?;
        let fake = Fake::default();
        for (path, properties) in [
            (
                "virtualNetworks/bench-vnet",
                json!({ "subnets": [{ "name": "default", "properties": { "addressPrefix": "10.0.0.0/16" } }] }),
            ),
            ("networkSecurityGroups/bench-nsg", json!({ "securityRules": [] })),
        ] {
            let document = json!({ "location": "westeurope", "properties": properties });
            fake.plant(&format!("{GROUP}/{path}"), document).map_err(anyhow::Error::msg)?;
        }
        fake.takes(OPERATION);
        let fake = Arc::new(fake);
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let url = format!("http://{}", listener.local_addr()?);
        let (mut server, answering) = (JoinSet::new(), fake.clone());
        server.spawn(async move { drop(berth_arm_fake::serve(listener, answering).await) });
        let namespace: Namespace = serde_json::from_value(json!({ "metadata": { "name": NAMESPACE } }))?;
        Api::all(lab.admin()).create(&PostParams::default(), &namespace).await?;
        let controller = controller(lab, &url).await?;
        let (lab, began) = (lab.clone(), Instant::now());
        let mut cluster = Self { lab, fake, controller, nodes: usize::from(LAB.nodes), began, _server: server };
        cluster.add_nodes(cluster.nodes..=nodes.saturating_sub(1)).await?;
        cluster.leads_again().await?;
        Ok(cluster)
    }

    async fn leads_again(&self) -> Result<()> {
        self.controller.ready(HEALTH.parse()?, "/readyz", READY_LIMIT).await
    }

    /// A phase begins.
    fn begin(&mut self) {
        self.fake.reset_counts();
        self.began = Instant::now();
    }

    /// What a phase came to, once no call is made any more: how long it `took`, or until the last call.
    async fn row(&self, phase: &str, services: usize, took: Option<Duration>, tell: &dyn Fn(String)) -> Row {
        let last = self.quiet().await;
        let seconds = took.unwrap_or_else(|| last.saturating_duration_since(self.began)).as_secs_f64();
        let counts = self.fake.counts();
        tell(format!("{phase}: {counts:?} in {seconds:.1} s"));
        Row::of(phase, (services, self.nodes), &counts, round(seconds, 1000.0))
    }

    /// Waits until no call is made any more; when the last one was.
    async fn quiet(&self) -> Instant {
        let count = || self.fake.counts().values().sum::<u64>();
        let (mut before, mut since) = (count(), Instant::now());
        while since.elapsed() < QUIET {
            tokio::time::sleep(LOOK).await;
            let now = count();
            if now != before {
                (before, since) = (now, Instant::now());
            }
        }
        since
    }

    fn services(&self) -> Api<Service> {
        Api::namespaced(self.lab.admin(), NAMESPACE)
    }

    async fn create(&self, count: usize) -> Result<()> {
        let services = self.services();
        let each = (0..count).map(|number| {
            let services = services.clone();
            async move { anyhow::Ok(services.create(&PostParams::default(), &service(number)?).await?) }
        });
        futures::stream::iter(each).buffer_unordered(CLIENTS).try_for_each(async |_| Ok(())).await
    }

    /// Waits until all have an address.
    async fn served(&self, count: usize) -> Result<()> {
        let has_address = |service: &&Service| {
            let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref()?.ingress.as_ref());
            status.into_iter().flatten().any(|ingress| ingress.ip.is_some())
        };
        self.until("are served", |all| all.iter().filter(has_address).count(), count).await
    }

    async fn delete(&self, count: usize) -> Result<()> {
        let services = self.services();
        let each = (0..count).map(|number| {
            let services = services.clone();
            async move { anyhow::Ok(services.delete(&name(number), &DeleteParams::default()).await?) }
        });
        futures::stream::iter(each).buffer_unordered(CLIENTS).try_for_each(async |_| Ok(())).await?;
        self.until("are gone", |all| count - all.len().min(count), count).await
    }

    /// Waits until so many Services are as they are to be.
    async fn until(&self, what: &str, are: impl Fn(&[Service]) -> usize, count: usize) -> Result<()> {
        let (mut before, mut since) = (0, Instant::now());
        loop {
            let all = self.services().list(&ListParams::default()).await?.items;
            let now = are(&all);
            if now == count {
                return Ok(());
            }
            if now != before {
                (before, since) = (now, Instant::now());
            }
            if since.elapsed() > STANDSTILL {
                let said = all.iter().find_map(|service| service.status.as_ref()?.conditions.clone());
                bail!("{now} of {count} Services {what}; one says {}", json!(said));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Nodes join, and are ready.
    async fn add_nodes(&mut self, numbers: std::ops::RangeInclusive<usize>) -> Result<()> {
        let nodes: Api<Node> = Api::all(self.lab.admin());
        let each = numbers.map(|number| {
            let nodes = nodes.clone();
            async move { anyhow::Ok(nodes.create(&PostParams::default(), &node(number)?).await?) }
        });
        let added: Vec<Node> = futures::stream::iter(each).buffer_unordered(CLIENTS).try_collect().await?;
        self.nodes += added.len();
        Ok(())
    }

    /// Waits until all nodes are members of the pool; how long it took.
    async fn members(&self) -> Result<Duration> {
        loop {
            let now = members(&self.fake);
            if now == self.nodes {
                return Ok(self.began.elapsed());
            }
            ensure!(self.began.elapsed() < STANDSTILL, "{now} of {} nodes are members of the pool", self.nodes);
            tokio::time::sleep(LOOK).await;
        }
    }

    /// So many rules are there, each of another Service; without any, the load balancer is gone.
    fn ensure_rules(&self, count: usize) -> Result<()> {
        let balancer = balancer(&self.fake);
        let rules = balancer["properties"]["loadBalancingRules"].as_array().cloned().unwrap_or_default();
        let ports: BTreeSet<_> = rules.iter().map(|rule| rule["properties"]["frontendPort"].to_string()).collect();
        ensure!(rules.len() == count && ports.len() == count, "{} rules for {count} Services", rules.len());
        ensure!(count > 0 || balancer.is_null(), "a load balancer is left: {balancer}");
        Ok(())
    }
}

fn balancer(fake: &Fake) -> Value {
    fake.resources().remove(&format!("{GROUP}/loadBalancers/bench-internal")).unwrap_or_default()
}

fn members(fake: &Fake) -> usize {
    let pools = balancer(fake)["properties"]["backendAddressPools"].as_array().cloned().unwrap_or_default();
    let pool = pools.into_iter().find(|pool| pool["name"] == "bench").unwrap_or_default();
    pool["properties"]["loadBalancerBackendAddresses"].as_array().map_or(0, Vec::len)
}

async fn controller(lab: &Lab, url: &str) -> Result<Process> {
    let kubeconfig = lab.kubeconfig_of(CONTROLLER_NAMESPACE, CONTROLLER_NAME).await?;
    let folder = env::var_os(BIN_DIR_ENV).map(PathBuf::from).with_context(|| format!("{BIN_DIR_ENV} is not set"))?;
    let config = lab.run_dir().path().join("azure.json");
    let said = json!({
        "resourceManagerEndpoint": url, "tenantId": "t", "subscriptionId": "s", "aadClientId": "c", "aadClientSecret": "hush",
        "resourceGroup": "rg", "location": "westeurope", "vnetName": "bench-vnet", "subnetName": "default",
        "securityGroupName": "bench-nsg",
    });
    std::fs::write(&config, said.to_string()).with_context(|| format!("writing {}", config.display()))?;
    let mut variables = vec![
        ("KUBECONFIG".to_owned(), kubeconfig.display().to_string()),
        ("AZURE_AUTHORITY_HOST".to_owned(), url.to_owned()),
    ];
    variables.extend(env::var(LOG_ENV).ok().map(|filter| (LOG_ENV.to_owned(), filter)));
    let flags = ["--providers=azure", "--default-provider=none", "--azure-cluster-name=bench", "--leader-elect=false"];
    let config = format!("--azure-config={}", config.display());
    lab.spawn(ProcessSpec {
        name: "controller-azure".to_owned(),
        program: folder.join(CONTROLLER_NAME),
        args: flags.iter().map(|flag| (*flag).to_owned()).chain([config]).collect(),
        env: variables,
        netns: lab.root().netns.clone(),
    })
}

fn name(number: usize) -> String {
    format!("s{number}")
}

/// An internal Service as most are, which says who may reach it, so that it has a part in both documents.
fn service(number: usize) -> Result<Service> {
    Ok(serde_json::from_value(json!({
        "metadata": {
            "name": name(number), "annotations": { "service.beta.kubernetes.io/azure-allowed-ip-ranges": "10.0.0.0/8" },
        },
        "spec": {
            "type": "LoadBalancer", "loadBalancerClass": AZURE_LB_CLASS, "selector": { "app": name(number) },
            "ports": [{ "port": 1000 + number, "targetPort": 8080 }],
        },
    }))?)
}

fn node(number: usize) -> Result<Node> {
    let address = format!("10.0.{}.{}", 100 + number / 250, 1 + number % 250);
    Ok(serde_json::from_value(json!({
        "metadata": { "name": format!("added-{number}") },
        "status": {
            "conditions": [{ "type": "Ready", "status": "True", "reason": "Bench", "message": "it is" }],
            "addresses": [{ "type": "InternalIP", "address": address }],
        },
    }))?)
}
