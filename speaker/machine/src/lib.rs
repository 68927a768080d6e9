//! What a node's speaker decides about layer 2: who answers for which address, when a silent owner is replaced,
//! and what is said on the wire meanwhile.
//!
//! Pure: [`Machine`] knows no clock and no socket. Every call takes the time on the node's `CLOCK_BOOTTIME` and every
//! effect is a value to be polled out, so that a test can run a whole link of machines on a virtual clock.
//!
//! By role: `timing` has every constant with its reason, `liveness` one session with each partner, `claims` what two
//! partners tell each other they answer for, `takeover` the state of one address, `schedule` when an address is
//! announced, `refresh` when again, `pacer` how many are at once, `shared` keeps once what many addresses have alike, and `machine` ties them
//! together. `docs/failover.md` is the protocol.

mod broken;
mod claims;
mod effect;
mod input;
mod liveness;
mod machine;
mod pacer;
mod queue;
mod refresh;
mod schedule;
mod shared;
#[cfg(test)]
mod sim;
pub mod sweep;
mod takeover;
pub mod timing;

pub use berth_wire::heartbeat::{Message, NodeName, NodeNameError};
pub use berth_wire::neighbor::Frame;
pub use effect::{Counters, Effect, PerFamily, State, Status};
pub use input::{Assignment, Evidence, Member, OwnerClaim};
pub use machine::Machine;
pub use refresh::{Refresh, RefreshError};
pub use shared::Values;
