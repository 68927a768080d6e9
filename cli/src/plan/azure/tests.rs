//! What a person and a script read, word for word: `src/golden/azure/NAME.txt` for each case.

use serde_json::Value;

use crate::plan::golden;

fn said(words: &str) -> Result<(String, Value, bool), String> {
    golden::said("azure", words)
}

/// Name, words, and whether somebody would lose something.
const CASES: &[(&str, &str, bool)] = &[
    ("without-a-cloud", "--offline -f service.yaml --provider azure --azure-public-namespaces shop", false),
    ("not-admitted", "--offline -f service.yaml --provider azure --azure-config azure.json", false),
    (
        "against-a-snapshot",
        "--offline -f service.yaml,kube-system.yaml --provider azure --azure-cluster-name prod --azure-config azure.json --azure-public-namespaces * --observed network.json",
        false,
    ),
    (
        "shared-with-others",
        "--offline -f service.yaml,kube-system.yaml --provider azure --azure-cluster-name kubernetes --azure-public-namespaces * --observed network.json",
        false,
    ),
    (
        "as-it-is",
        "--offline -f live.yaml,kube-system.yaml --provider azure --azure-cluster-name prod --azure-config azure.json --observed network.json --observed made.json",
        false,
    ),
    (
        "edited",
        "--offline -f live.yaml,kube-system.yaml,edited.yaml --provider azure --azure-config azure.json --observed network.json,made.json",
        false,
    ),
    (
        "made-public",
        "--offline -f live.yaml,kube-system.yaml,public.yaml --provider azure --azure-config azure.json --azure-public-namespaces * --observed network.json,made.json",
        true,
    ),
    (
        "moved",
        "--offline -f live.yaml,kube-system.yaml,moved.yaml --provider azure --azure-config azure.json --observed network.json,made.json",
        true,
    ),
    (
        "no-subnet",
        "--offline -f live.yaml,kube-system.yaml,no-subnet.yaml --provider azure --azure-config azure.json --azure-reference-namespaces shop --observed network.json,made.json",
        false,
    ),
    (
        "deleted",
        "--offline -f live.yaml,kube-system.yaml --provider azure --azure-config azure.json --observed network.json,made.json --delete service/shop/web",
        true,
    ),
    ("not-looked-at", "--offline -f live.yaml --provider azure", false),
    ("class-by-mapping", "--offline -f mapped.yaml --providers azure --class example.com/azure=azure", false),
    ("switched-off", "--offline -f service.yaml,mapped.yaml", false),
];

#[test]
fn plans_for_azure_are_said_word_for_word() {
    golden::check("azure", CASES);
}

#[test]
fn json_has_the_documents_that_are_written_under_the_names_that_arm_has_for_them() {
    let (_, report, _) = said(CASES[3].1).unwrap();
    golden::check_file("azure", "shared-with-others.json", &format!("{report:#}\n"));
    let steps = report["loadBalancers"][0]["steps"].as_array().unwrap();
    let written = |kind: &str| {
        let is = |step: &&Value| {
            step["request"]["type"] == format!("Microsoft.Network/{kind}") && step["request"]["method"] == "PUT"
        };
        steps.iter().rfind(is).unwrap()
    };
    let balancer = written("loadBalancers");
    let body = &balancer["request"]["body"]["properties"];
    assert_eq!(written("publicIPAddresses")["request"]["body"]["properties"]["publicIPAllocationMethod"], "Static");
    assert!(written("publicIPAddresses")["round"].as_u64() < balancer["round"].as_u64());
    // The whole document: what is not ours is in it, and is no difference.
    let names: Vec<_> =
        body["frontendIPConfigurations"].as_array().unwrap().iter().map(|f| f["name"].as_str().unwrap()).collect();
    assert_eq!(names.len(), 2);
    assert_eq!(names[0], "outbound");
    let differences = balancer["differences"].as_array().unwrap();
    assert!(differences.iter().all(|d| d["name"] != "outbound"), "{differences:?}");
    let group = &written("networkSecurityGroups")["request"];
    assert_eq!(group["ifMatch"], "W/\"n1\"");
    assert_eq!(group["body"]["properties"]["securityRules"][0]["name"], "ssh");
    let schema = crate::plan_schema();
    assert!(schema.to_string().contains("differences"));
}

#[test]
fn what_cannot_be_planned_is_said_with_what_to_do() {
    for (words, says) in [
        ("--offline -f service.yaml --provider azure --observed service.yaml", "service.yaml is no JSON"),
        (
            "--offline -f service.yaml --provider azure --observed azure.json",
            "azure.json holds something that is no resource",
        ),
        ("--offline -f service.yaml --provider azure --observed none.json", "none.json cannot be read: No such file"),
        (
            "--offline -f service.yaml --provider azure --azure-config none.json",
            "none.json cannot be read: No such file",
        ),
        (
            "--offline -f service.yaml --provider azure --azure-config service.yaml",
            "service.yaml: azure.json cannot be read",
        ),
        ("--offline -f service.yaml --provider azure --azure-config network.json", "azure.json cannot be read"),
        ("--offline -f service.yaml --providers aws,azure", "has both aws and azure"),
        ("--offline -f service.yaml --default-provider azure", "invalid value 'azure'"),
    ] {
        let error = said(words).unwrap_err();
        assert!(error.contains(says), "{words}: {error}");
    }
}
