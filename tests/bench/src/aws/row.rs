//! What was measured, what it is to be, and both as a table.

use std::fmt::Write as _;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use berth_moto::Call;

use crate::load::round;
use crate::row::Verdict;

/// Calls that making a Service may take.
const CREATE: f64 = 12.0;
/// How many of them may look.
const CREATE_READS: f64 = 4.0;
/// Calls that a restart may take, however many Services there are.
const RESTART: usize = 100;
/// Calls that look when a node is added, however many Services there are.
const NODE_READS: usize = 20;
/// Calls that deleting a Service may take.
const DELETE: f64 = 6.0;
/// From the change of an endpoint to the call, in milliseconds: in the middle, and 99 in 100.
const CHANGE_MS: (f64, f64) = (50.0, 1000.0);
/// The last of all registrations of a pod that many Services share, in seconds.
const SHARED_S: f64 = 3.0;

/// One phase. The names are those of the JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// What was done.
    pub phase: String,
    /// With how many Services.
    pub services: usize,
    /// Calls that were made.
    pub calls: usize,
    /// Those that only look.
    pub reads: usize,
    /// Those that change something.
    pub writes: usize,
    /// Those that were refused because there were too many; they are not among the others.
    pub throttled: usize,
    /// From the first change to the last call.
    pub seconds: f64,
    /// Of many changes, how long one took in the middle of all, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub p50_ms: Option<f64>,
    /// How long 99 in 100 took at most.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub p99_ms: Option<f64>,
}

/// How many calls there were.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Counted {
    /// Those that only look.
    pub reads: usize,
    /// Those that change something.
    pub writes: usize,
    /// Those that were refused.
    pub throttled: usize,
}

impl Counted {
    /// And these.
    pub(super) fn add(&mut self, calls: &[Call]) {
        let (throttled, answered): (Vec<_>, Vec<_>) = calls.iter().partition(|call| call.throttled);
        let reads = answered.iter().filter(|call| call.is_read()).count();
        self.reads += reads;
        self.writes += answered.len() - reads;
        self.throttled += throttled.len();
    }
}

impl Row {
    /// Many changes, one after the other: how long each took, and the calls that all of them made.
    pub(super) fn change(phase: &str, took: &mut [Duration], counted: Counted) -> Self {
        took.sort_unstable();
        let at = |percent: usize| took.get((took.len() * percent).div_ceil(100).saturating_sub(1));
        let ms = |percent| at(percent).map(|took| round(took.as_secs_f64() * 1000.0, 10.0));
        let seconds = took.iter().sum::<Duration>().as_secs_f64();
        Self {
            phase: phase.to_owned(),
            services: 1,
            calls: counted.reads + counted.writes,
            reads: counted.reads,
            writes: counted.writes,
            throttled: counted.throttled,
            seconds: round(seconds, 1000.0),
            p50_ms: ms(50),
            p99_ms: ms(99),
        }
    }

    /// What Berth is to reach, and whether it did.
    pub fn verdicts(&self) -> Vec<Verdict> {
        let each = |calls: usize| calls as f64 / self.services.max(1) as f64;
        let at_most = |what, measured: f64, limit: f64| Verdict {
            what,
            measured: format!("{measured:.1}"),
            target: format!("<= {limit:.0}"),
            met: measured <= limit,
        };
        let count = |what, measured: usize, limit: usize| Verdict {
            what,
            measured: measured.to_string(),
            target: format!("<= {limit}"),
            met: measured <= limit,
        };
        match self.phase.as_str() {
            "create" => vec![
                at_most("calls to make a Service", each(self.calls), CREATE),
                at_most("of them reads", each(self.reads), CREATE_READS),
            ],
            "restart" => {
                vec![count("calls after a restart", self.calls, RESTART - 1), count("of them writes", self.writes, 0)]
            }
            "node-added" => vec![
                count("writes for a node", self.writes, self.services + 1),
                count("reads for a node", self.reads, NODE_READS),
            ],
            "delete" => vec![at_most("calls to delete a Service", each(self.calls), DELETE)],
            "register" | "deregister" => vec![
                at_most("ms to a change, p50", self.p50_ms.unwrap_or(f64::MAX), CHANGE_MS.0),
                at_most("ms to a change, p99", self.p99_ms.unwrap_or(f64::MAX), CHANGE_MS.1),
            ],
            "shared-pod" => vec![at_most("s to the last of a pod", self.seconds, SHARED_S)],
            _ => Vec::new(),
        }
    }
}

/// The rows and Berth's targets, for a person.
pub fn table(rows: &[Row]) -> String {
    let mut text = format!(
        "{:<11} {:>8} {:>6} {:>6} {:>6} {:>9} {:>9} {:>8} {:>8}\n",
        "phase", "services", "calls", "reads", "writes", "throttled", "time", "p50", "p99"
    );
    for row in rows {
        let ms = |ms: Option<f64>| ms.map_or_else(String::new, |ms| format!("{ms:.0} ms"));
        let _ = writeln!(
            text,
            "{:<11} {:>8} {:>6} {:>6} {:>6} {:>9} {:>7.1} s {:>8} {:>8}",
            row.phase,
            row.services,
            row.calls,
            row.reads,
            row.writes,
            row.throttled,
            row.seconds,
            ms(row.p50_ms),
            ms(row.p99_ms)
        );
    }
    text.push('\n');
    for row in rows {
        for Verdict { what, measured, target, met } in row.verdicts() {
            let met = if met { "met" } else { "MISSED" };
            let _ = writeln!(text, "{:<11} {what:<26} {measured:>8}   {target:<8} {met}", row.phase);
        }
    }
    text.truncate(text.trim_end().len());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(phase: &str, services: usize, reads: usize, writes: usize) -> Row {
        let (seconds, p50_ms, p99_ms) = (3.0, Some(50.0), Some(1000.0));
        Row {
            phase: phase.to_owned(),
            services,
            calls: reads + writes,
            reads,
            writes,
            throttled: 0,
            seconds,
            p50_ms,
            p99_ms,
        }
    }

    #[test]
    fn each_target_is_met_up_to_its_limit_and_missed_behind_it() {
        for (row, missed) in [
            (row("create", 10, 40, 80), 0),
            (row("create", 10, 41, 79), 1),
            (row("create", 10, 40, 81), 1),
            (row("restart", 10, 99, 0), 0),
            (row("restart", 10, 100, 0), 1),
            (row("restart", 10, 0, 1), 1),
            (row("node-added", 10, 20, 11), 0),
            (row("node-added", 10, 21, 12), 2),
            (row("delete", 10, 30, 30), 0),
            (row("delete", 10, 30, 31), 1),
            (row("register", 1, 0, 1), 0),
            (Row { p50_ms: Some(50.1), p99_ms: Some(1000.1), ..row("register", 1, 0, 1) }, 2),
            (Row { p50_ms: None, ..row("deregister", 1, 0, 1) }, 1),
            (row("shared-pod", 50, 0, 50), 0),
            (Row { seconds: 3.1, ..row("shared-pod", 50, 0, 50) }, 1),
            (row("throttled", 20, 400, 400), 0),
        ] {
            assert_eq!(row.verdicts().iter().filter(|verdict| !verdict.met).count(), missed, "{row:?}");
        }
    }

    #[test]
    fn a_row_is_one_json_object_with_the_documented_keys() {
        let plain = Row { p50_ms: None, p99_ms: None, ..row("create", 200, 400, 800) };
        assert_eq!(
            serde_json::to_string(&plain).unwrap(),
            r#"{"phase":"create","services":200,"calls":1200,"reads":400,"writes":800,"throttled":0,"seconds":3.0}"#
        );
    }

    #[test]
    fn many_changes_are_told_by_how_long_most_of_them_took() {
        let mut took: Vec<_> = (1..=100).map(Duration::from_millis).collect();
        let call =
            |action: &str, throttled| Call { action: action.to_owned(), form: String::new(), at: 0.0, throttled };
        let mut counted = Counted::default();
        for _ in 0..2 {
            counted.add(&[call("RegisterTargets", false), call("RegisterTargets", true), call("DescribeTags", false)]);
        }
        let row = Row::change("register", &mut took, counted);
        assert_eq!((row.p50_ms, row.p99_ms), (Some(50.0), Some(99.0)));
        assert_eq!((row.calls, row.reads, row.writes, row.throttled), (4, 2, 2, 2));
    }
}
