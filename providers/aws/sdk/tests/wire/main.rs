//! The AWS provider over the wire: the official SDK, and moto in AWS's place.
//!
//! What AWS refuses is tested over the strict cloud in memory; here it is that every call is made as AWS takes it, that every answer is
//! read, and that whatever happens to calls on their way, what there is in the end is the same.
#![expect(clippy::panic, clippy::unwrap_used, reason = "a test")]

mod faults;
mod life;
mod paging;
mod scene;
