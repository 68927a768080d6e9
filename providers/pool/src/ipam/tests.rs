use std::collections::BTreeSet;

use berth_api::pool::Addresses;
use berth_api::service::{Families, Second};
use berth_api::{IpFamily, PerFamily, Reason};
use proptest::prelude::*;

use berth_api::sharing::SharedPort;

use super::*;

fn key(name: &str) -> ServiceKey {
    ServiceKey { namespace: "shop".into(), name: name.into() }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn pool(name: &str, created: i64, entries: &[&str]) -> PoolInput {
    PoolInput {
        name: name.into(),
        created,
        addresses: Addresses::parse(entries),
        auto_assign: true,
        avoid_buggy: false,
        disabled: false,
        admission: None,
        sharing: SharingScope::Cluster,
        cooling: Vec::new(),
    }
}

fn manual(name: &str, entries: &[&str]) -> PoolInput {
    PoolInput { auto_assign: false, ..pool(name, 0, entries) }
}

fn ipam(pools: Vec<PoolInput>) -> Ipam {
    let mut ipam = Ipam::default();
    ipam.set_pools(pools, &never());
    ipam
}

fn never() -> Vec<(IpRange, Exclusion)> {
    let excluded = [
        ("192.0.2.11", Exclusion::Node("node-1".to_owned())),
        ("192.0.2.63", Exclusion::Subnet("192.0.2.0/26".to_owned())),
        ("192.0.2.112", Exclusion::Gateway("node-1".to_owned())),
        ("198.51.100.0/25", Exclusion::Pods("node-1".to_owned())),
        ("198.51.100.128/25", Exclusion::Services("kubernetes".to_owned())),
        ("2001:db8::", Exclusion::Subnet("2001:db8::/64".to_owned())),
        ("2001:db8::11", Exclusion::Node("node-1".to_owned())),
    ];
    excluded.map(|(range, why)| (range.parse().unwrap(), why)).into()
}

const V4: Families = Families { first: IpFamily::V4, second: None };
const V6: Families = Families { first: IpFamily::V6, second: None };
const PREFER: Families = Families { first: IpFamily::V4, second: Some(Second::Preferred) };
const REQUIRE: Families = Families { first: IpFamily::V4, second: Some(Second::Required) };

fn request(families: Families, addresses: &[&str], pool: Option<&str>) -> Request {
    let mut request = Request { families, addresses: PerFamily::default(), pool: pool.map(str::to_owned) };
    for address in addresses.iter().copied().map(ip) {
        *request.addresses.get_mut(IpFamily::of(address)) = Some(address);
    }
    request
}

fn ask(ipam: &Ipam, name: &str, request: &Request, previous: &[&str]) -> Result<Answer, Refusal> {
    let previous: Vec<_> = previous.iter().copied().map(ip).collect();
    let none = Labels::new();
    let (service, labels, namespace) = (&key(name), &none, Some(&none));
    ipam.choose(Ask { service, labels, namespace, request, previous: &previous, terms: None })
}

/// Notes that a Service which does not share holds an address.
fn hold(ipam: &mut Ipam, address: IpAddr, name: &str, pool: &str) {
    ipam.set_tenants(address, pool, vec![Tenant { service: key(name), terms: None }]);
}

/// `address pool, address pool; missing family reason`.
fn told(answer: Result<Answer, Refusal>) -> Result<String, Reason> {
    let answer = answer.map_err(|refusal| refusal.reason())?;
    let choices: Vec<_> = answer.choices.iter().map(|c| format!("{} {}", c.address, c.pool)).collect();
    let missing = answer.missing.map(|(family, why)| format!("; no {family}: {}", why.reason())).unwrap_or_default();
    Ok(choices.join(", ") + &missing)
}

/// The address that a Service of IPv4 alone gets.
fn v4_of(ipam: &Ipam, name: &str) -> Result<IpAddr, Refusal> {
    ask(ipam, name, &request(V4, &[], None), &[]).map(|answer| answer.choices[0].address)
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
    hold(&mut ipam, ip("192.0.2.10"), "other", "a");
    hold(&mut ipam, ip("192.0.2.50"), "other2", "full");
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
        let addresses: Vec<_> = address.into_iter().collect();
        let got = told(ask(&ipam, "web", &request(V4, &addresses, pool), &[]));
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
        assert_eq!(v4_of(&ipam(pools), "web").unwrap_err().reason(), reason);
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
        hold(&mut ipam, ip("192.0.2.3"), "web", "a");
        let label = format!("{pools:?}");
        ipam.set_pools(pools, &[]);
        assert_eq!(v4_of(&ipam, "web"), Ok(ip("192.0.2.3")), "{label}");
        assert_ne!(v4_of(&ipam, "other"), Ok(ip("192.0.2.3")), "{label}");
    }
}

#[test]
fn the_address_in_a_service_status_is_taken_again_when_nobody_holds_it() {
    let mut ipam = ipam(vec![pool("a", 1, &["192.0.2.0/28"])]);
    let again = |ipam: &Ipam| ask(ipam, "web", &request(V4, &[], None), &["192.0.2.9"]).unwrap().choices[0].address;
    assert_eq!(again(&ipam), ip("192.0.2.9"));
    hold(&mut ipam, ip("192.0.2.9"), "other", "a");
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
    assert_eq!(v4_of(&ipam, "web"), Ok(ip("192.0.2.12")));
    let (_, report) = ipam.reports().next().unwrap();
    assert_eq!((report.assigned.v4, report.available.v4), (0, 1));
    assert!(report.problem.unwrap().to_string().starts_with("192.0.2.11 is the own address of node node-1"));
}

#[test]
fn each_family_gets_an_address_and_both_come_from_one_pool() {
    type Case<'a> = (&'a str, Vec<PoolInput>, &'a dyn Fn(&mut Ipam), Request, Result<&'a str, Reason>);
    let full_v6 = |ipam: &mut Ipam| hold(ipam, ip("2001:db8::31"), "other", "both");
    let nothing: fn(&mut Ipam) = |_| {};
    let pools = || {
        vec![
            pool("a4", 1, &["192.0.2.20-192.0.2.21"]),
            pool("b6", 2, &["2001:db8::/124"]),
            pool("both", 3, &["192.0.2.30-192.0.2.31", "2001:db8::31"]),
            manual("gold", &["192.0.2.40", "2001:db8::40"]),
        ]
    };
    let only4 = || vec![pool("a4", 1, &["192.0.2.20-192.0.2.21"]), manual("gold6", &["2001:db8::60"])];
    let v6_first = |families: Families| Families { first: IpFamily::V6, ..families };
    let cases: [Case<'_>; 20] = [
        ("one family", pools(), &nothing, request(V4, &[], None), Ok("192.0.2.20 a4")),
        ("the other", pools(), &nothing, request(V6, &[], None), Ok("2001:db8::1 b6")),
        ("one pool", pools(), &nothing, request(PREFER, &[], None), Ok("192.0.2.30 both, 2001:db8::31 both")),
        ("order", pools(), &nothing, request(v6_first(REQUIRE), &[], None), Ok("2001:db8::31 both, 192.0.2.30 both")),
        ("two pools", pools(), &full_v6, request(REQUIRE, &[], None), Err(Reason::NoDualStackPool)),
        (
            "one is enough",
            pools(),
            &full_v6,
            request(PREFER, &[], None),
            Ok("192.0.2.20 a4; no IPv6: FamilyUnavailable"),
        ),
        ("beside", pools(), &nothing, request(PREFER, &["192.0.2.31"], None), Ok("192.0.2.31 both, 2001:db8::31 both")),
        ("manual", pools(), &nothing, request(PREFER, &["192.0.2.40"], None), Ok("192.0.2.40 gold, 2001:db8::40 gold")),
        ("named", pools(), &nothing, request(PREFER, &[], Some("gold")), Ok("192.0.2.40 gold, 2001:db8::40 gold")),
        (
            "both asked",
            pools(),
            &nothing,
            request(PREFER, &["2001:db8::5", "192.0.2.21"], None),
            Err(Reason::PoolsDiffer),
        ),
        ("preferred", only4(), &nothing, request(PREFER, &[], None), Ok("192.0.2.20 a4; no IPv6: FamilyUnavailable")),
        (
            "other family",
            only4(),
            &nothing,
            request(v6_first(PREFER), &[], None),
            Ok("192.0.2.20 a4; no IPv6: FamilyUnavailable"),
        ),
        ("required", only4(), &nothing, request(REQUIRE, &[], None), Err(Reason::FamilyUnavailable)),
        ("only the other", only4(), &nothing, request(V6, &[], None), Err(Reason::FamilyUnavailable)),
        ("named without", pools(), &nothing, request(V6, &[], Some("a4")), Err(Reason::FamilyUnavailable)),
        (
            "named, preferred",
            pools(),
            &nothing,
            request(PREFER, &[], Some("a4")),
            Ok("192.0.2.20 a4; no IPv6: FamilyUnavailable"),
        ),
        (
            "named and full",
            pools(),
            &full_v6,
            request(PREFER, &[], Some("both")),
            Ok("192.0.2.30 both; no IPv6: PoolExhausted"),
        ),
        // An address that is asked for is insisted on, also where one family would be enough.
        ("asked and held", pools(), &full_v6, request(PREFER, &["2001:db8::31"], None), Err(Reason::AddressInUse)),
        ("anycast", pools(), &nothing, request(V6, &["2001:db8::"], None), Err(Reason::SubnetAddress)),
        ("nowhere", pools(), &nothing, request(PREFER, &[], Some("x")), Err(Reason::PoolNotFound)),
    ];
    for (what, pools, prepare, request, expected) in cases {
        let mut ipam = ipam(pools);
        prepare(&mut ipam);
        assert_eq!(told(ask(&ipam, "web", &request, &[])), expected.map(str::to_owned), "{what}");
    }
}

#[test]
fn of_two_refusals_where_one_address_would_do_the_one_that_may_end_by_itself_is_told() {
    let mut ipam = ipam(vec![pool("six", 1, &["2001:db8::5"])]);
    hold(&mut ipam, ip("2001:db8::5"), "other", "six");
    let refusal = ask(&ipam, "web", &request(PREFER, &[], None), &[]).unwrap_err();
    assert_eq!((refusal.reason(), refusal.ends_by_release()), (Reason::PoolExhausted, true));
}

#[test]
fn the_second_family_comes_from_the_pool_of_the_first_and_from_no_other() {
    let a = pool("a", 1, &["192.0.2.20-192.0.2.21", "2001:db8:a::/126"]);
    let b = |entries: &[&str]| pool("b", 2, entries);
    let (prefer, require) = (request(PREFER, &[], None), request(REQUIRE, &[], None));
    let mut ipam = ipam(vec![a.clone(), b(&["192.0.2.30"])]);
    hold(&mut ipam, ip("192.0.2.30"), "web", "b");
    // It does not hop to another pool because that has both, unless it needs both.
    assert_eq!(told(ask(&ipam, "web", &prefer, &[])).unwrap(), "192.0.2.30 b; no IPv6: FamilyUnavailable");
    assert_eq!(told(ask(&ipam, "web", &require, &[])).unwrap(), "192.0.2.20 a, 2001:db8:a:: a");
    // Half way there it goes on, and does not mix the two.
    hold(&mut ipam, ip("192.0.2.20"), "web", "a");
    hold(&mut ipam, ip("2001:db8:a::"), "web", "a");
    assert_eq!(told(ask(&ipam, "web", &require, &["192.0.2.30"])).unwrap(), "192.0.2.20 a, 2001:db8:a:: a");
    ipam.release(ip("192.0.2.20"));
    ipam.release(ip("2001:db8:a::"));
    ipam.set_pools(vec![a, b(&["192.0.2.30", "2001:db8:b::7"])], &[]);
    assert_eq!(told(ask(&ipam, "web", &prefer, &[])).unwrap(), "192.0.2.30 b, 2001:db8:b::7 b");
    // What is held stays, whatever its pool.
    hold(&mut ipam, ip("2001:db8:a::1"), "web", "a");
    assert_eq!(told(ask(&ipam, "web", &prefer, &[])).unwrap(), "192.0.2.30 b, 2001:db8:a::1 a");
}

#[test]
fn the_addresses_of_both_families_in_a_status_are_taken_again() {
    let ipam = ipam(vec![pool("a", 1, &["192.0.2.0/28", "2001:db8::/64"])]);
    let again = ask(&ipam, "web", &request(REQUIRE, &[], None), &["2001:db8::9", "192.0.2.9"]);
    assert_eq!(told(again).unwrap(), "192.0.2.9 a, 2001:db8::9 a");
}

#[test]
fn a_whole_ipv6_network_is_counted_without_overflow() {
    let mut ipam = ipam(vec![pool("a", 1, &["2001:db8::/64"]), pool("b", 2, &["2001:db9::/32", "192.0.2.20"])]);
    hold(&mut ipam, ip("2001:db8::1"), "web", "a");
    let reports: Vec<_> = ipam.reports().map(|(_, report)| (report.assigned, report.available)).collect();
    // Less the one that is held, the node's own and the subnet-router anycast address.
    assert_eq!(reports[0], (PerFamily { v4: 0, v6: 1 }, PerFamily { v4: 0, v6: (1 << 64) - 3 }));
    assert_eq!(reports[1], (PerFamily { v4: 0, v6: 0 }, PerFamily { v4: 1, v6: 1 << 96 }));
}

proptest! {
    /// No two Services hold an address that they may not share, a Service keeps what it holds, it has what its policy promises,
    /// it is refused only where no pool could serve it, and the counters add up: through any sequence of Services that come, go and
    /// are refused.
    #[test]
    fn no_address_has_two_holders_that_may_not_share_it(steps in prop::collection::vec((0_u8..24, any::<bool>()), 1..200)) {
        const POOLS: [(&str, &[&str]); 3] = [
            ("a", &["192.0.2.8-192.0.2.15", "2001:db8::10-2001:db8::14"]),
            ("b", &["192.0.2.20-192.0.2.23"]),
            ("c", &["2001:db8::20"]),
        ];
        // Less the node's own in each family.
        const TOTAL: PerFamily<usize> = PerFamily { v4: 11, v6: 5 };
        let mut ipam = ipam(POOLS.into_iter().zip(1..).map(|((name, entries), age)| pool(name, age, entries)).collect());
        let mut model: BTreeMap<String, BTreeMap<IpFamily, IpAddr>> = BTreeMap::new();
        for (service, comes) in steps {
            let name = format!("s{service}");
            let families = [V4, V6, PREFER, REQUIRE][usize::from(service % 4)];
            let terms = sharing(service);
            if comes {
                let request = request(families, &[], None);
                let (service, none) = (key(&name), Labels::new());
                let of = |pool, family, address| {
                    let held: BTreeMap<_, _> = model.iter().filter(|(_, held)| held.get(&family) == Some(&address)).collect();
                    let mates = held.keys().filter(|mate| ***mate != name);
                    let may = |mate: &&String| {
                        let theirs = sharing(mate[1..].parse().unwrap());
                        may_share((&service, terms.as_ref()), (&key(mate), theirs.as_ref()), SharingScope::Cluster).is_ok()
                    };
                    ipam.pool_of(address) == Some(pool) && mates.into_iter().all(may)
                };
                let could = |pool, family| {
                    let entries = POOLS.iter().find(|(name, _)| *name == pool).unwrap().1;
                    let ranges = entries.iter().map(|entry| entry.parse::<IpRange>().unwrap());
                    let own = [ip("192.0.2.11"), ip("2001:db8::11")];
                    ranges.filter(|range| range.family() == family).flat_map(every).any(|a| !own.contains(&a) && of(pool, family, a))
                };
                let ask = Ask { service: &service, labels: &none, namespace: Some(&none), request: &request, previous: &[], terms: terms.as_ref() };
                match ipam.choose(ask) {
                    Ok(answer) => {
                        let enough = if families == PREFER { 1 } else { families.iter().count() };
                        prop_assert!(answer.choices.len() >= enough);
                        prop_assert_eq!(answer.missing.is_some(), answer.choices.len() < families.iter().count());
                        if let Some((family, _)) = answer.missing {
                            prop_assert!(!could(answer.choices[0].pool.as_str(), family), "{family} of {}", answer.choices[0].pool);
                        }
                        let pools: BTreeSet<_> = answer.choices.iter().map(|choice| &choice.pool).collect();
                        prop_assert_eq!(pools.len(), 1);
                        for Choice { address, .. } in &answer.choices {
                            prop_assert!(of(answer.choices[0].pool.as_str(), IpFamily::of(*address), *address), "{address}");
                        }
                        for choice in answer.choices {
                            let held = model.entry(name.clone()).or_default();
                            if let Some(before) = held.insert(IpFamily::of(choice.address), choice.address) {
                                prop_assert_eq!(before, choice.address);
                            }
                            ipam.hold(choice.address, &choice.pool, Tenant { service: key(&name), terms: terms.clone() });
                        }
                    }
                    Err(refusal) => {
                        prop_assert!([Reason::PoolExhausted, Reason::NoDualStackPool].contains(&refusal.reason()), "{refusal}");
                        prop_assert!(refusal.ends_by_release());
                        let serves = |pool| families.iter().all(|family| could(pool, family));
                        prop_assert!(!["a", "b", "c"].into_iter().any(serves));
                    }
                }
            } else {
                for address in model.remove(&name).unwrap_or_default().into_values() {
                    let mut tenants = ipam.tenants(address).to_vec();
                    tenants.retain(|tenant| tenant.service != key(&name));
                    let pool = ipam.pool_of(address).unwrap().to_owned();
                    ipam.set_tenants(address, &pool, tenants);
                }
            }
            for family in IpFamily::ALL {
                let held: BTreeSet<_> = model.values().filter_map(|held| held.get(&family)).collect();
                let counted = ipam.reports().fold((0, 0), |(used, free), (_, report)| {
                    (used + *report.assigned.get(family) as usize, free + *report.available.get(family) as usize)
                });
                prop_assert_eq!(counted, (held.len(), TOTAL.get(family) - held.len()));
            }
        }
    }
}

fn every(range: IpRange) -> Vec<IpAddr> {
    let mut set = crate::intervals::Intervals::from_ranges(&[range]);
    let mut all = Vec::new();
    while let Some(address) = set.lowest(range.family()) {
        set.remove(address);
        all.push(address);
    }
    all
}

/// The terms of a Service of the property: half of them share, by two keys, and some have ports in common.
fn sharing(service: u8) -> Option<SharingTerms> {
    let port = format!("TCP/{}", 80 + service / 8).parse().unwrap();
    (service % 8 < 5)
        .then(|| terms(if service.is_multiple_of(3) { "k" } else { "l" }, SharingScope::Namespace, port, None))
}

fn terms(key: &str, scope: SharingScope, port: SharedPort, local: Option<&str>) -> SharingTerms {
    let local_selector = local.map(|app| BTreeMap::from([("app".to_owned(), app.to_owned())]));
    SharingTerms { key: key.to_owned(), scope, ports: BTreeSet::from([port]), local_selector }
}

fn terms_of(key: &str, port: &str) -> SharingTerms {
    terms(key, SharingScope::Cluster, port.parse().unwrap(), None)
}

/// `ask` of a Service with labels, in a namespace with labels, on terms.
fn ask_as(
    ipam: &Ipam,
    (namespace, its_labels): (&str, Option<&[(&str, &str)]>),
    labels: &[(&str, &str)],
    request: &Request,
    terms: Option<&SharingTerms>,
) -> Result<Answer, Refusal> {
    let labels_of =
        |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect::<Labels>();
    let (labels, its_labels) = (labels_of(labels), its_labels.map(labels_of));
    let service = ServiceKey { namespace: namespace.to_owned(), name: "web".to_owned() };
    ipam.choose(Ask {
        service: &service,
        labels: &labels,
        namespace: its_labels.as_ref(),
        request,
        previous: &[],
        terms,
    })
}

fn admitting(name: &str, entries: &[&str], allocation: serde_json::Value) -> PoolInput {
    let allocation = serde_json::from_value(allocation).unwrap();
    PoolInput { admission: Some(Admission::parse(&allocation)), ..pool(name, 1, entries) }
}

#[test]
fn pools_are_asked_in_the_order_of_their_selection_priority_and_name() {
    use serde_json::json;
    let pools = || {
        vec![
            pool("open", 1, &["192.0.2.20"]),
            admitting("z-first", &["192.0.2.21"], json!({"priority": 1, "namespaces": ["shop"]})),
            admitting(
                "a-second",
                &["192.0.2.22"],
                json!({"priority": 2, "namespaceSelectors": [{"matchLabels": {"tier": "gold"}}]}),
            ),
            admitting("last", &["192.0.2.23"], json!({"serviceSelectors": [{"matchLabels": {"app": "web"}}]})),
            PoolInput { auto_assign: false, ..admitting("manual", &["192.0.2.24"], json!({"priority": 1})) },
            admitting("nobody", &["192.0.2.25"], json!({"namespaceSelectors": [{"matchLabels": {"no": "such"}}]})),
        ]
    };
    let gold: &[(&str, &str)] = &[("tier", "gold")];
    let web: &[(&str, &str)] = &[("app", "web")];
    for (namespace, labels, service, wish, held, expected) in [
        ("shop", gold, web, None, &[][..], Ok("192.0.2.21 z-first")),
        ("shop", gold, web, None, &["192.0.2.21"][..], Ok("192.0.2.22 a-second")),
        ("shop", gold, web, None, &["192.0.2.21", "192.0.2.22"][..], Ok("192.0.2.23 last")),
        ("shop", gold, &[], None, &["192.0.2.21", "192.0.2.22"][..], Ok("192.0.2.20 open")),
        ("back", &[], &[], None, &[][..], Ok("192.0.2.20 open")),
        ("back", &[], &[], None, &["192.0.2.20"][..], Err(Reason::PoolExhausted)),
        ("back", gold, &[], None, &["192.0.2.20"][..], Ok("192.0.2.22 a-second")),
        // Not by request either: by name or by address.
        ("back", &[], &[], Some(("pool", "z-first")), &[][..], Err(Reason::PoolNotAdmitted)),
        ("back", &[], &[], Some(("address", "192.0.2.22")), &[][..], Err(Reason::PoolNotAdmitted)),
        ("back", &[], &[], Some(("pool", "nobody")), &[][..], Err(Reason::PoolNotAdmitted)),
        ("back", &[], &[], Some(("pool", "manual")), &[][..], Ok("192.0.2.24 manual")),
        ("shop", &[], &[], Some(("pool", "z-first")), &[][..], Ok("192.0.2.21 z-first")),
    ] {
        let mut ipam = ipam(pools());
        for address in held {
            hold(&mut ipam, ip(address), "other", "any");
        }
        let request = match wish {
            None => request(V4, &[], None),
            Some(("pool", name)) => request(V4, &[], Some(name)),
            Some((_, address)) => request(V4, &[address], None),
        };
        let got = told(ask_as(&ipam, (namespace, Some(labels)), service, &request, None));
        assert_eq!(got, expected.map(str::to_owned), "{namespace} {labels:?} {service:?} {wish:?} {held:?}");
    }
    // Labels of a namespace that are not known admit nobody, and take nothing away.
    let mut ipam = ipam(pools());
    assert_eq!(
        told(ask_as(&ipam, ("back", None), &[], &request(V4, &[], Some("a-second")), None)),
        Err(Reason::PoolNotAdmitted)
    );
    let service = ServiceKey { namespace: "back".to_owned(), name: "web".to_owned() };
    ipam.set_tenants(ip("192.0.2.22"), "a-second", vec![Tenant { service, terms: None }]);
    let any = request(V4, &[], None);
    assert_eq!(told(ask_as(&ipam, ("back", None), &[], &any, None)).unwrap(), "192.0.2.22 a-second");
    assert_eq!(told(ask_as(&ipam, ("back", Some(&[])), &[], &any, None)).unwrap(), "192.0.2.20 open");
}

#[test]
fn a_pool_for_others_alone_is_told_as_such() {
    let only = |pool: PoolInput| ipam(vec![pool]);
    let shop = || admitting("shop", &["192.0.2.20"], serde_json::json!({"namespaces": ["shop"]}));
    let any = request(V4, &[], None);
    assert_eq!(told(ask_as(&only(shop()), ("back", Some(&[])), &[], &any, None)), Err(Reason::PoolNotAdmitted));
    let disabled = only(PoolInput { disabled: true, ..pool("a", 1, &["192.0.2.20"]) });
    assert_eq!(told(ask(&disabled, "web", &any, &[])), Err(Reason::PoolDisabled));
    assert_eq!(told(ask(&disabled, "web", &request(V4, &["192.0.2.20"], None), &[])), Err(Reason::PoolDisabled));
    assert_eq!(told(ask(&disabled, "web", &any, &["192.0.2.21"])), Err(Reason::PoolDisabled));
}

#[test]
fn what_a_service_has_by_its_status_alone_is_its_own_again_from_every_pool_that_may_not_be_for_others() {
    let pool_20 = |edit: fn(&mut PoolInput)| {
        let mut pool = pool("a", 2, &["192.0.2.20-192.0.2.25"]);
        edit(&mut pool);
        pool
    };
    let nobody = || admitting("", &["192.0.2.1"], serde_json::json!({"namespaces": ["other"]})).admission;
    let (again, elsewhere) = (Ok("192.0.2.22 a"), Ok("192.0.2.30 b"));
    for (what, first, held, expected) in [
        ("valid", pool_20(|_| ()), None, again),
        ("disabled", pool_20(|pool| pool.disabled = true), None, again),
        ("given by request alone", pool_20(|pool| pool.auto_assign = false), None, again),
        ("one whose selector cannot be read", pool_20(|pool| pool.admission = Some(Err(String::new()))), None, again),
        ("cooling", pool_20(|pool| pool.cooling = vec![("192.0.2.22".parse().unwrap(), 9)]), None, again),
        ("of another namespace", PoolInput { admission: nobody(), ..pool_20(|_| ()) }, None, elsewhere),
        ("without it", pool_20(|pool| pool.addresses = Addresses::parse(&["192.0.2.40"])), None, Ok("192.0.2.40 a")),
        ("unreadable", pool_20(|pool| pool.addresses = Addresses::parse(&["x"])), None, elsewhere),
        ("that another Service holds", pool_20(|_| ()), Some("192.0.2.22"), Ok("192.0.2.20 a")),
    ] {
        let mut ipam = ipam(vec![first, pool("b", 3, &["192.0.2.30"])]);
        if let Some(held) = held {
            hold(&mut ipam, ip(held), "other", "a");
        }
        let got = told(ask(&ipam, "web", &request(V4, &[], None), &["192.0.2.22"]));
        assert_eq!(got, expected.map(str::to_owned), "{what}");
    }
    // One that overlaps an older pool, in the part that it has alone.
    let overlaps = ipam(vec![pool("old", 1, &["192.0.2.25"]), pool_20(|_| ()), pool("b", 3, &["192.0.2.30"])]);
    assert_eq!(told(ask(&overlaps, "web", &request(V4, &[], None), &["192.0.2.22"])).unwrap(), "192.0.2.22 a");
    // A node's own address is nobody's, whatever a status says.
    let ipam = ipam(vec![pool("a", 1, &["192.0.2.10-192.0.2.12"])]);
    assert_eq!(told(ask(&ipam, "web", &request(V4, &[], None), &["192.0.2.11"])).unwrap(), "192.0.2.10 a");
}

#[test]
fn what_is_held_counts_before_what_a_status_says() {
    let mut ipam = ipam(vec![pool("a", 1, &["192.0.2.20-192.0.2.25", "2001:db8::20-2001:db8::25"])]);
    hold(&mut ipam, ip("192.0.2.21"), "web", "a");
    let any = |families, previous: &[&str]| told(ask(&ipam, "web", &request(families, &[], None), previous));
    assert_eq!(any(V4, &["192.0.2.24"]).unwrap(), "192.0.2.21 a");
    assert_eq!(any(REQUIRE, &["192.0.2.24", "2001:db8::24"]).unwrap(), "192.0.2.21 a, 2001:db8::24 a");
}

#[test]
fn a_disabled_pool_keeps_what_is_held() {
    let mut ipam = ipam(vec![
        PoolInput { disabled: true, ..pool("a", 1, &["192.0.2.20-192.0.2.25"]) },
        pool("b", 2, &["192.0.2.30"]),
    ]);
    hold(&mut ipam, ip("192.0.2.22"), "web", "a");
    assert_eq!(v4_of(&ipam, "web"), Ok(ip("192.0.2.22")));
    assert_eq!(v4_of(&ipam, "new"), Ok(ip("192.0.2.30")));
    let (_, report) = ipam.reports().next().unwrap();
    assert_eq!((report.assigned.v4, report.available.v4, report.disabled), (1, 0, true));
}

#[test]
fn sharers_land_on_the_lowest_address_that_is_free_or_theirs() {
    let at = |held: &[(&str, Option<SharingTerms>)], mine: Option<SharingTerms>, wish: &[&str]| {
        let mut ipam = ipam(vec![pool("a", 1, &["192.0.2.20-192.0.2.23"])]);
        for (index, (address, terms)) in held.iter().enumerate() {
            let service = ServiceKey { namespace: "shop".to_owned(), name: format!("s{index}") };
            ipam.hold(ip(address), "a", Tenant { service, terms: terms.clone() });
        }
        told(ask_as(&ipam, ("shop", Some(&[])), &[], &request(V4, wish, None), mine.as_ref()))
    };
    let k = |port| Some(terms_of("k", port));
    let taken = |address: &'static str| (address, None);
    for (held, mine, wish, expected) in [
        (vec![("192.0.2.20", k("TCP/80"))], k("TCP/81"), &[][..], Ok("192.0.2.20 a")),
        (vec![("192.0.2.20", k("TCP/80"))], k("TCP/80"), &[][..], Ok("192.0.2.21 a")),
        (vec![("192.0.2.20", k("TCP/80"))], Some(terms_of("l", "TCP/81")), &[][..], Ok("192.0.2.21 a")),
        (vec![("192.0.2.20", k("TCP/80"))], None, &[][..], Ok("192.0.2.21 a")),
        (vec![("192.0.2.21", k("TCP/80"))], k("TCP/81"), &[][..], Ok("192.0.2.20 a")),
        (vec![taken("192.0.2.20"), ("192.0.2.21", k("TCP/80"))], k("TCP/81"), &[][..], Ok("192.0.2.21 a")),
        (vec![("192.0.2.20", k("TCP/80")), ("192.0.2.20", k("TCP/81"))], k("TCP/82"), &[][..], Ok("192.0.2.20 a")),
        (vec![("192.0.2.20", k("TCP/80")), ("192.0.2.20", k("TCP/81"))], k("TCP/81"), &[][..], Ok("192.0.2.21 a")),
        (vec![("192.0.2.22", k("TCP/80"))], k("TCP/81"), &["192.0.2.22"][..], Ok("192.0.2.22 a")),
        (vec![("192.0.2.22", k("TCP/80"))], k("TCP/80"), &["192.0.2.22"][..], Err(Reason::SharingPortTaken)),
        (
            vec![("192.0.2.22", k("TCP/80"))],
            Some(terms_of("l", "TCP/81")),
            &["192.0.2.22"][..],
            Err(Reason::SharingKeyDiffers),
        ),
        (vec![("192.0.2.22", k("TCP/80"))], None, &["192.0.2.22"][..], Err(Reason::AddressInUse)),
        (vec![taken("192.0.2.22")], k("TCP/80"), &["192.0.2.22"][..], Err(Reason::AddressInUse)),
        (
            vec![("192.0.2.22", Some(terms("k", SharingScope::Cluster, "TCP/80".parse().unwrap(), Some("a"))))],
            k("TCP/81"),
            &["192.0.2.22"][..],
            Err(Reason::SharingPolicyDiffers),
        ),
    ] {
        assert_eq!(at(&held, mine.clone(), wish), expected.map(str::to_owned), "{held:?} {mine:?} {wish:?}");
    }
    // Another namespace, by a pool that keeps sharing within one.
    let mut ipam = ipam(vec![PoolInput { sharing: SharingScope::Namespace, ..pool("a", 1, &["192.0.2.20"]) }]);
    ipam.hold(ip("192.0.2.20"), "a", Tenant { service: key("other"), terms: k("TCP/80") });
    let wish = request(V4, &["192.0.2.20"], None);
    let got = told(ask_as(&ipam, ("back", Some(&[])), &[], &wish, k("TCP/81").as_ref()));
    assert_eq!(got, Err(Reason::SharingNamespaceDiffers));
}

#[test]
fn an_address_that_so_many_share_as_an_announcement_can_name_takes_no_more() {
    let mut ipam = ipam(vec![pool("a", 1, &["192.0.2.20-192.0.2.21"])]);
    let mine = |n: usize| Some(terms_of("k", &format!("TCP/{n}")));
    let asks = |ipam: &Ipam, wish: &[&str]| {
        told(ask_as(ipam, ("shop", Some(&[])), &[], &request(V4, wish, None), mine(999).as_ref()))
    };
    for n in 0..SERVICES_MAX {
        assert_eq!(asks(&ipam, &[]).unwrap(), "192.0.2.20 a", "the {n}th");
        ipam.hold(ip("192.0.2.20"), "a", Tenant { service: key(&format!("s{n}")), terms: mine(n) });
    }
    assert_eq!(asks(&ipam, &[]).unwrap(), "192.0.2.21 a");
    assert_eq!(asks(&ipam, &["192.0.2.20"]), Err(Reason::SharingFull));
    // Those that are in it stay.
    let (none, any) = (Labels::new(), request(V4, &[], None));
    let (service, terms) = (key("s7"), mine(7));
    let asks = Ask {
        service: &service,
        labels: &none,
        namespace: Some(&none),
        request: &any,
        previous: &[],
        terms: terms.as_ref(),
    };
    assert_eq!(told(ipam.choose(asks)).unwrap(), "192.0.2.20 a");
}

#[test]
fn who_changes_so_that_it_may_not_share_leaves_and_the_other_stays() {
    let mut ipam = ipam(vec![pool("a", 1, &["192.0.2.20-192.0.2.21"])]);
    for (name, port) in [("one", "TCP/80"), ("two", "TCP/81")] {
        ipam.hold(ip("192.0.2.20"), "a", Tenant { service: key(name), terms: Some(terms_of("k", port)) });
    }
    let any = request(V4, &[], None);
    let now = |name: &str, terms: Option<SharingTerms>| {
        let none = Labels::new();
        let (service, labels, namespace) = (&key(name), &none, Some(&none));
        told(ipam.choose(Ask {
            service,
            labels,
            namespace,
            request: &any,
            previous: &[ip("192.0.2.20")],
            terms: terms.as_ref(),
        }))
    };
    assert_eq!(now("one", Some(terms_of("k", "TCP/80"))).unwrap(), "192.0.2.20 a");
    assert_eq!(now("two", Some(terms_of("k", "TCP/81"))).unwrap(), "192.0.2.20 a");
    assert_eq!(now("two", Some(terms_of("k", "TCP/80"))).unwrap(), "192.0.2.21 a", "a port of the other");
    assert_eq!(
        now("one", Some(terms_of("k", "TCP/81"))).unwrap(),
        "192.0.2.21 a",
        "the first has no more right than the second"
    );
    assert_eq!(now("two", None).unwrap(), "192.0.2.21 a", "it shares no more");
    assert_eq!(now("two", Some(terms_of("k", "TCP/8080"))).unwrap(), "192.0.2.20 a", "another port is no reason");
}

#[test]
fn addresses_that_are_somebodys_are_left_out_and_named() {
    let cases = [
        (&["192.0.2.10-192.0.2.12"][..], "192.0.2.11", Some(Reason::NodeAddress), Reason::NodeAddress, 2_u128),
        (&["192.0.2.112/28"][..], "192.0.2.112", Some(Reason::GatewayAddress), Reason::GatewayAddress, 15),
        (&["192.0.2.62-192.0.2.64"][..], "192.0.2.63", None, Reason::SubnetAddress, 2),
        (
            &["198.51.100.120-198.51.100.127", "203.0.113.1"][..],
            "198.51.100.121",
            Some(Reason::PodNetwork),
            Reason::PodNetwork,
            1,
        ),
        (
            &["198.51.100.0/24", "203.0.113.1"][..],
            "198.51.100.200",
            Some(Reason::PodNetwork),
            Reason::ServiceNetwork,
            1,
        ),
    ];
    for (entries, address, problem, refused, left) in cases {
        let ipam = ipam(vec![pool("a", 1, entries)]);
        let (_, report) = ipam.reports().next().unwrap();
        assert_eq!((report.problem.map(PoolProblem::reason), report.available.v4), (problem, left), "{entries:?}");
        assert_eq!(told(ask(&ipam, "web", &request(V4, &[address], None), &[])), Err(refused), "{entries:?}");
    }
}

#[test]
fn addresses_that_end_in_0_or_255_are_left_out_where_the_pool_says_so_and_kept_by_who_has_them() {
    let avoiding = PoolInput { avoid_buggy: true, ..pool("a", 1, &["203.0.112.254-203.0.113.1", "2001:db8:1::/127"]) };
    let mut ipam = ipam(vec![avoiding]);
    assert_eq!(ipam.reports().next().unwrap().1.available, PerFamily { v4: 2, v6: 2 });
    for buggy in ["203.0.112.255", "203.0.113.0"] {
        assert_eq!(told(ask(&ipam, "web", &request(V4, &[buggy], None), &[])), Err(Reason::BuggyAddress));
    }
    hold(&mut ipam, ip("203.0.113.0"), "web", "a");
    assert_eq!(v4_of(&ipam, "web"), Ok(ip("203.0.113.0")));
    ipam.release(ip("203.0.113.0"));
    for expected in ["203.0.112.254", "203.0.113.1"] {
        assert_eq!(v4_of(&ipam, "other"), Ok(ip(expected)));
        hold(&mut ipam, ip(expected), "x", "a");
    }
    assert_eq!(v4_of(&ipam, "other").unwrap_err().reason(), Reason::PoolExhausted);
}

#[test]
fn what_was_released_is_given_to_nobody_until_it_has_cooled_down_but_to_who_has_it_in_its_status() {
    let cooling = vec![("192.0.2.20-192.0.2.21".parse().unwrap(), 1_000)];
    let mut ipam = ipam(vec![PoolInput { cooling, ..pool("a", 1, &["192.0.2.20-192.0.2.22"]) }]);
    let any = request(V4, &[], None);
    assert_eq!(told(ask(&ipam, "web", &any, &[])).unwrap(), "192.0.2.22 a");
    assert_eq!(told(ask(&ipam, "web", &any, &["192.0.2.21"])).unwrap(), "192.0.2.21 a");
    let refusal = ask(&ipam, "web", &request(V4, &["192.0.2.20"], None), &[]).unwrap_err();
    assert_eq!((refusal.reason(), refusal.ends_by_release()), (Reason::CoolingDown, true));
    assert!(refusal.to_string().contains("before 1970-01-01T00:16:40Z"), "{refusal}");
    hold(&mut ipam, ip("192.0.2.22"), "other", "a");
    let refusal = ask(&ipam, "web", &any, &[]).unwrap_err();
    assert_eq!((refusal.reason(), refusal.ends_by_release()), (Reason::PoolExhausted, true));
    // One that is released while it cools stays out of what is free.
    hold(&mut ipam, ip("192.0.2.20"), "back", "a");
    ipam.release(ip("192.0.2.20"));
    assert_eq!(ipam.reports().next().unwrap().1.available.v4, 0);
    // What has cooled down is free, but for what is held, is never given, or is no part of it.
    let mut changed = |cooling: &[(&str, i64)], expected: &str, available| {
        let cooling = cooling.iter().map(|(range, until)| (range.parse().unwrap(), *until)).collect();
        let freed = ipam.set_cooling("a", cooling);
        let freed: Vec<_> = freed.ranges().map(|range| range.to_string()).collect();
        assert_eq!((freed, ipam.report("a").unwrap().available.v4), (vec![expected.to_owned()], available));
    };
    changed(&[("192.0.2.21-192.0.2.40", 1_000)], "192.0.2.20", 1);
    changed(&[("192.0.2.20", 1_000)], "192.0.2.21", 1);
    changed(&[], "192.0.2.20", 2);
}

#[test]
fn who_came_first_stays_with_its_namespace_when_its_pool_keeps_sharing_within_one() {
    let tenants = [("a", "one", 80), ("b", "two", 81), ("a", "three", 82), ("b", "four", 83)];
    let stays = |sharing: SharingScope, tenants: &[(&str, &str, u16)]| {
        let mut ipam = ipam(vec![PoolInput { sharing, ..pool("a", 1, &["192.0.2.20"]) }]);
        let keyed = |(namespace, name, port): &(&str, &str, u16)| {
            let service = ServiceKey { namespace: (*namespace).to_owned(), name: (*name).to_owned() };
            (service, Some(terms_of("k", &format!("TCP/{port}"))))
        };
        for (service, terms) in tenants.iter().map(keyed) {
            ipam.hold(ip("192.0.2.20"), "a", Tenant { service, terms });
        }
        let (none, any) = (Labels::new(), request(V4, &[], None));
        let may = |(service, terms): &(ServiceKey, Option<SharingTerms>)| {
            let (labels, namespace, request) = (&none, Some(&none), &any);
            let ask = Ask { service, labels, namespace, request, previous: &[], terms: terms.as_ref() };
            ipam.may_stay(ask, ip("192.0.2.20")).map_err(|refusal| refusal.reason())
        };
        tenants.iter().map(keyed).map(|tenant| may(&tenant)).collect::<Vec<_>>()
    };
    let leaves = || Err(Reason::SharingNamespaceDiffers);
    assert_eq!(stays(SharingScope::Cluster, &tenants), [Ok(()), Ok(()), Ok(()), Ok(())]);
    assert_eq!(stays(SharingScope::Namespace, &tenants), [Ok(()), leaves(), Ok(()), leaves()]);
    assert_eq!(stays(SharingScope::Namespace, &tenants[1..]), [Ok(()), leaves(), Ok(())]);
    // Another reason to leave is one for whoever was first, too.
    let collide = [("a", "one", 80), ("a", "three", 80), ("b", "two", 81)];
    assert_eq!(stays(SharingScope::Namespace, &collide)[0], Err(Reason::SharingPortTaken));
}
