//! Rendezvous hashing with MetalLB's own hash, so that a cluster that moves over keeps its owners.

use std::net::IpAddr;

use sha2::{Digest, Sha256};

/// Where a node stands in the order for an address: the smallest rank comes first.
pub type Rank = [u8; 32];

/// SHA-256 of `node#address`.
pub fn rank(node: &str, address: IpAddr) -> Rank {
    let mut hash = Sha256::new();
    hash.update(node.as_bytes());
    hash.update(b"#");
    hash.update(address.to_string().as_bytes());
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_the_one_that_metallb_has() {
        for (address, nodes, order) in [
            ("10.0.0.1", "node-a node-b node-c", "node-b node-a node-c"),
            ("10.0.0.2", "node-a node-b node-c", "node-b node-c node-a"),
            ("10.20.30.1", "iris1 iris2", "iris2 iris1"),
            ("10.20.30.2", "iris1 iris2", "iris1 iris2"),
            ("10.20.30.1", "edge-a edge-b worker-a worker-b", "edge-b worker-a edge-a worker-b"),
            ("fc00:f853:ccd:e799::1", "node-a node-b node-c", "node-b node-a node-c"),
        ] {
            let mut ranked: Vec<_> = nodes.split(' ').collect();
            ranked.sort_by_key(|node| rank(node, address.parse().unwrap()));
            assert_eq!(ranked.join(" "), order, "{address}");
        }
    }
}
