//! How fast an owner answers who asks for its addresses, and what that costs it on a LAN full of questions about others.
//!
//! A process on a host that is no node asks and makes the noise ([`program`]); here are the lab, the order of events and the rows.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context as _, Result, bail, ensure};
use berth_api::Announcement;
use berth_api::crd::Member;
use berth_lab::{Lab, LabConfig};
use futures::{StreamExt as _, TryStreamExt as _};
use kube::api::PostParams;
use kube::{Api, ResourceExt as _};
use serde::{Deserialize, Serialize};
use tokio::process::Command;

use crate::client::Family;
use crate::failover::ground::{SOON, gauge};
use crate::idle::{WRITES, announcement, stop_controllers};
use crate::load::round;
use crate::process::{PROGRAM, quiet_of};
use crate::row::Verdict;

mod ask;
mod noise;
pub mod program;
mod tally;

use program::Seen;
use tally::Answers;

/// The lab: an owner and a standby that it tells what it claims.
pub const LAB: LabConfig = LabConfig { nodes: 2, kube_proxy: true };

/// Addresses of each family. With a question each 10 ms every one is asked for once a second, when the question before was given up.
const ADDRESSES: u32 = 100;
/// Where they begin.
const FIRST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 130);
/// The same of IPv6.
const FIRST6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 0x1000);
/// Longest time that 99 in 100 questions may wait, in microseconds.
const P99_US: f64 = 1_000.0;
/// Time on cores that the owner's speaker may need while there is noise, in percent of one core.
const CPU_PERCENT: f64 = 2.0;
/// The part of the noise that has to be reached for the figures to count: the sender shares its cores with all others.
const NOISE_REACHED: f64 = 0.9;

/// What to measure.
#[derive(Clone, Copy, Debug)]
pub struct Measurement<'a> {
    /// Where the bench's program is.
    pub programs: &'a Path,
    /// Broadcast ARP requests a second about addresses of others.
    pub noise: u32,
    /// How long each part takes.
    pub seconds: u64,
}

/// Under what circumstances was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// A hundred questions a second of each family, and nothing else.
    Quiet,
    /// The same, with the noise.
    Noisy,
    /// One family as fast as answers come.
    Fast,
}

/// What was measured. The names are those of the JSON.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Under what circumstances.
    pub bench: Part,
    /// The family that was asked for.
    pub family: Family,
    /// Questions.
    pub asked: u64,
    /// Those that were answered within a second.
    pub answered: u64,
    /// Answers a second.
    pub rate_per_s: f64,
    /// From a question to the arrival of its answer, in the middle of all, in microseconds.
    pub p50_us: f64,
    /// What 99 in 100 took at most.
    pub p99_us: f64,
    /// What the slowest took.
    pub max_us: f64,
    /// The noise that was meant, in frames a second.
    pub noise_wanted_per_s: u32,
    /// The noise that was sent.
    pub noise_per_s: f64,
    /// What the owner's speaker spent on cores meanwhile, for both families, in percent of one.
    pub cpu_percent: f64,
}

impl Row {
    /// What Berth is to reach, and whether it did.
    pub fn verdicts(&self) -> Vec<Verdict> {
        let Self { bench, asked, answered, p99_us, noise_wanted_per_s, noise_per_s, cpu_percent, .. } = *self;
        let mut verdicts = vec![Verdict {
            what: "answered",
            measured: format!("{answered}"),
            target: format!("{asked}"),
            met: answered == asked,
        }];
        if bench != Part::Fast {
            verdicts.push(Verdict {
                what: "p99",
                measured: format!("{p99_us:.0} us"),
                target: format!("< {P99_US:.0} us"),
                met: p99_us < P99_US,
            });
        }
        if bench == Part::Noisy {
            let least = f64::from(noise_wanted_per_s) * NOISE_REACHED;
            verdicts.push(Verdict {
                what: "time on cores",
                measured: format!("{cpu_percent:.1} %"),
                target: format!("< {CPU_PERCENT:.0} %"),
                met: cpu_percent < CPU_PERCENT,
            });
            verdicts.push(Verdict {
                what: "noise",
                measured: format!("{noise_per_s:.0}/s"),
                target: format!(">= {least:.0}/s"),
                met: noise_per_s >= least,
            });
        }
        verdicts
    }
}

/// The rows and Berth's targets, for a person.
pub fn table(rows: &[Row]) -> String {
    let mut text = String::new();
    for row in rows {
        let part = match row.bench {
            Part::Quiet => "quiet",
            Part::Noisy => "noisy",
            Part::Fast => "fast",
        };
        let family = if row.family == Family::Ipv4 { "ARP" } else { "neighbor discovery" };
        let Row { rate_per_s, p50_us, p99_us, max_us, noise_per_s, cpu_percent, .. } = row;
        let _ = writeln!(
            text,
            "{part:<6} {family}: {rate_per_s:.0} answers/s after {p50_us:.0} us (p50), {p99_us:.0} (p99), {max_us:.0} (max); \
             {noise_per_s:.0}/s about others; speaker {cpu_percent:.1} % of a core"
        );
        for Verdict { what, measured, target, met } in row.verdicts() {
            let met = if met { "met" } else { "MISSED" };
            let _ = writeln!(text, "       {what:<14} {measured:>10}   {target:<12} {met}");
        }
    }
    text.truncate(text.trim_end().len());
    text
}

/// Measures in a new lab.
pub async fn measure(lab: &Lab, what: Measurement<'_>, tell: &dyn Fn(String)) -> Result<Vec<Row>> {
    lab.install_berth().await?;
    stop_controllers(lab).await?;
    let owner = lab.nodes().first().context("a lab has nodes")?.name();
    let addresses = owned(lab, owner).await?;
    tell(format!("{owner} answers for {} addresses", addresses.len()));
    let container = lab.speaker(owner)?;
    let pid = container.pid().with_context(|| format!("the speaker on {owner} does not run"))?;
    let of = |family| addresses.iter().copied().filter(move |a| Family::of(*a) == family).collect::<Vec<_>>();
    let mut rows = Vec::new();
    for (part, asked, noise) in [
        (Part::Quiet, addresses.clone(), 0),
        (Part::Noisy, addresses.clone(), what.noise),
        (Part::Fast, of(Family::Ipv4), 0),
        (Part::Fast, of(Family::Ipv6), 0),
    ] {
        quiet_of(pid).await?;
        let seen = ask(lab, what, part, &asked, noise, pid).await?;
        let new = seen.answers.iter().map(|answers| row(part, answers, &seen, noise));
        rows.extend(new);
        tell(format!("{part:?}: {:.0}/s of noise", seen.noise as f64 / seen.time.as_secs_f64()));
    }
    ensure!(container.pid() == Some(pid), "the speaker on {owner} was started again meanwhile");
    Ok(rows)
}

fn row(part: Part, answers: &Answers, seen: &Seen, noise: u32) -> Row {
    let seconds = seen.time.as_secs_f64();
    let us = |time: std::time::Duration| round(time.as_secs_f64() * 1e6, 1.0);
    Row {
        bench: part,
        family: answers.family,
        asked: answers.asked,
        answered: answers.answered,
        rate_per_s: round(answers.answered as f64 / seconds, 10.0),
        p50_us: us(answers.p50),
        p99_us: us(answers.p99),
        max_us: us(answers.max),
        noise_wanted_per_s: noise,
        noise_per_s: round(seen.noise as f64 / seconds, 1.0),
        cpu_percent: round(seen.on_cores.as_secs_f64() / seconds * 100.0, 100.0),
    }
}

/// Runs the asking process, and returns what it says.
async fn ask(lab: &Lab, what: Measurement<'_>, part: Part, to: &[IpAddr], noise: u32, pid: u32) -> Result<Seen> {
    let client = lab.client();
    let program = what.programs.join(PROGRAM);
    let mut command = Command::from(client.netns.command(&program.to_string_lossy()));
    command.args(["arp", "--interface", "eth0", "--mac", &client.mac().to_string()]);
    command.args(["--source", &client.address.to_string(), "--source6", &client.address6.to_string()]);
    command.args(["--seconds", &what.seconds.to_string(), "--pid", &pid.to_string(), "--noise", &noise.to_string()]);
    command.args(to.iter().map(|address| format!("--to={address}")));
    if part == Part::Fast {
        command.arg("--fast");
    }
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await;
    let output = output.with_context(|| format!("starting {}", program.display()))?;
    if !output.status.success() {
        bail!("asking: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    serde_json::from_slice(&output.stdout).context("reading what was answered")
}

/// Makes addresses of both families and waits until this node answers for all of them.
async fn owned(lab: &Lab, owner: &str) -> Result<Vec<IpAddr>> {
    let v4 = (0..ADDRESSES).map(|n| IpAddr::from(Ipv4Addr::from_bits(FIRST.to_bits() + n)));
    let v6 = (0..ADDRESSES).map(|n| IpAddr::from(Ipv6Addr::from_bits(FIRST6.to_bits() + u128::from(n))));
    let addresses: Vec<IpAddr> = v4.chain(v6).collect();
    let members = |family| {
        let member = |node: &berth_lab::Node| Member {
            node: node.name().to_owned(),
            interface: "eth0".to_owned(),
            address: if family == Family::Ipv4 { node.address().into() } else { node.address6().into() },
            mac: node.mac(),
        };
        lab.nodes().iter().map(member).collect::<Vec<_>>()
    };
    let (members4, members6) = (members(Family::Ipv4), members(Family::Ipv6));
    let announcements: Api<Announcement> = Api::all(lab.admin());
    let create = async |(number, address): (usize, IpAddr)| {
        let members = if address.is_ipv4() { &members4 } else { &members6 };
        let announcement = announcement(number, address, members);
        let created = announcements.create(&PostParams::default(), &announcement).await;
        created.with_context(|| format!("creating the Announcement {}", announcement.name_any()))
    };
    let all = addresses.iter().copied().enumerate();
    futures::stream::iter(all).map(create).buffer_unordered(WRITES).try_collect::<Vec<_>>().await?;
    let what = format!("{owner} answers for all addresses");
    lab.eventually(&what, SOON, async || {
        let page = lab.speaker_metrics(owner).await?;
        let answering = gauge(&page, "berth_speaker_addresses_answering");
        ensure!(answering == Some(addresses.len()), "it does for {answering:?}");
        Ok(Some(()))
    })
    .await?;
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROW: Row = Row {
        bench: Part::Noisy,
        family: Family::Ipv6,
        asked: 2000,
        answered: 2000,
        rate_per_s: 100.0,
        p50_us: 60.0,
        p99_us: 999.0,
        max_us: 5000.0,
        noise_wanted_per_s: 50_000,
        noise_per_s: 45_000.0,
        cpu_percent: 1.99,
    };

    #[test]
    fn each_target_is_met_up_to_its_limit_and_missed_behind_it() {
        for (row, expected) in [
            (ROW, &[][..]),
            (Row { answered: 1999, ..ROW }, &["answered"]),
            (Row { p99_us: 1000.0, ..ROW }, &["p99"]),
            (Row { cpu_percent: 2.0, ..ROW }, &["time on cores"]),
            (Row { noise_per_s: 44_999.0, ..ROW }, &["noise"]),
            (Row { bench: Part::Quiet, cpu_percent: 50.0, noise_per_s: 0.0, ..ROW }, &[]),
            (Row { bench: Part::Quiet, p99_us: 1000.0, answered: 1, ..ROW }, &["answered", "p99"]),
            (Row { bench: Part::Fast, p99_us: 9000.0, cpu_percent: 100.0, ..ROW }, &[]),
            (Row { bench: Part::Fast, answered: 1999, ..ROW }, &["answered"]),
        ] {
            let missed: Vec<_> = row.verdicts().into_iter().filter(|v| !v.met).map(|v| v.what).collect();
            assert_eq!(missed, expected, "{row:?}");
        }
    }

    #[test]
    fn a_row_is_one_json_object_with_the_documented_keys() {
        let text = r#"{"bench":"noisy","family":"ipv6","asked":2000,"answered":2000,"rate_per_s":100.0,"p50_us":60.0,"p99_us":999.0,"max_us":5000.0,"noise_wanted_per_s":50000,"noise_per_s":45000.0,"cpu_percent":1.99}"#;
        assert_eq!(serde_json::to_string(&ROW).unwrap(), text);
        assert_eq!(serde_json::from_str::<Row>(text).unwrap(), ROW);
    }

    #[test]
    fn the_table_has_a_line_for_each_row_and_each_target() {
        let table = table(&[ROW, Row { bench: Part::Fast, family: Family::Ipv4, ..ROW }]);
        assert_eq!(table.lines().count(), 1 + 4 + 1 + 1, "{table}");
        assert!(table.contains("noisy  neighbor discovery: 100 answers/s") && !table.contains("MISSED"), "{table}");
    }
}
