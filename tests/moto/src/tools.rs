//! moto and microburst, in a Python environment of their own in Berth's cache.

use std::env;
use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use serde_json::Value;

/// What is installed, from PyPI. The versions are those whose deviations from AWS the tests know.
const PACKAGES: [&str; 2] = ["moto[server]==5.2.5", "microburst==0.10.0"];
/// The folder of the cache, another one for other versions.
const FOLDER: &str = "moto-5.2.5-microburst-0.10.0";
/// Is there once everything is.
const COMPLETE: &str = "complete";
/// Where Berth keeps what takes long to make, when it is not the user's cache folder.
const CACHE_DIR: &str = "BERTH_CACHE_DIR";
/// Writes down everything that an account has, as a client of Amazon's own sees it.
const LOOK: &str = include_str!("look.py");
/// Lays the network of a cluster.
const LAY: &str = include_str!("lay.py");

/// The programs.
#[derive(Clone, Debug)]
pub struct Tools(PathBuf);

impl Tools {
    /// One of them.
    pub fn program(&self, name: &str) -> PathBuf {
        self.0.join("bin").join(name)
    }

    /// All that is there, as boto3 sees it: an independent witness.
    pub fn look(&self, endpoint: &str) -> Result<Value> {
        self.run(LOOK, endpoint, "")
    }

    /// Lays the network of a cluster, with so many instances as its nodes.
    pub fn lay(&self, endpoint: &str, instances: usize) -> Result<Ground> {
        Ok(serde_json::from_value(self.run(LAY, endpoint, &instances.to_string())?)?)
    }

    fn run(&self, script: &str, endpoint: &str, instances: &str) -> Result<Value> {
        let run = Command::new(self.program("python"))
            .args(["-c", script])
            .env("AWS_ENDPOINT_URL", endpoint)
            .env("INSTANCES", instances)
            .envs(environment())
            .stdin(Stdio::null())
            .output()
            .context("starting python")?;
        if !run.status.success() {
            bail!("boto3 failed: {}", String::from_utf8_lossy(&run.stderr));
        }
        serde_json::from_slice(&run.stdout).context("reading what boto3 says")
    }
}

/// The network of a cluster.
#[derive(Clone, Debug, Deserialize)]
pub struct Ground {
    /// The VPC.
    pub vpc: String,
    /// The `spec.providerID` of nodes.
    pub instances: Vec<String>,
    /// Certificates, by their ARNs.
    pub certificates: Vec<String>,
}

/// Credentials that moto takes, and the region, as environment variables.
pub fn environment() -> [(&'static str, &'static str); 3] {
    [("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test"), ("AWS_REGION", "us-east-1")]
}

/// Where they are, or will be.
pub fn cached() -> Result<PathBuf> {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let user = || set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache")));
    let cache = set(CACHE_DIR).or_else(|| user().map(|cache| cache.join("berth")));
    Ok(cache.with_context(|| format!("no place to keep moto: set {CACHE_DIR} or HOME"))?.join(FOLDER))
}

/// The programs, installed first where they are not there; `told` hears of it.
pub fn ready(told: &dyn Fn(&str)) -> Result<Tools> {
    let folder = cached()?;
    let complete = folder.join(COMPLETE);
    if complete.exists() {
        return Ok(Tools(folder));
    }
    fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    let lock = folder.with_extension("lock");
    let lock = OpenOptions::new().create(true).truncate(false).write(true).open(&lock)?;
    lock.lock().context("waiting for another installation of moto")?;
    if !complete.exists() {
        told("installing moto, which answers in AWS's place, from PyPI; once, about a minute");
        install(&folder)?;
        fs::write(&complete, "").with_context(|| format!("writing {}", complete.display()))?;
    }
    Ok(Tools(folder))
}

fn install(folder: &Path) -> Result<()> {
    let python = Command::new("python3").args(["-m", "venv", "--clear"]).arg(folder).stdin(Stdio::null()).output();
    let python = python.context("starting python3: install Python 3 with its module venv (Debian: python3-venv)")?;
    if !python.status.success() {
        let said = [python.stdout, python.stderr].concat();
        bail!(
            "python3 -m venv failed: install Python's module venv (Debian: python3-venv)\n{}",
            String::from_utf8_lossy(&said).trim()
        );
    }
    let mut pip = Command::new(folder.join("bin/pip"));
    let pip = pip.args(["install", "--quiet", "--disable-pip-version-check"]).args(PACKAGES).stdin(Stdio::null());
    let pip = pip.output().context("starting pip")?;
    if !pip.status.success() {
        bail!("pip could not install {}: {}", PACKAGES.join(" and "), String::from_utf8_lossy(&pip.stderr).trim());
    }
    Ok(())
}
