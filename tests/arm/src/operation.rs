//! Writes take their time, and how they went is asked for.

use std::time::Duration;

use http::{HeaderValue, Response};
use serde_json::{Value, json};

use crate::resource::Path;
use crate::{State, answer, error};

/// A write that was accepted.
#[derive(Clone, Debug)]
pub(crate) struct Operation {
    pub target: String,
    path: Path,
    deletes: bool,
    /// When it ends; none for one that is stuck.
    ends: Option<Duration>,
    pub fails: Option<(String, String)>,
    pub is_over: bool,
    /// Asked for by `Location` alone.
    by_location: bool,
}

impl State {
    /// Begins what was accepted; what is scripted for it was taken from the faults.
    pub(crate) fn begin(&mut self, path: &Path, now: Duration, deletes: bool) -> u64 {
        let serial = self.next();
        let (fails, stuck) = self.scripted(path.counted());
        let ends = (!stuck).then_some(now + self.takes);
        let target = path.parent_key();
        // ARM uses both ways; deletions are where only the older one is given.
        let operation =
            Operation { target, path: path.clone(), deletes, ends, fails, is_over: false, by_location: deletes };
        if deletes && path.child.is_none() {
            self.finish(&operation.target, "Deleting");
        }
        self.operations.insert(serial, operation);
        self.settle(now);
        serial
    }

    /// Forgets what was to go wrong; what was stuck ends at once.
    pub(crate) fn heal(&mut self) {
        self.faults.clear();
        for operation in self.operations.values_mut() {
            operation.ends.get_or_insert_default();
        }
    }

    /// Ends what has taken its time.
    pub(crate) fn settle(&mut self, now: Duration) {
        let over: Vec<u64> = self
            .operations
            .iter()
            .filter(|(_, o)| !o.is_over && o.ends.is_some_and(|ends| ends <= now))
            .map(|(serial, _)| *serial)
            .collect();
        for serial in over {
            let Some(operation) = self.operations.get_mut(&serial) else { continue };
            operation.is_over = true;
            let operation = operation.clone();
            match (&operation.fails, operation.deletes) {
                (Some(_), _) => self.finish(&operation.target, "Failed"),
                (None, true) if operation.path.child.is_none() => {
                    self.resources.remove(&operation.target);
                    self.refer_back();
                }
                (None, _) => self.finish(&operation.target, "Succeeded"),
            }
        }
    }

    /// Tells with an answer where to ask.
    pub(crate) fn with_operation(&self, mut response: Response<Vec<u8>>, serial: u64, host: &str) -> Response<Vec<u8>> {
        let Some(operation) =
            self.operations.get(&serial).filter(|operation| !(operation.is_over && operation.fails.is_none()))
        else {
            return response;
        };
        let base = format!("http://{host}/subscriptions/s/providers/Microsoft.Network/locations/here");
        let headers = response.headers_mut();
        let (name, url) = if operation.by_location {
            ("location", format!("{base}/operationResults/{serial}?api-version=2024-03-01"))
        } else {
            ("azure-asyncoperation", format!("{base}/operations/{serial}?api-version=2024-03-01"))
        };
        if let Ok(url) = HeaderValue::from_str(&url) {
            headers.insert(name, url);
        }
        let seconds = self.takes.as_secs().max(1);
        headers.insert("retry-after", HeaderValue::from(seconds.min(10)));
        response
    }

    /// Answers who asks how an operation goes.
    pub(crate) fn asked(&self, path: &str) -> Option<Response<Vec<u8>>> {
        let (rest, serial) = path.rsplit_once('/')?;
        let by_location = rest.ends_with("/operationResults");
        if !(by_location || rest.ends_with("/operations")) {
            return None;
        }
        let Some(operation) = serial.parse().ok().and_then(|serial: u64| self.operations.get(&serial)) else {
            return Some(error(404, "OperationNotFound", "There is no such operation."));
        };
        let going = || {
            let mut response = answer(if by_location { 202 } else { 200 }, &json!({"status": "InProgress"}));
            if let Ok(same) = HeaderValue::from_str(&format!("http://fake{path}?api-version=2024-03-01")) {
                response.headers_mut().insert("x-same", same);
            }
            response.headers_mut().insert("retry-after", HeaderValue::from(1));
            response
        };
        Some(match (&operation.fails, operation.is_over) {
            (_, false) => going(),
            (Some((code, message)), true) if by_location => error(400, code, message),
            (Some((code, message)), true) => {
                answer(200, &json!({"status": "Failed", "error": {"code": code, "message": message}}))
            }
            (None, true) if by_location => answer(if operation.deletes { 204 } else { 200 }, &Value::Null),
            (None, true) => answer(200, &json!({"status": "Succeeded"})),
        })
    }
}
