//! The Azure provider: Services share a Standard Load Balancer, written together.
//!
//! ```text
//!  Services -> intent (every annotation read or refused)
//!                 |
//!  arm (the calls, a trait) -> observed (documents as they are) -> plan (pure: our parts of them changed) -> provider
//! ```
//!
//! A load balancer and a network security group are one document each, with parts of many Services and of others. All Services
//! are planned together and written with one PUT each; what is not ours comes out as it went in. The annotations and names are
//! those of cloud-provider-azure; see [`annotation`] for how each annotation is treated.

pub mod annotation;
pub mod arm;
pub mod config;
pub mod difference;
pub mod document;
pub mod endpoints;
#[cfg(feature = "clap")]
pub mod flags;
pub mod intent;
pub mod names;
pub mod observed;
pub mod outlook;
pub mod pipeline;
pub mod plan;
mod provider;
pub mod refusal;
pub mod role;
pub mod settings;
pub mod snapshot;
pub mod step;
pub mod tags;

pub use berth_provider::Namespaces;
pub use provider::Azure;
pub use settings::{Admission, Settings};

#[cfg(test)]
mod tests;
