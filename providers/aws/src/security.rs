//! The rules of a load balancer's own security group.

use std::collections::{BTreeMap, BTreeSet};

use crate::cloud::{IpProtocol, Protocol, Rule, Source};
use crate::intent::Asks;
use crate::refusal::Refusal;

/// Inbound rules that a security group may have, of each family (AWS's quota where nobody raised it).
const RULES_MAX: usize = 60;
/// "Fragmentation needed" (RFC 792), by which the path MTU is found.
const ICMP_FRAGMENTATION_NEEDED: (u16, u16) = (3, 4);
/// "Packet too big" (RFC 4443 section 3.2).
const ICMPV6_PACKET_TOO_BIG: (u16, u16) = (2, 0);

/// The rules that let in what these Services ask for, and no more. Ports that follow each other and have the same sources are one
/// rule.
///
/// # Errors
/// When there would be more than a security group may have.
pub fn rules(members: &[&Asks]) -> Result<BTreeSet<Rule>, Refusal> {
    let mut ports: BTreeMap<(IpProtocol, Source), BTreeSet<u16>> = BTreeMap::new();
    let mut rules = BTreeSet::new();
    for asks in members {
        let sources = asks.sources.v4.iter().cloned().map(Source::V4);
        let sources = sources.chain(asks.sources.v6.iter().cloned().map(Source::V6));
        let sources = sources.chain(asks.sources.prefix_lists.iter().cloned().map(Source::PrefixList));
        for source in sources {
            for (port, port_asks) in &asks.ports {
                for protocol in protocols(port_asks.protocol) {
                    ports.entry((*protocol, source.clone())).or_default().insert(*port);
                }
            }
            let (ip_protocol, (from_port, to_port)) = match &source {
                Source::V4(_) => (IpProtocol::Icmp, ICMP_FRAGMENTATION_NEEDED),
                Source::V6(_) => (IpProtocol::Icmpv6, ICMPV6_PACKET_TOO_BIG),
                // ALBC has none for these: their families are not known here.
                Source::PrefixList(_) | Source::Group(_) => continue,
            };
            if asks.sources.path_mtu {
                rules.insert(Rule { ip_protocol, from_port, to_port, source, description: None });
            }
        }
    }
    for ((ip_protocol, source), ports) in ports {
        rules.extend(ranges(&ports).into_iter().map(|(from_port, to_port)| Rule {
            ip_protocol,
            from_port,
            to_port,
            source: source.clone(),
            description: None,
        }));
    }
    let count = |is: fn(&Source) -> bool| rules.iter().filter(|rule| is(&rule.source)).count();
    let most = count(|source| !matches!(source, Source::V6(_))).max(count(|source| !matches!(source, Source::V4(_))));
    if most > RULES_MAX {
        let why = format!(
            "the security group would have {most} rules of {RULES_MAX}; give fewer source ranges, a prefix list, or ports that \
             follow each other"
        );
        return Err(Refusal::Limit(why));
    }
    Ok(rules)
}

/// What is let in for a listener or target group.
pub(crate) fn protocols(listener: Protocol) -> &'static [IpProtocol] {
    match listener {
        Protocol::Tcp | Protocol::Tls => &[IpProtocol::Tcp],
        Protocol::Udp => &[IpProtocol::Udp],
        Protocol::TcpUdp => &[IpProtocol::Tcp, IpProtocol::Udp],
    }
}

/// Ports that follow each other, together.
fn ranges(ports: &BTreeSet<u16>) -> Vec<(u16, u16)> {
    let mut ranges: Vec<(u16, u16)> = Vec::new();
    for port in ports {
        match ranges.last_mut() {
            Some((_, to)) if *port - *to == 1 => *to = *port,
            _ => ranges.push((*port, *port)),
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_that_follow_each_other_are_one_range_and_no_other_port_is_in_it() {
        for (ports, expected) in [
            (&[][..], &[][..]),
            (&[80], &[(80, 80)]),
            (&[80, 81, 82, 84], &[(80, 82), (84, 84)]),
            (&[1, 65534, 65535], &[(1, 1), (65534, 65535)]),
        ] {
            assert_eq!(ranges(&ports.iter().copied().collect()), expected, "{ports:?}");
        }
    }
}
