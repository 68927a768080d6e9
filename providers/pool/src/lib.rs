//! The bare-metal provider's two decisions, both pure: which address a Service gets ([`ipam`]) and which nodes
//! answer for it ([`placement`]).

pub mod intervals;
pub mod ipam;
pub mod placement;
pub mod rendezvous;
