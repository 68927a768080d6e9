//! What is said of cloud load balancers, before it is a table or JSON.

use std::collections::BTreeSet;

use berth_api::service::ServiceKey;
use berth_aws::outlook::Outlook;
use berth_aws::request::request;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::render::{self, Row};

/// What becomes of a load balancer and of all that belongs to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct PlannedLoadBalancer {
    /// Who makes it: `aws`.
    pub provider: String,
    /// What is planned together: `NAMESPACE/service/NAME`, or `NAMESPACE/group/NAME`.
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

/// A call of the cloud's API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct PlannedCall {
    /// The Services that it is for, as `NAMESPACE/NAME`.
    pub services: Vec<String>,
    /// Whether it interrupts traffic.
    pub disruptive: bool,
    /// What is asked: the call under `Action`, and its parameters under the names that the EC2 and ELBv2 APIs have for them. What has no
    /// identity yet is named by its name (`LoadBalancerName`, `TargetGroupName`, `GroupName`).
    #[schemars(with = "std::collections::BTreeMap<String, Value>")]
    pub request: Value,
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

impl PlannedLoadBalancer {
    /// What a planner says.
    pub fn of(outlook: &Outlook, without_node_ports: &BTreeSet<ServiceKey>) -> Result<Self, serde_json::Error> {
        let steps = outlook.steps.iter().map(|planned| {
            Ok(PlannedCall {
                services: planned.services.iter().map(|id| id.key.to_string()).collect(),
                disruptive: planned.disruptive,
                request: request(&planned.step)?,
            })
        });
        let why = if outlook.names_subnets { "the Service names it" } else { "it fits, and is the first of its zone" };
        let chosen = outlook.subnets.iter().flat_map(|choice| &choice.chosen).map(|subnet| PlannedSubnet {
            subnet_id: subnet.id.clone(),
            availability_zone: subnet.zone.clone(),
            chosen: true,
            reason: why.to_owned(),
        });
        let left_out = outlook.subnets.iter().flat_map(|choice| &choice.left_out);
        let left_out = left_out.map(|(id, reason)| PlannedSubnet {
            subnet_id: id.clone(),
            availability_zone: outlook.zones.get(id).cloned().unwrap_or_default(),
            chosen: false,
            reason: reason.to_string(),
        });
        Ok(Self {
            provider: "aws".to_owned(),
            shard: outlook.shard.clone(),
            services: outlook.services.iter().map(ToString::to_string).collect(),
            steps: steps.collect::<Result<_, serde_json::Error>>()?,
            replaced: outlook.replaced.clone(),
            subnets: chosen.chain(left_out).collect(),
            rows: render::rows(outlook, without_node_ports),
        })
    }
}
