//! What a Service is to a provider that plans whole shards.

use berth_api::names::FINALIZER;
use berth_provider::{Failure, Intent};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// What a Service is to a provider.
#[derive(Clone, Debug)]
pub(crate) enum Wish {
    /// It asks for a load balancer.
    Served(Box<Seen>),
    /// It has our finalizer and is another's, nobody's, or being deleted: nothing of it is to remain.
    Leaves(Box<Seen>),
    /// Nothing, or it is not there any more.
    Nothing,
}

/// A Service, as it was seen.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// What it asks for.
    pub(crate) intent: Intent,
    /// What it is marked with.
    pub(crate) mark: Mark,
}

/// The finalizers of a Service, at a version of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mark {
    /// All of them, ours and others'.
    pub(crate) finalizers: Vec<String>,
    /// `metadata.resourceVersion`.
    pub(crate) version: String,
}

impl Seen {
    pub(crate) fn of(service: &Service) -> Result<Self, Failure> {
        Ok(Self { intent: Intent::of(service)?, mark: Mark::of(&service.metadata) })
    }
}

impl Mark {
    pub(crate) fn of(meta: &ObjectMeta) -> Self {
        Self {
            finalizers: meta.finalizers.clone().unwrap_or_default(),
            version: meta.resource_version.clone().unwrap_or_default(),
        }
    }

    /// Whether ours is among them.
    pub(crate) fn is_ours(&self) -> bool {
        self.finalizers.iter().any(|finalizer| finalizer == FINALIZER)
    }

    /// All of them with ours, or without.
    pub(crate) fn with_ours(&self, ours: bool) -> Vec<String> {
        let others = self.finalizers.iter().filter(|finalizer| *finalizer != FINALIZER).cloned();
        others.chain(ours.then(|| FINALIZER.to_owned())).collect()
    }
}
