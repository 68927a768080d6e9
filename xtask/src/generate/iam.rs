//! What the controller's role may do in a cloud, from the tables of calls: `deploy/aws/iam-policy.json`, `deploy/azure/role.json`.

use super::Generated;

/// The policy and the role.
pub fn files() -> anyhow::Result<[Generated; 2]> {
    let policy = serde_json::to_string_pretty(&berth_aws::policy::policy())?;
    let role = serde_json::to_string_pretty(&berth_azure::role::role())?;
    Ok([
        Generated::new("deploy/aws/iam-policy.json", policy + "\n"),
        Generated::new("deploy/azure/role.json", role + "\n"),
    ])
}
