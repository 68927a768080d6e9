//! Names that several processes must agree on: API group, classes, field managers, label keys.

use std::net::IpAddr;

/// API group of Berth's custom resources.
pub const GROUP: &str = "berth.dev";
/// Served version of Berth's custom resources.
pub const VERSION: &str = "v1alpha1";

/// `spec.loadBalancerClass` of Services that get an address from a pool.
pub const POOL_CLASS: &str = "berth.dev/pool";
/// `spec.loadBalancerClass` of Services that get an address for tests.
pub const MOCK_CLASS: &str = "berth.dev/mock";
/// `spec.loadBalancerClass` of the AWS provider's Network Load Balancers.
pub const AWS_NLB_CLASS: &str = "berth.dev/aws-nlb";
/// `spec.loadBalancerClass` of Services that the azure provider serves.
pub const AZURE_LB_CLASS: &str = "berth.dev/azure-lb";
/// What the classes begin with that are Berth's own. Any other class is another controller's, unless it is mapped.
pub const CLASS_PREFIX: &str = "berth.dev/";

/// Finalizer of Services for which something was made outside the cluster, or is about to be. It goes when nothing of them is left there.
pub const FINALIZER: &str = "berth.dev/load-balancer";

/// What the types of our readiness gates begin with; the name of a Service in the pod's namespace follows.
pub const TARGET_HEALTH_GATE_PREFIX: &str = "target-health.berth.dev/";

/// Server-side-apply field manager of the controller.
pub const CONTROLLER_FIELD_MANAGER: &str = "berth-controller";
/// Server-side-apply field manager of the speakers. One for all nodes, because the status of an
/// Announcement has one writer at a time: the node with the highest epoch.
pub const SPEAKER_FIELD_MANAGER: &str = "berth-speaker";

/// Prefix of the label that lets a speaker watch only the Announcements it has a part in.
pub const PART_LABEL_PREFIX: &str = "part.berth.dev/";

/// Namespace of the controller.
pub const CONTROLLER_NAMESPACE: &str = "berth-system";
/// Name of the controller's Deployment, ServiceAccount, roles and image.
pub const CONTROLLER_NAME: &str = "berth-controller";
/// The Secret with the configuration for Azure, in [`CONTROLLER_NAMESPACE`], where `deploy/azure` is installed.
pub const AZURE_SECRET: &str = "berth-azure";
/// The Lease that elects the leader among the controller's replicas, in [`CONTROLLER_NAMESPACE`].
pub const LEADER_LEASE: &str = "berth-controller";
/// Namespace of the speakers: one of their own, because their pods need the network of the node, which no namespace that
/// holds the controller to Pod Security "restricted" would admit.
pub const SPEAKER_NAMESPACE: &str = "berth-speaker";
/// Name of the speakers' DaemonSet, ServiceAccount, roles and image.
pub const SPEAKER_NAME: &str = "berth-speaker";

/// A node with this label (whatever its value) takes no part in announcing. Standard Kubernetes label.
pub const EXCLUDE_NODE_LABEL: &str = "node.kubernetes.io/exclude-from-external-load-balancers";
/// A node with this taint (whatever its value and effect) is down, as somebody says who knows. Standard Kubernetes taint.
pub const OUT_OF_SERVICE_TAINT: &str = "node.kubernetes.io/out-of-service";

/// Longest name part of a label key (Kubernetes rule).
const LABEL_NAME_MAX: usize = 63;

/// Label key of a node's part in an Announcement. A node name longer than a label may be is cut, and its
/// FNV-1a hash is put behind it.
///
/// # Examples
/// ```
/// assert_eq!(berth_api::names::part_label("worker-1"), "part.berth.dev/worker-1");
/// ```
pub fn part_label(node: &str) -> String {
    if node.len() <= LABEL_NAME_MAX {
        return format!("{PART_LABEL_PREFIX}{node}");
    }
    // Room for "-" and 16 hex digits, and no dot or dash left hanging where the name was cut.
    let cut = node[..LABEL_NAME_MAX - 17].trim_end_matches(['.', '-']);
    format!("{PART_LABEL_PREFIX}{cut}-{:016x}", fnv1a(node.as_bytes()))
}

/// Name of the Announcement of an address. Its uniqueness is what prevents double use.
pub fn announcement_name(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => v4.to_string(),
        // A colon may not stand in an object's name.
        IpAddr::V6(v6) => v6.segments().map(|s| format!("{s:x}")).join("-"),
    }
}

/// The address whose Announcement has this name; `None` for any other name.
pub fn announced_address(name: &str) -> Option<IpAddr> {
    let address: IpAddr = if name.contains('.') { name.parse() } else { name.replace('-', ":").parse() }.ok()?;
    (announcement_name(address) == name).then_some(address)
}

fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_node_name_gives_a_valid_and_distinct_label_key() {
        let a = format!("{}-a", "n".repeat(200));
        let b = format!("{}-b", "n".repeat(200));
        let key = part_label(&a);
        assert_ne!(key, part_label(&b));
        let name = key.strip_prefix(PART_LABEL_PREFIX).unwrap();
        assert!(name.len() <= LABEL_NAME_MAX, "{name}");
    }

    #[test]
    fn an_announcement_is_named_after_its_address() {
        for (address, name) in [("192.0.2.10", "192.0.2.10"), ("2001:db8::1", "2001-db8-0-0-0-0-0-1")] {
            assert_eq!(announcement_name(address.parse().unwrap()), name);
            assert_eq!(announced_address(name), Some(address.parse().unwrap()));
        }
        for other in ["", "web", "192.0.2", "192.0.2.010", "2001-db8--1", "2001-db8-0-0-0-0-0-01", "2001:db8::1"] {
            assert_eq!(announced_address(other), None, "{other}");
        }
    }
}
