//! Public IPs are resources of their own: they take their time, one by one, and are shared.

use std::time::Duration;

use berth_arm_fake::{Action, Fault};
use berth_provider::Provider as _;
use serde_json::json;
use tokio::time::Instant;

use super::conformance::ours;
use super::lifecycle::answer;
use super::scene::{GROUP, PUBLIC, Scene, base, key, ports, service};

const TAKES: Duration = Duration::from_secs(2);

#[tokio::test(start_paused = true)]
async fn public_services_that_go_together_do_not_wait_for_each_other() {
    let mut scene = Scene::new();
    for number in 0..60 {
        scene.apply(service(&format!("s{number}"), &[PUBLIC], ports(&[&format!("TCP/80:{}", 30_000 + number)])));
    }
    scene.rest().await;
    scene.fake().takes(TAKES);
    for number in 0..60 {
        scene.delete(&format!("s{number}"));
    }
    let began = Instant::now();
    scene.rest().await;
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    assert_eq!(ours(scene.fake()), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_deletion_that_fails_later_is_tried_again_until_it_is_gone() {
    let mut scene = Scene::new();
    scene.apply(service("web", &[PUBLIC], json!({})));
    scene.rest().await;
    scene.fake().takes(TAKES);
    let later = Action::FailLater { code: "InternalServerError".to_owned(), message: String::new() };
    scene.fake().fault(Fault { times: 2, ..Fault::next("DELETE", "publicIPAddresses", later) });
    scene.delete("web");
    let mut said = Vec::new();
    for _ in 0..20 {
        let steps = scene.round().await;
        said.extend(scene.failures.clone());
        if steps == 0 && scene.failures.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(ours(scene.fake()), Vec::<String>::new());
    assert!(said.iter().any(|failure| failure.contains("InternalServerError")), "{said:?}");
}

#[tokio::test(start_paused = true)]
async fn who_leaves_stays_while_nobody_can_look_where_its_public_ip_is() {
    let elsewhere = [PUBLIC, ("azure-load-balancer-resource-group", "another")];
    // It names the group; or does no more, and its frontend does.
    for names_it in [true, false] {
        let mut scene = Scene::new();
        scene.apply(service("web", &elsewhere, json!({})));
        scene.apply(service("other", &[PUBLIC], json!({})));
        scene.rest().await;
        let before = ours(scene.fake());
        if !names_it {
            let web = service("web", &[PUBLIC, ("azure-load-balancer-resource-group", "..")], json!({}));
            scene.apply(web);
        }
        scene.delete("web");
        // Groups are listed by name, and this one comes first.
        let closed = || Fault::next("GET", "publicIPAddresses", answer(403, "AuthorizationFailed"));
        for _ in 0..3 {
            scene.fake().fault(closed());
            assert_eq!(scene.round().await, 1);
            let [said] = &scene.failures[..] else { panic!("{:?}", scene.failures) };
            assert!(said.contains("group another") && said.contains("AuthorizationFailed"), "{said}");
            assert_eq!(ours(scene.fake()), before);
        }
        // Others go on meanwhile.
        scene.fake().fault(closed());
        scene.apply(service("other", &[PUBLIC, ("azure-load-balancer-tcp-idle-timeout", "9")], json!({})));
        scene.round().await;
        assert!(scene.outcomes[&key("other")].met && scene.failures.len() == 1, "{:?}", scene.failures);
        scene.rest().await;
        scene.leaving.clear();
        scene.delete("other");
        scene.rest().await;
        assert_eq!(ours(scene.fake()), Vec::<String>::new());
    }
}

#[tokio::test(start_paused = true)]
async fn who_names_a_resource_group_that_is_not_there_may_go_and_so_may_who_is_disowned() {
    let mut scene = Scene::new();
    scene.fake().only_groups(&["rg"]);
    scene.apply(service("web", &[PUBLIC, ("azure-load-balancer-resource-group", "another")], json!({})));
    scene.rest().await;
    scene.delete("web");
    assert_eq!((scene.round().await, scene.failures.len()), (0, 0));
    let mut scene = Scene::new();
    let group = ("azure-load-balancer-resource-group", "another");
    scene.apply(service("web", &[PUBLIC, group], json!({})));
    scene.rest().await;
    scene.apply(service("web", &[PUBLIC, group, ("berth.dev/disown", "true")], json!({})));
    scene.delete("web");
    scene.fake().fault(Fault::next("GET", "publicIPAddresses", answer(403, "AuthorizationFailed")));
    assert_eq!((scene.round().await, scene.failures.len()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn one_in_a_resource_group_that_nobody_names_any_more_is_deleted_although_the_first_try_failed() {
    for fault in [
        answer(429, "TooManyRequests"),
        answer(409, "AnotherOperationInProgress"),
        answer(500, "InternalServerError"),
        Action::Break,
    ] {
        for leads_anew in [false, true] {
            let mut scene = Scene::new();
            scene.apply(service("web", &[PUBLIC, ("azure-load-balancer-resource-group", "another")], json!({})));
            scene.rest().await;
            scene.apply(service("web", &[PUBLIC], json!({})));
            scene.fake().fault(Fault { times: 2, ..Fault::next("DELETE", "publicIPAddresses", fault.clone()) });
            for _ in 0..10 {
                scene.round().await;
                if !scene.failures.is_empty() {
                    break;
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            assert_eq!(scene.failures.len(), 1, "{fault:?}");
            if leads_anew {
                scene.provider.takes_over(&scene.present.values().collect::<Vec<_>>());
            }
            scene.rest().await;
            assert!(scene.outcomes[&key("web")].met);
            let there = || scene.fake().resources().into_keys().filter(|id| id.contains("/another/")).count();
            assert_eq!(there(), 0, "{fault:?}");
            // And then that group is looked into no more.
            scene.round().await;
            scene.fake().reset_counts();
            scene.round().await;
            assert_eq!(scene.counted("GET publicIPAddresses"), 1);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_was_asked_for_is_found_although_its_group_is_named_no_more_at_the_next_look() {
    let mut scene = Scene::new();
    scene.fake().fault(Fault::next("PUT", "publicIPAddresses", Action::LoseAnswer));
    scene.apply(service("web", &[PUBLIC, ("azure-load-balancer-resource-group", "another")], json!({})));
    scene.round().await;
    scene.apply(service("web", &[], json!({})));
    scene.rest().await;
    assert!(scene.fake().resources().keys().all(|id| !id.contains("/another/")));
}

#[tokio::test(start_paused = true)]
async fn who_leaves_with_something_in_a_group_that_it_does_not_name_any_more_stays_until_that_can_be_seen() {
    let mut scene = Scene::new();
    scene.apply(service("web", &[PUBLIC, ("azure-load-balancer-resource-group", "another")], json!({})));
    scene.rest().await;
    scene.fake().fault(Fault { times: 9, ..Fault::next("DELETE", "publicIPAddresses", answer(409, "Conflict")) });
    scene.apply(service("web", &[], json!({})));
    for _ in 0..5 {
        scene.round().await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert!(scene.outcomes[&key("web")].met, "it is served elsewhere");
    scene.delete("web");
    scene.fake().heal();
    scene.fake().fault(Fault::next("GET", "publicIPAddresses", answer(403, "AuthorizationFailed")));
    scene.round().await;
    assert!(scene.failures.iter().any(|said| said.contains("group another")), "{:?}", scene.failures);
    scene.rest().await;
    assert_eq!(ours(scene.fake()), Vec::<String>::new());
    assert!(scene.fake().resources().keys().all(|id| !id.contains("/another/")));
}

#[tokio::test(start_paused = true)]
async fn a_public_ip_that_is_stuck_holds_up_nobody_and_is_asked_for_less_and_less() {
    let mut scene = Scene::new();
    scene.apply(service("web", &[PUBLIC], json!({})));
    scene.rest().await;
    let address = scene.says("web");
    scene.fake().takes(TAKES);
    scene.fake().fault(Fault::next("PUT", "publicIPAddresses", Action::Stick));
    scene.apply(service("web", &[PUBLIC, ("azure-pip-tags", "team=shop")], json!({})));
    let began = Instant::now();
    scene.round().await;
    scene.apply(service("db", &[], json!({})));
    scene.fake().fault(Fault::next("PUT", "publicIPAddresses", Action::Stick));
    scene.apply(service("new", &[PUBLIC], json!({})));
    for _ in 0..5 {
        scene.round().await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    assert!(scene.outcomes[&key("db")].met, "{}", scene.says("db"));
    assert_eq!(scene.says("web"), address, "it serves whatever is being changed of it");
    let soon = |scene: &Scene| scene.outcomes[&key("new")].look_again;
    assert_eq!(soon(&scene), Some(Duration::from_secs(1)));
    for (after, expected) in [(40, 10), (400, 60)] {
        tokio::time::sleep(Duration::from_secs(after)).await;
        scene.round().await;
        assert_eq!(soon(&scene), Some(Duration::from_secs(expected)), "{}", scene.says("new"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_public_ip_of_two_outlives_the_one_it_was_made_for_also_while_the_other_is_refused() {
    let mut scene = Scene::new();
    let shared = |name, port: &str, more: &[(&str, &str)]| {
        let annotations = [&[PUBLIC, ("azure-pip-name", "both")], more].concat();
        service(name, &annotations, ports(&[port]))
    };
    scene.apply(shared("a", "TCP/80:30001", &[]));
    scene.rest().await;
    scene.apply(shared("b", "TCP/81:30002", &[]));
    scene.rest().await;
    assert_eq!(scene.says("a"), scene.says("b"));
    scene.apply(shared("b", "TCP/81:30002", &[("azure-pls-create", "true")]));
    scene.delete("a");
    scene.rest().await;
    assert!(scene.document("publicIPAddresses/both").is_some(), "b is refused, and keeps what it has");
    // Nothing is left of it: its finalizer goes, and nobody knows it any more.
    scene.leaving.clear();
    scene.delete("b");
    scene.rest().await;
    assert_eq!(ours(scene.fake()), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_public_ip_that_is_named_and_not_ours_is_never_changed_or_deleted() {
    let mut scene = Scene::new();
    let theirs = json!({"location": "westeurope", "sku": {"name": "Standard"}, "tags": {"k8s-azure-cluster-name": "prod"},
        "properties": {"publicIPAllocationMethod": "Static", "publicIPAddressVersion": "IPv4"}});
    scene.fake().plant(&format!("{GROUP}/publicIPAddresses/mine"), theirs).unwrap();
    let tags = |scene: &Scene| scene.document("publicIPAddresses/mine").map(|document| document["tags"].clone());
    let before = tags(&scene);
    scene.apply(service("web", &[PUBLIC, ("azure-pip-name", "mine")], json!({})));
    scene.rest().await;
    assert!(scene.outcomes[&key("web")].met, "{}", scene.says("web"));
    scene.apply(service("web", &[PUBLIC], json!({})));
    scene.rest().await;
    scene.apply(service("web", &[PUBLIC, ("azure-pip-name", "mine")], json!({})));
    scene.rest().await;
    scene.delete("web");
    scene.rest().await;
    assert!(before.is_some() && tags(&scene) == before);
    assert_eq!(scene.document("publicIPAddresses/mine").unwrap()["properties"]["ipConfiguration"], json!(null));
}

#[tokio::test(start_paused = true)]
async fn one_that_is_wanted_again_while_it_is_deleted_is_made_anew_once_it_is_gone() {
    let mut scene = Scene::new();
    scene.apply(service("web", &[PUBLIC], json!({})));
    scene.rest().await;
    let old = scene.says("web");
    scene.fake().takes(Duration::from_secs(5));
    scene.apply(service("web", &[], json!({})));
    let path = format!("publicIPAddresses/prod-{}", base("web"));
    let state =
        |scene: &Scene| scene.document(&path).map(|document| document["properties"]["provisioningState"].clone());
    for _ in 0..20 {
        scene.round().await;
        if state(&scene) == Some(json!("Deleting")) {
            break;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(state(&scene), Some(json!("Deleting")));
    scene.apply(service("web", &[PUBLIC, ("azure-pip-tags", "team=shop")], json!({})));
    scene.round().await;
    assert_eq!(scene.failures, Vec::<String>::new());
    scene.rest().await;
    assert!(scene.outcomes[&key("web")].met, "{}", scene.says("web"));
    assert_ne!(scene.says("web"), old);
}

#[tokio::test(start_paused = true)]
async fn a_change_that_fails_later_is_looked_after_and_told_with_its_code() {
    let mut scene = Scene::new();
    scene.apply(service("web", &[PUBLIC], json!({})));
    scene.rest().await;
    scene.fake().takes(TAKES);
    let later = Action::FailLater { code: "DnsRecordInUse".to_owned(), message: "shop is taken".to_owned() };
    scene.fake().fault(Fault { times: 2, ..Fault::next("PUT", "publicIPAddresses", later) });
    scene.apply(service("web", &[PUBLIC, ("azure-dns-label-name", "shop")], json!({})));
    let mut said = Vec::new();
    for _ in 0..10 {
        scene.round().await;
        said.extend(scene.failures.clone());
        // As the controller: where nothing asks for a look there is none.
        let Some(soon) = scene.outcomes[&key("web")].look_again else { break };
        assert!(scene.outcomes[&key("web")].met, "it serves all the while");
        tokio::time::sleep(soon).await;
    }
    assert!(said.iter().any(|failure| failure.contains("DnsRecordInUse: shop is taken")), "{said:?}");
    scene.rest().await;
    let label =
        &scene.document(&format!("publicIPAddresses/prod-{}", base("web"))).unwrap()["properties"]["dnsSettings"];
    assert_eq!(label["domainNameLabel"], "shop");
}
