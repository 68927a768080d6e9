//! The provider.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use berth_api::condition::types;
use berth_api::{Condition, ConditionStatus, IpFamily, Reason};
use berth_provider::{
    Class, Failure, Intent, Outcome, Owned, Plan, PlannedStep, Port, Protocol, Provider, ServiceId, Shard, Wanted, Whom,
};
use k8s_openapi::api::core::v1::LoadBalancerIngress;
use serde::Serialize;

use crate::cloud::{Cloud, LoadBalancer};
use crate::ranges;
use crate::script::Script;

/// The provider `mock`.
#[derive(Clone, Debug, Default)]
pub struct Mock {
    cloud: Cloud,
}

impl Mock {
    /// A provider of this cloud.
    pub fn new(cloud: Cloud) -> Self {
        Self { cloud }
    }
}

/// What the cloud has for the Services of one name.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    addresses: BTreeMap<IpAddr, ServiceId>,
    balancers: BTreeMap<String, (ServiceId, LoadBalancer, Duration)>,
    /// Addresses that anybody has.
    taken: BTreeSet<IpAddr>,
}

/// One effect.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "effect")]
pub enum Step {
    /// Reserve an address.
    AllocateAddress {
        /// For whom.
        #[serde(skip)]
        owner: ServiceId,
        /// Of which family.
        #[serde(serialize_with = "display")]
        family: IpFamily,
        /// This one and no other.
        wanted: Option<IpAddr>,
        /// What is to go wrong with it.
        script: Script,
    },
    /// Make a load balancer.
    CreateLoadBalancer {
        /// For whom.
        #[serde(skip)]
        owner: ServiceId,
        /// Reached at these.
        addresses: BTreeSet<IpAddr>,
        /// On these.
        #[serde(skip)]
        ports: Vec<Port>,
        /// What is to go wrong with it.
        script: Script,
    },
    /// Change one.
    ChangeLoadBalancer {
        /// For whom.
        #[serde(skip)]
        owner: ServiceId,
        /// Which one.
        id: String,
        /// Reached at these.
        addresses: BTreeSet<IpAddr>,
        /// On these.
        #[serde(skip)]
        ports: Vec<Port>,
        /// What is to go wrong with it.
        script: Script,
    },
    /// Remove one.
    DeleteLoadBalancer {
        /// Whose.
        #[serde(skip)]
        owner: ServiceId,
        /// Which one.
        id: String,
        /// What is to go wrong with it.
        script: Script,
    },
    /// Give an address back.
    ReleaseAddress {
        /// Whose.
        #[serde(skip)]
        owner: ServiceId,
        /// Which one.
        address: IpAddr,
        /// What is to go wrong with it.
        script: Script,
    },
}

fn display<S: serde::Serializer>(value: &impl fmt::Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AllocateAddress { wanted: Some(address), .. } => write!(f, "allocate the address {address}"),
            Self::AllocateAddress { family, .. } => write!(f, "allocate an {family} address"),
            Self::CreateLoadBalancer { addresses, .. } => write!(f, "create a load balancer at {}", list(addresses)),
            Self::ChangeLoadBalancer { id, addresses, .. } => {
                write!(f, "change the load balancer {id} at {}", list(addresses))
            }
            Self::DeleteLoadBalancer { id, .. } => write!(f, "delete the load balancer {id}"),
            Self::ReleaseAddress { address, .. } => write!(f, "release the address {address}"),
        }
    }
}

fn list(addresses: &BTreeSet<IpAddr>) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

impl Provider for Mock {
    type Observed = Observed;
    type Step = Step;

    fn name(&self) -> &'static str {
        "mock"
    }

    fn needs_finalizer(&self) -> bool {
        // Its cloud is in this process; with a finalizer a Service could not go while no controller runs.
        false
    }

    fn takes_over(&self, services: &[&Intent]) {
        // The oldest first, should an address be published twice.
        let mut services: Vec<_> = services.iter().copied().filter(|intent| !intent.published.is_empty()).collect();
        services.sort_by_key(|intent| (intent.created, &intent.id));
        let (mut taken, mut theirs) = (BTreeSet::new(), Vec::new());
        let (by_address, by_name): (Vec<_>, Vec<_>) =
            services.into_iter().partition(|intent| published(intent).next().is_some());
        for intent in by_address {
            let mut addresses: BTreeSet<_> = published(intent).filter(|a| ranges::is_documentation(*a)).collect();
            addresses.retain(|address| taken.insert(*address));
            theirs.push((intent, addresses));
        }
        // Of those that are published by name any address will do that is free then.
        for intent in by_name {
            let free = intent.families.iter().filter_map(|family| ranges::lowest_free(family, &taken));
            let addresses: BTreeSet<_> = free.collect();
            taken.extend(&addresses);
            theirs.push((intent, addresses));
        }
        theirs.retain(|(_, addresses)| !addresses.is_empty());
        self.cloud.restore(theirs);
    }

    fn validate(&self, intent: &Intent) -> Result<(), Failure> {
        Script::parse(&intent.annotations).map_err(|error| Failure::new(Class::Config, error.to_string()))?;
        if intent.ports.iter().any(|port| port.protocol == Protocol::Sctp) {
            let message = "spec.ports: the mock serves TCP and UDP, not SCTP; remove the port";
            return Err(Failure::new(Class::Unsupported, message));
        }
        let request = match &intent.request {
            Ok(request) => request,
            Err(error) => return Err(Failure::new(Class::Config, error.to_string()).reason(error.reason())),
        };
        if let Some(pool) = &request.pool {
            let message = format!("the pool `{pool}` is asked for, and the mock has none; remove the annotation");
            return Err(Failure::new(Class::Unsupported, message));
        }
        if intent.sharing.is_some() {
            let message = "the mock gives every Service addresses of its own; remove the annotation that asks to share";
            return Err(Failure::new(Class::Unsupported, message).reason(Reason::SharingUnsupported));
        }
        for address in requested(intent) {
            if !ranges::is_documentation(address) {
                let message = format!(
                    "{address} is asked for, and the mock gives addresses of 192.0.2.0/24, 198.51.100.0/24, 203.0.113.0/24 and \
                     2001:db8::/32 only; ask for one of those or for none"
                );
                return Err(Failure::new(Class::Config, message));
            }
        }
        Ok(())
    }

    fn shard(&self, intent: &Intent) -> Shard {
        // One name: a Service that was made again meets what its predecessor left.
        Shard(intent.id.key.to_string())
    }

    async fn observe(&self, shard: &Shard, _wanted: &Wanted) -> Result<Observed, Failure> {
        let observed = self.cloud.read(|state| {
            let ours = |tag: &Option<ServiceId>| tag.clone().filter(|id| id.key.to_string() == shard.0);
            let addresses = state.addresses.iter().filter_map(|(address, tag)| Some((*address, ours(tag)?)));
            let balancers = state.load_balancers.iter();
            Observed {
                addresses: addresses.collect(),
                balancers: balancers
                    .filter_map(|(id, lb)| Some((id.clone(), (ours(&lb.tag)?, lb.clone(), lb.remaining()))))
                    .collect(),
                taken: state.addresses.keys().copied().collect(),
            }
        });
        Ok(observed?)
    }

    fn plan(&self, wanted: &Wanted, observed: &Observed) -> Plan<Step> {
        let mut plan = Plan::empty();
        for intent in wanted.leaving.values() {
            let script = Script::parse(&intent.annotations).unwrap_or_default();
            plan.steps.extend(observed.removal(intent, &script));
        }
        for (key, intent) in &wanted.present {
            let outcome = match self.validate(intent) {
                Ok(()) => {
                    let script = Script::parse(&intent.annotations).unwrap_or_default();
                    let (steps, outcome) = observed.service(intent, &script);
                    plan.steps.extend(steps);
                    outcome
                }
                Err(failure) => unmet(intent, failure.reason, failure.message, None),
            };
            plan.outcomes.insert(key.clone(), outcome);
        }
        plan
    }

    async fn apply(&self, _shard: &Shard, step: &Step, observed: &mut Observed) -> Result<(), Failure> {
        let cloud = &self.cloud;
        match step {
            Step::AllocateAddress { owner, family, wanted, script } => {
                // Made before an answer was lost, perhaps.
                let there = |a: &&IpAddr| IpFamily::of(**a) == *family && wanted.is_none_or(|w| w == **a);
                let made = cloud.read(|state| {
                    state
                        .addresses
                        .iter()
                        .filter(|(_, tag)| tag.as_ref() == Some(owner))
                        .map(|(a, _)| a)
                        .find(there)
                        .copied()
                })?;
                let address = match made {
                    Some(address) => address,
                    None => cloud.allocate(owner, *family, *wanted, script)?,
                };
                observed.addresses.insert(address, owner.clone());
            }
            Step::CreateLoadBalancer { owner, addresses, ports, script } => {
                let made =
                    cloud.read(|state| state.load_balancers.values().any(|lb| lb.tag.as_ref() == Some(owner)))?;
                if !made {
                    cloud.create(owner, addresses, ports, script)?;
                }
            }
            Step::ChangeLoadBalancer { owner, id, addresses, ports, script } => {
                cloud.change(owner, id, addresses, ports, script)?;
            }
            Step::DeleteLoadBalancer { owner, id, script } => {
                cloud.delete(owner, id, script)?;
                observed.balancers.remove(id);
            }
            Step::ReleaseAddress { owner, address, script } => {
                cloud.release(owner, *address, script)?;
                observed.addresses.remove(address);
            }
        }
        Ok(())
    }

    async fn list_owned(&self) -> Result<Vec<Owned>, Failure> {
        let owned = self.cloud.read(|state| {
            let of = |id: String, kind: &str, tag: &Option<ServiceId>| {
                let service = tag.clone()?;
                let shard = Shard(service.key.to_string());
                Some(Owned { id, kind: kind.to_owned(), shard, service: Some(service), whom: Whom::Service })
            };
            let addresses = state.addresses.iter().filter_map(|(a, tag)| of(a.to_string(), "address", tag));
            let balancers = state.load_balancers.iter().filter_map(|(id, lb)| of(id.clone(), "load balancer", &lb.tag));
            addresses.chain(balancers).collect()
        });
        Ok(owned?)
    }
}

impl Observed {
    /// Nothing of it is to remain: the load balancer goes before its addresses.
    fn removal(&self, intent: &Intent, script: &Script) -> Vec<PlannedStep<Step>> {
        let (owner, script) = (&intent.id, script.clone());
        let balancers = self
            .balancers
            .iter()
            .filter(|(_, (id, ..))| id == owner)
            .map(|(id, _)| Step::DeleteLoadBalancer { owner: owner.clone(), id: id.clone(), script: script.clone() });
        let addresses = self.addresses.iter().filter(|(_, id)| *id == owner).map(|(address, _)| Step::ReleaseAddress {
            owner: owner.clone(),
            address: *address,
            script: script.clone(),
        });
        balancers.chain(addresses).map(|step| PlannedStep::of(owner, step)).collect()
    }

    fn service(&self, intent: &Intent, script: &Script) -> (Vec<PlannedStep<Step>>, Outcome) {
        let owner = &intent.id;
        let mut steps = Vec::new();
        let published: Vec<IpAddr> = published(intent).collect();
        let mut chosen = Vec::new();
        for family in intent.families.iter() {
            let requested = requested(intent).find(|a| IpFamily::of(*a) == family);
            let mine = |a: &&IpAddr| IpFamily::of(**a) == family && requested.is_none_or(|r| r == **a);
            let held = || self.addresses.iter().filter(|(_, id)| *id == owner).map(|(address, _)| address);
            // What is published first, so that a second one, made by chance, is the one that goes.
            let address = held().filter(mine).find(|a| published.contains(a)).or_else(|| held().find(mine));
            if let Some(address) = address {
                chosen.push(*address);
                continue;
            }
            let again = published
                .iter()
                .copied()
                .find(|a| IpFamily::of(*a) == family && ranges::is_documentation(*a) && !self.taken.contains(a));
            steps.push(Step::AllocateAddress {
                owner: owner.clone(),
                family,
                wanted: requested.or(again),
                script: script.clone(),
            });
        }
        let addresses: BTreeSet<_> = chosen.iter().copied().collect();
        let balancer = self.balancers.iter().find(|(_, (id, ..))| id == owner);
        let mut spare: BTreeSet<_> = self.addresses.iter().filter(|(_, id)| *id == owner).map(|(a, _)| *a).collect();
        spare.retain(|address| !addresses.contains(address));
        if steps.is_empty() {
            let (owner, ports, script) = (owner.clone(), intent.ports.clone(), script.clone());
            match balancer {
                None => steps.push(Step::CreateLoadBalancer { owner, addresses, ports, script }),
                Some((id, (_, there, _))) if there.addresses != addresses || there.ports != ports => {
                    steps.push(Step::ChangeLoadBalancer { owner, id: id.clone(), addresses, ports, script });
                }
                Some(_) => {
                    // What a load balancer or a client still uses is not given back.
                    let unused = spare.into_iter().filter(|address| !published.contains(address));
                    steps.extend(unused.map(|address| Step::ReleaseAddress {
                        owner: owner.clone(),
                        address,
                        script: script.clone(),
                    }));
                }
            }
        }
        let only_releases = steps.iter().all(|step| matches!(step, Step::ReleaseAddress { .. }));
        let steps = steps.into_iter().map(|step| PlannedStep::of(&intent.id, step)).collect();
        let outcome = match balancer {
            Some((_, (_, _, remaining))) if only_releases && remaining.is_zero() => met(&chosen, script),
            Some((_, (_, _, remaining))) if only_releases => {
                let message = "the load balancer is coming up, as slowly as its annotation asks for".to_owned();
                unmet(intent, Reason::Provisioning, message, Some(*remaining))
            }
            _ => unmet(intent, Reason::Provisioning, "the load balancer is being made".to_owned(), None),
        };
        (steps, outcome)
    }
}

/// The addresses that a Service's status says.
fn published(intent: &Intent) -> impl Iterator<Item = IpAddr> {
    intent.published.iter().filter_map(|ingress| ingress.ip.as_ref()?.parse().ok())
}

/// The addresses that a Service insists on.
fn requested(intent: &Intent) -> impl Iterator<Item = IpAddr> {
    let addresses = intent.request.iter().map(|request| request.addresses);
    addresses.flat_map(|addresses| [addresses.v4, addresses.v6]).flatten()
}

fn met(addresses: &[IpAddr], script: &Script) -> Outcome {
    let ip = |address: &IpAddr| LoadBalancerIngress { ip: Some(address.to_string()), ..LoadBalancerIngress::default() };
    let ingress = match &script.hostname {
        Some(hostname) => {
            vec![LoadBalancerIngress { hostname: Some(hostname.clone()), ..LoadBalancerIngress::default() }]
        }
        None => addresses.iter().map(ip).collect(),
    };
    let message = if let Some(hostname) = &script.hostname {
        format!("{hostname} as the annotation asks for; nobody answers there")
    } else {
        let list = addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        format!("{list} from the ranges for documentation; nobody answers there")
    };
    let kind = types::ALLOCATED;
    let condition = Condition { kind, status: ConditionStatus::True, reason: Reason::Allocated, message };
    Outcome { ingress, conditions: vec![condition], met: true, look_again: None }
}

/// What is published stays until it can be replaced.
fn unmet(intent: &Intent, reason: Reason, message: String, look_again: Option<Duration>) -> Outcome {
    let condition = Condition { kind: types::ALLOCATED, status: ConditionStatus::False, reason, message };
    Outcome { ingress: intent.published.clone(), conditions: vec![condition], met: false, look_again }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::script::HOSTNAME;
    use berth_provider::carry_out;
    use k8s_openapi::api::core::v1::Service;
    use serde_json::{Value, json};

    fn wanted(service: Value) -> Wanted {
        let service: Service = serde_json::from_value(service).unwrap();
        let intent = Intent::of(&service).unwrap();
        Wanted { present: BTreeMap::from([(intent.id.key.clone(), intent)]), ..Wanted::default() }
    }

    async fn rest(mock: &Mock, wanted: &Wanted) -> (Vec<String>, Outcome) {
        let intent = wanted.present.values().next().unwrap();
        let shard = mock.shard(intent);
        let mut steps = Vec::new();
        loop {
            let mut observed = mock.observe(&shard, wanted).await.unwrap();
            let plan = mock.plan(wanted, &observed);
            if plan.steps.is_empty() {
                return (steps, plan.outcomes[&intent.id.key].clone());
            }
            steps.extend(plan.steps.iter().map(|planned| planned.step.to_string()));
            assert_eq!(carry_out(mock, &shard, &plan, &mut observed, || true).await.failures, BTreeMap::new());
        }
    }

    fn service(families: &[&str], published: &[&str]) -> Value {
        let policy = if families.len() > 1 { "RequireDualStack" } else { "SingleStack" };
        let ingress: Vec<_> = published.iter().map(|ip| json!({"ip": ip})).collect();
        json!({
            "metadata": {"namespace": "shop", "name": "web", "uid": "1"},
            "spec": {"type": "LoadBalancer", "ipFamilies": families, "ipFamilyPolicy": policy, "ports": [{"port": 80}]},
            "status": {"loadBalancer": {"ingress": ingress}},
        })
    }

    fn addresses(outcome: &Outcome) -> Vec<&str> {
        outcome.ingress.iter().filter_map(|i| i.ip.as_deref()).collect()
    }

    #[tokio::test]
    async fn addresses_come_in_the_order_of_the_families() {
        let (steps, outcome) = rest(&Mock::default(), &wanted(service(&["IPv6", "IPv4"], &[]))).await;
        assert_eq!(
            steps,
            [
                "allocate an IPv6 address",
                "allocate an IPv4 address",
                "create a load balancer at 203.0.113.1, 2001:db8:0:b07::1",
            ]
        );
        assert_eq!(addresses(&outcome), ["2001:db8:0:b07::1", "203.0.113.1"]);
    }

    #[tokio::test]
    async fn what_was_published_is_made_again_as_it_was_when_the_process_and_its_cloud_are_new() {
        let asked = wanted(service(&["IPv4"], &["198.51.100.9"]));
        let (steps, outcome) = rest(&Mock::default(), &asked).await;
        assert_eq!(steps, ["allocate the address 198.51.100.9", "create a load balancer at 198.51.100.9"]);
        assert_eq!(addresses(&outcome), ["198.51.100.9"]);
    }

    #[tokio::test]
    async fn an_address_of_another_provider_is_not_taken_over() {
        let (_, outcome) = rest(&Mock::default(), &wanted(service(&["IPv4"], &["10.1.2.3"]))).await;
        assert_eq!(addresses(&outcome), ["203.0.113.1"]);
    }

    #[tokio::test]
    async fn a_second_family_is_added_before_and_the_first_released_after_it_is_published() {
        let mock = Mock::default();
        rest(&mock, &wanted(service(&["IPv4"], &[]))).await;
        let (steps, both) = rest(&mock, &wanted(service(&["IPv4", "IPv6"], &["203.0.113.1"]))).await;
        assert_eq!(steps.len(), 2, "{steps:?}");
        assert_eq!(addresses(&both), ["203.0.113.1", "2001:db8:0:b07::1"]);
        let published = ["203.0.113.1", "2001:db8:0:b07::1"];
        let (steps, one) = rest(&mock, &wanted(service(&["IPv6"], &published))).await;
        assert_eq!(steps, ["change the load balancer mock-000001 at 2001:db8:0:b07::1"], "still published");
        assert_eq!(addresses(&one), ["2001:db8:0:b07::1"]);
        let (steps, _) = rest(&mock, &wanted(service(&["IPv6"], &["2001:db8:0:b07::1"]))).await;
        assert_eq!(steps, ["release the address 203.0.113.1"]);
    }

    #[tokio::test]
    async fn whoever_takes_over_finds_what_is_published_and_gives_none_of_it_to_others() {
        let all = |services: &[(&str, Value)]| {
            let intents = services.iter().map(|(name, ingress)| {
                let mut service = service(&["IPv4"], &[]);
                service["metadata"] = json!({
                    "namespace": "shop", "name": name, "uid": name,
                    "annotations": {"mock.berth.dev/latency": "60m", "mock.berth.dev/faults": "permission:forever"},
                });
                service["status"]["loadBalancer"]["ingress"] = ingress.clone();
                if let Some(hostname) = ingress[0]["hostname"].as_str() {
                    service["metadata"]["annotations"][HOSTNAME] = hostname.into();
                }
                Intent::of(&serde_json::from_value::<Service>(service).unwrap()).unwrap()
            });
            intents.collect::<Vec<_>>()
        };
        let services = all(&[
            ("a-new", json!([])),
            ("b-named", json!([{"hostname": "web.example.com"}])),
            ("c-first", json!([{"ip": "203.0.113.1"}])),
            ("d-other", json!([{"ip": "198.51.100.7"}])),
            ("e-again", json!([{"ip": "203.0.113.1"}])),
            ("f-elsewhere", json!([{"ip": "10.1.2.3"}])),
        ]);
        let cloud = Cloud::new();
        cloud.plant_foreign("203.0.113.9".parse().unwrap(), "of the time before");
        let mock = Mock::new(cloud.clone());
        mock.takes_over(&services.iter().collect::<Vec<_>>());
        let addresses: Vec<_> = cloud.dump(true).into_iter().filter(|line| line.starts_with("address")).collect();
        assert_eq!(
            addresses,
            [
                "address 198.51.100.7 of shop/d-other d-other",
                "address 203.0.113.1 of shop/c-first c-first",
                "address 203.0.113.2 of shop/b-named b-named",
            ]
        );
        assert!(cloud.dump(false).is_empty());
        for (name, steps, met) in [
            ("a-new", 1, false),
            ("b-named", 0, true),
            ("c-first", 0, true),
            ("d-other", 0, true),
            ("e-again", 1, false),
            ("f-elsewhere", 1, false),
        ] {
            let intent = services.iter().find(|intent| intent.id.uid == name).unwrap();
            let wanted = Wanted { present: [(intent.id.key.clone(), intent.clone())].into(), ..Wanted::default() };
            let plan = mock.plan(&wanted, &mock.observe(&mock.shard(intent), &wanted).await.unwrap());
            let outcome = &plan.outcomes[&intent.id.key];
            assert_eq!((plan.steps.len(), outcome.met), (steps, met), "{name}");
            assert_eq!(outcome.ingress, intent.published, "{name}");
        }
    }

    #[tokio::test]
    async fn the_next_calls_fail_as_the_annotation_says_also_when_it_was_written_later() {
        let mock = Mock::default();
        rest(&mock, &wanted(service(&["IPv4"], &[]))).await;
        let mut changed = service(&["IPv4"], &["203.0.113.1"]);
        changed["metadata"]["annotations"] = json!({"mock.berth.dev/faults": "throttled:2"});
        changed["spec"]["ports"] = json!([{"port": 81}]);
        let asked = wanted(changed);
        let intent = asked.present.values().next().unwrap();
        let shard = mock.shard(intent);
        let mut failed = Vec::new();
        for _ in 0..3 {
            let mut observed = mock.observe(&shard, &asked).await.unwrap();
            let plan = mock.plan(&asked, &observed);
            let carried = carry_out(&mock, &shard, &plan, &mut observed, || true).await;
            failed.push(carried.failures.get(&intent.id).map(|failure| failure.class));
        }
        assert_eq!(failed, [Some(Class::Throttled), Some(Class::Throttled), None]);
    }

    #[tokio::test]
    async fn a_plan_can_be_written_down() {
        let asked = wanted(service(&["IPv4"], &[]));
        let plan = Mock::default().plan(&asked, &Observed::default());
        assert_eq!(
            serde_json::to_value(&plan).unwrap(),
            json!({"steps": [{
                "step": {"effect": "AllocateAddress", "family": "IPv4", "wanted": null, "script": {}},
                "services": [{"key": {"namespace": "shop", "name": "web"}, "uid": "1"}],
                "disruptive": false,
            }]})
        );
    }
}
