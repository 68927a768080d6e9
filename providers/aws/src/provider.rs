//! The provider: looks, and carries out steps.

mod apply;
mod doors;
mod handover;
mod index;
mod memory;
mod observe;
mod sync;

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use berth_provider::{Class, Failure, Intent, LOOK_AGAIN, Owned, Plan, Provider, Shard, TargetReport, Targets, Wanted};
use ipnet::IpNet;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::cloud::{CallError, Cloud, Subnet};
use crate::intent::Asks;
use crate::model::Holder;
use crate::observed::Observed;
use crate::plan::disowns;
use crate::settings::Settings;
use crate::step::Step;
use doors::Doors;
use index::Index;
use memory::{Coming, Memory};
use sync::{Sent, Settled};

/// How long what was learned of all load balancers is gone by. Our own effects are noted in it; this is for those of others.
const INDEX_LASTS: Duration = Duration::from_hours(1);
/// How long subnets and their routes are gone by: long enough for Services that are made together, short enough for a person who
/// has just tagged one.
const SUBNETS_LAST: Duration = Duration::from_secs(30);

/// How long after something was made AWS lists it for certain, with its tags. It says no number; this is many times what is seen.
const LISTED_WITHIN: Duration = Duration::from_secs(30);

/// How long the ranges of the VPC are gone by; hardly anybody changes them.
const VPC_LASTS: Duration = Duration::from_hours(1);

/// The provider `aws`.
pub struct Aws<C> {
    cloud: C,
    settings: Settings,
    known: Mutex<Known>,
    /// Held while a load balancer is made where there is a limit to how many.
    makes: Mutex<()>,
    /// What is known of the targets of target groups, by their identities.
    sent: std::sync::Mutex<BTreeMap<String, Sent>>,
    /// What the leader before knew of them, by digests of their identities.
    inherited_targets: std::sync::Mutex<BTreeMap<String, Settled>>,
    /// What is known of what nodes and pods let in.
    doors: Mutex<Doors>,
    /// What is known of shards.
    memory: std::sync::Mutex<Memory>,
    /// Load balancers that come up.
    coming: Mutex<Coming>,
    /// What could not be deleted because something used it, and since when.
    held: std::sync::Mutex<BTreeMap<String, Instant>>,
    /// Load balancers beside others that no status names, and since when.
    unnamed: std::sync::Mutex<BTreeMap<String, Instant>>,
    /// When this replica began to lead, if it was told.
    leads: std::sync::Mutex<Option<Instant>>,
    began: Instant,
}

/// What one look serves many shards with.
#[derive(Default)]
struct Known {
    index: Option<(Instant, Arc<Index>)>,
    subnets: Option<(Instant, Vec<Subnet>)>,
    ranges: Option<(Instant, Vec<IpNet>)>,
}

impl<C: Cloud> Aws<C> {
    /// A provider of this cloud.
    pub fn new(cloud: C, settings: Settings) -> Self {
        Self {
            cloud,
            settings,
            known: Mutex::default(),
            makes: Mutex::default(),
            sent: std::sync::Mutex::default(),
            inherited_targets: std::sync::Mutex::default(),
            doors: Mutex::default(),
            memory: std::sync::Mutex::default(),
            coming: Mutex::default(),
            held: std::sync::Mutex::default(),
            unnamed: std::sync::Mutex::default(),
            leads: std::sync::Mutex::default(),
            began: Instant::now(),
        }
    }

    /// Fails where nothing was seen of a shard that may only be too new to be seen: this process may have made it a moment ago, or another
    /// one just before it ended, and what AWS lists may be behind. It is looked for once more then.
    async fn is_really_nothing(&self, shard: &Shard) -> Result<(), Failure> {
        let leads = *self.leads.lock().unwrap_or_else(PoisonError::into_inner);
        let made = self.memory.lock().unwrap_or_else(PoisonError::into_inner).made(shard);
        let Some(last) = leads.into_iter().chain(made).max() else { return Ok(()) };
        let certain = last + LISTED_WITHIN;
        let mut known = self.known.lock().await;
        if known.index.as_ref().is_some_and(|(at, _)| *at >= certain) {
            return Ok(());
        }
        let wait = certain.saturating_duration_since(Instant::now());
        if wait.is_zero() {
            // Swept anew, once for all that ask.
            known.index = None;
        }
        let message = "nothing of it was found in AWS; it is looked for once more, because what AWS lists may be some seconds old";
        Err(Failure::new(Class::NotReady, message).retry_after(wait))
    }

    /// Whatever was learned may be outdated.
    async fn forget(&self) {
        *self.known.lock().await = Known::default();
    }
}

impl<C: Cloud> Provider for Aws<C> {
    type Observed = Observed;
    type Step = Step;

    fn name(&self) -> &'static str {
        "aws"
    }

    fn needs_finalizer(&self) -> bool {
        true
    }

    fn takes_over(&self, _services: &[&Intent]) {
        // Another replica may have led until now. Nobody asks anything before this, so the lock is free.
        if let Ok(mut known) = self.known.try_lock() {
            *known = Known::default();
        }
        if let Ok(mut doors) = self.doors.try_lock() {
            *doors = Doors::default();
        }
        self.sent.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.inherited_targets.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.memory.lock().unwrap_or_else(PoisonError::into_inner).forget_all();
        self.unnamed.lock().unwrap_or_else(PoisonError::into_inner).clear();
        *self.leads.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    fn hands_over(&self) -> Option<String> {
        self.hand_over()
    }

    fn inherits(&self, handed_over: &str) {
        self.inherit(handed_over);
    }

    fn leaves_alone(&self, intent: &Intent) -> bool {
        // Also where nothing else of it can be read.
        matches!(Holder::of(intent), Holder::Service(_)) && disowns(intent)
    }

    fn lists_orphans(&self) -> bool {
        true
    }

    fn needs_targets(&self) -> bool {
        true
    }

    fn validate(&self, intent: &Intent) -> Result<(), Failure> {
        Asks::of(intent, &self.settings)?;
        Ok(())
    }

    fn shard(&self, intent: &Intent) -> Shard {
        Shard(Holder::of(intent).shard())
    }

    async fn observe(&self, shard: &Shard, wanted: &Wanted) -> Result<Observed, Failure> {
        let observed = match self.recall(shard, wanted).await {
            Ok(Some(known)) => return Ok(known),
            Ok(None) => self.look(shard, wanted).await,
            Err(error) => Err(error),
        };
        if let Ok(seen) = &observed
            && wanted.present.is_empty()
            && seen.is_nothing()
        {
            self.is_really_nothing(shard).await?;
        }
        // Something that we know of is not there any more.
        if observed.as_ref().is_err_and(CallError::is_not_found) {
            self.memory.lock().unwrap_or_else(PoisonError::into_inner).forget(shard);
            self.forget().await;
        }
        Ok(observed?)
    }

    fn plan(&self, wanted: &Wanted, observed: &Observed) -> Plan<Step> {
        crate::plan::plan(&self.settings, wanted, observed)
    }

    async fn apply(&self, shard: &Shard, step: &Step, observed: &mut Observed) -> Result<(), Failure> {
        // Until it is known what came of it.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner).changes(shard, step.makes_something());
        let applied = self.carry_out(shard, step, observed).await;
        // What came of a call without an answer, or what it met, is seen by looking at all. What AWS refused for itself changed
        // nothing; above all, whoever asks for fewer calls is not asked for everything anew.
        if applied.as_ref().is_err_and(|failure| matches!(failure.class, Class::Transient | Class::Conflict)) {
            self.forget().await;
        }
        applied
    }

    fn learned(&self, shard: &Shard, wanted: &Wanted, observed: &Observed) {
        self.keep(shard, wanted, observed);
    }

    fn rests(&self, shard: &Shard) -> Duration {
        self.known_for(shard).unwrap_or(LOOK_AGAIN)
    }

    async fn sync_targets(&self, shard: &Shard, targets: &Targets) -> Result<TargetReport, Failure> {
        self.send(shard, targets).await
    }

    async fn list_owned(&self) -> Result<Vec<Owned>, Failure> {
        // Whoever looks at a shard meanwhile waits for this sweep instead of making one too.
        let mut known = self.known.lock().await;
        let index = Index::sweep(&self.cloud, &self.settings).await?;
        let owned = index.owned();
        known.index = Some((Instant::now(), Arc::new(index)));
        Ok(owned)
    }
}
