//! Whether kube-proxy follows what changes.

use std::time::Duration;

use berth_api::crd::KubeProxy;

use super::ask::Answer;

/// How long kube-proxy must not have been well before its node is spared: a rollout of it takes less, and load balancers of clouds take a
/// node out after about half of it.
pub const STALE_AFTER: Duration = Duration::from_mins(1);

/// What was seen of kube-proxy. Times are on one clock of the caller's.
#[derive(Clone, Copy, Debug, Default)]
pub struct Follower {
    /// Whether it ever answered, well or not.
    met: bool,
    /// Since when it has not been well.
    unwell_since: Option<Duration>,
    /// Since when nobody listens where it does.
    refused_since: Option<Duration>,
}

impl Follower {
    /// Notes what it answered.
    pub fn observe(&mut self, now: Duration, answer: Answer) {
        self.met |= matches!(answer, Answer::Well | Answer::Unwell);
        if answer == Answer::Well {
            self.unwell_since = None;
        } else {
            self.unwell_since.get_or_insert(now);
        }
        if answer == Answer::Refused {
            self.refused_since.get_or_insert(now);
        } else {
            self.refused_since = None;
        }
    }

    /// What to say of it. One that was never met is absent, whatever the time: something else may forward, as with CNIs that replace it.
    pub fn state(&self, now: Duration) -> KubeProxy {
        match self.unwell_since {
            _ if !self.met => KubeProxy::Absent,
            Some(since) if now >= since + STALE_AFTER => KubeProxy::Stale,
            _ => KubeProxy::Fresh,
        }
    }

    /// For how long nobody has listened where it does.
    pub fn refused_for(&self, now: Duration) -> Duration {
        self.refused_since.map_or(Duration::ZERO, |since| now.saturating_sub(since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kube_proxy_is_fresh_until_it_was_not_well_for_a_minute_and_absent_until_it_is_met() {
        use Answer::{Nothing, Refused, Unwell, Well};
        use KubeProxy::{Absent, Fresh, Stale};
        // What is answered from which second on; what is said of it, and for how long it has refused, at the last second.
        for (what, answers, at, expected, refused) in [
            ("well from the start", &[(0, Well)][..], 3_600, Fresh, 0),
            ("never there", &[(0, Refused)], 3_600, Absent, 3_600),
            ("it comes late", &[(0, Refused), (90, Well)], 91, Fresh, 0),
            ("it has yet to write its first rules", &[(0, Unwell)], 59, Fresh, 0),
            ("it never writes any", &[(0, Unwell)], 60, Stale, 0),
            ("it is replaced", &[(0, Well), (100, Refused)], 159, Fresh, 59),
            ("it died", &[(0, Well), (100, Refused)], 160, Stale, 60),
            ("it hangs", &[(0, Well), (100, Nothing)], 160, Stale, 0),
            ("it cannot write its rules", &[(0, Well), (100, Unwell)], 160, Stale, 0),
            ("it begins to hang and then dies", &[(0, Well), (100, Nothing), (140, Refused)], 160, Stale, 20),
            ("it is back", &[(0, Well), (100, Refused), (200, Well)], 200, Fresh, 0),
            ("well once in between", &[(0, Well), (100, Refused), (150, Well), (151, Refused)], 200, Fresh, 49),
        ] {
            let mut follower = Follower::default();
            for second in 0..=at {
                let answer = answers.iter().rev().find(|(from, _)| *from <= second).unwrap().1;
                follower.observe(Duration::from_secs(second), answer);
            }
            let now = Duration::from_secs(at);
            assert_eq!((follower.state(now), follower.refused_for(now).as_secs()), (expected, refused), "{what}");
        }
    }
}
