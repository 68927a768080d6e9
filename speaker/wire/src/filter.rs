//! The kernel's filters: on the packet socket only ARP about addresses of ours reaches the process, and on that of heartbeats only what
//! comes from the same link.
//!
//! Classic BPF programs. For ARP and neighbor discovery, offsets count from the Ethernet header, so they belong on a `SOCK_RAW` packet
//! socket. They accept well-formed packets whose target *or* sender address is one of a set, and drop all else, which
//! is what keeps a busy link's broadcasts from waking every node's speaker.
//!
//! The set becomes ranges, and these a balanced tree of comparisons: log2(n) steps for each packet. Jumps lead
//! forward only and a program has a length limit, so the tree stands there twice, for target and sender. Where
//! the ranges are too many, those with the smallest gaps between them are joined: the program then accepts more than
//! the set, never less, and the machine ignores the rest. IPv6 addresses are told apart by their first 96 bits, of which a node
//! has few, and the tree looks at the last 32.

mod sent;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use crate::arp::{ETHERTYPE_ARP, HLEN_PLEN, HTYPE_PTYPE};
use crate::ndp::{ETHERTYPE_IPV6, NEXT_HEADER_HOP_LIMIT, TYPE_ADVERTISEMENT, TYPE_SOLICITATION};

pub use sent::sent_to;

/// One instruction, laid out as the kernel's `struct sock_filter`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    /// What to do.
    pub code: u16,
    /// Instructions to skip when a comparison holds.
    pub jt: u8,
    /// Instructions to skip when it does not.
    pub jf: u8,
    /// Its operand.
    pub k: u32,
}

/// A program, and what it accepts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// To be attached with `SO_ATTACH_FILTER`.
    pub instructions: Vec<Instruction>,
    /// Whether it accepts exactly the set, or more because ranges were joined.
    pub exact: bool,
}

/// Most instructions of a program that the kernel takes (`BPF_MAXINSNS`).
pub const MAX_INSTRUCTIONS: usize = 4_096;
/// Length that fits in 20 KiB of option memory, the default `net.core.optmem_max` of kernels before 6.7, even where each
/// instruction becomes two of the kernel's own. What to fall back to when the kernel refuses a longer one with ENOMEM.
pub const SMALL_INSTRUCTIONS: usize = 1_024;
/// Bytes of an accepted packet that the process gets: the longest frame of Ethernet without jumbo frames. Neighbor discovery may
/// carry options that mean nothing here, and the checksum covers them.
pub const SNAP_LENGTH: u32 = 1_514;
/// Prefixes of 96 bits that are told apart. With more, the last 32 bits alone decide.
const PREFIXES_MAX: usize = 16;
/// Instructions that compare a prefix, and those that go with it, for target and sender.
const PREFIX_COST: usize = 24;

/// Ranges of a subtree whose jumps all stay within the 255 that a comparison can skip: n ranges need at most 2n.
const BLOCK_RANGES: usize = 100;

// Offsets from the Ethernet header, of ARP and of neighbor discovery right behind an IPv6 header.
const AT_ETHERTYPE: u32 = 12;
const AT_TYPES: u32 = 14;
const AT_LENGTHS: u32 = 18;
const AT_SENDER_IP: u32 = 28;
const AT_TARGET_IP: u32 = 38;
const AT_NEXT_HEADER: u32 = 20;
const AT_SOURCE6: u32 = 22;
const AT_TYPE: u32 = 54;
const AT_TARGET6: u32 = 62;

/// Where a classic program finds the network header, whatever the socket's own data begins with (`SKF_NET_OFF`, linux/filter.h).
const NETWORK_HEADER: u32 = 0xfff0_0000;
/// Offset of the TTL in it (RFC 791 section 3.1).
const AT_TTL: u32 = 8;
/// Offset of the hop limit in it (RFC 8200 section 3).
const AT_HOP_LIMIT: u32 = 7;

// Operation codes of classic BPF (linux/bpf_common.h).
const LD_HALF: u16 = 0x28;
const LD_WORD: u16 = 0x20;
const LD_BYTE: u16 = 0x30;
const JA: u16 = 0x05;
const JEQ: u16 = 0x15;
const JGT: u16 = 0x25;
const JGE: u16 = 0x35;
const RET: u16 = 0x06;

/// The program for ARP about a set of addresses, at most `limit` instructions long (a limit below 64 counts as 64). An empty set
/// rejects everything.
pub fn arp_program(addresses: impl IntoIterator<Item = Ipv4Addr>, limit: usize) -> Program {
    let all = ranges(addresses.into_iter().map(u32::from));
    if all.is_empty() {
        return nothing();
    }
    // Each range costs about two instructions in each tree, and blocks and the way to them a little more.
    let most = (limit.clamp(64, MAX_INSTRUCTIONS) - 24) * 10 / 42;
    let joined = join(&all, most.max(1));
    Program { exact: joined.len() == all.len(), instructions: assemble(&joined) }
}

/// The same for neighbor solicitations and advertisements. A limit below 128 counts as 128.
pub fn ndp_program(addresses: impl IntoIterator<Item = Ipv6Addr>, limit: usize) -> Program {
    let mut by_prefix: BTreeMap<Prefix, Vec<u32>> = BTreeMap::new();
    for address in addresses {
        let bits = address.to_bits();
        by_prefix.entry(words(bits)).or_default().push(bits as u32);
    }
    if by_prefix.is_empty() {
        return nothing();
    }
    let limit = limit.clamp(128, MAX_INSTRUCTIONS);
    let told_apart = by_prefix.len() <= PREFIXES_MAX && 2 * PREFIX_COST * by_prefix.len() <= limit;
    let groups: Vec<Group> = if told_apart {
        by_prefix.into_iter().map(|(prefix, last)| (Some(prefix), ranges(last))).collect()
    } else {
        vec![(None, ranges(by_prefix.into_values().flatten()))]
    };
    let all: usize = groups.iter().map(|(_, ranges)| ranges.len()).sum();
    let most = (limit - 32 - PREFIX_COST * groups.len()) * 10 / 42;
    let share = |count: usize| if all <= most { count } else { (count * most / all).max(1) };
    let joined: Vec<Group> =
        groups.into_iter().map(|(prefix, ranges)| (prefix, join(&ranges, share(ranges.len())))).collect();
    let kept: usize = joined.iter().map(|(_, ranges)| ranges.len()).sum();
    Program { exact: told_apart && kept == all, instructions: assemble6(&joined) }
}

/// The program that rejects everything.
pub fn nothing() -> Program {
    Program { instructions: vec![ret(0)], exact: true }
}

/// The program for an IPv4 socket that lets in only packets whose TTL is at least this. The kernel heeds `IP_MINTTL` for TCP alone.
pub fn ttl_at_least(lowest: u8) -> [Instruction; 4] {
    byte_at_least(AT_TTL, lowest)
}

/// The same for an IPv6 socket and the hop limit.
pub fn hop_limit_at_least(lowest: u8) -> [Instruction; 4] {
    byte_at_least(AT_HOP_LIMIT, lowest)
}

fn byte_at_least(at: u32, lowest: u8) -> [Instruction; 4] {
    [
        Instruction { code: LD_BYTE, jt: 0, jf: 0, k: NETWORK_HEADER + at },
        Instruction { code: JGE, jt: 0, jf: 1, k: u32::from(lowest) },
        ret(u32::MAX),
        ret(0),
    ]
}

/// First and last address of a run.
type Range = (u32, u32);
/// The first 96 bits of an IPv6 address.
type Prefix = [u32; 3];
/// The ranges behind a prefix, or behind whatever one.
type Group = (Option<Prefix>, Vec<Range>);

fn words(bits: u128) -> Prefix {
    [(bits >> 96) as u32, (bits >> 64) as u32, (bits >> 32) as u32]
}

fn ranges(addresses: impl IntoIterator<Item = u32>) -> Vec<Range> {
    let mut sorted: Vec<u32> = addresses.into_iter().collect();
    sorted.sort_unstable();
    let mut ranges: Vec<Range> = Vec::new();
    for address in sorted {
        match ranges.last_mut() {
            // Equal to the last address, or right behind it.
            Some((_, last)) if address - *last <= 1 => *last = address,
            _ => ranges.push((address, address)),
        }
    }
    ranges
}

/// At most `most` ranges, by closing the smallest gaps.
fn join(ranges: &[Range], most: usize) -> Vec<Range> {
    if ranges.len() <= most {
        return ranges.to_vec();
    }
    let mut gaps: Vec<(u32, usize)> =
        ranges.windows(2).enumerate().map(|(i, pair)| (pair[1].0 - pair[0].1, i)).collect();
    let kept = most - 1;
    let split = gaps.len() - kept;
    gaps.sort_unstable();
    let mut borders: Vec<usize> = gaps[split..].iter().map(|&(_, i)| i).collect();
    borders.sort_unstable();
    let mut joined = Vec::with_capacity(most);
    let mut first = ranges[0].0;
    for border in borders {
        joined.push((first, ranges[border].1));
        first = ranges[border + 1].0;
    }
    joined.push((first, ranges[ranges.len() - 1].1));
    joined
}

fn assemble(ranges: &[Range]) -> Vec<Instruction> {
    let mut out = Vec::new();
    for (load, at, value) in [
        (LD_HALF, AT_ETHERTYPE, u32::from(ETHERTYPE_ARP)),
        (LD_WORD, AT_TYPES, HTYPE_PTYPE),
        (LD_HALF, AT_LENGTHS, u32::from(HLEN_PLEN)),
    ] {
        demand(&mut out, load, at, value);
    }
    out.push(Instruction { code: LD_WORD, jt: 0, jf: 0, k: AT_TARGET_IP });
    let mut misses = Vec::new();
    tree(&mut out, ranges, false, &mut misses);
    let sender = out.len();
    for miss in misses {
        out[miss] = Instruction { code: JA, jt: 0, jf: 0, k: distance(miss, sender) };
    }
    out.push(Instruction { code: LD_WORD, jt: 0, jf: 0, k: AT_SENDER_IP });
    // The rejections of the second tree stay what they are.
    tree(&mut out, ranges, false, &mut Vec::new());
    out
}

fn assemble6(groups: &[Group]) -> Vec<Instruction> {
    let mut out = Vec::new();
    demand(&mut out, LD_HALF, AT_ETHERTYPE, u32::from(ETHERTYPE_IPV6));
    demand(&mut out, LD_HALF, AT_NEXT_HEADER, u32::from(NEXT_HEADER_HOP_LIMIT));
    out.push(Instruction { code: LD_HALF, jt: 0, jf: 0, k: AT_TYPE });
    out.push(Instruction { code: JEQ, jt: 2, jf: 0, k: u32::from(TYPE_SOLICITATION) });
    out.push(Instruction { code: JEQ, jt: 1, jf: 0, k: u32::from(TYPE_ADVERTISEMENT) });
    out.push(ret(0));
    let mut misses = Vec::new();
    search6(&mut out, groups, AT_TARGET6, &mut misses);
    let source = out.len();
    for miss in misses {
        out[miss] = Instruction { code: JA, jt: 0, jf: 0, k: distance(miss, source) };
    }
    search6(&mut out, groups, AT_SOURCE6, &mut Vec::new());
    out.push(ret(0));
    out
}

/// Appends a search for the address at this offset. Where no prefix fits, the program goes on behind it.
fn search6(out: &mut Vec<Instruction>, groups: &[Group], at: u32, misses: &mut Vec<usize>) {
    for (prefix, ranges) in groups {
        let mut others = Vec::new();
        for (word, offset) in prefix.iter().flatten().zip([0, 4, 8]) {
            out.push(Instruction { code: LD_WORD, jt: 0, jf: 0, k: at + offset });
            out.push(Instruction { code: JEQ, jt: 1, jf: 0, k: *word });
            others.push(out.len());
            out.push(ret(0));
        }
        out.push(Instruction { code: LD_WORD, jt: 0, jf: 0, k: at + 12 });
        tree(out, ranges, false, misses);
        for other in others {
            out[other] = Instruction { code: JA, jt: 0, jf: 0, k: distance(other, out.len()) };
        }
    }
}

/// Appends a check that skips its own rejection. A load behind the end of a short packet rejects it, too.
fn demand(out: &mut Vec<Instruction>, load: u16, at: u32, value: u32) {
    out.push(Instruction { code: load, jt: 0, jf: 0, k: at });
    out.push(Instruction { code: JEQ, jt: 1, jf: 0, k: value });
    out.push(ret(0));
}

/// Appends a search for the loaded address. Each block ends with its own acceptance and rejection; where the latter
/// stand is noted in `misses`. `above` says that the address is known not to lie below the first range.
fn tree(out: &mut Vec<Instruction>, ranges: &[Range], above: bool, misses: &mut Vec<usize>) {
    if ranges.len() <= BLOCK_RANGES {
        let mut to_accept = Vec::new();
        let mut to_miss = Vec::new();
        block(out, ranges, above, &mut to_accept, &mut to_miss);
        let accept = out.len();
        for (at, when) in to_accept {
            set_jump(&mut out[at], when, distance(at, accept));
        }
        for (at, when) in to_miss {
            set_jump(&mut out[at], when, distance(at, accept + 1));
        }
        out.push(ret(SNAP_LENGTH));
        misses.push(out.len());
        out.push(ret(0));
        return;
    }
    let (left, right) = ranges.split_at(ranges.len() / 2);
    let fork = out.len();
    out.push(Instruction { code: JGE, jt: 0, jf: 1, k: right[0].0 });
    out.push(ret(0));
    tree(out, left, above, misses);
    out[fork + 1] = Instruction { code: JA, jt: 0, jf: 0, k: distance(fork + 1, out.len()) };
    tree(out, right, true, misses);
}

/// Appends a search whose jumps are all short, and notes those that wait for their target.
fn block(
    out: &mut Vec<Instruction>,
    ranges: &[Range],
    above: bool,
    to_accept: &mut Vec<(usize, bool)>,
    to_miss: &mut Vec<(usize, bool)>,
) {
    match ranges {
        [] => {}
        &[(first, last)] => {
            if first == last {
                to_accept.push((out.len(), true));
                to_miss.push((out.len(), false));
                out.push(Instruction { code: JEQ, jt: 0, jf: 0, k: first });
                return;
            }
            if !above {
                to_miss.push((out.len(), false));
                out.push(Instruction { code: JGE, jt: 0, jf: 0, k: first });
            }
            to_miss.push((out.len(), true));
            to_accept.push((out.len(), false));
            out.push(Instruction { code: JGT, jt: 0, jf: 0, k: last });
        }
        _ => {
            let (left, right) = ranges.split_at(ranges.len() / 2);
            let fork = out.len();
            out.push(Instruction { code: JGE, jt: 0, jf: 0, k: right[0].0 });
            block(out, left, above, to_accept, to_miss);
            let skip = distance(fork, out.len());
            set_jump(&mut out[fork], true, skip);
            block(out, right, true, to_accept, to_miss);
        }
    }
}

fn set_jump(instruction: &mut Instruction, when: bool, skip: u32) {
    // A block is short enough for its jumps; the tests walk every length.
    let skip = skip as u8;
    if when {
        instruction.jt = skip;
    } else {
        instruction.jf = skip;
    }
}

/// Instructions to skip from one place to a later one.
fn distance(from: usize, to: usize) -> u32 {
    (to - from - 1) as u32
}

fn ret(value: u32) -> Instruction {
    Instruction { code: RET, jt: 0, jf: 0, k: value }
}

#[cfg(test)]
mod tests;
