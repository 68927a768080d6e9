//! What must hold of all of it together. What one part decides is tested beside it.

#![allow(clippy::type_complexity, clippy::too_many_lines, reason = "a table reads better with its values in place")]

mod annotations;
mod conformance;
mod histories;
mod isolation;
mod lifecycle;
mod many;
mod pipeline;
mod public_ips;
mod rights;
pub mod scene;
