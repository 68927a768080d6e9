//! How long to wait before a write that failed is tried again.

use std::time::Duration;

/// Wait after the first failure: long enough for a conflict's cause to arrive by the watch.
const FIRST: Duration = Duration::from_millis(100);
/// Longest wait, so that an API server that returns is used soon.
const LONGEST: Duration = Duration::from_secs(10);

/// The wait after `failures` failures in a row (1 for the first), with up to a quarter taken off by `jitter` (any
/// number) so that many Services do not return at one moment.
pub(crate) fn wait(failures: u32, jitter: u64) -> Duration {
    let doubled = FIRST.saturating_mul(1 << failures.saturating_sub(1).min(10)).min(LONGEST);
    doubled.mul_f64(1.0 - (jitter % 256) as f64 / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_up_to_its_limit_and_jitter_only_shortens_it() {
        let millis = |failures, jitter| wait(failures, jitter).as_millis();
        let cases = [
            (1, 0, 100),
            (2, 0, 200),
            (5, 0, 1_600),
            (8, 0, 10_000),
            (u32::MAX, 0, 10_000),
            (2, 256, 200),
            (2, 128, 175),
        ];
        for (failures, jitter, expected) in cases {
            assert_eq!(millis(failures, jitter), expected, "{failures} failures, jitter {jitter}");
        }
    }
}
