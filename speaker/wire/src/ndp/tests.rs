//! Real frames, round trips, and two independent codecs as witnesses.

use etherparse::{Icmpv6Type, LinkSlice, NetSlice, SlicedPacket, TransportSlice};
use proptest::prelude::*;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    EthernetFrame, EthernetProtocol, Icmpv6Packet, Icmpv6Repr, IpProtocol, Ipv6Packet, NdiscNeighborFlags, NdiscRepr,
};

use super::*;

// Captured on a veth link between two Linux hosts.

/// A kernel asks for a neighbour.
const REQUEST: [u8; 86] = [
    0x33, 0x33, 0xff, 0x00, 0x00, 0x02, 0xa2, 0xf1, 0xff, 0x46, 0x89, 0x47, 0x86, 0xdd, 0x60, 0x00, 0x00, 0x00, 0x00,
    0x20, 0x3a, 0xff, 0x20, 0x01, 0x0d, 0xb8, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x01,
    0xff, 0x02, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x01, 0xff, 0x00, 0x00, 0x02, 0x87, 0x00, 0xf2,
    0xa7, 0x00, 0x00, 0x00, 0x00, 0x20, 0x01, 0x0d, 0xb8, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x00, 0x02, 0x01, 0x01, 0xa2, 0xf1, 0xff, 0x46, 0x89, 0x47,
];
/// The other kernel answers.
const REPLY: [u8; 86] = [
    0xa2, 0xf1, 0xff, 0x46, 0x89, 0x47, 0x32, 0x1c, 0xb6, 0x22, 0x14, 0x8d, 0x86, 0xdd, 0x60, 0x00, 0x00, 0x00, 0x00,
    0x20, 0x3a, 0xff, 0x20, 0x01, 0x0d, 0xb8, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x02,
    0x20, 0x01, 0x0d, 0xb8, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x01, 0x88, 0x00, 0x8f,
    0xa7, 0x60, 0x00, 0x00, 0x00, 0x20, 0x01, 0x0d, 0xb8, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x00, 0x02, 0x02, 0x01, 0x32, 0x1c, 0xb6, 0x22, 0x14, 0x8d,
];
/// A kernel announces an address that it just got (`ndisc_notify`).
const ANNOUNCEMENT: [u8; 86] = [
    0x33, 0x33, 0x00, 0x00, 0x00, 0x01, 0x32, 0x1c, 0xb6, 0x22, 0x14, 0x8d, 0x86, 0xdd, 0x60, 0x00, 0x00, 0x00, 0x00,
    0x20, 0x3a, 0xff, 0x20, 0x01, 0x0d, 0xb8, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x02,
    0xff, 0x02, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x01, 0x88, 0x00, 0xfe,
    0x5d, 0x20, 0x00, 0x00, 0x00, 0x20, 0x01, 0x0d, 0xb8, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x00, 0x02, 0x02, 0x01, 0x32, 0x1c, 0xb6, 0x22, 0x14, 0x8d,
];
/// A kernel asks before it uses an address, with the nonce of RFC 7527 behind.
const DETECTION: [u8; 86] = [
    0x33, 0x33, 0xff, 0x00, 0x00, 0x02, 0x0a, 0x38, 0x50, 0x27, 0xf2, 0x78, 0x86, 0xdd, 0x60, 0x00, 0x00, 0x00, 0x00,
    0x20, 0x3a, 0xff, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0xff, 0x02, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x01, 0xff, 0x00, 0x00, 0x02, 0x87, 0x00, 0x88,
    0x70, 0x00, 0x00, 0x00, 0x00, 0x20, 0x01, 0x0d, 0xb8, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x00, 0x02, 0x0e, 0x01, 0x6a, 0x56, 0xc4, 0x99, 0x87, 0x81,
];

fn mac(text: &str) -> MacAddr {
    text.parse().unwrap()
}

fn ip(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

#[test]
fn real_frames_are_read() {
    let asker = mac("a2:f1:ff:46:89:47");
    assert_eq!(
        Frame::parse(&REQUEST),
        Ok(Frame {
            dst: mac("33:33:ff:00:00:02"),
            src: asker,
            source: ip("2001:db8::1"),
            destination: ip("ff02::1:ff00:2"),
            target: ip("2001:db8::2"),
            message: Message::Solicitation { source_mac: Some(asker) },
        })
    );
    let owner = mac("32:1c:b6:22:14:8d");
    let said =
        |router, solicited| Message::Advertisement { router, solicited, overrides: true, target_mac: Some(owner) };
    assert_eq!(Frame::parse(&REPLY).unwrap().message, said(false, true));
    assert_eq!(Frame::parse(&ANNOUNCEMENT).unwrap().message, said(false, false));
    let detection = Frame::parse(&DETECTION).unwrap();
    assert!(detection.is_probe());
    assert_eq!((detection.target, detection.sender_mac()), (ip("2001:db8::2"), mac("0a:38:50:27:f2:78")));
}

#[test]
fn what_this_speaker_would_say_is_what_others_say() {
    let (asker, owner) = (mac("a2:f1:ff:46:89:47"), mac("32:1c:b6:22:14:8d"));
    let (source, target) = (ip("2001:db8::1"), ip("2001:db8::2"));
    assert_eq!(Frame::solicit(asker, source, target).emit(), REQUEST);
    assert_eq!(Frame::reply_to(&Frame::parse(&REQUEST).unwrap(), owner).emit(), REPLY);
    assert_eq!(Frame::unsolicited(owner, target).emit(), ANNOUNCEMENT);
    // Duplicate address detection has nowhere to be answered to but all nodes (RFC 4861 section 7.2.4).
    assert_eq!(Frame::reply_to(&Frame::parse(&DETECTION).unwrap(), owner).emit(), ANNOUNCEMENT);
    // All but its nonce.
    let probe = Frame::probe(mac("0a:38:50:27:f2:78"), target);
    assert_eq!(Frame::parse(&DETECTION), Ok(probe));
    assert_eq!(probe.emit()[20..54], DETECTION[20..54]);
}

#[test]
fn one_that_does_not_say_its_ethernet_address_is_answered_where_it_sent_from() {
    let asked = Frame { message: Message::Solicitation { source_mac: None }, ..Frame::parse(&REQUEST).unwrap() };
    assert_eq!(asked.emit().len(), FRAME_LENGTH_MIN);
    assert_eq!(Frame::reply_to(&Frame::parse(&asked.emit()).unwrap(), mac("32:1c:b6:22:14:8d")).emit(), REPLY);
}

#[test]
fn groups_have_the_addresses_of_their_rules() {
    for (address, group, mac) in [
        ("2001:db8::1", "ff02::1:ff00:1", [0x33, 0x33, 0xff, 0, 0, 1]),
        ("4037::1:800:200e:8c6c", "ff02::1:ff0e:8c6c", [0x33, 0x33, 0xff, 0x0e, 0x8c, 0x6c]),
    ] {
        assert_eq!(solicited_node(ip(address)), ip(group));
        assert_eq!(group_mac(ip(group)), MacAddr(mac));
    }
    assert_eq!(group_mac(ALL_NODES), mac("33:33:00:00:00:01"));
}

/// The frame with bytes replaced and its checksum made right again.
fn with(frame: &[u8], changes: &[(usize, &[u8])]) -> Vec<u8> {
    let mut bytes = frame.to_vec();
    for (at, change) in changes {
        bytes[*at..at + change.len()].copy_from_slice(change);
    }
    let address = |at: usize| Ipv6Addr::from(<[u8; 16]>::try_from(&bytes[at..at + 16]).unwrap());
    let (source, destination) = (address(22), address(38));
    bytes[56..58].fill(0);
    let sum = checksum(source, destination, &bytes[54..], &[]);
    bytes[56..58].copy_from_slice(&sum.to_be_bytes());
    bytes
}

#[test]
fn what_must_not_be_believed_is_refused() {
    let group = ip("ff02::1");
    let table = [
        (vec![], ParseError::Short(0), "nothing"),
        (REQUEST[..77].to_vec(), ParseError::Short(77), "cut off"),
        (REQUEST[..85].to_vec(), ParseError::Length(32), "cut off inside its option"),
        (with(&REQUEST, &[(12, &[8, 6])]), ParseError::EtherType(0x0806), "arp"),
        (with(&REQUEST, &[(14, &[0x45])]), ParseError::Version(4), "ipv4"),
        (with(&REQUEST, &[(20, &[0])]), ParseError::NextHeader(0), "behind an extension header"),
        (with(&REQUEST, &[(21, &[254])]), ParseError::HopLimit(254), "through a router"),
        (with(&REQUEST, &[(18, &[0, 23])]), ParseError::Length(23), "shorter than any"),
        (with(&REQUEST, &[(54, &[134])]), ParseError::Type(134, 0), "a router advertisement"),
        (with(&REQUEST, &[(55, &[1])]), ParseError::Type(135, 1), "a code that it has not"),
        (with(&REQUEST, &[(62, &group.octets())]), ParseError::Target(group), "about a group"),
        (with(&REQUEST, &[(62, &[0; 16])]), ParseError::Target(ip("::")), "about nothing"),
        (with(&REQUEST, &[(22, &group.octets())]), ParseError::Source(group), "from a group"),
        (with(&REQUEST, &[(22, &[0; 16])]), ParseError::BadOption(1), "from nowhere, with an ethernet address"),
        (with(&DETECTION, &[(38, &group.octets())]), ParseError::Destination(group), "detection to the wrong group"),
        (with(&REQUEST, &[(79, &[0])]), ParseError::BadOption(1), "an option without length"),
        (with(&REQUEST, &[(79, &[2])]), ParseError::BadOption(1), "an option longer than the rest"),
        (with(&REQUEST, &[(80, &[0xff])]), ParseError::Station(mac("ff:f1:ff:46:89:47")), "a group as station"),
        (with(&REQUEST, &[(6, &[0xff])]), ParseError::Station(mac("ff:f1:ff:46:89:47")), "from a group on ethernet"),
        (with(&REPLY, &[(22, &[0; 16])]), ParseError::Source(ip("::")), "an answer from nowhere"),
        (with(&ANNOUNCEMENT, &[(58, &[0x60])]), ParseError::Destination(group), "an answer to everybody"),
    ];
    for (bytes, expected, why) in table {
        assert_eq!(Frame::parse(&bytes), Err(expected), "{why}");
    }
    for at in (14..18).chain(22..86).filter(|at| *at >= 18) {
        let mut bytes = REPLY.to_vec();
        bytes[at] ^= 0x40;
        assert!(Frame::parse(&bytes).is_err(), "a damaged byte {at} is noticed");
    }
}

fn station() -> impl Strategy<Value = MacAddr> {
    any::<[u8; 6]>().prop_map(|mut bytes| {
        bytes[0] = (bytes[0] & 0xfe) | 2;
        MacAddr(bytes)
    })
}

/// An address of one interface.
fn unicast() -> impl Strategy<Value = Ipv6Addr> {
    any::<[u8; 16]>().prop_map(|mut bytes| {
        bytes[0] = (bytes[0] & 0x7f) | 0x20;
        bytes.into()
    })
}

fn frames() -> impl Strategy<Value = Frame> {
    let message = (any::<[bool; 4]>(), prop::option::of(station()));
    (any::<[u8; 6]>(), station(), unicast(), unicast(), unicast(), message).prop_map(
        |(dst, src, source, destination, target, ([asks, router, solicited, overrides], said))| {
            let message = if asks {
                Message::Solicitation { source_mac: said }
            } else {
                Message::Advertisement { router, solicited, overrides, target_mac: said }
            };
            Frame { dst: MacAddr(dst), src, source, destination, target, message }
        },
    )
}

proptest! {
    #[test]
    fn what_is_written_reads_back(frame in frames(), padding in 0usize..30) {
        let mut bytes = frame.emit();
        bytes.resize(bytes.len() + padding, 0);
        prop_assert_eq!(Frame::parse(&bytes), Ok(frame));
    }

    #[test]
    fn what_is_asked_is_answered_to_who_asked(asker in station(), owner in station(), source in unicast(), target in unicast()) {
        let asked = Frame::solicit(asker, source, target);
        prop_assert_eq!(Frame::parse(&asked.emit()), Ok(asked));
        let answer = Frame::reply_to(&asked, owner);
        prop_assert_eq!(Frame::parse(&answer.emit()), Ok(answer));
        prop_assert_eq!((answer.dst, answer.destination, answer.target), (asker, source, target));
        let detection = Frame::probe(asker, target);
        prop_assert_eq!(Frame::parse(&detection.emit()), Ok(detection));
        prop_assert_eq!(Frame::reply_to(&detection, owner), Frame::unsolicited(owner, target));
    }

    #[test]
    fn etherparse_reads_the_same(frame in frames()) {
        let bytes = frame.emit();
        let sliced = SlicedPacket::from_ethernet(&bytes).unwrap();
        let Some(LinkSlice::Ethernet2(ethernet)) = sliced.link else { panic!("no ethernet header") };
        prop_assert_eq!((ethernet.destination(), ethernet.source()), (frame.dst.0, frame.src.0));
        let Some(NetSlice::Ipv6(ip)) = sliced.net else { panic!("no ipv6 packet") };
        prop_assert_eq!((ip.header().source_addr(), ip.header().destination_addr()), (frame.source, frame.destination));
        prop_assert_eq!(ip.header().hop_limit(), 255);
        let Some(TransportSlice::Icmpv6(icmp)) = sliced.transport else { panic!("no icmpv6 message") };
        prop_assert!(icmp.is_checksum_valid(ip.header().source(), ip.header().destination()));
        match (icmp.icmp_type(), frame.message) {
            (Icmpv6Type::NeighborSolicitation, Message::Solicitation { .. }) => {}
            (Icmpv6Type::NeighborAdvertisement(head), Message::Advertisement { router, solicited, overrides, .. }) => {
                prop_assert_eq!((head.router, head.solicited, head.r#override), (router, solicited, overrides));
            }
            (other, _) => panic!("{other:?} for {frame:?}"),
        }
        prop_assert_eq!(&icmp.payload()[..16], &frame.target.octets());
    }

    #[test]
    fn smoltcp_reads_and_writes_the_same(frame in frames()) {
        let bytes = frame.emit();
        let ethernet = EthernetFrame::new_checked(&bytes[..]).unwrap();
        prop_assert_eq!(ethernet.ethertype(), EthernetProtocol::Ipv6);
        let ip = Ipv6Packet::new_checked(ethernet.payload()).unwrap();
        prop_assert_eq!((ip.next_header(), ip.hop_limit()), (IpProtocol::Icmpv6, 255));
        let icmp = Icmpv6Packet::new_checked(ip.payload()).unwrap();
        let checksums = ChecksumCapabilities::default();
        let repr = Icmpv6Repr::parse(&ip.src_addr(), &ip.dst_addr(), &icmp, &checksums).unwrap();
        let link = |mac: Option<MacAddr>| mac.map(|mac| smoltcp::wire::EthernetAddress(mac.0).into());
        let expected = match frame.message {
            Message::Solicitation { source_mac } => {
                NdiscRepr::NeighborSolicit { target_addr: frame.target, lladdr: link(source_mac) }
            }
            Message::Advertisement { router, solicited, overrides, target_mac } => {
                let mut flags = NdiscNeighborFlags::empty();
                flags.set(NdiscNeighborFlags::ROUTER, router);
                flags.set(NdiscNeighborFlags::SOLICITED, solicited);
                flags.set(NdiscNeighborFlags::OVERRIDE, overrides);
                NdiscRepr::NeighborAdvert { flags, target_addr: frame.target, lladdr: link(target_mac) }
            }
        };
        prop_assert_eq!(repr, Icmpv6Repr::Ndisc(expected));
        let mut written = bytes.clone();
        written[AT_MESSAGE..].fill(0);
        repr.emit(&frame.source, &frame.destination, &mut Icmpv6Packet::new_unchecked(&mut written[AT_MESSAGE..]), &checksums);
        prop_assert_eq!(written, bytes);
    }

    #[test]
    fn no_bytes_make_the_parser_panic(bytes in prop::collection::vec(any::<u8>(), 0..160)) {
        let _ = Frame::parse(&bytes);
    }

    #[test]
    fn no_change_makes_the_parser_panic_and_none_within_the_packet_is_read_as_what_it_was(
        frame in frames(), at in 0usize..86, value: u8,
    ) {
        let mut bytes = frame.emit();
        let at = at % bytes.len();
        prop_assume!(bytes[at] != value);
        bytes[at] = value;
        // What the checksum does not cover: traffic class and flow label, which say nothing here.
        if let Ok(read) = Frame::parse(&bytes) && !(14..18).contains(&at) {
            prop_assert_ne!(read, frame);
        }
    }

    #[test]
    fn options_of_no_meaning_here_are_skipped(frame in frames(), kind in 3u8..=255, units in 1u8..4) {
        let mut bytes = frame.emit();
        bytes.extend_from_slice(&[kind, units]);
        bytes.resize(bytes.len() + usize::from(units) * OPTION_UNIT - 2, 0x5a);
        let payload = (bytes.len() - AT_MESSAGE) as u16;
        let bytes = with(&bytes, &[(18, &payload.to_be_bytes())]);
        prop_assert_eq!(Frame::parse(&bytes), Ok(frame));
    }
}
