//! The demo's story, told from inside the lab.

use std::fmt;
use std::net::IpAddr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use berth_api::Announcement;
use berth_api::condition::types;
use berth_api::crd::{IPAddressPool, L2Advertisement, Layer2Status};
use berth_api::names::{GROUP, announcement_name};
use berth_lab::{Answer, DEFAULT_PORT, Entered, Lab, LabConfig, PodSpec, Prober};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ListParams, PostParams};
use kube::runtime::wait::await_condition;
use kube::{Api, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::timeout;

use super::{Options, Report, objects};
use crate::progress::Progress;
use crate::{launch, output};

/// How often the client asks: fine against the outage that is measured.
const ASK_EVERY: Duration = Duration::from_millis(10);
/// Longest wait for anything that takes well under a second when it works.
const LIMIT: Duration = Duration::from_secs(15);
/// The API server holds back what is created of a kind that it serves for less than this. In a cluster that people use,
/// Berth's kinds are older, so this is not Berth's time to lose.
const KINDS_SETTLE: Duration = Duration::from_secs(2);
/// How long the client goes on asking after it was answered again, so that an outage that comes back is seen.
const AFTERWARDS: Duration = Duration::from_millis(500);

/// Tells it, and measures.
pub fn tell(options: &Options, entered: Entered) -> Result<ExitCode> {
    let progress = Progress::start();
    launch::inside(async {
        let story = Story::begin(entered, progress).await?;
        let report = story.tell(options).await?;
        if options.json {
            output::data(serde_json::to_string(&report)?)?;
        } else {
            output::data(summary(&report))?;
        }
        if options.keep {
            launch::mark_up(story.lab.run_dir())?;
            story.lab.detach()?;
            // The pods' web servers and the way to the API server live in this process.
            std::future::pending::<()>().await;
        }
        Ok(ExitCode::SUCCESS)
    })
}

struct Story {
    lab: Lab,
    progress: Progress,
}

/// The Service, once the client gets answers through it.
struct Served {
    allocated: Duration,
    source_kept: bool,
    v4: Reached,
    v6: Reached,
}

/// An address of the Service.
struct Reached {
    address: IpAddr,
    /// After the Service was created.
    first_answer: Duration,
    answering: Layer2Status,
    /// Goes on asking.
    prober: Prober,
}

impl Story {
    async fn begin(entered: Entered, progress: Progress) -> Result<Self> {
        progress.step("starting a cluster of three nodes: real API server and kube-proxy, no containers");
        let lab = Lab::start(entered, LabConfig { nodes: 3, ..LabConfig::default() }, progress.shared()).await?;
        let nodes: Vec<_> = lab.nodes().iter().map(|node| format!("{} {}", node.name(), node.address())).collect();
        progress.seen(format_args!(
            "{} are Ready; a client outside the cluster is {}",
            nodes.join(", "),
            lab.client().address
        ));
        Ok(Self { lab, progress })
    }

    async fn tell(&self, options: &Options) -> Result<Report> {
        self.install().await?;
        self.create_pool().await?;
        self.start_pods().await?;
        self.settle().await?;
        let served = self.create_service().await?;
        let (gap, gap6) = self.kill_owner(&served).await?;
        let Served { allocated, source_kept, v4, v6 } = served;
        if options.keep {
            self.boot(&v4.answering.owner).await?;
        }
        Ok(Report {
            address: v4.address,
            address6: v6.address,
            allocated_ms: allocated.as_millis(),
            first_answer_ms: v4.first_answer.as_millis(),
            first_answer6_ms: v6.first_answer.as_millis(),
            source_kept,
            failover_gap_ms: gap.as_millis(),
            failover_gap6_ms: gap6.as_millis(),
            total_s: (self.progress.elapsed().as_secs_f64() * 10.0).round() / 10.0,
        })
    }

    async fn install(&self) -> Result<()> {
        self.progress.step("installing Berth: kubectl apply -f deploy/install.yaml");
        self.lab.install_berth().await?;
        self.progress.seen("2 controllers, one of which leads, and a speaker on each node are rolled out");
        Ok(())
    }

    /// Waits until the API server takes objects of Berth's kinds at once. Most often it does already.
    async fn settle(&self) -> Result<()> {
        let kinds: Api<CustomResourceDefinition> = Api::all(self.lab.admin());
        let kinds = kinds.list(&ListParams::default()).await.context("listing Berth's kinds")?;
        let ours = kinds.items.iter().filter(|kind| kind.spec.group == GROUP);
        // To the second, as the API server itself compares it.
        let Some(since) = ours.filter_map(served_since).max() else { return Ok(()) };
        let age = Duration::try_from(Timestamp::now().duration_since(since)).unwrap_or_default();
        let left = KINDS_SETTLE.saturating_sub(age);
        if !left.is_zero() {
            let (left_s, settle_s) = (left.as_secs_f64(), KINDS_SETTLE.as_secs());
            self.progress.note(format_args!(
                "waiting {left_s:.1} s: for its first {settle_s} s, the API server delays what is created of a new kind"
            ));
            tokio::time::sleep(left).await;
        }
        Ok(())
    }

    async fn create_pool(&self) -> Result<()> {
        let ranges = objects::POOL_RANGES.join(" and ");
        self.progress.step(format_args!("creating an IPAddressPool with {ranges}, and an L2Advertisement for it"));
        self.lab.apply_yaml(&objects::pool()).await?;
        let free = |pool: Option<&IPAddressPool>| {
            let status = pool?.status.as_ref()?;
            let ready = status.conditions.iter().any(|c| c.type_ == types::READY && c.status == "True");
            ready.then_some((status.available_ipv4?, status.available_ipv6?))
        };
        let (free, free6) = wait_for(Api::all(self.lab.admin()), objects::POOL, "the pool to be Ready", free).await?;
        let ready = |advertisement: Option<&L2Advertisement>| {
            let conditions = &advertisement?.status.as_ref()?.conditions;
            conditions.iter().any(|c| c.type_ == types::READY && c.status == "True").then_some(())
        };
        wait_for(Api::all(self.lab.admin()), objects::POOL, "the advertisement to be Ready", ready).await?;
        self.progress.seen(format_args!("both are Ready; {free} IPv4 and {free6} IPv6 addresses are free"));
        Ok(())
    }

    async fn start_pods(&self) -> Result<()> {
        let [first, second, ..] = self.lab.nodes() else { bail!("the demo needs two nodes for its pods") };
        let (label, value) = objects::SELECTOR;
        self.progress.step(format_args!("starting a web server on {} and one on {}", first.name(), second.name()));
        for (name, node) in [("web-1", first), ("web-2", second)] {
            self.lab.pod(PodSpec::new(name, node.name()).label(label, value)).await?;
        }
        self.progress.seen("pods web-1 and web-2 are Ready");
        Ok(())
    }

    async fn create_service(&self) -> Result<Served> {
        let progress = &self.progress;
        progress.step("creating the Service `web`: type LoadBalancer, both families, externalTrafficPolicy Local");
        let services: Api<Service> = Api::default_namespaced(self.lab.admin());
        let service = objects::service(DEFAULT_PORT)?;
        let created = Instant::now();
        let creating =
            async { services.create(&PostParams::default(), &service).await.context("creating the Service") };
        let waiting = wait_for(services.clone(), objects::SERVICE, "the Service to get two addresses", ingress);
        let (_, addresses) = tokio::try_join!(creating, waiting)?;
        let allocated = created.elapsed();
        // From the first moment on, as an impatient person would.
        let [v4, v6] = addresses
            .map(|address| (address, self.lab.client().netns.probe((address, objects::PORT).into(), ASK_EVERY)));
        let [one, other] = addresses;
        progress.seen(format_args!("its EXTERNAL-IP is {one},{other}, after {} ms", allocated.as_millis()));
        let v4 = self.reached(v4, created).await?;
        let v6 = self.reached(v6, created).await?;

        progress.step("asking it from the client, outside the cluster");
        let client = self.lab.client();
        for (reached, own) in [(&v4, IpAddr::from(client.address)), (&v6, client.address6.into())] {
            let seen = self.curl(reached.address).await?.client.ip();
            ensure!(seen == own, "the pod saw {seen} and not the client's own address {own}");
        }
        let (first, first6) = (v4.first_answer.as_millis(), v6.first_answer.as_millis());
        progress.seen(format_args!(
            "the first answers came {first} ms and {first6} ms after the Service was created; the pods saw the client's own addresses"
        ));
        Ok(Served { allocated, source_kept: true, v4, v6 })
    }

    /// Waits until an address answers, and a node says that it is the one.
    async fn reached(&self, (address, prober): (IpAddr, Prober), created: Instant) -> Result<Reached> {
        let first = prober.answered_since(created, LIMIT).await.context("asking the Service for the first time")?;
        let first_answer = first.finished.saturating_duration_since(created);
        let answering = self.answering(address, |_| true).await?;
        let Layer2Status { owner, mac, .. } = &answering;
        self.progress.seen(format_args!("{owner} says on the network: {address} is at {mac}"));
        Ok(Reached { address, first_answer, answering, prober })
    }

    /// The longest time without an answer, of each address.
    async fn kill_owner(&self, served: &Served) -> Result<(Duration, Duration)> {
        let dead = &served.v4.answering.owner;
        let every = ASK_EVERY.as_millis();
        self.progress.step(format_args!(
            "{dead} dies: its cable is cut and its processes are killed; the client asks each address every {every} ms"
        ));
        let died = Instant::now();
        self.lab.crash_node(dead).await?;
        let (v4, v6) = tokio::try_join!(self.survived(&served.v4, dead, died), self.survived(&served.v6, dead, died))?;
        for (_, told) in [&v4, &v6] {
            self.progress.seen(told);
        }
        let ((gap, _), (gap6, _)) = (v4, v6);
        self.progress.step("asking again");
        for reached in [&served.v4, &served.v6] {
            let answer = self.curl(reached.address).await?;
            ensure!(answer.node != *dead, "the answer comes from {dead}, which is dead");
        }
        Ok((gap, gap6))
    }

    /// Waits until an address has answered for a while after the death of a node; how long it did not, and the same in words.
    async fn survived(&self, reached: &Reached, dead: &str, died: Instant) -> Result<(Duration, String)> {
        let Reached { address, answering, prober, .. } = reached;
        let again =
            prober.answered_since(Instant::now(), LIMIT).await.context("waiting for an answer after the crash")?;
        prober.answered_since(again.finished + AFTERWARDS, LIMIT).await.context("waiting for further answers")?;
        let gap = prober.observation().longest_gap_since(died);
        let Layer2Status { owner, mac, .. } = self.answering(*address, |layer2| layer2.owner != dead).await?;
        let what =
            if answering.owner == dead { "noticed, asked the network, and took over" } else { "goes on answering" };
        let gap_ms = gap.as_millis();
        Ok((gap, format!("{owner} {what}: {address} is at {mac}; the client had no answer for {gap_ms} ms")))
    }

    async fn boot(&self, node: &str) -> Result<()> {
        self.progress.step(format_args!("booting {node} again"));
        self.lab.boot_node(node).await?;
        self.progress.seen("it is back, and stands by: nothing moves without need");
        Ok(())
    }

    /// The real curl, as a person would type it.
    async fn curl(&self, address: IpAddr) -> Result<Answer> {
        let url = objects::url(address);
        let mut curl = tokio::process::Command::from(self.lab.client().netns.command("curl"));
        let output = curl.args(["--silent", "--show-error", "--max-time", "5", &url]).output().await;
        let output = output.context("starting `curl`")?;
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if !output.status.success() {
            bail!("`curl {url}` on the client failed: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        self.progress.seen(format_args!("curl {url} says {text}"));
        serde_json::from_str(&text).with_context(|| format!("`{text}` is not the answer of a web server of the demo"))
    }

    /// Who answers for the address, as it says itself.
    async fn answering(&self, address: IpAddr, fits: impl Fn(&Layer2Status) -> bool) -> Result<Layer2Status> {
        let name = announcement_name(address);
        let layer2 = |announcement: Option<&Announcement>| {
            announcement?.status.as_ref()?.layer2.clone().filter(|layer2| fits(layer2))
        };
        wait_for(Api::all(self.lab.admin()), &name, "a node to say that it answers", layer2).await
    }
}

/// Watches an object until something is found in it. When time is up, says what its conditions say.
async fn wait_for<K, T>(api: Api<K>, name: &str, what: &str, find: impl Fn(Option<&K>) -> Option<T>) -> Result<T>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Serialize + fmt::Debug + Send + 'static,
{
    let found = |object: Option<&K>| find(object).is_some();
    if let Ok(object) = timeout(LIMIT, await_condition(api.clone(), name, found)).await {
        let object = object.with_context(|| format!("waiting for {what}"))?;
        return find(object.as_ref()).with_context(|| format!("waiting for {what}: it is gone again"));
    }
    let kind = K::kind(&());
    let object = serde_json::to_value(api.get_opt(name).await?)?;
    bail!("waited {} s for {what}; {kind} `{name}` says: {}", LIMIT.as_secs(), conditions(&object))
}

/// The conditions of any object, for a message.
fn conditions(object: &Value) -> String {
    let text = |condition: &Value, key| condition[key].as_str().unwrap_or_default().to_owned();
    let conditions = object["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let words = conditions
        .iter()
        .map(|c| format!("{}={} {}: {}", text(c, "type"), text(c, "status"), text(c, "reason"), text(c, "message")));
    match words.collect::<Vec<_>>() {
        none if none.is_empty() => "nothing".to_owned(),
        words => words.join("; "),
    }
}

/// Since when the API server serves a kind.
fn served_since(kind: &CustomResourceDefinition) -> Option<Timestamp> {
    let conditions = kind.status.as_ref()?.conditions.as_ref()?;
    let established = conditions.iter().find(|condition| condition.type_ == "Established")?;
    Some(established.last_transition_time.as_ref()?.0)
}

/// The addresses in a Service's status, that of IPv4 first; nothing until there is one of each family.
fn ingress(service: Option<&Service>) -> Option<[IpAddr; 2]> {
    let ingress = service?.status.as_ref()?.load_balancer.as_ref()?.ingress.as_ref()?;
    let all: Vec<IpAddr> = ingress.iter().filter_map(|ingress| ingress.ip.as_ref()?.parse().ok()).collect();
    let of = |is_v4| all.iter().copied().find(|address| address.is_ipv4() == is_v4);
    Some([of(true)?, of(false)?])
}

/// The report, for a person.
fn summary(report: &Report) -> String {
    let Report { address, address6, allocated_ms, total_s, .. } = report;
    let (first, first6) = (report.first_answer_ms, report.first_answer6_ms);
    let (gap, gap6) = (report.failover_gap_ms, report.failover_gap6_ms);
    format!(
        "\naddresses                        {address} and {address6}\n\
         Service created -> addresses     {allocated_ms} ms\n\
         Service created -> first answer  {first} ms and {first6} ms\n\
         client's own address kept        yes\n\
         node died -> answered again      {gap} ms and {gap6} ms without an answer\n\
         whole demo                       {total_s} s"
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_conditions_of_an_object_are_told_in_its_own_words() {
        let refused = json!({"status": {"conditions": [
            {"type": "berth.dev/Allocated", "status": "False", "reason": "PoolExhausted", "message": "all are taken"},
        ]}});
        assert_eq!(conditions(&refused), "berth.dev/Allocated=False PoolExhausted: all are taken");
        assert_eq!(conditions(&Value::Null), "nothing");
    }
}
