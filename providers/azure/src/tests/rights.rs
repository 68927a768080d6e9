//! Every call that the provider makes takes a right, and so does every reference in what it writes. The role has these and no others.

use std::collections::{BTreeMap, BTreeSet};

use berth_arm_fake::{Action, Fault};
use berth_provider::{Provider as _, TargetNode, Targets};
use serde_json::json;

use super::scene::{GROUP, PUBLIC, Scene, service, shard};
use crate::role::{RIGHTS, role};

#[tokio::test(start_paused = true)]
async fn the_role_has_the_rights_that_a_life_with_everything_takes_and_no_others() {
    let mut scene = Scene::new();
    let prefix = format!("{GROUP}/publicIPPrefixes/pre");
    let sku = json!({"location": "westeurope", "sku": {"name": "Standard"}, "properties": {"prefixLength": 28}});
    scene.fake().plant(&prefix, sku).unwrap();
    scene.apply(service("web", &[PUBLIC], json!({})));
    scene.apply(service("pre", &[PUBLIC, ("azure-pip-prefix-id", &prefix)], json!({})));
    scene.apply(service("db", &[("azure-load-balancer-internal-subnet", "apps")], json!({})));
    scene.rest().await;
    // Somebody else writes the pool while it is written, so that it is read again.
    let nodes = |count: u8| TargetNode {
        name: format!("node-{count}"),
        addresses: vec![format!("10.0.0.{count}").parse().unwrap()],
        provider_id: String::new(),
        labels: BTreeMap::new(),
    };
    let written = Action::Answer {
        status: 412,
        code: "PreconditionFailed".to_owned(),
        message: String::new(),
        retry_after: None,
    };
    scene.fake().fault(Fault::next("PUT", "backendAddressPools", written));
    let targets = Targets { nodes: vec![nodes(4), nodes(5)].into(), ..Targets::default() };
    scene.provider.sync_targets(&shard(), &targets).await.unwrap();
    scene.apply(service("web", &[PUBLIC, ("azure-pip-tags", "a=b")], json!({})));
    scene.rest().await;
    for name in ["web", "pre", "db"] {
        scene.delete(name);
    }
    scene.rest().await;
    let taken = scene.wire.rights();
    let given: BTreeSet<String> = RIGHTS.iter().map(|(right, _)| (*right).to_owned()).collect();
    let missing: Vec<_> = taken.difference(&given).collect();
    let idle: Vec<_> = given.difference(&taken).collect();
    assert_eq!((missing, idle), (Vec::new(), Vec::new()));
}

#[test]
fn the_role_lists_each_right_once() {
    let role = role();
    let actions: Vec<&str> = role["Actions"].as_array().unwrap().iter().map(|a| a.as_str().unwrap()).collect();
    assert_eq!(actions.iter().collect::<BTreeSet<_>>().len(), actions.len());
    assert_eq!(actions.len(), RIGHTS.len());
}
