//! What must be so once every fault is over and all work is done: nothing is lost.

use std::collections::BTreeMap;
use std::net::IpAddr;

use berth_api::pool::Addresses;
use berth_api::service::{Second, ServiceKey};
use berth_api::{IPAddressPool, IpFamily};
use kube::ResourceExt as _;

use crate::operation::POOLS;
use crate::picture::{Picture, Seen, may_share};

/// A pool as it is now.
#[derive(Debug, Clone)]
pub struct Pool {
    addresses: Addresses,
    auto_assign: bool,
    /// What its status counts: held and free, of each family.
    counted: BTreeMap<&'static str, (Option<i64>, Option<i64>)>,
}

impl Pool {
    pub fn of(pool: &IPAddressPool) -> Result<(String, Self), String> {
        let name = pool.name_any();
        let addresses = Addresses::parse(&pool.spec.addresses).map_err(|error| format!("pool {name}: {error}"))?;
        let status = pool.status.clone().unwrap_or_default();
        let counted = BTreeMap::from([
            ("IPv4", (status.assigned_ipv4, status.available_ipv4)),
            ("IPv6", (status.assigned_ipv6, status.available_ipv6)),
        ]);
        Ok((name, Self { addresses, auto_assign: pool.spec.auto_assign, counted }))
    }
}

/// Says what is not as it must be.
pub fn check(picture: &Picture, pools: &BTreeMap<String, Pool>) -> Result<(), String> {
    picture.check()?;
    for (key, seen) in &picture.services {
        if seen.ours {
            check_served(picture, pools, key, seen).map_err(|what| format!("{key}: {what}"))?;
        } else if !seen.addresses.is_empty() {
            return Err(format!("{key} asks nobody here and has {:?}", seen.addresses));
        }
    }
    for (address, claim) in &picture.claims {
        for named in &claim.services {
            let key = ServiceKey { namespace: named.namespace.clone(), name: named.name.clone() };
            let seen = picture.services.get(&key).filter(|seen| seen.uid == named.uid);
            let Some(seen) = seen else {
                return Err(format!("the Announcement of {address} names {key}, which is gone"));
            };
            if !seen.addresses.contains(address) {
                return Err(format!("the Announcement of {address} names {key}, which has {:?}", seen.addresses));
            }
        }
    }
    pools.iter().try_for_each(|(name, pool)| check_counters(picture, name, pool))
}

/// It has what it asks for, or that is not to be had.
fn check_served(
    picture: &Picture,
    pools: &BTreeMap<String, Pool>,
    key: &ServiceKey,
    seen: &Seen,
) -> Result<(), String> {
    let Some((status, reason)) = &seen.allocated else { return Err("no condition says how it is".to_owned()) };
    let lacking: Vec<_> = seen
        .families
        .iter()
        .filter(|family| !seen.address(*family).is_some_and(|address| seen.is_content_with(address)))
        .collect();
    let told = status == "True";
    let Some(_) = &seen.request else {
        return if told { Err("what cannot be read is said to be met".to_owned()) } else { Ok(()) };
    };
    let obtainable = |family: &IpFamily| to_be_had(picture, pools, key, seen, *family);
    let missing: Vec<_> = lacking.iter().map(|family| (*family, obtainable(family))).collect();
    let all_or_none = seen.families.second == Some(Second::Required);
    let could = if all_or_none {
        // Only both together help.
        missing.iter().all(|(_, address)| address.is_some()) && !missing.is_empty()
    } else {
        missing.iter().any(|(_, address)| address.is_some())
    };
    // Of two families that it prefers to have, an address that is asked for and not to be had makes the whole wait.
    let held_up = missing.iter().any(|(family, address)| {
        address.is_none() && seen.request.as_ref().is_some_and(|request| request.addresses.get(*family).is_some())
    });
    if could && !held_up {
        return Err(format!("has {:?} ({reason}) and lacks {missing:?}, which is to be had", seen.addresses));
    }
    if lacking.is_empty() && !told {
        return Err(format!("has {:?}, all that it asks for, and is told {reason}", seen.addresses));
    }
    if seen.addresses.is_empty() && told {
        return Err(format!("has nothing and is told {reason}"));
    }
    Ok(())
}

/// An address of a family that the Service could be given.
fn to_be_had(
    picture: &Picture,
    pools: &BTreeMap<String, Pool>,
    key: &ServiceKey,
    seen: &Seen,
    family: IpFamily,
) -> Option<IpAddr> {
    let request = seen.request.as_ref()?;
    let asked = *request.addresses.get(family);
    let gives = |name: &str, pool: &Pool, address: IpAddr| {
        let named = request.pool.as_deref().map_or(asked.is_some() || pool.auto_assign, |wanted| wanted == name);
        named && pool.addresses.contains(address)
    };
    let free = |address: IpAddr| match picture.claims.get(&address) {
        None => true,
        // Whoever asks for an address is given it beside those who share it; others are only given free ones for sure.
        Some(claim) => {
            asked == Some(address)
                && picture
                    .services
                    .iter()
                    .filter(|(_, other)| claim.names(other))
                    .all(|other| may_share(other, (key, seen)))
        }
    };
    let all = POOLS.iter().flat_map(|layout| layout.all().map(|address| (layout.name, address)));
    let of_family = all.filter(|(_, address)| IpFamily::of(*address) == family);
    let wanted = of_family.filter(|(_, address)| asked.is_none_or(|asked| asked == *address));
    let mut found = wanted.filter(|(name, address)| pools.get(*name).is_some_and(|pool| gives(name, pool, *address)));
    found.find(|(_, address)| free(*address)).map(|(_, address)| address)
}

fn check_counters(picture: &Picture, name: &str, pool: &Pool) -> Result<(), String> {
    for family in IpFamily::ALL {
        let of_family = |address: &IpAddr| IpFamily::of(*address) == family;
        let held = picture.claims.iter().filter(|(address, claim)| of_family(address) && claim.pool == name).count();
        let all = POOLS.iter().filter(|layout| layout.name == name).flat_map(|layout| layout.all());
        let free =
            all.filter(|a| of_family(a) && pool.addresses.contains(*a) && !picture.claims.contains_key(a)).count();
        let actual = [held, free].map(|count| i64::try_from(count).ok());
        let (assigned, available) = pool.counted.get(family.as_str()).copied().unwrap_or_default();
        if actual != [assigned, available] {
            return Err(format!(
                "pool {name} counts {assigned:?} {family} addresses held and {available:?} free; they are {actual:?}"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use berth_api::crd::ServiceRef;
    use serde_json::json;

    use super::*;
    use crate::picture::Claim;

    const ONE: &str = "192.0.2.200";

    /// A Service `a` that asks for any address or a certain one, with this address and condition.
    fn service(asks: Option<&str>, address: Option<&str>, allocated: &str) -> Seen {
        let ingress: Vec<_> = address.iter().map(|address| json!({"ip": address})).collect();
        let condition = json!({
            "type": "berth.dev/Allocated", "status": allocated, "reason": "Because", "message": "",
            "lastTransitionTime": "2020-01-01T00:00:00Z",
        });
        let annotations = asks.map(|address| json!({"berth.dev/load-balancer-ips": address}));
        let service = json!({
            "metadata": {"namespace": "default", "name": "a", "uid": "a", "annotations": annotations},
            "spec": {"type": "LoadBalancer", "ipFamilies": ["IPv4"]},
            "status": {"loadBalancer": {"ingress": ingress}, "conditions": [condition]},
        });
        Seen::of(&serde_json::from_value(service).unwrap())
    }

    /// The pool `east` with so many of its IPv4 addresses, of which as many are held and free as it counts.
    fn pool(size: u8, held: i64, free: i64) -> Pool {
        let addresses = Addresses::parse(&[POOLS[0].range(IpFamily::V4, size)]).unwrap();
        let counted = [("IPv4", (Some(held), Some(free))), ("IPv6", (Some(0), Some(0)))].into();
        Pool { addresses, auto_assign: true, counted }
    }

    #[test]
    fn nothing_is_lost_and_nothing_left_over() {
        let (free, two) = (None, "192.0.2.201");
        let cases = [
            ("served", service(None, Some(ONE), "True"), Some((ONE, "a")), pool(2, 1, 1), None),
            ("forgotten", service(None, None, "False"), free, pool(2, 0, 2), Some("is to be had")),
            ("none is left", service(None, None, "False"), Some((ONE, "b")), pool(1, 1, 0), Some("which is gone")),
            (
                "the asked one is free",
                service(Some(two), Some(ONE), "False"),
                Some((ONE, "a")),
                pool(2, 1, 1),
                Some("is to be had"),
            ),
            ("the asked one is nowhere", service(Some(two), Some(ONE), "False"), Some((ONE, "a")), pool(1, 1, 0), None),
            (
                "served, and told that it is not",
                service(None, Some(ONE), "False"),
                Some((ONE, "a")),
                pool(2, 1, 1),
                Some("is told"),
            ),
            (
                "a claim that nobody hears of",
                service(Some(two), None, "False"),
                Some((ONE, "a")),
                pool(1, 1, 0),
                Some("names default/a"),
            ),
            ("a wrong count", service(None, Some(ONE), "True"), Some((ONE, "a")), pool(2, 0, 1), Some("counts")),
        ];
        for (what, seen, claimed, pool, wrong) in cases {
            let named = |uid: &str| ServiceRef {
                namespace: "default".into(),
                name: uid.into(),
                uid: uid.into(),
                ..ServiceRef::default()
            };
            let claim = |uid| Claim { version: 0, pool: "east".to_owned(), services: vec![named(uid)] };
            let key = ServiceKey { namespace: "default".to_owned(), name: "a".to_owned() };
            let claims = claimed.into_iter().map(|(address, uid)| (address.parse().unwrap(), claim(uid))).collect();
            let picture = Picture { services: [(key, seen)].into(), claims };
            let said = check(&picture, &[("east".to_owned(), pool)].into());
            assert_eq!(said.is_err(), wrong.is_some(), "{what}: {said:?}");
            assert!(said.err().unwrap_or_default().contains(wrong.unwrap_or_default()), "{what}");
        }
    }
}
