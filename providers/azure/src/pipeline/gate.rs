//! Who asks for fewer calls gets none until then. ARM counts reads, writes and deletions of each kind of resource by themselves.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::arm::{Id, Verb};

/// How long nothing is asked where ARM does not say.
const UNSAID: Duration = Duration::from_secs(5);
/// The longest that is waited: ARM asks for minutes at most, and a wrong number shall not stop everything.
const LONGEST: Duration = Duration::from_mins(5);

/// Until when what is not asked.
#[derive(Debug, Default)]
pub(super) struct Gate {
    closed: BTreeMap<(String, Verb), Instant>,
}

/// What ARM counts a call as.
pub(super) fn kind(id: &Id, verb: Verb) -> (String, Verb) {
    let typed = id.as_str().split("/providers/Microsoft.Network/").nth(1).unwrap_or_default();
    (typed.split('/').next().unwrap_or_default().to_lowercase(), verb)
}

impl Gate {
    /// How long a call has to wait, if it has to.
    pub(super) fn wait(&mut self, kind: &(String, Verb), now: Instant) -> Option<Duration> {
        self.closed.retain(|_, until| *until > now);
        self.closed.get(kind).map(|until| *until - now)
    }

    /// Lets nothing of a kind through for a while; returns for how long.
    pub(super) fn close(&mut self, kind: (String, Verb), now: Instant, asked: Option<Duration>) -> Duration {
        let wait = asked.unwrap_or(UNSAID).min(LONGEST);
        self.closed.insert(kind, now + wait);
        wait
    }
}
