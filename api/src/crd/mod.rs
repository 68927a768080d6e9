//! Berth's custom resources, all cluster-scoped, in `berth.dev/v1alpha1`.
//!
//! Kinds and field names follow MetalLB where the meaning is the same. A field that is not served yet is
//! not in the schema, so the API server says "unknown field" instead of Berth ignoring it.

mod announcement;
mod ip_address_pool;
mod l2_advertisement;
mod speaker_node;

pub use announcement::{
    Announcement, AnnouncementSpec, AnnouncementStatus, Layer2Assignment, Layer2Status, Member, ServiceRef,
};
pub use ip_address_pool::{IPAddressPool, IPAddressPoolSpec, IPAddressPoolStatus};
pub use l2_advertisement::{L2Advertisement, L2AdvertisementSpec, L2AdvertisementStatus};
pub use speaker_node::{Interface, SpeakerNode, SpeakerNodeSpec};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

/// All our CustomResourceDefinitions, in the order in which `deploy/crds` lists them.
pub fn all() -> Vec<CustomResourceDefinition> {
    vec![Announcement::crd(), IPAddressPool::crd(), L2Advertisement::crd(), SpeakerNode::crd()]
}
