//! What Berth's processes asked of the API server, as the API server itself wrote it down.

use std::fs;

use anyhow::{Context as _, Result};
use serde::Deserialize;
use serde_json::json;

use crate::lab::Lab;

/// The audit log's name among the logs.
pub(crate) const AUDIT_LOG: &str = "audit";

/// A request of one of Berth's processes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The name of the ServiceAccount.
    pub account: String,
    /// The pod that it was made from.
    pub pod: String,
    /// What was asked for: `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`.
    pub verb: String,
    /// The API group; empty for the core group.
    pub group: String,
    /// The resource, with its subresource: `services/status`.
    pub resource: String,
    /// The namespace, where there is one.
    pub namespace: String,
    /// The object's name, where one is named.
    pub name: String,
    /// The status of the answer.
    pub code: u16,
}

impl Lab {
    /// Every request of Berth's processes so far that was answered, oldest first; a watch counts from its first answer.
    pub fn audited(&self) -> Result<Vec<Request>> {
        let path = self.run_dir().log(AUDIT_LOG);
        let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        // The last line may be in the making.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().filter_map(|line| read(line).transpose()).collect()
    }
}

/// The policy: who asked for what, of Berth's own accounts alone.
pub(crate) fn policy(groups: &[String]) -> serde_json::Value {
    json!({
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": [{ "level": "Metadata", "userGroups": groups }, { "level": "None" }],
    })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    stage: String,
    verb: String,
    user: User,
    object_ref: Option<ObjectRef>,
    response_status: Option<Status>,
}

#[derive(Deserialize)]
struct User {
    username: String,
    #[serde(default)]
    extra: std::collections::BTreeMap<String, Vec<String>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct ObjectRef {
    resource: String,
    namespace: String,
    name: String,
    api_group: String,
    subresource: String,
}

#[derive(Deserialize)]
struct Status {
    #[serde(default)]
    code: u16,
}

fn read(line: &str) -> Result<Option<Request>> {
    let line: Line = serde_json::from_str(line).with_context(|| format!("reading a line of the audit log: {line}"))?;
    let Some(object) = line.object_ref else { return Ok(None) };
    // A watch is answered when it begins; its end says nothing new.
    let answered = line.stage == "ResponseComplete" && line.verb != "watch" || line.stage == "ResponseStarted";
    if !answered {
        return Ok(None);
    }
    let pod = line.user.extra.get("authentication.kubernetes.io/pod-name").and_then(|names| names.first());
    let resource = match object.subresource.as_str() {
        "" => object.resource,
        sub => format!("{}/{sub}", object.resource),
    };
    Ok(Some(Request {
        account: line.user.username.rsplit(':').next().unwrap_or_default().to_owned(),
        pod: pod.cloned().unwrap_or_default(),
        verb: line.verb,
        group: object.api_group,
        resource,
        namespace: object.namespace,
        name: object.name,
        code: line.response_status.map(|status| status.code).unwrap_or_default(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_when_it_tells_of_an_answer() {
        let line = |stage: &str, verb: &str| {
            json!({
                "stage": stage, "verb": verb,
                "user": {
                    "username": "system:serviceaccount:berth-system:berth-controller",
                    "extra": {"authentication.kubernetes.io/pod-name": ["berth-controller-1"]},
                },
                "objectRef": {"resource": "services", "subresource": "status", "namespace": "shop", "name": "web"},
                "responseStatus": {"code": 200},
            })
            .to_string()
        };
        let read_one = read(&line("ResponseComplete", "patch")).unwrap().unwrap();
        assert_eq!((read_one.account.as_str(), read_one.pod.as_str()), ("berth-controller", "berth-controller-1"));
        assert_eq!((read_one.resource.as_str(), read_one.code), ("services/status", 200));
        for (stage, verb, told) in [
            ("ResponseStarted", "watch", true),
            ("ResponseComplete", "watch", false),
            ("RequestReceived", "get", false),
            ("Panic", "get", false),
        ] {
            assert_eq!(read(&line(stage, verb)).unwrap().is_some(), told, "{stage} {verb}");
        }
    }
}
