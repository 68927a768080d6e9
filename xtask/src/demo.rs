//! `cargo xtask demo`: shows a person what Berth does, on a cluster of its own, and measures it.
//!
//! This process builds what is needed and starts the lab; the story is told by the lab's first process ([`story`]), which is this
//! program again.

mod objects;
mod story;

use std::net::IpAddr;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;
use berth_lab::{Entered, LabState};
use clap::Args;
use serde::Serialize;

use crate::progress::Progress;
use crate::{launch, output, prepare};

/// The lab's name.
const NAME: &str = "demo";

/// How to show it.
#[derive(Args, Debug)]
pub struct Options {
    /// Leave the cluster up at the end, to look around in
    #[arg(long)]
    keep: bool,
    /// Print what was measured as one line of JSON, last and alone on stdout
    #[arg(long)]
    json: bool,
}

/// What was measured.
#[derive(Debug, Serialize)]
struct Report {
    /// The IPv4 address that the Service got.
    address: IpAddr,
    /// And the IPv6 address.
    address6: IpAddr,
    /// From the creation of the Service to both addresses in its status.
    allocated_ms: u128,
    /// From the creation of the Service to the first answer that the client got over IPv4.
    first_answer_ms: u128,
    /// The same over IPv6.
    first_answer6_ms: u128,
    /// Whether the pod saw the client's own address.
    source_kept: bool,
    /// The longest time that the client had no answer over IPv4 when the node died that answered there.
    failover_gap_ms: u128,
    /// The same over IPv6. Where another node answered for that address, it is the time between two answers.
    failover_gap6_ms: u128,
    /// All of it, from the command's start.
    total_s: f64,
}

/// Shows it. `entered` is there in the first process of the lab.
pub fn run(options: &Options, entered: Option<Entered>) -> Result<ExitCode> {
    match entered {
        Some(entered) => story::tell(options, entered),
        None => outside(options),
    }
}

fn outside(options: &Options) -> Result<ExitCode> {
    if options.keep {
        launch::name_is_free(NAME)?;
    }
    let progress = Progress::start();
    progress.step(
        "Berth gives a Service of type LoadBalancer an address that works; this shows it on a cluster of its own",
    );
    prepare::cluster(&progress)?;
    let programs = prepare::berth(&progress)?;
    let launch = launch::same_again(NAME, &progress, Some(&programs));
    if options.keep {
        launch::detachable(launch.api_on_host(), |lab| {
            kept(&progress, lab, &programs);
            Ok(())
        })
    } else {
        launch::attended(launch, |_| Ok(()))
    }
}

/// How to look around in the cluster that was kept. On stderr, because stdout may carry the report.
fn kept(progress: &Progress, lab: &LabState, programs: &Path) {
    progress.step("the cluster stays up; look around in it");
    if let Some(kubeconfig) = &lab.kubeconfig {
        output::line(format_args!("  export KUBECONFIG={}", kubeconfig.display()));
        output::line("  kubectl get services,announcements,ipaddresspools,speakernodes");
        output::line(format_args!("  kubectl describe service {}", objects::SERVICE));
        let plugin = programs.join("kubectl-berth");
        if plugin.exists() {
            output::line(format_args!(
                "  {} status    # with its folder in the PATH: kubectl berth status",
                plugin.display()
            ));
        }
    }
    for address in objects::FIRST_ADDRESSES {
        let url = objects::url(address);
        // Quoted, because some shells take brackets for a pattern.
        output::line(format_args!("  cargo xtask lab exec --name {NAME} client -- curl -s '{url}'"));
    }
    output::line(format_args!("  cargo xtask lab status --name {NAME}"));
    output::line(format_args!("  cargo xtask lab down --name {NAME}    # ends it; nothing is left"));
}
