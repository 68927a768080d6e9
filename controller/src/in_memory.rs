//! The whole controller but its watches, over a small API server: a process that can be killed at any moment, for tests with a cloud.

mod api;
mod process;

pub(crate) use api::{Api, Shared, key};
pub(crate) use process::{Backends, Gates, Process};
