//! The crash of a node that owns a thousand addresses: when the last of them is answered for again.
//!
//! It is measured on the wire and not by connections: a thousand clients would measure two cores. Each address is a Service of its own,
//! and all have the pods of the one Service that the other faults are measured with.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use berth_lab::Netns;
use futures::StreamExt as _;
use serde_json::json;

use super::ground::{Ground, service};
use super::wire::{self, Wire};
use super::{Run, strike};
use crate::client::{Family, Kind, Seen};
use crate::load::round;

/// Longest wait for all of them, on a loaded machine.
const LIMIT: Duration = Duration::from_mins(5);
/// Services that are created at once.
const AT_ONCE: usize = 8;
/// Name of their pool, which gives nothing to who does not ask for it.
const POOL: &str = "bench-many";
/// Where the addresses begin: in a subnet of their own, because the LAN has no room for them. Nodes have the first ones.
const FIRST4: Ipv4Addr = Ipv4Addr::new(198, 18, 4, 0);
const SUBNET4: &str = "198.18.0.0/16";
/// The same of IPv6, in the LAN's own subnet.
const FIRST6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x2, 0, 0, 0, 1, 0);

/// Many addresses with one owner.
pub(crate) struct Many {
    family: Family,
    /// The many.
    addresses: Vec<IpAddr>,
    /// And those of the one Service.
    all: Vec<IpAddr>,
}

impl Many {
    pub(crate) async fn build(ground: &Ground, family: Family, count: usize) -> Result<Self> {
        let lab = ground.lab();
        let many = addresses(family, count);
        if family == Family::Ipv4 {
            for (number, node) in (1..).zip(lab.nodes()) {
                give_address(node.netns(), number).await.with_context(|| node.name().to_owned())?;
            }
        }
        let (first, last) = many.first().zip(many.last()).context("there are to be addresses")?;
        lab.apply_yaml(&format!(
            "apiVersion: berth.dev/v1alpha1\nkind: IPAddressPool\nmetadata: {{name: {POOL}}}\n\
             spec: {{autoAssign: false, addresses: ['{first}-{last}']}}\n"
        ))
        .await?;
        // Whoever can be chosen alone is chosen for all of them.
        let owner = ground.one_owner(ground.addresses()).await?;
        ground.only(&owner).await?;
        let create = async |number: usize| {
            let annotations = json!({ "berth.dev/address-pool": POOL });
            ground.create(service(&format!("many-{number}"), &[family], annotations, json!({}))?).await
        };
        let mut created = futures::stream::iter(0..count).map(create).buffer_unordered(AT_ONCE);
        while let Some(created) = created.next().await {
            created?;
        }
        let all: Vec<_> = ground.addresses().iter().chain(&many).copied().collect();
        ground.all(&all, LIMIT).await?;
        Ok(Self { family, addresses: many, all })
    }

    /// Crashes the owner. The gap is from the moment before its link is cut until every address was announced by another node.
    pub(crate) async fn crash(&self, ground: &Ground) -> Result<Run> {
        let began = Instant::now();
        let owner = ground.one_owner(&self.all).await.context("before the fault")?;
        let wire = Wire::listen_only(ground.lab(), &self.addresses)?;
        let epochs = ground.board().epochs();
        let gap = strike::timed_crash(ground, &wire, &owner).await?;
        ground.settled(&self.all).await.context("after the fault")?;
        wire.each_answers(ground.lab()).await.context("after the fault")?;
        let claims = wire.claims();
        let mut by_address: BTreeMap<IpAddr, Vec<_>> = BTreeMap::new();
        for claim in &claims {
            by_address.entry(claim.address).or_default().push(claim);
        }
        let (mut second, mut moves) = (Vec::new(), 0);
        for address in &self.addresses {
            let reigns = ground.board().reigns(*address, &epochs);
            let claims = by_address.get(address).into_iter().flatten().copied();
            second.extend(wire::second_claims(claims, &reigns, began));
            moves += reigns.len().saturating_sub(1) as u64;
        }
        let gap_ms = round(gap.as_secs_f64() * 1000.0, 10.0);
        let seen =
            Seen { family: self.family, client: Kind::Probe, gap_ms, resets: 0, answers: self.addresses.len() as u64 };
        Ok(Run {
            clients: vec![seen],
            second_claims: [(self.family, second)].into(),
            moves: [(self.family, moves)].into(),
            took: began.elapsed(),
        })
    }
}

fn addresses(family: Family, count: usize) -> Vec<IpAddr> {
    match family {
        Family::Ipv4 => (0..count).map(|n| Ipv4Addr::from_bits(FIRST4.to_bits() + n as u32).into()).collect(),
        Family::Ipv6 => (0..count).map(|n| Ipv6Addr::from_bits(FIRST6.to_bits() + n as u128).into()).collect(),
    }
}

/// Gives a node an address in the subnet of the many.
async fn give_address(netns: &Netns, number: usize) -> Result<()> {
    let address = SUBNET4.replace(".0.0/", &format!(".0.{number}/"));
    let mut ip = tokio::process::Command::from(netns.command("ip"));
    let output = ip.args(["addr", "add", &address, "dev", "eth0"]).output().await.context("starting `ip`")?;
    if !output.status.success() {
        bail!("adding {address}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_addresses_follow_each_other_and_fit_their_subnet() {
        for (family, first, last) in
            [(Family::Ipv4, "198.18.4.0", "198.18.7.231"), (Family::Ipv6, "2001:db8:2::1:0", "2001:db8:2::1:3e7")]
        {
            let all = addresses(family, 1000);
            let ends = all.first().zip(all.last()).map(|(first, last)| (first.to_string(), last.to_string()));
            assert_eq!(ends, Some((first.to_owned(), last.to_owned())));
        }
    }
}
