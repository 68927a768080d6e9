//! The whole controller but its watches, with the Azure provider over the strict resource manager in memory and a small API server.

#![allow(clippy::too_many_lines, reason = "a life is told from beginning to end")]

mod failures;
mod finalizer;
mod process;
mod status;
mod targets;
