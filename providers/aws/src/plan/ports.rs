//! Listeners and target groups.

use std::collections::{BTreeMap, BTreeSet};

use berth_provider::{PlannedStep, ServiceId};

use super::{Shard, Steps};
use crate::cloud::{HealthCheck, ListenerSettings, Pairs, Protocol};
use crate::intent::Asks;
use crate::model::{self, LoadBalancerModel, PortModel};
use crate::observed::{Observed, SeenListener, SeenLoadBalancer, SeenTargetGroup};
use crate::refusal::Refusal;
use crate::step::{ListenerStep, Step, Tagged};
use crate::tags::{self, Resource};

/// Steps for ports, by when they are done.
#[derive(Default)]
pub(super) struct PortSteps {
    /// Before the load balancer.
    pub groups: Vec<PlannedStep<Step>>,
    /// Before it is changed: what goes, and what is UDP no more, which a dual-stack one cannot have (AWS rule).
    pub makes_room: Vec<PlannedStep<Step>>,
    /// After it.
    pub listeners: Vec<PlannedStep<Step>>,
    /// Target groups that listeners go on using until the ones in their places have targets.
    pub keeps: BTreeSet<String>,
    /// What Services wait for.
    pub waits: BTreeMap<ServiceId, String>,
}

/// The pairs that are not there so.
pub(super) fn differing(wanted: &Pairs, seen: &Pairs) -> Pairs {
    wanted.iter().filter(|(key, value)| seen.get(*key) != Some(value)).map(|(k, v)| (k.clone(), v.clone())).collect()
}

/// TLS is TCP to who is spoken to.
fn transport(protocol: Protocol) -> Protocol {
    if protocol == Protocol::Tls { Protocol::Tcp } else { protocol }
}

fn is_udp(protocol: Protocol) -> bool {
    matches!(protocol, Protocol::Udp | Protocol::TcpUdp)
}

impl Shard<'_> {
    /// Whether a target group that clients are served by would be replaced, without the consent for that.
    pub(super) fn needs_consent(&self, current: &SeenLoadBalancer, digest: &str, asks: &Asks) -> Option<Refusal> {
        if asks.allow_replacement {
            return None;
        }
        asks.ports.iter().find_map(|(number, port)| {
            let wanted = model::port(self.settings, self.holder, asks, digest, *number, port).target_group;
            let used = self.used_by(current.listeners.get(number)?)?;
            let same_transport = transport(used.is.protocol) == transport(wanted.protocol);
            if used.is.name == wanted.name || !same_transport {
                return None;
            }
            let (old, name) = (&used.is, &used.is.name);
            let what = format!(
                "the target group {name} of port {number} would be replaced: it is of {} {}, and to be of {} {} targets of {}",
                old.target_type, old.protocol, wanted.target_type, wanted.protocol, wanted.ip_address_type
            );
            Some(Refusal::Replacement { what })
        })
    }

    fn used_by(&self, listener: &SeenListener) -> Option<&SeenTargetGroup> {
        self.observed.target_groups.iter().find(|seen| seen.is.arn == listener.is.settings.target_group_arn)
    }

    pub(super) fn ports(
        &self,
        current: Option<&SeenLoadBalancer>,
        model: &LoadBalancerModel,
        ports: &BTreeMap<u16, PortModel>,
    ) -> PortSteps {
        let mut all = PortSteps::default();
        let load_balancer = current.map_or(&model.name, |current| &current.is.name);
        for (number, port) in ports {
            let mut groups = Steps::of(vec![port.service.clone()]);
            self.target_group(port, &mut groups);
            all.groups.append(&mut groups.steps);
            let seen = current.and_then(|current| current.listeners.get(number));
            // One of a Service that leaves is removed by this plan.
            let seen = seen.filter(|seen| tags::service(&seen.tags).is_some_and(|by| by.uid == port.service.uid));
            let mut listeners = Steps::of(vec![port.service.clone()]);
            self.listener(load_balancer, *number, port, seen, &mut listeners, &mut all);
            let was_udp = seen.is_some_and(|seen| is_udp(seen.is.settings.protocol)) && !is_udp(port.protocol);
            if was_udp { &mut all.makes_room } else { &mut all.listeners }.append(&mut listeners.steps);
            self.wait_for_the_other(current, *number, port, &mut all);
        }
        // Listeners of these Services that are wanted no more.
        for (number, seen) in current.iter().flat_map(|current| &current.listeners) {
            let Some(by) = tags::service(&seen.tags) else { continue };
            let is_served = ports.values().any(|port| port.service.uid == by.uid);
            if is_served && ports.get(number).is_none_or(|port| port.service.uid != by.uid) {
                let step = Step::DeleteListener { load_balancer: load_balancer.clone(), port: *number };
                all.makes_room.push(PlannedStep::of(&by, step));
            }
        }
        all
    }

    fn target_group(&self, port: &PortModel, steps: &mut Steps) {
        let wanted = &port.target_group;
        let target_group = wanted.name.clone();
        let Some(seen) = self.observed.target_group(&wanted.name) else {
            steps.push(Step::CreateTargetGroup(wanted.clone()));
            if !port.target_attributes.is_empty() {
                let attributes = port.target_attributes.clone();
                steps.push(Step::ModifyTargetGroupAttributes { target_group, attributes });
            }
            return;
        };
        if !is_same_check(&wanted.health_check, &seen.is.health_check) {
            let (target_group, health_check) = (target_group.clone(), wanted.health_check.clone());
            steps.push(Step::ModifyTargetGroup { target_group, health_check });
        }
        let attributes = differing(&port.target_attributes, &seen.attributes);
        if !attributes.is_empty() {
            steps.push(Step::ModifyTargetGroupAttributes { target_group: target_group.clone(), attributes });
        }
        self.retag(Tagged::TargetGroup(target_group), &wanted.tags, &seen.tags, steps);
    }

    fn listener(
        &self,
        load_balancer: &str,
        number: u16,
        port: &PortModel,
        seen: Option<&SeenListener>,
        steps: &mut Steps,
        all: &mut PortSteps,
    ) {
        let listener = ListenerStep {
            load_balancer: load_balancer.to_owned(),
            port: number,
            protocol: port.protocol,
            target_group: port.target_group.name.clone(),
            tls: port.tls.clone(),
        };
        let extra = port.tls.iter().flat_map(|tls| tls.certificates.iter().skip(1)).cloned();
        let extra: BTreeSet<String> = extra.collect();
        let load_balancer = load_balancer.to_owned();
        let Some(seen) = seen else {
            steps.push(Step::CreateListener { listener, tags: port.tags.clone() });
            if !extra.is_empty() {
                let certificates = extra;
                steps.push(Step::AddListenerCertificates {
                    load_balancer: load_balancer.clone(),
                    port: number,
                    certificates,
                });
            }
            if !port.attributes.is_empty() {
                let attributes = port.attributes.clone();
                steps.push(Step::ModifyListenerAttributes { load_balancer, port: number, attributes });
            }
            return;
        };
        let wanted_group = self.observed.target_group(&port.target_group.name);
        let used = self.used_by(seen);
        let moves = used.map(|used| &used.is.name) != Some(&port.target_group.name);
        let same_transport =
            used.is_some_and(|used| transport(used.is.protocol) == transport(port.target_group.protocol));
        // The one in its place first has targets, unless there was nothing to keep.
        let has_targets = wanted_group.and_then(|group| group.targets).is_some_and(|targets| targets.registered > 0);
        let had_none = used.and_then(|used| used.targets).is_some_and(|targets| targets.registered == 0);
        let waits = moves && same_transport && !(wanted_group.is_some() && (has_targets || had_none));
        if let Some(used) = used.filter(|_| waits) {
            all.keeps.insert(used.is.name.clone());
            let message = format!("port {number} moves to another target group as soon as that has targets");
            all.waits.insert(port.service.clone(), message);
        } else if moves || differs(port, &seen.is.settings) {
            let step = Step::ModifyListener(listener);
            steps.push_if_disruptive(step, moves || seen.is.settings.protocol != port.protocol);
        }
        // Those of a listener that ends TLS no more go with its protocol.
        if port.protocol == Protocol::Tls {
            let certificates: BTreeSet<_> = extra.difference(&seen.certificates).cloned().collect();
            if !certificates.is_empty() {
                let load_balancer = load_balancer.clone();
                steps.push(Step::AddListenerCertificates { load_balancer, port: number, certificates });
            }
            let certificates: BTreeSet<_> = seen.certificates.difference(&extra).cloned().collect();
            if !certificates.is_empty() {
                let load_balancer = load_balancer.clone();
                steps.push(Step::RemoveListenerCertificates { load_balancer, port: number, certificates });
            }
        }
        let attributes = differing(&port.attributes, &seen.attributes);
        if !attributes.is_empty() {
            let load_balancer = load_balancer.clone();
            steps.push(Step::ModifyListenerAttributes { load_balancer, port: number, attributes });
        }
        self.retag(Tagged::Listener(load_balancer, number), &port.tags, &seen.tags, steps);
    }

    /// A load balancer that is to take another's place is not published before its target groups have healthy targets where the other's have some.
    fn wait_for_the_other(
        &self,
        current: Option<&SeenLoadBalancer>,
        number: u16,
        port: &PortModel,
        all: &mut PortSteps,
    ) {
        let Some(current) = current else { return };
        let mut others = self.mine().filter(|seen| seen.is.arn != current.is.arn);
        let had = others.any(|other| {
            let used = other.listeners.get(&number).and_then(|listener| self.used_by(listener));
            used.and_then(|used| used.targets).is_some_and(|targets| targets.healthy > 0)
        });
        let has = self.observed.target_group(&port.target_group.name).and_then(|group| group.targets);
        if had && has.is_some_and(|targets| targets.healthy == 0) {
            let message =
                format!("{} is published as soon as port {number} has a healthy target there", current.hostname());
            all.waits.insert(port.service.clone(), message);
        }
    }

    /// Target groups of these Services that no listener uses once the plan is done.
    pub(super) fn unneeded_groups(
        &self,
        services: &[ServiceId],
        ports: &BTreeMap<u16, PortModel>,
        current: Option<&SeenLoadBalancer>,
        gone: &BTreeSet<String>,
        keeps: &BTreeSet<String>,
    ) -> Vec<PlannedStep<Step>> {
        let wanted: BTreeSet<_> = ports.values().map(|port| &port.target_group.name).collect();
        let mut steps = Vec::new();
        for seen in &self.observed.target_groups {
            let Some(by) = tags::service(&seen.tags).filter(|by| services.contains(by)) else { continue };
            if wanted.contains(&seen.is.name) || keeps.contains(&seen.is.name) {
                continue;
            }
            // On the current load balancer every listener of these Services was dealt with; on another one nothing was.
            let elsewhere = self.mine().filter(|other| !gone.contains(&other.is.name));
            let elsewhere = elsewhere.filter(|other| current.is_none_or(|current| current.is.arn != other.is.arn));
            let mut listeners = elsewhere.flat_map(|other| other.listeners.values());
            if listeners.any(|listener| listener.is.settings.target_group_arn == seen.is.arn) {
                continue;
            }
            let step = Step::DeleteTargetGroup { target_group: seen.is.name.clone() };
            steps.push(PlannedStep::of(&by, step));
        }
        steps
    }

    /// Whether every listener is one of these Services', or goes.
    pub(super) fn all_known(
        &self,
        current: Option<&SeenLoadBalancer>,
        ports: &BTreeMap<u16, PortModel>,
        services: &[ServiceId],
    ) -> bool {
        let known = |(number, seen): (&u16, &SeenListener)| {
            let by = tags::service(&seen.tags).map(|by| by.uid).unwrap_or_default();
            ports.contains_key(number) || self.leaving.contains(by.as_str()) || services.iter().any(|id| id.uid == by)
        };
        let elsewhere = self.mine().any(|seen| current.is_none_or(|current| current.is.arn != seen.is.arn));
        !elsewhere && current.iter().flat_map(|current| &current.listeners).all(known)
    }
}

/// What AWS does not answer, as the codes of some, is not compared.
fn is_same_check(wanted: &HealthCheck, seen: &HealthCheck) -> bool {
    let mut seen = seen.clone();
    if seen.codes.is_none() || wanted.codes.is_none() {
        seen.codes.clone_from(&wanted.codes);
    }
    if wanted.path.is_none() {
        seen.path = None;
    }
    *wanted == seen
}

/// Whether a listener does something else, its target group aside.
fn differs(port: &PortModel, seen: &ListenerSettings) -> bool {
    // Not to negotiate is what AWS does where nothing is said.
    let alpn = |policy: Option<&String>| policy.filter(|policy| *policy != "None").cloned();
    port.protocol != seen.protocol
        || port.tls.as_ref().is_some_and(|tls| {
            tls.certificates.first() != seen.certificate.as_ref()
                || Some(&tls.policy) != seen.ssl_policy.as_ref()
                || alpn(tls.alpn.as_ref()) != alpn(seen.alpn_policy.as_ref())
        })
}

/// Ports of target groups whose targets have to be counted: another one may take the place of one there.
pub fn with_rivals(observed: &Observed) -> BTreeSet<String> {
    let mut by_port: BTreeMap<(String, u16), Vec<&str>> = BTreeMap::new();
    for seen in &observed.target_groups {
        let Some(Resource::TargetGroup { port, .. }) = tags::resource(&seen.tags) else { continue };
        let uid = tags::service(&seen.tags).map(|by| by.uid).unwrap_or_default();
        by_port.entry((uid, port)).or_default().push(&seen.is.arn);
    }
    by_port.into_values().filter(|rivals| rivals.len() > 1).flatten().map(str::to_owned).collect()
}
