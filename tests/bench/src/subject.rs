//! Who is measured, and how each is started.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context as _, Result};
use berth_api::names::{CONTROLLER_NAME, CONTROLLER_NAMESPACE};
use berth_lab::{LOG_ENV, Lab, Process, ProcessSpec};
use serde::{Deserialize, Serialize};

use crate::process::PROGRAM;

/// The command of another controller that is measured beside.
///
/// It is run by `sh -c` with the administrator's kubeconfig in `KUBECONFIG`, once for each start: it makes what the controller
/// needs (kinds, pools; the pool is to have as many addresses as there are Services) when that is not there yet, and ends in `exec` of the controller itself, whose memory is measured
/// and which is killed. It serves Services without a class and takes the address from 198.18.0.0/15.
pub const PEER_ENV: &str = "BERTH_PEER_CONTROLLER";

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Subject {
    /// The least that the work costs.
    Floor,
    /// Berth's controller.
    Berth,
    /// Another controller.
    Peer,
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Floor => "floor",
            Self::Berth => "berth",
            Self::Peer => "peer",
        })
    }
}

impl FromStr for Subject {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let all = [Self::Floor, Self::Berth, Self::Peer];
        all.into_iter().find(|subject| subject.to_string() == text).with_context(|| format!("no subject `{text}`"))
    }
}

/// Where the programs are that were built to be measured.
#[derive(Clone, Debug)]
pub struct Programs {
    /// The folder.
    pub folder: PathBuf,
    /// The command of the peer, if there is one.
    pub peer: Option<String>,
}

impl Subject {
    /// Starts it; `start` counts its starts. Each start is a replica of its own name.
    pub(crate) async fn start(self, lab: &Lab, programs: &Programs, start: u8) -> Result<Process> {
        // The floor has Berth's own rights: what the API server does for these, such as writing the audit log, it does for both.
        let kubeconfig = match self {
            Self::Floor | Self::Berth => lab.kubeconfig_of(CONTROLLER_NAMESPACE, CONTROLLER_NAME).await?,
            Self::Peer => lab.admin_kubeconfig()?,
        };
        let (program, args) = match self {
            Self::Floor => (programs.folder.join(PROGRAM), vec!["null-controller".to_owned()]),
            Self::Berth => {
                // As deploy/controller.yaml starts it, but for the name, which a pod would have.
                let args = ["--default-provider=pool".to_owned(), format!("--identity={}", identity(start))];
                (programs.folder.join(CONTROLLER_NAME), args.to_vec())
            }
            Self::Peer => {
                let command = programs.peer.clone().with_context(|| format!("{PEER_ENV} is not set"))?;
                (PathBuf::from("/bin/sh"), vec!["-c".to_owned(), command])
            }
        };
        let mut env = vec![("KUBECONFIG".to_owned(), kubeconfig.display().to_string())];
        env.extend(std::env::var(LOG_ENV).ok().map(|filter| (LOG_ENV.to_owned(), filter)));
        lab.spawn(ProcessSpec { name: format!("{self}-{start}"), program, args, env, netns: lab.root().netns.clone() })
    }
}

/// The name of Berth's replica in the Lease.
pub(crate) fn identity(start: u8) -> String {
    format!("bench-{start}")
}
