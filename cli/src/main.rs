//! `kubectl-berth`, which kubectl runs as `kubectl berth`.

use std::process::ExitCode;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    berth_cli::run(std::env::args().collect()).await
}
