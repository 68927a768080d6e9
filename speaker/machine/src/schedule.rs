//! When an address that was claimed is announced.

use std::time::Duration;

use crate::timing::ANNOUNCE_AT;

/// Which announcements of an ownership are still to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Schedule {
    start: Duration,
    left: &'static [Duration],
}

impl Schedule {
    /// All of them, from now on.
    pub(crate) fn full(now: Duration) -> Self {
        Self { start: now, left: &ANNOUNCE_AT }
    }

    /// One at once and no more: for an owner that was away for a moment and whose neighbours still know it.
    pub(crate) fn once(now: Duration) -> Self {
        Self { start: now, left: &[Duration::ZERO] }
    }

    /// When the next one is due.
    pub(crate) fn next(&self) -> Option<Duration> {
        self.left.first().map(|offset| self.start + *offset)
    }

    /// Notes that one was just made. Those that were missed are made up for by this one, not by several in a row.
    pub(crate) fn announced(&mut self, now: Duration) {
        while let [first, rest @ ..] = self.left
            && self.start + *first <= now
        {
            self.left = rest;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Duration = Duration::from_secs(7);

    #[test]
    fn an_address_is_announced_at_once_and_five_times_more() {
        let mut schedule = Schedule::full(START);
        let mut offsets = Vec::new();
        while let Some(at) = schedule.next() {
            offsets.push(at.saturating_sub(START).as_millis());
            schedule.announced(at);
        }
        assert_eq!(offsets, [0, 100, 500, 1_500, 3_000, 5_000]);
    }

    #[test]
    fn announcements_that_were_missed_are_made_up_for_by_one() {
        let mut schedule = Schedule::full(START);
        schedule.announced(START + Duration::from_millis(1_600));
        assert_eq!(schedule.next(), Some(START + Duration::from_secs(3)));
    }

    #[test]
    fn an_owner_that_was_away_for_a_moment_announces_once() {
        let mut schedule = Schedule::once(START);
        assert_eq!(schedule.next(), Some(START));
        schedule.announced(START);
        assert_eq!(schedule.next(), None);
    }
}
