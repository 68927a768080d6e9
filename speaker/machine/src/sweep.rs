//! Asks the wire for addresses that nobody uses yet, so that it is known before the first use who else has one.
//!
//! It only asks and listens: it claims nothing, answers nothing, and knows nothing of owners and standbys.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use berth_api::MacAddr;
use berth_wire::neighbor::Frame;

use crate::timing::{PROBE_COUNT, PROBE_SPACING, SWEEP_INTERVAL, SWEEP_SPACING};

/// Where an address would be on the node's links.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spot {
    /// The interface in whose subnet it lies.
    pub interface: String,
    /// The Ethernet address of that.
    pub mac: MacAddr,
    /// The node's own address there, of the same family. It is asked from there, as any host would: a probe from nowhere is what a machine
    /// sends that wishes to have the address (RFC 5227 section 2.1.1), and an owner that asks for it the first time would take it for one.
    pub own: IpAddr,
}

/// One address.
#[derive(Clone, Debug)]
struct Asked {
    spot: Spot,
    /// Probes of this round that went out.
    sent: u32,
    /// When the next one is due, or the end of the round.
    due: Duration,
    /// Who was heard to have it in this round.
    heard: Option<MacAddr>,
    /// Who has it, as far as is known.
    has: Option<MacAddr>,
}

/// The addresses that this node asks for ahead of need.
#[derive(Clone, Debug, Default)]
pub struct Sweep {
    asked: BTreeMap<IpAddr, Asked>,
}

impl Sweep {
    /// Asks for exactly these from now on: for new ones at once, one after the other, and for all again every [`SWEEP_INTERVAL`]. What is
    /// known of those that stay where they are stays known.
    pub fn follow(&mut self, now: Duration, wanted: impl IntoIterator<Item = (IpAddr, Spot)>) {
        let mut before = std::mem::take(&mut self.asked);
        let mut due = now;
        for (address, spot) in wanted {
            let same = before.remove(&address).filter(|asked| asked.spot == spot);
            let asked = same.unwrap_or_else(|| {
                let asked = Asked { spot, sent: 0, due, heard: None, has: None };
                due += SWEEP_SPACING;
                asked
            });
            self.asked.insert(address, asked);
        }
    }

    /// The frames that are due, and where each goes.
    pub fn tick(&mut self, now: Duration) -> Vec<(String, Frame)> {
        let mut frames = Vec::new();
        for (address, asked) in &mut self.asked {
            if asked.due > now {
                continue;
            }
            if asked.sent == PROBE_COUNT {
                // A whole round without a word, which may be answered late: nobody has it, or no longer.
                asked.has = asked.heard.take();
                (asked.sent, asked.due) = (0, now + SWEEP_INTERVAL);
                continue;
            }
            let question = Frame::request(asked.spot.mac, asked.spot.own, *address);
            frames.extend(question.map(|question| (asked.spot.interface.clone(), question)));
            asked.sent += 1;
            asked.due = now + if asked.sent == PROBE_COUNT { SWEEP_SPACING } else { PROBE_SPACING };
        }
        frames
    }

    /// A frame came on this interface. Whoever says that it has an address, or asks for it before it uses it itself, is known at once; and
    /// found again in the next round, or not.
    pub fn frame_received(&mut self, interface: &str, frame: &Frame) {
        let probed = frame.question().filter(|_| frame.is_probe()).map(|address| (address, frame.sender_mac()));
        let Some((address, mac)) = frame.claim().or(probed) else { return };
        let Some(asked) = self.asked.get_mut(&address) else { return };
        if asked.spot.interface == interface && asked.spot.mac != mac {
            asked.heard = Some(mac);
            // Several that take turns are said no more often than once in a round.
            asked.has.get_or_insert(mac);
        }
    }

    /// When [`Sweep::tick`] is to be called next.
    pub fn next_deadline(&self) -> Option<Duration> {
        self.asked.values().map(|asked| asked.due).min()
    }

    /// The addresses that are asked for on an interface.
    pub fn addresses(&self, interface: &str) -> impl Iterator<Item = IpAddr> {
        self.asked.iter().filter(move |(_, asked)| asked.spot.interface == interface).map(|(address, _)| *address)
    }

    /// The interfaces that they are asked for on.
    pub fn interfaces(&self) -> impl Iterator<Item = &str> {
        self.asked.values().map(|asked| asked.spot.interface.as_str())
    }

    /// The addresses that another machine has, and its Ethernet address: of a node of ours as well, which is for others to tell apart.
    pub fn found(&self) -> BTreeMap<IpAddr, MacAddr> {
        self.asked.iter().filter_map(|(address, asked)| Some((*address, asked.has?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
    const OTHER: MacAddr = MacAddr([2, 0, 0, 0, 0, 9]);

    fn spot(address: IpAddr) -> Spot {
        let own = if address.is_ipv4() { "192.0.2.1" } else { "2001:db8::1" };
        Spot { interface: "eth0".to_owned(), mac: OWN, own: own.parse().unwrap() }
    }

    /// Runs until `end`, with `answers` for what is asked; how many probes went out.
    fn run(sweep: &mut Sweep, end: Duration, answers: impl Fn(IpAddr) -> bool) -> usize {
        let mut count = 0;
        while let Some(now) = sweep.next_deadline().filter(|due| *due <= end) {
            for (interface, frame) in sweep.tick(now) {
                assert!(!frame.is_probe(), "nobody is to think that it is wished for: {frame:?}");
                assert_ne!(frame.claim().map(|(address, _)| address), frame.question(), "nothing is claimed");
                count += 1;
                if answers(frame.question().unwrap()) {
                    sweep.frame_received(&interface, &Frame::reply_to(&frame, OTHER));
                }
            }
        }
        count
    }

    #[test]
    fn each_address_is_asked_for_at_once_and_again_after_a_while_and_who_answers_is_known_until_he_does_no_more() {
        for addresses in [["192.0.2.7", "192.0.2.8"], ["2001:db8::7", "2001:db8::8"]] {
            let [taken, free]: [IpAddr; 2] = addresses.map(|address| address.parse().unwrap());
            let (mut sweep, start) = (Sweep::default(), Duration::from_secs(100));
            sweep.follow(start, [taken, free].map(|address| (address, spot(address))));
            let first = run(&mut sweep, start + Duration::from_secs(1), |asked| asked == taken);
            assert_eq!((first, sweep.found()), (4, BTreeMap::from([(taken, OTHER)])));
            assert_eq!(run(&mut sweep, start + SWEEP_INTERVAL / 2, |_| true), 0, "then it is quiet");
            // What is told again changes nothing.
            sweep.follow(start + SWEEP_INTERVAL / 2, [taken, free].map(|address| (address, spot(address))));
            assert_eq!((run(&mut sweep, start + SWEEP_INTERVAL / 2, |_| true), sweep.found().len()), (0, 1));
            // It has gone, and the other has come, which is heard without being asked.
            sweep.frame_received("eth0", &Frame::announcements(OTHER, free).next().unwrap());
            assert_eq!(sweep.found().len(), 2);
            let end = start + SWEEP_INTERVAL + Duration::from_secs(2);
            assert_eq!(run(&mut sweep, end, |asked| asked == free), 4);
            assert_eq!(sweep.found(), BTreeMap::from([(free, OTHER)]));
            sweep.follow(end, [(taken, spot(taken))]);
            assert_eq!((sweep.found(), sweep.addresses("eth0").collect::<Vec<_>>()), (BTreeMap::new(), vec![taken]));
        }
    }

    #[test]
    fn a_host_that_asks_before_its_first_use_is_found_and_own_frames_and_those_of_other_links_are_not() {
        let address: IpAddr = "2001:db8::7".parse().unwrap();
        for (interface, mac, found) in [("eth0", OTHER, true), ("eth1", OTHER, false), ("eth0", OWN, false)] {
            let mut sweep = Sweep::default();
            sweep.follow(Duration::ZERO, [(address, spot(address))]);
            sweep.frame_received(interface, &Frame::probe(mac, address));
            assert_eq!(!sweep.found().is_empty(), found, "{interface} {mac}");
        }
    }
}
