//! What becomes of the Services of the AWS provider: its own planner, against what somebody wrote down of the cloud, or without any cloud.

pub mod render;
pub mod report;

use std::collections::{BTreeMap, BTreeSet};

use berth_api::Reason;
use berth_api::condition::types;
use berth_api::service::ServiceKey;
use berth_aws::flags::Flags;
use berth_aws::outlook::{self, Outlook};
use berth_aws::snapshot::{Snapshot, SnapshotError};
use berth_aws::step::Step;
use berth_pool::forecast::{self, places};
use berth_provider::class::{Classes, ProviderName, Served};
use berth_provider::{Outcome, PlannedStep};

use super::cloud::{Asked, Fate, KUBE_SYSTEM, gone, note_of_node_ports};
use super::files::Source;
use super::objects::{Objects, is_planned};
use super::report::ChangeWord;

/// Stands for what no flag, cluster or snapshot tells.
const CLUSTER_UNKNOWN: &str = "<name of the cluster>";
const VPC_UNKNOWN: &str = "<VPC of the nodes>";
const UID_UNKNOWN: &str = "<UID of kube-system>";

/// What is known of the cloud.
#[derive(Clone, Debug, Default)]
pub struct Cloud {
    /// What the controller is told by flags.
    pub flags: Flags,
    /// What somebody wrote down.
    pub snapshot: Option<Snapshot>,
}

/// Why it cannot be planned.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AwsError {
    /// A snapshot cannot be read.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// It is not known which VPC is meant.
    #[error("the snapshot is of several VPCs, {0}: give --aws-vpc-id, as the controller has it")]
    Vpcs(String),
}

impl Cloud {
    /// What texts say of it.
    pub fn read(flags: Flags, texts: Vec<Source>) -> Result<Self, AwsError> {
        let texts: Vec<_> = texts.into_iter().map(|text| (text.name, text.text)).collect();
        let snapshot = if texts.is_empty() { None } else { Some(Snapshot::read(&texts)?) };
        Ok(Self { flags, snapshot })
    }
}

/// What becomes of all of them.
#[derive(Default)]
pub struct Forecast {
    /// By Service.
    pub fates: BTreeMap<ServiceKey, Fate>,
    /// What the provider says of each Service.
    pub outcomes: BTreeMap<ServiceKey, Outcome>,
    /// What is done in the cloud.
    pub outlooks: Vec<Outlook>,
    /// Services of which the API server still has to choose node ports.
    pub without_node_ports: BTreeSet<ServiceKey>,
}

/// Plans them. What could not be known is said in `notes`.
pub fn forecast(
    objects: &Objects,
    before: &BTreeMap<ServiceKey, Vec<String>>,
    classes: &Classes,
    cloud: &Cloud,
    notes: &mut Vec<String>,
) -> Result<Forecast, AwsError> {
    let asked = Asked::of(ProviderName::Aws, objects, before, classes);
    let nothing = asked.is_empty();
    let Asked { present, leaving, fates, outcomes, without_node_ports } = asked;
    let mut found = Forecast { fates, outcomes, without_node_ports, ..Forecast::default() };
    if nothing {
        return Ok(found);
    }
    let (settings, names_are_known) = settings(objects, cloud, notes)?;
    found.outlooks = outlook::forecast(&settings, cloud.snapshot.as_ref(), present, leaving);
    for outlook in &found.outlooks {
        for key in &outlook.services {
            let before = before.get(key).map(Vec::as_slice).unwrap_or_default();
            let served = objects.service(key).map(|service| classes.of(service));
            match outlook.outcomes.get(key) {
                Some(outcome) => {
                    let looked = cloud.snapshot.as_ref().is_some_and(Snapshot::knows_load_balancers);
                    found.fates.insert(key.clone(), fate(outlook, key, outcome, before, looked));
                    found.outcomes.insert(key.clone(), outcome.clone());
                }
                // Where another provider serves it from now on, that one says what becomes of it.
                None if !before.is_empty() && !matches!(served, Some(Served::By(_))) => {
                    found.fates.insert(key.clone(), gone(ProviderName::Aws, "AWS", outlook.steps.len()));
                }
                None => {}
            }
        }
    }
    found.note_what_is_unknown(cloud, names_are_known, notes);
    Ok(found)
}

impl Forecast {
    fn note_what_is_unknown(&self, cloud: &Cloud, names_are_known: bool, notes: &mut Vec<String>) {
        match &cloud.snapshot {
            None => notes.push(
                "note: AWS was not looked at, so all is planned as if nothing were there: give --observed FILE, with what the AWS CLI prints, \
                 to plan against what is"
                    .to_owned(),
            ),
            Some(snapshot) => {
                notes.extend(snapshot.lacks().iter().map(|lack| format!("warning: the snapshot has {lack}")));
            }
        }
        let makes = |planned: &&PlannedStep<Step>| {
            matches!(planned.step, Step::CreateLoadBalancer { .. } | Step::CreateTargetGroup(_))
        };
        let made = self.outlooks.iter().flat_map(|outlook| &outlook.steps).filter(makes);
        let made_for: BTreeSet<_> = made.flat_map(|planned| &planned.services).collect();
        let unborn = made_for.iter().filter(|id| is_planned(&id.uid)).map(|id| id.key.to_string());
        let cluster = (!names_are_known).then(|| "the cluster (the namespace kube-system)".to_owned());
        let unknown: Vec<_> = cluster.into_iter().chain(unborn).collect();
        if !made_for.is_empty() && !unknown.is_empty() {
            notes.push(format!(
                "note: names that Berth makes end in ten digits that follow from UIDs. Those of {} are not known here, so the digits will be others",
                unknown.join(", ")
            ));
        }
        let uses = |key: &&ServiceKey| {
            self.outlooks.iter().any(|outlook| outlook.services.contains(*key) && render::shows_node_ports(outlook))
        };
        let keys: Vec<_> = self.without_node_ports.iter().filter(uses).map(ToString::to_string).collect();
        notes.extend(note_of_node_ports(&keys));
    }
}

/// What an operator says, and whether the names are known that follow from the cluster's UID.
fn settings(
    objects: &Objects,
    cloud: &Cloud,
    notes: &mut Vec<String>,
) -> Result<(berth_aws::Settings, bool), AwsError> {
    let Cloud { flags, snapshot } = cloud;
    let seen = snapshot.as_ref().and_then(Snapshot::cluster);
    let name = flags.cluster_name.as_deref().or(seen).unwrap_or(CLUSTER_UNKNOWN);
    if flags.cluster_name.is_none() && snapshot.is_some() {
        notes.push(match seen {
            Some(name) => format!("note: the cluster is taken to be {name}, because all that is tagged for one is: --aws-cluster-name says it"),
            None => "warning: the name of the cluster is not known, so neither is what in the snapshot is its own: give --aws-cluster-name, as \
                     the controller has it"
                .to_owned(),
        });
    }
    let vpcs = snapshot.as_ref().map(Snapshot::vpcs).unwrap_or_default();
    let vpc = match (&flags.vpc_id, vpcs.len()) {
        (Some(vpc), _) => vpc.as_str(),
        (None, 0 | 1) => vpcs.first().copied().unwrap_or(VPC_UNKNOWN),
        (None, _) => return Err(AwsError::Vpcs(vpcs.into_iter().collect::<Vec<_>>().join(", "))),
    };
    let uid = objects.namespace_uid(KUBE_SYSTEM).or_else(|| snapshot.as_ref()?.cluster_uid(name));
    if uid.is_none() && snapshot.is_some() {
        notes.push(format!(
            "note: nothing in the snapshot is this cluster's: no tag says {}={name} with one UID, and the namespace {KUBE_SYSTEM} is not in the files",
            berth_aws::tags::CLUSTER
        ));
    }
    Ok((flags.settings(name, uid.unwrap_or(UID_UNKNOWN), vpc), uid.is_some()))
}

fn fate(outlook: &Outlook, key: &ServiceKey, outcome: &Outcome, before: &[String], looked: bool) -> Fate {
    let said = outcome.conditions.iter().find(|condition| condition.kind == types::ALLOCATED);
    let (reason, mut message) = said.map_or_else(
        || (Reason::Provisioning, String::new()),
        |condition| (condition.reason, condition.message.clone()),
    );
    let of_it = |planned: &&PlannedStep<Step>| planned.services.iter().any(|id| id.key == *key);
    let steps = outlook.steps.iter().filter(of_it).count();
    let makes = outlook.steps.iter().filter(of_it).find_map(|planned| match &planned.step {
        Step::CreateLoadBalancer { new, .. } => Some(new.name.as_str()),
        _ => None,
    });
    if let Some(name) = makes {
        let (change, after) = match (before.is_empty(), looked) {
            (true, _) => (ChangeWord::Gain, Vec::new()),
            (false, true) => (ChangeWord::Move, Vec::new()),
            (false, false) => (ChangeWord::Keep, before.to_vec()),
        };
        let message = match change {
            ChangeWord::Gain => format!("the load balancer {name} is made; AWS gives the name that it is reached by"),
            ChangeWord::Move => {
                format!(
                    "the load balancer {name} takes the place of what the Service is reached by, under another name in DNS"
                )
            }
            _ => format!(
                "it is reached by {} already, and AWS was not looked at; the steps are those that make it anew",
                before.join(", ")
            ),
        };
        return Fate { provider: ProviderName::Aws, after, change, reason, message };
    }
    let refused = !outcome.met && reason != Reason::Provisioning;
    let after = if refused { before.to_vec() } else { places(&outcome.ingress) };
    let change = match forecast::Outlook::of(before, &after) {
        forecast::Outlook::Keep => ChangeWord::Keep,
        forecast::Outlook::Gain => ChangeWord::Gain,
        forecast::Outlook::Lose => ChangeWord::Lose,
        forecast::Outlook::Move => ChangeWord::Move,
        forecast::Outlook::Pending => ChangeWord::Pending,
    };
    if steps > 0 && !refused {
        let count = if steps == 1 { "1 step changes".to_owned() } else { format!("{steps} steps change") };
        message = format!("{message}; {count} what is there");
    }
    Fate { provider: ProviderName::Aws, after, change, reason, message }
}

#[cfg(test)]
mod tests;
