//! `berth-speaker`: see the library for what it does.

use std::process::ExitCode;

use berth_speaker::args::Args;
use berth_speaker::run::run;
use clap::Parser;

// The TLS provider (aws-lc-rs) is installed by kube's client when it is built, as its feature of that name says.
fn main() -> ExitCode {
    let args = Args::parse();
    // One thread: the work is small, and a second one would only cost memory on every node.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&anyhow::Error::new(error).context("cannot start the runtime")),
    };
    match runtime.block_on(run(args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

#[expect(clippy::print_stderr, reason = "the last word of a process, also where logging could not be started")]
fn failed(error: &anyhow::Error) -> ExitCode {
    eprintln!("berth-speaker: {error:#}");
    ExitCode::FAILURE
}
