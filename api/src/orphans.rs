//! The list of orphans: what carries this cluster's marks outside of it and belongs to no Service that is here. The controller puts it
//! into a ConfigMap, and the plugin reads it there.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// The key of the ConfigMap under which the list is.
pub const LIST_KEY: &str = "orphans.json";

/// Annotation of the ConfigMap by which people say what is to be removed: the UIDs of the Services that it was made for, separated by
/// commas.
pub const REMOVE: &str = "berth.dev/remove-orphans-of";

/// The UIDs that an annotation [`REMOVE`] names.
pub fn named(annotation: &str) -> BTreeSet<String> {
    annotation.split(',').map(str::trim).filter(|uid| !uid.is_empty()).map(str::to_owned).collect()
}

/// Most orphans that a list has. A ConfigMap holds a megabyte, and one of them takes less than a kilobyte.
pub const LISTED_MAX: usize = 500;

/// The ConfigMap of a provider, in the controller's namespace.
pub fn config_map_name(provider: &str) -> String {
    format!("berth-orphans-{provider}")
}

/// The orphans of a provider.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrphanList {
    /// They, by their identities.
    pub orphans: Vec<Orphan>,
    /// How many more there are than are listed.
    pub more: usize,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Orphan {
    /// Its identity there, such as an ARN.
    pub id: String,
    /// What kind of thing it is.
    pub kind: String,
    /// What it is part of, as its marks say.
    pub shard: String,
    /// Namespace and name of the Service that it was made for, as its marks say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// The UID of that Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_uid: Option<String>,
    /// Why it is one.
    pub why: String,
}

impl OrphanList {
    /// A list of these, as long as one may be.
    pub fn of(mut orphans: Vec<Orphan>) -> Self {
        orphans.sort();
        let more = orphans.len().saturating_sub(LISTED_MAX);
        orphans.truncate(LISTED_MAX);
        Self { orphans, more }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_named_is_read_whatever_spaces_are_in_between() {
        assert_eq!(named(" a, b,,a "), ["a", "b"].map(str::to_owned).into());
        assert_eq!(named(""), BTreeSet::new());
    }

    #[test]
    fn a_list_is_bounded_says_how_many_more_there_are_and_fits_into_a_config_map() {
        let text = |length: usize| "x".repeat(length);
        let orphan = |number: usize| Orphan {
            id: format!("{number:04}{}", text(200)),
            kind: text(30),
            shard: text(140),
            service: Some(text(127)),
            service_uid: Some(text(36)),
            why: text(300),
        };
        let list = OrphanList::of((0..2_000).rev().map(orphan).collect());
        assert_eq!((list.orphans.len(), list.more), (LISTED_MAX, 1_500));
        assert!(list.orphans[0].id.starts_with("0000"));
        let written = serde_json::to_string(&list).unwrap();
        assert!(written.len() < 700_000, "{}", written.len());
        assert_eq!(serde_json::from_str::<OrphanList>(&written).unwrap(), list);
    }
}
