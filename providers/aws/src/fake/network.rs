//! What AWS does with rules of security groups, and which network interfaces it shows.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::{Called, State};
use crate::cloud::{CallError, Instance, Interface, Rule, SecurityGroup, Source};

pub(super) const AUTHORIZE: &str = "ec2:AuthorizeSecurityGroupIngress";
pub(super) const REVOKE: &str = "ec2:RevokeSecurityGroupIngress";
pub(super) const DELETE_GROUP: &str = "ec2:DeleteSecurityGroup";

/// Rules of a security group, of each family.
const RULES_MAX: usize = 60;
/// Longest description of a rule, and what it may have beside letters and digits.
const DESCRIPTION_MAX: usize = 255;
const DESCRIPTION_SIGNS: &str = " ._-:/()#,@[]+=&;{}!$*";
/// The security group of instances whose interfaces nobody described.
pub const NODES_GROUP: &str = "sg-nodes";

/// A network interface that a test described.
#[derive(Clone)]
pub struct Fitted {
    /// The instance that has it, unless it is a pod's own or nobody's.
    pub instance: Option<String>,
    pub is: Interface,
}

fn no<T>(action: &'static str, code: &str, message: impl Into<String>) -> Called<T> {
    Err(CallError::new(action, code, message))
}

fn is_same(a: &Rule, b: &Rule) -> bool {
    a.bare() == b.bare()
}

impl State {
    pub(super) fn authorize(&mut self, group: &str, add: &[Rule]) -> Called<()> {
        let refers = |rule: &Rule| match &rule.source {
            Source::Group(id) => self.groups.contains_key(id),
            _ => true,
        };
        if !self.groups.contains_key(group) || !add.iter().all(refers) {
            return no(AUTHORIZE, "InvalidGroup.NotFound", group);
        }
        let rules = self.groups.get_mut(group).map(|of| &mut of.rules);
        let Some(rules) = rules else { return no(AUTHORIZE, "InvalidGroup.NotFound", group) };
        if add.is_empty() {
            return no(AUTHORIZE, "MissingParameter", "no rule");
        }
        let fits = |text: &String| {
            text.len() <= DESCRIPTION_MAX
                && text.chars().all(|sign| sign.is_ascii_alphanumeric() || DESCRIPTION_SIGNS.contains(sign))
        };
        if !add.iter().filter_map(|rule| rule.description.as_ref()).all(fits) {
            return no(AUTHORIZE, "InvalidParameterValue", "the description of a rule");
        }
        let twice = |at: usize, rule: &Rule| add[..at].iter().any(|other| is_same(other, rule));
        if add.iter().enumerate().any(|(at, rule)| twice(at, rule)) {
            return no(AUTHORIZE, "InvalidParameterValue", "a rule is there twice");
        }
        if add.iter().any(|rule| rules.iter().any(|other| is_same(other, rule))) {
            return no(AUTHORIZE, "InvalidPermission.Duplicate", "a rule is there");
        }
        if rules.len() + add.len() > RULES_MAX {
            return no(AUTHORIZE, "RulesPerSecurityGroupLimitExceeded", "more than 60");
        }
        rules.extend(add.iter().cloned());
        Ok(())
    }

    pub(super) fn revoke(&mut self, group: &str, remove: &[Rule]) -> Called<()> {
        let Some(of) = self.groups.get_mut(group) else { return no(REVOKE, "InvalidGroup.NotFound", group) };
        if remove.is_empty() {
            return no(REVOKE, "MissingParameter", "no rule");
        }
        if remove.iter().any(|rule| !of.rules.iter().any(|other| is_same(other, rule))) {
            return no(REVOKE, "InvalidPermission.NotFound", "a rule is not there");
        }
        of.rules.retain(|rule| !remove.iter().any(|other| is_same(other, rule)));
        Ok(())
    }

    pub(super) fn delete_group(&mut self, group: &str) -> Called<()> {
        if !self.groups.contains_key(group) {
            return no(DELETE_GROUP, "InvalidGroup.NotFound", group);
        }
        let is_used = self.balancers.values().any(|b| b.is.security_groups.iter().any(|id| id == group))
            || self.lingering.iter().any(|id| id == group)
            || self.interfaces.values().any(|fitted| fitted.is.security_groups.iter().any(|id| id == group));
        let others = self.groups.iter().filter(|(id, _)| *id != group);
        let is_named = others.flat_map(|(_, of)| &of.rules).any(|rule| rule.source == Source::Group(group.to_owned()));
        if is_used || is_named {
            return no(DELETE_GROUP, "DependencyViolation", group);
        }
        self.groups.remove(group);
        Ok(())
    }

    pub(super) fn shown(&self, is: impl Fn(&String, &super::Group) -> bool) -> Vec<SecurityGroup> {
        let groups = self.groups.iter().filter(|(id, group)| is(id, group));
        let groups = groups.map(|(id, group)| SecurityGroup {
            id: id.clone(),
            name: group.name.clone(),
            rules: group.rules.iter().cloned().collect(),
            tags: group.tags.clone(),
        });
        groups.collect()
    }

    pub(super) fn shown_instances(&self, ids: &[String]) -> Vec<Instance> {
        let there = ids.iter().filter(|id| self.instances.contains(*id));
        let each = there.map(|id| {
            let own = self.interfaces.values().filter(|fitted| fitted.instance.as_ref() == Some(id));
            let mut interfaces: Vec<_> = own.map(|fitted| fitted.is.clone()).collect();
            if interfaces.is_empty() {
                interfaces.push(Interface {
                    id: format!("eni-of-{id}"),
                    addresses: Vec::new(),
                    prefixes: Vec::new(),
                    security_groups: vec![NODES_GROUP.to_owned()],
                    is_primary: true,
                });
            }
            (id.clone(), Instance { id: id.clone(), interfaces })
        });
        // Whoever is asked for twice is shown once.
        each.collect::<BTreeMap<_, _>>().into_values().collect()
    }

    /// By the addresses of their own: no filter finds those out of a delegated range (AWS rule).
    pub(super) fn shown_interfaces(&self, addresses: &[IpAddr]) -> Vec<Interface> {
        let has = |is: &Interface| is.addresses.iter().any(|address| addresses.contains(address));
        self.interfaces.values().map(|fitted| &fitted.is).filter(|is| has(is)).cloned().collect()
    }
}
