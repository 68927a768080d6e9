//! Calls that are hurt, and controllers that are killed.

use berth_moto::{Fate, Faults, Proxy};
use berth_provider::{Class, Intent};
use serde_json::{Value, json};

use crate::life::assert_nothing_left;
use crate::scene::{Cluster, World, service};

fn services(world: &World) -> [Intent; 3] {
    let tls = [("ssl-cert", &*world.certificates[0]), ("additional-resource-tags", "team=a")];
    let set = [
        ("attributes", "load_balancing.cross_zone.enabled=true"),
        ("target-group-attributes", "deregistration_delay.timeout_seconds=17"),
    ];
    [
        service("a", &set, json!({"loadBalancerSourceRanges": ["192.0.2.0/24"]})),
        service("b", &tls, json!({"ports": [{"name": "s", "port": 443, "nodePort": 30_443}]})),
        service("c", &[], json!({"ports": [{"name": "dns", "port": 53, "nodePort": 30_053, "protocol": "UDP"}]})),
    ]
}

/// Asserts that the same is there, and names what differs.
fn assert_same(seen: &Value, expected: &Value) {
    for (kind, of) in expected.as_object().unwrap() {
        for (name, of) in of.as_object().into_iter().flatten() {
            assert_eq!(seen[kind].get(name), Some(of), "{kind} {name}");
        }
    }
    assert!(seen == expected, "more than expected: {seen:#}");
}

/// What there is when nothing happens to any call.
async fn undisturbed(world: &World) -> Value {
    let mut cluster = world.cluster(&world.moto.endpoint()).await;
    services(world).into_iter().for_each(|service| cluster.apply(service));
    cluster.rest().await;
    let seen = world.look();
    cluster.delete_all();
    cluster.rest().await;
    assert_nothing_left(&world.look());
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_are_throttled_refused_reset_or_never_answered_change_nothing_of_what_there_is_in_the_end() {
    let world = World::new().await;
    let expected = undisturbed(&world).await;
    let faults = Faults::start(&world.tools, &world.moto.endpoint()).unwrap();
    let rule = |service: &str, what: Value| {
        let mut rule = json!({"service": service, "probability": 0.06});
        rule.as_object_mut().unwrap().extend(what.as_object().unwrap().clone());
        rule
    };
    let both = ["elbv2", "ec2"].into_iter().flat_map(|of| {
        let throttled = if of == "ec2" { "RequestLimitExceeded" } else { "Throttling" };
        [
            rule(of, json!({"error": {"code": throttled}})),
            rule(of, json!({"error": {"code": "ServiceUnavailable", "status": 503}})),
            rule(of, json!({"error": {"code": "InternalFailure", "status": 500}})),
            rule(of, json!({"reset": true})),
            rule(of, json!({"timeout_ms": 6000, "probability": 0.01})),
        ]
    });
    faults.rules(&Value::Array(both.collect())).unwrap();

    let mut cluster = world.cluster(&faults.endpoint()).await;
    services(&world).into_iter().for_each(|service| cluster.apply(service));
    cluster.rest().await;
    let hurt = faults.fired().unwrap();
    assert!(hurt > 10, "only {hurt} calls were hurt");
    assert!(!cluster.failures.is_empty());
    let odd = |class: Class| !matches!(class, Class::Transient | Class::Throttled | Class::Conflict);
    assert!(cluster.failures.iter().all(|failure| !odd(failure.class)), "{:#?}", cluster.failures);
    assert_same(&world.look(), &expected);
    cluster.delete_all();
    cluster.rest().await;
    assert_nothing_left(&world.look());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_not_allowed_is_told_with_its_action() {
    let world = World::new().await;
    let faults = Faults::start(&world.tools, &world.moto.endpoint()).unwrap();
    for (service_name, operation, code, action) in [
        ("elbv2", "CreateLoadBalancer", "AccessDenied", "elasticloadbalancing:CreateLoadBalancer"),
        ("ec2", "CreateSecurityGroup", "UnauthorizedOperation", "ec2:CreateSecurityGroup"),
    ] {
        let rule = json!([{"service": service_name, "operation": operation, "error": {"code": code, "status": 403}}]);
        faults.rules(&rule).unwrap();
        let mut cluster = world.cluster(&faults.endpoint()).await;
        cluster.apply(service("web", &[], json!({})));
        cluster.round().await;
        let failure = cluster.failures.first().unwrap();
        assert_eq!(failure.class, Class::Permission, "{failure}");
        assert!(failure.message.contains(&format!("allow {action} for Berth's role")), "{failure}");
        faults.rules(&json!([])).unwrap();
        cluster.rest().await;
        cluster.delete_all();
        cluster.rest().await;
        assert_nothing_left(&world.look());
    }
}

/// Goes on until rest, or until the proxy ends it: whether it came to rest.
async fn until_killed(cluster: &mut Cluster, proxy: &Proxy) -> bool {
    tokio::select! {
        () = proxy.ended() => false,
        () = cluster.rest() => true,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_killed_at_any_call_is_replaced_by_one_that_ends_up_with_the_same() {
    let world = World::new().await;
    let expected = undisturbed(&world).await;
    let proxy = Proxy::start(world.moto.address()).await.unwrap();
    for fate in [Fate::Lost, Fate::AnswerLost] {
        let mut cluster = world.cluster(&proxy.endpoint()).await;
        services(&world).into_iter().for_each(|service| cluster.apply(service));
        let mut kills = 0;
        for leaving in [false, true] {
            if leaving {
                cluster.delete_all();
            }
            // Each life is long enough for its first look, and ends somewhere behind it, a call later than the one before.
            for life in 0.. {
                proxy.take();
                proxy.end_after(8 + 3 * life, fate);
                let rests = until_killed(&mut cluster, &proxy).await;
                proxy.revive();
                if rests {
                    break;
                }
                kills += 1;
                cluster.provider = world.provider(&proxy.endpoint()).await;
            }
            assert_eq!(cluster.failures, [], "{fate:?}");
            if leaving {
                assert_nothing_left(&world.look());
            } else {
                assert_same(&world.look(), &expected);
            }
        }
        assert!(kills >= 5, "{fate:?}: {kills} kills");
    }
}
