//! What is kept of a Node.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use berth_api::annotations::DRAIN;
use berth_api::names::{EXCLUDE_NODE_LABEL, OUT_OF_SERVICE_TAINT};
use berth_api::pool::IpRange;
use k8s_openapi::api::core::v1::Node;

use crate::placement::Draining;

/// What the annotation that asks for a drain has to say.
const ASKED: &str = "true";

/// What a Node says; its interfaces come from its SpeakerNode.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct NodeView {
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The addresses in its status.
    pub addresses: BTreeSet<IpAddr>,
    /// The addresses that its pods have.
    pub pod_ranges: Vec<IpRange>,
    /// Its condition Ready is True.
    pub ready: bool,
    /// Its condition NetworkUnavailable is True.
    pub network_unavailable: bool,
    /// Why it is to give up what it owns, whether or not being cordoned is a reason.
    pub draining: Option<Draining>,
    /// It is cordoned.
    pub cordoned: bool,
}

impl NodeView {
    /// Parses it.
    pub fn of(node: &Node) -> Self {
        let (spec, status) = (node.spec.as_ref(), node.status.as_ref());
        let condition = |kind: &str| {
            let conditions = status.and_then(|s| s.conditions.as_ref()).into_iter().flatten();
            conditions.into_iter().any(|c| c.type_ == kind && c.status == "True")
        };
        let mut taints = spec.and_then(|spec| spec.taints.as_ref()).into_iter().flatten();
        let out_of_service = taints.any(|taint| taint.key == OUT_OF_SERVICE_TAINT);
        let asked = node.metadata.annotations.as_ref().and_then(|a| a.get(DRAIN)).is_some_and(|value| value == ASKED);
        Self {
            labels: node.metadata.labels.clone().unwrap_or_default(),
            addresses: status
                .and_then(|s| s.addresses.as_ref())
                .into_iter()
                .flatten()
                .filter_map(|a| a.address.parse().ok())
                .collect(),
            pod_ranges: {
                let one = spec.and_then(|s| s.pod_cidr.as_ref());
                let all = spec.and_then(|s| s.pod_cidrs.as_ref()).into_iter().flatten().chain(one);
                let ranges: BTreeSet<IpRange> = all.filter_map(|cidr| cidr.parse().ok()).collect();
                ranges.into_iter().collect()
            },
            ready: condition("Ready"),
            network_unavailable: condition("NetworkUnavailable"),
            draining: match (out_of_service, asked) {
                (true, _) => Some(Draining::OutOfService),
                (false, true) => Some(Draining::Asked),
                (false, false) => None,
            },
            cordoned: spec.and_then(|spec| spec.unschedulable).unwrap_or(false),
        }
    }

    /// Whether it has the exclude label.
    pub fn excluded(&self) -> bool {
        self.labels.contains_key(EXCLUDE_NODE_LABEL)
    }

    /// Why it is to give up what it owns, if it is; being cordoned is a reason where `on_cordon`.
    pub fn gives_up(&self, on_cordon: bool) -> Option<Draining> {
        self.draining.or((on_cordon && self.cordoned).then_some(Draining::Cordoned))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_node_is_drained_by_taint_by_annotation_and_where_it_is_wished_by_cordon() {
        use Draining::{Asked, Cordoned, OutOfService};
        let taint = |key: &str| json!({"taints": [{"key": key, "effect": "NoExecute"}]});
        let annotated = |value: &str| json!({DRAIN: value});
        for (what, annotations, spec, told, told_on_cordon) in [
            ("nothing", json!({}), json!({}), None, None),
            ("another taint", json!({}), taint("node.kubernetes.io/unschedulable"), None, None),
            ("the taint", json!({}), taint(OUT_OF_SERVICE_TAINT), Some(OutOfService), Some(OutOfService)),
            ("the annotation", annotated("true"), json!({}), Some(Asked), Some(Asked)),
            ("the annotation with another value", annotated("false"), json!({}), None, None),
            ("cordoned", json!({}), json!({"unschedulable": true}), None, Some(Cordoned)),
            ("cordoned and asked for", annotated("true"), json!({"unschedulable": true}), Some(Asked), Some(Asked)),
            (
                "both, of which one says more",
                annotated("true"),
                taint(OUT_OF_SERVICE_TAINT),
                Some(OutOfService),
                Some(OutOfService),
            ),
        ] {
            let node: Value = json!({"metadata": {"name": "a", "annotations": annotations}, "spec": spec});
            let view = NodeView::of(&serde_json::from_value(node).unwrap());
            assert_eq!([view.gives_up(false), view.gives_up(true)], [told, told_on_cordon], "{what}");
        }
    }
}
