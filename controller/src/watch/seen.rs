//! An object as a watch shows it: read on its own, so that one that cannot be read is no reason to lose the others, and without what
//! nobody here asks for.
//!
//! kube's `DeserializeGuard` does the first, but builds each object up three times to do it, which is most of the time and
//! memory of a controller that lists ten thousand.

use std::borrow::Cow;
use std::fmt::Debug;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::core::PartialObjectMeta;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// An object, or why it cannot be read and whose text it is.
#[derive(Clone, Debug)]
pub(super) struct Seen<K>(pub(super) Result<K, Unreadable>);

/// One that cannot be read.
#[derive(Clone, Debug)]
pub(super) struct Unreadable {
    /// Why.
    pub(super) error: String,
    /// What it is called, which can be read.
    metadata: Box<ObjectMeta>,
}

impl<'de, K: Resource + DeserializeOwned> Deserialize<'de> for Seen<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Box::<RawValue>::deserialize(deserializer)?;
        let error = match serde_json::from_str::<K>(text.get()) {
            Ok(mut object) => {
                // Who wrote which field, most of a small object's size: gone before the next one of a list is read.
                object.meta_mut().managed_fields = None;
                return Ok(Self(Ok(object)));
            }
            Err(error) => error.to_string(),
        };
        let part: PartialObjectMeta<K> = serde_json::from_str(text.get()).map_err(D::Error::custom)?;
        Ok(Self(Err(Unreadable { error, metadata: Box::new(part.metadata) })))
    }
}

impl<K: Resource> Resource for Seen<K> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    fn kind(kind: &K::DynamicType) -> Cow<'_, str> {
        K::kind(kind)
    }

    fn group(kind: &K::DynamicType) -> Cow<'_, str> {
        K::group(kind)
    }

    fn version(kind: &K::DynamicType) -> Cow<'_, str> {
        K::version(kind)
    }

    fn plural(kind: &K::DynamicType) -> Cow<'_, str> {
        K::plural(kind)
    }

    fn meta(&self) -> &ObjectMeta {
        match &self.0 {
            Ok(object) => object.meta(),
            Err(unreadable) => &unreadable.metadata,
        }
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        match &mut self.0 {
            Ok(object) => object.meta_mut(),
            Err(unreadable) => &mut unreadable.metadata,
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Service;
    use kube::ResourceExt;
    use kube::core::{ObjectList, WatchEvent};

    use super::*;

    /// A Service that can be read, and one that cannot.
    const GOOD: &str =
        r#"{"metadata":{"name":"good","managedFields":[{"manager":"kubectl"}]},"spec":{"type":"LoadBalancer"}}"#;
    const BAD: &str = r#"{"metadata":{"name":"bad","namespace":"n"},"spec":{"ports":"none"}}"#;

    #[test]
    fn an_object_that_cannot_be_read_is_known_by_name_and_spoils_no_list() {
        let list = format!(
            r#"{{"kind":"ServiceList","apiVersion":"v1","metadata":{{"resourceVersion":"7"}},"items":[{BAD},{GOOD}]}}"#
        );
        let list: ObjectList<Seen<Service>> = serde_json::from_str(&list).unwrap();
        let [bad, good] = &list.items[..] else { panic!("{list:?}") };
        assert_eq!((bad.name_any(), bad.namespace()), ("bad".to_owned(), Some("n".to_owned())));
        assert!(bad.0.as_ref().unwrap_err().error.contains("invalid type: string \"none\""), "{bad:?}");
        assert_eq!(good.0.as_ref().unwrap().spec.as_ref().unwrap().type_.as_deref(), Some("LoadBalancer"));
    }

    #[test]
    fn the_events_of_a_watch_are_read_and_who_wrote_what_is_not_kept() {
        let event = |object: &str| {
            let text = format!(r#"{{"type":"MODIFIED","object":{object}}}"#);
            let event: WatchEvent<Seen<Service>> = serde_json::from_str(&text).unwrap();
            let WatchEvent::Modified(seen) = event else { panic!("{event:?}") };
            seen
        };
        let good = event(GOOD);
        assert_eq!((good.name_any(), good.meta().managed_fields.is_none()), ("good".to_owned(), true));
        assert!(event(BAD).0.is_err());
    }
}
