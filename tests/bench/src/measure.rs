//! The order of events, the same for every subject.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use berth_api::names::{CONTROLLER_NAMESPACE, LEADER_LEASE};
use berth_lab::{Lab, Process};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Service;
use kube::Api;
use kube::api::PostParams;
use kube::runtime::wait::await_condition;
use tokio::time::timeout;

use crate::load::{Load, Waited, ingress, round};
use crate::process::{has_ended, load, quiet, resident_mb, time_on_cores};
use crate::row::Row;
use crate::scene::{self, NAMESPACE};
use crate::subject::{Programs, Subject, identity};

/// Clients that create Services.
const CLIENTS: usize = 8;
/// Longest wait for a controller to lead and to serve one Service.
const SERVES_LIMIT: Duration = Duration::from_mins(2);
/// Longest run of any controller; the load gives up earlier.
const RUNS_LIMIT: Duration = Duration::from_hours(12);
/// Name and phase of the Service that is created while the controller starts again.
const AFTER: &str = "after";

/// What to measure.
#[derive(Clone, Copy, Debug)]
pub struct Measurement {
    /// Who.
    pub subject: Subject,
    /// How many Services are created at once.
    pub services: usize,
    /// How many have addresses before.
    pub existing: usize,
}

/// Measures one subject in a lab of its own. The row's `floor` figures are its own: who has the floor's row puts those in.
/// `tell` is told what is seen on the way.
pub async fn measure(lab: &Lab, programs: &Programs, what: Measurement, tell: &dyn Fn(String)) -> Result<Row> {
    let Measurement { subject, services, existing } = what;
    lab.install_berth_without_workloads().await?;
    lab.apply_yaml(&scene::objects()).await?;
    let process = subject.start(lab, programs, 1).await?;
    // It serves before it is measured.
    create(lab, programs, &process, "ready", 1).await.with_context(|| format!("is {subject} serving?"))?;
    if existing > 0 {
        let waited = create(lab, programs, &process, "existing", existing).await?;
        tell(format!("{existing} Services have their addresses after {:.1} s", waited.total_s));
        quiet(&process).await?;
    }

    let (before, server_before) = (time_on_cores(&process)?, time_on_cores(lab.api_server())?);
    let Waited { created_s, total_s, p50_ms, p99_ms, max_ms } =
        create(lab, programs, &process, "measured", services).await?;
    let used = time_on_cores(&process)?.saturating_sub(before);
    let used_server = time_on_cores(lab.api_server())?.saturating_sub(server_before);
    tell(format!(
        "{services} more: created within {created_s:.2} s, the last address after {total_s:.2} s; p50 {p50_ms:.0} ms, p99 {p99_ms:.0} ms; \
         time on cores: {subject} {:.1} s, API server {:.1} s",
        used.as_secs_f64(),
        used_server.as_secs_f64()
    ));
    quiet(&process).await?;
    let rss = resident_mb(&process)?;

    process.kill().await?;
    let (process, restart) = Box::pin(restart(lab, programs, subject)).await?;
    quiet(&process).await?;
    let rss_again = resident_mb(&process)?;
    tell(format!("resident: {rss:.1} MB, and {rss_again:.1} MB after a restart"));
    let (first, leading) = (restart.first.as_secs_f64(), restart.leading.as_secs_f64());
    tell(format!("after a restart: leads after {leading:.2} s, first new address after {first:.2} s from its start"));
    process.kill().await?;
    Ok(Row {
        subject,
        services,
        existing,
        floor_s: total_s,
        floor_p99_ms: p99_ms,
        total_s,
        p50_ms,
        p99_ms,
        max_ms,
        rss_mb: round(rss.max(rss_again), 10.0),
        restart_to_first_s: round((first - leading).max(0.0), 1000.0),
    })
}

/// Creates Services and waits for their addresses, as long as who gives them lives.
async fn create(lab: &Lab, programs: &Programs, process: &Process, phase: &str, services: usize) -> Result<Waited> {
    let what = Load { phase: phase.to_owned(), services, clients: CLIENTS.min(services) };
    tokio::select! {
        waited = load(lab, &programs.folder, &what) => waited,
        _ = process.wait(RUNS_LIMIT) => Err(has_ended(process)),
    }
}

/// When things happened after a start.
struct Restart {
    /// It led. At once where nothing tells.
    leading: Duration,
    /// A Service that was created at the start had its address.
    first: Duration,
}

async fn restart(lab: &Lab, programs: &Programs, subject: Subject) -> Result<(Process, Restart)> {
    let started = Instant::now();
    let process = subject.start(lab, programs, 2).await?;
    let services: Api<Service> = Api::namespaced(lab.admin(), NAMESPACE);
    services.create(&PostParams::default(), &scene::service(AFTER, AFTER)?).await.context("creating a Service")?;
    let leading = async {
        if subject == Subject::Berth {
            let leases: Api<Lease> = Api::namespaced(lab.admin(), CONTROLLER_NAMESPACE);
            let led = |lease: Option<&Lease>| {
                let holder = lease.and_then(|lease| lease.spec.as_ref()?.holder_identity.as_ref());
                holder.is_some_and(|holder| *holder == identity(2))
            };
            await_condition(leases, LEADER_LEASE, led).await.context("watching the Lease")?;
            return Ok(started.elapsed());
        }
        anyhow::Ok(Duration::ZERO)
    };
    let first = async {
        let has_address = |service: Option<&Service>| service.is_some_and(|s| ingress(s).next().is_some());
        await_condition(services.clone(), AFTER, has_address).await.context("watching a Service")?;
        anyhow::Ok(started.elapsed())
    };
    let both = timeout(SERVES_LIMIT, Box::pin(async { tokio::try_join!(leading, first) })).await;
    let (leading, first) =
        both.with_context(|| format!("{subject} serves nobody {SERVES_LIMIT:?} after a restart"))??;
    Ok((process, Restart { leading, first }))
}
