//! Spreads what many addresses want to do at once, so that a node which takes over thousands neither floods the link nor its own queues.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::timing::{TURN_BURST, TURN_TIME};

/// Gives out turns, [`TURN_TIME`] apart, after a few at once.
#[derive(Debug)]
pub(crate) struct Pacer<K> {
    /// Up to when turns are given out.
    taken: Duration,
    /// Who was given one that had to be waited for, and when it is.
    granted: BTreeMap<K, Duration>,
}

impl<K: Ord + Copy> Pacer<K> {
    pub(crate) fn new() -> Self {
        Self { taken: Duration::ZERO, granted: BTreeMap::new() }
    }

    /// Asks for a turn: now (`None`), or at the time that is told, when it is asked for again. Who asks earlier keeps the turn it has.
    pub(crate) fn turn(&mut self, now: Duration, key: K) -> Option<Duration> {
        if let Some(at) = self.granted.get(&key).copied() {
            if at > now {
                return Some(at);
            }
            self.granted.remove(&key);
            return None;
        }
        self.taken = self.taken.max(now.saturating_sub(TURN_TIME * TURN_BURST)) + TURN_TIME;
        (self.taken > now).then(|| {
            self.granted.insert(key, self.taken);
            self.taken
        })
    }

    /// Somebody has no use for a turn any more.
    pub(crate) fn forget(&mut self, key: K) {
        self.granted.remove(&key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_go_at_once_and_the_others_one_after_the_other() {
        let (mut pacer, start) = (Pacer::new(), Duration::from_secs(1));
        let burst = (0..TURN_BURST).filter(|key| pacer.turn(start, *key).is_none()).count();
        assert_eq!(burst, TURN_BURST as usize);
        for n in 1..=100 {
            assert_eq!(pacer.turn(start, TURN_BURST + n), Some(start + TURN_TIME * n));
        }
        assert_eq!(pacer.turn(start, TURN_BURST + 7), Some(start + TURN_TIME * 7), "who asks again keeps its turn");
        assert_eq!(pacer.turn(start + TURN_TIME, TURN_BURST + 1), None, "its turn has come");
        assert_eq!(pacer.turn(start + TURN_TIME, TURN_BURST + 1), Some(start + TURN_TIME * 101), "once");
        let calm = start + Duration::from_secs(1);
        assert_eq!(pacer.turn(calm, 0), None, "after a while a few go at once again");
    }
}
