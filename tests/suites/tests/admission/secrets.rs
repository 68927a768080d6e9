//! Which Secrets the controller may make, read and change.

use anyhow::Result;
use berth_api::heartbeat_keys::SECRET;
use berth_api::names::{CONTROLLER_NAMESPACE, SPEAKER_NAMESPACE};
use berth_lab::{Lab, lab_test};
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{ListParams, PostParams};
use serde_json::json;

use crate::installed::{Installed, LAB, expect, make_secret, refusal};

lab_test! {
    LAB;
    async fn the_controller_makes_reads_and_changes_the_secret_of_the_heartbeats_and_no_other(lab: Lab) -> Result<()> {
        let installed = Installed::start(lab).await?;
        let Installed { controller, speaker_1, lab, .. } = &installed;
        let admin = lab.admin();
        let nothing = json!({});
        // Kubernetes writes a token of that account into such a Secret.
        let token = json!({
            "type": "kubernetes.io/service-account-token",
            "metadata": { "annotations": { "kubernetes.io/service-account.name": "berth-speaker" } },
        });
        let no_other = Some("berth-controller may create the Secret berth-heartbeat in namespace berth-speaker and no other");
        let forbidden = Some("is forbidden");
        for (says, client, namespace, name, more, expected) in [
            ("another one", controller, SPEAKER_NAMESPACE, "other", &nothing, no_other),
            ("a token", controller, SPEAKER_NAMESPACE, SECRET, &token, Some("must be of the type Opaque")),
            ("one beside itself", controller, CONTROLLER_NAMESPACE, SECRET, &nothing, forbidden),
            ("a speaker's", speaker_1, SPEAKER_NAMESPACE, SECRET, &nothing, forbidden),
            ("an administrator is not hindered", &admin, SPEAKER_NAMESPACE, "other", &nothing, None),
            ("the one", controller, SPEAKER_NAMESPACE, SECRET, &nothing, None),
        ] {
            expect(says, refusal(make_secret(client, namespace, name, more, false).await)?, expected)?;
        }

        let as_controller = Api::<Secret>::namespaced(controller.clone(), SPEAKER_NAMESPACE);
        let as_speaker = Api::<Secret>::namespaced(speaker_1.clone(), SPEAKER_NAMESPACE);
        let own = as_controller.get(SECRET).await?;
        expect("it is changed", refusal(as_controller.replace(SECRET, &PostParams::default(), &own).await)?, None)?;
        expect("another is not read", refusal(as_controller.get("other").await)?, forbidden)?;
        expect("nor are all", refusal(as_controller.list(&ListParams::default()).await)?, forbidden)?;
        expect("it is not deleted", refusal(as_controller.delete(SECRET, &kube::api::DeleteParams::default()).await)?, forbidden)?;
        expect("a speaker reads none", refusal(as_speaker.get(SECRET).await)?, forbidden)
    }
}
