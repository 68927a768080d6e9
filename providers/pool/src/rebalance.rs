//! Which addresses would have to move so that each is on a node that is preferred for it, and no node owns more than its share and a quarter:
//! for people who accept what a move breaks. Nothing else here moves for that.

use std::collections::BTreeMap;
use std::net::IpAddr;

use berth_api::service::ServiceKey;

use crate::placement::{Tier, bound, eligible, holder};
use crate::plan::Terms;
use crate::rendezvous::rank;
use crate::view::AnnouncementView;
use crate::world::World;

/// What is to move, and what comes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rebalance {
    /// In the order in which they are to be made.
    pub moves: Vec<Move>,
    /// Every node, by name.
    pub nodes: Vec<Share>,
}

/// An address that is to move.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    /// Which.
    pub address: IpAddr,
    /// Its Announcement.
    pub name: String,
    /// The Services that hold it.
    pub services: Vec<ServiceKey>,
    /// The node that answers now.
    pub from: String,
    /// The node that is to.
    pub to: String,
}

/// What a node owns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// Its name.
    pub node: String,
    /// How many addresses now.
    pub before: u64,
    /// How many afterwards.
    pub after: u64,
    /// The most that it may own before something moves away for balance; `None` where nothing that it owns could.
    pub most: Option<u64>,
}

/// An address that is placed, and the nodes that could own it as gladly as any, by the hash.
struct Placed<'a> {
    seen: &'a AnnouncementView,
    owner: String,
    /// Whether the owner is not one of them: others are preferred.
    is_astray: bool,
    eligible: Vec<String>,
}

/// Plans the moves. Addresses that no Service of the namespace `only` holds stay, where one is named; so do those that a person has given
/// a place to, and those whose node is about to lose them anyway.
///
/// First goes each that is on a node while others are preferred: to the one that would be chosen now. Where all addresses have the same
/// eligible nodes, no fewer moves would do for balance: each takes one from a node that has too many to one that has room. Of those of a
/// node, the ones go first whose first node by the hash has room.
pub fn rebalance(world: &World, only: Option<&str>, most_moves: Option<usize>) -> Rebalance {
    let placed: Vec<_> = world.announcements().filter_map(|seen| Placed::of(world, seen)).collect();
    let before: BTreeMap<_, _> = world.nodes().keys().map(|node| (node.as_str(), world.load().owned(node))).collect();
    let mut owned = before.clone();
    let mut moves = Vec::<Move>::new();
    let may_move = |placed: &&Placed<'_>| {
        let ours = only.is_none_or(|only| placed.seen.services.iter().any(|service| service.namespace == only));
        ours && placed.seen.wish().is_none()
    };
    let mut left: Vec<_> = placed.iter().filter(may_move).collect();
    left.sort_by_key(|placed| placed.seen.address);
    let is_full = |moves: &Vec<Move>| most_moves.is_some_and(|most| moves.len() >= most);
    let go = |placed: &Placed<'_>, target: &str, owned: &mut BTreeMap<&str, u64>| {
        if let Some(owned) = owned.get_mut(placed.owner.as_str()) {
            *owned = owned.saturating_sub(1);
        }
        if let Some(owned) = owned.get_mut(target) {
            *owned += 1;
        }
        placed.to(target)
    };
    left.retain(|placed| {
        if !placed.is_astray || is_full(&moves) {
            return !placed.is_astray;
        }
        let most = placed.most(&owned);
        let has_room = |node: &&String| owned.get(node.as_str()).copied().unwrap_or_default() < most;
        if let Some(target) = placed.eligible.iter().find(has_room) {
            moves.push(go(placed, target, &mut owned));
        }
        false
    });
    // Each move makes two nodes more alike, so this ends; where all have the same eligible nodes, in the first round.
    let mut before_round = usize::MAX;
    while before_round != moves.len() {
        before_round = moves.len();
        for choice in 0..world.nodes().len() {
            left.retain(|placed| {
                let Some(target) = placed.eligible.get(choice) else { return true };
                let most = placed.most(&owned);
                let [from, to] =
                    [&placed.owner, target].map(|node| owned.get(node.as_str()).copied().unwrap_or_default());
                if is_full(&moves) || from <= most || to >= most {
                    return true;
                }
                moves.push(go(placed, target, &mut owned));
                false
            });
        }
    }
    let most_of = |node: &str| {
        let own = placed.iter().filter(|placed| placed.owner == node && !placed.is_astray);
        own.map(|placed| placed.most(&owned)).max()
    };
    let nodes = before.iter().map(|(node, before)| Share {
        node: (*node).to_owned(),
        before: *before,
        after: owned.get(node).copied().unwrap_or_default(),
        most: most_of(node),
    });
    Rebalance { nodes: nodes.collect(), moves }
}

impl<'a> Placed<'a> {
    /// Nothing where nobody owns it, or its node is about to lose it.
    fn of(world: &World, seen: &'a AnnouncementView) -> Option<Self> {
        let terms = Terms::of_announcement(world, seen);
        let question = terms.question(world, seen.address, Some(seen));
        let owner = holder(question).0?.to_owned();
        let candidates = eligible(&question).0.into_iter().filter(|candidate| candidate.tier == Tier::Ready);
        let candidates: Vec<_> = candidates.collect();
        let best = candidates.iter().map(|candidate| candidate.score).max()?;
        let mine = candidates.iter().find(|candidate| candidate.member.node == owner)?.score;
        let liked = candidates.into_iter().filter(|candidate| candidate.score == best);
        let mut eligible: Vec<_> = liked.map(|candidate| candidate.member.node).collect();
        eligible.sort_by_cached_key(|node| rank(node, seen.address));
        Some(Self { seen, owner, is_astray: mine < best, eligible })
    }

    /// The most that a node may own of those that could own it: as if one were chosen now.
    fn most(&self, owned: &BTreeMap<&str, u64>) -> u64 {
        let all: u64 = self.eligible.iter().filter_map(|node| owned.get(node.as_str())).sum();
        bound(all.saturating_sub(u64::from(!self.is_astray)), self.eligible.len() as u64)
    }

    fn to(&self, target: &str) -> Move {
        Move {
            address: self.seen.address,
            name: self.seen.name.clone(),
            services: self.seen.holders().collect(),
            from: self.owner.clone(),
            to: target.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests;
