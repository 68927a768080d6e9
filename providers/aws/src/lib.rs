//! The AWS provider: a Network Load Balancer (NLB) for a Service, or for the Services of one namespace that share one.
//!
//! ```text
//!  Service -> intent (every annotation read or refused) -> model (what there should be)
//!                                                             |
//!  cloud (the calls, a trait) -> observed (ours, by tags) -> plan (pure, ordered steps) -> provider (carries them out)
//! ```
//!
//! The annotations are those of the AWS Load Balancer Controller, with its meanings; see [`annotation`] for how each is treated.
//! What carries our tags with this cluster's name and kube-system UID is ours, nothing else is, and names identify nothing.

pub mod action;
pub mod annotation;
pub mod backend;
pub mod cloud;
pub mod errors;
#[cfg(feature = "clap")]
pub mod flags;
pub mod gated;
pub mod intent;
pub mod model;
pub mod names;
pub mod observed;
pub mod outlook;
pub mod pace;
pub mod plan;
pub mod policy;
mod provider;
pub mod refusal;
pub mod request;
pub mod security;
pub mod settings;
pub mod snapshot;
pub mod step;
pub mod subnets;
pub mod tags;
pub mod targets;

pub use berth_provider::Namespaces;
pub use provider::Aws;
pub use settings::{Admission, NodePorts, Settings};

#[cfg(any(test, feature = "fake"))]
pub mod fake;
#[cfg(test)]
mod tests;
