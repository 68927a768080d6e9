//! ARP for IPv4 over Ethernet II (RFC 826), with the probe and announcement forms of RFC 5227.

use std::net::Ipv4Addr;

use berth_api::MacAddr;

/// Length of an Ethernet II header followed by ARP for IPv4, in bytes. Senders need not pad: drivers do.
pub const FRAME_LENGTH: usize = 42;

/// EtherType of ARP.
pub const ETHERTYPE_ARP: u16 = 0x0806;
/// Hardware type Ethernet and protocol type IPv4, as they follow each other on the wire.
pub(crate) const HTYPE_PTYPE: u32 = 0x0001_0800;
/// Lengths of an Ethernet and of an IPv4 address, as they follow each other on the wire.
pub(crate) const HLEN_PLEN: u16 = 0x0604;

/// What an ARP packet does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Asks who has the target address.
    Request,
    /// Says who has the sender address.
    Reply,
}

/// An ARP packet for IPv4 over Ethernet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArpPacket {
    /// Question or answer.
    pub operation: Operation,
    /// Ethernet address of the sender; never a group address and never zero.
    pub sender_mac: MacAddr,
    /// IPv4 address of the sender; 0.0.0.0 in a probe.
    pub sender_ip: Ipv4Addr,
    /// Ethernet address of the target; of no meaning in a request.
    pub target_mac: MacAddr,
    /// IPv4 address that is asked for, or answered to.
    pub target_ip: Ipv4Addr,
}

impl ArpPacket {
    /// Whether it asks for an address without claiming one (RFC 5227 section 1.1).
    pub fn is_probe(&self) -> bool {
        self.operation == Operation::Request && self.sender_ip.is_unspecified()
    }

    /// Whether it announces the sender's own address to everybody (RFC 5227 section 1.1, RFC 5944 section 4.6).
    pub fn is_gratuitous(&self) -> bool {
        self.sender_ip == self.target_ip
    }
}

/// An Ethernet II frame that carries ARP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Where it goes.
    pub dst: MacAddr,
    /// Where it comes from.
    pub src: MacAddr,
    /// What it carries.
    pub arp: ArpPacket,
}

/// Why bytes are not an ARP frame that we understand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Cut off.
    #[error("an arp frame has at least {FRAME_LENGTH} bytes, and this one has {0}")]
    Short(usize),
    /// Another protocol.
    #[error("ethertype {0:#06x} is not arp")]
    EtherType(u16),
    /// Not Ethernet, not IPv4, or lengths that fit neither.
    #[error(
        "arp is for hardware type and protocol type {types:#010x} with lengths {lengths:#06x}, not IPv4 over Ethernet"
    )]
    Family {
        /// Both types, as they follow each other on the wire.
        types: u32,
        /// Both lengths, as they follow each other on the wire.
        lengths: u16,
    },
    /// Neither request nor reply.
    #[error("arp operation {0} is neither request nor reply")]
    Operation(u16),
    /// A sender that no station can be.
    #[error("arp sender {0} is not the address of one station")]
    Sender(MacAddr),
}

impl Frame {
    /// Asks whether anybody has `ip`, without claiming it (RFC 5227 section 1.1).
    pub fn probe(sender_mac: MacAddr, ip: Ipv4Addr) -> Self {
        Self::broadcast(Operation::Request, sender_mac, Ipv4Addr::UNSPECIFIED, MacAddr::ZERO, ip)
    }

    /// Asks who has `ip`, as a host does that has the address `own` and wishes to send something there (RFC 826).
    pub fn request(sender_mac: MacAddr, own: Ipv4Addr, ip: Ipv4Addr) -> Self {
        Self::broadcast(Operation::Request, sender_mac, own, MacAddr::ZERO, ip)
    }

    /// Announces that `mac` has `ip`, as a request (RFC 5227 section 3 prefers this form).
    pub fn gratuitous_request(mac: MacAddr, ip: Ipv4Addr) -> Self {
        Self::broadcast(Operation::Request, mac, ip, MacAddr::ZERO, ip)
    }

    /// Announces that `mac` has `ip`, as a reply, for stations that learn from replies only. The target
    /// Ethernet address is the sender's own (RFC 5944 section 4.6): Linux takes only such a reply at once.
    pub fn gratuitous_reply(mac: MacAddr, ip: Ipv4Addr) -> Self {
        Self::broadcast(Operation::Reply, mac, ip, mac, ip)
    }

    /// Answers a request: `mac` has the address that was asked for.
    pub fn reply_to(request: &Self, mac: MacAddr) -> Self {
        let asked = &request.arp;
        Self {
            dst: asked.sender_mac,
            src: mac,
            arp: ArpPacket {
                operation: Operation::Reply,
                sender_mac: mac,
                sender_ip: asked.target_ip,
                target_mac: asked.sender_mac,
                target_ip: asked.sender_ip,
            },
        }
    }

    /// Asks the station `to` alone whether it still has `ip`, as a kernel does before an entry of its grows old (RFC 1122 section
    /// 2.3.2.1). `own` is an address of the sender on the same link.
    pub fn check(sender_mac: MacAddr, own: Ipv4Addr, ip: Ipv4Addr, to: MacAddr) -> Self {
        let asked = Self::broadcast(Operation::Request, sender_mac, own, MacAddr::ZERO, ip);
        Self { dst: to, ..asked }
    }

    fn broadcast(
        operation: Operation,
        sender_mac: MacAddr,
        sender_ip: Ipv4Addr,
        target_mac: MacAddr,
        target_ip: Ipv4Addr,
    ) -> Self {
        Self {
            dst: MacAddr::BROADCAST,
            src: sender_mac,
            arp: ArpPacket { operation, sender_mac, sender_ip, target_mac, target_ip },
        }
    }

    /// Reads a frame. Bytes behind the packet are padding (RFC 894) and are ignored.
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        let (frame, _padding) = bytes.split_first_chunk::<FRAME_LENGTH>().ok_or(ParseError::Short(bytes.len()))?;
        let ethertype = u16::from_be_bytes(part(frame, 12));
        if ethertype != ETHERTYPE_ARP {
            return Err(ParseError::EtherType(ethertype));
        }
        let types = u32::from_be_bytes(part(frame, 14));
        let lengths = u16::from_be_bytes(part(frame, 18));
        if (types, lengths) != (HTYPE_PTYPE, HLEN_PLEN) {
            return Err(ParseError::Family { types, lengths });
        }
        let operation = match u16::from_be_bytes(part(frame, 20)) {
            1 => Operation::Request,
            2 => Operation::Reply,
            other => return Err(ParseError::Operation(other)),
        };
        let sender_mac = MacAddr(part(frame, 22));
        // The lowest bit of the first byte marks a group; no station sends from one, nor from zero.
        if sender_mac.0[0] & 1 == 1 || sender_mac == MacAddr::ZERO {
            return Err(ParseError::Sender(sender_mac));
        }
        Ok(Self {
            dst: MacAddr(part(frame, 0)),
            src: MacAddr(part(frame, 6)),
            arp: ArpPacket {
                operation,
                sender_mac,
                sender_ip: Ipv4Addr::from(part::<4>(frame, 28)),
                target_mac: MacAddr(part(frame, 32)),
                target_ip: Ipv4Addr::from(part::<4>(frame, 38)),
            },
        })
    }

    /// The bytes to put on the wire.
    pub fn emit(&self) -> [u8; FRAME_LENGTH] {
        let operation: u16 = match self.arp.operation {
            Operation::Request => 1,
            Operation::Reply => 2,
        };
        let mut bytes = [0; FRAME_LENGTH];
        bytes[0..6].copy_from_slice(&self.dst.0);
        bytes[6..12].copy_from_slice(&self.src.0);
        bytes[12..14].copy_from_slice(&ETHERTYPE_ARP.to_be_bytes());
        bytes[14..18].copy_from_slice(&HTYPE_PTYPE.to_be_bytes());
        bytes[18..20].copy_from_slice(&HLEN_PLEN.to_be_bytes());
        bytes[20..22].copy_from_slice(&operation.to_be_bytes());
        bytes[22..28].copy_from_slice(&self.arp.sender_mac.0);
        bytes[28..32].copy_from_slice(&self.arp.sender_ip.octets());
        bytes[32..38].copy_from_slice(&self.arp.target_mac.0);
        bytes[38..42].copy_from_slice(&self.arp.target_ip.octets());
        bytes
    }
}

/// `N` bytes of the frame from `at`, which the callers keep inside it.
fn part<const N: usize>(frame: &[u8; FRAME_LENGTH], at: usize) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&frame[at..at + N]);
    bytes
}

#[cfg(test)]
mod tests;
