//! The process of the clients, as the bench holds it.

use std::net::IpAddr;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context as _, Result, bail};
use berth_lab::Lab;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::ground::PORT;
use crate::client::{BEGIN, END, Seen};

/// Three clients for each address, on the LAN. They end with this.
pub(crate) struct Clients {
    process: Child,
    stdin: ChildStdin,
    stdout: Lines<BufReader<ChildStdout>>,
}

impl Clients {
    pub(crate) fn start(lab: &Lab, program: &Path, addresses: &[IpAddr]) -> Result<Self> {
        let mut command = Command::from(lab.client().netns.command(&program.to_string_lossy()));
        command.arg("clients").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        for address in addresses {
            command.arg(format!("--to={}", std::net::SocketAddr::from((*address, PORT))));
        }
        let mut process = command.spawn().with_context(|| format!("starting {}", program.display()))?;
        let stdin = process.stdin.take().context("the clients have no stdin")?;
        let stdout = process.stdout.take().context("the clients have no stdout")?;
        Ok(Self { process, stdin, stdout: BufReader::new(stdout).lines() })
    }

    /// Returns when all are answered, and they count from here on.
    pub(crate) async fn begin(&mut self) -> Result<()> {
        self.say(BEGIN).await.map(drop)
    }

    /// What they saw since the beginning, once they are answered.
    pub(crate) async fn end(&mut self) -> Result<Vec<Seen>> {
        self.say(END).await
    }

    async fn say(&mut self, word: &str) -> Result<Vec<Seen>> {
        let written = self.stdin.write_all(format!("{word}\n").as_bytes()).await;
        if let (Ok(()), Ok(Some(line))) = (written, self.stdout.next_line().await) {
            return serde_json::from_str(&line).context("reading what the clients say");
        }
        let mut said = String::new();
        if let Some(stderr) = &mut self.process.stderr {
            // What cannot be read is left out.
            let _ = stderr.read_to_string(&mut said).await;
        }
        bail!("the clients have ended: {}", said.trim())
    }
}
