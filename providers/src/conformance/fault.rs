//! What can go wrong between a provider and the outside world.

use std::sync::{Mutex, PoisonError};

/// How calls fail.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    /// They do not.
    #[default]
    None,
    /// So many more writes are carried out, then nothing answers any more: the process is dead.
    DieAfter {
        /// Writes that still work.
        writes: u64,
    },
    /// The same, and one write more is carried out whose answer nobody hears.
    LoseAnswerAfter {
        /// Writes that still work.
        writes: u64,
    },
    /// Each call, by chance, is refused, or is carried out and its answer lost.
    Random {
        /// Where chance begins.
        seed: u64,
        /// Calls that fail of 1,000.
        of_1000: u64,
    },
}

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It works.
    Pass,
    /// It is refused, nothing is done.
    Refuse,
    /// It is done, and the answer is lost.
    LoseAnswer,
}

/// Decides what becomes of calls. A [`World`](super::World) puts one between its provider and what the provider calls.
#[derive(Debug, Default)]
pub struct FaultGate {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    fault: Fault,
    writes: u64,
    passed: u64,
}

impl FaultGate {
    /// Makes calls fail from now on.
    pub fn set(&self, fault: Fault) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.fault = fault;
        state.passed = 0;
    }

    /// What becomes of a call that reads.
    pub fn read(&self) -> Verdict {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).verdict(false)
    }

    /// What becomes of a call that writes.
    pub fn write(&self) -> Verdict {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).verdict(true)
    }

    /// How many writes were asked for.
    pub fn writes(&self) -> u64 {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).writes
    }
}

impl State {
    fn verdict(&mut self, write: bool) -> Verdict {
        self.writes += u64::from(write);
        match &mut self.fault {
            Fault::None => Verdict::Pass,
            Fault::DieAfter { writes } | Fault::LoseAnswerAfter { writes } if self.passed < *writes => {
                self.passed += u64::from(write);
                Verdict::Pass
            }
            Fault::LoseAnswerAfter { writes } if write && self.passed == *writes => {
                self.passed += 1;
                Verdict::LoseAnswer
            }
            // Up to the write whose answer is lost, reads still work.
            Fault::LoseAnswerAfter { writes } if self.passed == *writes => Verdict::Pass,
            Fault::DieAfter { .. } | Fault::LoseAnswerAfter { .. } => Verdict::Refuse,
            Fault::Random { seed, of_1000 } => {
                *seed = next(*seed);
                match *seed % 2000 {
                    n if n < *of_1000 => Verdict::Refuse,
                    n if n < 2 * *of_1000 => Verdict::LoseAnswer,
                    _ => Verdict::Pass,
                }
            }
        }
    }
}

/// The next number of chance (splitmix64's step; any good spread would do).
pub(super) fn next(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
