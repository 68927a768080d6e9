//! Every state that Services and Announcements were in, one after the other, as watches told it.
//!
//! The store numbers all its writes in one line, whatever their kind, and the lab has one store: laid in the order of these numbers,
//! the events of two watches are the history of both kinds together.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow};
use berth_api::Announcement;
use berth_api::service::ServiceKey;
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::Service;
use kube::api::{ListParams, WatchEvent, WatchParams};
use kube::{Api, Client, ResourceExt as _};
use serde::de::DeserializeOwned;

use crate::operation::NAMESPACES;
use crate::picture::{Claim, Picture, Seen, version};

/// One write.
#[derive(Debug, Clone)]
pub struct Entry {
    pub version: u64,
    /// When it was heard of.
    pub at: Instant,
    pub change: Change,
}

/// What was written; nothing: it was deleted.
#[derive(Debug, Clone)]
pub enum Change {
    Service(ServiceKey, Option<Box<Seen>>),
    Claim(IpAddr, Option<Claim>),
}

/// The watches, and what they told.
pub struct Ledger {
    client: Client,
    entries: Arc<Mutex<Vec<Entry>>>,
}

impl Ledger {
    /// Begins, with all that there is.
    pub async fn start(client: Client) -> Result<Self> {
        let ledger = Self { client: client.clone(), entries: Arc::default() };
        ledger.follow(Api::<Service>::all(client.clone()), service_change).await?;
        ledger.follow(Api::<Announcement>::all(client), claim_change).await?;
        Ok(ledger)
    }

    async fn follow<K>(&self, api: Api<K>, change: fn(&K, bool) -> Option<Change>) -> Result<()>
    where
        K: kube::Resource + Clone + Debug + DeserializeOwned + Send + 'static,
    {
        let listed = api.list(&ListParams::default()).await?;
        let from = listed.metadata.resource_version.context("a list has a version")?;
        for object in &listed.items {
            put(&self.entries, version(object.resource_version()), change(object, true));
        }
        let entries = self.entries.clone();
        let mut events = api.watch(&WatchParams::default(), &from).await?.boxed();
        // It ends with the lab. One that ends earlier is found out by `caught_up`.
        tokio::spawn(async move {
            while let Ok(Some(event)) = events.try_next().await {
                let (object, there) = match &event {
                    WatchEvent::Added(object) | WatchEvent::Modified(object) => (object, true),
                    WatchEvent::Deleted(object) => (object, false),
                    WatchEvent::Bookmark(_) | WatchEvent::Error(_) => continue,
                };
                put(&entries, version(object.resource_version()), change(object, there));
            }
        });
        Ok(())
    }

    /// What the API server holds now, by lists: first the Services, then the Announcements, then those Services that did not change
    /// meanwhile, so that what is found is of one moment. With it, all Services.
    pub async fn look(&self) -> Result<(Picture, Picture)> {
        let before = self.services().await?;
        let claims = self.claims().await?;
        let services = self.services().await?;
        let same = |key: &ServiceKey, seen: &Seen| before.get(key).is_some_and(|b| b.version == seen.version);
        let steady =
            services.iter().filter(|(key, seen)| same(key, seen)).map(|(k, s)| (k.clone(), s.clone())).collect();
        Ok((Picture { services: steady, claims }, Picture { services, claims: BTreeMap::new() }))
    }

    async fn services(&self) -> Result<BTreeMap<ServiceKey, Seen>> {
        let listed = Api::<Service>::all(self.client.clone()).list(&ListParams::default()).await?;
        Ok(listed.iter().filter_map(|service| Some((key_of(service)?, Seen::of(service)))).collect())
    }

    async fn claims(&self) -> Result<BTreeMap<IpAddr, Claim>> {
        let listed = Api::<Announcement>::all(self.client.clone()).list(&ListParams::default()).await?;
        Ok(listed.iter().map(Claim::of).collect())
    }

    /// What the API server holds, when the watches have told all of it.
    pub async fn caught_up(&self) -> Result<Picture> {
        let listed = Picture { services: self.services().await?, claims: self.claims().await? };
        let told = self.history().into_iter().fold(Picture::default(), |mut picture, entry| {
            apply(&mut picture, entry.change);
            picture
        });
        if told != listed {
            return Err(anyhow!("the watches are behind"));
        }
        Ok(listed)
    }

    /// Every write so far, in its order.
    pub fn history(&self) -> Vec<Entry> {
        let mut entries = lock(&self.entries).clone();
        entries.sort_by_key(|entry| entry.version);
        entries
    }
}

/// What was wrong, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    pub what: String,
    /// The revision of the write that made it so.
    pub version: u64,
}

/// Looks at every state that there was, and returns how many there were, or the first that was not as it must be.
pub fn replay(history: &[Entry]) -> Result<usize, Wrong> {
    let mut picture = Picture::default();
    for entry in history {
        let kept = match &entry.change {
            Change::Service(key, Some(after)) => picture.check_kept(key, after),
            _ => Ok(()),
        };
        apply(&mut picture, entry.change.clone());
        kept.and_then(|()| picture.check()).map_err(|what| Wrong { what, version: entry.version })?;
    }
    Ok(history.len())
}

fn apply(picture: &mut Picture, change: Change) {
    match change {
        Change::Service(key, Some(seen)) => drop(picture.services.insert(key, *seen)),
        Change::Service(key, None) => drop(picture.services.remove(&key)),
        Change::Claim(address, Some(claim)) => drop(picture.claims.insert(address, claim)),
        Change::Claim(address, None) => drop(picture.claims.remove(&address)),
    }
}

fn key_of(service: &Service) -> Option<ServiceKey> {
    let (namespace, name) = (service.namespace().unwrap_or_default(), service.name_any());
    // The API server's own Service is nobody's business here.
    (NAMESPACES.contains(&namespace.as_str()) && name != "kubernetes").then_some(ServiceKey { namespace, name })
}

fn service_change(service: &Service, there: bool) -> Option<Change> {
    Some(Change::Service(key_of(service)?, there.then(|| Box::new(Seen::of(service)))))
}

#[expect(clippy::unnecessary_wraps, reason = "as for Services, of which some are nobody's business")]
fn claim_change(announcement: &Announcement, there: bool) -> Option<Change> {
    let (address, claim) = Claim::of(announcement);
    Some(Change::Claim(address, there.then_some(claim)))
}

fn put(entries: &Mutex<Vec<Entry>>, version: u64, change: Option<Change>) {
    lock(entries).extend(change.map(|change| Entry { version, at: Instant::now(), change }));
}

fn lock(entries: &Mutex<Vec<Entry>>) -> MutexGuard<'_, Vec<Entry>> {
    entries.lock().unwrap_or_else(PoisonError::into_inner)
}
