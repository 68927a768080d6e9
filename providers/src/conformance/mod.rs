//! What every provider has to keep, as a suite that its tests run: see [`Check`] for what is checked, and [`World`] for what a
//! provider's tests give.
//!
//! ```text
//!  #[tokio::test]
//!  async fn it_conforms() {
//!      let violations = conformance::run(async || MyWorld::new()).await;
//!      assert!(violations.is_empty(), "{violations:#?}");
//!  }
//! ```

mod checks;
mod drive;
mod fault;

use std::fmt;

use k8s_openapi::api::core::v1::LoadBalancerIngress;

use crate::{Intent, Provider};

pub use fault::{Fault, FaultGate, Verdict};

/// What a provider reaches out to, in a form that can be hurt and looked into.
pub trait World {
    /// The provider under test.
    type Provider: Provider;

    /// The provider as a new process: it remembers nothing.
    fn provider(&self) -> Self::Provider;

    /// At least three Services that can all be served at once, each in some other way.
    fn intents(&self) -> Vec<Intent>;

    /// Services that the provider has to refuse by what it can say without asking anybody.
    fn refused(&self) -> Vec<Intent>;

    /// What there is now.
    fn look(&self) -> impl Future<Output = View>;

    /// Makes what follows go wrong, until it is told otherwise.
    fn hurt(&self, fault: Fault);

    /// Waits for what takes its time out there.
    fn settle(&self) -> impl Future<Output = ()>;
}

/// What there is in the outside world.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// What carries our marks: one line for each thing, equal in two worlds where the same was asked for.
    pub ours: Vec<String>,
    /// What does not, whole.
    pub foreign: Vec<String>,
    /// How many writes were asked for since the beginning, also those that failed.
    pub writes: u64,
}

/// What is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Check {
    /// Once all is as it should be, another process finds nothing to do and writes nothing.
    NoChangeNoWrite,
    /// Whatever fails on the way and however often: when it works again, everybody is served, once.
    ConvergesUnderFaults,
    /// Killed after any number of writes, also with the last answer lost, the next process ends up at the same.
    ResumesAfterKill,
    /// What does not carry our marks is never changed.
    TouchesNothingForeign,
    /// Of a Service that leaves nothing remains; what belongs to nobody that was seen leaving stays.
    DeletionIsThePlanForAbsent,
    /// The same question gets the same answer, which can be written down.
    PlansArePure,
    /// A step that is carried out twice changes nothing more.
    StepsAreIdempotent,
    /// What cannot be served is refused without a call, with its class, and hinders nobody else.
    RefusesWithoutACall,
    /// An address that was published stays, whatever else comes, goes or fails.
    KeepsWhatIsPublished,
}

impl Check {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::NoChangeNoWrite,
        Self::ConvergesUnderFaults,
        Self::ResumesAfterKill,
        Self::TouchesNothingForeign,
        Self::DeletionIsThePlanForAbsent,
        Self::PlansArePure,
        Self::StepsAreIdempotent,
        Self::RefusesWithoutACall,
        Self::KeepsWhatIsPublished,
    ];
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// A provider that does not keep what it has to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{check}: {detail}")]
pub struct Violation {
    /// What it broke.
    pub check: Check,
    /// How.
    pub detail: String,
}

/// Runs all checks, each in worlds of its own, and says what was broken.
pub async fn run<W: World>(world: impl AsyncFn() -> W) -> Vec<Violation> {
    let mut violations = Vec::new();
    for check in Check::ALL {
        violations.extend(run_one(check, &world).await.err());
    }
    violations
}

/// Runs one check.
///
/// # Errors
/// When the provider breaks it.
pub async fn run_one<W: World>(check: Check, world: impl AsyncFn() -> W) -> Result<(), Violation> {
    let result = match check {
        Check::NoChangeNoWrite => checks::no_change_no_write(&world).await,
        Check::ConvergesUnderFaults => checks::converges_under_faults(&world).await,
        Check::ResumesAfterKill => checks::resumes_after_kill(&world).await,
        Check::TouchesNothingForeign => checks::touches_nothing_foreign(&world).await,
        Check::DeletionIsThePlanForAbsent => checks::deletion_is_the_plan_for_absent(&world).await,
        Check::PlansArePure => checks::plans_are_pure(&world).await,
        Check::StepsAreIdempotent => checks::steps_are_idempotent(&world).await,
        Check::RefusesWithoutACall => checks::refuses_without_a_call(&world).await,
        Check::KeepsWhatIsPublished => checks::keeps_what_is_published(&world).await,
    };
    result.map_err(|detail| Violation { check, detail })
}

/// Where a Service is reached, for a person.
fn said(ingress: &[LoadBalancerIngress]) -> String {
    let each = ingress.iter().map(|i| i.ip.clone().or_else(|| i.hostname.clone()).unwrap_or_default());
    each.collect::<Vec<_>>().join(", ")
}
