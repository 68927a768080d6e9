//! A listener on the wire: who says to have an address, seen by a client and by the router, which asks all the time.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use berth_api::MacAddr;
use berth_lab::{ArpSeen, ArpWatch, Asker, Heard, Lab, NdpSeen, NdpWatch, Watch};
use berth_wire::ndp::Message;

use super::DOUBLE_LIMIT;
use super::board::Reign;
use super::ground::SOON;
use crate::client::Family;

/// How often the router asks for each address. Neighbours ask twice a minute at most, so that one which answers and does not announce
/// would hardly be seen; this shows it ten times within the limit, and costs a node twenty small frames a second.
pub(crate) const ASK_EVERY: Duration = Duration::from_millis(50);
/// How often it does when there are many addresses, and only whether they are answered is to be seen: many questions at once are more than a
/// socket takes.
const ASK_ALL_EVERY: Duration = Duration::from_millis(500);
/// The router's interface on the nodes' link.
const ROUTER_PORT: &str = "lan";
/// What the clock of a speaker, in whole microseconds, and the moment at which its frame is read may differ by in the wrong direction.
const CLOCKS: Duration = Duration::from_millis(5);

/// A frame by which a station says that it has an address: an answer or an announcement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) at: Instant,
    pub(crate) address: IpAddr,
    pub(crate) mac: MacAddr,
}

/// Listens until it is dropped.
pub(crate) struct Wire {
    addresses: BTreeSet<IpAddr>,
    client_arp: ArpWatch,
    client_ndp: NdpWatch,
    router_arp: ArpWatch,
    router_ndp: NdpWatch,
    router: MacAddr,
    _asker: Option<Asker>,
}

impl Wire {
    /// Listens, and asks for all addresses each `every`.
    pub(crate) fn listen(lab: &Lab, addresses: &[IpAddr], every: Duration) -> Result<Self> {
        let asker = lab.router().ask(ROUTER_PORT, addresses, every)?;
        Ok(Self { _asker: Some(asker), ..Self::listen_only(lab, addresses)? })
    }

    /// Listens, and asks nothing.
    pub(crate) fn listen_only(lab: &Lab, addresses: &[IpAddr]) -> Result<Self> {
        let (client, router) = (lab.client(), lab.router());
        Ok(Self {
            addresses: addresses.iter().copied().collect(),
            client_arp: client.netns.watch_arp("eth0")?,
            client_ndp: client.netns.watch_ndp("eth0")?,
            router_arp: router.netns.watch_arp(ROUTER_PORT)?,
            router_ndp: router.netns.watch_ndp(ROUTER_PORT)?,
            router: router.mac(),
            _asker: None,
        })
    }

    /// All claims so far. What went to everybody is counted where the client saw it, and only there.
    pub(crate) fn claims(&self) -> Vec<Claim> {
        let mut all: Vec<Claim> = self.client_arp.seen().iter().filter_map(claim4).collect();
        all.extend(self.client_ndp.seen().iter().filter_map(claim6));
        all.extend(self.router_arp.seen().iter().filter(|seen| seen.frame.dst == self.router).filter_map(claim4));
        all.extend(self.router_ndp.seen().iter().filter(|seen| seen.frame.dst == self.router).filter_map(claim6));
        all.retain(|claim| self.addresses.contains(&claim.address));
        all
    }

    /// Waits until each address was announced to everybody by another station than `from`, and says when the last was.
    pub(crate) async fn taken_over(&self, from: MacAddr) -> Result<Instant> {
        let other = |claim: &Claim| claim.mac != from;
        let (v4, v6) = tokio::try_join!(
            all_claimed(&self.client_arp, self.of(Family::Ipv4), |seen| claim4(seen).filter(other)),
            all_claimed(&self.client_ndp, self.of(Family::Ipv6), |seen| claim6(seen).filter(other)),
        )?;
        v4.max(v6).context("there is no address")
    }

    /// Asks for each address until it was answered.
    pub(crate) async fn each_answers(&self, lab: &Lab) -> Result<()> {
        let addresses: Vec<_> = self.addresses.iter().copied().collect();
        let _asker = lab.router().ask(ROUTER_PORT, &addresses, ASK_ALL_EVERY)?;
        let asked = |claim: &Claim| claim.mac != self.router;
        tokio::try_join!(
            all_claimed(&self.router_arp, self.of(Family::Ipv4), |seen| {
                claim4(seen).filter(|claim| asked(claim) && seen.frame.dst == self.router)
            }),
            all_claimed(&self.router_ndp, self.of(Family::Ipv6), |seen| {
                claim6(seen).filter(|claim| asked(claim) && seen.frame.dst == self.router)
            }),
        )?;
        Ok(())
    }

    /// The addresses that frames were about which these stations sent to everybody, whatever they said: questions and probes too.
    pub(crate) fn spoken_of(&self, by: &BTreeSet<MacAddr>) -> Vec<IpAddr> {
        let arp = self.client_arp.seen().into_iter().map(|seen| seen.frame).filter(|frame| by.contains(&frame.src));
        let ndp = self.client_ndp.seen().into_iter().map(|seen| seen.frame).filter(|frame| by.contains(&frame.src));
        let of_arp = arp.map(|frame| {
            let about = [frame.arp.sender_ip, frame.arp.target_ip].map(IpAddr::from);
            about.into_iter().find(|address| self.addresses.contains(address))
        });
        let of_ndp =
            ndp.map(|frame| Some(IpAddr::from(frame.target)).filter(|address| self.addresses.contains(address)));
        of_arp.chain(of_ndp).flatten().collect()
    }

    fn of(&self, family: Family) -> BTreeSet<IpAddr> {
        self.addresses.iter().copied().filter(|address| Family::of(*address) == family).collect()
    }
}

/// Waits until there was such a claim for each of these addresses, and says when the last was.
async fn all_claimed<F: Heard>(
    watch: &Watch<F>,
    mut left: BTreeSet<IpAddr>,
    claim: impl Fn(&berth_lab::Seen<F>) -> Option<Claim>,
) -> Result<Option<Instant>> {
    let mut last = None;
    if !left.is_empty() {
        let all = watch.until(SOON, |seen| {
            if let Some(claim) = claim(seen)
                && left.remove(&claim.address)
            {
                last = Some(claim.at);
            }
            left.is_empty()
        });
        let done = all.await;
        done.with_context(|| {
            format!("of {} addresses nobody says to have them, such as {:?}", left.len(), left.first())
        })?;
    }
    Ok(last)
}

fn claim4(seen: &ArpSeen) -> Option<Claim> {
    let arp = &seen.frame.arp;
    // A probe asks and claims nothing.
    (!arp.is_probe()).then_some(Claim { at: seen.at, address: arp.sender_ip.into(), mac: arp.sender_mac })
}

fn claim6(seen: &NdpSeen) -> Option<Claim> {
    let advertises = matches!(seen.frame.message, Message::Advertisement { .. });
    advertises.then_some(Claim { at: seen.at, address: seen.frame.target.into(), mac: seen.frame.sender_mac() })
}

/// A frame by which a second station claimed an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Second {
    claim: Claim,
    /// The reigns before and after it.
    before: Option<Reign>,
    after: Option<Reign>,
}

impl fmt::Display for Second {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { claim, before, after } = self;
        write!(f, "{} by {}", claim.address, claim.mac)?;
        let ms = |between: Duration| between.as_millis();
        if let Some(before) = before {
            write!(f, ", {} ms after {} ({}) had it", ms(claim.at - before.since), before.owner, before.mac)?;
        }
        if let Some(after) = after {
            write!(f, ", {} ms before {} ({}) had it", ms(after.since - claim.at), after.owner, after.mac)?;
        }
        Ok(())
    }
}

/// The frames by which a second station claims one address. `reigns` are who was its owner, oldest first; from the beginning of
/// each but the first, two may claim it for [`DOUBLE_LIMIT`]. From `judged_from` on that applies also to what came before: where
/// the claimants had shared no path, they do since then.
pub(crate) fn second_claims<'a>(
    claims: impl Iterator<Item = &'a Claim>,
    reigns: &[Reign],
    judged_from: Instant,
) -> Vec<Second> {
    let is_second = |claim: &&Claim| {
        if claim.at < judged_from {
            return false;
        }
        let in_force = reigns.iter().rfind(|reign| reign.since <= claim.at + CLOCKS).or(reigns.first());
        let moves = reigns
            .iter()
            .skip(1)
            .any(|reign| reign.since <= claim.at + CLOCKS && claim.at <= reign.since + DOUBLE_LIMIT);
        !moves && in_force.is_some_and(|reign| reign.mac != claim.mac)
    };
    let told = |claim: &Claim| {
        let after = reigns.partition_point(|reign| reign.since <= claim.at);
        let before = after.checked_sub(1).and_then(|before| reigns.get(before)).cloned();
        Second { claim: *claim, before, after: reigns.get(after).cloned() }
    };
    claims.filter(is_second).map(told).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_claim_is_told_with_the_owners_before_and_after_it() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mac = |node: u8| MacAddr([2, 0, 0, 0, 0, node]);
        let reign = |node: u8, ms| Reign { owner: format!("node-{node}"), mac: mac(node), since: at(ms) };
        let claim = Claim { at: at(700), address: [192, 0, 2, 1].into(), mac: mac(3) };
        let told = |reigns: &[Reign]| second_claims(std::iter::once(&claim), reigns, start)[0].to_string();
        let by = "192.0.2.1 by 02:00:00:00:00:03";
        let before = "700 ms after node-1 (02:00:00:00:00:01) had it";
        assert_eq!(told(&[reign(1, 0)]), format!("{by}, {before}"));
        let after = "40 ms before node-2 (02:00:00:00:00:02) had it";
        assert_eq!(told(&[reign(1, 0), reign(2, 740)]), format!("{by}, {before}, {after}"));
    }

    #[test]
    fn a_second_station_is_counted_unless_the_address_has_just_moved() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mac = |node: u8| MacAddr([2, 0, 0, 0, 0, node]);
        let address: IpAddr = [192, 0, 2, 1].into();
        // Who owns it from when on, from when on is judged, who claims it when, how many claims are second ones.
        for (reigns, judged_from, claims, expected, why) in [
            (&[(1, 0)][..], 0, &[(1, 10), (1, 900)][..], 0, "one owner"),
            (&[(1, 0)], 0, &[(1, 10), (2, 20), (1, 30), (2, 40)], 2, "another one without a move"),
            (&[(1, 0), (2, 1_000)], 0, &[(1, 990), (2, 1_001), (1, 1_400), (2, 3_000)], 0, "the old one for a moment"),
            (&[(1, 0), (2, 1_000)], 0, &[(2, 1_001), (1, 1_501), (1, 2_000), (2, 3_000)], 2, "the old one for longer"),
            (&[(1, 0), (2, 1_000)], 0, &[(2, 998)], 0, "clocks differ a little"),
            (&[(1, 0), (2, 1_000)], 0, &[(3, 1_200), (3, 1_600)], 1, "a third one that claimed at the same time"),
            (
                &[(1, 0), (2, 1_000), (1, 5_000)],
                0,
                &[(1, 900), (2, 4_000), (1, 5_001), (2, 5_400)],
                0,
                "there and back",
            ),
            (&[(1, 0), (2, 1_000), (1, 5_000)], 0, &[(1, 3_000), (2, 6_000)], 2, "each in the reign of the other"),
            (&[(1, 0), (2, 1_000)], 4_500, &[(1, 2_000), (1, 4_499), (1, 4_501)], 1, "once they share a path"),
        ] {
            let reigns: Vec<_> = reigns
                .iter()
                .map(|(node, ms)| Reign { owner: format!("node-{node}"), mac: mac(*node), since: at(*ms) })
                .collect();
            let claims: Vec<_> =
                claims.iter().map(|(node, ms)| Claim { at: at(*ms), address, mac: mac(*node) }).collect();
            assert_eq!(second_claims(claims.iter(), &reigns, at(judged_from)).len(), expected, "{why}");
        }
    }
}
