//! Several providers in one cluster: the class of a Service decides who serves it, and one who does not leaves it alone.

use anyhow::{Result, ensure};
use berth_lab::{Lab, lab_test};
use kube::api::ListParams;
use serde_json::json;

use crate::cluster::{Cluster, SOON, answers};

/// Both providers; Services without a class are the mock's.
pub const BOTH: [&str; 3] = ["--providers=pool,mock", "--default-provider=mock", "--class=example.com/lb=pool"];

lab_test! {
    async fn the_class_decides_who_serves_a_service_and_another_controllers_is_left_alone(lab: Lab) -> Result<()> {
        let cluster = Cluster::start_with_args(lab.clone(), &BOTH).await?;
        let class = |class: &str| json!({"loadBalancerClass": class});

        // Ours.
        cluster.service("plain", json!({})).await?;
        cluster.publishes("plain", &["203.0.113.1"]).await?;
        cluster.service("mock", class("berth.dev/mock")).await?;
        cluster.publishes("mock", &["203.0.113.2"]).await?;
        for (app, class_of) in [("pool", "berth.dev/pool"), ("mapped", "example.com/lb")] {
            cluster.pod(app, "node-1").await?;
            cluster.service(app, class(class_of)).await?;
            let address = cluster.address(app).await?;
            ensure!(address.to_string().starts_with("192.0.2.20"), "{app}: {address}");
            assert_eq!(answers(&lab.client().netns, address).await?.pod, format!("{app}-node-1"));
        }
        let families = json!({"ipFamilies": ["IPv6", "IPv4"], "ipFamilyPolicy": "RequireDualStack"});
        cluster.service("both", families).await?;
        cluster.publishes("both", &["2001:db8:0:b07::1", "203.0.113.3"]).await?;
        let announced = cluster.announcements().list(&ListParams::default()).await?.items;
        assert_eq!(announced.len(), 2, "nobody answers for an address of the mock: {announced:?}");

        // Others'. A slip of the pen is told once, however often the Service changes.
        let other = cluster.service("other", class("example.com/other")).await?;
        cluster.service("slip", class("berth.dev/pol")).await?;
        let told = cluster.event("slip", "UnknownClass").await?;
        ensure!(told.contains("`berth.dev/pol`") && told.contains("berth.dev/pool, berth.dev/mock, berth.dev/aws-nlb"), "{told}");
        for value in ["a", "b"] {
            cluster.edit("slip", json!({"metadata": {"labels": {"touched": value}}})).await?;
        }
        // Events are written in their order, so those about the first are there when this one is.
        cluster.service("slip-again", class("berth.dev/pol")).await?;
        cluster.event("slip-again", "UnknownClass").await?;
        cluster.bare("slip").await?;
        let events = cluster.events("slip").await?;
        let [event] = &events[..] else { anyhow::bail!("it is told once: {events:?}") };
        ensure!(event.type_.as_deref() == Some("Warning") && event.series.is_none(), "{event:?}");
        let still = cluster.services().get("other").await?;
        assert_eq!(still.metadata.resource_version, other.metadata.resource_version, "nobody touched it");
        ensure!(cluster.events("other").await?.is_empty());
        Ok(())
    }
}

lab_test! {
    async fn a_service_that_leaves_its_provider_keeps_nothing_of_it_and_frees_what_it_held(lab: Lab) -> Result<()> {
        let cluster = Cluster::start_with_args(lab.clone(), &BOTH).await?;
        let pool = json!({"loadBalancerClass": "berth.dev/pool"});
        let cluster_ip = json!({"spec": {"type": "ClusterIP", "loadBalancerClass": null}});
        cluster.service("mock", json!({})).await?;
        cluster.publishes("mock", &["203.0.113.1"]).await?;
        cluster.service("pool", pool.clone()).await?;
        cluster.publishes("pool", &["192.0.2.200"]).await?;

        // No load balancer at all.
        for name in ["mock", "pool"] {
            cluster.edit(name, cluster_ip.clone()).await?;
            cluster.bare(name).await?;
            cluster.event(name, "Released").await?;
        }
        cluster.service("next", json!({})).await?;
        cluster.publishes("next", &["203.0.113.1"]).await?;
        cluster.service("next-pool", pool).await?;
        cluster.publishes("next-pool", &["192.0.2.200"]).await?;

        // From one provider to the other and back, without waiting in between.
        let to = |class: &str| json!({"spec": {"type": "LoadBalancer", "loadBalancerClass": class}});
        cluster.edit("next", cluster_ip.clone()).await?;
        cluster.edit("next", to("berth.dev/pool")).await?;
        cluster.publishes("next", &["192.0.2.201"]).await?;
        let (_, message) = cluster.reason("next", "berth.dev/Allocated", "Allocated").await?;
        ensure!(message.ends_with("from IPAddressPool `default`"), "{message}");
        cluster.edit("mock", to("berth.dev/mock")).await?;
        cluster.publishes("mock", &["203.0.113.1"]).await?;
        cluster.edit("next", cluster_ip).await?;
        cluster.edit("next", to("berth.dev/mock")).await?;
        cluster.publishes("next", &["203.0.113.2"]).await?;
        lab.eventually("the pool has its address back, and the mock's Services are not announced", SOON, async || {
            let held = cluster.announcements().list(&ListParams::default()).await?.items;
            let held: Vec<_> = held.iter().map(|a| (a.spec.address.to_string(), a.spec.services[0].name.clone())).collect();
            ensure!(held == [("192.0.2.200".to_owned(), "next-pool".to_owned())], "{held:?}");
            Ok(Some(()))
        })
        .await?;
        let conditions = cluster.services().get("next").await?.status.and_then(|s| s.conditions).unwrap_or_default();
        let kinds: Vec<_> = conditions.iter().map(|c| c.type_.as_str()).collect();
        assert_eq!(kinds, ["berth.dev/Allocated"], "of one provider only");
        Ok(())
    }
}
