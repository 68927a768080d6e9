//! What of ours there is, by shard: learned in one sweep through all pages, kept up to date by our own effects.

use std::collections::{BTreeMap, BTreeSet};

use berth_provider::{Owned, Shard, Whom};

use super::sync::Group;
use crate::cloud::{By, CallError, Cloud, GroupFilter, LoadBalancer, Pairs, TargetType};
use crate::model::Holder;
use crate::settings::Settings;
use crate::tags::{self, Resource};

/// Things that `DescribeTags` takes at once (AWS rule).
pub(super) const TAGS_AT_ONCE: usize = 20;

/// What of ours there is.
#[derive(Clone, Debug, Default)]
pub(super) struct Index {
    /// By identity: an ARN, or for a security group its id.
    pub things: BTreeMap<String, Pairs>,
    /// Security groups of load balancers of the VPC that are not ours: one that was disowned may have our backend security group.
    pub theirs: BTreeSet<String>,
    /// Whether somebody wrote rules by hand that let in the backend security group, so that it cannot be deleted.
    pub is_held: bool,
    /// Load balancers as the sweep saw them, those of ours that were there then.
    pub balancers: BTreeMap<String, LoadBalancer>,
    /// The kind of targets of target groups, by the same.
    pub kinds: BTreeMap<String, TargetType>,
    /// Every load balancer's name, ours or not, with its identity.
    pub names: BTreeMap<String, String>,
}

/// The tags of many things.
pub(super) async fn tags_of<C: Cloud>(cloud: &C, arns: &[String]) -> Result<BTreeMap<String, Pairs>, CallError> {
    let mut tags = BTreeMap::new();
    for chunk in arns.chunks(TAGS_AT_ONCE) {
        tags.extend(cloud.describe_tags(chunk).await?);
    }
    Ok(tags)
}

impl Index {
    pub(super) async fn sweep<C: Cloud>(cloud: &C, settings: &Settings) -> Result<Self, CallError> {
        let load_balancers = cloud.describe_load_balancers(By::All).await?;
        let target_groups = cloud.describe_target_groups(By::All).await?;
        let names = load_balancers.iter().map(|is| (is.name.clone(), is.arn.clone())).collect();
        // Those of other VPCs cannot be ours.
        let here: Vec<_> = load_balancers.into_iter().filter(|is| is.vpc_id == settings.vpc).collect();
        let arns = here.iter().map(|is| is.arn.clone());
        let kinds = target_groups.iter().map(|is| (is.arn.clone(), is.target_type)).collect();
        let arns: Vec<_> = arns.chain(target_groups.into_iter().map(|is| is.arn)).collect();
        let mut things = tags_of(cloud, &arns).await?;
        things.retain(|_, of| tags::is_ours(settings, of));
        let (ours, theirs): (Vec<_>, Vec<_>) = here.into_iter().partition(|is| things.contains_key(&is.arn));
        let theirs = theirs.into_iter().flat_map(|is| is.security_groups).collect();
        let balancers = ours.into_iter().map(|is| (is.arn.clone(), is)).collect();
        let filter = GroupFilter::Tagged(tags::of_cluster(settings));
        let groups = cloud.describe_security_groups(&settings.vpc, filter).await?;
        things.extend(groups.into_iter().map(|group| (group.id, group.tags)));
        Ok(Self { things, balancers, kinds, names, theirs, is_held: false })
    }

    /// The backend security group. If somebody copied its tags to another one, always the same of them.
    pub(super) fn backend_group(&self) -> Option<&String> {
        let is = |of: &Pairs| tags::resource(of) == Some(Resource::BackendSecurityGroup);
        self.things.iter().find(|(_, of)| is(of)).map(|(id, _)| id)
    }

    /// Whether the backend security group may be needed beside this shard: by something of another one, by a load balancer that was
    /// disowned, or for a rule that somebody wrote.
    pub(super) fn has_others(&self, but: &Shard) -> bool {
        self.is_needed_by_others(but) || self.is_held
    }

    /// The same without rules that somebody wrote: those that are ours are nobody's then.
    pub(super) fn is_needed_by_others(&self, but: &Shard) -> bool {
        let shards = self.things.values().filter_map(|of| of.get(tags::SHARD));
        shards.into_iter().any(|shard| *shard != but.0) || self.is_used_by_others()
    }

    /// Whether a load balancer that was disowned has the backend security group.
    pub(super) fn is_used_by_others(&self) -> bool {
        self.backend_group().is_some_and(|id| self.theirs.contains(id))
    }

    /// The shards that have target groups.
    pub(super) fn shards_with_targets(&self) -> BTreeSet<&String> {
        let all = self.things.values().filter(|of| tags::resource(of).as_ref().is_some_and(is_target_group));
        all.filter_map(|of| of.get(tags::SHARD)).collect()
    }

    /// The identities of a shard's things, in their order.
    pub(super) fn ids_of(&self, shard: &Shard) -> impl Iterator<Item = &String> {
        self.things.iter().filter(|(_, of)| of.get(tags::SHARD) == Some(&shard.0)).map(|(id, _)| id)
    }

    /// The identities of a shard's things of one kind.
    pub(super) fn of_shard(&self, shard: &Shard, is: fn(&Resource) -> bool) -> Vec<String> {
        let theirs = |of: &Pairs| of.get(tags::SHARD) == Some(&shard.0) && tags::resource(of).is_some_and(|r| is(&r));
        self.things.iter().filter(|(_, of)| theirs(of)).map(|(id, _)| id.clone()).collect()
    }

    /// The shard's target groups.
    pub(super) fn groups_of(&self, shard: &Shard) -> Vec<Group> {
        let theirs = self.things.iter().filter(|(_, of)| of.get(tags::SHARD) == Some(&shard.0));
        let groups = theirs.filter_map(|(arn, of)| match tags::resource(of)? {
            Resource::TargetGroup { port, .. } => {
                Some(Group { arn: arn.clone(), kind: *self.kinds.get(arn)?, port, service: tags::service(of)? })
            }
            _ => None,
        });
        groups.collect()
    }

    /// Names of load balancers that are not the shard's.
    pub(super) fn other_names(&self, shard: &Shard) -> BTreeSet<String> {
        let own: BTreeSet<_> = self.of_shard(shard, is_load_balancer).into_iter().collect();
        self.names.iter().filter(|(_, arn)| !own.contains(*arn)).map(|(name, _)| name.clone()).collect()
    }

    /// How many load balancers the namespaces have, one shard's aside.
    pub(super) fn by_namespace(&self, but: &Shard) -> BTreeMap<String, usize> {
        let mut count = BTreeMap::new();
        for of in self.things.values().filter(|of| tags::resource(of).as_ref().is_some_and(is_load_balancer)) {
            let Some(shard) = of.get(tags::SHARD).filter(|shard| **shard != but.0) else { continue };
            let namespace = shard.split('/').next().unwrap_or_default();
            *count.entry(namespace.to_owned()).or_default() += 1;
        }
        count
    }

    pub(super) fn owned(&self) -> Vec<Owned> {
        let shard_of = |of: &Pairs| Shard(of.get(tags::SHARD).cloned().unwrap_or_default());
        let mut members = BTreeMap::new();
        for of in self.things.values() {
            if let Some(service) = tags::service(of) {
                members.entry(shard_of(of)).or_insert(service);
            }
        }
        let kind = |of: &Pairs| match tags::resource(of) {
            Some(Resource::LoadBalancer { .. }) => "load balancer",
            Some(Resource::TargetGroup { .. }) => "target group",
            Some(Resource::SecurityGroup) => "security group",
            Some(Resource::BackendSecurityGroup) => "backend security group",
            Some(Resource::Listener { .. }) => "listener",
            None => "unknown",
        };
        let each = self.things.iter().map(|(id, of)| {
            let shard = shard_of(of);
            if tags::resource(of) == Some(Resource::BackendSecurityGroup) {
                // What all shards share is there for any Service, and goes with the last.
                let (shard, service) = members.first_key_value().map(|(s, id)| (s.clone(), id.clone())).unzip();
                return Owned {
                    id: id.clone(),
                    kind: kind(of).to_owned(),
                    shard: shard.unwrap_or(Shard(String::new())),
                    service,
                    whom: Whom::Cluster,
                };
            }
            // What a group shares is there for any of its Services.
            let made_for = tags::service(of);
            let is_shared = made_for.is_none() && Holder::is_of_group(&shard.0);
            let whom = if is_shared { Whom::Shard } else { Whom::Service };
            let service = made_for.or_else(|| members.get(&shard).filter(|_| is_shared).cloned());
            Owned { id: id.clone(), kind: kind(of).to_owned(), shard, service, whom }
        });
        each.collect()
    }
}

pub(super) fn is_load_balancer(resource: &Resource) -> bool {
    matches!(resource, Resource::LoadBalancer { .. })
}

pub(super) fn is_target_group(resource: &Resource) -> bool {
    matches!(resource, Resource::TargetGroup { .. })
}

pub(super) fn is_security_group(resource: &Resource) -> bool {
    matches!(resource, Resource::SecurityGroup)
}
