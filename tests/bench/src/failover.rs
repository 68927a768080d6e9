//! How long clients are without an answer when something goes wrong, and whether ever two nodes answer.
//!
//! One lab serves all faults and all runs: three nodes with kube-proxy, Berth as it is installed, a Service with a pod on each node,
//! and three kinds of client on a host that is no node (see [`client`](crate::client)). A run is: everything is settled; the clients begin to count; the
//! fault is made and, where it does not pass by itself, undone; everything is settled again; the clients say what they saw. So what
//! the return of a node or a link costs is in the figure, too. Nothing waits for a time to pass where it can wait for an event.

pub(crate) mod board;
mod busy;
mod clients;
mod fault;
pub(crate) mod ground;
mod many;
mod row;
mod strike;
pub(crate) mod wire;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use berth_lab::{Lab, LabConfig};

pub use fault::{Cause, Fault};
pub use row::{Millis, Row, missed, table};

use crate::client::{Family, Kind, Seen};
use clients::Clients;
use ground::Ground;
use wire::{Second, Wire};

/// The lab: an owner, and two nodes that may follow it.
pub const LAB: LabConfig = LabConfig { nodes: 3, kube_proxy: true };

/// How long two nodes may answer for an address when it moves.
pub const DOUBLE_LIMIT: Duration = Duration::from_millis(500);
/// How long the wire is looked at after an address has moved: once more the time in which two may answer.
const LOOK_ON: Duration = DOUBLE_LIMIT.saturating_mul(2);
/// Between two words while clients ask under load.
const TELL_EVERY: Duration = Duration::from_mins(1);

/// What to measure.
#[derive(Clone, Debug)]
pub struct Measurement {
    /// The faults.
    pub faults: Vec<Fault>,
    /// How often each.
    pub runs: usize,
    /// The families of the Service's addresses.
    pub families: Vec<Family>,
    /// For how long clients ask without a fault while all cores are busy.
    pub load: Option<Duration>,
    /// How many addresses the owner has that crashes with many.
    pub many: usize,
    /// Where the program of the clients is.
    pub programs: PathBuf,
}

/// Measures in a new lab, and calls `done` with the rows of each fault when they are there.
pub async fn measure(
    lab: &Lab,
    what: &Measurement,
    tell: &dyn Fn(String),
    done: &mut dyn FnMut(Vec<Row>) -> Result<()>,
) -> Result<()> {
    let ground = Box::pin(Ground::build(lab, &what.families)).await?;
    let program = what.programs.join(crate::PROGRAM);
    let mut faults = what.faults.clone();
    faults.sort_unstable();
    faults.dedup();
    let few: Vec<Fault> = faults.iter().copied().filter(|fault| *fault != Fault::Crash1000).collect();
    if !few.is_empty() {
        let mut clients = Clients::start(lab, &program, ground.addresses())?;
        for turns in in_turns(&few) {
            let mut runs: Vec<_> = turns.iter().map(|fault| (*fault, Runs::default())).collect();
            for run in 1..=what.runs {
                for (fault, runs) in &mut runs {
                    let fault = *fault;
                    let result = Box::pin(one(&ground, &mut clients, fault, &turns)).await;
                    runs.add(result.with_context(|| format!("{fault}, run {run} of {}", what.runs))?);
                    tell(format!("{fault} {run}/{}: {}", what.runs, runs.last()));
                }
            }
            for (fault, runs) in runs {
                done(runs.rows(Cause::Fault(fault)))?;
            }
        }
    }
    if let Some(load) = what.load {
        let mut clients = Clients::start(lab, &program, ground.addresses())?;
        let mut runs = Runs::default();
        runs.add(Box::pin(under_load(&ground, &mut clients, load, tell)).await.context("under load")?);
        tell(format!("load: {}", runs.last()));
        done(runs.rows(Cause::Load))?;
    }
    // Last, because its thousand Services are a burden for everything.
    if faults.contains(&Fault::Crash1000) {
        let family = what.families.first().copied().unwrap_or(Family::Ipv4);
        tell(format!("{}: giving one node {} addresses", Fault::Crash1000, what.many));
        let many = Box::pin(many::Many::build(&ground, family, what.many)).await?;
        let mut runs = Runs::default();
        for run in 1..=what.runs {
            let result = Box::pin(many.crash(&ground)).await;
            runs.add(result.with_context(|| format!("{}, run {run} of {}", Fault::Crash1000, what.runs))?);
            tell(format!("{} {run}/{}: {}", Fault::Crash1000, what.runs, runs.last()));
        }
        done(runs.rows(Cause::Fault(Fault::Crash1000)))?;
    }
    Ok(())
}

/// The faults in their order, those together that take turns: a pod that is stopped makes place for one whose container was never killed, which is
/// what has to be seen to after a kill.
fn in_turns(faults: &[Fault]) -> Vec<Vec<Fault>> {
    let mut all: Vec<Vec<Fault>> = Vec::new();
    for fault in faults {
        match all.last_mut() {
            Some(turns) if turns.last() == Some(&Fault::Kill) && *fault == Fault::Stop => turns.push(*fault),
            _ => all.push(vec![*fault]),
        }
    }
    all
}

/// What a run showed.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) clients: Vec<Seen>,
    /// By family.
    pub(crate) second_claims: BTreeMap<Family, Vec<Second>>,
    /// How often addresses of a family changed their owner.
    pub(crate) moves: BTreeMap<Family, u64>,
    pub(crate) took: Duration,
}

async fn one(ground: &Ground, clients: &mut Clients, fault: Fault, turns: &[Fault]) -> Result<Run> {
    let began = Instant::now();
    let owner = ground.one_owner(ground.addresses()).await.context("before the fault")?;
    let wire = Wire::listen(ground.lab(), ground.addresses(), wire::ASK_EVERY)?;
    let epochs = ground.board().epochs();
    clients.begin().await?;
    let judged_from = strike::strike(ground, &wire, fault, &owner).await?;
    ground.settled(ground.addresses()).await.context("after the fault")?;
    // What comes late is to be seen.
    if let Some(last) = ground.board().reigns_since(&epochs).last().map(|reign| reign.since) {
        tokio::time::sleep_until((last.max(judged_from) + LOOK_ON).into()).await;
    }
    let seen = clients.end().await?;
    let run = judge(ground, &wire, &epochs, judged_from, seen, began);
    if !turns.contains(&Fault::Stop) {
        strike::tidy(ground, fault, &owner).await?;
    }
    Ok(run)
}

async fn under_load(ground: &Ground, clients: &mut Clients, load: Duration, tell: &dyn Fn(String)) -> Result<Run> {
    let began = Instant::now();
    ground.settled(ground.addresses()).await?;
    let wire = Wire::listen(ground.lab(), ground.addresses(), wire::ASK_EVERY)?;
    let epochs = ground.board().epochs();
    clients.begin().await?;
    let loaded = Instant::now();
    {
        let _busy = busy::Busy::start(load);
        while let left = load.saturating_sub(loaded.elapsed())
            && !left.is_zero()
        {
            // A load lasts as long as it was asked to.
            tokio::time::sleep(left.min(TELL_EVERY)).await;
            let moves = ground.board().reigns_since(&epochs).len();
            tell(format!("under load for {:.0} s: {moves} moves", loaded.elapsed().as_secs_f64()));
        }
    }
    let seen = clients.end().await?;
    ground.settled(ground.addresses()).await?;
    Ok(judge(ground, &wire, &epochs, loaded, seen, began))
}

fn judge(
    ground: &Ground,
    wire: &Wire,
    epochs: &board::Epochs,
    judged_from: Instant,
    clients: Vec<Seen>,
    began: Instant,
) -> Run {
    let mut second_claims: BTreeMap<_, Vec<_>> = BTreeMap::new();
    let mut moves = BTreeMap::new();
    let claims = wire.claims();
    let of = |address: IpAddr| claims.iter().filter(move |claim| claim.address == address);
    for address in ground.addresses() {
        let reigns = ground.board().reigns(*address, epochs);
        let family = Family::of(*address);
        second_claims.entry(family).or_default().extend(wire::second_claims(of(*address), &reigns, judged_from));
        *moves.entry(family).or_default() += reigns.len().saturating_sub(1) as u64;
    }
    Run { clients, second_claims, moves, took: began.elapsed() }
}

/// The runs of one fault.
#[derive(Debug, Default)]
struct Runs {
    all: Vec<Run>,
}

impl Runs {
    fn add(&mut self, run: Run) {
        self.all.push(run);
    }

    /// The last run for a person: gaps in milliseconds, and what else there was.
    fn last(&self) -> String {
        let Some(run) = self.all.last() else { return String::new() };
        let gaps = run.clients.iter().map(|seen| format!("{:?} {:?} {:.0}", seen.family, seen.client, seen.gap_ms));
        let resets: u64 = run.clients.iter().map(|seen| seen.resets).sum();
        let moves: u64 = run.moves.values().sum();
        let second: Vec<_> = run.second_claims.values().flatten().collect();
        let such = second.first().zip(second.last());
        let such = such.map(|(first, last)| format!(", the first {first}, the last {last}")).unwrap_or_default();
        format!(
            "gaps in ms: {}; {resets} resets, {moves} moves, {} second claims{such}; the run took {:.1} s",
            gaps.collect::<Vec<_>>().join(", ").to_lowercase(),
            second.len(),
            run.took.as_secs_f64()
        )
    }

    fn rows(&self, cause: Cause) -> Vec<Row> {
        let mut by_client: BTreeMap<(Family, Kind), Vec<Seen>> = BTreeMap::new();
        for seen in self.all.iter().flat_map(|run| &run.clients) {
            by_client.entry((seen.family, seen.client)).or_default().push(*seen);
        }
        let sum = |of: fn(&Run, Family) -> u64, family| self.all.iter().map(|run| of(run, family)).sum::<u64>();
        let row = |((family, client), seen): ((Family, Kind), Vec<Seen>)| Row {
            fault: cause,
            family,
            client,
            runs: seen.len(),
            gap_ms: Millis::of(seen.iter().map(|seen| seen.gap_ms).collect()),
            resets: seen.iter().map(|seen| seen.resets).sum(),
            second_claims: sum(|run, family| run.second_claims.get(&family).map_or(0, |all| all.len() as u64), family),
            moves: sum(|run, family| run.moves.get(&family).copied().unwrap_or_default(), family),
        };
        by_client.into_iter().map(row).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kill_and_a_stop_take_turns_and_all_else_is_by_itself() {
        use Fault::{Crash, Kill, Partition, Rollout, Stop};
        for (faults, expected) in [
            (&[Crash, Kill, Stop, Rollout][..], vec![vec![Crash], vec![Kill, Stop], vec![Rollout]]),
            (&[Kill, Rollout], vec![vec![Kill], vec![Rollout]]),
            (&[Stop, Partition], vec![vec![Stop], vec![Partition]]),
            (&[], vec![]),
        ] {
            assert_eq!(in_turns(faults), expected);
        }
    }
}
