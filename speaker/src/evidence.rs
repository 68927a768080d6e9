//! Looks whether this node forwards what comes for an address, before it answers for it for the first time.
//!
//! One task, which ends with the engine. It looks on change alone: a few times after the engine asked, and then no more.

mod taps;

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use berth_api::MacAddr;
use berth_machine::Evidence;
use berth_sys::Instruction;
use berth_wire::filter::sent_to;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::dataplane::has_endpoints;
use taps::Taps;

/// Questions of the engine that may wait: those of a turn, in which it takes in as many assignments. What does not fit is answered for
/// without evidence, after its time, and counted.
pub const ASKS_WAITING: usize = 256;

/// Addresses that are looked for: a few times what a node is named for at once. Most of a look is waiting for the next one.
const LOOKS: usize = 1024;
/// Looks that are made at the same moment. Each is a connection on the node itself, and has a packet socket, which the kernel shows each packet of
/// the interface while it is open.
const LOOKS_AT_ONCE: usize = 16;

/// The first pause between two looks; each is half as long again as the one before. kube-proxy writes its rules within a second.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
/// The longest of them.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How long is looked: twice the time after which a speaker answers health checks that nobody else does. Behind that a node that does not serve
/// is no matter of its start.
const LOOK_LIMIT: Duration = Duration::from_mins(2);

/// Longest wait for a connection: across a cluster's network it takes a millisecond, and one that goes to the wire waits for an answer to
/// its question, which nobody gives before the first use.
const CONNECT_LIMIT: Duration = Duration::from_millis(100);

/// What the engine asks.
#[derive(Clone, Debug)]
pub struct Ask {
    /// The address.
    pub address: IpAddr,
    /// The kernel's number of the interface that it would be answered on.
    pub interface_index: u32,
    /// The Ethernet address of that interface.
    pub mac: MacAddr,
    /// The node's own addresses: kube-proxy answers health checks on one of them, or on all.
    pub own: Vec<IpAddr>,
    /// What would show that the node serves.
    pub sought: Evidence,
}

/// Looks until `shutdown`, and tells each address that is served. When the engine ends it has nothing more to do, and waits for that.
pub async fn run(mut asks: mpsc::Receiver<Ask>, served: mpsc::Sender<IpAddr>, shutdown: CancellationToken) {
    let look = async {
        let (at_once, taps) = (Semaphore::new(LOOKS_AT_ONCE), Taps::default());
        let mut looks = FuturesUnordered::new();
        loop {
            let close = taps.next_close();
            tokio::select! {
                Some(found) = looks.next(), if !looks.is_empty() => {
                    if let Some(address) = found && served.send(address).await.is_err() {
                        tracing::debug!(%address, "the engine has stopped");
                    }
                }
                Some(ask) = asks.recv(), if looks.len() < LOOKS => looks.push(look(ask, &at_once, &taps)),
                () = sleep_until(close.unwrap_or_else(Instant::now)), if close.is_some() => taps.close_unused(),
                else => std::future::pending().await,
            }
        }
    };
    shutdown.run_until_cancelled(look).await;
}

async fn look(ask: Ask, at_once: &Semaphore, taps: &Taps) -> Option<IpAddr> {
    let began = Instant::now();
    let mut pause = FIRST_PAUSE;
    loop {
        // It is never closed.
        let turn = at_once.acquire().await.ok()?;
        let serves = match ask.sought {
            Evidence::HealthCheck(port) => has_endpoints(&ask.own, port).await,
            Evidence::Connection(port) => connects(&ask, port, taps).await.unwrap_or_else(|error| {
                tracing::debug!(address = %ask.address, %error, "cannot look whether the node serves");
                false
            }),
        };
        drop(turn);
        if serves {
            tracing::debug!(address = %ask.address, after = ?began.elapsed(), "the node serves");
            return Some(ask.address);
        }
        if began.elapsed() + pause >= LOOK_LIMIT {
            tracing::debug!(address = %ask.address, "nothing showed that the node serves");
            return None;
        }
        sleep(pause).await;
        pause = (pause * 3 / 2).min(LONGEST_PAUSE);
    }
}

/// Whether a connection comes about, and not by the wire: another node may answer there.
async fn connects(ask: &Ask, port: u16, taps: &Taps) -> io::Result<bool> {
    let filter = sent_to(ask.address, ask.mac);
    let filter: Vec<_> =
        filter.iter().map(|i| Instruction { code: i.code, jump_true: i.jt, jump_false: i.jf, operand: i.k }).collect();
    let tap = taps.take(ask.interface_index, &filter)?;
    let connected = timeout(CONNECT_LIMIT, TcpStream::connect((ask.address, port))).await.is_ok_and(|c| c.is_ok());
    // What the node sent is in the socket before anybody can have answered it.
    Ok(connected && tap.is_silent())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_outlives_the_engine_and_ends_when_it_is_told_to() {
        let (asks, asks_in) = mpsc::channel(1);
        let (served_out, served) = mpsc::channel(1);
        let shutdown = CancellationToken::new();
        let mut task = tokio::spawn(run(asks_in, served_out, shutdown.clone()));
        drop((asks, served));
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert!(!task.is_finished(), "a task that ends before it is told to ends the process");
        shutdown.cancel();
        timeout(Duration::from_secs(10), &mut task).await.expect("it ends").unwrap();
    }
}
