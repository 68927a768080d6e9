//! Wrong pools and wrong requests: each gets a clear error where it was made, and what worked goes on working.

use anyhow::{Context as _, Result, bail, ensure};
use berth_api::IPAddressPool;
use berth_lab::{Lab, lab_test};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::cluster::{Cluster, answers};

fn pool(name: &str, addresses: Value) -> serde_json::Result<IPAddressPool> {
    let object = json!({
        "apiVersion": "berth.dev/v1alpha1", "kind": "IPAddressPool",
        "metadata": {"name": name}, "spec": {"addresses": addresses},
    });
    serde_json::from_value(object)
}

lab_test! {
    async fn a_wrong_pool_says_what_is_wrong_and_what_worked_goes_on(lab: Lab) -> Result<()> {
        let cluster = Cluster::start(lab.clone()).await?;
        let (address, _) = cluster.web(&["node-1"], json!({})).await?;
        let prober = cluster.probing(address).await?;

        // What the API server can tell by itself is refused at once.
        for (entry, says) in [
            ("192.0.2.0/33", "neither a CIDR such as 192.0.2.0/28 nor a range such as 192.0.2.10-192.0.2.20: 192.0.2.0/33"),
            ("web", "neither a CIDR such as 192.0.2.0/28 nor a range such as 192.0.2.10-192.0.2.20: web"),
            ("192.0.2.1-192.0.2.2-192.0.2.3", "neither a CIDR"),
            ("192.0.2.210/28", "bits are set behind the prefix, so it is unclear which addresses are meant; clear them or write a range: 192.0.2.210/28"),
            ("2001:db8::/129", "neither a CIDR"),
            ("2001:db8::5/64", "bits are set behind the prefix"),
            ("::ffff:192.0.2.210", "neither a CIDR"),
            ("192.0.2.210-2001:db8::1", "starts in one address family and ends in the other, write one entry for each: 192.0.2.210-2001:db8::1"),
        ] {
            match cluster.pools().create(&PostParams::default(), &pool("wrong", json!([entry]))?).await {
                Ok(_) => bail!("{entry} was taken"),
                Err(error) => ensure!(error.to_string().contains(says), "{entry}: {error}"),
            }
        }
        // What needs arithmetic or the rest of the cluster is said on the object.
        for (name, addresses, reason, says) in [
            ("reversed", json!(["192.0.2.220-192.0.2.215"]), "RangeReversed", "write `192.0.2.215-192.0.2.220`"),
            ("twice", json!(["192.0.2.230-192.0.2.233", "192.0.2.232/31"]), "Overlap", "`spec.addresses[1]` and `spec.addresses[0]`"),
            ("overlap", json!(["192.0.2.205-192.0.2.215"]), "Overlap", "192.0.2.205-192.0.2.209 is also part of the older pool `default`"),
            ("node", json!(["192.0.2.12-192.0.2.12"]), "NodeAddress", "192.0.2.12 is the own address of node node-2"),
            ("node6", json!(["2001:db8:2::12-2001:db8:2::12"]), "NodeAddress", "2001:db8:2::12 is the own address of node node-2"),
            ("reversed6", json!(["2001:db8:2::9-2001:db8:2::5"]), "RangeReversed", "write `2001:db8:2::5-2001:db8:2::9`"),
            ("local6", json!(["192.0.2.240", "fe80::/64"]), "InvalidAddress", "link-local"),
        ] {
            cluster.pools().create(&PostParams::default(), &pool(name, addresses)?).await?;
            let (status, message) = cluster.pool_reason(name, reason).await?;
            ensure!(status == "False" && message.contains(says), "{name}: {message}");
            ensure!(cluster.event(name, reason).await?.contains(says), "{name}: the event says the same");
            assert_eq!(cluster.pool_reason("default", "Valid").await?.0, "True");
            cluster.pools().delete(name, &DeleteParams::default()).await?;
        }

        // Both families in one pool, however large.
        let both = json!(["2001:db8:5::/64", " 192.0.2.240 - 192.0.2.243 ", "2001:db8:3::1-2001:db8:3::7", "2001:db8:4::1"]);
        cluster.pools().create(&PostParams::default(), &pool("both", both)?).await?;
        cluster.pool_reason("both", "Valid").await?;
        let status = cluster.pools().get("both").await?.status.context("it has a condition")?;
        assert_eq!((status.available_ipv4, status.available_ipv6), (Some(4), Some(i64::MAX)));
        cluster.pools().delete("both", &DeleteParams::default()).await?;

        // A good pool that is made bad gives nothing new, keeps what is held, and recovers.
        let change = async |addresses: Value| {
            let change = Patch::Merge(json!({"spec": {"addresses": addresses}}));
            cluster.pools().patch("default", &PatchParams::default(), &change).await
        };
        change(json!(["192.0.2.209-192.0.2.200"])).await?;
        cluster.pool_reason("default", "RangeReversed").await?;
        cluster.service("new", json!({})).await?;
        let (_, message) = cluster.reason("new", "berth.dev/Allocated", "PoolNotReady").await?;
        ensure!(message.contains("IPAddressPool `default`"), "{message}");
        assert_eq!(cluster.ingress("web").await?, Some(address));
        change(json!(["192.0.2.200-192.0.2.204"])).await?;
        cluster.address("new").await?;

        let seen = prober.stop();
        ensure!(seen.failed().next().is_none(), "the Service that worked lost connections: {:?}", seen.failed().next());
        Ok(())
    }
}

lab_test! {
    async fn a_wrong_request_is_refused_on_the_service_and_mended_by_correcting_it(lab: Lab) -> Result<()> {
        let cluster = Cluster::start(lab.clone()).await?;
        cluster.pod("web", "node-1").await?;
        for (name, more, annotations, reason, says) in [
            ("text", json!({}), json!({"berth.dev/load-balancer-ips": "web"}), "InvalidRequest", "annotation berth.dev/load-balancer-ips: `web` is not an IP address"),
            ("field", json!({"loadBalancerIP": "web"}), json!({}), "InvalidRequest", "spec.loadBalancerIP: `web` is not an IP address"),
            ("outside", json!({"loadBalancerIP": "198.51.100.9"}), json!({}), "AddressOutsidePools", "198.51.100.9 is in no IPAddressPool"),
            ("nowhere", json!({}), json!({"metallb.io/address-pool": "gold"}), "PoolNotFound", "there is no IPAddressPool `gold`"),
            ("elsewhere", json!({"loadBalancerIP": "198.51.100.9"}), json!({"metallb.io/loadBalancerIPs": "192.0.2.200"}), "InvalidRequest", "remove one of them"),
            ("family", json!({}), json!({"berth.dev/load-balancer-ips": "2001:db8:2::200"}), "FamilyMismatch", "asks for 2001:db8:2::200, but the Service has IPv4 alone"),
        ] {
            let mut spec = json!({"type": "LoadBalancer", "selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]});
            if let (Value::Object(spec), Value::Object(more)) = (&mut spec, more) {
                spec.extend(more);
            }
            let service = serde_json::from_value(json!({"metadata": {"name": name, "annotations": annotations}, "spec": spec}))?;
            cluster.services().create(&PostParams::default(), &service).await?;
            let (status, message) = cluster.reason(name, "berth.dev/Allocated", reason).await?;
            ensure!(status == "False" && message.contains(says), "{name}: {message}");
            ensure!(cluster.event(name, reason).await?.contains(says), "{name}: the event says the same");
            assert_eq!(cluster.ingress(name).await?, None, "{name}");
            let mend = json!({
                "metadata": {"annotations": {"berth.dev/load-balancer-ips": null, "metallb.io/address-pool": null, "metallb.io/loadBalancerIPs": null}},
                "spec": {"loadBalancerIP": null},
            });
            cluster.edit(name, mend).await?;
            let address = cluster.address(name).await?;
            answers(&lab.client().netns, address).await?;
            cluster.reason(name, "berth.dev/Allocated", "Allocated").await?;
        }

        // One that holds an address keeps it.
        let held = cluster.ingress("text").await?;
        cluster.edit("text", json!({"spec": {"loadBalancerIP": "198.51.100.9"}})).await?;
        let (status, message) = cluster.reason("text", "berth.dev/Allocated", "AddressOutsidePools").await?;
        ensure!(status == "False" && message.ends_with("192.0.2.200 stays until then"), "{message}");
        assert_eq!(cluster.ingress("text").await?, held);
        answers(&lab.client().netns, held.context("it held one")?).await?;
        Ok(())
    }
}
