//! When a container that has ended is started again, as a kubelet with `restartPolicy: Always` does.

use std::time::Duration;

/// A kubelet looks at its containers once a second, so that is how long the first restart takes.
pub(crate) const NOTICE: Duration = Duration::from_secs(1);
/// The delay of the second restart; each further one takes twice as long.
const BASE: Duration = Duration::from_secs(10);
/// The longest delay.
const MAX: Duration = Duration::from_mins(5);
/// A container that ran for so long begins anew.
const FORGIVEN: Duration = Duration::from_mins(10);

/// What the next end of a container costs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Restarts {
    next: Duration,
}

impl Restarts {
    pub(crate) fn new() -> Self {
        Self { next: NOTICE }
    }

    /// The delay after an end, when the container had run for so long.
    pub(crate) fn delay(&mut self, ran: Duration) -> Duration {
        if ran >= FORGIVEN {
            self.next = NOTICE;
        }
        let delay = self.next;
        self.next = if delay < BASE { BASE } else { (delay * 2).min(MAX) };
        delay
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_end_costs_twice_the_last_until_the_container_has_run_for_long() {
        let mut restarts = Restarts::new();
        let short = Duration::from_secs(9);
        let delays: Vec<_> = (0..8).map(|_| restarts.delay(short).as_secs()).collect();
        assert_eq!(delays, [1, 10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(restarts.delay(FORGIVEN).as_secs(), 1);
        assert_eq!(restarts.delay(short).as_secs(), 10);
    }
}
