//! What becomes of Services as they change.

use std::collections::BTreeMap;
use std::time::Duration;

use berth_api::IpFamily;
use berth_arm_fake::{Action, Fault};
use berth_provider::{Provider as _, TargetNode, Targets};
use serde_json::json;

use super::conformance::{foreign, ours, plant};
use super::scene::{GROUP, PUBLIC, Scene, base, key, ports, service, shard};

const FRONTENDS: &str = "frontendIPConfigurations";
const INTERNAL: &str = "loadBalancers/prod-internal";
const PUBLIC_LB: &str = "loadBalancers/prod";

/// Rounds until rest; at each the address that people are told of has to work.
async fn moves_without_a_gap(scene: &mut Scene, name: &str) {
    for _ in 0..20 {
        let steps = scene.round().await;
        for address in scene.addresses(name) {
            let found = [INTERNAL, PUBLIC_LB].iter().any(|path| {
                let rules = scene.parts(path, "loadBalancingRules");
                scene.parts(path, FRONTENDS).iter().any(|(called, frontend)| {
                    let public = frontend["publicIPAddress"]["id"].as_str().and_then(|id| {
                        scene
                            .fake()
                            .resources()
                            .get(id)
                            .and_then(|ip| ip["properties"]["ipAddress"].as_str().map(str::to_owned))
                    });
                    let is = public.as_deref().or(frontend["privateIPAddress"].as_str()) == Some(&address);
                    let suffix = format!("/{called}");
                    let serves =
                        rules.values().any(|r| r["frontendIPConfiguration"]["id"].as_str().unwrap().ends_with(&suffix));
                    is && serves
                })
            });
            assert!(found, "{address} is published and nobody serves it");
        }
        if steps == 0 && scene.outcomes.values().all(|outcome| outcome.look_again.is_none()) {
            return;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    panic!("never at rest");
}

#[tokio::test(start_paused = true)]
async fn what_has_another_address_is_made_before_the_old_one_goes() {
    let mut scene = Scene::new();
    for annotations in [
        &[] as &[(&str, &str)],
        &[("azure-load-balancer-ipv4", "10.0.9.9")],
        &[("azure-load-balancer-ipv4", "10.0.9.10")],
        &[("azure-load-balancer-internal-subnet", "apps")],
        &[PUBLIC],
        &[PUBLIC, ("azure-pip-name", "mine")],
        &[PUBLIC, ("azure-pip-ip-tags", "RoutingPreference=Internet"), ("azure-pip-name", "other")],
        &[("azure-load-balancer-ipv4", "10.0.9.9")],
    ] {
        scene.apply(service("web", annotations, json!({})));
        moves_without_a_gap(&mut scene, "web").await;
        assert!(scene.outcomes[&key("web")].met, "{}", scene.says("web"));
        let fronts = scene.parts(INTERNAL, FRONTENDS).len() + scene.parts(PUBLIC_LB, FRONTENDS).len();
        assert_eq!(fronts, 1, "{annotations:?}");
        let ips = scene.fake().resources().keys().filter(|id| id.contains("publicIPAddresses")).count();
        assert_eq!(ips, usize::from(annotations.first() == Some(&PUBLIC)), "{annotations:?}");
    }
    assert_eq!(scene.addresses("web"), ["10.0.9.9"]);
    scene.delete("web");
    scene.rest().await;
    assert_eq!(ours(scene.fake()), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn services_share_an_address_as_long_as_their_ports_differ() {
    let mut scene = Scene::new();
    let at = [("azure-load-balancer-ipv4", "10.0.0.77")];
    scene.apply(service("a", &at, ports(&["TCP/80:30080"])));
    scene.apply(service("b", &at, ports(&["TCP/81:30081"])));
    scene.apply(service("c", &at, ports(&["TCP/80:30082"])));
    scene.rest().await;
    assert_eq!((scene.says("a").as_str(), scene.says("b").as_str()), ("10.0.0.77", "10.0.0.77"));
    let taken = "SharingPortTaken: the frontend of 10.0.0.77 has TCP port 80 already, for shop/a; ";
    assert!(scene.says("c").starts_with(taken), "{}", scene.says("c"));
    assert_eq!(scene.parts(INTERNAL, FRONTENDS).len(), 1);
    // Whoever it is named after goes, and the others keep it.
    scene.delete("a");
    scene.rest().await;
    assert_eq!((scene.says("b").as_str(), scene.says("c").as_str()), ("10.0.0.77", "10.0.0.77"));
    scene.delete("b");
    scene.rest().await;
    assert_eq!(scene.says("c"), "10.0.0.77");
    scene.leaving.clear();
    scene.restart();
    scene.delete("c");
    scene.rest().await;
    assert_eq!(ours(scene.fake()), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_public_ip_that_is_shared_is_handed_on() {
    let mut scene = Scene::new();
    let named = [PUBLIC, ("azure-pip-name", "shared")];
    scene.apply(service("a", &named, ports(&["TCP/80:30080"])));
    scene.apply(service("b", &named, ports(&["TCP/81:30081"])));
    scene.rest().await;
    let address = scene.says("a");
    assert_eq!(scene.says("b"), address);
    let tags = |scene: &Scene| scene.document("publicIPAddresses/shared").unwrap()["tags"].clone();
    assert_eq!(tags(&scene)["k8s-azure-service"], "shop/a,shop/b");
    scene.delete("a");
    scene.rest().await;
    scene.leaving.clear();
    assert_eq!(scene.says("b"), address);
    assert_eq!(
        (&tags(&scene)["k8s-azure-service"], &tags(&scene)["berth-service"]),
        (&json!("shop/b"), &json!("shop/b"))
    );
    scene.delete("b");
    scene.rest().await;
    assert_eq!(ours(scene.fake()), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_public_ip_that_exists_is_used_and_never_tagged_or_deleted() {
    let mut scene = Scene::new();
    plant(scene.fake());
    let before = foreign(scene.fake());
    let spare =
        scene.document("publicIPAddresses/spare").unwrap()["properties"]["ipAddress"].as_str().unwrap().to_owned();
    let by_name = service("web", &[PUBLIC, ("azure-pip-name", "spare")], json!({}));
    let by_address = service("web", &[PUBLIC, ("azure-load-balancer-ipv4", &spare)], json!({}));
    for intent in [by_name, by_address] {
        scene.apply(intent);
        scene.rest().await;
        assert_eq!(scene.says("web"), spare);
    }
    scene.apply(service("web", &[PUBLIC, ("azure-pip-name", "spare"), ("azure-dns-label-name", "shop")], json!({})));
    scene.rest().await;
    assert!(scene.says("web").contains("is not Berth's, and so is never changed"), "{}", scene.says("web"));
    assert_eq!(scene.addresses("web"), [spare.as_str()]);
    scene.apply(service("api", &[PUBLIC, ("azure-load-balancer-ipv4", "20.9.9.9")], json!({})));
    scene.rest().await;
    assert!(scene.says("api").contains("no public IP in the resource group rg has the address 20.9.9.9"));
    for name in ["web", "api"] {
        scene.delete(name);
    }
    scene.rest().await;
    assert_eq!(foreign(scene.fake()), before);
    assert_eq!(ours(scene.fake()), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_dual_stack_service_has_a_frontend_of_each_family() {
    let mut scene = Scene::new();
    let dual = json!({"ipFamilies": ["IPv6", "IPv4"], "ipFamilyPolicy": "RequireDualStack"});
    scene.apply(service("web", &[PUBLIC], dual.clone()));
    scene.apply(service("db", &[], dual));
    scene.rest().await;
    let families: Vec<_> = scene.addresses("web").iter().map(|a| IpFamily::of(a.parse().unwrap())).collect();
    assert_eq!(families, [IpFamily::V6, IpFamily::V4]);
    let base = base("web");
    let names: Vec<_> = scene.parts(PUBLIC_LB, FRONTENDS).into_keys().collect();
    assert_eq!(names, [base.clone(), format!("{base}-IPv6")]);
    // Internal IPv6 frontends have no floating IPs.
    let rules = scene.parts(INTERNAL, "loadBalancingRules");
    let of = |suffix: &str| &rules[&format!("{}-TCP-80{suffix}", super::scene::base("db"))];
    assert_eq!((&of("")["enableFloatingIP"], &of("-IPv6")["enableFloatingIP"]), (&json!(true), &json!(false)));
    assert_eq!(of("-IPv6")["backendPort"], scene.present[&key("db")].ports[0].node_port.unwrap());
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_met_leaves_what_is_there_alone() {
    let mut scene = Scene::new();
    scene.apply(service("web", &[], json!({})));
    scene.rest().await;
    let address = scene.says("web");
    let before = ours(scene.fake());
    for (annotations, says) in [
        (
            &[("azure-load-balancer-internal-subnet", "nowhere")] as &[(&str, &str)],
            "NoSubnet: the network prod-vnet has no",
        ),
        (&[("azure-load-balancer-ipv4", "10.9.0.1")], "NoSubnet: 10.9.0.1 is not in the subnet `default`"),
        (&[("azure-pls-create", "true")], "Unsupported: "),
    ] {
        scene.apply(service("web", annotations, json!({})));
        scene.rest().await;
        assert!(scene.says("web").starts_with(says), "{}", scene.says("web"));
        assert_eq!(scene.addresses("web"), [address.as_str()]);
        assert_eq!(ours(scene.fake()), before);
    }
    // Disowned, it stays also when the Service goes.
    scene.apply(service("web", &[("berth.dev/disown", "true")], json!({})));
    scene.rest().await;
    scene.delete("web");
    scene.rest().await;
    assert_eq!(ours(scene.fake()), before);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_joins_is_one_write_and_a_pool_is_never_emptied() {
    let mut scene = Scene::new();
    let nodes = |count: u8| Targets {
        nodes: (0..count)
            .map(|n| TargetNode {
                name: format!("node-{n}"),
                provider_id: String::new(),
                labels: BTreeMap::new(),
                addresses: vec![[10, 0, 200, n].into()],
            })
            .collect(),
        services: BTreeMap::new(),
    };
    let edge = [("azure-disable-load-balancer-floating-ip", "true"), ("azure-allowed-ip-ranges", "10.0.0.0/8")];
    scene.apply(service("web", &edge, json!({})));
    scene.rest().await;
    let report = scene.provider.sync_targets(&shard(), &nodes(200)).await.unwrap();
    assert_eq!((report.added, report.removed), (200, 0));
    scene.fake().reset_counts();
    let report = scene.provider.sync_targets(&shard(), &nodes(201)).await.unwrap();
    assert_eq!((report.added, report.removed), (1, 0));
    assert_eq!(scene.counted("PUT backendAddressPools"), 1);
    scene.provider.sync_targets(&shard(), &nodes(201)).await.unwrap();
    scene.provider.sync_targets(&shard(), &nodes(0)).await.unwrap();
    assert_eq!(scene.counted("PUT backendAddressPools"), 1);
    // Somebody writes in between.
    scene.fake().fault(Fault::next("PUT", "backendAddressPools", answer(412, "PreconditionFailed")));
    assert_eq!(scene.provider.sync_targets(&shard(), &nodes(199)).await.unwrap().removed, 2);
    // Without floating IPs nodes are what is let in to.
    scene.rest().await;
    let rules = scene.parts("networkSecurityGroups/prod-nsg", "securityRules");
    let rule = rules.values().find(|rule| rule["description"].is_string()).unwrap();
    assert_eq!(rule["destinationAddressPrefixes"].as_array().unwrap().len(), 199);
    scene.delete("web");
    scene.rest().await;
    assert_eq!(ours(scene.fake()), Vec::<String>::new());
}

pub fn answer(status: u16, code: &str) -> Action {
    Action::Answer { status, code: code.to_owned(), message: String::new(), retry_after: None }
}

#[tokio::test(start_paused = true)]
async fn whatever_call_fails_it_ends_in_the_same_place() {
    let kinds = ["loadBalancers", "publicIPAddresses", "networkSecurityGroups", "subnets", "operations"];
    let broken = [
        answer(429, "TooManyRequests"),
        answer(500, "InternalServerError"),
        answer(409, "AnotherOperationInProgress"),
        answer(403, "AuthorizationFailed"),
        Action::Break,
        Action::LoseAnswer,
        Action::FailLater { code: "InternalServerError".to_owned(), message: String::new() },
    ];
    let mut expected = None;
    for kind in kinds {
        for method in ["GET", "PUT", "DELETE"] {
            for action in &broken {
                let mut scene = Scene::new();
                plant(scene.fake());
                let before = foreign(scene.fake());
                scene.fake().takes(Duration::from_secs(2));
                let hurt =
                    |scene: &Scene| scene.fake().fault(Fault { times: 2, ..Fault::next(method, kind, action.clone()) });
                hurt(&scene);
                scene.apply(service("web", &[PUBLIC], json!({})));
                scene.apply(service("db", &[("azure-allowed-ip-ranges", "10.0.0.0/8")], json!({})));
                scene.rest().await;
                let found = ours(scene.fake());
                assert_eq!(&found, expected.get_or_insert(found.clone()), "{method} {kind} {action:?}");
                hurt(&scene);
                scene.delete("web");
                scene.delete("db");
                scene.rest().await;
                // What was not met by chance shall not meet what follows.
                assert_eq!(ours(scene.fake()), Vec::<String>::new(), "{method} {kind} {action:?}");
                assert_eq!(foreign(scene.fake()), before, "{method} {kind} {action:?}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_network_security_group_is_said() {
    let mut scene = Scene::new();
    scene.settings.security_group.as_mut().unwrap().name = "gone".to_owned();
    scene.restart();
    scene.apply(service("web", &[PUBLIC], json!({})));
    scene.apply(service("db", &[], json!({})));
    scene.rest().await;
    assert!(scene.says("web").contains("there is no network security group gone"), "{}", scene.says("web"));
    assert!(scene.outcomes[&key("db")].met);
    assert!(!scene.fake().resources().contains_key(&format!("{GROUP}/loadBalancers/prod")));
}

#[tokio::test(start_paused = true)]
async fn a_domain_name_moves_with_its_service_and_is_never_taken_from_another() {
    let mut scene = Scene::new();
    let label = ("azure-dns-label-name", "shop");
    scene.apply(service("web", &[PUBLIC, label], json!({})));
    scene.rest().await;
    scene.apply(service("api", &[PUBLIC, label], json!({})));
    scene.apply(service("web", &[PUBLIC, label, ("azure-pip-name", "mine")], json!({})));
    scene.rest().await;
    let document = scene.document("publicIPAddresses/mine").unwrap();
    assert_eq!(document["properties"]["dnsSettings"]["domainNameLabel"], "shop");
    assert!(scene.says("api").starts_with("CloudNameTaken: "), "{}", scene.says("api"));
    assert!(scene.outcomes[&key("web")].met);
}
