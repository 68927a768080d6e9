//! What a leader that stops tells the next one: which shards and which targets are as they are to be, each in a few digits. Whoever finds the
//! same digits need not ask AWS. What took its time, or was not well, is left out and looked at.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use berth_provider::Shard;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::Aws;
use super::memory::Rest;
use super::sync::Settled;
use crate::cloud::{Cloud, TargetState};
use crate::names::digest;

#[derive(Serialize, Deserialize)]
struct HandedOver {
    /// Of the program and what an operator says: with others something else may be to be done.
    by: String,
    /// What Services ask for and what there is, by shard.
    shards: BTreeMap<String, (String, String)>,
    /// Which targets are registered and how all of them are, by a digest of the target group's identity.
    targets: BTreeMap<String, (String, TargetState)>,
}

impl<C: Cloud> Aws<C> {
    fn by(&self) -> String {
        digest(&[env!("CARGO_PKG_VERSION"), &format!("{:?}", self.settings)])
    }

    pub(super) fn hand_over(&self) -> Option<String> {
        let shards = self.memory.lock().unwrap_or_else(PoisonError::into_inner).at_rest();
        let shards = shards.into_iter().map(|(shard, rest)| (shard.0, (rest.asks, rest.things))).collect();
        let sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        let targets = sent.iter().filter_map(|(arn, sent)| {
            let Settled { targets, state } = sent.settled()?;
            Some((digest(&[arn]), (targets, state)))
        });
        let handed_over = HandedOver { by: self.by(), shards, targets: targets.collect() };
        serde_json::to_string(&handed_over).ok()
    }

    pub(super) fn inherit(&self, text: &str) {
        // One that another version wrote, or that was made under other flags, is none.
        let Ok(handed_over) = serde_json::from_str::<HandedOver>(text) else { return };
        if handed_over.by != self.by() {
            return;
        }
        let HandedOver { shards, targets, .. } = handed_over;
        let shards = shards.into_iter().map(|(shard, (asks, things))| (Shard(shard), Rest { asks, things })).collect();
        self.memory.lock().unwrap_or_else(PoisonError::into_inner).inherit(shards, self.began, Instant::now());
        let targets = targets.into_iter().map(|(arn, (targets, state))| (arn, Settled { targets, state }));
        *self.inherited_targets.lock().unwrap_or_else(PoisonError::into_inner) = targets.collect();
    }
}
