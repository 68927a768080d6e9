//! What is known of shards without asking AWS: what was seen of them in depth, and what was done since, as every call noted it.
//!
//! Looking at one load balancer in depth takes about ten calls, and each effect is followed by a look. So a shard is looked at when its
//! Services change, when a call failed, and once an hour; in between it is planned against what is known. Only how far a load balancer has
//! come is asked meanwhile, of many in one call.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::PoisonError;
use std::time::Duration;

use berth_provider::{Intent, ServiceId, Shard, Wanted};
use tokio::time::Instant;

use super::Aws;
use super::index::{Index, is_load_balancer};
use super::observe::refer_to_others;
use crate::cloud::{By, CallError, Cloud, Pairs, State};
use crate::names::digest;
use crate::observed::{Observed, SeenLoadBalancer};

/// What is known is gone by for about so long. Looks in depth are spread over that time by the shards' names.
const LASTS: Duration = Duration::from_hours(1);
/// A look in depth that would be due sooner after the last one is left out, so that the first one after a change is not followed by another.
const SOONEST: Duration = Duration::from_mins(10);
/// How long what AWS said of a load balancer that comes up is gone by: shorter than the wait of who asks, so that everybody hears news.
const STATE_LASTS: Duration = Duration::from_secs(8);
/// From this age on what is known of one is asked again beside another one, for it will be wanted soon.
const STATE_ASKED_WITH: Duration = Duration::from_secs(4);
/// Load balancers that are asked for by identity at once (AWS rule).
const AT_ONCE: usize = 20;

/// What is known of all shards.
#[derive(Default)]
pub(super) struct Memory {
    kept: BTreeMap<Shard, Kept>,
    /// What the leader before knew of shards, in short: nothing was to be done for them.
    inherited: BTreeMap<Shard, Rest>,
    /// When each is looked at in depth again.
    until: BTreeMap<Shard, Instant>,
    /// When something was made in it last.
    made: BTreeMap<Shard, Instant>,
}

/// What is known of one.
struct Kept {
    /// What its Services asked for then.
    asks: String,
    /// Those of which all that there is was seen, whether they stay or go.
    services: BTreeSet<ServiceId>,
    observed: Observed,
    /// Whether nothing is to be done, and everybody has what he asks for.
    is_at_rest: bool,
}

/// A shard for which nothing was to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rest {
    /// What its Services asked for, in short.
    pub(super) asks: String,
    /// What there was of it, in short.
    pub(super) things: String,
}

/// Load balancers that come up, how far they had come, and when that was heard.
pub(super) type Coming = BTreeMap<String, (Instant, State)>;

/// Tells in short what the Services of a shard ask for. What is published of them is no wish.
fn asks(wanted: &Wanted) -> String {
    let each = wanted.present.values().map(|intent| {
        let intent = Intent { published: Vec::new(), ..intent.clone() };
        format!("{intent:?}")
    });
    let all: Vec<_> = each.collect();
    digest(&all.iter().map(String::as_str).collect::<Vec<_>>())
}

/// Tells in short what there is of a shard.
fn things<'a>(ids: impl Iterator<Item = &'a String>) -> String {
    digest(&ids.map(String::as_str).collect::<Vec<_>>())
}

/// When a shard that was looked at now is due again: at its own place in each hour.
fn due(shard: &Shard, base: Instant, now: Instant) -> Instant {
    let hour = LASTS.as_secs();
    let place = u64::from_str_radix(&digest(&[&shard.0]), 16).unwrap_or_default() % hour;
    let elapsed = now.saturating_duration_since(base).as_secs() % hour;
    let wait = Duration::from_secs((place + hour - elapsed) % hour);
    now + if wait < SOONEST { wait + LASTS } else { wait }
}

impl Memory {
    /// What is known of a shard, if that will do for what is asked of it now.
    fn of(&self, shard: &Shard, wanted: &Wanted, now: Instant) -> Option<&Observed> {
        let kept = self.kept.get(shard)?;
        let is_fresh = self.until.get(shard).is_some_and(|until| *until > now);
        // What a Service that goes has is known, whatever it asked for last, if it was here.
        let same = wanted.present.is_empty() || kept.asks == asks(wanted);
        let was_here = wanted.leaving.keys().all(|id| kept.services.contains(id));
        (is_fresh && same && was_here).then_some(&kept.observed)
    }

    pub(super) fn forget(&mut self, shard: &Shard) {
        self.kept.remove(shard);
        self.inherited.remove(shard);
    }

    pub(super) fn forget_all(&mut self) {
        (self.kept, self.inherited, self.until) = Default::default();
    }

    /// Something is about to be changed in a shard, or made.
    pub(super) fn changes(&mut self, shard: &Shard, is_made: bool) {
        self.forget(shard);
        if is_made {
            self.made.insert(shard.clone(), Instant::now());
        }
    }

    /// When something was made in a shard last, if it is known.
    pub(super) fn made(&self, shard: &Shard) -> Option<Instant> {
        self.made.get(shard).copied()
    }

    /// The shards for which nothing is to be done, as far as is known.
    pub(super) fn at_rest(&self) -> BTreeMap<Shard, Rest> {
        let kept = self.kept.iter().filter(|(_, kept)| kept.is_at_rest);
        let kept = kept.map(|(shard, kept)| {
            (shard.clone(), Rest { asks: kept.asks.clone(), things: things(ids(&kept.observed)) })
        });
        self.inherited.clone().into_iter().chain(kept).collect()
    }

    /// Takes over what the leader before knew.
    pub(super) fn inherit(&mut self, all: BTreeMap<Shard, Rest>, base: Instant, now: Instant) {
        self.until = all.keys().map(|shard| (shard.clone(), due(shard, base, now))).collect();
        self.inherited = all;
    }

    /// Whether nothing is to be done for a shard, as far as the leader before knew.
    fn is_at_rest(&self, shard: &Shard, wanted: &Wanted, index: &Index, now: Instant) -> bool {
        // Whoever goes may have something here, also where the leader before had not been told to take it away.
        wanted.leaving.is_empty()
            && self.until.get(shard).is_some_and(|until| *until > now)
            && self
                .inherited
                .get(shard)
                .is_some_and(|rest| rest.asks == asks(wanted) && rest.things == things(index.ids_of(shard)))
    }
}

/// The identities of what was seen of a shard, in their order.
fn ids(observed: &Observed) -> impl Iterator<Item = &String> {
    let balancers = observed.load_balancers.iter().map(|seen| &seen.is.arn);
    let targets = observed.target_groups.iter().map(|seen| &seen.is.arn);
    let groups = observed.security_groups.iter().map(|group| &group.id);
    balancers.chain(targets).chain(groups).collect::<BTreeSet<_>>().into_iter()
}

impl<C: Cloud> Aws<C> {
    /// What is known of a shard, brought up to date; `None` when it has to be looked at.
    pub(super) async fn recall(&self, shard: &Shard, wanted: &Wanted) -> Result<Option<Observed>, CallError> {
        let index = self.index().await?;
        let known = {
            let memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
            if memory.is_at_rest(shard, wanted, &index, Instant::now()) {
                return Ok(as_it_was_left(&index, shard));
            }
            // Something may have come or gone beside it.
            memory.of(shard, wanted, Instant::now()).filter(|known| index.ids_of(shard).eq(ids(known))).cloned()
        };
        let Some(mut observed) = known else { return Ok(None) };
        refer_to_others(&index, shard, &mut observed);
        self.ask_how_far(&mut observed).await?;
        self.count_targets(&mut observed).await?;
        self.note_unnamed(wanted, &mut observed);
        self.look_at_subnets(wanted, &mut observed).await?;
        Ok(Some(observed))
    }

    /// A shard was looked at in depth, or there is nothing of it to look at.
    pub(super) fn looked(&self, shard: &Shard) {
        let (mut memory, now) = (self.memory.lock().unwrap_or_else(PoisonError::into_inner), Instant::now());
        // Shards that are gone are nobody's to look at.
        let Memory { kept, inherited, until, made } = &mut *memory;
        made.retain(|_, made| *made + LASTS > now);
        until.retain(|_, until| *until > now);
        kept.retain(|shard, _| until.contains_key(shard));
        inherited.retain(|shard, _| until.contains_key(shard));
        memory.forget(shard);
        memory.until.insert(shard.clone(), due(shard, self.began, now));
    }

    /// Keeps what was seen and done.
    pub(super) fn keep(&self, shard: &Shard, wanted: &Wanted, observed: &Observed) {
        if observed.is_as_it_was_left {
            return;
        }
        let plan = crate::plan::plan(&self.settings, wanted, observed);
        let is_met = |key| plan.outcomes.get(key).is_some_and(|outcome| outcome.met);
        let is_at_rest = plan.steps.is_empty()
            && wanted.leaving.is_empty()
            && !wanted.present.is_empty()
            && wanted.present.keys().all(is_met);
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        if observed.is_doubtful {
            memory.forget(shard);
            return;
        }
        let mut observed = observed.clone();
        // Asked for anew when they are needed.
        observed.subnets.clear();
        let services = wanted.present.values().map(|intent| &intent.id).chain(wanted.leaving.keys()).cloned().collect();
        memory.kept.insert(shard.clone(), Kept { asks: asks(wanted), services, observed, is_at_rest });
    }

    /// How long what is known of a shard will be gone by.
    pub(super) fn known_for(&self, shard: &Shard) -> Option<Duration> {
        let memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let is_known = memory.kept.contains_key(shard) || memory.inherited.contains_key(shard);
        let until = memory.until.get(shard).filter(|_| is_known)?;
        Some(until.saturating_duration_since(Instant::now()))
    }

    /// Asks how far load balancers have come that were not up when they were heard of last.
    async fn ask_how_far(&self, observed: &mut Observed) -> Result<(), CallError> {
        let is_up = |state: State| matches!(state, State::Active | State::ActiveImpaired);
        let own: Vec<_> = observed.load_balancers.iter().filter(|seen| !is_up(seen.is.state)).collect();
        let own: Vec<String> = own.into_iter().map(|seen| seen.is.arn.clone()).collect();
        if own.is_empty() {
            return Ok(());
        }
        // Whoever else asks meanwhile waits for this answer.
        let mut coming = self.coming.lock().await;
        let age = |coming: &Coming, arn: &String| coming.get(arn).map(|(at, _)| at.elapsed());
        if own.iter().any(|arn| age(&coming, arn).is_none_or(|age| age >= STATE_LASTS)) {
            let others = coming.iter().filter(|(arn, (at, _))| !own.contains(arn) && at.elapsed() >= STATE_ASKED_WITH);
            let mut others: Vec<_> = others.map(|(arn, (at, _))| (*at, arn.clone())).collect();
            others.sort();
            let arns: Vec<_> =
                own.iter().cloned().chain(others.into_iter().map(|(_, arn)| arn)).take(AT_ONCE).collect();
            let seen = match self.cloud.describe_load_balancers(By::Arns(&arns)).await {
                // Of many it may be another one that is gone; whose it was hears of it.
                Err(error) if error.is_not_found() && arns.len() > own.len() => {
                    coming.retain(|arn, _| own.contains(arn));
                    self.cloud.describe_load_balancers(By::Arns(&own)).await?
                }
                other => other?,
            };
            let now = Instant::now();
            coming.extend(seen.into_iter().map(|is| (is.arn, (now, is.state))));
        }
        for seen in &mut observed.load_balancers {
            if let Some((_, state)) = coming.get(&seen.is.arn) {
                seen.is.state = *state;
            }
            if is_up(seen.is.state) {
                coming.remove(&seen.is.arn);
            }
        }
        Ok(())
    }

    /// A load balancer was made, or is there no more.
    pub(super) async fn note_coming(&self, arn: &str, state: Option<State>) {
        let mut coming = self.coming.lock().await;
        match state {
            Some(state) => drop(coming.insert(arn.to_owned(), (Instant::now(), state))),
            None => drop(coming.remove(arn)),
        }
    }
}

/// What is there of a shard for which nothing is to be done: its load balancer, if that is up and alone.
fn as_it_was_left(index: &Index, shard: &Shard) -> Option<Observed> {
    let [arn] = &index.of_shard(shard, is_load_balancer)[..] else { return None };
    let is = index.balancers.get(arn).filter(|is| is.state == State::Active)?.clone();
    let tags = index.things.get(arn).cloned().unwrap_or_default();
    let seen = SeenLoadBalancer {
        is,
        tags,
        attributes: Pairs::new(),
        listeners: BTreeMap::new(),
        unnamed_for: Duration::ZERO,
    };
    Some(Observed { load_balancers: vec![seen], is_as_it_was_left: true, ..Observed::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_shard_has_its_own_place_in_the_hour_and_all_of_them_are_spread_evenly() {
        let base = Instant::now();
        let now = base + Duration::from_secs(5_000);
        let mut by_tenth = [0; 10];
        for number in 0..1_000 {
            let shard = Shard(format!("shop/service/s{number}"));
            let first = due(&shard, base, now);
            let wait = first - now;
            assert!(wait >= SOONEST && wait < SOONEST + LASTS, "{wait:?}");
            assert_eq!(due(&shard, base, first) - first, LASTS, "then once an hour");
            by_tenth[usize::try_from((first - base).as_secs() % 3_600 / 360).unwrap()] += 1;
        }
        assert!(by_tenth.iter().all(|count| (60..140).contains(count)), "{by_tenth:?}");
    }
}
