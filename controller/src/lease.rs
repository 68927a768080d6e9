//! Who of the replicas leads: one Lease, held by the one whose name stands in it.
//!
//! No clocks are compared. A standby takes the Lease when it has seen the very same one for the whole of its duration, on its
//! own clock; a leader stops by its own clock, earlier than that. A Lease does not fence: a leader that is paused between a look
//! at its clock and a write may still write. What prevents double use is that an address's Announcement can be made only once,
//! and that an Announcement and the status of a
//! Service are written under the version that was planned on.

mod election;

use std::time::Duration;

use anyhow::Context;
use berth_api::names::{CONTROLLER_FIELD_MANAGER, LEADER_LEASE};
use berth_telemetry::brief;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::{Api, PostParams};
use kube::{Client, ResourceExt};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use election::{Answer, Election, Next, Seen};

use crate::heritage::{self, Heritage};
use crate::metrics::Metrics;

/// How long the Lease is good for after it was renewed. A standby whose leader was killed leads after this and [`POLL`] at the
/// latest. Three seconds outlive a pause of an API server's store while it chooses a leader of its own.
const DURATION: Duration = Duration::from_secs(3);
/// How often the leader renews. A renewal that fails or hangs is tried again at once, so that one that hangs and one that is refused
/// are survived.
const RENEW: Duration = Duration::from_millis(750);
/// How long after its last renewal a leader may still begin to write: what is on its way then arrives before others lead.
const DEADLINE: Duration = Duration::from_millis(2250);
/// How often a standby looks.
const POLL: Duration = Duration::from_millis(500);
/// Longest that one request may take: two fit between a renewal and the deadline.
const REQUEST: Duration = Duration::from_millis(650);
/// How soon a leader whose renewal failed tries again.
const RENEW_AGAIN: Duration = Duration::from_millis(100);

/// Whether this replica leads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Leadership {
    /// Until when, unless it is renewed; `None` for a standby.
    until: Option<Instant>,
}

impl Leadership {
    /// For as long as the process lives: no other replica is asked about.
    pub(crate) fn alone() -> Self {
        // A century; the clock cannot say more.
        Self { until: Some(Instant::now() + Duration::from_hours(24 * 36_500)) }
    }

    /// Whether it has led ever since it `led`, as far as can be said without asking: no other replica can have led meanwhile.
    pub(crate) fn goes_on_from(self, led: Self) -> bool {
        self.holds() && led.holds()
    }

    /// Whether it may begin to write now.
    pub(crate) fn holds(self) -> bool {
        self.until.is_some_and(|until| Instant::now() < until)
    }
}

/// Follows the Lease until it is told to end, and gives it back then.
pub(crate) struct Candidate {
    api: Api<Lease>,
    election: Election,
    began: Instant,
    tell: watch::Sender<Leadership>,
    heritage: Heritage,
    metrics: Metrics,
    failures: u32,
}

impl Candidate {
    /// A candidate of this name in the controller's own namespace, and where it says whether it leads.
    pub(crate) fn new(
        client: Client,
        namespace: &str,
        identity: String,
        heritage: Heritage,
        metrics: Metrics,
    ) -> (Self, watch::Receiver<Leadership>) {
        let (tell, told) = watch::channel(Leadership::default());
        let election = Election::new(
            identity,
            election::Timing { duration: DURATION, renew: RENEW, deadline: DEADLINE, poll: POLL },
        );
        let api = Api::namespaced(client, namespace);
        (Self { api, election, began: Instant::now(), tell, heritage, metrics, failures: 0 }, told)
    }

    /// Until `end`; then the Lease is given back, so that another replica leads at once.
    pub(crate) async fn run(mut self, end: CancellationToken) {
        while !end.is_cancelled() {
            let wait = self.turn().await;
            tokio::select! {
                () = end.cancelled() => break,
                () = tokio::time::sleep(wait) => {}
            }
        }
        self.tell.send_replace(Leadership::default());
        self.metrics.leader.set(0);
        if let Some(mut lease) = self.election.resign() {
            lease.spec.get_or_insert_default().renew_time = Some(MicroTime(Timestamp::now()));
            self.heritage.put_on(&mut lease);
            match timeout(REQUEST, self.api.replace(&lease.name_any(), &PostParams::default(), &lease)).await {
                Ok(Ok(_)) => tracing::info!("gave the Lease back"),
                Ok(Err(error)) => tracing::debug!(error = brief(&error), "Lease not given back; it runs out"),
                Err(_) => tracing::debug!("Lease not given back; it runs out"),
            }
        }
    }

    /// Asks once and says how long to wait.
    async fn turn(&mut self) -> Duration {
        let asked = self.began.elapsed();
        let answer = match timeout(REQUEST, self.ask()).await {
            Ok(Ok(answer)) => Some(answer),
            Ok(Err(error)) => self.failed(&format!("{error:#}")),
            Err(_) => self.failed("no answer from the API server"),
        };
        if answer.is_some() && std::mem::take(&mut self.failures) > 0 {
            tracing::info!("the Lease can be asked about again");
        }
        let led = self.tell.borrow().until.is_some();
        let answered = answer.is_some();
        let now = self.began.elapsed();
        self.election.learn(answer, asked, now);
        let until = self.election.leads_until(now).map(|until| self.began + until);
        match (led, until.is_some()) {
            (false, true) => tracing::info!("leading"),
            (true, false) => tracing::warn!("leading no more; what is under way is taken up by the next leader"),
            _ => {}
        }
        self.tell.send_replace(Leadership { until });
        self.metrics.leader.set(i64::from(until.is_some()));
        match (answered, until.is_some()) {
            (true, _) => self.election.wait(now),
            (false, true) => RENEW_AGAIN,
            // An API server that is away, or refuses, is not asked more often than by any standby.
            (false, false) => POLL,
        }
    }

    fn failed(&mut self, error: &str) -> Option<Answer> {
        self.failures = self.failures.saturating_add(1);
        // Once for an outage.
        if self.failures == 1 {
            tracing::warn!(error, "cannot ask about the Lease");
        }
        None
    }

    /// Does what is next, and returns the Lease as it is then.
    async fn ask(&self) -> anyhow::Result<Answer> {
        let mut written = false;
        let params = PostParams { field_manager: Some(CONTROLLER_FIELD_MANAGER.to_owned()), ..PostParams::default() };
        let looked = match self.election.next(self.began.elapsed(), Timestamp::now()) {
            Next::Look => self.api.get_opt(LEADER_LEASE).await.context("reading the Lease")?,
            Next::Write(mut lease) => {
                heritage::strip(&mut lease);
                let answer = match &lease.metadata.resource_version {
                    Some(_) => self.api.replace(LEADER_LEASE, &params, &lease).await,
                    None => self.api.create(&params, &lease).await,
                };
                match answer {
                    Ok(lease) => {
                        written = true;
                        if !self.tell.borrow().holds() {
                            self.heritage.find(self.election.seen());
                        }
                        Some(lease)
                    }
                    // Another replica was quicker; what it wrote is looked at.
                    Err(kube::Error::Api(status)) if status.code == 409 => {
                        self.api.get_opt(LEADER_LEASE).await.context("reading the Lease")?
                    }
                    Err(error) => return Err(error).context("writing the Lease"),
                }
            }
        };
        Ok(Answer { seen: looked.map_or(Seen::Nothing, |lease| Seen::Lease(Box::new(lease))), written })
    }
}

/// A Lease that names `holder`, made from the one that was seen.
fn lease_of(seen: Option<&Lease>, holder: &str, duration: Duration, now: Timestamp) -> Lease {
    let old = seen.and_then(|lease| lease.spec.clone()).unwrap_or_default();
    let stays = old.holder_identity.as_deref() == Some(holder);
    let transitions = old.lease_transitions.unwrap_or_default();
    let metadata = seen.map_or_else(
        || ObjectMeta { name: Some(LEADER_LEASE.to_owned()), ..ObjectMeta::default() },
        |lease| ObjectMeta { managed_fields: None, ..lease.metadata.clone() },
    );
    Lease {
        metadata,
        spec: Some(LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            lease_duration_seconds: i32::try_from(duration.as_secs()).ok(),
            acquire_time: old.acquire_time.filter(|_| stays).or(Some(MicroTime(now))),
            renew_time: Some(MicroTime(now)),
            // Counted from the first holder, who took it from nobody.
            lease_transitions: Some(if stays || seen.is_none() { transitions } else { transitions.saturating_add(1) }),
            ..LeaseSpec::default()
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_that_ran_out_before_it_was_renewed_is_another_one() {
        let lasts = |seconds| Leadership { until: Some(Instant::now() + Duration::from_secs(seconds)) };
        let first = lasts(10);
        assert!(!first.goes_on_from(Leadership::default()), "it begins");
        tokio::time::advance(Duration::from_secs(5)).await;
        let second = lasts(10);
        assert!(second.goes_on_from(first), "it was renewed in time");
        tokio::time::advance(Duration::from_secs(11)).await;
        assert!(!second.goes_on_from(second), "it ran out");
        assert!(!lasts(10).goes_on_from(second), "another may have led meanwhile, as when this process was paused");
    }
}
