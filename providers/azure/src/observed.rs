//! What was seen: whole documents.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use berth_api::IpFamily;
use berth_provider::ServiceId;
use serde_json::Value;

use crate::arm::Id;
use crate::document::{address, at, name, parts, text};
use crate::intent::{Asks, Scheme};
use crate::names;
use crate::refusal::Refusal;
use crate::settings::Settings;

/// What was seen.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// The load balancers that there are.
    pub load_balancers: BTreeMap<Scheme, Value>,
    /// The network security group, if there is one.
    pub security_group: Option<Value>,
    /// Public IPs of the resource groups that are asked for.
    pub public_ips: BTreeMap<Id, Value>,
    /// Resource groups that Services name, or that had something of ours, and that cannot be looked into, in small letters, and why.
    pub closed_groups: BTreeMap<String, Refusal>,
    /// Whose public IPs were in those when they were last looked into.
    pub shut_in: BTreeMap<String, BTreeSet<ServiceId>>,
    /// Subnets that internal Services are to be in, by name; `None` for one that is not there.
    pub subnets: BTreeMap<String, Option<Value>>,
    /// Those of them that cannot be looked at, and why.
    pub closed_subnets: BTreeMap<String, Refusal>,
    /// Services for which Azure refused a load balancer, what they asked for then, and how it was refused.
    pub blamed: BTreeMap<ServiceId, (Asks, Refusal)>,
    /// Whether this process was filling a backend pool meanwhile: a load balancer is busy then, and all that is in it serves.
    pub fills_pools: bool,
    /// How soon it is worth looking again at what Azure has under way, where that has taken long; soon, where nothing is said.
    pub patience: Option<Duration>,
    /// How many Services may change in one write: fewer while it is found out which of them Azure refuses.
    pub at_once: Option<usize>,
}

/// The load balancer of a scheme.
pub fn load_balancer(settings: &Settings, scheme: Scheme) -> Id {
    let place = &settings.load_balancer;
    let name = match scheme {
        Scheme::Public => place.name.clone(),
        Scheme::Internal => format!("{}-internal", place.name),
    };
    Id::network(settings, &place.group, "loadBalancers", &name)
}

/// A subnet of the cluster's network.
pub fn subnet(settings: &Settings, name: &str) -> Id {
    Id::at(settings, "virtualNetworks", &settings.network).child("subnets", name)
}

impl Observed {
    /// The address of a frontend, if it has one by now.
    pub fn address_of(&self, frontend: &Value) -> Option<IpAddr> {
        if let Some(id) = text(frontend, &["properties", "publicIPAddress", "id"]) {
            return address(self.public_ips.get(&Id::new(id))?, &["properties", "ipAddress"]);
        }
        address(frontend, &["properties", "privateIPAddress"])
    }

    /// All frontends, with their load balancer.
    pub fn frontends(&self) -> impl Iterator<Item = (Scheme, &Value)> {
        self.load_balancers
            .iter()
            .flat_map(|(scheme, document)| parts(document, "frontendIPConfigurations").iter().map(|f| (*scheme, f)))
    }

    /// The addresses of nodes in the backend pools of a family.
    pub fn nodes(&self, settings: &Settings, family: IpFamily) -> BTreeSet<IpAddr> {
        let pools = self.load_balancers.values().flat_map(|document| parts(document, "backendAddressPools"));
        let pool = names::pool(&settings.cluster, family);
        pools.filter(|p| name(p).eq_ignore_ascii_case(&pool)).flat_map(addresses).collect()
    }
}

/// The resource groups of the public IPs that a load balancer refers to.
pub fn groups_of(document: &Value) -> BTreeSet<String> {
    parts(document, "frontendIPConfigurations").iter().filter_map(group_of).collect()
}

/// The resource group of the public IP that a frontend refers to.
pub fn group_of(frontend: &Value) -> Option<String> {
    Id::new(text(frontend, &["properties", "publicIPAddress", "id"])?).group().map(str::to_owned)
}

/// The addresses in a backend pool.
pub fn addresses(pool: &Value) -> BTreeSet<IpAddr> {
    let entries = parts(pool, "loadBalancerBackendAddresses");
    entries.iter().filter_map(|entry| address(entry, &["properties", "ipAddress"])).collect()
}

/// The state that Azure says a document is in.
pub fn state(document: &Value) -> &str {
    text(document, &["properties", "provisioningState"]).unwrap_or("Succeeded")
}

/// The family of a frontend's address.
pub fn version(properties: &Value, field: &str) -> IpFamily {
    let is_v6 = at(properties, &["properties", field]).and_then(Value::as_str).is_some_and(|v| v == "IPv6");
    if is_v6 { IpFamily::V6 } else { IpFamily::V4 }
}
