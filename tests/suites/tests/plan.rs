//! `kubectl berth plan` against the controller itself: what the plan says is what applying does.

mod plugin;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use berth_api::{Announcement, IPAddressPool};
use berth_lab::{Lab, lab_test};
use k8s_openapi::api::core::v1::Service;
use kube::Api;
use serde_json::{Value, json};

use plugin::{Plugin, has};

/// Longest wait for what takes well under a second on an idle machine.
const SOON: Duration = Duration::from_secs(20);

const POOLS: &str = "
apiVersion: berth.dev/v1alpha1
kind: IPAddressPool
metadata: {name: office}
spec: {addresses: [192.0.2.200-192.0.2.203]}
---
apiVersion: berth.dev/v1alpha1
kind: L2Advertisement
metadata: {name: all}
";

/// The pool loses its last address, which somebody holds; there is another one, which gives to those alone that name it. Then
/// Services change, the one that gives an address back before the one that moves.
const EDIT: &str = "
apiVersion: berth.dev/v1alpha1
kind: IPAddressPool
metadata: {name: office}
spec: {addresses: [192.0.2.200-192.0.2.202]}
---
apiVersion: berth.dev/v1alpha1
kind: IPAddressPool
metadata: {name: gold}
spec: {addresses: [192.0.2.220-192.0.2.221], autoAssign: false}
---
apiVersion: v1
kind: Service
metadata: {name: left, namespace: default}
spec: {type: ClusterIP, selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: moves, namespace: default}
spec: {type: LoadBalancer, loadBalancerClass: berth.dev/pool, loadBalancerIP: 192.0.2.221, selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: new, namespace: default, annotations: {berth.dev/address-pool: gold}}
spec: {type: LoadBalancer, loadBalancerClass: berth.dev/pool, selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: outside, namespace: default}
spec: {type: LoadBalancer, loadBalancerClass: berth.dev/pool, loadBalancerIP: 198.51.100.9, selector: {app: web}, ports: [{port: 80}]}
";

fn service(name: &str) -> String {
    format!(
        "
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: default}}
spec: {{type: LoadBalancer, loadBalancerClass: berth.dev/pool, selector: {{app: web}}, ports: [{{port: 80}}]}}
"
    )
}

fn reached(service: &Service) -> Vec<String> {
    let ingress = service.status.as_ref().and_then(|status| status.load_balancer.as_ref()?.ingress.as_ref());
    ingress.into_iter().flatten().filter_map(|ingress| ingress.ip.clone()).collect()
}

/// Where a Service is reached, and the reason of its condition Allocated.
async fn seen(lab: &Lab, name: &str) -> Result<(Vec<String>, Option<String>)> {
    let service = Api::<Service>::default_namespaced(lab.admin()).get(name).await?;
    let conditions = service.status.as_ref().and_then(|status| status.conditions.as_ref());
    let allocated = conditions.into_iter().flatten().find(|condition| condition.type_ == "berth.dev/Allocated");
    let reason = allocated.map(|condition| condition.reason.clone());
    Ok((reached(&service), reason))
}

/// Waits until a Service is as the plan says.
async fn comes_true(lab: &Lab, planned: &Value) -> Result<()> {
    let name = planned["name"].as_str().context("name")?;
    let gone = planned["reason"] == "Released";
    let reason = (!gone).then(|| planned["reason"].as_str().unwrap_or_default().to_owned());
    lab.eventually(&format!("what is planned comes true: {planned}"), SOON, async || {
        let (places, told) = seen(lab, name).await?;
        ensure!((&json!(places), &told) == (&planned["after"], &reason), "it is {places:?} {told:?}");
        Ok(Some(()))
    })
    .await
}

fn named<'a>(plan: &'a Value, name: &str) -> Result<&'a Value> {
    let services = plan["services"].as_array().context("services")?;
    services.iter().find(|service| service["name"] == name).with_context(|| format!("no {name} in {plan:#}"))
}

fn file(folder: &Path, name: &str, text: &str) -> Result<String> {
    let path = folder.join(name);
    std::fs::write(&path, text)?;
    Ok(path.display().to_string())
}

lab_test! {
    async fn what_the_plan_says_is_what_applying_does(lab: Lab) -> Result<()> {
        lab.install_berth().await?;
        let plugin = Plugin::of(&lab).await?;
        let folder = tempfile::tempdir()?;
        lab.apply_yaml(POOLS).await?;
        // One after the other, so that each has an address of its own that is known; the last finds none.
        for (name, address) in [("moves", "192.0.2.200"), ("left", "192.0.2.201"), ("stays", "192.0.2.202"), ("cut", "192.0.2.203")] {
            lab.apply_yaml(&service(name)).await?;
            let expected = json!({"name": name, "after": [address], "reason": "Allocated"});
            comes_true(&lab, &expected).await?;
        }
        // What nobody answers for yet is given up before its replacement is answered for.
        for address in ["192.0.2.200", "192.0.2.201", "192.0.2.202", "192.0.2.203"] {
            lab.eventually(&format!("somebody answers for {address}"), SOON, async || {
                let announcement = Api::<Announcement>::all(lab.admin()).get(address).await?;
                Ok(announcement.status.and_then(|status| status.layer2).map(drop))
            })
            .await?;
        }
        lab.apply_yaml(&service("waits")).await?;
        comes_true(&lab, &json!({"name": "waits", "after": [], "reason": "PoolExhausted"})).await?;

        let edit = file(folder.path(), "pool-edit.yaml", EDIT)?;
        let (plan, said) = plugin.json(&["plan", "-f", &edit]).await?;
        assert_eq!(said.code, Some(2), "{said:?}");
        for (name, change, after, reason) in [
            ("cut", "keep", &["192.0.2.203"][..], "Allocated"),
            ("kubernetes", "ignore", &[], "NotLoadBalancer"),
            ("left", "lose", &[], "Released"),
            ("moves", "move", &["192.0.2.221"], "Allocated"),
            ("new", "gain", &["192.0.2.220"], "Allocated"),
            ("outside", "pending", &[], "AddressOutsidePools"),
            ("stays", "keep", &["192.0.2.202"], "Allocated"),
            ("waits", "gain", &["192.0.2.201"], "Allocated"),
        ] {
            let told = named(&plan, name)?;
            let told = (&told["change"], &told["after"], &told["reason"]);
            assert_eq!(told, (&json!(change), &json!(after), &json!(reason)), "{name}: {plan:#}");
        }
        let pools = json!([
            {"name": "gold", "total": 2, "used": 2, "problems": []},
            {"name": "office", "total": 3, "used": 3, "problems": []},
        ]);
        assert_eq!(plan["pools"], pools, "{plan:#}");
        // For people.
        let said = plugin.run(&["plan", "-f", &edit]).await?;
        has(&said.out, &["move ", "Service default/left: lose: Released: ", "office   3 "])?;
        assert_eq!((said.code, said.err.as_str()), (Some(2), ""), "{said:?}");
        // Nothing was done.
        assert_eq!(seen(&lab, "moves").await?.0, ["192.0.2.200"]);

        lab.apply_yaml(EDIT).await?;
        for planned in plan["services"].as_array().context("services")?.iter().filter(|planned| planned["change"] != "ignore") {
            comes_true(&lab, planned).await?;
        }
        for planned in plan["pools"].as_array().context("pools")? {
            let name = planned["name"].as_str().context("name")?;
            lab.eventually(&format!("the status of the pool {name} says what was planned"), SOON, async || {
                let pool = Api::<IPAddressPool>::all(lab.admin()).get(name).await?;
                let used = pool.status.unwrap_or_default().assigned_ipv4;
                ensure!(json!(used) == planned["used"], "it is {used:?}");
                Ok(Some(()))
            })
            .await?;
        }

        // What has come true changes nothing any more.
        let (again, said) = plugin.json(&["plan", "-f", &edit]).await?;
        assert_eq!(said.code, Some(0), "{said:?}");
        let changes: Vec<_> = again["services"].as_array().context("services")?.iter().map(|s| &s["change"]).collect();
        ensure!(changes.iter().all(|change| ["keep", "pending", "ignore"].iter().any(|word| *change == word)), "{again:#}");

        // Without what they are announced by, they stay and nobody reaches them.
        let (silent, said) = plugin.json(&["plan", "--delete", "l2advertisement/all"]).await?;
        assert_eq!((said.code, &named(&silent, "stays")?["reason"]), (Some(2), &json!("NoAdvertisement")), "{silent:#}");
        assert_eq!(named(&silent, "stays")?["after"], json!(["192.0.2.202"]));
        // What is held from a pool that goes stays held.
        let (kept, said) = plugin.json(&["plan", "--delete", "ipaddresspool/office"]).await?;
        assert_eq!((said.code, &named(&kept, "stays")?["change"]), (Some(0), &json!("keep")), "{kept:#}");

        // Who may not see all that it takes is told what is missing.
        let said = plugin.run(&["plan", "-f", &edit, "--context", "user"]).await?;
        assert_eq!((said.code, said.out.as_str()), (Some(1), ""), "{said:?}");
        has(&said.err, &["some of it could not be read: ", "nodes: nodes is forbidden", "\nhint: "])?;
        Ok(())
    }
}
