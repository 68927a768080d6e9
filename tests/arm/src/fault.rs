//! What goes wrong, as it is scripted.

use std::time::Duration;

use http::{HeaderValue, Request, Response};
use serde::Deserialize;

use crate::{Answer, State, error};

/// How a call goes wrong.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", tag = "do")]
pub enum Action {
    /// Nothing is done, and this is answered.
    Answer {
        /// The HTTP status.
        status: u16,
        /// The code.
        code: String,
        /// The message.
        #[serde(default)]
        message: String,
        /// Seconds to wait.
        #[serde(default)]
        retry_after: Option<u64>,
    },
    /// Nothing is done, and the connection breaks.
    Break,
    /// It is done, and the connection breaks before the answer.
    LoseAnswer,
    /// It is accepted, and fails later.
    FailLater {
        /// The code.
        code: String,
        /// The message.
        #[serde(default)]
        message: String,
    },
    /// It is accepted, and never ends.
    Stick,
}

/// Which calls go wrong, and how.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Fault {
    /// Of this method; any where it is empty.
    #[serde(default)]
    pub method: String,
    /// Of this kind, such as `loadBalancers`; any where it is empty.
    #[serde(default)]
    pub kind: String,
    /// Calls that work before.
    #[serde(default)]
    pub after: u64,
    /// How many go wrong.
    #[serde(default = "one")]
    pub times: u64,
    /// How.
    #[serde(flatten)]
    pub action: Action,
}

fn one() -> u64 {
    1
}

impl Fault {
    /// The next call of a method to a kind goes wrong.
    pub fn next(method: &str, kind: &str, action: Action) -> Self {
        Self { method: method.to_owned(), kind: kind.to_owned(), after: 0, times: 1, action }
    }

    fn meets(&self, method: &str, kind: &str) -> bool {
        let is = |wanted: &str, is: &str| wanted.is_empty() || wanted.eq_ignore_ascii_case(is);
        is(&self.method, method) && is(&self.kind, kind)
    }

    fn is_later(&self) -> bool {
        matches!(self.action, Action::FailLater { .. } | Action::Stick)
    }
}

impl State {
    /// Takes the first fault that meets a call; those that are for later are left for then.
    fn take(&mut self, method: &str, kind: &str) -> Option<Action> {
        let mut taken = None;
        for fault in self.faults.iter_mut().filter(|fault| !fault.is_later() && fault.meets(method, kind)) {
            if fault.after > 0 {
                fault.after -= 1;
            } else if fault.times > 0 {
                fault.times -= 1;
                taken = Some(fault.action.clone());
                break;
            }
        }
        self.faults.retain(|fault| fault.times > 0);
        taken
    }

    /// How what is accepted now ends: with an error, or never.
    pub(crate) fn scripted(&mut self, kind: &str) -> (Option<(String, String)>, bool) {
        let mut result = (None, false);
        for fault in self.faults.iter_mut().filter(|fault| fault.is_later() && fault.meets(&fault.method, kind)) {
            if fault.after > 0 {
                fault.after -= 1;
            } else if fault.times > 0 {
                fault.times -= 1;
                match &fault.action {
                    Action::FailLater { code, message } => result.0 = Some((code.clone(), message.clone())),
                    _ => result.1 = true,
                }
                break;
            }
        }
        self.faults.retain(|fault| fault.times > 0);
        result
    }

    /// Counts a call, and lets it go wrong where that is scripted.
    pub(crate) fn count_and_hurt(
        &mut self,
        request: &Request<Vec<u8>>,
        kind: &str,
        _now: Duration,
        work: impl FnOnce(&mut Self) -> Response<Vec<u8>>,
    ) -> Answer {
        let method = request.method().as_str();
        *self.counts.entry(format!("{method} {kind}")).or_default() += 1;
        match self.take(method, kind) {
            None | Some(Action::FailLater { .. } | Action::Stick) => Some(work(self)),
            Some(Action::Break) => None,
            Some(Action::LoseAnswer) => {
                work(self);
                None
            }
            Some(Action::Answer { status, code, message, retry_after }) => {
                let mut response = error(status, &code, &message);
                if let Some(seconds) = retry_after {
                    response.headers_mut().insert("retry-after", HeaderValue::from(seconds));
                }
                Some(response)
            }
        }
    }
}
