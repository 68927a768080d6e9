//! The envelope of a datagram: who has no key can neither write one nor change it.
//!
//! Envelope 1 puts 24 bytes behind the body:
//!
//! | bytes | field |
//! | --- | --- |
//! | 4 | generation of the key that the tag was made with |
//! | 4 | newest generation that the sender has |
//! | 16 | tag: HMAC-SHA-256 (RFC 2104) under that key, its first 128 bits |
//!
//! The tag is over the length (1) and name of the *receiver's* node, which are not sent, and then over all bytes before the tag. So a
//! datagram for one partner is none for another, nor for its own sender. That it is not an old one is for the session to say, by the boot
//! ids and the sequence, which are among these bytes.
//!
//! **Rotation.** A speaker holds a ring of keys and takes a datagram under any of them. It signs with the newest that both sides have, which
//! it knows by what the partner told. As long as it cannot know, because the partner was not heard, or not for some datagrams, or told less
//! than before, it goes through its ring, one key a datagram. Two rings that are one rotation apart have a key in common, so of two
//! datagrams the second arrives at the latest.

use std::collections::BTreeMap;
use std::fmt;

use berth_api::HeartbeatKeys;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::{ENVELOPE_AT, ENVELOPE_HMAC, ENVELOPE_NONE, MAGIC, Message, NodeName, ParseError, VERSION};

/// Bytes of a tag. 128 bits, so that a forger who sends a million datagrams a second needs 10^25 years; half of the hash, as RFC 2104
/// (section 5) has it.
const TAG_BYTES: usize = 16;
/// Bytes of the envelope.
pub const ENVELOPE_BYTES: usize = 4 + 4 + TAG_BYTES;
/// Bytes of SHA-256's block, to which a shorter key is filled up with zeros (RFC 2104, section 2).
const BLOCK_BYTES: usize = 64;
/// Datagrams sent since a partner was heard last, from which on what it told is doubted: as many as make it count as silent.
const UNHEARD_MAX: u8 = 3;
/// Most partners of which it is known what they have: more than links have nodes. For one beyond them, what was known of the least recent
/// is forgotten, which costs that one every second datagram at the most, and only while rings differ.
const PARTNERS_MAX: usize = 1_024;

/// One to four keys, ready for use. Never printed.
#[derive(Clone)]
pub struct KeyRing(BTreeMap<u32, Hmac<Sha256>>);

impl KeyRing {
    /// A ring of these keys.
    pub fn new(keys: &HeartbeatKeys) -> Self {
        let ready = |key: &[u8]| {
            let mut block = [0; BLOCK_BYTES];
            // A key is 32 bytes long.
            block.iter_mut().zip(key).for_each(|(to, from)| *to = *from);
            Hmac::new(&block.into())
        };
        Self(keys.iter().map(|(generation, key)| (generation, ready(key))).collect())
    }

    /// The newest generation.
    pub fn newest(&self) -> u32 {
        self.0.last_key_value().map_or(0, |(generation, _)| *generation)
    }

    /// The newest generation up to this one.
    fn newest_up_to(&self, limit: u32) -> Option<u32> {
        self.0.range(..=limit).next_back().map(|(generation, _)| *generation)
    }

    /// The generation whose turn it is, newest first, over and over.
    fn in_turn(&self, turn: usize) -> Option<u32> {
        self.0.keys().rev().nth(turn % self.0.len().max(1)).copied()
    }

    /// Everything that a tag is over.
    fn digest(&self, generation: u32, receiver: &NodeName, bytes: &[u8]) -> Option<Hmac<Sha256>> {
        let name = receiver.as_str().as_bytes();
        let mut mac = self.0.get(&generation)?.clone();
        mac.update(&[name.len() as u8]);
        mac.update(name);
        mac.update(bytes);
        Some(mac)
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("KeyRing").field(&self.0.keys().collect::<Vec<_>>()).finish()
    }
}

/// Whether datagrams are authenticated. All speakers of a cluster have to agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authentication {
    /// Sent with envelope 1, and taken with it only.
    Required,
    /// Sent without an envelope, and taken without it only.
    Off,
}

/// Why a datagram is not believed to be from a speaker of this cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It cannot be read.
    #[error(transparent)]
    Malformed(#[from] ParseError),
    /// Without an envelope.
    #[error("the datagram is not authenticated")]
    Unauthenticated,
    /// Under a key that is not in the ring, or there is no ring.
    #[error("the datagram is authenticated by key {0}, which is not known here")]
    UnknownGeneration(u32),
    /// Forged, changed on its way, or for another node.
    #[error("the datagram's tag is wrong: forged, or under another key of that number, or for another node")]
    BadTag,
}

/// What is known of the keys of a partner.
#[derive(Debug, Default)]
struct Partner {
    /// The newest generation that it ever told to have; `None` if it was not heard.
    newest: Option<u32>,
    /// It told less than that when it was heard last: its keys were put back, or a datagram of former times was sent again.
    told_less: bool,
    /// Datagrams sent since it was heard.
    unheard: u8,
    /// How often a key was taken in turn.
    turn: usize,
    /// When it was sent to last, in datagrams of this process.
    used: u64,
}

/// Puts datagrams into envelopes and takes them out.
#[derive(Debug)]
pub struct Envelopes {
    node: NodeName,
    authentication: Authentication,
    ring: Option<KeyRing>,
    /// Of those that were sent to. What others tell is not kept.
    partners: BTreeMap<NodeName, Partner>,
    sealed: u64,
}

impl Envelopes {
    /// Of this node, without a key yet.
    pub fn new(node: NodeName, authentication: Authentication) -> Self {
        Self { node, authentication, ring: None, partners: BTreeMap::new(), sealed: 0 }
    }

    /// From now on these keys; what is known of partners stays.
    pub fn set_ring(&mut self, ring: KeyRing) {
        self.ring = Some(ring);
    }

    /// The bytes of a datagram for this partner, or nothing as long as there is no key.
    pub fn seal(&mut self, to: &NodeName, message: &Message) -> Option<Vec<u8>> {
        if self.authentication == Authentication::Off {
            return Some(message.emit());
        }
        let Self { ring, partners, sealed, .. } = self;
        let ring = ring.as_ref()?;
        *sealed += 1;
        if !partners.contains_key(to) && partners.len() >= PARTNERS_MAX {
            let least = partners.iter().min_by_key(|(_, partner)| partner.used).map(|(node, _)| node.clone());
            least.and_then(|node| partners.remove(&node));
        }
        let partner = partners.entry(to.clone()).or_default();
        partner.used = *sealed;
        let generation = partner.choose(ring)?;
        let mut bytes = message.emit_in(ENVELOPE_HMAC);
        bytes.extend_from_slice(&generation.to_be_bytes());
        bytes.extend_from_slice(&ring.newest().to_be_bytes());
        let tag = ring.digest(generation, to, &bytes)?.finalize().into_bytes();
        bytes.extend(tag.iter().take(TAG_BYTES));
        Some(bytes)
    }

    /// What a datagram says, if it is for this node and from a speaker of this cluster. Nothing but its first and last bytes is looked at
    /// before that is known.
    ///
    /// # Errors
    /// When it is not, or cannot be read.
    pub fn open(&mut self, bytes: &[u8]) -> Result<Message, Refused> {
        let envelope = envelope_of(bytes)?;
        match (self.authentication, envelope) {
            (Authentication::Off, ENVELOPE_NONE) => return Ok(Message::parse(bytes)?),
            (Authentication::Required, ENVELOPE_NONE) => return Err(Refused::Unauthenticated),
            // Where there are no keys, its key is an unknown one.
            (_, ENVELOPE_HMAC) => {}
            (_, other) => return Err(ParseError::Envelope(other).into()),
        }
        let short = ParseError::Short("envelope");
        let (signed, tag) = bytes.split_last_chunk::<TAG_BYTES>().ok_or(short)?;
        let (rest, newest) = signed.split_last_chunk::<4>().ok_or(short)?;
        let (inner, generation) = rest.split_last_chunk::<4>().ok_or(short)?;
        let (generation, newest) = (u32::from_be_bytes(*generation), u32::from_be_bytes(*newest));
        let ring = self.ring.as_ref();
        let digest = ring.and_then(|ring| ring.digest(generation, &self.node, signed));
        let digest = digest.ok_or(Refused::UnknownGeneration(generation))?;
        // In constant time, or a forger could find the tag byte by byte.
        digest.verify_truncated_left(tag).map_err(|_| Refused::BadTag)?;
        let message = Message::parse_in(ENVELOPE_HMAC, inner)?;
        if let Some(partner) = self.partners.get_mut(&message.sender) {
            partner.heard(newest);
        }
        Ok(message)
    }
}

impl Partner {
    /// The generation to sign with.
    fn choose(&mut self, ring: &KeyRing) -> Option<u32> {
        let known = self.newest.filter(|_| !self.told_less && self.unheard < UNHEARD_MAX);
        self.unheard = self.unheard.saturating_add(1);
        // A partner whose newest key is older than all of the ring has none of them, or told so long ago.
        known.and_then(|newest| ring.newest_up_to(newest)).or_else(|| {
            let turn = self.turn;
            self.turn = turn.wrapping_add(1);
            ring.in_turn(turn)
        })
    }

    /// It told, in a datagram with a good tag, up to which generation it has keys. That may be an old datagram that somebody sends again,
    /// so it does not undo what is known, but casts doubt on it.
    fn heard(&mut self, newest: u32) {
        self.told_less = self.newest.is_some_and(|before| newest < before);
        self.newest = self.newest.max(Some(newest));
        self.unheard = 0;
    }
}

/// The number of a datagram's envelope, if it is from a speaker of this version.
fn envelope_of(bytes: &[u8]) -> Result<u8, ParseError> {
    let (head, rest) = bytes.split_first_chunk::<4>().ok_or(ParseError::Short("magic"))?;
    if *head != MAGIC {
        return Err(ParseError::Magic);
    }
    match rest.first() {
        None => Err(ParseError::Short("version")),
        Some(&VERSION) => bytes.get(ENVELOPE_AT).copied().ok_or(ParseError::Short("envelope")),
        Some(&other) => Err(ParseError::Version(other)),
    }
}

#[cfg(test)]
mod tests;
