//! What an operator says about all load balancers.

use std::collections::BTreeSet;

use crate::intent::TargetKind;

/// Which namespaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Namespaces {
    /// All of them.
    All,
    /// These. None, where nothing is said.
    Only(BTreeSet<String>),
}

impl Default for Namespaces {
    fn default() -> Self {
        Self::Only(BTreeSet::new())
    }
}

impl Namespaces {
    /// Whether it is one of them.
    pub fn has(&self, namespace: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(these) => these.contains(namespace),
        }
    }
}

/// What is admitted where. Where nothing is said, internal load balancers with objects of their own, and no more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Admission {
    /// Where a Service may ask for a load balancer that the internet reaches.
    pub internet_facing: Namespaces,
    /// Where a Service may name Elastic IPs, subnets and security groups that exist.
    pub references: Namespaces,
    /// How many load balancers the Services of one namespace may have; no limit where it is not given.
    pub load_balancers_per_namespace: Option<usize>,
}

/// What an operator says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The cluster's name, which subnets are tagged with (`kubernetes.io/cluster/NAME`).
    pub cluster: String,
    /// The UID of the namespace kube-system: tells this cluster from another of the same name.
    pub cluster_uid: String,
    /// The VPC that nodes are in.
    pub vpc: String,
    /// Where traffic goes when the Service does not say.
    pub target_kind: TargetKind,
    /// The security policy of TLS listeners when the Service does not name one.
    pub ssl_policy: String,
    /// Keys of tags that somebody else manages on our objects: they are neither set nor removed.
    pub external_tags: BTreeSet<String>,
    /// What is admitted where.
    pub admission: Admission,
}

impl Settings {
    /// Those of ALBC where nothing else is said.
    pub fn of(cluster: &str, cluster_uid: &str, vpc: &str) -> Self {
        Self {
            cluster: cluster.to_owned(),
            cluster_uid: cluster_uid.to_owned(),
            vpc: vpc.to_owned(),
            target_kind: TargetKind::Instance,
            ssl_policy: "ELBSecurityPolicy-2016-08".to_owned(),
            external_tags: BTreeSet::new(),
            admission: Admission::default(),
        }
    }
}
