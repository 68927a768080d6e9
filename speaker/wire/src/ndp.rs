//! Neighbor Solicitation and Advertisement of IPv6 over Ethernet II (RFC 4861, RFC 2464), with the solicitations that duplicate address
//! detection sends (RFC 4862).

use std::net::Ipv6Addr;

use berth_api::MacAddr;

/// EtherType of IPv6.
pub const ETHERTYPE_IPV6: u16 = 0x86dd;
/// Next header of an IPv6 packet that carries ICMPv6, and the hop limit that shows that no router forwarded it (RFC 4861 section 7.1),
/// as they follow each other on the wire.
pub(crate) const NEXT_HEADER_HOP_LIMIT: u16 = 0x3aff;
/// ICMPv6 types, each with the only code it has, as they follow each other on the wire.
pub(crate) const TYPE_SOLICITATION: u16 = 135 << 8;
pub(crate) const TYPE_ADVERTISEMENT: u16 = 136 << 8;

/// The group of all nodes on the link.
pub const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// Length of an Ethernet II header.
const ETHERNET: usize = 14;
/// Length of an IPv6 header.
const IPV6: usize = 40;
/// Length of either message before its options.
const MESSAGE: usize = 24;
/// Length of the option with an Ethernet address (RFC 2464 section 6).
const OPTION: usize = 8;
/// Where the message begins in a frame.
const AT_MESSAGE: usize = ETHERNET + IPV6;
/// Shortest frame: a message without options.
pub const FRAME_LENGTH_MIN: usize = AT_MESSAGE + MESSAGE;
/// Longest frame that is written here: a message with one Ethernet address.
pub const FRAME_LENGTH: usize = FRAME_LENGTH_MIN + OPTION;

/// Options are counted in units of this many bytes (RFC 4861 section 4.6).
const OPTION_UNIT: usize = 8;
const OPTION_SOURCE: u8 = 1;
const OPTION_TARGET: u8 = 2;

const FLAG_ROUTER: u8 = 0x80;
const FLAG_SOLICITED: u8 = 0x40;
const FLAG_OVERRIDE: u8 = 0x20;

/// What a message says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// Asks who has the target (RFC 4861 section 4.3).
    Solicitation {
        /// Ethernet address of the sender, if it says so.
        source_mac: Option<MacAddr>,
    },
    /// Says who has the target (RFC 4861 section 4.4).
    Advertisement {
        /// The sender is a router.
        router: bool,
        /// It answers a solicitation.
        solicited: bool,
        /// It replaces another Ethernet address that is known for the target.
        overrides: bool,
        /// Ethernet address of the target, if it says so.
        target_mac: Option<MacAddr>,
    },
}

/// An Ethernet II frame that carries one of the two messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Where it goes.
    pub dst: MacAddr,
    /// Where it comes from; the address of one station.
    pub src: MacAddr,
    /// The IPv6 address it comes from; `::` where duplicate address detection asks.
    pub source: Ipv6Addr,
    /// The IPv6 address it goes to.
    pub destination: Ipv6Addr,
    /// The address that it is about.
    pub target: Ipv6Addr,
    /// What it says.
    pub message: Message,
}

/// Why bytes are not one of the two messages, or one that must not be believed (RFC 4861 sections 7.1.1 and 7.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Cut off.
    #[error("a neighbor discovery frame has at least {FRAME_LENGTH_MIN} bytes, and this one has {0}")]
    Short(usize),
    /// Another protocol.
    #[error("ethertype {0:#06x} is not ipv6")]
    EtherType(u16),
    /// Another version of IP.
    #[error("ip version {0} is not 6")]
    Version(u8),
    /// Not ICMPv6 right behind the IPv6 header.
    #[error("next header {0} is not icmpv6")]
    NextHeader(u8),
    /// A router forwarded it, or may have.
    #[error("hop limit {0} is not 255, so it may come from another link")]
    HopLimit(u8),
    /// A length that does not fit the message, or is more than what there is.
    #[error("ipv6 payload length {0} does not fit the message")]
    Length(u16),
    /// Damaged on its way.
    #[error("icmpv6 checksum is wrong")]
    Checksum,
    /// Neither solicitation nor advertisement.
    #[error("icmpv6 type {0} with code {1} is neither neighbor solicitation nor advertisement")]
    Type(u8, u8),
    /// A group, or nothing, as target.
    #[error("target {0} is not the address of one interface")]
    Target(Ipv6Addr),
    /// A source that no station sends from.
    #[error("source {0} cannot have sent this")]
    Source(Ipv6Addr),
    /// A destination that does not go with what it says.
    #[error("destination {0} does not go with the message")]
    Destination(Ipv6Addr),
    /// An option that is malformed or does not go with the message.
    #[error("option {0} is malformed or does not go with the message")]
    BadOption(u8),
    /// An Ethernet address that no station has.
    #[error("{0} is not the ethernet address of one station")]
    Station(MacAddr),
}

/// The group that a node listens to for solicitations of this address (RFC 4291 section 2.7.1).
pub fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = address.octets();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), u16::from_be_bytes([b, c]))
}

/// The Ethernet address of an IPv6 group (RFC 2464 section 7).
pub fn group_mac(group: Ipv6Addr) -> MacAddr {
    let [.., a, b, c, d] = group.octets();
    MacAddr([0x33, 0x33, a, b, c, d])
}

impl Frame {
    /// Asks whether anybody has `target` before its first use, without saying who asks (RFC 4862 section 5.4.2). The answer goes
    /// to all nodes.
    pub fn probe(mac: MacAddr, target: Ipv6Addr) -> Self {
        Self::ask(mac, Ipv6Addr::UNSPECIFIED, target, Message::Solicitation { source_mac: None })
    }

    /// Asks who has `target`, from an address of the sender's own (RFC 4861 section 7.2.2). The answer goes to the sender.
    pub fn solicit(mac: MacAddr, source: Ipv6Addr, target: Ipv6Addr) -> Self {
        Self::ask(mac, source, target, Message::Solicitation { source_mac: Some(mac) })
    }

    fn ask(mac: MacAddr, source: Ipv6Addr, target: Ipv6Addr, message: Message) -> Self {
        let destination = solicited_node(target);
        Self { dst: group_mac(destination), src: mac, source, destination, target, message }
    }

    /// Asks the station `to` alone whether it still has `target`, as neighbor unreachability detection does (RFC 4861 section 7.3.3).
    pub fn check(mac: MacAddr, source: Ipv6Addr, target: Ipv6Addr, to: MacAddr) -> Self {
        let message = Message::Solicitation { source_mac: Some(mac) };
        Self { dst: to, src: mac, source, destination: target, target, message }
    }

    /// Tells all nodes that `mac` has `target`, in place of whoever had it before (RFC 4861 section 7.2.6).
    pub fn unsolicited(mac: MacAddr, target: Ipv6Addr) -> Self {
        Self::advertise(mac, target, group_mac(ALL_NODES), ALL_NODES, false)
    }

    /// Answers a solicitation: `mac` has the target (RFC 4861 section 7.2.4). One that came from nowhere is answered to all nodes.
    pub fn reply_to(asked: &Self, mac: MacAddr) -> Self {
        if asked.source.is_unspecified() {
            return Self::unsolicited(mac, asked.target);
        }
        Self::advertise(mac, asked.target, asked.sender_mac(), asked.source, true)
    }

    fn advertise(mac: MacAddr, target: Ipv6Addr, dst: MacAddr, destination: Ipv6Addr, solicited: bool) -> Self {
        let message = Message::Advertisement { router: false, solicited, overrides: true, target_mac: Some(mac) };
        Self { dst, src: mac, source: target, destination, target, message }
    }

    /// The Ethernet address that the sender says it has; the one that it sent from, if it does not say.
    pub fn sender_mac(&self) -> MacAddr {
        match self.message {
            Message::Solicitation { source_mac: said } | Message::Advertisement { target_mac: said, .. } => {
                said.unwrap_or(self.src)
            }
        }
    }

    /// Whether it asks for an address without saying who asks, as duplicate address detection does.
    pub fn is_probe(&self) -> bool {
        matches!(self.message, Message::Solicitation { .. }) && self.source.is_unspecified()
    }

    /// Reads a frame. Bytes behind the packet are padding and are ignored, and so are options of no meaning here.
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        let (head, rest) = bytes.split_first_chunk::<FRAME_LENGTH_MIN>().ok_or(ParseError::Short(bytes.len()))?;
        let ethertype = u16::from_be_bytes(part(head, 12));
        if ethertype != ETHERTYPE_IPV6 {
            return Err(ParseError::EtherType(ethertype));
        }
        if head[14] >> 4 != 6 {
            return Err(ParseError::Version(head[14] >> 4));
        }
        let [next_header, hop_limit] = NEXT_HEADER_HOP_LIMIT.to_be_bytes();
        if head[20] != next_header {
            return Err(ParseError::NextHeader(head[20]));
        }
        if head[21] != hop_limit {
            return Err(ParseError::HopLimit(head[21]));
        }
        let payload = u16::from_be_bytes(part(head, 18));
        let options = usize::from(payload).checked_sub(MESSAGE).and_then(|length| rest.get(..length));
        let options = options.ok_or(ParseError::Length(payload))?;
        let (source, destination) = (Ipv6Addr::from(part::<16>(head, 22)), Ipv6Addr::from(part::<16>(head, 38)));
        if checksum(source, destination, &head[AT_MESSAGE..], options) != 0 {
            return Err(ParseError::Checksum);
        }
        let (dst, src) = (MacAddr(part(head, 0)), station(MacAddr(part(head, 6)))?);
        if source.is_multicast() {
            return Err(ParseError::Source(source));
        }
        let target = Ipv6Addr::from(part::<16>(head, 62));
        if target.is_multicast() || target.is_unspecified() {
            return Err(ParseError::Target(target));
        }
        let message = match u16::from_be_bytes(part(head, AT_MESSAGE)) {
            TYPE_SOLICITATION => {
                let source_mac = mac_option(options, OPTION_SOURCE)?;
                if source.is_unspecified() {
                    if destination != solicited_node(target) {
                        return Err(ParseError::Destination(destination));
                    }
                    if source_mac.is_some() {
                        return Err(ParseError::BadOption(OPTION_SOURCE));
                    }
                }
                Message::Solicitation { source_mac }
            }
            TYPE_ADVERTISEMENT => {
                let target_mac = mac_option(options, OPTION_TARGET)?;
                let flags = head[AT_MESSAGE + 4];
                let solicited = flags & FLAG_SOLICITED != 0;
                if solicited && destination.is_multicast() {
                    return Err(ParseError::Destination(destination));
                }
                if source.is_unspecified() {
                    return Err(ParseError::Source(source));
                }
                let (router, overrides) = (flags & FLAG_ROUTER != 0, flags & FLAG_OVERRIDE != 0);
                Message::Advertisement { router, solicited, overrides, target_mac }
            }
            _ => return Err(ParseError::Type(head[AT_MESSAGE], head[AT_MESSAGE + 1])),
        };
        Ok(Self { dst, src, source, destination, target, message })
    }

    /// The bytes to put on the wire, at most [`FRAME_LENGTH`].
    pub fn emit(&self) -> Vec<u8> {
        let (kind, flags, option, mac) = match self.message {
            Message::Solicitation { source_mac } => (TYPE_SOLICITATION, 0, OPTION_SOURCE, source_mac),
            Message::Advertisement { router, solicited, overrides, target_mac } => {
                let set = |flag, holds| if holds { flag } else { 0 };
                let flags = set(FLAG_ROUTER, router) | set(FLAG_SOLICITED, solicited) | set(FLAG_OVERRIDE, overrides);
                (TYPE_ADVERTISEMENT, flags, OPTION_TARGET, target_mac)
            }
        };
        let payload = MESSAGE + if mac.is_some() { OPTION } else { 0 };
        let mut bytes = Vec::with_capacity(AT_MESSAGE + payload);
        bytes.extend_from_slice(&self.dst.0);
        bytes.extend_from_slice(&self.src.0);
        bytes.extend_from_slice(&ETHERTYPE_IPV6.to_be_bytes());
        // Version 6, no traffic class, no flow label.
        bytes.extend_from_slice(&[0x60, 0, 0, 0]);
        bytes.extend_from_slice(&(payload as u16).to_be_bytes());
        bytes.extend_from_slice(&NEXT_HEADER_HOP_LIMIT.to_be_bytes());
        bytes.extend_from_slice(&self.source.octets());
        bytes.extend_from_slice(&self.destination.octets());
        bytes.extend_from_slice(&kind.to_be_bytes());
        bytes.extend_from_slice(&[0, 0, flags, 0, 0, 0]);
        bytes.extend_from_slice(&self.target.octets());
        if let Some(mac) = mac {
            bytes.extend_from_slice(&[option, 1]);
            bytes.extend_from_slice(&mac.0);
        }
        let sum = checksum(self.source, self.destination, &bytes[AT_MESSAGE..], &[]);
        bytes[AT_MESSAGE + 2..AT_MESSAGE + 4].copy_from_slice(&sum.to_be_bytes());
        bytes
    }
}

/// The Ethernet address in the first option of this kind. Every option has a length, and one that has none ends in an error (RFC 4861
/// section 4.6).
fn mac_option(options: &[u8], wanted: u8) -> Result<Option<MacAddr>, ParseError> {
    let mut found = None;
    let mut left = options;
    while let &[kind, ref behind @ ..] = left {
        let length = behind.first().map_or(0, |units| usize::from(*units) * OPTION_UNIT);
        if length == 0 || length > left.len() {
            return Err(ParseError::BadOption(kind));
        }
        let (option, next) = left.split_at(length);
        if kind == wanted && found.is_none() {
            let mac = <[u8; 6]>::try_from(&option[2..]).map_err(|_| ParseError::BadOption(kind))?;
            found = Some(station(MacAddr(mac))?);
        }
        left = next;
    }
    Ok(found)
}

/// The address, if it is one of a station: the lowest bit of the first byte marks a group, and no station has zero.
fn station(mac: MacAddr) -> Result<MacAddr, ParseError> {
    if mac.0[0] & 1 == 1 || mac == MacAddr::ZERO { Err(ParseError::Station(mac)) } else { Ok(mac) }
}

/// The checksum of an ICMPv6 message over its pseudo-header (RFC 4443 section 2.3, RFC 8200 section 8.1); over a message that has the
/// right one it is 0. `message` has an even length.
fn checksum(source: Ipv6Addr, destination: Ipv6Addr, message: &[u8], options: &[u8]) -> u16 {
    let [next_header, _] = NEXT_HEADER_HOP_LIMIT.to_be_bytes();
    // A payload has at most 65,535 bytes, so no sum of it comes near the end of the type.
    let mut sum = (message.len() + options.len()) as u64 + u64::from(next_header);
    for bytes in [&source.octets()[..], &destination.octets(), message, options] {
        for pair in bytes.chunks(2) {
            sum += u64::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// `N` bytes of the frame from `at`, which the callers keep inside it.
fn part<const N: usize>(frame: &[u8; FRAME_LENGTH_MIN], at: usize) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&frame[at..at + N]);
    bytes
}

#[cfg(test)]
mod tests;
