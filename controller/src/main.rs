//! `berth-controller`.

use std::process::ExitCode;

use berth_controller::Args;
use clap::Parser;

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    let result = match berth_telemetry::init_logs(&args.telemetry) {
        Ok(()) => berth_controller::run(args).await,
        Err(error) => Err(error),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "giving up");
            #[allow(clippy::print_stderr, reason = "it may be the log that could not be started")]
            {
                eprintln!("berth-controller: {error:#}");
            }
            ExitCode::FAILURE
        }
    }
}
