//! What `kubectl berth plan` says, before it is a table or JSON.
//!
//! The field names are what `-o json` and `-o yaml` promise; the schema of them is generated into the reference.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema, schema_for};
use serde::{Serialize, Serializer};
use serde_json::Value;

use super::cloud::Row;

/// The largest number up to which all whole numbers are numbers of JSON for everybody (RFC 8259 section 6).
const LARGEST: u128 = 1 << 53;

/// What becomes of every Service, and what each pool has left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(title = "kubectl berth plan -o json")]
pub struct PlanReport {
    /// Every Service, by namespace and name; also those that are to be deleted.
    pub services: Vec<PlannedService>,
    /// Every pool, by name.
    pub pools: Vec<PlannedPool>,
    /// What is done in a cloud, by what is planned together there.
    #[serde(rename = "loadBalancers")]
    pub load_balancers: Vec<PlannedLoadBalancer>,
}

/// What becomes of a Service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct PlannedService {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Who serves it: `pool`, `mock`, `aws` or `azure`; null when nobody here does.
    pub provider: Option<String>,
    /// The IPAddressPool of its addresses, or of those that it loses; several are separated by commas, none is null.
    pub pool: Option<String>,
    /// Where its status says now that it is reached: addresses, or host names.
    pub before: Vec<String>,
    /// Where its status will say that it is reached, as far as that is known: a cloud gives a new load balancer its name.
    pub after: Vec<String>,
    /// What that means.
    pub change: ChangeWord,
    /// Why, as a stable code: one of the reasons or findings of the reference.
    pub reason: String,
    /// Why, for a person.
    pub message: String,
}

/// What becomes of where a Service is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ChangeWord {
    /// It stays as it is; where the reason is a refusal, what was asked for is not given.
    Keep,
    /// An address, or a name, comes, and none goes.
    Gain,
    /// Of a family there is no address any more, or no node answers any more for one that a node answers for now.
    Lose,
    /// An address, or a name, is replaced by another.
    Move,
    /// There is none, and there comes none: refused, or not to be said.
    Pending,
    /// Nobody here serves the Service, and nobody did.
    Ignore,
}

impl ChangeWord {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Keep => "keep",
            Self::Gain => "gain",
            Self::Lose => "lose",
            Self::Move => "move",
            Self::Pending => "pending",
            Self::Ignore => "ignore",
        }
    }
}

/// What becomes of a pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct PlannedPool {
    /// Its name.
    pub name: String,
    /// The addresses that its specification names, of both families; 2^128 - 1 also stands for more.
    pub total: Count,
    /// Those that Services will hold from it.
    pub used: Count,
    /// Those that it can still give, which `-o json` leaves out.
    #[serde(skip)]
    pub free: Count,
    /// What is wrong with it: each a reason code, a colon and a message.
    pub problems: Vec<String>,
}

/// A count of addresses: a number, and above 2^53 a string of digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Count(pub u128);

impl std::fmt::Display for Count {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for Count {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match u64::try_from(self.0) {
            Ok(number) if self.0 <= LARGEST => serializer.serialize_u64(number),
            _ => serializer.collect_str(&self.0),
        }
    }
}

impl JsonSchema for Count {
    fn schema_name() -> Cow<'static, str> {
        "Count".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A count of addresses: a number, and above 2^53 a string of digits.",
            "oneOf": [
                {"type": "integer", "minimum": 0, "maximum": 9_007_199_254_740_992_u64},
                {"type": "string", "pattern": "^[1-9][0-9]{15,38}$"},
            ],
        })
    }
}

/// What becomes of a load balancer and of all that belongs to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct PlannedLoadBalancer {
    /// Who makes it: `aws` or `azure`.
    pub provider: String,
    /// What is planned together: in AWS `NAMESPACE/service/NAME` or `NAMESPACE/group/NAME`, in Azure everything.
    pub shard: String,
    /// The Services that it is for, as `NAMESPACE/NAME`.
    pub services: Vec<String>,
    /// What is done, in this order. Nothing, where all is as it should be.
    pub steps: Vec<PlannedCall>,
    /// Names of load balancers whose places others take, and which are deleted once no Service's status names them.
    pub replaced: Vec<String>,
    /// The subnets, chosen or left out; empty where none is chosen anew, or where none was looked at.
    pub subnets: Vec<PlannedSubnet>,
    /// The steps as people read them, which `-o json` leaves out.
    #[serde(skip)]
    pub rows: Vec<Row>,
}

/// A call of the cloud's API, or a document that is written or deleted there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct PlannedCall {
    /// The Services that it is for, as `NAMESPACE/NAME`.
    pub services: Vec<String>,
    /// Whether it interrupts traffic.
    pub disruptive: bool,
    /// When, in Azure: what is of one round is done one after the other; then it is looked again, at what Azure has given and with what has
    /// been published, and the next round is planned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub round: Option<usize>,
    /// What of a document changes, part by part, in Azure.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub differences: Vec<PlannedDifference>,
    /// What is asked. In AWS the call under `Action`, and its parameters under the names that the EC2 and ELBv2 APIs have for them; what has
    /// no identity yet is named by its name (`LoadBalancerName`, `TargetGroupName`, `GroupName`). In Azure `method`, `type` and `id`, and for
    /// a PUT the ETag of what is there (`ifMatch`) and the whole document (`body`), under ARM's names.
    #[schemars(with = "std::collections::BTreeMap<String, Value>")]
    pub request: Value,
}

/// What becomes of a resource in Azure, or of a part of one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct PlannedDifference {
    /// `create`, `change` or `delete`.
    pub change: String,
    /// Of which kind it is, as ARM calls it: `loadBalancers`, `loadBalancingRules`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// What it is, or what of it changes.
    pub detail: String,
}

/// A subnet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlannedSubnet {
    /// Its identity.
    pub subnet_id: String,
    /// Its availability zone.
    pub availability_zone: String,
    /// Whether the load balancer is put into it.
    pub chosen: bool,
    /// Why.
    pub reason: String,
}

impl PlanReport {
    /// Whether somebody who uses an address now will not reach the Service by it any more, or not without an interruption.
    pub fn breaks(&self) -> bool {
        let mut calls = self.load_balancers.iter().flat_map(|planned| &planned.steps);
        calls.any(|call| call.disruptive)
            || self.services.iter().any(|service| matches!(service.change, ChangeWord::Lose | ChangeWord::Move))
    }
}

/// The JSON schema of the report.
pub fn schema() -> Value {
    schema_for!(PlanReport).to_value()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn service(change: ChangeWord) -> PlannedService {
        PlannedService {
            namespace: "shop".to_owned(),
            name: "web".to_owned(),
            provider: Some("pool".to_owned()),
            pool: None,
            before: vec!["192.0.2.1".to_owned()],
            after: Vec::new(),
            change,
            reason: "Released".to_owned(),
            message: "gone".to_owned(),
        }
    }

    #[test]
    fn the_report_has_stable_names_in_json() {
        let (total, used, free) = (Count(1 << 80), Count(3), Count(1));
        let pool = PlannedPool { name: "six".to_owned(), total, used, free, problems: vec!["Overlap: a".to_owned()] };
        let report =
            PlanReport { services: vec![service(ChangeWord::Lose)], pools: vec![pool], load_balancers: Vec::new() };
        assert_eq!(
            serde_json::to_value(report).unwrap(),
            json!({
                "services": [{
                    "namespace": "shop", "name": "web", "provider": "pool", "pool": null, "before": ["192.0.2.1"],
                    "after": [], "change": "lose", "reason": "Released", "message": "gone",
                }],
                "pools": [{"name": "six", "total": "1208925819614629174706176", "used": 3, "problems": ["Overlap: a"]}],
                "loadBalancers": [],
            })
        );
    }

    #[test]
    fn a_number_that_json_cannot_hold_is_a_string() {
        for (number, expected) in [
            (0, json!(0)),
            (254, json!(254)),
            (1 << 53, json!(9_007_199_254_740_992_u64)),
            ((1 << 53) + 1, json!("9007199254740993")),
            (u128::MAX, json!("340282366920938463463374607431768211455")),
        ] {
            assert_eq!(serde_json::to_value(Count(number)).unwrap(), expected);
        }
    }

    #[test]
    fn every_word_of_a_change_is_written_as_it_is_told_and_two_of_them_break_something() {
        use ChangeWord::{Gain, Ignore, Keep, Lose, Move, Pending};
        for (word, breaks) in
            [(Keep, false), (Gain, false), (Lose, true), (Move, true), (Pending, false), (Ignore, false)]
        {
            assert_eq!(serde_json::to_value(word).unwrap(), word.as_str());
            let report = PlanReport { services: vec![service(word)], pools: Vec::new(), load_balancers: Vec::new() };
            assert_eq!(report.breaks(), breaks, "{word:?}");
        }
    }

    #[test]
    fn the_schema_knows_every_field_and_word() {
        let schema = schema().to_string();
        for word in ["services", "pools", "before", "after", "problems", "ignore", "pending", "9007199254740992"] {
            assert!(schema.contains(word), "{word}");
        }
        assert!(!schema.contains("free"), "{schema}");
    }
}
