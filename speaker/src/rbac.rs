//! What the speaker may do in the cluster: exactly what it does. `deploy/` is generated from here.

use berth_api::names::GROUP;
use k8s_openapi::api::rbac::v1::PolicyRule;

/// The rules of the speaker's ClusterRole.
pub fn rules() -> Vec<PolicyRule> {
    vec![
        // Its share of the addresses; read again one by one after a write that met somebody else's.
        rule(GROUP, &["announcements"], &["get", "list", "watch"]),
        // Who answers.
        rule(GROUP, &["announcements/status"], &["patch"]),
        // What only the node knows; a server-side apply that makes the object needs both verbs.
        rule(GROUP, &["speakernodes"], &["list", "watch", "create", "patch"]),
        // How it hears its partners.
        rule(GROUP, &["speakernodes/status"], &["patch"]),
        // The UID of its own node, so that the SpeakerNode goes with it.
        rule("", &["nodes"], &["get"]),
    ]
}

/// The namespace of [`event_rules`]: an event about an object that is in no namespace is in this one, and a speaker's are about
/// Announcements.
pub const EVENT_NAMESPACE: &str = "default";

/// The rules of the speaker's Role in [`EVENT_NAMESPACE`].
pub fn event_rules() -> Vec<PolicyRule> {
    vec![rule("events.k8s.io", &["events"], &["create", "patch"])]
}

fn rule(group: &str, resources: &[&str], verbs: &[&str]) -> PolicyRule {
    let owned = |list: &[&str]| list.iter().map(|&s| s.to_owned()).collect::<Vec<_>>();
    PolicyRule {
        api_groups: Some(vec![group.to_owned()]),
        resources: Some(owned(resources)),
        verbs: owned(verbs),
        ..PolicyRule::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_speaker_cannot_read_secrets_or_change_what_the_controller_writes() {
        for rule in [rules(), event_rules()].concat() {
            let resources = rule.resources.unwrap();
            assert!(!resources.iter().any(|r| r == "secrets" || r == "*"), "{resources:?}");
            assert!(!rule.verbs.iter().any(|v| v == "*" || v == "delete" || v == "update"), "{resources:?}");
            if resources.contains(&"announcements".to_owned()) {
                assert_eq!(rule.verbs, ["get", "list", "watch"]);
            }
        }
    }
}
