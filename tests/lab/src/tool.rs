//! The system's own tools (`ip`, `nft`, `nsenter`, `setpriv`, `unshare`), found and run.

use std::ffi::OsStr;
use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, Result, bail};

/// Where tools are looked for: an ordinary user's own path often lacks the `sbin` directories.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A tool of the system, by name.
pub fn tool(name: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(name);
    command.env("PATH", PATH);
    command
}

/// Runs a command to its end, with `input` on its standard input, and gives back what it printed.
pub fn run(command: &mut Command, input: &str) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting `{program}`: is it installed?"))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).with_context(|| format!("writing to `{program}`"))?;
    }
    finished(child.wait_with_output().with_context(|| format!("waiting for `{program}`"))?, command, input)
}

fn finished(output: Output, command: &Command, input: &str) -> Result<String> {
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    bail!("{command:?} failed ({}): {}\n{input}", output.status, said.trim())
}
