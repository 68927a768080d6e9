//! What there should be in the cloud for the Services of a shard.

use std::collections::{BTreeMap, BTreeSet};

use berth_provider::{Intent, ServiceId};

use crate::cloud::{IpAddressType, NewTargetGroup, Pairs, Protocol, Rule, Scheme};
use crate::intent::{Asks, Front, PortAsks, Security, Tls, group};
use crate::names::{digest, name};
use crate::settings::Settings;
use crate::tags::{self, Resource};

/// Who a load balancer is for: one Service, or a group of them in a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holder {
    /// One Service.
    Service(ServiceId),
    /// The Services of a namespace that name the group.
    Group {
        /// Their namespace.
        namespace: String,
        /// The name.
        name: String,
    },
}

impl Holder {
    /// That of a Service. One whose group cannot be read has a load balancer of its own, and is refused.
    pub fn of(intent: &Intent) -> Self {
        match group(intent) {
            Ok(Some(name)) => Self::Group { namespace: intent.id.key.namespace.clone(), name: name.to_owned() },
            _ => Self::Service(intent.id.clone()),
        }
    }

    /// The shard: a Service that was made again under its name meets what its predecessor left.
    pub fn shard(&self) -> String {
        match self {
            Self::Service(id) => format!("{}/service/{}", id.key.namespace, id.key.name),
            Self::Group { namespace, name } => format!("{namespace}/group/{name}"),
        }
    }

    /// Whether a shard is that of a group.
    pub fn is_of_group(shard: &str) -> bool {
        shard.split('/').nth(1) == Some("group")
    }

    /// The Service, unless it is a group.
    pub fn service(&self) -> Option<&ServiceId> {
        match self {
            Self::Service(id) => Some(id),
            Self::Group { .. } => None,
        }
    }

    /// Namespace and name for people to know it by, and what tells it from a predecessor.
    fn words(&self) -> (&str, &str, &str) {
        match self {
            Self::Service(id) => (&id.key.namespace, &id.key.name, &id.uid),
            Self::Group { namespace, name } => (namespace, name, ""),
        }
    }
}

/// The load balancer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadBalancerModel {
    /// The name that it is made with.
    pub name: String,
    /// Of what cannot be changed.
    pub digest: String,
    /// Who reaches it.
    pub scheme: Scheme,
    /// Its families.
    pub ip_address_type: IpAddressType,
    /// Attributes that are set.
    pub attributes: Pairs,
    /// Its tags.
    pub tags: Pairs,
}

/// The security group of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecurityGroupModel {
    /// Its name.
    pub name: String,
    /// What it lets in.
    pub rules: BTreeSet<Rule>,
    /// Its tags.
    pub tags: Pairs,
}

/// A listener and its target group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortModel {
    /// The Service whose port it is.
    pub service: ServiceId,
    /// What it speaks.
    pub protocol: Protocol,
    /// For TLS.
    pub tls: Option<Tls>,
    /// Attributes of the listener that are set.
    pub attributes: Pairs,
    /// The listener's tags.
    pub tags: Pairs,
    /// Where its traffic goes.
    pub target_group: NewTargetGroup,
    /// Attributes of the target group that are set.
    pub target_attributes: Pairs,
}

/// The name of the security group of a holder.
pub fn security_group_name(settings: &Settings, holder: &Holder) -> String {
    let (namespace, named, uid) = holder.words();
    name(namespace, named, &digest(&[&settings.cluster_uid, &holder.shard(), uid, "security-group"]))
}

/// The name of the security group that all load balancers of the cluster have.
pub fn backend_group_name(settings: &Settings) -> String {
    name("backend", &settings.cluster, &digest(&[&settings.cluster_uid, "backend-security-group"]))
}

/// The load balancer that the Services of a holder are to have.
pub fn load_balancer(settings: &Settings, holder: &Holder, front: &Front) -> LoadBalancerModel {
    let (namespace, named, uid) = holder.words();
    let addresses = &front.addresses;
    let list = |all: Vec<String>| all.join(",");
    // What AWS takes when a load balancer is made, and never again.
    let digest = digest(&[
        &settings.cluster_uid,
        &holder.shard(),
        uid,
        front.scheme.as_str(),
        if front.security == Security::None { "no security group" } else { "" },
        &list(addresses.allocations.clone()),
        &list(addresses.private_v4.iter().map(ToString::to_string).collect()),
        &list(addresses.v6.iter().map(ToString::to_string).collect()),
    ]);
    let resource = Resource::LoadBalancer { digest: digest.clone() };
    let mut tags = front.tags.clone();
    tags.extend(tags::of(settings, &holder.shard(), &resource, holder.service()));
    LoadBalancerModel {
        name: front.name.clone().unwrap_or_else(|| name(namespace, named, &digest)),
        digest,
        scheme: front.scheme,
        ip_address_type: front.ip_address_type,
        attributes: front.attributes.clone(),
        tags,
    }
}

/// The security group of its own, if it is to have one.
pub fn security_group(
    settings: &Settings,
    holder: &Holder,
    front: &Front,
    rules: BTreeSet<Rule>,
) -> Option<SecurityGroupModel> {
    if front.security != Security::Managed {
        return None;
    }
    let mut tags = front.tags.clone();
    tags.extend(tags::of(settings, &holder.shard(), &Resource::SecurityGroup, holder.service()));
    Some(SecurityGroupModel { name: security_group_name(settings, holder), rules, tags })
}

/// The listener of a port of a Service, on the load balancer of that digest.
pub fn port(
    settings: &Settings,
    holder: &Holder,
    asks: &Asks,
    load_balancer: &str,
    number: u16,
    port: &PortAsks,
) -> PortModel {
    let shard = holder.shard();
    let target = &port.target;
    // What AWS takes when a target group is made, and never again. The port is not among it: every target has its own. The load balancer
    // is, because a target group can be of one alone.
    let digest = digest(&[
        load_balancer,
        &asks.service.uid,
        &number.to_string(),
        target.kind.as_str(),
        target.protocol.as_str(),
        target.family.as_str(),
    ]);
    let tagged = |resource: &Resource| {
        let mut tags = asks.front.tags.clone();
        tags.extend(tags::of(settings, &shard, resource, Some(&asks.service)));
        tags
    };
    let key = &asks.service.key;
    let target_group = NewTargetGroup {
        name: name(&key.namespace, &key.name, &digest),
        protocol: target.protocol,
        port: target.port,
        vpc_id: settings.vpc.clone(),
        target_type: target.kind,
        ip_address_type: target.family,
        health_check: target.health.clone(),
        tags: tagged(&Resource::TargetGroup { port: number, digest: digest.clone() }),
    };
    PortModel {
        service: asks.service.clone(),
        protocol: port.protocol,
        tls: port.tls.clone(),
        attributes: port.attributes.clone(),
        tags: tagged(&Resource::Listener { port: number }),
        target_group,
        target_attributes: target.attributes.clone(),
    }
}

/// All listeners of these Services.
pub fn ports(settings: &Settings, holder: &Holder, members: &[&Asks], load_balancer: &str) -> BTreeMap<u16, PortModel> {
    let each = members.iter().flat_map(|asks| asks.ports.iter().map(move |(number, of)| (*asks, *number, of)));
    each.map(|(asks, number, of)| (number, port(settings, holder, asks, load_balancer, number, of))).collect()
}
