//! Who may write which SpeakerNode.

use anyhow::Result;
use berth_api::names::SPEAKER_FIELD_MANAGER;
use berth_lab::{Lab, lab_test};
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::installed::{Installed, LAB, expect, refusal, speaker_nodes, write_speaker_node};

lab_test! {
    LAB;
    async fn a_speaker_writes_the_speaker_node_of_its_own_node_and_no_other(lab: Lab) -> Result<()> {
        let installed = Installed::start(lab).await?;
        let Installed { speaker_1, speaker_2, unbound, lab, .. } = &installed;
        let admin = lab.admin();
        let others = Some("the speaker of node node-1 may not write SpeakerNode node-2, which is another node's");
        let no_node = Some("the token of this speaker is bound to no pod on a node");
        for (says, client, name, expected) in [
            ("its own is made", speaker_1, "node-1", None),
            ("its own is written again", speaker_1, "node-1", None),
            ("another's cannot be made", speaker_1, "node-2", others),
            ("which its own speaker can", speaker_2, "node-2", None),
            ("nor written", speaker_1, "node-2", others),
            ("a token that was asked for by hand writes none", unbound, "node-1", no_node),
            ("not even of a node without a name", unbound, "node-3", no_node),
            ("an administrator is not hindered", &admin, "node-2", None),
        ] {
            expect(says, refusal(write_speaker_node(client, name, false).await)?, expected)?;
        }

        // What the nodes ask the wire for is the controller's word, and stays when a speaker writes the rest of the status.
        let write_status = async |client: &kube::Client, manager: &str, status: Value| {
            let object = json!({
                "apiVersion": "berth.dev/v1alpha1", "kind": "SpeakerNode", "metadata": { "name": "node-1" }, "status": status,
            });
            let params = PatchParams::apply(manager).force();
            refusal(speaker_nodes(client).patch_status("node-1", &params, &Patch::Apply(object)).await)
        };
        let sweep = Some("status.sweep is the controller's to write");
        let asked = json!({ "sweep": ["192.0.2.1"] });
        expect("a list of its own", write_status(speaker_1, SPEAKER_FIELD_MANAGER, asked.clone()).await?, sweep)?;
        expect("the controller's", write_status(&admin, "berth-controller", asked).await?, None)?;
        expect("none any more", write_status(speaker_1, "berth-controller", json!({})).await?, sweep)?;
        let condition = json!({ "conditions": [{
            "type": "KernelReady", "status": "True", "reason": "Ready", "message": "", "lastTransitionTime": "2026-11-28T00:00:00Z",
        }] });
        expect("what is its own", write_status(speaker_1, SPEAKER_FIELD_MANAGER, condition).await?, None)?;

        // RBAC gives a speaker neither: the policy holds where somebody grants more.
        let rule = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": { "name": "too-much" },
            "rules": [{ "apiGroups": ["berth.dev"], "resources": ["speakernodes"], "verbs": ["update", "delete"] }],
        });
        let binding = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": { "name": "too-much" },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "too-much" },
            "subjects": [{ "kind": "ServiceAccount", "namespace": "berth-speaker", "name": "berth-speaker" }],
        });
        let merge = Patch::Merge(json!({ "spec": { "version": "9" } }));
        let patched = speaker_nodes(speaker_1).patch("node-2", &PatchParams::default(), &merge).await;
        expect("a patch of another kind", refusal(patched)?, others)?;
        for object in [rule, binding] {
            lab.apply(&serde_json::from_value(object)?).await?;
        }
        lab.eventually("the further rights are there", crate::installed::SOON, async || {
            let dry_run = DeleteParams { dry_run: true, ..DeleteParams::default() };
            let answer = refusal(speaker_nodes(speaker_1).delete("node-1", &dry_run).await)?;
            Ok(answer.is_none().then_some(()))
        })
        .await?;
        let delete = async |name| refusal(speaker_nodes(speaker_1).delete(name, &DeleteParams::default()).await);
        expect("another's cannot be deleted", delete("node-2").await?, others)?;
        expect("its own can", delete("node-1").await?, None)
    }
}
