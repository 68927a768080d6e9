//! Carries out one step. What it names is looked up in what was seen, which is ours alone: nothing else can be reached.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use berth_api::Reason;
use berth_provider::{Class, Failure, Shard};
use tokio::time::Instant;

use super::Aws;
use super::index::Index;
use super::sync::Sent;
use crate::cloud::{
    By, CallError, Cloud, GroupFilter, ListenerSettings, NewLoadBalancer, NewTargetGroup, Pairs, Protocol, Rule,
    SecurityGroup, State,
};
use crate::observed::{Observed, SeenListener, SeenLoadBalancer, SeenTargetGroup};
use crate::refusal::Refusal;
use crate::settings::Settings;
use crate::step::{Group, ListenerStep, Step, Tagged};
use crate::tags::Resource;
use crate::{model, names, tags};

/// What a security group of ours is described as. AWS shows it, and nothing goes by it.
const DESCRIPTION: &str = "Who may reach a load balancer that Berth made";
/// What the one is described as that all load balancers have.
const BACKEND_DESCRIPTION: &str = "Load balancers that Berth made, for nodes and pods to let in";

type Done = Result<(), Failure>;

/// What a step names is not there as it was when it was planned.
fn gone(what: &str) -> Failure {
    Failure::new(Class::Conflict, format!("{what} is not there any more; it is looked at again"))
}

/// How long something is in use after what used it was deleted: the network interfaces of a load balancer go within three minutes or so.
const LETS_GO_WITHIN: Duration = Duration::from_mins(4);
/// When it is tried again meanwhile.
const IN_USE_AGAIN: Duration = Duration::from_secs(5);

/// What is to be said of something that is in use for so long.
fn in_use(id: &str, error: &CallError, age: Duration) -> Failure {
    if age < LETS_GO_WITHIN {
        return Failure::new(Class::NotReady, error.to_string()).retry_after(IN_USE_AGAIN);
    }
    let how = if id.starts_with("sg-") {
        format!(
            "`aws ec2 describe-network-interfaces --filters Name=group-id,Values={id}` says by what, and rules of other security groups may name it"
        )
    } else {
        "take away what uses it, such as a listener that a person made".to_owned()
    };
    let message =
        format!("{id} has been in use for {} minutes and cannot be deleted: {error}; {how}", age.as_secs() / 60);
    // Tried again each minute, as what a person has to mend.
    Failure::new(Class::Permission, message).reason(Reason::CloudInUse)
}

/// Removed already, perhaps by a call whose answer was lost.
fn removed(answer: Result<(), CallError>) -> Result<(), CallError> {
    match answer {
        Err(error) if error.is_not_found() => Ok(()),
        other => other,
    }
}

impl<C: Cloud> Aws<C> {
    #[expect(clippy::too_many_lines, reason = "each step in its place, with what is known after it")]
    pub(super) async fn carry_out(&self, shard: &Shard, step: &Step, observed: &mut Observed) -> Done {
        match step {
            Step::CreateSecurityGroup { group_name, tags, .. } => self.create_group(group_name, tags, observed).await,
            Step::AuthorizeSecurityGroupIngress { group_name, ip_permissions } => {
                self.authorize(own(group_name, observed)?, ip_permissions).await?;
                rules_of(group_name, observed, |rules| rules.extend(ip_permissions.iter().cloned()));
                Ok(())
            }
            Step::RevokeSecurityGroupIngress { group_name, ip_permissions } => {
                self.revoke(own(group_name, observed)?, ip_permissions).await?;
                rules_of(group_name, observed, |rules| rules.retain(|rule| !ip_permissions.contains(rule)));
                Ok(())
            }
            Step::DeleteSecurityGroup { group_name } => self.delete_group(shard, group_name, observed).await,
            Step::CreateTargetGroup(new) => self.create_target_group(new, observed).await,
            Step::ModifyTargetGroup { target_group: name, health_check } => {
                let seen = target_group(name, observed)?;
                self.cloud.modify_target_group(&seen.is.arn, health_check).await?;
                seen.is.health_check.clone_from(health_check);
                Ok(())
            }
            Step::ModifyTargetGroupAttributes { target_group: name, attributes } => {
                let seen = target_group(name, observed)?;
                self.cloud.modify_target_group_attributes(&seen.is.arn, attributes).await?;
                seen.attributes.extend(attributes.clone());
                Ok(())
            }
            Step::DeleteTargetGroup { target_group: name } => {
                let Some(seen) = observed.target_group(name) else { return Ok(()) };
                let arn = seen.is.arn.clone();
                self.deleted(&arn, self.cloud.delete_target_group(&arn).await)?;
                observed.target_groups.retain(|seen| seen.is.arn != arn);
                self.sent.lock().unwrap_or_else(PoisonError::into_inner).remove(&arn);
                self.note(|index| {
                    index.things.remove(&arn);
                    index.kinds.remove(&arn);
                })
                .await;
                Ok(())
            }
            Step::CreateLoadBalancer { new, groups, limit } => {
                self.create_load_balancer(shard, new, groups, *limit, observed).await
            }
            Step::SetSubnets { load_balancer: name, subnet_mappings } => {
                let seen = load_balancer(name, observed)?;
                self.cloud.set_subnets(&seen.is.arn, subnet_mappings).await?;
                seen.is.subnet_ids = subnet_mappings.iter().map(|mapping| mapping.subnet_id.clone()).collect();
                Ok(())
            }
            Step::SetSecurityGroups { load_balancer: name, security_groups, enforce_on_private_link } => {
                let groups = ids(security_groups, &self.settings, observed)?;
                let seen = load_balancer(name, observed)?;
                self.cloud.set_security_groups(&seen.is.arn, &groups, *enforce_on_private_link).await?;
                seen.is.security_groups = groups;
                seen.is.enforces_on_private_link = enforce_on_private_link.or(seen.is.enforces_on_private_link);
                Ok(())
            }
            Step::SetIpAddressType { load_balancer: name, ip_address_type } => {
                let seen = load_balancer(name, observed)?;
                self.cloud.set_ip_address_type(&seen.is.arn, *ip_address_type).await?;
                seen.is.ip_address_type = *ip_address_type;
                Ok(())
            }
            Step::ModifyLoadBalancerAttributes { load_balancer: name, attributes } => {
                let seen = load_balancer(name, observed)?;
                self.cloud.modify_load_balancer_attributes(&seen.is.arn, attributes).await?;
                seen.attributes.extend(attributes.clone());
                Ok(())
            }
            Step::DeleteLoadBalancer { load_balancer: name } => {
                let Some(seen) = observed.load_balancer(name) else { return Ok(()) };
                let arn = seen.is.arn.clone();
                self.deleted(&arn, self.cloud.delete_load_balancer(&arn).await)?;
                observed.load_balancers.retain(|seen| seen.is.arn != arn);
                self.note_coming(&arn, None).await;
                self.unnamed.lock().unwrap_or_else(PoisonError::into_inner).remove(&arn);
                self.note(|index| {
                    index.things.remove(&arn);
                    index.names.retain(|_, named| *named != arn);
                })
                .await;
                Ok(())
            }
            Step::AddTags { resource, tags } => self.tag(resource, tags, observed).await,
            Step::RemoveTags { resource, tag_keys } => self.untag(resource, tag_keys, observed).await,
            Step::CreateListener { listener, tags } => self.create_listener(listener, tags, observed).await,
            Step::ModifyListener(step) => {
                let settings = settings(step, observed)?;
                let seen = listener(&step.load_balancer, step.port, observed)?;
                self.cloud.modify_listener(&seen.is.arn, &settings).await?;
                if settings.protocol != Protocol::Tls {
                    seen.certificates.clear();
                }
                seen.is.settings = settings;
                Ok(())
            }
            Step::AddListenerCertificates { load_balancer, port, certificates } => {
                let seen = listener(load_balancer, *port, observed)?;
                let all: Vec<_> = certificates.iter().cloned().collect();
                self.cloud.add_listener_certificates(&seen.is.arn, &all).await?;
                seen.certificates.extend(all);
                Ok(())
            }
            Step::RemoveListenerCertificates { load_balancer, port, certificates } => {
                let seen = listener(load_balancer, *port, observed)?;
                let all: Vec<_> = certificates.iter().cloned().collect();
                self.cloud.remove_listener_certificates(&seen.is.arn, &all).await?;
                seen.certificates.retain(|certificate| !certificates.contains(certificate));
                Ok(())
            }
            Step::ModifyListenerAttributes { load_balancer, port, attributes } => {
                let seen = listener(load_balancer, *port, observed)?;
                self.cloud.modify_listener_attributes(&seen.is.arn, attributes).await?;
                seen.attributes.extend(attributes.clone());
                Ok(())
            }
            Step::DeleteListener { load_balancer: name, port } => {
                let Ok(listener) = listener(name, *port, observed) else { return Ok(()) };
                removed(self.cloud.delete_listener(&listener.is.arn).await)?;
                for seen in observed.load_balancers.iter_mut().filter(|seen| seen.is.name == *name) {
                    seen.listeners.remove(port);
                }
                Ok(())
            }
        }
    }

    /// Takes in what came of deleting something.
    pub(super) fn deleted(&self, id: &str, answer: Result<(), CallError>) -> Done {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        match removed(answer) {
            Err(error) if error.is_in_use() => {
                let since = *held.entry(id.to_owned()).or_insert_with(Instant::now);
                Err(in_use(id, &error, since.elapsed()))
            }
            other => {
                held.remove(id);
                Ok(other?)
            }
        }
    }

    pub(super) async fn note(&self, change: impl FnOnce(&mut Index)) {
        if let Some((_, index)) = &mut self.known.lock().await.index {
            change(Arc::make_mut(index));
        }
    }

    async fn delete_group(&self, shard: &Shard, name: &str, observed: &mut Observed) -> Done {
        if name == model::backend_group_name(&self.settings) {
            return self.delete_backend_group(shard, observed).await;
        }
        let Some(group) = observed.security_group(name) else { return Ok(()) };
        let id = group.id.clone();
        self.deleted(&id, self.cloud.delete_security_group(&id).await)?;
        observed.security_groups.retain(|group| group.id != id);
        self.note(|index| drop(index.things.remove(&id))).await;
        Ok(())
    }

    async fn create_group(&self, name: &str, tags: &Pairs, observed: &mut Observed) -> Done {
        let vpc = &self.settings.vpc;
        let is_backend = tags::resource(tags) == Some(Resource::BackendSecurityGroup);
        let description = if is_backend { BACKEND_DESCRIPTION } else { DESCRIPTION };
        let group = match self.cloud.create_security_group(vpc, name, description, tags).await {
            Ok(id) => SecurityGroup { id, name: name.to_owned(), rules: Vec::new(), tags: tags.clone() },
            Err(error) if error.is_duplicate() => {
                let named = self.cloud.describe_security_groups(vpc, GroupFilter::Named(name.to_owned())).await?;
                let named = named.into_iter().next().ok_or(error)?;
                if !is_it(&named.tags, tags) {
                    return Err(Refusal::NameTaken { kind: "security group", name: name.to_owned() }.into());
                }
                observed.is_doubtful = true;
                named
            }
            Err(error) => return Err(error.into()),
        };
        self.note(|index| drop(index.things.insert(group.id.clone(), group.tags.clone()))).await;
        if is_backend {
            observed.backend_group = Some(group.id);
            return Ok(());
        }
        observed.security_groups.retain(|seen| seen.id != group.id);
        observed.security_groups.push(group);
        Ok(())
    }

    async fn rules(&self, group: &str) -> Result<BTreeSet<Rule>, CallError> {
        let filter = GroupFilter::Ids(vec![group.to_owned()]);
        let groups = self.cloud.describe_security_groups(&self.settings.vpc, filter).await?;
        Ok(groups.iter().flat_map(|group| &group.rules).map(Rule::bare).collect())
    }

    async fn authorize(&self, group: &str, rules: &BTreeSet<Rule>) -> Done {
        let all: Vec<_> = rules.iter().cloned().collect();
        match self.cloud.authorize_ingress(group, &all).await {
            // One rule that is there fails all of them (AWS rule).
            Err(error) if error.is_duplicate() => {
                let missing: Vec<_> = rules.difference(&self.rules(group).await?).cloned().collect();
                if !missing.is_empty() {
                    self.cloud.authorize_ingress(group, &missing).await?;
                }
                Ok(())
            }
            other => Ok(other?),
        }
    }

    async fn revoke(&self, group: &str, rules: &BTreeSet<Rule>) -> Done {
        let all: Vec<_> = rules.iter().cloned().collect();
        match self.cloud.revoke_ingress(group, &all).await {
            // One rule that is not there fails all of them (AWS rule).
            Err(error) if error.is_not_found() => {
                let left: Vec<_> = rules.intersection(&self.rules(group).await?).cloned().collect();
                if !left.is_empty() {
                    self.cloud.revoke_ingress(group, &left).await?;
                }
                Ok(())
            }
            other => Ok(other?),
        }
    }

    async fn create_target_group(&self, new: &NewTargetGroup, observed: &mut Observed) -> Done {
        let (is, tags) = match self.cloud.create_target_group(new).await {
            Err(error) if error.is_duplicate() => {
                let named = self.cloud.describe_target_groups(By::Name(&new.name)).await?;
                let named = named.into_iter().next().ok_or(error)?;
                observed.is_doubtful = true;
                let tags = self.tags(&named.arn).await?;
                (named, tags)
            }
            // AWS answers with one that is there where it is made in the same way. Nobody else's has a name with our digest.
            other => {
                let is = other?;
                // Should it be one that was made by a call whose answer was lost, its first look at health shows what it has.
                self.sent.lock().unwrap_or_else(PoisonError::into_inner).insert(is.arn.clone(), Sent::nothing());
                (is, new.tags.clone())
            }
        };
        if !is_it(&tags, &new.tags) {
            return Err(Refusal::NameTaken { kind: "target group", name: new.name.clone() }.into());
        }
        self.note(|index| {
            index.things.insert(is.arn.clone(), tags.clone());
            index.kinds.insert(is.arn.clone(), is.target_type);
        })
        .await;
        observed.target_groups.retain(|seen| seen.is.arn != is.arn);
        observed.target_groups.push(SeenTargetGroup { is, tags, attributes: Pairs::new(), targets: None });
        Ok(())
    }

    async fn tags(&self, arn: &str) -> Result<Pairs, CallError> {
        Ok(self.cloud.describe_tags(&[arn.to_owned()]).await?.remove(arn).unwrap_or_default())
    }

    async fn create_load_balancer(
        &self,
        shard: &Shard,
        new: &NewLoadBalancer,
        groups: &BTreeSet<Group>,
        limit: Option<usize>,
        observed: &mut Observed,
    ) -> Done {
        let mut new = new.clone();
        new.security_groups = ids(groups, &self.settings, observed)?;
        // Two that are made at once must not both be the last one that is allowed.
        let _alone = if limit.is_some() { Some(self.makes.lock().await) } else { None };
        if let Some(limit) = limit {
            let namespace = shard.0.split('/').next().unwrap_or_default();
            // What was made before is noted there.
            let index = self.index().await?;
            let has = index.by_namespace(shard).get(namespace).copied().unwrap_or_default();
            if has >= limit {
                let why = format!("the namespace {namespace} has {has} load balancers of {limit} that it may have");
                return Err(Refusal::Limit(why).into());
            }
        }
        let (is, is_new) = match self.cloud.create_load_balancer(&new).await {
            // It may be ours, made by a call whose answer was lost.
            Err(error) if error.is_duplicate() => {
                let named = self.cloud.describe_load_balancers(By::Name(&new.name)).await?;
                (named.into_iter().next().ok_or(error)?, false)
            }
            // AWS answers with one that is there where it is made in the same way: somebody else's may have the name that a person
            // chose, and has none with our digest.
            other => (other?, names::is_ours(&new.name, &new.tags)),
        };
        let tags = if is_new { new.tags.clone() } else { self.tags(&is.arn).await? };
        if !is_it(&tags, &new.tags) {
            return Err(Refusal::NameTaken { kind: "load balancer", name: new.name.clone() }.into());
        }
        // One that was made this moment comes up, and has nothing yet.
        observed.is_doubtful |= !is_new || is.state != State::Provisioning;
        self.note_coming(&is.arn, Some(is.state)).await;
        self.note(|index| {
            index.things.insert(is.arn.clone(), tags.clone());
            index.names.insert(is.name.clone(), is.arn.clone());
        })
        .await;
        observed.load_balancers.retain(|seen| seen.is.arn != is.arn);
        let (attributes, listeners, unnamed_for) = Default::default();
        observed.load_balancers.push(SeenLoadBalancer { is, tags, attributes, listeners, unnamed_for });
        Ok(())
    }

    async fn create_listener(&self, step: &ListenerStep, tags: &Pairs, observed: &mut Observed) -> Done {
        let settings = settings(step, observed)?;
        let arn = load_balancer(&step.load_balancer, observed)?.is.arn.clone();
        let is = match self.cloud.create_listener(&arn, step.port, &settings, tags).await {
            Err(error) if error.is_duplicate() => {
                let there = self.cloud.describe_listeners(&arn).await?;
                let is = there.into_iter().find(|listener| listener.port == step.port).ok_or(error)?;
                if !is_it(&self.tags(&is.arn).await?, tags) {
                    return Err(Refusal::PortTaken { port: step.port, by: "somebody else".to_owned() }.into());
                }
                observed.is_doubtful = true;
                is
            }
            other => other?,
        };
        let (attributes, certificates) = Default::default();
        let seen = SeenListener { is, tags: tags.clone(), attributes, certificates };
        for balancer in observed.load_balancers.iter_mut().filter(|balancer| balancer.is.arn == arn) {
            balancer.listeners.insert(step.port, seen.clone());
        }
        Ok(())
    }

    async fn tag(&self, resource: &Tagged, tags: &Pairs, observed: &mut Observed) -> Done {
        let (id, seen) = tagged(resource, observed)?;
        match resource {
            Tagged::SecurityGroup(_) => self.cloud.create_tags(&id, tags).await?,
            _ => self.cloud.add_tags(&id, tags).await?,
        }
        seen.extend(tags.clone());
        Ok(())
    }

    async fn untag(&self, resource: &Tagged, keys: &[String], observed: &mut Observed) -> Done {
        let (id, seen) = tagged(resource, observed)?;
        match resource {
            Tagged::SecurityGroup(_) => self.cloud.delete_tags(&id, keys).await?,
            _ => self.cloud.remove_tags(&id, keys).await?,
        }
        seen.retain(|key, _| !keys.contains(key));
        if keys.iter().any(|key| key.starts_with(tags::PREFIX)) {
            // It keeps the security groups that it has.
            let theirs = observed.load_balancers.iter().filter(|seen| seen.is.arn == id);
            let theirs: Vec<_> = theirs.flat_map(|seen| &seen.is.security_groups).cloned().collect();
            observed.load_balancers.retain(|seen| seen.is.arn != id);
            observed.target_groups.retain(|seen| seen.is.arn != id);
            observed.security_groups.retain(|seen| seen.id != id);
            self.note(|index| {
                index.things.remove(&id);
                index.theirs.extend(theirs);
            })
            .await;
        }
        Ok(())
    }
}

/// Whether what was found is what was to be made: it has the tags by which that would be known.
fn is_it(found: &Pairs, made: &Pairs) -> bool {
    made.iter().filter(|(key, _)| key.starts_with(tags::PREFIX)).all(|(key, value)| found.get(key) == Some(value))
}

fn own<'a>(name: &str, observed: &'a Observed) -> Result<&'a str, Failure> {
    let group = observed.security_group(name).map(|group| group.id.as_str());
    group.ok_or_else(|| gone(&format!("the security group {name}")))
}

fn ids(groups: &BTreeSet<Group>, settings: &Settings, observed: &Observed) -> Result<Vec<String>, Failure> {
    let backend = model::backend_group_name(settings);
    let id = |group: &Group| match group {
        Group::Own(name) if *name == backend => {
            observed.backend_group.clone().ok_or_else(|| gone(&format!("the security group {name}")))
        }
        Group::Own(name) => own(name, observed).map(str::to_owned),
        Group::Id(id) => Ok(id.clone()),
    };
    groups.iter().map(id).collect()
}

fn rules_of(group: &str, observed: &mut Observed, change: impl FnOnce(&mut Vec<Rule>)) {
    if let Some(group) = observed.security_groups.iter_mut().find(|seen| seen.name == group) {
        change(&mut group.rules);
    }
}

fn load_balancer<'a>(name: &str, observed: &'a mut Observed) -> Result<&'a mut SeenLoadBalancer, Failure> {
    let seen = observed.load_balancers.iter_mut().find(|seen| seen.is.name == name);
    seen.ok_or_else(|| gone(&format!("the load balancer {name}")))
}

fn target_group<'a>(name: &str, observed: &'a mut Observed) -> Result<&'a mut SeenTargetGroup, Failure> {
    let seen = observed.target_groups.iter_mut().find(|seen| seen.is.name == name);
    seen.ok_or_else(|| gone(&format!("the target group {name}")))
}

fn listener<'a>(name: &str, port: u16, observed: &'a mut Observed) -> Result<&'a mut SeenListener, Failure> {
    let seen = load_balancer(name, observed)?.listeners.get_mut(&port);
    seen.ok_or_else(|| gone(&format!("the listener {port} of {name}")))
}

/// The identity of what has tags, and its tags.
fn tagged<'a>(tagged: &Tagged, observed: &'a mut Observed) -> Result<(String, &'a mut Pairs), Failure> {
    Ok(match tagged {
        Tagged::LoadBalancer(name) => {
            let seen = load_balancer(name, observed)?;
            (seen.is.arn.clone(), &mut seen.tags)
        }
        Tagged::TargetGroup(name) => {
            let seen = target_group(name, observed)?;
            (seen.is.arn.clone(), &mut seen.tags)
        }
        Tagged::Listener(name, port) => {
            let seen = listener(name, *port, observed)?;
            (seen.is.arn.clone(), &mut seen.tags)
        }
        Tagged::SecurityGroup(name) => {
            let seen = observed.security_groups.iter_mut().find(|seen| seen.name == *name);
            let seen = seen.ok_or_else(|| gone(&format!("the security group {name}")))?;
            (seen.id.clone(), &mut seen.tags)
        }
    })
}

fn settings(step: &ListenerStep, observed: &Observed) -> Result<ListenerSettings, Failure> {
    let tls = step.tls.as_ref();
    let target_group = observed.target_group(&step.target_group);
    let target_group = target_group.ok_or_else(|| gone(&format!("the target group {}", step.target_group)))?;
    Ok(ListenerSettings {
        protocol: step.protocol,
        target_group_arn: target_group.is.arn.clone(),
        certificate: tls.and_then(|tls| tls.certificates.first().cloned()),
        ssl_policy: tls.map(|tls| tls.policy.clone()),
        alpn_policy: tls.and_then(|tls| tls.alpn.clone()),
    })
}
