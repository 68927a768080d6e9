//! When an address that was announced long ago is announced again, if that is wanted.

use std::net::IpAddr;
use std::time::Duration;

use crate::timing::{REFRESH_MAX, REFRESH_MIN};

/// How often a node announces each address again that it answers for: once in every interval, each at its own moment of it.
///
/// The moment follows from the address alone. Addresses that follow each other, as those of a pool do, have theirs spread evenly, so that
/// thousands make a trickle and no burst, and nothing is kept for any of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refresh {
    interval: Duration,
}

/// An interval that is not within [`REFRESH_MIN`] and [`REFRESH_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an address can be announced again every {REFRESH_MIN:?} to {REFRESH_MAX:?}, not every {0:?}")]
pub struct RefreshError(pub Duration);

/// 2^64 divided by the golden ratio. Its multiples, modulo 2^64, lie as evenly as any (Knuth, The Art of Computer Programming, 6.4).
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

impl Refresh {
    /// Once in every interval.
    ///
    /// # Errors
    /// When the interval is shorter than [`REFRESH_MIN`] or longer than [`REFRESH_MAX`].
    pub fn every(interval: Duration) -> Result<Self, RefreshError> {
        if (REFRESH_MIN..=REFRESH_MAX).contains(&interval) {
            Ok(Self { interval })
        } else {
            Err(RefreshError(interval))
        }
    }

    /// The address's next moment after `now`: one interval later at the most.
    pub(crate) fn next(self, address: IpAddr, now: Duration) -> Duration {
        let interval = self.interval.as_nanos();
        let place = u128::from(number(address).wrapping_mul(GOLDEN));
        let moment = (interval * place) >> u64::BITS;
        let since = (now.as_nanos() + interval - moment) % interval;
        // Less than an interval, and so far below what fits.
        now + Duration::from_nanos((interval - since) as u64)
    }
}

/// A number that grows by one from each address to the next.
fn number(address: IpAddr) -> u64 {
    match address {
        IpAddr::V4(v4) => v4.to_bits().into(),
        IpAddr::V6(v6) => {
            let bits = v6.to_bits();
            (bits >> u64::BITS) as u64 ^ bits as u64
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    const EVERY: Duration = Duration::from_mins(5);

    fn refresh() -> Refresh {
        Refresh::every(EVERY).unwrap()
    }

    #[test]
    fn an_interval_is_from_ten_seconds_to_a_day() {
        let day = Duration::from_hours(24);
        for (interval, allowed) in [
            (Duration::ZERO, false),
            (Duration::from_millis(9_999), false),
            (Duration::from_secs(10), true),
            (day, true),
            (day + Duration::from_nanos(1), false),
        ] {
            let expected = if allowed { Ok(Refresh { interval }) } else { Err(RefreshError(interval)) };
            assert_eq!(Refresh::every(interval), expected);
        }
        let error = RefreshError(Duration::from_secs(1)).to_string();
        assert_eq!(error, "an address can be announced again every 10s to 86400s, not every 1s");
    }

    #[test]
    fn the_next_moment_is_later_than_now_and_one_interval_after_the_one_before() {
        for last in 0..=255 {
            let address = IpAddr::from([192, 0, 2, last]);
            let mut now = Duration::from_secs(1_000_003);
            let first = refresh().next(address, now);
            assert!(first > now && first <= now + EVERY, "{address}: {first:?}");
            for turn in 1..4 {
                now = refresh().next(address, now);
                assert_eq!(now, first + EVERY * (turn - 1), "{address}");
            }
            assert_eq!(refresh().next(address, first.saturating_sub(Duration::from_nanos(1))), first, "{address}");
        }
    }

    /// Addresses with this distance, of both families.
    fn addresses(distance: u32) -> [Vec<IpAddr>; 2] {
        let v4 = |n: u32| Ipv4Addr::from_bits(0xc612_0000 + n * distance).into();
        let v6 = |n: u32| Ipv6Addr::from_bits((0x2001_0db8 << 96) + u128::from(n * distance)).into();
        [(0..5_000).map(v4).collect(), (0..5_000).map(v6).collect()]
    }

    #[test]
    fn thousands_of_addresses_are_spread_evenly_over_the_interval() {
        let now = Duration::from_secs(77_777);
        for distance in [1, 2, 3, 4, 16, 256] {
            for addresses in addresses(distance) {
                let mut seconds = [0; EVERY.as_secs() as usize];
                for address in &addresses {
                    let after =
                        refresh().next(*address, now).saturating_sub(now).saturating_sub(Duration::from_nanos(1));
                    seconds[after.as_secs() as usize] += 1;
                }
                let (least, most) = (seconds.iter().min(), seconds.iter().max());
                // 16.7 each if it were perfect.
                assert!(least >= Some(&13) && most <= Some(&21), "{distance}: {least:?} to {most:?} a second");
            }
        }
    }
}
