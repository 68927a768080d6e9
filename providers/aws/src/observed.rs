//! What was seen of a shard: ours alone, and what a request may refer to.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::cloud::{Listener, LoadBalancer, Pairs, SecurityGroup, Subnet, TargetGroup, TargetState};
use crate::tags;

/// What was seen.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observed {
    /// The shard's load balancers.
    pub load_balancers: Vec<SeenLoadBalancer>,
    /// The shard's target groups.
    pub target_groups: Vec<SeenTargetGroup>,
    /// The shard's security groups.
    pub security_groups: Vec<SecurityGroup>,
    /// The subnets of the VPC.
    pub subnets: Vec<Subnet>,
    /// The security group that all load balancers of the cluster have, once it is made.
    pub backend_group: Option<String>,
    /// Whether it may be needed beside this shard: by something of another one, by a load balancer that was disowned, or for a rule
    /// that somebody wrote.
    pub has_others: bool,
    /// Security groups that a Service of the shard names.
    pub named_groups: Vec<SecurityGroup>,
    /// Names of load balancers that are not the shard's.
    pub other_names: BTreeSet<String>,
    /// How many load balancers the other shards of this cluster have, by namespace.
    pub others_by_namespace: BTreeMap<String, usize>,
    /// What was not looked at.
    pub unseen: Unseen,
    /// Whether something was met on the way that was not known to be there, so that there may be more.
    pub is_doubtful: bool,
    /// Whether nothing is to be done, as the leader before has left it, so that nothing but the load balancer itself was looked at.
    pub is_as_it_was_left: bool,
}

/// What a plan without a cloud cannot know; it is then planned as the Services say it. Whoever looks at a cloud sees everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unseen {
    /// The subnets of the VPC.
    pub subnets: bool,
    /// Security groups that Services name.
    pub named_groups: bool,
}

/// A load balancer.
#[derive(Clone, Debug, PartialEq)]
pub struct SeenLoadBalancer {
    /// Itself.
    pub is: LoadBalancer,
    /// Its tags.
    pub tags: Pairs,
    /// Its attributes.
    pub attributes: Pairs,
    /// Its listeners, by port.
    pub listeners: BTreeMap<u16, SeenListener>,
    /// How long no Service's status has named it, as far as this process knows; counted only where there is another one beside it.
    pub unnamed_for: Duration,
}

/// A listener.
#[derive(Clone, Debug, PartialEq)]
pub struct SeenListener {
    /// Itself.
    pub is: Listener,
    /// Its tags.
    pub tags: Pairs,
    /// Its attributes.
    pub attributes: Pairs,
    /// Its certificates beside the one that it shows by default.
    pub certificates: BTreeSet<String>,
}

/// A target group.
#[derive(Clone, Debug, PartialEq)]
pub struct SeenTargetGroup {
    /// Itself.
    pub is: TargetGroup,
    /// Its tags.
    pub tags: Pairs,
    /// Its attributes.
    pub attributes: Pairs,
    /// How many targets it has; counted only where another one may take its place.
    pub targets: Option<Counts>,
}

/// Targets of a target group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Those that are registered.
    pub registered: usize,
    /// Those of them that are healthy. None is before a listener sends traffic to the group (AWS rule).
    pub healthy: usize,
}

impl Counts {
    /// Counts them.
    pub fn of(states: impl Iterator<Item = TargetState>) -> Self {
        let mut counts = Self::default();
        for state in states.filter(|state| state.is_registered()) {
            counts.registered += 1;
            counts.healthy += usize::from(state == TargetState::Healthy);
        }
        counts
    }
}

impl SeenLoadBalancer {
    /// The UID of the Service that it is for, if it is for one.
    pub fn holder(&self) -> Option<String> {
        tags::service(&self.tags).map(|service| service.uid)
    }

    /// Of what cannot be changed.
    pub fn digest(&self) -> Option<String> {
        match tags::resource(&self.tags) {
            Some(tags::Resource::LoadBalancer { digest }) => Some(digest),
            _ => None,
        }
    }

    /// The name by which clients find it. AWS answers with capitals in it; names in DNS have none.
    pub fn hostname(&self) -> String {
        self.is.dns_name.to_ascii_lowercase()
    }
}

impl Observed {
    /// Whether there is nothing of the shard.
    pub fn is_nothing(&self) -> bool {
        self.load_balancers.is_empty() && self.target_groups.is_empty() && self.security_groups.is_empty()
    }

    /// A load balancer by its name.
    pub fn load_balancer(&self, name: &str) -> Option<&SeenLoadBalancer> {
        self.load_balancers.iter().find(|seen| seen.is.name == name)
    }

    /// A target group by its name.
    pub fn target_group(&self, name: &str) -> Option<&SeenTargetGroup> {
        self.target_groups.iter().find(|seen| seen.is.name == name)
    }

    /// A security group of the shard by its name.
    pub fn security_group(&self, name: &str) -> Option<&SecurityGroup> {
        self.security_groups.iter().find(|group| group.name == name)
    }
}
