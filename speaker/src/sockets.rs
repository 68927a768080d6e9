//! The sockets of each announcing interface: one for ARP frames, one for heartbeats.
//!
//! Nothing here waits: reading is bounded by the caller and ends when there is nothing more, and what the kernel's
//! send queue does not take is dropped, because a late ARP reply or heartbeat is worth nothing.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::AsRawFd;
use std::task::{Context, Poll};

use berth_sys::{ArpSocket, FRAME_MAX, Instruction};
use berth_wire::filter::{self, MAX_INSTRUCTIONS, SMALL_INSTRUCTIONS};
use berth_wire::heartbeat;
use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrIn, sendmsg};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::UdpSocket;

use crate::links::{Link, Links};

/// One byte more than a heartbeat may have, so that a longer one is seen as such instead of being cut to a good one.
const DATAGRAM_BUFFER: usize = heartbeat::DATAGRAM_MAX + 1;

/// Precedence "network control" (CS6, RFC 4594 section 3.1): a congested switch is to drop heartbeats last.
const HEARTBEAT_TOS: u32 = 0xc0;

/// Heartbeats are sent with the highest TTL and no lower one is let in (RFC 5082): a router in between lowers it, so nobody from another
/// link can make one up.
const HEARTBEAT_TTL: u8 = 255;

/// How sockets followed the interfaces.
#[derive(Debug, Default)]
pub struct Followed {
    /// Interfaces that are no longer heard: gone, down, or another one of the same name.
    pub closed: Vec<String>,
    /// Interfaces whose sockets were missing, and whether they are open now.
    pub opened: Vec<(String, io::Result<()>)>,
}

/// An announcing interface with its sockets open.
#[derive(Debug)]
struct Port {
    link: Link,
    arp: AsyncFd<ArpSocket>,
    heartbeat: UdpSocket,
}

impl Port {
    fn open(name: &str, link: &Link, heartbeat_port: u16, addresses: &[Ipv4Addr]) -> io::Result<Self> {
        // Nothing is let in before the right filter is there.
        let socket = ArpSocket::open(link.index, &instructions(&filter::program([])))?;
        attach(&socket, addresses)?;
        let arp = socket.into_async()?;
        Ok(Self { link: link.clone(), arp, heartbeat: heartbeat_socket(name, heartbeat_port)? })
    }
}

/// Lets in ARP about these addresses and nothing else.
fn attach(socket: &ArpSocket, addresses: &[Ipv4Addr]) -> io::Result<()> {
    let attach =
        |limit| socket.replace_filter(&instructions(&filter::program_within(addresses.iter().copied(), limit)));
    match attach(MAX_INSTRUCTIONS) {
        Err(error) if error.raw_os_error() == Some(nix::libc::ENOMEM) => attach(SMALL_INSTRUCTIONS),
        result => result,
    }
}

fn instructions(program: &filter::Program) -> Vec<Instruction> {
    let convert =
        |i: &filter::Instruction| Instruction { code: i.code, jump_true: i.jt, jump_false: i.jf, operand: i.k };
    program.instructions.iter().map(convert).collect()
}

fn heartbeat_socket(interface: &str, port: u16) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    // A speaker that is being replaced may still hold the port for the moment in which it says goodbye.
    socket.set_reuse_address(true)?;
    // Only what came in on this link, and only out by it, whatever the routing table says.
    socket.bind_device(Some(interface.as_bytes()))?;
    socket.set_tos_v4(HEARTBEAT_TOS)?;
    socket.set_ttl_v4(u32::from(HEARTBEAT_TTL))?;
    let filter = filter::ttl_at_least(HEARTBEAT_TTL).map(|i| SockFilter::new(i.code, i.jt, i.jf, i.k));
    socket.attach_filter(&filter)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)).into())?;
    UdpSocket::from_std(socket.into())
}

/// What became of something that was to be sent.
#[derive(Debug)]
pub enum Sent {
    /// It is with the kernel.
    Yes,
    /// The kernel's queue was full.
    QueueFull,
    /// The interface has no socket at the moment.
    NoInterface,
    /// The kernel refused it.
    Failed(io::Error),
}

impl From<io::Result<()>> for Sent {
    fn from(result: io::Result<()>) -> Self {
        match result {
            Ok(()) => Self::Yes,
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock => Self::QueueFull,
                _ if error.raw_os_error() == Some(nix::libc::ENOBUFS) => Self::QueueFull,
                _ => Self::Failed(error),
            },
        }
    }
}

/// The sockets of all announcing interfaces.
#[derive(Debug)]
pub struct Sockets {
    heartbeat_port: u16,
    ports: BTreeMap<String, Port>,
}

impl Sockets {
    /// None open yet.
    pub fn new(heartbeat_port: u16) -> Self {
        Self { heartbeat_port, ports: BTreeMap::new() }
    }

    /// Closes the sockets of interfaces that are gone or were made anew, and opens those that are missing, each with
    /// a filter for the addresses that `watched` gives it. Says which were opened, or why not.
    pub fn follow(&mut self, links: &Links, mut watched: impl FnMut(&str) -> Vec<Ipv4Addr>) -> Followed {
        // A new index is another interface of the same name; its sockets are bound to the one that is gone.
        let stays = |name: &String, port: &Port| links.get(name).is_some_and(|link| link.index == port.link.index);
        let closed: Vec<String> =
            self.ports.extract_if(.., |name, port| !stays(name, port)).map(|(name, _)| name).collect();
        let mut opened = Vec::new();
        for (name, link) in links {
            if let Some(port) = self.ports.get_mut(name) {
                port.link.clone_from(link);
                continue;
            }
            let result = Port::open(name, link, self.heartbeat_port, &watched(name))
                .map(|port| drop(self.ports.insert(name.clone(), port)));
            opened.push((name.clone(), result));
        }
        Followed { closed, opened }
    }

    /// Lets in ARP about these addresses from now on, and nothing else. Nothing to do if the interface is not open: it gets
    /// the filter of the moment when it is opened.
    pub fn watch(&self, interface: &str, addresses: &[Ipv4Addr]) -> io::Result<()> {
        self.ports.get(interface).map_or(Ok(()), |port| attach(port.arp.get_ref(), addresses))
    }

    /// Ready when there is something to read on any of them.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut any = Poll::Pending;
        for port in self.ports.values() {
            // Each one is polled, so that each one wakes the task.
            if port.arp.poll_read_ready(cx).is_ready() {
                any = Poll::Ready(());
            }
            if port.heartbeat.poll_recv_ready(cx).is_ready() {
                any = Poll::Ready(());
            }
        }
        any
    }

    /// Reads heartbeats, at most `limit` of each interface: its name, who sent it, the bytes.
    pub fn read_heartbeats(&self, limit: usize, mut each: impl FnMut(&str, Ipv4Addr, &[u8])) {
        let mut buffer = [0; DATAGRAM_BUFFER];
        for (name, port) in &self.ports {
            for _ in 0..limit {
                match port.heartbeat.try_recv_from(&mut buffer) {
                    Ok((length, SocketAddr::V4(from))) => each(name, *from.ip(), &buffer[..length]),
                    // The socket is of IPv4.
                    Ok((_, SocketAddr::V6(_))) => {}
                    Err(error) => {
                        log_read_error(name, &error);
                        break;
                    }
                }
            }
        }
    }

    /// Reads ARP frames, at most `limit` of each interface: its name, the bytes.
    pub fn read_frames(&self, limit: usize, mut each: impl FnMut(&str, &[u8])) {
        let mut buffer = [0; FRAME_MAX];
        for (name, port) in &self.ports {
            for _ in 0..limit {
                match port.arp.try_io(Interest::READABLE, |socket| socket.receive(&mut buffer)) {
                    Ok(length) => each(name, &buffer[..length]),
                    Err(error) => {
                        log_read_error(name, &error);
                        break;
                    }
                }
            }
        }
    }

    /// Sends an Ethernet frame.
    pub fn send_frame(&self, interface: &str, frame: &[u8]) -> Sent {
        match self.ports.get(interface) {
            Some(port) => port.arp.get_ref().send(frame).into(),
            None => Sent::NoInterface,
        }
    }

    /// Sends a heartbeat to a node from one of our addresses, by which its speaker knows us.
    pub fn send_heartbeat(&self, interface: &str, from: Ipv4Addr, to: Ipv4Addr, datagram: &[u8]) -> Sent {
        let Some(port) = self.ports.get(interface) else {
            return Sent::NoInterface;
        };
        let source = nix::libc::in_pktinfo {
            // The socket is bound to its interface.
            ipi_ifindex: 0,
            // In network byte order, as octets lie in memory (ip(7)).
            ipi_spec_dst: nix::libc::in_addr { s_addr: u32::from_ne_bytes(from.octets()) },
            ipi_addr: nix::libc::in_addr { s_addr: 0 },
        };
        let sent = sendmsg(
            port.heartbeat.as_raw_fd(),
            &[IoSlice::new(datagram)],
            &[ControlMessage::Ipv4PacketInfo(&source)],
            MsgFlags::MSG_DONTWAIT,
            Some(&SockaddrIn::from(SocketAddrV4::new(to, self.heartbeat_port))),
        );
        sent.map(drop).map_err(io::Error::from).into()
    }
}

fn log_read_error(interface: &str, error: &io::Error) {
    if error.kind() != io::ErrorKind::WouldBlock {
        // An interface that goes down says so here once; links.rs tells what follows.
        tracing::debug!(interface, %error, "cannot read");
    }
}

#[cfg(test)]
mod tests;
