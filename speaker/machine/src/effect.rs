//! What the machine wants done, and what it has counted.

use std::net::IpAddr;
use std::time::Duration;

use berth_api::{MacAddr, Reason};
use berth_wire::heartbeat::{Message, NodeName};
use berth_wire::neighbor::Frame;

use crate::input::Evidence;

/// Something for the driver to do, in the order in which it was decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Send a datagram to a partner.
    SendHeartbeat {
        /// The partner's node.
        to: NodeName,
        /// Its address.
        address: IpAddr,
        /// The own interface to send from.
        interface: String,
        /// What to send.
        message: Message,
    },
    /// Put a frame on the wire.
    SendFrame {
        /// The own interface.
        interface: String,
        /// The frame.
        frame: Frame,
    },
    /// This node answers for an address from now on, or for a while already in another's place, or found it in conflict. To be written to
    /// the Announcement's status.
    StatusChanged {
        /// The address.
        address: IpAddr,
        /// What is so now.
        status: Status,
    },
    /// Look whether this node forwards what comes for an address, and tell [`crate::Machine::serves`] when it does. Until then, and for at
    /// most [`crate::timing::SERVE_WAIT`], it does not answer.
    SeekEvidence {
        /// The address.
        address: IpAddr,
        /// The own interface that it would be answered on.
        interface: String,
        /// What would show it.
        sought: Evidence,
    },
    /// This node answered for an address, or found it in conflict, and has no more to say of it, because another one does. Nothing is to be
    /// written: that is the other one's part, and what waits to be written about this address is stale.
    Yielded {
        /// The address.
        address: IpAddr,
        /// The node that answers now, as far as it is known.
        to: Option<NodeName>,
        /// Number of its ownership.
        epoch: u64,
    },
    /// A standby took an address over because the owner was not heard, for the metrics: how long the owner had been silent.
    TookOver {
        /// Since its last heartbeat.
        silent_for: Duration,
    },
    /// How many doublings the detection time of a partner has now, because of false alarms. None is as it should be.
    Unsteady {
        /// The partner.
        partner: NodeName,
        /// The own interface by which it is heard.
        interface: String,
        /// How often the time was doubled.
        doublings: u32,
    },
    /// A graceful stop is complete: the process may end.
    Stopped,
}

/// Where a node stands with an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Silent: another node answers, or should.
    Standby,
    /// The owner is silent; the wire is being asked before the takeover.
    Probing,
    /// Assigned to this node, or the process did not run for a while; the wire is being asked before the first answer.
    Verifying,
    /// A machine that is none of our nodes has the address, and it was never in use by us; not answered for.
    Conflicted,
    /// This node answers in place of the owner, whose speaker is silent or stops, with the Ethernet address of the owner's node.
    Caring,
    /// This node answers.
    Answering,
}

/// What is to be written about an address. Its owner is this node, but for [`State::Caring`]; `status.layer2` is written only when the
/// state is that or [`State::Answering`], the condition always.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Answering, answering in place of the owner, or not because of a conflict.
    pub state: State,
    /// Number of the ownership.
    pub epoch: u64,
    /// Since when it is in that state, on the clock of the calls.
    pub since: Duration,
    /// The Ethernet address that it answers with.
    pub mac: MacAddr,
    /// The interface that it answers on.
    pub interface: String,
    /// Why: `Answering`, `TookOver`, `OwnerChanged`, `NotServing`, `CaredFor` or `AddressConflict`.
    pub cause: Reason,
    /// The node in whose place this one answers.
    pub owner: Option<NodeName>,
    /// A machine that is none of our nodes and says that it has the address.
    pub foreign: Option<MacAddr>,
}

/// A count for each address family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PerFamily {
    /// About IPv4 addresses.
    pub ipv4: u64,
    /// About IPv6 addresses.
    pub ipv6: u64,
}

impl PerFamily {
    pub(crate) fn count(&mut self, address: IpAddr) {
        match address {
            IpAddr::V4(_) => self.ipv4 += 1,
            IpAddr::V6(_) => self.ipv6 += 1,
        }
    }

    /// Of both families.
    pub fn total(self) -> u64 {
        self.ipv4 + self.ipv6
    }
}

/// How often things happened since the machine was made. Counters only rise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Addresses taken over from a silent or stopping owner.
    pub takeovers: u64,
    /// Silences of a partner that turned out to be none: the wire or another partner heard its speaker.
    pub false_alarms: u64,
    /// Addresses cared for in place of a silent or stopping speaker on a node that lives.
    pub caretakings: u64,
    /// Times that such a care ended.
    pub care_ends: u64,
    /// Claims of others that a partner did not know and was told.
    pub passed_on: u64,
    /// Addresses given up because another node's claim prevailed.
    pub yields: u64,
    /// Times that the process did not run for so long that it had to ask the wire again.
    pub fenced: u64,
    /// Questions answered, by ARP replies and solicited advertisements.
    pub replies: PerFamily,
    /// Questions asked, by ARP probes and neighbor solicitations.
    pub probes: PerFamily,
    /// Questions to silent partners' nodes whether they live.
    pub checks: PerFamily,
    /// Announcements sent, by gratuitous ARP frames and unsolicited advertisements.
    pub announcements: PerFamily,
    /// Times that a machine which is none of our nodes was heard with an address of ours.
    pub conflicts: u64,
    /// Heartbeats accepted.
    pub heartbeats: u64,
    /// Heartbeats from a node that is no partner on that interface.
    pub refused_unknown: u64,
    /// Heartbeats that were old or repeated.
    pub refused_sequence: u64,
    /// Heartbeats of an earlier start of the partner's process.
    pub refused_boot_id: u64,
    /// Heartbeats whose sender did not prove that it hears this node: the first ones after a start, or forged ones.
    pub refused_unproven: u64,
}
