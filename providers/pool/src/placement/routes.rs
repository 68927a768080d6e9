//! Which nodes hand an address to their routing daemons: all that can and against which nothing stands, not one of them.
//!
//! Routers spread over all paths that they are told of, so there is nobody to choose and nothing to balance. A node that is to be spared goes
//! as soon as another is left, and one that the cluster does not see alive keeps what it has: its routing daemon knows better than a Lease.

use std::collections::{BTreeMap, BTreeSet};

use berth_api::Reason;
use berth_api::crd::{ROUTE_WAYS_MAX, ROUTING_NODES_MAX, RouteAssignment, RouteRefusal};

use super::eligible::selecting;
use super::{LeftOut, Node, Placement, Question, Tier, excluded_says, holder, named, nobody};

/// Chooses the nodes, for each way in which the advertisements have them route.
pub fn route(question: Question<'_>) -> Placement {
    let (mut can, mut left_out) = (BTreeMap::new(), BTreeMap::new());
    for (name, node) in question.nodes {
        match stands_against(&question, name, node) {
            None => drop(can.insert(name.as_str(), node)),
            Some(why) => drop(left_out.insert(name.as_str(), why)),
        }
    }
    let met = can.values().any(|node| node.is_met());
    let best = can.values().map(|node| node.tier_among(met)).min();
    let chosen: BTreeSet<&str> = can
        .iter()
        .filter(|(name, node)| Some(node.tier_among(met)) == best || keeps(&question, name, node))
        .map(|(name, _)| *name)
        .collect();
    let routes = ways(&question, &chosen);
    let (holds, epoch) = holder(question);
    // Nobody answers on the link any more; that there was somebody is kept, because an epoch never falls.
    let assignment = question.current.map(|_| nobody(epoch, holds));
    let (works, unable): (Vec<_>, Vec<_>) = chosen.iter().partition(|node| !question.refused.contains_key(**node));
    let said = |nodes: &[&str]| named(nodes.iter().map(|node| (*node).to_owned()).collect());
    let refused = refused_says(&question, &unable);
    let (reason, message, remark) = match (works.len(), refused) {
        (0, Some((reason, why))) => {
            let message = format!("no node routes {}: {why}", question.address);
            (reason, message, None)
        }
        (0, None) => {
            let (reason, message) = nobody_says(&question, &left_out);
            (reason, message, None)
        }
        (count, refused) => {
            let nodes = if count == 1 { "node" } else { "nodes" };
            let message = format!("routed by {count} {nodes}: {}", said(&works));
            let remark = refused.map(|(reason, why)| (reason, format!("{message}; and not by {why}")));
            (Reason::Announced, message, remark)
        }
    };
    Placement { assignment, routes, reason, message, remark }
}

/// Why a node cannot route the address. That it refused it is no reason to tell it no more: it tries again.
fn stands_against(question: &Question<'_>, name: &str, node: &Node) -> Option<LeftOut> {
    if selecting(question, name).next().is_none() {
        return Some(LeftOut::NotSelected);
    }
    if node.excluded {
        return Some(LeftOut::Excluded);
    }
    if node.network_unavailable {
        return Some(LeftOut::NetworkUnavailable);
    }
    if !node.routes {
        return Some(if node.interfaces.is_empty() { LeftOut::NoSpeaker } else { LeftOut::NoRoutes });
    }
    question.serving.filter(|serving| !serving.contains(name)).map(|_| LeftOut::NoEndpoint)
}

/// Whether a node that the cluster does not see alive goes on.
fn keeps(question: &Question<'_>, name: &str, node: &Node) -> bool {
    let routes = || question.routed.iter().any(|way| way.nodes.iter().any(|node| node == name));
    node.tier() == Tier::NotReady && node.draining.is_none() && routes()
}

/// The ways, each once, with those of the nodes that it is for.
fn ways(question: &Question<'_>, chosen: &BTreeSet<&str>) -> Vec<RouteAssignment> {
    let mut ways = BTreeMap::<RouteAssignment, BTreeSet<&str>>::new();
    for rule in question.rules {
        let Some(way) = &rule.route else { continue };
        let nodes = chosen.iter().copied().filter(|node| rule.selects(node));
        ways.entry(way.clone()).or_default().extend(nodes);
    }
    let some = ways.into_iter().filter(|(_, nodes)| !nodes.is_empty()).map(|(way, nodes)| RouteAssignment {
        nodes: nodes.into_iter().take(ROUTING_NODES_MAX).map(str::to_owned).collect(),
        ..way
    });
    some.take(ROUTE_WAYS_MAX).collect()
}

/// Which of these nodes said that they cannot, and why: under the reason that most have.
fn refused_says(question: &Question<'_>, unable: &[&str]) -> Option<(Reason, String)> {
    let mut counts = BTreeMap::<RouteRefusal, usize>::new();
    let told = unable.iter().filter_map(|node| Some((*node, question.refused.get(node)?)));
    let told = told.map(|(node, refused)| {
        *counts.entry(refused.reason).or_default() += 1;
        format!("{node}: {}", refused.message)
    });
    let told = named(told.collect());
    let (reason, _) = counts.into_iter().rev().max_by_key(|(_, count)| *count)?;
    Some((reason.reason(), told))
}

fn nobody_says(question: &Question<'_>, left_out: &BTreeMap<&str, LeftOut>) -> (Reason, String) {
    let of = |why| left_out.iter().filter(move |(_, other)| **other == why).map(|(node, _)| (*node).to_owned());
    if of(LeftOut::NoEndpoint).next().is_some() {
        let message = "externalTrafficPolicy is Local, and no node that could route the address has a serving endpoint";
        return (Reason::NoLocalEndpoints, message.to_owned());
    }
    if let Some(said) = excluded_says(left_out) {
        return said;
    }
    let without: Vec<_> = of(LeftOut::NoRoutes).collect();
    if !without.is_empty() {
        let message = format!(
            "no speaker of a node that could route {} may make routes ({}); install Berth with the component `deploy/routes`",
            question.address,
            named(without)
        );
        return (Reason::RoutesNotPermitted, message);
    }
    let nodes = named(left_out.iter().map(|(node, why)| format!("{node}: {why}")).collect());
    let nodes = if nodes.is_empty() { "there are no nodes".to_owned() } else { nodes };
    (Reason::NoEligibleNode, format!("no node can route {}: {nodes}", question.address))
}
