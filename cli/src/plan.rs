//! `kubectl berth plan`: what the controller would do, by its own planner, before anybody applies anything.
//!
//! ```text
//!  files (I/O) -> load -> objects, laid over the cluster's (I/O) or alone -> outlook (pure planners) -> report -> render or JSON
//! ```

mod classes;
mod files;
mod load;
mod mock;
mod objects;
mod outlook;
mod render;
mod report;

use jiff::Timestamp;

pub use classes::{ClassArgs, ClassesUnknown};
pub use files::FileError;
pub use load::LoadError;
pub use objects::{Removal, RemovalError};
pub use report::PlanReport;

use crate::args::{ClientArgs, PlanArgs};
use crate::collect::Reader;
use crate::connect::connect;
use crate::observed::Everything;
use crate::run::RunError;
use objects::Objects;
use outlook::Question;

/// Where objects are that name no namespace, when neither a flag nor a cluster says it.
const NO_NAMESPACE: &str = "default";

/// The report, its tables' footnotes, and notes for stderr.
pub struct Planned {
    /// What was found.
    pub report: PlanReport,
    /// What is said beside it.
    pub notes: Vec<String>,
}

/// Answers what the command line asks.
pub async fn plan(args: &PlanArgs, client: &ClientArgs, now: Timestamp) -> Result<Planned, RunError> {
    let sources = files::read(&args.filename, args.recursive)?;
    let mut notes = Vec::new();
    let (mut objects, namespace, classes) = if args.offline {
        let namespace = client.namespace.clone().unwrap_or_else(|| NO_NAMESPACE.to_owned());
        (Objects::of_nothing(now), namespace, args.classes.clone())
    } else {
        let connection = connect(client).await?;
        let everything = Box::pin(Reader::new(&connection).everything()).await?;
        let classes = classes::in_cluster(&args.classes, &everything.controller, &mut notes);
        (Objects::of_cluster(everything, now, &mut notes)?, connection.namespace, classes)
    };
    let classes = classes.served()?;
    for source in &sources {
        for object in load::load(source, &namespace, &mut notes)? {
            objects.lay(object, &mut notes);
        }
    }
    objects.fill_in_families();
    let before = objects.places();
    for removal in &args.delete {
        objects.remove(removal, &namespace)?;
    }
    if args.offline {
        notes.extend(objects.what_is_missing());
    }
    let report = Question { objects: &objects, before: &before, classes: &classes, now }.answer().await;
    Ok(Planned { report, notes })
}

/// What could not be read of a cluster, and nothing can be planned without.
pub fn incomplete(everything: &Everything) -> Option<RunError> {
    let unreadable = everything.unreadable();
    (!unreadable.is_empty()).then_some(RunError::Incomplete(unreadable))
}

pub use render::tables;
pub use report::schema;
