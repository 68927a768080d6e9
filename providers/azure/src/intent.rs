//! What a Service asks for, read from its spec and annotations into types that cannot be wrong.

mod front;
mod ports;
mod sources;

use berth_api::annotations as own;
use berth_api::{IpFamily, Reason};
use berth_provider::{Intent, ServiceId};

use crate::annotation::Annotations;
use crate::refusal::Refusal;
use crate::settings::Settings;

pub use front::{Dns, Front, FrontAsks, Scheme};
pub use ports::{Probe, ProbeKind, ProbeName, RuleAsks, Rules, Transport};
pub use sources::Sources;

/// What a Service asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asks {
    /// Which Service.
    pub service: ServiceId,
    /// When it was made: who came first is served first.
    pub created: i64,
    /// Whether what it has is to be left and forgotten.
    pub disown: bool,
    /// What it asks of its frontends.
    pub front: Front,
    /// Its rules and probes.
    pub rules: Rules,
    /// Who may reach it.
    pub sources: Sources,
}

/// One of our own annotations that is `true` or `false`.
fn own_truth(intent: &Intent, name: &str) -> Result<bool, Refusal> {
    match intent.annotations.get(name).map_or("", |value| value.trim()) {
        "true" => Ok(true),
        "false" | "" => Ok(false),
        other => Err(Refusal::Value {
            field: name.to_owned(),
            value: other.to_owned(),
            wrong: "neither true nor false".to_owned(),
            advice: "write one of the two".to_owned(),
        }),
    }
}

/// Whether what a Service has is to be left and forgotten, whatever else it asks for.
pub fn disowns(intent: &Intent) -> bool {
    own_truth(intent, own::DISOWN).unwrap_or(false)
}

/// The families of a Service, its first one first.
pub fn families(intent: &Intent) -> Vec<IpFamily> {
    let first = intent.families.first;
    let second = intent.families.second.map(|_| first.other());
    std::iter::once(first).chain(second).collect()
}

impl Asks {
    /// Reads a Service.
    ///
    /// # Errors
    /// When something that it asks for is wrong, not done, or not admitted; the message names the annotation or field.
    pub fn of(intent: &Intent, settings: &Settings) -> Result<Self, Refusal> {
        let request = intent.cloud_request.as_ref().map_err(|e| Refusal::Request(e.to_string(), e.reason()))?;
        let refuse = |message: &str, reason| Err(Refusal::Request(message.to_owned(), reason));
        if request.pool.is_some() {
            return refuse("a pool is asked for, and Azure has none; remove the annotation", Reason::Unsupported);
        }
        if intent.sharing.is_some() {
            let message = "addresses are not shared by key on Azure; ask for the same address instead";
            return refuse(message, Reason::SharingUnsupported);
        }
        if intent.annotations.get(own::LOAD_BALANCER_GROUP).is_some_and(|group| !group.trim().is_empty()) {
            let why = "all Services share one load balancer of their scheme on Azure anyway".to_owned();
            return Err(Refusal::Unsupported { field: own::LOAD_BALANCER_GROUP.to_owned(), why });
        }
        own_truth(intent, own::ALLOW_REPLACEMENT)?;
        let disown = own_truth(intent, own::DISOWN)?;
        let annotations = Annotations::of(&intent.annotations)?;
        let front = Front::of(intent, request, &annotations, settings)?;
        let rules = Rules::of(intent, &annotations, &front, settings)?;
        let sources = Sources::of(intent, &annotations, &front, settings)?;
        Ok(Self { service: intent.id.clone(), created: intent.created, disown, front, rules, sources })
    }
}
