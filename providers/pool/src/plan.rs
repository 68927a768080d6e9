//! What is to be done for one Service.
//!
//! Order of the steps: the claim (the Announcement) comes before the ingress, so that its uniqueness and not ours is
//! what prevents double use; a release comes after the ingress that replaces it (make before break, for each family by
//! itself). However many addresses change, the status is written once.

mod cover;
mod kernel;
mod slot;

use std::fmt;
use std::net::IpAddr;

use crate::ipam::{Answer, Ask, Choice, Labels, Refusal, is_collision};
use berth_api::condition::types;
use berth_api::crd::Layer2Assignment;
use berth_api::service::{Request, Second, ServiceKey};
use berth_api::{Announcement, Condition, ConditionStatus, IpFamily, PerFamily, Reason};
use berth_provider::Outcome;
use kube::ResourceExt;
use serde::Serialize;

use crate::view::{Reached, ServiceView, key_of};
use crate::world::{Lack, World};
use slot::Slot;
pub(crate) use slot::Terms;

/// One write. Each is idempotent: made twice it changes nothing more.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "effect")]
pub enum Step {
    /// Create the Announcement of an address.
    Claim {
        /// The address.
        address: IpAddr,
        /// What is created.
        announcement: Box<Announcement>,
    },
    /// Replace an Announcement under its resourceVersion: other nodes, or other Services that share it.
    Update {
        /// What it is replaced by.
        announcement: Box<Announcement>,
    },
    /// Delete the Announcement that was seen, and no other of its name.
    Release(AnnouncementIdentity),
}

impl Step {
    /// The address whose Announcement it writes, and who is named for it then; nobody where it is deleted.
    pub fn names(&self) -> (IpAddr, Option<&Layer2Assignment>) {
        match self {
            Self::Claim { address, announcement } => (*address, announcement.spec.layer2.as_ref()),
            Self::Update { announcement } => (announcement.spec.address, announcement.spec.layer2.as_ref()),
            Self::Release(identity) => (identity.address, None),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Claim { address, .. } => write!(f, "claim {address}"),
            Self::Update { announcement } => write!(f, "update the Announcement {}", announcement.name_any()),
            Self::Release(identity) => write!(f, "release {}", identity.name),
        }
    }
}

/// The very Announcement that was seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AnnouncementIdentity {
    /// The address that it is of.
    pub address: IpAddr,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Its resourceVersion.
    pub resource_version: String,
}

/// What is to be done for one Service.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Before the outcome is published, in this order; the first that fails ends it.
    pub before: Vec<Step>,
    /// What is to be published.
    pub outcome: Outcome,
    /// After it was published: what nobody is told of any more is given back.
    pub after: Vec<Step>,
    /// The addresses that steps claim, and their pools.
    pub claims: Vec<(IpAddr, String)>,
    /// The addresses that stay.
    pub kept: Vec<IpAddr>,
    /// The addresses that it loses and did not ask to leave, and why: those without another in their place, and those that were never its
    /// own because a foreign machine has them.
    pub lost: Vec<(IpAddr, Refusal)>,
    /// What it waits for; to be planned again when that may have come.
    pub lack: Option<Lack>,
}

/// Plans one Service that asks for addresses.
pub fn serve(world: &World, key: &ServiceKey, view: &ServiceView) -> Plan {
    let wish = choose(world, key, view);
    let incomplete = |family| held(world, key, view, family).is_none();
    // Of a pair that was claimed in part and then refused, only what people know of stays.
    let half_a_pair =
        wish.is_err() && view.families.second == Some(Second::Required) && view.families.iter().any(incomplete);
    let (mut slots, mut left, mut lost) = (Vec::new(), Vec::new(), Vec::new());
    for family in view.families.iter() {
        let held = held(world, key, view, family);
        let held = held.filter(|held| !half_a_pair || view.addresses().any(|in_status| in_status == held.address));
        let leaves = held.as_ref().and_then(|held| Some((held.address, must_leave(world, key, view, held.address)?)));
        let chosen = wish.as_ref().ok().and_then(|answer| choice_of(answer, family));
        match (chosen, leaves) {
            // Where two take up one port, traffic for the one reaches the other now, so nothing is waited for; and who only has the
            // name of one that held it never had it.
            (Some(wanted), Some((address, refusal)))
                if is_collision(&refusal) || !is_the_holder(world, key, view, address) =>
            {
                slots.push(Slot::of(world, key, view, wanted, None, true));
            }
            (Some(wanted), leaves) => slots.push(Slot::of(world, key, view, wanted, held, leaves.is_some())),
            (None, Some(lost_now)) => lost.push(lost_now),
            // A request that is not met leaves what is there.
            (None, None) => match held.map_or_else(|| had(world, key, view, family), Had::Again) {
                Had::Again(stays) => slots.push(Slot::of(world, key, view, stays.clone(), Some(stays), false)),
                Had::Nobodys(addresses) => left.extend(addresses),
            },
        }
    }
    let reached: Vec<_> = reached(view, &wish, &slots, &left);
    let (allocated, lack) = judge(world, view, &wish, &slots, &reached);
    let announced = if is_ours(view) { unannounced(&left) } else { None };
    let announced = announced.or_else(|| slot::announced(&slots));
    let conditions: Vec<_> = std::iter::once(allocated).chain(announced).collect();
    let ingress = reached.iter().map(Reached::written).collect();
    let kept: Vec<_> = slots.iter().flat_map(Slot::kept).collect();
    lost.extend(world.ipam.held_by(key).filter(|address| !kept.contains(address)).filter_map(|address| {
        let pool = world.ipam.pool_of(address).unwrap_or_default().to_owned();
        Some((address, Refusal::Quarantined { quarantine: *world.ipam.quarantined(address)?, pool }))
    }));

    let met = !lack.as_ref().is_some_and(|lack| lack.refused);
    let outcome = Outcome { ingress, conditions, met, look_again: None };
    let mut plan = Plan { outcome, lack, ..Plan::default() };
    for slot in slots {
        plan.keep(key, slot);
    }
    plan.after = releases(world, key, &kept);
    plan.kept = kept;
    plan.lost = lost;
    plan
}

/// What a Service has of a family by its status alone, without an Announcement.
enum Had {
    /// A pool has it and nobody else does: it is claimed again.
    Again(Choice),
    /// No pool gives these, and no other Service holds them: another controller's, or their pool is not there yet. They are not
    /// ours to take away.
    Nobodys(Vec<IpAddr>),
}

fn had(world: &World, key: &ServiceKey, view: &ServiceView, family: IpFamily) -> Had {
    let labels = view.labels.unpacked();
    let request = Request { families: view.families, addresses: PerFamily::default(), pool: None };
    let ask = ask(world, key, view, &labels, &request, &[]);
    let mut nobodys = Vec::new();
    for address in view.addresses().filter(|address| IpFamily::of(*address) == family) {
        match world.ipam.may_take_again(ask, address) {
            Ok(choice) => return Had::Again(choice),
            Err(Refusal::AddressOutsidePools { .. } | Refusal::Excluded { .. })
                if world.ipam.tenants(address).is_empty() =>
            {
                nobodys.push(address);
            }
            Err(_) => {}
        }
    }
    Had::Nobodys(nobodys)
}

/// Whether what a Service has in its status is from us: of another controller's addresses we never say that they are announced.
fn is_ours(view: &ServiceView) -> bool {
    view.said(types::ANNOUNCED).is_some()
}

/// Where the Service is reached, in the order of its families. Where nothing is given, what no pool can judge, such as a name, stays.
fn reached(view: &ServiceView, wish: &Result<Answer, Refused>, slots: &[Slot<'_>], left: &[IpAddr]) -> Vec<Reached> {
    let written = |address: IpAddr| view.reached.iter().find(|reached| reached.address() == Some(address)).cloned();
    let of = |family: IpFamily| {
        let given = slots.iter().map(|slot| Reached::Address(slot.address()));
        let all = given.chain(left.iter().filter_map(move |address| written(*address)));
        all.filter(move |reached| reached.address().map(IpFamily::of) == Some(family)).collect::<Vec<_>>()
    };
    let mut reached: Vec<_> = view.families.iter().flat_map(of).collect();
    if wish.is_err() && slots.is_empty() {
        reached.extend(view.reached.iter().filter(|reached| reached.address().is_none()).cloned());
    }
    reached
}

/// That nobody answers for what a Service had from us.
fn unannounced(left: &[IpAddr]) -> Option<Condition> {
    let told: Vec<_> = left.iter().map(ToString::to_string).collect();
    let message = format!("nobody is told to answer for {}, which no IPAddressPool gives", told.join(" and "));
    let said = condition(types::ANNOUNCED, ConditionStatus::False, Reason::AddressOutsidePools, message);
    (!left.is_empty()).then_some(said)
}

/// What a Service asks of the pools.
fn ask<'a>(
    world: &'a World,
    key: &'a ServiceKey,
    view: &'a ServiceView,
    labels: &'a Labels,
    request: &'a Request,
    previous: &'a [IpAddr],
) -> Ask<'a> {
    Ask {
        service: key,
        labels,
        namespace: world.namespace(&key.namespace),
        request,
        previous,
        terms: view.sharing.as_ref(),
    }
}

/// Whether an address is held by this very Service, and not by one of its name that was deleted.
fn is_the_holder(world: &World, key: &ServiceKey, view: &ServiceView, address: IpAddr) -> bool {
    let holders = world.announcement(address).into_iter().flat_map(|seen| &seen.services);
    holders.into_iter().any(|holder| key_of(holder) == *key && holder.uid == view.uid)
}

/// Why a Service may not go on holding an address, if it may not.
fn must_leave(world: &World, key: &ServiceKey, view: &ServiceView, address: IpAddr) -> Option<Refusal> {
    // What it asks for, which may not be readable, has no say in whether it may stay.
    let request = Request { families: view.families, addresses: PerFamily::default(), pool: None };
    let refusal = world.ipam.may_stay(ask(world, key, view, &view.labels.unpacked(), &request, &[]), address).err();
    refusal.or_else(|| cover::keeps_off(world, key, address))
}

/// Whether the Service has what it asks for, and what it waits for if not.
fn judge(
    world: &World,
    view: &ServiceView,
    wish: &Result<Answer, Refused>,
    slots: &[Slot<'_>],
    reached: &[Reached],
) -> (Condition, Option<Lack>) {
    let answer = match wish {
        Ok(answer) => answer,
        Err(Refused { reason, message, awaits }) => {
            let (families, addresses) = match awaits {
                Awaits::Address(address) => (Vec::new(), vec![*address]),
                Awaits::AnyAddress => (view.families.iter().collect(), Vec::new()),
                Awaits::People => (Vec::new(), Vec::new()),
            };
            let message = format!("{message}{}", stays(reached));
            let allocated = condition(types::ALLOCATED, ConditionStatus::False, *reason, message);
            return (allocated, Some(Lack { refused: true, families, addresses }));
        }
    };
    let ends_by_release = answer.missing.iter().filter(|(_, refusal)| refusal.ends_by_release());
    let families = ends_by_release.map(|(family, _)| *family).collect();
    let missing = answer.missing.as_ref().map(|(family, refusal)| {
        let slot = slots.iter().find(|slot| IpFamily::of(slot.address()) == *family);
        let stays = slot.map(|slot| format!("{refusal}; {} stays until then", slot.address()));
        stays.unwrap_or_else(|| format!("no {family} address: {refusal}"))
    });

    let mut pending = slots.iter().filter_map(|slot| slot.pending.as_ref());
    if let Some((reason, message)) = pending.next() {
        let messages: Vec<_> = std::iter::once(message).chain(pending.map(|(_, more)| more)).cloned().collect();
        let message = messages.into_iter().chain(missing).collect::<Vec<_>>().join("; ");
        let allocated = condition(types::ALLOCATED, ConditionStatus::False, *reason, message);
        return (allocated, Some(Lack { refused: true, families, addresses: Vec::new() }));
    }
    let lack = answer.missing.is_some().then_some(Lack { refused: false, families, addresses: Vec::new() });
    let given: Vec<_> = slots.iter().map(|slot| slot.told(world)).collect();
    let message = std::iter::once(given.join(", ")).chain(missing).collect::<Vec<_>>().join("; ");
    (condition(types::ALLOCATED, ConditionStatus::True, Reason::Allocated, message), lack)
}

fn stays(reached: &[Reached]) -> String {
    let told = |reached: &Reached| {
        let ingress = reached.written();
        ingress.ip.or(ingress.hostname).unwrap_or_default()
    };
    match reached {
        [] => String::new(),
        [one] => format!("; {} stays until then", told(one)),
        [first, rest @ ..] => {
            let rest: Vec<_> = rest.iter().map(told).collect();
            format!("; {} and {} stay until then", told(first), rest.join(", "))
        }
    }
}

/// The address of a family that the Service holds; of several the one in its status.
fn held(world: &World, key: &ServiceKey, view: &ServiceView, family: IpFamily) -> Option<Choice> {
    let held = || world.ipam.held_by(key).filter(|a| IpFamily::of(*a) == family);
    let in_status = held().find(|a| view.addresses().any(|in_status| in_status == *a));
    let address = in_status.or_else(|| held().next())?;
    Some(Choice { address, pool: world.ipam.pool_of(address).unwrap_or_default().to_owned() })
}

fn choice_of(answer: &Answer, family: IpFamily) -> Option<Choice> {
    answer.choices.iter().find(|choice| IpFamily::of(choice.address) == family).cloned()
}

/// What may end a refusal.
#[derive(Clone, Copy)]
enum Awaits {
    /// This address becomes free, or is shared on other terms.
    Address(IpAddr),
    /// Some address does.
    AnyAddress,
    /// A change of pools, namespaces, nodes or the Service.
    People,
}

/// Why a request is not met.
struct Refused {
    reason: Reason,
    message: String,
    awaits: Awaits,
}

fn choose(world: &World, key: &ServiceKey, view: &ServiceView) -> Result<Answer, Refused> {
    let request = view.request.as_ref().map_err(|error| Refused {
        reason: error.reason(),
        message: error.to_string(),
        awaits: Awaits::People,
    })?;
    let previous: Vec<_> = view.addresses().collect();
    let answer = choose_announced(world, ask(world, key, view, &view.labels.unpacked(), request, &previous));
    let answer = answer.map_err(|refusal| Refused {
        reason: refusal.reason(),
        message: refusal.to_string(),
        awaits: match refusal.awaited() {
            Some(address) => Awaits::Address(address),
            None if refusal.ends_by_release() => Awaits::AnyAddress,
            None => Awaits::People,
        },
    })?;
    match without_its_pool(world, key, view, request) {
        None => Ok(answer),
        Some(address) => Err(Refused {
            reason: Reason::AddressOutsidePools,
            message: format!(
                "{address}, which is in the status of this Service, is in no IPAddressPool any more; add it to one, or ask for another address or pool"
            ),
            awaits: Awaits::People,
        }),
    }
}

/// What the pools give; and where that is an address with Services on it that no advertisement announces together with this one, one
/// that it has for itself, if it asks for no other.
fn choose_announced(world: &World, ask: Ask<'_>) -> Result<Answer, Refusal> {
    let keeps_off = |answer: &Answer| {
        let mut choices = answer.choices.iter();
        choices.find_map(|choice| cover::keeps_off(world, ask.service, choice.address))
    };
    let answer = world.ipam.choose(ask)?;
    let Some(refusal) = keeps_off(&answer) else { return Ok(answer) };
    world.ipam.choose(Ask { terms: None, ..ask }).ok().filter(|answer| keeps_off(answer).is_none()).ok_or(refusal)
}

/// An address that a Service has from us, whose Announcement and pool are gone both: kinds that are installed again come without
/// either, and pools come one after the other. Who asks for nothing else is not moved for that.
fn without_its_pool(world: &World, key: &ServiceKey, view: &ServiceView, request: &Request) -> Option<IpAddr> {
    let asks = request.pool.is_some() || request.addresses.v4.is_some() || request.addresses.v6.is_some();
    if asks || !is_ours(view) {
        return None;
    }
    let holds = |family| world.ipam.held_by(key).any(|address| IpFamily::of(address) == family);
    view.addresses().find(|address| {
        let family = IpFamily::of(*address);
        view.families.has(family)
            && !holds(family)
            && world.ipam.tenants(*address).is_empty()
            && world.ipam.is_outside_pools(*address)
    })
}

/// Gives back what a Service holds, but for `keep`.
pub fn releases(world: &World, key: &ServiceKey, keep: &[IpAddr]) -> Vec<Step> {
    let held = world.ipam.held_by(key).filter(|a| !keep.contains(a));
    held.filter_map(|address| world.announcement(address))
        .map(|seen| match slot::without(world, seen, key) {
            Some(announcement) => Step::Update { announcement: Box::new(announcement) },
            None => Step::Release(AnnouncementIdentity {
                address: seen.address,
                name: seen.name.clone(),
                uid: seen.uid.clone(),
                resource_version: seen.resource_version.clone(),
            }),
        })
        .collect()
}

fn condition(kind: &'static str, status: ConditionStatus, reason: Reason, message: String) -> Condition {
    Condition { kind, status, reason, message }
}
