//! What AWS does with targets.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{Called, State};
use crate::cloud::{CallError, TargetDescription, TargetHealth, TargetState, TargetType};

pub(super) const REGISTER: &str = "elasticloadbalancing:RegisterTargets";
pub(super) const DEREGISTER: &str = "elasticloadbalancing:DeregisterTargets";
pub(super) const HEALTH: &str = "elasticloadbalancing:DescribeTargetHealth";

/// Targets that are registered or deregistered at once.
const AT_ONCE: usize = 200;

fn no<T>(action: &'static str, code: &str, message: impl Into<String>) -> Called<T> {
    Err(CallError::new(action, code, message))
}

fn how_many(action: &'static str, targets: &[TargetDescription]) -> Called<()> {
    if targets.is_empty() || targets.len() > AT_ONCE {
        return no(action, "ValidationError", "1 to 200 at once");
    }
    Ok(())
}

impl State {
    /// One that is wrong fails all of them.
    pub(super) fn register(&mut self, arn: &str, targets: &[TargetDescription]) -> Called<()> {
        how_many(REGISTER, targets)?;
        let Some(of) = self.targets.get(arn) else { return no(REGISTER, "TargetGroupNotFound", arn) };
        let (kind, family) = (of.is.target_type, of.family);
        if let Some(wrong) = targets.iter().find(|target| !self.is_target(kind, family, target)) {
            return no(REGISTER, "InvalidTarget", format!("{} is not valid", wrong.id));
        }
        let state = if self.is_used(arn) { TargetState::Initial } else { TargetState::Unused };
        let reason = if state == TargetState::Initial { "Elb.RegistrationInProgress" } else { "Target.NotInUse" };
        if let Some(of) = self.targets.get_mut(arn) {
            for target in targets {
                // Which port of which is what tells targets apart.
                let is_it = |other: &TargetDescription| (&other.id, other.port) == (&target.id, target.port);
                let there = of.registered.iter().any(|(other, (state, _))| is_it(other) && state.is_registered());
                if !there {
                    of.registered.retain(|other, _| !is_it(other));
                    of.registered.insert(target.clone(), (state, Some(reason)));
                }
            }
        }
        Ok(())
    }

    /// One that is not there is as good as deregistered (AWS rule).
    pub(super) fn deregister(&mut self, arn: &str, targets: &[TargetDescription]) -> Called<()> {
        how_many(DEREGISTER, targets)?;
        let is_used = self.is_used(arn);
        let Some(of) = self.targets.get_mut(arn) else { return no(DEREGISTER, "TargetGroupNotFound", arn) };
        let named = |other: &TargetDescription| targets.iter().any(|t| (&t.id, t.port) == (&other.id, other.port));
        if is_used {
            for (_, state) in of.registered.iter_mut().filter(|(target, _)| named(target)) {
                *state = (TargetState::Draining, Some("Target.DeregistrationInProgress"));
            }
        } else {
            of.registered.retain(|target, _| !named(target));
        }
        Ok(())
    }

    pub(super) fn health(&self, arn: &str) -> Called<Vec<TargetHealth>> {
        let Some(of) = self.targets.get(arn) else { return no(HEALTH, "TargetGroupNotFound", arn) };
        let each = of.registered.iter().map(|(target, (state, reason))| TargetHealth {
            // The zone is not answered as it was given.
            target: TargetDescription { is_outside: false, ..target.clone() },
            state: *state,
            reason: reason.map(str::to_owned),
        });
        Ok(each.collect())
    }

    /// Targets that drain are gone, and the others were asked whether they serve.
    pub(super) fn settle_targets(&mut self) {
        let used: Vec<_> = self.targets.keys().filter(|arn| self.is_used(arn)).cloned().collect();
        for (arn, of) in &mut self.targets {
            of.registered.retain(|_, (state, _)| state.is_registered());
            for (target, state) in &mut of.registered {
                *state = match (used.contains(arn), self.sick.contains(&target.id)) {
                    (false, _) => (TargetState::Unused, Some("Target.NotInUse")),
                    (true, true) => (TargetState::Unhealthy, Some("Target.FailedHealthChecks")),
                    (true, false) => (TargetState::Healthy, None),
                };
            }
        }
    }

    fn is_used(&self, arn: &str) -> bool {
        self.listeners.values().any(|listener| listener.is.settings.target_group_arn == arn)
    }

    fn is_target(&self, kind: TargetType, family: &str, target: &TargetDescription) -> bool {
        if target.port == 0 {
            return false;
        }
        match (kind, target.id.parse::<IpAddr>()) {
            (TargetType::Instance, _) => self.instances.contains(&target.id) && !target.is_outside,
            (TargetType::Ip, Ok(address)) => {
                let inside = self.ranges.iter().filter_map(|range| range.parse::<IpNet>().ok());
                let is_inside = inside.clone().any(|range| range.contains(&address));
                // An address of the VPC is in a zone of its own, and any other is in all of them.
                let is_family = if address.is_ipv4() { "ipv4" } else { "ipv6" } == family;
                is_family && is_inside != target.is_outside
            }
            (TargetType::Ip, Err(_)) => false,
        }
    }
}
