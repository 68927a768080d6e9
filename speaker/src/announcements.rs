//! Watches the Announcements that this node has a part in, and tells the engine what they say.
//!
//! What was said stays in force until something else is said: an API server that is away changes nothing, and neither
//! does an object that cannot be read.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use berth_api::Announcement;
use berth_api::crd::{Layer2Assignment, RouteAssignment, ServiceRef};
use berth_api::names::{announced_address, announcement_name, part_label};
use berth_machine::{Assignment, Evidence, Member, NodeName, NodeNameError, OwnerClaim};
use berth_telemetry::Gate;
use futures::StreamExt;
use kube::core::DeserializeGuard;
use kube::runtime::watcher;
use kube::{Api, Client, ResourceExt};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::board::{Board, Seen};
use crate::dataplane::Told;
use crate::dataplane::ports::Check;
use crate::metrics::{Metrics, Watch};
use crate::retry::{Retry, WATCH_TIMEOUT_SECONDS, next_event};
use crate::routes::Wanted;

/// Objects in one page of a list: a speaker is small, and so is the part of a list that it holds at a time.
const PAGE_SIZE: u32 = 100;

/// Events after which the engine is told once that there are no more for [`QUIET`], so that it gives back the memory that they needed: each is
/// an object of some kilobytes, and most are followed by a write of the status and its answer.
const MANY_EVENTS: usize = 100;

/// How long nothing is to have happened for that: status writes and what the watch shows of them come within a fraction of it.
const QUIET: Duration = Duration::from_secs(2);

/// What the cluster says about an address.
#[derive(Debug)]
pub enum Change {
    /// This node has a part in it.
    Assign(Assignment),
    /// It has none any more.
    Withdraw(IpAddr),
    /// Many were said, and for now that was all.
    Quiet,
}

/// Why an Announcement cannot be read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum Unreadable {
    #[error("it is named `{name}` and is about {address}, whose Announcement is named `{expected}`")]
    Name { name: String, address: IpAddr, expected: String },
    #[error(transparent)]
    Node(#[from] NodeNameError),
}

/// Follows the Announcements until `shutdown`. The gate opens when all have been read once.
pub async fn run(client: Client, node: NodeName, outputs: Outputs, synced: Gate, shutdown: CancellationToken) {
    let (known, unlisted) = (BTreeSet::new(), BTreeSet::new());
    let mut follower = Follower { node, known, listed: None, unlisted, happened: 0, outputs, synced };
    shutdown.run_until_cancelled(follower.follow(client)).await;
}

/// Where to say what was read.
#[derive(Debug)]
pub struct Outputs {
    /// To the engine.
    pub changes: mpsc::Sender<Change>,
    /// To the status writer.
    pub board: Arc<Board>,
    /// To the health checks.
    pub checks: watch::Sender<Told>,
    /// To the routes.
    pub routes: watch::Sender<Wanted>,
    /// What to count.
    pub metrics: Metrics,
}

impl Outputs {
    /// Board and metrics are shared with other tasks.
    pub fn new(
        changes: mpsc::Sender<Change>,
        board: &Arc<Board>,
        checks: watch::Sender<Told>,
        routes: watch::Sender<Wanted>,
        metrics: &Metrics,
    ) -> Self {
        Self { changes, board: board.clone(), checks, routes, metrics: metrics.clone() }
    }
}

struct Follower {
    node: NodeName,
    /// The addresses whose objects we know; these are named after them.
    known: BTreeSet<IpAddr>,
    /// While a list is read: what was known before and has not been listed yet.
    listed: Option<BTreeSet<IpAddr>>,
    /// While a list is read: what health checks and routes followed from before and has not been listed yet.
    unlisted: BTreeSet<String>,
    /// Events since memory was given back.
    happened: usize,
    outputs: Outputs,
    synced: Gate,
}

impl Follower {
    async fn follow(&mut self, client: Client) {
        let config = watcher::Config::default()
            .labels(&part_label(self.node.as_str()))
            .page_size(PAGE_SIZE)
            .timeout(WATCH_TIMEOUT_SECONDS);
        let api = Api::<DeserializeGuard<Announcement>>::all(client);
        let mut events = watcher(api, config).boxed();
        let mut retry = Retry::new("watch the Announcements");
        let mut not_before = Instant::now();
        loop {
            let event = tokio::select! {
                event = next_event(&mut events, not_before) => event,
                () = sleep(QUIET), if self.happened >= MANY_EVENTS => {
                    self.happened = 0;
                    // Lists come in order, and a set that grows in order is half empty.
                    self.known = std::mem::take(&mut self.known).into_iter().collect();
                    self.tell(Change::Quiet).await;
                    continue;
                }
            };
            let Some(event) = event else { break };
            self.happened += 1;
            match event {
                Ok(event) => {
                    // A list that is about to be asked for has not succeeded yet.
                    if !matches!(event, watcher::Event::Init) {
                        retry.succeeded();
                    }
                    self.handle(event).await;
                }
                Err(error) => {
                    self.outputs.metrics.watch_error(Watch::Announcement);
                    not_before = Instant::now() + retry.failed(&error);
                }
            }
        }
    }

    async fn handle(&mut self, event: watcher::Event<DeserializeGuard<Announcement>>) {
        match event {
            watcher::Event::Init => (self.listed, self.unlisted) = (Some(self.known.clone()), self.followed()),
            watcher::Event::InitApply(object) | watcher::Event::Apply(object) => self.applied(object).await,
            watcher::Event::Delete(object) => self.gone(&object.name_any()).await,
            watcher::Event::InitDone => {
                for address in self.listed.take().unwrap_or_default() {
                    self.gone(&announcement_name(address)).await;
                }
                for name in std::mem::take(&mut self.unlisted) {
                    self.gone(&name).await;
                }
                self.outputs.routes.send_if_modified(|wanted| !std::mem::replace(&mut wanted.synced, true));
                tracing::debug!(addresses = self.known.len(), "Announcements are in sync");
                self.synced.open();
            }
        }
    }

    async fn applied(&mut self, object: DeserializeGuard<Announcement>) {
        let name = object.name_any();
        if let (Some(unlisted), Some(address)) = (&mut self.listed, announced_address(&name)) {
            unlisted.remove(&address);
        }
        self.unlisted.remove(&name);
        if let Ok(object) = &object.0 {
            self.told(&name, checks(object, &self.node));
            self.wish(&name, ways(object, &self.node));
        }
        let read = object.0.map_err(|e| e.to_string()).and_then(|object| {
            let said = read(&object).map_err(|e| e.to_string())?;
            Ok((said, Seen::of(&object)))
        });
        match read {
            Ok((Said::Layer2(assignment), seen)) => {
                let address = assignment.address;
                self.known.insert(address);
                self.outputs.board.saw(address, seen);
                self.tell(Change::Assign(assignment)).await;
            }
            Ok((Said::Nothing, _)) => self.leave(&name).await,
            Err(error) => {
                self.outputs.metrics.malformed_objects.inc();
                tracing::warn!(
                    announcement = name,
                    error,
                    "cannot read an Announcement; what it said before stays in force"
                );
            }
        }
    }

    async fn gone(&mut self, name: &str) {
        self.told(name, Vec::new());
        self.wish(name, Vec::new());
        self.leave(name).await;
    }

    /// Notes which health checks an Announcement names for this node.
    fn told(&self, name: &str, checks: Vec<(u16, Check)>) {
        self.outputs.checks.send_if_modified(|told| match told.get(name) {
            Some(before) if *before == checks => false,
            None if checks.is_empty() => false,
            _ if checks.is_empty() => told.remove(name).is_some(),
            _ => {
                told.insert(name.to_owned(), checks);
                true
            }
        });
    }

    /// Notes in which ways an Announcement wishes this node to route its address.
    fn wish(&self, name: &str, ways: Vec<RouteAssignment>) {
        let Some(address) = announced_address(name) else { return };
        self.outputs.routes.send_if_modified(|wanted| match wanted.wishes.get(&address) {
            Some(before) if *before == ways => false,
            None if ways.is_empty() => false,
            _ if ways.is_empty() => wanted.wishes.remove(&address).is_some(),
            _ => {
                wanted.wishes.insert(address, ways);
                true
            }
        });
    }

    /// The Announcements that health checks and routes follow from, by their names.
    fn followed(&self) -> BTreeSet<String> {
        let checked = self.outputs.checks.borrow().keys().cloned().collect::<BTreeSet<_>>();
        let routed = self.outputs.routes.borrow().wishes.keys().map(|address| announcement_name(*address)).collect();
        checked.union(&routed).cloned().collect()
    }

    /// The node has no part in an address.
    async fn leave(&mut self, name: &str) {
        if let Some(address) = announced_address(name).filter(|address| self.known.remove(address)) {
            self.outputs.board.vanished(address);
            self.tell(Change::Withdraw(address)).await;
        }
    }

    /// Waits while the engine is busy; the API server then keeps what is to come.
    async fn tell(&self, change: Change) {
        if self.outputs.changes.send(change).await.is_err() {
            tracing::debug!("the engine has stopped");
        }
    }
}

/// What an Announcement says to a speaker.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    /// Who answers on the link.
    Layer2(Assignment),
    /// Nothing that this version does: no layer 2.
    Nothing,
}

fn read(object: &Announcement) -> Result<Said, Unreadable> {
    let spec = &object.spec;
    let expected = announcement_name(spec.address);
    if object.name_any() != expected {
        return Err(Unreadable::Name { name: object.name_any(), address: spec.address, expected });
    }
    let (address, Some(layer2)) = (spec.address, &spec.layer2) else {
        return Ok(Said::Nothing);
    };
    let claimed = object.status.as_ref().and_then(|status| status.layer2.as_ref());
    let claimed =
        claimed.map(|claim| Ok::<_, Unreadable>(OwnerClaim { node: NodeName::new(&claim.owner)?, epoch: claim.epoch }));
    Ok(Said::Layer2(Assignment {
        address,
        owner: layer2.owner.as_deref().map(NodeName::new).transpose()?,
        standbys: layer2.standbys.iter().map(|node| NodeName::new(node)).collect::<Result<_, _>>()?,
        epoch: layer2.epoch,
        members: members(address, layer2)?,
        claimed: claimed.transpose()?,
        sought: sought(&spec.services),
        serving: spec.services.iter().any(|service| service.serving),
    }))
}

/// What would show that a node forwards to the Services of an address: the first that has endpoints, and can be asked, stands for all of
/// them. Endpoints may come a moment after their Service, so one without them will do.
fn sought(services: &[ServiceRef]) -> Option<Evidence> {
    let (serving, others): (Vec<_>, Vec<_>) = services.iter().partition(|service| service.serving);
    let mut evidence =
        serving.into_iter().chain(others).filter_map(|service| match (&service.local, service.tcp_port) {
            (Some(local), _) => Some(Evidence::HealthCheck(local.health_check_node_port)),
            (None, port) => port.map(Evidence::Connection),
        });
    evidence.next()
}

/// The health checks that a node is to answer.
fn checks(object: &Announcement, node: &NodeName) -> Vec<(u16, Check)> {
    let local = object.spec.services.iter().filter_map(|service| Some((service, service.local.as_ref()?)));
    let here = local.filter_map(|(service, local)| {
        let ready = local.endpoints.iter().find(|on| on.node == node.as_str())?.ready;
        let (namespace, name) = (service.namespace.clone(), service.name.clone());
        Some((local.health_check_node_port, Check { namespace, name, ready }))
    });
    here.collect()
}

/// The ways in which a node is to route an address.
fn ways(object: &Announcement, node: &NodeName) -> Vec<RouteAssignment> {
    let mine = object.spec.routes.iter().filter(|way| way.nodes.iter().any(|name| name == node.as_str()));
    mine.map(|way| RouteAssignment { nodes: Vec::new(), ..way.clone() }).collect()
}

/// A member that is found at an address of the other family has none in the subnet, and takes no part.
fn members(address: IpAddr, layer2: &Layer2Assignment) -> Result<Arc<[Arc<Member>]>, NodeNameError> {
    layer2
        .members
        .iter()
        .filter(|member| member.address.is_ipv4() == address.is_ipv4())
        .map(|member| {
            Ok(Arc::new(Member {
                node: NodeName::new(&member.node)?,
                interface: member.interface.clone(),
                address: member.address,
                mac: member.mac,
            }))
        })
        .collect()
}

#[cfg(test)]
mod tests;
