//! `kubectl berth simulate`: what would become of every address if nodes failed or were drained. Nothing is written anywhere.

mod report;

use berth_pool::forecast::simulate::{Fault, simulate as try_it};
use jiff::Timestamp;

use crate::args::{ClientArgs, SimulateArgs};
use crate::plan::{self, ControllerFlags, Sources};
use crate::run::RunError;

pub use report::{SimulationReport, schema, tables};

/// Answers what the command line asks, with notes for stderr.
pub async fn simulate(
    args: &SimulateArgs,
    client: &ClientArgs,
    now: Timestamp,
) -> Result<(SimulationReport, Vec<String>), RunError> {
    let SimulateArgs { filename, recursive, offline, classes, .. } = args;
    let controller = ControllerFlags { classes: classes.clone(), ..ControllerFlags::default() };
    let sources = Sources {
        filename,
        recursive: *recursive,
        offline: *offline,
        offline_without_cluster: false,
        controller: &controller,
    };
    let mut gathered = plan::gather(sources, client, now).await?;
    if args.offline {
        gathered.note_what_is_missing();
    }
    let (fault, nodes) = if args.drain.is_empty() { (Fault::Fail, &args.fail) } else { (Fault::Drain, &args.drain) };
    let nodes = nodes.iter().cloned().collect();
    let simulation = try_it(gathered.world(), fault, &nodes, now)?;
    Ok((SimulationReport::of(fault, nodes, simulation), gathered.notes))
}
