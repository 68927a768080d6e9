//! Azure refuses a whole document for one Service's part of it. Here it is found out whose, so that it harms no other.

use std::collections::BTreeMap;
use std::time::Duration;

use berth_provider::{Class, Failure, ServiceId};
use serde_json::Value;
use tokio::time::Instant;

use super::{is_refused, suspects};
use crate::arm::ArmError;
use crate::document::{name, parts};
use crate::intent::Asks;
use crate::names;
use crate::refusal::Refusal;

/// How long a Service that Azure refused is left out although nothing of it changed: what it named may have been mended there.
const LASTS: Duration = Duration::from_hours(1);
/// Where that many Services may change together there is no limit any more.
const ALL: usize = 256;

/// A write that failed.
pub(super) struct Write<'a> {
    pub body: &'a Value,
    /// Whether Azure called the document failed that was there.
    pub had_failed: bool,
}

/// Who is to blame, and how many Services may change in one write.
#[derive(Default)]
pub(super) struct Blame {
    blamed: BTreeMap<ServiceId, (Instant, Asks, Refusal)>,
    at_once: Option<usize>,
}

impl Blame {
    /// Those that are left out for now.
    pub(super) fn blamed(&mut self) -> BTreeMap<ServiceId, (Asks, Refusal)> {
        self.blamed.retain(|_, (at, _, _)| at.elapsed() < LASTS);
        self.blamed.iter().map(|(id, (_, asks, refusal))| (id.clone(), (asks.clone(), refusal.clone()))).collect()
    }

    pub(super) fn at_once(&self) -> Option<usize> {
        self.at_once
    }

    pub(super) fn succeeded(&mut self) {
        self.at_once = self.at_once.map(|many| many * 2).filter(|many| *many < ALL);
    }

    /// Whether a write may have failed by what somebody else has in the document: one that Azure took is not refused for that.
    fn is_others_fault(&self, suspect: &ServiceId, write: &Write<'_>) -> bool {
        let base = names::base(&suspect.uid);
        let has_others = parts(write.body, "frontendIPConfigurations")
            .iter()
            .chain(parts(write.body, "loadBalancingRules"))
            .any(|part| names::base_of(name(part)) != Some(base.as_str()));
        // Of a security rule nobody can tell whose it is.
        let has_blamed = write.body["properties"]["securityRules"].is_array() && !self.blamed.is_empty();
        write.had_failed && (has_others || has_blamed)
    }

    /// A write failed: what is said to the Services whose part of it changed.
    pub(super) fn failed(
        &mut self,
        asks: &BTreeMap<ServiceId, Asks>,
        changes: &[ServiceId],
        write: &Write<'_>,
        error: ArmError,
    ) -> Failure {
        let text = error.to_string().to_lowercase();
        let failure = Failure::from(error);
        let suspects = suspects(asks, changes);
        if !is_refused(&failure) || suspects.is_empty() {
            return failure;
        }
        // ARM names the part that it does not take, and parts have the Service's letters in their names.
        let named = |id: &&ServiceId| text.contains(&names::base(&id.uid));
        let mut guilty: Vec<&ServiceId> = suspects.keys().copied().filter(named).collect();
        if let (true, 1, Some(last)) = (guilty.is_empty(), suspects.len(), suspects.keys().next().copied()) {
            if self.is_others_fault(last, write) {
                let message = format!(
                    "Azure refused a document that it called failed before, for a part that may be another's; it is tried again: {failure}"
                );
                return Failure::new(Class::Conflict, message);
            }
            guilty.push(last);
        }
        if guilty.is_empty() {
            let half = (suspects.len() / 2).max(1);
            self.at_once = Some(self.at_once.map_or(half, |before| half.min((before / 2).max(1))));
        }
        for id in guilty {
            if let Some(asks) = suspects.get(id) {
                let refusal = Refusal::Arm(failure.message.clone(), failure.class, failure.reason);
                self.blamed.insert(id.clone(), (Instant::now(), (*asks).clone(), refusal));
            }
        }
        let message = format!("Azure refused what several Services changed together; it is planned anew: {failure}");
        Failure::new(Class::Conflict, message)
    }
}
