//! Addresses for tests, as slow and as failing as annotations say.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use berth_lab::{BerthConfig, Lab, PodEdit, Request, lab_test};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Service;
use kube::Api;
use kube::api::{DeleteParams, ListParams};
use kube::runtime::watcher::{self, Event, watcher};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::classes::BOTH;
use crate::cluster::{Cluster, SOON, published};

/// Long enough for whatever is tried again within a second to be seen.
const QUIET: Duration = Duration::from_secs(3);

fn spec() -> Value {
    json!({"type": "LoadBalancer", "loadBalancerClass": "berth.dev/mock", "ports": [{"port": 80}]})
}

/// What the status of every Service said, one after the other.
struct Statuses {
    seen: Arc<Mutex<Vec<Said>>>,
    task: JoinHandle<()>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Said {
    name: String,
    published: Vec<String>,
    /// Reason and status of the condition Allocated.
    allocated: Option<(String, String)>,
}

impl Statuses {
    fn watch(services: Api<Service>) -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let into = seen.clone();
        let task = tokio::spawn(async move {
            let mut events = std::pin::pin!(watcher(services, watcher::Config::default()));
            while let Some(event) = events.next().await {
                if let Ok(Event::Apply(service) | Event::InitApply(service)) = event {
                    into.lock().unwrap_or_else(PoisonError::into_inner).push(Said::of(&service));
                }
            }
        });
        Self { seen, task }
    }

    /// All that was said of one, repetitions left out.
    fn of(&self, name: &str) -> Vec<Said> {
        let mut said = self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
        said.retain(|said| said.name == name);
        said.dedup();
        said
    }
}

impl Drop for Statuses {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Said {
    fn of(service: &Service) -> Self {
        let conditions = service.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default();
        let allocated = conditions.iter().find(|c| c.type_ == "berth.dev/Allocated");
        Self {
            name: service.metadata.name.clone().unwrap_or_default(),
            published: published(service),
            allocated: allocated.map(|c| (c.reason.clone(), c.status.clone())),
        }
    }
}

/// Failures of the mock with this class, as the leader counts them.
async fn failures(lab: &Lab, class: &str) -> Result<u32> {
    let line = format!("berth_controller_provider_failures_total{{provider=\"mock\",class=\"{class}\"}} ");
    let page = lab.controller_metrics().await?;
    page.lines().find_map(|l| l.strip_prefix(&line)).map_or(Ok(0), |count| Ok(count.parse()?))
}

lab_test! {
    async fn annotations_script_how_slowly_and_after_which_failures_an_address_comes(lab: Lab) -> Result<()> {
        let cluster = Cluster::start_with_args(lab.clone(), &BOTH).await?;
        cluster.service("of-the-pool", json!({"loadBalancerClass": "berth.dev/pool"})).await?;
        let statuses = Statuses::watch(cluster.services());
        let reasons = |name: &str| {
            let mut reasons: Vec<_> = statuses.of(name).into_iter().filter_map(|said| said.allocated).collect();
            reasons.dedup();
            reasons.into_iter().map(|(reason, _)| reason).collect::<Vec<_>>()
        };

        // One that takes its time.
        let begin = Instant::now();
        cluster.annotated("slow", json!({"mock.berth.dev/latency": "2s"}), spec()).await?;
        let (status, _) = cluster.reason("slow", "berth.dev/Allocated", "Provisioning").await?;
        assert_eq!(status, "False");
        let address = cluster.address("slow").await?;
        let took = begin.elapsed();
        ensure!(took >= Duration::from_secs(2), "it was there after {took:?}");
        assert_eq!(address.to_string(), "203.0.113.1");
        assert_eq!(cluster.reason("slow", "berth.dev/Allocated", "Allocated").await?.0, "True");
        assert_eq!(reasons("slow"), ["Provisioning", "Allocated"]);
        for said in statuses.of("slow") {
            let allocated = said.allocated.as_ref().is_some_and(|(_, status)| status == "True");
            assert_eq!(!said.published.is_empty(), allocated, "the address and the condition come together: {said:?}");
        }

        // One that comes up at the third attempt.
        cluster.annotated("third", json!({"mock.berth.dev/faults": "transient:2"}), spec()).await?;
        cluster.publishes("third", &["203.0.113.2"]).await?;
        assert_eq!(failures(&lab, "transient").await?, 2);
        assert_eq!(reasons("third").first().map(String::as_str), Some("ProviderUnavailable"), "{:?}", statuses.of("third"));
        let events = cluster.events("third").await?;
        ensure!(events.iter().all(|e| e.reason.as_deref() == Some("Allocated")), "it mends itself: {events:?}");

        // One that never comes.
        cluster.annotated("never", json!({"mock.berth.dev/faults": "permission:forever"}), spec()).await?;
        let (status, message) = cluster.reason("never", "berth.dev/Allocated", "PermissionDenied").await?;
        ensure!(status == "False" && message.contains("mock.berth.dev/faults"), "{message}");
        cluster.event("never", "PermissionDenied").await?;

        // One with a name.
        cluster.annotated("named", json!({"mock.berth.dev/hostname": "web.example.com"}), spec()).await?;
        cluster.publishes("named", &["web.example.com"]).await?;
        let ingress = cluster.services().get("named").await?.status.and_then(|s| s.load_balancer?.ingress).context("ingress")?;
        assert_eq!(ingress[0].hostname.as_deref(), Some("web.example.com"));

        // One with a slip of the pen, which takes nothing away from what is published, and is mended.
        cluster.annotated("slip", json!({"mock.berth.dev/latencey": "1s"}), spec()).await?;
        let (status, message) = cluster.reason("slip", "berth.dev/Allocated", "InvalidRequest").await?;
        ensure!(status == "False" && message.contains("mock.berth.dev/latencey is none of the mock's"), "{message}");
        ensure!(cluster.event("slip", "InvalidRequest").await?.contains("mock.berth.dev/latencey"));
        cluster.edit("slip", json!({"metadata": {"annotations": {"mock.berth.dev/latencey": null}}})).await?;
        cluster.publishes("slip", &["203.0.113.4"]).await?;
        cluster.edit("slip", json!({"metadata": {"annotations": {"mock.berth.dev/latency": "soon"}}})).await?;
        let (_, message) = cluster.reason("slip", "berth.dev/Allocated", "InvalidRequest").await?;
        ensure!(message.contains("mock.berth.dev/latency: `soon` is no time"), "{message}");
        assert_eq!(cluster.published("slip").await?, ["203.0.113.4"]);
        cluster.edit("slip", json!({"metadata": {"annotations": {"mock.berth.dev/latency": null}}})).await?;
        cluster.reason("slip", "berth.dev/Allocated", "Allocated").await?;

        // And then nobody writes anything, whatever failed.
        cluster.settled(cluster.address("of-the-pool").await?, 2).await?;
        lab.eventually("the writes of the last changes are over", SOON, async || {
            let before = writes(&lab)?.len();
            tokio::time::sleep(Duration::from_secs(1)).await;
            Ok((writes(&lab)?.len() == before).then_some(()))
        })
        .await?;
        let before = writes(&lab)?;
        tokio::time::sleep(QUIET).await;
        let more = writes(&lab)?.split_off(before.len());
        ensure!(more.is_empty(), "nothing changed, and this was written: {more:#?}");
        assert_eq!(failures(&lab, "permission").await?, 1, "it is tried again after a minute");
        let denied = cluster.events("never").await?;
        ensure!(denied.len() == 1 && denied[0].series.is_none(), "a person is told once: {denied:?}");
        Ok(())
    }
}

/// What the controllers wrote, but for their Lease.
fn writes(lab: &Lab) -> Result<Vec<Request>> {
    let mut all = lab.audited()?;
    all.retain(|request| {
        request.account == "berth-controller"
            && request.resource != "leases"
            && !matches!(request.verb.as_str(), "get" | "list" | "watch")
    });
    Ok(all)
}

lab_test! {
    async fn the_successor_of_a_killed_leader_publishes_the_same_and_finishes_what_was_begun(lab: Lab) -> Result<()> {
        let cluster = Cluster::start_with_args(lab.clone(), &BOTH).await?;
        for number in 0..20 {
            cluster.annotated(&format!("web-{number:02}"), json!({}), spec()).await?;
        }
        cluster.annotated("named", json!({"mock.berth.dev/hostname": "web.example.com"}), spec()).await?;
        cluster.annotated("slow", json!({"mock.berth.dev/latency": "1s"}), spec()).await?;
        let names: Vec<_> = (0..20).map(|number| format!("web-{number:02}")).chain(["named".to_owned(), "slow".to_owned()]).collect();
        for name in &names {
            cluster.reason(name, "berth.dev/Allocated", "Allocated").await?;
        }
        // Its name is the first, so that it is looked at before all that had an address before it.
        cluster.annotated("a-beginning", json!({"mock.berth.dev/latency": "4s"}), spec()).await?;
        cluster.reason("a-beginning", "berth.dev/Allocated", "Provisioning").await?;
        let statuses = Statuses::watch(cluster.services());
        lab.eventually("the watch has begun", SOON, async || Ok(statuses.of("web-19").pop())).await?;

        let (leader, successor) = (lab.controller().await?, lab.standby_controller().await?);
        ensure!(leader.node() != successor.node(), "both are on {}", leader.node());
        lab.crash_node(leader.node()).await?;
        let killed = Instant::now();
        // This one comes while nobody leads.
        cluster.annotated("a-new", json!({}), spec()).await?;
        let new = cluster.address("a-new").await?;
        println!("leader killed -> new Service served: {:?}", killed.elapsed());
        assert_eq!(lab.controller().await?.pod(), successor.pod());
        let begun = cluster.address("a-beginning").await?;
        for name in &names {
            let said = statuses.of(name);
            assert_eq!(said.len(), 1, "it never said anything else: {said:?}");
        }
        let mut all = Vec::new();
        for service in cluster.services().list(&ListParams::default()).await? {
            all.extend(published(&service));
        }
        ensure!(all.contains(&new.to_string()) && all.contains(&begun.to_string()), "{all:?}");
        let count = all.len();
        all.sort();
        all.dedup();
        assert_eq!((count, all.len()), (24, 24), "no address is given twice: {all:?}");

        // Everything goes, and is free again.
        for service in cluster.services().list(&ListParams::default()).await? {
            let name = service.metadata.name.unwrap_or_default();
            if name != "kubernetes" {
                ensure!(service.metadata.finalizers.unwrap_or_default().is_empty(), "{name} can go without Berth");
                cluster.services().delete(&name, &DeleteParams::default()).await?;
            }
        }
        cluster.service("first", json!({})).await?;
        let first = cluster.address("first").await?;
        ensure!(first.to_string().starts_with("203.0.113."), "{first}");
        cluster.annotated("last", json!({"berth.dev/load-balancer-ips": "203.0.113.20"}), spec()).await?;
        cluster.publishes("last", &["203.0.113.20"]).await?;
        ensure!(cluster.announcements().list(&ListParams::default()).await?.items.is_empty());
        Ok(())
    }
}

lab_test! {
    async fn the_only_controller_is_started_again_and_goes_by_what_is_published(lab: Lab) -> Result<()> {
        let controller = PodEdit::args(&["--providers=mock", "--default-provider=mock"]);
        let config = BerthConfig { controller, controller_replicas: Some(1), ..BerthConfig::default() };
        let cluster = Cluster::start_with(lab.clone(), &config).await?;
        for name in ["b-plain", "c-slow", "d-named"] {
            let annotations = match name {
                "c-slow" => json!({"mock.berth.dev/latency": "1s"}),
                "d-named" => json!({"mock.berth.dev/hostname": "web.example.com"}),
                _ => json!({}),
            };
            cluster.annotated(name, annotations, spec()).await?;
            cluster.reason(name, "berth.dev/Allocated", "Allocated").await?;
        }
        let statuses = Statuses::watch(cluster.services());
        lab.eventually("the watch has begun", SOON, async || Ok(statuses.of("d-named").pop())).await?;
        let controller = lab.controller().await?;
        let restarts = controller.restarts();
        controller.kill().await?;
        cluster.annotated("a-new", json!({}), spec()).await?;
        controller.restarted(restarts, SOON).await?;
        let new = cluster.address("a-new").await?.to_string();
        for name in ["b-plain", "c-slow", "d-named"] {
            let said = statuses.of(name);
            assert_eq!(said.len(), 1, "it never said anything else: {said:?}");
            ensure!(!said[0].published.contains(&new), "{name} has {new}");
        }
        Ok(())
    }
}
