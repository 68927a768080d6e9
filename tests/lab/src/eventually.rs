//! Waiting until something holds, and saying what was seen last when it never did.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use tokio::time::{sleep, timeout};

/// Pause between two questions: short against what is measured in the lab, long against the cost of a question.
const ASK_AGAIN: Duration = Duration::from_millis(25);

/// Asks until there is an answer. An error counts as "not yet", because in a lab what is asked may be down on purpose.
pub async fn eventually<T>(what: &str, limit: Duration, mut ask: impl AsyncFnMut() -> Result<Option<T>>) -> Result<T> {
    let begin = Instant::now();
    let mut last = "the question was never answered".to_owned();
    loop {
        let left = limit.saturating_sub(begin.elapsed());
        match timeout(left, ask()).await {
            Ok(Ok(Some(found))) => return Ok(found),
            Ok(Ok(None)) => "not so yet".clone_into(&mut last),
            Ok(Err(error)) => last = format!("{error:#}"),
            Err(_) => {}
        }
        if begin.elapsed() >= limit {
            bail!("{what}: not within {limit:?}; last seen: {last}");
        }
        sleep(ASK_AGAIN).await;
    }
}
