//! A cluster whose nodes are instances of moto's, and a controller that calls it through the counting proxy.

use std::env;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use berth_api::names::{CONTROLLER_NAME, CONTROLLER_NAMESPACE};
use berth_lab::{BIN_DIR_ENV, LOG_ENV, Lab, Process, ProcessSpec};
use berth_moto::{Call, Ground, Moto, Proxy, Tools, environment};
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::{Namespace, Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};

use super::LAB;
use super::row::{Counted, Row};
use crate::load::round;

/// Where the Services are.
const NAMESPACE: &str = "bench";
/// What a Service is there for.
const PHASE_LABEL: &str = "bench.berth.dev/phase";
/// The class of the Services.
const CLASS: &str = "berth.dev/aws-nlb";
/// Requests to the API server at once.
const CLIENTS: usize = 8;
/// How long no call is made when everything is done: more than the second after which a load balancer that comes up is looked at again.
const QUIET: Duration = Duration::from_secs(4);
/// Longest time without any news while Services wait. With few calls a second, a Service takes a while.
const STANDSTILL: Duration = Duration::from_mins(4);
/// Longest wait for a controller to be ready.
const READY_LIMIT: Duration = Duration::from_mins(1);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(100);
/// Where the controller serves health.
const HEALTH: &str = "127.0.0.1:7481";

/// All of it.
pub(super) struct Cluster {
    lab: Lab,
    tools: Tools,
    moto: Moto,
    ground: Ground,
    /// Before moto.
    pub proxy: Proxy,
    /// What is measured.
    pub controller: Process,
    /// The calls of the present phase.
    calls: Mutex<Vec<Call>>,
    began: Instant,
    changed: Mutex<Instant>,
    /// When the proxy was started, by which it tells times.
    proxied: Instant,
}

impl Cluster {
    pub(super) async fn start(lab: &Lab) -> Result<Self> {
        lab.install_components_without_workloads(&["aws"]).await?;
        let tools = berth_moto::ready(&|_| ())?;
        let moto = Moto::start(&tools)?;
        // One more than the lab has nodes, for the one that is added.
        let ground = tools.lay(&moto.endpoint(), usize::from(LAB.nodes) + 1)?;
        let nodes: Api<Node> = Api::all(lab.admin());
        for (node, id) in lab.nodes().iter().zip(&ground.instances) {
            let patch = json!({ "spec": { "providerID": id } });
            nodes.patch(node.name(), &PatchParams::default(), &Patch::Merge(patch)).await?;
        }
        let namespace: Namespace = serde_json::from_value(json!({ "metadata": { "name": NAMESPACE } }))?;
        Api::all(lab.admin()).create(&PostParams::default(), &namespace).await?;
        let proxied = Instant::now();
        let proxy = Proxy::start(moto.address()).await?;
        let controller = controller(lab, &proxy, &ground).await?;
        let now = Instant::now();
        let cluster = Self {
            lab: lab.clone(),
            tools,
            moto,
            ground,
            proxy,
            controller,
            calls: Mutex::default(),
            began: now,
            changed: Mutex::new(now),
            proxied,
        };
        cluster.leads_again().await?;
        Ok(cluster)
    }

    /// What there is, as boto3 sees it.
    pub(super) fn look(&self) -> Result<Value> {
        self.tools.look(&self.moto.endpoint())
    }

    /// A phase begins.
    pub(super) fn begin(&mut self) {
        self.proxy.take();
        self.with_calls(Vec::clear);
        self.began = Instant::now();
    }

    /// It is over once no call is made any more.
    pub(super) async fn row(&self, phase: &str, services: usize, tell: &dyn Fn(String)) -> Row {
        self.quiet().await;
        self.gather();
        let row = self.with_calls(|calls| {
            let mut counted = Counted::default();
            counted.add(calls);
            let Counted { reads, writes, throttled } = counted;
            Row {
                phase: phase.to_owned(),
                services,
                calls: reads + writes,
                reads,
                writes,
                throttled,
                seconds: round(calls.last().map_or(0.0, |call| self.since_begin(call)), 1000.0),
                p50_ms: None,
                p99_ms: None,
            }
        });
        tell(format!(
            "{phase}: {} calls ({} reads, {} writes) for {services} Services in {:.1} s{}",
            row.calls,
            row.reads,
            row.writes,
            row.seconds,
            self.most()
        ));
        row
    }

    /// The most frequent calls, for a person.
    fn most(&self) -> String {
        let mut count = std::collections::BTreeMap::<String, usize>::new();
        self.with_calls(|calls| calls.iter().for_each(|call| *count.entry(call.action.clone()).or_default() += 1));
        let mut count: Vec<_> = count.into_iter().collect();
        count.sort_by_key(|(_, times)| std::cmp::Reverse(*times));
        let words: Vec<_> = count.into_iter().take(14).map(|(action, times)| format!("{action} {times}")).collect();
        format!("; {}", words.join(", "))
    }

    /// Waits until no call is made any more.
    pub(super) async fn quiet(&self) {
        let (mut count, mut since) = (self.proxy.count(), Instant::now());
        while since.elapsed() < QUIET {
            tokio::time::sleep(LOOK).await;
            if self.proxy.count() != count {
                (count, since) = (self.proxy.count(), Instant::now());
            }
        }
    }

    /// Makes Services of a phase.
    pub(super) async fn create(&self, phase: &str, count: usize, target_type: &str) -> Result<()> {
        let services: Api<Service> = Api::namespaced(self.lab.admin(), NAMESPACE);
        let each = (0..count).map(|number| {
            let (services, service) = (services.clone(), service(phase, number, target_type));
            async move { anyhow::Ok(services.create(&PostParams::default(), &service?).await?) }
        });
        futures::stream::iter(each).buffer_unordered(CLIENTS).try_for_each(async |_| Ok(())).await
    }

    /// Waits until all of a phase have a host name.
    pub(super) async fn served(&self, phase: &str, count: usize) -> Result<()> {
        let services: Api<Service> = Api::namespaced(self.lab.admin(), NAMESPACE);
        let mine = ListParams::default().labels(&format!("{PHASE_LABEL}={phase}"));
        let (mut before, mut since) = (0, Instant::now());
        loop {
            let all = services.list(&mine).await?.items;
            let served = all.iter().filter(|service| has_host(service)).count();
            if served == count {
                return Ok(());
            }
            if served > before {
                (before, since) = (served, Instant::now());
            }
            if since.elapsed() > STANDSTILL {
                let waits = all.iter().find(|service| !has_host(service)).context("a Service is missing")?;
                let said = waits.status.as_ref().and_then(|status| status.conditions.clone());
                bail!("{served} of {count} Services are served; one that waits says {}", json!(said));
            }
            tokio::time::sleep(LOOK * 5).await;
        }
    }

    /// Waits until all targets of a phase are known to be healthy.
    pub(super) async fn healthy(&self, phase: &str, count: usize) -> Result<()> {
        let services: Api<Service> = Api::namespaced(self.lab.admin(), NAMESPACE);
        let mine = ListParams::default().labels(&format!("{PHASE_LABEL}={phase}"));
        let (mut before, mut since) = (0, Instant::now());
        loop {
            let healthy = services.list(&mine).await?.items.iter().filter(|service| is_healthy(service)).count();
            if healthy == count {
                return Ok(());
            }
            if healthy > before {
                (before, since) = (healthy, Instant::now());
            }
            ensure!(since.elapsed() < STANDSTILL, "the targets of {healthy} of {count} Services are healthy");
            tokio::time::sleep(LOOK * 5).await;
        }
    }

    /// Deletes the Services of a phase and waits until they are gone.
    pub(super) async fn delete(&self, phase: &str) -> Result<()> {
        let services: Api<Service> = Api::namespaced(self.lab.admin(), NAMESPACE);
        let mine = ListParams::default().labels(&format!("{PHASE_LABEL}={phase}"));
        let names: Vec<_> = services.list(&mine).await?.items.iter().map(Service::name_any).collect();
        let each = names.iter().map(|name| {
            let services = services.clone();
            async move { anyhow::Ok(services.delete(name, &DeleteParams::default()).await?) }
        });
        futures::stream::iter(each).buffer_unordered(CLIENTS).try_for_each(async |_| Ok(())).await?;
        let (mut before, mut since) = (usize::MAX, Instant::now());
        loop {
            let left = services.list(&mine).await?.items.len();
            if left == 0 {
                return Ok(());
            }
            if left < before {
                (before, since) = (left, Instant::now());
            }
            if since.elapsed() > STANDSTILL {
                bail!("{left} Services are still there");
            }
            tokio::time::sleep(LOOK * 5).await;
        }
    }

    /// A node joins, and is ready.
    pub(super) async fn add_node(&self) -> Result<()> {
        let id = self.ground.instances.last().context("no instance")?;
        let node: Node = serde_json::from_value(json!({
            "metadata": { "name": "node-added", "labels": { "kubernetes.io/hostname": "node-added" } },
            "spec": { "providerID": id },
            "status": { "conditions": [{ "type": "Ready", "status": "True", "reason": "Bench", "message": "it is" }] },
        }))?;
        let nodes: Api<Node> = Api::all(self.lab.admin());
        let made = nodes.create(&PostParams::default(), &node).await?;
        // The API server keeps a status that comes with a new Node; this is for those that do not.
        let status = json!({ "status": node.status });
        nodes.patch_status(&made.name_any(), &PatchParams::default(), &Patch::Merge(status)).await?;
        Ok(())
    }

    /// Gives a Service without a selector these endpoints and no others.
    pub(super) async fn endpoints(&self, service: &str, addresses: &[&str]) -> Result<()> {
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": { "name": service, "labels": { "kubernetes.io/service-name": service } },
            "addressType": "IPv4",
            "ports": [{ "name": "", "port": 8080, "protocol": "TCP" }],
            "endpoints": addresses.iter()
                .map(|address| json!({ "addresses": [address], "conditions": { "ready": true } })).collect::<Vec<_>>(),
        });
        let slices: Api<EndpointSlice> = Api::namespaced(self.lab.admin(), NAMESPACE);
        *self.changed.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Instant::now();
        slices.patch(service, &PatchParams::apply("berth-bench").force(), &Patch::Apply(slice)).await?;
        Ok(())
    }

    /// A call of this phase.
    pub(super) fn find(&self, is: impl Fn(&Call) -> bool) -> Option<Call> {
        self.gather();
        self.with_calls(|calls| calls.iter().rfind(|call| is(call)).cloned())
    }

    /// All such calls of this phase.
    pub(super) fn all(&self, are: impl Fn(&Call) -> bool) -> Vec<Call> {
        self.gather();
        self.with_calls(|calls| calls.iter().filter(|call| are(call)).cloned().collect())
    }

    fn gather(&self) {
        let new = self.proxy.take();
        self.with_calls(|calls| calls.extend(new));
    }

    fn with_calls<T>(&self, with: impl FnOnce(&mut Vec<Call>) -> T) -> T {
        with(&mut self.calls.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    fn at(&self, call: &Call) -> Instant {
        self.proxied + Duration::from_secs_f64(call.at)
    }

    /// From the last change of endpoints to a call.
    pub(super) fn since_change(&self, call: &Call) -> Duration {
        let changed = *self.changed.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        self.at(call).saturating_duration_since(changed)
    }

    /// From the beginning of the phase to a call, in seconds.
    pub(super) fn since_begin(&self, call: &Call) -> f64 {
        self.at(call).saturating_duration_since(self.began).as_secs_f64()
    }

    /// Waits until the controller is ready and has begun to look. Whoever takes the place of one that was killed waits first until that
    /// one's Lease has run out.
    pub(super) async fn leads_again(&self) -> Result<()> {
        self.controller.ready(HEALTH.parse()?, "/readyz", READY_LIMIT).await?;
        let begin = Instant::now();
        while self.proxy.count() == 0 {
            ensure!(begin.elapsed() < READY_LIMIT, "the controller asks AWS nothing");
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }
}

async fn controller(lab: &Lab, proxy: &Proxy, ground: &Ground) -> Result<Process> {
    let kubeconfig = lab.kubeconfig_of(CONTROLLER_NAMESPACE, CONTROLLER_NAME).await?;
    let folder = env::var_os(BIN_DIR_ENV).map(PathBuf::from).with_context(|| format!("{BIN_DIR_ENV} is not set"))?;
    let mut variables = vec![
        ("KUBECONFIG".to_owned(), kubeconfig.display().to_string()),
        ("AWS_ENDPOINT_URL".to_owned(), proxy.endpoint()),
    ];
    variables.extend(environment().map(|(name, value)| (name.to_owned(), value.to_owned())));
    variables.extend(env::var(LOG_ENV).ok().map(|filter| (LOG_ENV.to_owned(), filter)));
    let flags = ["--providers=aws", "--default-provider=none", "--aws-cluster-name=bench"];
    let vpc = format!("--aws-vpc-id={}", ground.vpc);
    lab.spawn(ProcessSpec {
        name: "controller-aws".to_owned(),
        program: folder.join(CONTROLLER_NAME),
        args: flags.iter().map(|flag| (*flag).to_owned()).chain([vpc]).collect(),
        env: variables,
        netns: lab.root().netns.clone(),
    })
}

/// A Service as most are: one port. With targets by address it has no selector, and its endpoints are given by hand.
fn service(phase: &str, number: usize, target_type: &str) -> Result<Service> {
    let name = format!("{phase}-{number}");
    let mut service = json!({
        "metadata": {
            "name": name, "namespace": NAMESPACE, "labels": { PHASE_LABEL: phase },
            "annotations": { "service.beta.kubernetes.io/aws-load-balancer-nlb-target-type": target_type },
        },
        "spec": { "type": "LoadBalancer", "loadBalancerClass": CLASS, "ports": [{ "port": 80, "targetPort": 8080 }] },
    });
    if target_type == "instance" {
        service["spec"]["selector"] = json!({ "app": name });
    }
    Ok(serde_json::from_value(service)?)
}

fn is_healthy(service: &Service) -> bool {
    let conditions = service.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions
        .into_iter()
        .flatten()
        .any(|condition| condition.type_ == "berth.dev/TargetsHealthy" && condition.status == "True")
}

fn has_host(service: &Service) -> bool {
    let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref()?.ingress.as_ref());
    status.into_iter().flatten().any(|ingress| ingress.hostname.is_some())
}
