//! The filter that shows whether a node puts what is for an address on the wire, instead of forwarding it itself.

use std::net::IpAddr;

use berth_api::MacAddr;

use super::{
    AT_ETHERTYPE, AT_NEXT_HEADER, AT_SENDER_IP, AT_SOURCE6, AT_TARGET_IP, AT_TARGET6, AT_TYPE, Instruction, JEQ,
    LD_BYTE, LD_HALF, LD_WORD, SNAP_LENGTH, demand, ret,
};
use crate::arp::ETHERTYPE_ARP;
use crate::ndp::{ETHERTYPE_IPV6, TYPE_SOLICITATION};

/// EtherType of IPv4 (RFC 894).
const ETHERTYPE_IPV4: u16 = 0x0800;
/// Next header of ICMPv6 (RFC 4443 section 1).
const NEXT_HEADER_ICMPV6: u8 = 58;
/// Offset of the sender's Ethernet address, and of its last two octets.
const AT_SOURCE_MAC: u32 = 6;
const AT_SOURCE_MAC_END: u32 = 10;
/// Offset of the destination of an IPv4 packet.
const AT_DESTINATION: u32 = 30;
/// Offset of the destination of an IPv6 packet.
const AT_DESTINATION6: u32 = 38;

/// Accepts what the station `mac` sends to `address`, and its questions for it; not the questions of one that claims no address, such as
/// those by which a speaker asks before first use. For a packet socket of all protocols.
pub fn sent_to(address: IpAddr, mac: MacAddr) -> Vec<Instruction> {
    let mut out = Vec::new();
    let octets = mac.0;
    demand(&mut out, LD_WORD, AT_SOURCE_MAC, u32::from_be_bytes([octets[0], octets[1], octets[2], octets[3]]));
    demand(&mut out, LD_HALF, AT_SOURCE_MAC_END, u32::from(u16::from_be_bytes([octets[4], octets[5]])));
    match address {
        IpAddr::V4(address) => {
            let address = address.to_bits();
            out.extend([
                load(LD_HALF, AT_ETHERTYPE),
                is(u32::from(ETHERTYPE_IPV4), 0, 3),
                load(LD_WORD, AT_DESTINATION),
                is(address, 5, 0),
                ret(0),
                // The accumulator still has the EtherType where it was not IPv4.
                is(u32::from(ETHERTYPE_ARP), 0, 5),
                load(LD_WORD, AT_SENDER_IP),
                is(0, 3, 0),
                load(LD_WORD, AT_TARGET_IP),
                is(address, 0, 1),
                ret(SNAP_LENGTH),
                ret(0),
            ]);
        }
        IpAddr::V6(address) => {
            let bits = address.to_bits();
            let words: [u32; 4] = [(bits >> 96) as u32, (bits >> 64) as u32, (bits >> 32) as u32, bits as u32];
            demand(&mut out, LD_HALF, AT_ETHERTYPE, u32::from(ETHERTYPE_IPV6));
            // Four words, of which any that differs leads on to the next question.
            for (word, left) in words.iter().zip([7_u8, 5, 3, 1]) {
                let at = AT_DESTINATION6 + 4 * (7 - u32::from(left)) / 2;
                out.extend([load(LD_WORD, at), is(*word, 0, left)]);
            }
            out.push(ret(SNAP_LENGTH));
            demand(&mut out, LD_BYTE, AT_NEXT_HEADER, u32::from(NEXT_HEADER_ICMPV6));
            demand(&mut out, LD_HALF, AT_TYPE, u32::from(TYPE_SOLICITATION));
            for (word, offset) in words.iter().zip([0, 4, 8, 12]) {
                demand(&mut out, LD_WORD, AT_TARGET6 + offset, *word);
            }
            // From `::` asks whoever claims no address; any word that is not zero accepts.
            for (offset, left) in [(0, 7), (4, 5), (8, 3), (12, 1)] {
                out.extend([load(LD_WORD, AT_SOURCE6 + offset), is(0, 0, left)]);
            }
            out.extend([ret(0), ret(SNAP_LENGTH)]);
        }
    }
    out
}

fn load(code: u16, at: u32) -> Instruction {
    Instruction { code, jt: 0, jf: 0, k: at }
}

/// Skips so many instructions where the accumulator is equal, and so many where it is not.
fn is(value: u32, equal: u8, other: u8) -> Instruction {
    Instruction { code: JEQ, jt: equal, jf: other, k: value }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{check, run};
    use super::*;
    use crate::{arp, ndp};

    const OWN: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
    const OTHER: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);

    fn packet4(from: MacAddr, to: [u8; 4]) -> Vec<u8> {
        let mut bytes = vec![0; 54];
        bytes[6..12].copy_from_slice(&from.0);
        bytes[12..14].copy_from_slice(&ETHERTYPE_IPV4.to_be_bytes());
        bytes[30..34].copy_from_slice(&to);
        bytes
    }

    fn packet6(from: MacAddr, to: &str) -> Vec<u8> {
        let mut bytes = vec![0; 74];
        bytes[6..12].copy_from_slice(&from.0);
        bytes[12..14].copy_from_slice(&ETHERTYPE_IPV6.to_be_bytes());
        bytes[20] = 6;
        bytes[38..54].copy_from_slice(&to.parse::<std::net::Ipv6Addr>().unwrap().octets());
        bytes
    }

    #[test]
    fn of_ipv4_the_own_packets_to_the_address_and_the_own_questions_for_it_show() {
        let program = sent_to("192.0.2.9".parse().unwrap(), OWN);
        check(&program, 64);
        let vip = [192, 0, 2, 9].into();
        let question = |from: MacAddr, own: [u8; 4], target: [u8; 4]| {
            arp::Frame::check(from, own.into(), target.into(), MacAddr([0xff; 6])).emit().to_vec()
        };
        let mut reply = question(OWN, [192, 0, 2, 1], [192, 0, 2, 9]);
        reply[12..14].copy_from_slice(&[0x88, 0xcc]);
        for (what, bytes, shows) in [
            ("a packet to it", packet4(OWN, [192, 0, 2, 9]), true),
            ("a packet to another", packet4(OWN, [192, 0, 2, 8]), false),
            ("somebody else's packet to it", packet4(OTHER, [192, 0, 2, 9]), false),
            ("a question for it", question(OWN, [192, 0, 2, 1], [192, 0, 2, 9]), true),
            ("a question for another", question(OWN, [192, 0, 2, 1], [192, 0, 2, 8]), false),
            ("somebody else's question", question(OTHER, [192, 0, 2, 2], [192, 0, 2, 9]), false),
            ("a probe of the speaker", arp::Frame::probe(OWN, vip).emit().to_vec(), false),
            ("another protocol", reply, false),
            ("a packet that is cut short", packet4(OWN, [192, 0, 2, 9])[..32].to_vec(), false),
        ] {
            assert_eq!(run(&program, &bytes) > 0, shows, "{what}");
        }
    }

    #[test]
    fn of_ipv6_the_own_packets_to_the_address_and_the_own_questions_for_it_show() {
        let vip: std::net::Ipv6Addr = "2001:db8::9".parse().unwrap();
        let program = sent_to(vip.into(), OWN);
        check(&program, 64);
        let own = "2001:db8::1".parse().unwrap();
        let near = |word: usize| {
            let mut segments = vip.segments();
            segments[word] ^= 1;
            std::net::Ipv6Addr::from(segments)
        };
        let solicit = |from: MacAddr, target| ndp::Frame::solicit(from, own, target).emit();
        let mut table = vec![
            ("a packet to it", packet6(OWN, "2001:db8::9"), true),
            ("somebody else's packet to it", packet6(OTHER, "2001:db8::9"), false),
            ("a question for it", solicit(OWN, vip), true),
            ("somebody else's question", solicit(OTHER, vip), false),
            ("a probe of the speaker", ndp::Frame::probe(OWN, vip).emit(), false),
            ("an advertisement of it", ndp::Frame::unsolicited(OWN, vip).emit(), false),
        ];
        for word in 0..8 {
            table.push(("a packet to another", packet6(OWN, &near(word).to_string()), false));
            table.push(("a question for another", solicit(OWN, near(word)), false));
            let mut source = [0_u16; 8];
            source[word] = 0x1000;
            let question = ndp::Frame::solicit(OWN, source.into(), vip).emit();
            table.push(("a question, whatever the own address is", question, true));
        }
        for (what, bytes, shows) in table {
            assert_eq!(run(&program, &bytes) > 0, shows, "{what}");
        }
    }
}
