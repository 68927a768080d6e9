//! EC2 and ELBv2 in memory, as strict as AWS is: where `moto` accepts what AWS refuses, this refuses it. For tests alone.

#![allow(missing_docs, reason = "its fields have the names that AWS gives them")]

mod calls;
mod network;
mod rules;
mod targets;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use berth_provider::conformance::{FaultGate, Verdict};

use crate::cloud::{
    CallError, IpProtocol, Listener, LoadBalancer, Pairs, Rule, Source, State as Coming, Subnet, SubnetMapping,
    TargetDescription, TargetGroup, TargetState,
};
use crate::settings::Settings;
use crate::tags;
pub use network::{Fitted, NODES_GROUP};

/// A cloud in memory. Cheap to clone; all clones are the same cloud.
#[derive(Clone, Default)]
pub struct Fake {
    state: Arc<Mutex<State>>,
    gate: Arc<FaultGate>,
}

#[derive(Default)]
pub struct State {
    made: u64,
    pub vpc: String,
    /// Its ranges.
    pub ranges: Vec<String>,
    /// Instances that run in it.
    pub instances: BTreeSet<String>,
    /// Targets that answer no health check, by instance or address.
    pub sick: BTreeSet<String>,
    pub subnets: Vec<Subnet>,
    /// Elastic IPs that the account has.
    pub allocations: BTreeSet<String>,
    pub groups: BTreeMap<String, Group>,
    /// Network interfaces that are not as [`State::shown_instances`] makes them up.
    pub interfaces: BTreeMap<String, Fitted>,
    pub balancers: BTreeMap<String, Balancer>,
    pub targets: BTreeMap<String, Targets>,
    pub listeners: BTreeMap<String, Ears>,
    /// Security groups of network interfaces that a load balancer leaves for a while.
    pub lingering: Vec<String>,
    /// Calls by action.
    pub calls: BTreeMap<&'static str, u64>,
    /// Load balancers that the account may have.
    pub balancers_max: usize,
    /// What these calls answer.
    pub refuses: BTreeMap<&'static str, &'static str>,
    /// Reads that are not answered.
    pub deaf: BTreeSet<&'static str>,
    /// What every write answers, if something.
    pub answers: Option<&'static str>,
}

#[derive(Clone)]
pub struct Group {
    pub name: String,
    pub rules: BTreeSet<Rule>,
    pub tags: Pairs,
}

#[derive(Clone)]
pub struct Balancer {
    pub is: LoadBalancer,
    pub mappings: Vec<SubnetMapping>,
    pub attributes: Pairs,
    pub tags: Pairs,
}

#[derive(Clone)]
pub struct Targets {
    pub is: TargetGroup,
    pub family: &'static str,
    pub attributes: Pairs,
    pub tags: Pairs,
    pub registered: BTreeMap<TargetDescription, (TargetState, Option<&'static str>)>,
}

#[derive(Clone)]
pub struct Ears {
    pub is: Listener,
    pub balancer: String,
    pub attributes: Pairs,
    pub certificates: BTreeSet<String>,
    pub tags: Pairs,
}

type Called<T> = Result<T, CallError>;

impl Fake {
    /// A VPC with a public and a private subnet in each of two zones, and things of somebody else.
    pub fn new(vpc: &str) -> Self {
        let fake = Self::default();
        let mut state = fake.lock();
        vpc.clone_into(&mut state.vpc);
        state.ranges = vec!["10.0.0.0/16".to_owned(), "2001:db8::/56".to_owned()];
        state.balancers_max = 50;
        // Somebody made it with the instances, and lets in by it what they need.
        let ssh = Rule {
            ip_protocol: IpProtocol::Tcp,
            from_port: 22,
            to_port: 22,
            source: Source::V4("10.0.0.0/8".to_owned()),
            description: Some("ssh".to_owned()),
        };
        let nodes = Group { name: "nodes".to_owned(), rules: [ssh].into(), tags: Pairs::new() };
        state.groups.insert(NODES_GROUP.to_owned(), nodes);
        for (number, (zone, public)) in [("a", true), ("b", true), ("a", false), ("b", false)].into_iter().enumerate() {
            let role = if public { "kubernetes.io/role/elb" } else { "kubernetes.io/role/internal-elb" };
            let id = format!("subnet-{}{zone}", if public { "public" } else { "private" });
            state.subnets.push(Subnet {
                tags: [("Name".to_owned(), format!("{id}-name")), (role.to_owned(), "1".to_owned())].into(),
                id,
                zone: format!("eu-central-1{zone}"),
                zone_type: "availability-zone".to_owned(),
                cidr: format!("10.0.{number}.0/24"),
                ipv6_cidr: Some(format!("2001:db8:0:{number}::/64")),
                free_addresses: 200,
                is_public: public,
            });
        }
        state.allocations = ["eipalloc-1", "eipalloc-2", "eipalloc-3", "eipalloc-4"].map(str::to_owned).into();
        drop(state);
        fake
    }

    /// Where tests make calls fail.
    pub fn gate(&self) -> &FaultGate {
        &self.gate
    }

    /// Looks into it, or changes it behind everybody's back.
    pub fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.lock())
    }

    /// What takes its time is done.
    pub fn settle(&self) {
        let mut state = self.lock();
        state.lingering.clear();
        for balancer in state.balancers.values_mut().filter(|b| b.is.state == Coming::Provisioning) {
            balancer.is.state = Coming::Active;
        }
        state.settle_targets();
    }

    /// Everything in it, one line for each thing, ours or not. Identities differ from one run to the next; names do not.
    pub fn dump(&self, settings: &Settings, ours: bool) -> Vec<String> {
        let state = self.lock();
        let is = |of: &Pairs| tags::is_ours(settings, of) == ours;
        let group = |id: &String| state.groups.get(id).map_or("?", |group| &group.name).to_owned();
        let target = |arn: &String| state.targets.get(arn).map_or("?", |target| &target.is.name).to_owned();
        let mut lines = Vec::new();
        // What we put into groups of others is ours.
        let description = crate::backend::description(settings);
        let put = |rule: &&Rule| rule.description.as_ref() == Some(&description);
        for of in state.groups.values().filter(|of| is(&of.tags)) {
            let rules: Vec<_> = of.rules.iter().filter(|rule| !put(rule)).collect();
            lines.push(format!("security group {}: {rules:?} {:?}", of.name, of.tags));
        }
        for (of, rule) in state.groups.values().flat_map(|of| of.rules.iter().filter(put).map(move |rule| (of, rule))) {
            if ours {
                let source = match &rule.source {
                    Source::Group(id) => group(id),
                    other => format!("{other:?}"),
                };
                let Rule { ip_protocol, from_port, to_port, .. } = rule;
                lines.push(format!("rule in {}: {ip_protocol} {from_port}-{to_port} from {source}", of.name));
            }
        }
        for of in state.balancers.values().filter(|of| is(&of.tags)) {
            let (lb, groups) = (&of.is, of.is.security_groups.iter().map(group).collect::<Vec<_>>());
            lines.push(format!(
                "load balancer {} {} {} {:?} {groups:?} {:?} {:?} {:?}",
                lb.name,
                lb.scheme,
                lb.ip_address_type,
                of.mappings,
                lb.enforces_on_private_link,
                of.attributes,
                of.tags
            ));
        }
        for of in state.targets.values().filter(|of| is(&of.tags)) {
            let TargetGroup { name, protocol, port, target_type, health_check, .. } = &of.is;
            lines.push(format!(
                "target group {name} {protocol} {port} {target_type} {} {health_check:?} {:?} {:?}",
                of.family, of.attributes, of.tags
            ));
        }
        for of in state.listeners.values().filter(|of| is(&of.tags)) {
            let balancer = state.balancers.get(&of.balancer).map_or("?", |balancer| &balancer.is.name);
            let s = &of.is.settings;
            lines.push(format!(
                "listener {} of {balancer}: {} to {} {:?} {:?} {:?} {:?} {:?} {:?}",
                of.is.port,
                s.protocol,
                target(&s.target_group_arn),
                s.certificate,
                s.ssl_policy,
                s.alpn_policy,
                of.certificates,
                of.attributes,
                of.tags
            ));
        }
        lines.sort();
        lines
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read<T>(&self, action: &'static str, look: impl FnOnce(&State) -> Called<T>) -> Called<T> {
        let verdict = self.gate.read();
        let mut state = self.lock();
        *state.calls.entry(action).or_default() += 1;
        if state.deaf.contains(action) {
            return Err(CallError::unanswered(action, "no answer"));
        }
        match verdict {
            Verdict::Pass => look(&state),
            Verdict::Refuse | Verdict::LoseAnswer => Err(CallError::unanswered(action, "no answer")),
        }
    }

    fn write<T>(&self, action: &'static str, change: impl FnOnce(&mut State) -> Called<T>) -> Called<T> {
        let verdict = self.gate.write();
        let mut state = self.lock();
        *state.calls.entry(action).or_default() += 1;
        if let Some(code) = state.answers.or(state.refuses.get(action).copied()) {
            return Err(CallError::new(action, code, "as the test asks for"));
        }
        if verdict == Verdict::Refuse {
            return Err(CallError::unanswered(action, "no answer"));
        }
        let answer = change(&mut state)?;
        if verdict == Verdict::LoseAnswer { Err(CallError::unanswered(action, "no answer")) } else { Ok(answer) }
    }
}

impl State {
    fn number(&mut self) -> u64 {
        self.made += 1;
        self.made
    }
}
