//! What plans of all clouds have in common: which Services, how their fate is told, and how steps are shown.

use std::collections::{BTreeMap, BTreeSet};

use berth_api::condition::types;
use berth_api::service::ServiceKey;
use berth_api::{Condition, ConditionStatus, Reason};
use berth_provider::class::{Classes, ProviderName, Served};
use berth_provider::{Failure, Intent, Outcome};
use k8s_openapi::api::core::v1::{Service, ServicePort};

use super::objects::Objects;
use super::report::{ChangeWord, PlannedLoadBalancer};
use crate::table::{Cell, Style, Table, Tone};

/// Stands for a port that the API server chooses. No node port has it.
pub const PORT_UNKNOWN: u16 = 1;
/// The namespace whose UID is the cluster's.
pub const KUBE_SYSTEM: &str = "kube-system";
/// Services that are named. With more of them their number says more.
const NAMED: usize = 10;

/// What becomes of where a Service is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fate {
    /// Who serves it.
    pub provider: ProviderName,
    /// Where it will be reached, as far as that is known: a cloud gives what is new its name or address.
    pub after: Vec<String>,
    /// What that means.
    pub change: ChangeWord,
    /// Why, as a code.
    pub reason: Reason,
    /// Why, for a person.
    pub message: String,
}

/// The Services of a cloud's provider.
#[derive(Default)]
pub struct Asked {
    /// Those that are there.
    pub present: Vec<Intent>,
    /// Those that are there no more, or are another's.
    pub leaving: Vec<Intent>,
    /// What is said of those that cannot be read.
    pub fates: BTreeMap<ServiceKey, Fate>,
    /// The same as the provider would say it.
    pub outcomes: BTreeMap<ServiceKey, Outcome>,
    /// Services of which the API server still has to choose node ports.
    pub without_node_ports: BTreeSet<ServiceKey>,
}

impl Asked {
    /// Those of a provider.
    pub fn of(
        provider: ProviderName,
        objects: &Objects,
        before: &BTreeMap<ServiceKey, Vec<String>>,
        classes: &Classes,
    ) -> Self {
        let mut asked = Self::default();
        let is_its = |service: &Service| classes.of(service) == Served::By(provider);
        for (key, service) in objects.services().filter(|(_, service)| is_its(service)) {
            let (service, guessed) = as_made(service, objects.was(&key));
            if guessed {
                asked.without_node_ports.insert(key.clone());
            }
            match Intent::of(&service) {
                Ok(intent) => asked.present.push(intent),
                Err(failure) => {
                    let fate = refused(provider, before.get(&key), failure.reason, failure.message.clone());
                    asked.fates.insert(key.clone(), fate);
                    asked.outcomes.insert(key, failed(&failure));
                }
            }
        }
        for (key, was) in before.keys().filter_map(|key| Some((key, objects.was(key)?))) {
            let stays = objects.service(key).is_some_and(is_its);
            asked.leaving.extend((!stays && is_its(was)).then(|| Intent::of(was).ok()).flatten());
        }
        asked
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.present.is_empty() && self.leaving.is_empty()
    }
}

/// The Service as the API server makes it of what a file says: with node ports, those that it had where it had some. Also whether
/// one stands for a port that is chosen only then.
fn as_made(service: &Service, was: Option<&Service>) -> (Service, bool) {
    let mut made = service.clone();
    let old = was.and_then(|was| was.spec.as_ref());
    let mut guessed = false;
    let Some(spec) = made.spec.as_mut() else { return (made, guessed) };
    if spec.external_traffic_policy.as_deref() == Some("Local")
        && spec.health_check_node_port.is_none_or(|port| port == 0)
    {
        let had = old.and_then(|old| old.health_check_node_port).filter(|port| *port != 0);
        guessed |= had.is_none();
        spec.health_check_node_port = Some(had.unwrap_or(PORT_UNKNOWN.into()));
    }
    if spec.allocate_load_balancer_node_ports == Some(false) {
        return (made, guessed);
    }
    let Some(ports) = spec.ports.as_mut() else { return (made, guessed) };
    let given = |port: &Option<i32>| port.filter(|port| *port != 0);
    // Ports of one number and of several protocols get one node port (Kubernetes rule).
    let asked: BTreeMap<i32, i32> =
        ports.iter().filter_map(|port| Some((port.port, given(&port.node_port)?))).collect();
    for port in ports.iter_mut().filter(|port| given(&port.node_port).is_none()) {
        let same = |old: &&ServicePort| {
            old.port == port.port
                && old.protocol.as_deref().unwrap_or("TCP") == port.protocol.as_deref().unwrap_or("TCP")
        };
        let had = old.and_then(|old| given(&old.ports.as_ref()?.iter().find(same)?.node_port));
        let known = had.or_else(|| asked.get(&port.port).copied());
        guessed |= known.is_none();
        port.node_port = Some(known.unwrap_or(PORT_UNKNOWN.into()));
    }
    (made, guessed)
}

fn refused(provider: ProviderName, before: Option<&Vec<String>>, reason: Reason, message: String) -> Fate {
    let after = before.cloned().unwrap_or_default();
    let change = if after.is_empty() { ChangeWord::Pending } else { ChangeWord::Keep };
    Fate { provider, after, change, reason, message }
}

/// What is said of a Service that is there no more, of which so many steps take away what it had.
pub fn gone(provider: ProviderName, cloud: &str, steps: usize) -> Fate {
    let message = match steps {
        0 => format!(
            "the Service is gone or asks for no load balancer any more; what it has in {cloud} was not looked at, or is not Berth's"
        ),
        1 => "the Service is gone or asks for no load balancer any more; 1 step takes away what it had".to_owned(),
        _ => format!("the Service is gone or asks for no load balancer any more; {steps} steps take away what it had"),
    };
    Fate { provider, after: Vec::new(), change: ChangeWord::Lose, reason: Reason::Released, message }
}

fn failed(failure: &Failure) -> Outcome {
    let condition = Condition {
        kind: types::ALLOCATED,
        status: ConditionStatus::False,
        reason: failure.reason,
        message: failure.message.clone(),
    };
    Outcome { conditions: vec![condition], met: false, ..Outcome::default() }
}

/// Which node ports are not known, if any is shown.
pub fn note_of_node_ports(keys: &[String]) -> Option<String> {
    (!keys.is_empty()).then(|| {
        format!(
            "note: the API server chooses the node ports of {} (<node port>); {PORT_UNKNOWN} stands for them in -o json and -o yaml",
            keys.join(", ")
        )
    })
}

/// One line of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// What becomes of it.
    pub change: Change,
    /// What kind of thing it is.
    pub resource: &'static str,
    /// Its name.
    pub name: String,
    /// What it is, or what of it changes.
    pub detail: String,
}

/// What becomes of a thing in a cloud.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It comes.
    Create,
    /// It becomes another.
    Alter,
    /// It takes another's place.
    Replace,
    /// It goes.
    Delete,
}

impl Change {
    fn word(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Alter => "change",
            Self::Replace => "replace",
            Self::Delete => "delete",
        }
    }

    fn tone(self) -> Tone {
        match self {
            Self::Create => Tone::Good,
            Self::Alter => Tone::Doubtful,
            Self::Replace | Self::Delete => Tone::Bad,
        }
    }
}

/// Says of lines that what they tell interrupts traffic.
pub fn interrupts(rows: &mut [Row]) {
    for row in rows {
        row.detail = format!("{}{}interrupts traffic", row.detail, if row.detail.is_empty() { "" } else { "; " });
    }
}

/// The tables of one load balancer; none where nothing is to be done.
pub fn tables(planned: &PlannedLoadBalancer, style: Style) -> Option<String> {
    if planned.rows.is_empty() {
        return None;
    }
    let mut steps = Table::new(vec!["CHANGE", "RESOURCE", "NAME", "DETAIL"]);
    for row in &planned.rows {
        steps.row(vec![
            Cell::toned(row.change.word(), row.change.tone()),
            row.resource.into(),
            row.name.clone().into(),
            Cell::or_none(Some(&row.detail)),
        ]);
    }
    let whom = match planned.services.as_slice() {
        [one] => format!("the Service {one}"),
        all if all.len() > NAMED => format!("{} Services", all.len()),
        all => format!("the Services {}", all.join(", ")),
    };
    let mut text = format!("{}, for {whom}:\n{}", label(&planned.provider), steps.render(style));
    if !planned.subnets.is_empty() {
        let mut subnets = Table::new(vec!["SUBNET", "ZONE", "CHOSEN", "WHY"]);
        for subnet in &planned.subnets {
            let chosen = if subnet.chosen { Cell::toned("yes", Tone::Good) } else { "no".into() };
            subnets.row(vec![
                subnet.subnet_id.clone().into(),
                Cell::or_none(Some(&subnet.availability_zone)),
                chosen,
                subnet.reason.clone().into(),
            ]);
        }
        text = format!("{text}\n{}", subnets.render(style));
    }
    Some(text)
}

/// The cloud of a provider, as people call it.
pub fn label(provider: &str) -> &'static str {
    if provider == ProviderName::Azure.as_str() { "Azure" } else { "AWS" }
}
