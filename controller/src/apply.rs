//! Carries out plans: the only place that writes. Every step is idempotent.

use std::net::Ipv4Addr;

use berth_api::names::CONTROLLER_FIELD_MANAGER;
use berth_api::{Announcement, IPAddressPool, L2Advertisement, Reason};
use berth_telemetry::brief;
use k8s_openapi::api::core::v1::Service;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Client, ResourceExt};

use crate::backoff::WRITE_TIMEOUT;
use crate::events::Events;
use crate::metrics::{Metrics, WriteLabels};
use crate::plan::{AnnouncementIdentity, Step};
use crate::status::{OwnStatus, ServiceStatus};
use crate::view::{self, AnnouncementView};
use crate::world::Change;

/// Why a write failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    #[error("cannot {verb} {kind} `{name}`: {}", brief(&**source))]
    Api {
        verb: &'static str,
        kind: &'static str,
        name: String,
        #[source]
        source: Box<kube::Error>,
    },
    #[error("cannot {verb} {kind} `{name}`: no answer from the API server for {} s", WRITE_TIMEOUT.as_secs())]
    Silent { verb: &'static str, kind: &'static str, name: String },
    /// The address was claimed by somebody else first.
    #[error("{address} was claimed by somebody else first")]
    Taken { address: Ipv4Addr },
}

impl WriteError {
    /// What it is counted as.
    pub(crate) fn result(&self) -> &'static str {
        match self {
            Self::Silent { .. } => "timeout",
            Self::Taken { .. } => Reason::AddressTaken.as_str(),
            Self::Api { source, .. } => match &**source {
                kube::Error::Api(status) if status.code == 409 => "conflict",
                kube::Error::Api(status) if status.code == 403 => "forbidden",
                kube::Error::Api(status) if status.code == 422 => "invalid",
                kube::Error::Api(status) if status.code == 429 => "throttled",
                _ => "error",
            },
        }
    }
}

/// Writes, with what it needs for it.
#[derive(Clone)]
pub(crate) struct Applier {
    pub(crate) client: Client,
    pub(crate) events: Events,
    pub(crate) metrics: Metrics,
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
            if let Err(error) = self.step(step, &mut answers).await {
                return (answers, Err(error));
            }
        }
        (answers, Ok(()))
    }

    async fn step(&self, step: Step, answers: &mut Answers) -> Result<(), WriteError> {
        match step {
            Step::Claim(address, announcement) => {
                answers.announcements.push(self.claim(address, &announcement).await?);
            }
            Step::Update(announcement) => answers.announcements.push(self.update(&announcement).await?),
            Step::Status(status, notes) => {
                answers.service_version = self.service_status(status).await?;
                for note in notes {
                    self.events.publish(note);
                }
            }
            Step::Release(identity) => answers.announcements.push(self.release(identity).await?),
        }
        Ok(())
    }

    async fn claim(&self, address: Ipv4Addr, announcement: &Announcement) -> Result<Change, WriteError> {
        let api: Api<Announcement> = Api::all(self.client.clone());
        let name = announcement.name_any();
        match self.call("create", "Announcement", &name, api.create(&post_params(), announcement)).await {
            Ok(created) => {
                tracing::info!(%address, service = %holder(announcement), "claimed");
                Ok(learned(&created))
            }
            // Perhaps our own, made before an answer was lost; the watch says whose.
            Err(WriteError::Api { source, .. }) if is_already_exists(&source) => Err(WriteError::Taken { address }),
            Err(error) => Err(error),
        }
    }

    async fn update(&self, announcement: &Announcement) -> Result<Change, WriteError> {
        let api: Api<Announcement> = Api::all(self.client.clone());
        let name = announcement.name_any();
        let updated =
            self.call("update", "Announcement", &name, api.replace(&name, &post_params(), announcement)).await?;
        if let Some(layer2) = &updated.spec.layer2 {
            let owner = layer2.owner.as_deref().unwrap_or("nobody");
            tracing::info!(address = %name, owner, epoch = layer2.epoch, standbys = ?layer2.standbys, "placed");
        }
        Ok(learned(&updated))
    }

    async fn service_status(&self, status: ServiceStatus) -> Result<Option<u64>, WriteError> {
        let ServiceStatus { key, body, addresses } = status;
        let api: Api<Service> = Api::namespaced(self.client.clone(), &key.namespace);
        let params = PatchParams::apply(CONTROLLER_FIELD_MANAGER).force();
        let patch = Patch::Apply(&body);
        match self.call("apply", "Service", &key.to_string(), api.patch_status(&key.name, &params, &patch)).await {
            Ok(service) => {
                tracing::info!(service = %key, ?addresses, "status written");
                Ok(Some(view::version(&service.metadata)))
            }
            // It was deleted meanwhile; the watch says so too.
            Err(WriteError::Api { source, .. }) if is_not_found(&source) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn release(&self, identity: AnnouncementIdentity) -> Result<Change, WriteError> {
        let api: Api<Announcement> = Api::all(self.client.clone());
        let name = identity.name;
        let preconditions =
            Preconditions { uid: Some(identity.uid), resource_version: Some(identity.resource_version) };
        let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        match self.call("delete", "Announcement", &name, api.delete(&name, &params)).await {
            Ok(_) => tracing::info!(address = %name, "released"),
            Err(WriteError::Api { source, .. }) if is_not_found(&source) => {}
            Err(error) => return Err(error),
        }
        Ok(Change::Announcement(name, None))
    }

    /// Writes the status of a pool.
    pub(crate) async fn pool_status(&self, status: OwnStatus) -> Result<(), WriteError> {
        self.own_status::<IPAddressPool>("IPAddressPool", status).await
    }

    /// Writes the status of an advertisement.
    pub(crate) async fn advertisement_status(&self, status: OwnStatus) -> Result<(), WriteError> {
        self.own_status::<L2Advertisement>("L2Advertisement", status).await
    }

    async fn own_status<K>(&self, kind: &'static str, status: OwnStatus) -> Result<(), WriteError>
    where
        K: kube::Resource<DynamicType = (), Scope = kube::core::ClusterResourceScope>
            + Clone
            + std::fmt::Debug
            + serde::de::DeserializeOwned,
    {
        let api: Api<K> = Api::all(self.client.clone());
        let params = PatchParams::apply(CONTROLLER_FIELD_MANAGER).force();
        let patch = Patch::Apply(&status.body);
        match self.call("apply", kind, &status.name, api.patch_status(&status.name, &params, &patch)).await {
            Ok(_) => {
                if let Some(note) = status.note {
                    tracing::info!(kind, name = status.name, reason = %note.reason, "status written");
                    self.events.publish(note);
                }
                Ok(())
            }
            Err(WriteError::Api { source, .. }) if is_not_found(&source) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn call<T>(
        &self,
        verb: &'static str,
        kind: &'static str,
        name: &str,
        request: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, WriteError> {
        let result = match tokio::time::timeout(WRITE_TIMEOUT, request).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(source)) => Err(WriteError::Api { verb, kind, name: name.to_owned(), source: Box::new(source) }),
            Err(_) => Err(WriteError::Silent { verb, kind, name: name.to_owned() }),
        };
        let label = result.as_ref().map_or_else(WriteError::result, |_| "ok");
        self.metrics.writes.get_or_create(&WriteLabels { kind, result: label }).inc();
        result
    }
}

fn post_params() -> PostParams {
    PostParams { field_manager: Some(CONTROLLER_FIELD_MANAGER.to_owned()), ..PostParams::default() }
}

fn learned(announcement: &Announcement) -> Change {
    Change::Announcement(announcement.name_any(), Some(AnnouncementView::of(announcement)))
}

fn holder(announcement: &Announcement) -> String {
    announcement.spec.services.first().map(|s| format!("{}/{}", s.namespace, s.name)).unwrap_or_default()
}

fn is_not_found(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_not_found())
}

fn is_already_exists(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_already_exists())
}
