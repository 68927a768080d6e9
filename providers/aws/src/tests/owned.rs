//! What is ours is found with whose it is, and for whom it is there.

use std::collections::BTreeSet;

use berth_provider::{Provider as _, Whom};
use serde_json::json;

use super::scene::{Scene, ports, service};
use crate::Aws;

const EDGE: (&str, &str) = ("berth.dev/load-balancer-group", "edge");

/// What is found, as `kind in shard of Service for whom`.
async fn found(scene: &Scene) -> BTreeSet<String> {
    let all = scene.provider.list_owned().await.unwrap();
    let line = |of: berth_provider::Owned| {
        let service = of.service.map_or_else(|| "nobody".to_owned(), |id| id.key.name);
        match of.whom {
            Whom::Service => format!("{} in {} of {service}", of.kind, of.shard),
            Whom::Shard => format!("{} in {} of all", of.kind, of.shard),
            Whom::Cluster => format!("{} of the cluster", of.kind),
        }
    };
    all.into_iter().map(line).collect()
}

#[tokio::test(start_paused = true)]
async fn what_a_group_shares_is_nobodys_alone_and_what_all_share_is_the_clusters() {
    let mut scene = Scene::new();
    scene.apply(service("alone", &[], json!({})));
    scene.apply(service("first", &[EDGE], ports(&["TCP/81:30081"])));
    scene.apply(service("second", &[EDGE], ports(&["TCP/82:30082"])));
    scene.rest().await;
    let expected = [
        "backend security group of the cluster",
        "load balancer in shop/group/edge of all",
        "load balancer in shop/service/alone of alone",
        "security group in shop/group/edge of all",
        "security group in shop/service/alone of alone",
        "target group in shop/group/edge of first",
        "target group in shop/group/edge of second",
        "target group in shop/service/alone of alone",
    ];
    assert_eq!(found(&scene).await, expected.map(str::to_owned).into());
}

#[tokio::test(start_paused = true)]
async fn nothing_of_another_cluster_is_found_though_it_has_the_same_name() {
    let mut scene = Scene::new();
    scene.apply(service("web", &[], json!({})));
    scene.rest().await;
    let mut other = scene.settings.clone();
    other.cluster_uid = "uid-of-another-kube-system".to_owned();
    scene.provider = Aws::new(scene.fake.clone(), other);
    assert_eq!(found(&scene).await, BTreeSet::new());
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_made_again_is_served_beside_what_its_predecessor_left() {
    let mut scene = Scene::new();
    scene.apply(service("web", &[], json!({})));
    scene.rest().await;
    let before = scene.says("web");
    // Its finalizer was taken off by force while no controller ran.
    let mut again = service("web", &[], json!({}));
    again.id.uid = "another-uid".to_owned();
    scene.wanted.clear();
    scene.apply(again);
    scene.rest().await;
    let after = scene.says("web");
    assert!(after.contains("elb") && after != before, "{after}");
    assert_eq!(scene.fake.with(|state| state.balancers.len()), 2, "what nobody saw leaving stays");
}
