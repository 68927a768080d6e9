//! Azure refuses a whole document for one Service's part of it, and no other Service is harmed by that.

use std::collections::BTreeMap;

use berth_arm_fake::{Action, Fault, Limits};
use berth_provider::{Class, Provider as _, TargetNode, Targets, Wanted, carry_out};
use serde_json::json;

use super::scene::{GROUP, PUBLIC, Scene, key, ports, service, settings, shard};
use crate::arm::Id;
use crate::intent::Scheme;
use crate::observed::Observed;
use crate::step::Step;

const UNRULED: (&str, &str) = ("azure-disable-load-balancer-nsg-rule", "true");

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
async fn where_rules_alone_change_it_is_found_out_too_whose_fault_it_is() {
    let mut scene = Scene::new();
    let named = |number: u8| format!("s{number}");
    let spec = |number: u8| ports(&[&format!("TCP/80:{}", 30_000 + u32::from(number))]);
    for number in 0..8 {
        scene.apply(service(&named(number), &[], spec(number)));
    }
    scene.rest().await;
    // One of others is there, and there is room for seven.
    scene.fake().limits(Limits { security_rules: 8, ..Limits::default() });
    for number in 0..8 {
        let range = format!("192.0.2.{number}/32");
        scene.apply(service(&named(number), &[("azure-allowed-ip-ranges", &range)], spec(number)));
    }
    scene.rest().await;
    let unmet: Vec<_> = (0..8).map(named).filter(|name| !scene.outcomes[&key(name)].met).collect();
    let [unmet] = &unmet[..] else { panic!("one is one too many: {unmet:?}") };
    assert!(scene.says(unmet).contains("NetworkSecurityGroupRuleCountLimitReached"), "{}", scene.says(unmet));
    assert_eq!(scene.parts("networkSecurityGroups/prod-nsg", "securityRules").len(), 8);
}

#[tokio::test(start_paused = true)]
async fn who_is_the_last_one_left_beside_another_that_made_the_document_fail_is_not_blamed() {
    let mut scene = Scene::new();
    scene.apply(service("good", &[], json!({})));
    scene.apply(service("bad", &[], json!({})));
    scene.rest().await;
    let later = Action::FailLater { code: "NotLiked".to_owned(), message: String::new() };
    scene.fake().fault(Fault::next("PUT", "loadBalancers", later));
    scene.apply(service("bad", &[("azure-load-balancer-tcp-idle-timeout", "9")], json!({})));
    scene.round().await;
    // What it wrote is still there, and still not taken.
    let still = Fault { times: 2, ..Fault::next("PUT", "loadBalancers", super::lifecycle::answer(400, "NotLiked")) };
    scene.fake().fault(still);
    for _ in 0..2 {
        scene.round().await;
        assert!(scene.says("bad").contains("NotLiked"), "{}", scene.says("bad"));
        assert!(matches!(&scene.failures[..], [said] if said.contains("may be another's")), "{:?}", scene.failures);
    }
    scene.rest().await;
    let blamed = scene.provider.observe(&shard(), &scene.wanted()).await.unwrap().blamed;
    assert_eq!(blamed.keys().map(|id| id.key.name.as_str()).collect::<Vec<_>>(), ["bad"]);
    assert!(scene.outcomes[&key("good")].met);
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

#[tokio::test(start_paused = true)]
async fn what_is_no_name_of_a_resource_refuses_its_service_and_is_never_asked_for() {
    let mut scene = Scene::new();
    scene.apply(service("good", &[], json!({})));
    let bad: [(&str, &[(&str, &str)]); 5] = [
        ("a", &[("azure-load-balancer-internal-subnet", "a b")]),
        ("b", &[("azure-load-balancer-internal-subnet", "../../networkSecurityGroups/x")]),
        ("c", &[PUBLIC, ("azure-load-balancer-resource-group", "other?x=")]),
        ("d", &[PUBLIC, ("azure-load-balancer-resource-group", "ends.")]),
        ("e", &[PUBLIC, ("azure-pip-name", "../x")]),
    ];
    for (name, annotations) in bad {
        scene.apply(service(name, annotations, json!({})));
    }
    let allowed = [PUBLIC, ("azure-load-balancer-resource-group", "rg_(1)-a.b")];
    scene.apply(service("odd", &allowed, json!({})));
    scene.rest().await;
    assert!(scene.outcomes[&key("good")].met && scene.outcomes[&key("odd")].met, "{}", scene.says("odd"));
    for (name, annotations) in bad {
        let says = scene.says(name);
        let (field, value) = annotations[annotations.len() - 1];
        assert!(says.contains(field) && says.contains(&format!("`{value}` is no name that a resource")), "{says}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_group_that_azure_cannot_list_is_the_trouble_of_who_names_it() {
    let mut scene = Scene::new();
    scene.apply(service("good", &[PUBLIC], json!({})));
    scene.rest().await;
    let answer = super::lifecycle::answer(400, "InvalidResourceGroup");
    // Groups are listed by name, and this one comes first.
    scene.fake().fault(Fault::next("GET", "publicIPAddresses", answer));
    scene.apply(service("bad", &[PUBLIC, ("azure-load-balancer-resource-group", "another")], json!({})));
    scene.apply(service("more", &[], json!({})));
    scene.round().await;
    assert_eq!(scene.failures, Vec::<String>::new());
    assert!(scene.says("bad").contains("InvalidResourceGroup"), "{}", scene.says("bad"));
    assert!(scene.outcomes[&key("good")].met);
}

#[tokio::test(start_paused = true)]
async fn a_subnet_that_cannot_be_read_is_the_trouble_of_who_names_it() {
    for (status, code, reason) in [
        (403, "AuthorizationFailed", "PermissionDenied"),
        (404, "ResourceGroupNotFound", "InvalidRequest"),
        (400, "InvalidResourceName", "InvalidRequest"),
    ] {
        let mut scene = Scene::new();
        let apps = [("azure-load-balancer-internal-subnet", "apps")];
        scene.apply(service("bad", &apps, json!({})));
        scene.rest().await;
        let address = scene.says("bad");
        // Subnets are read by name, and this one comes first.
        scene.fake().fault(Fault::next("GET", "subnets", super::lifecycle::answer(status, code)));
        scene.apply(service("bad", &[apps[0], ("azure-load-balancer-tcp-idle-timeout", "9")], json!({})));
        scene.apply(service("db", &[], json!({})));
        scene.apply(service("web", &[PUBLIC], json!({})));
        scene.round().await;
        assert_eq!(scene.failures, Vec::<String>::new(), "{code}");
        let says = scene.says("bad");
        assert!(says.starts_with(reason) && says.contains(code), "{says}");
        assert_eq!(scene.addresses("bad"), [address.as_str()], "it keeps what it has");
        assert!(scene.parts("loadBalancers/prod-internal", "frontendIPConfigurations").len() == 2, "{code}");
        // That a right was given is told by nobody.
        assert_eq!(scene.outcomes[&key("bad")].look_again.is_some(), status == 403, "{code}");
        for _ in 0..3 {
            scene.round().await;
        }
        assert!(["bad", "db", "web"].iter().all(|name| scene.outcomes[&key(name)].met), "{code}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_load_balancer_that_somebody_changed_since_it_was_looked_at_is_not_deleted() {
    let mut scene = Scene::new();
    scene.apply(service("web", &[], json!({})));
    scene.rest().await;
    scene.delete("web");
    let wanted = scene.wanted();
    let mut observed = scene.provider.observe(&shard(), &wanted).await.unwrap();
    let plan = scene.provider.plan(&wanted, &observed);
    assert!(matches!(&plan.steps[..], [planned] if matches!(planned.step, Step::Delete { .. })), "{:?}", plan.steps);
    let path = "loadBalancers/prod-internal";
    let mut document = scene.document(path).unwrap();
    let theirs = json!({"name": "theirs", "properties": {
        "subnet": {"id": format!("{GROUP}/virtualNetworks/prod-vnet/subnets/apps")}, "privateIPAllocationMethod": "Dynamic",
    }});
    document["properties"]["frontendIPConfigurations"].as_array_mut().unwrap().push(theirs);
    scene.fake().plant(&format!("{GROUP}/{path}"), document).unwrap();
    let carried = carry_out(&scene.provider, &shard(), &plan, &mut observed, || true).await;
    assert_eq!(carried.failures.values().map(|failure| failure.class).collect::<Vec<_>>(), [Class::Conflict]);
    assert_eq!(scene.counted("DELETE loadBalancers"), 0);
    // Planned anew, it loses what is ours and is there.
    scene.rest().await;
    assert_eq!(scene.parts(path, "frontendIPConfigurations").into_keys().collect::<Vec<_>>(), ["theirs"]);
    assert!(scene.parts(path, "loadBalancingRules").is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_search_beside_a_plan_takes_nothing_of_what_the_plan_remembers() {
    let mut scene = Scene::new();
    scene.apply(service("good", &[], json!({})));
    scene.rest().await;
    scene.apply(service("bad", &[("azure-load-balancer-ipv4", "10.0.0.66")], json!({})));
    let wanted = scene.wanted();
    let mut observed = scene.provider.observe(&shard(), &wanted).await.unwrap();
    scene.provider.list_owned().await.unwrap();
    let plan = scene.provider.plan(&wanted, &observed);
    let answer = super::lifecycle::answer(400, "PrivateIPAddressInUse");
    scene.fake().fault(Fault::next("PUT", "loadBalancers", answer));
    let carried = carry_out(&scene.provider, &shard(), &plan, &mut observed, || true).await;
    assert_eq!(carried.failures.values().map(|failure| failure.class).collect::<Vec<_>>(), [Class::Conflict]);
    // Who was to blame is known, although nobody was named.
    scene.round().await;
    assert!(scene.says("bad").contains("PrivateIPAddressInUse"), "{}", scene.says("bad"));
    // Nor does it forget since when something is under way.
    scene.fake().takes(std::time::Duration::from_secs(2));
    scene.fake().fault(Fault::next("PUT", "publicIPAddresses", Action::Stick));
    scene.apply(service("new", &[PUBLIC], json!({})));
    for _ in 0..2 {
        scene.round().await;
        tokio::time::sleep(std::time::Duration::from_secs(20)).await;
        scene.provider.list_owned().await.unwrap();
    }
    scene.round().await;
    let soon = scene.outcomes[&key("new")].look_again;
    assert!(soon.is_some_and(|soon| soon.as_secs() == 1), "{soon:?}");
    tokio::time::sleep(std::time::Duration::from_secs(20)).await;
    scene.round().await;
    let soon = scene.outcomes[&key("new")].look_again;
    assert!(soon.is_some_and(|soon| soon.as_secs() == 10), "{soon:?}");
}

#[test]
fn a_load_balancer_that_somebody_else_left_failed_is_written_only_with_a_part_of_ours() {
    let theirs = json!({"name": "prod", "properties": {"provisioningState": "Failed", "frontendIPConfigurations": [
        {"name": "aks", "properties": {"publicIPAddress": {"id": format!("{GROUP}/publicIPAddresses/aks")}}},
    ]}});
    let observed = Observed { load_balancers: [(Scheme::Public, theirs)].into(), ..Observed::default() };
    let steps = |wanted: &Wanted, observed: &Observed| crate::plan::plan(&settings(), wanted, observed).steps;
    assert_eq!(steps(&Wanted::default(), &observed), []);
    let intent = service("web", &[PUBLIC, ("azure-load-balancer-ipv4", "20.0.0.1"), UNRULED], json!({}));
    let wanted = Wanted { present: [(intent.id.key.clone(), intent)].into(), ..Wanted::default() };
    let address = json!({"name": "mine", "properties": {"ipAddress": "20.0.0.1", "provisioningState": "Succeeded"}});
    let id = Id::new(format!("{GROUP}/publicIPAddresses/mine"));
    let mut observed = Observed { public_ips: [(id, address)].into(), ..observed };
    let [put] = &steps(&wanted, &observed)[..] else { panic!("one write") };
    let Step::Put { body, .. } = &put.step else { panic!("a write") };
    // Written, and failed: it is written again.
    let mut failed = body.clone();
    failed["properties"]["provisioningState"] = json!("Failed");
    observed.load_balancers.insert(Scheme::Public, failed);
    assert_eq!(steps(&wanted, &observed).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_write_that_takes_away_an_address_before_its_successor_is_told_of_is_said_to_interrupt() {
    for (floating, expected) in [("false", false), ("true", true)] {
        let mut scene = Scene::new();
        let ask =
            |address| [("azure-load-balancer-ipv4", address), ("azure-disable-load-balancer-floating-ip", floating)];
        scene.apply(service("web", &ask("10.0.0.10"), json!({})));
        scene.apply(service("other", &[], json!({})));
        scene.rest().await;
        scene.apply(service("web", &ask("10.0.0.11"), json!({})));
        let steps = scene.plan().await;
        assert_eq!(steps.iter().map(|step| step.disruptive).collect::<Vec<_>>(), [expected], "{floating}");
        scene.rest().await;
        assert_eq!(scene.says("web"), "10.0.0.11");
    }
}

#[tokio::test(start_paused = true)]
async fn a_pool_whose_name_differs_in_case_alone_is_filled() {
    let mut scene = Scene::new();
    let theirs = json!({"location": "westeurope", "sku": {"name": "Standard"}, "properties": {
        "frontendIPConfigurations": [{"name": "x", "properties": {"subnet": {"id": format!("{GROUP}/virtualNetworks/prod-vnet/subnets/apps")},
            "privateIPAllocationMethod": "Dynamic"}}],
        "backendAddressPools": [{"name": "PROD", "properties": {}}],
    }});
    scene.fake().plant(&format!("{GROUP}/loadBalancers/prod-internal"), theirs).unwrap();
    scene.apply(service("web", &[], json!({})));
    scene.rest().await;
    assert_eq!(scene.parts("loadBalancers/prod-internal", "backendAddressPools").len(), 1);
    let node = TargetNode {
        name: "node".to_owned(),
        provider_id: String::new(),
        labels: BTreeMap::new(),
        addresses: vec![[10, 0, 200, 1].into()],
    };
    let targets = Targets { nodes: vec![node].into(), services: BTreeMap::new() };
    assert_eq!(scene.provider.sync_targets(&shard(), &targets).await.unwrap().added, 1);
}

#[tokio::test(start_paused = true)]
async fn zones_are_those_of_new_frontends_and_never_of_those_that_there_are() {
    let fixed = [("azure-load-balancer-ipv4", "10.0.0.10")];
    let mut scene = Scene::new();
    scene.settings.zones = vec!["1".to_owned(), "2".to_owned()];
    scene.restart();
    scene.apply(service("web", &fixed, json!({})));
    scene.rest().await;
    let zones = |scene: &Scene| {
        scene.document("loadBalancers/prod-internal").unwrap()["properties"]["frontendIPConfigurations"][0]["zones"]
            .clone()
    };
    assert_eq!(zones(&scene), json!(["1", "2"]));
    for others in [&[][..], &["3"]] {
        scene.settings.zones = others.iter().map(|zone| (*zone).to_owned()).collect();
        scene.restart();
        assert_eq!(scene.plan().await, [], "{others:?}");
    }
}
