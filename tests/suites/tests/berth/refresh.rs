//! `--refresh-interval`: addresses are announced again long after they were claimed.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use berth_api::MacAddr;
use berth_lab::{BerthConfig, Lab, PodEdit, lab_test};
use berth_wire::ndp::{ALL_NODES, Message};
use serde_json::json;

use crate::cluster::Cluster;
use crate::families::DUAL_POOL;

/// The shortest interval that there is.
const INTERVAL: Duration = Duration::from_secs(10);
/// How often an address is announced once it is claimed, within five seconds.
const AFTER_CLAIM: usize = 6;
/// What two busy cores may add to a moment.
const LATE: Duration = Duration::from_secs(2);

lab_test! {
    async fn an_address_of_either_family_is_announced_again_by_its_owner_alone_if_that_is_wanted(lab: Lab) -> Result<()> {
        let (arp, ndp) = (lab.client().netns.watch_arp("eth0")?, lab.client().netns.watch_ndp("eth0")?);
        let speaker = PodEdit::args(&["--refresh-interval=10s"]);
        let cluster = Cluster::start_with(lab.clone(), &BerthConfig { speaker, ..BerthConfig::default() }).await?;
        lab.apply_yaml(DUAL_POOL).await?;
        cluster.pod("web", "node-1").await?;
        cluster.service("web", json!({"ipFamilyPolicy": "RequireDualStack"})).await?;
        let [v4, v6] = cluster.addresses("web").await?;
        let limit = INTERVAL * 4;
        for address in [v4, v6] {
            let mut announced: Vec<(Instant, MacAddr)> = Vec::new();
            let mut note = |at, mac| {
                announced.push((at, mac));
                announced.len() == AFTER_CLAIM + 2
            };
            match address {
                IpAddr::V4(v4) => arp.until(limit, |seen| {
                    let arp = &seen.frame.arp;
                    let is_it = arp.is_gratuitous() && arp.target_mac == MacAddr::ZERO && arp.sender_ip == v4;
                    is_it && note(seen.at, arp.sender_mac)
                }).await,
                IpAddr::V6(v6) => ndp.until(limit, |seen| {
                    let frame = &seen.frame;
                    let is_advertisement = matches!(frame.message, Message::Advertisement { .. });
                    let is_it = is_advertisement && frame.destination == ALL_NODES && frame.target == v6;
                    is_it && note(seen.at, frame.sender_mac())
                }).await,
            }
            .with_context(|| format!("{address} is announced after its claim and twice more"))?;
            let times: Vec<_> = announced.iter().map(|(at, _)| *at - announced[0].0).collect();
            let (first, second) = (times[AFTER_CLAIM], times[AFTER_CLAIM + 1]);
            ensure!(first <= times[AFTER_CLAIM - 1] + INTERVAL + LATE, "{address} at {times:?}");
            ensure!(second.saturating_sub(first).abs_diff(INTERVAL) <= LATE, "{address} at {times:?}");
            let owner = cluster.settled(address, 2).await?.status.and_then(|status| status.layer2).context("an owner")?;
            ensure!(announced.iter().all(|(_, mac)| *mac == owner.mac), "{address} by {announced:?}, not only {owner:?}");
            assert_eq!(owner.epoch, 1, "nothing moved");
        }
        Ok(())
    }
}
