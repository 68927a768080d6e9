//! What stands between the engine, the watch and the status writer: for each address the latest report of the engine and
//! the latest state of its Announcement.
//!
//! Only the latest counts, so the board is bounded by the number of addresses and never makes the engine wait.

mod kept;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use berth_api::condition::types::READY;
use berth_api::crd::Layer2Status;
use berth_api::{Announcement, Reason};
use berth_machine::{State, Status};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use tokio::sync::Notify;

use kept::{Common, Kept, KeptReport};

/// An Announcement, as far as the status writer needs it.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// `metadata.name`.
    pub name: String,
    /// `metadata.uid`, for events.
    pub uid: Option<String>,
    /// `metadata.resourceVersion`: a write that does not build on it is refused.
    pub resource_version: Option<String>,
    /// `status.layer2`.
    pub layer2: Option<Layer2Status>,
    /// The `Ready` condition.
    pub ready: Option<Condition>,
}

impl Seen {
    /// The part of an Announcement that counts here.
    pub fn of(object: &Announcement) -> Self {
        let status = object.status.as_ref();
        Self {
            name: object.metadata.name.clone().unwrap_or_default(),
            uid: object.metadata.uid.clone(),
            resource_version: object.metadata.resource_version.clone(),
            layer2: status.and_then(|status| status.layer2.clone()),
            ready: status.and_then(|status| status.conditions.iter().find(|c| c.type_ == READY).cloned()),
        }
    }
}

/// What the engine says about an address, in the terms of the API.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// What the machine says.
    pub status: Status,
    /// Since when, on the wall clock.
    pub since: Timestamp,
    /// The other node that the Announcement named as answering when this report was made.
    pub former: Option<String>,
    /// This node answered and does no longer, and nobody does in its place as far as it knows.
    pub released: bool,
}

impl Report {
    /// What is to be said first: a conflict, or else how the ownership came about.
    pub fn reason(&self) -> Reason {
        if self.status.foreign.is_some() { Reason::AddressConflict } else { self.status.cause }
    }
}

/// An address.
#[derive(Debug, Default)]
struct Entry {
    /// Boxed: who stands by has none.
    report: Option<Box<KeptReport>>,
    seen: Option<Kept>,
    /// Its Announcement is no longer watched, and there is something left to write about it.
    unwatched: bool,
}

#[derive(Debug, Default)]
struct Inner {
    // Boxed: lists come in order, and a map that grows in order is half empty.
    entries: BTreeMap<IpAddr, Box<Entry>>,
    common: Common,
    changed: BTreeSet<IpAddr>,
}

impl Inner {
    fn report(&self, address: IpAddr) -> Option<&KeptReport> {
        self.entries.get(&address)?.report.as_deref()
    }

    fn forget(&mut self, address: IpAddr) {
        self.changed.remove(&address);
        if let Some(entry) = self.entries.get_mut(&address) {
            entry.report = None;
            if entry.unwatched || entry.seen.is_none() {
                self.entries.remove(&address);
            }
        }
    }
}

/// The board. Each side holds it by an `Arc`.
#[derive(Debug, Default)]
pub struct Board {
    inner: Mutex<Inner>,
    news: Notify,
}

impl Board {
    /// The engine answers for an address, or found it in conflict.
    pub fn report(&self, node: &str, address: IpAddr, status: Status, since: Timestamp) {
        let mut inner = self.lock();
        let inner = &mut *inner;
        let entry = inner.entries.entry(address).or_default();
        let former = entry.seen.as_ref().and_then(Kept::owner).filter(|owner| *owner != node);
        // The same ownership reported again still came from the same node.
        let before = entry.report.as_deref().filter(|before| before.epoch == status.epoch);
        let former = former.or_else(|| before.and_then(KeptReport::former)).map(str::to_owned);
        let report = Report { status, since, former, released: false };
        entry.report = Some(Box::new(KeptReport::of(report, &mut inner.common)));
        inner.changed.insert(address);
        self.news.notify_one();
    }

    /// The engine has no more to say about an address: another node answers, and writes.
    pub fn retract(&self, address: IpAddr) {
        self.lock().forget(address);
    }

    /// The node has no part in an address any more. If it answered, that is to be written once; nobody else may be there to say so.
    pub fn release(&self, address: IpAddr) {
        let mut inner = self.lock();
        match inner.entries.get_mut(&address).and_then(|entry| entry.report.as_mut()) {
            Some(report) if report.state == State::Answering => {
                report.released = true;
                inner.changed.insert(address);
                self.news.notify_one();
            }
            _ => inner.forget(address),
        }
    }

    /// That an address was released is written, or is not this node's to write any more.
    pub fn settled(&self, address: IpAddr) {
        let mut inner = self.lock();
        if inner.report(address).is_some_and(|report| report.released) {
            inner.forget(address);
        }
    }

    /// The Announcement of an address is now so, says the watch.
    pub fn saw(&self, address: IpAddr, seen: Seen) {
        if let Some(entry) = self.lock().entries.get_mut(&address) {
            entry.unwatched = false;
        }
        self.reread(address, seen);
    }

    /// The Announcement of an address is now so, says an answer to the writer.
    pub fn reread(&self, address: IpAddr, seen: Seen) {
        let mut inner = self.lock();
        let inner = &mut *inner;
        let kept = Kept::of(seen, &mut inner.common);
        let entry = inner.entries.entry(address).or_default();
        entry.seen = Some(kept);
        if entry.report.is_some() {
            inner.changed.insert(address);
            self.news.notify_one();
        }
    }

    /// The Announcement of an address is gone, or is none of ours.
    pub fn vanished(&self, address: IpAddr) {
        let mut inner = self.lock();
        let Some(entry) = inner.entries.get_mut(&address) else { return };
        if entry.report.is_some() {
            // The writer may still need it.
            entry.unwatched = true;
        } else {
            inner.entries.remove(&address);
        }
    }

    /// Looks at the next address about which something changed and that is not in `except`.
    pub fn take_changed(&self, except: &BTreeSet<IpAddr>) -> Option<(IpAddr, Report, Seen)> {
        let mut inner = self.lock();
        let mut passed = Vec::new();
        let found = loop {
            let Some(address) = inner.changed.pop_first() else { break None };
            if except.contains(&address) {
                passed.push(address);
                continue;
            }
            // Without both sides there is nothing to compare; the side that is missing brings it up again.
            let entry = inner.entries.get(&address);
            let both =
                entry.and_then(|entry| Some((entry.report.as_ref()?.report(), entry.seen.as_ref()?.seen(address))));
            if let Some((report, seen)) = both {
                break Some((address, report, seen));
            }
        };
        inner.changed.extend(passed);
        found
    }

    /// An address is to be looked at again.
    pub fn again(&self, address: IpAddr) {
        let mut inner = self.lock();
        if inner.report(address).is_some() {
            inner.changed.insert(address);
            self.news.notify_one();
        }
    }

    /// Takes as little room as can be.
    pub fn pack(&self) {
        let mut inner = self.lock();
        // A map that grew in order is half empty.
        inner.entries = std::mem::take(&mut inner.entries).into_iter().collect();
    }

    /// Waits until something changed since the last wait.
    pub async fn news(&self) {
        self.news.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every change is made of calls that do not panic.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
