//! Which nodes answer for an address: one owner, and standbys in the order in which they take over.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use berth_api::Reason;
use berth_api::crd::{Interface, Layer2Assignment, Member};

use crate::rendezvous::rank;

/// How many standbys an owner has: with two, a node that fails while another is already down still has a successor,
/// and an owner has far fewer than the four partners per interface that heartbeats are sized for.
pub const STANDBYS: usize = 2;

/// How many left-out nodes a message names.
const NAMED_NODES: usize = 5;

/// What is known of a node.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Node {
    /// The interfaces that its speaker reported.
    pub interfaces: Vec<Interface>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Whether the cluster sees it alive. A node that is not is chosen last, but nothing is taken from it.
    pub ready: bool,
    /// It carries the exclude label.
    pub excluded: bool,
    /// Its network is not set up.
    pub network_unavailable: bool,
}

/// Why a node cannot answer for an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LeftOut {
    /// It has the exclude label.
    #[error("excluded by its label node.kubernetes.io/exclude-from-external-load-balancers")]
    Excluded,
    /// Its network is not set up.
    #[error("its condition NetworkUnavailable is True")]
    NetworkUnavailable,
    /// No advertisement allows it.
    #[error("no L2Advertisement selects it")]
    NotSelected,
    /// It has no speaker that reported.
    #[error("its speaker has not reported")]
    NoSpeaker,
    /// None of its interfaces has the address's subnet.
    #[error("no allowed interface has the subnet of the address")]
    NoSubnet,
    /// The Local policy, and it has no endpoint.
    #[error("no serving endpoint")]
    NoEndpoint,
}

/// One advertisement that covers the address: which nodes it allows, on which interfaces.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Rule {
    /// The nodes that it selects; `None` for all.
    pub nodes: Option<BTreeSet<String>>,
    /// The interfaces that it allows; empty for all.
    pub interfaces: BTreeSet<String>,
}

/// Everything that decides who answers.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// The address.
    pub address: IpAddr,
    /// All nodes.
    pub nodes: &'a BTreeMap<String, Node>,
    /// The advertisements that cover the address's pool.
    pub rules: &'a [Rule],
    /// For the Local policy the nodes with a serving endpoint, else `None`.
    pub serving: Option<&'a BTreeSet<String>>,
    /// What the Announcement says now.
    pub current: Option<&'a Layer2Assignment>,
    /// Who answers, and at which epoch, as the Announcement's status says.
    pub claimed: Option<(&'a str, u64)>,
}

/// Who is to answer, and what to say of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Placement {
    /// What the Announcement is to say. `None` when no advertisement covers the pool and none did before.
    pub assignment: Option<Layer2Assignment>,
    /// Whether a node answers, as a reason code.
    pub reason: Reason,
    /// The same for a person.
    pub message: String,
}

/// Chooses owner and standbys. What is placed stays where it is as long as it can (no move for balance, none back to
/// a node that returned); the epoch rises with every change of owner and never falls.
pub fn place(question: Question<'_>) -> Placement {
    let (mut eligible, left_out) = eligible(question);
    let (holder, epoch) = holder(question);
    if question.rules.is_empty() {
        let assignment = question.current.map(|_| nobody(epoch, holder));
        let message = "no L2Advertisement covers the pool of this address; create one".to_owned();
        return Placement { assignment, reason: Reason::NoAdvertisement, message };
    }
    let place_now = |node: &str| question.current.and_then(|c| c.standbys.iter().position(|s| s == node));
    // Ready before not ready, then those that watch already in their order, then the hash: nothing moves without need.
    eligible.sort_by_cached_key(|c| {
        let ready = question.nodes.get(&c.node).is_some_and(|n| n.ready);
        (!ready, place_now(&c.node).unwrap_or(usize::MAX), rank(&c.node, question.address))
    });
    let stays = holder.and_then(|h| eligible.iter().position(|c| c.node == h));
    let owner = match (stays, eligible.is_empty()) {
        (Some(index), _) => eligible.remove(index),
        (None, false) => eligible.remove(0),
        (None, true) => {
            let (reason, message) = nobody_says(question, &left_out);
            return Placement { assignment: Some(nobody(epoch, holder)), reason, message };
        }
    };
    let moves = holder != Some(owner.node.as_str());
    let epoch = if moves { epoch.saturating_add(1) } else { epoch };
    eligible.truncate(STANDBYS);
    // Make before break: who answers now keeps a part, in the last place, until its successor has claimed.
    if let Some(before) = question.claimed.map(|(node, _)| node).filter(|n| *n != owner.node)
        && !eligible.iter().any(|c| c.node == before)
        && let Some(member) = question.current.and_then(|c| c.members.iter().find(|m| m.node == before))
        && question.nodes.contains_key(before)
    {
        eligible.push(member.clone());
    }
    let message = format!("node {} is to answer, {} more stand by", owner.node, eligible.len());
    let standbys = eligible.iter().map(|c| c.node.clone()).collect();
    let name = owner.node.clone();
    let members = std::iter::once(owner).chain(eligible).collect();
    let assignment = Some(Layer2Assignment { owner: Some(name), standbys, epoch, members });
    Placement { assignment, reason: Reason::Announced, message }
}

/// Who holds the address, and at which epoch: a claim on the wire at a higher epoch, or at the same one, which it then
/// prevailed at, is adopted, but only from a node that has a part.
fn holder(question: Question<'_>) -> (Option<&str>, u64) {
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

fn nobody(epoch: u64, holder: Option<&str>) -> Layer2Assignment {
    // Losing the owner is a change of owner.
    let epoch = if holder.is_some() { epoch.saturating_add(1) } else { epoch };
    Layer2Assignment { owner: None, standbys: Vec::new(), epoch, members: Vec::new() }
}

fn eligible(question: Question<'_>) -> (Vec<Member>, BTreeMap<&str, LeftOut>) {
    let (mut members, mut left_out) = (Vec::new(), BTreeMap::new());
    for (name, node) in question.nodes {
        match member(question, name, node) {
            Ok(member) => members.push(member),
            Err(why) => {
                left_out.insert(name.as_str(), why);
            }
        }
    }
    (members, left_out)
}

fn member(question: Question<'_>, name: &str, node: &Node) -> Result<Member, LeftOut> {
    if node.excluded {
        return Err(LeftOut::Excluded);
    }
    if node.network_unavailable {
        return Err(LeftOut::NetworkUnavailable);
    }
    let selected = |rule: &&Rule| rule.nodes.as_ref().is_none_or(|nodes| nodes.contains(name));
    let mut rules = question.rules.iter().filter(selected).peekable();
    if rules.peek().is_none() {
        return Err(LeftOut::NotSelected);
    }
    if node.interfaces.is_empty() {
        return Err(LeftOut::NoSpeaker);
    }
    let rules: Vec<_> = rules.collect();
    let allowed =
        |i: &Interface| rules.iter().any(|rule| rule.interfaces.is_empty() || rule.interfaces.contains(&i.name));
    let own = |i: &Interface| i.addresses.iter().find(|own| own.contains(&question.address)).map(ipnet::IpNet::addr);
    let mut places = node.interfaces.iter().filter(|i| allowed(i)).filter_map(|i| Some((i, own(i)?))).peekable();
    let first = places.peek().copied();
    // The node keeps its place on the link; another interface that comes up moves nothing.
    let now = question.current.and_then(|c| c.members.iter().find(|m| m.node == name)).map(|m| &m.interface);
    let (interface, address) = places.find(|(i, _)| Some(&i.name) == now).or(first).ok_or(LeftOut::NoSubnet)?;
    if question.serving.is_some_and(|serving| !serving.contains(name)) {
        return Err(LeftOut::NoEndpoint);
    }
    Ok(Member { node: name.to_owned(), interface: interface.name.clone(), address, mac: interface.mac })
}

fn nobody_says(question: Question<'_>, left_out: &BTreeMap<&str, LeftOut>) -> (Reason, String) {
    if question.serving.is_some() && left_out.values().any(|why| *why == LeftOut::NoEndpoint) {
        let message = "externalTrafficPolicy is Local, and no node that could answer has a serving endpoint";
        return (Reason::NoLocalEndpoints, message.to_owned());
    }
    let mut named: Vec<_> = left_out.iter().take(NAMED_NODES).map(|(node, why)| format!("{node}: {why}")).collect();
    if left_out.len() > NAMED_NODES {
        named.push(format!("and {} more", left_out.len() - NAMED_NODES));
    }
    let nodes = if named.is_empty() { "there are no nodes".to_owned() } else { named.join("; ") };
    (Reason::NoEligibleNode, format!("no node can answer for {}: {nodes}", question.address))
}

#[cfg(test)]
mod tests;
