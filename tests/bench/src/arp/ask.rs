//! Asking for addresses as a neighbour's kernel does, and taking the time until each answer.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result};
use berth_api::MacAddr;
use berth_sys::{FRAME_MAX, PacketSocket, accept_all};
use berth_wire::arp::{self, ArpPacket, ETHERTYPE_ARP, Operation};
use berth_wire::ndp::{self, ETHERTYPE_IPV6, Message};
use berth_wire::neighbor::Frame;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt};
use nix::sys::time::TimeSpec;

use super::tally::{Answers, Tally};
use crate::client::Family;

/// Longest wait without a look at the clock.
const POLL_MAX: Duration = Duration::from_millis(20);

/// Who asks: the host that the process is on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source {
    pub(crate) mac: MacAddr,
    pub(crate) address: Ipv4Addr,
    pub(crate) address6: Ipv6Addr,
}

/// How fast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// One question after each such time, whatever became of earlier ones.
    Every(Duration),
    /// As fast as answers come, with so many questions under way.
    UnderWay(usize),
}

/// Asks for addresses of one family, one after the other and again, until `end`, and waits for the answers. No address is asked for while
/// it is not answered, so there are to be more than are under way.
pub(crate) fn ask(
    interface_index: u32,
    source: &Source,
    addresses: &[IpAddr],
    pace: Pace,
    end: Instant,
) -> Result<Answers> {
    let family = Family::of(*addresses.first().context("there is nothing to ask for")?);
    let protocol = match family {
        Family::Ipv4 => ETHERTYPE_ARP,
        Family::Ipv6 => ETHERTYPE_IPV6,
    };
    let socket = PacketSocket::open(interface_index, protocol, &accept_all()).context("making a packet socket")?;
    // By the kernel's clock for arrivals, so that how late this process runs is not in the time.
    setsockopt(&socket, sockopt::ReceiveTimestampns, &true).context("asking for times of arrival")?;
    let mut next = addresses.iter().copied().cycle();
    let mut tally = Tally::default();
    let mut due = Instant::now();
    loop {
        let (now, clock) = (Instant::now(), SystemTime::now());
        tally.give_up(clock);
        let open = now < end;
        if !open && tally.waiting() == 0 {
            return Ok(tally.done(family));
        }
        let mut wait = POLL_MAX;
        match pace {
            Pace::Every(time) if open => {
                if now >= due {
                    due += time;
                    put(&socket, source, next.next(), &mut tally)?;
                }
                wait = wait.min(due.saturating_duration_since(Instant::now()));
            }
            Pace::UnderWay(most) if open => {
                while tally.waiting() < most.min(addresses.len()) {
                    put(&socket, source, next.next(), &mut tally)?;
                }
            }
            Pace::Every(_) | Pace::UnderWay(_) => {}
        }
        let mut readable = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
        match ppoll(&mut readable, Some(TimeSpec::from(wait)), None) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error).context("waiting for answers"),
        }
        while let Some((address, at)) = receive(&socket, source.mac)? {
            if let Some(address) = address {
                tally.answered(address, at);
            }
        }
    }
}

/// Asks for an address, unless it is being asked for.
fn put(socket: &PacketSocket, source: &Source, address: Option<IpAddr>, tally: &mut Tally) -> Result<()> {
    let Some(address) = address.filter(|address| tally.is_free(*address)) else { return Ok(()) };
    let question = question(source, address);
    tally.asked(address, SystemTime::now());
    match socket.send(&question) {
        // It counts as one that was lost.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
        sent => sent.context("sending a question"),
    }
}

/// The next frame that has arrived: the address that it answers for, if it does, and when it came.
fn receive(socket: &PacketSocket, own: MacAddr) -> Result<Option<(Option<IpAddr>, SystemTime)>> {
    let mut buffer = [0; FRAME_MAX];
    let mut control = nix::cmsg_space!(TimeSpec);
    let (length, arrived) = {
        let mut parts = [IoSliceMut::new(&mut buffer)];
        let received = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::MSG_DONTWAIT);
        let received = match received {
            Ok(received) => received,
            Err(Errno::EAGAIN | Errno::EINTR) => return Ok(None),
            Err(error) => return Err(error).context("reading an answer"),
        };
        let arrived = received.cmsgs().context("reading when an answer arrived")?.find_map(|message| match message {
            ControlMessageOwned::ScmTimestampns(time) => Some(SystemTime::UNIX_EPOCH + Duration::from(time)),
            _ => None,
        });
        (received.bytes, arrived)
    };
    let answer = Frame::parse(&buffer[..length]).ok().and_then(|frame| answer(&frame, own));
    Ok(Some((answer, arrived.unwrap_or_else(SystemTime::now))))
}

/// The address that a frame answers for, if it does and is for this host alone.
fn answer(frame: &Frame, own: MacAddr) -> Option<IpAddr> {
    match frame {
        Frame::Arp(frame) => {
            (frame.dst == own && frame.arp.operation == Operation::Reply).then_some(frame.arp.sender_ip.into())
        }
        Frame::Ndp(frame) => {
            (frame.dst == own && matches!(frame.message, Message::Advertisement { .. })).then_some(frame.target.into())
        }
    }
}

/// The frame by which a host asks for an address: to all (RFC 826), or to the address's group (RFC 4861 section 7.2.2).
fn question(source: &Source, address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(target_ip) => {
            let arp = ArpPacket {
                operation: Operation::Request,
                sender_mac: source.mac,
                sender_ip: source.address,
                target_mac: MacAddr::ZERO,
                target_ip,
            };
            arp::Frame { dst: MacAddr::BROADCAST, src: source.mac, arp }.emit().to_vec()
        }
        IpAddr::V6(target) => ndp::Frame::solicit(source.mac, source.address6, target).emit(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_one_that_names_the_address_and_is_for_the_asker_alone() {
        let (own, other) = (MacAddr([2, 0, 0, 0, 0, 1]), MacAddr([2, 0, 0, 0, 0, 2]));
        let source =
            Source { mac: own, address: [192, 0, 2, 100].into(), address6: "2001:db8:2::100".parse().unwrap() };
        for address in ["192.0.2.200", "2001:db8:2::200"] {
            let address: IpAddr = address.parse().unwrap();
            let asked = Frame::parse(&question(&source, address)).unwrap();
            assert_eq!((asked.question(), asked.sender_mac()), (Some(address), own));
            let reply = Frame::reply_to(&asked, other);
            let announced = Frame::announcements(other, address).next().unwrap();
            for (frame, to, expected) in
                [(&reply, own, Some(address)), (&reply, other, None), (&announced, own, None), (&asked, own, None)]
            {
                assert_eq!(answer(frame, to), expected, "{frame:?}");
            }
        }
    }
}
