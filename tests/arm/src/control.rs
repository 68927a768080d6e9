//! What tests say to the stand-in itself, over HTTP.

use std::time::Duration;

use http::{Method, Request, Response};
use serde_json::{Value, json};

use crate::resource::Path;
use crate::{Fault, Refused, State, answer, error};

impl State {
    /// Answers what is meant for the stand-in.
    pub(crate) fn control(&mut self, request: &Request<Vec<u8>>) -> Option<Response<Vec<u8>>> {
        let what = request.uri().path().strip_prefix("/_fake/")?;
        let body: Value = serde_json::from_slice(request.body()).unwrap_or(Value::Null);
        Some(match (request.method(), what) {
            (&Method::GET, "counts") => answer(200, &json!(self.counts)),
            (&Method::DELETE, "counts") => {
                self.counts.clear();
                answer(204, &Value::Null)
            }
            (&Method::POST, "faults") => match serde_json::from_value::<Fault>(body) {
                Ok(fault) => {
                    self.faults.push(fault);
                    answer(204, &Value::Null)
                }
                Err(wrong) => error(400, "InvalidFault", &wrong.to_string()),
            },
            (&Method::DELETE, "faults") => {
                self.heal();
                answer(204, &Value::Null)
            }
            (&Method::PUT, "takes") => match body["milliseconds"].as_u64() {
                Some(milliseconds) => {
                    self.takes = Duration::from_millis(milliseconds);
                    answer(204, &Value::Null)
                }
                None => error(400, "InvalidTime", "write {\"milliseconds\": 2000}"),
            },
            (&Method::GET, "resources") => {
                let all: Value = self
                    .resources
                    .values()
                    .map(|r| (r.id.clone(), r.document.clone()))
                    .collect::<serde_json::Map<_, _>>()
                    .into();
                answer(200, &all)
            }
            // As somebody else would put it there.
            (&Method::PUT, "resources") => {
                let planted = body["id"].as_str().and_then(Path::parse).ok_or_else(|| {
                    Refused(400, "InvalidResource", "write {\"id\": PATH, \"document\": {…}}".to_owned())
                });
                let stored = planted.and_then(|path| {
                    self.store(&path, body["document"].clone(), None)?;
                    self.finish(&path.key(), "Succeeded");
                    Ok(())
                });
                match stored {
                    Ok(()) => answer(204, &Value::Null),
                    Err(Refused(status, code, message)) => error(status, code, &message),
                }
            }
            _ => error(404, "NotFound", "there are counts, faults, takes and resources"),
        })
    }
}
