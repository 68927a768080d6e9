//! Pure codecs of the speaker: bytes in, values out, and back.
//!
//! Nothing here opens a socket or reads a clock. Whatever comes from the wire is parsed once, with checked
//! bounds, into types that cannot be wrong; no input makes a parser panic.

pub mod arp;
pub mod filter;
pub mod heartbeat;
pub mod ndp;
pub mod neighbor;
