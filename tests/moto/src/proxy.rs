//! Before moto: counts calls, asks for fewer of them as AWS does, and can end a connection at a certain call.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde::Serialize;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// Largest call that is read.
const BODY_MAX: usize = 1 << 20;
/// What AWS answers when it asks for fewer calls: ELBv2, and EC2.
const THROTTLING: [(&str, &str); 2] = [
    (
        "400 Bad Request",
        "<ErrorResponse><Error><Type>Sender</Type><Code>Throttling</Code><Message>Rate exceeded</Message></Error><RequestId>0</RequestId></ErrorResponse>",
    ),
    (
        "503 Service Unavailable",
        "<Response><Errors><Error><Code>RequestLimitExceeded</Code><Message>Request limit exceeded.</Message></Error></Errors><RequestID>0</RequestID></Response>",
    ),
];
/// The version that every call to EC2 names.
const EC2_VERSION: &str = "Version=2016-11-15";

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is answered.
    Answered,
    /// It never arrives, and nothing after it does.
    Lost,
    /// It is carried out, its answer never arrives, and nothing after it does.
    AnswerLost,
}

/// A call that was made.
#[derive(Clone, Debug, Serialize)]
pub struct Call {
    /// Its name, such as `CreateListener`.
    pub action: String,
    /// What it says, as a form.
    pub form: String,
    /// Since the proxy was started, in seconds.
    pub at: f64,
    /// Whether it was refused here, because there were too many.
    pub throttled: bool,
}

impl Call {
    /// Whether it changes nothing.
    pub fn is_read(&self) -> bool {
        self.action.starts_with("Describe")
    }

    /// A field of it, without its encoding.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.form
            .split('&')
            .find_map(|pair| pair.split_once('=').filter(|(key, _)| *key == name).map(|(_, value)| value))
    }
}

/// Counts calls on their way. It ends with the runtime that it was started in.
#[derive(Clone, Debug)]
pub struct Proxy {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    ended: Arc<Notify>,
    began: Instant,
}

#[derive(Debug)]
struct State {
    calls: Vec<Call>,
    /// Calls until one has another fate than to be answered.
    until: Option<(usize, Fate)>,
    dead: bool,
    limit: Option<Limit>,
}

/// A bucket as AWS has it.
#[derive(Debug)]
struct Limit {
    per_second: f64,
    tokens: f64,
    at: Instant,
}

impl Limit {
    fn admits(&mut self) -> bool {
        let passed = self.at.elapsed().as_secs_f64();
        self.at = Instant::now();
        self.tokens = (self.tokens + passed * self.per_second).min(self.per_second);
        let admits = self.tokens >= 1.0;
        self.tokens -= if admits { 1.0 } else { 0.0 };
        admits
    }
}

impl Proxy {
    /// Starts it at a free port of the loopback interface.
    pub async fn start(upstream: SocketAddr) -> Result<Self> {
        Self::start_at((Ipv4Addr::LOCALHOST, 0).into(), upstream).await
    }

    /// Starts it at an address.
    pub async fn start_at(address: SocketAddr, upstream: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind(address).await.with_context(|| format!("listening at {address}"))?;
        let state = State { calls: Vec::new(), until: None, dead: false, limit: None };
        let proxy = Self {
            address: listener.local_addr()?,
            state: Arc::new(Mutex::new(state)),
            ended: Arc::default(),
            began: Instant::now(),
        };
        let passing = proxy.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let passing = passing.clone();
                // A connection that breaks is the caller's to tell of.
                tokio::spawn(async move { passing.pass(client, upstream).await });
            }
        });
        Ok(proxy)
    }

    /// Where calls are made.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The calls since the last time, oldest first.
    pub fn take(&self) -> Vec<Call> {
        std::mem::take(&mut self.state().calls)
    }

    /// How many calls there were since the last time.
    pub fn count(&self) -> usize {
        self.state().calls.len()
    }

    /// So many calls a second are answered from now on; all of them where it is not given.
    pub fn limit(&self, per_second: Option<f64>) {
        self.state().limit = per_second.map(|per_second| Limit { per_second, tokens: per_second, at: Instant::now() });
    }

    /// Lets so many calls pass, and then one have this fate. Whoever makes calls is dead from then on, until [`Proxy::revive`].
    pub fn end_after(&self, calls: usize, fate: Fate) {
        self.state().until = Some((calls, fate));
    }

    /// Returns when that has come about.
    pub async fn ended(&self) {
        while !self.state().dead {
            self.ended.notified().await;
        }
    }

    /// All calls are answered again.
    pub fn revive(&self) {
        let mut state = self.state();
        (state.dead, state.until) = (false, None);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn pass(&self, mut client: TcpStream, upstream: SocketAddr) -> Result<()> {
        let (head, body) = request(&mut client).await?;
        let Some(fate) = self.count_call(&body) else {
            let (status, text) = THROTTLING[usize::from(body.contains(EC2_VERSION))];
            let answer = format!(
                "HTTP/1.1 {status}\r\nContent-Type: text/xml\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}",
                text.len()
            );
            return Ok(client.write_all(answer.as_bytes()).await?);
        };
        if fate != Fate::Lost {
            let mut moto = TcpStream::connect(upstream).await?;
            moto.write_all((head + &body).as_bytes()).await?;
            let mut answer = Vec::new();
            moto.read_to_end(&mut answer).await?;
            if fate == Fate::Answered {
                client.write_all(&answer).await?;
                client.shutdown().await?;
            }
        }
        if fate != Fate::Answered {
            self.ended.notify_waiters();
            // Whoever waits for this answer waits until it is ended.
            tokio::time::sleep(Duration::from_secs(3)).await;
        }
        Ok(())
    }

    /// What becomes of a call; nothing when there are too many.
    fn count_call(&self, form: &str) -> Option<Fate> {
        let mut state = self.state();
        if state.dead {
            return Some(Fate::Lost);
        }
        let throttled = state.limit.as_mut().is_some_and(|limit| !limit.admits());
        let call =
            Call { action: String::new(), form: form.to_owned(), at: self.began.elapsed().as_secs_f64(), throttled };
        let action = call.field("Action").unwrap_or_default().to_owned();
        state.calls.push(Call { action, ..call });
        if throttled {
            return None;
        }
        let fate = match state.until {
            Some((0, fate)) => fate,
            Some((calls, fate)) => {
                state.until = Some((calls - 1, fate));
                Fate::Answered
            }
            None => Fate::Answered,
        };
        state.dead = fate != Fate::Answered;
        Some(fate)
    }
}

/// Reads a request; its head asks for the end of the connection.
async fn request(client: &mut TcpStream) -> Result<(String, String)> {
    let mut client = BufReader::new(client);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if client.read_line(&mut line).await? == 0 {
            bail!("the connection ended");
        }
        if line == "\r\n" {
            break;
        }
        let name = line.split(':').next().unwrap_or_default().to_ascii_lowercase();
        if name == "content-length" {
            length = line[name.len() + 1..].trim().parse()?;
        }
        if name != "connection" {
            head.push_str(&line);
        }
    }
    if length > BODY_MAX {
        bail!("a call of {length} bytes");
    }
    let mut body = vec![0; length];
    client.read_exact(&mut body).await?;
    Ok((head + "Connection: close\r\n\r\n", String::from_utf8(body)?))
}
