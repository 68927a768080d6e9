//! The bare-metal provider: which address a Service gets ([`ipam`]), which nodes answer for it ([`placement`]), and what has to
//! be written for it ([`plan`]), from everything that is known ([`world`]), and what it all comes to in the end ([`forecast`]), or
//! would if nodes failed ([`forecast::simulate`]); and what moves to where if a person wants balance ([`rebalance`]). All of
//! that is pure; [`driver`] alone writes.

mod asks;
mod cooldown;
pub mod driver;
pub mod forecast;
pub mod intervals;
pub mod ipam;
pub mod placement;
pub mod plan;
pub mod provider;
pub mod quarantine;
pub mod rebalance;
pub mod rendezvous;
pub mod report;
#[cfg(test)]
mod scene;
pub mod view;
pub mod world;
