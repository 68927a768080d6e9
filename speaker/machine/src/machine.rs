//! One node's speaker.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

use berth_wire::arp::Frame;
use berth_wire::heartbeat::{Message, NodeName};

use crate::effect::{Counters, Effect, State};
use crate::input::Assignment;

/// Everything that one node's speaker decides about layer 2.
#[derive(Debug)]
pub struct Machine {}

impl Machine {
    /// A speaker that has a part in nothing yet. `boot_id` names this start of the process: another one each time.
    pub fn new(node: NodeName, boot_id: u64, now: Duration) -> Self {
        let _ = (node, boot_id, now);
        Self {}
    }

    /// Takes over what the Announcement of an address says; to be called at each of its changes. Repeating it changes nothing.
    pub fn assign(&mut self, now: Duration, assignment: Assignment) {
        let _ = (now, assignment);
    }

    /// The node has no part in the address any more: it stops to answer at once and without a frame.
    pub fn withdraw(&mut self, now: Duration, address: Ipv4Addr) {
        let _ = (now, address);
    }

    /// A datagram came from this address.
    pub fn heartbeat_received(&mut self, now: Duration, from: Ipv4Addr, message: &Message) {
        let _ = (now, from, message);
    }

    /// A frame came on this interface.
    pub fn arp_received(&mut self, now: Duration, interface: &str, frame: &Frame) {
        let _ = (now, interface, frame);
    }

    /// Does what is due. To be called at [`Machine::next_deadline`] or soon after.
    pub fn tick(&mut self, now: Duration) {
        let _ = now;
    }

    /// Asks for a graceful stop: partners take over before [`Effect::Stopped`] comes, at most
    /// [`STOP_GRACE`](crate::timing::STOP_GRACE) later.
    pub fn stop(&mut self, now: Duration) {
        let _ = now;
    }

    /// When [`Machine::tick`] is to be called next; never, while the node has a part in nothing.
    pub fn next_deadline(&self) -> Option<Duration> {
        None
    }

    /// The next thing to do, oldest first. To be called until there is none after each other call.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        None
    }

    /// Interfaces whose watched addresses changed since the last call; their kernel filters are to be rebuilt.
    pub fn take_changed_interfaces(&mut self) -> BTreeSet<String> {
        BTreeSet::new()
    }

    /// Addresses that ARP on this interface is needed about.
    pub fn watched_addresses(&self, interface: &str) -> impl Iterator<Item = Ipv4Addr> + '_ {
        let _ = interface;
        std::iter::empty()
    }

    /// Interfaces on which addresses are watched.
    pub fn watched_interfaces(&self) -> impl Iterator<Item = &str> + '_ {
        std::iter::empty()
    }

    /// Addresses that this node answers for, with the numbers of its ownership.
    pub fn answering(&self) -> impl Iterator<Item = (Ipv4Addr, u64)> + '_ {
        std::iter::empty()
    }

    /// Where this node stands with an address.
    pub fn state(&self, address: Ipv4Addr) -> Option<State> {
        let _ = address;
        None
    }

    /// What was counted so far.
    pub fn counters(&self) -> Counters {
        Counters::default()
    }
}
