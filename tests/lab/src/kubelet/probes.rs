//! Probes of a container: startup first, then readiness and liveness side by side.

use std::net::{IpAddr, SocketAddr};

use tokio::time::{Instant, sleep, sleep_until};

use super::container::Container;
use super::template::{ContainerTemplate, Probe};

/// Answers that a kubelet takes as success.
const SUCCESS: std::ops::Range<u16> = 200..400;

/// Probes a container until it is to be ended; returns why. Says meanwhile whether it has started and is ready.
pub(crate) async fn watch(container: &Container, template: &ContainerTemplate, address: IpAddr) -> String {
    if let Some(startup) = &template.startup
        && let Err(why) = started(container, startup, address).await
    {
        return format!("Container {} failed startup probe, will be restarted: {why}", template.name);
    }
    container.change(|state| {
        state.started = true;
        state.ready = template.readiness.is_none();
    });
    let readiness = async {
        if let Some(probe) = &template.readiness {
            follow_readiness(container, probe, address).await;
        }
        std::future::pending::<()>().await;
    };
    let liveness = async {
        match &template.liveness {
            Some(probe) => failed(container, probe, address).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = readiness => String::new(),
        why = liveness => format!("Container {} failed liveness probe, will be restarted: {why}", template.name),
    }
}

/// Until the first success; too many failures are the error.
async fn started(container: &Container, probe: &Probe, address: IpAddr) -> Result<(), String> {
    let mut failures = 0;
    let mut turns = Turns::new(probe);
    loop {
        turns.next().await;
        match ask(container, probe, address).await {
            Ok(()) => return Ok(()),
            Err(why) => {
                failures += 1;
                if failures >= probe.failure_threshold {
                    return Err(why);
                }
            }
        }
    }
}

async fn follow_readiness(container: &Container, probe: &Probe, address: IpAddr) {
    let (mut successes, mut failures) = (0, 0);
    let mut turns = Turns::new(probe);
    loop {
        turns.next().await;
        let ready = if ask(container, probe, address).await.is_ok() {
            (successes, failures) = (successes + 1, 0);
            (successes >= probe.success_threshold).then_some(true)
        } else {
            (successes, failures) = (0, failures + 1);
            (failures >= probe.failure_threshold).then_some(false)
        };
        if let Some(ready) = ready
            && container.state().ready != ready
        {
            container.change(|state| state.ready = ready);
        }
    }
}

async fn failed(container: &Container, probe: &Probe, address: IpAddr) -> String {
    let mut failures = 0;
    let mut turns = Turns::new(probe);
    loop {
        turns.next().await;
        match ask(container, probe, address).await {
            Ok(()) => failures = 0,
            Err(why) => {
                failures += 1;
                if failures >= probe.failure_threshold {
                    return why;
                }
            }
        }
    }
}

async fn ask(container: &Container, probe: &Probe, address: IpAddr) -> Result<(), String> {
    let to = SocketAddr::new(address, probe.port);
    match container.identity().node_netns.http_get(to, &probe.path, probe.timeout).await {
        Ok(answer) if SUCCESS.contains(&answer.status) => Ok(()),
        Ok(answer) => Err(format!("http://{to}{} answers {}", probe.path, answer.status)),
        Err(error) => Err(format!("{error:#}")),
    }
}

/// When a probe is due: after its delay, then at each period, whether or not the last one took long.
struct Turns<'a> {
    probe: &'a Probe,
    due: Option<Instant>,
}

impl<'a> Turns<'a> {
    fn new(probe: &'a Probe) -> Self {
        Self { probe, due: None }
    }

    async fn next(&mut self) {
        match self.due {
            None => sleep(self.probe.initial_delay).await,
            Some(due) => sleep_until(due).await,
        }
        self.due = Some(Instant::now() + self.probe.period);
    }
}
