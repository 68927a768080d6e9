//! One container of a pod, run for as long as its pod: started, probed, started again, ended.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, anyhow};
use berth_lab_exec::Confinement;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use nix::unistd::{Uid, geteuid};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::container::{Container, Ended, Identity, Now};
use super::downward::Addresses;
use super::environment;
use super::probes;
use super::process::{ContainerProcess, ProcessPlan, exit_code};
use super::restarts::{NOTICE, Restarts};
use super::rootfs::{Bind, Root};
use super::template::{ContainerTemplate, PodTemplate};
use crate::netns::Netns;
use crate::state::{ContainerRecord, Recorder};

/// Between two attempts to start what cannot be started, for example because a Secret is not there yet.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// What the containers of a pod share.
pub(crate) struct PodContext {
    pub client: Client,
    pub recorder: Arc<Recorder>,
    pub template: PodTemplate,
    pub pod: Pod,
    pub addresses: Addresses,
    pub netns: Netns,
    /// Whether the lab is in a user namespace, which has no user but root.
    pub root_only: bool,
}

/// Runs a container until `ending` has a grace period; returns when its last process has ended.
pub(crate) async fn run(
    context: Arc<PodContext>,
    template: ContainerTemplate,
    container: Container,
    binds: Vec<Bind>,
    mut ending: watch::Receiver<Option<Duration>>,
) {
    let mut restarts = Restarts::new();
    let mut again = container.state().last.is_some();
    loop {
        let process = tokio::select! {
            () = ended(&mut ending) => return,
            process = start(&context, &template, &container, &binds) => process,
        };
        let process = match process {
            Ok(process) => process,
            Err(error) => {
                let message = format!("{error:#}");
                container.change(|state| state.now = Now::Waiting { reason: "CreateContainerConfigError", message });
                tokio::select! {
                    () = ended(&mut ending) => return,
                    () = sleep(TRY_AGAIN) => continue,
                }
            }
        };
        let (since, begun) = (now(), Instant::now());
        container.change(|state| {
            state.restarts += i32::from(again);
            state.now = Now::Running { process: process.clone(), since: since.clone() };
            (state.started, state.ready) = (false, false);
        });
        record(&context.recorder, &container, Some(process.pid));
        let message = attend(&context, &template, &container, &process, &mut ending).await;
        let ended_as = Ended { exit_code: exit_code(process.wait().await), started: since, finished: now(), message };
        record(&context.recorder, &container, None);
        container.change(|state| {
            state.now = Now::Ended(ended_as.clone());
            (state.started, state.ready) = (false, false);
        });
        again = true;
        if ending.borrow().is_some() {
            return;
        }
        let delay = restarts.delay(begun.elapsed());
        tokio::select! {
            () = ended(&mut ending) => return,
            () = sleep(NOTICE.min(delay)) => {}
        }
        container.change(|state| {
            state.last = Some(ended_as);
            if delay > NOTICE {
                let message = format!("back-off {delay:?} restarting failed container={}", template.name);
                state.now = Now::Waiting { reason: "CrashLoopBackOff", message };
            }
        });
        tokio::select! {
            () = ended(&mut ending) => return,
            () = sleep(delay.saturating_sub(NOTICE)) => {}
        }
    }
}

/// Until the process is gone, by itself or because its probes or its pod say so. Why, when it was ended.
async fn attend(
    context: &PodContext,
    template: &ContainerTemplate,
    container: &Container,
    process: &ContainerProcess,
    ending: &mut watch::Receiver<Option<Duration>>,
) -> Option<String> {
    let address = container.address().ok();
    let probing = async {
        match address {
            Some(address) => probes::watch(container, template, address).await,
            None => std::future::pending().await,
        }
    };
    let (grace, why) = tokio::select! {
        _ = process.wait() => return None,
        why = probing => (context.template.grace, Some(why)),
        () = ended(ending) => (ending.borrow().unwrap_or_default(), None),
    };
    let stopping = async {
        // It does not end where the kernel refuses the signal, and then its end is waited for.
        let _ = process.stop(grace).await;
    };
    // Whoever deletes the pod meanwhile may allow it less.
    let mut shorter = ending.clone();
    tokio::select! {
        () = stopping => {}
        () = sooner(&mut shorter, grace) => {
            let grace = shorter.borrow().unwrap_or_default();
            let _ = process.stop(grace).await;
        }
    }
    why
}

async fn ended(ending: &mut watch::Receiver<Option<Duration>>) {
    if ending.wait_for(Option::is_some).await.is_err() {
        std::future::pending::<()>().await;
    }
}

async fn sooner(ending: &mut watch::Receiver<Option<Duration>>, than: Duration) {
    if ending.wait_for(|grace| grace.is_some_and(|grace| grace < than)).await.is_err() {
        std::future::pending::<()>().await;
    }
}

async fn start(
    context: &PodContext,
    template: &ContainerTemplate,
    container: &Container,
    binds: &[Bind],
) -> Result<ContainerProcess> {
    let PodContext { client, template: pod_template, addresses, root_only, .. } = context;
    let env = environment::build(client, &context.pod, pod_template, template, addresses).await;
    let env = env.map_err(|error| anyhow!(error))?;
    if *root_only && template.user == 0 && template.group != 0 {
        return Err(anyhow!("securityContext.runAsGroup: a lab without root has no group {}", template.group));
    }
    let expand = |text: &String| environment::expand(text, &env);
    let mut words = template.command.iter().chain(&template.args).map(expand);
    let plan = ProcessPlan {
        netns: context.netns.clone(),
        hostname: (!pod_template.host_network).then(|| pod_template.name.clone()),
        root: Root { programs: template.image.programs()?, binds: binds.to_vec(), read_only: template.read_only_root },
        confinement: Confinement {
            user: template.user,
            group: template.group,
            drops_groups: !*root_only,
            own_user_namespace: *root_only && template.user != 0,
            capabilities: template.capabilities,
            no_new_privileges: template.no_new_privileges,
        },
        program: words.next().unwrap_or_default(),
        args: words.collect(),
        env: env.clone().into_iter().collect(),
        log: container.log().to_path_buf(),
    };
    plan.start().await
}

/// Whether this process is root of a user namespace that has no other user.
pub(crate) fn root_only() -> Result<bool> {
    Ok(geteuid() == Uid::from_raw(0) && crate::state::is_user_namespace()?)
}

fn record(recorder: &Recorder, container: &Container, pid: Option<u32>) {
    // A file that cannot be written says so at the next start; the lab goes on meanwhile.
    let _ = recorder.update(|record| match pid {
        Some(pid) => {
            let Identity { node, namespace, pod, log, .. } = container.identity().clone();
            record.containers.insert(container.name(), ContainerRecord { node, namespace, pod, pid, log });
        }
        None => {
            record.containers.remove(&container.name());
        }
    });
}

/// What is known of a container whose node has crashed: nothing, until its kubelet takes it up again.
pub(crate) fn lost(recorder: &Recorder, container: &Container) {
    container.change(|state| {
        state.now = Now::Waiting { reason: "ContainerCreating", message: String::new() };
        (state.started, state.ready) = (false, false);
    });
    record(recorder, container, None);
}

pub(crate) fn now() -> Time {
    Time(Timestamp::now())
}
