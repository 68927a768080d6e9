//! `cargo xtask ...`: what a person types to try, test and build Berth.
//!
//! Each command is one module; this one only reads the command line and turns the outcome into an exit code.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a tool for people: data goes to stdout, progress to stderr"
)]

mod cli;
mod generate;
mod workspace;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    match run(cli) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: cli::Cli) -> anyhow::Result<ExitCode> {
    match cli.command {
        cli::Command::Generate { check } => generate::run(check),
    }
}
