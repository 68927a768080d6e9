//! Berth's custom resources, all cluster-scoped, in `berth.dev/v1alpha1`.
//!
//! Kinds and field names follow MetalLB where the meaning is the same. A field that is not served yet is
//! not in the schema, so the API server says "unknown field" instead of Berth ignoring it.

mod announcement;
mod ip_address_pool;
mod l2_advertisement;
mod route_advertisement;
mod speaker_node;

pub use announcement::{
    Announcement, AnnouncementSpec, AnnouncementStatus, Caretaker, HEALTH_CHECK_NODES_MAX, Layer2Assignment,
    Layer2Status, LocalPolicy, Member, NodeEndpoints, ROUTE_WAYS_MAX, ROUTING_NODES_MAX, RouteAssignment, SERVICES_MAX,
    ServiceRef,
};
pub use ip_address_pool::{
    CoolingDown, IPAddressPool, IPAddressPoolSpec, IPAddressPoolStatus, QUARANTINED_MAX, Quarantined, ServiceAllocation,
};
pub use l2_advertisement::{L2Advertisement, L2AdvertisementSpec, L2AdvertisementStatus, PreferredNodeSelector};
pub use route_advertisement::{RouteAdvertisement, RouteAdvertisementSpec, RouteAdvertisementStatus, RouteForm};
pub use speaker_node::{
    Dataplane, Found, GATEWAYS_MAX, Interface, KERNEL_TRAPS_MAX, KernelTrap, KubeProxy, ROUTES_REFUSED_MAX,
    RefusedRoute, RouteRefusal, Routes, SWEEP_MAX, SpeakerNode, SpeakerNodeSpec, SpeakerNodeStatus, Trap,
};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{CustomResourceDefinition, JSON};
use kube::CustomResourceExt;

/// All our CustomResourceDefinitions, in the order in which `deploy/crds` lists them.
pub fn all() -> Vec<CustomResourceDefinition> {
    vec![
        Announcement::crd(),
        IPAddressPool::crd(),
        with_default_spec(L2Advertisement::crd()),
        with_default_spec(RouteAdvertisement::crd()),
        SpeakerNode::crd(),
    ]
}

/// Every field of the specification may be left out, so it may itself: an advertisement without one means all pools, as
/// in manifests that exist.
fn with_default_spec(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    for version in &mut crd.spec.versions {
        let schema = version.schema.as_mut().and_then(|s| s.open_api_v3_schema.as_mut());
        if let Some(spec) = schema.and_then(|s| s.properties.as_mut()).and_then(|p| p.get_mut("spec")) {
            spec.default = Some(JSON(serde_json::json!({})));
        }
    }
    crd
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_advertisement_may_leave_its_specification_out() {
        let crd = serde_json::to_value(all().remove(2)).unwrap();
        let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        assert_eq!(
            (&crd["spec"]["names"]["kind"], &schema["properties"]["spec"]["default"]),
            (&"L2Advertisement".into(), &serde_json::json!({}))
        );
    }
}
