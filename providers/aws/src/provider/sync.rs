//! Sends targets: what was registered is remembered, so that a change costs the calls that it takes and no look.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::PoisonError;
use std::time::Duration;

use berth_api::condition::types;
use berth_api::service::TrafficPolicy;
use berth_api::{Condition, ConditionStatus};
use berth_provider::{
    Class, EndpointReport, Failure, Provider as _, ServiceId, ServiceTargets, Shard, TargetReport, Targets,
};
use ipnet::IpNet;
use tokio::time::Instant;

use super::doors::{Needs, Notes};
use super::{Aws, VPC_LASTS};
use crate::backend::Demand;
use crate::cloud::{CallError, Cloud, TargetDescription, TargetState, TargetType};
use crate::gated::{self, Looked};
use crate::intent::Asks;
use crate::names::digest;
use crate::targets::{Health, Key, Thought, condition, gone, key, new, wanted};

/// Targets that AWS takes or lets go at once (AWS rule).
const AT_ONCE: usize = 200;
/// How long what is registered is gone by. Our own calls are noted in it; this is for those of others.
const REGISTERED_LASTS: Duration = Duration::from_hours(1);
/// The wait before the first look at the health of new targets; doubled with each further one up to [`LOOKS_LONGEST`]. AWS needs three
/// health checks of ten seconds at the least.
const LOOKS_FIRST: Duration = Duration::from_secs(15);
/// The longest wait between two looks at health.
const LOOKS_LONGEST: Duration = Duration::from_mins(5);
/// Looks at the health of targets that do not become healthy; later it is seen with what changes, or within the hour.
const LOOKS_MAX: u32 = 10;
/// Between two looks while a pod waits for what AWS thinks of it, which holds up a rollout: half of AWS's shortest interval of health
/// checks, so that little is added to what they take.
const AWAITED_EVERY: Duration = Duration::from_secs(5);
/// How long it is looked at so often: health checks at their slowest, ten of them 300 s apart, are not worth it, those of any usual
/// interval are through by then.
const AWAITED_FOR: Duration = Duration::from_mins(5);
/// Between two looks after that, for as long as a pod waits.
const AWAITED_LATER: Duration = Duration::from_mins(1);
/// When a target that AWS does not take is offered again: an instance may be starting.
const REFUSED_AGAIN: Duration = Duration::from_mins(1);
/// Into so many parts the second half of that time is divided, so that not all groups are looked at together.
const PARTS: u32 = 64;
/// Targets that are looked for one by one when AWS does not take all of many.
const SINGLED_OUT: usize = 16;

/// The targets of a group, all of which are as they are to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Settled {
    /// Which, in short.
    pub(super) targets: String,
    /// How each of them is.
    pub(super) state: TargetState,
}

/// Tells in short which targets these are.
fn in_short<'a>(keys: impl Iterator<Item = &'a Key>) -> String {
    let all: Vec<_> = keys.map(|(id, port)| format!("{id}:{port}")).collect();
    digest(&all.iter().map(String::as_str).collect::<Vec<_>>())
}

/// What is known of the targets of a group.
pub(super) struct Sent {
    /// Until when it is gone by.
    until: Instant,
    registered: BTreeMap<Key, Thought>,
    refused: BTreeMap<Key, Instant>,
    /// When health is looked at next, if it is.
    looks_at: Option<Instant>,
    /// How often it was looked at since a target was registered.
    looks: u32,
    /// Since when pods have waited for what is thought of them; anew with each target that is registered.
    awaited: Option<Instant>,
}

impl Sent {
    /// Those of a group that was made this moment.
    pub(super) fn nothing() -> Self {
        Self::of(Instant::now() + REGISTERED_LASTS, BTreeMap::new())
    }

    fn of(until: Instant, registered: BTreeMap<Key, Thought>) -> Self {
        Self { until, registered, refused: BTreeMap::new(), looks_at: None, looks: 0, awaited: None }
    }

    /// Those that the leader before left, if these are the ones that are wanted now.
    fn as_left(left: &Settled, wanted: &crate::targets::Wanted, arn: &str) -> Option<Self> {
        let registered = wanted.targets.keys().map(|key| (key.clone(), Some((left.state, None)))).collect();
        // Not all at one time.
        let place = u64::from_str_radix(&digest(&[arn]), 16).unwrap_or_default();
        let part = u32::try_from(place % u64::from(PARTS)).unwrap_or_default();
        let until = Instant::now() + REGISTERED_LASTS * (PARTS + part) / (2 * PARTS);
        let same = left.targets == in_short(wanted.targets.keys());
        same.then(|| Self::of(until, registered))
    }

    /// What another leader may go by without a look.
    pub(super) fn settled(&self) -> Option<Settled> {
        let mut states = self.registered.values().map(|thought| match thought {
            Some((state, None)) => Some(*state),
            _ => None,
        });
        let first = states.next()??;
        let is_settled = self.refused.is_empty() && self.looks_at.is_none() && self.until > Instant::now();
        (is_settled && states.all(|state| state == Some(first)))
            .then(|| Settled { targets: in_short(self.registered.keys()), state: first })
    }

    /// Says when health is looked at next.
    fn plan_look(&mut self, now: Instant, is_new: bool, is_settled: bool, is_awaited: bool) {
        if is_new {
            (self.looks_at, self.looks, self.awaited) = (None, 0, None);
        }
        self.awaited = if is_awaited { self.awaited.or(Some(now)) } else { None };
        let longer = LOOKS_FIRST.saturating_mul(1 << self.looks.min(LOOKS_MAX)).min(LOOKS_LONGEST);
        let wait = match self.awaited {
            Some(since) if now.saturating_duration_since(since) < AWAITED_FOR => AWAITED_EVERY,
            Some(_) => AWAITED_LATER,
            None if is_settled || self.looks >= LOOKS_MAX => {
                self.looks_at = None;
                return;
            }
            None => longer,
        };
        let planned = self.looks_at.filter(|at| *at > now);
        let at = now + wait;
        self.looks_at = Some(match planned {
            // One that waits is no reason to look later than was planned.
            Some(planned) if is_awaited => planned.min(at),
            Some(planned) => planned,
            None => at,
        });
    }

    /// When something may be otherwise than it is known to be.
    fn next(&self) -> Instant {
        let again = [Some(self.until), self.looks_at, self.refused.values().min().copied()];
        again.into_iter().flatten().min().unwrap_or(self.until)
    }
}

/// What becomes of sending targets once.
#[derive(Default)]
struct Round {
    report: TargetReport,
    health: BTreeMap<ServiceId, Vec<Looked>>,
    failed: Option<Failure>,
    /// When something may be otherwise.
    again: Option<Instant>,
}

impl Round {
    fn soon(&mut self, at: Option<Instant>) {
        self.again = self.again.into_iter().chain(at).min();
    }
}

/// A target group, and whose it is.
pub(super) struct Group {
    pub(super) arn: String,
    pub(super) kind: TargetType,
    pub(super) port: u16,
    pub(super) service: ServiceId,
}

impl<C: Cloud> Aws<C> {
    pub(super) async fn send(&self, shard: &Shard, targets: &Targets) -> Result<TargetReport, Failure> {
        let groups = self.index().await?.groups_of(shard);
        let has_addresses = groups.iter().any(|group| group.kind == TargetType::Ip);
        let ranges = if has_addresses { self.ranges().await? } else { Vec::new() };
        let all = groups.iter().filter_map(|group| {
            // Whoever has it now registers the targets.
            let of = targets.services.get(&group.service).filter(|of| !self.leaves_alone(&of.intent))?;
            Some((group, of, wanted(group.kind, group.port, of, &targets.nodes, &ranges)?))
        });
        let all: Vec<_> = all.collect();
        let mut round = Round::default();
        // What takes no traffic any more goes first, whatever becomes of the rest.
        let mut there = Vec::new();
        for (group, of, wanted) in &all {
            let taken_out = self.take_out(group, wanted, &ranges, &mut round.report).await;
            let Err(error) = taken_out else {
                there.push((*group, *of, wanted));
                continue;
            };
            if self.failed(&group.service, error, &mut round).await {
                break;
            }
        }
        let is_throttled = round.failed.as_ref().is_some_and(|failure| failure.class == Class::Throttled);
        let mut notes = Notes::new();
        if !is_throttled {
            match self.open(shard, self.needs(targets, &all), &targets.nodes).await {
                Ok(opened) => {
                    notes = opened.notes;
                    round.soon(opened.again);
                }
                // Where a person has to do something targets are sent all the same: who lets in everybody by hand has no use for our rules.
                Err(failure) if failure.class.is_for_a_person() => {
                    round.soon(Some(Instant::now() + failure.wait(1)));
                    notes.insert(format!("load balancers are not let in: {failure}"));
                }
                Err(failure) => return Err(failure),
            }
            for (group, of, wanted) in there {
                let Err(error) = self.put_in(group, of, wanted, &mut round).await else { continue };
                if self.failed(&group.service, error, &mut round).await {
                    break;
                }
            }
        }
        let Round { mut report, health, failed, again } = round;
        if let Some(failure) = failed {
            return Err(failure);
        }
        for (service, of) in &targets.services {
            let groups = health.get(service).map_or(&[][..], Vec::as_slice);
            report.endpoints.entry(service.clone()).or_insert_with(|| gated::report(of, groups));
        }
        for (service, groups) in health {
            let groups: Vec<_> = groups.into_iter().map(|looked| looked.health).collect();
            let policy = targets.services.get(&service).map_or(TrafficPolicy::Cluster, |of| of.intent.policy);
            report.conditions.entry(service).or_insert_with(|| noted(condition(&groups, policy), &notes));
        }
        report.look_again = again.map(|at| at.saturating_duration_since(Instant::now()));
        Ok(report)
    }

    /// Takes in that the targets of a Service could not be sent; whether no more is to be asked now.
    async fn failed(&self, service: &ServiceId, error: CallError, round: &mut Round) -> bool {
        if error.is_not_found() {
            self.forget().await;
        }
        let failure = Failure::from(error);
        let stops = failure.class == Class::Throttled;
        if failure.class.is_for_a_person() {
            round.report.conditions.insert(service.clone(), unsent(&failure));
            round.soon(Some(Instant::now() + failure.wait(1)));
            round.report.endpoints.insert(service.clone(), EndpointReport::Unsent(failure));
        } else {
            // What there is of others is seen to all the same; it is tried again for this one.
            round.failed.get_or_insert(failure);
        }
        stops
    }

    /// What each Service of a shard with target groups needs of nodes and pods.
    fn needs(&self, targets: &Targets, all: &[(&Group, &ServiceTargets, crate::targets::Wanted)]) -> Needs {
        let mut needs = Needs::new();
        for (service, of) in &targets.services {
            // What one that is left alone needs is not known, and is not taken from it.
            let asks = Asks::of(&of.intent, &self.settings).ok().filter(|_| !self.leaves_alone(&of.intent));
            let Some(asks) = asks else {
                needs.insert(service.clone(), None);
                continue;
            };
            let mut demand = Demand::default();
            let mine = all.iter().filter(|(group, ..)| group.service == *service && asks.front.opens_targets);
            for (group, _, wanted) in mine {
                if let Some(port) = asks.ports.get(&group.port) {
                    demand.add(group.kind, port, wanted, self.settings.node_ports);
                }
            }
            needs.insert(service.clone(), Some(demand));
        }
        needs
    }

    /// Deregisters what is wanted no more, after a look where one is due.
    async fn take_out(
        &self,
        group: &Group,
        wanted: &crate::targets::Wanted,
        ranges: &[IpNet],
        report: &mut TargetReport,
    ) -> Result<(), CallError> {
        let arn = &group.arn;
        let now = Instant::now();
        // Taken out: what fails on the way is forgotten with it.
        let known = self.sent.lock().unwrap_or_else(PoisonError::into_inner).remove(arn);
        let left = self.inherited_targets.lock().unwrap_or_else(PoisonError::into_inner).remove(&digest(&[arn]));
        let known = known.or_else(|| Sent::as_left(&left?, wanted, arn));
        let is_due = |sent: &Sent| sent.looks_at.is_some_and(|at| at <= now) || sent.until <= now;
        let mut sent = match known {
            Some(sent) if !is_due(&sent) => sent,
            known => {
                let registered = self.look_at_targets(arn).await?;
                let before = known.unwrap_or_else(|| Sent::of(now, BTreeMap::new()));
                // Looks for pods that wait are not those that the others have.
                let looks = before.looks.saturating_add(u32::from(before.awaited.is_none()));
                Sent { until: now + REGISTERED_LASTS, registered, looks_at: None, looks, ..before }
            }
        };
        sent.refused.retain(|key, again| wanted.targets.contains_key(key) && *again > now);
        for chunk in gone(wanted, &sent.registered, ranges).chunks(AT_ONCE) {
            self.cloud.deregister_targets(arn, chunk).await?;
            report.removed += chunk.len();
            for target in chunk {
                sent.registered.remove(&key(target));
            }
        }
        self.sent.lock().unwrap_or_else(PoisonError::into_inner).insert(arn.clone(), sent);
        Ok(())
    }

    /// Registers what is wanted and not registered.
    async fn put_in(
        &self,
        group: &Group,
        of: &ServiceTargets,
        wanted: &crate::targets::Wanted,
        round: &mut Round,
    ) -> Result<(), CallError> {
        let arn = &group.arn;
        let now = Instant::now();
        let known = self.sent.lock().unwrap_or_else(PoisonError::into_inner).remove(arn);
        // Another replica began to lead meanwhile, or this one anew.
        let Some(mut sent) = known else { return Ok(()) };
        let mut register = new(wanted, &sent.registered);
        register.retain(|target| !sent.refused.contains_key(&key(target)));
        let is_new = !register.is_empty();
        self.register(arn, &register, &mut sent, &mut round.report).await?;
        let health = Health {
            registered: sent.registered.clone(),
            left_out: wanted.left_out.clone(),
            refused: sent.refused.keys().cloned().collect::<BTreeSet<_>>(),
        };
        let is_awaited = group.kind == TargetType::Ip && gated::awaits(of, group.port, &health);
        sent.plan_look(now, is_new, health.is_settled(of.intent.policy), is_awaited);
        round.soon(Some(sent.next()));
        self.sent.lock().unwrap_or_else(PoisonError::into_inner).insert(arn.clone(), sent);
        let looked = Looked { kind: group.kind, port: group.port, health };
        round.health.entry(group.service.clone()).or_default().push(looked);
        Ok(())
    }

    async fn look_at_targets(&self, arn: &str) -> Result<BTreeMap<Key, Thought>, CallError> {
        let seen = self.cloud.describe_target_health(arn).await?;
        let registered = seen.into_iter().filter(|seen| seen.state.is_registered());
        Ok(registered.map(|seen| (key(&seen.target), Some((seen.state, seen.reason)))).collect())
    }

    async fn register(
        &self,
        arn: &str,
        register: &[TargetDescription],
        sent: &mut Sent,
        report: &mut TargetReport,
    ) -> Result<(), CallError> {
        // Where AWS takes one not, it takes none of the call; the halves are tried, until those are found that it does not take.
        let mut chunks: Vec<Vec<TargetDescription>> = register.chunks(AT_ONCE).map(<[_]>::to_vec).collect();
        while let Some(mut chunk) = chunks.pop() {
            match self.cloud.register_targets(arn, &chunk).await {
                Ok(()) => {
                    report.added += chunk.len();
                    sent.registered.extend(chunk.iter().map(|target| (key(target), None)));
                }
                Err(error) if !error.is_invalid_target() => return Err(error),
                Err(_) if chunk.len() > 1 && sent.refused.len() < SINGLED_OUT => {
                    let half = chunk.split_off(chunk.len() / 2);
                    chunks.extend([half, chunk]);
                }
                Err(_) => {
                    let again = Instant::now() + REFUSED_AGAIN;
                    sent.refused.extend(chunk.iter().map(|target| (key(target), again)));
                }
            }
        }
        Ok(())
    }

    async fn ranges(&self) -> Result<Vec<IpNet>, CallError> {
        let mut known = self.known.lock().await;
        match &known.ranges {
            Some((at, ranges)) if at.elapsed() < VPC_LASTS => Ok(ranges.clone()),
            _ => {
                let ranges = self.cloud.describe_vpc_ranges(&self.settings.vpc).await?;
                let ranges: Vec<IpNet> = ranges.iter().filter_map(|range| range.parse().ok()).collect();
                known.ranges = Some((Instant::now(), ranges.clone()));
                Ok(ranges)
            }
        }
    }
}

/// With what is to be said of what is let in.
fn noted(mut condition: Condition, notes: &Notes) -> Condition {
    for note in notes {
        condition.message = format!("{}; {note}", condition.message);
    }
    condition
}

/// That targets could not be sent, until a person does something.
fn unsent(failure: &Failure) -> Condition {
    let (status, reason) = (ConditionStatus::Unknown, failure.reason);
    Condition { kind: types::TARGETS_HEALTHY, status, reason, message: failure.message.clone() }
}
