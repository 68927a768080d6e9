//! The programs are run by a small interpreter, and checked as the kernel checks them.

use std::collections::BTreeSet;

use berth_api::MacAddr;
use proptest::prelude::*;

use super::*;
use crate::arp::Frame;
use crate::ndp;

fn program(addresses: impl IntoIterator<Item = Ipv4Addr>) -> Program {
    arp_program(addresses, MAX_INSTRUCTIONS)
}

/// Runs a program as the kernel does; a load behind the end of the packet rejects it.
pub(super) fn run(program: &[Instruction], packet: &[u8]) -> u32 {
    let mut accumulator = 0;
    let mut at = 0;
    loop {
        let Instruction { code, jt, jf, k } = program[at];
        at += 1;
        let branch = |holds: bool| usize::from(if holds { jt } else { jf });
        match code {
            LD_HALF | LD_WORD | LD_BYTE => {
                let length =
                    [(LD_BYTE, 1), (LD_HALF, 2), (LD_WORD, 4)].into_iter().find(|(load, _)| *load == code).unwrap().1;
                let Some(bytes) = packet.get(k as usize..k as usize + length) else { return 0 };
                accumulator = bytes.iter().fold(0, |value, byte| value << 8 | u32::from(*byte));
            }
            JA => at += k as usize,
            JEQ => at += branch(accumulator == k),
            JGT => at += branch(accumulator > k),
            JGE => at += branch(accumulator >= k),
            RET => return k,
            other => panic!("unknown operation {other:#x}"),
        }
    }
}

/// What the kernel demands of a program: known operations, jumps forward and inside, a return at the end.
pub(super) fn check(program: &[Instruction], limit: usize) {
    assert!(!program.is_empty() && program.len() <= limit, "{} instructions", program.len());
    for (at, instruction) in program.iter().enumerate() {
        let next = match instruction.code {
            LD_HALF | LD_WORD | LD_BYTE | RET => 0,
            JA => instruction.k as usize,
            JEQ | JGT | JGE => usize::from(instruction.jt.max(instruction.jf)),
            other => panic!("unknown operation {other:#x}"),
        };
        assert!(at + 1 + next < program.len() || instruction.code == RET, "{at}: {instruction:?}");
    }
    assert_eq!(program.last().unwrap().code, RET);
}

fn request(sender: u32, target: u32) -> Vec<u8> {
    let mut frame = Frame::probe(MacAddr([2, 0, 0, 0, 0, 1]), target.into());
    frame.arp.sender_ip = sender.into();
    frame.emit().to_vec()
}

fn accepts(program: &Program, packet: &[u8]) -> bool {
    match run(&program.instructions, packet) {
        0 => false,
        length => {
            assert_eq!(length, SNAP_LENGTH);
            true
        }
    }
}

/// Addresses that would show a border that is off by one.
fn around(set: &BTreeSet<u32>) -> impl Iterator<Item = u32> {
    set.iter().flat_map(|a| [a.wrapping_sub(1), *a, a.wrapping_add(1)]).chain([1, u32::MAX])
}

/// An address in no set of these tests, and not the 0.0.0.0 of a probe.
const OTHER: u32 = 0x7f00_0001;

#[test]
fn an_empty_set_rejects_everything() {
    let program = program([]);
    check(&program.instructions, MAX_INSTRUCTIONS);
    assert!(!accepts(&program, &request(OTHER, 0)));
}

#[test]
fn only_well_formed_arp_is_accepted() {
    let set = [Ipv4Addr::new(192, 0, 2, 1)];
    let program = program(set);
    let good = request(OTHER, u32::from(set[0]));
    assert!(accepts(&program, &good));
    let mut padded = good.clone();
    padded.resize(60, 0);
    assert!(accepts(&program, &padded));
    for at in 12..20 {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        assert!(!accepts(&program, &bad), "byte {at}");
    }
    for length in 0..good.len() {
        assert!(!accepts(&program, &good[..length]), "{length} bytes");
    }
}

#[test]
fn sender_and_target_are_looked_at() {
    let inside = u32::from(Ipv4Addr::new(192, 0, 2, 1));
    let program = program([inside.into()]);
    for (sender, target, accepted) in
        [(OTHER, inside, true), (inside, OTHER, true), (inside, inside, true), (OTHER, OTHER, false), (0, inside, true)]
    {
        assert_eq!(accepts(&program, &request(sender, target)), accepted, "{sender:x} {target:x}");
    }
}

#[test]
fn neighbouring_addresses_cost_no_more_than_one() {
    let many = program((0..10_000u32).map(|i| Ipv4Addr::from(0x0a00_0000 + i)));
    assert!(many.exact && many.instructions.len() < 25, "{}", many.instructions.len());
}

#[test]
fn the_program_of_every_number_of_ranges_is_valid_and_the_limit_is_used_well() {
    let spread = |n: u32| (0..n).map(|i| Ipv4Addr::from(0x0a00_0000 + i * 4));
    let mut exact = 0;
    for n in (1..1_200).filter(|n| *n < 300 || n % 7 == 0) {
        // Pairs cost one instruction more on the left edge than single addresses.
        let pairs = spread(n).flat_map(|a| [a, Ipv4Addr::from(u32::from(a) + 1)]);
        for (limit, program) in
            [(MAX_INSTRUCTIONS, program(pairs)), (SMALL_INSTRUCTIONS, arp_program(spread(n), SMALL_INSTRUCTIONS))]
        {
            check(&program.instructions, limit);
            if limit == MAX_INSTRUCTIONS && program.exact {
                exact = n;
            }
        }
    }
    assert!(exact > 900, "only {exact} ranges are told apart");
}

#[test]
fn too_many_ranges_are_joined_where_the_gaps_are_smallest() {
    // 2,000 addresses in 200 clusters: the gaps inside go first.
    let set: BTreeSet<u32> = (0..200).flat_map(|c| (0..10).map(move |i| 0x0a00_0000 + c * 65_536 + i * 3)).collect();
    let program = program(set.iter().map(|a| Ipv4Addr::from(*a)));
    check(&program.instructions, MAX_INSTRUCTIONS);
    assert!(!program.exact);
    for address in &set {
        assert!(accepts(&program, &request(OTHER, *address)));
    }
    assert!(!accepts(&program, &request(OTHER, 0x0a00_0000 + 1_000)), "between two clusters");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn the_program_accepts_exactly_the_set(
        seeds in prop::collection::btree_set(0u32..4_096, 1..700), base: u32, spacing in 1u32..5,
        probes in prop::collection::vec(any::<u32>(), 20),
    ) {
        let set: BTreeSet<u32> = seeds.iter().map(|s| base.wrapping_add(s * spacing)).filter(|a| *a != OTHER).collect();
        let program = program(set.iter().map(|a| Ipv4Addr::from(*a)));
        check(&program.instructions, MAX_INSTRUCTIONS);
        prop_assert!(program.exact);
        for address in around(&set).chain(probes).filter(|a| *a != OTHER) {
            let expected = set.contains(&address);
            prop_assert_eq!(accepts(&program, &request(OTHER, address)), expected || set.contains(&OTHER));
            prop_assert_eq!(accepts(&program, &request(address, OTHER)), expected);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    #[test]
    fn any_number_of_addresses_gives_a_valid_program_that_accepts_them_all(
        set in prop::collection::btree_set(any::<u32>(), 1..20_000), small: bool,
    ) {
        let limit = if small { SMALL_INSTRUCTIONS } else { MAX_INSTRUCTIONS };
        let program = arp_program(set.iter().map(|a| Ipv4Addr::from(*a)), limit);
        check(&program.instructions, limit);
        for address in &set {
            prop_assert!(accepts(&program, &request(*address, OTHER)));
            prop_assert!(accepts(&program, &request(OTHER, *address)));
        }
        if program.exact {
            for address in around(&set) {
                prop_assert_eq!(accepts(&program, &request(0x7f00_0001, address)), set.contains(&address) || set.contains(&OTHER));
            }
        }
    }
}

const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);

/// A solicitation for `target` from `source`.
fn solicitation(source: u128, target: u128) -> Vec<u8> {
    ndp::Frame::solicit(MAC, source.into(), target.into()).emit()
}

/// An address in no set of these tests.
const OTHER6: u128 = 0xfe80 << 112 | 0x7f00_0001;

fn ndp(set: &BTreeSet<u128>, limit: usize) -> Program {
    let program = ndp_program(set.iter().map(|a| Ipv6Addr::from(*a)), limit);
    check(&program.instructions, limit);
    program
}

#[test]
fn only_solicitations_and_advertisements_from_this_link_are_accepted() {
    let target: Ipv6Addr = "2001:db8::10".parse().unwrap();
    let program = ndp_program([target], MAX_INSTRUCTIONS);
    let good = ndp::Frame::probe(MAC, target).emit();
    let answer = ndp::Frame::unsolicited(MAC, target).emit();
    assert!(accepts(&program, &good) && accepts(&program, &answer));
    // EtherType, next header, hop limit, type and code.
    for (at, value) in [(13, 0x00), (20, 17), (21, 254), (54, 134), (54, 137), (55, 1)] {
        let mut bad = good.clone();
        bad[at] = value;
        assert!(!accepts(&program, &bad), "byte {at} is {value}");
    }
    for length in 0..good.len() {
        assert_eq!(accepts(&program, &good[..length]), length >= 78, "{length} bytes");
    }
    assert!(!accepts(&ndp_program([], MAX_INSTRUCTIONS), &good));
    assert!(!accepts(&program, &request(OTHER, 0x10)), "arp");
}

#[test]
fn addresses_that_differ_anywhere_are_told_apart() {
    let ours: u128 = "2001:db8:1:2:3:4:5:6".parse::<Ipv6Addr>().unwrap().into();
    let program = ndp(&[ours].into(), MAX_INSTRUCTIONS);
    assert!(accepts(&program, &solicitation(OTHER6, ours)) && accepts(&program, &solicitation(ours, OTHER6)));
    for bit in 0..120 {
        assert!(!accepts(&program, &solicitation(OTHER6, ours ^ (1 << bit))), "bit {bit}");
        assert!(!accepts(&program, &solicitation(ours ^ (1 << bit), OTHER6)), "bit {bit}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn the_program_for_ipv6_accepts_exactly_the_set(
        seeds in prop::collection::btree_set((0u128..16, 0u128..2_048), 1..300), spacing in 1u128..5,
    ) {
        let address = |(prefix, last): (u128, u128)| 0x2001 << 112 | prefix << 40 | (last * spacing);
        let set: BTreeSet<u128> = seeds.iter().copied().map(address).collect();
        let program = ndp(&set, MAX_INSTRUCTIONS);
        prop_assert!(program.exact);
        for at in set.iter().flat_map(|a| [*a - 1, *a, *a + 1, *a ^ 1 << 41, *a ^ 1 << 100]) {
            prop_assert_eq!(accepts(&program, &solicitation(OTHER6, at)), set.contains(&at));
            prop_assert_eq!(accepts(&program, &solicitation(at, OTHER6)), set.contains(&at));
        }
    }

    #[test]
    fn any_ipv6_addresses_give_a_valid_program_that_accepts_them_all(
        seeds in prop::collection::btree_set((0u128..40, any::<u32>()), 1..6_000), small: bool,
    ) {
        let limit = if small { SMALL_INSTRUCTIONS } else { MAX_INSTRUCTIONS };
        let set: BTreeSet<u128> = seeds.iter().map(|(prefix, last)| 0x2001 << 112 | prefix << 40 | u128::from(*last)).collect();
        let program = ndp(&set, limit);
        for at in &set {
            prop_assert!(accepts(&program, &solicitation(OTHER6, *at)));
            prop_assert!(accepts(&program, &solicitation(*at, OTHER6)));
        }
    }
}
