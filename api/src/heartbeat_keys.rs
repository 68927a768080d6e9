//! The keys by which speakers know each other's heartbeats, as a Secret holds them and as the directory does that it is mounted at.
//!
//! The name of a key, in the Secret and as a file, is its generation: a decimal number from 1 to 2^32 - 1. Its content is the key itself,
//! [`KEY_BYTES`] random bytes and nothing around them.

use std::collections::BTreeMap;
use std::fmt;

/// Name of the Secret, in [`crate::names::SPEAKER_NAMESPACE`].
pub const SECRET: &str = "berth-heartbeat";
/// Annotation of the Secret: when its newest key was made, in RFC 3339. Written by the controller.
pub const ROTATED_AT: &str = "berth.dev/rotated-at";
/// Annotation of the Secret by which people ask for a new key. Its value does not matter; the controller takes it off again.
pub const ROTATE: &str = "berth.dev/rotate";

/// Bytes of a key: the output of SHA-256, below which HMAC loses strength (RFC 2104, section 3).
pub const KEY_BYTES: usize = 32;
/// Most keys at a time. Two do; people who bring keys of their own may have a reason for more.
pub const KEYS_MAX: usize = 4;

/// One to [`KEYS_MAX`] keys, by generation. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct HeartbeatKeys(BTreeMap<u32, [u8; KEY_BYTES]>);

/// Why keys cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeysError {
    /// There is none.
    #[error("there is no key")]
    None,
    /// More than are kept in use.
    #[error("there are more than {KEYS_MAX} keys")]
    TooMany,
    /// Not named by a generation.
    #[error("`{0}` is no generation of a key, which is a number from 1 to 4294967295")]
    Name(String),
    /// Not as long as a key.
    #[error(
        "key `{generation}` has {length} bytes and must have {KEY_BYTES}, as they are: not as hexadecimal digits or base64"
    )]
    Length {
        /// Its name.
        generation: u32,
        /// What it has.
        length: usize,
    },
}

impl HeartbeatKeys {
    /// Reads keys with their names. One that is wrong makes all of them wrong: whoever made it believes that it is in use.
    ///
    /// # Errors
    /// When there is none, or too many, or one of them is none.
    pub fn parse<'a>(named: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Result<Self, KeysError> {
        let mut keys = BTreeMap::new();
        for (name, bytes) in named {
            let (generation, key) = parse_one(name, bytes)?;
            keys.insert(generation, key);
        }
        Self::new(keys)
    }

    /// Those of the keys that can be read, up to `most` of the newest.
    pub fn readable<'a>(
        named: impl IntoIterator<Item = (&'a str, &'a [u8])>,
        most: usize,
    ) -> BTreeMap<u32, [u8; KEY_BYTES]> {
        let mut keys: BTreeMap<_, _> =
            named.into_iter().filter_map(|(name, bytes)| parse_one(name, bytes).ok()).collect();
        while keys.len() > most {
            keys.pop_first();
        }
        keys
    }

    /// These keys.
    ///
    /// # Errors
    /// When there is none, or too many, or one of generation 0.
    pub fn new(keys: BTreeMap<u32, [u8; KEY_BYTES]>) -> Result<Self, KeysError> {
        match keys.len() {
            0 => Err(KeysError::None),
            count if count > KEYS_MAX => Err(KeysError::TooMany),
            _ if keys.contains_key(&0) => Err(KeysError::Name("0".to_owned())),
            _ => Ok(Self(keys)),
        }
    }

    /// Generations with their keys, oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (u32, &[u8; KEY_BYTES])> {
        self.0.iter().map(|(generation, key)| (*generation, key))
    }

    /// The generations, oldest first.
    pub fn generations(&self) -> Vec<u32> {
        self.0.keys().copied().collect()
    }

    /// The newest generation.
    pub fn newest(&self) -> u32 {
        self.0.last_key_value().map_or(0, |(generation, _)| *generation)
    }
}

impl fmt::Debug for HeartbeatKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HeartbeatKeys").field(&self.generations()).finish()
    }
}

fn parse_one(name: &str, bytes: &[u8]) -> Result<(u32, [u8; KEY_BYTES]), KeysError> {
    let generation = name.parse::<u32>().ok().filter(|number| *number > 0 && number.to_string() == name);
    let generation = generation.ok_or_else(|| KeysError::Name(name.to_owned()))?;
    let key = bytes.try_into().map_err(|_| KeysError::Length { generation, length: bytes.len() })?;
    Ok((generation, key))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &[u8] = &[7; KEY_BYTES];

    /// Keys with their names.
    type Named<'a> = &'a [(&'a str, &'a [u8])];
    /// Keys, what is read, and why.
    type Row<'a> = (Named<'a>, Result<Vec<u32>, KeysError>, &'a str);

    #[test]
    fn keys_are_read_or_refused_with_a_reason() {
        let name = |text: &str| Err(KeysError::Name(text.to_owned()));
        let length = |length| Err(KeysError::Length { generation: 5, length });
        let table: [Row<'_>; 13] = [
            (&[("1", KEY)], Ok(vec![1]), "one"),
            (&[("10", KEY), ("9", KEY)], Ok(vec![9, 10]), "two, in the order of their numbers"),
            (&[("4294967295", KEY)], Ok(vec![u32::MAX]), "the last one"),
            (&[("1", KEY), ("2", KEY), ("3", KEY), ("4", KEY)], Ok(vec![1, 2, 3, 4]), "four"),
            (&[], Err(KeysError::None), "none"),
            (&[("1", KEY), ("2", KEY), ("3", KEY), ("4", KEY), ("5", KEY)], Err(KeysError::TooMany), "five"),
            (&[("0", KEY)], name("0"), "no number is below the first"),
            (&[("4294967296", KEY)], name("4294967296"), "beyond the last"),
            (&[("1", KEY), ("01", KEY)], name("01"), "another spelling would be the same key twice"),
            (&[("1", KEY), ("key", KEY)], name("key"), "one that is wrong among others"),
            (&[("5", &[7; 31])], length(31), "too short"),
            (&[("5", &[7; 64])], length(64), "as hexadecimal digits"),
            (&[("5", &[])], length(0), "empty"),
        ];
        for (named, expected, why) in table {
            let read = HeartbeatKeys::parse(named.iter().copied());
            assert_eq!(read.clone().map(|keys| keys.generations()), expected, "{why}");
            if let Ok(keys) = read {
                assert_eq!(Some(keys.newest()), keys.generations().pop(), "{why}");
            }
        }
    }

    #[test]
    fn what_can_be_read_among_what_cannot_is_kept_newest_first() {
        let named: [(&str, &[u8]); 5] = [("1", KEY), ("x", KEY), ("3", &[0; 5]), ("7", KEY), ("2", KEY)];
        let kept = |most| HeartbeatKeys::readable(named, most).into_keys().collect::<Vec<_>>();
        assert_eq!((kept(9), kept(2), kept(0)), (vec![1, 2, 7], vec![2, 7], vec![]));
    }

    #[test]
    fn a_key_is_never_printed() {
        let keys = HeartbeatKeys::parse([("3", KEY), ("4", KEY)]).unwrap();
        assert_eq!(format!("{keys:?}"), "HeartbeatKeys([3, 4])");
    }
}
