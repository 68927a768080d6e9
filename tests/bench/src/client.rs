//! The clients whose gaps are measured: three kinds of them for each address, beside each other, in a process of their own on a host
//! of the lab that is no node.
//!
//! The process is told what to do by lines on stdin, and says what it saw by lines of JSON on stdout. It knows nothing of faults.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout, timeout_at};

use crate::load::round;

/// Between two questions of a client: a gap is known to within this.
pub const EVERY: Duration = Duration::from_millis(10);
/// Longest attempt of a probe. A SYN that was lost is sent again after 1 s, so an attempt that outlived this would measure
/// that timer and not the outage.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(1);
/// Probes under way at once: those that begin within one limit, twice.
const UNDER_WAY_MAX: usize = 200;
/// Longest wait of a plain client for a connection and its answer, and of the long-lived one for a connection: what many programs have
/// as their default, and longer than any gap that is worth a figure.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longest wait for an answer on the long-lived connection, before it is given up as lost: the kernel has sent the request again four
/// times by then.
const SILENCE_LIMIT: Duration = Duration::from_secs(5);
/// Ports of the long-lived connections, above those that Linux gives to others by default. A pod that answered somebody from a port keeps that in
/// mind for a minute (TIME-WAIT), and connections that begin each 10 ms come from a third of all ports within that: a connection
/// that moved to that pod would meet it there, and not be reset.
const OWN_PORTS: RangeInclusive<u16> = 61_000..=65_535;
/// Longest wait for all clients to be answered, after a fault or before one.
const ANSWERED_LIMIT: Duration = Duration::from_secs(20);

/// A line on stdin: waits until all clients are answered, then begins to count anew.
pub(crate) const BEGIN: &str = "begin";
/// A line on stdin: waits until all clients are answered, or long enough, then says what they saw since the beginning.
pub(crate) const END: &str = "end";

/// Whom to ask.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Where a web server is asked; may be given several times
    #[arg(long, required = true)]
    to: Vec<SocketAddr>,
}

/// A kind of client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Begins a new connection each [`EVERY`], not waiting for earlier ones.
    Probe,
    /// One connection after the other, as most programs do it: a SYN that is lost is sent again by the kernel, after 1 s.
    Plain,
    /// One connection for good, with a request each [`EVERY`].
    Established,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Probe, Self::Plain, Self::Established];
}

/// A family of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// Asked for by ARP.
    Ipv4,
    /// Asked for by neighbor discovery.
    Ipv6,
}

impl Family {
    /// The family of an address.
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::Ipv4 } else { Self::Ipv6 }
    }
}

/// What a client saw since the beginning.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Seen {
    /// The family of the address that it asked.
    pub family: Family,
    /// What client it is.
    pub client: Kind,
    /// The longest time without an answer. A gap that was open at the beginning or is at the end counts whole.
    pub gap_ms: f64,
    /// Connections that were there and were lost: reset, closed, or without an answer for too long.
    pub resets: u64,
    /// How many answers there were.
    pub answers: u64,
}

/// What a client keeps count of.
#[derive(Clone, Copy, Debug)]
struct Record {
    last: Instant,
    longest: Duration,
    resets: u64,
    answers: u64,
    /// When the youngest of the attempts began that were answered.
    youngest: Option<Instant>,
}

impl Record {
    fn new(now: Instant) -> Self {
        Self { last: now, longest: Duration::ZERO, resets: 0, answers: 0, youngest: None }
    }

    /// Counts from here on; the gap that is open goes on.
    fn begin(&mut self) {
        (self.longest, self.resets, self.answers) = (Duration::ZERO, 0, 0);
    }

    fn answered(&mut self, began: Instant, now: Instant) {
        self.longest = self.gap(now);
        self.last = now;
        self.answers += 1;
        self.youngest = self.youngest.max(Some(began));
    }

    fn gap(&self, now: Instant) -> Duration {
        self.longest.max(now.saturating_duration_since(self.last))
    }

    /// Whether an attempt was answered that began at that time or later.
    fn answered_since(&self, since: Instant) -> bool {
        self.youngest.is_some_and(|youngest| youngest >= since)
    }
}

struct Client {
    to: SocketAddr,
    kind: Kind,
    record: watch::Sender<Record>,
}

/// Asks until stdin ends.
pub async fn run(options: &Options) -> Result<()> {
    let mut tasks = JoinSet::new();
    let mut clients = Vec::new();
    for to in &options.to {
        for kind in Kind::ALL {
            let record = watch::Sender::new(Record::new(Instant::now()));
            let client = Arc::new(Client { to: *to, kind, record });
            clients.push(client.clone());
            tasks.spawn(client.ask());
        }
    }
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let mut stdout = tokio::io::stdout();
    while let Some(line) = lines.next_line().await.context("reading what to do")? {
        let said: Vec<Seen> = match line.as_str() {
            BEGIN => {
                begin(&clients).await?;
                Vec::new()
            }
            END => end(&clients).await,
            other => bail!("`{other}` is neither `{BEGIN}` nor `{END}`"),
        };
        let text = serde_json::to_string(&said)? + "\n";
        stdout.write_all(text.as_bytes()).await?;
        stdout.flush().await?;
    }
    Ok(())
}

async fn begin(clients: &[Arc<Client>]) -> Result<()> {
    let (now, limit) = (Instant::now(), Instant::now() + ANSWERED_LIMIT);
    for client in clients {
        if !client.answered_since(now, limit).await {
            bail!("no answer from {} to the client `{:?}` for {ANSWERED_LIMIT:?}", client.to, client.kind);
        }
    }
    for client in clients {
        client.record.send_modify(Record::begin);
    }
    Ok(())
}

async fn end(clients: &[Arc<Client>]) -> Vec<Seen> {
    let (now, limit) = (Instant::now(), Instant::now() + ANSWERED_LIMIT);
    for client in clients {
        // One that is not answered has a gap that is open; that is what it says.
        client.answered_since(now, limit).await;
    }
    let now = Instant::now();
    clients.iter().map(|client| client.seen(now)).collect()
}

impl Client {
    async fn answered_since(&self, since: Instant, limit: Instant) -> bool {
        let mut record = self.record.subscribe();
        let waiting = record.wait_for(|record| record.answered_since(since));
        timeout_at(limit.into(), waiting).await.is_ok_and(|found| found.is_ok())
    }

    fn seen(&self, now: Instant) -> Seen {
        let record = *self.record.borrow();
        Seen {
            family: Family::of(self.to.ip()),
            client: self.kind,
            gap_ms: round(record.gap(now).as_secs_f64() * 1000.0, 10.0),
            resets: record.resets,
            answers: record.answers,
        }
    }

    async fn ask(self: Arc<Self>) {
        match self.kind {
            Kind::Probe => self.probe().await,
            Kind::Plain => self.plain().await,
            Kind::Established => self.established().await,
        }
    }

    async fn probe(self: Arc<Self>) {
        let under_way = Arc::new(Semaphore::new(UNDER_WAY_MAX));
        let mut attempts = JoinSet::new();
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            ticks.tick().await;
            while attempts.try_join_next().is_some() {}
            let Ok(permit) = under_way.clone().try_acquire_owned() else { continue };
            let client = self.clone();
            attempts.spawn(async move {
                client.attempt(ATTEMPT_LIMIT).await;
                drop(permit);
            });
        }
    }

    async fn plain(&self) {
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.attempt(PATIENCE).await;
        }
    }

    async fn established(&self) {
        let mut ports = OWN_PORTS.cycle();
        loop {
            let port = ports.next().unwrap_or_default();
            let Ok(Ok(mut stream)) = timeout(PATIENCE, connect_from(port, self.to)).await else {
                sleep(EVERY).await;
                continue;
            };
            let mut ticks = interval(EVERY);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                let began = Instant::now();
                if !matches!(timeout(SILENCE_LIMIT, exchange(&mut stream, "keep-alive")).await, Ok(Ok(()))) {
                    self.lost();
                    break;
                }
                self.answered(began);
            }
        }
    }

    /// One connection with one request.
    async fn attempt(&self, limit: Duration) {
        let began = Instant::now();
        let Ok(Ok(mut stream)) = timeout(limit, TcpStream::connect(self.to)).await else { return };
        let left = limit.saturating_sub(began.elapsed());
        match timeout(left, exchange(&mut stream, "close")).await {
            Ok(Ok(())) => self.answered(began),
            _ => return self.lost(),
        }
        // Whoever closes first keeps the port for a minute. That is to be the server, of which there are many.
        let left = limit.saturating_sub(began.elapsed());
        let _ = timeout(left, stream.read(&mut [0])).await;
    }

    fn answered(&self, began: Instant) {
        self.record.send_modify(|record| record.answered(began, Instant::now()));
    }

    fn lost(&self) {
        self.record.send_modify(|record| record.resets += 1);
    }
}

async fn connect_from(port: u16, to: SocketAddr) -> io::Result<TcpStream> {
    let (socket, any): (_, IpAddr) = match to {
        SocketAddr::V4(_) => (TcpSocket::new_v4()?, Ipv4Addr::UNSPECIFIED.into()),
        SocketAddr::V6(_) => (TcpSocket::new_v6()?, Ipv6Addr::UNSPECIFIED.into()),
    };
    socket.bind((any, port).into())?;
    socket.connect(to).await
}

/// One GET and its whole answer.
async fn exchange(stream: &mut TcpStream, connection: &str) -> io::Result<()> {
    let request = format!("GET / HTTP/1.1\r\nHost: bench\r\nConnection: {connection}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::with_capacity(512);
    loop {
        if stream.read_buf(&mut answer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if answer_length(&answer)?.is_some_and(|length| answer.len() >= length) {
            return Ok(());
        }
    }
}

/// How long an answer is, once its headers are there.
fn answer_length(answer: &[u8]) -> io::Result<Option<usize>> {
    let text = String::from_utf8_lossy(answer);
    let Some((head, _)) = text.split_once("\r\n\r\n") else { return Ok(None) };
    let value = |line: &str| line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse::<usize>().ok();
    match head.lines().find_map(value) {
        Some(length) if head.starts_with("HTTP/1.1 200 ") => Ok(Some(head.len() + "\r\n\r\n".len() + length)),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_is_between_answers_and_one_that_was_open_at_the_beginning_counts_whole() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        // Answers before the beginning, the beginning, answers after it, the end, and the gap.
        for (before, begin, after, end, gap) in [
            (&[10, 20][..], 25, &[30, 40][..], 45, 10),
            (&[10], 50, &[60, 70], 75, 50),
            (&[10, 20], 20, &[30, 90, 100], 105, 60),
            (&[10, 20], 20, &[30], 130, 100),
            (&[10, 80, 90], 95, &[100], 101, 10),
        ] {
            let mut record = Record::new(start);
            for ms in before {
                record.answered(at(*ms), at(*ms));
            }
            record.begin();
            assert!(!record.answered_since(at(begin + 1)));
            for ms in after {
                record.answered(at(*ms), at(*ms));
            }
            assert_eq!(record.gap(at(end)), Duration::from_millis(gap), "{before:?} {begin} {after:?} {end}");
            assert_eq!(record.answers, after.len() as u64);
        }
    }

    #[test]
    fn an_answer_to_an_old_attempt_does_not_show_that_new_ones_are_answered() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut record = Record::new(start);
        record.answered(at(10), at(50));
        assert!(record.answered_since(at(10)) && !record.answered_since(at(20)));
        record.answered(at(5), at(60));
        assert!(record.answered_since(at(10)), "the youngest counts");
    }

    #[test]
    fn an_answer_is_whole_when_its_body_is() {
        for (answer, length) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab", Some(Some(42))),
            ("HTTP/1.1 200 OK\r\ncontent-length:4\r\n\r\nabcd", Some(Some(41))),
            ("HTTP/1.1 200 OK\r\nContent-", Some(None)),
            ("HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n", None),
            ("HTTP/1.1 200 OK\r\n\r\n", None),
        ] {
            assert_eq!(answer_length(answer.as_bytes()).ok(), length, "{answer:?}");
        }
    }
}
