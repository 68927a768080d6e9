//! How many calls of AWS the controller makes, and how long it takes: moto answers in AWS's place, a proxy before it counts.
//!
//! Calls are what is measured. Times are told too; most of them is moto's own.

mod cluster;
mod row;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use berth_lab::{Lab, LabConfig};
use berth_moto::Call;

use cluster::Cluster;
use row::Counted;
pub use row::{Row, table};

/// The lab: Services have no data path here.
pub const LAB: LabConfig = LabConfig { nodes: 3, kube_proxy: false };

/// Services while AWS asks for fewer calls.
const THROTTLED_SERVICES: usize = 20;
/// Calls that are answered in a second then.
const THROTTLED_RATE: f64 = 2.0;
/// Services of which one pod is an endpoint.
const SHARED_SERVICES: usize = 50;
/// How often an endpoint comes and goes.
const CHANGES: usize = 60;
/// Between two changes: more than one takes, so that none waits for another.
const BETWEEN: Duration = Duration::from_millis(300);
/// How long the controller may take to stop: its pod's grace period.
const STOP_LIMIT: Duration = Duration::from_secs(30);
/// Longest wait for one change.
const CHANGE_LIMIT: Duration = Duration::from_secs(20);

/// Measures everything, in the order in which it is told.
pub async fn measure(lab: &Lab, services: usize, tell: &dyn Fn(String)) -> Result<Vec<Row>> {
    let mut cluster = Cluster::start(lab).await?;
    let mut rows = Vec::new();
    // The first Service brings what all of them share, such as the sweep of what there is.
    cluster.create("first", 1, "instance").await?;
    cluster.served("first", 1).await?;
    cluster.quiet().await;

    cluster.begin();
    cluster.create("lb", services, "instance").await?;
    cluster.served("lb", services).await?;
    // What is handed over is what is known to be well.
    cluster.healthy("lb", services).await?;
    rows.push(cluster.row("create", services, tell).await);

    // As a rollout does it.
    cluster.controller.terminate(STOP_LIMIT).await?;
    cluster.begin();
    cluster.controller.start()?;
    cluster.leads_again().await?;
    rows.push(cluster.row("restart", services, tell).await);

    cluster.controller.kill().await?;
    cluster.begin();
    cluster.controller.start()?;
    cluster.leads_again().await?;
    rows.push(cluster.row("crash", services, tell).await);

    cluster.begin();
    cluster.add_node().await?;
    rows.push(cluster.row("node-added", services, tell).await);

    rows.extend(Box::pin(endpoints(&mut cluster, services, tell)).await?);

    cluster.begin();
    cluster.delete("lb").await?;
    rows.push(cluster.row("delete", services, tell).await);
    ensure_left(&cluster, 1)?;

    rows.push(Box::pin(throttled(&mut cluster, tell)).await?);
    cluster.delete("first").await?;
    rows.push(Box::pin(shared_pod(&mut cluster, tell)).await?);
    Ok(rows)
}

/// So many load balancers are there, each once.
fn ensure_left(cluster: &Cluster, count: usize) -> Result<()> {
    let seen = cluster.look()?;
    let names: Vec<_> = seen["LoadBalancerNames"].as_array().into_iter().flatten().map(ToString::to_string).collect();
    let distinct: BTreeSet<_> = names.iter().collect();
    ensure!(distinct.len() == names.len(), "load balancers of the same name: {names:?}");
    ensure!(names.len() == count, "{} load balancers instead of {count}: {names:?}", names.len());
    let groups = seen["TargetGroups"].as_object().map_or(0, serde_json::Map::len);
    ensure!(groups == count, "{groups} target groups for {count} load balancers");
    Ok(())
}

/// Services that are made while AWS answers few calls a second.
async fn throttled(cluster: &mut Cluster, tell: &dyn Fn(String)) -> Result<Row> {
    cluster.begin();
    cluster.proxy.limit(Some(THROTTLED_RATE));
    cluster.create("slow", THROTTLED_SERVICES, "instance").await?;
    cluster.served("slow", THROTTLED_SERVICES).await?;
    let row = cluster.row("throttled", THROTTLED_SERVICES, tell).await;
    cluster.proxy.limit(None);
    ensure_left(cluster, 1 + THROTTLED_SERVICES)?;
    cluster.delete("slow").await?;
    cluster.quiet().await;
    ensure_left(cluster, 1)?;
    Ok(row)
}

/// From the change of an endpoint to the call that says it, beside so many Services.
async fn endpoints(cluster: &mut Cluster, services: usize, tell: &dyn Fn(String)) -> Result<Vec<Row>> {
    cluster.create("pods", 1, "ip").await?;
    cluster.served("pods", 1).await?;
    cluster.quiet().await;
    let (mut added, mut removed) = (Vec::new(), Vec::new());
    let (mut to_add, mut to_remove) = (Counted::default(), Counted::default());
    for change in 0..CHANGES {
        let address = format!("10.0.10.{}", 50 + change);
        cluster.begin();
        cluster.endpoints("pods-0", &[&address]).await?;
        added.push(said(cluster, "RegisterTargets", &address).await?);
        tokio::time::sleep(BETWEEN).await;
        to_add.add(&cluster.all(|_| true));
        cluster.begin();
        cluster.endpoints("pods-0", &[]).await?;
        removed.push(said(cluster, "DeregisterTargets", &address).await?);
        tokio::time::sleep(BETWEEN).await;
        to_remove.add(&cluster.all(|_| true));
    }
    tell(format!("{CHANGES} endpoints came and went"));
    cluster.delete("pods").await?;
    let rows = [Row::change("register", &mut added, to_add), Row::change("deregister", &mut removed, to_remove)];
    Ok(rows.into_iter().map(|row| Row { services, ..row }).collect())
}

/// How long it took until a call named the address. The change is timed from before the API server is told of it.
async fn said(cluster: &Cluster, action: &str, address: &str) -> Result<Duration> {
    let begin = Instant::now();
    let names = |call: &Call| call.action == action && !call.throttled && call.form.contains(address);
    while begin.elapsed() < CHANGE_LIMIT {
        if let Some(call) = cluster.find(names) {
            return Ok(cluster.since_change(&call));
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    anyhow::bail!("no {action} of {address} within {CHANGE_LIMIT:?}")
}

/// One pod that is an endpoint of many Services at once.
async fn shared_pod(cluster: &mut Cluster, tell: &dyn Fn(String)) -> Result<Row> {
    cluster.create("shared", SHARED_SERVICES, "ip").await?;
    cluster.served("shared", SHARED_SERVICES).await?;
    cluster.quiet().await;
    cluster.begin();
    let address = "10.0.10.200";
    for number in 0..SHARED_SERVICES {
        cluster.endpoints(&format!("shared-{number}"), &[address]).await?;
    }
    let begin = Instant::now();
    let named = |call: &Call| call.action == "RegisterTargets" && call.form.contains(address);
    let last = loop {
        let all = cluster.all(named);
        if all.len() >= SHARED_SERVICES {
            break all.into_iter().next_back().context("no call")?;
        }
        ensure!(begin.elapsed() < CHANGE_LIMIT, "{} of {SHARED_SERVICES} registrations", all.len());
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    let seconds = cluster.since_begin(&last);
    let row = Row { seconds, ..cluster.row("shared-pod", SHARED_SERVICES, tell).await };
    cluster.delete("shared").await?;
    cluster.quiet().await;
    ensure_left(cluster, 0)?;
    Ok(row)
}
