//! From objects to a report, by the planners of the providers.

use std::collections::BTreeMap;

use berth_api::Reason;
use berth_api::service::ServiceKey;
use berth_pool::forecast::{self, Forecast, Outlook, PoolProspect, Prospect};
use berth_provider::class::{Classes, ProviderName, Served};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Service;

use super::classes::Switches;
use super::cloud::Fate;
use super::objects::Objects;
use super::report::{ChangeWord, Count, PlanReport, PlannedPool, PlannedService};
use super::{aws, azure, mock};
use crate::finding::Finding;
use crate::run::RunError;

/// What is asked.
pub struct Question<'a> {
    /// What there is to plan with.
    pub objects: &'a Objects,
    /// Every Service that is to be told of, with where its status says that it is reached; also those that are not there any more.
    pub before: &'a BTreeMap<ServiceKey, Vec<String>>,
    /// Who serves which class.
    pub classes: &'a Classes,
    /// What the controller is told by its switches.
    pub switches: Switches,
    /// What is known of AWS.
    pub aws: &'a aws::Cloud,
    /// What is known of Azure.
    pub azure: &'a azure::Cloud,
    /// The time that is planned for.
    pub now: Timestamp,
}

impl Question<'_> {
    /// Plans. What could not be known is said in `notes`.
    pub async fn answer(&self, notes: &mut Vec<String>) -> Result<PlanReport, RunError> {
        let services: BTreeMap<_, _> =
            self.objects.services().map(|(key, service)| (key, (service, self.classes.of(service)))).collect();
        let mocked = services.iter().filter(|(_, (_, served))| *served == Served::By(ProviderName::Mock));
        let mut others = mock::forecast(mocked.map(|(key, (service, _))| (key.clone(), *service))).await;
        let aws = aws::forecast(self.objects, self.before, self.classes, self.aws, notes)?;
        let azure = azure::forecast(self.objects, self.before, self.classes, self.azure, notes)?;
        others.extend(aws.outcomes.clone());
        others.extend(azure.outcomes);
        let mut world = self.objects.world(self.classes);
        self.switches.tell(&mut world);
        let Forecast { services: mut prospects, pools, unsettled } =
            forecast::forecast(world, &others, self.before, self.now);
        let told = self.before.iter().filter_map(|(key, before)| {
            let found = services.get(key);
            let was = self.objects.was(key).and_then(|was| provider(&self.classes.of(was)));
            let Some(prospect) = prospects.remove(key) else {
                let gone = || was.filter(|_| !before.is_empty()).map(|was| gone(key, was, before.clone()));
                return match found {
                    Some((service, served)) => Some(self.ignored(key, service, served, before.clone())),
                    None => gone(),
                };
            };
            let now = found.and_then(|(_, served)| provider(served));
            Some(planned(key, now, was, prospect, unsettled.contains(key)))
        });
        let fates: BTreeMap<_, _> = aws.fates.iter().chain(&azure.fates).collect();
        let services = told.map(|said| match fates.get(&key_of(&said)) {
            Some(fate) => fated(said, fate),
            None => said,
        });
        let load_balancers = aws.outlooks.iter().filter(|outlook| !outlook.steps.is_empty());
        let load_balancers = load_balancers.map(|outlook| aws::report::planned(outlook, &aws.without_node_ports));
        Ok(PlanReport {
            services: services.collect(),
            pools: pools.into_iter().map(pool).collect(),
            load_balancers: load_balancers.chain(azure.planned.map(Ok)).collect::<Result<_, _>>()?,
        })
    }
}

fn provider(served: &Served) -> Option<ProviderName> {
    match served {
        Served::By(name) => Some(*name),
        Served::Elsewhere | Served::Unknown(_) => None,
    }
}

fn key_of(said: &PlannedService) -> ServiceKey {
    ServiceKey { namespace: said.namespace.clone(), name: said.name.clone() }
}

/// A Service of which its cloud's planner says what becomes of it.
fn fated(said: PlannedService, fate: &Fate) -> PlannedService {
    let Fate { provider, after, change, reason, message } = fate.clone();
    PlannedService { provider: Some(provider.to_string()), after, change, reason: reason.to_string(), message, ..said }
}

/// A Service that is deleted, and of which the pools know nothing.
fn gone(key: &ServiceKey, was: ProviderName, before: Vec<String>) -> PlannedService {
    PlannedService {
        namespace: key.namespace.clone(),
        name: key.name.clone(),
        provider: Some(was.to_string()),
        pool: None,
        before,
        after: Vec::new(),
        change: ChangeWord::Lose,
        reason: Reason::Released.to_string(),
        message: "the Service is gone".to_owned(),
    }
}

/// `provider` serves it now, and `was` did before.
fn planned(
    key: &ServiceKey,
    provider: Option<ProviderName>,
    was: Option<ProviderName>,
    prospect: Prospect,
    unsettled: bool,
) -> PlannedService {
    let Prospect { pools, before, after, outlook, reason, message } = prospect;
    // Where nothing was there to lose, a Service that nobody serves (any more) is nobody's.
    let change = match outlook {
        Outlook::Keep => ChangeWord::Keep,
        Outlook::Gain => ChangeWord::Gain,
        Outlook::Lose => ChangeWord::Lose,
        Outlook::Move => ChangeWord::Move,
        Outlook::Pending if provider.is_none() => ChangeWord::Ignore,
        Outlook::Pending => ChangeWord::Pending,
    };
    let said = PlannedService {
        namespace: key.namespace.clone(),
        name: key.name.clone(),
        // Who gives back what they had is told of with who gave it; that what the pools see was theirs is most likely.
        provider: provider
            .or_else(|| was.or(Some(ProviderName::Pool)).filter(|_| change == ChangeWord::Lose))
            .map(|name| name.to_string()),
        pool: (!pools.is_empty()).then(|| pools.join(",")),
        before,
        after,
        change,
        reason: reason.to_string(),
        message,
    };
    if unsettled {
        let message = format!("planning did not come to an end; what was found last: {}", said.message);
        return PlannedService {
            change: ChangeWord::Pending,
            reason: Finding::NotSettled.to_string(),
            message,
            ..said
        };
    }
    said
}

impl Question<'_> {
    /// A Service that nobody here serves, and why not.
    fn ignored(&self, key: &ServiceKey, service: &Service, served: &Served, before: Vec<String>) -> PlannedService {
        let spec = service.spec.clone().unwrap_or_default();
        let kind = spec.type_.unwrap_or_else(|| "ClusterIP".to_owned());
        let own = |class: &str| ProviderName::ALL.into_iter().find(|name| name.class() == class);
        let (reason, message) = match (served, spec.load_balancer_class) {
            (Served::Unknown(class), _) => {
                let own: Vec<_> = ProviderName::ALL.iter().map(|name| name.class()).collect();
                let message = format!("`spec.loadBalancerClass` is `{class}`, which is none of {}", own.join(", "));
                (Reason::UnknownClass.as_str(), message)
            }
            _ if kind != "LoadBalancer" => {
                (Finding::NotLoadBalancer.as_str(), format!("the Service is of type {kind}"))
            }
            _ if service.metadata.deletion_timestamp.is_some() => {
                (Finding::BeingDeleted.as_str(), "the Service is being deleted".to_owned())
            }
            (_, Some(class)) => {
                let why = match own(&class) {
                    Some(name) => format!(
                        "`{class}` is the class of the provider {name}, which is not switched on: see --providers"
                    ),
                    None => format!("no provider here serves the class `{class}`: see --class"),
                };
                (Finding::OtherClass.as_str(), why)
            }
            (_, None) if self.classes.default_provider() == Some(ProviderName::Aws) => {
                let message = "the Service names no class, and without one only Services are served that have the annotation \
                               service.beta.kubernetes.io/aws-load-balancer-type: `external`, beside aws-load-balancer-nlb-target-type, or `nlb-ip`";
                (Finding::NoClass.as_str(), message.to_owned())
            }
            (_, None) => {
                let message =
                    "the Service names no class, and no provider serves such Services: see --default-provider";
                (Finding::NoClass.as_str(), message.to_owned())
            }
        };
        PlannedService {
            namespace: key.namespace.clone(),
            name: key.name.clone(),
            provider: None,
            pool: None,
            after: before.clone(),
            before,
            change: ChangeWord::Ignore,
            reason: reason.to_owned(),
            message,
        }
    }
}

fn pool(prospect: PoolProspect) -> PlannedPool {
    let PoolProspect { name, total, used, free, problems } = prospect;
    let problems = problems.into_iter().map(|(reason, message)| format!("{reason}: {message}")).collect();
    PlannedPool { name, total: Count(total), used: Count(used.into()), free: Count(free), problems }
}

#[cfg(test)]
mod tests;
