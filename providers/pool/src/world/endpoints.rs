//! Where the endpoints of Services are.

use std::collections::BTreeSet;

use berth_api::IpFamily;
use berth_api::crd::{HEALTH_CHECK_NODES_MAX, NodeEndpoints};
use berth_api::service::ServiceKey;

use super::World;
use crate::view::SliceView;

impl World {
    /// The nodes on which a Service has an endpoint that serves a family.
    pub fn serving(&self, key: &ServiceKey, family: IpFamily) -> BTreeSet<String> {
        self.slices_for(key, family).flat_map(|slice| slice.serving.iter().map(|on| on.node.to_string())).collect()
    }

    /// Whether a Service has an endpoint that serves a family, wherever it is.
    pub fn serves(&self, key: &ServiceKey, family: IpFamily) -> bool {
        self.slices_for(key, family).any(SliceView::serves)
    }

    /// The endpoints of a Service on the nodes whose speakers answer its health checks, in the order of their names.
    pub fn checked(&self, key: &ServiceKey, family: IpFamily) -> Vec<NodeEndpoints> {
        let answers = |node: &String| {
            let dataplane = self.nodes.get(node).and_then(|node| node.dataplane);
            dataplane.is_some_and(|dataplane| dataplane.health_checks)
        };
        let nodes = self.serving(key, family).into_iter().filter(answers).take(HEALTH_CHECK_NODES_MAX);
        let ready = |node: &str| {
            let on = self.slices_for(key, family).flat_map(|slice| &slice.serving).filter(|on| &*on.node == node);
            on.map(|on| on.ready).sum()
        };
        nodes.map(|node| NodeEndpoints { ready: ready(&node), node }).collect()
    }

    fn slices_for(&self, key: &ServiceKey, family: IpFamily) -> impl Iterator<Item = &SliceView> {
        let names = self.slices_of.range((key.clone(), String::new())..);
        let names = names.take_while(move |(service, _)| service == key);
        let ids = names.map(|(service, name)| (service.namespace.clone(), name.clone()));
        ids.filter_map(|id| self.slices.get(&id)).map(Box::as_ref).filter(move |slice| slice.family == family)
    }
}
