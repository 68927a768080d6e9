//! The nodes' dataplanes: nobody answers before its node serves, and load balancers in front of the cluster are told the truth.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use berth_api::SpeakerNode;
use berth_api::annotations::MOVE_TO;
use berth_api::crd::{Dataplane, KubeProxy};
use berth_api::names::{EXCLUDE_NODE_LABEL, announcement_name};
use berth_lab::{BerthConfig, Lab, LabConfig, PodEdit, Response, lab_test};
use berth_wire::ndp;
use k8s_openapi::api::core::v1::Pod as PodObject;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::cluster::{Cluster, EVERY, SOON, answers, http};

/// Longest wait until a speaker serves health checks: kube-proxy and the port have to refuse for a minute each.
const GIVEN_UP: Duration = Duration::from_secs(150);
/// How often a load balancer asks, and how many bad answers in a row it takes for a failure. Clouds ask every 5 to 10 s.
const ASKED_EVERY: Duration = Duration::from_secs(1);
/// Longest wait for an answer on one LAN.
const ANSWER_LIMIT: Duration = Duration::from_millis(900);

const DUAL: &str = "
apiVersion: berth.dev/v1alpha1
kind: IPAddressPool
metadata: {name: dual}
spec: {addresses: [192.0.2.210-192.0.2.219, '2001:db8:2::210-2001:db8:2::219']}
";

fn dual() -> Value {
    json!({"ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv4", "IPv6"]})
}

fn is_advertisement(frame: &ndp::Frame) -> bool {
    matches!(frame.message, ndp::Message::Advertisement { .. })
}

/// The reason of the Announcement's condition Ready.
async fn ready(cluster: &Cluster, address: IpAddr) -> Result<String> {
    let status = cluster.announcements().get(&announcement_name(address)).await?.status.unwrap_or_default();
    let ready = status.conditions.into_iter().find(|condition| condition.type_ == "Ready");
    ready.map(|condition| condition.reason).context("nobody has answered yet")
}

async fn is_ready(cluster: &Cluster, address: IpAddr, reason: &str) -> Result<()> {
    let what = format!("the Announcement of {address} is Ready with reason {reason}");
    cluster
        .lab
        .eventually(&what, SOON, async || {
            let said = ready(cluster, address).await?;
            ensure!(said == reason, "it is {said}");
            Ok(Some(()))
        })
        .await
}

lab_test! {
    LabConfig { nodes: 1, kube_proxy: true };
    async fn a_node_answers_when_its_kube_proxy_forwards_and_not_before(lab: Lab) -> Result<()> {
        let cluster = Cluster::start(lab.clone()).await?;
        lab.apply_yaml(DUAL).await?;
        cluster.pod("web", "node-1").await?;
        let (arp, ndp) = (lab.client().netns.watch_arp("eth0")?, lab.client().netns.watch_ndp("eth0")?);
        let kube_proxy = lab.node("node-1")?.kube_proxy().context("a kube-proxy")?;
        kube_proxy.pause()?;
        cluster.service("web", dual()).await?;
        let addresses = cluster.addresses("web").await?;
        let probers = addresses.map(|address| lab.client().netns.probe(http(address), EVERY));
        kube_proxy.resume()?;
        let resumed = Instant::now();
        for prober in &probers {
            prober.answered(SOON).await?;
        }
        let [v4, v6] = addresses;
        let announced = [
            arp.find(SOON, |seen| IpAddr::from(seen.frame.arp.sender_ip) == v4 && seen.frame.arp.is_gratuitous()).await?.at,
            ndp.find(SOON, |seen| IpAddr::from(seen.frame.target) == v6 && is_advertisement(&seen.frame)).await?.at,
        ];
        for ((prober, announced), address) in probers.iter().zip(announced).zip(addresses) {
            ensure!(announced > resumed, "{address} was announced while kube-proxy could not know of it");
            let observation = prober.observation();
            let failed: Vec<_> = observation.failed().filter(|(attempt, _)| attempt.started > announced).collect();
            ensure!(failed.is_empty(), "connections to {address} failed after it was announced: {failed:?}");
            is_ready(&cluster, address, "Answering").await?;
        }
        Ok(())
    }
}

lab_test! {
    LabConfig { nodes: 1, kube_proxy: true };
    async fn a_node_that_does_not_serve_answers_after_its_time_says_so_and_takes_it_back(lab: Lab) -> Result<()> {
        let cluster = Cluster::start(lab.clone()).await?;
        lab.apply_yaml(DUAL).await?;
        cluster.pod("web", "node-1").await?;
        let kube_proxy = lab.node("node-1")?.kube_proxy().context("a kube-proxy")?;
        for policy in ["Cluster", "Local"] {
            kube_proxy.pause()?;
            let spec = json!({"externalTrafficPolicy": policy, "ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv4", "IPv6"]});
            cluster.service("web", spec).await?;
            let addresses = cluster.addresses("web").await?;
            for address in addresses {
                is_ready(&cluster, address, "NotServing").await.context(policy)?;
            }
            kube_proxy.resume()?;
            for address in addresses {
                is_ready(&cluster, address, "Answering").await.context(policy)?;
            }
            cluster.delete("web").await?;
            cluster.lab.eventually("the Announcements go", SOON, async || {
                let left = cluster.announcements().list_metadata(&kube::api::ListParams::default()).await?.items.len();
                Ok((left == 0).then_some(()))
            }).await?;
        }
        Ok(())
    }
}

lab_test! {
    LabConfig { nodes: 2, kube_proxy: true };
    async fn a_connection_that_another_node_answers_by_the_wire_proves_nothing(lab: Lab) -> Result<()> {
        let cluster = Cluster::start(lab.clone()).await?;
        lab.apply_yaml(DUAL).await?;
        cluster.pod("web", "node-1").await?;
        // Its rules lead to the API server, and not to what comes later.
        let second = lab.node("node-2")?;
        second.kube_proxy().context("a kube-proxy")?.kill().await?;
        second.label(&[(EXCLUDE_NODE_LABEL, Some(""))]).await?;
        cluster.service("web", dual()).await?;
        let addresses = cluster.addresses("web").await?;
        for address in addresses {
            assert_eq!(cluster.owner(address, |_| true).await?, "node-1");
            answers(second.netns(), address).await.context("by the wire")?;
        }
        second.label(&[(EXCLUDE_NODE_LABEL, None)]).await?;
        for address in addresses {
            cluster.settled(address, 1).await?;
            let wish = Patch::Merge(json!({"metadata": {"annotations": {MOVE_TO: "node-2"}}}));
            cluster.announcements().patch(&announcement_name(address), &PatchParams::default(), &wish).await?;
            cluster.owner(address, |node| node == "node-2").await?;
            is_ready(&cluster, address, "NotServing").await?;
        }
        Ok(())
    }
}

/// Berth as it is installed where not every node runs kube-proxy, with these arguments for the speakers.
fn without_kube_proxy(lab: &Lab, args: &[&str]) -> BerthConfig {
    let env = lab.api_server_environment();
    let controller = PodEdit { env: env.clone(), ..PodEdit::default() };
    BerthConfig { controller, speaker: PodEdit { env, ..PodEdit::args(args) }, ..BerthConfig::default() }
}

/// What a node answers at a health check node port, to somebody on the LAN.
async fn check(lab: &Lab, node: &str, port: u16) -> Result<Response> {
    let to = SocketAddr::from((lab.node(node)?.address(), port));
    lab.client().netns.http_get(to, "/healthz", ANSWER_LIMIT).await
}

/// Waits until a node answers with this code.
async fn checks(lab: &Lab, node: &str, port: u16, code: u16, limit: Duration) -> Result<Value> {
    lab.eventually(&format!("{node} answers its health check with {code}"), limit, async || {
        let answer = check(lab, node, port).await?;
        ensure!(answer.status == code, "it is {}: {}", answer.status, answer.body);
        Ok(Some(serde_json::from_str(&answer.body)?))
    })
    .await
}

async fn dataplane(lab: &Lab, node: &str, expected: Dataplane, limit: Duration) -> Result<()> {
    let nodes: Api<SpeakerNode> = Api::all(lab.admin());
    lab.eventually(&format!("the SpeakerNode of {node} says {expected:?}"), limit, async || {
        let found = nodes.get(node).await?.spec.dataplane;
        ensure!(found == Some(expected), "it is {found:?}");
        Ok(Some(()))
    })
    .await
}

/// A load balancer in front of a node: the longest run of bad answers, until it is told to end.
fn load_balancer(lab: &Lab, node: &str, port: u16) -> tokio::task::JoinHandle<Result<usize>> {
    let (lab, node) = (lab.clone(), node.to_owned());
    tokio::spawn(async move {
        let (mut bad, mut longest) = (0, 0);
        let end = Instant::now() + Duration::from_secs(20);
        while Instant::now() < end {
            let good = check(&lab, &node, port).await.is_ok_and(|answer| answer.status == 200);
            bad = if good { 0 } else { bad + 1 };
            longest = longest.max(bad);
            tokio::time::sleep(ASKED_EVERY).await;
        }
        Ok(longest)
    })
}

lab_test! {
    LabConfig { nodes: 2, kube_proxy: true };
    async fn health_checks_are_answered_where_kube_proxy_is_missing_and_left_to_it_when_it_comes(lab: Lab) -> Result<()> {
        // Before Berth, so that no speaker ever meets it.
        lab.node("node-2")?.kube_proxy().context("a kube-proxy")?.kill().await?;
        let cluster = Cluster::start_with(lab.clone(), &without_kube_proxy(&lab, &[])).await?;
        dataplane(&lab, "node-1", Dataplane { kube_proxy: KubeProxy::Fresh, health_checks: false }, SOON).await?;
        let pods = [cluster.pod("web", "node-1").await?, cluster.pod("web", "node-2").await?];
        let service = cluster.service("web", json!({"externalTrafficPolicy": "Local"})).await?;
        let port = service.spec.and_then(|spec| spec.health_check_node_port).context("a health check node port")?;
        let port = u16::try_from(port)?;
        let address = cluster.address("web").await?;
        // Of two that could, the one that is known to forward.
        assert_eq!(cluster.owner(address, |_| true).await?, "node-1");

        let expected = checks(&lab, "node-1", port, 200, SOON).await?;
        ensure!(check(&lab, "node-2", port).await.is_err(), "nobody answers on node-2 yet");
        dataplane(&lab, "node-2", Dataplane { kube_proxy: KubeProxy::Absent, health_checks: true }, GIVEN_UP).await?;
        assert_eq!(checks(&lab, "node-2", port, 200, GIVEN_UP).await?, expected, "as kube-proxy answers");

        // Not ready, ready again, and about to end: the same on both.
        for (what, code) in [("not ready", 503), ("ready", 200), ("ending", 503)] {
            for pod in &pods {
                match what {
                    "not ready" => pod.set_ready(false).await?,
                    "ready" => pod.set_ready(true).await?,
                    _ => {
                        // It serves on for its grace period; health checks take it out at once.
                        let grace = DeleteParams::default().grace_period(60);
                        Api::<PodObject>::default_namespaced(lab.admin()).delete(pod.name(), &grace).await?;
                    }
                }
            }
            let expected = checks(&lab, "node-1", port, code, SOON).await.context(what)?;
            assert_eq!(checks(&lab, "node-2", port, code, SOON).await.context(what)?, expected, "{what}");
        }
        for pod in &pods {
            pod.delete().await?;
        }
        cluster.pod("web", "node-2").await.context("another one")?;
        checks(&lab, "node-2", port, 200, SOON).await?;

        // kube-proxy comes late: it gets its port, and no load balancer notices.
        let watcher = load_balancer(&lab, "node-2", port);
        lab.start_kube_proxy("node-2").await?;
        dataplane(&lab, "node-2", Dataplane { kube_proxy: KubeProxy::Fresh, health_checks: false }, SOON).await?;
        let longest = watcher.await??;
        ensure!(longest < 3, "{longest} bad answers in a row");
        ensure!(check(&lab, "node-2", port).await?.status == 200);
        lab.eventually("the speaker has let the port go", SOON, async || {
            let page = lab.speaker_metrics("node-2").await?;
            Ok(page.lines().any(|line| line == "berth_speaker_health_checks 0").then_some(()))
        })
        .await
    }
}

lab_test! {
    LabConfig { nodes: 1, kube_proxy: true };
    async fn health_checks_are_answered_at_once_where_the_operator_says_so_also_after_a_restart(lab: Lab) -> Result<()> {
        lab.node("node-1")?.kube_proxy().context("a kube-proxy")?.kill().await?;
        let config = without_kube_proxy(&lab, &["--health-check-server=on"]);
        let cluster = Cluster::start_with(lab.clone(), &config).await?;
        cluster.pod("web", "node-1").await?;
        let service = cluster.service("web", json!({"externalTrafficPolicy": "Local"})).await?;
        let port = u16::try_from(service.spec.and_then(|spec| spec.health_check_node_port).context("a port")?)?;
        checks(&lab, "node-1", port, 200, SOON).await?;
        lab.speaker("node-1")?.kill().await?;
        lab.speaker_ready("node-1").await?;
        checks(&lab, "node-1", port, 200, SOON).await.context("after a restart")?;
        cluster.delete("web").await?;
        lab.eventually("the port says that there is nothing any more", SOON, async || {
            Ok(check(&lab, "node-1", port).await.is_ok_and(|answer| answer.status == 503).then_some(()))
        })
        .await
    }
}
