//! A client that never stops asking: what it saw is how an outage is measured.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::netns::Netns;
use crate::pod::Answer;

/// Longest wait of one attempt. A SYN that was lost is sent again after 1 s, so an attempt that
/// outlived this would measure the retransmission timer, not the outage.
pub const ATTEMPT_LIMIT: Duration = Duration::from_secs(1);
/// Attempts under way at once: those of one limit at the shortest sensible interval, 5 ms.
const UNDER_WAY_MAX: usize = 200;

/// One new connection with one GET.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// When it began.
    pub started: Instant,
    /// When its answer was complete, or it was given up.
    pub finished: Instant,
    /// What was answered, or what went wrong.
    pub outcome: Result<Answer, String>,
}

/// What a prober has seen.
#[derive(Debug, Clone)]
pub struct Observation {
    /// When it began.
    pub began: Instant,
    /// Up to when it looked.
    pub until: Instant,
    /// All attempts, in order of their end.
    pub attempts: Vec<Attempt>,
    /// Attempts that were not begun because too many were under way.
    pub skipped: usize,
}

impl Observation {
    /// The attempts that were answered.
    pub fn answered(&self) -> impl Iterator<Item = (&Attempt, &Answer)> {
        self.attempts.iter().filter_map(|attempt| attempt.outcome.as_ref().ok().map(|answer| (attempt, answer)))
    }

    /// The attempts that were not, with the reason.
    pub fn failed(&self) -> impl Iterator<Item = (&Attempt, &str)> {
        self.attempts.iter().filter_map(|attempt| attempt.outcome.as_ref().err().map(|error| (attempt, error.as_str())))
    }

    /// The longest time without a completed answer, also before the first and after the last.
    pub fn longest_gap(&self) -> Duration {
        self.longest_gap_since(self.began)
    }

    /// The same from `since` on. A gap that `since` lies in counts from its beginning.
    pub fn longest_gap_since(&self, since: Instant) -> Duration {
        let mut last = self.began;
        let mut longest = Duration::ZERO;
        for moment in self.answered().map(|(attempt, _)| attempt.finished).chain([self.until]) {
            if moment >= since {
                longest = longest.max(moment.saturating_duration_since(last));
            }
            last = moment;
        }
        longest
    }
}

/// Asks in the background until it is stopped or dropped.
#[derive(Debug)]
pub struct Prober {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
    to: SocketAddr,
    from: String,
}

#[derive(Debug)]
struct Shared {
    began: Instant,
    seen: Mutex<Seen>,
    count: watch::Sender<usize>,
}

#[derive(Debug, Default)]
struct Seen {
    attempts: Vec<Attempt>,
    skipped: usize,
}

impl Prober {
    pub(crate) fn start(netns: Netns, to: SocketAddr, every: Duration) -> Self {
        let shared = Arc::new(Shared { began: Instant::now(), seen: Mutex::default(), count: watch::Sender::new(0) });
        let from = netns.name().to_owned();
        let task = tokio::spawn(keep_asking(netns, to, every, shared.clone()));
        Self { shared, task, to, from }
    }

    /// What it has seen so far.
    pub fn observation(&self) -> Observation {
        self.shared.observation()
    }

    /// The longest time without a completed answer so far.
    pub fn longest_gap(&self) -> Duration {
        self.observation().longest_gap()
    }

    /// Waits for the first answer to an attempt that began after `since`.
    pub async fn answered_since(&self, since: Instant, limit: Duration) -> Result<Attempt> {
        let mut count = self.shared.count.subscribe();
        let mut looked_at = 0;
        let search = async {
            loop {
                count.borrow_and_update();
                if let Some(found) = self.shared.answer_since(since, &mut looked_at) {
                    return found;
                }
                // The sender lives as long as this prober.
                if count.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        if let Ok(found) = timeout(limit, search).await {
            return Ok(found);
        }
        let seen = self.observation();
        let last = seen.failed().last().map_or("no attempt failed", |(_, error)| error);
        let answers = seen.answered().count();
        let (from, to) = (&self.from, self.to);
        bail!("no answer from {to} to {from} for {limit:?} ({answers} answers before that); last seen: {last}")
    }

    /// Waits for an answer to an attempt that begins from now on.
    pub async fn answered(&self, limit: Duration) -> Result<Attempt> {
        self.answered_since(Instant::now(), limit).await
    }

    /// Stops, and tells what it has seen. Attempts that are still under way are not in it.
    pub fn stop(self) -> Observation {
        self.shared.observation()
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    fn observation(&self) -> Observation {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        Observation { began: self.began, until: Instant::now(), attempts: seen.attempts.clone(), skipped: seen.skipped }
    }

    fn answer_since(&self, since: Instant, looked_at: &mut usize) -> Option<Attempt> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let found = seen.attempts.iter().skip(*looked_at).find(|a| a.outcome.is_ok() && a.started >= since).cloned();
        *looked_at = seen.attempts.len();
        found
    }

    fn record(&self, attempt: Attempt) {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).attempts.push(attempt);
        self.count.send_modify(|count| *count += 1);
    }

    fn skip(&self) {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).skipped += 1;
    }
}

/// One task for each attempt; all end with this one.
async fn keep_asking(netns: Netns, to: SocketAddr, every: Duration, shared: Arc<Shared>) {
    let under_way = Arc::new(Semaphore::new(UNDER_WAY_MAX));
    let mut attempts = JoinSet::new();
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        while attempts.try_join_next().is_some() {}
        let Ok(permit) = under_way.clone().try_acquire_owned() else {
            shared.skip();
            continue;
        };
        let (netns, shared) = (netns.clone(), shared.clone());
        attempts.spawn(async move {
            let started = Instant::now();
            let outcome = ask(&netns, to).await.map_err(|error| format!("{error:#}"));
            shared.record(Attempt { started, finished: Instant::now(), outcome });
            drop(permit);
        });
    }
}

async fn ask(netns: &Netns, to: SocketAddr) -> Result<Answer> {
    let answer = netns.http_get(to, "/", ATTEMPT_LIMIT).await?;
    serde_json::from_str(&answer.body).with_context(|| format!("status {}, not an answer of a pod", answer.status))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An observation of `length` ms with answers and failures at these ms.
    fn observed(length: u64, answers: &[u64], failures: &[u64]) -> Observation {
        let began = Instant::now();
        let at = |ms: u64| began + Duration::from_millis(ms);
        let answer = Answer {
            pod: "web".to_owned(),
            node: "node-1".to_owned(),
            client: ([192, 0, 2, 100], 4711).into(),
            path: "/".to_owned(),
        };
        let answered = answers.iter().map(|ms| (*ms, Ok(answer.clone())));
        let failed = failures.iter().map(|ms| (*ms, Err("no answer".to_owned())));
        let mut attempts: Vec<_> = answered
            .chain(failed)
            .map(|(ms, outcome)| Attempt { started: at(ms), finished: at(ms), outcome })
            .collect();
        attempts.sort_by_key(|attempt| attempt.finished);
        Observation { began, until: at(length), attempts, skipped: 0 }
    }

    #[test]
    fn the_longest_gap_is_between_answers_and_at_both_ends() {
        for (length, answers, gap) in [
            (100, &[10, 20, 70, 95][..], 50),
            (100, &[60, 70, 80, 90][..], 60),
            (100, &[10, 20, 30][..], 70),
            (100, &[][..], 100),
        ] {
            assert_eq!(observed(length, answers, &[]).longest_gap(), Duration::from_millis(gap), "{answers:?}");
        }
    }

    #[test]
    fn a_failure_does_not_end_a_gap() {
        assert_eq!(observed(100, &[10, 90], &[40, 50]).longest_gap(), Duration::from_millis(80));
    }

    #[test]
    fn a_gap_that_lies_before_does_not_count_and_one_that_was_open_counts_whole() {
        let observation = observed(200, &[10, 110, 120, 150, 190], &[]);
        let at = |ms| observation.began + Duration::from_millis(ms);
        assert_eq!(observation.longest_gap_since(at(115)), Duration::from_millis(40));
        assert_eq!(observation.longest_gap_since(at(100)), Duration::from_millis(100));
    }
}
