//! What carries our marks outside the cluster and belongs to no Service that is here: which that is, and when it is looked for. A plain
//! state, the time is an argument. Nothing of it is removed but what a person named.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use berth_api::orphans::{Orphan, OrphanList};
use berth_api::service::ServiceKey;
use berth_provider::{Failure, Owned, ServiceId, Shard, Whom};

/// Between two searches: a little less than the hour after which a provider looks at everything anyway, so that it is done once.
const SEARCH_EVERY: Duration = Duration::from_mins(55);
/// How long what seems to be an orphan has to seem so before it is listed: a watch that is behind, or a Service that was moved here by
/// another leader a moment ago, is seen within this.
const SEEMS: Duration = Duration::from_mins(1);

/// The Services that are here, as a provider knows them.
pub(crate) trait Living {
    /// Whether this very Service is served, waits to be, or is on its way out.
    fn is_alive(&self, id: &ServiceId) -> bool;
    /// Whether any such Service is in a shard.
    fn is_inhabited(&self, shard: &Shard) -> bool;
    /// Whether there is any such Service at all.
    fn is_anybody(&self) -> bool;
    /// Whether one of this name is.
    fn has_name(&self, key: &ServiceKey) -> bool;
}

/// What was found, and when it is looked for again.
#[derive(Debug, Default)]
pub(crate) struct Orphans {
    /// What seems to be one since the last search, and from when on it is one if it still seems so.
    seem: Option<(Vec<Owned>, Duration)>,
    /// What is one.
    are: Vec<Owned>,
    /// What is to be said since this replica leads; nothing before the first search.
    said: Option<OrphanList>,
    /// UIDs of Services whose orphans a person wants to be removed.
    named: BTreeSet<String>,
    /// Of whose orphans that is under way.
    removals: BTreeMap<ServiceId, Removal>,
    search: Search,
    publication: Publication,
}

#[derive(Debug, Default)]
enum Search {
    /// Nobody asks for one.
    #[default]
    Off,
    /// It is due then, after so many failures.
    Due(Duration, u32),
    /// It is under way, after so many failures.
    UnderWay(u32),
}

/// How far the removal of what a Service left has come.
#[derive(Debug, Default)]
struct Removal {
    stage: Stage,
    /// Answers in a row that were none, or were that the Service is there.
    failures: u32,
    /// What stands against it, if something does.
    against: Option<String>,
}

/// Where a removal is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    /// The API server is being asked whether the Service is there after all.
    #[default]
    Asking,
    /// It is asked again then.
    Asks(Duration),
    /// It is being removed.
    UnderWay,
}

/// How far the list is published.
#[derive(Debug, Default)]
enum Publication {
    /// It is, as far as this replica knows.
    #[default]
    Done,
    /// It is to be, from then on and after so many failures.
    Due(Duration, u32),
    /// It is being written, after so many failures; whether it has changed since.
    UnderWay(u32, bool),
}

impl Orphans {
    /// This replica begins to lead. The first search is the one that finds in which shards Services are.
    pub(crate) fn begin(&mut self, searches: bool) {
        // What people named stays named.
        let named = std::mem::take(&mut self.named);
        *self = Self { named, search: if searches { Search::UnderWay(0) } else { Search::Off }, ..Self::default() };
    }

    /// Another replica leads.
    pub(crate) fn stand_by(&mut self) {
        self.begin(false);
    }

    /// When something is to be done next.
    pub(crate) fn next_due(&self) -> Option<Duration> {
        let search = if let Search::Due(at, _) = self.search { Some(at) } else { None };
        let write = if let Publication::Due(at, _) = self.publication { Some(at) } else { None };
        let asks = self.removals.values().filter_map(|removal| match removal.stage {
            Stage::Asks(at) => Some(at),
            Stage::Asking | Stage::UnderWay => None,
        });
        let named = self.to_be_removed().next().map(|_| Duration::ZERO);
        let all = [search, write, self.seem.as_ref().map(|(_, at)| *at), named];
        all.into_iter().flatten().chain(asks).min()
    }

    /// Whether a search is to be made now; it is under way then.
    pub(crate) fn searches(&mut self, now: Duration) -> bool {
        match self.search {
            Search::Due(at, failures) if at <= now => {
                self.search = Search::UnderWay(failures);
                true
            }
            _ => false,
        }
    }

    /// Takes in what a search found. `before` has what lived when it began: what went since may have been seen while it was there.
    pub(crate) fn found(&mut self, all: Vec<Owned>, before: &impl Living, living: &impl Living, now: Duration) {
        let is_orphan = |of: &Owned| self.is_going(of) || why(of, before).is_some() && why(of, living).is_some();
        let seem: Vec<_> = all.into_iter().filter(is_orphan).collect();
        // What is listed and still there stays listed.
        let known: BTreeSet<_> = self.are.iter().map(|of| of.id.clone()).collect();
        self.are = seem.iter().filter(|of| known.contains(&of.id)).cloned().collect();
        let is_news = seem.len() > self.are.len();
        self.seem = is_news.then(|| (seem, now + SEEMS));
        self.search = Search::Due(now + SEARCH_EVERY, 0);
        if !is_news || self.said.is_some() {
            self.say(living, now);
        }
    }

    /// A search failed.
    pub(crate) fn not_found(&mut self, failure: &Failure, now: Duration) {
        let failures = if let Search::UnderWay(failures) = self.search { failures.saturating_add(1) } else { 1 };
        self.search = Search::Due(now + failure.wait(failures), failures);
    }

    /// Looks again at what is listed: something has been heard of Services, or time has passed.
    pub(crate) fn look(&mut self, living: &impl Living, now: Duration) {
        if let Some((seem, _)) = self.seem.take_if(|(_, at)| *at <= now) {
            self.are = seem;
        } else if self.are.iter().all(|of| self.is_orphan(of, living)) {
            return;
        }
        self.say(living, now);
    }

    /// How far the removal of something has come, if it is to be removed.
    fn removal(&self, of: &Owned) -> Option<&Removal> {
        self.removals.get(of.service.as_ref().filter(|_| of.whom == Whom::Service)?)
    }

    /// What is being removed is listed until it is gone, although its Service is one that leaves.
    fn is_going(&self, of: &Owned) -> bool {
        self.removal(of).is_some_and(|removal| removal.stage == Stage::UnderWay)
    }

    fn is_orphan(&self, of: &Owned, living: &impl Living) -> bool {
        self.is_going(of) || why(of, living).is_some()
    }

    /// Takes in whose orphans people want to be removed.
    pub(crate) fn name(&mut self, named: BTreeSet<String>) {
        self.named = named;
    }

    /// Services whose orphans are listed and to be removed, and of which the API server has not been asked yet.
    fn to_be_removed(&self) -> impl Iterator<Item = &ServiceId> {
        let services = self.are.iter().filter(|of| of.whom == Whom::Service).filter_map(|of| of.service.as_ref());
        services.filter(|id| self.named.contains(&id.uid) && !self.removals.contains_key(*id))
    }

    /// Services of which the API server is to be asked now whether they are there after all.
    pub(crate) fn asks(&mut self, now: Duration) -> BTreeSet<ServiceId> {
        let is_due = |(id, removal): (&ServiceId, &Removal)| {
            matches!(removal.stage, Stage::Asks(at) if at <= now).then(|| id.clone())
        };
        let again: Vec<_> = self.removals.iter().filter_map(is_due).collect();
        let asks: BTreeSet<_> = self.to_be_removed().cloned().chain(again).collect();
        for id in &asks {
            self.removals.entry(id.clone()).or_default().stage = Stage::Asking;
        }
        asks
    }

    /// Takes in whether a Service is there after all; the shards in which it left something, if that is to be removed now.
    pub(crate) fn answered(
        &mut self,
        id: &ServiceId,
        is_there: Result<bool, &Failure>,
        living: &impl Living,
        now: Duration,
    ) -> BTreeSet<Shard> {
        let Some(removal) = self.removals.get_mut(id).filter(|removal| removal.stage == Stage::Asking) else {
            return BTreeSet::new();
        };
        removal.failures = removal.failures.saturating_add(1);
        (removal.stage, removal.against) = match is_there {
            Ok(false) => (Stage::UnderWay, None),
            // It is another's, or our watch is behind.
            Ok(true) => (Stage::Asks(now + SEEMS), Some(format!("Service {} is there", id.key))),
            Err(failure) => (Stage::Asks(now + failure.wait(removal.failures)), Some(failure.message.clone())),
        };
        // Nothing of one that is here is removed, whatever people say.
        if living.is_alive(id) {
            self.removals.remove(id);
        }
        self.say(living, now);
        let theirs = self.are.iter().filter(|of| self.is_going(of) && of.service.as_ref() == Some(id));
        theirs.map(|of| of.shard.clone()).collect()
    }

    /// Something stands against a removal.
    pub(crate) fn not_removed(&mut self, id: &ServiceId, why: &str, living: &impl Living, now: Duration) {
        if let Some(removal) = self.removals.get_mut(id)
            && removal.stage == Stage::UnderWay
            && removal.against.as_deref() != Some(why)
        {
            removal.against = Some(why.to_owned());
            self.say(living, now);
        }
    }

    /// Services of which nothing is left that was being removed. `leaves` says of whom something may be.
    pub(crate) fn removed(
        &mut self,
        leaves: impl Fn(&ServiceId) -> bool,
        living: &impl Living,
        now: Duration,
    ) -> Vec<ServiceId> {
        let is_done = |(id, removal): (&ServiceId, &Removal)| {
            (removal.stage == Stage::UnderWay && !leaves(id)).then(|| id.clone())
        };
        let done: Vec<_> = self.removals.iter().filter_map(is_done).collect();
        for id in &done {
            self.removals.remove(id);
            self.are.retain(|of| of.whom != Whom::Service || of.service.as_ref() != Some(id));
        }
        if !done.is_empty() {
            self.say(living, now);
        }
        done
    }

    fn say(&mut self, living: &impl Living, now: Duration) {
        let are = std::mem::take(&mut self.are);
        self.are = are.into_iter().filter(|of| self.is_orphan(of, living)).collect();
        let listed: BTreeSet<_> = self.are.iter().filter_map(|of| of.service.clone()).collect();
        self.removals.retain(|id, removal| removal.stage == Stage::UnderWay || listed.contains(id));
        let why = |of: &Owned| match self.removal(of) {
            Some(Removal { against: Some(what), .. }) => Some(format!("it cannot be removed: {what}")),
            Some(Removal { stage: Stage::UnderWay, .. }) => {
                Some("it is being removed, as somebody asked for".to_owned())
            }
            _ => why(of, living),
        };
        let each = self.are.iter().filter_map(|of| Some(orphan(of, why(of)?)));
        let list = OrphanList::of(each.collect());
        if self.said.as_ref() == Some(&list) {
            return;
        }
        self.said = Some(list);
        self.publication = match self.publication {
            Publication::Done | Publication::Due(..) => Publication::Due(now, 0),
            Publication::UnderWay(failures, _) => Publication::UnderWay(failures, true),
        };
    }

    /// The list, if it is to be published now, and whether it is for the first time; it is under way then.
    pub(crate) fn publishes(&mut self, now: Duration) -> Option<(OrphanList, bool)> {
        match self.publication {
            Publication::Due(at, failures) if at <= now => {
                self.publication = Publication::UnderWay(failures, false);
                self.said.clone().map(|list| (list, failures == 0))
            }
            _ => None,
        }
    }

    /// Takes in what came of writing it; whether it is the first failure in a row.
    pub(crate) fn published(&mut self, written: Result<(), &Failure>, now: Duration) -> bool {
        let Publication::UnderWay(failures, is_old) = self.publication else { return false };
        self.publication = match written {
            Ok(()) if is_old => Publication::Due(now, 0),
            Ok(()) => Publication::Done,
            Err(failure) => {
                Publication::Due(now + failure.wait(failures.saturating_add(1)), failures.saturating_add(1))
            }
        };
        written.is_err() && failures == 0
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.are.len()
    }
}

/// Why something belongs to no Service that is here; `None` if it may belong to one.
fn why(of: &Owned, living: &impl Living) -> Option<String> {
    let gone = |id: &ServiceId| {
        if living.has_name(&id.key) {
            format!("Service {} is another one than this was made for", id.key)
        } else {
            format!("no Service {} is served", id.key)
        }
    };
    match (of.whom, &of.service) {
        // Of the last ones that leave something may be left to take it along.
        (Whom::Cluster, _) if living.is_anybody() => None,
        (Whom::Cluster, _) => Some("no Service is served".to_owned()),
        (Whom::Shard, _) if living.is_inhabited(&of.shard) => None,
        (Whom::Shard, Some(id)) if living.is_alive(id) => None,
        (Whom::Shard, _) => Some(format!("no Service of {} is served", of.shard)),
        (Whom::Service, Some(id)) => (!living.is_alive(id)).then(|| gone(id)),
        (Whom::Service, None) => Some("its tags do not say which Service it was made for".to_owned()),
    }
}

fn orphan(of: &Owned, why: String) -> Orphan {
    let made_for = of.service.as_ref().filter(|_| of.whom == Whom::Service);
    Orphan {
        id: of.id.clone(),
        kind: of.kind.clone(),
        shard: if of.whom == Whom::Cluster { String::new() } else { of.shard.0.clone() },
        service: made_for.map(|id| id.key.to_string()),
        service_uid: made_for.map(|id| id.uid.clone()),
        why,
    }
}

/// The Services that were here at a moment.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    ids: BTreeSet<ServiceId>,
    names: BTreeSet<ServiceKey>,
    shards: BTreeSet<Shard>,
}

impl Snapshot {
    pub(crate) fn of(ids: BTreeSet<ServiceId>, shards: BTreeSet<Shard>) -> Self {
        let names = ids.iter().map(|id| id.key.clone()).collect();
        Self { ids, names, shards }
    }
}

impl Living for Snapshot {
    fn is_alive(&self, id: &ServiceId) -> bool {
        self.ids.contains(id)
    }

    fn is_inhabited(&self, shard: &Shard) -> bool {
        self.shards.contains(shard)
    }

    fn is_anybody(&self) -> bool {
        !self.ids.is_empty()
    }

    fn has_name(&self, key: &ServiceKey) -> bool {
        self.names.contains(key)
    }
}

#[cfg(test)]
#[path = "orphans_tests.rs"]
mod tests;
