//! The two clocks of the driver: time since boot, which the machine lives by, and the wall, for people.

use std::time::Duration;

use jiff::Timestamp;
use nix::time::{ClockId, clock_gettime};

/// Time since boot, the time in which the node slept included: an owner that was suspended must notice
/// that its lease ran out meanwhile, and `CLOCK_MONOTONIC` stands still in that time (clock_gettime(2)).
#[derive(Clone, Copy, Debug)]
pub struct BootClock {
    started: Duration,
}

impl BootClock {
    /// The clock, proven to be there.
    ///
    /// # Errors
    /// When the kernel has no such clock, which is older than Linux 2.6.39.
    pub fn new() -> nix::Result<Self> {
        read().map(|started| Self { started })
    }

    /// What it reads.
    pub fn now(self) -> Duration {
        // A clock that was read once can be read again; the machine takes no harm from a time that stands still.
        read().unwrap_or(self.started)
    }
}

fn read() -> nix::Result<Duration> {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from)
}

/// The wall clock's reading at an earlier moment of [`BootClock`].
pub fn wall_at(moment: Duration, now: Duration, wall_now: Timestamp) -> Timestamp {
    let ago = jiff::SignedDuration::try_from(now.saturating_sub(moment)).unwrap_or(jiff::SignedDuration::ZERO);
    wall_now.saturating_sub(ago).unwrap_or(wall_now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_since_boot_is_told_in_wall_time() {
        let wall: Timestamp = "2026-11-21T08:00:00Z".parse().unwrap();
        let at = |moment, now| wall_at(Duration::from_millis(moment), Duration::from_millis(now), wall).to_string();
        assert_eq!(at(8_500, 10_000), "2026-11-21T07:59:58.5Z");
        // A moment that a fresher reading already passed is told as now, never as the future.
        assert_eq!(at(10_001, 10_000), "2026-11-21T08:00:00Z");
    }

    #[test]
    fn the_clock_since_boot_runs() {
        let clock = BootClock::new().unwrap();
        let before = clock.now();
        assert!(before > Duration::ZERO);
        assert!(clock.now() >= before);
    }
}
