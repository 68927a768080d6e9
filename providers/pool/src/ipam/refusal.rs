//! Why a Service does not get the address that it asks for.

use std::net::IpAddr;

use berth_api::crd::SERVICES_MAX;
use berth_api::service::ServiceKey;
use berth_api::sharing::Clash;
use berth_api::{IpFamily, Reason};
use jiff::Timestamp;

use super::pools::Exclusion;
use crate::quarantine::Quarantine;

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
    /// The pools that could serve are disabled.
    #[error("{} is disabled and gives nothing new; set `disabled: false` there or use another", list(pools))]
    PoolDisabled {
        /// Their names.
        pools: Vec<String>,
    },
    /// The pools that could serve are for others.
    #[error(
        "{} is not for this Service (`spec.serviceAllocation`); use another pool, or let it admit {service}",
        list(pools)
    )]
    PoolNotAdmitted {
        /// Who asks.
        service: ServiceKey,
        /// Their names.
        pools: Vec<String>,
    },
    /// The pools that could serve are full. Whether some of it cools down is not told: it would be another message, and with it a write
    /// on every Service that waits, at each release and each end of a cool-down.
    #[error("every {family} address of {} is held, or was a moment ago; enlarge it or release one", list(pools))]
    PoolExhausted {
        /// The family that is asked for.
        family: IpFamily,
        /// Their names.
        pools: Vec<String>,
    },
    /// The pools that could serve have no address of the family at all.
    #[error(
        "{} has no {family} addresses; add some to `spec.addresses` there, or create a pool with some",
        list(pools)
    )]
    FamilyUnavailable {
        /// The family that is asked for.
        family: IpFamily,
        /// Their names.
        pools: Vec<String>,
    },
    /// No pool has a free address of each family.
    #[error(
        "no single pool has a free address of each family, and both come from one; {} have some of one",
        list(pools)
    )]
    NoDualStackPool {
        /// The pools that have some of one.
        pools: Vec<String>,
    },
    /// The requested address is in no pool.
    #[error("{address} is in no IPAddressPool; ask for an address of a pool, or add it to one")]
    AddressOutsidePools {
        /// It.
        address: IpAddr,
    },
    /// The requested address is not in the requested pool.
    #[error("{address} is not in IPAddressPool `{pool}` but in `{actual}`; correct one of the two requests")]
    AddressNotInPool {
        /// The address.
        address: IpAddr,
        /// The pool that was asked for.
        pool: String,
        /// The pool that has it.
        actual: String,
    },
    /// The requested addresses are in two pools.
    #[error(
        "{address} is in IPAddressPool `{pool}` and {other} in `{other_pool}`, and both addresses of a Service come from one; ask for two of one pool"
    )]
    PoolsDiffer {
        /// The one address.
        address: IpAddr,
        /// Its pool.
        pool: String,
        /// The other address.
        other: IpAddr,
        /// Its pool.
        other_pool: String,
    },
    /// The requested address is held by another Service, and may not be shared with it.
    #[error("{address} is held by Service {holder}{}", clash_told(clash, *wished))]
    AddressInUse {
        /// It.
        address: IpAddr,
        /// Who holds it.
        holder: ServiceKey,
        /// Why it is not shared.
        clash: Clash,
        /// Whether the Service that asks wishes to share.
        wished: bool,
    },
    /// No advertisement announces the address for the Service and for those that hold it.
    #[error(
        "{address} is held by Service {holder}, and no L2Advertisement announces it for that one and for Service {service} (`serviceSelectors`); \
         give both labels that one advertisement selects, or ask for another"
    )]
    NotAnnouncedTogether {
        /// It.
        address: IpAddr,
        /// Who holds it.
        holder: ServiceKey,
        /// Who asks.
        service: ServiceKey,
    },
    /// So many Services share the requested address that it takes no more.
    #[error("{address} is shared by {SERVICES_MAX} Services, which is the most; ask for another")]
    AddressFull {
        /// It.
        address: IpAddr,
    },
    /// The requested address is somebody's who is no Service.
    #[error("{address} is {}; ask for another", whose(exclusion, *address))]
    Excluded {
        /// It.
        address: IpAddr,
        /// Whose it is.
        exclusion: Exclusion,
    },
    /// The requested address is one that the pool leaves out.
    #[error("{address} ends in .0 or .255, which IPAddressPool `{pool}` leaves out (`avoidBuggyIPs`); ask for another")]
    BuggyAddress {
        /// It.
        address: IpAddr,
        /// The pool.
        pool: String,
    },
    /// The requested address was released a moment ago.
    #[error("{address} was released a moment ago and is given to nobody before {} (`coolDownSeconds` of IPAddressPool `{pool}`)", time(*until))]
    CoolingDown {
        /// It.
        address: IpAddr,
        /// Its pool.
        pool: String,
        /// When it is free, in seconds since 1970.
        until: i64,
    },
    /// A foreign machine has the requested address, and no node of ours ever answered for it.
    #[error(
        "the machine with {}, which is none of our nodes, was found to have {} before its first use, so it is given to nobody before {}; take it from that machine or from IPAddressPool `{pool}`, or ask for another",
        quarantine.mac, quarantine.address, time(quarantine.until)
    )]
    Quarantined {
        /// What was found.
        quarantine: Quarantine,
        /// The pool.
        pool: String,
    },
}

impl Refusal {
    /// The reason code.
    pub fn reason(&self) -> Reason {
        match self {
            Self::NoPool { .. } => Reason::NoPool,
            Self::PoolNotFound { .. } => Reason::PoolNotFound,
            Self::PoolNotReady { .. } => Reason::PoolNotReady,
            Self::PoolDisabled { .. } => Reason::PoolDisabled,
            Self::PoolNotAdmitted { .. } => Reason::PoolNotAdmitted,
            Self::PoolExhausted { .. } => Reason::PoolExhausted,
            Self::FamilyUnavailable { .. } => Reason::FamilyUnavailable,
            Self::NoDualStackPool { .. } => Reason::NoDualStackPool,
            Self::AddressOutsidePools { .. } => Reason::AddressOutsidePools,
            Self::AddressNotInPool { .. } => Reason::AddressNotInPool,
            Self::PoolsDiffer { .. } => Reason::PoolsDiffer,
            Self::AddressInUse { wished: false, .. } => Reason::AddressInUse,
            Self::AddressInUse { clash, .. } => match clash {
                Clash::NotWished => Reason::AddressInUse,
                Clash::Key => Reason::SharingKeyDiffers,
                Clash::Namespace => Reason::SharingNamespaceDiffers,
                Clash::Port(_) => Reason::SharingPortTaken,
                Clash::Policy => Reason::SharingPolicyDiffers,
            },
            Self::NotAnnouncedTogether { .. } => Reason::SharerNotSelected,
            Self::AddressFull { .. } => Reason::SharingFull,
            Self::Excluded { exclusion, .. } => match exclusion {
                Exclusion::Node(_) => Reason::NodeAddress,
                Exclusion::Gateway(_) => Reason::GatewayAddress,
                Exclusion::Subnet(_) => Reason::SubnetAddress,
                Exclusion::Pods(_) => Reason::PodNetwork,
                Exclusion::Services(_) => Reason::ServiceNetwork,
            },
            Self::BuggyAddress { .. } => Reason::BuggyAddress,
            Self::CoolingDown { .. } => Reason::CoolingDown,
            Self::Quarantined { .. } => Reason::Quarantined,
        }
    }

    /// Whether an address that becomes free, or one that is shared on other terms, may end it. The others end by a change of
    /// pools, namespaces or nodes.
    pub fn ends_by_release(&self) -> bool {
        matches!(
            self,
            Self::PoolExhausted { .. }
                | Self::NoDualStackPool { .. }
                | Self::AddressInUse { .. }
                | Self::AddressFull { .. }
                | Self::CoolingDown { .. }
                | Self::Quarantined { .. }
        )
    }
}

impl Refusal {
    /// The very address that is waited for, where no other will do.
    pub fn awaited(&self) -> Option<IpAddr> {
        match self {
            Self::AddressInUse { address, .. }
            | Self::NotAnnouncedTogether { address, .. }
            | Self::AddressFull { address }
            | Self::CoolingDown { address, .. } => Some(*address),
            Self::Quarantined { quarantine, .. } => Some(quarantine.address),
            _ => None,
        }
    }
}

fn clash_told(clash: &Clash, wished: bool) -> String {
    match clash {
        _ if !wished => "; ask for another, or release it there".to_owned(),
        Clash::NotWished => {
            ", which does not share it; ask for another, or let both ask to share it by the same key".to_owned()
        }
        clash => format!(", and {clash}; ask for another, or change one of the two"),
    }
}

fn whose(exclusion: &Exclusion, address: IpAddr) -> String {
    match exclusion {
        Exclusion::Node(node) => format!("the own address of node {node}"),
        Exclusion::Gateway(node) => format!("a gateway of node {node}"),
        Exclusion::Subnet(subnet) => match IpFamily::of(address) {
            IpFamily::V4 => format!("the network or broadcast address of the nodes' subnet {subnet}"),
            IpFamily::V6 => format!("the subnet-router anycast address of the nodes' subnet {subnet}"),
        },
        Exclusion::Pods(node) => format!("for the pods of node {node}"),
        Exclusion::Services(name) => format!("for the cluster IPs of ServiceCIDR {name}"),
    }
}

fn time(seconds: i64) -> String {
    Timestamp::from_second(seconds).map_or_else(|_| seconds.to_string(), |time| time.to_string())
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
