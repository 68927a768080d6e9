//! The effects of a plan: whole documents that are written or deleted.

use std::fmt;

use berth_provider::ServiceId;
use serde::Serialize;
use serde_json::Value;

use crate::arm::{Condition, Id};
use crate::refusal::Refusal;

/// What kind of resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Kind {
    /// A public IP.
    #[serde(rename = "Microsoft.Network/publicIPAddresses")]
    PublicIp,
    /// A network security group.
    #[serde(rename = "Microsoft.Network/networkSecurityGroups")]
    SecurityGroup,
    /// A load balancer.
    #[serde(rename = "Microsoft.Network/loadBalancers")]
    LoadBalancer,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PublicIp => "public IP",
            Self::SecurityGroup => "network security group",
            Self::LoadBalancer => "load balancer",
        })
    }
}

/// One effect.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "method")]
pub enum Step {
    /// Write a document.
    #[serde(rename = "PUT")]
    Put {
        /// Of which kind.
        #[serde(rename = "type")]
        kind: Kind,
        /// Which.
        id: Id,
        /// The ETag of what is there; none where nothing is.
        #[serde(rename = "ifMatch", skip_serializing_if = "Option::is_none")]
        if_match: Option<String>,
        /// What differs, for a person.
        summary: String,
        /// The Services whose part of it changes.
        #[serde(skip)]
        changes: Vec<ServiceId>,
        /// The whole of it.
        body: Value,
    },
    /// Delete a resource.
    #[serde(rename = "DELETE")]
    Delete {
        /// Of which kind.
        #[serde(rename = "type")]
        kind: Kind,
        /// Which.
        id: Id,
        /// The ETag of the one that was looked at, where more than that it is there was planned on.
        #[serde(rename = "ifMatch", skip_serializing_if = "Option::is_none")]
        if_match: Option<String>,
    },
    /// Nothing: a Service that leaves may have something where nobody can look, and so cannot be gone yet.
    #[serde(rename = "GET")]
    Wait {
        /// Of which kind it would be.
        #[serde(rename = "type")]
        kind: Kind,
        /// Where they all are.
        id: Id,
        /// Why it cannot be seen.
        #[serde(skip)]
        refusal: Refusal,
    },
}

impl Step {
    /// Under which condition it is written.
    pub fn condition(if_match: Option<&String>) -> Condition {
        if_match.map_or(Condition::New, |etag| Condition::Is(etag.clone()))
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Put { kind, id, if_match, summary, .. } => {
                let verb = if if_match.is_some() { "write" } else { "create" };
                write!(f, "{verb} the {kind} {}", id.name())?;
                if summary.is_empty() { Ok(()) } else { write!(f, ": {summary}") }
            }
            Self::Delete { kind, id, .. } => write!(f, "delete the {kind} {}", id.name()),
            Self::Wait { kind, id, .. } => write!(f, "wait until it can be seen whether a {kind} is left in {id}"),
        }
    }
}
