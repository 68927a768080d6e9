//! Opens the security groups of nodes and pods to the backend security group, before targets are registered.
//!
//! One lock for all shards: whoever comes second finds what the first has learned and done, so that many Services cost no call more than
//! one. Nothing is taken away before every shard that has target groups has said since the start what it needs.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use berth_provider::{Class, Failure, ServiceId, Shard, TargetNode};
use ipnet::IpNet;
use tokio::time::Instant;

use super::Aws;
use super::index::Index;
use crate::backend::{self, Change, Demand, LetsIn, Place};
use crate::cloud::{CallError, Cloud, GroupFilter, Interface, Rule, SecurityGroup, Source};
use crate::observed::Observed;
use crate::settings::Settings;
use crate::targets::instance;

/// How long interfaces and groups are gone by. Our own calls are noted; this is for those of others.
const LASTS: Duration = Duration::from_hours(1);
/// When whoever has no interface is asked for again: an instance may be starting.
const MISSING_AGAIN: Duration = Duration::from_mins(1);
/// How often all instances are looked at because of addresses that none of them had: shorter than the wait of whoever looks at the health of a
/// new target, who asks again.
const SHARED_AGAIN: Duration = Duration::from_secs(5);
/// When what was refused is tried again, for each security group.
const REFUSED_AGAIN: Duration = Duration::from_mins(1);
/// Looks at a group that is not as it was seen, before the failure is somebody else's to see to.
const LOOKS: usize = 3;
/// Places that a message names.
const NAMED: usize = 3;

/// What a Service needs of nodes and pods; `None` when that cannot be read now, so that what it needed stays.
pub(super) type Needs = BTreeMap<ServiceId, Option<Demand>>;

/// What is known of what is let in.
#[derive(Default)]
pub(super) struct Doors {
    since: Option<Instant>,
    /// What the Services of each shard need, by group.
    needs: BTreeMap<String, BTreeMap<ServiceId, BTreeMap<String, LetsIn>>>,
    /// Shards of which some Service has never said what it needs.
    unknown: BTreeSet<String>,
    interfaces: Interfaces,
    groups: BTreeMap<String, SecurityGroup>,
    /// What a person has to see to, by security group, and when it was met.
    refused: BTreeMap<String, (Instant, Failure)>,
    /// The same, where it keeps us from looking at all.
    unseen: Option<(Instant, Failure)>,
    /// The backend security group whose rules were looked for in all groups.
    looked_for: Option<String>,
}

/// The interfaces behind places.
#[derive(Default)]
struct Interfaces {
    of: BTreeMap<Place, Interface>,
    /// Interfaces of instances, which pods may have their addresses of.
    shared: BTreeMap<String, Vec<Interface>>,
    /// When all of those were looked at last because of an address that none had.
    shared_at: Option<Instant>,
    /// When those are asked for again that were not found.
    missing: BTreeMap<Place, Instant>,
}

impl Interfaces {
    fn is_due(&self, place: &Place, now: Instant) -> bool {
        !self.of.contains_key(place) && self.missing.get(place).is_none_or(|again| *again <= now)
    }

    /// Finds addresses among the interfaces of instances.
    fn match_addresses(&mut self, places: &BTreeSet<&Place>) {
        let mut by_address: BTreeMap<IpAddr, &Interface> = BTreeMap::new();
        let mut by_prefix: BTreeMap<IpNet, &Interface> = BTreeMap::new();
        for interface in self.shared.values().flatten() {
            by_address.extend(interface.addresses.iter().map(|address| (*address, interface)));
            by_prefix.extend(interface.prefixes.iter().map(|prefix| (prefix.trunc(), interface)));
        }
        let lengths: BTreeSet<u8> = by_prefix.keys().map(IpNet::prefix_len).collect();
        let in_prefix = |address: IpAddr| {
            let nets = lengths.iter().filter_map(|length| IpNet::new(address, *length).ok());
            nets.map(|net| net.trunc()).find_map(|net| by_prefix.get(&net).copied())
        };
        let mut found = Vec::new();
        for place in places {
            if let Place::Address(address) = place
                && let Some(interface) = by_address.get(address).copied().or_else(|| in_prefix(*address))
            {
                found.push(((*place).clone(), interface.clone()));
            }
        }
        self.of.extend(found);
    }
}

/// What is to be said of what is let in.
pub(super) type Notes = BTreeSet<String>;

/// What became of letting load balancers in.
#[derive(Default)]
pub(super) struct Opened {
    pub(super) notes: Notes,
    /// When what was refused is tried again.
    pub(super) again: Option<Instant>,
}

impl<C: Cloud> Aws<C> {
    /// Lets load balancers in where the Services of a shard have their targets, and nobody in any more where none has.
    pub(super) async fn open(&self, shard: &Shard, needs: Needs, nodes: &[TargetNode]) -> Result<Opened, Failure> {
        let mut doors = self.doors.lock().await;
        // Seen under the lock: whoever has said what it needs is in it.
        let index = self.index().await?;
        // No load balancer has one, so there is nothing to let in; when one is made there are target groups after it, and it is asked again.
        let Some(backend) = index.backend_group().cloned() else { return Ok(Opened::default()) };
        let now = Instant::now();
        if doors.since.is_none_or(|since| since + LASTS <= now) {
            let (needs, unknown) = (std::mem::take(&mut doors.needs), std::mem::take(&mut doors.unknown));
            let refused = std::mem::take(&mut doors.refused);
            *doors = Doors { since: Some(now), needs, unknown, refused, ..Doors::default() };
        }
        if let Some((at, failure)) = &doors.unseen
            && *at + REFUSED_AGAIN > now
        {
            return Err(failure.clone());
        }
        doors.unseen = None;
        let places: BTreeSet<_> = needs.values().flatten().flat_map(Demand::places).collect();
        let opened: Result<Opened, Failure> = async {
            self.learn_interfaces(&mut doors, &places, nodes).await?;
            self.learn_groups(&mut doors, &places, &backend).await?;
            let mut said = note(&self.settings, &mut doors, shard, &needs);
            self.bring_about(&mut doors, &index, &backend).await?;
            let refused = say_what_is_refused(&doors, shard, &mut said);
            // One that was not looked for to the end.
            let soon = places.iter().filter_map(|place| doors.interfaces.missing.get(*place).copied());
            let soon = soon.filter(|again| *again <= now + SHARED_AGAIN);
            Ok(Opened { notes: said, again: refused.into_iter().chain(soon).min() })
        }
        .await;
        if let Err(failure) = &opened {
            if failure.class.is_for_a_person() {
                doors.unseen = Some((now, failure.clone()));
            }
            // What came of a call that failed is looked at again.
            if failure.class != Class::Throttled {
                doors.groups.clear();
                doors.looked_for = None;
            }
            if failure.class == Class::Conflict {
                self.forget().await;
            }
        }
        opened
    }

    async fn learn_interfaces(
        &self,
        doors: &mut Doors,
        places: &BTreeSet<&Place>,
        nodes: &[TargetNode],
    ) -> Result<(), CallError> {
        let now = Instant::now();
        let known = &mut doors.interfaces;
        let due: BTreeSet<&Place> = places.iter().copied().filter(|place| known.is_due(place, now)).collect();
        if due.is_empty() {
            return Ok(());
        }
        let is_address = |place: &&&Place| matches!(place, Place::Address(_));
        let mut ids: BTreeSet<String> = due
            .iter()
            .filter_map(|place| match place {
                Place::Instance(id) => Some(id.clone()),
                Place::Address(_) => None,
            })
            .collect();
        if due.iter().any(|place| is_address(&place)) {
            let all = nodes.iter().filter_map(|node| instance(&node.provider_id));
            ids.extend(all.filter(|id| !known.shared.contains_key(*id)).map(str::to_owned));
        }
        if !ids.is_empty() {
            self.describe_instances(known, ids).await?;
        }
        known.match_addresses(&due);
        let addresses = |known: &Interfaces| -> Vec<IpAddr> {
            let each = due.iter().filter(|place| !known.of.contains_key(**place));
            each.filter_map(|place| if let Place::Address(address) = place { Some(*address) } else { None }).collect()
        };
        let unknown = addresses(known);
        if !unknown.is_empty() {
            for interface in self.cloud.describe_interfaces(&self.settings.vpc, &unknown).await? {
                let its = unknown.iter().filter(|address| interface.has(**address));
                known.of.extend(its.map(|address| (Place::Address(*address), interface.clone())));
            }
        }
        let mut again = now + MISSING_AGAIN;
        if !addresses(known).is_empty() && !known.shared.is_empty() {
            // A range may have been delegated to an instance since. Endpoints that come one after the other do not cost a look each.
            let next = known.shared_at.map_or(now, |at| at + SHARED_AGAIN);
            if next <= now {
                let ids = known.shared.keys().cloned().collect();
                self.describe_instances(known, ids).await?;
                known.shared_at = Some(now);
                known.match_addresses(&due);
            } else {
                again = next;
            }
        }
        for place in due {
            if known.of.contains_key(place) {
                known.missing.remove(place);
            } else {
                known.missing.insert(place.clone(), again);
            }
        }
        Ok(())
    }

    async fn describe_instances(&self, known: &mut Interfaces, ids: BTreeSet<String>) -> Result<(), CallError> {
        let ids: Vec<_> = ids.into_iter().collect();
        for instance in self.cloud.describe_instances(&ids).await? {
            if let Some(primary) = instance.interfaces.iter().find(|interface| interface.is_primary) {
                known.of.insert(Place::Instance(instance.id.clone()), primary.clone());
            }
            known.shared.insert(instance.id, instance.interfaces);
        }
        Ok(())
    }

    /// Learns of the groups of these places, and of all groups with rules of ours.
    async fn learn_groups(&self, doors: &mut Doors, places: &BTreeSet<&Place>, backend: &str) -> Result<(), CallError> {
        if doors.looked_for.as_deref() != Some(backend) {
            let filter = GroupFilter::LettingIn(backend.to_owned());
            let groups = self.cloud.describe_security_groups(&self.settings.vpc, filter).await?;
            doors.groups.extend(groups.into_iter().map(|group| (group.id.clone(), group)));
            doors.looked_for = Some(backend.to_owned());
        }
        let interfaces = places.iter().filter_map(|place| doors.interfaces.of.get(*place));
        let needed: BTreeSet<_> = interfaces.flat_map(|interface| &interface.security_groups).cloned().collect();
        // Those that another shard needs may have been forgotten.
        let others = doors.needs.values().flatten().flat_map(|(_, by_group)| by_group.keys()).cloned();
        let all: BTreeSet<_> = needed.into_iter().chain(others).collect();
        let unseen: Vec<_> = all.into_iter().filter(|id| !doors.groups.contains_key(id)).collect();
        if unseen.is_empty() {
            return Ok(());
        }
        let filter = GroupFilter::Ids(unseen.clone());
        let groups = self.cloud.describe_security_groups(&self.settings.vpc, filter).await?;
        doors.groups.extend(groups.into_iter().map(|group| (group.id.clone(), group)));
        let is_gone = |id: &String| unseen.contains(id) && !doors.groups.contains_key(id);
        for by_group in doors.needs.values_mut().flat_map(BTreeMap::values_mut) {
            by_group.retain(|id, _| !is_gone(id));
        }
        if unseen.iter().any(is_gone) {
            // Nobody has a group that is gone.
            doors.interfaces = Interfaces::default();
        }
        Ok(())
    }

    async fn bring_about(&self, doors: &mut Doors, index: &Index, backend: &str) -> Result<(), Failure> {
        let shards = index.shards_with_targets();
        doors.needs.retain(|shard, _| shards.contains(shard));
        doors.unknown.retain(|shard| shards.contains(shard));
        let all_known = shards.iter().all(|shard| doors.needs.contains_key(*shard)) && doors.unknown.is_empty();
        // A load balancer that was disowned needs what nobody says.
        let may_revoke = all_known && !index.is_used_by_others();
        let description = backend::description(&self.settings);
        let rules = backend::rules(doors.needs.values().flat_map(BTreeMap::values), backend, &description);
        let none = BTreeSet::new();
        let ids: Vec<_> = doors.groups.keys().cloned().collect();
        let now = Instant::now();
        doors.refused.retain(|_, (at, _)| *at + REFUSED_AGAIN > now);
        for id in ids {
            if doors.refused.contains_key(&id) {
                continue;
            }
            let wanted = rules.get(&id).unwrap_or(&none);
            if let Err(error) = self.bring_about_in(doors, &id, wanted, &description, may_revoke).await {
                let failure = Failure::from(error);
                if !failure.class.is_for_a_person() {
                    return Err(failure);
                }
                // One group that is full or not ours to change keeps no other closed.
                doors.refused.insert(id, (now, failure));
            }
        }
        Ok(())
    }

    async fn bring_about_in(
        &self,
        doors: &mut Doors,
        id: &str,
        wanted: &BTreeSet<Rule>,
        description: &str,
        may_revoke: bool,
    ) -> Result<(), CallError> {
        let mut looks = 0;
        loop {
            let Some(seen) = doors.groups.get_mut(id) else { return Ok(()) };
            let mut change = backend::change(wanted, seen, description);
            if !may_revoke {
                change.revoke.clear();
            }
            let Err(error) = self.change_group(seen, change).await else { return Ok(()) };
            looks += 1;
            let was_otherwise = error.is_duplicate() || error.is_not_found() || error.is_too_many_rules();
            if !was_otherwise || looks >= LOOKS {
                return Err(error);
            }
            doors.groups.remove(id);
            let filter = GroupFilter::Ids(vec![id.to_owned()]);
            let groups = self.cloud.describe_security_groups(&self.settings.vpc, filter).await?;
            let Some(mut seen) = groups.into_iter().next() else {
                // The group went, and with it whoever had it: interfaces are asked for anew.
                doors.interfaces = Interfaces::default();
                return if wanted.is_empty() { Ok(()) } else { Err(error) };
            };
            if error.is_too_many_rules() && may_revoke {
                // What is not needed makes room.
                let Change { revoke, .. } = backend::change(wanted, &seen, description);
                self.change_group(&mut seen, Change { revoke, ..Change::default() }).await?;
            }
            doors.groups.insert(id.to_owned(), seen);
        }
    }

    async fn change_group(&self, group: &mut SecurityGroup, change: Change) -> Result<(), CallError> {
        if !change.authorize.is_empty() {
            self.cloud.authorize_ingress(&group.id, &change.authorize).await?;
            group.rules.extend(change.authorize);
            // There is something of ours to take back again when the last one goes, whoever else refers to the group.
            self.note(|index| index.is_held = false).await;
        }
        if !change.revoke.is_empty() {
            self.cloud.revoke_ingress(&group.id, &change.revoke).await?;
            group.rules.retain(|rule| !change.revoke.contains(rule));
        }
        Ok(())
    }

    /// Removes the backend security group once nobody needs it, and the rules that let it in before.
    pub(super) async fn delete_backend_group(&self, shard: &Shard, observed: &mut Observed) -> Result<(), Failure> {
        let mut doors = self.doors.lock().await;
        let index = self.index().await?;
        let Some(backend) = index.backend_group().cloned() else {
            observed.backend_group = None;
            return Ok(());
        };
        if index.is_needed_by_others(shard) {
            return Ok(());
        }
        *doors = Doors::default();
        let description = backend::description(&self.settings);
        let filter = GroupFilter::LettingIn(backend.clone());
        let mut is_held = false;
        for group in self.cloud.describe_security_groups(&self.settings.vpc, filter).await? {
            let Change { revoke, .. } = backend::change(&BTreeSet::new(), &group, &description);
            let source = Source::Group(backend.clone());
            let (ours, others): (Vec<_>, Vec<_>) = group
                .rules
                .iter()
                .filter(|rule| rule.source == source)
                .cloned()
                .partition(|rule| revoke.contains(rule));
            if !ours.is_empty() {
                self.revoke_ours(&group.id, &ours).await?;
            }
            // One that is here for nothing that we see has a rule of a kind that we do not read.
            is_held |= !others.is_empty() || ours.is_empty();
        }
        if is_held {
            // Somebody wrote a rule for it, and no Service waits for that: it stays, and the next one uses it.
            self.note(|index| index.is_held = true).await;
            observed.has_others = true;
            return Ok(());
        }
        self.deleted(&backend, self.cloud.delete_security_group(&backend).await)?;
        observed.backend_group = None;
        self.note(|index| {
            index.things.remove(&backend);
            index.is_held = false;
        })
        .await;
        Ok(())
    }

    async fn revoke_ours(&self, group: &str, rules: &[Rule]) -> Result<(), CallError> {
        match self.cloud.revoke_ingress(group, rules).await {
            Err(error) if error.is_not_found() => Ok(()),
            other => other,
        }
    }
}

/// Says what of a shard's groups is refused; when that is tried again.
fn say_what_is_refused(doors: &Doors, shard: &Shard, notes: &mut Notes) -> Option<Instant> {
    let needed: BTreeSet<_> =
        doors.needs.get(&shard.0).into_iter().flat_map(BTreeMap::values).flat_map(BTreeMap::keys).collect();
    let refused = doors.refused.iter().filter(|(id, _)| needed.contains(id));
    let mut again = None;
    for (_, (at, failure)) in refused {
        notes.insert(format!("load balancers are not let in: {failure}"));
        again = again.into_iter().chain([*at + REFUSED_AGAIN]).min();
    }
    again
}

/// Writes down what the Services of a shard need, by group, and gives what is to be said of it.
fn note(settings: &Settings, doors: &mut Doors, shard: &Shard, needs: &Needs) -> Notes {
    let mut notes = Notes::new();
    let mut missing: Vec<String> = Vec::new();
    let mut group_of: BTreeMap<&Place, String> = BTreeMap::new();
    for place in needs.values().flatten().flat_map(Demand::places) {
        let Some(interface) = doors.interfaces.of.get(place) else {
            missing.push(match place {
                Place::Instance(id) => id.clone(),
                Place::Address(address) => address.to_string(),
            });
            continue;
        };
        let (group, ambiguous) =
            backend::chosen(settings, interface, |id| doors.groups.get(id).map(|group| &group.tags));
        if let Some(group) = group {
            group_of.insert(place, group.clone());
        }
        if notes.len() < NAMED {
            notes.extend(ambiguous);
        }
    }
    if !missing.is_empty() {
        missing.sort();
        missing.dedup();
        let more = missing.len().saturating_sub(NAMED);
        let named = missing.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
        let more = if more == 0 { String::new() } else { format!(" and {more} more") };
        notes.insert(format!("EC2 shows no network interface of {named}{more}, so no security group is opened for it"));
    }
    let known = doors.needs.entry(shard.0.clone()).or_default();
    known.retain(|service, _| needs.contains_key(service));
    let mut all_known = true;
    for (service, demand) in needs {
        match demand {
            Some(demand) => drop(known.insert(service.clone(), demand.by_group(|place| group_of.get(place)))),
            None => all_known &= known.contains_key(service),
        }
    }
    if all_known {
        doors.unknown.remove(&shard.0);
    } else {
        doors.unknown.insert(shard.0.clone());
    }
    notes
}
