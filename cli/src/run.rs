//! Does what the command line says, and turns the outcome into an exit code.

use std::process::ExitCode;

use clap::FromArgMatches;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use serde::Serialize;

use berth_pool::forecast::simulate::UnknownNode;

use crate::args::{
    self, Cli, ClientArgs, Command, OrphansArgs, PlanArgs, SimulateArgs, StatusArgs, StatusOutput, VersionArgs,
    VersionOutput,
};
use crate::chain::Index;
use crate::change::{ChangeError, Writer};
use crate::collect::{CollectError, Reader};
use crate::connect::{ConnectError, Connection, connect};
use crate::observed::Seen;
use crate::plan::{self, AwsError, AzureError, ClassesUnknown, FileError, LoadError, RemovalError};
use crate::render::{self, Look};
use crate::report::{SingleService, Unreadable};
use crate::summary::summarise;
use crate::version::{self, Versions};
use crate::{completion, drain, orphans, output, rebalance, simulate};

/// Prefixes that kubectl users put before the name of a Service.
const SERVICE_PREFIXES: [&str; 4] = ["service/", "services/", "svc/", "Service/"];

/// Nothing could be shown.
const FAILED: u8 = 2;
/// Nothing could be planned or simulated.
const PLAN_FAILED: u8 = 1;
/// The subcommands of which 2 says something else than that nothing could be shown.
const PLANNING: [&str; 2] = ["plan", "simulate"];

/// How it went, as scripts see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// Nothing that could be looked at is broken.
    Well,
    /// Something does not work, or was not done.
    Broken,
    /// Somebody would lose a working address.
    Breaks,
}

impl Outcome {
    fn of_doing(done: bool) -> Self {
        if done { Self::Well } else { Self::Broken }
    }
}

/// Why nothing could be shown.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Collect(#[from] CollectError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Removal(#[from] RemovalError),
    #[error(transparent)]
    Classes(#[from] ClassesUnknown),
    #[error(transparent)]
    Aws(#[from] AwsError),
    /// What is known of Azure cannot be planned against.
    #[error(transparent)]
    Azure(#[from] AzureError),
    #[error("nothing in the files has a part in it, and without a cluster there is nothing else; name the files that do{}", .0.concat())]
    NothingToPlan(Vec<String>),
    #[error(transparent)]
    UnknownNode(#[from] UnknownNode),
    #[error(transparent)]
    Change(#[from] ChangeError),
    #[error(transparent)]
    Confirm(#[from] output::ConfirmError),
    #[error(transparent)]
    NothingOf(#[from] orphans::NothingOf),
    #[error("a plan needs everything that the controller watches, and some of it could not be read: {}", told(.0))]
    Incomplete(Vec<Unreadable>),
    #[error("the output cannot be written: {0}")]
    Output(#[from] std::io::Error),
    #[error("the report cannot be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
    #[error("the report cannot be written as YAML: {0}")]
    Yaml(#[from] serde_saphyr::ser::Error),
}

impl RunError {
    fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Connect(error) => Some(error.hint()),
            Self::Collect(error) => Some(error.hint()),
            Self::Incomplete(_) => {
                Some("it takes the verb `list` on each of them; or plan from files alone with `--offline`")
            }
            Self::Change(error) => error.hint(),
            // The first eight say it themselves.
            Self::File(_)
            | Self::Load(_)
            | Self::Removal(_)
            | Self::Classes(_)
            | Self::Aws(_)
            | Self::Azure(_)
            | Self::NothingToPlan(_)
            | Self::UnknownNode(_)
            | Self::Confirm(_)
            | Self::NothingOf(_)
            | Self::Output(_)
            | Self::Json(_)
            | Self::Yaml(_) => None,
        }
    }
}

/// Runs the plugin with the words of its command line, the program's name first.
pub async fn run(words: Vec<String>) -> ExitCode {
    if words.first().is_some_and(|program| completion::is_asked_by_kubectl(program)) {
        let _ = output::data(&completion::candidates(words.get(1..).unwrap_or_default()));
        return ExitCode::SUCCESS;
    }
    let read = args::command().try_get_matches_from(&words).and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = match read {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            let wrong = if plans(&words) { PLAN_FAILED } else { FAILED };
            return if error.use_stderr() { ExitCode::from(wrong) } else { ExitCode::SUCCESS };
        }
    };
    let outcome = match &cli.command {
        Command::Status(args) => Box::pin(status(args, &cli.client)).await,
        Command::Plan(args) => Box::pin(plan(args, &cli.client)).await,
        Command::Simulate(args) => Box::pin(simulation(args, &cli.client)).await,
        Command::Drain(args) => Box::pin(drain::drain(args, &cli.client)).await.map(Outcome::of_doing),
        Command::Rebalance(args) => {
            Box::pin(rebalance::rebalance(args, &cli.client, Timestamp::now())).await.map(Outcome::of_doing)
        }
        Command::Orphans(args) => Box::pin(orphaned(args, &cli.client)).await,
        Command::Version(args) => versions(args, &cli.client).await,
        Command::Completion(args) => {
            let script = completion::script(args.shell);
            output::data(&String::from_utf8_lossy(&script)).map(|()| Outcome::Well).map_err(RunError::from)
        }
    };
    match outcome {
        Ok(Outcome::Well) => ExitCode::SUCCESS,
        Ok(Outcome::Broken) => ExitCode::from(1),
        Ok(Outcome::Breaks) => ExitCode::from(2),
        Err(error) => {
            output::note(format_args!("error: {error}"));
            if let Some(hint) = error.hint() {
                output::note(format_args!("hint: {hint}"));
            }
            let plans = matches!(cli.command, Command::Plan(_) | Command::Simulate(_));
            ExitCode::from(if plans { PLAN_FAILED } else { FAILED })
        }
    }
}

async fn status(args: &StatusArgs, client: &ClientArgs) -> Result<Outcome, RunError> {
    let connection = connect(client).await?;
    let reader = Reader::new(&connection);
    let look = Look {
        style: output::style(),
        wide: args.output == Some(StatusOutput::Wide),
        namespaces: args.all_namespaces,
        now: Timestamp::now(),
    };
    if let Some(name) = &args.service {
        let name = SERVICE_PREFIXES.iter().find_map(|prefix| name.strip_prefix(prefix)).unwrap_or(name);
        let (service, around) = Box::pin(reader.service(&connection.namespace, name)).await?;
        let report = SingleService { service: Index::new(&around).report(&service), unreadable: around.unreadable() };
        print(args.output, &report, || render::service(&report, look))?;
        report.unreadable.iter().for_each(|why| output::note(render::unreadable(why)));
        return Ok(if report.service.ok { Outcome::Well } else { Outcome::Broken });
    }
    let namespace = (!args.all_namespaces).then_some(connection.namespace.as_str());
    let cluster = Box::pin(reader.cluster(namespace)).await?;
    let report = summarise(&cluster, look.now);
    print(args.output, &report, || render::summary(&report, look))?;
    render::summary_notes(&report, namespace).iter().for_each(output::note);
    Ok(if report.ok { Outcome::Well } else { Outcome::Broken })
}

async fn plan(args: &PlanArgs, client: &ClientArgs) -> Result<Outcome, RunError> {
    let plan::Planned { report, notes } = plan::plan(args, client, Timestamp::now()).await?;
    let wide = args.output == Some(StatusOutput::Wide);
    print(args.output, &report, || plan::tables(&report, wide, output::style()))?;
    notes.iter().for_each(output::note);
    Ok(if report.breaks() { Outcome::Breaks } else { Outcome::Well })
}

async fn simulation(args: &SimulateArgs, client: &ClientArgs) -> Result<Outcome, RunError> {
    let (report, notes) = simulate::simulate(args, client, Timestamp::now()).await?;
    let wide = args.output == Some(StatusOutput::Wide);
    print(args.output, &report, || simulate::tables(&report, wide, output::style()))?;
    notes.iter().for_each(output::note);
    Ok(if report.loses() { Outcome::Breaks } else { Outcome::Well })
}

async fn orphaned(args: &OrphansArgs, client: &ClientArgs) -> Result<Outcome, RunError> {
    let connection = connect(client).await?;
    let lists = Reader::new(&connection).orphans().await?;
    if !args.remove.is_empty() {
        return remove(args, &connection, &lists).await;
    }
    let report = orphans::report(lists);
    let format = args.output.map(|format| match format {
        VersionOutput::Json => StatusOutput::Json,
        VersionOutput::Yaml => StatusOutput::Yaml,
    });
    print(format, &report, || orphans::table(&report, output::style()))?;
    orphans::notes(&report).iter().for_each(output::note);
    Ok(Outcome::of_doing(report.orphans.is_empty() && report.unreadable.is_empty()))
}

async fn remove(
    args: &OrphansArgs,
    connection: &Connection,
    lists: &[(&'static str, Seen<Option<ConfigMap>>)],
) -> Result<Outcome, RunError> {
    let (chosen, requests) = orphans::removal(lists, &args.remove)?;
    output::data(&orphans::table(&chosen, output::style()))?;
    if !args.yes && !output::confirm("Have all of it removed?")? {
        return Ok(Outcome::Broken);
    }
    let writer = Writer::new(connection);
    for request in &requests {
        writer.name_orphans(request).await?;
    }
    output::note("the controller removes it; `kubectl berth orphans` says how far it is");
    Ok(Outcome::Well)
}

/// Whether wrong words were meant for one of [`PLANNING`].
fn plans(words: &[String]) -> bool {
    let lenient = args::command().ignore_errors(true).try_get_matches_from(words);
    lenient.is_ok_and(|matches| matches.subcommand_name().is_some_and(|name| PLANNING.contains(&name)))
}

fn told(unreadable: &[Unreadable]) -> String {
    let all: Vec<_> = unreadable.iter().map(|why| format!("{}: {}", why.resource, why.message)).collect();
    all.join("; ")
}

/// Writes a report in the format that was asked for.
pub fn print(
    format: Option<StatusOutput>,
    report: &impl Serialize,
    tables: impl FnOnce() -> String,
) -> Result<(), RunError> {
    let text = match format {
        Some(StatusOutput::Json) => json(report)?,
        Some(StatusOutput::Yaml) => serde_saphyr::to_string(report)?,
        None | Some(StatusOutput::Wide) => tables(),
    };
    Ok(output::data(&text)?)
}

fn json(report: &impl Serialize) -> Result<String, serde_json::Error> {
    Ok(serde_json::to_string_pretty(report)? + "\n")
}

async fn versions(args: &VersionArgs, client: &ClientArgs) -> Result<Outcome, RunError> {
    let mut versions = Versions { client_version: version::CLIENT.to_owned(), server: None };
    let failed = if args.client {
        None
    } else {
        match server_versions(client).await {
            Ok(server) => {
                versions.server = Some(server);
                None
            }
            // As kubectl does: what is known is said first.
            Err(error) => Some(error),
        }
    };
    let text = match args.output {
        Some(VersionOutput::Json) => json(&versions)?,
        Some(VersionOutput::Yaml) => serde_saphyr::to_string(&versions)?,
        None => version::text(&versions),
    };
    output::data(&text)?;
    if let Some(error) = failed {
        return Err(error);
    }
    if let Some(server) = &versions.server {
        server.unreadable.iter().for_each(|why| output::note(render::unreadable(why)));
    }
    version::skew(&versions).iter().for_each(output::note);
    Ok(Outcome::Well)
}

async fn server_versions(client: &ClientArgs) -> Result<version::ServerVersions, RunError> {
    let connection = connect(client).await?;
    let (controller, speakers, kubernetes) = Reader::new(&connection).versions().await?;
    Ok(version::server(&controller, &speakers, &kubernetes))
}
