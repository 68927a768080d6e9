//! The lab: a real control plane (etcd, API server, controller manager, scheduler), nodes with kubelet and kube-proxy, users' pods, a client and a
//! router, all of them in one set of namespaces that ends, whole, with its first process.
//!
//! No root is needed, no container, and nothing is left behind. How it is used:
//!
//! - by tests, through [`lab_test!`]: the test runs inside a lab of its own;
//! - by programs, through [`Launch`] outside and [`entered`] and [`Lab::start`] inside: the program starts itself again as the
//!   lab's first process;
//! - from the host, through [`LabState`]: what labs are up, how to enter them, how to end them.
//!
//! The lab prints nothing; whoever wants to know is told through [`Progress`].

mod ask;
mod audit;
mod berth;
mod component;
pub mod controlplane;
mod enter;
mod eventually;
mod fault;
mod http;
mod install;
mod kubelet;
mod lab;
pub mod names;
mod netns;
pub mod network;
mod node;
mod pod;
mod pod_network;
mod probe;
mod process;
mod progress;
mod run_dir;
mod standalone;
mod state;
pub mod testing;
mod tool;
mod watch;

pub use ask::Asker;
pub use audit::Request;
pub use berth::{HEARTBEAT_PORT, HTTP_PORT};
pub use enter::{Entered, LIFELINE_LIMIT, Launch, Launched, Outcome, entered};
pub use eventually::eventually;
pub use http::Response;
pub use install::{BerthConfig, LOG_ENV, PodEdit, Workload};
pub use kubelet::{BIN_DIR_ENV, Container};
pub use lab::{Lab, LabConfig};
pub use netns::Netns;
pub use network::Host;
pub use node::Node;
pub use pod::{Answer, DEFAULT_PORT, Pod, PodSpec};
pub use probe::{ATTEMPT_LIMIT, Attempt, Observation, Prober};
pub use process::{Process, ProcessSpec};
pub use progress::{Progress, SharedProgress, Silent, silent};
pub use run_dir::{LABS_DIR_ENV, RunDir};
pub use state::{ContainerState, HostState, LabState, NodeState, Role, host_pids, is_user_namespace};
pub use watch::{ArpSeen, ArpWatch, Heard, NdpSeen, NdpWatch, Seen, Watch};
