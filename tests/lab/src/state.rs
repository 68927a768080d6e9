//! What a lab says about itself to the host: `lab.json` in its directory, and the host's view of it.
//!
//! Inside, processes have the numbers of the lab's own PID namespace; the host sees others. The host's
//! are found through `/proc`, by the inode of the namespace, so that nothing has to be kept in step.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid};
use serde::{Deserialize, Serialize};

use crate::run_dir::RunDir;
use crate::tool::tool;

const STATE_FILE: &str = "lab.json";
/// How often `/proc` is asked whether the processes of a lab that was ended are gone.
const GONE_POLL: Duration = Duration::from_millis(5);

/// What a host of the lab is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// The bridge's own side: the control plane.
    ControlPlane,
    /// A node of the cluster.
    Node,
    /// A client on the nodes' LAN.
    Client,
    /// What joins the LAN with the rest of the world.
    Router,
    /// A client behind the router.
    Remote,
}

/// What the lab writes down, in the words of its own namespaces.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Record {
    pub name: String,
    pub pid_namespace: String,
    pub user_namespace: bool,
    pub ready: bool,
    pub kubeconfig: Option<PathBuf>,
    pub hosts: Vec<HostRecord>,
    /// Process numbers inside the lab.
    pub processes: BTreeMap<String, u32>,
    /// Containers that run, by `<namespace>.<pod>.<container>`.
    pub containers: BTreeMap<String, ContainerRecord>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ContainerRecord {
    pub node: String,
    pub namespace: String,
    pub pod: String,
    pub pid: u32,
    pub log: PathBuf,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct HostRecord {
    pub name: String,
    pub role: Role,
    pub address: Ipv4Addr,
    pub address6: Ipv6Addr,
    pub netns: Option<PathBuf>,
}

/// Keeps `lab.json` up to date.
#[derive(Debug)]
pub(crate) struct Recorder {
    run_dir: RunDir,
    record: Mutex<Record>,
}

impl Recorder {
    pub(crate) fn new(run_dir: RunDir, name: &str) -> Result<Self> {
        let pid_namespace = fs::read_link("/proc/self/ns/pid").context("reading the lab's PID namespace")?;
        let record = Record {
            name: name.to_owned(),
            pid_namespace: pid_namespace.to_string_lossy().into_owned(),
            user_namespace: is_user_namespace()?,
            ready: false,
            kubeconfig: None,
            hosts: Vec::new(),
            processes: BTreeMap::new(),
            containers: BTreeMap::new(),
        };
        let recorder = Self { run_dir, record: Mutex::new(record) };
        recorder.update(|_| ())?;
        Ok(recorder)
    }

    pub(crate) fn run_dir(&self) -> &RunDir {
        &self.run_dir
    }

    pub(crate) fn update(&self, change: impl FnOnce(&mut Record)) -> Result<()> {
        let mut record = self.record.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut record);
        let text = serde_json::to_string_pretty(&*record)?;
        let path = self.run_dir.path().join(STATE_FILE);
        let unfinished = path.with_extension("unfinished");
        // Renamed into place, so that a reader sees the old or the new text and nothing between.
        fs::write(&unfinished, text)
            .and_then(|()| fs::rename(&unfinished, &path))
            .with_context(|| format!("writing {}", path.display()))
    }
}

/// Whether the lab has one real user only, because it was started without root. The initial user namespace maps every number to itself.
pub fn is_user_namespace() -> Result<bool> {
    let map = fs::read_to_string("/proc/self/uid_map").context("reading the lab's user namespace")?;
    Ok(map.split_whitespace().collect::<Vec<_>>() != ["0", "0", "4294967295"])
}

/// A living lab as the host sees it. Process numbers are the host's.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LabState {
    /// Its name.
    pub name: String,
    /// Its first process. Killing it ends the lab and leaves nothing behind.
    pub init_pid: u32,
    /// Whether the cluster is up.
    pub ready: bool,
    /// For `kubectl` on the host, where the lab was started with one.
    pub kubeconfig: Option<PathBuf>,
    /// The API server's process.
    pub api_server_pid: Option<u32>,
    /// The nodes of the cluster.
    pub nodes: Vec<NodeState>,
    /// The bridge's own side, where the control plane runs.
    pub control_plane: HostState,
    /// A client on the nodes' LAN.
    pub client: HostState,
    /// What joins the LAN with the rest of the world.
    pub router: HostState,
    /// A client behind the router.
    pub remote: HostState,
    /// The logs, one file for each process.
    pub logs: PathBuf,
    #[serde(skip)]
    run_dir: PathBuf,
}

/// A network namespace that stands for a machine.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HostState {
    /// Its name.
    pub name: String,
    /// Its address; for the router that on the LAN.
    pub address: Ipv4Addr,
    /// Its IPv6 address, likewise.
    pub address6: Ipv6Addr,
    /// What to put before a command so that it runs there.
    pub enter: Vec<String>,
}

/// A node of the cluster.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeState {
    /// Name, address and how to enter.
    #[serde(flatten)]
    pub host: HostState,
    /// Its kube-proxy.
    pub kube_proxy_pid: Option<u32>,
    /// The containers that its kubelet runs, in order of name.
    pub containers: Vec<ContainerState>,
}

/// A container that runs.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerState {
    /// `<namespace>.<pod>.<container>`, which names its log.
    pub name: String,
    /// Its pod's namespace.
    pub namespace: String,
    /// Its pod.
    pub pod: String,
    /// Its process.
    pub pid: Option<u32>,
    /// Its log.
    pub log: PathBuf,
}

impl LabState {
    /// All living labs, in order of name.
    pub fn list() -> Result<Vec<Self>> {
        let alive = RunDir::all()?.into_iter().filter(RunDir::is_alive);
        // One may be just coming up or going down, and has no full description then.
        Ok(alive.filter_map(|dir| Self::of(&dir).ok()).collect())
    }

    /// The living lab of that name.
    pub fn find(name: &str) -> Result<Self> {
        let labs = Self::list()?;
        let names = labs.iter().map(|lab| lab.name.clone()).collect::<Vec<_>>().join(", ");
        match labs.into_iter().find(|lab| lab.name == name) {
            Some(lab) => Ok(lab),
            None if names.is_empty() => bail!("there is no lab `{name}`; none is up"),
            None => bail!("there is no lab `{name}`; up are: {names}"),
        }
    }

    /// The lab in that directory.
    pub fn of(run_dir: &RunDir) -> Result<Self> {
        let path = run_dir.path().join(STATE_FILE);
        let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        let record: Record = serde_json::from_str(&text).with_context(|| format!("reading {}", path.display()))?;
        let pids = host_pids(&record.pid_namespace)?;
        let init_pid = *pids.get(&1).with_context(|| format!("the lab `{}` has ended", record.name))?;
        Self::view(record, run_dir, &pids, init_pid)
    }

    fn view(record: Record, run_dir: &RunDir, pids: &BTreeMap<u32, u32>, init_pid: u32) -> Result<Self> {
        let pid = |process: &str| record.processes.get(process).and_then(|inner| pids.get(inner)).copied();
        let view = |host: &HostRecord| HostState {
            name: host.name.clone(),
            address: host.address,
            address6: host.address6,
            enter: enter_command(init_pid, record.user_namespace, host),
        };
        let one = |role| {
            let found = record.hosts.iter().find(|host| host.role == role).map(view);
            found.with_context(|| format!("the lab `{}` is not built yet", record.name))
        };
        let containers = |node: &str| {
            let on_it = record.containers.iter().filter(|(_, container)| container.node == node);
            let view = |(name, container): (&String, &ContainerRecord)| ContainerState {
                name: name.clone(),
                namespace: container.namespace.clone(),
                pod: container.pod.clone(),
                pid: pids.get(&container.pid).copied(),
                log: container.log.clone(),
            };
            on_it.map(view).collect()
        };
        let nodes = record.hosts.iter().filter(|host| host.role == Role::Node).map(|host| NodeState {
            host: view(host),
            kube_proxy_pid: pid(&crate::names::kube_proxy(&host.name)),
            containers: containers(&host.name),
        });
        Ok(Self {
            init_pid,
            ready: record.ready,
            kubeconfig: record.kubeconfig.clone(),
            api_server_pid: pid(crate::names::API_SERVER),
            nodes: nodes.collect(),
            control_plane: one(Role::ControlPlane)?,
            client: one(Role::Client)?,
            router: one(Role::Router)?,
            remote: one(Role::Remote)?,
            logs: run_dir.logs(),
            run_dir: run_dir.path().to_path_buf(),
            name: record.name.clone(),
        })
    }

    /// All hosts that a command can run on.
    pub fn hosts(&self) -> impl Iterator<Item = &HostState> {
        self.nodes.iter().map(|node| &node.host).chain([&self.control_plane, &self.client, &self.router, &self.remote])
    }

    /// A command that runs on one of the lab's hosts.
    pub fn exec(&self, host: &str, command: &[String]) -> Result<Command> {
        let Some(found) = self.hosts().find(|candidate| candidate.name == host) else {
            let names = self.hosts().map(|host| host.name.as_str()).collect::<Vec<_>>().join(", ");
            bail!("the lab `{}` has no host `{host}`; it has: {names}", self.name);
        };
        let Some((program, args)) = found.enter.split_first() else { bail!("no way to enter {host} is known") };
        let mut entering = tool(program);
        entering.args(args).args(command);
        Ok(entering)
    }

    /// Ends the lab, waits until all of its processes are gone, and removes its directory.
    pub fn down(&self) -> Result<()> {
        let run_dir = RunDir::at(&self.run_dir);
        kill(Pid::from_raw(self.init_pid.cast_signed()), Signal::SIGKILL)
            .with_context(|| format!("ending the lab `{}` (process {})", self.name, self.init_pid))?;
        run_dir.wait_until_dead()?;
        // The first process has closed its files; the kernel now ends the others, and it goes last.
        while is_alive(self.init_pid) {
            thread::sleep(GONE_POLL);
        }
        run_dir.remove()
    }
}

/// A zombie, waiting for a parent that does not care, counts as gone.
fn is_alive(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X'])))
}

/// What `/proc` says of a process.
struct Seen {
    parent: u32,
    /// Its numbers, from the host's namespace to the innermost (proc_pid_status(5), `NSpid`).
    numbers: Vec<u32>,
    is_inside: bool,
}

/// The host's number of every process in a PID namespace, by its number inside. Containers have namespaces below it, and count.
pub fn host_pids(pid_namespace: &str) -> Result<BTreeMap<u32, u32>> {
    let mut seen = BTreeMap::new();
    for entry in fs::read_dir("/proc").context("reading /proc")?.filter_map(Result::ok) {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let is_inside =
            fs::read_link(entry.path().join("ns/pid")).is_ok_and(|link| link.to_string_lossy() == pid_namespace);
        // Processes come and go while /proc is read.
        let Ok(status) = fs::read_to_string(entry.path().join("status")) else { continue };
        let parent = numbers(&status, "PPid:").first().copied().unwrap_or_default();
        seen.insert(pid, Seen { parent, numbers: numbers(&status, "NSpid:"), is_inside });
    }
    let Some(depth) = seen.values().find(|process| process.is_inside).map(|process| process.numbers.len()) else {
        return Ok(BTreeMap::new());
    };
    let is_below = |pid: u32| {
        let mut above = seen.get(&pid);
        while let Some(process) = above {
            if process.is_inside {
                return true;
            }
            above = seen.get(&process.parent);
        }
        false
    };
    let inside = seen.iter().filter(|(pid, _)| is_below(**pid));
    Ok(inside.filter_map(|(pid, process)| Some((*process.numbers.get(depth.checked_sub(1)?)?, *pid))).collect())
}

/// The numbers of one line of `/proc/<pid>/status`.
fn numbers(status: &str, key: &str) -> Vec<u32> {
    let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
    line.split_whitespace().filter_map(|number| number.parse().ok()).collect()
}

fn enter_command(init_pid: u32, user_namespace: bool, host: &HostRecord) -> Vec<String> {
    let mut command = vec!["nsenter".to_owned(), format!("--target={init_pid}")];
    if user_namespace && !Uid::effective().is_root() {
        command.extend(["--user", "--preserve-credentials"].map(str::to_owned));
    }
    // The PID namespace too, so that what is started there ends with the lab.
    command.extend(["--mount", "--net", "--pid", "--"].map(str::to_owned));
    if let Some(netns) = &host.netns {
        command.extend(["nsenter".to_owned(), format!("--net={}", netns.display()), "--".to_owned()]);
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_of_a_process_are_read_from_the_outermost_to_the_innermost() {
        for (status, expected) in [
            ("Name:\tx\nNSpid:\t4711\t17\t1\nThreads:\t1\n", &[4711, 17, 1][..]),
            ("NSpid:\t4711\n", &[4711]),
            ("Name:\tx\n", &[]),
            ("NSpid:\n", &[]),
        ] {
            assert_eq!(numbers(status, "NSpid:"), expected, "{status:?}");
        }
    }

    #[test]
    fn a_process_sees_itself_in_its_own_namespace() {
        let namespace = fs::read_link("/proc/self/ns/pid").unwrap();
        let pids = host_pids(&namespace.to_string_lossy()).unwrap();
        assert!(pids.values().any(|pid| *pid == std::process::id()));
    }
}
