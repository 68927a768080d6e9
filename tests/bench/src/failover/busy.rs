//! Work for all cores that does nothing.

use std::hint::spin_loop;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Turns between two looks at the clock: well under a millisecond.
const TURNS: u32 = 10_000;

/// Keeps every core busy until it is dropped, or its time is over.
pub(crate) struct Busy {
    stop: Arc<AtomicBool>,
}

impl Busy {
    /// A thread for each core, of the same priority as all others, for at most so long.
    pub(crate) fn start(limit: Duration) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let end = Instant::now() + limit;
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            let stopped = stop.clone();
            thread::spawn(move || {
                while !stopped.load(Ordering::Relaxed) && Instant::now() < end {
                    (0..TURNS).for_each(|_| spin_loop());
                }
            });
        }
        Self { stop }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
