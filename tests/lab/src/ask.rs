//! Asking a wire who has an address, over and over: by ARP, and by neighbor discovery. What is answered, a
//! [`Watch`](crate::Watch) of the same host sees.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use berth_api::MacAddr;
use berth_sys::{PacketSocket, accept_all};
use berth_wire::arp::{self, ArpPacket, Operation};
use berth_wire::ndp;
use nix::net::if_::if_nametoindex;

use crate::network::Host;

/// A protocol number that no frame has, so that the socket hears nothing (packet(7)).
const HEARS_NOTHING: u16 = 0;

/// Asks until it is dropped.
#[derive(Debug)]
pub struct Asker {
    stop: Arc<AtomicBool>,
}

impl Host {
    /// Asks on one of its interfaces for each of these addresses, all at once and again after each `every`, as its kernel would.
    pub fn ask(&self, interface: &str, addresses: &[IpAddr], every: Duration) -> Result<Asker> {
        let socket = self.netns.run(|| -> Result<PacketSocket> {
            let index = if_nametoindex(interface).with_context(|| format!("{} has no {interface}", self.name))?;
            PacketSocket::open(index, HEARS_NOTHING, &accept_all()).context("making a packet socket")
        })??;
        let questions: Vec<Vec<u8>> = addresses.iter().map(|address| question(self, *address)).collect();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        thread::Builder::new().name("ask".to_owned()).spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                for question in &questions {
                    // One that is not sent is asked again.
                    let _ = socket.send(question);
                }
                thread::sleep(every);
            }
        })?;
        Ok(Asker { stop })
    }
}

impl Drop for Asker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// The frame by which a host asks for an address: to all (RFC 826), or to the address's group (RFC 4861 section 7.2.2).
fn question(host: &Host, address: IpAddr) -> Vec<u8> {
    let mac = host.mac();
    match address {
        IpAddr::V4(target_ip) => arp::Frame {
            dst: MacAddr::BROADCAST,
            src: mac,
            arp: ArpPacket {
                operation: Operation::Request,
                sender_mac: mac,
                sender_ip: host.address,
                target_mac: MacAddr::ZERO,
                target_ip,
            },
        }
        .emit()
        .to_vec(),
        IpAddr::V6(target) => ndp::Frame::solicit(mac, host.address6, target).emit(),
    }
}
