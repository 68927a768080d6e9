//! The trait.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::{Failure, Intent, Plan, ServiceId, TargetReport, Targets, Wanted};

/// What must be planned together: all pools, one load balancer that several Services share, one load balancer of one Service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Shard(pub String);

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Something in the outside world that carries our marks.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Owned {
    /// Its identity there, for a person to name it by.
    pub id: String,
    /// What kind of thing it is.
    pub kind: String,
    /// The shard that it is part of.
    pub shard: Shard,
    /// The Service that it was made for, as far as its marks say.
    #[serde(skip)]
    pub service: Option<ServiceId>,
    /// For whom it is there.
    #[serde(skip)]
    pub whom: Whom,
}

/// For whom something is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Whom {
    /// For the one Service that its marks name.
    #[default]
    Service,
    /// For all Services of its shard. The Service beside it is any of them.
    Shard,
    /// For all Services of the cluster. Shard and Service beside it are any of them.
    Cluster,
}

/// Drift is found by looking again although nothing was heard; once an hour costs next to nothing.
pub const LOOK_AGAIN: Duration = Duration::from_hours(1);

/// A provider of load balancers.
///
/// `validate`, `shard` and `plan` are pure: no clock, no I/O, the same answer for the same question, whatever the order in
/// which the Services were learned. `observe`, `apply`, `sync_targets` and `list_owned` are the only ones that reach out.
pub trait Provider: Send + Sync + 'static {
    /// What was observed of a shard.
    type Observed: Clone + Send + Sync + 'static;
    /// One effect. Its text is what a person reads in a plan.
    type Step: Clone + fmt::Debug + fmt::Display + PartialEq + Serialize + Send + Sync + 'static;

    /// Its name in flags, logs and metrics, such as `mock`.
    fn name(&self) -> &'static str;

    /// Whether something outside the cluster is made. The controller then puts a finalizer on a Service before the first effect, and
    /// takes it off when nothing of the Service is left.
    fn needs_finalizer(&self) -> bool;

    /// Whether what a Service has is to be left as it is and forgotten, so that it may go without a finalizer.
    fn leaves_alone(&self, _intent: &Intent) -> bool {
        false
    }

    /// Whether what belongs to no Service is searched for and listed.
    fn lists_orphans(&self) -> bool {
        false
    }

    /// Whether targets have to be sent to it by [`Provider::sync_targets`].
    fn needs_targets(&self) -> bool {
        false
    }

    /// Whether targets are others when endpoints are, and not when nodes are alone.
    fn targets_follow_endpoints(&self) -> bool {
        true
    }

    /// How long changes of a shard are gathered before it is planned, so that many Services make one write.
    fn gathers(&self) -> Duration {
        Duration::ZERO
    }

    /// Told when this replica begins to lead, before anything else is asked: every Service that is this provider's.
    ///
    /// A provider whose world is out there has nothing to do. One that keeps its world in this process makes it again here from
    /// what is published, because another replica may have led until now.
    fn takes_over(&self, _services: &[&Intent]) {}

    /// What the next leader is to know, when this replica stops in good order and nothing of this provider is under way any more: some
    /// tens of bytes for a Service. Whoever is told nothing finds out by looking.
    fn hands_over(&self) -> Option<String> {
        None
    }

    /// Told after [`Provider::takes_over`] what the leader before has handed over, if nobody led since.
    fn inherits(&self, _handed_over: &str) {}

    /// What is wrong with a Service that can be said without asking anybody.
    fn validate(&self, intent: &Intent) -> Result<(), Failure>;

    /// The shard that a Service belongs to.
    fn shard(&self, intent: &Intent) -> Shard;

    /// Looks at what there is: ours, and what `wanted` refers to.
    fn observe(&self, shard: &Shard, wanted: &Wanted) -> impl Future<Output = Result<Self::Observed, Failure>> + Send;

    /// What is to be done, and what is to be said. No step when nothing is to change.
    fn plan(&self, wanted: &Wanted, observed: &Self::Observed) -> Plan<Self::Step>;

    /// Carries out one step and notes in `observed` what it learned by it. After a failure the shard is observed anew.
    fn apply(
        &self,
        shard: &Shard,
        step: &Self::Step,
        observed: &mut Self::Observed,
    ) -> impl Future<Output = Result<(), Failure>> + Send;

    /// Told of a look of which nothing failed: what was seen, and what was done since, as [`Provider::apply`] noted it. A provider that
    /// trusts its own effects need not ask for all of it again.
    fn learned(&self, _shard: &Shard, _wanted: &Wanted, _observed: &Self::Observed) {}

    /// How long a shard may be left alone in which nothing is to be done. What others change out there is found by looking.
    fn rests(&self, _shard: &Shard) -> Duration {
        LOOK_AGAIN
    }

    /// Sends the traffic of a shard's Services to these targets and no others. Called far more often than the rest, and beside it, but
    /// once at a time for a shard.
    ///
    /// A provider whose data path follows endpoints by itself has nothing to do.
    fn sync_targets(
        &self,
        _shard: &Shard,
        _targets: &Targets,
    ) -> impl Future<Output = Result<TargetReport, Failure>> + Send {
        std::future::ready(Ok(TargetReport::default()))
    }

    /// Everything that carries our marks, to find what no Service has any more.
    fn list_owned(&self) -> impl Future<Output = Result<Vec<Owned>, Failure>> + Send;
}
