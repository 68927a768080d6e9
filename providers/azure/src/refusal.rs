//! Why a Service is not served as it asks for.

use berth_api::Reason;
use berth_provider::{Class, Failure};

/// A request that is refused. What is there stays as it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A value that cannot be read or that Azure does not know.
    #[error("{field}: `{value}` is {wrong}; {advice}")]
    Value {
        /// The annotation or field.
        field: String,
        /// What stands there.
        value: String,
        /// What is wrong with it.
        wrong: String,
        /// What to do.
        advice: String,
    },
    /// An annotation under the names of Azure load balancers that nobody knows.
    #[error("annotation {field} is none that an Azure load balancer has; correct or remove it")]
    Unknown {
        /// The annotation.
        field: String,
    },
    /// Two wishes that cannot both be met.
    #[error("{field}: {why}")]
    Contradiction {
        /// The annotation or field.
        field: String,
        /// What does not go together, and what to do.
        why: String,
    },
    /// Something that this provider does not do.
    #[error("{field}: {why}; remove it")]
    Unsupported {
        /// The annotation or field.
        field: String,
        /// What is not done.
        why: String,
    },
    /// Berth's own request for an address of a pool, which no Azure load balancer has.
    #[error("{0}")]
    Request(String, Reason),
    /// Not in this namespace.
    #[error("{field}: not admitted in the namespace {namespace}; an operator admits it with {flag}")]
    NotAdmitted {
        /// The annotation or field.
        field: String,
        /// Where the Service is.
        namespace: String,
        /// What an operator has to set.
        flag: &'static str,
    },
    /// The subnet cannot be used.
    #[error("{0}")]
    NoSubnet(String),
    /// A limit of Azure or of the operator.
    #[error("{0}")]
    Limit(String),
    /// Something named or asked for by its address is not there.
    #[error("{0}")]
    NotFound(String),
    /// A port of a frontend that another one has.
    #[error(
        "the frontend of {address} has {protocol} port {port} already, for {by}; change the port, or ask for another address"
    )]
    PortTaken {
        /// The address, or what has it.
        address: String,
        /// The protocol.
        protocol: String,
        /// The port.
        port: u16,
        /// Who has it.
        by: String,
    },
    /// Somebody else's frontend has the address.
    #[error(
        "{address} is in use by {by}, which is not this cluster's or not of this namespace; ask for another address"
    )]
    AddressInUse {
        /// The address, or what has it.
        address: String,
        /// Who has it.
        by: String,
    },
    /// Somebody else's has the name.
    #[error("a {kind} named `{name}` is there that is not this cluster's; it is left alone. Ask for another name")]
    NameTaken {
        /// What kind of thing.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// Azure itself refused what the Service asks for.
    #[error("{0}")]
    Arm(String, Class, Reason),
}

impl Refusal {
    /// The class of errors.
    pub fn class(&self) -> Class {
        match self {
            Self::Unsupported { .. } => Class::Unsupported,
            Self::NotAdmitted { .. } => Class::Permission,
            Self::Arm(_, class, _) => *class,
            _ => Class::Config,
        }
    }

    /// The reason code.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Value { .. } | Self::Unknown { .. } | Self::Contradiction { .. } | Self::NotFound(_) => {
                Reason::InvalidRequest
            }
            Self::Unsupported { .. } => Reason::Unsupported,
            Self::Request(_, reason) | Self::Arm(_, _, reason) => *reason,
            Self::NotAdmitted { .. } => Reason::CloudNotAdmitted,
            Self::NoSubnet(_) => Reason::NoSubnet,
            Self::Limit(_) => Reason::CloudLimit,
            Self::PortTaken { .. } => Reason::SharingPortTaken,
            Self::AddressInUse { .. } => Reason::AddressInUse,
            Self::NameTaken { .. } => Reason::CloudNameTaken,
        }
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::new(refusal.class(), refusal.to_string()).reason(refusal.reason())
    }
}
