//! The directory that a lab leaves on the host: its logs and the file that describes it.
//!
//! Whether a lab lives is told by a file lock that its first process holds: the kernel lets go of it
//! when that process ends, however it ends, and no process number can be mistaken for another's.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context as _, Result, bail};

/// Where labs keep their directories, when it is not `lab/` in the build's target directory.
pub const LABS_DIR_ENV: &str = "BERTH_LAB_DIR";

/// Cargo puts this file into every target directory.
const TARGET_DIR_MARK: &str = "CACHEDIR.TAG";
/// Taken while a directory is made or swept, so that none is swept before its lab has begun.
const SWEEP_LOCK: &str = ".sweep";
/// Locked by whoever starts the lab, until it is known how that went.
const LAUNCHER_LOCK: &str = "launcher.lock";
/// Locked by the lab's first process for as long as it lives.
const ALIVE_LOCK: &str = "alive.lock";
/// Its presence keeps the directory from being swept; its text says what went wrong.
const FAILED_MARK: &str = "failed";
/// Directories of failed labs that are kept for reading; older ones go.
const FAILED_KEPT: usize = 20;

/// One lab's directory.
#[derive(Debug, Clone)]
pub struct RunDir {
    path: PathBuf,
}

/// A lock on a lab's directory, held until it is dropped.
#[derive(Debug)]
pub struct Held(#[allow(dead_code, reason = "closing the file is what gives the lock back")] File);

impl RunDir {
    /// Makes `<labs>/<name>-<pid>` after sweeping what dead labs left, and holds it for the launcher.
    pub fn create(name: &str) -> Result<(Self, Held)> {
        let labs = labs_dir()?;
        fs::create_dir_all(&labs).with_context(|| format!("making {}", labs.display()))?;
        let sweeping = open_lock(&labs.join(SWEEP_LOCK))?;
        sweeping.lock().with_context(|| format!("locking {}", labs.display()))?;
        sweep(&labs)?;
        let base = format!("{name}-{}", std::process::id());
        let mut path = labs.join(&base);
        let mut again = 1;
        while path.exists() {
            again += 1;
            path = labs.join(format!("{base}-{again}"));
        }
        fs::create_dir_all(path.join("logs")).with_context(|| format!("making {}", path.display()))?;
        let held = open_lock(&path.join(LAUNCHER_LOCK))?;
        held.lock().with_context(|| format!("locking {}", path.display()))?;
        Ok((Self { path }, Held(held)))
    }

    /// The directory at a known place.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// All directories there are, of living and of failed labs.
    pub fn all() -> Result<Vec<Self>> {
        list(&labs_dir()?)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the logs are, one file for each process.
    pub fn logs(&self) -> PathBuf {
        self.path.join("logs")
    }

    /// The log of a process.
    pub fn log(&self, process: &str) -> PathBuf {
        self.logs().join(format!("{process}.log"))
    }

    /// Every log there is, in order of name.
    pub fn log_files(&self) -> Vec<PathBuf> {
        let mut files: Vec<_> = fs::read_dir(self.logs())
            .map(|entries| entries.filter_map(|e| e.ok().map(|e| e.path())).collect())
            .unwrap_or_default();
        files.sort();
        files
    }

    /// Says, for as long as the result is held, that this process is the lab's first and lives.
    pub fn hold_alive(&self) -> Result<Held> {
        let file = open_lock(&self.path.join(ALIVE_LOCK))?;
        file.try_lock().with_context(|| format!("another process runs the lab in {}", self.path.display()))?;
        Ok(Held(file))
    }

    /// Whether the lab's first process lives.
    pub fn is_alive(&self) -> bool {
        is_locked(&self.path.join(ALIVE_LOCK))
    }

    /// Waits until the lab's first process has ended.
    pub fn wait_until_dead(&self) -> Result<()> {
        let file = open_lock(&self.path.join(ALIVE_LOCK))?;
        file.lock().with_context(|| format!("waiting for the end of the lab in {}", self.path.display()))
    }

    /// Keeps the directory for reading, and says why.
    pub fn mark_failed(&self, why: &str) -> Result<()> {
        fs::write(self.path.join(FAILED_MARK), why).with_context(|| format!("writing to {}", self.path.display()))
    }

    /// Whether the lab in it failed.
    pub fn is_failed(&self) -> bool {
        self.path.join(FAILED_MARK).exists()
    }

    /// Removes the directory and all in it.
    pub fn remove(&self) -> Result<()> {
        match fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("removing {}", self.path.display()))
            }
            _ => Ok(()),
        }
    }

    fn in_use(&self) -> bool {
        is_locked(&self.path.join(LAUNCHER_LOCK)) || self.is_alive()
    }
}

/// The build's target directory, found from the running binary.
fn target_dir() -> Result<PathBuf> {
    let binary = std::env::current_exe().context("finding the running binary")?;
    match binary.ancestors().find(|dir| dir.join(TARGET_DIR_MARK).exists()) {
        Some(dir) => Ok(dir.to_path_buf()),
        None => bail!("{} is not in a Cargo target directory: set {LABS_DIR_ENV}", binary.display()),
    }
}

/// Where the labs of this build keep their directories.
pub(crate) fn labs_dir() -> Result<PathBuf> {
    match std::env::var_os(LABS_DIR_ENV) {
        Some(dir) => Ok(PathBuf::from(dir)),
        None => Ok(target_dir()?.join("lab")),
    }
}

fn list(labs: &Path) -> Result<Vec<RunDir>> {
    let entries = match fs::read_dir(labs) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("reading {}", labs.display())),
    };
    let mut dirs: Vec<_> = entries
        .filter_map(|e| e.ok().map(|e| e.path()))
        .filter(|path| path.join("logs").is_dir())
        .map(RunDir::at)
        .collect();
    dirs.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(dirs)
}

fn sweep(labs: &Path) -> Result<()> {
    let (mut failed, dead): (Vec<_>, Vec<_>) =
        list(labs)?.into_iter().filter(|dir| !dir.in_use()).partition(RunDir::is_failed);
    failed.sort_by_key(|dir| {
        let changed =
            fs::metadata(dir.path.join(FAILED_MARK)).and_then(|m| m.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
        std::cmp::Reverse(changed)
    });
    dead.iter().chain(failed.iter().skip(FAILED_KEPT)).try_for_each(RunDir::remove)
}

fn open_lock(path: &Path) -> Result<File> {
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .with_context(|| format!("opening {}", path.display()))
}

fn is_locked(path: &Path) -> bool {
    File::open(path).is_ok_and(|file| matches!(file.try_lock(), Err(TryLockError::WouldBlock)))
}
