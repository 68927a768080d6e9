//! A pod on its node, from the moment the kubelet sees it until its object is gone.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use futures::StreamExt as _;
use futures::future::join_all;
use futures::stream::select_all;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout};

use super::container::{Container, Ended, Identity, Now, State};
use super::downward::Addresses;
use super::rootfs::Bind;
use super::runner::{self, PodContext, now};
use super::status::{ContainerFacts, PodFacts, build};
use super::template::{self, PodTemplate, Refusal};
use super::volumes::Volumes;
use super::{Kubelet, Running};
use crate::netns::Netns;
use crate::pod_network::PodNetwork;

/// Between two attempts at what the API server refused, or what it does not have yet: short against what suites wait for.
const TRY_AGAIN: Duration = Duration::from_millis(200);
/// Longest wait for the API server's answer to a write of a status.
const WRITE_LIMIT: Duration = Duration::from_secs(5);
/// How often the sources of volumes are looked at again. A kubelet does so about once a minute; tests wait for it.
const VOLUMES_SYNC: Duration = Duration::from_secs(5);
/// What a pod gets whose object is gone already.
const GONE_GRACE: Duration = Duration::from_secs(1);
/// What the kubelet finds after its node's crash, when nobody can tell how a container ended: what a runtime says of such.
const LOST_EXIT_CODE: i32 = 255;

/// What the kubelet tells a pod's worker.
#[derive(Debug, Clone)]
pub(crate) enum Seen {
    /// The newest version of its object.
    Object(Box<Pod>),
    /// There is no object any more.
    Gone,
}

/// A pod's own network, taken away when it is dropped.
struct Sandbox(Option<PodNetwork>);

impl Drop for Sandbox {
    fn drop(&mut self) {
        // What cannot be removed goes with the lab.
        if let Some(network) = &self.0 {
            let _ = network.remove();
        }
    }
}

struct Worker<'a> {
    kubelet: &'a Kubelet,
    running: Running,
    pods: Api<Pod>,
    name: String,
    uid: String,
    started: Time,
    addresses: Addresses,
    containers: Vec<(ContainerFacts, Container)>,
    /// The status as it was written last.
    written: Option<Value>,
}

/// Sees to a pod until its object is gone.
pub(crate) async fn run(kubelet: Kubelet, running: Running, pod: Pod, mut seen: watch::Receiver<Seen>) {
    let uid = pod.uid().unwrap_or_default();
    let pods = Api::namespaced(kubelet.client().clone(), &pod.namespace().unwrap_or_default());
    let status = pod.status.as_ref();
    let mut worker = Worker {
        kubelet: &kubelet,
        running,
        pods,
        name: pod.name_any(),
        uid: uid.clone(),
        started: status.and_then(|status| status.start_time.clone()).unwrap_or_else(now),
        addresses: Addresses { pod: Vec::new(), host: kubelet.node().addresses().to_vec() },
        containers: Vec::new(),
        written: None,
    };
    match template::read(&pod) {
        Ok(template) => Box::pin(worker.serve(pod, template, &mut seen)).await,
        Err(refusal) => worker.refuse(&pod, &refusal, &mut seen).await,
    }
    kubelet.containers().forget(&uid);
}

impl Worker<'_> {
    /// Says why the pod is not run, until it is deleted.
    async fn refuse(&mut self, pod: &Pod, refusal: &Refusal, seen: &mut watch::Receiver<Seen>) {
        let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
        let waiting = containers.map(|container| {
            let facts =
                ContainerFacts { name: container.name.clone(), image: container.image.clone().unwrap_or_default() };
            let now = Now::Waiting { reason: "CreateContainerConfigError", message: refusal.clone() };
            (facts, State { now, last: None, restarts: 0, started: false, ready: false })
        });
        let containers: Vec<_> = waiting.collect();
        while self.write(containers.clone(), false).await.is_err() {
            sleep(TRY_AGAIN).await;
        }
        if ending(seen).await.is_some() {
            self.delete().await;
        }
    }

    async fn serve(&mut self, pod: Pod, template: PodTemplate, seen: &mut watch::Receiver<Seen>) {
        let prepared = tokio::select! {
            _ = ending(seen) => None,
            prepared = self.prepare(&pod, &template) => Some(prepared),
        };
        let object_is_there = match prepared {
            None => !matches!(&*seen.borrow(), Seen::Gone),
            Some((_sandbox, netns, mut volumes)) => {
                self.run_containers(pod, &template, netns, &mut volumes, seen).await
            }
        };
        if object_is_there {
            self.delete().await;
        }
    }

    /// Network and volumes, tried until both are there.
    async fn prepare(&mut self, pod: &Pod, template: &PodTemplate) -> (Sandbox, Netns, Volumes) {
        self.containers = template
            .containers
            .iter()
            .map(|container| {
                let facts = ContainerFacts { name: container.name.clone(), image: container.image_name.clone() };
                let mut held = self.kubelet.containers().take_up(self.identity(template, &container.name));
                take_over(&mut held, pod, &container.name);
                (facts, held)
            })
            .collect();
        let mut sandbox = None;
        loop {
            let attempt = self.try_prepare(pod, template, &mut sandbox).await;
            match (attempt, sandbox.take()) {
                (Ok(volumes), Some((sandbox, netns))) => return (sandbox, netns, volumes),
                (Err(error), kept) => {
                    sandbox = kept;
                    let message = format!("{error:#}");
                    for (_, container) in &self.containers {
                        let message = message.clone();
                        container.change(|state| state.now = Now::Waiting { reason: "ContainerCreating", message });
                    }
                    self.tell(false).await;
                    sleep(TRY_AGAIN).await;
                }
                (Ok(_), None) => {}
            }
        }
    }

    async fn try_prepare(
        &mut self,
        pod: &Pod,
        template: &PodTemplate,
        sandbox: &mut Option<(Sandbox, Netns)>,
    ) -> Result<Volumes> {
        if sandbox.is_none() {
            let node = self.kubelet.node();
            let (made, netns, addresses): (_, _, Vec<IpAddr>) = if template.host_network {
                (Sandbox(None), node.netns().clone(), node.addresses().to_vec())
            } else {
                let name = format!("pod.{}.{}", template.namespace, template.name);
                let network = PodNetwork::create(node, &name).context("making the pod's network")?;
                let (netns, addresses) = (network.netns().clone(), network.addresses().to_vec());
                (Sandbox(Some(network)), netns, addresses)
            };
            for (_, container) in &self.containers {
                container.set_address(addresses.first().copied());
            }
            self.addresses.pod = addresses;
            *sandbox = Some((made, netns));
        }
        let mut volumes = Volumes::new(self.kubelet.client().clone(), template.clone())?;
        volumes.update(pod, &self.addresses).await?;
        Ok(volumes)
    }

    /// Until all containers have ended for good. Whether the object is still there.
    async fn run_containers(
        &mut self,
        pod: Pod,
        template: &PodTemplate,
        netns: Netns,
        volumes: &mut Volumes,
        seen: &mut watch::Receiver<Seen>,
    ) -> bool {
        let root_only = runner::root_only().unwrap_or_default();
        let context = Arc::new(PodContext {
            client: self.kubelet.client().clone(),
            recorder: self.kubelet.recorder().clone(),
            template: template.clone(),
            pod: pod.clone(),
            addresses: self.addresses.clone(),
            netns,
            root_only,
        });
        let (end, ending_rx) = watch::channel(None);
        let mut runners = Vec::new();
        for (container, (_, held)) in template.containers.iter().zip(&self.containers) {
            let binds = container.mounts.iter().map(|mount| Bind {
                source: volumes.source(&mount.volume),
                target: mount.path.clone(),
                // Only an emptyDir can be written to (Volume v1 core).
                read_only: mount.read_only || !is_empty_dir(template, &mount.volume),
            });
            let binds = binds.collect();
            let work = runner::run(context.clone(), container.clone(), held.clone(), binds, ending_rx.clone());
            runners.push(self.running.spawn(work));
        }
        let mut runners = std::pin::pin!(join_all(runners));
        let changes = self.containers.iter().map(|(_, held)| {
            futures::stream::unfold(held.changes(), async |mut changes| {
                changes.changed().await.ok()?;
                Some(((), changes))
            })
            .boxed()
        });
        let mut changes = select_all(changes);
        let mut sync = interval_at(Instant::now() + VOLUMES_SYNC, VOLUMES_SYNC);
        sync.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut newest = pod;
        loop {
            let is_told = self.tell(false).await;
            let (grace, object) = grace(&seen.borrow_and_update(), &mut newest);
            if let Some(grace) = grace {
                self.containers.iter().for_each(|(_, held)| held.set_ending());
                end.send_if_modified(|before| {
                    let changes = before.is_none_or(|before| grace < before);
                    if changes {
                        *before = Some(grace);
                    }
                    changes
                });
            }
            tokio::select! {
                told = seen.changed() => if told.is_err() { std::future::pending::<()>().await },
                Some(()) = changes.next() => {}
                () = sleep(TRY_AGAIN), if !is_told => {}
                // What cannot be fetched now stays as it is.
                _ = sync.tick() => drop(volumes.update(&newest, &self.addresses).await),
                _ = &mut runners => {
                    while !self.tell(true).await {
                        sleep(TRY_AGAIN).await;
                    }
                    return object;
                }
            }
        }
    }

    fn identity(&self, template: &PodTemplate, container: &str) -> Identity {
        let node = self.kubelet.node();
        let name = format!("{}.{}.{container}", template.namespace, template.name);
        Identity {
            node: node.name().to_owned(),
            namespace: template.namespace.clone(),
            pod: template.name.clone(),
            uid: template.uid.clone(),
            container: container.to_owned(),
            labels: template.labels.clone(),
            log: self.kubelet.recorder().run_dir().log(&name),
            node_netns: node.netns().clone(),
        }
    }

    /// Writes the present status; false when it has to be tried again.
    async fn tell(&mut self, over: bool) -> bool {
        let states = self.containers.iter().map(|(facts, held)| (facts.clone(), held.state())).collect();
        self.write(states, over).await.is_ok()
    }

    async fn write(&mut self, containers: Vec<(ContainerFacts, State)>, over: bool) -> Result<()> {
        let facts = PodFacts { started: &self.started, addresses: &self.addresses, containers, over };
        let conditions = self.written.as_ref().and_then(|status| status["conditions"].as_array()).cloned();
        let status = build(&facts, conditions.as_deref().unwrap_or_default(), &now());
        if self.written.as_ref() == Some(&status) {
            return Ok(());
        }
        // The uid keeps what is meant for this pod from a successor of the same name.
        let mut told = status.clone();
        // Lists of addresses are merged by address, and after a crash the pod has others.
        for key in ["podIPs", "hostIPs"] {
            if let Some(list) = told[key].as_array_mut() {
                list.insert(0, json!({ "$patch": "replace" }));
            }
        }
        let patch = Patch::Strategic(json!({ "metadata": { "uid": self.uid }, "status": told }));
        let params = PatchParams::default();
        match timeout(WRITE_LIMIT, self.pods.patch_status(&self.name, &params, &patch)).await? {
            // Gone, or another pod: there is nobody to tell.
            Err(kube::Error::Api(refused)) if matches!(refused.code, 404 | 409) => {}
            other => drop(other?),
        }
        self.written = Some(status);
        Ok(())
    }

    /// Takes the object away: with that the API server knows that nothing of the pod is left on its node.
    async fn delete(&self) {
        let preconditions = Preconditions { uid: Some(self.uid.clone()), resource_version: None };
        let params = DeleteParams::default().grace_period(0).preconditions(preconditions);
        loop {
            match timeout(WRITE_LIMIT, self.pods.delete(&self.name, &params)).await {
                Ok(Ok(_)) => return,
                Ok(Err(kube::Error::Api(refused))) if matches!(refused.code, 404 | 409) => return,
                _ => sleep(TRY_AGAIN).await,
            }
        }
    }
}

/// A container that the API server knows from before a crash of its node goes on counting.
fn take_over(held: &mut Container, pod: &Pod, name: &str) {
    let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    let Some(before) = statuses.into_iter().find(|status| status.name == name) else { return };
    let ran = before.state.as_ref().and_then(|state| state.running.as_ref());
    let Some(ran) = ran else { return };
    let lost = Ended {
        exit_code: LOST_EXIT_CODE,
        started: ran.started_at.clone().unwrap_or_else(now),
        finished: now(),
        message: Some("the node was restarted".to_owned()),
    };
    held.change(|state| {
        state.restarts = before.restart_count;
        state.last = Some(lost);
        (state.started, state.ready) = (false, false);
    });
}

fn is_empty_dir(template: &PodTemplate, volume: &str) -> bool {
    template.volumes.iter().any(|known| known.name == volume && known.empty_dir.is_some())
}

/// How long the pod has, when it is to end; and whether its object is there.
fn grace(seen: &Seen, newest: &mut Pod) -> (Option<Duration>, bool) {
    match seen {
        Seen::Gone => (Some(GONE_GRACE), false),
        Seen::Object(pod) => {
            newest.clone_from(pod);
            (deletion_grace(pod), true)
        }
    }
}

fn deletion_grace(pod: &Pod) -> Option<Duration> {
    pod.metadata.deletion_timestamp.as_ref()?;
    let seconds = pod.metadata.deletion_grace_period_seconds.unwrap_or_default();
    Some(Duration::from_secs(u64::try_from(seconds).unwrap_or_default()))
}

/// Waits until the pod is to end; nothing when its object is gone already.
async fn ending(seen: &mut watch::Receiver<Seen>) -> Option<Duration> {
    let ends = |seen: &Seen| match seen {
        Seen::Gone => true,
        Seen::Object(pod) => pod.metadata.deletion_timestamp.is_some(),
    };
    let Ok(seen) = seen.wait_for(ends).await else {
        // The kubelet has lost its power, and its workers are about to.
        std::future::pending::<()>().await;
        return None;
    };
    match &*seen {
        Seen::Gone => None,
        Seen::Object(pod) => deletion_grace(pod),
    }
}
