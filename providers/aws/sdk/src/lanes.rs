//! Waiting for a turn: [`berth_aws::pace`] with a clock.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use berth_aws::action::Lane;
use berth_aws::pace::{Bucket, Rates};
use tokio::time::{Instant, sleep};

/// All lanes.
#[derive(Debug)]
pub(crate) struct Lanes {
    began: Instant,
    lanes: [One; Lane::ALL.len()],
}

#[derive(Debug)]
struct One {
    /// Held by whoever is next, so that those who wait go one after the other, in the order in which they came.
    next: tokio::sync::Mutex<()>,
    bucket: Mutex<Bucket>,
}

impl Lanes {
    pub(crate) fn new(rates: &Rates) -> Self {
        let one = |lane| One {
            next: tokio::sync::Mutex::default(),
            bucket: Mutex::new(Bucket::new(rates.of(lane), Duration::ZERO)),
        };
        Self { began: Instant::now(), lanes: Lane::ALL.map(one) }
    }

    /// Returns when a call may be made.
    pub(crate) async fn turn(&self, lane: Lane) {
        let _next = self.lanes[lane as usize].next.lock().await;
        while let Err(wait) = self.bucket(lane, Bucket::take) {
            sleep(wait).await;
        }
    }

    /// AWS has asked for fewer calls.
    pub(crate) fn refused(&self, lane: Lane, wait: Option<Duration>) {
        self.bucket(lane, |bucket, now| bucket.refused(now, wait));
    }

    fn bucket<T>(&self, lane: Lane, with: impl FnOnce(&mut Bucket, Duration) -> T) -> T {
        // Nothing panics while it is held, and a bucket is right after each of its own changes.
        let mut bucket = self.lanes[lane as usize].bucket.lock().unwrap_or_else(PoisonError::into_inner);
        with(&mut bucket, self.began.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn turns_come_in_the_order_of_those_who_wait_and_as_fast_as_the_lane_allows() {
        let lanes = Arc::new(Lanes::new(&"elb-write=2/1".parse().unwrap()));
        let served = Arc::new(Mutex::new(Vec::new()));
        let mut waiting = tokio::task::JoinSet::new();
        for who in 0..5 {
            let (lanes, served) = (lanes.clone(), served.clone());
            waiting.spawn(async move {
                lanes.turn(Lane::ElbWrite).await;
                served.lock().unwrap().push((who, lanes.began.elapsed().as_millis() / 500));
            });
            tokio::task::yield_now().await;
        }
        waiting.join_all().await;
        assert_eq!(*served.lock().unwrap(), [(0, 0), (1, 1), (2, 2), (3, 3), (4, 4)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_slows_down_its_own_lane_and_no_other() {
        let lanes = Lanes::new(&"elb-write=10/10,elb-read=10/10".parse().unwrap());
        lanes.refused(Lane::ElbWrite, Some(Duration::from_secs(3)));
        lanes.turn(Lane::ElbRead).await;
        assert!(lanes.began.elapsed() < Duration::from_millis(1));
        lanes.turn(Lane::ElbWrite).await;
        assert!(lanes.began.elapsed() >= Duration::from_secs(3));
    }
}
