//! What `kubectl berth status` says, before it is a table or JSON.
//!
//! The field names are what `-o json` and `-o yaml` promise; a test of the whole output holds them.

use jiff::Timestamp;
use serde::Serialize;

/// The installation and its Services.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// Whether nothing that could be looked at is broken.
    pub ok: bool,
    /// Whether the API server knows Berth's kinds.
    pub installed: bool,
    /// The controller.
    pub controller: ControllerReport,
    /// The speakers.
    pub speakers: SpeakersReport,
    /// The pools, by name.
    pub pools: Vec<PoolReport>,
    /// The advertisements, by name.
    pub advertisements: Vec<AdvertisementReport>,
    /// The Services that are Berth's, by namespace and name.
    pub services: Vec<ServiceReport>,
    /// Services in other namespaces that hold an address and are not listed.
    pub services_elsewhere: usize,
    /// What is broken.
    pub problems: Vec<Problem>,
    /// What could not be looked at.
    pub unreadable: Vec<Unreadable>,
}

/// One Service, and what could not be looked at for it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SingleService {
    /// The Service.
    #[serde(flatten)]
    pub service: ServiceReport,
    /// What could not be looked at.
    pub unreadable: Vec<Unreadable>,
}

/// The controller's Deployment and leader.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ControllerReport {
    /// Whether there is a Deployment; absent when that could not be seen.
    pub found: Option<bool>,
    /// Replicas that are wanted.
    pub replicas: Option<i32>,
    /// Replicas that are ready.
    pub ready: Option<i32>,
    /// The image that they run.
    pub image: Option<String>,
    /// The replica that holds the Lease.
    pub leader: Option<String>,
    /// When it last renewed the Lease.
    pub renewed: Option<Timestamp>,
}

/// The speakers' DaemonSet and what they reported.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SpeakersReport {
    /// Whether there is a DaemonSet; absent when that could not be seen.
    pub found: Option<bool>,
    /// Nodes that a speaker is wanted on, as the DaemonSet counts.
    pub desired: Option<i32>,
    /// Nodes whose speaker is ready, as the DaemonSet counts.
    pub ready: Option<i32>,
    /// Nodes of the cluster; absent when they could not be seen.
    pub nodes: Option<usize>,
    /// Nodes whose speaker has reported.
    pub reported: Option<usize>,
    /// Nodes whose speaker has not, by name.
    pub silent: Vec<String>,
    /// Versions that speakers reported, each once.
    pub versions: Vec<String>,
}

/// An IPAddressPool.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PoolReport {
    /// Its name.
    pub name: String,
    /// Its condition Ready.
    pub ready: Option<ConditionReport>,
    /// Whether it gives addresses to Services that do not name it.
    pub auto_assign: bool,
    /// IPv4 addresses that Services hold.
    #[serde(rename = "assignedIPv4")]
    pub assigned_ipv4: Option<i64>,
    /// IPv4 addresses that are free.
    #[serde(rename = "availableIPv4")]
    pub available_ipv4: Option<i64>,
    /// IPv6 addresses that Services hold.
    #[serde(rename = "assignedIPv6")]
    pub assigned_ipv6: Option<i64>,
    /// IPv6 addresses that are free, or the largest number that fits.
    #[serde(rename = "availableIPv6")]
    pub available_ipv6: Option<i64>,
    /// Its addresses, as written.
    pub addresses: Vec<String>,
}

/// An L2Advertisement.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AdvertisementReport {
    /// Its name.
    pub name: String,
    /// Its condition Ready.
    pub ready: Option<ConditionReport>,
    /// The pools that it names. With none and no selector it covers all.
    pub pools: Vec<String>,
    /// Whether it chooses pools by label, too.
    pub selects_pools: bool,
    /// The interfaces that it names; empty for all.
    pub interfaces: Vec<String>,
}

/// A condition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ConditionReport {
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// Its reason code.
    pub reason: String,
    /// What it says.
    pub message: String,
}

/// A Service and the chain from what it asks for to what serves it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceReport {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Whether no link is broken.
    pub ok: bool,
    /// Its `spec.loadBalancerClass`.
    pub class: Option<String>,
    /// Its condition `berth.dev/Allocated`.
    pub allocated: Option<ConditionReport>,
    /// Its condition `berth.dev/Announced`.
    pub announced: Option<ConditionReport>,
    /// The addresses that it has or that are claimed for it.
    pub addresses: Vec<AddressReport>,
    /// The first link that is broken.
    pub first_broken: Option<Link>,
    /// All links, in order.
    pub links: Vec<Link>,
}

/// An address of a Service.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AddressReport {
    /// The address.
    pub address: String,
    /// The pool that it is from.
    pub pool: Option<String>,
    /// Whether the Service's status has it.
    pub in_status: bool,
    /// The node that is to answer.
    pub owner: Option<String>,
    /// The nodes that take over, in order.
    pub standbys: Vec<String>,
    /// Who answers.
    pub answers: Option<Answers>,
}

/// Who answers for an address.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Answers {
    /// The node.
    pub node: String,
    /// The interface that it answers on.
    pub interface: String,
    /// The Ethernet address that it answers with.
    pub mac: String,
    /// Since when.
    pub since: Timestamp,
}

/// One link of the chain.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Link {
    /// Which.
    pub name: LinkName,
    /// The address that it is about, for a link that each address has.
    pub address: Option<String>,
    /// How it is.
    pub state: State,
    /// Why, as a stable code.
    pub reason: Option<String>,
    /// What was found.
    pub message: String,
    /// What the code means and what to do, where something is to be done.
    pub advice: Option<String>,
}

/// The links, in the order in which each rests on those before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum LinkName {
    /// The Service is of type LoadBalancer, and Berth's.
    Class,
    /// What it asks for can be read.
    Request,
    /// An address was chosen.
    Allocated,
    /// An Announcement claims the address for it.
    Claimed,
    /// A node is named to answer.
    Placed,
    /// A node says that it answers.
    Answering,
    /// The Service's status has the address.
    Ingress,
    /// Pods serve.
    Endpoints,
}

impl LinkName {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Class => "class",
            Self::Request => "request",
            Self::Allocated => "allocated",
            Self::Claimed => "claimed",
            Self::Placed => "placed",
            Self::Answering => "answering",
            Self::Ingress => "ingress",
            Self::Endpoints => "endpoints",
        }
    }
}

/// How a link is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum State {
    /// As it should be.
    Ok,
    /// It works, and is to be looked at.
    Warning,
    /// It does not work.
    Broken,
    /// It could not be looked at.
    Unknown,
    /// A link before it is broken, so there is nothing to look at.
    Skipped,
}

impl State {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Broken => "broken",
            Self::Unknown => "unknown",
            Self::Skipped => "skipped",
        }
    }
}

/// Something that is broken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// What it is about, such as `Service shop/web`.
    pub subject: String,
    /// Why, as a stable code.
    pub reason: String,
    /// What was found.
    pub message: String,
    /// What the code means and what to do.
    pub advice: Option<String>,
}

/// Something that could not be looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Unreadable {
    /// What, such as `announcements.berth.dev`.
    pub resource: String,
    /// Why, in the words of the API server.
    pub message: String,
}

/// What a reason code of an object means and what to do, as far as this version knows it.
pub fn advice(reason: &str) -> Option<String> {
    let known = berth_api::Reason::ALL.iter().find(|known| known.as_str() == reason);
    known.map(|known| known.description().to_owned())
}
