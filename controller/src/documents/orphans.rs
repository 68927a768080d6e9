//! What a provider finds outside that belongs to no Service, listed where people see it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use berth_api::service::ServiceKey;
use berth_provider::{Class, Failure, Intent, Owned, Provider, ServiceId, Shard};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use tokio::task::JoinSet;

use super::finalizers::Finalizers;
use super::shards::{Shards, Turn};
use super::{Documents, Work, caught};
use crate::metrics::OrphanLabels;
use crate::orphans::{Living, Snapshot};

/// The Services that are here now.
struct Here<'a, P> {
    provider: &'a P,
    shards: &'a Shards,
    finalizers: &'a Finalizers,
}

impl<P: Provider> Living for Here<'_, P> {
    fn is_alive(&self, id: &ServiceId) -> bool {
        let known = [self.shards.present(&id.key), self.finalizers.named(&id.key)];
        known.into_iter().flatten().any(|intent| intent.id == *id) || self.shards.is_leaving(id)
    }

    fn is_inhabited(&self, shard: &Shard) -> bool {
        self.shards.is_inhabited(shard) || self.finalizers.all().any(|intent| self.provider.shard(intent) == *shard)
    }

    fn is_anybody(&self) -> bool {
        self.shards.all().next().is_some() || self.finalizers.all().next().is_some()
    }

    fn has_name(&self, key: &ServiceKey) -> bool {
        self.shards.present(key).is_some() || self.finalizers.named(key).is_some()
    }
}

/// A Service of which only its name is known.
fn bare(id: &ServiceId) -> Service {
    let ServiceKey { namespace, name } = id.key.clone();
    let metadata =
        ObjectMeta { namespace: Some(namespace), name: Some(name), uid: Some(id.uid.clone()), ..ObjectMeta::default() };
    Service { metadata, ..Service::default() }
}

impl<P: Provider> Documents<P> {
    /// The Services that are here.
    pub(super) fn snapshot(&self) -> Snapshot {
        let waiting = self.finalizers.all().map(|intent| (self.provider.shard(intent), intent.id.clone()));
        let all = self.shards.all().map(|(shard, id)| (shard.clone(), id.clone())).chain(waiting);
        let (shards, ids) = all.unzip();
        Snapshot::of(ids, shards)
    }

    pub(super) fn orphans_found(&mut self, all: Vec<Owned>, now: Duration) {
        if !self.provider.lists_orphans() {
            return;
        }
        let here = Here { provider: &*self.provider, shards: &self.shards, finalizers: &self.finalizers };
        self.orphans.found(all, &self.were_here, &here, now);
        self.were_here = Snapshot::default();
    }

    pub(super) fn start_orphans(&mut self, work: &mut JoinSet<Work>, now: Duration) {
        let here = Here { provider: &*self.provider, shards: &self.shards, finalizers: &self.finalizers };
        self.orphans.look(&here, now);
        for id in self.orphans.removed(|id| self.shards.is_leaving(id), &here, now) {
            tracing::info!(provider = self.provider.name(), service = %id.key, uid = id.uid, "what the Service left is removed, as somebody asked for");
        }
        for id in self.orphans.asks(now) {
            let marker = self.ties.marker.clone();
            work.spawn(async move {
                let is_there = caught(marker.is_there(&id)).await.unwrap_or_else(Err);
                Work::Asked(id, is_there)
            });
        }
        if self.orphans.searches(now) {
            self.were_here = self.snapshot();
            let provider = self.provider.clone();
            work.spawn(async move { Work::Searched(caught(provider.list_owned()).await.unwrap_or_else(Err)) });
        }
        if let Some((list, is_news)) = self.orphans.publishes(now) {
            let (name, count) = (self.provider.name(), self.orphans.count());
            self.ties
                .metrics
                .orphans
                .get_or_create(&OrphanLabels { provider: name })
                .set(i64::try_from(count).unwrap_or(i64::MAX));
            if is_news && count > 0 {
                tracing::warn!(
                    provider = name,
                    count,
                    "what carries this cluster's tags belongs to no Service; `kubectl berth orphans` lists it"
                );
            } else if is_news {
                tracing::info!(provider = name, "everything that carries this cluster's tags belongs to a Service");
            }
            let (writer, leadership) = (self.ties.list_writer.clone(), self.ties.leadership.clone());
            work.spawn(async move {
                if !leadership.borrow().holds() {
                    return Work::Listed(Err(Failure::new(Class::Conflict, "this replica leads no more")));
                }
                Work::Listed(caught(writer.write(name, &list)).await.unwrap_or_else(Err))
            });
        }
    }

    /// Another replica leads, and counts them.
    pub(super) fn orphans_elsewhere(&mut self) {
        self.orphans.stand_by();
        self.ties.metrics.orphans.remove(&OrphanLabels { provider: self.provider.name() });
    }

    /// Takes in whose orphans people want to be removed.
    pub(super) fn hear_named(&mut self, mut news: BTreeMap<(), BTreeSet<String>>) {
        self.orphans.name(news.remove(&()).unwrap_or_default());
    }

    /// Takes in whether a Service is there after all whose orphans are to be removed. If it is not, it is one that leaves, as if it had
    /// been seen going.
    pub(super) fn answered(&mut self, id: &ServiceId, is_there: Result<bool, Failure>, now: Duration) {
        if let Err(failure) = &is_there {
            self.count(failure);
        }
        let Ok(intent) = Intent::of(&bare(id)) else { return };
        let here = Here { provider: &*self.provider, shards: &self.shards, finalizers: &self.finalizers };
        for shard in self.orphans.answered(id, is_there.as_ref().copied(), &here, now) {
            tracing::info!(provider = self.provider.name(), service = %id.key, uid = id.uid, %shard, "what the Service left is to be removed, as somebody asked for");
            self.shards.found(&shard, &intent, now);
        }
    }

    /// Takes in what stands against removals.
    pub(super) fn hear_removals(&mut self, turn: &Turn, now: Duration) {
        let here = Here { provider: &*self.provider, shards: &self.shards, finalizers: &self.finalizers };
        for (id, failure) in &turn.failures {
            self.orphans.not_removed(id, &failure.message, &here, now);
        }
        for (id, outcome) in &turn.farewells {
            for condition in &outcome.conditions {
                self.orphans.not_removed(id, &condition.message, &here, now);
            }
        }
    }

    pub(super) fn searched(&mut self, found: Result<Vec<Owned>, Failure>, now: Duration) {
        match found {
            Ok(all) => self.orphans_found(all, now),
            Err(failure) => {
                self.count(&failure);
                self.orphans.not_found(&failure, now);
            }
        }
    }

    pub(super) fn listed(&mut self, written: Result<(), Failure>, now: Duration) {
        let is_first = self.orphans.published(written.as_ref().copied(), now);
        if let Err(failure) = written {
            self.count(&failure);
            if is_first {
                tracing::warn!(provider = self.provider.name(), class = %failure.class, %failure, "the list of orphans cannot be written");
            }
        }
    }
}
