//! Over HTTP.

use std::io;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::http::{Request, Response};
use tokio::net::TcpListener;
use tokio::time::Instant;

use crate::{Fake, error};

/// Longest request: a thousand rules are some hundred kilobytes.
const LONGEST: usize = 64 << 20;

/// Serves until it is dropped.
///
/// # Errors
/// When the socket fails.
pub async fn serve(listener: TcpListener, fake: Arc<Fake>) -> io::Result<()> {
    let router = Router::new().fallback(answer).with_state((fake, Instant::now()));
    axum::serve(listener, router).await
}

async fn answer(State((fake, began)): State<(Arc<Fake>, Instant)>, request: Request<Body>) -> Response<Body> {
    let (head, body) = request.into_parts();
    let Ok(body) = to_bytes(body, LONGEST).await else {
        return error(413, "RequestEntityTooLarge", "The request is too large.").map(Body::from);
    };
    if let Some(response) = fake.handle(&Request::from_parts(head, body.to_vec()), began.elapsed()) {
        return response.map(Body::from);
    }
    // A body that ends before it is whole: the connection breaks, as it does when a machine dies.
    let mut response = Response::new(Body::empty());
    response.headers_mut().insert("content-length", axum::http::HeaderValue::from_static("1"));
    response
}
