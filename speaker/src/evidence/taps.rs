//! Packet sockets that see what this node sends, kept open between looks.
//!
//! Closing one waits until every core has let go of it (`synchronize_net` of the kernel's `packet_release`): tens of milliseconds in which a
//! speaker, which has one thread, would do nothing else. So they are used again, and closed beside it.

use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use berth_sys::{Instruction, PacketSocket};
use tokio::time::Instant;

/// All protocols, what the host itself sends included (`ETH_P_ALL`, packet(7)).
const EVERY_PROTOCOL: u16 = 0x0003;
/// How long one that nobody uses stays open: longer than the pause between two looks for an address.
const UNUSED_FOR: Duration = Duration::from_secs(10);

/// Those that nobody uses just now.
#[derive(Debug, Default)]
pub(super) struct Taps(Mutex<Vec<Tap>>);

#[derive(Debug)]
struct Tap {
    interface_index: u32,
    socket: PacketSocket,
    since: Instant,
}

/// One that is in use. It goes back when it is dropped.
#[derive(Debug)]
pub(super) struct InUse<'a> {
    taps: &'a Taps,
    interface_index: u32,
    socket: Option<PacketSocket>,
}

impl Taps {
    /// One for an interface, in which there is nothing but what passes the filter from now on.
    pub(super) fn take(&self, interface_index: u32, filter: &[Instruction]) -> io::Result<InUse<'_>> {
        while let Some(socket) = self.idle(interface_index) {
            match again(&socket, filter) {
                Ok(()) => return Ok(InUse { taps: self, interface_index, socket: Some(socket) }),
                // The interface was down or is gone.
                Err(error) => {
                    tracing::debug!(%error, interface_index, "a packet socket is of no use any more");
                    close_beside(vec![socket]);
                }
            }
        }
        let socket = PacketSocket::open(interface_index, EVERY_PROTOCOL, filter)?;
        Ok(InUse { taps: self, interface_index, socket: Some(socket) })
    }

    /// When the next one is to be closed, if there are any.
    pub(super) fn next_close(&self) -> Option<Instant> {
        let idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        idle.first().map(|tap| tap.since + UNUSED_FOR)
    }

    /// Closes those that nobody has used for a while.
    pub(super) fn close_unused(&self) {
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        // They are in the order in which they went back.
        let until = idle.partition_point(|tap| tap.since + UNUSED_FOR <= now);
        let unused: Vec<_> = idle.drain(..until).map(|tap| tap.socket).collect();
        drop(idle);
        close_beside(unused);
    }

    /// The one that was used last, so that the others are closed.
    fn idle(&self, interface_index: u32) -> Option<PacketSocket> {
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = idle.iter().rposition(|tap| tap.interface_index == interface_index)?;
        Some(idle.remove(at).socket)
    }
}

impl InUse<'_> {
    /// Whether nothing has passed the filter.
    pub(super) fn is_silent(&self) -> bool {
        let socket = self.socket.as_ref();
        // An error is no silence.
        socket.is_some_and(|socket| {
            socket.receive(&mut [0]).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
        })
    }
}

impl Drop for InUse<'_> {
    fn drop(&mut self) {
        let Some(socket) = self.socket.take() else { return };
        let tap = Tap { interface_index: self.interface_index, socket, since: Instant::now() };
        self.taps.0.lock().unwrap_or_else(PoisonError::into_inner).push(tap);
    }
}

/// Gives a socket another filter, and takes out what passed the one before.
fn again(socket: &PacketSocket, filter: &[Instruction]) -> io::Result<()> {
    socket.replace_filter(filter)?;
    loop {
        match socket.receive(&mut [0]) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

fn close_beside(sockets: Vec<PacketSocket>) {
    if !sockets.is_empty() {
        // Nobody waits for it.
        drop(tokio::task::spawn_blocking(move || drop(sockets)));
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;
    use crate::netns::{cable, in_own_network, index, netlink, set_up};

    const ENDS: [(&str, &str); 2] = [("near0", "192.0.2.1/24"), ("far0", "192.0.2.9/24")];

    fn in_use(tap: &InUse<'_>) -> i32 {
        tap.socket.as_ref().unwrap().as_raw_fd()
    }

    /// A frame of no protocol that anybody answers.
    fn frame() -> [u8; 60] {
        let mut frame = [0; 60];
        frame[..6].fill(0xff);
        frame[12..14].copy_from_slice(&[0x88, 0xb5]);
        frame
    }

    #[test]
    fn one_that_was_used_is_used_again_on_its_interface_and_shows_nothing_of_before() {
        in_own_network(
            "evidence::taps::tests::one_that_was_used_is_used_again_on_its_interface_and_shows_nothing_of_before",
            async || {
                let handle = netlink();
                cable(&handle, ENDS).await;
                let (near, far) = (index(&handle, "near0").await, index(&handle, "far0").await);
                let sender = PacketSocket::open(far, 0, &berth_sys::accept_all()).unwrap();
                let (taps, all) = (Taps::default(), berth_sys::accept_all());
                let first = taps.take(near, &all).unwrap();
                let second = taps.take(near, &all).unwrap();
                let (number, other) = (in_use(&first), in_use(&second));
                assert_ne!(number, other, "two at a time are two");
                // What comes up late on a new cable is not of this test.
                while !first.is_silent() {}
                sender.send(&frame()).unwrap();
                assert!(!first.is_silent());
                drop((second, first));
                sender.send(&frame()).unwrap();
                sender.send(&frame()).unwrap();
                let again = taps.take(near, &all).unwrap();
                assert_eq!(in_use(&again), number, "the last one that was used");
                assert!(again.is_silent(), "what came before is gone");
                let elsewhere = taps.take(far, &all).unwrap();
                assert!(![number, other].contains(&in_use(&elsewhere)), "it sees another interface");
            },
        );
    }

    #[test]
    fn one_is_closed_when_nobody_has_used_it_for_a_while() {
        in_own_network("evidence::taps::tests::one_is_closed_when_nobody_has_used_it_for_a_while", async || {
            let handle = netlink();
            cable(&handle, ENDS).await;
            tokio::time::pause();
            let (near, all, taps) = (index(&handle, "near0").await, berth_sys::accept_all(), Taps::default());
            assert_eq!(taps.next_close(), None);
            let two = (taps.take(near, &all).unwrap(), taps.take(near, &all).unwrap());
            drop(two);
            tokio::time::advance(UNUSED_FOR / 2).await;
            drop(taps.take(near, &all).unwrap());
            tokio::time::advance(UNUSED_FOR / 2).await;
            taps.close_unused();
            assert_eq!(taps.0.lock().unwrap().len(), 1, "one was used meanwhile");
            assert_eq!(taps.next_close(), Some(Instant::now() + UNUSED_FOR / 2));
            tokio::time::advance(UNUSED_FOR / 2).await;
            taps.close_unused();
            assert_eq!(taps.next_close(), None);
        });
    }

    #[test]
    fn one_whose_interface_was_down_is_not_used_again() {
        in_own_network("evidence::taps::tests::one_whose_interface_was_down_is_not_used_again", async || {
            let handle = netlink();
            cable(&handle, ENDS).await;
            let (near, all, taps) = (index(&handle, "near0").await, berth_sys::accept_all(), Taps::default());
            let tap = taps.take(near, &all).unwrap();
            let number = in_use(&tap);
            drop(tap);
            for up in [false, true] {
                set_up(&handle, "near0", up).await;
            }
            // Kept open meanwhile, so that its number is not given again.
            let held = taps.idle(near).unwrap();
            assert_eq!(held.as_raw_fd(), number);
            assert!(again(&held, &all).is_err(), "it says that its interface was down");
        });
    }
}
