//! The calls of the AWS provider ([`berth_aws::cloud::Cloud`]) over the official SDK.
//!
//! A crate of its own because of what it costs to compile: nothing but the controller, behind its feature `aws`, depends on it.

mod call;
mod cloud;
mod connect;
mod failed;
mod lanes;
mod read;
mod write;

pub use call::Sdk;
pub use connect::{ConnectError, Connected, Options};
