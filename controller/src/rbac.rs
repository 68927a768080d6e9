//! The rights that the controller needs, and no others. `deploy/rbac/controller.yaml` is generated from here.

use k8s_openapi::api::rbac::v1::PolicyRule;

/// Rules of its ClusterRole.
pub fn rules() -> Vec<PolicyRule> {
    vec![
        rule("", &["services", "nodes"], &["list", "watch"]),
        rule("discovery.k8s.io", &["endpointslices"], &["list", "watch"]),
        rule("", &["services/status"], &["patch"]),
        rule("berth.dev", &["ipaddresspools", "l2advertisements", "speakernodes"], &["list", "watch"]),
        rule("berth.dev", &["ipaddresspools/status", "l2advertisements/status"], &["patch"]),
        rule("berth.dev", &["announcements"], &["list", "watch", "create", "update", "delete"]),
        rule("events.k8s.io", &["events"], &["create", "patch"]),
    ]
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
