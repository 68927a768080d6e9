//! Keeps the Secret by which speakers know each other's heartbeats: makes it, mends it, puts a new key into it from time to time.
//!
//! The leader looks at it when it begins to lead and then each minute. Nothing is watched, so that no right to list Secrets is needed. A
//! write that comes late meets the version that it was planned on, or a Secret that is there already, and is refused.

mod rotation;

use std::time::Duration;

use anyhow::Context as _;
use berth_api::heartbeat_keys::{KEY_BYTES, SECRET};
use berth_api::names::{CONTROLLER_FIELD_MANAGER, SPEAKER_NAMESPACE};
use berth_pool::driver::{WriteError, call};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::Client;
use kube::api::{Api, PostParams};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

pub use rotation::Rotation;

use crate::backoff;
use crate::lease::Leadership;
use crate::metrics::{Metrics, WriteLabels};

/// Between two looks: as long as a kubelet takes to show a change, so that who asks for a new key waits little more for this.
const LOOK_EVERY: Duration = Duration::from_mins(1);

/// Failures in a row after which it is tried no more often than it is looked at: within a minute, what comes by itself is there, and
/// where no speakers are installed there is no namespace for the Secret.
const QUICK_TRIES: u32 = 10;

/// Looks at the Secret, and writes it.
pub(crate) struct HeartbeatKeys {
    api: Api<Secret>,
    rotation: Rotation,
    leadership: watch::Receiver<Leadership>,
    metrics: Metrics,
    failures: u32,
}

impl HeartbeatKeys {
    pub(crate) fn new(
        client: Client,
        rotation: Rotation,
        leadership: watch::Receiver<Leadership>,
        metrics: Metrics,
    ) -> Self {
        let api = Api::namespaced(client, SPEAKER_NAMESPACE);
        Self { api, rotation, leadership, metrics, failures: 0 }
    }

    /// Until `end`. A request that is under way then is dropped: the next leader looks anew.
    pub(crate) async fn run(mut self, end: CancellationToken) {
        let (mut led, mut due) = (Leadership::default(), Instant::now());
        loop {
            let now = *self.leadership.borrow_and_update();
            if now.holds() && !now.goes_on_from(led) {
                due = Instant::now();
            }
            led = now;
            tokio::select! {
                () = end.cancelled() => return,
                () = sleep_until(due), if now.holds() => {
                    let wait = tokio::select! {
                        () = end.cancelled() => return,
                        wait = self.turn() => wait,
                    };
                    due = Instant::now() + wait;
                }
                // Its end is its own affair: it comes before the last word of this process.
                Ok(()) = self.leadership.changed() => {}
            }
        }
    }

    /// Looks once, writes if need be, and says how long to wait.
    async fn turn(&mut self) -> Duration {
        match self.look().await {
            Ok(()) => {
                if std::mem::take(&mut self.failures) > 0 {
                    tracing::info!("the Secret of the heartbeats' keys can be looked after again");
                }
                LOOK_EVERY
            }
            Err(error) => {
                self.failures = self.failures.saturating_add(1);
                // Once for an outage. The first may be that somebody else was quicker, or that the namespace is not there yet.
                if self.failures == 2 {
                    tracing::warn!(
                        error = format!("{error:#}"),
                        "cannot look after the Secret {SECRET} in namespace {SPEAKER_NAMESPACE}; speakers that start need it"
                    );
                }
                if self.failures > QUICK_TRIES { LOOK_EVERY } else { backoff::wait(self.failures, 0) }
            }
        }
    }

    async fn look(&self) -> anyhow::Result<()> {
        let name = format!("{SPEAKER_NAMESPACE}/{SECRET}");
        let seen = call("get", "Secret", &name, self.api.get_opt(SECRET)).await?;
        let mut fresh = [0; KEY_BYTES];
        getrandom::fill(&mut fresh).context("the operating system gives no random numbers")?;
        let Some((cause, secret)) = rotation::next(seen.as_ref(), &fresh, self.rotation, Timestamp::now()) else {
            return Ok(());
        };
        // An answer may have taken long.
        if !self.leadership.borrow().holds() {
            return Ok(());
        }
        let params = PostParams { field_manager: Some(CONTROLLER_FIELD_MANAGER.to_owned()), ..PostParams::default() };
        let written = match seen {
            None => call("create", "Secret", &name, self.api.create(&params, &secret)).await,
            Some(_) => call("update", "Secret", &name, self.api.replace(SECRET, &params, &secret)).await,
        };
        let result = written.as_ref().map_or_else(WriteError::result, |_| "ok");
        self.metrics.writes.get_or_create(&WriteLabels { kind: "Secret", result }).inc();
        written?;
        let generations: Vec<_> = secret.data.iter().flat_map(|data| data.keys()).collect();
        tracing::info!(secret = name, ?generations, "{cause}");
        Ok(())
    }
}

#[cfg(test)]
mod tests;
