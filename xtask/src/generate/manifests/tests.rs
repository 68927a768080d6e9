use std::collections::BTreeSet;

use clap::Parser as _;
use k8s_openapi::api::admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::{Container, PodSpec};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::*;

fn documents(path: &str) -> Vec<Value> {
    let files = super::super::all().unwrap();
    let file = files.iter().find(|file| file.path.to_str() == Some(path)).unwrap();
    serde_saphyr::from_multiple(&file.content).unwrap()
}

/// The object, if the type knows each of its fields.
fn typed<T: Serialize + DeserializeOwned>(document: &Value) -> T {
    let object: T = serde_json::from_value(document.clone()).unwrap();
    assert_eq!(serde_json::to_value(&object).unwrap(), *document, "fields that the type does not know");
    object
}

fn pods() -> [(PodSpec, Command); 2] {
    let deployment: Deployment = typed(&documents("deploy/controller.yaml")[0]);
    let daemon_set: DaemonSet = typed(&documents("deploy/speaker.yaml")[0]);
    [
        (deployment.spec.unwrap().template.spec.unwrap(), berth_controller::command()),
        (daemon_set.spec.unwrap().template.spec.unwrap(), berth_speaker::command()),
    ]
}

fn only_container(pod: PodSpec) -> Container {
    let [container] = <[Container; 1]>::try_from(pod.containers).unwrap();
    container
}

#[test]
fn every_field_of_the_manifests_is_one_that_kubernetes_knows() {
    for (path, _) in POLICIES {
        let [policy, binding] = &documents(path)[..] else { panic!("{path}: a policy and its binding") };
        let policy: ValidatingAdmissionPolicy = typed(policy);
        let binding: ValidatingAdmissionPolicyBinding = typed(binding);
        let bound = binding.spec.unwrap();
        assert_eq!(bound.policy_name, policy.metadata.name, "{path}");
        assert_eq!(bound.validation_actions.unwrap(), ["Deny"], "{path}");
        assert_eq!(policy.spec.unwrap().failure_policy.unwrap(), "Fail", "{path}");
    }
    for policy in documents("deploy/network-policies.yaml") {
        typed::<NetworkPolicy>(&policy);
    }
    typed::<PodDisruptionBudget>(&documents("deploy/controller.yaml")[1]);
}

#[test]
fn the_processes_take_the_arguments_that_they_are_started_with() {
    let [controller, speaker] = pods().map(|(pod, _)| only_container(pod));
    let line = |container: Container| [container.command.unwrap(), container.args.unwrap_or_default()].concat();
    let args = berth_controller::Args::try_parse_from(line(controller)).unwrap();
    assert_eq!(args.default_provider, berth_controller::DefaultProvider::Pool);
    let mut line = line(speaker);
    // The one that the environment gives.
    line.push("--node-name=node-1".to_owned());
    berth_speaker::args::Args::try_parse_from(line).unwrap();
}

#[test]
fn a_flag_given_by_the_environment_is_one_that_the_process_has() {
    let [_, (speaker, command)] = pods();
    for variable in only_container(speaker).env.unwrap() {
        let known = command.get_arguments().any(|a| a.get_env().is_some_and(|env| *env == *variable.name));
        assert!(known, "{}", variable.name);
    }
}

#[test]
fn probes_ask_the_port_that_the_process_serves() {
    for (pod, command) in pods() {
        let container = only_container(pod);
        let port = container.ports.as_ref().unwrap().iter().find(|port| port.name.as_deref() == Some("http")).unwrap();
        assert_eq!(port.container_port, i32::from(http_port(&command).unwrap()));
        for probe in [container.liveness_probe, container.readiness_probe] {
            let port = serde_json::to_value(probe.unwrap().http_get.unwrap().port).unwrap();
            assert_eq!(port, "http");
        }
    }
}

#[test]
fn a_selector_finds_the_pods_of_its_workload_and_no_other() {
    let [controller, speaker] =
        ["deploy/controller.yaml", "deploy/speaker.yaml"].map(|path| documents(path)[0].clone());
    let labels = |workload: &Value| workload["spec"]["template"]["metadata"]["labels"].as_object().unwrap().clone();
    let matches = |selector: &Value, pod: &Value| {
        let pod = labels(pod);
        selector["matchLabels"].as_object().unwrap().iter().all(|(key, value)| pod.get(key) == Some(value))
    };
    for (workload, other) in [(&controller, &speaker), (&speaker, &controller)] {
        let selector = &workload["spec"]["selector"];
        assert!(matches(selector, workload) && !matches(selector, other));
    }
    let budget = &documents("deploy/controller.yaml")[1]["spec"]["selector"];
    let policy = &documents("deploy/network-policies.yaml")[1]["spec"]["podSelector"];
    let spread = controller["spec"]["template"]["spec"]["topologySpreadConstraints"].as_array().unwrap();
    let affinity = &controller["spec"]["template"]["spec"]["affinity"]["podAntiAffinity"];
    let apart = &affinity["preferredDuringSchedulingIgnoredDuringExecution"][0]["podAffinityTerm"]["labelSelector"];
    for selector in spread.iter().map(|constraint| &constraint["labelSelector"]).chain([budget, policy, apart]) {
        assert!(matches(selector, &controller) && !matches(selector, &speaker), "{selector}");
    }
}

#[test]
fn the_installation_is_everything_and_in_an_order_that_an_api_server_takes() {
    let installed = documents(INSTALL);
    let identity = |object: &Value| {
        let metadata = &object["metadata"];
        (object["kind"].to_string(), metadata["namespace"].to_string(), metadata["name"].to_string())
    };
    let listed: Vec<String> = documents(KUSTOMIZATION)[0]["resources"]
        .as_array()
        .unwrap()
        .iter()
        .map(|path| format!("deploy/{}", path.as_str().unwrap()))
        .collect();
    let each: Vec<Value> = listed.iter().flat_map(|path| documents(path)).collect();
    assert_eq!(each, installed);
    let files = super::super::all().unwrap();
    let manifests = files.iter().filter(|f| f.path.starts_with("deploy")).map(|f| f.path.display().to_string());
    let rest: Vec<_> = manifests.filter(|path| !listed.contains(path)).collect();
    assert_eq!(
        rest,
        [KUSTOMIZATION, INSTALL, AWS, AWS_GATES, AZURE, ROUTES, "deploy/aws/iam-policy.json", "deploy/azure/role.json"]
    );
    let distinct: BTreeSet<_> = installed.iter().map(identity).collect();
    assert_eq!(distinct.len(), installed.len());

    let rank = |object: &Value| match object["kind"].as_str().unwrap() {
        "Namespace" => 0,
        "CustomResourceDefinition" => 1,
        "ServiceAccount" | "ClusterRole" | "ClusterRoleBinding" | "Role" | "RoleBinding" => 2,
        "ValidatingAdmissionPolicy" | "ValidatingAdmissionPolicyBinding" => 3,
        "NetworkPolicy" => 4,
        "Deployment" | "DaemonSet" | "PodDisruptionBudget" => 5,
        kind => panic!("{kind}"),
    };
    assert!(installed.is_sorted_by_key(rank));
}

#[test]
fn the_component_of_routes_changes_what_it_names_and_nothing_else_adds_its_capability() {
    let component = &documents(ROUTES)[0];
    let patches: Vec<_> = component["patches"].as_array().unwrap().iter().collect();
    let targets: Vec<_> = patches.iter().map(|patch| patch["target"]["kind"].as_str().unwrap()).collect();
    assert_eq!(targets, ["DaemonSet", "ValidatingAdmissionPolicy"]);
    let policy = &documents("deploy/admission/speaker-pods.yaml")[0];
    assert_eq!(policy["spec"]["variables"][0]["name"], "capabilities", "which the component replaces by its place");
    let container = &documents("deploy/speaker.yaml")[0]["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["securityContext"]["capabilities"]["add"], serde_json::json!(["NET_RAW"]));
    assert!(container.get("args").is_none(), "the component adds all of them");
}

#[test]
fn the_components_of_clouds_change_what_is_there_and_their_instructions_name_what_is_there() {
    let common = ["Deployment", "NetworkPolicy", "ClusterRole"];
    for (path, more) in [(AWS, &["Role"][..]), (AZURE, &[])] {
        let component = &documents(path)[0];
        let targets: Vec<_> =
            component["patches"].as_array().unwrap().iter().map(|patch| &patch["target"]["kind"]).collect();
        assert_eq!(targets, [&common[..], more].concat(), "{path}");
    }
    let pod = &documents("deploy/controller.yaml")[0]["spec"]["template"]["spec"];
    assert!(pod.get("volumes").is_none(), "the component for Azure adds all of them");
    assert!(pod["containers"][0].get("volumeMounts").is_none(), "and all mounts");
    let container = &documents("deploy/controller.yaml")[0]["spec"]["template"]["spec"]["containers"][0];
    assert!(container["args"].is_array(), "the component replaces all of them");
    let account =
        documents("deploy/rbac/controller.yaml").into_iter().find(|of| of["kind"] == "ServiceAccount").unwrap();
    assert!(account["metadata"].get("annotations").is_none(), "the instructions add all of them");
}

#[test]
fn the_documentation_names_the_numbers_that_the_policies_hold() {
    let page = std::fs::read_to_string(crate::workspace::root().join("docs/deploy.md")).unwrap();
    for number in ["epoch-slack", "http-port", "heartbeat-port"] {
        let number = values().unwrap()[number].clone();
        assert!(page.contains(&number), "{number}");
    }
}

#[test]
fn the_components_for_clouds_add_the_rights_that_they_take_and_no_others() {
    use berth_controller::rbac;
    for (path, kind, rules) in [
        (AWS, "ClusterRole", rbac::cloud_rules()),
        (AWS, "Role", rbac::orphan_rules()),
        (AWS_GATES, "ClusterRole", rbac::gate_rules()),
        (AZURE, "ClusterRole", rbac::cloud_rules()),
    ] {
        let operations = patch(path, kind);
        assert!(operations.iter().all(|of| of["op"] == "add" && of["path"] == "/rules/-"), "{operations:?}");
        let added: Vec<Value> = operations.into_iter().map(|of| of["value"].clone()).collect();
        let expected: Vec<_> = rules.iter().map(|rule| serde_json::to_value(rule).unwrap()).collect();
        assert_eq!(added, expected, "{path}");
    }
}

/// The operations of the only patch of a kind, which is of the controller.
fn patch(path: &str, kind: &str) -> Vec<Value> {
    let component = &documents(path)[0];
    let patches = component["patches"].as_array().unwrap();
    let of_kind: Vec<_> = patches.iter().filter(|patch| patch["target"]["kind"] == kind).collect();
    let [of_kind] = of_kind[..] else { panic!("{path}: one patch of the {kind}") };
    assert_eq!(of_kind["target"]["name"], "berth-controller", "{path}");
    serde_saphyr::from_str(of_kind["patch"].as_str().unwrap()).unwrap()
}

#[test]
fn the_controller_takes_the_arguments_that_components_start_it_with_and_finds_its_file_where_it_is_mounted() {
    for (path, name) in [(AWS, "--aws-cluster-name=prod"), (AZURE, "--azure-cluster-name=prod")] {
        let operations = patch(path, "Deployment");
        let words = operations[0]["value"].as_array().unwrap().iter().map(|word| word.as_str().unwrap());
        let args = berth_controller::Args::try_parse_from(["berth-controller", name].into_iter().chain(words)).unwrap();
        args.served_classes().unwrap();
        if path == AZURE {
            let mount = &operations[1]["value"][0];
            assert_eq!(args.azure.config_file().parent().unwrap().to_str(), mount["mountPath"].as_str());
            assert_eq!(args.azure.config_file().file_name().unwrap(), AZURE_CONFIG);
            assert_eq!(mount["name"], operations[2]["value"][0]["name"]);
            assert_eq!(args.default_provider, berth_controller::DefaultProvider::None);
        }
    }
}
