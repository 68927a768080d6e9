//! What status is written, and only when it differs from what is there.

use berth_api::condition::types;
use berth_api::service::ServiceKey;
use berth_api::{Condition, ConditionStatus, Reason};
use berth_pool::ipam::PoolReport;
use berth_pool::placement::Node;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{LoadBalancerIngress, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition as K8sCondition;
use kube::runtime::events::EventType;
use serde_json::{Value, json};

use crate::note::Note;
use crate::view::{AdvertisementView, PoolView, ServiceView};
use crate::world::World;

/// A status of a Service, whole: what is not in it is no longer ours.
#[derive(Clone, Debug)]
pub(crate) struct ServiceStatus {
    pub(crate) key: ServiceKey,
    pub(crate) body: Value,
    /// The addresses, for the log.
    pub(crate) addresses: Vec<String>,
}

/// A status of one of our own kinds.
#[derive(Clone, Debug)]
pub(crate) struct OwnStatus {
    pub(crate) name: String,
    pub(crate) body: Value,
    pub(crate) note: Option<Note>,
}

/// The status that a Service is to have, or `None` when it has it.
pub(crate) fn change(
    key: &ServiceKey,
    view: &ServiceView,
    ingress: Vec<LoadBalancerIngress>,
    conditions: &[Condition],
    now: Timestamp,
) -> Option<(ServiceStatus, Vec<Note>)> {
    let old = |kind: &str| view.conditions.iter().find(|c| c.type_ == kind);
    let stamped: Vec<_> = conditions.iter().map(|c| c.stamped(old(c.kind), view.generation, now)).collect();
    // Ports are for implementations that report errors on them; other writers' are not compared.
    let same_ingress = ingress.len() == view.ingress.len()
        && ingress
            .iter()
            .zip(&view.ingress)
            .all(|(a, b)| (&a.ip, &a.ip_mode, &a.hostname) == (&b.ip, &b.ip_mode, &b.hostname));
    let same_conditions = stamped.len() == view.conditions.len() && stamped.iter().all(|c| old(&c.type_) == Some(c));
    if same_ingress && same_conditions {
        return None;
    }
    let changed = conditions.iter().filter(|c| {
        old(c.kind).is_none_or(|o| {
            (o.status.as_str(), o.reason.as_str(), &o.message) != (c.status.as_str(), c.reason.as_str(), &c.message)
        })
    });
    let notes =
        changed.filter(|c| worth_an_event(c, old(c.kind))).map(|c| note(service_reference(key, view), c)).collect();
    let addresses = ingress.iter().filter_map(|i| i.ip.clone()).collect();
    let body = service_body(key, json!({"loadBalancer": {"ingress": ingress}, "conditions": stamped}));
    Some((ServiceStatus { key: key.clone(), body, addresses }, notes))
}

/// The status of a Service that is ours no more: nothing of ours in it. `None` when there is nothing.
pub(crate) fn clear(key: &ServiceKey, view: &ServiceView) -> Option<(ServiceStatus, Vec<Note>)> {
    if view.conditions.is_empty() {
        return None;
    }
    let held = view.conditions.iter().any(|c| c.type_ == types::ALLOCATED && c.status == "True");
    let released = Condition {
        kind: types::ALLOCATED,
        status: ConditionStatus::False,
        reason: Reason::Released,
        message: "the Service no longer asks Berth for an address; what it held is free again".to_owned(),
    };
    let notes = if held {
        vec![Note { kind: EventType::Normal, ..note(service_reference(key, view), &released) }]
    } else {
        vec![]
    };
    let status = ServiceStatus { key: key.clone(), body: service_body(key, json!({})), addresses: vec![] };
    Some((status, notes))
}

/// The status that a pool is to have, or `None` when it has it.
pub(crate) fn pool_change(name: &str, view: &PoolView, report: PoolReport<'_>, now: Timestamp) -> Option<OwnStatus> {
    let condition = match report.problem {
        None => ready(ConditionStatus::True, Reason::Valid, "addresses are given from this pool".to_owned()),
        Some(problem) => ready(ConditionStatus::False, problem.reason(), problem.to_string()),
    };
    let counts = (i64::try_from(report.assigned).ok(), i64::try_from(report.available).ok());
    let stamped = condition.stamped(view.ready.as_ref(), view.generation, now);
    if (view.assigned, view.available) == counts && view.ready.as_ref() == Some(&stamped) {
        return None;
    }
    let reference = own_reference("IPAddressPool", name, &view.uid);
    let body = own_body(
        "IPAddressPool",
        name,
        json!({"assignedIPv4": counts.0, "availableIPv4": counts.1, "conditions": [stamped]}),
    );
    Some(OwnStatus { name: name.to_owned(), body, note: own_note(reference, &condition, view.ready.as_ref()) })
}

/// The status that an advertisement is to have, or `None` when it has it.
pub(crate) fn advertisement_change(
    name: &str,
    view: &AdvertisementView,
    world: &World,
    now: Timestamp,
) -> Option<OwnStatus> {
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
        Ok(_) => match reaches_nobody(view, world) {
            Some(message) => ready(ConditionStatus::False, Reason::NoEligibleNode, message),
            None => ready(ConditionStatus::True, Reason::Valid, "the addresses of its pools are announced".to_owned()),
        },
    };
    let stamped = condition.stamped(view.ready.as_ref(), view.generation, now);
    if view.ready.as_ref() == Some(&stamped) {
        return None;
    }
    let reference = own_reference("L2Advertisement", name, &view.uid);
    let body = own_body("L2Advertisement", name, json!({"conditions": [stamped]}));
    Some(OwnStatus { name: name.to_owned(), body, note: own_note(reference, &condition, view.ready.as_ref()) })
}

/// Why no node can announce by this advertisement, if none can.
fn reaches_nobody(view: &AdvertisementView, world: &World) -> Option<String> {
    let mut selected = world.nodes().values().filter(|node| view.selects_node(&node.labels)).peekable();
    if selected.peek().is_none() {
        return Some("`spec.nodeSelectors` match no node, so nothing is announced by this".to_owned());
    }
    let has = |node: &Node| node.interfaces.iter().any(|i| view.interfaces.contains(&i.name));
    let none = !view.interfaces.is_empty() && !selected.any(has);
    none.then(|| "no selected node has one of `spec.interfaces`, so nothing is announced by this".to_owned())
}

/// A refusal always; a success when it is news, and being announced only when it was not before.
fn worth_an_event(condition: &Condition, old: Option<&K8sCondition>) -> bool {
    // A step on the way; and endpoints come a moment after their Service.
    if condition.reason == Reason::AddressPending || (condition.reason == Reason::NoLocalEndpoints && old.is_none()) {
        return false;
    }
    condition.status != ConditionStatus::True || condition.kind == types::ALLOCATED || old.is_some()
}

fn note(regarding: ObjectReference, condition: &Condition) -> Note {
    let good = condition.status == ConditionStatus::True;
    Note {
        regarding,
        kind: if good { EventType::Normal } else { EventType::Warning },
        reason: condition.reason,
        message: condition.message.clone(),
    }
}

/// One event for each real change; that a fresh object is valid is none.
fn own_note(regarding: ObjectReference, condition: &Condition, old: Option<&K8sCondition>) -> Option<Note> {
    let same = old.is_some_and(|o| (o.reason.as_str(), &o.message) == (condition.reason.as_str(), &condition.message));
    let fresh_and_good = old.is_none() && condition.status == ConditionStatus::True;
    (!same && !fresh_and_good).then(|| note(regarding, condition))
}

fn ready(status: ConditionStatus, reason: Reason, message: String) -> Condition {
    Condition { kind: types::READY, status, reason, message }
}

fn service_reference(key: &ServiceKey, view: &ServiceView) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Service".to_owned()),
        namespace: Some(key.namespace.clone()),
        name: Some(key.name.clone()),
        uid: Some(view.uid.clone()),
        ..ObjectReference::default()
    }
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

fn service_body(key: &ServiceKey, status: Value) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"namespace": key.namespace, "name": key.name},
        "status": status,
    })
}

fn own_body(kind: &str, name: &str, status: Value) -> Value {
    json!({"apiVersion": api_version(), "kind": kind, "metadata": {"name": name}, "status": status})
}

fn api_version() -> String {
    format!("{}/{}", berth_api::names::GROUP, berth_api::names::VERSION)
}
