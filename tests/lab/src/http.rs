//! As much of HTTP as the lab needs: one GET on one connection.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, bail};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// The longest answer that is read; metrics pages of the control plane are the longest there are.
const ANSWER_MAX: u64 = 16 << 20;

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The status code, such as 200.
    pub status: u16,
    /// What came behind the headers.
    pub body: String,
}

/// One GET. HTTP/1.0, so that the answer comes in one piece and the server closes after it.
pub async fn get(stream: &mut TcpStream, host: SocketAddr, path: &str) -> Result<Response> {
    let request = format!("GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.context("sending the request")?;
    let mut answer = Vec::new();
    stream.take(ANSWER_MAX).read_to_end(&mut answer).await.context("reading the answer")?;
    parse(&String::from_utf8_lossy(&answer))
}

fn parse(answer: &str) -> Result<Response> {
    let Some((head, body)) = answer.split_once("\r\n\r\n") else {
        bail!("the answer ended within its headers, after {} bytes", answer.len());
    };
    let mut words = head.split_whitespace();
    match (words.next(), words.next().and_then(|code| code.parse().ok())) {
        (Some(version), Some(status)) if version.starts_with("HTTP/1.") => {
            Ok(Response { status, body: body.to_owned() })
        }
        _ => bail!("the answer is not HTTP: `{}`", head.lines().next().unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_its_status_and_its_body() {
        let parsed = parse("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nbusy").unwrap();
        assert_eq!(parsed, Response { status: 503, body: "busy".to_owned() });
    }

    #[test]
    fn what_is_cut_short_or_not_http_is_an_error() {
        for answer in ["", "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n", "SSH-2.0-x\r\n\r\n", "HTTP/1.1 many\r\n\r\n"] {
            assert!(parse(answer).is_err(), "{answer:?}");
        }
    }
}
