//! What users of Berth count on, each in a lab of its own: real API server, real kube-proxy, Berth under its own rights.

mod cluster;

mod address;
mod classes;
mod envelope;
mod failover;
mod families;
mod leader;
mod manners;
mod mock;
mod outage;
mod refusal;
