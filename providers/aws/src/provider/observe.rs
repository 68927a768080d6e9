//! One look at a shard.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use berth_provider::{Intent, Shard, Wanted};
use tokio::time::Instant;

use super::index::{Index, TAGS_AT_ONCE, is_load_balancer, is_security_group, is_target_group, tags_of};
use super::{Aws, INDEX_LASTS, SUBNETS_LAST};
use crate::cloud::{By, CallError, Cloud, GroupFilter, Pairs, Protocol, SecurityGroup, Subnet};
use crate::intent::{Asks, Front, Security};
use crate::model::Holder;
use crate::observed::{Counts, Observed, SeenListener, SeenLoadBalancer, SeenTargetGroup};
use crate::plan::{is_published, with_rivals};
use crate::tags;

/// Whether a load balancer is there that is for a Service, and not for one that had its name.
fn has_one(intent: &Intent, observed: &Observed) -> bool {
    let holder = Holder::of(intent).service().map(|service| service.uid.clone());
    observed.load_balancers.iter().any(|seen| seen.holder() == holder)
}

impl<C: Cloud> Aws<C> {
    pub(super) async fn look(&self, shard: &Shard, wanted: &Wanted) -> Result<Observed, CallError> {
        let index = self.index().await?;
        self.looked(shard);
        let mut observed = Observed {
            load_balancers: self.load_balancers(&index.of_shard(shard, is_load_balancer)).await?,
            target_groups: self.target_groups(&index.of_shard(shard, is_target_group)).await?,
            ..Observed::default()
        };
        refer_to_others(&index, shard, &mut observed);
        let groups = index.of_shard(shard, is_security_group);
        if !groups.is_empty() {
            let seen = self.groups(GroupFilter::Ids(groups)).await?;
            // A tag may have been taken off since.
            observed.security_groups = seen.into_iter().filter(|seen| self.is_of(shard, &seen.tags)).collect();
            // What is kept beside a rule is for people.
            for rule in observed.security_groups.iter_mut().flat_map(|group| &mut group.rules) {
                rule.description = None;
            }
        }
        observed.load_balancers.retain(|seen| self.is_of(shard, &seen.tags));
        observed.target_groups.retain(|seen| self.is_of(shard, &seen.tags));
        self.count_targets(&mut observed).await?;
        self.note_unnamed(wanted, &mut observed);
        self.look_at_subnets(wanted, &mut observed).await?;
        self.look_at_named_groups(wanted, &mut observed).await?;
        Ok(observed)
    }

    /// Counts the targets of target groups of which one may take another's place.
    pub(super) async fn count_targets(&self, observed: &mut Observed) -> Result<(), CallError> {
        let rivals = with_rivals(observed);
        for seen in observed.target_groups.iter_mut().filter(|seen| rivals.contains(&seen.is.arn)) {
            let targets = self.cloud.describe_target_health(&seen.is.arn).await?;
            seen.targets = Some(Counts::of(targets.iter().map(|target| target.state)));
        }
        Ok(())
    }

    /// Notes how long each of several load balancers has been named by no status.
    pub(super) fn note_unnamed(&self, wanted: &Wanted, observed: &mut Observed) {
        let mut unnamed = self.unnamed.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let is_alone = observed.load_balancers.len() < 2;
        for seen in &mut observed.load_balancers {
            if is_alone || wanted.present.values().any(|intent| is_published(intent, seen)) {
                unnamed.remove(&seen.is.arn);
            } else {
                let since = *unnamed.entry(seen.is.arn.clone()).or_insert(now);
                seen.unnamed_for = now.saturating_duration_since(since);
            }
        }
    }

    fn fronts(&self, wanted: &Wanted) -> Vec<Front> {
        let asks = wanted.present.values().filter_map(|intent| Asks::of(intent, &self.settings).ok());
        asks.map(|asks| asks.front).collect()
    }

    /// Looks at subnets, where some are to be chosen.
    pub(super) async fn look_at_subnets(&self, wanted: &Wanted, observed: &mut Observed) -> Result<(), CallError> {
        let there = &observed.load_balancers;
        let chooses = |front: &Front| {
            !front.subnets.is_empty() || there.len() != 1 || there.iter().any(|seen| seen.is.scheme != front.scheme)
        };
        let is_new = |intent: &Intent| !has_one(intent, observed);
        if self.fronts(wanted).iter().any(chooses) || wanted.present.values().any(is_new) {
            observed.subnets = self.subnets().await?;
        }
        Ok(())
    }

    /// Looks at security groups that Services name.
    async fn look_at_named_groups(&self, wanted: &Wanted, observed: &mut Observed) -> Result<(), CallError> {
        let given = |front: Front| match front.security {
            Security::Given(words) => words,
            _ => Vec::new(),
        };
        let words = self.fronts(wanted).into_iter().flat_map(given);
        let (ids, names): (Vec<_>, Vec<_>) = words.partition(|word| word.starts_with("sg-"));
        if !ids.is_empty() {
            observed.named_groups.extend(self.groups(GroupFilter::Ids(ids)).await?);
        }
        if !names.is_empty() {
            observed.named_groups.extend(self.groups(GroupFilter::TagNames(names)).await?);
        }
        observed.named_groups.sort_by(|a, b| a.id.cmp(&b.id));
        observed.named_groups.dedup_by(|a, b| a.id == b.id);
        Ok(())
    }

    fn is_of(&self, shard: &Shard, of: &Pairs) -> bool {
        tags::is_ours(&self.settings, of) && of.get(tags::SHARD) == Some(&shard.0)
    }

    pub(super) async fn index(&self) -> Result<Arc<Index>, CallError> {
        // Whoever else looks meanwhile waits for this sweep instead of making one too.
        let mut known = self.known.lock().await;
        match &known.index {
            Some((at, index)) if at.elapsed() < INDEX_LASTS => Ok(index.clone()),
            _ => {
                let index = Arc::new(Index::sweep(&self.cloud, &self.settings).await?);
                // What somebody else deleted is nobody's to send to.
                let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
                sent.retain(|arn, _| index.things.contains_key(arn));
                drop(sent);
                known.index = Some((Instant::now(), index.clone()));
                Ok(index)
            }
        }
    }

    async fn subnets(&self) -> Result<Vec<Subnet>, CallError> {
        let mut known = self.known.lock().await;
        match &known.subnets {
            Some((at, subnets)) if at.elapsed() < SUBNETS_LAST => Ok(subnets.clone()),
            _ => {
                let mut subnets = self.cloud.describe_subnets(&self.settings.vpc).await?;
                subnets.sort_by(|a, b| a.id.cmp(&b.id));
                known.subnets = Some((Instant::now(), subnets.clone()));
                Ok(subnets)
            }
        }
    }

    async fn groups(&self, filter: GroupFilter) -> Result<Vec<SecurityGroup>, CallError> {
        self.cloud.describe_security_groups(&self.settings.vpc, filter).await
    }

    async fn load_balancers(&self, arns: &[String]) -> Result<Vec<SeenLoadBalancer>, CallError> {
        let mut all = Vec::new();
        for chunk in arns.chunks(TAGS_AT_ONCE) {
            for is in self.cloud.describe_load_balancers(By::Arns(chunk)).await? {
                let attributes = self.cloud.describe_load_balancer_attributes(&is.arn).await?;
                let listeners = self.cloud.describe_listeners(&is.arn).await?;
                let mut arns = vec![is.arn.clone()];
                arns.extend(listeners.iter().map(|listener| listener.arn.clone()));
                let mut tags = tags_of(&self.cloud, &arns).await?;
                let mut seen = BTreeMap::new();
                for is in listeners {
                    let attributes = match is.settings.protocol {
                        // No listener of TLS is asked for attributes.
                        Protocol::Tls => Pairs::new(),
                        _ => self.cloud.describe_listener_attributes(&is.arn).await?,
                    };
                    let certificates = match is.settings.protocol {
                        Protocol::Tls => self.cloud.describe_listener_certificates(&is.arn).await?,
                        _ => Vec::new(),
                    };
                    let tags = tags.remove(&is.arn).unwrap_or_default();
                    let certificates = certificates.into_iter().collect();
                    seen.insert(is.port, SeenListener { is, tags, attributes, certificates });
                }
                let tags = tags.remove(&is.arn).unwrap_or_default();
                all.push(SeenLoadBalancer { is, tags, attributes, listeners: seen, unnamed_for: Duration::ZERO });
            }
        }
        Ok(all)
    }

    async fn target_groups(&self, arns: &[String]) -> Result<Vec<SeenTargetGroup>, CallError> {
        let mut all = Vec::new();
        for chunk in arns.chunks(TAGS_AT_ONCE) {
            let mut tags = self.cloud.describe_tags(chunk).await?;
            for is in self.cloud.describe_target_groups(By::Arns(chunk)).await? {
                let attributes = self.cloud.describe_target_group_attributes(&is.arn).await?;
                let tags = tags.remove(&is.arn).unwrap_or_default();
                all.push(SeenTargetGroup { is, tags, attributes, targets: None });
            }
        }
        Ok(all)
    }
}

/// What other shards have that this one has to do with.
pub(super) fn refer_to_others(index: &Index, shard: &Shard, observed: &mut Observed) {
    observed.other_names = index.other_names(shard);
    observed.others_by_namespace = index.by_namespace(shard);
    observed.backend_group = index.backend_group().cloned();
    observed.has_others = index.has_others(shard);
}
