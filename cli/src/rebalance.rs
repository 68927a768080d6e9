//! `kubectl berth rebalance`: moves addresses until no node owns more than its share and a quarter, after a person has seen which.

mod moves;
mod report;

use berth_pool::rebalance::rebalance as plan_moves;
use jiff::Timestamp;

use crate::args::{ClientArgs, RebalanceArgs, StatusOutput};
use crate::change::Writer;
use crate::output;
use crate::plan::{self, ControllerFlags, Sources};
use crate::run::{RunError, print};

pub use report::{RebalanceReport, schema};

/// Does it. Returns whether all that was planned is done.
pub async fn rebalance(args: &RebalanceArgs, client: &ClientArgs, now: Timestamp) -> Result<bool, RunError> {
    let controller = ControllerFlags::default();
    let sources = Sources {
        filename: &[],
        recursive: false,
        offline: false,
        offline_without_cluster: false,
        controller: &controller,
    };
    let gathered = plan::gather(sources, client, now).await?;
    // By kubectl's flag, and not by the context's namespace: balance concerns all.
    let planned = plan_moves(&gathered.world(), client.namespace.as_deref(), args.max_moves);
    let report = RebalanceReport::of(&planned);
    print(args.output, &report, || report::tables(&report, args.output == Some(StatusOutput::Wide), output::style()))?;
    gathered.notes.iter().for_each(output::note);
    if planned.moves.is_empty() {
        output::note("nothing is to be moved");
        return Ok(true);
    }
    if args.dry_run {
        return Ok(true);
    }
    let Some(connection) = gathered.connection.as_ref() else { return Ok(false) };
    output::note(
        "warning: established connections to an address break when it moves: the new node does not know them. New connections are not \
         affected.",
    );
    if !args.yes && !output::confirm(&format!("Move {}?", report::addresses(planned.moves.len())))? {
        output::note("nothing was moved");
        return Ok(false);
    }
    let pace = moves::Pace { at_once: args.parallel.into(), pause: args.interval.0, limit: args.timeout.0 };
    let done = moves::make(&Writer::new(connection), &planned.moves, pace).await;
    Ok(done)
}
