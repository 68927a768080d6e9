//! AWS on the wire for tests: [moto](https://docs.getmoto.org) answers in its place, microburst hurts calls, and [`Proxy`] counts them.
//!
//! moto answers what AWS answers to what is right, and is no judge of what is wrong: docs/testing.md says where it differs.

mod proxy;
mod server;
mod tools;

pub use proxy::{Call, Fate, Proxy};
pub use server::{Faults, Moto};
pub use tools::{Ground, Tools, cached, environment, ready};
