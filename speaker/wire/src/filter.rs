//! The kernel's filters: on the packet socket only ARP about addresses of ours reaches the process, and on that of heartbeats only what
//! comes from the same link.
//!
//! Classic BPF programs. For ARP, offsets count from the Ethernet header, so it belongs on a `SOCK_RAW` packet socket. It
//! accepts well-formed ARP for IPv4 whose target *or* sender address is one of a set, and drops all else, which
//! is what keeps a busy link's broadcasts from waking every node's speaker.
//!
//! The set becomes ranges, and these a balanced tree of comparisons: log2(n) steps for each packet. Jumps lead
//! forward only and a program has a length limit, so the tree stands there twice, for target and sender. Where
//! the ranges are too many, those with the smallest gaps between them are joined: the program then accepts more than
//! the set, never less, and the machine ignores the rest.

use std::net::Ipv4Addr;

use crate::arp::{ETHERTYPE_ARP, HLEN_PLEN, HTYPE_PTYPE};

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
/// Bytes of an accepted packet that the process gets: an ARP frame with its padding, and no more.
pub const SNAP_LENGTH: u32 = 128;

/// Ranges of a subtree whose jumps all stay within the 255 that a comparison can skip: n ranges need at most 2n.
const BLOCK_RANGES: usize = 100;

// Offsets from the Ethernet header.
const AT_ETHERTYPE: u32 = 12;
const AT_TYPES: u32 = 14;
const AT_LENGTHS: u32 = 18;
const AT_SENDER_IP: u32 = 28;
const AT_TARGET_IP: u32 = 38;

/// Where a classic program finds the network header, whatever the socket's own data begins with (`SKF_NET_OFF`, linux/filter.h).
const NETWORK_HEADER: u32 = 0xfff0_0000;
/// Offset of the TTL in it (RFC 791 section 3.1).
const AT_TTL: u32 = 8;

// Operation codes of classic BPF (linux/bpf_common.h).
const LD_HALF: u16 = 0x28;
const LD_WORD: u16 = 0x20;
const LD_BYTE: u16 = 0x30;
const JA: u16 = 0x05;
const JEQ: u16 = 0x15;
const JGT: u16 = 0x25;
const JGE: u16 = 0x35;
const RET: u16 = 0x06;

/// The program for a set of addresses, at most [`MAX_INSTRUCTIONS`] long. An empty set rejects everything.
pub fn program(addresses: impl IntoIterator<Item = Ipv4Addr>) -> Program {
    program_within(addresses, MAX_INSTRUCTIONS)
}

/// The program for a set of addresses, at most `limit` instructions long (a limit below 64 counts as 64).
pub fn program_within(addresses: impl IntoIterator<Item = Ipv4Addr>, limit: usize) -> Program {
    let all = ranges(addresses);
    if all.is_empty() {
        return Program { instructions: vec![ret(0)], exact: true };
    }
    // Each range costs about two instructions in each tree, and blocks and the way to them a little more.
    let most = (limit.clamp(64, MAX_INSTRUCTIONS) - 24) * 10 / 42;
    let joined = join(&all, most.max(1));
    Program { exact: joined.len() == all.len(), instructions: assemble(&joined) }
}

/// The program for an IPv4 socket that lets in only packets whose TTL is at least this. The kernel heeds `IP_MINTTL` for TCP alone.
pub fn ttl_at_least(lowest: u8) -> [Instruction; 4] {
    [
        Instruction { code: LD_BYTE, jt: 0, jf: 0, k: NETWORK_HEADER + AT_TTL },
        Instruction { code: JGE, jt: 0, jf: 1, k: u32::from(lowest) },
        ret(u32::MAX),
        ret(0),
    ]
}

/// First and last address of a run.
type Range = (u32, u32);

fn ranges(addresses: impl IntoIterator<Item = Ipv4Addr>) -> Vec<Range> {
    let mut sorted: Vec<u32> = addresses.into_iter().map(u32::from).collect();
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
    // Each check skips its own rejection. A load behind the end of a short packet rejects it, too.
    for (load, at, value) in [
        (LD_HALF, AT_ETHERTYPE, u32::from(ETHERTYPE_ARP)),
        (LD_WORD, AT_TYPES, HTYPE_PTYPE),
        (LD_HALF, AT_LENGTHS, u32::from(HLEN_PLEN)),
    ] {
        out.push(Instruction { code: load, jt: 0, jf: 0, k: at });
        out.push(Instruction { code: JEQ, jt: 1, jf: 0, k: value });
        out.push(ret(0));
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
