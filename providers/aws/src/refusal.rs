//! Why a Service gets no load balancer as it asks for one.

use berth_api::Reason;
use berth_provider::{Class, Failure};

/// A request that is refused. What is there stays as it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A value that cannot be read or that AWS does not know.
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
    /// An annotation under the names of AWS load balancers that nobody knows.
    #[error("annotation {field} is none that an AWS load balancer has; correct or remove it")]
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
    /// Berth's own request for an address of a pool, which no NLB has.
    #[error("{0}")]
    Request(String, Reason),
    /// Something that this provider leaves to people, who have to say that they do it.
    #[error("{field}: {why}")]
    LeftToPeople {
        /// The annotation.
        field: String,
        /// What is not done, and what to do.
        why: String,
    },
    /// Not in this namespace.
    #[error("{field}: not admitted in the namespace {namespace}; an operator admits it with {flag}")]
    NotAdmitted {
        /// The annotation.
        field: String,
        /// Where the Service is.
        namespace: String,
        /// What an operator has to set.
        flag: &'static str,
    },
    /// No subnet is fit.
    #[error("no subnet is fit for the load balancer: {0}")]
    NoSubnet(String),
    /// A security group would have more rules than AWS allows.
    #[error("{0}")]
    Limit(String),
    /// The Service differs from an older one of its group.
    #[error(
        "the group's load balancer is as {with} asks for, and this Service differs in {what}; make them equal, or leave the group"
    )]
    GroupDiffers {
        /// The Service that decides.
        with: String,
        /// What they differ in.
        what: &'static str,
    },
    /// An older Service of the group has the port.
    #[error("port {port} of the group's load balancer is {by}'s already; change the port, or leave the group")]
    PortTaken {
        /// The port.
        port: u16,
        /// Who has it.
        by: String,
    },
    /// Only replacement brings it about.
    #[error(
        "{what}, which interrupts traffic; set the annotation berth.dev/allow-replacement to \"true\", or take the change back. What \
         is there stays"
    )]
    Replacement {
        /// What changed.
        what: String,
    },
    /// Somebody else has the name.
    #[error("a {kind} named `{name}` is there that is not this Service's; it is left alone. Ask for another name")]
    NameTaken {
        /// What kind of thing.
        kind: &'static str,
        /// Its name.
        name: String,
    },
}

impl Refusal {
    /// The class of errors.
    pub fn class(&self) -> Class {
        match self {
            Self::Unsupported { .. } | Self::LeftToPeople { .. } => Class::Unsupported,
            Self::NotAdmitted { .. } => Class::Permission,
            _ => Class::Config,
        }
    }

    /// The reason code.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Value { .. } | Self::Unknown { .. } | Self::Contradiction { .. } => Reason::InvalidRequest,
            Self::Unsupported { .. } | Self::LeftToPeople { .. } => Reason::Unsupported,
            Self::Request(_, reason) => *reason,
            Self::NotAdmitted { .. } => Reason::CloudNotAdmitted,
            Self::NoSubnet(_) => Reason::NoSubnet,
            Self::Limit(_) => Reason::CloudLimit,
            Self::GroupDiffers { .. } => Reason::GroupDiffers,
            Self::PortTaken { .. } => Reason::SharingPortTaken,
            Self::Replacement { .. } => Reason::ReplacementNeeded,
            Self::NameTaken { .. } => Reason::CloudNameTaken,
        }
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::new(refusal.class(), refusal.to_string()).reason(refusal.reason())
    }
}
