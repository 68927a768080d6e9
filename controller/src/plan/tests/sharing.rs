//! Services that share an address, and pools that are for some only or let addresses cool down.

use super::*;

fn shares(port: u16) -> (serde_json::Value, serde_json::Value) {
    (json!({"ports": [{"port": port}]}), json!({"berth.dev/allow-shared-ip": "k"}))
}

fn tenants(cluster: &Cluster, name: &str) -> Vec<String> {
    cluster
        .announcements
        .get(name)
        .map(|a| a.spec.services.iter().map(|s| s.name.clone()).collect())
        .unwrap_or_default()
}

/// `one` and `two` share 192.0.2.200, and a node answers for it.
fn two_that_share(pool: &[&str]) -> Cluster {
    let mut cluster = Cluster::new(pool);
    for (name, port) in [("one", 80), ("two", 443)] {
        let (spec, annotations) = shares(port);
        cluster.apply_with(name, spec, annotations);
        cluster.settle(None);
    }
    let owner = cluster.owner("192.0.2.200").unwrap();
    cluster.claim("192.0.2.200", &owner, 1);
    cluster.settle(None);
    assert_eq!(tenants(&cluster, "192.0.2.200"), ["one", "two"]);
    assert_eq!((cluster.ingress("one"), cluster.ingress("two")), (cluster.ingress("two"), cluster.ingress("one")));
    cluster.writes();
    cluster
}

#[test]
fn the_second_joins_the_announcement_and_the_last_to_leave_takes_it_along() {
    let mut cluster = two_that_share(&["192.0.2.200-192.0.2.201"]);
    cluster.delete("one");
    cluster.settle(None);
    assert_eq!(cluster.writes(), ["update 192.0.2.200"]);
    assert_eq!(tenants(&cluster, "192.0.2.200"), ["two"]);
    cluster.delete("two");
    cluster.settle(None);
    assert_eq!(cluster.writes(), ["release 192.0.2.200"]);
}

#[test]
fn who_takes_a_port_of_the_other_leaves_at_once_and_the_other_notices_nothing() {
    let mut cluster = two_that_share(&["192.0.2.200-192.0.2.201"]);
    let before = cluster.services[&key("one")].clone();
    let (spec, annotations) = shares(80);
    cluster.apply_with("two", spec, annotations);
    cluster.settle(None);
    assert_eq!(cluster.writes(), ["claim 192.0.2.201", "status two 192.0.2.201", "update 192.0.2.200"]);
    assert_eq!(cluster.services[&key("one")], before);
}

#[test]
fn who_may_not_share_any_more_and_gets_nothing_else_says_why_and_has_it_again_when_it_may() {
    let mut cluster = two_that_share(&["192.0.2.200"]);
    let (spec, annotations) = shares(80);
    cluster.apply_with("two", spec, annotations);
    cluster.settle(None);
    assert_eq!(cluster.writes(), ["status two ", "update 192.0.2.200"]);
    let condition = cluster.condition("two", types::ALLOCATED);
    assert!(condition.starts_with("False PoolExhausted "), "{condition}");
    let why =
        "SharingPortTaken 192.0.2.200 cannot stay: 192.0.2.200 is held by Service shop/one, and both have port TCP/80";
    assert!(cluster.notes.iter().any(|note| note.starts_with(why)), "{:?}", cluster.notes);
    // The other changes its port, which frees this one.
    let (spec, annotations) = shares(8080);
    cluster.apply_with("one", spec, annotations);
    cluster.settle(None);
    assert_eq!(cluster.ingress("two").as_deref(), Some("192.0.2.200"));
    assert_eq!(tenants(&cluster, "192.0.2.200"), ["one", "two"]);
}

#[test]
fn who_changes_the_policy_keeps_the_shared_address_until_another_is_answered_for() {
    let mut cluster = two_that_share(&["192.0.2.200-192.0.2.201"]);
    cluster.endpoints("two", &["node-1", "node-2"]);
    let (_, annotations) = shares(443);
    cluster.apply_with("two", json!({"ports": [{"port": 443}], "externalTrafficPolicy": "Local"}), annotations);
    cluster.settle(None);
    assert_eq!(cluster.ingress("two").as_deref(), Some("192.0.2.200"));
    assert!(cluster.condition("two", types::ALLOCATED).starts_with("False AddressPending 192.0.2.201 is claimed"));
    let owner = cluster.owner("192.0.2.201").unwrap();
    cluster.claim("192.0.2.201", &owner, 1);
    cluster.settle(None);
    assert_eq!(cluster.ingress("two").as_deref(), Some("192.0.2.201"));
    assert_eq!(tenants(&cluster, "192.0.2.200"), ["one"]);
}

#[test]
fn one_of_the_same_name_that_may_not_share_gets_nothing_of_what_its_predecessor_shared() {
    let mut cluster = two_that_share(&["192.0.2.200-192.0.2.201"]);
    cluster.behind = true;
    cluster.delete("two");
    cluster.apply("two", json!({"ports": [{"port": 443}]}));
    cluster.catch_up(["two".to_owned()]);
    cluster.settle(None);
    assert_eq!(cluster.writes(), ["claim 192.0.2.201", "status two 192.0.2.201", "update 192.0.2.200"]);
}

#[test]
fn those_who_share_by_the_local_policy_are_answered_for_where_all_have_endpoints() {
    let mut cluster = Cluster::new(&["192.0.2.200"]);
    for (name, port, nodes) in [("one", 80, ["node-1", "node-2"]), ("two", 443, ["node-2", "node-3"])] {
        cluster.endpoints(name, &nodes);
        let spec = json!({"ports": [{"port": port}], "externalTrafficPolicy": "Local", "selector": {"app": "a"}});
        cluster.apply_with(name, spec, json!({"berth.dev/allow-shared-ip": "k"}));
        cluster.settle(None);
    }
    assert_eq!(tenants(&cluster, "192.0.2.200"), ["one", "two"]);
    assert_eq!(cluster.owner("192.0.2.200").as_deref(), Some("node-2"));
    // Whose endpoints move, moves for both.
    cluster.endpoints("one", &["node-3"]);
    cluster.settle(None);
    assert_eq!(cluster.owner("192.0.2.200").as_deref(), Some("node-3"));
}

#[test]
fn a_namespace_that_is_admitted_no_more_loses_the_address_and_has_another_first_where_there_is_one() {
    let gold = json!({"addresses": ["192.0.2.200"], "serviceAllocation": {"namespaceSelectors": [{"matchLabels": {"tier": "gold"}}]}});
    for (others, after) in [(&["192.0.2.210"][..], Some("192.0.2.210")), (&[][..], None)] {
        let mut cluster = Cluster::new(&["198.51.100.1"]);
        cluster.namespace("shop", json!({"tier": "gold"}));
        cluster.pool_with("default", gold.clone());
        cluster.apply("web", json!({}));
        cluster.settle(None);
        assert_eq!(cluster.ingress("web").as_deref(), Some("192.0.2.200"));
        let owner = cluster.owner("192.0.2.200").unwrap();
        cluster.claim("192.0.2.200", &owner, 1);
        if !others.is_empty() {
            cluster.pool("open", others);
        }
        cluster.settle(None);
        cluster.writes();
        cluster.namespace("shop", json!({"tier": "tin"}));
        cluster.settle(None);
        while let Some((name, owner, epoch)) = cluster.unanswered() {
            assert_eq!(cluster.ingress("web").as_deref(), Some("192.0.2.200"), "not before another is answered for");
            cluster.claim(&name, &owner, epoch);
            cluster.settle(None);
        }
        assert_eq!(cluster.ingress("web").as_deref(), after);
        assert!(!cluster.announcements.contains_key("192.0.2.200"));
        if after.is_none() {
            let condition = cluster.condition("web", types::ALLOCATED);
            assert!(condition.starts_with("False PoolNotAdmitted "), "{condition}");
        }
    }
}

#[test]
fn a_service_of_a_namespace_that_is_not_known_yet_is_planned_when_it_is() {
    let mut cluster = Cluster::new(&["192.0.2.200"]);
    cluster.namespace("default", json!({}));
    cluster.apply("web", json!({}));
    cluster.settle(None);
    assert_eq!(cluster.writes(), Vec::<String>::new());
    cluster.namespace("shop", json!({}));
    cluster.settle(None);
    assert_eq!(cluster.ingress("web").as_deref(), Some("192.0.2.200"));
}

#[test]
fn what_is_released_is_noted_in_the_pool_before_it_goes_and_given_again_when_it_has_cooled_down() {
    let mut cluster = Cluster::new(&["198.51.100.1"]);
    cluster.pool_with("default", json!({"addresses": ["192.0.2.200"], "coolDownSeconds": 60}));
    cluster.apply("one", json!({}));
    cluster.settle(None);
    cluster.write_pools();
    cluster.writes();
    cluster.delete("one");
    cluster.apply("two", json!({}));
    cluster.settle(None);
    // Nothing is forgotten, whoever leads next: the Announcement stays until the pool says so.
    assert_eq!(tenants(&cluster, "192.0.2.200"), ["one"]);
    assert_eq!(cluster.write_pools(), ["default 192.0.2.200 1000062"]);
    cluster.settle(None);
    assert_eq!(cluster.writes(), ["status two ", "release 192.0.2.200"]);
    let condition = cluster.condition("two", types::ALLOCATED);
    assert!(condition.starts_with("False PoolExhausted "), "{condition}");

    // Another leader knows no more than what is there.
    let mut successor = Cluster::new(&["198.51.100.1"]);
    (successor.pools, successor.services, successor.version) = (cluster.pools, cluster.services, cluster.version);
    successor.pool_with("default", json!({"addresses": ["192.0.2.200"], "coolDownSeconds": 60}));
    successor.tell("two");
    successor.settle(None);
    assert_eq!(successor.ingress("two"), None);
    assert_eq!(successor.world.next_cooled(), Some(1_000_062));
    successor.world.expire(1_000_061);
    successor.settle(None);
    assert_eq!(successor.ingress("two"), None);
    successor.now = 1_000_062;
    successor.world.expire(successor.now);
    successor.settle(None);
    assert_eq!(successor.ingress("two").as_deref(), Some("192.0.2.200"));
    assert_eq!(successor.write_pools(), Vec::<String>::new());
    assert_eq!(successor.world.next_cooled(), None);
}

#[test]
fn those_that_wait_are_written_only_when_something_cools_down_or_has_that_is_for_them() {
    let mut cluster = Cluster::new(&["198.51.100.1"]);
    cluster.pool_with("default", json!({"addresses": ["192.0.2.200-192.0.2.203"], "coolDownSeconds": 60}));
    let names = |range: std::ops::Range<usize>| range.map(|n| format!("s{n}")).collect::<Vec<_>>();
    for name in names(0..9) {
        cluster.apply(&name, json!({}));
        cluster.settle(None);
    }
    cluster.apply("asks", json!({"loadBalancerIP": "192.0.2.202"}));
    cluster.settle(None);
    cluster.write_pools();
    // Three are given back, one of them later; nobody else hears of it.
    for (gone, now) in [(0..2, 1_000_000), (2..3, 1_000_030)] {
        cluster.now = now;
        cluster.writes();
        for name in &names(gone.clone()) {
            cluster.delete(name);
        }
        cluster.settle(None);
        cluster.write_pools();
        cluster.settle(None);
        let writes = cluster.writes();
        let (releases, others): (Vec<_>, Vec<_>) = writes.iter().partition(|write| write.starts_with("release "));
        // Who waits for that very address hears what becomes of it.
        let heard = if now == 1_000_030 { &["status asks "][..] } else { &[] };
        assert_eq!(
            (releases.len(), others.into_iter().map(String::as_str).collect::<Vec<_>>()),
            (gone.len(), heard.to_vec()),
            "{now}"
        );
    }
    let (condition, message) = (cluster.condition("asks", types::ALLOCATED), cluster.condition("s8", types::ALLOCATED));
    assert!(condition.starts_with("False CoolingDown "), "{condition}");
    // Two have cooled down, then the third: so many are served, in their order.
    for (now, served) in [(1_000_062, &["s4", "s5"][..]), (1_000_092, &["asks"])] {
        cluster.now = now;
        cluster.world.expire(now);
        cluster.settle(None);
        let writes = cluster.writes();
        let told: Vec<_> = writes.iter().filter_map(|write| write.strip_prefix("status ")?.split(' ').next()).collect();
        assert_eq!((told, writes.len()), (served.to_vec(), 2 * served.len()), "{now}");
        cluster.write_pools();
        cluster.settle(None);
        assert_eq!(cluster.writes(), Vec::<String>::new());
    }
    assert_eq!(cluster.condition("s8", types::ALLOCATED), message);
}

#[test]
fn a_late_status_of_a_pool_does_not_make_it_forget_what_cools_down_since() {
    let mut cluster = Cluster::new(&["198.51.100.1"]);
    cluster.pool_with("default", json!({"addresses": ["192.0.2.200-192.0.2.201"], "coolDownSeconds": 60}));
    cluster.apply("one", json!({}));
    cluster.settle(None);
    // A leader plans this, and is paused.
    let (name, now) = ("default", Timestamp::from_second(cluster.now).unwrap());
    let report = cluster.world.ipam.report(name).unwrap();
    let view = cluster.world.pool(name).unwrap();
    let late = berth_pool::report::pool_change(name, view, report, &[], &[], now).unwrap();
    // Its successor notes what is released meanwhile.
    cluster.delete("one");
    cluster.settle(None);
    assert_eq!(cluster.write_pools(), ["default 192.0.2.200 1000062"]);
    assert_eq!(cluster.write_pool(&late), Err(Refused::Other));
    // Nor does one of a pool that was deleted and made again.
    let mut other = late.clone();
    other.body["metadata"]["resourceVersion"] = json!(cluster.pools[name].metadata.resource_version);
    other.body["metadata"]["uid"] = json!("another");
    assert_eq!(cluster.write_pool(&other), Err(Refused::Other));
    assert_eq!(cluster.world.next_cooled(), Some(1_000_062));
}

#[test]
fn a_release_that_was_noted_before_goes_on_under_the_next_leader_at_once() {
    let mut cluster = Cluster::new(&["198.51.100.1"]);
    let spec = json!({"addresses": ["192.0.2.200"], "coolDownSeconds": 60});
    cluster.pool_with("default", spec.clone());
    cluster.apply("one", json!({}));
    cluster.settle(None);
    cluster.write_pools();
    cluster.delete("one");
    cluster.settle(None);
    assert_eq!(cluster.write_pools(), ["default 192.0.2.200 1000062"]);
    // The leader is killed between the note and the release. What the next one would note ends in the same step, or later.
    for (later, told, writes) in
        [(1, &[][..], &["release 192.0.2.200"][..]), (30, &["default 192.0.2.200 1000092"], &[])]
    {
        let mut successor = Cluster::new(&["198.51.100.1"]);
        (successor.pools, successor.announcements) = (cluster.pools.clone(), cluster.announcements.clone());
        (successor.version, successor.now) = (cluster.version, cluster.now + later);
        successor.pool_with("default", spec.clone());
        successor.show("192.0.2.200");
        successor.settle(None);
        assert_eq!(successor.writes(), writes, "{later}");
        assert_eq!(successor.write_pools().iter().filter(|_| later > 1).collect::<Vec<_>>(), told, "{later}");
        successor.settle(None);
        assert!(successor.announcements.is_empty(), "{later}");
    }
}

#[test]
fn an_address_that_becomes_free_is_offered_to_one_after_the_other_until_somebody_takes_it() {
    let mut cluster = Cluster::new(&["192.0.2.200-192.0.2.201"]);
    for name in ["a", "b"] {
        cluster.apply(name, json!({}));
        cluster.settle(None);
    }
    // One waits for the other address, two for any.
    cluster.apply("first", json!({"loadBalancerIP": "192.0.2.201"}));
    for name in ["second", "third"] {
        cluster.apply(name, json!({}));
    }
    cluster.settle(None);
    cluster.writes();
    cluster.delete("a");
    cluster.settle(None);
    assert_eq!(cluster.writes(), ["release 192.0.2.200", "claim 192.0.2.200", "status second 192.0.2.200"]);
    cluster.delete("b");
    cluster.settle(None);
    assert_eq!(cluster.writes(), ["release 192.0.2.201", "claim 192.0.2.201", "status first 192.0.2.201"]);
    assert_eq!(cluster.world.waiting(), 1);
}
