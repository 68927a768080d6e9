//! What is to be said of pools and advertisements.

use std::net::IpAddr;

use berth_api::condition::types;
use berth_api::crd::{CoolingDown, Quarantined};
use berth_api::interface::Interfaces;
use berth_api::pool::IpRange;
use berth_api::{Condition, ConditionStatus, PerFamily, Reason};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition as K8sCondition, Time};
use serde_json::{Value, json};

use crate::ipam::PoolReport;
use crate::placement::Node;
use crate::quarantine::Quarantine;
use crate::view::{AdvertisementId, AdvertisementView, PoolView};
use crate::world::World;

/// A status of a pool or an advertisement.
#[derive(Clone, Debug)]
pub struct OwnStatus {
    /// The object's name.
    pub name: String,
    /// What is applied, whole. It names uid and version of the object that was planned on, so that the API server refuses it when the
    /// object is another one or has changed since: what cools down is not forgotten by one that comes late.
    pub body: Value,
    /// What is worth an event: about which object, and what became of its condition Ready or was found otherwise.
    pub news: Vec<(ObjectReference, Condition)>,
}

/// The status that a pool is to have, or `None` when it has it.
///
/// `cooling` is what cools down, and until when, in seconds since 1970; `quarantined` what a foreign machine was found to have.
pub fn pool_change(
    name: &str,
    view: &PoolView,
    report: PoolReport<'_>,
    cooling: &[(IpRange, i64)],
    quarantined: &[Quarantine],
    now: Timestamp,
) -> Option<OwnStatus> {
    let condition = match report.problem {
        None if report.disabled => {
            let message = "`spec.disabled` is set: what Services hold they keep, and nothing new is given".to_owned();
            ready(ConditionStatus::True, Reason::Disabled, message)
        }
        None => ready(ConditionStatus::True, Reason::Valid, "addresses are given from this pool".to_owned()),
        Some(problem) => ready(ConditionStatus::False, problem.reason(), problem.to_string()),
    };
    let counts = |n: PerFamily<u128>| PerFamily { v4: Some(saturated(n.v4)), v6: Some(saturated(n.v6)) };
    let assigned = counts(PerFamily { v4: report.assigned.v4.into(), v6: report.assigned.v6.into() });
    let available = counts(report.available);
    let stamped = condition.stamped(view.ready.as_ref(), view.generation, now);
    let same_counts = (view.assigned, view.available) == (assigned, available);
    let same_held_back = view.cooling == cooling && view.quarantined == quarantined;
    if same_counts && same_held_back && view.ready.as_ref() == Some(&stamped) {
        return None;
    }
    let cooling = cooling.iter().filter_map(|(range, until)| {
        let until = Timestamp::from_second(*until).ok()?;
        Some(CoolingDown { addresses: range.to_string(), until: Time(until) })
    });
    let told = quarantined.iter().filter_map(|one| {
        let (since, until) = (Timestamp::from_second(one.since).ok()?, Timestamp::from_second(one.until).ok()?);
        Some(Quarantined { address: one.address, mac: one.mac, since: Time(since), until: Time(until) })
    });
    let found = quarantined.iter().filter(|one| view.quarantine(one.address).is_none_or(|told| told.since < one.since));
    let found =
        found.map(|one| format!("{} is what the machine with {} has", one.address, one.mac)).collect::<Vec<_>>();
    let reference = own_reference("IPAddressPool", name, &view.uid);
    let found = (!found.is_empty()).then(|| {
        let message = format!(
            "in quarantine, because none of our nodes is meant and none ever answered: {}; take such addresses from the machine or from \
             `spec.addresses`",
            found.join(", ")
        );
        (reference.clone(), ready(ConditionStatus::False, Reason::Quarantined, message))
    });
    let body = own_body(
        "IPAddressPool",
        (name, &view.uid, view.version),
        json!({
            "assignedIPv4": assigned.v4,
            "availableIPv4": available.v4,
            "assignedIPv6": assigned.v6,
            "availableIPv6": available.v6,
            "coolingDown": cooling.collect::<Vec<_>>(),
            "quarantined": told.collect::<Vec<_>>(),
            "conditions": [stamped],
        }),
    );
    let news = news(reference, condition, view.ready.as_ref()).into_iter().chain(found).collect();
    Some(OwnStatus { name: name.to_owned(), body, news })
}

/// The number, or the largest that a field of the API or a gauge can have.
pub fn saturated(number: u128) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The status that an advertisement is to have, or `None` when it has it.
pub fn advertisement_change(
    id: &AdvertisementId,
    view: &AdvertisementView,
    world: &World,
    now: Timestamp,
) -> Option<OwnStatus> {
    let left = if view.route.is_some() { world.left_to_layer2(view) } else { Vec::new() };
    let missing: Vec<_> = view.pools.iter().filter(|p| world.pool(p).is_none()).map(|p| format!("`{p}`")).collect();
    let condition = match &view.selectors {
        Err(error) => {
            let message = format!("{error}; until it is corrected, this advertisement covers no pool");
            ready(ConditionStatus::False, Reason::InvalidSelector, message)
        }
        Ok(_) if !missing.is_empty() => {
            let message = format!(
                "`spec.ipAddressPools` names {}, which does not exist; correct the name or create the pool, all others are announced",
                missing.join(", ")
            );
            ready(ConditionStatus::False, Reason::PoolNotFound, message)
        }
        Ok(_) if !left.is_empty() => {
            let pools = crate::placement::named(left.iter().map(|pool| format!("`{pool}`")).collect());
            let message = format!(
                "an L2Advertisement covers {pools} too, and what nodes answer for on the link is not taken from them; let one of the two cover \
                 other pools, all others are routed"
            );
            ready(ConditionStatus::False, Reason::LeftToLayer2, message)
        }
        Ok(_) => match (reaches_nobody(view, world), &view.passed_over) {
            (nobody, Some((reason, error))) => {
                let rest =
                    nobody.unwrap_or_else(|| "until it is corrected, it does not count; all else does".to_owned());
                ready(ConditionStatus::False, *reason, format!("{error}; {rest}"))
            }
            (Some(message), None) => ready(ConditionStatus::False, Reason::NoEligibleNode, message),
            (None, None) => {
                ready(ConditionStatus::True, Reason::Valid, "the addresses of its pools are announced".to_owned())
            }
        },
    };
    let stamped = condition.stamped(view.ready.as_ref(), view.generation, now);
    if view.ready.as_ref() == Some(&stamped) {
        return None;
    }
    let (kind, name) = (id.kind.as_str(), id.name.as_str());
    let reference = own_reference(kind, name, &view.uid);
    let body = own_body(kind, (name, &view.uid, view.version), json!({"conditions": [stamped]}));
    let news = news(reference, condition, view.ready.as_ref()).into_iter().collect();
    Some(OwnStatus { name: name.to_owned(), body, news })
}

/// Why no node can announce by this advertisement, if none can.
fn reaches_nobody(view: &AdvertisementView, world: &World) -> Option<String> {
    let mut selected = world.nodes().values().filter(|node| view.selects_node(&node.labels)).peekable();
    if selected.peek().is_none() {
        return Some("`spec.nodeSelectors` match no node, so nothing is announced by this".to_owned());
    }
    if view.route.is_some() {
        let none = !selected.any(|node| node.routes);
        let message = "no speaker of a selected node may make routes, so nothing is routed by this; install Berth with the component `deploy/routes`";
        return none.then(|| message.to_owned());
    }
    let has = |node: &Node| node.interfaces.iter().any(|i| view.interfaces.allow(&i.name));
    let none = view.interfaces != Interfaces::All && !selected.any(has);
    none.then(|| "no selected node has one of `spec.interfaces`, so nothing is announced by this".to_owned())
}

/// The part of a SpeakerNode's status that says which addresses the node is to ask for ahead of need.
pub fn sweep_change(name: &str, sweep: &[IpAddr]) -> Value {
    json!({"apiVersion": api_version(), "kind": "SpeakerNode", "metadata": {"name": name}, "status": {"sweep": sweep}})
}

/// One event for each real change; that a fresh object is valid is none.
fn news(
    regarding: ObjectReference,
    condition: Condition,
    old: Option<&K8sCondition>,
) -> Option<(ObjectReference, Condition)> {
    let same = old.is_some_and(|o| (o.reason.as_str(), &o.message) == (condition.reason.as_str(), &condition.message));
    let fresh_and_good = old.is_none() && condition.status == ConditionStatus::True;
    (!same && !fresh_and_good).then_some((regarding, condition))
}

fn ready(status: ConditionStatus, reason: Reason, message: String) -> Condition {
    Condition { kind: types::READY, status, reason, message }
}

fn own_reference(kind: &str, name: &str, uid: &str) -> ObjectReference {
    ObjectReference {
        api_version: Some(api_version()),
        kind: Some(kind.to_owned()),
        name: Some(name.to_owned()),
        uid: Some(uid.to_owned()),
        ..ObjectReference::default()
    }
}

fn own_body(kind: &str, (name, uid, version): (&str, &str, u64), status: Value) -> Value {
    let metadata = json!({"name": name, "uid": uid, "resourceVersion": version.to_string()});
    json!({"apiVersion": api_version(), "kind": kind, "metadata": metadata, "status": status})
}

fn api_version() -> String {
    format!("{}/{}", berth_api::names::GROUP, berth_api::names::VERSION)
}
