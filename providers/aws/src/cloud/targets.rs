//! Targets, as `RegisterTargets` takes them and `DescribeTargetHealth` shows them.

use std::fmt;

use serde::Serialize;

/// A target of a target group.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct TargetDescription {
    /// `i-…`, or an address.
    pub id: String,
    /// Where it takes traffic.
    pub port: u16,
    /// An address outside the ranges of the VPC, which is said by the zone `all` (AWS rule).
    pub is_outside: bool,
}

impl fmt::Display for TargetDescription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.id.contains(':') {
            write!(f, "[{}]:{}", self.id, self.port)
        } else {
            write!(f, "{}:{}", self.id, self.port)
        }
    }
}

words! {
    /// What a load balancer thinks of a target.
    TargetState {
        /// It is new, and is being looked at.
        Initial = "initial",
        /// It serves.
        Healthy = "healthy",
        /// It does not.
        Unhealthy = "unhealthy",
        /// It does not, and what it has begun it may end.
        UnhealthyDraining = "unhealthy.draining",
        /// Nothing is sent to it, because no listener uses its group or its zone is not the load balancer's.
        Unused = "unused",
        /// It was deregistered, and what it has begun it may end.
        Draining = "draining",
        /// It is not looked at.
        Unavailable = "unavailable",
    }
}

impl TargetState {
    /// Whether it is registered, and not on its way out.
    pub fn is_registered(self) -> bool {
        self != Self::Draining
    }
}

/// A target, as `DescribeTargetHealth` shows it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TargetHealth {
    /// Which one. Whether it is outside is not always answered.
    pub target: TargetDescription,
    /// What is thought of it.
    pub state: TargetState,
    /// Why, such as `Target.FailedHealthChecks`.
    pub reason: Option<String>,
}
