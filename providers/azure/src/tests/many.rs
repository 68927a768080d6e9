//! Many Services are a few writes.

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use super::conformance::ours;
use super::scene::{PUBLIC, Scene, ports, service};

const MANY: usize = 240;

async fn life(annotations: &[(&str, &str)]) -> (Duration, Scene) {
    let mut scene = Scene::new();
    scene.fake().takes(Duration::from_secs(2));
    for number in 0..MANY {
        let name = format!("s{number}");
        let port = format!("TCP/{}:{}", 1000 + number, 30_000 + number);
        scene.apply(service(&name, annotations, ports(&[&port])));
    }
    let began = Instant::now();
    scene.rest().await;
    let took = began.elapsed();
    assert!((0..MANY).all(|number| scene.outcomes[&super::scene::key(&format!("s{number}"))].met));
    (took, scene)
}

#[tokio::test(start_paused = true)]
async fn internal_services_made_together_take_few_writes_and_less_than_a_minute() {
    let (took, mut scene) = life(&[("azure-allowed-ip-ranges", "10.0.0.0/8")]).await;
    assert!(took < Duration::from_mins(1), "{took:?}");
    let (balancers, groups) = (scene.counted("PUT loadBalancers"), scene.counted("PUT networkSecurityGroups"));
    assert!(balancers < 10 && groups < 10, "{balancers} and {groups}");

    // Nothing changed: nothing is written, also by another process.
    scene.fake().reset_counts();
    scene.restart();
    scene.rest().await;
    assert!(scene.fake().counts().keys().all(|what| what.starts_with("GET")), "{:?}", scene.fake().counts());

    for number in 0..MANY {
        scene.delete(&format!("s{number}"));
    }
    scene.rest().await;
    assert_eq!(ours(scene.fake()), Vec::<String>::new());
    let (balancers, groups) = (scene.counted("PUT loadBalancers"), scene.counted("PUT networkSecurityGroups"));
    assert!(balancers < 10 && groups < 10, "{balancers} and {groups}");
}

#[tokio::test(start_paused = true)]
async fn public_services_made_together_take_few_writes_and_one_public_ip_each() {
    let (took, mut scene) = life(&[PUBLIC]).await;
    assert!(took < Duration::from_mins(1), "{took:?}");
    let (balancers, groups) = (scene.counted("PUT loadBalancers"), scene.counted("PUT networkSecurityGroups"));
    assert!(balancers < 10 && groups < 10, "{balancers} and {groups}");
    assert_eq!(scene.counted("PUT publicIPAddresses"), 240);
    for number in 0..MANY {
        scene.delete(&format!("s{number}"));
    }
    scene.rest().await;
    assert_eq!(ours(scene.fake()), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn who_exceeds_a_limit_is_told_and_harms_no_other() {
    let mut scene = Scene::new();
    scene.settings.max_rules = 5;
    scene.restart();
    for name in ["a", "b", "c"] {
        scene.apply(service(name, &[], ports(&["TCP/80:30080", "TCP/81:30081"])));
    }
    scene.rest().await;
    assert!(scene.outcomes[&super::scene::key("a")].met && scene.outcomes[&super::scene::key("b")].met);
    assert!(scene.says("c").starts_with("CloudLimit: the load balancers have 4 rules"), "{}", scene.says("c"));
    // Room that another one makes is used.
    scene.delete("a");
    scene.rest().await;
    assert!(scene.outcomes[&super::scene::key("c")].met, "{}", scene.says("c"));
    // Who has something keeps it, whoever is older.
    scene.apply(service("a", &[], json!({})));
    scene.apply(service("0", &[], ports(&["TCP/80:30080", "TCP/81:30081"])));
    scene.rest().await;
    assert!(scene.outcomes[&super::scene::key("c")].met && scene.outcomes[&super::scene::key("b")].met);
}
