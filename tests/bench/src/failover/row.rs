//! What was measured: a row for each fault, family and kind of client; what Berth is to reach; and both as a table.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::fault::{Cause, Fault};
use crate::client::{Family, Kind};
use crate::load::round;
use crate::row::Verdict;

/// What a crash may cost a probe, in the middle of all runs and at most, in milliseconds.
const CRASH_MEDIAN_MS: f64 = 400.0;
const CRASH_MAX_MS: f64 = 800.0;
/// When the last of many addresses is to be back, in milliseconds.
const MANY_MAX_MS: f64 = 2_000.0;
/// The longest time between two answers that is no gap, in milliseconds. A client asks each 10 ms; on two cores that it shares with a
/// control plane, three kube-proxies, three speakers and the processes that come and go with a fault it waits for a core for some tens.
/// The shortest outage that Berth can cause, by a takeover, is four times as long.
const NO_GAP_MS: f64 = 100.0;

/// What was measured. The names are those of the JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// What went wrong.
    pub fault: Cause,
    /// Of which family the address was that was asked.
    pub family: Family,
    /// Who asked.
    pub client: Kind,
    /// How often it was measured.
    pub runs: usize,
    /// The longest time without an answer in each run.
    pub gap_ms: Millis,
    /// Connections that were lost in all runs.
    pub resets: u64,
    /// Frames of all runs by which a second node said to have the address, beyond the time in which two may.
    pub second_claims: u64,
    /// How often the address changed its owner in all runs.
    pub moves: u64,
}

/// Times of several runs, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Millis {
    /// The shortest.
    pub min: f64,
    /// The one in the middle, or half-way between the two that are.
    pub median: f64,
    /// The longest.
    pub max: f64,
}

impl Millis {
    pub(crate) fn of(mut all: Vec<f64>) -> Self {
        all.sort_unstable_by(f64::total_cmp);
        let at = |index: usize| all.get(index).copied().unwrap_or_default();
        let last = all.len().saturating_sub(1);
        let median = f64::midpoint(at(last / 2), at(last.div_ceil(2)));
        Self { min: at(0), median: round(median, 10.0), max: at(last) }
    }
}

impl Row {
    /// What Berth is to reach, and whether it did.
    pub fn verdicts(&self) -> Vec<Verdict> {
        let ms = |what, measured: f64, limit: f64| Verdict {
            what,
            measured: format!("{measured:.0} ms"),
            target: format!("< {limit:.0} ms"),
            met: measured < limit,
        };
        let none = |what, measured: u64| Verdict {
            what,
            measured: measured.to_string(),
            target: "0".to_owned(),
            met: measured == 0,
        };
        let mut verdicts = vec![none("second claims", self.second_claims)];
        let is_new = self.client != Kind::Established;
        match self.fault {
            Cause::Fault(Fault::Crash) if self.client == Kind::Probe => verdicts.extend([
                ms("median gap", self.gap_ms.median, CRASH_MEDIAN_MS),
                ms("longest gap", self.gap_ms.max, CRASH_MAX_MS),
            ]),
            Cause::Fault(Fault::Crash1000) => verdicts.push(ms("last address", self.gap_ms.max, MANY_MAX_MS)),
            Cause::Fault(Fault::Kill | Fault::Stop | Fault::Rollout) => verdicts.extend([
                ms("longest gap", self.gap_ms.max, NO_GAP_MS),
                none("resets", self.resets),
                none("moves", self.moves),
            ]),
            Cause::Fault(Fault::Drain) if is_new => verdicts.push(ms("longest gap", self.gap_ms.max, NO_GAP_MS)),
            // A move resets the established connection, so one that a client can notice shows there.
            Cause::Load => verdicts.push(none("resets", self.resets)),
            Cause::Fault(_) => {}
        }
        verdicts
    }
}

/// Whether a target was missed.
pub fn missed(rows: &[Row]) -> bool {
    rows.iter().flat_map(Row::verdicts).any(|verdict| !verdict.met)
}

/// The rows, and Berth's targets, for a person. Of targets that are met only how many there are.
pub fn table(rows: &[Row]) -> String {
    let mut text = format!(
        "{:<11} {:<6} {:<12} {:>5} {:>9} {:>9} {:>9} {:>7} {:>14} {:>6}\n",
        "fault", "family", "client", "runs", "gap min", "median", "max", "resets", "second claims", "moves"
    );
    for row in rows {
        let gap = [row.gap_ms.min, row.gap_ms.median, row.gap_ms.max].map(|ms| format!("{ms:.0} ms"));
        let _ = writeln!(
            text,
            "{:<11} {:<6} {:<12} {:>5} {:>9} {:>9} {:>9} {:>7} {:>14} {:>6}",
            row.fault,
            word(row.family),
            word(row.client),
            row.runs,
            gap[0],
            gap[1],
            gap[2],
            row.resets,
            row.second_claims,
            row.moves
        );
    }
    let mut met = 0;
    let mut lines = String::new();
    for row in rows {
        for verdict in row.verdicts() {
            if verdict.met {
                met += 1;
                continue;
            }
            let who = format!("{} {} {}", row.fault, word(row.family), word(row.client));
            let Verdict { what, measured, target, .. } = verdict;
            let _ = writeln!(lines, "{who:<32} {what:<14} {measured:>9}   {target:<10} MISSED");
        }
    }
    let _ = write!(text, "\n{lines}{met} targets met, {} missed", lines.lines().count());
    text
}

/// As JSON has it.
fn word(what: impl std::fmt::Debug) -> String {
    format!("{what:?}").to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(fault: Cause, client: Kind) -> Row {
        let gap_ms = Millis { min: 11.0, median: 21.0, max: 31.0 };
        Row { fault, family: Family::Ipv4, client, runs: 20, gap_ms, resets: 0, second_claims: 0, moves: 0 }
    }

    #[test]
    fn the_median_is_in_the_middle() {
        for (all, min, median, max) in [
            (&[3.0, 1.0, 2.0][..], 1.0, 2.0, 3.0),
            (&[4.0, 1.0, 2.0, 3.0], 1.0, 2.5, 4.0),
            (&[7.0], 7.0, 7.0, 7.0),
            (&[], 0.0, 0.0, 0.0),
        ] {
            assert_eq!(Millis::of(all.to_vec()), Millis { min, median, max }, "{all:?}");
        }
    }

    #[test]
    fn each_target_is_that_of_its_fault_and_client() {
        let gap = |median, max| Millis { min: 0.0, median, max };
        let fault = |fault, client| row(Cause::Fault(fault), client);
        let slow = |row: Row| Row { gap_ms: gap(400.0, 2_000.0), ..row };
        let bad = |row: Row| Row { resets: 1, moves: 1, ..slow(row) };
        for (row, expected) in [
            (bad(fault(Fault::Crash, Kind::Probe)), &["median gap", "longest gap"][..]),
            (bad(fault(Fault::Crash, Kind::Plain)), &[]),
            (bad(fault(Fault::ApiDown, Kind::Probe)), &[]),
            (bad(fault(Fault::Crash1000, Kind::Probe)), &["last address"]),
            (bad(fault(Fault::Kill, Kind::Established)), &["longest gap", "resets", "moves"]),
            (bad(fault(Fault::Stop, Kind::Probe)), &["longest gap", "resets", "moves"]),
            (bad(fault(Fault::Rollout, Kind::Plain)), &["longest gap", "resets", "moves"]),
            (bad(fault(Fault::Drain, Kind::Plain)), &["longest gap"]),
            (bad(fault(Fault::Drain, Kind::Established)), &[]),
            (bad(fault(Fault::Partition, Kind::Probe)), &[]),
            (bad(row(Cause::Load, Kind::Established)), &["resets"]),
            (Row { second_claims: 1, ..fault(Fault::Partition, Kind::Plain) }, &["second claims"]),
            (fault(Fault::Kill, Kind::Probe), &[]),
        ] {
            let missed: Vec<_> = row.verdicts().into_iter().filter(|v| !v.met).map(|v| v.what).collect();
            assert_eq!(missed, expected, "{row:?}");
        }
    }

    #[test]
    fn a_row_is_one_json_object_with_the_documented_keys() {
        for (cause, name) in [
            (Cause::Fault(Fault::Crash1000), "crash-1000"),
            (Cause::Fault(Fault::ApiDown), "api-down"),
            (Cause::Load, "load"),
        ] {
            let row = row(cause, Kind::Probe);
            let json = serde_json::to_string(&row).unwrap();
            assert_eq!(
                json,
                format!(
                    r#"{{"fault":"{name}","family":"ipv4","client":"probe","runs":20,"gap_ms":{{"min":11.0,"median":21.0,"max":31.0}},"resets":0,"second_claims":0,"moves":0}}"#
                )
            );
            assert_eq!(serde_json::from_str::<Row>(&json).unwrap(), row);
            assert_eq!(cause.to_string(), name);
        }
    }

    #[test]
    fn the_table_names_what_was_missed_and_counts_what_was_met() {
        let fine = row(Cause::Fault(Fault::Drain), Kind::Probe);
        let text = table(&[fine.clone(), Row { second_claims: 2, ..fine }]);
        assert!(text.ends_with("3 targets met, 1 missed"), "{text}");
        let missed: Vec<_> = text.lines().filter(|line| line.ends_with("MISSED")).collect();
        assert_eq!(missed, ["drain ipv4 probe                 second claims          2   0          MISSED"]);
    }
}
