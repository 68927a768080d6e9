//! Why a Service does not get the address that it asks for.

use std::net::Ipv4Addr;

use berth_api::Reason;
use berth_api::service::ServiceKey;

/// Why no address serves a request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No pool gives addresses by itself.
    #[error("{}", no_pool(*others))]
    NoPool {
        /// How many pools there are that do not.
        others: usize,
    },
    /// The named pool does not exist.
    #[error("there is no IPAddressPool `{pool}`; correct the annotation or create the pool")]
    PoolNotFound {
        /// Its name.
        pool: String,
    },
    /// The pools that could serve are not valid.
    #[error("nothing new is given from IPAddressPool {}; the Ready condition there says how to mend it", pools.join(", "))]
    PoolNotReady {
        /// Their names, each with what is wrong.
        pools: Vec<String>,
    },
    /// The pools that could serve are full.
    #[error("every address of {} is held; enlarge it or release one", list(pools))]
    PoolExhausted {
        /// Their names.
        pools: Vec<String>,
    },
    /// The requested address is in no pool.
    #[error("{address} is in no IPAddressPool; ask for an address of a pool, or add it to one")]
    AddressOutsidePools {
        /// It.
        address: Ipv4Addr,
    },
    /// The requested address is not in the requested pool.
    #[error("{address} is not in IPAddressPool `{pool}` but in `{actual}`; correct one of the two requests")]
    AddressNotInPool {
        /// The address.
        address: Ipv4Addr,
        /// The pool that was asked for.
        pool: String,
        /// The pool that has it.
        actual: String,
    },
    /// The requested address is held by another Service.
    #[error("{address} is held by Service {holder}; ask for another, or release it there")]
    AddressInUse {
        /// It.
        address: Ipv4Addr,
        /// Who holds it.
        holder: ServiceKey,
    },
    /// The requested address is held, and the Service hoped to share it.
    #[error("{address} is held by Service {holder}, and sharing an address is not supported yet; ask for another")]
    SharingUnsupported {
        /// It.
        address: Ipv4Addr,
        /// Who holds it.
        holder: ServiceKey,
    },
    /// The requested address is a node's own.
    #[error("{address} is the own address of node {node}; ask for another")]
    NodeAddress {
        /// It.
        address: Ipv4Addr,
        /// Whose it is.
        node: String,
    },
    /// The requested address is the network or broadcast address of a subnet of the nodes.
    #[error("{address} is the network or broadcast address of the nodes' subnet {subnet}; ask for another")]
    SubnetAddress {
        /// It.
        address: Ipv4Addr,
        /// The subnet.
        subnet: String,
    },
}

impl Refusal {
    /// The reason code.
    pub fn reason(&self) -> Reason {
        match self {
            Self::NoPool { .. } => Reason::NoPool,
            Self::PoolNotFound { .. } => Reason::PoolNotFound,
            Self::PoolNotReady { .. } => Reason::PoolNotReady,
            Self::PoolExhausted { .. } => Reason::PoolExhausted,
            Self::AddressOutsidePools { .. } => Reason::AddressOutsidePools,
            Self::AddressNotInPool { .. } => Reason::AddressNotInPool,
            Self::AddressInUse { .. } => Reason::AddressInUse,
            Self::SharingUnsupported { .. } => Reason::SharingUnsupported,
            Self::NodeAddress { .. } => Reason::NodeAddress,
            Self::SubnetAddress { .. } => Reason::SubnetAddress,
        }
    }
}

fn no_pool(others: usize) -> String {
    if others == 0 {
        "there is no IPAddressPool; create one".to_owned()
    } else {
        "no IPAddressPool has `autoAssign: true`; name a pool with the annotation berth.dev/address-pool".to_owned()
    }
}

fn list(pools: &[String]) -> String {
    let quoted: Vec<_> = pools.iter().map(|p| format!("`{p}`")).collect();
    format!("IPAddressPool {}", quoted.join(", "))
}
