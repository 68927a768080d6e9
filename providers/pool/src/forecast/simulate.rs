//! What would become of every address if nodes failed or were drained: by the speakers' own order of takeover and the controller's own
//! planner, on a copy of the world.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use berth_api::Reason;
use berth_api::service::ServiceKey;
use jiff::Timestamp;

use super::Course;
use crate::placement::{Draining, holder, named, place};
use crate::plan::Terms;
use crate::view::{AnnouncementView, NodeView, SliceView};
use crate::world::{Change, World};

/// What happens to nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// They die at once, without a word.
    Fail,
    /// They are to give up what they own.
    Drain,
}

/// What comes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Simulation {
    /// Every address that is announced or ought to be, lowest first, IPv4 before IPv6.
    pub addresses: Vec<Fate>,
    /// Every node, by name.
    pub nodes: Vec<NodeLoad>,
}

/// What becomes of an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fate {
    /// Which.
    pub address: IpAddr,
    /// The Services that hold it.
    pub services: Vec<ServiceKey>,
    /// The node that answers now.
    pub before: Option<String>,
    /// The node that will.
    pub after: Option<String>,
    /// What that means.
    pub turn: Turn,
    /// Why, as a code.
    pub reason: Reason,
    /// Why, for a person.
    pub message: String,
}

/// What becomes of who answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Turn {
    /// The same node goes on.
    Stays,
    /// A standby takes over, by itself.
    TakenOver,
    /// The controller names another node.
    Moves,
    /// It stays on a node that is being drained, because no other can.
    Blocked,
    /// A node answers now and none will.
    Lost,
    /// None answers now, and none will.
    Unserved,
}

/// How many addresses a node owns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeLoad {
    /// Its name.
    pub node: String,
    /// Now.
    pub before: u64,
    /// Afterwards.
    pub after: u64,
}

/// A node that does not exist.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no node `{node}`; there are {}", or_none(known))]
pub struct UnknownNode {
    /// Its name.
    pub node: String,
    /// All that there are.
    pub known: Vec<String>,
}

fn or_none(known: &[String]) -> String {
    if known.is_empty() { "none".to_owned() } else { known.join(", ") }
}

/// Fails if a node is not known.
///
/// # Errors
/// With the names of all that are.
pub fn must_know<'a>(world: &World, names: impl IntoIterator<Item = &'a String>) -> Result<(), UnknownNode> {
    match names.into_iter().find(|name| !world.nodes().contains_key(*name)) {
        Some(node) => Err(UnknownNode { node: node.clone(), known: world.nodes().keys().cloned().collect() }),
        None => Ok(()),
    }
}

/// Tries it. What is under way now is taken as done before.
///
/// # Errors
/// When a node does not exist.
pub fn simulate(
    world: World,
    fault: Fault,
    nodes: &BTreeSet<String>,
    now: Timestamp,
) -> Result<Simulation, UnknownNode> {
    must_know(&world, nodes)?;
    let others = BTreeMap::new();
    let mut course = Course::new(world, &others, now);
    course.run();
    let (before, routers_before) = (owners(&course.world), routers(&course.world));
    let mut taken_over = BTreeSet::new();
    match fault {
        Fault::Drain => {
            for name in nodes {
                course.change_node(name, |view| view.draining = view.draining.or(Some(Draining::Asked)));
            }
            course.run();
        }
        Fault::Fail => {
            // One that the cluster does not see alive is not counted on; what it answers for now, it goes on with.
            let down = course.world.nodes().iter().filter(|(_, node)| !node.ready).map(|(name, _)| name.clone());
            course.dead = down.chain(nodes.iter().cloned()).collect();
            // Nobody but the speakers knows yet.
            taken_over = course.take_over(nodes);
            for name in nodes {
                course.change_node(name, |view| view.ready = false);
            }
            course.lose_endpoints();
            course.run();
            // Those that the controller names now find that nobody answers.
            while !course.take_over(nodes).is_empty() {
                course.run();
            }
        }
    }
    let Course { world, dead, .. } = course;
    let after = owners(&world);
    let fates = before.iter().map(|(address, before)| {
        let fails = |owner: &String| {
            fault == Fault::Fail && (nodes.contains(owner) || (dead.contains(owner) && before.as_ref() != Some(owner)))
        };
        let owner = after.get(address).and_then(Option::as_ref).filter(|owner| !fails(owner));
        let turn = match (before, owner) {
            (None, None) => Turn::Unserved,
            (Some(_), None) => Turn::Lost,
            (before, Some(owner)) if before.as_ref() == Some(owner) => {
                if fault == Fault::Drain && nodes.contains(owner) { Turn::Blocked } else { Turn::Stays }
            }
            (_, Some(_)) if taken_over.contains(address) => Turn::TakenOver,
            (_, Some(_)) => Turn::Moves,
        };
        let (reason, message) = why(&world, *address, turn, fault);
        let services = world.announcement(*address).map(|seen| seen.holders().collect()).unwrap_or_default();
        Fate { address: *address, services, before: before.clone(), after: owner.cloned(), turn, reason, message }
    });
    let after = routers(&world);
    let gone = |node: &String| fault == Fault::Fail && nodes.contains(node);
    let routes = routers_before.into_iter().map(|(address, before)| {
        let left = after.get(&address).into_iter().flatten().filter(|node| !gone(node)).cloned().collect();
        routed_fate(&world, address, before, left)
    });
    let mut addresses: Vec<_> = fates.chain(routes).collect();
    addresses.sort_by_key(|fate| fate.address);
    let count = |node: &String, of: fn(&Fate) -> Option<&String>| {
        addresses.iter().filter(|fate| of(fate) == Some(node)).count() as u64
    };
    let nodes = world.nodes().keys().map(|node| NodeLoad {
        node: node.clone(),
        before: count(node, |fate| fate.before.as_ref()),
        after: count(node, |fate| fate.after.as_ref()),
    });
    let nodes = nodes.collect();
    Ok(Simulation { addresses, nodes })
}

/// Who answers for each address: who has said so, or else who is named.
fn owners(world: &World) -> BTreeMap<IpAddr, Option<String>> {
    let owner = |seen: &AnnouncementView| {
        let terms = Terms::of_announcement(world, seen);
        holder(terms.question(world, seen.address, Some(seen))).0.map(str::to_owned)
    };
    let answered = world.announcements().filter(|seen| seen.routes.is_empty());
    answered.map(|seen| (seen.address, owner(seen))).collect()
}

/// The nodes that route each address which is routed.
fn routers(world: &World) -> BTreeMap<IpAddr, BTreeSet<String>> {
    let routed = world.announcements().filter(|seen| !seen.routes.is_empty());
    routed.map(|seen| (seen.address, seen.routes.iter().flat_map(|way| way.nodes.iter().cloned()).collect())).collect()
}

/// What becomes of a routed address: routers leave out the nodes that go, by themselves.
fn routed_fate(world: &World, address: IpAddr, before: BTreeSet<String>, after: BTreeSet<String>) -> Fate {
    let told = |nodes: &BTreeSet<String>| (!nodes.is_empty()).then(|| named(nodes.iter().cloned().collect()));
    let (turn, reason, message) = if after.is_empty() {
        (Turn::Lost, Reason::NoEligibleNode, "every node that routes the address goes, and no other can".to_owned())
    } else {
        let message = "routers go on with the nodes that are left; no address moves".to_owned();
        (Turn::Stays, Reason::Announced, message)
    };
    let services = world.announcement(address).map(|seen| seen.holders().collect()).unwrap_or_default();
    Fate { address, services, before: told(&before), after: told(&after), turn, reason, message }
}

fn why(world: &World, address: IpAddr, turn: Turn, fault: Fault) -> (Reason, String) {
    let placement = world.announcement(address).map(|seen| {
        let terms = Terms::of_announcement(world, seen);
        place(terms.question(world, address, Some(seen)))
    });
    let announced = |message: &str| (Reason::Announced, message.to_owned());
    match (turn, placement) {
        (Turn::Stays, _) => announced("the node that answers goes on"),
        (Turn::TakenOver, _) => {
            announced("a standby takes over as soon as it misses the owner; no controller is asked")
        }
        (Turn::Moves, _) if fault == Fault::Drain => {
            announced("the controller names another node, and the old one goes on until that one answers")
        }
        (Turn::Moves, _) => announced(
            "owner and standbys fail at once: nobody answers until the cluster sees the nodes as down, which takes \
             Kubernetes 40 s by default, and the controller names others",
        ),
        (Turn::Blocked, Some(placement)) => placement.remark.unwrap_or((placement.reason, placement.message)),
        // It names one that is dead, and nobody who could stand by.
        (Turn::Lost, Some(placement)) if placement.reason == Reason::Announced => {
            (Reason::NoEligibleNode, "every node that could answer fails".to_owned())
        }
        (_, Some(placement)) => (placement.reason, placement.message),
        (_, None) => (Reason::Released, "no Service holds it any more".to_owned()),
    }
}

impl Course<'_> {
    fn change_node(&mut self, name: &str, change: impl FnOnce(&mut NodeView)) {
        if let Some(mut view) = self.world.node_view(name).cloned() {
            change(&mut view);
            self.world.learn(Change::Node(name.to_owned(), Some(view)));
        }
    }

    /// Pods on dead nodes serve no more.
    fn lose_endpoints(&mut self) {
        let serves = |node: &str| !self.dead.contains(node);
        let slices = self.world.slices().filter(|(_, slice)| !slice.serving.iter().all(|on| serves(&on.node)));
        let left: Vec<_> = slices
            .map(|(id, slice)| {
                let serving = slice.serving.iter().filter(|on| serves(&on.node)).cloned().collect();
                (id.clone(), SliceView { serving, ..slice.clone() })
            })
            .collect();
        for (id, slice) in left {
            self.world.learn(Change::Slice(id, Some(slice)));
        }
    }

    /// Of every address whose owner fails, or is named and does not answer, the first standby that lives claims it. Returns which.
    fn take_over(&mut self, failed: &BTreeSet<String>) -> BTreeSet<IpAddr> {
        let lives = |node: &str| self.world.nodes().contains_key(node) && !self.dead.contains(node);
        let claims: Vec<_> = self
            .world
            .announcements()
            .filter_map(|seen| {
                let assignment = seen.layer2.as_ref()?.written();
                let terms = Terms::of_announcement(&self.world, seen);
                let (owner, epoch) = holder(terms.question(&self.world, seen.address, Some(seen)));
                let next = assignment.standbys.into_iter().find(|standby| lives(standby))?;
                let owner = owner?;
                let is_named_only = seen.claimed.as_ref().is_none_or(|(node, _)| node != owner);
                let is_silent = failed.contains(owner) || (is_named_only && self.dead.contains(owner));
                is_silent.then(|| (seen.clone(), next, epoch + 1))
            })
            .collect();
        let taken = claims.iter().map(|(seen, ..)| seen.address).collect();
        for (seen, next, epoch) in claims {
            self.claim(seen, next, epoch);
        }
        taken
    }
}

#[cfg(test)]
mod tests;
