//! `deploy/rbac/*.yaml`: who Berth's processes are in the cluster, and what they may do.

use berth_api::names::{CONTROLLER_NAME, CONTROLLER_NAMESPACE, SPEAKER_NAME, SPEAKER_NAMESPACE};
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject};
use kube::api::ObjectMeta;

use super::{Generated, yaml};

const RBAC_GROUP: &str = "rbac.authorization.k8s.io";

/// The two namespaces.
pub fn namespaces() -> anyhow::Result<Vec<Generated>> {
    let controller = "# The controller needs nothing that Pod Security \"restricted\" does not give.\n";
    let speaker = format!(
        "# The speakers need the network of their nodes, which only the level \"privileged\" admits. What they do not need of it,\n\
         # the policy {SPEAKER_NAME}-pods takes away again. A namespace of their own, so that the controller keeps its level.\n"
    );
    let documents = [
        controller.to_owned() + &yaml::document(&namespace(CONTROLLER_NAMESPACE, "restricted"))?,
        speaker + &yaml::document(&namespace(SPEAKER_NAMESPACE, "privileged"))?,
    ];
    Ok(vec![Generated::new("deploy/rbac/namespaces.yaml", yaml::file(&documents))])
}

/// One file for each process.
pub fn files() -> anyhow::Result<Vec<Generated>> {
    let controller = Process {
        name: CONTROLLER_NAME,
        namespace: CONTROLLER_NAMESPACE,
        rules: berth_controller::rbac::rules(),
        namespaced_rules: vec![
            (CONTROLLER_NAMESPACE, berth_controller::rbac::leader_rules()),
            (SPEAKER_NAMESPACE, berth_controller::rbac::heartbeat_key_rules()),
        ],
    };
    let speaker = Process {
        name: SPEAKER_NAME,
        namespace: SPEAKER_NAMESPACE,
        rules: berth_speaker::rbac::rules(),
        namespaced_rules: vec![(berth_speaker::rbac::EVENT_NAMESPACE, berth_speaker::rbac::event_rules())],
    };
    Ok(vec![controller.file("controller")?, speaker.file("speaker")?])
}

struct Process {
    name: &'static str,
    namespace: &'static str,
    rules: Vec<PolicyRule>,
    /// What it may do in one namespace and nowhere else.
    namespaced_rules: Vec<(&'static str, Vec<PolicyRule>)>,
}

impl Process {
    fn file(self, part: &str) -> anyhow::Result<Generated> {
        let Self { name, namespace, rules, namespaced_rules } = self;
        let local = |namespace: &str| ObjectMeta { namespace: Some(namespace.to_owned()), ..named(name) };
        let subjects = Some(vec![Subject {
            kind: "ServiceAccount".to_owned(),
            name: name.to_owned(),
            namespace: Some(namespace.to_owned()),
            api_group: None,
        }]);
        let role_ref =
            |kind: &str| RoleRef { api_group: RBAC_GROUP.to_owned(), kind: kind.to_owned(), name: name.to_owned() };
        let account = ServiceAccount {
            metadata: local(namespace),
            // Each pod template says for itself that it wants a token.
            automount_service_account_token: Some(false),
            ..ServiceAccount::default()
        };
        let role = ClusterRole { metadata: named(name), rules: Some(rules), aggregation_rule: None };
        let binding =
            ClusterRoleBinding { metadata: named(name), role_ref: role_ref("ClusterRole"), subjects: subjects.clone() };
        let mut documents = vec![yaml::document(&account)?, yaml::document(&role)?, yaml::document(&binding)?];
        for (namespace, rules) in namespaced_rules {
            let role = Role { metadata: local(namespace), rules: Some(rules) };
            let binding =
                RoleBinding { metadata: local(namespace), role_ref: role_ref("Role"), subjects: subjects.clone() };
            documents.extend([yaml::document(&role)?, yaml::document(&binding)?]);
        }
        Ok(Generated::new(format!("deploy/rbac/{part}.yaml"), yaml::file(&documents)))
    }
}

fn namespace(name: &str, level: &str) -> Namespace {
    let mut metadata = named(name);
    let enforce = ("pod-security.kubernetes.io/enforce".to_owned(), level.to_owned());
    metadata.labels.get_or_insert_default().extend([enforce]);
    Namespace { metadata, ..Namespace::default() }
}

fn named(name: &str) -> ObjectMeta {
    let labels = [("app.kubernetes.io/name", "berth"), ("app.kubernetes.io/part-of", "berth")]
        .map(|(k, v)| (k.to_owned(), v.to_owned()));
    ObjectMeta { name: Some(name.to_owned()), labels: Some(labels.into()), ..ObjectMeta::default() }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use berth_api::heartbeat_keys::SECRET;
    use berth_api::names::LEADER_LEASE;

    use super::*;
    use crate::workspace;

    #[test]
    fn nobody_may_do_everything() {
        for rules in [
            berth_controller::rbac::rules(),
            berth_controller::rbac::leader_rules(),
            berth_controller::rbac::heartbeat_key_rules(),
            berth_speaker::rbac::rules(),
            berth_speaker::rbac::event_rules(),
        ] {
            for rule in rules {
                let words = [Some(rule.verbs), rule.resources, rule.api_groups].into_iter().flatten().flatten();
                assert!(!words.into_iter().any(|word| word == "*"));
            }
        }
    }

    #[test]
    fn each_binding_gives_a_process_its_own_role_and_no_other() {
        for file in files().unwrap() {
            let documents: Vec<&str> = file.content.split("---\n").collect();
            let account: ServiceAccount = serde_saphyr::from_str(documents[0]).unwrap();
            for pair in documents[1..].chunks(2) {
                let [role, binding] = pair else { panic!("{} documents", documents.len()) };
                // The two kinds of roles differ in nothing that counts here.
                let role: ClusterRole = from_yaml(role);
                let binding: ClusterRoleBinding = from_yaml(binding);
                assert_eq!(Some(&binding.role_ref.name), role.metadata.name.as_ref());
                assert_eq!(binding.metadata.namespace, role.metadata.namespace);
                let subjects = binding.subjects.unwrap();
                assert_eq!(subjects.len(), 1);
                assert_eq!(Some(&subjects[0].name), account.metadata.name.as_ref());
                assert_eq!(subjects[0].namespace, account.metadata.namespace);
            }
        }
    }

    fn from_yaml<T: serde::de::DeserializeOwned>(text: &str) -> T {
        let mut value: serde_json::Value = serde_saphyr::from_str(text).unwrap();
        let kind = value["kind"].as_str().unwrap().to_owned();
        if !kind.starts_with("Cluster") {
            value["kind"] = format!("Cluster{kind}").into();
        }
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn the_documentation_says_what_each_right_is_for() {
        let page = fs::read_to_string(workspace::root().join("docs/deploy.md")).unwrap();
        for (name, rules) in [
            (
                CONTROLLER_NAME,
                [
                    berth_controller::rbac::rules(),
                    berth_controller::rbac::leader_rules(),
                    berth_controller::rbac::heartbeat_key_rules(),
                ]
                .concat(),
            ),
            (SPEAKER_NAME, [berth_speaker::rbac::rules(), berth_speaker::rbac::event_rules()].concat()),
        ] {
            let (_, table) = page.split_once(&format!("### {name}\n")).unwrap();
            let table = table.split_once("\n#").map_or(table, |(table, _)| table);
            let rows: Vec<_> = table.lines().filter_map(|line| line.split('|').nth(1)).collect();
            for rule in rules {
                for resource in rule.resources.unwrap() {
                    for verb in &rule.verbs {
                        let row = rows.iter().find(|row| row.contains(&format!("`{resource}`")) && row.contains(verb));
                        assert!(row.is_some(), "{name}: {verb} {resource}");
                    }
                }
            }
        }
    }

    #[test]
    fn in_a_namespace_the_controller_may_read_and_change_one_object_each() {
        for (rules, object) in [
            (berth_controller::rbac::leader_rules(), LEADER_LEASE),
            (berth_controller::rbac::heartbeat_key_rules(), SECRET),
        ] {
            for rule in rules {
                let named = rule.resource_names.is_some_and(|names| names == [object]);
                assert!(named || rule.verbs == ["create"], "{:?}", rule.verbs);
            }
        }
    }

    #[test]
    fn nobody_may_read_secrets_but_the_controller_one() {
        let everywhere = [berth_controller::rbac::rules(), berth_controller::rbac::leader_rules()].concat();
        for rule in [everywhere, berth_speaker::rbac::rules(), berth_speaker::rbac::event_rules()].concat() {
            let resources = rule.resources.unwrap();
            assert!(!resources.iter().any(|resource| resource == "secrets"), "{resources:?}");
        }
    }
}
