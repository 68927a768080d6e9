//! What is taken and what is not, and that a rotation loses nothing.

use proptest::prelude::*;

use super::super::tests::messages;
use super::super::{Body, Claim, DATAGRAM_MAX, Digest, ENTRIES_MAX, EPOCH_MAX, Entries, NODE_NAME_MAX, Stance};
use super::*;

fn node(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

/// A key that belongs to a generation, another one for each.
fn key(generation: u32) -> [u8; 32] {
    [generation as u8 ^ 0x50; 32]
}

fn ring(generations: &[u32]) -> KeyRing {
    let keys = generations.iter().map(|generation| (*generation, key(*generation))).collect();
    KeyRing::new(&HeartbeatKeys::new(keys).unwrap())
}

fn with_keys(name: &str, generations: &[u32]) -> Envelopes {
    let mut envelopes = Envelopes::new(node(name), Authentication::Required);
    envelopes.set_ring(ring(generations));
    envelopes
}

fn message(sender: &str) -> Message {
    Message {
        sender: node(sender),
        boot_id: 7,
        sequence: 8,
        heard_boot_id: 9,
        stopping: false,
        want_claims: true,
        want_sightings: false,
        body: Body::Heartbeat { digest: Digest::from_bits(0x0102_0304_0506_0708), count: 3 },
    }
}

#[test]
fn the_layout_is_the_documented_one() {
    let mut expected = b"BRTH\x01\x01\x02\x01".to_vec();
    for number in [7u64, 8, 9] {
        expected.extend_from_slice(&number.to_be_bytes());
    }
    expected.extend_from_slice(
        b"\x08worker-1\x01\x02\x03\x04\x05\x06\x07\x08\x00\x00\x00\x03\x00\x00\x00\x06\x00\x00\x00\x06",
    );
    // By another implementation of HMAC-SHA-256: key 0x56 32 times, over 0x08, `worker-2` and the bytes so far.
    expected.extend_from_slice(&0xb727_f52e_53c9_70d1_1128_4002_7571_975f_u128.to_be_bytes());
    let sealed = with_keys("worker-1", &[5, 6]).seal(&node("worker-2"), &message("worker-1")).unwrap();
    assert_eq!(sealed, expected);
    assert_eq!(with_keys("worker-2", &[6]).open(&sealed).unwrap(), message("worker-1"));
}

#[test]
fn only_what_a_speaker_of_this_cluster_sent_to_this_node_is_believed() {
    let sealed = |from: &str, generations: &[u32], to: &str| {
        with_keys(from, generations).seal(&node(to), &message(from)).unwrap()
    };
    let plain = message("a").emit();
    let good = sealed("a", &[1], "b");
    let other_key = {
        let mut keys = Envelopes::new(node("a"), Authentication::Required);
        keys.set_ring(KeyRing::new(&HeartbeatKeys::new(BTreeMap::from([(1, [0xEE; 32])])).unwrap()));
        keys.seal(&node("b"), &message("a")).unwrap()
    };
    let marked = |envelope: u8| {
        let mut bytes = plain.clone();
        bytes[ENVELOPE_AT] = envelope;
        bytes
    };
    let malformed = |error| Err(Refused::Malformed(error));
    for (bytes, expected, why) in [
        (good.clone(), Ok(()), "what it sent"),
        (plain.clone(), Err(Refused::Unauthenticated), "anybody can write it"),
        (sealed("a", &[1], "c"), Err(Refused::BadTag), "for another node"),
        (sealed("b", &[1], "a"), Err(Refused::BadTag), "its own, thrown back"),
        (sealed("a", &[1], "bb"), Err(Refused::BadTag), "for a node with a longer name"),
        (other_key, Err(Refused::BadTag), "another key of that number"),
        (sealed("a", &[2], "b"), Err(Refused::UnknownGeneration(2)), "a key that is not there (yet, or any more)"),
        (marked(1), Err(Refused::UnknownGeneration(0x0008_0000)), "without an envelope, and says that it has one"),
        (marked(2), malformed(ParseError::Envelope(2)), "an envelope of later times"),
        (good[..30].to_vec(), Err(Refused::UnknownGeneration(0x0201_0000)), "cut off"),
        (good[..8].to_vec(), malformed(ParseError::Short("envelope")), "no room for an envelope"),
        (good[..7].to_vec(), malformed(ParseError::Short("envelope")), "cut off before it says in what it is"),
        (good[..4].to_vec(), malformed(ParseError::Short("version")), "cut off before the version"),
        (b"BRT".to_vec(), malformed(ParseError::Short("magic")), "cut off before anything"),
        (b"BRTX____".to_vec(), malformed(ParseError::Magic), "not from a speaker"),
        (b"BRTH\x02___".to_vec(), malformed(ParseError::Version(2)), "of another version"),
    ] {
        assert_eq!(with_keys("b", &[1]).open(&bytes).map(|_| ()), expected, "{why}");
    }
}

#[test]
fn without_keys_nothing_is_sent_and_nothing_believed() {
    let mut b = Envelopes::new(node("b"), Authentication::Required);
    assert_eq!(b.seal(&node("a"), &message("b")), None);
    let sealed = with_keys("a", &[1]).seal(&node("b"), &message("a")).unwrap();
    assert_eq!(b.open(&sealed), Err(Refused::UnknownGeneration(1)));
    assert_eq!(b.open(&message("a").emit()), Err(Refused::Unauthenticated));
    b.set_ring(ring(&[1]));
    assert_eq!(b.open(&sealed), Ok(message("a")), "as soon as there is one");
    assert!(b.seal(&node("a"), &message("b")).is_some());
}

#[test]
fn who_switched_it_off_hears_those_who_did_too() {
    let mut off = Envelopes::new(node("b"), Authentication::Off);
    let plain = off.seal(&node("a"), &message("b")).unwrap();
    assert_eq!(plain, message("b").emit());
    assert_eq!(off.open(&plain), Ok(message("b")));
    let sealed = with_keys("a", &[3]).seal(&node("b"), &message("a")).unwrap();
    assert_eq!(off.open(&sealed), Err(Refused::UnknownGeneration(3)));
    assert_eq!(off.open(&plain[..40]), Err(ParseError::Short("digest").into()));
}

#[test]
fn the_largest_datagram_fits_with_its_envelope() {
    let claim = Claim { address: "2001:db8::1".parse().unwrap(), epoch: EPOCH_MAX, stance: Stance::Answers };
    let entries = Entries::split(&[claim; ENTRIES_MAX]).next().unwrap();
    let name = "n".repeat(NODE_NAME_MAX);
    let largest = Message { body: Body::Changes { digest: Digest::EMPTY, count: 1, entries }, ..message(&name) };
    let sealed = with_keys(&name, &[1]).seal(&node(&name), &largest).unwrap();
    assert_eq!(sealed.len(), 1_116);
    assert!(sealed.len() <= DATAGRAM_MAX);
    assert_eq!(with_keys(&name, &[1]).open(&sealed), Ok(largest));
}

#[test]
fn a_key_is_never_printed() {
    assert_eq!(format!("{:?}", ring(&[3, 4])), "KeyRing([3, 4])");
}

/// The generation that a sealed datagram was signed with.
fn signed_with(sealed: &[u8]) -> u32 {
    let at = sealed.len() - ENVELOPE_BYTES;
    u32::from_be_bytes(sealed[at..at + 4].try_into().unwrap())
}

/// Sends one datagram; whether it was believed, and under which key.
fn send(from: &mut Envelopes, to: &mut Envelopes) -> (bool, u32) {
    let (sender, receiver) = (from.node.clone(), to.node.clone());
    let sealed = from.seal(&receiver, &message(sender.as_str())).unwrap();
    (to.open(&sealed).is_ok(), signed_with(&sealed))
}

#[test]
fn the_newest_key_that_both_have_is_used() {
    let (mut a, mut b) = (with_keys("a", &[1, 2]), with_keys("b", &[1, 2]));
    let table = [
        // the rings of a and b from then on, what a signs with, what b signs with, why
        ((&[1, 2][..], &[1, 2][..]), 2, 2, "both have the newest"),
        ((&[1, 2], &[1, 2]), 2, 2, "and know it"),
        ((&[2, 3], &[1, 2]), 2, 2, "a is ahead and waits for b"),
        ((&[2, 3], &[1, 2]), 2, 2, "however long"),
        ((&[2, 3], &[2, 3]), 2, 3, "a has not heard that b has it too; b knows that a has"),
        ((&[2, 3], &[2, 3]), 3, 3, "now it has"),
        ((&[2, 3], &[3, 4]), 3, 3, "b is ahead"),
    ];
    for ((ring_a, ring_b), by_a, by_b, why) in table {
        a.set_ring(ring(ring_a));
        b.set_ring(ring(ring_b));
        assert_eq!(send(&mut a, &mut b), (true, by_a), "{why}");
        assert_eq!(send(&mut b, &mut a), (true, by_b), "{why}");
    }
}

#[test]
fn an_old_datagram_that_is_sent_again_makes_nobody_use_old_keys_for_good() {
    let (mut a, mut b) = (with_keys("a", &[1, 2]), with_keys("b", &[1, 2]));
    let old = b.seal(&node("a"), &message("b")).unwrap();
    send(&mut a, &mut b);
    for envelopes in [&mut a, &mut b] {
        envelopes.set_ring(ring(&[2, 3]));
    }
    send(&mut b, &mut a);
    b.set_ring(ring(&[3, 4]));
    // Of two datagrams b believes the second at the latest, whatever somebody sends to a in between.
    let mut missed = 0;
    for _ in 0..20 {
        a.open(&old).unwrap();
        missed = if send(&mut a, &mut b).0 { 0 } else { missed + 1 };
        assert!(missed < 2);
    }
    send(&mut b, &mut a);
    assert_eq!(send(&mut a, &mut b), (true, 3));
}

#[test]
fn what_is_known_of_partners_is_bounded() {
    let mut a = with_keys("a", &[1]);
    for number in 0..PARTNERS_MAX + 10 {
        a.seal(&node(&format!("n{number}")), &message("a")).unwrap();
        a.seal(&node("n0"), &message("a")).unwrap();
    }
    assert_eq!(a.partners.len(), PARTNERS_MAX);
    assert!(a.partners.contains_key("n0") && !a.partners.contains_key("n1"), "the least recent goes");
    let mut stranger = with_keys("stranger", &[1]);
    send(&mut stranger, &mut a);
    assert!(!a.partners.contains_key("stranger"), "who is never sent to is not remembered");
}

/// Anything that may have been before: what was told, how often something was sent in vain.
#[derive(Clone, Debug)]
struct Before {
    told: Vec<u32>,
    in_vain: u8,
}

prop_compose! {
    fn before()(told in prop::collection::vec(1u32..12, 0..3), in_vain in 0u8..5) -> Before {
        Before { told, in_vain }
    }
}

impl Before {
    fn happen(&self, envelopes: &mut Envelopes, partner: &NodeName) {
        for _ in 0..self.in_vain {
            envelopes.seal(partner, &message("x"));
        }
        for told in &self.told {
            envelopes.partners.entry(partner.clone()).or_default().heard(*told);
        }
    }
}

proptest! {
    #[test]
    fn what_is_sealed_is_opened(message in messages(), generations in prop::collection::btree_set(1u32.., 1..=4)) {
        let generations: Vec<u32> = generations.into_iter().collect();
        let mut sender = with_keys(message.sender.as_str(), &generations);
        let mut receiver = with_keys("receiver", &generations);
        for _ in 0..5 {
            let sealed = sender.seal(&node("receiver"), &message).unwrap();
            prop_assert!(sealed.len() <= DATAGRAM_MAX);
            prop_assert_eq!(receiver.open(&sealed), Ok(message.clone()));
        }
    }

    #[test]
    fn a_datagram_with_any_bit_changed_or_any_byte_cut_off_or_added_is_refused(
        message in messages(), at: prop::sample::Index, bit in 0u8..8, more: u8,
    ) {
        let sealed = with_keys(message.sender.as_str(), &[1, 2]).seal(&node("receiver"), &message).unwrap();
        let mut receiver = with_keys("receiver", &[1, 2]);
        let mut changed = sealed.clone();
        changed[at.index(sealed.len())] ^= 1 << bit;
        prop_assert!(receiver.open(&changed).is_err());
        prop_assert!(receiver.open(&sealed[..at.index(sealed.len())]).is_err());
        let mut longer = sealed.clone();
        longer.push(more);
        prop_assert!(receiver.open(&longer).is_err());
        prop_assert_eq!(receiver.open(&sealed), Ok(message));
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), off: bool) {
        let authentication = if off { Authentication::Off } else { Authentication::Required };
        let mut envelopes = Envelopes::new(node("b"), authentication);
        envelopes.set_ring(ring(&[1]));
        let _ = envelopes.open(&bytes);
        let mut headed = b"BRTH\x01\x01\x00\x01".to_vec();
        headed.extend_from_slice(&bytes);
        let _ = envelopes.open(&headed);
    }

    /// Of each two datagrams one arrives from the first one on, when both start anew; and soon, whatever either believes of the other.
    #[test]
    fn rings_that_are_one_rotation_apart_understand_each_other(
        generation in 2u32..10, apart: bool, swapped: bool, anew: bool, befores in (before(), before()),
    ) {
        let older = [generation - 1, generation];
        let newer = older.map(|generation| generation + u32::from(apart));
        let (first, second) = if swapped { (newer, older) } else { (older, newer) };
        let (mut a, mut b) = (with_keys("a", &first), with_keys("b", &second));
        if !anew {
            befores.0.happen(&mut a, &node("b"));
            befores.1.happen(&mut b, &node("a"));
        }
        let (mut heard, mut missed) = ([0, 0], [0, 0]);
        let rounds = if anew { 2 } else { 2 * usize::from(UNHEARD_MAX) + 2 };
        for _ in 0..rounds {
            for (at, (arrived, _)) in [send(&mut a, &mut b), send(&mut b, &mut a)].into_iter().enumerate() {
                heard[at] += u32::from(arrived);
                missed[at] = if arrived { 0 } else { missed[at] + 1 };
                prop_assert!(!anew || missed[at] < 2);
            }
        }
        prop_assert!(heard[0] > 0 && heard[1] > 0, "{heard:?} after {rounds} rounds");
        for _ in 0..6 {
            for (at, (arrived, _)) in [send(&mut a, &mut b), send(&mut b, &mut a)].into_iter().enumerate() {
                missed[at] = if arrived { 0 } else { missed[at] + 1 };
                prop_assert!(missed[at] < 2, "never two in a row any more");
            }
        }
    }

    /// The Secret is rotated again and again, each node sees it when it likes, but before the next rotation, and some datagrams are lost.
    #[test]
    fn through_any_number_of_rotations_everything_that_arrives_is_believed(
        late in prop::collection::vec((0usize..6, 0usize..6), 1..12), lost in prop::collection::vec(any::<(bool, bool)>(), 6),
    ) {
        let (mut a, mut b) = (with_keys("a", &[1, 2]), with_keys("b", &[1, 2]));
        for _ in 0..2 {
            send(&mut a, &mut b);
            send(&mut b, &mut a);
        }
        for (generation, (late_a, late_b)) in (2..).zip(late) {
            let next = ring(&[generation, generation + 1]);
            for (step, (lost_to_b, lost_to_a)) in lost.iter().copied().enumerate() {
                if step == late_a {
                    a.set_ring(next.clone());
                }
                if step == late_b {
                    b.set_ring(next.clone());
                }
                // Never so many in a row that the partner counts as silent, which is another matter.
                if lost_to_b && step % 2 == 0 {
                    a.seal(&node("b"), &message("a"));
                } else {
                    prop_assert!(send(&mut a, &mut b).0, "a to b at {generation}, step {step}");
                }
                if lost_to_a && step % 2 == 0 {
                    b.seal(&node("a"), &message("b"));
                } else {
                    prop_assert!(send(&mut b, &mut a).0, "b to a at {generation}, step {step}");
                }
            }
        }
    }
}
