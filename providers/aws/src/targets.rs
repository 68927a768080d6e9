//! Which targets a target group is to have, what is to be changed for that, and what is to be said of them: pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use berth_api::condition::types;
use berth_api::service::TrafficPolicy;
use berth_api::{Condition, ConditionStatus, IpFamily, Reason};
use berth_provider::{Endpoint, Intent, Port, ServiceTargets, TargetNode};
use ipnet::IpNet;

use crate::annotation::{full, map};
use crate::cloud::{TargetDescription, TargetState, TargetType};

/// The annotation behind its prefix by which instances are chosen by the labels of their nodes.
pub const NODE_LABELS: &str = "target-node-labels";

/// Names that a message has of what is wrong. All of many would not be read.
const NAMED: usize = 5;

/// What tells targets of a group apart: an identity or address, and a port.
pub type Key = (String, u16);

/// The key of a target. An address is written in one way only.
pub fn key(target: &TargetDescription) -> Key {
    let id = target.id.parse::<IpAddr>().map_or_else(|_| target.id.clone(), |address| address.to_string());
    (id, target.port)
}

/// The targets that a group is to have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// They.
    pub targets: BTreeMap<Key, TargetDescription>,
    /// Nodes that would be targets and are no instances.
    pub left_out: BTreeSet<String>,
}

/// The targets of a group of this kind, for this port of a Service. `None` when the Service has no such port any more.
pub fn wanted(
    kind: TargetType,
    port: u16,
    of: &ServiceTargets,
    nodes: &[TargetNode],
    ranges: &[IpNet],
) -> Option<Wanted> {
    let port = of.intent.ports.iter().find(|entry| entry.port == port)?;
    let mut wanted = Wanted::default();
    let mut add = |target: TargetDescription| drop(wanted.targets.insert(key(&target), target));
    match kind {
        TargetType::Instance => {
            let node_port = port.node_port?;
            // One that cannot be read is refused, and what is there stays.
            let labels = of.intent.annotations.get(&full(NODE_LABELS));
            let labels = labels.map_or(Ok(BTreeMap::new()), |text| map(NODE_LABELS, text)).ok()?;
            let chosen = |node: &&TargetNode| labels.iter().all(|(key, value)| node.labels.get(key) == Some(value));
            for node in nodes.iter().filter(chosen) {
                match instance(&node.provider_id) {
                    Some(id) => add(TargetDescription { id: id.to_owned(), port: node_port, is_outside: false }),
                    None if is_fargate(&node.provider_id) => {}
                    None => drop(wanted.left_out.insert(node.name.clone())),
                }
            }
        }
        TargetType::Ip => {
            for (id, number) in of.endpoints.iter().filter_map(|endpoint| address(&of.intent, port, endpoint)) {
                add(TargetDescription { id: id.to_string(), port: number, is_outside: is_outside(id, ranges) });
            }
        }
    }
    Some(wanted)
}

/// Where an endpoint takes the traffic of a port of its Service, if it is a target for it.
pub fn address(intent: &Intent, port: &Port, endpoint: &Endpoint) -> Option<(IpAddr, u16)> {
    let is_family = endpoint.address.is_ipv4() == (intent.families.first == IpFamily::V4);
    let number = endpoint.ports.get(&(port.name.clone(), port.protocol)).filter(|_| is_family)?;
    Some((endpoint.address, *number))
}

/// Whether an address is outside the ranges of the VPC.
pub fn is_outside(address: IpAddr, ranges: &[IpNet]) -> bool {
    !ranges.iter().any(|range| range.contains(&address))
}

/// The identity of the instance that a node is: the end of `aws:///eu-central-1a/i-0123`.
pub fn instance(provider_id: &str) -> Option<&str> {
    let id = provider_id.strip_prefix("aws://")?.rsplit('/').next()?;
    id.starts_with("i-").then_some(id)
}

/// Nodes of Fargate are one for each pod, and no instances; their pods are targets by address.
fn is_fargate(provider_id: &str) -> bool {
    provider_id.rsplit('/').next().is_some_and(|id| id.starts_with("fargate-"))
}

/// What is thought of a target: nothing is known of one that was just registered.
pub type Thought = Option<(TargetState, Option<String>)>;

/// Targets that are registered and not wanted any more.
pub fn gone(wanted: &Wanted, registered: &BTreeMap<Key, Thought>, ranges: &[IpNet]) -> Vec<TargetDescription> {
    let gone = registered.keys().filter(|key| !wanted.targets.contains_key(*key)).map(|(id, port)| {
        let is_outside = id.parse().is_ok_and(|address| is_outside(address, ranges));
        TargetDescription { id: id.clone(), port: *port, is_outside }
    });
    gone.collect()
}

/// Targets that are wanted and not registered.
pub fn new(wanted: &Wanted, registered: &BTreeMap<Key, Thought>) -> Vec<TargetDescription> {
    let new = wanted.targets.iter().filter(|(key, _)| !registered.contains_key(*key));
    new.map(|(_, target)| target.clone()).collect()
}

/// What is known of the targets of one group.
#[derive(Clone, Debug, Default)]
pub struct Health {
    /// Targets that are registered.
    pub registered: BTreeMap<Key, Thought>,
    /// Nodes that are left out.
    pub left_out: BTreeSet<String>,
    /// Targets that AWS refuses.
    pub refused: BTreeSet<Key>,
}

impl Health {
    /// Whether another look may show something else soon: a target that is looked at, or does not answer. With the Local policy most nodes
    /// do not answer, and are not to.
    pub fn is_settled(&self, policy: TrafficPolicy) -> bool {
        let is_healthy = |thought: &Thought| matches!(thought, Some((TargetState::Healthy, _)));
        let local = policy == TrafficPolicy::Local && self.registered.values().any(is_healthy);
        self.registered.values().all(|thought| match thought {
            Some((TargetState::Healthy | TargetState::Unavailable, _)) => true,
            Some((TargetState::Unhealthy, _)) => local,
            _ => false,
        })
    }
}

/// What is to be said of the targets of all groups of a Service.
pub fn condition(groups: &[Health], policy: TrafficPolicy) -> Condition {
    let all: Vec<_> = groups.iter().flat_map(|group| &group.registered).collect();
    let refused: BTreeSet<_> = groups.iter().flat_map(|group| &group.refused).collect();
    let left_out: BTreeSet<_> = groups.iter().flat_map(|group| &group.left_out).collect();
    let is = |state: TargetState| move |thought: &Thought| matches!(thought, Some((seen, _)) if *seen == state);
    let count = |state| all.iter().filter(|(_, thought)| is(state)(thought)).count();
    let (total, healthy) = (all.len(), count(TargetState::Healthy));
    let unknown = all.iter().filter(|(_, thought)| thought.is_none()).count();
    let waits = count(TargetState::Initial) + count(TargetState::Unused) + unknown;
    let local = policy == TrafficPolicy::Local;
    let mut message = format!("{healthy} of {total} targets are healthy");
    let (status, reason) = if total == 0 {
        "no target is registered".clone_into(&mut message);
        (ConditionStatus::False, if refused.is_empty() { Reason::NoTargets } else { Reason::TargetsRefused })
    } else if healthy == total || (local && healthy > 0 && waits == 0) {
        (ConditionStatus::True, Reason::TargetsHealthy)
    } else if waits > 0 {
        let status = if unknown == total { ConditionStatus::Unknown } else { ConditionStatus::False };
        message = format!("{message}; AWS is still checking {waits}, which takes a few minutes for new ones");
        (status, Reason::TargetsInitial)
    } else {
        let reason = if healthy == 0 { Reason::NoHealthyTargets } else { Reason::TargetsUnhealthy };
        (ConditionStatus::False, reason)
    };
    let unhealthy = all.iter().filter_map(|((id, port), thought)| match thought {
        Some((TargetState::Unhealthy | TargetState::UnhealthyDraining, why)) => {
            Some(format!("{id}:{port} ({})", why.as_deref().unwrap_or("unhealthy")))
        }
        _ => None,
    });
    let unhealthy: Vec<_> = unhealthy.collect();
    if local && healthy > 0 && !unhealthy.is_empty() {
        message =
            format!("{message}; nodes without an endpoint answer that they have none (externalTrafficPolicy Local)");
    } else if !unhealthy.is_empty() {
        message = format!("{message}; not healthy: {}", some(&unhealthy));
    }
    if !refused.is_empty() {
        let refused: Vec<_> = refused.iter().map(|(id, port)| format!("{id}:{port}")).collect();
        message = format!("{message}; AWS does not take {}", some(&refused));
    }
    if !left_out.is_empty() {
        let left_out: Vec<_> = left_out.into_iter().cloned().collect();
        message = format!("{message}; no instances of EC2 by their spec.providerID: {}", some(&left_out));
    }
    Condition { kind: types::TARGETS_HEALTHY, status, reason, message }
}

fn some(names: &[String]) -> String {
    let more = names.len().saturating_sub(NAMED);
    let first = names.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    if more == 0 { first } else { format!("{first} and {more} more") }
}

#[cfg(test)]
mod tests;
