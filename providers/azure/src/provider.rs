//! The provider: looks, and carries out steps.

mod blame;
mod observe;
mod targets;

use std::collections::{BTreeMap, BTreeSet};
use std::mem::take;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use berth_provider::{Class, Failure, Intent, Owned, Plan, Provider, ServiceId, Shard, TargetReport, Targets, Wanted};
use tokio::time::{Instant, sleep};

use crate::arm::{Arm, Id, Wait};
use crate::document::etag;
use crate::intent::{Asks, Scheme, disowns};
use crate::names;
use crate::observed::{Observed, load_balancer, state};
use crate::settings::Settings;
use crate::step::{Kind, Step};
use blame::{Blame, Write};

/// How long changes are gathered: many Services that are made together become one write, which takes Azure seconds.
const GATHERS: Duration = Duration::from_secs(1);
/// How often it is asked whether a public IP is gone that is being deleted.
const GOES: usize = 5;
/// Between two questions.
const SECOND: Duration = Duration::from_secs(1);
/// The one shard: both load balancers are opened by one network security group, and a Service may go from one to the other.
const SHARD: &str = "azure";

/// The provider `azure`.
pub struct Azure<A> {
    arm: A,
    settings: Settings,
    memory: Mutex<Memory>,
}

/// What is not written in Azure. All of it may be lost.
#[derive(Default)]
struct Memory {
    /// Whose names begin so: frontends of internal Services have no tags.
    services: BTreeMap<String, ServiceId>,
    /// What Services asked for when they were last looked at.
    asks: BTreeMap<ServiceId, Asks>,
    blame: Blame,
    /// Since when Azure has something of these under way.
    busy: BTreeMap<Id, Instant>,
    pools: PoolWrites,
    /// Where a public IP of ours was seen or asked for, and whose: resource groups in small letters. One that is to be deleted is not
    /// lost when no Service names its group any more.
    places: BTreeMap<String, BTreeSet<ServiceId>>,
}

/// Writes of backend pools, which are sent beside looks and plans.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct PoolWrites {
    /// That were begun.
    begun: u64,
    /// That are over, one way or the other.
    over: u64,
}

impl<A: Arm> Azure<A> {
    /// A provider that calls this resource manager.
    pub fn new(arm: A, settings: Settings) -> Self {
        Self { arm, settings, memory: Mutex::default() }
    }

    fn memory<T>(&self, with: impl FnOnce(&mut Memory) -> T) -> T {
        with(&mut self.memory.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn pool_writes(&self) -> PoolWrites {
        self.memory(|memory| memory.pools)
    }

    fn remember<'a>(&self, services: impl Iterator<Item = &'a Intent>) {
        self.memory(|memory| {
            memory.services.extend(services.map(|intent| (names::base(&intent.id.uid), intent.id.clone())));
        });
    }

    async fn put(&self, step: &Step, observed: &mut Observed) -> Result<(), Failure> {
        let Step::Put { kind, id, if_match, body, changes, .. } = step else { return Ok(()) };
        let wait = if *kind == Kind::PublicIp { wait_for(observed, id) } else { Wait::Done };
        if let Some(group) = id.group().filter(|_| *kind == Kind::PublicIp) {
            // Before it is sent: the answer may be lost.
            self.memory(|memory| {
                memory.places.entry(group.to_lowercase()).or_default().extend(changes.iter().cloned());
            });
        }
        let answer = self.arm.put(id, body, &Step::condition(if_match.as_ref()), wait).await;
        let document = match answer {
            Ok(document) => document,
            Err(error) if *kind == Kind::PublicIp => return Err(error.into()),
            Err(error) => {
                let before = match kind {
                    Kind::SecurityGroup => observed.security_group.as_ref(),
                    _ => self.scheme(id).and_then(|scheme| observed.load_balancers.get(&scheme)),
                };
                let write = Write { body, had_failed: before.is_some_and(|before| state(before) == "Failed") };
                return Err(self.memory(|memory| memory.blame.failed(&memory.asks, changes, &write, error)));
            }
        };
        match kind {
            Kind::PublicIp => drop(observed.public_ips.insert(id.clone(), document)),
            Kind::SecurityGroup => {
                observed.security_group = Some(document);
                self.memory(|memory| memory.blame.succeeded());
            }
            Kind::LoadBalancer => {
                if let Some(scheme) = self.scheme(id) {
                    observed.load_balancers.insert(scheme, document);
                }
                self.memory(|memory| memory.blame.succeeded());
            }
        }
        Ok(())
    }

    /// Deletes a public IP; one that is being deleted is waited for.
    async fn delete_public_ip(&self, id: &Id, observed: &mut Observed) -> Result<(), Failure> {
        if observed.public_ips.get(id).is_none_or(|there| state(there) != "Deleting") {
            self.arm.delete(id, None, wait_for(observed, id)).await?;
            observed.public_ips.remove(id);
            return Ok(());
        }
        for _ in 0..GOES {
            if self.arm.get(id).await?.is_none() {
                observed.public_ips.remove(id);
                return Ok(());
            }
            sleep(SECOND).await;
        }
        Err(Failure::new(Class::NotReady, format!("Azure is still deleting the public IP {}", id.name())))
    }

    /// Deletes a document that is as it was looked at: somebody may have put a part of theirs into it since. Of a deletion ARM does not say
    /// that it heeds a condition, so it is looked at again besides.
    async fn delete_unchanged(&self, id: &Id, if_match: Option<&str>) -> Result<(), Failure> {
        let Some(document) = self.arm.get(id).await? else { return Ok(()) };
        if if_match.is_some() && etag(&document) != if_match {
            let message = format!("{} was changed since it was looked at; its deletion is planned anew", id.name());
            return Err(Failure::new(Class::Conflict, message));
        }
        Ok(self.arm.delete(id, if_match, Wait::Done).await?)
    }

    fn scheme(&self, id: &Id) -> Option<Scheme> {
        [Scheme::Public, Scheme::Internal].into_iter().find(|scheme| load_balancer(&self.settings, *scheme) == *id)
    }
}

impl<A: Arm> Provider for Azure<A> {
    type Observed = Observed;
    type Step = Step;

    fn name(&self) -> &'static str {
        "azure"
    }

    fn needs_finalizer(&self) -> bool {
        true
    }

    fn leaves_alone(&self, intent: &Intent) -> bool {
        disowns(intent)
    }

    fn targets_follow_endpoints(&self) -> bool {
        // Pools hold nodes, whichever of them have endpoints.
        false
    }

    fn needs_targets(&self) -> bool {
        true
    }

    fn gathers(&self) -> Duration {
        GATHERS
    }

    fn takes_over(&self, services: &[&Intent]) {
        self.memory(|memory| {
            // What is there is there, whoever led.
            *memory = Memory { pools: memory.pools, places: take(&mut memory.places), ..Memory::default() };
        });
        self.remember(services.iter().copied());
    }

    fn validate(&self, intent: &Intent) -> Result<(), Failure> {
        Asks::of(intent, &self.settings)?;
        Ok(())
    }

    fn shard(&self, _intent: &Intent) -> Shard {
        Shard(SHARD.to_owned())
    }

    async fn observe(&self, _shard: &Shard, wanted: &Wanted) -> Result<Observed, Failure> {
        self.remember(wanted.present.values().chain(wanted.leaving.values()));
        Ok(self.look_for(wanted).await?)
    }

    fn plan(&self, wanted: &Wanted, observed: &Observed) -> Plan<Step> {
        crate::plan::plan(&self.settings, wanted, observed)
    }

    async fn apply(&self, _shard: &Shard, step: &Step, observed: &mut Observed) -> Result<(), Failure> {
        let (kind, id, if_match) = match step {
            Step::Put { .. } => return self.put(step, observed).await,
            Step::Wait { refusal, .. } => return Err(refusal.clone().into()),
            Step::Delete { kind, id, if_match } => (kind, id, if_match.as_deref()),
        };
        if *kind == Kind::PublicIp {
            return self.delete_public_ip(id, observed).await;
        }
        self.delete_unchanged(id, if_match).await?;
        match kind {
            Kind::PublicIp => {}
            Kind::SecurityGroup => observed.security_group = None,
            Kind::LoadBalancer => {
                if let Some(scheme) = self.scheme(id) {
                    observed.load_balancers.remove(&scheme);
                }
            }
        }
        Ok(())
    }

    async fn sync_targets(&self, _shard: &Shard, targets: &Targets) -> Result<TargetReport, Failure> {
        self.send_to(targets).await
    }

    async fn list_owned(&self) -> Result<Vec<Owned>, Failure> {
        let observed = self.look(&Wanted::default()).await?;
        let services = self.memory(|memory| memory.services.clone());
        Ok(observe::owned(&self.settings, &observed, &services, &Shard(SHARD.to_owned())))
    }
}

/// A public IP takes its time, and many are written together, none of which shall hold up the others: how it went is seen at the next
/// look. Of one that failed, the next try is to say why.
fn wait_for(observed: &Observed, id: &Id) -> Wait {
    if observed.public_ips.get(id).is_some_and(|there| state(there) == "Failed") { Wait::Done } else { Wait::Accepted }
}

/// Services whose part of a document changes, as far as they are still asked for.
fn suspects<'a>(asks: &'a BTreeMap<ServiceId, Asks>, changes: &[ServiceId]) -> BTreeMap<&'a ServiceId, &'a Asks> {
    let changes: BTreeSet<&ServiceId> = changes.iter().collect();
    asks.iter().filter(|(id, _)| changes.contains(id)).collect()
}

/// Whether the same request gets the same answer, so that somebody's part of it is to blame.
fn is_refused(failure: &Failure) -> bool {
    failure.class == Class::Config || failure.reason == berth_api::Reason::CloudLimit
}
