//! Carries out steps: the only place here that writes.

use std::net::IpAddr;
use std::time::Duration;

use berth_api::names::CONTROLLER_FIELD_MANAGER;
use berth_api::{Announcement, Reason};
use berth_provider::{Class, Failure};
use berth_telemetry::brief;
use kube::api::{Api, DeleteParams, PostParams, Preconditions};
use kube::{Client, ResourceExt};

use crate::plan::{AnnouncementIdentity, Step};
use crate::view::AnnouncementView;
use crate::world::Change;

/// Longest that one write may take: an API server that does not answer is no reason to hold a Service's turn for good.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

const ANNOUNCEMENT: &str = "Announcement";

/// Why a write failed.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The API server refused it, or was not reached.
    #[error("cannot {verb} {kind} `{name}`: {}", brief(&**source))]
    Api {
        /// What was to be done.
        verb: &'static str,
        /// With an object of which kind.
        kind: &'static str,
        /// Its name.
        name: String,
        /// What it said.
        #[source]
        source: Box<kube::Error>,
    },
    /// No answer came.
    #[error("cannot {verb} {kind} `{name}`: no answer from the API server for {} s", WRITE_TIMEOUT.as_secs())]
    Silent {
        /// What was to be done.
        verb: &'static str,
        /// With an object of which kind.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// The address was claimed by somebody else first.
    #[error("{address} was claimed by somebody else first")]
    Taken {
        /// The address.
        address: IpAddr,
    },
}

impl WriteError {
    /// What it is counted as.
    pub fn result(&self) -> &'static str {
        match self {
            Self::Silent { .. } => "timeout",
            Self::Taken { .. } => "taken",
            Self::Api { source, .. } => match &**source {
                kube::Error::Api(status) if status.code == 409 => "conflict",
                kube::Error::Api(status) if status.code == 403 => "forbidden",
                kube::Error::Api(status) if status.code == 422 => "invalid",
                kube::Error::Api(status) if status.code == 429 => "throttled",
                _ => "error",
            },
        }
    }

    /// Why a claim, or a change of one, cannot succeed until somebody mends something.
    pub fn refusal(&self) -> Option<Reason> {
        match (self, self.result()) {
            (Self::Api { kind: ANNOUNCEMENT, .. }, "forbidden") => Some(Reason::PermissionDenied),
            (Self::Api { kind: ANNOUNCEMENT, .. }, "invalid") => Some(Reason::ClaimRefused),
            _ => None,
        }
    }

    /// Whether there is no such object.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Api { source, .. } if is_not_found(source))
    }

    fn class(&self) -> Class {
        match self.result() {
            "conflict" => Class::Conflict,
            "forbidden" => Class::Permission,
            "throttled" => Class::Throttled,
            _ if matches!(self, Self::Taken { .. }) => Class::Conflict,
            _ => Class::Transient,
        }
    }
}

impl From<WriteError> for Failure {
    fn from(error: WriteError) -> Self {
        Self::new(error.class(), error.to_string())
    }
}

/// Makes a request, but waits no longer than [`WRITE_TIMEOUT`].
pub async fn call<T>(
    verb: &'static str,
    kind: &'static str,
    name: &str,
    request: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, WriteError> {
    match tokio::time::timeout(WRITE_TIMEOUT, request).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(source)) => Err(WriteError::Api { verb, kind, name: name.to_owned(), source: Box::new(source) }),
        Err(_) => Err(WriteError::Silent { verb, kind, name: name.to_owned() }),
    }
}

/// Carries out one step, and says what is known since.
pub async fn write(client: &Client, step: &Step) -> Result<Change, WriteError> {
    let api: Api<Announcement> = Api::all(client.clone());
    match step {
        Step::Claim { address, announcement } => claim(&api, *address, announcement).await,
        Step::Update { announcement } => update(&api, announcement).await,
        Step::Release(identity) => release(&api, identity).await,
    }
}

async fn claim(api: &Api<Announcement>, address: IpAddr, announcement: &Announcement) -> Result<Change, WriteError> {
    let name = announcement.name_any();
    match call("create", ANNOUNCEMENT, &name, api.create(&post_params(), announcement)).await {
        Ok(created) => {
            tracing::info!(%address, service = %holder(announcement), "claimed");
            Ok(learned(&created))
        }
        // Perhaps our own, made before an answer was lost; a look says whose.
        Err(WriteError::Api { source, .. }) if is_already_exists(&source) => Err(WriteError::Taken { address }),
        Err(error) => Err(error),
    }
}

async fn update(api: &Api<Announcement>, announcement: &Announcement) -> Result<Change, WriteError> {
    let name = announcement.name_any();
    let updated = call("update", ANNOUNCEMENT, &name, api.replace(&name, &post_params(), announcement)).await?;
    if let Some(layer2) = &updated.spec.layer2 {
        let owner = layer2.owner.as_deref().unwrap_or("nobody");
        tracing::info!(address = %name, owner, epoch = layer2.epoch, standbys = ?layer2.standbys, "placed");
    }
    Ok(learned(&updated))
}

async fn release(api: &Api<Announcement>, identity: &AnnouncementIdentity) -> Result<Change, WriteError> {
    let AnnouncementIdentity { name, uid, resource_version, .. } = identity.clone();
    let preconditions = Preconditions { uid: Some(uid), resource_version: Some(resource_version) };
    let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
    match call("delete", ANNOUNCEMENT, &name, api.delete(&name, &params)).await {
        Ok(_) => tracing::info!(address = %name, "released"),
        Err(error) if error.is_not_found() => {}
        Err(error) => return Err(error),
    }
    Ok(Change::Announcement(name, None))
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
