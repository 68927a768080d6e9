//! Annotations that people write: on a Service, where each has a `metallb.io/` twin, so that manifests
//! that exist keep working (where both are present they must agree), on a Node and on an Announcement.

/// Addresses that the Service asks for, separated by commas.
pub const LOAD_BALANCER_IPS: &str = "berth.dev/load-balancer-ips";
/// MetalLB's spelling of [`LOAD_BALANCER_IPS`].
pub const LOAD_BALANCER_IPS_TWIN: &str = "metallb.io/loadBalancerIPs";
/// The pool that the address is to come from.
pub const ADDRESS_POOL: &str = "berth.dev/address-pool";
/// MetalLB's spelling of [`ADDRESS_POOL`].
pub const ADDRESS_POOL_TWIN: &str = "metallb.io/address-pool";
/// Key by which the Service shares its addresses with others of its namespace.
pub const ALLOW_SHARED_IP: &str = "berth.dev/allow-shared-ip";
/// MetalLB's spelling of [`ALLOW_SHARED_IP`], which shares across namespaces where the pool lets it.
pub const ALLOW_SHARED_IP_TWIN: &str = "metallb.io/allow-shared-ip";

/// Name of the cloud load balancer that the Service shares with the others of its namespace that have the same name here.
pub const LOAD_BALANCER_GROUP: &str = "berth.dev/load-balancer-group";
/// With the value `true` cloud objects are replaced where what the Service asks for cannot be had otherwise.
pub const ALLOW_REPLACEMENT: &str = "berth.dev/allow-replacement";
/// With the value `true` the cloud objects of the Service are left as they are and forgotten.
pub const DISOWN: &str = "berth.dev/disown";

/// On a Node: with the value `true` it gives up what it owns, as soon as another node can take it.
pub const DRAIN: &str = "berth.dev/drain";
/// On an Announcement: the node that a person wishes the address to be on, for as long as the annotation is there.
pub const MOVE_TO: &str = "berth.dev/move-to";
/// On an Announcement, written by the controller: the address was in the status of its Service before, so it may be in use although no
/// node is known to have answered for it, and is not exchanged for another one because a foreign machine has it too.
pub const TAKEN_AGAIN: &str = "berth.dev/taken-again";

/// What our own annotations begin with.
pub const PREFIX: &str = "berth.dev/";
/// Our own annotations of a Service; any other with [`PREFIX`] is refused, so that a slip of the pen is not taken for no wish.
pub const KNOWN: &[&str] = &[LOAD_BALANCER_IPS, ADDRESS_POOL, ALLOW_SHARED_IP];
/// Further ones that mean something to providers of cloud load balancers, and nothing to others, which refuse them.
pub const CLOUD: &[&str] = &[LOAD_BALANCER_GROUP, ALLOW_REPLACEMENT, DISOWN];
