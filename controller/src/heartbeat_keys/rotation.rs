//! What is to be done about the Secret, as a plain function of what is in it and what time it is.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use berth_api::HeartbeatKeys;
use berth_api::heartbeat_keys::{KEY_BYTES, KeysError, ROTATE, ROTATED_AT, SECRET};
use berth_api::names::SPEAKER_NAMESPACE;
use jiff::{Span, SpanRelativeTo, Timestamp};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// Keys in the Secret after a rotation: the new one, and the one that all speakers have already.
const KEPT: usize = 2;

/// Shortest time between two rotations. A speaker must have seen one before the next, or it has no key in common with those that
/// have seen both. A kubelet shows a change within two minutes (a sync each minute, half as much again at random, and the age of its cache).
pub(super) const SHORTEST: Duration = Duration::from_mins(10);

/// The type of a Secret whose content is its user's own affair.
const OPAQUE: &str = "Opaque";

/// After what time a new key is made; never, if none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotation(Option<Duration>);

/// A text that is no time between rotations.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no time between two keys, which is 10 minutes or more, such as `7d` or `12h`, or `0` for never")]
pub struct RotationError(String);

impl FromStr for Rotation {
    type Err = RotationError;

    fn from_str(text: &str) -> Result<Self, RotationError> {
        if text == "0" {
            return Ok(Self(None));
        }
        let span = text.parse::<Span>().ok();
        let length = span.and_then(|span| span.to_duration(SpanRelativeTo::days_are_24_hours()).ok());
        match length.and_then(|length| Duration::try_from(length).ok()) {
            Some(Duration::ZERO) => Ok(Self(None)),
            Some(length) if length >= SHORTEST => Ok(Self(Some(length))),
            _ => Err(RotationError(text.to_owned())),
        }
    }
}

/// Why the Secret is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// There was none.
    Made,
    /// Nothing in it could be read.
    Replaced(KeysError),
    /// Something in it could not be read; the keys that could are kept.
    Mended(KeysError),
    /// Nothing says when its keys were made; counted from now on.
    Dated,
    /// Its newest key is old.
    Due,
    /// Somebody asked for it.
    Asked,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Made => f.write_str("made the key of the heartbeats"),
            Self::Replaced(why) => {
                write!(f, "made the key of the heartbeats anew, because what was in its place is none: {why}")
            }
            Self::Mended(why) => write!(f, "took out of the heartbeats' keys what is none: {why}"),
            Self::Dated => f.write_str("found the heartbeats' keys without a date, and gave them one"),
            Self::Due => f.write_str("made a new key of the heartbeats, because the last one is old"),
            Self::Asked => f.write_str("made a new key of the heartbeats, as was asked for"),
        }
    }
}

/// What to write, and why, if anything. `fresh` are random bytes that nobody has seen; they are used once at the most.
pub(super) fn next(
    seen: Option<&Secret>,
    fresh: &[u8; KEY_BYTES],
    rotation: Rotation,
    now: Timestamp,
) -> Option<(Cause, Secret)> {
    let Some(seen) = seen else {
        let keys = BTreeMap::from([(generation_after(None, now)?, *fresh)]);
        return Some((Cause::Made, with_date(with_keys(empty(), &keys), now)));
    };
    let named = || {
        let data = seen.data.iter().flatten();
        data.map(|(name, bytes)| (name.as_str(), &bytes.0[..]))
    };
    let keys = match HeartbeatKeys::parse(named()) {
        Ok(keys) => keys,
        Err(why) => {
            let mut kept = HeartbeatKeys::readable(named(), KEPT);
            if !kept.is_empty() {
                return Some((Cause::Mended(why), with_keys(seen.clone(), &kept)));
            }
            kept.insert(generation_after(None, now)?, *fresh);
            return Some((Cause::Replaced(why), with_date(with_keys(seen.clone(), &kept), now)));
        }
    };
    let annotations = seen.metadata.annotations.as_ref();
    let rotated = annotations.and_then(|all| all.get(ROTATED_AT)).and_then(|text| text.parse::<Timestamp>().ok());
    // From the future, it was written by a clock that was wrong, or is read by one.
    let Some(rotated) = rotated.filter(|rotated| *rotated <= now) else {
        return Some((Cause::Dated, with_date(seen.clone(), now)));
    };
    let age = Duration::try_from(now.duration_since(rotated)).unwrap_or_default();
    let asked = annotations.is_some_and(|all| all.contains_key(ROTATE));
    let due = rotation.0.is_some_and(|length| age >= length);
    if age < SHORTEST || !(asked || due) {
        return None;
    }
    let generation = generation_after(Some(keys.newest()), now)?;
    let older = keys.iter().rev().take(KEPT - 1).map(|(generation, key)| (generation, *key));
    let keys: BTreeMap<_, _> = older.chain([(generation, *fresh)]).collect();
    let mut secret = with_date(with_keys(seen.clone(), &keys), now);
    secret.metadata.annotations.get_or_insert_default().remove(ROTATE);
    Some((if asked { Cause::Asked } else { Cause::Due }, secret))
}

/// A generation after this one. It is the time in seconds, so that a Secret that was deleted and made anew gives no number twice, for
/// another key. There is none after 4294967295, which the clock reaches in 2106 and only a person before that; then nothing is rotated.
fn generation_after(newest: Option<u32>, now: Timestamp) -> Option<u32> {
    let clock = u32::try_from(now.as_second()).unwrap_or(0).max(1);
    newest.map_or(Some(clock), |newest| newest.checked_add(1).map(|next| next.max(clock)))
}

fn empty() -> Secret {
    let labels = [("app.kubernetes.io/name", "berth"), ("app.kubernetes.io/part-of", "berth")];
    Secret {
        metadata: ObjectMeta {
            name: Some(SECRET.to_owned()),
            namespace: Some(SPEAKER_NAMESPACE.to_owned()),
            labels: Some(labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into()),
            ..ObjectMeta::default()
        },
        type_: Some(OPAQUE.to_owned()),
        ..Secret::default()
    }
}

fn with_keys(mut secret: Secret, keys: &BTreeMap<u32, [u8; KEY_BYTES]>) -> Secret {
    let data = keys.iter().map(|(generation, key)| (generation.to_string(), ByteString(key.to_vec())));
    secret.data = Some(data.collect());
    secret.metadata.managed_fields = None;
    secret
}

fn with_date(mut secret: Secret, now: Timestamp) -> Secret {
    // To the second, as Kubernetes writes times.
    let date = Timestamp::from_second(now.as_second()).unwrap_or(now).to_string();
    secret.metadata.annotations.get_or_insert_default().insert(ROTATED_AT.to_owned(), date);
    secret.metadata.managed_fields = None;
    secret
}

#[cfg(test)]
mod tests;
