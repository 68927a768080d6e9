//! What can go wrong.

use std::fmt;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// A fault, in the order in which they are made: those after which speakers may be slower to believe in a death come last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// The owner's link is cut and all its processes are killed; then it boots
    Crash,
    /// The same while the API server does not answer
    ApiDown,
    /// The speaker of the owner is killed; its kubelet starts it again
    Kill,
    /// The speaker's pod on the owner is deleted; its DaemonSet makes another
    Stop,
    /// All speakers are replaced, one after the other
    Rollout,
    /// The owner is drained; then it may take part again
    Drain,
    /// Heartbeats, and nothing else, do not pass between the owner and the others
    Isolate,
    /// Nothing passes between the owner and the others; then it does again
    Partition,
    /// The owner of a thousand addresses crashes
    #[value(name = "crash-1000")]
    #[serde(rename = "crash-1000")]
    Crash1000,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.to_possible_value();
        f.pad(name.as_ref().map_or("", |name| name.get_name()))
    }
}

/// What a row is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Cause {
    /// A fault.
    Fault(Fault),
    /// No fault, and all cores busy.
    #[serde(with = "load")]
    Load,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fault(fault) => fault.fmt(f),
            Self::Load => f.pad(LOAD),
        }
    }
}

const LOAD: &str = "load";

/// A unit variant as its name, where variants have no tag.
mod load {
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(super::LOAD)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
        match String::deserialize(deserializer)?.as_str() {
            super::LOAD => Ok(()),
            other => Err(de::Error::custom(format!("no fault `{other}`"))),
        }
    }
}
