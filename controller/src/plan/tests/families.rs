//! Services of one family and of both.

use super::*;

const BOTH: &[&str] = &["192.0.2.200-192.0.2.201", "2001:db8:2::200-2001:db8:2::201"];

fn dual(policy: &str, families: [&str; 2]) -> serde_json::Value {
    json!({"ipFamilyPolicy": policy, "ipFamilies": families})
}

fn prefer() -> serde_json::Value {
    dual("PreferDualStack", ["IPv4", "IPv6"])
}

fn require() -> serde_json::Value {
    dual("RequireDualStack", ["IPv4", "IPv6"])
}

#[test]
fn both_families_are_claimed_first_and_written_at_once_in_the_order_of_the_service() {
    for (families, ingress) in
        [(["IPv4", "IPv6"], "192.0.2.200,2001:db8:2::200"), (["IPv6", "IPv4"], "2001:db8:2::200,192.0.2.200")]
    {
        let mut cluster = Cluster::new(BOTH);
        cluster.apply("web", dual("RequireDualStack", families));
        cluster.settle(None);
        let (first, second) = ingress.split_once(',').unwrap();
        assert_eq!(
            cluster.writes(),
            [format!("claim {first}"), format!("claim {second}"), format!("status web {ingress}")]
        );
        let condition = cluster.condition("web", types::ALLOCATED);
        assert!(
            condition
                .ends_with(&format!("{first} from IPAddressPool `default`, {second} from IPAddressPool `default`")),
            "{condition}"
        );
        for address in [first, second] {
            assert!(cluster.owner(address).is_some(), "{address}");
        }
        assert!(cluster.condition("web", types::ANNOUNCED).starts_with("True NoServingEndpoints"));
    }
}

#[test]
fn a_service_of_ipv6_alone_gets_an_ipv6_address() {
    let mut cluster = Cluster::new(BOTH);
    cluster.apply("web", json!({"ipFamilies": ["IPv6"], "ipFamilyPolicy": "SingleStack"}));
    cluster.settle(None);
    assert_eq!(cluster.writes(), ["claim 2001:db8:2::200", "status web 2001:db8:2::200"]);
    let members = &cluster.announcements["2001-db8-2-0-0-0-0-200"].spec.layer2.clone().unwrap().members;
    assert!(members.iter().all(|m| m.address.to_string().starts_with("2001:db8:2::1")), "{members:?}");
}

#[test]
fn the_subnet_router_anycast_address_and_the_nodes_own_are_left_out() {
    let mut cluster = Cluster::new(&["2001:db8:2::/64"]);
    cluster.apply("web", json!({"ipFamilies": ["IPv6"]}));
    cluster.settle(None);
    assert_eq!(cluster.ingress("web").as_deref(), Some("2001:db8:2::1"));
    for (address, reason) in [("2001:db8:2::", "SubnetAddress"), ("2001:db8:2::12", "NodeAddress")] {
        cluster.apply("asks", json!({"ipFamilies": ["IPv6"], "loadBalancerIP": address}));
        cluster.settle(None);
        let condition = cluster.condition("asks", types::ALLOCATED);
        assert!(condition.starts_with(&format!("False {reason} ")), "{condition}");
    }
}

#[test]
fn one_family_is_enough_where_both_are_preferred_and_the_other_is_added_when_it_comes() {
    type Edit = fn(&mut Cluster);
    let cases: [(&str, &[&str], Edit, &str, Edit); 2] = [
        (
            "a pool gains it",
            &["192.0.2.200"],
            |_| {},
            "no IPv6 address: IPAddressPool `default` has no IPv6 addresses; add some",
            |c| c.pool("default", &["192.0.2.200", "2001:db8:2::200"]),
        ),
        (
            "another Service releases it",
            &["192.0.2.200", "2001:db8:2::200"],
            |c| {
                c.apply("other", json!({"ipFamilies": ["IPv6"]}));
                c.settle(None);
            },
            "no IPv6 address: every IPv6 address of IPAddressPool `default` is held, or was a moment ago; enlarge it or release one",
            |c| c.delete("other"),
        ),
    ];
    for (what, pool, prepare, says, edit) in cases {
        let mut cluster = Cluster::new(pool);
        prepare(&mut cluster);
        cluster.apply("web", prefer());
        cluster.settle(None);
        assert_eq!(cluster.ingress("web").as_deref(), Some("192.0.2.200"), "{what}");
        let condition = cluster.condition("web", types::ALLOCATED);
        assert!(condition.starts_with("True Allocated 192.0.2.200 from IPAddressPool `default`; "), "{condition}");
        assert!(condition.contains(says), "{what}: {condition}");
        assert_eq!(cluster.world.waiting(), 0, "{what}: it is served");
        edit(&mut cluster);
        cluster.settle(None);
        assert_eq!(cluster.ingress("web").as_deref(), Some("192.0.2.200 2001:db8:2::200"), "{what}");
        assert!(!cluster.condition("web", types::ALLOCATED).contains("no IPv6"), "{what}");
    }
}

#[test]
fn an_address_that_becomes_free_is_only_offered_to_those_that_wait_for_its_family() {
    let mut cluster = Cluster::new(&["192.0.2.200-192.0.2.201", "2001:db8:2::200"]);
    cluster.apply("six", json!({"ipFamilies": ["IPv6"]}));
    cluster.apply("four", json!({}));
    cluster.settle(None);
    cluster.apply("waits", prefer());
    cluster.settle(None);
    cluster.delete("four");
    let first: Vec<_> = std::iter::from_fn(|| cluster.world.next(|_| false)).collect();
    assert_eq!(first, [key("four")]);
    cluster.world.mark(&key("four"));
    cluster.settle(None);
    assert_eq!(cluster.world.next(|_| false), None);
    cluster.writes();
    cluster.delete("six");
    cluster.settle(None);
    assert_eq!(
        cluster.writes(),
        ["release 2001-db8-2-0-0-0-0-200", "claim 2001:db8:2::200", "status waits 192.0.2.201,2001:db8:2::200"]
    );
}

#[test]
fn where_both_are_required_there_are_both_or_what_is_held_stays() {
    let mut cluster = Cluster::new(&["192.0.2.200-192.0.2.201"]);
    cluster.apply("web", require());
    cluster.settle(None);
    assert_eq!(cluster.writes(), ["status web "]);
    let condition = cluster.condition("web", types::ALLOCATED);
    assert!(
        condition.starts_with("False FamilyUnavailable IPAddressPool `default` has no IPv6 addresses"),
        "{condition}"
    );

    cluster.apply("web", json!({}));
    cluster.settle(None);
    cluster.apply("web", require());
    cluster.settle(None);
    assert_eq!(cluster.ingress("web").as_deref(), Some("192.0.2.200"));
    let condition = cluster.condition("web", types::ALLOCATED);
    assert!(
        condition.starts_with("False FamilyUnavailable") && condition.ends_with("; 192.0.2.200 stays until then"),
        "{condition}"
    );

    // Both come from one pool, so another pool with the other family is of no use, and one with both is.
    cluster.pool("six", &["2001:db8:2::200"]);
    cluster.settle(None);
    assert_eq!(cluster.ingress("web").as_deref(), Some("192.0.2.200"));
    cluster.pool("six", &["2001:db8:2::200", "192.0.2.210"]);
    cluster.settle(None);
    assert_eq!(cluster.ingress("web").as_deref(), Some("192.0.2.210 2001:db8:2::200"));
    assert!(cluster.condition("web", types::ALLOCATED).starts_with("True Allocated"));
}

#[test]
fn half_a_pair_that_was_claimed_and_then_refused_is_given_back() {
    let mut cluster = Cluster::new(BOTH);
    cluster.apply("web", require());
    let next = cluster.world.next(|_| false).unwrap();
    let first = plan(&cluster.world, &BTreeMap::new(), &next, Timestamp::UNIX_EPOCH).steps.remove(0);
    cluster.write(first).unwrap();
    cluster.pool("default", &["192.0.2.200-192.0.2.201"]);
    cluster.settle(None);
    assert_eq!(cluster.ingress("web"), None);
    assert_eq!(cluster.writes(), ["claim 192.0.2.200", "status web ", "release 192.0.2.200"]);
}

#[test]
fn a_family_that_the_service_gave_up_is_released_after_the_ingress_no_longer_names_it() {
    let mut cluster = Cluster::new(BOTH);
    cluster.apply("web", prefer());
    cluster.settle(None);
    cluster.writes();
    cluster.apply("web", json!({"ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv4"]}));
    cluster.settle(None);
    assert_eq!(cluster.writes(), ["status web 192.0.2.200", "release 2001-db8-2-0-0-0-0-200"]);
    // Also where the request is left over from before.
    let mut cluster = Cluster::new(BOTH);
    let asked = json!({"berth.dev/load-balancer-ips": "192.0.2.200,2001:db8:2::200"});
    cluster.apply_with("web", prefer(), asked.clone());
    cluster.settle(None);
    cluster.writes();
    cluster.apply_with("web", json!({}), asked);
    cluster.settle(None);
    assert_eq!(cluster.writes(), ["status web 192.0.2.200", "release 2001-db8-2-0-0-0-0-200"]);
    let condition = cluster.condition("web", types::ALLOCATED);
    assert!(
        condition.starts_with("False FamilyMismatch annotation berth.dev/load-balancer-ips asks for 2001:db8:2::200"),
        "{condition}"
    );
}

#[test]
fn each_family_moves_by_itself_once_its_new_address_is_answered_for() {
    let mut cluster = Cluster::new(BOTH);
    cluster.apply("web", require());
    cluster.settle(None);
    for address in ["192.0.2.200", "2001:db8:2::200"] {
        let owner = cluster.owner(address).unwrap();
        cluster.claim(address, &owner, 1);
    }
    cluster.settle(None);
    cluster.writes();
    let asked = json!({"berth.dev/load-balancer-ips": "2001:db8:2::201,192.0.2.201"});
    cluster.apply_with("web", require(), asked);
    cluster.settle(None);
    assert_eq!(
        cluster.writes(),
        ["claim 192.0.2.201", "claim 2001:db8:2::201", "status web 192.0.2.200,2001:db8:2::200"]
    );
    let condition = cluster.condition("web", types::ALLOCATED);
    assert!(condition.starts_with("False AddressPending 192.0.2.201 is claimed"), "{condition}");
    let owner = cluster.owner("2001:db8:2::201").unwrap();
    cluster.claim("2001:db8:2::201", &owner, 1);
    cluster.settle(None);
    assert_eq!(cluster.writes(), ["status web 192.0.2.200,2001:db8:2::201", "release 2001-db8-2-0-0-0-0-200"]);
    let owner = cluster.owner("192.0.2.201").unwrap();
    cluster.claim("192.0.2.201", &owner, 1);
    cluster.settle(None);
    assert_eq!(cluster.writes(), ["status web 192.0.2.201,2001:db8:2::201", "release 192.0.2.200"]);
    assert!(cluster.condition("web", types::ALLOCATED).starts_with("True Allocated"));
}

#[test]
fn the_local_policy_counts_endpoints_for_the_address_of_their_family() {
    let mut cluster = Cluster::new(BOTH);
    let mut spec = prefer();
    spec["externalTrafficPolicy"] = json!("Local");
    cluster.endpoints_of("web", "IPv4", &["node-1"]);
    cluster.endpoints_of("web", "IPv6", &["node-3"]);
    cluster.apply("web", spec);
    cluster.settle(None);
    assert_eq!(cluster.owner("192.0.2.200").as_deref(), Some("node-1"));
    assert_eq!(cluster.owner("2001:db8:2::200").as_deref(), Some("node-3"));
    cluster.endpoints_of("web", "IPv6", &[]);
    cluster.settle(None);
    assert_eq!(cluster.owner("192.0.2.200").as_deref(), Some("node-1"));
    let condition = cluster.condition("web", types::ANNOUNCED);
    assert!(condition.starts_with("False NoLocalEndpoints 2001:db8:2::200: "), "{condition}");
}

#[test]
fn a_pool_counts_each_family_and_shows_a_number_that_fits() {
    let mut cluster = Cluster::new(&["192.0.2.200-192.0.2.203", "2001:db8:2::/64"]);
    cluster.apply("web", prefer());
    cluster.settle(None);
    let (name, report) = cluster.world.ipam.reports().next().unwrap();
    let view = cluster.world.pool(name).unwrap();
    let change = berth_pool::report::pool_change(name, view, report, &[], &[], Timestamp::UNIX_EPOCH).unwrap();
    let count = |field: &str| change.body["status"][field].as_i64().unwrap();
    assert_eq!(["assignedIPv4", "availableIPv4", "assignedIPv6", "availableIPv6"].map(count), [1, 3, 1, i64::MAX]);
}
