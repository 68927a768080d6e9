//! What becomes of the Services of the Azure provider: its own planner, against what somebody wrote down of the cloud, or without any cloud.

use std::collections::{BTreeMap, BTreeSet};

use berth_api::Reason;
use berth_api::condition::types;
use berth_api::service::ServiceKey;
use berth_azure::Settings;
use berth_azure::config::{AzureJson, ConfigError};
use berth_azure::difference::{self, Difference};
use berth_azure::flags::Flags;
use berth_azure::outlook::{self, Foreseen, Outlook};
use berth_azure::snapshot::{Snapshot, SnapshotError};
use berth_azure::step::Step;
use berth_azure::tags;
use berth_pool::forecast::{self, places};
use berth_provider::Outcome;
use berth_provider::class::{Classes, ProviderName};

use super::cloud::{Asked, Change, Fate, KUBE_SYSTEM, PORT_UNKNOWN, Row, gone, interrupts, note_of_node_ports};
use super::files::Source;
use super::objects::{Objects, is_planned};
use super::report::{ChangeWord, PlannedCall, PlannedDifference, PlannedLoadBalancer};

/// Stands for what no flag, file, cluster or snapshot tells.
const CLUSTER_UNKNOWN: &str = "<name of the cluster>";
const UID_UNKNOWN: &str = "<UID of kube-system>";
const SUBSCRIPTION_UNKNOWN: &str = "<subscription>";
const GROUP_UNKNOWN: &str = "<resource group>";
const LOCATION_UNKNOWN: &str = "<location>";
const NETWORK_UNKNOWN: &str = "<network of the nodes>";
const SUBNET_UNKNOWN: &str = "<subnet of the nodes>";
const SECURITY_GROUP_UNKNOWN: &str = "<security group of the nodes>";
/// The shard that everything is in.
const SHARD: &str = "azure";

/// What is known of the cloud.
#[derive(Clone, Debug, Default)]
pub struct Cloud {
    /// What the controller is told by flags.
    pub flags: Flags,
    /// What `azure.json` says, where it was named.
    pub config: Option<AzureJson>,
    /// What somebody wrote down.
    pub snapshot: Option<Snapshot>,
}

/// Why it cannot be planned.
#[derive(Debug, thiserror::Error)]
pub enum AzureError {
    /// A snapshot cannot be read.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// `azure.json` cannot be gone by.
    #[error("{0}: {1}")]
    Config(String, ConfigError),
}

impl Cloud {
    /// What texts say of it; `config` is that of `azure.json`.
    pub fn read(flags: Flags, config: Option<Source>, texts: Vec<Source>) -> Result<Self, AzureError> {
        let texts: Vec<_> = texts.into_iter().map(|text| (text.name, text.text)).collect();
        let snapshot = if texts.is_empty() { None } else { Some(Snapshot::read(&texts)?) };
        let config =
            config.map(|file| AzureJson::parse(&file.text).map_err(|error| AzureError::Config(file.name, error)));
        Ok(Self { flags, config: config.transpose()?, snapshot })
    }

    /// Where things are: as the file says, else as the snapshot shows where it shows one place alone.
    fn whereabouts(&self, cluster: &str) -> (AzureJson, bool) {
        if let Some(config) = &self.config {
            return (config.clone(), true);
        }
        let nothing = Snapshot::default();
        let seen = self.snapshot.as_ref().unwrap_or(&nothing);
        let [subscription, group, location] = seen.whereabouts();
        let or = |found: Option<&str>, unknown: &str| found.unwrap_or(unknown).to_owned();
        let (network, security_group) = (seen.only("virtualNetworks"), seen.only("networkSecurityGroups"));
        let subnet = network.as_ref().and_then(|network| seen.only_subnet(network));
        let known = [subscription, group, location, subnet].iter().all(Option::is_some) && security_group.is_some();
        let config = AzureJson {
            subscription_id: or(subscription, SUBSCRIPTION_UNKNOWN),
            resource_group: or(group, GROUP_UNKNOWN),
            location: or(location, LOCATION_UNKNOWN),
            vnet_name: or(network.as_ref().map(|place| place.name.as_str()), NETWORK_UNKNOWN),
            vnet_resource_group: network.as_ref().map(|place| place.group.clone()).unwrap_or_default(),
            subnet_name: or(subnet, SUBNET_UNKNOWN),
            security_group_name: or(security_group.as_ref().map(|place| place.name.as_str()), SECURITY_GROUP_UNKNOWN),
            security_group_resource_group: security_group.map(|place| place.group).unwrap_or_default(),
            load_balancer_name: cluster.to_owned(),
            ..AzureJson::default()
        };
        (config, known)
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
    pub planned: Option<PlannedLoadBalancer>,
}

/// Plans them. What could not be known is said in `notes`.
pub fn forecast(
    objects: &Objects,
    before: &BTreeMap<ServiceKey, Vec<String>>,
    classes: &Classes,
    cloud: &Cloud,
    notes: &mut Vec<String>,
) -> Result<Forecast, AzureError> {
    let asked = Asked::of(ProviderName::Azure, objects, before, classes);
    let nothing = asked.is_empty();
    let Asked { present, leaving, fates, outcomes, without_node_ports } = asked;
    let mut found = Forecast { fates, outcomes, planned: None };
    if nothing {
        return Ok(found);
    }
    let settings = settings(objects, cloud, notes)?;
    let outlook = outlook::forecast(&settings, cloud.snapshot.as_ref(), present, leaving, is_planned);
    for key in &outlook.services {
        let before = before.get(key).map(Vec::as_slice).unwrap_or_default();
        match outlook.outcomes.get(key) {
            Some(outcome) => {
                let fate = fate(&outlook, key, outcome, before, cloud.snapshot.is_some());
                found.fates.insert(key.clone(), fate);
                found.outcomes.insert(key.clone(), outcome.clone());
            }
            // Where another provider serves it from now on, that one says what becomes of it.
            None if !before.is_empty() && !is_served(objects, classes, key) => {
                found.fates.insert(key.clone(), gone(ProviderName::Azure, "Azure", steps_for(&outlook, key)));
            }
            None => {}
        }
    }
    note_what_is_unknown(&outlook, &without_node_ports, notes);
    found.planned = (!outlook.steps.is_empty()).then(|| planned(&outlook));
    Ok(found)
}

fn is_served(objects: &Objects, classes: &Classes, key: &ServiceKey) -> bool {
    objects.service(key).is_some_and(|service| matches!(classes.of(service), berth_provider::class::Served::By(_)))
}

fn steps_for(outlook: &Outlook, key: &ServiceKey) -> usize {
    let of_it = |foreseen: &&Foreseen| foreseen.planned.services.iter().any(|id| id.key == *key);
    outlook.steps.iter().filter(of_it).count()
}

/// What an operator says.
fn settings(objects: &Objects, cloud: &Cloud, notes: &mut Vec<String>) -> Result<Settings, AzureError> {
    let snapshot = cloud.snapshot.as_ref();
    let seen = snapshot.and_then(Snapshot::cluster);
    let name = cloud.flags.cluster_name.as_deref().or(seen).unwrap_or(CLUSTER_UNKNOWN);
    if cloud.flags.cluster_name.is_none() && snapshot.is_some() {
        notes.push(match seen {
            Some(name) => format!(
                "note: the cluster is taken to be {name}, because all that has Berth's tags is one's: --azure-cluster-name says it"
            ),
            None => "warning: the name of the cluster is not known, so neither is what in the snapshot is its own: give --azure-cluster-name, \
                     as the controller has it"
                .to_owned(),
        });
    }
    let (config, known) = cloud.whereabouts(name);
    if !known {
        notes.push(format!(
            "{}: where things are in Azure is not known: give --azure-config FILE, with the azure.json that the controller has",
            if snapshot.is_some() { "warning" } else { "note" }
        ));
    }
    let uid = objects.namespace_uid(KUBE_SYSTEM).or_else(|| snapshot?.cluster_uid(name));
    if uid.is_none() && snapshot.is_some() {
        notes.push(format!(
            "note: no public IP or load balancer in the snapshot is this cluster's: no tags say {}={name} and one {}, and the namespace \
             {KUBE_SYSTEM} is not in the files",
            tags::CLUSTER,
            tags::CLUSTER_UID
        ));
    }
    let settings = cloud.flags.settings(&config, name, uid.unwrap_or(UID_UNKNOWN));
    let settings = settings.map_err(|error| AzureError::Config("--azure-config".to_owned(), error))?;
    match snapshot {
        None => notes.push(
            "note: Azure was not looked at, so all is planned as if nothing were there: give --observed FILE, with what `az` prints, to plan \
             against what is"
                .to_owned(),
        ),
        Some(snapshot) => {
            notes.extend(snapshot.lacks(&settings).iter().map(|lack| format!("warning: the snapshot has {lack}")));
        }
    }
    Ok(settings)
}

fn note_what_is_unknown(outlook: &Outlook, without_node_ports: &BTreeSet<ServiceKey>, notes: &mut Vec<String>) {
    if !outlook.unborn.is_empty() {
        let keys: Vec<_> = outlook.unborn.iter().map(ToString::to_string).collect();
        notes.push(format!(
            "note: names of parts begin with `a` and the UID of their Service. Those of {} have none yet: their names stand there instead",
            keys.join(", ")
        ));
    }
    let shows =
        outlook.steps.iter().flat_map(|foreseen| &foreseen.differences).any(|d| d.detail.contains("<node port>"));
    let keys: Vec<_> =
        without_node_ports.iter().filter(|key| steps_for(outlook, key) > 0).map(ToString::to_string).collect();
    if shows {
        notes.extend(note_of_node_ports(&keys));
    }
    if !outlook.by_node.is_empty() {
        let keys: Vec<_> = outlook.by_node.iter().map(ToString::to_string).collect();
        notes.push(format!(
            "note: security rules of {} are for the addresses of nodes, which follow the backend pool: of a pool that is not filled yet there \
             are none in the plan",
            keys.join(", ")
        ));
    }
    if outlook.endless {
        notes.push("warning: planning did not come to an end; the steps are those of the first rounds".to_owned());
    }
}

fn fate(outlook: &Outlook, key: &ServiceKey, outcome: &Outcome, before: &[String], looked: bool) -> Fate {
    let said = outcome.conditions.iter().find(|condition| condition.kind == types::ALLOCATED);
    let (reason, mut message) = said.map_or_else(
        || (Reason::Provisioning, String::new()),
        |condition| (condition.reason, condition.message.clone()),
    );
    let provider = ProviderName::Azure;
    let is_given = |place: &String| place.parse().is_ok_and(|address| outlook.given.contains_key(&address));
    let all = places(&outcome.ingress);
    let steps = steps_for(outlook, key);
    if outcome.met && all.iter().any(is_given) {
        let known: Vec<_> = all.into_iter().filter(|place| !is_given(place)).collect();
        let (change, after) = match (before.is_empty(), looked) {
            (true, _) => (ChangeWord::Gain, known),
            (false, true) => (ChangeWord::Move, known),
            (false, false) => (ChangeWord::Keep, before.to_vec()),
        };
        // Nobody knows that it is granted.
        let reason = if change == ChangeWord::Keep { Reason::Provisioning } else { reason };
        let message = match change {
            ChangeWord::Keep => format!(
                "it is reached by {} already, and Azure was not looked at; the steps are those that make it anew",
                before.join(", ")
            ),
            _ => format!("{message}; Azure gives the address"),
        };
        return Fate { provider, after, change, reason, message };
    }
    let after = if outcome.met { all } else { before.to_vec() };
    let change = match forecast::Outlook::of(before, &after) {
        forecast::Outlook::Keep => ChangeWord::Keep,
        forecast::Outlook::Gain => ChangeWord::Gain,
        forecast::Outlook::Lose => ChangeWord::Lose,
        forecast::Outlook::Move => ChangeWord::Move,
        forecast::Outlook::Pending => ChangeWord::Pending,
    };
    if steps > 0 && outcome.met {
        let count = if steps == 1 { "1 step changes".to_owned() } else { format!("{steps} steps change") };
        message = format!("{message}; {count} what is there");
    }
    Fate { provider, after, change, reason, message }
}

/// What is said of the cloud.
fn planned(outlook: &Outlook) -> PlannedLoadBalancer {
    let mut rows = Vec::new();
    let steps = outlook.steps.iter().map(|foreseen| {
        let first = rows.len();
        rows.extend(foreseen.differences.iter().map(row));
        if foreseen.planned.disruptive {
            interrupts(&mut rows[first..]);
        }
        call(foreseen)
    });
    let steps: Vec<_> = steps.collect();
    let services: BTreeSet<&String> = steps.iter().flat_map(|call| &call.services).collect();
    PlannedLoadBalancer {
        provider: ProviderName::Azure.to_string(),
        shard: SHARD.to_owned(),
        services: services.into_iter().cloned().collect(),
        steps,
        replaced: Vec::new(),
        subnets: Vec::new(),
        rows,
    }
}

fn row(difference: &Difference) -> Row {
    let change = match difference.change {
        difference::Change::Create => Change::Create,
        difference::Change::Change => Change::Alter,
        difference::Change::Delete => Change::Delete,
    };
    let (name, detail) = (difference.name.clone(), difference.detail.clone());
    Row { change, resource: difference.resource(), name, detail }
}

fn call(foreseen: &Foreseen) -> PlannedCall {
    let Foreseen { round, planned, differences } = foreseen;
    PlannedCall {
        services: planned.services.iter().map(|id| id.key.to_string()).collect(),
        disruptive: planned.disruptive,
        round: Some(*round),
        differences: differences
            .iter()
            .map(|difference| PlannedDifference {
                change: difference.change.as_str().to_owned(),
                kind: difference.kind.to_owned(),
                name: difference.name.clone(),
                detail: difference.detail.clone(),
            })
            .collect(),
        request: request(&planned.step),
    }
}

/// What is asked of ARM.
fn request(step: &Step) -> serde_json::Value {
    match step {
        Step::Put { kind, id, if_match, body, .. } => {
            let request = serde_json::json!({"method": "PUT", "type": kind, "id": id, "body": body});
            conditional(request, if_match.as_deref())
        }
        Step::Delete { kind, id, if_match } => {
            conditional(serde_json::json!({"method": "DELETE", "type": kind, "id": id}), if_match.as_deref())
        }
        Step::Wait { kind, id, .. } => serde_json::json!({"method": "GET", "type": kind, "id": id}),
    }
}

fn conditional(mut request: serde_json::Value, if_match: Option<&str>) -> serde_json::Value {
    if let Some(etag) = if_match {
        request["ifMatch"] = etag.into();
    }
    request
}

// Both stand for what the API server chooses.
const _: () = assert!(PORT_UNKNOWN == difference::PORT_UNKNOWN);

#[cfg(test)]
mod tests;
