//! Listening on a wire for who says to have which address: by ARP, and by neighbor discovery.

use std::fmt;
use std::os::fd::AsRawFd as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use berth_wire::{arp, ndp};
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{LinkAddr, recvfrom};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::netns::Netns;

/// The longest frame of Ethernet without jumbo frames.
const FRAME_MAX: usize = 1_514;
/// Bytes that may wait to be read: thousands of frames at once, as when an owner of many addresses is replaced.
const BUFFER: usize = 8 << 20;
/// How often a listener on a quiet wire looks whether it is still wanted.
const STOP_CHECK: Duration = Duration::from_millis(200);

/// A protocol that can be listened for.
pub trait Heard: Clone + fmt::Debug + Send + Sized + 'static {
    /// Its `EtherType`.
    const ETHERTYPE: u16;
    /// What it is called.
    const NAME: &str;
    /// A packet of it; nothing where the bytes are none.
    fn heard(bytes: &[u8]) -> Option<Self>;
}

impl Heard for arp::Frame {
    const ETHERTYPE: u16 = arp::ETHERTYPE_ARP;
    const NAME: &str = "ARP packet";

    fn heard(bytes: &[u8]) -> Option<Self> {
        Self::parse(bytes).ok()
    }
}

impl Heard for ndp::Frame {
    const ETHERTYPE: u16 = ndp::ETHERTYPE_IPV6;
    const NAME: &str = "neighbor solicitation or advertisement";

    fn heard(bytes: &[u8]) -> Option<Self> {
        Self::parse(bytes).ok()
    }
}

/// A packet as it arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen<F> {
    /// When.
    pub at: Instant,
    /// What.
    pub frame: F,
}

/// An ARP packet as it arrived.
pub type ArpSeen = Seen<arp::Frame>;
/// A neighbor solicitation or advertisement as it arrived.
pub type NdpSeen = Seen<ndp::Frame>;
/// Collects ARP packets.
pub type ArpWatch = Watch<arp::Frame>;
/// Collects neighbor solicitations and advertisements.
pub type NdpWatch = Watch<ndp::Frame>;

/// Collects the packets of a protocol that arrive on an interface, until it is dropped. What the host itself sends is not among them.
#[derive(Debug)]
pub struct Watch<F> {
    shared: Arc<Shared<F>>,
    interface: String,
}

#[derive(Debug)]
struct Shared<F> {
    stop: AtomicBool,
    seen: Mutex<Vec<Seen<F>>>,
    count: watch::Sender<usize>,
}

impl<F: Heard> Watch<F> {
    pub(crate) fn start(netns: &Netns, interface: &str) -> Result<Self> {
        let (socket, index) = netns.run(|| -> Result<(Socket, usize)> {
            // Given at its making, the protocol also says what it hears: this one on every interface, from now on.
            let protocol = Protocol::from(i32::from(F::ETHERTYPE.to_be()));
            let socket = Socket::new(Domain::PACKET, Type::RAW, Some(protocol)).context("making a packet socket")?;
            socket.set_read_timeout(Some(STOP_CHECK))?;
            // Of what is asked for, the kernel gives what the machine allows.
            socket.set_recv_buffer_size(BUFFER)?;
            let index = if_nametoindex(interface).with_context(|| format!("{} has no {interface}", netns.name()))?;
            Ok((socket, index as usize))
        })??;
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            seen: Mutex::new(Vec::new()),
            count: watch::Sender::new(0),
        });
        let listening = shared.clone();
        thread::Builder::new().name("watch".to_owned()).spawn(move || listen(&socket, index, &listening))?;
        Ok(Self { shared, interface: format!("{}:{interface}", netns.name()) })
    }

    /// All that was seen so far.
    pub fn seen(&self) -> Vec<Seen<F>> {
        self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Shows each packet once, in order, those already seen too, until `done` says that it has seen enough.
    pub async fn until(&self, limit: Duration, mut done: impl FnMut(&Seen<F>) -> bool) -> Result<()> {
        let mut count = self.shared.count.subscribe();
        let mut shown = 0;
        let showing = async {
            loop {
                count.borrow_and_update();
                if self.show(&mut shown, &mut done) {
                    return;
                }
                // The sender lives as long as this watch.
                if count.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        if timeout(limit, showing).await.is_err() {
            bail!("no {} on {} within {limit:?} that suffices; {shown} seen", F::NAME, self.interface);
        }
        Ok(())
    }

    fn show(&self, shown: &mut usize, done: &mut impl FnMut(&Seen<F>) -> bool) -> bool {
        let seen = self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner);
        for next in seen.get(*shown..).unwrap_or_default() {
            *shown += 1;
            if done(next) {
                return true;
            }
        }
        false
    }

    /// Waits for a packet, of those already seen too, that fits.
    pub async fn find(&self, limit: Duration, fits: impl Fn(&Seen<F>) -> bool) -> Result<Seen<F>> {
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
            "no such {} on {} within {limit:?}; {} seen, the last: {:?}",
            F::NAME,
            self.interface,
            seen.len(),
            seen.last()
        )
    }
}

impl<F> Drop for Watch<F> {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

/// Runs on a thread of its own until the watch is dropped.
fn listen<F: Heard>(socket: &Socket, index: usize, shared: &Shared<F>) {
    let mut buffer = [0; FRAME_MAX];
    while !shared.stop.load(Ordering::Relaxed) {
        // Nothing received within the time-out is an error too.
        let received = recvfrom::<LinkAddr>(socket.as_raw_fd(), &mut buffer);
        let Ok((length, Some(from))) = received else { continue };
        if from.ifindex() != index {
            continue;
        }
        if let Some(frame) = F::heard(&buffer[..length]) {
            shared.seen.lock().unwrap_or_else(PoisonError::into_inner).push(Seen { at: Instant::now(), frame });
            shared.count.send_modify(|count| *count += 1);
        }
    }
}
