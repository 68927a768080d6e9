//! The life of Services, seen by a client of Amazon's own.

use serde_json::{Value, json};

use crate::scene::{World, service};

/// The only one of a kind that there is.
fn only<'a>(seen: &'a Value, kind: &str) -> &'a Value {
    let all = seen[kind].as_object().unwrap();
    assert_eq!(all.len(), 1, "{kind}: {seen:#}");
    all.values().next().unwrap()
}

/// Asserts that nothing of ours is there.
pub fn assert_nothing_left(seen: &Value) {
    assert_eq!(seen["LoadBalancers"], json!({}));
    assert_eq!(seen["TargetGroups"], json!({}));
    let groups: Vec<_> = seen["SecurityGroups"].as_object().unwrap().keys().collect();
    assert_eq!(groups, ["nodes"], "{seen:#}");
    assert_eq!(seen["SecurityGroups"]["nodes"]["Rules"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_is_served_and_changed_and_nothing_is_left_when_it_goes() {
    let world = World::new().await;
    let mut cluster = world.cluster(&world.moto.endpoint()).await;

    cluster.apply(service("web", &[], json!({})));
    cluster.rest().await;
    assert_eq!(cluster.failures, []);
    let seen = world.look();
    let balancer = only(&seen, "LoadBalancers");
    assert_eq!((&balancer["Type"], &balancer["Scheme"]), (&json!("network"), &json!("internal")));
    assert_eq!(balancer["Subnets"].as_array().unwrap().len(), 2);
    assert_eq!(balancer["Tags"]["berth.dev/cluster"], "bench");
    assert_eq!(balancer["Tags"]["berth.dev/service"], "shop/web");
    assert_eq!(balancer["Listeners"]["80"]["Protocol"], "TCP");
    assert_eq!(balancer["Listeners"]["80"]["Tags"]["berth.dev/resource"], "listener/80");
    let group = only(&seen, "TargetGroups");
    assert_eq!((&group["TargetType"], &group["Port"]), (&json!("instance"), &json!(30_080)));
    assert_eq!(group["Targets"].as_array().unwrap().len(), 2, "{group:#}");
    assert!(cluster.published("web").contains("elb"), "{}", cluster.published("web"));

    let certificates = world.certificates.join(",");
    for (annotations, spec, path, expected) in [
        (
            &[("attributes", "load_balancing.cross_zone.enabled=true")][..],
            json!({}),
            "/LoadBalancers/*/Attributes/load_balancing.cross_zone.enabled",
            json!("true"),
        ),
        (
            &[("target-group-attributes", "deregistration_delay.timeout_seconds=17")],
            json!({}),
            "/TargetGroups/*/Attributes/deregistration_delay.timeout_seconds",
            json!("17"),
        ),
        (
            &[("healthcheck-protocol", "http"), ("healthcheck-path", "/up")],
            json!({}),
            "/TargetGroups/*/HealthCheckPath",
            json!("/up"),
        ),
        (&[("healthcheck-interval", "30")], json!({}), "/TargetGroups/*/HealthCheckIntervalSeconds", json!(30)),
        (&[("additional-resource-tags", "team=a")], json!({}), "/LoadBalancers/*/Tags/team", json!("a")),
        (
            &[("listener-attributes.TCP-80", "tcp.idle_timeout.seconds=400")],
            json!({}),
            "/LoadBalancers/*/Listeners/80/Attributes/tcp.idle_timeout.seconds",
            json!("400"),
        ),
        (
            &[],
            json!({"ports": [{"name": "alt", "port": 81, "nodePort": 30_081}]}),
            "/LoadBalancers/*/Listeners/81/Protocol",
            json!("TCP"),
        ),
        (
            &[],
            json!({"ports": [{"name": "dns", "port": 53, "nodePort": 30_053, "protocol": "UDP"}]}),
            "/LoadBalancers/*/Listeners/53/Protocol",
            json!("UDP"),
        ),
        (&[("ssl-cert", &certificates)], json!({}), "/LoadBalancers/*/Listeners/80/Protocol", json!("TLS")),
        (
            &[],
            json!({"loadBalancerSourceRanges": ["192.0.2.0/24"]}),
            "/LoadBalancers/*/Listeners/80/Protocol",
            json!("TCP"),
        ),
    ] {
        cluster.apply(service("web", annotations, spec));
        cluster.rest().await;
        assert_eq!(cluster.failures, [], "{annotations:?}");
        let seen = world.look();
        let (kind, rest) = path.split_once("/*").unwrap();
        let found = only(&seen, kind.trim_start_matches('/')).pointer(rest);
        assert_eq!(found, Some(&expected), "{path} of {seen:#}; done: {:#?}", cluster.log);
        assert_eq!(only(&seen, "TargetGroups")["Targets"].as_array().unwrap().len(), 2, "{path}");
    }
    let seen = world.look();
    let own = seen["SecurityGroups"]
        .as_object()
        .unwrap()
        .iter()
        .find(|(_, of)| of["Tags"]["berth.dev/resource"] == "security-group");
    assert_eq!(own.unwrap().1["Rules"], json!(["tcp 80-80 from 192.0.2.0/24"]));

    cluster.delete("web");
    cluster.rest().await;
    assert_eq!(cluster.failures, []);
    assert_nothing_left(&world.look());
}

#[tokio::test(flavor = "multi_thread")]
async fn another_scheme_makes_another_load_balancer_and_the_old_one_goes() {
    let world = World::new().await;
    let mut cluster = world.cluster(&world.moto.endpoint()).await;
    cluster.apply(service("web", &[], json!({})));
    cluster.rest().await;
    let before = cluster.published("web");
    let public = [("scheme", "internet-facing"), ("berth.dev/allow-replacement", "true")];

    cluster.apply(service("web", &public[..1], json!({})));
    cluster.rest().await;
    assert_eq!(only(&world.look(), "LoadBalancers")["Scheme"], "internal", "without consent");

    cluster.apply(service("web", &public, json!({})));
    cluster.rest().await;
    assert_eq!(cluster.failures, []);
    let seen = world.look();
    assert_eq!(only(&seen, "LoadBalancers")["Scheme"], "internet-facing");
    assert_eq!(only(&seen, "TargetGroups")["Targets"].as_array().unwrap().len(), 2);
    assert_ne!(cluster.published("web"), before);

    cluster.delete("web");
    cluster.rest().await;
    assert_nothing_left(&world.look());
}

#[tokio::test(flavor = "multi_thread")]
async fn services_of_a_group_share_one_and_what_is_foreign_stays() {
    let world = World::new().await;
    let mut cluster = world.cluster(&world.moto.endpoint()).await;
    let group = [("berth.dev/load-balancer-group", "front")];
    cluster.apply(service("a", &group, json!({})));
    cluster.apply(service("b", &group, json!({"ports": [{"name": "x", "port": 81, "nodePort": 30_081}]})));
    cluster.apply(service("c", &[], json!({})));
    cluster.rest().await;
    assert_eq!(cluster.failures, []);
    let seen = world.look();
    assert_eq!(seen["LoadBalancerNames"].as_array().unwrap().len(), 2, "{seen:#}");
    let shared = seen["LoadBalancers"].as_object().unwrap().values();
    let ports: Vec<usize> = shared.map(|of| of["Listeners"].as_object().unwrap().len()).collect();
    assert_eq!(ports.iter().sum::<usize>(), 3);
    let sdk = aws_sdk_elasticloadbalancingv2::Client::new(&crate::scene::config(&world.moto.endpoint()).await);
    let foreign = sdk.create_target_group().name("foreign").port(1).protocol("TCP".into()).vpc_id(&world.vpc);
    foreign.send().await.unwrap();

    cluster.delete("a");
    cluster.rest().await;
    let seen = world.look();
    assert_eq!(seen["TargetGroups"].as_object().unwrap().len(), 3, "{seen:#}");
    cluster.delete_all();
    cluster.rest().await;
    assert_eq!(cluster.failures, []);
    let mut seen = world.look();
    assert!(seen["TargetGroups"].as_object_mut().unwrap().remove("foreign").is_some());
    assert_nothing_left(&seen);
}
