//! Routes to addresses of Services, or the addresses on an interface, for a routing daemon on the node to make known.
//!
//! Every event leads to a fresh look at what bears our mark, and to the changes that make it what the Announcements say. Nothing is changed
//! before all of these were read once, so that a start takes nothing away that is wished; and nothing is taken away at the end, because a
//! speaker that stops says nothing about its node.

pub mod netlink;
pub mod plan;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use berth_api::crd::{ROUTES_REFUSED_MAX, RefusedRoute, RouteRefusal, Routes};
use nix::errno::Errno;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::metrics::{Metrics, gauge};
use netlink::{Netlink, is_permitted};
use plan::{Facts, Plan, Refused, Step, Wishes, plan};

/// Least time between two looks because of what happens in the kernel.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Time in which wishes are gathered: a list of thousands comes one by one.
const GATHER: Duration = Duration::from_millis(50);
/// Longest time between two looks: nothing tells that `arp_ignore` was changed.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// Time before netlink is opened again after an error.
const REOPEN_DELAY: Duration = Duration::from_secs(1);

/// What the Announcements wish of this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// All have been read once.
    pub synced: bool,
    /// By address.
    pub wishes: Wishes,
}

/// Keeps the kernel's routes and addresses as `wanted` says until `shutdown`, and tells what cannot be.
pub async fn run(
    wanted: watch::Receiver<Wanted>,
    said: watch::Sender<Option<Routes>>,
    metrics: Metrics,
    shutdown: CancellationToken,
) {
    if !is_permitted() {
        tracing::error!(
            "--routes needs the capability NET_ADMIN, which this process does not have; no routes are made"
        );
        said.send_replace(Some(Routes::default()));
    }
    let follow = async {
        loop {
            if let Err(error) = follow(wanted.clone(), &said, &metrics).await {
                tracing::warn!(error = %error, "cannot follow the node's routes; opening netlink again");
            }
            sleep(REOPEN_DELAY).await;
        }
    };
    shutdown.run_until_cancelled(follow).await;
}

/// Tells of what an earlier run with `--routes` left. It is not this one's to take away: without the capability it cannot.
pub async fn tell_left_over(metrics: &Metrics) {
    let look = async { anyhow::Ok(Netlink::open()?.look().await?) };
    match look.await {
        Ok(facts) => {
            let left = count(&facts);
            metrics.routes.set(gauge(left));
            if left > 0 {
                tracing::warn!(
                    left,
                    protocol = plan::PROTOCOL,
                    "routes or addresses of a run with --routes are left on the node; `ip route flush proto` with this number removes the routes"
                );
            }
        }
        Err(error) => tracing::debug!(%error, "cannot look for routes that are left over"),
    }
}

async fn follow(
    mut wanted: watch::Receiver<Wanted>,
    said: &watch::Sender<Option<Routes>>,
    metrics: &Metrics,
) -> anyhow::Result<()> {
    let mut netlink = Netlink::open()?;
    let permitted = is_permitted();
    loop {
        let looked = Instant::now();
        let now = wanted.borrow_and_update().clone();
        if now.synced && permitted {
            let (facts, refused) = settle(&netlink, &now.wishes).await?;
            metrics.routes.set(gauge(count(&facts)));
            metrics.routes_refused.set(gauge(refused.len()));
            tell(said, refused);
        }
        tokio::select! {
            lives = netlink.changed() => {
                anyhow::ensure!(lives, "the kernel closed the netlink connection");
                // What is wished does not wait for the kernel to be calm.
                tokio::select! {
                    lives = netlink.pass_over(looked + LOOK_INTERVAL) => {
                        anyhow::ensure!(lives, "the kernel closed the netlink connection");
                    }
                    Ok(()) = wanted.changed() => sleep(GATHER).await,
                }
            }
            changed = wanted.changed() => {
                // The watch ends with the process.
                if changed.is_err() {
                    std::future::pending::<()>().await;
                }
                sleep(GATHER).await;
            }
            () = sleep_until(looked + LOOK_AGAIN) => {}
        }
    }
}

/// Makes the kernel have what is wished. Returns what it has then, and what cannot be.
async fn settle(netlink: &Netlink, wishes: &Wishes) -> Result<(Facts, BTreeMap<IpAddr, Refused>), rtnetlink::Error> {
    let before = netlink.look().await?;
    let Plan { steps, mut refused } = plan(wishes, &before);
    if steps.is_empty() {
        return Ok((before, refused));
    }
    for step in steps {
        match netlink.make(step).await {
            Ok(()) => tracing::info!(?step, "routes changed"),
            Err(why) => {
                tracing::debug!(?step, ?why, "routes not changed");
                refused.insert(step.address(), refusal(step, why));
            }
        }
    }
    Ok((netlink.look().await?, refused))
}

fn refusal(step: Step, why: Option<Errno>) -> Refused {
    let said = why.map_or("no answer", |number| number.desc());
    match (step, why) {
        (Step::AddRoute(route), Some(Errno::EEXIST)) => {
            let (address, table, metric) = (route.address, route.table, route.metric);
            let message =
                format!("another route to {address} with metric {metric} is in table {table}, and not by Berth");
            (RouteRefusal::RouteTaken, message)
        }
        (Step::AddAddress(address, _), Some(Errno::EEXIST)) => {
            (RouteRefusal::RouteTaken, format!("{address} is on the interface already, and not by Berth"))
        }
        (step, _) => (RouteRefusal::RouteFailed, format!("the kernel refuses it for {}: {said}", step.address())),
    }
}

fn tell(said: &watch::Sender<Option<Routes>>, refused: BTreeMap<IpAddr, Refused>) {
    let refused = refused.into_iter().take(ROUTES_REFUSED_MAX);
    let refused = refused.map(|(address, (reason, message))| RefusedRoute { address, reason, message });
    let routes = Routes { permitted: true, refused: refused.collect() };
    said.send_if_modified(|known| {
        let changed = known.as_ref() != Some(&routes);
        if changed && !routes.refused.is_empty() {
            tracing::warn!(refused = ?routes.refused, "addresses that this node cannot route");
        }
        *known = Some(routes);
        changed
    });
}

/// Routes and addresses with our mark.
fn count(facts: &Facts) -> usize {
    facts.routes.len() + facts.addresses.iter().filter(|held| held.ours).count()
}

#[cfg(test)]
mod tests;
