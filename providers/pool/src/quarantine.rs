//! Addresses that somebody else was found to have before their first use, and for how long they are given to nobody.

use std::net::IpAddr;

use berth_api::MacAddr;

/// The first time: a machine that got the address by mistake is mended within minutes, or not soon.
const FIRST: i64 = 5 * 60;
/// The longest: a machine that stays costs one Service some 100 ms each hour, and an address that came free is lost for no longer.
const LONGEST: i64 = 60 * 60;

/// An address in quarantine. Times are in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quarantine {
    /// The address.
    pub address: IpAddr,
    /// The Ethernet address of the machine that has it.
    pub mac: MacAddr,
    /// When it was found.
    pub since: i64,
    /// When the address may be given again.
    pub until: i64,
}

impl Quarantine {
    /// That the address was found taken at `now`: for twice the time of the quarantine `before`, if that is remembered.
    pub fn begin(address: IpAddr, mac: MacAddr, now: i64, before: Option<&Self>) -> Self {
        let before = before.filter(|before| before.is_remembered(now));
        let seconds = before.map_or(FIRST, |before| before.seconds().saturating_mul(2).clamp(FIRST, LONGEST));
        Self { address, mac, since: now, until: now.saturating_add(seconds) }
    }

    /// Whether it is of any meaning at `now`: an address that is found taken again as long as the last time lasted is no new case.
    pub fn is_remembered(&self, now: i64) -> bool {
        now < self.until.saturating_add(self.seconds())
    }

    fn seconds(&self) -> i64 {
        self.until.saturating_sub(self.since).clamp(0, LONGEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_is_found_taken_again_and_again_is_tried_less_and_less_often_but_once_an_hour() {
        let (address, mac) = ("192.0.2.1".parse().unwrap(), MacAddr([2, 0, 0, 0, 0, 9]));
        let mut last = Quarantine::begin(address, mac, 1_000, None);
        let mut minutes = vec![last.seconds() / 60];
        for _ in 0..5 {
            // Found as soon as it was given again.
            last = Quarantine::begin(address, mac, last.until + 1, Some(&last));
            minutes.push(last.seconds() / 60);
        }
        assert_eq!(minutes, [5, 10, 20, 40, 60, 60]);

        // After a calm as long as it was in quarantine it is a new case.
        let calm = last.until + 3_600;
        assert!(last.is_remembered(calm - 1) && !last.is_remembered(calm));
        assert_eq!(Quarantine::begin(address, mac, calm, Some(&last)).seconds(), 5 * 60);
        // Whatever a status says, the times stay within these.
        for (since, until) in [(i64::MAX, 0), (0, i64::MAX), (5, 5)] {
            let odd = Quarantine { since, until, ..last };
            let next = Quarantine::begin(address, mac, until, Some(&odd));
            assert!((0..=3_600).contains(&next.seconds()), "{odd:?} {next:?}");
        }
    }
}
