//! What a person and a script read, word for word: `src/golden/aws/NAME.txt` for each case. `BERTH_UPDATE_GOLDEN=1` writes the files
//! anew.

use crate::plan::golden;

fn said(words: &str) -> Result<(String, serde_json::Value, bool), String> {
    golden::said("aws", words)
}

/// Name, words, and whether somebody would lose something.
const CASES: &[(&str, &str, bool)] = &[
    ("without-a-cloud", "--offline -f service.yaml --provider aws --aws-internet-facing-namespaces shop", false),
    ("not-admitted", "--offline -f service.yaml --provider aws", false),
    (
        "against-a-snapshot",
        "--offline -f service.yaml,kube-system.yaml --provider aws --aws-cluster-name prod --aws-internet-facing-namespaces * --observed network.json",
        false,
    ),
    (
        "as-it-is",
        "--offline -f live.yaml,kube-system.yaml --provider aws --aws-cluster-name prod --observed network.json --observed made.json",
        false,
    ),
    (
        "edited",
        "--offline -f live.yaml,kube-system.yaml,edited.yaml --provider aws --observed network.json,made.json",
        false,
    ),
    (
        "replacement-refused",
        "--offline -f live.yaml,kube-system.yaml,public.yaml --provider aws --aws-internet-facing-namespaces * --observed network.json,made.json",
        false,
    ),
    (
        "replaced",
        "--offline -f live.yaml,kube-system.yaml,public-consents.yaml --provider aws --aws-internet-facing-namespaces * --observed network.json,made.json",
        true,
    ),
    (
        "deleted",
        "--offline -f live.yaml,kube-system.yaml --provider aws --observed network.json,made.json --delete service/shop/web",
        true,
    ),
    ("not-looked-at", "--offline -f live.yaml --provider aws", false),
    ("class-by-mapping", "--offline -f mapped.yaml --providers aws --class service.k8s.aws/nlb=aws", false),
    ("switched-off", "--offline -f service.yaml,mapped.yaml", false),
];

#[test]
fn plans_for_aws_are_said_word_for_word() {
    golden::check("aws", CASES);
}

#[test]
fn json_has_the_calls_under_the_names_that_the_apis_have_for_them() {
    let (_, report, _) = said(CASES[2].1).unwrap();
    golden::check_file("aws", "against-a-snapshot.json", &format!("{report:#}\n"));
    let actions: Vec<_> = report["loadBalancers"][0]["steps"].as_array().unwrap().iter().collect();
    let asked = |action: &str| &actions.iter().find(|step| step["request"]["Action"] == action).unwrap()["request"];
    assert_eq!(asked("CreateLoadBalancer")["SubnetMappings"][0]["SubnetId"], "subnet-public-a");
    assert_eq!(asked("AuthorizeSecurityGroupIngress")["IpPermissions"][0]["IpRanges"][0]["CidrIp"], "192.0.2.0/24");
    assert_eq!(asked("CreateTargetGroup")["Tags"][0]["Key"], "berth.dev/cluster");
}

#[test]
fn what_cannot_be_planned_is_said_with_what_to_do() {
    for (words, says) in [
        ("--offline -f service.yaml --provider aws --observed service.yaml", "service.yaml is no JSON"),
        ("--offline -f service.yaml --provider aws --observed none.json", "none.json cannot be read: No such file"),
        (
            "--offline -f service.yaml --provider aws --observed two-vpcs.json",
            "the snapshot is of several VPCs, vpc-1, vpc-2: give --aws-vpc-id",
        ),
        ("--offline -f service.yaml --provider aws --providers pool", "cannot be used with"),
        ("--offline -f service.yaml --provider gcp", "possible values: pool, mock, aws, azure"),
        ("--offline -f service.yaml --default-provider aws", "aws is not one of --providers"),
    ] {
        let error = said(words).unwrap_err();
        assert!(error.contains(says), "{words}: {error}");
    }
}
