//! The rights that are shipped are those that are used: none is missing, and none is there that nobody needs.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use berth_api::heartbeat_keys::{ROTATE, ROTATED_AT, SECRET};
use berth_api::names::SPEAKER_NAMESPACE;
use berth_api::{Announcement, SpeakerNode};
use berth_lab::{Lab, PodSpec, Request, Workload, lab_test};
use k8s_openapi::api::core::v1::{Secret, Service};
use k8s_openapi::api::rbac::v1::PolicyRule;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

/// Longest wait for what takes well under a second on an idle machine.
const SOON: Duration = Duration::from_secs(30);

/// A pool, another one that is wrong, an advertisement, one that is wrong, and one of routes that is left to the first.
const OBJECTS: &str = "
{apiVersion: berth.dev/v1alpha1, kind: IPAddressPool, metadata: {name: default}, spec: {addresses: [192.0.2.200-192.0.2.209, '2001:db8:2::200-2001:db8:2::209']}}
---
{apiVersion: berth.dev/v1alpha1, kind: IPAddressPool, metadata: {name: wrong}, spec: {addresses: [192.0.2.220-192.0.2.210]}}
---
{apiVersion: berth.dev/v1alpha1, kind: L2Advertisement, metadata: {name: default}}
---
{apiVersion: berth.dev/v1alpha1, kind: L2Advertisement, metadata: {name: wrong}, spec: {ipAddressPools: [nowhere]}}
---
{apiVersion: berth.dev/v1alpha1, kind: RouteAdvertisement, metadata: {name: default}}
";

/// One right: of an account, in a namespace or everywhere, in a group, to do something with a kind of object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Right {
    account: String,
    /// That of the Role; none for what a ClusterRole gives.
    namespace: Option<String>,
    group: String,
    resource: String,
    verb: String,
}

lab_test! {
    async fn every_right_is_used_and_none_is_missing(lab: Lab) -> Result<()> {
        lab.install_berth().await?;
        live(&lab).await?;
        let rights = shipped()?;
        ensure!(rights.len() > 20, "{rights:?}");
        let limit = SOON;
        lab.eventually("every right is used", limit, async || {
            let asked = lab.audited()?;
            let refused: Vec<_> = asked.iter().filter(|request| request.code == 403).collect();
            ensure!(refused.is_empty(), "refused: {refused:#?}");
            // Whatever else the answer is, such as that an object is gone: who was let ask had the right.
            let granted = asked.iter().filter(|request| ![401, 403].contains(&request.code));
            let used: BTreeSet<_> = granted.flat_map(|request| rights_of(request, &rights)).collect();
            let unused: Vec<_> = rights.difference(&used).collect();
            ensure!(unused.is_empty(), "nobody uses: {unused:#?}");
            Ok(Some(()))
        })
        .await
    }
}

/// A node's heartbeats are lost again and again while it lives, so its partner gives it more time and says so.
async fn late(lab: &Lab) -> Result<()> {
    let counted = async |line: &'static str| {
        let metrics = lab.speaker_metrics("node-1").await?;
        let value = metrics.lines().find_map(|seen| seen.strip_prefix(line)?.trim().parse::<u64>().ok());
        value.with_context(|| format!("no {line}"))
    };
    for _ in 0..3 {
        let before = counted("berth_speaker_false_alarms_total ").await?;
        lab.drop_heartbeats_between("node-1", "node-2")?;
        lab.eventually("a false alarm", SOON, async || {
            Ok((counted("berth_speaker_false_alarms_total ").await? > before).then_some(()))
        })
        .await?;
        lab.restore_heartbeats_between("node-1", "node-2")?;
        lab.eventually("heard again", SOON, async || {
            Ok((counted("berth_speaker_partners_up ").await? == 1).then_some(()))
        })
        .await?;
    }
    let reports: Api<SpeakerNode> = Api::all(lab.admin());
    lab.eventually("the late partner is told", SOON, async || {
        let conditions = reports.get("node-1").await?.status.unwrap_or_default().conditions;
        Ok(conditions.into_iter().find(|c| c.type_ == "PartnersHeard" && c.status == "False"))
    })
    .await?;
    Ok(())
}

/// What happens in the life of an installation, in short.
async fn live(lab: &Lab) -> Result<()> {
    lab.apply_yaml(OBJECTS).await?;
    let services: Api<Service> = Api::default_namespaced(lab.admin());
    let announcements: Api<Announcement> = Api::all(lab.admin());
    for node in ["node-1", "node-2"] {
        lab.pod(PodSpec::new(format!("web-{node}"), node).label("app", "web")).await?;
    }
    services.create(&PostParams::default(), &service("web", json!({"externalTrafficPolicy": "Local"}))?).await?;
    lab.eventually("the address is answered for", SOON, async || {
        let announcement = announcements.get("192.0.2.200").await?;
        let status = announcement.status.clone().and_then(|status| status.layer2).context("nobody answers")?;
        let layer2 = announcement.spec.layer2.context("nobody is named")?;
        ensure!(layer2.owner.as_ref() == Some(&status.owner) && layer2.standbys.len() == 1, "not settled");
        Ok(Some(()))
    })
    .await?;

    // The owner changes to and fro: the same is said more than once.
    for _ in 0..4 {
        let answering = async || {
            let status = announcements.get("192.0.2.200").await?.status.and_then(|status| status.layer2);
            status.map(|status| status.owner).context("nobody answers")
        };
        let owner = answering().await?;
        lab.cut_link(&owner)?;
        // Somebody writes to the object all the time, so that what the new owner writes meets what it does not know of.
        tokio::select! {
            moved = lab.eventually("another one answers", SOON, async || {
                Ok(Some(answering().await?).filter(|now| *now != owner))
            }) => drop(moved?),
            error = scribble(&announcements) => error?,
        }
        lab.restore_link(&owner)?;
        lab.eventually("the former owner stands by", SOON, async || {
            let layer2 = announcements.get("192.0.2.200").await?.spec.layer2.context("nobody is named")?;
            Ok(layer2.standbys.contains(&owner).then_some(()))
        })
        .await?;
    }
    late(lab).await?;
    // A request is wrong, is mended, and is wrong again.
    for _ in 0..2 {
        for (wish, reason) in [("nonsense", "InvalidRequest"), ("192.0.2.205", "Allocated")] {
            let wish = json!({"metadata": {"annotations": {"berth.dev/load-balancer-ips": wish}}});
            services.patch("web", &PatchParams::default(), &Patch::Merge(wish)).await?;
            lab.eventually(reason, SOON, async || {
                let conditions = services.get("web").await?.status.and_then(|s| s.conditions).unwrap_or_default();
                Ok(conditions.into_iter().find(|c| c.type_ == "berth.dev/Allocated" && c.reason == reason))
            })
            .await?;
        }
    }
    // Somebody deletes what a speaker said.
    let reports: Api<SpeakerNode> = Api::all(lab.admin());
    let before = reports.get("node-3").await?.metadata.uid;
    reports.delete("node-3", &DeleteParams::default()).await?;
    lab.eventually("the report is written again", SOON, async || {
        Ok(reports.get_opt("node-3").await?.filter(|report| report.metadata.uid != before))
    })
    .await?;
    services.delete("web", &DeleteParams::default()).await?;
    // Somebody asks for a new key of the heartbeats, long after the last one; the next leader sees it.
    let secrets: Api<Secret> = Api::namespaced(lab.admin(), SPEAKER_NAMESPACE);
    let asked = json!({"metadata": {"annotations": {ROTATE: "now", ROTATED_AT: "2026-01-01T00:00:00Z"}}});
    secrets.patch(SECRET, &PatchParams::default(), &Patch::Merge(asked)).await?;
    lab.rollout_restart(Workload::Deployment).await
}

/// Changes an annotation as fast as it goes.
async fn scribble(announcements: &Api<Announcement>) -> Result<()> {
    for number in 0_u64.. {
        let change = json!({"metadata": {"annotations": {"example.com/number": number.to_string()}}});
        announcements.patch("192.0.2.200", &PatchParams::default(), &Patch::Merge(change)).await?;
    }
    Ok(())
}

fn service(name: &str, more: Value) -> Result<Service> {
    let mut spec = json!({
        "type": "LoadBalancer", "selector": {"app": name}, "ports": [{"port": 80, "targetPort": 8080}],
    });
    if let (Value::Object(spec), Value::Object(more)) = (&mut spec, more) {
        spec.extend(more);
    }
    Ok(serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec}))?)
}

/// The rights that a request used: a patch that creates needs the right to create too, and a Role of the namespace gives it before
/// a ClusterRole does, so that what is given twice is found to be used once.
fn rights_of(request: &Request, shipped: &BTreeSet<Right>) -> Vec<Right> {
    let Request { account, group, resource, verb, namespace, code, .. } = request.clone();
    let right = |verb: &str| {
        let everywhere = Right {
            account: account.clone(),
            namespace: None,
            group: group.clone(),
            resource: resource.clone(),
            verb: verb.to_owned(),
        };
        let here = Right { namespace: Some(namespace.clone()), ..everywhere.clone() };
        if shipped.contains(&here) { here } else { everywhere }
    };
    if verb == "patch" && code == 201 { vec![right("patch"), right("create")] } else { vec![right(&verb)] }
}

/// Every right in `deploy/rbac`.
fn shipped() -> Result<BTreeSet<Right>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/rbac");
    let mut rights = BTreeSet::new();
    for file in std::fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))? {
        let objects: Vec<Value> = serde_saphyr::from_multiple(&std::fs::read_to_string(file?.path())?)?;
        for object in objects.iter().filter(|object| object["rules"].is_array()) {
            // A role has the name of the account that it is bound to.
            let account = object["metadata"]["name"].as_str().context("a name")?;
            let namespace = object["metadata"]["namespace"].as_str();
            let rules: Vec<PolicyRule> = serde_json::from_value(object["rules"].clone())?;
            for rule in rules {
                for group in rule.api_groups.iter().flatten() {
                    for resource in rule.resources.iter().flatten() {
                        rights.extend(rule.verbs.iter().map(|verb| Right {
                            account: account.to_owned(),
                            namespace: namespace.map(str::to_owned),
                            group: group.clone(),
                            resource: resource.clone(),
                            verb: verb.clone(),
                        }));
                    }
                }
            }
        }
    }
    Ok(rights)
}
