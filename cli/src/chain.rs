//! The chain of one Service, from its class to the pods that serve it: which link is the first that is broken.
//!
//! Every link is looked at by its own evidence, so that one which fails does not hide another; only what has nothing to be
//! looked at is skipped.

mod cloud;
mod controller;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use berth_api::annotations::CLOUD;
use berth_api::condition::types;
use berth_api::names::{CLASS_PREFIX, MOCK_CLASS, POOL_CLASS};
use berth_api::service::{Request, TrafficPolicy, has_finalizer};
use berth_api::{Announcement, Reason};
use berth_provider::class::ProviderName;
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use controller::default_provider;
pub use controller::ready_replicas;

use crate::collect::SERVICE_NAME_LABEL;
use crate::finding::Finding;
use crate::observed::{Seen, Surroundings};
use crate::report::{
    AddressReport, Answers, ConditionReport, Link, LinkName, ServiceReport, State, Unreadable, advice,
};

/// What was found on a link, before it is known which address it is about.
struct Verdict {
    state: State,
    reason: Option<String>,
    message: String,
    advice: Option<String>,
}

impl Verdict {
    fn ok(message: impl Into<String>) -> Self {
        Self { state: State::Ok, reason: None, message: message.into(), advice: None }
    }

    fn skipped(message: impl Into<String>) -> Self {
        Self { state: State::Skipped, reason: None, message: message.into(), advice: None }
    }

    fn unknown(why: &Unreadable) -> Self {
        let message = format!("{} could not be read: {}", why.resource, why.message);
        Self { state: State::Unknown, reason: None, message, advice: None }
    }

    fn broken(finding: Finding, message: impl Into<String>) -> Self {
        Self {
            state: State::Broken,
            reason: Some(finding.as_str().to_owned()),
            message: message.into(),
            advice: Some(finding.description().to_owned()),
        }
    }

    /// What a condition of an object says is wrong.
    fn said(state: State, reason: &str, message: &str) -> Self {
        Self { state, reason: Some(reason.to_owned()), message: message.to_owned(), advice: advice(reason) }
    }

    fn of_condition(condition: &Condition) -> Self {
        if condition.status == "True" {
            let doubtful = [
                Reason::AddressConflict,
                Reason::NotServing,
                // Others route it.
                Reason::RouteTaken,
                Reason::RouteInterfaceMissing,
                Reason::OnLinkAddress,
                Reason::KernelTooOld,
                Reason::RouteFailed,
            ];
            if doubtful.iter().any(|reason| condition.reason == reason.as_str()) {
                return Self::said(State::Warning, &condition.reason, &condition.message);
            }
            return Self { reason: Some(condition.reason.clone()), ..Self::ok(&condition.message) };
        }
        Self::said(State::Broken, &condition.reason, &condition.message)
    }

    fn link(self, link: LinkName, address: Option<IpAddr>) -> Link {
        let Self { state, reason, message, advice } = self;
        Link { name: link, address: address.map(|a| a.to_string()), state, reason, message, advice }
    }
}

/// The surroundings, with what each Service needs at hand.
pub struct Index<'a> {
    around: &'a Surroundings,
    by_address: BTreeMap<IpAddr, &'a Announcement>,
    by_service: BTreeMap<(&'a str, &'a str), Vec<&'a Announcement>>,
    slices: BTreeMap<(&'a str, &'a str), Vec<&'a EndpointSlice>>,
    nodes: BTreeMap<&'a str, &'a Node>,
}

impl<'a> Index<'a> {
    /// Sorts what was read.
    pub fn new(around: &'a Surroundings) -> Self {
        let mut index = Self {
            around,
            by_address: BTreeMap::new(),
            by_service: BTreeMap::new(),
            slices: BTreeMap::new(),
            nodes: BTreeMap::new(),
        };
        for announcement in around.announcements.here().into_iter().flatten() {
            index.by_address.insert(announcement.spec.address, announcement);
            for service in &announcement.spec.services {
                index.by_service.entry((&service.namespace, &service.name)).or_default().push(announcement);
            }
        }
        for slice in around.slices.here().into_iter().flatten() {
            let service = slice.metadata.labels.as_ref().and_then(|labels| labels.get(SERVICE_NAME_LABEL));
            if let (Some(namespace), Some(service)) = (&slice.metadata.namespace, service) {
                index.slices.entry((namespace, service)).or_default().push(slice);
            }
        }
        for node in around.nodes.here().into_iter().flatten() {
            index.nodes.insert(node.metadata.name.as_deref().unwrap_or_default(), node);
        }
        index
    }

    /// The report on one Service.
    pub fn report(&self, service: &Service) -> ServiceReport {
        let view = View::of(service, self);
        let links = view.links();
        let first_broken = links.iter().find(|link| link.state == State::Broken).cloned();
        ServiceReport {
            namespace: view.namespace.to_owned(),
            name: view.name.to_owned(),
            ok: first_broken.is_none(),
            class: view.class().map(str::to_owned),
            allocated: view.condition(types::ALLOCATED).map(condition_report),
            announced: view.condition(types::ANNOUNCED).map(condition_report),
            addresses: view.addresses.iter().map(|address| view.address_report(*address)).collect(),
            first_broken,
            links,
        }
    }

    /// Whether a Service is one that Berth serves, or that Berth should be asked about.
    pub fn concerns(&self, service: &Service) -> bool {
        let view = View::of(service, self);
        let ours = match view.class() {
            Some(class) => class.starts_with(CLASS_PREFIX),
            None => default_provider(&self.around.controller).is_some_and(|provider| provider != "none"),
        };
        view.is_load_balancer() && ours || view.has_our_conditions()
    }
}

/// A condition, for the report.
pub fn condition_report(condition: &Condition) -> ConditionReport {
    let Condition { status, reason, message, .. } = condition.clone();
    ConditionReport { status, reason, message }
}

/// A Service, its addresses, and where to look.
struct View<'a> {
    service: &'a Service,
    index: &'a Index<'a>,
    namespace: &'a str,
    name: &'a str,
    /// In the status.
    ingress: Vec<IpAddr>,
    /// Host names in the status, as some providers publish them in place of addresses.
    hostnames: Vec<&'a str>,
    /// In the status or claimed for it.
    addresses: Vec<IpAddr>,
}

impl<'a> View<'a> {
    fn of(service: &'a Service, index: &'a Index<'a>) -> Self {
        let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
        let name = service.metadata.name.as_deref().unwrap_or_default();
        let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref()?.ingress.as_ref());
        let hostnames = status.into_iter().flatten().filter_map(|entry| entry.hostname.as_deref()).collect();
        let ingress: Vec<IpAddr> =
            status.into_iter().flatten().filter_map(|entry| entry.ip.as_ref()?.parse().ok()).collect();
        let mut addresses = ingress.clone();
        for announcement in index.by_service.get(&(namespace, name)).into_iter().flatten() {
            if is_for(announcement, service) && !addresses.contains(&announcement.spec.address) {
                addresses.push(announcement.spec.address);
            }
        }
        Self { service, index, namespace, name, ingress, hostnames, addresses }
    }

    fn class(&self) -> Option<&'a str> {
        self.service.spec.as_ref().and_then(|spec| spec.load_balancer_class.as_deref())
    }

    fn is_load_balancer(&self) -> bool {
        self.service.spec.as_ref().is_some_and(|spec| spec.type_.as_deref() == Some("LoadBalancer"))
    }

    fn condition(&self, kind: &str) -> Option<&'a Condition> {
        let conditions = self.service.status.as_ref().and_then(|status| status.conditions.as_ref());
        conditions.into_iter().flatten().find(|condition| condition.type_ == kind)
    }

    fn has_our_conditions(&self) -> bool {
        types::OF_SERVICES.iter().any(|kind| self.condition(kind).is_some())
    }

    fn announcement(&self, address: IpAddr) -> Option<&'a Announcement> {
        self.index.by_address.get(&address).copied().filter(|announcement| is_for(announcement, self.service))
    }

    fn links(&self) -> Vec<Link> {
        let class = self.class_link();
        if class.state == State::Broken {
            let rest = [
                LinkName::Request,
                LinkName::Allocated,
                LinkName::Claimed,
                LinkName::Placed,
                LinkName::Answering,
                LinkName::Ingress,
                LinkName::Endpoints,
            ];
            let rest = rest.into_iter().map(|link| Verdict::skipped("the Service is not Berth's").link(link, None));
            return std::iter::once(class.link(LinkName::Class, None)).chain(rest).collect();
        }
        let mut links = vec![
            class.link(LinkName::Class, None),
            self.request_link().link(LinkName::Request, None),
            self.allocated_link().link(LinkName::Allocated, None),
        ];
        self.for_each_address(&mut links, LinkName::Claimed, Self::claimed_link);
        self.for_each_address(&mut links, LinkName::Placed, Self::placed_link);
        self.for_each_address(&mut links, LinkName::Answering, Self::answering_link);
        self.for_each_address(&mut links, LinkName::Ingress, Self::ingress_link);
        if self.addresses.is_empty() {
            links.push(self.endpoints_link(None).link(LinkName::Endpoints, None));
        } else {
            self.for_each_address(&mut links, LinkName::Endpoints, |view, address| view.endpoints_link(Some(address)));
        }
        links
    }

    /// Whether nodes answer for its addresses. Where none do, such as for the mock provider's, the controller says that it allocated
    /// and nothing of announcing.
    fn is_announced_by_nodes(&self) -> bool {
        match self.class() {
            Some(MOCK_CLASS) => false,
            Some(POOL_CLASS) => true,
            _ if self.is_in_a_cloud() => false,
            _ => !(self.is_allocated() && self.condition(types::ANNOUNCED).is_none()),
        }
    }

    fn is_allocated(&self) -> bool {
        self.condition(types::ALLOCATED).is_some_and(|condition| condition.status == "True")
    }

    fn for_each_address(&self, links: &mut Vec<Link>, link: LinkName, look: impl Fn(&Self, IpAddr) -> Verdict) {
        let of_nodes = matches!(link, LinkName::Claimed | LinkName::Placed | LinkName::Answering);
        if of_nodes && !self.is_announced_by_nodes() {
            links.push(self.link_without_nodes(link).link(link, None));
            return;
        }
        if !self.addresses.is_empty() {
            links.extend(self.addresses.iter().map(|address| look(self, *address).link(link, Some(*address))));
            return;
        }
        let allocated = self.is_allocated();
        let verdict = match &self.index.around.announcements {
            _ if link == LinkName::Ingress && !self.hostnames.is_empty() => {
                Verdict::ok(format!("the status names {}", self.hostnames.join(", ")))
            }
            _ if link == LinkName::Ingress && allocated => {
                Verdict::broken(Finding::NotInStatus, "there is no address in the status of the Service")
            }
            Seen::Unreadable(why) => Verdict::unknown(why),
            _ if link == LinkName::Claimed && allocated => {
                Verdict::broken(Finding::NoAnnouncement, "no Announcement names the Service")
            }
            Seen::Here(_) | Seen::KindMissing => Verdict::skipped("there is no address"),
        };
        links.push(verdict.link(link, None));
    }

    fn class_link(&self) -> Verdict {
        if !self.is_load_balancer() {
            let kind = self.service.spec.as_ref().and_then(|spec| spec.type_.as_deref()).unwrap_or("ClusterIP");
            return Verdict::broken(Finding::NotLoadBalancer, format!("the Service is of type {kind}"));
        }
        if self.service.metadata.deletion_timestamp.is_some() {
            // A provider that cannot take away what it made for it says why.
            return match self.condition(types::ALLOCATED).filter(|said| said.status == "False") {
                Some(said) if has_finalizer(&self.service.metadata) => {
                    let message =
                        format!("the Service is being deleted, and something of it is left: {}", said.message);
                    Verdict::said(State::Broken, &said.reason, &message)
                }
                _ => Verdict::broken(Finding::BeingDeleted, "the Service is being deleted"),
            };
        }
        match self.class() {
            Some(class)
                if class.starts_with(CLASS_PREFIX) && !ProviderName::ALL.iter().any(|name| name.class() == class) =>
            {
                Verdict {
                    state: State::Broken,
                    reason: Some(Reason::UnknownClass.as_str().to_owned()),
                    message: format!("loadBalancerClass {class} is none of Berth's"),
                    advice: Some(Reason::UnknownClass.description().to_owned()),
                }
            }
            Some(class) if class.starts_with(CLASS_PREFIX) => match self.switched_off(class) {
                Some(name) => Verdict::broken(
                    Finding::ProviderOff,
                    format!("loadBalancerClass {class}, and the controller runs without the provider {name}"),
                ),
                None => Verdict::ok(format!("loadBalancerClass {class}")),
            },
            Some(class) if self.has_our_conditions() => {
                Verdict::ok(format!("loadBalancerClass {class}, which Berth serves here"))
            }
            Some(class) => Verdict::broken(Finding::OtherClass, format!("loadBalancerClass {class} is not Berth's")),
            None if self.has_our_conditions() => Verdict::ok("no loadBalancerClass; Berth serves such Services here"),
            None => match (default_provider(&self.index.around.controller), &self.index.around.controller) {
                (Some(provider), _) if provider == "none" => Verdict::broken(
                    Finding::NoClass,
                    "the Service has no loadBalancerClass, and the controller runs without a default provider",
                ),
                (Some(provider), _) => {
                    Verdict::ok(format!("no loadBalancerClass; the controller's default provider is {provider}"))
                }
                (None, Seen::Unreadable(why)) => Verdict::unknown(why),
                (None, _) => Verdict::broken(
                    Finding::NoClass,
                    "the Service has no loadBalancerClass, and no controller was found that serves such Services",
                ),
            },
        }
    }

    fn request_link(&self) -> Verdict {
        let also: &[&str] = if self.is_in_a_cloud() { CLOUD } else { &[] };
        match Request::parse_knowing(self.service, also) {
            Ok(_) => Verdict::ok("what it asks for can be read"),
            Err(error) => Verdict::said(State::Broken, error.reason().as_str(), &error.to_string()),
        }
    }

    fn allocated_link(&self) -> Verdict {
        let Some(condition) = self.condition(types::ALLOCATED) else { return self.silent() };
        let behind = self.service.metadata.generation.zip(condition.observed_generation);
        match behind {
            Some((is, seen)) if seen < is => Verdict::broken(
                Finding::Behind,
                format!("the controller spoke about generation {seen}, and the Service is at {is}"),
            ),
            _ => Verdict::of_condition(condition),
        }
    }

    /// Why the controller has said nothing.
    fn silent(&self) -> Verdict {
        let around = self.index.around;
        if matches!(around.announcements, Seen::KindMissing) {
            return Verdict::broken(Finding::NotInstalled, "Berth is not installed in this cluster");
        }
        match &around.controller {
            Seen::Here(None) => {
                Verdict::broken(Finding::ControllerMissing, "the controller has said nothing, and is not there")
            }
            Seen::Here(Some(deployment)) if ready_replicas(deployment) == 0 => Verdict::broken(
                Finding::ControllerNotReady,
                "the controller has said nothing, and no replica of it is ready",
            ),
            _ => Verdict::broken(Finding::NotSeen, "the controller has said nothing about the Service"),
        }
    }

    fn claimed_link(&self, address: IpAddr) -> Verdict {
        match &self.index.around.announcements {
            Seen::Unreadable(why) => return Verdict::unknown(why),
            Seen::KindMissing => {
                return Verdict::broken(Finding::NotInstalled, "Berth is not installed in this cluster");
            }
            Seen::Here(_) => {}
        }
        let Some(announcement) = self.index.by_address.get(&address) else {
            return Verdict::broken(Finding::NoAnnouncement, format!("no Announcement claims {address}"));
        };
        if is_for(announcement, self.service) {
            return Verdict::ok(format!("claimed in pool {}", announcement.spec.pool));
        }
        let holders: Vec<_> =
            announcement.spec.services.iter().map(|holder| format!("{}/{}", holder.namespace, holder.name)).collect();
        let earlier = holders.iter().any(|holder| *holder == format!("{}/{}", self.namespace, self.name));
        let whose = if earlier { "an earlier Service of this name".to_owned() } else { holders.join(", ") };
        Verdict::broken(Finding::AnotherHolder, format!("the Announcement of {address} belongs to {whose}"))
    }

    fn placed_link(&self, address: IpAddr) -> Verdict {
        let announced = self.condition(types::ANNOUNCED);
        if let Some(condition) = announced.filter(|condition| condition.status != "True") {
            return Verdict::of_condition(condition);
        }
        let Some(announcement) = self.announcement(address) else { return self.without_announcement() };
        if !announcement.spec.routes.is_empty() {
            let named = format!("to be routed by {}", routers(announcement));
            return match announced.map(Verdict::of_condition) {
                Some(doubtful) if doubtful.state == State::Warning => {
                    Verdict { message: format!("{named}; {}", doubtful.message), ..doubtful }
                }
                _ => Verdict::ok(named),
            };
        }
        let layer2 = announcement.spec.layer2.as_ref();
        let Some(owner) = layer2.and_then(|layer2| layer2.owner.as_deref()) else {
            return Verdict::broken(Finding::NoOwner, "no node is named to answer");
        };
        let standbys = layer2.map(|layer2| layer2.standbys.join(", ")).filter(|standbys| !standbys.is_empty());
        let standbys = standbys.map_or_else(|| "no standby".to_owned(), |names| format!("standbys {names}"));
        let named = format!("owner {owner}, {standbys}");
        match announced.map(Verdict::of_condition) {
            Some(doubtful) if doubtful.state == State::Warning => {
                Verdict { message: format!("{named}; {}", doubtful.message), ..doubtful }
            }
            _ => Verdict::ok(named),
        }
    }

    fn answering_link(&self, address: IpAddr) -> Verdict {
        let Some(announcement) = self.announcement(address) else { return self.without_announcement() };
        if !announcement.spec.routes.is_empty() {
            // What the kernels of the nodes have, each speaker says where it cannot be, and the condition tells it.
            return match self.condition(types::ANNOUNCED).map(Verdict::of_condition) {
                Some(verdict) if verdict.state == State::Ok => {
                    Verdict::ok("nobody on the link: routing daemons make it known")
                }
                Some(verdict) => verdict,
                None => Verdict::skipped("the controller has not said whether it is routed"),
            };
        }
        let status = announcement.status.as_ref();
        let ready = status.and_then(|status| status.conditions.iter().find(|c| c.type_ == types::READY));
        if let Some(condition) = ready.filter(|condition| condition.status != "True") {
            return Verdict::of_condition(condition);
        }
        let owner = announcement.spec.layer2.as_ref().and_then(|layer2| layer2.owner.as_deref());
        let Some(answers) = status.and_then(|status| status.layer2.as_ref()) else {
            return match owner {
                Some(owner) => Verdict::broken(Finding::NotAnswering, format!("{owner} has not said that it answers")),
                None => Verdict::skipped("no node is named to answer"),
            };
        };
        let whose = match owner {
            Some(owner) if owner != answers.owner => format!(" (the owner that is named is {owner})"),
            _ => String::new(),
        };
        let place = format!("{} answers on {} with {}{whose}", answers.owner, answers.interface, answers.mac);
        if let Seen::Here(_) = &self.index.around.nodes {
            let gone = match self.index.nodes.get(answers.owner.as_str()) {
                None => Some("that node is not there any more"),
                Some(node) if !node_is_ready(node) => Some("that node is not Ready"),
                Some(_) => None,
            };
            if let Some(gone) = gone {
                let message = format!("{place}, by the last that was heard, but {gone}");
                return Verdict { state: State::Warning, ..Verdict::broken(Finding::NodeNotReady, message) };
            }
        }
        match ready.map(Verdict::of_condition) {
            Some(doubtful) if doubtful.state == State::Warning => doubtful,
            found => Verdict { reason: found.and_then(|found| found.reason), ..Verdict::ok(place) },
        }
    }

    fn without_announcement(&self) -> Verdict {
        match &self.index.around.announcements {
            Seen::Unreadable(why) => Verdict::unknown(why),
            Seen::Here(_) | Seen::KindMissing => Verdict::skipped("no Announcement of the address is this Service's"),
        }
    }

    fn ingress_link(&self, address: IpAddr) -> Verdict {
        if self.ingress.contains(&address) {
            Verdict::ok("in the status of the Service")
        } else {
            Verdict::broken(Finding::NotInStatus, format!("{address} is not in the status of the Service"))
        }
    }

    fn endpoints_link(&self, address: Option<IpAddr>) -> Verdict {
        let family = address.map(|address| if address.is_ipv4() { "IPv4" } else { "IPv6" });
        let slices = match &self.index.around.slices {
            Seen::Unreadable(why) => return Verdict::unknown(why),
            Seen::KindMissing => return Verdict::skipped("the API server does not know EndpointSlices"),
            Seen::Here(_) => self.index.slices.get(&(self.namespace, self.name)).into_iter().flatten(),
        };
        let fits = |slice: &&&EndpointSlice| family.is_none_or(|family| slice.address_type == family);
        let endpoints: Vec<_> = slices.filter(fits).flat_map(|slice| &slice.endpoints).collect();
        // Ready unless said otherwise; an endpoint that terminates may still serve (EndpointSlice API).
        let serving: Vec<_> = endpoints
            .iter()
            .filter(|endpoint| {
                endpoint.conditions.as_ref().is_none_or(|c| c.ready.unwrap_or(true) || c.serving == Some(true))
            })
            .collect();
        if serving.is_empty() {
            let kind = family.map(|family| format!(" {family}")).unwrap_or_default();
            let message = match endpoints.len() {
                0 => format!("it has no{kind} endpoint; {}", self.selector()),
                1 => format!("its only{kind} endpoint is not ready"),
                more => format!("none of its {more}{kind} endpoints is ready"),
            };
            return Verdict::broken(Finding::NoEndpoints, message);
        }
        let mut on: BTreeMap<&str, usize> = BTreeMap::new();
        for endpoint in &serving {
            *on.entry(endpoint.node_name.as_deref().unwrap_or("no node")).or_default() += 1;
        }
        let places: Vec<_> = on.iter().map(|(node, count)| format!("{count} on {node}")).collect();
        let found = format!("{} serving: {}", serving.len(), places.join(", "));
        let answering = address
            .and_then(|address| self.announcement(address)?.status.as_ref()?.layer2.as_ref())
            .map(|layer2| layer2.owner.as_str());
        match answering {
            Some(node) if TrafficPolicy::of(self.service) == TrafficPolicy::Local && !on.contains_key(node) => {
                Verdict::broken(Finding::NoEndpointsOnNode, format!("{found}; {node} answers and has none"))
            }
            _ => Verdict::ok(found),
        }
    }

    fn selector(&self) -> String {
        let selector = self.service.spec.as_ref().and_then(|spec| spec.selector.as_ref());
        let parts: Vec<_> = selector.into_iter().flatten().map(|(key, value)| format!("{key}={value}")).collect();
        if parts.is_empty() {
            "it has no selector, so somebody has to write its EndpointSlices".to_owned()
        } else {
            format!("its selector is {}", parts.join(","))
        }
    }

    fn address_report(&self, address: IpAddr) -> AddressReport {
        let announcement = self.announcement(address);
        let layer2 = announcement.and_then(|announcement| announcement.spec.layer2.as_ref());
        let status = announcement.and_then(|announcement| announcement.status.as_ref());
        let withdrawn = status
            .is_some_and(|status| status.conditions.iter().any(|c| c.type_ == types::READY && c.status == "False"));
        let answers = status.and_then(|status| status.layer2.as_ref()).filter(|_| !withdrawn);
        AddressReport {
            address: address.to_string(),
            pool: announcement.map(|announcement| announcement.spec.pool.clone()),
            in_status: self.ingress.contains(&address),
            owner: layer2.and_then(|layer2| layer2.owner.clone()),
            standbys: layer2.map(|layer2| layer2.standbys.clone()).unwrap_or_default(),
            answers: answers.map(|answers| Answers {
                node: answers.owner.clone(),
                interface: answers.interface.clone(),
                mac: answers.mac.to_string(),
                since: answers.since.0,
            }),
        }
    }
}

/// The nodes that are to route an address, each once.
fn routers(announcement: &Announcement) -> String {
    let nodes: BTreeSet<&str> =
        announcement.spec.routes.iter().flat_map(|way| &way.nodes).map(String::as_str).collect();
    nodes.into_iter().collect::<Vec<_>>().join(", ")
}

/// Whether an Announcement names this very Service, and not an earlier one of its name.
fn is_for(announcement: &Announcement, service: &Service) -> bool {
    let meta = &service.metadata;
    announcement.spec.services.iter().any(|holder| {
        Some(&holder.namespace) == meta.namespace.as_ref()
            && Some(&holder.name) == meta.name.as_ref()
            && meta.uid.as_ref().is_none_or(|uid| *uid == holder.uid)
    })
}

fn node_is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

#[cfg(test)]
pub(crate) mod tests;
