//! moto and microburst as processes, on free ports of the loopback interface.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::tools::Tools;

/// Longest that Python takes to start on a loaded machine.
const START_LIMIT: Duration = Duration::from_mins(1);
/// Between two looks whether it answers.
const START_POLL: Duration = Duration::from_millis(100);
/// Longest wait for an answer to a command.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// A process that is gone with this.
#[derive(Debug)]
struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    fn start(mut command: Command, port_flag: &str, health: &str) -> Result<Self> {
        // Freed again at once: whoever takes it in between makes the start fail, and is told.
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
        let address = free.context("finding a free port")?;
        command.arg(port_flag).arg(address.port().to_string()).stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.stderr(Stdio::null()).spawn();
        let child = child.with_context(|| format!("starting {}", command.get_program().display()))?;
        let mut server = Self { child, address };
        let begin = Instant::now();
        while server.ask("GET", health, "").is_err() {
            if let Some(status) = server.child.try_wait()? {
                bail!("{} ended at once: {status}", command.get_program().display());
            }
            if begin.elapsed() > START_LIMIT {
                bail!("{} does not answer after {START_LIMIT:?}", command.get_program().display());
            }
            thread::sleep(START_POLL);
        }
        Ok(server)
    }

    fn ask(&self, method: &str, path: &str, body: &str) -> Result<String> {
        let mut stream = TcpStream::connect_timeout(&self.address, ANSWER_LIMIT)?;
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        stream.write_all((head + body).as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        if answer.split(' ').nth(1) != Some("200") {
            bail!("{method} {path} is answered: {}", answer.lines().next().unwrap_or_default());
        }
        Ok(answer)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It has ended by itself when this fails.
        let _ = self.child.kill().and_then(|()| self.child.wait());
    }
}

/// What answers in AWS's place.
#[derive(Debug)]
pub struct Moto(Server);

impl Moto {
    /// Starts it, empty.
    pub fn start(tools: &Tools) -> Result<Self> {
        let mut command = Command::new(tools.program("moto_server"));
        command.args(["-H", "127.0.0.1"]);
        Server::start(command, "-p", "/moto-api/data.json").map(Self)
    }

    /// Where it answers.
    pub fn address(&self) -> SocketAddr {
        self.0.address
    }

    /// The same as a URL.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.0.address)
    }

    /// Empties it.
    pub fn reset(&self) -> Result<()> {
        self.0.ask("POST", "/moto-api/reset", "").map(drop)
    }

    /// Its resident memory in bytes.
    pub fn resident(&self) -> Option<u64> {
        const PAGE: u64 = 4096;
        let statm = fs::read_to_string(format!("/proc/{}/statm", self.0.child.id())).ok()?;
        Some(statm.split(' ').nth(1)?.parse::<u64>().ok()? * PAGE)
    }
}

/// What hurts calls on their way to moto.
#[derive(Debug)]
pub struct Faults(Server);

impl Faults {
    /// Starts it, harmless, before what answers at `upstream`.
    pub fn start(tools: &Tools, upstream: &str) -> Result<Self> {
        let mut command = Command::new(tools.program("microburst"));
        command.args(["--host", "127.0.0.1", "--upstream", upstream]);
        Server::start(command, "--port", "/_microburst/health").map(Self)
    }

    /// Where calls are hurt.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.0.address)
    }

    /// Hurts by these rules from now on, and by no others.
    pub fn rules(&self, rules: &Value) -> Result<()> {
        self.0.ask("POST", "/_microburst/rules", &rules.to_string()).map(drop)
    }

    /// How many calls were hurt since the beginning, of the last thousands.
    pub fn fired(&self) -> Result<usize> {
        let answer = self.0.ask("GET", "/_microburst/fired?limit=100000", "")?;
        let (_, body) = answer.split_once("\r\n\r\n").context("an answer without a body")?;
        let events: Vec<Value> = serde_json::from_str(body.trim()).context("reading what was hurt")?;
        Ok(events.len())
    }
}
