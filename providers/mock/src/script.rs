//! What the annotations of a Service make the cloud do.

use std::collections::BTreeMap;
use std::time::Duration;

use berth_provider::{Class, UnknownClass};
use serde::Serialize;

/// What the mock's annotations begin with. Any other one is refused.
pub const ANNOTATION_PREFIX: &str = "mock.berth.dev/";
/// How long a load balancer takes to come up, such as `250ms`, `3s` or `2m`.
pub const LATENCY: &str = "mock.berth.dev/latency";
/// How the calls that write for the Service fail, one after the other: classes of errors with a count, such as
/// `throttled:3,transient`, or `:forever`.
pub const FAULTS: &str = "mock.berth.dev/faults";
/// A host name that is published instead of the addresses, as some clouds do.
pub const HOSTNAME: &str = "mock.berth.dev/hostname";

/// Longest that anybody waits for a load balancer.
const LATENCY_MAX: Duration = Duration::from_hours(1);
/// Longest host name (RFC 1035 section 2.3.4, without the trailing dot).
const HOSTNAME_MAX: usize = 253;
/// The count of a fault that never ends.
const FOREVER: &str = "forever";

/// What was written on a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Script {
    /// How long a load balancer takes to come up.
    #[serde(skip_serializing_if = "Duration::is_zero")]
    pub latency: Duration,
    /// What calls that write fail with, and how many of them.
    #[serde(skip)]
    pub faults: Vec<(Class, u64)>,
    /// Published instead of the addresses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
}

/// What is wrong with an annotation.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScriptError {
    /// None of ours.
    #[error(
        "annotation {name} is none of the mock's, which are {LATENCY}, {FAULTS} and {HOSTNAME}; correct or remove it"
    )]
    Unknown {
        /// The annotation.
        name: String,
    },
    /// No duration.
    #[error("annotation {LATENCY}: `{value}` is no time of at most an hour; write one such as 250ms, 3s or 2m")]
    Latency {
        /// What stands there.
        value: String,
    },
    /// No class of errors.
    #[error("annotation {FAULTS}: {source}")]
    Class {
        /// What is wrong.
        source: UnknownClass,
    },
    /// No count.
    #[error("annotation {FAULTS}: `{value}` is no count of calls; write a number from 1, or `{FOREVER}`")]
    Count {
        /// What stands there.
        value: String,
    },
    /// No host name.
    #[error("annotation {HOSTNAME}: `{value}` is no host name; write one such as web.example.com")]
    Hostname {
        /// What stands there.
        value: String,
    },
}

impl Script {
    /// Reads the annotations.
    pub fn parse(annotations: &BTreeMap<String, String>) -> Result<Self, ScriptError> {
        let mut script = Self::default();
        for (name, value) in annotations.iter().filter(|(name, _)| name.starts_with(ANNOTATION_PREFIX)) {
            match name.as_str() {
                LATENCY => {
                    script.latency = latency(value).ok_or_else(|| ScriptError::Latency { value: value.clone() })?;
                }
                FAULTS => script.faults = faults(value)?,
                HOSTNAME if is_hostname(value) => script.hostname = Some(value.clone()),
                HOSTNAME => return Err(ScriptError::Hostname { value: value.clone() }),
                _ => return Err(ScriptError::Unknown { name: name.clone() }),
            }
        }
        Ok(script)
    }

    /// What the call of this number (from 0) fails with, if it does.
    pub(crate) fn fault(&self, call: u64) -> Option<Class> {
        let mut until: u64 = 0;
        self.faults.iter().find_map(|(class, count)| {
            until = until.saturating_add(*count);
            (call < until).then_some(*class)
        })
    }
}

fn latency(value: &str) -> Option<Duration> {
    let value = value.trim();
    let unit = value.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = value.split_at(unit);
    let number: u64 = number.parse().ok()?;
    let millis = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        _ => return None,
    };
    Some(Duration::from_millis(number.checked_mul(millis)?)).filter(|latency| *latency <= LATENCY_MAX)
}

fn faults(value: &str) -> Result<Vec<(Class, u64)>, ScriptError> {
    let one = |part: &str| {
        let (class, count) = part.trim().split_once(':').unwrap_or((part.trim(), "1"));
        let class = class.trim().parse().map_err(|source| ScriptError::Class { source })?;
        let count = match count.trim() {
            FOREVER => u64::MAX,
            number => match number.parse() {
                Ok(count @ 1..) => count,
                _ => return Err(ScriptError::Count { value: number.to_owned() }),
            },
        };
        Ok((class, count))
    };
    value.split(',').map(one).collect()
}

/// Labels of letters, digits and hyphens, none of which is at an end (RFC 1123 section 2.1).
fn is_hostname(value: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    value.len() <= HOSTNAME_MAX && value.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(name: &str, value: &str) -> Result<Script, ScriptError> {
        Script::parse(&BTreeMap::from([(name.to_owned(), value.to_owned()), ("other/one".to_owned(), "?".to_owned())]))
    }

    #[test]
    fn annotations_are_read() {
        for (value, millis) in [("250ms", 250), (" 3s ", 3_000), ("2m", 120_000), ("0s", 0), ("60m", 3_600_000)] {
            assert_eq!(parse(LATENCY, value).unwrap().latency, Duration::from_millis(millis), "{value}");
        }
        assert_eq!(parse(HOSTNAME, "web.example.com").unwrap().hostname.as_deref(), Some("web.example.com"));
        let script = parse(FAULTS, "throttled:2, transient ,permission:forever").unwrap();
        let seen: Vec<_> = (0..5).map(|call| script.fault(call)).collect();
        let [t, p] = [Some(Class::Throttled), Some(Class::Permission)];
        assert_eq!(seen, [t, t, Some(Class::Transient), p, p]);
        assert_eq!(parse(FAULTS, "conflict").unwrap().fault(1), None);
    }

    #[test]
    fn what_is_wrong_with_an_annotation_is_named() {
        for (name, value, says) in [
            (LATENCY, "soon", "`soon` is no time"),
            (LATENCY, "3h", "`3h` is no time"),
            (LATENCY, "61m", "`61m` is no time"),
            (LATENCY, "5", "`5` is no time"),
            (FAULTS, "tired", "`tired` is no class of errors; they are config, conflict"),
            (FAULTS, "transient:0", "`0` is no count"),
            (FAULTS, "", "`` is no class"),
            (HOSTNAME, "web_1.example", "`web_1.example` is no host name"),
            ("mock.berth.dev/latencey", "1s", "mock.berth.dev/latencey is none of the mock's"),
        ] {
            let error = parse(name, value).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
