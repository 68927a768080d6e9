//! Addresses that were released and are given to nobody for a while.

use std::collections::BTreeMap;
use std::net::IpAddr;

use berth_api::pool::IpRange;

use crate::intervals::Intervals;

/// Into how many steps a cool-down is divided: addresses that end in the same step are told as one range, so that many which are
/// released together make few entries, and none ends before its time.
const STEPS: i64 = 16;

/// When an address that is released at `now` may be given again; both in seconds since 1970.
pub fn until(now: i64, seconds: u32) -> i64 {
    let seconds = i64::from(seconds);
    let step = (seconds / STEPS).max(1);
    let end = now.saturating_add(seconds);
    end.saturating_add((step - end.rem_euclid(step)) % step)
}

/// As few ranges as say the same, but for the addresses `without`. An address with several ends has the latest.
pub fn merged(
    entries: impl IntoIterator<Item = (IpRange, i64)>,
    without: impl IntoIterator<Item = IpAddr>,
) -> Vec<(IpRange, i64)> {
    let mut by_end: BTreeMap<i64, Intervals> = BTreeMap::new();
    for (range, until) in entries {
        by_end.entry(until).or_default().insert_range(range);
    }
    let mut later: Vec<IpRange> = Vec::new();
    let without: Vec<IpAddr> = without.into_iter().collect();
    for set in by_end.values_mut().rev() {
        for range in &later {
            set.remove_range(*range);
        }
        for address in &without {
            set.remove(*address);
        }
        later.extend(set.ranges());
    }
    by_end.iter().flat_map(|(until, set)| set.ranges().map(|range| (range, *until))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cool_down_is_never_shorter_than_it_is_wished_and_at_most_a_sixteenth_longer() {
        for seconds in [1, 15, 60, 600, 604_800] {
            let ends: Vec<_> =
                (1_000_000..1_000_000 + i64::from(seconds.min(5_000))).map(|now| (now, until(now, seconds))).collect();
            for (now, end) in &ends {
                let took = end - now;
                assert!(
                    (i64::from(seconds)..=i64::from(seconds) + i64::from(seconds / 16)).contains(&took),
                    "{took} of {seconds}"
                );
            }
            let mut different: Vec<_> = ends.iter().map(|(_, end)| *end).collect();
            different.dedup();
            assert!(different.len() <= 33, "{} ends of {seconds}", different.len());
        }
    }

    #[test]
    fn entries_are_told_as_few_ranges_and_the_latest_end_counts() {
        let range = |text: &str| text.parse::<IpRange>().unwrap();
        let entries = [
            ("192.0.2.4", 20),
            ("192.0.2.1-192.0.2.3", 10),
            ("192.0.2.4-192.0.2.5", 10),
            ("2001:db8::1", 10),
            ("192.0.2.9", 10),
        ];
        let told = merged(entries.map(|(r, until)| (range(r), until)), ["192.0.2.2".parse().unwrap()]);
        let told: Vec<_> = told.iter().map(|(range, until)| (range.to_string(), *until)).collect();
        let expected = [
            ("192.0.2.1", 10),
            ("192.0.2.3", 10),
            ("192.0.2.5", 10),
            ("192.0.2.9", 10),
            ("2001:db8::1", 10),
            ("192.0.2.4", 20),
        ];
        assert_eq!(told, expected.map(|(range, until)| (range.to_owned(), until)));
    }
}
