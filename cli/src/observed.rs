//! What was read from the cluster, or why it could not be. What decides starts from here and does no I/O.

use berth_api::{Announcement, IPAddressPool, L2Advertisement, RouteAdvertisement, SpeakerNode};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Namespace, Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::ServiceCIDR;

use crate::report::Unreadable;

/// Something that was asked for.
#[derive(Clone, Debug)]
pub enum Seen<T> {
    /// It was read.
    Here(T),
    /// The API server does not know the kind.
    KindMissing,
    /// It could not be read, most often for want of rights: what, and the API server's words.
    Unreadable(Unreadable),
}

impl<T> Seen<T> {
    /// What was read.
    pub fn here(&self) -> Option<&T> {
        match self {
            Self::Here(value) => Some(value),
            Self::KindMissing | Self::Unreadable(_) => None,
        }
    }

    /// What was read, without what it came in.
    pub fn into_here(self) -> Option<T> {
        match self {
            Self::Here(value) => Some(value),
            Self::KindMissing | Self::Unreadable(_) => None,
        }
    }

    /// Why it could not be read.
    pub fn unreadable(&self) -> Option<&Unreadable> {
        match self {
            Self::Unreadable(why) => Some(why),
            Self::Here(_) | Self::KindMissing => None,
        }
    }
}

/// What the chain of a Service is followed in.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// All Announcements.
    pub announcements: Seen<Vec<Announcement>>,
    /// The EndpointSlices of the Services.
    pub slices: Seen<Vec<EndpointSlice>>,
    /// All Nodes.
    pub nodes: Seen<Vec<Node>>,
    /// The controller's Deployment, where there is one.
    pub controller: Seen<Option<Deployment>>,
}

impl Surroundings {
    /// What could not be read of it.
    pub fn unreadable(&self) -> Vec<Unreadable> {
        let Self { announcements, slices, nodes, controller } = self;
        let all = [announcements.unreadable(), slices.unreadable(), nodes.unreadable(), controller.unreadable()];
        all.into_iter().flatten().cloned().collect()
    }
}

/// What a summary is made of.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// Services of the namespace that is looked at, or of all.
    pub services: Seen<Vec<Service>>,
    /// That namespace; `None` for all.
    pub namespace: Option<String>,
    /// What their chains are followed in.
    pub around: Surroundings,
    /// All IPAddressPools.
    pub pools: Seen<Vec<IPAddressPool>>,
    /// All L2Advertisements.
    pub advertisements: Seen<Vec<L2Advertisement>>,
    /// All RouteAdvertisements.
    pub route_advertisements: Seen<Vec<RouteAdvertisement>>,
    /// All SpeakerNodes.
    pub speakers: Seen<Vec<SpeakerNode>>,
    /// The speakers' DaemonSet, where there is one.
    pub daemon_set: Seen<Option<DaemonSet>>,
    /// The leader's Lease, where there is one.
    pub lease: Seen<Option<Lease>>,
}

impl Cluster {
    /// What could not be read of it.
    pub fn unreadable(&self) -> Vec<Unreadable> {
        let Self { services, namespace: _, around, pools, advertisements, speakers, daemon_set, lease, .. } = self;
        let more = [
            services.unreadable(),
            pools.unreadable(),
            advertisements.unreadable(),
            self.route_advertisements.unreadable(),
            speakers.unreadable(),
            daemon_set.unreadable(),
            lease.unreadable(),
        ];
        let mut all = around.unreadable();
        all.extend(more.into_iter().flatten().cloned());
        all
    }
}

/// Everything that the controller watches, and how it was started.
#[derive(Clone, Debug)]
pub struct Everything {
    /// All Services.
    pub services: Seen<Vec<Service>>,
    /// All Namespaces.
    pub namespaces: Seen<Vec<Namespace>>,
    /// All ServiceCIDRs.
    pub service_cidrs: Seen<Vec<ServiceCIDR>>,
    /// All Nodes.
    pub nodes: Seen<Vec<Node>>,
    /// All EndpointSlices.
    pub slices: Seen<Vec<EndpointSlice>>,
    /// All Announcements.
    pub announcements: Seen<Vec<Announcement>>,
    /// All IPAddressPools.
    pub pools: Seen<Vec<IPAddressPool>>,
    /// All L2Advertisements.
    pub advertisements: Seen<Vec<L2Advertisement>>,
    /// All RouteAdvertisements.
    pub route_advertisements: Seen<Vec<RouteAdvertisement>>,
    /// All SpeakerNodes.
    pub speakers: Seen<Vec<SpeakerNode>>,
    /// The controller's Deployment, where there is one.
    pub controller: Seen<Option<Deployment>>,
}

impl Everything {
    /// What could not be read of what is watched.
    pub fn unreadable(&self) -> Vec<Unreadable> {
        let Self { services, namespaces, service_cidrs, nodes, slices, announcements, pools, .. } = self;
        let Self { advertisements, route_advertisements, speakers, .. } = self;
        let all = [
            services.unreadable(),
            namespaces.unreadable(),
            service_cidrs.unreadable(),
            nodes.unreadable(),
            slices.unreadable(),
            announcements.unreadable(),
            pools.unreadable(),
            advertisements.unreadable(),
            route_advertisements.unreadable(),
            speakers.unreadable(),
        ];
        all.into_iter().flatten().cloned().collect()
    }
}
