//! Providers that do wrong on purpose, each in one way.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Waker};

use berth_api::PerFamily;
use berth_api::service::Request;
use berth_mock::{Mock, Observed, Script, Step};
use berth_provider::conformance::Check;
use berth_provider::{Class, Failure, Intent, Owned, Plan, PlannedStep, Protocol, Provider, Shard, Wanted, Whom};
use serde::ser::Error as _;
use serde::{Serialize, Serializer};

/// What it does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// Does again what is as it should be.
    WritesAlways,
    /// Writes when it is asked to look.
    WritesWhenItLooks,
    /// Gives up for good after the first error.
    GivesUp,
    /// Makes another one after an error, and never looks at what is there too many.
    Doubles,
    /// Knows what it made by its process instead of by the Service.
    NeverResumes,
    /// Deletes what carries no marks.
    DeletesForeign,
    /// Lists what carries no marks.
    ListsForeign,
    /// Leaves addresses behind.
    LeavesBehind,
    /// Deletes what nobody asked for.
    DeletesOrphans,
    /// Does not list what it made.
    ListsNothing,
    /// Answers by chance.
    AnswersByChance,
    /// A second time fails for good.
    FailsTheSecondTime,
    /// A second time makes a second one.
    DoesItTwice,
    /// Refuses nothing.
    RefusesNothing,
    /// Serves what it refuses.
    ServesWhatItRefuses,
    /// Takes no answer for nothing there, and publishes that.
    Unpublishes,
    /// Plans what cannot be written down.
    CannotBeWrittenDown,
    /// Plans for a Service that it was not asked for.
    ServesStrangers,
    /// Writes when it is asked to plan.
    WritesWhenItPlans,
    /// Refuses with a class that no person hears of.
    RefusesInSilence,
    /// Refuses without a word.
    RefusesWithoutAWord,
    /// Makes a call to find out whether it refuses.
    CallsToRefuse,
    /// Refuses what it can serve.
    RefusesTheGood,
    /// Takes nothing away of which an earlier process has taken away a part.
    ForgetsWhatLeaves,
    /// Publishes the address of one Service for all.
    PublishesOneForAll,
}

impl How {
    /// Each with the check that has to catch it, and what that says where it looks at several things.
    pub const ALL: [(Self, Check, &'static str); 25] = [
        (Self::WritesAlways, Check::NoChangeNoWrite, ""),
        (Self::WritesWhenItLooks, Check::NoChangeNoWrite, ""),
        (Self::GivesUp, Check::ConvergesUnderFaults, ""),
        (Self::Doubles, Check::ConvergesUnderFaults, ""),
        (Self::NeverResumes, Check::ResumesAfterKill, ""),
        (Self::DeletesForeign, Check::TouchesNothingForeign, ""),
        (Self::ListsForeign, Check::TouchesNothingForeign, ""),
        (Self::LeavesBehind, Check::DeletionIsThePlanForAbsent, ""),
        (Self::DeletesOrphans, Check::DeletionIsThePlanForAbsent, ""),
        (Self::ListsNothing, Check::DeletionIsThePlanForAbsent, ""),
        (Self::AnswersByChance, Check::PlansArePure, "got two answers"),
        (Self::FailsTheSecondTime, Check::StepsAreIdempotent, ""),
        (Self::DoesItTwice, Check::StepsAreIdempotent, ""),
        (Self::RefusesNothing, Check::RefusesWithoutACall, "was to be refused"),
        (Self::ServesWhatItRefuses, Check::RefusesWithoutACall, ""),
        (Self::Unpublishes, Check::KeepsWhatIsPublished, ""),
        (Self::CannotBeWrittenDown, Check::PlansArePure, "cannot be written down"),
        (Self::ServesStrangers, Check::PlansArePure, "which the shard was not asked for"),
        (Self::WritesWhenItPlans, Check::PlansArePure, "planning wrote something"),
        (Self::RefusesInSilence, Check::RefusesWithoutACall, "which no person would hear of"),
        (Self::RefusesWithoutAWord, Check::RefusesWithoutACall, "without a word"),
        (Self::CallsToRefuse, Check::RefusesWithoutACall, "validating called somebody"),
        (Self::RefusesTheGood, Check::RefusesWithoutACall, "is refused: "),
        (Self::ForgetsWhatLeaves, Check::ResumesAfterKill, "killed while it took away"),
        (Self::PublishesOneForAll, Check::ConvergesUnderFaults, "is given to"),
    ];
}

/// Numbers of processes.
static PROCESSES: AtomicU64 = AtomicU64::new(0);
/// What chance is made of.
static CHANCE: AtomicU64 = AtomicU64::new(0);

/// A mock that does one thing wrong.
pub struct Broken {
    inner: Mock,
    how: How,
    process: u64,
    memory: Mutex<BTreeSet<String>>,
}

impl Broken {
    pub fn new(inner: Mock, how: How) -> Self {
        Self { inner, how, process: PROCESSES.fetch_add(1, Ordering::Relaxed), memory: Mutex::default() }
    }

    /// Whether it was remembered before.
    fn remember(&self, what: String) -> bool {
        !self.memory.lock().unwrap().insert(what)
    }

    /// A request that asks for nothing.
    fn plain(intent: &Intent) -> Request {
        Request { families: intent.families, addresses: PerFamily::default(), pool: None }
    }

    fn remembers(&self, what: &str) -> bool {
        self.memory.lock().unwrap().contains(what)
    }

    /// Asks the cloud, which answers at once, for something where nothing is to be asked for.
    fn write_at_once(&self, intent: &Intent) {
        let (owner, id) = (intent.id.clone(), "nothing".to_owned());
        let step = Step::DeleteLoadBalancer { owner, id, script: Script::default() };
        let (shard, mut observed) = (self.inner.shard(intent), Observed::default());
        let mut writing = std::pin::pin!(self.inner.apply(&shard, &step, &mut observed));
        let done = writing.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(done.is_ready(), "the cloud of the mock takes no time");
    }

    /// What is asked for, as this provider understands it.
    fn understood(&self, wanted: &Wanted) -> Wanted {
        let mut wanted = wanted.clone();
        for intent in wanted.present.values_mut().chain(wanted.leaving.values_mut()) {
            match self.how {
                How::NeverResumes => intent.id.uid = format!("{} of process {}", intent.id.uid, self.process),
                How::ServesWhatItRefuses => {
                    intent.annotations.clear();
                    intent.request = Ok(Self::plain(intent));
                    intent.ports.iter_mut().for_each(|port| port.protocol = Protocol::Tcp);
                }
                _ => {}
            }
        }
        wanted
    }
}

/// A step of the mock that may not be for writing down.
#[derive(Clone, Debug, PartialEq)]
pub struct Odd {
    step: Step,
    is_secret: bool,
}

impl fmt::Display for Odd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.step.fmt(f)
    }
}

impl Serialize for Odd {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.is_secret { Err(S::Error::custom("secret")) } else { self.step.serialize(serializer) }
    }
}

impl Provider for Broken {
    type Observed = Observed;
    type Step = Odd;

    fn name(&self) -> &'static str {
        "broken"
    }

    fn needs_finalizer(&self) -> bool {
        self.inner.needs_finalizer()
    }

    fn validate(&self, intent: &Intent) -> Result<(), Failure> {
        let judged = self.inner.validate(intent);
        match self.how {
            How::RefusesNothing => Ok(()),
            How::RefusesInSilence => judged.map_err(|failure| Failure::new(Class::Transient, failure.message)),
            How::RefusesWithoutAWord => judged.map_err(|failure| Failure::new(failure.class, "")),
            How::RefusesTheGood => judged.and(Err(Failure::new(Class::Config, "no"))),
            How::CallsToRefuse => {
                self.write_at_once(intent);
                judged
            }
            _ => judged,
        }
    }

    fn shard(&self, intent: &Intent) -> Shard {
        self.inner.shard(intent)
    }

    async fn observe(&self, shard: &Shard, wanted: &Wanted) -> Result<Observed, Failure> {
        if self.how == How::GivesUp && self.remembers("error") {
            return Err(Failure::new(Class::Transient, "gave up"));
        }
        let mut observed = self.inner.observe(shard, wanted).await;
        match self.how {
            How::WritesWhenItLooks => {
                for owned in self.inner.list_owned().await?.into_iter().filter_map(|owned| owned.service).take(1) {
                    let (id, script) = ("nothing".to_owned(), Script::default());
                    let step = Step::DeleteLoadBalancer { owner: owned, id, script };
                    self.inner.apply(shard, &step, &mut Observed::default()).await?;
                }
            }
            How::DeletesOrphans => {
                self.remember(shard.0.clone());
                for owned in self.inner.list_owned().await? {
                    let (Some(owner), false) = (owned.service, self.remembers(&owned.shard.0)) else { continue };
                    if owned.kind == "load balancer" {
                        let step = Step::DeleteLoadBalancer { owner, id: owned.id, script: Script::default() };
                        self.inner.apply(shard, &step, &mut Observed::default()).await?;
                    }
                }
            }
            How::Unpublishes => observed = Ok(observed.unwrap_or_default()),
            _ => {}
        }
        if observed.is_err() {
            self.remember("error".to_owned());
        }
        observed
    }

    fn plan(&self, wanted: &Wanted, observed: &Observed) -> Plan<Odd> {
        let mut plan = self.inner.plan(&self.understood(wanted), observed);
        match self.how {
            How::WritesAlways => {
                for intent in wanted.present.values() {
                    let (owner, script) = (intent.id.clone(), Script::default());
                    let step = Step::AllocateAddress { owner, family: intent.families.first, wanted: None, script };
                    plan.steps.push(PlannedStep::of(&intent.id, step));
                }
            }
            How::Doubles => plan.steps.retain(|p| {
                let stays = wanted.present.values().any(|intent| p.services.contains(&intent.id));
                !(stays && matches!(p.step, Step::ReleaseAddress { .. }))
            }),
            How::LeavesBehind => plan.steps.retain(|p| !matches!(p.step, Step::ReleaseAddress { .. })),
            How::AnswersByChance if CHANCE.fetch_add(1, Ordering::Relaxed).is_multiple_of(2) => plan.steps.clear(),
            How::Unpublishes => {
                for outcome in plan.outcomes.values_mut().filter(|outcome| !outcome.met) {
                    outcome.ingress.clear();
                }
            }
            How::ServesStrangers => {
                let stranger = |p: &mut PlannedStep<Step>| p.services.iter_mut().for_each(|id| id.uid.push('?'));
                plan.steps.iter_mut().for_each(stranger);
            }
            How::WritesWhenItPlans => wanted.present.values().for_each(|intent| self.write_at_once(intent)),
            // What is half gone it takes for gone.
            How::ForgetsWhatLeaves
                if wanted.present.is_empty()
                    && plan.steps.iter().all(|p| matches!(p.step, Step::ReleaseAddress { .. })) =>
            {
                plan.steps.clear();
            }
            How::PublishesOneForAll => {
                for outcome in plan.outcomes.values_mut().filter(|outcome| !outcome.ingress.is_empty()) {
                    outcome.ingress[0].ip = Some("192.0.2.1".to_owned());
                }
            }
            _ => {}
        }
        let is_secret = self.how == How::CannotBeWrittenDown;
        let odd = |PlannedStep { step, services, disruptive }| PlannedStep {
            step: Odd { step, is_secret },
            services,
            disruptive,
        };
        Plan { steps: plan.steps.into_iter().map(odd).collect(), outcomes: plan.outcomes }
    }

    async fn apply(&self, shard: &Shard, step: &Odd, observed: &mut Observed) -> Result<(), Failure> {
        let step = &step.step;
        let again = self.remember(format!("{shard}: {step}"));
        match (self.how, step) {
            (How::FailsTheSecondTime, _) if again => return Err(Failure::new(Class::Config, "done already")),
            (How::DeletesForeign, Step::CreateLoadBalancer { owner, .. }) => {
                let (id, script) = ("somebody-else".to_owned(), Script::default());
                let step = Step::DeleteLoadBalancer { owner: owner.clone(), id, script };
                self.inner.apply(shard, &step, observed).await?;
            }
            (How::DoesItTwice | How::Doubles, Step::AllocateAddress { owner, family, script, .. })
                if again && family.as_str() == "IPv4" =>
            {
                let other = 100 + self.memory.lock().unwrap().len();
                let wanted = Some(format!("192.0.2.{other}").parse().unwrap());
                let step =
                    Step::AllocateAddress { owner: owner.clone(), family: *family, wanted, script: script.clone() };
                return self.inner.apply(shard, &step, observed).await;
            }
            _ => {}
        }
        let applied = self.inner.apply(shard, step, observed).await;
        if applied.is_err() {
            self.remember("error".to_owned());
        }
        applied
    }

    async fn list_owned(&self) -> Result<Vec<Owned>, Failure> {
        let mut owned = self.inner.list_owned().await?;
        match self.how {
            How::ListsNothing => owned.clear(),
            How::ListsForeign => owned.push(Owned {
                id: "somebody-else".to_owned(),
                kind: "load balancer".to_owned(),
                shard: Shard("nobody/nothing".to_owned()),
                service: None,
                whom: Whom::Service,
            }),
            _ => {}
        }
        Ok(owned)
    }
}
