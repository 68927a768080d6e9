//! The sockets of each announcing interface: for each address family one for frames about who has an address, and one for heartbeats.
//!
//! Nothing here waits: reading is bounded by the caller and ends when there is nothing more, and what the kernel's
//! send queue does not take is dropped, because a late ARP reply or heartbeat is worth nothing.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::AsRawFd;
use std::task::{Context, Poll};

use berth_machine::Frame;
use berth_sys::{FRAME_MAX, Instruction, PacketSocket};
use berth_wire::arp::ETHERTYPE_ARP;
use berth_wire::filter::{self, MAX_INSTRUCTIONS, Program, SMALL_INSTRUCTIONS};
use berth_wire::heartbeat;
use berth_wire::ndp::{ETHERTYPE_IPV6, solicited_node};
use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrIn, SockaddrIn6, SockaddrLike, sendmsg};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::UdpSocket;

use crate::groups::Groups;
use crate::links::{Link, Links};
use crate::metrics::Listen;

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
    /// What else was to be had on open interfaces, and whether it is.
    pub heard: Vec<(String, Heard)>,
}

/// Something that is to be listened for, and whether it is now.
pub type Heard = (Listen, io::Result<()>);

/// What is to be heard on an interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Watched {
    /// Addresses of Services: questions about them as well, for which groups are joined.
    pub addresses: Vec<IpAddr>,
    /// Addresses that others have, or may have: what they answer to this node.
    pub partners: Vec<IpAddr>,
}

/// An announcing interface with its sockets open.
#[derive(Debug)]
struct Port {
    link: Link,
    arp: AsyncFd<PacketSocket>,
    /// There while IPv6 addresses are watched: its filter looks at every IPv6 packet that the node receives.
    ndp: Option<AsyncFd<PacketSocket>>,
    groups: Groups,
    heartbeat: UdpSocket,
    /// There once the node has an IPv6 address on the interface.
    heartbeat6: Option<UdpSocket>,
}

impl Port {
    /// Opens the sockets. Without the filters an interface is as good as not there, so that another node serves it; the rest can be had
    /// later, and is told with the port.
    fn open(
        name: &str,
        link: &Link,
        heartbeat_port: u16,
        watched: &Watched,
    ) -> io::Result<(Self, impl Iterator<Item = Heard> + use<>)> {
        let mut port = Self {
            link: link.clone(),
            arp: packet_socket(link, ETHERTYPE_ARP)?,
            ndp: None,
            groups: Groups::new(link.index),
            heartbeat: heartbeat_socket(name, heartbeat_port)?,
            heartbeat6: None,
        };
        let [(_, arp), (_, ndp), groups] = port.watch(name, watched);
        arp.and(ndp)?;
        let heartbeat6 = port.follow(name, link, heartbeat_port);
        Ok((port, std::iter::once(groups).chain(heartbeat6)))
    }

    /// Takes in what the interface is like now. Says whether there is a socket for heartbeats over IPv6, if one was missing.
    fn follow(&mut self, name: &str, link: &Link, heartbeat_port: u16) -> Option<Heard> {
        self.link.clone_from(link);
        if self.heartbeat6.is_some() || !link.addresses.iter().any(|net| net.addr().is_ipv6()) {
            return None;
        }
        // Partners are met over IPv4 first, so an error is no reason to go without that.
        let opened = heartbeat_socket6(name, heartbeat_port).map(|socket| self.heartbeat6 = Some(socket));
        Some((Listen::Heartbeat6, opened))
    }

    /// Lets in what is about these addresses and nothing else, and joins the groups by which they are asked for: each of these
    /// whatever becomes of the others.
    fn watch(&mut self, name: &str, watched: &Watched) -> [Heard; 3] {
        let of6 = |address: &IpAddr| if let IpAddr::V6(v6) = address { Some(*v6) } else { None };
        let all = || watched.addresses.iter().chain(&watched.partners);
        let v4 = || all().filter_map(|address| if let IpAddr::V4(v4) = address { Some(*v4) } else { None });
        let arp = attach(self.arp.get_ref(), |limit| filter::arp_program(v4(), limit));
        let ndp = self.watch_ndp(&all().filter_map(of6).collect::<Vec<_>>());
        let asked_for = watched.addresses.iter().filter_map(of6);
        let groups = self.groups.follow(name, &asked_for.map(solicited_node).collect());
        [(Listen::Arp, arp), (Listen::Ndp, ndp), (Listen::Groups, groups)]
    }

    fn watch_ndp(&mut self, addresses: &[Ipv6Addr]) -> io::Result<()> {
        if addresses.is_empty() {
            self.ndp = None;
            return Ok(());
        }
        let ndp = match self.ndp.take() {
            Some(ndp) => ndp,
            None => packet_socket(&self.link, ETHERTYPE_IPV6)?,
        };
        let program = |limit| filter::ndp_program(addresses.iter().copied(), limit);
        attach(self.ndp.insert(ndp).get_ref(), program)
    }

    fn packet_sockets(&self) -> impl Iterator<Item = &AsyncFd<PacketSocket>> {
        std::iter::once(&self.arp).chain(&self.ndp)
    }

    fn heartbeat_sockets(&self) -> impl Iterator<Item = &UdpSocket> {
        std::iter::once(&self.heartbeat).chain(&self.heartbeat6)
    }
}

/// A socket that lets nothing in before the right filter is there.
fn packet_socket(link: &Link, ethertype: u16) -> io::Result<AsyncFd<PacketSocket>> {
    PacketSocket::open(link.index, ethertype, &instructions(&filter::nothing()))?.into_async()
}

/// Puts the filter in place that `program` makes within a limit.
fn attach(socket: &PacketSocket, program: impl Fn(usize) -> Program) -> io::Result<()> {
    attach_by(|program| socket.replace_filter(&instructions(program)), program)
}

/// The same, by whatever puts a program in the place of the one before. Kernels before 6.7 need room for both while they do that, so
/// the one before goes first where there is not enough, although nothing is heard meanwhile.
fn attach_by(replace: impl Fn(&Program) -> io::Result<()>, program: impl Fn(usize) -> Program) -> io::Result<()> {
    let is_full =
        |result: &io::Result<()>| result.as_ref().is_err_and(|error| error.raw_os_error() == Some(nix::libc::ENOMEM));
    let whole = program(MAX_INSTRUCTIONS);
    let mut result = replace(&whole);
    if is_full(&result) {
        replace(&filter::nothing())?;
        result = replace(&whole);
    }
    if is_full(&result) {
        result = replace(&program(SMALL_INSTRUCTIONS));
    }
    result
}

fn instructions(program: &Program) -> Vec<Instruction> {
    let convert =
        |i: &filter::Instruction| Instruction { code: i.code, jump_true: i.jt, jump_false: i.jf, operand: i.k };
    program.instructions.iter().map(convert).collect()
}

fn heartbeat_socket(interface: &str, port: u16) -> io::Result<UdpSocket> {
    let socket = datagram_socket(Domain::IPV4, interface)?;
    socket.set_tos_v4(HEARTBEAT_TOS)?;
    socket.set_ttl_v4(u32::from(HEARTBEAT_TTL))?;
    bind_heartbeat(socket, filter::ttl_at_least(HEARTBEAT_TTL), (Ipv4Addr::UNSPECIFIED, port).into())
}

fn heartbeat_socket6(interface: &str, port: u16) -> io::Result<UdpSocket> {
    let socket = datagram_socket(Domain::IPV6, interface)?;
    // The other family has a socket of its own on the same port.
    socket.set_only_v6(true)?;
    socket.set_tclass_v6(HEARTBEAT_TOS)?;
    socket.set_unicast_hops_v6(u32::from(HEARTBEAT_TTL))?;
    bind_heartbeat(socket, filter::hop_limit_at_least(HEARTBEAT_TTL), (Ipv6Addr::UNSPECIFIED, port).into())
}

fn datagram_socket(domain: Domain, interface: &str) -> io::Result<Socket> {
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    // A speaker that is being replaced may still hold the port for the moment in which it says goodbye.
    socket.set_reuse_address(true)?;
    // Only what came in on this link, and only out by it, whatever the routing table says.
    socket.bind_device(Some(interface.as_bytes()))?;
    Ok(socket)
}

fn bind_heartbeat(socket: Socket, filter: [filter::Instruction; 4], at: SocketAddr) -> io::Result<UdpSocket> {
    socket.attach_filter(&filter.map(|i| SockFilter::new(i.code, i.jt, i.jf, i.k)))?;
    socket.bind(&at.into())?;
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
    pub fn follow(&mut self, links: &Links, mut watched: impl FnMut(&str) -> Watched) -> Followed {
        // A new index is another interface of the same name; its sockets are bound to the one that is gone.
        let stays = |name: &String, port: &Port| links.get(name).is_some_and(|link| link.index == port.link.index);
        let closed: Vec<String> =
            self.ports.extract_if(.., |name, port| !stays(name, port)).map(|(name, _)| name).collect();
        let (mut opened, mut heard) = (Vec::new(), Vec::new());
        for (name, link) in links {
            if let Some(port) = self.ports.get_mut(name) {
                heard.extend(port.follow(name, link, self.heartbeat_port).map(|result| (name.clone(), result)));
                continue;
            }
            let result = Port::open(name, link, self.heartbeat_port, &watched(name)).map(|(port, rest)| {
                self.ports.insert(name.clone(), port);
                heard.extend(rest.map(|result| (name.clone(), result)));
            });
            opened.push((name.clone(), result));
        }
        Followed { closed, opened, heard }
    }

    /// Lets in ARP and neighbor discovery about these addresses from now on, and nothing else; says of each whether it does, because
    /// one that fails keeps none of the others back. Nothing to do if the interface is not open: it gets the filter of the moment when
    /// it is opened.
    pub fn watch(&mut self, interface: &str, watched: &Watched) -> impl Iterator<Item = Heard> + use<> {
        self.ports.get_mut(interface).map(|port| port.watch(interface, watched)).into_iter().flatten()
    }

    /// The node's own addresses on all interfaces that are open.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.ports.values().flat_map(|port| port.link.addresses.iter().map(ipnet::IpNet::addr))
    }

    /// An interface that is open.
    pub fn link(&self, interface: &str) -> Option<&Link> {
        self.ports.get(interface).map(|port| &port.link)
    }

    /// Groups by which addresses are asked for and that the kernel does not let this node join, on all interfaces.
    pub fn groups_refused(&self) -> usize {
        self.ports.values().map(|port| port.groups.refused()).sum()
    }

    /// Ready when there is something to read on any of them.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut any = Poll::Pending;
        for port in self.ports.values() {
            // Each one is polled, so that each one wakes the task.
            for socket in port.packet_sockets() {
                if socket.poll_read_ready(cx).is_ready() {
                    any = Poll::Ready(());
                }
            }
            for socket in port.heartbeat_sockets() {
                if socket.poll_recv_ready(cx).is_ready() {
                    any = Poll::Ready(());
                }
            }
        }
        any
    }

    /// Reads heartbeats, at most `limit` of each interface and family: its name, who sent it, the bytes.
    pub fn read_heartbeats(&self, limit: usize, mut each: impl FnMut(&str, IpAddr, &[u8])) {
        let mut buffer = [0; DATAGRAM_BUFFER];
        let sockets = self.ports.iter().flat_map(|(name, port)| port.heartbeat_sockets().map(move |s| (name, s)));
        for (name, socket) in sockets {
            for _ in 0..limit {
                match socket.try_recv_from(&mut buffer) {
                    Ok((length, from)) => each(name, from.ip(), &buffer[..length]),
                    Err(error) => {
                        log_read_error(name, &error);
                        break;
                    }
                }
            }
        }
    }

    /// Reads frames, at most `limit` of each interface and family: its name, the bytes.
    pub fn read_frames(&self, limit: usize, mut each: impl FnMut(&str, &[u8])) {
        let mut buffer = [0; FRAME_MAX];
        let sockets = self.ports.iter().flat_map(|(name, port)| port.packet_sockets().map(move |s| (name, s)));
        for (name, socket) in sockets {
            for _ in 0..limit {
                match socket.try_io(Interest::READABLE, |socket| socket.receive(&mut buffer)) {
                    Ok(length) => each(name, &buffer[..length]),
                    Err(error) => {
                        log_read_error(name, &error);
                        break;
                    }
                }
            }
        }
    }

    /// Sends a frame.
    pub fn send_frame(&self, interface: &str, frame: &Frame) -> Sent {
        let Some(port) = self.ports.get(interface) else { return Sent::NoInterface };
        let socket = match frame {
            Frame::Arp(_) => Some(&port.arp),
            Frame::Ndp(_) => port.ndp.as_ref(),
        };
        socket.map_or(Sent::NoInterface, |socket| socket.get_ref().send(&frame.emit()).into())
    }

    /// Sends a heartbeat to a node from one of our addresses, by which its speaker knows us; from one that the kernel chooses where
    /// none is given.
    pub fn send_heartbeat(&self, interface: &str, from: Option<IpAddr>, to: IpAddr, datagram: &[u8]) -> Sent {
        let Some(port) = self.ports.get(interface) else { return Sent::NoInterface };
        match to {
            IpAddr::V4(to) => {
                let source = from.and_then(|from| if let IpAddr::V4(v4) = from { Some(v4) } else { None });
                let source = nix::libc::in_pktinfo {
                    // The socket is bound to its interface.
                    ipi_ifindex: 0,
                    // In network byte order, as octets lie in memory (ip(7)).
                    ipi_spec_dst: nix::libc::in_addr {
                        s_addr: u32::from_ne_bytes(source.unwrap_or(Ipv4Addr::UNSPECIFIED).octets()),
                    },
                    ipi_addr: nix::libc::in_addr { s_addr: 0 },
                };
                let to = SockaddrIn::from(SocketAddrV4::new(to, self.heartbeat_port));
                send_datagram(&port.heartbeat, &ControlMessage::Ipv4PacketInfo(&source), &to, datagram)
            }
            IpAddr::V6(to) => {
                let Some(socket) = &port.heartbeat6 else { return Sent::NoInterface };
                let source = from.and_then(|from| if let IpAddr::V6(v6) = from { Some(v6) } else { None });
                let source = nix::libc::in6_pktinfo {
                    ipi6_addr: nix::libc::in6_addr { s6_addr: source.unwrap_or(Ipv6Addr::UNSPECIFIED).octets() },
                    ipi6_ifindex: 0,
                };
                let to = SockaddrIn6::from(SocketAddrV6::new(to, self.heartbeat_port, 0, 0));
                send_datagram(socket, &ControlMessage::Ipv6PacketInfo(&source), &to, datagram)
            }
        }
    }
}

fn send_datagram<A: SockaddrLike>(socket: &UdpSocket, source: &ControlMessage<'_>, to: &A, datagram: &[u8]) -> Sent {
    let sent = sendmsg(
        socket.as_raw_fd(),
        &[IoSlice::new(datagram)],
        std::slice::from_ref(source),
        MsgFlags::MSG_DONTWAIT,
        Some(to),
    );
    sent.map(drop).map_err(io::Error::from).into()
}

fn log_read_error(interface: &str, error: &io::Error) {
    if error.kind() != io::ErrorKind::WouldBlock {
        // An interface that goes down says so here once; links.rs tells what follows.
        tracing::debug!(interface, %error, "cannot read");
    }
}

#[cfg(test)]
mod tests;
