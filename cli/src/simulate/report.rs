//! What `kubectl berth simulate` says.
//!
//! The field names are what `-o json` and `-o yaml` promise; the schema of them is generated into the reference.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use berth_api::Reason;
use berth_pool::forecast::simulate::{Fate, Fault, NodeLoad, Simulation, Turn};
use schemars::{JsonSchema, schema_for};
use serde::Serialize;
use serde_json::Value;

use crate::table::{Cell, Style, Table, Tone, paint};

/// What becomes of every address, and what each node owns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(title = "kubectl berth simulate -o json")]
pub struct SimulationReport {
    /// What happens to the nodes.
    pub fault: FaultWord,
    /// Which nodes those are, by name.
    pub targets: Vec<String>,
    /// Every address, lowest first, IPv4 before IPv6.
    pub addresses: Vec<SimulatedAddress>,
    /// Every node, by name.
    pub nodes: Vec<SimulatedNode>,
}

/// What happens to nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FaultWord {
    /// They die at once, without a word.
    Fail,
    /// They are to give up what they own.
    Drain,
}

/// What becomes of an address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct SimulatedAddress {
    /// The address.
    #[schemars(with = "String")]
    pub address: IpAddr,
    /// The Services that hold it, each as namespace/name.
    pub services: Vec<String>,
    /// The node that answers now; null when none does.
    pub before: Option<String>,
    /// The node that will; null when none will.
    pub after: Option<String>,
    /// What that means.
    pub change: FateWord,
    /// Why, as a stable code: one of the reasons of the reference.
    pub reason: String,
    /// Why, for a person.
    pub message: String,
}

/// What becomes of who answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FateWord {
    /// The same node goes on.
    Keep,
    /// A standby takes over by itself.
    Takeover,
    /// The controller names another node.
    Move,
    /// It stays on a node that is to be drained, because no other can answer.
    Blocked,
    /// A node answers now and none will.
    Lose,
    /// None answers now, and none will.
    None,
}

impl FateWord {
    fn of(turn: Turn) -> Self {
        match turn {
            Turn::Stays => Self::Keep,
            Turn::TakenOver => Self::Takeover,
            Turn::Moves => Self::Move,
            Turn::Blocked => Self::Blocked,
            Turn::Lost => Self::Lose,
            Turn::Unserved => Self::None,
        }
    }

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Keep => "keep",
            Self::Takeover => "takeover",
            Self::Move => "move",
            Self::Blocked => "blocked",
            Self::Lose => "lose",
            Self::None => "none",
        }
    }

    fn tone(self) -> Tone {
        match self {
            Self::Keep | Self::None => Tone::Neutral,
            Self::Takeover | Self::Move => Tone::Good,
            Self::Blocked | Self::Lose => Tone::Bad,
        }
    }
}

/// What a node owns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct SimulatedNode {
    /// Its name.
    pub node: String,
    /// How many addresses it answers for now.
    pub before: u64,
    /// How many afterwards.
    pub after: u64,
}

impl SimulationReport {
    /// The report of a simulation.
    pub fn of(fault: Fault, targets: BTreeSet<String>, simulation: Simulation) -> Self {
        let Simulation { addresses, nodes } = simulation;
        let fault = match fault {
            Fault::Fail => FaultWord::Fail,
            Fault::Drain => FaultWord::Drain,
        };
        let address = |fate: Fate| SimulatedAddress {
            address: fate.address,
            services: fate.services.iter().map(ToString::to_string).collect(),
            before: fate.before,
            after: fate.after,
            change: FateWord::of(fate.turn),
            reason: fate.reason.to_string(),
            message: fate.message,
        };
        let node = |NodeLoad { node, before, after }| SimulatedNode { node, before, after };
        Self {
            fault,
            targets: targets.into_iter().collect(),
            addresses: addresses.into_iter().map(address).collect(),
            nodes: nodes.into_iter().map(node).collect(),
        }
    }

    /// Whether an address is lost, or would be if the drained nodes were then stopped.
    pub fn loses(&self) -> bool {
        self.addresses.iter().any(|address| matches!(address.change, FateWord::Lose | FateWord::Blocked))
    }
}

/// The JSON schema of the report.
pub fn schema() -> Value {
    schema_for!(SimulationReport).to_value()
}

/// The report as people read it. Addresses that keep their node are left out unless `wide`.
pub fn tables(report: &SimulationReport, wide: bool, style: Style) -> String {
    let still = |word| matches!(word, FateWord::Keep | FateWord::None);
    let shown: Vec<_> = report.addresses.iter().filter(|address| wide || !still(address.change)).collect();
    let mut parts = Vec::new();
    if !shown.is_empty() {
        let mut table = Table::new(vec!["ADDRESS", "SERVICES", "BEFORE", "AFTER", "CHANGE", "REASON"]);
        for address in &shown {
            table.row(vec![
                address.address.to_string().into(),
                Cell::or_none(Some(address.services.join(","))),
                Cell::or_none(address.before.as_ref()),
                Cell::or_none(address.after.as_ref()),
                Cell::toned(address.change.as_str(), address.change.tone()),
                address.reason.clone().into(),
            ]);
        }
        parts.push(table.render(style));
    }
    let mut nodes = Table::new(vec!["NODE", "BEFORE", "AFTER"]);
    for node in &report.nodes {
        nodes.row(vec![node.node.clone().into(), node.before.to_string().into(), node.after.to_string().into()]);
    }
    parts.push(nodes.render(style));
    // Of what goes as it should, only that a step of it takes long is worth a line.
    let slow = |address: &SimulatedAddress| report.fault == FaultWord::Fail && address.change == FateWord::Move;
    let told = |address: &&&SimulatedAddress| slow(address) || address.reason != Reason::Announced.as_str();
    let lines = shown.iter().filter(told).map(|address| {
        let word = paint(address.change.as_str(), address.change.tone(), style);
        format!("{}: {word}: {}: {}\n", address.address, address.reason, address.message)
    });
    let lines: String = lines.collect();
    if !lines.is_empty() {
        parts.push(lines);
    }
    let mut counts = BTreeMap::<FateWord, usize>::new();
    for address in &report.addresses {
        *counts.entry(address.change).or_default() += 1;
    }
    let counted: Vec<_> = counts.iter().map(|(word, count)| format!("{count} {}", word.as_str())).collect();
    let counted = if counted.is_empty() { "none at all".to_owned() } else { counted.join(", ") };
    parts.push(format!("Addresses: {counted}\n"));
    parts.join("\n")
}

#[cfg(test)]
mod tests {
    use berth_api::service::ServiceKey;
    use serde_json::json;

    use super::*;

    fn report() -> SimulationReport {
        let fate = |last: u8, nodes: [Option<&str>; 2], turn, reason, message: &str| Fate {
            address: [192, 0, 2, last].into(),
            services: vec![ServiceKey { namespace: "shop".to_owned(), name: format!("s{last}") }],
            before: nodes[0].map(str::to_owned),
            after: nodes[1].map(str::to_owned),
            turn,
            reason,
            message: message.to_owned(),
        };
        let load = |node: &str, before, after| NodeLoad { node: node.to_owned(), before, after };
        let simulation = Simulation {
            addresses: vec![
                fate(1, [Some("a"), Some("b")], Turn::TakenOver, Reason::Announced, "a standby"),
                fate(2, [Some("a"), None], Turn::Lost, Reason::NoLocalEndpoints, "no pods"),
                fate(3, [Some("b"), Some("b")], Turn::Stays, Reason::Announced, "goes on"),
                fate(4, [Some("a"), Some("b")], Turn::Moves, Reason::Announced, "both at once"),
            ],
            nodes: vec![load("a", 3, 0), load("b", 1, 3)],
        };
        SimulationReport::of(Fault::Fail, BTreeSet::from(["a".to_owned()]), simulation)
    }

    #[test]
    fn a_simulation_is_two_tables_and_what_needs_words() {
        let expected = "\
ADDRESS     SERVICES   BEFORE   AFTER    CHANGE     REASON
192.0.2.1   shop/s1    a        b        takeover   Announced
192.0.2.2   shop/s2    a        <none>   lose       NoLocalEndpoints
192.0.2.4   shop/s4    a        b        move       Announced

NODE   BEFORE   AFTER
a      3        0
b      1        3

192.0.2.2: lose: NoLocalEndpoints: no pods
192.0.2.4: move: Announced: both at once

Addresses: 1 keep, 1 takeover, 1 move, 1 lose
";
        assert_eq!(tables(&report(), false, Style::Plain), expected);
        assert!(tables(&report(), true, Style::Plain).contains("192.0.2.3   shop/s3    b        b        keep"));
    }

    #[test]
    fn the_report_has_stable_names_in_json() {
        let value = serde_json::to_value(report()).unwrap();
        assert_eq!((&value["fault"], &value["targets"]), (&json!("fail"), &json!(["a"])));
        assert_eq!(
            value["addresses"][1],
            json!({"address": "192.0.2.2", "services": ["shop/s2"], "before": "a", "after": null, "change": "lose",
                   "reason": "NoLocalEndpoints", "message": "no pods"})
        );
        assert_eq!(value["nodes"][0], json!({"node": "a", "before": 3, "after": 0}));
        let schema = schema().to_string();
        for word in ["fault", "targets", "addresses", "nodes", "takeover", "blocked", "none"] {
            assert!(schema.contains(word), "{word}");
        }
    }

    #[test]
    fn what_is_lost_or_cannot_be_drained_is_a_loss_and_every_word_is_written_as_it_is_told() {
        for (turn, loses) in [
            (Turn::Stays, false),
            (Turn::TakenOver, false),
            (Turn::Moves, false),
            (Turn::Blocked, true),
            (Turn::Lost, true),
            (Turn::Unserved, false),
        ] {
            let word = FateWord::of(turn);
            assert_eq!(serde_json::to_value(word).unwrap(), word.as_str());
            let mut report = report();
            report.addresses.truncate(1);
            report.addresses[0].change = word;
            assert_eq!(report.loses(), loses, "{turn:?}");
        }
    }
}
