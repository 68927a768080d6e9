//! Readiness gates of pods: a pod that has the gate `target-health.berth.dev/<Service>` is ready only when the load balancer of that
//! Service finds it healthy, so that a rollout does not go on before the new pods get traffic.
//!
//! ```text
//!  pods (watch, trimmed) -> Gates <- what the provider thinks of endpoints
//!                             |-> pods that wait are targets all the same (board)
//!                             `-> conditions, where they differ (writer)
//! ```

mod ledger;
mod pod;
mod verdict;
mod writer;

pub(crate) use ledger::{ByPod, Gates, Served};
pub(crate) use pod::{Pod, PodFeed, PodId, PodState};
pub(crate) use writer::{GateWrite, GateWriter, GateWritten};
