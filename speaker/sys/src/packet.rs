//! A packet socket: Ethernet frames of one protocol and interface, sieved by a filter program in the kernel.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use socket2::{Domain, SockAddr, SockAddrStorage, SockFilter, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Bytes that hold any frame of Ethernet without jumbo frames. ARP has 60, padding included; neighbor discovery 78 and options.
pub const FRAME_MAX: usize = 1_514;

/// One instruction of a classic BPF program, as `struct sock_filter` of `linux/filter.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// Operation.
    pub code: u16,
    /// How many instructions to skip when a comparison holds.
    pub jump_true: u8,
    /// How many instructions to skip when it does not.
    pub jump_false: u8,
    /// Operand.
    pub operand: u32,
}

/// A program that lets every frame of the bound protocol through, for those who only watch.
#[must_use]
pub const fn accept_all() -> [Instruction; 1] {
    /// `BPF_RET | BPF_K`: the operand is how many bytes of the frame are kept.
    const RETURN: u16 = 0x06;
    [Instruction { code: RETURN, jump_true: 0, jump_false: 0, operand: u32::MAX }]
}

/// Whether this process may open packet sockets at all: an error of kind `PermissionDenied` where it may not.
pub fn check_permission() -> io::Result<()> {
    Socket::new(Domain::PACKET, Type::RAW, None).map(drop)
}

/// A socket that receives whole Ethernet frames of one protocol on one interface, and sends any. Never blocks.
#[derive(Debug)]
pub struct PacketSocket {
    socket: Socket,
}

impl PacketSocket {
    /// Opens a socket for this `EtherType` on the interface with this index, with a filter from its first packet on. What this host
    /// sends itself does not come in.
    ///
    /// Needs `CAP_NET_RAW` in the user namespace that owns the network namespace.
    pub fn open(interface_index: u32, ethertype: u16, filter: &[Instruction]) -> io::Result<Self> {
        // Protocol 0 receives nothing, so no frame can slip in between here and the filter (packet(7)).
        let socket = Socket::new(Domain::PACKET, Type::RAW, None)?;
        socket.set_nonblocking(true)?;
        let socket = Self { socket };
        socket.replace_filter(filter)?;
        socket.socket.bind(&link_address(interface_index, ethertype)?)?;
        Ok(socket)
    }

    /// Lets a tokio runtime, in whose context this must be called, say when there is something to read.
    pub fn into_async(self) -> io::Result<AsyncFd<Self>> {
        // SAFETY: the descriptor is open, is owned by the socket that moves into the AsyncFd, and never changes: nothing
        // here replaces or closes it before the socket is dropped.
        unsafe { AsyncFd::register_with_interest(self, Interest::READABLE) }.map_err(Into::into)
    }

    /// Puts another filter in place of the present one. The kernel swaps them at once: every frame meets one or the other.
    pub fn replace_filter(&self, filter: &[Instruction]) -> io::Result<()> {
        let program: Vec<SockFilter> =
            filter.iter().map(|i| SockFilter::new(i.code, i.jump_true, i.jump_false, i.operand)).collect();
        if u16::try_from(program.len()).is_err() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "filter program is longer than 65,535 instructions",
            ));
        }
        self.socket.attach_filter(&program)
    }

    /// Reads the next frame into `buffer` and says how long it is; what does not fit is cut off.
    ///
    /// `WouldBlock` when there is none; `NetworkDown` once when the interface goes down.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        (&self.socket).read(buffer)
    }

    /// Sends one frame, Ethernet header included.
    ///
    /// `WouldBlock` when the send queue is full.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        // A packet socket sends a frame whole or not at all.
        (&self.socket).write(frame).map(drop)
    }
}

impl AsRawFd for PacketSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The address "this protocol on this interface".
fn link_address(interface_index: u32, ethertype: u16) -> io::Result<SockAddr> {
    let invalid = |what| io::Error::new(io::ErrorKind::InvalidInput, what);
    // Index 0 would mean every interface.
    let index = i32::try_from(interface_index)
        .ok()
        .filter(|i| *i > 0)
        .ok_or_else(|| invalid("an interface index is 1 to 2147483647"))?;
    let family = u16::try_from(libc::AF_PACKET).map_err(|_| invalid("AF_PACKET does not fit its field"))?;
    let length = libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>())
        .map_err(|_| invalid("sockaddr_ll does not fit its length"))?;

    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: sockaddr_ll is the platform's socket address type of AF_PACKET, smaller than the storage, aligned no
    // more strictly, and made of integers only, so the zeroed storage is a valid one.
    let address = unsafe { storage.view_as::<libc::sockaddr_ll>() };
    address.sll_family = family;
    // In network byte order (packet(7)).
    address.sll_protocol = ethertype.to_be();
    address.sll_ifindex = index;
    // SAFETY: the storage was filled in as a sockaddr_ll above, whose family AF_PACKET it carries, and the length is
    // that type's.
    Ok(unsafe { SockAddr::new(storage, length) })
}
