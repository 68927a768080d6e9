//! What is to be done for one Service: pure, from the world as it is known.
//!
//! Order of the steps: the claim (the Announcement) comes before the ingress, so that its uniqueness and not ours is
//! what prevents double use; a release comes after the ingress that replaces it (make before break).

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use berth_api::condition::types;
use berth_api::crd::{AnnouncementSpec, ServiceRef};
use berth_api::names::{announcement_name, part_label};
use berth_api::service::{ServiceKey, TrafficPolicy};
use berth_api::{Announcement, Condition, ConditionStatus, Reason};
use berth_pool::ipam::{Ask, Choice};
use berth_pool::placement::{Placement, Question, place};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::LoadBalancerIngress;

use crate::note::Note;
use crate::status::{self, ServiceStatus};
use crate::view::{AnnouncementView, ServiceView};
use crate::world::World;

/// How traffic reaches the address: nodes accept it as it is, so clients inside the cluster may short-cut it
/// (Service API, `ipMode`).
const IP_MODE: &str = "VIP";

/// One write. Each is idempotent: made twice it changes nothing more.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// Create the Announcement of an address.
    Claim(Ipv4Addr, Box<Announcement>),
    /// Replace an Announcement under its resourceVersion.
    Update(Box<Announcement>),
    /// Write the Service's status, then say it by events.
    Status(ServiceStatus, Vec<Note>),
    /// Delete the Announcement that was seen, and no other of its name.
    Release(AnnouncementIdentity),
}

/// The very Announcement that was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AnnouncementIdentity {
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) resource_version: String,
}

/// What is to be done for one Service.
#[derive(Clone, Debug, Default)]
pub(crate) struct Plan {
    /// In this order; the first that fails ends it.
    pub(crate) steps: Vec<Step>,
    /// An address that the first step claims, and its pool.
    pub(crate) claims: Option<(Ipv4Addr, String)>,
    /// Refused; to be planned again when something becomes free.
    pub(crate) waiting: bool,
}

/// Plans one Service.
pub(crate) fn plan(world: &World, key: &ServiceKey, now: Timestamp) -> Plan {
    match world.service(key) {
        Some(view) if view.ours => serve(world, key, view, now),
        Some(view) => let_go(world, key, view),
        None => Plan { steps: releases(world, key, &[]), ..Plan::default() },
    }
}

fn serve(world: &World, key: &ServiceKey, view: &ServiceView, now: Timestamp) -> Plan {
    let wish = choose(world, key, view);
    let kept = || {
        let mut held = world.ipam.held_by(key);
        let in_status = world.ipam.held_by(key).find(|a| Some(*a) == view.previous());
        let address = in_status.or_else(|| held.next())?;
        Some(Choice { address, pool: world.ipam.pool_of(address).unwrap_or_default().to_owned() })
    };
    let (choice, allocated) = match wish {
        Ok(choice) => {
            let Choice { address, pool } = &choice;
            let message = if world.ipam.is_outside_pools(*address) {
                format!("{address}, kept although IPAddressPool `{pool}`, which it is from, does not have it any more")
            } else {
                format!("{address} from IPAddressPool `{pool}`")
            };
            (Some(choice), condition(types::ALLOCATED, ConditionStatus::True, Reason::Allocated, message))
        }
        Err((reason, message)) => {
            let kept = kept();
            let stays = kept.as_ref().map(|c| format!("; {} stays until then", c.address)).unwrap_or_default();
            let message = format!("{message}{stays}");
            (kept, condition(types::ALLOCATED, ConditionStatus::False, reason, message))
        }
    };
    let waiting = allocated.status != ConditionStatus::True;

    let mut plan = Plan { waiting, ..Plan::default() };
    let Some(choice) = choice else {
        plan.push_status(status::change(key, view, Vec::new(), &[allocated], now));
        plan.steps.extend(releases(world, key, &[]));
        return plan;
    };
    let new = Candidate::of(world, key, view, choice);
    let old = kept().filter(|old| old.address != new.choice.address).map(|old| Candidate::of(world, key, view, old));
    let old = old.filter(|old| old.is_answered() && old.placement.reason == Reason::Announced);
    let Some(old) = old.filter(|_| !new.is_answered()) else {
        let (address, announced) = (new.choice.address, new.announced());
        plan.keep(key, view, new);
        plan.push_status(status::change(key, view, ingress(address), &[allocated, announced], now));
        plan.steps.extend(releases(world, key, &[address]));
        return plan;
    };
    // What works is not taken away before its replacement does.
    let (stays, wanted) = (old.choice.address, new.choice.address);
    let can_work = new.placement.reason == Reason::Announced;
    let (reason, message) = if can_work {
        (Reason::AddressPending, format!("{wanted} is claimed; {stays} stays until a node answers for it"))
    } else {
        (new.placement.reason, format!("{}; {stays} stays until then", new.placement.message))
    };
    let allocated = condition(types::ALLOCATED, ConditionStatus::False, reason, message);
    let announced = old.announced();
    plan.waiting = true;
    plan.keep(key, view, old);
    if can_work {
        plan.keep(key, view, new);
    }
    plan.push_status(status::change(key, view, ingress(stays), &[allocated, announced], now));
    let kept = [stays, wanted];
    plan.steps.extend(releases(world, key, if can_work { &kept } else { &kept[..1] }));
    plan
}

/// An address for a Service, and what would become of it.
struct Candidate<'a> {
    choice: Choice,
    existing: Option<&'a AnnouncementView>,
    placement: Placement,
}

impl<'a> Candidate<'a> {
    fn of(world: &'a World, key: &ServiceKey, view: &ServiceView, choice: Choice) -> Self {
        let existing = world.announcement(choice.address);
        let placement = placement(world, key, view.policy, choice.address, &choice.pool, existing);
        Self { choice, existing, placement }
    }

    /// Whether a node has said that it answers.
    fn is_answered(&self) -> bool {
        self.existing.is_some_and(|e| e.claimed.is_some())
    }

    fn announced(&self) -> Condition {
        let conflict = self.existing.and_then(|e| e.conflict.as_ref());
        if let (Reason::Announced, Some((answers, message))) = (self.placement.reason, conflict) {
            let status = if *answers { ConditionStatus::True } else { ConditionStatus::False };
            return condition(types::ANNOUNCED, status, Reason::AddressConflict, message.clone());
        }
        announced(&self.placement)
    }
}

impl Plan {
    /// Claims the address, or brings its Announcement up to date.
    fn keep(&mut self, key: &ServiceKey, view: &ServiceView, candidate: Candidate<'_>) {
        let Candidate { choice: Choice { address, pool }, existing, placement } = candidate;
        let desired = announcement(key, view, address, &pool, placement, existing);
        match existing {
            None => {
                self.claims = Some((address, pool));
                self.steps.push(Step::Claim(address, Box::new(desired)));
            }
            Some(seen) if differs(seen, &desired) => self.steps.push(Step::Update(Box::new(desired))),
            Some(_) => {}
        }
    }

    fn push_status(&mut self, change: Option<(ServiceStatus, Vec<Note>)>) {
        self.steps.extend(change.map(|(status, notes)| Step::Status(status, notes)));
    }
}

fn ingress(address: Ipv4Addr) -> Vec<LoadBalancerIngress> {
    vec![LoadBalancerIngress {
        ip: Some(address.to_string()),
        ip_mode: Some(IP_MODE.to_owned()),
        ..LoadBalancerIngress::default()
    }]
}

fn choose(world: &World, key: &ServiceKey, view: &ServiceView) -> Result<Choice, (Reason, String)> {
    let request = view.request.as_ref().map_err(|e| (e.reason(), e.to_string()))?;
    let ask = Ask {
        service: key,
        address: request.address,
        pool: request.pool.as_deref(),
        previous: view.previous(),
        wants_sharing: view.wants_sharing,
    };
    world.ipam.choose(ask).map_err(|refusal| (refusal.reason(), refusal.to_string()))
}

/// The Service lost our class or type: the ingress goes first, then what it held.
fn let_go(world: &World, key: &ServiceKey, view: &ServiceView) -> Plan {
    let mut steps = Vec::new();
    if let Some((status, notes)) = status::clear(key, view) {
        steps.push(Step::Status(status, notes));
    }
    steps.extend(releases(world, key, &[]));
    Plan { steps, ..Plan::default() }
}

fn releases(world: &World, key: &ServiceKey, keep: &[Ipv4Addr]) -> Vec<Step> {
    let held = world.ipam.held_by(key).filter(|a| !keep.contains(a));
    held.filter_map(|address| world.announcement(address))
        .map(|seen| {
            Step::Release(AnnouncementIdentity {
                name: seen.name.clone(),
                uid: seen.uid.clone(),
                resource_version: seen.resource_version.clone(),
            })
        })
        .collect()
}

fn placement(
    world: &World,
    key: &ServiceKey,
    policy: TrafficPolicy,
    address: Ipv4Addr,
    pool: &str,
    existing: Option<&AnnouncementView>,
) -> Placement {
    let rules = world.rules(pool);
    let serving = (policy == TrafficPolicy::Local).then(|| world.serving(key));
    place(Question {
        address: IpAddr::V4(address),
        nodes: world.nodes(),
        rules: &rules,
        serving: serving.as_ref(),
        current: existing.and_then(|e| e.spec.layer2.as_ref()),
        claimed: existing.and_then(|e| e.claimed.as_ref()).map(|(node, epoch)| (node.as_str(), *epoch)),
    })
}

fn announcement(
    key: &ServiceKey,
    view: &ServiceView,
    address: Ipv4Addr,
    pool: &str,
    placement: Placement,
    existing: Option<&AnnouncementView>,
) -> Announcement {
    let layer2 = placement.assignment;
    let mut labels: BTreeMap<_, _> = existing.map(|e| e.labels.clone()).unwrap_or_default();
    labels.retain(|label, _| !label.starts_with(berth_api::names::PART_LABEL_PREFIX));
    if let Some(layer2) = &layer2 {
        labels.extend(layer2.standbys.iter().map(|node| (part_label(node), "standby".to_owned())));
        labels.extend(layer2.owner.iter().map(|node| (part_label(node), "owner".to_owned())));
    }
    let service = ServiceRef { namespace: key.namespace.clone(), name: key.name.clone(), uid: view.uid.clone() };
    let spec =
        AnnouncementSpec { address: IpAddr::V4(address), pool: pool.to_owned(), services: vec![service], layer2 };
    let mut announcement = Announcement::new(&announcement_name(IpAddr::V4(address)), spec);
    announcement.metadata.labels = (!labels.is_empty()).then_some(labels);
    announcement.metadata.resource_version = existing.map(|e| e.resource_version.clone());
    announcement.metadata.uid = existing.map(|e| e.uid.clone());
    announcement
}

fn differs(seen: &AnnouncementView, desired: &Announcement) -> bool {
    seen.spec != desired.spec || Some(&seen.labels).filter(|l| !l.is_empty()) != desired.metadata.labels.as_ref()
}

fn announced(placement: &Placement) -> Condition {
    let status = if placement.reason == Reason::Announced { ConditionStatus::True } else { ConditionStatus::False };
    // Who answers is in the Announcement; here it would be a write on every Service at every failover.
    let message = match placement.reason {
        Reason::Announced => "nodes are named that answer for the address; its Announcement says which".to_owned(),
        _ => placement.message.clone(),
    };
    condition(types::ANNOUNCED, status, placement.reason, message)
}

fn condition(kind: &'static str, status: ConditionStatus, reason: Reason, message: String) -> Condition {
    Condition { kind, status, reason, message }
}

#[cfg(test)]
mod tests;
