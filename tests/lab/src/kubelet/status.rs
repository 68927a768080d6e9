//! A pod's status, worked out from what its containers do.

use std::net::IpAddr;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use super::container::{Ended, Now, State};
use super::downward::Addresses;

/// What the status of a container says besides its state.
#[derive(Debug, Clone)]
pub(crate) struct ContainerFacts {
    pub name: String,
    pub image: String,
}

/// What the status of a pod is made of.
#[derive(Debug)]
pub(crate) struct PodFacts<'a> {
    pub started: &'a Time,
    /// The pod's are empty before it has a network.
    pub addresses: &'a Addresses,
    pub containers: Vec<(ContainerFacts, State)>,
    /// Whether no container is started again.
    pub over: bool,
}

/// The status. `conditions` are those that were written last: the times of what has not changed stay.
pub(crate) fn build(facts: &PodFacts<'_>, conditions: &[Value], now: &Time) -> Value {
    let states = || facts.containers.iter().map(|(_, state)| state);
    let running = |state: &State| matches!(state.now, Now::Running { .. });
    let ready = !facts.over && states().all(|state| running(state) && state.ready);
    let begun = |state: &State| state.last.is_some() || !matches!(state.now, Now::Waiting { .. });
    let phase = match () {
        () if facts.over && states().all(|state| matches!(&state.now, Now::Ended(Ended { exit_code: 0, .. }))) => {
            "Succeeded"
        }
        () if facts.over => "Failed",
        () if states().all(begun) => "Running",
        () => "Pending",
    };
    let unready: Vec<_> =
        facts.containers.iter().filter(|(_, s)| !(running(s) && s.ready)).map(|(f, _)| f.name.as_str()).collect();
    let why = (!ready).then(|| ("ContainersNotReady", format!("containers with unready status: {unready:?}")));
    let condition = |kind: &str, holds: bool, why: Option<&(&str, String)>| {
        let word = if holds { "True" } else { "False" };
        let before = conditions.iter().find(|c| c["type"] == kind && c["status"] == word);
        let since = before.map_or_else(|| json!(now), |c| c["lastTransitionTime"].clone());
        json!({
            "type": kind, "status": word, "lastTransitionTime": since,
            "reason": why.map(|(reason, _)| *reason), "message": why.map(|(_, message)| message.as_str()),
        })
    };
    let pod_ips = list(&facts.addresses.pod);
    json!({
        "phase": phase,
        "startTime": facts.started,
        "hostIP": facts.addresses.host.first(),
        "hostIPs": list(&facts.addresses.host),
        "podIP": facts.addresses.pod.first(),
        "podIPs": if pod_ips.is_empty() { Value::Null } else { pod_ips.into() },
        "conditions": [
            condition("PodScheduled", true, None),
            condition("PodReadyToStartContainers", !facts.addresses.pod.is_empty() && !facts.over, None),
            condition("Initialized", true, None),
            condition("ContainersReady", ready, why.as_ref()),
            condition("Ready", ready, why.as_ref()),
        ],
        "containerStatuses": facts.containers.iter().map(|(facts, state)| container(facts, state)).collect::<Vec<_>>(),
    })
}

fn list(addresses: &[IpAddr]) -> Vec<Value> {
    addresses.iter().map(|address| json!({ "ip": address })).collect()
}

fn container(facts: &ContainerFacts, state: &State) -> Value {
    let now = match &state.now {
        Now::Waiting { reason, message } if message.is_empty() => json!({ "waiting": { "reason": reason } }),
        Now::Waiting { reason, message } => json!({ "waiting": { "reason": reason, "message": message } }),
        Now::Running { since, .. } => json!({ "running": { "startedAt": since } }),
        Now::Ended(ended) => json!({ "terminated": terminated(ended) }),
    };
    let running = matches!(state.now, Now::Running { .. });
    json!({
        "name": facts.name,
        "image": facts.image,
        "imageID": facts.image,
        "ready": running && state.ready,
        "started": running && state.started,
        "restartCount": state.restarts,
        "state": now,
        "lastState": state.last.as_ref().map_or_else(|| json!({}), |ended| json!({ "terminated": terminated(ended) })),
    })
}

fn terminated(ended: &Ended) -> Value {
    let reason = if ended.exit_code == 0 { "Completed" } else { "Error" };
    let mut value = json!({
        "exitCode": ended.exit_code, "reason": reason, "startedAt": ended.started, "finishedAt": ended.finished,
    });
    if let Some(message) = &ended.message {
        value["message"] = json!(message);
    }
    value
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;

    use super::*;

    fn time(second: i64) -> Time {
        Time(Timestamp::from_second(second).unwrap())
    }

    fn ended(exit_code: i32) -> Ended {
        Ended { exit_code, started: time(1), finished: time(2), message: None }
    }

    fn waiting() -> Now {
        Now::Waiting { reason: "CrashLoopBackOff", message: String::new() }
    }

    #[test]
    fn a_pods_phase_follows_its_containers() {
        let addresses = Addresses { pod: Vec::new(), host: Vec::new() };
        for (now, last, over, phase) in [
            (waiting(), None, false, "Pending"),
            (waiting(), Some(ended(1)), false, "Running"),
            (Now::Ended(ended(1)), None, false, "Running"),
            (Now::Ended(ended(0)), None, true, "Succeeded"),
            (Now::Ended(ended(1)), None, true, "Failed"),
        ] {
            let state = State { now, last, restarts: 0, started: false, ready: false };
            let facts = ContainerFacts { name: "c".to_owned(), image: "i".to_owned() };
            let facts =
                PodFacts { started: &time(0), addresses: &addresses, containers: vec![(facts, state.clone())], over };
            let status = build(&facts, &[], &time(9));
            assert_eq!(status["phase"], phase, "{state:?}");
            let before = status["conditions"].as_array().unwrap().clone();
            assert_eq!(build(&facts, &before, &time(10)), status, "nothing changed, so nothing is new");
        }
    }
}
