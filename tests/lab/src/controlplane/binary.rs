//! The control plane's binary: built once from its Go module, kept outside the build tree under the hash of
//! what it is built from.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use sha2::{Digest as _, Sha256};

use crate::progress::Progress;
use crate::tool::tool;

/// Where Berth keeps what takes long to build, when it is not the user's cache directory.
pub const CACHE_DIR_ENV: &str = "BERTH_CACHE_DIR";
/// The `go` command to build with, when it is not the one in `PATH`.
pub const GO_ENV: &str = "BERTH_GO";

const NAME: &str = "controlplane";
/// What the build depends on.
const SOURCES: [&str; 3] = ["go.mod", "go.sum", "main.go"];

/// The Go module's directory in this checkout.
pub fn source_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name(NAME)
}

/// Where the binary is, or will be once it is built.
pub fn cached() -> Result<PathBuf> {
    Ok(cache_dir()?.join(NAME).join(source_hash(&source_dir())?).join(NAME))
}

/// The binary, built first when it is not there. A build from nothing takes minutes and needs `go` and a Go module proxy.
pub fn binary(progress: &dyn Progress) -> Result<PathBuf> {
    let binary = cached()?;
    if binary.exists() {
        return Ok(binary);
    }
    let dir = binary.parent().context("the cache has no directory")?;
    fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    let lock = OpenOptions::new().create(true).truncate(false).write(true).open(dir.join("build.lock"))?;
    lock.lock().context("waiting for another build of the control plane")?;
    if !binary.exists() {
        let what = "build the control plane (the first time takes 5 to 10 minutes, then it is cached)";
        let begin = Instant::now();
        progress.started(what);
        build(&binary)?;
        progress.finished(what, begin.elapsed());
    }
    Ok(binary)
}

fn build(binary: &Path) -> Result<()> {
    let unfinished = binary.with_extension("unfinished");
    let log = binary.with_extension("log");
    let log_file = File::create(&log).with_context(|| format!("making {}", log.display()))?;
    let go = std::env::var_os(GO_ENV).unwrap_or_else(|| "go".into());
    let mut command = tool(&go);
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
    let status = command
        .args(["build", "-trimpath", "-ldflags", "-s -w", "-o"])
        .arg(&unfinished)
        .arg(".")
        .current_dir(source_dir())
        .env("CGO_ENABLED", "0")
        .stdin(Stdio::null())
        .stdout(log_file.try_clone()?)
        .stderr(log_file)
        .status()
        .with_context(|| {
            format!(
                "starting `{}` to build the control plane: install Go, put it in PATH or set {GO_ENV}",
                go.display()
            )
        })?;
    if !status.success() {
        let said = fs::read_to_string(&log).unwrap_or_default();
        bail!("building the control plane failed ({status}), see {}:\n{}", log.display(), last_lines(&said, 15));
    }
    fs::rename(&unfinished, binary).with_context(|| format!("putting {} in place", binary.display()))
}

/// The end of a text.
pub(crate) fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

fn cache_dir() -> Result<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(dir) = set(CACHE_DIR_ENV) {
        return Ok(dir);
    }
    let user = set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache")));
    Ok(user.with_context(|| format!("no place to cache the control plane: set {CACHE_DIR_ENV} or HOME"))?.join("berth"))
}

/// Bytes as lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .filter_map(|digit| char::from_digit(digit.into(), 16))
        .collect()
}

fn source_hash(dir: &Path) -> Result<String> {
    let mut hash = Sha256::new();
    for name in SOURCES {
        let path = dir.join(name);
        let text = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        // The length keeps what is moved from one file to the next from giving the same hash.
        hash.update((text.len() as u64).to_be_bytes());
        hash.update(text);
    }
    Ok(hex(&hash.finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_key_changes_with_every_source() {
        let dir = std::env::temp_dir().join(format!("berth-lab-hash-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        for name in SOURCES {
            fs::write(dir.join(name), "a").unwrap();
        }
        let first = source_hash(&dir).unwrap();
        for name in SOURCES {
            fs::write(dir.join(name), "b").unwrap();
            assert_ne!(source_hash(&dir).unwrap(), first, "{name} was changed");
            fs::write(dir.join(name), "a").unwrap();
        }
        assert_eq!(source_hash(&dir).unwrap(), first);
        fs::remove_dir_all(&dir).unwrap();
    }
}
