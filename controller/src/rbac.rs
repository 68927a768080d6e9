//! The rights that the controller needs, and no others. `deploy/rbac/controller.yaml` is generated from here.

use berth_api::heartbeat_keys::SECRET;
use berth_api::names::LEADER_LEASE;
use berth_api::orphans::config_map_name;
use k8s_openapi::api::rbac::v1::PolicyRule;

/// Providers that make something outside the cluster.
const CLOUDS: [&str; 1] = ["aws"];

/// Rules of its ClusterRole.
pub fn rules() -> Vec<PolicyRule> {
    vec![
        rule("", &["services", "nodes", "namespaces"], &["list", "watch"]),
        // That a Service is really gone, before its address is given back.
        rule("", &["services"], &["get"]),
        rule("discovery.k8s.io", &["endpointslices"], &["list", "watch"]),
        rule("networking.k8s.io", &["servicecidrs"], &["list", "watch"]),
        rule("", &["services/status"], &["patch"]),
        rule(
            "berth.dev",
            &["ipaddresspools", "l2advertisements", "routeadvertisements", "speakernodes"],
            &["list", "watch"],
        ),
        rule(
            "berth.dev",
            &["ipaddresspools/status", "l2advertisements/status", "routeadvertisements/status", "speakernodes/status"],
            &["patch"],
        ),
        rule("berth.dev", &["announcements"], &["list", "watch", "create", "update", "delete"]),
        rule("events.k8s.io", &["events"], &["create", "patch"]),
    ]
}

/// What its ClusterRole has besides where something is made outside the cluster. `deploy/aws` adds it.
pub fn cloud_rules() -> Vec<PolicyRule> {
    vec![
        // The finalizer of Services that have something outside the cluster.
        rule("", &["services"], &["patch"]),
        // Its UID tells this cluster from others of its name, in what is made outside.
        PolicyRule { resource_names: Some(vec!["kube-system".to_owned()]), ..rule("", &["namespaces"], &["get"]) },
    ]
}

/// What its Role in its own namespace has besides where something is made outside the cluster: the lists of orphans, and what people say there.
pub fn orphan_rules() -> Vec<PolicyRule> {
    let lists = CLOUDS.map(config_map_name).to_vec();
    let named =
        PolicyRule { resource_names: Some(lists), ..rule("", &["configmaps"], &["get", "list", "watch", "patch"]) };
    // What is to be created has no name yet that a rule could go by.
    vec![rule("", &["configmaps"], &["create"]), named]
}

/// What its ClusterRole has besides where readiness gates of pods are set. `deploy/aws-readiness-gates` adds it.
pub fn gate_rules() -> Vec<PolicyRule> {
    vec![rule("", &["pods"], &["list", "watch"]), rule("", &["pods/status"], &["patch"])]
}

/// Rules of its Role in its own namespace: the Lease by which replicas choose a leader.
pub fn leader_rules() -> Vec<PolicyRule> {
    let named = PolicyRule {
        resource_names: Some(vec![LEADER_LEASE.to_owned()]),
        ..rule("coordination.k8s.io", &["leases"], &["get", "update"])
    };
    // What is to be created has no name yet that a rule could go by.
    vec![rule("coordination.k8s.io", &["leases"], &["create"]), named]
}

/// Rules of its Role in the speakers' namespace: the Secret by which speakers know each other. It can neither list Secrets nor read another.
pub fn heartbeat_key_rules() -> Vec<PolicyRule> {
    let named =
        PolicyRule { resource_names: Some(vec![SECRET.to_owned()]), ..rule("", &["secrets"], &["get", "update"]) };
    vec![rule("", &["secrets"], &["create"]), named]
}

fn rule(group: &str, resources: &[&str], verbs: &[&str]) -> PolicyRule {
    let owned = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
    PolicyRule {
        api_groups: Some(owned(&[group])),
        resources: Some(owned(resources)),
        verbs: owned(verbs),
        ..PolicyRule::default()
    }
}
