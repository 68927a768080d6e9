//! A network namespace of the lab, and doing things inside it.

use std::fs::File;
use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use nix::sched::{CloneFlags, setns};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::http::{self, Response};
use crate::probe::Prober;
use crate::tool::tool;
use crate::watch::{ArpWatch, NdpWatch};

/// Where `ip netns` keeps its namespaces. In a lab this is on the lab's own `/run`.
const NETNS_DIR: &str = "/run/netns";
/// Connections that a listening socket of the lab keeps waiting: more than any prober opens within its time limit.
const BACKLOG: u32 = 256;

/// A network namespace. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Netns {
    name: Arc<str>,
    path: Option<PathBuf>,
    file: Arc<File>,
}

impl Netns {
    /// The lab's root namespace, which holds the bridge, the control plane and Berth's controller.
    pub(crate) fn root(name: &str) -> Result<Self> {
        let file = File::open("/proc/self/ns/net").context("opening the lab's network namespace")?;
        Ok(Self { name: name.into(), path: None, file: Arc::new(file) })
    }

    /// A namespace that `ip netns add` has made.
    pub(crate) fn named(name: &str) -> Result<Self> {
        let path = Path::new(NETNS_DIR).join(name);
        let file = File::open(&path).with_context(|| format!("opening the network namespace {name}"))?;
        Ok(Self { name: name.into(), path: Some(path), file: Arc::new(file) })
    }

    /// Its name, which is that of the host it stands for.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its file for `nsenter --net=`, as seen inside the lab. The root namespace has none.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// Runs a closure on a thread of its own inside the namespace and waits for it. A socket that it makes keeps the namespace.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        thread::scope(|scope| {
            let inside = scope.spawn(|| setns(&*self.file, CloneFlags::CLONE_NEWNET).map(|()| work()));
            inside.join().map_err(|_| anyhow!("work in the network namespace {} panicked", self.name))
        })?
        .with_context(|| format!("entering the network namespace {}", self.name))
    }

    /// Brings the calling thread inside, for good.
    pub(crate) fn enter(&self) -> Result<()> {
        setns(&*self.file, CloneFlags::CLONE_NEWNET)
            .with_context(|| format!("entering the network namespace {}", self.name))
    }

    /// A command that runs inside. The process that is started is the program itself, so its number is the program's.
    pub fn command(&self, program: &str) -> Command {
        let Some(path) = &self.path else { return tool(program) };
        let mut command = tool("nsenter");
        command.arg(format!("--net={}", path.display())).arg("--").arg(program);
        command
    }

    /// Connects to `to` from inside.
    pub async fn connect(&self, to: SocketAddr, limit: Duration) -> Result<TcpStream> {
        let socket = self.socket(to)?;
        let connecting = timeout(limit, socket.connect(to)).await;
        let connected = connecting.map_err(|_| anyhow!("no connection to {to} from {} within {limit:?}", self.name))?;
        connected.with_context(|| format!("connecting to {to} from {}", self.name))
    }

    /// Listens inside.
    pub fn listen(&self, at: SocketAddr) -> Result<TcpListener> {
        let socket = self.socket(at)?;
        let listening = socket.set_reuseaddr(true).and_then(|()| socket.bind(at)).and_then(|()| socket.listen(BACKLOG));
        listening.with_context(|| format!("listening on {at} in {}", self.name))
    }

    /// One GET over a new connection. `limit` is for the whole of it.
    pub async fn http_get(&self, to: SocketAddr, path: &str, limit: Duration) -> Result<Response> {
        let begin = Instant::now();
        let mut stream = self.connect(to, limit).await?;
        let left = limit.saturating_sub(begin.elapsed());
        timeout(left, http::get(&mut stream, to, path))
            .await
            .map_err(|_| anyhow!("no answer from http://{to}{path} to {} within {limit:?}", self.name))?
            .with_context(|| format!("getting http://{to}{path} from {}", self.name))
    }

    /// Starts a new connection with one GET at every interval, not waiting for earlier ones, until the prober is stopped.
    pub fn probe(&self, to: SocketAddr, every: Duration) -> Prober {
        Prober::start(self.clone(), to, every)
    }

    /// Collects the ARP packets that arrive on one of its interfaces from now on.
    pub fn watch_arp(&self, interface: &str) -> Result<ArpWatch> {
        ArpWatch::start(self, interface)
    }

    /// Collects the neighbor solicitations and advertisements that arrive on one of its interfaces from now on.
    pub fn watch_ndp(&self, interface: &str) -> Result<NdpWatch> {
        NdpWatch::start(self, interface)
    }

    /// Writes a kernel setting of this namespace, as in `net/ipv4/ip_forward`.
    pub fn sysctl(&self, settings: &[(&str, &str)]) -> Result<()> {
        self.run(|| {
            settings.iter().try_for_each(|(name, value)| {
                std::fs::write(Path::new("/proc/sys").join(name), value)
                    .with_context(|| format!("setting {name} to {value}"))
            })
        })?
    }

    /// A socket of the family of `address`.
    fn socket(&self, address: SocketAddr) -> Result<TcpSocket> {
        let make = if address.is_ipv4() { TcpSocket::new_v4 } else { TcpSocket::new_v6 };
        let socket: io::Result<TcpSocket> = self.run(make)?;
        socket.with_context(|| format!("making a socket in {}", self.name))
    }
}

/// Any address of the namespace, of both families, at this port.
pub(crate) fn any_address(port: u16) -> SocketAddr {
    (Ipv6Addr::UNSPECIFIED, port).into()
}
