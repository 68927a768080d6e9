//! What users of Berth count on, each in a lab of its own: real API server, real kube-proxy, Berth under its own rights.

mod cluster;
#[path = "../plugin/mod.rs"]
mod plugin;

mod address;
mod classes;
mod conflicts;
mod dataplane;
mod drain;
mod envelope;
mod failover;
mod families;
mod kernel;
mod leader;
mod manners;
mod mock;
mod ndp;
mod outage;
mod rebalance;
mod refresh;
mod refusal;
mod routes;
mod routing;
mod selectors;
mod simulate;
