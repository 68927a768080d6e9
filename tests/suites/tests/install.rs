//! An installation as an operator makes it: applied, used, rolled over while it is used, and taken away.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use berth_lab::{Container, HTTP_PORT, Lab, PodSpec, Workload, lab_test};
use k8s_openapi::api::core::v1::{Namespace, Pod, Service};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt as _};
use serde_json::json;

const LIMIT: Duration = Duration::from_secs(30);
/// What a new connection may have to wait while speakers hand over, one after the other.
const ROLLOUT_GAP: Duration = Duration::from_millis(500);
const EVERY: Duration = Duration::from_millis(10);
/// CAP_NET_RAW in a capability set, as `/proc` writes it (capabilities(7)).
const NET_RAW: &str = "0000000000002000";
const NO_CAPABILITY: &str = "0000000000000000";
/// One pool with addresses of both families, and its advertisement.
const POOL: &str = "
apiVersion: berth.dev/v1alpha1
kind: IPAddressPool
metadata: {name: default}
spec: {addresses: [192.0.2.200-192.0.2.209, '2001:db8:2::200-2001:db8:2::209']}
---
apiVersion: berth.dev/v1alpha1
kind: L2Advertisement
metadata: {name: default}
";

lab_test! {
    async fn berth_is_applied_used_rolled_over_and_deleted_and_nothing_is_left(lab: Lab) -> Result<()> {
        let begin = Instant::now();
        lab.install_berth().await?;
        let took = begin.elapsed();
        let controllers = lab.controllers();
        let nodes: BTreeSet<_> = controllers.iter().map(Container::node).collect();
        assert_eq!((controllers.len(), nodes.len()), (2, 2), "as shipped, and on different nodes: {controllers:?}");
        for controller in &controllers {
            runs_as(controller, "65532", NO_CAPABILITY)?;
        }
        for node in lab.nodes() {
            runs_as(&lab.speaker(node.name())?, "0", NET_RAW)?;
        }
        for container in lab.controllers().into_iter().chain([lab.speaker("node-1")?]) {
            ensure!(container.is_ready(), "{} after {took:?}", container.name());
            ensure!(!container.logged()?.is_empty(), "{} logs", container.name());
            assert_eq!(container.http_get(HTTP_PORT, "/readyz", LIMIT).await?.status, 200, "{}", container.name());
        }

        lab.apply_yaml(POOL).await?;
        for node in ["node-1", "node-2", "node-3"] {
            lab.pod(PodSpec::new(format!("web-{node}"), node).label("app", "web")).await?;
        }
        let services: Api<Service> = Api::default_namespaced(lab.admin());
        let service = json!({
            "metadata": { "name": "web" },
            "spec": {
                "type": "LoadBalancer", "externalTrafficPolicy": "Local", "ipFamilyPolicy": "RequireDualStack",
                "selector": { "app": "web" }, "ports": [{ "port": 80, "targetPort": 8080 }],
            },
        });
        services.create(&PostParams::default(), &serde_json::from_value(service)?).await?;
        let addresses: [IpAddr; 2] = ["192.0.2.200".parse()?, "2001:db8:2::200".parse()?];
        let probers = addresses.map(|address| (address, lab.client().netns.probe((address, 80).into(), EVERY)));
        for (address, prober) in &probers {
            prober.answered(LIMIT).await.with_context(|| address.to_string())?;
        }

        for workload in [Workload::Deployment, Workload::DaemonSet] {
            let before = pods(&lab).await?;
            let begin = Instant::now();
            lab.rollout_restart(workload).await?;
            for (address, prober) in &probers {
                prober.answered_since(Instant::now(), LIMIT).await.with_context(|| address.to_string())?;
                let gap = prober.observation().longest_gap_since(begin);
                println!("{workload:?}: the client had no answer from {address} for {gap:?}");
                ensure!(gap < ROLLOUT_GAP, "{workload:?}: the client had no answer from {address} for {gap:?}");
            }
            let after = pods(&lab).await?;
            let kept = after.iter().filter(|uid| before.contains(uid)).count();
            let expected = if workload == Workload::Deployment { 3 } else { 2 };
            assert_eq!((after.len(), kept), (5, expected), "{workload:?}: every pod of it is new, and no other");
        }
        for (_, prober) in probers {
            prober.stop();
        }

        services.delete("web", &DeleteParams::default()).await?;
        lab.uninstall_berth().await?;
        ensure!(pods(&lab).await?.is_empty());
        ensure!(lab.controllers().is_empty() && lab.speaker("node-1").is_err());
        let kinds = Api::<CustomResourceDefinition>::all(lab.admin()).list(&ListParams::default()).await?;
        ensure!(kinds.items.is_empty(), "kinds are left: {:?}", kinds.iter().map(kube::ResourceExt::name_any).collect::<Vec<_>>());
        let namespaces = Api::<Namespace>::all(lab.admin()).list(&ListParams::default()).await?;
        ensure!(!namespaces.iter().any(|n| n.name_any().starts_with("berth")), "a namespace is left");
        for node in lab.nodes() {
            let refused = node.netns().http_get((node.address(), HTTP_PORT).into(), "/healthz", LIMIT).await;
            ensure!(refused.is_err(), "something still listens on {}", node.name());
        }
        Ok(())
    }
}

/// A pool that is asked after the other; the advertisement above covers both.
const SECOND_POOL: &str = "
apiVersion: berth.dev/v1alpha1
kind: IPAddressPool
metadata: {name: second}
spec: {addresses: [192.0.2.220-192.0.2.229]}
";

lab_test! {
    async fn services_keep_their_addresses_when_berth_is_deleted_and_installed_again_and_its_pools_come_later(lab: Lab) -> Result<()> {
        lab.install_berth().await?;
        lab.apply_yaml(SECOND_POOL).await?;
        lab.apply_yaml(POOL).await?;
        lab.pod(PodSpec::new("web", "node-1").label("app", "web")).await?;
        let services: Api<Service> = Api::default_namespaced(lab.admin());
        for (name, pool) in [("one", "default"), ("two", "second")] {
            let service = json!({
                "metadata": { "name": name, "annotations": { "berth.dev/address-pool": pool } },
                "spec": { "type": "LoadBalancer", "selector": { "app": "web" }, "ports": [{ "port": 80, "targetPort": 8080 }] },
            });
            services.create(&PostParams::default(), &serde_json::from_value(service)?).await?;
        }
        let says = async |name: &str, address: &str, reason: &str| {
            lab.eventually(&format!("Service {name} has {address} and says {reason}"), LIMIT, async || {
                let status = services.get(name).await?.status.unwrap_or_default();
                let ingress = status.load_balancer.and_then(|l| l.ingress).unwrap_or_default();
                let ingress: Vec<_> = ingress.into_iter().filter_map(|i| i.ip).collect();
                ensure!(ingress == [address], "it has {ingress:?}");
                let conditions = status.conditions.unwrap_or_default();
                let said = conditions.iter().find(|c| c.type_ == "berth.dev/Allocated").map(|c| c.reason.as_str());
                ensure!(said == Some(reason), "it says {said:?}");
                Ok(Some(()))
            })
            .await
        };
        says("one", "192.0.2.200", "Allocated").await?;
        says("two", "192.0.2.220", "Allocated").await?;
        // What it asked for is not what brings it back.
        let nothing = Patch::Merge(json!({ "metadata": { "annotations": { "berth.dev/address-pool": null } } }));
        services.patch("two", &PatchParams::default(), &nothing).await?;

        lab.uninstall_berth().await?;
        let left = services.get("one").await?.status.and_then(|s| s.load_balancer?.ingress).unwrap_or_default();
        ensure!(left.iter().any(|i| i.ip.as_deref() == Some("192.0.2.200")), "nobody is there to take it: {left:?}");
        lab.install_berth().await?;
        says("one", "192.0.2.200", "PoolNotFound").await?;
        says("two", "192.0.2.220", "NoPool").await?;
        lab.apply_yaml(POOL).await?;
        says("one", "192.0.2.200", "Allocated").await?;
        says("two", "192.0.2.220", "AddressOutsidePools").await?;
        lab.apply_yaml(SECOND_POOL).await?;
        says("two", "192.0.2.220", "Allocated").await?;
        for address in ["192.0.2.200", "192.0.2.220"] {
            lab.client().netns.probe((address.parse::<IpAddr>()?, 80).into(), EVERY).answered(LIMIT).await.context(address)?;
        }
        Ok(())
    }
}

/// Holds a container's process against what it was promised: its user, no more than these capabilities, no way to more, and a root
/// that it cannot write to.
fn runs_as(container: &Container, user: &str, capabilities: &str) -> Result<()> {
    let name = container.name();
    let process = format!("/proc/{}", container.pid().context("it runs")?);
    let status = std::fs::read_to_string(format!("{process}/status"))?;
    let fields = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
        line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    // A lab without root has one user: whoever started it, seen as root from here whatever a container calls it.
    let map = std::fs::read_to_string("/proc/self/uid_map")?;
    let user = if map.split_whitespace().last() == Some("1") { "0" } else { user };
    for key in ["Uid:", "Gid:"] {
        assert_eq!(fields(key), [user; 4], "{name} {key} real, effective, saved, file system");
    }
    for key in ["CapPrm:", "CapEff:", "CapBnd:"] {
        assert_eq!(fields(key), [capabilities], "{name} {key}");
    }
    for key in ["CapInh:", "CapAmb:"] {
        assert_eq!(fields(key), [NO_CAPABILITY], "{name} {key}");
    }
    assert_eq!(fields("NoNewPrivs:"), ["1"], "{name}");
    // The sixth field is how a file system is mounted there (proc_pid_mountinfo(5)).
    let mounts = std::fs::read_to_string(format!("{process}/mountinfo"))?;
    let root = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>()).rfind(|mount| mount.get(4) == Some(&"/"));
    let options = root.and_then(|mount| mount.get(5).copied()).context("a root is mounted")?;
    ensure!(options.split(',').any(|option| option == "ro"), "{name}: its root is mounted {options}");
    Ok(())
}

/// The pods of Berth, by their uid.
async fn pods(lab: &Lab) -> Result<Vec<String>> {
    let all: Api<Pod> = Api::all(lab.admin());
    let ours = ListParams::default().labels("app.kubernetes.io/name=berth");
    Ok(all
        .list(&ours)
        .await?
        .iter()
        .filter(|p| p.metadata.deletion_timestamp.is_none())
        .filter_map(kube::ResourceExt::uid)
        .collect())
}
