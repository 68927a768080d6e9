//! The tags by which we know what is ours, and what it is.
//!
//! The cluster's name is there for people and policies. Its kube-system UID tells it from another cluster of the same name.

use std::fmt;
use std::str::FromStr;

use berth_api::service::ServiceKey;
use berth_provider::ServiceId;

use crate::cloud::Pairs;
use crate::settings::Settings;

/// What our tags begin with.
pub const PREFIX: &str = "berth.dev/";
/// The cluster's name.
pub const CLUSTER: &str = "berth.dev/cluster";
/// The UID of its namespace kube-system.
pub const CLUSTER_UID: &str = "berth.dev/cluster-uid";
/// The shard.
pub const SHARD: &str = "berth.dev/shard";
/// What it is within the shard.
pub const RESOURCE: &str = "berth.dev/resource";
/// The Service that it was made for; not on what a group shares.
pub const SERVICE: &str = "berth.dev/service";
/// The UID of that Service.
pub const SERVICE_UID: &str = "berth.dev/service-uid";

/// What a cloud object is for. What cannot be changed in place has a digest of all that cannot: another digest is another object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Resource {
    /// The load balancer.
    LoadBalancer {
        /// Of what cannot be changed.
        digest: String,
    },
    /// Where the traffic of a port goes.
    TargetGroup {
        /// The listener's port.
        port: u16,
        /// Of what cannot be changed.
        digest: String,
    },
    /// The listener of a port.
    Listener {
        /// The port.
        port: u16,
    },
    /// The load balancer's security group.
    SecurityGroup,
    /// The one that all load balancers of the cluster have, and that nodes and pods let in. It is in no shard.
    BackendSecurityGroup,
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LoadBalancer { digest } => write!(f, "load-balancer/{digest}"),
            Self::TargetGroup { port, digest } => write!(f, "target-group/{port}/{digest}"),
            Self::Listener { port } => write!(f, "listener/{port}"),
            Self::SecurityGroup => f.write_str("security-group"),
            Self::BackendSecurityGroup => f.write_str("backend-security-group"),
        }
    }
}

/// A tag that is no resource of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no resource")]
pub struct NoResource;

impl FromStr for Resource {
    type Err = NoResource;

    fn from_str(text: &str) -> Result<Self, NoResource> {
        let parts: Vec<_> = text.split('/').collect();
        match parts[..] {
            ["load-balancer", digest] => Ok(Self::LoadBalancer { digest: digest.to_owned() }),
            ["target-group", port, digest] => {
                let port = port.parse().map_err(|_| NoResource)?;
                Ok(Self::TargetGroup { port, digest: digest.to_owned() })
            }
            ["listener", port] => Ok(Self::Listener { port: port.parse().map_err(|_| NoResource)? }),
            ["security-group"] => Ok(Self::SecurityGroup),
            ["backend-security-group"] => Ok(Self::BackendSecurityGroup),
            _ => Err(NoResource),
        }
    }
}

/// The tags of everything of this cluster.
pub fn of_cluster(settings: &Settings) -> Pairs {
    [(CLUSTER, &settings.cluster), (CLUSTER_UID, &settings.cluster_uid)]
        .map(|(key, value)| (key.to_owned(), value.clone()))
        .into()
}

/// The tags of a cloud object.
pub fn of(settings: &Settings, shard: &str, resource: &Resource, service: Option<&ServiceId>) -> Pairs {
    let mut tags = of_cluster(settings);
    tags.insert(SHARD.to_owned(), shard.to_owned());
    tags.insert(RESOURCE.to_owned(), resource.to_string());
    if let Some(service) = service {
        tags.insert(SERVICE.to_owned(), service.key.to_string());
        tags.insert(SERVICE_UID.to_owned(), service.uid.clone());
    }
    tags
}

/// The tags of the backend security group.
pub fn of_backend(settings: &Settings) -> Pairs {
    let mut tags = of_cluster(settings);
    tags.insert(RESOURCE.to_owned(), Resource::BackendSecurityGroup.to_string());
    tags
}

/// Whether it is this cluster's.
pub fn is_ours(settings: &Settings, tags: &Pairs) -> bool {
    of_cluster(settings).iter().all(|(key, value)| tags.get(key) == Some(value))
}

/// What it is.
pub fn resource(tags: &Pairs) -> Option<Resource> {
    tags.get(RESOURCE)?.parse().ok()
}

/// The Service that it was made for.
pub fn service(tags: &Pairs) -> Option<ServiceId> {
    let (namespace, name) = tags.get(SERVICE)?.split_once('/')?;
    let key = ServiceKey { namespace: namespace.to_owned(), name: name.to_owned() };
    Some(ServiceId { key, uid: tags.get(SERVICE_UID)?.clone() })
}

/// The keys that say that something is ours, of those that it has.
pub fn ownership(tags: &Pairs) -> Vec<String> {
    tags.keys().filter(|key| key.starts_with(PREFIX)).cloned().collect()
}

/// What is to be set and what is to be removed for `seen` to become `wanted`.
///
/// AWS's own tags and those that somebody else manages are left alone. Those that say whose something is are never set on what is
/// there: they are what it was found by, and a policy may forbid it.
pub fn change(settings: &Settings, wanted: &Pairs, seen: &Pairs) -> (Pairs, Vec<String>) {
    let ours =
        |key: &str| !key.starts_with("aws:") && !key.starts_with(PREFIX) && !settings.external_tags.contains(key);
    let set = wanted.iter().filter(|(key, value)| ours(key) && seen.get(*key) != Some(value));
    let set = set.map(|(key, value)| (key.clone(), value.clone())).collect();
    let remove = seen.keys().filter(|key| ours(key) && !wanted.contains_key(*key)).cloned().collect();
    (set, remove)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(pairs: &[(&str, &str)]) -> Pairs {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn what_a_resource_is_called_is_read_again() {
        for text in [
            "load-balancer/0123456789",
            "target-group/80/0123456789",
            "listener/443",
            "security-group",
            "backend-security-group",
        ] {
            assert_eq!(text.parse::<Resource>().unwrap().to_string(), text);
        }
        for text in ["", "load-balancer", "target-group/x/1", "listener/99999", "security-group/1"] {
            assert!(text.parse::<Resource>().is_err(), "{text}");
        }
    }

    #[test]
    fn only_what_has_both_the_name_and_the_uid_of_the_cluster_is_ours() {
        let settings = Settings::of("prod", "uid-1", "vpc-1");
        for (tags, ours) in [
            (pairs(&[(CLUSTER, "prod"), (CLUSTER_UID, "uid-1")]), true),
            (pairs(&[(CLUSTER, "prod"), (CLUSTER_UID, "uid-2")]), false),
            (pairs(&[(CLUSTER, "prod")]), false),
            (pairs(&[("Name", "prod")]), false),
            (pairs(&[]), false),
        ] {
            assert_eq!(is_ours(&settings, &tags), ours, "{tags:?}");
        }
    }

    #[test]
    fn tags_of_others_and_those_of_ownership_are_left_alone() {
        let mut settings = Settings::of("prod", "uid-1", "vpc-1");
        settings.external_tags.insert("cost".to_owned());
        let seen = pairs(&[(CLUSTER, "prod"), ("aws:made-by", "x"), ("cost", "7"), ("old", "1"), ("team", "a")]);
        let wanted = pairs(&[(CLUSTER, "prod"), (CLUSTER_UID, "uid-1"), ("team", "b")]);
        assert_eq!(change(&settings, &wanted, &seen), (pairs(&[("team", "b")]), vec!["old".to_owned()]));
    }
}
