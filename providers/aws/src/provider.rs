//! The provider: looks, and carries out steps.

mod apply;
mod index;
mod observe;

use std::time::Duration;

use berth_provider::{Class, Failure, Intent, Owned, Plan, Provider, Shard, Wanted};
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::cloud::{CallError, Cloud, Subnet};
use crate::intent::Asks;
use crate::model::Holder;
use crate::observed::Observed;
use crate::settings::Settings;
use crate::step::Step;
use index::Index;

/// How long what was learned of all load balancers is gone by. Our own effects are noted in it; this is for those of others.
const INDEX_LASTS: Duration = Duration::from_hours(1);
/// How long subnets and their routes are gone by: long enough for Services that are made together, short enough for a person who
/// has just tagged one.
const SUBNETS_LAST: Duration = Duration::from_secs(30);

/// The provider `aws`.
pub struct Aws<C> {
    cloud: C,
    settings: Settings,
    known: Mutex<Known>,
    /// Held while a load balancer is made where there is a limit to how many.
    makes: Mutex<()>,
}

/// What one look serves many shards with.
#[derive(Default)]
struct Known {
    index: Option<(Instant, Index)>,
    subnets: Option<(Instant, Vec<Subnet>)>,
}

impl<C: Cloud> Aws<C> {
    /// A provider of this cloud.
    pub fn new(cloud: C, settings: Settings) -> Self {
        Self { cloud, settings, known: Mutex::default(), makes: Mutex::default() }
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
    }

    fn validate(&self, intent: &Intent) -> Result<(), Failure> {
        Asks::of(intent, &self.settings)?;
        Ok(())
    }

    fn shard(&self, intent: &Intent) -> Shard {
        Shard(Holder::of(intent).shard())
    }

    async fn observe(&self, shard: &Shard, wanted: &Wanted) -> Result<Observed, Failure> {
        let observed = self.look(shard, wanted).await;
        // Something that we know of is not there any more.
        if observed.as_ref().is_err_and(CallError::is_not_found) {
            self.forget().await;
        }
        Ok(observed?)
    }

    fn plan(&self, wanted: &Wanted, observed: &Observed) -> Plan<Step> {
        crate::plan::plan(&self.settings, wanted, observed)
    }

    async fn apply(&self, shard: &Shard, step: &Step, observed: &mut Observed) -> Result<(), Failure> {
        let applied = self.carry_out(shard, step, observed).await;
        // What came of a call without an answer, or what it met, is seen by looking at all. What AWS refused for itself changed
        // nothing; above all, whoever asks for fewer calls is not asked for everything anew.
        if applied.as_ref().is_err_and(|failure| matches!(failure.class, Class::Transient | Class::Conflict)) {
            self.forget().await;
        }
        applied
    }

    async fn list_owned(&self) -> Result<Vec<Owned>, Failure> {
        Ok(Index::sweep(&self.cloud, &self.settings).await?.owned())
    }
}
