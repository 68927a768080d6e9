//! Which nodes answer for an address: one owner, and standbys in the order in which they take over.
//!
//! Of the nodes that are preferred most, one is chosen by the hash, within a bound on what it owns. What is placed stays: nothing moves for
//! balance, nor because a node came back, nor because another is preferred now. What does move an address is in [`place`].

mod eligible;
mod load;
mod routes;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use berth_api::Reason;
use berth_api::annotations::MOVE_TO;
use berth_api::crd::{Layer2Assignment, Member, RefusedRoute, RouteAssignment};
use berth_api::interface::Interfaces;
use berth_api::names::EXCLUDE_NODE_LABEL;
use berth_api::service::ServiceKey;

use crate::rendezvous::{Rank, rank};

pub use eligible::{Candidate, Draining, LeftOut, Liking, Node, Tier, eligible};
pub use load::{Load, PARTNERS_MAX, Seat, bound};
pub use routes::route;

/// How many standbys an owner has: with two, a node that fails while another is already down still has a successor,
/// and an owner has far fewer than the four partners per interface that heartbeats are sized for.
pub const STANDBYS: usize = 2;

/// How many left-out nodes a message names.
const NAMED_NODES: usize = 5;

/// One advertisement by which the address is announced: which nodes it allows and prefers, on which interfaces.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Rule {
    /// The nodes that it selects; `None` for all.
    pub nodes: Option<BTreeSet<String>>,
    /// The interfaces that it allows.
    pub interfaces: Interfaces,
    /// How much it prefers nodes; those that are not there, not at all.
    pub preferred: BTreeMap<String, u32>,
    /// How the nodes route the address, without the nodes; `None` where one of them answers by layer 2.
    pub route: Option<RouteAssignment>,
}

impl Rule {
    /// Whether it selects a node.
    pub fn selects(&self, node: &str) -> bool {
        self.nodes.as_ref().is_none_or(|nodes| nodes.contains(node))
    }

    /// How much it prefers a node that it selects.
    pub fn preference(&self, node: &str) -> u32 {
        self.preferred.get(node).copied().unwrap_or_default()
    }
}

/// Why an address is announced by no advertisement although some cover its pool: none selects its Service by `serviceSelectors`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "no {kind} that covers the pool of this address ({}) selects Service {service} by its `serviceSelectors`; give the \
     Service a label that one selects, or correct the selectors", named(advertisements.clone())
)]
pub struct Unselected {
    /// The Service; of several the first.
    pub service: ServiceKey,
    /// The kind of those that cover the pool.
    pub kind: &'static str,
    /// Their names.
    pub advertisements: Vec<String>,
}

/// Everything that decides who answers.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// The address.
    pub address: IpAddr,
    /// All nodes.
    pub nodes: &'a BTreeMap<String, Node>,
    /// The advertisements by which the address is announced.
    pub rules: &'a [Arc<Rule>],
    /// Why there are none, where some cover its pool.
    pub unselected: Option<&'a Unselected>,
    /// For the Local policy the nodes with a serving endpoint, else `None`.
    pub serving: Option<&'a BTreeSet<String>>,
    /// What the Announcement says now.
    pub current: Option<&'a Layer2Assignment>,
    /// The nodes that it says route the address.
    pub routed: &'a [RouteAssignment],
    /// The nodes that said they cannot, and why.
    pub refused: &'a BTreeMap<&'a str, &'a RefusedRoute>,
    /// Who answers, and at which epoch, as the Announcement's status says.
    pub claimed: Option<(&'a str, u64)>,
    /// What all nodes own, this address among it as `current` says.
    pub load: &'a Load,
    /// The node that a person wishes the address to be on.
    pub wish: Option<&'a str>,
}

impl Question<'_> {
    /// How many other addresses a node owns.
    pub fn owned(&self, node: &str) -> u64 {
        let here = self.current.is_some_and(|current| current.owner.as_deref() == Some(node));
        self.load.owned(node).saturating_sub(here.into())
    }

    /// Who watches a node for other addresses over the same interface. A node that is about to be replaced there does not count.
    fn partners(&self, owner: &Member) -> BTreeSet<String> {
        let current = self.current.filter(|current| current.owner.as_ref() == Some(&owner.node));
        let interface = current.and_then(|current| Some(&current.members.first()?.interface));
        let here = current.filter(|_| interface == Some(&owner.interface)).map(|current| &current.standbys);
        let mine = |node: &str| u64::from(here.is_some_and(|standbys| standbys.iter().any(|standby| standby == node)));
        let stands = |node: &str| self.nodes.get(node).is_some_and(|node| node.tier() == Tier::Ready);
        let all = self.load.partners(&owner.node, &owner.interface);
        let others = all.filter(|(node, addresses)| *addresses > mine(node) && stands(node));
        others.map(|(node, _)| node.to_owned()).collect()
    }
}

/// Who is to answer, and what to say of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Placement {
    /// What the Announcement is to say. `None` when no advertisement covers the pool and none did before.
    pub assignment: Option<Layer2Assignment>,
    /// The nodes that are to route it, and how.
    pub routes: Vec<RouteAssignment>,
    /// Whether a node answers, as a reason code.
    pub reason: Reason,
    /// The same for a person.
    pub message: String,
    /// Where a node answers, and it is not as somebody asked for: why.
    pub remark: Option<(Reason, String)>,
}

/// A candidate, and where the hash has it.
struct Ranked {
    candidate: Candidate,
    /// Its place among those that stand by now.
    place: Option<usize>,
    rank: Rank,
}

/// Chooses owner and standbys. What is placed stays where it is; what moves it is that
///
/// - its node cannot answer any more, or is being drained and a node that is ready and is not can take it,
/// - a standby took it over, which is adopted,
/// - a person wishes it to be on another node that can.
///
/// Who is chosen by nobody's wish is, of those that the advertisements prefer most, the first that is within the [`bound`]: of those that
/// stand by, then by the hash. The epoch rises with every change of owner and never falls.
pub fn place(question: Question<'_>) -> Placement {
    if question.rules.iter().any(|rule| rule.route.is_some()) {
        return route(question);
    }
    let (candidates, left_out) = eligible(&question);
    let (holder, epoch) = holder(question);
    if question.rules.is_empty() {
        let assignment = question.current.map(|_| nobody(epoch, holder));
        let none = || "no L2Advertisement or RouteAdvertisement covers the pool of this address; create one".to_owned();
        let (reason, message) = question
            .unselected
            .map_or_else(|| (Reason::NoAdvertisement, none()), |why| (Reason::ServiceNotSelected, why.to_string()));
        return Placement { assignment, routes: Vec::new(), reason, message, remark: None };
    }
    let place = |node: &str| question.current.and_then(|c| c.standbys.iter().position(|s| s == node));
    let ranked = candidates.into_iter().map(|candidate| {
        let (place, rank) = (place(&candidate.member.node), rank(&candidate.member.node, question.address));
        Ranked { candidate, place, rank }
    });
    let mut ranked: Vec<_> = ranked.collect();
    // Of those that are preferred alike, those that watch already in their order, then the hash: nothing moves without need.
    ranked.sort_by_key(|r| (r.candidate.liking(), r.place.unwrap_or(usize::MAX), r.rank));
    let stays = holder.and_then(|holder| ranked.iter().position(|r| r.candidate.member.node == holder));
    let wish = question.wish.map(|wish| (wish, granted(wish, holder, &ranked, &left_out)));
    let index = match (&wish, stays) {
        (Some((_, Ok(index))), _) => Some(*index),
        (_, Some(index)) if !gives_up(&ranked, index) => Some(index),
        _ => first_within_bound(&question, &ranked),
    };
    let Some(index) = index else {
        let (reason, message) = nobody_says(question, &left_out);
        let assignment = Some(nobody(epoch, holder));
        return Placement { assignment, routes: Vec::new(), reason, message, remark: None };
    };
    let owner = ranked.remove(index);
    let moves = holder != Some(owner.candidate.member.node.as_str());
    let remark = match wish {
        Some((wish, Err(why))) => {
            let owner = &owner.candidate.member.node;
            let asks = format!("annotation {MOVE_TO} of the Announcement asks for node {wish}");
            Some((Reason::MoveRefused, format!("node {owner} answers, although {asks}: {why}")))
        }
        Some((_, Ok(_))) | None => owner.candidate.draining.map(|draining| {
            let why = others_say(&ranked, &left_out);
            let owner = &owner.candidate.member.node;
            (Reason::DrainBlocked, format!("node {owner} goes on answering although it is {draining}: {why}"))
        }),
    };
    let owner = owner.candidate.member;
    // Adopted or moved, the owner's own partners come first; what is only planned again keeps its standbys as they are.
    let is_new = moves || question.current.and_then(|c| c.owner.as_deref()) != Some(&owner.node);
    let mut standbys = standbys(&question, &owner, ranked, is_new);
    let epoch = if moves { epoch.saturating_add(1) } else { epoch };
    // Make before break: who answers now keeps a part, in the last place, until its successor has claimed.
    if let Some(before) = question.claimed.map(|(node, _)| node).filter(|n| *n != owner.node)
        && !standbys.iter().any(|standby| standby.node == before)
        && let Some(member) = question.current.and_then(|c| c.members.iter().find(|m| m.node == before))
        && question.nodes.contains_key(before)
    {
        standbys.push(member.clone());
    }
    let message = format!("node {} is to answer, {} more stand by", owner.node, standbys.len());
    let names = standbys.iter().map(|standby| standby.node.clone()).collect();
    let name = owner.node.clone();
    let members = std::iter::once(owner).chain(standbys).collect();
    let assignment = Some(Layer2Assignment { owner: Some(name), standbys: names, epoch, members });
    Placement { assignment, routes: Vec::new(), reason: Reason::Announced, message, remark }
}

/// Who holds the address, and at which epoch: a claim on the wire at a higher epoch, or at the same one, which it then
/// prevailed at, is adopted, but only from a node that has a part.
pub fn holder(question: Question<'_>) -> (Option<&str>, u64) {
    let Some(current) = question.current else { return (None, 0) };
    let owner = current.owner.as_deref();
    match question.claimed {
        Some((node, epoch)) if epoch >= current.epoch => {
            let part = owner == Some(node) || current.standbys.iter().any(|s| s == node);
            (if part { Some(node) } else { owner }, epoch)
        }
        _ => (owner, current.epoch),
    }
}

/// Where the node is that a person wishes for, or why it is not to be. Who answers already may go on doing so.
fn granted(
    wish: &str,
    holder: Option<&str>,
    ranked: &[Ranked],
    left_out: &BTreeMap<&str, LeftOut>,
) -> Result<usize, String> {
    let Some(index) = ranked.iter().position(|r| r.candidate.member.node == wish) else {
        return Err(left_out.get(wish).map_or_else(|| "there is no such node".to_owned(), ToString::to_string));
    };
    let stays = holder == Some(wish) && !gives_up(ranked, index);
    ranked[index].candidate.demerit().filter(|_| !stays).map_or(Ok(index), Err)
}

/// Whether the one that holds the address is being drained and there is another to take it. `ranked` has the best first.
fn gives_up(ranked: &[Ranked], holder: usize) -> bool {
    let has_successor = ranked.first().is_some_and(|best| best.candidate.tier == Tier::Ready);
    has_successor && ranked[holder].candidate.draining.is_some()
}

/// The first of the best that is within the bound on load. Who prefers some nodes wants the load there, so only among those that are
/// preferred alike is it balanced.
fn first_within_bound(question: &Question<'_>, ranked: &[Ranked]) -> Option<usize> {
    let best = ranked.first()?.candidate.liking();
    let owned: Vec<_> = ranked
        .iter()
        .take_while(|r| r.candidate.liking() == best)
        .map(|r| question.owned(&r.candidate.member.node))
        .collect();
    let most = bound(owned.iter().sum(), owned.len() as u64);
    // There always is one: not all have more than the mean.
    owned.iter().position(|owned| *owned < most).or(Some(0))
}

/// Who stands by. An owner that is watched by [`PARTNERS_MAX`] nodes is watched by those, whoever is preferred, unless no other of them can.
fn standbys(question: &Question<'_>, owner: &Member, mut others: Vec<Ranked>, is_new: bool) -> Vec<Member> {
    let mut partners = question.partners(owner);
    let mut chosen = Vec::new();
    while chosen.len() < STANDBYS {
        let is_beyond = |r: &Ranked| !partners.contains(&r.candidate.member.node) && partners.len() >= PARTNERS_MAX;
        let key = |r: &Ranked| {
            let stays = r.place.unwrap_or(usize::MAX);
            let Liking { tier, score } = r.candidate.liking();
            (tier, if is_new { 0 } else { stays }, is_beyond(r), score, stays, r.rank)
        };
        let next = others.iter().enumerate().min_by_key(|(_, r)| key(r)).map(|(index, _)| index);
        let Some(next) = next else { break };
        let Ranked { candidate, .. } = others.remove(next);
        if candidate.tier == Tier::Ready {
            partners.insert(candidate.member.node.clone());
        }
        chosen.push(candidate.member);
    }
    chosen
}

fn nobody(epoch: u64, holder: Option<&str>) -> Layer2Assignment {
    // Losing the owner is a change of owner.
    let epoch = if holder.is_some() { epoch.saturating_add(1) } else { epoch };
    Layer2Assignment { owner: None, standbys: Vec::new(), epoch, members: Vec::new() }
}

fn nobody_says(question: Question<'_>, left_out: &BTreeMap<&str, LeftOut>) -> (Reason, String) {
    if question.serving.is_some() && left_out.values().any(|why| *why == LeftOut::NoEndpoint) {
        let message = "externalTrafficPolicy is Local, and no node that could answer has a serving endpoint";
        return (Reason::NoLocalEndpoints, message.to_owned());
    }
    if let Some(said) = excluded_says(left_out) {
        return said;
    }
    let nodes = named(left_out.iter().map(|(node, why)| format!("{node}: {why}")).collect());
    let nodes = if nodes.is_empty() { "there are no nodes".to_owned() } else { nodes };
    (Reason::NoEligibleNode, format!("no node can answer for {}: {nodes}", question.address))
}

/// What to say where every node that an advertisement selects is excluded by its label, or has no network.
fn excluded_says(left_out: &BTreeMap<&str, LeftOut>) -> Option<(Reason, String)> {
    let selected = left_out.iter().filter(|(_, why)| **why != LeftOut::NotSelected);
    let of = |cause: LeftOut| -> Vec<_> {
        selected.clone().filter(|(_, why)| **why == cause).map(|(node, _)| (*node).to_owned()).collect()
    };
    let (excluded, without_network) = (of(LeftOut::Excluded), of(LeftOut::NetworkUnavailable));
    if excluded.len() + without_network.len() < selected.count() {
        return None;
    }
    if without_network.is_empty() {
        let first = excluded.first()?.clone();
        let message = format!(
            "every node that could answer has the label {EXCLUDE_NODE_LABEL} ({}), which kubeadm gives to control-plane nodes; \
             remove it (`kubectl label node {first} {EXCLUDE_NODE_LABEL}-`), or run the controller with --ignore-exclude-lb",
            named(excluded)
        );
        return Some((Reason::AllNodesExcluded, message));
    }
    let more = if excluded.is_empty() {
        String::new()
    } else {
        format!(", and all others have the label {EXCLUDE_NODE_LABEL} ({})", named(excluded))
    };
    let nodes = named(without_network);
    let message =
        format!("the condition NetworkUnavailable is True on {nodes}{more}; look at the network plugin there");
    Some((Reason::NodeNetworksUnavailable, message))
}

/// What stands against all nodes but the owner.
fn others_say(others: &[Ranked], left_out: &BTreeMap<&str, LeftOut>) -> String {
    let demerits = others.iter().filter_map(|r| Some((r.candidate.member.node.as_str(), r.candidate.demerit()?)));
    let against: BTreeMap<_, _> = demerits.chain(left_out.iter().map(|(node, why)| (*node, why.to_string()))).collect();
    if against.is_empty() {
        return "there is no other node".to_owned();
    }
    let nodes = named(against.iter().map(|(node, why)| format!("{node}: {why}")).collect());
    format!("no other node can take the address: {nodes}")
}

/// The first few, and how many more there are.
/// These names, or the first of many.
pub(crate) fn named(mut nodes: Vec<String>) -> String {
    let more = nodes.len().saturating_sub(NAMED_NODES);
    nodes.truncate(NAMED_NODES);
    if more > 0 {
        nodes.push(format!("and {more} more"));
    }
    nodes.join("; ")
}

#[cfg(test)]
mod tests;
