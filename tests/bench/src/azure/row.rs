//! What was measured, what it is to be, and both as a table.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::row::Verdict;

/// Writes of each document that many Services made or deleted at once may take (fewer than ten, issue 9).
const WRITES: u64 = 9;
/// From the first of them to the last address, in seconds, each operation taking two.
const MANY_S: f64 = 60.0;
/// Calls that a restart may take, however many Services there are.
const RESTART: u64 = 40;

/// One phase. The names are those of the JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// What was done.
    pub phase: String,
    /// With how many Services.
    pub services: usize,
    /// With how many nodes.
    pub nodes: usize,
    /// Calls that only look, also at how an operation goes.
    pub reads: u64,
    /// Calls that change something.
    pub writes: u64,
    /// Of these, those of load balancers.
    pub load_balancer_writes: u64,
    /// Those of the network security group.
    pub security_group_writes: u64,
    /// Those of backend pools.
    pub pool_writes: u64,
    /// From the first change to what it was done for.
    pub seconds: f64,
}

impl Row {
    /// What a phase came to, from what the stand-in counted: such as `PUT loadBalancers`.
    pub(super) fn of(
        phase: &str,
        (services, nodes): (usize, usize),
        counts: &BTreeMap<String, u64>,
        seconds: f64,
    ) -> Self {
        let sum = |is: &dyn Fn(&str, &str) -> bool| {
            let split = counts.iter().filter_map(|(what, count)| Some((what.split_once(' ')?, count)));
            split.filter(|((method, kind), _)| is(method, kind)).map(|(_, count)| count).sum()
        };
        let of = |wanted: &'static str| move |method: &str, kind: &str| method != "GET" && kind == wanted;
        Self {
            phase: phase.to_owned(),
            services,
            nodes,
            reads: sum(&|method, kind| method == "GET" && kind != "tokens"),
            writes: sum(&|method, kind| method != "GET" && kind != "tokens"),
            load_balancer_writes: sum(&of("loadBalancers")),
            security_group_writes: sum(&of("networkSecurityGroups")),
            pool_writes: sum(&of("backendAddressPools")),
            seconds,
        }
    }

    /// What Berth is to reach, and whether it did.
    pub fn verdicts(&self) -> Vec<Verdict> {
        let count = |what, measured: u64, limit: u64| Verdict {
            what,
            measured: measured.to_string(),
            target: format!("<= {limit}"),
            met: measured <= limit,
        };
        let documents = [
            count("load balancer writes", self.load_balancer_writes, WRITES),
            count("security group writes", self.security_group_writes, WRITES),
        ];
        match self.phase.as_str() {
            "create" => documents
                .into_iter()
                .chain([Verdict {
                    what: "s to the last address",
                    measured: format!("{:.1}", self.seconds),
                    target: format!("<= {MANY_S:.0}"),
                    met: self.seconds <= MANY_S,
                }])
                .collect(),
            "delete" => documents.into(),
            "restart" => vec![
                count("reads after a restart", self.reads, RESTART),
                count("writes after a restart", self.writes, 0),
            ],
            "node-added" => {
                vec![count("pool writes for a node", self.pool_writes, 1), count("writes for a node", self.writes, 1)]
            }
            _ => Vec::new(),
        }
    }
}

/// The rows and Berth's targets, for a person.
pub fn table(rows: &[Row]) -> String {
    let mut text = format!(
        "{:<11} {:>8} {:>6} {:>6} {:>7} {:>15} {:>15} {:>6} {:>9}\n",
        "phase", "services", "nodes", "reads", "writes", "load balancers", "security group", "pools", "time"
    );
    for row in rows {
        let _ = writeln!(
            text,
            "{:<11} {:>8} {:>6} {:>6} {:>7} {:>15} {:>15} {:>6} {:>7.1} s",
            row.phase,
            row.services,
            row.nodes,
            row.reads,
            row.writes,
            row.load_balancer_writes,
            row.security_group_writes,
            row.pool_writes,
            row.seconds
        );
    }
    text.push('\n');
    for row in rows {
        for Verdict { what, measured, target, met } in row.verdicts() {
            let met = if met { "met" } else { "MISSED" };
            let _ = writeln!(text, "{:<11} {what:<24} {measured:>8}   {target:<8} {met}", row.phase);
        }
    }
    text.truncate(text.trim_end().len());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(pairs: &[(&str, u64)]) -> BTreeMap<String, u64> {
        pairs.iter().map(|(what, count)| ((*what).to_owned(), *count)).collect()
    }

    #[test]
    fn calls_are_told_apart_by_what_they_write() {
        let counted = counts(&[
            ("GET loadBalancers", 4),
            ("GET operations", 6),
            ("PUT loadBalancers", 2),
            ("DELETE loadBalancers", 1),
            ("PUT networkSecurityGroups", 3),
            ("PUT backendAddressPools", 1),
            ("PUT publicIPAddresses", 5),
            ("POST tokens", 1),
        ]);
        let row = Row::of("create", (240, 3), &counted, 12.0);
        assert_eq!((row.reads, row.writes), (10, 12));
        assert_eq!((row.load_balancer_writes, row.security_group_writes, row.pool_writes), (3, 3, 1));
    }

    #[test]
    fn a_target_is_missed_by_one_too_many() {
        for (phase, counted, seconds, missed) in [
            ("create", counts(&[("PUT loadBalancers", 9), ("PUT networkSecurityGroups", 9)]), 60.0, 0),
            ("create", counts(&[("PUT loadBalancers", 10), ("PUT networkSecurityGroups", 10)]), 60.1, 3),
            ("restart", counts(&[("GET loadBalancers", 40)]), 1.0, 0),
            ("restart", counts(&[("PUT loadBalancers", 1)]), 1.0, 1),
            ("node-added", counts(&[("PUT backendAddressPools", 1)]), 1.0, 0),
            ("node-added", counts(&[("PUT backendAddressPools", 2)]), 1.0, 2),
            ("delete", counts(&[("PUT loadBalancers", 10)]), 1.0, 1),
        ] {
            let row = Row::of(phase, (1, 1), &counted, seconds);
            let found = row.verdicts().iter().filter(|verdict| !verdict.met).count();
            assert_eq!(found, missed, "{phase} {counted:?}");
        }
        let text = table(&[Row::of("delete", (1, 1), &counts(&[("PUT loadBalancers", 10)]), 1.0)]);
        assert!(text.contains("MISSED"), "{text}");
    }
}
