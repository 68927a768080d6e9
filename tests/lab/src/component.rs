//! Kustomize components of `deploy/`, laid over its manifests: as much of kustomize as they use.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use kube::ResourceExt as _;
use kube::api::DynamicObject;
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Component {
    #[serde(rename = "apiVersion")]
    api_version: String,
    kind: String,
    patches: Vec<Patch>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Patch {
    target: Target,
    patch: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Target {
    kind: String,
    name: String,
    namespace: Option<String>,
}

/// An operation of a JSON patch (RFC 6902).
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Operation {
    op: String,
    path: String,
    value: Value,
}

/// Patches the objects as the component of this name says.
pub(crate) fn lay_over(objects: &mut [DynamicObject], name: &str) -> Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy").join(name).join("kustomization.yaml");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let component: Component = serde_saphyr::from_str(&text).with_context(|| format!("parsing {}", path.display()))?;
    let (version, kind) = (component.api_version.as_str(), component.kind.as_str());
    ensure!(
        (version, kind) == ("kustomize.config.k8s.io/v1alpha1", "Component"),
        "{}: {version} {kind}",
        path.display()
    );
    for Patch { target, patch } in component.patches {
        let is_it = |object: &&mut DynamicObject| {
            object.types.as_ref().is_some_and(|types| types.kind == target.kind)
                && object.name_any() == target.name
                && (target.namespace.is_none() || object.namespace() == target.namespace)
        };
        let what = || format!("{} {} of the component {name}", target.kind, target.name);
        let object = objects.iter_mut().find(is_it).with_context(|| format!("no such object: {}", what()))?;
        let operations: Vec<Operation> = serde_saphyr::from_str(&patch).with_context(what)?;
        for operation in operations {
            apply(&mut object.data, &operation).with_context(what)?;
        }
    }
    Ok(())
}

fn apply(data: &mut Value, Operation { op, path, value }: &Operation) -> Result<()> {
    let (parent, last) = path.rsplit_once('/').context("a path begins with a slash")?;
    let there = data.pointer(path).cloned();
    // As JSON pointers have slashes in names (RFC 6901).
    let last = last.replace("~1", "/").replace("~0", "~");
    let parent = data.pointer_mut(parent).with_context(|| format!("there is no {parent}"))?;
    match (op.as_str(), parent) {
        ("test", _) => ensure!(there.as_ref() == Some(value), "{path} is {there:?}, not {value}"),
        ("add", Value::Array(items)) if last == "-" => items.push(value.clone()),
        ("add", Value::Object(fields)) => drop(fields.insert(last, value.clone())),
        ("replace", Value::Object(fields)) if there.is_some() => drop(fields.insert(last, value.clone())),
        (op, _) => bail!("cannot {op} at {path}"),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn operations_change_what_they_name_and_fail_where_it_is_not_there() {
        let data = json!({"spec": {"list": ["a"], "name": "x"}});
        for (op, path, value, expected) in [
            ("add", "/spec/list/-", json!("b"), Some(json!({"spec": {"list": ["a", "b"], "name": "x"}}))),
            ("add", "/spec/more", json!(["c"]), Some(json!({"spec": {"list": ["a"], "name": "x", "more": ["c"]}}))),
            ("add", "/spec/a.b~1c", json!("d"), Some(json!({"spec": {"list": ["a"], "name": "x", "a.b/c": "d"}}))),
            ("replace", "/spec/name", json!("y"), Some(json!({"spec": {"list": ["a"], "name": "y"}}))),
            ("test", "/spec/name", json!("x"), Some(data.clone())),
            ("test", "/spec/name", json!("y"), None),
            ("replace", "/spec/gone", json!("y"), None),
            ("add", "/gone/-", json!("y"), None),
            ("remove", "/spec/name", json!(null), None),
        ] {
            let mut changed = data.clone();
            let operation = Operation { op: op.to_owned(), path: path.to_owned(), value };
            let done = apply(&mut changed, &operation).is_ok().then_some(changed);
            assert_eq!(done, expected, "{op} {path}");
        }
    }
}
