//! Against a small API server that has one Secret.

use std::sync::{Arc, Mutex};

use http::{Method, Request, Response, StatusCode};
use kube::client::Body;
use serde_json::{Value, json};
use tower::service_fn;

use super::*;

/// What is in the API server, and what it was asked.
#[derive(Debug, Default)]
struct Server {
    secret: Option<Value>,
    version: u64,
    asked: Vec<String>,
    /// Somebody else is quicker at the next write.
    overtaken: bool,
}

impl Server {
    fn answer(&mut self, method: &Method, body: &[u8]) -> (StatusCode, Value) {
        let write = *method != Method::GET;
        if write && std::mem::take(&mut self.overtaken) {
            self.write(json!({ "metadata": { "annotations": { "by": "somebody" } } }), &[("7", "Nw==")]);
        }
        let answer = match (method.as_str(), &self.secret) {
            ("GET", Some(secret)) => (StatusCode::OK, secret.clone()),
            ("GET", None) => (StatusCode::NOT_FOUND, Value::Null),
            ("POST", None) => self.take(body),
            ("PUT", Some(secret)) if version_of(body) == secret["metadata"]["resourceVersion"] => self.take(body),
            _ => (StatusCode::CONFLICT, Value::Null),
        };
        self.asked.push(format!("{method} {}", answer.0.as_u16()));
        answer
    }

    fn take(&mut self, body: &[u8]) -> (StatusCode, Value) {
        let secret = serde_json::from_slice(body).unwrap();
        self.write(secret, &[]);
        (StatusCode::CREATED, self.secret.clone().unwrap())
    }

    fn write(&mut self, mut secret: Value, data: &[(&str, &str)]) {
        self.version += 1;
        secret["metadata"]["name"] = "berth-heartbeat".into();
        secret["metadata"]["resourceVersion"] = self.version.to_string().into();
        for (name, bytes) in data {
            secret["data"][name] = (*bytes).into();
        }
        self.secret = Some(secret);
    }
}

fn version_of(body: &[u8]) -> Value {
    serde_json::from_slice::<Value>(body).unwrap()["metadata"]["resourceVersion"].clone()
}

struct Running {
    server: Arc<Mutex<Server>>,
    lead: watch::Sender<Leadership>,
    end: CancellationToken,
}

impl Running {
    fn start(leadership: Leadership) -> Self {
        let server = Arc::<Mutex<Server>>::default();
        let (lead, told) = watch::channel(leadership);
        let end = CancellationToken::new();
        let shared = server.clone();
        let service = service_fn(move |request: Request<Body>| {
            let shared = shared.clone();
            async move {
                assert!(request.uri().path().starts_with("/api/v1/namespaces/berth-speaker/secrets"));
                let (parts, body) = request.into_parts();
                let body = body.collect_bytes().await?;
                let (status, answer) = shared.lock().unwrap().answer(&parts.method, &body);
                let reason = if status == StatusCode::NOT_FOUND { "NotFound" } else { "Conflict" };
                let answer = if answer.is_null() {
                    json!({ "kind": "Status", "status": "Failure", "code": status.as_u16(), "message": "no", "reason": reason })
                } else {
                    answer
                };
                let response = Response::builder().status(status).body(Body::from(serde_json::to_vec(&answer)?))?;
                Ok::<_, tower::BoxError>(response)
            }
        });
        let client = Client::new(service, "default");
        let rotation = "7d".parse().unwrap();
        let keys = HeartbeatKeys::new(client, rotation, told, Metrics::new().0);
        tokio::spawn(keys.run(end.clone()));
        Self { server, lead, end }
    }

    /// What was asked within this time.
    async fn asked_within(&self, time: Duration) -> Vec<String> {
        tokio::time::sleep(time).await;
        std::mem::take(&mut self.server.lock().unwrap().asked)
    }

    fn generations(&self) -> usize {
        let server = self.server.lock().unwrap();
        server.secret.as_ref().and_then(|secret| secret["data"].as_object()).map_or(0, serde_json::Map::len)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end.cancel();
    }
}

const MOMENT: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn whoever_leads_makes_the_secret_at_once_and_looks_at_it_each_minute() {
    let running = Running::start(Leadership::default());
    assert_eq!(running.asked_within(10 * LOOK_EVERY).await, Vec::<String>::new(), "a standby does nothing");
    running.lead.send_replace(Leadership::alone());
    assert_eq!(running.asked_within(MOMENT).await, ["GET 404", "POST 201"]);
    assert_eq!(running.generations(), 1);
    assert_eq!(running.asked_within(3 * LOOK_EVERY).await, ["GET 200"; 3], "and writes nothing that does not change");

    // Something is broken in it by hand.
    running.server.lock().unwrap().write(json!({ "metadata": {} }), &[("key", "AAAA")]);
    assert_eq!(running.asked_within(LOOK_EVERY).await, ["GET 200", "PUT 201"]);
    running.lead.send_replace(Leadership::default());
    assert_eq!(running.asked_within(10 * LOOK_EVERY).await, Vec::<String>::new(), "it leads no more");
    running.lead.send_replace(Leadership::alone());
    assert_eq!(running.asked_within(MOMENT).await, ["GET 200"], "who leads again looks at once");
}

#[tokio::test(start_paused = true)]
async fn a_write_that_comes_after_somebody_elses_is_refused_and_thought_over() {
    for there in [false, true] {
        let running = Running::start(Leadership::default());
        {
            let mut server = running.server.lock().unwrap();
            if there {
                server.write(json!({ "metadata": {} }), &[]);
            }
            server.overtaken = true;
        }
        running.lead.send_replace(Leadership::alone());
        let first = if there { ["GET 200", "PUT 409"] } else { ["GET 404", "POST 409"] };
        // What the other one wrote has a key that is too short, so it is replaced, under the version that it has now.
        assert_eq!(running.asked_within(MOMENT).await, [&first[..], &["GET 200", "PUT 201"]].concat());
        let secret = running.server.lock().unwrap().secret.clone().unwrap();
        assert_eq!(
            (&secret["metadata"]["annotations"]["by"], &secret["data"]["7"]),
            (&json!("somebody"), &Value::Null)
        );
    }
}
