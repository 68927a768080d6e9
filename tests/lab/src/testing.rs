//! Tests that run inside a lab of their own. See [`lab_test!`](crate::lab_test).

use std::fmt;
use std::fs::{self, OpenOptions};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::controlplane::binary::{self, last_lines};
use crate::enter::{self, LAB_LOG, Launch};
use crate::lab::{Lab, LabConfig};
use crate::progress::{Silent, silent};
use crate::run_dir::labs_dir;

/// Longest run of one lab test. The slowest scenario takes a third of it on two cores.
pub const TIME_LIMIT: Duration = Duration::from_mins(3);
/// Labs that run at once on a machine: a lab keeps about one core busy, and more would blur what is timed.
const LABS_AT_ONCE: usize = 2;
/// Set to run another number of labs at once; 1 gives the steadiest times.
pub const LABS_AT_ONCE_ENV: &str = "BERTH_LABS_AT_ONCE";
/// Lines of the test's own output that are told when it fails.
const LINES_TOLD: usize = 60;

/// A test that runs inside a lab of its own.
///
/// The test starts itself again as the first process of the lab and waits for it. When it fails, the lab's directory is kept, and the
/// failure names every log.
///
/// ```no_run
/// use berth_lab::{Lab, LabConfig, lab_test};
///
/// lab_test! {
///     /// Three nodes.
///     async fn a_lab_has_nodes(lab: Lab) -> anyhow::Result<()> {
///         assert_eq!(lab.nodes().len(), 3);
///         Ok(())
///     }
/// }
///
/// lab_test! {
///     LabConfig { nodes: 1, ..LabConfig::default() };
///     async fn a_small_lab_has_one_node(lab: Lab) -> anyhow::Result<()> {
///         assert_eq!(lab.nodes().len(), 1);
///         Ok(())
///     }
/// }
/// ```
#[macro_export]
macro_rules! lab_test {
    ($(#[$attribute:meta])* async fn $name:ident($lab:ident : $type:ty) -> $result:ty $body:block) => {
        $crate::lab_test! { $crate::LabConfig::default(); $(#[$attribute])* async fn $name($lab: $type) -> $result $body }
    };
    ($config:expr; $(#[$attribute:meta])* async fn $name:ident($lab:ident : $type:ty) -> $result:ty $body:block) => {
        $(#[$attribute])*
        #[test]
        fn $name() -> Result<(), $crate::testing::Failure> {
            async fn scenario($lab: $type) -> $result $body
            $crate::testing::run(concat!(module_path!(), "::", stringify!($name)), $config, scenario)
        }
    };
}

/// Runs a test in a lab; what [`lab_test!`](crate::lab_test) expands to. `path` is the test's, with the crate's name in front.
pub fn run(path: &str, config: LabConfig, scenario: impl AsyncFnOnce(Lab) -> Result<()>) -> Result<(), Failure> {
    match enter::entered()? {
        None => Ok(outside(path)?),
        Some(entered) => Ok(runtime()?.block_on(async {
            let lab = Lab::start(entered, config, silent()).await.context("starting the lab")?;
            scenario(lab).await
        })?),
    }
}

/// Why a test failed, printed by the test harness as it stands: with line breaks and causes, without a trace of the harness itself.
pub struct Failure(anyhow::Error);

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}", self.0)
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self(error)
    }
}

/// The runtime of a lab's first process.
pub fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting the runtime")
}

fn outside(path: &str) -> Result<()> {
    // Before the turn, so that the minutes of a first build hold up nobody and are in no test's time.
    binary::binary(&Silent)?;
    let turn = Turn::take()?;
    let test = within_crate(path);
    let launched = Launch::new(test.replace("::", "."), arguments(path)).output_to_log().spawn()?;
    let run_dir = launched.run_dir().clone();
    let status = launched.wait_at_most(TIME_LIMIT)?;
    drop(turn);
    let said = fs::read_to_string(run_dir.log(LAB_LOG)).unwrap_or_default();
    let why = match status {
        Some(status) if status.success() => {
            pass_on(&said);
            return run_dir.remove();
        }
        Some(status) => format!("the test failed in its lab ({status})"),
        None => format!("the test took longer than {TIME_LIMIT:?} and was ended"),
    };
    run_dir.mark_failed(&why)?;
    let logs: Vec<_> = run_dir.log_files().iter().map(|path| format!("  {}", path.display())).collect();
    bail!("{why}:\n\n{}\n\nlogs of the lab:\n{}\n", last_lines(said.trim(), LINES_TOLD), logs.join("\n"))
}

/// What a test that passed said, such as what it measured, for whoever asks by `--nocapture` or `--show-output`.
#[expect(clippy::print_stdout, reason = "the harness keeps what a test prints from those who did not ask")]
fn pass_on(said: &str) {
    print!("{said}");
}

/// The arguments with which a test's binary runs that one test as the first process of a lab. `path` has the crate's name in front.
pub fn arguments(path: &str) -> [&str; 5] {
    [within_crate(path), "--exact", "--nocapture", "--include-ignored", "--test-threads=1"]
}

/// What the test harness calls the test: the path without the crate's name.
fn within_crate(path: &str) -> &str {
    path.split_once("::").map_or(path, |(_, test)| test)
}

/// The right to be one of the labs that run at once, until it is dropped: in this process by a count, between processes by a file lock.
pub struct Turn {
    _lock: fs::File,
    _number: Number,
}

/// One of the turns of this process.
struct Number(usize);

static TAKEN: Mutex<Vec<usize>> = Mutex::new(Vec::new());
static GIVEN_BACK: Condvar = Condvar::new();

impl Turn {
    /// Waits for one.
    pub fn take() -> Result<Self> {
        let turns = match std::env::var(LABS_AT_ONCE_ENV) {
            Ok(text) => text
                .parse()
                .ok()
                .filter(|count| *count > 0)
                .with_context(|| format!("{LABS_AT_ONCE_ENV} is not a number: {text}"))?,
            Err(_) => LABS_AT_ONCE,
        };
        let number = Number::take(turns);
        let dir = labs_dir()?;
        fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
        let path = dir.join(format!(".turn-{}", number.0));
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path)?;
        file.lock().with_context(|| format!("locking {}", path.display()))?;
        Ok(Self { _lock: file, _number: number })
    }
}

impl Number {
    fn take(turns: usize) -> Self {
        let taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
        let full = |taken: &mut Vec<usize>| taken.len() >= turns;
        let mut taken = GIVEN_BACK.wait_while(taken, full).unwrap_or_else(PoisonError::into_inner);
        let number = (0..turns).find(|number| !taken.contains(number)).unwrap_or_default();
        taken.push(number);
        Self(number)
    }
}

impl Drop for Number {
    fn drop(&mut self) {
        TAKEN.lock().unwrap_or_else(PoisonError::into_inner).retain(|number| *number != self.0);
        GIVEN_BACK.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_harness_knows_a_test_without_its_crate() {
        for (path, test) in [("lab::works", "works"), ("lab::faults::link_cut", "faults::link_cut"), ("works", "works")]
        {
            assert_eq!(within_crate(path), test);
        }
    }
}
