//! `--refresh-interval`: how often addresses are announced again.

use std::str::FromStr;

use berth_machine::{Refresh, RefreshError};
use jiff::SignedDuration;

/// What turns it off.
const OFF: [&str; 2] = ["off", "0"];

/// An interval such as `5m`, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RefreshInterval(pub Option<Refresh>);

/// Why a text is none.
#[derive(Debug, thiserror::Error)]
pub enum RefreshIntervalError {
    /// Not a time.
    #[error("neither `off` nor a time such as `5m` or `90s`: {0}")]
    Malformed(#[source] jiff::Error),
    /// A time before now.
    #[error("an interval is not negative")]
    Negative,
    /// A time out of range.
    #[error(transparent)]
    OutOfRange(#[from] RefreshError),
}

impl FromStr for RefreshInterval {
    type Err = RefreshIntervalError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if OFF.contains(&text) {
            return Ok(Self(None));
        }
        let interval: SignedDuration = text.parse().map_err(RefreshIntervalError::Malformed)?;
        let interval = interval.try_into().map_err(|_| RefreshIntervalError::Negative)?;
        Ok(Self(Some(Refresh::every(interval)?)))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_interval_is_a_time_within_bounds_or_off() {
        let every = |seconds| Some(RefreshInterval(Some(Refresh::every(Duration::from_secs(seconds)).unwrap())));
        for (text, expected) in [
            ("off", Some(RefreshInterval(None))),
            ("0", Some(RefreshInterval(None))),
            ("5m", every(300)),
            ("90s", every(90)),
            ("1h 30m", every(5_400)),
            ("10s", every(10)),
            ("24h", every(86_400)),
            ("9s", None),
            ("25h", None),
            ("-5m", None),
            ("300", None),
            ("", None),
        ] {
            assert_eq!(text.parse::<RefreshInterval>().ok(), expected, "{text:?}");
        }
    }

    #[test]
    fn what_is_refused_is_told_with_the_reason() {
        for (text, said) in [
            ("300", "neither `off` nor a time such as `5m` or `90s`"),
            ("-5m", "an interval is not negative"),
            ("1s", "an address can be announced again every 10s to 86400s, not every 1s"),
        ] {
            let error = text.parse::<RefreshInterval>().unwrap_err().to_string();
            assert!(error.starts_with(said), "{text}: {error}");
        }
    }
}
