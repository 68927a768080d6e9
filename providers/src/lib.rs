//! What every provider of load balancers is: the [`Provider`] trait, what goes into a plan and what comes out of one,
//! the classes of errors, and the [`conformance`] suite that each provider has to pass.
//!
//! ```text
//!  Services -> validate -> shard -> observe (I/O) -> plan (pure) -> apply (I/O, step by step) -> outcomes
//! ```
//!
//! The cluster and the outside world are the only memory. A provider may be killed between any two effects, and the next
//! one goes on from what it observes.

pub mod class;
pub mod conformance;
mod failure;
mod intent;
mod namespaces;
mod plan;
mod provider;
mod targets;

pub use failure::{Class, Failure, Retry, UnknownClass};
pub use intent::{Intent, Port, Protocol, ServiceId, TargetPort, Wanted};
pub use namespaces::{Namespaces, NamespacesError};
pub use plan::{Carried, Outcome, Plan, PlannedStep, carry_out};
pub use provider::{LOOK_AGAIN, Owned, Provider, Shard, Whom};
pub use targets::{Endpoint, EndpointHealth, EndpointReport, ServiceTargets, TargetNode, TargetReport, Targets};
