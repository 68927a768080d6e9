//! What an operator says about all Services.

use std::collections::BTreeMap;

use berth_provider::Namespaces;

/// Rules that one network interface takes behind load balancers (Azure rule).
pub const RULES_PER_INTERFACE: usize = 300;
/// Frontends of a Standard Load Balancer (Azure rule).
pub const FRONTENDS: usize = 600;
/// Rules of a network security group (Azure rule).
pub const SECURITY_RULES: usize = 1000;
/// Sources, and destinations, of one security rule (Azure rule).
pub const PREFIXES_PER_RULE: usize = 4000;

/// What is admitted where. Where nothing is said, internal frontends in the configured subnet, and no more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Admission {
    /// Where a Service may have a frontend that the internet reaches.
    pub public: Namespaces,
    /// Where a Service may name public IPs, prefixes, resource groups and subnets that exist.
    pub references: Namespaces,
}

/// Whom the internet reaches where a Service does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DefaultScheme {
    /// Nobody.
    #[default]
    Internal,
    /// Every admitted Service: AKS's own default.
    Public,
}

/// How nodes are asked whether they take traffic for Services with the Cluster policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClusterProbe {
    /// Each node port by itself.
    ServiceNodePort,
    /// kube-proxy, once for all, by HTTP.
    Shared {
        /// Where it answers.
        port: u16,
        /// Under which path.
        path: String,
    },
}

/// Where a resource is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Its resource group.
    pub group: String,
    /// Its name.
    pub name: String,
}

/// What an operator says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The cluster's name: that of the load balancer and the backend pools unless another is given.
    pub cluster: String,
    /// The UID of the namespace kube-system: tells this cluster from another of the same name.
    pub cluster_uid: String,
    /// The subscription.
    pub subscription: String,
    /// The region.
    pub location: String,
    /// The resource group of public IPs.
    pub resource_group: String,
    /// The public load balancer; the internal one has `-internal` behind its name.
    pub load_balancer: Place,
    /// The network that nodes are in.
    pub network: Place,
    /// The subnet of internal frontends that name none.
    pub subnet: String,
    /// The network security group of the nodes; none, where somebody else opens it.
    pub security_group: Option<Place>,
    /// Whether rules are not used for connections from the nodes.
    pub disable_outbound_snat: bool,
    /// Load-balancing rules that there may be behind one network interface.
    pub max_rules: usize,
    /// How nodes are asked for Services with the Cluster policy.
    pub cluster_probe: ClusterProbe,
    /// Zones of what is made; empty for those that Azure chooses.
    pub zones: Vec<String>,
    /// Tags of what is made.
    pub tags: BTreeMap<String, String>,
    /// Whom the internet reaches where a Service does not say.
    pub default_scheme: DefaultScheme,
    /// What is admitted where.
    pub admission: Admission,
}

impl Settings {
    /// Those of cloud-provider-azure where nothing else is said, with everything in one resource group.
    pub fn of(cluster: &str, cluster_uid: &str, subscription: &str, group: &str, location: &str) -> Self {
        let place = |name: &str| Place { group: group.to_owned(), name: name.to_owned() };
        Self {
            cluster: cluster.to_owned(),
            cluster_uid: cluster_uid.to_owned(),
            subscription: subscription.to_owned(),
            location: location.to_owned(),
            resource_group: group.to_owned(),
            load_balancer: place(cluster),
            network: place(&format!("{cluster}-vnet")),
            subnet: "default".to_owned(),
            security_group: Some(place(&format!("{cluster}-nsg"))),
            disable_outbound_snat: false,
            max_rules: RULES_PER_INTERFACE,
            cluster_probe: ClusterProbe::ServiceNodePort,
            zones: Vec::new(),
            tags: BTreeMap::new(),
            default_scheme: DefaultScheme::Internal,
            admission: Admission::default(),
        }
    }
}
