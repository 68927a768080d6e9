//! What is said of Services, and when.

use std::time::Duration;

use serde_json::json;

use super::process::Cluster;

const PUBLIC: (&str, &str) = ("azure-load-balancer-internal", "false");

#[tokio::test(start_paused = true)]
async fn addresses_are_published_once_the_frontend_is_there() {
    let mut cluster = Cluster::new();
    cluster.apply("web", &[PUBLIC], &json!({}));
    cluster.start();
    tokio::time::sleep(Duration::from_millis(2500)).await;
    let said = cluster.api(|api| ["Allocated", "Provisioning", "Active"].map(|kind| api.says("web", kind)));
    assert!(said[0].starts_with("False Provisioning") && said[1].starts_with("True Provisioning"), "{said:#?}");
    assert!(said[2].starts_with("False Provisioning"), "{said:#?}");
    cluster.rest().await;
    let said = cluster.api(|api| ["Allocated", "Provisioning", "Active"].map(|kind| api.says("web", kind)));
    assert!(said[0].starts_with("True Allocated the frontend a0000"), "{said:#?}");
    assert!(said[1].starts_with("False Active") && said[2].starts_with("True Active"), "{said:#?}");
    let addresses = cluster.api(|api| api.addresses("web"));
    let public = cluster.ours().into_iter().find(|path| path.starts_with("publicIPAddresses/")).unwrap();
    assert_eq!(addresses, [cluster.document(&public)["properties"]["ipAddress"].as_str().unwrap()]);
    assert_eq!(cluster.api(|api| api.events.clone()), ["Allocated"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_published_works_at_any_moment_of_a_change_of_scheme() {
    let mut cluster = Cluster::new();
    cluster.served("web", &[]).await;
    let before = cluster.api(|api| api.addresses("web"));
    let has = |cluster: &Cluster, address: &str| {
        let resources = cluster.fake.resources();
        let public = |id: &str| resources.get(id).and_then(|ip| ip["properties"]["ipAddress"].as_str());
        ["prod", "prod-internal"].iter().any(|name| {
            let document = cluster.document(&format!("loadBalancers/{name}"));
            let frontends = document["properties"]["frontendIPConfigurations"].as_array().cloned().unwrap_or_default();
            let rules = document["properties"]["loadBalancingRules"].to_string();
            frontends.iter().any(|frontend| {
                let properties = &frontend["properties"];
                let own = properties["privateIPAddress"].as_str();
                let is = own.or_else(|| public(properties["publicIPAddress"]["id"].as_str()?)) == Some(address);
                is && rules.contains(frontend["id"].as_str().unwrap())
            })
        })
    };
    for annotations in [&[PUBLIC][..], &[], &[("azure-load-balancer-internal-subnet", "apps")]] {
        cluster.apply("web", annotations, &json!({}));
        for _ in 0..300 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            for address in cluster.api(|api| api.addresses("web")) {
                assert!(has(&cluster, &address), "{address} is published and nobody serves it");
            }
        }
        cluster.rest().await;
        assert_eq!(cluster.frontends().len(), 1, "{annotations:?}");
    }
    let after = cluster.api(|api| api.addresses("web"));
    assert!(after[0].starts_with("10.1.0.") && after != before, "{after:?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_not_admitted_is_said_with_the_flag_that_would_admit_it() {
    let mut cluster = Cluster::with(|settings| settings.admission = berth_azure::Admission::default());
    cluster.apply("web", &[PUBLIC], &json!({}));
    cluster.apply("db", &[], &json!({}));
    cluster.start();
    cluster.rest().await;
    let said = cluster.api(|api| api.says("web", "Allocated"));
    assert!(said.starts_with("False CloudNotAdmitted") && said.contains("--azure-public-namespaces"), "{said}");
    assert!(cluster.api(|api| api.says("db", "Allocated")).starts_with("True"));
    assert_eq!(cluster.calls("PUT publicIPAddresses"), 0);
}

#[tokio::test(start_paused = true)]
async fn at_rest_azure_is_asked_once_an_hour_and_what_was_changed_by_hand_is_mended_then() {
    let mut cluster = Cluster::new();
    cluster.served("web", &[]).await;
    cluster.fake.reset_counts();
    tokio::time::sleep(Duration::from_hours(5)).await;
    assert!(cluster.all_calls() <= 5 * 8, "{:?}", cluster.fake.counts());
    assert!(cluster.fake.counts().keys().all(|what| what.starts_with("GET")), "{:?}", cluster.fake.counts());
    let mut document = cluster.document("loadBalancers/prod-internal");
    document["properties"]["loadBalancingRules"][0]["properties"]["idleTimeoutInMinutes"] = 30.into();
    cluster.fake.plant(&format!("{}/loadBalancers/prod-internal", super::process::GROUP), document).unwrap();
    tokio::time::sleep(Duration::from_mins(70)).await;
    let rule = &cluster.document("loadBalancers/prod-internal")["properties"]["loadBalancingRules"][0];
    assert_eq!(rule["properties"]["idleTimeoutInMinutes"], 4);
}
