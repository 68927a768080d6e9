//! `kubectl berth plan`: what the controller would do, by its own planner, before anybody applies anything.
//!
//! ```text
//!  files (I/O) -> load -> objects, laid over the cluster's (I/O) or alone -> outlook (pure planners) -> report -> render or JSON
//! ```

mod aws;
mod azure;
mod classes;
mod cloud;
mod files;
#[cfg(test)]
mod golden;
mod load;
mod mock;
mod objects;
mod outlook;
mod render;
mod report;

use berth_pool::world::World;
use berth_provider::class::{Classes, ProviderName};
use jiff::Timestamp;

pub use aws::AwsError;
pub use azure::AzureError;
use classes::Switches;
pub use classes::{ClassArgs, ClassesUnknown, ControllerFlags, without_variables};
pub use files::FileError;
pub use load::LoadError;
pub use objects::{Removal, RemovalError};
pub use report::PlanReport;

use crate::args::{ClientArgs, PlanArgs};
use crate::collect::Reader;
use crate::connect::{ConnectError, Connection, connect};
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

/// Where the objects come from that are planned with.
#[derive(Clone, Copy, Debug)]
pub struct Sources<'a> {
    /// Files, directories, or standard input.
    pub filename: &'a [String],
    /// Whether directories below those that are named are looked into.
    pub recursive: bool,
    /// Whether the files are everything there is.
    pub offline: bool,
    /// Whether they are so also where no cluster is configured.
    pub offline_without_cluster: bool,
    /// What the controller is told by flags.
    pub controller: &'a ControllerFlags,
}

/// Everything that there is to plan with.
pub struct Gathered {
    objects: Objects,
    /// Where objects are that name no namespace.
    namespace: String,
    classes: Classes,
    switches: Switches,
    aws: berth_aws::flags::Flags,
    azure: berth_azure::flags::Flags,
    /// Whether Azure is the cloud that somebody may have written down.
    is_azure: bool,
    /// Whether the files are everything there is.
    offline: bool,
    /// How the cluster is reached, if one was asked.
    pub connection: Option<Connection>,
    /// What is said beside the result.
    pub notes: Vec<String>,
}

impl Gathered {
    /// What the pools' planner knows of it.
    pub fn world(&self) -> World {
        let mut world = self.objects.world(&self.classes);
        self.switches.tell(&mut world);
        world
    }

    /// Adds what files alone leave out.
    pub fn note_what_is_missing(&mut self) {
        self.notes.extend(self.objects.what_is_missing());
    }
}

/// Reads files and cluster, and lays the one over the other.
pub async fn gather(sources: Sources<'_>, client: &ClientArgs, now: Timestamp) -> Result<Gathered, RunError> {
    let texts = files::read(sources.filename, sources.recursive)?;
    let mut notes = Vec::new();
    let connection = if sources.offline {
        None
    } else {
        match connect(client).await {
            Err(ConnectError::NoKubeconfig(_)) if sources.offline_without_cluster => {
                notes.push(
                    "note: no cluster is configured, so the files are everything there is, as with --offline"
                        .to_owned(),
                );
                None
            }
            connection => Some(connection?),
        }
    };
    let offline = connection.is_none();
    let (mut objects, namespace, flags) = match &connection {
        None => {
            let namespace = client.namespace.clone().unwrap_or_else(|| NO_NAMESPACE.to_owned());
            (Objects::of_nothing(now), namespace, sources.controller.clone())
        }
        Some(connection) => {
            let everything = Box::pin(Reader::new(connection).everything()).await?;
            let flags = classes::in_cluster(sources.controller, &everything.controller, &mut notes);
            let objects = Objects::of_cluster(everything, now, &mut notes)?;
            (objects, connection.namespace.clone(), flags)
        }
    };
    let switches = flags.classes.switches();
    let is_azure = flags.classes.has(ProviderName::Azure);
    let classes = flags.classes.served()?;
    let mut nothing = true;
    for text in &texts {
        for object in load::load(text, &namespace, &mut notes)? {
            nothing = false;
            objects.lay(object, &mut notes);
        }
    }
    if nothing && !texts.is_empty() {
        if offline {
            let notes = notes.iter().map(|note| format!("\n{note}")).collect();
            return Err(RunError::NothingToPlan(notes));
        }
        notes.push(
            "warning: nothing in the files has a part in it, so this is what becomes of the cluster as it is"
                .to_owned(),
        );
    }
    objects.fill_in_families(&mut notes);
    Ok(Gathered {
        objects,
        namespace,
        classes,
        switches,
        aws: flags.aws,
        azure: flags.azure,
        is_azure,
        offline,
        connection,
        notes,
    })
}

/// Answers what the command line asks.
pub async fn plan(args: &PlanArgs, client: &ClientArgs, now: Timestamp) -> Result<Planned, RunError> {
    let PlanArgs { filename, recursive, offline, .. } = args;
    let sources = Sources {
        filename,
        recursive: *recursive,
        offline: *offline,
        offline_without_cluster: args.provider.is_some() && !filename.is_empty(),
        controller: &args.controller(),
    };
    let mut gathered = gather(sources, client, now).await?;
    let before = gathered.objects.places();
    for removal in &args.delete {
        gathered.objects.remove(removal, &gathered.namespace)?;
    }
    if gathered.offline {
        gathered.note_what_is_missing();
    }
    let Gathered { objects, classes, switches, mut notes, aws, azure, is_azure, .. } = gathered;
    let observed = files::read(&args.observed, false)?;
    let (of_aws, of_azure) = if is_azure { (Vec::new(), observed) } else { (observed, Vec::new()) };
    let aws = aws::Cloud::read(aws, of_aws)?;
    let azure = azure::Cloud::read(azure, azure_json(args)?, of_azure)?;
    let question =
        Question { objects: &objects, before: &before, classes: &classes, switches, aws: &aws, azure: &azure, now };
    let report = question.answer(&mut notes).await?;
    Ok(Planned { report, notes })
}

/// The `azure.json` that is named here. One that the controller is told of is in its pod.
fn azure_json(args: &PlanArgs) -> Result<Option<files::Source>, FileError> {
    args.azure.config.as_deref().map(files::file).transpose()
}

/// What could not be read of a cluster, and nothing can be planned without.
pub fn incomplete(everything: &Everything) -> Option<RunError> {
    let unreadable = everything.unreadable();
    (!unreadable.is_empty()).then_some(RunError::Incomplete(unreadable))
}

pub use render::tables;
pub use report::schema;
