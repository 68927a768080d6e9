//! From what is wanted and what was seen to ordered steps and what is to be said: pure.
//!
//! In this order: public IPs are made; the network security group lets in and lets in no more; the load balancers get and lose
//! parts; public IPs that nobody refers to any more are deleted. What has another address is made beside what is there, and the
//! old frontend goes once no Service's status names it.

mod addresses;
mod draft;
mod place;
mod security;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use berth_api::condition::types;
use berth_api::{Condition, ConditionStatus, Reason};
use berth_provider::{Intent, Outcome, Plan, PlannedStep, ServiceId, Wanted};
use k8s_openapi::api::core::v1::LoadBalancerIngress;
use serde_json::Value;

use crate::arm::{Id, collection};
use crate::document::{name, parts};
use crate::intent::{Asks, Scheme, disowns};
use crate::names;
use crate::observed::{Observed, group_of};
use crate::refusal::Refusal;
use crate::settings::Settings;
use crate::step::{Kind, Step};

use addresses::PublicIps;
use draft::Draft;
use place::Placed;
use security::Security;

/// Azure makes a public IP, and tells a new frontend's address, within a few seconds.
const SOON: Duration = Duration::from_secs(1);
/// How soon it is looked again where a right to look is missing: that it was given is heard of by looking alone.
const GRANTED: Duration = Duration::from_mins(1);

/// What becomes of a Service in this plan.
#[derive(Clone, Debug)]
enum Verdict {
    /// It has its frontends, of which the addresses may not be known yet.
    Placed(Vec<Placed>),
    /// Something has to be there first.
    Waits(String),
    /// It is refused, and what it has stays.
    Refused(Refusal),
    /// Nothing of it is touched.
    Disowned,
}

/// Plans the shard.
pub fn plan(settings: &Settings, wanted: &Wanted, observed: &Observed) -> Plan<Step> {
    let world = World::new(settings, wanted, observed);
    let mut planner = Planner {
        drafts: [Scheme::Public, Scheme::Internal].map(|scheme| Draft::of(&world, scheme)).into(),
        public_ips: PublicIps::default(),
        security: Security::of(&world),
        verdicts: BTreeMap::new(),
        turns: observed.at_once,
        world: &world,
    };
    planner.run();
    planner.finish()
}

/// What is known before anything is decided.
struct World<'a> {
    settings: &'a Settings,
    wanted: &'a Wanted,
    observed: &'a Observed,
    /// What each Service that can be read asks for, in the order in which they are served.
    served: Vec<(Asks, &'a Intent)>,
    /// What all names of each Service that is present begin with.
    present: BTreeMap<String, &'a Intent>,
    /// The same for those that leave, and are not disowned.
    leaving: BTreeMap<String, &'a ServiceId>,
    /// Those that leave and may have something in a resource group that cannot be looked into: the group, and why.
    held: BTreeMap<&'a ServiceId, (String, Refusal)>,
    refused: BTreeMap<ServiceId, Refusal>,
}

impl<'a> World<'a> {
    fn new(settings: &'a Settings, wanted: &'a Wanted, observed: &'a Observed) -> Self {
        let (mut served, mut refused) = (Vec::new(), BTreeMap::new());
        for intent in wanted.present.values().filter(|intent| !disowns(intent)) {
            match Asks::of(intent, settings) {
                Ok(asks) => match observed.blamed.get(&intent.id) {
                    Some((then, refusal)) if *then == asks => drop(refused.insert(intent.id.clone(), refusal.clone())),
                    _ => served.push((asks, intent)),
                },
                Err(refusal) => drop(refused.insert(intent.id.clone(), refusal)),
            }
        }
        let has: BTreeSet<&str> = observed
            .load_balancers
            .values()
            .flat_map(|document| parts(document, draft::RULES))
            .filter_map(|rule| names::base_of(name(rule)))
            .collect();
        // Who has something keeps it; then who came first.
        served.sort_by_key(|(asks, _)| {
            (!has.contains(names::base(&asks.service.uid).as_str()), asks.created, asks.service.clone())
        });
        let present = wanted.present.values().map(|intent| (names::base(&intent.id.uid), intent)).collect();
        let (mut leaving, mut held) = (BTreeMap::new(), BTreeMap::new());
        for (id, intent) in wanted.leaving.iter().filter(|(_, intent)| !disowns(intent)) {
            let base = names::base(&id.uid);
            match holds(settings, observed, intent, &base) {
                Some(held_by) => drop(held.insert(id, held_by)),
                None => drop(leaving.insert(base, id)),
            }
        }
        Self { settings, wanted, observed, served, present, leaving, held, refused }
    }
}

/// The resource group that a Service which leaves may have something in, and that cannot be looked into.
fn holds(settings: &Settings, observed: &Observed, intent: &Intent, base: &str) -> Option<(String, Refusal)> {
    let refers = |frontend: &str, rule: &Value| draft::refers(rule, "frontendIPConfiguration", frontend);
    let referred = observed.load_balancers.values().flat_map(|document| {
        let rules = parts(document, draft::RULES);
        let mine = move |frontend: &&Value| {
            let called = name(frontend);
            belongs(called, base) || rules.iter().any(|rule| belongs(name(rule), base) && refers(called, rule))
        };
        parts(document, draft::FRONTENDS).iter().filter(mine).filter_map(group_of)
    });
    let had =
        observed.shut_in.iter().filter(|(_, services)| services.contains(&intent.id)).map(|(group, _)| group.clone());
    // A group that is not there has nothing of anybody.
    let is_there =
        |group: &String| !matches!(observed.closed_groups.get(&group.to_lowercase()), Some(Refusal::NotFound(_)));
    let asked = Asks::of(intent, settings).ok().map(|asks| asks.front.group);
    let mut groups = referred.chain(had.chain(asked).filter(is_there));
    groups.find_map(|group| Some((group.clone(), observed.closed_groups.get(&group.to_lowercase())?.clone())))
}

struct Planner<'a> {
    world: &'a World<'a>,
    drafts: Vec<Draft<'a>>,
    public_ips: PublicIps,
    security: Security<'a>,
    verdicts: BTreeMap<ServiceId, Verdict>,
    /// How many Services may still change the load balancers in this plan; no limit where it is not given.
    turns: Option<usize>,
}

impl<'a> Planner<'a> {
    fn draft(&mut self, scheme: Scheme) -> Option<&mut Draft<'a>> {
        self.drafts.iter_mut().find(|draft| draft.scheme == scheme)
    }

    fn run(&mut self) {
        let world = self.world;
        for intent in world.wanted.present.values() {
            if disowns(intent) {
                self.verdicts.insert(intent.id.clone(), Verdict::Disowned);
            } else if let Some(refusal) = world.refused.get(&intent.id) {
                self.verdicts.insert(intent.id.clone(), Verdict::Refused(refusal.clone()));
            }
        }
        for (base, id) in &world.leaving {
            for draft in &mut self.drafts {
                draft.remove_rules(base, id, |_| false);
            }
        }
        for (asks, intent) in &world.served {
            let verdict = match self.place(asks, intent) {
                Ok(Ok(placed)) => Verdict::Placed(placed),
                Ok(Err(waits)) => Verdict::Waits(waits),
                Err(refusal) => Verdict::Refused(refusal),
            };
            self.verdicts.insert(asks.service.clone(), verdict);
        }
        // What one Service gives up in this plan, another one that came before it may be waiting for.
        for (asks, intent) in &world.served {
            let again = |refusal: &Refusal| {
                matches!(refusal, Refusal::PortTaken { .. } | Refusal::AddressInUse { .. } | Refusal::Limit(_))
            };
            if matches!(self.verdicts.get(&asks.service), Some(Verdict::Refused(refusal)) if again(refusal))
                && let Ok(Ok(placed)) = self.place(asks, intent)
            {
                self.verdicts.insert(asks.service.clone(), Verdict::Placed(placed));
            }
        }
    }

    /// Whether nothing of a Service is touched by this plan.
    fn is_kept(&self, base: &str) -> bool {
        match self.world.present.get(base) {
            Some(intent) => !matches!(self.verdicts.get(&intent.id), Some(Verdict::Placed(_))),
            None => !self.world.leaving.contains_key(base),
        }
    }

    fn finish(mut self) -> Plan<Step> {
        let chosen: BTreeSet<(Scheme, String)> = self.placed().map(|(_, p)| (p.scheme, p.frontend.clone())).collect();
        let kept: BTreeSet<String> = self.world.present.keys().filter(|base| self.is_kept(base)).cloned().collect();
        let (present, leaving) = (&self.world.present, &self.world.leaving);
        let owner = |base: &str| {
            let of_present = present.get(base).filter(|_| !kept.contains(base)).map(|intent| &intent.id);
            of_present.or_else(|| leaving.get(base).copied())
        };
        for draft in &mut self.drafts {
            draft.sweep(&chosen, |name| kept.iter().any(|base| belongs(name, base)), owner);
        }
        let members: Vec<_> = self.placed().map(|(id, placed)| (id.clone(), placed.scheme)).collect();
        for draft in self.drafts.iter_mut().filter(|draft| draft.failed()) {
            draft
                .changes
                .extend(members.iter().filter(|(_, scheme)| *scheme == draft.scheme).map(|(id, _)| id.clone()));
        }
        let mut plan = Plan::empty();
        let (makes, changes) = self.public_ips.steps(self.world, &self.drafts, &self.verdicts);
        let touched = changes.iter().flat_map(|planned| planned.services.iter().cloned());
        let unsettled: BTreeSet<ServiceId> = self.public_ips.unsettled(self.world).into_iter().chain(touched).collect();
        plan.steps.extend(makes);
        plan.steps.extend(self.security.step(self.world, &self.verdicts));
        // What is added comes before what is taken away: a Service that changes its scheme has both.
        let (mut writes, mut removals) = (Vec::new(), Vec::new());
        for draft in &self.drafts {
            match draft.step() {
                Some(step @ PlannedStep { step: Step::Delete { .. }, .. }) => removals.push(step),
                Some(step) if draft.adds => writes.insert(0, step),
                Some(step) => writes.push(step),
                None => {}
            }
        }
        plan.steps.extend(writes);
        plan.steps.extend(removals);
        plan.steps.extend(self.public_ips.removals(self.world, &self.drafts, &self.verdicts));
        // Last: what of it fails shall not keep others' steps from being done.
        plan.steps.extend(changes);
        plan.steps.extend(self.world.held.iter().map(|(id, (group, refusal))| self.held(id, group, refusal)));
        for intent in self.world.wanted.present.values() {
            if let Some(verdict) = self.verdicts.get(&intent.id) {
                let mut outcome = self.outcome(intent, verdict);
                if unsettled.contains(&intent.id) {
                    outcome.look_again.get_or_insert(self.world.observed.patience.unwrap_or(SOON));
                }
                plan.outcomes.insert(intent.id.key.clone(), outcome);
            }
        }
        plan
    }

    /// What keeps a Service from being gone, and says why.
    fn held(&self, id: &ServiceId, group: &str, refusal: &Refusal) -> PlannedStep<Step> {
        let message = format!(
            "what it has in the resource group {group} cannot be seen, and so is not deleted: {refusal}. It goes once that is mended, or \
             with the annotation berth.dev/disown, which leaves what it has"
        );
        let refusal = Refusal::Arm(message, refusal.class(), refusal.reason());
        let id_there = Id::new(collection(self.world.settings, group, "publicIPAddresses"));
        PlannedStep::of(id, Step::Wait { kind: Kind::PublicIp, id: id_there, refusal })
    }

    fn placed(&self) -> impl Iterator<Item = (&ServiceId, &Placed)> {
        self.verdicts.iter().flat_map(|(id, verdict)| match verdict {
            Verdict::Placed(placed) => placed.iter().map(|placed| (id, placed)).collect::<Vec<_>>(),
            _ => Vec::new(),
        })
    }

    fn outcome(&self, intent: &Intent, verdict: &Verdict) -> Outcome {
        let soon = self.world.observed.patience.unwrap_or(SOON);
        let placed = match verdict {
            Verdict::Disowned => return disowned(intent),
            Verdict::Refused(refusal) => {
                let look_again = (refusal.reason() == Reason::PermissionDenied).then_some(GRANTED);
                return unmet(intent, refusal.reason(), refusal.to_string(), look_again);
            }
            Verdict::Waits(message) => return unmet(intent, Reason::Provisioning, message.clone(), Some(soon)),
            Verdict::Placed(placed) => placed,
        };
        let addresses: Option<Vec<IpAddr>> = placed.iter().map(|placed| placed.address).collect();
        let Some(addresses) = addresses else {
            let message = "Azure is making the frontend".to_owned();
            return unmet(intent, Reason::Provisioning, message, Some(soon));
        };
        let busy = placed.iter().any(|placed| {
            let draft = self.drafts.iter().find(|draft| draft.scheme == placed.scheme);
            draft.is_some_and(Draft::is_busy)
        });
        let busy = busy && !self.world.observed.fills_pools || self.security.is_busy();
        let ingress: Vec<_> = addresses.iter().map(at).collect();
        let is_published = ingress == intent.published;
        // What is published is served; that something else is under way in the document they share takes nothing from it.
        if busy && !is_published {
            let message = "Azure is still carrying out an earlier change".to_owned();
            return unmet(intent, Reason::Provisioning, message, Some(soon));
        }
        let names: Vec<_> = placed.iter().map(|placed| placed.frontend.clone()).collect();
        let name = placed.first().map(|placed| crate::observed::load_balancer(self.world.settings, placed.scheme));
        let message = format!(
            "the frontend {} of the Azure load balancer {}",
            names.join(" and "),
            name.as_ref().map_or("", |id| id.name())
        );
        // While an old frontend is there that is still published, it is looked at again at once to take it away.
        let look_again = (busy || !is_published && !intent.published.is_empty()).then_some(soon);
        let mut conditions = vec![condition(ConditionStatus::True, Reason::Allocated, message)];
        conditions.extend(coming(busy, true));
        Outcome { ingress, conditions, met: true, look_again }
    }
}

/// Whether something by this name is of the Service whose names begin so.
fn belongs(name: &str, base: &str) -> bool {
    name.strip_prefix(base).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

fn at(address: &IpAddr) -> LoadBalancerIngress {
    LoadBalancerIngress { ip: Some(address.to_string()), ..LoadBalancerIngress::default() }
}

/// Whether a Service's status names the address.
fn is_published(intent: &Intent, address: IpAddr) -> bool {
    intent.published.iter().any(|ingress| ingress.ip.as_ref().and_then(|ip| ip.parse().ok()) == Some(address))
}

fn condition(status: ConditionStatus, reason: Reason, message: String) -> Condition {
    Condition { kind: types::ALLOCATED, status, reason, message }
}

/// How far a frontend has come, for people who wait for it: whether something is still under way, and whether it takes traffic.
fn coming(is_under_way: bool, takes_traffic: bool) -> [Condition; 2] {
    let provisioning = if is_under_way {
        (ConditionStatus::True, Reason::Provisioning, "Azure is carrying out a change")
    } else {
        (ConditionStatus::False, Reason::Active, "nothing is under way")
    };
    let active = if takes_traffic {
        (ConditionStatus::True, Reason::Active, "the frontend takes traffic")
    } else {
        (ConditionStatus::False, Reason::Provisioning, "the frontend does not take traffic yet")
    };
    [(types::PROVISIONING, provisioning), (types::ACTIVE, active)].map(|(kind, (status, reason, message))| Condition {
        kind,
        status,
        reason,
        message: message.to_owned(),
    })
}

/// What is published stays until it can be replaced.
fn unmet(intent: &Intent, reason: Reason, message: String, look_again: Option<Duration>) -> Outcome {
    let mut conditions = vec![condition(ConditionStatus::False, reason, message)];
    if reason == Reason::Provisioning {
        conditions.extend(coming(true, !intent.published.is_empty()));
    }
    Outcome { ingress: intent.published.clone(), conditions, met: false, look_again }
}

fn disowned(intent: &Intent) -> Outcome {
    let message = "the annotation berth.dev/disown leaves what the Service has as it is; nothing is changed any more";
    let conditions = vec![condition(ConditionStatus::True, Reason::Allocated, message.to_owned())];
    Outcome { ingress: intent.published.clone(), conditions, met: true, look_again: None }
}
