//! Which statuses of our own kinds may be written.

use std::collections::{BTreeMap, BTreeSet};

/// Statuses of a kind of ours that are being written, or that the watch has not shown since: another write could only be refused.
pub(crate) struct OwnWrites<Id> {
    under_way: BTreeSet<Id>,
    /// The versions that the objects have since.
    written: BTreeMap<Id, u64>,
}

impl<Id> Default for OwnWrites<Id> {
    fn default() -> Self {
        Self { under_way: BTreeSet::new(), written: BTreeMap::new() }
    }
}

impl<Id: Ord + Clone> OwnWrites<Id> {
    /// Whether an object of which this version was seen has to wait.
    pub(crate) fn stands(&mut self, id: &Id, seen: u64) -> bool {
        if self.written.get(id).is_some_and(|written| *written <= seen) {
            self.written.remove(id);
        }
        self.under_way.contains(id) || self.written.contains_key(id)
    }

    pub(crate) fn begun(&mut self, id: &Id) {
        self.under_way.insert(id.clone());
    }

    /// `version`: the one that the object has by it, if it was written.
    pub(crate) fn ended(&mut self, id: &Id, version: Option<u64>) {
        self.under_way.remove(id);
        self.written.extend(version.map(|version| (id.clone(), version)));
    }
}
