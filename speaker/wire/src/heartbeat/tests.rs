//! Round trips, bounds, and refusals.

use proptest::prelude::*;

use super::*;

fn message(body: Body) -> Message {
    Message {
        sender: NodeName::new("worker-1").unwrap(),
        boot_id: 7,
        sequence: 8,
        heard_boot_id: 9,
        stopping: false,
        want_claims: true,
        want_sightings: false,
        body,
    }
}

fn heartbeat() -> Message {
    message(Body::Heartbeat { digest: Digest::from_bits(0x0102_0304_0506_0708), count: 3 })
}

#[test]
fn the_layout_is_the_documented_one() {
    let mut expected = b"BRTH\x01\x01\x02\x00".to_vec();
    for number in [7u64, 8, 9] {
        expected.extend_from_slice(&number.to_be_bytes());
    }
    expected.extend_from_slice(b"\x08worker-1\x01\x02\x03\x04\x05\x06\x07\x08\x00\x00\x00\x03");
    assert_eq!(heartbeat().emit(), expected);

    let claim = Claim { address: "192.0.2.1".parse().unwrap(), epoch: 5, stance: Stance::Cares };
    let entries = Entries::split(&[claim]).next().unwrap();
    let changes = message(Body::Changes { digest: Digest::EMPTY, count: 1, entries }).emit();
    let tail = b"\x00\x01\0\0\0\0\0\0\0\0\0\0\xff\xff\xc0\x00\x02\x01\0\0\0\0\0\0\0\x05\x02\0\0\0\0\0\0\0\0";
    assert!(changes.ends_with(tail), "{changes:?}");

    let holder = NodeName::new("worker-2").unwrap().tag();
    let entries = Entries::split(&[Claim { stance: Stance::Knows(Some(holder)), ..claim }]).next().unwrap();
    let changes = message(Body::Changes { digest: Digest::EMPTY, count: 0, entries }).emit();
    // FNV-1a of the name, worked out by another program.
    assert!(changes.ends_with(b"\x05\x00\x24\x91\x3b\xc5\x90\x27\xe6\xd4"), "{changes:x?}");

    let sightings = message(Body::Sightings(vec![Sighting { node: holder, age_ms: 258 }])).emit();
    assert_eq!(sightings[5..7], [4, 2]);
    assert!(sightings.ends_with(b"\x00\x01\x24\x91\x3b\xc5\x90\x27\xe6\xd4\x01\x02"), "{sightings:x?}");
}

#[test]
fn whatever_is_not_fully_understood_is_refused() {
    let with = |at: usize, value: u8| {
        let mut bytes = heartbeat().emit();
        bytes[at] = value;
        Message::parse(&bytes).unwrap_err()
    };
    for (error, expected) in [
        (with(0, b'X'), ParseError::Magic),
        (with(4, 2), ParseError::Version(2)),
        (with(5, 9), ParseError::Kind(9)),
        (with(6, 8), ParseError::Flags(8)),
        (with(7, 1), ParseError::Envelope(1)),
        (with(15, 0), ParseError::Value("boot id")),
        (with(32, 0), ParseError::Value("node name")),
        (with(32, 253), ParseError::Short("node name")),
        (with(33, b'W'), ParseError::Value("node name")),
        (with(33, 0xff), ParseError::Value("node name")),
    ] {
        assert_eq!(error, expected);
        assert!(!error.label().is_empty());
    }
    let bytes = heartbeat().emit();
    for length in 0..bytes.len() {
        assert!(matches!(Message::parse(&bytes[..length]), Err(ParseError::Short(_))), "{length}");
    }
    let mut longer = bytes;
    longer.push(0);
    assert_eq!(Message::parse(&longer), Err(ParseError::Trailing(1)));
}

#[test]
fn a_part_beyond_its_list_and_a_list_beyond_its_bound_are_refused() {
    for (part, parts, fits) in [(0, 1, true), (1, 1, false), (0, 0, false), (1_023, 1_024, true), (1_024, 1_025, false)]
    {
        let body = Body::Claims { digest: Digest::EMPTY, part, parts, entries: Entries::default() };
        let read = Message::parse(&message(body).emit());
        assert_eq!(read.is_ok(), fits, "{part} of {parts}");
    }
    let mut bytes =
        message(Body::Claims { digest: Digest::EMPTY, part: 0, parts: 1, entries: Entries::default() }).emit();
    let last = bytes.len() - 1;
    bytes[last] = ENTRIES_MAX as u8 + 1;
    assert_eq!(Message::parse(&bytes), Err(ParseError::Value("number of entries")));
}

#[test]
fn a_list_holds_only_what_its_sender_answers_for() {
    let given_up = Claim { address: "192.0.2.1".parse().unwrap(), epoch: 5, stance: Stance::Knows(None) };
    let entries = Entries::split(&[given_up]).next().unwrap();
    let list = message(Body::Claims { digest: Digest::EMPTY, part: 0, parts: 1, entries: entries.clone() });
    assert_eq!(Message::parse(&list.emit()), Err(ParseError::Value("claim")));
    let changes = message(Body::Changes { digest: Digest::EMPTY, count: 0, entries });
    assert_eq!(Message::parse(&changes.emit()).unwrap(), changes);
}

#[test]
fn a_claim_of_its_own_names_no_other_node_and_a_stance_is_one_of_three() {
    let claim = Claim { address: "192.0.2.1".parse().unwrap(), epoch: 5, stance: Stance::Answers };
    let entries = Entries::split(&[claim]).next().unwrap();
    let bytes = message(Body::Changes { digest: Digest::EMPTY, count: 1, entries }).emit();
    let (stance, holder) = (bytes.len() - 9, bytes.len() - 1);
    for (changes, fits) in [
        (&[][..], true),
        (&[(stance, 2)], true),
        (&[(stance, 3)], false),
        (&[(holder, 1)], false),
        (&[(stance, 2), (holder, 1)], false),
        (&[(stance, 0), (holder, 1)], true),
    ] {
        let mut bytes = bytes.clone();
        for &(at, value) in changes {
            bytes[at] = value;
        }
        assert_eq!(Message::parse(&bytes).is_ok(), fits, "{changes:?}");
    }
}

#[test]
fn sightings_are_bounded_and_of_a_node_each() {
    let sighting = Sighting { node: NodeName::new("a").unwrap().tag(), age_ms: 1 };
    let bytes = message(Body::Sightings(vec![sighting; SIGHTINGS_MAX + 9])).emit();
    assert!(bytes.len() + 64 <= DATAGRAM_MAX);
    let Body::Sightings(read) = Message::parse(&bytes).unwrap().body else { panic!("sightings") };
    assert_eq!(read.len(), SIGHTINGS_MAX, "no more are sent");
    let one = message(Body::Sightings(vec![sighting])).emit();
    let (count, tag) = (one.len() - 11, one.len() - 10);
    let mut many = one.clone();
    many[count] = SIGHTINGS_MAX as u8 + 1;
    assert_eq!(Message::parse(&many), Err(ParseError::Value("number of sightings")));
    let mut nobody = one;
    nobody[tag..tag + 8].fill(0);
    assert_eq!(Message::parse(&nobody), Err(ParseError::Value("sighting")));
}

#[test]
fn an_epoch_that_json_cannot_hold_is_refused() {
    for (epoch, fits) in [(0, true), (EPOCH_MAX, true), (EPOCH_MAX + 1, false), (u64::MAX, false)] {
        let claim = Claim { address: "192.0.2.1".parse().unwrap(), epoch, stance: Stance::Answers };
        let entries = Entries::split(&[claim]).next().unwrap();
        let read = Message::parse(&message(Body::Changes { digest: Digest::EMPTY, count: 1, entries }).emit());
        assert_eq!(read.err(), (!fits).then_some(ParseError::Value("epoch")), "{epoch}");
    }
}

#[test]
fn the_largest_datagram_leaves_room_for_an_envelope() {
    let claim = Claim { address: "2001:db8::1".parse().unwrap(), epoch: EPOCH_MAX, stance: Stance::Answers };
    let entries = Entries::split(&[claim; ENTRIES_MAX + 1]).next().unwrap();
    assert_eq!(entries.as_slice().len(), ENTRIES_MAX);
    let mut largest = message(Body::Changes { digest: Digest::EMPTY, count: 1, entries });
    largest.sender = NodeName::new(&"n".repeat(NODE_NAME_MAX)).unwrap();
    let bytes = largest.emit();
    assert!(bytes.len() + envelope::ENVELOPE_BYTES <= DATAGRAM_MAX, "{}", bytes.len());
    assert_eq!(Message::parse(&bytes).unwrap(), largest);
}

#[test]
fn a_node_name_is_what_kubernetes_calls_one() {
    for (name, fits) in [
        ("a", true),
        ("worker-1.example.com", true),
        ("", false),
        ("Worker", false),
        ("wörker", false),
        ("a b", false),
        (&"n".repeat(253), true),
        (&"n".repeat(254), false),
    ] {
        assert_eq!(NodeName::new(name).is_ok(), fits, "{name}");
    }
}

fn addresses() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<u32>().prop_map(|bits| IpAddr::V4(bits.into())),
        // A mapped address is an IPv4 one.
        any::<u128>().prop_map(|bits| Ipv6Addr::from(bits).to_canonical()),
    ]
}

fn stances(only_held: bool) -> impl Strategy<Value = Stance> {
    (0..if only_held { 2u8 } else { 4 }, "[a-z]{1,9}").prop_map(|(which, name)| match which {
        0 => Stance::Answers,
        1 => Stance::Cares,
        2 => Stance::Knows(None),
        _ => Stance::Knows(Some(NodeName::new(&name).unwrap().tag())),
    })
}

fn sightings() -> impl Strategy<Value = Vec<Sighting>> {
    let one = ("[a-z]{1,9}", any::<u16>());
    let one = one.prop_map(|(name, age_ms)| Sighting { node: NodeName::new(&name).unwrap().tag(), age_ms });
    prop::collection::vec(one, 0..=SIGHTINGS_MAX)
}

prop_compose! {
    fn lists(only_held: bool)(
        claims in prop::collection::vec((addresses(), 0..=EPOCH_MAX, stances(only_held)), 0..=ENTRIES_MAX),
    ) -> Entries {
        let claims: Vec<Claim> =
            claims.into_iter().map(|(address, epoch, stance)| Claim { address, epoch, stance }).collect();
        Entries::split(&claims).next().unwrap_or_default()
    }
}

fn bodies() -> impl Strategy<Value = Body> {
    let digest = || any::<u64>().prop_map(Digest::from_bits);
    prop_oneof![
        (digest(), any::<u32>()).prop_map(|(digest, count)| Body::Heartbeat { digest, count }),
        (digest(), 1..=PARTS_MAX, any::<u16>(), lists(true)).prop_map(|(digest, parts, part, entries)| Body::Claims {
            digest,
            part: part % parts,
            parts,
            entries
        }),
        (digest(), any::<u32>(), lists(false)).prop_map(|(digest, count, entries)| Body::Changes {
            digest,
            count,
            entries
        }),
        sightings().prop_map(Body::Sightings),
    ]
}

prop_compose! {
    pub(super) fn messages()(
        name in "[a-z0-9][a-z0-9.-]{0,252}", boot_id in 1u64.., sequence: u64, heard_boot_id: u64,
        stopping: bool, want_claims: bool, want_sightings: bool, body in bodies(),
    ) -> Message {
        let sender = NodeName::new(&name).unwrap();
        Message { sender, boot_id, sequence, heard_boot_id, stopping, want_claims, want_sightings, body }
    }
}

proptest! {
    #[test]
    fn what_is_written_reads_back(message in messages()) {
        let bytes = message.emit();
        prop_assert!(bytes.len() <= DATAGRAM_MAX);
        prop_assert_eq!(Message::parse(&bytes), Ok(message));
    }

    #[test]
    fn no_bytes_make_the_parser_panic(bytes in prop::collection::vec(any::<u8>(), 0..1_300)) {
        let _ = Message::parse(&bytes);
        let mut headed = b"BRTH\x01\x02\x00\x00".to_vec();
        headed.extend_from_slice(&bytes);
        let _ = Message::parse(&headed);
    }

    #[test]
    fn a_changed_datagram_is_refused_or_read_as_it_is(message in messages(), at: prop::sample::Index, value: u8, cut: prop::sample::Index) {
        let mut bytes = message.emit();
        let at = at.index(bytes.len());
        bytes[at] = value;
        if let Ok(read) = Message::parse(&bytes) {
            // An IPv4-compatible address has more than one spelling; read again it is the same.
            prop_assert_eq!(Message::parse(&read.emit()), Ok(read));
        }
        let _ = Message::parse(&bytes[..cut.index(bytes.len())]);
    }
}
