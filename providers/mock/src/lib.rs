//! The provider `mock`: a cloud in the controller's own memory, for people who test their manifests and operators.
//!
//! It gives addresses from the ranges that are reserved for documentation, behind which nobody answers, and takes as long and
//! fails as often as a Service's annotations say. Its cloud goes with the process; what was published is made again as it was.

mod cloud;
mod provider;
mod ranges;
mod script;

pub use cloud::{Cloud, CloudError};
pub use provider::{Mock, Observed, Step};
pub use script::{ANNOTATION_PREFIX, FAULTS, HOSTNAME, LATENCY, Script, ScriptError};
