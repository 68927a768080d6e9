//! What was measured: a row for each subject, what Berth is to reach, and both as a table.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::subject::Subject;

/// The total that is allowed, as a multiple of the floor's: what thinking and telling may cost beside the writes.
const TOTAL_OVER_FLOOR: f64 = 1.5;
/// What may be added to the floor's 99th percentile, in milliseconds.
const P99_OVER_FLOOR_MS: f64 = 100.0;
/// Longest from being leader to the first new address after a restart, in seconds.
const RESTART_S: f64 = 3.0;
/// Memory at 10,000 Services, in MB. With fewer Services it is held as well.
const RSS_MB: f64 = 60.0;

/// What was measured of one subject. The names are those of the JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Who.
    pub subject: Subject,
    /// How many Services were created at once.
    pub services: usize,
    /// How many had addresses before.
    pub existing: usize,
    /// The floor's total in the same run.
    pub floor_s: f64,
    /// The floor's 99th percentile in the same run.
    pub floor_p99_ms: f64,
    /// From the first create call to the last address.
    pub total_s: f64,
    /// How long a Service waited, in the middle of all.
    pub p50_ms: f64,
    /// How long 99 in 100 waited at most.
    pub p99_ms: f64,
    /// How long the last one waited.
    pub max_ms: f64,
    /// Resident memory with all Services there, in MB of 1,000,000 bytes: before or after the restart, whichever is more.
    pub rss_mb: f64,
    /// After a restart with all Services there: from being leader to the address of a Service created meanwhile.
    pub restart_to_first_s: f64,
}

/// One figure that Berth is to reach.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// What is judged.
    pub what: &'static str,
    /// What was measured, and its unit.
    pub measured: String,
    /// What it is to be, and its unit.
    pub target: String,
    /// Whether it is so.
    pub met: bool,
}

impl Row {
    /// What Berth is to reach, and whether it did.
    pub fn verdicts(&self) -> Vec<Verdict> {
        let at_most = |what, measured: f64, limit: f64, unit: &str| Verdict {
            what,
            measured: format!("{measured:.2} {unit}"),
            target: format!("<= {limit:.2} {unit}"),
            met: measured <= limit,
        };
        vec![
            at_most("total", self.total_s, self.floor_s * TOTAL_OVER_FLOOR, "s"),
            at_most("p99", self.p99_ms, self.floor_p99_ms + P99_OVER_FLOOR_MS, "ms"),
            at_most("memory", self.rss_mb, RSS_MB, "MB"),
            at_most("first after a restart", self.restart_to_first_s, RESTART_S, "s"),
        ]
    }
}

/// The rows and Berth's targets, for a person.
pub fn table(rows: &[Row]) -> String {
    let mut text = String::new();
    let head = ["subject", "total", "p50", "p99", "max", "memory", "first after a restart"];
    let mut line = |cells: [String; 7]| {
        let [subject, numbers @ ..] = cells;
        let _ = write!(text, "{subject:<8}");
        for cell in numbers {
            let _ = write!(text, " {cell:>11}");
        }
        text.push('\n');
    };
    line(head.map(str::to_owned));
    for row in rows {
        line([
            row.subject.to_string(),
            format!("{:.2} s", row.total_s),
            format!("{:.0} ms", row.p50_ms),
            format!("{:.0} ms", row.p99_ms),
            format!("{:.0} ms", row.max_ms),
            format!("{:.1} MB", row.rss_mb),
            format!("{:.2} s", row.restart_to_first_s),
        ]);
    }
    for row in rows.iter().filter(|row| row.subject == Subject::Berth) {
        text.push('\n');
        for Verdict { what, measured, target, met } in row.verdicts() {
            let met = if met { "met" } else { "MISSED" };
            let _ = writeln!(text, "{what:<22} {measured:>12}   {target:<16} {met}");
        }
    }
    text.truncate(text.trim_end().len());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> Row {
        Row {
            subject: Subject::Berth,
            services: 1000,
            existing: 0,
            floor_s: 2.0,
            floor_p99_ms: 50.0,
            total_s: 3.0,
            p50_ms: 20.0,
            p99_ms: 150.0,
            max_ms: 200.0,
            rss_mb: 60.0,
            restart_to_first_s: 3.0,
        }
    }

    #[test]
    fn each_target_is_met_up_to_its_limit_and_missed_behind_it() {
        let missed = |row: &Row| {
            let verdicts = row.verdicts().into_iter().filter(|verdict| !verdict.met);
            verdicts.map(|verdict| verdict.what).collect::<Vec<_>>()
        };
        for (row, expected) in [
            (row(), &[][..]),
            (Row { total_s: 3.01, ..row() }, &["total"]),
            (Row { floor_s: 1.9, ..row() }, &["total"]),
            (Row { p99_ms: 150.1, ..row() }, &["p99"]),
            (Row { rss_mb: 60.1, ..row() }, &["memory"]),
            (Row { restart_to_first_s: 3.01, ..row() }, &["first after a restart"]),
        ] {
            assert_eq!(missed(&row), expected, "{row:?}");
        }
    }

    #[test]
    fn a_row_is_one_json_object_with_the_documented_keys() {
        let json = serde_json::to_string(&row()).unwrap();
        assert_eq!(
            json,
            r#"{"subject":"berth","services":1000,"existing":0,"floor_s":2.0,"floor_p99_ms":50.0,"total_s":3.0,"p50_ms":20.0,"p99_ms":150.0,"max_ms":200.0,"rss_mb":60.0,"restart_to_first_s":3.0}"#
        );
    }

    #[test]
    fn the_table_names_what_was_missed() {
        let text = table(&[Row { subject: Subject::Floor, ..row() }, Row { rss_mb: 70.0, ..row() }]);
        assert_eq!(text.matches("MISSED").count(), 1, "{text}");
        assert!(text.contains("memory                     70.00 MB   <= 60.00 MB      MISSED"), "{text}");
    }
}
