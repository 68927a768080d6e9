//! Real frames, round trips, and two independent codecs as witnesses.

use etherparse::{ArpHardwareId, ArpOperation, EtherType, Ethernet2Header, LinkSlice, NetSlice, SlicedPacket};
use proptest::prelude::*;
use smoltcp::wire::{ArpPacket as SmolArp, ArpRepr, EthernetFrame, EthernetProtocol};

use super::*;

// Captured on a veth link between two Linux hosts.

/// A kernel asks for a neighbour.
const REQUEST: [u8; 42] = [
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe, 0xb0, 0x7b, 0x8f, 0xc6, 0x33, 0x08, 0x06, 0x00, 0x01, 0x08, 0x00, 0x06,
    0x04, 0x00, 0x01, 0xfe, 0xb0, 0x7b, 0x8f, 0xc6, 0x33, 0x0a, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x0a, 0x00, 0x00, 0x02,
];
/// The other kernel answers.
const REPLY: [u8; 42] = [
    0xfe, 0xb0, 0x7b, 0x8f, 0xc6, 0x33, 0x8e, 0xc4, 0x91, 0xb6, 0x00, 0x54, 0x08, 0x06, 0x00, 0x01, 0x08, 0x00, 0x06,
    0x04, 0x00, 0x02, 0x8e, 0xc4, 0x91, 0xb6, 0x00, 0x54, 0x0a, 0x00, 0x00, 0x02, 0xfe, 0xb0, 0x7b, 0x8f, 0xc6, 0x33,
    0x0a, 0x00, 0x00, 0x01,
];
/// `arping -A` announces.
const ANNOUNCEMENT: [u8; 42] = [
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x42, 0xf8, 0x5e, 0xd3, 0x57, 0xb8, 0x08, 0x06, 0x00, 0x01, 0x08, 0x00, 0x06,
    0x04, 0x00, 0x02, 0x42, 0xf8, 0x5e, 0xd3, 0x57, 0xb8, 0x0a, 0x00, 0x00, 0x02, 0x42, 0xf8, 0x5e, 0xd3, 0x57, 0xb8,
    0x0a, 0x00, 0x00, 0x02,
];
/// `arping -D` probes.
const PROBE: [u8; 42] = [
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x42, 0xf8, 0x5e, 0xd3, 0x57, 0xb8, 0x08, 0x06, 0x00, 0x01, 0x08, 0x00, 0x06,
    0x04, 0x00, 0x01, 0x42, 0xf8, 0x5e, 0xd3, 0x57, 0xb8, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    0x0a, 0x00, 0x00, 0x09,
];

fn mac(text: &str) -> MacAddr {
    text.parse().unwrap()
}

fn ip(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

#[test]
fn real_frames_are_read() {
    let request = Frame::parse(&REQUEST).unwrap();
    let asker = mac("fe:b0:7b:8f:c6:33");
    assert_eq!((request.dst, request.src), (MacAddr::BROADCAST, asker));
    assert_eq!(
        request.arp,
        ArpPacket {
            operation: Operation::Request,
            sender_mac: asker,
            sender_ip: ip("10.0.0.1"),
            target_mac: MacAddr::ZERO,
            target_ip: ip("10.0.0.2"),
        }
    );
    assert_eq!(request.emit(), REQUEST);
}

#[test]
fn what_this_speaker_would_say_is_what_others_say() {
    let request = Frame::parse(&REQUEST).unwrap();
    assert_eq!(Frame::reply_to(&request, mac("8e:c4:91:b6:00:54")).emit(), REPLY);
    let announcer = mac("42:f8:5e:d3:57:b8");
    assert_eq!(Frame::gratuitous_reply(announcer, ip("10.0.0.2")).emit(), ANNOUNCEMENT);
    // The target Ethernet address of a probe should be zero (RFC 5227 section 2.1.1); arping fills in the broadcast one.
    let mut probe = Frame::probe(announcer, ip("10.0.0.9"));
    probe.arp.target_mac = MacAddr::BROADCAST;
    assert_eq!(probe.emit(), PROBE);
    assert!(Frame::parse(&PROBE).unwrap().arp.is_probe());
}

#[test]
fn what_is_not_arp_for_ipv4_over_ethernet_is_refused() {
    let with = |at: usize, value: u8| {
        let mut bytes = REQUEST;
        bytes[at] = value;
        Frame::parse(&bytes).unwrap_err()
    };
    let family = |types, lengths| ParseError::Family { types, lengths };
    for (error, expected) in [
        (Frame::parse(&[]).unwrap_err(), ParseError::Short(0)),
        (Frame::parse(&REQUEST[..41]).unwrap_err(), ParseError::Short(41)),
        (with(13, 0x00), ParseError::EtherType(0x0800)),
        (with(15, 6), family(0x0006_0800, 0x0604)),
        (with(16, 0x86), family(0x0001_8600, 0x0604)),
        (with(18, 8), family(0x0001_0800, 0x0804)),
        (with(19, 16), family(0x0001_0800, 0x0610)),
        (with(21, 3), ParseError::Operation(3)),
        (with(22, 0xff), ParseError::Sender(mac("ff:b0:7b:8f:c6:33"))),
    ] {
        assert_eq!(error, expected);
    }
}

#[test]
fn each_form_says_what_its_rule_demands() {
    let own = mac("02:00:00:00:00:01");
    let vip = ip("192.0.2.10");
    let table = [
        // frame, operation, sender address, target Ethernet address, gratuitous, probe
        (Frame::probe(own, vip), Operation::Request, ip("0.0.0.0"), MacAddr::ZERO, false, true),
        (Frame::gratuitous_request(own, vip), Operation::Request, vip, MacAddr::ZERO, true, false),
        (Frame::gratuitous_reply(own, vip), Operation::Reply, vip, own, true, false),
    ];
    for (frame, operation, sender_ip, target_mac, gratuitous, probe) in table {
        assert_eq!((frame.dst, frame.src), (MacAddr::BROADCAST, own));
        let expected = ArpPacket { operation, sender_mac: own, sender_ip, target_mac, target_ip: vip };
        assert_eq!(frame.arp, expected);
        assert_eq!((frame.arp.is_gratuitous(), frame.arp.is_probe()), (gratuitous, probe), "{frame:?}");
    }
}

fn station() -> impl Strategy<Value = MacAddr> {
    any::<[u8; 6]>().prop_map(|mut bytes| {
        bytes[0] = (bytes[0] & 0xfe) | 2;
        MacAddr(bytes)
    })
}

prop_compose! {
    fn frames()(
        dst: [u8; 6], src in station(), request: bool, sender_mac in station(),
        sender_ip: u32, target_mac: [u8; 6], target_ip: u32,
    ) -> Frame {
        let operation = if request { Operation::Request } else { Operation::Reply };
        let arp = ArpPacket {
            operation, sender_mac, sender_ip: sender_ip.into(), target_mac: MacAddr(target_mac), target_ip: target_ip.into(),
        };
        Frame { dst: MacAddr(dst), src, arp }
    }
}

proptest! {
    #[test]
    fn what_is_written_reads_back(frame in frames(), padding in 0usize..30) {
        let mut bytes = frame.emit().to_vec();
        bytes.resize(bytes.len() + padding, 0);
        prop_assert_eq!(Frame::parse(&bytes), Ok(frame));
    }

    #[test]
    fn etherparse_reads_the_same(frame in frames()) {
        let bytes = frame.emit();
        let sliced = SlicedPacket::from_ethernet(&bytes).unwrap();
        let Some(LinkSlice::Ethernet2(ethernet)) = sliced.link else { panic!("no ethernet header") };
        let expected = Ethernet2Header { destination: frame.dst.0, source: frame.src.0, ether_type: EtherType::ARP };
        prop_assert_eq!(ethernet.to_header(), expected);
        let Some(NetSlice::Arp(arp)) = sliced.net else { panic!("no arp packet") };
        prop_assert_eq!(arp.hw_addr_type(), ArpHardwareId::ETHERNET);
        let operation = match frame.arp.operation {
            Operation::Request => ArpOperation::REQUEST,
            Operation::Reply => ArpOperation::REPLY,
        };
        prop_assert_eq!(arp.operation(), operation);
        prop_assert_eq!(arp.sender_hw_addr(), &frame.arp.sender_mac.0);
        prop_assert_eq!(arp.sender_protocol_addr(), &frame.arp.sender_ip.octets());
        prop_assert_eq!(arp.target_hw_addr(), &frame.arp.target_mac.0);
        prop_assert_eq!(arp.target_protocol_addr(), &frame.arp.target_ip.octets());
    }

    #[test]
    fn smoltcp_reads_and_writes_the_same(frame in frames()) {
        let bytes = frame.emit();
        let ethernet = EthernetFrame::new_checked(&bytes[..]).unwrap();
        prop_assert_eq!(ethernet.ethertype(), EthernetProtocol::Arp);
        let packet = SmolArp::new_checked(ethernet.payload()).unwrap();
        let repr = ArpRepr::parse(&packet).unwrap();
        let mut written = bytes;
        written[14..].fill(0);
        repr.emit(&mut SmolArp::new_unchecked(&mut written[14..]));
        prop_assert_eq!(written, bytes);
    }

    #[test]
    fn no_bytes_make_the_parser_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        let _ = Frame::parse(&bytes);
    }

    #[test]
    fn a_changed_frame_is_refused_or_read_as_it_is(frame in frames(), at in 0usize..42, value: u8) {
        let mut bytes = frame.emit();
        bytes[at] = value;
        if let Ok(read) = Frame::parse(&bytes) {
            prop_assert_eq!(read.emit(), bytes);
        }
    }
}
