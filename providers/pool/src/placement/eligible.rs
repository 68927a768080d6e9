//! Which nodes can answer for an address, and what stands against the others.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use berth_api::annotations::DRAIN;
use berth_api::crd::{Dataplane, Interface, KernelTrap, KubeProxy, Member};
use berth_api::names::{EXCLUDE_NODE_LABEL, OUT_OF_SERVICE_TAINT};

use super::{Question, Rule};

/// What is known of a node.
#[allow(clippy::struct_excessive_bools, reason = "each says a thing of its own, and any of them may come together")]
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
    /// Why it is to give up what it owns, as soon as another node can take it.
    pub draining: Option<Draining>,
    /// What forwards on it, once its speaker has looked.
    pub dataplane: Option<Dataplane>,
    /// Settings of its kernel that break what is announced.
    pub kernel_traps: Vec<KernelTrap>,
    /// Whether its speaker may make routes.
    pub routes: bool,
}

impl Node {
    /// How gladly it is chosen.
    pub fn tier(&self) -> Tier {
        match (self.ready, self.draining) {
            (true, None) => Tier::Ready,
            (true, Some(_)) => Tier::Draining,
            (false, _) => Tier::NotReady,
        }
    }

    /// The same among others, of which `met` says whether a kube-proxy was met on one. Where nobody has one, something else forwards.
    pub(super) fn tier_among(&self, met: bool) -> Tier {
        let absent = self.dataplane.is_some_and(|dataplane| dataplane.kube_proxy == KubeProxy::Absent);
        if met && absent && self.tier() == Tier::Ready { Tier::Unproven } else { self.tier() }
    }

    /// Whether a kube-proxy was met on it that follows what changes.
    pub(super) fn is_met(&self) -> bool {
        self.dataplane.is_some_and(|dataplane| dataplane.kube_proxy == KubeProxy::Fresh)
    }
}

/// Why a node is to give up what it owns. It goes on where no other node can, unlike one that is excluded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Draining {
    /// Somebody said that it is down.
    #[error("being drained: it has the taint {}", OUT_OF_SERVICE_TAINT)]
    OutOfService,
    /// Somebody asked for it.
    #[error("being drained: its annotation {} is \"true\"", DRAIN)]
    Asked,
    /// Its kube-proxy follows nothing any more.
    #[error("to be spared: its kube-proxy is stale, as its SpeakerNode says")]
    KubeProxyStale,
    /// It is cordoned, and the controller was told that this means it.
    #[error("being drained: it is cordoned, and the controller runs with --drain-on-cordon")]
    Cordoned,
}

/// How gladly a node is chosen, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    /// Nothing stands against it.
    Ready,
    /// Others have a kube-proxy, and its own was never met: it may have yet to start.
    Unproven,
    /// It is to give up what it owns.
    Draining,
    /// The cluster does not see it alive.
    NotReady,
}

/// Why a node cannot answer for an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LeftOut {
    /// It has the exclude label.
    #[error("excluded by its label {}", EXCLUDE_NODE_LABEL)]
    Excluded,
    /// Its network is not set up.
    #[error("its condition NetworkUnavailable is True")]
    NetworkUnavailable,
    /// No advertisement allows it.
    #[error("no advertisement selects it")]
    NotSelected,
    /// It has no speaker that reported.
    #[error("its speaker has not reported")]
    NoSpeaker,
    /// Its speaker makes no routes.
    #[error("its speaker may make no routes")]
    NoRoutes,
    /// None of its interfaces has the address's subnet.
    #[error("no allowed interface has the subnet of the address")]
    NoSubnet,
    /// The Local policy, and it has no endpoint.
    #[error("no serving endpoint")]
    NoEndpoint,
}

/// A node that can answer.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Its place on the link.
    pub member: Member,
    /// How gladly it is chosen.
    pub tier: Tier,
    /// How much the advertisements that select it prefer it, of those in its tier.
    pub score: u32,
    /// Whether it is to give up what it owns.
    pub draining: Option<Draining>,
}

/// The order in which candidates are chosen, apart from the address: best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Liking {
    /// Whether anything stands against it; nobody prefers a node that is down.
    pub tier: Tier,
    /// How much it is preferred.
    pub score: Reverse<u32>,
}

impl Candidate {
    /// How gladly it is chosen.
    pub fn liking(&self) -> Liking {
        Liking { tier: self.tier, score: Reverse(self.score) }
    }

    /// Why others come first, where something stands against it.
    pub(super) fn demerit(&self) -> Option<String> {
        match (self.tier, self.draining) {
            (Tier::NotReady, _) => Some("not ready".to_owned()),
            (_, Some(draining)) => Some(draining.to_string()),
            (Tier::Unproven, None) => Some("no kube-proxy was met on it, and others have one".to_owned()),
            (Tier::Ready | Tier::Draining, None) => None,
        }
    }
}

/// All nodes that can, by name, and what stands against the others.
pub fn eligible<'a>(question: &Question<'a>) -> (Vec<Candidate>, BTreeMap<&'a str, LeftOut>) {
    let (mut candidates, mut left_out) = (Vec::new(), BTreeMap::new());
    for (name, node) in question.nodes {
        match member(question, name, node) {
            Ok(member) => {
                let score = selecting(question, name).map(|rule| rule.preference(name)).sum();
                candidates.push(Candidate { member, tier: node.tier(), score, draining: node.draining });
            }
            Err(why) => {
                left_out.insert(name.as_str(), why);
            }
        }
    }
    let node = |candidate: &Candidate| question.nodes.get(&candidate.member.node);
    let met = candidates.iter().filter_map(node).any(Node::is_met);
    for candidate in &mut candidates {
        candidate.tier = node(candidate).map_or(candidate.tier, |node| node.tier_among(met));
    }
    (candidates, left_out)
}

/// The advertisements that select a node.
pub(super) fn selecting<'a>(question: &Question<'a>, name: &str) -> impl Iterator<Item = &'a Rule> {
    question.rules.iter().map(AsRef::as_ref).filter(move |rule| rule.selects(name))
}

fn member(question: &Question<'_>, name: &str, node: &Node) -> Result<Member, LeftOut> {
    let rules: Vec<_> = selecting(question, name).collect();
    if rules.is_empty() {
        return Err(LeftOut::NotSelected);
    }
    if node.excluded {
        return Err(LeftOut::Excluded);
    }
    if node.network_unavailable {
        return Err(LeftOut::NetworkUnavailable);
    }
    if node.interfaces.is_empty() {
        return Err(LeftOut::NoSpeaker);
    }
    let allowed = |i: &Interface| rules.iter().any(|rule| rule.interfaces.allow(&i.name));
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
