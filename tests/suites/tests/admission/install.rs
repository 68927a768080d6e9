//! The installation itself.

use anyhow::{Context as _, Result, ensure};
use berth_lab::{Lab, lab_test};
use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicy;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use serde_json::Value;

use crate::installed::{LAB, POLICIES, SOON, deploy, manifests};

/// What a person owns, as the API server has it.
struct Applied {
    what: String,
    /// Everything but what the API server counts and what controllers write.
    object: Value,
    /// Which fields are ours.
    managed: Value,
}

async fn apply(lab: &Lab, object: &DynamicObject) -> Result<Applied> {
    let types = object.types.as_ref().context("an object without a kind")?;
    let resource = ApiResource::from_gvk(&GroupVersionKind::try_from(types)?);
    let api: Api<DynamicObject> = match &object.metadata.namespace {
        Some(namespace) => Api::namespaced_with(lab.admin(), namespace, &resource),
        None => Api::all_with(lab.admin(), &resource),
    };
    let what = format!("{} {}", types.kind, object.name_any());
    let mut params = PatchParams::apply("installer");
    // Unknown and duplicate fields are refused, as kubectl has it.
    params.field_validation = Some(kube::api::ValidationDirective::Strict);
    let answer = api.patch(&object.name_any(), &params, &Patch::Apply(object)).await;
    let mut object = serde_json::to_value(answer.with_context(|| what.clone())?)?;
    let managed = object["metadata"]["managedFields"].take();
    let ours =
        managed.as_array().context("nobody has written it")?.iter().find(|entry| entry["manager"] == "installer");
    let managed = ours.context("it is not ours")?["fieldsV1"].clone();
    // What statuses make rise. `generation`, which every change of a specification makes rise, stays.
    object["metadata"]["resourceVersion"].take();
    object["status"].take();
    // What the Deployment controller writes there, a moment after the first time.
    let metadata = object["metadata"].as_object_mut().context("metadata")?;
    if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
        annotations.remove("deployment.kubernetes.io/revision");
        if annotations.is_empty() {
            metadata.remove("annotations");
        }
    }
    Ok(Applied { what, object, managed })
}

lab_test! {
    LAB;
    async fn what_is_shipped_is_taken_whole_and_a_second_time_without_a_change(lab: Lab) -> Result<()> {
        let objects = manifests()?;
        let mut first = Vec::new();
        for object in &objects {
            first.push(apply(&lab, object).await?);
        }
        for (object, first) in objects.iter().zip(first) {
            let second = apply(&lab, object).await?;
            ensure!(
                (&first.object, &first.managed) == (&second.object, &second.managed),
                "{} changed:\n{}\n{}\n{}\n{}", first.what, first.object, first.managed, second.object, second.managed
            );
        }
        // The kinds are served a moment after they were applied.
        let pool = deploy("samples/pool.yaml")?;
        lab.eventually("the sample of a pool", SOON, async || Ok(Some(lab.apply_yaml(&pool).await?))).await?;
        for sample in ["samples/services.yaml", "samples/mock-service.yaml"] {
            let services: Vec<DynamicObject> = serde_saphyr::from_multiple(&deploy(sample)?)?;
            for mut service in services {
                service.metadata.namespace = Some("default".to_owned());
                apply(&lab, &service).await?;
            }
        }
        Ok(())
    }
}

lab_test! {
    LAB;
    async fn the_expressions_of_the_policies_fit_the_types_that_they_speak_of(lab: Lab) -> Result<()> {
        let (policies, rest): (Vec<_>, Vec<_>) = manifests()?.into_iter().partition(is_policy);
        for object in &rest {
            lab.apply(object).await?;
        }
        // Kubernetes checks a policy once and passes over a kind whose schema it does not have yet. So first one that is wrong,
        // each time a little otherwise, until that is found out.
        let mut attempt = 0;
        lab.eventually("a wrong expression is found out", SOON, async || {
            attempt += 1;
            lab.apply_yaml(&WRONG.replace("ATTEMPT", &attempt.to_string())).await?;
            Ok((!warnings(&lab, "wrong").await?.is_empty()).then_some(()))
        })
        .await?;
        // Nor does it look where a rule speaks of a subresource, so what is checked is a copy that speaks of the resource.
        for mut policy in policies {
            for rule in rules(&mut policy)? {
                for resource in rule["resources"].as_array_mut().context("a rule without resources")? {
                    let name = resource.as_str().context("a resource without a name")?;
                    *resource = name.split('/').next().unwrap_or(name).into();
                }
            }
            lab.apply(&policy).await?;
        }
        for name in POLICIES {
            let warnings = warnings(&lab, name).await?;
            ensure!(warnings.is_empty(), "{name}: {warnings:?}");
        }
        Ok(())
    }
}

const WRONG: &str = "
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: wrong}
spec:
  matchConstraints:
    resourceRules:
    - {apiGroups: [berth.dev], apiVersions: [v1alpha1], operations: [UPDATE], resources: [announcements]}
  validations:
  - {expression: object.spec.layer3 == ATTEMPT}
";

fn rules(policy: &mut DynamicObject) -> Result<&mut Vec<Value>> {
    policy.data["spec"]["matchConstraints"]["resourceRules"].as_array_mut().context("a policy without rules")
}

fn is_policy(object: &DynamicObject) -> bool {
    object.types.as_ref().is_some_and(|types| types.kind == "ValidatingAdmissionPolicy")
}

/// What Kubernetes has to say about the expressions of a policy as it is now, once it has looked. Of variables it says nothing; that
/// they fit shows where they are used.
async fn warnings(lab: &Lab, name: &str) -> Result<Vec<String>> {
    let policies = Api::<ValidatingAdmissionPolicy>::all(lab.admin());
    lab.eventually(name, SOON, async || {
        let policy = policies.get(name).await?;
        let status = policy.status.filter(|status| status.observed_generation == policy.metadata.generation);
        let checked = status.and_then(|status| status.type_checking);
        Ok(checked.map(|checked| checked.expression_warnings.into_iter().flatten().map(|w| w.warning).collect()))
    })
    .await
}
