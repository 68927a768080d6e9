//! What is said of a load balancer of AWS, before it is a table or JSON.

use std::collections::BTreeSet;

use berth_api::service::ServiceKey;
use berth_aws::outlook::Outlook;
use berth_aws::request::request;
use berth_provider::class::ProviderName;

use super::render;
use crate::plan::report::{PlannedCall, PlannedLoadBalancer, PlannedSubnet};

/// What a planner says.
pub fn planned(
    outlook: &Outlook,
    without_node_ports: &BTreeSet<ServiceKey>,
) -> Result<PlannedLoadBalancer, serde_json::Error> {
    let steps = outlook.steps.iter().map(|planned| {
        Ok(PlannedCall {
            services: planned.services.iter().map(|id| id.key.to_string()).collect(),
            disruptive: planned.disruptive,
            round: None,
            differences: Vec::new(),
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
    Ok(PlannedLoadBalancer {
        provider: ProviderName::Aws.to_string(),
        shard: outlook.shard.clone(),
        services: outlook.services.iter().map(ToString::to_string).collect(),
        steps: steps.collect::<Result<_, serde_json::Error>>()?,
        replaced: outlook.replaced.clone(),
        subnets: chosen.chain(left_out).collect(),
        rows: render::rows(outlook, without_node_ports),
    })
}
