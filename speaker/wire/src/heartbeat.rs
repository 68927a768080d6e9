//! The datagram that two speakers exchange: liveness, and who answers for which address.
//!
//! Version 1, all numbers big-endian:
//!
//! | bytes | field |
//! | --- | --- |
//! | 4 | magic `BRTH` |
//! | 1 | version, 1 |
//! | 1 | kind: 1 heartbeat, 2 claims, 3 changes, 4 sightings |
//! | 1 | flags: bit 0 stopping, bit 1 want claims, bit 2 want sightings; the others are zero |
//! | 1 | envelope: 0 none, 1 authenticated ([`envelope`]); others are refused |
//! | 8 | boot id of the sender: another one for each start of its process, never 0 |
//! | 8 | sequence, rises with every datagram of that boot id |
//! | 8 | boot id of the receiver as last heard, 0 if never |
//! | 1 + n | length and name of the sender's node |
//! | by kind | body |
//! | 0 or 24 | envelope |
//!
//! Bodies: heartbeat is digest (8) and count (4); claims is digest (8), part (2), parts (2) and entries; changes is
//! digest (8), count (4) and entries. Entries are a number (2) and for each the address (16, IPv4 mapped), the epoch (8, at
//! most 2^53 - 1), the stance (1: 0 knows, 1 answers, 2 cares; in claims never 0) and the tag of the node that is known to have claimed the
//! epoch (8; 0 if unknown, and where the stance is not 0). Sightings are a number (2) and for each the tag of a node (8) and how many
//! milliseconds ago it was heard (2). Behind the body may come an envelope and nothing else.

use std::net::{IpAddr, Ipv6Addr};

mod digest;
pub mod envelope;
mod reader;

pub use digest::Digest;
use reader::Reader;

/// First bytes of every datagram.
const MAGIC: [u8; 4] = *b"BRTH";
/// The version this code speaks.
pub const VERSION: u8 = 1;
/// Largest datagram, in bytes, with its envelope: with the headers below it, under the 1,280 that every IPv6 link carries.
pub const DATAGRAM_MAX: usize = 1_200;
/// Longest node name (a DNS subdomain, as Kubernetes demands of a node's name).
pub const NODE_NAME_MAX: usize = 253;
/// Most entries in a datagram: 33 + 253 bytes of header, 14 of body, 24 x 33 of entries and 24 of envelope make 1,116.
pub const ENTRIES_MAX: usize = 24;
/// Most parts of one list: 24,576 addresses between two nodes, twice what a busy node was ever seen to hold.
pub const PARTS_MAX: u16 = 1_024;
/// Most sightings in a datagram. A node has at most four partners on a link where the policy lets it choose; 64 x 10 bytes fit.
pub const SIGHTINGS_MAX: usize = 64;

/// Highest number of an ownership: the largest whole number that every JSON reader keeps, as the Announcement must. At one change a
/// millisecond it lasts for 285,000 years, so a higher one is an error or a forgery.
pub const EPOCH_MAX: u64 = (1 << 53) - 1;

const KIND_HEARTBEAT: u8 = 1;
const KIND_CLAIMS: u8 = 2;
const KIND_CHANGES: u8 = 3;
const KIND_SIGHTINGS: u8 = 4;
const FLAG_STOPPING: u8 = 1;
const FLAG_WANT_CLAIMS: u8 = 2;
const FLAG_WANT_SIGHTINGS: u8 = 4;
const FLAGS: u8 = FLAG_STOPPING | FLAG_WANT_CLAIMS | FLAG_WANT_SIGHTINGS;
const STANCE_KNOWS: u8 = 0;
const STANCE_ANSWERS: u8 = 1;
const STANCE_CARES: u8 = 2;
/// Where in a datagram the envelope's number is.
const ENVELOPE_AT: usize = 7;
const ENVELOPE_NONE: u8 = 0;
const ENVELOPE_HMAC: u8 = 1;

/// Name of a node, as long as a datagram can carry.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeName(std::sync::Arc<str>);

/// A text that cannot be a node's name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a node name, which is 1 to {NODE_NAME_MAX} lower-case letters, digits, `-` and `.`")]
pub struct NodeNameError(String);

impl NodeName {
    /// Checks a node's name.
    pub fn new(name: &str) -> Result<Self, NodeNameError> {
        let fits = (1..=NODE_NAME_MAX).contains(&name.len())
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.');
        if fits { Ok(Self(name.into())) } else { Err(NodeNameError(name.to_owned())) }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What stands for the name where there is no room for it.
    pub fn tag(&self) -> NodeTag {
        NodeTag::of(&self.0)
    }
}

/// Stands for a node's name: 64 bits of FNV-1a. Two names of one cluster that share one are less likely than a broken memory, and all
/// that came of it would be a takeover that is held back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeTag(std::num::NonZeroU64);

impl NodeTag {
    fn of(name: &str) -> Self {
        Self(std::num::NonZeroU64::new(digest::fnv1a(name.bytes())).unwrap_or(std::num::NonZeroU64::MIN))
    }

    fn from_bits(bits: u64) -> Option<Self> {
        std::num::NonZeroU64::new(bits).map(Self)
    }

    fn to_bits(tag: Option<Self>) -> u64 {
        tag.map_or(0, |tag| tag.0.get())
    }
}

impl std::fmt::Display for NodeName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::fmt::Debug for NodeName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

impl std::borrow::Borrow<str> for NodeName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// One datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The node that sent it.
    pub sender: NodeName,
    /// Which start of the sender's process; never 0.
    pub boot_id: u64,
    /// Rises with every datagram of that boot id.
    pub sequence: u64,
    /// The receiver's boot id as the sender last heard it; 0 if never. A receiver that does not find its own here believes nothing of
    /// the datagram but that somebody with this boot id asks to be heard.
    pub heard_boot_id: u64,
    /// The sender is about to end and wants its addresses taken over.
    pub stopping: bool,
    /// The sender asks for the receiver's whole list of claims.
    pub want_claims: bool,
    /// The sender misses a partner, and asks whom the receiver hears.
    pub want_sightings: bool,
    /// What it says.
    pub body: Body,
}

/// What a datagram says. Digest and count are always over all addresses that the sender claims and in which the receiver has a
/// part, so that a receiver sees whether it knows the sender's claims.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// "I live."
    Heartbeat {
        /// Over the whole list.
        digest: Digest,
        /// Length of the whole list.
        count: u32,
    },
    /// One part of the whole list.
    Claims {
        /// Over the whole list; the same in each of its parts.
        digest: Digest,
        /// Which part, from 0.
        part: u16,
        /// How many parts there are, 1 to [`PARTS_MAX`].
        parts: u16,
        /// The claims of this part.
        entries: Entries,
    },
    /// What changed in the list since the last datagram.
    Changes {
        /// Over the whole list after the change.
        digest: Digest,
        /// Length of the whole list after the change.
        count: u32,
        /// The changes.
        entries: Entries,
    },
    /// Whom the sender hears on the link, at most [`SIGHTINGS_MAX`].
    Sightings(Vec<Sighting>),
}

/// That a node was heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// Which node.
    pub node: NodeTag,
    /// How long ago, in milliseconds.
    pub age_ms: u16,
}

/// What a node says about one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The address.
    pub address: IpAddr,
    /// Number of the ownership, at most [`EPOCH_MAX`].
    pub epoch: u64,
    /// How the sender stands to it.
    pub stance: Stance,
}

/// How a node stands to an ownership of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stance {
    /// It is the sender's own: it answers.
    Answers,
    /// It is that of another node, whose speaker is silent or stops: the sender answers in its place, with its Ethernet address.
    Cares,
    /// It does not answer. This ownership is the latest that it knows to have been claimed, by this node if it knows that.
    Knows(Option<NodeTag>),
}

impl Claim {
    /// Whether it is about a claim of the sender's, and not of what it knows.
    pub fn is_held(&self) -> bool {
        !matches!(self.stance, Stance::Knows(_))
    }
}

/// At most [`ENTRIES_MAX`] claims, so that they fit in a datagram.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entries(Vec<Claim>);

impl Entries {
    /// Cuts a list into pieces that fit in a datagram each. An empty list gives no piece.
    pub fn split(claims: &[Claim]) -> impl Iterator<Item = Self> + '_ {
        claims.chunks(ENTRIES_MAX).map(|chunk| Self(chunk.to_vec()))
    }

    /// The claims.
    pub fn as_slice(&self) -> &[Claim] {
        &self.0
    }
}

/// Why a datagram cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Cut off.
    #[error("the datagram ends inside its {0}")]
    Short(&'static str),
    /// Not from a speaker.
    #[error("the datagram does not start as one of a speaker")]
    Magic,
    /// From a speaker that this one cannot understand.
    #[error("version {0} of the datagram is not known here")]
    Version(u8),
    /// Unknown kind.
    #[error("kind {0} of datagram is not known here")]
    Kind(u8),
    /// Unknown flags.
    #[error("flags {0:#04x} of the datagram are not known here")]
    Flags(u8),
    /// Authenticated where it must not be, or in a way unknown here.
    #[error("envelope {0} of the datagram is not the one that is expected here")]
    Envelope(u8),
    /// A field with a value it cannot have.
    #[error("the datagram's {0} has a value that it cannot have")]
    Value(&'static str),
    /// More bytes than the fields need.
    #[error("the datagram has {0} bytes too many")]
    Trailing(usize),
}

impl ParseError {
    /// A stable word for a metric's label.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Short(_) => "short",
            Self::Magic => "magic",
            Self::Version(_) => "version",
            Self::Kind(_) => "kind",
            Self::Flags(_) => "flags",
            Self::Envelope(_) => "envelope",
            Self::Value(_) => "value",
            Self::Trailing(_) => "trailing",
        }
    }
}

impl Message {
    /// Reads a datagram without an envelope. Nothing unknown is skipped: a speaker that cannot understand all of it refuses it.
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        Self::parse_in(ENVELOPE_NONE, bytes)
    }

    /// Reads header and body of a datagram in this envelope.
    fn parse_in(expected: u8, bytes: &[u8]) -> Result<Self, ParseError> {
        let mut reader = Reader::new(bytes);
        if reader.array("magic")? != MAGIC {
            return Err(ParseError::Magic);
        }
        let version = reader.u8("version")?;
        if version != VERSION {
            return Err(ParseError::Version(version));
        }
        let kind = reader.u8("kind")?;
        let flags = reader.u8("flags")?;
        if flags & !FLAGS != 0 {
            return Err(ParseError::Flags(flags));
        }
        let envelope = reader.u8("envelope")?;
        if envelope != expected {
            return Err(ParseError::Envelope(envelope));
        }
        let boot_id = reader.u64("boot id")?;
        if boot_id == 0 {
            return Err(ParseError::Value("boot id"));
        }
        let sequence = reader.u64("sequence")?;
        let heard_boot_id = reader.u64("heard boot id")?;
        let length = reader.u8("node name")?;
        let name = reader.bytes(usize::from(length), "node name")?;
        let sender = std::str::from_utf8(name)
            .ok()
            .and_then(|name| NodeName::new(name).ok())
            .ok_or(ParseError::Value("node name"))?;
        let body = match kind {
            KIND_HEARTBEAT => {
                Body::Heartbeat { digest: Digest::from_bits(reader.u64("digest")?), count: reader.u32("count")? }
            }
            KIND_CLAIMS => {
                let digest = Digest::from_bits(reader.u64("digest")?);
                let part = reader.u16("part")?;
                let parts = reader.u16("parts")?;
                if part >= parts || parts > PARTS_MAX {
                    return Err(ParseError::Value("part"));
                }
                let entries = Self::parse_entries(&mut reader)?;
                if entries.0.iter().any(|claim| !claim.is_held()) {
                    return Err(ParseError::Value("claim"));
                }
                Body::Claims { digest, part, parts, entries }
            }
            KIND_CHANGES => Body::Changes {
                digest: Digest::from_bits(reader.u64("digest")?),
                count: reader.u32("count")?,
                entries: Self::parse_entries(&mut reader)?,
            },
            KIND_SIGHTINGS => Body::Sightings(Self::parse_sightings(&mut reader)?),
            other => return Err(ParseError::Kind(other)),
        };
        reader.end()?;
        Ok(Self {
            sender,
            boot_id,
            sequence,
            heard_boot_id,
            stopping: flags & FLAG_STOPPING != 0,
            want_claims: flags & FLAG_WANT_CLAIMS != 0,
            want_sightings: flags & FLAG_WANT_SIGHTINGS != 0,
            body,
        })
    }

    fn parse_entries(reader: &mut Reader<'_>) -> Result<Entries, ParseError> {
        let count = usize::from(reader.u16("entries")?);
        if count > ENTRIES_MAX {
            return Err(ParseError::Value("number of entries"));
        }
        let mut entries = Vec::with_capacity(count);
        for _ in 0..count {
            let address = Ipv6Addr::from(reader.array::<16>("address")?).to_canonical();
            let epoch = reader.u64("epoch")?;
            if epoch > EPOCH_MAX {
                return Err(ParseError::Value("epoch"));
            }
            let stance = reader.u8("claim")?;
            let holder = NodeTag::from_bits(reader.u64("claim")?);
            let stance = match (stance, holder) {
                (STANCE_KNOWS, holder) => Stance::Knows(holder),
                (STANCE_ANSWERS, None) => Stance::Answers,
                (STANCE_CARES, None) => Stance::Cares,
                _ => return Err(ParseError::Value("claim")),
            };
            entries.push(Claim { address, epoch, stance });
        }
        Ok(Entries(entries))
    }

    fn parse_sightings(reader: &mut Reader<'_>) -> Result<Vec<Sighting>, ParseError> {
        let count = usize::from(reader.u16("sightings")?);
        if count > SIGHTINGS_MAX {
            return Err(ParseError::Value("number of sightings"));
        }
        let mut sightings = Vec::with_capacity(count);
        for _ in 0..count {
            let node = NodeTag::from_bits(reader.u64("sighting")?).ok_or(ParseError::Value("sighting"))?;
            sightings.push(Sighting { node, age_ms: reader.u16("sighting")? });
        }
        Ok(sightings)
    }

    /// The bytes of it without an envelope: at most [`DATAGRAM_MAX`].
    pub fn emit(&self) -> Vec<u8> {
        self.emit_in(ENVELOPE_NONE)
    }

    /// Header and body of it for this envelope.
    fn emit_in(&self, envelope: u8) -> Vec<u8> {
        let kind = match self.body {
            Body::Heartbeat { .. } => KIND_HEARTBEAT,
            Body::Claims { .. } => KIND_CLAIMS,
            Body::Changes { .. } => KIND_CHANGES,
            Body::Sightings(_) => KIND_SIGHTINGS,
        };
        let mut flags = 0;
        if self.stopping {
            flags |= FLAG_STOPPING;
        }
        if self.want_claims {
            flags |= FLAG_WANT_CLAIMS;
        }
        if self.want_sightings {
            flags |= FLAG_WANT_SIGHTINGS;
        }
        let name = self.sender.as_str().as_bytes();
        let mut bytes = Vec::with_capacity(88 + name.len());
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&[VERSION, kind, flags, envelope]);
        bytes.extend_from_slice(&self.boot_id.to_be_bytes());
        bytes.extend_from_slice(&self.sequence.to_be_bytes());
        bytes.extend_from_slice(&self.heard_boot_id.to_be_bytes());
        bytes.push(name.len() as u8);
        bytes.extend_from_slice(name);
        match &self.body {
            Body::Heartbeat { digest, count } => {
                bytes.extend_from_slice(&digest.to_bits().to_be_bytes());
                bytes.extend_from_slice(&count.to_be_bytes());
            }
            Body::Claims { digest, part, parts, entries } => {
                bytes.extend_from_slice(&digest.to_bits().to_be_bytes());
                bytes.extend_from_slice(&part.to_be_bytes());
                bytes.extend_from_slice(&parts.to_be_bytes());
                Self::emit_entries(&mut bytes, entries);
            }
            Body::Changes { digest, count, entries } => {
                bytes.extend_from_slice(&digest.to_bits().to_be_bytes());
                bytes.extend_from_slice(&count.to_be_bytes());
                Self::emit_entries(&mut bytes, entries);
            }
            Body::Sightings(sightings) => {
                let sightings = &sightings[..sightings.len().min(SIGHTINGS_MAX)];
                bytes.extend_from_slice(&(sightings.len() as u16).to_be_bytes());
                for Sighting { node, age_ms } in sightings {
                    bytes.extend_from_slice(&NodeTag::to_bits(Some(*node)).to_be_bytes());
                    bytes.extend_from_slice(&age_ms.to_be_bytes());
                }
            }
        }
        bytes
    }

    fn emit_entries(bytes: &mut Vec<u8>, entries: &Entries) {
        bytes.extend_from_slice(&(entries.0.len() as u16).to_be_bytes());
        for claim in &entries.0 {
            let address = match claim.address {
                IpAddr::V4(v4) => v4.to_ipv6_mapped(),
                IpAddr::V6(v6) => v6,
            };
            bytes.extend_from_slice(&address.octets());
            bytes.extend_from_slice(&claim.epoch.to_be_bytes());
            let (stance, holder) = match claim.stance {
                Stance::Knows(holder) => (STANCE_KNOWS, holder),
                Stance::Answers => (STANCE_ANSWERS, None),
                Stance::Cares => (STANCE_CARES, None),
            };
            bytes.push(stance);
            bytes.extend_from_slice(&NodeTag::to_bits(holder).to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests;
