//! The resource manager over HTTP: conditions, operations that take their time, pages, and how often one may ask.
//!
//! What carries a request and where tokens come from are traits, so that this is tested without either.

mod assertion;
mod gate;
pub mod token;
mod wire;

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, Request, Response, header};
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};

use crate::arm::{Arm, ArmError, Called, Condition, Id, Verb, Wait};
use gate::Gate;
use token::Tokens;

pub use assertion::AssertionError;
pub use wire::Wire;

/// The version of the API: the newest one that has everything that is used here and that older clouds know too.
const API_VERSION: &str = "2024-03-01";
/// How long an answer is waited for. ARM itself gives up after a minute.
const ANSWER: Duration = Duration::from_secs(65);
/// How long an operation may take. Load balancers take seconds; one that takes this long is stuck.
const OPERATION: Duration = Duration::from_mins(10);
/// How often it is asked how an operation goes, where ARM does not say.
const POLL: Duration = Duration::from_secs(1);
/// The longest that is waited between two questions, whatever ARM says: its advice is made for machines.
const POLL_LONGEST: Duration = Duration::from_secs(10);

/// What carries a request.
pub trait Transport: Send + Sync + 'static {
    /// Sends a request and waits for the whole answer. The error says why there is none.
    fn send(&self, request: Request<Vec<u8>>) -> impl Future<Output = Result<Response<Vec<u8>>, String>> + Send;
}

impl<T: Transport> Transport for std::sync::Arc<T> {
    async fn send(&self, request: Request<Vec<u8>>) -> Result<Response<Vec<u8>>, String> {
        T::send(self, request).await
    }
}

/// The resource manager.
pub struct Pipeline<T, C> {
    transport: T,
    tokens: C,
    endpoint: String,
    gate: Mutex<Gate>,
}

/// Where an operation is asked for.
enum Operation {
    /// A document says how it goes.
    Status(String),
    /// The status of the answer says it.
    Result(String),
}

/// One call, for what is said when it fails.
#[derive(Clone, Copy)]
struct Call<'a> {
    verb: Verb,
    id: &'a Id,
}

impl Call<'_> {
    fn error(self, status: u16, code: impl Into<String>, message: impl Into<String>) -> ArmError {
        let (verb, id) = (self.verb, self.id.clone());
        ArmError { verb, id, status, code: code.into(), message: message.into(), retry_after: None }
    }
}

impl<T: Transport, C: Tokens> Pipeline<T, C> {
    /// At this endpoint, such as `https://management.azure.com`.
    pub fn new(transport: T, tokens: C, endpoint: &str) -> Self {
        let endpoint = endpoint.trim_end_matches('/').to_owned();
        Self { transport, tokens, endpoint, gate: Mutex::default() }
    }

    fn gate<R>(&self, with: impl FnOnce(&mut Gate) -> R) -> R {
        with(&mut self.gate.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}?api-version={API_VERSION}", self.endpoint)
    }

    /// Sends one request. Answers that are errors are errors.
    async fn send(
        &self,
        call: Call<'_>,
        method: Method,
        url: &str,
        body: Option<&Value>,
        headers: HeaderMap,
    ) -> Called<Response<Vec<u8>>> {
        // A link that ARM gives is followed to where the token belongs, and nowhere else.
        if !url.strip_prefix(&self.endpoint).is_some_and(|rest| rest.starts_with(['/', '?'])) {
            return Err(call.error(0, "", format!("{url} is not at {}, and gets no token", self.endpoint)));
        }
        let kind = gate::kind(call.id, call.verb);
        if let Some(wait) = self.gate(|gate| gate.wait(&kind, Instant::now())) {
            let message = "Azure asked for fewer calls of this kind; none is made until then";
            return Err(ArmError { retry_after: Some(wait), ..call.error(429, "TooManyRequests", message) });
        }
        let token = self
            .tokens
            .token(&self.transport)
            .await
            .map_err(|e| call.error(e.status(), "InvalidCredentials", e.to_string()))?;
        let mut request =
            Request::builder().method(method).uri(url).header(header::AUTHORIZATION, format!("Bearer {token}"));
        if let Some(all) = request.headers_mut() {
            all.extend(headers);
        }
        let content = match body {
            Some(body) => {
                request = request.header(header::CONTENT_TYPE, "application/json");
                serde_json::to_vec(body).map_err(|e| call.error(0, "", e.to_string()))?
            }
            None => Vec::new(),
        };
        let request = request.body(content).map_err(|e| call.error(0, "", e.to_string()))?;
        let response = match timeout(ANSWER, self.transport.send(request)).await {
            Ok(Ok(response)) => response,
            Ok(Err(message)) => return Err(ArmError::unanswered(call.verb, call.id, message)),
            Err(_) => {
                return Err(ArmError::unanswered(
                    call.verb,
                    call.id,
                    format!("no answer within {} s", ANSWER.as_secs()),
                ));
            }
        };
        let status = response.status().as_u16();
        if response.status().is_success() {
            return Ok(response);
        }
        let retry_after = retry_after(response.headers());
        if status == 429 {
            let asked = self.gate(|gate| gate.close(kind, Instant::now(), retry_after));
            return Err(ArmError { retry_after: Some(asked), ..said(call, status, response.body()) });
        }
        if status == 401 {
            self.tokens.forget();
        }
        Err(ArmError { retry_after, ..said(call, status, response.body()) })
    }

    /// Waits until an operation is over.
    async fn wait(&self, call: Call<'_>, response: &Response<Vec<u8>>) -> Called<()> {
        let Some(mut operation) = operation(response.headers()) else { return Ok(()) };
        let began = Instant::now();
        let mut pause = retry_after(response.headers()).unwrap_or(POLL);
        loop {
            sleep(pause.min(POLL_LONGEST)).await;
            if began.elapsed() > OPERATION {
                let message = format!(
                    "the operation is not over after {} minutes; it is looked at again",
                    OPERATION.as_secs() / 60
                );
                return Err(ArmError::unanswered(call.verb, call.id, message));
            }
            let (Operation::Status(url) | Operation::Result(url)) = &operation;
            let asks = Call { verb: Verb::Read, id: call.id };
            let answer = match self.send(asks, Method::GET, url, None, HeaderMap::new()).await {
                Ok(answer) => answer,
                // Not to be told how it goes says nothing of how it goes; nor does a token that is not taken, which is got anew.
                Err(error) if matches!(error.status, 0 | 401 | 429) || error.status >= 500 => {
                    let often = if error.status == 401 { POLL_LONGEST } else { POLL };
                    pause = error.retry_after.unwrap_or(often);
                    continue;
                }
                Err(error) if matches!(operation, Operation::Result(_)) => {
                    // Its failure is the answer; that it was accepted before is what tells it from a request that is refused.
                    return Err(ArmError { verb: call.verb, status: 200, ..error });
                }
                Err(error) => return Err(error),
            };
            pause = retry_after(answer.headers()).unwrap_or(POLL);
            if matches!(operation, Operation::Result(_)) {
                if answer.status().as_u16() != 202 {
                    return Ok(());
                }
                if let Some(Operation::Result(next)) = self::operation(answer.headers()) {
                    operation = Operation::Result(next);
                }
                continue;
            }
            let body: Value = serde_json::from_slice(answer.body()).unwrap_or(Value::Null);
            match body["status"].as_str().unwrap_or_default() {
                "Succeeded" => return Ok(()),
                "Failed" | "Canceled" => return Err(said(call, 200, answer.body())),
                _ => {}
            }
        }
    }
}

impl<T: Transport, C: Tokens> Arm for Pipeline<T, C> {
    async fn get(&self, id: &Id) -> Called<Option<Value>> {
        let call = Call { verb: Verb::Read, id };
        match self.send(call, Method::GET, &self.url(id.as_str()), None, HeaderMap::new()).await {
            Ok(response) => parsed(call, response.body()).map(Some),
            // Only the resource itself: a missing group or subscription is a mistake that is to be told.
            Err(error) if error.status == 404 && matches!(error.code.as_str(), "ResourceNotFound" | "NotFound") => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    async fn list(&self, collection: &str) -> Called<Vec<Value>> {
        let id = Id::new(collection);
        let call = Call { verb: Verb::Read, id: &id };
        let (mut all, mut next) = (Vec::new(), Some(self.url(collection)));
        while let Some(url) = next.take() {
            let response = self.send(call, Method::GET, &url, None, HeaderMap::new()).await?;
            let mut page = parsed(call, response.body())?;
            if let Some(items) = page["value"].as_array_mut() {
                all.append(items);
            }
            next = page["nextLink"].as_str().filter(|link| !link.is_empty()).map(str::to_owned);
        }
        Ok(all)
    }

    async fn put(&self, id: &Id, body: &Value, condition: &Condition, wait: Wait) -> Called<Value> {
        let call = Call { verb: Verb::Write, id };
        let (name, value) = match condition {
            Condition::New => (header::IF_NONE_MATCH, "*"),
            Condition::Is(etag) => (header::IF_MATCH, etag.as_str()),
        };
        let mut headers = HeaderMap::new();
        headers.insert(name, sendable(call, value)?);
        let response = self.send(call, Method::PUT, &self.url(id.as_str()), Some(body), headers).await?;
        if wait == Wait::Accepted || operation(response.headers()).is_none() {
            return parsed(call, response.body());
        }
        self.wait(call, &response).await?;
        let missing = || call.error(404, "ResourceNotFound", "it is not there after it was written");
        self.get(id).await?.ok_or_else(missing)
    }

    async fn delete(&self, id: &Id, if_match: Option<&str>, wait: Wait) -> Called<()> {
        let call = Call { verb: Verb::Delete, id };
        let mut headers = HeaderMap::new();
        if let Some(etag) = if_match {
            headers.insert(header::IF_MATCH, sendable(call, etag)?);
        }
        match self.send(call, Method::DELETE, &self.url(id.as_str()), None, headers).await {
            Ok(_) if wait == Wait::Accepted => Ok(()),
            Ok(response) => self.wait(call, &response).await,
            Err(error) if error.status == 404 => Ok(()),
            Err(error) => Err(error),
        }
    }
}

fn sendable(call: Call<'_>, etag: &str) -> Called<HeaderValue> {
    etag.parse().map_err(|_| call.error(0, "", format!("the ETag {etag} cannot be sent")))
}

fn parsed(call: Call<'_>, body: &[u8]) -> Called<Value> {
    serde_json::from_slice(body)
        .map_err(|e| ArmError::unanswered(call.verb, call.id, format!("the answer is no JSON: {e}")))
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

fn operation(headers: &HeaderMap) -> Option<Operation> {
    let text = |name: &str| headers.get(name)?.to_str().ok().map(str::to_owned);
    let by_status = text("azure-asyncoperation").map(Operation::Status);
    by_status.or_else(|| text("location").map(Operation::Result))
}

/// What ARM says of a failure, with its details.
fn said(call: Call<'_>, status: u16, body: &[u8]) -> ArmError {
    let body: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
    let error = &body["error"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut message = text(&error["message"]);
    for detail in error["details"].as_array().into_iter().flatten() {
        message = format!("{message} ({}: {})", text(&detail["code"]), text(&detail["message"]));
    }
    if message.is_empty() {
        message = format!("the answer was {status}");
    }
    call.error(status, text(&error["code"]), message)
}
