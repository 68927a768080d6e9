//! What `kubectl berth rebalance` plans.
//!
//! The field names are what `-o json` and `-o yaml` promise; the schema of them is generated into the reference.

use std::net::IpAddr;

use berth_pool::rebalance::{Move, Rebalance, Share};
use schemars::{JsonSchema, schema_for};
use serde::Serialize;
use serde_json::Value;

use crate::table::{Cell, Style, Table};

/// Which addresses are to move, and what each node owns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(title = "kubectl berth rebalance -o json")]
pub struct RebalanceReport {
    /// In the order in which they are made.
    pub moves: Vec<PlannedMove>,
    /// Every node, by name.
    pub nodes: Vec<NodeShare>,
}

/// An address that is to move.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct PlannedMove {
    /// The address.
    #[schemars(with = "String")]
    pub address: IpAddr,
    /// The Services that hold it, each as namespace/name.
    pub services: Vec<String>,
    /// The node that answers now.
    pub from: String,
    /// The node that is to.
    pub to: String,
}

/// What a node owns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct NodeShare {
    /// Its name.
    pub node: String,
    /// How many addresses now.
    pub before: u64,
    /// How many afterwards.
    pub after: u64,
    /// The most that it may own before something moves away, which is a quarter more than its share; null where it owns nothing.
    pub most: Option<u64>,
}

impl RebalanceReport {
    /// The report of a plan.
    pub fn of(planned: &Rebalance) -> Self {
        let Rebalance { moves, nodes } = planned.clone();
        let planned = |Move { address, services, from, to, name: _ }: Move| PlannedMove {
            address,
            services: services.iter().map(ToString::to_string).collect(),
            from,
            to,
        };
        let share = |Share { node, before, after, most }| NodeShare { node, before, after, most };
        Self { moves: moves.into_iter().map(planned).collect(), nodes: nodes.into_iter().map(share).collect() }
    }
}

/// The JSON schema of the report.
pub fn schema() -> Value {
    schema_for!(RebalanceReport).to_value()
}

/// `3 addresses`.
pub fn addresses(count: usize) -> String {
    if count == 1 { "1 address".to_owned() } else { format!("{count} addresses") }
}

/// The report as people read it.
pub fn tables(report: &RebalanceReport, wide: bool, style: Style) -> String {
    let mut nodes = Table::new(vec!["NODE", "BEFORE", "AFTER", "MOST"]);
    for share in &report.nodes {
        let count = |count: u64| Cell::from(count.to_string());
        nodes.row(vec![share.node.clone().into(), count(share.before), count(share.after), Cell::or_none(share.most)]);
    }
    let mut parts = vec![nodes.render(style)];
    if !report.moves.is_empty() {
        let mut moves = Table::new(vec!["ADDRESS", "SERVICES", "FROM", "TO"]);
        for planned in &report.moves {
            let first = planned.services.first().cloned().unwrap_or_default();
            let more = planned.services.len().saturating_sub(1);
            let services = match (wide, more) {
                (true, _) => planned.services.join(","),
                (false, 0) => first,
                (false, more) => format!("{first},+{more}"),
            };
            let address = planned.address.to_string();
            moves.row(vec![
                address.into(),
                Cell::or_none(Some(services)),
                planned.from.clone().into(),
                planned.to.clone().into(),
            ]);
        }
        parts.push(moves.render(style));
    }
    parts.push(format!("Moves: {}\n", report.moves.len()));
    parts.join("\n")
}

#[cfg(test)]
mod tests {
    use berth_api::service::ServiceKey;
    use serde_json::json;

    use super::*;

    fn report() -> RebalanceReport {
        let service = |name: &str| ServiceKey { namespace: "shop".to_owned(), name: name.to_owned() };
        let moved = Move {
            address: [192, 0, 2, 1].into(),
            name: "192.0.2.1".to_owned(),
            services: vec![service("web"), service("api")],
            from: "node-1".to_owned(),
            to: "node-2".to_owned(),
        };
        let share = |node: &str, before, after, most| Share { node: node.to_owned(), before, after, most };
        let nodes = vec![share("node-1", 4, 3, Some(3)), share("node-2", 0, 1, None)];
        RebalanceReport::of(&Rebalance { moves: vec![moved], nodes })
    }

    #[test]
    fn a_plan_is_what_nodes_own_and_what_moves() {
        let expected = "\
NODE     BEFORE   AFTER   MOST
node-1   4        3       3
node-2   0        1       <none>

ADDRESS     SERVICES      FROM     TO
192.0.2.1   shop/web,+1   node-1   node-2

Moves: 1
";
        assert_eq!(tables(&report(), false, Style::Plain), expected);
        assert!(tables(&report(), true, Style::Plain).contains("shop/web,shop/api"));
    }

    #[test]
    fn the_report_has_stable_names_in_json() {
        assert_eq!(
            serde_json::to_value(report()).unwrap(),
            json!({
                "moves": [{"address": "192.0.2.1", "services": ["shop/web", "shop/api"], "from": "node-1", "to": "node-2"}],
                "nodes": [{"node": "node-1", "before": 4, "after": 3, "most": 3},
                          {"node": "node-2", "before": 0, "after": 1, "most": null}],
            })
        );
    }
}
