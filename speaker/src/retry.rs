//! How this process behaves when the API server does not answer: it waits longer and longer, but never long, and says
//! so once.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use berth_telemetry::brief;
use futures::{Stream, StreamExt};
use tokio::time::{Instant, sleep_until};

/// First pause, about as long as an API server needs to be replaced by another behind its load balancer.
const MIN_DELAY: Duration = Duration::from_millis(200);
/// Longest pause: with an attempt every few seconds a thousand nodes are no load, and a cluster that comes back is seen
/// at once.
const MAX_DELAY: Duration = Duration::from_secs(3);

/// A failure after this long a calm begins another outage. Longer than a pause and a request that gets no answer together,
/// so that one outage is not told as many.
const CALM: Duration = Duration::from_secs(30);

/// Longest that one request may take. The client has no limit of its own, so that watches can last.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a watch lasts before it is begun again. An API server that vanishes without a word is noticed after this and a
/// few seconds; a watch that begins again where it was costs the API server nothing worth counting.
pub const WATCH_TIMEOUT_SECONDS: u32 = 60;

fn delays() -> ExponentialBuilder {
    // Jitter, so that the nodes do not all come at once when the API server is back.
    ExponentialBuilder::new().with_min_delay(MIN_DELAY).with_max_delay(MAX_DELAY).with_jitter().without_max_times()
}

/// A request that failed.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The API server refused it or could not be reached.
    #[error("{0}")]
    Api(#[from] kube::Error),
    /// It took longer than [`REQUEST_TIMEOUT`].
    #[error("no answer from the API server within {} s", REQUEST_TIMEOUT.as_secs())]
    Timeout,
}

impl RequestError {
    /// Whether the object was changed by somebody else meanwhile, so that it must be read again.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Api(kube::Error::Api(status)) if status.code == 409)
    }

    /// Whether the object is not there.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Api(kube::Error::Api(status)) if status.code == 404)
    }

    /// Whether asking again later can help: not when the API server found fault with the object itself. Missing rights
    /// may be granted yet, as on the day of an installation.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Api(kube::Error::Api(status)) => matches!(status.code, 401 | 403 | 409 | 429 | 500..),
            Self::Api(_) | Self::Timeout => true,
        }
    }
}

/// Waits for a request, but not for ever.
pub async fn within_limit<T>(request: impl Future<Output = kube::Result<T>>) -> Result<T, RequestError> {
    match tokio::time::timeout(REQUEST_TIMEOUT, request).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(RequestError::Timeout),
    }
}

/// The next event of a watch, not asked for before `at`: a watch that failed begins anew only when it is asked. Loses nothing
/// when dropped.
///
/// The pauses that come with the client's own watches begin from the start at each attempt to list, so an API server that
/// is away would be asked all the time.
pub async fn next_event<S: Stream + Unpin>(events: &mut S, at: Instant) -> Option<S::Item> {
    sleep_until(at).await;
    events.next().await
}

/// One errand that is retried until it succeeds: its pauses, and a single warning for a whole outage.
#[derive(Debug)]
pub struct Retry {
    errand: &'static str,
    pauses: ExponentialBackoff,
    last_failure: Option<Instant>,
}

impl Retry {
    /// `errand` completes the sentence "cannot ...".
    pub fn new(errand: &'static str) -> Self {
        Self { errand, pauses: delays().build(), last_failure: None }
    }

    /// It failed; how long to wait before the next attempt.
    pub fn failed(&mut self, error: &(dyn std::error::Error + 'static)) -> Duration {
        self.failed_at(Instant::now(), error)
    }

    fn failed_at(&mut self, now: Instant, error: &(dyn std::error::Error + 'static)) -> Duration {
        let error = brief(error);
        if self.last_failure.is_some_and(|before| now < before + CALM) {
            tracing::debug!(error, "still cannot {}", self.errand);
        } else {
            tracing::warn!(error, "cannot {}; trying again until it works", self.errand);
            self.pauses = delays().build();
        }
        self.last_failure = Some(now);
        self.pauses.next().unwrap_or(MAX_DELAY)
    }

    /// It succeeded.
    pub fn succeeded(&mut self) {
        if self.last_failure.take().is_some() {
            tracing::info!("can {} again", self.errand);
            self.pauses = delays().build();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_few_seconds_and_begin_anew_with_another_outage() {
        let (mut retry, away, now) = (Retry::new("do it"), std::io::Error::other("away"), Instant::now());
        for _ in 0..100 {
            let pause = retry.failed_at(now, &away);
            // The jitter adds up to the pause itself once more.
            assert!(pause >= MIN_DELAY && pause <= 2 * MAX_DELAY, "{pause:?}");
        }
        assert!(retry.failed_at(now, &away) >= MAX_DELAY);
        retry.succeeded();
        assert!(retry.failed_at(now, &away) <= 2 * MIN_DELAY);
        while retry.failed_at(now, &away) < MAX_DELAY {}
        assert!(retry.failed_at(now + CALM, &away) <= 2 * MIN_DELAY);
    }
}
