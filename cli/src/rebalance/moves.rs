//! Makes moves, one after the other or a few at once, each by a wish that is taken back whatever comes of it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use berth_pool::rebalance::Move;
use futures::StreamExt;
use futures::stream;
use tokio::time::{Instant, sleep, timeout};

use crate::change::{ChangeError, LOOK_EVERY, Writer, answering};
use crate::output;

/// Longest that taking a wish back may take when people have lost patience.
const TAKE_BACK_LIMIT: Duration = Duration::from_secs(10);

/// How fast moves are made.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// How many at once.
    pub at_once: usize,
    /// How long to wait before the next.
    pub pause: Option<Duration>,
    /// The longest that one may take.
    pub limit: Option<Duration>,
}

/// Why a move was not made.
#[derive(Debug, thiserror::Error)]
enum MoveError {
    #[error(transparent)]
    Change(#[from] ChangeError),
    #[error(
        "{address} is not on node {to} after {limit:?}, {} answers; the condition berth.dev/Announced of its Services says why",
        answers.as_deref().map_or("nobody".to_owned(), |node| format!("node {node}"))
    )]
    Late { address: std::net::IpAddr, to: String, limit: Duration, answers: Option<String> },
    #[error("{0} is gone")]
    Gone(std::net::IpAddr),
}

/// Makes them, up to the first that fails or until a person interrupts. Returns whether all were made.
pub async fn make(writer: &Writer<'_>, moves: &[Move], pace: Pace) -> bool {
    // By Announcement: the wishes that stand, and for which node.
    let wishes = RefCell::new(BTreeMap::new());
    let total = moves.len();
    let one = |(index, planned)| {
        let wishes = &wishes;
        async move {
            if let Some(pause) = pace.pause.filter(|_| index >= pace.at_once) {
                sleep(pause).await;
            }
            (planned, one(writer, planned, pace.limit, wishes).await)
        }
    };
    let mut under_way = Box::pin(stream::iter(moves.iter().enumerate()).map(one).buffer_unordered(pace.at_once.max(1)));
    let mut interrupted = Box::pin(tokio::signal::ctrl_c());
    let (mut made, mut goes_on) = (0, true);
    while goes_on {
        tokio::select! {
            _ = &mut interrupted => {
                output::note("interrupted: what was asked for and is not done is taken back");
                goes_on = false;
            }
            next = under_way.next() => match next {
                Some((Move { address, from, to, .. }, Ok(()))) => {
                    made += 1;
                    output::note(format_args!("{made} of {total}: {address} moved from {from} to {to}"));
                }
                Some((_, Err(error))) => {
                    output::note(format_args!("error: {error}"));
                    goes_on = false;
                }
                None => break,
            }
        }
    }
    drop(under_way);
    let left = wishes.take();
    for (name, node) in left {
        match timeout(TAKE_BACK_LIMIT, writer.take_back(&name, &node)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => output::note(format_args!("error: {error}")),
            Err(_) => output::note(format_args!(
                "error: annotation {0} of Announcement {name} could not be removed; remove it: kubectl annotate announcement {name} {0}-",
                berth_api::annotations::MOVE_TO
            )),
        }
    }
    if made < total {
        output::note(format_args!(
            "{made} of {total} moved; one that another node is named for already still goes there, when that node answers"
        ));
    }
    made == total
}

async fn one(
    writer: &Writer<'_>,
    planned: &Move,
    limit: Option<Duration>,
    wishes: &RefCell<BTreeMap<String, String>>,
) -> Result<(), MoveError> {
    let Move { address, name, to, .. } = planned;
    // Before it is written: an answer that is lost does not say that nothing was.
    wishes.borrow_mut().insert(name.clone(), to.clone());
    writer.wish(name, to).await?;
    let begin = Instant::now();
    loop {
        let seen = writer.announcement(name).await?.ok_or(MoveError::Gone(*address))?;
        let answers = answering(&seen).map(str::to_owned);
        if answers.as_ref() == Some(to) {
            break;
        }
        if let Some(limit) = limit.filter(|limit| begin.elapsed() >= *limit) {
            return Err(MoveError::Late { address: *address, to: to.clone(), limit, answers });
        }
        sleep(LOOK_EVERY).await;
    }
    writer.take_back(name, to).await?;
    wishes.borrow_mut().remove(name);
    Ok(())
}
