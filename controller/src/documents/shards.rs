//! What a provider is asked for, shard by shard, and when each is due: a plain state, the time is an argument.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use berth_api::service::ServiceKey;
use berth_provider::{Class, Failure, Intent, LOOK_AGAIN, Outcome, ServiceId, Shard, Wanted};

/// A shard that has something to do at every look is not at rest for a reason that looking again does not mend, such as a field that
/// the other side does not give back. As many looks in a row are usual while things are made.
const RESTLESS: u32 = 5;
/// The wait after that, doubled with each further look up to [`RESTLESS_LONGEST`].
const RESTLESS_FIRST: Duration = Duration::from_secs(1);
/// The longest wait of a shard that is never at rest.
const RESTLESS_LONGEST: Duration = Duration::from_mins(5);
/// The longest wait of a shard in which nothing changes while it waits for something: what takes minutes is not held up by it much.
const UNCHANGED_LONGEST: Duration = Duration::from_secs(30);

/// The Services of one provider.
#[derive(Debug, Default)]
pub(super) struct Shards {
    present: BTreeMap<ServiceKey, (Shard, Intent)>,
    leaving: BTreeMap<Shard, BTreeMap<ServiceId, Intent>>,
    members: BTreeMap<Shard, BTreeSet<ServiceKey>>,
    due: BTreeMap<Shard, Duration>,
    busy: BTreeMap<Shard, BTreeSet<ServiceId>>,
    /// Failures in a row.
    failures: BTreeMap<Shard, u32>,
    /// Looks in a row that found something to do.
    restless: BTreeMap<Shard, u32>,
    /// Looks in a row that found what is waited for not to be there, and everything as before.
    unchanged: BTreeMap<Shard, u32>,
    /// Shards for which the other side asked for fewer calls, and until when nothing is asked.
    throttled: BTreeMap<Shard, Duration>,
    /// Services of which was published what the last look at their shard came to.
    told: BTreeSet<ServiceId>,
}

/// What one look at a shard came to.
#[derive(Debug, Default)]
pub(super) struct Turn {
    /// Steps that were planned.
    pub steps: usize,
    /// The Services that they are for.
    pub concerns: BTreeSet<ServiceId>,
    /// Steps that were carried out.
    pub done: usize,
    /// Whether it was stopped in between.
    pub stopped: bool,
    /// What is to be said.
    pub outcomes: BTreeMap<ServiceId, Outcome>,
    /// What is to be said of Services that leave.
    pub farewells: BTreeMap<ServiceId, Outcome>,
    /// What went wrong with a Service.
    pub failures: BTreeMap<ServiceId, Failure>,
    /// What kept the shard from being looked at.
    pub unseen: Option<Failure>,
    /// How long the shard may be left alone when it is at rest, where the provider says.
    pub rests: Option<Duration>,
}

impl Shards {
    /// Takes in what a Service asks for; `None` if it is not this provider's (any more).
    pub(super) fn learn(&mut self, key: ServiceKey, asked: Option<(Shard, Intent)>, at: Duration) {
        let before = self.present.get(&key);
        if before == asked.as_ref() {
            return;
        }
        let stays = |(shard, intent): &(Shard, Intent)| {
            asked.as_ref().is_some_and(|(now, asks)| now == shard && asks.id == intent.id)
        };
        if let Some((shard, intent)) = before.filter(|before| !stays(before)).cloned() {
            // Made again under the same name, moved to another shard, or gone: what it had is not to remain.
            self.leaving.entry(shard.clone()).or_default().insert(intent.id.clone(), intent);
            if let Some(members) = self.members.get_mut(&shard) {
                members.remove(&key);
            }
            self.unchanged.remove(&shard);
            self.soon(shard, at);
        }
        if let Some((_, intent)) = self.present.remove(&key).filter(|before| !stays(before)) {
            // It is not told of what it has in another shard.
            self.told.remove(&intent.id);
        }
        if let Some((_, intent)) = &asked {
            // What it has in another shard may be given up once people are told of what it has in this one.
            self.soon_where_it_leaves(&intent.id, at);
        }
        if let Some((shard, intent)) = asked {
            if let Some(leaving) = self.leaving.get_mut(&shard) {
                leaving.remove(&intent.id);
            }
            self.members.entry(shard.clone()).or_default().insert(key.clone());
            self.unchanged.remove(&shard);
            self.soon(shard.clone(), at);
            self.present.insert(key, (shard, intent));
        }
    }

    /// A Service is to leave every shard that it is in, and this one, in which it would be; also one that was never seen here.
    pub(super) fn leave(&mut self, key: &ServiceKey, shard: Shard, intent: &Intent, at: Duration) {
        self.learn(key.clone(), None, at);
        self.leaving.entry(shard).or_default().insert(intent.id.clone(), intent.clone());
        // What it says now is gone by everywhere.
        for leaving in self.leaving.values_mut().filter(|leaving| leaving.contains_key(&intent.id)) {
            leaving.insert(intent.id.clone(), intent.clone());
        }
        self.soon_where_it_leaves(&intent.id, at);
    }

    /// Something of a Service was found in a shard: it leaves that one if it is in another, or in none.
    pub(super) fn found(&mut self, shard: &Shard, intent: &Intent, at: Duration) {
        let is_there = self.present.get(&intent.id.key).is_some_and(|(is, asks)| is == shard && asks.id == intent.id);
        if !is_there {
            self.leaving.entry(shard.clone()).or_default().entry(intent.id.clone()).or_insert_with(|| intent.clone());
            self.soon(shard.clone(), at);
        }
    }

    /// Whether something of a Service may be left in a shard that it leaves.
    pub(super) fn is_leaving(&self, id: &ServiceId) -> bool {
        self.leaving.values().any(|leaving| leaving.contains_key(id))
    }

    /// The shard that a Service is in.
    pub(super) fn shard_of(&self, key: &ServiceKey) -> Option<&Shard> {
        self.present.get(key).map(|(shard, _)| shard)
    }

    /// Every shard with a Service.
    pub(super) fn inhabited(&self) -> impl Iterator<Item = &Shard> {
        self.members.iter().filter(|(_, members)| !members.is_empty()).map(|(shard, _)| shard)
    }

    /// The Services of a shard.
    pub(super) fn members(&self, shard: &Shard) -> impl Iterator<Item = &Intent> {
        let members = self.members.get(shard).into_iter().flatten();
        members.filter_map(|key| self.present.get(key).map(|(_, intent)| intent))
    }

    fn soon_where_it_leaves(&mut self, id: &ServiceId, at: Duration) {
        let shards = self.leaving.iter().filter(|(_, leaving)| leaving.contains_key(id));
        let shards: Vec<_> = shards.map(|(shard, _)| shard.clone()).collect();
        for shard in shards {
            self.soon(shard, at);
        }
    }

    /// Everything is due: whoever led before may have left anything.
    pub(super) fn all_due(&mut self, now: Duration) {
        let shards: Vec<_> = self.members.keys().chain(self.leaving.keys()).cloned().collect();
        for shard in shards {
            self.due.insert(shard, now);
        }
        self.failures.clear();
        self.restless.clear();
        self.unchanged.clear();
        self.throttled.clear();
    }

    /// Another replica leads, and takes away what is to go. What is there then is found by looking.
    pub(super) fn stand_by(&mut self) {
        self.told.clear();
        self.leaving.clear();
        self.due.clear();
        self.members.retain(|_, members| !members.is_empty());
    }

    /// When the next shard is due that is not being looked at.
    pub(super) fn next_due(&self) -> Option<Duration> {
        self.due.iter().filter(|(shard, _)| !self.busy.contains_key(*shard)).map(|(_, due)| *due).min()
    }

    /// How many are being looked at.
    pub(super) fn busy(&self) -> usize {
        self.busy.len()
    }

    /// A shard that is due, and what is asked of it. It is busy until [`Shards::done`].
    pub(super) fn next(&mut self, now: Duration) -> Option<(Shard, Wanted)> {
        let due = self.due.iter().filter(|(shard, due)| **due <= now && !self.busy.contains_key(*shard));
        let shard = due.min_by_key(|(_, due)| **due)?.0.clone();
        self.due.remove(&shard);
        let present = self.members.get(&shard).into_iter().flatten();
        let present = present.filter_map(|key| Some((key.clone(), self.present.get(key)?.1.clone()))).collect();
        let leaving = self.leaving.get(&shard).into_iter().flatten().filter(|(id, was)| self.may_leave(id, was));
        let leaving: BTreeMap<_, _> = leaving.map(|(id, was)| (id.clone(), was.clone())).collect();
        self.busy.insert(shard.clone(), leaving.keys().cloned().collect());
        Some((shard, Wanted { present, leaving }))
    }

    /// Takes in what came of it.
    pub(super) fn done(&mut self, shard: &Shard, turn: &Turn, now: Duration) {
        let asked_to_leave = self.busy.remove(shard).unwrap_or_default();
        for (id, outcome) in &turn.outcomes {
            let present = self.present.get(&id.key).filter(|(is, intent)| is == shard && intent.id == *id);
            if outcome.met && present.is_some_and(|(_, intent)| intent.published == outcome.ingress) {
                if self.told.insert(id.clone()) {
                    self.soon_where_it_leaves(id, now);
                }
            } else {
                self.told.remove(id);
            }
        }
        if turn.unseen.is_none() && !turn.stopped {
            // Nothing is left of those that this look was told of and that no step is for, whatever others of the shard wait for.
            let is_left = |id: &ServiceId| turn.concerns.contains(id) || turn.failures.contains_key(id);
            self.forget_left(shard, |id| asked_to_leave.contains(id) && !is_left(id));
        }
        let failures: Vec<_> = turn.failures.values().chain(&turn.unseen).collect();
        if turn.steps > 0 || !failures.is_empty() || turn.stopped {
            self.unchanged.remove(shard);
            let wait = self.wait_after(shard, turn, &failures, now);
            self.soon(shard.clone(), now + wait);
            return;
        }
        self.failures.remove(shard);
        self.restless.remove(shard);
        if self.members.get(shard).is_none_or(BTreeSet::is_empty) && !self.leaving.contains_key(shard) {
            self.members.remove(shard);
            self.unchanged.remove(shard);
            return;
        }
        let again = if let Some(wait) = turn.outcomes.values().filter_map(|outcome| outcome.look_again).min() {
            self.wait_unchanged(shard, wait)
        } else {
            self.unchanged.remove(shard);
            turn.rests.unwrap_or(LOOK_AGAIN)
        };
        self.soon(shard.clone(), now + again);
    }

    /// These leave a shard no more.
    fn forget_left(&mut self, shard: &Shard, is_gone: impl Fn(&ServiceId) -> bool) {
        if let Some(leaving) = self.leaving.get_mut(shard) {
            leaving.retain(|id, _| !is_gone(id));
            if leaving.is_empty() {
                self.leaving.remove(shard);
            }
        }
    }

    /// The wait for what does not depend on us: twice as long each time that nothing has changed.
    fn wait_unchanged(&mut self, shard: &Shard, wait: Duration) -> Duration {
        let looks = self.unchanged.entry(shard.clone()).or_default();
        let longer = wait.saturating_mul(1 << (*looks).min(16)).min(UNCHANGED_LONGEST.max(wait));
        *looks = looks.saturating_add(1);
        longer
    }

    /// Something happened that a shard may have waited for.
    pub(super) fn hasten(&mut self, shard: &Shard, now: Duration) {
        if self.unchanged.remove(shard).is_some() {
            self.soon(shard.clone(), now);
        }
    }

    /// How long to wait after a look that was not the last: what one Service waits for holds up no other.
    fn wait_after(&mut self, shard: &Shard, turn: &Turn, failures: &[&Failure], now: Duration) -> Duration {
        let mut waits: Vec<_> = turn.outcomes.values().filter_map(|outcome| outcome.look_again).collect();
        if failures.is_empty() {
            self.failures.remove(shard);
        } else {
            let count = self.failures.entry(shard.clone()).or_default();
            *count = count.saturating_add(1);
            waits.extend(failures.iter().map(|failure| failure.wait(*count)));
            // One call is as good as another to who is asked for fewer.
            let throttled = failures.iter().filter(|failure| failure.class == Class::Throttled);
            if let Some(wait) = throttled.map(|failure| failure.wait(*count)).max() {
                self.throttled.insert(shard.clone(), now + wait);
            }
        }
        // What was done is seen by looking again, and what follows from it is planned then.
        if turn.done > 0 || turn.stopped {
            let looks = self.restless.entry(shard.clone()).or_default();
            *looks = looks.saturating_add(1);
            let over = looks.saturating_sub(RESTLESS);
            waits.push(if over == 0 {
                Duration::ZERO
            } else {
                RESTLESS_FIRST.saturating_mul(1 << over.saturating_sub(1).min(16)).min(RESTLESS_LONGEST)
            });
        }
        waits.into_iter().min().unwrap_or(LOOK_AGAIN)
    }

    /// Whether what a Service had in a shard may be taken away: not while it only moves to another shard, and people are told of what
    /// it has here.
    fn may_leave(&self, id: &ServiceId, was: &Intent) -> bool {
        let moved = self.present.get(&id.key).filter(|(_, intent)| intent.id == *id);
        moved.is_none_or(|(_, intent)| intent.published != was.published || self.told.contains(id))
    }

    /// Every Service.
    pub(super) fn all_present(&self) -> Vec<&Intent> {
        self.present.values().map(|(_, intent)| intent).collect()
    }

    /// Whether a Service is in a shard, or leaves it.
    pub(super) fn is_inhabited(&self, shard: &Shard) -> bool {
        self.members.get(shard).is_some_and(|members| !members.is_empty()) || self.leaving.contains_key(shard)
    }

    /// Every Service that is in a shard or leaves one, and these.
    pub(super) fn all(&self) -> impl Iterator<Item = (&Shard, &ServiceId)> {
        let present = self.present.values().map(|(shard, intent)| (shard, &intent.id));
        present.chain(self.leaving.iter().flat_map(|(shard, leaving)| leaving.keys().map(move |id| (shard, id))))
    }

    /// What is published about a Service now, and whether it is still this provider's.
    pub(super) fn present(&self, key: &ServiceKey) -> Option<&Intent> {
        self.present.get(key).map(|(_, intent)| intent)
    }

    fn soon(&mut self, shard: Shard, at: Duration) {
        let at = at.max(self.throttled.get(&shard).copied().unwrap_or_default());
        let due = self.due.entry(shard).or_insert(at);
        *due = at.min(*due);
    }
}

#[cfg(test)]
#[path = "shards_tests.rs"]
mod tests;
