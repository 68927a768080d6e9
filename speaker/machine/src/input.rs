//! What the cluster says about an address, as far as the machine needs it.

use std::net::IpAddr;
use std::sync::Arc;

use berth_api::MacAddr;
use berth_wire::heartbeat::NodeName;

use crate::broken::{Rule, is_broken};

/// Who is to answer for an address, from its Announcement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// The address.
    pub address: IpAddr,
    /// `spec.layer2.owner`: the node that is to answer.
    pub owner: Option<NodeName>,
    /// `spec.layer2.standbys`: the nodes that take over, in this order.
    pub standbys: Arc<[NodeName]>,
    /// `spec.layer2.epoch`.
    pub epoch: u64,
    /// `spec.layer2.members`: where owner and standbys are found. One that is missing here takes no part.
    pub members: Arc<[Arc<Member>]>,
    /// `status.layer2`: the node that answers, as it wrote itself.
    pub claimed: Option<OwnerClaim>,
    /// What would show that this node forwards what comes for the address; nothing, where nothing would.
    pub sought: Option<Evidence>,
    /// Whether there is an endpoint to forward to, as far as the controller knows; it may come to know a moment after the Service.
    pub serving: bool,
}

/// What shows that a node forwards what comes for an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// A connection to this TCP port of the address, made on the node itself and not by the wire.
    Connection(u16),
    /// A health check at this node port says that there are endpoints (the Local policy).
    HealthCheck(u16),
}

/// A node's place on the link.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Member {
    /// The node.
    pub node: NodeName,
    /// Its interface in the subnet of the address. For the machine's own node: where it answers.
    pub interface: String,
    /// Its own address there, of the same family; heartbeats go to it and come from it.
    pub address: IpAddr,
    /// The Ethernet address of that interface.
    pub mac: MacAddr,
}

/// That a node answers for an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnerClaim {
    /// The node.
    pub node: NodeName,
    /// Number of its ownership.
    pub epoch: u64,
}

impl OwnerClaim {
    /// Whether this claim prevails over another node's: the higher epoch, and between equal ones the lower name.
    pub(crate) fn beats(&self, other: &Self) -> bool {
        let ties = is_broken(Rule::BreaksTies);
        self.epoch > other.epoch || (self.epoch == other.epoch && self.node < other.node && !ties)
    }
}
