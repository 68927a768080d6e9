//! The process that asks and makes the noise, on a host of the lab that is no node.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use berth_api::MacAddr;
use clap::Args;
use nix::net::if_::if_nametoindex;
use serde::{Deserialize, Serialize};

use super::ask::{Pace, Source, ask};
use super::noise;
use super::tally::Answers;
use crate::client::Family;
use crate::process::time_on_cores_of;

/// Between two questions of a family. A hundred a second are more than a LAN asks one node; they cost it little, so that what the noise
/// costs is seen.
pub(crate) const ASK_EVERY: Duration = Duration::from_millis(10);
/// Questions under way where it is about the rate: enough that the node never waits for the asker, and fewer than its socket holds.
pub(crate) const UNDER_WAY: usize = 32;

/// Whom to ask, and from where.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// The interface
    #[arg(long)]
    interface: String,
    /// The host's Ethernet address
    #[arg(long)]
    mac: MacAddr,
    /// The host's IPv4 address
    #[arg(long)]
    source: Ipv4Addr,
    /// The host's IPv6 address
    #[arg(long)]
    source6: Ipv6Addr,
    /// An address to ask for; may be given several times
    #[arg(long, required = true)]
    to: Vec<IpAddr>,
    /// For so long
    #[arg(long)]
    seconds: u64,
    /// As fast as answers come, instead of at a pace
    #[arg(long)]
    fast: bool,
    /// Broadcast ARP requests a second about other addresses
    #[arg(long, default_value_t = 0)]
    noise: u32,
    /// The process whose time on cores is taken
    #[arg(long)]
    pid: u32,
}

/// What it says on stdout.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Seen {
    pub(crate) answers: Vec<Answers>,
    /// How long was asked.
    pub(crate) time: Duration,
    /// Frames of noise that were sent.
    pub(crate) noise: u64,
    /// What the other process spent on cores meanwhile.
    pub(crate) on_cores: Duration,
}

/// Asks, and says what came of it.
pub fn run(options: &Options) -> Result<()> {
    let Options { interface, mac, source, source6, to, seconds, fast, noise, pid } = options;
    let index = if_nametoindex(interface.as_str()).with_context(|| format!("there is no {interface}"))?;
    let source = Source { mac: *mac, address: *source, address6: *source6 };
    let pace = if *fast { Pace::UnderWay(UNDER_WAY) } else { Pace::Every(ASK_EVERY) };
    let families = [Family::Ipv4, Family::Ipv6]
        .map(|family| to.iter().copied().filter(|address| Family::of(*address) == family).collect::<Vec<_>>());
    let (before, begin) = (time_on_cores_of(*pid)?, Instant::now());
    let end = begin + Duration::from_secs(*seconds);
    let (answers, noise) = thread::scope(|scope| {
        let asked = families.iter().filter(|family| !family.is_empty());
        let askers: Vec<_> = asked.map(|family| scope.spawn(move || ask(index, &source, family, pace, end))).collect();
        let noise = (*noise > 0).then(|| scope.spawn(move || noise::send(index, &source, *noise, end)));
        let failed = |_| anyhow!("a thread of the bench failed");
        let answers: Result<Vec<_>> = askers.into_iter().map(|asker| asker.join().map_err(failed)?).collect();
        anyhow::Ok((answers?, noise.map_or(Ok(Ok(0)), std::thread::ScopedJoinHandle::join).map_err(failed)??))
    })?;
    let seen = Seen { answers, time: begin.elapsed(), noise, on_cores: time_on_cores_of(*pid)?.saturating_sub(before) };
    #[allow(clippy::print_stdout, reason = "the bench reads what this process says")]
    {
        println!("{}", serde_json::to_string(&seen)?);
    }
    Ok(())
}
