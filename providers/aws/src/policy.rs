//! The IAM policy that the controller's role needs, made from the table of calls: what is tagged as ours and nothing else is changed.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use crate::action::{Action, Grant, Kind};
use crate::tags::CLUSTER;

/// Rights that AWS asks of whoever makes or changes a load balancer, although no call of ours is named so: Elastic Load Balancing looks at
/// the network on the caller's behalf.
const ON_OUR_BEHALF: [&str; 4] = [
    "ec2:DescribeAccountAttributes",
    "ec2:DescribeAddresses",
    "ec2:DescribeInternetGateways",
    "ec2:GetSecurityGroupsForVpc",
];
/// The service whose role AWS makes with an account's first load balancer.
const SERVICE: &str = "elasticloadbalancing.amazonaws.com";

impl Kind {
    fn arn(self) -> &'static str {
        match self {
            Self::LoadBalancer => "arn:aws:elasticloadbalancing:*:*:loadbalancer/net/*/*",
            Self::TargetGroup => "arn:aws:elasticloadbalancing:*:*:targetgroup/*/*",
            Self::Listener => "arn:aws:elasticloadbalancing:*:*:listener/net/*/*/*",
            Self::SecurityGroup => "arn:aws:ec2:*:*:security-group/*",
        }
    }

    /// What is said to be made on: a listener is made on its load balancer.
    fn made_on(self) -> &'static str {
        if self == Self::Listener { Self::LoadBalancer.arn() } else { self.arn() }
    }
}

/// The tag is there, on what is asked for or on what it is asked of.
fn has(of: &str) -> Value {
    json!({ "Null": { format!("aws:{of}Tag/{CLUSTER}"): "false" } })
}

fn statement(
    sid: &str,
    actions: impl IntoIterator<Item = &'static str>,
    on: &[&str],
    condition: Option<Value>,
) -> Value {
    let actions: BTreeSet<_> = actions.into_iter().collect();
    let mut of = Map::new();
    of.insert("Sid".to_owned(), sid.into());
    of.insert("Effect".to_owned(), "Allow".into());
    of.insert("Action".to_owned(), json!(actions));
    of.insert("Resource".to_owned(), if let [only] = on { json!(only) } else { json!(on) });
    if let Some(condition) = condition {
        of.insert("Condition".to_owned(), condition);
    }
    of.into()
}

/// The policy, as IAM takes it.
pub fn policy() -> Value {
    let mut by_grant: BTreeMap<Grant, Vec<&'static str>> = BTreeMap::new();
    for action in Action::ALL {
        by_grant.entry(action.grant()).or_default().push(action.as_str());
    }
    let mut statements = Vec::new();
    for (grant, actions) in by_grant {
        match grant {
            Grant::Look => statements.push(statement("Look", actions.into_iter().chain(ON_OUR_BEHALF), &["*"], None)),
            Grant::Make(kind) => {
                let mut condition = has("Request");
                if kind == Kind::Listener {
                    // On a load balancer that is ours.
                    condition["Null"][format!("aws:ResourceTag/{CLUSTER}")] = "false".into();
                }
                statements.push(statement(&format!("Make{kind:?}"), actions, &[kind.made_on()], Some(condition)));
            }
            Grant::Own(kind) => {
                statements.push(statement(&format!("Own{kind:?}"), actions, &[kind.arn()], Some(has("Resource"))));
            }
            Grant::Rules => {
                statements.push(statement("Rules", actions, &[Kind::SecurityGroup.arn()], None));
            }
            Grant::Tag => statements.extend(tagging(&actions)),
        }
    }
    // The VPC, which the group is made in, cannot be conditioned by the group's tags.
    let make = [Action::CreateSecurityGroup.as_str()];
    statements.push(statement("MakeSecurityGroupInVpc", make, &["arn:aws:ec2:*:*:vpc/*"], None));
    let role = json!({ "StringEquals": { "iam:AWSServiceName": SERVICE } });
    statements.push(statement("FirstLoadBalancer", ["iam:CreateServiceLinkedRole"], &["*"], Some(role)));
    json!({ "Version": "2012-10-17", "Statement": statements })
}

/// Tagging while something is made, and other tags of what is ours. The tag that says that something is ours can be put on nothing that
/// exists; it can be taken off what is ours, which is how a Service is disowned.
fn tagging(actions: &[&'static str]) -> Vec<Value> {
    let elb = [Kind::LoadBalancer.arn(), Kind::TargetGroup.arn(), Kind::Listener.arn()];
    let group = [Kind::SecurityGroup.arn()];
    let mut statements = Vec::new();
    for (service, name, on) in [("ec2", "SecurityGroup", &group[..]), ("elasticloadbalancing", "LoadBalancing", &elb)] {
        let prefix = format!("{service}:");
        let own = actions.iter().copied().filter(|action| action.starts_with(&prefix));
        let (adding, removing): (Vec<_>, Vec<_>) = own.partition(|action| !is_removal(action));
        let makes = Action::ALL.iter().filter(|action| matches!(action.grant(), Grant::Make(_)));
        let makes = makes.filter(|action| action.as_str().starts_with(&prefix)).map(|action| action.call());
        let mut made = has("Request");
        made["StringEquals"] = json!({ format!("{service}:CreateAction"): makes.collect::<Vec<_>>() });
        let mut later = has("Resource");
        later["Null"][format!("aws:RequestTag/{CLUSTER}")] = "true".into();
        statements.push(statement(&format!("TagNew{name}"), adding.iter().copied(), on, Some(made)));
        statements.push(statement(&format!("Tag{name}"), adding, on, Some(later)));
        statements.push(statement(&format!("Untag{name}"), removing, on, Some(has("Resource"))));
    }
    statements
}

fn is_removal(action: &str) -> bool {
    action.ends_with(":DeleteTags") || action.ends_with(":RemoveTags")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statements() -> Vec<Value> {
        policy()["Statement"].as_array().unwrap().clone()
    }

    fn allowing(action: &str) -> Vec<Value> {
        let named = |of: &Value| of["Action"].as_array().unwrap().contains(&action.into());
        statements().into_iter().filter(named).collect()
    }

    #[test]
    fn every_call_is_allowed() {
        for action in Action::ALL {
            assert!(!allowing(action.as_str()).is_empty(), "{action:?}");
        }
    }

    #[test]
    fn what_changes_something_asks_for_our_tag_except_rules_and_the_vpc_of_a_group() {
        for action in Action::ALL.iter().filter(|action| !action.is_read()) {
            for of in allowing(action.as_str()) {
                let sid = of["Sid"].as_str().unwrap();
                assert_ne!(of["Resource"], "*", "{sid}");
                let asks = of["Condition"]["Null"]
                    .as_object()
                    .is_some_and(|null| null.iter().any(|(key, value)| key.ends_with(CLUSTER) && value == "false"));
                assert_eq!(asks, !["Rules", "MakeSecurityGroupInVpc"].contains(&sid), "{sid}: {of:#}");
            }
        }
    }

    #[test]
    fn a_listener_is_made_on_a_load_balancer_of_ours_alone() {
        for of in allowing("elasticloadbalancing:CreateListener") {
            let null = &of["Condition"]["Null"];
            for whose in ["Request", "Resource"] {
                assert_eq!(null[format!("aws:{whose}Tag/{CLUSTER}")], "false", "{of:#}");
            }
        }
    }

    #[test]
    fn nothing_that_exists_can_be_made_ours_by_a_tag() {
        for action in ["ec2:CreateTags", "elasticloadbalancing:AddTags"] {
            assert_eq!(allowing(action).len(), 2, "{action}");
            for of in allowing(action) {
                let only_new = of["Condition"]["StringEquals"]
                    .as_object()
                    .is_some_and(|equals| equals.keys().any(|key| key.ends_with(":CreateAction")));
                let never_ours = of["Condition"]["Null"][format!("aws:RequestTag/{CLUSTER}")] == "true";
                assert!(only_new != never_ours, "{action}: {of:#}");
            }
        }
        let made = json!(["CreateListener", "CreateLoadBalancer", "CreateTargetGroup"]);
        let add = allowing("elasticloadbalancing:AddTags");
        assert!(add.iter().any(|of| of["Condition"]["StringEquals"]["elasticloadbalancing:CreateAction"] == made));
    }

    #[test]
    fn statements_are_told_apart_and_as_iam_takes_them() {
        let all = statements();
        let sids: BTreeSet<_> = all.iter().map(|of| of["Sid"].as_str().unwrap().to_owned()).collect();
        assert_eq!(sids.len(), all.len());
        assert!(sids.iter().all(|sid| sid.bytes().all(|byte| byte.is_ascii_alphanumeric())), "{sids:?}");
        // The longest that IAM takes for a managed policy, without white space.
        assert!(policy().to_string().len() < 6144, "{}", policy().to_string().len());
    }
}
