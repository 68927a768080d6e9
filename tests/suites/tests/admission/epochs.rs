//! Epochs never fall, and the controller is not hindered in what it does.

use anyhow::Result;
use berth_api::{Announcement, IPAddressPool};
use berth_lab::{Lab, lab_test};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::installed::{Installed, LAB, expect, refusal};

lab_test! {
    LAB;
    async fn an_epoch_never_falls_whoever_writes(lab: Lab) -> Result<()> {
        let installed = Installed::start(lab).await?;
        let given = json!({ "owner": "node-1", "epoch": 5 });
        // The controller has no right to read one by one, because it watches all.
        let read = Api::<Announcement>::all(installed.lab.admin());
        for (client, first) in [(installed.controller.clone(), 10), (installed.lab.admin(), 20)] {
            let api = Api::<Announcement>::all(client);
            for ((says, layer2, expected), number) in [
                ("the same", json!({ "owner": "node-1", "epoch": 5 }), None),
                ("the next", json!({ "owner": "node-2", "epoch": 6 }), None),
                ("nobody, at the next", json!({ "epoch": 6 }), None),
                ("one less", json!({ "owner": "node-2", "epoch": 4 }), Some("an epoch never falls")),
                ("none, so that any could follow", Value::Null, Some("because its epoch, now 5, would be forgotten")),
            ].into_iter().zip(first..) {
                let name = installed.announcement(number, &given, &Value::Null).await?;
                let mut object = read.get(&name).await?;
                object.spec.layer2 = serde_json::from_value(layer2)?;
                expect(says, refusal(api.replace(&name, &PostParams::default(), &object).await)?, expected)?;
            }
        }
        Ok(())
    }
}

lab_test! {
    LAB;
    async fn the_controller_is_not_hindered(lab: Lab) -> Result<()> {
        let installed = Installed::start(lab).await?;
        let announcements = Api::<Announcement>::all(installed.controller.clone());
        let mut object: Announcement = serde_json::from_value(json!({
            "metadata": { "name": "192.0.2.10" },
            "spec": {
                "address": "192.0.2.10", "pool": "default",
                "services": [{ "namespace": "default", "name": "web", "uid": "0b7a" }],
            },
        }))?;
        object = announcements.create(&PostParams::default(), &object).await?;
        for epoch in [1, 2, 2] {
            let layer2 = json!({ "owner": format!("node-{epoch}"), "epoch": epoch });
            object.spec.layer2 = Some(serde_json::from_value(layer2)?);
            object = announcements.replace("192.0.2.10", &PostParams::default(), &object).await?;
        }
        announcements.delete("192.0.2.10", &DeleteParams::default()).await?;

        installed.lab.apply_yaml(&crate::installed::deploy("samples/pool.yaml")?).await?;
        let status = json!({
            "apiVersion": "berth.dev/v1alpha1", "kind": "IPAddressPool", "metadata": { "name": "default" },
            "status": { "conditions": [] },
        });
        let params = PatchParams::apply("berth-controller").force();
        let pools = Api::<IPAddressPool>::all(installed.controller.clone());
        pools.patch_status("default", &params, &Patch::Apply(status)).await?;

        // What elects the leader, and nobody else's Lease.
        let leases = Api::<k8s_openapi::api::coordination::v1::Lease>::namespaced(installed.controller.clone(), "berth-system");
        let lease = |name: &str| serde_json::from_value(json!({ "metadata": { "name": name } }));
        let held = leases.create(&PostParams::default(), &lease("berth-controller")?).await?;
        leases.replace("berth-controller", &PostParams::default(), &held).await?;
        let other = leases.create(&PostParams::default(), &lease("another")?).await?;
        let answer = refusal(leases.replace("another", &PostParams::default(), &other).await)?;
        expect("another Lease", answer, Some("cannot update resource \"leases\""))
    }
}
