//! `cargo xtask ...`: what a person types to try, test and build Berth.
//!
//! Each command is one module; this one only reads the command line and turns the outcome into an exit code.

mod bench;
mod cli;
mod demo;
mod dependencies;
mod fake;
mod generate;
mod go_toolchain;
mod lab;
mod launch;
mod output;
mod prepare;
mod progress;
mod setup;
mod test;
mod workspace;

use std::process::ExitCode;

use clap::Parser as _;

use crate::cli::Command;
use crate::progress::Progress;

fn main() -> ExitCode {
    match run(cli::Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            output::line(format_args!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(cli: cli::Cli) -> anyhow::Result<ExitCode> {
    // The first process of a lab is this program again, with the same arguments.
    let entered = berth_lab::entered()?;
    match cli.command {
        Command::Demo(options) => demo::run(&options, entered),
        Command::Test { kind, arguments } => test::run(kind, &arguments),
        Command::Bench(command) => bench::run(&command, entered),
        Command::Lab(command) => lab::run(command, entered),
        Command::Fake(command) => fake::run(&command),
        Command::Generate { check } => generate::run(check),
        Command::SetUp => prepare::everything(&Progress::start()).map(|()| ExitCode::SUCCESS),
        Command::CheckDependencies => dependencies::run(),
        Command::BuildControlPlane => prepare::build_control_plane().map(|()| ExitCode::SUCCESS),
    }
}
