//! Carries out plans: the only place that writes. Every step is idempotent.

use std::net::IpAddr;

use berth_api::names::CONTROLLER_FIELD_MANAGER;
use berth_api::{IPAddressPool, L2Advertisement, Reason, RouteAdvertisement, SpeakerNode};
use berth_pool::driver::{self, WriteError as Failed};
use berth_pool::report::{self, OwnStatus};
use berth_pool::view::{self, AdvertisementKind, ServiceView};
use berth_pool::world::Change;
use berth_provider::class::Classes;
use k8s_openapi::api::core::v1::Service;
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use tokio::sync::watch;

use crate::events::Events;
use crate::lease::Leadership;
use crate::metrics::{Metrics, WriteLabels};
use crate::plan::Step;
use crate::status::{self, ServiceStatus};

/// Why a write failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    #[error(transparent)]
    Failed(#[from] Failed),
    /// The Service is another one than was planned on, or has changed since.
    #[error("Service `{name}` has changed since it was planned")]
    Outdated { name: String, planned_on: u64 },
    /// The watch has not shown a Service that is there.
    #[error("Service `{name}` is there and was not shown yet")]
    Behind { name: String },
    /// Another replica leads, or may lead any moment.
    #[error("this replica leads no more")]
    NotLeading,
}

impl WriteError {
    /// Why what a Service is to have cannot be written until somebody mends something.
    pub(crate) fn refusal(&self) -> Option<Reason> {
        match self {
            Self::Failed(failed) => failed.refusal(),
            Self::Outdated { .. } | Self::Behind { .. } | Self::NotLeading => None,
        }
    }
}

/// Writes, with what it needs for it.
#[derive(Clone)]
pub(crate) struct Applier {
    pub(crate) client: Client,
    pub(crate) events: Events,
    pub(crate) metrics: Metrics,
    pub(crate) leadership: watch::Receiver<Leadership>,
    pub(crate) classes: Classes,
}

/// What the API server answered. Of a Service only the version: what it says is left to the watch, because an answer that
/// comes after what the watch said since would undo it.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    /// Announcements as they are since.
    pub(crate) announcements: Vec<Change>,
    /// The version of the Service with its status.
    pub(crate) service_version: Option<u64>,
}

impl Applier {
    /// Carries out the steps in their order up to the first that fails.
    pub(crate) async fn run(&self, steps: Vec<Step>) -> (Answers, Result<(), WriteError>) {
        let mut answers = Answers::default();
        for step in steps {
            // A plan may have waited long, in a process that was paused: what another replica did meanwhile is not known here.
            if !self.leads() {
                return (answers, Err(WriteError::NotLeading));
            }
            if let Err(error) = self.step(step, &mut answers).await {
                return (answers, Err(error));
            }
        }
        (answers, Ok(()))
    }

    fn leads(&self) -> bool {
        self.leadership.borrow().holds()
    }

    async fn step(&self, step: Step, answers: &mut Answers) -> Result<(), WriteError> {
        match step {
            Step::Pool(step) => {
                let written = driver::write(&self.client, &step).await;
                answers.announcements.push(self.counted("Announcement", written)?);
            }
            Step::Gone(key) => {
                let api: Api<Service> = Api::namespaced(self.client.clone(), &key.namespace);
                let name = key.to_string();
                let there = driver::call("get", "Service", &name, api.get_opt(&key.name)).await?;
                // One that asks nobody here, and carries nothing of ours, is as good as gone.
                if there.and_then(|service| ServiceView::of(&service, (&self.classes.of(&service)).into())).is_some() {
                    return Err(WriteError::Behind { name });
                }
            }
            Step::Status(status, notes) => {
                answers.service_version = self.service_status(status).await?;
                for note in notes {
                    self.events.publish(note);
                }
            }
        }
        Ok(())
    }

    async fn service_status(&self, status: ServiceStatus) -> Result<Option<u64>, WriteError> {
        let ServiceStatus { key, body, planned_on, addresses } = status;
        let api: Api<Service> = Api::namespaced(self.client.clone(), &key.namespace);
        let params = PatchParams::apply(CONTROLLER_FIELD_MANAGER).force();
        let patch = Patch::Apply(&body);
        let request = api.patch_status(&key.name, &params, &patch);
        match self.counted("Service", driver::call("apply", "Service", &key.to_string(), request).await) {
            Ok(service) => {
                tracing::info!(service = %key, ?addresses, "status written");
                Ok(Some(view::version(&service.metadata)))
            }
            // It was deleted meanwhile; the watch says so too.
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) if error.result() == "conflict" => {
                Err(WriteError::Outdated { name: key.to_string(), planned_on })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Writes the status of a pool.
    pub(crate) async fn pool_status(&self, status: OwnStatus) -> Result<Option<u64>, WriteError> {
        self.own_status::<IPAddressPool>("IPAddressPool", status).await
    }

    /// Writes the status of an advertisement.
    pub(crate) async fn advertisement_status(
        &self,
        kind: AdvertisementKind,
        status: OwnStatus,
    ) -> Result<Option<u64>, WriteError> {
        match kind {
            AdvertisementKind::Layer2 => self.own_status::<L2Advertisement>(kind.as_str(), status).await,
            AdvertisementKind::Route => self.own_status::<RouteAdvertisement>(kind.as_str(), status).await,
        }
    }

    /// Writes what a node is to ask for ahead of need.
    pub(crate) async fn sweep(&self, name: &str, sweep: &[IpAddr]) -> Result<(), WriteError> {
        if !self.leads() {
            return Err(WriteError::NotLeading);
        }
        let api: Api<SpeakerNode> = Api::all(self.client.clone());
        let params = PatchParams::apply(CONTROLLER_FIELD_MANAGER).force();
        let body = report::sweep_change(name, sweep);
        let patch = Patch::Apply(&body);
        let request = api.patch_status(name, &params, &patch);
        match self.counted("SpeakerNode", driver::call("apply", "SpeakerNode", name, request).await) {
            Ok(_) => Ok(()),
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Returns the version that the object has since.
    async fn own_status<K>(&self, kind: &'static str, status: OwnStatus) -> Result<Option<u64>, WriteError>
    where
        K: kube::Resource<DynamicType = (), Scope = kube::core::ClusterResourceScope>
            + Clone
            + std::fmt::Debug
            + serde::de::DeserializeOwned,
    {
        if !self.leads() {
            return Err(WriteError::NotLeading);
        }
        let api: Api<K> = Api::all(self.client.clone());
        let params = PatchParams::apply(CONTROLLER_FIELD_MANAGER).force();
        let patch = Patch::Apply(&status.body);
        let request = api.patch_status(&status.name, &params, &patch);
        match self.counted(kind, driver::call("apply", kind, &status.name, request).await) {
            Ok(written) => {
                for (regarding, condition) in status.news {
                    tracing::info!(kind, name = status.name, reason = %condition.reason, "status written");
                    self.events.publish(status::note(regarding, &condition));
                }
                Ok(Some(view::version(written.meta())))
            }
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn counted<T>(&self, kind: &'static str, written: Result<T, Failed>) -> Result<T, Failed> {
        let result = written.as_ref().map_or_else(Failed::result, |_| "ok");
        self.metrics.writes.get_or_create(&WriteLabels { kind, result }).inc();
        written
    }
}
