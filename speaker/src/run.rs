//! Wires the speaker together.
//!
//! Tasks, each owned by [`run`], which outlives them all:
//!
//! | task | does | owns | hears of the rest by |
//! | --- | --- | --- | --- |
//! | `engine` | answers, takes over, announces | the machine, all packet and heartbeat sockets | a bounded queue of changes, watches of links and keys |
//! | `links` | follows the node's interfaces | a netlink socket | - |
//! | `gateways` | follows the node's routes | a netlink socket | - |
//! | `dataplane` | follows kube-proxy, and answers health checks where nobody else does | their listeners | a watch of what the Announcements say |
//! | `evidence` | looks whether the node serves an address | - | a bounded queue, what does not fit is dropped and counted |
//! | `kernel` | follows settings of the kernel that break what is announced | - | a watch of links |
//! | `keys` | follows the keys of the heartbeats | - | - |
//! | `announcements` | follows the cluster | its watch | - |
//! | `routes` | with `--routes`: keeps the routes that routing daemons make known | two netlink sockets | a watch of what the Announcements say |
//! | `status` | writes who answers | the requests under way | the board, which holds only what is latest |
//! | `events` | publishes events | the event recorder | a bounded queue, what does not fit is dropped and counted |
//! | `speaker_node` | says what the node knows, found, and how partners are heard; hears what is to be asked for ahead of need | its watch | watches of links, gateways, late partners, routes and of what was found |
//! | `http` | serves metrics and health | its listener | - |
//!
//! Only the engine matters to the wire; it waits for none of the others, so with the API server away it goes on with what
//! it was told last.
//!
//! Shutdown: the first SIGTERM or SIGINT makes the engine hand its addresses to the standbys, which takes one second at the
//! most. When it has ended the others are told to end. Any of them that ends before ends the process, whose next start finds
//! everything it needs in the cluster and on the wire. Dropping [`run`] aborts all tasks; nothing is left half done, since
//! every effect can be repeated.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use berth_api::crd::{KernelTrap, Routes};
use berth_telemetry::{Health, Registry, TelemetryArgs, init_logs, listen, serve, shutdown_on_signal};
use berth_wire::heartbeat::envelope::KeyRing;
use kube::{Client, Config};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::args::{Args, HeartbeatAuth};
use crate::board::Board;
use crate::clock::BootClock;
use crate::dataplane::Told;
use crate::engine::{CHANGES_WAITING, Engine, Found, Inputs, Late};
use crate::evidence::{ASKS_WAITING, Ask};
use crate::keys::Keys;
use crate::links::Links;
use crate::metrics::Metrics;
use crate::retry::WATCH_TIMEOUT_SECONDS;
use crate::routes::Wanted;
use crate::speaker_node::Known;
use crate::{
    announcements, dataplane, events, evidence, gateways, kernel, links, metrics, routes, speaker_node, status,
};

/// Longest wait for the tasks to end once the engine did. They hold nothing that needs more.
const END_LIMIT: Duration = Duration::from_millis(300);

/// Longest silence of a connection before it is given up: a quarter more than a watch is open.
const READ_TIMEOUT: Duration = Duration::from_secs(WATCH_TIMEOUT_SECONDS as u64 / 4 * 5);

/// Longest wait for a connection to the API server. Requests have limits of their own.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Heartbeats and answers are the work of some microseconds that others wait for, so the speaker is to be let in as soon as the kernel can:
/// 0.1 ms is the shortest slice that there is.
const SLICE: Duration = Duration::from_micros(100);

/// The client logs each failed attempt and each closed connection on its own; the errands here say it once for a whole
/// outage. What it says about certificates stays.
const QUIET: &str = ",kube_client::client=off,kube_client::client::tls=warn";

/// Runs the speaker until it is told to stop.
///
/// # Errors
/// When it cannot start, or a task ends that must not. Neither an API server that is away nor an interface that comes and
/// goes is an error.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let excluded = args.excluded();
    let Args {
        node_name: node,
        heartbeat_port,
        heartbeat_auth,
        heartbeat_key_dir,
        health_check_server,
        kube_proxy_health,
        exclude_interfaces: _,
        refresh_interval,
        routes,
        mut telemetry,
    } = args;
    telemetry.log_level.push_str(QUIET);
    begin(&telemetry)?;
    let node_name = node.to_string();
    let shutdown = shutdown_on_signal().context("cannot listen for signals")?;
    berth_sys::check_permission().context(
        "cannot open packet sockets; give the speaker the capability NET_RAW and the network namespace of its node",
    )?;
    let clock = BootClock::new().context("cannot read the clock since boot")?;
    let client = client()?;
    let listener = listen(telemetry.http_address)
        .with_context(|| format!("cannot serve HTTP on {}; choose another --http-address", telemetry.http_address))?;
    let first_links = links::look(&excluded).await.context("cannot list the interfaces of the node")?;
    let first_gateways = gateways::look().await.context("cannot list the routes of the node")?;
    tracing::info!(node = %node, version = env!("CARGO_PKG_VERSION"), interfaces = ?first_links.keys(), "starting");

    let mut registry = metrics::registry();
    let metrics = Metrics::new(&mut registry);
    let health = Health::new();
    let synced = health.gate("announcements synced");
    let running = health.gate("engine running");
    let (following_keys, keys) = follow_keys(heartbeat_auth, heartbeat_key_dir, &health, &metrics);
    let board = Arc::new(Board::default());
    let (links_out, links_in) = watch::channel(first_links);
    let (gateways_out, gateways_in) = watch::channel(first_gateways);
    let (late_out, late_in) = watch::channel(Late::new());
    let (sweep_out, sweep_in) = watch::channel(Vec::new());
    let (found_out, found_in) = watch::channel(Found::new());
    let (changes_out, changes_in) = mpsc::channel(CHANGES_WAITING);
    let (checks_out, checks_in) = watch::channel(Told::new());
    let (wanted_out, wanted_in) = watch::channel(Wanted::default());
    // The others go on while the engine hands over.
    let end = CancellationToken::new();

    let mut tasks = JoinSet::new();
    let (events, publish) = events::queue(client.clone(), node.as_str(), metrics.clone(), end.clone());
    tasks.spawn(named("http", serve_http(listener, registry, health, end.clone())));
    tasks.spawn(named("events", publish));
    tasks.spawn(named("links", links::run(excluded, links_out, end.clone())));
    tasks.spawn(named("gateways", gateways::run(gateways_out, end.clone())));
    if let Some(following) = following_keys {
        tasks.spawn(named("keys", following.run(end.clone())));
    }
    tasks.spawn(named(
        "status",
        status::run(client.clone(), node_name.clone(), board.clone(), events, metrics.clone(), end.clone()),
    ));
    let (asks, served) = look_for_evidence(&mut tasks, &end);
    let (found, dataplane) = watch::channel(None);
    let (kube_proxy, mode, told) = (kube_proxy_health, health_check_server, checks_in);
    let inputs = dataplane::Inputs { kube_proxy, mode, told, found, metrics: metrics.clone() };
    tasks.spawn(named("dataplane", dataplane::run(inputs, end.clone())));
    let kernel = follow_kernel(&mut tasks, &links_in, &end);
    let routes = follow_routes(routes, &mut tasks, wanted_in, &metrics, &end).await;
    let links = links_in.clone();
    let known = Known { links, gateways: gateways_in, late: late_in, dataplane, kernel, found: found_in, routes };
    let speaker_node = speaker_node::run(client.clone(), node_name, known, sweep_out, metrics.clone(), end.clone());
    tasks.spawn(named("speaker_node", speaker_node));
    let outputs = announcements::Outputs::new(changes_out, &board, checks_out, wanted_out, &metrics);
    tasks.spawn(named("announcements", announcements::run(client, node.clone(), outputs, synced, end.clone())));
    let engine = Engine::new(Inputs {
        node,
        heartbeat_port,
        authentication: heartbeat_auth.into(),
        keys,
        links: links_in,
        changes: changes_in,
        board,
        metrics,
        late: late_out,
        asks,
        served,
        sweep: sweep_in,
        found: found_out,
        clock,
        refresh: refresh_interval.0,
    });
    let mut engine = AbortOnDropHandle::new(tokio::spawn(engine.run(shutdown.clone())));
    running.open();

    let ended = first_end(&mut engine, &mut tasks).await;
    running.close("stopping");
    end.cancel();
    all_end(&mut tasks).await;
    ended?;
    anyhow::ensure!(shutdown.is_cancelled(), "the engine ended without being told to");
    tracing::info!("stopped");
    Ok(())
}

/// Starts logging, and asks for short slices for this thread, which does all the work.
fn begin(telemetry: &TelemetryArgs) -> anyhow::Result<()> {
    init_logs(telemetry)?;
    if let Err(error) = berth_sys::set_slice(SLICE) {
        tracing::info!(%error, "the kernel gives no short slices; on a busy node answers may come a little later");
    }
    Ok(())
}

/// Waits until the tasks that were told to end have ended, but not for long.
async fn all_end(tasks: &mut JoinSet<&'static str>) {
    let all = async { while tasks.join_next().await.is_some() {} };
    if timeout(END_LIMIT, all).await.is_err() {
        tracing::debug!("some tasks did not end in time");
    }
}

/// Starts what looks at the settings of the kernel: where it tells what breaks.
fn follow_kernel(
    tasks: &mut JoinSet<&'static str>,
    links: &watch::Receiver<Links>,
    end: &CancellationToken,
) -> watch::Receiver<Option<Vec<KernelTrap>>> {
    let (found, kernel) = watch::channel(None);
    tasks.spawn(named("kernel", kernel::run(links.clone(), found, end.clone())));
    kernel
}

/// Starts what makes routes, where that is wished: where it tells what comes of them.
async fn follow_routes(
    wished: bool,
    tasks: &mut JoinSet<&'static str>,
    wanted: watch::Receiver<Wanted>,
    metrics: &Metrics,
    end: &CancellationToken,
) -> Option<watch::Receiver<Option<Routes>>> {
    if !wished {
        routes::tell_left_over(metrics).await;
        return None;
    }
    let (said, routes) = watch::channel(None);
    tasks.spawn(named("routes", routes::run(wanted, said, metrics.clone(), end.clone())));
    Some(routes)
}

async fn serve_http(listener: TcpListener, registry: Registry, health: Health, end: CancellationToken) {
    if let Err(error) = serve(listener, Arc::new(registry), health, end).await {
        tracing::error!(%error, "cannot serve HTTP any more");
    }
}

/// Starts what looks whether the node serves an address: where to ask, and where it tells.
fn look_for_evidence(
    tasks: &mut JoinSet<&'static str>,
    end: &CancellationToken,
) -> (mpsc::Sender<Ask>, mpsc::Receiver<IpAddr>) {
    let (asks_out, asks_in) = mpsc::channel(ASKS_WAITING);
    let (served_out, served_in) = mpsc::channel(ASKS_WAITING);
    tasks.spawn(named("evidence", evidence::run(asks_in, served_out, end.clone())));
    (asks_out, served_in)
}

/// Waits until the engine has ended, or another task has, which it must not.
async fn first_end(engine: &mut AbortOnDropHandle<()>, tasks: &mut JoinSet<&'static str>) -> anyhow::Result<()> {
    tokio::select! {
        // What others notice of its end is no reason of its own.
        biased;
        ended = engine => ended.context("the engine failed"),
        Some(ended) = tasks.join_next() => match ended {
            Ok(task) => Err(anyhow::anyhow!("task `{task}` ended, which it must not")),
            Err(error) => Err(anyhow::Error::new(error).context("a task failed")),
        },
    }
}

/// What follows the keys of the heartbeats, if there are any, and where it puts them.
fn follow_keys(
    auth: HeartbeatAuth,
    directory: PathBuf,
    health: &Health,
    metrics: &Metrics,
) -> (Option<Keys>, watch::Receiver<Option<KeyRing>>) {
    match auth {
        HeartbeatAuth::Required => {
            let (keys, ring) = Keys::new(directory, health.gate("keys of the heartbeats"), metrics.clone());
            (Some(keys), ring)
        }
        HeartbeatAuth::Off => {
            tracing::warn!(
                "heartbeats are not authenticated (--heartbeat-auth=off): whoever is on a link of this node can make its addresses move"
            );
            (None, watch::channel(None).1)
        }
    }
}

/// A client for the cluster that this pod is in. No kubeconfig is looked for: the admission policies go by the pod's own token, and what
/// reads one is as large as all that decides here.
fn client() -> anyhow::Result<Client> {
    let mut config = Config::incluster()
        .context("cannot find the cluster; run the speaker as a pod with the token of its ServiceAccount")?;
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    // The client's own retries wait for up to a thousand seconds; every errand here has its own, of a few.
    config.default_retry = false;
    // An API server that vanishes without a word is noticed by this, also while it is asked for a list.
    config.read_timeout = Some(READ_TIMEOUT);
    Client::try_from(config).context("cannot make a client for the cluster")
}

async fn named(name: &'static str, task: impl Future<Output = ()>) -> &'static str {
    task.await;
    name
}
