//! Addresses that a foreign machine was found to have before their first use.

use super::cluster::Cluster;
use super::*;

const MAC: &str = "02:00:00:00:00:99";

/// A cluster with a pool of three, and Service `web` on the lowest.
fn cluster() -> Cluster {
    let mut cluster = Cluster::new(&["192.0.2.200-192.0.2.202"]);
    cluster.apply("web", json!({}));
    cluster.settle(None);
    cluster.writes();
    cluster
}

/// Another leader, which knows what is there and no more.
fn successor(of: Cluster) -> Cluster {
    let mut successor = Cluster::new(&["198.51.100.1"]);
    (successor.pools, successor.services, successor.version) = (of.pools, of.services, of.version);
    (successor.announcements, successor.now) = (of.announcements, of.now);
    successor.pool("default", &["192.0.2.200-192.0.2.202"]);
    for name in successor.announcements.keys().cloned().collect::<Vec<_>>() {
        successor.show(&name);
    }
    let names: Vec<_> = successor.services.keys().map(|key| key.name.clone()).collect();
    successor.catch_up(names);
    successor
}

#[test]
fn an_address_that_a_foreign_machine_has_before_its_first_use_is_exchanged_and_noted_before_it_is_released() {
    let mut cluster = cluster();
    cluster.conflict("192.0.2.200", MAC);
    cluster.settle(None);
    assert_eq!(cluster.writes(), ["claim 192.0.2.201", "status web 192.0.2.201"], "the next one is taken at once");
    let note = cluster.notes.iter().find(|note| note.starts_with("Quarantined ")).unwrap();
    assert!(note.contains(MAC) && note.contains("192.0.2.200"), "{note}");
    assert_eq!(cluster.quarantined(), Vec::<String>::new());
    cluster.write_pools();
    assert_eq!(cluster.quarantined(), [format!("192.0.2.200 {MAC} 300")]);
    cluster.settle(None);
    assert_eq!(cluster.writes(), ["release 192.0.2.200"], "its pool says so now");
    cluster.write_pools();

    // Nobody is given it, who asks for it is told why, and no one is written twice.
    cluster.apply("two", json!({}));
    cluster.apply("asks", json!({"loadBalancerIP": "192.0.2.200"}));
    cluster.settle(None);
    assert_eq!((cluster.ingress("two").as_deref(), cluster.ingress("asks")), (Some("192.0.2.202"), None));
    let condition = cluster.condition("asks", types::ALLOCATED);
    assert!(condition.starts_with("False Quarantined ") && condition.contains(MAC), "{condition}");
    let status = cluster.pools["default"].status.clone().unwrap();
    assert_eq!((status.assigned_ipv4, status.available_ipv4), (Some(1), Some(1)), "before `two`");

    // When its time has passed, who waits for it gets it.
    let until = cluster.world.next_cooled().unwrap();
    assert_eq!(until, cluster.now + 300);
    cluster.now = until;
    cluster.world.expire(until);
    cluster.settle(None);
    assert_eq!(cluster.ingress("asks").as_deref(), Some("192.0.2.200"));
    // The machine still has it: who asks for this very one stays where it is and waits, the pool says so for longer.
    cluster.writes();
    cluster.conflict("192.0.2.200", MAC);
    cluster.settle(None);
    cluster.write_pools();
    cluster.settle(None);
    assert_eq!(cluster.quarantined(), [format!("192.0.2.200 {MAC} 600")]);
    assert!(!cluster.writes().iter().any(|write| write.starts_with("release")));
    assert!(cluster.condition("asks", types::ANNOUNCED).starts_with("False AddressConflict "));
    // It is gone: the node answers, and nothing is in quarantine.
    cluster.claim("192.0.2.200", "node-1", 1);
    cluster.settle(None);
    cluster.write_pools();
    assert_eq!(cluster.quarantined(), Vec::<String>::new());
    assert!(cluster.condition("asks", types::ANNOUNCED).starts_with("True "));
}

#[test]
fn whoever_leads_next_knows_what_was_found_by_the_announcement_or_by_the_pool() {
    for noted in [false, true] {
        let mut cluster = cluster();
        cluster.conflict("192.0.2.200", MAC);
        if noted {
            cluster.settle(None);
            cluster.write_pools();
            cluster.settle(None);
        }
        let mut next = successor(cluster);
        next.settle(None);
        next.write_pools();
        next.settle(None);
        assert_eq!(next.ingress("web").as_deref(), Some("192.0.2.201"), "{noted}");
        assert_eq!(next.quarantined(), [format!("192.0.2.200 {MAC} 300")], "{noted}");
        assert_eq!(next.announcements.keys().collect::<Vec<_>>(), ["192.0.2.201"], "{noted}");
        next.apply("two", json!({}));
        next.settle(None);
        assert_eq!(next.ingress("two").as_deref(), Some("192.0.2.202"), "{noted}");
        // And by then the time has passed for it, too.
        next.now += 300;
        next.world.expire(next.now);
        next.apply("three", json!({}));
        next.settle(None);
        assert_eq!(next.ingress("three").as_deref(), Some("192.0.2.200"), "{noted}");
    }
}

#[test]
fn an_address_that_is_or_was_in_use_is_never_put_in_quarantine() {
    let in_conflict = |answers: &str, layer2: bool| {
        let mut status = json!({"foreign": MAC, "conditions": [
            {"type": "Ready", "status": answers, "reason": "AddressConflict", "message": "somebody has it too", "lastTransitionTime": "2026-01-01T00:00:00Z"},
        ]});
        if layer2 {
            status["layer2"] = json!({"owner": "node-1", "epoch": 1, "since": "2026-01-01T00:00:00Z", "mac": "02:00:00:00:00:01", "interface": "eth0"});
        }
        status
    };
    // It is defended; it was answered for once; it was in the Service's status when the Announcement was made; the machine is a node.
    let mut by_a_node = in_conflict("False", false);
    by_a_node["foreign"] = json!("02:00:00:00:00:03");
    for (why, status, had_before) in [
        ("a node", by_a_node, false),
        ("defended", in_conflict("True", true), false),
        ("answered for once", in_conflict("False", true), false),
        ("had before", in_conflict("False", false), true),
    ] {
        let mut cluster = cluster();
        if had_before {
            cluster.announcements.clear();
            cluster.show("192.0.2.200");
            cluster.settle(None);
            assert_eq!(cluster.writes(), ["claim 192.0.2.200"], "{why}");
        }
        cluster.speaker_says("192.0.2.200", status);
        cluster.settle(None);
        cluster.write_pools();
        cluster.settle(None);
        assert_eq!(cluster.quarantined(), Vec::<String>::new(), "{why}");
        assert!(!cluster.world.must_quarantine("192.0.2.200".parse().unwrap()), "{why}: its release waits for nothing");
        assert_eq!(cluster.ingress("web").as_deref(), Some("192.0.2.200"), "{why}");
        assert!(cluster.condition("web", types::ANNOUNCED).contains("AddressConflict"), "{why}");
    }
}

#[test]
fn who_can_get_no_other_stays_and_waits_for_either() {
    let mut cluster = cluster();
    for name in ["two", "three"] {
        cluster.apply(name, json!({}));
        cluster.settle(None);
    }
    cluster.conflict("192.0.2.200", MAC);
    cluster.settle(None);
    cluster.write_pools();
    cluster.settle(None);
    assert_eq!(cluster.ingress("web").as_deref(), Some("192.0.2.200"));
    assert!(cluster.condition("web", types::ALLOCATED).starts_with("False PoolExhausted "));
    // Another one becomes free: that.
    cluster.delete("three");
    cluster.settle(None);
    assert_eq!(cluster.ingress("web").as_deref(), Some("192.0.2.202"));
    assert_eq!(cluster.announcements.keys().collect::<Vec<_>>(), ["192.0.2.201", "192.0.2.202"]);
}

#[test]
fn those_who_share_an_address_leave_it_together() {
    let mut cluster = Cluster::new(&["192.0.2.200-192.0.2.202"]);
    let annotations = json!({"berth.dev/allow-shared-ip": "key"});
    for (name, port) in [("web", 80), ("dns", 53)] {
        cluster.apply_with(name, json!({"ports": [{"port": port, "protocol": "TCP"}]}), annotations.clone());
        cluster.settle(None);
    }
    assert_eq!(cluster.announcements.keys().collect::<Vec<_>>(), ["192.0.2.200"]);
    cluster.conflict("192.0.2.200", MAC);
    cluster.settle(None);
    cluster.write_pools();
    cluster.settle(None);
    assert_eq!(cluster.announcements.keys().collect::<Vec<_>>(), ["192.0.2.201"]);
    for name in ["web", "dns"] {
        assert_eq!(cluster.ingress(name).as_deref(), Some("192.0.2.201"), "{name}");
    }
}

#[test]
fn one_who_has_everything_is_not_run_away_from_for_ever() {
    let mut cluster = Cluster::new(&["192.0.2.20-192.0.2.250"]);
    cluster.apply("web", json!({}));
    cluster.settle(None);
    let mut tried = 0;
    while let Some(address) = cluster.ingress("web") {
        tried += 1;
        assert!(tried < 1_000);
        cluster.conflict(&address, MAC);
        cluster.settle(None);
        cluster.write_pools();
        cluster.settle(None);
        if cluster.ingress("web").as_deref() == Some(&address) {
            break;
        }
    }
    assert_eq!((tried, cluster.quarantined().len()), (129, 128));
    assert!(cluster.condition("web", types::ANNOUNCED).contains("AddressConflict"));
}
