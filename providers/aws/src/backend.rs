//! What the security groups of nodes and pods are to let in from load balancers, and what is to be changed for that: pure.
//!
//! ```text
//!  load balancer [frontend group: clients] [backend group] ---> interface of a node or pod [its group: lets the backend group in]
//! ```
//!
//! The groups of nodes and pods are not ours. In them only rules with our description are ours, and no other is ever taken away.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::cloud::{Interface, IpProtocol, Pairs, Rule, SecurityGroup, Source};
use crate::intent::{PortAsks, TargetKind};
use crate::security::protocols;
use crate::settings::{NodePorts, Settings};
use crate::subnets::CLUSTER_TAG;
use crate::targets;

/// Longest description of a rule (AWS rule).
const DESCRIPTION_MAX: usize = 255;
/// What a description may have beside letters and digits (AWS rule).
const DESCRIPTION_SIGNS: &str = " ._-:/()#,@[]+=&;{}!$*";
/// Ranges of ports of one protocol that a group lets in. With those of TCP and UDP, and as many new ones before old ones go, about half
/// of the 60 rules are left that AWS's quota allows a group.
const RANGES_MAX: usize = 8;

/// Ports, from the first to the last.
pub type Range = (u16, u16);
/// What a security group lets in.
pub type LetsIn = BTreeSet<(IpProtocol, Range)>;

/// Where traffic comes in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// An instance, by its identity.
    Instance(String),
    /// An address.
    Address(IpAddr),
}

/// What some places are to let in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Demand {
    /// By ports, so that many places with the same ones are named once.
    pub at: BTreeMap<LetsIn, BTreeSet<Place>>,
}

impl Demand {
    /// Adds what the targets of a group take in: what the load balancer sends them, and the question whether they serve, which is asked over
    /// TCP whatever they speak.
    pub fn add(&mut self, kind: TargetKind, asks: &PortAsks, wanted: &targets::Wanted, node_ports: NodePorts) {
        let health: Option<u16> = asks.target.health.port.parse().ok();
        let widened = |port: u16| match kind {
            // One rule for all Services, so that another one costs no call.
            TargetKind::Instance if (node_ports.from..=node_ports.to).contains(&port) => {
                (node_ports.from, node_ports.to)
            }
            TargetKind::Instance | TargetKind::Ip => (port, port),
        };
        for target in wanted.targets.values().filter(|target| !target.is_outside) {
            let place = match (kind, target.id.parse()) {
                (TargetKind::Instance, _) => Place::Instance(target.id.clone()),
                (TargetKind::Ip, Ok(address)) => Place::Address(address),
                (TargetKind::Ip, Err(_)) => continue,
            };
            let sent = protocols(asks.target.protocol).iter().map(|protocol| (*protocol, widened(target.port)));
            let asked = (IpProtocol::Tcp, widened(health.unwrap_or(target.port)));
            self.at.entry(sent.chain([asked]).collect()).or_default().insert(place);
        }
    }

    /// All places.
    pub fn places(&self) -> BTreeSet<&Place> {
        self.at.values().flatten().collect()
    }

    /// What each group is to let in, by the group of each place. What is of no group is not opened.
    pub fn by_group<'a>(&self, group_of: impl Fn(&Place) -> Option<&'a String>) -> BTreeMap<String, LetsIn> {
        let mut all: BTreeMap<String, LetsIn> = BTreeMap::new();
        for (lets_in, places) in &self.at {
            let groups: BTreeSet<_> = places.iter().filter_map(&group_of).collect();
            for group in groups {
                all.entry(group.clone()).or_default().extend(lets_in.iter().copied());
            }
        }
        all
    }
}

/// The description by which a rule in a group of somebody else is known to be this cluster's.
pub fn description(settings: &Settings) -> String {
    let fits = |sign: char| sign.is_ascii_alphanumeric() || DESCRIPTION_SIGNS.contains(sign);
    let (begin, end) = ("berth.dev/cluster=", format!("/{}", settings.cluster_uid));
    let room = DESCRIPTION_MAX.saturating_sub(begin.len() + end.len());
    // The UID tells clusters apart; the name is for people.
    let name = settings.cluster.chars().map(|sign| if fits(sign) { sign } else { '_' }).take(room);
    format!("{begin}{}{end}", name.collect::<String>())
}

/// The group of an interface that is opened: the one that is tagged with the cluster, if there are several. Whoever comes in where
/// that does not decide gets the first of them, and is told so.
pub fn chosen<'a, 'b>(
    settings: &Settings,
    interface: &'a Interface,
    tags_of: impl Fn(&str) -> Option<&'b Pairs>,
) -> (Option<&'a String>, Option<String>) {
    let mut groups: Vec<_> = interface.security_groups.iter().collect();
    groups.sort();
    groups.dedup();
    if groups.len() < 2 {
        return (groups.first().copied(), None);
    }
    let tag = format!("{CLUSTER_TAG}{}", settings.cluster);
    let tagged: Vec<_> =
        groups.iter().copied().filter(|id| tags_of(id).is_some_and(|tags| tags.contains_key(&tag))).collect();
    if let [one] = tagged[..] {
        return (Some(one), None);
    }
    let (from, how_many) = if tagged.is_empty() { (&groups, "none") } else { (&tagged, "more than one") };
    let first = from.first().copied();
    let all = groups.iter().map(|id| id.as_str()).collect::<Vec<_>>().join(", ");
    let note = format!(
        "of the security groups {all} of {} {how_many} is tagged {tag}, so {} is opened; tag one of them",
        interface.id,
        first.map_or("", String::as_str)
    );
    (first, Some(note))
}

/// The rules that all demands make together.
pub fn rules<'a>(
    demands: impl Iterator<Item = &'a BTreeMap<String, LetsIn>>,
    backend_group: &str,
    description: &str,
) -> BTreeMap<String, BTreeSet<Rule>> {
    let mut ports: BTreeMap<(&str, IpProtocol), BTreeSet<Range>> = BTreeMap::new();
    for (group, lets_in) in demands.flatten() {
        for (protocol, range) in lets_in {
            ports.entry((group, *protocol)).or_default().insert(*range);
        }
    }
    let mut rules: BTreeMap<String, BTreeSet<Rule>> = BTreeMap::new();
    for ((group, ip_protocol), ranges) in ports {
        let each = merged(&ranges).into_iter().map(|(from_port, to_port)| Rule {
            ip_protocol,
            from_port,
            to_port,
            source: Source::Group(backend_group.to_owned()),
            description: Some(description.to_owned()),
        });
        rules.entry(group.to_owned()).or_default().extend(each);
    }
    rules
}

/// Ranges that overlap or follow each other are one. While there are too many, those are one that have the fewest ports between them.
fn merged(ranges: &BTreeSet<Range>) -> Vec<Range> {
    let mut merged: Vec<Range> = Vec::new();
    for (from, to) in ranges {
        match merged.last_mut() {
            Some((_, end)) if u32::from(*from) <= u32::from(*end) + 1 => *end = (*end).max(*to),
            _ => merged.push((*from, *to)),
        }
    }
    while merged.len() > RANGES_MAX {
        let gaps = merged.windows(2).enumerate().map(|(at, pair)| (pair[1].0.saturating_sub(pair[0].1), at));
        let Some((_, at)) = gaps.min() else { break };
        let (_, end) = merged.remove(at + 1);
        merged[at].1 = end;
    }
    merged
}

/// What is to be changed in a group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// First these are let in.
    pub authorize: Vec<Rule>,
    /// Then these no more.
    pub revoke: Vec<Rule>,
}

/// What makes a group let in what is wanted. A rule of somebody else that lets in the same is as good as one of ours.
pub fn change(wanted: &BTreeSet<Rule>, seen: &SecurityGroup, description: &str) -> Change {
    let there: BTreeSet<_> = seen.rules.iter().map(Rule::bare).collect();
    let needed: BTreeSet<_> = wanted.iter().map(Rule::bare).collect();
    let is_ours = |rule: &&Rule| rule.description.as_deref() == Some(description);
    Change {
        authorize: wanted.iter().filter(|rule| !there.contains(&rule.bare())).cloned().collect(),
        revoke: seen.rules.iter().filter(is_ours).filter(|rule| !needed.contains(&rule.bare())).cloned().collect(),
    }
}

#[cfg(test)]
mod tests;
