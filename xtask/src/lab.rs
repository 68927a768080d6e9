//! `cargo xtask lab ...`: a lab to work in by hand.

use std::os::unix::process::CommandExt as _;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use berth_lab::{Entered, HostState, Lab, LabConfig, LabState};
use clap::{Args, Subcommand};

use crate::progress::Progress;
use crate::{launch, output, prepare};

/// What runs on a host when no command is given.
const SHELL: &str = "sh";

/// What to do with a lab.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start a lab and stay until Ctrl-C
    Up(Up),
    /// Show the labs that are up
    Status {
        /// Only this one
        #[arg(long)]
        name: Option<String>,
        /// Everything, as one JSON list on stdout
        #[arg(long)]
        json: bool,
    },
    /// Run a command on a host of the lab: node-1, ..., control-plane, client, router, remote
    Exec {
        /// Which lab, when several are up
        #[arg(long)]
        name: Option<String>,
        /// The host
        #[arg(value_name = "NODE")]
        host: String,
        /// The command and its arguments [default: a shell]
        #[arg(last = true)]
        command: Vec<String>,
    },
    /// End a lab; nothing is left of it
    Down {
        /// Which lab, when several are up
        #[arg(long, conflicts_with = "all")]
        name: Option<String>,
        /// All that are up
        #[arg(long)]
        all: bool,
    },
}

/// What lab to start.
#[derive(Args, Debug)]
pub struct Up {
    /// Its name
    #[arg(long, default_value = "lab", value_parser = name)]
    name: String,
    /// Number of nodes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=i64::from(berth_lab::network::NODES_MAX)))]
    nodes: u8,
    /// Return when it is up, and leave it running
    #[arg(long)]
    detach: bool,
    /// Only the cluster: neither Berth's objects nor its processes
    #[arg(long)]
    no_berth: bool,
    /// Say all about it as JSON on stdout when it is up
    #[arg(long)]
    json: bool,
}

/// A name that can be part of a file's name.
fn name(text: &str) -> Result<String, &'static str> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if text.is_empty() || text.len() > 32 || !text.chars().all(fits) {
        return Err("up to 32 lower-case letters, digits and dashes");
    }
    Ok(text.to_owned())
}

/// Does it. `entered` is there in the first process of a lab.
pub fn run(command: Command, entered: Option<Entered>) -> Result<ExitCode> {
    match (command, entered) {
        (Command::Up(up), Some(entered)) => inside(&up, entered),
        (Command::Up(up), None) => outside(&up),
        (Command::Status { name, json }, _) => status(name.as_deref(), json),
        (Command::Exec { name, host, command }, _) => exec(name.as_deref(), &host, command),
        (Command::Down { all: true, .. }, _) => down(&LabState::list()?),
        (Command::Down { name: Some(name), .. }, _) => down(&[LabState::find(&name)?]),
        (Command::Down { .. }, _) => match &LabState::list()?[..] {
            [] => down(&[]),
            _ => down(&[the_lab(None)?]),
        },
    }
}

fn outside(up: &Up) -> Result<ExitCode> {
    launch::name_is_free(&up.name)?;
    let progress = Progress::start();
    prepare::cluster(&progress)?;
    let programs = if up.no_berth { None } else { Some(prepare::berth(&progress)?) };
    let launch = launch::same_again(&up.name, &progress, programs.as_deref()).api_on_host();
    let tell = |lab: &LabState| {
        progress.step(format_args!("the lab `{}` is up", lab.name));
        if up.json {
            output::data(serde_json::to_string_pretty(lab)?)?;
        } else {
            output::data(describe(lab))?;
        }
        if up.detach {
            progress.step(format_args!("it goes on until `cargo xtask lab down --name {}`", lab.name));
        } else {
            progress.step("Ctrl-C ends it");
        }
        Ok(())
    };
    if up.detach { launch::detachable(launch, tell) } else { launch::attended(launch, tell) }
}

fn inside(up: &Up, entered: Entered) -> Result<ExitCode> {
    let progress = Progress::start();
    launch::inside(async {
        progress.step(format_args!("starting a cluster of {} node{}", up.nodes, if up.nodes == 1 { "" } else { "s" }));
        let config = LabConfig { nodes: up.nodes, ..LabConfig::default() };
        let lab = Lab::start(entered, config, progress.shared()).await?;
        if !up.no_berth {
            lab.install_berth().await?;
        }
        launch::mark_up(lab.run_dir())?;
        if up.detach {
            lab.detach()?;
        }
        // The lab's web servers and the way to its API server live in this process.
        std::future::pending().await
    })
}

fn status(name: Option<&str>, json: bool) -> Result<ExitCode> {
    let labs = match name {
        Some(name) => vec![LabState::find(name)?],
        None => LabState::list()?,
    };
    if json {
        output::data(serde_json::to_string_pretty(&labs)?)?;
    } else if labs.is_empty() {
        output::line("no lab is up; `cargo xtask lab up` starts one");
    } else {
        let texts: Vec<_> = labs.iter().map(describe).collect();
        output::data(texts.join("\n\n"))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn exec(name: Option<&str>, host: &str, command: Vec<String>) -> Result<ExitCode> {
    let command = if command.is_empty() { vec![SHELL.to_owned()] } else { command };
    // Returns only when it fails: the command takes this process's place, with its terminal and its exit code.
    let error = the_lab(name)?.exec(host, &command)?.exec();
    Err(error).context("starting `nsenter`")
}

fn down(labs: &[LabState]) -> Result<ExitCode> {
    for lab in labs {
        lab.down()?;
        output::line(format_args!("the lab `{}` is down; nothing is left of it", lab.name));
    }
    if labs.is_empty() {
        output::line("no lab is up");
    }
    Ok(ExitCode::SUCCESS)
}

/// The lab that is meant: the named one, or the only one.
fn the_lab(name: Option<&str>) -> Result<LabState> {
    if let Some(name) = name {
        return LabState::find(name);
    }
    let mut labs = LabState::list()?;
    match (labs.pop(), &labs[..]) {
        (Some(only), []) => Ok(only),
        (None, _) => bail!("no lab is up; `cargo xtask lab up` starts one"),
        (Some(last), others) => {
            let names: Vec<_> = others.iter().chain([&last]).map(|lab| lab.name.as_str()).collect();
            bail!("several labs are up ({}); say which with --name", names.join(", "))
        }
    }
}

/// A lab, for a person.
fn describe(lab: &LabState) -> String {
    let mut lines = vec![format!("lab          {}{}", lab.name, if lab.ready { "" } else { " (starting)" })];
    if let Some(kubeconfig) = &lab.kubeconfig {
        lines.push(format!("kubectl      export KUBECONFIG={}", kubeconfig.display()));
    }
    lines.push(format!("logs         {}", lab.logs.display()));
    lines.push(String::new());
    lines.push(format!("{:<14} {:<16} {:<20} processes", "host", "address", ""));
    let line = |host: &HostState, process: Option<(&str, u32)>| {
        let process = process.map(|(name, pid)| format!("{name} {pid}")).unwrap_or_default();
        format!("{:<14} {:<16} {:<20} {process}", host.name, host.address, host.address6).trim_end().to_owned()
    };
    lines.push(line(&lab.control_plane, lab.api_server_pid.map(|pid| ("kube-apiserver", pid))));
    lines.extend(lab.nodes.iter().map(|node| line(&node.host, node.kube_proxy_pid.map(|pid| ("kube-proxy", pid)))));
    lines.extend([&lab.client, &lab.router, &lab.remote].map(|host| line(host, None)));
    lines.push(String::new());
    let containers =
        || lab.nodes.iter().flat_map(|node| node.containers.iter().map(|container| (&node.host, container)));
    if containers().next().is_some() {
        lines.push(format!("{:<14} {:<48} {:<8} log", "node", "pod", "process"));
        lines.extend(containers().map(|(host, container)| {
            let pod = format!("{}/{}", container.namespace, container.pod);
            let pid = container.pid.map(|pid| pid.to_string()).unwrap_or_default();
            let log = container.log.strip_prefix(&lab.logs).unwrap_or(&container.log).display();
            format!("{:<14} {pod:<48} {pid:<8} {log}", host.name)
        }));
        lines.push(String::new());
    }
    lines.push(format!("run on one   cargo xtask lab exec --name {} client -- ip address", lab.name));
    lines.push(format!("end it       cargo xtask lab down --name {}", lab.name));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lab_is_named_so_that_files_can_be_named_after_it() {
        for (text, fits) in
            [("lab", true), ("my-2nd", true), ("", false), ("a/b", false), ("Lab", false), ("..", false)]
        {
            assert_eq!(name(text).is_ok(), fits, "{text:?}");
        }
        assert!(name(&"x".repeat(33)).is_err());
    }
}
