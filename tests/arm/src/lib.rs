//! A strict stand-in for the Azure Resource Manager's network provider, for tests.
//!
//! It knows load balancers and their backend pools, public IPs and prefixes, network security groups, virtual networks and subnets,
//! and endpoints for tokens. It keeps ARM's rules: ETags, operations that take their time, references that have to be there, limits,
//! fields that only it writes, fields that it does not know. What goes wrong can be scripted, see [`Fault`]. It has no clock of its
//! own: [`Fake::handle`] is told the time, and [`serve`] tells it that of the machine.

mod control;
mod fault;
mod load_balancer;
mod operation;
mod public_ip;
mod resource;
mod security_group;
mod server;
mod token;

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http::{Method, Request, Response, StatusCode, header};
use serde_json::{Value, json};

pub use fault::{Action, Fault};
pub use server::serve;

use operation::Operation;
use resource::{Kind, Path, Resource};

/// What the cloud does not let one have.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Rules behind one network interface, of all load balancers.
    pub rules: usize,
    /// Rules of a network security group.
    pub security_rules: usize,
    /// Public IPs.
    pub public_ips: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { rules: 300, security_rules: 1000, public_ips: 1000 }
    }
}

/// An answer that is an error: HTTP status, code, message.
#[derive(Clone, Debug)]
pub(crate) struct Refused(pub u16, pub &'static str, pub String);

pub(crate) type Checked<T> = Result<T, Refused>;

pub(crate) fn refused<T>(code: &'static str, message: impl Into<String>) -> Checked<T> {
    Err(Refused(400, code, message.into()))
}

/// What there is.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub resources: BTreeMap<String, Resource>,
    pub operations: BTreeMap<u64, Operation>,
    pub counts: BTreeMap<String, u64>,
    pub faults: Vec<Fault>,
    pub limits: Limits,
    /// The resource groups that there are; all of them where none is named.
    pub groups: Vec<String>,
    /// How long a write takes.
    pub takes: Duration,
    /// Resources on a page of a list.
    pub page: usize,
    /// Whether callers have to show a token of ours.
    pub wants_token: bool,
    /// Tokens that were given, and until when they are good.
    pub tokens: BTreeMap<String, Duration>,
    pub token_lasts: Duration,
    /// What makes each thing new.
    pub serial: u64,
}

/// The resource manager.
#[derive(Debug)]
pub struct Fake {
    state: Mutex<State>,
}

impl Default for Fake {
    fn default() -> Self {
        let state = State { page: 100, token_lasts: Duration::from_hours(1), ..State::default() };
        Self { state: Mutex::new(state) }
    }
}

/// What a caller hears. `None`: the connection breaks.
pub type Answer = Option<Response<Vec<u8>>>;

impl Fake {
    fn with<T>(&self, with: impl FnOnce(&mut State) -> T) -> T {
        with(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// How long writes take from now on.
    pub fn takes(&self, time: Duration) {
        self.with(|state| state.takes = time);
    }

    /// Which resource groups there are; others are not found.
    pub fn only_groups(&self, groups: &[&str]) {
        self.with(|state| state.groups = groups.iter().map(|group| group.to_lowercase()).collect());
    }

    /// How many resources are on a page of a list.
    pub fn page(&self, size: usize) {
        self.with(|state| state.page = size.max(1));
    }

    /// What the cloud lets one have.
    pub fn limits(&self, limits: Limits) {
        self.with(|state| state.limits = limits);
    }

    /// Whether callers have to show a token that was given here, and how long one lasts.
    pub fn wants_token(&self, lasts: Option<Duration>) {
        self.with(|state| {
            state.wants_token = lasts.is_some();
            state.token_lasts = lasts.unwrap_or(state.token_lasts);
        });
    }

    /// Makes what follows go wrong.
    pub fn fault(&self, fault: Fault) {
        self.with(|state| state.faults.push(fault));
    }

    /// Nothing goes wrong any more, and what was stuck ends.
    pub fn heal(&self) {
        self.with(State::heal);
    }

    /// How often each was asked for: `PUT loadBalancers`.
    pub fn counts(&self) -> BTreeMap<String, u64> {
        self.with(|state| state.counts.clone())
    }

    /// Forgets how often each was asked for.
    pub fn reset_counts(&self) {
        self.with(|state| state.counts.clear());
    }

    /// Everything that there is, by path.
    pub fn resources(&self) -> BTreeMap<String, Value> {
        self.with(|state| state.resources.values().map(|r| (r.id.clone(), r.document.clone())).collect())
    }

    /// Puts something there as somebody else would, unless the rules are against it.
    ///
    /// # Errors
    /// With code and message of what ARM would answer.
    pub fn plant(&self, id: &str, document: Value) -> Result<(), String> {
        self.with(|state| {
            let path = Path::parse(id).ok_or_else(|| format!("{id} is no resource"))?;
            let put =
                state.store(&path, document, None).map_err(|Refused(_, code, message)| format!("{code}: {message}"));
            put?;
            state.finish(&path.key(), "Succeeded");
            Ok(())
        })
    }

    /// Answers a request at a time since any beginning.
    pub fn handle(&self, request: &Request<Vec<u8>>, now: Duration) -> Answer {
        self.with(|state| state.handle(request, now))
    }
}

pub(crate) fn answer(status: u16, body: &Value) -> Response<Vec<u8>> {
    let mut response = Response::new(serde_json::to_vec(body).unwrap_or_default());
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}

pub(crate) fn error(status: u16, code: &str, message: &str) -> Response<Vec<u8>> {
    answer(status, &json!({"error": {"code": code, "message": message}}))
}

impl State {
    pub(crate) fn next(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    fn handle(&mut self, request: &Request<Vec<u8>>, now: Duration) -> Answer {
        self.settle(now);
        let path = request.uri().path();
        if let Some(response) = self.control(request) {
            return Some(response);
        }
        if let Some(response) = self.token(request, now) {
            return self.count_and_hurt(request, "tokens", now, |_| response);
        }
        if self.wants_token && !self.is_known(request, now) {
            return Some(error(401, "InvalidAuthenticationToken", "The access token is missing, invalid or expired."));
        }
        let query = request.uri().query().unwrap_or_default();
        if !query.contains("api-version=") {
            return Some(error(400, "MissingApiVersionParameter", "The api-version query parameter is required."));
        }
        if let Some(response) = self.asked(path) {
            return self.count_and_hurt(request, "operations", now, |_| response);
        }
        let group = path.split('/').nth(4).unwrap_or_default().to_lowercase();
        if !self.groups.is_empty() && !self.groups.contains(&group) {
            let missing = format!("Resource group '{group}' could not be found.");
            return Some(error(404, "ResourceGroupNotFound", &missing));
        }
        let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or("fake").to_owned();
        if let Some((prefix, kind)) = resource::collection(path) {
            let listed = prefix.clone();
            let page = |state: &mut Self| state.list(&listed, query, &host);
            return self.count_and_hurt(request, kind, now, page);
        }
        let Some(path) = Path::parse(path) else {
            return Some(error(404, "InvalidResourceType", "There is no such resource type."));
        };
        let kind = path.counted();
        self.count_and_hurt(request, kind, now, |state| state.answer_for(&path, request, now, &host))
    }

    fn answer_for(&mut self, path: &Path, request: &Request<Vec<u8>>, now: Duration, host: &str) -> Response<Vec<u8>> {
        let done = match *request.method() {
            Method::GET => self.read(path).map(|document| answer(200, &document)),
            Method::PUT => self.put(path, request, now, host),
            Method::DELETE => self.delete(path, request, now, host),
            _ => Err(Refused(405, "MethodNotAllowed", "There is no such method.".to_owned())),
        };
        done.unwrap_or_else(|Refused(status, code, message)| error(status, code, &message))
    }

    fn list(&self, prefix: &str, query: &str, host: &str) -> Response<Vec<u8>> {
        let skip = query.split('&').find_map(|pair| pair.strip_prefix("$skipToken=")?.parse().ok()).unwrap_or(0);
        let all = self.resources.iter().filter(|(key, _)| {
            key.strip_prefix(&prefix.to_lowercase())
                .is_some_and(|rest| rest.starts_with('/') && !rest[1..].contains('/'))
        });
        let all: Vec<&Value> = all.map(|(_, resource)| &resource.document).collect();
        let value: Vec<&&Value> = all.iter().skip(skip).take(self.page).collect();
        let mut body = json!({ "value": value });
        if all.len() > skip + self.page {
            let next = format!("http://{host}{prefix}?api-version=2024-03-01&$skipToken={}", skip + self.page);
            body["nextLink"] = next.into();
        }
        answer(200, &body)
    }

    fn read(&self, path: &Path) -> Checked<Value> {
        let missing = || Refused(404, "ResourceNotFound", format!("The Resource '{}' was not found.", path.id()));
        let resource = self.resources.get(&path.parent_key()).ok_or_else(missing)?;
        match &path.child {
            None => Ok(resource.document.clone()),
            Some((kind, name)) => resource::part(&resource.document, kind, name).cloned().ok_or_else(missing),
        }
    }

    fn put(
        &mut self,
        path: &Path,
        request: &Request<Vec<u8>>,
        now: Duration,
        host: &str,
    ) -> Checked<Response<Vec<u8>>> {
        let body: Value = serde_json::from_slice(request.body())
            .map_err(|e| Refused(400, "InvalidRequestContent", format!("The request content was invalid: {e}.")))?;
        let is_there = self.read(path).ok();
        let text = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
        let etag = is_there.as_ref().and_then(|document| document["etag"].as_str()).map(str::to_owned);
        let mismatch = Refused(412, "PreconditionFailed", "Precondition failed.".to_owned());
        if text("if-match").is_some_and(|wanted| wanted != "*" && Some(wanted) != etag.as_deref())
            || (text("if-match").is_some() && is_there.is_none())
            || (text("if-none-match") == Some("*") && is_there.is_some())
        {
            return Err(mismatch);
        }
        if path.kind == Kind::LoadBalancer && is_there.is_some() && text("if-match").is_none() {
            // Not ARM's rule but everybody's who shares the document.
            return Err(Refused(
                428,
                "PreconditionRequired",
                "This document is written with If-Match alone.".to_owned(),
            ));
        }
        self.not_busy(&path.parent_key())?;
        self.store(path, body, Some(now))?;
        let operation = self.begin(path, now, false);
        let document = self.read(path)?;
        let status = if is_there.is_some() { 200 } else { 201 };
        Ok(self.with_operation(answer(status, &document), operation, host))
    }

    fn delete(
        &mut self,
        path: &Path,
        request: &Request<Vec<u8>>,
        now: Duration,
        host: &str,
    ) -> Checked<Response<Vec<u8>>> {
        let Ok(document) = self.read(path) else { return Ok(answer(204, &Value::Null)) };
        let wanted = request.headers().get(header::IF_MATCH).and_then(|value| value.to_str().ok());
        if wanted.is_some_and(|wanted| wanted != "*" && Some(wanted) != document["etag"].as_str()) {
            return Err(Refused(412, "PreconditionFailed", "Precondition failed.".to_owned()));
        }
        self.not_busy(&path.parent_key())?;
        self.may_delete(path)?;
        let operation = self.begin(path, now, true);
        Ok(self.with_operation(answer(202, &Value::Null), operation, host))
    }

    fn not_busy(&self, key: &str) -> Checked<()> {
        let busy = self.operations.values().any(|operation| operation.target == *key && !operation.is_over);
        if !busy {
            return Ok(());
        }
        let message = "Another operation on this or dependent resource is in progress.".to_owned();
        Err(Refused(409, "AnotherOperationInProgress", message))
    }

    fn may_delete(&self, path: &Path) -> Checked<()> {
        let document = self.read(path)?;
        match path.kind {
            Kind::PublicIp if document["properties"].get("ipConfiguration").is_some() => refused(
                "PublicIPAddressCannotBeDeleted",
                format!(
                    "Public IP address {} can not be deleted since it is still allocated to a resource.",
                    path.id()
                ),
            ),
            _ => Ok(()),
        }
    }

    /// Checks a document and puts it there, with what only we write.
    pub(crate) fn store(&mut self, path: &Path, body: Value, _at: Option<Duration>) -> Checked<()> {
        if let Some((kind, name)) = &path.child {
            return self.store_part(path, kind, name, body);
        }
        let Some(object) = body.as_object() else { return refused("InvalidRequestFormat", "A resource is an object.") };
        let mut document = Value::Object(object.clone());
        let old = self.resources.get(&path.key()).map(|resource| resource.document.clone());
        resource::check(path, &document, old.as_ref())?;
        match path.kind {
            Kind::LoadBalancer => self.load_balancer(path, &mut document, old.as_ref())?,
            Kind::PublicIp => self.public_ip(path, &mut document, old.as_ref())?,
            Kind::SecurityGroup => self.security_group(path, &mut document)?,
            Kind::Other => self.other(path, &mut document),
        }
        self.keep(path, document, old.as_ref());
        Ok(())
    }

    fn store_part(&mut self, path: &Path, kind: &str, name: &str, body: Value) -> Checked<()> {
        let parent = path.parent();
        let Some(resource) = self.resources.get(&path.parent_key()) else {
            return Err(Refused(404, "ResourceNotFound", format!("The Resource '{}' was not found.", parent.id())));
        };
        let mut document = resource.document.clone();
        let Some(list) = document["properties"][kind].as_array_mut() else {
            return refused("InvalidRequestFormat", format!("There are no {kind} there."));
        };
        let mut body = body;
        body["name"] = name.into();
        match list.iter_mut().find(|part| part["name"].as_str().is_some_and(|n| n.eq_ignore_ascii_case(name))) {
            Some(part) => *part = body,
            None => list.push(body),
        }
        self.store(&parent, document, None)
    }

    fn keep(&mut self, path: &Path, mut document: Value, old: Option<&Value>) {
        let serial = self.next();
        document["id"] = path.id().into();
        document["name"] = path.name.clone().into();
        document["type"] = format!("Microsoft.Network/{}", path.collection).into();
        document["etag"] = format!("W/\"{serial:08}\"").into();
        let guid = old.and_then(|old| old["properties"].get("resourceGuid").cloned());
        document["properties"]["resourceGuid"] = guid.unwrap_or_else(|| format!("guid-{serial}").into());
        document["properties"]["provisioningState"] = "Updating".into();
        self.resources.insert(path.key(), Resource { id: path.id(), document });
        self.refer_back();
    }

    /// Says so in a document that it is carried out, or is not.
    pub(crate) fn finish(&mut self, key: &str, state: &str) {
        if let Some(resource) = self.resources.get_mut(key) {
            resource.document["properties"]["provisioningState"] = state.into();
        }
    }
}
