//! `/metrics`, `/healthz` and `/readyz` over HTTP.

use std::fmt::Write as _;
use std::io;
use std::sync::Arc;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{Health, Registry};

/// The media type of what [`Registry::render`] gives.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Serves until `shutdown` is cancelled. `/healthz` answers as long as the runtime turns; `/readyz` is 503 with the
/// closed gates, a line each, until all are open.
///
/// # Errors
/// When the listener fails.
pub async fn serve(
    listener: TcpListener,
    registry: Arc<Registry>,
    health: Health,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let app = Router::new()
        .route("/metrics", get(move || async move { metrics(&registry) }))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(move || async move { ready(&health) }));
    axum::serve(listener, app).with_graceful_shutdown(shutdown.cancelled_owned()).await
}

fn metrics(registry: &Registry) -> Response {
    match registry.render() {
        Ok(text) => ([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("cannot render metrics: {error}\n")).into_response(),
    }
}

fn ready(health: &Health) -> Response {
    let waiting = health.waiting();
    if waiting.is_empty() {
        return "ok\n".into_response();
    }
    let mut text = String::new();
    for (name, why) in waiting {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "waiting for {name}: {why}");
    }
    (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
}
