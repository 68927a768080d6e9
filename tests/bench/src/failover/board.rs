//! What Announcements say: who is named, who stands by, who answers, and who did before.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use berth_api::crd::Layer2Status;
use berth_api::{Announcement, MacAddr};
use futures::TryStreamExt as _;
use k8s_openapi::jiff::Timestamp;
use kube::runtime::watcher::{Config, Event, watcher};
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

/// Pause after an error of the watch, as while the API server is away. Short, because what it shows is waited for.
const AGAIN: Duration = Duration::from_millis(100);

/// A time for which a node answered for an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reign {
    pub(crate) owner: String,
    pub(crate) mac: MacAddr,
    /// When it claimed the address, by the clock of its speaker.
    pub(crate) since: Instant,
}

/// An address, as its Announcement says.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    named: Option<(String, u64)>,
    standbys: usize,
    claimed: Option<(String, u64)>,
    reigns: Vec<Reign>,
}

/// How many reigns there were of each address.
pub(crate) type Epochs = BTreeMap<IpAddr, usize>;

/// Follows all Announcements until it is dropped.
pub(crate) struct Board {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    addresses: Mutex<BTreeMap<IpAddr, Seen>>,
    changes: watch::Sender<()>,
}

impl Board {
    pub(crate) fn follow(client: Client) -> Self {
        let shared = Arc::new(Shared { addresses: Mutex::default(), changes: watch::Sender::new(()) });
        let task = tokio::spawn(follow(client, shared.clone()));
        Self { shared, task }
    }

    /// How many reigns there were up to now.
    pub(crate) fn epochs(&self) -> Epochs {
        self.shared.lock().iter().map(|(address, seen)| (*address, seen.reigns.len())).collect()
    }

    /// The reigns of an address since then, and before them the one that was then.
    pub(crate) fn reigns(&self, address: IpAddr, since: &Epochs) -> Vec<Reign> {
        let from = since.get(&address).map_or(0, |count| count.saturating_sub(1));
        self.shared.lock().get(&address).and_then(|seen| seen.reigns.get(from..)).unwrap_or_default().to_vec()
    }

    /// All that began since then, in the order of their beginning.
    pub(crate) fn reigns_since(&self, since: &Epochs) -> Vec<Reign> {
        let addresses = self.shared.lock();
        let new = addresses.iter().flat_map(|(address, seen)| {
            seen.reigns.get(since.get(address).copied().unwrap_or_default()..).unwrap_or_default()
        });
        let mut new: Vec<_> = new.cloned().collect();
        new.sort_by_key(|reign| reign.since);
        new
    }

    /// Who answers for an address.
    pub(crate) fn owner(&self, address: IpAddr) -> Option<String> {
        self.shared.lock().get(&address)?.claimed.clone().map(|(owner, _)| owner)
    }

    /// How many of these addresses each node answers for.
    pub(crate) fn owners(&self, addresses: &[IpAddr]) -> BTreeMap<String, usize> {
        let all = self.shared.lock();
        let mut owners = BTreeMap::new();
        for (owner, _) in addresses.iter().filter_map(|address| all.get(address)?.claimed.clone()) {
            *owners.entry(owner).or_default() += 1;
        }
        owners
    }

    /// Waits until each of these addresses has the same owner on both sides of its Announcement, and `standbys` behind it.
    pub(crate) async fn settled(&self, addresses: &[IpAddr], standbys: usize, limit: Duration) -> Result<()> {
        self.until(addresses, limit, &format!("{standbys} nodes stand by for every address"), |seen| {
            seen.named.is_some() && seen.named == seen.claimed && seen.standbys == standbys
        })
        .await
    }

    /// Waits until this node answers for each of these addresses.
    pub(crate) async fn all_at(&self, addresses: &[IpAddr], owner: &str, limit: Duration) -> Result<()> {
        self.until(addresses, limit, &format!("{owner} answers for every address"), |seen| {
            seen.claimed.as_ref().is_some_and(|(claimed, _)| claimed == owner)
        })
        .await
    }

    /// Waits until each of these addresses is answered for by another node than `owner`.
    pub(crate) async fn moved(&self, addresses: &[IpAddr], owner: &str, limit: Duration) -> Result<()> {
        self.until(addresses, limit, &format!("another node than {owner} answers for every address"), |seen| {
            seen.claimed.as_ref().is_some_and(|(claimed, _)| claimed != owner)
        })
        .await
    }

    async fn until(
        &self,
        addresses: &[IpAddr],
        limit: Duration,
        what: &str,
        holds: impl Fn(&Seen) -> bool,
    ) -> Result<()> {
        let mut changes = self.shared.changes.subscribe();
        let first_that_does_not = || {
            let all = self.shared.lock();
            let fails = |address: &&IpAddr| !all.get(address).is_some_and(&holds);
            addresses.iter().find(fails).map(|address| (*address, all.get(address).cloned()))
        };
        let waiting = async {
            loop {
                changes.borrow_and_update();
                if first_that_does_not().is_none() {
                    return;
                }
                // The sender lives as long as this board.
                if changes.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        if timeout(limit, waiting).await.is_err()
            && let Some((address, seen)) = first_that_does_not()
        {
            bail!("{what}: not within {limit:?}; {address}: {seen:?}");
        }
        Ok(())
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<IpAddr, Seen>> {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn follow(client: Client, shared: Arc<Shared>) {
    let api: Api<Announcement> = Api::all(client);
    loop {
        let mut events = pin!(watcher(api.clone(), Config::default()));
        while let Ok(Some(event)) = events.try_next().await {
            match event {
                Event::Init | Event::InitDone => continue,
                Event::InitApply(announcement) | Event::Apply(announcement) => note(&shared, announcement),
                Event::Delete(announcement) => drop(shared.lock().remove(&announcement.spec.address)),
            }
            shared.changes.send_replace(());
        }
        sleep(AGAIN).await;
    }
}

fn note(shared: &Shared, announcement: Announcement) {
    let mut addresses = shared.lock();
    let seen = addresses.entry(announcement.spec.address).or_default();
    let layer2 = announcement.spec.layer2.unwrap_or_default();
    seen.standbys = layer2.standbys.len();
    seen.named = layer2.owner.map(|owner| (owner, layer2.epoch));
    let claimed = announcement.status.and_then(|status| status.layer2);
    if let Some(Layer2Status { owner, epoch, since, mac, .. }) = claimed {
        let now = Some((owner.clone(), epoch));
        if seen.claimed != now {
            seen.claimed = now;
            seen.reigns.push(Reign { owner, mac, since: moment(since.0) });
        }
    }
}

/// A moment of the wall's clock, by ours.
fn moment(wall: Timestamp) -> Instant {
    let now = Instant::now();
    now.checked_sub(Timestamp::now().duration_since(wall).unsigned_abs()).unwrap_or(now)
}
