//! The address of one family of a Service: what it has, what it is to have, and how one becomes the other.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use crate::ipam::Choice;
use crate::placement::{Placement, Question, place};
use berth_api::annotations::TAKEN_AGAIN;
use berth_api::condition::types;
use berth_api::crd::{AnnouncementSpec, Layer2Assignment, LocalPolicy, RefusedRoute, RouteAssignment, ServiceRef};
use berth_api::names::announcement_name;
use berth_api::service::{ServiceKey, TrafficPolicy};
use berth_api::{Announcement, Condition, ConditionStatus, IpFamily, Reason};
use kube::ResourceExt as _;

use super::cover::Cover;
use super::{Plan, Step, condition, kernel, must_leave};
use crate::view::{AnnouncementView, Assignment, ServiceView, key_of, part_labels};
use crate::world::World;

/// The address of one family.
pub(super) struct Slot<'a> {
    /// What the ingress names.
    pub(super) current: Candidate<'a>,
    /// What is claimed to replace it.
    next: Option<Candidate<'a>>,
    /// Why the address that is wanted is not in the ingress yet.
    pub(super) pending: Option<(Reason, String)>,
}

impl<'a> Slot<'a> {
    /// What works is not taken away before its replacement does: while a node answers for `held` and none for `wanted`,
    /// the ingress names `held`; but where it may not stay (`leaves`), only as long as it takes for a node to answer.
    pub(super) fn of(
        world: &'a World,
        key: &ServiceKey,
        view: &ServiceView,
        wanted: Choice,
        held: Option<Choice>,
        leaves: bool,
    ) -> Self {
        let new = Candidate::of(world, key, view, wanted);
        let old = held.filter(|old| old.address != new.choice.address && !new.is_answered());
        let old = old.map(|old| Candidate::of(world, key, view, old));
        let may_wait = !leaves || new.placement.reason == Reason::Announced;
        let old = old.filter(|old| may_wait && old.is_answered() && old.placement.reason == Reason::Announced);
        let Some(old) = old else {
            return Self { current: new, next: None, pending: None };
        };
        let (stays, wanted) = (old.choice.address, new.choice.address);
        if new.placement.reason == Reason::Announced {
            let message = format!("{wanted} is claimed; {stays} stays until a node answers for it");
            Self { current: old, next: Some(new), pending: Some((Reason::AddressPending, message)) }
        } else {
            let message = format!("{}; {stays} stays until then", new.placement.message);
            Self { current: old, next: None, pending: Some((new.placement.reason, message)) }
        }
    }

    /// The address that the ingress names.
    pub(super) fn address(&self) -> IpAddr {
        self.current.choice.address
    }

    /// The addresses that stay held.
    pub(super) fn kept(&self) -> impl Iterator<Item = IpAddr> {
        std::iter::once(&self.current).chain(&self.next).map(|candidate| candidate.choice.address)
    }

    /// What to say of an address that is given.
    pub(super) fn told(&self, world: &World) -> String {
        let Choice { address, pool } = &self.current.choice;
        if world.ipam.is_outside_pools(*address) {
            format!("{address}, kept although IPAddressPool `{pool}`, which it is from, does not have it any more")
        } else {
            format!("{address} from IPAddressPool `{pool}`")
        }
    }
}

impl Plan {
    /// Claims what a slot holds, or brings the Announcements up to date.
    pub(super) fn keep(&mut self, key: &ServiceKey, slot: Slot<'_>) {
        for candidate in std::iter::once(slot.current).chain(slot.next) {
            let Candidate { choice: Choice { address, pool }, existing, services, placement, spoilt: _, was_had } =
                candidate;
            let mut desired = announcement(address, &pool, services, placement, existing);
            if was_had {
                desired.annotations_mut().insert(TAKEN_AGAIN.to_owned(), "true".to_owned());
            }
            let is_new = existing.is_none_or(|seen| !seen.holders().any(|holder| holder == *key));
            if is_new {
                self.claims.push((address, pool));
            }
            match existing {
                None => self.before.push(Step::Claim { address, announcement: Box::new(desired) }),
                Some(seen) if differs(seen, &desired) => {
                    self.before.push(Step::Update { announcement: Box::new(desired) });
                }
                Some(_) => {}
            }
        }
    }
}

/// The condition that speaks for all addresses: that of the first which nobody can announce, with all their messages.
pub(super) fn announced(slots: &[Slot<'_>]) -> Option<Condition> {
    let mut told: Vec<_> = slots.iter().map(|slot| (slot.address(), slot.current.announced())).collect();
    told.sort_by_key(|(_, condition)| {
        (condition.status == ConditionStatus::True, condition.reason == Reason::Announced)
    });
    let (_, worst) = told.first()?.clone();
    if told.iter().all(|(_, condition)| *condition == worst) {
        return Some(worst);
    }
    let bad = told.iter().filter(|(_, condition)| condition.reason != Reason::Announced);
    let messages: Vec<_> = bad.map(|(address, condition)| format!("{address}: {}", condition.message)).collect();
    Some(Condition { message: messages.join("; "), ..worst })
}

/// An address for a Service, and what would become of it.
pub(super) struct Candidate<'a> {
    choice: Choice,
    existing: Option<&'a AnnouncementView>,
    /// All that hold it then.
    services: Vec<ServiceRef>,
    placement: Placement,
    /// What a node's kernel does to it, if anything.
    spoilt: Option<(Reason, String)>,
    /// The Service has it by its status alone.
    was_had: bool,
}

impl<'a> Candidate<'a> {
    fn of(world: &'a World, key: &ServiceKey, view: &ServiceView, choice: Choice) -> Self {
        let existing = world.announcement(choice.address);
        let services = with(world, existing, key, view, choice.address);
        let placement = placement(world, &services, view.policy, choice.address, &choice.pool, existing);
        let spoilt = kernel::spoils(world.nodes(), choice.address, placement.assignment.as_ref());
        let was_had = existing.is_none() && view.addresses().any(|address| address == choice.address);
        Self { choice, existing, services, placement, spoilt, was_had }
    }

    /// Whether a node has said that it answers.
    fn is_answered(&self) -> bool {
        let is_routed = |e: &AnnouncementView| !e.routes.is_empty() && self.placement.reason == Reason::Announced;
        self.existing.is_some_and(|e| e.claimed.is_some() || is_routed(e))
    }

    fn announced(&self) -> Condition {
        if let Some((reason, message)) = &self.placement.remark {
            return condition(types::ANNOUNCED, ConditionStatus::True, *reason, message.clone());
        }
        // What was said on the link is of no account where nobody answers there.
        let is_routed = !self.placement.routes.is_empty();
        let conflict = self.existing.filter(|_| !is_routed).and_then(|e| e.conflict.as_ref());
        if let (Reason::Announced, Some((answers, message))) = (self.placement.reason, conflict) {
            let status = if *answers { ConditionStatus::True } else { ConditionStatus::False };
            return condition(types::ANNOUNCED, status, Reason::AddressConflict, message.clone());
        }
        // Who answers is in the Announcement; here it would be a write on every Service at every failover.
        let (status, message) = match self.placement.reason {
            Reason::Announced if !self.services.iter().any(|service| service.serving) => {
                let message = "nodes are named that answer for the address, and connections are refused, because the Service has \
                               no endpoint that serves; look at its selector and at the readiness of its pods";
                return condition(
                    types::ANNOUNCED,
                    ConditionStatus::True,
                    Reason::NoServingEndpoints,
                    message.to_owned(),
                );
            }
            Reason::Announced if let Some((reason, message)) = &self.spoilt => {
                return condition(types::ANNOUNCED, ConditionStatus::True, *reason, message.clone());
            }
            Reason::Announced if is_routed => (ConditionStatus::True, self.placement.message.clone()),
            Reason::Announced => (
                ConditionStatus::True,
                "nodes are named that answer for the address; its Announcement says which".to_owned(),
            ),
            _ => (ConditionStatus::False, self.placement.message.clone()),
        };
        condition(types::ANNOUNCED, status, self.placement.reason, message)
    }
}

/// The Services of an address with this one among them, on the terms that it has now; but where it is to leave because of those, it
/// stays on the ones that it came with, so that not the others have to.
fn with(
    world: &World,
    existing: Option<&AnnouncementView>,
    key: &ServiceKey,
    view: &ServiceView,
    address: IpAddr,
) -> Vec<ServiceRef> {
    let mut services = existing.map(|seen| seen.services.clone()).unwrap_or_default();
    let is_in = services.iter().any(|service| key_of(service) == *key);
    if is_in && existing.is_some_and(|seen| must_leave(world, key, view, seen.address).is_some()) {
        return services;
    }
    let family = IpFamily::of(address);
    let local = view.health_check_node_port.map(|health_check_node_port| {
        Box::new(LocalPolicy { health_check_node_port, endpoints: world.checked(key, family) })
    });
    let mine = ServiceRef {
        namespace: key.namespace.clone(),
        name: key.name.clone(),
        uid: view.uid.clone(),
        sharing: view.sharing.clone(),
        serving: world.serves(key, family),
        tcp_port: view.tcp_port,
        local,
    };
    match services.iter_mut().find(|service| key_of(service) == *key) {
        Some(service) => *service = mine,
        None => services.push(mine),
    }
    services
}

/// An address as it is for those who stay when one Service leaves; `None` when nobody stays.
pub(super) fn without(world: &World, seen: &AnnouncementView, key: &ServiceKey) -> Option<Announcement> {
    let services: Vec<_> = seen.services.iter().filter(|service| key_of(service) != *key).cloned().collect();
    let policy = world.service(&key_of(services.first()?)).map_or(TrafficPolicy::Cluster, |view| view.policy);
    let (address, pool) = (seen.address, &seen.pool);
    let placement = placement(world, &services, policy, address, pool, Some(seen));
    Some(announcement(address, pool, services, placement, Some(seen)))
}

/// What decides which nodes may answer for an address, apart from what they are themselves.
pub(crate) struct Terms<'a> {
    cover: Cover,
    routed: Arc<[RouteAssignment]>,
    refused: BTreeMap<&'a str, &'a RefusedRoute>,
    serving: Option<BTreeSet<String>>,
    current: Option<Layer2Assignment>,
}

impl<'a> Terms<'a> {
    /// Those of an address that these Services hold.
    ///
    /// Those who share an address came with the same policy, and with the Local policy with the same pods; where one has none on a node
    /// all the same, that node cannot answer for all. `policy` is that of the one who has it alone.
    pub(crate) fn of(
        world: &'a World,
        services: &[ServiceRef],
        policy: TrafficPolicy,
        address: IpAddr,
        pool: &str,
        existing: Option<&AnnouncementView>,
    ) -> Self {
        let family = IpFamily::of(address);
        let is_local = match services {
            [] | [_] => policy == TrafficPolicy::Local,
            [one, ..] => one.sharing.as_ref().is_some_and(|terms| terms.local_selector.is_some()),
        };
        let of_all = || {
            let mut of_each = services.iter().map(|service| world.serving(&key_of(service), family));
            let first = of_each.next().unwrap_or_default();
            of_each.fold(first, |all, one| all.intersection(&one).cloned().collect())
        };
        let cover = Cover::of(world, pool, services);
        let is_routed = cover.rules.iter().any(|rule| rule.route.is_some());
        Self {
            cover,
            routed: existing.map(|e| e.routes.clone()).unwrap_or_default(),
            refused: if is_routed { world.refused_routes(address) } else { BTreeMap::new() },
            serving: is_local.then(of_all),
            current: existing.and_then(|e| e.layer2.as_ref()).map(Assignment::written),
        }
    }

    /// Those of an Announcement as it is.
    pub(crate) fn of_announcement(world: &'a World, seen: &AnnouncementView) -> Self {
        let holder = seen.services.first().and_then(|service| world.service(&key_of(service)));
        let policy = holder.map_or(TrafficPolicy::Cluster, |view| view.policy);
        Self::of(world, &seen.services, policy, seen.address, &seen.pool, Some(seen))
    }

    /// What is asked of placement.
    pub(crate) fn question<'b>(
        &'b self,
        world: &'b World,
        address: IpAddr,
        existing: Option<&'b AnnouncementView>,
    ) -> Question<'b> {
        Question {
            address,
            nodes: world.nodes(),
            rules: &self.cover.rules,
            unselected: self.cover.unselected.as_ref(),
            serving: self.serving.as_ref(),
            current: self.current.as_ref(),
            routed: &self.routed,
            refused: &self.refused,
            claimed: existing.and_then(|e| e.claimed.as_ref()).map(|(node, epoch)| (node.as_str(), *epoch)),
            load: world.load(),
            wish: existing.and_then(AnnouncementView::wish),
        }
    }
}

fn placement(
    world: &World,
    services: &[ServiceRef],
    policy: TrafficPolicy,
    address: IpAddr,
    pool: &str,
    existing: Option<&AnnouncementView>,
) -> Placement {
    let terms = Terms::of(world, services, policy, address, pool, existing);
    place(terms.question(world, address, existing))
}

fn announcement(
    address: IpAddr,
    pool: &str,
    services: Vec<ServiceRef>,
    placement: Placement,
    existing: Option<&AnnouncementView>,
) -> Announcement {
    let Placement { assignment: layer2, routes, .. } = placement;
    let mut labels = existing.map(|e| e.labels.unpacked()).unwrap_or_default();
    labels.extend(
        part_labels(layer2.as_ref(), &routes, &services).into_iter().map(|(label, part)| (label, part.to_owned())),
    );
    let spec = AnnouncementSpec { address, pool: pool.to_owned(), services, layer2, routes };
    let mut announcement = Announcement::new(&announcement_name(address), spec);
    announcement.metadata.labels = (!labels.is_empty()).then_some(labels);
    announcement.metadata.resource_version = existing.map(|e| e.resource_version.clone());
    announcement.metadata.uid = existing.map(|e| e.uid.clone());
    if let Some(others) = existing.and_then(|e| e.others.as_ref()) {
        others.write(&mut announcement.metadata);
    }
    announcement
}

/// Other labels are taken over as they are, and those of the parts follow from the specification.
fn differs(seen: &AnnouncementView, desired: &Announcement) -> bool {
    !seen.has_part_labels || seen.spec() != desired.spec
}
