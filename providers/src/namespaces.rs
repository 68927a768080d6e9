//! Lists of namespaces, as an operator writes them: where something is admitted.

use std::collections::BTreeSet;
use std::str::FromStr;

/// Which namespaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Namespaces {
    /// All of them.
    All,
    /// These. None, where nothing is said.
    Only(BTreeSet<String>),
}

impl Default for Namespaces {
    fn default() -> Self {
        Self::Only(BTreeSet::new())
    }
}

impl Namespaces {
    /// Whether it is one of them.
    pub fn has(&self, namespace: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(these) => these.contains(namespace),
        }
    }
}

/// Longest name of a namespace (RFC 1123, as Kubernetes has it).
const NAMESPACE_MAX: usize = 63;
/// All namespaces.
const ALL: &str = "*";

/// Words that are no list of namespaces.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NamespacesError {
    /// No name of a namespace.
    #[error("`{0}` is no name of a namespace; write names separated by commas, or `*` for all")]
    Name(String),
    /// All, and some beside.
    #[error("`*` is all namespaces already; leave the others out")]
    AllAndMore,
}

impl FromStr for Namespaces {
    type Err = NamespacesError;

    /// Reads names separated by commas, or `*` for all. Nothing is none.
    fn from_str(text: &str) -> Result<Self, NamespacesError> {
        let words: BTreeSet<_> = text.split(',').map(str::trim).filter(|word| !word.is_empty()).collect();
        if words.contains(ALL) {
            return if words.len() == 1 { Ok(Self::All) } else { Err(NamespacesError::AllAndMore) };
        }
        let is_name = |word: &str| {
            word.len() <= NAMESPACE_MAX
                && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
                && !word.starts_with('-')
                && !word.ends_with('-')
        };
        match words.iter().find(|word| !is_name(word)) {
            Some(word) => Err(NamespacesError::Name((*word).to_owned())),
            None => Ok(Self::Only(words.into_iter().map(str::to_owned).collect())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_are_names_or_all_of_them() {
        let only = |names: &[&str]| Ok(Namespaces::Only(names.iter().map(|name| (*name).to_owned()).collect()));
        for (text, expected) in [
            ("", only(&[])),
            ("shop", only(&["shop"])),
            (" shop , web,", only(&["shop", "web"])),
            ("*", Ok(Namespaces::All)),
            ("*,shop", Err(NamespacesError::AllAndMore)),
            ("Shop", Err(NamespacesError::Name("Shop".to_owned()))),
            ("-shop", Err(NamespacesError::Name("-shop".to_owned()))),
            ("shop*", Err(NamespacesError::Name("shop*".to_owned()))),
        ] {
            assert_eq!(text.parse::<Namespaces>(), expected, "{text}");
        }
    }
}
