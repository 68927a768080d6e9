//! Listening for ARP on a wire.

use std::os::fd::AsRawFd as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use berth_wire::arp::{ETHERTYPE_ARP, Frame};
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{LinkAddr, recvfrom};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::netns::Netns;

/// An ARP packet is 42 bytes, padded to 60 on a real wire.
const FRAME_MAX: usize = 256;
/// How often a listener on a quiet wire looks whether it is still wanted.
const STOP_CHECK: Duration = Duration::from_millis(200);

/// An ARP packet as it arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArpSeen {
    /// When.
    pub at: Instant,
    /// What.
    pub frame: Frame,
}

/// Collects the ARP packets that arrive on an interface, until it is dropped. What the host itself sends is not among them.
#[derive(Debug)]
pub struct ArpWatch {
    shared: Arc<Shared>,
    interface: String,
}

#[derive(Debug)]
struct Shared {
    stop: AtomicBool,
    seen: Mutex<Vec<ArpSeen>>,
    count: watch::Sender<usize>,
}

impl ArpWatch {
    pub(crate) fn start(netns: &Netns, interface: &str) -> Result<Self> {
        let (socket, index) = netns.run(|| -> Result<(Socket, usize)> {
            // Given at its making, the protocol also says what it hears: ARP on every interface, from now on.
            let protocol = Protocol::from(i32::from(ETHERTYPE_ARP.to_be()));
            let socket = Socket::new(Domain::PACKET, Type::RAW, Some(protocol)).context("making a packet socket")?;
            socket.set_read_timeout(Some(STOP_CHECK))?;
            let index = if_nametoindex(interface).with_context(|| format!("{} has no {interface}", netns.name()))?;
            Ok((socket, index as usize))
        })??;
        let shared =
            Arc::new(Shared { stop: AtomicBool::new(false), seen: Mutex::default(), count: watch::Sender::new(0) });
        let listening = shared.clone();
        thread::Builder::new().name("arp-watch".to_owned()).spawn(move || listen(&socket, index, &listening))?;
        Ok(Self { shared, interface: format!("{}:{interface}", netns.name()) })
    }

    /// All that was seen so far.
    pub fn seen(&self) -> Vec<ArpSeen> {
        self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for a packet, of those already seen too, that fits.
    pub async fn find(&self, limit: Duration, fits: impl Fn(&ArpSeen) -> bool) -> Result<ArpSeen> {
        let mut count = self.shared.count.subscribe();
        let search = async {
            loop {
                count.borrow_and_update();
                if let Some(found) = self.seen().into_iter().find(&fits) {
                    return found;
                }
                // The sender lives as long as this watch.
                if count.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        if let Ok(found) = timeout(limit, search).await {
            return Ok(found);
        }
        let seen = self.seen();
        bail!(
            "no such ARP packet on {} within {limit:?}; {} seen, the last: {:?}",
            self.interface,
            seen.len(),
            seen.last()
        )
    }
}

impl Drop for ArpWatch {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

/// Runs on a thread of its own until the watch is dropped.
fn listen(socket: &Socket, index: usize, shared: &Shared) {
    let mut buffer = [0; FRAME_MAX];
    while !shared.stop.load(Ordering::Relaxed) {
        // Nothing received within the time-out is an error too.
        let received = recvfrom::<LinkAddr>(socket.as_raw_fd(), &mut buffer);
        let Ok((length, Some(from))) = received else { continue };
        if from.ifindex() != index {
            continue;
        }
        if let Ok(frame) = Frame::parse(&buffer[..length]) {
            shared.seen.lock().unwrap_or_else(PoisonError::into_inner).push(ArpSeen { at: Instant::now(), frame });
            shared.count.send_modify(|count| *count += 1);
        }
    }
}
