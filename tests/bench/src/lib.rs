//! The bench: how long Services wait for their addresses, and what a controller needs for it.
//!
//! Three subjects can be measured, each in a lab of its own, with the same load: the *floor*, a controller that thinks of nothing and only makes
//! the writes that cannot be spared; Berth; and a *peer*, any other controller. What creates Services and sees their
//! addresses is the program of this crate, in a process of its own, and so is the floor's controller: both are built as the
//! controller is, so that no debug build is in what is measured. The lab and the order of events are the library's.
//!
//! Beside it, in labs of their own: how long clients are without an answer when something goes wrong ([`failover`]), and what speakers cost when
//! nothing does ([`idle`]), how fast and at what cost they answer ([`arp`]), and how many calls of AWS and of Azure the controller makes ([`aws`], [`azure`]).
//!
//! `cargo xtask bench` is how people run it; docs/bench.md says what the figures mean.

pub mod arp;
pub mod aws;
pub mod azure;
pub mod client;
pub mod failover;
pub mod idle;
pub mod load;
mod measure;
pub mod null_controller;
mod process;
pub mod row;
mod scene;
mod subject;

pub use measure::{Measurement, measure};
pub use process::PROGRAM;
pub use scene::LAB;
pub use subject::{PEER_ENV, Programs, Subject};
