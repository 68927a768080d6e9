//! The words that Berth's parts share: custom resources, annotations, reasons, and the parsed,
//! validated form of what people ask for.
//!
//! Nothing here does I/O or reads a clock. What people write is parsed once, at this edge, into
//! types that cannot be wrong; the rooms behind it never see a raw string again.

pub mod annotations;
pub mod condition;
pub mod crd;
pub mod family;
pub mod heartbeat_keys;
pub mod interface;
pub mod mac;
pub mod names;
pub mod orphans;
pub mod pool;
pub mod reason;
pub mod service;
pub mod sharing;

pub use condition::{Condition, ConditionStatus};
pub use crd::{Announcement, IPAddressPool, L2Advertisement, RouteAdvertisement, SpeakerNode};
pub use family::{IpFamily, PerFamily};
pub use heartbeat_keys::HeartbeatKeys;
pub use mac::MacAddr;
pub use reason::Reason;
