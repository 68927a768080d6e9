//! The system calls that no safe crate offers: packet sockets bound to one interface, memory that is given back, and how soon a thread runs.
//!
//! This is the only crate where `unsafe` is allowed. It holds no protocol and takes no decision: frames and
//! filter programs come in as bytes and numbers, and go to the kernel.

mod memory;
mod packet;
mod scheduling;

pub use memory::return_freed;
pub use packet::{FRAME_MAX, Instruction, PacketSocket, accept_all, check_permission};
pub use scheduling::set_slice;
