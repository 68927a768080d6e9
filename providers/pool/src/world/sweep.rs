//! Which free addresses are asked for on the wire ahead of need, by which node, and what becomes of what the nodes found.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use berth_api::crd::SWEEP_MAX;
use berth_api::{IpFamily, MacAddr};

use super::World;
use crate::placement::{Load, Question, Tier, eligible};
use crate::rendezvous::rank;
use crate::view::Report;

/// Free addresses of a pool and family that are asked for ahead of need: as many as a person creates Services at a time.
const AHEAD: usize = 8;
/// How few of those may be left before others are asked for as well: the list changes once for so many Services.
const AT_LEAST: usize = 4;

/// Whether what nodes are to ask for may be something else than when it was last asked for.
#[derive(Clone, Debug, Default)]
pub(super) struct Swept {
    /// [`crate::ipam::Ipam::changes`] of then.
    free: Option<u64>,
}

impl Swept {
    /// Nodes, pools or what announces them have changed.
    pub(super) fn is_outdated(&mut self) {
        self.free = None;
    }
}

impl World {
    /// [`World::sweeps`], once for each change that it may follow from: a look at all pools and nodes is not for every second.
    pub fn changed_sweeps(&mut self) -> BTreeMap<String, Vec<IpAddr>> {
        self.catch_up();
        let free = Some(self.ipam.changes());
        if self.swept.free == free {
            return BTreeMap::new();
        }
        self.swept.free = free;
        self.sweeps_now()
    }

    /// What [`World::changed_sweeps`] told is to be told again: it is not written, or was not when another was asked for.
    pub fn sweep_again(&mut self) {
        self.swept.is_outdated();
    }

    /// The nodes that are to ask for other addresses than their SpeakerNodes say, and for which: the next free ones of each pool that is
    /// announced, each pool and family by one node.
    pub fn sweeps(&mut self) -> BTreeMap<String, Vec<IpAddr>> {
        self.catch_up();
        self.sweeps_now()
    }

    fn sweeps_now(&self) -> BTreeMap<String, Vec<IpAddr>> {
        let mut wanted: BTreeMap<&str, BTreeSet<IpAddr>> = BTreeMap::new();
        for (pool, _) in self.ipam.reports() {
            for family in IpFamily::ALL {
                let next: Vec<_> = self.ipam.next_free(pool, family, AHEAD);
                let Some((node, first)) = self.sweeper(pool, &next) else { continue };
                let list = wanted.entry(node).or_default();
                // Those that it asks for already do, as long as they are enough.
                let asked = self.reports.get(node).map(|report| report.sweep.as_slice()).unwrap_or_default();
                let kept: Vec<_> = next.iter().copied().filter(|address| asked.contains(address)).collect();
                let enough = kept.len() >= AT_LEAST.min(next.len()) && kept.contains(&first);
                list.extend(if enough { kept } else { next });
            }
        }
        let reporting = self.reports.iter().filter(|(name, _)| self.cluster_nodes.contains_key(*name));
        let differing = reporting.filter_map(|(name, report)| {
            let list: Vec<_> = wanted.remove(name.as_str()).unwrap_or_default().into_iter().take(SWEEP_MAX).collect();
            let (asked, free) = (&report.sweep, |address: &&IpAddr| self.ipam.is_free(**address));
            // One that was given out meanwhile is taken off with the next change.
            let same = *asked == list || asked.iter().filter(free).eq(&list);
            (!same).then(|| (name.clone(), list))
        });
        differing.collect()
    }

    /// The node that asks for these, and the first of them: the first by the rendezvous hash of those that could answer for that and have
    /// nothing against them.
    fn sweeper(&self, pool: &str, next: &[IpAddr]) -> Option<(&str, IpAddr)> {
        let first = *next.first()?;
        let rules: Vec<_> = self
            .covering(pool)
            .iter()
            .map(|covering| Arc::clone(&covering.rule))
            // What is routed is no question for the wire.
            .filter(|rule| rule.route.is_none())
            .collect();
        let (load, refused) = (Load::default(), BTreeMap::new());
        let question = Question {
            address: first,
            nodes: &self.nodes,
            rules: &rules,
            unselected: None,
            serving: None,
            current: None,
            routed: &[],
            refused: &refused,
            claimed: None,
            load: &load,
            wish: None,
        };
        let (candidates, _) = eligible(&question);
        let able = candidates.into_iter().filter(|candidate| candidate.tier == Tier::Ready);
        // By the pool's lowest address, so that the node stays the same while addresses are given out.
        let by = self
            .pools
            .get(pool)
            .and_then(|p| p.addresses.as_ref().ok())
            .and_then(|a| a.ranges().first().map(|r| r.first()));
        let best = able.min_by_key(|candidate| rank(&candidate.member.node, by.unwrap_or(first)))?;
        self.nodes.get_key_value(&best.member.node).map(|(name, _)| (name.as_str(), first))
    }

    /// Takes note of the machines that a node's speaker found with free addresses that it was told to ask for.
    pub(super) fn learn_found_by(&mut self, node: &str) {
        let Some(report) = self.reports.get(node) else { return };
        for (address, mac) in report.found().collect::<Vec<_>>() {
            if self.found_by_sweep(address) == Some(mac) {
                self.found.taken.insert(address, mac);
            }
        }
    }

    /// The machine that a node found with an address that nobody holds, if it is none of our nodes'.
    pub(super) fn found_by_sweep(&self, address: IpAddr) -> Option<MacAddr> {
        if !self.ipam.tenants(address).is_empty() {
            return None;
        }
        let said = self.reports.values().flat_map(Report::found).filter(|(found, _)| *found == address);
        said.map(|(_, mac)| mac).find(|mac| !self.is_of_a_node(*mac))
    }

    /// Whether an Ethernet address is one of a node's.
    pub(super) fn is_of_a_node(&self, mac: MacAddr) -> bool {
        self.reports.values().flat_map(|report| &report.interfaces).any(|interface| interface.mac == mac)
    }
}
