use berth_api::Reason;
use berth_api::pool::Addresses;
use proptest::prelude::*;

use super::*;

fn key(name: &str) -> ServiceKey {
    ServiceKey { namespace: "shop".into(), name: name.into() }
}

fn ip(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

fn pool(name: &str, created: i64, entries: &[&str]) -> PoolInput {
    PoolInput { name: name.into(), created, addresses: Addresses::parse(entries), auto_assign: true }
}

fn manual(name: &str, entries: &[&str]) -> PoolInput {
    PoolInput { auto_assign: false, ..pool(name, 0, entries) }
}

fn ipam(pools: Vec<PoolInput>) -> Ipam {
    let mut ipam = Ipam::default();
    ipam.set_pools(
        pools,
        &BTreeMap::from([
            (ip("192.0.2.11"), Exclusion::Node("node-1".to_owned())),
            (ip("192.0.2.63"), Exclusion::Subnet("192.0.2.0/26".to_owned())),
        ]),
    );
    ipam
}

fn ask<'a>(service: &'a ServiceKey, address: Option<&str>, pool: Option<&'a str>) -> Ask<'a> {
    Ask { service, address: address.map(ip), pool, previous: None, wants_sharing: false }
}

#[test]
fn a_request_is_met_or_refused_for_one_reason() {
    let mut ipam = ipam(vec![
        pool("a", 1, &["192.0.2.10-192.0.2.12"]),
        pool("broken", 2, &["192.0.2.99/24"]),
        pool("full", 3, &["192.0.2.50"]),
        manual("gold", &["192.0.2.60-192.0.2.63"]),
        pool("younger", 9, &["192.0.2.12-192.0.2.20"]),
    ]);
    ipam.hold(ip("192.0.2.10"), &key("other"), "a");
    ipam.hold(ip("192.0.2.50"), &key("other2"), "full");
    for (address, pool, expected) in [
        (None, None, Ok("192.0.2.12 a")), // .10 is held, .11 is a node's own
        (None, Some("gold"), Ok("192.0.2.60 gold")),
        (Some("192.0.2.61"), None, Ok("192.0.2.61 gold")),
        (Some("192.0.2.12"), Some("a"), Ok("192.0.2.12 a")),
        (None, Some("nowhere"), Err(Reason::PoolNotFound)),
        (Some("192.0.2.12"), Some("nowhere"), Err(Reason::PoolNotFound)),
        (None, Some("broken"), Err(Reason::PoolNotReady)),
        (None, Some("younger"), Err(Reason::PoolNotReady)),
        (Some("192.0.2.20"), None, Err(Reason::PoolNotReady)),
        (None, Some("full"), Err(Reason::PoolExhausted)),
        (Some("198.51.100.1"), None, Err(Reason::AddressOutsidePools)),
        (Some("192.0.2.12"), Some("gold"), Err(Reason::AddressNotInPool)),
        (Some("192.0.2.12"), Some("younger"), Err(Reason::PoolNotReady)),
        (Some("192.0.2.10"), None, Err(Reason::AddressInUse)),
        (Some("192.0.2.11"), None, Err(Reason::NodeAddress)),
        (Some("192.0.2.63"), None, Err(Reason::SubnetAddress)),
    ] {
        let choice = ipam.choose(ask(&key("web"), address, pool));
        let got = choice.map(|c| format!("{} {}", c.address, c.pool)).map_err(|r| r.reason());
        assert_eq!(got, expected.map(str::to_owned), "address {address:?}, pool {pool:?}");
    }
}

#[test]
fn without_a_pool_that_gives_the_refusal_says_which_kind_is_missing() {
    for (pools, reason) in [
        (vec![], Reason::NoPool),
        (vec![manual("gold", &["192.0.2.60"])], Reason::NoPool),
        (vec![pool("broken", 1, &["x"])], Reason::PoolNotReady),
    ] {
        assert_eq!(ipam(pools).choose(ask(&key("web"), None, None)).unwrap_err().reason(), reason);
    }
}

#[test]
fn what_is_held_is_kept_whatever_becomes_of_its_pool() {
    for pools in [
        vec![],
        vec![pool("a", 1, &["192.0.2.100"])],
        vec![pool("a", 1, &["not an address"])],
        vec![pool("a", 5, &["192.0.2.0/28"]), pool("b", 1, &["192.0.2.0/28"])],
        vec![manual("a", &["192.0.2.0/28"])],
    ] {
        let mut ipam = ipam(vec![pool("a", 1, &["192.0.2.0/28"])]);
        ipam.hold(ip("192.0.2.3"), &key("web"), "a");
        let label = format!("{pools:?}");
        ipam.set_pools(pools, &BTreeMap::new());
        let choice = ipam.choose(ask(&key("web"), None, None)).unwrap();
        assert_eq!(choice.address, ip("192.0.2.3"), "{label}");
        assert_ne!(ipam.choose(ask(&key("other"), None, None)).map(|c| c.address), Ok(ip("192.0.2.3")), "{label}");
    }
}

#[test]
fn the_address_in_a_service_status_is_taken_again_when_nobody_holds_it() {
    let mut ipam = ipam(vec![pool("a", 1, &["192.0.2.0/28"])]);
    let again = |ipam: &Ipam| {
        ipam.choose(Ask { previous: Some(ip("192.0.2.9")), ..ask(&key("web"), None, None) }).unwrap().address
    };
    assert_eq!(again(&ipam), ip("192.0.2.9"));
    ipam.hold(ip("192.0.2.9"), &key("other"), "a");
    assert_eq!(again(&ipam), ip("192.0.2.0"));
}

#[test]
fn of_two_pools_that_overlap_the_older_serves_and_the_younger_says_why_not() {
    let ipam = ipam(vec![pool("young", 9, &["192.0.2.0/28"]), pool("old", 1, &["192.0.2.8/29"])]);
    let problems: Vec<_> = ipam.reports().map(|(n, r)| (n, r.problem.map(|p| (p.reason(), p.to_string())))).collect();
    assert_eq!(problems[0].0, "old");
    assert_eq!(problems[0].1.as_ref().map(|p| p.0), Some(Reason::NodeAddress));
    let (reason, text) = problems[1].1.as_ref().unwrap();
    assert_eq!(*reason, Reason::Overlap);
    assert!(text.starts_with("192.0.2.8-192.0.2.15 is also part of the older pool `old`"), "{text}");
}

#[test]
fn a_pool_with_a_nodes_own_address_gives_all_others_and_names_the_node() {
    let ipam = ipam(vec![pool("a", 1, &["192.0.2.11-192.0.2.12"])]);
    assert_eq!(ipam.choose(ask(&key("web"), None, None)).unwrap().address, ip("192.0.2.12"));
    let (_, report) = ipam.reports().next().unwrap();
    assert_eq!((report.assigned, report.available), (0, 1));
    assert!(report.problem.unwrap().to_string().starts_with("192.0.2.11 is the own address of node node-1"));
}

proptest! {
    /// Two Services never hold one address, a Service keeps what it holds, and the counters add up, through any
    /// sequence of Services that come, go and are refused.
    #[test]
    fn no_address_has_two_holders(steps in prop::collection::vec((0_u8..20, any::<bool>()), 1..200)) {
        let mut ipam = ipam(vec![pool("a", 1, &["192.0.2.8-192.0.2.15"]), pool("b", 2, &["192.0.2.20-192.0.2.23"])]);
        let mut model: BTreeMap<String, Ipv4Addr> = BTreeMap::new();
        for (service, comes) in steps {
            let name = format!("s{service}");
            if comes {
                match ipam.choose(ask(&key(&name), None, None)) {
                    Ok(choice) => {
                        if let Some(before) = model.insert(name.clone(), choice.address) {
                            prop_assert_eq!(before, choice.address);
                        }
                        ipam.hold(choice.address, &key(&name), &choice.pool);
                    }
                    Err(refusal) => {
                        prop_assert_eq!(refusal.reason(), Reason::PoolExhausted);
                        prop_assert_eq!(model.len(), 11); // 12 addresses less the node's own
                    }
                }
            } else if let Some(address) = model.remove(&name) {
                prop_assert!(ipam.release(address));
            }
            let distinct: BTreeSet<_> = model.values().collect();
            prop_assert_eq!(distinct.len(), model.len());
            let (used, free) = ipam.reports().fold((0, 0), |(u, f), (_, r)| (u + r.assigned, f + r.available));
            prop_assert_eq!((used, free), (model.len() as u64, 11 - model.len() as u64));
        }
    }
}
