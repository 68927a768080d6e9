//! The load: clients that create Services at once, and one watch that sees when each has its address.
//!
//! A Service waits from the moment at which its create call is made, not from its answer: the address may be seen before the
//! answer is, and the call is in the floor just the same.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use futures::TryStreamExt as _;
use k8s_openapi::api::core::v1::Service;
use kube::api::PostParams;
use kube::runtime::watcher::{Config, Event, watcher};
use kube::{Api, Client, ResourceExt as _};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::scene::{self, NAMESPACE, PHASE_LABEL};

/// Longest time without any news while Services wait. A slow controller is measured; one that stands still is not.
const STANDSTILL: Duration = Duration::from_mins(1);

/// What to create.
#[derive(Args, Clone, Debug)]
pub struct Load {
    /// What the Services are there for; part of their names
    #[arg(long)]
    pub phase: String,
    /// How many Services
    #[arg(long)]
    pub services: usize,
    /// How many clients create them, each on a connection of its own
    #[arg(long, default_value_t = 8)]
    pub clients: usize,
}

/// How long it took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Waited {
    /// From the first create call to the last create call's answer, in seconds.
    pub created_s: f64,
    /// From the first create call to the last address, in seconds.
    pub total_s: f64,
    /// How long a Service waited, in the middle of all, in milliseconds.
    pub p50_ms: f64,
    /// How long 99 in 100 waited at most.
    pub p99_ms: f64,
    /// How long the last one waited.
    pub max_ms: f64,
}

/// Creates the Services, waits for their addresses, and says on stdout how long that took.
pub async fn run(load: &Load) -> Result<()> {
    let waited = serde_json::to_string(&create(load).await?)?;
    #[allow(clippy::print_stdout, reason = "the one line that the bench reads")]
    {
        println!("{waited}");
    }
    Ok(())
}

async fn create(load: &Load) -> Result<Waited> {
    let watched = Api::<Service>::namespaced(Client::try_default().await?, NAMESPACE);
    let mine = Config::default().labels(&format!("{PHASE_LABEL}={}", load.phase));
    let mut events = Box::pin(watcher(watched, mine));
    while !matches!(events.try_next().await.context("watching Services")?, Some(Event::InitDone)) {}

    let began = Instant::now();
    let mut clients = start_clients(load).await?;
    let (mut starts, mut seen, mut created) = (HashMap::new(), HashMap::new(), Duration::ZERO);
    while seen.len() < load.services || !clients.is_empty() {
        let next = async {
            tokio::select! {
                event = events.try_next() => Ok(event.context("watching Services")?),
                Some(client) = clients.join_next() => {
                    starts.extend(client.context("a client ended abnormally")??);
                    created = began.elapsed();
                    Ok(None)
                }
            }
        };
        match timeout(STANDSTILL, next).await {
            Ok(Ok(Some(Event::Apply(service)))) => {
                if let Some(address) = ingress(&service).next() {
                    seen.entry(service.name_any()).or_insert_with(|| (Instant::now(), address));
                }
            }
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(error),
            Err(_) => bail!(
                "{} of {} Services have an address, and nothing has happened for {STANDSTILL:?}",
                seen.len(),
                load.services
            ),
        }
    }
    let addresses: HashMap<IpAddr, &String> = seen.iter().map(|(name, (_, address))| (*address, name)).collect();
    ensure!(addresses.len() == seen.len(), "{} addresses for {} Services", addresses.len(), seen.len());
    let waits = seen.iter().filter_map(|(name, (at, _))| Some(at.saturating_duration_since(*starts.get(name)?)));
    let first = starts.values().min().copied().unwrap_or(began);
    let last = seen.values().map(|(at, _)| *at).max().unwrap_or(first);
    Ok(Waited { created_s: round(created.as_secs_f64(), 1000.0), ..summary(waits.collect(), last - first) })
}

/// When each Service's create call was made.
type Starts = Vec<(String, Instant)>;

/// Starts clients that create until all is created.
async fn start_clients(load: &Load) -> Result<JoinSet<Result<Starts>>> {
    let next = Arc::new(AtomicUsize::new(0));
    let mut clients = JoinSet::new();
    for _ in 0..load.clients {
        let (load, next) = (load.clone(), next.clone());
        let services: Api<Service> = Api::namespaced(Client::try_default().await?, NAMESPACE);
        clients.spawn(async move {
            let mut starts = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= load.services {
                    return Ok(starts);
                }
                let name = format!("{}-{number}", load.phase);
                let service = scene::service(&load.phase, &name)?;
                let start = Instant::now();
                let answer = services.create(&PostParams::default(), &service).await;
                answer.with_context(|| format!("creating the Service {name}"))?;
                starts.push((name, start));
            }
        });
    }
    Ok(clients)
}

/// The addresses in a Service's status.
pub(crate) fn ingress(service: &Service) -> impl Iterator<Item = IpAddr> {
    let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref()?.ingress.as_ref());
    status.into_iter().flatten().filter_map(|ingress| ingress.ip.as_ref()?.parse().ok())
}

fn summary(mut waits: Vec<Duration>, total: Duration) -> Waited {
    waits.sort_unstable();
    let ms = |wait: Option<&Duration>| round(wait.map_or(0.0, |wait| wait.as_secs_f64() * 1000.0), 10.0);
    // The nearest rank: so many in a hundred waited no longer.
    let percentile = |percent: usize| waits.get((waits.len() * percent).div_ceil(100).saturating_sub(1));
    Waited {
        created_s: 0.0,
        total_s: round(total.as_secs_f64(), 1000.0),
        p50_ms: ms(percentile(50)),
        p99_ms: ms(percentile(99)),
        max_ms: ms(waits.last()),
    }
}

/// To so many parts of one.
pub(crate) fn round(value: f64, parts: f64) -> f64 {
    (value * parts).round() / parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_the_wait_that_so_many_in_a_hundred_did_not_exceed() {
        let millis = |numbers: &[u64]| numbers.iter().map(|n| Duration::from_millis(*n)).collect::<Vec<_>>();
        let hundred: Vec<u64> = (1..=100).rev().collect();
        for (waits, p50, p99, max) in [
            (millis(&hundred), 50.0, 99.0, 100.0),
            (millis(&[7]), 7.0, 7.0, 7.0),
            (millis(&[3, 1, 2]), 2.0, 3.0, 3.0),
            (Vec::new(), 0.0, 0.0, 0.0),
        ] {
            let waited = summary(waits, Duration::from_millis(1234));
            assert_eq!((waited.p50_ms, waited.p99_ms, waited.max_ms), (p50, p99, max));
            assert_eq!(waited.total_s.to_bits(), 1.234_f64.to_bits());
        }
    }
}
