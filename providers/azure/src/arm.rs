//! The calls to the Azure Resource Manager (ARM), as a trait: documents as they are, in JSON.

use std::fmt;
use std::time::Duration;

use berth_api::Reason;
use berth_provider::{Class, Failure};
use serde::Serialize;
use serde_json::Value;

use crate::settings::{Place, Settings};

/// The path of a resource: `/subscriptions/…`. Paths that differ in case alone are the same (ARM rule).
#[derive(Clone, Debug, Serialize)]
#[serde(transparent)]
pub struct Id(String);

impl Id {
    /// This one.
    pub fn new(path: impl Into<String>) -> Self {
        Self(path.into())
    }

    /// The path.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The last part of the path.
    pub fn name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or_default()
    }

    /// The resource group that it is in.
    pub fn group(&self) -> Option<&str> {
        self.0.split('/').nth(4)
    }

    /// A part of the resource.
    #[must_use]
    pub fn child(&self, kind: &str, name: &str) -> Self {
        Self(format!("{self}/{kind}/{name}"))
    }

    /// Of the network provider.
    pub fn network(settings: &Settings, group: &str, kind: &str, name: &str) -> Self {
        Self(format!("{}/{name}", collection(settings, group, kind)))
    }

    /// Of the network provider, where it is.
    pub fn at(settings: &Settings, kind: &str, place: &Place) -> Self {
        Self::network(settings, &place.group, kind, &place.name)
    }
}

/// Where all resources of a kind in a resource group are.
pub fn collection(settings: &Settings, group: &str, kind: &str) -> String {
    format!("/subscriptions/{}/resourceGroups/{group}/providers/Microsoft.Network/{kind}", settings.subscription)
}

impl PartialEq for Id {
    fn eq(&self, other: &Self) -> bool {
        self.0.eq_ignore_ascii_case(&other.0)
    }
}

impl Eq for Id {}

impl PartialOrd for Id {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Id {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.to_ascii_lowercase().cmp(&other.0.to_ascii_lowercase())
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Under which condition a document is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// None is there.
    New,
    /// The one that is there has this ETag.
    Is(String),
}

/// How far a write is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Until it is accepted. How it went is seen by looking.
    Accepted,
    /// Until it is done.
    Done,
}

/// What a call comes to.
pub type Called<T> = Result<T, ArmError>;

/// The resource manager.
pub trait Arm: Send + Sync + 'static {
    /// A resource, if there is one.
    fn get(&self, id: &Id) -> impl Future<Output = Called<Option<Value>>> + Send;

    /// All resources under a path, of all pages.
    fn list(&self, collection: &str) -> impl Future<Output = Called<Vec<Value>>> + Send;

    /// Writes a whole resource. Returns it as it is then.
    fn put(
        &self,
        id: &Id,
        body: &Value,
        condition: &Condition,
        wait: Wait,
    ) -> impl Future<Output = Called<Value>> + Send;

    /// Deletes a resource; where an ETag is given, that one alone. One that is not there is gone.
    fn delete(&self, id: &Id, if_match: Option<&str>, wait: Wait) -> impl Future<Output = Called<()>> + Send;
}

/// What kind of call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verb {
    /// It reads.
    Read,
    /// It writes.
    Write,
    /// It deletes.
    Delete,
}

impl Verb {
    /// As the names of Azure's rights end.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Delete => "delete",
        }
    }
}

/// The right that a call takes, such as `Microsoft.Network/loadBalancers/write`.
pub fn right(id: &Id, verb: Verb) -> String {
    let Some((_, typed)) = id.as_str().split_once("/providers/") else { return verb.as_str().to_owned() };
    let mut parts = typed.split('/');
    let mut right = parts.next().unwrap_or_default().to_owned();
    // Kinds and names take turns.
    for kind in parts.step_by(2) {
        right.push('/');
        right.push_str(kind);
    }
    format!("{right}/{}", verb.as_str())
}

/// A call that failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {}{message}", self.right(), self.shown_code())]
pub struct ArmError {
    /// What was done.
    pub verb: Verb,
    /// To which resource.
    pub id: Id,
    /// The HTTP status; 0 when nothing was answered.
    pub status: u16,
    /// ARM's own code; empty when nothing was answered.
    pub code: String,
    /// What ARM says, with what it says in detail.
    pub message: String,
    /// How long it asks us to wait.
    pub retry_after: Option<Duration>,
}

/// Codes that mean that a limit is reached; a person raises it.
const LIMITS: &[&str] = &[
    "PublicIPCountLimitReached",
    "StandardSkuPublicIPCountLimitReached",
    "LoadBalancerCountLimitReached",
    "SubnetIsFull",
    "ResourceQuotaExceeded",
    "QuotaExceeded",
    "ReferencedPublicIPPrefixIsFull",
];
/// Codes that mean that what was looked at has changed or is being changed.
const CONFLICTS: &[&str] = &[
    "PreconditionFailed",
    "AnotherOperationInProgress",
    "OperationCanceled",
    "Canceled",
    "Conflict",
    "ReferencedResourceNotProvisioned",
    "PublicIPAddressCannotBeDeleted",
    "InUseLoadBalancerCannotBeDeleted",
    "RetryableError",
    "SecurityRuleConflict",
];

impl ArmError {
    /// No answer at all: whether the call was carried out is not known.
    pub fn unanswered(verb: Verb, id: &Id, message: impl Into<String>) -> Self {
        Self { verb, id: id.clone(), status: 0, code: String::new(), message: message.into(), retry_after: None }
    }

    /// The right that the call takes, such as `Microsoft.Network/loadBalancers/write`.
    pub fn right(&self) -> String {
        right(&self.id, self.verb)
    }

    fn shown_code(&self) -> String {
        if self.code.is_empty() { String::new() } else { format!("{}: ", self.code) }
    }

    /// The class that it is of, and the reason code if it has one of its own.
    pub fn class(&self) -> (Class, Option<Reason>) {
        let code = self.code.as_str();
        match self.status {
            _ if LIMITS.contains(&code) => (Class::Permission, Some(Reason::CloudLimit)),
            429 => (Class::Throttled, None),
            401 | 403 => (Class::Permission, None),
            // The group or subscription that was named is not there; asking again does not make it.
            404 if code.starts_with("ResourceGroup") || code.contains("Subscription") => (Class::Config, None),
            404 | 409 | 412 => (Class::Conflict, None),
            _ if CONFLICTS.contains(&code) => (Class::Conflict, None),
            // An operation that was accepted and failed has the status of the question how it goes.
            200..=299 if matches!(code, "InternalServerError" | "InternalError" | "") => (Class::Transient, None),
            200..=299 | 400 | 405 | 413 | 422 => (Class::Config, None),
            _ => (Class::Transient, None),
        }
    }

    /// What a person can do about it.
    fn advice(&self) -> String {
        match self.code.as_str() {
            "LinkedAuthorizationFailed" => {
                "; give Berth's identity the right to join that the message names, on that resource".to_owned()
            }
            _ if matches!(self.status, 401 | 403) => format!("; give Berth's identity the right {}", self.right()),
            "SubnetIsFull" => "; use a larger subnet, or another".to_owned(),
            code if LIMITS.contains(&code) => "; raise the limit, or need less".to_owned(),
            _ => String::new(),
        }
    }
}

impl From<ArmError> for Failure {
    fn from(error: ArmError) -> Self {
        let (class, reason) = error.class();
        let failure = Self::new(class, format!("{error}{}", error.advice())).reason(reason.unwrap_or(class.reason()));
        match error.retry_after {
            Some(wait) => failure.retry_after(wait),
            None => failure,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(status: u16, code: &str) -> ArmError {
        let id = Id::new(
            "/subscriptions/s/resourceGroups/g/providers/Microsoft.Network/loadBalancers/lb/backendAddressPools/p",
        );
        ArmError {
            verb: Verb::Write,
            id,
            status,
            code: code.to_owned(),
            message: "no".to_owned(),
            retry_after: Some(Duration::from_secs(7)),
        }
    }

    #[test]
    fn status_and_code_decide_the_class() {
        for (status, code, class, reason) in [
            (429, "TooManyRequests", Class::Throttled, Reason::ProviderThrottled),
            (403, "AuthorizationFailed", Class::Permission, Reason::PermissionDenied),
            (403, "LinkedAuthorizationFailed", Class::Permission, Reason::PermissionDenied),
            (400, "PublicIPCountLimitReached", Class::Permission, Reason::CloudLimit),
            (200, "SubnetIsFull", Class::Permission, Reason::CloudLimit),
            (412, "PreconditionFailed", Class::Conflict, Reason::ProviderConflict),
            (409, "AnotherOperationInProgress", Class::Conflict, Reason::ProviderConflict),
            (400, "PublicIPAddressCannotBeDeleted", Class::Conflict, Reason::ProviderConflict),
            (200, "ReferencedResourceNotProvisioned", Class::Conflict, Reason::ProviderConflict),
            (404, "ResourceNotFound", Class::Conflict, Reason::ProviderConflict),
            (404, "ResourceGroupNotFound", Class::Config, Reason::InvalidRequest),
            (400, "InvalidResourceReference", Class::Config, Reason::InvalidRequest),
            (400, "RulesUseSameBackendPortProtocolAndVnet", Class::Config, Reason::InvalidRequest),
            (200, "PrivateIPAddressInUse", Class::Config, Reason::InvalidRequest),
            (200, "InternalServerError", Class::Transient, Reason::ProviderUnavailable),
            (503, "ServerTimeout", Class::Transient, Reason::ProviderUnavailable),
            (0, "", Class::Transient, Reason::ProviderUnavailable),
        ] {
            let failure = Failure::from(error(status, code));
            assert_eq!((failure.class, failure.reason), (class, reason), "{status} {code}");
            assert!(failure.message.contains(code), "{failure}");
            assert_eq!(failure.retry_after, Some(Duration::from_secs(7)));
        }
    }

    #[test]
    fn a_missing_right_is_named() {
        let failure = Failure::from(error(403, "AuthorizationFailed"));
        let right = "Microsoft.Network/loadBalancers/backendAddressPools/write";
        assert!(failure.message.ends_with(&format!("; give Berth's identity the right {right}")), "{failure}");
    }

    #[test]
    fn paths_that_differ_in_case_alone_are_the_same() {
        assert_eq!(Id::new("/subscriptions/S/resourceGroups/Rg"), Id::new("/subscriptions/s/resourcegroups/rg"));
    }
}
