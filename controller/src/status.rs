//! What status is written, and only when it differs from what is there.

use std::net::IpAddr;

use berth_api::condition::types;
use berth_api::service::ServiceKey;
use berth_api::{Condition, ConditionStatus, Reason};
use berth_pool::ipam::Refusal;
use berth_pool::view::{SaidCondition, ServiceView};
use berth_provider::Outcome;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{LoadBalancerIngress, ObjectReference};
use kube::runtime::events::EventType;
use serde_json::{Value, json};

use crate::note::Note;

/// What the API server takes for the mode of an address where none is said.
const IP_MODE: &str = "VIP";

/// A status of a Service, whole: what is not in it is no longer ours.
#[derive(Clone, Debug)]
pub(crate) struct ServiceStatus {
    pub(crate) key: ServiceKey,
    /// Names uid and version of the Service that was planned on, so that the API server refuses it when the Service is
    /// another one or has changed since.
    pub(crate) body: Value,
    /// That version.
    pub(crate) planned_on: u64,
    /// The addresses, for the log.
    pub(crate) addresses: Vec<String>,
}

/// The status that a Service is to have, or `None` when it has it.
pub(crate) fn change(
    key: &ServiceKey,
    view: &ServiceView,
    outcome: &Outcome,
    now: Timestamp,
) -> Option<(ServiceStatus, Vec<Note>)> {
    let Outcome { ingress, conditions, .. } = outcome;
    let stamped: Vec<_> = conditions.iter().map(|c| view.stamped(c, now)).collect();
    // Ports are for implementations that report errors on them; other writers' are not compared.
    // The API server fills in the mode of an address that has none (Service API, `ipMode`).
    let mode = |i: &LoadBalancerIngress| i.ip.as_ref().map(|_| i.ip_mode.clone().unwrap_or_else(|| IP_MODE.to_owned()));
    let seen = view.ingress();
    let same_ingress = ingress.len() == seen.len()
        && ingress.iter().zip(&seen).all(|(a, b)| (&a.ip, mode(a), &a.hostname) == (&b.ip, mode(b), &b.hostname));
    let same_conditions = stamped.len() == view.conditions.len()
        && stamped.iter().all(|c| view.said(&c.type_) == Some(&SaidCondition::of(c)));
    if same_ingress && same_conditions {
        return None;
    }
    let news = conditions.iter().filter(|c| match view.said(c.kind) {
        Some(said) => !said.says(c) && worth_an_event(c, false),
        None => worth_an_event(c, true),
    });
    let notes = news.map(|c| note(reference(key, &view.uid), c)).collect();
    let addresses = ingress.iter().filter_map(|i| i.ip.clone()).collect();
    let body = service_body(key, view, json!({"loadBalancer": {"ingress": ingress}, "conditions": stamped}));
    Some((ServiceStatus { key: key.clone(), body, planned_on: view.version, addresses }, notes))
}

/// The status of a Service that is ours no more: nothing of ours in it. `None` when there is nothing.
pub(crate) fn clear(key: &ServiceKey, view: &ServiceView) -> Option<(ServiceStatus, Vec<Note>)> {
    if view.conditions.is_empty() {
        return None;
    }
    let held = view.said(types::ALLOCATED).is_some_and(SaidCondition::holds);
    let released = Condition {
        kind: types::ALLOCATED,
        status: ConditionStatus::False,
        reason: Reason::Released,
        message: "the Service no longer asks Berth for an address; what it held is given back".to_owned(),
    };
    let notes = if held {
        vec![Note { kind: EventType::Normal, ..note(reference(key, &view.uid), &released) }]
    } else {
        vec![]
    };
    let body = service_body(key, view, json!({}));
    let status = ServiceStatus { key: key.clone(), body, planned_on: view.version, addresses: vec![] };
    Some((status, notes))
}

/// A refusal always; a success when it is news, and being announced only when it was not before.
fn worth_an_event(condition: &Condition, is_first: bool) -> bool {
    // Steps on the way, and what mends itself; and endpoints come a moment after their Service.
    let on_the_way = [
        Reason::AddressPending,
        Reason::Provisioning,
        Reason::ProviderConflict,
        Reason::ProviderThrottled,
        Reason::ProviderUnavailable,
        Reason::TargetsInitial,
    ];
    // What these say is said by others, too.
    let is_progress = [types::PROVISIONING, types::ACTIVE].contains(&condition.kind);
    let comes_later = [Reason::NoLocalEndpoints, Reason::NoTargets].contains(&condition.reason) && is_first;
    if is_progress || comes_later || on_the_way.contains(&condition.reason) {
        return false;
    }
    condition.status != ConditionStatus::True || condition.kind == types::ALLOCATED || !is_first
}

pub(crate) fn note(regarding: ObjectReference, condition: &Condition) -> Note {
    let good = condition.status == ConditionStatus::True;
    Note {
        regarding,
        kind: if good { EventType::Normal } else { EventType::Warning },
        reason: condition.reason,
        message: condition.message.clone(),
    }
}

/// That a Service loses an address without another in its place.
pub(crate) fn lost(key: &ServiceKey, view: &ServiceView, address: IpAddr, why: &Refusal) -> Note {
    Note {
        regarding: reference(key, &view.uid),
        kind: EventType::Warning,
        reason: why.reason(),
        message: format!("{address} cannot stay: {why}"),
    }
}

/// A Service, for an event.
pub(crate) fn reference(key: &ServiceKey, uid: &str) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Service".to_owned()),
        namespace: Some(key.namespace.clone()),
        name: Some(key.name.clone()),
        uid: Some(uid.to_owned()),
        ..ObjectReference::default()
    }
}

fn service_body(key: &ServiceKey, view: &ServiceView, status: Value) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "namespace": key.namespace,
            "name": key.name,
            "uid": view.uid,
            "resourceVersion": view.version.to_string(),
        },
        "status": status,
    })
}
