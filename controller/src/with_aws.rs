//! The whole controller but its watches, with the AWS provider over the strict cloud in memory and a small API server.

#![allow(clippy::too_many_lines, reason = "a life is told from beginning to end")]

mod finalizer;
mod gates;
mod orphans;
pub(crate) mod pods;
mod process;
mod refused;
mod targets;
