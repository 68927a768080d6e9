//! The names of objects that a watch has shown, of which there are tens of thousands.

/// Namespace (empty for cluster-scoped kinds) and name.
pub(super) type Id = (String, String);

/// The same in one piece.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct KnownId(Box<str>);

/// Between namespace and name. Neither can have it (names API).
const BETWEEN: char = '/';

impl KnownId {
    pub(super) fn of((namespace, name): &Id) -> Self {
        Self(format!("{namespace}{BETWEEN}{name}").into_boxed_str())
    }

    pub(super) fn id(&self) -> Id {
        let (namespace, name) = self.0.split_once(BETWEEN).unwrap_or_default();
        (namespace.to_owned(), name.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespace_and_name_are_known_apart_again() {
        for (namespace, name) in [("shop", "web"), ("", "192.0.2.1"), ("a-b", "system.node")] {
            let id = (namespace.to_owned(), name.to_owned());
            assert_eq!(KnownId::of(&id).id(), id);
        }
    }
}
