//! What forwards the traffic of Services on the node: kube-proxy's health, and the health checks of Services with the Local policy where
//! nobody else answers them.
//!
//! One task. It asks kube-proxy once a second, on the loopback, and owns the listeners of the health checks.

pub mod ask;
pub mod kube_proxy;
pub mod ports;
pub mod server;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use berth_api::crd::{Dataplane, KubeProxy};
use futures::StreamExt;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::metrics::{Metrics, gauge};
use ask::{Answer, ask};
use kube_proxy::Follower;
use ports::{Check, Mode, Ports};
use server::Servers;

/// Between two questions to kube-proxy. On the loopback one costs a tenth of a millisecond.
const ASK_INTERVAL: Duration = Duration::from_secs(1);
/// The same while its health checks are answered here: it wants the ports about 100 ms after it can be asked for the first time, and tries
/// one that is taken again only when it writes its rules the next time, perhaps half a minute later.
const ASK_OFTEN: Duration = Duration::from_millis(20);
/// Ports that are asked at a time, so that hundreds of Services are no burst.
const ASKED_AT_ONCE: usize = 16;

/// The health checks that this node is told to answer, by the name of the Announcement that says so.
pub type Told = BTreeMap<String, Vec<(u16, Check)>>;

/// What the task is given.
#[derive(Debug)]
pub struct Inputs {
    /// Where kube-proxy says whether it is well.
    pub kube_proxy: SocketAddr,
    /// Whether health checks are answered here.
    pub mode: Mode,
    /// Which.
    pub told: watch::Receiver<Told>,
    /// Where to say what was found.
    pub found: watch::Sender<Option<Dataplane>>,
    /// What to count.
    pub metrics: Metrics,
}

/// Follows the node's dataplane until `shutdown`.
pub async fn run(inputs: Inputs, shutdown: CancellationToken) {
    shutdown.run_until_cancelled(follow(inputs)).await;
}

async fn follow(inputs: Inputs) {
    let Inputs { kube_proxy, mode, mut told, found, metrics } = inputs;
    let began = Instant::now();
    let mut follower = Follower::default();
    let mut ports = Ports::new(mode);
    let mut servers = Servers::default();
    // The follower of the Announcements ends first.
    let mut told_open = true;
    loop {
        let answer = ask(kube_proxy).await;
        follower.observe(began.elapsed(), answer);
        ports.follow(began.elapsed(), checks(&told.borrow_and_update()));
        if ports.may_serve(follower.refused_for(began.elapsed())) {
            let asked: Vec<u16> = ports.to_ask().collect();
            let answers = futures::stream::iter(asked)
                .map(|port| async move { (port, ask((Ipv4Addr::LOCALHOST, port).into()).await) })
                .buffer_unordered(ASKED_AT_ONCE)
                .collect::<Vec<_>>();
            for (port, answer) in answers.await {
                ports.answered(began.elapsed(), port, answer == Answer::Refused);
            }
        }
        let now = began.elapsed();
        let kube_proxy = follower.state(now);
        let health_checks = ports.may_serve(follower.refused_for(now));
        let open = ports.served(now, follower.refused_for(now));
        for port in servers.follow(open, kube_proxy != KubeProxy::Stale) {
            metrics.health_checks_refused.inc();
            ports.taken(now, port);
        }
        metrics.health_checks.set(gauge(servers.len()));
        let dataplane = Some(Dataplane { kube_proxy, health_checks });
        found.send_if_modified(|known| {
            let changed = *known != dataplane;
            if changed {
                tracing::info!(?kube_proxy, health_checks, "the node's dataplane");
                *known = dataplane;
            }
            changed
        });
        // Who says that they are always answered here expects no kube-proxy.
        let pause = if mode == Mode::Auto && servers.len() > 0 { ASK_OFTEN } else { ASK_INTERVAL };
        tokio::select! {
            () = sleep(pause) => {}
            changed = told.changed(), if told_open => told_open = changed.is_ok(),
        }
    }
}

/// The health checks by port. A dual-stack Service has one for both families, and the endpoints of either count.
fn checks(told: &Told) -> BTreeMap<u16, Check> {
    let mut checks: BTreeMap<u16, Check> = BTreeMap::new();
    for (port, check) in told.values().flatten() {
        checks
            .entry(*port)
            .and_modify(|known| known.ready = known.ready.max(check.ready))
            .or_insert_with(|| check.clone());
    }
    checks
}

/// Whether a health check at this node port says that there are endpoints on the node. Where it is answered is up to kube-proxy's
/// `nodePortAddresses`: on the first of the node's own addresses, or on all, the loopback among them.
pub async fn has_endpoints(own: &[IpAddr], port: u16) -> bool {
    let loopback = IpAddr::from(Ipv4Addr::LOCALHOST);
    let answers = own.iter().chain([&loopback]).map(|address| ask((*address, port).into()));
    futures::future::join_all(answers).await.contains(&Answer::Well)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_endpoints_of_either_family_count_for_the_one_port_of_a_service() {
        let check = |name: &str, ready| Check { namespace: "shop".to_owned(), name: name.to_owned(), ready };
        let told = Told::from([
            ("192.0.2.1".to_owned(), vec![(30_001, check("web", 0)), (30_002, check("api", 1))]),
            ("2001-db8-0-0-0-0-0-1".to_owned(), vec![(30_001, check("web", 2))]),
        ]);
        let ready: Vec<_> = checks(&told).into_iter().map(|(port, check)| (port, check.ready)).collect();
        assert_eq!(ready, [(30_001, 2), (30_002, 1)]);
    }
}
