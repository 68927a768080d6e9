//! What must hold of all of it together. What one part decides is tested beside it.

#![allow(clippy::type_complexity, clippy::too_many_lines, reason = "a table reads better with its values in place")]

mod annotations;
mod conformance;
mod doors;
mod golden;
mod histories;
mod lifecycle;
mod memory;
mod owned;
pub mod scene;
mod snapshot;
pub mod targets;
