//! The noise of a large LAN: broadcast ARP requests about addresses that are none of Berth's.

use std::net::Ipv4Addr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use berth_api::MacAddr;
use berth_sys::{PacketSocket, accept_all};
use berth_wire::arp::{self, ArpPacket, Operation};

use super::ask::Source;

/// The addresses that are asked for: those of RFC 2544, which nobody in the lab has.
const ABOUT: (Ipv4Addr, u32) = (Ipv4Addr::new(198, 18, 0, 0), 1 << 17);
/// A protocol number that no frame has, so that the socket hears nothing (packet(7)).
const HEARS_NOTHING: u16 = 0;
/// Between two batches. Fifty frames each at 50,000 a second: a sleep for each frame would be too long already.
const BATCH_EVERY: Duration = Duration::from_millis(1);
/// How much lost time is made up for at once. What is more is lost, and told by the rate that was reached.
const BEHIND_MAX: Duration = Duration::from_millis(10);

/// Sends so many frames a second until `end`, and says how many there were.
pub(crate) fn send(interface_index: u32, source: &Source, rate: u32, end: Instant) -> Result<u64> {
    let socket = PacketSocket::open(interface_index, HEARS_NOTHING, &accept_all()).context("making a packet socket")?;
    let mut due = Due::new(rate);
    let (mut sent, mut tried) = (0, 0_u32);
    let mut last = Instant::now();
    loop {
        let now = Instant::now();
        if now >= end {
            return Ok(sent);
        }
        for _ in 0..due.after(now - last) {
            // What the queue does not take is no noise.
            sent += u64::from(socket.send(&frame(source, tried)).is_ok());
            tried = tried.wrapping_add(1);
        }
        last = now;
        thread::sleep(BATCH_EVERY);
    }
}

/// How many frames are due.
struct Due {
    rate: u64,
    /// Frames that are due and not whole yet, in parts of a billion.
    rest: u64,
}

impl Due {
    fn new(rate: u32) -> Self {
        Self { rate: rate.into(), rest: 0 }
    }

    /// So much later.
    fn after(&mut self, time: Duration) -> u64 {
        const BILLION: u64 = 1_000_000_000;
        // At most 10 million ns, by a rate below 2^32.
        let time = time.min(BEHIND_MAX).as_nanos() as u64;
        let all = self.rest + time * self.rate;
        self.rest = all % BILLION;
        all / BILLION
    }
}

fn frame(source: &Source, number: u32) -> Vec<u8> {
    let (first, count) = ABOUT;
    let arp = ArpPacket {
        operation: Operation::Request,
        sender_mac: source.mac,
        sender_ip: source.address,
        target_mac: MacAddr::ZERO,
        target_ip: Ipv4Addr::from_bits(first.to_bits() + number % count),
    };
    arp::Frame { dst: MacAddr::BROADCAST, src: source.mac, arp }.emit().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_kept_over_uneven_waits_and_long_ones_are_not_made_up_for() {
        let us = Duration::from_micros;
        for (rate, waits, expected) in [
            (50_000, vec![us(1_000); 1_000], 50_000),
            (50_000, vec![us(1_070); 1_000], 53_500),
            (50_000, [us(7), us(1_993)].repeat(500), 50_000),
            (3, vec![us(9_999); 1_000], 29),
            (50_000, vec![Duration::from_secs(3)], 500),
        ] {
            let mut due = Due::new(rate);
            assert_eq!(waits.iter().map(|wait| due.after(*wait)).sum::<u64>(), expected, "{rate} a second");
        }
    }

    #[test]
    fn noise_is_broadcast_and_asks_for_addresses_of_the_benchmark_range() {
        let source = Source {
            mac: MacAddr([2, 0, 0, 0, 0, 1]),
            address: [192, 0, 2, 100].into(),
            address6: "2001:db8:2::100".parse().unwrap(),
        };
        for (number, target) in [(0, [198, 18, 0, 0]), (131_071, [198, 19, 255, 255]), (131_072, [198, 18, 0, 0])] {
            let frame = arp::Frame::parse(&frame(&source, number)).unwrap();
            assert_eq!((frame.dst, frame.arp.target_ip), (MacAddr::BROADCAST, target.into()));
            assert_eq!((frame.arp.operation, frame.arp.sender_ip), (Operation::Request, source.address));
        }
    }
}
