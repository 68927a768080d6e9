//! What is kept of an EndpointSlice.

use std::collections::BTreeMap;
use std::sync::Arc;

use berth_api::IpFamily;
use berth_api::service::ServiceKey;
use k8s_openapi::api::discovery::v1::{EndpointConditions, EndpointSlice};

use super::Interner;

/// Label of an EndpointSlice that names its Service (Kubernetes convention).
const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

/// The nodes on which a slice has an endpoint that serves, and the Service that it belongs to. A dual-stack Service has slices of
/// both families, and the endpoints of one do not serve the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SliceView {
    /// The Service.
    pub service: ServiceKey,
    /// The family of its addresses.
    pub family: IpFamily,
    /// The nodes, each once, in the order of their names.
    pub serving: Box<[OnNode]>,
    /// Whether an endpoint serves of which no node is known.
    pub elsewhere: bool,
}

/// A node with endpoints that serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnNode {
    /// Its name.
    pub node: Arc<str>,
    /// How many of them are ready, too: one that is about to end serves as long as there is no other, and health checks do not
    /// count it (KEP-1669).
    pub ready: u32,
}

impl SliceView {
    /// Parses it.
    pub fn of(slice: &EndpointSlice) -> Option<Self> {
        let name = slice.metadata.labels.as_ref()?.get(SERVICE_NAME_LABEL)?.clone();
        // The third type is FQDN.
        let family = slice.address_type.parse().ok()?;
        let service = ServiceKey { namespace: slice.metadata.namespace.clone()?, name };
        let (mut serving, mut elsewhere) = (BTreeMap::<&str, u32>::new(), false);
        for endpoint in &slice.endpoints {
            let conditions = endpoint.conditions.as_ref();
            // Ready unless said otherwise, also where not ready ones are to be published (EndpointSlice API).
            let ready = conditions.and_then(|c| c.ready).unwrap_or(true);
            let still_serves = |c: &EndpointConditions| c.serving == Some(true);
            if !ready && !conditions.is_some_and(still_serves) {
                continue;
            }
            match endpoint.node_name.as_deref() {
                Some(node) => *serving.entry(node).or_default() += u32::from(ready),
                None => elsewhere = true,
            }
        }
        let serving = serving.into_iter().map(|(node, ready)| OnNode { node: Arc::from(node), ready }).collect();
        Some(Self { service, family, serving, elsewhere })
    }

    /// Whether any endpoint serves.
    pub fn serves(&self) -> bool {
        self.elsewhere || !self.serving.is_empty()
    }

    /// Lets it have names in common with others.
    pub fn intern(&mut self, interner: &mut Interner) {
        self.serving.iter_mut().for_each(|on| interner.name(&mut on.node));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn slice(address_type: &str, endpoints: Value) -> Option<SliceView> {
        let slice: EndpointSlice = serde_json::from_value(json!({
            "metadata": {"name": "web-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": address_type, "endpoints": endpoints,
        }))
        .unwrap();
        SliceView::of(&slice)
    }

    #[test]
    fn an_endpoint_serves_when_ready_or_terminating_but_serving_and_health_checks_count_the_ready_ones() {
        let endpoint = |node: &str, conditions: Value| json!({"addresses": ["10.0.0.1"], "nodeName": node, "conditions": conditions});
        let ready = || json!({"ready": true, "serving": true, "terminating": false});
        let ending = || json!({"ready": false, "serving": true, "terminating": true});
        let gone = || json!({"ready": false, "serving": false, "terminating": true});
        let view = slice(
            "IPv4",
            json!([
                {"addresses": ["10.0.0.1"], "nodeName": "unknown-is-ready"},
                endpoint("two", ready()),
                endpoint("two", ready()),
                endpoint("two", gone()),
                endpoint("not-ready", json!({"ready": false})),
                endpoint("one-ends", ready()),
                endpoint("one-ends", ending()),
                endpoint("all-end", ending()),
                endpoint("gone", gone()),
                // Published although it is not ready (`publishNotReadyAddresses`).
                endpoint("published", json!({"ready": true, "serving": false, "terminating": false})),
            ]),
        );
        let view = view.unwrap();
        assert_eq!(view.family, IpFamily::V4);
        let told: Vec<_> = view.serving.iter().map(|on| format!("{} {}", on.node, on.ready)).collect();
        assert_eq!(told, ["all-end 0", "one-ends 1", "published 1", "two 2", "unknown-is-ready 1"]);
    }

    #[test]
    fn a_slice_serves_when_any_endpoint_does_also_one_of_no_known_node() {
        for (endpoints, serves) in [
            (json!([]), false),
            (json!([{"addresses": ["10.0.0.1"], "conditions": {"ready": false}}]), false),
            (json!([{"addresses": ["10.0.0.1"], "conditions": {"ready": true}}]), true),
            (json!([{"addresses": ["10.0.0.1"], "nodeName": "a", "conditions": {"ready": true}}]), true),
        ] {
            assert_eq!(slice("IPv4", endpoints.clone()).unwrap().serves(), serves, "{endpoints}");
        }
    }

    #[test]
    fn a_slice_is_of_the_family_of_its_address_type_or_none() {
        for (address_type, family) in [("IPv4", Some(IpFamily::V4)), ("IPv6", Some(IpFamily::V6)), ("FQDN", None)] {
            assert_eq!(slice(address_type, json!([])).map(|view| view.family), family, "{address_type}");
        }
    }
}
