//! Answers at health check node ports as kube-proxy does.

use std::collections::BTreeMap;
use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;

use axum::Router;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use berth_telemetry::listen;
use serde_json::json;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use super::ports::Check;

/// How many endpoints there are, for load balancers that weigh nodes (kube-proxy's own header).
const WEIGHT: HeaderName = HeaderName::from_static("x-load-balancing-endpoint-weight");

/// What is answered, by port, and whether the node's dataplane follows what changes.
type Answers = (BTreeMap<u16, Check>, bool);

/// The listeners, a task each. Dropping it closes them.
#[derive(Debug)]
pub struct Servers {
    answers: Arc<watch::Sender<Answers>>,
    open: BTreeMap<u16, AbortOnDropHandle<()>>,
}

impl Default for Servers {
    fn default() -> Self {
        Self { answers: Arc::new(watch::Sender::new((BTreeMap::new(), true))), open: BTreeMap::new() }
    }
}

impl Servers {
    /// How many ports are open.
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// Answers on exactly these ports from now on. Returns those on which that cannot be.
    pub fn follow(&mut self, checks: BTreeMap<u16, Check>, is_healthy: bool) -> Vec<u16> {
        self.open.retain(|port, task| {
            let stays = checks.contains_key(port) && !task.is_finished();
            if !stays {
                tracing::info!(port, "health checks are no longer answered here");
            }
            stays
        });
        let mut refused = Vec::new();
        for (port, check) in &checks {
            if self.open.contains_key(port) {
                continue;
            }
            match listen(SocketAddr::from((Ipv6Addr::UNSPECIFIED, *port))) {
                Ok(listener) => {
                    tracing::info!(
                        port,
                        namespace = check.namespace,
                        service = check.name,
                        "answering health checks, because nobody else does"
                    );
                    let (answers, port) = (self.answers.clone(), *port);
                    let app = Router::new().fallback(move || async move { answer(&answers.borrow(), port) });
                    let serve = async move {
                        if let Err(error) = axum::serve(listener, app).await {
                            tracing::warn!(port, %error, "cannot answer health checks any more");
                        }
                    };
                    self.open.insert(port, AbortOnDropHandle::new(tokio::spawn(serve)));
                }
                Err(error) => {
                    tracing::warn!(port, %error, "cannot answer health checks; they are left to whoever has the port");
                    refused.push(*port);
                }
            }
        }
        self.answers.send_replace((checks, is_healthy));
        refused
    }
}

fn answer((checks, is_healthy): &Answers, port: u16) -> Response {
    let Some(Check { namespace, name, ready }) = checks.get(&port) else {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    };
    let code = if *ready > 0 && *is_healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = json!({
        "service": { "namespace": namespace, "name": name },
        "localEndpoints": ready,
        "serviceProxyHealthy": is_healthy,
    });
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (WEIGHT, HeaderValue::from(*ready)),
    ];
    (code, headers, body.to_string()).into_response()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    /// A port that is free at the moment.
    async fn free_port() -> u16 {
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap().port()
    }

    async fn get(port: u16) -> Option<String> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.ok()?;
        stream.write_all(b"GET /healthz HTTP/1.0\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        Some(answer)
    }

    #[tokio::test]
    async fn a_health_check_is_answered_as_kube_proxy_does_it() {
        let port = free_port().await;
        let mut servers = Servers::default();
        for (ready, is_healthy, code) in [(2, true, "200"), (0, true, "503"), (2, false, "503")] {
            let check = Check { namespace: "shop".to_owned(), name: "web".to_owned(), ready };
            assert_eq!(servers.follow(BTreeMap::from([(port, check)]), is_healthy), Vec::<u16>::new());
            let answer = get(port).await.unwrap();
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            assert_eq!(head.split(' ').nth(1), Some(code), "{ready} endpoints, {is_healthy}");
            assert!(head.contains(&format!("x-load-balancing-endpoint-weight: {ready}")), "{head}");
            let expected = json!({"service": {"namespace": "shop", "name": "web"}, "localEndpoints": ready,
                                  "serviceProxyHealthy": is_healthy});
            assert_eq!(serde_json::from_str::<serde_json::Value>(body).unwrap(), expected);
        }
        assert_eq!(servers.follow(BTreeMap::new(), true), Vec::<u16>::new());
        // The task ends at its next turn.
        while get(port).await.is_some() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_port_that_somebody_else_has_is_told_and_the_others_are_answered_on() {
        let taken = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).await.unwrap();
        let taken = (taken.local_addr().unwrap().port(), taken);
        let free = free_port().await;
        let check = || Check { namespace: "shop".to_owned(), name: "web".to_owned(), ready: 1 };
        let mut servers = Servers::default();
        assert_eq!(servers.follow(BTreeMap::from([(taken.0, check()), (free, check())]), true), [taken.0]);
        assert!(get(free).await.is_some());
    }
}
