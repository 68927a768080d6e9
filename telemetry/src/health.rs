//! Readiness gates: a process is ready when everything it waits for is there.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// What a process is waiting for. Clones share their state.
#[derive(Clone, Debug, Default)]
pub struct Health {
    waiting: Arc<Mutex<BTreeMap<&'static str, String>>>,
}

impl Health {
    /// Nothing to wait for yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Something to wait for before the process is ready, closed until [`Gate::open`].
    pub fn gate(&self, name: &'static str) -> Gate {
        let gate = Gate { health: self.clone(), name };
        gate.close("not yet");
        gate
    }

    /// What is still waited for, with the reason; empty when ready.
    pub fn waiting(&self) -> Vec<(&'static str, String)> {
        self.lock().iter().map(|(name, why)| (*name, why.clone())).collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<&'static str, String>> {
        // A panic elsewhere leaves the map whole: every change is one call.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One thing that a process waits for.
#[derive(Clone, Debug)]
pub struct Gate {
    health: Health,
    name: &'static str,
}

impl Gate {
    /// It is there.
    pub fn open(&self) {
        self.health.lock().remove(self.name);
    }

    /// It is not there (any more), and why.
    pub fn close(&self, why: &str) {
        self.health.lock().insert(self.name, why.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_ready_when_every_gate_is_open() {
        let health = Health::new();
        let (a, b) = (health.gate("a"), health.gate("b"));
        a.open();
        assert_eq!(health.waiting(), [("b", "not yet".to_owned())]);
        b.open();
        assert!(health.waiting().is_empty());
        a.close("lost");
        assert_eq!(health.waiting(), [("a", "lost".to_owned())]);
    }
}
