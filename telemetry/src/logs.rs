//! Logs go to stderr: for people on a terminal, one JSON object a line elsewhere.

use std::io::{self, IsTerminal};

use anyhow::Context;
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::TelemetryArgs;

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

/// Starts logging for this process.
///
/// # Errors
/// When the filter cannot be read, or logging was started before.
pub fn init_logs(args: &TelemetryArgs) -> anyhow::Result<()> {
    // Targets and not EnvFilter: spans and fields are of no use here, and its regular expressions are memory on every node.
    let filter: Targets = args
        .log_level
        .parse()
        .with_context(|| format!("--log-level `{}` is no log filter; write a level such as `info`", args.log_level))?;
    let terminal = io::stderr().is_terminal();
    let format = args.log_format.unwrap_or(if terminal { LogFormat::Human } else { LogFormat::Json });
    // https://no-color.org: set and not empty means no colour.
    let colour = terminal && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr).with_ansi(colour);
    let lines = match format {
        LogFormat::Human => lines.boxed(),
        LogFormat::Json => lines.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed(),
    };
    tracing_subscriber::registry()
        .with(lines.with_filter(filter))
        .try_init()
        .map_err(|e| anyhow::anyhow!("cannot start logging: {e}"))
}
