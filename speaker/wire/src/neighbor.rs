//! What is said on a link about who has an address: ARP for IPv4, neighbor discovery for IPv6, and what both mean.
//!
//! | | IPv4 | IPv6 |
//! | --- | --- | --- |
//! | ask before first use | ARP probe (RFC 5227 section 1.1) | solicitation from `::` (RFC 4862 section 5.4.2) |
//! | ask whether it is answered for | ARP probe | solicitation from an own address (RFC 4861 section 7.2.2) |
//! | answer | ARP reply | solicited advertisement (RFC 4861 section 7.2.4) |
//! | ask one station whether it lives | ARP request to it alone (RFC 1122 section 2.3.2.1) | solicitation to it alone (RFC 4861 section 7.3.3) |
//! | announce | gratuitous request and reply | unsolicited advertisement (RFC 4861 section 7.2.6) |

use std::net::{IpAddr, Ipv6Addr};

use berth_api::MacAddr;

use crate::{arp, ndp};

/// A frame of either protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame {
    /// About an IPv4 address.
    Arp(arp::Frame),
    /// About an IPv6 address.
    Ndp(ndp::Frame),
}

/// Why bytes are neither.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Not ARP, nor IPv6.
    #[error(transparent)]
    Arp(#[from] arp::ParseError),
    /// IPv6, but not what is meant for us to believe.
    #[error(transparent)]
    Ndp(#[from] ndp::ParseError),
}

impl Frame {
    /// Asks whether anybody has `target` before it is used for the first time, without claiming it.
    pub fn probe(mac: MacAddr, target: IpAddr) -> Self {
        match target {
            IpAddr::V4(target) => Self::Arp(arp::Frame::probe(mac, target)),
            IpAddr::V6(target) => Self::Ndp(ndp::Frame::probe(mac, target)),
        }
    }

    /// Asks whether anybody has `target`, which is in use. `own` is an address of the sender on the same link.
    pub fn ask(mac: MacAddr, own: IpAddr, target: IpAddr) -> Self {
        match (own, target) {
            (_, IpAddr::V4(target)) => Self::Arp(arp::Frame::probe(mac, target)),
            (IpAddr::V6(own), IpAddr::V6(target)) => Self::Ndp(ndp::Frame::solicit(mac, own, target)),
            (IpAddr::V4(_), IpAddr::V6(target)) => Self::Ndp(ndp::Frame::probe(mac, target)),
        }
    }

    /// Asks who has `target`, as any host does that has the address `own` on the same link and wishes to send something there: nobody takes
    /// that for the wish to have it. `None` where the two are of different families.
    pub fn request(mac: MacAddr, own: IpAddr, target: IpAddr) -> Option<Self> {
        match (own, target) {
            (IpAddr::V4(own), IpAddr::V4(target)) => Some(Self::Arp(arp::Frame::request(mac, own, target))),
            (IpAddr::V6(own), IpAddr::V6(target)) => Some(Self::Ndp(ndp::Frame::solicit(mac, own, target))),
            _ => None,
        }
    }

    /// Tells the link that `mac` has `address`: for IPv4 in both forms, because stations differ in which one they learn from.
    pub fn announcements(mac: MacAddr, address: IpAddr) -> impl Iterator<Item = Self> {
        let (first, second) = match address {
            IpAddr::V4(address) => (
                Self::Arp(arp::Frame::gratuitous_request(mac, address)),
                Some(Self::Arp(arp::Frame::gratuitous_reply(mac, address))),
            ),
            IpAddr::V6(address) => (Self::Ndp(ndp::Frame::unsolicited(mac, address)), None),
        };
        std::iter::once(first).chain(second)
    }

    /// Answers a question: `mac` has the address that is asked for.
    pub fn reply_to(question: &Self, mac: MacAddr) -> Self {
        match question {
            Self::Arp(question) => Self::Arp(arp::Frame::reply_to(question, mac)),
            Self::Ndp(question) => Self::Ndp(ndp::Frame::reply_to(question, mac)),
        }
    }

    /// Asks the station with the Ethernet address `to`, and no other, whether it has `target`, an address of its own. `own` is one of the
    /// sender's, of the same family; there is no such question from another.
    pub fn check(mac: MacAddr, own: IpAddr, target: IpAddr, to: MacAddr) -> Option<Self> {
        match (own, target) {
            (IpAddr::V4(own), IpAddr::V4(target)) => Some(Self::Arp(arp::Frame::check(mac, own, target, to))),
            (IpAddr::V6(own), IpAddr::V6(target)) => Some(Self::Ndp(ndp::Frame::check(mac, own, target, to))),
            _ => None,
        }
    }

    /// Answers a question in place of a node that has the address and cannot say so: the Ethernet address that is told is `of` that node,
    /// and the frame comes from `mac`, so that switches go on to find both where they are.
    pub fn reply_for(question: &Self, of: MacAddr, mac: MacAddr) -> Self {
        match Self::reply_to(question, of) {
            Self::Arp(reply) => Self::Arp(arp::Frame { src: mac, ..reply }),
            Self::Ndp(reply) => Self::Ndp(ndp::Frame { src: mac, ..reply }),
        }
    }

    /// The address that the sender says it has, and its Ethernet address. Whoever sends from an address has it (RFC 5227 section 2.4).
    pub fn claim(&self) -> Option<(IpAddr, MacAddr)> {
        match self {
            Self::Arp(frame) => {
                let known = !frame.arp.sender_ip.is_unspecified();
                known.then_some((frame.arp.sender_ip.into(), frame.arp.sender_mac))
            }
            Self::Ndp(frame) => {
                let address = match frame.message {
                    ndp::Message::Advertisement { .. } => frame.target,
                    ndp::Message::Solicitation { .. } => frame.source,
                };
                (address != Ipv6Addr::UNSPECIFIED).then_some((address.into(), frame.sender_mac()))
            }
        }
    }

    /// The address that it asks for.
    pub fn question(&self) -> Option<IpAddr> {
        match self {
            Self::Arp(frame) => {
                let asks = frame.arp.operation == arp::Operation::Request && !frame.arp.is_gratuitous();
                asks.then_some(frame.arp.target_ip.into())
            }
            Self::Ndp(frame) => {
                matches!(frame.message, ndp::Message::Solicitation { .. }).then_some(frame.target.into())
            }
        }
    }

    /// The Ethernet address of the sender, as it says itself.
    pub fn sender_mac(&self) -> MacAddr {
        match self {
            Self::Arp(frame) => frame.arp.sender_mac,
            Self::Ndp(frame) => frame.sender_mac(),
        }
    }

    /// Whether it asks for an address that the sender wants to use itself, and claims none.
    pub fn is_probe(&self) -> bool {
        match self {
            Self::Arp(frame) => frame.arp.is_probe(),
            Self::Ndp(frame) => frame.is_probe(),
        }
    }

    /// Where it goes.
    pub fn dst(&self) -> MacAddr {
        match self {
            Self::Arp(frame) => frame.dst,
            Self::Ndp(frame) => frame.dst,
        }
    }

    /// Whether it is meant for the station with this Ethernet address: for it alone, or for all that may have what is asked for.
    pub fn reaches(&self, mac: MacAddr) -> bool {
        match self {
            Self::Arp(frame) => frame.dst == mac || frame.dst == MacAddr::BROADCAST,
            Self::Ndp(frame) => {
                let group = |group| frame.dst == ndp::group_mac(group);
                frame.dst == mac || group(ndp::solicited_node(frame.target)) || group(ndp::ALL_NODES)
            }
        }
    }

    /// Reads a frame of either protocol.
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        let ethertype = bytes.get(12..14).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]));
        if ethertype == Some(ndp::ETHERTYPE_IPV6) {
            Ok(Self::Ndp(ndp::Frame::parse(bytes)?))
        } else {
            Ok(Self::Arp(arp::Frame::parse(bytes)?))
        }
    }

    /// The bytes to put on the wire.
    pub fn emit(&self) -> Vec<u8> {
        match self {
            Self::Arp(frame) => frame.emit().to_vec(),
            Self::Ndp(frame) => frame.emit(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
    const OTHER: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);

    #[test]
    fn what_is_said_means_the_same_in_both_families() {
        for (vip, own) in [("192.0.2.10", "192.0.2.1"), ("2001:db8::10", "2001:db8::1")] {
            let (vip, own): (IpAddr, IpAddr) = (vip.parse().unwrap(), own.parse().unwrap());
            let probe = Frame::probe(OWN, vip);
            let ask = Frame::ask(OWN, own, vip);
            let table = [
                // frame, claim, question, probe, why
                (probe, None, Some(vip), true, "before first use"),
                (ask, ask.claim(), Some(vip), vip.is_ipv4(), "in use"),
                (Frame::reply_to(&probe, OTHER), Some((vip, OTHER)), None, false, "the answer to all"),
                (Frame::reply_to(&ask, OTHER), Some((vip, OTHER)), None, false, "the answer to one"),
            ];
            let announcements = Frame::announcements(OWN, vip).map(|f| (f, Some((vip, OWN)), None, false, "announced"));
            for (frame, claim, question, probe, why) in table.into_iter().chain(announcements) {
                let seen = (frame.claim(), frame.question(), frame.is_probe());
                assert_eq!(seen, (claim, question, probe), "{why}: {frame:?}");
                assert_eq!(Frame::parse(&frame.emit()), Ok(frame), "{why}");
            }
            // A sender says at most that it has its own address.
            assert!(ask.claim().is_none_or(|claim| claim == (own, OWN)));
            assert!(probe.reaches(OTHER) && ask.reaches(OTHER) && Frame::reply_to(&ask, OTHER).reaches(OWN));
            assert!(!Frame::reply_to(&ask, OTHER).reaches(MacAddr([2, 0, 0, 0, 0, 3])));
            assert_eq!(ask.sender_mac(), OWN);
        }
    }

    #[test]
    fn one_station_alone_is_asked_whether_it_lives_and_answers_as_any_host_does() {
        for (own, target) in [("192.0.2.1", "192.0.2.2"), ("2001:db8::1", "2001:db8::2")] {
            let (own, target): (IpAddr, IpAddr) = (own.parse().unwrap(), target.parse().unwrap());
            let check = Frame::check(OWN, own, target, OTHER).unwrap();
            assert_eq!((check.question(), check.claim(), check.dst()), (Some(target), Some((own, OWN)), OTHER));
            assert!(check.reaches(OTHER) && !check.is_probe());
            assert_eq!(Frame::parse(&check.emit()), Ok(check));
            let reply = Frame::reply_to(&check, OTHER);
            assert_eq!((reply.claim(), reply.dst()), (Some((target, OTHER)), OWN));
        }
        assert_eq!(Frame::check(OWN, "192.0.2.1".parse().unwrap(), "2001:db8::2".parse().unwrap(), OTHER), None);
    }

    #[test]
    fn who_answers_for_another_node_names_its_ethernet_address_and_sends_from_the_own_one() {
        for (vip, own) in [("192.0.2.10", "192.0.2.1"), ("2001:db8::10", "2001:db8::1")] {
            let question = Frame::ask(OWN, own.parse().unwrap(), vip.parse().unwrap());
            let caretaker = MacAddr([2, 0, 0, 0, 0, 3]);
            let reply = Frame::reply_for(&question, OTHER, caretaker);
            assert_eq!((reply.claim(), reply.dst()), (Some((vip.parse().unwrap(), OTHER)), OWN));
            let bytes = reply.emit();
            assert_eq!(bytes[6..12], caretaker.0);
            assert_eq!(Frame::parse(&bytes), Ok(reply));
        }
    }

    #[test]
    fn bytes_of_neither_protocol_are_refused() {
        let mut bytes = Frame::probe(OWN, "192.0.2.10".parse().unwrap()).emit();
        bytes[12..14].copy_from_slice(&[0x08, 0x00]);
        assert!(Frame::parse(&bytes).is_err() && Frame::parse(&[]).is_err());
    }
}
