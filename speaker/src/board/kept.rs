//! Announcements in little room: a node has a part in thousands, and most of what they say they say alike.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use berth_api::MacAddr;
use berth_api::condition::types::READY;
use berth_api::crd::{Caretaker, Layer2Status};
use berth_api::names::announcement_name;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, MicroTime, Time};

use super::Seen;

/// Texts that are kept before the first look for those that nobody uses.
const SWEEP_MIN: usize = 64;

/// Texts that many Announcements have in common: names of nodes and interfaces, reasons, messages.
#[derive(Debug, Default)]
pub(super) struct Texts {
    held: BTreeSet<Arc<str>>,
    /// How many may be held before the next look for those that nobody uses any more.
    sweep_at: usize,
}

impl Texts {
    fn one(&mut self, text: &str) -> Arc<str> {
        if let Some(held) = self.held.get(text) {
            return held.clone();
        }
        if self.held.len() >= self.sweep_at.max(SWEEP_MIN) {
            self.held.retain(|held| Arc::strong_count(held) > 1);
            // As many have to come anew as are looked at, so that each costs the same.
            self.sweep_at = self.held.len() * 2;
        }
        let text: Arc<str> = text.into();
        self.held.insert(text.clone());
        text
    }
}

/// A text, small where it is a number, as those of resource versions are.
#[derive(Debug)]
enum Version {
    Number(u64),
    Text(Box<str>),
}

impl Version {
    fn of(text: &str) -> Self {
        // Other spellings of a number are other texts.
        let number = text.parse().ok().filter(|number: &u64| number.to_string() == text);
        number.map_or_else(|| Self::Text(text.into()), Self::Number)
    }

    fn written(&self) -> String {
        match self {
            Self::Number(number) => number.to_string(),
            Self::Text(text) => text.to_string(),
        }
    }
}

#[derive(Debug)]
struct Layer2 {
    owner: Arc<str>,
    epoch: u64,
    since: Timestamp,
    mac: MacAddr,
    interface: Arc<str>,
    caretaker: Option<Box<Caretaker>>,
}

#[derive(Debug)]
struct Ready {
    status: Arc<str>,
    reason: Arc<str>,
    message: Arc<str>,
    since: Timestamp,
    generation: Option<i64>,
}

/// What is kept of an Announcement; its name follows from its address.
#[derive(Debug)]
pub(super) struct Kept {
    uid: Option<Box<str>>,
    version: Option<Version>,
    layer2: Option<Layer2>,
    ready: Option<Ready>,
}

impl Kept {
    pub(super) fn of(seen: Seen, texts: &mut Texts) -> Self {
        let Seen { name: _, uid, resource_version, layer2, ready } = seen;
        Self {
            uid: uid.map(Into::into),
            version: resource_version.as_deref().map(Version::of),
            layer2: layer2.map(|layer2| Layer2 {
                owner: texts.one(&layer2.owner),
                epoch: layer2.epoch,
                since: layer2.since.0,
                mac: layer2.mac,
                interface: texts.one(&layer2.interface),
                caretaker: layer2.caretaker.map(Box::new),
            }),
            ready: ready.map(|ready| Ready {
                status: texts.one(&ready.status),
                reason: texts.one(&ready.reason),
                message: texts.one(&ready.message),
                since: ready.last_transition_time.0,
                generation: ready.observed_generation,
            }),
        }
    }

    /// Who answers, as it says.
    pub(super) fn owner(&self) -> Option<&str> {
        self.layer2.as_ref().map(|layer2| &*layer2.owner)
    }

    /// All of it again.
    pub(super) fn seen(&self, address: IpAddr) -> Seen {
        Seen {
            name: announcement_name(address),
            uid: self.uid.as_deref().map(str::to_owned),
            resource_version: self.version.as_ref().map(Version::written),
            layer2: self.layer2.as_ref().map(|layer2| Layer2Status {
                owner: layer2.owner.to_string(),
                epoch: layer2.epoch,
                since: MicroTime(layer2.since),
                mac: layer2.mac,
                interface: layer2.interface.to_string(),
                caretaker: layer2.caretaker.as_deref().cloned(),
            }),
            ready: self.ready.as_ref().map(|ready| Condition {
                type_: READY.to_owned(),
                status: ready.status.to_string(),
                reason: ready.reason.to_string(),
                message: ready.message.to_string(),
                last_transition_time: Time(ready.since),
                observed_generation: ready.generation,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn seen(status: Value, metadata: Value) -> Seen {
        let object = json!({
            "apiVersion": "berth.dev/v1alpha1", "kind": "Announcement", "metadata": metadata,
            "spec": {"address": "192.0.2.1", "pool": "a", "services": []}, "status": status,
        });
        Seen::of(&serde_json::from_value(object).unwrap())
    }

    #[test]
    fn what_is_kept_is_the_whole_of_what_was_seen() {
        let address: IpAddr = "192.0.2.1".parse().unwrap();
        let layer2 = json!({
            "owner": "a", "epoch": 4, "since": "2026-11-21T08:00:00.123456Z", "mac": "02:00:00:00:00:02", "interface": "eth1",
        });
        let mut cared_for = layer2.clone();
        cared_for["caretaker"] = json!({"node": "b", "since": "2026-11-21T08:00:10.000000Z"});
        let ready = json!({
            "type": "Ready", "status": "True", "reason": "Answering", "message": "a answers",
            "lastTransitionTime": "2026-11-21T08:00:00Z", "observedGeneration": 3,
        });
        let name = |more: Value| {
            let mut metadata = json!({"name": "192.0.2.1"});
            metadata.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            metadata
        };
        let mut texts = Texts::default();
        for (status, metadata) in [
            (json!({}), name(json!({}))),
            (json!({"layer2": layer2, "conditions": [ready]}), name(json!({"resourceVersion": "4711", "uid": "u"}))),
            (json!({"layer2": cared_for}), name(json!({"resourceVersion": "0007"}))),
            (json!({"conditions": [ready]}), name(json!({"resourceVersion": "v1-2"}))),
        ] {
            let seen = seen(status, metadata);
            assert_eq!(Kept::of(seen.clone(), &mut texts).seen(address), seen);
        }
    }

    #[test]
    fn texts_that_many_have_in_common_are_kept_once_and_those_that_nobody_has_not_for_long() {
        let mut texts = Texts::default();
        let used = texts.one("used");
        for n in 0..100 * SWEEP_MIN {
            texts.one(&n.to_string());
            assert!(texts.held.len() <= SWEEP_MIN, "{}", texts.held.len());
        }
        assert!(Arc::ptr_eq(&used, &texts.one("used")));
        let all: Vec<_> = (0..1_000).map(|n| texts.one(&format!("text {n}"))).collect();
        assert!(all.iter().all(|text| Arc::ptr_eq(text, &texts.one(text))));
    }
}
