//! `deploy/rbac/*.yaml`: who Berth's processes are in the cluster, and what they may do.

use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, RoleRef, Subject};
use kube::api::ObjectMeta;

use super::{Generated, yaml};

/// Where Berth's own objects live.
const NAMESPACE: &str = "berth-system";

/// The namespace once, and one file for each process.
pub fn files() -> anyhow::Result<Vec<Generated>> {
    let namespace = Namespace { metadata: named(NAMESPACE), ..Namespace::default() };
    Ok(vec![
        Generated::new("deploy/rbac/namespace.yaml", yaml::file(&[yaml::document(&namespace)?])),
        process("controller", berth_controller::rbac::rules())?,
        process("speaker", berth_speaker::rbac::rules())?,
    ])
}

fn process(part: &str, rules: Vec<PolicyRule>) -> anyhow::Result<Generated> {
    let name = format!("berth-{part}");
    let account = ServiceAccount {
        metadata: ObjectMeta { namespace: Some(NAMESPACE.to_owned()), ..named(&name) },
        ..ServiceAccount::default()
    };
    let role = ClusterRole { metadata: named(&name), rules: Some(rules), aggregation_rule: None };
    let binding = ClusterRoleBinding {
        metadata: named(&name),
        role_ref: RoleRef {
            api_group: "rbac.authorization.k8s.io".to_owned(),
            kind: "ClusterRole".to_owned(),
            name: name.clone(),
        },
        subjects: Some(vec![Subject {
            kind: "ServiceAccount".to_owned(),
            name: name.clone(),
            namespace: Some(NAMESPACE.to_owned()),
            api_group: None,
        }]),
    };
    let documents = [yaml::document(&account)?, yaml::document(&role)?, yaml::document(&binding)?];
    Ok(Generated::new(format!("deploy/rbac/{part}.yaml"), yaml::file(&documents)))
}

fn named(name: &str) -> ObjectMeta {
    let labels = [("app.kubernetes.io/part-of".to_owned(), "berth".to_owned())];
    ObjectMeta { name: Some(name.to_owned()), labels: Some(labels.into()), ..ObjectMeta::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_may_do_everything() {
        for rules in [berth_controller::rbac::rules(), berth_speaker::rbac::rules()] {
            for rule in rules {
                let words = [Some(rule.verbs), rule.resources, rule.api_groups].into_iter().flatten().flatten();
                assert!(!words.into_iter().any(|word| word == "*"));
            }
        }
    }

    #[test]
    fn each_binding_gives_a_process_its_own_role_and_no_other() {
        for file in files().unwrap().iter().skip(1) {
            let documents: Vec<&str> = file.content.split("---\n").collect();
            let [account, role, binding] = documents[..] else { panic!("{} documents", documents.len()) };
            let account: ServiceAccount = serde_saphyr::from_str(account).unwrap();
            let role: ClusterRole = serde_saphyr::from_str(role).unwrap();
            let binding: ClusterRoleBinding = serde_saphyr::from_str(binding).unwrap();
            assert_eq!(Some(&binding.role_ref.name), role.metadata.name.as_ref());
            let subjects = binding.subjects.unwrap();
            assert_eq!(subjects.len(), 1);
            assert_eq!(Some(&subjects[0].name), account.metadata.name.as_ref());
            assert_eq!(subjects[0].namespace, account.metadata.namespace);
        }
    }
}
