//! What all planning comes to in the end: plan, take what was planned as done, plan again, until nothing is left to do.
//!
//! What a controller decides at one moment rests on one state: the claims of that moment are seen at once, the releases
//! only when the writes are done. So it goes in rounds. In each, every Service that is in line is planned in the world's own
//! order; then all writes succeed, and every node that was named answers.

pub mod simulate;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use berth_api::condition::types;
use berth_api::pool::Addresses;
use berth_api::service::ServiceKey;
use berth_api::{Announcement, Condition, ConditionStatus, IpFamily, Reason};
use berth_provider::Outcome;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::LoadBalancerIngress;
use kube::ResourceExt;

use crate::plan::{Plan, Step, releases, serve};
use crate::view::{AnnouncementView, Asks, PoolView, SaidCondition, ServiceView, reached};
use crate::world::{Change, World};

/// Rounds after which it is said that there is no end. A Service that waits for another's address waits two rounds at the
/// most, so this is enough for a queue of hundreds behind one address.
const ROUNDS: usize = 1_000;
/// The resourceVersion of the first write: no cluster has come that far, so what was written is newer than what was seen.
const FIRST_VERSION: u64 = 1 << 62;

/// What becomes of everything.
#[derive(Clone, Debug, PartialEq)]
pub struct Forecast {
    /// The Services that are served, or that give back what they had.
    pub services: BTreeMap<ServiceKey, Prospect>,
    /// The pools, by name.
    pub pools: Vec<PoolProspect>,
    /// Services that were still in line at the bound of rounds; what is said of them is not the last word.
    pub unsettled: BTreeSet<ServiceKey>,
}

/// What becomes of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prospect {
    /// The pools of its addresses, each once.
    pub pools: Vec<String>,
    /// Where its status says now that it is reached.
    pub before: Vec<String>,
    /// Where its status will say that it is reached.
    pub after: Vec<String>,
    /// What that means.
    pub outlook: Outlook,
    /// Why.
    pub reason: Reason,
    /// Why, for a person.
    pub message: String,
}

/// What becomes of where a Service is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outlook {
    /// It stays.
    Keep,
    /// An address comes, and none goes.
    Gain,
    /// Of a family there is no address any more, or no node answers any more for one that a node answers for now.
    Lose,
    /// An address is replaced by another.
    Move,
    /// There is none, and there comes none.
    Pending,
}

impl Outlook {
    /// What it is to have been reached at `before` and to be reached at `after`.
    pub fn of(before: &[String], after: &[String]) -> Self {
        // Names are a family of their own.
        let family = |place: &String| place.parse::<IpAddr>().ok().map(IpFamily::of);
        let stays = |place: &&String| after.contains(place);
        if before.is_empty() && after.is_empty() {
            Self::Pending
        } else if before.iter().any(|gone| !after.iter().any(|there| family(there) == family(gone))) {
            Self::Lose
        } else if !before.iter().all(|place| stays(&place)) {
            Self::Move
        } else if after.iter().all(|place| before.contains(place)) {
            Self::Keep
        } else {
            Self::Gain
        }
    }

    /// Whether somebody who uses an address now will not reach the Service by it any more.
    pub fn breaks(self) -> bool {
        matches!(self, Self::Lose | Self::Move)
    }
}

/// What becomes of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolProspect {
    /// Its name.
    pub name: String,
    /// The addresses that its specification names, of both families; 2^128 - 1 also stands for more.
    pub total: u128,
    /// Those that Services hold from it, also where it does not have them any more.
    pub used: u64,
    /// Those that it can still give.
    pub free: u128,
    /// What is wrong with it.
    pub problems: Vec<(Reason, String)>,
}

/// Plans until nothing is left to do.
///
/// `others` is what the other providers have to say of their Services. `before` names every Service that is to be told of,
/// with where its status says that it is reached: also those that the world does not know any more.
pub fn forecast(
    mut world: World,
    others: &BTreeMap<ServiceKey, Outcome>,
    before: &BTreeMap<ServiceKey, Vec<String>>,
    now: Timestamp,
) -> Forecast {
    world.expire(now.as_second());
    world.catch_up();
    let ours = |key: &&ServiceKey| world.service(key).is_some() || world.ipam.held_by(key).next().is_some();
    let told: BTreeSet<_> = before.keys().filter(ours).cloned().collect();
    let answered: BTreeSet<_> =
        told.iter().flat_map(|key| world.ipam.held_by(key)).filter(|address| is_answered(&world, *address)).collect();
    let pools_before: BTreeMap<_, _> =
        told.iter().map(|key| (key.clone(), pools_of(&world, world.ipam.held_by(key)))).collect();

    let mut course = Course::new(world, others, now);
    let unsettled = course.run();
    let services = told.into_iter().map(|key| {
        let before = before.get(&key).cloned().unwrap_or_default();
        let mut prospect = course.prospect(&key, before, &answered);
        if prospect.pools.is_empty() && !prospect.before.is_empty() {
            prospect.pools = pools_before.get(&key).cloned().unwrap_or_default();
        }
        (key, prospect)
    });
    let services = services.collect();
    Forecast { services, pools: course.pools(), unsettled }
}

/// A world on its way.
struct Course<'a> {
    world: World,
    others: &'a BTreeMap<ServiceKey, Outcome>,
    now: Timestamp,
    version: u64,
    /// What was said last of each Service.
    said: BTreeMap<ServiceKey, Vec<Condition>>,
    /// Nodes that do not answer whatever they are named for.
    dead: BTreeSet<String>,
}

/// What a round does for one Service, in this order.
struct Turn {
    key: ServiceKey,
    before: Vec<Step>,
    /// The Service with its new status, where one is published.
    status: Option<Box<ServiceView>>,
    after: Vec<Step>,
}

impl Turn {
    /// The Announcements that it writes.
    fn announcements(&self) -> impl Iterator<Item = String> + '_ {
        self.before.iter().chain(&self.after).map(|step| match step {
            Step::Claim { announcement, .. } | Step::Update { announcement } => announcement.name_any(),
            Step::Release(identity) => identity.name.clone(),
        })
    }
}

/// What would be done for one Service of the pools, or has to be for another.
struct Considered {
    /// For one of the pools with the Service as it is, because what is published is stamped when it is done.
    turn: Turn,
    served: Option<Plan>,
}

impl<'a> Course<'a> {
    fn new(world: World, others: &'a BTreeMap<ServiceKey, Outcome>, now: Timestamp) -> Self {
        Self { world, others, now, version: FIRST_VERSION, said: BTreeMap::new(), dead: BTreeSet::new() }
    }

    /// Rounds until nobody is in line. Returns who still is at the bound of rounds.
    fn run(&mut self) -> BTreeSet<ServiceKey> {
        let mut unsettled = BTreeSet::new();
        for _ in 0..ROUNDS {
            unsettled = self.round();
            if unsettled.is_empty() {
                break;
            }
        }
        unsettled
    }

    /// Plans everybody who is in line, and does it. Returns who that was.
    fn round(&mut self) -> BTreeSet<ServiceKey> {
        let (mut turns, mut keys): (Vec<Turn>, BTreeSet<ServiceKey>) = (Vec::new(), BTreeSet::new());
        // Of two that would write one Announcement, which they share, the second waits for what the first makes of it.
        let (mut touched, mut postponed) = (BTreeSet::new(), BTreeSet::new());
        while let Some(key) = self.world.next(|key| postponed.contains(key)) {
            keys.insert(key.clone());
            let plan = self.consider(key.clone());
            let names: BTreeSet<_> = plan.turn.announcements().collect();
            if names.is_disjoint(&touched) {
                touched.extend(names);
                turns.push(self.decide(plan));
            } else {
                self.world.mark(&key);
                postponed.insert(key);
            }
        }
        for Turn { key, before, status, after } in turns {
            for step in &before {
                self.write(step);
            }
            if let Some(view) = status {
                self.world.learn(Change::Service(key, Some(*view)));
            }
            for step in &after {
                self.write(step);
            }
        }
        self.world.unforesee_all();
        for key in &keys {
            self.answer(key);
        }
        keys
    }

    fn consider(&mut self, key: ServiceKey) -> Considered {
        let nothing_more = |turn| Considered { turn, served: None };
        let Some(view) = self.world.service(&key).cloned() else {
            let after = releases(&self.world, &key, &[]);
            return nothing_more(Turn { key, before: Vec::new(), status: None, after });
        };
        match view.asks {
            Asks::Us => {
                let mut served = serve(&self.world, &key, &view);
                let (before, after) = (std::mem::take(&mut served.before), std::mem::take(&mut served.after));
                Considered { turn: Turn { key, before, status: Some(Box::new(view)), after }, served: Some(served) }
            }
            Asks::AnotherProvider => {
                let Some(outcome) = self.others.get(&key) else {
                    return nothing_more(Turn { key, before: Vec::new(), status: None, after: Vec::new() });
                };
                // Until its request is met, what is published stays.
                let ingress = if outcome.met { outcome.ingress.clone() } else { view.ingress() };
                let named: Vec<_> =
                    view.addresses().chain(ingress.iter().filter_map(|i| i.ip.as_ref()?.parse().ok())).collect();
                let after = releases(&self.world, &key, &named);
                let status = self.published(&key, view, outcome, ingress);
                nothing_more(Turn { key, before: Vec::new(), status: Some(Box::new(status)), after })
            }
            Asks::Nobody => {
                let after = releases(&self.world, &key, &[]);
                nothing_more(Turn { key, before: Vec::new(), status: None, after })
            }
        }
    }

    /// Takes a plan as one that is being carried out.
    fn decide(&mut self, considered: Considered) -> Turn {
        let Considered { mut turn, served } = considered;
        if let Some(served) = served {
            self.world.set_waiting(&turn.key, served.lack, &served.claims);
            for (address, pool) in &served.claims {
                self.world.hold(*address, &turn.key, pool);
            }
            for (address, layer2) in turn.before.iter().chain(&turn.after).map(Step::names) {
                self.world.foresee(address, layer2);
            }
            if let Some(view) = turn.status {
                let ingress = served.outcome.ingress.clone();
                turn.status = Some(Box::new(self.published(&turn.key, *view, &served.outcome, ingress)));
            }
        }
        turn
    }

    /// A Service with what is said of it.
    fn published(
        &mut self,
        key: &ServiceKey,
        view: ServiceView,
        outcome: &Outcome,
        ingress: Vec<LoadBalancerIngress>,
    ) -> ServiceView {
        let said = outcome.conditions.iter().map(|c| SaidCondition::of(&view.stamped(c, self.now))).collect();
        self.said.insert(key.clone(), outcome.conditions.clone());
        ServiceView { reached: reached(&ingress), conditions: said, version: self.next_version(), ..view }
    }

    fn write(&mut self, step: &Step) {
        match step {
            Step::Claim { announcement, .. } | Step::Update { announcement } => self.announce(announcement),
            Step::Release(identity) => {
                self.cool(identity.address);
                self.world.learn(Change::Announcement(identity.name.clone(), None));
            }
        }
    }

    /// The status of its pool says from when on an address may be given again, where the pool wishes it.
    fn cool(&mut self, address: IpAddr) {
        let now = self.now.as_second();
        let name = self.world.ipam.pool_of(address).map(str::to_owned);
        let Some(name) = name.filter(|_| self.world.must_cool(address, now)) else { return };
        self.world.cool(address, now);
        let cooling = self.world.cooling(&name, now);
        if let Some(pool) = self.world.pool(&name).cloned() {
            self.world.learn(Change::Pool(name, Some(PoolView { cooling, ..pool })));
        }
    }

    /// The Announcement as the API server would show it.
    fn announce(&mut self, announcement: &Announcement) {
        let seen = self.world.announcement(announcement.spec.address).cloned();
        let written = AnnouncementView::of(announcement);
        let view = AnnouncementView {
            uid: seen.as_ref().map_or_else(|| format!("planned-{}", written.name), |seen| seen.uid.clone()),
            resource_version: self.next_version().to_string(),
            claimed: seen.as_ref().and_then(|seen| seen.claimed.clone()),
            foreign: seen.as_ref().and_then(|seen| seen.foreign),
            conflict: seen.and_then(|seen| seen.conflict),
            ..written
        };
        self.world.learn(Change::Announcement(view.name.clone(), Some(view)));
    }

    /// The nodes that are named for a Service's addresses say that they answer.
    fn answer(&mut self, key: &ServiceKey) {
        let held: Vec<_> = self.world.ipam.held_by(key).filter_map(|a| self.world.announcement(a)).cloned().collect();
        for view in held {
            let Some((owner, epoch)) =
                view.layer2.as_ref().and_then(|l| Some((l.owner.as_ref()?.to_string(), l.epoch)))
            else {
                continue;
            };
            if view.claimed.as_ref().is_none_or(|(_, claimed)| *claimed < epoch) && !self.dead.contains(&owner) {
                self.claim(view, owner, epoch);
            }
        }
    }

    /// A node says that it answers.
    fn claim(&mut self, view: AnnouncementView, node: String, epoch: u64) {
        let resource_version = self.next_version().to_string();
        let view = AnnouncementView { claimed: Some((node, epoch)), resource_version, ..view };
        self.world.learn(Change::Announcement(view.name.clone(), Some(view)));
    }

    fn next_version(&mut self) -> u64 {
        self.version += 1;
        self.version
    }

    fn prospect(&self, key: &ServiceKey, before: Vec<String>, answered: &BTreeSet<IpAddr>) -> Prospect {
        let Some(view) = self.world.service(key).filter(|view| view.asks != Asks::Nobody) else {
            let outlook = Outlook::of(&before, &[]);
            let message = "the Service is gone or asks Berth for no address any more; what it held is free again";
            let message = message.to_owned();
            return Prospect {
                pools: Vec::new(),
                before,
                after: Vec::new(),
                outlook,
                reason: Reason::Released,
                message,
            };
        };
        let said = |kind: &str| self.said.get(key).into_iter().flatten().find(|condition| condition.kind == kind);
        let after = places(&view.ingress());
        let announced = said(types::ANNOUNCED).filter(|condition| condition.status != ConditionStatus::True);
        let silent: Vec<_> =
            view.addresses().filter(|a| answered.contains(a) && !is_answered(&self.world, *a)).collect();
        let (outlook, reason, message) = match (announced, said(types::ALLOCATED)) {
            (Some(announced), _) if before.iter().any(|place| silent.iter().any(|a| a.to_string() == *place)) => {
                let named: Vec<_> = silent.iter().map(ToString::to_string).collect();
                let message = format!("no node answers for {} any more: {}", named.join(", "), announced.message);
                (Outlook::Lose, announced.reason, message)
            }
            (announced, Some(allocated)) => {
                let more = announced.map(|announced| format!("; {}", announced.message)).unwrap_or_default();
                let message = format!("{}{more}", allocated.message);
                (Outlook::of(&before, &after), allocated.reason, message)
            }
            (_, None) => {
                let message = "its provider has not said anything of it";
                (Outlook::of(&before, &after), Reason::Provisioning, message.to_owned())
            }
        };
        let ours = view.asks == Asks::Us;
        let pools = if ours { pools_of(&self.world, view.addresses()) } else { Vec::new() };
        Prospect { pools, before, after, outlook, reason, message }
    }

    fn pools(&self) -> Vec<PoolProspect> {
        let reports = self.world.ipam.reports().map(|(name, report)| {
            let addresses = self.world.pool(name).and_then(|pool| pool.addresses.as_ref().ok());
            let ranges = addresses.into_iter().flat_map(Addresses::ranges);
            PoolProspect {
                name: name.to_owned(),
                total: ranges.map(|range| range.size()).fold(0, u128::saturating_add),
                used: report.assigned.v4.saturating_add(report.assigned.v6),
                free: report.available.v4.saturating_add(report.available.v6),
                problems: report.problem.iter().map(|problem| (problem.reason(), problem.to_string())).collect(),
            }
        });
        reports.collect()
    }
}

/// Where a status says that a Service is reached: addresses, or names.
pub fn places(ingress: &[LoadBalancerIngress]) -> Vec<String> {
    ingress.iter().filter_map(|i| i.ip.clone().or_else(|| i.hostname.clone())).collect()
}

/// Whether a node is named for an address and has said that it answers.
fn is_answered(world: &World, address: IpAddr) -> bool {
    let announcement = world.announcement(address);
    let owner = announcement.and_then(|a| a.layer2.as_ref()?.owner.as_ref());
    let is_routed = announcement.is_some_and(|a| !a.routes.is_empty());
    is_routed || (owner.is_some() && announcement.is_some_and(|a| a.claimed.is_some()))
}

fn pools_of(world: &World, addresses: impl Iterator<Item = IpAddr>) -> Vec<String> {
    let mut pools = Vec::new();
    for pool in addresses.filter_map(|address| world.ipam.pool_of(address)) {
        if !pools.iter().any(|known| known == pool) {
            pools.push(pool.to_owned());
        }
    }
    pools
}

#[cfg(test)]
mod tests;
