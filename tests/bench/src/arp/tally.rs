//! How long questions waited for their answers.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::client::Family;

/// After this a question counts as not answered: kernels ask again after a second (RFC 4861 section 10, RETRANS_TIMER; arp(7),
/// `retrans_time_ms`).
pub(crate) const GIVE_UP: Duration = Duration::from_secs(1);

/// The questions of one family. An address is asked for again once its question was answered or given up.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    waiting: BTreeMap<IpAddr, SystemTime>,
    asked: u64,
    took: Vec<Duration>,
}

/// What became of the questions of one family. The times are zero where none was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Answers {
    pub(crate) family: Family,
    pub(crate) asked: u64,
    pub(crate) answered: u64,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
    pub(crate) max: Duration,
}

impl Tally {
    /// Whether nobody waits for an answer about an address.
    pub(crate) fn is_free(&self, address: IpAddr) -> bool {
        !self.waiting.contains_key(&address)
    }

    /// Questions without an answer so far.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// A question went out.
    pub(crate) fn asked(&mut self, address: IpAddr, at: SystemTime) {
        self.asked += 1;
        self.waiting.insert(address, at);
    }

    /// An answer arrived. One that nobody waits for, as after it was given up, counts for nothing.
    pub(crate) fn answered(&mut self, address: IpAddr, at: SystemTime) {
        if let Some(asked) = self.waiting.remove(&address) {
            self.took.push(at.duration_since(asked).unwrap_or_default());
        }
    }

    /// Gives up what was asked too long ago.
    pub(crate) fn give_up(&mut self, now: SystemTime) {
        self.waiting.retain(|_, asked| now.duration_since(*asked).unwrap_or_default() < GIVE_UP);
    }

    /// What became of all of them.
    pub(crate) fn done(mut self, family: Family) -> Answers {
        self.took.sort_unstable();
        let took = &self.took;
        // The least time that so many in a hundred did not exceed.
        let at = |percent: usize| {
            let rank = (took.len() * percent).div_ceil(100).max(1);
            took.get(rank - 1).copied().unwrap_or_default()
        };
        Answers { family, asked: self.asked, answered: took.len() as u64, p50: at(50), p99: at(99), max: at(100) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(n: u8) -> IpAddr {
        [192, 0, 2, n].into()
    }

    #[test]
    fn times_are_those_that_so_many_in_a_hundred_did_not_exceed() {
        let start = SystemTime::UNIX_EPOCH;
        for (answers, p50, p99, max) in
            [(0, 0, 0, 0), (1, 1, 1, 1), (2, 1, 2, 2), (100, 50, 99, 100), (200, 100, 198, 200)]
        {
            let mut tally = Tally::default();
            // The slowest first.
            for n in (1..=answers).rev() {
                tally.asked(address(1), start);
                tally.answered(address(1), start + Duration::from_micros(n));
            }
            let done = tally.done(Family::Ipv4);
            let us = Duration::from_micros;
            let expected = Answers {
                family: Family::Ipv4,
                asked: answers,
                answered: answers,
                p50: us(p50),
                p99: us(p99),
                max: us(max),
            };
            assert_eq!(done, expected);
        }
    }

    #[test]
    fn a_question_is_answered_once_and_in_time_or_counts_as_lost() {
        let start = SystemTime::UNIX_EPOCH;
        let mut tally = Tally::default();
        tally.asked(address(1), start);
        tally.asked(address(2), start);
        tally.answered(address(2), start + Duration::from_millis(5));
        tally.answered(address(2), start + Duration::from_millis(6));
        tally.answered(address(3), start + Duration::from_millis(7));
        tally.give_up(start + GIVE_UP - Duration::from_nanos(1));
        assert_eq!((tally.waiting(), tally.is_free(address(1)), tally.is_free(address(2))), (1, false, true));
        tally.give_up(start + GIVE_UP);
        tally.answered(address(1), start + GIVE_UP);
        assert_eq!(tally.waiting(), 0);
        let done = tally.done(Family::Ipv4);
        assert_eq!((done.asked, done.answered, done.max), (2, 1, Duration::from_millis(5)));
    }
}
