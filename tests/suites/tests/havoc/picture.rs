//! What the API server holds at one moment, and what must be so at every moment.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use berth_api::crd::ServiceRef;
use berth_api::names::POOL_CLASS;
use berth_api::service::{Families, Request, Second, ServiceKey};
use berth_api::{Announcement, IpFamily, annotations};
use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt as _;

use crate::operation::POOLS;

/// One Service.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    pub uid: String,
    pub version: u64,
    /// Whether it asks us.
    pub ours: bool,
    pub families: Families,
    /// What it asks for; nothing when that cannot be read.
    pub request: Option<Request>,
    /// The addresses in its status.
    pub addresses: Vec<IpAddr>,
    /// Its condition `berth.dev/Allocated`: whether it holds, and why.
    pub allocated: Option<(String, String)>,
    sharing: Option<String>,
    ports: BTreeSet<(String, i32)>,
}

impl Seen {
    pub fn of(service: &Service) -> Self {
        let spec = service.spec.clone().unwrap_or_default();
        let status = service.status.clone().unwrap_or_default();
        let ingress = status.load_balancer.and_then(|l| l.ingress).unwrap_or_default();
        let allocated = status.conditions.unwrap_or_default().into_iter().find(|c| c.type_ == "berth.dev/Allocated");
        let ports = spec.ports.iter().flatten();
        Self {
            uid: service.uid().unwrap_or_default(),
            version: version(service.resource_version()),
            ours: spec.type_.as_deref() == Some("LoadBalancer")
                && spec.load_balancer_class.as_deref().is_none_or(|class| class == POOL_CLASS),
            families: Families::of(service),
            request: Request::parse(service).ok(),
            addresses: ingress.iter().filter_map(|i| i.ip.as_ref()?.parse().ok()).collect(),
            allocated: allocated.map(|c| (c.status, c.reason)),
            sharing: service.annotations().get(annotations::ALLOW_SHARED_IP).cloned(),
            ports: ports.map(|p| (p.protocol.clone().unwrap_or_default(), p.port)).collect(),
        }
    }

    /// The address of a family in its status.
    pub fn address(&self, family: IpFamily) -> Option<IpAddr> {
        self.addresses.iter().copied().find(|address| IpFamily::of(*address) == family)
    }

    /// Whether it has an address of each family, both of one pool.
    fn has_pair(&self) -> bool {
        let pools: BTreeSet<_> = self.addresses.iter().map(|address| pool_of(*address)).collect();
        self.addresses.len() == 2 && pools.len() == 1
    }

    /// Whether `address` is what it asks for. What cannot be read asks for nothing else.
    pub fn is_content_with(&self, address: IpAddr) -> bool {
        let Some(request) = &self.request else { return true };
        request.addresses.get(IpFamily::of(address)).is_none_or(|asked| asked == address)
            && request.pool.as_deref().is_none_or(|asked| pool_of(address) == Some(asked))
    }
}

/// Whether two Services may have the same address: with the same key in one namespace, and no port in common.
pub fn may_share(a: (&ServiceKey, &Seen), b: (&ServiceKey, &Seen)) -> bool {
    let ((a_key, a), (b_key, b)) = (a, b);
    a.sharing.is_some() && a.sharing == b.sharing && a_key.namespace == b_key.namespace && a.ports.is_disjoint(&b.ports)
}

/// One Announcement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    pub version: u64,
    pub pool: String,
    pub services: Vec<ServiceRef>,
}

impl Claim {
    pub fn of(announcement: &Announcement) -> (IpAddr, Self) {
        let claim = Self {
            version: version(announcement.resource_version()),
            pool: announcement.spec.pool.clone(),
            services: announcement.spec.services.clone(),
        };
        (announcement.spec.address, claim)
    }

    pub fn names(&self, service: &Seen) -> bool {
        self.services.iter().any(|named| named.uid == service.uid)
    }
}

/// A revision of the API server's store.
pub fn version(text: Option<String>) -> u64 {
    text.and_then(|text| text.parse().ok()).unwrap_or_default()
}

/// The pool that an address lies in, whatever that has of its addresses now.
pub fn pool_of(address: IpAddr) -> Option<&'static str> {
    POOLS.iter().find(|pool| pool.all().any(|one| one == address)).map(|pool| pool.name)
}

/// All of it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Picture {
    pub services: BTreeMap<ServiceKey, Seen>,
    pub claims: BTreeMap<IpAddr, Claim>,
}

impl Picture {
    /// What must be so at every moment. Says what is not.
    pub fn check(&self) -> Result<(), String> {
        self.check_holders()?;
        self.check_claims()
    }

    /// No address stands in the statuses of two Services that may not share it.
    pub fn check_holders(&self) -> Result<(), String> {
        let mut holders: BTreeMap<IpAddr, Vec<(&ServiceKey, &Seen)>> = BTreeMap::new();
        for one in &self.services {
            for address in &one.1.addresses {
                let others = holders.entry(*address).or_default();
                if let Some((other, _)) = others.iter().find(|other| !may_share(**other, one)) {
                    return Err(format!("{address} is in the status of both {other} and {}", one.0));
                }
                others.push(one);
            }
        }
        Ok(())
    }

    /// Every address in a status has an Announcement that names the Service, and no Announcement names two that may not share.
    fn check_claims(&self) -> Result<(), String> {
        for (key, seen) in &self.services {
            for address in &seen.addresses {
                let Some(claim) = self.claims.get(address) else {
                    return Err(format!("{address} is in the status of {key} and has no Announcement"));
                };
                if !claim.names(seen) {
                    let named = &claim.services;
                    return Err(format!("{address} is in the status of {key}, and its Announcement names {named:?}"));
                }
            }
        }
        for (address, claim) in &self.claims {
            let named: Vec<_> = self.services.iter().filter(|(_, seen)| claim.names(seen)).collect();
            for (place, one) in named.iter().enumerate() {
                if let Some(other) = named[..place].iter().find(|other| !may_share(**other, *one)) {
                    return Err(format!("the Announcement of {address} names both {} and {}", other.0, one.0));
                }
            }
        }
        Ok(())
    }

    /// What a Service has is taken from it for no reason but its own request. `self` is the picture before it became `after`.
    pub fn check_kept(&self, key: &ServiceKey, after: &Seen) -> Result<(), String> {
        let Some(before) = self.services.get(key).filter(|before| before.uid == after.uid) else { return Ok(()) };
        for address in &before.addresses {
            let family = IpFamily::of(*address);
            if after.addresses.contains(address) || !after.ours || !after.families.has(family) {
                continue;
            }
            match after.address(family) {
                None => return Err(format!("{key} lost {address}, and has no {family} address instead")),
                // Both come from one pool, so a pair that its pool could not complete goes to another.
                Some(_) if after.families.second == Some(Second::Required) && !before.has_pair() => {}
                Some(other) if after.is_content_with(*address) => {
                    return Err(format!("{key} was moved from {address}, which is what it asks for, to {other}"));
                }
                Some(_) => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn key(name: &str) -> ServiceKey {
        ServiceKey { namespace: "default".to_owned(), name: name.to_owned() }
    }

    /// A Service of this name, which is its UID too, with these addresses in its status.
    fn service(name: &str, spec: &Value, annotations: &Value, addresses: &[&str]) -> (ServiceKey, Seen) {
        let ingress: Vec<_> = addresses.iter().map(|address| json!({"ip": address})).collect();
        let service = json!({
            "metadata": {"namespace": "default", "name": name, "uid": name, "annotations": annotations},
            "spec": spec,
            "status": {"loadBalancer": {"ingress": ingress}},
        });
        (key(name), Seen::of(&serde_json::from_value(service).unwrap()))
    }

    fn load_balancer(port: u16) -> Value {
        json!({"type": "LoadBalancer", "ipFamilies": ["IPv4"], "ports": [{"port": port, "protocol": "TCP"}]})
    }

    fn claim(address: &str, names: &[&str]) -> (IpAddr, Claim) {
        let service = |name: &&str| ServiceRef {
            namespace: "default".to_owned(),
            name: (*name).to_owned(),
            uid: (*name).to_owned(),
            ..ServiceRef::default()
        };
        let services = names.iter().map(service).collect();
        (address.parse().unwrap(), Claim { version: 0, pool: "east".to_owned(), services })
    }

    #[test]
    fn a_picture_is_as_it_must_be_or_says_what_is_wrong() {
        let plain = |name: &str, addresses: &[&str]| service(name, &load_balancer(80), &json!({}), addresses);
        let red = |name: &str, port, addresses: &[&str]| {
            service(name, &load_balancer(port), &json!({"berth.dev/allow-shared-ip": "red"}), addresses)
        };
        let one = "192.0.2.200";
        let cases = [
            ("one holder", vec![plain("a", &[one])], vec![claim(one, &["a"])], None),
            ("a claim that is not published", vec![plain("a", &[])], vec![claim(one, &["a"])], None),
            (
                "two holders",
                vec![plain("a", &[one]), plain("b", &[one])],
                vec![claim(one, &["a"])],
                Some("status of both"),
            ),
            ("no claim", vec![plain("a", &[one])], vec![], Some("no Announcement")),
            ("another's claim", vec![plain("a", &[one])], vec![claim(one, &["b"])], Some("Announcement names")),
            (
                "one claim for two",
                vec![plain("a", &[]), plain("b", &[])],
                vec![claim(one, &["a", "b"])],
                Some("names both"),
            ),
            ("sharers", vec![red("a", 80, &[one]), red("b", 81, &[one])], vec![claim(one, &["a", "b"])], None),
            (
                "sharers of one port",
                vec![red("a", 80, &[one]), red("b", 80, &[one])],
                vec![claim(one, &["a", "b"])],
                Some("status of both"),
            ),
            (
                "one that shares with one that does not",
                vec![red("a", 80, &[one]), plain("b", &[one])],
                vec![claim(one, &["a", "b"])],
                Some("status of both"),
            ),
        ];
        for (what, services, claims, wrong) in cases {
            let picture = Picture { services: services.into_iter().collect(), claims: claims.into_iter().collect() };
            let said = picture.check();
            assert_eq!(said.is_err(), wrong.is_some(), "{what}: {said:?}");
            assert!(said.err().unwrap_or_default().contains(wrong.unwrap_or_default()), "{what}");
        }
    }

    #[test]
    fn what_is_held_goes_only_at_its_holders_own_wish() {
        let asks = |wish: &str| json!({"berth.dev/load-balancer-ips": wish});
        let of = |annotations: Value, addresses: &[&str]| service("a", &load_balancer(80), &annotations, addresses).1;
        let (one, two) = ("192.0.2.200", "192.0.2.201");
        let cluster_ip = json!({"type": "ClusterIP", "ipFamilies": ["IPv4"]});
        let another = Seen { uid: "b".to_owned(), ..of(json!({}), &[two]) };
        for (what, after, kept) in [
            ("it stays", of(json!({}), &[one]), true),
            ("it is taken", of(json!({}), &[]), false),
            ("it is moved", of(json!({}), &[two]), false),
            ("it is moved as it asks", of(asks(two), &[two]), true),
            ("it is taken while it asks for another", of(asks(two), &[]), false),
            ("it asked for what it had", of(asks(one), &[two]), false),
            ("it asks for another pool", of(json!({"berth.dev/address-pool": "west"}), &["192.0.2.220"]), true),
            ("it asks nobody any more", service("a", &cluster_ip, &json!({}), &[]).1, true),
            ("it is another one of that name", another, true),
        ] {
            let before = Picture { services: [(key("a"), of(json!({}), &[one]))].into(), ..Picture::default() };
            assert_eq!(before.check_kept(&key("a"), &after).is_ok(), kept, "{what}");
        }
    }
}
