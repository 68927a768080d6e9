//! A mailbox that holds only what is latest of each thing, so that it is never longer than there are things.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

/// A mailbox. Cheap to clone; all clones are the same one.
#[derive(Debug)]
pub(crate) struct Latest<K, V> {
    inner: Arc<Inner<K, V>>,
}

#[derive(Debug)]
struct Inner<K, V> {
    waiting: Mutex<BTreeMap<K, V>>,
    news: Notify,
}

impl<K, V> Clone for Latest<K, V> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

impl<K: Ord, V> Default for Latest<K, V> {
    fn default() -> Self {
        Self { inner: Arc::new(Inner { waiting: Mutex::default(), news: Notify::new() }) }
    }
}

impl<K: Ord, V> Latest<K, V> {
    /// Puts something in, in place of what is there of the same.
    pub(crate) fn put(&self, key: K, value: V) {
        self.inner.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(key, value);
        // Kept for one who comes later.
        self.inner.news.notify_one();
    }

    /// Waits until something is there, and takes all of it. One reader at a time; giving up waiting loses nothing.
    pub(crate) async fn take(&self) -> BTreeMap<K, V> {
        loop {
            let there = std::mem::take(&mut *self.inner.waiting.lock().unwrap_or_else(PoisonError::into_inner));
            if !there.is_empty() {
                return there;
            }
            self.inner.news.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_what_is_latest_is_kept_and_nobody_misses_it() {
        let mailbox = Latest::default();
        let reader = mailbox.clone();
        mailbox.put("web", 1);
        mailbox.put("web", 2);
        mailbox.put("db", 1);
        assert_eq!(reader.take().await, BTreeMap::from([("web", 2), ("db", 1)]));
        let waits = tokio::spawn(async move { reader.take().await });
        tokio::task::yield_now().await;
        mailbox.put("web", 3);
        assert_eq!(waits.await.unwrap(), BTreeMap::from([("web", 3)]));
    }
}
