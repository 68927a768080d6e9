//! How long work is told to whoever waits for it. The lab itself prints nothing.

use std::sync::Arc;
use std::time::{Duration, Instant};

/// Is told about each step.
pub trait Progress: Send + Sync {
    /// A step begins. `what` reads like `start the API server`.
    fn started(&self, what: &str) {
        let _ = what;
    }

    /// The step has succeeded, after so long.
    fn finished(&self, what: &str, took: Duration) {
        let _ = (what, took);
    }
}

/// Tells nobody.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {}

/// Progress as it is handed around.
pub type SharedProgress = Arc<dyn Progress>;

/// Progress that tells nobody.
pub fn silent() -> SharedProgress {
    Arc::new(Silent)
}

/// Does `work` as one step.
pub async fn step<T>(
    progress: &dyn Progress,
    what: &str,
    work: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    let begin = Instant::now();
    progress.started(what);
    let done = work.await?;
    progress.finished(what, begin.elapsed());
    Ok(done)
}
