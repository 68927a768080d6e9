//! Services whose status names an address that no Announcement backs: the kinds were deleted and installed again, Berth was installed
//! beside another controller, or somebody deleted an Announcement.

use super::*;

/// A cluster into which Berth comes anew, with the Services that another has.
fn installed_again(before: &Cluster) -> Cluster {
    let mut cluster = Cluster::new(&["192.0.2.200"]);
    cluster.world.learn(Change::Pool("default".to_owned(), None));
    (cluster.services, cluster.version) = (before.services.clone(), before.version);
    for key in cluster.services.keys().cloned().collect::<Vec<_>>() {
        cluster.tell(&key.name);
    }
    cluster
}

/// A Service to which somebody else has given this.
fn beside(ingress: serde_json::Value) -> Cluster {
    let mut cluster = Cluster::new(&["192.0.2.200"]);
    cluster.world.learn(Change::Pool("default".to_owned(), None));
    cluster.apply("web", json!({}));
    let service = cluster.services.get_mut(&key("web")).unwrap();
    service.status = Some(serde_json::from_value(json!({"loadBalancer": {"ingress": ingress}})).unwrap());
    cluster.tell("web");
    cluster
}

fn ingress(cluster: &Cluster) -> serde_json::Value {
    serde_json::to_value(&cluster.services[&key("web")].status.as_ref().unwrap().load_balancer).unwrap()["ingress"]
        .clone()
}

#[test]
fn a_service_keeps_its_address_when_everything_of_ours_was_deleted_and_pools_come_back_one_after_the_other() {
    let mut before = Cluster::answered();
    before.pool("other", &["192.0.2.220-192.0.2.221"]);
    before.apply_with("db", json!({}), json!({"berth.dev/address-pool": "other"}));
    before.settle(None);
    // What it asked for once is not what keeps it.
    before.apply("db", json!({}));
    before.settle(None);
    assert_eq!(before.ingress("db").as_deref(), Some("192.0.2.220"));

    let mut cluster = installed_again(&before);
    cluster.settle(None);
    let addresses = |cluster: &Cluster| [cluster.ingress("web").unwrap(), cluster.ingress("db").unwrap()];
    assert_eq!(addresses(&cluster), ["192.0.2.200", "192.0.2.220"]);
    assert_eq!(
        cluster.condition("web", types::ALLOCATED),
        "False NoPool there is no IPAddressPool; create one; 192.0.2.200 stays until then"
    );
    let announced = "False AddressOutsidePools nobody is told to answer for 192.0.2.200, which no IPAddressPool gives";
    assert_eq!(cluster.condition("web", types::ANNOUNCED), announced);
    cluster.writes();

    // The first pool is large enough for both.
    cluster.pool("default", &["192.0.2.200-192.0.2.210"]);
    cluster.settle(None);
    assert_eq!(addresses(&cluster), ["192.0.2.200", "192.0.2.220"]);
    assert!(cluster.condition("web", types::ALLOCATED).starts_with("True Allocated 192.0.2.200 from"));
    assert!(cluster.condition("web", types::ANNOUNCED).starts_with("True NoServingEndpoints"));
    let told = cluster.condition("db", types::ALLOCATED);
    assert!(told.starts_with("False AddressOutsidePools 192.0.2.220, which is in the status"), "{told}");
    cluster.pool("other", &["192.0.2.220-192.0.2.221"]);
    cluster.settle(None);
    assert_eq!(addresses(&cluster), ["192.0.2.200", "192.0.2.220"]);
    assert!(cluster.condition("db", types::ALLOCATED).starts_with("True Allocated 192.0.2.220 from"));
    assert_eq!(cluster.announcements.keys().collect::<Vec<_>>(), ["192.0.2.200", "192.0.2.220"]);
}

#[test]
fn one_whose_address_is_in_no_pool_any_more_moves_when_it_asks_for_something_else() {
    for (annotation, value, expected) in [
        ("berth.dev/address-pool", "new", "192.0.2.230"),
        ("berth.dev/load-balancer-ips", "192.0.2.231", "192.0.2.231"),
    ] {
        let mut cluster = installed_again(&Cluster::answered());
        cluster.pool("new", &["192.0.2.230-192.0.2.231"]);
        cluster.settle(None);
        assert_eq!(cluster.ingress("web").as_deref(), Some("192.0.2.200"));
        cluster.apply_with("web", json!({}), json!({annotation: value}));
        cluster.settle(None);
        assert_eq!(cluster.ingress("web").as_deref(), Some(expected));
    }
}

#[test]
fn what_another_controller_gave_stays_until_a_pool_gives_something() {
    for given in [
        json!([{"ip": "203.0.113.7", "ipMode": "VIP"}]),
        json!([{"ip": "203.0.113.7", "ipMode": "Proxy"}, {"ip": "203.0.113.8", "ipMode": "VIP"}]),
        json!([{"hostname": "lb.example.com"}]),
    ] {
        let mut cluster = beside(given.clone());
        cluster.settle(None);
        assert_eq!(ingress(&cluster), given);
        assert!(cluster.condition("web", types::ALLOCATED).starts_with("False NoPool "), "{given}");
        let conditions = cluster.services[&key("web")].status.as_ref().unwrap().conditions.as_ref().unwrap();
        assert_eq!(conditions.len(), 1, "nothing is said of who announces it: {given}");
        cluster.pool("default", &["192.0.2.200"]);
        cluster.settle(None);
        assert_eq!(ingress(&cluster), json!([{"ip": "192.0.2.200", "ipMode": "VIP"}]), "{given}");
    }
}

#[test]
fn what_another_service_holds_is_nobodys_who_only_has_it_in_its_status() {
    let mut cluster = Cluster::answered();
    cluster.pool("default", &["192.0.2.200"]);
    cluster.apply("copy", json!({}));
    cluster.services.get_mut(&key("copy")).unwrap().status = cluster.services[&key("web")].status.clone();
    cluster.tell("copy");
    cluster.settle(None);
    assert_eq!((cluster.ingress("copy"), cluster.ingress("web").as_deref()), (None, Some("192.0.2.200")));
    assert!(cluster.condition("copy", types::ALLOCATED).starts_with("False PoolExhausted "));
}

#[test]
fn an_announcement_that_somebody_deleted_is_made_again_whatever_has_become_of_its_pool_and_of_the_request() {
    type Edit = fn(&mut Cluster);
    let edits: [(&str, Edit, &str); 6] = [
        ("nothing", |_| (), "True Allocated"),
        (
            "disabled",
            |c| c.pool_with("default", json!({"addresses": ["192.0.2.200-192.0.2.210"], "disabled": true})),
            "True Allocated",
        ),
        (
            "by request alone",
            |c| c.pool_with("default", json!({"addresses": ["192.0.2.200-192.0.2.210"], "autoAssign": false})),
            "True Allocated",
        ),
        ("overlaps an older one", |c| c.pool("a-older", &["192.0.2.210"]), "True Allocated"),
        ("refused", |c| c.apply("web", json!({"loadBalancerIP": "198.51.100.1"})), "False AddressOutsidePools"),
        (
            "refused and disabled",
            |c| {
                c.pool_with("default", json!({"addresses": ["192.0.2.200-192.0.2.210"], "disabled": true}));
                c.apply("web", json!({"loadBalancerIP": "192.0.2.201"}));
            },
            "False PoolDisabled",
        ),
    ];
    for (what, edit, allocated) in edits {
        let mut cluster = Cluster::answered();
        edit(&mut cluster);
        cluster.settle(None);
        cluster.announcements.remove("192.0.2.200");
        cluster.show("192.0.2.200");
        cluster.settle(None);
        assert_eq!(cluster.ingress("web").as_deref(), Some("192.0.2.200"), "{what}");
        assert!(cluster.owner("192.0.2.200").is_some(), "{what}: it is announced");
        assert!(cluster.condition("web", types::ALLOCATED).starts_with(allocated), "{what}");
    }
}
