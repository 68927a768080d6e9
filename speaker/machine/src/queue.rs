//! Deadlines, so that a tick touches only what is due.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::shared::{packed, packed_set};

/// At most one deadline for each key, in the order of time.
#[derive(Debug)]
pub(crate) struct Queue<K> {
    by_time: BTreeSet<(Duration, K)>,
    by_key: BTreeMap<K, Duration>,
}

impl<K: Ord + Copy> Queue<K> {
    pub(crate) fn new() -> Self {
        Self { by_time: BTreeSet::new(), by_key: BTreeMap::new() }
    }

    /// Sets, moves or (`None`) removes the deadline of a key.
    pub(crate) fn set(&mut self, key: K, at: Option<Duration>) {
        let old = match at {
            Some(at) => self.by_key.insert(key, at),
            None => self.by_key.remove(&key),
        };
        if old == at {
            return;
        }
        if let Some(old) = old {
            self.by_time.remove(&(old, key));
        }
        if let Some(at) = at {
            self.by_time.insert((at, key));
        }
    }

    /// Takes as little room as can be.
    pub(crate) fn pack(&mut self) {
        packed_set(&mut self.by_time);
        packed(&mut self.by_key);
    }

    /// The earliest deadline.
    pub(crate) fn next(&self) -> Option<Duration> {
        self.by_time.first().map(|&(at, _)| at)
    }

    /// Takes out the earliest deadline if it has come.
    pub(crate) fn pop_due(&mut self, now: Duration) -> Option<(Duration, K)> {
        let &(at, key) = self.by_time.first()?;
        if at > now {
            return None;
        }
        self.set(key, None);
        Some((at, key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_come_in_the_order_of_time_and_only_when_due() {
        let at = Duration::from_millis;
        let mut queue = Queue::new();
        queue.set('a', Some(at(30)));
        queue.set('b', Some(at(20)));
        queue.set('c', Some(at(10)));
        queue.set('a', Some(at(5)));
        queue.set('c', None);
        assert_eq!(queue.next(), Some(at(5)));
        assert_eq!(queue.pop_due(at(4)), None);
        assert_eq!(queue.pop_due(at(25)), Some((at(5), 'a')));
        assert_eq!(queue.pop_due(at(25)), Some((at(20), 'b')));
        assert_eq!((queue.pop_due(at(25)), queue.next()), (None, None));
    }
}
