//! Asks a health check on this node.

use std::net::SocketAddr;
use std::time::Duration;

use http_body_util::Empty;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Longest wait for an answer. On the loopback it comes within a millisecond; a node that is out of breath gets a few hundred.
const ANSWER_LIMIT: Duration = Duration::from_millis(500);

/// The path that kube-proxy is asked for; its health check node ports answer on any.
const PATH: &str = "/healthz";

/// What was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// 200.
    Well,
    /// Any other code.
    Unwell,
    /// Nobody listens there.
    Refused,
    /// Nothing that can be understood, or not in time.
    Nothing,
}

/// One GET on one connection.
pub async fn ask(address: SocketAddr) -> Answer {
    timeout(ANSWER_LIMIT, exchange(address)).await.unwrap_or(Answer::Nothing)
}

async fn exchange(address: SocketAddr) -> Answer {
    let stream = match TcpStream::connect(address).await {
        Ok(stream) => stream,
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => return Answer::Refused,
        Err(_) => return Answer::Nothing,
    };
    let request = Request::get(PATH).header(header::HOST, address.to_string()).header(header::CONNECTION, "close");
    let (Ok(request), Ok((mut sender, connection))) =
        (request.body(Empty::<Bytes>::new()), http1::handshake(TokioIo::new(stream)).await)
    else {
        return Answer::Nothing;
    };
    // The body is of no interest: with it goes the connection.
    let answer = async move { sender.send_request(request).await.map(|answer| answer.status()) };
    match tokio::join!(answer, connection).0 {
        Ok(StatusCode::OK) => Answer::Well,
        Ok(_) => Answer::Unwell,
        Err(_) => Answer::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn an_answer_is_its_code_and_everything_else_is_none() {
        for (says, expected) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", Answer::Well),
            ("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 2\r\n\r\nno", Answer::Unwell),
            ("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", Answer::Unwell),
            ("SSH-2.0-x\r\n", Answer::Nothing),
            ("", Answer::Nothing),
        ] {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            let address = listener.local_addr().unwrap();
            let server = async {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0; 512];
                let length = stream.read(&mut request).await.unwrap();
                stream.write_all(says.as_bytes()).await.unwrap();
                String::from_utf8_lossy(&request[..length]).into_owned()
            };
            let (answer, request) = tokio::join!(ask(address), server);
            assert_eq!(answer, expected, "{says:?}");
            assert!(request.starts_with("GET /healthz HTTP/1.1\r\n"), "{request}");
        }
    }

    #[tokio::test]
    async fn nobody_who_listens_is_told_from_somebody_who_is_silent() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(ask(address).await, Answer::Nothing, "it takes the connection and says nothing");
        drop(listener);
        assert_eq!(ask(address).await, Answer::Refused);
    }
}
