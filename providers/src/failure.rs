//! Why an effect did not come about: one of a few classes, which alone decide what happens next.

use std::fmt;
use std::time::Duration;

use berth_api::Reason;

/// The kind of a failure. Retry, event and metric follow from it and from nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// What the Service asks for is wrong; only a person can change that.
    Config,
    /// Somebody else has it, or it changed since it was observed; look again.
    Conflict,
    /// The other side asks for fewer calls.
    Throttled,
    /// It may work the next time, with nothing changed.
    Transient,
    /// It is on its way and not there yet; no error.
    NotReady,
    /// We are not allowed to; a person has to give the right.
    Permission,
    /// The provider does not do this.
    Unsupported,
}

/// When something that failed is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// When the Service or what it rests on changes, and after this long in any case, because what was refused for a reason
    /// outside the cluster may have been mended there.
    OnChange(Duration),
    /// After this long, twice as long after each further failure in a row, up to the longest.
    Backoff {
        /// The first wait.
        first: Duration,
        /// The longest wait.
        longest: Duration,
    },
    /// Always after this long.
    Every(Duration),
}

impl Class {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Config,
        Self::Conflict,
        Self::Throttled,
        Self::Transient,
        Self::NotReady,
        Self::Permission,
        Self::Unsupported,
    ];

    /// The word for metrics, annotations and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Conflict => "conflict",
            Self::Throttled => "throttled",
            Self::Transient => "transient",
            Self::NotReady => "not-ready",
            Self::Permission => "permission",
            Self::Unsupported => "unsupported",
        }
    }

    /// When to try again.
    pub fn retry(self) -> Retry {
        match self {
            // Nobody mends these by waiting; an hour is what a person who forgot about it would wait.
            Self::Config | Self::Unsupported => Retry::OnChange(Duration::from_hours(1)),
            // What changed is known as soon as it is looked at again.
            Self::Conflict => Retry::Backoff { first: Duration::from_millis(100), longest: Duration::from_secs(10) },
            // Called for less often; asking again at once is what brought it about.
            Self::Throttled => Retry::Backoff { first: Duration::from_secs(1), longest: Duration::from_mins(1) },
            Self::Transient => Retry::Backoff { first: Duration::from_millis(200), longest: Duration::from_secs(30) },
            // Load balancers come up within seconds to minutes.
            Self::NotReady => Retry::Every(Duration::from_secs(1)),
            // A right that was given works at once, so that whoever gives it sees the effect within a minute.
            Self::Permission => Retry::Every(Duration::from_mins(1)),
        }
    }

    /// Whether a person has to hear of it at once, by an event. The others are told by the condition and the metric.
    pub fn is_for_a_person(self) -> bool {
        matches!(self, Self::Config | Self::Permission | Self::Unsupported)
    }

    /// The reason code of a failure that has none of its own.
    pub fn reason(self) -> Reason {
        match self {
            Self::Config => Reason::InvalidRequest,
            Self::Conflict => Reason::ProviderConflict,
            Self::Throttled => Reason::ProviderThrottled,
            Self::Transient => Reason::ProviderUnavailable,
            Self::NotReady => Reason::Provisioning,
            Self::Permission => Reason::PermissionDenied,
            Self::Unsupported => Reason::Unsupported,
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A class by its word.
impl std::str::FromStr for Class {
    type Err = UnknownClass;

    fn from_str(word: &str) -> Result<Self, UnknownClass> {
        Self::ALL.into_iter().find(|class| class.as_str() == word).ok_or_else(|| UnknownClass { word: word.to_owned() })
    }
}

/// A word that names no class.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{word}` is no class of errors; they are {}", Class::ALL.map(Class::as_str).join(", "))]
pub struct UnknownClass {
    /// The word.
    pub word: String,
}

/// Why an effect did not come about.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// What follows from it.
    pub class: Class,
    /// The stable code.
    pub reason: Reason,
    /// What, where and what to do.
    pub message: String,
    /// How long the other side asked us to wait.
    pub retry_after: Option<Duration>,
}

impl Failure {
    /// A failure with the reason code of its class.
    pub fn new(class: Class, message: impl Into<String>) -> Self {
        Self { class, reason: class.reason(), message: message.into(), retry_after: None }
    }

    /// With a reason code of its own.
    #[must_use]
    pub fn reason(mut self, reason: Reason) -> Self {
        self.reason = reason;
        self
    }

    /// With the wait that the other side asked for.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// How long to wait after `failures` failures in a row (1 for the first). At least what the other side asked for.
    pub fn wait(&self, failures: u32) -> Duration {
        let ours = match self.class.retry() {
            Retry::OnChange(wait) | Retry::Every(wait) => wait,
            Retry::Backoff { first, longest } => {
                first.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(longest)
            }
        };
        ours.max(self.retry_after.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_alone_decides_when_it_is_tried_again_and_who_hears_of_it() {
        let cases = [
            (Class::Config, 1, 3_600_000, true),
            (Class::Conflict, 1, 100, false),
            (Class::Conflict, 3, 400, false),
            (Class::Conflict, 40, 10_000, false),
            (Class::Throttled, 1, 1_000, false),
            (Class::Throttled, 9, 60_000, false),
            (Class::Transient, 1, 200, false),
            (Class::Transient, 9, 30_000, false),
            (Class::NotReady, 7, 1_000, false),
            (Class::Permission, 3, 60_000, true),
            (Class::Unsupported, 2, 3_600_000, true),
        ];
        for (class, failures, millis, person) in cases {
            let failure = Failure::new(class, "no");
            assert_eq!(failure.wait(failures), Duration::from_millis(millis), "{class} after {failures} failures");
            assert_eq!(class.is_for_a_person(), person, "{class}");
        }
    }

    #[test]
    fn what_the_other_side_asks_for_is_waited_for() {
        let failure = Failure::new(Class::Throttled, "no").retry_after(Duration::from_mins(5));
        assert_eq!(failure.wait(1), Duration::from_mins(5));
    }

    #[test]
    fn a_class_is_read_by_its_word() {
        for class in Class::ALL {
            assert_eq!(class.as_str().parse(), Ok(class));
        }
        assert!(
            "tired"
                .parse::<Class>()
                .unwrap_err()
                .to_string()
                .starts_with("`tired` is no class of errors; they are config, ")
        );
    }
}
