//! Azure refuses a whole document for one Service's part of it, and no other Service is harmed by that.

use berth_arm_fake::Limits;
use serde_json::json;

use super::scene::{GROUP, PUBLIC, Scene, key, ports, service};

#[tokio::test(start_paused = true)]
async fn a_service_that_azure_refuses_by_name_is_left_out_and_told() {
    let mut scene = Scene::new();
    for name in ["a", "b", "c"] {
        scene.apply(service(name, &[], json!({})));
    }
    // Somebody else has the address, which Azure alone knows.
    let other = json!({"location": "westeurope", "sku": {"name": "Standard"}, "properties": {"frontendIPConfigurations": [
        {"name": "x", "properties": {"subnet": {"id": format!("{GROUP}/virtualNetworks/prod-vnet/subnets/default")},
            "privateIPAllocationMethod": "Static", "privateIPAddress": "10.0.0.66"}},
    ]}});
    scene.fake().plant(&format!("{GROUP}/loadBalancers/other"), other).unwrap();
    let asks = [("azure-load-balancer-ipv4", "10.0.0.66")];
    scene.apply(service("bad", &asks, json!({})));
    scene.rest().await;
    for name in ["a", "b", "c"] {
        assert!(scene.outcomes[&key(name)].met, "{}", scene.says(name));
    }
    let says = scene.says("bad");
    assert!(
        says.starts_with("InvalidRequest: Microsoft.Network/loadBalancers/write: PrivateIPAddressInUse: "),
        "{says}"
    );
    // It does not spin, and is tried again when it asks for something else.
    let writes = scene.counted("PUT loadBalancers");
    scene.rest().await;
    assert_eq!(scene.counted("PUT loadBalancers"), writes);
    scene.apply(service("bad", &[("azure-load-balancer-ipv4", "10.0.0.67")], json!({})));
    scene.rest().await;
    assert_eq!(scene.says("bad"), "10.0.0.67");
}

#[tokio::test(start_paused = true)]
async fn where_azure_names_nobody_it_is_found_out_whose_fault_it_is() {
    let mut scene = Scene::new();
    scene.fake().limits(Limits { rules: 17, ..Limits::default() });
    for number in 0..16 {
        let port = format!("TCP/80:{}", 30_000 + number);
        scene.apply(service(&format!("s{number}"), &[], ports(&[&port])));
    }
    scene.apply(service("big", &[], ports(&["TCP/1:31001", "TCP/2:31002", "TCP/3:31003"])));
    scene.rest().await;
    let met = (0..16).filter(|number| scene.outcomes[&key(&format!("s{number}"))].met).count();
    // The limit is met by those that came first; who is told is who was one too many.
    assert!(met >= 14, "{met}");
    let refused: Vec<_> =
        scene.outcomes.keys().filter(|key| !scene.outcomes[key].met).map(|key| scene.says(&key.name)).collect();
    assert!(
        !refused.is_empty() && refused.iter().all(|says| says.contains("LoadBalancingRuleCountLimitReached")),
        "{refused:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_public_ip_that_azure_refuses_is_one_services_failure() {
    let mut scene = Scene::new();
    scene.fake().limits(Limits { public_ips: 1, ..Limits::default() });
    scene.apply(service("a", &[PUBLIC], json!({})));
    scene.apply(service("b", &[PUBLIC], json!({})));
    scene.apply(service("c", &[], json!({})));
    for _ in 0..5 {
        scene.round().await;
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    }
    assert!(scene.outcomes[&key("a")].met && scene.outcomes[&key("c")].met);
    let says = scene.failures.join("\n");
    assert!(says.contains("PublicIPCountLimitReached") && says.ends_with("raise the limit, or need less"), "{says}");
}

#[tokio::test(start_paused = true)]
async fn a_resource_group_that_is_not_there_is_the_trouble_of_who_names_it() {
    let mut scene = Scene::new();
    scene.fake().only_groups(&["rg"]);
    scene.apply(service("a", &[PUBLIC, ("azure-load-balancer-resource-group", "other")], json!({})));
    scene.apply(service("b", &[PUBLIC], json!({})));
    scene.rest().await;
    assert!(scene.outcomes[&key("b")].met);
    assert!(scene.says("a").contains("ResourceGroupNotFound"), "{}", scene.says("a"));
}

#[tokio::test(start_paused = true)]
async fn who_needs_the_rule_that_is_one_too_many_is_told_and_harms_no_other() {
    let mut scene = Scene::new();
    // The group as others filled it.
    let rules: Vec<_> = (0..999)
        .map(|number| {
            json!({"name": format!("theirs{number}"), "properties": {
                "protocol": "Tcp", "access": "Allow", "direction": "Inbound", "priority": 1000 + number, "sourcePortRange": "*",
                "sourceAddressPrefix": "*", "destinationAddressPrefix": "*", "destinationPortRange": "22",
            }})
        })
        .collect();
    let group = json!({"location": "westeurope", "properties": {"securityRules": rules}});
    scene.fake().plant(&format!("{GROUP}/networkSecurityGroups/prod-nsg"), group).unwrap();
    for name in ["a", "b", "c"] {
        scene.apply(service(name, &[PUBLIC], json!({})));
    }
    scene.apply(service("d", &[PUBLIC], ports(&["TCP/443:30443"])));
    scene.rest().await;
    for name in ["a", "b", "c"] {
        assert!(scene.outcomes[&key(name)].met, "{}", scene.says(name));
    }
    assert!(
        scene.says("d").starts_with("CloudLimit: the network security group prod-nsg has 1000 rules"),
        "{}",
        scene.says("d")
    );
}
