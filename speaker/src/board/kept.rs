//! Announcements and reports in little room: a node has a part in thousands, and most of what they say they say alike.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use berth_api::condition::types::READY;
use berth_api::crd::{Caretaker, Layer2Status};
use berth_api::names::announcement_name;
use berth_api::{MacAddr, Reason};
use berth_machine::{NodeName, State, Status, Values};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, MicroTime, Time};

use super::{Report, Seen};

/// What many Announcements have in common.
#[derive(Debug, Default)]
pub(super) struct Common {
    texts: Values<str>,
    spots: Values<Spot>,
    words: Values<Words>,
}

/// Who answers, and where.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Spot {
    owner: String,
    mac: MacAddr,
    interface: String,
}

/// What a condition says.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Words {
    status: String,
    reason: String,
    message: String,
}

/// A UID, small where it is written as the API server writes them: 8-4-4-4-12 hexadecimal digits in lower case (RFC 9562 section 4).
#[derive(Debug)]
enum Uid {
    Uuid([u8; 16]),
    Text(Box<str>),
}

impl Uid {
    fn of(text: &str) -> Self {
        let digits: String = text.chars().filter(|c| *c != '-').collect();
        let number = (digits.len() == 32).then(|| u128::from_str_radix(&digits, 16).ok()).flatten();
        // Other spellings of a number are other texts.
        let uuid = number.map(|number| Self::Uuid(number.to_be_bytes())).filter(|uuid| uuid.written() == text);
        uuid.unwrap_or_else(|| Self::Text(text.into()))
    }

    fn written(&self) -> String {
        match self {
            Self::Uuid(octets) => {
                let mut text = format!("{:032x}", u128::from_be_bytes(*octets));
                for at in [20, 16, 12, 8] {
                    text.insert(at, '-');
                }
                text
            }
            Self::Text(text) => text.to_string(),
        }
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
    spot: Arc<Spot>,
    epoch: u64,
    since: Timestamp,
    caretaker: Option<Box<Caretaker>>,
}

#[derive(Debug)]
struct Ready {
    words: Arc<Words>,
    since: Timestamp,
    generation: Option<i64>,
}

/// What is kept of an Announcement; its name follows from its address.
#[derive(Debug)]
pub(super) struct Kept {
    uid: Option<Uid>,
    version: Option<Version>,
    layer2: Option<Layer2>,
    ready: Option<Ready>,
}

impl Kept {
    pub(super) fn of(seen: Seen, common: &mut Common) -> Self {
        let Seen { name: _, uid, resource_version, layer2, ready } = seen;
        Self {
            uid: uid.as_deref().map(Uid::of),
            version: resource_version.as_deref().map(Version::of),
            layer2: layer2.map(|Layer2Status { owner, epoch, since, mac, interface, caretaker }| Layer2 {
                spot: common.spots.one(Arc::new(Spot { owner, mac, interface })),
                epoch,
                since: since.0,
                caretaker: caretaker.map(Box::new),
            }),
            ready: ready.map(|ready| Ready {
                words: common.words.one(Arc::new(Words {
                    status: ready.status,
                    reason: ready.reason,
                    message: ready.message,
                })),
                since: ready.last_transition_time.0,
                generation: ready.observed_generation,
            }),
        }
    }

    /// Who answers, as it says.
    pub(super) fn owner(&self) -> Option<&str> {
        self.layer2.as_ref().map(|layer2| layer2.spot.owner.as_str())
    }

    /// All of it again.
    pub(super) fn seen(&self, address: IpAddr) -> Seen {
        Seen {
            name: announcement_name(address),
            uid: self.uid.as_ref().map(Uid::written),
            resource_version: self.version.as_ref().map(Version::written),
            layer2: self.layer2.as_ref().map(|layer2| Layer2Status {
                owner: layer2.spot.owner.clone(),
                epoch: layer2.epoch,
                since: MicroTime(layer2.since),
                mac: layer2.spot.mac,
                interface: layer2.spot.interface.clone(),
                caretaker: layer2.caretaker.as_deref().cloned(),
            }),
            ready: self.ready.as_ref().map(|ready| Condition {
                type_: READY.to_owned(),
                status: ready.words.status.clone(),
                reason: ready.words.reason.clone(),
                message: ready.words.message.clone(),
                last_transition_time: Time(ready.since),
                observed_generation: ready.generation,
            }),
        }
    }
}

/// What is kept of a report.
#[derive(Debug)]
pub(super) struct KeptReport {
    pub(super) state: State,
    pub(super) epoch: u64,
    pub(super) released: bool,
    cause: Reason,
    mac: MacAddr,
    interface: Arc<str>,
    /// On the machine's clock, and on the wall's.
    since: (Duration, Timestamp),
    rare: Option<Box<Rare>>,
}

/// What few reports say.
#[derive(Debug, PartialEq, Eq)]
struct Rare {
    owner: Option<NodeName>,
    foreign: Option<MacAddr>,
    former: Option<String>,
}

impl KeptReport {
    pub(super) fn of(report: Report, common: &mut Common) -> Self {
        let Report { status, since: wall, former, released } = report;
        let Status { state, epoch, since, mac, interface, cause, owner, foreign } = status;
        let rare = Rare { owner, foreign, former };
        let none = rare == Rare { owner: None, foreign: None, former: None };
        Self {
            state,
            epoch,
            released,
            cause,
            mac,
            interface: common.texts.one(interface.into()),
            since: (since, wall),
            rare: (!none).then(|| Box::new(rare)),
        }
    }

    /// The node that the Announcement named when it was made.
    pub(super) fn former(&self) -> Option<&str> {
        self.rare.as_ref()?.former.as_deref()
    }

    /// All of it again.
    pub(super) fn report(&self) -> Report {
        let rare = self.rare.as_deref();
        Report {
            status: Status {
                state: self.state,
                epoch: self.epoch,
                since: self.since.0,
                mac: self.mac,
                interface: self.interface.to_string(),
                cause: self.cause,
                owner: rare.and_then(|rare| rare.owner.clone()),
                foreign: rare.and_then(|rare| rare.foreign),
            },
            since: self.since.1,
            former: rare.and_then(|rare| rare.former.clone()),
            released: self.released,
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
        let mut common = Common::default();
        for (status, metadata) in [
            (json!({}), name(json!({}))),
            (json!({"layer2": layer2, "conditions": [ready]}), name(json!({"resourceVersion": "4711", "uid": "u"}))),
            (json!({"layer2": cared_for}), name(json!({"resourceVersion": "0007"}))),
            (json!({"conditions": [ready]}), name(json!({"resourceVersion": "v1-2"}))),
        ] {
            let seen = seen(status, metadata);
            assert_eq!(Kept::of(seen.clone(), &mut common).seen(address), seen);
        }
    }

    #[test]
    fn a_kept_report_is_the_whole_of_it() {
        let status = Status {
            state: State::Answering,
            epoch: 3,
            since: Duration::from_millis(1_234),
            mac: MacAddr([2, 0, 0, 0, 0, 1]),
            interface: "eth0".to_owned(),
            cause: Reason::Answering,
            owner: None,
            foreign: None,
        };
        let since: Timestamp = "2026-11-21T08:00:00.5Z".parse().unwrap();
        let plain = Report { status: status.clone(), since, former: None, released: false };
        let caring = Status { state: State::Caring, owner: Some(NodeName::new("b").unwrap()), ..status.clone() };
        let attacked = Status { foreign: Some(MacAddr([2, 9, 9, 9, 9, 9])), ..status };
        let mut common = Common::default();
        for report in [
            plain.clone(),
            Report { status: caring, ..plain.clone() },
            Report { status: attacked, released: true, ..plain.clone() },
            Report { former: Some("c".to_owned()), ..plain },
        ] {
            assert_eq!(KeptReport::of(report.clone(), &mut common).report(), report);
        }
    }

    #[test]
    fn a_uid_is_written_as_it_was_read() {
        for (text, is_small) in [
            ("0b5b4a4e-0d5c-4d1b-8c57-0f1e2d3c4b5a", true),
            ("00000000-0000-0000-0000-000000000000", true),
            ("0B5B4A4E-0D5C-4D1B-8C57-0F1E2D3C4B5A", false),
            ("0b5b4a4e0d5c4d1b8c570f1e2d3c4b5a", false),
            ("+b5b4a4e-0d5c-4d1b-8c57-0f1e2d3c4b5a", false),
            ("u", false),
            ("", false),
        ] {
            let uid = Uid::of(text);
            assert_eq!((uid.written().as_str(), matches!(uid, Uid::Uuid(_))), (text, is_small));
        }
    }

    #[test]
    fn thousands_take_little_room() {
        // In the owner's speaker each address has one of both; what they point to is shared or rare.
        assert!(
            size_of::<Kept>() + size_of::<KeptReport>() <= 256,
            "{} {}",
            size_of::<Kept>(),
            size_of::<KeptReport>()
        );
    }
}
