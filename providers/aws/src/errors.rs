//! What AWS answers when a call fails, and the class of errors that it is of.

use berth_api::Reason;
use berth_provider::{Class, Failure};

/// A call that failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{action}: {code}: {message}")]
pub struct CallError {
    /// The IAM action, such as `elasticloadbalancing:CreateListener`.
    pub action: &'static str,
    /// AWS's own code; empty when nothing was answered.
    pub code: String,
    /// What AWS says.
    pub message: String,
}

/// Codes that mean that fewer calls are asked for.
const THROTTLED: &[&str] = &[
    "Throttling",
    "ThrottlingException",
    "RequestLimitExceeded",
    "TooManyRequestsException",
    "RequestThrottled",
    "EC2ThrottledException",
];
/// Codes that mean that a right is missing.
const DENIED: &[&str] = &[
    "AccessDenied",
    "AccessDeniedException",
    "UnauthorizedOperation",
    "AuthFailure",
    "InvalidClientTokenId",
    "ExpiredToken",
    "ExpiredTokenException",
    "SignatureDoesNotMatch",
    "OptInRequired",
    "RequestExpired",
    "UnrecognizedClientException",
    "MissingAuthenticationToken",
    "IncompleteSignature",
];
/// Before the right that is missing, in what AWS says.
const DENIED_ACTION: &str = "is not authorized to perform:";
/// Codes that mean that a limit of the account is reached; a person raises it.
const LIMITS: &[&str] = &[
    "TooManyLoadBalancers",
    "TooManyListeners",
    "TooManyTargetGroups",
    "TooManyTargets",
    "TooManyCertificates",
    "TooManyTags",
    "TooManyRegistrationsForTargetId",
    "TooManyUniqueTargetGroupsPerLoadBalancer",
    "TargetGroupAssociationLimit",
    "SecurityGroupLimitExceeded",
    "RulesPerSecurityGroupLimitExceeded",
    "SecurityGroupsPerInterfaceLimitExceeded",
];
/// Codes that mean that what a Service names does not exist; it is a person who names it.
const NAMED: &[&str] = &["CertificateNotFound", "SSLPolicyNotFound", "AllocationIdNotFound"];
/// Codes that mean that what was looked at has changed.
const CONFLICTS: &[&str] = &[
    "ResourceInUse",
    "DependencyViolation",
    "InvalidPermission.Duplicate",
    // A security group that went while a load balancer was being made with it.
    "InvalidSecurityGroup",
    "DuplicateListener",
    "DuplicateTargetGroupName",
    "InvalidGroup.Duplicate",
    "PriorityInUse",
    "ConcurrentModification",
];

impl CallError {
    /// An answer of AWS.
    pub fn new(action: &'static str, code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { action, code: code.into(), message: message.into() }
    }

    /// No answer at all: whether the call was carried out is not known.
    pub fn unanswered(action: &'static str, message: impl Into<String>) -> Self {
        Self::new(action, "", message)
    }

    /// Whether what was named does not exist.
    pub fn is_not_found(&self) -> bool {
        self.code.ends_with("NotFound")
    }

    /// Whether something of the same name, port or content exists already.
    pub fn is_duplicate(&self) -> bool {
        self.code.starts_with("Duplicate") || self.code.ends_with(".Duplicate")
    }

    /// Whether something cannot be deleted because something else uses it, or did until a moment ago.
    pub fn is_in_use(&self) -> bool {
        matches!(self.code.as_str(), "ResourceInUse" | "DependencyViolation")
    }

    /// Whether AWS did nothing because it asks for fewer calls.
    pub fn is_throttled(&self) -> bool {
        self.class().0 == Class::Throttled
    }

    /// Whether the same call may well be answered the next time.
    pub fn is_transient(&self) -> bool {
        self.class().0 == Class::Transient
    }

    /// The right that is missing, as far as AWS says: often not that of the call itself, but that of tagging what it makes.
    fn denied_action(&self) -> &str {
        let said = self.message.split_once(DENIED_ACTION).map(|(_, rest)| rest.trim_start());
        let word = said.and_then(|rest| rest.split([' ', ',', ';']).next()).map(|word| word.trim_end_matches('.'));
        let is_action = |word: &&str| {
            word.split_once(':').is_some_and(|(service, call)| {
                [service, call].iter().all(|part| {
                    !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
                })
            })
        };
        word.filter(is_action).unwrap_or(self.action)
    }

    /// Whether a security group has as many rules as it may have.
    pub fn is_too_many_rules(&self) -> bool {
        self.code == "RulesPerSecurityGroupLimitExceeded"
    }

    /// Whether a target is none that the group could have: an instance that is not running, an address of another network.
    pub fn is_invalid_target(&self) -> bool {
        self.code == "InvalidTarget"
    }

    fn class(&self) -> (Class, Option<Reason>) {
        let is = |codes: &[&str]| codes.contains(&self.code.as_str());
        match self.code.as_str() {
            _ if is(THROTTLED) => (Class::Throttled, None),
            _ if is(DENIED) => (Class::Permission, None),
            _ if is(LIMITS) => (Class::Permission, Some(Reason::CloudLimit)),
            "DuplicateLoadBalancerName" => (Class::Config, Some(Reason::CloudNameTaken)),
            "OperationNotPermitted" => (Class::Permission, Some(Reason::DeletionProtected)),
            _ if is(NAMED) => (Class::Config, None),
            _ if is(CONFLICTS) || self.is_not_found() => (Class::Conflict, None),
            "ServiceUnavailable" | "Unavailable" | "InternalError" | "InternalFailure" | "RequestTimeout" | "" => {
                (Class::Transient, None)
            }
            // What AWS says of a request itself; the same request gets the same answer.
            code if code.starts_with("Invalid")
                || code.starts_with("Validation")
                || code.starts_with("Unsupported")
                || code.starts_with("Incompatible")
                || code.ends_with("NotSupported")
                || code == "MissingParameter" =>
            {
                (Class::Config, None)
            }
            _ => (Class::Transient, None),
        }
    }
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        let (class, reason) = error.class();
        let message = if class == Class::Permission && reason.is_none() {
            format!("{error}; allow {} for Berth's role", error.denied_action())
        } else {
            error.to_string()
        };
        Self::new(class, message).reason(reason.unwrap_or(class.reason()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_that_aws_answers_decides_the_class() {
        for (code, class, reason) in [
            ("Throttling", Class::Throttled, Reason::ProviderThrottled),
            ("RequestLimitExceeded", Class::Throttled, Reason::ProviderThrottled),
            ("AccessDenied", Class::Permission, Reason::PermissionDenied),
            ("UnauthorizedOperation", Class::Permission, Reason::PermissionDenied),
            ("TooManyLoadBalancers", Class::Permission, Reason::CloudLimit),
            ("RulesPerSecurityGroupLimitExceeded", Class::Permission, Reason::CloudLimit),
            ("DuplicateLoadBalancerName", Class::Config, Reason::CloudNameTaken),
            ("OperationNotPermitted", Class::Permission, Reason::DeletionProtected),
            ("DependencyViolation", Class::Conflict, Reason::ProviderConflict),
            ("ResourceInUse", Class::Conflict, Reason::ProviderConflict),
            ("LoadBalancerNotFound", Class::Conflict, Reason::ProviderConflict),
            ("CertificateNotFound", Class::Config, Reason::InvalidRequest),
            ("SSLPolicyNotFound", Class::Config, Reason::InvalidRequest),
            ("AllocationIdNotFound", Class::Config, Reason::InvalidRequest),
            ("InvalidGroup.NotFound", Class::Conflict, Reason::ProviderConflict),
            ("InvalidConfigurationRequest", Class::Config, Reason::InvalidRequest),
            ("ValidationError", Class::Config, Reason::InvalidRequest),
            ("ServiceUnavailable", Class::Transient, Reason::ProviderUnavailable),
            ("", Class::Transient, Reason::ProviderUnavailable),
            ("SomethingNew", Class::Transient, Reason::ProviderUnavailable),
        ] {
            let failure = Failure::from(CallError::new("elasticloadbalancing:CreateListener", code, "no"));
            assert_eq!((failure.class, failure.reason), (class, reason), "{code}");
        }
    }

    #[test]
    fn a_missing_right_names_the_action_to_allow() {
        let failure = Failure::from(CallError::new("ec2:CreateSecurityGroup", "UnauthorizedOperation", "no"));
        assert!(failure.message.ends_with("; allow ec2:CreateSecurityGroup for Berth's role"), "{failure}");
    }

    #[test]
    fn the_action_to_allow_is_the_one_that_aws_names() {
        for (message, action) in [
            (
                "User: arn:aws:iam::1:user/x is not authorized to perform: ec2:CreateTags on resource: y",
                "ec2:CreateTags",
            ),
            ("x is not authorized to perform: iam:CreateServiceLinkedRole.", "iam:CreateServiceLinkedRole"),
            ("x is not authorized to perform: this", "ec2:CreateSecurityGroup"),
            ("x is not authorized to perform:", "ec2:CreateSecurityGroup"),
            ("not authorized", "ec2:CreateSecurityGroup"),
        ] {
            let failure = Failure::from(CallError::new("ec2:CreateSecurityGroup", "UnauthorizedOperation", message));
            assert!(failure.message.ends_with(&format!("; allow {action} for Berth's role")), "{failure}");
        }
    }
}
